//! Threads against each other on the same sessions: what has ended never comes back, whatever calls
//! were under way. Each round lets two or three calls overlap and then looks at what must hold
//! whatever their order was; nothing here depends on which one wins.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::common::{Done, Engine, Gate, OptionsMs, PLAIN, Rng, found, grace, of, open};
use sss::{Access, ErrorKind, Options, Principal, Sid, Store, Timeout};

const ROUNDS: usize = 400;
/// Long enough that copying it leaves others time to overtake.
const LARGE: usize = 1 << 18;

/// What a request may be doing with a session while another thread ends it.
const USES: [&str; 9] = ["get", "peek", "put", "put_large", "put_if", "put_principal", "touch", "renew", "renew_grace"];

fn rounds(how: &str) -> usize {
    if how == "put_large" { ROUNDS / 8 } else { ROUNDS }
}

/// Does it, and returns the new id if there is one.
fn use_session(store: &Store, sid: &[u8], how: &str) -> Option<Sid> {
    match how {
        "get" => found(store.get(sid, Access::Slide)).and(None),
        "peek" => found(store.get(sid, Access::Peek)).and(None),
        "put" => found(store.put(sid, b"again", &PLAIN)).and(None),
        "put_large" => found(store.put(sid, &vec![7; LARGE], &PLAIN)).and(None),
        "put_if" => found(store.put_if(sid, 1, b"again", &PLAIN)).and(None),
        "put_principal" => found(store.put(sid, b"again", &of(b"alice"))).and(None),
        "touch" => found(store.touch(sid)).and(None),
        "renew" => found(store.renew(sid, Some(b"again"), &PLAIN)).map(|(sid, _)| sid),
        "renew_grace" => found(store.renew(sid, None, &grace(60_000))).map(|(sid, _)| sid),
        _ => unreachable!("{how}"),
    }
}

/// Runs both at once.
fn race<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    let gate = &Gate::new(2);
    thread::scope(|scope| {
        let a = scope.spawn(move || {
            gate.pass();
            a()
        });
        gate.pass();
        let b = b();
        (a.join().unwrap(), b)
    })
}

fn assert_gone(store: &Store, sid: impl AsRef<[u8]>, why: &str) {
    let sid = sid.as_ref();
    assert!(found(store.get(sid, Access::Peek)).is_none(), "{why}: readable");
    assert!(found(store.put(sid, b"back", &PLAIN)).is_none(), "{why}: writable");
    assert!(found(store.reference(sid)).is_none(), "{why}: has a reference");
}

fn assert_empty(store: &Store) {
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes, stats.errors), (0, 0, 0), "{stats:?}");
}

#[test]
fn deleted_session_stays_dead() {
    deleted_never_comes_back_in(&open(""));
    deleted_never_comes_back_in(&open("seal=on"));
}

fn deleted_never_comes_back_in(store: &Store) {
    for how in USES {
        for _ in 0..rounds(how) {
            let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
            let (deleted, new) = race(|| found(store.delete(&sid)), || use_session(store, sid.as_ref(), how));
            assert_gone_but_for_alias(store, &sid, new.as_ref(), how);
            // A renewal and a delete of the same id cannot both have happened.
            assert_ne!(deleted.is_some(), new.is_some(), "{how}");
            if let Some(new) = new {
                store.delete(&new).unwrap();
                assert_gone(store, &new, how);
            }
            assert_gone(store, &sid, how);
        }
    }
    assert!(store.list(b"alice").unwrap().is_empty());
    assert_empty(store);
}

/// The old id may read what the new one holds, for a grace time; but it never writes.
fn assert_gone_but_for_alias(store: &Store, old: &Sid, new: Option<&Sid>, how: &str) {
    if new.is_some() && how == "renew_grace" {
        assert!(found(store.put(old, b"back", &PLAIN)).is_none(), "{how}: the old id writes");
    } else {
        assert_gone(store, old, how);
    }
}

#[test]
fn session_deleted_by_reference_stays_dead() {
    let store = open("");
    for how in USES {
        for _ in 0..rounds(how) / 4 {
            let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
            let reference = store.reference(&sid).unwrap();
            let (deleted, new) =
                race(|| found(store.delete_ref(&reference, None)), || use_session(&store, sid.as_ref(), how));
            assert_ne!(deleted.is_some(), new.is_some(), "{how}");
            new.iter().for_each(|new| store.delete(new).unwrap());
            assert_gone(&store, &sid, how);
        }
    }
    assert_empty(&store);
}

