//! LMDB's C API, as far as this engine needs it, made safe. It knows tables of bytes and nothing of
//! sessions.
//!
//! Not `heed`, because of fork: its list of open environments refuses to open one again in the
//! child, and an inherited environment works there as if it were the child's, with the parent's
//! reader slots. Here a child leaves alone what it inherited and opens the directory again (see
//! `registry`).
//!
//! Threads: an `Env` is shared by all of them. A read transaction belongs to the thread that began
//! it. There is one write transaction for all processes; its lock is released when its process
//! dies.
#![allow(unsafe_code)]

mod error;
mod freelist;
mod lockfile;
mod txn;

use std::{
    ffi::{CString, c_uint},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::{self, NonNull},
};

use lmdb_master_sys as lmdb;

use self::error::check;
pub(super) use self::{
    error::file_full,
    lockfile::{ActiveReader, MAX_LEN as MAX_LOCK_FILE_LEN},
    txn::{ReadTxn, Table, Txn, WriteTxn},
};
use super::{
    directory::{Directory, open_file},
    shm::WriterQueue,
};
use crate::error::{Error, ErrorKind, Result};

// `freelist`, `lockfile` and `check` read LMDB's files by offset.
const _: () = assert!(
    lmdb::MDB_VERSION_MAJOR == 0 && lmdb::MDB_VERSION_MINOR == 9 && lmdb::MDB_VERSION_PATCH == 70,
    "the layout of LMDB's files is known for version 0.9.70 only"
);

pub(super) struct Env {
    raw: RawEnv,
    shared: txn::Shared,
}

/// Whether a file has room for more pages.
pub(super) enum Room {
    Enough,
    /// When the reads have ended that are under way now.
    HeldByReaders,
    None,
}

/// Closes the environment on drop, as LMDB requires also if opening it failed.
struct RawEnv(NonNull<lmdb::MDB_env>);

// SAFETY: any thread may use LMDB's environment (MDB_NOTLS: read transactions are not tied to a
// thread either).
unsafe impl Send for RawEnv {}
// SAFETY: as above.
unsafe impl Sync for RawEnv {}

impl Env {
    /// Opens the files in a directory, with a map of `map_size` bytes. The same directory must not
    /// be open in this process already.
    ///
    /// Without `survives_power_cut` the file is written through the map and never synced: committed
    /// data survive the processes, but a machine that stops may tear the file.
    pub(super) fn open(directory: &Directory, map_size: usize, survives_power_cut: bool) -> Result<Env> {
        lockfile::free_own_slots(&open_file(&directory.lock())?)?;
        let flags = if survives_power_cut {
            // Writers that wait for the meta page sync it: see `group_commit`.
            lmdb::MDB_NOMETASYNC
        } else {
            lmdb::MDB_NOSYNC | lmdb::MDB_WRITEMAP
        };
        Env::open_with(&directory.path, map_size, flags)
    }

    /// Creates a data file with empty tables. It is not written through a map: on a full disk that
    /// would be a signal.
    pub(super) fn create_data_file(path: &Path, map_size: usize) -> Result<()> {
        Env::open_with(path, map_size, lmdb::MDB_NOSUBDIR | lmdb::MDB_NOLOCK | lmdb::MDB_NOSYNC).map(drop)
    }

