//! The scripts as functions: what they take and give, in terms of sessions. One `Calls` is one call of the engine: all of it
//! ends in time.

use std::time::Instant;

use super::{
    names,
    open::Open,
    resp::{Reply, text},
    script::{self, Script},
    servers::Kind,
};
use crate::{
    engine::Context,
    error::{Error, ErrorKind, Result},
    format::{self, Private},
    key::{Key, PrincipalKey},
    policy::Moment,
    record::Alias,
    seal::corrupt,
};

/// The length of what two writes never have the same: the longest head, and what is sealed up to the end of its nonce.
const HEAD: usize = format::HEADER + format::PRINCIPAL + 17;
const LAST_SEEN_END: usize = format::LAST_SEEN + 8;
/// A principal's list: what has been in it for so long and is no session cannot become one any more.
const SLACK_MS: u64 = 60_000;

pub(super) struct Calls<'a> {
    pub open: &'a Open,
    pub cx: &'a Context<'a>,
    pub until: Instant,
}

/// What is stored under a key.
pub(super) struct Look {
    pub moment: Moment,
    /// A living session's record, or as much of it as says when it ends.
    pub record: Option<Vec<u8>>,
    /// Where the key leads to as an old id.
    pub alias: Option<Alias>,
    /// The whole record's length.
    pub len: usize,
}

/// What came of a write.
pub(super) enum Outcome {
    /// With the last use.
    Done(i64),
    /// There is no such session.
    Gone,
    /// There is another record.
    Other(Option<Vec<u8>>),
    /// It was made up at another time than the server's.
    Late,
}

/// What came of an end.
pub(super) enum Ended {
    /// Its head, and whether it lived.
    Done(Vec<u8>, bool),
    Gone,
    /// It is another principal's.
    Other,
}

/// Whom a deletion is for.
#[derive(Clone, Copy)]
pub(super) enum Which {
    Living,
    Expired,
    Revoked(PrincipalKey),
}

