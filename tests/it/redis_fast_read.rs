//! A get of `redis:` without a script (src/engine/redis/fast_read.rs), which a store whose clock a
//! test moves never makes: when a session dies by the server's own clock, to the millisecond, and
//! what everybody else sees of a use that only its key's expiry tells.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread::{self, sleep},
    time::Duration,
};

use crate::common::{
    FOREVER, OptionsMs, PLAIN, Rng, ToPlain, from_env, kind, of,
    proxy::Proxy,
    redis::{self, Server, USER},
};
use sss::{Access, Error, ErrorKind, Meta, Options, Sid, Store};

/// What the server's clock says, in milliseconds.
struct Clock(TcpStream);

impl Clock {
    fn of(server: &Server) -> Clock {
        let stream = redis::connect(server.port);
        stream.set_nodelay(true).unwrap();
        Clock(stream)
    }

    fn now(&mut self) -> i64 {
        self.0.write_all(b"*1\r\n$4\r\nTIME\r\n").unwrap();
        let mut answer = Vec::new();
        while answer.iter().filter(|&&byte| byte == b'\n').count() < 5 {
            let mut more = [0; 64];
            let read = self.0.read(&mut more).unwrap();
            assert!(read > 0, "the server is gone");
            answer.extend_from_slice(&more[..read]);
        }
        let text = String::from_utf8(answer).unwrap();
        let numbers: Vec<i64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        numbers[0] * 1000 + numbers[1] / 1000
    }

    fn wait_until(&mut self, ms: i64) {
        while self.now() < ms {
            sleep(Duration::from_micros(100));
        }
    }
}

/// How often a command was called, also by scripts.
fn calls(server: &Server, command: &str) -> u64 {
    let stats = server.ask(&["INFO", "commandstats"]).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

fn scripts(server: &Server) -> u64 {
    calls(server, "evalsha") + calls(server, "eval")
}

fn ask(server: &Server, command: &[&str]) -> String {
    server.ask(command).unwrap()
}

fn idle(ms: i64) -> Options<'static> {
    PLAIN.idle_timeout_ms(ms)
}

const GONE: Option<ErrorKind> = Some(ErrorKind::NotFound);

#[test]
fn get_needs_no_script() {
    let server = Server::start("");
    let (store, mut clock) = (Store::open(&server.url("")).unwrap(), Clock::of(&server));
    let (sid, created) = store.create(b"hello", &of(b"alice")).unwrap();
    let before = scripts(&server);
    for _ in 0..5 {
        sleep(Duration::from_millis(3));
        let earliest = clock.now();
        let (payload, meta) = store.get(&sid, Access::Slide).unwrap();
        assert!((earliest..=clock.now()).contains(&meta.plain().last_seen_ms), "{meta:?}");
        assert_eq!(payload, b"hello");
        assert_eq!((meta.version(), meta.plain().created_ms), (1, created.plain().created_ms));
        assert_eq!(meta.plain().expires_ms, meta.plain().last_seen_ms + 600_000);
        assert_eq!(scripts(&server), before);
    }
    let (_, used) = store.get(&sid, Access::Slide).unwrap();
    let slides = calls(&server, "pexpire");
    assert_eq!(slides, 6);
    sleep(Duration::from_millis(3));
    assert_eq!(store.get(&sid, Access::Peek).unwrap().1, used);
    assert_eq!(store.list(b"alice").unwrap()[0].meta, used);
    assert_eq!(store.get(&sid, Access::Peek).unwrap().1, used);
    assert_eq!(calls(&server, "pexpire"), slides);
}

