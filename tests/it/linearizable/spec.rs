//! The contract as a state machine of one thread: what each call answers in each state, and what it
//! leaves. It must stay too simple to be wrong, and shares no code with the library. States are
//! compared and hashed, so what can make no difference any more is forgotten at once.

use crate::common::PlainMeta;
use std::collections::BTreeMap;

use super::history::{Answer, Call, Id, Op, Opts, Shown, UNKNOWN, Who, payload_len};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub timeout: i64,
    pub idle: i64,
    pub max_per_principal: usize,
    pub wide: Wide,
    /// Sessions whose reference is not known: in a list they are `UNKNOWN`.
    pub unreferenced: Vec<Id>,
}

/// What `revoke` and `list` promise about several sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    /// All of them at one moment.
    Atomic,
    /// The set of them at one moment, and each of them at a moment of its own, within the call.
    OneByOne,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub now: i64,
    pub living: BTreeMap<Id, Session>,
    /// Old ids in their grace time: what they stand for, and until when.
    pub aliases: BTreeMap<Id, (Id, i64)>,
    /// Calls that have begun to go through their sessions: whom they have still to visit, and how
    /// many they met.
    pub under_way: BTreeMap<usize, (Vec<Id>, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub value: u32,
    pub principal: Option<u8>,
    pub version: u64,
    /// The first id that it had: the same through all renewals.
    pub first: Id,
    created: i64,
    authenticated: Option<i64>,
    seen: i64,
    timeout: i64,
    idle: i64,
}

/// One step of a call.
pub struct Step {
    pub state: State,
    /// Whether the call is complete by it.
    pub completes: bool,
    /// Whether it can be taken at once: it is as possible now as ever, and rules out nothing for
    /// other calls.
    pub free: bool,
}

impl State {
    /// The steps that the operation, which is the `nth` of its history, can take here and still
    /// answer what it did.
    pub fn steps(&self, rules: &Rules, nth: usize, op: &Op) -> Vec<Step> {
        match (op.what, rules.wide) {
            (Call::Revoke { .. } | Call::List { .. }, Wide::OneByOne) => self.visits(rules, nth, op),
            _ => {
                let outcomes = self.outcomes(rules, op).into_iter().filter(|(answer, _)| *answer == op.answer);
                // A write that changes nothing here, because it is dead at once, might end others
                // elsewhere.
                let writes = matches!(op.answer, Answer::Made(..) | Answer::Wrote(_));
                let step = |(_, state)| Step { free: !writes && state == *self, state, completes: true };
                outcomes.map(step).collect()
            }
        }
    }

    /// What the call could answer here, and what it would leave. Several only where the contract
    /// leaves a choice.
    pub fn outcomes(&self, rules: &Rules, op: &Op) -> Vec<(Answer, State)> {
        let same = |answer| vec![(answer, self.clone())];
        let mut next = self.clone();
        let answer = match op.what {
            Call::Create { value, opts } => return self.write(rules, op, None, Some(value), &opts),
            Call::Put { id, version, value, opts } => {
                return match self.living.get(&id) {
                    None => same(Answer::NotFound),
                    Some(session) if version.is_some_and(|version| version != session.version) => {
                        same(Answer::Conflict)
                    }
                    Some(_) => self.write(rules, op, Some(id), Some(value), &opts),
                };
            }
            Call::Renew { id, value, opts } => {
                return match self.living.get(&id) {
                    None => same(Answer::NotFound),
                    Some(_) => self.write(rules, op, Some(id), value, &opts),
                };
            }
            Call::Get { id } => next.get(rules, id, true),
            Call::Peek { id } => next.get(rules, id, false),
            Call::Touch { id } => match next.living.get_mut(&id) {
                None => Answer::NotFound,
                Some(session) => {
                    session.seen = self.now;
                    Answer::Wrote(session.meta(rules))
                }
            },
            Call::Delete { id } | Call::DeleteRef { id } => match next.living.remove(&id) {
                None => Answer::NotFound,
                Some(_) => Answer::Done,
            },
            Call::Reference { id } => match self.resolve(id) {
                None => Answer::NotFound,
                Some((holder, _)) => Answer::Refers(rules.shown(holder)),
            },
            Call::Revoke { who, except } => {
                let ended = self.concerned(who, except);
                next.living.retain(|_, session| !ended.contains(&session.first));
                Answer::Revoked(ended.len() as u64)
            }
            Call::List { who } => {
                let shown = self.living.iter().filter(|(_, session)| session.principal == Some(who));
                Answer::Listed(sorted(shown.map(|(id, session)| session.shown(rules, *id)).collect()))
            }
            Call::Advance { ms } => {
                next.now += ms;
                Answer::Done
            }
            Call::Sweep { .. } => Answer::Done,
        };
        next.settle(rules);
        vec![(answer, next)]
    }

