//! Edited tables, and writers that were killed: what only a test with access to the tables can
//! show.

use std::time::Duration;

use super::{env::Table, fixture::Fixture, session_txn::SessionRow};
use crate::crypto::aead::OVERHEAD;
use crate::session::{alias::MAX_ALIASES, key::LookupKey, policy::NONE_REVOKED};
use crate::{Access, ErrorKind, Options, Ref, Sid, Store, Timeout, error::Result};

const PLAIN: Options = Options::new();
const LASTING: Options = PLAIN.timeout(Timeout::Never).idle_timeout(Timeout::Never);

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
fn edited_record_is_corrupt_in_every_call() {
    let fixture = Fixture::new("");
    let store = &fixture.store;
    let (sid, _) = store.create(b"role=user", &LASTING.principal("alice")).unwrap();
    let key = store.reference(&sid).unwrap().0;
    let genuine = fixture.value(Table::Sessions, &key);
    // Creation, own timeouts, authentication and principal; not the version, which put_if meets
    // first.
    for at in (8..16).chain(32..48).chain(56..96) {
        let mut edited = genuine.clone();
        edited[at] ^= 1;
        fixture.put(Table::Sessions, &key, &edited);
        for (call, result) in uses(store, &sid) {
            assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Corrupt), "byte {at}: {call}");
            // A creation or authentication ahead of the clock is pulled back, which does not make the
            // record genuine either.
            if !(8..16).contains(&at) && !(56..64).contains(&at) {
                assert_eq!(fixture.value(Table::Sessions, &key), edited, "byte {at}: {call}");
            }
        }
    }
    fixture.put(Table::Sessions, &key, &genuine);
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"role=user");
    store.put(&sid, b"new", &PLAIN).unwrap();
}

#[test]
fn planted_record_is_corrupt_in_every_call() {
    let (fixture, other) = (Fixture::new(""), Fixture::new(""));
    // The right id, in another store.
    let (sid, _) = other.store.create(b"role=admin", &LASTING).unwrap();
    let there = other.value(Table::Sessions, &other.store.reference(&sid).unwrap().0);
    // Where this store would look for that id.
    let Ref(here) = reference_in(&fixture, &sid);
    fixture.put(Table::Sessions, &here, &there);
    for (call, result) in uses(&fixture.store, &sid) {
        assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::Corrupt), "{call}");
    }
    assert_eq!(fixture.value(Table::Sessions, &here), there);
}

/// What is not sealed, because it changes with every use: the slot and its generation, the last
/// use, and the indexed deadline.
const CHANGING: [std::ops::Range<usize>; 3] = [2..8, 16..24, 48..56];

#[test]
fn every_bit_of_record_is_authenticated() {
    let fixture = Fixture::new("");
    let store = &fixture.store;
    let (sid, _) = store.create(b"role=user", &LASTING.principal("alice").label("Firefox")).unwrap();
    let key = store.reference(&sid).unwrap().0;
    let mut genuine = fixture.value(Table::Sessions, &key);
    // Behind the header, the principal and its own length.
    let label = 98..98 + b"Firefox".len() + OVERHEAD;
    // Without its slot: the slot of a session that was found expired keeps it expired.
    genuine[CHANGING[0].clone()].fill(0);
    let mut dead = 0;
    for bit in 0..genuine.len() * 8 {
        let mut edited = genuine.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        fixture.put(Table::Sessions, &key, &edited);
        let read = store.get(&sid, Access::Peek).map(|(payload, _)| payload).map_err(|error| error.kind());
        match CHANGING.iter().any(|range| range.contains(&(bit / 8))) {
            _ if read == Err(ErrorKind::NotFound) => dead += 1,
            _ if label.contains(&(bit / 8)) => {
                assert_eq!(read.as_deref(), Ok(&b"role=user"[..]), "bit {bit}");
                assert_eq!(error_of(store.list(b"alice")), Some(ErrorKind::Corrupt), "bit {bit}");
            }
            true => assert_eq!(read.as_deref(), Ok(&b"role=user"[..]), "bit {bit}"),
            false => assert_eq!(read, Err(ErrorKind::Corrupt), "bit {bit}"),
        }
    }
    // Ended long ago, so its payload is not looked at.
    assert_eq!(dead, 3, "the signs of last use and both timeouts");
    for len in 0..genuine.len() {
        fixture.put(Table::Sessions, &key, &genuine[..len]);
        assert_eq!(error_of(store.get(&sid, Access::Peek)), Some(ErrorKind::Corrupt), "cut to {len}");
    }
    fixture.put(Table::Sessions, &key, &[&genuine[..], b"x"].concat());
    assert_eq!(error_of(store.get(&sid, Access::Peek)), Some(ErrorKind::Corrupt), "one byte longer");
}

