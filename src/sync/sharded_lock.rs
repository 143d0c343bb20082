//! A readers-writer lock for a value that every call reads and that rarely changes. Readers of an ordinary lock all write
//! into it, so two threads that only read get less done than one. Here each thread reads through one of several locks, on
//! cache lines of its own, and a writer takes all of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const STRIPES: usize = 16;

/// Like an `RwLock`, for values of which copies are as good.
pub struct ShardedLock<T>([Stripe<T>; STRIPES]);

/// Two cache lines of its own: the prefetcher fetches pairs.
#[repr(align(128))]
struct Stripe<T>(RwLock<T>);

/// All copies, locked by who may change them.
pub struct ShardedLockWriteGuard<'a, T>([RwLockWriteGuard<'a, T>; STRIPES]);

impl<T: Clone> ShardedLock<T> {
    /// The value, for as long as nobody changes it. Whoever holds this must not ask for it again: a writer that waits in
    /// between would wait for ever.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0[own_stripe()].0.read()
    }

    /// The value when nobody reads it any more, so that it can be changed.
    pub fn write(&self) -> ShardedLockWriteGuard<'_, T> {
        // All writers in the same order.
        ShardedLockWriteGuard(std::array::from_fn(|i| self.0[i].0.write()))
    }

    /// A copy, unless the value is just being changed. Blocking for nobody: a thread of a parent process would never be done.
    pub fn try_get(&self) -> Option<T> {
        self.0.iter().find_map(|stripe| stripe.0.try_read()).map(|value| value.clone())
    }
}

impl<T: Clone> From<T> for ShardedLock<T> {
    fn from(value: T) -> ShardedLock<T> {
        ShardedLock(std::array::from_fn(|_| Stripe(RwLock::new(value.clone()))))
    }
}

impl<T: Clone + Default> Default for ShardedLock<T> {
    fn default() -> ShardedLock<T> {
        T::default().into()
    }
}

impl<T: Clone> ShardedLockWriteGuard<'_, T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.0[0]
    }

    /// Puts another value in its place, and returns it.
    pub fn replace(&mut self, value: T) -> T {
        let [first, others @ ..] = &mut self.0;
        for other in others {
            **other = value.clone();
        }
        std::mem::replace(first, value)
    }
}

/// The stripe of this thread: in turns, so that few threads share none.
#[inline]
fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Barrier},
        thread,
    };

    use super::*;

    #[test]
    fn every_thread_sees_the_value_that_was_put_in_last() {
        let striped = ShardedLock::from(0);
        for round in 1..50 {
            assert_eq!(striped.write().replace(round), round - 1);
            assert_eq!(*striped.write().get(), round);
            thread::scope(|scope| {
                for _ in 0..2 * STRIPES {
                    scope.spawn(|| assert_eq!((*striped.read(), striped.try_get()), (round, Some(round))));
                }
            });
        }
    }

    #[test]
    fn a_change_waits_for_every_reader_and_drops_the_value_when_they_are_gone() {
        let striped = ShardedLock::from(Some(Arc::new(())));
        let value = striped.try_get().flatten().unwrap();
        let (reading, done) = (Barrier::new(2 * STRIPES + 1), Barrier::new(2 * STRIPES + 1));
        thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| {
                    let held = striped.read();
                    reading.wait();
                    done.wait();
                    assert!(held.is_some());
                });
            }
            reading.wait();
            let writer = scope.spawn(|| drop(striped.write().replace(None)));
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!writer.is_finished());
            assert_eq!(Arc::strong_count(&value), STRIPES + 1);
            done.wait();
        });
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
