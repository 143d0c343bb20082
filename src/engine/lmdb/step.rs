//! One write transaction, in terms of sessions: a record, its deadline in the expiry table and its principal's pair are
//! written and removed together. And what a record says, together with its cell: the only place that joins the two.

use smallvec::SmallVec;

use super::{
    database::Open,
    expiry::{OF_ALIAS, deadline_key},
    ffi::{Table, Txn, WriteTxn},
    touches::{Place, Seen, Touches},
};
use crate::{
    crypto::{aead::OVERHEAD, zeroize::ZeroizeOnDrop},
    engine::Context,
    error::{Error, ErrorKind, Result},
    session::{
        alias::{Alias, Grace},
        codec::{self, EngineFields},
        header::{Meta, RecordHeader, StoredRecord},
        key::{LookupKey, PrincipalKey, Ref},
        policy::StepTime,
        write::{PrincipalChange, Write},
    },
    stats::Count,
};

/// Expired sessions that a create clears, so that a store that nobody sweeps does not fill up.
const NEIGHBOURS: u64 = 4;

/// In `Table::Meta`: the bytes of all payloads.
const BYTES: &[u8] = b"bytes";

/// A session, as its record and its cell say.
pub(super) struct Row {
    pub key: LookupKey,
    /// With the last use that is in the cell.
    pub header: RecordHeader,
    /// The last use that is in the record.
    pub recorded: i64,
    pub private: EngineFields,
    pub seen: Seen,
    pub stored_len: usize,
}

/// What is to be done outside of LMDB when the transaction has ended.
#[derive(Default)]
pub(super) struct Effects {
    taken: SmallVec<[Place; 2]>,
    freed: SmallVec<[Place; 4]>,
    /// Uses that were noted: from when, to when.
    used: SmallVec<[(Place, i64, i64); 1]>,
    /// The cells of living sessions that were ended.
    ended: SmallVec<[Place; 1]>,
    revoked: u64,
    pub expired: u64,
    /// What the step had seen has changed: it has to be taken again.
    pub again: bool,
}

pub(super) struct Step<'a, 'e> {
    pub txn: &'a mut WriteTxn<'e>,
    pub open: &'a Open,
    pub cx: &'a Context<'a>,
    pub seals: bool,
    pub effects: &'a mut Effects,
}

impl Row {
    /// What a record says, and its payload as it is stored.
    pub(super) fn read<'a>(key: LookupKey, bytes: &'a [u8], touches: &Touches, seals: bool) -> Result<(Row, &'a [u8])> {
        let record = codec::decode(bytes, seals)?;
        let (header, recorded) = (record.header, record.header.last_seen);
        let seen = touches.seen(place(&record.engine_fields));
        let mut row =
            Row { key, header, recorded, private: record.engine_fields, seen, stored_len: record.payload.len() };
        row.see(seen);
        Ok((row, record.payload))
    }

    fn see(&mut self, seen: Seen) {
        self.seen = seen;
        if let Seen::At(ms) | Seen::Ending(ms) = seen {
            self.header.last_seen = self.header.last_seen.max(ms);
        }
    }

    /// Whether the session lives. If it does not, nobody can use it any more from now on. `None`: a writer is just ending
    /// it, or was killed while he was.
    pub(super) fn lives(&mut self, touches: &Touches, moment: &StepTime) -> Option<bool> {
        loop {
            match self.seen {
                Seen::Dead => return Some(false),
                Seen::Ending(_) => return None,
                _ if self.header.is_live(moment) => return Some(true),
                _ if touches.expire(self.place(), self.seen) => return Some(false),
                // It was used just now.
                _ => self.see(touches.seen(self.place())),
            }
        }
    }

    /// Whether its cell is another session's by now: so this is an old snapshot, or the cells were lost.
    pub(super) fn is_stale(&self) -> bool {
        self.seen == Seen::Unknown && self.private.last_used_slot != 0
    }

    pub(super) fn place(&self) -> Place {
        place(&self.private)
    }

    pub(super) fn payload_len(&self, seals: bool) -> u64 {
        payload_len(self.stored_len, seals)
    }
}

