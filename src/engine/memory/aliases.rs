//! The aliases of one shard: old ids of renewed sessions within their grace time. An alias is no session: it is not counted
//! and not listed, and it ends with its session.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, TryReserveError},
    hash::{BuildHasherDefault, Hasher},
};

use crate::session::alias::Alias;

#[derive(Default)]
pub(super) struct Aliases {
    by_key: HashMap<u128, Alias, BuildHasherDefault<KeyHasher>>,
    by_end: BinaryHeap<Reverse<(i64, u128)>>,
}

impl Aliases {
    pub(super) fn contains(&self, key: u128) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn find(&self, key: u128, now: i64) -> Option<&Alias> {
        self.by_key.get(&key).filter(|alias| now < alias.until)
    }

    /// Makes room for one more.
    pub(super) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.by_key.try_reserve(1)?;
        self.by_end.try_reserve(1)
    }

    pub(super) fn insert(&mut self, alias: Alias) {
        let key = alias.key.0;
        self.by_end.push(Reverse((alias.until, key)));
        self.by_key.insert(key, alias);
    }

    /// Removes aliases that have ended. Each costs one of the `budget`.
    pub(super) fn remove_ended(&mut self, now: i64, budget: &mut u32) {
        while *budget > 0
            && let Some(&Reverse((until, key))) = self.by_end.peek()
            && until <= now
        {
            self.by_end.pop();
            self.by_key.remove(&key);
            *budget -= 1;
        }
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "only keys are hashed");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
