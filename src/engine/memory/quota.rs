//! How many sessions and bytes a store holds, exactly, and the limits on both. A change is counted
//! before it happens and only if it fits, so no race can pass a limit.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::session::policy::Limits;

/// On cache lines of its own, because every create and delete writes it.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Quota {
    sessions: AtomicU64,
    bytes: AtomicU64,
}

/// Sessions, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub sessions: u64,
    pub bytes: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.sessions += other.sessions;
        self.bytes += other.bytes;
    }
}

/// A change of the usage that is undone when it is dropped, unless it is committed.
#[must_use]
pub(super) struct Reservation<'a> {
    quota: &'a Quota,
    old: Usage,
    new: Usage,
}

impl Reservation<'_> {
    pub(super) fn commit(mut self) {
        self.old = self.new;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // Without limits nothing is refused.
        let _ = try_replace(&self.quota.sessions, self.new.sessions, self.old.sessions, u64::MAX);
        let _ = try_replace(&self.quota.bytes, self.new.bytes, self.old.bytes, u64::MAX);
    }
}

impl Quota {
    /// Replaces `old` by `new` in what is used. `None`, and nothing changed, if that would pass a
    /// limit. What does not grow always fits, even in a store that is over a limit because the
    /// limit was lowered.
    pub(super) fn reserve(&self, old: Usage, new: Usage, limits: &Limits) -> Option<Reservation<'_>> {
        if !try_replace(&self.sessions, old.sessions, new.sessions, limits.max_sessions) {
            return None;
        }
        if !try_replace(&self.bytes, old.bytes, new.bytes, limits.max_bytes) {
            let _ = try_replace(&self.sessions, new.sessions, old.sessions, u64::MAX);
            return None;
        }
        Some(Reservation { quota: self, old, new })
    }

    pub(super) fn release(&self, usage: Usage) {
        self.sessions.fetch_sub(usage.sessions, Ordering::Relaxed);
        self.bytes.fetch_sub(usage.bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> Usage {
        Usage { sessions: self.sessions.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

fn try_replace(used: &AtomicU64, old: u64, new: u64, limit: u64) -> bool {
    if new == old {
        return true;
    }
    // Wrapping: `old` is part of `used`, so the sum is right again once `new` is added.
    let replaced = |used: u64| used.wrapping_sub(old).wrapping_add(new);
    let fits = |used: u64| new < old || replaced(used) <= limit;
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| fits(used).then(|| replaced(used))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reserves and commits. Returns whether it fits.
    fn replace(quota: &Quota, old: Usage, new: Usage, limits: &Limits) -> bool {
        quota.reserve(old, new, limits).map(Reservation::commit).is_some()
    }

    fn usage(sessions: u64, bytes: u64) -> Usage {
        Usage { sessions, bytes }
    }

    #[test]
    fn change_past_a_limit_is_refused() {
        let quota = Quota::default();
        let limits = Limits { max_sessions: 2, max_bytes: 10, max_per_principal: u64::MAX };
        assert!(replace(&quota, usage(0, 0), usage(1, 10), &limits));
        assert!(!replace(&quota, usage(0, 0), usage(1, 1), &limits), "too many bytes");
        assert_eq!(quota.used(), usage(1, 10));
        assert!(replace(&quota, usage(0, 0), usage(1, 0), &limits));
        assert!(!replace(&quota, usage(0, 0), usage(1, 0), &limits), "too many sessions");
        assert!(replace(&quota, usage(0, 10), usage(0, 4), &limits));
        quota.release(usage(1, 4));
        assert_eq!(quota.used(), usage(1, 0));
    }

    #[test]
    fn dropped_reservation_changes_nothing() {
        let quota = Quota::default();
        let limits = Limits { max_sessions: 2, max_bytes: 10, max_per_principal: u64::MAX };
        assert!(replace(&quota, usage(0, 0), usage(1, 4), &limits));
        assert!(quota.reserve(usage(1, 4), usage(2, 10), &limits).is_some());
        assert_eq!(quota.used(), usage(1, 4));
    }

    #[test]
    fn shrinking_fits_over_a_lowered_limit() {
        let quota = Quota::default();
        let loose = Limits { max_sessions: u64::MAX, max_bytes: u64::MAX, max_per_principal: u64::MAX };
        assert!(replace(&quota, usage(0, 0), usage(5, 50), &loose));
        let tight = Limits { max_sessions: 1, max_bytes: 10, max_per_principal: u64::MAX };
        assert!(replace(&quota, usage(0, 20), usage(0, 19), &tight));
        assert!(!replace(&quota, usage(0, 19), usage(0, 20), &tight));
    }
}
