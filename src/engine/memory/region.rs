//! The memory of [`pool`](super::pool), and the only `unsafe` of the engine: regions that the kernel may back with huge pages (a
//! random read of a million sessions costs a quarter less with them), and their pieces as owned values. Knows nothing of
//! what is in them.
//!
//! A piece belongs to one owner at a time: it is either inside a [`Chunk`] or free in its region. A region is unmapped when it is
//! dropped, which only the pool does, and only when all of its pieces are free; every chunk keeps its pool alive.
#![allow(unsafe_code)]

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use smallvec::SmallVec;

use super::pool::Pool;
use crate::os::prefetch::prefetch;

pub(super) const CHUNK: usize = 64 << 10;
/// A huge page, if the kernel has one.
const REGION: usize = 2 << 20;
/// The chunks of a region: a bit of a `u32` for each.
pub(super) const CHUNKS: usize = REGION / CHUNK;
const LINES: usize = CHUNK / size_of::<Line>();
/// Lines of a slot that are asked for at once: a payload of 1 KiB. Processors keep track of about as many.
const MOST_PREFETCHED: usize = 20;

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

/// 2 MiB, and which of its chunks are free, bit by bit: a chunk is warm, or cold, or in somebody's hands.
pub(super) struct Region {
    memory: Piece,
    /// Free chunks that have pages.
    pub warm: u32,
    /// Free chunks without: never touched, or given back to the kernel.
    pub cold: u32,
}

/// Free chunks of a region, whose pages are about to be given back.
pub(super) struct Part {
    region: Piece,
    chunks: u32,
}

// SAFETY: a chunk owns its memory; nothing of it is tied to a thread.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Send for Region {}

impl Region {
    /// A fresh region of zeros, on a boundary at which huge pages are possible.
    pub(super) fn map(huge: bool) -> Option<Region> {
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
        NonNull::new(memory.cast()).map(|memory| Region { memory, warm: 0, cold: u32::MAX })
    }

    /// Has the kernel make the pages of a region in which nothing was taken yet (Linux 5.14); where it cannot, they come when
    /// they are touched.
    pub(super) fn populate(&mut self) {
        debug_assert_eq!(self.cold, u32::MAX, "a region was populated that is in use");
        #[cfg(target_os = "linux")]
        // SAFETY: the region is mapped and in nobody's hands; its contents stay zeros.
        unsafe {
            libc::madvise(self.memory.as_ptr().cast(), REGION, libc::MADV_POPULATE_WRITE)
        };
        (self.warm, self.cold) = (u32::MAX, 0);
    }

    /// The bytes for which there is memory.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn resident(&self) -> usize {
        const PAGE: usize = 4096;
        let mut pages = [0_u8; REGION / PAGE];
        // SAFETY: the region is mapped, and there is a byte for each of its pages, if they are not larger.
        assert_eq!(unsafe { libc::mincore(self.memory.as_ptr().cast(), REGION, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 != 0).count() * PAGE
    }

    /// Where it begins.
    pub(super) fn address(&self) -> usize {
        self.memory.addr().get()
    }

    pub(super) fn is_free(&self) -> bool {
        self.warm | self.cold == u32::MAX
    }

    /// Takes a chunk that is free: a warm one, if there is one.
    pub(super) fn take(&mut self, pool: Arc<Pool>) -> Option<Chunk> {
        let from = if self.warm != 0 { &mut self.warm } else { &mut self.cold };
        if *from == 0 {
            return None;
        }
        let number = from.trailing_zeros() as usize;
        *from &= *from - 1;
        // SAFETY: a region has so many chunks.
        Some(Chunk { memory: unsafe { self.memory.add(number) }, pool })
    }

    /// Takes note that a chunk is free again. It has pages.
    pub(super) fn put_back(&mut self, chunk: &Chunk) {
        let bit = 1 << ((chunk.address() - self.address()) / CHUNK);
        debug_assert_eq!((self.warm | self.cold) & bit, 0, "a chunk was freed twice");
        self.warm |= bit;
    }

    /// Takes up to `most` of its warm chunks, to give their pages back to the kernel.
    pub(super) fn take_warm(&mut self, most: usize) -> Part {
        let mut chunks = self.warm;
        while chunks.count_ones() as usize > most {
            chunks &= chunks - 1;
        }
        self.warm ^= chunks;
        Part { region: self.memory, chunks }
    }

    /// Takes note that the chunks of a part of it have no pages any more.
    pub(super) fn put_cold(&mut self, part: &Part) {
        debug_assert_eq!(self.memory, part.region, "a part of another region");
        self.cold |= part.chunks;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; no piece of it is in anybody's hands.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), REGION) };
    }
}

impl Part {
    /// The address where its region begins.
    pub(super) fn address(&self) -> usize {
        self.region.addr().get()
    }

    /// How many chunks it is.
    pub(super) fn len(&self) -> usize {
        self.chunks.count_ones() as usize
    }

    /// Its chunks, put together where they lie one behind the other.
    fn runs(&self) -> impl Iterator<Item = libc::iovec> {
        let mut left = self.chunks;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            let count = left.checked_shr(first)?.trailing_ones();
            left &= u32::MAX.checked_shl(first + count).unwrap_or(0);
            let begin = self.region.as_ptr().wrapping_add(first as usize);
            Some(libc::iovec { iov_base: begin.cast(), iov_len: count as usize * CHUNK })
        })
    }
}

/// Gives the pages of free chunks back to the kernel, which takes its time, and interrupts every processor that a thread of this
/// process runs on, to have it forget where they were.
pub(super) fn release_pages(parts: &[Part]) {
    let runs: SmallVec<[libc::iovec; 64]> = parts.iter().flat_map(Part::runs).collect();
    // All of them with one interruption: Linux 6.16 and later. An older one refuses.
    #[cfg(target_os = "linux")]
    {
        /// `PIDFD_SELF_THREAD_GROUP` of <linux/pidfd.h>.
        const THIS_PROCESS: libc::c_int = -10_001;
        let (first, count, all) = (runs.as_ptr(), runs.len(), runs.iter().map(|run| run.iov_len).sum::<usize>());
        // SAFETY: the runs are mapped, and parts own their chunks, so nobody refers to their contents; afterwards they read as
        // zeros.
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

impl Chunk {
    pub(super) fn address(&self) -> usize {
        self.memory.addr().get()
    }

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
        self.pool.put_back(self);
    }
}

impl Lines {
    /// Begins to fetch a line.
    #[inline]
    pub(super) fn prefetch(&self, line: usize) {
        prefetch(self.as_ptr().wrapping_add(line));
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
