//! Opens when a server has failed several times in a row, so that calls fail at once, and closes
//! with its first answer.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// So many failures in a row mean that the server is down.
const LIMIT: u32 = 3;
/// How often a server that is down is tried.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Breaker {
    failures: AtomicU32,
    began: Instant,
    /// Milliseconds since then.
    next_probe: AtomicU64,
    last_error: Mutex<String>,
}

impl Breaker {
    pub(super) fn new() -> Breaker {
        Breaker {
            failures: AtomicU32::new(0),
            began: Instant::now(),
            next_probe: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// Whether a call may try the server.
    pub(super) fn allow(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) < LIMIT {
            return true;
        }
        let now = self.now();
        let probe_at = self.next_probe.load(Ordering::Relaxed);
        let next = now + PROBE_INTERVAL.as_millis() as u64;
        now >= probe_at
            && self.next_probe.compare_exchange(probe_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn on_failure(&self, error: &impl ToString) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        self.next_probe.store(self.now() + PROBE_INTERVAL.as_millis() as u64, Ordering::Relaxed);
        let more = |failures: u32| Some(failures.saturating_add(1));
        // The closure always returns a value.
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    pub(super) fn on_success(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// What the last failure was.
    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_breaker_allows_one_probe_at_a_time() {
        let breaker = Breaker::new();
        for _ in 0..LIMIT {
            assert!(breaker.allow());
            breaker.on_failure(&"no route to host");
        }
        assert!(!breaker.allow(), "it has just failed");
        assert_eq!(breaker.last_error(), "no route to host");
        // As if the time had passed.
        breaker.next_probe.store(0, Ordering::Relaxed);
        assert_eq!([(); 10].map(|()| breaker.allow()).iter().filter(|allowed| **allowed).count(), 1);
        breaker.on_failure(&"no route to host");
        assert!(!breaker.allow());
        breaker.on_success();
        assert!(breaker.allow());
    }
}