/// Found and not found by turns of the millisecond in which the session ends, for every client.
#[test]
fn session_ends_at_exact_deadline() {
    let server = Server::start("");
    let mut clock = Clock::of(&server);
    for access in [Access::Slide, Access::Peek] {
        for (n, options) in ["timeout=1h&idle_timeout=40ms", "timeout=60ms&idle_timeout=50ms"].iter().enumerate() {
            let store = Store::open(&server.url(options)).unwrap();
            for _ in 0..from_env("SSS_REDIS_ENDS", 20) {
                let (sid, created) = store.create(b"x", &PLAIN).unwrap();
                sleep(Duration::from_millis(20));
                let Ok((_, meta)) = store.get(&sid, Access::Slide) else { continue };
                let ends = if n == 0 { meta.plain().last_seen_ms + 40 } else { created.plain().created_ms + 60 };
                assert_eq!(meta.plain().expires_ms, ends);
                loop {
                    let earliest = clock.now();
                    let found = store.get(&sid, Access::Peek);
                    assert!(found.is_ok() || clock.now() >= ends, "it is gone before its time");
                    assert!(found.is_err() || earliest < ends, "it is there after its time");
                    if ends - earliest < 5 {
                        break;
                    }
                }
                clock.wait_until(ends);
                assert_eq!(kind(&store.get(&sid, access)), GONE, "{access:?} {options}");
            }
        }
    }
}

/// Redis removes at once what is to expire now: that must not be the end of a session with the rest
/// of this millisecond to live, neither where a longer idle timeout was tried and taken back, nor
/// where a script sets its expiry.
#[test]
fn session_is_readable_until_exact_deadline() {
    let server = Server::start("");
    let mut clock = Clock::of(&server);
    // With another pool= it is another store, which keeps its idle timeout.
    let host = |idle: i64, pool: u32| {
        Store::open(&server.url(&format!("timeout=1h&idle_timeout={idle}ms&pool={pool}"))).unwrap()
    };
    let short = host(15, 30);
    let long = host(60_000, 31);
    for round in 0..from_env("SSS_REDIS_ENDS", 200) {
        // So that a get without a script is tried.
        let (usual, _) = long.create(b"x", &PLAIN).unwrap();
        long.get(&usual, Access::Slide).unwrap();
        let (sid, meta) = match round % 2 {
            0 => short.create(b"x", &PLAIN).unwrap(),
            _ => long.create(b"x", &PLAIN.timeout_ms(15)).unwrap(),
        };
        clock.wait_until(meta.plain().expires_ms - 1);
        let found = long.get(&sid, Access::Slide);
        assert!(found.is_ok() || clock.now() >= meta.plain().expires_ms, "round {round}: gone before its time");
        let again = long.get(&sid, Access::Slide);
        let is_slid = found.is_ok_and(|(_, meta)| clock.now() < meta.plain().expires_ms);
        assert!(again.is_ok() || !is_slid, "round {round}: gone after it was found");
    }
}

/// A client's guess of the server's time may be a moment ahead of it.
#[test]
fn create_metadata_matches_next_peek() {
    let server = Server::start("");
    let store = Store::open(&server.unix_url("")).unwrap();
    for _ in 0..from_env("SSS_REDIS_WRITES", 1000) {
        let (sid, created) = store.create(b"x", &PLAIN).unwrap();
        assert_eq!(store.get(&sid, Access::Peek).unwrap().1, created);
        store.delete(&sid).unwrap();
    }
}

/// A host's store: two of them have the same server, and not the same idle timeout.
struct Host {
    store: Store,
    idle: i64,
}

struct Session {
    sid: Sid,
    created: i64,
    version: u64,
    last_seen: i64,
    /// Of the host that used it last.
    armed_idle: i64,
    own_timeout: i64,
    own_idle: i64,
    principal: bool,
}

impl Session {
    fn expires(&self, idle: i64) -> i64 {
        let idle = if self.own_idle == 0 { idle } else { self.own_idle };
        let timeout = if self.own_timeout == 0 { TIMEOUT } else { self.own_timeout };
        (self.created + timeout).min(self.last_seen.saturating_add(idle))
    }

    /// When it is gone for a host: Redis does not keep it for longer than its last user has said.
    fn ends(&self, host: &Host) -> i64 {
        self.expires(host.idle).min(self.expires(self.armed_idle))
    }

    fn note(&mut self, host: &Host, meta: &Meta) {
        (self.last_seen, self.version, self.armed_idle) = (meta.plain().last_seen_ms, meta.version(), host.idle);
    }
}

const TIMEOUT: i64 = 1500;

