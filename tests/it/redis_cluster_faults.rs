//! A Cluster of which one server is full or down: what is on the others goes on, a renewal that
//! fails leaves its session, and what ends sessions ends all that it can reach.

use crate::common::{
    PLAIN,
    cluster::Cluster,
    found, grace, kind, of,
    redis::{Server, USER},
};
use sss::{Access, ErrorKind, Options, Sid, Store};

const GONE: Option<ErrorKind> = Some(ErrorKind::NotFound);

/// The name of the key of a session.
fn key_name(store: &Store, sid: &Sid, prefix: &str) -> String {
    use std::fmt::Write;
    let reference = store.reference(sid).unwrap().0;
    // Base64url without padding, by hand: the tests need it here only.
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in reference.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            write!(text, "{digit}").unwrap();
        }
    }
    format!("{prefix}s:{{{text}}}")
}

fn set_on_all(cluster: &Cluster, name: &str, value: &str) {
    for server in &cluster.servers {
        assert_eq!(server.ask(&["CONFIG", "SET", name, value]).unwrap(), "+OK\r\n");
    }
}

/// Renews many sessions, of which some renewals fail with this error: the session is then under its
/// old id.
fn renew_all(store: &Store, sids: &[Sid], options: &Options, failure: &[ErrorKind]) -> usize {
    let mut failed = 0;
    for sid in sids {
        match store.renew(sid, Some(b"renewed"), options) {
            Ok((new, _)) => {
                assert_eq!(store.get(&new, Access::Peek).unwrap().0, b"renewed");
                let old = found(store.get(sid, Access::Peek)).map(|(payload, _)| payload);
                assert_eq!(old.is_some(), !options.grace.is_zero());
            }
            Err(error) => {
                assert!(failure.contains(&error.kind()), "{error}");
                assert_eq!(store.get(sid, Access::Slide).unwrap().0, b"hello", "after {error}");
                failed += 1;
            }
        }
    }
    failed
}

fn create_many(store: &Store, count: usize, options: &Options) -> Vec<Sid> {
    (0..count).map(|_| store.create(b"hello", options).unwrap().0).collect()
}

#[test]
fn renew_to_full_server_keeps_session() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=5s")).unwrap();
    for options in [PLAIN, grace(60_000), of(b"alice")] {
        let sids = create_many(&store, 60, &PLAIN);
        assert_eq!(cluster.servers[1].ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap(), "+OK\r\n");
        let failed = renew_all(&store, &sids, &options, &[ErrorKind::Full]);
        assert!(failed > 0 && failed < sids.len(), "{failed}");
        assert_eq!(cluster.servers[1].ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap(), "+OK\r\n");
    }
    store.revoke(b"alice", None).unwrap();
}

#[test]
fn renew_to_dead_server_keeps_session() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=2s")).unwrap();
    let sids = create_many(&store, 60, &PLAIN);
    let names: Vec<String> = sids.iter().map(|sid| key_name(&store, sid, "sss:")).collect();
    cluster.servers[1].kill();
    let reachable: Vec<Sid> = sids
        .into_iter()
        .zip(&names)
        .filter(|(_, name)| cluster.server_of(name).is_some())
        .map(|(sid, _)| sid)
        .collect();
    assert!(reachable.len() > 20);
    let failed = renew_all(&store, &reachable, &PLAIN, &[ErrorKind::Unavailable, ErrorKind::Timeout]);
    assert!(failed > 0 && failed < reachable.len(), "{failed} of {}", reachable.len());
}

#[test]
fn renew_without_replicas_keeps_session() {
    let cluster = Cluster::without_replicas();
    let writer = Store::open(&cluster.url("")).unwrap();
    let store = Store::open(&cluster.url("wait=1&deadline=600ms")).unwrap();
    for options in [PLAIN, grace(60_000)] {
        let sids = create_many(&writer, 4, &PLAIN);
        assert_eq!(renew_all(&store, &sids, &options, &[ErrorKind::Unavailable, ErrorKind::Timeout]), 4);
        for sid in &sids {
            writer.put(sid, b"still writable", &PLAIN).unwrap();
        }
    }
}

#[test]
fn revoke_needs_no_memory() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=5s")).unwrap();
    let sids = create_many(&store, 60, &of(b"alice"));
    set_on_all(&cluster, "maxmemory", "1");
    assert_eq!(kind(&store.create(b"x", &PLAIN)), Some(ErrorKind::Full));
    store.delete(&sids[1]).unwrap();
    assert_eq!(store.revoke(b"alice", Some(sids[0].as_ref())).unwrap(), 58);
    assert_eq!(sids.iter().filter(|sid| found(store.get(sid, Access::Slide)).is_some()).count(), 1);
    assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
    assert_eq!(kind(&store.get(&sids[0], Access::Slide)), GONE);
}

