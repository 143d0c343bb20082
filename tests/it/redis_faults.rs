//! What the engine of `redis:` promises when its server is away, slow, full, restarted or tampered
//! with: against real servers, and a proxy between them that does what networks do.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use crate::common::{
    Done, OptionsMs, PLAIN,
    cluster::Cluster,
    from_env, grace, kind, of,
    proxy::{Mode, Proxy},
    redis::{PASSWORD, Server, USER},
    sentinel::{sentinels, url},
    timed::{LATE, LATE_UNDER_LOAD, timed},
};
use sss::{Access, Error, ErrorKind, Sid, Store};

const DEADLINE: Duration = Duration::from_millis(300);
/// What it has answered is on disk. With the usual `everysec` a server does not even write while
/// the disk is slow, for up to two seconds, and killed then it loses that.
const DURABLE: &str = "appendonly yes\nappendfsync always";
/// Nothing that is waited for here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn through(proxy: &Proxy, options: &str) -> Store {
    Store::open(&format!("redis://{USER}:hunter2%2F%40@127.0.0.1:{}?{options}", proxy.port)).unwrap()
}

/// Every call that goes to the server, by name.
type Call = (&'static str, fn(&Store, &[u8]) -> Result<(), Error>);
const CALLS: [Call; 12] = [
    ("create", |store, _| store.create(b"x", &PLAIN).map(drop)),
    ("create of a principal", |store, _| store.create(b"x", &of(b"alice")).map(drop)),
    ("get", |store, sid| store.get(sid, Access::Slide).map(drop)),
    ("peek", |store, sid| store.get(sid, Access::Peek).map(drop)),
    ("put", |store, sid| store.put(sid, b"y", &PLAIN).map(drop)),
    ("touch", |store, sid| store.touch(sid).map(drop)),
    ("list", |store, _| store.list(b"alice").map(drop)),
    ("reference", |store, sid| store.reference(sid).map(drop)),
    ("stats", |store, _| store.stats().map(drop)),
    ("sweep", |store, _| store.sweep(1).map(drop)),
    ("revoke", |store, _| store.revoke(b"nobody", None).map(drop)),
    ("renew", |store, sid| store.renew(sid, None, &grace(60_000)).map(drop)),
];

#[test]
fn calls_meet_deadline_on_bad_replies() {
    let server = Server::start("");
    for mode in [
        Mode::Stall,
        Mode::Swallow,
        Mode::Dribble(Duration::from_millis(100)),
        Mode::Delay(DEADLINE * 4),
        Mode::Cut(0),
        Mode::Cut(3),
    ] {
        for (name, call) in CALLS {
            // A proxy of its own, because a server that fails too often is not asked any more.
            let proxy = Proxy::to(server.port);
            let store = through(&proxy, &format!("deadline={}ms", DEADLINE.as_millis()));
            let begun = Instant::now();
            let sid = loop {
                match store.create(b"hello", &of(b"alice")) {
                    Ok((sid, _)) => break sid,
                    Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
                }
            };
            proxy.set(mode);
            let (failed, took) = timed(|| call(&store, sid.as_ref()));
            let failed = kind(&failed);
            assert!(took < DEADLINE + LATE, "{name} took {took:?} with {mode:?}");
            let expected = match mode {
                Mode::Cut(_) => [Some(ErrorKind::Unavailable); 2],
                _ => [Some(ErrorKind::Timeout), Some(ErrorKind::Unavailable)],
            };
            assert!(expected.contains(&failed), "{name} with {mode:?}: {failed:?}");
            proxy.set(Mode::Pass);
            let begun = Instant::now();
            while let Err(error) = store.list(b"alice") {
                assert!(begun.elapsed() < PATIENCE, "after {name} with {mode:?}: {error}");
            }
        }
    }
}

#[test]
fn dead_server_fails_fast_then_recovers() {
    let mut server = Server::start(DURABLE);
    let store = Store::open(&server.url("deadline=500ms")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let port = server.port;
    server.kill();
    for _ in 0..200 {
        let (failed, took) = timed(|| store.get(&sid, Access::Slide));
        assert_eq!(kind(&failed), Some(ErrorKind::Unavailable), "{failed:?}");
        assert!(took < LATE, "{took:?}");
    }
    let message = store.get(&sid, Access::Slide).unwrap_err().to_string();
    assert!(message.contains(&port.to_string()) && !message.contains("hunter2"), "{message}");
    server.revive(DURABLE);
    let begun = Instant::now();
    while store.get(&sid, Access::Slide).is_err() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", store.get(&sid, Access::Slide));
        sleep(Duration::from_millis(5));
    }
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello");
}

#[test]
fn open_succeeds_while_server_is_down() {
    let mut server = Server::start("");
    let url = server.url("");
    server.kill();
    let store = Store::open(&url).unwrap();
    assert_eq!(kind(&store.create(b"x", &PLAIN)), Some(ErrorKind::Unavailable));
    server.revive("");
    let begun = Instant::now();
    while let Err(error) = store.create(b"x", &PLAIN) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        sleep(Duration::from_millis(5));
    }
}

