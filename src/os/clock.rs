//! A store's clock, in Unix milliseconds: a steady one that no clock step moves, wall time, or a manual one for tests. The
//! engine chooses, because it knows whether other processes must see the same time.
#![allow(unsafe_code)] // clock_gettime

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::error::{Error, ErrorKind, Result};

/// The furthest a manual clock goes: one less than `FOREVER`, which no clock may reach.
const LAST_MS: i64 = i64::MAX - 1;

#[derive(Clone, Copy)]
pub(crate) enum Clock<'a> {
    /// Wall time as it was at the open, moved on by the monotonic clock: for one process.
    Steady { offset_ms: i64 },
    /// Wall time: what several processes or hosts have in common.
    Wall,
    /// Wall time as it was when the store was made, moved on by `advance` only.
    Manual(&'a AtomicI64),
}

/// How far the steady clock is from the monotonic one now.
pub(crate) fn steady_offset_ms() -> i64 {
    // Rounded so that no session seems to begin in the future.
    wall_ms() - monotonic_ms_ceil()
}

pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}

/// Linux's coarse clock costs a quarter of the precise one and is exact to one timer tick (1 to 10 ms).
#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Milliseconds of a clock that no clock step moves; only differences mean anything.
#[allow(clippy::unnecessary_cast)] // On 32-bit systems both are shorter.
fn monotonic_ms() -> i64 {
    let now = clock(CLOCK);
    now.tv_sec as i64 * 1000 + now.tv_nsec as i64 / 1_000_000
}

/// The same clock read precisely and rounded up: never less than `monotonic_ms` at the same moment.
#[allow(clippy::unnecessary_cast)]
fn monotonic_ms_ceil() -> i64 {
    let now = clock(libc::CLOCK_MONOTONIC);
    now.tv_sec as i64 * 1000 + (now.tv_nsec as i64 + 999_999) / 1_000_000
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to. The call cannot fail: the clock id is one that the system has.
    unsafe { libc::clock_gettime(id, &mut now) };
    now
}

impl Clock<'_> {
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self, Clock::Manual(_))
    }

    #[inline]
    pub(crate) fn now_ms(&self) -> i64 {
        match self {
            Clock::Steady { offset_ms } => offset_ms + monotonic_ms(),
            Clock::Wall => wall_ms(),
            Clock::Manual(now_ms) => now_ms.load(Ordering::Acquire),
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
