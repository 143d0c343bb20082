//! A `memory:` store gives the memory of deleted sessions back to the system when it is swept, and
//! all of its memory when it is closed. The tests measure the memory of their process, so each has
//! one of its own.

use sss::{Options, Sid, Store};

use crate::process::{ends_well, part};

suite! {
    tests: [sweeps_release_memory_in_steps, small_rest_of_large_store_is_small, closed_stores_release_memory],
    parts: [fill_and_sweep, shrink, open_and_close],
}

const SESSIONS: usize = 40_000;
const PAYLOAD: [u8; 1024] = [7; 1024];
const ALL: usize = SESSIONS * PAYLOAD.len();
/// What a sweep of 1000 gives back at most: 250 chunks of 64 KiB and what is left of a step that
/// was begun.
const A_STEP: usize = (250 + 128) << 16;

/// Bytes for which this process has memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

fn fill(store: &Store) -> Vec<Sid> {
    (0..SESSIONS).map(|_| store.create(&PAYLOAD, &Options::default()).unwrap().0).collect()
}

fn sweeps_release_memory_in_steps() {
    ends_well(part("memory_release::fill_and_sweep", &[]).spawn().unwrap());
}

fn fill_and_sweep(_: &[String]) {
    let store = Store::open("memory:?max_bytes=1GiB").unwrap();
    let before = resident();
    for _ in 0..3 {
        let sids = fill(&store);
        let full = resident();
        assert!(full > before + ALL, "{full} bytes");
        sids.iter().for_each(|sid| store.delete(sid).unwrap());
        drop(sids);
        // A delete gives nothing back itself.
        let mut held = resident();
        assert!(held > before + ALL * 9 / 10, "{held} bytes of {full}");
        for step in 0.. {
            assert_eq!(store.sweep(1000).unwrap(), 0);
            let now = resident();
            assert!(held <= now + A_STEP, "a step gave back {} bytes", held - now);
            if now == held {
                assert!(step > 1, "{now} bytes after {step} steps");
                break;
            }
            held = now;
        }
        // The ids were on the heap, which keeps what it had.
        assert!(held < before + ALL / 3, "{held} bytes are left of {full}");
    }
}

fn small_rest_of_large_store_is_small() {
    ends_well(part("memory_release::shrink", &[]).spawn().unwrap());
}

/// Payloads of all sizes, so that there are slots of all sizes.
fn shrink(_: &[String]) {
    const KEPT: usize = 500;
    let store = Store::open("memory:").unwrap();
    let payload = vec![7; 8000];
    let create = |i: usize| store.create(&payload[..i * 7919 % payload.len()], &Options::default()).unwrap().0;
    let before = resident();
    let kept: Vec<Sid> = (0..KEPT).map(create).collect();
    let fresh = resident() - before;
    let others: Vec<Sid> = (KEPT..SESSIONS).map(create).collect();
    let full = resident() - before;
    others.iter().for_each(|sid| store.delete(sid).unwrap());
    drop(others);
    (0..1000).for_each(|_| assert_eq!(store.sweep(1000).unwrap(), 0));
    let left = resident() - before;
    // The pool keeps some chunks, the heap what the ids had.
    assert!(left <= 2 * fresh + full / 16, "{left} bytes of {full} are left, a new store takes {fresh}");
    assert!(kept.iter().all(|sid| store.touch(sid).is_ok()));
}

fn closed_stores_release_memory() {
    ends_well(part("memory_release::open_and_close", &[]).spawn().unwrap());
}

fn open_and_close(_: &[String]) {
    let before = resident();
    let open = || {
        let store = Store::open("memory:").unwrap();
        (0..10).for_each(|_| drop(store.create(b"x", &Options::default()).unwrap()));
        store
    };
    let stores: Vec<Store> = (0..1000).map(|_| open()).collect();
    let full = resident() - before;
    drop(stores);
    let left = resident().saturating_sub(before);
    assert!(left <= full / 2, "{left} bytes of {full} are left");
}
