//! What tells about the library itself: counters, texts of failures, versions, and the clock of
//! tests.

use std::{
    ffi::{CStr, c_char},
    ptr,
};

use super::{
    args::{Out, required, write},
    guard::{guard, guard_or, last_error},
    handle::resolve,
    types::{sss_stats_t, sss_status, sss_store},
};
use crate::error::{ErrorKind, SSS_OK};

/// Copies the counters of a store. Under concurrent use the numbers need not be of one instant.
/// stats is required.
///
/// Errors: INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_stats(store: sss_store, stats: *mut sss_stats_t) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about structs.
        let out = unsafe { Out::new(required("stats", stats)?)? };
        out.write((&store.stats()?).into());
        Ok(())
    })
}

/// Moves the clock of a store that was opened with clock=manual forward by ms milliseconds: for
/// tests.
///
/// Errors: UNSUPPORTED (another clock), INVALID (ms is negative), HANDLE, FORKED. Threads: any.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_advance_clock(store: sss_store, ms: i64) -> sss_status {
    guard(|| resolve(store)?.advance_clock(ms))
}

/// Copies the text of the calling thread's last failure: one line in English that names what was
/// wrong, never an id, a payload or a password. *len is its length; a NUL follows it in buf if cap
/// is larger. If cap is less, the status is TOO_SMALL and *len is what is needed. The text is empty
/// before the first failure. Calls that succeed, and this one, do not change it. len may be NULL.
///
/// Call it on the thread that failed, before any other function of the library: in Go under
/// LockOSThread.
///
/// Errors: TOO_SMALL, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_last_error(buf: *mut c_char, cap: usize, len: *mut usize) -> sss_status {
    guard_or(ErrorKind::Panic.code(), || {
        if (buf.is_null() && cap > 0) || cap > isize::MAX as usize {
            return ErrorKind::Invalid.code();
        }
        let text = last_error();
        // SAFETY: the caller's promise about outputs.
        unsafe { write(len, text.len()) };
        if cap < text.len() {
            return ErrorKind::TooSmall.code();
        }
        // SAFETY: buf has cap bytes, by the caller's promise; the text is no longer, and the NUL
        // fits if it is shorter.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), text.len());
            if cap > text.len() {
                buf.add(text.len()).write(0);
            }
        }
        SSS_OK
    })
}

/// One short line in English for a status, also for a number that this version does not know. Never
/// NULL, static, not to be freed. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn sss_strerror(status: sss_status) -> *const c_char {
    const UNKNOWN: &CStr = c"unknown status";
    let text = || match status {
        SSS_OK => c"success",
        _ => ErrorKind::from_code(status).map_or(UNKNOWN, ErrorKind::text),
    };
    guard_or(UNKNOWN, text).as_ptr()
}

/// The version of the library that is loaded: major<<16 | minor<<8 | patch. Compare it with
/// SSS_VERSION of the header: while major is 0, both minor numbers must be equal. Threads: any.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn sss_version() -> u32 {
    const fn number(text: &str) -> u32 {
        let mut value = 0;
        let mut i = 0;
        while i < text.len() {
            value = value * 10 + (text.as_bytes()[i] - b'0') as u32;
            i += 1;
        }
        value
    }
    const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | number(env!("CARGO_PKG_VERSION_PATCH"));
    guard_or(VERSION, || VERSION)
}

/// The same as text, such as "0.1.0". Static, not to be freed. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn sss_version_string() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    guard_or(VERSION, || VERSION).as_ptr()
}
