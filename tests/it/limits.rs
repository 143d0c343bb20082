//! Threads against limits, versions and counters: no limit is ever passed, put_if has one winner,
//! and after any history the accounts are exact. What threads do to sessions that end is in
//! races.rs.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::common::{Done, FOREVER, Gate, OptionsMs, PLAIN, Rng, found, grace, kind, of, open};
use sss::{Access, ErrorKind, Principal, Ref, Stats, Store};

const THREADS: u64 = 4;
const STEPS: usize = 3_000;

/// Runs `work` in several threads, and `watch` again and again until they are done.
fn watched(work: impl Fn(&mut Rng) + Sync, mut watch: impl FnMut()) {
    let (gate, running) = (Gate::new(THREADS as usize + 1), AtomicU64::new(THREADS));
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (gate, running, work) = (&gate, &running, &work);
            scope.spawn(move || {
                gate.pass();
                // Even if it panics: otherwise the watcher would wait for ever.
                let _leaves = Leaves(running);
                work(&mut Rng(seed));
            });
        }
        gate.pass();
        while running.load(Ordering::Acquire) > 0 {
            watch();
        }
    });
}

struct Leaves<'a>(&'a AtomicU64);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// `FULL` is an answer here; any other failure is not.
fn unless_full<T>(result: Result<T, sss::Error>) -> Option<T> {
    match kind(&result) {
        Some(ErrorKind::Full) => None,
        _ => Some(result.unwrap()),
    }
}

#[test]
fn max_per_principal_is_never_exceeded() {
    let store = open("max_per_principal=3");
    watched(
        |rng| {
            let mut last = store.create(b"anonymous", &PLAIN).unwrap().0;
            for _ in 0..STEPS / 3 {
                let login = of(if rng.one_in(5) { b"bob" } else { b"alice" });
                let new = match rng.below(4) {
                    0 => Some(store.create(b"hello", &login).unwrap().0),
                    1 => found(store.renew(&last, None, &login)).map(|(sid, _)| sid),
                    2 => found(store.renew(&last, Some(b"x"), &grace(1000))).map(|(sid, _)| sid),
                    _ => {
                        let (sid, _) = store.create(b"anonymous", &PLAIN).unwrap();
                        found(store.put(&sid, b"hello", &login)).map(|_| sid)
                    }
                };
                last = new.unwrap_or_else(|| store.create(b"anonymous", &PLAIN).unwrap().0);
            }
        },
        || {
            for principal in [b"alice".as_slice(), b"bob"] {
                let living = store.list(principal).unwrap().len();
                assert!(living <= 3, "{living} sessions");
            }
        },
    );
    assert_eq!(store.list(b"alice").unwrap().len(), 3);
    assert_eq!(store.revoke(b"alice", None).unwrap(), 3);
    assert_eq!(store.stats().unwrap().errors, 0);
}

/// Either the touch came first, and then another session was the least recently used one; or it was
/// too late.
#[test]
fn max_per_principal_spares_recently_used() {
    let store = open("clock=manual&timeout=infinity&idle_timeout=infinity&max_per_principal=2");
    for round in 0..STEPS {
        let (a, _) = store.create(b"a", &of(b"alice")).unwrap();
        store.advance_clock(1).unwrap();
        let (b, _) = store.create(b"b", &of(b"alice")).unwrap();
        store.advance_clock(1).unwrap();
        let gate = Gate::new(2);
        let touched = thread::scope(|scope| {
            let touch = scope.spawn(|| {
                gate.pass();
                found(store.touch(&a)).is_some()
            });
            gate.pass();
            store.create(b"c", &of(b"alice")).unwrap();
            touch.join().unwrap()
        });
        let alive = |sid| found(store.get(sid, Access::Peek)).is_some();
        assert_eq!((alive(&a), alive(&b)), (touched, !touched), "round {round}");
        store.revoke(b"alice", None).unwrap();
    }
}

