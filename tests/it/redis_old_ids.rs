//! The old ids of renewed sessions in their grace time: few, however often a session is renewed,
//! and gone with it, whatever ends it.

use std::time::Duration;

use crate::common::{PLAIN, cluster::Cluster, kind, of, redis::Server};
use sss::{Access, ErrorKind, Options, Sid, Store};

const GONE: Option<ErrorKind> = Some(ErrorKind::NotFound);
const MAX_OLD_IDS: usize = 64;
/// Nothing here ends by itself.
const IMMORTAL: &str = "timeout=infinity&idle_timeout=infinity&deadline=10s";

fn endless() -> Options<'static> {
    PLAIN.grace(Duration::MAX)
}

/// Renews a session so often, and returns its ids, the present one last.
fn renew_often(store: &Store, first: Sid, times: usize) -> Vec<Sid> {
    let mut sids = vec![first];
    for _ in 0..times {
        let (sid, _) = store.renew(sids.last().unwrap(), None, &endless()).unwrap();
        sids.push(sid);
    }
    sids
}

/// How many keys are stored. A mark of one byte, which keeps a revoked session from being stored
/// and ends within seconds, is none of them.
fn keys_in(servers: &[Server]) -> usize {
    const COUNT: &str = "local n = 0
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if redis.call('TYPE', key).ok ~= 'string' or redis.call('STRLEN', key) > 1 then n = n + 1 end
        end
        return n";
    let count = |server: &Server| -> usize { server.ask(&["EVAL", COUNT, "0"]).unwrap()[1..].trim().parse().unwrap() };
    servers.iter().map(count).sum()
}

/// What ends a session, by name.
type End = (&'static str, fn(&Store, &Sid));
const ENDS: [End; 7] = [
    ("delete", |store, sid| store.delete(sid).unwrap()),
    ("revoke", |store, _| assert_eq!(store.revoke(b"alice", None).unwrap(), 1)),
    ("displaced by a create", |store, _| drop(store.create(b"x", &of(b"alice")).unwrap())),
    ("displaced by a put", |store, _| {
        let (other, _) = store.create(b"x", &PLAIN).unwrap();
        store.put(&other, b"x", &of(b"alice")).unwrap();
    }),
    ("displaced by a renew", |store, _| {
        let (other, _) = store.create(b"x", &PLAIN).unwrap();
        store.renew(&other, None, &of(b"alice")).unwrap();
    }),
    ("renewed without a grace time", |store, sid| drop(store.renew(sid, None, &PLAIN).unwrap())),
    ("renewed and revoked", |store, sid| {
        store.renew(sid, None, &endless()).unwrap();
        assert_eq!(store.revoke(b"alice", None).unwrap(), 1);
    }),
];

fn check_old_ids(servers: &[Server], store: &Store) {
    let (first, _) = store.create(b"hello", &PLAIN).unwrap();
    let sids = renew_often(store, first, 200);
    assert_eq!(keys_in(servers), 1 + MAX_OLD_IDS);
    for (age, sid) in sids.iter().rev().enumerate().take(100) {
        let read = store.get(sid, Access::Peek);
        assert_eq!(kind(&read), if age <= MAX_OLD_IDS { None } else { GONE }, "{age}");
    }
    let last = sids.last().unwrap();
    store.put(last, b"changed", &PLAIN).unwrap();
    store.touch(last).unwrap();
    assert_eq!(store.get(&sids[sids.len() - 2], Access::Slide).unwrap().0, b"changed");
    assert_eq!(store.get(last, Access::Slide).unwrap().0, b"changed");
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.bytes), (1, b"changed".len() as u64));
    store.delete(last).unwrap();
    assert_eq!(keys_in(servers), 0);

    for (name, end) in ENDS {
        let (first, _) = store.create(b"hello", &of(b"alice")).unwrap();
        let sids = renew_often(store, first, 5);
        assert_eq!(store.list(b"alice").unwrap()[0].payload_len, 5);
        end(store, sids.last().unwrap());
        for sid in &sids {
            assert_eq!(kind(&store.get(sid, Access::Peek)), GONE, "{name}");
        }
        store.revoke(b"alice", None).unwrap();
        let left = store.stats().unwrap().sessions as usize;
        assert_eq!(keys_in(servers), left, "{name}");
        for server in servers {
            server.ask(&["FLUSHALL"]).unwrap();
        }
    }
}

#[test]
fn old_ids_are_few_and_end_with_session() {
    let server = Server::start("");
    let store = Store::open(&server.url(&format!("{IMMORTAL}&max_per_principal=1"))).unwrap();
    check_old_ids(&[server], &store);
}

#[test]
fn old_ids_are_few_and_end_with_session_of_cluster() {
    let cluster = Cluster::without_replicas();
    let store = Store::open(&cluster.url(&format!("{IMMORTAL}&max_per_principal=1"))).unwrap();
    check_old_ids(&cluster.servers, &store);
}

/// For how many seconds each key is kept; -1 for ever.
fn ttls(server: &Server) -> Vec<i64> {
    let keys = server.ask(&["KEYS", "sss:s:*"]).unwrap();
    let ttl = |key| server.ask(&["TTL", key]).unwrap()[1..].trim().parse().unwrap();
    keys.lines().filter(|line| line.starts_with("sss:")).map(ttl).collect()
}

/// A session that Redis removes takes no old ids with it: those end by themselves.
#[test]
fn endless_grace_ends_after_a_day() {
    let server = Server::start("");
    let store = Store::open(&server.url("timeout=infinity")).unwrap();
    let (first, _) = store.create(b"hello", &PLAIN).unwrap();
    let (_, _) = store.renew(&first, None, &endless()).unwrap();
    assert!(ttls(&server).iter().all(|left| (1..=86_400).contains(left)), "{:?}", ttls(&server));
}

/// One that ends by itself has all of its time.
#[test]
fn long_grace_is_kept() {
    let server = Server::start("");
    let store = Store::open(&server.url(IMMORTAL)).unwrap();
    let (first, _) = store.create(b"hello", &PLAIN).unwrap();
    store.renew(&first, None, &PLAIN.grace(Duration::from_secs(7 * 86_400))).unwrap();
    let ends = ttls(&server).into_iter().max().unwrap();
    assert!((6 * 86_400..=7 * 86_400).contains(&ends), "{ends}");
}

/// What ends a session needs no memory, nor do its old ids.
#[test]
fn old_ids_end_on_full_server() {
    let server = Server::start("");
    let store = Store::open(&server.url(IMMORTAL)).unwrap();
    let (first, _) = store.create(b"hello", &of(b"alice")).unwrap();
    let sids = renew_often(&store, first, 5);
    let (first, _) = store.create(b"hello", &of(b"bob")).unwrap();
    renew_often(&store, first, 5);
    assert_eq!(server.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap(), "+OK\r\n");
    store.delete(&sids[5]).unwrap();
    assert_eq!(store.revoke(b"bob", None).unwrap(), 1);
    assert_eq!(keys_in(std::slice::from_ref(&server)), 0);
}
