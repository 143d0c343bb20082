//! Promises of the Rust API that the conformance files cannot state: lent payloads, named stores,
//! the real clock, bounds on memory, extreme numbers. Threads are in races.rs and limits.rs,
//! secrecy in secrets.rs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::common::{FOREVER, OptionsMs, PLAIN, ToPlain, found, grace, kind, of, open, unique_name};
use sss::{Access, Entry, Error, ErrorKind, Meta, Ref, Sid, Stats, Store, Timeout};

#[test]
fn public_types_are_send_and_sync() {
    fn shared<T: Send + Sync + 'static>() {}
    fn cloned<T: Clone>() {}
    shared::<(Store, Sid, Ref, Error, Meta, Entry, Stats)>();
    cloned::<(Store, Error)>();
    fn is_error<T: std::error::Error>() {}
    is_error::<Error>();
}

#[test]
fn clones_share_the_store() {
    let store = open("");
    let clone = store.clone();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    drop(store);
    assert_eq!(clone.get(&sid, Access::Slide).unwrap().0, b"hello");
}

#[test]
fn read_lends_payload() {
    let store = open("clock=manual&idle_timeout=10s");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    store.advance_clock(1000).unwrap();
    let lent = store.read::<_, Error>(&sid, Access::Slide, |payload, meta| Ok((payload.to_vec(), *meta))).unwrap();
    assert_eq!(lent, store.get(&sid, Access::Peek).unwrap());
    assert_eq!(lent.1.plain().last_seen_ms, lent.1.plain().created_ms + 1000);
}

#[test]
fn failed_read_changes_nothing() {
    let store = open("clock=manual&idle_timeout=10s");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let before = store.get(&sid, Access::Peek).unwrap();
    store.advance_clock(5000).unwrap();
    for failure in [ErrorKind::TooSmall, ErrorKind::Io, ErrorKind::NotFound] {
        let read: Result<(), Error> =
            store.read::<_, Error>(&sid, Access::Slide, |_, _| Err(Error::new(failure, "not this time")));
        let error = read.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (failure, "not this time".to_owned()));
        assert_eq!(store.get(&sid, Access::Peek).unwrap(), before, "{failure:?}");
    }
    store.advance_clock(5000).unwrap();
    assert!(found(store.get(&sid, Access::Peek)).is_none());
}

#[test]
fn read_up_to_refuses_longer_payload() {
    for seal in ["on", "off"] {
        let store = open(&format!("clock=manual&idle_timeout=10s&seal={seal}"));
        let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
        let before = (store.get(&sid, Access::Peek).unwrap(), store.stats().unwrap());
        store.advance_clock(5000).unwrap();
        let read = |most| store.read_up_to(&sid, Access::Slide, most, |payload, _| Ok(payload.to_vec()));
        let refused = [0, 4].map(read);
        let stats = store.stats().unwrap();
        refused.iter().for_each(|refused| assert_eq!(kind(refused), Some(ErrorKind::TooSmall), "seal={seal}"));
        assert_eq!((store.get(&sid, Access::Peek).unwrap(), stats), before, "seal={seal}");
        [5, 6, usize::MAX].into_iter().for_each(|most| assert_eq!(read(most).unwrap(), b"hello", "seal={seal}"));
    }
}

#[test]
fn panicking_read_changes_nothing() {
    let store = open("clock=manual&idle_timeout=10s");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let before = store.get(&sid, Access::Peek).unwrap();
    store.advance_clock(5000).unwrap();
    let read =
        || store.read::<_, Error>(&sid, Access::Slide, |_, _| -> Result<(), Error> { panic!("the caller's bug") });
    assert!(catch_unwind(AssertUnwindSafe(read)).is_err());
    assert_eq!(store.get(&sid, Access::Peek).unwrap(), before);
    store.put(&sid, b"again", &PLAIN).unwrap();
    store.delete(&sid).unwrap();
    assert_eq!(store.stats().unwrap().sessions, 0);
}

#[test]
fn read_skips_missing_session() {
    let store = open("");
    let read = store.read([b'A'; 128], Access::Peek, |_, _| -> Result<(), Error> { panic!("there is no payload") });
    assert_eq!(kind(&read), Some(ErrorKind::NotFound));
}

