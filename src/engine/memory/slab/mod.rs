//! The slab: where sessions are stored. Header and payload lie together in one slot; slots of one
//! size class share chunks of 64 KiB.
//!
//! ```text
//! slot = key 16 | created 8 | last seen 8 | version 8 | length 4 | flags 4
//!      | [own timeouts 16 | principal 16 | [authenticated 8]] | [label] | payload
//! ```
//! The upper half of the flags is the length of the label.
//! A free slot is wiped except for the link to the next free one. The allocator's state and the
//! deadlines are kept apart from the slots, so using a session touches nothing here but its slot.

mod address;
mod allocator;
mod deadlines;
mod large;

use std::sync::Arc;

pub(super) use self::{address::SlotAddress, deadlines::DueCursor};
use self::{
    allocator::{Compaction, MAX_SLOT_SIZE, SlotAllocator, class_of},
    deadlines::Deadlines,
    large::LargePayloads,
};
use super::alloc::pool::{Chunk, Pool};
use crate::{
    error::{Error, Result},
    session::{
        header::{NEVER_AUTHENTICATED, RecordHeader, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::Timeouts,
    },
};

const KEY: usize = 0;
const CREATED: usize = 16;
const LAST_SEEN: usize = 24;
const VERSION: usize = 32;
const LENGTH: usize = 40;
const FLAGS: usize = 44;
const HEADER_LEN: usize = 48;
/// Behind the header, if the session has timeouts of its own, a principal or a login.
const ABSOLUTE_TIMEOUT: usize = 48;
const IDLE_TIMEOUT: usize = 56;
const PRINCIPAL: usize = 64;
const EXTENDED_HEADER_LEN: usize = 80;
/// Behind the extension, if the login was later than the creation.
const AUTHENTICATED: usize = 80;
const AUTHENTICATED_HEADER_LEN: usize = 88;

const EXTENDED: u32 = 1;
const HAS_PRINCIPAL: u32 = 2;
/// The slot holds the number of a large payload instead of the payload.
const LARGE: u32 = 4;
/// The session was created with a principal.
const AUTHENTICATED_AT_CREATION: u32 = 8;
const HAS_AUTHENTICATED: u32 = 16;
const LABEL_LEN_SHIFT: u32 = 16;

pub(super) struct Slab {
    pool: Arc<Pool>,
    chunks: Vec<Option<Chunk>>,
    allocator: SlotAllocator,
    deadlines: Deadlines,
    large: LargePayloads,
}

/// A session that compaction moved to another slot.
pub(super) struct Relocation {
    pub key: u128,
    pub from: SlotAddress,
    pub to: SlotAddress,
}

impl Slab {
    pub(super) fn new(pool: Arc<Pool>) -> Slab {
        Slab {
            pool,
            chunks: Vec::new(),
            allocator: SlotAllocator::default(),
            deadlines: Deadlines::default(),
            large: LargePayloads::default(),
        }
    }

    /// Begins to fetch a slot that is about to be used.
    pub(super) fn prefetch(&self, slot: SlotAddress) {
        if let Some(chunk) = &self.chunks[slot.chunk()] {
            chunk.prefetch(slot.offset(), self.allocator.slot_size(slot));
        }
    }

    pub(super) fn key(&self, slot: SlotAddress) -> u128 {
        u128::from_le_bytes(field(self.bytes(slot), KEY))
    }

    pub(super) fn header(&self, slot: SlotAddress) -> RecordHeader {
        let bytes = self.bytes(slot);
        let flags = u32::from_le_bytes(field(bytes, FLAGS));
        let time = |at| i64::from_le_bytes(field(bytes, at));
        let mut header = RecordHeader {
            version: u64::from_le_bytes(field(bytes, VERSION)),
            created: time(CREATED),
            authenticated: NEVER_AUTHENTICATED,
            counted_from: time(CREATED),
            last_seen: time(LAST_SEEN),
            own: Timeouts { absolute: 0, idle: 0 },
            principal: None,
        };
        if flags & EXTENDED != 0 {
            header.own = Timeouts { absolute: time(ABSOLUTE_TIMEOUT), idle: time(IDLE_TIMEOUT) };
            if flags & HAS_PRINCIPAL != 0 {
                header.principal = Some(PrincipalKey(u128::from_le_bytes(field(bytes, PRINCIPAL)), 0));
            }
            if flags & AUTHENTICATED_AT_CREATION != 0 {
                header.authenticated = header.created;
            } else if flags & HAS_AUTHENTICATED != 0 {
                header.authenticated = time(AUTHENTICATED);
                // The clock of this engine is never ahead.
                header.counted_from = header.authenticated;
            }
        }
        header
    }

    /// The label as it is stored; empty if there is none.
    pub(super) fn label(&self, slot: SlotAddress) -> &[u8] {
        let bytes = self.bytes(slot);
        let flags = u32::from_le_bytes(field(bytes, FLAGS));
        let end = payload_at(flags);
        &bytes[end - label_len(flags)..end]
    }

    /// The payload as it is stored: sealed, if the store seals.
    pub(super) fn payload(&self, slot: SlotAddress) -> &[u8] {
        let bytes = self.bytes(slot);
        let flags = u32::from_le_bytes(field(bytes, FLAGS));
        let start = payload_at(flags);
        if flags & LARGE != 0 {
            return self.large.get(u32::from_le_bytes(field(bytes, start)));
        }
        &bytes[start..start + u32::from_le_bytes(field(bytes, LENGTH)) as usize]
    }

    pub(super) fn record<'a>(&'a self, slot: SlotAddress, header: &'a RecordHeader) -> StoredRecord<'a> {
        StoredRecord { key: LookupKey(self.key(slot), 0), header, payload: self.payload(slot) }
    }

    pub(super) fn set_last_seen(&mut self, slot: SlotAddress, last_seen: i64) {
        put(self.bytes_mut(slot), LAST_SEEN, last_seen.to_le_bytes());
    }

    /// Stores a session in a new slot, due at `deadline`. `fill` writes the `len` bytes of the
    /// payload.
    pub(super) fn insert(
        &mut self,
        key: u128,
        header: &RecordHeader,
        label: &[u8],
        deadline: i64,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<SlotAddress> {
        let flags = flags_of(header, label.len());
        let (class, is_large) = class_for(payload_at(flags), len);
        let large = if is_large { Some(self.large.add(len)?) } else { None };
        let slot = match self.allocate(class) {
            Ok(slot) => slot,
            Err(error) => {
                if let Some(number) = large {
                    self.large.remove(number);
                }
                return Err(error);
            }
        };
        put(self.bytes_mut(slot), KEY, key.to_le_bytes());
        self.write_header(slot, flags, header, len, large);
        if !label.is_empty() {
            let end = payload_at(flags);
            self.bytes_mut(slot)[end - label.len()..end].copy_from_slice(label);
        }
        self.schedule(slot, deadline);
        if let Err(error) = fill(self.payload_mut(slot)) {
            self.remove(slot);
            return Err(error);
        }
        Ok(slot)
    }

    /// Overwrites header and payload of a session in place, which keeps its label. False, and nothing
    /// done, if they need a slot of another class.
    pub(super) fn overwrite(
        &mut self,
        slot: SlotAddress,
        header: &RecordHeader,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<bool> {
        let old_flags = u32::from_le_bytes(field(self.bytes(slot), FLAGS));
        let flags = flags_of(header, label_len(old_flags));
        let (old_start, start) = (payload_at(old_flags), payload_at(flags));
        let (class, is_large) = class_for(start, len);
        // The label stays where it is, unless the header becomes longer or shorter.
        let moves_label = old_start != start && label_len(flags) > 0;
        if is_large || old_flags & LARGE != 0 || class != self.allocator.class(slot) || moves_label {
            return Ok(false);
        }
        let old_end = old_start + self.payload(slot).len();
        self.write_header(slot, flags, header, len, None);
        let payload = self.payload_mut(slot);
        fill(payload)?;
        let end = start + len;
        if end < old_end {
            wipe(&mut self.bytes_mut(slot)[end..old_end]);
        }
        Ok(true)
    }

    /// Wipes and frees a slot.
    pub(super) fn remove(&mut self, slot: SlotAddress) {
        let flags = u32::from_le_bytes(field(self.bytes(slot), FLAGS));
        let mut end = payload_at(flags) + self.payload(slot).len();
        if flags & LARGE != 0 {
            let number = u32::from_le_bytes(field(self.bytes(slot), payload_at(flags)));
            self.large.remove(number);
            end = payload_at(flags) + size_of_val(&number);
        }
        wipe(&mut self.bytes_mut(slot)[..end]);
        self.free(slot);
    }

    /// Moves one session so that its chunk can be given back in the end, if memory is not used
    /// well. The caller corrects the index.
    pub(super) fn compact(&mut self) -> Option<Relocation> {
        let (from, class) = loop {
            match self.allocator.next_compaction(|chunk, index| self.deadlines.is_live(chunk, index))? {
                Compaction::Move { from, class } => break (from, class),
                Compaction::RemoveChunk(chunk) => self.remove_chunk(chunk),
            }
        };
        if self.allocator.is_full(class) {
            // The session's chunk is the only one. In one without pages the sessions take no more
            // than they need.
            self.add_chunk(class, Pool::allocate_released).ok()?;
        }
        let to = self.allocate(class).ok()?;
        let size = self.allocator.slot_size(from);
        let start = from.offset();
        // The target is in another chunk, so the source can be taken out meanwhile.
        let source = self.chunks[from.chunk()].take()?;
        self.bytes_mut(to)[..size].copy_from_slice(&source[start..start + size]);
        self.chunks[from.chunk()] = Some(source);
        self.schedule(to, self.deadlines.scheduled(from.chunk(), self.allocator.index_in_chunk(from)));
        wipe(&mut self.bytes_mut(from)[..size]);
        self.free(from);
        Some(Relocation { key: self.key(to), from, to })
    }

    /// The next session from the cursor on that may be due: its scheduled deadline has come. The
    /// caller removes it or schedules it later than `now`. `None`: there is none up to the end, and
    /// the cursor is at the beginning again.
    pub(super) fn next_due(&mut self, cursor: &mut DueCursor, now: i64) -> Option<SlotAddress> {
        let (chunk, index) = self.deadlines.next_due(cursor, now)?;
        Some(self.allocator.address(chunk, index))
    }

    /// Schedules a session, which must not be later than its real deadline.
    pub(super) fn schedule(&mut self, slot: SlotAddress, deadline: i64) {
        self.deadlines.schedule(slot.chunk(), self.allocator.index_in_chunk(slot), deadline);
    }

    /// Makes every session due, after timeouts were shortened.
    pub(super) fn make_all_due(&mut self) {
        self.deadlines.make_all_due();
    }

    fn allocate(&mut self, class: usize) -> Result<SlotAddress> {
        if self.allocator.is_full(class) {
            self.add_chunk(class, Pool::allocate)?;
        }
        if let Some(next) = self.allocator.peek_next(class) {
            let index = self.allocator.index_in_chunk(next);
            self.deadlines.reserve(next.chunk(), index, self.allocator.slots_in(next.chunk()))?;
        }
        let chunks = &mut self.chunks;
        let slot = self.allocator.allocate(class, |slot| {
            // The link to the next free slot is all that a free slot holds.
            let Some(chunk) = &mut chunks[slot.chunk()] else { return 0 };
            let link = &mut chunk[slot.offset()..slot.offset() + size_of::<u16>()];
            let next = u16::from_le_bytes(field(link, 0));
            wipe(link);
            next
        });
        // Otherwise a bulk of creates waits for the memory of each slot.
        if let Some(next) = self.allocator.peek_next(class) {
            self.prefetch(next);
        }
        Ok(slot)
    }

    fn add_chunk(&mut self, class: usize, allocate: fn(&Arc<Pool>) -> Option<Chunk>) -> Result<()> {
        self.chunks.try_reserve(1).map_err(|_| Error::no_memory())?;
        let chunk = allocate(&self.pool).ok_or_else(Error::no_memory)?;
        let number = self.allocator.add_chunk(class, chunk.was_resident())?;
        if let Err(error) = self.deadlines.add_chunk(number) {
            self.allocator.remove_chunk(number);
            return Err(error);
        }
        if number == self.chunks.len() {
            self.chunks.push(Some(chunk));
        } else {
            self.chunks[number] = Some(chunk);
        }
        Ok(())
    }

    /// Frees a wiped slot, and its chunk if that is empty.
    fn free(&mut self, slot: SlotAddress) {
        let index = self.allocator.index_in_chunk(slot);
        self.deadlines.unschedule(slot.chunk(), index);
        let freed = self.allocator.free(slot, index);
        put(self.bytes_mut(slot), 0, freed.next_free.to_le_bytes());
        if freed.remove_chunk {
            self.remove_chunk(slot.chunk());
        }
    }

    /// Gives a chunk without sessions back.
    fn remove_chunk(&mut self, chunk: usize) {
        self.allocator.remove_chunk(chunk);
        self.deadlines.remove_chunk(chunk);
        // It holds links only: every slot was wiped when it was freed.
        self.chunks[chunk] = None;
    }

    fn write_header(&mut self, slot: SlotAddress, flags: u32, header: &RecordHeader, len: usize, large: Option<u32>) {
        let flags = flags | if large.is_some() { LARGE } else { 0 };
        let bytes = self.bytes_mut(slot);
        put(bytes, CREATED, header.created.to_le_bytes());
        put(bytes, LAST_SEEN, header.last_seen.to_le_bytes());
        put(bytes, VERSION, header.version.to_le_bytes());
        put(bytes, LENGTH, (if large.is_some() { 0 } else { len as u32 }).to_le_bytes());
        put(bytes, FLAGS, flags.to_le_bytes());
        if flags & EXTENDED != 0 {
            put(bytes, ABSOLUTE_TIMEOUT, header.own.absolute.to_le_bytes());
            put(bytes, IDLE_TIMEOUT, header.own.idle.to_le_bytes());
            put(bytes, PRINCIPAL, header.principal.map_or(0, |principal| principal.0).to_le_bytes());
            if flags & HAS_AUTHENTICATED != 0 {
                put(bytes, AUTHENTICATED, header.authenticated.to_le_bytes());
            }
        }
        if let Some(number) = large {
            put(bytes, payload_at(flags), number.to_le_bytes());
        }
    }

    fn payload_mut(&mut self, slot: SlotAddress) -> &mut [u8] {
        let bytes = self.bytes(slot);
        let flags = u32::from_le_bytes(field(bytes, FLAGS));
        let start = payload_at(flags);
        if flags & LARGE != 0 {
            let number = u32::from_le_bytes(field(bytes, start));
            return self.large.get_mut(number);
        }
        let len = u32::from_le_bytes(field(bytes, LENGTH)) as usize;
        &mut self.bytes_mut(slot)[start..start + len]
    }

    /// From the beginning of the slot to the end of its chunk.
    fn bytes(&self, slot: SlotAddress) -> &[u8] {
        match &self.chunks[slot.chunk()] {
            Some(chunk) => &chunk[slot.offset()..],
            None => unreachable!("the chunk of a slot exists"),
        }
    }

    fn bytes_mut(&mut self, slot: SlotAddress) -> &mut [u8] {
        match &mut self.chunks[slot.chunk()] {
            Some(chunk) => &mut chunk[slot.offset()..],
            None => unreachable!("the chunk of a slot exists"),
        }
    }

    #[cfg(test)]
    pub(super) fn chunks_in_use(&self) -> usize {
        self.chunks.iter().flatten().count()
    }

    #[cfg(test)]
    pub(super) fn check(&self, live: usize) {
        self.allocator.check(live);
        self.deadlines.check(live);
    }
}

/// The flags of a session whose payload lies in its slot.
fn flags_of(header: &RecordHeader, label_len: usize) -> u32 {
    debug_assert!(label_len == 0 || header.principal.is_some(), "only a session with a principal has a label");
    let mut flags = if header.own == (Timeouts { absolute: 0, idle: 0 }) { 0 } else { EXTENDED };
    if header.principal.is_some() {
        flags |= EXTENDED | HAS_PRINCIPAL | (label_len as u32) << LABEL_LEN_SHIFT;
    }
    if header.authenticated != NEVER_AUTHENTICATED {
        let is_of_creation = header.authenticated == header.created;
        flags |= EXTENDED | if is_of_creation { AUTHENTICATED_AT_CREATION } else { HAS_AUTHENTICATED };
    }
    flags
}

fn label_len(flags: u32) -> usize {
    (flags >> LABEL_LEN_SHIFT) as usize
}

/// Where the payload begins in a slot with these flags.
fn payload_at(flags: u32) -> usize {
    if flags & EXTENDED == 0 {
        return HEADER_LEN;
    }
    let header = if flags & HAS_AUTHENTICATED != 0 { AUTHENTICATED_HEADER_LEN } else { EXTENDED_HEADER_LEN };
    header + label_len(flags)
}

/// The size class that a session needs whose payload begins there, and whether it is stored apart.
fn class_for(start: usize, len: usize) -> (usize, bool) {
    match start.saturating_add(len) {
        size if size <= MAX_SLOT_SIZE => (class_of(size), false),
        _ => (class_of(start + size_of::<u32>()), true),
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

/// Zeros memory that stays reachable, so the compiler cannot drop the writes as it may for a buffer
/// that is about to be freed.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
}
