//! One write transaction, in terms of sessions: a record, its deadline and its entry in the
//! principal's index are written and removed together. A `SessionRow` is what a record says
//! together with its slot in the shared memory; they are joined only here.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{
    deadline_index::{self, parse_key, successor},
    env::{Room, Table, Txn, WriteTxn, file_full},
    handle::Handle,
    old_keys,
    shm::{LastUsedTable, SlotRef, SlotState},
};
use crate::{
    crypto::zeroize::ZeroizeOnDrop,
    engine::Context,
    error::{Error, ErrorKind, Result},
    session::{
        alias::{AliasWalk, Grace, MAX_ALIASES},
        codec::{self, EngineFields},
        header::{Meta, RecordHeader, StoredRecord, try_to_vec},
        key::{LookupKey, PrincipalKey},
        policy::StepTime,
        write::{PrincipalChange, Write},
    },
    stats::Count,
};

/// The most pages that a write takes beside those of its payload: some for the way down each of the
/// tables.
const PAGES_PER_WRITE: usize = 40;
/// One part of the file's pages is reserved for calls that end sessions: deleting takes pages as
/// well, and those that a transaction frees are available only to the transaction after the next
/// one.
const RESERVED_PART: usize = 16;
const MIN_RESERVED_PAGES: usize = 64;

/// In `Table::Meta`: the sum of the payloads' lengths.
const BYTES: &[u8] = b"bytes";

/// A session, as its record and its slot say.
pub(super) struct SessionRow {
    pub key: LookupKey,
    /// With the last use that is in the slot.
    pub header: RecordHeader,
    /// The last use that is in the record.
    pub recorded_last_seen: i64,
    pub engine_fields: EngineFields,
    pub slot_state: SlotState,
    pub stored_len: usize,
}

impl SessionRow {
    /// What a record says, and its payload as it is stored.
    pub(super) fn read<'a>(
        key: LookupKey,
        bytes: &'a [u8],
        last_used: &LastUsedTable,
        seals: bool,
    ) -> Result<(SessionRow, &'a [u8])> {
        let record = codec::decode(bytes, seals)?;
        let mut row = SessionRow {
            key,
            header: record.header,
            recorded_last_seen: record.header.last_seen,
            engine_fields: record.engine_fields,
            slot_state: SlotState::Missing,
            stored_len: record.payload.len(),
        };
        row.apply_slot(last_used);
        Ok((row, record.payload))
    }

    fn apply_slot(&mut self, last_used: &LastUsedTable) {
        self.slot_state = last_used.state(self.slot());
        if let SlotState::LastUsed(ms) | SlotState::Ending(ms) = self.slot_state {
            self.header.last_seen = self.header.last_seen.max(ms);
        }
    }

    /// Whether the session is live. If it is not, no call can use it from now on. `None`: a writer
    /// is about to end it, or was killed while it was.
    pub(super) fn is_live(&mut self, last_used: &LastUsedTable, time: &StepTime) -> Option<bool> {
        // For good, so that its slot needs no mark, which would say that it has expired.
        if self.header.is_revoked(time) {
            return Some(false);
        }
        loop {
            match self.slot_state {
                SlotState::Expired => return Some(false),
                SlotState::Ending(_) => return None,
                _ if self.header.is_live(time) => return Some(true),
                _ if last_used.mark_expired(self.slot(), self.slot_state) => return Some(false),
                // It was used just now.
                _ => self.apply_slot(last_used),
            }
        }
    }

    /// Whether its slot belongs to another session by now: the row is from an old snapshot, or the
    /// slots were lost.
    pub(super) fn is_stale(&self) -> bool {
        self.slot_state == SlotState::Missing && self.engine_fields.last_used_slot != 0
    }

    pub(super) fn slot(&self) -> SlotRef {
        SlotRef { index: self.engine_fields.last_used_slot, generation: self.engine_fields.generation }
    }

    pub(super) fn payload_len(&self, seals: bool) -> u64 {
        codec::payload_len(self.stored_len, seals)
    }
}