#[test]
fn every_bit_of_alias_is_authenticated() {
    let fixture = Fixture::new("");
    let store = &fixture.store;
    let (old, _) = store.create(b"role=user", &LASTING).unwrap();
    let key = store.reference(&old).unwrap().0;
    store.renew(&old, None, &PLAIN.grace(std::time::Duration::from_millis(1 << 40))).unwrap();
    let genuine = fixture.value(Table::Aliases, &key);
    assert_eq!(store.get(&old, Access::Peek).unwrap().0, b"role=user");
    let mut dead = 0;
    for bit in 0..genuine.len() * 8 {
        let mut edited = genuine.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        fixture.put(Table::Aliases, &key, &edited);
        match error_of(store.get(&old, Access::Peek)) {
            Some(ErrorKind::Corrupt) => {}
            // Its target is nowhere, or its end was before now.
            Some(ErrorKind::NotFound) => dead += 1,
            read => panic!("bit {bit}: {read:?}"),
        }
    }
    assert!(dead <= (32 + 8) * 8, "{dead} bits were not noticed");
    for len in 0..genuine.len() {
        fixture.put(Table::Aliases, &key, &genuine[..len]);
        assert_eq!(error_of(store.get(&old, Access::Peek)), Some(ErrorKind::Corrupt), "cut to {len}");
    }
}

#[test]
fn moved_record_is_corrupt_and_unchanged() {
    let fixture = Fixture::new("");
    let store = &fixture.store;
    let admin = store.create(b"role=admin", &LASTING).unwrap().0;
    let user = store.create(b"role=user", &LASTING).unwrap().0;
    let keys = [&admin, &user].map(|sid| store.reference(sid).unwrap().0);
    let moved = fixture.value(Table::Sessions, &keys[0]);
    fixture.put(Table::Sessions, &keys[1], &moved);
    for (call, result) in uses(store, &user) {
        assert_eq!(error_of(result), Some(ErrorKind::Corrupt), "{call}");
    }
    assert_eq!(fixture.value(Table::Sessions, &keys[1]), moved);

    // An alias that leads to another session, and one under the old id of another.
    let olds = [b"role=admin", b"role=guest"].map(|payload| store.create(payload, &LASTING).unwrap().0);
    let places = olds.each_ref().map(|sid| store.reference(sid).unwrap().0);
    olds.iter()
        .for_each(|old| drop(store.renew(old, None, &PLAIN.grace(std::time::Duration::from_millis(1 << 40))).unwrap()));
    let aliases = places.map(|place| fixture.value(Table::Aliases, &place));
    const TARGET: std::ops::Range<usize> = 2..34;
    let mut led = aliases[1].clone();
    led[TARGET].copy_from_slice(&aliases[0][TARGET]);
    for planted in [&led, &aliases[0]] {
        fixture.put(Table::Aliases, &places[1], planted);
        assert_eq!(error_of(store.get(&olds[1], Access::Peek)), Some(ErrorKind::Corrupt));
    }
}

fn error_of<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn reference_in(fixture: &Fixture, sid: &Sid) -> Ref {
    let digest =
        crate::crypto::keys::StoreKeys::for_shared_store(&fixture.handle().salt, None).session(sid.as_bytes()).0;
    LookupKey::from(digest).into()
}

