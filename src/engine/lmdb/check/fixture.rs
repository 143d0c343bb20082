//! LMDB itself, for the tests of pages.rs only: it writes files by random histories, tells what it
//! thinks of them, and in a child process puts a file through everything that could kill it.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_uint};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use lmdb_master_sys::*;

use super::pages::Summary;

pub(super) const WRITEMAP: c_uint = MDB_WRITEMAP;
const NAMES: [&str; 5] = ["sessions", "expiry", "principals", "by-reference", "m"];
const FREE_LIST: MDB_dbi = 0;
const MAIN: MDB_dbi = 1;

/// A number that looks random (splitmix64); the same seed gives the same history.
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_ne_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    fn key(&mut self, style: Style) -> Vec<u8> {
        let Style { shortest_key, longest_key, .. } = style;
        let len = if self.below(4) > 0 { longest_key.min(shortest_key + 40) } else { longest_key };
        let len = shortest_key + self.below(len + 1 - shortest_key);
        self.bytes(len)
    }

    fn value(&mut self, style: Style) -> Vec<u8> {
        let most = [1, 200, 200, 2000, 5000, 20_001][self.below(6)];
        let len = self.below(most.min(style.longest_value + 1));
        self.bytes(len)
    }
}

/// A directory that is gone afterwards.
pub(super) struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sss-verify-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn data(&self) -> PathBuf {
        self.0.join("data.mdb")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// LMDB's error number.
type Result<T> = std::result::Result<T, c_int>;

fn check(rc: c_int) -> Result<()> {
    if rc == MDB_SUCCESS { Ok(()) } else { Err(rc) }
}

fn val(bytes: &[u8]) -> MDB_val {
    MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr().cast_mut().cast() }
}

fn copied(val: MDB_val) -> Vec<u8> {
    // SAFETY: LMDB says that so many bytes are there; that this is true also of damaged files is
    // what is tested.
    unsafe { std::slice::from_raw_parts(val.mv_data.cast::<u8>(), val.mv_size) }.to_vec()
}

pub(super) struct Env(*mut MDB_env);

impl Env {
    pub fn open(dir: &Path, flags: c_uint, map_size: usize) -> Result<Env> {
        let path = CString::new(dir.to_str().unwrap()).unwrap();
        let mut raw = ptr::null_mut();
        // SAFETY: the calls are in LMDB's order, and a failed open is closed by drop as it demands.
        unsafe {
            check(mdb_env_create(&mut raw))?;
            let env = Env(raw);
            check(mdb_env_set_maxdbs(raw, 64))?;
            check(mdb_env_set_mapsize(raw, map_size))?;
            check(mdb_env_open(raw, path.as_ptr(), flags | MDB_NOSYNC | MDB_NOTLS, 0o600))?;
            Ok(env)
        }
    }

    pub fn begin(&self, flags: c_uint) -> Result<Txn<'_>> {
        let mut raw = ptr::null_mut();
        // SAFETY: the environment is open and outlives the transaction.
        check(unsafe { mdb_txn_begin(self.0, ptr::null_mut(), flags, &mut raw) })?;
        Ok(Txn { raw, env: PhantomData })
    }

    pub fn read(&self) -> Result<Txn<'_>> {
        self.begin(MDB_RDONLY)
    }

    /// What `pages::check` should find, by LMDB's own account.
    pub fn summary(&self) -> Result<Summary> {
        let txn = self.read()?;
        let mut found = Summary::default();
        for dbi in [FREE_LIST, MAIN].into_iter().chain(txn.databases()?) {
            let stat = txn.stat(dbi)?;
            found.pages_in_use += (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) as u64;
            if dbi > MAIN {
                found.entries += txn.entries(dbi, MDB_NEXT)?.len() as u64;
            }
        }
        for (_, pages) in txn.entries(FREE_LIST, MDB_NEXT)? {
            found.free_pages += u64::from_ne_bytes(pages[..8].try_into().unwrap());
        }
        // SAFETY: all zeros is a valid MDB_envinfo, and the environment is open.
        found.last_page = unsafe {
            let mut info: MDB_envinfo = std::mem::zeroed();
            check(mdb_env_info(self.0, &mut info))?;
            info.me_last_pgno as u64
        };
        Ok(found)
    }

    /// Of the deepest tree.
    pub fn depth(&self) -> Result<u32> {
        let txn = self.read()?;
        let mut depth = txn.stat(FREE_LIST)?.ms_depth;
        for dbi in txn.databases()? {
            depth = depth.max(txn.stat(dbi)?.ms_depth);
        }
        Ok(depth)
    }

    /// The pages of the free list, to know which are in use.
    pub fn free_pages(&self) -> Result<Vec<u64>> {
        let records = self.read()?.entries(FREE_LIST, MDB_NEXT)?;
        let words = |(_, record): (_, Vec<u8>)| -> Vec<u64> {
            let words: Vec<u64> = record.chunks(8).map(|w| u64::from_ne_bytes(w.try_into().unwrap())).collect();
            words[1..].iter().take(words[0] as usize).copied().collect()
        };
        Ok(records.into_iter().flat_map(words).collect())
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        // SAFETY: transactions borrow the environment, so none is left.
        unsafe { mdb_env_close(self.0) }
    }
}

