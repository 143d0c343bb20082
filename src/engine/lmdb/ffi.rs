//! LMDB's C API, as far as this engine needs it, made safe. It knows tables of bytes and nothing of sessions.
//!
//! Not `heed`, because of fork: its list of open environments refuses to open one again in the child, and an inherited
//! one works there as if it were the child's, under the parent's reader slots. Here a child leaves what it inherited
//! alone and opens the directory anew (see `database`).
//!
//! Threads: an `Env` is shared by all of them. A read transaction belongs to who began it; idle ones are kept, because a
//! new one takes a lock that all processes share. The write transaction is one for all processes.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ops::Deref,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::Ordering,
};

use lmdb_master_sys as lmdb;
use parking_lot::Mutex;

use super::{
    files,
    gate::{Gate, Turn},
    map,
};
use crate::{
    error::{Error, ErrorKind, Result},
    session::key::LookupKey,
};

/// The tables of a store. Their keys are in the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// LookupKey (32) to record.
    Sessions,
    /// Deadline (8) and key (32) to what it is the deadline of.
    Expiry,
    /// Principal (32) and key (32) to nothing.
    Principals,
    /// Old key (32) to alias.
    Aliases,
    /// What is known of the store itself.
    Meta,
}

const TABLES: [&CStr; 5] = [c"sessions", c"expiry", c"principals", c"aliases", c"meta"];

/// As many read transactions as can be under way at once, over all processes.
pub(super) const READERS: c_uint = 2048;

pub(super) struct Env {
    raw: NonNull<lmdb::MDB_env>,
    handles: [lmdb::MDB_dbi; TABLES.len()],
    idle: Mutex<Vec<NonNull<lmdb::MDB_txn>>>,
}

// SAFETY: LMDB's environment may be used by any thread (MDB_NOTLS: read transactions are not tied to one either), and
// idle transactions are used by one at a time.
unsafe impl Send for Env {}
// SAFETY: as above.
unsafe impl Sync for Env {}

/// A read that is under way.
pub(super) struct Reading {
    pub process: u32,
    /// The number of the last transaction in its snapshot.
    pub snapshot: u64,
}

/// What both kinds of transaction can do: read.
pub(super) struct Txn<'e> {
    env: &'e Env,
    raw: NonNull<lmdb::MDB_txn>,
}

/// A snapshot. Nothing that others do changes what it reads, and it holds up nobody.
pub(super) struct ReadTxn<'e>(Txn<'e>);

/// The only write transaction there is now, in any process. Dropped without `commit`, nothing has happened.
pub(super) struct WriteTxn<'e> {
    txn: Txn<'e>,
    /// Ends after the transaction. The outer transaction's, if this is a nested one.
    turn: Option<(Turn<'e>, Busy)>,
}

/// Says of this thread that it writes.
struct Busy;

