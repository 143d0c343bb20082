//! `redis+sentinel://`: the master is the one that the Sentinels name, also after it was killed and
//! another one has taken over.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::common::{
    PLAIN, from_env, grace, kind, of,
    redis::Server,
    sentinel::{sentinels, url},
    timed::{LATE_UNDER_LOAD, timed},
};
use sss::{Access, ErrorKind, Store};

/// Nothing that is waited for here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a server's answer has this in it. A Sentinel ends all connections to a server whose role
/// it changes, so that not every question is answered.
fn says(server: &Server, question: &[&str], what: &str) -> bool {
    server.ask(question).is_some_and(|answer| answer.contains(what))
}

#[test]
fn failover_leads_to_new_master() {
    let config = "appendonly yes\nrepl-diskless-sync-delay 0";
    let mut servers = vec![Server::start(config)];
    servers.push(Server::start(&format!("{config}\nreplicaof 127.0.0.1 {}", servers[0].port)));
    let mut sentinels = sentinels(servers[0].port);
    let store = Store::open(&url(&sentinels, "deadline=500ms")).unwrap();
    for round in 0..from_env("SSS_FAILOVERS", 2) {
        let begun = Instant::now();
        let master = loop {
            match (0..2).find(|&i| says(&servers[i], &["ROLE"], "master\r\n")) {
                Some(master) => break master,
                None => assert!(begun.elapsed() < PATIENCE, "none is the master"),
            }
        };
        let waiting = Store::open(&url(&sentinels, "wait=1&deadline=2s")).unwrap();
        // Acknowledged by the replica that is about to be the master.
        let sid = loop {
            match waiting.create(b"hello", &PLAIN) {
                Ok((sid, _)) => break sid,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
        };
        assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello");
        servers[master].kill();
        if round == 0 {
            // The first one in the URL is not needed.
            sentinels.remove(0);
        }
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        loop {
            let (result, took) = timed(|| store.get(&sid, Access::Slide));
            slowest = slowest.max(took);
            match kind(&result) {
                None => break,
                Some(ErrorKind::Unavailable | ErrorKind::Timeout) => sleep(Duration::from_millis(2)),
                other => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < PATIENCE, "{result:?}");
        }
        println!("round {round}: found again after {:?}, no call took longer than {slowest:?}", begun.elapsed());
        assert!(slowest < Duration::from_millis(500) + LATE_UNDER_LOAD, "{slowest:?}");
        store.put(&sid, b"written", &PLAIN).unwrap();
        // As an operator would, and not wait for the Sentinels to see to it.
        let next = servers[1 - master].port;
        servers[master].revive(&format!("{config}\nreplicaof 127.0.0.1 {next}"));
        // On a busy machine the Sentinels may take the new master for dead and have the two change
        // places once more.
        let begun = Instant::now();
        while !(0..2).any(|i| says(&servers[i], &["INFO", "replication"], "master_link_status:up")) {
            assert!(begun.elapsed() < PATIENCE, "none becomes a replica");
            sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn unknown_master_is_unavailable() {
    let sentinel = Server::sentinel("");
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:1/nobody?deadline=500ms", sentinel.port);
    let error = Store::open(&url).unwrap().create(b"x", &PLAIN).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let message = error.to_string();
    assert!(message.contains(":1 cannot be reached") && message.contains("knows no master 'nobody'"), "{message}");
}

/// They have users and passwords of their own, and the master has others.
#[test]
fn sentinel_credentials_go_to_sentinels_only() {
    let master = Server::start("");
    let watch = format!("sentinel monitor sessions 127.0.0.1 {} 1", master.port);
    let user = "user watcher on >one/two -@all +sentinel|get-master-addr-by-name";
    let sentinels = [Server::sentinel(&format!("{watch}\nrequirepass guarded\n{user}"))];
    let of_master = url(&sentinels, "deadline=2s");
    let create = |options: &str| Store::open(&format!("{of_master}{options}")).unwrap().create(b"x", &PLAIN);
    create("&sentinel_password=guarded").unwrap();
    create("&sentinel_user=watcher&sentinel_password=one%2Ftwo").unwrap();

    for (options, told) in [
        ("", "without sentinel_password="),
        ("&sentinel_password=hunter3", "refuses the user or the password"),
        ("&sentinel_user=hunter3&sentinel_password=one/two", "refuses the user or the password"),
    ] {
        let error = create(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let message = error.to_string();
        assert!(message.contains(told) && message.contains("'sessions'"), "{message}");
        assert!(!["guarded", "hunter", "one/two"].iter().any(|secret| message.contains(secret)), "{message}");
    }
}

/// A master that comes back takes itself for the master for some seconds, until a Sentinel
/// reconfigures it.
#[test]
fn returned_master_is_not_used() {
    let config = "appendonly yes\nrepl-diskless-sync-delay 0";
    let mut old = Server::start(config);
    let new = Server::start(&format!("{config}\nreplicaof 127.0.0.1 {}", old.port));
    let sentinels = sentinels(old.port);
    let idle = Store::open(&url(&sentinels, "deadline=2s")).unwrap();
    let waiting = Store::open(&url(&sentinels, "wait=1&deadline=5s")).unwrap();
    let begun = Instant::now();
    let sid = loop {
        match waiting.create(b"hello", &PLAIN) {
            Ok((sid, _)) => break sid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    idle.get(&sid, Access::Peek).unwrap();
    old.kill();
    let port = new.port.to_string();
    let knows = |sentinel: &Server| says(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "sessions"], &port);
    while !sentinels.iter().all(knows) || !says(&new, &["ROLE"], "master\r\n") {
        assert!(begun.elapsed() < PATIENCE, "the replica does not take over");
        sleep(Duration::from_millis(10));
    }
    let fresh = Store::open(&url(&sentinels, "deadline=5s")).unwrap();
    fresh.delete(&sid).unwrap();
    old.revive(config);
    // It says that it is the master, and it has the session.
    let mut was_master = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        was_master += u64::from(says(&old, &["ROLE"], "master\r\n"));
        match kind(&idle.get(&sid, Access::Peek)) {
            Some(ErrorKind::NotFound | ErrorKind::Unavailable | ErrorKind::Timeout) => {}
            other => panic!("{other:?}: the deleted session is read from the old master"),
        }
    }
    assert!(was_master > 0, "the old master was never taken for one");
    assert_eq!(kind(&idle.get(&sid, Access::Peek)), Some(ErrorKind::NotFound));
}

/// Connections to a master that was stopped stay open, and it takes itself for the master when it
/// goes on.
#[test]
fn stopped_master_is_not_used_afterwards() {
    let config = "repl-diskless-sync-delay 0";
    let old = Server::start(config);
    let new = Server::start(&format!("{config}\nreplicaof 127.0.0.1 {}", old.port));
    let sentinels = sentinels(old.port);
    let idle = Store::open(&url(&sentinels, "deadline=2s")).unwrap();
    let waiting = Store::open(&url(&sentinels, "wait=1&deadline=5s")).unwrap();
    let begun = Instant::now();
    let sid = loop {
        match waiting.create(b"hello", &PLAIN) {
            Ok((sid, _)) => break sid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    idle.get(&sid, Access::Peek).unwrap();
    // Asked for while the server answers.
    let pid = old.pid().to_string();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    let port = new.port.to_string();
    let knows = |sentinel: &Server| says(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "sessions"], &port);
    while !sentinels.iter().all(knows) || !says(&new, &["ROLE"], "master\r\n") {
        assert!(begun.elapsed() < PATIENCE, "the replica does not take over");
        sleep(Duration::from_millis(10));
    }
    Store::open(&url(&sentinels, "deadline=5s")).unwrap().delete(&sid).unwrap();
    signal("-CONT");
    assert!(says(&old, &["ROLE"], "master\r\n"), "the old master is not taken for one");
    assert_eq!(kind(&idle.get(&sid, Access::Peek)), Some(ErrorKind::NotFound));
    let (sid, _) = idle.create(b"kept", &PLAIN).unwrap();
    let fresh = Store::open(&url(&sentinels, "deadline=5s")).unwrap();
    assert_eq!(fresh.get(&sid, Access::Peek).unwrap().0, b"kept");
}

/// A renewal that the replica does not acknowledge leaves the session under its old id.
#[test]
fn renew_needs_acknowledgement_of_replica() {
    let master = Server::start("repl-diskless-sync-delay 0");
    let replica = Server::start(&format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}", master.port));
    let sentinels = sentinels(master.port);
    let store = Store::open(&url(&sentinels, "wait=1&deadline=1s")).unwrap();
    let begun = Instant::now();
    let sid = loop {
        match store.create(b"hello", &of(b"alice")) {
            Ok((sid, _)) => break sid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    let (sid, _) = store.renew(&sid, Some(b"renewed"), &PLAIN).unwrap();
    let pid = replica.pid().to_string();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    for options in [PLAIN, grace(60_000)] {
        let failed = store.renew(&sid, Some(b"lost"), &options);
        assert!(matches!(kind(&failed), Some(ErrorKind::Unavailable | ErrorKind::Timeout)), "{failed:?}");
        assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"renewed");
    }
    signal("-CONT");
    assert_eq!(store.list(b"alice").unwrap().len(), 1);
    let begun = Instant::now();
    let sid = loop {
        match store.renew(&sid, None, &PLAIN) {
            Ok((sid, _)) => break sid,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"renewed");
}

/// Sentinels are not needed for a connection that is open.
#[test]
fn open_connection_survives_lost_sentinels() {
    let master = Server::start("repl-diskless-sync-delay 0");
    let _replica = Server::start(&format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}", master.port));
    let sentinels = sentinels(master.port);
    let store = Store::open(&url(&sentinels, "deadline=5s")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    drop(sentinels);
    for _ in 0..3 {
        // Longer than the Sentinels' answer is taken for true.
        sleep(Duration::from_millis(1100));
        store.put(&sid, b"world", &PLAIN).unwrap();
        assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"world");
    }
}