/// `'e` is the life of the environment, or of the transaction around this one.
pub(super) struct Txn<'e> {
    raw: *mut MDB_txn,
    env: PhantomData<&'e Env>,
}

impl Txn<'_> {
    /// A transaction inside of this one; LMDB has that only without a map to write to.
    fn nested(&self) -> Result<Txn<'_>> {
        let mut raw = ptr::null_mut();
        // SAFETY: the outer transaction lives, and LMDB refuses its use meanwhile.
        check(unsafe { mdb_txn_begin(mdb_txn_env(self.raw), self.raw, 0, &mut raw) })?;
        Ok(Txn { raw, env: PhantomData })
    }

    pub fn commit(self) -> Result<()> {
        let raw = std::mem::ManuallyDrop::new(self).raw;
        // SAFETY: the transaction lives, and is not dropped again.
        check(unsafe { mdb_txn_commit(raw) })
    }

    pub fn database(&self, name: &[u8], flags: c_uint) -> Result<MDB_dbi> {
        let name = CString::new(name).map_err(|_| MDB_BAD_DBI)?;
        let mut dbi = 0;
        // SAFETY: the transaction lives and the name ends with a NUL.
        check(unsafe { mdb_dbi_open(self.raw, name.as_ptr(), flags, &mut dbi) })?;
        Ok(dbi)
    }

    /// All named databases.
    pub fn databases(&self) -> Result<Vec<MDB_dbi>> {
        self.entries(MAIN, MDB_NEXT)?.iter().map(|(name, _)| self.database(name, 0)).collect()
    }

    fn stat(&self, dbi: MDB_dbi) -> Result<MDB_stat> {
        // SAFETY: all zeros is a valid MDB_stat, and the transaction lives.
        unsafe {
            let mut stat = std::mem::zeroed();
            check(mdb_stat(self.raw, dbi, &mut stat))?;
            Ok(stat)
        }
    }

    pub fn put(&self, dbi: MDB_dbi, key: &[u8], value: &[u8]) -> Result<()> {
        // SAFETY: the transaction lives; LMDB only reads from both slices.
        check(unsafe { mdb_put(self.raw, dbi, &mut val(key), &mut val(value), 0) })
    }

    /// The same in another way: LMDB makes room, and the value is written there.
    fn put_reserved(&self, dbi: MDB_dbi, key: &[u8], value: &[u8]) -> Result<()> {
        let mut room = val(value);
        // SAFETY: the transaction lives; LMDB gives room for as many bytes as the value has.
        unsafe {
            check(mdb_put(self.raw, dbi, &mut val(key), &mut room, MDB_RESERVE))?;
            ptr::copy_nonoverlapping(value.as_ptr(), room.mv_data.cast(), value.len());
        }
        Ok(())
    }

    /// True if it was there.
    pub fn delete(&self, dbi: MDB_dbi, key: &[u8]) -> Result<bool> {
        // SAFETY: the transaction lives; LMDB only reads from the slice.
        match unsafe { mdb_del(self.raw, dbi, &mut val(key), ptr::null_mut()) } {
            MDB_NOTFOUND => Ok(false),
            rc => check(rc).map(|()| true),
        }
    }

    pub fn get(&self, dbi: MDB_dbi, key: &[u8]) -> Result<Vec<u8>> {
        let mut value = val(&[]);
        // SAFETY: the transaction lives; the value is copied before it changes.
        unsafe {
            check(mdb_get(self.raw, dbi, &mut val(key), &mut value))?;
            Ok(copied(value))
        }
    }

    pub fn empty(&self, dbi: MDB_dbi) -> Result<()> {
        // SAFETY: the transaction lives.
        check(unsafe { mdb_drop(self.raw, dbi, 0) })
    }

    /// Everything, from the first on with MDB_NEXT or from the last on with MDB_PREV.
    pub fn entries(&self, dbi: MDB_dbi, step: MDB_cursor_op) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        let mut cursor = ptr::null_mut();
        // SAFETY: the cursor is closed before its transaction ends, and what it shows is copied at
        // once.
        unsafe {
            check(mdb_cursor_open(self.raw, dbi, &mut cursor))?;
            let end = loop {
                let (mut key, mut value) = (val(&[]), val(&[]));
                match mdb_cursor_get(cursor, &mut key, &mut value, step) {
                    MDB_SUCCESS => entries.push((copied(key), copied(value))),
                    rc => break rc,
                }
            };
            mdb_cursor_close(cursor);
            if end == MDB_NOTFOUND { Ok(entries) } else { Err(end) }
        }
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        // SAFETY: commit forgets the transaction, so it lives here.
        unsafe { mdb_txn_abort(self.raw) }
    }
}

