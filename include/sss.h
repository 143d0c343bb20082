/*
 * sss.h - libsss, a server-side session store.
 *
 * The client holds an id of 128 characters. The session stays in the store, where it can be read,
 * updated, renewed, revoked and expired. It ends at min(max(created, authenticated) + timeout, last
 * use + idle timeout), and no call brings it back.
 *
 *     sss_store store;
 *     char sid[SSS_SID_SIZE], payload[4096];
 *     size_t len;
 *     if (sss_open(SSS_STR("memory:?idle_timeout=15m"), &store) != SSS_OK) return 1;
 *     if (sss_create(store, SSS_STR("cart=3"), NULL, sid, NULL) != SSS_OK) return 1;
 *     if (sss_get(store, sid, SSS_SID_LEN, 0, payload, sizeof payload, &len, NULL) != SSS_OK) return 1;
 *
 * Conventions, for every function
 * - Status: 0 is success, negative a failure. Treat an unknown number as a failure: later versions
 *   may add some. sss_last_error has one line of text for the calling thread's last failure.
 * - Arguments: the handle, inputs (pointer, then size_t), options, outputs. Inputs are read during
 *   the call only and need no final NUL. (NULL, 0) is empty; (NULL, n) is INVALID.
 * - Outputs are written on success only, except *len with TOO_SMALL. An output may be NULL unless
 *   it is said to be required.
 * - A session id may be any bytes. Unknown, malformed, expired and deleted ids are all NOT_FOUND,
 *   take the same time and leave nothing behind. An id is a secret: log the reference (sss_ref)
 *   instead.
 * - Structs that begin with size are set up by their _INIT macro. Shorter structs of older callers
 *   work; a non-zero member that this library does not know is UNSUPPORTED.
 * - Threads: any function may be called from any thread at any time. Each call on one session is
 *   one atomic step, also between processes. The library starts no threads, installs no signal
 *   handlers and calls nothing back. pthread_cancel has no effect inside a call; asynchronous
 *   cancellation must be off.
 * - Fork: in a forked child a "memory:" handle returns FORKED; handles of "lmdb:" and "redis:"
 *   stores work there.
 * - Blocking: see sss_may_block.
 * - Engine errors: a call on an "lmdb:" store may also return IO, CORRUPT, BUSY, NOMEM, and a write
 *   FULL. A call on a "redis:" store may also return UNAVAILABLE, TIMEOUT, CORRUPT, and a write
 *   FULL. None of them means that the session has ended: answer with status 503 and keep the
 *   client's cookie. After UNAVAILABLE or TIMEOUT a write may have happened.
 * - Memory: only sss_buf is freed by the caller. Where memory for a caller's data is missing, the
 *   call returns NOMEM and changes nothing. A panic inside the library is caught and returned as
 *   PANIC.
 * - Undefined behaviour is possible only through pointers or lengths that are wrong.
 * - Times are Unix time in milliseconds: in a "memory:" store from a clock that no clock step moves
 *   and that counts while the machine sleeps, in an "lmdb:" store from the machine's clock, in a
 *   "redis:" store from the server's.
 *
 * Generated from src/capi by cbindgen: do not edit.
 */


#ifndef SSS_H
#define SSS_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; sss_version() is that of the library. */
#define SSS_VERSION_MAJOR 0
#define SSS_VERSION_MINOR 1
#define SSS_VERSION_PATCH 0
#define SSS_VERSION ((SSS_VERSION_MAJOR << 16) | (SSS_VERSION_MINOR << 8) | SSS_VERSION_PATCH)
#define SSS_VERSION_STRING "0.1.0"


/* The process-wide store: opened by sss_open_global, or as "memory:" by its first use. */
#define SSS_GLOBAL (~(sss_store)0)

/* A timeout that never ends; the expires_ms of a session that never expires. */
#define SSS_FOREVER INT64_MAX

/* A timeout in sss_put, sss_put_if and sss_renew: the store's own from now on. */
#define SSS_INHERIT INT64_MIN

