//! Memory for slots and tables, cut from regions that the kernel may back with huge pages (a random read of a million
//! sessions costs a quarter less with them). The only `unsafe` of the engine: it hands out pieces of mappings as owned
//! values, and knows nothing of what is in them.
//!
//! A piece belongs to one owner at a time: it is either inside a [`Chunk`] or in the pool's lists. Regions are unmapped when
//! the pool goes, and every chunk keeps its pool alive.
#![allow(unsafe_code)]

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use smallvec::SmallVec;

pub(super) const CHUNK: usize = 64 << 10;
const REGION: usize = 2 << 20;
const CHUNKS: usize = REGION / CHUNK;
const LINES: usize = CHUNK / size_of::<Line>();
/// Below this a store uses small pages: it should stay small.
const HUGE_FROM: usize = 16 << 20;
/// Free chunks under which the next region is made ready.
const LOW_WATER: usize = 8;
/// Lines of a slot that are asked for at once: a payload of 1 KiB. Processors keep track of about as many.
const MOST_PREFETCHED: usize = 20;
/// Freed chunks that keep their memory, so that a store that shrinks and grows does not fault it in again and again: one for
/// so many in use, within these bounds. More are given back together, because each time the kernel interrupts every processor
/// that a thread of this process runs on (to forget where the memory was), which takes longer than all the rest of a sweep.
const IN_USE_FOR_ONE_WARM: usize = 16;
const WARM: std::ops::RangeInclusive<usize> = 32..=MOST_WARM;
/// As many as whoever frees the last of them can give back in a moment.
const MOST_WARM: usize = 128;

type Piece = NonNull<[u8; CHUNK]>;

/// 64 KiB that nobody else has. What is in it at first is of no meaning, and no secret: whoever drops it has wiped its
/// secrets, unless the store closes and all of it is unmapped.
pub(super) struct Chunk {
    memory: Piece,
    pool: Arc<Pool>,
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u64; 8]);

/// Cache lines, up to a chunk of them, zeros at first.
pub(super) enum Lines {
    /// From the heap.
    Few(Vec<Line>),
    Chunk(Chunk),
}

// SAFETY: a chunk owns its memory; nothing of it is tied to a thread.
unsafe impl Send for Chunk {}

