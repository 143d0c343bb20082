//! When each session was last used: a cell of shared memory per session, beside LMDB, so that a `get` slides the idle
//! deadline exactly and at once for all processes, and still needs no write transaction.
//!
//! ```text
//! cell = 0: free
//!      | generation (16 bits), whether it is being ended (1 bit), milliseconds of the last use (47 bits)
//!      | generation and 0: the session was found expired
//! ```
//! A record names its cell and the cell's generation, which tells a reader of an old snapshot that the cell is another
//! session's by now. Cells are taken and freed under the write transaction only. A cell that is freed too late because
//! its process died is lost until the store's next beginning; one that is lost with its file costs nothing but a write,
//! because the record's own time stands then.
//!
//! Readers take no lock, so the cell is also where a use and the end of a session meet: whoever finds a session expired, or
//! ends it for others to have room, marks its cell, and does so only while the last use is the one that was looked at;
//! whoever uses or writes a session notes it first, and cannot if the cell is marked. So nobody sees a session dead and
//! another one uses it afterwards, whatever their clocks said when they began.
//!
//! What has expired stays so. What is ended for others lives on if its writer is killed before the commit: who meets that
//! mark waits for the writer, under the write lock, and takes it back if it is still there. A session that gets other timeouts
//! is moved to another cell in the same way: nobody finds it expired by the old ones after its writer has begun to commit.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::session::key::LookupKey;

/// A session's cell. Number 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub cell: u32,
    pub generation: u16,
}

/// What a cell says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The last use.
    At(i64),
    /// The same, while a writer is about to end the session for others to have room, or to give it another cell.
    Ending(i64),
    /// The session was found expired.
    Dead,
    /// The session has no cell.
    Unknown,
}

#[derive(Clone, Copy)]
pub(super) struct Touches<'a> {
    pub cells: &'a [AtomicU64],
    pub generations: &'a AtomicU32,
}

const TIME_BITS: u32 = 47;
const TIME: u64 = (1 << TIME_BITS) - 1;
const ENDING: u64 = 1 << TIME_BITS;
const GENERATION_SHIFT: u32 = TIME_BITS + 1;

/// A time that a cell can hold.
fn fits(ms: i64) -> Option<u64> {
    u64::try_from(ms).ok().filter(|ms| (1..=TIME).contains(ms))
}

fn cell(generation: u16, rest: u64) -> u64 {
    u64::from(generation) << GENERATION_SHIFT | rest
}