/* A string literal as the two arguments pointer and length: sss_open(SSS_STR("memory:"), &store). */
#define SSS_STR(literal) "" literal, (sizeof(literal) - 1)

/* How to begin: sss_options options = SSS_OPTIONS_INIT; */
#define SSS_OPTIONS_INIT { sizeof(sss_options), 0, 0, 0, NULL, 0, 0, NULL, 0 }
#define SSS_META_INIT { sizeof(sss_meta), 0, 0, 0, 0, 0, 0, 0, 0 }
#define SSS_STATS_INIT { sizeof(sss_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Success. */
#define SSS_OK 0

/** An argument is wrong: the text names it. */
#define SSS_E_INVALID (-1)

/** The handle is zero, closed, or was never one of this library's. */
#define SSS_E_HANDLE (-2)

/** There is no such live session. Unknown, malformed, expired and deleted ids are not told apart. */
#define SSS_E_NOT_FOUND (-3)

/** The session has another version than the one given to sss_put_if: read again, then decide. */
#define SSS_E_CONFLICT (-4)

/** The buffer is too small: *len is what is needed. */
#define SSS_E_TOO_SMALL (-5)

/** The payload is longer than max_payload. */
#define SSS_E_TOO_LARGE (-6)

/** max_sessions or max_bytes (redis: the server's memory) is reached, and no session has expired. */
#define SSS_E_FULL (-7)

/** It is already open with another URL, clock, seal or durability. */
#define SSS_E_EXISTS (-8)

/** The URL is wrong: the text names the part. */
#define SSS_E_URL (-9)

/** This build, engine or version of the library cannot do that. */
#define SSS_E_UNSUPPORTED (-10)

/** The operating system refused an operation, or a file cannot be used: the text says why. */
#define SSS_E_IO (-11)

/** The engine cannot be reached now. The session may be live. */
#define SSS_E_UNAVAILABLE (-12)

/** The engine did not answer in time. The session may be live. */
#define SSS_E_TIMEOUT (-13)

/** A resource is in use: try again. */
#define SSS_E_BUSY (-14)

/** Stored data was damaged or edited, and is not returned. */
#define SSS_E_CORRUPT (-15)

/** The operating system gave no random bytes, so there is no id. */
#define SSS_E_RANDOM (-16)

/** Out of memory. */
#define SSS_E_NOMEM (-17)

/** The memory: store was opened before the fork and cannot be used here: open one in the child. */
#define SSS_E_FORKED (-18)

/** A bug in the library was caught. The process goes on. */
#define SSS_E_PANIC (-19)

/** The length of a session id. */
#define SSS_SID_LEN 128

/** The size of a buffer for a session id and its final NUL. */
#define SSS_SID_SIZE 129

/** The length of a session's public reference. */
#define SSS_REF_LEN 32

/** sss_get, sss_get_buf, sss_touch_ref: do not slide the idle deadline. */
#define SSS_PEEK 1u

/** sss_options.flags in sss_put, sss_put_if and sss_renew: take the principal away. */
#define SSS_CLEAR_PRINCIPAL 1u

/**
 * sss_options.flags in sss_renew: the user has proved their identity again, so both timeouts
 * restart.
 */
#define SSS_REAUTHENTICATED 2u

/** sss_may_block: sss_get, sss_get_buf, sss_touch, sss_touch_ref, sss_ref and sss_stats may block. */
#define SSS_BLOCKS_READS 1u

/**
 * sss_may_block: sss_create, sss_put, sss_put_if, sss_renew, sss_delete and sss_delete_ref may
 * block.
 */
#define SSS_BLOCKS_WRITES 2u

/** 0 for success, negative for a failure (one of `SSS_E_*`; later versions may add some). */
typedef int32_t sss_status;

/**
 * A handle to an open store. Zero is not a handle, and the number of a closed handle is not used
 * again.
 */
typedef uint64_t sss_store;

