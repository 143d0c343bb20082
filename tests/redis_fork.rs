//! A `redis:` store in forked processes: a child goes on by itself, on connections of its own, and neither the server nor the
//! parent notices anything of what the child does with what it inherited.
#![allow(unsafe_code)]

mod common;

use std::{thread, time::Duration};

use common::{PLAIN, found, of, proxy::Proxy, redis::Server};
use sss::{Access, Sid, Store};

/// Runs `child` in a forked process, and says whether it returned true there.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only uses what the library promises to work there, and leaves without running any handlers.
    match unsafe { libc::fork() } {
        0 => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
            // SAFETY: ends the process.
            unsafe { libc::_exit(if good { 0 } else { 1 }) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` may be written to.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            status == 0
        }
    }
}

fn serves(store: &Store, sid: &Sid) -> bool {
    let mine = store.create(b"child", &of(b"children")).unwrap().0;
    found(store.get(sid, Access::Slide)).is_some_and(|(payload, _)| payload == b"hello")
        && found(store.get(&mine, Access::Slide)).is_some()
        && store.delete(&mine).is_ok()
}

/// The numbers that the server gives to its connections.
fn connections(server: &Server) -> Vec<String> {
    let list = server.ask(&["CLIENT", "LIST"]).unwrap();
    let user = format!("user={}", common::redis::USER);
    let of_store = list.lines().filter(|line| line.contains(&user));
    of_store.map(|line| line.split("id=").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_child_connects_by_itself_and_leaves_its_parents_connection_alone() {
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let url = format!("redis://sss:hunter2%2F%40@127.0.0.1:{}?deadline=5s", proxy.port);
    let store = Store::open(&url).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let (before, of_parent) = (proxy.connections(), connections(&server));
    assert_eq!(of_parent.len(), 1);
    for round in 0..20 {
        let child = store.clone();
        let good = in_child(|| match round % 4 {
            // Leaves at once; uses it; uses it and closes it; lets a child of its own use it.
            0 => true,
            1 => serves(&child, &sid),
            2 => {
                let good = serves(&child, &sid);
                drop(child);
                good
            }
            _ => in_child(|| serves(&child, &sid)) && serves(&child, &sid),
        });
        assert!(good, "round {round}");
        assert!(found(store.get(&sid, Access::Slide)).is_some(), "round {round}");
    }
    drop(store.list(b"children").unwrap());
    thread::sleep(Duration::from_millis(50));
    assert_eq!(connections(&server), of_parent, "the parent's connection is the same");
    assert_eq!(proxy.connections() - before, 5 * 4, "one for each process that used the store");
    let stats = store.stats().unwrap();
    assert_eq!((stats.errors, stats.created), (0, 1));
}

/// Whatever the parent's other threads are doing at the fork.
#[test]
fn a_child_serves_also_if_its_parent_was_in_the_middle_of_a_call() {
    let server = Server::start("");
    let store = Store::open(&server.url("deadline=5s&pool=4")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = common::Done(&stop);
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(found(store.get(&sid, Access::Slide)).is_some());
                }
            });
        }
        for round in 0..common::from_env("SSS_FORKS", 30) {
            let child = store.clone();
            assert!(in_child(|| serves(&child, &sid)), "round {round}");
        }
    });
}
