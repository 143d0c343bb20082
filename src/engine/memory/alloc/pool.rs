//! Chunks of 64 KiB, cut from [`region`](super::region)s. Shards take chunks under their locks, so
//! what keeps the kernel busy happens apart from that: `reserve_ahead` provides pages before a
//! write, `trim` gives them back after a sweep.
//!
//! Invariants: `resident` and `free` are the sums over the regions, which are sorted by address.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use smallvec::SmallVec;

use super::region::{
    CHUNK_SIZE, CHUNKS_PER_REGION, CacheLine, ChunkSet, LINES_PER_CHUNK, RawChunk, Region, release_pages,
};
use crate::{os::prefetch::prefetch, sync::backoff_mutex::BackoffMutex};

/// A store with fewer regions uses small pages: it should stay small.
const REGIONS_BEFORE_HUGE_PAGES: usize = 8;
/// With fewer free chunks the next region is mapped ahead.
const FREE_CHUNKS_AHEAD: usize = 8;
/// Free chunks that keep their pages, so that a store that shrinks and grows does not fault them in
/// each time: one for so many in use, and at least `MIN_RESIDENT`.
const IN_USE_PER_RESIDENT: usize = 16;
const MIN_RESIDENT: usize = CHUNKS_PER_REGION;
/// The chunks that one `trim` gives back at most.
const MAX_TRIM: usize = 4 * CHUNKS_PER_REGION;
/// The lines of a slot that are fetched at once: a payload of 1 KiB. Processors track about as many
/// misses.
const MAX_PREFETCHED_LINES: usize = 20;

pub(crate) struct Pool {
    regions: BackoffMutex<Regions>,
    /// The number of free chunks, readable without the lock.
    free: AtomicUsize,
    reserving: BackoffMutex<()>,
}

/// 64 KiB of a pool, which they keep alive. The owner wipes its secrets before it drops a chunk,
/// unless the whole store closes and its memory is unmapped.
pub(crate) struct Chunk {
    memory: RawChunk,
    was_resident: bool,
    pool: Arc<Pool>,
}

#[derive(Default)]
struct Regions {
    all: Vec<Region>,
    /// The number of resident free chunks.
    resident: usize,
    /// The region that was used last: the search for a free chunk begins there.
    latest: usize,
}

impl Pool {
    pub(crate) fn new() -> Arc<Pool> {
        Arc::new(Pool {
            regions: BackoffMutex::default(),
            free: AtomicUsize::new(0),
            reserving: BackoffMutex::default(),
        })
    }

    /// A chunk, or `None` if there is no memory.
    pub(crate) fn allocate(self: &Arc<Pool>) -> Option<Chunk> {
        let mut regions = self.regions.lock();
        if self.free.load(Ordering::Relaxed) == 0 {
            // `reserve_ahead` came too late. Small pages: the shard's other users would wait for
            // the zeroing of a huge one.
            let region = Region::map(false)?;
            self.add(&mut regions, region)?;
        }
        let resident = regions.resident > 0;
        self.take(&mut regions, resident)
    }

    /// A chunk without pages: it takes only the memory that is touched. `None` if there is no
    /// memory.
    pub(crate) fn allocate_released(self: &Arc<Pool>) -> Option<Chunk> {
        let mut regions = self.regions.lock();
        if regions.resident == self.free.load(Ordering::Relaxed) {
            let region = Region::map(false)?;
            self.add(&mut regions, region)?;
        }
        self.take(&mut regions, false)
    }

    fn take(self: &Arc<Pool>, regions: &mut Regions, resident: bool) -> Option<Chunk> {
        let memory = regions.take(resident)?;
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(Chunk { memory, was_resident: resident, pool: Arc::clone(self) })
    }