/** What a write sets besides the payload. Start with SSS_OPTIONS_INIT, which changes nothing. */
typedef struct {
    /** The size of the struct, set by SSS_OPTIONS_INIT. */
    uint32_t size;
    /** 0, SSS_CLEAR_PRINCIPAL or SSS_REAUTHENTICATED; not both. */
    uint32_t flags;
    /**
     * Absolute timeout in milliseconds, from the creation or from the last login or
     * reauthentication (see sss_renew). Above 0: the session's own; SSS_FOREVER: none; 0: the
     * store's (in put and renew: unchanged); SSS_INHERIT: the store's from now on; any other value
     * below 0: ends at once.
     */
    int64_t timeout_ms;
    /** Idle timeout in milliseconds from the last use, with the same special values. */
    int64_t idle_timeout_ms;
    /**
     * The user that the session belongs to: any bytes, at least one. NULL: none (in put and renew:
     * unchanged).
     */
    const void *principal;
    /** The length of principal in bytes. */
    size_t principal_len;
    /**
     * sss_renew only: for how many milliseconds the old id may still read, but not past the
     * session's absolute deadline. 0: it ends at once. For requests under way when ids are
     * rotated; INVALID with a login or a reauthentication, because an attacker may know the old
     * id. At most the last 64 ids of a session read it.
     */
    int64_t grace_ms;
    /**
     * With a principal only: up to 255 bytes that sss_list shows, such as the device and how the
     * user logged in. NULL: a session whose principal stays keeps its label, any other has none.
     * Not NULL with length 0: it has none. On a store that seals, it is encrypted under a key that
     * the principal's bytes give.
     */
    const void *label;
    /** The length of label in bytes. */
    size_t label_len;
} sss_options;

/** What a store tells of a session besides its payload. Times are Unix time in milliseconds. */
typedef struct {
    /** The size of the struct, set by SSS_META_INIT. */
    uint32_t size;
    /** 0 in this version. */
    uint32_t flags;
    /** 1 when the session is created, and one more with every new payload. */
    uint64_t version;
    /** When the session was created. Renewing its id does not change it. */
    int64_t created_ms;
    /** When the session was last used. */
    int64_t last_seen_ms;
    /** When the session ends unless it is used before; SSS_FOREVER: never. */
    int64_t expires_ms;
    /**
     * When the user last proved their identity: at the creation with a principal, at a login or at
     * a reauthentication (see sss_renew). 0: never.
     */
    int64_t authenticated_ms;
    /**
     * The absolute timeout in force, the session's own or its store's; SSS_FOREVER: none. Counts
     * from the later of created_ms and authenticated_ms.
     */
    int64_t timeout_ms;
    /** The idle timeout in force, the session's own or its store's; SSS_FOREVER: none. */
    int64_t idle_timeout_ms;
} sss_meta;

/** A payload in memory of the library, for sss_buf_free. */
typedef struct {
    /** The payload. Never NULL. */
    const uint8_t *data;
    /** Its length in bytes. */
    size_t len;
    /** For the library only. */
    void *owner;
} sss_buf;

/** One session in the list of sss_list. */
typedef struct {
    /**
     * The session's public reference, for sss_delete_ref and sss_touch_ref. It gives no access to
     * the session's payload.
     */
    uint8_t ref[SSS_REF_LEN];
    /** As in sss_meta. */
    uint64_t version;
    /** The length of the payload in bytes. */
    uint64_t payload_len;
    /** As in sss_meta. */
    int64_t created_ms;
    /** As in sss_meta. */
    int64_t last_seen_ms;
    /** As in sss_meta. */
    int64_t expires_ms;
    /** As in sss_meta. */
    int64_t authenticated_ms;
    /** The length of the label; 0: none. */
    uint32_t label_len;
    /** What sss_options.label has set: any bytes, and zeros behind them. */
    uint8_t label[256];
    /** 0 in this version. */
    uint64_t reserved[4];
} sss_entry;