thread_local! {
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

impl Busy {
    fn begin() -> Busy {
        IS_BUSY.set(true);
        Busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        IS_BUSY.set(false);
    }
}

impl Env {
    /// Opens the files in a directory, with `map_size` bytes at the most. The same directory must not be open in this process
    /// already.
    ///
    /// Without `survives_power_cut` the file is written through the map and never synced: what was committed outlives the
    /// processes, but a machine that stops may tear the file.
    pub(super) fn open(directory: &Path, map_size: usize, survives_power_cut: bool) -> Result<Env> {
        let flags = match survives_power_cut {
            // The meta page is synced by whoever waits for it: see `group`.
            true => lmdb::MDB_NOMETASYNC,
            false => lmdb::MDB_NOSYNC | lmdb::MDB_WRITEMAP,
        };
        free_own_slots(&directory.join("lock.mdb"))?;
        Env::open_with(directory, map_size, flags)
    }

    /// Makes a data file with empty tables. It is not written through a map: where the disk is full, that is a signal.
    pub(super) fn make(file: &Path, map_size: usize) -> Result<()> {
        Env::open_with(file, map_size, lmdb::MDB_NOSUBDIR | lmdb::MDB_NOLOCK | lmdb::MDB_NOSYNC).map(drop)
    }

    fn open_with(path: &Path, map_size: usize, flags: c_uint) -> Result<Env> {
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::fixed(ErrorKind::Invalid, "the path has a NUL in it"))?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is where the new environment goes.
        check(unsafe { lmdb::mdb_env_create(&mut raw) })?;
        let raw = NonNull::new(raw).ok_or_else(Error::no_memory)?;
        // From here on dropping it closes it, as LMDB asks for also when opening failed.
        let mut env = Env { raw, handles: [0; TABLES.len()], idle: Mutex::default() };
        let flags = flags | lmdb::MDB_NOTLS | lmdb::MDB_NORDAHEAD;
        // SAFETY: the environment was created above and is not open yet; the path is a C string.
        unsafe {
            check(lmdb::mdb_env_set_maxdbs(raw.as_ptr(), TABLES.len() as c_uint))?;
            check(lmdb::mdb_env_set_maxreaders(raw.as_ptr(), READERS))?;
            check(lmdb::mdb_env_set_mapsize(raw.as_ptr(), map_size))?;
            check(lmdb::mdb_env_open(raw.as_ptr(), path.as_ptr(), flags, 0o600))?;
        }
        env.open_tables()?;
        Ok(env)
    }

    fn open_tables(&mut self) -> Result<()> {
        // Reading first: where the tables are there, no writer has to be waited for.
        let mut handles = [0; TABLES.len()];
        let mut open = |raw: NonNull<lmdb::MDB_txn>, flags| {
            TABLES.iter().zip(&mut handles).try_for_each(|(name, handle)| {
                // SAFETY: a live transaction of this environment, and no other thread has it yet; the name is a C string.
                match unsafe { lmdb::mdb_dbi_open(raw.as_ptr(), name.as_ptr(), flags, handle) } {
                    lmdb::MDB_NOTFOUND => Err(None),
                    code => check(code).map_err(Some),
                }
            })
        };
        let reading = self.begin(lmdb::MDB_RDONLY)?;
        let opened = open(reading, 0);
        // SAFETY: begun above; committing a read transaction keeps the handles and frees it.
        let committed = unsafe { lmdb::mdb_txn_commit(reading.as_ptr()) };
        match opened {
            Ok(()) => check(committed)?,
            Err(Some(error)) => return Err(error),
            Err(None) => {
                let txn = WriteTxn { txn: Txn { env: self, raw: self.begin(0)? }, turn: None };
                open(txn.raw, lmdb::MDB_CREATE).map_err(|error| error.unwrap_or_else(damaged))?;
                txn.commit()?;
            }
        }
        self.handles = handles;
        Ok(())
    }

    fn begin(&self, flags: c_uint) -> Result<NonNull<lmdb::MDB_txn>> {
        let mut raw = ptr::null_mut();
        // SAFETY: the environment is open, and `raw` is where the transaction goes.
        check(unsafe { lmdb::mdb_txn_begin(self.raw.as_ptr(), ptr::null_mut(), flags, &mut raw) })?;
        NonNull::new(raw).ok_or_else(damaged)
    }

    pub(super) fn read(&self) -> Result<ReadTxn<'_>> {
        let idle = self.idle.lock().pop();
        let raw = match idle {
            Some(raw) => {
                // SAFETY: a read transaction of this environment that was reset, and is nobody else's now.
                if let Err(error) = check(unsafe { lmdb::mdb_txn_renew(raw.as_ptr()) }) {
                    // SAFETY: as above; it is not used again.
                    unsafe { lmdb::mdb_txn_abort(raw.as_ptr()) };
                    return Err(error);
                }
                raw
            }
            None => match self.begin(lmdb::MDB_RDONLY) {
                // Processes that died may have left their slots.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.clear_dead_readers()?;
                    self.begin(lmdb::MDB_RDONLY)?
                }
                begun => begun?,
            },
        };
        Ok(ReadTxn(Txn { env: self, raw }))
    }

    /// Waits until no other process and no other thread writes.
    pub(super) fn write<'e>(&'e self, gate: &'e Gate) -> Result<WriteTxn<'e>> {
        let turn = (gate.pass(), Busy::begin());
        Ok(WriteTxn { txn: Txn { env: self, raw: self.begin(0)? }, turn: Some(turn) })
    }

    /// Writes everything that was committed to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        // SAFETY: the environment is open.
        check(unsafe { lmdb::mdb_env_sync(self.raw.as_ptr(), 1) })
    }

    /// The number of the last page that was ever used.
    pub(super) fn last_page(&self) -> Result<usize> {
        Ok(self.info()?.me_last_pgno)
    }

    /// The number of the last transaction that was committed.
    pub(super) fn last_transaction(&self) -> Result<u64> {
        Ok(self.info()?.me_last_txnid as u64)
    }

    fn info(&self) -> Result<lmdb::MDB_envinfo> {
        // SAFETY: a plain struct of numbers, for which zeros are fine.
        let mut info: lmdb::MDB_envinfo = unsafe { std::mem::zeroed() };
        // SAFETY: the environment is open, and `info` is where the numbers go.
        check(unsafe { lmdb::mdb_env_info(self.raw.as_ptr(), &mut info) })?;
        Ok(info)
    }

    /// The read that is under way in the oldest snapshot, of any process.
    pub(super) fn oldest_read(&self) -> Result<Option<Reading>> {
        // LMDB tells of its readers in lines of text only: process, thread, snapshot (or '-').
        extern "C" fn line(text: *const c_char, oldest: *mut c_void) -> c_int {
            // SAFETY: LMDB hands over a C string, and what `oldest_read` gave it.
            let (text, oldest) = unsafe { (CStr::from_ptr(text), &mut *oldest.cast::<Option<Reading>>()) };
            let mut words = text.to_str().unwrap_or_default().split_ascii_whitespace();
            let process = words.next().and_then(|word| word.parse().ok());
            let snapshot = words.nth(1).and_then(|word| word.parse().ok());
            if let (Some(process), Some(snapshot)) = (process, snapshot)
                && oldest.as_ref().is_none_or(|oldest| snapshot < oldest.snapshot)
            {
                *oldest = Some(Reading { process, snapshot });
            }
            0
        }
        let mut oldest: Option<Reading> = None;
        // SAFETY: the environment is open, and `line` takes `oldest` for what it is, during this call only.
        let code = unsafe { lmdb::mdb_reader_list(self.raw.as_ptr(), Some(line), (&raw mut oldest).cast()) };
        check(code.min(0)).map(|()| oldest)
    }

    pub(super) fn page_size(&self) -> Result<usize> {
        // SAFETY: a plain struct of numbers, for which zeros are fine.
        let mut stat: lmdb::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: the environment is open, and `stat` is where the numbers go.
        check(unsafe { lmdb::mdb_env_stat(self.raw.as_ptr(), &mut stat) })?;
        Ok(stat.ms_psize as usize)
    }

    /// Frees the reader slots of processes that died: each would keep the pages of its snapshot from being used again.
    pub(super) fn clear_dead_readers(&self) -> Result<()> {
        let mut dead = 0;
        // SAFETY: the environment is open, and `dead` is where the count goes.
        check(unsafe { lmdb::mdb_reader_check(self.raw.as_ptr(), &mut dead) })
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        for raw in self.idle.get_mut().drain(..) {
            // SAFETY: reset read transactions that nobody uses.
            unsafe { lmdb::mdb_txn_abort(raw.as_ptr()) };
        }
        // SAFETY: transactions borrow the environment, so none is left. (In a forked child this is not reached: see
        // `database`.)
        unsafe { lmdb::mdb_env_close(self.raw.as_ptr()) };
    }
}

