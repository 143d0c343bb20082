//! A part of a table, small enough to be filled anew in a moment: buckets of one cache line, so that finding a session costs
//! one miss here and one in its slot.
//!
//! An entry is 32 bits of the key (its tag) and the address. A tag's low bits name its home bucket; an entry stands in
//! the first bucket from its home on that had room. Invariant: between an entry's home and its place every bucket is
//! full. So a search ends at the first bucket with room, and a removal pulls later entries forward instead of leaving a
//! mark. Growing needs the tags only, not the sessions.

use std::sync::Arc;

use super::{
    pool::Pool,
    region::{CHUNK, Line, Lines},
};
use crate::error::{Error, Result};

/// Entries per bucket: 64 bytes.
const WIDTH: usize = 8;
const EMPTY: u64 = 0;
/// Set in every tag, so that no entry looks empty. The high end: the low bits choose the bucket.
const OCCUPIED: u32 = 1 << 31;
/// How many low bits of a tag choose the bucket in a segment of the largest size.
pub(super) const BITS: u32 = (CHUNK / size_of::<Line>()).ilog2();
/// How many bits of a tag tell one from another.
pub(super) const TAG_BITS: u32 = OCCUPIED.trailing_zeros();
const LARGEST: usize = 1 << BITS;
/// Buckets that are not worth a shrink.
const SMALL: usize = 16;

pub(super) struct Segment {
    /// A power of two.
    buckets: Lines,
    len: usize,
}

/// The bits of the key that the table keeps. Others choose the shard.
pub(super) fn tag_of(key: u128) -> u32 {
    key as u32 | OCCUPIED
}

fn entry(tag: u32, address: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(address)
}

