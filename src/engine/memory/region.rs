//! Memory for slots: chunks of 64 KiB, cut from regions that the kernel may back with huge pages (a random read of a
//! million sessions costs a quarter less with them). The only `unsafe` of the engine: it hands out pieces of mappings
//! as owned values, and knows nothing of what is in them.
//!
//! A chunk belongs to one owner at a time: it is either inside a [`Chunk`], or in the pool's lists. Regions are unmapped
//! when the pool goes, and every chunk keeps its pool alive.
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

pub(super) const CHUNK: usize = 64 << 10;
const REGION: usize = 2 << 20;
/// Below this a store uses small pages: it should stay small.
const HUGE_FROM: usize = 16 << 20;
/// Free chunks under which the next region is made ready.
const LOW_WATER: usize = 8;
/// Freed chunks that keep their memory, so that a store that shrinks and grows does not fault it in again and again.
const WARM: usize = 16;

/// 64 KiB that nobody else has. What is in it at first is of no meaning, and no secret: whoever drops it has wiped its
/// secrets, unless the store closes and all of it is unmapped.
pub(super) struct Chunk {
    memory: NonNull<[u8; CHUNK]>,
    pool: Arc<Pool>,
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
    regions: Vec<NonNull<[u8; CHUNK]>>,
    /// Free chunks whose pages may be there, and those whose pages were given back.
    warm: Vec<NonNull<[u8; CHUNK]>>,
    cold: Vec<NonNull<[u8; CHUNK]>>,
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
        if lists.warm.is_empty() && lists.cold.is_empty() {
            let region = map_region(lists.regions.len() * REGION >= HUGE_FROM)?;
            self.add(&mut lists, region)?;
        }
        let memory = lists.warm.pop().or_else(|| lists.cold.pop())?;
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(Chunk { memory, pool: Arc::clone(self) })
    }

    /// Makes the next region ready if there will soon be need of it. To be called without a lock, because making the
    /// pages of a large store takes the kernel a while; a small store gets its pages one by one when it touches them.
    pub(super) fn top_up(&self) {
        if self.free.load(Ordering::Relaxed) < LOW_WATER
            && let Some(_growing) = self.growing.try_lock()
            && self.free.load(Ordering::Relaxed) < LOW_WATER
        {
            let huge = self.lists.lock().regions.len() * REGION >= HUGE_FROM;
            if let Some(region) = map_region(huge) {
                if huge {
                    populate(region);
                }
                // Without memory for the lists the region is not used; whoever needs it gets the error.
                let _ = self.add(&mut self.lists.lock(), region);
            }
        }
    }

    /// No chunk will be asked for any more: giving back single ones would be in vain.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn add(&self, lists: &mut Lists, region: NonNull<[u8; CHUNK]>) -> Option<()> {
        const CHUNKS: usize = REGION / CHUNK;
        let all = (lists.regions.len() + 1) * CHUNKS;
        // So that no list has to grow when a chunk is dropped.
        let reserved = lists.regions.try_reserve(1).and_then(|()| {
            lists.warm.try_reserve(all - lists.warm.len())?;
            lists.cold.try_reserve(all - lists.cold.len())
        });
        if reserved.is_err() {
            // SAFETY: mapped by `map_region` and given to nobody.
            unsafe { libc::munmap(region.as_ptr().cast(), REGION) };
            return None;
        }
        lists.regions.push(region);
        // The first chunk on top: memory is used from the beginning of the region.
        // SAFETY: the region is CHUNKS chunks long.
        lists.cold.extend((0..CHUNKS).rev().map(|i| unsafe { region.add(i) }));
        self.free.fetch_add(CHUNKS, Ordering::Relaxed);
        Some(())
    }

    fn give_back(&self, memory: NonNull<[u8; CHUNK]>) {
        let mut lists = self.lists.lock();
        if lists.warm.len() < WARM || self.closing.load(Ordering::Relaxed) {
            lists.warm.push(memory);
        } else {
            // SAFETY: the chunk is free, so nobody refers to its contents; afterwards it reads as zeros.
            unsafe { libc::madvise(memory.as_ptr().cast(), CHUNK, libc::MADV_DONTNEED) };
            lists.cold.push(memory);
        }
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for region in self.lists.get_mut().regions.drain(..) {
            // SAFETY: mapped by `map_region`; no chunk of it is left, for each would keep the pool alive.
            unsafe { libc::munmap(region.as_ptr().cast(), REGION) };
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(self.memory);
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

/// Fresh zeroed memory, on a boundary at which huge pages are possible.
fn map_region(huge: bool) -> Option<NonNull<[u8; CHUNK]>> {
    // SAFETY: a new private anonymous mapping touches no existing memory.
    let mapped = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), 2 * REGION, access, kind, -1, 0)
    };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    let before = mapped.addr().next_multiple_of(REGION) - mapped.addr();
    let region = mapped.wrapping_byte_add(before);
    // SAFETY: both ends lie inside the mapping above, are multiples of the page size, and were given to nobody.
    unsafe {
        if before > 0 {
            libc::munmap(mapped, before);
        }
        libc::munmap(region.wrapping_byte_add(REGION), REGION - before);
        // Advice: whether it is taken only matters for speed.
        #[cfg(target_os = "linux")]
        libc::madvise(region, REGION, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
        // Secrets do not belong into core dumps.
        #[cfg(target_os = "linux")]
        libc::madvise(region, REGION, libc::MADV_DONTDUMP);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = huge;
    NonNull::new(region.cast())
}

/// Has the kernel make the pages now (Linux 5.14); where it cannot, they come when they are touched.
fn populate(region: NonNull<[u8; CHUNK]>) {
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

    #[test]
    fn a_region_is_made_ready_before_it_is_needed() {
        let pool = Pool::new();
        pool.top_up();
        assert_eq!(pool.free.load(Ordering::Relaxed), REGION / CHUNK);
        pool.top_up();
        assert_eq!(pool.free.load(Ordering::Relaxed), REGION / CHUNK);
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
