//! What a Cluster's failovers and moves do to a store in it: servers are killed, take over and give
//! slots away under load. Each test has a Cluster of its own, and they run one by one, because they
//! measure times.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use crate::common::{
    Done, PLAIN,
    cluster::{Cluster, shared},
    from_env, grace, kind, of,
    timed::{LATE_UNDER_LOAD, timed},
};
use sss::{Access, ErrorKind, Sid, Store};

/// Two of them on two cores would measure each other.
static ALONE: Mutex<()> = Mutex::new(());
const DEADLINE: Duration = Duration::from_millis(500);
/// What has been acknowledged before is not lost.
const LAST_MOMENTS: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened to calls while something was done to the Cluster.
struct Report {
    failed: u64,
    /// How long nothing worked for the one whose calls failed longest.
    longest: Duration,
}

/// Sessions that several threads read and write without a pause while `happens`: none is ever not
/// found, no answer is another session's, none comes too late, and a write that was acknowledged is
/// there.
fn under_load(store: &Store, deadline: Duration, happens: impl FnOnce(&AtomicU64)) -> Report {
    let (stop, worked, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let longest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        let _stop = Done(&stop);
        for number in 0..12 {
            let (stop, worked, failed, longest) = (&stop, &worked, &failed, &longest);
            scope.spawn(move || {
                let name = format!("session {number}").into_bytes();
                let begun = Instant::now();
                // A replica may be late just after a failover.
                let (sid, meta) = loop {
                    match store.create(&name, &PLAIN) {
                        Ok(created) => break created,
                        Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
                    }
                };
                let (mut version, mut is_unsure, mut since) = (meta.version(), false, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    let (result, took) = timed(|| store.get(&sid, Access::Slide));
                    assert!(took < deadline + LATE_UNDER_LOAD, "{took:?}");
                    let result = result.and_then(|(payload, meta)| {
                        assert_eq!(payload, name);
                        assert!(
                            meta.version() >= version,
                            "version {version} was acknowledged, not {}",
                            meta.version()
                        );
                        assert!(meta.version() <= version + u64::from(is_unsure), "a write was done twice");
                        (version, is_unsure) = (meta.version(), true);
                        let (put, took) = timed(|| store.put_if(&sid, version, &name, &PLAIN));
                        assert!(took < deadline + LATE_UNDER_LOAD, "{took:?}");
                        version = put?.version();
                        is_unsure = false;
                        Ok(())
                    });
                    match kind(&result) {
                        None => {
                            worked.fetch_add(1, Ordering::Relaxed);
                            let mut longest = longest.lock().unwrap();
                            *longest = longest.max(since.elapsed());
                            since = Instant::now();
                        }
                        Some(ErrorKind::Unavailable | ErrorKind::Timeout) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            sleep(Duration::from_millis(1));
                        }
                        other => panic!("{other:?}: {result:?}"),
                    }
                }
            });
        }
        let more = |n: u64| {
            let (before, begun) = (worked.load(Ordering::Relaxed), Instant::now());
            while worked.load(Ordering::Relaxed) < before + n {
                assert!(begun.elapsed() < PATIENCE, "nothing works");
                sleep(Duration::from_millis(5));
            }
        };
        more(200);
        happens(&worked);
        more(200);
    });
    Report { failed: failed.into_inner(), longest: longest.into_inner().unwrap() }
}

#[test]
fn failover_keeps_replicated_writes() {
    let _alone = ALONE.lock();
    let mut cluster = Cluster::start();
    let store = Store::open(&cluster.url("wait=1&deadline=500ms")).unwrap();
    for round in 0..from_env("SSS_FAILOVERS", 2) {
        let victim = (0..6).find(|&i| cluster.is_master(i)).unwrap();
        let report = under_load(&store, DEADLINE, |_| {
            cluster.servers[victim].kill();
            let begun = Instant::now();
            let masters = |cluster: &Cluster| (0..6).filter(|&i| i != victim && cluster.is_master(i)).count();
            while masters(&cluster) < 3 {
                assert!(begun.elapsed() < PATIENCE, "no replica takes over");
                sleep(Duration::from_millis(20));
            }
            // The new master has no replica, and nothing can be acknowledged, until the old one is
            // back as its replica.
            cluster.revive(victim);
            cluster.wait_until_whole();
        });
        println!("round {round}: {} calls failed, for {:?} at the longest", report.failed, report.longest);
        assert!(report.failed > 0, "no call noticed");
    }
}

