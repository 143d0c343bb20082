//! What removes expired and revoked sessions in bulk, and gives memory back. Takes the shards in turn and holds
//! each lock for a short time only: the locks are not fair, so a longer hold, or taking the same
//! lock again at once, would keep other threads out.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{
    session_table::SessionTable,
    shard::{MAX_REMOVED_PER_HOLD, RemovalBudget, RemovedSessions},
    slab::DueCursor,
};
use crate::{
    engine::Context,
    error::{Error, ErrorKind, Result},
    session::policy::NONE_REVOKED,
    sync::ignore_poison,
};

/// Slots that a sweep visits per hold of a shard's lock.
const VISITS_PER_HOLD: u32 = MAX_REMOVED_PER_HOLD as u32;
/// Sessions that compaction moves per hold. A move takes three times as long as a removal.
const MOVES_PER_HOLD: u32 = 5;
/// A chunk that is given back to the kernel takes as long as so many moves.
const MOVES_PER_RELEASED_CHUNK: u64 = 4;
/// Expired sessions that are removed at once when a store is full.
const REMOVED_WHEN_FULL: u64 = 64;

impl SessionTable {
    /// Removes up to `max` expired sessions, and returns how many. If none are left, it also
    /// removes ended aliases, and spends the rest of `max` on compaction and on giving memory back.
    pub(super) fn sweep(&self, cx: &Context, max: u64) -> u64 {
        // Each sweep begins with another shard.
        let first_shard = self.sweeps.fetch_add(1, Ordering::Relaxed);
        let removed = self.sweep_expired(cx, first_shard, max);
        if removed < max {
            self.sweep_aliases(cx, first_shard);
            let budget = self.compact(first_shard, max - removed);
            self.release_memory(budget);
        }
        removed
    }

    /// Ends all sessions that were created before the call, and returns how many. From the beginning
    /// they are dead to every call, so that none escapes by a renewal; then they are removed as a
    /// sweep removes expired ones.
    pub(super) fn revoke_all(&self, cx: &Context) -> u64 {
        let mut revoked_until = ignore_poison(self.revoked_until.lock());
        // Sessions that are created meanwhile are later by a millisecond: the next call ends them.
        *revoked_until = cx.clock.now_ms().max(revoked_until.saturating_add(1));
        let before = self.revoked.load(Ordering::Relaxed);
        cx.policy.set_revoked_until(*revoked_until);
        let first_shard = self.sweeps.fetch_add(1, Ordering::Relaxed);
        for shard in self.shards_from(first_shard) {
            shard.lock().slab.make_all_due();
        }
        self.sweep_expired(cx, first_shard, u64::MAX);
        cx.policy.set_revoked_until(NONE_REVOKED);
        // Also what other calls have removed meanwhile.
        let revoked = self.revoked.load(Ordering::Relaxed) - before;
        let budget = self.compact(first_shard, revoked);
        self.release_memory(budget);
        revoked
    }

    fn sweep_expired(&self, cx: &Context, first_shard: usize, max: u64) -> u64 {
        let mut pending: SmallVec<[_; 64]> =
            self.shards_from(first_shard).map(|shard| (shard, DueCursor::default())).collect();
        let mut total = 0;
        let mut removed = RemovedSessions::new();
        while !pending.is_empty() && total < max {
            pending.retain(|(shard, cursor)| {
                let is_from_start = *cursor == DueCursor::default();
                let mut budget = RemovalBudget { visits: VISITS_PER_HOLD, removals: max - total };
                let mut locked = shard.lock();
                self.remove_expired(cx, &cx.step_time(), &mut locked, cursor, &mut budget, &mut removed);
                drop(locked);
                total += removed.len() as u64;
                self.remove_references(&removed);
                removed.clear();
                // Between two holds, compaction may have moved a session behind the cursor.
                budget.visits == 0 || !is_from_start
            });
        }
        total
    }

    /// Removes all aliases that have ended. They are not counted, so none may be left for a later
    /// sweep: a caller may not make one before long.
    fn sweep_aliases(&self, cx: &Context, first_shard: usize) {
        let mut pending: SmallVec<[_; 64]> = self.shards_from(first_shard).collect();
        while !pending.is_empty() {
            pending.retain(|shard| {
                let mut budget = VISITS_PER_HOLD;
                shard.lock().aliases.remove_ended(cx.step_time().now, &mut budget);
                budget == 0
            });
        }
    }

    /// Moves up to `budget` sessions together. Returns what is left of the budget.
    fn compact(&self, first_shard: usize, mut budget: u64) -> u64 {
        let mut pending: SmallVec<[_; 64]> = self.shards_from(first_shard).collect();
        while !pending.is_empty() && budget > 0 {
            pending.retain(|shard| {
                let moves = MOVES_PER_HOLD.min(u32::try_from(budget).unwrap_or(MOVES_PER_HOLD));
                let mut left = moves;
                shard.lock().compact(&mut left);
                budget -= u64::from(moves - left);
                left == 0
            });
        }
        budget
    }

    /// Gives free memory back to the kernel. Only sweeps do: neither the end of a session waits for
    /// the kernel, nor do reads during a sweep of many sessions.
    fn release_memory(&self, mut budget: u64) {
        while budget > 0 {
            let chunks = self.pool.trim() as u64;
            budget = if chunks == 0 { 0 } else { budget.saturating_sub(chunks * MOVES_PER_RELEASED_CHUNK) };
        }
    }

    /// Removes some expired sessions from a store that is full. If there are none, the caller may
    /// try once more, because other threads may have removed them; after that it is `FULL`.
    pub(super) fn make_room(&self, cx: &Context, is_last_try: &mut bool) -> Result<()> {
        if *is_last_try {
            return Err(Error::fixed(ErrorKind::Full, "the store is full: max_sessions or max_bytes is reached"));
        }
        *is_last_try = self.sweep(cx, REMOVED_WHEN_FULL) == 0;
        Ok(())
    }
}
