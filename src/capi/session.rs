//! One session: create, get, put, touch, renew, delete, and the sweep.

use std::{
    ffi::{c_char, c_void},
    ptr,
};

use zeroize::Zeroize;

use super::{
    args::{Out, access, bytes, invalid, options, required, sid as sid_arg, write, write_sid},
    guard::{guard, guard_or},
    handle::resolve,
    types::{sss_buf, sss_meta, sss_options, sss_status, sss_store},
};
use crate::error::{Error, ErrorKind};

/// Creates a session and writes its id: 128 characters of base64url and a NUL. Give the id to the
/// client only.
///
/// The payload is len bytes in the caller's own format; (NULL, 0) is empty. opts and meta may be
/// NULL. sid is required. With a principal in opts this is a login: authenticated_ms is created_ms.
///
/// Errors: TOO_LARGE, FULL, INVALID, UNSUPPORTED, HANDLE, FORKED, RANDOM, NOMEM. Threads: any.
/// Since 0.1.
///
/// cbindgen:ptrs-as-arrays=[[sid; SSS_SID_SIZE]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_create(
    store: sss_store,
    data: *const c_void,
    len: usize,
    opts: *const sss_options,
    sid: *mut c_char,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        let sid = required("sid", sid)?;
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (data, opts, meta_out) = unsafe { (bytes("data", data, len)?, options(opts)?, Out::new(meta)?) };
        let (new_sid, meta) = store.create(data, &opts)?;
        // SAFETY: not NULL; the caller's promise about outputs.
        unsafe { write_sid(sid, &new_sid) };
        meta_out.write((&meta).into());
        Ok(())
    })
}

/// Copies the payload of a session into buf, and slides its idle deadline; with SSS_PEEK in flags
/// it does not slide.
///
/// *len is the length of the payload. If cap is less, the status is TOO_SMALL: *len is what is
/// needed, nothing is copied and the session does not slide. len and meta may be NULL.
///
/// During the grace time of a renewal the old id reads the session too, without sliding it.
///
/// Errors: NOT_FOUND, TOO_SMALL, INVALID, UNSUPPORTED, HANDLE, FORKED; if sealed also CORRUPT,
/// NOMEM. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_get(
    store: sss_store,
    sid: *const c_char,
    sid_len: usize,
    flags: u32,
    buf: *mut c_void,
    cap: usize,
    len: *mut usize,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (sid, meta_out) = unsafe { (sid_arg(sid, sid_len)?, Out::new(meta)?) };
        let access = access(flags)?;
        if buf.is_null() && cap > 0 {
            return Err(invalid("buf is NULL but cap is not 0"));
        }
        if cap > isize::MAX as usize {
            return Err(invalid("cap is larger than any object"));
        }
        let mut needed = 0;
        let read = store.read(sid, access, |payload, meta| {
            needed = payload.len();
            if needed > cap {
                return Err(Error::fixed(ErrorKind::TooSmall, "buf is smaller than the payload"));
            }
            if needed > 0 {
                // SAFETY: buf has cap bytes, by the caller's promise, and the payload is the
                // store's own memory.
                unsafe { ptr::copy_nonoverlapping(payload.as_ptr(), buf.cast(), needed) };
            }
            Ok(*meta)
        });
        if read.is_ok() || needed > cap {
            // SAFETY: the caller's promise about outputs.
            unsafe { write(len, needed) };
        }
        meta_out.write((&read?).into());
        Ok(())
    })
}

/// Like sss_get, with the payload in memory of the library. It is independent of the store; free it
/// with sss_buf_free exactly once. buf is required; meta may be NULL.
///
/// Errors: those of sss_get except TOO_SMALL, and NOMEM. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_get_buf(
    store: sss_store,
    sid: *const c_char,
    sid_len: usize,
    flags: u32,
    buf: *mut sss_buf,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        let buf = required("buf", buf)?;
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (sid, meta_out) = unsafe { (sid_arg(sid, sid_len)?, Out::new(meta)?) };
        let (payload, meta) = store.get(sid, access(flags)?)?;
        let data = Box::into_raw(payload.into_boxed_slice());
        let filled = sss_buf { data: data.cast(), len: data.len(), owner: data.cast() };
        // SAFETY: not NULL; the caller's promise about outputs.
        unsafe { write(buf, filled) };
        meta_out.write((&meta).into());
        Ok(())
    })
}

/// Wipes and frees what sss_get_buf returned, and empties the struct, so that a second call does
/// nothing. NULL does nothing. Do not free a copy of the struct. Threads: any, but one at a time
/// for one struct. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_buf_free(buf: *mut sss_buf) {
    guard_or((), || {
        if buf.is_null() {
            return;
        }
        // SAFETY: not NULL; the caller's promise that it is a struct filled by sss_get_buf, or
        // empty.
        let taken = unsafe { buf.replace(sss_buf { data: ptr::null(), len: 0, owner: ptr::null_mut() }) };
        if !taken.owner.is_null() {
            let data = ptr::slice_from_raw_parts_mut(taken.owner.cast::<u8>(), taken.len);
            // SAFETY: made by Box::into_raw in sss_get_buf with this length, and taken out of the
            // struct above.
            let mut data = unsafe { Box::from_raw(data) };
            data.zeroize();
        }
    })
}

