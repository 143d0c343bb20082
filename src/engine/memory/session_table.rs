//! All sessions of a store: shards by key, each behind its own lock, with the index of principals
//! and the quota. Knows no clock and no counters; both come with the context of a step.
//!
//! Locking: `revoked_until` first, the principals' locks next (see `principals`), then shards from
//! the lowest to the highest.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

use super::{
    aliases::OldKeys,
    alloc::{mapping::MappedSlice, pool::Pool},
    principals::PrincipalIndex,
    quota::{Quota, Usage},
    shard::{RemovalBudget, RemovedSession, RemovedSessions, Shard},
    slab::{DueCursor, SlotAddress},
};
use crate::{
    engine::Context,
    error::{Error, ErrorKind, Result},
    session::{alias::AliasWalk, header::RecordHeader, key::LookupKey, policy::StepTime},
    stats::Count,
    sync::backoff_mutex::{BackoffMutex, BackoffMutexGuard},
};

/// Four shards per processor, so that threads seldom meet, within these bounds: more shards make a
/// small store larger. With 32 instead of 16, each of a thousand sessions takes some 150 bytes
/// more, and two threads meet half as often.
const SHARDS: RangeInclusive<usize> = 32..=64;
/// Slots that a create visits to look for expired sessions: more than one, so that a store that is
/// never swept shrinks.
const VISITS_PER_CREATE: u32 = 4;

pub(super) struct SessionTable {
    shards: MappedSlice<ShardLock>,
    pub principals: PrincipalIndex,
    pub quota: Quota,
    pub pool: Arc<Pool>,
    /// How much longer a stored payload is than the caller's. The latter is counted and limited.
    overhead: usize,
    /// The number of sweeps so far.
    pub sweeps: AtomicUsize,
    /// Held by the `revoke_all` that is at work: up to when it, or the last one, ends sessions.
    pub revoked_until: Mutex<i64>,
    /// The number of sessions that `revoke_all` has ended so far.
    pub revoked: AtomicU64,
}

/// On two cache lines of its own: the prefetcher fetches pairs.
#[repr(align(128))]
pub(super) struct ShardLock(BackoffMutex<Shard>);

pub(super) type ShardGuard<'a> = BackoffMutexGuard<'a, Shard>;

/// A live session that a key reads, perhaps over aliases, in its locked shard.
pub(super) struct Resolved<'a> {
    pub shard: ShardGuard<'a>,
    pub slot: SlotAddress,
    pub header: RecordHeader,
    pub time: StepTime,
    pub walk: AliasWalk,
}

impl ShardLock {
    #[inline]
    pub(super) fn lock(&self) -> ShardGuard<'_> {
        self.0.lock()
    }
}

impl SessionTable {
    pub(super) fn new(overhead: usize) -> Result<SessionTable> {
        let processors = available_parallelism().map_or(*SHARDS.start(), |processors| processors.get());
        let shards = (4 * processors).next_power_of_two().clamp(*SHARDS.start(), *SHARDS.end());
        let pool = Pool::new();
        let shard = || ShardLock(BackoffMutex::new(Shard::new(Arc::clone(&pool))));
        Ok(SessionTable {
            shards: MappedSlice::new(shards, shard).ok_or_else(Error::no_memory)?,
            principals: PrincipalIndex::default(),
            quota: Quota::default(),
            pool,
            overhead,
            sweeps: AtomicUsize::new(0),
            revoked_until: Mutex::new(0),
            revoked: AtomicU64::new(0),
        })
    }

    /// The length of the caller's payload of which `stored_len` bytes are stored.
    pub(super) fn payload_len(&self, stored_len: usize) -> u64 {
        stored_len.saturating_sub(self.overhead) as u64
    }

    /// What one session with so many stored bytes counts.
    pub(super) fn usage_of(&self, stored_len: usize) -> Usage {
        Usage { sessions: 1, bytes: self.payload_len(stored_len) }
    }

    pub(super) fn shards(&self) -> &[ShardLock] {
        &self.shards
    }