/// Killed and started again under load: no session is ever not found, no write is lost, and nothing
/// hangs.
#[test]
fn sessions_survive_server_restart() {
    let rounds = from_env("SSS_REDIS_RESTARTS", 3);
    let mut server = Server::start(DURABLE);
    let deadline = Duration::from_millis(500);
    let [patient, store] = ["deadline=30s", "deadline=500ms"].map(|options| Store::open(&server.url(options)).unwrap());
    let (stop, worked, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = Done(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                let (sid, meta) = patient.create(b"0", &PLAIN).unwrap();
                let (mut version, mut unsure) = (meta.version(), false);
                while !stop.load(Ordering::Relaxed) {
                    let (result, took) = timed(|| store.get(&sid, Access::Slide));
                    assert!(took < deadline + LATE_UNDER_LOAD, "{took:?}");
                    let result = result.and_then(|(_, meta)| {
                        assert!(
                            meta.version() == version || (unsure && meta.version() == version + 1),
                            "a write was lost"
                        );
                        (version, unsure) = (meta.version(), true);
                        let (put, took) = timed(|| store.put_if(&sid, version, b"more", &PLAIN));
                        assert!(took < deadline + LATE_UNDER_LOAD, "{took:?}");
                        assert_eq!(put?.version(), version + 1, "a write was done twice");
                        (version, unsure) = (version + 1, false);
                        Ok(())
                    });
                    match kind(&result) {
                        None => worked.fetch_add(1, Ordering::Relaxed),
                        Some(ErrorKind::Unavailable | ErrorKind::Timeout) => failed.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other:?}: {result:?}"),
                    };
                }
            });
        }
        let more = || {
            let (before, begun) = (worked.load(Ordering::Relaxed), Instant::now());
            while worked.load(Ordering::Relaxed) < before + 100 {
                assert!(begun.elapsed() < PATIENCE, "nothing works");
                sleep(Duration::from_millis(5));
            }
        };
        for _ in 0..rounds {
            more();
            server.kill();
            sleep(Duration::from_millis(100));
            server.revive(DURABLE);
        }
        more();
    });
    assert!(failed.load(Ordering::Relaxed) > 0, "no call noticed");
}

