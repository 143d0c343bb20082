//! Threads that make random calls on one store, and the record of what each call was answered when.
//! What is random is which calls are made: what the threads do to each other is up to the machine,
//! so a seed repeats only the first.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use sss::{Access, Error, ErrorKind, Meta, Options, Principal, Ref, Sid, Store};

use super::{
    faults::Fault,
    history::{Answer, Call, Id, NO_OPTS, Op, Opts, Shown, UNKNOWN, Who, payload, value_of},
    spec::{Rules, Wide, sorted},
};
use crate::common::{FOREVER, Gate, OptionsMs, PlainMeta, Rng, ToPlain};

pub const PRINCIPALS: [&[u8]; 2] = [b"alice", b"bob"];
const TIMEOUT_MS: i64 = 60;
const IDLE_TIMEOUT_MS: i64 = 15;

/// What a round is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub threads: usize,
    pub calls: usize,
    pub sealed: bool,
    pub limited: bool,
    pub wide: Wide,
    pub fault: Option<Fault>,
}

/// A store in use by several threads that note what they do.
pub struct World {
    pub store: Store,
    pub fault: Option<Fault>,
    /// What the clock showed at the beginning.
    opened_ms: i64,
    ticket: AtomicU64,
    minted: AtomicUsize,
    values: AtomicUsize,
    /// All session ids that were returned, for everybody to use, and their references.
    known: Mutex<Vec<Known>>,
    /// References in the order in which they were seen.
    references: Mutex<Vec<Ref>>,
}

#[derive(Clone)]
struct Known {
    id: Id,
    sid: Vec<u8>,
    reference: Option<Ref>,
}

pub struct Recorder<'a> {
    pub world: &'a World,
    pub rng: Rng,
    pub thread: usize,
    ops: Vec<Op>,
    /// The version of each session as this thread has last seen it.
    versions: HashMap<Id, u64>,
    /// What a faulty store answers from.
    pub remembered: HashMap<Id, Answer>,
}

/// Runs a round, and returns the rules and the record.
pub fn run(plan: &Plan) -> (Rules, Vec<Op>) {
    let world = World::new(plan);
    let mut main = Recorder::new(&world, plan.seed, 0);
    for who in [Who::Set(0), Who::Set(0), Who::Set(1), Who::Keep] {
        main.record(Call::Create { value: world.value(), opts: Opts { who, ..NO_OPTS } });
    }
    let gate = &Gate::new(plan.threads);
    let work = |thread| {
        let mut recorder = Recorder::new(&world, plan.seed, thread);
        gate.pass();
        (0..plan.calls).for_each(|_| recorder.step());
        recorder.ops
    };
    let others: Vec<Op> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=plan.threads).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    main.look_at_all();
    let mut ops = main.ops;
    ops.extend(others);
    world.name_references(&mut ops);
    (world.rules(plan), ops)
}

impl World {
    fn new(plan: &Plan) -> World {
        let seal = if plan.sealed { "&seal=on" } else { "" };
        let most = if plan.limited { "&max_per_principal=2" } else { "" };
        let (timeout, idle) = (TIMEOUT_MS, IDLE_TIMEOUT_MS);
        let url = format!("memory:?clock=manual&timeout={timeout}ms&idle_timeout={idle}ms{seal}{most}");
        let store = Store::open(&url).unwrap();
        // A session that is dead at once tells what time it is.
        let (_, meta) = store.create(b"", &Options::new().timeout_ms(-1)).unwrap();
        World {
            store,
            fault: plan.fault,
            opened_ms: meta.plain().created_ms,
            ticket: AtomicU64::new(0),
            minted: AtomicUsize::new(0),
            values: AtomicUsize::new(1),
            known: Mutex::default(),
            references: Mutex::default(),
        }
    }

    fn rules(&self, plan: &Plan) -> Rules {
        let known = self.known.lock().unwrap();
        let unreferenced = known.iter().filter(|known| known.reference.is_none()).map(|known| known.id);
        Rules {
            timeout: TIMEOUT_MS,
            idle: IDLE_TIMEOUT_MS,
            max_per_principal: if plan.limited { 2 } else { usize::MAX },
            wide: plan.wide,
            unreferenced: unreferenced.collect(),
        }
    }

