//! When each session was last used: a slot of shared memory per session, beside LMDB, so that a
//! `get` slides the idle deadline exactly and at once for all processes without a write
//! transaction.
//!
//! ```text
//! slot = 0: free
//!      | generation (16 bits), whether the session is being ended (1 bit), milliseconds of the last use (47 bits)
//!      | generation and 0: the session was found expired
//! ```
//! A record names its slot and the slot's generation, which tells a reader of an old snapshot that
//! the slot belongs to another session by now. Slots are allocated and freed under the write
//! transaction only. A slot that is not freed because its process died is lost until the next time
//! that one process opens the store alone. If the slots are lost with their file, each session
//! costs one write more: the time in its record is used then.
//!
//! Readers take no lock, so a use and the end of a session meet in the slot. A thread that finds a
//! session expired, or ends it to make room, marks the slot, and only if the last use is still the
//! one that it has seen. A thread that uses or writes a session notes the use first, and fails if
//! the slot is marked. So no thread sees a session dead and another one uses it afterwards,
//! whatever their clocks said when they began.
//!
//! The mark of an expired session stays. A session that is ended to make room lives on if its
//! writer is killed before the commit: a reader that finds this mark waits for the write lock, and
//! removes the mark if it is still there. A session whose timeouts change is moved to another slot
//! in the same way: no thread finds it expired by its old timeouts after its writer has begun to
//! commit.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::session::key::LookupKey;

/// The slot of a session. Number 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct SlotRef {
    pub index: u32,
    pub generation: u16,
}

/// What a slot says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum SlotState {
    LastUsed(i64),
    /// The last use, while a writer is about to end the session to make room, or to move it to
    /// another slot.
    Ending(i64),
    /// The session was found expired.
    Expired,
    /// The session has no slot.
    Missing,
}

#[derive(Clone, Copy)]
pub(in super::super) struct LastUsedTable<'a> {
    slots: &'a [AtomicU64],
    next_generation: &'a AtomicU32,
}

const TIME_BITS: u32 = 47;
const TIME: u64 = (1 << TIME_BITS) - 1;
const ENDING: u64 = 1 << TIME_BITS;
const GENERATION_SHIFT: u32 = TIME_BITS + 1;

/// A time that a slot can hold.
fn encode_time(ms: i64) -> Option<u64> {
    u64::try_from(ms).ok().filter(|ms| (1..=TIME).contains(ms))
}

fn slot_value(generation: u16, state: u64) -> u64 {
    u64::from(generation) << GENERATION_SHIFT | state
}

