//! Locks and cells that work in a forked child. Knows nothing of sessions.
//!
//! What is held for microseconds is a [`BackoffMutex`](backoff_mutex::BackoffMutex). What may be
//! held longer is a lock of the standard library, which on Linux waits on a futex of the process,
//! through [`ignore_poison`]. Nothing else uses parking_lot.

use std::sync::{LockResult, PoisonError};

pub(crate) mod backoff_mutex;
pub(crate) mod per_process;
pub(crate) mod sharded_lock;

/// The guard of a lock of the standard library, also after a panic of a thread that held it. A
/// panic is caught at the C boundary and leaves the data as the last complete step wrote them, so
/// later calls go on working.
pub(crate) fn ignore_poison<Guard>(result: LockResult<Guard>) -> Guard {
    result.unwrap_or_else(PoisonError::into_inner)
}
