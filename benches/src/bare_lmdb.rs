//! The floor of L1 and L2: LMDB alone, with one table of records of the same length. The key is
//! given; nothing is hashed, sealed, checked or indexed. A get is one lookup in a new snapshot, a
//! put a transaction that writes one record.

use std::{
    ffi::{CString, c_int, c_uint},
    fs,
    path::Path,
    ptr,
};

use lmdb_master_sys as lmdb;

use crate::{
    competitors::{Sessions, copy},
    workload::Id,
};

/// Opened with the flags of `durability=process`, for one thread, until the process ends.
pub struct BareLmdb {
    env: *mut lmdb::MDB_env,
    table: lmdb::MDB_dbi,
    /// Reset and renewed between reads, as in libsss.
    reading: *mut lmdb::MDB_txn,
}

impl BareLmdb {
    pub fn open(directory: &Path, room: usize) -> BareLmdb {
        fs::create_dir(directory).expect("a directory for it");
        let path = CString::new(directory.to_str().expect("a path in UTF-8")).expect("a path without NUL");
        let (mut env, mut reading) = (ptr::null_mut(), ptr::null_mut());
        let flags: c_uint = lmdb::MDB_NOSYNC | lmdb::MDB_WRITEMAP | lmdb::MDB_NOTLS | lmdb::MDB_NORDAHEAD;
        // SAFETY: LMDB's own order of calls; no other environment uses the directory.
        unsafe {
            check(lmdb::mdb_env_create(&mut env));
            check(lmdb::mdb_env_set_mapsize(env, room));
            check(lmdb::mdb_env_open(env, path.as_ptr(), flags, 0o600));
            let (mut txn, mut table) = (ptr::null_mut(), 0);
            check(lmdb::mdb_txn_begin(env, ptr::null_mut(), 0, &mut txn));
            check(lmdb::mdb_dbi_open(txn, ptr::null(), 0, &mut table));
            check(lmdb::mdb_txn_commit(txn));
            check(lmdb::mdb_txn_begin(env, ptr::null_mut(), lmdb::MDB_RDONLY, &mut reading));
            lmdb::mdb_txn_reset(reading);
            BareLmdb { env, table, reading }
        }
    }

    /// One transaction that writes.
    fn write(&mut self, write: impl FnOnce(*mut lmdb::MDB_txn, lmdb::MDB_dbi) -> c_int) -> bool {
        let mut txn = ptr::null_mut();
        // SAFETY: the environment is open, and no other transaction of it writes.
        unsafe { check(lmdb::mdb_txn_begin(self.env, ptr::null_mut(), 0, &mut txn)) };
        let code = write(txn, self.table);
        // SAFETY: begun above, and not used again.
        unsafe { check(lmdb::mdb_txn_commit(txn)) };
        code == lmdb::MDB_SUCCESS
    }
}

/// The length of a record of libsss.
fn key(id: &Id) -> lmdb::MDB_val {
    val(&id[..32])
}

fn val(bytes: &[u8]) -> lmdb::MDB_val {
    lmdb::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr().cast_mut().cast() }
}

fn check(code: c_int) {
    assert_eq!(code, lmdb::MDB_SUCCESS, "LMDB failed");
}

impl Sessions for BareLmdb {
    fn create(&mut self, id: &Id, record: &[u8]) -> Id {
        assert!(self.put(id, record));
        *id
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        let (mut key, mut value) = (key(id), val(&[]));
        // SAFETY: the one read transaction, which is reset; what LMDB points to stays until it is
        // reset again.
        unsafe {
            check(lmdb::mdb_txn_renew(self.reading));
            let code = lmdb::mdb_get(self.reading, self.table, &mut key, &mut value);
            let len = (code == lmdb::MDB_SUCCESS)
                .then(|| copy(std::slice::from_raw_parts(value.mv_data.cast(), value.mv_size), out));
            lmdb::mdb_txn_reset(self.reading);
            len
        }
    }

    fn put(&mut self, id: &Id, record: &[u8]) -> bool {
        // SAFETY: a live write transaction; LMDB only reads the key and the record.
        self.write(|txn, table| unsafe { lmdb::mdb_put(txn, table, &mut key(id), &mut val(record), 0) })
    }

    fn delete(&mut self, id: &Id) -> bool {
        // SAFETY: a live write transaction; LMDB only reads the key.
        self.write(|txn, table| unsafe { lmdb::mdb_del(txn, table, &mut key(id), ptr::null_mut()) })
    }
}
