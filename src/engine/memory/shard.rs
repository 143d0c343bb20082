//! One shard: the sessions whose keys fall into it. Everything here happens under the shard's lock; what spans shards
//! (principals, renewal, limits) is in the parent module.
//!
//! Invariant: the table has one entry for each slot in use that was linked, and no other.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    aliases::Aliases,
    expiry::Cursor,
    pool::Pool,
    slots::{Address, Slots},
    table::{Table, tag_of},
};
use crate::{
    error::Result,
    session::{header::RecordHeader, key::PrincipalKey, policy::StepTime},
};

pub(super) struct Shard {
    table: Table,
    pub slots: Slots,
    pub aliases: Aliases,
    /// Where creates go on clearing expired neighbours.
    pub neighbours: Cursor,
    /// Reads that found a session, and that did not: counted here because the lock is held anyway.
    pub hits: u64,
    pub misses: u64,
}

/// As many sessions as one visit takes out at the most: few enough that who waits for the shard is seldom put to sleep, from
/// which waking takes far longer.
pub(super) const MOST_EXPIRED: usize = 8;

/// To be filled where it is: so much is not to be moved about.
pub(super) type Expired = SmallVec<[Gone; MOST_EXPIRED]>;

/// What is left to settle of a session that was taken out.
pub(super) struct Gone {
    pub key: u128,
    pub principal: Option<PrincipalKey>,
    /// The bytes that were stored of its payload.
    pub stored_len: usize,
}

impl Shard {
    pub(super) fn new(pool: Arc<Pool>) -> Shard {
        Shard {
            table: Table::new(Arc::clone(&pool)),
            slots: Slots::new(pool),
            aliases: Aliases::default(),
            neighbours: Cursor::default(),
            hits: 0,
            misses: 0,
        }
    }

    /// Whether the key is taken, by a session or by an alias.
    pub(super) fn holds(&self, key: u128) -> bool {
        self.find(key).is_some() || self.aliases.holds(key)
    }

    /// Begins to fetch the table's line of a key.
    pub(super) fn prefetch(&self, key: u128) {
        self.table.prefetch(tag_of(key));
    }

    /// Where the session with this key lies, living or not.
    pub(super) fn find(&self, key: u128) -> Option<Address> {
        self.table.find(tag_of(key), |at| {
            self.slots.prefetch(at);
            self.slots.key(at) == key
        })
    }

    /// The session with this key, unless it has expired.
    pub(super) fn living(&self, key: u128, moment: &StepTime) -> Option<(Address, RecordHeader)> {
        let at = self.find(key)?;
        let header = self.slots.header(at);
        header.is_live(moment).then_some((at, header))
    }