/// Ends the sessions of a principal, or all.
type Revoke = fn(&Store) -> u64;
const REVOKE: Revoke = |store| store.revoke(b"alice", None).unwrap();
const REVOKE_ALL: Revoke = |store| store.revoke_all().unwrap();

#[test]
fn revoked_session_stays_dead() {
    revoked_never_comes_back_in(&open(""), REVOKE, true);
    revoked_never_comes_back_in(&open("seal=on"), REVOKE, true);
}

#[test]
fn session_ended_by_revoke_all_stays_dead() {
    // On `redis:` a session that its own renewal ends for `revoke_all` is not counted.
    let is_exact = !Engine::under_test().is_redis();
    revoked_never_comes_back_in(&open(""), REVOKE_ALL, is_exact);
    // All sessions are of the same millisecond.
    revoked_never_comes_back_in(&open("clock=manual"), REVOKE_ALL, is_exact);
}

fn revoked_never_comes_back_in(store: &Store, revoke: Revoke, is_exact: bool) {
    for how in USES {
        for _ in 0..rounds(how) {
            let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
            let (revoked, new) = race(|| revoke(store), || use_session(store, sid.as_ref(), how));
            assert!(revoked == 1 || revoked == 0 && !is_exact, "{how}: it was alive when revoke was called");
            assert_gone(store, &sid, how);
            new.iter().for_each(|new| assert_gone(store, new, how));
        }
    }
    assert!(store.list(b"alice").unwrap().is_empty());
    assert_empty(store);
}

#[test]
fn revoke_spares_exception_during_renew() {
    let store = open("");
    for how in ["renew", "renew_grace"] {
        for _ in 0..ROUNDS {
            let (mine, _) = store.create(b"mine", &of(b"alice")).unwrap();
            let (other, _) = store.create(b"other", &of(b"alice")).unwrap();
            let (revoked, new) = race(
                || store.revoke(b"alice", Some(mine.as_ref())).unwrap(),
                || use_session(&store, mine.as_ref(), how).unwrap_or_else(|| panic!("{how}: it was to be spared")),
            );
            assert_gone(&store, &other, how);
            // After a renewal without grace the id that was to be spared names nothing: then
            // nothing is spared.
            let spared = found(store.get(&new, Access::Peek)).is_some();
            assert!(spared || how == "renew", "{how}");
            assert_eq!(revoked, if spared { 1 } else { 2 }, "{how}");
            store.revoke(b"alice", None).unwrap();
        }
    }
    assert_empty(&store);
}

#[test]
fn revoke_ends_everything_returned_before() {
    returned_before_is_dead_after_in(&open(""), REVOKE);
}

#[test]
fn revoke_all_ends_everything_returned_before() {
    returned_before_is_dead_after_in(&open(""), REVOKE_ALL);
    returned_before_is_dead_after_in(&open("clock=manual"), REVOKE_ALL);
}

/// "Whatever create or renew had returned before revoke was called is dead when it returns", with
/// several threads that never stop creating, renewing and writing.
fn returned_before_is_dead_after_in(store: &Store, revoke: Revoke) {
    let returned: Mutex<Vec<Sid>> = Mutex::default();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (returned, done) = (&returned, &done);
            scope.spawn(move || {
                let mut rng = Rng(worker);
                let mut mine: Vec<Vec<u8>> = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let new = if mine.is_empty() || rng.one_in(4) {
                        Some(store.create(b"hello", &of(b"alice")).unwrap().0)
                    } else {
                        let nth = mine.len() - 1 - rng.below(mine.len().min(8));
                        let how = rng.pick(&USES.map(|how| if how == "put_large" { "put" } else { how }));
                        match how {
                            // Others may have written, and a conflict is no failure here.
                            "put_if" => store.put_if(&mine[nth], 1, b"again", &PLAIN).ok().and(None),
                            _ => use_session(store, &mine[nth], how),
                        }
                    };
                    if let Some(new) = new {
                        mine.push(new.as_ref().to_vec());
                        returned.lock().unwrap().push(new);
                    }
                }
            });
        }
        let mut all: Vec<Sid> = Vec::new();
        let stop = Done(&done);
        for _ in 0..ROUNDS {
            while returned.lock().unwrap().len() < 8 {
                thread::yield_now();
            }
            let before = std::mem::take(&mut *returned.lock().unwrap());
            revoke(store);
            before.iter().for_each(|sid| assert!(found(store.get(sid, Access::Peek)).is_none(), "revoked and alive"));
            all.extend(before);
        }
        drop(stop);
        all.iter().for_each(|sid| assert!(found(store.get(sid, Access::Peek)).is_none(), "it came back"));
    });
    revoke(store);
    assert_empty(store);
}