/// A session that was reached by a key, over the aliases of its old ids if there are any.
pub(super) struct Resolved<'t> {
    pub row: SessionRow,
    /// The payload as it is stored.
    pub payload: &'t [u8],
    /// The aliases on the way to it.
    pub walk: AliasWalk,
}

pub(super) fn resolve<'t>(
    txn: &'t Txn,
    key: &LookupKey,
    last_used: &LastUsedTable,
    time: &StepTime,
    seals: bool,
) -> Result<Option<Resolved<'t>>> {
    let mut walk = AliasWalk::from(*key);
    loop {
        let key = walk.key;
        if let Some(bytes) = txn.session(&key)? {
            let (row, payload) = SessionRow::read(key, bytes, last_used, seals)?;
            return Ok(Some(Resolved { row, payload, walk }));
        }
        let Some(bytes) = txn.get(Table::Aliases, &key.bytes())? else { return Ok(None) };
        walk.follow(codec::decode_alias(key, bytes, seals)?);
        // A target is always newer than its alias, so only an edited file could lead round in a
        // circle.
        if walk.has_ended(time.now) || walk.chain.len() > MAX_ALIASES {
            return Ok(None);
        }
    }
}

/// What has to be done to the slots when the transaction has ended.
#[derive(Default)]
pub(super) struct DeferredEffects {
    allocated: SmallVec<[SlotRef; 2]>,
    freed: SmallVec<[SlotRef; 4]>,
    touched: SmallVec<[Touch; 1]>,
    /// The slots of sessions that are marked as being ended.
    ending: SmallVec<[SlotRef; 1]>,
    pub revoked: u64,
    pub expired: u64,
    /// What the transaction has seen has changed: it has to be run again.
    pub must_rerun: bool,
}

/// The live sessions of a principal that has too many.
#[derive(Default)]
struct Excess {
    /// The least recently used ones, which make room.
    removed: Vec<SessionRow>,
    kept: Vec<SessionRow>,
}

/// A use that was noted in a slot.
struct Touch {
    slot: SlotRef,
    before: i64,
    now: i64,
}

impl DeferredEffects {
    /// After a commit frees the slots that are not needed any more; otherwise undoes what was done
    /// to the others.
    pub(super) fn apply(self, cx: &Context, last_used: &LastUsedTable, is_committed: bool) {
        if is_committed {
            self.freed.iter().for_each(|&slot| last_used.free(slot));
            cx.counters.add(Count::Revoked, self.revoked);
            cx.counters.add(Count::Expired, self.expired);
        } else {
            self.allocated.iter().for_each(|&slot| last_used.free(slot));
            self.touched.iter().for_each(|touch| last_used.undo_touch(touch.slot, touch.now, touch.before));
            self.ending.iter().for_each(|&slot| last_used.unmark_ending(slot));
        }
    }
}

pub(super) struct SessionTxn<'a, 'e> {
    pub txn: &'a mut WriteTxn<'e>,
    pub handle: &'a Handle,
    pub cx: &'a Context<'a>,
    pub seals: bool,
    pub effects: &'a mut DeferredEffects,
}

