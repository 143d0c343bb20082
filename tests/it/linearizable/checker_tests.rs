//! Histories written by hand, of which is known whether they are linearizable: the checker must say
//! the same.

use super::{
    checker::check,
    history::{Answer, Call, Id, NEVER, NO_OPTS, Op, Opts, Shown, Who, payload_len},
    spec::{Rules, Wide},
};
use crate::common::{FOREVER, PlainMeta};

const RULES: Rules =
    Rules { timeout: FOREVER, idle: 10, max_per_principal: usize::MAX, wide: Wide::Atomic, unreferenced: Vec::new() };
const OF_ALICE: Opts = Opts { who: Who::Set(0), ..NO_OPTS };

/// At time 0, where most of these histories play.
fn meta(version: u64) -> PlainMeta {
    seen(version, 0)
}

fn seen(version: u64, at: i64) -> PlainMeta {
    PlainMeta {
        version,
        created_ms: 0,
        last_seen_ms: at,
        expires_ms: at + 10,
        authenticated_ms: Some(0),
        timeout_ms: RULES.timeout,
        idle_timeout_ms: RULES.idle,
    }
}

fn op(call: u64, ret: u64, what: Call, answer: Answer) -> Op {
    Op { thread: 0, call, ret, what, answer }
}

fn create(call: u64, ret: u64, id: Id) -> Op {
    op(call, ret, Call::Create { value: 1, opts: OF_ALICE }, Answer::Made(id, meta(1)))
}

fn put(call: u64, ret: u64, value: u32, version: u64) -> Op {
    op(call, ret, Call::Put { id: 0, version: None, value, opts: NO_OPTS }, Answer::Wrote(meta(version)))
}

fn put_if(call: u64, ret: u64, at: u64, value: u32, answer: Answer) -> Op {
    op(call, ret, Call::Put { id: 0, version: Some(at), value, opts: NO_OPTS }, answer)
}

fn peek(call: u64, ret: u64, id: Id, value: u32, version: u64) -> Op {
    op(call, ret, Call::Peek { id }, Answer::Read(value, meta(version)))
}

fn gone(call: u64, ret: u64, id: Id) -> Op {
    op(call, ret, Call::Peek { id }, Answer::NotFound)
}

fn delete(call: u64, ret: u64, id: Id) -> Op {
    op(call, ret, Call::Delete { id }, Answer::Done)
}

fn renew(call: u64, ret: u64, grace: i64, answer: Answer) -> Op {
    op(call, ret, Call::Renew { id: 0, value: None, opts: Opts { grace, ..NO_OPTS } }, answer)
}

fn revoke(call: u64, ret: u64, count: u64) -> Op {
    op(call, ret, Call::Revoke { who: 0, except: None }, Answer::Revoked(count))
}

fn list(call: u64, ret: u64, shown: &[(Id, u32, u64)]) -> Op {
    let shown = shown.iter().map(|&(id, value, version)| shown_as(id, value, version)).collect();
    op(call, ret, Call::List { who: 0 }, Answer::Listed(shown))
}

fn shown_as(id: Id, value: u32, version: u64) -> Shown {
    Shown { id, len: payload_len(value) as u64, meta: meta(version) }
}

fn advance(call: u64, ret: u64, ms: i64) -> Op {
    op(call, ret, Call::Advance { ms }, Answer::Done)
}

#[track_caller]
fn accepted(rules: &Rules, history: &[Op]) {
    check(rules, history).unwrap_or_else(|why| panic!("it is linearizable: {why}"));
}

#[track_caller]
fn refused(rules: &Rules, history: &[Op]) -> String {
    check(rules, history).expect_err("it is not linearizable")
}

#[test]
fn checker_accepts_overlapping_calls() {
    accepted(&RULES, &[]);
    accepted(&RULES, &[create(0, 1, 0), put(2, 3, 2, 2), peek(4, 5, 0, 2, 2), delete(6, 7, 0), gone(8, 9, 0)]);
    // Read either side of a put that overlaps.
    accepted(&RULES, &[create(0, 1, 0), put(2, 9, 2, 2), peek(3, 4, 0, 1, 1), peek(5, 6, 0, 2, 2)]);
    // The put called later takes place first.
    accepted(&RULES, &[create(0, 1, 0), put(2, 9, 2, 3), put(3, 8, 3, 2), peek(10, 11, 0, 2, 3)]);
    // A put that loses against a delete that overlaps.
    let lost = op(2, 5, Call::Put { id: 0, version: None, value: 2, opts: NO_OPTS }, Answer::NotFound);
    accepted(&RULES, &[create(0, 1, 0), lost, delete(3, 4, 0), gone(6, 7, 0)]);
}