#[test]
fn max_sessions_is_never_exceeded() {
    let store = open("clock=manual&max_sessions=10&timeout=1h&idle_timeout=infinity");
    watched(
        |rng| {
            for _ in 0..STEPS / 3 {
                let timeout_ms = if rng.one_in(2) { 1 } else { 0 };
                let created = unless_full(store.create(b"hello", &PLAIN.timeout_ms(timeout_ms)));
                if rng.one_in(4) {
                    store.advance_clock(1).unwrap();
                }
                if let Some((sid, _)) = created {
                    match rng.below(3) {
                        0 => drop(found(store.renew(&sid, None, &grace(5)))),
                        1 => drop(found(store.delete(&sid))),
                        _ => {}
                    }
                }
            }
        },
        || assert!(store.stats().unwrap().sessions <= 10),
    );
    store.advance_clock(3_600_000).unwrap();
    store.sweep(u64::MAX).unwrap();
    assert_eq!((store.stats().unwrap().sessions, store.stats().unwrap().bytes), (0, 0));
}

/// One place is taken by a session that is over: there is room, even while another thread is
/// clearing it.
#[test]
fn create_succeeds_during_concurrent_sweep() {
    let store = open("clock=manual&max_sessions=1&timeout=1h&idle_timeout=infinity");
    for round in 0..STEPS {
        store.create(b"hello", &PLAIN.timeout_ms(1)).unwrap();
        store.advance_clock(1).unwrap();
        let gate = Gate::new(2);
        let (created, _) = thread::scope(|scope| {
            let sweep = scope.spawn(|| {
                gate.pass();
                store.sweep(10).unwrap()
            });
            gate.pass();
            let created = store.create(b"hello", &PLAIN);
            (created, sweep.join().unwrap())
        });
        let (sid, _) = created.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        store.delete(&sid).unwrap();
    }
}

#[test]
fn max_bytes_is_never_exceeded() {
    let store = open("max_bytes=1000");
    let shared: Vec<_> = (0..8).map(|_| store.create(b"", &PLAIN).unwrap().0).collect();
    watched(
        |rng| {
            for _ in 0..STEPS {
                let payload = vec![1; rng.below(400)];
                let sid = &shared[rng.below(shared.len())];
                match rng.below(3) {
                    0 => drop(unless_full(store.put(sid, &payload, &PLAIN))),
                    1 => {
                        let version = store.get(sid, Access::Peek).unwrap().1.version();
                        let put = store.put_if(sid, version, &payload, &PLAIN);
                        assert!(matches!(kind(&put), None | Some(ErrorKind::Full | ErrorKind::Conflict)), "{put:?}");
                    }
                    _ => {
                        if let Some((sid, _)) = unless_full(store.create(&payload, &PLAIN)) {
                            store.delete(&sid).unwrap();
                        }
                    }
                }
            }
        },
        || assert!(store.stats().unwrap().bytes <= 1000),
    );
    let held: usize = shared.iter().map(|sid| store.get(sid, Access::Peek).unwrap().0.len()).sum();
    assert_eq!(store.stats().unwrap().bytes, held as u64);
}