/// What is created meanwhile is ended, and counted, or lives on; nothing is in between, and nothing
/// is counted twice.
#[test]
fn revoke_all_counts_each_session_once() {
    for options in ["", "clock=manual"] {
        let store = open(options);
        let done = AtomicBool::new(false);
        let revoked: u64 = thread::scope(|scope| {
            for _ in 0..2 {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let (mut sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
                        for renewal in [grace(60_000), PLAIN] {
                            let Some((new, _)) = found(store.renew(&sid, None, &renewal)) else { break };
                            sid = new;
                        }
                        let was_dead = found(store.get(&sid, Access::Peek)).is_none();
                        let is_alive = found(store.touch(&sid)).is_some();
                        assert!(!(was_dead && is_alive), "it came back");
                    }
                });
            }
            let revoke = || (0..ROUNDS).map(|_| store.revoke_all().unwrap()).sum::<u64>();
            let _stop = Done(&done);
            let (one, other) = race(revoke, revoke);
            one + other
        });
        let stats = store.stats().unwrap();
        match Engine::under_test() {
            Engine::Memory => assert_eq!(revoked, stats.revoked),
            // Between processes a call does not count what another one, or a create, has removed.
            _ => assert!(revoked <= stats.revoked, "{revoked}: {stats:?}"),
        }
        if !Engine::under_test().is_redis() {
            assert_eq!(stats.created - stats.revoked, stats.sessions, "{stats:?}");
        }
        assert_eq!(store.list(b"alice").unwrap().len() as u64, stats.sessions);
        assert_eq!(store.revoke_all().unwrap(), stats.sessions);
        assert_empty(&store);
    }
}

#[test]
fn login_keeps_concurrent_put_if() {
    let store = open("");
    for _ in 0..ROUNDS * 2 {
        let (sid, _) = store.create(b"old", &PLAIN).unwrap();
        let login = of(b"alice").label("phone");
        let (put, (new, meta)) =
            race(|| found(store.put_if(&sid, 1, b"new", &PLAIN)), || store.renew(&sid, None, &login).unwrap());
        assert!(meta.authenticated().is_some());
        let (payload, after) = store.get(&new, Access::Peek).unwrap();
        let expected: (&[u8], u64) = if put.is_some() { (b"new", 2) } else { (b"old", 1) };
        assert_eq!(
            (payload.as_slice(), after.version(), after.authenticated()),
            (expected.0, expected.1, meta.authenticated())
        );
        assert_eq!(store.list(b"alice").unwrap()[0].label.as_deref(), Some(&b"phone"[..]));
        store.delete(&new).unwrap();
    }
    assert_empty(&store);
}

#[test]
fn delete_ref_spares_session_of_new_principal() {
    let store = open("");
    type Move = fn(&Store, &Sid) -> bool;
    let moves: [(&str, Move); 2] = [
        ("renew", |store, sid| found(store.renew(sid, None, &of(b"bob"))).is_some()),
        ("put", |store, sid| found(store.put(sid, b"again", &of(b"bob"))).is_some()),
    ];
    for (how, change) in moves {
        for _ in 0..ROUNDS {
            let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
            let reference = store.reference(&sid).unwrap();
            let (deleted, moved) =
                race(|| found(store.delete_ref(&reference, Some(b"alice"))), || change(&store, &sid));
            assert_ne!(deleted.is_some(), moved, "{how}");
            assert_eq!(store.list(b"bob").unwrap().len(), usize::from(moved), "{how}");
            assert!(store.list(b"alice").unwrap().is_empty(), "{how}");
            store.revoke(b"bob", None).unwrap();
        }
    }
    assert_empty(&store);
}

/// A list shows no label that was given with another principal.
#[test]
fn label_never_changes_its_principal() {
    let store = open("");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let people = ["alice", "bob"];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for name in people {
            let (store, sid, done) = (&store, &sid, &done);
            scope.spawn(move || {
                let mut rng = Rng(name.len() as u64);
                while !done.load(Ordering::Relaxed) {
                    let options = of(name.as_bytes());
                    let options = if rng.one_in(2) { options.label(name) } else { options };
                    store.put(sid, &vec![7; rng.below(200)], &options).unwrap();
                }
            });
        }
        let _stop = Done(&done);
        for _ in 0..ROUNDS * 4 {
            for name in people {
                let entries = store.list(name.as_bytes()).unwrap();
                let labels = entries.iter().filter_map(|entry| entry.label.as_deref());
                assert!(labels.into_iter().all(|label| label == name.as_bytes()), "{name}: {entries:?}");
            }
        }
    });
}

