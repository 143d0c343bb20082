//! The engine of `lmdb:`: one store for all processes of a host, in a directory. Reads go to LMDB's
//! map and wait for no lock; a use is noted in shared memory (`shm`); every write is one
//! transaction (`session_txn`), one at a time for all processes. A process opens a directory once
//! (`registry`), and a forked child opens it again.

mod check;
mod deadline_index;
mod directory;
mod env;
mod expiry;
#[cfg(test)]
mod fixture;
mod group_commit;
mod handle;
mod locks;
mod old_keys;
mod open;
mod options;
mod os;
mod session_read;
mod session_txn;
mod shm;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    result,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use once_cell::sync::OnceCell;

use self::{
    deadline_index::{parse_key, successor},
    directory::{Directory, file_len, open_file},
    env::{ReadTxn, Table, WriteTxn, file_full},
    group_commit::GroupCommit,
    handle::Handle,
    options::OpenOptions,
    session_read::{Attempt, TouchGuard, Undecided, is_live},
    session_txn::{DeferredEffects, Resolved, SessionRow, SessionTxn, next_of_principal, principal_entry, resolve},
    shm::{LastUsedTable, SlotState},
};
use super::{
    Blocking, Context, Engine, Found, Reader,
    registry::{OpenStore, Registry},
};
use crate::{
    crypto::keys::SALT_LEN,
    error::{Error, ErrorKind, Result},
    session::{
        alias::Grace,
        codec,
        header::{Meta, StoredEntry, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::{FOREVER, NONE_REVOKED},
        write::Write,
    },
    stats::{Count, EngineUsage},
    sync::per_process::PerProcess,
    url::Url,
};

/// Expired sessions cleared at once when a store is full.
const CLEARED_IF_FULL: u64 = 64;
/// How many sessions one transaction of a revocation ends, if there is room for it.
const REVOKED_AT_ONCE: u64 = 64;
/// Between the transactions of a sweep: LMDB's lock is not fair, so taking it again at once would
/// keep other writers out.
const SWEEP_PAUSE: Duration = Duration::from_micros(50);
/// How long a write waits for pages that a read still looks at.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
/// With `durability=power`, the part of the idle timeout after which a use is written to the file:
/// a session may end early by so much after a power cut, and only then.
const REFRESH_PART: i64 = 10;
const MIN_REFRESH_MS: i64 = 1000;

pub(crate) struct Lmdb {
    path: PathBuf,
    options: OpenOptions,
    salt: [u8; SALT_LEN],
    /// Each process has its own: the parent's is left alone.
    open: PerProcess<OnceCell<DirectoryStore>>,
}

/// A store that is open in this process, by the device and inode of its directory.
type DirectoryStore = OpenStore<(u64, u64), Store>;

/// While a directory is in it, this process must not open it again: LMDB's locks belong to the
/// process.
static REGISTRY: Registry<(u64, u64), Store> = Registry::new();

struct Store {
    /// `durability=power`: where commits wait for the disk.
    group_commit: Option<GroupCommit>,
    handle: Handle,
}

/// Whether a write has to be on the disk when it returns, if the store promises that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acknowledged {
    Yes,
    No,
}

/// Opens the store in a directory, or finds it if this process has it open.
fn open_here(path: &Path, options: &OpenOptions) -> Result<DirectoryStore> {
    // Not a Once: a child would wait for a thread that only its parent has. (Its own children
    // inherit the handler.)
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    if !IS_REGISTERED.swap(true, Ordering::Relaxed) {
        os::at_exit(close_all);
    }
    if cfg!(not(target_pointer_width = "64")) {
        return Err(Error::fixed(ErrorKind::Unsupported, "lmdb: needs a machine of 64 bits"));
    }
    if options.keeps_settings && file_len(&path.join(directory::DATA))? == 0 {
        return Err(Error::fixed(ErrorKind::Io, "there is no lmdb: store in this directory"));
    }
    let directory = Directory::open(path)?;
    REGISTRY.open(
        directory.identity,
        |store| open::attach(&store.handle, options),
        || {
            let handle = open::open(&directory, options)?;
            let group_commit =
                if handle.survives_power_cut { Some(GroupCommit::new(open_file(&directory.data())?)) } else { None };
            Ok(Store { group_commit, handle })
        },
    )
}

