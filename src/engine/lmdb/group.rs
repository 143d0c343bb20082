//! Group commit, for `durability=power`. A commit has LMDB write the data and wait for the disk, and then write the meta page
//! without waiting for it (MDB_NOMETASYNC: a power cut undoes the last commit or does not, and never tears one). What is
//! acknowledged has to wait for its meta page as well, and shares that wait twice:
//!
//! - The writes of one process that meet become one transaction: who comes first runs those of all who wait. Each is a nested
//!   transaction, undone alone if it fails.
//! - The next commit, of whatever process, waits for the whole file and so for the meta page before it. While somebody is
//!   about to commit, nobody else asks the disk. Counters in the shared map say who is, and what is on the disk.
#![allow(unsafe_code)]

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{database::Open, ffi::WriteTxn, files, map};
use crate::error::{Error, ErrorKind, Result};

/// How long to rely on others who are about to commit: some times as long as a disk takes. One who died while he was about
/// to is not waited for a second time.
const RELIANCE: Duration = Duration::from_millis(5);

/// How long to wait for as many writes as usual: a part of what a disk takes.
const GATHERING: Duration = Duration::from_micros(100);

type Write<'a> = &'a mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send);

/// What the processes of a store tell one another. Only ever a hint when to wait, but for `on_disk`.
#[repr(C)]
pub(super) struct Shared {
    /// How many writes are about to be committed.
    committing: AtomicU32,
    /// Changes whenever some of them are done, and whenever `on_disk` does.
    turns: AtomicU32,
    /// The number of the last transaction whose meta page is on the disk.
    on_disk: AtomicU64,
}

pub(super) struct Group {
    /// The file of the data, opened once more. Whoever waits for the disk is told of a failure once for each time that the
    /// file was opened, so a commit, which waits by another one, does not take the news away.
    data: File,
    waiting: Mutex<Vec<Job>>,
    /// Held by who runs the writes of all.
    leading: Mutex<()>,
    /// Held by who asks the disk.
    flushing: Mutex<()>,
    /// How many writes have been met in one transaction lately.
    usual: AtomicUsize,
}

/// A write that waits, and where its outcome goes: the number of the transaction that it was committed in.
#[derive(Clone, Copy)]
struct Job {
    write: *mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send),
    outcome: *const Mutex<Option<Result<u64>>>,
}

// SAFETY: the write is Send, the outcome is behind a lock, and both live until the outcome is there (see `commit`).
unsafe impl Send for Job {}

impl Shared {
    /// Nobody else has the store open, so nobody is about to commit.
    pub(super) fn reset(&self, last: u64) {
        self.committing.store(0, Ordering::Release);
        self.on_disk.store(last, Ordering::Release);
    }

    fn are_done(&self, writes: u32) {
        // Not below zero: somebody may have stopped relying on them.
        let less = |count: u32| Some(count.saturating_sub(writes));
        // The closure always gives a value, so there is no error to look at.
        let _ = self.committing.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.next_turn();
    }

    fn is_on_disk(&self, number: u64) -> bool {
        self.on_disk.load(Ordering::Acquire) >= number
    }

    fn note_on_disk(&self, number: u64) {
        self.on_disk.fetch_max(number, Ordering::AcqRel);
        self.next_turn();
    }

    fn next_turn(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
        map::wake_all(&self.turns);
    }
}

impl Group {
    pub(super) fn new(data: File) -> Group {
        Group {
            data,
            waiting: Mutex::default(),
            leading: Mutex::default(),
            flushing: Mutex::default(),
            usual: AtomicUsize::default(),
        }
    }

