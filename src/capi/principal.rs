//! The sessions of one principal, and their public references.

use std::{
    ffi::{c_char, c_void},
    mem::offset_of,
};

use super::{
    args::{Out, access, bytes, invalid, optional_bytes, reference, required, sid as sid_arg, write},
    guard::guard,
    handle::resolve,
    types::{SSS_REF_LEN, sss_entry, sss_meta, sss_status, sss_store},
};

/// Lists the live sessions of a principal, the oldest first: the first cap of them are written to
/// entries, and *count is how many there are, which may be more than cap. (NULL, 0) as entries and
/// cap only counts.
///
/// For a page that shows a user their devices. An entry names its session by a reference, never by
/// its id. Sessions do not slide.
///
/// Errors: INVALID (an empty principal), HANDLE, FORKED, NOMEM; if sealed also CORRUPT (a label).
/// Threads: any. Since 0.1.
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
            unsafe { write_entry(entries.add(i), entry.into()) };
        }
        // SAFETY: the caller's promise about outputs.
        unsafe { write(count, found.len()) };
        Ok(())
    })
}

/// The padding is written too: what a caller gets of the library's memory must not depend on what
/// was there before.
///
/// # Safety
/// `out` must have room for an entry. It may be unaligned.
unsafe fn write_entry(out: *mut sss_entry, entry: sss_entry) {
    const PADDING: usize = offset_of!(sss_entry, label) + size_of::<[u8; 256]>();
    const PADDING_LEN: usize = offset_of!(sss_entry, reserved) - PADDING;
    // SAFETY: the caller's promise; the padding lies within the entry.
    unsafe {
        out.write_unaligned(entry);
        out.cast::<u8>().add(PADDING).write_bytes(0, PADDING_LEN);
    }
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
            (
                bytes("principal", principal, principal_len)?,
                optional_bytes("except_sid", except_sid.cast(), except_len)?,
            )
        };
        let revoked = store.revoke(principal, except)?;
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

/// Ends the session with this reference; with a principal only if it is of that principal,
/// otherwise the status is NOT_FOUND. (NULL, 0) as principal: whosever it is.
///
/// On behalf of a user give theirs, so that a page of devices cannot end another user's session
/// (CWE-639). The reference of a session that was renewed is NOT_FOUND.
///
/// Errors: NOT_FOUND, INVALID (an empty principal), HANDLE, FORKED. Threads: any. Since 0.1.
///
/// cbindgen:ptrs-as-arrays=[[ref; SSS_REF_LEN]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_delete_ref(
    store: sss_store,
    r#ref: *const u8,
    principal: *const c_void,
    principal_len: usize,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers and lengths.
        let (reference, principal) =
            unsafe { (reference(r#ref)?, optional_bytes("principal", principal, principal_len)?) };
        store.delete_ref(&reference, principal)
    })
}

/// Slides the idle deadline of the session with this reference like sss_touch; with SSS_PEEK in
/// flags it only reports whether the session is still alive. meta may be NULL.
///
/// For long-lived connections, such as web sockets, which do not hold the id. The reference of a
/// session that was renewed is NOT_FOUND.
///
/// Errors: NOT_FOUND, INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
///
/// cbindgen:ptrs-as-arrays=[[ref; SSS_REF_LEN]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_touch_ref(
    store: sss_store,
    r#ref: *const u8,
    flags: u32,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers and structs.
        let (reference, meta_out) = unsafe { (reference(r#ref)?, Out::new(meta)?) };
        meta_out.write((&store.touch_ref(&reference, access(flags)?)?).into());
        Ok(())
    })
}

/// Ends all sessions of the store; *count is how many were live, and may be NULL. For incidents,
/// such as a key that has leaked. Every session that sss_create or sss_renew had returned before
/// this call is ended when it returns.
///
/// Works in steps that keep no other call waiting for long. Sessions that are created meanwhile may
/// end too, or not. *count may lack sessions that other calls have removed meanwhile, except in a
/// memory: store.
///
/// Errors: HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_revoke_all(store: sss_store, count: *mut u64) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        let revoked = store.revoke_all()?;
        // SAFETY: the caller's promise about outputs.
        unsafe { write(count, revoked) };
        Ok(())
    })
}
