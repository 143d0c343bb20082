//! The scripts as functions, in terms of records and keys. One `Commands` is one call of the
//! engine: all of it ends by its deadline.

use std::time::{Duration, Instant};

use super::{
    client::{Address, Delivery, Idempotency, Reply, Script, text},
    keys::{index_member, lock_member, member_key},
    old_keys::{self, OldKeys},
    open::RedisStore,
    record_prefix::RecordPrefix,
    scripts,
};
use crate::{
    engine::Context,
    error::{Error, ErrorKind, Result},
    session::{
        alias::Alias,
        codec::{self, EngineFields},
        key::{LookupKey, PrincipalKey, Ref},
        policy::StepTime,
    },
};

/// How often a write is composed because of a wrong time: each attempt learns the server's.
pub(super) const MAX_ATTEMPTS: usize = 3;
/// Before another look at what another call changes.
const PAUSE: Duration = Duration::from_millis(5);
/// In one command.
const MAX_KEYS: usize = 1000;
/// The first byte of an alias and of a session that leaves for another server, as the value of a
/// session's key (common.lua).
pub(super) const ALIAS: u8 = b'a';
pub(super) const LEAVING: u8 = b'l';

#[derive(Clone, Copy)]
pub(super) struct Commands<'a> {
    pub store: &'a RedisStore,
    pub cx: &'a Context<'a>,
    pub deadline: Instant,
}

/// What a read does to the last use of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UseMode {
    Peek,
    /// Records a use if the server permits it.
    Get,
    /// Records a use, or fails.
    Touch,
}

/// How much of a record is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// The part that says when the session ends.
    Prefix,
}

/// What is stored under a session's key.
pub(super) struct Lookup {
    pub time: StepTime,
    pub value: Value,
    /// The length of the whole record.
    pub record_len: usize,
    /// Whether the server refused to record the use.
    pub use_was_refused: bool,
}

pub(super) enum Value {
    /// The record of a living session.
    Session(Vec<u8>),
    Alias(Alias),
    Leaving(Departure),
    Nothing,
}

/// A session that a renewal moves to another server.
pub(super) struct Departure {
    pub destination: Destination,
    /// What the old id becomes.
    pub alias: Option<Alias>,
    pub record: Vec<u8>,
}

/// Where a session goes that leaves its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Destination {
    pub key: LookupKey,
    /// Tells one attempt to renew from another one.
    pub token: [u8; 16],
}

impl Destination {
    fn to_bytes(self) -> Vec<u8> {
        [&self.key.bytes()[..], &self.token].concat()
    }
}

/// An expiry that a get has set before it knew whether that was right, and the one before.
pub(super) struct ExpirySwap {
    pub tried: i64,
    pub before: i64,
}

pub(super) enum WriteOutcome {
    Applied {
        last_seen: i64,
        /// How many other sessions of the principal were ended.
        evicted: u64,
        /// The old keys of a session that leaves, otherwise those whose aliases have ended.
        old_keys: OldKeys,
    },
    NotFound,
    /// A renewal moves the session to another server.
    Relocating,
    /// This record is stored instead of the expected one.
    Mismatch(Vec<u8>),
    Taken,
    /// The session was revoked before it was stored; or all sessions are being ended, and the
    /// caller has to wait until that has come to this one.
    Revoked,
    /// A renewal to another server was undone by another call.
    Aborted,
    /// The write was composed at another time than the server's.
    ClockSkew,
}

/// Which session a deletion is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeleteFilter {
    Live,
    Expired,
}

pub(super) enum DeleteOutcome {
    /// With the start of the record.
    Deleted(Vec<u8>),
    NotFound,
    Relocating,
}

/// What came of ending a session of a principal.
pub(super) enum EndOutcome {
    Ended {
        was_live: bool,
        /// If a renewal was moving it to this key.
        left_for: Option<LookupKey>,
        old_keys: OldKeys,
    },
    /// There is none, and none can be stored any more.
    NotFound,
    /// It belongs to another principal, or was used since.
    Mismatch,
}

/// An entry of a session in its principal's index.
pub(super) struct IndexEntry {
    pub principal: PrincipalKey,
    pub key: LookupKey,
    pub fields: EngineFields,
}

