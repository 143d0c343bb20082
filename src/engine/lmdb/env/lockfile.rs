//! LMDB's lock file, as its version 0.9.70 lays it out: a magic number, a word, the last
//! transaction, the number of slots that were ever used, two locks, each of which begins a cache
//! line; then the slots of the readers, a cache line each: snapshot, process, thread.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    fs::File,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use lmdb_master_sys as lmdb;

use super::{
    super::os::{self, Mapping},
    error::check,
};
use crate::error::Result;

const LINE: usize = 64;
const MAGIC: u32 = 0xBEEF_C0DE;
const USED_SLOTS: usize = 16;
const LOCK: usize = size_of::<libc::pthread_mutex_t>();
const SLOTS: usize = (USED_SLOTS + 8 + LOCK).next_multiple_of(LINE) + LOCK.next_multiple_of(LINE);
const PROCESS_IN_SLOT: usize = 8;

/// As many read transactions as can be under way at once, over all processes.
pub(super) const MAX_READERS: u32 = 2048;

/// A length that the file never exceeds: the slots, and a page for what comes before them.
pub(in super::super) const MAX_LEN: u64 = MAX_READERS as u64 * LINE as u64 + 4096;

/// A read that is under way.
pub(in super::super) struct ActiveReader {
    pub process: u32,
    /// The number of the last transaction in its snapshot.
    pub snapshot: u64,
}

/// Frees the slots of readers that have this process's id. This process has none yet, so they
/// belong to the program that it was before (a server that executes itself again) or to a dead
/// process that had its id: no other process would ever find them dead.
pub(super) fn free_own_slots(file: &File) -> Result<()> {
    let len = file.metadata().map_err(|error| os::failed("look at lock.mdb", error))?.len() as usize;
    if len < SLOTS {
        return Ok(());
    }
    let memory = Mapping::new(file, len)?;
    let word = |byte| memory.at::<AtomicU32>(byte);
    if word(0).load(Ordering::Acquire) != MAGIC {
        return Ok(());
    }
    let used = word(USED_SLOTS).load(Ordering::Acquire) as usize;
    for slot in 0..used.min((len - SLOTS) / LINE) {
        // As LMDB does when it closes: only the process that has a slot changes it, unless that
        // process is found dead.
        let process = word(SLOTS + slot * LINE + PROCESS_IN_SLOT);
        let _ = process.compare_exchange(std::process::id(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }
    Ok(())
}

/// The read in the oldest snapshot, of any process.
pub(super) fn oldest_reader(env: NonNull<lmdb::MDB_env>) -> Result<Option<ActiveReader>> {
    // LMDB reports its readers as lines of text only: process, thread, snapshot (or '-').
    extern "C" fn line(text: *const c_char, oldest: *mut c_void) -> c_int {
        // SAFETY: LMDB passes a C string, and what `oldest_reader` gave it.
        let (text, oldest) = unsafe { (CStr::from_ptr(text), &mut *oldest.cast::<Option<ActiveReader>>()) };
        let mut words = text.to_str().unwrap_or_default().split_ascii_whitespace();
        let process = words.next().and_then(|word| word.parse().ok());
        let snapshot = words.nth(1).and_then(|word| word.parse().ok());
        if let (Some(process), Some(snapshot)) = (process, snapshot)
            && oldest.as_ref().is_none_or(|oldest| snapshot < oldest.snapshot)
        {
            *oldest = Some(ActiveReader { process, snapshot });
        }
        0
    }
    let mut oldest: Option<ActiveReader> = None;
    // SAFETY: the environment is open, and `line` takes `oldest` for what it is, during this call
    // only.
    let code = unsafe { lmdb::mdb_reader_list(env.as_ptr(), Some(line), (&raw mut oldest).cast()) };
    check(code.min(0)).map(|()| oldest)
}