    /// A payload that was never used.
    pub fn value(&self) -> u32 {
        self.values.fetch_add(1, SeqCst) as u32
    }

    /// Puts ids where the record has the numbers of references.
    fn name_references(&self, ops: &mut [Op]) {
        let known = self.known.lock().unwrap();
        let by_reference: HashMap<Ref, Id> = known.iter().filter_map(|k| Some((k.reference?, k.id))).collect();
        let references = self.references.lock().unwrap();
        let name = |id: &mut Id| *id = by_reference.get(&references[*id]).copied().unwrap_or(UNKNOWN);
        for op in ops {
            match &mut op.answer {
                Answer::Refers(id) => name(id),
                Answer::Listed(shown) => {
                    shown.iter_mut().for_each(|shown| name(&mut shown.id));
                    *shown = sorted(std::mem::take(shown));
                }
                _ => {}
            }
        }
    }

    fn seen(&self, reference: Ref) -> Id {
        let mut references = self.references.lock().unwrap();
        references.iter().position(|seen| *seen == reference).unwrap_or_else(|| {
            references.push(reference);
            references.len() - 1
        })
    }

    pub fn sid(&self, id: Id) -> Vec<u8> {
        self.find(id).map_or_else(|| b"no id at all".to_vec(), |known| known.sid)
    }

    fn find(&self, id: Id) -> Option<Known> {
        self.known.lock().unwrap().iter().find(|known| known.id == id).cloned()
    }

    fn relative(&self, meta: Meta) -> PlainMeta {
        let meta = meta.plain();
        let since = |ms: i64| if ms == FOREVER { ms } else { ms - self.opened_ms };
        PlainMeta {
            created_ms: since(meta.created_ms),
            last_seen_ms: since(meta.last_seen_ms),
            expires_ms: since(meta.expires_ms),
            authenticated_ms: meta.authenticated_ms.map(since),
            ..meta
        }
    }
}