/// A session under a new key.
pub(super) struct Renewal {
    pub old: LookupKey,
    pub old_record: Vec<u8>,
    /// The entry that it has under its old key.
    pub old_entry: Option<IndexEntry>,
    pub new: Destination,
    /// An earlier attempt has used the new key.
    pub is_repeated: bool,
    pub record: Vec<u8>,
    pub entry: Option<IndexEntry>,
    pub alias: Option<Alias>,
    /// When it ends under its old key, without another use.
    pub old_ends_at: i64,
    /// When it ends under either key, without another use.
    pub ends_at: i64,
}

/// Which sessions are ended.
#[derive(Clone, Copy, Default)]
pub(super) struct EndFilter {
    pub principal: Option<PrincipalKey>,
    /// Last used at this time.
    pub last_seen: Option<i64>,
    /// Created up to this time.
    pub created_until: Option<i64>,
    /// Only under the new key of a renewal that is not decided: it is aborted.
    pub only_arriving: bool,
}

impl EndFilter {
    /// The arguments of end_session.lua.
    fn args(&self, must_not_be_stored: bool) -> [Vec<u8>; 5] {
        let time = |time: Option<i64>| time.map_or(Vec::new(), text);
        let flag = |flag| if flag { b"1".to_vec() } else { Vec::new() };
        [
            encode_principal(self.principal),
            time(self.last_seen),
            time(self.created_until),
            flag(must_not_be_stored),
            flag(self.only_arriving),
        ]
    }
}

/// How a renewal to another server stands.
pub(super) enum ArrivalState {
    Pending,
    Published,
    Aborted,
}

/// A session of a principal.
pub(super) struct ListedSession {
    pub key: LookupKey,
    /// The start of its record.
    pub start: Vec<u8>,
    pub record_len: usize,
}

