//! Arguments from C: the only pointer arithmetic of the library. Each helper names the argument
//! that is wrong.
//!
//! Structs that begin with `size` follow the kernel's rule for extensible structs: a shorter one
//! from an older caller counts as if it ended in zeros, a longer one is accepted if what this
//! library does not know is zero.

use std::{
    ffi::{c_char, c_void},
    marker::PhantomData,
    ptr, slice,
    time::Duration,
};

use super::types::{
    SSS_CLEAR_PRINCIPAL, SSS_PEEK, SSS_REAUTHENTICATED, SSS_REF_LEN, SSS_SID_LEN, sss_meta, sss_options, sss_stats_t,
};
use crate::{
    error::{Error, ErrorKind, Result},
    session::{id::Sid, key::Ref, policy::Timeout},
    store::{Access, Options, Principal},
};

/// `size` and `flags`: less is no struct of ours.
const SMALLEST: usize = 8;
/// More is a `size` that was never set.
const LARGEST: usize = 4096;

/// The macros of the header, which cbindgen cannot write.
const SSS_FOREVER: i64 = i64::MAX;
const SSS_INHERIT: i64 = i64::MIN;

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn unknown_flags(name: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{name} has a bit that this version of the library does not know"))
}

/// A pointer and a length as bytes. (NULL, 0) is empty.
///
/// # Safety
/// If `data` is not NULL, `len` bytes are readable there for the lifetime that the caller picks.
pub(super) unsafe fn bytes<'a>(name: &str, data: *const c_void, len: usize) -> Result<&'a [u8]> {
    if len > isize::MAX as usize {
        return Err(invalid(format!("the length of {name} is larger than any object")));
    }
    if data.is_null() {
        return match len {
            0 => Ok(&[]),
            _ => Err(invalid(format!("{name} is NULL but its length is {len}"))),
        };
    }
    // SAFETY: not NULL, the length fits an object, and the caller vouches for the rest.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// The same where NULL with length 0 is none, which is not the same as empty.
///
/// # Safety
/// As for `bytes`.
pub(super) unsafe fn optional_bytes<'a>(name: &str, data: *const c_void, len: usize) -> Result<Option<&'a [u8]>> {
    // SAFETY: passed on.
    let bytes = unsafe { bytes(name, data, len)? };
    Ok(if data.is_null() { None } else { Some(bytes) })
}

/// A session id, or what claims to be one.
///
/// # Safety
/// As for `bytes`.
pub(super) unsafe fn sid<'a>(sid: *const c_char, len: usize) -> Result<&'a [u8]> {
    // SAFETY: passed on.
    unsafe { bytes("sid", sid.cast(), len) }
}

/// A session's reference.
///
/// # Safety
/// If it is not NULL, `SSS_REF_LEN` bytes are readable there.
pub(super) unsafe fn reference(reference: *const u8) -> Result<Ref> {
    if reference.is_null() {
        return Err(invalid("ref is NULL"));
    }
    // SAFETY: not NULL, and the caller vouches for the rest; an array of bytes has no alignment.
    Ok(Ref(unsafe { reference.cast::<[u8; SSS_REF_LEN]>().read() }))
}

/// An output that must be there.
pub(super) fn required<T>(name: &str, out: *mut T) -> Result<*mut T> {
    if out.is_null() { Err(invalid(format!("{name} is NULL"))) } else { Ok(out) }
}

/// Writes an output, if it is wanted.
///
/// # Safety
/// If `out` is not NULL, a `T` can be written there.
pub(super) unsafe fn write<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: not NULL, and the caller vouches for the rest.
        unsafe { out.write_unaligned(value) };
    }
}

/// Writes a session id and a NUL.
///
/// # Safety
/// `SSS_SID_SIZE` bytes can be written at `out`.
pub(super) unsafe fn write_sid(out: *mut c_char, sid: &Sid) {
    // SAFETY: the caller vouches for 129 bytes, and an id in a Rust value cannot overlap them.
    unsafe {
        ptr::copy_nonoverlapping(sid.as_bytes().as_ptr(), out.cast(), SSS_SID_LEN);
        out.add(SSS_SID_LEN).write(0);
    }
}

pub(super) fn access(flags: u32) -> Result<Access> {
    match flags {
        0 => Ok(Access::Slide),
        SSS_PEEK => Ok(Access::Peek),
        _ => Err(unknown_flags("flags")),
    }
}

/// A struct of which `T` is the part that this library knows, and whose first member is its `size`.
///
/// # Safety
/// The implementor is `repr(C)`, begins with `size: u32`, has no padding, and any bytes are a valid
/// value.
pub(super) unsafe trait Extensible: Copy {
    const NAME: &'static str;
}

// SAFETY: see the definitions and the layout assertions in `types`.
unsafe impl Extensible for sss_options {
    const NAME: &'static str = "sss_options";
}
// SAFETY: as above.
unsafe impl Extensible for sss_meta {
    const NAME: &'static str = "sss_meta";
}
// SAFETY: as above.
unsafe impl Extensible for sss_stats_t {
    const NAME: &'static str = "sss_stats_t";
}