/// A random history with all that reads or writes a last use, against the rules.
#[test]
fn random_history_follows_server_clock() {
    let steps = from_env("SSS_REDIS_STEPS", 1500);
    let server = Server::start("");
    let mut clock = Clock::of(&server);
    let host = |idle: i64, pool| {
        let url = server.url(&format!("timeout={TIMEOUT}ms&idle_timeout={idle}ms&pool={pool}&deadline=5s"));
        Host { store: Store::open(&url).unwrap(), idle }
    };
    let hosts = [host(150, 30), host(400, 31)];
    let mut rng = Rng(from_env("SSS_REDIS_SEED", 1));
    let mut sessions: Vec<Session> = Vec::new();
    let (mut ended, mut without_script, mut taken_back) = (0, 0, 0);
    for step in 0..steps {
        let host = &hosts[rng.below(2)];
        if sessions.len() < 12 {
            let own_timeout = rng.pick(&[0, 0, 0, 600, 2500]);
            let own_idle = rng.pick(&[0, 0, 0, 0, 100, 700, FOREVER]);
            let principal = rng.one_in(2);
            let whose = if principal { of(b"alice") } else { PLAIN };
            let options = whose.timeout_ms(own_timeout).idle_timeout_ms(own_idle);
            let (sid, meta) = host.store.create(b"x", &options).unwrap();
            let (created, last_seen, armed_idle) = (meta.plain().created_ms, meta.plain().last_seen_ms, host.idle);
            let session = Session { sid, created, version: 1, last_seen, armed_idle, own_timeout, own_idle, principal };
            sessions.push(session);
        }
        if rng.one_in(4) {
            sleep(Duration::from_millis(rng.below(60) as u64));
        }
        let at = rng.below(sessions.len());
        let session = &mut sessions[at];
        let (ends, expires) = (session.ends(host), session.expires(host.idle));
        let (op, before, earliest) = (rng.below(10), scripts(&server), clock.now());
        let done = match op {
            0..=3 => host.store.get(&session.sid, Access::Slide).map(|(_, meta)| meta),
            4 => host.store.get(&session.sid, Access::Peek).map(|(_, meta)| meta),
            5 => host.store.touch(&session.sid),
            6 => host.store.put(&session.sid, b"more", &PLAIN),
            7 => host.store.renew(&session.sid, None, &PLAIN).map(|(sid, meta)| {
                session.sid = sid;
                meta
            }),
            8 => {
                let mut seen = None;
                let failed = host.store.read(&session.sid, Access::Slide, |_, meta| -> Result<(), Error> {
                    seen = Some(*meta);
                    Err(Error::new(ErrorKind::TooSmall, "not this time"))
                });
                let error = failed.unwrap_err();
                seen.filter(|_| error.kind() == ErrorKind::TooSmall).ok_or(error)
            }
            _ => {
                let list = host.store.list(b"alice").unwrap();
                let reference = host.store.reference(&session.sid);
                let entry = list.iter().find(|entry| reference.as_ref().is_ok_and(|it| entry.reference == *it));
                entry.map(|entry| entry.meta).ok_or(Error::new(ErrorKind::NotFound, "not listed"))
            }
        };
        let latest = clock.now();
        let context = format!("step {step}, {op} by {}: {done:?}, {ends} in {earliest}..={latest}", host.idle);
        match done {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{context}");
                assert!(latest >= ends || (op == 9 && !session.principal), "gone before its time: {context}");
            }
            Ok(meta) => {
                assert!(earliest < ends, "there after its time: {context}");
                assert_eq!(meta.plain().created_ms, session.created, "{context}");
                let version = session.version + u64::from(op == 6);
                assert_eq!(meta.version(), version, "{context}");
                match op {
                    // What only looks sees the last use, even one without a script.
                    4 | 9 => {
                        assert_eq!(
                            (meta.plain().last_seen_ms, meta.plain().expires_ms),
                            (session.last_seen, expires),
                            "{context}"
                        )
                    }
                    // By the client's guess of the server's time.
                    7 => session.note(host, &meta),
                    _ => {
                        let before = session.last_seen;
                        // It never goes back: that of a create may be a millisecond ahead, by its
                        // client's guess.
                        assert!((earliest..=latest.max(before)).contains(&meta.plain().last_seen_ms), "{context}");
                        session.note(host, &meta);
                        assert_eq!(meta.plain().expires_ms, session.expires(host.idle), "{context}");
                        if op == 8 {
                            session.last_seen = before;
                            taken_back += 1;
                        }
                    }
                }
                without_script += u64::from(op <= 3 && scripts(&server) == before);
            }
        }
        let now = clock.now();
        let lived = sessions.len();
        sessions.retain(|session| hosts.iter().any(|host| now < session.ends(host)));
        ended += lived - sessions.len();
    }
    println!("{ended} ended, {without_script} gets without a script, {taken_back} uses taken back");
    // All of it has been tried. How often depends on the machine: a slow one sees more sessions
    // end.
    assert!(ended > 0 && without_script > 0 && taken_back > 0);
}