impl<'a> LastUsedTable<'a> {
    pub(super) fn new(slots: &'a [AtomicU64], next_generation: &'a AtomicU32) -> LastUsedTable<'a> {
        LastUsedTable { slots, next_generation }
    }

    /// Where the slot of a session is, or near there: known before its record is, so that it can be
    /// fetched meanwhile.
    pub(super) fn home_address(&self, key: &LookupKey) -> *const u8 {
        self.slots.as_ptr().wrapping_add(self.home(key)).cast()
    }

    fn home(&self, key: &LookupKey) -> usize {
        // Not the end of the key by which LMDB's tree is ordered: sessions that lie together should
        // not crowd here.
        (key.1 as u64 % self.slots.len().max(1) as u64) as usize
    }

    /// Takes a free slot for a session that was used now. Under the write transaction.
    pub(in super::super) fn allocate(&self, key: &LookupKey, now: i64) -> SlotRef {
        let Some(ms) = encode_time(now) else { return SlotRef::default() };
        let count = self.slots.len();
        let home = self.home(key);
        // Never 0, so that no slot in use looks free.
        let generation = (self.next_generation.fetch_add(1, Ordering::Relaxed) % 0xFFFF) as u16 + 1;
        // There are more slots than sessions fit into the file, so a free one is near.
        for index in (home..count).chain(0..home).filter(|&index| index > 0) {
            if self.slots[index].load(Ordering::Relaxed) == 0 {
                self.slots[index].store(slot_value(generation, ms), Ordering::Release);
                return SlotRef { index: index as u32, generation };
            }
        }
        SlotRef::default()
    }

    /// Frees the slot of a session that is gone. Under the write transaction, or for a session that
    /// no thread has seen.
    pub(in super::super) fn free(&self, slot: SlotRef) {
        if let Some((value, _)) = self.find(slot) {
            value.store(0, Ordering::Release);
        }
    }

    pub(in super::super) fn state(&self, slot: SlotRef) -> SlotState {
        match self.find(slot) {
            None => SlotState::Missing,
            Some((_, 0)) => SlotState::Expired,
            Some((_, state)) if state & ENDING != 0 => SlotState::Ending((state & TIME) as i64),
            Some((_, ms)) => SlotState::LastUsed(ms as i64),
        }
    }

    /// Notes a use, and returns the last use before it; `None` if the session has ended or is about
    /// to.
    pub(in super::super) fn touch(&self, slot: SlotRef, now: i64) -> Option<i64> {
        loop {
            let SlotState::LastUsed(before) = self.state(slot) else { return None };
            let Some(ms) = encode_time(now).filter(|_| now > before) else { return Some(before) };
            if self.compare_exchange(slot, SlotState::LastUsed(before), ms) {
                return Some(before);
            }
        }
    }

    /// Lowers a last use that is ahead of the clock.
    pub(in super::super) fn lower(&self, slot: SlotRef, now: i64) {
        while let seen @ SlotState::LastUsed(ms) = self.state(slot)
            && ms > now
            && let Some(lowered) = encode_time(now)
            && !self.compare_exchange(slot, seen, lowered)
        {}
    }

    /// Takes back the use at `noted`, unless there was a later one.
    pub(in super::super) fn undo_touch(&self, slot: SlotRef, noted: i64, before: i64) {
        if encode_time(noted).is_some() {
            self.compare_exchange(slot, SlotState::LastUsed(noted), before as u64);
        }
    }

    /// Marks a session as expired, if its last use is still the one that was seen. False: look
    /// again.
    pub(in super::super) fn mark_expired(&self, slot: SlotRef, seen: SlotState) -> bool {
        seen == SlotState::Missing || self.compare_exchange(slot, seen, 0)
    }

    /// Marks a session as being ended, if its last use is still the one that was seen. Under the
    /// write transaction.
    pub(in super::super) fn mark_ending(&self, slot: SlotRef, seen: SlotState) -> bool {
        match seen {
            SlotState::LastUsed(ms) => self.compare_exchange(slot, seen, ENDING | ms as u64),
            _ => true,
        }
    }

    /// Removes the mark of a session that was being ended: nothing was committed. Under the write
    /// lock, or by the writer.
    pub(in super::super) fn unmark_ending(&self, slot: SlotRef) {
        if let seen @ SlotState::Ending(ms) = self.state(slot) {
            self.compare_exchange(slot, seen, ms as u64);
        }
    }

    /// Whether a slot can hold this time.
    pub(in super::super) fn can_hold(now: i64) -> bool {
        encode_time(now).is_some()
    }

    /// Writes a session's slot if its state is still the one that was seen.
    fn compare_exchange(&self, slot: SlotRef, seen: SlotState, new: u64) -> bool {
        let old = match seen {
            SlotState::LastUsed(ms) => ms as u64,
            SlotState::Ending(ms) => ENDING | ms as u64,
            SlotState::Expired | SlotState::Missing => return false,
        };
        let Some((value, _)) = self.find(slot) else { return false };
        let old = slot_value(slot.generation, old);
        let new = slot_value(slot.generation, new);
        value.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The slot, and what is in it beside the generation, if it belongs to this session.
    fn find(&self, slot: SlotRef) -> Option<(&AtomicU64, u64)> {
        let slot_in_table = self.slots.get(slot.index as usize).filter(|_| slot.index > 0)?;
        let value = slot_in_table.load(Ordering::Acquire);
        let has_generation = value >> GENERATION_SHIFT == u64::from(slot.generation) && slot.generation > 0;
        has_generation.then_some((slot_in_table, value & (ENDING | TIME)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slots(Vec<AtomicU64>, AtomicU32);

    const KEY: LookupKey = LookupKey(1, 5);

    impl Slots {
        fn new(count: usize) -> Slots {
            Slots((0..count).map(|_| AtomicU64::new(0)).collect(), AtomicU32::new(0))
        }

        fn table(&self) -> LastUsedTable<'_> {
            LastUsedTable::new(&self.0, &self.1)
        }
    }

    #[test]
    fn touch_never_moves_time_back() {
        let slots = Slots::new(8);
        let table = slots.table();
        let slot = table.allocate(&KEY, 100);
        assert_eq!(table.state(slot), SlotState::LastUsed(100));
        assert_eq!(table.touch(slot, 150), Some(100));
        assert_eq!(table.touch(slot, 120), Some(150));
        assert_eq!(table.state(slot), SlotState::LastUsed(150));
        table.undo_touch(slot, 120, 100);
        assert_eq!(table.state(slot), SlotState::LastUsed(150), "a later use stays");
        table.undo_touch(slot, 150, 100);
        assert_eq!(table.state(slot), SlotState::LastUsed(100));
    }

    #[test]
    fn marks_exclude_touches() {
        let slots = Slots::new(8);
        let table = slots.table();
        let slot = table.allocate(&KEY, 100);
        let seen = table.state(slot);
        table.touch(slot, 101);
        assert!(!table.mark_ending(slot, seen));
        assert!(table.mark_ending(slot, SlotState::LastUsed(101)));
        assert_eq!(table.state(slot), SlotState::Ending(101));
        assert_eq!(table.touch(slot, 102), None);
        table.unmark_ending(slot);
        assert_eq!(table.touch(slot, 102), Some(101));
        assert!(!table.mark_expired(slot, SlotState::LastUsed(101)));
        assert!(table.mark_expired(slot, SlotState::LastUsed(102)));
        table.unmark_ending(slot);
        assert_eq!(table.state(slot), SlotState::Expired, "an expired session stays expired");
        assert_eq!(table.touch(slot, 103), None);
    }

    #[test]
    fn reused_slot_ignores_old_reference() {
        let slots = Slots::new(2);
        let table = slots.table();
        let old = table.allocate(&KEY, 100);
        table.free(old);
        let new = table.allocate(&KEY, 200);
        assert_eq!(old.index, new.index);
        assert_eq!(table.state(old), SlotState::Missing);
        assert_eq!(table.touch(old, 300), None);
        table.free(old);
        assert_eq!(table.state(new), SlotState::LastUsed(200));
    }

    #[test]
    fn full_table_allocates_no_slot() {
        let slots = Slots::new(3);
        let table = slots.table();
        let allocated = [1, 2, 3].map(|now| table.allocate(&KEY, now));
        assert_eq!(allocated[2], SlotRef::default());
        assert_eq!(table.state(allocated[2]), SlotState::Missing);
        table.free(allocated[0]);
        assert_eq!(table.allocate(&KEY, i64::MAX), SlotRef::default());
        assert_eq!(table.allocate(&KEY, 0), SlotRef::default());
        assert_ne!(table.allocate(&KEY, 4), SlotRef::default());
    }
}
