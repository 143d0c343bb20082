//! A server whose clock was ahead: what was stored then does not outlive its timeouts by the error
//! once the clock is right.

use std::time::Duration;

use crate::common::{OptionsMs, PLAIN, kind, of, redis::Server};
use sss::{Access, ErrorKind, Options, Sid, Store, Timeout};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const MINUTE: i64 = 60_000;
const URL: &str = "timeout=3h&idle_timeout=10m&deadline=10s";

/// The first use of a session after the clock was put right, by name; returns its id.
type Use = (&'static str, fn(&Store, Sid) -> Sid);
const USES: [Use; 8] = [
    ("get", |store, sid| {
        assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello");
        sid
    }),
    ("two gets", |store, sid| {
        store.get(&sid, Access::Slide).unwrap();
        store.get(&sid, Access::Slide).unwrap();
        sid
    }),
    ("peek", |store, sid| {
        store.get(&sid, Access::Peek).unwrap();
        sid
    }),
    ("touch", |store, sid| {
        store.touch(&sid).unwrap();
        sid
    }),
    ("put", |store, sid| {
        store.put(&sid, b"world", &PLAIN).unwrap();
        store.get(&sid, Access::Slide).unwrap();
        sid
    }),
    ("put_if", |store, sid| {
        store.put_if(&sid, 1, b"world", &PLAIN).unwrap();
        sid
    }),
    ("renew", |store, sid| store.renew(&sid, None, &PLAIN).unwrap().0),
    ("list", |store, sid| {
        store.list(b"alice").unwrap();
        sid
    }),
];

fn never() -> Option<Timeout> {
    Some(Timeout::Never)
}

/// Sessions, each with the time within which it ends without another use.
fn sessions() -> Vec<(&'static str, Options<'static>, i64)> {
    let own = |timeout, idle_timeout| {
        let mut options = of(b"alice");
        (options.timeout, options.idle_timeout) = (timeout, idle_timeout);
        options
    };
    vec![
        ("of the store's timeouts", of(b"alice"), 10 * MINUTE),
        ("of no idle timeout", own(None, never()), 3 * HOUR),
        ("of no absolute timeout", own(never(), None), 10 * MINUTE),
        ("of its own timeouts", of(b"alice").timeout_ms(HOUR).idle_timeout_ms(20 * MINUTE), 20 * MINUTE),
        (
            "of its own absolute timeout",
            own(Some(Timeout::After(Duration::from_millis(MINUTE as u64))), never()),
            MINUTE,
        ),
    ]
}

#[test]
fn session_of_wrong_clock_keeps_its_timeouts() {
    let server = Server::with_shifted_clock("");
    for error in [HOUR, 400 * DAY] {
        for (session, options, lifetime) in sessions() {
            for (name, use_it) in USES {
                let store = Store::open(&server.url(URL)).unwrap();
                server.set_clock_error(error);
                let (sid, _) = store.create(b"hello", &options).unwrap();
                server.set_clock_error(0);
                let case = format!("{session}, {name}, clock {error} ms ahead");
                let sid = use_it(&store, sid);
                server.set_clock_error(lifetime - 20_000);
                assert!(store.get(&sid, Access::Peek).is_ok(), "{case}: it ended too early");
                server.set_clock_error(lifetime + 1000);
                assert_eq!(kind(&store.get(&sid, Access::Peek)), Some(ErrorKind::NotFound), "{case}");
                server.set_clock_error(0);
                store.revoke(b"alice", None).unwrap();
            }
        }
    }
}

/// Clocks of hosts differ a little: that changes nothing.
#[test]
fn small_clock_error_changes_no_record() {
    let server = Server::with_shifted_clock("");
    let store = Store::open(&server.url(URL)).unwrap();
    server.set_clock_error(5000);
    let (sid, created) = store.create(b"hello", &PLAIN.timeout_ms(HOUR).idle_timeout_ms(HOUR)).unwrap();
    server.set_clock_error(0);
    let (_, meta) = store.get(&sid, Access::Slide).unwrap();
    assert_eq!((meta.created(), meta.expires()), (created.created(), created.expires()));
}

/// A full server cannot correct what it stores, but still reads it.
#[test]
fn full_server_reads_session_of_wrong_clock() {
    let server = Server::with_shifted_clock("");
    let store = Store::open(&server.url(URL)).unwrap();
    server.set_clock_error(DAY);
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    server.set_clock_error(0);
    assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap(), "+OK\r\n");
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello");
    assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
    store.delete(&sid).unwrap();
}
