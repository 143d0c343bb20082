//! Which slots of which chunks are free. Does not touch the slots themselves.
//!
//! Sizes come in classes, 16 to each doubling, and a chunk holds slots of one class. Invariants:
//! `partial` of a class lists exactly its chunks with a free slot, except the one that is being
//! drained; `live` and `chunks` are sums.

use super::{
    super::alloc::CHUNK_SIZE,
    address::{MAX_CHUNKS, SlotAddress, UNIT, UNITS_PER_CHUNK},
};
use crate::error::{Error, Result};

/// The largest size class: two slots per chunk. A session that needs more keeps its payload
/// elsewhere.
pub(super) const MAX_SLOT_SIZE: usize = CHUNK_SIZE / 2;

/// A chunk is hollow if at least so many bytes of it are free and have pages in memory.
const MIN_HOLLOW: usize = 8 << 10;
/// The end of a list of free slots.
const NONE: u16 = u16::MAX;

#[derive(Default)]
pub(super) struct SlotAllocator {
    /// Up to the largest class that was ever used, so that an empty store is small.
    classes: Vec<SizeClass>,
    chunks: Vec<ChunkState>,
    /// Numbers of chunks that do not exist.
    unused_numbers: Vec<u32>,
    /// Whether compaction may find something to do.
    may_compact: bool,
}

#[derive(Default)]
struct SizeClass {
    /// Chunks with a free slot.
    partial: Vec<u32>,
    /// The chunk whose sessions are being moved to others.
    draining: Option<u32>,
    chunks: u32,
    live: u32,
}

#[derive(Clone, Copy, Default)]
struct ChunkState {
    class: u8,
    /// The size of a slot in units.
    units: u16,
    slots: u16,
    live: u16,
    /// Slots from this one on have never been used.
    never_used: u16,
    /// As many slots have pages in memory: all, or those that were used.
    resident: u16,
    /// The first in the list of the free slots that were used before.
    first_free: u16,
}

/// What the caller does about a slot that was freed.
pub(super) struct FreedSlot {
    /// To be written into the slot: the next in the list of free slots.
    pub next_free: u16,
    /// The chunk has no session left and is not kept as a spare.
    pub remove_chunk: bool,
}

/// A step of compaction.
pub(super) enum Compaction {
    /// Move the session in this slot to another chunk of its class, a new one if there is no other
    /// with room.
    Move { from: SlotAddress, class: usize },
    /// Remove this chunk, in which no session is.
    RemoveChunk(usize),
}

/// The class of the smallest slots with `size` bytes.
pub(super) const fn class_of(size: usize) -> usize {
    if size <= 256 {
        return size.saturating_sub(1) / UNIT;
    }
    let doubling = (size - 1).ilog2() as usize - 8;
    let step = 16 << doubling;
    16 + doubling * 16 + (size - (256 << doubling) - 1) / step
}

/// The size of the slots of a class.
const fn slot_size_of(class: usize) -> usize {
    if class < 16 {
        return (class + 1) * UNIT;
    }
    let doubling = class / 16 - 1;
    (256 << doubling) + (class % 16 + 1) * (16 << doubling)
}

impl SlotAllocator {
    pub(super) fn class(&self, slot: SlotAddress) -> usize {
        self.chunks[slot.chunk()].class.into()
    }

    /// The size of the slot in bytes.
    pub(super) fn slot_size(&self, slot: SlotAddress) -> usize {
        usize::from(self.chunks[slot.chunk()].units) * UNIT
    }

    pub(super) fn slots_in(&self, chunk: usize) -> usize {
        self.chunks[chunk].slots.into()
    }

    /// The index of a slot in its chunk.
    pub(super) fn index_in_chunk(&self, slot: SlotAddress) -> usize {
        // In 32 bits, in which a division is faster.
        (slot.unit() as u32 / u32::from(self.chunks[slot.chunk()].units)) as usize
    }

    pub(super) fn address(&self, chunk: usize, index: usize) -> SlotAddress {
        SlotAddress::new(chunk, index * usize::from(self.chunks[chunk].units))
    }

    pub(super) fn is_full(&self, class: usize) -> bool {
        self.classes.get(class).is_none_or(|class| class.partial.is_empty())
    }