impl Txn<'_> {
    /// The number of the snapshot, which is that of the last transaction in it; or of the transaction that writes.
    pub(super) fn id(&self) -> u64 {
        // SAFETY: a live transaction.
        unsafe { lmdb::mdb_txn_id(self.raw.as_ptr()) as u64 }
    }

    fn handle(&self, table: Table) -> lmdb::MDB_dbi {
        self.env.handles[table as usize]
    }

    /// The record of a session, the beginning of which is on its way to the cache.
    pub(super) fn session(&self, key: &LookupKey) -> Result<Option<&[u8]>> {
        const LINE: usize = 64;
        const MOST: usize = 8;
        let found = self.get(Table::Sessions, &key.bytes())?;
        if let Some(bytes) = found {
            // All at once, instead of each when the one before it has come.
            (0..bytes.len().div_ceil(LINE).min(MOST)).for_each(|i| map::prefetch(bytes[i * LINE..].as_ptr()));
        }
        Ok(found)
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>> {
        let (mut key, mut value) = (val(key), val(&[]));
        // SAFETY: a live transaction and a table of its environment; LMDB only reads the key.
        let code = unsafe { lmdb::mdb_get(self.raw.as_ptr(), self.handle(table), &mut key, &mut value) };
        // SAFETY: what LMDB points to is in the map, and stays as it is until the transaction ends or writes: both need it
        // unborrowed.
        found(code, || unsafe { bytes(&value) })
    }

    /// The first entry whose key is not before `key`.
    pub(super) fn first_from(&self, table: Table, key: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
        self.first_in(self.handle(table), key)
    }

    fn first_in(&self, handle: lmdb::MDB_dbi, key: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
        let mut cursor = ptr::null_mut();
        // SAFETY: a live transaction and a table of its environment; `cursor` is where the cursor goes.
        check(unsafe { lmdb::mdb_cursor_open(self.raw.as_ptr(), handle, &mut cursor) })?;
        let at = if key.is_empty() { lmdb::MDB_FIRST } else { lmdb::MDB_SET_RANGE };
        let (mut key, mut value) = (val(key), val(&[]));
        // SAFETY: the cursor is open; LMDB sets key and value to what it finds.
        let code = unsafe { lmdb::mdb_cursor_get(cursor, &mut key, &mut value, at) };
        // SAFETY: opened above; closed once, before its transaction ends.
        unsafe { lmdb::mdb_cursor_close(cursor) };
        // SAFETY: as in `get`.
        found(code, || unsafe { (bytes(&key), bytes(&value)) })
    }

    /// How many entries a table has.
    pub(super) fn entries(&self, table: Table) -> Result<u64> {
        // SAFETY: a plain struct of numbers, for which zeros are fine.
        let mut stat: lmdb::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: a live transaction and a table of its environment; `stat` is where the numbers go.
        check(unsafe { lmdb::mdb_stat(self.raw.as_ptr(), self.handle(table), &mut stat) })?;
        Ok(stat.ms_entries as u64)
    }
}

