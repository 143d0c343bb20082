//! Random histories of one thread, run on a store and on a plain reference model at once; every
//! answer is compared, with its metadata, and so are lists, references and counters. What threads
//! do to each other is in races.rs.
//!
//! A failure prints the seed. SSS_MODEL_SEED repeats it or starts elsewhere, SSS_MODEL_STEPS makes
//! the runs longer.

mod generators;
mod reference;

use std::collections::{HashMap, VecDeque};

use crate::common::{FOREVER, OptionsMs, PlainMeta, Rng, ToPlain, from_env, unique_name};
use reference::{Id, Model, Opts, Rules, Who};
use sss::{Access, Error, ErrorKind, Options, Principal, Ref, Store};

const NO_LIMIT: usize = 1 << 60;

#[test]
fn model_agrees_without_limits() {
    let rules = Rules { max_sessions: NO_LIMIT, max_bytes: NO_LIMIT, max_per_principal: NO_LIMIT, ..ordinary() };
    run(rules, false, 100_000);
}

#[test]
fn model_agrees_at_max_sessions() {
    run(Rules { max_sessions: 12, max_bytes: NO_LIMIT, max_per_principal: NO_LIMIT, ..ordinary() }, false, 100_000);
}

#[test]
fn model_agrees_at_max_bytes() {
    run(Rules { max_sessions: NO_LIMIT, max_bytes: 300, max_per_principal: NO_LIMIT, ..ordinary() }, false, 100_000);
}

#[test]
fn model_agrees_at_max_per_principal() {
    run(Rules { max_sessions: NO_LIMIT, max_bytes: NO_LIMIT, max_per_principal: 3, ..ordinary() }, false, 100_000);
}

/// The clock moves at every step here, so that there is always exactly one least recently used
/// session.
#[test]
fn model_agrees_at_all_limits() {
    run(Rules { max_sessions: 10, max_bytes: 250, max_per_principal: 2, ..ordinary() }, true, 100_000);
}

#[test]
fn model_agrees_without_expiry() {
    let rules = Rules { timeout: FOREVER, idle: FOREVER, max_sessions: 30, max_bytes: 900, ..ordinary() };
    run(Rules { max_per_principal: 1, ..rules }, true, 100_000);
}

/// Sealing changes nothing that can be seen, not even a size.
#[test]
fn model_agrees_when_sealed() {
    let rules = Rules { max_sessions: 10, max_bytes: 250, max_per_principal: 2, ..ordinary() };
    run_with("&seal=on", rules, true, 30_000);
}

fn ordinary() -> Rules {
    Rules { timeout: 10_000, idle: 3_000, max_payload: 60, max_sessions: 0, max_bytes: 0, max_per_principal: 0 }
}

fn run(rules: Rules, ticks: bool, steps: u64) {
    run_with("", rules, ticks, steps);
}

fn run_with(option: &str, rules: Rules, ticks: bool, steps: u64) {
    let seed = from_env("SSS_MODEL_SEED", 1);
    let steps = from_env("SSS_MODEL_STEPS", steps);
    let mut pair = Pair::new(option, rules, seed, ticks);
    for _ in 0..steps {
        pair.step();
        pair.compare_counts();
    }
    pair.compare_everything();
}

/// The store and the model, side by side.
struct Pair {
    rng: Rng,
    seed: u64,
    name: String,
    store: Store,
    model: Model,
    ticks: bool,
    /// Every id that was ever minted.
    sids: Vec<Vec<u8>>,
    refs: HashMap<Id, Ref>,
    /// The last steps, for the message of a failure.
    log: VecDeque<String>,
    steps: u64,
    read_by_old_id: u64,
}

