//! Opening and closing stores.

use std::ffi::c_char;

use super::{
    args::{bytes, required, write},
    guard::guard,
    handle::{self, resolve},
    types::{SSS_BLOCKS_READS, SSS_BLOCKS_WRITES, sss_status, sss_store},
};
use crate::{
    error::{Error, ErrorKind, Result},
    global::open_global,
    store::Store,
};

/// Opens the store that a URL names, and returns a handle to it. Close the handle with sss_close.
///
///   memory:              a new store in this process
///   memory:NAME          one store for all handles of this process that are opened with this name
///   lmdb:/dir            one store for all processes of the host that open this directory; survives restarts
///   redis://host:port/db one store for several hosts, in Redis or Valkey; also rediss:, redis+unix:, redis+cluster:
///                        and redis+sentinel:, see docs/redis.md
///
/// Options are the URL's query. Values may be percent-encoded.
///
///   timeout=3h           absolute timeout, counted from creation or login: 500ms, 10s, 5m, 3h, 7d, seconds, or infinity
///   idle_timeout=10m     idle timeout, counted from the last use
///   max_payload=1MiB     limit of one payload: bytes, KiB, MiB, GiB
///   max_sessions=N       limit of sessions; not of redis:
///   max_bytes=64MiB      limit of all payloads; lmdb: the size of the file, reserved on disk (default 256MiB)
///   max_per_principal=N  limit of sessions of one principal: one more ends the least recently used
///   seal=on              encrypt each payload under a key that only its id gives (default on, memory: off)
///   secret_file=/path    lmdb:, redis: encrypt with a server secret too, see docs/deployment.md
///   durability=power     lmdb: acknowledged writes survive a power cut (default process: crashes only)
///   deadline=500ms       redis: limit of a call's duration; for more options see docs/redis.md
///   clock=manual         time moves by sss_advance_clock only: for tests
///
/// A store that is open already keeps its settings; a stricter timeout or limit holds for all its
/// handles from then on. The URL is url_len bytes of UTF-8. store is required.
///
/// Errors: URL (the text names the part), EXISTS (open with another clock, seal or durability, or
/// created with another seal or without the secret_file), INVALID, RANDOM, BUSY (65536 stores are
/// open; lmdb: another process has been opening it for a minute), IO (the directory or a file
/// cannot be used), FULL (no disk space for max_bytes), CORRUPT (the files are damaged or not of
/// libsss), UNSUPPORTED (the build lacks the engine; the file system cannot be shared). Threads:
/// any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_open(url: *const c_char, url_len: usize, store: *mut sss_store) -> sss_status {
    guard(|| {
        let store = required("store", store)?;
        // SAFETY: the caller's promise about pointers and lengths.
        let opened = Store::open(unsafe { text(url, url_len)? })?;
        // SAFETY: not NULL; the caller's promise about outputs.
        unsafe { write(store, handle::open(opened)?) };
        Ok(())
    })
}

/// Opens the process-wide store, SSS_GLOBAL. Call it before the first use of SSS_GLOBAL, which
/// otherwise opens "memory:". The same URL again is not an error.
///
/// In a forked child SSS_GLOBAL is the parent's store if that is lmdb: or redis:. If it is memory:,
/// calls on SSS_GLOBAL return FORKED until the child calls this function itself.
///
/// Errors: EXISTS (open with another URL), and those of sss_open. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_open_global(url: *const c_char, url_len: usize) -> sss_status {
    guard(|| {
        // SAFETY: the caller's promise about pointers and lengths.
        open_global(unsafe { text(url, url_len)? })
    })
}

/// Closes a handle. Waits for the calls of other threads on the handle; later calls return HANDLE.
/// The last handle of a memory: store ends the store and wipes its payloads. The last process that
/// closes an lmdb: store writes it to disk first.
///
/// Errors: HANDLE, FORKED, UNSUPPORTED (SSS_GLOBAL stays open as long as the process). Threads:
/// any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_close(store: sss_store) -> sss_status {
    guard(|| handle::close(store))
}

/// Reports which per-session calls may block on another process, a disk or a network: *flags is 0,
/// or SSS_BLOCKS_READS and SSS_BLOCKS_WRITES combined, and does not change while the handle is
/// open. Other per-session calls take microseconds.
///
///   memory:                     0
///   lmdb:                       SSS_BLOCKS_WRITES: one write at a time on the host. A process that is stopped in the middle
///                               of a write (SIGSTOP, a debugger) blocks the others; one that dies does not.
///   lmdb: durability=power      both: writes wait for the disk, and reads write that the session was used
///   redis:                      both, for no longer than the URL's deadline
///
/// For runtimes with a global lock or with scheduler threads of their own, which a blocking call
/// must not hold: Python, Ruby, OCaml, the BEAM, Node. sss_open, sss_close, sss_sweep, sss_list,
/// sss_revoke and sss_revoke_all may take long with every engine. flags is required.
///
/// Errors: INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_may_block(store: sss_store, flags: *mut u32) -> sss_status {
    guard(|| {
        let store = resolve(store)?;
        let out = required("flags", flags)?;
        let blocking = store.may_block();
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        // SAFETY: not NULL; the caller's promise about outputs.
        unsafe { write(out, flag(blocking.reads, SSS_BLOCKS_READS) | flag(blocking.writes, SSS_BLOCKS_WRITES)) };
        Ok(())
    })
}

/// # Safety
/// As for `bytes`.
unsafe fn text<'a>(url: *const c_char, len: usize) -> Result<&'a str> {
    // SAFETY: passed on.
    let url = unsafe { bytes("url", url.cast(), len)? };
    if url.contains(&0) {
        return Err(Error::fixed(ErrorKind::Url, "the URL holds a NUL: its length is too long"));
    }
    std::str::from_utf8(url).map_err(|_| Error::fixed(ErrorKind::Url, "the URL is not UTF-8"))
}