/** A store's counters. They only grow, except sessions and bytes. */
typedef struct {
    /** The size of the struct, set by SSS_STATS_INIT. */
    uint32_t size;
    /** 0 in this version. */
    uint32_t flags;
    /** Sessions held now. Expired ones count until they are removed. */
    uint64_t sessions;
    /** The bytes of their payloads. */
    uint64_t bytes;
    /** Successful creates. */
    uint64_t created;
    /** Gets that found a session. */
    uint64_t hits;
    /** Gets that found none. */
    uint64_t misses;
    /** Successful puts, conditional ones too. */
    uint64_t puts;
    /** Successful deletes, by id or by reference. */
    uint64_t deleted;
    /** Successful renewals. */
    uint64_t renewed;
    /** Conditional puts refused because of the version. */
    uint64_t conflicts;
    /** Sessions ended by sss_revoke, sss_revoke_all or max_per_principal. */
    uint64_t revoked;
    /** Sessions removed after they had expired. */
    uint64_t expired;
    /** Writes refused by a limit. */
    uint64_t rejected;
    /** Failures of the engine, of memory or of the random source. */
    uint64_t errors;
} sss_stats_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens the store that a URL names, and returns a handle to it. Close the handle with sss_close.
 *
 *   memory:              a new store in this process
 *   memory:NAME          one store for all handles of this process that are opened with this name
 *   lmdb:/dir            one store for all processes of the host that open this directory; survives restarts
 *   redis://host:port/db one store for several hosts, in Redis or Valkey; also rediss:, redis+unix:, redis+cluster:
 *                        and redis+sentinel:, see docs/redis.md
 *
 * Options are the URL's query. Values may be percent-encoded.
 *
 *   timeout=3h           absolute timeout, counted from creation or login: 500ms, 10s, 5m, 3h, 7d, seconds, or infinity
 *   idle_timeout=10m     idle timeout, counted from the last use
 *   max_payload=1MiB     limit of one payload: bytes, KiB, MiB, GiB
 *   max_sessions=N       limit of sessions; not of redis:
 *   max_bytes=64MiB      limit of all payloads; lmdb: the size of the file, reserved on disk (default 256MiB)
 *   max_per_principal=N  limit of sessions of one principal: one more ends the least recently used
 *   seal=on              encrypt each payload under a key that only its id gives (default on, memory: off)
 *   secret_file=/path    lmdb:, redis: encrypt with a server secret too, see docs/deployment.md
 *   durability=power     lmdb: acknowledged writes survive a power cut (default process: crashes only)
 *   deadline=500ms       redis: limit of a call's duration; for more options see docs/redis.md
 *   clock=manual         time moves by sss_advance_clock only: for tests
 *
 * A store that is open already keeps its settings; a stricter timeout or limit holds for all its
 * handles from then on. The URL is url_len bytes of UTF-8. store is required.
 *
 * Errors: URL (the text names the part), EXISTS (open with another clock, seal or durability, or
 * created with another seal or without the secret_file), INVALID, RANDOM, BUSY (65536 stores are
 * open; lmdb: another process has been opening it for a minute), IO (the directory or a file
 * cannot be used), FULL (no disk space for max_bytes), CORRUPT (the files are damaged or not of
 * libsss), UNSUPPORTED (the build lacks the engine; the file system cannot be shared). Threads:
 * any. Since 0.1.
 */
sss_status sss_open(const char *url,
                    size_t url_len,
                    sss_store *store);

/**
 * Opens the process-wide store, SSS_GLOBAL. Call it before the first use of SSS_GLOBAL, which
 * otherwise opens "memory:". The same URL again is not an error.
 *
 * In a forked child SSS_GLOBAL is the parent's store if that is lmdb: or redis:. If it is memory:,
 * calls on SSS_GLOBAL return FORKED until the child calls this function itself.
 *
 * Errors: EXISTS (open with another URL), and those of sss_open. Threads: any. Since 0.1.
 */
sss_status sss_open_global(const char *url, size_t url_len);

