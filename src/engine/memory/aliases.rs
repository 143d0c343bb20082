//! The aliases of one shard: old ids of renewed sessions within their grace time. An alias is no
//! session: it is neither counted nor listed.
//!
//! An alias is removed when it has ended, and with its session. For that, the shard of a session
//! knows the keys of all aliases that lead to it, which are in other shards.

use std::{
    collections::{BTreeSet, HashMap, TryReserveError},
    hash::{BuildHasherDefault, Hasher},
};

use crate::session::alias::{Alias, MAX_ALIASES};

/// Maps of so many entries are not worth shrinking.
const MIN_SHRINKABLE: usize = 64;

#[derive(Default)]
pub(super) struct Aliases {
    by_key: KeyMap<Alias>,
    by_end: BTreeSet<(i64, u128)>,
    /// For sessions of this shard: the old keys that lead to them.
    old_keys: KeyMap<OldKeys>,
}

type KeyMap<V> = HashMap<u128, V, BuildHasherDefault<KeyHasher>>;

/// The keys of a session's aliases, the oldest first. Some may have been removed already.
#[derive(Default)]
pub(super) struct OldKeys(Vec<OldKey>);

struct OldKey {
    key: u128,
    until: i64,
}

impl Aliases {
    pub(super) fn contains(&self, key: u128) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn find(&self, key: u128, now: i64) -> Option<&Alias> {
        self.by_key.get(&key).filter(|alias| now < alias.until)
    }

    /// Makes room for an alias in place of the session with this key, and in its list of old keys.
    pub(super) fn reserve_alias(&mut self, key: u128) -> Result<(), TryReserveError> {
        self.by_key.try_reserve(1)?;
        self.old_keys.try_reserve(1)?;
        self.old_keys.entry(key).or_default().0.try_reserve(1)
    }

    /// Makes room for the list of one more session.
    pub(super) fn reserve_old_keys(&mut self) -> Result<(), TryReserveError> {
        self.old_keys.try_reserve(1)
    }

    pub(super) fn insert(&mut self, alias: Alias) {
        let key = alias.key.0;
        self.by_end.insert((alias.until, key));
        self.by_key.insert(key, alias);
    }

    pub(super) fn remove(&mut self, key: u128) {
        if let Some(alias) = self.by_key.remove(&key) {
            self.by_end.remove(&(alias.until, key));
            shrink(&mut self.by_key);
        }
    }

    /// Removes aliases that have ended. Each costs one of the `budget`.
    pub(super) fn remove_ended(&mut self, now: i64, budget: &mut u32) {
        while *budget > 0
            && let Some(&(until, key)) = self.by_end.first()
            && until <= now
        {
            self.remove(key);
            *budget -= 1;
        }
    }

    /// Sets the old keys that lead to a session of this shard.
    pub(super) fn set_old_keys(&mut self, key: u128, old_keys: OldKeys) {
        self.old_keys.insert(key, old_keys);
    }

    /// Takes the old keys of a session that leaves this shard.
    pub(super) fn take_old_keys(&mut self, key: u128) -> OldKeys {
        if self.old_keys.is_empty() {
            return OldKeys::default();
        }
        let old_keys = self.old_keys.remove(&key).unwrap_or_default();
        shrink(&mut self.old_keys);
        old_keys
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_end.len(), self.by_key.len());
        self.by_key.len()
    }

    /// The number of sessions with old keys, and the room for them.
    #[cfg(test)]
    pub(super) fn sessions(&self) -> (usize, usize) {
        (self.old_keys.len(), self.old_keys.capacity())
    }
}

impl OldKeys {
    /// Adds the key of a new alias. Returns the keys that it replaces: those that have ended, and
    /// the oldest if they are too many.
    pub(super) fn push(&mut self, alias: &Alias, now: i64) -> OldKeys {
        let mut replaced = OldKeys::default();
        let excess = (self.0.len() + 1).saturating_sub(MAX_ALIASES);
        let mut index = 0;
        self.0.retain(|old| {
            index += 1;
            let keep = now < old.until && index > excess;
            if !keep {
                replaced.0.push(OldKey { ..*old });
            }
            keep
        });
        self.0.push(OldKey { key: alias.key.0, until: alias.until });
        replaced
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = u128> {
        self.0.iter().map(|old| old.key)
    }
}

/// Gives memory back after a map has lost most of its entries.
fn shrink<V>(map: &mut KeyMap<V>) {
    if map.capacity() > MIN_SHRINKABLE && map.len() * 8 < map.capacity() {
        map.shrink_to(map.len() * 2);
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
