//! The locks of an `lmdb:` store hold whatever else its process does with the store's files.
#![allow(unsafe_code)]

use std::{fs, os::fd::BorrowedFd, path::Path};

use crate::common::{Engine, PLAIN, TemporaryStore};
use crate::process::{ends_well, part};
use sss::{Access, ErrorKind, Store};

suite! {
    tests: [
        closed_descriptors_keep_locks,
        inherited_descriptors_keep_no_locks,
        replaced_files_are_refused,
    ],
    parts: [rewrite],
}

fn payload(number: u8) -> Vec<u8> {
    vec![number; 40_000]
}

/// The part: replaces a session's payload many times.
fn rewrite(args: &[String]) {
    let [url, sid] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    for number in 1..=100 {
        store.put(sid, &payload(number), &PLAIN).unwrap();
    }
}

/// As a backup or a scan does: opens each of the store's files and closes it again.
fn read_all_files(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        fs::read(entry.unwrap().path()).unwrap();
    }
}

fn closed_descriptors_keep_locks() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        let url = place.url("max_bytes=4MiB&seal=off");
        let store = Store::open(&url).unwrap();
        let (sid, _) = store.create(&payload(0), &PLAIN).unwrap();
        read_all_files(place.directory());
        store
            .read(&sid, Access::Peek, |bytes, _| -> sss::Result<()> {
                // It finds out that it is not alone, and does not use the pages again that are
                // being read here.
                let output = part("lmdb_locks::rewrite", &[&url, sid.as_str()]).output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() || error.contains("does not end a read"), "{error}");
                assert!(bytes == payload(0), "a payload has changed while it was read");
                Ok(())
            })
            .unwrap();
        read_all_files(place.directory());
        ends_well(part("lmdb_locks::rewrite", &[&url, sid.as_str()]).spawn().unwrap());
        assert!(store.get(&sid, Access::Peek).unwrap().0 == payload(100));
        store.put(&sid, &payload(0), &PLAIN).unwrap();
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
    }
}

/// A process that is being started has the files of its parent until its exec, which may be after
/// the parent has closed the store.
fn inherited_descriptors_keep_no_locks() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    let directory = fs::canonicalize(place.directory()).unwrap();
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(&directory)) {
            let descriptor = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: open, because the store is, and nothing else closes files here.
            inherited.push(unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned().unwrap());
        }
    }
    assert!(inherited.len() >= 4, "data.mdb, lock.mdb and state.shm are open");
    drop(store);
    // With another setting: no other process must seem to have it open.
    place.open("durability=power");
}

fn replaced_files_are_refused() {
    for name in ["data.mdb", "lock.mdb", "state.shm"] {
        let place = TemporaryStore::of(Engine::Lmdb);
        let url = place.url("");
        let store = Store::open(&url).unwrap();
        let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
        let path = place.directory().join(name);
        let copy = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, copy).unwrap();
        let output = part("lmdb_locks::rewrite", &[&url, sid.as_str()]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("replaced while the store"), "{name}: {error}");
        assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
        assert_eq!(store.delete(&sid).map_err(|error| error.kind()), Ok::<(), ErrorKind>(()));
    }
}
