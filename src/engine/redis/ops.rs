//! The steps of the engine: a record is composed here, by the rules that all engines share, and a
//! script stores it if what it was made from is still there. If that has changed, the record is
//! composed again.

use super::{
    cluster_ops,
    commands::{
        Commands, DeleteFilter, DeleteOutcome, Destination, Extent, IndexEntry, ListedSession, MAX_ATTEMPTS, Renewal,
        UseMode, Value, WriteOutcome, wrong_answer,
    },
    record_prefix::RecordPrefix,
    relocation,
    resolve::resolve,
};
use crate::{
    crypto::random,
    error::{Error, ErrorKind, Result},
    session::{
        alias::Grace,
        codec::{self, EngineFields, Record},
        header::{RecordHeader, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::FOREVER,
        write::Write,
    },
    stats::Count,
};

pub(super) fn create(commands: &Commands, key: &LookupKey, write: &Write) -> Result<RecordHeader> {
    let mut replaces_revoked = false;
    for _ in 0..MAX_ATTEMPTS {
        let now = commands.now(key)?;
        let header = write.new_header(&commands.step_time(now));
        let fields = engine_fields(commands, &header, commands.store.next_entry_number(now));
        let record = compose_record(commands, key, &header, &fields, write, None)?;
        let entry = index_entry(key, &header, &fields);
        insert_if_apart(commands, entry.as_ref())?;
        match commands.create(key, &record, now, entry.as_ref(), replaces_revoked)? {
            WriteOutcome::Applied { evicted, .. } => {
                count_evicted(commands, evicted, entry.as_ref());
                commands.store.headers.put(key, &record);
                return Ok(header);
            }
            WriteOutcome::Taken => return Err(id_taken()),
            // By a revocation that is over by the time the session is in the index again.
            WriteOutcome::Revoked => replaces_revoked = true,
            WriteOutcome::ClockSkew => {}
            _ => return Err(wrong_answer()),
        }
    }
    Err(clock_skew())
}

pub(super) fn put(commands: &Commands, key: &LookupKey, write: &Write) -> Result<RecordHeader> {
    let store = commands.store;
    // What this process has seen last, and if that is outdated, what the server answers.
    let mut seen = store.headers.get(key).unwrap_or_default();
    let mut attempts = 0;
    while attempts < MAX_ATTEMPTS {
        let now = commands.now(key)?;
        let start = seen.to_record_start();
        let old = if seen.is_empty() { None } else { Some(codec::decode(&start, store.seals)?) };
        let old = old.filter(|old| write.check_version(&old.header).is_ok());
        let Some(old) = old else {
            // Composes nothing, but learns what is there.
            let (outcome, _) = commands.replace(key, &RecordPrefix::default(), b"", now, None)?;
            match outcome {
                WriteOutcome::Mismatch(stored) => seen = check_replaceable(commands, key, write, &stored)?,
                WriteOutcome::Relocating if relocation::wait_until_settled(commands, key)? => {}
                WriteOutcome::NotFound | WriteOutcome::Relocating => return Err(not_found(commands, key)),
                _ => return Err(wrong_answer()),
            }
            continue;
        };
        let replacement = Replacement::compose(commands, key, &old, write, now)?;
        insert_if_apart(commands, replacement.entry.as_ref())?;
        let (outcome, delivery) = commands.replace(key, &seen, &replacement.record, now, replacement.entry.as_ref())?;
        match outcome {
            WriteOutcome::Applied { last_seen, evicted, .. } => {
                count_evicted(commands, evicted, replacement.entry.as_ref());
                store.headers.put(key, &replacement.record);
                if old.header.principal != replacement.header.principal {
                    remove_entry(commands, key, &old);
                }
                return Ok(RecordHeader { last_seen, ..replacement.header });
            }
            // It may have been applied the first time, and another write have followed: not a
            // conflict.
            WriteOutcome::Mismatch(_) if delivery.was_resent && write.if_version.is_some() => {
                let message = "the connection was lost and the session has changed since: the write may have happened";
                return Err(Error::fixed(ErrorKind::Unavailable, message));
            }
            WriteOutcome::Mismatch(stored) => seen = check_replaceable(commands, key, write, &stored)?,
            WriteOutcome::Relocating if relocation::wait_until_settled(commands, key)? => {}
            WriteOutcome::NotFound | WriteOutcome::Relocating => return Err(not_found(commands, key)),
            WriteOutcome::ClockSkew => attempts += 1,
            _ => return Err(wrong_answer()),
        }
    }
    Err(clock_skew())
}

/// What a session becomes by a `put`.
struct Replacement {
    header: RecordHeader,
    record: Vec<u8>,
    /// If it comes into another principal's index, or may live longer than its entry says.
    entry: Option<IndexEntry>,
}

impl Replacement {
    fn compose(commands: &Commands, key: &LookupKey, old: &Record, write: &Write, now: i64) -> Result<Replacement> {
        let header = write.header_after(old.header, now);
        let is_new_principal = header.principal != old.header.principal;
        let number = if is_new_principal { commands.store.next_entry_number(now) } else { old.engine_fields };
        let fields = engine_fields(commands, &header, number);
        let is_inserted = is_new_principal || fields.indexed_deadline > old.engine_fields.indexed_deadline;
        let record = compose_record(commands, key, &header, &fields, write, Some((key, old)))?;
        Ok(Replacement { header, record, entry: index_entry(key, &header, &fields).filter(|_| is_inserted) })
    }
}

/// The prefix of a stored record, if the write may replace it.
fn check_replaceable(commands: &Commands, key: &LookupKey, write: &Write, stored: &[u8]) -> Result<RecordPrefix> {
    let record = codec::decode(stored, commands.store.seals)?;
    write.check_version(&record.header)?;
    write.check_genuine(&StoredRecord { key: *key, header: &record.header, payload: record.payload })?;
    Ok(RecordPrefix::of(stored))
}

pub(super) fn renew(
    commands: &Commands,
    old: &LookupKey,
    new: &LookupKey,
    write: &Write,
    grace: &Grace,
) -> Result<RecordHeader> {
    let store = commands.store;
    let mut stored = renewable_record(commands, old)?;
    let mut attempts = 0;
    let mut rounds = 0;
    while attempts < MAX_ATTEMPTS {
        rounds += 1;
        let now = commands.now(old)?;
        let before = codec::decode(&stored, store.seals)?;
        write.check_genuine(&StoredRecord { key: *old, header: &before.header, payload: before.payload })?;
        let header = write.header_after(before.header, now);
        let fields = engine_fields(commands, &header, store.next_entry_number(now));
        let time = commands.step_time(now);
        let old_ends_at = before.header.deadline(time.timeouts).min(before.engine_fields.indexed_deadline);
        let renewal = Renewal {
            old: *old,
            old_entry: index_entry(old, &before.header, &before.engine_fields),
            new: Destination { key: *new, token: *random::random()? },
            is_repeated: rounds > 1,
            record: compose_record(commands, new, &header, &fields, write, Some((old, &before)))?,
            entry: index_entry(new, &header, &fields),
            alias: grace.with_fresh_nonce()?.alias((*old, &before.header), (*new, &header), &time)?,
            old_ends_at,
            ends_at: old_ends_at.max(header.deadline(time.timeouts)),
            old_record: stored,
        };
        let outcome = if commands.spans_servers() {
            relocation::relocate(commands, &renewal, now)?
        } else {
            rename(commands, &renewal, now)?
        };
        match outcome {
            WriteOutcome::Applied { evicted, .. } => {
                count_evicted(commands, evicted, renewal.entry.as_ref());
                store.headers.remove(old);
                store.headers.put(new, &renewal.record);
                if let Some(entry) = &renewal.old_entry {
                    commands.remove_entry(entry);
                }
                return Ok(header);
            }
            WriteOutcome::Mismatch(other) => stored = other,
            WriteOutcome::Relocating | WriteOutcome::Revoked | WriteOutcome::Aborted => {
                commands.pause("the session is being renewed or revoked by other calls")?;
                stored = renewable_record(commands, old)?;
            }
            WriteOutcome::Taken => return Err(id_taken()),
            WriteOutcome::NotFound => return Err(not_found(commands, old)),
            WriteOutcome::ClockSkew => {
                attempts += 1;
                stored = renewal.old_record;
            }
        }
    }
    Err(clock_skew())
}

/// The whole record of a session that can be written.
fn renewable_record(commands: &Commands, key: &LookupKey) -> Result<Vec<u8>> {
    loop {
        match commands.lookup(key, UseMode::Peek, Extent::Whole)?.value {
            Value::Session(record) => return Ok(record),
            Value::Leaving(_) if relocation::wait_until_settled(commands, key)? => {}
            _ => return Err(not_found(commands, key)),
        }
    }
}

/// A renewal on one server. It is taken back if it fails after the server has executed it, in
/// particular for want of replicas.
fn rename(commands: &Commands, renewal: &Renewal, composed_at: i64) -> Result<WriteOutcome> {
    if commands.store.client.waits_for_replicas() {
        // So that it need not be taken back in nearly all cases: other calls could see it.
        commands.write_again(&renewal.old)?;
    }
    commands.rename(renewal, composed_at).inspect_err(|_| {
        // If this fails too, it is not known under which key the session is.
        let _ = commands.undo_rename(renewal);
    })
}

/// Ends a session; with a principal, only one of that principal.
pub(super) fn delete(commands: &Commands, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
    commands.store.headers.remove(key);
    loop {
        match commands.delete(key, DeleteFilter::Live, principal)? {
            DeleteOutcome::Deleted(start) => {
                remove_entry_of(commands, key, &start);
                return Ok(());
            }
            DeleteOutcome::Relocating if relocation::wait_until_settled(commands, key)? => {}
            DeleteOutcome::Relocating | DeleteOutcome::NotFound => return Err(Error::not_found()),
        }
    }
}

/// Removes a session that has expired, and returns whether there was one.
pub(super) fn delete_expired(commands: &Commands, key: &LookupKey) -> Result<bool> {
    let DeleteOutcome::Deleted(start) = commands.delete(key, DeleteFilter::Expired, None)? else { return Ok(false) };
    remove_entry_of(commands, key, &start);
    Ok(true)
}

pub(super) fn list(commands: &Commands, principal: PrincipalKey) -> Result<Vec<ListedSession>> {
    if commands.spans_servers() { cluster_ops::list(commands, principal) } else { commands.list(principal) }
}

/// Ends the sessions of a principal except the one that `except` reads.
pub(super) fn revoke(commands: &Commands, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
    let (ended, complete) = if commands.spans_servers() {
        cluster_ops::revoke(commands, principal, except)?
    } else {
        (revoke_on_one_server(commands, principal, except)?, Ok(()))
    };
    commands.cx.counters.add(Count::Revoked, ended);
    complete.map(|()| ended)
}

fn revoke_on_one_server(commands: &Commands, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
    loop {
        let mut excluded = None;
        if let Some(except) = except
            && let Some(resolved) = resolve(commands, except, Extent::Prefix)?
        {
            let record = codec::decode(&resolved.record, commands.store.seals)?;
            excluded = (record.header.principal == Some(principal)).then_some(resolved.walk.key);
        }
        // If it is gone it may have been renewed: then it is looked up again.
        if let Some(ended) = commands.revoke(principal, excluded.as_ref())? {
            return Ok(ended);
        }
    }
}

/// Where no script reaches both a session and its principal's index.
fn insert_if_apart(commands: &Commands, entry: Option<&IndexEntry>) -> Result<()> {
    match entry.filter(|_| commands.spans_servers()) {
        Some(entry) => commands.insert_member(entry),
        None => Ok(()),
    }
}

/// After a write by which a session came into an index: in a Cluster, the sessions that are too
/// many are ended now.
fn count_evicted(commands: &Commands, evicted: u64, entry: Option<&IndexEntry>) {
    let apart =
        entry.filter(|_| commands.spans_servers()).map_or(0, |entry| cluster_ops::evict_excess(commands, entry));
    commands.cx.counters.add(Count::Revoked, evicted + apart);
}

fn remove_entry_of(commands: &Commands, key: &LookupKey, start: &[u8]) {
    if let Ok(record) = codec::decode(start, commands.store.seals) {
        remove_entry(commands, key, &record);
    }
}

fn remove_entry(commands: &Commands, key: &LookupKey, record: &Record) {
    if let Some(entry) = index_entry(key, &record.header, &record.engine_fields) {
        commands.remove_entry(&entry);
    }
}

fn index_entry(key: &LookupKey, header: &RecordHeader, fields: &EngineFields) -> Option<IndexEntry> {
    header.principal.map(|principal| IndexEntry { principal, key: *key, fields: *fields })
}

/// The engine's own fields of a record: the number of its index entry, and until when the entry is
/// in the index at least. The session does not live longer, so that `revoke` finds it.
fn engine_fields(commands: &Commands, header: &RecordHeader, number: EngineFields) -> EngineFields {
    let indexed_deadline = match header.principal {
        Some(_) => header.own.or(commands.cx.policy.timeouts()).deadline(header.timeout_start(), FOREVER),
        None => FOREVER,
    };
    EngineFields { indexed_deadline, ..number }
}

/// A record as it is stored, under a nonce of its own: an earlier attempt may have been seen. `old`
/// is the key and the record that it replaces.
fn compose_record(
    commands: &Commands,
    key: &LookupKey,
    header: &RecordHeader,
    fields: &EngineFields,
    write: &Write,
    old: Option<(&LookupKey, &Record)>,
) -> Result<Vec<u8>> {
    let content = write.content.with_fresh_nonce()?;
    let label = write.label_after(old.map(|(_, old)| (&old.header, old.label)), header)?;
    let old = old.map(|(key, old)| StoredRecord { key: *key, header: &old.header, payload: old.payload });
    let old_len = old.as_ref().map_or(0, |old| old.payload.len());
    let len = codec::record_len(header, label.len(), content.stored_len(old_len));
    let mut record = Vec::new();
    record.try_reserve_exact(len).map_err(|_| Error::no_memory())?;
    record.resize(len, 0);
    let payload = codec::encode(header, &label, fields, commands.store.seals, &mut record);
    content.write_to(key, header, old, payload)?;
    Ok(record)
}

fn not_found(commands: &Commands, key: &LookupKey) -> Error {
    commands.store.headers.remove(key);
    Error::not_found()
}

fn id_taken() -> Error {
    Error::fixed(ErrorKind::Exists, "the new id is taken")
}

fn clock_skew() -> Error {
    Error::fixed(ErrorKind::Unavailable, "the server's clock jumps, or answers take longer than a second")
}