impl Effects {
    /// Frees the cells that nobody needs any more; if nothing was committed, nothing has happened to the others.
    pub(super) fn settle(self, cx: &Context, touches: &Touches, is_committed: bool) {
        if is_committed {
            self.freed.iter().for_each(|&place| touches.free(place));
            cx.counters.add(Count::Revoked, self.revoked);
            cx.counters.add(Count::Expired, self.expired);
        } else {
            self.taken.iter().for_each(|&place| touches.free(place));
            self.used.iter().for_each(|&(place, from, to)| touches.slide_back(place, to, from));
            self.ended.iter().for_each(|&place| touches.revive(place));
        }
    }
}

impl<'a, 'e> Step<'a, 'e> {
    pub(super) fn new(
        txn: &'a mut WriteTxn<'e>,
        open: &'a Open,
        cx: &'a Context<'a>,
        seals: bool,
        effects: &'a mut Effects,
    ) -> Step<'a, 'e> {
        Step { txn, open, cx, seals, effects }
    }

    /// Writes a session whose key or principal may change, or that is new: from `old` (if any) to `new`.
    pub(super) fn rewrite(
        &mut self,
        old: Option<&LookupKey>,
        new: &LookupKey,
        write: &Write,
        grace: &Grace,
    ) -> Result<Meta> {
        let moment = self.cx.step_time();
        let moves = old != Some(new);
        let before = old.map(|key| self.used(key, &moment)).transpose()?;
        let header = match &before {
            Some(before) => {
                write.check_version(&before.header)?;
                write.header_after(before.header, moment.now)
            }
            None => write.new_header(moment.now),
        };
        if moves && self.holds(new)? {
            return Err(Error::fixed(ErrorKind::Exists, "the new id is taken"));
        }
        let alias = match &before {
            Some(before) if moves => grace.alias(before.key, *new, &header, &moment)?,
            _ => None,
        };
        let surplus = match header.principal.filter(|_| moves || write.principal != PrincipalChange::Keep) {
            Some(principal) => self.take_surplus(principal, [old, Some(new)], &moment)?,
            None => Vec::new(),
        };

        let mut old_bytes = ZeroizeOnDrop::new(Vec::new());
        if let Some(before) = &before {
            let bytes = self.txn.get(Table::Sessions, &before.key.bytes())?.unwrap_or_default();
            let payload = codec::decode(bytes, self.seals)?.payload;
            write.check_genuine(&StoredRecord { key: before.key, header: &before.header, payload })?;
            if write.content.needs_old_payload() {
                old_bytes.try_reserve_exact(payload.len()).map_err(|_| Error::no_memory())?;
                old_bytes.extend_from_slice(payload);
            }
        }
        let stored_len = write.content.stored_len(old_bytes.len());
        let held = before.as_ref().map(|before| before.payload_len(self.seals));
        self.book(held, Some(payload_len(stored_len, self.seals)))?;

        let deadline = header.deadline(moment.timeouts);
        let mut private = EngineFields { indexed_deadline: deadline, ..EngineFields::default() };
        // Who finds the session expired by its old timeouts must not do so in the cell of the new ones.
        let is_timed_anew = before.as_ref().is_some_and(|before| before.header.own != header.own);
        match &before {
            Some(before) if !moves => {
                private = before.private;
                if is_timed_anew {
                    self.give_cell(new, &mut private, &moment);
                    self.effects.freed.push(before.place());
                }
                // What was armed is not later than the old deadline: it stands, unless the new one is nearer.
                if deadline < private.indexed_deadline {
                    self.disarm(private.indexed_deadline, new)?;
                    self.arm(deadline, new)?;
                    private.indexed_deadline = deadline;
                }
                if before.header.principal != header.principal {
                    self.unbind(before)?;
                    self.bind(&header, new)?;
                }
            }
            _ => {
                if let Some(before) = &before {
                    self.take_out(before)?;
                }
                self.give_cell(new, &mut private, &moment);
                self.arm(deadline, new)?;
                self.bind(&header, new)?;
            }
        }
        let out = self.txn.reserve(Table::Sessions, &new.bytes(), codec::record_len(&header, stored_len))?;
        let out = codec::encode(&header, &private, self.seals, out);
        let replaced =
            before.as_ref().map(|before| StoredRecord { key: before.key, header: &before.header, payload: &old_bytes });
        write.content.write_to(new, &header, replaced, out)?;
        if let Some(alias) = alias {
            self.txn.put(Table::Aliases, &alias.key.bytes(), &codec::encode_alias(&alias))?;
            self.txn.put(Table::Expiry, &deadline_key(alias.until, &alias.key), OF_ALIAS)?;
        }
        if before.is_none() {
            self.expire(u64::MAX, NEIGHBOURS, &moment)?;
        }
        // Last, when nothing else can fail: to others they are gone from here on, or wait to be seen anew.
        self.end(&surplus)?;
        self.end(before.filter(|_| is_timed_anew).as_slice())?;
        Ok(header.meta(moment.timeouts))
    }