impl Pair {
    fn new(option: &str, rules: Rules, seed: u64, ticks: bool) -> Pair {
        let name = unique_name();
        let limit = |n: usize| if n == NO_LIMIT { "infinity".to_owned() } else { n.to_string() };
        let time = |ms: i64| if ms == FOREVER { "infinity".to_owned() } else { format!("{ms}ms") };
        let store = Store::open(&format!(
            "memory:{name}?clock=manual&timeout={}&idle_timeout={}&max_payload={}&max_sessions={}&max_bytes={}&max_per_principal={}{option}",
            time(rules.timeout),
            time(rules.idle),
            rules.max_payload,
            limit(rules.max_sessions),
            limit(rules.max_bytes),
            limit(rules.max_per_principal),
        ))
        .unwrap();
        // A session that is dead at once tells what time it is.
        let (_, meta) = store.create(b"", &Options::new().timeout_ms(-1)).unwrap();
        let mut model = Model::new(rules, meta.plain().created_ms);
        model.counts.created = 1;
        model.dead.0 = 1;
        let (sids, refs, log) = (vec![b"no id at all".to_vec(), vec![b'A'; 128]], HashMap::new(), VecDeque::new());
        Pair { rng: Rng(seed), seed, name, store, model, ticks, sids, refs, log, steps: 0, read_by_old_id: 0 }
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.ticks {
            self.advance(1);
        }
        self.model.settle();
        match self.rng.below(100) {
            0..15 => self.create(),
            15..35 => self.get(),
            35..50 => self.put(),
            50..54 => self.touch(),
            54..57 => self.touch_ref(),
            57..68 => self.renew(),
            68..72 => self.delete(),
            72..74 => self.delete_ref(),
            74..78 => self.list(),
            78..80 if self.rng.one_in(30) => self.revoke_all(),
            78..80 => self.revoke(),
            80..85 => self.reference(),
            85..88 => self.sweep(),
            88..99 => self.let_time_pass(),
            _ => self.reopen(),
        }
        self.model.settle();
    }

    fn create(&mut self) {
        let opts = self.opts(false);
        let payload = self.payload(&opts);
        self.note(|| format!("create {} bytes {opts:?}", payload.len()));
        let got = self.store.create(&payload, &options(&opts));
        let new = self.sids.len();
        let want = self.model.create(new, &payload, &opts, &is_gone(&self.store, &self.sids));
        let got = got.map(|(sid, meta)| (sid.as_ref().to_vec(), meta.plain()));
        self.minted(new, got, want);
    }

    fn get(&mut self) {
        let (id, slide) = (self.id(), self.rng.one_in(2));
        self.note(|| format!("get {id} slide={slide}"));
        let got = self.store.get(&self.sids[id], if slide { Access::Slide } else { Access::Peek });
        let got = got.map(|(payload, meta)| (payload, meta.plain()));
        let want = self.model.get(id, slide);
        self.read_by_old_id += u64::from(want.is_ok() && !self.model.living.contains_key(&id));
        self.compare(got, want);
    }

    fn put(&mut self) {
        let (id, opts) = (self.id(), self.opts(false));
        let payload = self.payload(&opts);
        let current = self.model.living.get(&id).map_or(1, |session| session.version);
        let version =
            self.rng.one_in(2).then(|| self.rng.pick(&[current, current, current, current + 1, current - 1, 0]));
        self.note(|| format!("put {id} version={version:?} {} bytes {opts:?}", payload.len()));
        let got = match version {
            Some(version) => self.store.put_if(&self.sids[id], version, &payload, &options(&opts)),
            None => self.store.put(&self.sids[id], &payload, &options(&opts)),
        };
        let got = got.map(|meta| meta.plain());
        let want = self.model.put(id, version, &payload, &opts, &is_gone(&self.store, &self.sids));
        self.compare(got, want);
    }

    fn touch(&mut self) {
        let id = self.id();
        self.note(|| format!("touch {id}"));
        let got = self.store.touch(&self.sids[id]).map(|meta| meta.plain());
        let want = self.model.touch(id, true);
        self.compare(got, want);
    }

    fn touch_ref(&mut self) {
        let (id, slide) = (self.id(), self.rng.one_in(2));
        let Some(reference) = self.refs.get(&id).copied() else { return };
        self.note(|| format!("touch_ref {id} slide={slide}"));
        let got = self.store.touch_ref(&reference, if slide { Access::Slide } else { Access::Peek });
        let want = self.model.touch(id, slide);
        self.compare(got.map(|meta| meta.plain()), want);
    }

    fn renew(&mut self) {
        let (id, opts) = (self.id(), self.opts(true));
        let payload = self.rng.one_in(2).then(|| self.payload(&opts));
        self.note(|| format!("renew {id} {:?} bytes {opts:?}", payload.as_ref().map(Vec::len)));
        let got = self.store.renew(&self.sids[id], payload.as_deref(), &options(&opts));
        let new = self.sids.len();
        let want = self.model.renew(id, new, payload.as_deref(), &opts, &is_gone(&self.store, &self.sids));
        let got = got.map(|(sid, meta)| (sid.as_ref().to_vec(), meta.plain()));
        self.minted(new, got, want);
    }