/**
 * Closes a handle. Waits for the calls of other threads on the handle; later calls return HANDLE.
 * The last handle of a memory: store ends the store and wipes its payloads. The last process that
 * closes an lmdb: store writes it to disk first.
 *
 * Errors: HANDLE, FORKED, UNSUPPORTED (SSS_GLOBAL stays open as long as the process). Threads:
 * any. Since 0.1.
 */
sss_status sss_close(sss_store store);

/**
 * Reports which per-session calls may block on another process, a disk or a network: *flags is 0,
 * or SSS_BLOCKS_READS and SSS_BLOCKS_WRITES combined, and does not change while the handle is
 * open. Other per-session calls take microseconds.
 *
 *   memory:                     0
 *   lmdb:                       SSS_BLOCKS_WRITES: one write at a time on the host. A process that is stopped in the middle
 *                               of a write (SIGSTOP, a debugger) blocks the others; one that dies does not.
 *   lmdb: durability=power      both: writes wait for the disk, and reads write that the session was used
 *   redis:                      both, for no longer than the URL's deadline
 *
 * For runtimes with a global lock or with scheduler threads of their own, which a blocking call
 * must not hold: Python, Ruby, OCaml, the BEAM, Node. sss_open, sss_close, sss_sweep, sss_list,
 * sss_revoke and sss_revoke_all may take long with every engine. flags is required.
 *
 * Errors: INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_may_block(sss_store store,
                         uint32_t *flags);

/**
 * Creates a session and writes its id: 128 characters of base64url and a NUL. Give the id to the
 * client only.
 *
 * The payload is len bytes in the caller's own format; (NULL, 0) is empty. opts and meta may be
 * NULL. sid is required. With a principal in opts this is a login: authenticated_ms is created_ms.
 *
 * Errors: TOO_LARGE, FULL, INVALID, UNSUPPORTED, HANDLE, FORKED, RANDOM, NOMEM. Threads: any.
 * Since 0.1.
 */
sss_status sss_create(sss_store store,
                      const void *data,
                      size_t len,
                      const sss_options *opts,
                      char sid[SSS_SID_SIZE],
                      sss_meta *meta);

/**
 * Copies the payload of a session into buf, and slides its idle deadline; with SSS_PEEK in flags
 * it does not slide.
 *
 * *len is the length of the payload. If cap is less, the status is TOO_SMALL: *len is what is
 * needed, nothing is copied and the session does not slide. len and meta may be NULL.
 *
 * During the grace time of a renewal the old id reads the session too, without sliding it.
 *
 * Errors: NOT_FOUND, TOO_SMALL, INVALID, UNSUPPORTED, HANDLE, FORKED; if sealed also CORRUPT,
 * NOMEM. Threads: any. Since 0.1.
 */
sss_status sss_get(sss_store store,
                   const char *sid,
                   size_t sid_len,
                   uint32_t flags,
                   void *buf,
                   size_t cap,
                   size_t *len,
                   sss_meta *meta);

/**
 * Like sss_get, with the payload in memory of the library. It is independent of the store; free it
 * with sss_buf_free exactly once. buf is required; meta may be NULL.
 *
 * Errors: those of sss_get except TOO_SMALL, and NOMEM. Threads: any. Since 0.1.
 */
sss_status sss_get_buf(sss_store store,
                       const char *sid,
                       size_t sid_len,
                       uint32_t flags,
                       sss_buf *buf,
                       sss_meta *meta);

/**
 * Wipes and frees what sss_get_buf returned, and empties the struct, so that a second call does
 * nothing. NULL does nothing. Do not free a copy of the struct. Threads: any, but one at a time
 * for one struct. Since 0.1.
 */
void sss_buf_free(sss_buf *buf);

/**
 * Replaces the payload of a live session, slides its idle deadline, and adds one to its version.
 *
 * Never creates and never resurrects a session: after a delete, an expiry or a revoke the status
 * is NOT_FOUND, even if that happened at the same time. opts and meta may be NULL.
 *
 * Errors: NOT_FOUND, TOO_LARGE, FULL (max_bytes; the old payload stays), INVALID, UNSUPPORTED,
 * HANDLE, FORKED, NOMEM; if sealed also CORRUPT (the record that it would replace). Threads: any.
 * Since 0.1.
 */
