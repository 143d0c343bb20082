//! What the processes of a store share beside LMDB: state.shm, a small file that all of them map,
//! with the settings in force, the counters, a clock for tests, and the table of last uses.
//! Everything in it is an atomic, so any content is valid.
#![allow(unsafe_code)]

mod commit_state;
mod last_used;
mod writer_queue;

use std::{
    fs::File,
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

pub(super) use self::{
    commit_state::CommitState,
    last_used::{LastUsedTable, SlotRef, SlotState},
    writer_queue::{WriterPermit, WriterQueue},
};
use super::os::{self, Atomics, Mapping};
use crate::{
    error::{Error, ErrorKind, Result},
    os::{clock::Clock, prefetch::prefetch},
    session::{key::LookupKey, policy::Policy},
    stats::Counters,
};

/// The beginning of the file. A new layout adds members at the end, whose zero means what the layout
/// before it did: then a file of that layout can be read as it is. If that is impossible, `open`
/// converts it. A layout older than that need not be read.
#[repr(C)]
pub(super) struct ShmHeader {
    /// `KIND` and the number of the layout; 0 in a file that is being made.
    magic: AtomicU64,
    /// The boot of the machine in which the store was used last.
    pub boot_id: [AtomicU64; 2],
    /// 1: everything is on the disk, so that another boot does not matter.
    is_clean: AtomicU32,
    /// 1 if the processes that have the store open now use `durability=power`.
    pub survives_power_cut: AtomicU32,
    /// 1 if they use `clock=manual`.
    pub manual_clock: AtomicU32,
    /// The namespace of their process ids.
    pub pid_namespace: AtomicU64,
    pub manual_ms: AtomicI64,
    next_generation: AtomicU32,
    /// 1: a write to the disk has failed since the data file was created or last found sound on the
    /// disk.
    pub disk_failed: AtomicU32,
    /// 1: sessions were ended in their slots only, so the next sweep has to look for their records.
    pub must_reclaim: AtomicU32,
    /// Of data.mdb and lock.mdb as the processes have them open now.
    pub inodes: [AtomicU64; 2],
    /// The length of data.mdb for which disk space is reserved, in bytes.
    pub file_size: AtomicU64,
    pub writer_queue: WriterQueue,
    pub commit_state: CommitState,
    pub policy: Policy,
    pub counters: Counters,
}

// SAFETY: `repr(C)`, and atomics only, also in `Policy` and `Counters`.
unsafe impl Atomics for ShmHeader {}

/// The layout of this version. docs/upgrading.md says what a change of it means. Layout 1, which no
/// release has, has the same members: its tests keep the way from one layout to the next open.
const LAYOUT: u8 = 2;
/// The first bytes of the file. The layout is the last one of `magic`.
const KIND: [u8; 7] = *b"sssshm\x00";

/// What a file says of its layout.
pub(super) enum Layout {
    /// Not set yet.
    None,
    /// That of this version.
    Current,
    /// The one before, which this version reads and replaces.
    Previous,
    /// Of a later version.
    Newer,
    /// Damaged, of another program, or too old.
    Unknown,
}

/// Where the table of last uses begins.
pub(super) const HEADER_LEN: usize = 8 << 10;
const _: () = assert!(size_of::<ShmHeader>() <= HEADER_LEN && align_of::<ShmHeader>() <= 4096);

/// The length of a file with so many slots.
pub(super) fn len_for(slots: usize) -> usize {
    HEADER_LEN + slots * size_of::<AtomicU64>()
}

/// Removes the slots from a file that no process maps.
pub(super) fn clear_slots(file: &File) -> Result<()> {
    file.set_len(HEADER_LEN as u64).map_err(|error| os::failed("clear state.shm", error))
}

pub(super) struct SharedMemory(Mapping);

impl SharedMemory {
    /// Maps a file of at least `HEADER_LEN` bytes.
    pub(super) fn new(file: &File, len: usize) -> Result<SharedMemory> {
        Mapping::new(file, len).map(SharedMemory)
    }

    pub(super) fn header(&self) -> &ShmHeader {
        self.0.at(0)
    }

    pub(super) fn layout(&self) -> Layout {
        let [kind @ .., layout] = self.header().magic.load(Ordering::Acquire).to_le_bytes();
        match layout {
            0 if kind == [0; 7] => Layout::None,
            _ if kind != KIND => Layout::Unknown,
            LAYOUT => Layout::Current,
            newer if newer > LAYOUT => Layout::Newer,
            older if older > 0 && older + 1 == LAYOUT => Layout::Previous,
            _ => Layout::Unknown,
        }
    }

    /// After everything that the layout describes.
    pub(super) fn set_layout(&self) {
        let mut magic = [0; 8];
        magic[..7].copy_from_slice(&KIND);
        magic[7] = LAYOUT;
        self.header().magic.store(u64::from_le_bytes(magic), Ordering::Release);
    }

    pub(super) fn last_used(&self) -> LastUsedTable<'_> {
        let count = (self.0.len() - HEADER_LEN) / size_of::<AtomicU64>();
        LastUsedTable::new(self.0.slice(HEADER_LEN, count), &self.header().next_generation)
    }

    /// Starts to fetch the slot of a session, and the page tables on the way to it.
    pub(super) fn prefetch_slot(&self, key: &LookupKey) {
        prefetch(self.last_used().home_address(key));
    }

    /// Writes it to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    pub(super) fn clock(&self) -> Clock<'_> {
        match self.header().manual_clock.load(Ordering::Acquire) {
            0 => Clock::Wall,
            _ => Clock::Manual(&self.header().manual_ms),
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.header().is_clean.load(Ordering::Acquire) == 1
    }

    pub(super) fn set_clean(&self, is_clean: bool) {
        self.header().is_clean.store(is_clean.into(), Ordering::Release);
    }

    /// Fails if the disk has failed since the store was opened: the kernel reports each failure
    /// once, and a later sync succeeds whatever was lost.
    pub(super) fn check_disk(&self) -> Result<()> {
        match self.header().disk_failed.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => Err(Error::fixed(
                ErrorKind::Io,
                "the disk has failed to take what was written: close the store everywhere and open it again",
            )),
        }
    }

    /// Remembers that the disk has failed, if it has.
    pub(super) fn note_failure<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io) {
            self.header().disk_failed.store(1, Ordering::Release);
        }
        result
    }
}
