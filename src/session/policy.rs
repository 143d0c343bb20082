//! The rules that a store's URL sets: timeouts and limits. All deadline arithmetic is here, and
//! only here.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// A timeout that never ends, and the deadline of what never ends.
pub(crate) const FOREVER: i64 = i64::MAX;

/// A timeout that a session has instead of its store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The store's timeout, also after the store was opened with another one.
    Inherit,
    /// The session does not end by this timeout.
    Never,
    /// In whole milliseconds, rounded up. Zero ends the session at once.
    After(Duration),
}

impl Timeout {
    /// As a record holds it: see [`Timeouts`].
    fn to_ms(self) -> i64 {
        match self {
            Timeout::Inherit => 0,
            Timeout::Never => FOREVER,
            Timeout::After(Duration::ZERO) => -1,
            Timeout::After(duration) => whole_ms(duration),
        }
    }
}

/// A duration in milliseconds, rounded up.
pub(crate) fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(FOREVER)
}

/// What a write does to the timeouts that a session has for itself.
#[derive(Clone, Copy)]
pub(crate) struct TimeoutChanges {
    /// `None` keeps it.
    pub absolute: Option<Timeout>,
    pub idle: Option<Timeout>,
}

impl TimeoutChanges {
    pub(crate) fn apply_to(self, own: Timeouts) -> Timeouts {
        Timeouts {
            absolute: self.absolute.map_or(own.absolute, Timeout::to_ms),
            idle: self.idle.map_or(own.idle, Timeout::to_ms),
        }
    }
}

/// The default absolute timeout: 3 hours.
pub(crate) const TIMEOUT_MS: i64 = 10_800_000;
/// The default idle timeout: 10 minutes.
pub(crate) const IDLE_TIMEOUT_MS: i64 = 600_000;
/// The default longest payload: 1 MiB.
pub(crate) const MAX_PAYLOAD: u64 = 1 << 20;

/// Both timeouts in milliseconds. In a session's record 0 stands for the store's timeout; a
/// negative one has always ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub absolute: i64,
    pub idle: i64,
}

impl Timeouts {
    /// Fills the timeouts that are 0 from `other`.
    pub(crate) fn or(self, other: Timeouts) -> Timeouts {
        Timeouts {
            absolute: if self.absolute == 0 { other.absolute } else { self.absolute },
            idle: if self.idle == 0 { other.idle } else { self.idle },
        }
    }

    /// When a session ends: it is live while `now < deadline`.
    pub(crate) fn deadline(self, created: i64, last_seen: i64) -> i64 {
        // Saturating: FOREVER stays FOREVER, and no sum can wrap into the past.
        created.saturating_add(self.absolute).min(last_seen.saturating_add(self.idle))
    }
}

/// When a step happens, and the timeouts in force. An engine reads the clock inside the atomic
/// step, under the step's locks: a slow thread that read it before would revive a session that
/// other threads have seen expired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepTime {
    pub now: i64,
    pub timeouts: Timeouts,
    /// Sessions that were created up to here have ended: `revoke_all` is removing them.
    pub revoked_until: i64,
}

/// `revoked_until` where no `revoke_all` is at work.
pub(crate) const NONE_REVOKED: i64 = i64::MIN;

/// What may not be exceeded; `u64::MAX` is "no limit".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub max_sessions: u64,
    pub max_bytes: u64,
    pub max_per_principal: u64,
}

/// The policy as a URL gives it: `None` is "not given".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyOptions {
    pub timeout: Option<i64>,
    pub idle_timeout: Option<i64>,
    pub max_payload: Option<u64>,
    pub max_sessions: Option<u64>,
    pub max_bytes: Option<u64>,
    pub max_per_principal: Option<u64>,
}

/// The policy in force. Atomics, because another open of the store may tighten it during use, in
/// this process or another.
#[repr(C)]
pub(crate) struct Policy {
    timeout: AtomicI64,
    idle_timeout: AtomicI64,
    max_payload: AtomicU64,
    max_sessions: AtomicU64,
    max_bytes: AtomicU64,
    max_per_principal: AtomicU64,
    revoked_until: AtomicI64,
}

impl Policy {
    pub(crate) fn new(options: &PolicyOptions) -> Policy {
        let policy = Policy {
            timeout: AtomicI64::new(0),
            idle_timeout: AtomicI64::new(0),
            max_payload: AtomicU64::new(0),
            max_sessions: AtomicU64::new(0),
            max_bytes: AtomicU64::new(0),
            max_per_principal: AtomicU64::new(0),
            revoked_until: AtomicI64::new(NONE_REVOKED),
        };
        policy.reset(options);
        policy
    }