    /// All shards, in turn from the one with this number (modulo their count) on.
    pub(super) fn shards_from(&self, first: usize) -> impl Iterator<Item = &ShardLock> {
        (0..self.shards.len()).map(move |i| &self.shards[first.wrapping_add(i) % self.shards.len()])
    }

    pub(super) fn shard_number(&self, key: u128) -> usize {
        (key >> 64) as usize & (self.shards.len() - 1)
    }

    pub(super) fn lock(&self, key: u128) -> ShardGuard<'_> {
        self.shards[self.shard_number(key)].lock()
    }

    /// The live session that a key reads, over aliases if need be. Its shard stays locked: once
    /// unlocked, the session might be renewed again.
    pub(super) fn resolve(&self, cx: &Context, key: u128) -> Option<Resolved<'_>> {
        let mut walk = AliasWalk::from(LookupKey(key, 0));
        // Ends, because a target's id is always made after the alias's.
        loop {
            let key = walk.key.0;
            let shard = self.lock(key);
            let time = cx.step_time();
            // The clock may have moved since the last step of the walk, and another thread may have
            // written since.
            if walk.has_ended(time.now) {
                return None;
            }
            if let Some((slot, header)) = shard.find_live(key, &time) {
                return Some(Resolved { shard, slot, header, time, walk });
            }
            walk.follow(shard.aliases.find(key, time.now)?.clone());
        }
    }

    /// Gives the quota of removed sessions back. Called under their shard's lock, so that a step
    /// that found the store full and then nothing expired can rely on it.
    pub(super) fn release_quota(&self, removed: &[RemovedSession]) {
        if !removed.is_empty() {
            let bytes = removed.iter().map(|session| self.payload_len(session.stored_len)).sum();
            self.quota.release(Usage { sessions: removed.len() as u64, bytes });
        }
    }

    /// Removes what refers to removed sessions. Called without a principal's or shard's lock.
    pub(super) fn remove_references(&self, removed: &[RemovedSession]) {
        for session in removed {
            if let Some(principal) = session.principal {
                self.principals.remove(principal, session.key);
            }
            self.remove_aliases(&session.old_keys);
        }
    }

    /// Removes the aliases of a session that was removed or renewed. Called without a shard's lock.
    pub(super) fn remove_aliases(&self, old_keys: &OldKeys) {
        for key in old_keys.keys() {
            self.lock(key).aliases.remove(key);
        }
    }

    /// Removes expired sessions from a locked shard, as many as the budget allows, and counts them.
    pub(super) fn remove_expired(
        &self,
        cx: &Context,
        time: &StepTime,
        shard: &mut Shard,
        cursor: &mut DueCursor,
        budget: &mut RemovalBudget,
        removed: &mut RemovedSessions,
    ) {
        let before = removed.len();
        shard.remove_expired(time, cursor, budget, removed);
        let removed = &removed[before..];
        self.release_quota(removed);
        let revoked = removed.iter().filter(|session| session.is_revoked).count() as u64;
        self.count_revoked(cx, revoked);
        cx.counters.add(Count::Expired, removed.len() as u64 - revoked);
    }

    /// Counts sessions that `revoke_all` has ended: this call, or another one that has found them.
    pub(super) fn count_revoked(&self, cx: &Context, revoked: u64) {
        if revoked > 0 {
            self.revoked.fetch_add(revoked, Ordering::Relaxed);
            cx.counters.add(Count::Revoked, revoked);
        }
    }

    /// Removes a few expired sessions from a shard in which one was created, because only creates
    /// make a store grow.
    pub(super) fn remove_expired_neighbours(
        &self,
        cx: &Context,
        time: &StepTime,
        shard: &mut Shard,
        removed: &mut RemovedSessions,
    ) {
        let mut cursor = shard.create_cursor;
        let mut budget = RemovalBudget { visits: VISITS_PER_CREATE, removals: u64::MAX };
        self.remove_expired(cx, time, shard, &mut cursor, &mut budget, removed);
        shard.create_cursor = cursor;
        shard.aliases.remove_ended(time.now, &mut budget.visits);
    }
}

pub(super) fn key_is_taken() -> Error {
    Error::fixed(ErrorKind::Exists, "the new id is taken")
}
