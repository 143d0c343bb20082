//! Group commit, for `durability=power`. A commit has LMDB write the data and wait for the disk,
//! and then write the meta page without waiting for it (MDB_NOMETASYNC: a power cut undoes the last
//! commit or does not, and never tears one). An acknowledged write has to wait for its meta page as
//! well, and shares that wait twice:
//!
//! - Writes of one process that meet become one transaction: the first thread becomes the leader
//!   and runs all of them. Each is a nested transaction, undone alone if it fails.
//! - The next commit, of any process, waits for the whole file and so for the meta page before it.
//!   While another write is about to be committed, no thread waits for the disk on its own.
//!   Counters in the shared memory say what is about to be committed and what is on the disk.
#![allow(unsafe_code)]

use std::{
    fs::File,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{env::WriteTxn, handle::Handle, os};
use crate::error::{Error, ErrorKind, Result};

/// How long to rely on other writes that are about to be committed: some times as long as a disk
/// takes. A process that died before its commit is not waited for a second time.
const FLUSH_WAIT: Duration = Duration::from_millis(5);

/// How long the leader waits for as many writes as usual: a part of what a disk takes.
const BATCH_WINDOW: Duration = Duration::from_micros(100);

type Write<'a> = dyn FnMut(&mut WriteTxn) -> Result<()> + Send + 'a;

pub(super) struct GroupCommit {
    /// The data file, opened a second time. The kernel reports a failed write once for each open
    /// file, so a commit, which waits through LMDB's file, does not take the news away.
    data: File,
    // The locks are the standard library's: they have no table of waiting threads that a fork could
    // copy half changed.
    queue: Mutex<Queue>,
    /// A write was finished, or the leader is done.
    changed: Condvar,
    /// Held by the thread that waits for the disk.
    flushing: Mutex<()>,
}

#[derive(Default)]
struct Queue {
    pending: Vec<PendingWrite>,
    finished: Vec<FinishedWrite>,
    next_ticket: u64,
    has_leader: bool,
    /// How many writes have been met in one transaction lately.
    expected_batch: usize,
}

struct PendingWrite {
    ticket: u64,
    write: NonNull<Write<'static>>,
}

// SAFETY: the write is Send, and outlives its entry in the queue (see `commit`).
unsafe impl Send for PendingWrite {}

struct FinishedWrite {
    ticket: u64,
    /// The number of the transaction that it was committed in.
    outcome: Result<u64>,
}

impl GroupCommit {
    pub(super) fn new(data: File) -> GroupCommit {
        GroupCommit { data, queue: Mutex::default(), changed: Condvar::new(), flushing: Mutex::default() }
    }

    /// Runs a write, alone or with others, and returns when it is committed, with the number to
    /// wait for.
    pub(super) fn commit(&self, handle: &Handle, write: &mut Write) -> Result<u64> {
        handle.shm.header().commit_state.begin_write();
        // SAFETY: only the lifetime changes. This function returns only after a leader has taken
        // the write out of the queue and finished it, and the leader does not use it after that.
        // Nothing in between unwinds: the leader catches panics.
        let write = unsafe { mem::transmute::<NonNull<Write<'_>>, NonNull<Write<'static>>>(NonNull::from(write)) };
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.pending.push(PendingWrite { ticket, write });
        loop {
            if let Some(index) = queue.finished.iter().position(|finished| finished.ticket == ticket) {
                return queue.finished.swap_remove(index).outcome;
            }
            if queue.has_leader {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.has_leader = true;
            drop(queue);
            self.run_leader(handle);
            queue = self.lock();
        }
    }

    /// Waits until a transaction is on the disk.
    pub(super) fn flush(&self, handle: &Handle, transaction: u64) -> Result<()> {
        let state = &handle.shm.header().commit_state;
        let deadline = Instant::now() + FLUSH_WAIT;
        while !state.is_on_disk(transaction) {
            handle.shm.check_disk()?;
            let changes = state.changes();
            let remaining = deadline.saturating_duration_since(Instant::now());
            if state.is_committing() && !remaining.is_zero() {
                if !state.is_on_disk(transaction) {
                    state.wait(changes, remaining);
                }
                continue;
            }
            if remaining.is_zero() {
                state.forget_writes();
            }
            let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.is_on_disk(transaction) {
                let last = handle.env.last_transaction()?;
                let flushed = self.data.sync_data().map_err(|error| os::failed("write to disk", error));
                handle.shm.note_failure(flushed)?;
                handle.shm.check_disk()?;
                state.note_on_disk(last);
            }
        }
        Ok(())
    }

    /// Runs all pending writes, and then is the leader no more.
    fn run_leader(&self, handle: &Handle) {
        // Writers that were acknowledged just now are likely to be back soon, and a wait for the
        // disk is long.
        let expected_batch = self.lock().expected_batch;
        let deadline = Instant::now() + BATCH_WINDOW;
        while self.lock().pending.len() < expected_batch && Instant::now() < deadline {
            thread::yield_now();
        }
        // Waiting for other processes first: meanwhile more writes may come.
        let txn =
            catch_unwind(AssertUnwindSafe(|| handle.write().and_then(|txn| handle.shm.check_disk().map(|()| txn))));
        let batch = mem::take(&mut self.lock().pending);
        let outcomes = txn
            .and_then(|txn| {
                let txn = match txn {
                    Ok(txn) => txn,
                    Err(error) => return Ok(Err(error)),
                };
                catch_unwind(AssertUnwindSafe(|| run_batch(txn, &batch, handle)))
            })
            .unwrap_or_else(|_| Err(panicked()));
        let mut queue = self.lock();
        queue.expected_batch = batch.len().max(expected_batch.saturating_sub(1));
        match outcomes {
            Ok((transaction, results)) => {
                for (pending, result) in batch.iter().zip(results) {
                    queue
                        .finished
                        .push(FinishedWrite { ticket: pending.ticket, outcome: result.map(|()| transaction) });
                }
            }
            Err(error) => {
                for pending in &batch {
                    queue.finished.push(FinishedWrite { ticket: pending.ticket, outcome: Err(error.clone()) });
                }
            }
        }
        queue.has_leader = false;
        drop(queue);
        self.changed.notify_all();
        handle.shm.header().commit_state.end_writes(batch.len() as u32);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of each write, and the number of the transaction that they share.
fn run_batch(mut txn: WriteTxn, batch: &[PendingWrite], handle: &Handle) -> Result<(u64, Vec<Result<()>>)> {
    let mut transaction = txn.id();
    let mut results = Vec::with_capacity(batch.len());
    for pending in batch {
        // SAFETY: its owner waits in `commit`, and only the leader, which is this thread, uses it.
        let write = unsafe { &mut *pending.write.as_ptr() };
        if batch.len() == 1 {
            results.push(write(&mut txn));
            continue;
        }
        let mut nested = txn.nested()?;
        results.push(match catch_unwind(AssertUnwindSafe(|| write(&mut nested))) {
            Ok(Ok(())) => nested.commit(),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(panicked()),
        });
    }
    if results.iter().any(Result::is_ok) {
        handle.shm.note_failure(txn.commit())?;
        // LMDB has just waited for the whole file, which includes the meta page before this one.
        handle.shm.header().commit_state.note_on_disk(transaction.saturating_sub(1));
        // If nothing had to be written there is no such transaction, and nothing to wait for.
        transaction = transaction.min(handle.env.last_transaction()?);
    }
    Ok((transaction, results))
}

fn panicked() -> Error {
    Error::fixed(ErrorKind::Panic, "a write failed because of a bug in the library")
}