sss_status sss_put(sss_store store,
                   const char *sid,
                   size_t sid_len,
                   const void *data,
                   size_t len,
                   const sss_options *opts,
                   sss_meta *meta);

/**
 * Like sss_put, but only if the session still has the version that was read (sss_meta.version), in
 * one atomic step. Otherwise the status is CONFLICT, and nothing changes.
 *
 * Errors: CONFLICT, and those of sss_put. Threads: any. Since 0.1.
 */
sss_status sss_put_if(sss_store store,
                      const char *sid,
                      size_t sid_len,
                      uint64_t version,
                      const void *data,
                      size_t len,
                      const sss_options *opts,
                      sss_meta *meta);

/**
 * Slides the idle deadline of a session like sss_get, without reading the payload. meta may be
 * NULL.
 *
 * Errors: NOT_FOUND, INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_touch(sss_store store, const char *sid, size_t sid_len, sss_meta *meta);

/**
 * Gives a session a new id, in one atomic step. Call it at login, against session fixation
 * (CWE-384).
 *
 * The creation time stays. data NULL keeps the payload and its version; otherwise the payload is
 * replaced. The principal and its label stay unless opts change them. The old id ends when this
 * returns; with opts->grace_ms it reads the session for that long, never writes it, and ends with
 * it. If the call fails, the session keeps its old id. opts and meta may be NULL; new_sid is
 * required.
 *
 *   rotation          the principal stays: the absolute deadline stays too
 *   login             the session gets another principal than it had, or its first one: both timeouts restart, and
 *                     authenticated_ms is now
 *   reauthentication  SSS_REAUTHENTICATED in opts->flags, with any principal: the same as a login
 *
 * opts->grace_ms with a login or a reauthentication is INVALID, and the session stays as it was.
 *
 * Errors: those of sss_put, and RANDOM. Threads: any. Since 0.1.
 */
sss_status sss_renew(sss_store store,
                     const char *sid,
                     size_t sid_len,
                     const void *data,
                     size_t len,
                     const sss_options *opts,
                     char new_sid[SSS_SID_SIZE],
                     sss_meta *meta);

/**
 * Ends a session and wipes its payload. A second call returns NOT_FOUND.
 *
 * Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_delete(sss_store store, const char *sid, size_t sid_len);

/**
 * Removes up to max expired sessions; *removed is how many, and may be NULL. Fewer than max: none
 * is left.
 *
 * Expired sessions are NOT_FOUND without it; it reclaims their space. Call it from a timer, for
 * example every few seconds with a max of 1000, and again at once while *removed equals max. The
 * cost grows with what is expired, not with what is live, and other threads run in between.
 * Creating sessions removes a few expired ones as well.
 *
 * Only sweeps return free memory of a memory: store to the system: up to 16 MiB for a max of 1000.
 *
 * Errors: HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_sweep(sss_store store, uint64_t max, uint64_t *removed);

/**
 * Lists the live sessions of a principal, the oldest first: the first cap of them are written to
 * entries, and *count is how many there are, which may be more than cap. (NULL, 0) as entries and
 * cap only counts.
 *
 * For a page that shows a user their devices. An entry names its session by a reference, never by
 * its id. Sessions do not slide.
 *
 * Errors: INVALID (an empty principal), HANDLE, FORKED, NOMEM; if sealed also CORRUPT (a label).
 * Threads: any. Since 0.1.
 */
sss_status sss_list(sss_store store,
                    const void *principal,
                    size_t principal_len,
                    sss_entry *entries,
                    size_t cap,
                    size_t *count);