/// At exit, for stores that are still open: a restart of the machine must not look like a power
/// cut. They stay open, because other threads may still use them.
extern "C" fn close_all() {
    REGISTRY.try_for_each(|store| drop(store.handle.close()));
}

impl Lmdb {
    /// Opens the store in a directory, which is created if it does not exist, and returns the
    /// store's salt.
    pub(crate) fn open(path: &Path, url: &Url, has_secret: bool) -> Result<(Lmdb, [u8; SALT_LEN])> {
        Lmdb::open_with(path, OpenOptions::new(url, has_secret)).map(|(lmdb, salt, _)| (lmdb, salt))
    }

    /// Opens a store that exists with the settings of its last use, except for what the URL says.
    /// Also returns whether it seals.
    pub(crate) fn open_existing(path: &Path, url: &Url) -> Result<(Lmdb, [u8; SALT_LEN], bool)> {
        let options = OpenOptions { keeps_settings: true, ..OpenOptions::new(url, false) };
        let (mut lmdb, salt, seals) = Lmdb::open_with(path, options)?;
        lmdb.options.seals = seals;
        lmdb.options.survives_power_cut = lmdb.store()?.handle.survives_power_cut;
        Ok((lmdb, salt, seals))
    }

    fn open_with(path: &Path, options: OpenOptions) -> Result<(Lmdb, [u8; SALT_LEN], bool)> {
        let store = open_here(path, &options)?;
        let salt = store.handle.salt;
        let seals = store.handle.seals;
        let lmdb = Lmdb { path: path.to_owned(), options, salt, open: PerProcess::new() };
        lmdb.open.get().get_or_init(|| store);
        Ok((lmdb, salt, seals))
    }

    /// The store as it is open in this process.
    fn store(&self) -> Result<&Store> {
        let store = self.open.get().get_or_try_init(|| {
            let reopened = open_here(&self.path, &self.options)?;
            if reopened.handle.salt == self.salt {
                return Ok(reopened);
            }
            // The keys are derived from the salt: no session would be found.
            Err(Error::fixed(
                ErrorKind::Io,
                "there is another store in the directory than before fork: open it in the child",
            ))
        })?;
        Ok(store)
    }

    fn handle(&self) -> Result<&Handle> {
        Ok(&self.store()?.handle)
    }

    fn seals(&self) -> bool {
        self.options.seals
    }

    /// Runs a step in a transaction of its own: all of it happens, or nothing.
    fn try_write<T: Send>(
        &self,
        cx: &Context,
        acknowledged: Acknowledged,
        mut step: impl FnMut(&mut SessionTxn) -> Result<T> + Send,
    ) -> Result<T> {
        let Store { group_commit, handle } = self.store()?;
        let seals = self.seals();
        loop {
            let mut effects = DeferredEffects::default();
            let mut result = None;
            let mut write = |txn: &mut WriteTxn| {
                result = Some(step(&mut SessionTxn { txn, handle, cx, seals, effects: &mut effects })?);
                Ok(())
            };
            let committed = match group_commit {
                None => handle.write().and_then(|mut txn| {
                    write(&mut txn)?;
                    txn.commit()
                }),
                Some(group_commit) => {
                    group_commit.commit(handle, &mut write).and_then(|transaction| match acknowledged {
                        Acknowledged::Yes => group_commit.flush(handle, transaction),
                        Acknowledged::No => Ok(()),
                    })
                }
            };
            let must_rerun = effects.must_rerun;
            effects.apply(cx, &handle.shm.last_used(), committed.is_ok());
            if must_rerun {
                continue;
            }
            committed?;
            return result.ok_or_else(|| Error::fixed(ErrorKind::Panic, "a write was not run"));
        }
    }

