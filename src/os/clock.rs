//! The clock of a store, in milliseconds: time since boot, wall time, or a manual clock for tests.
//! The engine chooses, because it knows whether other processes must see the same time.
#![allow(unsafe_code)] // clock_gettime

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::error::{Error, ErrorKind, Result};

/// The last moment of a manual clock. It is before `FOREVER` and before the moment just before
/// that, at which engines schedule sessions that never end: neither may ever be due.
pub(crate) const LAST_MS: i64 = i64::MAX - 2;

#[derive(Clone, Copy)]
pub(crate) enum Clock<'a> {
    /// Time since boot: no clock step moves it, and it goes on while the machine sleeps. For one
    /// process.
    BootTime,
    /// Unix time: what several processes or hosts have in common.
    Wall,
    /// Unix time when the store was made, changed by `advance` only.
    Manual(&'a AtomicI64),
}

pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}

/// A clock that need not count while the machine sleeps. Linux's coarse one costs a quarter of the
/// others, and advances once in a timer tick (1 to 10 ms).
#[cfg(target_os = "linux")]
const AWAKE_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const AWAKE_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// The clock that counts while the machine sleeps. On macOS CLOCK_MONOTONIC does.
#[cfg(target_os = "linux")]
const BOOT_CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

const NS_PER_MS: i64 = 1_000_000;

/// The time on `AWAKE_CLOCK` at which the two values below were measured last: once in each of its
/// ticks.
static MEASURED_AT_MS: AtomicI64 = AtomicI64::new(i64::MIN);
/// How far `BOOT_CLOCK` is ahead of `AWAKE_CLOCK`: for how long the machine has slept. Never
/// decreases.
static SLEPT_MS: AtomicI64 = AtomicI64::new(0);
/// How far wall time is ahead of `BOOT_CLOCK`.
static WALL_OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// Smaller changes of the wall time's offset are ignored, so that the times of a session do not
/// vary between calls while the system adjusts its clock gradually.
const MIN_WALL_STEP_MS: i64 = 1000;

/// Milliseconds since boot, as fast as the coarse clock: there is no coarse CLOCK_BOOTTIME.
#[inline]
fn boot_ms() -> i64 {
    let awake_ms = clock_ns(AWAKE_CLOCK) / NS_PER_MS;
    if MEASURED_AT_MS.load(Ordering::Acquire) != awake_ms {
        measure(awake_ms);
    }
    awake_ms + SLEPT_MS.load(Ordering::Relaxed)
}

/// Threads may race here: each leaves values that are right.
#[cold]
fn measure(awake_ms: i64) {
    let before = clock_ns(libc::CLOCK_MONOTONIC);
    let boot = clock_ns(BOOT_CLOCK);
    let after = clock_ns(libc::CLOCK_MONOTONIC);
    // The difference is between these bounds, and they are far apart only if the thread was
    // interrupted. The lower one is never too much, and the next measurement corrects it.
    let at_least = (boot - after).div_euclid(NS_PER_MS);
    let at_most = (boot - before).div_euclid(NS_PER_MS);
    if !(at_least..=at_most).contains(&SLEPT_MS.load(Ordering::Relaxed)) {
        SLEPT_MS.fetch_max(at_least, Ordering::Relaxed);
    }
    // Rounded so that no session seems to begin in the future.
    let wall_offset = wall_ms() - (clock_ns(BOOT_CLOCK) + NS_PER_MS - 1).div_euclid(NS_PER_MS);
    if (wall_offset - WALL_OFFSET_MS.load(Ordering::Relaxed)).abs() >= MIN_WALL_STEP_MS {
        WALL_OFFSET_MS.store(wall_offset, Ordering::Relaxed);
    }
    MEASURED_AT_MS.store(awake_ms, Ordering::Release);
}

#[inline]
#[allow(clippy::unnecessary_cast)] // Both fields are shorter on 32-bit systems.
fn clock_ns(id: libc::clockid_t) -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to. The call cannot fail, because the system has
    // this clock.
    unsafe { libc::clock_gettime(id, &mut now) };
    now.tv_sec as i64 * 1_000_000_000 + now.tv_nsec as i64
}

impl Clock<'_> {
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self, Clock::Manual(_))
    }

    #[inline]
    pub(crate) fn now_ms(&self) -> i64 {
        match self {
            Clock::BootTime => boot_ms(),
            Clock::Wall => wall_ms(),
            Clock::Manual(now_ms) => now_ms.load(Ordering::Acquire),
        }
    }

    /// How far wall time is ahead of this clock now.
    #[inline]
    pub(crate) fn wall_offset_ms(&self) -> i64 {
        match self {
            Clock::BootTime => WALL_OFFSET_MS.load(Ordering::Relaxed),
            Clock::Wall | Clock::Manual(_) => 0,
        }
    }

    pub(crate) fn advance(&self, ms: i64) -> Result<()> {
        let Clock::Manual(now_ms) = self else {
            return Err(Error::fixed(ErrorKind::Unsupported, "only a store opened with clock=manual can be advanced"));
        };
        if ms < 0 {
            return Err(Error::fixed(ErrorKind::Invalid, "the clock moves forward only: ms is negative"));
        }
        let forward = |now: i64| Some(now.saturating_add(ms).min(LAST_MS));
        // The closure always gives a value, so there is no error to look at.
        let _ = now_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, forward);
        Ok(())
    }
}