    /// Forgets what has ended.
    fn settle(&mut self, rules: &Rules) {
        let now = self.now;
        self.living.retain(|_, session| now < session.deadline(rules));
        self.aliases.retain(|_, (_, until)| now < *until);
        let idle: Vec<Id> = self.aliases.keys().copied().filter(|id| self.resolve(*id).is_none()).collect();
        idle.iter().for_each(|id| _ = self.aliases.remove(id));
    }

    /// The id under which the session is held that this id reads, and until when it does.
    fn resolve(&self, mut id: Id) -> Option<(Id, i64)> {
        let mut until = i64::MAX;
        while !self.living.contains_key(&id) {
            let alias = self.aliases.get(&id)?;
            (id, until) = (alias.0, until.min(alias.1));
        }
        Some((id, until))
    }

    fn get(&mut self, rules: &Rules, id: Id, slide: bool) -> Answer {
        let Some((holder, until)) = self.resolve(id) else { return Answer::NotFound };
        let Some(session) = self.living.get_mut(&holder) else { return Answer::NotFound };
        if slide && holder == id {
            session.seen = self.now;
        }
        let mut meta = session.meta(rules);
        meta.expires_ms = meta.expires_ms.min(until);
        Answer::Read(session.value, meta)
    }

    /// Whom a `revoke` ends, by their first ids.
    fn concerned(&self, who: u8, except: Option<Id>) -> Vec<Id> {
        let spared = except.and_then(|id| self.resolve(id)).map(|(id, _)| id);
        let of = self.living.iter().filter(|(id, session)| session.principal == Some(who) && Some(**id) != spared);
        of.map(|(_, session)| session.first).collect()
    }

    /// The common part of create (no `old`), put (`old` stays) and renew (`old` gets another id).
    fn write(&self, rules: &Rules, op: &Op, old: Option<Id>, value: Option<u32>, opts: &Opts) -> Vec<(Answer, State)> {
        let new = match (op.what, &op.answer) {
            (Call::Put { id, .. }, _) => id,
            (_, Answer::Made(id, _)) => *id,
            // It did not make one: no outcome will fit.
            _ => UNKNOWN,
        };
        let now = self.now;
        let blank = Session {
            value: 0,
            principal: None,
            version: 0,
            first: new,
            created: now,
            authenticated: None,
            seen: now,
            timeout: 0,
            idle: 0,
        };
        let mut session = old.map_or(blank, |id| self.living[&id].clone());
        session.seen = now;
        if let Some(value) = value {
            (session.value, session.version) = (value, session.version + 1);
        }
        session.timeout = if opts.timeout == 0 { session.timeout } else { opts.timeout };
        session.idle = if opts.idle == 0 { session.idle } else { opts.idle };
        session.principal = match opts.who {
            Who::Keep => session.principal,
            Who::Clear => None,
            Who::Set(who) => Some(who),
        };
        let principal_before = old.and_then(|id| self.living[&id].principal);
        if old != Some(new) && session.principal.is_some() && session.principal != principal_before {
            session.authenticated = Some(now);
        }
        let meta = session.meta(rules);
        let answer = if old == Some(new) { Answer::Wrote(meta) } else { Answer::Made(new, meta) };
        let mut next = self.clone();
        old.into_iter().for_each(|id| _ = next.living.remove(&id));
        let outcome = |mut state: State| {
            state.living.insert(new, session.clone());
            if let (Some(old), true) = (old, opts.grace > 0) {
                // Not past the absolute deadline that the session has now.
                let until = (now + opts.grace).min(session.absolute_deadline(rules));
                state.aliases.insert(old, (new, until));
            }
            state.settle(rules);
            (answer.clone(), state)
        };
        next.with_room_for(session.principal, rules.max_per_principal).into_iter().map(outcome).collect()
    }

