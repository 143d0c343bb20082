//! A store that can be closed while other calls use it: one that belongs to a resource, or one with
//! a name. Must never block a normal scheduler.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc::Sender},
};

use rustler::{Env, LocalPid, Resource, ResourceArc, sys::ErlNifTerm, types::atom::Atom};
use sss::{Error, ErrorKind, ShardedLock, Store};

use crate::reclaim;

/// A store, or none before it is opened and after it is closed.
pub struct Handle {
    store: ShardedLock<Option<Store>>,
    /// The error of a call that finds it closed.
    closed: String,
}

impl Handle {
    fn new(closed: String, store: Option<Store>) -> Handle {
        Handle { store: store.into(), closed }
    }

    /// Lends the store to an operation. `None` if it `may_block`, and so must run on a dirty
    /// scheduler.
    pub fn run_unless<R>(
        &self,
        may_block: impl FnOnce(&Store) -> bool,
        operation: impl FnOnce(&Store) -> Result<R, Error>,
    ) -> Option<Result<R, Error>> {
        match self.store.read().as_ref() {
            Some(store) if may_block(store) => None,
            Some(store) => Some(operation(store)),
            None => Some(Err(self.closed())),
        }
    }

    /// The store for an operation that may take long. The handle can be closed meanwhile.
    pub fn store(&self) -> Result<Store, Error> {
        self.store.read().clone().ok_or_else(|| self.closed())
    }

    /// Closes the handle. Dropping the returned store may take long.
    pub fn close(&self) -> Result<Store, Error> {
        self.replace(None).ok_or_else(|| self.closed())
    }

    fn replace(&self, store: Option<Store>) -> Option<Store> {
        self.store.write().replace(store)
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Handle, self.closed.clone())
    }
}

/// The stores with names, by atom. A name is never removed: it is an atom, which the VM never frees
/// either. They are not resources in persistent terms: OTP 25 calls the destructor of such a
/// resource when the term is erased, even if a process still holds the reference.
static NAMED: LazyLock<ShardedLock<HashMap<ErlNifTerm, &'static NamedStore>>> = LazyLock::new(ShardedLock::default);

/// A store that stays open while the processes that it belongs to die and start again.
pub struct NamedStore {
    handle: Handle,
    opening: Mutex<Opening>,
}

/// How a named store was opened.
#[derive(Default)]
struct Opening {
    url: String,
    /// The top supervisor of the tree that has stopped the store's process in an orderly way.
    stopped_by: Option<LocalPid>,
}

impl NamedStore {
    /// The store with this name, opened or not.
    pub fn get(env: Env, name: Atom) -> &'static NamedStore {
        if let Some(store) = NAMED.read().get(&name.as_c_arg()) {
            return store;
        }
        let mut named = NAMED.write();
        let mut stores = named.get().clone();
        let store = *stores.entry(name.as_c_arg()).or_insert_with(|| {
            let name = name.to_term(env).atom_to_string().unwrap_or_default();
            let closed = format!("the store {} is not running", name.strip_prefix("Elixir.").unwrap_or(&name));
            Box::leak(Box::new(NamedStore { handle: Handle::new(closed, None), opening: Mutex::default() }))
        });
        named.replace(stores);
        store
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Opens the store for a process in the tree of `supervisor`. A store that is open with the same
    /// URL stays open if its process has died, or if the same tree has stopped it. After any other
    /// stop it begins without sessions.
    pub fn open(&self, url: &str, supervisor: LocalPid) -> Result<(), Error> {
        let mut opening = self.opening();
        let same_owner = opening.stopped_by.is_none_or(|stopped_by| stopped_by == supervisor);
        if !(same_owner && opening.url == url && self.handle.store().is_ok()) {
            drop(self.handle.replace(None));
            self.handle.replace(Some(Store::open(url)?));
        }
        *opening = Opening { url: url.to_owned(), stopped_by: None };
        Ok(())
    }

    /// The tree of `supervisor` has stopped the store's process in an orderly way.
    pub fn stopped(&self, supervisor: LocalPid) {
        self.opening().stopped_by = Some(supervisor);
    }

    /// Closes the store if the tree of `supervisor` has stopped its process and has not started it
    /// again.
    pub fn close_stopped(&self, supervisor: LocalPid) {
        let opening = self.opening();
        if opening.stopped_by == Some(supervisor) {
            drop(self.handle.replace(None));
        }
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store of its own, which closes when the garbage collector frees the last reference to it.
pub struct StoreResource {
    handle: Handle,
    reclaim: Sender<Store>,
}

#[rustler::resource_impl]
impl Resource for StoreResource {}

impl StoreResource {
    pub fn open(url: &str) -> Result<ResourceArc<StoreResource>, Error> {
        let reclaim = reclaim::queue()?;
        let handle = Handle::new("the store is closed".into(), Some(Store::open(url)?));
        Ok(ResourceArc::new(StoreResource { handle, reclaim }))
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for StoreResource {
    fn drop(&mut self) {
        if let Ok(store) = self.handle.close() {
            // Sending does not block. It fails only if the thread has died, which closes the store
            // here.
            let _ = self.reclaim.send(store);
        }
    }
}
