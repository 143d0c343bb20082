//! From a session's key to the address of its slot: extendible hashing (Fagin, Nievergelt, Pippenger, Strong: "Extendible
//! Hashing", ACM TODS 4 (3), 1979). A directory leads to segments of 64 KiB. One that gets full is split, two that get empty
//! are merged, so that however large the table is, nobody waits for more than one segment to be filled anew.
//!
//! Invariants: the directory has a power of two of places, and is as long as its deepest segment needs; a segment of depth
//! `d` stands at all places whose lowest `d` bits are the same; it holds exactly the entries that lead there.

use std::sync::Arc;

pub(super) use super::segment::tag_of;
use super::{
    pool::Pool,
    segment::{BITS, Segment, TAG_BITS, ample_for, is_far_too_large},
};
use crate::error::{Error, Result};

pub(super) struct Table {
    pool: Arc<Pool>,
    /// Numbers of segments. Those bits of a tag that no bucket is chosen by are the place here.
    directory: Vec<u32>,
    segments: Vec<Part>,
    /// The entries of all segments.
    len: usize,
}

struct Part {
    segment: Segment,
    /// How many bits of a place the entries of this segment have in common.
    depth: u32,
}

impl Table {
    pub(super) fn new(pool: Arc<Pool>) -> Table {
        Table { pool, directory: Vec::new(), segments: Vec::new(), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn place(&self, tag: u32) -> usize {
        tag as usize >> BITS & self.directory.len().wrapping_sub(1)
    }

    /// None: the table is empty.
    #[inline]
    fn segment(&self, tag: u32) -> Option<&Segment> {
        let number = *self.directory.get(self.place(tag))?;
        self.segments.get(number as usize).map(|part| &part.segment)
    }

    fn segment_mut(&mut self, tag: u32) -> Option<&mut Segment> {
        let number = *self.directory.get(self.place(tag))?;
        self.segments.get_mut(number as usize).map(|part| &mut part.segment)
    }

    /// The address of the entry with this tag for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.segment(tag)?.find(tag, is_it)
    }

    /// Begins to fetch the entry's home bucket, so that the misses of several uses overlap.
    pub(super) fn prefetch(&self, tag: u32) {
        self.segment(tag).into_iter().for_each(|segment| segment.prefetch(tag));
    }

    /// Makes room for one more entry with this tag.
    pub(super) fn reserve(&mut self, tag: u32) -> Result<()> {
        loop {
            match self.segment(tag) {
                Some(segment) if !segment.is_full() => return Ok(()),
                Some(segment) if segment.is_largest() => self.split(self.place(tag))?,
                Some(_) => {
                    let number = self.directory[self.place(tag)] as usize;
                    self.segments[number].segment.grow(&self.pool)?;
                }
                None => {
                    self.directory.try_reserve(1).map_err(|_| Error::no_memory())?;
                    self.segments.try_reserve(1).map_err(|_| Error::no_memory())?;
                    self.segments.push(Part { segment: Segment::smallest(&self.pool)?, depth: 0 });
                    self.directory.push(0);
                }
            }
        }
    }

    /// Shares the segment at a place between that place and another one.
    fn split(&mut self, place: usize) -> Result<()> {
        let number = self.directory[place] as usize;
        let depth = self.segments[number].depth;
        if depth == TAG_BITS - BITS {
            // Nothing is left by which tags could differ; with hashes for tags there is no memory for so many.
            return Err(Error::no_memory());
        }
        self.segments.try_reserve(1).map_err(|_| Error::no_memory())?;
        let is_deepest = self.directory.len() == 1 << depth;
        if is_deepest {
            self.directory.try_reserve_exact(1 << depth).map_err(|_| Error::no_memory())?;
        }
        let with = self.segments[number].segment.split(&self.pool, 1 << (BITS + depth))?;
        // From here on nothing fails.
        if is_deepest {
            self.directory.extend_from_within(..);
        }
        let new = self.segments.len() as u32;
        self.segments[number].depth += 1;
        self.segments.push(Part { segment: with, depth: depth + 1 });
        let first = place & ((1 << depth) - 1) | 1 << depth;
        for place in (first..self.directory.len()).step_by(2 << depth) {
            self.directory[place] = new;
        }
        Ok(())
    }

    /// Makes the table smaller, by one step, if it is far too large for what is in it. Whether it was.
    pub(super) fn shrink(&mut self) -> bool {
        match self.segments.as_mut_slice() {
            [] => false,
            [only] => only.segment.shrink(&self.pool),
            parts => {
                let capacity = parts[0].segment.capacity();
                if !is_far_too_large(parts.len() * capacity, self.len) {
                    return false;
                }
                let fit = |one: &Part, other: &Part| ample_for(one.segment.len() + other.segment.len()) <= capacity;
                let twins = (0..self.directory.len()).find_map(|place| {
                    let one = &self.segments[self.directory[place] as usize];
                    let other = place | 1 << one.depth.checked_sub(1)?;
                    let twin = &self.segments[*self.directory.get(other)? as usize];
                    (other != place && one.depth == twin.depth && fit(one, twin)).then_some((place, other))
                });
                if let Some((place, other)) = twins {
                    self.merge(self.directory[place], self.directory[other]);
                }
                twins.is_some()
            }
        }
    }

    /// Puts two segments together that were one.
    fn merge(&mut self, one: u32, other: u32) {
        let gone = self.segments.swap_remove(other as usize);
        // The last one has its number now.
        let last = self.segments.len() as u32;
        for number in &mut self.directory {
            *number = if *number == other { one } else { *number };
            *number = if *number == last { other } else { *number };
        }
        let one = if one == last { other } else { one };
        let part = &mut self.segments[one as usize];
        part.depth -= 1;
        part.segment.merge(&gone.segment);
        let deepest = self.segments.iter().map(|part| part.depth).max().unwrap_or(0);
        self.directory.truncate(1 << deepest);
    }

    /// Adds an entry; there is room.
    pub(super) fn insert(&mut self, tag: u32, address: u32) {
        let segment = self.segment_mut(tag);
        debug_assert!(segment.is_some(), "an entry was added without room for it");
        if let Some(segment) = segment {
            segment.insert(tag, address);
            self.len += 1;
        }
    }

    /// Points an entry to where its session is now.
    pub(super) fn moved(&mut self, tag: u32, from: u32, to: u32) {
        self.segment_mut(tag).into_iter().for_each(|segment| segment.moved(tag, from, to));
    }

    pub(super) fn remove(&mut self, tag: u32, address: u32) {
        let removed = self.segment_mut(tag).is_some_and(|segment| segment.remove(tag, address));
        self.len -= usize::from(removed);
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.segments.iter().for_each(|part| part.segment.check());
        assert_eq!(self.segments.iter().map(|part| part.segment.len()).sum::<usize>(), self.len);
        let deepest = self.segments.iter().map(|part| part.depth).max();
        assert_eq!(self.directory.len(), deepest.map_or(0, |depth| 1 << depth));
        for (number, part) in self.segments.iter().enumerate() {
            assert!(self.segments.len() == 1 || part.segment.is_largest());
            let places: Vec<usize> =
                (0..self.directory.len()).filter(|&place| self.directory[place] as usize == number).collect();
            assert_eq!(places.len(), self.directory.len() >> part.depth);
            let common = (1 << part.depth) - 1;
            assert!(places.iter().all(|place| place & common == places[0] & common));
            assert!(part.segment.tags().all(|tag| self.directory[self.place(tag)] as usize == number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A generator of its own for each test (xorshift).
    fn random() -> impl FnMut() -> u64 {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    fn add(table: &mut Table, tag: u32, address: u32) -> Result<()> {
        table.reserve(tag).map(|()| table.insert(tag, address))
    }

    fn finds_all<'a>(table: &Table, entries: impl IntoIterator<Item = (&'a u32, &'a u32)>) {
        for (&address, &tag) in entries {
            assert_eq!(table.find(tag, |found| found == address), Some(address));
        }
    }

    fn capacity(table: &Table) -> usize {
        table.segments.iter().map(|part| part.segment.capacity()).sum()
    }

    #[test]
    fn random_inserts_and_removes_agree_with_a_map_also_where_tags_crowd() {
        let mut random = random();
        // Few tags: many share a home, so buckets overflow and removals have to pull.
        for tags in [3, 40, 1 << 20] {
            let (mut table, mut model) = (Table::new(Pool::new()), HashMap::new());
            for address in 0..20_000_u32 {
                if model.len() > 300 || random().is_multiple_of(3) {
                    if let Some((&address, &tag)) = model.iter().nth(random() as usize % model.len().max(1)) {
                        model.remove(&address);
                        table.remove(tag, address);
                    }
                } else {
                    let tag = tag_of(u128::from(random() % tags));
                    add(&mut table, tag, address).unwrap();
                    model.insert(address, tag);
                }
                if address % 16 == 0 {
                    table.shrink();
                    table.check();
                }
            }
            finds_all(&table, &model);
            for (&address, &tag) in &model {
                table.moved(tag, address, address | 1 << 31);
                assert_eq!(table.find(tag, |found| found == address), None);
            }
            assert_eq!(table.len(), model.len());
        }
    }

    #[test]
    fn a_large_table_grows_and_shrinks_a_segment_at_a_time() {
        let (mut random, mut table, mut model) = (random(), Table::new(Pool::new()), HashMap::new());
        for address in 0..60_000_u32 {
            let tag = tag_of(u128::from(random()));
            let before = table.segments.len();
            add(&mut table, tag, address).unwrap();
            model.insert(address, tag);
            assert!(table.segments.len() <= before + 1);
            assert!(table.len() * 10 >= capacity(&table) * 3 || capacity(&table) <= 64, "{} entries", table.len());
            if address % 10_000 == 0 {
                table.check();
            }
        }
        finds_all(&table, &model);
        for left in [10_000, 3000, 100, 0] {
            let gone: Vec<u32> = model.keys().copied().skip(left).collect();
            for address in gone {
                table.remove(model.remove(&address).unwrap(), address);
            }
            table.check();
            loop {
                let before = table.segments.len();
                if !table.shrink() {
                    break;
                }
                assert!(table.segments.len() + 1 >= before);
                table.check();
            }
            finds_all(&table, &model);
            assert!(capacity(&table) <= (left * 5).max(128), "room for {} of {left}", capacity(&table));
        }
    }

    #[test]
    fn tags_that_differ_in_few_bits_only_are_parted_by_those() {
        let (mut table, mut model) = (Table::new(Pool::new()), HashMap::new());
        for address in 0..12_000_u32 {
            let tag = tag_of(u128::from(address % 16) << 20 | u128::from(address % 1000 * 7));
            add(&mut table, tag, address).unwrap();
            model.insert(address, tag);
        }
        table.check();
        finds_all(&table, &model);
        for address in 0..11_000 {
            table.remove(model[&address], address);
            model.remove(&address);
            if address % 200 == 0 {
                table.shrink();
                table.check();
            }
        }
        finds_all(&table, &model);
    }

    #[test]
    fn where_too_many_tags_are_alike_one_more_is_refused_and_nothing_is_lost() {
        let (mut table, mut model) = (Table::new(Pool::new()), HashMap::new());
        // The bits that choose the bucket are of no use in parting them.
        let tag = |address: u32| tag_of(u128::from(address % (1 << BITS)));
        let refused = (0..10_000).find(|&address| {
            let added = add(&mut table, tag(address), address);
            if added.is_ok() {
                model.insert(address, tag(address));
            }
            added.is_err()
        });
        assert!(refused.is_some_and(|address| address > 6000), "{refused:?}");
        let another = tag_of(1 << 20);
        add(&mut table, another, 10_000).unwrap();
        model.insert(10_000, another);
        table.check();
        finds_all(&table, &model);
    }
}
