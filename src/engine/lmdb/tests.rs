//! What others find who edit the tables, as far as it can only be shown from inside.

use super::{ffi::Table, fixture::Fixture};
use crate::{Access, ErrorKind, FOREVER, Options, Principal, Ref, Sid, Store, error::Result};

const PLAIN: Options = Options { timeout_ms: 0, idle_timeout_ms: 0, principal: Principal::Keep, grace_ms: 0 };
const LASTING: Options = Options { timeout_ms: FOREVER, idle_timeout_ms: FOREVER, ..PLAIN };

/// Every call that shows, replaces or moves what a session holds.
fn uses(store: &Store, sid: &Sid) -> [(&'static str, Result<()>); 6] {
    [
        ("get", store.get(sid, Access::Slide).map(|_| ())),
        ("peek", store.get(sid, Access::Peek).map(|_| ())),
        ("put", store.put(sid, b"new", &PLAIN).map(|_| ())),
        ("put_if", store.put_if(sid, 1, b"new", &PLAIN).map(|_| ())),
        ("renew", store.renew(sid, None, &PLAIN).map(|_| ())),
        ("renew with a payload", store.renew(sid, Some(b"new"), &PLAIN).map(|_| ())),
    ]
}

#[test]
fn no_call_makes_a_genuine_session_of_an_edited_record() {
    let inside = Fixture::new("");
    let store = &inside.store;
    let (sid, _) = store.create(b"role=user", &Options { principal: Principal::Set(b"alice"), ..LASTING }).unwrap();
    let key = store.reference(&sid).unwrap().0;
    let genuine = inside.value(Table::Sessions, &key);
    // Creation, own timeouts and principal; not the version, which put_if meets first.
    for at in (8..16).chain(32..48).chain(56..88) {
        let mut edited = genuine.clone();
        edited[at] ^= 1;
        inside.put(Table::Sessions, &key, &edited);
        for (call, result) in uses(store, &sid) {
            assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Corrupt), "byte {at}: {call}");
            assert_eq!(inside.value(Table::Sessions, &key), edited, "byte {at}: {call}");
        }
    }
    inside.put(Table::Sessions, &key, &genuine);
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"role=user");
    store.put(&sid, b"new", &PLAIN).unwrap();
}

#[test]
fn no_call_makes_a_session_of_a_record_that_was_planted() {
    let (inside, other) = (Fixture::new(""), Fixture::new(""));
    // The right id, in another store.
    let (sid, _) = other.store.create(b"role=admin", &LASTING).unwrap();
    let there = other.value(Table::Sessions, &other.store.reference(&sid).unwrap().0);
    // Where this store would look for that id.
    let Ref(here) = reference_in(&inside, &sid);
    inside.put(Table::Sessions, &here, &there);
    for (call, result) in uses(&inside.store, &sid) {
        assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Corrupt), "{call}");
    }
    assert_eq!(inside.value(Table::Sessions, &here), there);
}

fn reference_in(inside: &Fixture, sid: &Sid) -> Ref {
    crate::key::Keys::of_store(&inside.open().salt, None).session(sid.as_bytes()).0.into()
}

#[test]
fn a_session_whose_end_was_begun_by_a_killed_writer_lives_on() {
    type Call = fn(&Store, &Sid) -> Result<()>;
    let calls: [(&str, Call); 7] = [
        ("get", |store, sid| store.get(sid, Access::Slide).map(|_| ())),
        ("touch", |store, sid| store.touch(sid).map(|_| ())),
        ("put", |store, sid| store.put(sid, b"new", &PLAIN).map(|_| ())),
        ("renew", |store, sid| store.renew(sid, None, &PLAIN).map(|_| ())),
        ("delete", |store, sid| store.delete(sid)),
        ("list", |store, _| {
            assert_eq!(store.list(b"alice").unwrap().len(), 1);
            Ok(())
        }),
        ("revoke", |store, _| {
            assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
            Ok(())
        }),
    ];
    for (name, call) in calls {
        let inside = Fixture::new("");
        let (sid, _) =
            inside.store.create(b"hello", &Options { principal: Principal::Set(b"alice"), ..PLAIN }).unwrap();
        let record = inside.value(Table::Sessions, &inside.store.reference(&sid).unwrap().0);
        let touches = inside.open().map.touches();
        let (row, _) = super::step::Row::read(crate::key::Key(0, 0), &record, &touches, true).unwrap();
        // Here the writer is killed, before it commits.
        assert!(touches.end(row.place(), row.seen), "{name}");
        call(&inside.store, &sid).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
