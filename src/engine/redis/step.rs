//! The steps of the engine that are made of several scripts, and what a record is made of.

use super::{
    calls::{self, Calls, Ended, Outcome, Which},
    resp::Reply,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{self, Private},
    key::{Key, PrincipalKey},
    policy::{FOREVER, Moment},
    record::{Alias, Content, Grace, Head, Stored, Write},
    stats::Count,
};

/// A way from old ids to a session is not longer: nobody renews so often within a grace time.
const LONGEST_WAY: usize = 64;
/// How often a write is made up anew before it is given up: each time the server's time was learned.
const TRIES: usize = 5;

/// The way from a key over aliases to a session.
pub(super) struct Way {
    pub moment: Moment,
    pub key: Key,
    pub record: Vec<u8>,
    /// When the way ends.
    pub until: i64,
    pub aliases: Vec<Alias>,
}

/// A session of a principal.
pub(super) struct Row {
    pub key: Key,
    pub head: Head,
    pub private: Private,
    pub stored_len: usize,
}

/// The session that a key reads. `uses`: and notes the use, if it is the session's own key.
pub(super) fn follow(calls: &Calls, key: &Key, uses: bool, whole: bool) -> Result<Option<Way>> {
    let (mut key, mut until, mut aliases) = (*key, i64::MAX, Vec::new());
    // While a session moves it still reads at its old key.
    let mut moving = None;
    for _ in 0..LONGEST_WAY {
        let look = calls.look(&key, uses && aliases.is_empty(), whole)?;
        let Some(alias) = look.alias else {
            let way = look.record.map(|record| Way { moment: look.moment, key, record, until, aliases });
            return Ok(way.or(moving));
        };
        until = until.min(alias.until);
        if let Some(record) = look.record {
            moving = Some(Way { moment: look.moment, key, record, until, aliases: aliases.clone() });
        }
        key = alias.target;
        aliases.push(alias);
    }
    Ok(None)
}

/// Stores a new session: first in its principal's list, so that nobody can miss it there.
pub(super) fn create(calls: &Calls, key: &Key, write: &Write) -> Result<Head> {
    let now = calls.now(key)?;
    let number = calls.open.number(now);
    let begun = |now| {
        let head = Head::begin(now, write);
        (head, private(calls, &head, number))
    };
    let (head, bound) = begun(now);
    if let Some(principal) = head.principal {
        calls.bind(principal, key, &bound)?;
    }
    for _ in 0..TRIES {
        let now = calls.now(key)?;
        let (head, private) = begun(now);
        let record = record(calls, key, &head, &private, &write.content, None)?;
        if store(calls, key, &head, &record, now)? {
            return Ok(head);
        }
    }
    Err(no_time())
}

/// False: it is too late for that.
fn store(calls: &Calls, key: &Key, head: &Head, record: &[u8], made_at: i64) -> Result<bool> {
    match calls.create(key, record, head.deadline(calls.cx.policy.timeouts()), made_at)? {
        Outcome::Done(_) => {}
        Outcome::Late => return Ok(false),
        // The answer to the first attempt was lost.
        Outcome::Other(Some(there)) if there == record => {}
        Outcome::Other(_) | Outcome::Gone => return Err(Error::fixed(ErrorKind::Exists, "the new id is taken")),
    }
    calls.open.heads.put(key, &calls::first_bytes(record));
    Ok(true)
}

