//! What several test programs share. Not a place for expectations: those stand in the tests.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use sss::{Error, ErrorKind, Options, Principal, Store};

/// Options that say nothing.
pub const PLAIN: Options = Options { timeout_ms: 0, idle_timeout_ms: 0, principal: Principal::Keep, grace_ms: 0 };

/// Options with a principal.
pub fn of(principal: &[u8]) -> Options<'_> {
    Options { principal: Principal::Set(principal), ..PLAIN }
}

/// Options with a grace time.
pub fn grace(ms: i64) -> Options<'static> {
    Options { grace_ms: ms, ..PLAIN }
}

/// A store of its own.
pub fn open(options: &str) -> Store {
    Store::open(&format!("memory:?{options}")).unwrap()
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

/// Tells the other threads to stop when this one is done, also by a panic: a failed test must not hang.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine, so that a seed repeats a failure.
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
