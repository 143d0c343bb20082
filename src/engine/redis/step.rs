//! The steps of the engine: a record is made up here, by the rules that all engines share, and the script that stores it
//! compares what it was made from with what is there. If that has changed, it is made up anew.

use super::{
    apart,
    calls::{self, Calls, Join, Look, Moved, Outcome, TRIES},
};
use crate::{
    error::{Error, ErrorKind, Result},
    session::{
        alias::{Alias, Grace},
        codec::{self, EngineFields},
        header::{RecordHeader, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::{FOREVER, StepTime},
        write::{Content, Write},
    },
    stats::Count,
};

/// A way from old ids to a session is not longer: nobody renews so often within a grace time.
const LONGEST_WAY: usize = 64;

/// The way from a key over aliases to a session.
pub(super) struct Way {
    pub moment: StepTime,
    pub key: LookupKey,
    pub record: Vec<u8>,
    /// When the way ends.
    pub until: i64,
    pub aliases: Vec<Alias>,
}

/// The session that a key reads.
pub(super) fn follow(calls: &Calls, key: &LookupKey, whole: bool) -> Result<Option<Way>> {
    follow_from(calls, key, whole, calls.look(key, false, whole)?)
}

/// The same, if this is what is there. A use is for a session's own key only: what comes then is not used.
pub(super) fn follow_from(calls: &Calls, key: &LookupKey, whole: bool, first: Look) -> Result<Option<Way>> {
    let mut first = Some(first);
    let (mut key, mut until, mut aliases): (_, _, Vec<Alias>) = (*key, i64::MAX, Vec::new());
    let mut again = 0;
    while aliases.len() < LONGEST_WAY {
        let look = match first.take() {
            Some(look) => look,
            None => calls.look(&key, false, whole)?,
        };
        // The session was looked at later than the aliases: they may have ended meanwhile.
        if look.moment.now >= until {
            return Ok(None);
        }
        let Some(alias) = look.alias else {
            let moment = look.moment;
            return match (look.record, aliases.last().map(|alias| alias.key)) {
                (Some(record), _) => Ok(Some(Way { moment, key, record, until, aliases })),
                // It may be on its way there: then it still reads where it comes from, or it has arrived just now.
                (None, Some(last)) if calls.is_apart() && again < TRIES => match calls.on_its_way(&last, whole)?.record
                {
                    Some(record) => {
                        aliases.pop();
                        Ok(Some(Way { moment, key: last, record, until, aliases }))
                    }
                    None => {
                        again += 1;
                        continue;
                    }
                },
                (None, _) => Ok(None),
            };
        };
        (key, until) = (alias.target, until.min(alias.until));
        aliases.push(alias);
    }
    Ok(None)
}

pub(super) fn create(calls: &Calls, key: &LookupKey, write: &Write) -> Result<RecordHeader> {
    for _ in 0..TRIES {
        let now = calls.now(key)?;
        let header = write.new_header(now);
        let private = private(calls, &header, calls.open.number(now));
        let record = record(calls, key, &header, &private, &write.content, None)?;
        let join = header.principal.map(|principal| Join { principal, key: *key, private });
        match calls.create(key, &record, now, join.as_ref())? {
            Outcome::Done(_, ended) => calls.cx.counters.add(Count::Revoked, ended),
            // The answer to the first attempt was lost.
            Outcome::Other(Some(there)) if calls::is_same(&there, &record) => {}
            Outcome::Other(_) | Outcome::Gone => return Err(Error::fixed(ErrorKind::Exists, "the new id is taken")),
            Outcome::Late => continue,
        }
        calls.open.heads.put(key, &record);
        return Ok(header);
    }
    Err(out_of_step())
}

pub(super) fn put(calls: &Calls, key: &LookupKey, write: &Write) -> Result<RecordHeader> {
    let open = calls.open;
    // What was seen of it last: by this process, and if that is not what is there, in the server's answer.
    let mut seen = open.heads.get(key).map(Vec::from).unwrap_or_default();
    let mut late = 0;
    while late < TRIES {
        let now = calls.now(key)?;
        let known = calls::as_head(&seen);
        let old = if seen.is_empty() { None } else { Some(codec::decode(&known, open.seals)?) };
        let old = old.filter(|old| write.check_version(&old.header).is_ok());
        let made = match &old {
            Some(old) => Some(replacement(calls, key, old, write, now)?),
            None => None,
        };
        let (expected, record, join) = match &made {
            Some(made) => (&seen[..], &made.record[..], made.join.as_ref()),
            None => (&b""[..], &b""[..], None),
        };
        let last_seen = match (calls.replace(key, expected, record, now, join)?, &made) {
            (Outcome::Gone, _) => {
                open.heads.forget(key);
                return Err(Error::not_found());
            }
            (Outcome::Late, _) => {
                late += 1;
                continue;
            }
            (Outcome::Done(last_seen, ended), Some(_)) => {
                calls.cx.counters.add(Count::Revoked, ended);
                last_seen
            }
            // The answer to the first attempt was lost.
            (Outcome::Other(Some(there)), Some(made)) if calls::is_same(&there, &made.record) => {
                codec::decode(&there, open.seals)?.header.last_seen
            }
            (Outcome::Other(Some(there)), _) => {
                let stored = codec::decode(&there, open.seals)?;
                write.check_version(&stored.header)?;
                write.check_genuine(&StoredRecord { key: *key, header: &stored.header, payload: stored.payload })?;
                seen = calls::first_bytes(&there);
                continue;
            }
            (Outcome::Other(None) | Outcome::Done(..), _) => return Err(crate::error::Error::corrupt_record()),
        };
        let (Some(old), Some(made)) = (old, made) else { return Err(crate::error::Error::corrupt_record()) };
        open.heads.put(key, &made.record);
        if let Some(principal) = old.header.principal.filter(|_| old.header.principal != made.header.principal) {
            calls.unlist(principal, key, &old.engine_fields);
        }
        return Ok(RecordHeader { last_seen, ..made.header });
    }
    Err(out_of_step())
}

struct Made {
    header: RecordHeader,
    record: Vec<u8>,
    join: Option<Join>,
}

/// What a session becomes by a write. It comes into its principal's list if that is another one, or if it may now live longer
/// than was said there.
fn replacement(calls: &Calls, key: &LookupKey, old: &codec::Record, write: &Write, now: i64) -> Result<Made> {
    let header = write.header_after(old.header, now);
    let is_new = header.principal != old.header.principal;
    let private = private(calls, &header, if is_new { calls.open.number(now) } else { old.engine_fields });
    let joins = header.principal.filter(|_| is_new || private.indexed_deadline > old.engine_fields.indexed_deadline);
    let record = record(calls, key, &header, &private, &write.content, None)?;
    Ok(Made { header, record, join: joins.map(|principal| Join { principal, key: *key, private }) })
}

pub(super) fn renew(
    calls: &Calls,
    old: &LookupKey,
    new: &LookupKey,
    write: &Write,
    grace: &Grace,
) -> Result<RecordHeader> {
    let open = calls.open;
    let mut there = calls.look(old, false, true)?.record.ok_or_else(Error::not_found)?;
    let mut late = 0;
    while late < TRIES {
        let before = codec::decode(&there, open.seals)?;
        let stored = || StoredRecord { key: *old, header: &before.header, payload: before.payload };
        write.check_genuine(&stored())?;
        let now = calls.now(old)?;
        let header = write.header_after(before.header, now);
        let private = private(calls, &header, open.number(now));
        let moved = Moved {
            key: *new,
            record: record(calls, new, &header, &private, &write.content, Some(stored()))?,
            alias: grace.with_fresh_nonce()?.alias(*old, *new, &header, &calls.moment(now))?,
            join: header.principal.map(|principal| Join { principal, key: *new, private }),
        };
        match calls.displace(old, &calls::first_bytes(&there), &moved, now)? {
            Outcome::Done(_, ended) => calls.cx.counters.add(Count::Revoked, ended),
            Outcome::Other(Some(other)) => {
                there = other;
                continue;
            }
            Outcome::Other(None) => return Err(Error::fixed(ErrorKind::Exists, "the new id is taken")),
            Outcome::Gone => return Err(Error::not_found()),
            Outcome::Late => {
                late += 1;
                continue;
            }
        }
        open.heads.forget(old);
        open.heads.put(new, &moved.record);
        if let Some(principal) = before.header.principal {
            calls.unlist(principal, old, &before.engine_fields);
        }
        return Ok(header);
    }
    Err(out_of_step())
}

/// Ends the sessions of a principal but the one that `except` reads.
pub(super) fn revoke(calls: &Calls, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
    if calls.is_apart() {
        return apart::revoke(calls, principal, except);
    }
    loop {
        let spared = spared(calls, principal, except)?;
        // If it is not there any more it may have moved: that is looked up anew.
        if let Some(ended) = calls.revoke(principal, spared.as_ref())? {
            return Ok(ended);
        }
    }
}

/// The session that `except` reads, if it is the principal's.
pub(super) fn spared(calls: &Calls, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<Option<LookupKey>> {
    let Some(except) = except else { return Ok(None) };
    let Some(way) = follow(calls, except, false)? else { return Ok(None) };
    let record = codec::decode(&way.record, calls.open.seals)?;
    Ok((record.header.principal == Some(principal)).then_some(way.key))
}

/// Takes a session that is gone out of its principal's list.
pub(super) fn unlist(calls: &Calls, key: &LookupKey, header: &[u8]) {
    if let Ok(record) = codec::decode(header, calls.open.seals)
        && let Some(principal) = record.header.principal
    {
        calls.unlist(principal, key, &record.engine_fields);
    }
}

/// What the engine keeps in a record for itself: the number by which it is known in its principal's list, and until when it
/// is there at the least. It does not live longer, so that `revoke` finds it.
fn private(calls: &Calls, header: &RecordHeader, number: EngineFields) -> EngineFields {
    let armed = match header.principal {
        Some(_) => header.own.or(calls.cx.policy.timeouts()).deadline(header.created, FOREVER),
        None => FOREVER,
    };
    EngineFields { indexed_deadline: armed, ..number }
}

/// A record as it is stored. Under a nonce of its own: another one that was made up before may have been seen.
fn record(
    calls: &Calls,
    key: &LookupKey,
    header: &RecordHeader,
    private: &EngineFields,
    content: &Content,
    old: Option<StoredRecord>,
) -> Result<Vec<u8>> {
    let content = content.with_fresh_nonce()?;
    let len = codec::record_len(header, content.stored_len(old.as_ref().map_or(0, |old| old.payload.len())));
    let mut record = Vec::new();
    record.try_reserve_exact(len).map_err(|_| Error::no_memory())?;
    record.resize(len, 0);
    let out = codec::encode(header, private, calls.open.seals, &mut record);
    content.write_to(key, header, old, out)?;
    Ok(record)
}

fn out_of_step() -> Error {
    Error::fixed(ErrorKind::Unavailable, "the server's clock jumps, or answers take longer than a second")
}