    /// Runs a write, alone or with others, and returns when it is committed, with the number to wait for.
    pub(super) fn commit(&self, open: &Open, write: Write) -> Result<u64> {
        let shared = open.shared();
        let outcome = Mutex::new(None);
        let write: *mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send) = write;
        // SAFETY: only the lifetime changes. This function returns only after the job was taken by a leader and its outcome
        // is there, after which the leader does not touch it again; nothing in between unwinds (parking_lot's locks do not,
        // and the leader catches panics).
        let write =
            unsafe { std::mem::transmute::<*mut _, *mut (dyn FnMut(&mut WriteTxn) -> Result<()> + Send)>(write) };
        shared.committing.fetch_add(1, Ordering::AcqRel);
        self.waiting.lock().push(Job { write, outcome: &outcome });
        let leading = self.leading.lock();
        if let Some(outcome) = outcome.lock().take() {
            return outcome;
        }
        let results = catch_unwind(AssertUnwindSafe(|| self.lead(open)));
        drop(leading);
        let outcome = outcome.lock().take();
        outcome.unwrap_or_else(|| Err(results.err().map_or_else(not_run, |_| panicked())))
    }

    /// Waits until a transaction is on the disk.
    pub(super) fn flush(&self, open: &Open, number: u64) -> Result<()> {
        let (env, shared) = (&open.env, open.shared());
        let end = Instant::now() + RELIANCE;
        while !shared.is_on_disk(number) {
            open.check_disk()?;
            let turn = shared.turns.load(Ordering::Acquire);
            let left = end.saturating_duration_since(Instant::now());
            if shared.committing.load(Ordering::Acquire) > 0 && !left.is_zero() {
                if !shared.is_on_disk(number) {
                    map::wait(&shared.turns, turn, left);
                }
                continue;
            }
            if left.is_zero() {
                shared.committing.store(0, Ordering::Release);
            }
            let _flushing = self.flushing.lock();
            if !shared.is_on_disk(number) {
                let last = env.last_transaction()?;
                let flushed = self.data.sync_data().map_err(|error| files::failed("write to disk", error));
                open.note_failure(flushed)?;
                open.check_disk()?;
                shared.note_on_disk(last);
            }
        }
        Ok(())
    }

    /// Runs the writes of all who wait, and gives them their outcomes.
    fn lead(&self, open: &Open) {
        let shared = open.shared();
        // Those who were acknowledged just now are likely to be back soon, and a wait for the disk is long.
        let usual = self.usual.load(Ordering::Relaxed);
        let end = Instant::now() + GATHERING;
        while self.waiting.lock().len() < usual && Instant::now() < end {
            std::thread::yield_now();
        }
        // Waiting for other processes first: meanwhile more may come.
        let txn = open.write().and_then(|txn| open.check_disk().map(|()| txn));
        let jobs = std::mem::take(&mut *self.waiting.lock());
        self.usual.store(jobs.len().max(usual.saturating_sub(1)), Ordering::Relaxed);
        let results =
            txn.and_then(|txn| catch_unwind(AssertUnwindSafe(|| run_all(txn, &jobs, open))).map_err(|_| panicked())?);
        let mut results = match results {
            Ok((number, results)) => results.into_iter().map(|result| result.map(|()| number)).collect::<Vec<_>>(),
            Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        for job in jobs.iter().rev() {
            // SAFETY: its owner waits in `commit` until the outcome is there.
            let outcome = unsafe { &*job.outcome };
            *outcome.lock() = Some(results.pop().unwrap_or_else(|| Err(not_run())));
        }
        shared.are_done(jobs.len() as u32);
    }
}

/// The outcome of each write, and the number of the transaction that they share.
fn run_all(mut txn: WriteTxn, jobs: &[Job], open: &Open) -> Result<(u64, Vec<Result<()>>)> {
    let mut number = txn.id();
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
        open.note_failure(txn.commit())?;
        // LMDB has just waited for the whole file, in which the meta page before this one was.
        open.shared().note_on_disk(number.saturating_sub(1));
        // Where nothing had to be written there is no such transaction, and nothing to wait for.
        number = number.min(open.env.last_transaction()?);
    }
    Ok((number, results))
}

fn panicked() -> Error {
    Error::fixed(ErrorKind::Panic, "a write failed for a bug in the library")
}

fn not_run() -> Error {
    Error::fixed(ErrorKind::Panic, "a write was not run")
}
