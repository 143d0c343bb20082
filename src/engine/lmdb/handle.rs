//! A store as it is open in this process: LMDB's environment, the shared memory and the locks. The
//! last process that closes a store has everything written to the disk, and says so there.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    env::{Env, WriteTxn},
    locks::{LockRange, Locks},
    os::LockMode,
    shm::SharedMemory,
};
use crate::{
    crypto::keys::SALT_LEN,
    engine::Context,
    error::{Error, ErrorKind, Result},
    os::clock::Clock,
    session::policy::Policy,
};

/// Between two looks at the readers that a write waits for.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

pub(super) struct Handle {
    // In the order in which they are dropped: LMDB's files are closed before the locks are
    // released.
    pub env: Env,
    pub shm: SharedMemory,
    pub locks: Locks,
    pub salt: [u8; SALT_LEN],
    pub seals: bool,
    pub survives_power_cut: bool,
    /// In bytes.
    pub file_size: u64,
    /// How many pages the steps of the current write transaction may take, if it is this process's.
    pub claimed_pages: AtomicUsize,
}

impl Handle {
    pub(super) fn policy(&self) -> &Policy {
        &self.shm.header().policy
    }

    pub(super) fn clock(&self) -> Clock<'_> {
        self.shm.clock()
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { clock: self.clock(), policy: self.policy(), counters: &self.shm.header().counters }
    }

    /// Begins the one write transaction of all processes. Before anything is written, the disk says
    /// that the store is not complete there any more: in the same transaction, so that `close`
    /// either sees what is written or comes before it.
    pub(super) fn write(&self) -> Result<WriteTxn<'_>> {
        let txn = self.env.write(&self.shm.header().writer_queue)?;
        self.claimed_pages.store(0, Ordering::Relaxed);
        if self.shm.is_clean() {
            self.shm.set_clean(false);
            // If this fails, the next write has to do it.
            self.shm.sync().inspect_err(|_| self.shm.set_clean(true))?;
        }
        Ok(txn)
    }

    /// Waits for the reads that are under way now, which may look at pages that were freed. False:
    /// there are none.
    pub(super) fn wait_for_readers(&self, deadline: Instant) -> Result<bool> {
        let last = self.env.last_transaction()?;
        let mut has_waited = false;
        while let Some(reader) = self.env.oldest_reader()?.filter(|reader| reader.snapshot < last) {
            if Instant::now() > deadline {
                let message =
                    format!("process {} does not end a read, which keeps the store from writing", reader.process);
                return Err(Error::new(ErrorKind::Busy, message));
            }
            self.env.clear_dead_readers()?;
            thread::sleep(POLL_INTERVAL);
            has_waited = true;
        }
        Ok(has_waited)
    }

    /// Prepares for the end of this handle or of its process. The last process that comes here has
    /// everything written to the disk. That other processes may not be gone yet does not matter: if
    /// they still write, they say so on the disk.
    pub(super) fn close(&self) -> Result<()> {
        let _guard = self.locks.begin_open_close()?;
        // Not if a thread exits in the middle of a write, as a signal handler may: it would wait
        // for itself.
        if self.locks.try_lock(LockRange::Open, LockMode::Exclusive)? && !WriteTxn::is_in_this_thread() {
            self.shm.note_failure(self.mark_clean())?;
        }
        self.locks.try_lock(LockRange::Closing, LockMode::Shared)?;
        self.locks.try_lock(LockRange::Open, LockMode::Unlocked)?;
        Ok(())
    }

    /// Has everything on the disk, and says so there.
    fn mark_clean(&self) -> Result<()> {
        // No other thread or process writes meanwhile: a later commit counts as written after this.
        let _txn = self.env.write(&self.shm.header().writer_queue)?;
        if !self.shm.is_clean() && self.shm.check_disk().is_ok() {
            self.env.sync()?;
            self.shm.sync()?;
            self.shm.set_clean(true);
            self.shm.sync()?;
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What fails here is noticed at the next open: the store does not count as closed.
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crate::engine::lmdb::{
        directory::Directory,
        env::Table,
        fixture::Fixture,
        locks::{LockRange, Locks},
        os::LockMode,
    };

    #[test]
    fn store_is_not_clean_during_write() {
        let fixture = Fixture::new("");
        let handle = fixture.handle();
        let mut txn = handle.write().unwrap();
        txn.put(Table::Meta, b"a key", b"a value").unwrap();
        thread::scope(|scope| {
            let closing = scope.spawn(|| handle.close().unwrap());
            // It takes this lock, and then waits for the writer.
            let others = Locks::new(&Directory::open(fixture.directory()).unwrap()).unwrap();
            while others.try_lock(LockRange::OpenClose, LockMode::Exclusive).unwrap() {
                others.try_lock(LockRange::OpenClose, LockMode::Unlocked).unwrap();
                thread::yield_now();
            }
            assert!(!handle.shm.is_clean(), "what is being written is not on the disk");
            txn.commit().unwrap();
            closing.join().unwrap();
        });
        assert!(handle.shm.is_clean());
        let txn = handle.write().unwrap();
        assert!(!handle.shm.is_clean(), "what is about to be written is not either");
        drop(txn);
    }

    #[test]
    fn close_inside_own_write_does_not_deadlock() {
        let fixture = Fixture::new("");
        let txn = fixture.handle().write().unwrap();
        fixture.handle().close().unwrap();
        assert!(!fixture.handle().shm.is_clean());
        drop(txn);
        fixture.handle().close().unwrap();
        assert!(fixture.handle().shm.is_clean());
    }
}