/// The checked size of the caller's struct.
///
/// # Safety
/// At `at`, `size` can be read, and as many bytes as it says if it is a plausible one.
unsafe fn size_at<T: Extensible>(at: *const T) -> Result<usize> {
    // SAFETY: the caller vouches for the first member.
    let size = unsafe { at.cast::<u32>().read_unaligned() } as usize;
    if !(SMALLEST..=LARGEST).contains(&size) {
        return Err(invalid(format!("the size of {} is {size}: begin with its _INIT macro", T::NAME)));
    }
    let known = size_of::<T>();
    if size > known {
        // SAFETY: the caller vouches for `size` bytes.
        let unknown = unsafe { slice::from_raw_parts(at.cast::<u8>().add(known), size - known) };
        if unknown.iter().any(|&byte| byte != 0) {
            let message = format!("{} has a member that this version of the library does not know", T::NAME);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    }
    Ok(size)
}

/// An output struct that was checked, to be written on success.
pub(super) struct Out<T> {
    at: *mut T,
    size: usize,
    written_as: PhantomData<T>,
}

impl<T: Extensible> Out<T> {
    /// Checks an output struct; NULL is not wanted.
    ///
    /// # Safety
    /// As for `size_at`, and the bytes can be written until `write`.
    pub(super) unsafe fn new(at: *mut T) -> Result<Out<T>> {
        // SAFETY: passed on.
        let size = if at.is_null() { 0 } else { unsafe { size_at(at)? } };
        Ok(Out { at, size, written_as: PhantomData })
    }

    /// Writes what fits of `value`; the caller's `size` stays.
    pub(super) fn write(self, value: T) {
        const SIZE_FIELD: usize = size_of::<u32>();
        let len = self.size.min(size_of::<T>()).saturating_sub(SIZE_FIELD);
        if len > 0 {
            let from = (&raw const value).cast::<u8>();
            // SAFETY: both sides have at least SIZE_FIELD + len bytes, as checked by `new`; `value`
            // is our own.
            unsafe { ptr::copy_nonoverlapping(from.add(SIZE_FIELD), self.at.cast::<u8>().add(SIZE_FIELD), len) };
        }
    }
}

/// Options; NULL is the default.
///
/// # Safety
/// As for `size_at`, and `principal` and `label` as for `bytes`.
pub(super) unsafe fn options<'a>(at: *const sss_options) -> Result<Options<'a>> {
    if at.is_null() {
        return Ok(Options::default());
    }
    // SAFETY: passed on.
    let size = unsafe { size_at(at)? };
    let mut options = sss_options {
        size: 0,
        flags: 0,
        timeout_ms: 0,
        idle_timeout_ms: 0,
        principal: ptr::null(),
        principal_len: 0,
        grace_ms: 0,
        label: ptr::null(),
        label_len: 0,
    };
    // SAFETY: the caller vouches for `size` bytes, and no more than the struct has are copied.
    unsafe {
        let len = size.min(size_of::<sss_options>());
        ptr::copy_nonoverlapping(at.cast::<u8>(), (&raw mut options).cast::<u8>(), len);
    }
    // SAFETY: passed on.
    let (principal, label) = unsafe {
        (
            optional_bytes("principal", options.principal, options.principal_len)?,
            optional_bytes("label", options.label, options.label_len)?,
        )
    };
    if options.flags & !(SSS_CLEAR_PRINCIPAL | SSS_REAUTHENTICATED) != 0 {
        return Err(unknown_flags("sss_options.flags"));
    }
    let clear = options.flags & SSS_CLEAR_PRINCIPAL != 0;
    let grace = u64::try_from(options.grace_ms).map_err(|_| invalid("grace_ms is negative"))?;
    Ok(Options {
        timeout: timeout(options.timeout_ms),
        idle_timeout: timeout(options.idle_timeout_ms),
        principal: match (principal, clear) {
            (None, false) => Principal::Keep,
            (None, true) => Principal::Clear,
            (Some(principal), false) => Principal::Set(principal),
            (Some(_), true) => return Err(invalid("SSS_CLEAR_PRINCIPAL together with a principal")),
        },
        grace: Duration::from_millis(grace),
        label,
        reauthenticated: options.flags & SSS_REAUTHENTICATED != 0,
    })
}

/// A timeout in milliseconds with the special values of `sss_options`.
fn timeout(ms: i64) -> Option<Timeout> {
    match ms {
        0 => None,
        SSS_INHERIT => Some(Timeout::Inherit),
        SSS_FOREVER => Some(Timeout::Never),
        ms => Some(Timeout::After(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_stays_inside_callers_struct() {
        let value = sss_meta {
            size: 64,
            flags: 0,
            version: 7,
            created_ms: -1,
            last_seen_ms: -1,
            expires_ms: -1,
            authenticated_ms: -1,
            timeout_ms: -1,
            idle_timeout_ms: -1,
        };
        for size in [8_usize, 15, 16, 39, 40, 63, 64, 72, 96] {
            // Guard bytes behind the struct.
            let mut memory = [0_u8; 128];
            memory[size..].fill(0xAA);
            memory[..4].copy_from_slice(&(size as u32).to_ne_bytes());
            let at = memory.as_mut_ptr().cast::<sss_meta>();
            // SAFETY: `memory` is longer than every size.
            unsafe { Out::new(at) }.unwrap().write(value);
            assert_eq!(memory[..4], (size as u32).to_ne_bytes(), "size stays");
            assert!(memory[size..].iter().all(|&byte| byte == 0xAA), "{size}");
            if size >= 16 {
                assert_eq!(memory[8..16], 7_u64.to_ne_bytes());
            }
        }
    }
}
