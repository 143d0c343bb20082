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

/// Opens the store that a URL names, and gives a handle to it.
///
/// "memory:" is a new store in this process; "memory:NAME" is one store for all handles of the process that are opened
/// with this name, and is gone, wiped, when the last of them is closed. "lmdb:/dir" is one store for all processes of the
/// host that open this directory, and stays there; the directory is made if it is missing, and has to be this user's
/// alone (0700) and on a local file system. To open it may take a while: whoever opens it alone checks the whole file, and
/// what a power cut may have torn is set aside, with a line on stderr. One store for several hosts, in Redis or Valkey, is
/// "redis://user:password@host:port/db", "rediss://..." (TLS), "redis+unix:///path", "redis+cluster://host,host" or
/// "redis+sentinel://host,host/name": docs/redis.md has them all. Opening it asks no server for anything. Options are the
/// URL's query:
///
///   timeout=3h           absolute timeout, from creation (default 3h)
///   idle_timeout=10m     idle timeout, from the last use (default 10m)
///                        500ms, 10s, 5m, 3h, 7d, a bare number of seconds, or infinity
///   max_payload=1MiB     longest payload (default 1MiB); bytes, KiB, MiB, GiB
///   max_sessions=N       most sessions (default infinity); not of redis:
///   max_bytes=64MiB      memory: most bytes of payload in all (default infinity)
///                        lmdb: also the size of the file, which is reserved when it is made (default 256MiB)
///                        redis: has none: the server's maxmemory is the limit
///   max_per_principal=N  most sessions of one principal: one more ends the least recently used (default infinity)
///   seal=on              payloads are encrypted, each under a key that only its id gives (memory: default off, else on)
///   clock=manual         time stands still but for sss_advance_clock: for tests
///
/// of lmdb: and redis:
///
///   secret_file=/path    payloads are sealed with a secret of the server as well: 64 hex digits a line, the first one
///                        seals, all of them open; readable by this user alone, or by its group (0600, 0640)
///
/// of lmdb: only
///
///   durability=process   what was acknowledged survives the death of any and all processes (default); after a power
///                        cut the store begins anew
///   durability=power     what was acknowledged is on the disk, and survives a power cut too
///
/// and of redis: only
///
///   deadline=500ms       how long a call may take, with connecting and all it tries again (default 500ms)
///   pool=N               most connections of the process to a server (default 32)
///   wait=N               a write waits until so many replicas have it (default 0)
///   prefix=sss:          what the names of all keys begin with (default sss:)
///   cafile= cert= key=   whom to believe, and who this is, in TLS; tls=on for Clusters and Sentinels
///   sentinel_user= sentinel_password=   as whom Sentinels are asked
///
/// A path, and the value of an option, may be percent-encoded.
///
/// Opening a store that is open already follows the settings that are there; a timeout or limit that is given and
/// stricter holds for all handles, of all processes (redis: of this process), from then on.
///
/// The URL is url_len bytes of UTF-8. store is required. Close the handle with sss_close.
///
/// Errors: URL (the text names the part), EXISTS (it is open with
/// another clock or seal), INVALID, RANDOM, BUSY (65536 stores are open).
/// lmdb: also EXISTS (it is open with another durability, or was made with another seal, or with or without a secret_file),
/// UNSUPPORTED (a file system that cannot be shared; open in another container), IO (the directory or the secret_file
/// cannot be used: the text says why), INVALID (the secret_file may be read by others, or holds no secret), FULL (the disk
/// has no room for max_bytes), CORRUPT (its files are damaged, or of something else: move them away to begin a new store)
/// and BUSY (another process has been opening or closing it for a minute).
/// redis: also IO (the secret_file, or a file of TLS, cannot be used) and INVALID (the secret_file, as above).
/// Threads: any. Since 0.1.
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

/// Opens the process-wide store, which SSS_GLOBAL stands for. To be called before its first use; without it, the first
/// use opens "memory:". The same URL again is fine.
///
/// In a forked child SSS_GLOBAL is the parent's lmdb: or redis: store. A memory: store of the parent is FORKED there, until
/// the child calls this itself.
///
/// Errors: EXISTS (it is open with another URL), and those of sss_open.
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_open_global(url: *const c_char, url_len: usize) -> sss_status {
    guard(|| {
        // SAFETY: the caller's promise about pointers and lengths.
        open_global(unsafe { text(url, url_len)? })
    })
}

/// Closes a handle. Calls of other threads that are under way finish, later ones get HANDLE. A memory: store without a name
/// is gone with its handle, and its payloads are wiped. What the last process to close an lmdb: store has written goes to
/// the disk first.
///
/// Errors: HANDLE, FORKED, UNSUPPORTED (SSS_GLOBAL stays open as long as the process).
/// Threads: any, also while others use the handle. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sss_close(store: sss_store) -> sss_status {
    guard(|| handle::close(store))
}

/// Reports which per-session calls may block on another process, a disk or a network: *flags is 0, or SSS_BLOCKS_READS and
/// SSS_BLOCKS_WRITES combined. It does not change until the handle is closed. All other per-session calls take
/// microseconds.
///
/// For runtimes with a global lock or with scheduler threads of their own, which a blocking call must not hold: Python,
/// Ruby, OCaml, the BEAM, Node. sss_open, sss_close, sss_sweep, sss_list and sss_revoke may take long with every engine.
/// flags is required.
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