impl<'a> Commands<'a> {
    pub(super) fn new(store: &'a RedisStore, cx: &'a Context<'a>) -> Commands<'a> {
        Commands { store, cx, deadline: Instant::now() + store.url.deadline }
    }

    /// Whether no script reaches all keys of a step.
    pub(super) fn spans_servers(&self) -> bool {
        self.store.client.spans_servers()
    }

    /// The time at which a write to this key is composed: about the server's.
    pub(super) fn now(&self, key: &LookupKey) -> Result<i64> {
        if self.cx.clock.is_manual() {
            return Ok(self.cx.clock.now_ms());
        }
        self.store.client.now_ms(&self.store.names().session(key), self.deadline)
    }

    pub(super) fn step_time(&self, now: i64) -> StepTime {
        self.cx.policy.step_time(now)
    }

    /// Lets another call make progress; fails with this text when the deadline is near.
    pub(super) fn pause(&self, reason: &'static str) -> Result<()> {
        if Instant::now() + PAUSE > self.deadline {
            return Err(Error::fixed(ErrorKind::Timeout, reason));
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    pub(super) fn lookup(&self, key: &LookupKey, mode: UseMode, extent: Extent) -> Result<Lookup> {
        self.lookup_after_swap(key, mode, extent, None)
    }

    /// The same, and takes back an expiry that was tried.
    pub(super) fn lookup_after_swap(
        &self,
        key: &LookupKey,
        mode: UseMode,
        extent: Extent,
        swap: Option<&ExpirySwap>,
    ) -> Result<Lookup> {
        let mode: &[u8] = match mode {
            UseMode::Peek => b"peek",
            UseMode::Get => b"get",
            UseMode::Touch => b"touch",
        };
        let extent: &[u8] = if extent == Extent::Whole { b"whole" } else { b"prefix" };
        let tried = swap.map_or(Vec::new(), |swap| text(swap.tried));
        let before = swap.map_or(Vec::new(), |swap| text(swap.before));
        let (now, mut rest) =
            self.run_on_session(&scripts::READ_SESSION, Idempotency::Read, key, 0, &[mode, extent, &tried, &before])?;
        rest.resize_with(4, || Reply::Nil);
        let [record, other, len, refused] = <[Reply; 4]>::try_from(rest).map_err(|_| wrong_answer())?;
        let value = match (record, other) {
            (Reply::Bytes(record), _) => Value::Session(record),
            (_, Reply::Bytes(other)) => self.parse_value(key, &other, now)?,
            _ => Value::Nothing,
        };
        Ok(Lookup {
            time: self.step_time(now),
            value,
            record_len: len.int().and_then(|len| usize::try_from(len).ok()).unwrap_or_default(),
            use_was_refused: refused.int() == Some(1),
        })
    }

    /// The value of an old id.
    fn parse_value(&self, key: &LookupKey, value: &[u8], now: i64) -> Result<Value> {
        let alias = |bytes: &[u8]| codec::decode_alias(*key, bytes, self.store.seals);
        let (&kind, rest) = value.split_first().ok_or_else(Error::corrupt_record)?;
        match kind {
            ALIAS => Ok(Some(alias(rest)?).filter(|alias| now < alias.until).map_or(Value::Nothing, Value::Alias)),
            LEAVING => {
                let (key, rest) = rest.split_first_chunk().ok_or_else(Error::corrupt_record)?;
                let (token, rest) = rest.split_first_chunk().ok_or_else(Error::corrupt_record)?;
                let (&alias_len, rest) = rest.split_first().ok_or_else(Error::corrupt_record)?;
                let (encoded, record) = rest.split_at_checked(alias_len.into()).ok_or_else(Error::corrupt_record)?;
                let alias = if encoded.is_empty() { None } else { Some(alias(encoded)?) };
                let destination = Destination { key: LookupKey::from(&Ref(*key)), token: *token };
                let mut record = record.to_vec();
                old_keys::strip(&mut record);
                Ok(Value::Leaving(Departure { destination, alias, record }))
            }
            _ => Err(Error::corrupt_record()),
        }
    }

    /// Takes back a use of a session.
    pub(super) fn undo_touch(&self, key: &LookupKey, used: i64, before: i64) -> Result<()> {
        self.run_on_session(&scripts::UNDO_TOUCH, Idempotency::Read, key, 0, &[&text(used), &text(before)]).map(drop)
    }

    /// Stores a new session. `replaces_revoked`: although it was revoked before it was stored.
    pub(super) fn create(
        &self,
        key: &LookupKey,
        record: &[u8],
        composed_at: i64,
        entry: Option<&IndexEntry>,
        replaces_revoked: bool,
    ) -> Result<WriteOutcome> {
        let keys = [self.store.names().session(key)];
        let flag: &[u8] = if replaces_revoked { b"1" } else { b"" };
        let (outcome, _) = self.write(&scripts::CREATE_SESSION, &keys, composed_at, entry, &[record, flag])?;
        Ok(outcome)
    }

    /// Replaces the record that has this prefix.
    pub(super) fn replace(
        &self,
        key: &LookupKey,
        expected: &RecordPrefix,
        record: &[u8],
        composed_at: i64,
        entry: Option<&IndexEntry>,
    ) -> Result<(WriteOutcome, Delivery)> {
        let keys = [self.store.names().session(key)];
        self.write(&scripts::REPLACE_SESSION, &keys, composed_at, entry, &[expected.as_bytes(), record])
    }

    /// Moves a session to its new key on the same server, and leaves the alias.
    pub(super) fn rename(&self, renewal: &Renewal, composed_at: i64) -> Result<WriteOutcome> {
        let names = self.store.names();
        let keys = [names.session(&renewal.old), names.session(&renewal.new.key)];
        let expected = RecordPrefix::of(&renewal.old_record);
        let (alias, alias_ends) = encode_alias(renewal.alias.as_ref());
        let old_key = renewal.old.bytes();
        let revocations = names.revocations();
        let args: [&[u8]; 6] = [expected.as_bytes(), &renewal.record, &alias, &alias_ends, &old_key, &revocations];
        let (outcome, _) = self.write(&scripts::RENAME_SESSION, &keys, composed_at, renewal.entry.as_ref(), &args)?;
        Ok(outcome)
    }

    /// Takes a renewal back, if it happened.
    pub(super) fn undo_rename(&self, renewal: &Renewal) -> Result<()> {
        let names = self.store.names();
        let mut keys = vec![names.session(&renewal.old), names.session(&renewal.new.key)];
        keys.extend(renewal.old_entry.as_ref().map(|entry| names.index(entry.principal)));
        let mut args = self.index_args(renewal.old_entry.as_ref(), false);
        args.extend([renewal.record.clone(), renewal.old_record.clone(), renewal.old.bytes().to_vec()]);
        args.push(names.revocations());
        self.run(&scripts::UNDO_RENAME, Idempotency::Read, &keys, 0, &args).map(drop)
    }

    /// Writes a session as it is: fails if too few replicas follow.
    pub(super) fn write_again(&self, key: &LookupKey) -> Result<()> {
        self.run_on_session(&scripts::WRITE_AGAIN, Idempotency::Idempotent, key, 0, &[]).map(drop)
    }

    pub(super) fn delete(
        &self,
        key: &LookupKey,
        filter: DeleteFilter,
        principal: Option<PrincipalKey>,
    ) -> Result<DeleteOutcome> {
        let filter: &[u8] = if filter == DeleteFilter::Live { b"live" } else { b"expired" };
        let args: [&[u8]; 2] = [filter, &encode_principal(principal)];
        let (_, rest) = self.run_on_session(&scripts::DELETE_SESSION, Idempotency::AtMostOnce, key, 0, &args)?;
        let mut rest = rest.into_iter();
        match (outcome_name(&rest.next())?, rest.next()) {
            (b"applied", Some(Reply::Bytes(start))) => {
                self.remove_aliases(&old_keys_in(rest.next()));
                Ok(DeleteOutcome::Deleted(start))
            }
            (b"not_found", _) => Ok(DeleteOutcome::NotFound),
            (b"relocating", _) => Ok(DeleteOutcome::Relocating),
            _ => Err(wrong_answer()),
        }
    }

    /// Removes the entry of a session that has ended. It may fail: an entry without its session has
    /// no effect.
    pub(super) fn remove_entry(&self, entry: &IndexEntry) {
        self.remove_member(entry.principal, &index_member(&entry.key, &entry.fields));
    }

    pub(super) fn remove_member(&self, principal: PrincipalKey, member: &[u8]) {
        let index = self.store.names().index(principal);
        let command: [&[u8]; 3] = [b"ZREM", &index, member];
        let _ = self.store.client.command(&index, Idempotency::Read, &command, self.deadline);
    }

    /// Removes the aliases under these keys, which lead nowhere. Those that cannot be removed in a
    /// part of the call's time end by themselves.
    fn remove_aliases(&self, keys: &OldKeys) {
        let names: Vec<Vec<u8>> = keys.iter().map(|key| self.store.names().session(&key)).collect();
        let now = Instant::now();
        let deadline = now + self.deadline.saturating_duration_since(now) / 3;
        let keys_at_once = if self.spans_servers() { 1 } else { MAX_KEYS };
        for names in names.chunks(keys_at_once) {
            let command: Vec<&[u8]> = [&b"DEL"[..]].into_iter().chain(names.iter().map(Vec::as_slice)).collect();
            let removed = self.store.client.command(&names[0], Idempotency::Read, &command, deadline);
            if removed.is_err_and(|error| error.kind() == ErrorKind::Timeout) {
                break;
            }
        }
    }

    /// Removes the alias under a key.
    pub(super) fn remove_alias(&self, key: &LookupKey) -> Result<()> {
        let name = self.store.names().session(key);
        self.store.client.command(&name, Idempotency::Read, &[b"DEL", &name], self.deadline).map(drop)
    }

    /// A principal's living sessions, by one script.
    pub(super) fn list(&self, principal: PrincipalKey) -> Result<Vec<ListedSession>> {
        let keys = [self.store.names().index(principal)];
        let (_, items) =
            self.run(&scripts::LIST_SESSIONS, Idempotency::Read, &keys, 0, &self.principal_args(principal))?;
        let mut sessions = Vec::new();
        sessions.try_reserve_exact(items.len() / 3).map_err(|_| Error::no_memory())?;
        for item in items.chunks(3) {
            let [Reply::Bytes(member), Reply::Bytes(start), Reply::Int(len)] = item else { return Err(wrong_answer()) };
            let key = member_key(member).ok_or_else(Error::corrupt_record)?;
            sessions.push(ListedSession {
                key,
                start: start.clone(),
                record_len: usize::try_from(*len).unwrap_or_default(),
            });
        }
        Ok(sessions)
    }

    /// Ends the sessions of a principal except one, by one script, and returns how many; `None`:
    /// the exception does not exist.
    pub(super) fn revoke(&self, principal: PrincipalKey, excluded: Option<&LookupKey>) -> Result<Option<u64>> {
        let names = self.store.names();
        let mut args = self.principal_args(principal);
        args.push(excluded.map_or(Vec::new(), |key| names.session(key)));
        // At most once: the second time it would count only what was left.
        let (_, rest) =
            self.run(&scripts::REVOKE_SESSIONS, Idempotency::AtMostOnce, &[names.index(principal)], 0, &args)?;
        match &rest[..] {
            [Reply::Bytes(outcome), Reply::Int(ended), Reply::Bytes(dropped)] if outcome == b"applied" => {
                self.remove_aliases(&OldKeys(dropped.clone()));
                Ok(Some(ended.unsigned_abs()))
            }
            [Reply::Bytes(outcome)] if outcome == b"not_found" => Ok(None),
            _ => Err(wrong_answer()),
        }
    }

    /// Inserts a session into its principal's index before it is stored. Waits while the index is
    /// locked.
    pub(super) fn insert_member(&self, entry: &IndexEntry) -> Result<()> {
        let keys = [self.store.names().index(entry.principal)];
        let args = self.index_args(Some(entry), false);
        loop {
            let (_, rest) = self.run(&scripts::INSERT_MEMBER, Idempotency::Idempotent, &keys, 0, &args)?;
            match outcome_name(&rest.into_iter().next())? {
                b"applied" => return Ok(()),
                b"locked" => self.pause("the principal's sessions are being revoked or listed by another call")?,
                _ => return Err(wrong_answer()),
            }
        }
    }

    /// Locks a principal's index against inserts, until it is unlocked or this much time has
    /// passed.
    pub(super) fn lock_index(&self, principal: PrincipalKey, token: &[u8; 16], lifetime: Duration) -> Result<()> {
        let left = lifetime.as_millis().max(1);
        let keys = [self.store.names().index(principal)];
        self.run(&scripts::LOCK_INDEX, Idempotency::Idempotent, &keys, 0, &[lock_member(token), text(left)]).map(drop)
    }

    pub(super) fn unlock_index(&self, principal: PrincipalKey, token: &[u8; 16]) {
        self.remove_member(principal, &lock_member(token));
    }

    /// The members of a principal's index.
    pub(super) fn members(&self, principal: PrincipalKey) -> Result<Vec<Vec<u8>>> {
        let index = self.store.names().index(principal);
        let command: [&[u8]; 4] = [b"ZRANGE", &index, b"0", b"-1"];
        match self.store.client.command(&index, Idempotency::Read, &command, self.deadline)? {
            Reply::Array(members) => Ok(members.into_iter().filter_map(Reply::into_bytes).collect()),
            _ => Err(wrong_answer()),
        }
    }

    /// Ends a session of an index, if the filter describes it; if there is none, it cannot be stored
    /// any more. `is_awaited`: waits for replicas.
    pub(super) fn end_session(&self, key: &LookupKey, filter: &EndFilter, is_awaited: bool) -> Result<EndOutcome> {
        // Ending it twice is as ending it once.
        let idempotency = if is_awaited { Idempotency::Idempotent } else { Idempotency::Read };
        let keys = [self.store.names().session(key)];
        let (_, rest) = self.run(&scripts::END_SESSION, idempotency, &keys, 0, &filter.args(true))?;
        self.store.headers.remove(key);
        end_outcome(rest)
    }

    /// Ends those of the sessions with these names on one server that the filter describes, and
    /// their aliases. Returns how many lived, and how many were found.
    pub(super) fn end_each(&self, server: &Address, names: &[Vec<u8>], filter: &EndFilter) -> Result<(u64, u64)> {
        let (common, own) = (self.common_args(0), filter.args(false));
        let args: Vec<&[u8]> = common.iter().chain(&own).map(Vec::as_slice).collect();
        let answers = self.store.client.script_on_each(server, &scripts::END_SESSION, names, &args, self.deadline)?;
        let (mut lived, mut found) = (0, 0);
        for (name, answer) in names.iter().zip(answers) {
            let outcome = match answer {
                Some(items) => end_outcome(items.into_iter().skip(1).collect())?,
                // Wherever its slot is now.
                None => {
                    let keys = [name.clone()];
                    let (_, rest) = self.run(&scripts::END_SESSION, Idempotency::Idempotent, &keys, 0, &own)?;
                    end_outcome(rest)?
                }
            };
            if let EndOutcome::Ended { was_live, old_keys, .. } = outcome {
                lived += u64::from(was_live);
                found += 1;
                self.remove_aliases(&old_keys);
                if let Some(key) = self.store.names().parse(name) {
                    self.store.headers.remove(&LookupKey::from(&Ref(key)));
                }
            }
        }
        Ok((lived, found))
    }

    /// Notes that all sessions are being ended that were created up to this time, so that none of
    /// them is renewed meanwhile, at most for this time.
    pub(super) fn mark_revocation(&self, token: &[u8; 16], created_until: i64, lifetime: Duration) -> Result<()> {
        let args: [&[u8]; 3] = [&text(created_until), token, &text(lifetime.as_millis() as i64)];
        let keys = [&self.store.names().revocations()[..]];
        let client = &self.store.client;
        client.script(&scripts::MARK_REVOCATION, Idempotency::Idempotent, &keys, &args, self.deadline).map(drop)
    }

    pub(super) fn unmark_revocation(&self, token: &[u8; 16]) {
        let name = self.store.names().revocations();
        let _ = self.store.client.command(&name, Idempotency::Read, &[b"ZREM", &name, token], self.deadline);
    }

    /// Until when the sessions were created that are being ended all.
    pub(super) fn revoked_until(&self) -> Result<Option<i64>> {
        let name = self.store.names().revocations();
        let command: [&[u8]; 5] = [b"ZRANGE", &name, b"-1", b"-1", b"WITHSCORES"];
        let reply = self.store.client.command(&name, Idempotency::Read, &command, self.deadline)?;
        let score = reply.array().and_then(|items| std::str::from_utf8(items.get(1)?.bytes()?).ok()?.parse().ok());
        Ok(score.map(|score: f64| score as i64))
    }

    pub(super) fn prepare_arrival(&self, renewal: &Renewal, composed_at: i64) -> Result<WriteOutcome> {
        let flag: &[u8] = if renewal.is_repeated { b"1" } else { b"" };
        let args: [&[u8]; 3] = [&renewal.record, &text(renewal.ends_at), flag];
        self.write_session(&scripts::PREPARE_ARRIVAL, &renewal.new.key, composed_at, &args)
    }

    pub(super) fn detach_session(&self, renewal: &Renewal, composed_at: i64) -> Result<WriteOutcome> {
        let expected = RecordPrefix::of(&renewal.old_record);
        let (alias, _) = encode_alias(renewal.alias.as_ref());
        let args: [&[u8]; 3] = [expected.as_bytes(), &renewal.new.to_bytes(), &alias];
        self.write_session(&scripts::DETACH_SESSION, &renewal.old, composed_at, &args)
    }

    pub(super) fn publish_arrival(&self, renewal: &Renewal, old_keys: &OldKeys) -> Result<WriteOutcome> {
        let (_, alias_ends) = encode_alias(renewal.alias.as_ref());
        let old_ends = text(renewal.old_ends_at);
        let args: [&[u8]; 5] = [&renewal.record, &old_keys.0, &renewal.old.bytes(), &alias_ends, &old_ends];
        let outcome = self.write_session(&scripts::PUBLISH_ARRIVAL, &renewal.new.key, 0, &args)?;
        self.remove_ended_aliases(&outcome);
        Ok(outcome)
    }

    /// How the renewal to this key stands. `own`: the caller's own renewal, which is aborted.
    pub(super) fn settle_arrival(&self, target: &LookupKey, own: Option<&Renewal>) -> Result<ArrivalState> {
        let ends_at = text(own.map_or(0, |renewal| renewal.ends_at));
        let args: [&[u8]; 2] = [own.map_or(&[], |renewal| &renewal.record), &ends_at];
        let (_, rest) = self.run_on_session(&scripts::SETTLE_ARRIVAL, Idempotency::Read, target, 0, &args)?;
        match outcome_name(&rest.into_iter().next())? {
            b"pending" => Ok(ArrivalState::Pending),
            b"published" => Ok(ArrivalState::Published),
            b"aborted" => Ok(ArrivalState::Aborted),
            _ => Err(wrong_answer()),
        }
    }

    /// After a renewal was published.
    pub(super) fn finish_departure(
        &self,
        old: &LookupKey,
        destination: Destination,
        alias: Option<&Alias>,
    ) -> Result<()> {
        let (alias, alias_ends) = encode_alias(alias);
        let args: [&[u8]; 3] = [&destination.to_bytes(), &alias, &alias_ends];
        self.run_on_session(&scripts::FINISH_DEPARTURE, Idempotency::Idempotent, old, 0, &args).map(drop)
    }

    /// After a renewal was aborted.
    pub(super) fn restore_departed(&self, old: &LookupKey, destination: Destination) -> Result<()> {
        self.run_on_session(&scripts::RESTORE_DEPARTED, Idempotency::Read, old, 0, &[&destination.to_bytes()]).map(drop)
    }

    /// The arguments of principal_index.lua for reading an index.
    fn principal_args(&self, principal: PrincipalKey) -> Vec<Vec<u8>> {
        let none = Vec::new;
        vec![self.store.names().session_start(), none(), none(), principal.bytes().to_vec(), none()]
    }

    /// The arguments of principal_index.lua for inserting an entry.
    fn index_args(&self, entry: Option<&IndexEntry>, is_limited: bool) -> Vec<Vec<u8>> {
        let Some(entry) = entry else { return vec![Vec::new(); 5] };
        let limit = self.cx.policy.limits().max_per_principal;
        vec![
            self.store.names().session_start(),
            index_member(&entry.key, &entry.fields),
            text(entry.fields.indexed_deadline),
            entry.principal.bytes().to_vec(),
            if is_limited && limit != u64::MAX { text(limit) } else { Vec::new() },
        ]
    }

    /// Runs a write, by which a session may come into its principal's index where a script reaches
    /// that.
    fn write(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        composed_at: i64,
        entry: Option<&IndexEntry>,
        args: &[&[u8]],
    ) -> Result<(WriteOutcome, Delivery)> {
        let mut keys = keys.to_vec();
        if let Some(entry) = entry.filter(|_| !self.spans_servers()) {
            keys.push(self.store.names().index(entry.principal));
        }
        let mut all_args = self.index_args(entry, true);
        all_args.extend(args.iter().map(|arg| arg.to_vec()));
        let (now, rest, delivery) =
            self.run_with_delivery(script, Idempotency::Idempotent, &keys, composed_at, &all_args)?;
        let outcome = write_outcome(now, rest)?;
        self.remove_ended_aliases(&outcome);
        Ok((outcome, delivery))
    }

    fn remove_ended_aliases(&self, outcome: &WriteOutcome) {
        if let WriteOutcome::Applied { old_keys, .. } = outcome {
            self.remove_aliases(old_keys);
        }
    }

    /// Runs a write to one session without an index.
    fn write_session(
        &self,
        script: &Script,
        key: &LookupKey,
        composed_at: i64,
        args: &[&[u8]],
    ) -> Result<WriteOutcome> {
        let (now, rest) = self.run_on_session(script, Idempotency::Idempotent, key, composed_at, args)?;
        write_outcome(now, rest)
    }

    fn run_on_session(
        &self,
        script: &Script,
        idempotency: Idempotency,
        key: &LookupKey,
        composed_at: i64,
        args: &[&[u8]],
    ) -> Result<(i64, Vec<Reply>)> {
        self.run(script, idempotency, &[self.store.names().session(key)], composed_at, args)
    }

    fn run(
        &self,
        script: &Script,
        idempotency: Idempotency,
        keys: &[Vec<u8>],
        composed_at: i64,
        args: &[impl AsRef<[u8]>],
    ) -> Result<(i64, Vec<Reply>)> {
        let (now, items, _) = self.run_with_delivery(script, idempotency, keys, composed_at, args)?;
        Ok((now, items))
    }

    /// Runs a script with the arguments of common.lua before its own. Returns the server's time and
    /// the other items.
    fn run_with_delivery(
        &self,
        script: &Script,
        idempotency: Idempotency,
        keys: &[Vec<u8>],
        composed_at: i64,
        args: &[impl AsRef<[u8]>],
    ) -> Result<(i64, Vec<Reply>, Delivery)> {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let common = self.common_args(composed_at);
        let args: Vec<&[u8]> = common.iter().map(Vec::as_slice).chain(args.iter().map(AsRef::as_ref)).collect();
        let (mut items, delivery) = self.store.client.script(script, idempotency, &keys, &args, self.deadline)?;
        let now = items.first().and_then(Reply::int).ok_or_else(wrong_answer)?;
        items.remove(0);
        Ok((now, items, delivery))
    }

    /// The arguments of common.lua.
    fn common_args(&self, composed_at: i64) -> [Vec<u8>; 5] {
        let timeouts = self.cx.policy.timeouts();
        let manual_clock = match self.cx.clock.is_manual() {
            false => Vec::new(),
            // A script does not reach the clock on another server.
            true if self.spans_servers() => text(self.cx.clock.now_ms()),
            true => self.store.names().clock(),
        };
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis() as i64;
        let gives_up_at = composed_at.saturating_add(left);
        [manual_clock, text(timeouts.absolute), text(timeouts.idle), text(composed_at), text(gives_up_at)]
    }
}

/// Empty: any.
fn encode_principal(principal: Option<PrincipalKey>) -> Vec<u8> {
    principal.map_or(Vec::new(), |principal| principal.bytes().to_vec())
}

fn encode_alias(alias: Option<&Alias>) -> (Vec<u8>, Vec<u8>) {
    alias.map_or_else(Default::default, |alias| (codec::encode_alias(alias), text(alias.until)))
}

fn end_outcome(items: Vec<Reply>) -> Result<EndOutcome> {
    let mut items = items.into_iter();
    match outcome_name(&items.next())? {
        b"applied" => {
            let was_live = items.next().and_then(|live| live.int()) == Some(1);
            let target = items.next().and_then(Reply::into_bytes).and_then(|key| key.try_into().ok());
            let left_for = target.map(|key| LookupKey::from(&Ref(key)));
            Ok(EndOutcome::Ended { was_live, left_for, old_keys: old_keys_in(items.next()) })
        }
        b"not_found" => Ok(EndOutcome::NotFound),
        b"other" => Ok(EndOutcome::Mismatch),
        _ => Err(wrong_answer()),
    }
}

fn old_keys_in(reply: Option<Reply>) -> OldKeys {
    OldKeys(reply.and_then(Reply::into_bytes).unwrap_or_default())
}

fn outcome_name(reply: &Option<Reply>) -> Result<&[u8]> {
    reply.as_ref().and_then(Reply::bytes).ok_or_else(wrong_answer)
}

fn write_outcome(now: i64, items: Vec<Reply>) -> Result<WriteOutcome> {
    let mut items = items.into_iter();
    let name = items.next();
    match outcome_name(&name)? {
        b"applied" => {
            let last_seen = items.next().and_then(|seen| seen.int()).unwrap_or(now);
            let evicted = items.next().and_then(|evicted| evicted.int()).unwrap_or_default().unsigned_abs();
            Ok(WriteOutcome::Applied { last_seen, evicted, old_keys: old_keys_in(items.next()) })
        }
        b"mismatch" => items.next().and_then(Reply::into_bytes).map(WriteOutcome::Mismatch).ok_or_else(wrong_answer),
        b"not_found" => Ok(WriteOutcome::NotFound),
        b"relocating" => Ok(WriteOutcome::Relocating),
        b"taken" => Ok(WriteOutcome::Taken),
        b"revoked" => Ok(WriteOutcome::Revoked),
        b"aborted" => Ok(WriteOutcome::Aborted),
        b"clock_skew" => Ok(WriteOutcome::ClockSkew),
        _ => Err(wrong_answer()),
    }
}

pub(super) fn wrong_answer() -> Error {
    Error::fixed(ErrorKind::Unavailable, "the server gave an answer of the wrong type")
}