#[test]
fn limits_are_those_in_force() {
    let name = unique_name();
    let store = Store::open(&format!("memory:{name}?max_payload=2MiB")).unwrap();
    assert_eq!(store.max_payload().unwrap(), 2 << 20);
    assert_eq!(store.max_per_principal().unwrap(), u64::MAX);
    Store::open(&format!("memory:{name}?max_payload=64KiB&max_per_principal=3")).unwrap();
    assert_eq!(store.max_payload().unwrap(), 64 << 10);
    assert_eq!(store.max_per_principal().unwrap(), 3);
}

#[test]
fn named_store_is_shared_by_name() {
    let (name, other) = (unique_name(), unique_name());
    let a = Store::open(&format!("memory:{name}")).unwrap();
    let b = Store::open(&format!("memory:{name}")).unwrap();
    let c = Store::open(&format!("memory:{other}")).unwrap();
    let (d, e) = (Store::open("memory:").unwrap(), Store::open("memory:").unwrap());
    let (sid, _) = a.create(b"hello", &PLAIN).unwrap();
    assert!(found(b.get(&sid, Access::Slide)).is_some());
    assert!([&c, &d, &e].iter().all(|store| found(store.get(&sid, Access::Slide)).is_none()));
    let (sid, _) = d.create(b"hello", &PLAIN).unwrap();
    assert!(found(e.get(&sid, Access::Slide)).is_none(), "memory: without a name is not shared");
}

#[test]
fn named_store_ends_with_last_handle() {
    let url = format!("memory:{}", unique_name());
    let a = Store::open(&url).unwrap();
    let (sid, _) = a.create(b"hello", &of(b"alice")).unwrap();
    let b = a.clone();
    drop(a);
    let c = Store::open(&url).unwrap();
    assert!(found(c.get(&sid, Access::Slide)).is_some(), "a clone kept it open");
    drop((b, c));
    let d = Store::open(&url).unwrap();
    assert_eq!(d.stats().unwrap(), Stats::default());
    assert!(found(d.get(&sid, Access::Slide)).is_none());
    assert!(d.list(b"alice").unwrap().is_empty());
}

#[test]
fn closed_named_store_accepts_new_settings() {
    let name = unique_name();
    let short = Store::open(&format!("memory:{name}?timeout=1s&clock=manual&max_sessions=1")).unwrap();
    assert_eq!(kind(&Store::open(&format!("memory:{name}?clock=system"))), Some(ErrorKind::Exists));
    drop(short);
    let long = Store::open(&format!("memory:{name}?timeout=1h&clock=system")).unwrap();
    let (_, meta) = long.create(b"a", &PLAIN.idle_timeout_ms(FOREVER)).unwrap();
    assert_eq!(meta.plain().expires_ms, meta.plain().created_ms + 3_600_000);
    long.create(b"b", &PLAIN).unwrap();
}

#[test]
fn named_store_survives_concurrent_open_close() {
    let url = format!("memory:{}", unique_name());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let store = Store::open(&url).unwrap();
                    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
                    let again = Store::open(&url).unwrap();
                    drop(store);
                    assert!(found(again.get(&sid, Access::Slide)).is_some());
                    again.delete(&sid).unwrap();
                }
            });
        }
    });
    assert_eq!(Store::open(&url).unwrap().stats().unwrap().sessions, 0);
}

#[test]
fn real_clock_expires_sessions() {
    let store = open("timeout=1h&idle_timeout=1h");
    let (absolute, _) = store.create(b"a", &PLAIN.timeout_ms(300)).unwrap();
    let (idle, _) = store.create(b"b", &PLAIN.idle_timeout_ms(300)).unwrap();
    let (stays, meta) = store.create(b"c", &PLAIN).unwrap();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((wall - meta.plain().created_ms).abs() < 10_000, "created {} at {wall}", meta.plain().created_ms);
    sleep(Duration::from_millis(600));
    assert!(found(store.get(&absolute, Access::Slide)).is_none());
    assert!(found(store.put(&idle, b"x", &PLAIN)).is_none());
    assert!(found(store.get(&stays, Access::Slide)).unwrap().1.plain().last_seen_ms >= meta.plain().created_ms + 500);
    // Another create may have cleared them already, had there been one.
    assert_eq!(store.sweep(10).unwrap(), 2);
}

#[test]
fn real_clock_keeps_used_sessions() {
    let store = open("timeout=1h&idle_timeout=1s");
    let mut created = Instant::now();
    let mut used = created;
    let (mut sid, _) = store.create(b"hello", &PLAIN).unwrap();
    while created.elapsed() < Duration::from_millis(1500) {
        sleep(Duration::from_millis(100));
        let now = Instant::now();
        if found(store.touch(&sid)).is_none() {
            // The machine may have stopped for so long between two uses. Then this begins again.
            assert!(used.elapsed() > Duration::from_millis(990), "ended after {:?} without use", used.elapsed());
            sid = store.create(b"hello", &PLAIN).unwrap().0;
            created = now;
        }
        used = now;
    }
}

