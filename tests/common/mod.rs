//! What several test programs share. Not a place for expectations: those stand in the tests.

pub mod cluster;
pub mod proxy;
pub mod redis;
pub mod sentinel;
pub mod timed;
pub mod tls;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sss::{Error, ErrorKind, Meta, Options, Principal, Store, Timeout};

/// Options that say nothing.
pub const PLAIN: Options = Options::new();

/// The timeout and the deadline of what never ends, as numbers.
pub const FOREVER: i64 = i64::MAX;
/// The timeout that takes the session's own back.
pub const INHERIT: i64 = i64::MIN;

/// Options by the numbers of the C ABI, as the conformance files and the models have them.
pub trait OptionsMs<'a> {
    fn timeout_ms(self, ms: i64) -> Options<'a>;
    fn idle_timeout_ms(self, ms: i64) -> Options<'a>;
    fn grace_ms(self, ms: i64) -> Options<'a>;
    fn with_principal(self, principal: Principal<'a>) -> Options<'a>;
}

impl<'a> OptionsMs<'a> for Options<'a> {
    fn timeout_ms(mut self, ms: i64) -> Options<'a> {
        self.timeout = timeout(ms);
        self
    }

    fn idle_timeout_ms(mut self, ms: i64) -> Options<'a> {
        self.idle_timeout = timeout(ms);
        self
    }

    fn grace_ms(self, ms: i64) -> Options<'a> {
        self.grace(Duration::from_millis(ms.try_into().unwrap()))
    }

    fn with_principal(mut self, principal: Principal<'a>) -> Options<'a> {
        self.principal = principal;
        self
    }
}

fn timeout(ms: i64) -> Option<Timeout> {
    match ms {
        0 => None,
        FOREVER => Some(Timeout::Never),
        INHERIT => Some(Timeout::Inherit),
        ms => Some(Timeout::After(Duration::from_millis(ms.try_into().unwrap_or(0)))),
    }
}

/// A session's metadata as numbers: Unix milliseconds, `FOREVER` for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainMeta {
    pub version: u64,
    pub created_ms: i64,
    pub last_seen_ms: i64,
    pub expires_ms: i64,
    pub authenticated_ms: Option<i64>,
    pub timeout_ms: i64,
    pub idle_timeout_ms: i64,
}

pub trait ToPlain {
    fn plain(&self) -> PlainMeta;
}

impl ToPlain for Meta {
    fn plain(&self) -> PlainMeta {
        PlainMeta {
            version: self.version(),
            created_ms: unix_ms(self.created()),
            last_seen_ms: unix_ms(self.last_seen()),
            expires_ms: self.expires().map_or(FOREVER, unix_ms),
            authenticated_ms: self.authenticated().map(unix_ms),
            timeout_ms: self.timeout().map_or(FOREVER, whole_ms),
            idle_timeout_ms: self.idle_timeout().map_or(FOREVER, whole_ms),
        }
    }
}

fn whole_ms(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap()
}

fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_millis().try_into().unwrap(),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap(),
    }
}

/// Options with a principal.
pub fn of(principal: &[u8]) -> Options<'_> {
    PLAIN.principal(principal)
}

/// Options with a grace time.
pub fn grace(ms: i64) -> Options<'static> {
    PLAIN.grace_ms(ms)
}

/// The engine under test: SSS_TEST_ENGINE in the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Memory,
    Lmdb,
    LmdbPower,
    Redis,
    RedisUnix,
    RedisTls,
    RedisSentinel,
    RedisCluster,
}

impl Engine {
    pub fn is_redis(self) -> bool {
        !matches!(self, Engine::Memory | Engine::Lmdb | Engine::LmdbPower)
    }

