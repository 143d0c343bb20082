//! Detects `fork` without a system call and without a lock: a page that the kernel zeroes in a
//! forked child. A child can then refuse inherited state at once, because a lock that a thread of
//! the parent held at the fork never opens there.
#![allow(unsafe_code)]

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use once_cell::race::OnceBox;

/// The number of this process among its ancestors: never zero, and different from the number of
/// every ancestor.
pub(crate) fn generation() -> u32 {
    static MARK: OnceBox<ForkMark> = OnceBox::new();
    let mark = MARK.get_or_init(|| Box::new(ForkMark::new())).get();
    match mark.load(Ordering::Acquire) {
        0 => next_generation(mark),
        generation => generation,
    }
}

/// The first call in a process. Threads may race here; all of them return the same number.
#[cold]
fn next_generation(mark: &AtomicU32) -> u32 {
    // Ordinary memory: the child continues the parent's count.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match mark.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => next,
        Err(winner) => winner,
    }
}

/// A number that is zero in a process that has just been forked, whatever the parent had stored
/// there.
struct ForkMark(NonNull<AtomicU32>);

// SAFETY: it points at an atomic in memory that is never unmapped.
unsafe impl Send for ForkMark {}
// SAFETY: as above; all access is atomic.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// Maps a page for the mark, or falls back to a handler that runs in the child.
    fn new() -> ForkMark {
        wiped_page().unwrap_or_else(ForkMark::with_handler)
    }

    fn get(&self) -> &AtomicU32 {
        // SAFETY: points at a live, aligned AtomicU32 for the rest of the process's life (see
        // `wiped_page` and `with_handler`); a wiped page reads as zero, which is a valid AtomicU32.
        unsafe { self.0.as_ref() }
    }

    /// For kernels without MADV_WIPEONFORK. Misses a raw `clone` without the C library.
    fn with_handler() -> ForkMark {
        static MARK: AtomicU32 = AtomicU32::new(0);
        extern "C" fn in_child() {
            MARK.store(0, Ordering::SeqCst);
        }
        // SAFETY: `in_child` only stores to an atomic, which is allowed in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        ForkMark(NonNull::from(&MARK))
    }
}

/// One page under MADV_WIPEONFORK (Linux 4.14), which also sees `_Fork` and raw `clone`.
#[cfg(target_os = "linux")]
fn wiped_page() -> Option<ForkMark> {
    // SAFETY: sysconf has no preconditions.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    // SAFETY: a new private anonymous mapping touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: `address` is the page mapped above.
    if unsafe { libc::madvise(address, page, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: `address` is the page mapped above, and nothing points into it yet.
        unsafe { libc::munmap(address, page) };
        return None;
    }
    // The mapping is page-aligned, zeroed, and stays for the life of the process.
    NonNull::new(address.cast::<AtomicU32>()).map(ForkMark)
}

#[cfg(not(target_os = "linux"))]
fn wiped_page() -> Option<ForkMark> {
    None
}