    /// Adds a chunk to a class, and returns its number. `is_resident`: all of its pages are in
    /// memory.
    pub(super) fn add_chunk(&mut self, class: usize, is_resident: bool) -> Result<usize> {
        let units = slot_size_of(class) / UNIT;
        let reserved = self.chunks.try_reserve(1).and_then(|()| {
            // So that freeing slots and chunks never allocates.
            self.unused_numbers.try_reserve(self.chunks.len() + 1)?;
            let missing = (class + 1).saturating_sub(self.classes.len());
            self.classes.try_reserve(missing)?;
            self.classes.resize_with(self.classes.len() + missing, SizeClass::default);
            let class = &mut self.classes[class];
            class.partial.try_reserve(class.chunks as usize + 1)
        });
        if reserved.is_err() || (self.unused_numbers.is_empty() && self.chunks.len() == MAX_CHUNKS) {
            return Err(Error::no_memory());
        }
        let number = self.unused_numbers.pop().map_or(self.chunks.len(), |number| number as usize);
        if number == self.chunks.len() {
            self.chunks.push(ChunkState::default());
        }
        let slots = (UNITS_PER_CHUNK / units) as u16;
        self.chunks[number] = ChunkState {
            class: class as u8,
            units: units as u16,
            slots,
            live: 0,
            never_used: 0,
            resident: if is_resident { slots } else { 0 },
            first_free: NONE,
        };
        self.classes[class].partial.push(number as u32);
        self.classes[class].chunks += 1;
        Ok(number)
    }

    /// Takes a free slot of a class that is not full. `next_free` reads the link to the next free
    /// slot from a slot that was used before.
    pub(super) fn allocate(&mut self, class: usize, next_free: impl FnOnce(SlotAddress) -> u16) -> SlotAddress {
        let class = &mut self.classes[class];
        let Some(&number) = class.partial.last() else {
            unreachable!("the class is not full");
        };
        let chunk = &mut self.chunks[number as usize];
        let was_used = chunk.first_free != NONE;
        let index = if was_used { chunk.first_free } else { chunk.never_used };
        let slot = SlotAddress::new(number as usize, usize::from(index) * usize::from(chunk.units));
        if was_used {
            chunk.first_free = next_free(slot);
        } else {
            chunk.never_used += 1;
            chunk.resident = chunk.resident.max(chunk.never_used);
        }
        debug_assert!(index < chunk.slots && chunk.live < chunk.slots, "a partial chunk has no free slot");
        chunk.live += 1;
        class.live += 1;
        if chunk.live == chunk.slots {
            class.partial.pop();
        }
        slot
    }

    /// The slot that `allocate` would return now, if the class is not full.
    pub(super) fn peek_next(&self, class: usize) -> Option<SlotAddress> {
        let number = *self.classes.get(class)?.partial.last()? as usize;
        let chunk = &self.chunks[number];
        Some(self.address(number, if chunk.first_free == NONE { chunk.never_used } else { chunk.first_free }.into()))
    }

    /// Frees a slot, whose index in its chunk the caller has computed already.
    pub(super) fn free(&mut self, slot: SlotAddress, index: usize) -> FreedSlot {
        let number = slot.chunk() as u32;
        let index = index as u16;
        let chunk = &mut self.chunks[number as usize];
        let class = &mut self.classes[usize::from(chunk.class)];
        let is_draining = class.draining == Some(number);
        if chunk.live == chunk.slots && !is_draining {
            class.partial.push(number);
        }
        debug_assert!(chunk.live > 0 && index < chunk.never_used, "a slot was freed that was not in use");
        let next_free = std::mem::replace(&mut chunk.first_free, index);
        chunk.live -= 1;
        class.live -= 1;
        self.may_compact |= class.is_sparse(chunk.slots.into()) || class.has_hollow_chunk(chunk);
        // The last chunk with room stays: adding and removing one for a single session costs more
        // than it holds.
        let is_spare = !is_draining && class.partial.len() == 1;
        FreedSlot { next_free, remove_chunk: chunk.live == 0 && !is_spare }
    }

    /// Removes a chunk without sessions.
    pub(super) fn remove_chunk(&mut self, number: usize) {
        debug_assert_eq!(self.chunks[number].live, 0, "a chunk with sessions was removed");
        let class = &mut self.classes[usize::from(self.chunks[number].class)];
        class.chunks -= 1;
        if class.draining == Some(number as u32) {
            class.draining = None;
        } else if let Some(i) = class.partial.iter().position(|&partial| partial == number as u32) {
            class.partial.swap_remove(i);
        }
        self.chunks[number] = ChunkState::default();
        self.unused_numbers.push(number as u32);
    }

