//! Pages of their own for one large object. Like a region's, they appear neither in core dumps nor in forked children.
#![allow(unsafe_code)]

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

/// Owned bytes, zeros at first.
pub(crate) struct Mapping {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping owns its memory, and no part of that is tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` only gives `&[u8]`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `None`: there is no memory, or `len` is 0.
    pub(crate) fn new(len: usize) -> Option<Mapping> {
        // SAFETY: a new private anonymous mapping touches no existing memory.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        keep_private(mapped, len);
        NonNull::new(mapped.cast()).map(|memory| Mapping { memory, len })
    }
}

/// Keeps new pages out of core dumps and of forked children. The latter cannot use the store, and need no copy of it.
pub(super) fn keep_private(mapped: *mut libc::c_void, len: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: advice for whole pages that were just mapped. It changes their contents in a forked child only, where nothing
    // reads them.
    unsafe {
        libc::madvise(mapped, len, libc::MADV_DONTDUMP);
        libc::madvise(mapped, len, libc::MADV_WIPEONFORK);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (mapped, len);
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, initialized (by the kernel, with zeros), and shared only through `&self`.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}
