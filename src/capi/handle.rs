//! The table of handles. A handle is a number that is checked on every use, so that a stale,
//! closed, made-up or foreign one is an error and never undefined behaviour.
//!
//! ```text
//! 63        48 47                      16 15      0
//! |  instance  |       generation        |  slot  |
//! ```
//! `instance` is random per process (and per copy of the library), never 0, never all ones, and not
//! that of an ancestor. `generation` counts how often the slot was filled and emptied, so it is odd
//! while the slot holds a store. A slot whose generation would wrap is not reused.
//!
//! A forked child starts with a table of its own and reads the inherited ones without a lock, so it
//! never waits for a thread that exists only in its parent. An inherited handle works where the
//! engine can be used in a child: its slot has an entry for each child, which opens the store again
//! into its own.

use std::{
    ops::Deref,
    sync::{
        Mutex,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

use once_cell::race::OnceBox;

use super::types::{SSS_GLOBAL, sss_store};
use crate::{
    crypto::random::fill_random,
    error::{Error, ErrorKind, Result},
    global::global_store,
    store::Store,
    sync::{
        ignore_poison,
        per_process::PerProcess,
        sharded_lock::{ShardedLock, ShardedLockReadGuard},
    },
};

const SLOTS_PER_CHUNK: usize = 64;
const MAX_CHUNKS: usize = 1024;

static TABLE: PerProcess<Table> = PerProcess::new();

struct Table {
    /// 0 until the first store is opened.
    instance: AtomicU16,
    chunks: [OnceBox<[Slot; SLOTS_PER_CHUNK]>; MAX_CHUNKS],
    free_slots: Mutex<FreeSlots>,
}

#[derive(Default)]
struct Slot {
    /// Odd: that of the handle whose store the slot holds. Even: the slot is empty.
    generation: AtomicU32,
    /// Used by the process whose table this is.
    store: ShardedLock<Option<Store>>,
    /// Used by forked children.
    reopened: PerProcess<ShardedLock<Option<Store>>>,
}

/// A slot, and the entry in it that belongs to this process.
#[derive(Clone, Copy)]
struct SlotEntry<'a> {
    slot: &'a Slot,
    is_inherited: bool,
}

#[derive(Default)]
struct FreeSlots {
    closed: Vec<u16>,
    /// Slots from this one on have never been used.
    never_used: usize,
}

/// Makes a handle to `store`.
pub(super) fn open(store: Store) -> Result<sss_store> {
    TABLE.get().open(store)
}

/// Access to the store of a handle. A close waits until the guard is dropped.
pub(super) enum StoreGuard {
    /// Holds a store: `Slot::read` checks it.
    Slot(ShardedLockReadGuard<'static, Option<Store>>),
    Global(&'static Store),
}

impl Deref for StoreGuard {
    type Target = Store;

    #[inline]
    fn deref(&self) -> &Store {
        match self {
            StoreGuard::Slot(slot) => match &**slot {
                Some(store) => store,
                None => unreachable!("a guard of an empty slot"),
            },
            StoreGuard::Global(store) => store,
        }
    }
}

/// Ends a handle once the calls that use it have returned.
pub(super) fn close(handle: sss_store) -> Result<()> {
    if handle == SSS_GLOBAL {
        return Err(Error::fixed(ErrorKind::Unsupported, "the process-wide store stays open as long as the process"));
    }
    let slot = slot(handle)?;
    slot.reopen_inherited(handle)?;
    let store = slot.take(handle).ok_or_else(closed)?;
    TABLE.get().reuse(handle);
    drop(store);
    Ok(())
}

/// The store of a handle.
pub(super) fn resolve(handle: sss_store) -> Result<StoreGuard> {
    if handle == SSS_GLOBAL {
        return Ok(StoreGuard::Global(global_store()?));
    }
    let slot = slot(handle)?;
    match slot.read(handle) {
        Some(store) => Ok(StoreGuard::Slot(store)),
        None => {
            slot.reopen_inherited(handle)?;
            slot.read(handle).map(StoreGuard::Slot).ok_or_else(closed)
        }
    }
}

/// The slot of a handle of this process or of one of its ancestors.
fn slot(handle: sss_store) -> Result<SlotEntry<'static>> {
    if let Some(slot) = TABLE.get().slot(handle) {
        return Ok(SlotEntry { slot, is_inherited: false });
    }
    match TABLE.inherited().find_map(|table| table.slot(handle)) {
        Some(slot) => Ok(SlotEntry { slot, is_inherited: true }),
        None if handle == 0 => Err(Error::fixed(ErrorKind::Handle, "the store handle is 0")),
        None => Err(closed()),
    }
}

#[cold]
fn closed() -> Error {
    Error::fixed(ErrorKind::Handle, "the store handle is closed, or never was one")
}

impl Table {
    fn open(&self, store: Store) -> Result<sss_store> {
        let mut free_slots = ignore_poison(self.free_slots.lock());
        if self.instance.load(Ordering::Relaxed) == 0 {
            self.instance.store(random_instance()?, Ordering::Release);
        }
        let number = match free_slots.closed.pop() {
            Some(number) => number,
            None if free_slots.never_used < SLOTS_PER_CHUNK * MAX_CHUNKS => {
                free_slots.never_used += 1;
                (free_slots.never_used - 1) as u16
            }
            None => return Err(Error::fixed(ErrorKind::Busy, "65536 stores are open")),
        };
        let chunk = self.chunks[number as usize / SLOTS_PER_CHUNK].get_or_init(new_chunk);
        let slot = &chunk[number as usize % SLOTS_PER_CHUNK];
        let mut locked = slot.store.write();
        locked.replace(Some(store));
        let generation = slot.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(locked);
        Ok(u64::from(self.instance.load(Ordering::Relaxed)) << 48 | u64::from(generation) << 16 | u64::from(number))
    }

    /// Makes the slot of a closed handle available again, if it is one of this table's.
    fn reuse(&self, handle: sss_store) {
        // Not after its last generation: a handle must not fit a later store.
        if self.slot(handle).is_some() && generation_of(handle) != u32::MAX {
            ignore_poison(self.free_slots.lock()).closed.push(handle as u16);
        }
    }

    fn slot(&self, handle: sss_store) -> Option<&Slot> {
        let instance = (handle >> 48) as u16;
        let number = usize::from(handle as u16);
        let was_given_out = instance != 0 && generation_of(handle) % 2 == 1;
        if !was_given_out || instance != self.instance.load(Ordering::Acquire) {
            return None;
        }
        Some(&self.chunks[number / SLOTS_PER_CHUNK].get()?[number % SLOTS_PER_CHUNK])
    }
}

/// In one piece of several pages, so that slots, which stay for ever, keep no freed memory of
/// stores from being given back. Not on the stack, which may be small.
fn new_chunk() -> Box<[Slot; SLOTS_PER_CHUNK]> {
    let slots: Vec<Slot> = (0..SLOTS_PER_CHUNK).map(|_| Slot::default()).collect();
    match slots.try_into() {
        Ok(chunk) => chunk,
        Err(_) => unreachable!("a chunk has this many slots"),
    }
}

impl<'a> SlotEntry<'a> {
    fn lock(self) -> &'a ShardedLock<Option<Store>> {
        if self.is_inherited { self.slot.reopened.get() } else { &self.slot.store }
    }

    /// The store of this handle: the guard never holds `None`.
    fn read(self, handle: sss_store) -> Option<ShardedLockReadGuard<'a, Option<Store>>> {
        let store = self.lock().read();
        // Under the lock, because a slot's generation changes together with its store.
        (self.matches(handle) && store.is_some()).then_some(store)
    }

    /// Takes the store out, unless another close was faster.
    fn take(self, handle: sss_store) -> Option<Store> {
        let mut locked = self.lock().write();
        let store = if self.matches(handle) { locked.replace(None)? } else { return None };
        if generation_of(handle) != u32::MAX {
            self.slot.generation.store(generation_of(handle) + 1, Ordering::Release);
        }
        Some(store)
    }

    /// In a forked child: opens the parent's store for this process, unless it is open.
    #[cold]
    fn reopen_inherited(self, handle: sss_store) -> Result<()> {
        let mut locked = self.lock().write();
        if !self.matches(handle) {
            return Err(closed());
        }
        if locked.get().is_none() && self.is_inherited {
            // A lock that cannot be had was held at the fork by a thread of the parent that was
            // closing the handle.
            let ancestors = std::iter::once(&self.slot.store).chain(self.slot.reopened.inherited());
            let stores = ancestors.filter_map(|store| store.try_get()?);
            locked.replace(stores.filter_map(|store| store.reopen_after_fork()).last());
        }
        match locked.get() {
            Some(_) => Ok(()),
            None => Err(Error::fixed(
                ErrorKind::Forked,
                "the memory: store was opened before fork: open one in the child, or use lmdb:, which processes share",
            )),
        }
    }

    fn matches(self, handle: sss_store) -> bool {
        self.slot.generation.load(Ordering::Acquire) == generation_of(handle)
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
        // All ones is reserved for SSS_GLOBAL.
        if !matches!(instance, 0 | u16::MAX) && !inherited {
            return Ok(instance);
        }
    }
}