#[test]
fn put_if_has_one_winner() {
    let store = open("");
    let (sid, _) = store.create(b"", &PLAIN).unwrap();
    for version in 1..=500 {
        let gate = Gate::new(THREADS as usize);
        let results: Vec<_> = thread::scope(|scope| {
            let put = |thread: u64| {
                gate.pass();
                store.put_if(&sid, version, &thread.to_le_bytes(), &PLAIN)
            };
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || put(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<u64> = (0..THREADS).filter(|&thread| results[thread as usize].is_ok()).collect();
        assert_eq!(winners.len(), 1, "version {version}");
        assert_eq!(
            results.iter().filter(|result| kind(result) == Some(ErrorKind::Conflict)).count() as u64,
            THREADS - 1
        );
        let (payload, meta) = store.get(&sid, Access::Slide).unwrap();
        assert_eq!((payload, meta.version()), (winners[0].to_le_bytes().to_vec(), version + 1));
    }
    assert_eq!(store.stats().unwrap().conflicts, 500 * (THREADS - 1));
}

#[test]
fn put_if_loses_no_update() {
    let store = open("");
    let (sid, _) = store.create(&0_u64.to_le_bytes(), &PLAIN).unwrap();
    watched(
        |_| {
            for _ in 0..STEPS / 4 {
                loop {
                    let (payload, meta) = store.get(&sid, Access::Slide).unwrap();
                    let next = u64::from_le_bytes(payload.try_into().unwrap()) + 1;
                    let put = store.put_if(&sid, meta.version(), &next.to_le_bytes(), &PLAIN);
                    match kind(&put) {
                        None => break,
                        Some(ErrorKind::Conflict) => thread::yield_now(),
                        _ => drop(put.unwrap()),
                    }
                }
            }
        },
        thread::yield_now,
    );
    let (payload, meta) = store.get(&sid, Access::Slide).unwrap();
    let total = THREADS * (STEPS as u64 / 4);
    assert_eq!((u64::from_le_bytes(payload.try_into().unwrap()), meta.version()), (total, total + 1));
}

/// A reader sees one payload, never parts of two, and the version that belongs to it, and time
/// never goes back.
#[test]
fn get_pairs_payload_with_version() {
    let store = open("");
    let (sid, _) = store.create(&payload_of(0), &PLAIN).unwrap();
    let versions: Mutex<HashMap<u64, u64>> = Mutex::new(HashMap::from([(1, 0)]));
    let mut seen = Vec::new();
    let mut last = 0;
    let watch = || {
        let (payload, meta) = store.get(&sid, Access::Slide).unwrap();
        assert!(meta.version() >= last, "the version went back");
        last = meta.version();
        let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
        assert!(payload == payload_of(number), "a torn payload");
        seen.push((meta.version(), number));
    };
    let number = AtomicU64::new(1);
    watched(
        |_| {
            for _ in 0..STEPS / 4 {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let meta = store.put(&sid, &payload_of(number), &PLAIN).unwrap();
                assert_eq!(versions.lock().unwrap().insert(meta.version(), number), None, "a version given twice");
            }
        },
        watch,
    );
    let versions = versions.into_inner().unwrap();
    assert!(seen.iter().all(|(version, number)| versions[version] == *number));
}

fn payload_of(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number % 7) as usize * 300, number as u8);
    payload
}

#[test]
fn counters_lose_no_event() {
    let store = open("");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    watched(
        |_| {
            for _ in 0..STEPS {
                store.get(&sid, Access::Slide).unwrap();
                assert!(found(store.get([b'A'; 128], Access::Peek)).is_none());
                store.put(&sid, b"again", &PLAIN).unwrap();
                assert_eq!(kind(&store.put_if(&sid, 0, b"never", &PLAIN)), Some(ErrorKind::Conflict));
            }
        },
        thread::yield_now,
    );
    let (stats, events) = (store.stats().unwrap(), THREADS * STEPS as u64);
    assert_eq!([stats.hits, stats.misses, stats.puts, stats.conflicts], [events; 4]);
    assert_eq!(store.get(&sid, Access::Peek).unwrap().1.version(), events + 1);
}

/// Every kind of call from several threads, with sessions that expire on the way. In the end every
/// session that can be reached is counted once, nothing else is, and every counter adds up.
#[test]
fn usage_matches_model_after_random_history() {
    for limits in
        ["", "&max_sessions=25&max_bytes=2000", "&max_per_principal=3", "&max_sessions=20&max_per_principal=4"]
    {
        let store = open(&format!("clock=manual&timeout=300ms&idle_timeout=100ms{limits}"));
        let pool: Mutex<Vec<Vec<u8>>> = Mutex::default();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.advance_clock(1).unwrap();
                    thread::yield_now();
                }
            });
            let _stop = Done(&stop);
            watched(|rng| (0..STEPS).for_each(|_| do_anything(&store, &pool, rng)), thread::yield_now);
        });
        store.sweep(u64::MAX).unwrap();

        let mut reached: HashMap<Ref, u64> = HashMap::new();
        for sid in pool.into_inner().unwrap() {
            if let (Some(reference), Some((payload, _))) =
                (found(store.reference(&sid)), found(store.get(&sid, Access::Peek)))
            {
                reached.insert(reference, payload.len() as u64);
            }
        }
        let stats = store.stats().unwrap();
        assert_eq!((stats.sessions, stats.bytes), (reached.len() as u64, reached.values().sum()), "{limits} {stats:?}");
        assert_eq!(stats.sessions, stats.created - stats.deleted - stats.revoked - stats.expired, "{limits} {stats:?}");
        assert_eq!(stats.errors, 0);
        assert!([stats.created, stats.deleted, stats.revoked, stats.expired, stats.renewed].iter().all(|&n| n > 20));
        for reference in reached.keys() {
            store.delete_ref(reference, None).unwrap();
        }
        assert_eq!((store.stats().unwrap().sessions, store.stats().unwrap().bytes), (0, 0), "{limits}");
        assert!(PEOPLE.iter().all(|who| store.list(who).unwrap().is_empty()));
    }
}

