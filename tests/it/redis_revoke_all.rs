//! `revoke_all` on several servers and under faults: it ends all that it can reach, then says what it
//! could not, and touches nothing else.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use crate::common::{
    Done, PLAIN,
    cluster::Cluster,
    found, grace, kind, of,
    redis::Server,
    sentinel::{sentinels, url},
};
use sss::{Access, ErrorKind, Sid, Store};

const GONE: Option<ErrorKind> = Some(ErrorKind::NotFound);

fn create_many(store: &Store, count: usize) -> Vec<Sid> {
    let create = |i: usize| match i % 3 {
        0 => store.create(b"hello", &PLAIN).unwrap().0,
        1 => store.create(b"hello", &of(b"alice").label(b"a device")).unwrap().0,
        _ => {
            let (sid, _) = store.create(b"hello", &of(b"bob")).unwrap();
            store.renew(&sid, None, &grace(60_000)).unwrap().0
        }
    };
    (0..count).map(create).collect()
}

fn living(store: &Store, sids: &[Sid]) -> usize {
    sids.iter().filter(|sid| found(store.get(sid, Access::Peek)).is_some()).count()
}

fn set_on_all(servers: &[Server], name: &str, value: &str) {
    for server in servers {
        assert_eq!(server.ask(&["CONFIG", "SET", name, value]).unwrap(), "+OK\r\n");
    }
}

/// Keys of other applications and of another store, by name and value.
const FOREIGN: [(&str, &str); 4] =
    [("cart:1", "apples"), ("s:{AAAA}", "not ours"), ("sss2:s:{AAAA}", "another store's"), ("sss:", "odd")];

fn plant_foreign_keys(cluster_or_one: &[Server]) {
    for (name, value) in FOREIGN {
        // In a Cluster one of them has the slot.
        let set = |server: &Server| server.ask(&["SET", name, value]).unwrap() == "+OK\r\n";
        assert_eq!(cluster_or_one.iter().filter(|server| set(server)).count(), 1, "{name}");
    }
}

fn check_foreign_keys(servers: &[Server]) {
    for (name, value) in FOREIGN {
        let has = |server: &Server| server.ask(&["GET", name]).unwrap().contains(value);
        assert_eq!(servers.iter().filter(|server| has(server)).count(), 1, "{name}");
    }
}

fn ends_all(servers: &[Server], store: &Store, neighbour: &Store) {
    plant_foreign_keys(servers);
    let (other, _) = neighbour.create(b"another store's", &of(b"alice")).unwrap();
    let sids = create_many(store, 1500);
    assert_eq!(store.revoke_all().unwrap(), 1500);
    assert_eq!(living(store, &sids), 0);
    assert_eq!(store.stats().unwrap().sessions, 0);
    assert!(store.list(b"alice").unwrap().is_empty() && store.list(b"bob").unwrap().is_empty());
    assert_eq!(store.revoke_all().unwrap(), 0);
    // As before.
    let (sid, _) = store.create(b"after", &of(b"alice")).unwrap();
    let (sid, _) = store.renew(&sid, None, &PLAIN).unwrap();
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"after");
    // A full server.
    let sids = create_many(store, 30);
    set_on_all(servers, "maxmemory", "1");
    assert_eq!(kind(&store.create(b"x", &PLAIN)), Some(ErrorKind::Full));
    assert_eq!(store.revoke_all().unwrap(), 31);
    set_on_all(servers, "maxmemory", "0");
    assert_eq!(living(store, &sids), 0);
    assert_eq!(neighbour.get(&other, Access::Peek).unwrap().0, b"another store's");
    check_foreign_keys(servers);
}

#[test]
fn revoke_all_ends_all_sessions_of_store_only() {
    let server = Server::start("");
    let open = |options: &str| Store::open(&server.url(options)).unwrap();
    let (store, neighbour) = (open("deadline=10s"), open("deadline=10s&prefix=sss3:"));
    ends_all(std::slice::from_ref(&server), &store, &neighbour);
}

#[test]
fn revoke_all_ends_all_sessions_of_cluster() {
    let cluster = Cluster::without_replicas();
    let open = |options: &str| Store::open(&cluster.url(options)).unwrap();
    let (store, neighbour) = (open("deadline=10s"), open("deadline=10s&prefix=sss3:"));
    ends_all(&cluster.servers, &store, &neighbour);
}

