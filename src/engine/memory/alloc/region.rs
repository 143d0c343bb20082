//! Regions of 2 MiB from the kernel, which may back each with one huge page (a random read of a
//! million sessions costs a quarter less with them), and the chunks that they are cut into.
//!
//! A chunk has one owner at a time: it is either a [`RawChunk`] or free in its region. Dropping a
//! region unmaps it; its owner, the pool, does that only when all of its chunks are free.
#![allow(unsafe_code)]

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use smallvec::SmallVec;

use super::mapping::keep_private;

pub(crate) const CHUNK_SIZE: usize = 64 << 10;
/// A huge page on x86-64 and on AArch64 with pages of 4 KiB.
const REGION_SIZE: usize = 2 << 20;
/// The chunks of a region: one bit of a `u32` each.
pub(super) const CHUNKS_PER_REGION: usize = REGION_SIZE / CHUNK_SIZE;
const ALL_CHUNKS: u32 = u32::MAX;
pub(crate) const LINES_PER_CHUNK: usize = CHUNK_SIZE / size_of::<CacheLine>();

type ChunkPtr = NonNull<[u8; CHUNK_SIZE]>;

/// Owns 64 KiB, aligned to their size. Their contents are arbitrary at first but no secret: every
/// owner wipes its secrets before it gives a chunk back. Must outlive neither its region nor be
/// forgotten to be given back to it.
pub(super) struct RawChunk(ChunkPtr);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct CacheLine(pub [u64; 8]);

/// 2 MiB, and which of its chunks are free. A chunk is resident, released, or owned by a
/// [`RawChunk`].
pub(super) struct Region {
    memory: ChunkPtr,
    /// Free chunks whose pages are in memory.
    pub resident: u32,
    /// Free chunks without pages: never touched, or given back to the kernel.
    pub released: u32,
    /// Whether the kernel may back it with a huge page.
    huge: bool,
}

/// Free chunks of one region whose pages are about to be given back. Meanwhile they count as
/// neither resident nor released.
pub(super) struct ChunkSet {
    region: ChunkPtr,
    chunks: u32,
}

// SAFETY: a chunk owns its memory, and no part of that is tied to a thread.
unsafe impl Send for RawChunk {}
// SAFETY: `&RawChunk` only gives `&[u8]`.
unsafe impl Sync for RawChunk {}
// SAFETY: a region owns its mapping, and no part of that is tied to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Maps a region of zeros, aligned for a huge page. `None`: there is no memory.
    pub(super) fn map(huge: bool) -> Option<Region> {
        // SAFETY: a new private anonymous mapping touches no existing memory.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * REGION_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let before = mapped.addr().next_multiple_of(REGION_SIZE) - mapped.addr();
        let memory = mapped.wrapping_byte_add(before);
        // SAFETY: both ends lie inside the mapping above, are multiples of the page size, and are
        // referenced by nothing.
        unsafe {
            if before > 0 {
                libc::munmap(mapped, before);
            }
            if before < REGION_SIZE {
                libc::munmap(memory.wrapping_byte_add(REGION_SIZE), REGION_SIZE - before);
            }
        }
        #[cfg(target_os = "linux")]
        // SAFETY: the region was just mapped. Whether this advice is taken matters for speed only.
        unsafe {
            libc::madvise(memory, REGION_SIZE, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
        }
        keep_private(memory, REGION_SIZE);
        NonNull::new(memory.cast()).map(|memory| Region { memory, resident: 0, released: ALL_CHUNKS, huge })
    }

    /// Makes the kernel provide the pages of an unused region now (Linux 5.14). Where it cannot, it
    /// does so at first use.
    pub(super) fn populate(&mut self) {
        debug_assert_eq!(self.released, ALL_CHUNKS, "a region in use was populated");
        #[cfg(target_os = "linux")]
        // SAFETY: the region is mapped and nothing refers to it; its contents stay zeros.
        unsafe {
            libc::madvise(self.memory.as_ptr().cast(), REGION_SIZE, libc::MADV_POPULATE_WRITE)
        };
        (self.resident, self.released) = (ALL_CHUNKS, 0);
    }

    /// The bytes that are in memory.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn resident_bytes(&self) -> usize {
        const PAGE: usize = 4096;
        let mut pages = [0_u8; REGION_SIZE / PAGE];
        // SAFETY: the region is mapped, and `pages` has a byte for each of its pages, or more if
        // those are larger.
        assert_eq!(unsafe { libc::mincore(self.memory.as_ptr().cast(), REGION_SIZE, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 != 0).count() * PAGE
    }

    /// The address at which it begins.
    pub(super) fn address(&self) -> usize {
        self.memory.addr().get()
    }

    pub(super) fn is_free(&self) -> bool {
        self.resident | self.released == ALL_CHUNKS
    }

    /// Takes a free chunk, a resident or a released one.
    pub(super) fn take(&mut self, resident: bool) -> Option<RawChunk> {
        let free = if resident { &mut self.resident } else { &mut self.released };
        if *free == 0 {
            return None;
        }
        let number = free.trailing_zeros() as usize;
        *free &= *free - 1;
        // SAFETY: `number` is less than CHUNKS_PER_REGION, so the chunk lies inside the region. Its
        // bit was set, so nothing else owns it.
        Some(RawChunk(unsafe { self.memory.add(number) }))
    }

    /// Records that a chunk of this region is about to be free. It has pages.
    pub(super) fn free(&mut self, chunk: &RawChunk) {
        let bit = 1 << ((chunk.address() - self.address()) / CHUNK_SIZE);
        debug_assert_eq!((self.resident | self.released) & bit, 0, "a chunk was freed twice");
        self.resident |= bit;
    }

    /// Takes up to `max` of its resident free chunks.
    pub(super) fn take_resident(&mut self, max: usize) -> ChunkSet {
        let mut chunks = self.resident;
        while chunks.count_ones() as usize > max {
            chunks &= chunks - 1;
        }
        self.resident ^= chunks;
        ChunkSet { region: self.memory, chunks }
    }

    /// Takes back chunks of this region that have no pages any more.
    pub(super) fn put_released(&mut self, chunks: &ChunkSet) {
        debug_assert_eq!(self.memory, chunks.region, "chunks of another region");
        self.released |= chunks.chunks;
        self.forgo_huge_page();
    }

    /// A huge page would fill the gaps again: at the first use of a released chunk, or when the
    /// kernel collapses small pages.
    fn forgo_huge_page(&mut self) {
        #[cfg(target_os = "linux")]
        if self.huge {
            // SAFETY: the region is mapped, and this advice does not change its contents.
            unsafe { libc::madvise(self.memory.as_ptr().cast(), REGION_SIZE, libc::MADV_NOHUGEPAGE) };
        }
        self.huge = false;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and all of its chunks are free, so nothing refers to it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), REGION_SIZE) };
    }
}

