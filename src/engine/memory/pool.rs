//! Memory for slots and tables: chunks of 64 KiB, cut from [`region`](super::region)s. Chunks come from here under a shard's lock,
//! so what takes the kernel long is done apart from that: `top_up` makes pages before a write, `trim` gives them back
//! after a sweep.
//!
//! Invariants: `warm` and `free` are the sums over the regions, which are in the order of their addresses.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::sync::backoff_mutex::BackoffMutex as Mutex;
use smallvec::SmallVec;

use super::region::{CHUNK, CHUNKS, Chunk, Line, Lines, Part, Region, release_pages};

/// Regions that a store has before it uses huge pages: a small one should stay small.
const SMALL: usize = 8;
/// Free chunks under which the next region is made ready.
const LOW_WATER: usize = 8;
/// Free chunks that keep their pages, so that a store that shrinks and grows does not fault them in again and again: one for so
/// many in use, and at least so many.
const IN_USE_FOR_ONE_WARM: usize = 16;
const FEWEST_WARM: usize = CHUNKS;
/// As many chunks as are given back to the kernel at once.
const MOST_TRIMMED: usize = 4 * CHUNKS;

pub(super) struct Pool {
    regions: Mutex<Regions>,
    /// The number of free chunks, readable without the lock.
    free: AtomicUsize,
    growing: Mutex<()>,
}

type Whole = SmallVec<[Region; MOST_TRIMMED / CHUNKS]>;
type Parts = SmallVec<[Part; 32]>;

#[derive(Default)]
struct Regions {
    all: Vec<Region>,
    /// The number of warm chunks.
    warm: usize,
    /// Where the search for a free chunk begins: at the region that was last used.
    latest: usize,
}

impl Pool {
    pub(super) fn new() -> Arc<Pool> {
        Arc::new(Pool { regions: Mutex::default(), free: AtomicUsize::new(0), growing: Mutex::default() })
    }

    /// A chunk, or `None` if memory ran out.
    pub(super) fn chunk(self: &Arc<Pool>) -> Option<Chunk> {
        let mut regions = self.regions.lock();
        if self.free.load(Ordering::Relaxed) == 0 {
            // `top_up` came too late. Small pages: whoever waits for the shard would wait for all of a huge one.
            let region = Region::map(false)?;
            self.add(&mut regions, region)?;
        }
        let chunk = regions.take(self)?;
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(chunk)
    }

    /// `count` lines, or `None` if memory ran out or they are more than a chunk.
    pub(super) fn lines(self: &Arc<Pool>, count: usize) -> Option<Lines> {
        match count.checked_mul(size_of::<Line>())? {
            CHUNK => {
                let mut lines = Lines::Chunk(self.chunk()?);
                lines.fill(Line([0; 8]));
                Some(lines)
            }
            0..CHUNK => {
                let mut few = Vec::new();
                few.try_reserve_exact(count).ok()?;
                few.resize(count, Line([0; 8]));
                Some(Lines::Few(few))
            }
            _ => None,
        }
    }

    /// Puts a chunk back that is about to be dropped.
    pub(super) fn put_back(&self, chunk: &Chunk) {
        let mut regions = self.regions.lock();
        regions.put_back(chunk);
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the next region ready if there will soon be need of it. To be called without a shard's lock, because making the
    /// pages of a large store takes the kernel a while; a small store gets its pages one by one when it touches them.
    pub(super) fn top_up(&self) {
        if self.free.load(Ordering::Relaxed) < LOW_WATER
            && let Some(_growing) = self.growing.try_lock()
            && self.free.load(Ordering::Relaxed) < LOW_WATER
        {
            let huge = self.regions.lock().are_many();
            if let Some(mut region) = Region::map(huge) {
                if huge {
                    region.populate();
                }
                // Without memory for the list the region is not used; whoever needs it gets the error.
                let _ = self.add(&mut self.regions.lock(), region);
            }
        }
    }

    /// Gives the pages of some free chunks back to the kernel, if there are far more of them than are of use. Returns how many
    /// chunks those were. To be called without a shard's lock, and for many at once, because each time the kernel interrupts
    /// every processor that a thread of this process runs on.
    pub(super) fn trim(&self) -> usize {
        let mut regions = self.regions.lock();
        let in_use = (regions.all.len() * CHUNKS).saturating_sub(self.free.load(Ordering::Relaxed));
        let of_use = FEWEST_WARM.max(in_use / IN_USE_FOR_ONE_WARM);
        if regions.warm < of_use + of_use / 2 {
            return 0;
        }
        let surplus = (regions.warm - of_use).min(MOST_TRIMMED);
        // Whole regions first: for a part of one the kernel takes its huge page apart, which takes four times as long.
        let mut whole = regions.take_whole(surplus / CHUNKS);
        if !whole.is_empty() {
            let chunks = whole.len() * CHUNKS;
            self.free.fetch_sub(chunks, Ordering::Relaxed);
            drop(regions);
            // Their pages first, with one interruption: unmapping what has none asks for no other.
            release_pages(&whole.iter_mut().map(|region| region.take_warm(CHUNKS)).collect::<Parts>());
            return chunks;
        }
        let parts = regions.take_warm(surplus);
        self.free.fetch_sub(surplus, Ordering::Relaxed);
        drop(regions);
        release_pages(&parts);
        self.regions.lock().put_cold(&parts);
        self.free.fetch_add(surplus, Ordering::Relaxed);
        surplus
    }

    /// `None`, and the region unmapped, if there is no memory for the list.
    fn add(&self, regions: &mut Regions, region: Region) -> Option<()> {
        regions.add(region)?;
        self.free.fetch_add(CHUNKS, Ordering::Relaxed);
        Some(())
    }
}

impl Regions {
    /// Whether the next region is to have a huge page.
    fn are_many(&self) -> bool {
        self.all.len() >= SMALL
    }

