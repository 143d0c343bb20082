//! Which sessions each principal has: an ordered set of (principal, session key) pairs, in shards
//! of its own.
//!
//! Locking: these locks come before the session shards' locks, lower shards first. A step that
//! gives a session a principal holds that principal's lock while the session appears, so `revoke`,
//! which holds it too, misses none. Removal is lazy: a pair may outlive its session for a moment,
//! so readers of pairs look the session up.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use crate::{
    error::{Error, Result},
    session::key::PrincipalKey,
    sync::ignore_poison,
};

const SHARDS: usize = 16;

type Pairs = BTreeSet<(PrincipalKey, u128)>;

#[derive(Default)]
pub(super) struct PrincipalIndex([Mutex<Pairs>; SHARDS]);

/// The pairs of one or two principals, locked.
pub(super) struct LockedPrincipals<'a> {
    first: Option<(usize, MutexGuard<'a, Pairs>)>,
    second: Option<(usize, MutexGuard<'a, Pairs>)>,
}

impl PrincipalIndex {
    pub(super) fn lock(&self, a: Option<PrincipalKey>, b: Option<PrincipalKey>) -> LockedPrincipals<'_> {
        let a = a.map(shard_of);
        let b = b.map(shard_of);
        // `None` is less than any shard, and takes no lock.
        let low = a.min(b);
        let high = a.max(b).filter(|_| a != b);
        let lock = |shard: Option<usize>| shard.map(|shard| (shard, ignore_poison(self.0[shard].lock())));
        LockedPrincipals { first: lock(low), second: lock(high) }
    }

    /// Removes the pair of a session that was removed.
    pub(super) fn remove(&self, principal: PrincipalKey, key: u128) {
        ignore_poison(self.0[shard_of(principal)].lock()).remove(&(principal, key));
    }
}

impl LockedPrincipals<'_> {
    /// The keys of the sessions of a principal that was locked.
    pub(super) fn sessions_of(&self, principal: PrincipalKey) -> impl Iterator<Item = u128> {
        let range = (principal, u128::MIN)..=(principal, u128::MAX);
        self.pairs(principal).into_iter().flat_map(move |pairs| pairs.range(range.clone())).map(|&(_, key)| key)
    }

    /// The first key of a principal's sessions after `after`.
    pub(super) fn next_session_of(&self, principal: PrincipalKey, after: Option<u128>) -> Option<u128> {
        let from = after.map_or(Bound::Included((principal, u128::MIN)), |key| Bound::Excluded((principal, key)));
        let to = Bound::Included((principal, u128::MAX));
        self.pairs(principal)?.range((from, to)).next().map(|&(_, key)| key)
    }

    /// Makes the next `add` find memory, or fails. A B-tree has no fallible insertion, so an
    /// allocation larger than all nodes that one insertion can need is made and freed.
    pub(super) fn reserve_one(&self) -> Result<()> {
        const NODES: usize = 16 << 10;
        let mut nodes = Vec::<u8>::new();
        nodes.try_reserve_exact(NODES).map_err(|_| Error::no_memory())?;
        // Otherwise the compiler removes an allocation that is not used.
        std::hint::black_box(nodes);
        Ok(())
    }

    pub(super) fn add(&mut self, principal: PrincipalKey, key: u128) {
        if let Some(pairs) = self.pairs_mut(principal) {
            pairs.insert((principal, key));
        }
    }

    pub(super) fn remove(&mut self, principal: PrincipalKey, key: u128) {
        if let Some(pairs) = self.pairs_mut(principal) {
            pairs.remove(&(principal, key));
        }
    }

    fn pairs(&self, principal: PrincipalKey) -> Option<&Pairs> {
        let mut shards = self.first.iter().chain(&self.second);
        shards.find(|(shard, _)| *shard == shard_of(principal)).map(|(_, pairs)| &**pairs)
    }

    fn pairs_mut(&mut self, principal: PrincipalKey) -> Option<&mut Pairs> {
        let mut shards = self.first.iter_mut().chain(&mut self.second);
        let found = shards.find(|(shard, _)| *shard == shard_of(principal));
        debug_assert!(found.is_some(), "the principal was not locked");
        found.map(|(_, pairs)| &mut **pairs)
    }
}

fn shard_of(principal: PrincipalKey) -> usize {
    (principal.0 >> 64) as usize % SHARDS
}
