//! What the processes of a store share beside LMDB: a small file, mapped by all of them, with the rules in force, the
//! counters, a clock for tests and the cells of [`touches`](super::touches); and the locks on it that say who has the
//! store open. Everything in the map is an atomic, so any content is valid. The only other `unsafe` of this engine.
//!
//! The locks are OFD locks (fcntl(2)): they belong to the open file, so another close in this process does not drop them,
//! and a child that inherited it and closes it does not give them up while its parent lives.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    ops::Deref,
    os::fd::{AsRawFd, RawFd},
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use super::{gate::Gate, group, touches::Touches};
use crate::{
    error::{Error, Result},
    session::{key::LookupKey, policy::Policy},
    stats::Counters,
};

/// The beginning of the file.
#[repr(C)]
pub(super) struct ShmHeader {
    /// `MAGIC` in a file of this kind and layout.
    pub magic: AtomicU64,
    /// The boot of the machine in which the store was used last.
    pub boot: [AtomicU64; 2],
    /// 1: everything is on the disk, so that another boot does not matter.
    pub clean: AtomicU32,
    /// Of those who have the store open now: 1 if `durability=power`, 1 if `clock=manual`, their PID namespace.
    pub survives_power_cut: AtomicU32,
    pub manual_clock: AtomicU32,
    pub pid_namespace: AtomicU64,
    pub manual_ms: AtomicI64,
    pub generations: AtomicU32,
    /// 1: the disk has failed to take something that was written. Since the data are there, or were last found whole on it.
    pub disk_failed: AtomicU32,
    pub gate: Gate,
    pub group: group::Shared,
    pub policy: Policy,
    pub counters: Counters,
}

/// "sss map" and the version of this layout.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"sssmap\x00\x02");

/// Where the cells begin.
const CELLS: usize = 8 << 10;
const _: () = assert!(size_of::<ShmHeader>() <= CELLS && align_of::<ShmHeader>() <= 4096);

pub(super) struct Map {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: all access is through atomics.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

/// The size of a file with so many cells.
pub(super) fn size_for(cells: usize) -> usize {
    CELLS + cells * size_of::<AtomicU64>()
}

impl Map {
    /// Maps a file that has `len` bytes; they stay there as long as anyone has it.
    pub(super) fn new(file: &File, len: usize) -> Result<Map> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open file touches no existing memory.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(mapped.cast()) {
            Some(memory) if mapped != libc::MAP_FAILED => Ok(Map { memory, len }),
            _ => Err(failed("map", io::Error::last_os_error())),
        }
    }

    pub(super) fn header(&self) -> &ShmHeader {
        // SAFETY: the mapping is page-aligned and longer than a ShmHeader, lives as long as `self`, and has only atomics in it,
        // for which any bytes are valid.
        unsafe { self.memory.cast().as_ref() }
    }

    pub(super) fn touches(&self) -> Touches<'_> {
        let count = (self.len - CELLS) / size_of::<AtomicU64>();
        // SAFETY: inside the mapping, aligned, and atomics as above.
        let cells = unsafe { std::slice::from_raw_parts(self.memory.add(CELLS).cast().as_ptr(), count) };
        Touches { cells, generations: &self.header().generations }
    }

    /// Begins to fetch the cell of a session, and what pages of the map are on the way to it.
    pub(super) fn prefetch_cell(&self, key: &LookupKey) {
        let touches = self.touches();
        prefetch(touches.cells.as_ptr().wrapping_add(touches.home(key)).cast());
    }

    /// Writes it to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        // SAFETY: the whole mapping.
        match unsafe { libc::msync(self.memory.as_ptr().cast(), self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(failed("write to disk", io::Error::last_os_error())),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; whoever borrowed from it is gone.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

/// A file of others, mapped as the numbers that it is made of.
pub(super) struct Words(Map);

impl Words {
    pub(super) fn new(file: &File, len: usize) -> Result<Words> {
        Map::new(file, len).map(Words)
    }

    /// The number at this byte, which is in the file, and a multiple of four.
    pub(super) fn at(&self, byte: usize) -> &AtomicU32 {
        assert!(byte.is_multiple_of(4) && byte + 4 <= self.0.len);
        // SAFETY: aligned and inside the mapping, and an atomic, for which any bytes are valid.
        unsafe { self.0.memory.add(byte).cast().as_ref() }
    }
}

/// The file with the locks. A forked child closes it at once: it would hold its parent's locks as long as it lives, also if it
/// never uses the store.
pub(super) struct Locks(File);

/// As many stores as a process has open at once, usually; the children of those with more keep what they inherit.
static HELD: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

impl Locks {
    pub(super) fn new(file: File) -> Locks {
        // Not a Once: a child would wait for a thread that only its parent has. (Its own children inherit the handler.)
        static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
        if !IS_REGISTERED.swap(true, Ordering::Relaxed) {
            // SAFETY: a function of this library, which only does what is allowed in a forked child. (Without memory for it
            // the child keeps what it inherits.)
            unsafe { libc::pthread_atfork(None, None, Some(close_inherited)) };
        }
        replace_held(-1, file.as_raw_fd());
        Locks(file)
    }
}

impl Deref for Locks {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        replace_held(self.0.as_raw_fd(), -1);
    }
}

fn replace_held(old: RawFd, new: RawFd) {
    HELD.iter().any(|held| held.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok());
}

extern "C" fn close_inherited() {
    for held in &HELD {
        let file = held.swap(-1, Ordering::AcqRel);
        if file >= 0 {
            // SAFETY: a file that the parent had open. Who owns it here is never used nor dropped: see `Database`.
            unsafe { libc::close(file) };
        }
    }
}

/// The locks: the first is held by whoever opens or closes the store, the second shared by all who have it open, and the
/// third instead of that by those who are about to close it.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    Doing = 0,
    Using = 1,
    Leaving = 2,
}