    pub(super) fn delete(&mut self, key: &LookupKey) -> Result<()> {
        let row = self.used(key, &self.cx.step_time())?;
        self.remove(&row)
    }

    /// Writes into a session's record when it was used last, and gives it a cell if it has none.
    pub(super) fn refresh(&mut self, key: &LookupKey) -> Result<Meta> {
        let moment = self.cx.step_time();
        let row = self.used(key, &moment)?;
        let header = row.header.touched_at(moment.now);
        let mut private = row.private;
        if row.seen == Seen::Unknown {
            self.give_cell(key, &mut private, &moment);
        }
        self.amend(key, header.last_seen, &private)?;
        Ok(header.meta(moment.timeouts))
    }

    /// Ends the sessions of a principal but one, as many as fit into a transaction. False: there may be more.
    pub(super) fn revoke(&mut self, principal: PrincipalKey, spared: Option<LookupKey>) -> Result<bool> {
        const MOST: usize = 4096;
        let mut keys = Vec::new();
        let mut next = pair_key(principal, &LookupKey(0, 0)).to_vec();
        while let Some(key) = next_of(self.txn, principal, &mut next)? {
            if Some(key) != spared {
                keys.try_reserve(1).map_err(|_| Error::no_memory())?;
                keys.push(key);
            }
            if keys.len() == MOST {
                break;
            }
        }
        let moment = self.cx.step_time();
        for key in &keys {
            if let Some(mut row) = self.find(key)? {
                let lives = self.lives(&mut row, &moment);
                *(if lives { &mut self.effects.revoked } else { &mut self.effects.expired }) += 1;
                self.remove(&row)?;
            }
        }
        Ok(keys.len() < MOST)
    }

    /// How many sessions were ended by `revoke` and `end_surplus` so far.
    pub(super) fn revoked(&self) -> u64 {
        self.effects.revoked
    }

    /// Takes out the least recently used sessions of a principal that have to make room for one more.
    fn take_surplus(
        &mut self,
        principal: PrincipalKey,
        spared: [Option<&LookupKey>; 2],
        moment: &StepTime,
    ) -> Result<Vec<Row>> {
        let most = self.cx.policy.limits().max_per_principal;
        let mut living = Vec::new();
        if most == u64::MAX {
            return Ok(living);
        }
        let mut next = pair_key(principal, &LookupKey(0, 0)).to_vec();
        while let Some(key) = next_of(self.txn, principal, &mut next)? {
            if spared.contains(&Some(&key)) {
                continue;
            }
            if let Some(mut row) = self.find(&key)?
                && self.lives(&mut row, moment)
            {
                living.push(row);
            }
        }
        living.sort_unstable_by_key(|row| (row.header.last_seen, row.header.created, row.key));
        living.truncate((living.len() as u64 + 1).saturating_sub(most) as usize);
        living.iter().try_for_each(|row| self.remove(row))?;
        self.effects.revoked += living.len() as u64;
        Ok(living)
    }

