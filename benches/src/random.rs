//! Replaces the C library's `getrandom` in this program, so that M5 can time a create without
//! generating its id: the system call costs as much as the rest, and its share cannot be measured
//! from outside. Outside of M5's process it calls the operating system.

use std::{
    cell::Cell,
    ffi::{c_uint, c_void},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::workload::Rng;

static PREDICTABLE: AtomicBool = AtomicBool::new(false);

/// From now on this process gets fast random bytes that are not secret.
pub fn make_predictable() {
    PREDICTABLE.store(true, Relaxed);
}

/// # Safety
///
/// As the C library's: `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    if !PREDICTABLE.load(Relaxed) {
        // SAFETY: the caller's promise is the system call's condition.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as isize };
    }
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(1) };
    }
    let mut random = Rng::new(STATE.get());
    for at in (0..len).step_by(8) {
        let bytes = random.next().to_ne_bytes();
        // SAFETY: `at` and what is written there are within the `len` bytes that the caller
        // promises.
        unsafe { buffer.cast::<u8>().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len().min(len - at)) };
    }
    STATE.set(random.next());
    len as isize
}
