//! The contract as plain code over ordered maps: what a store of one thread must answer. It must
//! stay too simple to be wrong, so it knows nothing of shards, hashes, locks or lazy clearing, and
//! shares no code with the library.

use crate::common::{FOREVER, INHERIT, PlainMeta};
use std::collections::BTreeMap;

use sss::{ErrorKind, Stats};

/// Names a session id: the position in the list of all ids ever minted.
pub type Id = usize;
type Answer<T> = Result<T, ErrorKind>;
/// A session in a list: with the length of its payload and its label.
pub type Shown = (Id, PlainMeta, usize, Option<&'static str>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Who {
    Keep,
    Clear,
    Set(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Opts {
    pub timeout: i64,
    pub idle: i64,
    pub who: Who,
    /// With a principal only; empty removes it.
    pub label: Option<&'static str>,
    pub grace: i64,
    pub reauthenticated: bool,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub payload: Vec<u8>,
    pub principal: Option<&'static str>,
    pub label: Option<&'static str>,
    pub version: u64,
    created: i64,
    authenticated: Option<i64>,
    seen: i64,
    timeout: i64,
    idle: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub timeout: i64,
    pub idle: i64,
    pub max_payload: usize,
    pub max_sessions: usize,
    pub max_bytes: usize,
    pub max_per_principal: usize,
}

pub struct Model {
    pub rules: Rules,
    pub now: i64,
    pub living: BTreeMap<Id, Session>,
    /// Old ids in their grace time: what they stand for, and until when.
    pub aliases: BTreeMap<Id, (Id, i64)>,
    /// Expired sessions that the store may still hold: at most so many, of so many bytes together.
    pub dead: (u64, u64),
    /// All counters but `sessions`, `bytes` and `expired`.
    pub counts: Stats,
}

impl Model {
    pub fn new(rules: Rules, now: i64) -> Model {
        let (living, aliases) = (BTreeMap::new(), BTreeMap::new());
        Model { rules, now, living, aliases, dead: (0, 0), counts: Stats::default() }
    }

    /// Buries what has expired. To be called whenever the clock, a rule or a session has changed.
    pub fn settle(&mut self) {
        let (now, rules) = (self.now, self.rules);
        for (_, session) in self.living.extract_if(.., |_, session| now >= session.deadline(&rules)) {
            self.dead.0 += 1;
            self.dead.1 += session.payload.len() as u64;
        }
        self.aliases.retain(|_, (_, until)| now < *until);
        // One that stands for nothing never will again.
        let idle: Vec<Id> = self.aliases.keys().copied().filter(|id| self.resolve(*id).is_err()).collect();
        idle.iter().for_each(|id| _ = self.aliases.remove(id));
    }

    pub fn bytes(&self) -> u64 {
        self.living.values().map(|session| session.payload.len() as u64).sum()
    }

    /// The session that an id reads, and until when it does.
    pub fn resolve(&self, mut id: Id) -> Answer<(Id, i64)> {
        let mut until = FOREVER;
        while !self.living.contains_key(&id) {
            let alias = self.aliases.get(&id).ok_or(ErrorKind::NotFound)?;
            (id, until) = (alias.0, until.min(alias.1));
        }
        Ok((id, until))
    }

    pub fn get(&mut self, id: Id, slide: bool) -> Answer<(Vec<u8>, PlainMeta)> {
        let Ok((holder, until)) = self.resolve(id) else {
            self.counts.misses += 1;
            return Err(ErrorKind::NotFound);
        };
        self.counts.hits += 1;
        let (now, rules) = (self.now, self.rules);
        let session = self.living.get_mut(&holder).unwrap();
        if slide && holder == id {
            session.seen = now;
        }
        let mut meta = session.meta(&rules);
        meta.expires_ms = meta.expires_ms.min(until);
        Ok((session.payload.clone(), meta))
    }

    pub fn touch(&mut self, id: Id, slide: bool) -> Answer<PlainMeta> {
        let (now, rules) = (self.now, self.rules);
        let session = self.living.get_mut(&id).ok_or(ErrorKind::NotFound)?;
        session.seen = if slide { now } else { session.seen };
        Ok(session.meta(&rules))
    }

    pub fn delete(&mut self, id: Id) -> Answer<()> {
        self.delete_of(id, None)
    }

    /// With a principal, only a session of that principal.
    pub fn delete_of(&mut self, id: Id, principal: Option<&str>) -> Answer<()> {
        if principal == Some("") {
            return Err(ErrorKind::Invalid);
        }
        let session = self.living.get(&id).ok_or(ErrorKind::NotFound)?;
        if principal.is_some() && session.principal != principal {
            return Err(ErrorKind::NotFound);
        }
        self.living.remove(&id);
        self.counts.deleted += 1;
        Ok(())
    }

    pub fn create(&mut self, id: Id, payload: &[u8], opts: &Opts, gone: &dyn Fn(Id) -> bool) -> Answer<PlainMeta> {
        let wrong = opts.who == Who::Clear || opts.grace != 0 || opts.reauthenticated;
        self.check(Some(payload), opts, wrong)?;
        let meta = self.write(None, id, Some(payload), opts, gone)?;
        self.counts.created += 1;
        Ok(meta)
    }

    pub fn put(
        &mut self,
        id: Id,
        version: Option<u64>,
        payload: &[u8],
        opts: &Opts,
        gone: &dyn Fn(Id) -> bool,
    ) -> Answer<PlainMeta> {
        self.check(Some(payload), opts, opts.grace != 0 || opts.reauthenticated)?;
        let session = self.living.get(&id).ok_or(ErrorKind::NotFound)?;
        if version.is_some_and(|version| version != session.version) {
            self.counts.conflicts += 1;
            return Err(ErrorKind::Conflict);
        }
        let meta = self.write(Some(id), id, Some(payload), opts, gone)?;
        self.counts.puts += 1;
        Ok(meta)
    }

    pub fn renew(
        &mut self,
        id: Id,
        new: Id,
        payload: Option<&[u8]>,
        opts: &Opts,
        gone: &dyn Fn(Id) -> bool,
    ) -> Answer<PlainMeta> {
        self.check(payload, opts, opts.reauthenticated && (opts.grace != 0 || opts.who == Who::Clear))?;
        let session = self.living.get(&id).ok_or(ErrorKind::NotFound)?;
        let logs_in = matches!(opts.who, Who::Set(who) if session.principal != Some(who));
        if opts.grace > 0 && logs_in {
            return Err(ErrorKind::Invalid);
        }
        let meta = self.write(Some(id), new, payload, opts, gone)?;
        if opts.grace > 0 {
            // Not past the absolute deadline that the session has now.
            let end = self.living.get(&new).map_or(self.now, |session| session.absolute_deadline(&self.rules));
            self.aliases.insert(id, (new, self.now.saturating_add(opts.grace).min(end)));
        }
        self.counts.renewed += 1;
        Ok(meta)
    }

    /// The living sessions of a principal, oldest first; equally old ones in any order.
    pub fn list(&self, principal: &str) -> Answer<Vec<Shown>> {
        if principal.is_empty() {
            return Err(ErrorKind::Invalid);
        }
        let mut list: Vec<_> =
            self.of(principal).map(|(id, s)| (id, s.meta(&self.rules), s.payload.len(), s.label)).collect();
        list.sort_by_key(|(_, meta, ..)| meta.created_ms);
        Ok(list)
    }

    pub fn revoke(&mut self, principal: &str, except: Option<Id>) -> Answer<u64> {
        if principal.is_empty() {
            return Err(ErrorKind::Invalid);
        }
        let spared = except.and_then(|id| self.resolve(id).ok()).map(|(id, _)| id);
        let ended: Vec<Id> = self.of(principal).map(|(id, _)| id).filter(|id| Some(*id) != spared).collect();
        ended.iter().for_each(|id| drop(self.living.remove(id)));
        self.counts.revoked += ended.len() as u64;
        Ok(ended.len() as u64)
    }

    pub fn revoke_all(&mut self) -> u64 {
        let ended = self.living.len() as u64;
        self.living.clear();
        self.counts.revoked += ended;
        ended
    }

    fn of(&self, principal: &str) -> impl Iterator<Item = (Id, &Session)> {
        self.living.iter().filter(move |(_, s)| s.principal == Some(principal)).map(|(id, s)| (*id, s))
    }

    /// Wrong arguments, whatever the session.
    fn check(&mut self, payload: Option<&[u8]>, opts: &Opts, wrong: bool) -> Answer<()> {
        if payload.is_some_and(|payload| payload.len() > self.rules.max_payload) {
            self.counts.rejected += 1;
            return Err(ErrorKind::TooLarge);
        }
        let bad_label = opts.label.is_some_and(|label| label.len() > 255 || !matches!(opts.who, Who::Set(_)));
        if wrong || bad_label || opts.who == Who::Set("") { Err(ErrorKind::Invalid) } else { Ok(()) }
    }

    /// The common part of create (`old` is `None`), put (`old` is `new`) and renew.
    fn write(
        &mut self,
        old: Option<Id>,
        new: Id,
        payload: Option<&[u8]>,
        opts: &Opts,
        gone: &dyn Fn(Id) -> bool,
    ) -> Answer<PlainMeta> {
        let blank = Session {
            payload: Vec::new(),
            principal: None,
            label: None,
            version: 0,
            created: self.now,
            authenticated: None,
            seen: self.now,
            timeout: 0,
            idle: 0,
        };
        let before = match old {
            Some(id) => self.living.get(&id).cloned().ok_or(ErrorKind::NotFound)?,
            None => blank,
        };
        let mut after = Session { seen: self.now, ..before.clone() };
        if let Some(payload) = payload {
            after.payload = payload.to_vec();
            after.version += 1;
        }
        for (own, given) in [(&mut after.timeout, opts.timeout), (&mut after.idle, opts.idle)] {
            *own = match given {
                0 => *own,
                INHERIT => 0,
                given => given,
            };
        }
        match opts.who {
            Who::Keep => {}
            Who::Clear => after.principal = None,
            Who::Set(principal) => after.principal = Some(principal),
        }

        // Another principal by a put is no login.
        let logs_in = old != Some(new) && after.principal.is_some() && after.principal != before.principal;
        if logs_in || opts.reauthenticated {
            after.authenticated = Some(self.now);
        }
        if after.principal != before.principal {
            after.label = None;
        }
        if let Some(label) = opts.label {
            after.label = Some(label).filter(|label| !label.is_empty());
        }

        let (surplus, tied, of_tied) = self.surplus(after.principal, old);
        let ends = (surplus.len() + of_tied) as u64;
        let ended_bytes: usize = surplus.iter().map(|id| self.living[id].payload.len()).sum();
        let too_many = old.is_none() && ends == 0 && self.living.len() + 1 > self.rules.max_sessions;
        // What does not grow always fits.
        let grows = after.payload.len() > before.payload.len() + ended_bytes;
        let bytes = self.bytes() as usize - before.payload.len() - ended_bytes + after.payload.len();
        if too_many || grows && bytes > self.rules.max_bytes {
            self.counts.rejected += 1;
            return Err(ErrorKind::Full);
        }

        surplus.iter().for_each(|id| drop(self.living.remove(id)));
        let chosen: Vec<Id> = tied.into_iter().filter(|id| gone(*id)).collect();
        assert_eq!(chosen.len(), of_tied, "so many of the least recently used sessions end");
        chosen.iter().for_each(|id| drop(self.living.remove(id)));
        self.counts.revoked += ends;
        old.into_iter().for_each(|id| drop(self.living.remove(&id)));
        let meta = after.meta(&self.rules);
        self.living.insert(new, after);
        Ok(meta)
    }

    /// Who ends so that one more session of a principal fits: those who certainly do, those who
    /// were used equally long ago, and how many of these.
    fn surplus(&self, principal: Option<&str>, old: Option<Id>) -> (Vec<Id>, Vec<Id>, usize) {
        let Some(principal) = principal else { return Default::default() };
        let mut others: Vec<(i64, Id)> =
            self.of(principal).filter(|(id, _)| Some(*id) != old).map(|(id, session)| (session.seen, id)).collect();
        others.sort_unstable();
        let ends = (others.len() + 1).saturating_sub(self.rules.max_per_principal);
        let Some(&(last, _)) = ends.checked_sub(1).and_then(|i| others.get(i)) else { return Default::default() };
        let certain: Vec<Id> = others.iter().filter(|(seen, _)| *seen < last).map(|(_, id)| *id).collect();
        let tied: Vec<Id> = others.iter().filter(|(seen, _)| *seen == last).map(|(_, id)| *id).collect();
        let of_tied = ends - certain.len();
        if tied.len() == of_tied { ([certain, tied].concat(), Vec::new(), 0) } else { (certain, tied, of_tied) }
    }
}

impl Session {
    pub fn deadline(&self, rules: &Rules) -> i64 {
        self.absolute_deadline(rules).min(sum(self.seen, self.idle_timeout(rules)))
    }

    fn absolute_deadline(&self, rules: &Rules) -> i64 {
        sum(self.authenticated.map_or(self.created, |at| at.max(self.created)), self.absolute_timeout(rules))
    }

    fn absolute_timeout(&self, rules: &Rules) -> i64 {
        if self.timeout == 0 { rules.timeout } else { self.timeout }
    }

    fn idle_timeout(&self, rules: &Rules) -> i64 {
        if self.idle == 0 { rules.idle } else { self.idle }
    }

    fn meta(&self, rules: &Rules) -> PlainMeta {
        PlainMeta {
            version: self.version,
            created_ms: self.created,
            last_seen_ms: self.seen,
            expires_ms: self.deadline(rules),
            authenticated_ms: self.authenticated,
            timeout_ms: self.absolute_timeout(rules).max(0),
            idle_timeout_ms: self.idle_timeout(rules).max(0),
        }
    }
}

fn sum(time: i64, timeout: i64) -> i64 {
    (i128::from(time) + i128::from(timeout)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
