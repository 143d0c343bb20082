//! A process that uses an `lmdb:` store is forked, whatever its threads are at: the child uses the handle that it has
//! inherited, the parent goes on with its own, and nobody hangs. `make torture` does the same more often. (What each call has
//! to do in a child is in conformance/fork.txt; C programs do the same in c/processes.c.)
#![allow(unsafe_code)]

mod common;
#[path = "common/processes.rs"]
mod processes;

use std::{
    io::{Read, Write, stdin, stdout},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, scope},
    time::{Duration, Instant},
};

use common::{Done, Engine, PLAIN, Place, from_env, kind, of};
use processes::{first_line, now, part, run, times};
use sss::{Access, Sid, Store};

/// Far more than a child takes on a busy machine.
const PATIENCE: u32 = 30;

fn main() -> ExitCode {
    run(
        &[
            ("a_child_of_an_idle_process_works_and_so_does_its_parent", idle),
            ("a_child_works_while_eight_threads_of_its_parent_are_in_calls", in_calls),
            ("a_child_works_while_its_parent_is_in_the_middle_of_a_write", in_a_write),
            ("a_child_that_does_not_use_the_store_does_not_keep_it_open", idle_child),
        ],
        &[("fork_and_wait", fork_and_wait)],
    )
}

/// Runs `work` in a child. Returns when the child has ended, and it must end well and soon.
fn in_child(work: impl FnOnce()) {
    // SAFETY: what is called in the child is meant to work there, which is what is tested.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions.
            unsafe { libc::alarm(PATIENCE) };
            let is_ok = catch_unwind(AssertUnwindSafe(work)).is_ok();
            // SAFETY: no preconditions. What the parent's tests would do at exit is not for the child.
            unsafe { libc::_exit(i32::from(!is_ok)) };
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            // SAFETY: a child of this process, and `status` is where its end goes.
            let waited = unsafe { libc::waitpid(child, &mut status, 0) };
            assert!(waited == child && status == 0, "a child ended with {status:#x}: 0xe is a hang");
        }
    }
}

/// All that a request may do, on the session that both share and on one of its own.
fn use_all(store: &Store, shared: &Sid) {
    assert_eq!(store.get(shared, Access::Slide).unwrap().0, b"shared");
    store.put(shared, b"shared", &PLAIN).unwrap();
    let (own, _) = store.create(b"own", &of(b"somebody")).unwrap();
    let (own, meta) = store.renew(&own, None, &PLAIN).unwrap();
    store.put_if(&own, meta.version, b"more", &PLAIN).unwrap();
    assert_eq!(store.get(&own, Access::Peek).unwrap().0, b"more");
    assert!(!store.list(b"somebody").unwrap().is_empty());
    store.delete(&own).unwrap();
}

/// Forks again and again while threads do `work`.
fn fork_beside(engine: Engine, options: &str, threads: usize, work: impl Fn(&Store, &Sid) + Sync) {
    let seed = from_env("SSS_TEST_SEED", now());
    let (place, done, steps) = (Place::of(engine), AtomicBool::new(false), AtomicU64::new(0));
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
        let mut rng = common::Rng(seed);
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

fn idle() {
    PLACES.into_iter().for_each(|engine| fork_beside(engine, "", 0, |_, _| {}));
}

fn in_calls() {
    for engine in PLACES {
        fork_beside(engine, "", 8, |store, shared| {
            use_all(store, shared);
            store.sweep(1).unwrap();
        });
    }
}

/// So large, and not sealed, that most of the time goes into writing it.
fn in_a_write() {
    let large = vec![b'x'; 1 << 20];
    for engine in PLACES {
        fork_beside(engine, "seal=off", 1, |store, _| {
            let (sid, _) = store.create(&large, &PLAIN).unwrap();
            store.put(&sid, &large, &PLAIN).unwrap();
            store.delete(&sid).unwrap();
        });
    }
}

/// Looser settings hold as soon as nobody else has the store open: neither after an orderly end of the parent nor after it was
/// killed may a child, which goes on for something else, stand in for it.
fn idle_child() {
    for how in ["close", "be killed"] {
        let place = Place::of(Engine::Lmdb);
        let mut parent = part("fork_and_wait", &[&place.url("max_sessions=1"), how]).spawn().unwrap();
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

/// The part: opens a store, and forks a child that tells its number and does nothing with the store.
fn fork_and_wait(args: &[String]) {
    let [url, how] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    store.create(b"hello", &PLAIN).unwrap();
    // SAFETY: this process has no other threads.
    if unsafe { libc::fork() } == 0 {
        stdout().write_all(format!("{}\n", std::process::id()).as_bytes()).unwrap();
        // SAFETY: no preconditions. It ends by itself if nobody ends it.
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