#[derive(Clone, Copy)]
pub(super) enum Hold {
    Alone,
    Shared,
    Not,
}

/// Takes, changes or gives up a lock, without waiting. False: somebody else has it.
pub(super) fn lock(file: &File, which: Lock, hold: Hold) -> Result<bool> {
    // SAFETY: a plain struct of numbers, for which zeros are fine.
    let mut wanted: libc::flock = unsafe { std::mem::zeroed() };
    wanted.l_type = match hold {
        Hold::Alone => libc::F_WRLCK,
        Hold::Shared => libc::F_RDLCK,
        Hold::Not => libc::F_UNLCK,
    } as libc::c_short;
    wanted.l_whence = libc::SEEK_SET as libc::c_short;
    wanted.l_start = which as libc::off_t;
    wanted.l_len = 1;
    // SAFETY: an open file and a lock description that the call only reads.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &wanted) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(failed("lock", error)),
    }
}

/// Makes the file's blocks up to `size`, without changing what is in them: so a disk that fills up later is nobody's concern.
pub(super) fn reserve(file: &File, size: u64) -> Result<()> {
    let size =
        libc::off_t::try_from(size).map_err(|_| failed("reserve", io::Error::from(io::ErrorKind::FileTooLarge)))?;
    // SAFETY: an open file and a range of it.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) } {
        0 => Ok(()),
        code => Err(failed("reserve", io::Error::from_raw_os_error(code))),
    }
}

/// Takes the cells out of the file of a map; `reserve` makes new ones.
pub(super) fn clear_cells(file: &File) -> Result<()> {
    file.set_len(CELLS as u64).map_err(|error| failed("clear sss.map", error))
}

/// Has the file read from the disk again: after it has failed to take something, memory may show what it does not have.
pub(super) fn forget_cached(file: &File) {
    // SAFETY: an open file. Only advice: what it returns does not matter.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
    };
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Waits until somebody wakes those who wait at `word`, which may be another process; not at all if it is not `value` any
/// more, and not longer than `most`. May return for no reason.
pub(super) fn wait(word: &AtomicU32, value: u32, most: Duration) {
    #[cfg(target_os = "linux")]
    {
        let most =
            libc::timespec { tv_sec: most.as_secs() as libc::time_t, tv_nsec: most.subsec_nanos() as libc::c_long };
        // SAFETY: an aligned word that lives as long as the call, and a valid time. What it returns does not matter.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const most) };
    }
    #[cfg(not(target_os = "linux"))]
    if word.load(Ordering::Acquire) == value {
        std::thread::sleep(most.min(Duration::from_micros(100)));
    }
}

pub(super) fn wake_all(word: &AtomicU32) {
    wake(word, i32::MAX);
}

pub(super) fn wake_one(word: &AtomicU32) {
    wake(word, 1);
}

fn wake(word: &AtomicU32, most: i32) {
    #[cfg(target_os = "linux")]
    // SAFETY: an aligned word that lives as long as the call.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, most)
    };
    #[cfg(not(target_os = "linux"))]
    let _ = (word, most);
}

/// Whether there is a process with this number.
pub(super) fn is_running(process: u32) -> bool {
    let Ok(process) = libc::pid_t::try_from(process) else { return false };
    // SAFETY: signal 0 only asks.
    unsafe { libc::kill(process, 0) == 0 || *libc::__errno_location() != libc::ESRCH }
}

/// The kind of the file system that a file is on, as statfs(2) numbers them.
pub(super) fn file_system(file: &File) -> Result<u64> {
    // SAFETY: a plain struct of numbers, for which zeros are fine.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open file, and `about` is where the answer goes.
    match unsafe { libc::fstatfs(file.as_raw_fd(), &mut about) } {
        0 => Ok(about.f_type as u64),
        _ => Err(failed("look at", io::Error::last_os_error())),
    }
}

/// The user that this process acts as.
pub(super) fn user() -> u32 {
    // SAFETY: cannot fail and has no preconditions.
    unsafe { libc::geteuid() }
}

/// Has a function called when the process exits, or this library is unloaded.
pub(super) fn at_exit(f: extern "C" fn()) {
    // SAFETY: a function of this library, which is there as long as it is registered. (Without memory for it, it is not
    // called, and the store counts as not closed.)
    unsafe { libc::atexit(f) };
}

/// Begins to fetch a cache line.
#[inline]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is only a hint and accesses nothing, also where the address is not mapped.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

fn failed(what: &str, error: io::Error) -> Error {
    super::files::failed(what, error)
}
