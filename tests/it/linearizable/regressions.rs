//! The interleavings that the random histories found, made likely: a reader that holds the lock of
//! one session keeps the others waiting in the middle of their step.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use sss::{Access, Sid, Store};

use crate::common::{OptionsMs, PLAIN, found, grace, of, open};

const ROUNDS: usize = 300;
/// Long enough that another thread comes to wait for the lock, mostly.
const UNTIL_IT_WAITS: Duration = Duration::from_millis(2);

/// Reads `held`; meanwhile starts `waiting` in one thread and then does `then` in another one,
/// which must not wait for a lock. `after` comes next, before the waiting thread has woken up.
fn while_reading<T: Send>(
    store: &Store,
    held: &Sid,
    waiting: impl FnOnce() -> T + Send,
    then: impl FnOnce() + Send,
    after: impl FnOnce(),
) -> T {
    let (started, done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    thread::scope(|scope| {
        let mut waiter = None;
        let read = |_: &[u8], _: &_| {
            waiter = Some(scope.spawn(move || {
                started.store(true, Ordering::Release);
                waiting()
            }));
            scope.spawn(move || {
                wait_for(started);
                thread::sleep(UNTIL_IT_WAITS);
                then();
                done.store(true, Ordering::Release);
            });
            wait_for(done);
            Ok::<(), sss::Error>(())
        };
        store.read(held, Access::Peek, read).unwrap();
        after();
        waiter.unwrap().join().unwrap()
    })
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

#[test]
fn old_id_misses_writes_after_grace() {
    let store = open("clock=manual&timeout=infinity&idle_timeout=infinity");
    for round in 0..ROUNDS {
        let (old, _) = store.create(b"before", &PLAIN).unwrap();
        let (new, _) = store.renew(&old, None, &grace(5)).unwrap();
        let read = while_reading(
            &store,
            &new,
            || found(store.get(&old, Access::Slide)),
            || store.advance_clock(5).unwrap(),
            || _ = store.put(&new, b"after", &PLAIN).unwrap(),
        );
        if let Some((payload, meta)) = read {
            assert_eq!(payload, b"before", "round {round}: {meta:?}");
        }
    }
}

/// Two sessions may be: when one of them has expired, a third one evicts none.
#[test]
fn limit_evicts_only_when_full() {
    let store = open("clock=manual&max_per_principal=2");
    for round in 0..ROUNDS {
        let (older, _) = store.create(b"older", &of(b"alice")).unwrap();
        store.advance_clock(1).unwrap();
        let short = of(b"alice").timeout_ms(5);
        let (younger, _) = store.create(b"younger", &short).unwrap();
        let mut room = false;
        while_reading(
            &store,
            &older,
            || store.create(b"third", &of(b"alice")).unwrap(),
            || store.advance_clock(5).unwrap(),
            || room = found(store.get(&younger, Access::Peek)).is_none() && is_alive(&store, &older),
        );
        assert!(room <= is_alive(&store, &older), "round {round}: it lived when there was room, and had to go");
        store.revoke(b"alice", None).unwrap();
    }
}

fn is_alive(store: &Store, sid: &Sid) -> bool {
    found(store.get(sid, Access::Peek)).is_some()
}
