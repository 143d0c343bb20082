//! The engine of `lmdb:`: one store for all processes of a host, in a directory. Reads go to LMDB's map and wait for
//! nobody; a use is noted in shared memory (`touches`); every write is one transaction (`step`), one at a time for all
//! processes. Each process has the directory open once (`database`), and a forked child opens it anew by itself.

mod check;
mod database;
mod expiry;
mod ffi;
mod files;
#[cfg(test)]
mod fixture;
mod gate;
mod group;
mod map;
mod opening;
mod step;
#[cfg(test)]
mod tests;
mod touches;
mod verify;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use once_cell::sync::OnceCell;

use self::{
    database::{Database, Open, Wishes},
    ffi::{ReadTxn, Table, WriteTxn, no_room},
    step::{Effects, Row, Step, Way},
    touches::{Place, Seen, Touches},
};
use super::{Blocking, Context, Engine, Found, Reader};
use crate::{
    crypto::keys::SALT_LEN,
    error::{Error, ErrorKind, Result},
    session::{
        alias::Grace,
        header::{Entry, Meta, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::{FOREVER, StepTime},
        write::Write,
    },
    stats::{Count, EngineUsage},
    sync::per_process::PerProcess,
    url::Url,
};

/// Expired sessions cleared at once when a store is full.
const ROOM: u64 = 64;
/// One part of the file's pages is kept for those who make room: deleting takes pages as well.
const RESERVE: usize = 16;
/// Pages that a write takes at the most beside those of its payload: some for the way down each of the tables.
const PAGES_OF_A_WRITE: usize = 40;
/// Between the turns of a sweep: LMDB's lock is not fair, so taking it again at once would keep others out.
const TURN: Duration = Duration::from_micros(50);
/// How long a write waits for pages that a read still looks at.
const PATIENCE: Duration = Duration::from_secs(1);
/// With `durability=power`, the part of the idle timeout after which a use is written to the file: by so much a session may
/// die too early after a power cut, and not else.
const COARSE: i64 = 10;
const SHORTEST_COARSE_MS: i64 = 1000;

pub(crate) struct Lmdb {
    path: PathBuf,
    wishes: Wishes,
    salt: [u8; SALT_LEN],
    /// This process's own; a parent's is left alone.
    database: PerProcess<OnceCell<Arc<Database>>>,
}

/// Whether a write has to be on the disk when it returns, where the store promises that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acknowledged {
    Yes,
    No,
}

impl Lmdb {
    /// Opens the store in a directory, or makes it. With it comes the store's salt.
    pub(crate) fn open(path: &Path, url: &Url, has_secret: bool) -> Result<(Lmdb, [u8; SALT_LEN])> {
        Lmdb::wished(path, Wishes::new(url, has_secret)).map(|(lmdb, salt, _)| (lmdb, salt))
    }

    /// Opens the store that is in a directory, as it was used last but for what the URL says. Also whether it seals.
    pub(crate) fn open_existing(path: &Path, url: &Url) -> Result<(Lmdb, [u8; SALT_LEN], bool)> {
        let (mut lmdb, salt, seals) = Lmdb::wished(path, Wishes { follows: true, ..Wishes::new(url, false) })?;
        lmdb.wishes.seals = seals;
        lmdb.wishes.survives_power_cut = lmdb.here()?.group.is_some();
        Ok((lmdb, salt, seals))
    }

    fn wished(path: &Path, wishes: Wishes) -> Result<(Lmdb, [u8; SALT_LEN], bool)> {
        let opened = Database::open(path, &wishes)?;
        let (salt, seals) = (opened.get().salt, opened.get().seals);
        let lmdb = Lmdb { path: path.to_owned(), wishes, salt, database: PerProcess::new() };
        lmdb.database.get().get_or_init(|| opened);
        Ok((lmdb, salt, seals))
    }

    /// The store in this process.
    fn here(&self) -> Result<&Open> {
        let database = self.database.get().get_or_try_init(|| {
            let reopened = Database::open(&self.path, &self.wishes)?;
            match reopened.get().salt == self.salt {
                true => Ok(reopened),
                // The keys are made from the salt: nothing would be found, and what is written not by others.
                false => Err(Error::fixed(
                    ErrorKind::Io,
                    "there is another store in the directory than before fork: open it in the child",
                )),
            }
        })?;
        Ok(database.get())
    }

    fn seals(&self) -> bool {
        self.wishes.seals
    }