const PEOPLE: [&[u8]; 3] = [b"alice", b"bob", b"carol"];

fn do_anything(store: &Store, pool: &Mutex<Vec<Vec<u8>>>, rng: &mut Rng) {
    let sid = {
        let pool = pool.lock().unwrap();
        if pool.is_empty() { vec![b'A'; 128] } else { pool[pool.len() - 1 - rng.below(pool.len().min(60))].clone() }
    };
    let principal = match rng.below(6) {
        0 => Principal::Set(rng.pick(&PEOPLE)),
        _ => Principal::Keep,
    };
    let timeout_ms = rng.pick(&[0, 0, 0, 0, 50, FOREVER, -1]);
    let options = PLAIN.timeout_ms(timeout_ms).with_principal(principal);
    let payload = vec![3; rng.below(200)];
    let new = match rng.below(16) {
        0..3 => unless_full(store.create(&payload, &options.principal(rng.pick(&PEOPLE)))),
        3 => unless_full(store.create(&payload, &PLAIN)),
        4 => found(store.renew(&sid, None, &options.timeout_ms(0))),
        5 => found(store.renew(&sid, None, &grace(40))),
        6..9 => {
            let put = store.put(&sid, &payload, &options);
            assert!(matches!(kind(&put), None | Some(ErrorKind::NotFound | ErrorKind::Full)), "{put:?}");
            None
        }
        9 => {
            let put = store.put_if(&sid, 1, &payload, &options);
            let expected = [None, Some(ErrorKind::NotFound), Some(ErrorKind::Full), Some(ErrorKind::Conflict)];
            assert!(expected.contains(&kind(&put)), "{put:?}");
            None
        }
        10 => found(store.touch(&sid)).and(None),
        11 => found(store.delete(&sid)).and(None),
        12 => found(store.get(&sid, Access::Slide)).and(None),
        13 if rng.one_in(4) => {
            store.revoke(rng.pick(&PEOPLE), rng.one_in(2).then_some(sid.as_slice())).unwrap();
            None
        }
        14 => {
            let listed = store.list(rng.pick(&PEOPLE)).unwrap();
            listed.first().and_then(|entry| found(store.delete_ref(&entry.reference, None))).and(None)
        }
        _ => {
            store.sweep(rng.below(5) as u64).unwrap();
            let _: Stats = store.stats().unwrap();
            None
        }
    };
    if let Some((sid, _)) = new {
        pool.lock().unwrap().push(sid.as_ref().to_vec());
    }
}
