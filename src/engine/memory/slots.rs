//! Where sessions lie: header and payload together in one slot, slots of one size class together in chunks of 64 KiB.
//!
//! ```text
//! slot = key 16 | created 8 | last seen 8 | version 8 | length 4 | flags 4 | [own timeouts 16 | principal 16] | payload
//! ```
//! A slot is used by a session or free; a free one is wiped but for the link to the next free one. The bookkeeping of
//! chunks (`space`) and the deadlines (`expiry`) are kept apart from the slots, so that a use of a session touches its
//! slot and nothing else here. A payload too large for a slot has memory of its own, and its slot the number of it.

use std::sync::Arc;

use super::{
    expiry::Expiry,
    payload::Payload,
    pool::Pool,
    region::{CHUNK, Chunk},
    space::{LARGEST_SLOT, Space, UNIT, class_of},
};
use crate::{
    error::{Error, Result},
    session::{
        header::{RecordHeader, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::Timeouts,
    },
};

/// A slot: the number of its chunk, and its place there in units of 16 bytes.
pub(super) type Address = u32;

const KEY: usize = 0;
const CREATED: usize = 16;
const LAST_SEEN: usize = 24;
const VERSION: usize = 32;
const LENGTH: usize = 40;
const FLAGS: usize = 44;
const HEADER: usize = 48;
/// Behind the header, if the session has timeouts of its own or a principal.
const ABSOLUTE: usize = 48;
const IDLE: usize = 56;
const PRINCIPAL: usize = 64;
const EXTENDED_HEADER: usize = 80;

const EXTENDED: u32 = 1;
const HAS_PRINCIPAL: u32 = 2;
const LARGE: u32 = 4;

pub(super) struct Slots {
    pool: Arc<Pool>,
    chunks: Vec<Option<Chunk>>,
    space: Space,
    pub expiry: Expiry,
    large: Vec<Payload>,
    unused_large: Vec<u32>,
}

/// A session that was moved to make room: the same key, another address.
pub(super) struct Moved {
    pub key: u128,
    pub from: Address,
    pub to: Address,
}

impl Slots {
    pub(super) fn new(pool: Arc<Pool>) -> Slots {
        Slots {
            pool,
            chunks: Vec::new(),
            space: Space::default(),
            expiry: Expiry::default(),
            large: Vec::new(),
            unused_large: Vec::new(),
        }
    }

    /// Begins to fetch a slot that is about to be used.
    pub(super) fn prefetch(&self, at: Address) {
        if let Some(chunk) = &self.chunks[chunk_of(at)] {
            chunk.prefetch(offset_of(at), self.space.slot_size(at));
        }
    }

    pub(super) fn key(&self, at: Address) -> u128 {
        u128::from_le_bytes(field(self.slot(at), KEY))
    }

    pub(super) fn header(&self, at: Address) -> RecordHeader {
        let slot = self.slot(at);
        let flags = u32::from_le_bytes(field(slot, FLAGS));
        let time = |at| i64::from_le_bytes(field(slot, at));
        let mut header = RecordHeader {
            version: u64::from_le_bytes(field(slot, VERSION)),
            created: time(CREATED),
            last_seen: time(LAST_SEEN),
            own: Timeouts { absolute: 0, idle: 0 },
            principal: None,
        };
        if flags & EXTENDED != 0 {
            header.own = Timeouts { absolute: time(ABSOLUTE), idle: time(IDLE) };
            if flags & HAS_PRINCIPAL != 0 {
                header.principal = Some(PrincipalKey(u128::from_le_bytes(field(slot, PRINCIPAL)), 0));
            }
        }
        header
    }

    /// The bytes that are stored of the payload.
    pub(super) fn payload(&self, at: Address) -> &[u8] {
        let slot = self.slot(at);
        let flags = u32::from_le_bytes(field(slot, FLAGS));
        let start = header_len(flags);
        if flags & LARGE != 0 {
            return self.large[u32::from_le_bytes(field(slot, start)) as usize].bytes();
        }
        &slot[start..start + u32::from_le_bytes(field(slot, LENGTH)) as usize]
    }

    pub(super) fn stored<'a>(&'a self, at: Address, header: &'a RecordHeader) -> StoredRecord<'a> {
        StoredRecord { key: LookupKey(self.key(at), 0), header, payload: self.payload(at) }
    }

    pub(super) fn set_last_seen(&mut self, at: Address, last_seen: i64) {
        put(self.slot_mut(at), LAST_SEEN, last_seen.to_le_bytes());
    }

    /// A new slot with a session in it, due at `deadline`; `fill` writes the `len` bytes of the payload.
    pub(super) fn store(
        &mut self,
        key: u128,
        header: &RecordHeader,
        deadline: i64,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Address> {
        let (class, large) = class_for(header, len);
        let large = match large {
            true => Some(self.keep_large(Payload::zeroed(len)?)?),
            false => None,
        };
        let at = match self.allocate(class) {
            Ok(at) => at,
            Err(error) => {
                large.into_iter().for_each(|number| self.drop_large(number));
                return Err(error);
            }
        };
        put(self.slot_mut(at), KEY, key.to_le_bytes());
        self.write(at, header, len, large);
        self.expiry.arm(at, self.space.place(at), deadline);
        if let Err(error) = fill(self.payload_mut(at)) {
            self.free(at);
            return Err(error);
        }
        Ok(at)
    }

    /// Writes another header and payload into the slot. False, and nothing done, if they need a slot of another class.
    pub(super) fn overwrite(
        &mut self,
        at: Address,
        header: &RecordHeader,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<bool> {
        let old_flags = u32::from_le_bytes(field(self.slot(at), FLAGS));
        let (class, large) = class_for(header, len);
        if large || old_flags & LARGE != 0 || class != self.space.class(at) {
            return Ok(false);
        }
        let old_end = header_len(old_flags) + self.payload(at).len();
        self.write(at, header, len, None);
        let payload = self.payload_mut(at);
        fill(payload)?;
        let end = header_len(flags_of(header, false)) + len;
        if end < old_end {
            wipe(&mut self.slot_mut(at)[end..old_end]);
        }
        Ok(true)
    }

    /// Wipes a slot, and takes it out of use.
    pub(super) fn free(&mut self, at: Address) {
        let flags = u32::from_le_bytes(field(self.slot(at), FLAGS));
        let mut end = header_len(flags) + self.payload(at).len();
        if flags & LARGE != 0 {
            let number = u32::from_le_bytes(field(self.slot(at), header_len(flags)));
            self.drop_large(number);
            end = header_len(flags) + 4;
        }
        wipe(&mut self.slot_mut(at)[..end]);
        self.release(at);
    }

    /// If some size class has far more room than it uses: moves a session out of its emptiest chunk, so that in the end
    /// the chunk can be given back. The caller corrects the table.
    pub(super) fn compact(&mut self) -> Option<Moved> {
        let (from, class) = self.space.crowd_out(|chunk, number| self.expiry.is_live(chunk, number))?;
        let to = self.allocate(class).ok()?;
        let size = self.space.slot_size(from);
        // The target is in another chunk, so the chunk can be held apart meanwhile.
        let (source, start) = (self.chunks[chunk_of(from)].take()?, offset_of(from));
        self.slot_mut(to)[..size].copy_from_slice(&source[start..start + size]);
        self.chunks[chunk_of(from)] = Some(source);
        let armed = self.expiry.armed(from, self.space.place(from));
        self.expiry.arm(to, self.space.place(to), armed);
        wipe(&mut self.slot_mut(from)[..size]);
        self.release(from);
        Some(Moved { key: self.key(to), from, to })
    }

    /// The address of a slot that the expiry structure found.
    pub(super) fn address(&self, chunk: usize, number: usize) -> Address {
        self.space.address(chunk, number)
    }

    pub(super) fn arm(&mut self, at: Address, deadline: i64) {
        self.expiry.arm(at, self.space.place(at), deadline);
    }

    fn allocate(&mut self, class: usize) -> Result<Address> {
        if self.space.is_full(class) {
            self.chunks.try_reserve(1).map_err(|_| Error::no_memory())?;
            let chunk = self.pool.chunk().ok_or_else(Error::no_memory)?;
            let number = self.space.add_chunk(class)?;
            if let Err(error) = self.expiry.add_chunk(number, self.space.slots_in(number)) {
                self.space.remove_chunk(number);
                return Err(error);
            }
            if number == self.chunks.len() {
                self.chunks.push(Some(chunk));
            } else {
                self.chunks[number] = Some(chunk);
            }
        }
        let chunks = &mut self.chunks;
        let at = self.space.take(class, |at| {
            // The link to the next free slot, which is all that a free slot holds.
            let link = chunks[chunk_of(at)].as_mut().map(|chunk| &mut chunk[offset_of(at)..offset_of(at) + 2]);
            link.map_or(0, |link| {
                let next = u16::from_le_bytes(field(link, 0));
                link.fill(0);
                next
            })
        });
        // A bulk of creates would otherwise wait for the memory of each slot.
        if let Some(next) = self.space.next(class) {
            self.prefetch(next);
        }
        Ok(at)
    }

    /// Gives a wiped slot back, and its chunk if it was the last.
    fn release(&mut self, at: Address) {
        let number = self.space.place(at);
        self.expiry.disarm(at, number);
        let released = self.space.give_back(at, number);
        put(self.slot_mut(at), 0, released.next_free.to_le_bytes());
        if released.chunk_is_empty {
            self.space.remove_chunk(chunk_of(at));
            self.expiry.remove_chunk(chunk_of(at));
            // Only links are left in it: every slot was wiped when it was freed.
            self.chunks[chunk_of(at)] = None;
        }
    }

    fn write(&mut self, at: Address, header: &RecordHeader, len: usize, large: Option<u32>) {
        let flags = flags_of(header, large.is_some());
        let slot = self.slot_mut(at);
        put(slot, CREATED, header.created.to_le_bytes());
        put(slot, LAST_SEEN, header.last_seen.to_le_bytes());
        put(slot, VERSION, header.version.to_le_bytes());
        put(slot, LENGTH, (if large.is_some() { 0 } else { len as u32 }).to_le_bytes());
        put(slot, FLAGS, flags.to_le_bytes());
        if flags & EXTENDED != 0 {
            put(slot, ABSOLUTE, header.own.absolute.to_le_bytes());
            put(slot, IDLE, header.own.idle.to_le_bytes());
            put(slot, PRINCIPAL, header.principal.map_or(0, |principal| principal.0).to_le_bytes());
        }
        if let Some(number) = large {
            put(slot, header_len(flags), number.to_le_bytes());
        }
    }

    fn payload_mut(&mut self, at: Address) -> &mut [u8] {
        let slot = self.slot(at);
        let flags = u32::from_le_bytes(field(slot, FLAGS));
        let start = header_len(flags);
        if flags & LARGE != 0 {
            let number = u32::from_le_bytes(field(slot, start));
            return self.large[number as usize].bytes_mut();
        }
        let len = u32::from_le_bytes(field(slot, LENGTH)) as usize;
        &mut self.slot_mut(at)[start..start + len]
    }

    fn keep_large(&mut self, payload: Payload) -> Result<u32> {
        if let Some(number) = self.unused_large.pop() {
            self.large[number as usize] = payload;
            return Ok(number);
        }
        self.large.try_reserve(1).map_err(|_| Error::no_memory())?;
        // So that dropping it later needs no memory.
        self.unused_large.try_reserve(self.large.len() + 1).map_err(|_| Error::no_memory())?;
        self.large.push(payload);
        Ok((self.large.len() - 1) as u32)
    }

    fn drop_large(&mut self, number: u32) {
        self.large[number as usize] = Payload::default();
        self.unused_large.push(number);
    }

    /// From the beginning of the slot to the end of its chunk.
    fn slot(&self, at: Address) -> &[u8] {
        match &self.chunks[chunk_of(at)] {
            Some(chunk) => &chunk[offset_of(at)..],
            None => unreachable!("an address is of a chunk that is there"),
        }
    }

    fn slot_mut(&mut self, at: Address) -> &mut [u8] {
        match &mut self.chunks[chunk_of(at)] {
            Some(chunk) => &mut chunk[offset_of(at)..],
            None => unreachable!("an address is of a chunk that is there"),
        }
    }

    #[cfg(test)]
    pub(super) fn chunks_in_use(&self) -> usize {
        self.chunks.iter().flatten().count()
    }

    #[cfg(test)]
    pub(super) fn check(&self, live: usize) {
        self.space.check(live);
        self.expiry.check(live);
    }
}

const UNITS: u32 = (CHUNK / UNIT) as u32;

pub(super) fn chunk_of(at: Address) -> usize {
    (at / UNITS) as usize
}

fn offset_of(at: Address) -> usize {
    (at % UNITS) as usize * UNIT
}

fn flags_of(header: &RecordHeader, large: bool) -> u32 {
    let principal = if header.principal.is_some() { HAS_PRINCIPAL } else { 0 };
    let extended = if principal != 0 || header.own != (Timeouts { absolute: 0, idle: 0 }) { EXTENDED } else { 0 };
    extended | principal | if large { LARGE } else { 0 }
}

fn header_len(flags: u32) -> usize {
    if flags & EXTENDED != 0 { EXTENDED_HEADER } else { HEADER }
}

/// The size class that a session needs, and whether its payload needs memory of its own.
fn class_for(header: &RecordHeader, len: usize) -> (usize, bool) {
    let header = header_len(flags_of(header, false));
    match header.saturating_add(len) {
        size if size <= LARGEST_SLOT => (class_of(size), false),
        _ => (class_of(header + 4), true),
    }
}

fn field<const N: usize>(slot: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&slot[at..at + N]);
    bytes
}

fn put<const N: usize>(slot: &mut [u8], at: usize, bytes: [u8; N]) {
    slot[at..at + N].copy_from_slice(&bytes);
}

/// Zeros, by the fastest means: the memory stays reachable, so the compiler cannot take them away as it might on a
/// buffer that is about to be freed.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
}