/// Replies are cut anywhere and come too late; each call gets its own session's payload or an
/// error.
#[test]
fn replies_never_cross_calls() {
    let wanted = from_env("SSS_REDIS_REPLIES", 400);
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let deadline = Duration::from_millis(250);
    // Not sealed, so that nothing but the connection keeps the replies apart.
    let store = through(&proxy, "seal=off&deadline=250ms&pool=4&timeout=infinity&idle_timeout=infinity");
    let sids: Vec<_> = (0..8).map(|i| store.create(format!("session {i}").as_bytes(), &PLAIN).unwrap().0).collect();
    proxy.set(Mode::Some(3, deadline * 2));
    let (right, failed, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for (i, sid) in sids.iter().enumerate() {
            let (store, right, failed) = (&store, &right, &failed);
            scope.spawn(move || {
                while right.load(Ordering::Relaxed) < wanted {
                    match store.get(sid, Access::Slide) {
                        Ok((payload, _)) => {
                            assert_eq!(payload, format!("session {i}").into_bytes());
                            right.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            // A server that fails so often counts as down for a moment.
                            sleep(Duration::from_millis(1));
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                    let patience = Duration::from_secs(60) + Duration::from_millis(200 * wanted);
                    assert!(begun.elapsed() < patience, "{} right in {patience:?}", right.load(Ordering::Relaxed));
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed > wanted / 10, "only {failed} failed");
}

/// The server does what it is asked, and its answer does not arrive: it is asked again, and knows
/// that it is done.
#[test]
fn lost_reply_does_not_repeat_write() {
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let (store, beside) = (through(&proxy, ""), Store::open(&server.url("")).unwrap());
    // A server that does not know a script says so, which would be the answer that is lost.
    let (sid, _) = store.create(b"warm", &PLAIN).unwrap();
    store.put(&sid, b"warm", &PLAIN).unwrap();
    store.delete(&sid).unwrap();
    for len in [0, 1, 7] {
        let once = |write: &dyn Fn() -> Result<(), Error>| {
            proxy.set(Mode::CutOnce(len));
            write()
        };
        let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
        let version = || beside.get(&sid, Access::Peek).unwrap().1.version();
        once(&|| store.put(&sid, b"world", &PLAIN).map(|meta| assert_eq!(meta.version(), 2))).unwrap();
        assert_eq!(version(), 2);
        once(&|| store.put_if(&sid, 2, b"world", &PLAIN).map(|meta| assert_eq!(meta.version(), 3))).unwrap();
        assert_eq!(version(), 3);
        let before = beside.list(b"alice").unwrap().len();
        once(&|| store.create(b"x", &of(b"alice")).map(drop)).unwrap();
        assert_eq!(beside.list(b"alice").unwrap().len(), before + 1);
        // What cannot be told from another's doing is not tried again.
        let gone = once(&|| store.delete(&sid));
        assert_eq!(kind(&gone), Some(ErrorKind::Unavailable));
        assert_eq!(kind(&store.delete(&sid)), Some(ErrorKind::NotFound));
        store.revoke(b"alice", None).unwrap();
    }
}

#[test]
fn requests_take_one_round_trip() {
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let store = through(&proxy, "");
    let trips = |what: &str, expected: u64, call: &mut dyn FnMut()| {
        let before = proxy.requests();
        call();
        assert_eq!(proxy.requests() - before, expected, "{what}");
    };
    // The connection, and the scripts.
    for _ in 0..2 {
        let (sid, _) = store.create(b"warm", &of(b"alice")).unwrap();
        store.get(&sid, Access::Slide).unwrap();
        store.put(&sid, b"warm", &PLAIN).unwrap();
        let (sid, _) = store.renew(&sid, None, &PLAIN).unwrap();
        store.delete(&sid).unwrap();
        store.list(b"alice").unwrap();
        store.revoke(b"alice", None).unwrap();
    }
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    trips("create", 1, &mut || drop(store.create(b"x", &PLAIN).unwrap()));
    trips("create of a principal", 1, &mut || drop(store.create(b"x", &of(b"alice")).unwrap()));
    trips("get", 1, &mut || drop(store.get(&sid, Access::Slide).unwrap()));
    trips("touch", 1, &mut || _ = store.touch(&sid).unwrap());
    trips("put", 1, &mut || _ = store.put(&sid, b"y", &PLAIN).unwrap());
    trips("put_if", 1, &mut || _ = store.put_if(&sid, 2, b"z", &PLAIN).unwrap());
    trips("list", 1, &mut || drop(store.list(b"alice").unwrap()));
    trips("revoke", 1, &mut || _ = store.revoke(b"alice", None).unwrap());
    trips("renew", 2, &mut || drop(store.renew(&sid, None, &PLAIN).unwrap()));
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    trips("delete", 1, &mut || store.delete(&sid).unwrap());
}

#[test]
fn pool_limits_connections() {
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let store = through(&proxy, "pool=3&deadline=30s");
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| (0..50).for_each(|_| drop(store.create(b"x", &PLAIN).unwrap())));
        }
    });
    assert!(proxy.connections() <= 3, "{}", proxy.connections());

    let store = through(&proxy, "pool=1&deadline=200ms");
    let (sid, _) = store.create(b"x", &PLAIN).unwrap();
    proxy.set(Mode::Stall);
    let messages = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (failed, took) = timed(|| store.get(&sid, Access::Slide));
                assert!(took < Duration::from_millis(200) + LATE, "{took:?}");
                messages.lock().unwrap().push(failed.unwrap_err().to_string());
            });
        }
    });
    assert!(messages.into_inner().unwrap().iter().any(|message| message.contains("pool=")));
}

