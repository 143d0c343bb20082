//! Which processes have a store open, and which one opens or closes it now: locks of open file descriptions on state.shm.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    directory::{Directory, open_file},
    os::{self, ClosedInChild, LockMode},
};
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for another process that opens or closes the store: it checks or writes the whole file.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The ranges of state.shm that are locked, a byte each.
#[derive(Clone, Copy)]
pub(super) enum LockRange {
    /// Held exclusively while a process opens or closes the store.
    OpenClose = 0,
    /// Shared by all processes that have the store open.
    Open = 1,
    /// Held instead of `Open` by processes that are about to close the store.
    Closing = 2,
}

pub(super) struct Locks {
    // Not the file that is mapped: a mapping keeps its file open, in a forked child too, and with the file its locks.
    state: ClosedInChild,
}

impl Locks {
    pub(super) fn new(directory: &Directory) -> Result<Locks> {
        Ok(Locks { state: ClosedInChild::new(open_file(&directory.state())?) })
    }

    /// Takes, changes or releases a lock, without waiting. False: another process holds a conflicting one.
    pub(super) fn try_lock(&self, range: LockRange, mode: LockMode) -> Result<bool> {
        os::try_lock(&self.state, range as u64, mode)
    }

    /// Waits until no other process opens or closes the store, and keeps others from it.
    pub(super) fn begin_open_close(&self) -> Result<OpenCloseGuard<'_>> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.try_lock(LockRange::OpenClose, LockMode::Exclusive)? {
            if Instant::now() > deadline {
                return Err(busy());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(OpenCloseGuard(self))
    }
}

pub(super) struct OpenCloseGuard<'a>(&'a Locks);

impl Drop for OpenCloseGuard<'_> {
    fn drop(&mut self) {
        // Fails only for want of memory in the kernel; closing the file releases it as well.
        let _ = self.0.try_lock(LockRange::OpenClose, LockMode::Unlocked);
    }
}

pub(super) fn busy() -> Error {
    Error::fixed(ErrorKind::Busy, "another process is opening or closing the store and takes too long")
}
