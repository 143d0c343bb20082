//! LMDB's transactions: read, put and delete in tables of bytes.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    ffi::{CStr, c_uint},
    mem::ManuallyDrop,
    ops::Deref,
    ptr::{self, NonNull},
    sync::{Mutex, PoisonError},
};

use lmdb_master_sys as lmdb;

use super::{
    super::shm::{WriterPermit, WriterQueue},
    error::{check, damaged, found},
};
use crate::{error::Result, os::prefetch::prefetch, session::key::LookupKey};

/// The tables of a store. Their keys are in the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Table {
    /// Lookup key (32) to record.
    Sessions,
    /// Deadline (8) and lookup key (32) to what it is the deadline of.
    Expiry,
    /// Principal key (32) and lookup key (32) to nothing.
    Principals,
    /// Old lookup key (32) to alias.
    Aliases,
    /// Lookup key (32) of a session to the keys of its aliases in `Expiry` (40 each).
    OldKeys,
    /// What is known of the store itself.
    Meta,
}

const TABLE_NAMES: [&CStr; 6] = [c"sessions", c"expiry", c"principals", c"aliases", c"old keys", c"meta"];

pub(super) const TABLE_COUNT: c_uint = TABLE_NAMES.len() as c_uint;

/// What the transactions of an environment have in common.
pub(super) struct Shared {
    tables: [lmdb::MDB_dbi; TABLE_NAMES.len()],
    /// Read transactions that were reset. They are kept, because a new one takes a lock that all
    /// processes share.
    idle_reads: Mutex<Vec<NonNull<lmdb::MDB_txn>>>,
}

// SAFETY: an idle read transaction is used by one thread at a time, and belongs to none
// (MDB_NOTLS).
unsafe impl Send for Shared {}
// SAFETY: as above; the list is behind a lock.
unsafe impl Sync for Shared {}

impl Shared {
    /// Opens the tables, which are created if the file is new.
    pub(super) fn open(env: NonNull<lmdb::MDB_env>) -> Result<Shared> {
        // Reading first: if the tables exist, no writer has to be waited for.
        let reading = begin(env, None, lmdb::MDB_RDONLY)?;
        let opened = open_tables(reading, 0);
        // SAFETY: begun above; committing a read transaction keeps the handles and frees it.
        let committed = check(unsafe { lmdb::mdb_txn_commit(reading.as_ptr()) });
        let tables = match opened? {
            Some(tables) => committed.map(|()| tables)?,
            None => {
                let txn = begin(env, None, 0)?;
                let created = open_tables(txn, lmdb::MDB_CREATE).and_then(|tables| tables.ok_or_else(damaged));
                match created {
                    // SAFETY: begun above, and not used again.
                    Ok(tables) => check(unsafe { lmdb::mdb_txn_commit(txn.as_ptr()) }).map(|()| tables)?,
                    Err(error) => {
                        // SAFETY: as above.
                        unsafe { lmdb::mdb_txn_abort(txn.as_ptr()) };
                        return Err(error);
                    }
                }
            }
        };
        Ok(Shared { tables, idle_reads: Mutex::default() })
    }

    /// Ends the idle read transactions, before the environment is closed.
    pub(super) fn close(&mut self) {
        for raw in self.idle_reads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: a reset read transaction that no thread uses.
            unsafe { lmdb::mdb_txn_abort(raw.as_ptr()) };
        }
    }

    fn take_idle_read(&self) -> Option<NonNull<lmdb::MDB_txn>> {
        self.idle_reads.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep_idle_read(&self, raw: NonNull<lmdb::MDB_txn>) {
        self.idle_reads.lock().unwrap_or_else(PoisonError::into_inner).push(raw);
    }
}

/// The handles of the tables; `None` if they do not exist.
fn open_tables(txn: NonNull<lmdb::MDB_txn>, flags: c_uint) -> Result<Option<[lmdb::MDB_dbi; TABLE_NAMES.len()]>> {
    let mut tables = [0; TABLE_NAMES.len()];
    for (name, table) in TABLE_NAMES.iter().zip(&mut tables) {
        // SAFETY: a live transaction that no other thread has; the name is a C string.
        match unsafe { lmdb::mdb_dbi_open(txn.as_ptr(), name.as_ptr(), flags, table) } {
            lmdb::MDB_NOTFOUND => return Ok(None),
            code => check(code)?,
        }
    }
    Ok(Some(tables))
}