#[test]
fn server_errors_map_to_statuses() {
    let server = Server::start("");
    let store = Store::open(&server.url("prefix=app:&deadline=5s")).unwrap();
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    let put = || kind(&store.put(&sid, b"world", &PLAIN));
    let get = || kind(&store.get(&sid, Access::Slide));
    let ask = |command: &[&str]| assert!(server.ask(command).unwrap().starts_with(['+', ':']), "{command:?}");

    // The scripts are forgotten.
    ask(&["SCRIPT", "FLUSH"]);
    assert_eq!((get(), put()), (None, None));
    // No memory: what is there is read.
    ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!((get(), put()), (None, Some(ErrorKind::Full)));
    assert_eq!(kind(&store.create(b"x", &PLAIN)), Some(ErrorKind::Full));
    assert_eq!(kind(&store.renew(&sid, None, &PLAIN)), Some(ErrorKind::Full));
    ask(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!((get(), put()), (None, None));
    // Too few replicas, as the server wants them.
    ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_eq!(put(), Some(ErrorKind::Unavailable));
    ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    // A replica, and one that has lost its master.
    ask(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(put(), Some(ErrorKind::Unavailable));
    ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!((get(), put()), (None, None));
    // A permission less.
    ask(&["ACL", "SETUSER", USER, "-set"]);
    assert_eq!(put(), Some(ErrorKind::Unavailable));
    let message = store.put(&sid, b"x", &PLAIN).unwrap_err().to_string();
    assert!(message.contains("docs/redis.md"), "{message}");
    ask(&["ACL", "SETUSER", USER, "+set"]);
    assert_eq!((get(), put()), (None, None));
    // Something else under the key.
    let names = server.ask(&["KEYS", "app:s:*"]).unwrap();
    let name = names.lines().find(|line| line.starts_with("app:")).unwrap();
    ask(&["DEL", name]);
    ask(&["LPUSH", name, "planted"]);
    assert_eq!((get(), put()), (Some(ErrorKind::Corrupt), Some(ErrorKind::Corrupt)));
    ask(&["DEL", name]);
    assert_eq!(get(), Some(ErrorKind::NotFound));
}

/// As after a failover that gives the master's name another address, while the old one runs on as a
/// replica.
#[test]
fn demoted_master_is_left_for_new_address() {
    let (old, new) = (Server::start(""), Server::start(""));
    let proxy = Proxy::to(old.port);
    let store = through(&proxy, "pool=4");
    // All four connections are there.
    thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(|| store.create(b"x", &PLAIN).unwrap()))));
    old.ask(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    assert_eq!(kind(&store.create(b"x", &PLAIN)), Some(ErrorKind::Unavailable));
    proxy.leads_to(new.port);
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    assert_eq!(Store::open(&new.url("")).unwrap().get(&sid, Access::Peek).unwrap().0, b"hello");
}

