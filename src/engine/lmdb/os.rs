//! The system calls of this engine: locks of open file descriptions, reserved disk space, shared
//! mappings, futexes. Knows nothing of stores.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use rustix::{fs as sys, process::Pid, thread::futex};

use crate::error::{Error, ErrorKind, Result};

/// The error of a failed system call.
pub(super) fn failed(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::OutOfMemory => ErrorKind::NoMem,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("the lmdb: store failed to {what}: {error}"))
}

/// A shared mapping of a file. Everything in it is read and written as atomics, so any content is
/// valid.
pub(super) struct Mapping {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: all access is through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Types that consist of atomics only, for which any bytes are valid.
///
/// # Safety
/// The type is `repr(C)` or a primitive atomic, has no padding that is read, and only atomics in
/// it.
pub(super) unsafe trait Atomics {}

// SAFETY: an atomic.
unsafe impl Atomics for AtomicU32 {}
// SAFETY: an atomic.
unsafe impl Atomics for AtomicU64 {}

impl Mapping {
    /// Maps the first `len` bytes of a file, which must keep them as long as the mapping exists.
    pub(super) fn new(file: &File, len: usize) -> Result<Mapping> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of an open file touches no existing memory.
        let mapped = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, 0) };
        let mapped = mapped.map_err(|error| failed("map a file", error.into()))?;
        let memory = NonNull::new(mapped.cast()).ok_or_else(Error::no_memory)?;
        Ok(Mapping { memory, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value at this byte.
    pub(super) fn at<T: Atomics>(&self, byte: usize) -> &T {
        &self.slice(byte, 1)[0]
    }

    /// `count` values from this byte on. Panics unless all of them are inside the mapping and
    /// aligned.
    pub(super) fn slice<T: Atomics>(&self, byte: usize, count: usize) -> &[T] {
        assert!(byte.is_multiple_of(align_of::<T>()) && count * size_of::<T>() <= self.len.saturating_sub(byte));
        // SAFETY: inside the mapping, which is aligned to a page, and atomics, for which any bytes
        // are valid.
        unsafe { std::slice::from_raw_parts(self.memory.add(byte).cast().as_ptr(), count) }
    }

    /// Writes it to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        // SAFETY: the whole mapping.
        unsafe { rustix::mm::msync(self.memory.as_ptr().cast(), self.len, rustix::mm::MsyncFlags::SYNC) }
            .map_err(|error| failed("write to disk", error.into()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nothing borrows from it any more. It fails for
        // no valid mapping.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockMode {
    Exclusive,
    Shared,
    Unlocked,
}

/// Takes, changes or releases the lock of an open file description (fcntl(2), F_OFD_SETLK) on one
/// byte, without waiting. False: another description or process holds a conflicting lock.
///
/// Such a lock belongs to the description: another close in this process does not release it, as it
/// releases POSIX locks, and a forked child that closes its copy does not release it while its
/// parent lives.
pub(super) fn try_lock(file: &File, byte: u64, mode: LockMode) -> Result<bool> {
    match set_lock(file, libc::F_OFD_SETLK, byte, 1, mode) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(failed("lock", error)),
    }
}

/// Releases every POSIX lock that this process holds on a file.
pub(super) fn release_process_locks(file: &File) -> Result<()> {
    set_lock(file, libc::F_SETLK, 0, 0, LockMode::Unlocked).map_err(|error| failed("unlock", error))
}

/// Sets a lock on `len` bytes, or on all bytes from `start` on if `len` is 0.
fn set_lock(file: &File, command: libc::c_int, start: u64, len: u64, mode: LockMode) -> io::Result<()> {
    // SAFETY: a plain struct of numbers, for which zeros are fine.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = match mode {
        LockMode::Exclusive => libc::F_WRLCK,
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Unlocked => libc::F_UNLCK,
    } as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start as libc::off_t;
    lock.l_len = len as libc::off_t;
    // SAFETY: an open file, and a lock description that the call only reads.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Disk space for the first `size` bytes of a file, without a change to what is in them. With it a
/// write through a mapping cannot fail for want of space, which would be a signal. Given back on
/// drop unless committed.
#[must_use]
pub(super) struct Reservation<'f> {
    file: &'f File,
    /// The file's length before.
    before: u64,
    is_committed: bool,
}

impl<'f> Reservation<'f> {
    pub(super) fn new(file: &'f File, size: u64) -> Result<Reservation<'f>> {
        let about = file.metadata().map_err(|error| failed("reserve disk space", error))?;
        let reservation = Reservation { file, before: about.len(), is_committed: false };
        // First the question: fallocate may take all that is left before it fails.
        check_space(file, missing_space(file, size)?)?;
        let allocated = rustix::io::retry_on_intr(|| sys::fallocate(file, sys::FallocateFlags::empty(), 0, size));
        match allocated {
            Ok(()) => Ok(reservation),
            Err(rustix::io::Errno::OPNOTSUPP) => Err(Error::fixed(
                ErrorKind::Unsupported,
                "lmdb: cannot be on this file system: it cannot reserve disk space (fallocate)",
            )),
            Err(error) => Err(failed("reserve disk space", error.into())),
        }
    }

    pub(super) fn commit(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_committed {
            // If this fails as well, the next open takes it back.
            let _ = self.file.set_len(self.before);
        }
    }
}

/// How much of the first `size` bytes of a file has no disk space yet.
pub(super) fn missing_space(file: &File, size: u64) -> Result<u64> {
    let about = file.metadata().map_err(|error| failed("look at a file", error))?;
    Ok(size.saturating_sub(about.blocks() * 512))
}

/// `FULL` unless the file system of `file` has this much space left.
pub(super) fn check_space(file: &File, wanted: u64) -> Result<()> {
    let about = sys::fstatvfs(file).map_err(|error| failed("look at the disk", error.into()))?;
    if about.f_bavail.saturating_mul(about.f_frsize) < wanted {
        return Err(failed("reserve disk space", io::ErrorKind::StorageFull.into()));
    }
    Ok(())
}

/// Drops what the kernel has cached of a file: after a failed write the cache may show what the
/// disk does not have.
pub(super) fn drop_cache(file: &File) {
    // Advice only: what it returns does not matter.
    let _ = sys::fadvise(file, 0, None, sys::Advice::DontNeed);
}

/// Waits until another thread or process wakes the waiters at `word`; not at all if its value is
/// not `value`, and not longer than `timeout`. May return without a reason.
pub(super) fn futex_wait(word: &AtomicU32, value: u32, timeout: Duration) {
    let timeout = rustix::time::Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // Each of its failures is a reason to look again.
    let _ = futex::wait(word, futex::Flags::empty(), value, Some(&timeout));
}

/// Wakes all that wait at `word`, in every process.
pub(super) fn futex_wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}

pub(super) fn futex_wake_one(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Whether there is a process with this id.
pub(super) fn is_running(process: u32) -> bool {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The kind of the file system that a file is on, as statfs(2) numbers them.
pub(super) fn file_system(file: &File) -> Result<u64> {
    let about = sys::fstatfs(file).map_err(|error| failed("look at the file system", error.into()))?;
    Ok(about.f_type as u64)
}

/// The number of this boot of the machine; zeros where the system has none.
pub(super) fn boot_id() -> [u64; 2] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |range| digits.get(range).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or(0);
    [half(0..16), half(16..32)]
}

/// The namespace in which this process has its id.
pub(super) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |about| about.ino())
}