    fn open_with(path: &Path, map_size: usize, flags: c_uint) -> Result<Env> {
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::fixed(ErrorKind::Invalid, "the path has a NUL in it"))?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` receives the new environment.
        check(unsafe { lmdb::mdb_env_create(&mut raw) })?;
        let raw = RawEnv(NonNull::new(raw).ok_or_else(Error::no_memory)?);
        let flags = flags | lmdb::MDB_NOTLS | lmdb::MDB_NORDAHEAD;
        // SAFETY: the environment was created above and is not open yet; the path is a C string.
        unsafe {
            check(lmdb::mdb_env_set_maxdbs(raw.0.as_ptr(), txn::TABLE_COUNT))?;
            check(lmdb::mdb_env_set_maxreaders(raw.0.as_ptr(), lockfile::MAX_READERS))?;
            check(lmdb::mdb_env_set_mapsize(raw.0.as_ptr(), map_size))?;
            check(lmdb::mdb_env_open(raw.0.as_ptr(), path.as_ptr(), flags, 0o600))?;
        }
        let shared = txn::Shared::open(raw.0)?;
        Ok(Env { raw, shared })
    }

    pub(super) fn read(&self) -> Result<ReadTxn<'_>> {
        match ReadTxn::begin(self.raw.0, &self.shared) {
            // Processes that died may have left their slots.
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.clear_dead_readers()?;
                ReadTxn::begin(self.raw.0, &self.shared)
            }
            begun => begun,
        }
    }

    /// Waits until no other process and no other thread writes.
    pub(super) fn write<'e>(&'e self, queue: &'e WriterQueue) -> Result<WriteTxn<'e>> {
        WriteTxn::begin(self.raw.0, &self.shared, queue)
    }

    /// Writes everything that was committed to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        // SAFETY: the environment is open.
        check(unsafe { lmdb::mdb_env_sync(self.raw.0.as_ptr(), 1) })
    }

    /// The number of the last transaction that was committed.
    pub(super) fn last_transaction(&self) -> Result<u64> {
        Ok(self.info()?.me_last_txnid as u64)
    }

    fn info(&self) -> Result<lmdb::MDB_envinfo> {
        // SAFETY: a plain struct of numbers, for which zeros are fine.
        let mut info: lmdb::MDB_envinfo = unsafe { std::mem::zeroed() };
        // SAFETY: the environment is open, and `info` receives the numbers.
        check(unsafe { lmdb::mdb_env_info(self.raw.0.as_ptr(), &mut info) })?;
        Ok(info)
    }

    pub(super) fn page_size(&self) -> Result<usize> {
        // SAFETY: a plain struct of numbers, for which zeros are fine.
        let mut stat: lmdb::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: the environment is open, and `stat` receives the numbers.
        check(unsafe { lmdb::mdb_env_stat(self.raw.0.as_ptr(), &mut stat) })?;
        Ok(stat.ms_psize as usize)
    }

    /// Whether the transactions after the one that writes now find at least `wanted` pages, in a
    /// file of `pages`.
    pub(super) fn has_room(&self, pages: usize, wanted: usize) -> Result<Room> {
        let info = self.info()?;
        // Saturating, because a file that is damaged while it is open may say anything.
        let at_end = pages.saturating_sub(info.me_last_pgno.saturating_add(1));
        if at_end >= wanted {
            return Ok(Room::Enough);
        }
        let last = info.me_last_txnid as u64;
        let in_list = wanted - at_end;
        // LMDB shows its list to read transactions only.
        let txn = self.read()?;
        // LMDB does not use pages again that a reader's snapshot may show.
        let oldest = self.oldest_reader()?.map(|reader| reader.snapshot).filter(|&snapshot| snapshot < last);
        if freelist::has_pages(&txn, oldest.map_or(last, |snapshot| snapshot.saturating_sub(1)), in_list)? {
            return Ok(Room::Enough);
        }
        if oldest.is_some() && freelist::has_pages(&txn, last, in_list)? {
            return Ok(Room::HeldByReaders);
        }
        Ok(Room::None)
    }

    /// The read in the oldest snapshot, of any process.
    pub(super) fn oldest_reader(&self) -> Result<Option<ActiveReader>> {
        lockfile::oldest_reader(self.raw.0)
    }

    /// Frees the reader slots of processes that died: each would keep the pages of its snapshot
    /// from being used again.
    pub(super) fn clear_dead_readers(&self) -> Result<()> {
        let mut dead = 0;
        // SAFETY: the environment is open, and `dead` receives the count.
        check(unsafe { lmdb::mdb_reader_check(self.raw.0.as_ptr(), &mut dead) })
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Drop for RawEnv {
    fn drop(&mut self) {
        // SAFETY: transactions borrow the environment, so none is left. (A forked child does not
        // come here: see `registry`.)
        unsafe { lmdb::mdb_env_close(self.0.as_ptr()) };
    }
}