/// As if a client ended between trying the expiry of a session that it does not know and putting it
/// right: the script, which does that, is not permitted meanwhile.
#[test]
fn crash_after_fast_read_rollback_keeps_deadlines() {
    let server = Server::start("");
    let mut clock = Clock::of(&server);
    let host = |pool| Store::open(&server.url(&format!("timeout=400ms&idle_timeout=300ms&pool={pool}"))).unwrap();
    let store = host(30);
    for (options, ends_in) in [
        (idle(100), 100),
        (idle(250).timeout_ms(100), 100),
        (PLAIN.timeout_ms(100), 100),
        (PLAIN, 400),
        (idle(700).timeout_ms(900), 700),
        (idle(FOREVER).timeout_ms(500), 500),
    ] {
        let (sid, created) = store.create(b"x", &options).unwrap();
        let ends = created.plain().created_ms + ends_in;
        let before = calls(&server, "pexpire");
        ask(&server, &["ACL", "SETUSER", USER, "-evalsha", "-eval"]);
        // Each of them sees the session for the first time.
        for pool in 31..if ends_in == 400 { 37 } else { 32 } {
            sleep(Duration::from_millis(50));
            let _ = host(pool).get(&sid, Access::Slide);
        }
        ask(&server, &["ACL", "SETUSER", USER, "+evalsha", "+eval"]);
        assert!(calls(&server, "pexpire") > before, "nothing was tried");
        clock.wait_until(ends - 40);
        let found = store.get(&sid, Access::Peek);
        assert!(found.is_ok() || clock.now() >= ends, "{options:?}: gone before its time");
        clock.wait_until(ends);
        assert_eq!(kind(&store.get(&sid, Access::Slide)), GONE, "{options:?}");
    }
}

/// The first get of a session that needs one finds out; that of the next knows, and so does the
/// next of this one.
#[test]
fn scripted_get_takes_one_round_trip() {
    let server = Server::start("");
    let proxy = Proxy::to(server.port);
    let creator = Store::open(&server.url("")).unwrap();
    let store = Store::open(&format!("redis://{USER}:hunter2%2F%40@127.0.0.1:{}", proxy.port)).unwrap();
    let create = |options: &Options| creator.create(b"x", options).unwrap().0;
    let trips = |sid: &Sid| {
        let before = proxy.requests();
        store.get(sid, Access::Slide).unwrap();
        proxy.requests() - before
    };
    // The connection, and the script.
    (0..2).for_each(|_| _ = trips(&create(&PLAIN)));
    let _ = store.get(create(&PLAIN), Access::Peek);
    let own = [(); 4].map(|()| create(&idle(FOREVER)));
    assert_eq!(own.each_ref().map(trips), [2, 1, 1, 1]);
    assert_eq!(own.each_ref().map(trips), [1; 4]);
    // By a script, because the last one needed it; and then not any more.
    let plain = [(); 3].map(|()| create(&PLAIN));
    let before = scripts(&server);
    assert_eq!(plain.each_ref().map(trips), [1; 3]);
    assert_eq!(scripts(&server) - before, 1);
    // What is known is known beside others.
    assert_eq!([&own[0], &plain[0], &own[1], &plain[1]].map(trips), [1; 4]);
    assert_eq!(scripts(&server) - before, 3);
    // An unknown id, or an old one, is looked up by the script.
    let old = create(&PLAIN);
    creator.renew(&old, None, &crate::common::grace(60_000)).unwrap();
    assert_eq!(trips(&old), 3, "itself, its alias, the session");
    let before = proxy.requests();
    assert_eq!(kind(&store.get([b'A'; 128], Access::Slide)), GONE);
    assert_eq!(proxy.requests() - before, 2);
}