    /// The next step that makes a chunk empty or gives one back. `None`: memory is used well.
    pub(super) fn next_compaction(&mut self, is_live: impl Fn(usize, usize) -> bool) -> Option<Compaction> {
        if !self.may_compact {
            return None;
        }
        for (number, class) in self.classes.iter_mut().enumerate() {
            if class.draining.is_none() {
                class.draining = class.pick_chunk_to_drain(&self.chunks, CHUNK_SIZE / slot_size_of(number));
            }
            let Some(chunk) = class.draining else {
                continue;
            };
            if class.live == 0 {
                return Some(Compaction::RemoveChunk(chunk as usize));
            }
            let used = usize::from(self.chunks[chunk as usize].never_used);
            match (0..used).find(|&index| is_live(chunk as usize, index)) {
                Some(index) if !class.partial.is_empty() || class.chunks == 1 => {
                    return Some(Compaction::Move { from: self.address(chunk as usize, index), class: number });
                }
                _ => {
                    // The other chunks filled up meanwhile.
                    class.draining = None;
                    class.partial.push(chunk);
                }
            }
        }
        self.may_compact = false;
        None
    }

    #[cfg(test)]
    pub(super) fn check(&self, live: usize) {
        assert_eq!(self.classes.iter().map(|class| class.live as usize).sum::<usize>(), live);
        assert_eq!(self.chunks.iter().map(|chunk| usize::from(chunk.live)).sum::<usize>(), live);
        for (number, class) in self.classes.iter().enumerate() {
            let mut chunks = 0;
            for (i, chunk) in self.chunks.iter().enumerate() {
                if chunk.slots > 0 && usize::from(chunk.class) == number {
                    chunks += 1;
                    let is_partial = class.partial.contains(&(i as u32));
                    let is_draining = class.draining == Some(i as u32);
                    assert_eq!(is_partial || is_draining, chunk.live < chunk.slots || is_draining, "chunk {i}");
                    assert!(!(is_partial && is_draining));
                }
            }
            assert_eq!(chunks, class.chunks);
            assert!(class.partial.iter().all(|&chunk| usize::from(self.chunks[chunk as usize].class) == number));
        }
    }
}

impl ChunkState {
    /// At least half of what it has in memory is free, and stays there as long as the chunk exists.
    fn is_hollow(&self) -> bool {
        let free = usize::from(self.resident - self.live);
        free >= usize::from(self.live) && free * usize::from(self.units) * UNIT >= MIN_HOLLOW
    }
}

impl SizeClass {
    /// The emptiest chunk of a sparse class, or a hollow one that is the only one.
    fn pick_chunk_to_drain(&mut self, chunks: &[ChunkState], slots_per_chunk: usize) -> Option<u32> {
        if let [only] = self.partial[..]
            && self.has_hollow_chunk(&chunks[only as usize])
        {
            return self.partial.pop();
        }
        if !self.is_sparse(slots_per_chunk) {
            return None;
        }
        let emptiest = (0..self.partial.len()).min_by_key(|&i| chunks[self.partial[i] as usize].live)?;
        Some(self.partial.swap_remove(emptiest))
    }

    /// Its only chunk is hollow, or no session is in it.
    fn has_hollow_chunk(&self, chunk: &ChunkState) -> bool {
        self.chunks == 1 && (chunk.live == 0 || chunk.is_hollow())
    }

    /// Less than three quarters of its slots are used, and at least a chunk could be spared.
    fn is_sparse(&self, slots_per_chunk: usize) -> bool {
        let slots = self.chunks as usize * slots_per_chunk;
        let live = self.live as usize;
        slots - live > slots_per_chunk && live * 4 < slots * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_close_and_ordered() {
        for size in 1..=MAX_SLOT_SIZE {
            let class = class_of(size);
            assert!(slot_size_of(class) >= size, "{size}");
            assert!(class == 0 || slot_size_of(class - 1) < size, "{size}");
            assert_eq!(slot_size_of(class) % UNIT, 0);
            assert!(size <= 256 || slot_size_of(class) * 16 <= size * 17, "{size}");
        }
        assert_eq!(slot_size_of(class_of(MAX_SLOT_SIZE)), MAX_SLOT_SIZE);
    }
}