/// Without `wait=`: how much, is for docs/redis.md; that it is only of the last moment, for the
/// test.
#[test]
fn failover_loses_only_recent_writes() {
    let _alone = ALONE.lock();
    let mut cluster = Cluster::start();
    let store = Store::open(&cluster.url("deadline=500ms")).unwrap();
    for round in 0..from_env("SSS_FAILOVERS", 2) {
        let victim = (0..6).find(|&i| cluster.is_master(i)).unwrap();
        let created = Mutex::new(Vec::new());
        let stop = AtomicBool::new(false);
        let killed = thread::scope(|scope| {
            let _stop = Done(&stop);
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok((sid, _)) = store.create(b"hello", &PLAIN) {
                            created.lock().unwrap().push((sid, Instant::now()));
                        }
                    }
                });
            }
            sleep(Duration::from_millis(500));
            cluster.servers[victim].kill();
            let killed = Instant::now();
            sleep(Duration::from_millis(100));
            killed
        });
        let begun = Instant::now();
        while (0..6).filter(|&i| i != victim && cluster.is_master(i)).count() < 3 {
            assert!(begun.elapsed() < PATIENCE, "no replica takes over");
            sleep(Duration::from_millis(20));
        }
        let created = created.into_inner().unwrap();
        let (mut lost, mut oldest) = (0, Duration::ZERO);
        for (sid, at) in &created {
            let found = loop {
                match kind(&store.get(sid, Access::Peek)) {
                    None => break true,
                    Some(ErrorKind::NotFound) => break false,
                    _ => assert!(begun.elapsed() < PATIENCE, "it is not found again"),
                }
            };
            if !found {
                lost += 1;
                oldest = oldest.max(killed.saturating_duration_since(*at));
            }
        }
        println!("round {round}: {lost} of {} sessions lost, of the last {oldest:?}", created.len());
        assert!(
            oldest < LAST_MOMENTS && lost < created.len() / 4,
            "{lost} of {}, of the last {oldest:?}",
            created.len()
        );
        cluster.revive(victim);
        cluster.wait_until_whole();
    }
}

#[test]
fn planned_failover_loses_nothing() {
    let _alone = ALONE.lock();
    let cluster = Cluster::start();
    let store = Store::open(&cluster.url("deadline=500ms")).unwrap();
    for round in 0..from_env("SSS_FAILOVERS", 3) {
        let replica = (0..6).find(|&i| !cluster.is_master(i)).unwrap();
        let report = under_load(&store, DEADLINE, |_| {
            let begun = Instant::now();
            while !cluster.is_master(replica) {
                assert!(begun.elapsed() < PATIENCE, "it does not take over");
                // The servers give it up after five seconds, if the machine is too busy for it.
                let asked = Instant::now();
                assert!(cluster.servers[replica].ask(&["CLUSTER", "FAILOVER"]).unwrap().starts_with(['+', '-']));
                while !cluster.is_master(replica) && asked.elapsed() < Duration::from_secs(6) {
                    sleep(Duration::from_millis(10));
                }
            }
        });
        println!("round {round}: {} calls failed, for {:?} at the longest", report.failed, report.longest);
        cluster.wait_until_whole();
    }
}

