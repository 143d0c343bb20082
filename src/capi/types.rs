//! The types and numbers of the C ABI. Their layout is fixed; structs that begin with `size` may
//! grow at the end.
#![allow(non_camel_case_types)]

use std::ffi::c_void;

use crate::{
    session::{
        header::{Entry, Meta},
        label::MAX_LABEL,
    },
    stats::Stats,
};

/// 0 for success, negative for a failure (one of `SSS_E_*`; later versions may add some).
pub type sss_status = i32;

/// A handle to an open store. Zero is not a handle, and the number of a closed handle is not used
/// again.
pub type sss_store = u64;

/// The process-wide store: opened by sss_open_global, or as "memory:" by its first use.
pub const SSS_GLOBAL: sss_store = !0;

/// The length of a session id.
pub const SSS_SID_LEN: usize = 128;
/// The size of a buffer for a session id and its final NUL.
pub const SSS_SID_SIZE: usize = 129;
/// The length of a session's public reference.
pub const SSS_REF_LEN: usize = 32;

/// sss_get, sss_get_buf, sss_touch_ref: do not slide the idle deadline.
pub const SSS_PEEK: u32 = 1;
/// sss_options.flags in sss_put, sss_put_if and sss_renew: take the principal away.
pub const SSS_CLEAR_PRINCIPAL: u32 = 1;
/// sss_options.flags in sss_renew: the user has proved their identity again, so both timeouts
/// restart.
pub const SSS_REAUTHENTICATED: u32 = 2;

/// sss_may_block: sss_get, sss_get_buf, sss_touch, sss_touch_ref, sss_ref and sss_stats may block.
pub const SSS_BLOCKS_READS: u32 = 1;
/// sss_may_block: sss_create, sss_put, sss_put_if, sss_renew, sss_delete and sss_delete_ref may
/// block.
pub const SSS_BLOCKS_WRITES: u32 = 2;

/// What a write sets besides the payload. Start with SSS_OPTIONS_INIT, which changes nothing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sss_options {
    /// The size of the struct, set by SSS_OPTIONS_INIT.
    pub size: u32,
    /// 0, SSS_CLEAR_PRINCIPAL or SSS_REAUTHENTICATED; not both.
    pub flags: u32,
    /// Absolute timeout in milliseconds, from the creation or from the last login or
    /// reauthentication (see sss_renew). Above 0: the session's own; SSS_FOREVER: none; 0: the
    /// store's (in put and renew: unchanged); SSS_INHERIT: the store's from now on; any other value
    /// below 0: ends at once.
    pub timeout_ms: i64,
    /// Idle timeout in milliseconds from the last use, with the same special values.
    pub idle_timeout_ms: i64,
    /// The user that the session belongs to: any bytes, at least one. NULL: none (in put and renew:
    /// unchanged).
    pub principal: *const c_void,
    /// The length of principal in bytes.
    pub principal_len: usize,
    /// sss_renew only: for how many milliseconds the old id may still read, but not past the
    /// session's absolute deadline. 0: it ends at once. For requests under way when ids are
    /// rotated; INVALID with a login or a reauthentication, because an attacker may know the old
    /// id. At most the last 64 ids of a session read it.
    pub grace_ms: i64,
    /// With a principal only: up to 255 bytes that sss_list shows, such as the device and how the
    /// user logged in. NULL: a session whose principal stays keeps its label, any other has none.
    /// Not NULL with length 0: it has none. On a store that seals, it is encrypted under a key that
    /// the principal's bytes give.
    pub label: *const c_void,
    /// The length of label in bytes.
    pub label_len: usize,
}

/// What a store tells of a session besides its payload. Times are Unix time in milliseconds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sss_meta {
    /// The size of the struct, set by SSS_META_INIT.
    pub size: u32,
    /// 0 in this version.
    pub flags: u32,
    /// 1 when the session is created, and one more with every new payload.
    pub version: u64,
    /// When the session was created. Renewing its id does not change it.
    pub created_ms: i64,
    /// When the session was last used.
    pub last_seen_ms: i64,
    /// When the session ends unless it is used before; SSS_FOREVER: never.
    pub expires_ms: i64,
    /// When the user last proved their identity: at the creation with a principal, at a login or at
    /// a reauthentication (see sss_renew). 0: never.
    pub authenticated_ms: i64,
    /// The absolute timeout in force, the session's own or its store's; SSS_FOREVER: none. Counts
    /// from the later of created_ms and authenticated_ms.
    pub timeout_ms: i64,
    /// The idle timeout in force, the session's own or its store's; SSS_FOREVER: none.
    pub idle_timeout_ms: i64,
}

