//! A mutex for data that is held for microseconds, such as one shard. It is only ever tried: a
//! thread that does not get it spins, then sleeps for growing moments between its tries. It must
//! not wait inside parking_lot, whose table of waiting threads is one for the process: a fork
//! copies it with the parent's threads in it, and a child that waits there may hang.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
pub(crate) use parking_lot::MutexGuard as BackoffMutexGuard;

/// How long a thread spins before it sleeps. Most holds take less than a microsecond and some take
/// tens of them (a table is split, the holder is interrupted), while a sleep costs about 50.
/// Spinning for no longer than a sleep takes costs at most twice the optimum (Karlin, Li, Manasse,
/// Owicki: "Empirical Studies of Competitive Spinning for a Shared-Memory Multiprocessor", SOSP
/// 1991).
const SPIN: Duration = Duration::from_micros(20);

/// Tries between two looks at the clock.
const TRIES_PER_CLOCK_READ: u32 = 8;

/// The first sleep. Each later one is twice as long, up to `MAX_SLEEP`.
const MIN_SLEEP: Duration = Duration::from_micros(50);
const MAX_SLEEP: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(crate) struct BackoffMutex<T>(Mutex<T>);

impl<T> BackoffMutex<T> {
    pub(crate) const fn new(value: T) -> BackoffMutex<T> {
        BackoffMutex(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> BackoffMutexGuard<'_, T> {
        self.0.try_lock().unwrap_or_else(|| self.lock_contended())
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<BackoffMutexGuard<'_, T>> {
        self.0.try_lock()
    }

    #[cold]
    fn lock_contended(&self) -> BackoffMutexGuard<'_, T> {
        let mut start = None;
        // Most waits end before the first look at the clock.
        while start.is_none_or(|start: Instant| start.elapsed() < SPIN) {
            for _ in 0..TRIES_PER_CLOCK_READ {
                if let Some(guard) = self.try_lock_if_free() {
                    return guard;
                }
                hint::spin_loop();
            }
            start.get_or_insert_with(Instant::now);
        }
        // The holder may be waiting for this processor.
        thread::yield_now();
        let mut sleep = MIN_SLEEP;
        loop {
            if let Some(guard) = self.try_lock_if_free() {
                return guard;
            }
            thread::sleep(sleep);
            sleep = MAX_SLEEP.min(sleep * 2);
        }
    }

    /// Reads before it tries: a try takes the cache line away from the holder.
    fn try_lock_if_free(&self) -> Option<BackoffMutexGuard<'_, T>> {
        if self.0.is_locked() { None } else { self.0.try_lock() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn contended_increments_are_all_counted() {
        const THREADS: u64 = 8;
        const INCREMENTS: u64 = 20_000;
        let count = BackoffMutex::new(0_u64);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..INCREMENTS).for_each(|_| *count.lock() += 1));
            }
        });
        assert_eq!(*count.lock(), THREADS * INCREMENTS);
    }

    #[test]
    fn waiter_that_sleeps_gets_the_lock() {
        let mutex = BackoffMutex::new(0);
        let held = mutex.lock();
        let started = Barrier::new(2);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                started.wait();
                *mutex.lock() += 1;
            });
            started.wait();
            assert!(mutex.try_lock().is_none());
            // Long enough for the waiter to be past its spinning.
            thread::sleep(10 * SPIN);
            drop(held);
            waiter.join().unwrap();
        });
        assert_eq!(*mutex.lock(), 1);
    }
}
