//! Which sessions each principal has: an ordered set of (principal, session key) pairs, in shards of its own.
//!
//! Locking: these locks come before the session shards' locks, lower shards first. Whoever binds a session to a
//! principal holds that principal's lock while the session appears, so that `revoke`, holding it too, misses none.
//! Removal is lazy: a pair may outlive its session for a moment, and whoever reads pairs looks the session up.

use std::{collections::BTreeSet, ops::Bound};

use crate::sync::ignore_poison;
use std::sync::{Mutex, MutexGuard};

use crate::session::key::PrincipalKey;

const SHARDS: usize = 16;

type Pairs = BTreeSet<(PrincipalKey, u128)>;

#[derive(Default)]
pub(super) struct Principals([Mutex<Pairs>; SHARDS]);

/// The pairs of one or two principals, locked.
pub(super) struct LockedPairs<'a> {
    first: Option<(usize, MutexGuard<'a, Pairs>)>,
    second: Option<(usize, MutexGuard<'a, Pairs>)>,
}

impl Principals {
    pub(super) fn lock(&self, a: Option<PrincipalKey>, b: Option<PrincipalKey>) -> LockedPairs<'_> {
        let (a, b) = (a.map(shard_of), b.map(shard_of));
        // `None` is less than any shard: it takes no lock.
        let (low, high) = (a.min(b), a.max(b).filter(|_| a != b));
        let lock = |shard: Option<usize>| shard.map(|shard| (shard, ignore_poison(self.0[shard].lock())));
        LockedPairs { first: lock(low), second: lock(high) }
    }

    /// Forgets the pair of a session that is gone.
    pub(super) fn forget(&self, principal: PrincipalKey, key: u128) {
        ignore_poison(self.0[shard_of(principal)].lock()).remove(&(principal, key));
    }
}

impl LockedPairs<'_> {
    /// The keys of the sessions of a principal that was locked.
    pub(super) fn of(&self, principal: PrincipalKey) -> impl Iterator<Item = u128> {
        let pairs = self.shards().find(|(shard, _)| *shard == shard_of(principal)).map(|(_, pairs)| pairs);
        let range = (principal, u128::MIN)..=(principal, u128::MAX);
        pairs.into_iter().flat_map(move |pairs| pairs.range(range.clone())).map(|&(_, key)| key)
    }

    /// The key that follows `last` among those of a principal.
    pub(super) fn next(&self, principal: PrincipalKey, last: Option<u128>) -> Option<u128> {
        let from = last.map_or(Bound::Included((principal, u128::MIN)), |key| Bound::Excluded((principal, key)));
        let (_, pairs) = self.shards().find(|(shard, _)| *shard == shard_of(principal))?;
        pairs.range((from, Bound::Included((principal, u128::MAX)))).next().map(|&(_, key)| key)
    }

    pub(super) fn add(&mut self, principal: PrincipalKey, key: u128) {
        if let Some(pairs) = self.pairs(principal) {
            pairs.insert((principal, key));
        }
    }

    pub(super) fn remove(&mut self, principal: PrincipalKey, key: u128) {
        if let Some(pairs) = self.pairs(principal) {
            pairs.remove(&(principal, key));
        }
    }

    fn shards(&self) -> impl Iterator<Item = &(usize, MutexGuard<'_, Pairs>)> {
        self.first.iter().chain(&self.second)
    }

    fn pairs(&mut self, principal: PrincipalKey) -> Option<&mut Pairs> {
        let shards = self.first.iter_mut().chain(&mut self.second);
        let found = shards.into_iter().find(|(shard, _)| *shard == shard_of(principal));
        debug_assert!(found.is_some(), "the principal was not locked");
        found.map(|(_, pairs)| &mut **pairs)
    }
}

fn shard_of(principal: PrincipalKey) -> usize {
    (principal.0 >> 64) as usize % SHARDS
}