/// Replaces the payload of a live session, slides its idle deadline, and adds one to its version.
///
/// Never creates and never resurrects a session: after a delete, an expiry or a revoke the status
/// is NOT_FOUND, even if that happened at the same time. opts and meta may be NULL.
///
/// Errors: NOT_FOUND, TOO_LARGE, FULL (max_bytes; the old payload stays), INVALID, UNSUPPORTED,
/// HANDLE, FORKED, NOMEM; if sealed also CORRUPT (the record that it would replace). Threads: any.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_put(
    store: sss_store,
    sid: *const c_char,
    sid_len: usize,
    data: *const c_void,
    len: usize,
    opts: *const sss_options,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (sid, data, opts, meta_out) =
            unsafe { (sid_arg(sid, sid_len)?, bytes("data", data, len)?, options(opts)?, Out::new(meta)?) };
        meta_out.write((&store.put(sid, data, &opts)?).into());
        Ok(())
    })
}

/// Like sss_put, but only if the session still has the version that was read (sss_meta.version), in
/// one atomic step. Otherwise the status is CONFLICT, and nothing changes.
///
/// Errors: CONFLICT, and those of sss_put. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_put_if(
    store: sss_store,
    sid: *const c_char,
    sid_len: usize,
    version: u64,
    data: *const c_void,
    len: usize,
    opts: *const sss_options,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (sid, data, opts, meta_out) =
            unsafe { (sid_arg(sid, sid_len)?, bytes("data", data, len)?, options(opts)?, Out::new(meta)?) };
        meta_out.write((&store.put_if(sid, version, data, &opts)?).into());
        Ok(())
    })
}

/// Slides the idle deadline of a session like sss_get, without reading the payload. meta may be
/// NULL.
///
/// Errors: NOT_FOUND, INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_touch(
    store: sss_store,
    sid: *const c_char,
    sid_len: usize,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (sid, meta_out) = unsafe { (sid_arg(sid, sid_len)?, Out::new(meta)?) };
        meta_out.write((&store.touch(sid)?).into());
        Ok(())
    })
}

/// Gives a session a new id, in one atomic step. Call it at login, against session fixation
/// (CWE-384).
///
/// The creation time stays. data NULL keeps the payload and its version; otherwise the payload is
/// replaced. The principal and its label stay unless opts change them. The old id ends when this
/// returns; with opts->grace_ms it reads the session for that long, never writes it, and ends with
/// it. If the call fails, the session keeps its old id. opts and meta may be NULL; new_sid is
/// required.
///
///   rotation          the principal stays: the absolute deadline stays too
///   login             the session gets another principal than it had, or its first one: both timeouts restart, and
///                     authenticated_ms is now
///   reauthentication  SSS_REAUTHENTICATED in opts->flags, with any principal: the same as a login
///
/// opts->grace_ms with a login or a reauthentication is INVALID, and the session stays as it was.
///
/// Errors: those of sss_put, and RANDOM. Threads: any. Since 0.1.
///
/// cbindgen:ptrs-as-arrays=[[new_sid; SSS_SID_SIZE]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_renew(
    store: sss_store,
    sid: *const c_char,
    sid_len: usize,
    data: *const c_void,
    len: usize,
    opts: *const sss_options,
    new_sid: *mut c_char,
    meta: *mut sss_meta,
) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        let new_sid = required("new_sid", new_sid)?;
        let keep = data.is_null();
        // SAFETY: the caller's promise about pointers, lengths and structs.
        let (sid, data, opts, meta_out) =
            unsafe { (sid_arg(sid, sid_len)?, bytes("data", data, len)?, options(opts)?, Out::new(meta)?) };
        let (minted, meta) = store.renew(sid, if keep { None } else { Some(data) }, &opts)?;
        // SAFETY: not NULL; the caller's promise about outputs.
        unsafe { write_sid(new_sid, &minted) };
        meta_out.write((&meta).into());
        Ok(())
    })
}

/// Ends a session and wipes its payload. A second call returns NOT_FOUND.
///
/// Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_delete(store: sss_store, sid: *const c_char, sid_len: usize) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        // SAFETY: the caller's promise about pointers and lengths.
        store.delete(unsafe { sid_arg(sid, sid_len)? })
    })
}

/// Removes up to max expired sessions; *removed is how many, and may be NULL. Fewer than max: none
/// is left.
///
/// Expired sessions are NOT_FOUND without it; it reclaims their space. Call it from a timer, for
/// example every few seconds with a max of 1000, and again at once while *removed equals max. The
/// cost grows with what is expired, not with what is live, and other threads run in between.
/// Creating sessions removes a few expired ones as well.
///
/// Only sweeps return free memory of a memory: store to the system: up to 16 MiB for a max of 1000.
///
/// Errors: HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_sweep(store: sss_store, max: u64, removed: *mut u64) -> sss_status {
    guard(|| {
        let count = resolve(store)?.sweep(max)?;
        // SAFETY: the caller's promise about outputs.
        unsafe { write(removed, count) };
        Ok(())
    })
}
