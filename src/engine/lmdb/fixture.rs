//! For tests: a store of its own, open, and direct access to its tables.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    DirectoryStore,
    env::{Table, WriteTxn},
    handle::Handle,
    options::OpenOptions,
};
use crate::{Store, url::Url};

pub(super) struct Fixture {
    pub store: Store,
    open: DirectoryStore,
    directory: PathBuf,
}

impl Fixture {
    pub(super) fn new(options: &str) -> Fixture {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("sss-fixture-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let url = format!("lmdb:{}?max_bytes=4MiB&{options}", directory.display());
        let url = url.trim_end_matches('&');
        let store = Store::open(url).unwrap();
        let open = super::open_here(&directory, &OpenOptions::new(&Url::parse(url).unwrap(), false)).unwrap();
        Fixture { store, open, directory }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.open.handle
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn write(&self, f: impl FnOnce(&mut WriteTxn)) {
        let mut txn = self.handle().write().unwrap();
        f(&mut txn);
        txn.commit().unwrap();
    }

    pub(super) fn value(&self, table: Table, key: &[u8]) -> Vec<u8> {
        self.handle().env.read().unwrap().get(table, key).unwrap().expect("an entry").to_vec()
    }

    pub(super) fn aliases(&self) -> u64 {
        self.handle().env.read().unwrap().entries(Table::Aliases).unwrap()
    }

    /// The first entry in whose key this session's is; of any session, if it is empty.
    pub(super) fn first(&self, table: Table, session: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (env, mut next) = (&self.handle().env, Vec::new());
        loop {
            let txn = env.read().unwrap();
            let (key, value) = txn.first_from(table, &next).unwrap().expect("an entry of the session");
            if key.ends_with(session) {
                return (key.to_vec(), value.to_vec());
            }
            next = super::deadline_index::successor(key);
        }
    }

    pub(super) fn put(&self, table: Table, key: &[u8], value: &[u8]) {
        self.write(|txn| txn.put(table, key, value).unwrap());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
