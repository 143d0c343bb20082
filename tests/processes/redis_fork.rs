//! A `redis:` store in forked processes: a child continues on connections of its own, and neither
//! the server nor the parent notices anything of what the child does with what it inherited.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::common::{PLAIN, found, of, proxy::Proxy, redis::Server};
use crate::process::in_child;
use sss::{Access, Sid, Store};

/// A connection that is still open by then stays open.
const PATIENCE: Duration = Duration::from_secs(30);

suite! {
    tests: [child_opens_its_own_connection, child_of_busy_process_works, child_with_threads_never_hangs],
    parts: [],
}

/// What a child does with the store.
fn use_store(store: &Store, sid: &Sid) {
    let mine = store.create(b"child", &of(b"children")).unwrap().0;
    assert_eq!(store.get(sid, Access::Slide).unwrap().0, b"hello");
    assert_eq!(store.get(&mine, Access::Slide).unwrap().0, b"child");
    store.delete(&mine).unwrap();
}

/// The numbers that the server gives to its connections.
fn connections(server: &Server) -> Vec<String> {
    let list = server.ask(&["CLIENT", "LIST"]).unwrap();
    let user = format!("user={}", crate::common::redis::USER);
    let of_store = list.lines().filter(|line| line.contains(&user));
    of_store.map(|line| line.split("id=").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

fn child_opens_its_own_connection() {
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let url = format!("redis://sss:hunter2%2F%40@127.0.0.1:{}?deadline=5s", proxy.port);
    let store = Store::open(&url).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let (before, of_parent) = (proxy.connections(), connections(&server));
    assert_eq!(of_parent.len(), 1);
    for round in 0..20 {
        let child = store.clone();
        in_child(|| match round % 4 {
            // Leaves at once; uses it; uses it and closes it; lets a child of its own use it.
            0 => {}
            1 => use_store(&child, &sid),
            2 => {
                use_store(&child, &sid);
                drop(child);
            }
            _ => {
                in_child(|| use_store(&child, &sid));
                use_store(&child, &sid);
            }
        });
        assert!(found(store.get(&sid, Access::Slide)).is_some(), "round {round}");
    }
    drop(store.list(b"children").unwrap());
    // The server notices the end of a child's connection a little later than the child's parent
    // does.
    let begun = Instant::now();
    while connections(&server).len() > 1 {
        assert!(begun.elapsed() < PATIENCE, "connections of children that have ended: {:?}", connections(&server));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(connections(&server), of_parent, "the parent's connection is the same");
    assert_eq!(proxy.connections() - before, 5 * 4, "one for each process that used the store");
    let stats = store.stats().unwrap();
    assert_eq!((stats.errors, stats.created), (0, 1));
}

/// Whatever the parent's other threads are doing at the fork.
fn child_of_busy_process_works() {
    let server = Server::start("");
    let store = Store::open(&server.url("deadline=5s&pool=4")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = crate::common::Done(&stop);
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(found(store.get(&sid, Access::Slide)).is_some());
                }
            });
        }
        for _ in 0..crate::common::from_env("SSS_FORKS", 30) {
            let child = store.clone();
            in_child(|| use_store(&child, &sid));
        }
    });
}

/// Threads of the parent wait in the pool at the fork, and threads of the child do so afterwards.
fn child_with_threads_never_hangs() {
    let server = Server::start("");
    let store = Store::open(&server.url("deadline=30s&pool=1")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = crate::common::Done(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(found(store.get(&sid, Access::Slide)).is_some());
                }
            });
        }
        for _ in 0..crate::common::from_env("SSS_FORKS", 200) {
            let child = store.clone();
            in_child(|| {
                thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| {
                            for _ in 0..5 {
                                assert_eq!(child.get(&sid, Access::Slide).unwrap().0, b"hello");
                            }
                        });
                    }
                });
            });
        }
    });
}