/**
 * Ends all sessions of a principal; *count is how many were live, and may be NULL. Every session
 * that sss_create or sss_renew had returned before this call is ended when it returns.
 *
 * except_sid excludes the session that this id reads ("log out my other devices"). If it reads
 * none of the principal's, or is (NULL, 0), no session is excluded.
 *
 * Errors: INVALID (an empty principal), HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_revoke(sss_store store,
                      const void *principal,
                      size_t principal_len,
                      const char *except_sid,
                      size_t except_len,
                      uint64_t *count);

/**
 * Writes the public reference of a live session: the name that sss_list uses, fit for a log. It
 * gives no access to the session, and stays the same until the session is renewed. The session
 * does not slide. ref is required.
 *
 * Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_ref(sss_store store, const char *sid, size_t sid_len, uint8_t ref[SSS_REF_LEN]);

/**
 * Ends the session with this reference; with a principal only if it is of that principal,
 * otherwise the status is NOT_FOUND. (NULL, 0) as principal: whosever it is.
 *
 * On behalf of a user give theirs, so that a page of devices cannot end another user's session
 * (CWE-639). The reference of a session that was renewed is NOT_FOUND.
 *
 * Errors: NOT_FOUND, INVALID (an empty principal), HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_delete_ref(sss_store store,
                          const uint8_t ref[SSS_REF_LEN],
                          const void *principal,
                          size_t principal_len);

/**
 * Slides the idle deadline of the session with this reference like sss_touch; with SSS_PEEK in
 * flags it only reports whether the session is still alive. meta may be NULL.
 *
 * For long-lived connections, such as web sockets, which do not hold the id. The reference of a
 * session that was renewed is NOT_FOUND.
 *
 * Errors: NOT_FOUND, INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_touch_ref(sss_store store, const uint8_t ref[SSS_REF_LEN], uint32_t flags, sss_meta *meta);

/**
 * Ends all sessions of the store; *count is how many were live, and may be NULL. For incidents,
 * such as a key that has leaked. Every session that sss_create or sss_renew had returned before
 * this call is ended when it returns.
 *
 * Works in steps that keep no other call waiting for long. Sessions that are created meanwhile may
 * end too, or not. *count may lack sessions that other calls have removed meanwhile, except in a
 * memory: store.
 *
 * Errors: HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_revoke_all(sss_store store, uint64_t *count);

/**
 * Copies the counters of a store. Under concurrent use the numbers need not be of one instant.
 * stats is required.
 *
 * Errors: INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_stats(sss_store store, sss_stats_t *stats);

/**
 * Moves the clock of a store that was opened with clock=manual forward by ms milliseconds: for
 * tests.
 *
 * Errors: UNSUPPORTED (another clock), INVALID (ms is negative), HANDLE, FORKED. Threads: any.
 * Since 0.1.
 */
sss_status sss_advance_clock(sss_store store, int64_t ms);

/**
 * Copies the text of the calling thread's last failure: one line in English that names what was
 * wrong, never an id, a payload or a password. *len is its length; a NUL follows it in buf if cap
 * is larger. If cap is less, the status is TOO_SMALL and *len is what is needed. The text is empty
 * before the first failure. Calls that succeed, and this one, do not change it. len may be NULL.
 *
 * Call it on the thread that failed, before any other function of the library: in Go under
 * LockOSThread.
 *
 * Errors: TOO_SMALL, INVALID. Threads: any. Since 0.1.
 */
sss_status sss_last_error(char *buf, size_t cap, size_t *len);

/**
 * One short line in English for a status, also for a number that this version does not know. Never
 * NULL, static, not to be freed. Threads: any. Since 0.1.
 */
const char *sss_strerror(sss_status status);

/**
 * The version of the library that is loaded: major<<16 | minor<<8 | patch. Compare it with
 * SSS_VERSION of the header: while major is 0, both minor numbers must be equal. Threads: any.
 * Since 0.1.
 */
uint32_t sss_version(void);

/** The same as text, such as "0.1.0". Static, not to be freed. Threads: any. Since 0.1. */
const char *sss_version_string(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SSS_H */