    /// The same. If the file has no room, waits for readers that keep pages from being used again.
    fn write<T: Send>(
        &self,
        cx: &Context,
        acknowledged: Acknowledged,
        mut step: impl FnMut(&mut SessionTxn) -> Result<T> + Send,
    ) -> Result<T> {
        let handle = self.handle()?;
        let deadline = Instant::now() + READER_TIMEOUT;
        let mut is_last_attempt = false;
        loop {
            match self.try_write(cx, acknowledged, &mut step) {
                Err(error) if error == file_full() && !is_last_attempt => {
                    // If there is no reader to wait for, one more attempt is due, because it may
                    // have gone just now, and because pages that the last transaction has freed are
                    // available after another one.
                    is_last_attempt = !handle.wait_for_readers(deadline)?;
                    if is_last_attempt {
                        let _ = handle.write().and_then(session_txn::commit_unchanged);
                    }
                }
                written => return written,
            }
        }
    }

    /// Runs a step on `max` sessions at once, and on fewer while the file has no room for so many.
    fn write_batch<T: Send>(
        &self,
        cx: &Context,
        acknowledged: Acknowledged,
        max: u64,
        mut step: impl FnMut(&mut SessionTxn, u64) -> Result<T> + Send,
    ) -> Result<T> {
        let mut max = max;
        loop {
            match self.try_write(cx, acknowledged, |txn| step(txn, max)) {
                Err(error) if error == file_full() && max > 1 => max = (max / 8).max(1),
                Err(error) if error == file_full() => return self.write(cx, acknowledged, |txn| step(txn, 1)),
                written => return written,
            }
        }
    }

    /// Ends sessions in their slots alone if they could not be ended in the file for want of room.
    /// Not with `durability=power`: the slots do not survive a power cut.
    fn end_in_slots<T>(&self, cx: &Context, error: Error, end: impl FnOnce(&mut SessionTxn) -> Result<T>) -> Result<T> {
        let handle = self.handle()?;
        if handle.survives_power_cut || !is_out_of_room(&error) {
            return Err(error);
        }
        // Nothing is written to it: it keeps other writers away.
        let mut txn = handle.write()?;
        let mut effects = DeferredEffects::default();
        end(&mut SessionTxn { txn: &mut txn, handle, cx, seals: self.seals(), effects: &mut effects })
    }

    /// Removes up to `max` sessions that `revoke_all` has ended, and returns how many.
    fn remove_revoked(&self, cx: &Context, max: u64) -> Result<u64> {
        let until = cx.step_time().revoked_until;
        if until == NONE_REVOKED {
            return Ok(0);
        }
        let mut removed = 0;
        let mut next = Some(Vec::new());
        while let Some(from) = &next {
            if removed >= max {
                return Ok(removed);
            }
            let (count, after) = self.write_batch(cx, Acknowledged::No, expiry::MAX_VISITS, |txn, max_visits| {
                expiry::remove_revoked(txn, from, max - removed, max_visits)
            })?;
            removed += count;
            next = after;
            thread::sleep(SWEEP_PAUSE);
        }
        if self.handle()?.survives_power_cut {
            // Their removal must be on the disk before the time is, up to which they have ended.
            self.write(cx, Acknowledged::Yes, |_| Ok(()))?;
        }
        cx.policy.end_revocation(until);
        Ok(removed)
    }

    /// Visits all sessions of one snapshot.
    fn for_each_session(&self, mut visit: impl FnMut(&SessionRow)) -> Result<()> {
        let handle = self.handle()?;
        let last_used = handle.shm.last_used();
        let txn = handle.env.read()?;
        let mut next = Vec::new();
        while let Some((key, bytes)) = txn.first_from(Table::Sessions, &next)? {
            if let Ok((row, _)) = SessionRow::read(parse_key(key)?, bytes, &last_used, self.seals()) {
                visit(&row);
            }
            next = successor(key);
        }
        Ok(())
    }