#[test]
fn wrong_password_is_unavailable() {
    let server = Server::start("requirepass another");
    for user_info in ["sss:wrong-secret@", "wrong-user:wrong-secret@", ":wrong-secret@", ""] {
        let store = Store::open(&format!("redis://{user_info}127.0.0.1:{}", server.port)).unwrap();
        let error = store.create(b"x", &PLAIN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let message = error.to_string();
        assert!(message.contains("password") && !message.contains("wrong-"), "{message}");
    }
    let url = format!("redis://:another@127.0.0.1:{}", server.port);
    Store::open(&url).unwrap().create(b"x", &PLAIN).unwrap();
}

#[test]
fn other_protocol_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write;
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let store = Store::open(&format!("redis://127.0.0.1:{port}?deadline=2s")).unwrap();
    let error = store.create(b"x", &PLAIN).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn writes_wait_for_replicas() {
    let server = Server::start("");
    let store = Store::open(&server.url("wait=1&deadline=2s")).unwrap();
    let (failed, took) = timed(|| store.create(b"x", &PLAIN));
    let error = failed.unwrap_err();
    assert!(took < Duration::from_secs(2) + LATE, "{took:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");

    let replica = Server::start(&format!("replicaof 127.0.0.1 {}", server.port));
    let begun = Instant::now();
    let sid = loop {
        match store.create(b"hello", &PLAIN) {
            Ok((sid, _)) => break sid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    // It is there when the call returns.
    let at_replica = Store::open(&replica.url("")).unwrap();
    assert_eq!(at_replica.get(&sid, Access::Peek).unwrap().0, b"hello");
    store.delete(&sid).unwrap();
    assert_eq!(kind(&at_replica.get(&sid, Access::Peek)), Some(ErrorKind::NotFound));
}

#[test]
fn expired_keys_vanish_without_sweep() {
    let server = Server::start("");
    let store = Store::open(&server.url("timeout=1h&idle_timeout=2s")).unwrap();
    let keys = || server.ask(&["DBSIZE"]).unwrap();
    let (idle, _) = store.create(b"x", &PLAIN).unwrap();
    let (used, _) = store.create(b"x", &of(b"alice")).unwrap();
    let (old, _) = store.create(b"x", &PLAIN.idle_timeout_ms(1500)).unwrap();
    let (_, _) = store.renew(&old, None, &grace(800)).unwrap();
    assert_eq!(keys(), ":5\r\n", "three sessions, an alias, a list");
    let begun = Instant::now();
    while keys() != ":2\r\n" {
        assert!(begun.elapsed() < PATIENCE, "{}", keys());
        store.get(&used, Access::Slide).unwrap();
        sleep(Duration::from_millis(20));
    }
    assert_eq!(kind(&store.get(&idle, Access::Slide)), Some(ErrorKind::NotFound));
    assert_eq!(kind(&store.get(&old, Access::Slide)), Some(ErrorKind::NotFound));
    assert_eq!(store.stats().unwrap().sessions, 1);
    // What is left of it in its principal's list goes with a sweep.
    let begun = Instant::now();
    while store.sweep(10).unwrap() == 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", keys());
        sleep(Duration::from_millis(20));
    }
    assert_eq!(keys(), ":0\r\n");
}

#[test]
fn principal_index_ends_with_sessions() {
    let server = Server::start("");
    let store = Store::open(&server.url("timeout=1h")).unwrap();
    let ttl = |what: &str| -> i64 {
        let names = server.ask(&["KEYS", &format!("sss:{what}:*")]).unwrap();
        let name = names.lines().find(|line| line.starts_with("sss:")).unwrap();
        server.ask(&["PTTL", name]).unwrap()[1..].trim().parse().unwrap()
    };
    let (sid, _) = store.create(b"x", &of(b"alice")).unwrap();
    let (slack, hour) = (60_000, 3_600_000);
    assert!((hour..=hour + slack).contains(&ttl("p")), "{}", ttl("p"));
    store.put(&sid, b"y", &PLAIN.timeout_ms(2 * hour)).unwrap();
    assert!((2 * hour..=2 * hour + slack).contains(&ttl("p")), "{}", ttl("p"));
    store.put(&sid, b"y", &PLAIN.timeout_ms(i64::MAX)).unwrap();
    assert_eq!(ttl("p"), -1);
}

/// Neither in what goes over the wire nor on the disk.
#[test]
fn server_sees_no_ids_payloads_or_labels() {
    let server = Server::start("appendonly yes");
    let store = Store::open(&server.url("")).unwrap();
    let mut monitor = crate::common::redis::connect(server.port);
    use std::io::{Read, Write};
    monitor.write_all(b"MONITOR\r\n").unwrap();
    monitor.read_exact(&mut [0; 5]).unwrap();
    let mut ids = Vec::new();
    for i in 0..20 {
        let payload = format!("canary {i} in a payload");
        let label = format!("canary label {i}");
        let user = of(b"canary-principal").label(label.as_bytes());
        let (sid, _) = store.create(payload.as_bytes(), &user).unwrap();
        store.get(&sid, Access::Slide).unwrap();
        store.put(&sid, payload.as_bytes(), &PLAIN).unwrap();
        let (new, _) = store.renew(&sid, None, &grace(60_000)).unwrap();
        store.get(&sid, Access::Slide).unwrap();
        store.put(&new, payload.as_bytes(), &user).unwrap();
        let reference = store.reference(&new).unwrap();
        store.touch_ref(&reference, Access::Slide).unwrap();
        let listed = store.list(b"canary-principal").unwrap();
        assert!(listed.iter().any(|entry| entry.label.as_deref() == Some(label.as_bytes())));
        if i % 4 == 0 {
            store.delete_ref(&reference, Some(b"canary-principal")).unwrap();
        }
        ids.extend([sid, new]);
    }
    assert!(server.ask(&["SAVE"]).unwrap().starts_with('+'));
    assert_eq!(store.revoke(b"canary-principal", Some(ids[7].as_ref())).unwrap(), 14);
    assert_eq!(store.revoke_all().unwrap(), 1);
    drop(server.ask(&["CLIENT", "KILL", "TYPE", "normal"]));
    let mut seen = Vec::new();
    let _ = monitor.read_to_end(&mut seen);
    assert!(seen.windows(7).any(|it| it == b"EVALSHA"), "nothing was seen");
    let mut places = vec![("MONITOR".to_owned(), seen)];
    for folder in [server.directory().to_owned(), server.directory().join("appendonlydir")] {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            places.push((entry.display().to_string(), fs::read(&entry).unwrap()));
        }
    }
    assert!(
        places.iter().any(|(name, _)| name.ends_with(".rdb")) && places.iter().any(|(name, _)| name.ends_with(".aof"))
    );
    for (name, bytes) in places {
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|it| it == what);
        assert!(!holds(b"canary"), "{name}");
        assert!(ids.iter().all(|id| !holds(&id.as_bytes()[..16]) && !holds(&id.as_bytes()[100..])), "{name}");
    }
}

