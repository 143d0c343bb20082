//! The scripts as functions: what they take and give, in terms of sessions. One `Calls` is one call of the engine: all of it
//! ends in time.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    apart, names,
    open::Open,
    resp::{Reply, text},
    script::{self, Script},
    servers::Kind,
};
use crate::{
    engine::Context,
    error::{Error, ErrorKind, Result},
    session::{
        alias::Alias,
        codec::{self, EngineFields},
        key::{LookupKey, PrincipalKey},
        policy::StepTime,
    },
};

/// The length of what two writes never have the same: the longest header, and what is sealed up to the end of its nonce.
const HEAD: usize = codec::HEADER + codec::PRINCIPAL + 17;
const LAST_SEEN_END: usize = codec::LAST_SEEN + 8;
/// How often a write is made up anew because it was the wrong time: each time the server's was learned.
pub(super) const TRIES: usize = 3;
/// Between two looks at a list that is closed.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Calls<'a> {
    pub open: &'a Open,
    pub cx: &'a Context<'a>,
    pub until: Instant,
}

/// What is stored under a key.
pub(super) struct Look {
    pub moment: StepTime,
    /// A living session's record, or as much of it as says when it ends.
    pub record: Option<Vec<u8>>,
    /// Where the key leads to as an old id.
    pub alias: Option<Alias>,
    /// The whole record's length.
    pub len: usize,
}

/// An expiry that a get has set before it knew whether that was right, and the one before.
pub(super) struct Tried {
    pub expiry: i64,
    pub before: i64,
}

/// What came of a write.
pub(super) enum Outcome {
    /// With the last use, and how many other sessions of the principal were ended.
    Done(i64, u64),
    /// There is no such session.
    Gone,
    /// There is another record.
    Other(Option<Vec<u8>>),
    /// It was made up at another time than the server's.
    Late,
}

/// Which session a deletion is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Living,
    Expired,
}

/// What came of ending a session of a principal.
pub(super) enum Ended {
    Done {
        lived: bool,
    },
    /// It is not there, and nobody can be about to store it.
    Gone,
    /// It is somebody else's, or was used since.
    Other,
}

/// Whose list a session comes into with a write, and as what.
pub(super) struct Join {
    pub principal: PrincipalKey,
    pub key: LookupKey,
    pub private: EngineFields,
}

/// Where a session moves to.
pub(super) struct Moved {
    pub key: LookupKey,
    pub record: Vec<u8>,
    pub alias: Option<Alias>,
    pub join: Option<Join>,
}

/// A session of a principal.
pub(super) struct Row {
    pub key: LookupKey,
    /// The beginning of its record.
    pub header: Vec<u8>,
    /// The length of its record.
    pub len: usize,
}