    pub fn under_test() -> Engine {
        match std::env::var("SSS_TEST_ENGINE").as_deref() {
            Err(_) | Ok("memory") => Engine::Memory,
            Ok("lmdb") => Engine::Lmdb,
            Ok("lmdb-power") => Engine::LmdbPower,
            Ok("redis") => Engine::Redis,
            Ok("redis-unix") => Engine::RedisUnix,
            Ok("redis-tls") => Engine::RedisTls,
            Ok("redis-sentinel") => Engine::RedisSentinel,
            Ok("redis-cluster") => Engine::RedisCluster,
            Ok(other) => {
                panic!(
                    "SSS_TEST_ENGINE is {other}, not memory, lmdb, lmdb-power, redis, redis-unix, redis-tls, redis-sentinel \
                     or redis-cluster"
                )
            }
        }
    }
}

/// Where a store of its own is, of the engine under test; what is there goes when this is dropped.
pub struct TemporaryStore {
    engine: Engine,
    name: String,
}

impl TemporaryStore {
    pub fn new() -> TemporaryStore {
        TemporaryStore::of(Engine::under_test())
    }

    pub fn of(engine: Engine) -> TemporaryStore {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("sss-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        TemporaryStore::named(
            engine,
            match engine {
                Engine::Lmdb | Engine::LmdbPower => std::env::temp_dir().join(name).to_str().unwrap().to_owned(),
                _ => name,
            },
        )
    }

    pub fn named(engine: Engine, name: String) -> TemporaryStore {
        TemporaryStore { engine, name }
    }

    /// The URL of the store there, with these options.
    pub fn url(&self, options: &str) -> String {
        let mut options: Vec<&str> = options.split('&').filter(|option| !option.is_empty()).collect();
        let prefix = format!("prefix={}:", self.name);
        if self.engine.is_redis() {
            options.push(&prefix);
            if !options.iter().any(|option| option.starts_with("deadline=")) {
                // Without optimization sealing a large payload takes a while, and the machine may
                // be busy.
                options.push("deadline=30s");
            }
            let options = options.join("&");
            return match self.engine {
                Engine::Redis => redis::shared().url(&options),
                Engine::RedisCluster => cluster::shared().url(&options),
                Engine::RedisTls => tls::shared_url(&options),
                Engine::RedisSentinel => sentinel::shared_url(&options),
                _ => redis::shared().unix_url(&options),
            };
        }
        let scheme = if self.engine == Engine::Memory { "memory" } else { "lmdb" };
        if self.engine != Engine::Memory && !options.iter().any(|option| option.starts_with("max_bytes=")) {
            // Tests make many stores, and each file is reserved as a whole.
            options.push("max_bytes=16MiB");
        }
        if self.engine == Engine::LmdbPower {
            options.push("durability=power");
        }
        format!("{scheme}:{}?{}", self.name, options.join("&"))
    }

    pub fn open(&self, options: &str) -> Store {
        Store::open(&self.url(options)).unwrap()
    }

    /// The directory of an `lmdb:` store.
    pub fn directory(&self) -> &std::path::Path {
        std::path::Path::new(&self.name)
    }
}

impl Drop for TemporaryStore {
    fn drop(&mut self) {
        if matches!(self.engine, Engine::Lmdb | Engine::LmdbPower) {
            // It may never have been opened.
            let _ = std::fs::remove_dir_all(&self.name);
        }
    }
}

/// A store of its own, of the engine under test. (Its directory, if it has one, goes with the test
/// run's.)
pub fn open(options: &str) -> Store {
    let place = TemporaryStore::new();
    let store = place.open(options);
    std::mem::forget(place);
    store
}

/// A name for `memory:NAME` that no other test has.
pub fn unique_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub fn kind<T>(result: &Result<T, Error>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

/// Whether a session was found; any other failure than `NotFound` fails the test.
#[track_caller]
pub fn found<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("neither found nor NotFound: {error:?}"),
    }
}

/// Lets the threads that meet here leave at the same instant, so that what they do next overlaps.
pub struct Gate(AtomicUsize);

impl Gate {
    pub fn new(threads: usize) -> Gate {
        Gate(AtomicUsize::new(threads))
    }

    pub fn pass(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        while self.0.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
    }
}

/// Tells the other threads to stop when this one is done, also by a panic: a failed test must not
/// hang.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine, so that a seed
/// repeats a failure.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is above 0 and small.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A number from the environment, for runs that are longer or repeated.
pub fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}
