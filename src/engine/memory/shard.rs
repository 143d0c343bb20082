//! One shard: the sessions whose keys fall into it. Every method runs under the shard's lock. What
//! spans shards (principals, renewal, limits) does not belong here.
//!
//! Invariant: the index has one entry for each slot in use that was linked, and no other.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    aliases::{Aliases, OldKeys},
    alloc::pool::Pool,
    index::{Index, tag_of},
    slab::{DueCursor, Slab, SlotAddress},
};
use crate::{
    error::Result,
    session::{
        header::{RecordHeader, try_to_vec},
        key::PrincipalKey,
        policy::StepTime,
    },
};

pub(super) struct Shard {
    index: Index,
    pub slab: Slab,
    pub aliases: Aliases,
    /// Where creates continue to clear expired neighbours.
    pub create_cursor: DueCursor,
    /// Reads that found a session, and that did not. Counted here because the lock is held anyway.
    pub hits: u64,
    pub misses: u64,
}

/// The sessions that one hold of the lock removes at most. So few that waiting threads seldom
/// sleep, because waking takes far longer.
pub(super) const MAX_REMOVED_PER_HOLD: usize = 8;

/// Filled in place: it is too large to be moved.
pub(super) type RemovedSessions = SmallVec<[RemovedSession; MAX_REMOVED_PER_HOLD]>;

/// The work that one hold of the lock may do.
pub(super) struct RemovalBudget {
    /// Slots to visit.
    pub visits: u32,
    /// Sessions to remove.
    pub removals: u64,
}

/// What is left to account for after a session was taken out of its shard.
pub(super) struct RemovedSession {
    pub key: u128,
    pub principal: Option<PrincipalKey>,
    /// The length of its payload as it was stored.
    pub stored_len: usize,
    /// Ended by `revoke_all`, not by its timeouts.
    pub is_revoked: bool,
    /// The keys of its aliases, in whatever shards they are.
    pub old_keys: OldKeys,
}

impl Shard {
    pub(super) fn new(pool: Arc<Pool>) -> Shard {
        Shard {
            index: Index::new(Arc::clone(&pool)),
            slab: Slab::new(pool),
            aliases: Aliases::default(),
            create_cursor: DueCursor::default(),
            hits: 0,
            misses: 0,
        }
    }

    /// Whether a session or an alias has this key.
    pub(super) fn contains(&self, key: u128) -> bool {
        self.find(key).is_some() || self.aliases.contains(key)
    }

    /// Begins to fetch the index line of a key.
    pub(super) fn prefetch(&self, key: u128) {
        self.index.prefetch(tag_of(key));
    }

    /// The slot of the session with this key, expired or not.
    pub(super) fn find(&self, key: u128) -> Option<SlotAddress> {
        let slot = self.index.find(tag_of(key), |slot| {
            self.slab.prefetch(SlotAddress(slot));
            self.slab.key(SlotAddress(slot)) == key
        })?;
        Some(SlotAddress(slot))
    }

    /// The session with this key, unless it has expired.
    pub(super) fn find_live(&self, key: u128, time: &StepTime) -> Option<(SlotAddress, RecordHeader)> {
        let slot = self.find(key)?;
        let header = self.slab.header(slot);
        header.is_live(time).then_some((slot, header))
    }