#[test]
fn edited_or_moved_record_is_corrupt() {
    let server = Server::start("");
    let store = Store::open(&server.url("")).unwrap();
    let (sid, _) = store.create(b"role=user", &PLAIN).unwrap();
    let names = server.ask(&["KEYS", "sss:s:*"]).unwrap();
    let name = names.lines().find(|line| line.starts_with("sss:")).unwrap().to_owned();
    let corrupt = Some(ErrorKind::Corrupt);
    // Behind the last use, which is not sealed: version, timeouts, authentication, payload.
    for at in ["24", "33", "41", "60", "64", "80", "95"] {
        let script = "local byte = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[1]):byte()
            redis.call('SETRANGE', KEYS[1], ARGV[1], string.char(bit.bxor(byte, 1))) return 1";
        let flip = || assert_eq!(server.ask(&["EVAL", script, "1", &name, at]).unwrap(), ":1\r\n");
        flip();
        let fresh = Store::open(&server.url("pool=31")).unwrap();
        for store in [&store, &fresh] {
            assert_eq!(kind(&store.get(&sid, Access::Slide)), corrupt, "byte {at}");
            assert_eq!(kind(&store.renew(&sid, None, &PLAIN)), corrupt, "byte {at}");
        }
        // A process that has read the genuine record compares all but the ciphertext, which it
        // replaces.
        if at != "95" {
            assert_eq!(kind(&store.put(&sid, b"x", &PLAIN)), corrupt, "byte {at}");
        }
        assert_eq!(kind(&fresh.put(&sid, b"x", &PLAIN)), corrupt, "byte {at}");
        flip();
        assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"role=user", "byte {at}");
    }
    let (other, _) = store.create(b"role=admin", &PLAIN).unwrap();
    let names = server.ask(&["KEYS", "sss:s:*"]).unwrap();
    let second = names.lines().find(|line| line.starts_with("sss:") && *line != name).unwrap();
    assert!(server.ask(&["COPY", second, &name, "REPLACE"]).unwrap().starts_with(":1"));
    assert_eq!(kind(&store.get(&sid, Access::Slide)), corrupt);
    assert_eq!(store.get(&other, Access::Slide).unwrap().0, b"role=admin");
}

#[test]
fn prefixes_and_databases_are_isolated() {
    let server = Server::start("");
    let base = format!("redis://{USER}:hunter2%2F%40@127.0.0.1:{}", server.port);
    assert_eq!(PASSWORD, "hunter2/@");
    let urls = [format!("{base}/0"), format!("{base}/1"), format!("{base}/0?prefix=other:")];
    let stores = urls.map(|url| Store::open(&url).unwrap());
    let (sid, _) = stores[0].create(b"x", &of(b"alice")).unwrap();
    for other in &stores[1..] {
        assert_eq!(kind(&other.get(&sid, Access::Slide)), Some(ErrorKind::NotFound));
        assert!(other.list(b"alice").unwrap().is_empty());
        assert_eq!(other.revoke(b"alice", None).unwrap(), 0);
        assert_eq!(other.stats().unwrap().sessions, 0);
    }
    assert_eq!(stores[0].get(&sid, Access::Slide).unwrap().0, b"x");
}

