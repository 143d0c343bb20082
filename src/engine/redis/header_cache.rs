//! The prefixes of records that this process has last seen, so that a write can be composed without
//! reading the session again. Only of genuine records, and possibly outdated: the server compares.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record_prefix::RecordPrefix;
use crate::session::key::LookupKey;

/// Each takes about 150 bytes.
const ENTRIES: usize = 4096;

pub(super) struct HeaderCache(Box<[Mutex<Option<Entry>>]>);

struct Entry {
    key: LookupKey,
    prefix: RecordPrefix,
}

impl HeaderCache {
    pub(super) fn new() -> HeaderCache {
        HeaderCache((0..ENTRIES).map(|_| Mutex::new(None)).collect())
    }

    pub(super) fn get(&self, key: &LookupKey) -> Option<RecordPrefix> {
        self.lock(key).as_ref().filter(|entry| entry.key == *key).map(|entry| entry.prefix.clone())
    }

    /// Takes over a record, in place of any other session with the same slot.
    pub(super) fn put(&self, key: &LookupKey, record: &[u8]) {
        match &mut *self.lock(key) {
            Some(entry) => {
                entry.key = *key;
                entry.prefix.set(record);
            }
            empty => *empty = Some(Entry { key: *key, prefix: RecordPrefix::of(record) }),
        }
    }

    pub(super) fn remove(&self, key: &LookupKey) {
        let mut slot = self.lock(key);
        if slot.as_ref().is_some_and(|entry| entry.key == *key) {
            *slot = None;
        }
    }

    fn lock(&self, key: &LookupKey) -> MutexGuard<'_, Option<Entry>> {
        self.0[(key.0 % ENTRIES as u128) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
