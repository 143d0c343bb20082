//! Very many rounds of two calls on one session: one that ends it, and one that uses it. Whichever
//! wins, what has ended stays so. The rounds of a batch share two threads, since to start one takes
//! longer than a round.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use sss::{Access, Ref, Sid, Store};

use crate::common::{OptionsMs, PLAIN, Rng, found, from_env, grace, of, open};

const BATCH: usize = 256;
/// By so much the clock moves in a round that ends its session by expiry.
const TICK_MS: i64 = 10;
const USES: [&str; 9] = ["get", "peek", "put", "put_moved", "put_if", "put_principal", "touch", "renew", "renew_grace"];
const ENDS: [&str; 6] = ["delete", "delete_ref", "delete_ref_principal", "revoke", "expiry", "expiry_sweep"];

struct Raced {
    sid: Sid,
    reference: Ref,
    principal: Vec<u8>,
}

/// Lets two threads begin each round together.
#[derive(Default)]
struct Pace([AtomicUsize; 2]);

impl Pace {
    fn wait(&self, mine: usize, round: usize) {
        self.0[mine].store(round + 1, Ordering::Release);
        let mut spins = 0;
        while self.0[1 - mine].load(Ordering::Acquire) <= round {
            spins += 1;
            if spins % 64 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// A thread that failed must not leave the other one waiting.
struct Leaves<'a>(&'a Pace, usize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.0[self.1].store(usize::MAX, Ordering::Release);
    }
}

#[test]
fn raced_rounds_never_resurrect() {
    let rounds = from_env("SSS_RACE_ROUNDS", 20_000) as usize;
    let (mut ended_first, mut used_first) = (0, 0);
    for batch in 0..rounds.div_ceil(BATCH) {
        let (end, how) = (ENDS[batch % ENDS.len()], USES[batch / ENDS.len() % USES.len()]);
        let store = open(if batch % 4 == 3 { "clock=manual&seal=on" } else { "clock=manual" });
        let used = race(&store, end, how, batch as u64);
        used_first += used;
        ended_first += BATCH - used;
    }
    println!("{} rounds: used first in {used_first}, ended first in {ended_first}", used_first + ended_first);
}

/// A batch of rounds. Returns in how many of them the use came first.
fn race(store: &Store, end: &str, how: &str, seed: u64) -> usize {
    let sessions: Vec<Raced> = (0..BATCH).map(|nth| begin(store, end, nth)).collect();
    let (sessions, pace) = (&sessions, &Pace::default());
    let (ended, used) = thread::scope(|scope| {
        let user = scope.spawn(move || {
            let (_leaves, mut rng) = (Leaves(pace, 0), Rng(seed * 2));
            let round = |(nth, raced): (usize, &Raced)| {
                pace.wait(0, nth);
                (0..rng.below(40)).for_each(|_| std::hint::spin_loop());
                use_session(store, raced, how)
            };
            sessions.iter().enumerate().map(round).collect::<Vec<_>>()
        });
        let (_leaves, mut rng) = (Leaves(pace, 1), Rng(seed * 2 + 1));
        let round = |(nth, raced): (usize, &Raced)| {
            pace.wait(1, nth);
            (0..rng.below(120)).for_each(|_| std::hint::spin_loop());
            let ended = end_session(store, raced, end);
            if ended {
                assert_gone(store, &raced.sid, &format!("{end} has returned, {how} may run"));
            }
            ended
        };
        let ended: Vec<bool> = sessions.iter().enumerate().map(round).collect();
        (ended, user.join().unwrap())
    });
    for ((raced, ended), (_, new)) in sessions.iter().zip(ended).zip(&used) {
        let why = format!("{end} against {how}, both done");
        let by_key = end.starts_with("delete");
        assert_ne!(by_key && new.is_some(), ended, "{why}: a delete and a renewal cannot both have won");
        if let (Some(new), true) = (new, by_key) {
            store.delete(new).unwrap_or_else(|error| panic!("{why}: {error}"));
        }
        [Some(&raced.sid), new.as_ref()].into_iter().flatten().for_each(|sid| assert_gone(store, sid, &why));
        assert!(store.list(&raced.principal).unwrap().is_empty(), "{why}: listed");
    }
    store.sweep(u64::MAX).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes, stats.errors), (0, 0, 0), "{end} against {how}: {stats:?}");
    used.iter().filter(|(used, _)| *used).count()
}

fn begin(store: &Store, end: &str, nth: usize) -> Raced {
    let principal = format!("user-{nth}").into_bytes();
    // Each expires in its own round; nothing that a use does moves that deadline.
    let timeout_ms = if end.starts_with("expiry") { TICK_MS * (nth as i64 + 1) } else { 0 };
    let (sid, _) = store.create(b"hello", &of(&principal).timeout_ms(timeout_ms)).unwrap();
    let reference = store.reference(&sid).unwrap();
    Raced { sid, reference, principal }
}

/// Whether that ended it. Only a delete may find nothing: the session may have another id by then.
fn end_session(store: &Store, raced: &Raced, end: &str) -> bool {
    match end {
        "delete" => return found(store.delete(&raced.sid)).is_some(),
        "delete_ref" => return found(store.delete_ref(&raced.reference, None)).is_some(),
        "delete_ref_principal" => {
            return found(store.delete_ref(&raced.reference, Some(&raced.principal))).is_some();
        }
        "revoke" => assert_eq!(store.revoke(&raced.principal, None).unwrap(), 1, "it lived when revoke was called"),
        _ => store.advance_clock(TICK_MS).unwrap(),
    }
    if end == "expiry_sweep" {
        store.sweep(4).unwrap();
    }
    true
}

/// Whether it was still there, and its new id if it has one.
fn use_session(store: &Store, raced: &Raced, how: &str) -> (bool, Option<Sid>) {
    let sid = &raced.sid;
    let used = match how {
        "get" => found(store.get(sid, Access::Slide)).is_some(),
        "peek" => found(store.get(sid, Access::Peek)).is_some(),
        "put" => found(store.put(sid, b"again", &PLAIN)).is_some(),
        "put_moved" => found(store.put(sid, &[7; 1000], &PLAIN)).is_some(),
        "put_if" => found(store.put_if(sid, 1, b"again", &PLAIN)).is_some(),
        "put_principal" => found(store.put(sid, b"again", &of(&raced.principal))).is_some(),
        "touch" => found(store.touch(sid)).is_some(),
        _ => {
            let options = if how == "renew_grace" { grace(3_600_000) } else { PLAIN };
            let new = found(store.renew(sid, Some(b"again"), &options)).map(|(sid, _)| sid);
            return (new.is_some(), new);
        }
    };
    (used, None)
}

fn assert_gone(store: &Store, sid: &Sid, why: &str) {
    assert!(found(store.get(sid, Access::Slide)).is_none(), "{why}: readable");
    assert!(found(store.put(sid, b"back", &PLAIN)).is_none(), "{why}: writable");
    assert!(found(store.renew(sid, None, &PLAIN)).is_none(), "{why}: renewable");
    assert!(found(store.reference(sid)).is_none(), "{why}: has a reference");
}