#[test]
fn revoke_ends_all_reachable_sessions() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=5s")).unwrap();
    let users: Vec<String> = (0..8).map(|user| format!("user {user}")).collect();
    let sessions: Vec<(&String, Vec<(Sid, String)>)> = users
        .iter()
        .map(|user| {
            let sids = create_many(&store, 30, &of(user.as_bytes()));
            let names: Vec<String> = sids.iter().map(|sid| key_name(&store, sid, "sss:")).collect();
            (user, sids.into_iter().zip(names).collect())
        })
        .collect();
    // The lists of some of the principals, and sessions of all.
    assert!(cluster.servers[2].ask(&["KEYS", "sss:p:*"]).unwrap().contains("sss:p:"));
    cluster.servers[2].kill();
    for (user, sessions) in &sessions {
        let error = store.revoke(user.as_bytes(), None).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
        assert!(error.to_string().contains("could be reached"), "{error}");
        for (sid, name) in sessions {
            if cluster.server_of(name).is_some() {
                assert_eq!(kind(&store.get(sid, Access::Peek)), GONE, "{error}");
            }
        }
    }
}

#[test]
fn principal_limit_does_not_fail_writes() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=5s&max_per_principal=3")).unwrap();
    let users: Vec<String> = (0..12).map(|user| format!("user {user}")).collect();
    let mut sids = Vec::new();
    let mut has_index_on_first = Vec::new();
    let indexes_on_first = || cluster.servers[0].ask(&["KEYS", "sss:p:*"]).unwrap().matches("sss:p:").count();
    for user in &users {
        let before = indexes_on_first();
        for _ in 0..3 {
            let (sid, _) = store.create(b"hello", &of(user.as_bytes())).unwrap();
            let name = key_name(&store, &sid, "sss:");
            sids.push((sid, name));
        }
        has_index_on_first.push(indexes_on_first() > before);
    }
    let dead = cluster.servers[0].port.to_string();
    cluster.servers[0].kill();
    for (user, has_no_index) in users.iter().zip(has_index_on_first) {
        let mut created = 0;
        // A session of its own is on the server that is down in a third of the cases.
        for _ in 0..30 {
            match store.create(b"hello", &of(user.as_bytes())) {
                Ok((sid, _)) => {
                    assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
                    created += 1;
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
                    assert!(error.to_string().contains(&dead), "{error}");
                }
            }
        }
        assert_eq!(created > 0, !has_no_index, "{user}: {created}");
    }
    // Of these some were ended by the limit.
    for (sid, name) in sids.iter().filter(|(_, name)| cluster.server_of(name).is_some()) {
        match kind(&store.renew(sid, None, &PLAIN)) {
            None | GONE => {}
            Some(ErrorKind::Unavailable | ErrorKind::Timeout) => {
                assert_eq!(store.get(sid, Access::Peek).unwrap().0, b"hello", "{name}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a slot is while a reshard is under way, or was left open: moving from its server to the
/// next one.
fn open_migration(cluster: &Cluster, name: &str) -> (usize, usize) {
    let from = cluster.server_of(name).unwrap();
    let to = (from + 1) % 3;
    let slot = cluster.servers[from].ask(&["CLUSTER", "KEYSLOT", name]).unwrap()[1..].trim().to_owned();
    let set = |at: usize, what: &str, other: usize| {
        let answer = cluster.servers[at].ask(&["CLUSTER", "SETSLOT", &slot, what, &cluster.id(other)]).unwrap();
        assert_eq!(answer, "+OK\r\n");
    };
    set(to, "IMPORTING", from);
    set(from, "MIGRATING", to);
    (from, to)
}

fn migrate(cluster: &Cluster, from: usize, to: usize, name: &str) {
    let port = cluster.servers[to].port.to_string();
    let answer = cluster.servers[from].ask(&["MIGRATE", "127.0.0.1", &port, name, "0", "5000"]).unwrap();
    assert_eq!(answer, "+OK\r\n");
}

/// What `revoke` locks is locked wherever the slot of the index is.
#[test]
fn moving_index_keeps_its_lock() {
    let cluster = Cluster::without_replicas();
    let patient = Store::open(&cluster.url("deadline=10s")).unwrap();
    let hasty = Store::open(&cluster.url("deadline=400ms")).unwrap();
    let (sid, _) = patient.create(b"hello", &of(b"alice")).unwrap();
    let all_names = cluster.servers.iter().map(|server| server.ask(&["KEYS", "sss:p:*"]).unwrap()).collect::<String>();
    let name = all_names.lines().find(|line| line.starts_with("sss:p:")).unwrap();
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let lock = |at: usize| {
        let end = format!("-{}", now() + 60_000);
        // The slot is being imported there.
        const LOCK: &str = "return redis.call('ZADD', KEYS[1], ARGV[1], '!another revocation')";
        assert_eq!(cluster.servers[at].ask(&["EVAL", LOCK, "1", name, &end]).unwrap(), ":1\r\n");
    };
    let (from, to) = open_migration(&cluster, name);
    lock(from);
    for is_migrated in [false, true] {
        if is_migrated {
            migrate(&cluster, from, to, name);
        }
        for write in [
            |store: &Store, _: &Sid| store.create(b"x", &of(b"alice")).map(drop),
            |store: &Store, sid: &Sid| store.renew(sid, None, &PLAIN).map(drop),
        ] {
            let error = write(&hasty, &sid).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        }
        assert_eq!(patient.list(b"alice").unwrap().len(), 1);
        assert_eq!(patient.get(&sid, Access::Peek).unwrap().0, b"hello");
    }
}

/// The last step of a renewal removes the old key: if that fails, the session is under its new id
/// only.
#[test]
fn renew_survives_failure_of_last_step() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("timeout=infinity&idle_timeout=infinity&deadline=5s")).unwrap();
    let permit = |permission: &str| {
        for server in &cluster.servers {
            assert_eq!(server.ask(&["ACL", "SETUSER", USER, permission]).unwrap(), "+OK\r\n");
        }
    };
    let (old, _) = store.create(b"hello", &of(b"alice")).unwrap();
    permit("-del");
    let (new, _) = store.renew(&old, Some(b"renewed"), &PLAIN).unwrap();
    let keys = || -> usize {
        let count = |server: &Server| server.ask(&["KEYS", "sss:s:*"]).unwrap().matches("sss:s:").count();
        cluster.servers.iter().map(count).sum()
    };
    assert_eq!(keys(), 2, "the last step did not fail");
    for _ in 0..2 {
        assert_eq!(kind(&store.get(&old, Access::Slide)), GONE);
        assert_eq!(kind(&store.put(&old, b"x", &PLAIN)), GONE);
        assert_eq!(kind(&store.renew(&old, None, &PLAIN)), GONE);
        assert_eq!(kind(&store.delete(&old)), GONE);
        assert_eq!(store.get(&new, Access::Slide).unwrap().0, b"renewed");
        assert_eq!(store.list(b"alice").unwrap().len(), 1);
        // The next one that reads the old id does the step.
        permit("+del");
    }
    assert_eq!(keys(), 1);
    assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
}

#[test]
fn open_migration_hides_no_session() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url("deadline=2s")).unwrap();
    for is_migrated in [false, true] {
        let (old, _) = store.create(b"hello", &of(b"alice")).unwrap();
        let old_name = key_name(&store, &old, "sss:");
        let (new, _) = store.renew(&old, None, &grace(60_000)).unwrap();
        let (other, _) = store.create(b"hello", &of(b"alice")).unwrap();
        let other_name = key_name(&store, &other, "sss:");
        for name in [&old_name, &other_name] {
            let (from, to) = open_migration(&cluster, name);
            if is_migrated {
                // A server that has never seen a script.
                assert_eq!(cluster.servers[to].ask(&["SCRIPT", "FLUSH"]).unwrap(), "+OK\r\n");
                migrate(&cluster, from, to, name);
            }
        }
        for _ in 0..3 {
            assert_eq!(store.get(&old, Access::Slide).unwrap().0, b"hello", "the old id in its grace time");
            assert_eq!(store.get(&new, Access::Slide).unwrap().0, b"hello");
            assert_eq!(store.get(&other, Access::Slide).unwrap().0, b"hello");
            assert_eq!(store.get(&other, Access::Peek).unwrap().0, b"hello");
        }
        store.put(&other, b"more", &PLAIN).unwrap();
        let (renewed, _) = store.renew(&other, None, &grace(60_000)).unwrap();
        assert_eq!(store.get(&other, Access::Peek).unwrap().0, b"more");
        assert_eq!(kind(&store.put(&other, b"x", &PLAIN)), GONE);
        assert_eq!(store.list(b"alice").unwrap().len(), 2);
        store.delete(&renewed).unwrap();
        assert_eq!(kind(&store.get(&other, Access::Peek)), GONE);
        assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
        assert_eq!(kind(&store.get(&old, Access::Slide)), GONE);
    }
}
