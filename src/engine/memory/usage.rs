//! How many sessions and bytes a store holds, exactly, and the limits on both. A change is booked before it happens
//! and only if it fits, so that no race can pass a limit.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::policy::Limits;

#[derive(Default)]
pub(super) struct Usage {
    sessions: AtomicU64,
    bytes: AtomicU64,
}

impl Usage {
    /// Books the change from `old` to `new` (sessions, bytes), or nothing if it would pass a limit. What shrinks or
    /// stays always fits, also in a store that is over a limit since the limit was lowered.
    pub(super) fn change(&self, old: (u64, u64), new: (u64, u64), limits: &Limits) -> bool {
        if !book(&self.sessions, old.0, new.0, limits.max_sessions) {
            return false;
        }
        let fits = book(&self.bytes, old.1, new.1, limits.max_bytes);
        if !fits {
            book(&self.sessions, new.0, old.0, u64::MAX);
        }
        fits
    }

    pub(super) fn release(&self, sessions: u64, bytes: u64) {
        self.sessions.fetch_sub(sessions, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> (u64, u64) {
        (self.sessions.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

fn book(held: &AtomicU64, old: u64, new: u64, limit: u64) -> bool {
    if new == old {
        return true;
    }
    // Wrapping: `old` is part of what is held, so the sum is right again once `new` is added.
    let changed = |held: u64| held.wrapping_sub(old).wrapping_add(new);
    let fits = |held: u64| new < old || changed(held) <= limit;
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| fits(held).then(|| changed(held))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let usage = Usage::default();
        let limits = Limits { max_sessions: 2, max_bytes: 10, max_per_principal: u64::MAX };
        assert!(usage.change((0, 0), (1, 10), &limits));
        assert!(!usage.change((0, 0), (1, 1), &limits), "too many bytes");
        assert_eq!(usage.get(), (1, 10));
        assert!(usage.change((0, 0), (1, 0), &limits));
        assert!(!usage.change((0, 0), (1, 0), &limits), "too many sessions");
        assert!(usage.change((0, 10), (0, 4), &limits));
        usage.release(1, 4);
        assert_eq!(usage.get(), (1, 0));
    }

    #[test]
    fn shrinking_fits_in_a_store_that_is_over_its_limit() {
        let usage = Usage::default();
        let loose = Limits { max_sessions: u64::MAX, max_bytes: u64::MAX, max_per_principal: u64::MAX };
        assert!(usage.change((0, 0), (5, 50), &loose));
        let tight = Limits { max_sessions: 1, max_bytes: 10, max_per_principal: u64::MAX };
        assert!(usage.change((0, 20), (0, 19), &tight));
        assert!(!usage.change((0, 19), (0, 20), &tight));
    }
}
