//! The lock of one shard, with a longer wait before sleep than `parking_lot`'s own.

use std::{
    hint,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use super::shard::Shard;

/// For how long a thread waits awake: most holds take less than a microsecond, and some, when a table is split or the machine
/// interrupts the holder, some tens, while being put to sleep and woken takes about 50. Whoever spins for no longer than a
/// sleep would take never pays more than twice the least (Karlin, Li, Manasse, Owicki: "Empirical Studies of Competitive
/// Spinning for a Shared-Memory Multiprocessor", SOSP 1991).
const AWAKE: Duration = Duration::from_micros(20);

/// Looks at the lock between two looks at the clock.
const LOOKS: u32 = 8;

/// Two cache lines of its own for each: the prefetcher fetches pairs.
#[repr(align(128))]
pub(super) struct Lock(Mutex<Shard>);

impl Lock {
    pub(super) fn new(shard: Shard) -> Lock {
        Lock(Mutex::new(shard))
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Shard> {
        self.0.try_lock().unwrap_or_else(|| self.wait())
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, Shard> {
        let mut begun = None;
        // Most waits are over before the clock is looked at.
        while begun.is_none_or(|begun: Instant| begun.elapsed() < AWAKE) {
            for _ in 0..LOOKS {
                // Looks before it tries: a try takes the line away from the one who holds the lock.
                if !self.0.is_locked()
                    && let Some(shard) = self.0.try_lock()
                {
                    return shard;
                }
                hint::spin_loop();
            }
            begun.get_or_insert_with(Instant::now);
        }
        self.0.lock()
    }
}
