//! What stands between every exported function and its caller. Panics are caught, the thread cannot
//! be cancelled inside, and a failure becomes its status number, with its message kept for
//! `sss_last_error` of the same thread.

use std::{
    borrow::Cow,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::types::sss_status;
use crate::{
    error::{Error, ErrorKind, Result, SSS_OK},
    os::cancellation::CancellationDisabled,
};

thread_local! {
    static LAST_ERROR: RefCell<Cow<'static, str>> = const { RefCell::new(Cow::Borrowed("")) };
}

/// Runs the body of an exported function.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> sss_status {
    let _cancellation_disabled = CancellationDisabled::new();
    match catch(body) {
        Some(Ok(())) => SSS_OK,
        Some(Err(error)) => failed(error),
        None => failed(Error::fixed(ErrorKind::Panic, "internal error: a bug in the library was caught")),
    }
}

/// The same for the few functions without a status: a panic gives `otherwise`.
pub(super) fn guard_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    let _cancellation_disabled = CancellationDisabled::new();
    catch(body).unwrap_or(otherwise)
}

/// A copy of this thread's last failure.
pub(super) fn last_error() -> Cow<'static, str> {
    LAST_ERROR.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

fn failed(error: Error) -> sss_status {
    let code = error.code();
    // Fails only while the thread is ending: then the status has no message.
    let _ = LAST_ERROR.try_with(|last| last.replace(error.into_message()));
    code
}

fn catch<T>(body: impl FnOnce() -> T) -> Option<T> {
    // Unwind-safe: the store changes its state last, and calls no foreign code that may panic under
    // a lock.
    let run = AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::panic_if_asked();
        body()
    });
    match catch_unwind(run) {
        Ok(value) => Some(value),
        Err(thrown) => {
            // Dropping the payload may panic again; the payload of that panic is leaked.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(thrown))).map_err(std::mem::forget);
            None
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    thread_local! {
        static ASKED: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes the next exported function that this thread calls panic inside.
    pub(in crate::capi) fn panic_in_next_call() {
        ASKED.set(true);
    }

    pub(super) fn panic_if_asked() {
        assert!(!ASKED.take(), "this panic is part of a test");
    }
}
