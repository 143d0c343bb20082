//! Which slots of which chunks are free: the bookkeeping of [`slots`](super::slots), without the slots.
//!
//! Sizes come in classes, 16 of them to each doubling, and a chunk holds slots of one class. Invariants: `open` of a
//! class lists exactly its chunks with a free slot, except the one that is being emptied; `live` and `chunks` are sums.

use super::{
    region::CHUNK,
    slots::{Address, chunk_of},
};
use crate::error::{Error, Result};

/// Slots begin at multiples of this.
pub(super) const UNIT: usize = 16;
/// The largest size class. Above it a payload has memory of its own.
pub(super) const LARGEST_SLOT: usize = 8 << 10;

const UNITS: usize = CHUNK / UNIT;
const CLASSES: usize = class_of(LARGEST_SLOT) + 1;
/// As the number of the next free slot: there is none.
const NONE: u16 = u16::MAX;
/// The number of an address's chunk has 20 bits.
const MOST_CHUNKS: usize = 1 << 20;

pub(super) struct Space {
    classes: Box<[Class]>,
    chunks: Vec<ChunkSpace>,
    /// Numbers of chunks that are not there.
    unused: Vec<u32>,
    /// Some class may be sparse.
    sparse: bool,
}

#[derive(Default)]
struct Class {
    open: Vec<u32>,
    /// The chunk that is being emptied.
    emptying: Option<u32>,
    chunks: u32,
    live: u32,
}

#[derive(Clone, Copy, Default)]
struct ChunkSpace {
    class: u8,
    /// The size of a slot in units.
    units: u16,
    slots: u16,
    live: u16,
    /// Slots from here on were never used.
    fresh: u16,
    /// The first in the list of those that were.
    free: u16,
}

/// What became of a slot that was given back.
pub(super) struct Released {
    /// To be written into it.
    pub next_free: u16,
    /// To be removed.
    pub chunk_is_empty: bool,
}

/// The class of the smallest slots that have `size` bytes.
pub(super) const fn class_of(size: usize) -> usize {
    if size <= 256 {
        return size.saturating_sub(1) / UNIT;
    }
    let doubling = (size - 1).ilog2() as usize - 8;
    let step = 16 << doubling;
    16 + doubling * 16 + (size - (256 << doubling) - 1) / step
}

/// The size of a class's slots.
const fn size_of_class(class: usize) -> usize {
    if class < 16 {
        return (class + 1) * UNIT;
    }
    let doubling = class / 16 - 1;
    (256 << doubling) + (class % 16 + 1) * (16 << doubling)
}

impl Default for Space {
    fn default() -> Space {
        let classes = (0..CLASSES).map(|_| Class::default()).collect();
        Space { classes, chunks: Vec::new(), unused: Vec::new(), sparse: false }
    }
}

impl Space {
    pub(super) fn class(&self, at: Address) -> usize {
        self.chunks[chunk_of(at)].class.into()
    }

    /// The size of the slot in bytes.
    pub(super) fn slot_size(&self, at: Address) -> usize {
        usize::from(self.chunks[chunk_of(at)].units) * UNIT
    }

    pub(super) fn slots_in(&self, chunk: usize) -> usize {
        self.chunks[chunk].slots.into()
    }

    /// The number of a slot in its chunk.
    pub(super) fn place(&self, at: Address) -> usize {
        (at % UNITS as u32 / u32::from(self.chunks[chunk_of(at)].units)) as usize
    }

    pub(super) fn address(&self, chunk: usize, number: usize) -> Address {
        (chunk * UNITS + number * usize::from(self.chunks[chunk].units)) as Address
    }

    pub(super) fn is_full(&self, class: usize) -> bool {
        self.classes[class].open.is_empty()
    }

    /// Takes note of a new chunk for a class, and numbers it.
    pub(super) fn add_chunk(&mut self, class: usize) -> Result<usize> {
        let units = size_of_class(class) / UNIT;
        let reserved = self.chunks.try_reserve(1).and_then(|()| {
            // So that nothing has to grow when slots and chunks are given back.
            self.unused.try_reserve(self.chunks.len() + 1)?;
            let class = &mut self.classes[class];
            class.open.try_reserve(class.chunks as usize + 1)
        });
        if reserved.is_err() || (self.unused.is_empty() && self.chunks.len() == MOST_CHUNKS) {
            return Err(Error::no_memory());
        }
        let number = self.unused.pop().map_or(self.chunks.len(), |number| number as usize);
        if number == self.chunks.len() {
            self.chunks.push(ChunkSpace::default());
        }
        self.chunks[number] = ChunkSpace {
            class: class as u8,
            units: units as u16,
            slots: (UNITS / units) as u16,
            live: 0,
            fresh: 0,
            free: NONE,
        };
        self.classes[class].open.push(number as u32);
        self.classes[class].chunks += 1;
        Ok(number)
    }