    fn add(&mut self, region: Region) -> Option<()> {
        self.all.try_reserve(1).ok()?;
        self.warm += region.warm.count_ones() as usize;
        self.latest = self.place_behind(region.address());
        self.all.insert(self.latest, region);
        Some(())
    }

    /// The place behind the region that has an address.
    fn place_behind(&self, address: usize) -> usize {
        self.all.partition_point(|region| region.address() <= address)
    }

    /// Takes a free chunk: a warm one, if there is one.
    fn take(&mut self, pool: &Arc<Pool>) -> Option<Chunk> {
        let warm = self.warm > 0;
        let mut places = (self.latest..self.all.len()).chain(0..self.latest);
        self.latest = places.find(|&place| if warm { self.all[place].warm } else { self.all[place].cold } != 0)?;
        self.warm -= usize::from(warm);
        self.all[self.latest].take(Arc::clone(pool))
    }

    fn put_back(&mut self, chunk: &Chunk) {
        self.latest = self.place_behind(chunk.address()) - 1;
        self.all[self.latest].put_back(chunk);
        self.warm += 1;
    }

    /// Takes up to `most` regions that are free as a whole out of the list.
    fn take_whole(&mut self, most: usize) -> Whole {
        let mut whole = Whole::new();
        for place in (0..self.all.len()).rev() {
            if whole.len() < most && self.all[place].is_free() {
                let region = self.all.remove(place);
                self.warm -= region.warm.count_ones() as usize;
                whole.push(region);
            }
        }
        self.latest = 0;
        whole
    }

    /// Takes `count` warm chunks, of which there are as many, to give back their pages.
    fn take_warm(&mut self, count: usize) -> Parts {
        let (mut parts, mut left) = (Parts::new(), count);
        for region in self.all.iter_mut().rev().filter(|region| region.warm != 0) {
            if left == 0 {
                break;
            }
            let part = region.take_warm(left);
            left -= part.len();
            parts.push(part);
        }
        self.warm -= count;
        parts
    }