impl ChunkSet {
    /// The address at which their region begins.
    pub(super) fn region_address(&self) -> usize {
        self.region.addr().get()
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.count_ones() as usize
    }

    /// Its chunks as ranges of memory, adjacent ones together.
    fn ranges(&self) -> impl Iterator<Item = libc::iovec> {
        let mut left = self.chunks;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            let count = left.checked_shr(first)?.trailing_ones();
            left &= u32::MAX.checked_shl(first + count).unwrap_or(0);
            let begin = self.region.as_ptr().wrapping_add(first as usize);
            Some(libc::iovec { iov_base: begin.cast(), iov_len: count as usize * CHUNK_SIZE })
        })
    }
}

/// Gives the pages of free chunks back to the kernel. That takes a while, and interrupts every
/// processor that runs a thread of this process, because it may have the pages' addresses cached.
pub(super) fn release_pages(chunks: &[ChunkSet]) {
    let ranges: SmallVec<[libc::iovec; 64]> = chunks.iter().flat_map(ChunkSet::ranges).collect();
    // All of them with one interruption: Linux 6.16 and later. Older kernels refuse.
    #[cfg(target_os = "linux")]
    {
        /// `PIDFD_SELF_THREAD_GROUP` of <linux/pidfd.h>.
        const THIS_PROCESS: libc::c_int = -10_001;
        let total: usize = ranges.iter().map(|range| range.iov_len).sum();
        // SAFETY: the ranges are mapped, and a `ChunkSet` owns its chunks, so nothing refers to
        // their contents. They read as zeros afterwards.
        let advised = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                THIS_PROCESS,
                ranges.as_ptr(),
                ranges.len(),
                libc::MADV_DONTNEED,
                0,
            )
        };
        if usize::try_from(advised) == Ok(total) {
            return;
        }
    }
    for range in ranges {
        // SAFETY: as above.
        unsafe { libc::madvise(range.iov_base, range.iov_len, libc::MADV_DONTNEED) };
    }
}

impl RawChunk {
    pub(super) fn address(&self) -> usize {
        self.0.addr().get()
    }

    pub(super) fn lines(&self) -> &[CacheLine; LINES_PER_CHUNK] {
        // SAFETY: a chunk is initialized memory of exactly this many lines, aligned to its size,
        // and shared only through `&self`. Any bytes are valid lines.
        unsafe { self.0.cast().as_ref() }
    }

    pub(super) fn lines_mut(&mut self) -> &mut [CacheLine; LINES_PER_CHUNK] {
        // SAFETY: as above, and `&mut self` is exclusive.
        unsafe { self.0.cast().as_mut() }
    }
}

impl Deref for RawChunk {
    type Target = [u8; CHUNK_SIZE];

    fn deref(&self) -> &[u8; CHUNK_SIZE] {
        // SAFETY: mapped for as long as the chunk is owned, initialized (by the kernel, with
        // zeros), and shared only through `&self`.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for RawChunk {
    fn deref_mut(&mut self) -> &mut [u8; CHUNK_SIZE] {
        // SAFETY: as above, and `&mut self` is exclusive.
        unsafe { self.0.as_mut() }
    }
}