/// Replaces a session's payload. With its head comes the principal whom it is new to.
pub(super) fn put(calls: &Calls, key: &Key, write: &Write) -> Result<(Head, Option<PrincipalKey>)> {
    let open = calls.open;
    // What was seen of it last: by this process, and if that is not what is there, by the server's answer.
    let mut seen = open.heads.get(key).map(Vec::from).unwrap_or_default();
    let mut late = 0;
    while late < TRIES {
        let known = calls::as_head(&seen);
        let old = if seen.is_empty() { None } else { Some(format::decode(&known, open.seals)?) };
        if old.as_ref().is_some_and(|old| write.check_version(&old.head).is_err()) {
            seen.clear();
            continue;
        }
        let now = calls.now(key)?;
        let mut made = None;
        if let Some(old) = &old {
            let head = old.head.written(now, write);
            let joins = head.principal.filter(|_| head.principal != old.head.principal);
            let number = if joins.is_some() { open.number(now) } else { old.private };
            let private = private(calls, &head, number);
            if let Some(principal) = head.principal.filter(|_| joins.is_some() || private.armed > old.private.armed) {
                calls.bind(principal, key, &private)?;
            }
            made = Some((head, joins, record(calls, key, &head, &private, &write.content, None)?));
        }
        let record = made.as_ref().map_or(&b""[..], |(.., record)| record);
        match (calls.replace(key, &seen, record, now)?, made) {
            (Outcome::Gone, _) => {
                open.heads.forget(key);
                return Err(Error::not_found());
            }
            (Outcome::Late, _) => late += 1,
            (Outcome::Done(last_seen), Some((head, joins, record))) => {
                return Ok((finish(calls, key, old, Head { last_seen, ..head }, &record), joins));
            }
            (Outcome::Other(Some(there)), Some((head, joins, record))) if calls::is_same(&there, &record) => {
                // The answer to the first attempt was lost.
                let last_seen = format::decode(&there, open.seals)?.head.last_seen;
                return Ok((finish(calls, key, old, Head { last_seen, ..head }, &record), joins));
            }
            (Outcome::Other(Some(there)), _) => {
                let stored = format::decode(&there, open.seals)?;
                write.check_version(&stored.head)?;
                write.check_genuine(&Stored { key: *key, head: &stored.head, bytes: stored.bytes })?;
                seen = calls::first_bytes(&there);
            }
            (Outcome::Other(None) | Outcome::Done(_), _) => return Err(crate::seal::corrupt()),
        }
    }
    Err(no_time())
}

/// What is to be done when a session was written.
fn finish(calls: &Calls, key: &Key, old: Option<format::Record>, head: Head, record: &[u8]) -> Head {
    calls.open.heads.put(key, &calls::first_bytes(record));
    if let Some(old) = old
        && let Some(principal) = old.head.principal.filter(|_| old.head.principal != head.principal)
    {
        calls.unbind(principal, key, &old.private);
    }
    head
}

/// Moves a session: into the list of its principal, away from its old key, to its new one. Whoever dies in between has ended
/// it, or leaves it readable by its old id for no longer than the grace time; what no answer came to is not done again.
pub(super) fn renew(calls: &Calls, old: &Key, new: &Key, write: &Write, grace: &Grace) -> Result<Head> {
    let open = calls.open;
    let mut look = calls.look(old, false, true)?;
    for _ in 0..TRIES {
        let Some(there) = look.record.filter(|_| look.alias.is_none()) else { return Err(Error::not_found()) };
        let before = format::decode(&there, open.seals)?;
        let stored = || Stored { key: *old, head: &before.head, bytes: before.bytes };
        write.check_genuine(&stored())?;
        let now = calls.now(old)?;
        let head = before.head.written(now, write);
        let private = private(calls, &head, open.number(now));
        let record = record(calls, new, &head, &private, &write.content, Some(stored()))?;
        let alias = grace.anew()?.alias(*old, *new, &head, &calls.moment(now))?;
        if let Some(principal) = head.principal {
            calls.bind(principal, new, &private)?;
        }
        match calls.take(old, &calls::first_bytes(&there), alias.as_ref())? {
            Outcome::Done(_) => {}
            Outcome::Other(other) => {
                look.record = other;
                continue;
            }
            Outcome::Gone | Outcome::Late => return Err(Error::not_found()),
        }
        open.heads.forget(old);
        let is_stored = (0..TRIES).try_fold(false, |is_stored, _| match is_stored {
            true => Ok(true),
            false => store(calls, new, &head, &record, calls.now(new)?),
        })?;
        if !is_stored {
            return Err(no_time());
        }
        if alias.is_some() {
            calls.clear(old)?;
        }
        if let Some(principal) = before.head.principal {
            calls.unbind(principal, old, &before.private);
        }
        return Ok(head);
    }
    Err(no_time())
}

