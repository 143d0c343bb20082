//! Cancellation of threads by `pthread_cancel`. A cancelled thread unwinds its stack from inside a
//! system call, which Rust code must not see: the process would abort, or a lock would stay closed.
#![allow(unsafe_code)]

use std::ffi::c_int;

#[cfg(not(target_vendor = "apple"))]
const PTHREAD_CANCEL_DISABLE: c_int = 1;
#[cfg(target_vendor = "apple")]
const PTHREAD_CANCEL_DISABLE: c_int = 0;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old_state: *mut c_int) -> c_int;
}

/// While it exists, a request to cancel this thread stays pending.
pub(crate) struct CancellationDisabled {
    old_state: c_int,
}

impl CancellationDisabled {
    #[inline]
    pub(crate) fn new() -> CancellationDisabled {
        let mut old_state = 0;
        // SAFETY: `old_state` is valid for writing, and the call has no other effect than on this
        // thread's state.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut old_state) };
        CancellationDisabled { old_state }
    }
}

impl Drop for CancellationDisabled {
    #[inline]
    fn drop(&mut self) {
        let mut ignored = 0;
        // SAFETY: as above; the state is one that the system returned.
        unsafe { pthread_setcancelstate(self.old_state, &mut ignored) };
    }
}