    /// Stores a session that is not found until it is linked. Everything that can fail happens
    /// here.
    pub(super) fn insert_unlinked(
        &mut self,
        key: u128,
        header: &RecordHeader,
        label: &[u8],
        deadline: i64,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<SlotAddress> {
        self.index.reserve(tag_of(key))?;
        self.slab.insert(key, header, label, deadline, len, fill)
    }

    /// Links a session that was inserted. Its key is not taken.
    pub(super) fn link(&mut self, key: u128, slot: SlotAddress) {
        debug_assert!(self.find(key).is_none());
        self.index.insert(tag_of(key), slot.0);
    }

    /// Replaces header and payload of the session in `slot`, which keeps its label: in place if they
    /// fit its size class. `deadlines` are the session's before and after.
    pub(super) fn update(
        &mut self,
        key: u128,
        slot: SlotAddress,
        header: &RecordHeader,
        deadlines: [i64; 2],
        len: usize,
        fill: impl Fn(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if self.slab.overwrite(slot, header, len, &fill)? {
            // The scheduled deadline is not later than the old one. It stays valid unless the new
            // one is earlier.
            if deadlines[1] < deadlines[0] {
                self.slab.schedule(slot, deadlines[1]);
            }
        } else {
            let label = try_to_vec(self.slab.label(slot))?;
            let new = self.insert_unlinked(key, header, &label, deadlines[1], len, fill)?;
            self.replace(key, slot, new);
        }
        Ok(())
    }

    /// Replaces the session in slot `old` by an unlinked one with the same key.
    pub(super) fn replace(&mut self, key: u128, old: SlotAddress, new: SlotAddress) {
        self.index.relocate(tag_of(key), old.0, new.0);
        self.slab.remove(old);
    }

    /// Removes and wipes the session with this key, expired or not.
    pub(super) fn remove(&mut self, key: u128) -> Option<RemovedSession> {
        let slot = self.find(key)?;
        Some(self.remove_slot(key, slot, false))
    }

    fn remove_slot(&mut self, key: u128, slot: SlotAddress, is_revoked: bool) -> RemovedSession {
        debug_assert_eq!(self.slab.key(slot), key, "the index points at another session");
        let principal = self.slab.header(slot).principal;
        let stored_len = self.slab.payload(slot).len();
        self.index.remove(tag_of(key), slot.0);
        self.slab.remove(slot);
        RemovedSession { key, principal, stored_len, is_revoked, old_keys: self.aliases.take_old_keys(key) }
    }

    /// Removes sessions that have expired, or that `revoke_all` has ended, from the cursor on, and
    /// adds them to `removed`. If visits of the budget are left, there are no more.
    pub(super) fn remove_expired(
        &mut self,
        time: &StepTime,
        cursor: &mut DueCursor,
        budget: &mut RemovalBudget,
        removed: &mut RemovedSessions,
    ) {
        loop {
            // In three passes, so that the cache misses of all sessions overlap.
            let mut due: SmallVec<[SlotAddress; MAX_REMOVED_PER_HOLD]> = SmallVec::new();
            while budget.visits > 0
                && (due.len() as u64) < budget.removals
                && let Some(slot) = self.slab.next_due(cursor, time.now)
            {
                budget.visits -= 1;
                self.slab.prefetch(slot);
                due.push(slot);
            }
            if due.is_empty() {
                return;
            }
            due.retain(|&mut slot| {
                let header = self.slab.header(slot);
                if header.is_live(time) {
                    self.slab.schedule(slot, header.deadline(time.timeouts));
                    return false;
                }
                self.index.prefetch(tag_of(self.slab.key(slot)));
                true
            });
            budget.removals -= due.len() as u64;
            for &slot in &due {
                let is_revoked = !self.slab.header(slot).has_expired(time);
                removed.push(self.remove_slot(self.slab.key(slot), slot, is_revoked));
            }
        }
    }

    /// Moves sessions together so that memory can be given back. Each costs one of the `budget`; if
    /// that is used up, there may be more to do.
    pub(super) fn compact(&mut self, budget: &mut u32) {
        if self.index.shrink() {
            *budget = 0;
        }
        while *budget > 0
            && let Some(moved) = self.slab.compact()
        {
            self.index.relocate(tag_of(moved.key), moved.from.0, moved.to.0);
            *budget -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.index.check();
        self.slab.check(self.index.len());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::session::{
        header::NEVER_AUTHENTICATED,
        label::MAX_STORED_LABEL,
        policy::{FOREVER, NONE_REVOKED, Timeouts},
    };

    const TIMEOUTS: Timeouts = Timeouts { absolute: FOREVER, idle: 1000 };

    fn header(now: i64, principal: Option<u128>) -> RecordHeader {
        RecordHeader {
            version: 1,
            created: now,
            authenticated: NEVER_AUTHENTICATED,
            counted_from: now,
            last_seen: now,
            own: Timeouts { absolute: 0, idle: 0 },
            principal: principal.map(|key| PrincipalKey(key, 0)),
        }
    }

    /// Of every length, also none, if the session has a principal.
    fn label(key: u128, principal: Option<u128>) -> Vec<u8> {
        principal.map_or_else(Vec::new, |_| payload(key, key as usize % (MAX_STORED_LABEL + 1)))
    }

    /// Bytes that depend on the key.
    fn payload(key: u128, len: usize) -> Vec<u8> {
        (0..len).map(|i| (key as usize + i) as u8).collect()
    }

    fn create(shard: &mut Shard, key: u128, now: i64, len: usize, principal: Option<u128>) {
        let fill = |out: &mut [u8]| {
            out.copy_from_slice(&payload(key, len));
            Ok(())
        };
        // Never authenticated, at the creation, and later.
        let authenticated = [NEVER_AUTHENTICATED, now, now + 1][key as usize % 3];
        let header = RecordHeader { authenticated, ..header(now, principal) };
        let label = label(key, principal);
        let slot = shard.insert_unlinked(key, &header, &label, now + TIMEOUTS.idle, len, fill).unwrap();
        shard.link(key, slot);
    }

    fn check_all(shard: &Shard, model: &HashMap<u128, usize>) {
        shard.check();
        for (&key, &len) in model {
            let slot = shard.find(key).expect("a live session");
            assert!(shard.slab.payload(slot) == payload(key, len));
            let principal = shard.slab.header(slot).principal;
            assert!(shard.slab.label(slot) == label(key, principal.map(|principal| principal.0)));
        }
    }

    /// Sizes of all classes and above, writes that change the class, sweeps and compaction, against
    /// a map.
    #[test]
    fn random_history_matches_a_map() {
        for seed in 1..=2 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut shard = Shard::new(Pool::new());
            let mut model: HashMap<u128, usize> = HashMap::new();
            let mut last_seen: HashMap<u128, i64> = HashMap::new();
            let mut now = 0;
            for step in 0..20_000 {
                now += random.random_range(0..2) as i64;
                let len = match random.random_range(0..20) {
                    0 => random.random_range(0..20_000) as usize,
                    1..4 => random.random_range(0..2_000) as usize,
                    _ => random.random_range(0..300) as usize,
                };
                let some_key =
                    model.keys().nth(random.random_range(0..model.len().clamp(1, 40) as u64) as usize).copied();
                // Grows to some thousands, then shrinks to almost nothing, twice.
                let grows = step % 10_000 < 6_000;
                match (random.random_range(0..10), some_key) {
                    (0..6, _) if grows => {
                        let key = random.random::<u128>();
                        let principal = (random.random_range(0..3) == 0).then_some(key);
                        create(&mut shard, key, now, len, principal);
                        model.insert(key, len);
                        last_seen.insert(key, now);
                    }
                    (6, Some(key)) => {
                        let slot = shard.find(key).unwrap();
                        let before = shard.slab.header(slot);
                        let authenticated = if len % 8 == 0 { now } else { before.authenticated };
                        let header = RecordHeader { last_seen: now, authenticated, ..before };
                        let deadlines = [before, header].map(|header| header.deadline(TIMEOUTS));
                        let fill = |out: &mut [u8]| {
                            out.copy_from_slice(&payload(key, len));
                            Ok(())
                        };
                        shard.update(key, slot, &header, deadlines, len, fill).unwrap();
                        let after = shard.slab.header(shard.find(key).unwrap());
                        assert_eq!((after.authenticated, after.principal), (authenticated, before.principal));
                        model.insert(key, len);
                        last_seen.insert(key, now);
                    }
                    (7, Some(key)) => {
                        let slot = shard.find(key).unwrap();
                        shard.slab.set_last_seen(slot, now);
                        last_seen.insert(key, now);
                    }
                    (8, _) => {
                        let time = StepTime { now, timeouts: TIMEOUTS, revoked_until: NONE_REVOKED };
                        let mut removed = RemovedSessions::new();
                        let mut budget = RemovalBudget { visits: u32::MAX, removals: u64::MAX };
                        shard.remove_expired(&time, &mut DueCursor::default(), &mut budget, &mut removed);
                        for session in removed {
                            assert!(last_seen[&session.key] + 1000 <= now);
                            assert_eq!(model.remove(&session.key), Some(session.stored_len));
                        }
                        assert!(model.keys().all(|key| now < last_seen[key] + 1000), "an expired session is left");
                    }
                    (9, _) => shard.compact(&mut (random.random_range(0..200) as u32)),
                    (_, Some(key)) => {
                        let removed = shard.remove(key).unwrap();
                        assert_eq!(model.remove(&key), Some(removed.stored_len));
                    }
                    _ => {}
                }
                if step % 1000 == 0 {
                    check_all(&shard, &model);
                }
            }
            shard.compact(&mut { u32::MAX });
            check_all(&shard, &model);
        }
    }

    #[test]
    fn remove_expired_skips_sessions_in_use() {
        let mut shard = Shard::new(Pool::new());
        let mut random = StdRng::seed_from_u64(3);
        let keys: Vec<u128> = (0..20).map(|_| random.random::<u128>()).collect();
        keys.iter().for_each(|&key| create(&mut shard, key, 0, 10, None));
        for key in &keys[..19] {
            let slot = shard.find(*key).unwrap();
            shard.slab.set_last_seen(slot, 500);
        }
        let time = StepTime { now: 1000, timeouts: TIMEOUTS, revoked_until: NONE_REVOKED };
        let mut removed = RemovedSessions::new();
        let mut budget = RemovalBudget { visits: 100, removals: 1 };
        shard.remove_expired(&time, &mut DueCursor::default(), &mut budget, &mut removed);
        assert_eq!(removed.iter().map(|session| session.key).collect::<Vec<_>>(), keys[19..]);
    }

    #[test]
    fn compaction_frees_most_chunks() {
        let mut shard = Shard::new(Pool::new());
        let mut random = StdRng::seed_from_u64(7);
        let keys: Vec<u128> = (0..20_000).map(|_| random.random::<u128>()).collect();
        keys.iter().for_each(|&key| create(&mut shard, key, 0, 256, None));
        let full = shard.slab.chunks_in_use();
        let model: HashMap<u128, usize> = keys.iter().step_by(10).map(|&key| (key, 256)).collect();
        keys.iter().filter(|key| !model.contains_key(key)).for_each(|&key| assert!(shard.remove(key).is_some()));
        let mut steps = 0;
        loop {
            let mut budget = 16;
            shard.compact(&mut budget);
            steps += 1;
            if budget > 0 {
                break;
            }
        }
        check_all(&shard, &model);
        let left = shard.slab.chunks_in_use();
        assert!(left * 7 <= full, "{left} of {full} chunks after {steps} steps");
    }
    /// Of a large store only the pages stay that the sessions left need, also where they are of
    /// every size.
    #[test]
    #[cfg(target_os = "linux")]
    fn few_sessions_of_every_size_need_few_pages() {
        let mut random = StdRng::seed_from_u64(5);
        let mut keys_of = |count: usize| -> Vec<(u128, usize)> {
            (0..count).map(|_| (random.random::<u128>(), random.random_range(0..8_000))).collect()
        };
        let keys = keys_of(1_250);
        let resident = |kept: &[(u128, usize)], removed: &[(u128, usize)]| {
            let pool = Pool::new();
            let mut shard = Shard::new(Arc::clone(&pool));
            kept.iter().chain(removed).for_each(|&(key, len)| create(&mut shard, key, 0, len, None));
            removed.iter().for_each(|(key, _)| drop(shard.remove(*key)));
            for _ in 0..100 {
                shard.compact(&mut { 1000 });
                while pool.trim() > 0 {}
            }
            check_all(&shard, &kept.iter().copied().collect());
            assert!(shard.slab.chunks_in_use() <= kept.len());
            pool.resident_bytes()
        };
        let (kept, removed) = keys.split_at(16);
        let fresh = resident(kept, &[]);
        let shrunk = resident(kept, removed);
        assert!(shrunk <= 2 * fresh + (3 << 20), "{shrunk} bytes, {fresh} in a new store");
        let (none, all) = keys.split_at(0);
        assert!(resident(none, all) <= 3 << 20);
    }
}