#[test]
fn revoke_all_behind_sentinels_waits_for_replicas() {
    let master = Server::start("repl-diskless-sync-delay 0");
    let replica = Server::start(&format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}", master.port));
    let sentinels = sentinels(master.port);
    let open = |options: &str| Store::open(&url(&sentinels, options)).unwrap();
    let store = open("wait=1&deadline=5s");
    let sids = create_many(&open("deadline=5s"), 30);
    assert_eq!(store.revoke_all().unwrap(), 30);
    assert_eq!(living(&store, &sids), 0);
    let keys = replica.ask(&["KEYS", "sss:s:*"]).unwrap();
    assert!(keys.starts_with("*0"), "{keys}");
}

#[test]
fn revoke_all_reports_unreachable_servers() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=5s")).unwrap();
    let sids = create_many(&store, 90);
    let dead = cluster.servers[1].port.to_string();
    cluster.servers[1].kill();
    let error = store.revoke_all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let message = error.to_string();
    assert!(message.contains("1 of 3 servers could not be reached") && message.contains(&dead), "{message}");
    for sid in &sids {
        let read = kind(&store.get(sid, Access::Peek));
        assert!([GONE, Some(ErrorKind::Unavailable), Some(ErrorKind::Timeout)].contains(&read), "{read:?}");
    }
    let gone = sids.iter().filter(|sid| kind(&store.get(sid, Access::Peek)) == GONE).count();
    assert!((20..90).contains(&gone), "{gone}");
}

/// Sessions that are renewed as fast as possible do not escape to keys that were visited before.
fn renewals_do_not_escape(store: &Store, disturb: impl Fn() + Sync) {
    let rounds = crate::common::from_env("SSS_REVOKE_ALL_ROUNDS", 8);
    for _ in 0..rounds {
        // Something to look at meanwhile.
        create_many(store, 1000);
        let stop = AtomicBool::new(false);
        let renewed = AtomicU64::new(0);
        thread::scope(|scope| {
            let done = Done(&stop);
            let renew_until_gone = || {
                let (mut sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    match store.renew(&sid, None, &PLAIN) {
                        Ok((new, _)) => sid = new,
                        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(sid),
                        Err(error) => panic!("{error}"),
                    }
                    renewed.fetch_add(1, Ordering::Relaxed);
                }
                Err(sid)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(renew_until_gone)).collect();
            let disturber = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    disturb();
                }
            });
            let begun = Instant::now();
            while renewed.load(Ordering::Relaxed) < 40 {
                assert!(begun.elapsed() < Duration::from_secs(60), "nothing is renewed");
                sleep(Duration::from_millis(1));
            }
            assert!(store.revoke_all().unwrap() >= 1000);
            // Those that have ended by now do not come back.
            assert_eq!(store.stats().unwrap().sessions, 0);
            drop(done);
            for thread in threads {
                let (Ok(sid) | Err(sid)) = thread.join().unwrap();
                assert_eq!(kind(&store.get(&sid, Access::Peek)), GONE);
            }
            disturber.join().unwrap();
        });
    }
}

#[test]
fn renewals_do_not_escape_revoke_all() {
    let server = Server::start("");
    renewals_do_not_escape(&Store::open(&server.unix_url("deadline=10s")).unwrap(), || sleep(Duration::from_millis(1)));
}

#[test]
fn renewals_do_not_escape_revoke_all_of_cluster() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=10s")).unwrap();
    renewals_do_not_escape(&store, || sleep(Duration::from_millis(1)));
}

#[test]
fn moving_sessions_do_not_escape_revoke_all() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=20s")).unwrap();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let has_moved = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _done = Done(&has_moved);
                let address = format!("127.0.0.1:{}", cluster.servers[0].port);
                let moved = Command::new("redis-cli")
                    .args(["--cluster", "reshard", &address, "--cluster-from", &cluster.id(from)])
                    .args(["--cluster-to", &cluster.id(to), "--cluster-slots", "1500", "--cluster-yes"])
                    .stdout(Stdio::null())
                    .status()
                    .unwrap();
                assert!(moved.success());
            });
            while !has_moved.load(Ordering::Relaxed) {
                let sids = create_many(&store, 300);
                assert_eq!(store.revoke_all().unwrap(), 300);
                assert_eq!(living(&store, &sids), 0);
            }
        });
    }
}
