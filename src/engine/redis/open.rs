//! A store as it is open in this process: found again by all handles with the same URL, so that they agree on timeouts,
//! counters and a test's clock; opened anew by a forked child, which never touches what it inherited.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    heads::Heads,
    names::{self, Names},
    resp::{self, Reply},
    script,
    servers::{Kind, Servers},
};
use crate::{
    engine::Context,
    error::{Error, ErrorKind, Result},
    os::{
        clock::{self, Clock},
        fork_mark::{self},
    },
    session::{
        codec::EngineFields,
        policy::{Policy, PolicyOptions},
    },
    stats::Counters,
    sync::per_process::PerProcess,
    url::RedisUrl,
};

/// What is asked for by who opens a store.
#[derive(Clone)]
pub(super) struct Wishes {
    pub url: RedisUrl,
    pub policy: PolicyOptions,
    pub manual_clock: Option<bool>,
    pub seals: bool,
}

/// An `Open` that only its own process closes.
pub(super) struct Shared {
    /// Taken by dropping only.
    open: Option<Box<Open>>,
    generation: u32,
}

pub(super) struct Open {
    pub url: RedisUrl,
    pub servers: Servers,
    pub heads: Heads,
    pub seals: bool,
    /// Whether the last get could do without a script.
    pub slides: AtomicBool,
    policy: Policy,
    counters: Counters,
    /// Where a test moves the clock by hand.
    manual: Option<AtomicI64>,
    /// The number of the last write, in microseconds.
    last_number: AtomicU64,
}

/// The stores that this process has open.
static REGISTRY: PerProcess<Mutex<Vec<Weak<Shared>>>> = PerProcess::new();

impl Shared {
    /// Finds the store if this process has it open with the same URL.
    pub(super) fn open(wishes: &Wishes, inherited: Option<&Shared>) -> Result<Arc<Shared>> {
        let mut registry = REGISTRY.get().lock();
        registry.retain(|shared| shared.strong_count() > 0);
        for shared in registry.iter().filter_map(Weak::upgrade) {
            if shared.get().url == wishes.url {
                shared.get().join(wishes)?;
                return Ok(shared);
            }
        }
        let open = Open::new(wishes, inherited.map(Shared::get))?;
        let shared = Arc::new(Shared { open: Some(Box::new(open)), generation: fork_mark::generation() });
        registry.push(Arc::downgrade(&shared));
        Ok(shared)
    }

    pub(super) fn get(&self) -> &Open {
        match &self.open {
            Some(open) => open,
            None => unreachable!("only dropping takes it"),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let open = self.open.take();
        if self.generation != fork_mark::generation() {
            // The parent's: its connections stay open here and unused, and what its threads were changing is not looked at.
            std::mem::forget(open);
        }
    }
}

impl Open {
    /// A child goes on with its parent's rules and clock as they were at the fork.
    fn new(wishes: &Wishes, inherited: Option<&Open>) -> Result<Open> {
        let policy = Policy::new(&wishes.policy);
        let mut manual = clock::wall_ms();
        if let Some(inherited) = inherited {
            policy.tighten(&inherited.policy.options());
            manual = inherited.manual.as_ref().map_or(manual, |manual| manual.load(Ordering::Acquire));
        }
        Ok(Open {
            url: wishes.url.clone(),
            servers: Servers::new(&wishes.url)?,
            heads: Heads::new(),
            seals: wishes.seals,
            slides: AtomicBool::new(true),
            policy,
            counters: Counters::default(),
            manual: (wishes.manual_clock == Some(true)).then(|| AtomicI64::new(manual)),
            last_number: AtomicU64::new(0),
        })
    }

    /// One more has opened it.
    fn join(&self, wishes: &Wishes) -> Result<()> {
        if wishes.manual_clock.is_some_and(|manual| manual != self.manual.is_some()) {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another clock"));
        }
        if wishes.seals != self.seals {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another setting of seal"));
        }
        self.policy.tighten(&wishes.policy);
        Ok(())
    }

    pub(super) fn context(&self) -> Context<'_> {
        let clock = self.manual.as_ref().map_or(Clock::Wall, Clock::Manual);
        Context { clock, policy: &self.policy, counters: &self.counters }
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names { prefix: &self.url.prefix }
    }

    /// The number of a write that happens about now: greater than all before it in this process.
    pub(super) fn number(&self, now_ms: i64) -> EngineFields {
        // A test's clock may be anywhere.
        let now_us = now_ms.unsigned_abs().saturating_mul(1000).min(u64::MAX >> 1);
        let next = |last: u64| Some(now_us.max(last + 1));
        // The closure always gives a value.
        let last = self.last_number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        names::number(now_us.max(last + 1))
    }

    /// Brings a test's clock, which all processes share, to where it is here or there, whichever is further.
    pub(super) fn agree_on_the_time(&self) -> Result<()> {
        let Some(manual) = &self.manual else { return Ok(()) };
        let (key, until) = (self.names().clock(), Instant::now() + self.url.deadline);
        let here = resp::text(manual.load(Ordering::Acquire));
        let there = self.servers.script(&script::CLOCK, Kind::Write, &[&key], &[&here], until)?;
        // As a float, because that is what the script has counted with.
        let there = there.first().and_then(Reply::bytes).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        manual.fetch_max(there.map_or(0, |there: f64| there as i64), Ordering::AcqRel);
        Ok(())
    }
}