    fn free(&self, chunk: &RawChunk) {
        let mut regions = self.regions.lock();
        regions.free(chunk);
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// Maps the next region if few chunks are free. Called without a shard's lock, because the
    /// kernel takes a while for the pages of a large store; a small one gets its pages one by one
    /// at first use.
    pub(crate) fn reserve_ahead(&self) {
        if self.free.load(Ordering::Relaxed) < FREE_CHUNKS_AHEAD
            && let Some(_reserving) = self.reserving.try_lock()
            && self.free.load(Ordering::Relaxed) < FREE_CHUNKS_AHEAD
        {
            let huge = self.regions.lock().use_huge_pages();
            if let Some(mut region) = Region::map(huge) {
                if huge {
                    region.populate();
                }
                // Without memory for the list the region is not used; the allocation that needs it
                // reports the error.
                let _ = self.add(&mut self.regions.lock(), region);
            }
        }
    }

    /// Gives the pages of some free chunks back to the kernel if far more are resident than are
    /// useful. Returns their number. Called without a shard's lock, because it takes the kernel a
    /// while, and interrupts every processor that runs a thread of this process.
    pub(crate) fn trim(&self) -> usize {
        let mut regions = self.regions.lock();
        let in_use = (regions.all.len() * CHUNKS_PER_REGION).saturating_sub(self.free.load(Ordering::Relaxed));
        let useful = MIN_RESIDENT.max(in_use / IN_USE_PER_RESIDENT);
        if regions.resident < useful + useful / 2 {
            return 0;
        }
        let surplus = (regions.resident - useful).min(MAX_TRIM);
        // Whole regions first: for a part of one the kernel splits its huge page, which takes four
        // times as long.
        let mut free_regions = regions.take_free_regions(surplus / CHUNKS_PER_REGION);
        if !free_regions.is_empty() {
            let chunks = free_regions.len() * CHUNKS_PER_REGION;
            self.free.fetch_sub(chunks, Ordering::Relaxed);
            drop(regions);
            // Pages first, with one interruption for all regions: unmapping a region without pages
            // needs none.
            let sets: ChunkSets =
                free_regions.iter_mut().map(|region| region.take_resident(CHUNKS_PER_REGION)).collect();
            release_pages(&sets);
            return chunks;
        }
        let sets = regions.take_resident(surplus);
        self.free.fetch_sub(surplus, Ordering::Relaxed);
        drop(regions);
        release_pages(&sets);
        self.regions.lock().put_released(&sets);
        self.free.fetch_add(surplus, Ordering::Relaxed);
        surplus
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn resident_bytes(&self) -> usize {
        self.regions.lock().all.iter().map(Region::resident_bytes).sum()
    }

    /// `None`, and the region unmapped, if there is no memory for the list.
    fn add(&self, regions: &mut Regions, region: Region) -> Option<()> {
        regions.add(region)?;
        self.free.fetch_add(CHUNKS_PER_REGION, Ordering::Relaxed);
        Some(())
    }
}

impl Chunk {
    /// Whether its pages were in memory when it was allocated.
    pub(crate) fn was_resident(&self) -> bool {
        self.was_resident
    }

    /// Fetches the cache lines of a slot all at once. The position of its payload stands in its
    /// first line, so without this the others would be requested only once that has arrived: one
    /// more miss for every use.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize, len: usize) {
        // A slot need not begin where a line does.
        let first = offset / size_of::<CacheLine>();
        let end = (offset + len).div_ceil(size_of::<CacheLine>()).min(first + MAX_PREFETCHED_LINES);
        for line in first..end {
            prefetch(self.memory.lines().as_ptr().wrapping_add(line));
        }
    }

    pub(crate) fn lines(&self) -> &[CacheLine; LINES_PER_CHUNK] {
        self.memory.lines()
    }

    pub(crate) fn lines_mut(&mut self) -> &mut [CacheLine; LINES_PER_CHUNK] {
        self.memory.lines_mut()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.free(&self.memory);
    }
}

impl Deref for Chunk {
    type Target = [u8; CHUNK_SIZE];

    fn deref(&self) -> &[u8; CHUNK_SIZE] {
        &self.memory
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8; CHUNK_SIZE] {
        &mut self.memory
    }
}

type FreeRegions = SmallVec<[Region; MAX_TRIM / CHUNKS_PER_REGION]>;
type ChunkSets = SmallVec<[ChunkSet; 32]>;

impl Regions {
    /// Whether the next region has a huge page.
    fn use_huge_pages(&self) -> bool {
        self.all.len() >= REGIONS_BEFORE_HUGE_PAGES
    }

    fn add(&mut self, region: Region) -> Option<()> {
        self.all.try_reserve(1).ok()?;
        self.resident += region.resident.count_ones() as usize;
        self.latest = self.index_after(region.address());
        self.all.insert(self.latest, region);
        Some(())
    }

    /// The index after that of the region that contains an address.
    fn index_after(&self, address: usize) -> usize {
        self.all.partition_point(|region| region.address() <= address)
    }

    /// Takes a free chunk, a resident or a released one.
    fn take(&mut self, resident: bool) -> Option<RawChunk> {
        let has_chunk = |region: &Region| if resident { region.resident != 0 } else { region.released != 0 };
        let mut indices = (self.latest..self.all.len()).chain(0..self.latest);
        self.latest = indices.find(|&i| has_chunk(&self.all[i]))?;
        self.resident -= usize::from(resident);
        self.all[self.latest].take(resident)
    }

    fn free(&mut self, chunk: &RawChunk) {
        self.latest = self.index_after(chunk.address()) - 1;
        self.all[self.latest].free(chunk);
        self.resident += 1;
    }

    /// Takes up to `max` regions without a chunk in use out of the list.
    fn take_free_regions(&mut self, max: usize) -> FreeRegions {
        let mut free = FreeRegions::new();
        for i in (0..self.all.len()).rev() {
            if free.len() < max && self.all[i].is_free() {
                let region = self.all.remove(i);
                self.resident -= region.resident.count_ones() as usize;
                free.push(region);
            }
        }
        self.latest = 0;
        free
    }

    /// Takes `count` resident free chunks; there are as many.
    fn take_resident(&mut self, count: usize) -> ChunkSets {
        let mut sets = ChunkSets::new();
        let mut left = count;
        for region in self.all.iter_mut().rev().filter(|region| region.resident != 0) {
            if left == 0 {
                break;
            }
            let set = region.take_resident(left);
            left -= set.len();
            sets.push(set);
        }
        self.resident -= count;
        sets
    }

