//! A store as it is open in this process: all handles with the same URL share it, so that they
//! agree on timeouts, counters and a manual clock.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::Instant,
};

use super::{
    client::{Client, Idempotency, Reply, text},
    header_cache::HeaderCache,
    keys::{KeyNames, entry_number},
    scripts,
};
use crate::{
    engine::{
        Context,
        registry::{OpenStore, Registry, check_setting},
    },
    error::Result,
    os::clock::{self, Clock},
    session::{
        codec::EngineFields,
        policy::{Policy, PolicyOptions},
    },
    stats::Counters,
    url::RedisUrl,
};

/// The settings that the caller asks for.
#[derive(Clone)]
pub(super) struct OpenOptions {
    pub url: RedisUrl,
    pub policy: PolicyOptions,
    pub manual_clock: Option<bool>,
    pub seals: bool,
}

/// A handle to a store that this process has open.
pub(super) type StoreHandle = OpenStore<RedisUrl, RedisStore>;

static REGISTRY: Registry<RedisUrl, RedisStore> = Registry::new();

pub(super) struct RedisStore {
    pub url: RedisUrl,
    pub client: Client,
    pub headers: HeaderCache,
    pub seals: bool,
    /// Whether the last session that was read could be read without a script.
    pub is_fast_read_likely: AtomicBool,
    policy: Policy,
    counters: Counters,
    /// The time, with clock=manual.
    manual_clock: Option<AtomicI64>,
    /// The number of the last index entry, in microseconds.
    last_entry_number: AtomicU64,
}

impl RedisStore {
    /// A forked child takes over its parent's settings and manual clock as they were at the fork.
    pub(super) fn open(options: &OpenOptions, inherited: Option<&RedisStore>) -> Result<StoreHandle> {
        REGISTRY.open(options.url.clone(), |store| store.attach(options), || RedisStore::new(options, inherited))
    }

    fn new(options: &OpenOptions, inherited: Option<&RedisStore>) -> Result<RedisStore> {
        let policy = Policy::new(&options.policy);
        let mut now_ms = clock::wall_ms();
        if let Some(inherited) = inherited {
            policy.tighten(&inherited.policy.options());
            now_ms = inherited.manual_clock.as_ref().map_or(now_ms, |manual| manual.load(Ordering::Acquire));
        }
        Ok(RedisStore {
            url: options.url.clone(),
            client: Client::new(&options.url)?,
            headers: HeaderCache::new(),
            seals: options.seals,
            is_fast_read_likely: AtomicBool::new(true),
            policy,
            counters: Counters::default(),
            manual_clock: (options.manual_clock == Some(true)).then(|| AtomicI64::new(now_ms)),
            last_entry_number: AtomicU64::new(0),
        })
    }

    /// For another handle, with the settings that its caller asks for.
    fn attach(&self, options: &OpenOptions) -> Result<()> {
        if let Some(manual) = options.manual_clock {
            check_setting("clock", manual, self.manual_clock.is_some())?;
        }
        check_setting("setting of seal", options.seals, self.seals)?;
        self.policy.tighten(&options.policy);
        Ok(())
    }

    pub(super) fn context(&self) -> Context<'_> {
        let clock = self.manual_clock.as_ref().map_or(Clock::Wall, Clock::Manual);
        Context { clock, policy: &self.policy, counters: &self.counters }
    }

    pub(super) fn names(&self) -> KeyNames<'_> {
        KeyNames { prefix: &self.url.prefix }
    }

    /// The number of an index entry that is made about now: greater than all earlier ones of this
    /// process.
    pub(super) fn next_entry_number(&self, now_ms: i64) -> EngineFields {
        // A manual clock may be anywhere.
        let now_us = now_ms.unsigned_abs().saturating_mul(1000).min(u64::MAX >> 1);
        let next = |last: u64| Some(now_us.max(last + 1));
        // The closure always returns a value.
        let last = self.last_entry_number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        entry_number(now_us.max(last + 1))
    }

    /// Moves the manual clock, which all processes share, to the time here or in the server,
    /// whichever is later.
    pub(super) fn synchronize_clock(&self) -> Result<()> {
        let Some(manual) = &self.manual_clock else { return Ok(()) };
        let key = self.names().clock();
        let deadline = Instant::now() + self.url.deadline;
        let now_ms = text(manual.load(Ordering::Acquire));
        let (items, _) =
            self.client.script(&scripts::ADVANCE_CLOCK, Idempotency::Idempotent, &[&key], &[&now_ms], deadline)?;
        // A float, because the script has calculated with one.
        let server_ms =
            items.first().and_then(Reply::bytes).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        manual.fetch_max(server_ms.map_or(0, |ms: f64| ms as i64), Ordering::AcqRel);
        Ok(())
    }
}