impl ReadTxn<'_> {
    /// Whether at least `wanted` pages are free again, as far as the free list says.
    pub(super) fn has_free_pages(&self, wanted: usize) -> Result<bool> {
        // LMDB's table 0: number of the transaction to pages that it freed, the first word of which is their count.
        const FREE: lmdb::MDB_dbi = 0;
        let (mut next, mut pages) = (0_usize, 0_usize);
        while let Some((key, value)) = self.first_in(FREE, &next.to_ne_bytes())? {
            let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| usize::from_ne_bytes(*word));
            pages = word(value).saturating_add(pages);
            if pages >= wanted {
                return Ok(true);
            }
            // A file that is damaged while it is open may lead round in a circle.
            let after = word(key).saturating_add(1);
            if after <= next {
                break;
            }
            next = after;
        }
        Ok(false)
    }
}

impl WriteTxn<'_> {
    /// Whether this thread is in the middle of one.
    pub(super) fn is_in_this_thread() -> bool {
        IS_BUSY.get()
    }

    /// A step of its own inside this one: undone alone if it is dropped. Not where the file is written through the map.
    pub(super) fn nested(&mut self) -> Result<WriteTxn<'_>> {
        let mut raw = ptr::null_mut();
        // SAFETY: the outer transaction is live, and stays untouched as long as it is borrowed by the inner one.
        check(unsafe { lmdb::mdb_txn_begin(self.env.raw.as_ptr(), self.raw.as_ptr(), 0, &mut raw) })?;
        Ok(WriteTxn { txn: Txn { env: self.env, raw: NonNull::new(raw).ok_or_else(damaged)? }, turn: None })
    }

    pub(super) fn commit(mut self) -> Result<()> {
        let (raw, turn) = (self.raw, self.turn.take());
        std::mem::forget(self);
        // SAFETY: live until now, and not used again: LMDB frees it, whether or not it succeeds.
        let committed = check(unsafe { lmdb::mdb_txn_commit(raw.as_ptr()) });
        drop(turn);
        committed
    }

    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        let (mut key, mut value) = (val(key), val(value));
        // SAFETY: a live write transaction and a table of its environment; LMDB only reads key and value.
        check(unsafe { lmdb::mdb_put(self.raw.as_ptr(), self.handle(table), &mut key, &mut value, 0) })
    }

    /// Room for a value of `len` bytes, to be written by the caller at once: what is in it is of no meaning.
    pub(super) fn reserve(&mut self, table: Table, key: &[u8], len: usize) -> Result<&mut [u8]> {
        let (mut key, mut value) = (val(key), lmdb::MDB_val { mv_size: len, mv_data: ptr::null_mut() });
        let (raw, handle) = (self.raw.as_ptr(), self.handle(table));
        // SAFETY: a live write transaction and a table of its environment; LMDB sets `value` to the room.
        check(unsafe { lmdb::mdb_put(raw, handle, &mut key, &mut value, lmdb::MDB_RESERVE) })?;
        if value.mv_data.is_null() || value.mv_size != len {
            return Err(damaged());
        }
        // SAFETY: `len` bytes of a page that is this transaction's own, initialized (a page of the file, or zeroed: no
        // MDB_NOMEMINIT), valid until the next write, which needs `self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(value.mv_data.cast(), len) })
    }

    /// False if there was none.
    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        let mut key = val(key);
        // SAFETY: a live write transaction and a table of its environment; LMDB only reads the key.
        let code = unsafe { lmdb::mdb_del(self.raw.as_ptr(), self.handle(table), &mut key, ptr::null_mut()) };
        Ok(found(code, || ())?.is_some())
    }
}

