//! What writers that wait for the disk tell one another, in all processes: a part of the shared
//! memory. It is only ever a hint when to wait, except for `on_disk`.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use super::super::os;

#[repr(C)]
pub(in super::super) struct CommitState {
    /// How many writes are about to be committed.
    committing: AtomicU32,
    /// Changes when some of them are done, and when `on_disk` does.
    changes: AtomicU32,
    /// The number of the last transaction whose meta page is on the disk.
    on_disk: AtomicU64,
}

impl CommitState {
    /// No process has the store open, so none is about to commit.
    pub(in super::super) fn reset(&self, last_transaction: u64) {
        self.committing.store(0, Ordering::Release);
        self.on_disk.store(last_transaction, Ordering::Release);
    }

    pub(in super::super) fn begin_write(&self) {
        self.committing.fetch_add(1, Ordering::AcqRel);
    }

    pub(in super::super) fn end_writes(&self, count: u32) {
        // Not below zero: another process may have stopped relying on them.
        let fewer = |committing: u32| Some(committing.saturating_sub(count));
        // The closure always gives a value, so there is no error to look at.
        let _ = self.committing.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        self.note_change();
    }

    pub(in super::super) fn is_committing(&self) -> bool {
        self.committing.load(Ordering::Acquire) > 0
    }

    /// The processes that were about to commit are not relied on any more: they have taken too
    /// long, or died.
    pub(in super::super) fn forget_writes(&self) {
        self.committing.store(0, Ordering::Release);
    }

    pub(in super::super) fn is_on_disk(&self, transaction: u64) -> bool {
        self.on_disk.load(Ordering::Acquire) >= transaction
    }

    pub(in super::super) fn note_on_disk(&self, transaction: u64) {
        self.on_disk.fetch_max(transaction, Ordering::AcqRel);
        self.note_change();
    }

    /// What `wait` waits for a change of.
    pub(in super::super) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits until there was a change since `changes` was read, but not longer than `timeout`.
    pub(in super::super) fn wait(&self, changes: u32, timeout: Duration) {
        os::futex_wait(&self.changes, changes, timeout);
    }

    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        os::futex_wake_all(&self.changes);
    }
}