    /// Ends the cells of sessions that end, chosen because of their last use, or get another cell. If one was used since, or
    /// found expired, all has to be looked at again.
    fn end(&mut self, rows: &[Row]) -> Result<()> {
        for row in rows {
            if !self.open.map.touches().end(row.place(), row.seen) {
                self.effects.again = true;
                return Err(Error::fixed(ErrorKind::Busy, "a session was used while it was about to be ended"));
            }
            self.effects.ended.push(row.place());
        }
        Ok(())
    }

    /// The session that `except` reads, which a revocation spares.
    pub(super) fn spared(&self, except: Option<&LookupKey>) -> Result<Option<LookupKey>> {
        let Some(key) = except else { return Ok(None) };
        let moment = self.cx.step_time();
        let Some(mut way) = follow(self.txn, key, self.open, &moment, self.seals)? else { return Ok(None) };
        Ok(self.lives(&mut way.row, &moment).then_some(way.row.key))
    }

    /// Whether a session lives. No other writer is ending it: this one has the write lock.
    pub(super) fn lives(&self, row: &mut Row, moment: &StepTime) -> bool {
        let touches = self.open.map.touches();
        if let Seen::Ending(_) = row.seen {
            touches.revive(row.place());
            row.see(touches.seen(row.place()));
        }
        row.lives(&touches, moment).unwrap_or(true)
    }

    pub(super) fn find(&self, key: &LookupKey) -> Result<Option<Row>> {
        let bytes = self.txn.session(key)?;
        bytes.map(|bytes| Ok(Row::read(*key, bytes, &self.open.map.touches(), self.seals)?.0)).transpose()
    }

    /// A living session, which is used by this step: it cannot expire meanwhile.
    fn used(&mut self, key: &LookupKey, moment: &StepTime) -> Result<Row> {
        let touches = self.open.map.touches();
        let mut row = self.find(key)?.ok_or_else(Error::not_found)?;
        if !self.lives(&mut row, moment) {
            return Err(Error::not_found());
        }
        if row.seen != Seen::Unknown {
            let before = touches.slide(row.place(), moment.now).ok_or_else(Error::not_found)?;
            self.effects.used.push((row.place(), before, moment.now));
            row.see(touches.seen(row.place()));
        }
        match row.seen {
            // By its absolute deadline, which a use does not move.
            Seen::Dead => Err(Error::not_found()),
            _ => Ok(row),
        }
    }

    fn give_cell(&mut self, key: &LookupKey, private: &mut EngineFields, moment: &StepTime) {
        let place = self.open.map.touches().take(key, moment.now);
        self.effects.taken.push(place);
        (private.last_used_slot, private.generation) = (place.cell, place.generation);
    }

    fn holds(&self, key: &LookupKey) -> Result<bool> {
        let key = key.bytes();
        Ok(self.txn.get(Table::Sessions, &key)?.is_some() || self.txn.get(Table::Aliases, &key)?.is_some())
    }

    /// Takes a session out of the store.
    pub(super) fn remove(&mut self, row: &Row) -> Result<()> {
        self.book(Some(row.payload_len(self.seals)), None)?;
        self.take_out(row)
    }

    fn take_out(&mut self, row: &Row) -> Result<()> {
        self.txn.delete(Table::Sessions, &row.key.bytes())?;
        self.disarm(row.private.indexed_deadline, &row.key)?;
        self.unbind(row)?;
        self.effects.freed.push(row.place());
        Ok(())
    }

    /// Books a change of the payloads' lengths (`None`: no session), or fails if it would pass a limit. What shrinks or stays
    /// always fits.
    fn book(&mut self, old: Option<u64>, new: Option<u64>) -> Result<()> {
        let limits = self.cx.policy.limits();
        let (old_len, new_len) = (old.unwrap_or(0), new.unwrap_or(0));
        let grows = old.is_none() && self.txn.entries(Table::Sessions)? >= limits.max_sessions;
        let mut bytes = 0;
        if old_len != new_len {
            bytes = bytes_held(self.txn)?.wrapping_sub(old_len).wrapping_add(new_len);
        }
        if grows || (new_len > old_len && bytes > limits.max_bytes) {
            return Err(Error::fixed(ErrorKind::Full, "the store is full: max_sessions or max_bytes is reached"));
        }
        if old_len != new_len {
            self.txn.put(Table::Meta, BYTES, &bytes.to_le_bytes())?;
        }
        Ok(())
    }

