//! The sessions of one principal, and their public references.

use std::ffi::{c_char, c_void};

use super::{
    args::{bytes, invalid, required, sid as sid_arg, write},
    guard::guard,
    handle::resolve,
    types::{SSS_REF_LEN, sss_entry, sss_status, sss_store},
};
use crate::session::key::Ref;

/// Lists the live sessions of a principal, the oldest first: the first cap of them are written to
/// entries, and *count is how many there are, which may be more than cap. (NULL, 0) as entries and
/// cap only counts.
///
/// For a page that shows a user their devices. An entry names its session by a reference, never by
/// its id. Sessions do not slide.
///
/// Errors: INVALID (an empty principal), HANDLE, FORKED, NOMEM. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_list(
    store: sss_store,
    principal: *const c_void,
    principal_len: usize,
    entries: *mut sss_entry,
    cap: usize,
    count: *mut usize,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        if entries.is_null() && cap > 0 {
            return Err(invalid("entries is NULL but cap is not 0"));
        }
        if cap > isize::MAX as usize / size_of::<sss_entry>() {
            return Err(invalid("cap is larger than any object"));
        }
        // SAFETY: the caller's promise about pointers and lengths.
        let found = store.list(unsafe { bytes("principal", principal, principal_len)? })?;
        for (i, entry) in found.iter().take(cap).enumerate() {
            // SAFETY: i is less than cap, and entries has room for cap, by the caller's promise.
            unsafe { entries.add(i).write_unaligned(entry.into()) };
        }
        // SAFETY: the caller's promise about outputs.
        unsafe { write(count, found.len()) };
        Ok(())
    })
}

/// Ends all sessions of a principal; *count is how many were live, and may be NULL. Every session
/// that sss_create or sss_renew had returned before this call is ended when it returns.
///
/// except_sid excludes the session that this id reads ("log out my other devices"). If it reads
/// none of the principal's, or is (NULL, 0), no session is excluded.
///
/// Errors: INVALID (an empty principal), HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_revoke(
    store: sss_store,
    principal: *const c_void,
    principal_len: usize,
    except_sid: *const c_char,
    except_len: usize,
    count: *mut u64,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers and lengths.
        let (principal, except) = unsafe {
            (bytes("principal", principal, principal_len)?, bytes("except_sid", except_sid.cast(), except_len)?)
        };
        let revoked = store.revoke(principal, Some(except).filter(|_| !except_sid.is_null()))?;
        // SAFETY: the caller's promise about outputs.
        unsafe { write(count, revoked) };
        Ok(())
    })
}

/// Writes the public reference of a live session: the name that sss_list uses, fit for a log. It
/// gives no access to the session, and stays the same until the session is renewed. The session
/// does not slide. ref is required.
///
/// Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
///
/// cbindgen:ptrs-as-arrays=[[ref; SSS_REF_LEN]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_ref(store: sss_store, sid: *const c_char, sid_len: usize, r#ref: *mut u8) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        let out = required("ref", r#ref)?;
        // SAFETY: the caller's promise about pointers and lengths.
        let found = store.reference(unsafe { sid_arg(sid, sid_len)? })?;
        // SAFETY: not NULL; the caller's promise about outputs.
        unsafe { write(out.cast::<[u8; SSS_REF_LEN]>(), found.0) };
        Ok(())
    })
}

/// Ends the session with this reference. On behalf of a user, check first that the reference is in
/// the list of that user's sessions (CWE-639).
///
/// Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
///
/// cbindgen:ptrs-as-arrays=[[ref; SSS_REF_LEN]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_delete_ref(store: sss_store, r#ref: *const u8) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        if r#ref.is_null() {
            return Err(invalid("ref is NULL"));
        }
        // SAFETY: not NULL; the caller's promise that SSS_REF_LEN bytes are there.
        let reference = Ref(unsafe { r#ref.cast::<[u8; SSS_REF_LEN]>().read() });
        store.delete_ref(&reference)
    })
}