    /// Takes them back without pages. Their regions are still listed, because these chunks were not
    /// free meanwhile.
    fn put_released(&mut self, sets: &[ChunkSet]) {
        for set in sets {
            let i = self.index_after(set.region_address()) - 1;
            self.all[i].put_released(set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_disjoint_and_reused() {
        let pool = Pool::new();
        let mut chunks: Vec<Chunk> = (0..100).map(|_| pool.allocate().unwrap()).collect();
        for (i, chunk) in chunks.iter_mut().enumerate() {
            chunk.fill(i as u8 + 1);
        }
        for (i, chunk) in chunks.iter().enumerate() {
            assert!(chunk.iter().all(|&byte| byte == i as u8 + 1));
        }
        let regions = pool.regions.lock().all.len();
        chunks.clear();
        let mut again: Vec<Chunk> = (0..100).map(|_| pool.allocate().unwrap()).collect();
        again.iter_mut().for_each(|chunk| chunk.fill(0xFF));
        assert_eq!(pool.regions.lock().all.len(), regions);
    }

    fn check(pool: &Pool) {
        let regions = pool.regions.lock();
        let count =
            |bits: fn(&Region) -> u32| regions.all.iter().map(|region| bits(region).count_ones() as usize).sum();
        assert_eq!(regions.resident, count(|region| region.resident));
        assert_eq!(pool.free.load(Ordering::Relaxed), count(|region| region.resident | region.released));
        assert!(regions.all.iter().all(|region| region.resident & region.released == 0));
        assert!(regions.all.is_sorted_by_key(Region::address));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn trim_bounds_resident_memory_in_any_order_of_frees() {
        for order in [|i: usize| i, |i| 999 - i, |i| i * 37 % 1000] {
            let pool = Pool::new();
            let mut chunks: Vec<Option<Chunk>> = (0..1000).map(|_| pool.allocate()).collect();
            chunks.iter_mut().flatten().for_each(|chunk| chunk.fill(1));
            for i in 0..1000 {
                drop(chunks[order(i)].take());
                if i % 100 == 99 {
                    let mut trimmed = pool.trim();
                    check(&pool);
                    while trimmed > 0 {
                        assert!(trimmed <= MAX_TRIM);
                        trimmed = pool.trim();
                        check(&pool);
                    }
                    let left = 999 - i;
                    let useful = MIN_RESIDENT.max(left / IN_USE_PER_RESIDENT);
                    let limit = (left + useful + useful / 2 + CHUNKS_PER_REGION) * CHUNK_SIZE;
                    assert!(pool.resident_bytes() <= limit, "{i}");
                    assert!(chunks.iter().flatten().all(|chunk| chunk.iter().all(|&byte| byte == 1)));
                }
            }
            let mut again: Vec<Chunk> = (0..1000).map(|_| pool.allocate().unwrap()).collect();
            again.iter_mut().for_each(|chunk| chunk.fill(2));
            check(&pool);
            assert!(pool.regions.lock().all.len() <= 1000_usize.div_ceil(CHUNKS_PER_REGION) + 1);
        }
    }

    #[test]
    fn trim_waits_for_a_large_surplus() {
        let pool = Pool::new();
        let mut chunks: Vec<Chunk> = (0..1000).map(|_| pool.allocate().unwrap()).collect();
        chunks.truncate(1000 - 40);
        assert_eq!(pool.trim(), 0);
        chunks.truncate(1000 - 200);
        assert_eq!(pool.trim(), MAX_TRIM);
        check(&pool);
        chunks.clear();
        while pool.trim() > 0 {
            check(&pool);
        }
        // The other regions were free as a whole.
        let left = pool.regions.lock().all.len();
        assert!(left <= (MIN_RESIDENT + MAX_TRIM) / CHUNKS_PER_REGION, "{left} regions");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn allocate_without_reserve_uses_small_pages() {
        const REGIONS: usize = REGIONS_BEFORE_HUGE_PAGES + 4;
        let pool = Pool::new();
        let mut chunks: Vec<Chunk> = (0..REGIONS * CHUNKS_PER_REGION).map(|_| pool.allocate().unwrap()).collect();
        let before = pool.resident_bytes();
        chunks.iter_mut().step_by(CHUNKS_PER_REGION).for_each(|chunk| chunk[0] = 1);
        assert!(pool.resident_bytes() <= before + REGIONS * CHUNK_SIZE);
    }

    #[test]
    fn reserve_ahead_maps_one_region() {
        let pool = Pool::new();
        pool.reserve_ahead();
        assert_eq!(pool.free.load(Ordering::Relaxed), CHUNKS_PER_REGION);
        pool.reserve_ahead();
        assert_eq!(pool.free.load(Ordering::Relaxed), CHUNKS_PER_REGION);
    }

    #[test]
    fn chunk_keeps_its_pool_alive() {
        let pool = Pool::new();
        let mut chunk = pool.allocate().unwrap();
        drop(pool);
        chunk[CHUNK_SIZE - 1] = 7;
        assert_eq!(chunk[CHUNK_SIZE - 1], 7);
    }
}