/// One session in the list of sss_list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sss_entry {
    /// The session's public reference, for sss_delete_ref and sss_touch_ref. It gives no access to
    /// the session's payload.
    pub r#ref: [u8; SSS_REF_LEN],
    /// As in sss_meta.
    pub version: u64,
    /// The length of the payload in bytes.
    pub payload_len: u64,
    /// As in sss_meta.
    pub created_ms: i64,
    /// As in sss_meta.
    pub last_seen_ms: i64,
    /// As in sss_meta.
    pub expires_ms: i64,
    /// As in sss_meta.
    pub authenticated_ms: i64,
    /// The length of the label; 0: none.
    pub label_len: u32,
    /// What sss_options.label has set: any bytes, and zeros behind them.
    pub label: [u8; 256],
    /// 0 in this version.
    pub reserved: [u64; 4],
}

/// A store's counters. They only grow, except sessions and bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sss_stats_t {
    /// The size of the struct, set by SSS_STATS_INIT.
    pub size: u32,
    /// 0 in this version.
    pub flags: u32,
    /// Sessions held now. Expired ones count until they are removed.
    pub sessions: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
    /// Successful creates.
    pub created: u64,
    /// Gets that found a session.
    pub hits: u64,
    /// Gets that found none.
    pub misses: u64,
    /// Successful puts, conditional ones too.
    pub puts: u64,
    /// Successful deletes, by id or by reference.
    pub deleted: u64,
    /// Successful renewals.
    pub renewed: u64,
    /// Conditional puts refused because of the version.
    pub conflicts: u64,
    /// Sessions ended by sss_revoke, sss_revoke_all or max_per_principal.
    pub revoked: u64,
    /// Sessions removed after they had expired.
    pub expired: u64,
    /// Writes refused by a limit.
    pub rejected: u64,
    /// Failures of the engine, of memory or of the random source.
    pub errors: u64,
}

/// A payload in memory of the library, for sss_buf_free.
#[repr(C)]
pub struct sss_buf {
    /// The payload. Never NULL.
    pub data: *const u8,
    /// Its length in bytes.
    pub len: usize,
    /// For the library only.
    pub owner: *mut c_void,
}

impl From<&Meta> for sss_meta {
    fn from(meta: &Meta) -> sss_meta {
        sss_meta {
            size: size_of::<sss_meta>() as u32,
            flags: 0,
            version: meta.version,
            created_ms: meta.created_ms,
            last_seen_ms: meta.last_seen_ms,
            expires_ms: meta.expires_ms,
            authenticated_ms: meta.authenticated_ms,
            timeout_ms: meta.timeouts.absolute,
            idle_timeout_ms: meta.timeouts.idle,
        }
    }
}

impl From<&Entry> for sss_entry {
    fn from(entry: &Entry) -> sss_entry {
        let label = entry.label.as_deref().unwrap_or_default();
        let mut padded = [0; 256];
        padded[..label.len()].copy_from_slice(label);
        sss_entry {
            r#ref: entry.reference.0,
            version: entry.meta.version,
            payload_len: entry.payload_len,
            created_ms: entry.meta.created_ms,
            last_seen_ms: entry.meta.last_seen_ms,
            expires_ms: entry.meta.expires_ms,
            authenticated_ms: entry.meta.authenticated_ms,
            label_len: label.len() as u32,
            label: padded,
            reserved: [0; 4],
        }
    }
}

impl From<&Stats> for sss_stats_t {
    fn from(stats: &Stats) -> sss_stats_t {
        sss_stats_t {
            size: size_of::<sss_stats_t>() as u32,
            flags: 0,
            sessions: stats.sessions,
            bytes: stats.bytes,
            created: stats.created,
            hits: stats.hits,
            misses: stats.misses,
            puts: stats.puts,
            deleted: stats.deleted,
            renewed: stats.renewed,
            conflicts: stats.conflicts,
            revoked: stats.revoked,
            expired: stats.expired,
            rejected: stats.rejected,
            errors: stats.errors,
        }
    }
}

// The layout is part of the ABI (64-bit systems).
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<sss_options>() == 64);
    assert!(size_of::<sss_meta>() == 64);
    assert!(size_of::<sss_entry>() == 376);
    assert!(size_of::<sss_stats_t>() == 112);
    assert!(size_of::<sss_buf>() == 24);
    assert!(MAX_LABEL < 256);
    assert!(SSS_SID_LEN == crate::SID_LEN);
};