/// Without any sweep: creating clears enough that what is held stays in proportion to what lives.
#[test]
fn memory_is_bounded_without_sweep() {
    let store = open("clock=manual&timeout=10s&idle_timeout=infinity");
    const LIVING: u64 = 1000;
    let mut most = 0;
    for _ in 0..20 {
        for _ in 0..LIVING {
            store.create(&[1; 100], &of(b"alice")).unwrap();
            store.advance_clock(10).unwrap();
        }
        most = most.max(store.stats().unwrap().sessions);
    }
    assert!(most <= 2 * LIVING, "{most} sessions held, {LIVING} live");
    let stats = store.stats().unwrap();
    assert_eq!(stats.bytes, stats.sessions * 100);
    assert_eq!(stats.created - stats.expired, stats.sessions);
}

#[test]
fn sweep_removes_requested_number() {
    let store = open("clock=manual&timeout=10s&idle_timeout=infinity");
    let forever = PLAIN.timeout_ms(FOREVER);
    for i in 0..10_000 {
        store.create(b"x", if i % 2 == 0 { &PLAIN } else { &forever }).unwrap();
        // Old ids whose grace is over are in the way of a sweep and do not count.
        let (old, _) = store.create(b"x", &forever).unwrap();
        let (new, _) = store.renew(&old, None, &grace(5)).unwrap();
        store.delete(&new).unwrap();
    }
    store.advance_clock(10_000).unwrap();
    let swept: Vec<u64> = [1, 999, 0, 3000, 1000, u64::MAX, 1].map(|max| store.sweep(max).unwrap()).into();
    assert_eq!(swept, [1, 999, 0, 3000, 1000, 0, 0]);
    assert_eq!(store.stats().unwrap().sessions, 5000);
}

#[test]
fn extreme_times_saturate() {
    let store = open("clock=manual&timeout=infinity&idle_timeout=infinity");
    for (timeout_ms, alive) in [(FOREVER, true), (FOREVER - 1, true), (1, true), (-1, false), (i64::MIN + 1, false)] {
        for options in [PLAIN.timeout_ms(timeout_ms), PLAIN.idle_timeout_ms(timeout_ms)] {
            let (sid, _) = store.create(b"hello", &options).unwrap();
            assert_eq!(found(store.get(&sid, Access::Peek)).is_some(), alive, "{options:?}");
            let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
            store.put(&sid, b"x", &options).unwrap();
            assert_eq!(found(store.get(&sid, Access::Peek)).is_some(), alive, "{options:?}");
        }
    }
    let (old, _) = store.create(b"hello", &PLAIN).unwrap();
    let (new, _) = store.renew(&old, None, &grace(FOREVER)).unwrap();
    assert_eq!(store.get(&old, Access::Peek).unwrap().1.plain().expires_ms, FOREVER);
    store.advance_clock(i64::MAX / 4).unwrap();
    assert!(found(store.get(&old, Access::Slide)).is_some());
    store.delete(&new).unwrap();
    assert!(found(store.get(&old, Access::Slide)).is_none());

    // To the end of time, and more than once: what is infinite lives on, all else is over.
    let (infinite, meta) = store.create(b"hello", &PLAIN).unwrap();
    let (finite, _) = store.create(b"hello", &PLAIN.timeout_ms(1)).unwrap();
    assert_eq!(meta.plain().expires_ms, FOREVER);
    for _ in 0..3 {
        store.advance_clock(i64::MAX).unwrap();
    }
    assert!(found(store.get(&infinite, Access::Slide)).is_some());
    assert!(found(store.get(&finite, Access::Slide)).is_none());
    assert_eq!(kind(&store.advance_clock(i64::MIN)), Some(ErrorKind::Invalid));
}

#[test]
fn long_principals_are_accepted() {
    let store = open("");
    let mut long = vec![b'x'; 1 << 20];
    let (sid, _) = store.create(b"hello", &of(&long)).unwrap();
    assert_eq!(store.list(&long).unwrap().len(), 1);
    *long.last_mut().unwrap() = b'y';
    assert!(store.list(&long).unwrap().is_empty());
    assert_eq!(store.revoke(&long, None).unwrap(), 0);
    assert!(found(store.get(&sid, Access::Slide)).is_some());
}

