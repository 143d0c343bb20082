//! A readers-writer lock for a value that every call reads and that rarely changes. Readers of an
//! ordinary lock all write into it, so two threads that only read get less done than one. Here each
//! thread reads through one of several locks, on cache lines of its own, and a writer takes all of
//! them. A writer may wait for a whole call, so the locks are the standard library's, which also
//! keep new readers from overtaking it for ever.

use std::sync::{
    RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
    atomic::{AtomicUsize, Ordering},
};

use super::ignore_poison;

const SHARDS: usize = 16;

/// A readers-writer lock for values that can be copied into each shard.
pub struct ShardedLock<T>([Shard<T>; SHARDS]);

/// On two cache lines of its own: the prefetcher fetches pairs.
#[repr(align(128))]
struct Shard<T>(RwLock<T>);

pub type ShardedLockReadGuard<'a, T> = RwLockReadGuard<'a, T>;

/// All shards, locked for writing.
pub struct ShardedLockWriteGuard<'a, T>([RwLockWriteGuard<'a, T>; SHARDS]);

impl<T: Clone> ShardedLock<T> {
    /// The value, which does not change while the guard lives. The thread must not call this again
    /// meanwhile: with a writer waiting in between, it would wait for ever.
    #[inline]
    pub fn read(&self) -> ShardedLockReadGuard<'_, T> {
        ignore_poison(self.0[own_shard()].0.read())
    }

    /// Exclusive access, once the last reader is gone.
    pub fn write(&self) -> ShardedLockWriteGuard<'_, T> {
        // All writers take the shards in the same order.
        ShardedLockWriteGuard(std::array::from_fn(|i| ignore_poison(self.0[i].0.write())))
    }

    /// A copy of the value, unless it is being changed. Does not wait: after a fork the writer may
    /// be a thread of the parent.
    pub fn try_get(&self) -> Option<T> {
        self.0.iter().find_map(|shard| match shard.0.try_read() {
            Ok(value) => Some(value.clone()),
            Err(TryLockError::Poisoned(value)) => Some(value.into_inner().clone()),
            Err(TryLockError::WouldBlock) => None,
        })
    }
}

impl<T: Clone> From<T> for ShardedLock<T> {
    fn from(value: T) -> ShardedLock<T> {
        ShardedLock(std::array::from_fn(|_| Shard(RwLock::new(value.clone()))))
    }
}

impl<T: Clone + Default> Default for ShardedLock<T> {
    fn default() -> ShardedLock<T> {
        T::default().into()
    }
}

impl<T: Clone> ShardedLockWriteGuard<'_, T> {
    pub fn get(&self) -> &T {
        &self.0[0]
    }

    /// Replaces the value, and returns the previous one.
    pub fn replace(&mut self, value: T) -> T {
        let [first, others @ ..] = &mut self.0;
        for other in others {
            **other = value.clone();
        }
        std::mem::replace(first, value)
    }
}

/// The shard of this thread. Threads take them in turn, so few threads share none.
#[inline]
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Barrier,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn readers_see_last_written_value() {
        let lock = ShardedLock::from(0);
        for round in 1..50 {
            assert_eq!(lock.write().replace(round), round - 1);
            assert_eq!(*lock.write().get(), round);
            thread::scope(|scope| {
                for _ in 0..2 * SHARDS {
                    scope.spawn(|| assert_eq!((*lock.read(), lock.try_get()), (round, Some(round))));
                }
            });
        }
    }

    #[test]
    fn writer_waits_for_every_reader() {
        let lock = ShardedLock::from(Some(Arc::new(())));
        let value = lock.try_get().flatten().unwrap();
        let reading = Barrier::new(2 * SHARDS + 1);
        let done = Barrier::new(2 * SHARDS + 1);
        let readers_done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    let held = lock.read();
                    reading.wait();
                    done.wait();
                    assert!(held.is_some());
                });
            }
            reading.wait();
            scope.spawn(|| {
                let mut locked = lock.write();
                assert!(readers_done.load(Ordering::SeqCst));
                locked.replace(None);
            });
            assert_eq!(Arc::strong_count(&value), SHARDS + 1);
            readers_done.store(true, Ordering::SeqCst);
            done.wait();
        });
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn panic_of_writer_does_not_close_lock() {
        let lock = ShardedLock::from(1);
        let panicked = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let _locked = lock.write();
                panic!("this panic is part of a test");
            });
            writer.join().is_err()
        });
        assert!(panicked);
        assert_eq!((*lock.read(), lock.try_get()), (1, Some(1)));
    }
}