#[test]
fn concurrent_renewals_have_one_winner() {
    let store = open("");
    for graces in [(0, 0), (60_000, 0), (60_000, 60_000)] {
        for _ in 0..ROUNDS {
            let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
            let (a, b) = race(
                || found(store.renew(&sid, Some(b"a"), &grace(graces.0))),
                || found(store.renew(&sid, Some(b"b"), &grace(graces.1))),
            );
            let (winner, payload) = match (&a, &b) {
                (Some((sid, meta)), None) => (sid, (b"a", *meta)),
                (None, Some((sid, meta))) => (sid, (b"b", *meta)),
                _ => panic!("{} winners", a.iter().len() + b.iter().len()),
            };
            assert_eq!(store.get(winner, Access::Peek).unwrap(), (payload.0.to_vec(), payload.1));
            assert!(found(store.touch(&sid)).is_none());
            store.delete(winner).unwrap();
            assert_gone(&store, &sid, "of two renewals");
        }
    }
    assert_empty(&store);
}

#[test]
fn renew_keeps_concurrent_put() {
    let store = open("");
    for _ in 0..ROUNDS * 4 {
        let (sid, _) = store.create(b"old", &PLAIN).unwrap();
        let (put, renewed) =
            race(|| found(store.put(&sid, b"new", &PLAIN)), || store.renew(&sid, None, &PLAIN).unwrap());
        let (payload, meta) = store.get(&renewed.0, Access::Peek).unwrap();
        let expected: (&[u8], u64) = if put.is_some() { (b"new", 2) } else { (b"old", 1) };
        assert_eq!((payload.as_slice(), meta.version()), expected);
        store.delete(&renewed.0).unwrap();
    }
    assert_empty(&store);
}

/// A thread that began before the deadline and is slow must not bring back what another one has
/// already seen dead.
#[test]
fn expired_session_stays_dead() {
    for how in USES {
        let store = open("clock=manual&timeout=infinity&idle_timeout=10ms");
        for _ in 0..rounds(how) {
            let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
            store.advance_clock(9).unwrap();
            let expire = || {
                store.advance_clock(1).unwrap();
                let seen_dead = found(store.get(&sid, Access::Peek)).is_none();
                (seen_dead, store.list(b"alice").unwrap().is_empty())
            };
            let ((seen_dead, unlisted), new) = race(expire, || use_session(&store, sid.as_ref(), how));
            let alive = [Some(&sid), new.as_ref()].into_iter().flatten().any(|sid| found(store.touch(sid)).is_some());
            assert!(!(seen_dead && alive && new.is_none()), "{how}: it was seen dead and came back");
            assert!(!(unlisted && alive), "{how}: its principal had no session any more and has one again");
            store.revoke(b"alice", None).unwrap();
            store.sweep(u64::MAX).unwrap();
        }
        assert_empty(&store);
    }
}

#[test]
fn extended_session_stays_alive() {
    const TIMEOUT_MS: i64 = 1000;
    const EXTENDED: Options = PLAIN.timeout(Timeout::Never);
    let store = open("clock=manual&timeout=1s&idle_timeout=infinity");
    type Extend = fn(&Store, &Sid) -> bool;
    let extensions: [(&str, Extend); 3] = [
        ("put", |store, sid| found(store.put(sid, b"again", &EXTENDED)).is_some()),
        ("put_if", |store, sid| found(store.put_if(sid, 1, b"again", &EXTENDED)).is_some()),
        // The old id still reads the session.
        ("renew", |store, sid| found(store.renew(sid, None, &EXTENDED.grace_ms(1 << 40))).is_some()),
    ];
    for (how, extend) in extensions {
        for round in 0..ROUNDS {
            let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
            store.advance_clock(TIMEOUT_MS - 1).unwrap();
            let (extended, read) = race(
                || extend(&store, &sid),
                || {
                    store.advance_clock(1).unwrap();
                    found(store.get(&sid, Access::Slide)).is_some()
                },
            );
            assert_eq!(extended, read, "{how}, round {round}: extended, and read");
            assert_eq!(
                extended,
                found(store.get(&sid, Access::Peek)).is_some(),
                "{how}, round {round}: extended, and lives"
            );
        }
    }
    assert_eq!(store.stats().unwrap().errors, 0);
}