    fn delete(&mut self) {
        let id = self.id();
        self.note(|| format!("delete {id}"));
        let (got, want) = (self.store.delete(&self.sids[id]), self.model.delete(id));
        self.compare(got, want);
    }

    fn delete_ref(&mut self) {
        let id = self.id();
        let Some(reference) = self.refs.get(&id).copied() else { return };
        let principal = self.rng.one_in(2).then(|| self.principal());
        self.note(|| format!("delete_ref {id} {principal:?}"));
        let got = self.store.delete_ref(&reference, principal.map(str::as_bytes));
        let want = self.model.delete_of(id, principal);
        self.compare(got, want);
    }

    fn list(&mut self) {
        let principal = self.principal();
        self.note(|| format!("list {principal:?}"));
        let got = self.store.list(principal.as_bytes()).map(|entries| {
            let ordered = entries.is_sorted_by_key(|entry| entry.meta.created());
            let mut entries: Vec<_> =
                entries.into_iter().map(|e| (e.reference, e.meta.plain(), e.payload_len as usize, e.label)).collect();
            entries.sort_by_key(|(reference, meta, ..)| (meta.created_ms, *reference));
            (ordered, entries)
        });
        let want = self.model.list(principal).map(|list| {
            let shown = |(id, meta, len, label): (Id, PlainMeta, usize, Option<&str>)| {
                (self.refs[&id], meta, len, label.map(|label| label.as_bytes().to_vec()))
            };
            let mut list: Vec<_> = list.into_iter().map(shown).collect();
            list.sort_by_key(|(reference, meta, ..)| (meta.created_ms, *reference));
            (true, list)
        });
        self.compare(got, want);
    }

    fn revoke(&mut self) {
        let (principal, except) = (self.principal(), self.rng.one_in(2).then(|| self.id()));
        self.note(|| format!("revoke {principal:?} except {except:?}"));
        let got = self.store.revoke(principal.as_bytes(), except.map(|id| self.sids[id].as_slice()));
        let want = self.model.revoke(principal, except);
        self.compare(got, want);
    }

    fn revoke_all(&mut self) {
        self.note(|| "revoke_all".to_owned());
        let (got, want) = (self.store.revoke_all(), self.model.revoke_all());
        self.compare(got, Ok(want));
    }

    fn reference(&mut self) {
        let id = self.id();
        self.note(|| format!("reference {id}"));
        let got = self.store.reference(&self.sids[id]);
        let want = self.model.resolve(id).map(|(id, _)| self.refs[&id]);
        self.compare(got, want);
    }

    fn sweep(&mut self) {
        let max = self.rng.pick(&[0, 1, 2, 5, u64::MAX]);
        self.note(|| format!("sweep {max}"));
        let held = self.store.stats().unwrap().sessions - self.model.living.len() as u64;
        let got = self.store.sweep(max);
        self.compare(got, Ok(max.min(held)));
        if max > held {
            self.model.dead = (0, 0);
        }
    }

    fn let_time_pass(&mut self) {
        // Straight to the edge of a deadline or over it; else some time or none.
        let rules = self.model.rules;
        let deadlines = self.model.living.values().map(|session| session.deadline(&rules));
        let ends_of_grace = self.model.aliases.values().map(|(_, until)| *until);
        let next = deadlines.chain(ends_of_grace).min().unwrap_or(FOREVER);
        let to_next = if next == FOREVER { 1 } else { next - self.model.now };
        let ms = match self.rng.below(6) {
            0 => to_next,
            1 => to_next - 1,
            2 => 0,
            3 => self.rng.below(3_000) as i64,
            _ => self.rng.below(200) as i64,
        };
        self.advance(ms);
    }

    fn advance(&mut self, ms: i64) {
        self.note(|| format!("advance {ms}"));
        self.store.advance_clock(ms).unwrap();
        self.model.now += ms;
    }