#[test]
fn slot_migration_keeps_sessions() {
    let _alone = ALONE.lock();
    let cluster = Cluster::start();
    // A replica that takes over on a busy machine would lose what its master has acknowledged: not
    // what this is about.
    for server in &cluster.servers {
        assert_eq!(server.ask(&["CONFIG", "SET", "cluster-node-timeout", "30000"]).unwrap(), "+OK\r\n");
    }
    // No call has to wait for long, but a busy machine may delay all of them.
    let store = Store::open(&cluster.url("deadline=5s")).unwrap();
    let masters: Vec<usize> = (0..6).filter(|&i| cluster.is_master(i)).collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let migration = AssertUnwindSafe(|| {
            under_load(&store, 10 * DEADLINE, |_| {
                let (from, to) = (cluster.id(masters[from]), cluster.id(masters[to]));
                let address = format!("127.0.0.1:{}", cluster.servers[0].port);
                let moved = Command::new("redis-cli")
                    .args(["--cluster", "reshard", &address, "--cluster-from", &from, "--cluster-to", &to])
                    .args(["--cluster-slots", "500", "--cluster-yes", "--cluster-pipeline", "1"])
                    .stdout(Stdio::null())
                    .status()
                    .unwrap();
                assert!(moved.success());
            })
        });
        match catch_unwind(migration) {
            Ok(report) => assert_eq!(report.failed, 0, "for {:?} at the longest", report.longest),
            // A replica took over all the same: what was lost was not lost by moving slots.
            Err(_) if cluster.failovers() > 0 => return,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// The excepted session is spared under whichever id it has by then.
#[test]
fn revoke_spares_exception_in_transit() {
    let store = Store::open(&shared().url("deadline=10s&prefix=exception:")).unwrap();
    for round in 0..from_env("SSS_REVOKE_ROUNDS", 150) {
        let (mine, _) = store.create(b"mine", &of(b"alice")).unwrap();
        let (other, _) = store.create(b"other", &of(b"alice")).unwrap();
        let (revoked, new) = thread::scope(|scope| {
            let revoke = scope.spawn(|| {
                sleep(Duration::from_micros(round * 13 % 2000));
                store.revoke(b"alice", Some(mine.as_ref())).unwrap()
            });
            let (new, _) = store.renew(&mine, None, &grace(60_000)).unwrap();
            (revoke.join().unwrap(), new)
        });
        assert_eq!(store.get(&new, Access::Peek).unwrap().0, b"mine", "round {round}");
        assert_eq!(kind(&store.get(&other, Access::Peek)), Some(ErrorKind::NotFound), "round {round}");
        assert_eq!(revoked, 1, "round {round}");
        assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
    }
}

/// A session that is renewed all the time is in each list, once or under both keys.
#[test]
fn list_misses_no_session_in_transit() {
    const SESSIONS: usize = 6;
    let store = Store::open(&shared().url("deadline=10s&prefix=list:")).unwrap();
    let create = |i: usize| store.create(&vec![b'x'; i], &of(b"alice")).unwrap().0;
    let mut sids: Vec<Sid> = (0..SESSIONS).map(create).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sids.iter_mut().for_each(|sid| *sid = store.renew(&*sid, None, &PLAIN).unwrap().0);
            }
        });
        let _done = Done(&stop);
        for round in 0..from_env("SSS_LIST_ROUNDS", 300) {
            let lens: Vec<u64> = store.list(b"alice").unwrap().iter().map(|entry| entry.payload_len).collect();
            assert!((0..SESSIONS as u64).all(|len| lens.contains(&len)), "round {round}: {lens:?}");
        }
    });
}

#[test]
fn any_live_node_leads_to_cluster() {
    let _alone = ALONE.lock();
    let cluster = Cluster::start();
    let url = cluster.url("deadline=2s");
    // A replica that is in the URL, and nothing else.
    let only = url.replace(&format!("127.0.0.1:{},", cluster.servers[0].port), "");
    let dead = url.replace(&format!("127.0.0.1:{},", cluster.servers[0].port), "127.0.0.1:1,");
    for url in [&only, &dead] {
        let store = Store::open(url).unwrap();
        for _ in 0..50 {
            let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
            assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello");
        }
        assert_eq!(store.list(b"alice").unwrap().len(), 50);
        assert_eq!(store.revoke(b"alice", None).unwrap(), 50);
        assert_eq!(store.stats().unwrap().sessions, 0);
    }
}

/// A session that is about to be stored when its principal is revoked does not appear afterwards.
#[test]
fn revoke_ends_sessions_in_transit() {
    let _alone = ALONE.lock();
    let cluster = Cluster::start();
    let store = Store::open(&cluster.url("deadline=5s")).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Done(&stop);
        let attackers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut sid, _) = store.create(b"x", &of(b"alice")).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        match store.renew(&sid, None, &PLAIN) {
                            Ok((new, _)) => sid = new,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::NotFound);
                                return;
                            }
                        }
                    }
                    panic!("it was renewed through all revocations");
                })
            })
            .collect();
        sleep(Duration::from_millis(50));
        let begun = Instant::now();
        while !attackers.iter().all(|attacker| attacker.is_finished()) {
            store.revoke(b"alice", None).unwrap();
            assert!(begun.elapsed() < PATIENCE);
        }
    });
    assert!(store.list(b"alice").unwrap().is_empty());
    assert_eq!(store.stats().unwrap().sessions, 0);
}
