//! The table of handles: a number for each open store that is checked on every use, so that a stale, closed, made-up
//! or foreign one is an error and never undefined behaviour.
//!
//! ```text
//! 63        48 47                      16 15      0
//! |  instance  |       generation        |  slot  |
//! ```
//! `instance` is random per process (and copy of the library), never 0 and never all ones, and not an ancestor's;
//! `generation` counts how often the slot was filled and emptied, so it is odd while a store is in it, and a slot whose
//! count would wrap is not used again.
//!
//! A forked child begins with a table of its own, and reaches the inherited ones without a lock: it never waits for a thread
//! that only its parent has. Where the engine can be used there, an inherited handle works: its slot has a place for each
//! process, and the child opens the store anew into its own.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
};

use once_cell::race::OnceBox;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLockReadGuard};

use super::types::{SSS_GLOBAL, sss_store};
use crate::{
    crypto::random::fill_random,
    error::{Error, ErrorKind, Result},
    global::global_store,
    store::Store,
    sync::{per_process::PerProcess, sharded_lock::ShardedLock},
};

const CHUNK: usize = 256;
const CHUNKS: usize = 256;

static TABLE: PerProcess<Table> = PerProcess::new();

struct Table {
    /// 0 until the first store is opened.
    instance: AtomicU16,
    chunks: [OnceBox<[Slot; CHUNK]>; CHUNKS],
    unused: Mutex<Unused>,
}

#[derive(Default)]
struct Slot {
    /// Odd: that of the handle whose store is in the slot. Even: the slot is empty.
    generation: AtomicU32,
    store: PerProcess<ShardedLock<Option<Store>>>,
}

#[derive(Default)]
struct Unused {
    freed: Vec<u16>,
    /// Slots from here on were never used.
    fresh: usize,
}

/// A new handle to `store`.
pub(super) fn open(store: Store) -> Result<sss_store> {
    TABLE.get().open(store)
}

/// The store that a handle stands for. It stays open while this is held, and a close waits for it.
pub(super) enum Resolved {
    Slot(MappedRwLockReadGuard<'static, Store>),
    Global(&'static Store),
}

impl Deref for Resolved {
    type Target = Store;

    fn deref(&self) -> &Store {
        match self {
            Resolved::Slot(store) => store,
            Resolved::Global(store) => store,
        }
    }
}

/// Ends a handle, when the calls that are under way have finished.
pub(super) fn close(handle: sss_store) -> Result<()> {
    if handle == SSS_GLOBAL {
        return Err(Error::fixed(ErrorKind::Unsupported, "the process-wide store stays open as long as the process"));
    }
    let slot = slot(handle)?;
    slot.adopt(handle)?;
    let store = slot.empty(handle).ok_or_else(closed)?;
    TABLE.get().reuse(handle);
    drop(store);
    Ok(())
}

/// The store of a handle.
pub(super) fn resolve(handle: sss_store) -> Result<Resolved> {
    if handle == SSS_GLOBAL {
        return Ok(Resolved::Global(global_store()?));
    }
    let slot = slot(handle)?;
    match slot.get(handle) {
        Some(store) => Ok(Resolved::Slot(store)),
        None => {
            slot.adopt(handle)?;
            slot.get(handle).map(Resolved::Slot).ok_or_else(closed)
        }
    }
}

/// The slot of a handle that was given out by this process, or by one that it descends from.
fn slot(handle: sss_store) -> Result<&'static Slot> {
    let own = TABLE.get().slot(handle);
    own.or_else(|| TABLE.inherited().find_map(|table| table.slot(handle))).ok_or_else(|| match handle {
        0 => Error::fixed(ErrorKind::Handle, "the store handle is 0"),
        _ => closed(),
    })
}

#[cold]
fn closed() -> Error {
    Error::fixed(ErrorKind::Handle, "the store handle is closed, or never was one")
}

impl Table {
    fn open(&self, store: Store) -> Result<sss_store> {
        let mut unused = self.unused.lock();
        if self.instance.load(Ordering::Relaxed) == 0 {
            self.instance.store(random_instance()?, Ordering::Release);
        }
        let number = match unused.freed.pop() {
            Some(number) => number,
            None if unused.fresh < CHUNK * CHUNKS => {
                unused.fresh += 1;
                (unused.fresh - 1) as u16
            }
            None => return Err(Error::fixed(ErrorKind::Busy, "65536 stores are open")),
        };
        let chunk =
            self.chunks[number as usize / CHUNK].get_or_init(|| Box::new(std::array::from_fn(|_| Slot::default())));
        let slot = &chunk[number as usize % CHUNK];
        let mut place = slot.store.get().write();
        place.replace(Some(store));
        let generation = slot.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(place);
        Ok(u64::from(self.instance.load(Ordering::Relaxed)) << 48 | u64::from(generation) << 16 | u64::from(number))
    }

