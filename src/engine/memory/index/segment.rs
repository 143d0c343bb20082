//! One segment of the index: an open-addressing hash table of buckets of one cache line, small
//! enough to be rebuilt in a moment. A lookup costs one cache miss here and one in the slot.
//!
//! An entry is a tag (32 bits of the key) and a slot. The low bits of the tag choose the home
//! bucket; an entry stands in the first bucket from its home on that had room. Invariant: every
//! bucket between an entry's home and its own is full. So a search ends at the first bucket with
//! room, and a removal pulls later entries forward instead of leaving a tombstone. Growing reads
//! the tags only, not the sessions.

use std::sync::Arc;

use super::{
    super::alloc::pool::Pool,
    buckets::{Bucket, Buckets, EMPTY_BUCKET, MAX_BUCKETS},
};
use crate::error::{Error, Result};

const ENTRIES_PER_BUCKET: usize = 8;
const EMPTY: u64 = 0;
/// Set in every tag, so that no entry looks empty. The highest bit, because the low ones choose the
/// bucket.
const OCCUPIED: u32 = 1 << 31;
/// The low bits of a tag that choose the bucket in a segment of the largest size.
pub(super) const BUCKET_BITS: u32 = MAX_BUCKETS.ilog2();
/// The bits of a tag in which tags differ.
pub(super) const TAG_BITS: u32 = OCCUPIED.trailing_zeros();
/// Segments of up to so many buckets do not shrink.
const MIN_SHRINKABLE_BUCKETS: usize = 16;

pub(super) struct Segment {
    /// A power of two.
    buckets: Buckets,
    len: usize,
}

/// The bits of a key that the index keeps. Others choose the shard.
pub(crate) fn tag_of(key: u128) -> u32 {
    key as u32 | OCCUPIED
}

fn pack(tag: u32, slot: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(slot)
}