impl Default for Table {
    fn default() -> Table {
        Table {
            instance: AtomicU16::new(0),
            chunks: std::array::from_fn(|_| OnceBox::new()),
            free_slots: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(table: &Table, handle: sss_store) -> SlotEntry<'_> {
        SlotEntry { slot: table.slot(handle).unwrap(), is_inherited: false }
    }

    #[test]
    fn slot_is_not_reused_after_last_generation() {
        let table = Table::default();
        let store = Store::open("memory:").unwrap();
        let first = table.open(store.clone()).unwrap();
        let slot = entry(&table, first);
        slot.slot.generation.store(u32::MAX, Ordering::Release);
        let last = first | u64::from(u32::MAX) << 16;
        assert!(slot.take(last).is_some());
        table.reuse(last);
        assert!(slot.read(last).is_none());
        let next = table.open(store).unwrap();
        assert_ne!(next as u16, first as u16);
    }

    #[test]
    fn closed_handle_is_invalid_after_slot_reuse() {
        let table = Table::default();
        let store = Store::open("memory:").unwrap();
        let first = table.open(store.clone()).unwrap();
        assert!(entry(&table, first).take(first).is_some());
        table.reuse(first);
        let second = table.open(store).unwrap();
        assert_eq!(first as u16, second as u16);
        let is_open = |handle| table.slot(handle).is_some() && entry(&table, handle).read(handle).is_some();
        assert!(
            (0..=u16::MAX)
                .all(|number| number == second as u16 || !is_open(second - second % 65_536 + u64::from(number)))
        );
        let slot = entry(&table, first);
        assert!(slot.read(first).is_none() && slot.take(first).is_none() && slot.read(second).is_some());
    }
}
