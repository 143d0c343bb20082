//! The stores that this process has open, for engines whose stores are shared: all handles of a
//! process to one store use the same open store, and a forked child never uses nor closes what it
//! inherited. It knows nothing of how a store is opened.

#![allow(unsafe_code)] // One ManuallyDrop.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

use crate::{
    error::{Error, ErrorKind, Result},
    os::fork_mark::generation,
    sync::per_process::PerProcess,
};

/// The open stores `S` of one engine, each found by its identity `I`. A static.
pub(crate) struct Registry<I, S> {
    /// Each process has its own. The list that a child inherits is neither locked nor dropped
    /// there.
    stores: PerProcess<Mutex<Stores<I, S>>>,
}

type Stores<I, S> = Vec<(I, Arc<S>)>;

/// A handle to a store in a registry. The store is dropped with its last handle, but never by a
/// forked child, to which its files, locks and connections do not belong.
pub(crate) struct OpenStore<I: 'static, S: 'static> {
    registry: &'static Registry<I, S>,
    store: ManuallyDrop<Arc<S>>,
    /// The process that opened it.
    generation: u32,
}

impl<I: PartialEq, S> Registry<I, S> {
    pub(crate) const fn new() -> Registry<I, S> {
        Registry { stores: PerProcess::new() }
    }

    /// The store with this identity: the one that is open, if `attach` accepts the settings that
    /// are asked for, or a new one made by `open`.
    ///
    /// The registry is locked meanwhile, and while a store is dropped, so that no store is opened
    /// while another thread opens or closes it.
    pub(crate) fn open(
        &'static self,
        identity: I,
        attach: impl FnOnce(&S) -> Result<()>,
        open: impl FnOnce() -> Result<S>,
    ) -> Result<OpenStore<I, S>> {
        let mut stores = self.lock();
        let found = stores.iter().find(|(other, _)| *other == identity).map(|(_, store)| store.clone());
        let store = match found {
            Some(store) => attach(&store).map(|()| store)?,
            None => {
                let store = Arc::new(open()?);
                stores.push((identity, store.clone()));
                store
            }
        };
        Ok(OpenStore { registry: self, store: ManuallyDrop::new(store), generation: generation() })
    }

    /// Calls `f` with each store that this process has open, unless another thread opens or closes
    /// one now.
    pub(crate) fn try_for_each(&'static self, f: impl FnMut(&S)) {
        let stores = match self.stores.get().try_lock() {
            Ok(stores) => stores,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        stores.iter().map(|(_, store)| &**store).for_each(f);
    }
}

impl<I, S> Registry<I, S> {
    fn lock(&self) -> MutexGuard<'_, Stores<I, S>> {
        // A panic in `open` or in the drop of a store leaves the list as it was.
        self.stores.get().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I, S> Deref for OpenStore<I, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

impl<I, S> Drop for OpenStore<I, S> {
    fn drop(&mut self) {
        if self.generation != generation() {
            return;
        }
        let mut stores = self.registry.lock();
        // SAFETY: this is the drop of the handle, so it is not used again.
        let store = unsafe { ManuallyDrop::take(&mut self.store) };
        // References are made under the lock only: these two are the registry's and this handle's.
        if Arc::strong_count(&store) == 2 {
            stores.retain(|(_, other)| !Arc::ptr_eq(other, &store));
        }
        // Before the lock is released.
        drop(store);
    }
}

/// `EXISTS`: the store is open in this process or in another one, with another setting than is
/// asked for.
pub(crate) fn check_setting<T: PartialEq>(name: &str, asked: T, is: T) -> Result<()> {
    if asked == is {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exists, format!("the store is already open with another {name}")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn store_lives_until_last_handle() {
        static REGISTRY: Registry<&str, Counted> = Registry::new();
        let open = |name| REGISTRY.open(name, |_| Ok(()), || Ok(Counted)).unwrap();
        let first = open("a");
        let second = open("a");
        let other = open("b");
        assert!(Arc::ptr_eq(&first.store, &second.store) && !Arc::ptr_eq(&first.store, &other.store));
        drop(first);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
        drop(second);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
        let refused = REGISTRY.open("b", |_| check_setting("clock", true, false), || Ok(Counted)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Exists);
        let mut count = 0;
        REGISTRY.try_for_each(|_| count += 1);
        assert_eq!(count, 1);
    }
}