    pub(super) fn amend(&mut self, key: &LookupKey, last_seen: i64, private: &EngineFields) -> Result<()> {
        let key = key.bytes();
        let mut record = self.txn.get(Table::Sessions, &key)?.unwrap_or_default().to_vec();
        codec::patch_header(&mut record, last_seen, private)?;
        self.txn.put(Table::Sessions, &key, &record)
    }

    fn bind(&mut self, header: &RecordHeader, key: &LookupKey) -> Result<()> {
        match header.principal {
            Some(principal) => self.txn.put(Table::Principals, &pair_key(principal, key), &[]),
            None => Ok(()),
        }
    }

    fn unbind(&mut self, row: &Row) -> Result<()> {
        if let Some(principal) = row.header.principal {
            self.txn.delete(Table::Principals, &pair_key(principal, &row.key))?;
        }
        Ok(())
    }
}

/// The bytes of all payloads.
pub(super) fn bytes_held(txn: &Txn) -> Result<u64> {
    let bytes = txn.get(Table::Meta, BYTES)?;
    Ok(bytes.and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}

/// The next session of a principal, from `next` on, which is moved behind it.
pub(super) fn next_of(txn: &Txn, principal: PrincipalKey, next: &mut Vec<u8>) -> Result<Option<LookupKey>> {
    let Some((pair, _)) = txn.first_from(Table::Principals, next)? else { return Ok(None) };
    match pair.strip_prefix(&principal.bytes()) {
        None => Ok(None),
        Some(key) => {
            let key = parse_key(key)?;
            *next = successor(pair);
            Ok(Some(key))
        }
    }
}

pub(super) fn pair_key(principal: PrincipalKey, key: &LookupKey) -> [u8; 64] {
    let mut pair = [0; 64];
    pair[..32].copy_from_slice(&principal.bytes());
    pair[32..].copy_from_slice(&key.bytes());
    pair
}

/// The way from a key over aliases to a session's record.
pub(super) struct Way<'t> {
    pub row: Row,
    /// The payload as it is stored.
    pub payload: &'t [u8],
    /// When the way ends.
    pub until: i64,
    pub aliases: Vec<Alias>,
}

pub(super) fn follow<'t>(
    txn: &'t Txn,
    key: &LookupKey,
    open: &Open,
    moment: &StepTime,
    seals: bool,
) -> Result<Option<Way<'t>>> {
    let (mut key, mut until, mut aliases) = (*key, i64::MAX, Vec::new());
    loop {
        if let Some(bytes) = txn.session(&key)? {
            let (row, payload) = Row::read(key, bytes, &open.map.touches(), seals)?;
            return Ok(Some(Way { row, payload, until, aliases }));
        }
        let Some(bytes) = txn.get(Table::Aliases, &key.bytes())? else { return Ok(None) };
        let alias = codec::decode_alias(key, bytes, seals)?;
        // A target is always minted after what points to it, so only an edited file could lead round in a circle.
        if moment.now >= alias.until || aliases.len() as u64 > txn.entries(Table::Aliases)? {
            return Ok(None);
        }
        (key, until) = (alias.target, until.min(alias.until));
        aliases.push(alias);
    }
}

fn payload_len(stored_len: usize, seals: bool) -> u64 {
    stored_len.saturating_sub(if seals { OVERHEAD } else { 0 }) as u64
}

fn place(private: &EngineFields) -> Place {
    Place { cell: private.last_used_slot, generation: private.generation }
}

pub(super) fn parse_key(bytes: &[u8]) -> Result<LookupKey> {
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| crate::error::Error::corrupt_record())?;
    Ok(LookupKey::from(&Ref(bytes)))
}

/// The key that comes next in the order of bytes.
pub(super) fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