/// Takes a session that is gone out of its principal's list.
pub(super) fn unbind(calls: &Calls, key: &Key, head: &[u8]) {
    if let Ok(record) = format::decode(head, calls.open.seals)
        && let Some(principal) = record.head.principal
    {
        calls.unbind(principal, key, &record.private);
    }
}

/// A principal's living sessions.
pub(super) fn sessions_of(calls: &Calls, principal: PrincipalKey) -> Result<Vec<Row>> {
    let list = calls.open.names().principal(principal);
    let (mut rows, mut left_over): (Vec<Row>, _) = (Vec::new(), Vec::new());
    for (key, number) in calls.members(principal)? {
        // A session that was bound again is there twice.
        if rows.iter().any(|row| row.key == key) {
            continue;
        }
        let look = calls.look(&key, false, false)?;
        match look.record.filter(|_| look.alias.is_none()) {
            Some(start) => {
                let record = format::decode(&start, calls.open.seals)?;
                if record.head.principal == Some(principal) {
                    let stored_len = look.len.saturating_sub(start.len() - record.bytes.len());
                    rows.try_reserve(1).map_err(|_| Error::no_memory())?;
                    rows.push(Row { key, head: record.head, private: record.private, stored_len });
                }
            }
            None if calls.is_left_over(&list, &number)? => left_over.push(super::names::member(&key, &number)),
            None => {}
        }
    }
    calls.unlist(&list, &left_over)?;
    Ok(rows)
}

/// Takes out of a principal's list what is no session any more, and says how many.
pub(super) fn trim(calls: &Calls, list: &[u8], members: &Reply) -> Result<u64> {
    let mut left_over = Vec::new();
    for (key, number) in calls::members_in(members)? {
        if calls.is_left_over(list, &number)? && calls.look(&key, false, false)?.record.is_none() {
            left_over.push(super::names::member(&key, &number));
        }
    }
    calls.unlist(list, &left_over)
}

/// Ends the least recently used sessions of a principal that has too many. All who do this at the same time agree on which.
pub(super) fn end_surplus(calls: &Calls, principal: PrincipalKey) -> Result<()> {
    let most = calls.cx.policy.limits().max_per_principal;
    if most == u64::MAX {
        return Ok(());
    }
    let mut rows = sessions_of(calls, principal)?;
    rows.sort_unstable_by_key(|row| {
        (row.head.last_seen, row.head.created, row.private.generation, row.private.cell, row.key)
    });
    rows.truncate((rows.len() as u64).saturating_sub(most) as usize);
    for row in rows {
        if let Ended::Done(_, true) = calls.end(&row.key, Which::Revoked(principal))? {
            calls.open.heads.forget(&row.key);
            calls.unbind(principal, &row.key, &row.private);
            calls.cx.counters.add(Count::Revoked, 1);
        }
    }
    Ok(())
}

/// What the engine keeps in a record for itself: the number of the write by which it came into its principal's list, and until
/// when it is there at the least. It does not live longer, so that `revoke` finds it.
fn private(calls: &Calls, head: &Head, number: Private) -> Private {
    let armed = match head.principal {
        Some(_) => head.own.or(calls.cx.policy.timeouts()).deadline(head.created, FOREVER),
        None => FOREVER,
    };
    Private { armed, ..number }
}

/// A record as it is stored. Under a nonce of its own: another one that was made up before may have been seen.
fn record(
    calls: &Calls,
    key: &Key,
    head: &Head,
    private: &Private,
    content: &Content,
    old: Option<Stored>,
) -> Result<Vec<u8>> {
    let content = content.anew()?;
    let stored_len = content.stored_len(old.as_ref().map_or(0, |old| old.bytes.len()));
    let len = format::record_len(head, stored_len);
    let mut record = Vec::new();
    record.try_reserve_exact(len).map_err(|_| Error::no_memory())?;
    record.resize(len, 0);
    let out = format::encode(head, private, calls.open.seals, &mut record);
    content.fill(key, head, old, out)?;
    Ok(record)
}

fn no_time() -> Error {
    Error::fixed(ErrorKind::Unavailable, "the server's clock jumps, or the session never rests")
}
