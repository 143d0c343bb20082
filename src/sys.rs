//! The two things taken straight from the operating system: a cheap clock, and a page that the kernel wipes in
//! a forked child. It knows nothing of sessions. Other `unsafe` is in `capi`, and in an engine where a foreign library, the
//! kernel or the memory itself demands it: `git grep 'allow(unsafe_code)'` lists the files.
#![allow(unsafe_code)]

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// Linux's coarse clock costs a quarter of the precise one and is exact to one timer tick (1 to 10 ms).
#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Milliseconds of a clock that no clock step moves; only differences mean anything.
#[allow(clippy::unnecessary_cast)] // On 32-bit systems both are shorter.
pub(crate) fn monotonic_ms() -> i64 {
    let now = clock(CLOCK);
    now.tv_sec as i64 * 1000 + now.tv_nsec as i64 / 1_000_000
}

/// The same clock read precisely and rounded up: never less than `monotonic_ms` at the same moment.
#[allow(clippy::unnecessary_cast)]
pub(crate) fn monotonic_ms_ceil() -> i64 {
    let now = clock(libc::CLOCK_MONOTONIC);
    now.tv_sec as i64 * 1000 + (now.tv_nsec as i64 + 999_999) / 1_000_000
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to. The call cannot fail: the clock id is one that the system has.
    unsafe { libc::clock_gettime(id, &mut now) };
    now
}

/// A number that is zero in a process that has just been forked, whatever the parent had stored there.
pub(crate) struct ForkMark(NonNull<AtomicU32>);

// SAFETY: it points at an atomic in memory that is never unmapped.
unsafe impl Send for ForkMark {}
// SAFETY: as above; all access is atomic.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// Maps a page for the mark, or falls back to a handler that runs in the child.
    pub(crate) fn new() -> ForkMark {
        wiped_page().unwrap_or_else(ForkMark::with_handler)
    }

    pub(crate) fn get(&self) -> &AtomicU32 {
        // SAFETY: points at a live, aligned AtomicU32 for the rest of the process's life (see `wiped_page` and
        // `with_handler`); a wiped page reads as zero, which is a valid AtomicU32.
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