pub(super) struct Pool {
    lists: Mutex<Lists>,
    /// The number of free chunks, readable without the lock.
    free: AtomicUsize,
    growing: Mutex<()>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Lists {
    regions: Vec<Piece>,
    /// Free pieces. Those that were used have given their pages back.
    free: Vec<Piece>,
    /// Free pieces whose pages are there.
    warm: Vec<Piece>,
}

// SAFETY: the pointers are to memory that the pool owns; nothing of it is tied to a thread.
unsafe impl Send for Lists {}

impl Pool {
    pub(super) fn new() -> Arc<Pool> {
        Arc::new(Pool {
            lists: Mutex::default(),
            free: AtomicUsize::new(0),
            growing: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// A chunk, or `None` if memory ran out.
    pub(super) fn chunk(self: &Arc<Pool>) -> Option<Chunk> {
        let mut lists = self.lists.lock();
        let memory = match lists.warm.pop().or_else(|| lists.free.pop()) {
            Some(memory) => memory,
            None => {
                let region = map(lists.regions.len() * REGION >= HUGE_FROM)?;
                self.add(&mut lists, region)?;
                lists.free.pop()?
            }
        };
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(Chunk { memory, pool: Arc::clone(self) })
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

    /// Makes the next region ready if there will soon be need of it. To be called without a lock, because making the
    /// pages of a large store takes the kernel a while; a small store gets its pages one by one when it touches them.
    pub(super) fn top_up(&self) {
        if self.free.load(Ordering::Relaxed) < LOW_WATER
            && let Some(_growing) = self.growing.try_lock()
            && self.free.load(Ordering::Relaxed) < LOW_WATER
        {
            let huge = self.lists.lock().regions.len() * REGION >= HUGE_FROM;
            if let Some(region) = map(huge) {
                if huge {
                    populate(region);
                }
                // Without memory for the lists the region is not used; whoever needs it gets the error.
                let _ = self.add(&mut self.lists.lock(), region);
            }
        }
    }

    /// No piece will be asked for any more: giving back single ones would be in vain.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn add(&self, lists: &mut Lists, region: Piece) -> Option<()> {
        let all = (lists.regions.len() + 1) * CHUNKS;
        // So that no list has to grow when a piece is dropped.
        let reserved = lists.regions.try_reserve(1).and_then(|()| {
            lists.free.try_reserve(all - lists.free.len())?;
            lists.warm.try_reserve(all - lists.warm.len())
        });
        if reserved.is_err() {
            // SAFETY: mapped by `map` and given to nobody.
            unsafe { libc::munmap(region.as_ptr().cast(), REGION) };
            return None;
        }
        lists.regions.push(region);
        // The first one is taken first.
        // SAFETY: a region has so many chunks.
        lists.free.extend((0..CHUNKS).rev().map(|chunk| unsafe { region.add(chunk) }));
        self.free.fetch_add(CHUNKS, Ordering::Relaxed);
        Some(())
    }

    fn give_back(&self, memory: Piece) {
        let mut lists = self.lists.lock();
        lists.warm.push(memory);
        self.free.fetch_add(1, Ordering::Relaxed);
        let in_use = (lists.regions.len() * CHUNKS).saturating_sub(self.free.load(Ordering::Relaxed));
        let most = (in_use / IN_USE_FOR_ONE_WARM).clamp(*WARM.start(), *WARM.end());
        if lists.warm.len() < most || self.closing.load(Ordering::Relaxed) {
            return;
        }
        let mut cold: SmallVec<[Piece; MOST_WARM]> = lists.warm.drain(..most).collect();
        // The kernel takes its time: not under the lock.
        drop(lists);
        cold.sort_unstable();
        let runs = cold.chunk_by(|one, next| next.addr().get() - one.addr().get() == CHUNK);
        release_pages(&runs.map(|run| pages(run[0], run.len())).collect::<SmallVec<[_; MOST_WARM]>>());
        self.lists.lock().free.extend(cold);
    }
}

/// Chunks that lie one behind the other.
fn pages(first: Piece, chunks: usize) -> libc::iovec {
    libc::iovec { iov_base: first.as_ptr().cast(), iov_len: chunks * CHUNK }
}

/// Gives the memory of free chunks back to the kernel.
fn release_pages(runs: &[libc::iovec]) {
    // All of them with one interruption: Linux 6.16 and later. An older one refuses.
    #[cfg(target_os = "linux")]
    {
        /// `PIDFD_SELF_THREAD_GROUP` of <linux/pidfd.h>.
        const THIS_PROCESS: libc::c_int = -10_001;
        let (first, count, all) = (runs.as_ptr(), runs.len(), runs.iter().map(|run| run.iov_len).sum::<usize>());
        // SAFETY: the runs are mapped and free, so nobody refers to their contents; afterwards they read as zeros.
        let done =
            unsafe { libc::syscall(libc::SYS_process_madvise, THIS_PROCESS, first, count, libc::MADV_DONTNEED, 0) };
        if usize::try_from(done) == Ok(all) {
            return;
        }
    }
    for run in runs {
        // SAFETY: as above.
        unsafe { libc::madvise(run.iov_base, run.iov_len, libc::MADV_DONTNEED) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for region in self.lists.get_mut().regions.drain(..) {
            // SAFETY: mapped by `map`; no piece of it is left, for each would keep the pool alive.
            unsafe { libc::munmap(region.as_ptr().cast(), REGION) };
        }
    }
}

impl Chunk {
    /// Begins to fetch the lines of a slot all at once. Where its payload begins stands in its first line, so without
    /// this the others would only be asked for when that has come: one more miss for every use.
    #[inline]
    pub(super) fn prefetch(&self, offset: usize, len: usize) {
        // A slot need not begin where a line does.
        let first = offset / size_of::<Line>();
        let end = (offset + len).div_ceil(size_of::<Line>()).min(first + MOST_PREFETCHED);
        for line in first..end {
            prefetch(self.memory.as_ptr().cast::<u8>().wrapping_add(line * size_of::<Line>()));
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(self.memory);
    }
}

impl Lines {
    /// The chunk that they are, unless they are from the heap.
    pub(super) fn into_chunk(self) -> Option<Chunk> {
        match self {
            Lines::Few(_) => None,
            Lines::Chunk(chunk) => Some(chunk),
        }
    }

    /// Begins to fetch a line.
    #[inline]
    pub(super) fn prefetch(&self, line: usize) {
        prefetch(self.as_ptr().wrapping_add(line).cast());
    }
}

impl Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        match self {
            Lines::Few(few) => few,
            // SAFETY: as many lines as fill a chunk: initialized, aligned (chunks are on a boundary of their size), and shared
            // only through `&self`.
            Lines::Chunk(chunk) => unsafe { std::slice::from_raw_parts(chunk.memory.as_ptr().cast(), LINES) },
        }
    }
}

impl DerefMut for Lines {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Line] {
        match self {
            Lines::Few(few) => few,
            // SAFETY: as above, and `&mut self` is the only way in.
            Lines::Chunk(chunk) => unsafe { std::slice::from_raw_parts_mut(chunk.memory.as_ptr().cast(), LINES) },
        }
    }
}

impl Deref for Chunk {
    type Target = [u8; CHUNK];

    fn deref(&self) -> &[u8; CHUNK] {
        // SAFETY: mapped, initialized (the kernel's zeros), and this chunk's alone, so it is shared only through `&self`.
        unsafe { self.memory.as_ref() }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8; CHUNK] {
        // SAFETY: as above, and `&mut self` is the only way in.
        unsafe { self.memory.as_mut() }
    }
}

#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is only a hint and accesses nothing, also where the address is not mapped.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A fresh region of zeros, on a boundary at which huge pages are possible.
fn map(huge: bool) -> Option<Piece> {
    // SAFETY: a new private anonymous mapping touches no existing memory.
    let mapped = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), 2 * REGION, access, kind, -1, 0)
    };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    let before = mapped.addr().next_multiple_of(REGION) - mapped.addr();
    let memory = mapped.wrapping_byte_add(before);
    // SAFETY: both ends lie inside the mapping above, are multiples of the page size, and were given to nobody.
    unsafe {
        if before > 0 {
            libc::munmap(mapped, before);
        }
        if before < REGION {
            libc::munmap(memory.wrapping_byte_add(REGION), REGION - before);
        }
        // Advice: whether it is taken only matters for speed.
        #[cfg(target_os = "linux")]
        libc::madvise(memory, REGION, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
        // Secrets belong neither into core dumps nor into forked children, which could not use them (and a large store
        // need not be copied for them).
        #[cfg(target_os = "linux")]
        libc::madvise(memory, REGION, libc::MADV_DONTDUMP);
        #[cfg(target_os = "linux")]
        libc::madvise(memory, REGION, libc::MADV_WIPEONFORK);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = huge;
    NonNull::new(memory.cast())
}

/// Has the kernel make the pages now (Linux 5.14); where it cannot, they come when they are touched.
fn populate(region: Piece) {
    #[cfg(target_os = "linux")]
    // SAFETY: the region was just mapped and is in nobody's hands; its contents stay zeros.
    unsafe {
        libc::madvise(region.as_ptr().cast(), REGION, libc::MADV_POPULATE_WRITE)
    };
    #[cfg(not(target_os = "linux"))]
    let _ = region;
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
        let regions = pool.lists.lock().regions.len();
        chunks.clear();
        let mut again: Vec<Chunk> = (0..100).map(|_| pool.chunk().unwrap()).collect();
        again.iter_mut().for_each(|chunk| chunk.fill(0xFF));
        assert_eq!(pool.lists.lock().regions.len(), regions);
    }

    /// The bytes of the pool's regions for which there is memory.
    #[cfg(target_os = "linux")]
    fn resident(pool: &Pool) -> usize {
        let page = 4096;
        let mut pages = [0_u8; REGION / 4096];
        let mut sum = 0;
        for region in &pool.lists.lock().regions {
            // SAFETY: a region is mapped, and there is a byte for each of its pages, if they are not larger.
            assert_eq!(unsafe { libc::mincore(region.as_ptr().cast(), REGION, pages.as_mut_ptr()) }, 0);
            sum += pages.iter().filter(|page| **page & 1 != 0).count() * page;
        }
        sum
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_of_freed_chunks_is_given_back_in_whatever_order_they_go() {
        for order in [|i: usize| i, |i| 999 - i, |i| i * 37 % 1000] {
            let pool = Pool::new();
            let mut chunks: Vec<Option<Chunk>> = (0..1000).map(|_| pool.chunk()).collect();
            chunks.iter_mut().flatten().for_each(|chunk| chunk.fill(1));
            for i in 0..1000 {
                drop(chunks[order(i)].take());
                // Of a region with one huge page all is there as soon as something is.
                let left = (999 - i + MOST_WARM + CHUNKS) * CHUNK;
                if i % 100 == 99 {
                    assert!(resident(&pool) <= left, "{i}");
                }
            }
            assert!(resident(&pool) <= (WARM.start() + CHUNKS) * CHUNK);
            let again: Vec<Chunk> = (0..1000).map(|_| pool.chunk().unwrap()).collect();
            assert!(pool.lists.lock().regions.len() <= 1000_usize.div_ceil(CHUNKS) + 1);
            drop(again);
        }
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