    /// Runs a step in a transaction of its own: all of it happens, or nothing.
    fn write<T: Send>(
        &self,
        cx: &Context,
        acknowledged: Acknowledged,
        mut step: impl FnMut(&mut Step) -> Result<T> + Send,
    ) -> Result<T> {
        let (open, seals) = (self.here()?, self.seals());
        let (begun, mut is_last_attempt) = (Instant::now(), false);
        loop {
            let (mut effects, mut result) = (Effects::default(), None);
            let mut write = |txn: &mut WriteTxn| {
                result = Some(step(&mut Step::new(txn, open, cx, seals, &mut effects))?);
                Ok(())
            };
            let committed = match &open.group {
                None => open.write().and_then(|mut txn| {
                    write(&mut txn)?;
                    txn.commit()
                }),
                Some(group) => group.commit(open, &mut write).and_then(|number| match acknowledged {
                    Acknowledged::Yes => group.flush(open, number),
                    Acknowledged::No => Ok(()),
                }),
            };
            let again = effects.again;
            effects.settle(cx, &open.map.touches(), committed.is_ok());
            if again {
                continue;
            }
            if committed.as_ref() == Err(&no_room()) && !is_last_attempt {
                // If nobody had to be waited for, one more attempt is due, because they may just have gone.
                is_last_attempt = !open.wait_for_reads(begun + PATIENCE)?;
                continue;
            }
            committed?;
            return result.ok_or_else(|| Error::fixed(ErrorKind::Panic, "a write was not run"));
        }
    }

    /// Runs a step that may need more room, after making some if there is none.
    fn grow<T: Send>(
        &self,
        cx: &Context,
        len: usize,
        mut step: impl FnMut(&mut Step) -> Result<T> + Send,
    ) -> Result<T> {
        let mut none_left = false;
        loop {
            let written = self.check_room(len).and_then(|()| self.write(cx, Acknowledged::Yes, &mut step));
            match written {
                Err(error) if error.kind() == ErrorKind::Full && !none_left => {
                    // If there was nothing to clear, one more attempt is due, because others may have cleared it.
                    none_left = self.sweep(cx, ROOM)? == 0;
                }
                written => return written,
            }
        }
    }

    /// `FULL` if the file has so little room left that it is needed for making room.
    fn check_room(&self, len: usize) -> Result<()> {
        let open = self.here()?;
        let page = open.env.page_size()?;
        let pages = (open.file_size / page as u64) as usize;
        let wanted = len / page + PAGES_OF_A_WRITE;
        // Saturating, for a file that is damaged while it is open may say anything.
        if open.env.last_page()?.saturating_add(wanted) < pages - pages / RESERVE
            || open.env.read()?.has_free_pages(wanted)?
        {
            return Ok(());
        }
        Err(no_room())
    }

    /// Reads in a snapshot, and again in a newer one for as long as `read` cannot tell what became of a session. What it
    /// finds twice in the same snapshot is as it is: `is_settled`.
    fn look<T>(
        &self,
        open: &Open,
        mut read: impl FnMut(&ReadTxn, bool) -> std::result::Result<T, Unanswered>,
    ) -> Result<T> {
        let mut last = None;
        loop {
            let txn = open.env.read()?;
            let is_settled = last.replace(txn.id()) == last;
            match read(&txn, is_settled) {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Failed(error)) => return Err(error),
                Err(Unanswered::Stale) => {}
                Err(Unanswered::Ending(place)) => {
                    drop(txn);
                    let _writing = open.env.write(open.gate())?;
                    open.map.touches().revive(place);
                }
            }
        }
    }

    /// Whether a use has to be written into the record.
    fn must_refresh(&self, open: &Open, cx: &Context, row: &Row) -> bool {
        let idle = row.header.own.or(cx.policy.timeouts()).idle;
        let coarse = (idle / COARSE).max(SHORTEST_COARSE_MS);
        open.group.is_some() && idle != FOREVER && row.header.last_seen.saturating_sub(row.recorded) >= coarse
    }

    fn refresh(&self, cx: &Context, key: &LookupKey) -> Result<Meta> {
        self.write(cx, Acknowledged::No, |step| step.refresh(key))
    }
}