#[test]
fn fast_read_counts_as_use() {
    let server = Server::start("");
    let store = Store::open(&server.url("max_per_principal=3")).unwrap();
    let sids = [(); 3].map(|()| {
        sleep(Duration::from_millis(3));
        store.create(b"x", &of(b"alice")).unwrap().0
    });
    sleep(Duration::from_millis(3));
    let before = scripts(&server);
    store.get(&sids[0], Access::Slide).unwrap();
    store.get(&sids[2], Access::Slide).unwrap();
    assert_eq!(scripts(&server), before);
    store.create(b"x", &of(b"alice")).unwrap();
    let kinds = sids.each_ref().map(|sid| kind(&store.get(sid, Access::Peek)));
    assert_eq!(kinds, [None, GONE, None]);
    // And revoke, after more of them.
    store.get(&sids[0], Access::Slide).unwrap();
    assert_eq!(store.revoke(b"alice", Some(sids[2].as_ref())).unwrap(), 2);
    assert_eq!([&sids[0], &sids[2]].map(|sid| kind(&store.get(sid, Access::Slide))), [GONE, None]);
}

/// Two uses in the same millisecond are not taken for a wrong one.
#[test]
fn concurrent_gets_need_few_scripts() {
    let server = Server::start("");
    let store = Store::open(&server.url("deadline=10s")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let before = scripts(&server);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| assert_eq!(store.get(&sid, Access::Slide).unwrap().0, b"hello")));
        }
    });
    let needed = scripts(&server) - before;
    println!("{needed} of 4000 gets needed a script");
    assert!(needed < 2000, "{needed}");
}

#[test]
fn refused_expiry_falls_back_to_script() {
    let server = Server::start("");
    let store = Store::open(&server.url("")).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let get = || kind(&store.get(&sid, Access::Slide));
    let ask = |command: &[&str]| assert!(ask(&server, command).starts_with(['+', ':']), "{command:?}");
    // A permission that an older version did not need.
    ask(&["ACL", "SETUSER", USER, "-pexpire"]);
    assert_eq!(get(), None);
    ask(&["ACL", "SETUSER", USER, "+pexpire", "-get"]);
    assert_eq!(get(), Some(ErrorKind::Unavailable));
    ask(&["ACL", "SETUSER", USER, "+get"]);
    // A full server slides by the expiry.
    ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = scripts(&server);
    let (_, first) = store.get(&sid, Access::Slide).unwrap();
    sleep(Duration::from_millis(3));
    let (_, second) = store.get(&sid, Access::Slide).unwrap();
    assert!(second.plain().expires_ms > first.plain().expires_ms);
    assert_eq!(scripts(&server), before);
    assert_eq!(store.get(&sid, Access::Peek).unwrap().1, second);
    ask(&["CONFIG", "SET", "maxmemory", "0"]);
    ask(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(get(), Some(ErrorKind::Unavailable));
    ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(get(), None);
}

/// Its sessions have no idle deadline that an expiry could tell.
#[test]
fn no_idle_timeout_skips_expiry() {
    let server = Server::start("");
    let store = Store::open(&server.url("idle_timeout=infinity")).unwrap();
    let (sid, created) = store.create(b"hello", &PLAIN).unwrap();
    sleep(Duration::from_millis(3));
    let (_, used) = store.get(&sid, Access::Slide).unwrap();
    assert!(used.plain().last_seen_ms > created.plain().last_seen_ms);
    assert_eq!(store.get(&sid, Access::Peek).unwrap().1, used);
    assert_eq!(calls(&server, "pexpire"), 0);
    assert_eq!(used.plain().expires_ms, created.plain().created_ms + 10_800_000);
}