#[test]
fn checker_allows_pending_calls_either_way() {
    let never = Op { ret: NEVER, ..put(2, 3, 2, 2) };
    accepted(&RULES, &[create(0, 1, 0), never.clone(), peek(4, 5, 0, 1, 1), peek(6, 7, 0, 2, 2)]);
    refused(&RULES, &[create(0, 1, 0), never, peek(4, 5, 0, 2, 2), peek(6, 7, 0, 1, 1)]);
}

#[test]
fn checker_rejects_lost_update() {
    let ok = |version| Answer::Wrote(meta(version));
    let first = put_if(2, 5, 1, 2, ok(2));
    accepted(&RULES, &[create(0, 1, 0), first.clone(), put_if(3, 4, 1, 3, Answer::Conflict)]);
    refused(&RULES, &[create(0, 1, 0), first, put_if(3, 4, 1, 3, ok(2))]);
    // Both say version 3, or one is gone without a trace.
    refused(&RULES, &[create(0, 1, 0), put(2, 5, 2, 2), put(3, 4, 3, 2)]);
    refused(&RULES, &[create(0, 1, 0), put(2, 5, 2, 2), put(3, 4, 3, 3), peek(6, 7, 0, 2, 2)]);
}

#[test]
fn checker_rejects_resurrection() {
    // The put overlaps the delete, so it may come before it; but then nothing is there afterwards.
    let begin = [create(0, 1, 0), put(2, 5, 2, 2), delete(3, 4, 0)];
    accepted(&RULES, &[&begin[..], &[gone(6, 7, 0)]].concat());
    refused(&RULES, &[&begin[..], &[peek(6, 7, 0, 2, 2)]].concat());
    refused(&RULES, &[create(0, 1, 0), delete(2, 3, 0), put(4, 5, 2, 2)]);
    // Expired: dead exactly at its deadline, and not before.
    let late = |ms| [create(0, 1, 0), advance(2, 3, ms), op(4, 5, Call::Touch { id: 0 }, Answer::Wrote(seen(1, ms)))];
    accepted(&RULES, &late(9));
    refused(&RULES, &late(10));
}

#[test]
fn checker_rejects_stale_read() {
    let why = refused(&RULES, &[create(0, 1, 0), put(2, 3, 2, 2), peek(4, 5, 0, 1, 1), peek(6, 7, 0, 2, 2)]);
    // It names the call, what it should have been, and nothing that came later.
    assert!(why.contains("[   4 to     5] thread 0: Peek { id: 0 }  =>  value 1"), "{why}");
    assert!(why.contains("would be: value 2, version 2"), "{why}");
    assert!(!why.contains("[   6 to"), "{why}");
    // Nor may two reads see a put that overlaps them in the wrong order.
    refused(&RULES, &[create(0, 1, 0), put(2, 9, 2, 2), peek(3, 4, 0, 2, 2), peek(5, 6, 0, 1, 1)]);
    // A reading that slides is a use: it must be seen.
    let get = op(4, 5, Call::Get { id: 0 }, Answer::Read(1, seen(1, 3)));
    refused(&RULES, &[create(0, 1, 0), advance(2, 3, 3), get, peek(6, 7, 0, 1, 1)]);
}

#[test]
fn checker_rejects_double_renew() {
    let won = |id| Answer::Made(id, meta(1));
    accepted(&RULES, &[create(0, 1, 0), renew(2, 5, 0, won(1)), renew(3, 4, 0, Answer::NotFound)]);
    for grace in [0, 5] {
        refused(&RULES, &[create(0, 1, 0), renew(2, 5, grace, won(1)), renew(3, 4, grace, won(2))]);
    }
    refused(&RULES, &[create(0, 1, 0), delete(2, 5, 0), renew(3, 4, 0, won(1))]);
}