impl Open {
    /// Pages that were freed cannot be used again as long as a read is under way that may still look at them: waits for
    /// those that are under way now. False: there are none.
    fn wait_for_reads(&self, until: Instant) -> Result<bool> {
        let last = self.env.last_transaction()?;
        let mut has_waited = false;
        while let Some(read) = self.env.oldest_read()?.filter(|read| read.snapshot < last) {
            if Instant::now() > until {
                let message =
                    format!("process {} does not end a read, which keeps the store from writing", read.process);
                return Err(Error::new(ErrorKind::Busy, message));
            }
            self.env.clear_dead_readers()?;
            thread::sleep(TURN);
            has_waited = true;
        }
        Ok(has_waited)
    }
}

/// Why a look into a snapshot gave no answer.
enum Unanswered {
    Failed(Error),
    /// It shows a session as it was before.
    Stale,
    /// A writer is just ending the session that has this cell, or giving it another one, or was killed while he was.
    Ending(Place),
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Unanswered {
        Unanswered::Failed(error)
    }
}

/// Whether a session of a snapshot lives.
fn lives(
    row: &mut Row,
    touches: &Touches,
    moment: &StepTime,
    is_settled: bool,
) -> std::result::Result<bool, Unanswered> {
    if row.is_stale() && !is_settled {
        return Err(Unanswered::Stale);
    }
    row.lives(touches, moment).ok_or(Unanswered::Ending(row.place()))
}

/// A use of a session that is noted, but taken back unless it is confirmed.
struct Use<'a> {
    touches: Touches<'a>,
    place: Place,
    from: i64,
    to: i64,
}

impl<'a> Use<'a> {
    /// Not if it has died meanwhile, or is about to.
    fn begin(touches: Touches<'a>, row: &Row, now: i64) -> std::result::Result<Use<'a>, Unanswered> {
        let from = touches.slide(row.place(), now).ok_or(Unanswered::Stale)?;
        Ok(Use { touches, place: row.place(), from, to: now })
    }

    fn confirm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.touches.slide_back(self.place, self.to, self.from);
    }
}

