//! LMDB's result codes as this library's errors.

use std::ffi::c_int;

use lmdb_master_sys as lmdb;

use super::super::os;
use crate::error::{Error, ErrorKind, Result};

pub(super) fn check(code: c_int) -> Result<()> {
    Err(match code {
        lmdb::MDB_SUCCESS => return Ok(()),
        lmdb::MDB_MAP_FULL | lmdb::MDB_TXN_FULL => file_full(),
        lmdb::MDB_READERS_FULL => Error::fixed(ErrorKind::Busy, "too many reads are under way at once"),
        libc::ENOMEM => Error::no_memory(),
        lmdb::MDB_VERSION_MISMATCH => Error::fixed(ErrorKind::Corrupt, "data.mdb is of another version of LMDB"),
        // LMDB's own codes, all of which mean that the file is not what it should be.
        code if code < 0 => damaged(),
        code => os::failed("read or write", std::io::Error::from_raw_os_error(code)),
    })
}

/// The value, or `None` if LMDB has found nothing.
pub(super) fn found<T>(code: c_int, value: impl FnOnce() -> T) -> Result<Option<T>> {
    match code {
        lmdb::MDB_NOTFOUND => Ok(None),
        code => check(code).map(|()| Some(value())),
    }
}

/// `FULL` for want of pages, not because of a limit.
pub(in super::super) fn file_full() -> Error {
    Error::fixed(ErrorKind::Full, "the store is full: the file of its directory has no room")
}

pub(super) fn damaged() -> Error {
    Error::fixed(
        ErrorKind::Corrupt,
        "data.mdb is damaged: close the store everywhere and open it again to have it checked",
    )
}