impl<'a> Calls<'a> {
    pub(super) fn new(open: &'a Open, cx: &'a Context<'a>) -> Calls<'a> {
        Calls { open, cx, until: Instant::now() + open.url.deadline }
    }

    /// When a write to this key is made up: about the server's time.
    pub(super) fn now(&self, key: &Key) -> Result<i64> {
        self.now_at(&self.open.names().session(key))
    }

    fn now_at(&self, name: &[u8]) -> Result<i64> {
        match self.cx.clock.is_manual() {
            true => Ok(self.cx.clock.now_ms()),
            false => self.open.servers.now_ms(name, self.until),
        }
    }

    pub(super) fn moment(&self, now: i64) -> Moment {
        Moment { now, timeouts: self.cx.policy.timeouts() }
    }

    /// `whole`: the whole record. `uses`: and notes the use.
    pub(super) fn look(&self, key: &Key, uses: bool, whole: bool) -> Result<Look> {
        let args: [&[u8]; 2] = [if uses { b"use" } else { b"peek" }, if whole { b"whole" } else { b"head" }];
        let (now, mut rest) = self.session(&script::READ, Kind::Read, key, 0, &args)?;
        rest.resize_with(3, || Reply::Nil);
        let [record, alias, len] = <[Reply; 3]>::try_from(rest).map_err(|_| corrupt())?;
        let alias = match alias.bytes().filter(|alias| !alias.is_empty()) {
            Some(alias) => Some(format::decode_alias(*key, alias, self.open.seals)?),
            None => None,
        };
        Ok(Look {
            moment: self.moment(now),
            record: record.into_bytes(),
            alias: alias.filter(|alias| now < alias.until),
            len: len.int().and_then(|len| usize::try_from(len).ok()).unwrap_or_default(),
        })
    }

    /// Takes back a use of a session.
    pub(super) fn unread(&self, key: &Key, used: i64, before: i64) -> Result<()> {
        self.session(&script::UNREAD, Kind::Read, key, 0, &[&text(used), &text(before)]).map(|_| ())
    }

    pub(super) fn create(&self, key: &Key, record: &[u8], deadline: i64, made_at: i64) -> Result<Outcome> {
        self.outcome(&script::CREATE, Kind::Write, key, made_at, &[record, &text(deadline)])
    }

    /// Replaces what has these first bytes by a new record.
    pub(super) fn replace(&self, key: &Key, seen: &[u8], record: &[u8], made_at: i64) -> Result<Outcome> {
        self.outcome(&script::WRITE, Kind::Write, key, made_at, &[seen, record])
    }

    /// Takes away what has these first bytes, and leaves the alias.
    pub(super) fn take(&self, key: &Key, seen: &[u8], alias: Option<&Alias>) -> Result<Outcome> {
        let (encoded, until) = alias.map_or((Vec::new(), 0), |alias| (format::encode_alias(alias), alias.until));
        self.outcome(&script::WRITE, Kind::Once, key, 0, &[seen, b"", &encoded, &text(until)])
    }

    pub(super) fn end(&self, key: &Key, which: Which) -> Result<Ended> {
        let (what, principal, kind): (&[u8], _, _) = match which {
            Which::Living => (b"living", None, Kind::Once),
            Which::Expired => (b"expired", None, Kind::Once),
            Which::Revoked(principal) => (b"revoked", Some(principal.bytes()), Kind::Once),
        };
        let principal = principal.as_ref().map_or(&b""[..], |bytes| bytes);
        let (_, rest) = self.session(&script::DELETE, kind, key, 0, &[what, principal])?;
        match &rest[..] {
            [Reply::Bytes(outcome), head, lived] if outcome == b"done" => {
                Ok(Ended::Done(head.bytes().ok_or_else(corrupt)?.to_vec(), lived.int() == Some(1)))
            }
            [Reply::Bytes(outcome)] if outcome == b"gone" => Ok(Ended::Gone),
            [Reply::Bytes(outcome)] if outcome == b"other" => Ok(Ended::Other),
            _ => Err(nonsense()),
        }
    }

    /// Removes what is left of a session that has moved.
    pub(super) fn clear(&self, key: &Key) -> Result<()> {
        let name = self.open.names().session(key);
        self.open.servers.command(&name, Kind::Write, &[b"DEL", &name], self.until).map(|_| ())
    }

    /// Notes a session in its principal's list, until it ends at the latest.
    pub(super) fn bind(&self, principal: PrincipalKey, key: &Key, private: &Private) -> Result<()> {
        let name = self.open.names().principal(principal);
        let args: [&[u8]; 2] = [&names::member(key, private), &text(private.armed)];
        self.call(&script::BIND, Kind::Write, &[&name], 0, &args).map(|_| ())
    }

    /// Takes a session out of its principal's list. It is gone, so that this may fail: what is left is trimmed later.
    pub(super) fn unbind(&self, principal: PrincipalKey, key: &Key, private: &Private) {
        let _ = self.unlist(&self.open.names().principal(principal), &[names::member(key, private)]);
    }

    /// What is in a principal's list, living or not.
    pub(super) fn members(&self, principal: PrincipalKey) -> Result<Vec<(Key, Private)>> {
        let name = self.open.names().principal(principal);
        let reply = self.open.servers.command(&name, Kind::Read, &[b"ZRANGE", &name, b"0", b"-1"], self.until)?;
        members_in(&reply)
    }

    /// Whether what is in a list and is no session was put there so long ago that it cannot become one.
    pub(super) fn is_left_over(&self, list: &[u8], private: &Private) -> Result<bool> {
        let now_us = self.open.servers.now_ms(list, self.until)?.unsigned_abs().saturating_mul(1000);
        Ok(!self.cx.clock.is_manual() && names::age_ms(private, now_us) > SLACK_MS)
    }

    pub(super) fn unlist(&self, list: &[u8], members: &[Vec<u8>]) -> Result<u64> {
        if members.is_empty() {
            return Ok(0);
        }
        let parts: Vec<&[u8]> = [&b"ZREM"[..], list].into_iter().chain(members.iter().map(Vec::as_slice)).collect();
        let removed = self.open.servers.command(list, Kind::Write, &parts, self.until)?;
        Ok(removed.int().and_then(|n| u64::try_from(n).ok()).unwrap_or_default())
    }

    fn outcome(&self, script: &Script, kind: Kind, key: &Key, made_at: i64, args: &[&[u8]]) -> Result<Outcome> {
        let (now, mut rest) = self.session(script, kind, key, made_at, args)?;
        let there = (rest.len() > 1).then(|| rest.swap_remove(1));
        match rest.first().and_then(Reply::bytes) {
            Some(b"done") => Ok(Outcome::Done(there.and_then(|seen| seen.int()).unwrap_or(now))),
            Some(b"gone") => Ok(Outcome::Gone),
            Some(b"other" | b"taken") => Ok(Outcome::Other(there.and_then(Reply::into_bytes))),
            Some(b"late") => Ok(Outcome::Late),
            _ => Err(nonsense()),
        }
    }

    /// Runs a script on a session and its alias.
    fn session(
        &self,
        script: &Script,
        kind: Kind,
        key: &Key,
        made_at: i64,
        args: &[&[u8]],
    ) -> Result<(i64, Vec<Reply>)> {
        let names = self.open.names();
        self.call(script, kind, &[&names.session(key), &names.alias(key)], made_at, args)
    }

    fn call(
        &self,
        script: &Script,
        kind: Kind,
        keys: &[&[u8]],
        made_at: i64,
        args: &[&[u8]],
    ) -> Result<(i64, Vec<Reply>)> {
        let timeouts = self.cx.policy.timeouts();
        let by_hand = if self.cx.clock.is_manual() { text(self.cx.clock.now_ms()) } else { Vec::new() };
        let common = [by_hand, text(timeouts.absolute), text(timeouts.idle), text(made_at)];
        let args: Vec<&[u8]> = common.iter().map(Vec::as_slice).chain(args.iter().copied()).collect();
        let mut items = self.open.servers.script(script, kind, keys, &args, self.until)?;
        let now = items.first().and_then(Reply::int).ok_or_else(nonsense)?;
        if !self.cx.clock.is_manual() {
            self.open.servers.tell(keys[0], now);
        }
        items.remove(0);
        Ok((now, items))
    }
}

pub(super) fn members_in(reply: &Reply) -> Result<Vec<(Key, Private)>> {
    let items = reply.array().ok_or_else(nonsense)?;
    items.iter().map(|item| names::parse_member(item.bytes().ok_or_else(nonsense)?)).collect()
}

/// The first bytes of a record, by which the server knows it again. The last use is not one of them.
pub(super) fn first_bytes(record: &[u8]) -> Vec<u8> {
    let head = &record[..record.len().min(HEAD)];
    [&head[..head.len().min(format::LAST_SEEN)], head.get(LAST_SEEN_END..).unwrap_or_default()].concat()
}

/// The beginning of a record with these first bytes, and any last use.
pub(super) fn as_head(first_bytes: &[u8]) -> Vec<u8> {
    let (before, after) = first_bytes.split_at(first_bytes.len().min(format::LAST_SEEN));
    [before, &[0; 8], after].concat()
}

/// Whether two records are of the same write.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    first_bytes(a) == first_bytes(b) && a.get(LAST_SEEN_END..) == b.get(LAST_SEEN_END..)
}

fn nonsense() -> Error {
    Error::fixed(ErrorKind::Unavailable, "the server gave an answer of the wrong kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_and_this_agree_on_where_things_are() {
        for line in [
            format!("local HEAD = {HEAD}\n"),
            format!("local SHORTEST = {}\n", format::HEADER),
            format!("local LAST_SEEN = {}\n", format::LAST_SEEN),
        ] {
            assert!(script::ALL.iter().all(|script| script.source.contains(&line)), "{line}");
        }
        assert!(script::BIND.source.contains(&format!("local SLACK = {SLACK_MS}\n")));
    }

    #[test]
    fn the_last_use_is_not_among_the_first_bytes() {
        let record: Vec<u8> = (0..200).collect();
        let mut used = record.clone();
        used[format::LAST_SEEN] = 99;
        assert_eq!(first_bytes(&record), first_bytes(&used));
        assert!(is_same(&record, &used));
        used[150] = 0;
        assert!(!is_same(&record, &used));
        let head = as_head(&first_bytes(&record));
        assert_eq!((head.len(), &head[..16], &head[24..]), (HEAD, &record[..16], &record[24..HEAD]));
    }
}
