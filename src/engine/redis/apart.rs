//! The steps of a Cluster, where a session and its principal's list, or an old key and a new one, are on different servers and
//! no script reaches both. They come in such an order that a crash in between leaves no second living id and no session that
//! `revoke` cannot find: a session is in its list before it is stored, and has gone from its old key before it is at the new
//! one. What was noted and never came is taken out of the list when nobody can be about to store it any more.

use super::{
    calls::{self, Calls, Ended, Join, Moved, Outcome, Row, TRIES},
    names, step,
};
use crate::{
    error::{Error, Result},
    session::{
        codec,
        header::RecordHeader,
        key::{LookupKey, PrincipalKey},
    },
};

/// Whoever puts a session into a list stores it within a second, or not at all; some more for clocks that differ.
const SLACK_MS: u64 = 60_000;

/// Moves a session. Within the grace time of its old id that reads it also while it is on its way.
pub(super) fn displace(calls: &Calls, from: &LookupKey, seen: &[u8], to: &Moved, made_at: i64) -> Result<Outcome> {
    if let Some(join) = &to.join {
        calls.join(join)?;
    }
    let taken = calls.take(from, seen, to.alias.as_ref(), made_at)?;
    if !matches!(taken, Outcome::Done(..)) {
        return Ok(taken);
    }
    let mut last_seen = None;
    for _ in 0..TRIES {
        match calls.create(&to.key, &to.record, calls.now(&to.key)?, None)? {
            Outcome::Done(at, _) => last_seen = Some(at),
            Outcome::Other(Some(there)) if calls::is_same(&there, &to.record) => last_seen = Some(made_at),
            // It was revoked while it was on its way.
            Outcome::Other(_) | Outcome::Gone => return Ok(Outcome::Gone),
            Outcome::Late => continue,
        }
        break;
    }
    let Some(last_seen) = last_seen else { return Ok(Outcome::Late) };
    if to.alias.is_some() {
        calls.arrived(from)?;
    }
    let ended = to.join.as_ref().map_or(Ok(0), |join| end_surplus(calls, join))?;
    Ok(Outcome::Done(last_seen, ended))
}

/// A principal's living sessions. One that is being renewed may be missed, or met at both its keys.
pub(super) fn list(calls: &Calls, principal: PrincipalKey) -> Result<Vec<Row>> {
    let (mut rows, mut left_over) = (Vec::new(), Vec::new());
    for member in calls.members(principal)? {
        let key = names::key_of(&member).ok_or_else(crate::error::Error::corrupt_record)?;
        let look = calls.look(&key, false, false)?;
        match look.record {
            Some(header) => {
                let record = codec::decode(&header, calls.open.seals)?;
                let is_in =
                    record.header.principal == Some(principal) && names::member(&key, &record.engine_fields) == member;
                if is_in {
                    rows.try_reserve(1).map_err(|_| Error::no_memory())?;
                    rows.push(Row { key, len: look.len, header });
                }
            }
            None if names::age_ms(&member, calls.now(&key)?) > SLACK_MS => left_over.push(member),
            None => {}
        }
    }
    left_over.iter().for_each(|member| calls.unlist_member(principal, member));
    Ok(rows)
}

/// Ends the sessions of a principal but the one that `except` reads. Meanwhile nobody comes into its list, so that what is in it
/// is all there is; what is not stored yet must not be any more. (Such a one is not counted.)
pub(super) fn revoke(calls: &Calls, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
    calls.close(principal)?;
    let spared = step::spared(calls, principal, except)?;
    let mut ended = 0;
    for member in calls.members(principal)? {
        let key = names::key_of(&member).ok_or_else(crate::error::Error::corrupt_record)?;
        if Some(key) == spared {
            continue;
        }
        match calls.end_of(principal, &key, None)? {
            Ended::Done { lived } => ended += u64::from(lived),
            Ended::Gone => {}
            Ended::Other => continue,
        }
        calls.unlist_member(principal, &member);
    }
    calls.reopen(principal)?;
    Ok(ended)
}

/// Ends the least recently used sessions of a principal that has too many since one has come, but not that one.
pub(super) fn end_surplus(calls: &Calls, join: &Join) -> Result<u64> {
    let most = calls.cx.policy.limits().max_per_principal;
    let mut ended = 0;
    // One that was used meanwhile is not ended, but another one.
    for _ in 0..TRIES {
        if most == u64::MAX {
            break;
        }
        let rows = list(calls, join.principal)?;
        let mut others: Vec<(RecordHeader, [u8; 6], LookupKey)> = Vec::new();
        for row in rows.iter().filter(|row| row.key != join.key) {
            let record = codec::decode(&row.header, calls.open.seals)?;
            others.push((record.header, names::number_of(&record.engine_fields), row.key));
        }
        others.sort_unstable_by_key(|(header, number, key)| (header.last_seen, header.created, *number, *key));
        others.truncate((others.len() as u64 + 1).saturating_sub(most) as usize);
        if others.is_empty() {
            break;
        }
        for (header, _, key) in &others {
            if let Ended::Done { lived: true } = calls.end_of(join.principal, key, Some(header.last_seen))? {
                ended += 1;
            }
        }
    }
    Ok(ended)
}