    /// Sets what is given, and the defaults for the rest.
    pub(crate) fn reset(&self, options: &PolicyOptions) {
        self.timeout.store(options.timeout.unwrap_or(TIMEOUT_MS), Ordering::Release);
        self.idle_timeout.store(options.idle_timeout.unwrap_or(IDLE_TIMEOUT_MS), Ordering::Release);
        self.max_payload.store(options.max_payload.unwrap_or(MAX_PAYLOAD), Ordering::Release);
        self.max_sessions.store(options.max_sessions.unwrap_or(u64::MAX), Ordering::Release);
        self.max_bytes.store(options.max_bytes.unwrap_or(u64::MAX), Ordering::Release);
        self.max_per_principal.store(options.max_per_principal.unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Applies what is given and stricter. True if a timeout became shorter.
    pub(crate) fn tighten(&self, options: &PolicyOptions) -> bool {
        let mut shorter = false;
        for (current, given) in [(&self.timeout, options.timeout), (&self.idle_timeout, options.idle_timeout)] {
            if let Some(given) = given {
                shorter |= current.fetch_min(given, Ordering::AcqRel) > given;
            }
        }
        for (current, given) in [
            (&self.max_payload, options.max_payload),
            (&self.max_sessions, options.max_sessions),
            (&self.max_bytes, options.max_bytes),
            (&self.max_per_principal, options.max_per_principal),
        ] {
            if let Some(given) = given {
                current.fetch_min(given, Ordering::AcqRel);
            }
        }
        shorter
    }

    /// The policy in force, as a URL would give it.
    pub(crate) fn options(&self) -> PolicyOptions {
        let (timeouts, limits) = (self.timeouts(), self.limits());
        PolicyOptions {
            timeout: Some(timeouts.absolute),
            idle_timeout: Some(timeouts.idle),
            max_payload: Some(self.max_payload()),
            max_sessions: Some(limits.max_sessions),
            max_bytes: Some(limits.max_bytes),
            max_per_principal: Some(limits.max_per_principal),
        }
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts { absolute: self.timeout.load(Ordering::Relaxed), idle: self.idle_timeout.load(Ordering::Relaxed) }
    }

    /// What a step at this time goes by.
    pub(crate) fn step_time(&self, now: i64) -> StepTime {
        StepTime { now, timeouts: self.timeouts(), revoked_until: self.revoked_until.load(Ordering::Relaxed) }
    }

    /// Ends all sessions that were created up to this time, until it is set to `NONE_REVOKED` again,
    /// by when they have to be removed.
    pub(crate) fn set_revoked_until(&self, created: i64) {
        self.revoked_until.store(created, Ordering::Relaxed);
    }

    /// All sessions that were created up to this time are removed; unless they have to be up to a
    /// later one by now, in another process.
    #[cfg(feature = "lmdb")]
    pub(crate) fn end_revocation(&self, created: i64) {
        let _ = self.revoked_until.compare_exchange(created, NONE_REVOKED, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_sessions: self.max_sessions.load(Ordering::Relaxed),
            max_bytes: self.max_bytes.load(Ordering::Relaxed),
            max_per_principal: self.max_per_principal.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn max_payload(&self) -> u64 {
        self.max_payload.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_the_earlier_of_both() {
        let timeouts = Timeouts { absolute: 100, idle: 10 };
        assert_eq!(timeouts.deadline(1000, 1000), 1010);
        assert_eq!(timeouts.deadline(1000, 1095), 1100);
    }

    #[test]
    fn infinite_and_huge_timeouts_never_wrap() {
        let timeouts = Timeouts { absolute: FOREVER, idle: FOREVER };
        assert_eq!(timeouts.deadline(1000, 1000), FOREVER);
        let dead = Timeouts { absolute: i64::MIN, idle: FOREVER };
        assert!(dead.deadline(1000, 1000) < 1000);
    }

    #[test]
    fn tighten_only_ever_tightens() {
        let policy = Policy::new(&PolicyOptions { timeout: Some(100), ..Default::default() });
        assert!(!policy.tighten(&PolicyOptions { timeout: Some(200), ..Default::default() }));
        assert_eq!(policy.timeouts().absolute, 100);
        assert!(policy.tighten(&PolicyOptions { idle_timeout: Some(5), ..Default::default() }));
        assert_eq!(policy.timeouts(), Timeouts { absolute: 100, idle: 5 });
    }
}