    /// Runs a step that may need more room, after making some if there is none.
    fn write_with_room<T: Send>(
        &self,
        cx: &Context,
        len: usize,
        mut step: impl FnMut(&mut SessionTxn) -> Result<T> + Send,
    ) -> Result<T> {
        let mut is_last_attempt = false;
        loop {
            let written = self.write(cx, Acknowledged::Yes, |txn| {
                txn.check_room(len)?;
                step(txn)
            });
            match written {
                Err(error) if error.kind() == ErrorKind::Full && !is_last_attempt => {
                    // If there was nothing to clear, one more attempt is due, because other calls
                    // may have cleared it.
                    is_last_attempt = self.sweep(cx, CLEARED_IF_FULL)? == 0;
                }
                written => return written,
            }
        }
    }

    fn lookup<T>(
        &self,
        cx: &Context,
        read: impl FnMut(&ReadTxn, Attempt) -> result::Result<T, Undecided>,
    ) -> Result<T> {
        let pull_back = |key: &LookupKey| self.write(cx, Acknowledged::No, |txn| txn.pull_back(key));
        session_read::lookup(self.handle()?, pull_back, read)
    }

    /// Whether a use has to be written into the record.
    fn must_refresh(&self, handle: &Handle, cx: &Context, row: &SessionRow) -> bool {
        let idle = row.header.own.or(cx.policy.timeouts()).idle;
        let since = row.header.last_seen.saturating_sub(row.recorded_last_seen);
        handle.survives_power_cut && idle != FOREVER && since >= (idle / REFRESH_PART).max(MIN_REFRESH_MS)
    }

    fn refresh(&self, cx: &Context, key: &LookupKey) -> Result<Meta> {
        self.write(cx, Acknowledged::No, |txn| txn.refresh(key))
    }
}