impl<'e> Deref for ReadTxn<'e> {
    type Target = Txn<'e>;

    fn deref(&self) -> &Txn<'e> {
        &self.0
    }
}

impl<'e> Deref for WriteTxn<'e> {
    type Target = Txn<'e>;

    fn deref(&self) -> &Txn<'e> {
        &self.txn
    }
}

impl Drop for ReadTxn<'_> {
    fn drop(&mut self) {
        // SAFETY: live until now; a reset transaction holds no snapshot, and is renewed before it is used again.
        unsafe { lmdb::mdb_txn_reset(self.raw.as_ptr()) };
        self.env.idle.lock().push(self.raw);
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        // SAFETY: live until now (`commit` forgets it), and not used again.
        unsafe { lmdb::mdb_txn_abort(self.raw.as_ptr()) };
    }
}

/// Frees the slots of readers that are said to be this process's. It has none yet, so they are of the program that it was
/// before (a server that starts itself anew) or of a process that had its number: nobody else would ever find them dead.
///
/// Of the lock file of LMDB 0.9.70: a magic number, a word, the last transaction, the number of slots that were ever used, one
/// lock and then another one, each beginning a cache line; then the slots, each a cache line: snapshot, process, thread.
fn free_own_slots(lock_file: &Path) -> Result<()> {
    const LINE: usize = 64;
    const MAGIC: u32 = 0xBEEF_C0DE;
    const USED: usize = 16;
    const LOCK: usize = size_of::<libc::pthread_mutex_t>();
    const SLOTS: usize = (USED + 8 + LOCK).next_multiple_of(LINE) + LOCK.next_multiple_of(LINE);
    const PROCESS: usize = 8;
    let file = files::open(lock_file)?;
    let len = file.metadata().map_err(|error| files::failed("look at lock.mdb", error))?.len() as usize;
    if len < SLOTS {
        return Ok(());
    }
    let memory = map::Words::new(&file, len)?;
    if memory.at(0).load(Ordering::Acquire) != MAGIC {
        return Ok(());
    }
    let used = memory.at(USED).load(Ordering::Acquire) as usize;
    for slot in 0..used.min((len - SLOTS) / LINE) {
        // As LMDB does when it closes: a slot with a number is nobody else's to change, unless its process is found dead.
        let process = memory.at(SLOTS + slot * LINE + PROCESS);
        let _ = process.compare_exchange(std::process::id(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }
    Ok(())
}

fn val(bytes: &[u8]) -> lmdb::MDB_val {
    lmdb::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr().cast_mut().cast() }
}

/// # Safety
/// LMDB has set `val`, and what it points to stays valid and unchanged for `'a`.
unsafe fn bytes<'a>(val: &lmdb::MDB_val) -> &'a [u8] {
    if val.mv_size == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(val.mv_data.cast(), val.mv_size) }
}

fn found<T>(code: c_int, value: impl FnOnce() -> T) -> Result<Option<T>> {
    match code {
        lmdb::MDB_NOTFOUND => Ok(None),
        code => check(code).map(|()| Some(value())),
    }
}

fn check(code: c_int) -> Result<()> {
    Err(match code {
        lmdb::MDB_SUCCESS => return Ok(()),
        lmdb::MDB_MAP_FULL | lmdb::MDB_TXN_FULL => no_room(),
        lmdb::MDB_READERS_FULL => Error::fixed(ErrorKind::Busy, "too many reads are under way at once"),
        libc::ENOMEM => Error::no_memory(),
        lmdb::MDB_VERSION_MISMATCH => Error::fixed(ErrorKind::Corrupt, "data.mdb is of another version of LMDB"),
        // LMDB's own, all of which mean that the file is not what it should be.
        code if code < 0 => damaged(),
        code => files::failed("read or write", std::io::Error::from_raw_os_error(code)),
    })
}

/// `FULL` for want of pages, not by a limit.
pub(super) fn no_room() -> Error {
    Error::fixed(ErrorKind::Full, "the store is full: the file of its directory has no room")
}

fn damaged() -> Error {
    Error::fixed(
        ErrorKind::Corrupt,
        "data.mdb is damaged: close the store everywhere and open it again to have it checked",
    )
}
