//! Pages of their own for a large object, which go back to the kernel when it is dropped. Those
//! with payloads appear neither in core dumps nor in forked children.
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
        let memory = map(len)?;
        keep_private(memory.as_ptr().cast(), len);
        Some(Mapping { memory, len })
    }
}

/// Maps zeros.
fn map(len: usize) -> Option<NonNull<u8>> {
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
    if mapped == libc::MAP_FAILED { None } else { NonNull::new(mapped.cast()) }
}

/// Keeps new pages out of core dumps and of forked children. The latter cannot use the store, and
/// need no copy of it.
pub(super) fn keep_private(mapped: *mut libc::c_void, len: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: advice for whole pages that were just mapped. It changes their contents in a forked
    // child only, where nothing reads them.
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

/// Values in pages of their own: unlike on the heap, nothing that is freed later keeps these from
/// being given back.
pub(crate) struct MappedSlice<T> {
    memory: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its values.
unsafe impl<T: Send> Send for MappedSlice<T> {}
// SAFETY: `&MappedSlice<T>` only gives `&[T]`.
unsafe impl<T: Sync> Sync for MappedSlice<T> {}

impl<T> MappedSlice<T> {
    /// `None`: there is no memory, or there is nothing to store.
    pub(crate) fn new(len: usize, value: impl Fn() -> T) -> Option<MappedSlice<T>> {
        const { assert!(align_of::<T>() <= 4096, "pages are aligned to 4 KiB at least") };
        let memory = map(len.checked_mul(size_of::<T>())?)?.cast::<T>();
        // Begins empty, so that a panic of `value` drops exactly the values that were written.
        let mut slice = MappedSlice { memory, len: 0 };
        for i in 0..len {
            // SAFETY: the mapping has room for `len` aligned values, and nothing refers to it yet.
            unsafe { memory.add(i).write(value()) };
            slice.len = i + 1;
        }
        Some(slice)
    }
}

impl<T> Deref for MappedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values were written, and are shared only through `&self`.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl<T> Drop for MappedSlice<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; `len` values were written, and nothing refers to them any more.
        unsafe {
            NonNull::slice_from_raw_parts(self.memory, self.len).drop_in_place();
            libc::munmap(self.memory.as_ptr().cast(), self.len * size_of::<T>());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[test]
    fn mapping_is_zeros_of_any_length() {
        for len in [1, 4096, 100_000] {
            let mut mapping = Mapping::new(len).unwrap();
            assert!(mapping.len() == len && mapping.iter().all(|&byte| byte == 0));
            mapping.fill(7);
        }
        assert!(Mapping::new(0).is_none());
    }

    #[test]
    fn mapped_values_are_dropped_once() {
        let value = Rc::new(Cell::new(0));
        let slice = MappedSlice::new(100, || Rc::clone(&value)).unwrap();
        slice.iter().for_each(|value| value.set(value.get() + 1));
        assert_eq!((value.get(), Rc::strong_count(&value)), (100, 101));
        drop(slice);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