#[test]
fn evicting_server_is_refused() {
    let server = Server::start("maxmemory 100mb\nmaxmemory-policy allkeys-lru");
    let store = Store::open(&server.url("")).unwrap();
    let error = store.create(b"x", &of(b"alice")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("maxmemory-policy allkeys-lru"), "{error}");
    assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap(), "+OK\r\n");
    let begun = Instant::now();
    while let Err(error) = store.create(b"x", &of(b"alice")) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
    }
}

/// On one server, in a Cluster and behind Sentinels, while connections are open.
#[test]
fn changed_eviction_policy_is_refused() {
    let server = Server::start("");
    let cluster = Cluster::without_replicas();
    let master = Server::start("repl-diskless-sync-delay 0");
    let replica = Server::start(&format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}", master.port));
    let sentinels = sentinels(master.port);
    let cases = [
        (server.url("deadline=5s"), vec![&server], "volatile-lru"),
        (cluster.url("deadline=5s"), cluster.servers.iter().collect(), "allkeys-random"),
        (url(&sentinels, "deadline=5s"), vec![&master, &replica], "volatile-ttl"),
    ];
    for (url, servers, policy) in &cases {
        let store = Store::open(url).unwrap();
        let set = |policy: &str| {
            for server in servers {
                assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory-policy", policy]).unwrap(), "+OK\r\n");
            }
        };
        let sids: Vec<Sid> = (0..20).map(|_| store.create(b"hello", &of(b"alice")).unwrap().0).collect();
        set(policy);
        let begun = Instant::now();
        let error = loop {
            match store.revoke(b"alice", Some(sids[0].as_ref())) {
                Ok(_) => assert!(begun.elapsed() < PATIENCE, "{policy} is not noticed"),
                Err(error) => break error,
            }
            sleep(Duration::from_millis(20));
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(policy), "{error}");
        set("noeviction");
        assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
    }
}

/// A use that cannot be recorded does not fail a get, and a get does not claim that it was.
#[test]
fn get_works_on_server_that_refuses_writes() {
    let server = Server::start("enable-protected-configs yes");
    let data = server.directory().join("data");
    fs::create_dir(&data).unwrap();
    let store = Store::open(&server.url("deadline=5s")).unwrap();
    for options in [PLAIN, PLAIN.idle_timeout_ms(50_000)] {
        let (sid, created) = store.create(b"hello", &options).unwrap();
        sleep(Duration::from_millis(5));
        let ask = |command: &[&str]| assert!(server.ask(command).unwrap().starts_with('+'), "{command:?}");
        ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        for _ in 0..3 {
            let (payload, meta) = store.get(&sid, Access::Slide).unwrap();
            assert_eq!((&payload[..], meta.last_seen()), (&b"hello"[..], created.last_seen()));
        }
        assert_eq!(kind(&store.touch(&sid)), Some(ErrorKind::Unavailable));
        assert_eq!(kind(&store.renew(&sid, None, &PLAIN)), Some(ErrorKind::Unavailable));
        ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        assert!(store.get(&sid, Access::Slide).unwrap().1.last_seen() > created.last_seen());
        // A disk that cannot be saved to.
        ask(&["CONFIG", "SET", "save", "3600 1"]);
        ask(&["CONFIG", "SET", "dbfilename", "data"]);
        ask(&["BGSAVE"]);
        let begun = Instant::now();
        while !server.ask(&["INFO", "persistence"]).unwrap().contains("rdb_last_bgsave_status:err") {
            assert!(begun.elapsed() < PATIENCE);
            sleep(Duration::from_millis(5));
        }
        assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello");
        assert_eq!(kind(&store.put(&sid, b"x", &PLAIN)), Some(ErrorKind::Unavailable));
        ask(&["CONFIG", "SET", "save", ""]);
        ask(&["CONFIG", "SET", "dbfilename", "dump.rdb"]);
        ask(&["BGSAVE"]);
        while !server.ask(&["INFO", "persistence"]).unwrap().contains("rdb_last_bgsave_status:ok") {
            assert!(begun.elapsed() < PATIENCE);
            sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn renew_without_replicas_keeps_session() {
    let server = Server::start("");
    let writer = Store::open(&server.url("")).unwrap();
    let store = Store::open(&server.url("wait=1&deadline=500ms")).unwrap();
    for options in [PLAIN, grace(60_000)] {
        let (sid, _) = writer.create(b"hello", &of(b"alice")).unwrap();
        assert_eq!(kind(&store.renew(&sid, Some(b"new"), &options)), Some(ErrorKind::Unavailable));
        assert_eq!(writer.get(&sid, Access::Slide).unwrap().0, b"hello");
        writer.put(&sid, b"still writable", &PLAIN).unwrap();
        assert_eq!(writer.list(b"alice").unwrap().len(), 1);
        assert_eq!(writer.revoke(b"alice", None).unwrap(), 1);
    }
}

/// A server that hangs executes what it was sent when it goes on: too late, as its caller has been
/// told.
#[test]
fn stopped_server_does_not_renew_afterwards() {
    let server = Server::start("");
    let store = Store::open(&server.url("deadline=200ms")).unwrap();
    let pid = server.pid().to_string();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    let (warm, _) = store.create(b"warm", &PLAIN).unwrap();
    store.renew(&warm, None, &PLAIN).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    signal("-STOP");
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            sleep(Duration::from_millis(400));
            signal("-CONT");
        });
        kind(&store.renew(&sid, None, &PLAIN))
    });
    assert!(matches!(result, Some(ErrorKind::Timeout | ErrorKind::Unavailable)), "{result:?}");
    let begun = Instant::now();
    loop {
        match store.get(&sid, Access::Peek) {
            Ok((payload, _)) => break assert_eq!(payload, b"hello"),
            Err(error) => {
                assert!(error.kind() != ErrorKind::NotFound && begun.elapsed() < PATIENCE, "{error}");
            }
        }
    }
}

