//! The table of handles: a number for each open store that is checked on every use, so that a stale, closed, made-up
//! or foreign one is an error and never undefined behaviour.
//!
//! ```text
//! 63        48 47                      16 15      0
//! |  instance  |       generation        |  slot  |
//! ```
//! `instance` is random per process (and copy of the library), never 0 and never all ones, and not an ancestor's;
//! `generation` counts how often the slot was filled and emptied, so it is odd while a store is in it, and a slot whose
//! count would wrap is not used again. A forked child begins with a
//! table of its own, and reaches the inherited one without a lock, only to tell what is inherited.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
};

use once_cell::race::OnceBox;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use super::types::{SSS_GLOBAL, sss_store};
use crate::{
    error::{Error, ErrorKind, Result},
    fork::PerProcess,
    global::global_store,
    sid::fill_random,
    store::Store,
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

struct Slot {
    /// Odd: that of the handle whose store is in the slot. Even: the slot is empty.
    generation: AtomicU32,
    store: RwLock<Option<Store>>,
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
    let store = TABLE.get().close(handle).ok_or_else(|| refused(handle))?;
    drop(store);
    Ok(())
}

/// The store of a handle.
pub(super) fn resolve(handle: sss_store) -> Result<Resolved> {
    if handle == SSS_GLOBAL {
        return Ok(Resolved::Global(global_store()?));
    }
    TABLE.get().get(handle).map(Resolved::Slot).ok_or_else(|| refused(handle))
}

#[cold]
fn refused(handle: sss_store) -> Error {
    if TABLE.inherited().any(|table| table.is_open(handle)) {
        return Error::fixed(ErrorKind::Forked, "the store was opened before fork: open one in the child");
    }
    let message = if handle == 0 { "the store handle is 0" } else { "the store handle is closed, or never was one" };
    Error::fixed(ErrorKind::Handle, message)
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
        let mut place = slot.store.write();
        *place = Some(store);
        let generation = slot.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(place);
        Ok(u64::from(self.instance.load(Ordering::Relaxed)) << 48 | u64::from(generation) << 16 | u64::from(number))
    }

    fn close(&self, handle: sss_store) -> Option<Store> {
        let slot = self.slot(handle)?;
        let mut store = slot.store.write();
        let generation = slot.generation.load(Ordering::Acquire);
        if generation != generation_of(handle) {
            return None;
        }
        let closed = store.take()?;
        if generation == u32::MAX {
            // Never filled again: its last handle must not fit a later store.
            return Some(closed);
        }
        slot.generation.store(generation + 1, Ordering::Release);
        drop(store);
        self.unused.lock().freed.push(handle as u16);
        Some(closed)
    }

    fn get(&self, handle: sss_store) -> Option<MappedRwLockReadGuard<'_, Store>> {
        let slot = self.slot(handle)?;
        let store = slot.store.read();
        // Under the lock: a slot's generation changes together with its store.
        if slot.generation.load(Ordering::Acquire) != generation_of(handle) {
            return None;
        }
        RwLockReadGuard::try_map(store, Option::as_ref).ok()
    }

    /// Without a lock, for inherited tables.
    fn is_open(&self, handle: sss_store) -> bool {
        self.slot(handle).is_some_and(|slot| slot.generation.load(Ordering::Acquire) == generation_of(handle))
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

impl Default for Slot {
    fn default() -> Slot {
        Slot { generation: AtomicU32::new(0), store: RwLock::new(None) }
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
        table.slot(first).unwrap().generation.store(u32::MAX, Ordering::Release);
        let last = first | u64::from(u32::MAX) << 16;
        assert!(table.close(last).is_some());
        assert!(table.get(last).is_none());
        let next = table.open(store).unwrap();
        assert_ne!(next as u16, first as u16);
    }

    #[test]
    fn a_closed_handle_stays_closed_when_its_slot_is_used_again() {
        let table = Table::default();
        let store = Store::open("memory:").unwrap();
        let first = table.open(store.clone()).unwrap();
        assert!(table.close(first).is_some());
        let second = table.open(store).unwrap();
        assert_eq!(first as u16, second as u16);
        assert!(
            (0..=u16::MAX)
                .all(|number| number == second as u16 || !table.is_open(second - second % 65_536 + u64::from(number)))
        );
        assert!(table.get(first).is_none() && table.close(first).is_none() && table.get(second).is_some());
    }
}