/// Has a function called when the process exits or this library is unloaded. Without memory for it,
/// it is not called.
pub(super) fn at_exit(f: extern "C" fn()) {
    // SAFETY: a function of this library, which is there as long as it is registered.
    unsafe { libc::atexit(f) };
}

/// A file that a forked child closes at once: with it the child would hold the locks of its parent
/// for as long as it lives.
pub(super) struct ClosedInChild(File);

/// Two files for each store that a process has open. The children of a process with more stores
/// keep what they inherit.
static CLOSED_IN_CHILD: [AtomicI32; 128] = [const { AtomicI32::new(-1) }; 128];

impl ClosedInChild {
    pub(super) fn new(file: File) -> ClosedInChild {
        // Not a Once: a child would wait for a thread that only its parent has. (Its own children
        // inherit the handler.)
        static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
        if !IS_REGISTERED.swap(true, Ordering::Relaxed) {
            // SAFETY: `close_inherited` does only what is allowed in a forked child. (Without
            // memory for the handler, the child keeps what it inherits.)
            unsafe { libc::pthread_atfork(None, None, Some(close_inherited)) };
        }
        replace_closed_in_child(-1, file.as_raw_fd());
        ClosedInChild(file)
    }
}

impl Deref for ClosedInChild {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for ClosedInChild {
    fn drop(&mut self) {
        // A process that is being started (vfork, before its exec) has the file too, and would hold
        // the locks on. Fails only for want of memory in the kernel.
        let _ = set_lock(&self.0, libc::F_OFD_SETLK, 0, 0, LockMode::Unlocked);
        replace_closed_in_child(self.0.as_raw_fd(), -1);
    }
}

fn replace_closed_in_child(old: RawFd, new: RawFd) {
    for entry in &CLOSED_IN_CHILD {
        if entry.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

extern "C" fn close_inherited() {
    for entry in &CLOSED_IN_CHILD {
        let descriptor = entry.swap(-1, Ordering::AcqRel);
        if descriptor >= 0 {
            // SAFETY: a file that the parent had open. Its owner is neither used nor dropped in the
            // child (see `registry`).
            unsafe { libc::close(descriptor) };
        }
    }
}
