//! Who writes next. LMDB's own lock keeps writers apart, and is given up when its holder dies; but those who already sleep
//! at it may then sleep on for ever: glibc's unlock first frees the lock and then wakes one of them, and a process that is
//! killed in between leaves them asleep beside a lock that others take and free without contention. So writers wait here,
//! where nobody sleeps for long without looking again, and find LMDB's lock free.
//!
//! Only a hint: whoever waits too long, or for a process that is gone, goes on to LMDB's lock.

use std::{
    fs, process,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::map;

/// How long one sleep is at the most: many times a write, so that it ends by being woken.
const NAP: Duration = Duration::from_millis(2);
/// How long somebody may hold the gate before others go past him.
const PATIENCE: Duration = Duration::from_secs(1);

/// In the memory that the processes share.
#[repr(C)]
#[derive(Default)]
pub(super) struct Gate {
    /// The process that writes; 0: nobody.
    holder: AtomicU32,
    /// How many sleep; or more, if one of them was killed.
    sleepers: AtomicU32,
}

/// The turn of one writer.
pub(super) struct Turn<'a>(&'a Gate);

impl Gate {
    /// Blocking for the turn to write.
    pub(super) fn pass(&self) -> Turn<'_> {
        let me = process::id();
        let mut waiting: Option<(u32, Instant)> = None;
        loop {
            let Err(holder) = self.holder.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) else {
                return Turn(self);
            };
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            map::wait(&self.holder, holder, NAP);
            let less = |count: u32| count.checked_sub(1);
            // Nothing to take away after somebody who was alone with the store began anew.
            let _ = self.sleepers.fetch_update(Ordering::SeqCst, Ordering::Relaxed, less);
            let since = match waiting {
                Some((same, since)) if same == holder => since,
                _ => Instant::now(),
            };
            waiting = Some((holder, since));
            let gone = since.elapsed() >= NAP && is_gone(holder);
            if (gone || since.elapsed() >= PATIENCE)
                && self.holder.compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return Turn(self);
            }
        }
    }

    /// Nobody else has the store open.
    pub(super) fn reset(&self) {
        self.holder.store(0, Ordering::Release);
        self.sleepers.store(0, Ordering::Release);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Not if somebody has gone past: then it is his.
        let mine = self.0.holder.compare_exchange(process::id(), 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if mine && self.0.sleepers.load(Ordering::SeqCst) > 0 {
            map::wake_one(&self.0.holder);
        }
    }
}

/// Whether a process does nothing any more: a killed one keeps its number until its parent asks how it ended, and before
/// that it gives back its memory, which takes longer the more it has. Its locks are freed first.
fn is_gone(process: u32) -> bool {
    !map::is_running(process) || fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| is_ending(&stat))
}

/// What proc_pid_stat(5) says of it: the third number, its state, and the ninth, the kernel's flags.
fn is_ending(stat: &str) -> bool {
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
    use std::{process::Command, thread};

    use super::*;

    #[test]
    fn one_at_a_time_and_everybody_in_the_end() {
        let (gate, inside, passed) = (Gate::default(), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let turn = gate.pass();
                        assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0);
                        inside.fetch_sub(1, Ordering::AcqRel);
                        drop(turn);
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.load(Ordering::Relaxed), 16_000);
        assert_eq!((gate.holder.into_inner(), gate.sleepers.into_inner()), (0, 0));
    }

    #[test]
    fn a_process_that_died_with_the_turn_is_not_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let gate = Gate { holder: AtomicU32::new(child.id()), sleepers: AtomicU32::new(3) };
        child.wait().unwrap();
        let begun = Instant::now();
        drop(gate.pass());
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(gate.holder.load(Ordering::Relaxed), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_killed_process_whose_parent_has_not_noticed_yet_is_not_waited_for() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let gate = Gate { holder: AtomicU32::new(child.id()), sleepers: AtomicU32::new(0) };
        child.kill().unwrap();
        let begun = Instant::now();
        drop(gate.pass());
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_ending_is_told_from_one_that_has_it_in_its_name() {
        assert!(is_ending("7 (sh) Z 1 7 7 0 -1 4194304 99"));
        assert!(is_ending("7 (sh) R 1 7 7 0 -1 4194308 99"));
        assert!(!is_ending("7 (sh) S 1 7 7 0 -1 4194304 99"));
        assert!(!is_ending("7 (a) Z 1 7 7 0 -1 4) S 1 7 7 0 -1 4194304 99"));
        assert!(!is_ending(""));
    }

    #[test]
    fn who_is_not_woken_looks_by_himself() {
        let gate = Gate::default();
        let turn = gate.pass();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| drop(gate.pass()));
            thread::sleep(NAP * 5);
            std::mem::forget(turn);
            // As if who held it had died before he could wake anybody.
            gate.holder.store(0, Ordering::Release);
            sleeper.join().unwrap();
        });
    }
}