#[test]
fn list_entries_match_metadata() {
    let store = open("clock=manual&timeout=1h&idle_timeout=1m");
    let (old, _) = store.create(b"hello", &of(b"alice")).unwrap();
    store.advance_clock(1000).unwrap();
    let (sid, _) = store.renew(&old, Some(b"hello!"), &grace(5000)).unwrap();
    store.advance_clock(1000).unwrap();
    store.touch(&sid).unwrap();
    let (payload, meta) = store.get(&sid, Access::Peek).unwrap();
    let reference = store.reference(&sid).unwrap();
    let [entry]: [Entry; 1] = store.list(b"alice").unwrap().try_into().unwrap();
    assert_eq!((entry.reference, entry.payload_len, entry.meta), (reference, payload.len() as u64, meta));
    assert_eq!((meta.version(), meta.plain().last_seen_ms - meta.plain().created_ms), (2, 2000));
}

#[test]
fn large_principal_is_listed_and_revoked() {
    let store = open("clock=manual");
    let sids: Vec<Sid> = (0..2000)
        .map(|_| {
            store.advance_clock(1).unwrap();
            store.create(b"hello", &of(b"alice")).unwrap().0
        })
        .collect();
    let order: Vec<Ref> = store.list(b"alice").unwrap().iter().map(|entry| entry.reference).collect();
    let expected: Vec<Ref> = sids.iter().map(|sid| store.reference(sid).unwrap()).collect();
    assert_eq!(order, expected);
    assert_eq!(store.revoke(b"alice", Some(sids[1234].as_ref())).unwrap(), 1999);
    assert!(found(store.get(&sids[1234], Access::Peek)).is_some());
    assert_eq!(sids.iter().filter(|sid| found(store.get(sid, Access::Peek)).is_some()).count(), 1);
}

#[test]
fn failed_calls_leave_no_trace() {
    let store = open("max_payload=5&max_sessions=1");
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    let before = (store.get(&sid, Access::Peek).unwrap(), store.list(b"alice").unwrap());
    let clear = PLAIN.clear_principal();
    for (result, expected) in [
        (store.create(b"hello!", &of(b"bob")).map(drop), ErrorKind::TooLarge),
        (store.create(b"x", &of(b"bob")).map(drop), ErrorKind::Full),
        (store.create(b"x", &of(b"")).map(drop), ErrorKind::Invalid),
        (store.create(b"x", &clear).map(drop), ErrorKind::Invalid),
        (store.create(b"x", &grace(1)).map(drop), ErrorKind::Invalid),
        (store.put(&sid, b"hello!", &of(b"bob")).map(drop), ErrorKind::TooLarge),
        (store.put(&sid, b"x", &grace(1)).map(drop), ErrorKind::Invalid),
        (store.put_if(&sid, 2, b"x", &of(b"bob")).map(drop), ErrorKind::Conflict),
        (store.renew(&sid, Some(b"hello!"), &of(b"bob")).map(drop), ErrorKind::TooLarge),
        (store.list(b"").map(drop), ErrorKind::Invalid),
        (store.revoke(b"", Some(sid.as_ref())).map(drop), ErrorKind::Invalid),
    ] {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.code()), (expected, expected.code()));
    }
    assert_eq!((store.get(&sid, Access::Peek).unwrap(), store.list(b"alice").unwrap()), before);
    assert!(store.list(b"bob").unwrap().is_empty());
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes, stats.created, stats.puts, stats.renewed), (1, 5, 1, 0, 0));
    assert_eq!((stats.rejected, stats.conflicts, stats.errors), (4, 1, 0));
}

#[test]
fn inherited_timeout_is_the_stores() {
    let store = open("clock=manual&timeout=1h&idle_timeout=infinity");
    let (sid, meta) = store.create(b"hello", &PLAIN.timeout(Timeout::After(Duration::from_micros(5_000_100)))).unwrap();
    assert_eq!(meta.expires(), Some(meta.created() + Duration::from_millis(5001)), "rounded up");
    let kept = store.put(&sid, b"hello", &PLAIN).unwrap();
    assert_eq!(kept.expires(), meta.expires());
    let inherited = store.put(&sid, b"hello", &PLAIN.timeout(Timeout::Inherit)).unwrap();
    assert_eq!(inherited.expires(), Some(meta.created() + Duration::from_secs(3600)));
}
