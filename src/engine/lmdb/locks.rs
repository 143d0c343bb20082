//! Which processes have a store open, and which one opens or closes it now: locks of open file
//! descriptions, on state.shm and on lock.mdb.
//!
//! LMDB itself locks two bytes of lock.mdb, byte 0 and that of its process id, and believes what it
//! finds there: a process that can lock byte 0 initializes the file, and the slots of a process
//! whose byte is free are given away. But its locks are POSIX locks, which a process loses as soon
//! as it closes any descriptor of the file (a backup, a scan), and which do not tell two copies of
//! this library in one process apart. So the same bytes are held here as well, by locks that are
//! lost with their own file only.

use std::{
    fs::File,
    process, thread,
    time::{Duration, Instant},
};

use super::{
    directory::{Directory, open_file},
    os::{self, ClosedInChild, LockMode},
};
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for another process that opens or closes the store: it checks or writes the
/// whole file.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for a program that looks at LMDB's files.
const OTHER_PROGRAM_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

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

/// The byte of lock.mdb that all processes lock that have the store open.
const ALL_PROCESSES: u64 = 0;

pub(super) struct Locks {
    // Not the file that is mapped: a mapping keeps its file open, in a forked child too, and with
    // the file its locks.
    state: ClosedInChild,
    lmdb: ClosedInChild,
}

impl Locks {
    pub(super) fn new(directory: &Directory) -> Result<Locks> {
        Ok(Locks {
            state: ClosedInChild::new(open_file(&directory.state())?),
            lmdb: ClosedInChild::new(open_file(&directory.lock())?),
        })
    }

    /// lock.mdb, on which nothing but locks is changed here.
    pub(super) fn lmdb_file(&self) -> &File {
        &self.lmdb
    }

    /// Fails if another copy of this library has the store open in this process: LMDB would take
    /// its reader slots away. Under the guard, before LMDB opens the store.
    pub(super) fn check_only_copy(&self) -> Result<()> {
        self.check_unlocked(own_byte(), || {
            Error::fixed(
                ErrorKind::Exists,
                "another copy of this library has the lmdb: store open in this process: load the library once",
            )
        })
    }

    /// Fails if LMDB's files are open in another program, although no process is found that has the
    /// store open: LMDB would not initialize lock.mdb. Under the guard, before LMDB opens the
    /// store.
    pub(super) fn check_unused(&self) -> Result<()> {
        let deadline = Instant::now() + OTHER_PROGRAM_TIMEOUT;
        loop {
            let checked = self.check_unlocked(ALL_PROCESSES, || {
                Error::fixed(
                    ErrorKind::Busy,
                    "another program has lock.mdb open (mdb_copy, mdb_stat), or state.shm was replaced while the store was open",
                )
            });
            if checked.is_ok() || Instant::now() > deadline {
                return checked;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn check_unlocked(&self, byte: u64, error: impl FnOnce() -> Error) -> Result<()> {
        if !os::try_lock(&self.lmdb, byte, LockMode::Exclusive)? {
            return Err(error());
        }
        // LMDB is about to lock it itself.
        os::try_lock(&self.lmdb, byte, LockMode::Unlocked).map(drop)
    }

    /// Holds the bytes that LMDB has locked, in the place of LMDB. Under the guard, after LMDB has
    /// opened the store and before a read begins: LMDB locks its bytes once, and has no reader slot
    /// yet that could be given away meanwhile.
    pub(super) fn take_over_from_lmdb(&self) -> Result<()> {
        let is_shared = os::try_lock(&self.lmdb, ALL_PROCESSES, LockMode::Shared)?;
        os::release_process_locks(&self.lmdb)?;
        if !is_shared || !os::try_lock(&self.lmdb, own_byte(), LockMode::Exclusive)? {
            return Err(busy());
        }
        Ok(())
    }

    /// Takes, changes or releases a lock, without waiting. False: another process holds a
    /// conflicting one.
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
            thread::sleep(POLL_INTERVAL);
        }
        Ok(OpenCloseGuard(self))
    }
}

/// The byte of lock.mdb by which other processes find out whether this one is alive.
fn own_byte() -> u64 {
    process::id().into()
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