fn begin(
    env: NonNull<lmdb::MDB_env>,
    parent: Option<NonNull<lmdb::MDB_txn>>,
    flags: c_uint,
) -> Result<NonNull<lmdb::MDB_txn>> {
    let parent = parent.map_or(ptr::null_mut(), NonNull::as_ptr);
    let mut raw = ptr::null_mut();
    // SAFETY: the environment is open, the parent is a live transaction of it or none, and `raw`
    // receives the transaction.
    check(unsafe { lmdb::mdb_txn_begin(env.as_ptr(), parent, flags, &mut raw) })?;
    NonNull::new(raw).ok_or_else(damaged)
}

/// What both kinds of transaction can do: read.
pub(in super::super) struct Txn<'e> {
    shared: &'e Shared,
    raw: NonNull<lmdb::MDB_txn>,
}

/// A snapshot. No write changes what it reads, and it blocks no writer.
pub(in super::super) struct ReadTxn<'e>(Txn<'e>);

/// The one write transaction that exists now in all processes. Dropped without `commit`, it has
/// changed nothing.
pub(in super::super) struct WriteTxn<'e> {
    txn: Txn<'e>,
    /// Dropped after the transaction has ended. `None` in a nested one.
    permit: Option<WriterPermit<'e>>,
}

thread_local! {
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

impl Txn<'_> {
    /// The number of the snapshot, which is that of the last transaction in it; or of the
    /// transaction that writes.
    pub(in super::super) fn id(&self) -> u64 {
        // SAFETY: a live transaction.
        unsafe { lmdb::mdb_txn_id(self.raw.as_ptr()) as u64 }
    }

    fn handle(&self, table: Table) -> lmdb::MDB_dbi {
        self.shared.tables[table as usize]
    }

    /// The record of a session, whose first cache lines are being fetched.
    pub(in super::super) fn session(&self, key: &LookupKey) -> Result<Option<&[u8]>> {
        const LINE: usize = 64;
        const MAX_LINES: usize = 8;
        let found = self.get(Table::Sessions, &key.bytes())?;
        if let Some(bytes) = found {
            // All at once, instead of each when the one before it has come.
            (0..bytes.len().div_ceil(LINE).min(MAX_LINES)).for_each(|i| prefetch(bytes[i * LINE..].as_ptr()));
        }
        Ok(found)
    }

    pub(in super::super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>> {
        let mut key = as_val(key);
        let mut value = as_val(&[]);
        // SAFETY: a live transaction and a table of its environment; LMDB only reads the key.
        let code = unsafe { lmdb::mdb_get(self.raw.as_ptr(), self.handle(table), &mut key, &mut value) };
        // SAFETY: what LMDB points to is in the map, and stays as it is until the transaction ends
        // or writes: both need it unborrowed.
        found(code, || unsafe { as_bytes(&value) })
    }

    /// The first entry whose key is not before `key`.
    pub(in super::super) fn first_from(&self, table: Table, key: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
        self.first_in(self.handle(table), key)
    }

    /// The same in any table, by its handle.
    pub(super) fn first_in(&self, handle: lmdb::MDB_dbi, key: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
        let mut cursor = ptr::null_mut();
        // SAFETY: a live transaction and a table of its environment; `cursor` receives the cursor.
        check(unsafe { lmdb::mdb_cursor_open(self.raw.as_ptr(), handle, &mut cursor) })?;
        let at = if key.is_empty() { lmdb::MDB_FIRST } else { lmdb::MDB_SET_RANGE };
        let mut key = as_val(key);
        let mut value = as_val(&[]);
        // SAFETY: the cursor is open; LMDB sets key and value to what it finds.
        let code = unsafe { lmdb::mdb_cursor_get(cursor, &mut key, &mut value, at) };
        // SAFETY: opened above; closed once, before its transaction ends.
        unsafe { lmdb::mdb_cursor_close(cursor) };
        // SAFETY: as in `get`.
        found(code, || unsafe { (as_bytes(&key), as_bytes(&value)) })
    }

    /// How many entries a table has.
    pub(in super::super) fn entries(&self, table: Table) -> Result<u64> {
        // SAFETY: a plain struct of numbers, for which zeros are fine.
        let mut stat: lmdb::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: a live transaction and a table of its environment; `stat` receives the numbers.
        check(unsafe { lmdb::mdb_stat(self.raw.as_ptr(), self.handle(table), &mut stat) })?;
        Ok(stat.ms_entries as u64)
    }
}

impl<'e> ReadTxn<'e> {
    pub(super) fn begin(env: NonNull<lmdb::MDB_env>, shared: &'e Shared) -> Result<ReadTxn<'e>> {
        let raw = match shared.take_idle_read() {
            None => begin(env, None, lmdb::MDB_RDONLY)?,
            Some(raw) => {
                // SAFETY: a read transaction of this environment that was reset, and that no other
                // thread has now.
                if let Err(error) = check(unsafe { lmdb::mdb_txn_renew(raw.as_ptr()) }) {
                    // SAFETY: as above; it is not used again.
                    unsafe { lmdb::mdb_txn_abort(raw.as_ptr()) };
                    return Err(error);
                }
                raw
            }
        };
        Ok(ReadTxn(Txn { shared, raw }))
    }
}

impl<'e> WriteTxn<'e> {
    /// Waits until no other process and no other thread writes.
    pub(super) fn begin(
        env: NonNull<lmdb::MDB_env>,
        shared: &'e Shared,
        queue: &'e WriterQueue,
    ) -> Result<WriteTxn<'e>> {
        let permit = queue.acquire();
        IS_WRITING.set(true);
        let raw = begin(env, None, 0).inspect_err(|_| IS_WRITING.set(false))?;
        Ok(WriteTxn { txn: Txn { shared, raw }, permit: Some(permit) })
    }

    /// Whether this thread is in the middle of one.
    pub(in super::super) fn is_in_this_thread() -> bool {
        IS_WRITING.get()
    }

    /// A transaction inside this one, which is undone alone if it is dropped. Not if the file is
    /// written through the map.
    pub(in super::super) fn nested(&mut self) -> Result<WriteTxn<'_>> {
        // SAFETY: a live transaction; its environment outlives it.
        let env = NonNull::new(unsafe { lmdb::mdb_txn_env(self.raw.as_ptr()) }).ok_or_else(damaged)?;
        // The outer transaction stays untouched as long as the inner one borrows it.
        let raw = begin(env, Some(self.raw), 0)?;
        Ok(WriteTxn { txn: Txn { shared: self.shared, raw }, permit: None })
    }

    pub(in super::super) fn commit(self) -> Result<()> {
        let mut ended = ManuallyDrop::new(self);
        // SAFETY: live until now, and not used again: LMDB frees it, whether or not it succeeds.
        let committed = check(unsafe { lmdb::mdb_txn_commit(ended.raw.as_ptr()) });
        ended.release();
        committed
    }

    fn release(&mut self) {
        if let Some(permit) = self.permit.take() {
            IS_WRITING.set(false);
            drop(permit);
        }
    }

    pub(in super::super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        let mut key = as_val(key);
        let mut value = as_val(value);
        // SAFETY: a live write transaction and a table of its environment; LMDB only reads key and
        // value.
        check(unsafe { lmdb::mdb_put(self.raw.as_ptr(), self.handle(table), &mut key, &mut value, 0) })
    }

    /// Room for a value of `len` bytes, to be written by the caller at once: its content has no
    /// meaning.
    pub(in super::super) fn reserve(&mut self, table: Table, key: &[u8], len: usize) -> Result<&mut [u8]> {
        let mut key = as_val(key);
        let mut value = lmdb::MDB_val { mv_size: len, mv_data: ptr::null_mut() };
        let handle = self.handle(table);
        // SAFETY: a live write transaction and a table of its environment; LMDB sets `value` to the
        // room.
        check(unsafe { lmdb::mdb_put(self.raw.as_ptr(), handle, &mut key, &mut value, lmdb::MDB_RESERVE) })?;
        if value.mv_data.is_null() || value.mv_size != len {
            return Err(damaged());
        }
        // SAFETY: `len` bytes of a page that is this transaction's own, initialized (a page of the
        // file, or zeroed: no MDB_NOMEMINIT), valid until the next write, which needs `self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(value.mv_data.cast(), len) })
    }

    /// False if there was none.
    pub(in super::super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        let mut key = as_val(key);
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
        // SAFETY: live until now; a reset transaction holds no snapshot, and is renewed before it
        // is used again.
        unsafe { lmdb::mdb_txn_reset(self.raw.as_ptr()) };
        self.shared.keep_idle_read(self.raw);
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        // SAFETY: live until now (`commit` does not drop it), and not used again.
        unsafe { lmdb::mdb_txn_abort(self.raw.as_ptr()) };
        self.release();
    }
}

fn as_val(bytes: &[u8]) -> lmdb::MDB_val {
    lmdb::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr().cast_mut().cast() }
}

/// # Safety
/// LMDB has set `val`, and what it points to stays valid and unchanged for `'a`.
unsafe fn as_bytes<'a>(val: &lmdb::MDB_val) -> &'a [u8] {
    if val.mv_size == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(val.mv_data.cast(), val.mv_size) }
}
