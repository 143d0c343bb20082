//! The queue of writers, in front of LMDB's own writer lock. That lock is a robust mutex of the C
//! library, and its waiters can sleep for ever: the unlock first frees the lock and then wakes a
//! waiter. If the process is killed in between and another thread takes the free lock before the
//! kernel cleans up, no waiter is woken, and the lock no longer says that it has any. (Seen with
//! LMDB 0.9.70, glibc 2.36 and Linux 6.18 after a minute of four looping writers that are killed at
//! random: the word of the lock lacks FUTEX_WAITERS while two processes sleep at it.) Here no
//! waiter sleeps for long without looking again, and finds LMDB's lock free.
//!
//! It is only a hint: a writer that waits too long, or for a process that is gone, goes to LMDB's
//! lock.

use std::{
    fs, process,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::super::os;

/// The longest sleep of a waiter: many times a write, so that it usually ends by being woken.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long a process may hold the permit before other writers pass it.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(1);

#[repr(C)]
#[derive(Default)]
pub(in super::super) struct WriterQueue {
    /// The process that writes; 0: none.
    holder: AtomicU32,
    /// How many threads sleep; more than that if one of them was killed.
    sleepers: AtomicU32,
}

/// Permission to write, until it is dropped.
pub(in super::super) struct WriterPermit<'a>(&'a WriterQueue);

impl WriterQueue {
    /// Waits until no other thread of any process has the permit.
    pub(in super::super) fn acquire(&self) -> WriterPermit<'_> {
        let own = process::id();
        let mut waiting: Option<(u32, Instant)> = None;
        loop {
            let Err(holder) = self.holder.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed) else {
                return WriterPermit(self);
            };
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            os::futex_wait(&self.holder, holder, POLL_INTERVAL);
            let fewer = |count: u32| count.checked_sub(1);
            // There is nothing to take away after another process has reset the queue.
            let _ = self.sleepers.fetch_update(Ordering::SeqCst, Ordering::Relaxed, fewer);
            let since = match waiting {
                Some((same, since)) if same == holder => since,
                _ => Instant::now(),
            };
            waiting = Some((holder, since));
            let is_overdue = since.elapsed() >= TAKEOVER_TIMEOUT || since.elapsed() >= POLL_INTERVAL && is_gone(holder);
            if is_overdue && self.holder.compare_exchange(holder, own, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return WriterPermit(self);
            }
        }
    }

    /// No other process has the store open.
    pub(in super::super) fn reset(&self) {
        self.holder.store(0, Ordering::Release);
        self.sleepers.store(0, Ordering::Release);
    }
}

impl Drop for WriterPermit<'_> {
    fn drop(&mut self) {
        // Not if another process has taken over: then it is that one's.
        let is_own = self.0.holder.compare_exchange(process::id(), 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if is_own && self.0.sleepers.load(Ordering::SeqCst) > 0 {
            os::futex_wake_one(&self.0.holder);
        }
    }
}

/// Whether a process does nothing any more. A killed one keeps its id until its parent waits for
/// it, and before that it gives back its memory, which takes longer the more it has. Its locks are
/// released first.
fn is_gone(process: u32) -> bool {
    !os::is_running(process) || fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| is_exiting(&stat))
}

/// What proc_pid_stat(5) says of a process: the third field, its state, and the ninth, the kernel's
/// flags.
fn is_exiting(stat: &str) -> bool {
    /// Of the kernel's include/linux/sched.h.
    const PF_EXITING: u32 = 4;
    // Behind the name, which may hold anything.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X"));
    let flags = fields.nth(5).and_then(|flags| flags.parse().ok());
    is_dead || flags.is_some_and(|flags: u32| flags & PF_EXITING != 0)
}

#[cfg(test)]
mod tests {
    use std::{mem, process::Command, thread};

    use super::*;

    #[test]
    fn permit_is_exclusive() {
        let queue = WriterQueue::default();
        let inside = AtomicU32::new(0);
        let passed = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let permit = queue.acquire();
                        assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0);
                        inside.fetch_sub(1, Ordering::AcqRel);
                        drop(permit);
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.load(Ordering::Relaxed), 16_000);
        assert_eq!((queue.holder.into_inner(), queue.sleepers.into_inner()), (0, 0));
    }

    #[test]
    fn dead_holder_is_not_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let queue = WriterQueue { holder: AtomicU32::new(child.id()), sleepers: AtomicU32::new(3) };
        child.wait().unwrap();
        assert!(is_gone(child.id()));
        drop(queue.acquire());
        assert_eq!(queue.holder.load(Ordering::Relaxed), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn zombie_holder_is_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!is_gone(child.id()));
        child.kill().unwrap();
        // It is a zombie until `wait`.
        while !is_gone(child.id()) {
            thread::yield_now();
        }
        assert!(os::is_running(child.id()));
        child.wait().unwrap();
    }

    #[test]
    fn exit_flags_are_parsed_behind_name() {
        assert!(is_exiting("7 (sh) Z 1 7 7 0 -1 4194304 99"));
        assert!(is_exiting("7 (sh) R 1 7 7 0 -1 4194308 99"));
        assert!(!is_exiting("7 (sh) S 1 7 7 0 -1 4194304 99"));
        assert!(!is_exiting("7 (a) Z 1 7 7 0 -1 4) S 1 7 7 0 -1 4194304 99"));
        assert!(!is_exiting(""));
    }

    #[test]
    fn waiter_recovers_from_missed_wakeup() {
        let queue = WriterQueue::default();
        let permit = queue.acquire();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(queue.acquire()));
            while queue.sleepers.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            mem::forget(permit);
            // As if the holder had been killed before it could wake the waiter.
            queue.holder.store(0, Ordering::Release);
            waiter.join().unwrap();
        });
    }
}
