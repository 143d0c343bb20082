//! Synchronization that the standard library lacks. Knows nothing of sessions.

pub(crate) mod per_process;
pub(crate) mod sharded_lock;