/// What a history is like.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub shortest_key: usize,
    pub longest_key: usize,
    pub longest_value: usize,
    /// In one transaction, at most.
    pub operations: usize,
}

/// What a store of sessions does.
pub(super) const USUAL: Style = Style { shortest_key: 1, longest_key: 64, longest_value: 20_000, operations: 40 };
/// Large transactions with pages all over the file; their lists of free pages are long.
pub(super) const LARGE: Style = Style { shortest_key: 1, longest_key: 511, longest_value: 20_000, operations: 300 };
/// Few entries fit into a page, so that trees are as deep as they get.
pub(super) const DEEP: Style = Style { shortest_key: 380, longest_key: 511, longest_value: 30, operations: 2000 };
/// StoreKeys that come again and again.
pub(super) const NARROW: Style = Style { shortest_key: 1, longest_key: 2, longest_value: 5000, operations: 400 };
pub(super) const TINY: Style = Style { shortest_key: 1, longest_key: 30, longest_value: 3000, operations: 12 };

/// One transaction with a random number of random puts, overwrites and deletes, also in
/// transactions inside of it.
pub(super) fn random_transaction(env: &Env, random: &mut Random, style: Style) -> Result<()> {
    let txn = env.begin(0)?;
    for _ in 0..1 + random.below(3) {
        let nested = if random.below(2) == 0 { txn.nested().ok() } else { None };
        match nested {
            // Whether it fails, is given up or done, the outer one goes on.
            Some(nested) => {
                let done = random_operations(&nested, random, style);
                if done.is_ok() && random.below(3) > 0 {
                    nested.commit()?;
                }
            }
            None => random_operations(&txn, random, style)?,
        }
    }
    if random.below(10) == 0 { Ok(()) } else { txn.commit() }
}

fn random_operations(txn: &Txn, random: &mut Random, style: Style) -> Result<()> {
    let grow = random.below(3) > 0;
    let dbi = txn.database(NAMES[random.below(NAMES.len())].as_bytes(), MDB_CREATE)?;
    let mut keys: Vec<_> = txn.entries(dbi, MDB_NEXT)?.into_iter().map(|(key, _)| key).collect();
    for _ in 0..random.below(style.operations) {
        let old = if keys.is_empty() { None } else { Some(random.below(keys.len())) };
        match (old, random.below(8)) {
            (Some(old), 0) => txn.put(dbi, &keys[old], &random.value(style))?,
            (Some(old), 1) => txn.put_reserved(dbi, &keys[old], &random.value(style))?,
            (Some(old), what) if what < 3 || !grow => {
                txn.delete(dbi, &keys.swap_remove(old))?;
            }
            _ => {
                keys.push(random.key(style));
                txn.put(dbi, keys.last().unwrap(), &random.value(style))?;
            }
        }
    }
    if random.below(40) == 0 { txn.empty(dbi) } else { Ok(()) }
}

/// Reads everything in all ways, then deletes and rewrites half, and commits; then some more, until
/// all is gone and something new is in its place. A sound file survives that, and so does the
/// process.
pub(super) fn put_to_the_test(dir: &Path, flags: c_uint) -> Result<()> {
    let env = Env::open(dir, flags, 48 << 20)?;
    let random = &mut Random(7);
    let txn = env.read()?;
    for dbi in txn.databases()? {
        let forwards = txn.entries(dbi, MDB_NEXT)?;
        let mut backwards = txn.entries(dbi, MDB_PREV)?;
        backwards.reverse();
        for (key, value) in &forwards {
            if txn.get(dbi, key)? != *value {
                return Err(MDB_CORRUPTED);
            }
        }
        if forwards != backwards {
            return Err(MDB_CORRUPTED);
        }
    }
    drop(txn);
    for share in [2, 3, 2] {
        let txn = env.begin(0)?;
        for dbi in txn.databases()? {
            for (index, (key, _)) in txn.entries(dbi, MDB_NEXT)?.iter().enumerate() {
                if index % share == 0 && !txn.delete(dbi, key)? {
                    return Err(MDB_CORRUPTED);
                }
                if index % (2 * share) == 0 {
                    txn.put(dbi, key, &random.value(USUAL))?;
                }
            }
        }
        txn.commit()?;
    }
    for _ in 0..3 {
        let txn = env.begin(0)?;
        for dbi in txn.databases()? {
            for (key, _) in txn.entries(dbi, MDB_NEXT)? {
                txn.delete(dbi, &key)?;
            }
            for _ in 0..40 {
                txn.put(dbi, &random.key(LARGE), &random.value(LARGE))?;
            }
        }
        txn.commit()?;
    }
    for _ in 0..10 {
        random_transaction(&env, random, USUAL)?;
    }
    Ok(())
}