    /// Takes a free slot of a class that is not full. `next_free` reads, from a slot that was used before, the link to
    /// the next.
    pub(super) fn take(&mut self, class: usize, next_free: impl FnOnce(Address) -> u16) -> Address {
        let class = &mut self.classes[class];
        let Some(&number) = class.open.last() else {
            unreachable!("the class is not full");
        };
        let chunk = &mut self.chunks[number as usize];
        let slot = if chunk.free == NONE { chunk.fresh } else { chunk.free };
        let at = (number as usize * UNITS + usize::from(slot) * usize::from(chunk.units)) as Address;
        if chunk.free == NONE {
            chunk.fresh += 1;
        } else {
            chunk.free = next_free(at);
        }
        debug_assert!(slot < chunk.slots && chunk.live < chunk.slots, "an open chunk has a free slot");
        chunk.live += 1;
        class.live += 1;
        if chunk.live == chunk.slots {
            class.open.pop();
        }
        at
    }

    /// The slot that `take` would take now, if it need not ask for a chunk.
    pub(super) fn next(&self, class: usize) -> Option<Address> {
        let number = *self.classes[class].open.last()? as usize;
        let chunk = &self.chunks[number];
        Some(self.address(number, if chunk.free == NONE { chunk.fresh } else { chunk.free }.into()))
    }

    /// Takes note that a slot, the `place`th of its chunk, is free again.
    pub(super) fn give_back(&mut self, at: Address, place: usize) -> Released {
        let (number, place) = (chunk_of(at), place as u16);
        let chunk = &mut self.chunks[number];
        let class = &mut self.classes[usize::from(chunk.class)];
        if chunk.live == chunk.slots && class.emptying != Some(number as u32) {
            class.open.push(number as u32);
        }
        debug_assert!(chunk.live > 0 && place < chunk.fresh, "a slot was given back that was not in use");
        let next_free = std::mem::replace(&mut chunk.free, place);
        chunk.live -= 1;
        class.live -= 1;
        self.sparse |= class.is_sparse(chunk.slots.into());
        // The last chunk with room stays: one that comes and goes with a single session costs more than it holds.
        let spare = class.emptying == Some(number as u32) || class.open.len() > 1;
        Released { next_free, chunk_is_empty: chunk.live == 0 && spare }
    }

    /// Forgets a chunk without sessions.
    pub(super) fn remove_chunk(&mut self, number: usize) {
        debug_assert_eq!(self.chunks[number].live, 0, "a chunk with sessions was removed");
        let class = &mut self.classes[usize::from(self.chunks[number].class)];
        class.chunks -= 1;
        if class.emptying == Some(number as u32) {
            class.emptying = None;
        } else if let Some(i) = class.open.iter().position(|&open| open == number as u32) {
            class.open.swap_remove(i);
        }
        self.chunks[number] = ChunkSpace::default();
        self.unused.push(number as u32);
    }

    /// A session to be moved to another slot of its class, so that its chunk gets empty; none if memory is used well.
    pub(super) fn crowd_out(&mut self, is_live: impl Fn(usize, usize) -> bool) -> Option<(Address, usize)> {
        if !self.sparse {
            return None;
        }
        for (number, class) in self.classes.iter_mut().enumerate() {
            let slots = CHUNK / size_of_class(number);
            if class.emptying.is_none() {
                if !class.is_sparse(slots) {
                    continue;
                }
                let emptiest =
                    class.open.iter().enumerate().min_by_key(|(_, chunk)| self.chunks[**chunk as usize].live);
                let emptiest = emptiest.map(|(i, _)| i);
                class.emptying = emptiest.map(|i| class.open.swap_remove(i));
            }
            let Some(chunk) = class.emptying else {
                continue;
            };
            let live = (0..self.chunks[chunk as usize].fresh.into()).find(|&slot| is_live(chunk as usize, slot));
            match live {
                Some(slot) if !class.open.is_empty() => return Some((self.address(chunk as usize, slot), number)),
                _ => {
                    // The rest filled up meanwhile: it takes part again.
                    class.emptying = None;
                    class.open.push(chunk);
                }
            }
        }
        self.sparse = false;
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
                    let open = class.open.contains(&(i as u32));
                    let emptying = class.emptying == Some(i as u32);
                    assert_eq!(open || emptying, chunk.live < chunk.slots || emptying, "chunk {i}");
                    assert!(!(open && emptying));
                }
            }
            assert_eq!(chunks, class.chunks);
            assert!(class.open.iter().all(|&chunk| usize::from(self.chunks[chunk as usize].class) == number));
        }
    }
}

impl Class {
    /// Less than three quarters of its slots are used, and more than a chunk could be spared.
    fn is_sparse(&self, slots: usize) -> bool {
        let (all, live) = (self.chunks as usize * slots, self.live as usize);
        all - live > slots && live * 4 < all * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_fit_closely_and_in_order() {
        for size in 1..=LARGEST_SLOT {
            let class = class_of(size);
            assert!(size_of_class(class) >= size, "{size}");
            assert!(class == 0 || size_of_class(class - 1) < size, "{size}");
            assert_eq!(size_of_class(class) % UNIT, 0);
            assert!(size <= 256 || size_of_class(class) * 16 <= size * 17, "{size}");
        }
        assert_eq!(size_of_class(CLASSES - 1), LARGEST_SLOT);
    }
}
