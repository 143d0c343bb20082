//! The store's clock, in Unix milliseconds: one that no clock step moves, or one that a test moves by hand.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{Error, ErrorKind, Result},
    sys,
};

/// The furthest a manual clock goes: one less than `FOREVER`, which no clock may reach.
const LAST_MS: i64 = i64::MAX - 1;

pub(crate) enum Clock {
    /// Wall time as it was at the open, moved on by the monotonic clock.
    System { offset_ms: i64 },
    /// Wall time as it was at the open, moved on by `advance` only.
    Manual { now_ms: AtomicI64 },
}

impl Clock {
    pub(crate) fn system() -> Clock {
        // Rounded so that no session seems to begin in the future.
        Clock::System { offset_ms: wall_ms() - sys::monotonic_ms_ceil() }
    }

    pub(crate) fn manual() -> Clock {
        Clock::Manual { now_ms: AtomicI64::new(wall_ms()) }
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(self, Clock::Manual { .. })
    }

    pub(crate) fn now_ms(&self) -> i64 {
        match self {
            Clock::System { offset_ms } => offset_ms + sys::monotonic_ms(),
            Clock::Manual { now_ms } => now_ms.load(Ordering::Acquire),
        }
    }

    pub(crate) fn advance(&self, ms: i64) -> Result<()> {
        let Clock::Manual { now_ms } = self else {
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

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}
