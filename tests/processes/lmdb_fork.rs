//! A process that uses an `lmdb:` store is forked, whatever its threads are at: the child uses the
//! handle that it has inherited, the parent keeps its own, and neither hangs. `make torture` does
//! the same more often. (What each call has to do in a child is in conformance/fork.txt; C programs
//! do the same in c/processes.c.)
#![allow(unsafe_code)]

use std::{
    io::{Read, Write, stdin, stdout},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, scope},
    time::{Duration, Instant},
};

use crate::common::{Done, Engine, PLAIN, TemporaryStore, kind, of};
use crate::process::{first_line, in_child, part, seed, times};
use sss::{Access, Sid, Store};

/// Far more than a child takes on a busy machine.
const PATIENCE: u32 = 30;

suite! {
    tests: [
        child_of_idle_process_works,
        child_of_busy_process_works,
        child_forked_during_write_works,
        idle_child_does_not_keep_store_open,
    ],
    parts: [fork_and_wait],
}

/// All that a request may do, on the session that both share and on one of its own.
fn use_all(store: &Store, shared: &Sid) {
    assert_eq!(store.get(shared, Access::Slide).unwrap().0, b"shared");
    store.put(shared, b"shared", &PLAIN).unwrap();
    let (own, _) = store.create(b"own", &of(b"somebody")).unwrap();
    let (own, meta) = store.renew(&own, None, &PLAIN).unwrap();
    store.put_if(&own, meta.version(), b"more", &PLAIN).unwrap();
    assert_eq!(store.get(&own, Access::Peek).unwrap().0, b"more");
    assert!(!store.list(b"somebody").unwrap().is_empty());
    store.delete(&own).unwrap();
}

/// Forks again and again while threads do `work`.
fn fork_beside(engine: Engine, options: &str, threads: usize, work: impl Fn(&Store, &Sid) + Sync) {
    let seed = seed();
    let (place, done, steps) = (TemporaryStore::of(engine), AtomicBool::new(false), AtomicU64::new(0));
    let store = place.open(options);
    let (shared, _) = store.create(b"shared", &PLAIN).unwrap();
    let (children, begun) = (times(30, 1000), Instant::now());
    let last = scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    work(&store, &shared);
                    steps.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _done = Done(&done);
        let mut rng = crate::common::Rng(seed);
        for _ in 0..children {
            thread::sleep(Duration::from_micros(rng.next() % 1000));
            let before = steps.load(Ordering::Relaxed);
            in_child(|| use_all(&store, &shared));
            use_all(&store, &shared);
            let waits = Instant::now();
            while threads > 0 && steps.load(Ordering::Relaxed) == before {
                assert!(
                    waits.elapsed() < Duration::from_secs(PATIENCE.into()),
                    "seed {seed}: the parent's threads hang"
                );
                thread::sleep(Duration::from_micros(100));
            }
        }
        steps.load(Ordering::Relaxed)
    });
    assert_eq!(store.stats().unwrap().errors, 0);
    println!("{engine:?}: {children} children beside {last} steps of {threads} threads, in {:.1?}", begun.elapsed());
}

const PLACES: [Engine; 2] = [Engine::Lmdb, Engine::LmdbPower];

fn child_of_idle_process_works() {
    PLACES.into_iter().for_each(|engine| fork_beside(engine, "", 0, |_, _| {}));
}

fn child_of_busy_process_works() {
    for engine in PLACES {
        fork_beside(engine, "", 8, |store, shared| {
            use_all(store, shared);
            store.sweep(1).unwrap();
        });
    }
}

/// So large, and not sealed, that most of the time goes into writing it.
fn child_forked_during_write_works() {
    let large = vec![b'x'; 1 << 20];
    for engine in PLACES {
        fork_beside(engine, "seal=off", 1, |store, _| {
            let (sid, _) = store.create(&large, &PLAIN).unwrap();
            store.put(&sid, &large, &PLAIN).unwrap();
            store.delete(&sid).unwrap();
        });
    }
}

/// Looser settings hold as soon as no other process has the store open: neither after an orderly
/// end of the parent nor after it was killed may a child that runs on count in its place.
fn idle_child_does_not_keep_store_open() {
    for how in ["close", "be killed"] {
        let place = TemporaryStore::of(Engine::Lmdb);
        let mut parent = part("lmdb_fork::fork_and_wait", &[&place.url("max_sessions=1"), how]).spawn().unwrap();
        let child = first_line(&mut parent);
        if how == "be killed" {
            parent.kill().unwrap();
        }
        parent.wait().unwrap();
        let store = place.open("");
        let created = (0..3).map(|_| store.create(b"hello", &PLAIN)).collect::<Result<Vec<_>, _>>();
        // SAFETY: the child of a process that this one has started.
        unsafe { libc::kill(child.parse().unwrap(), libc::SIGKILL) };
        assert_eq!(kind(&created), None, "its parent was to {how}");
    }
}

/// The part: opens a store, and forks a child that tells its number and does nothing with the
/// store.
fn fork_and_wait(args: &[String]) {
    let [url, how] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    store.create(b"hello", &PLAIN).unwrap();
    // SAFETY: this process has no other threads.
    if unsafe { libc::fork() } == 0 {
        stdout().write_all(format!("{}\n", std::process::id()).as_bytes()).unwrap();
        // SAFETY: no preconditions. It ends by itself if it is not killed.
        unsafe {
            libc::sleep(PATIENCE);
            libc::_exit(0);
        }
    }
    if how == "close" {
        return;
    }
    stdin().read_to_end(&mut Vec::new()).unwrap();
}