#[test]
fn checker_models_grace() {
    let begin = [create(0, 1, 0), renew(2, 3, 5, Answer::Made(1, meta(1)))];
    let by_old = |call, answer| op(call, call + 1, Call::Peek { id: 0 }, answer);
    let until = Answer::Read(1, PlainMeta { expires_ms: 5, ..meta(1) });
    accepted(
        &RULES,
        &[&begin[..], &[by_old(4, until.clone()), advance(6, 7, 5), by_old(8, Answer::NotFound)]].concat(),
    );
    refused(&RULES, &[&begin[..], &[advance(4, 5, 5), by_old(6, until.clone())]].concat());
    refused(&RULES, &[&begin[..], &[by_old(4, Answer::NotFound)]].concat());
    refused(&RULES, &[&begin[..], &[put(4, 5, 2, 2)]].concat());
    refused(&RULES, &[&begin[..], &[delete(4, 5, 1), by_old(6, until)]].concat());
}

#[test]
fn checker_rejects_incomplete_revoke() {
    let two = [create(0, 1, 0), create(2, 3, 1)];
    for wide in [Wide::Atomic, Wide::OneByOne] {
        let rules = Rules { wide, ..RULES };
        accepted(&rules, &[&two[..], &[revoke(4, 5, 2), gone(6, 7, 0), gone(8, 9, 1)]].concat());
        refused(&rules, &[&two[..], &[revoke(4, 5, 1), gone(6, 7, 0), peek(8, 9, 1, 1, 1)]].concat());
        refused(&rules, &[&two[..], &[revoke(4, 5, 2), gone(6, 7, 0), peek(8, 9, 1, 1, 1)]].concat());
        // Created while it runs: either way.
        accepted(&rules, &[create(0, 1, 0), create(2, 5, 1), revoke(3, 4, 1), peek(6, 7, 1, 1, 1)]);
        accepted(&rules, &[create(0, 1, 0), create(2, 5, 1), revoke(3, 4, 2), gone(6, 7, 1)]);
    }
}

#[test]
fn checker_distinguishes_atomic_revoke() {
    let one_by_one = Rules { wide: Wide::OneByOne, ..RULES };
    let two = [create(0, 1, 0), create(2, 3, 1)];
    // One is seen dead and then the other one alive, while the revoke runs.
    let half_revoked = [&two[..], &[revoke(4, 9, 2), gone(5, 6, 0), peek(7, 8, 1, 1, 1)]].concat();
    refused(&RULES, &half_revoked);
    accepted(&one_by_one, &half_revoked);
    // The first as it was before the put, without the second which was deleted after it.
    let torn = [&two[..], &[list(4, 9, &[(0, 1, 1)]), put(5, 6, 2, 2), delete(7, 8, 1)]].concat();
    refused(&RULES, &torn);
    accepted(&one_by_one, &torn);
    // A session that was there all the time may not be missing.
    refused(&one_by_one, &[&two[..], &[list(4, 5, &[(0, 1, 1)])]].concat());
    refused(&one_by_one, &[&two[..], &[delete(4, 5, 1), list(6, 7, &[(0, 1, 1), (1, 1, 1)])]].concat());
}

#[test]
fn checker_rejects_wrong_eviction() {
    let rules = Rules { max_per_principal: 2, ..RULES };
    let touch = |call, id| op(call, call + 1, Call::Touch { id }, Answer::Wrote(seen(1, 1)));
    let made = PlainMeta { created_ms: 1, authenticated_ms: Some(1), ..seen(1, 1) };
    let third = op(8, 9, Call::Create { value: 1, opts: OF_ALICE }, Answer::Made(2, made));
    let begin = [create(0, 1, 0), create(2, 3, 1), advance(4, 5, 1), touch(6, 0), third];
    accepted(&rules, &[&begin[..], &[gone(10, 11, 1), touch(12, 0)]].concat());
    refused(&rules, &[&begin[..], &[gone(10, 11, 0)]].concat());
    refused(&rules, &[&begin[..], &[op(10, 11, Call::Peek { id: 1 }, Answer::Read(1, meta(1)))]].concat());
    // One that is dead at once ends another one too, if it takes place when there are two.
    let dead = PlainMeta { expires_ms: -1, timeout_ms: 0, ..meta(1) };
    let dead = op(1, 8, Call::Create { value: 1, opts: Opts { timeout: -1, ..OF_ALICE } }, Answer::Made(2, dead));
    let begin = [dead, create(2, 3, 0), create(4, 5, 1)];
    accepted(&rules, &[&begin[..], &[revoke(9, 10, 1)]].concat());
    accepted(&rules, &[&begin[..], &[revoke(9, 10, 2)]].concat());
    refused(&rules, &[&begin[..], &[revoke(9, 10, 0)]].concat());
}