impl Engine for Lmdb {
    fn enter(&self) -> Result<Context<'_>> {
        Ok(self.here()?.context())
    }

    fn may_block(&self) -> Blocking {
        // With `durability=power` some reads write that the session was used. (Else only those do that find its last use
        // lost with sss.map.)
        Blocking { reads: self.wishes.survives_power_cut, writes: true }
    }

    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>> {
        let (path, wishes) = (self.path.clone(), self.wishes.clone());
        Some(Box::new(Lmdb { path, wishes, salt: self.salt, database: PerProcess::new() }))
    }

    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        self.grow(cx, write.content.stored_len(0), |step| step.rewrite(None, key, write, &Grace::NONE))
    }

    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()> {
        let (open, seals) = (self.here()?, self.seals());
        let touches = open.map.touches();
        open.map.prefetch_cell(key);
        let must_refresh = self.look(open, |txn, is_settled| {
            let moment = cx.step_time();
            let Some(Way { mut row, payload, until, aliases }) = step::follow(txn, key, open, &moment, seals)? else {
                return Err(miss(cx, key).into());
            };
            if !lives(&mut row, &touches, &moment, is_settled)? {
                return Err(miss(cx, key).into());
            }
            // The old id of a session does not keep it alive.
            let slides = !peek && aliases.is_empty();
            let can_note = row.seen != Seen::Unknown && Touches::can_note(moment.now);
            // Before the payload is lent: if it dies just now, nothing may have been copied.
            let noted = match slides && can_note {
                true => Some(Use::begin(touches, &row, moment.now)?),
                false => None,
            };
            if slides {
                row.header = row.header.touched_at(moment.now);
            }
            let mut meta = row.header.meta(moment.timeouts);
            meta.expires_ms = meta.expires_ms.min(until);
            reader(Found {
                record: StoredRecord { key: row.key, header: &row.header, payload },
                meta,
                alias_chain: &aliases,
            })?;
            cx.counters.count(Count::Hits, key);
            noted.into_iter().for_each(Use::confirm);
            Ok(slides && (!can_note || self.must_refresh(open, cx, &row)))
        })?;
        if must_refresh {
            match self.refresh(cx, key) {
                // It was read, and that counts: what could not be noted lets it die earlier, not later.
                Err(error) if matches!(error.kind(), ErrorKind::Full | ErrorKind::NotFound) => {}
                refreshed => drop(refreshed?),
            }
        }
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &LookupKey) -> Result<Meta> {
        let open = self.here()?;
        let touches = open.map.touches();
        let noted = self.look(open, |txn, is_settled| {
            let bytes = txn.session(key)?.ok_or_else(Error::not_found)?;
            let (mut row, _) = Row::read(*key, bytes, &touches, self.seals())?;
            let moment = cx.step_time();
            if !lives(&mut row, &touches, &moment, is_settled)? {
                return Err(Error::not_found().into());
            }
            if row.seen == Seen::Unknown || !Touches::can_note(moment.now) {
                return Ok(None);
            }
            Use::begin(touches, &row, moment.now)?.confirm();
            row.header = row.header.touched_at(moment.now);
            Ok((!self.must_refresh(open, cx, &row)).then(|| row.header.meta(moment.timeouts)))
        })?;
        noted.map_or_else(|| self.refresh(cx, key), Ok)
    }

    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        self.grow(cx, write.content.stored_len(0), |step| step.rewrite(Some(key), key, write, &Grace::NONE))
    }

    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta> {
        self.grow(cx, write.content.stored_len(0), |step| step.rewrite(Some(old), new, write, grace))
    }

    fn delete(&self, cx: &Context, key: &LookupKey) -> Result<()> {
        self.write(cx, Acknowledged::Yes, |step| step.delete(key))
    }

    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey> {
        let (open, seals) = (self.here()?, self.seals());
        self.look(open, |txn, is_settled| {
            let moment = cx.step_time();
            let mut way = step::follow(txn, key, open, &moment, seals)?.ok_or_else(Error::not_found)?;
            match lives(&mut way.row, &open.map.touches(), &moment, is_settled)? {
                true => Ok(way.row.key),
                false => Err(Error::not_found().into()),
            }
        })
    }

    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        let open = self.here()?;
        open.env.clear_dead_readers()?;
        let is_arming = || open.env.read().and_then(|txn| expiry::is_arming(&txn));
        while max > 0 && is_arming()? && self.write(cx, Acknowledged::No, |step| step.arm_some())? {
            thread::sleep(TURN);
        }
        let first_deadline = || open.env.read().and_then(|txn| expiry::first_deadline(&txn));
        let mut removed = 0;
        while removed < max && first_deadline()?.is_some_and(|deadline| deadline <= cx.clock.now_ms()) {
            let (more, is_more) = self.write(cx, Acknowledged::No, |step| step.sweep(max - removed))?;
            removed += more;
            if !is_more {
                break;
            }
            thread::sleep(TURN);
        }
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>> {
        let (open, seals) = (self.here()?, self.seals());
        self.look(open, |txn, is_settled| {
            let moment = cx.step_time();
            let (mut entries, mut next) = (Vec::new(), step::pair_key(principal, &LookupKey(0, 0)).to_vec());
            while let Some(key) = step::next_of(txn, principal, &mut next)? {
                let Some(bytes) = txn.session(&key)? else { continue };
                let (mut row, _) = Row::read(key, bytes, &open.map.touches(), seals)?;
                if lives(&mut row, &open.map.touches(), &moment, is_settled)? {
                    entries.try_reserve(1).map_err(|_| Error::no_memory())?;
                    entries.push(row.header.entry(key, row.payload_len(seals), moment.timeouts));
                }
            }
            Ok(entries)
        })
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
        let mut revoked = 0;
        loop {
            // Each time from the beginning: what was renewed meanwhile may be anywhere.
            let (count, is_done) = self.write(cx, Acknowledged::Yes, |step| {
                let spared = step.spared(except)?;
                let is_done = step.revoke(principal, spared)?;
                Ok((step.revoked(), is_done))
            })?;
            revoked += count;
            if is_done {
                return Ok(revoked);
            }
        }
    }

    fn usage(&self, _: &Context) -> Result<EngineUsage> {
        let txn = self.here()?.env.read()?;
        Ok(EngineUsage { sessions: txn.entries(Table::Sessions)?, bytes: step::bytes_held(&txn)?, hits: 0, misses: 0 })
    }

    fn timeouts_shortened(&self) -> Result<()> {
        self.here()?.arm_anew()
    }

    fn check(&self) -> Result<Vec<String>> {
        let open = self.here()?;
        check::check(open, &open.env.read()?, self.seals())
    }
}

/// Counts a read that found nothing.
fn miss(cx: &Context, key: &LookupKey) -> Error {
    cx.counters.count(Count::Misses, key);
    Error::not_found()
}
