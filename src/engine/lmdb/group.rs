//! Group commit, for `durability=power`: writers of one process that meet share one transaction and so one flush of the
//! data, and all who wait for the disk share the flush of the meta page, which is outside of LMDB's lock: so while one
//! group waits for it, the next one, of this process or another, is already at work.
//!
//! Each write is a nested transaction, undone alone if it fails. Who comes first runs the writes of all who wait.
#![allow(unsafe_code)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::ffi::{Env, WriteTxn};
use crate::error::{Error, ErrorKind, Result};

type Write<'a> = &'a mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send);

#[derive(Default)]
pub(super) struct Group {
    waiting: Mutex<Vec<Job>>,
    /// Held by who runs the writes of all.
    leading: Mutex<()>,
    /// How many transactions were committed, and how many of them are on the disk.
    committed: AtomicU64,
    flushed: Mutex<u64>,
}

/// A write that waits, and where its outcome goes: the transaction that it was committed in.
#[derive(Clone, Copy)]
struct Job {
    write: *mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send),
    outcome: *const Mutex<Option<Result<u64>>>,
}

// SAFETY: the write is Send, the outcome is behind a lock, and both live until the outcome is there (see `commit`).
unsafe impl Send for Job {}

impl Group {
    /// Runs a write, alone or with others, and returns when it is committed, with the number to wait for.
    pub(super) fn commit(&self, env: &Env, write: Write) -> Result<u64> {
        let outcome = Mutex::new(None);
        let write: *mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send) = write;
        // SAFETY: only the lifetime changes. This function returns only after the job was taken by a leader and its outcome
        // is there, after which the leader does not touch it again; nothing in between unwinds (parking_lot's locks do not,
        // and the leader catches panics).
        let write =
            unsafe { std::mem::transmute::<*mut _, *mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send)>(write) };
        self.waiting.lock().push(Job { write, outcome: &outcome });
        let leading = self.leading.lock();
        if let Some(outcome) = outcome.lock().take() {
            return outcome;
        }
        let jobs = std::mem::take(&mut *self.waiting.lock());
        self.run(env, &jobs);
        drop(leading);
        let outcome = outcome.lock().take();
        outcome.unwrap_or_else(|| Err(panicked()))
    }

    /// Waits until a transaction is on the disk.
    pub(super) fn flush(&self, env: &Env, number: u64) -> Result<()> {
        let mut flushed = self.flushed.lock();
        if *flushed < number {
            let committed = self.committed.load(Ordering::Acquire);
            env.flush()?;
            *flushed = committed;
        }
        Ok(())
    }

    fn run(&self, env: &Env, jobs: &[Job]) {
        let results = catch_unwind(AssertUnwindSafe(|| run_all(env, jobs)));
        let number = self.committed.load(Ordering::Relaxed) + 1;
        let results = match results {
            Ok(Ok(results)) => {
                self.committed.store(number, Ordering::Release);
                results
            }
            Ok(Err(error)) => jobs.iter().map(|_| Err(error.clone())).collect(),
            Err(_) => jobs.iter().map(|_| Err(panicked())).collect(),
        };
        for (job, result) in jobs.iter().zip(results) {
            // SAFETY: its owner waits in `commit` until the outcome is there.
            let outcome = unsafe { &*job.outcome };
            *outcome.lock() = Some(result.map(|()| number));
        }
    }
}

/// The outcome of each write, if the transaction that they share was committed.
fn run_all(env: &Env, jobs: &[Job]) -> Result<Vec<Result<()>>> {
    let mut txn = env.write()?;
    let results = jobs
        .iter()
        .map(|job| {
            // SAFETY: its owner waits in `commit`, and only the leader, which is this thread, uses it.
            let write = unsafe { &mut *job.write };
            if jobs.len() == 1 {
                return write(&mut txn);
            }
            let mut nested = txn.nested()?;
            match catch_unwind(AssertUnwindSafe(|| write(&mut nested))) {
                Ok(Ok(())) => nested.commit(),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(panicked()),
            }
        })
        .collect::<Vec<_>>();
    if results.iter().any(Result::is_ok) {
        txn.commit()?;
    }
    Ok(results)
}

fn panicked() -> Error {
    Error::fixed(ErrorKind::Panic, "a write failed for a bug in the library")
}