#[test]
fn sweep_spares_touched_session() {
    let store = open("clock=manual&timeout=infinity&idle_timeout=10ms");
    for _ in 0..ROUNDS * 4 {
        let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
        store.advance_clock(9).unwrap();
        let expire = || {
            store.advance_clock(1).unwrap();
            store.sweep(u64::MAX).unwrap()
        };
        let (swept, touched) = race(expire, || found(store.touch(&sid)));
        let alive = found(store.get(&sid, Access::Peek)).is_some();
        assert_eq!(alive, touched.is_some());
        assert!(!alive || swept == 0);
        store.advance_clock(100).unwrap();
        store.sweep(u64::MAX).unwrap();
    }
    assert_empty(&store);
}

/// What begins under the old timeout while another handle sets a shorter one is swept by the
/// shorter one.
#[test]
fn sweep_finds_shortened_timeouts() {
    for round in 0..ROUNDS / 2 {
        let url = format!("memory:{}-{round}?clock=manual&idle_timeout=infinity", crate::common::unique_name());
        let store = Store::open(&format!("{url}&timeout=1h")).unwrap();
        let (_, second) = race(
            || store.create(&vec![7; LARGE], &PLAIN).unwrap(),
            || Store::open(&format!("{url}&timeout=10s")).unwrap(),
        );
        store.advance_clock(10_000).unwrap();
        assert_eq!(second.sweep(10).unwrap(), 1, "round {round}");
        assert_empty(&store);
    }
}

/// Another thread keeps renewing the sessions of a principal: it has all of them at any time.
#[test]
fn list_includes_sessions_during_renew() {
    const SESSIONS: usize = 16;
    let store = open("");
    let mut sids: Vec<Sid> = (0..SESSIONS).map(|_| store.create(b"hello", &of(b"alice")).unwrap().0).collect();
    let done = AtomicBool::new(false);
    let (_, wrong) = race(
        || {
            while !done.load(Ordering::Relaxed) {
                sids.iter_mut().for_each(|sid| *sid = store.renew(&*sid, None, &PLAIN).unwrap().0);
            }
        },
        || {
            let _stop = Done(&done);
            (0..ROUNDS * 20).filter(|_| store.list(b"alice").unwrap().len() != SESSIONS).count()
        },
    );
    assert_eq!(wrong, 0, "of {} lists", ROUNDS * 20);
}

/// Within its grace time an old id reads the session, however often that is renewed again
/// meanwhile.
#[test]
fn old_id_reads_during_renew() {
    let store = open("");
    let (mut reads, mut missed) = (0, 0);
    for _ in 0..ROUNDS {
        let (old, _) = store.create(b"hello", &PLAIN).unwrap();
        let (mut sid, _) = store.renew(&old, None, &grace(3_600_000)).unwrap();
        let done = AtomicBool::new(false);
        let renewals = || {
            let _stop = Done(&done);
            for _ in 0..16 {
                sid = store.renew(&sid, None, &grace(3_600_000)).unwrap().0;
            }
        };
        let read = || {
            while !done.load(Ordering::Relaxed) {
                reads += 1;
                missed += u32::from(found(store.get(&old, Access::Slide)).is_none());
            }
        };
        race(renewals, read);
    }
    assert_eq!(missed, 0, "of {reads} reads");
}

#[test]
fn principal_moves_lose_nothing() {
    let store = open("");
    let (sid, _) = store.create(b"hello", &of(b"p0")).unwrap();
    let names = ["p0", "p1", "p2", "p3"];
    thread::scope(|scope| {
        for worker in 0..3 {
            let (store, sid) = (&store, &sid);
            scope.spawn(move || {
                let mut rng = Rng(worker);
                for _ in 0..ROUNDS * 5 {
                    let principal = match rng.below(5) {
                        0 => Principal::Clear,
                        n => Principal::Set(names[n - 1].as_bytes()),
                    };
                    store.put(sid, b"hello", &PLAIN.with_principal(principal)).unwrap();
                }
            });
        }
    });
    let lists: usize = names.iter().map(|name| store.list(name.as_bytes()).unwrap().len()).sum();
    assert!(lists <= 1, "one session, {lists} principals");
    store.put(&sid, b"hello", &of(b"p0")).unwrap();
    let revoked: u64 = names.iter().map(|name| store.revoke(name.as_bytes(), None).unwrap()).sum();
    assert_eq!(revoked, 1);
    assert_eq!(store.get(&sid, Access::Slide).map_err(|error| error.kind()), Err(ErrorKind::NotFound));
    assert_empty(&store);
}
