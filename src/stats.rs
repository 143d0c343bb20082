//! A store's counters, spread over several cache lines so that processors do not contend for one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::key::LookupKey;

/// A snapshot of a store's counters. They only grow, except `sessions` and `bytes`. Under
/// concurrent use the numbers of one snapshot need not be of the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions held now. Expired ones count until they are removed.
    pub sessions: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
    /// Successful `create`.
    pub created: u64,
    /// `get` that found a session.
    pub hits: u64,
    /// `get` that found none.
    pub misses: u64,
    /// Successful `put` and `put_if`.
    pub puts: u64,
    /// Successful `delete` and `delete_ref`.
    pub deleted: u64,
    /// Successful `renew`.
    pub renewed: u64,
    /// `put_if` refused because of the version.
    pub conflicts: u64,
    /// Sessions ended by `revoke`, `revoke_all` or `max_per_principal`.
    pub revoked: u64,
    /// Sessions removed after they had expired.
    pub expired: u64,
    /// Writes refused by a limit.
    pub rejected: u64,
    /// Failures of the engine, of memory or of the random source.
    pub errors: u64,
}

/// What an engine holds, and how often it was read.
pub(crate) struct EngineUsage {
    pub sessions: u64,
    /// Of payload.
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
}

/// What is counted here. Hits and misses only where reads take no lock: else the engine counts them
/// under it.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Created,
    Puts,
    Deleted,
    Renewed,
    Conflicts,
    Revoked,
    Expired,
    Rejected,
    Errors,
    Hits,
    Misses,
}

const COUNTS: usize = Count::Misses as usize + 1;
const STRIPES: usize = 16;

/// Two cache lines, so that no two stripes share one (the prefetcher fetches pairs).
#[repr(C, align(128))]
#[derive(Default)]
struct Stripe([AtomicU64; COUNTS]);

/// Also in memory that processes share: nothing but atomics.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Counters([Stripe; STRIPES]);

impl Counters {
    /// Counts one; the session's key spreads the writers over the stripes.
    pub(crate) fn count(&self, what: Count, key: &LookupKey) {
        self.0[key.0 as usize % STRIPES].0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, what: Count, n: u64) {
        if n > 0 {
            self.0[0].0[what as usize].fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self, usage: &EngineUsage) -> Stats {
        let sum =
            |what: Count| -> u64 { self.0.iter().map(|stripe| stripe.0[what as usize].load(Ordering::Relaxed)).sum() };
        Stats {
            sessions: usage.sessions,
            bytes: usage.bytes,
            created: sum(Count::Created),
            hits: usage.hits + sum(Count::Hits),
            misses: usage.misses + sum(Count::Misses),
            puts: sum(Count::Puts),
            deleted: sum(Count::Deleted),
            renewed: sum(Count::Renewed),
            conflicts: sum(Count::Conflicts),
            revoked: sum(Count::Revoked),
            expired: sum(Count::Expired),
            rejected: sum(Count::Rejected),
            errors: sum(Count::Errors),
        }
    }
}