    /// Puts them back without pages. Their regions are still there, because these chunks were missing.
    fn put_cold(&mut self, parts: &[Part]) {
        for part in parts {
            let place = self.place_behind(part.address()) - 1;
            self.all[place].put_cold(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_disjoint_and_used_again() {
        let pool = Pool::new();
        let mut chunks: Vec<Chunk> = (0..100).map(|_| pool.chunk().unwrap()).collect();
        for (i, chunk) in chunks.iter_mut().enumerate() {
            chunk.fill(i as u8 + 1);
        }
        for (i, chunk) in chunks.iter().enumerate() {
            assert!(chunk.iter().all(|&byte| byte == i as u8 + 1));
        }
        let regions = pool.regions.lock().all.len();
        chunks.clear();
        let mut again: Vec<Chunk> = (0..100).map(|_| pool.chunk().unwrap()).collect();
        again.iter_mut().for_each(|chunk| chunk.fill(0xFF));
        assert_eq!(pool.regions.lock().all.len(), regions);
    }

    /// The bytes of the pool's regions for which there is memory.
    #[cfg(target_os = "linux")]
    fn resident(pool: &Pool) -> usize {
        pool.regions.lock().all.iter().map(Region::resident).sum()
    }

    fn check(pool: &Pool) {
        let regions = pool.regions.lock();
        let count = |bits: fn(&Region) -> u32| {
            regions.all.iter().map(|region| bits(region).count_ones() as usize).sum::<usize>()
        };
        assert_eq!(regions.warm, count(|region| region.warm));
        assert_eq!(pool.free.load(Ordering::Relaxed), count(|region| region.warm | region.cold));
        assert!(regions.all.iter().all(|region| region.warm & region.cold == 0));
        assert!(regions.all.is_sorted_by_key(Region::address));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn trim_gives_memory_back_in_whatever_order_chunks_go_and_never_more_than_is_in_use() {
        for order in [|i: usize| i, |i| 999 - i, |i| i * 37 % 1000] {
            let pool = Pool::new();
            let mut chunks: Vec<Option<Chunk>> = (0..1000).map(|_| pool.chunk()).collect();
            chunks.iter_mut().flatten().for_each(|chunk| chunk.fill(1));
            for i in 0..1000 {
                drop(chunks[order(i)].take());
                if i % 100 == 99 {
                    let mut trimmed = pool.trim();
                    check(&pool);
                    while trimmed > 0 {
                        assert!(trimmed <= MOST_TRIMMED);
                        trimmed = pool.trim();
                        check(&pool);
                    }
                    let left = 999 - i;
                    let of_use = FEWEST_WARM.max(left / IN_USE_FOR_ONE_WARM);
                    assert!(resident(&pool) <= (left + of_use + of_use / 2 + CHUNKS) * CHUNK, "{i}");
                    assert!(chunks.iter().flatten().all(|chunk| chunk.iter().all(|&byte| byte == 1)));
                }
            }
            let mut again: Vec<Chunk> = (0..1000).map(|_| pool.chunk().unwrap()).collect();
            again.iter_mut().for_each(|chunk| chunk.fill(2));
            check(&pool);
            assert!(pool.regions.lock().all.len() <= 1000_usize.div_ceil(CHUNKS) + 1);
        }
    }

    #[test]
    fn only_what_is_far_too_much_is_given_back() {
        let pool = Pool::new();
        let mut chunks: Vec<Chunk> = (0..1000).map(|_| pool.chunk().unwrap()).collect();
        chunks.truncate(1000 - 40);
        assert_eq!(pool.trim(), 0);
        chunks.truncate(1000 - 200);
        assert_eq!(pool.trim(), MOST_TRIMMED);
        check(&pool);
        chunks.clear();
        while pool.trim() > 0 {
            check(&pool);
        }
        // The others were free as a whole.
        let left = pool.regions.lock().all.len();
        assert!(left <= FEWEST_WARM / CHUNKS + MOST_TRIMMED / CHUNKS, "{left} regions");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_holds_a_shard_never_waits_for_a_huge_page() {
        let pool = Pool::new();
        // Nobody tops up.
        let mut chunks: Vec<Chunk> = (0..(SMALL + 4) * CHUNKS).map(|_| pool.chunk().unwrap()).collect();
        let before = resident(&pool);
        chunks.iter_mut().step_by(CHUNKS).for_each(|chunk| chunk[0] = 1);
        assert!(resident(&pool) <= before + (SMALL + 4) * CHUNK);
    }

    #[test]
    fn a_region_is_made_ready_before_it_is_needed() {
        let pool = Pool::new();
        pool.top_up();
        assert_eq!(pool.free.load(Ordering::Relaxed), CHUNKS);
        pool.top_up();
        assert_eq!(pool.free.load(Ordering::Relaxed), CHUNKS);
    }

    #[test]
    fn lines_of_every_size_are_zeros_and_disjoint_from_chunks() {
        let pool = Pool::new();
        let mut held = Vec::new();
        for round in 0..3 {
            for count in (0..11).map(|doublings| 1 << doublings) {
                let mut lines = pool.lines(count).unwrap();
                assert_eq!(lines.len(), count);
                assert!(lines.iter().all(|line| line.0 == [0; 8]), "{count} lines in round {round}");
                lines.fill(Line([count as u64; 8]));
                let mut chunk = pool.chunk().unwrap();
                chunk.fill(0xFF);
                held.push((lines, chunk));
            }
            for (lines, chunk) in held.drain(..) {
                assert!(lines.iter().all(|line| line.0 == [lines.len() as u64; 8]));
                assert!(chunk.iter().all(|&byte| byte == 0xFF));
            }
        }
    }

    #[test]
    fn a_chunk_outlives_the_handle_to_its_pool() {
        let pool = Pool::new();
        let mut chunk = pool.chunk().unwrap();
        drop(pool);
        chunk[CHUNK - 1] = 7;
        assert_eq!(chunk[CHUNK - 1], 7);
    }
}
