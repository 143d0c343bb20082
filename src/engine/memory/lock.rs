//! The lock of one shard.

use super::shard::Shard;
use crate::sync::backoff_mutex::{BackoffMutex, BackoffMutexGuard};

/// On two cache lines of its own: the prefetcher fetches pairs.
#[repr(align(128))]
pub(super) struct Lock(BackoffMutex<Shard>);

impl Lock {
    pub(super) fn new(shard: Shard) -> Lock {
        Lock(BackoffMutex::new(shard))
    }

    #[inline]
    pub(super) fn lock(&self) -> BackoffMutexGuard<'_, Shard> {
        self.0.lock()
    }
}