impl Touches<'_> {
    /// Where the cell of a session is, or near there: known before its record is, so that it can be on its way meanwhile.
    pub(super) fn home(&self, key: &LookupKey) -> usize {
        // Not the end of the key by which LMDB's tree is ordered: sessions that lie together should not crowd here.
        (key.1 as u64 % self.cells.len().max(1) as u64) as usize
    }

    /// Takes a free cell for a session that was used now. Under the write transaction.
    pub(super) fn take(&self, key: &LookupKey, now: i64) -> Place {
        let Some(ms) = fits(now) else { return Place::default() };
        let (count, first) = (self.cells.len(), self.home(key));
        // Never 0, so that no cell in use looks free.
        let generation = (self.generations.fetch_add(1, Ordering::Relaxed) % 0xFFFF) as u16 + 1;
        // More cells than sessions fit into the file, so one is free soon.
        for at in (first..count).chain(0..first).filter(|&at| at > 0) {
            if self.cells[at].load(Ordering::Relaxed) == 0 {
                self.cells[at].store(cell(generation, ms), Ordering::Release);
                return Place { cell: at as u32, generation };
            }
        }
        Place::default()
    }

    /// Frees the cell of a session that is gone. Under the write transaction, or for a session that nobody has seen.
    pub(super) fn free(&self, place: Place) {
        if let Some((at, _)) = self.find(place) {
            at.store(0, Ordering::Release);
        }
    }

    pub(super) fn seen(&self, place: Place) -> Seen {
        match self.find(place) {
            None => Seen::Unknown,
            Some((_, 0)) => Seen::Dead,
            Some((_, rest)) if rest & ENDING != 0 => Seen::Ending((rest & TIME) as i64),
            Some((_, ms)) => Seen::At(ms as i64),
        }
    }

    /// Notes a use. `Some(before)`: it is noted, and what was there before; `None`: the session has died, or is about to.
    pub(super) fn slide(&self, place: Place, now: i64) -> Option<i64> {
        loop {
            let Seen::At(before) = self.seen(place) else { return None };
            if fits(now).is_none() || now <= before || self.change(place, Seen::At(before), now as u64) {
                return Some(before);
            }
        }
    }

    /// Takes back a use, unless there was a later one.
    pub(super) fn slide_back(&self, place: Place, from: i64, to: i64) {
        if fits(from).is_some() {
            self.change(place, Seen::At(from), to as u64);
        }
    }

    /// Marks a session as found expired, if its last use is still the one that was seen. False: look again.
    pub(super) fn expire(&self, place: Place, seen: Seen) -> bool {
        seen == Seen::Unknown || self.change(place, seen, 0)
    }

    /// Marks a session as being ended, if its last use is still the one that was seen. Under the write transaction.
    pub(super) fn end(&self, place: Place, seen: Seen) -> bool {
        match seen {
            Seen::At(ms) => self.change(place, seen, ENDING | ms as u64),
            _ => true,
        }
    }

    /// Takes back that a session was being ended: nothing was committed. Under the write lock, or by the writer himself.
    pub(super) fn revive(&self, place: Place) {
        if let seen @ Seen::Ending(ms) = self.seen(place) {
            self.change(place, seen, ms as u64);
        }
    }

    /// Whether a use at this time can be noted in a cell.
    pub(super) fn can_note(now: i64) -> bool {
        fits(now).is_some()
    }

    /// Writes a session's cell if it is still as it was seen.
    fn change(&self, place: Place, seen: Seen, new: u64) -> bool {
        let old = match seen {
            Seen::At(ms) => ms as u64,
            Seen::Ending(ms) => ENDING | ms as u64,
            Seen::Dead | Seen::Unknown => return false,
        };
        let Some((at, _)) = self.find(place) else { return false };
        let (old, new) = (cell(place.generation, old), cell(place.generation, new));
        at.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The cell, and what is in it beside the generation, if it is this session's.
    fn find(&self, place: Place) -> Option<(&AtomicU64, u64)> {
        let at = self.cells.get(place.cell as usize).filter(|_| place.cell > 0)?;
        let value = at.load(Ordering::Acquire);
        let is_its = value >> GENERATION_SHIFT == u64::from(place.generation) && place.generation > 0;
        is_its.then_some((at, value & (ENDING | TIME)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cells(Vec<AtomicU64>, AtomicU32);

    const KEY: LookupKey = LookupKey(1, 5);

    impl Cells {
        fn new(count: usize) -> Cells {
            Cells((0..count).map(|_| AtomicU64::new(0)).collect(), AtomicU32::new(0))
        }

        fn touches(&self) -> Touches<'_> {
            Touches { cells: &self.0, generations: &self.1 }
        }
    }

    #[test]
    fn a_use_is_noted_and_time_never_goes_back() {
        let cells = Cells::new(8);
        let place = cells.touches().take(&KEY, 100);
        assert_eq!(cells.touches().seen(place), Seen::At(100));
        assert_eq!(cells.touches().slide(place, 150), Some(100));
        assert_eq!(cells.touches().slide(place, 120), Some(150));
        assert_eq!(cells.touches().seen(place), Seen::At(150));
        cells.touches().slide_back(place, 120, 100);
        assert_eq!(cells.touches().seen(place), Seen::At(150), "a later use stays");
        cells.touches().slide_back(place, 150, 100);
        assert_eq!(cells.touches().seen(place), Seen::At(100));
    }

    #[test]
    fn an_ended_session_cannot_be_used_and_a_used_one_not_be_ended_unseen() {
        let cells = Cells::new(8);
        let place = cells.touches().take(&KEY, 100);
        let seen = cells.touches().seen(place);
        cells.touches().slide(place, 101);
        assert!(!cells.touches().end(place, seen));
        assert!(cells.touches().end(place, Seen::At(101)));
        assert_eq!(cells.touches().seen(place), Seen::Ending(101));
        assert_eq!(cells.touches().slide(place, 102), None);
        cells.touches().revive(place);
        assert_eq!(cells.touches().slide(place, 102), Some(101));
        assert!(!cells.touches().expire(place, Seen::At(101)));
        assert!(cells.touches().expire(place, Seen::At(102)));
        cells.touches().revive(place);
        assert_eq!(cells.touches().seen(place), Seen::Dead, "what has expired stays so");
        assert_eq!(cells.touches().slide(place, 103), None);
    }

    #[test]
    fn a_cell_that_is_anothers_by_now_is_not_touched() {
        let cells = Cells::new(2);
        let old = cells.touches().take(&KEY, 100);
        cells.touches().free(old);
        let new = cells.touches().take(&KEY, 200);
        assert_eq!(old.cell, new.cell);
        assert_eq!(cells.touches().seen(old), Seen::Unknown);
        assert_eq!(cells.touches().slide(old, 300), None);
        cells.touches().free(old);
        assert_eq!(cells.touches().seen(new), Seen::At(200));
    }

    #[test]
    fn when_no_cell_is_left_or_the_time_does_not_fit_there_is_none() {
        let cells = Cells::new(3);
        let places = [1, 2, 3].map(|now| cells.touches().take(&KEY, now));
        assert_eq!(places[2], Place::default());
        assert_eq!(cells.touches().seen(places[2]), Seen::Unknown);
        cells.touches().free(places[0]);
        assert_eq!(cells.touches().take(&KEY, i64::MAX), Place::default());
        assert_eq!(cells.touches().take(&KEY, 0), Place::default());
        assert_ne!(cells.touches().take(&KEY, 4), Place::default());
    }
}