fn tag(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// A bit for each entry of a bucket for which `is_match` holds. Without a branch per entry: where a
/// match stands is not predictable, and one misprediction costs more than looking at all of them.
#[inline]
fn match_bits(bucket: &Bucket, is_match: impl Fn(u64) -> bool) -> u32 {
    (0..ENTRIES_PER_BUCKET).fold(0, |bits, i| bits | u32::from(is_match(bucket.0[i])) << i)
}

/// Whether a table with this capacity is far too large for so many entries: less than one fifth
/// full.
pub(super) fn should_shrink(capacity: usize, len: usize) -> bool {
    len * 5 < capacity
}

/// A capacity that leaves so many entries room to grow: two fifths full.
pub(super) fn target_capacity(len: usize) -> usize {
    (len * 5).div_ceil(2)
}

fn has_room(bucket: &Bucket) -> bool {
    match_bits(bucket, |entry| entry == EMPTY) != 0
}

impl Segment {
    pub(super) fn smallest(pool: &Arc<Pool>) -> Result<Segment> {
        Segment::new(pool, 1)
    }

    fn new(pool: &Arc<Pool>, buckets: usize) -> Result<Segment> {
        let buckets = Buckets::new(pool, buckets).ok_or_else(Error::no_memory)?;
        Ok(Segment { buckets, len: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of entries in all buckets when they are full.
    pub(super) fn capacity(&self) -> usize {
        self.buckets.len() * ENTRIES_PER_BUCKET
    }

    pub(super) fn is_largest(&self) -> bool {
        self.buckets.len() == MAX_BUCKETS
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// The slot of the entry with this tag for which `is_match` holds.
    #[inline]
    pub(super) fn find(&self, wanted: u32, mut is_match: impl FnMut(u32) -> bool) -> Option<u32> {
        let buckets: &[Bucket] = &self.buckets;
        let mask = buckets.len().wrapping_sub(1);
        let mut at = wanted as usize & mask;
        loop {
            let bucket = buckets.get(at)?;
            let mut candidates = match_bits(bucket, |entry| tag(entry) == wanted);
            while candidates != 0 {
                let slot = bucket.0[candidates.trailing_zeros() as usize % ENTRIES_PER_BUCKET] as u32;
                if is_match(slot) {
                    return Some(slot);
                }
                candidates &= candidates - 1;
            }
            if has_room(bucket) {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// Begins to fetch the home bucket of a tag.
    pub(super) fn prefetch(&self, tag: u32) {
        self.buckets.prefetch(tag as usize & self.mask());
    }

    /// Whether one more entry is too many: above four fifths, misses begin to visit a second
    /// bucket.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 5 > self.capacity() * 4
    }

    /// Doubles its size. It is not the largest.
    pub(super) fn grow(&mut self, pool: &Arc<Pool>) -> Result<()> {
        self.resize(pool, self.buckets.len() * 2)
    }

    /// Shrinks it to its target capacity if it is far too large. Returns whether it did.
    pub(super) fn shrink(&mut self, pool: &Arc<Pool>) -> bool {
        if self.buckets.len() <= MIN_SHRINKABLE_BUCKETS || !should_shrink(self.capacity(), self.len) {
            return false;
        }
        self.resize(pool, target_capacity(self.len).div_ceil(ENTRIES_PER_BUCKET).next_power_of_two()).is_ok()
    }

    fn resize(&mut self, pool: &Arc<Pool>, buckets: usize) -> Result<()> {
        let old = std::mem::replace(self, Segment::new(pool, buckets)?);
        old.entries().for_each(|entry| self.add(entry));
        Ok(())
    }

    /// Moves the entries whose tags have a bit set to a new segment of the same size.
    pub(super) fn split(&mut self, pool: &Arc<Pool>, bit: u32) -> Result<Segment> {
        let mut sibling = Segment::new(pool, self.buckets.len())?;
        // Start behind a bucket with room, across which no entry was displaced. What is taken out
        // of a bucket then finds room in that bucket at the latest, and all buckets on its way
        // there have been emptied before.
        let first = self.buckets.iter().position(has_room).map_or(0, |at| at + 1);
        let mask = self.mask();
        // Counters per bucket and no branch per half take half of the time, during which the shard
        // is locked.
        let mut filled = [[0_u8; MAX_BUCKETS]; 2];
        let mut halves: [&mut [Bucket]; 2] = [&mut self.buckets, &mut sibling.buckets];
        for at in first..=first + mask {
            let bucket = std::mem::replace(&mut halves[0][at & mask], EMPTY_BUCKET);
            for entry in bucket.0.into_iter().filter(|&entry| entry != EMPTY) {
                let half = usize::from(tag(entry) & bit != 0);
                let buckets = &mut halves[half];
                let filled = &mut filled[half];
                let mut at = tag(entry) as usize & mask;
                while usize::from(filled[at]) == ENTRIES_PER_BUCKET {
                    at = (at + 1) & mask;
                }
                buckets[at].0[usize::from(filled[at]) % ENTRIES_PER_BUCKET] = entry;
                filled[at] += 1;
            }
        }
        sibling.len = filled[1].iter().map(|&count| usize::from(count)).sum();
        self.len -= sibling.len;
        Ok(sibling)
    }

    /// Adds the entries of another segment; there is room.
    pub(super) fn merge(&mut self, other: &Segment) {
        other.entries().for_each(|entry| self.add(entry));
    }

    fn entries(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().flat_map(|bucket| bucket.0).filter(|&entry| entry != EMPTY)
    }

    /// Adds an entry; there is room.
    pub(super) fn insert(&mut self, tag: u32, slot: u32) {
        self.add(pack(tag, slot));
    }

    fn add(&mut self, entry: u64) {
        debug_assert!(self.len < self.capacity(), "an entry was added without room for it");
        self.len += 1;
        let mut at = tag(entry) as usize & self.mask();
        loop {
            let room = match_bits(&self.buckets[at], |entry| entry == EMPTY);
            if room != 0 {
                self.buckets[at].0[room.trailing_zeros() as usize % ENTRIES_PER_BUCKET] = entry;
                return;
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Changes the slot of an entry.
    pub(super) fn relocate(&mut self, tag: u32, from: u32, to: u32) {
        if let Some((bucket, i)) = self.locate(pack(tag, from)) {
            self.buckets[bucket].0[i] = pack(tag, to);
        }
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, tag: u32, slot: u32) -> bool {
        let Some((bucket, i)) = self.locate(pack(tag, slot)) else {
            return false;
        };
        self.len -= 1;
        self.fill_hole(bucket, i);
        true
    }

    fn locate(&self, wanted: u64) -> Option<(usize, usize)> {
        let mut at = tag(wanted) as usize & self.mask();
        // Ends, because some bucket has room.
        loop {
            let bucket = &self.buckets[at];
            let found = match_bits(bucket, |entry| entry == wanted);
            if found != 0 {
                return Some((at, found.trailing_zeros() as usize));
            }
            if has_room(bucket) {
                debug_assert!(false, "the entry is not in the index");
                return None;
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Empties a position, and pulls later entries forward while one of them must not stand behind
    /// it.
    fn fill_hole(&mut self, mut hole: usize, mut i: usize) {
        loop {
            let was_full = !has_room(&self.buckets[hole]);
            self.buckets[hole].0[i] = EMPTY;
            if !was_full {
                return;
            }
            // No entry was displaced across a bucket with room; one may have been displaced across
            // a full one.
            let mut at = hole;
            let found = loop {
                at = (at + 1) & self.mask();
                let distance = |from: usize| at.wrapping_sub(from) & self.mask();
                let passed_hole = |entry: u64| distance(tag(entry) as usize & self.mask()) >= distance(hole);
                let bucket = &self.buckets[at];
                if let Some(j) = bucket.0.iter().position(|&entry| entry != EMPTY && passed_hole(entry)) {
                    break Some(j);
                }
                if has_room(bucket) || at == hole {
                    break None;
                }
            };
            let Some(j) = found else {
                return;
            };
            self.buckets[hole].0[i] = self.buckets[at].0[j];
            (hole, i) = (at, j);
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let occupied = |bucket: &Bucket| bucket.0.iter().filter(|&&entry| entry != EMPTY).count();
        assert_eq!(self.buckets.iter().map(occupied).sum::<usize>(), self.len);
        for (at, bucket) in self.buckets.iter().enumerate() {
            for &entry in bucket.0.iter().filter(|&&entry| entry != EMPTY) {
                let mut passed = tag(entry) as usize & self.mask();
                while passed != at {
                    assert_eq!(occupied(&self.buckets[passed]), ENTRIES_PER_BUCKET, "room before an entry's bucket");
                    passed = (passed + 1) & self.mask();
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        self.entries().map(tag)
    }
}
