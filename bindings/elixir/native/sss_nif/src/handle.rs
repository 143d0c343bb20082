//! What an Elixir store is made of: a handle to a `sss::Store` that can be closed, as a resource or as the one of the
//! application. Must never make a scheduler wait: what may take long is done on a dirty scheduler or another thread.

use std::{
    ops::Deref,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::LazyLock,
    thread,
};

use parking_lot::Mutex;
use rustler::{Decoder, NifResult, Resource, ResourceArc, Term};
use sss::{Blocking, Error, ErrorKind, ShardedLock, Store};

use crate::terms::atoms;

/// `None` once it is closed.
pub struct Handle(ShardedLock<Option<Store>>);

/// The application's store. It is not a resource that the application keeps in a persistent term: OTP 25 calls the
/// destructor of such a resource when the term is erased, also while a process still holds the reference.
static APPLICATION: LazyLock<Handle> = LazyLock::new(|| Handle(None.into()));
static APPLICATION_URL: Mutex<String> = Mutex::new(String::new());

/// Up to here a scheduler can free the sessions in memory itself; more are given back on a thread.
const FEW_SESSIONS: u64 = 1000;

#[rustler::resource_impl]
impl Resource for Handle {}

// A panic leaves nothing half done behind the lock: it only guards whether there is a store.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl Handle {
    pub fn new(store: Store) -> Handle {
        Handle(Some(store).into())
    }

    /// Lends the store to an operation; `None` if the operation is one of those that may wait there.
    pub fn with<R>(
        &self,
        may_wait: impl FnOnce(Blocking) -> bool,
        f: impl FnOnce(&Store) -> Result<R, Error>,
    ) -> Option<Result<R, Error>> {
        match self.0.read().as_ref() {
            Some(store) if may_wait(store.may_block()) => None,
            Some(store) => Some(f(store)),
            None => Some(Err(closed())),
        }
    }

    /// The store for an operation that may take long, which then keeps nobody from closing the handle.
    pub fn store(&self) -> Result<Store, Error> {
        self.0.read().clone().ok_or_else(closed)
    }

    /// Ends the handle and gives the store to the caller, who may be the last to hold it.
    pub fn close(&self) -> Result<Store, Error> {
        self.0.write().replace(None).ok_or_else(closed)
    }
}

impl Drop for Handle {
    /// The garbage collector calls this on a scheduler thread, where millions of sessions cannot be wiped, and no file be
    /// written to the disk.
    fn drop(&mut self) {
        let Some(store) = self.0.write().replace(None) else { return };
        if !store.may_block().writes && store.stats().is_ok_and(|stats| stats.sessions <= FEW_SESSIONS) {
            return;
        }
        // If no thread can be had, the closure is dropped here, and the store with it.
        let _ = thread::Builder::new().name("sss-drop".into()).spawn(move || drop(store));
    }
}

/// Opens the application's store. If it is open with this very URL, it stays: sessions survive a crash of the
/// application.
pub fn open_application(url: &str) -> Result<(), Error> {
    let mut open_url = APPLICATION_URL.lock();
    if *open_url == url && APPLICATION.store().is_ok() {
        return Ok(());
    }
    // Not under the lock: it may take long.
    let store = Store::open(url)?;
    let before = APPLICATION.0.write().replace(Some(store));
    url.clone_into(&mut open_url);
    drop(before);
    Ok(())
}

/// The first argument of a NIF: `:application`, or the resource that `open` returned.
pub enum Given {
    Application,
    Own(ResourceArc<Handle>),
}

impl<'a> Decoder<'a> for Given {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if atoms::application() == term { Ok(Given::Application) } else { term.decode().map(Given::Own) }
    }
}

impl Deref for Given {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        match self {
            Given::Application => &APPLICATION,
            Given::Own(handle) => handle,
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Handle, "the store is closed")
}
