//! The index from a session's key to its slot: extendible hashing (Fagin, Nievergelt, Pippenger,
//! Strong: "Extendible Hashing", ACM TODS 4 (3), 1979). A directory leads to segments of 64 KiB. A
//! full segment is split and two nearly empty ones are merged, so no call waits for more than one
//! segment to be rebuilt, however large the index is.
//!
//! Invariants: the length of the directory is a power of two, and no longer than its deepest
//! segment needs; a segment of local depth `d` stands at all positions that agree in their lowest
//! `d` bits; it holds exactly the entries that lead there.

mod buckets;
mod segment;

use std::sync::Arc;

pub(super) use self::segment::tag_of;
use self::segment::{BUCKET_BITS, Segment, TAG_BITS, should_shrink, target_capacity};
use super::alloc::pool::Pool;
use crate::error::{Error, Result};

pub(super) struct Index {
    pool: Arc<Pool>,
    /// Numbers of segments. The bits of a tag above those that choose the bucket choose the
    /// position here.
    directory: Vec<u32>,
    segments: Vec<DirectorySegment>,
    /// The number of entries in all segments.
    len: usize,
}

struct DirectorySegment {
    segment: Segment,
    /// The number of directory bits in which all of its entries agree.
    local_depth: u32,
}

impl Index {
    pub(super) fn new(pool: Arc<Pool>) -> Index {
        Index { pool, directory: Vec::new(), segments: Vec::new(), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn position(&self, tag: u32) -> usize {
        tag as usize >> BUCKET_BITS & self.directory.len().wrapping_sub(1)
    }

    /// `None`: the index has never had an entry.
    #[inline]
    fn segment(&self, tag: u32) -> Option<&Segment> {
        let number = *self.directory.get(self.position(tag))?;
        self.segments.get(number as usize).map(|entry| &entry.segment)
    }

    fn segment_mut(&mut self, tag: u32) -> Option<&mut Segment> {
        let number = *self.directory.get(self.position(tag))?;
        self.segments.get_mut(number as usize).map(|entry| &mut entry.segment)
    }

    /// The slot of the entry with this tag for which `is_match` holds.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_match: impl FnMut(u32) -> bool) -> Option<u32> {
        self.segment(tag)?.find(tag, is_match)
    }

    /// Begins to fetch the entry's home bucket, so that the misses of several lookups overlap.
    pub(super) fn prefetch(&self, tag: u32) {
        if let Some(segment) = self.segment(tag) {
            segment.prefetch(tag);
        }
    }

    /// Makes room for one more entry with this tag.
    pub(super) fn reserve(&mut self, tag: u32) -> Result<()> {
        loop {
            match self.segment(tag) {
                Some(segment) if !segment.is_full() => return Ok(()),
                Some(segment) if segment.is_largest() => self.split(self.position(tag))?,
                Some(_) => {
                    let number = self.directory[self.position(tag)] as usize;
                    self.segments[number].segment.grow(&self.pool)?;
                }
                None => {
                    self.directory.try_reserve(1).map_err(|_| Error::no_memory())?;
                    self.segments.try_reserve(1).map_err(|_| Error::no_memory())?;
                    self.segments.push(DirectorySegment { segment: Segment::smallest(&self.pool)?, local_depth: 0 });
                    self.directory.push(0);
                }
            }
        }
    }

    /// Splits the segment at a position of the directory, which doubles if it must.
    fn split(&mut self, position: usize) -> Result<()> {
        let number = self.directory[position] as usize;
        let depth = self.segments[number].local_depth;
        if depth == TAG_BITS - BUCKET_BITS {
            // The tags agree in every bit. With hashes for tags, memory runs out before that.
            return Err(Error::no_memory());
        }
        self.segments.try_reserve(1).map_err(|_| Error::no_memory())?;
        let is_deepest = self.directory.len() == 1 << depth;
        if is_deepest {
            self.directory.try_reserve_exact(1 << depth).map_err(|_| Error::no_memory())?;
        }
        let sibling = self.segments[number].segment.split(&self.pool, 1 << (BUCKET_BITS + depth))?;
        // Nothing below fails.
        if is_deepest {
            self.directory.extend_from_within(..);
        }
        let sibling_number = self.segments.len() as u32;
        self.segments[number].local_depth += 1;
        self.segments.push(DirectorySegment { segment: sibling, local_depth: depth + 1 });
        let first = position & ((1 << depth) - 1) | 1 << depth;
        for position in (first..self.directory.len()).step_by(2 << depth) {
            self.directory[position] = sibling_number;
        }
        Ok(())
    }

    /// Shrinks it by one step if it is far too large. Returns whether it did.
    pub(super) fn shrink(&mut self) -> bool {
        match self.segments.as_mut_slice() {
            [] => false,
            [only] => only.segment.shrink(&self.pool),
            segments => {
                let capacity = segments[0].segment.capacity();
                if !should_shrink(segments.len() * capacity, self.len) {
                    return false;
                }
                let siblings = self.mergeable_siblings(capacity);
                if let Some((one, other)) = siblings {
                    self.merge(one, other);
                }
                siblings.is_some()
            }
        }
    }

    /// The numbers of two segments that one split could have made, and that fit into one.
    fn mergeable_siblings(&self, capacity: usize) -> Option<(u32, u32)> {
        (0..self.directory.len()).find_map(|position| {
            let one = self.directory[position];
            let depth = self.segments[one as usize].local_depth;
            let other = *self.directory.get(position | 1 << depth.checked_sub(1)?)?;
            let len = |number: u32| self.segments[number as usize].segment.len();
            let fits = target_capacity(len(one) + len(other)) <= capacity;
            let are_siblings = one != other && self.segments[other as usize].local_depth == depth;
            (are_siblings && fits).then_some((one, other))
        })
    }

    fn merge(&mut self, one: u32, other: u32) {
        let removed = self.segments.swap_remove(other as usize);
        // The last segment has the removed one's number now.
        let last = self.segments.len() as u32;
        for number in &mut self.directory {
            *number = if *number == other { one } else { *number };
            *number = if *number == last { other } else { *number };
        }
        let one = if one == last { other } else { one };
        let merged = &mut self.segments[one as usize];
        merged.local_depth -= 1;
        merged.segment.merge(&removed.segment);
        let deepest = self.segments.iter().map(|entry| entry.local_depth).max().unwrap_or(0);
        self.directory.truncate(1 << deepest);
    }

    /// Adds an entry, for which `reserve` has made room.
    pub(super) fn insert(&mut self, tag: u32, slot: u32) {
        let segment = self.segment_mut(tag);
        debug_assert!(segment.is_some(), "an entry was added without room for it");
        if let Some(segment) = segment {
            segment.insert(tag, slot);
            self.len += 1;
        }
    }

    /// Changes the slot of an entry.
    pub(super) fn relocate(&mut self, tag: u32, from: u32, to: u32) {
        if let Some(segment) = self.segment_mut(tag) {
            segment.relocate(tag, from, to);
        }
    }

    pub(super) fn remove(&mut self, tag: u32, slot: u32) {
        let removed = self.segment_mut(tag).is_some_and(|segment| segment.remove(tag, slot));
        self.len -= usize::from(removed);
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.segments.iter().for_each(|entry| entry.segment.check());
        assert_eq!(self.segments.iter().map(|entry| entry.segment.len()).sum::<usize>(), self.len);
        let deepest = self.segments.iter().map(|entry| entry.local_depth).max();
        assert_eq!(self.directory.len(), deepest.map_or(0, |depth| 1 << depth));
        for (number, entry) in self.segments.iter().enumerate() {
            assert!(self.segments.len() == 1 || entry.segment.is_largest());
            let positions: Vec<usize> =
                (0..self.directory.len()).filter(|&position| self.directory[position] as usize == number).collect();
            assert_eq!(positions.len(), self.directory.len() >> entry.local_depth);
            let common = (1 << entry.local_depth) - 1;
            assert!(positions.iter().all(|position| position & common == positions[0] & common));
            assert!(entry.segment.tags().all(|tag| self.directory[self.position(tag)] as usize == number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn add(index: &mut Index, tag: u32, slot: u32) -> Result<()> {
        index.reserve(tag).map(|()| index.insert(tag, slot))
    }

    fn finds_all<'a>(index: &Index, entries: impl IntoIterator<Item = (&'a u32, &'a u32)>) {
        for (&slot, &tag) in entries {
            assert_eq!(index.find(tag, |found| found == slot), Some(slot));
        }
    }

    fn capacity(index: &Index) -> usize {
        index.segments.iter().map(|entry| entry.segment.capacity()).sum()
    }

    #[test]
    fn random_history_matches_a_map() {
        let mut random = StdRng::seed_from_u64(1);
        // With few tags many share a home, so buckets overflow and removals pull entries forward.
        for tags in [3_u64, 40, 1 << 20] {
            let mut index = Index::new(Pool::new());
            let mut model = HashMap::new();
            for slot in 0..20_000_u32 {
                if model.len() > 300 || random.random_range(0..3) == 0 {
                    let nth = random.random_range(0..model.len().max(1) as u64) as usize;
                    if let Some((&slot, &tag)) = model.iter().nth(nth) {
                        model.remove(&slot);
                        index.remove(tag, slot);
                    }
                } else {
                    let tag = tag_of(u128::from(random.random_range(0..tags)));
                    add(&mut index, tag, slot).unwrap();
                    model.insert(slot, tag);
                }
                if slot % 16 == 0 {
                    index.shrink();
                    index.check();
                }
            }
            finds_all(&index, &model);
            for (&slot, &tag) in &model {
                index.relocate(tag, slot, slot | 1 << 31);
                assert_eq!(index.find(tag, |found| found == slot), None);
            }
            assert_eq!(index.len(), model.len());
        }
    }

    #[test]
    fn large_index_grows_and_shrinks_by_one_segment() {
        let mut random = StdRng::seed_from_u64(2);
        let mut index = Index::new(Pool::new());
        let mut model = HashMap::new();
        for slot in 0..60_000_u32 {
            let tag = tag_of(random.random::<u128>());
            let before = index.segments.len();
            add(&mut index, tag, slot).unwrap();
            model.insert(slot, tag);
            assert!(index.segments.len() <= before + 1);
            assert!(index.len() * 10 >= capacity(&index) * 3 || capacity(&index) <= 64, "{} entries", index.len());
            if slot % 10_000 == 0 {
                index.check();
            }
        }
        finds_all(&index, &model);
        for left in [10_000, 3000, 100, 0] {
            let removed: Vec<u32> = model.keys().copied().skip(left).collect();
            for slot in removed {
                index.remove(model.remove(&slot).unwrap(), slot);
            }
            index.check();
            loop {
                let before = index.segments.len();
                if !index.shrink() {
                    break;
                }
                assert!(index.segments.len() + 1 >= before);
                index.check();
            }
            finds_all(&index, &model);
            assert!(capacity(&index) <= (left * 5).max(128), "room for {} of {left}", capacity(&index));
        }
    }

    #[test]
    fn split_separates_similar_tags() {
        let mut index = Index::new(Pool::new());
        let mut model = HashMap::new();
        for slot in 0..12_000_u32 {
            let tag = tag_of(u128::from(slot % 16) << 20 | u128::from(slot % 1000 * 7));
            add(&mut index, tag, slot).unwrap();
            model.insert(slot, tag);
        }
        index.check();
        finds_all(&index, &model);
        for slot in 0..11_000 {
            index.remove(model[&slot], slot);
            model.remove(&slot);
            if slot % 200 == 0 {
                index.shrink();
                index.check();
            }
        }
        finds_all(&index, &model);
    }

    #[test]
    fn insert_of_indistinguishable_tag_is_refused() {
        let mut index = Index::new(Pool::new());
        let mut model = HashMap::new();
        // A split does not separate tags that differ only in the bits that choose the bucket.
        let tag = |slot: u32| tag_of(u128::from(slot % (1 << BUCKET_BITS)));
        let refused = (0..10_000).find(|&slot| {
            let added = add(&mut index, tag(slot), slot);
            if added.is_ok() {
                model.insert(slot, tag(slot));
            }
            added.is_err()
        });
        assert!(refused.is_some_and(|slot| slot > 6000), "{refused:?}");
        let another = tag_of(1 << 20);
        add(&mut index, another, 10_000).unwrap();
        model.insert(10_000, another);
        index.check();
        finds_all(&index, &model);
    }
}