impl<'a> SessionTxn<'a, '_> {
    pub(super) fn last_used(&self) -> LastUsedTable<'a> {
        self.handle.shm.last_used()
    }

    /// Fails if a write of `len` bytes would take pages that are reserved for calls that end
    /// sessions.
    pub(super) fn check_room(&self, len: usize) -> Result<()> {
        let page_size = self.handle.env.page_size()?;
        let pages = (self.handle.file_size / page_size as u64) as usize;
        // Together with the writes before it in the same transaction.
        let own = len / page_size + PAGES_PER_WRITE;
        let claimed = self.handle.claimed_pages.fetch_add(own, Ordering::Relaxed).saturating_add(own);
        let reserved = (pages / RESERVED_PART).max(MIN_RESERVED_PAGES);
        match self.handle.env.has_room(pages, claimed.saturating_add(reserved))? {
            Room::Enough => Ok(()),
            Room::HeldByReaders => Err(file_full()),
            Room::None => {
                Err(Error::fixed(ErrorKind::Full, "the store is full: its file has no room for more sessions"))
            }
        }
    }

    /// Writes a session that is new, or whose key or principal may change: from `old` (if any) to
    /// `new`.
    pub(super) fn rewrite(
        &mut self,
        old: Option<&LookupKey>,
        new: &LookupKey,
        write: &Write,
        grace: &Grace,
    ) -> Result<Meta> {
        let time = self.cx.step_time();
        let moves = old != Some(new);
        let before = old.map(|key| self.load_and_touch(key, &time)).transpose()?;
        let header = match &before {
            Some(before) => {
                write.check_version(&before.header)?;
                write.header_after(before.header, time.now)
            }
            None => write.new_header(&time),
        };
        if moves && self.is_taken(new)? {
            return Err(Error::fixed(ErrorKind::Exists, "the new id is taken"));
        }
        let alias = match &before {
            Some(before) if moves => grace.alias((before.key, &before.header), (*new, &header), &time)?,
            _ => None,
        };
        let excess = match header.principal.filter(|_| moves || write.principal != PrincipalChange::Keep) {
            Some(principal) => self.remove_excess(principal, [old, Some(new)], &time)?,
            None => Excess::default(),
        };

        let mut old_payload = ZeroizeOnDrop::new(Vec::new());
        let mut old_label = Vec::new();
        if let Some(before) = &before {
            let bytes = self.txn.get(Table::Sessions, &before.key.bytes())?.unwrap_or_default();
            let codec::Record { payload, label, .. } = codec::decode(bytes, self.seals)?;
            old_label = try_to_vec(label)?;
            write.check_genuine(&StoredRecord { key: before.key, header: &before.header, payload })?;
            if write.content.needs_old_payload() {
                old_payload.try_reserve_exact(payload.len()).map_err(|_| Error::no_memory())?;
                old_payload.extend_from_slice(payload);
            }
        }
        let label = write.label_after(before.as_ref().map(|before| (&before.header, &*old_label)), &header)?;
        let stored_len = write.content.stored_len(old_payload.len());
        let len_before = before.as_ref().map(|before| before.payload_len(self.seals));
        self.adjust_usage(len_before, Some(codec::payload_len(stored_len, self.seals)))?;

        let deadline = header.deadline(time.timeouts);
        let mut engine_fields = EngineFields { indexed_deadline: deadline, ..EngineFields::default() };
        // A thread that finds the session expired by its old timeouts must not mark the slot that
        // the new ones use.
        let changes_timeouts = before.as_ref().is_some_and(|before| before.header.own != header.own);
        match &before {
            Some(before) if !moves => {
                engine_fields = before.engine_fields;
                if changes_timeouts {
                    self.allocate_slot(new, &mut engine_fields, &time);
                    self.effects.freed.push(before.slot());
                }
                // The indexed deadline is a lower bound of the old one: it stays, unless the new
                // one is earlier.
                if deadline < engine_fields.indexed_deadline {
                    deadline_index::unschedule(self.txn, engine_fields.indexed_deadline, new)?;
                    deadline_index::schedule(self.txn, deadline, new)?;
                    engine_fields.indexed_deadline = deadline;
                }
                if before.header.principal != header.principal {
                    self.unindex_principal(before)?;
                    self.index_principal(&header, new)?;
                }
            }
            _ => {
                if let Some(before) = &before {
                    self.remove_entries(before)?;
                }
                self.allocate_slot(new, &mut engine_fields, &time);
                deadline_index::schedule(self.txn, deadline, new)?;
                self.index_principal(&header, new)?;
            }
        }
        let record_len = codec::record_len(&header, label.len(), stored_len);
        let record = self.txn.reserve(Table::Sessions, &new.bytes(), record_len)?;
        let payload = codec::encode(&header, &label, &engine_fields, self.seals, record);
        let replaced = before.as_ref().map(|before| StoredRecord {
            key: before.key,
            header: &before.header,
            payload: &old_payload,
        });
        write.content.write_to(new, &header, replaced, payload)?;
        match (&before, alias) {
            (_, Some(alias)) => old_keys::insert_alias(self.txn, &alias, time.now)?,
            (Some(before), None) if moves => old_keys::remove_aliases(self.txn, &before.key)?,
            _ => {}
        }
        // Last, when little else can fail: from here on other threads find them ended, or wait for
        // the commit.
        self.mark_ending(&excess.removed)?;
        self.check_unexpired(&excess)?;
        self.mark_ending(before.filter(|_| changes_timeouts).as_slice())?;
        Ok(header.meta(time.timeouts))
    }

    pub(super) fn delete(&mut self, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
        let row = self.load_and_touch(key, &self.cx.step_time())?;
        check_principal(&row, principal)?;
        self.remove(&row)
    }

    /// Ends a session in its slot alone, which takes no pages. Its record is removed by a later
    /// sweep.
    pub(super) fn end_in_slot(&mut self, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
        let time = self.cx.step_time();
        let last_used = self.last_used();
        let mut row = self.find(key)?.ok_or_else(Error::not_found)?;
        check_principal(&row, principal)?;
        while self.is_live(&mut row, &time) {
            if row.slot_state == SlotState::Missing {
                return Err(file_full());
            }
            self.handle.shm.header().must_reclaim.store(1, Ordering::Release);
            if last_used.mark_expired(row.slot(), row.slot_state) {
                return Ok(());
            }
            // It was used just now.
            row.apply_slot(&last_used);
        }
        Err(Error::not_found())
    }

    /// Ends the sessions of a principal other than `except` in their slots alone, and returns how
    /// many.
    pub(super) fn revoke_in_slots(&mut self, principal: PrincipalKey, except: Option<LookupKey>) -> Result<u64> {
        let mut revoked = 0;
        let mut next = principal_entry(principal, &LookupKey(0, 0)).to_vec();
        while let Some(key) = next_of_principal(self.txn, principal, &mut next)? {
            if Some(key) == except {
                continue;
            }
            match self.end_in_slot(&key, None) {
                Ok(()) => revoked += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(revoked)
    }

    /// Writes the last use of a session into its record, and allocates a slot if it has none.
    pub(super) fn refresh(&mut self, key: &LookupKey) -> Result<Meta> {
        let time = self.cx.step_time();
        let row = self.load_and_touch(key, &time)?;
        let header = row.header.touched_at(time.now);
        let mut engine_fields = row.engine_fields;
        if row.slot_state == SlotState::Missing {
            self.allocate_slot(key, &mut engine_fields, &time);
        }
        self.patch_record(key, header.last_seen, &engine_fields)?;
        Ok(header.meta(time.timeouts))
    }

    /// Ends up to `max` sessions of a principal other than `except`, and returns how many were live.
    /// False: there may be more.
    pub(super) fn revoke(
        &mut self,
        principal: PrincipalKey,
        except: Option<LookupKey>,
        max: u64,
    ) -> Result<(u64, bool)> {
        let mut keys = Vec::new();
        let mut next = principal_entry(principal, &LookupKey(0, 0)).to_vec();
        while (keys.len() as u64) < max
            && let Some(key) = next_of_principal(self.txn, principal, &mut next)?
        {
            if Some(key) != except {
                keys.try_reserve(1).map_err(|_| Error::no_memory())?;
                keys.push(key);
            }
        }
        let time = self.cx.step_time();
        let mut revoked = 0;
        for key in &keys {
            if let Some(mut row) = self.find(key)? {
                if self.is_live(&mut row, &time) {
                    revoked += 1;
                } else {
                    self.count_ended(&row, &time);
                }
                self.remove(&row)?;
            }
        }
        self.effects.revoked += revoked;
        Ok((revoked, (keys.len() as u64) < max))
    }

    /// Counts a session that is removed and was not live.
    pub(super) fn count_ended(&mut self, row: &SessionRow, time: &StepTime) {
        if row.header.has_expired(time) {
            self.effects.expired += 1;
        } else if row.slot_state != SlotState::Expired {
            self.effects.revoked += 1;
        }
        // Otherwise it was ended in its slot alone, and counted then.
    }

    /// Removes the least recently used sessions of a principal that have to make room for one more.
    /// Their slots are marked later.
    fn remove_excess(
        &mut self,
        principal: PrincipalKey,
        excluded: [Option<&LookupKey>; 2],
        time: &StepTime,
    ) -> Result<Excess> {
        let max = self.cx.policy.limits().max_per_principal;
        if max == u64::MAX {
            return Ok(Excess::default());
        }
        let mut live = Vec::new();
        let mut next = principal_entry(principal, &LookupKey(0, 0)).to_vec();
        while let Some(key) = next_of_principal(self.txn, principal, &mut next)? {
            if excluded.contains(&Some(&key)) {
                continue;
            }
            if let Some(mut row) = self.find(&key)?
                && self.is_live(&mut row, time)
            {
                live.push(row);
            }
        }
        live.sort_unstable_by_key(|row| (row.header.last_seen, row.header.created, row.key));
        let kept = live.split_off((live.len() as u64 + 1).saturating_sub(max).min(live.len() as u64) as usize);
        live.iter().try_for_each(|row| self.remove(row))?;
        self.effects.revoked += live.len() as u64;
        Ok(Excess { removed: live, kept })
    }

    /// When sessions that make room are marked: if one of those that stay was found expired since
    /// they were counted, there was room without that, and the transaction has to be run again.
    fn check_unexpired(&mut self, excess: &Excess) -> Result<()> {
        let is_expired = |row: &SessionRow| self.last_used().state(row.slot()) == SlotState::Expired;
        if !excess.removed.is_empty() && excess.kept.iter().any(is_expired) {
            self.effects.must_rerun = true;
            return Err(Error::fixed(ErrorKind::Busy, "a session expired while another one was about to make room"));
        }
        Ok(())
    }

    /// Marks the slots of sessions that end, chosen because of their last use, or that get another
    /// slot. If one was used since, or found expired, the transaction has to be run again.
    fn mark_ending(&mut self, rows: &[SessionRow]) -> Result<()> {
        for row in rows {
            if !self.last_used().mark_ending(row.slot(), row.slot_state) {
                self.effects.must_rerun = true;
                return Err(Error::fixed(ErrorKind::Busy, "a session was used while it was about to be ended"));
            }
            self.effects.ending.push(row.slot());
        }
        Ok(())
    }

    /// The live session that a key reads.
    pub(super) fn resolve_live(&self, key: &LookupKey) -> Result<Option<LookupKey>> {
        let time = self.cx.step_time();
        let Some(mut resolved) = resolve(self.txn, key, &self.last_used(), &time, self.seals)? else {
            return Ok(None);
        };
        Ok(self.is_live(&mut resolved.row, &time).then_some(resolved.row.key))
    }

    /// Whether a session is live. No other writer is about to end it: this one has the write lock.
    pub(super) fn is_live(&self, row: &mut SessionRow, time: &StepTime) -> bool {
        let last_used = self.last_used();
        if let SlotState::Ending(_) = row.slot_state {
            last_used.unmark_ending(row.slot());
            row.apply_slot(&last_used);
        }
        row.is_live(&last_used, time).unwrap_or(true)
    }

    pub(super) fn find(&self, key: &LookupKey) -> Result<Option<SessionRow>> {
        let Some(bytes) = self.txn.session(key)? else { return Ok(None) };
        let (row, _) = SessionRow::read(*key, bytes, &self.last_used(), self.seals)?;
        Ok(Some(row))
    }

    /// A live session, which this transaction uses: it cannot expire meanwhile.
    fn load_and_touch(&mut self, key: &LookupKey, time: &StepTime) -> Result<SessionRow> {
        let last_used = self.last_used();
        let mut row = self.find(key)?.ok_or_else(Error::not_found)?;
        if !self.is_live(&mut row, time) {
            return Err(Error::not_found());
        }
        if row.header.is_ahead_of(time.now) {
            self.pull_back_row(&mut row, time)?;
            row.apply_slot(&last_used);
        }
        if row.slot_state != SlotState::Missing {
            let before = last_used.touch(row.slot(), time.now).ok_or_else(Error::not_found)?;
            self.effects.touched.push(Touch { slot: row.slot(), before, now: time.now });
            row.apply_slot(&last_used);
        }
        match row.slot_state {
            // By its absolute deadline, which a use does not move.
            SlotState::Expired => Err(Error::not_found()),
            _ => Ok(row),
        }
    }

    /// Pulls a session back that was created or used while the clock was ahead, so that it lives no
    /// longer than its timeouts from now on.
    pub(super) fn pull_back(&mut self, key: &LookupKey) -> Result<()> {
        let time = self.cx.step_time();
        if let Some(mut row) = self.find(key)?
            && self.is_live(&mut row, &time)
            && row.header.is_ahead_of(time.now)
        {
            self.pull_back_row(&mut row, &time)?;
        }
        Ok(())
    }

    fn pull_back_row(&mut self, row: &mut SessionRow, time: &StepTime) -> Result<()> {
        self.last_used().lower(row.slot(), time.now);
        row.header = row.header.pulled_back_to(time.now);
        row.recorded_last_seen = row.header.last_seen;
        let key = row.key.bytes();
        let record = self.txn.get(Table::Sessions, &key)?.unwrap_or_default();
        let codec::Record { payload, label, .. } = codec::decode(record, self.seals)?;
        let payload = ZeroizeOnDrop::new(payload.to_vec());
        let label = label.to_vec();
        deadline_index::unschedule(self.txn, row.engine_fields.indexed_deadline, &row.key)?;
        row.engine_fields.indexed_deadline = row.header.deadline(time.timeouts);
        deadline_index::schedule(self.txn, row.engine_fields.indexed_deadline, &row.key)?;
        let record_len = codec::record_len(&row.header, label.len(), payload.len());
        let out = self.txn.reserve(Table::Sessions, &key, record_len)?;
        codec::encode(&row.header, &label, &row.engine_fields, self.seals, out).copy_from_slice(&payload);
        Ok(())
    }

    fn allocate_slot(&mut self, key: &LookupKey, engine_fields: &mut EngineFields, time: &StepTime) {
        let slot = self.last_used().allocate(key, time.now);
        self.effects.allocated.push(slot);
        engine_fields.last_used_slot = slot.index;
        engine_fields.generation = slot.generation;
    }

    fn is_taken(&self, key: &LookupKey) -> Result<bool> {
        let key = key.bytes();
        Ok(self.txn.get(Table::Sessions, &key)?.is_some() || self.txn.get(Table::Aliases, &key)?.is_some())
    }

    /// Removes a session from the store.
    pub(super) fn remove(&mut self, row: &SessionRow) -> Result<()> {
        self.adjust_usage(Some(row.payload_len(self.seals)), None)?;
        old_keys::remove_aliases(self.txn, &row.key)?;
        self.remove_entries(row)
    }

    fn remove_entries(&mut self, row: &SessionRow) -> Result<()> {
        self.txn.delete(Table::Sessions, &row.key.bytes())?;
        deadline_index::unschedule(self.txn, row.engine_fields.indexed_deadline, &row.key)?;
        self.unindex_principal(row)?;
        self.effects.freed.push(row.slot());
        Ok(())
    }

    /// Counts a change of a payload's length (`None`: no session). Fails if it would pass a limit;
    /// a session that shrinks or stays as long as it was always fits.
    fn adjust_usage(&mut self, old: Option<u64>, new: Option<u64>) -> Result<()> {
        let limits = self.cx.policy.limits();
        let old_len = old.unwrap_or(0);
        let new_len = new.unwrap_or(0);
        let is_one_too_many = old.is_none() && self.txn.entries(Table::Sessions)? >= limits.max_sessions;
        let mut bytes = 0;
        if old_len != new_len {
            bytes = payload_bytes(self.txn)?.wrapping_sub(old_len).wrapping_add(new_len);
        }
        if is_one_too_many || (new_len > old_len && bytes > limits.max_bytes) {
            return Err(Error::fixed(ErrorKind::Full, "the store is full: max_sessions or max_bytes is reached"));
        }
        if old_len != new_len {
            self.txn.put(Table::Meta, BYTES, &bytes.to_le_bytes())?;
        }
        Ok(())
    }

    /// Changes the parts of a record that are not sealed.
    pub(super) fn patch_record(&mut self, key: &LookupKey, last_seen: i64, engine_fields: &EngineFields) -> Result<()> {
        let key = key.bytes();
        let mut record = self.txn.get(Table::Sessions, &key)?.unwrap_or_default().to_vec();
        codec::patch_header(&mut record, last_seen, engine_fields)?;
        self.txn.put(Table::Sessions, &key, &record)
    }

    fn index_principal(&mut self, header: &RecordHeader, key: &LookupKey) -> Result<()> {
        match header.principal {
            Some(principal) => self.txn.put(Table::Principals, &principal_entry(principal, key), &[]),
            None => Ok(()),
        }
    }

    fn unindex_principal(&mut self, row: &SessionRow) -> Result<()> {
        if let Some(principal) = row.header.principal {
            self.txn.delete(Table::Principals, &principal_entry(principal, &row.key))?;
        }
        Ok(())
    }
}

/// `NOT_FOUND` if the session is not of this principal.
fn check_principal(row: &SessionRow, principal: Option<PrincipalKey>) -> Result<()> {
    match principal {
        Some(_) if row.header.principal != principal => Err(Error::not_found()),
        _ => Ok(()),
    }
}

/// The sum of the payloads' lengths.
pub(super) fn payload_bytes(txn: &Txn) -> Result<u64> {
    let bytes = txn.get(Table::Meta, BYTES)?;
    Ok(bytes.and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}

/// Commits a transaction that changes nothing.
pub(super) fn commit_unchanged(mut txn: WriteTxn) -> Result<()> {
    let bytes = payload_bytes(&txn)?;
    txn.put(Table::Meta, BYTES, &bytes.to_le_bytes())?;
    txn.commit()
}

/// The next session of a principal, from the entry `next` on, which is moved behind it.
pub(super) fn next_of_principal(txn: &Txn, principal: PrincipalKey, next: &mut Vec<u8>) -> Result<Option<LookupKey>> {
    let Some((entry, _)) = txn.first_from(Table::Principals, next)? else { return Ok(None) };
    let Some(key) = entry.strip_prefix(&principal.bytes()) else { return Ok(None) };
    let key = parse_key(key)?;
    *next = successor(entry);
    Ok(Some(key))
}

pub(super) fn principal_entry(principal: PrincipalKey, key: &LookupKey) -> [u8; 64] {
    let mut entry = [0; 64];
    entry[..32].copy_from_slice(&principal.bytes());
    entry[32..].copy_from_slice(&key.bytes());
    entry
}