#[test]
fn session_survives_killed_writer_that_began_to_end_it() {
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
        let fixture = Fixture::new("");
        let (sid, _) = fixture.store.create(b"hello", &PLAIN.principal("alice")).unwrap();
        let record = fixture.value(Table::Sessions, &fixture.store.reference(&sid).unwrap().0);
        let last_used = fixture.handle().shm.last_used();
        let (row, _) = SessionRow::read(LookupKey(0, 0), &record, &last_used, true).unwrap();
        // Here the writer is killed, before it commits.
        assert!(last_used.mark_ending(row.slot(), row.slot_state), "{name}");
        call(&fixture.store, &sid).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn session_made_ahead_of_clock_keeps_its_timeouts() {
    const HOUR: i64 = 3_600_000;
    type Call = fn(&Store, &Sid) -> Result<()>;
    let calls: [(&str, Call); 8] = [
        ("get", |store, sid| store.get(sid, Access::Slide).map(drop)),
        ("peek", |store, sid| store.get(sid, Access::Peek).map(drop)),
        ("touch", |store, sid| store.touch(sid).map(drop)),
        ("touch_ref", |store, sid| store.touch_ref(&store.reference(sid)?, Access::Slide).map(drop)),
        ("touch_ref peek", |store, sid| store.touch_ref(&store.reference(sid)?, Access::Peek).map(drop)),
        ("put", |store, sid| store.put(sid, b"new", &PLAIN).map(drop)),
        ("reference", |store, sid| store.reference(sid).map(drop)),
        ("list", |store, _| store.list(b"alice").map(drop)),
    ];
    for (name, call) in calls {
        for lead in [HOUR, 400 * 24 * HOUR] {
            let fixture = Fixture::new("clock=manual&timeout=3h&idle_timeout=10m");
            let store = &fixture.store;
            let lasting = PLAIN.principal("alice").idle_timeout(Timeout::Never);
            store.advance_clock(lead).unwrap();
            let (idle, _) = store.create(b"one", &PLAIN.principal("alice")).unwrap();
            let (absolute, _) = store.create(b"two", &lasting).unwrap();
            fixture.handle().shm.header().manual_ms.fetch_sub(lead, std::sync::atomic::Ordering::AcqRel);
            // The clock is right again: both live, and by their timeouts from now on.
            for sid in [&idle, &absolute] {
                call(store, sid).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            store.advance_clock(HOUR / 6).unwrap();
            assert_eq!(error_of(store.get(&idle, Access::Peek)), Some(ErrorKind::NotFound), "{name} {lead}");
            assert!(store.get(&absolute, Access::Peek).is_ok(), "{name} {lead}");
            assert_eq!(store.sweep(10).unwrap(), 1, "{name} {lead}");
            store.advance_clock(3 * HOUR - HOUR / 6).unwrap();
            assert_eq!(error_of(store.get(&absolute, Access::Peek)), Some(ErrorKind::NotFound), "{name} {lead}");
            store.sweep(10).unwrap();
            assert_eq!(store.stats().unwrap().sessions, 0, "{name} {lead}");
            assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{name} {lead}");
        }
    }
}

const GRACE: Duration = Duration::from_secs(3600);

#[test]
fn endless_renewals_keep_few_aliases() {
    for (grace, most) in [(Duration::MAX, MAX_ALIASES), (Duration::from_millis(10), 11)] {
        let fixture = Fixture::new("clock=manual");
        let store = &fixture.store;
        let (mut sid, _) = store.create(b"one", &LASTING).unwrap();
        let mut old = Vec::new();
        for _ in 0..3 * MAX_ALIASES {
            let (new, _) = store.renew(&sid, None, &PLAIN.grace(grace)).unwrap();
            old.push(std::mem::replace(&mut sid, new));
            store.advance_clock(1).unwrap();
            assert!(fixture.aliases() <= most as u64, "{} aliases", fixture.aliases());
        }
        let reads = |sid: &Sid| store.get(sid, Access::Peek).is_ok();
        let readable = old.iter().filter(|sid| reads(sid)).count();
        assert!(old[old.len() - readable..].iter().all(reads), "the oldest end first");
        assert_eq!(readable, if grace == Duration::MAX { MAX_ALIASES } else { 9 });
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
        store.delete(&sid).unwrap();
        assert_eq!((fixture.aliases(), store.sweep(9).unwrap()), (0, 0));
    }
}

#[test]
fn aliases_end_with_their_session() {
    type End = fn(&Store, &Sid);
    let ends: [(&str, End); 6] = [
        ("delete", |store, sid| store.delete(sid).unwrap()),
        ("revoke", |store, _| assert_eq!(store.revoke(b"alice", None).unwrap(), 1)),
        ("renewal without grace", |store, sid| drop(store.renew(sid, None, &PLAIN).unwrap())),
        ("eviction", |store, _| {
            store.advance_clock(1).unwrap();
            drop(store.create(b"two", &LASTING.principal("alice")).unwrap());
        }),
        ("expiry and sweep", |store, sid| {
            store.put(sid, b"one", &LASTING.idle_timeout(Timeout::After(Duration::from_secs(1)))).unwrap();
            store.advance_clock(2000).unwrap();
            assert_eq!(store.sweep(9).unwrap(), 1);
        }),
        ("expiry and create", |store, sid| {
            store.put(sid, b"one", &LASTING.idle_timeout(Timeout::After(Duration::from_secs(1)))).unwrap();
            store.advance_clock(2000).unwrap();
            drop(store.create(b"two", &LASTING).unwrap());
        }),
    ];
    for (name, end) in ends {
        let fixture = Fixture::new("clock=manual&max_per_principal=1");
        let store = &fixture.store;
        let (mut sid, _) = store.create(b"one", &LASTING.principal("alice")).unwrap();
        // Another session's stay.
        let (other, _) = store.create(b"other", &LASTING).unwrap();
        store.renew(&other, None, &PLAIN.grace(GRACE)).unwrap();
        for grace in [GRACE, Duration::MAX, GRACE] {
            sid = store.renew(&sid, None, &PLAIN.grace(grace)).unwrap().0;
        }
        assert_eq!(fixture.aliases(), 4, "{name}");
        assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{name}");
        end(store, &sid);
        assert_eq!(fixture.aliases(), 1, "{name}");
        assert!(store.get(&other, Access::Peek).is_ok(), "{name}");
        assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn sweep_removes_all_ended_aliases() {
    const SESSIONS: u64 = 200;
    let fixture = Fixture::new("clock=manual");
    let store = &fixture.store;
    for _ in 0..SESSIONS {
        let (sid, _) = store.create(b"one", &LASTING).unwrap();
        store.renew(&sid, None, &PLAIN.grace(GRACE)).unwrap();
    }
    assert_eq!(fixture.aliases(), SESSIONS);
    store.advance_clock(GRACE.as_millis() as i64).unwrap();
    // Aliases are not counted.
    assert_eq!(store.sweep(1).unwrap(), 0);
    assert_eq!(fixture.aliases(), 0);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn revoke_all_ends_sessions_ahead_of_clock() {
    for lead in [1, 5000, 3_600_000] {
        let fixture = Fixture::new("clock=manual");
        let store = &fixture.store;
        store.create(b"one", &LASTING).unwrap();
        store.advance_clock(lead).unwrap();
        let (ahead, _) = store.create(b"two", &LASTING).unwrap();
        fixture.handle().shm.header().manual_ms.fetch_sub(lead, std::sync::atomic::Ordering::AcqRel);
        assert_eq!(store.revoke_all().unwrap(), 2, "{lead}");
        assert_eq!(error_of(store.get(&ahead, Access::Peek)), Some(ErrorKind::NotFound), "{lead}");
        assert_eq!((store.stats().unwrap().sessions, store.stats().unwrap().revoked), (0, 2), "{lead}");
        // The next ones begin now, and not later than those that have ended.
        let (_, meta) = store.create(b"three", &PLAIN).unwrap();
        let now = fixture.handle().context().step_time().now;
        assert_eq!(meta.created(), std::time::UNIX_EPOCH + Duration::from_millis(now as u64), "{lead}");
        assert_eq!(store.revoke_all().unwrap(), 1, "{lead}");
    }
}

/// What a process leaves that dies in a `revoke_all`, or finds no room in it.
#[test]
fn interrupted_revoke_all_is_finished_by_sweep() {
    const SESSIONS: u64 = 200;
    let fixture = Fixture::new("clock=manual");
    let store = &fixture.store;
    let (old, _) = store.create(b"one", &LASTING.principal("alice")).unwrap();
    let (sid, _) = store.renew(&old, None, &PLAIN.grace(GRACE)).unwrap();
    (1..SESSIONS).for_each(|_| drop(store.create(b"one", &LASTING.principal("alice")).unwrap()));
    let policy = fixture.handle().policy();
    policy.set_revoked_until(fixture.handle().context().step_time().now);
    for sid in [&old, &sid] {
        for (call, result) in uses(store, sid) {
            assert_eq!(error_of(result), Some(ErrorKind::NotFound), "{call}");
        }
    }
    assert_eq!(store.list(b"alice").unwrap(), []);
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
    let (new, _) = store.create(b"new", &LASTING).unwrap();
    assert_eq!(store.get(&new, Access::Slide).unwrap().0, b"new");
    assert_eq!(store.stats().unwrap().sessions, SESSIONS + 1);
    assert_eq!(store.sweep(5).unwrap(), 5);
    assert_eq!(store.revoke(b"alice", None).unwrap(), 0);
    assert_eq!(store.sweep(u64::MAX).unwrap(), 0);
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.revoked, stats.expired), (1, SESSIONS, 0));
    assert_eq!((fixture.aliases(), policy.step_time(0).revoked_until), (0, NONE_REVOKED));
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}
