//! An `lmdb:` store where there is no more room: a disk that is full is an error at open and never
//! a signal, neither then nor later; a store that is full says so, and what is cleared can be
//! filled again as often as one likes.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore};
use crate::process::{ends_well, first_line, kill, part};
use sss::{Access, ErrorKind, Sid, Store};

suite! {
    tests: [
        full_disk_is_error_not_signal,
        failed_growth_leaves_store_unchanged,
        impossible_size_leaves_nothing,
        interrupted_growth_is_taken_back,
        disk_that_fills_up_later_does_no_harm,
        full_store_revokes,
        full_store_deletes_beside_reader,
        full_store_revokes_all,
        cleared_store_refills,
    ],
    parts: [use_store, use_on_full_disk, hold_read],
}

/// A small disk of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None`: this user may not mount.
    fn new(kib: u64) -> Option<Disk> {
        let path = TemporaryStore::of(Engine::Lmdb).directory().to_owned();
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        let disk = Disk(path);
        let options = format!("mode=0700,size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "sss-test"]).arg(&disk.0).output();
        match mounted {
            Ok(output) if output.status.success() => Some(disk),
            failed => {
                println!("SKIPPED tests on a full disk: a tmpfs cannot be mounted ({failed:?})");
                None
            }
        }
    }

    fn resize(&self, kib: u64) {
        let options = format!("remount,size={kib}k");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Writes a file that takes all that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }

    fn url(&self, options: &str) -> String {
        format!("lmdb:{}?{options}", self.0.display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not there if it was not mounted.
        let _ = Command::new("umount").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

/// Of another process, which says what came of it: "opened", or the kind and the text of an error.
#[track_caller]
fn used(url: &str) -> String {
    ends_well(part("lmdb_full::use_store", &[url]).spawn().unwrap())
}

/// The part: opens a store, fills and clears it. (No store is sealed here: without optimization
/// that takes longer than everything else.)
fn use_store(args: &[String]) {
    match Store::open(&args[0]) {
        Ok(store) => {
            println!("opened");
            let sids = fill(&store, &[9000, 30_000]);
            assert!(sids.len() > 100, "{} sessions", sids.len());
            sids.iter().for_each(|sid| store.delete(sid).unwrap());
        }
        Err(error) => println!("{:?}: {error}", error.kind()),
    }
}

/// Creates sessions until there is no more room.
fn fill(store: &Store, sizes: &[usize]) -> Vec<Sid> {
    let (mut rng, mut sids) = (Rng(1), Vec::new());
    loop {
        let payload = vec![b'x'; rng.pick(sizes)];
        match store.create(&payload, &PLAIN) {
            Ok((sid, _)) => sids.push(sid),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                return sids;
            }
        }
    }
}

fn full_disk_is_error_not_signal() {
    // The files of a store of 4 MiB take 4 MiB, 136 KiB and 132 KiB: around each of the three
    // limits.
    let sizes = (0..20).map(|i| 4 + 16 * i).chain((0..30).map(|i| 4056 + 16 * i));
    for durability in ["process", "power"] {
        let (mut refused, mut opened) = (0, 0);
        for kib in sizes.clone() {
            let Some(disk) = Disk::new(kib) else { return };
            let url = disk.url(&format!("max_bytes=4MiB&seal=off&durability={durability}"));
            let came = used(&url);
            if came == "opened\n" {
                opened += 1;
                continue;
            }
            refused += 1;
            assert!(came.starts_with("Full: ") || came.starts_with("Io: "), "{kib} KiB: {came}");
            assert!(came.contains(disk.0.to_str().unwrap()), "{kib} KiB: {came}");
            assert!(!disk.0.join("data.mdb").exists(), "{kib} KiB: something was left");
            disk.fill();
            assert_eq!(used(&url).split(':').next(), came.split(':').next(), "{kib} KiB, and then none");
            disk.free();
            disk.resize(8192);
            assert_eq!(used(&url), "opened\n", "{kib} KiB, and then enough");
        }
        assert!(refused > 0 && opened > 0, "the sizes are not around the limit");
    }
}

fn failed_growth_leaves_store_unchanged() {
    for durability in ["process", "power"] {
        let Some(disk) = Disk::new(6 << 10) else { return };
        let url = |max: &str| disk.url(&format!("max_bytes={max}&seal=off&durability={durability}"));
        let store = Store::open(&url("4MiB")).unwrap();
        let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
        drop(store);
        let error = Store::open(&url("16MiB")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        let store = Store::open(&url("4MiB")).unwrap();
        assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
        assert_eq!(data_size(&disk.0), 4 << 20, "{durability}");
    }
}

/// What the files of a store take on the disk.
fn disk_space(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn impossible_size_leaves_nothing() {
    for durability in ["process", "power"] {
        for impossible in ["100000GiB", "1000GiB"] {
            let place = TemporaryStore::of(Engine::Lmdb);
            let url = |max: &str| place.url(&format!("max_bytes={max}&seal=off&durability={durability}"));
            let open = |max: &str| Store::open(&url(max));
            assert_eq!(open(impossible).unwrap_err().kind(), ErrorKind::Full);
            assert!(disk_space(place.directory()) < 1 << 20, "of a new store");
            let (sid, _) = open("8MiB").unwrap().create(b"hello", &PLAIN).unwrap();
            let before = disk_space(place.directory());
            assert_eq!(open(impossible).unwrap_err().kind(), ErrorKind::Full);
            assert_eq!(disk_space(place.directory()), before, "of an old one");
            assert_eq!(open("8MiB").unwrap().get(&sid, Access::Peek).unwrap().0, b"hello");
            assert_eq!(data_size(place.directory()), 8 << 20);
        }
    }
}

/// What a process leaves that is killed while it makes the files larger.
fn interrupted_growth_is_taken_back() {
    for durability in ["process", "power"] {
        let place = TemporaryStore::of(Engine::Lmdb);
        let open = || place.open(&format!("max_bytes=4MiB&seal=off&durability={durability}"));
        let (sid, _) = open().create(b"hello", &PLAIN).unwrap();
        let before = disk_space(place.directory());
        for name in ["data.mdb", "state.shm", "data.mdb.tmp"] {
            let path = place.directory().join(name);
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.write_all_at(&vec![0; 40 << 20], len).unwrap();
        }
        let store = open();
        assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
        drop(store);
        assert_eq!(disk_space(place.directory()), before, "{durability}");
        assert_eq!(data_size(place.directory()), 4 << 20, "{durability}");
    }
}

fn disk_that_fills_up_later_does_no_harm() {
    for durability in ["process", "power"] {
        let Some(disk) = Disk::new(8 << 10) else { return };
        let url = disk.url(&format!("max_bytes=4MiB&seal=off&durability={durability}"));
        let args = [&url, disk.0.to_str().unwrap()];
        let output = ends_well(part("lmdb_full::use_on_full_disk", &args).spawn().unwrap());
        assert_eq!(output, "used\n", "{durability}");
    }
}

/// The part: opens a store, fills its disk, and then the store.
fn use_on_full_disk(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    let disk = std::mem::ManuallyDrop::new(Disk(PathBuf::from(&args[1])));
    disk.fill();
    let sids = fill(&store, &[9000, 30_000]);
    assert!(sids.len() > 100, "{} sessions", sids.len());
    sids.iter().for_each(|sid| store.delete(sid).unwrap());
    println!("used");
}

/// Fills a store with sessions of a principal and others, replaces some so that every page has been
/// used, and returns how many the principal has.
fn fill_with_principal(store: &Store, size: usize, each: usize) -> u64 {
    let mut rng = Rng(7);
    let mut own = 0;
    for round in 0.. {
        let options = if round % each == 0 { PLAIN.principal("alice") } else { PLAIN };
        match store.create(&vec![b'x'; size], &options) {
            Ok((sid, _)) if rng.one_in(5) && round % each != 0 => {
                store.delete(&sid).unwrap();
            }
            Ok(_) => own += u64::from(round % each == 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                break;
            }
        }
    }
    own
}

fn full_store_revokes() {
    for (durability, max, size, each) in [
        ("process", "4MiB", 30_000, 1),
        ("process", "4MiB", 100, 1),
        ("process", "4MiB", 100, 40),
        ("process", "64MiB", 50_000, 1),
        ("power", "4MiB", 30_000, 1),
        ("power", "4MiB", 1000, 3),
    ] {
        let place = TemporaryStore::of(Engine::Lmdb);
        let store = place.open(&format!("max_bytes={max}&seal=off&durability={durability}"));
        let own = fill_with_principal(&store, size, each);
        let case = format!("{durability} {max} {size} {each}: {own}");
        assert_eq!(store.list(b"alice").unwrap().len() as u64, own, "{case}");
        assert_eq!(store.revoke(b"alice", None).unwrap_or_else(|error| panic!("{case}: {error}")), own, "{case}");
        assert_eq!(store.list(b"alice").unwrap().len(), 0, "{case}");
        store.create(b"again", &PLAIN).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{case}");
    }
}

fn full_store_revokes_all() {
    for (durability, size) in [("process", 30_000), ("process", 100), ("power", 30_000), ("power", 1000)] {
        for has_reader in [false, true] {
            let place = TemporaryStore::of(Engine::Lmdb);
            let url = place.url(&format!("max_bytes=4MiB&seal=off&durability={durability}"));
            let store = Store::open(&url).unwrap();
            let (sid, _) = store.create(b"read", &PLAIN).unwrap();
            let sessions = fill_with_principal(&store, size, 1) + 1;
            let mut reader = part("lmdb_full::hold_read", &[&url, sid.as_str()]);
            let reader = has_reader.then(|| reader.spawn().unwrap()).map(|mut child| {
                assert_eq!(first_line(&mut child), "reading");
                child
            });
            let case = format!("{durability} {size} {has_reader}: {sessions}");
            assert_eq!(store.revoke_all().unwrap_or_else(|error| panic!("{case}: {error}")), sessions, "{case}");
            let dead = |store: &Store| {
                assert_eq!(store.list(b"alice").unwrap().len(), 0, "{case}");
                assert_eq!(store.get(&sid, Access::Peek).unwrap_err().kind(), ErrorKind::NotFound, "{case}");
            };
            dead(&store);
            reader.into_iter().for_each(kill);
            drop(store);
            // Whatever there was room for.
            let store = Store::open(&url).unwrap();
            dead(&store);
            store.sweep(u64::MAX).unwrap();
            assert_eq!(store.stats().unwrap().sessions, 0, "{case}");
            assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{case}");
            store.create(b"again", &PLAIN).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
    }
}

/// The part: begins to read a session and does not end.
fn hold_read(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    store
        .read(&args[1], Access::Peek, |_, _| -> sss::Result<()> {
            println!("reading");
            loop {
                std::thread::park();
            }
        })
        .unwrap();
}

fn full_store_deletes_beside_reader() {
    for size in [100, 30_000] {
        let place = TemporaryStore::of(Engine::Lmdb);
        let url = place.url("max_bytes=4MiB&seal=off");
        let store = Store::open(&url).unwrap();
        let sids = fill(&store, &[size]);
        let (read, others) = sids.split_first().unwrap();
        let mut reader = part("lmdb_full::hold_read", &[&url, read.as_str()]).spawn().unwrap();
        assert_eq!(first_line(&mut reader), "reading");
        for (i, sid) in others.iter().enumerate() {
            store.delete(sid).unwrap_or_else(|error| panic!("{i} of {} deleted: {error}", others.len()));
            let error = store.get(sid, Access::Peek).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{i}: {error}");
        }
        kill(reader);
        store.sweep(u64::MAX).unwrap();
        assert_eq!(store.stats().unwrap().sessions, 1, "those that were ended without room are removed later");
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
        assert!(fill(&store, &[size]).len() > others.len() / 2);
    }
}

fn data_size(directory: &Path) -> u64 {
    fs::metadata(directory.join("data.mdb")).unwrap().len()
}

fn cleared_store_refills() {
    const ROUNDS: u64 = 20;
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        let store = place.open("max_bytes=4MiB&seal=off&clock=manual&timeout=1h&idle_timeout=1h");
        let rounds = if engine == Engine::Lmdb { ROUNDS } else { ROUNDS / 2 };
        let counts: Vec<usize> = (0..rounds)
            .map(|round| {
                let sids = fill(&store, &[10, 1000, 3000, 9000, 30_000]);
                assert_eq!(store.put(&sids[0], &[b'x'; 500_000], &PLAIN).unwrap_err().kind(), ErrorKind::Full);
                if round % 2 == 0 {
                    store.advance_clock(3_600_000).unwrap();
                    assert_eq!(store.sweep(u64::MAX).unwrap(), sids.len() as u64);
                } else {
                    sids.iter().for_each(|sid| store.delete(sid).unwrap());
                }
                assert_eq!((store.stats().unwrap().sessions, store.stats().unwrap().bytes), (0, 0));
                sids.len()
            })
            .collect();
        // A payload of many pages needs them side by side, which are harder to find than in a new
        // file, but not more and more.
        assert!(counts.iter().all(|&count| count >= counts[0] * 2 / 3), "{engine:?}: {counts:?}");
        let (early, late) = counts[1..].split_at((counts.len() - 1) / 2);
        let mean = |counts: &[usize]| counts.iter().sum::<usize>() / counts.len();
        assert!(mean(late) >= mean(early) * 9 / 10, "{engine:?}: {counts:?}");
        println!("{engine:?}: {counts:?}");
    }
}