    /// Has the slot of a handle that was closed used again, if it is one of this table's.
    fn reuse(&self, handle: sss_store) {
        // Never again after its last generation: that handle must not fit a later store.
        if self.slot(handle).is_some() && generation_of(handle) != u32::MAX {
            self.unused.lock().freed.push(handle as u16);
        }
    }

    fn slot(&self, handle: sss_store) -> Option<&Slot> {
        let (instance, number) = ((handle >> 48) as u16, handle as u16 as usize);
        let was_given_out = instance != 0 && generation_of(handle) % 2 == 1;
        if !was_given_out || instance != self.instance.load(Ordering::Acquire) {
            return None;
        }
        Some(&self.chunks[number / CHUNK].get()?[number % CHUNK])
    }
}

impl Slot {
    fn get(&self, handle: sss_store) -> Option<MappedRwLockReadGuard<'_, Store>> {
        let store = self.store.get().read();
        // Under the lock: a slot's generation changes together with its store.
        self.is_of(handle).then(|| RwLockReadGuard::try_map(store, Option::as_ref).ok()).flatten()
    }

    /// Takes the store out, unless another close was faster.
    fn empty(&self, handle: sss_store) -> Option<Store> {
        let mut place = self.store.get().write();
        let store = if self.is_of(handle) { place.replace(None)? } else { return None };
        if generation_of(handle) != u32::MAX {
            self.generation.store(generation_of(handle) + 1, Ordering::Release);
        }
        Some(store)
    }

    /// In a forked child: opens the parent's store anew, unless that was done.
    #[cold]
    fn adopt(&self, handle: sss_store) -> Result<()> {
        let mut place = self.store.get().write();
        if !self.is_of(handle) {
            return Err(closed());
        }
        if place.get().is_none() {
            // A lock that cannot be had is held by a thread of the parent that was just closing the handle.
            let stores = self.store.inherited().filter_map(|store| store.try_get()?);
            place.replace(stores.filter_map(|store| store.reopen_after_fork()).last());
        }
        match place.get() {
            Some(_) => Ok(()),
            None => Err(Error::fixed(
                ErrorKind::Forked,
                "the memory: store was opened before fork: open one in the child, or use lmdb:, which processes share",
            )),
        }
    }

    fn is_of(&self, handle: sss_store) -> bool {
        self.generation.load(Ordering::Acquire) == generation_of(handle)
    }
}

fn generation_of(handle: sss_store) -> u32 {
    (handle >> 16) as u32
}

fn random_instance() -> Result<u16> {
    loop {
        let mut bytes = [0; 2];
        fill_random(&mut bytes)?;
        let instance = u16::from_ne_bytes(bytes);
        let inherited = TABLE.inherited().any(|table| table.instance.load(Ordering::Acquire) == instance);
        // All ones is left to SSS_GLOBAL.
        if !matches!(instance, 0 | u16::MAX) && !inherited {
            return Ok(instance);
        }
    }
}

impl Default for Table {
    fn default() -> Table {
        Table { instance: AtomicU16::new(0), chunks: std::array::from_fn(|_| OnceBox::new()), unused: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_whose_generation_would_wrap_is_not_used_again() {
        let table = Table::default();
        let store = Store::open("memory:").unwrap();
        let first = table.open(store.clone()).unwrap();
        let slot = table.slot(first).unwrap();
        slot.generation.store(u32::MAX, Ordering::Release);
        let last = first | u64::from(u32::MAX) << 16;
        assert!(slot.empty(last).is_some());
        table.reuse(last);
        assert!(slot.get(last).is_none());
        let next = table.open(store).unwrap();
        assert_ne!(next as u16, first as u16);
    }

    #[test]
    fn a_closed_handle_stays_closed_when_its_slot_is_used_again() {
        let table = Table::default();
        let store = Store::open("memory:").unwrap();
        let first = table.open(store.clone()).unwrap();
        assert!(table.slot(first).unwrap().empty(first).is_some());
        table.reuse(first);
        let second = table.open(store).unwrap();
        assert_eq!(first as u16, second as u16);
        let is_open = |handle| table.slot(handle).is_some_and(|slot| slot.get(handle).is_some());
        assert!(
            (0..=u16::MAX)
                .all(|number| number == second as u16 || !is_open(second - second % 65_536 + u64::from(number)))
        );
        let slot = table.slot(first).unwrap();
        assert!(slot.get(first).is_none() && slot.empty(first).is_none() && slot.get(second).is_some());
    }
}