impl<'a> Recorder<'a> {
    fn new(world: &'a World, seed: u64, thread: usize) -> Recorder<'a> {
        let rng = Rng(Rng(seed.wrapping_mul(64).wrapping_add(thread as u64)).next());
        Recorder { world, rng, thread, ops: Vec::new(), versions: HashMap::new(), remembered: HashMap::new() }
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0 => thread::yield_now(),
            1..4 => (0..self.rng.below(300)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
        let call = self.choose();
        self.record(call);
    }

    fn choose(&mut self) -> Call {
        let (id, value) = (self.some_id(), self.world.value());
        let who = if self.rng.one_in(4) { 1 } else { 0 };
        match self.rng.below(100) {
            0..11 => Call::Create { value, opts: self.opts(false) },
            11..24 => Call::Get { id },
            24..33 => Call::Peek { id },
            33..46 => Call::Put { id, version: None, value, opts: self.opts(false) },
            46..59 => {
                let seen = self.versions.get(&id).copied().unwrap_or(1);
                let version = Some(if self.rng.one_in(8) { seen + 1 } else { seen });
                Call::Put { id, version, value, opts: self.opts(false) }
            }
            59..65 => Call::Touch { id },
            65..75 => Call::Renew { id, value: self.rng.one_in(2).then_some(value), opts: self.opts(true) },
            75..79 => Call::Delete { id },
            79..82 => Call::DeleteRef { id },
            82..84 => Call::Reference { id },
            84..88 => Call::Revoke { who, except: self.rng.one_in(2).then_some(id) },
            88..93 => Call::List { who },
            93..98 => Call::Advance { ms: self.rng.below(7) as i64 },
            _ => Call::Sweep { max: [1, 2, u64::MAX][self.rng.below(3)] },
        }
    }

    /// Mostly one that was made not long ago.
    fn some_id(&mut self) -> Id {
        let known = self.world.known.lock().unwrap();
        let recent = if self.rng.one_in(10) { known.len() } else { known.len().min(6) };
        known.get(known.len() - 1 - self.rng.below(recent.max(1))).map_or(0, |known| known.id)
    }

    fn opts(&mut self, renew: bool) -> Opts {
        let who = match self.rng.below(16) {
            0 if renew => Who::Clear,
            0..4 => Who::Set(0),
            4 => Who::Set(1),
            _ => Who::Keep,
        };
        let (timeout, idle) = match self.rng.below(40) {
            0 => (-1, 0),
            1 => (0, FOREVER),
            2..5 => (0, 1 + self.rng.below(10) as i64),
            5 => (1 + self.rng.below(20) as i64, 0),
            _ => (0, 0),
        };
        // A login takes no grace time.
        let may_have_grace = renew && !matches!(who, Who::Set(_));
        let grace = if may_have_grace && self.rng.one_in(2) { 1 + self.rng.below(12) as i64 } else { 0 };
        Opts { timeout, idle, who, grace }
    }

    /// Makes the call and notes it.
    pub fn record(&mut self, what: Call) {
        let call = self.world.ticket.fetch_add(1, SeqCst);
        let (answer, made) = self.faulty(&what).unwrap_or_else(|| self.perform(&what));
        let ret = self.world.ticket.fetch_add(1, SeqCst);
        match (&answer, what) {
            (Answer::Made(id, meta), _) => _ = self.versions.insert(*id, meta.version),
            (Answer::Wrote(meta), Call::Put { id, .. }) => _ = self.versions.insert(id, meta.version),
            (Answer::Read(_, meta), Call::Get { id } | Call::Peek { id }) => {
                self.versions.insert(id, meta.version);
                self.remembered.insert(id, answer.clone());
            }
            _ => {}
        }
        self.ops.push(Op { thread: self.thread, call, ret, what, answer: answer.clone() });
        if let (Answer::Made(id, _), Some(sid)) = (answer, made) {
            self.publish(id, sid);
        }
    }

    /// Lets everybody know a new id, and its reference if it still has one.
    fn publish(&mut self, id: Id, sid: Sid) {
        let call = self.world.ticket.fetch_add(1, SeqCst);
        let reference = self.world.store.reference(&sid);
        let ret = self.world.ticket.fetch_add(1, SeqCst);
        let answer = or_failure(&reference, |reference| Answer::Refers(self.world.seen(*reference)));
        self.ops.push(Op { thread: self.thread, call, ret, what: Call::Reference { id }, answer });
        let known = Known { id, sid: sid.as_ref().to_vec(), reference: reference.ok() };
        self.world.known.lock().unwrap().push(known);
    }

    /// What the store answers, and the id that it gave.
    pub fn perform(&mut self, what: &Call) -> (Answer, Option<Sid>) {
        let (world, store) = (self.world, &self.world.store);
        let wrote = |result: Result<Meta, Error>| or_failure(&result, |meta| Answer::Wrote(world.relative(*meta)));
        let done = |result: Result<(), Error>| or_failure(&result, |()| Answer::Done);
        let made = |result: Result<(Sid, Meta), Error>| {
            let answer =
                or_failure(&result, |(_, meta)| Answer::Made(world.minted.fetch_add(1, SeqCst), world.relative(*meta)));
            (answer, result.ok().map(|(sid, _)| sid))
        };
        let answer = match *what {
            Call::Create { value, opts } => return made(store.create(&payload(value), &options(&opts))),
            Call::Renew { id, value, opts } => {
                let value = value.map(payload);
                return made(store.renew(world.sid(id), value.as_deref(), &options(&opts)));
            }
            Call::Get { id } => self.read(id, Access::Slide),
            Call::Peek { id } => self.read(id, Access::Peek),
            Call::Put { id, version: None, value, opts } => {
                wrote(store.put(world.sid(id), &payload(value), &options(&opts)))
            }
            Call::Put { id, version: Some(version), value, opts } => {
                wrote(store.put_if(world.sid(id), version, &payload(value), &options(&opts)))
            }
            Call::Touch { id } => wrote(store.touch(world.sid(id))),
            Call::Delete { id } => done(store.delete(world.sid(id))),
            Call::DeleteRef { id } => match world.find(id).and_then(|known| known.reference) {
                Some(reference) => done(store.delete_ref(&reference, None)),
                None => Answer::NotFound,
            },
            Call::Reference { id } => {
                or_failure(&store.reference(world.sid(id)), |reference| Answer::Refers(world.seen(*reference)))
            }
            Call::Revoke { who, except } => {
                let except = except.map(|id| world.sid(id));
                let result = store.revoke(PRINCIPALS[who as usize], except.as_deref());
                or_failure(&result, |count| Answer::Revoked(*count))
            }
            Call::List { who } => or_failure(&store.list(PRINCIPALS[who as usize]), |entries| {
                let shown = |entry: &sss::Entry| Shown {
                    id: world.seen(entry.reference),
                    len: entry.payload_len,
                    meta: world.relative(entry.meta),
                };
                Answer::Listed(entries.iter().map(shown).collect())
            }),
            Call::Advance { ms } => done(store.advance_clock(ms)),
            // How many it removes is open: creates clear expired ones too.
            Call::Sweep { max } => or_failure(&store.sweep(max), |_| Answer::Done),
        };
        (answer, None)
    }

    /// Sometimes slow while the store lends the payload, so that others pile up behind it.
    fn read(&mut self, id: Id, access: Access) -> Answer {
        let (slow, spins) = (self.rng.below(6), self.rng.below(2000));
        let result = self.world.store.read::<_, Error>(self.world.sid(id), access, |bytes, meta| {
            match slow {
                0 => thread::yield_now(),
                1 => (0..spins).for_each(|_| std::hint::spin_loop()),
                _ => {}
            }
            Ok((value_of(bytes), *meta))
        });
        or_failure(&result, |(value, meta)| match value {
            Some(value) => Answer::Read(*value, self.world.relative(*meta)),
            None => Answer::Odd("a torn payload".to_owned()),
        })
    }

    /// When all threads are done: every session by each of its ids, all lists, and the accounts.
    fn look_at_all(&mut self) {
        self.record(Call::Sweep { max: u64::MAX });
        (0..PRINCIPALS.len()).for_each(|who| self.record(Call::List { who: who as u8 }));
        let known = self.world.known.lock().unwrap().clone();
        for Known { id, .. } in &known {
            self.record(Call::Peek { id: *id });
            self.record(Call::Reference { id: *id });
        }
        let store = &self.world.store;
        let living = known.iter().filter(|k| k.reference.is_some() && store.reference(&k.sid).ok() == k.reference);
        let sizes: Vec<usize> = living.map(|k| store.get(&k.sid, Access::Peek).unwrap().0.len()).collect();
        let (stats, bytes) = (store.stats().unwrap(), sizes.iter().sum::<usize>() as u64);
        assert_eq!(
            (stats.sessions, stats.bytes, stats.errors),
            (sizes.len() as u64, bytes, 0),
            "the accounts: {stats:?}"
        );
        let ended = stats.deleted + stats.revoked + stats.expired;
        assert_eq!(stats.created, ended + stats.sessions, "as many began as ended and are left: {stats:?}");
    }
}

fn options(opts: &Opts) -> Options<'static> {
    let principal = match opts.who {
        Who::Keep => Principal::Keep,
        Who::Clear => Principal::Clear,
        Who::Set(who) => Principal::Set(PRINCIPALS[who as usize]),
    };
    Options::new().timeout_ms(opts.timeout).idle_timeout_ms(opts.idle).with_principal(principal).grace_ms(opts.grace)
}

fn or_failure<T>(result: &Result<T, Error>, answer: impl FnOnce(&T) -> Answer) -> Answer {
    match result {
        Ok(value) => answer(value),
        Err(error) if error.kind() == ErrorKind::NotFound => Answer::NotFound,
        Err(error) if error.kind() == ErrorKind::Conflict => Answer::Conflict,
        Err(error) => Answer::Odd(error.to_string()),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SSS_LINEARIZABLE_SEED={} repeats its calls, if not their timing: {self:?}", self.seed)
    }
}