    /// Stores a session that nobody finds until it is linked: all that can fail, so that nothing else has to.
    pub(super) fn prepare(
        &mut self,
        key: u128,
        header: &RecordHeader,
        deadline: i64,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Address> {
        self.table.reserve(tag_of(key))?;
        self.slots.store(key, header, deadline, len, fill)
    }

    /// Links a session that was prepared. Its key is not taken.
    pub(super) fn link(&mut self, key: u128, at: Address) {
        debug_assert!(self.find(key).is_none());
        self.table.insert(tag_of(key), at);
    }

    /// Writes another header and payload over the session at `at`: in its slot if they fit its size class. `deadlines` are
    /// the session's before and after.
    pub(super) fn update(
        &mut self,
        key: u128,
        at: Address,
        header: &RecordHeader,
        deadlines: [i64; 2],
        len: usize,
        fill: impl Fn(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if self.slots.overwrite(at, header, len, &fill)? {
            // What was armed is not later than the old deadline: it stands, and need not even be looked at.
            if deadlines[1] < deadlines[0] {
                self.slots.arm(at, deadlines[1]);
            }
        } else {
            let moved = self.prepare(key, header, deadlines[1], len, fill)?;
            self.replace(key, at, moved);
        }
        Ok(())
    }

    /// Puts a prepared session in the place of the one at `old`.
    pub(super) fn replace(&mut self, key: u128, old: Address, new: Address) {
        self.table.moved(tag_of(key), old, new);
        self.slots.free(old);
    }

    /// Takes out the session with this key, living or not, and wipes it.
    pub(super) fn remove(&mut self, key: u128) -> Option<Gone> {
        let at = self.find(key)?;
        Some(self.remove_at(key, at))
    }

    fn remove_at(&mut self, key: u128, at: Address) -> Gone {
        debug_assert_eq!(self.slots.key(at), key, "the table points at another session");
        let gone = Gone { key, principal: self.slots.header(at).principal, stored_len: self.slots.payload(at).len() };
        self.table.remove(tag_of(key), at);
        self.slots.free(at);
        gone
    }

    /// Takes up to `max` expired sessions from the cursor on out, and adds them to `gone`. Each slot looked at takes one of the
    /// `budget`; when that is used up there may be more to find.
    pub(super) fn take_expired(
        &mut self,
        moment: &StepTime,
        cursor: &mut Cursor,
        budget: &mut u32,
        max: u64,
        gone: &mut Expired,
    ) {
        let before = gone.len();
        loop {
            // In three passes, so that the memory of all of them is on its way at once.
            let mut due: SmallVec<[Address; MOST_EXPIRED]> = SmallVec::new();
            while *budget > 0
                && ((gone.len() - before + due.len()) as u64) < max
                && let Some((chunk, number)) = self.slots.expiry.due(cursor, moment.now)
            {
                *budget -= 1;
                let at = self.slots.address(chunk, number);
                self.slots.prefetch(at);
                due.push(at);
            }
            if due.is_empty() {
                return;
            }
            due.retain(|&mut at| {
                let deadline = self.slots.header(at).deadline(moment.timeouts);
                if deadline > moment.now {
                    self.slots.arm(at, deadline);
                    return false;
                }
                self.table.prefetch(tag_of(self.slots.key(at)));
                true
            });
            for &at in &due {
                gone.push(self.remove_at(self.slots.key(at), at));
            }
        }
    }

    /// Forgets ended aliases, and moves sessions together so that memory can be given back, each for one of the `budget`.
    pub(super) fn tidy(&mut self, now: i64, budget: &mut u32) {
        self.aliases.clear_ended(now, budget);
        if self.table.shrink() {
            *budget = 0;
        }
        while *budget > 0
            && let Some(moved) = self.slots.compact()
        {
            self.table.moved(tag_of(moved.key), moved.from, moved.to);
            *budget -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.table.check();
        self.slots.check(self.table.len());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::session::policy::{FOREVER, Timeouts};

    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }

        fn key(&mut self) -> u128 {
            u128::from(self.below(u64::MAX)) << 64 | u128::from(self.below(u64::MAX))
        }
    }

    const TIMEOUTS: Timeouts = Timeouts { absolute: FOREVER, idle: 1000 };

    fn header(now: i64, principal: Option<u128>) -> RecordHeader {
        let own = Timeouts { absolute: 0, idle: 0 };
        RecordHeader {
            version: 1,
            created: now,
            last_seen: now,
            own,
            principal: principal.map(|key| PrincipalKey(key, 0)),
        }
    }

    /// Bytes that tell what they belong to.
    fn payload(key: u128, len: usize) -> Vec<u8> {
        (0..len).map(|i| (key as usize + i) as u8).collect()
    }

    fn create(shard: &mut Shard, key: u128, now: i64, len: usize, principal: Option<u128>) {
        let fill = |out: &mut [u8]| {
            out.copy_from_slice(&payload(key, len));
            Ok(())
        };
        let at = shard.prepare(key, &header(now, principal), now + TIMEOUTS.idle, len, fill).unwrap();
        shard.link(key, at);
    }

    fn check_all(shard: &Shard, model: &HashMap<u128, usize>) {
        shard.check();
        for (&key, &len) in model {
            let at = shard.find(key).expect("a session that lives");
            assert!(shard.slots.payload(at) == payload(key, len));
        }
    }

    /// Sizes of all classes and beyond, writes that change class, sweeps and compaction, against a map; all invariants
    /// checked again and again.
    #[test]
    fn random_histories_keep_every_invariant_and_every_payload() {
        for seed in 1..=2 {
            let mut random = Random(0x9E37_79B9_7F4A_7C15 >> seed);
            let mut shard = Shard::new(Pool::new());
            let mut model: HashMap<u128, usize> = HashMap::new();
            let mut last_seen: HashMap<u128, i64> = HashMap::new();
            let mut now = 0;
            for step in 0..20_000 {
                now += random.below(2) as i64;
                let len = match random.below(20) {
                    0 => random.below(20_000) as usize,
                    1..4 => random.below(2_000) as usize,
                    _ => random.below(300) as usize,
                };
                let some_key = model.keys().nth(random.below(model.len().clamp(1, 40) as u64) as usize).copied();
                // Grows to some thousands, then shrinks to next to nothing, again and again.
                let grows = step % 10_000 < 6_000;
                match (random.below(10), some_key) {
                    (0..6, _) if grows => {
                        let key = random.key();
                        let principal = (random.below(3) == 0).then_some(key);
                        create(&mut shard, key, now, len, principal);
                        model.insert(key, len);
                        last_seen.insert(key, now);
                    }
                    (6, Some(key)) => {
                        let at = shard.find(key).unwrap();
                        let before = shard.slots.header(at);
                        let header = RecordHeader { last_seen: now, ..before };
                        let fill = |out: &mut [u8]| {
                            out.copy_from_slice(&payload(key, len));
                            Ok(())
                        };
                        shard
                            .update(
                                key,
                                at,
                                &header,
                                [before, header].map(|header| header.deadline(TIMEOUTS)),
                                len,
                                fill,
                            )
                            .unwrap();
                        model.insert(key, len);
                        last_seen.insert(key, now);
                    }
                    (7, Some(key)) => {
                        let at = shard.find(key).unwrap();
                        shard.slots.set_last_seen(at, now);
                        last_seen.insert(key, now);
                    }
                    (8, _) => {
                        let moment = StepTime { now, timeouts: TIMEOUTS };
                        let (mut cursor, mut budget) = (Cursor::default(), u32::MAX);
                        let mut gone = Expired::new();
                        shard.take_expired(&moment, &mut cursor, &mut budget, u64::MAX, &mut gone);
                        for gone in gone {
                            assert!(last_seen[&gone.key] + 1000 <= now);
                            assert_eq!(model.remove(&gone.key), Some(gone.stored_len));
                        }
                        assert!(model.keys().all(|key| now < last_seen[key] + 1000), "the sweep left an expired one");
                    }
                    (9, _) => shard.tidy(now, &mut (random.below(200) as u32)),
                    (_, Some(key)) => {
                        let gone = shard.remove(key).unwrap();
                        assert_eq!(model.remove(&key), Some(gone.stored_len));
                    }
                    _ => {}
                }
                if step % 1000 == 0 {
                    check_all(&shard, &model);
                }
            }
            shard.tidy(now, &mut { u32::MAX });
            check_all(&shard, &model);
        }
    }

    #[test]
    fn a_small_max_passes_by_sessions_that_were_used_again() {
        let mut shard = Shard::new(Pool::new());
        let mut random = Random(3);
        let keys: Vec<u128> = (0..20).map(|_| random.key()).collect();
        keys.iter().for_each(|&key| create(&mut shard, key, 0, 10, None));
        for key in &keys[..19] {
            let at = shard.find(*key).unwrap();
            shard.slots.set_last_seen(at, 500);
        }
        let moment = StepTime { now: 1000, timeouts: TIMEOUTS };
        let mut gone = Expired::new();
        shard.take_expired(&moment, &mut Cursor::default(), &mut 100, 1, &mut gone);
        assert_eq!(gone.iter().map(|gone| gone.key).collect::<Vec<_>>(), keys[19..]);
    }

    #[test]
    fn after_most_are_gone_compaction_gives_most_chunks_back() {
        let mut shard = Shard::new(Pool::new());
        let mut random = Random(7);
        let keys: Vec<u128> = (0..20_000).map(|_| random.key()).collect();
        keys.iter().for_each(|&key| create(&mut shard, key, 0, 256, None));
        let full = shard.slots.chunks_in_use();
        let model: HashMap<u128, usize> = keys.iter().step_by(10).map(|&key| (key, 256)).collect();
        keys.iter().filter(|key| !model.contains_key(key)).for_each(|&key| assert!(shard.remove(key).is_some()));
        let mut steps = 0;
        loop {
            let mut budget = 16;
            shard.tidy(0, &mut budget);
            steps += 1;
            if budget > 0 {
                break;
            }
        }
        check_all(&shard, &model);
        let left = shard.slots.chunks_in_use();
        assert!(left * 7 <= full, "{left} of {full} chunks after {steps} steps");
    }
}