/// A write that is sent again finds itself done; it writes nevertheless, because WAIT covers only
/// what was written.
#[test]
fn repeated_write_is_acknowledged_by_replicas() {
    let server = Server::start("");
    let _replica = Server::start(&format!("replicaof 127.0.0.1 {}", server.port));
    let proxy = Proxy::to(server.port);
    let store = through(&proxy, "wait=1&deadline=10s");
    let begun = Instant::now();
    let sid = loop {
        match store.create(b"hello", &PLAIN) {
            Ok((sid, _)) => break sid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    store.put(&sid, b"warm", &PLAIN).unwrap();
    let (sid, _) = store.renew(&sid, None, &PLAIN).unwrap();
    let writes = || {
        let stats = server.ask(&["INFO", "commandstats"]).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_setrange:calls=")).unwrap_or("0,");
        line.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    for call in 0..2 {
        let before = writes();
        proxy.set(Mode::CutOnce(0));
        match call {
            0 => drop(store.put(&sid, b"world", &PLAIN).unwrap()),
            _ => drop(store.create(b"x", &PLAIN).unwrap()),
        }
        assert_eq!(writes(), before + 1, "call {call}");
    }
}

#[test]
fn refused_connections_name_the_cause() {
    let server = Server::start("maxclients 5");
    let message = |url: &str| Store::open(url).unwrap().create(b"x", &PLAIN).unwrap_err().to_string();
    let open = format!("redis://:secret@127.0.0.1:{}", server.port);
    assert!(message(&open).contains("no password for the default user"), "{}", message(&open));
    let database = server.url("").replace('?', "/99?");
    assert!(message(&database).contains("does not have the database"), "{}", message(&database));
    let held: Vec<_> = (0..5).map(|_| crate::common::redis::connect(server.port)).collect();
    sleep(Duration::from_millis(50));
    assert!(message(&server.url("")).contains("'maxclients'"), "{}", message(&server.url("")));
    drop(held);
}

/// Connections that an operator closes do not count as a server that is down.
#[test]
fn closed_connections_fail_no_idempotent_call() {
    let server = Server::start("");
    let store = Store::open(&server.url("deadline=10s")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let stop = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    thread::scope(|scope| {
        let _stop = Done(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.get(&sid, Access::Slide).unwrap();
                    store.put(&sid, b"hello", &PLAIN).unwrap();
                    calls.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..100 {
            let before = calls.load(Ordering::Relaxed);
            server.ask(&["CLIENT", "KILL", "USER", USER]).unwrap();
            let begun = Instant::now();
            while calls.load(Ordering::Relaxed) < before + 20 {
                assert!(begun.elapsed() < PATIENCE, "nothing works");
                sleep(Duration::from_millis(1));
            }
        }
    });
}