    /// Another handle instead of the first, sometimes with shorter timeouts, which then hold.
    fn reopen(&mut self) {
        let mut url = format!("memory:{}", self.name);
        if self.rng.one_in(20) && self.model.rules.timeout != FOREVER {
            let (timeout, idle) = (2_000 + self.rng.below(8_000) as i64, 500 + self.rng.below(3_000) as i64);
            url = format!("{url}?timeout={timeout}ms&idle_timeout={idle}ms");
            let rules = &mut self.model.rules;
            (rules.timeout, rules.idle) = (rules.timeout.min(timeout), rules.idle.min(idle));
        }
        self.note(|| url.clone());
        self.store = Store::open(&url).unwrap();
    }

    fn minted(&mut self, new: Id, got: Result<(Vec<u8>, PlainMeta), Error>, want: Result<PlainMeta, ErrorKind>) {
        if let Ok((sid, _)) = &got {
            self.sids.push(sid.clone());
            if let Ok(reference) = self.store.reference(sid) {
                self.refs.insert(new, reference);
            }
        }
        self.compare(got.map(|(_, meta)| meta), want);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.log.len() == 40 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:6}  {}", self.model.now, text()));
    }

    fn compare<T: PartialEq + std::fmt::Debug>(&self, got: Result<T, Error>, want: Result<T, ErrorKind>) {
        if got.as_ref().map_err(Error::kind) != want.as_ref().map_err(|kind| *kind) {
            self.fail(format!("expected {want:?}, got {got:?}"));
        }
    }

    fn compare_counts(&self) {
        let (got, model) = (self.store.stats().unwrap(), &self.model);
        let mut want = model.counts;
        (want.sessions, want.bytes, want.expired) = (got.sessions, got.bytes, got.expired);
        if got != want {
            self.fail(format!("expected {want:?}, got {got:?}"));
        }
        let (living, bytes) = (model.living.len() as u64, model.bytes());
        if got.sessions != got.created - got.deleted - got.revoked - got.expired
            || !(living..=living + model.dead.0).contains(&got.sessions)
            || !(bytes..=bytes + model.dead.1).contains(&got.bytes)
        {
            let dead = model.dead;
            self.fail(format!("{living} sessions of {bytes} bytes live, {dead:?} may be held, got {got:?}"));
        }
    }

    /// At the end: every id that was ever minted, then nothing but what lives, to the byte.
    fn compare_everything(&mut self) {
        for id in 0..self.sids.len() {
            let got = self.store.get(&self.sids[id], Access::Peek).map(|(payload, meta)| (payload, meta.plain()));
            let want = self.model.get(id, false);
            self.compare(got, want);
        }
        self.store.sweep(u64::MAX).unwrap();
        self.model.dead = (0, 0);
        self.compare_counts();
        // The history was worth something: it had every event that is possible under its rules.
        let (stats, rules) = (self.store.stats().unwrap(), self.model.rules);
        assert!(
            [stats.created, stats.hits, stats.misses, stats.puts, stats.deleted].iter().all(|&n| n > 100),
            "{stats:?}"
        );
        assert!([stats.renewed, stats.conflicts, stats.revoked, stats.rejected].iter().all(|&n| n > 100), "{stats:?}");
        assert!(stats.expired > 100 || rules.timeout == FOREVER, "{stats:?}");
        assert!(self.read_by_old_id > 100, "{}", self.read_by_old_id);
    }

    fn fail(&self, why: String) -> ! {
        let log = self.log.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        panic!("{log}\nSSS_MODEL_SEED={}, step {}: {why}", self.seed, self.steps);
    }
}

fn options<'a>(opts: &Opts) -> Options<'a> {
    let principal = match opts.who {
        Who::Keep => Principal::Keep,
        Who::Clear => Principal::Clear,
        Who::Set(principal) => Principal::Set(principal.as_bytes()),
    };
    let mut options = Options::new()
        .timeout_ms(opts.timeout)
        .idle_timeout_ms(opts.idle)
        .with_principal(principal)
        .grace_ms(opts.grace);
    options.label = opts.label.map(str::as_bytes);
    options.reauthenticated = opts.reauthenticated;
    options
}

/// Which of several sessions that were used equally long ago was ended is the store's choice: ask
/// it.
fn is_gone(store: &Store, sids: &[Vec<u8>]) -> impl Fn(Id) -> bool {
    |id| store.reference(&sids[id]).is_err()
}
