//! Which server a key is on, for each way in which several servers can be one store.

pub(super) mod cluster;
pub(super) mod sentinel;
pub(super) mod standalone;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{address::Address, error::Failure, pool::Pool};
use crate::error::Result;

pub(super) trait Topology: Send + Sync {
    /// The server that has a key.
    fn pool_for(&self, key: &[u8], deadline: Instant) -> Result<Arc<Pool>>;

    fn pool_at(&self, server: &Address) -> Arc<Pool>;

    /// All servers that have keys.
    fn all_pools(&self, deadline: Instant) -> Result<Vec<Arc<Pool>>>;

    /// Whether two keys may be on different servers.
    fn spans_servers(&self) -> bool {
        false
    }

    /// Asked before a connection to this server is made, and from time to time for an open one:
    /// whether it still is the right one.
    fn confirm(&self, _server: &Address, _deadline: Instant) -> Result<(), Failure> {
        Ok(())
    }

    /// Where a call goes next that was not executed where it was sent; `None` if nowhere else.
    fn retry(&self, key: &[u8], failure: &Failure, deadline: Instant) -> Option<Retry>;
}

/// How a call is sent again.
pub(super) enum Retry {
    /// To the server that has the key according to the topology.
    Same,
    /// To this server, with ASKING.
    Ask(Address),
}

/// A part of the remaining time, so that one server that hangs does not take all of it.
pub(super) fn share_of(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 3
}

/// Bounds how often servers are asked about the topology.
pub(super) struct RateLimiter {
    began: Instant,
    /// Milliseconds since then.
    next: AtomicU64,
}

impl RateLimiter {
    const INTERVAL: Duration = Duration::from_millis(100);

    pub(super) fn new() -> RateLimiter {
        RateLimiter { began: Instant::now(), next: AtomicU64::new(0) }
    }

    pub(super) fn try_acquire(&self) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        let next = self.next.load(Ordering::Relaxed);
        let after = now + Self::INTERVAL.as_millis() as u64;
        now >= next && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
