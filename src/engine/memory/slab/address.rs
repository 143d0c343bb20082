//! Where a slot is: the number of its chunk, and its position in the chunk in units of 16 bytes.

use super::super::alloc::CHUNK_SIZE;

/// Slots begin at multiples of this.
pub(super) const UNIT: usize = 16;
pub(super) const UNITS_PER_CHUNK: usize = CHUNK_SIZE / UNIT;
/// The chunk number has as many bits as the position leaves.
pub(super) const MAX_CHUNKS: usize = 1 << (u32::BITS - UNITS_PER_CHUNK.ilog2());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotAddress(pub u32);

impl SlotAddress {
    pub(super) fn new(chunk: usize, unit: usize) -> SlotAddress {
        debug_assert!(chunk < MAX_CHUNKS && unit < UNITS_PER_CHUNK);
        SlotAddress((chunk * UNITS_PER_CHUNK + unit) as u32)
    }

    pub(super) fn chunk(self) -> usize {
        self.0 as usize / UNITS_PER_CHUNK
    }

    /// The position in the chunk in units.
    pub(super) fn unit(self) -> usize {
        self.0 as usize % UNITS_PER_CHUNK
    }

    /// The position in the chunk in bytes.
    pub(super) fn offset(self) -> usize {
        self.unit() * UNIT
    }
}
