//! The old ids of sessions that were renewed with a grace time: each reads what another key holds until it ends.
//! An alias is no session: it is not counted, not listed, and dies with what it stands for.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, TryReserveError},
    hash::{BuildHasherDefault, Hasher},
};

use crate::session::alias::Alias;

#[derive(Default)]
pub(super) struct Aliases {
    by_key: HashMap<u128, Alias, BuildHasherDefault<KeyIsHash>>,
    by_end: BinaryHeap<Reverse<(i64, u128)>>,
}

impl Aliases {
    pub(super) fn holds(&self, key: u128) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn find(&self, key: u128, now: i64) -> Option<&Alias> {
        self.by_key.get(&key).filter(|alias| now < alias.until)
    }

    pub(super) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.by_key.try_reserve(1)?;
        self.by_end.try_reserve(1)
    }

    pub(super) fn insert(&mut self, alias: Alias) {
        let key = alias.key.0;
        self.by_end.push(Reverse((alias.until, key)));
        self.by_key.insert(key, alias);
    }

    /// Forgets aliases that have ended, each for one of the `budget`.
    pub(super) fn clear_ended(&mut self, now: i64, budget: &mut u32) {
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

/// The keys are hashes already.
#[derive(Default)]
struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
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