fn tag(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// The places in a bucket of the entries for which `holds`: bit by bit. Without a branch for each: where an entry stands
/// cannot be foretold, and one wrong guess of the processor costs more than looking at all of them.
#[inline]
fn places(bucket: &Line, holds: impl Fn(u64) -> bool) -> u32 {
    (0..WIDTH).fold(0, |places, i| places | u32::from(holds(bucket.0[i])) << i)
}

/// Whether what has room for so many entries is far too large for these: less than one fifth full.
pub(super) fn is_far_too_large(capacity: usize, len: usize) -> bool {
    len * 5 < capacity
}

/// As much room as leaves these entries some to grow: two fifths full at the most.
pub(super) fn ample_for(len: usize) -> usize {
    (len * 5).div_ceil(2)
}

fn has_room(bucket: &Line) -> bool {
    places(bucket, |entry| entry == EMPTY) != 0
}

impl Segment {
    pub(super) fn smallest(pool: &Arc<Pool>) -> Result<Segment> {
        Segment::new(pool, 1)
    }

    fn new(pool: &Arc<Pool>, buckets: usize) -> Result<Segment> {
        // Zeros: EMPTY.
        let buckets = pool.lines(buckets).ok_or_else(Error::no_memory)?;
        Ok(Segment { buckets, len: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// As many entries as it could hold.
    pub(super) fn capacity(&self) -> usize {
        self.buckets.len() * WIDTH
    }

    pub(super) fn is_largest(&self) -> bool {
        self.buckets.len() == LARGEST
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// The address of the entry with this tag for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, wanted: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let buckets: &[Line] = &self.buckets;
        let mask = buckets.len().wrapping_sub(1);
        let mut at = wanted as usize & mask;
        loop {
            let bucket = buckets.get(at)?;
            let mut found = places(bucket, |entry| tag(entry) == wanted);
            while found != 0 {
                let address = bucket.0[found.trailing_zeros() as usize % WIDTH] as u32;
                if is_it(address) {
                    return Some(address);
                }
                found &= found - 1;
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

    /// Whether one more entry would be too many: fuller than four fifths, and misses begin to visit a second bucket.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 5 > self.capacity() * 4
    }

    /// To twice the size, if it is not the largest.
    pub(super) fn grow(&mut self, pool: &Arc<Pool>) -> Result<()> {
        self.resize(pool, self.buckets.len() * 2)
    }

    /// Makes it smaller if it is far too large for what is in it: at once to a size that leaves room to grow. Whether
    /// it was.
    pub(super) fn shrink(&mut self, pool: &Arc<Pool>) -> bool {
        if self.buckets.len() <= SMALL || !is_far_too_large(self.capacity(), self.len) {
            return false;
        }
        self.resize(pool, ample_for(self.len).div_ceil(WIDTH).next_power_of_two()).is_ok()
    }

    fn resize(&mut self, pool: &Arc<Pool>, buckets: usize) -> Result<()> {
        let old = std::mem::replace(self, Segment::new(pool, buckets)?);
        old.entries().for_each(|entry| self.add(entry));
        Ok(())
    }

    /// Shares its entries with a new segment of the same size, which gets those whose tags have a bit set.
    pub(super) fn split(&mut self, pool: &Arc<Pool>, bit: u32) -> Result<Segment> {
        let mut with = Segment::new(pool, self.buckets.len())?;
        // From behind a bucket with room, which no entry has its way through. So what is taken out of a bucket finds room in it
        // at the latest, and all buckets on its way there were emptied before.
        let first = self.buckets.iter().position(has_room).map_or(0, |at| at + 1);
        let mask = self.mask();
        // Counted, and without a branch for each part, this takes half of the time: whoever wants the shard waits for it.
        let mut filled = [[0_u8; LARGEST]; 2];
        let mut parts: [&mut [Line]; 2] = [&mut self.buckets, &mut with.buckets];
        for at in first..=first + mask {
            let bucket = std::mem::replace(&mut parts[0][at & mask], Line([EMPTY; WIDTH]));
            for entry in bucket.0.into_iter().filter(|&entry| entry != EMPTY) {
                let part = usize::from(tag(entry) & bit != 0);
                let (buckets, filled) = (&mut parts[part], &mut filled[part]);
                let mut at = tag(entry) as usize & mask;
                while usize::from(filled[at]) == WIDTH {
                    at = (at + 1) & mask;
                }
                buckets[at].0[usize::from(filled[at]) % WIDTH] = entry;
                filled[at] += 1;
            }
        }
        with.len = filled[1].iter().map(|&count| usize::from(count)).sum();
        self.len -= with.len;
        Ok(with)
    }

    /// Takes over the entries of another one, for which there are places.
    pub(super) fn merge(&mut self, other: &Segment) {
        other.entries().for_each(|entry| self.add(entry));
    }

    fn entries(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().flat_map(|bucket| bucket.0).filter(|&entry| entry != EMPTY)
    }

    /// Adds an entry; there is room.
    pub(super) fn insert(&mut self, tag: u32, address: u32) {
        self.add(entry(tag, address));
    }

    fn add(&mut self, entry: u64) {
        debug_assert!(self.len < self.capacity(), "an entry was added without room for it");
        self.len += 1;
        let mut at = tag(entry) as usize & self.mask();
        loop {
            let room = places(&self.buckets[at], |entry| entry == EMPTY);
            if room != 0 {
                self.buckets[at].0[room.trailing_zeros() as usize % WIDTH] = entry;
                return;
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Points an entry to where its session is now.
    pub(super) fn moved(&mut self, tag: u32, from: u32, to: u32) {
        if let Some((bucket, i)) = self.locate(entry(tag, from)) {
            self.buckets[bucket].0[i] = entry(tag, to);
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, tag: u32, address: u32) -> bool {
        let Some((bucket, i)) = self.locate(entry(tag, address)) else {
            return false;
        };
        self.len -= 1;
        self.fill_hole(bucket, i);
        true
    }

    fn locate(&self, wanted: u64) -> Option<(usize, usize)> {
        let mut at = tag(wanted) as usize & self.mask();
        // Ends: some bucket has room.
        loop {
            let bucket = &self.buckets[at];
            let found = places(bucket, |entry| entry == wanted);
            if found != 0 {
                return Some((at, found.trailing_zeros() as usize));
            }
            if has_room(bucket) {
                debug_assert!(false, "the entry is not in the table");
                return None;
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Empties a place, and pulls entries forward as long as one stands behind it that should not.
    fn fill_hole(&mut self, mut hole: usize, mut i: usize) {
        loop {
            let was_full = !has_room(&self.buckets[hole]);
            self.buckets[hole].0[i] = EMPTY;
            if !was_full {
                return;
            }
            // Nothing that stands behind a bucket with room had its way through it; a full one may hide one that had.
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
        let occupied = |bucket: &Line| bucket.0.iter().filter(|&&entry| entry != EMPTY).count();
        assert_eq!(self.buckets.iter().map(occupied).sum::<usize>(), self.len);
        for (at, bucket) in self.buckets.iter().enumerate() {
            for &entry in bucket.0.iter().filter(|&&entry| entry != EMPTY) {
                let mut way = tag(entry) as usize & self.mask();
                while way != at {
                    assert_eq!(occupied(&self.buckets[way]), WIDTH, "a bucket with room before an entry's place");
                    way = (way + 1) & self.mask();
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        self.entries().map(tag)
    }
}