    /// The states that are left when the least recently used sessions have made room for one more.
    /// Which of those used equally long ago go is open.
    fn with_room_for(self, principal: Option<u8>, most: usize) -> Vec<State> {
        let others = self.living.iter().filter(|(_, session)| session.principal == principal);
        let others: Vec<(i64, Id)> = others.map(|(id, session)| (session.seen, *id)).collect();
        let Some(longest_ago) = others.iter().min().map(|other| other.0) else { return vec![self] };
        if principal.is_none() || others.len() < most {
            return vec![self];
        }
        let without = |id: Id| {
            let mut state = self.clone();
            state.living.remove(&id);
            state.with_room_for(principal, most)
        };
        others.iter().filter(|(seen, _)| *seen == longest_ago).flat_map(|(_, id)| without(*id)).collect()
    }

    /// The steps of `revoke` and `list` one by one: first the set of their sessions, then each of
    /// these.
    fn visits(&self, rules: &Rules, nth: usize, op: &Op) -> Vec<Step> {
        let promised = match &op.answer {
            Answer::Revoked(count) => *count as usize,
            Answer::Listed(shown) => shown.len(),
            _ => return Vec::new(),
        };
        let Some((left, met)) = self.under_way.get(&nth) else {
            let left = match op.what {
                Call::Revoke { who, except } => self.concerned(who, except),
                Call::List { who } => self.concerned(who, None),
                _ => Vec::new(),
            };
            let mut state = self.clone();
            let (completes, possible) = (left.is_empty(), promised <= left.len());
            if !completes {
                state.under_way.insert(nth, (left, 0));
            }
            let begin = Step { state, completes, free: completes };
            return if possible { vec![begin] } else { Vec::new() };
        };
        let visit = |(i, first): (usize, &Id)| {
            let found = self.living.iter().find(|(_, session)| session.first == *first);
            let mut next = self.clone();
            let met = match (found, op.what, &op.answer) {
                (None, ..) => *met,
                (Some((id, _)), Call::Revoke { .. }, _) => {
                    next.living.remove(id);
                    met + 1
                }
                (Some((id, session)), _, Answer::Listed(shown)) => {
                    shown.contains(&session.shown(rules, *id)).then_some(met + 1)?
                }
                _ => return None,
            };
            let mut left = left.clone();
            left.remove(i);
            let completes = left.is_empty();
            if promised < met || promised > met + left.len() {
                return None;
            }
            next.under_way.remove(&nth);
            if !completes {
                next.under_way.insert(nth, (left, met));
            }
            next.settle(rules);
            // An ended session stays ended, and looking changes nothing.
            let free = found.is_none() || matches!(op.what, Call::List { .. });
            Some(Step { state: next, completes, free })
        };
        left.iter().enumerate().filter_map(visit).collect()
    }
}

impl Rules {
    fn shown(&self, id: Id) -> Id {
        if self.unreferenced.contains(&id) { UNKNOWN } else { id }
    }
}

impl Session {
    fn deadline(&self, rules: &Rules) -> i64 {
        self.absolute_deadline(rules).min(self.seen.saturating_add(self.idle_timeout(rules)))
    }

    fn absolute_deadline(&self, rules: &Rules) -> i64 {
        let start = self.authenticated.map_or(self.created, |at| at.max(self.created));
        start.saturating_add(self.absolute_timeout(rules))
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

    fn absolute_timeout(&self, rules: &Rules) -> i64 {
        if self.timeout == 0 { rules.timeout } else { self.timeout }
    }

    fn idle_timeout(&self, rules: &Rules) -> i64 {
        if self.idle == 0 { rules.idle } else { self.idle }
    }

    fn shown(&self, rules: &Rules, id: Id) -> Shown {
        Shown { id: rules.shown(id), len: payload_len(self.value) as u64, meta: self.meta(rules) }
    }
}

/// What `list` shows in an order that depends on nothing else.
pub fn sorted(mut shown: Vec<Shown>) -> Vec<Shown> {
    shown.sort_by_key(|s| (s.id, s.len, s.meta.version, s.meta.created_ms, s.meta.last_seen_ms, s.meta.expires_ms));
    shown
}
