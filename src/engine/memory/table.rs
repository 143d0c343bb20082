//! From a session's key to the address of its slot: buckets of one cache line, so that finding a session costs one miss
//! here and one in its slot.
//!
//! An entry is 32 bits of the key (its tag) and the address. A tag's low bits name its home bucket; an entry stands in
//! the first bucket from its home on that had room. Invariant: between an entry's home and its place every bucket is
//! full. So a search ends at the first bucket with room, and a removal pulls later entries forward instead of leaving a
//! mark. Growing needs the tags only, not the sessions.

use std::sync::Arc;

use super::region::{Line, Lines, Pool};
use crate::error::{Error, Result};

/// Entries per bucket: 64 bytes.
const WIDTH: usize = 8;
const EMPTY: u64 = 0;
/// Set in every tag, so that no entry looks empty. The high end: the low bits choose the bucket.
const OCCUPIED: u32 = 1 << 31;

pub(super) struct Table {
    pool: Arc<Pool>,
    /// A power of two, or none.
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

fn has_room(bucket: &Line) -> bool {
    places(bucket, |entry| entry == EMPTY) != 0
}

impl Table {
    pub(super) fn new(pool: Arc<Pool>) -> Table {
        Table { pool, buckets: Lines::default(), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// The address of the entry with this tag for which `is_it` holds.
    pub(super) fn find(&self, wanted: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let buckets: &[Line] = &self.buckets;
        let mask = buckets.len().wrapping_sub(1);
        let mut at = wanted as usize & mask;
        loop {
            // None: the table is empty.
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

    /// Begins to fetch the entry's home bucket, so that the misses of several removals overlap.
    pub(super) fn prefetch(&self, tag: u32) {
        self.buckets.prefetch(tag as usize & self.buckets.len().wrapping_sub(1));
    }

    /// Makes room for one more entry.
    pub(super) fn reserve(&mut self) -> Result<()> {
        // Four fifths full: fuller, and misses begin to visit a second bucket.
        if (self.len + 1) * 5 > self.buckets.len() * WIDTH * 4 {
            self.resize((self.buckets.len() * 2).max(1))
        } else {
            Ok(())
        }
    }

    /// Makes the table smaller if it is far too large for what is in it: at once to a size that leaves room to grow, since
    /// each resize moves every entry. True if it did.
    pub(super) fn shrink(&mut self) -> bool {
        let far_too_large = self.buckets.len() > 16 && self.len * 5 < self.buckets.len() * WIDTH;
        // Two fifths full.
        let enough = (self.len * 5).div_ceil(WIDTH * 2).next_power_of_two();
        far_too_large && self.resize(enough).is_ok()
    }

    fn resize(&mut self, buckets: usize) -> Result<()> {
        // Zeros: EMPTY.
        let new = self.pool.lines(buckets).ok_or_else(Error::no_memory)?;
        let old = std::mem::replace(&mut self.buckets, new);
        for entry in old.iter().flat_map(|bucket| bucket.0).filter(|&entry| entry != EMPTY) {
            self.place(entry);
        }
        Ok(())
    }

    /// Adds an entry; there is room.
    pub(super) fn insert(&mut self, tag: u32, address: u32) {
        debug_assert!(self.len < self.buckets.len() * WIDTH, "an entry was added without room for it");
        self.place(entry(tag, address));
        self.len += 1;
    }

    fn place(&mut self, entry: u64) {
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

    pub(super) fn remove(&mut self, tag: u32, address: u32) {
        let Some((bucket, i)) = self.locate(entry(tag, address)) else {
            return;
        };
        self.len -= 1;
        self.fill_hole(bucket, i);
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
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn random_inserts_and_removes_agree_with_a_map_also_where_tags_crowd() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        // Few tags: many share a home, so buckets overflow and removals have to pull.
        for tags in [3, 40, 1 << 20] {
            let (mut table, mut model) = (Table::new(Pool::new()), HashMap::new());
            for address in 0..20_000_u32 {
                if model.len() > 300 || random() % 3 == 0 {
                    if let Some((&address, &tag)) = model.iter().nth(random() as usize % model.len().max(1)) {
                        model.remove(&address);
                        table.remove(tag, address);
                    }
                } else {
                    let tag = tag_of(u128::from(random() % tags));
                    table.reserve().unwrap();
                    table.insert(tag, address);
                    model.insert(address, tag);
                }
                if address % 16 == 0 {
                    table.shrink();
                    table.check();
                }
            }
            for (&address, &tag) in &model {
                assert_eq!(table.find(tag, |found| found == address), Some(address));
                table.moved(tag, address, address | 1 << 31);
                assert_eq!(table.find(tag, |found| found == address), None);
            }
            assert_eq!(table.len(), model.len());
        }
    }
}
