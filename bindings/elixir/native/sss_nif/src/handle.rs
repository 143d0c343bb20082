//! A store that can be closed while other calls use it: the application's, or one that belongs to a
//! resource. Must never block a normal scheduler.

use std::sync::{LazyLock, Mutex, PoisonError, mpsc::Sender};

use rustler::{Resource, ResourceArc};
use sss::{Error, ErrorKind, ShardedLock, Store};

use crate::reclaim;

/// `None` once it is closed.
pub struct Handle(ShardedLock<Option<Store>>);

impl Handle {
    /// Lends the store to an operation. `None` if it `may_block`, and so must run on a dirty
    /// scheduler.
    pub fn run_unless<R>(
        &self,
        may_block: impl FnOnce(&Store) -> bool,
        operation: impl FnOnce(&Store) -> Result<R, Error>,
    ) -> Option<Result<R, Error>> {
        match self.0.read().as_ref() {
            Some(store) if may_block(store) => None,
            Some(store) => Some(operation(store)),
            None => Some(Err(closed())),
        }
    }

    /// The store for an operation that may take long. The handle can be closed meanwhile.
    pub fn store(&self) -> Result<Store, Error> {
        self.0.read().clone().ok_or_else(closed)
    }

    /// Closes the handle. Dropping the returned store may take long.
    pub fn close(&self) -> Result<Store, Error> {
        self.0.write().replace(None).ok_or_else(closed)
    }
}

/// The application's store. It is not a resource in a persistent term: OTP 25 calls the destructor
/// of such a resource when the term is erased, even if a process still holds the reference.
pub static APPLICATION: LazyLock<Handle> = LazyLock::new(|| Handle(None.into()));

/// Opens the application's store. If it is already open with the same URL, it stays open: sessions
/// survive a crash of the application.
pub fn open_application(url: &str) -> Result<(), Error> {
    static OPEN_URL: Mutex<String> = Mutex::new(String::new());
    let mut open_url = OPEN_URL.lock().unwrap_or_else(PoisonError::into_inner);
    if *open_url == url && APPLICATION.store().is_ok() {
        return Ok(());
    }
    let store = Store::open(url)?;
    let previous = APPLICATION.0.write().replace(Some(store));
    url.clone_into(&mut open_url);
    drop(previous);
    Ok(())
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
        let handle = Handle(Some(Store::open(url)?).into());
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

fn closed() -> Error {
    Error::new(ErrorKind::Handle, "the store is closed")
}