impl Engine for Lmdb {
    fn enter(&self) -> Result<Context<'_>> {
        Ok(self.handle()?.context())
    }

    fn may_block(&self) -> Blocking {
        // With `durability=power` some reads write that the session was used. (Otherwise only reads
        // do that find its last use lost with state.shm.)
        Blocking { reads: self.options.survives_power_cut, writes: true }
    }

    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>> {
        let path = self.path.clone();
        let options = self.options.clone();
        Some(Box::new(Lmdb { path, options, salt: self.salt, open: PerProcess::new() }))
    }

    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        self.write_with_room(cx, write.content.stored_len(0) + write.new_label_len(), |txn| {
            expiry::clear_a_few(txn)?;
            txn.rewrite(None, key, write, &Grace::NONE)
        })
    }

    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()> {
        let handle = self.handle()?;
        let last_used = handle.shm.last_used();
        handle.shm.prefetch_slot(key);
        let must_refresh = self.lookup(cx, |txn, attempt| {
            let time = cx.step_time();
            let Some(Resolved { mut row, payload, walk }) = resolve(txn, key, &last_used, &time, self.seals())? else {
                return Err(miss(cx, key).into());
            };
            if !is_live(&mut row, &last_used, &time, attempt)? {
                return Err(miss(cx, key).into());
            }
            // The old id of a session does not keep it alive.
            let slides = !peek && walk.chain.is_empty();
            let has_slot = row.slot_state != SlotState::Missing && LastUsedTable::can_hold(time.now);
            // Before the payload is lent: if the session ends just now, nothing may have been
            // copied.
            let touch = if slides && has_slot { Some(TouchGuard::new(last_used, &row, time.now)?) } else { None };
            if slides {
                row.header = row.header.touched_at(time.now);
            }
            let mut meta = row.header.meta(time.timeouts);
            meta.expires_ms = meta.expires_ms.min(walk.until);
            reader(Found {
                record: StoredRecord { key: row.key, header: &row.header, payload },
                meta,
                alias_chain: &walk.chain,
            })?;
            cx.counters.count(Count::Hits, key);
            if let Some(touch) = touch {
                touch.commit();
            }
            Ok(slides && (!has_slot || self.must_refresh(handle, cx, &row)))
        })?;
        if must_refresh {
            match self.refresh(cx, key) {
                // The read has succeeded. A use that is not noted lets the session end early, not
                // late.
                Err(error) if matches!(error.kind(), ErrorKind::Full | ErrorKind::NotFound) => {}
                refreshed => drop(refreshed?),
            }
        }
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &LookupKey, peek: bool) -> Result<Meta> {
        let handle = self.handle()?;
        let last_used = handle.shm.last_used();
        let touched = self.lookup(cx, |txn, attempt| {
            let bytes = txn.session(key)?.ok_or_else(Error::not_found)?;
            let (mut row, _) = SessionRow::read(*key, bytes, &last_used, self.seals())?;
            let time = cx.step_time();
            if !is_live(&mut row, &last_used, &time, attempt)? {
                return Err(Error::not_found().into());
            }
            if peek {
                return Ok(Some(row.header.meta(time.timeouts)));
            }
            if row.slot_state == SlotState::Missing || !LastUsedTable::can_hold(time.now) {
                return Ok(None);
            }
            TouchGuard::new(last_used, &row, time.now)?.commit();
            row.header = row.header.touched_at(time.now);
            Ok((!self.must_refresh(handle, cx, &row)).then(|| row.header.meta(time.timeouts)))
        })?;
        touched.map_or_else(|| self.refresh(cx, key), Ok)
    }

    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        let len = write.content.stored_len(0) + write.new_label_len();
        self.write_with_room(cx, len, |txn| txn.rewrite(Some(key), key, write, &Grace::NONE))
    }

    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta> {
        let len = write.content.stored_len(0) + write.new_label_len();
        self.write_with_room(cx, len, |txn| txn.rewrite(Some(old), new, write, grace))
    }

    fn delete(&self, cx: &Context, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
        if self.handle()?.survives_power_cut {
            return self.write(cx, Acknowledged::Yes, |txn| txn.delete(key, principal));
        }
        let deleted = self.try_write(cx, Acknowledged::Yes, |txn| txn.delete(key, principal));
        deleted.or_else(|error| self.end_in_slots(cx, error, |txn| txn.end_in_slot(key, principal)))
    }

    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey> {
        let handle = self.handle()?;
        let last_used = handle.shm.last_used();
        self.lookup(cx, |txn, attempt| {
            let time = cx.step_time();
            let found = resolve(txn, key, &last_used, &time, self.seals())?;
            let mut row = found.ok_or_else(Error::not_found)?.row;
            if !is_live(&mut row, &last_used, &time, attempt)? {
                return Err(Error::not_found().into());
            }
            Ok(row.key)
        })
    }

    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        let handle = self.handle()?;
        handle.env.clear_dead_readers()?;
        let must_reindex = || handle.env.read().and_then(|txn| Ok(deadline_index::reindex_from(&txn)?.is_some()));
        if max > 0 && handle.shm.header().must_reclaim.swap(0, Ordering::AcqRel) == 1 {
            match open::request_reindex(handle) {
                Err(error) if error == file_full() => handle.shm.header().must_reclaim.store(1, Ordering::Release),
                requested => requested?,
            }
        }
        while max > 0
            && must_reindex()?
            && self.write_batch(cx, Acknowledged::No, expiry::MAX_VISITS, expiry::reindex_batch)?
        {
            thread::sleep(SWEEP_PAUSE);
        }
        // Left by a `revoke_all` that had no room for their removal, or whose process has died.
        let mut removed = match self.remove_revoked(cx, max) {
            Err(error) if is_out_of_room(&error) => 0,
            removed => removed?,
        };
        let first_deadline = || handle.env.read().and_then(|txn| deadline_index::first_deadline(&txn));
        while removed < max && first_deadline()?.is_some_and(|deadline| deadline <= cx.clock.now_ms()) {
            let (count, is_more) = self.write_batch(cx, Acknowledged::No, expiry::MAX_VISITS, |txn, max_visits| {
                expiry::sweep(txn, max - removed, max_visits)
            })?;
            removed += count;
            if !is_more {
                break;
            }
            thread::sleep(SWEEP_PAUSE);
        }
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<StoredEntry>> {
        let handle = self.handle()?;
        let last_used = handle.shm.last_used();
        self.lookup(cx, |txn, attempt| {
            let time = cx.step_time();
            let mut entries = Vec::new();
            let mut next = principal_entry(principal, &LookupKey(0, 0)).to_vec();
            while let Some(key) = next_of_principal(txn, principal, &mut next)? {
                let Some(bytes) = txn.session(&key)? else { continue };
                let (mut row, _) = SessionRow::read(key, bytes, &last_used, self.seals())?;
                if is_live(&mut row, &last_used, &time, attempt)? {
                    let label = codec::decode(bytes, self.seals())?.label;
                    entries.try_reserve(1).map_err(|_| Error::no_memory())?;
                    entries.push(row.header.entry(key, label, row.payload_len(self.seals()), time.timeouts)?);
                }
            }
            Ok(entries)
        })
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
        let mut revoked = 0;
        loop {
            // Each time from the beginning: a session that was renewed meanwhile may be anywhere.
            let ended = self.write_batch(cx, Acknowledged::Yes, REVOKED_AT_ONCE, |txn, max| {
                let except = except.map(|key| txn.resolve_live(key)).transpose()?.flatten();
                txn.revoke(principal, except, max)
            });
            let (count, is_done) = ended.or_else(|error| {
                self.end_in_slots(cx, error, |txn| {
                    let except = except.map(|key| txn.resolve_live(key)).transpose()?.flatten();
                    let count = txn.revoke_in_slots(principal, except)?;
                    cx.counters.add(Count::Revoked, count);
                    Ok((count, true))
                })
            })?;
            revoked += count;
            if is_done {
                return Ok(revoked);
            }
        }
    }

    fn revoke_all(&self, cx: &Context) -> Result<u64> {
        let handle = self.handle()?;
        // The sessions that were made while the clock was ahead are older than this call too.
        let mut newest = NONE_REVOKED;
        self.for_each_session(|row| newest = newest.max(row.header.created))?;
        let before = {
            // Nothing is written: it keeps writers away, which go by the time from then on.
            let _txn = handle.write()?;
            let time = cx.step_time();
            cx.policy.set_revoked_until(newest.max(time.now).max(time.revoked_until));
            time
        };
        if handle.survives_power_cut {
            handle.shm.note_failure(handle.shm.sync())?;
        }
        let mut revoked = 0;
        let time = cx.step_time();
        self.for_each_session(|row| {
            let was_live = row.header.is_live(&before) && row.slot_state != SlotState::Expired;
            revoked += u64::from(was_live && row.header.is_revoked(&time));
        })?;
        match self.remove_revoked(cx, u64::MAX) {
            // They have ended; a later sweep removes them.
            Err(error) if is_out_of_room(&error) => {}
            removed => drop(removed?),
        }
        Ok(revoked)
    }

    fn usage(&self, _: &Context) -> Result<EngineUsage> {
        let txn = self.handle()?.env.read()?;
        let sessions = txn.entries(Table::Sessions)?;
        Ok(EngineUsage { sessions, bytes: session_txn::payload_bytes(&txn)?, hits: 0, misses: 0 })
    }

    fn timeouts_shortened(&self) -> Result<()> {
        open::request_reindex(self.handle()?)
    }

    fn check(&self) -> Result<Vec<String>> {
        let handle = self.handle()?;
        check::tables::check(handle, &handle.env.read()?, self.seals())
    }
}

/// Whether a step has failed for want of room in the file, or of readers that keep it.
fn is_out_of_room(error: &Error) -> bool {
    *error == file_full() || error.kind() == ErrorKind::Busy
}

/// Counts a read that found nothing.
fn miss(cx: &Context, key: &LookupKey) -> Error {
    cx.counters.count(Count::Misses, key);
    Error::not_found()
}