impl<'a> Calls<'a> {
    pub(super) fn new(open: &'a Open, cx: &'a Context<'a>) -> Calls<'a> {
        Calls { open, cx, until: Instant::now() + open.url.deadline }
    }

    /// When a write to this key is made up: about the server's time.
    pub(super) fn now(&self, key: &LookupKey) -> Result<i64> {
        match self.cx.clock.is_manual() {
            true => Ok(self.cx.clock.now_ms()),
            false => self.open.servers.now_ms(&self.open.names().session(key), self.until),
        }
    }

    pub(super) fn moment(&self, now: i64) -> StepTime {
        StepTime { now, timeouts: self.cx.policy.timeouts() }
    }

    /// `whole`: the whole record. `uses`: and notes the use.
    pub(super) fn look(&self, key: &LookupKey, uses: bool, whole: bool) -> Result<Look> {
        self.look_again(key, uses, whole, None)
    }

    /// The same after something was tried, which is taken back.
    pub(super) fn look_again(&self, key: &LookupKey, uses: bool, whole: bool, tried: Option<&Tried>) -> Result<Look> {
        self.look_at(key, &self.open.names().session(key), uses, whole, tried)
    }

    fn look_at(&self, key: &LookupKey, name: &[u8], uses: bool, whole: bool, tried: Option<&Tried>) -> Result<Look> {
        let alias = self.open.names().alias(key);
        let (uses, whole): (&[u8], &[u8]) =
            (if uses { b"use" } else { b"peek" }, if whole { b"whole" } else { b"header" });
        let (expiry, before) = tried.map_or_else(Default::default, |tried| (text(tried.expiry), text(tried.before)));
        let args: [&[u8]; 5] = [uses, whole, &alias, &expiry, &before];
        let (now, mut rest) = self.call(&script::READ, Kind::Read, &[name], 0, &args)?;
        rest.resize_with(3, || Reply::Nil);
        let [record, alias, len] = <[Reply; 3]>::try_from(rest).map_err(|_| Error::corrupt_record())?;
        let alias = match alias.bytes().filter(|alias| !alias.is_empty()) {
            Some(alias) => Some(codec::decode_alias(*key, alias, self.open.seals)?),
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
    pub(super) fn unread(&self, key: &LookupKey, used: i64, before: i64) -> Result<()> {
        self.session(&script::UNREAD, Kind::Read, key, 0, &[&text(used), &text(before)]).map(|_| ())
    }

    pub(super) fn create(&self, key: &LookupKey, record: &[u8], made_at: i64, join: Option<&Join>) -> Result<Outcome> {
        let names = self.open.names();
        let args: [&[u8]; 2] = [record, &names.alias(key)];
        self.joining(&script::CREATE, Kind::Write, &[names.session(key)], made_at, join, &args)
    }

    /// Replaces what has these first bytes by a new record.
    pub(super) fn replace(
        &self,
        key: &LookupKey,
        seen: &[u8],
        record: &[u8],
        made_at: i64,
        join: Option<&Join>,
    ) -> Result<Outcome> {
        self.joining(&script::WRITE, Kind::Write, &[self.open.names().session(key)], made_at, join, &[seen, record])
    }

    /// Moves what has these first bytes to a new key, and leaves the alias.
    pub(super) fn displace(&self, from: &LookupKey, seen: &[u8], to: &Moved, made_at: i64) -> Result<Outcome> {
        if self.is_apart() {
            return apart::displace(self, from, seen, to, made_at);
        }
        let names = self.open.names();
        let keys = [names.session(from), names.alias(from), names.session(&to.key), names.alias(&to.key)];
        let (alias, until) =
            to.alias.as_ref().map_or((Vec::new(), 0), |alias| (codec::encode_alias(alias), alias.until));
        let args: [&[u8]; 4] = [seen, &to.record, &alias, &text(until)];
        // What was moved and then moved again would not be known again.
        self.joining(&script::MOVE, Kind::Once, &keys, made_at, to.join.as_ref(), &args)
    }

    /// Ends a session. Its header, if there was one.
    pub(super) fn end(&self, key: &LookupKey, which: Which) -> Result<Option<Vec<u8>>> {
        let which: &[u8] = if which == Which::Living { b"living" } else { b"expired" };
        let (_, mut rest) = self.session(&script::DELETE, Kind::Once, key, 0, &[which])?;
        match rest.pop() {
            Some(Reply::Bytes(header)) if rest.len() == 1 => Ok(Some(header)),
            Some(Reply::Bytes(outcome)) if outcome == b"gone" => Ok(None),
            _ => Err(nonsense()),
        }
    }

    /// Takes a session that is gone out of its principal's list. This may fail: what is left there is not taken for it.
    pub(super) fn unlist(&self, principal: PrincipalKey, key: &LookupKey, private: &EngineFields) {
        let list = self.open.names().principal(principal);
        let _ = self.zrem(&list, &names::member(key, private));
    }

    fn zrem(&self, list: &[u8], member: &[u8]) -> Result<Reply> {
        self.open.servers.command(list, Kind::Write, &[b"ZREM", list, member], self.until)
    }

    /// A principal's living sessions.
    pub(super) fn list(&self, principal: PrincipalKey) -> Result<Vec<Row>> {
        if self.is_apart() {
            return apart::list(self, principal);
        }
        let list = self.open.names().principal(principal);
        let args = self.about(principal, b"", 0, false);
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let (_, items) = self.call(&script::LIST, Kind::Read, &[&list], 0, &args)?;
        let mut rows = Vec::new();
        rows.try_reserve_exact(items.len() / 3).map_err(|_| Error::no_memory())?;
        for item in items.chunks(3) {
            let [Reply::Bytes(member), Reply::Bytes(header), Reply::Int(len)] = item else { return Err(nonsense()) };
            let key = names::key_of(member).ok_or_else(Error::corrupt_record)?;
            rows.push(Row { key, header: header.clone(), len: usize::try_from(*len).unwrap_or_default() });
        }
        Ok(rows)
    }

    /// Ends the sessions of a principal but one, and says how many; `None`: that one is not there.
    pub(super) fn revoke(&self, principal: PrincipalKey, spared: Option<&LookupKey>) -> Result<Option<u64>> {
        let names = self.open.names();
        let mut args = self.about(principal, b"", 0, false);
        args.push(spared.map_or(Vec::new(), |key| names.session(key)));
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        // Doing it again ends nobody who was not to be ended, but counts only who was left.
        let (_, rest) = self.call(&script::REVOKE, Kind::Once, &[&names.principal(principal)], 0, &args)?;
        match &rest[..] {
            [Reply::Bytes(outcome), Reply::Int(ended)] if outcome == b"done" => Ok(Some(ended.unsigned_abs())),
            [Reply::Bytes(outcome)] if outcome == b"gone" => Ok(None),
            _ => Err(nonsense()),
        }
    }

    /// Whether no script can do a whole step.
    pub(super) fn is_apart(&self) -> bool {
        self.open.servers.are_many()
    }

    /// Puts a session into its principal's list before it is stored. While the list is closed it waits.
    pub(super) fn join(&self, join: &Join) -> Result<()> {
        let names = self.open.names();
        let mut about =
            self.about(join.principal, &names::member(&join.key, &join.private), join.private.indexed_deadline, false);
        about.push(names.closed(join.principal));
        let about: Vec<&[u8]> = about.iter().map(Vec::as_slice).collect();
        loop {
            let (_, rest) = self.call(&script::JOIN, Kind::Write, &[&names.principal(join.principal)], 0, &about)?;
            match rest.first().and_then(Reply::bytes) {
                Some(b"done") => return Ok(()),
                Some(b"closed") => self.pause()?,
                _ => return Err(nonsense()),
            }
        }
    }

    /// Closes a principal's list: nobody comes in until it is opened again, or this call is over.
    pub(super) fn close(&self, principal: PrincipalKey) -> Result<()> {
        let name = self.open.names().closed(principal);
        loop {
            let left = self.until.saturating_duration_since(Instant::now()).as_millis().max(1).to_string();
            let parts: [&[u8]; 6] = [b"SET", &name, b"", b"NX", b"PX", left.as_bytes()];
            // Once: what another call has closed is not opened by this one.
            match self.open.servers.command(&name, Kind::Once, &parts, self.until)? {
                Reply::Nil => self.pause()?,
                _ => return Ok(()),
            }
        }
    }

    pub(super) fn reopen(&self, principal: PrincipalKey) -> Result<()> {
        let name = self.open.names().closed(principal);
        self.open.servers.command(&name, Kind::Write, &[b"DEL", &name], self.until).map(|_| ())
    }

    fn pause(&self) -> Result<()> {
        if Instant::now() + PAUSE > self.until {
            let message = "the principal's sessions are being revoked by another call";
            return Err(Error::fixed(ErrorKind::Timeout, message));
        }
        thread::sleep(PAUSE);
        Ok(())
    }

    /// Takes away what has these first bytes, to be stored at another key, and leaves the alias.
    pub(super) fn take(&self, key: &LookupKey, seen: &[u8], alias: Option<&Alias>, made_at: i64) -> Result<Outcome> {
        let names = self.open.names();
        let (encoded, until) = alias.map_or((Vec::new(), 0), |alias| (codec::encode_alias(alias), alias.until));
        let args: [&[u8]; 5] = [seen, &encoded, &names.alias(key), &text(until), &names.moving(key)];
        let (now, rest) = self.session(&script::TAKE, Kind::Once, key, made_at, &args)?;
        outcome(now, rest)
    }

    /// What an old id reads of a session that is on its way.
    pub(super) fn on_its_way(&self, key: &LookupKey, whole: bool) -> Result<Look> {
        self.look_at(key, &self.open.names().moving(key), false, whole, None)
    }

    /// A session that was on its way is at its new key.
    pub(super) fn arrived(&self, old: &LookupKey) -> Result<()> {
        let name = self.open.names().moving(old);
        self.open.servers.command(&name, Kind::Write, &[b"DEL", &name], self.until).map(|_| ())
    }

    /// Ends a session of a principal, if it was used then last.
    pub(super) fn end_of(&self, principal: PrincipalKey, key: &LookupKey, last_seen: Option<i64>) -> Result<Ended> {
        let names = self.open.names();
        let last_seen = last_seen.map_or(Vec::new(), text);
        let args: [&[u8]; 4] = [&principal.bytes(), &names.alias(key), &names.moving(key), &last_seen];
        let (_, rest) = self.session(&script::END, Kind::Once, key, 0, &args)?;
        self.open.heads.forget(key);
        match &rest[..] {
            [Reply::Bytes(outcome), lived] if outcome == b"done" => Ok(Ended::Done { lived: lived.int() == Some(1) }),
            [Reply::Bytes(outcome)] if outcome == b"gone" => Ok(Ended::Gone),
            [Reply::Bytes(outcome)] if outcome == b"other" => Ok(Ended::Other),
            _ => Err(nonsense()),
        }
    }

    /// What is in a principal's list.
    pub(super) fn members(&self, principal: PrincipalKey) -> Result<Vec<Vec<u8>>> {
        let list = self.open.names().principal(principal);
        let reply = self.open.servers.command(&list, Kind::Read, &[b"ZRANGE", &list, b"0", b"-1"], self.until)?;
        match reply {
            Reply::Array(members) => Ok(members.into_iter().filter_map(Reply::into_bytes).collect()),
            _ => Err(nonsense()),
        }
    }

    pub(super) fn unlist_member(&self, principal: PrincipalKey, member: &[u8]) {
        let _ = self.zrem(&self.open.names().principal(principal), member);
    }

    /// What principal.lua is told.
    fn about(&self, principal: PrincipalKey, member: &[u8], ends: i64, is_limited: bool) -> Vec<Vec<u8>> {
        let most = Some(self.cx.policy.limits().max_per_principal).filter(|&most| is_limited && most != u64::MAX);
        vec![
            self.open.names().of_sessions(),
            member.to_vec(),
            text(ends),
            principal.bytes().to_vec(),
            most.map_or(Vec::new(), text),
        ]
    }

    /// A write by which a session may come into a principal's list.
    fn joining(
        &self,
        script: &Script,
        kind: Kind,
        keys: &[Vec<u8>],
        made_at: i64,
        join: Option<&Join>,
        args: &[&[u8]],
    ) -> Result<Outcome> {
        let list = join.map(|join| self.open.names().principal(join.principal)).filter(|_| !self.is_apart());
        if let Some(join) = join.filter(|_| self.is_apart()) {
            self.join(join)?;
        }
        let about = match join {
            Some(join) => {
                let member = names::member(&join.key, &join.private);
                self.about(join.principal, &member, join.private.indexed_deadline, true)
            }
            None => vec![Vec::new(); 5],
        };
        let keys: Vec<&[u8]> = keys.iter().chain(&list).map(Vec::as_slice).collect();
        let args: Vec<&[u8]> = about.iter().map(Vec::as_slice).chain(args.iter().copied()).collect();
        let (now, rest) = self.call(script, kind, &keys, made_at, &args)?;
        match (outcome(now, rest)?, join.filter(|_| self.is_apart())) {
            (Outcome::Done(last_seen, _), Some(join)) => Ok(Outcome::Done(last_seen, apart::end_surplus(self, join)?)),
            (outcome, _) => Ok(outcome),
        }
    }

    /// Runs a script on a session.
    fn session(
        &self,
        script: &Script,
        kind: Kind,
        key: &LookupKey,
        made_at: i64,
        args: &[&[u8]],
    ) -> Result<(i64, Vec<Reply>)> {
        self.call(script, kind, &[&self.open.names().session(key)], made_at, args)
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
        let by_hand = match self.cx.clock.is_manual() {
            false => Vec::new(),
            // A script cannot look for it on another server.
            true if self.is_apart() => text(self.cx.clock.now_ms()),
            true => self.open.names().clock(),
        };
        let common = [by_hand, text(timeouts.absolute), text(timeouts.idle), text(made_at)];
        let args: Vec<&[u8]> = common.iter().map(Vec::as_slice).chain(args.iter().copied()).collect();
        let mut items = self.open.servers.script(script, kind, keys, &args, self.until)?;
        let now = items.first().and_then(Reply::int).ok_or_else(nonsense)?;
        items.remove(0);
        Ok((now, items))
    }
}

fn outcome(now: i64, rest: Vec<Reply>) -> Result<Outcome> {
    let mut rest = rest.into_iter();
    let (outcome, what, ended) = (rest.next(), rest.next(), rest.next());
    match outcome.as_ref().and_then(Reply::bytes) {
        Some(b"done") => {
            let ended = ended.and_then(|ended| ended.int()).unwrap_or_default();
            Ok(Outcome::Done(what.and_then(|seen| seen.int()).unwrap_or(now), ended.unsigned_abs()))
        }
        Some(b"gone") => Ok(Outcome::Gone),
        Some(b"other" | b"taken") => Ok(Outcome::Other(what.and_then(Reply::into_bytes))),
        Some(b"late") => Ok(Outcome::Late),
        _ => Err(nonsense()),
    }
}

/// The first bytes of a record, by which the server knows it again. The last use is not one of them.
pub(super) fn first_bytes(record: &[u8]) -> Vec<u8> {
    let (before, after) = first_parts(record);
    [before, after].concat()
}

/// The same, what is before the last use and what is behind it.
pub(super) fn first_parts(record: &[u8]) -> (&[u8], &[u8]) {
    let header = &record[..record.len().min(HEAD)];
    (&header[..header.len().min(codec::LAST_SEEN)], header.get(LAST_SEEN_END..).unwrap_or_default())
}

/// The beginning of a record with these first bytes, and any last use.
pub(super) fn as_head(first_bytes: &[u8]) -> Vec<u8> {
    let (before, after) = first_bytes.split_at(first_bytes.len().min(codec::LAST_SEEN));
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
            format!("local SHORTEST = {}\n", codec::HEADER),
            format!("local LAST_SEEN = {}\n", codec::LAST_SEEN),
            format!("local IDLE = {}\n", codec::IDLE),
            format!("local KEY = {}\n", names::SPELLED),
        ] {
            assert!(script::CREATE.source.contains(&line), "{line}");
        }
    }

    #[test]
    fn the_last_use_is_not_among_the_first_bytes() {
        let record: Vec<u8> = (0..200).collect();
        let mut used = record.clone();
        used[codec::LAST_SEEN] = 99;
        assert_eq!(first_bytes(&record), first_bytes(&used));
        assert!(is_same(&record, &used));
        used[150] = 0;
        assert!(!is_same(&record, &used));
        let header = as_head(&first_bytes(&record));
        assert_eq!((header.len(), &header[..16], &header[24..]), (HEAD, &record[..16], &record[24..HEAD]));
    }
}
