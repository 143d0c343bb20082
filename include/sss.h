/*
 * sss.h - libsss, a server-side session store.
 *
 * The client holds an id of 128 characters; the session stays here, where it can be read, updated, renewed, revoked and
 * expired. A session is dead at min(created + timeout, last use + idle timeout), and what is dead never comes back.
 *
 *     sss_store store;
 *     char sid[SSS_SID_SIZE], page[4096];
 *     size_t len;
 *     sss_open(SSS_STR("memory:?idle_timeout=15m"), &store);
 *     sss_create(store, SSS_STR("cart=3"), NULL, sid, NULL);
 *     if (sss_get(store, sid, SSS_SID_LEN, 0, page, sizeof page, &len, NULL) == SSS_OK) ...
 *
 * Caveats
 * - Fork: a "memory:" store cannot be shared with a forked child. There every function that is given its handle fails
 *   with SSS_E_FORKED, at once, whatever the parent's threads were doing; the parent is not affected. Open a store in
 *   the child, or use "lmdb:" or "redis:": a handle of such a store works in the child, which opens the store anew by its
 *   first use and leaves what it inherited alone, and closes it for itself only. The same holds for SSS_GLOBAL.
 * - An id is a secret: whoever holds it is the user. Do not log it; log the reference (sss_ref).
 * - A "memory:" store ends with its process. An "lmdb:" store stays, and several processes of a host can have it open; a
 *   "redis:" store is in its servers, for all hosts.
 *   Two copies of the library in one process (say, one of them linked statically) do not know of each other: have them
 *   not open the same directory.
 *
 * Conventions, for every function
 * - Status: 0 is success, negative a failure. The set is open: treat numbers that you do not know as failures. A number
 *   is never used again for something else. sss_last_error has a line of text for the last failure of the thread.
 * - Arguments: the handle, inputs (pointer, then size_t), options, outputs.
 * - Inputs are read during the call only. (NULL, 0) is empty; (NULL, n) is INVALID, and so is a length that no object
 *   can have. Strings need no final NUL.
 * - Outputs are written on success only; the exception is *len with TOO_SMALL. An output that is not wanted may be
 *   NULL, except where it is said to be required.
 * - A session id can be any bytes: unknown, malformed, expired and deleted ids are all NOT_FOUND, in the same time, and
 *   leave nothing behind.
 * - Structs that begin with size are set up by their _INIT macro. Shorter ones of older callers work; a non-zero member
 *   that this library does not know is UNSUPPORTED.
 * - Threads: any function, from any thread, at any time, also sss_close while others use the handle. Each call on one
 *   session is one atomic step, also between processes. The library starts no threads, installs no signal handlers and
 *   calls nothing back.
 * - Waiting: calls on a "memory:" store wait for nobody; its locks are held for microseconds. In an "lmdb:" store reads
 *   wait for nobody either. Writes go one at a time on the host, and so wait for those of other processes:
 *   milliseconds, unless such a process is stopped in the middle of one (SIGSTOP, a debugger); one that dies is not
 *   waited for. With durability=power they wait for the disk as well, and some reads are writes, because they note that
 *   the session was used. Every call on a "redis:" store waits for its server, and ends by the URL's deadline=.
 *   sss_may_block tells a program which it is. sss_close waits for the calls that are under way.
 * - Engines that can fail: every function that uses an "lmdb:" store has these errors besides those that it names: IO,
 *   CORRUPT (a file was damaged, a record edited), BUSY (a process stopped in the middle of a read, or too many reads at
 *   once), NOMEM, and if it writes FULL. On a "redis:" store they are UNAVAILABLE and TIMEOUT (the server does not answer,
 *   or must not: the text says why), CORRUPT, and if it writes FULL (its maxmemory); a write that was UNAVAILABLE or TIMEOUT
 *   may have happened. They say nothing about the session: none of them is NOT_FOUND, so answer 503 and leave the client's
 *   cookie alone.
 * - Ownership: nothing crosses the boundary to be freed, but for sss_buf.
 * - Bugs: a panic inside the library is caught and is SSS_E_PANIC; the process lives on.
 * - Out of memory: what depends on a caller's length is SSS_E_NOMEM, and nothing is changed. Where not even a few dozen
 *   bytes can be had (an address space limit; Linux itself does not refuse those) the process may be ended.
 * - Memory: pointers and lengths have to be true. That is the only way to undefined behaviour.
 * - Times are Unix time in milliseconds: in a "memory:" store from a clock that no clock step moves, in an "lmdb:" store,
 *   which outlives processes, the machine's, in a "redis:" store its server's.
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
#define SSS_OPTIONS_INIT { sizeof(sss_options), 0, 0, 0, NULL, 0, 0 }
#define SSS_META_INIT { sizeof(sss_meta), 0, 0, 0, 0, 0 }
#define SSS_STATS_INIT { sizeof(sss_stats_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Success. */
#define SSS_OK 0

/** An argument is wrong: the text names it. */
#define SSS_E_INVALID (-1)

/** The handle is zero, closed, or was never one of this library's. */
#define SSS_E_HANDLE (-2)

/** There is no such living session: unknown, malformed, expired and deleted ids are all the same. */
#define SSS_E_NOT_FOUND (-3)

/** The session has another version than the one given to sss_put_if: read again, then decide. */
#define SSS_E_CONFLICT (-4)

/** The buffer is too small: *len is what is needed. */
#define SSS_E_TOO_SMALL (-5)

/** The payload is longer than max_payload. */
#define SSS_E_TOO_LARGE (-6)

/** max_sessions or max_bytes (redis: the server's memory) is reached and nothing has expired that could make room. */
#define SSS_E_FULL (-7)

/** It is already open with another URL, clock, seal or durability. */
#define SSS_E_EXISTS (-8)

/** The URL is wrong: the text names the part. */
#define SSS_E_URL (-9)

/** This build, engine or version of the library cannot do that. */
#define SSS_E_UNSUPPORTED (-10)

/** The operating system failed to read or write. */
#define SSS_E_IO (-11)

/** The engine cannot be reached now. The session may well live. */
#define SSS_E_UNAVAILABLE (-12)

/** The engine did not answer in time. The session may well live. */
#define SSS_E_TIMEOUT (-13)

/** A resource is taken for the moment: try again. */
#define SSS_E_BUSY (-14)

/** StoredRecord data was damaged or edited, and is not given out. */
#define SSS_E_CORRUPT (-15)

/** The operating system gave no random bytes, so there is no id. */
#define SSS_E_RANDOM (-16)

/** Memory ran out. */
#define SSS_E_NOMEM (-17)

/** The memory: store was opened before this process was forked and cannot be used here: open one in the child. */
#define SSS_E_FORKED (-18)

/** A bug in the library was caught. The process lives on. */
#define SSS_E_PANIC (-19)

/** The length of a session id. */
#define SSS_SID_LEN 128

/** The size of a buffer for a session id and its final NUL. */
#define SSS_SID_SIZE 129

/** The length of a session's public reference. */
#define SSS_REF_LEN 32

/** sss_get, sss_get_buf: read without sliding the idle deadline. */
#define SSS_PEEK 1u

/** sss_options.flags in sss_put, sss_put_if and sss_renew: the session belongs to nobody from now on. */
#define SSS_CLEAR_PRINCIPAL 1u

/** sss_may_block: sss_get, sss_get_buf, sss_touch, sss_ref and sss_stats may block. */
#define SSS_BLOCKS_READS 1u

/** sss_may_block: sss_create, sss_put, sss_put_if, sss_renew, sss_delete and sss_delete_ref may block. */
#define SSS_BLOCKS_WRITES 2u

/** 0 for success, negative for a failure (one of `SSS_E_*`; later versions may add some). */
typedef int32_t sss_status;

/** A handle to an open store. Zero is never one, and a handle that was closed is never given out again. */
typedef uint64_t sss_store;

/** What may be said about a session when it is written. Begin with SSS_OPTIONS_INIT, which changes nothing. */
typedef struct {
    /** The size of the struct, set by SSS_OPTIONS_INIT. */
    uint32_t size;
    /** 0 or SSS_CLEAR_PRINCIPAL. */
    uint32_t flags;
    /**
     * Absolute timeout in milliseconds from creation: above 0 the session's own, SSS_FOREVER for none, 0 the store's
     * (in put and renew: as it was), SSS_INHERIT the store's from now on, any other value below 0 dead at once.
     */
    int64_t timeout_ms;
    /** Idle timeout in milliseconds from the last use, with the same special values. */
    int64_t idle_timeout_ms;
    /** Whom the session belongs to: any bytes, at least one. NULL: nobody (in put and renew: as it was). */
    const void *principal;
    /** The length of principal in bytes. */
    size_t principal_len;
    /**
     * sss_renew only: for how many milliseconds the old id may still read, but not past the absolute deadline that the
     * session has then. 0: it is dead at once. For requests under way when an id is renewed from time to time; not for a
     * login, where the old id may be known to somebody else.
     */
    int64_t grace_ms;
} sss_options;

/** What is known of a session besides its payload. Times are Unix time in milliseconds. */
typedef struct {
    /** The size of the struct, set by SSS_META_INIT. */
    uint32_t size;
    /** 0 in this version. */
    uint32_t flags;
    /** 1 when created, and one more with every new payload. */
    uint64_t version;
    /** When the session began. Renewing its id does not change it. */
    int64_t created_ms;
    /** When it was used last. */
    int64_t last_seen_ms;
    /** When it dies unless it is used before; SSS_FOREVER if never. */
    int64_t expires_ms;
} sss_meta;

/** A payload in memory of the library, for sss_buf_free. */
typedef struct {
    /** The payload. Not NULL, also if it is empty. */
    const uint8_t *data;
    /** Its length in bytes. */
    size_t len;
    /** The library's own. Do not touch. */
    void *owner;
} sss_buf;

/** One session in the list of sss_list. */
typedef struct {
    /** The session's public reference, for sss_delete_ref. It opens nothing. */
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
    /** 0 in this version. */
    uint64_t reserved[4];
} sss_entry;

/** A store's counters. They only ever grow, except sessions and bytes. */
typedef struct {
    /** The size of the struct, set by SSS_STATS_INIT. */
    uint32_t size;
    /** 0 in this version. */
    uint32_t flags;
    /** Sessions held now. Expired ones count until they are cleared. */
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
    /** Conditional puts that came too late. */
    uint64_t conflicts;
    /** Sessions ended by sss_revoke or by max_per_principal. */
    uint64_t revoked;
    /** Sessions cleared after they had expired. */
    uint64_t expired;
    /** Writes refused by a limit. */
    uint64_t rejected;
    /** Failures that are not the caller's. */
    uint64_t errors;
} sss_stats_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens the store that a URL names, and gives a handle to it.
 *
 * "memory:" is a new store in this process; "memory:NAME" is one store for all handles of the process that are opened
 * with this name, and is gone, wiped, when the last of them is closed. "lmdb:/dir" is one store for all processes of the
 * host that open this directory, and stays there; the directory is made if it is missing, and has to be this user's
 * alone (0700) and on a local file system. To open it may take a while: whoever opens it alone checks the whole file, and
 * what a power cut may have torn is set aside, with a line on stderr. One store for several hosts, in Redis or Valkey, is
 * "redis://user:password@host:port/db", "rediss://..." (TLS), "redis+unix:///path", "redis+cluster://host,host" or
 * "redis+sentinel://host,host/name": docs/redis.md has them all. Opening it asks no server for anything. Options are the
 * URL's query:
 *
 *   timeout=3h           absolute timeout, from creation (default 3h)
 *   idle_timeout=10m     idle timeout, from the last use (default 10m)
 *                        500ms, 10s, 5m, 3h, 7d, a bare number of seconds, or infinity
 *   max_payload=1MiB     longest payload (default 1MiB); bytes, KiB, MiB, GiB
 *   max_sessions=N       most sessions (default infinity); not of redis:
 *   max_bytes=64MiB      memory: most bytes of payload in all (default infinity)
 *                        lmdb: also the size of the file, which is reserved when it is made (default 256MiB)
 *                        redis: has none: the server's maxmemory is the limit
 *   max_per_principal=N  most sessions of one principal: one more ends the least recently used (default infinity)
 *   seal=on              payloads are encrypted, each under a key that only its id gives (memory: default off, else on)
 *   clock=manual         time stands still but for sss_advance_clock: for tests
 *
 * of lmdb: and redis:
 *
 *   secret_file=/path    payloads are sealed with a secret of the server as well: 64 hex digits a line, the first one
 *                        seals, all of them open; readable by this user alone, or by its group (0600, 0640)
 *
 * of lmdb: only
 *
 *   durability=process   what was acknowledged survives the death of any and all processes (default); after a power
 *                        cut the store begins anew
 *   durability=power     what was acknowledged is on the disk, and survives a power cut too
 *
 * and of redis: only
 *
 *   deadline=500ms       how long a call may take, with connecting and all it tries again (default 500ms)
 *   pool=N               most connections of the process to a server (default 32)
 *   wait=N               a write waits until so many replicas have it (default 0)
 *   prefix=sss:          what the names of all keys begin with (default sss:)
 *   cafile= cert= key=   whom to believe, and who this is, in TLS; tls=on for Clusters and Sentinels
 *   sentinel_user= sentinel_password=   as whom Sentinels are asked
 *
 * A path, and the value of an option, may be percent-encoded.
 *
 * Opening a store that is open already follows the settings that are there; a timeout or limit that is given and
 * stricter holds for all handles, of all processes (redis: of this process), from then on.
 *
 * The URL is url_len bytes of UTF-8. store is required. Close the handle with sss_close.
 *
 * Errors: URL (the text names the part), EXISTS (it is open with
 * another clock or seal), INVALID, RANDOM, BUSY (65536 stores are open).
 * lmdb: also EXISTS (it is open with another durability, or was made with another seal, or with or without a secret_file),
 * UNSUPPORTED (a file system that cannot be shared; open in another container), IO (the directory or the secret_file
 * cannot be used: the text says why), INVALID (the secret_file may be read by others, or holds no secret), FULL (the disk
 * has no room for max_bytes), CORRUPT (its files are damaged, or of something else: move them away to begin a new store)
 * and BUSY (another process has been opening or closing it for a minute).
 * redis: also IO (the secret_file, or a file of TLS, cannot be used) and INVALID (the secret_file, as above).
 * Threads: any. Since 0.1.
 */
sss_status sss_open(const char *url,
                    size_t url_len,
                    sss_store *store);

/**
 * Opens the process-wide store, which SSS_GLOBAL stands for. To be called before its first use; without it, the first
 * use opens "memory:". The same URL again is fine.
 *
 * In a forked child SSS_GLOBAL is the parent's lmdb: or redis: store. A memory: store of the parent is FORKED there, until
 * the child calls this itself.
 *
 * Errors: EXISTS (it is open with another URL), and those of sss_open.
 * Threads: any. Since 0.1.
 */
sss_status sss_open_global(const char *url,
                           size_t url_len);

/**
 * Closes a handle. Calls of other threads that are under way finish, later ones get HANDLE. A memory: store without a name
 * is gone with its handle, and its payloads are wiped. What the last process to close an lmdb: store has written goes to
 * the disk first.
 *
 * Errors: HANDLE, FORKED, UNSUPPORTED (SSS_GLOBAL stays open as long as the process).
 * Threads: any, also while others use the handle. Since 0.1.
 */
sss_status sss_close(sss_store store);

/**
 * Reports which per-session calls may block on another process, a disk or a network: *flags is 0, or SSS_BLOCKS_READS and
 * SSS_BLOCKS_WRITES combined. It does not change until the handle is closed. All other per-session calls take
 * microseconds.
 *
 * For runtimes with a global lock or with scheduler threads of their own, which a blocking call must not hold: Python,
 * Ruby, OCaml, the BEAM, Node. sss_open, sss_close, sss_sweep, sss_list and sss_revoke may take long with every engine.
 * flags is required.
 *
 * Errors: INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_may_block(sss_store store,
                         uint32_t *flags);

/**
 * Begins a session, and writes its new id: 128 characters of base64url and a NUL. Give the id to the client, and to
 * nobody else.
 *
 * The payload is len bytes of the caller's own format; (NULL, 0) is an empty one. opts may be NULL.
 * sid is required; meta may be NULL.
 *
 * Errors: TOO_LARGE, FULL, INVALID, UNSUPPORTED, HANDLE, FORKED, RANDOM, NOMEM. Threads: any. Since 0.1.
 */
sss_status sss_create(sss_store store,
                      const void *data,
                      size_t len,
                      const sss_options *opts,
                      char sid[SSS_SID_SIZE],
                      sss_meta *meta);

/**
 * Copies the payload of a session into buf, and slides its idle deadline; with SSS_PEEK in flags it does not slide.
 *
 * *len is the length of the payload. If cap is less: TOO_SMALL, *len is what is needed, nothing is copied and nothing
 * slid. (NULL, 0) as buf and cap fits an empty payload. len and meta may be NULL.
 *
 * Within the grace time of a renewal the old id reads the session too, without sliding it.
 *
 * Errors: NOT_FOUND (whatever the reason), TOO_SMALL, INVALID, UNSUPPORTED, HANDLE, FORKED; if sealed
 * also CORRUPT and NOMEM. Threads: any. Since 0.1.
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
 * As sss_get, with the payload in memory of the library: independent of the store, and to be freed by sss_buf_free
 * exactly once. buf is required; meta may be NULL.
 *
 * Errors: those of sss_get but TOO_SMALL, and NOMEM. Threads: any. Since 0.1.
 */
sss_status sss_get_buf(sss_store store,
                       const char *sid,
                       size_t sid_len,
                       uint32_t flags,
                       sss_buf *buf,
                       sss_meta *meta);

/**
 * Wipes and frees what sss_get_buf gave, and empties the struct, so that a second call does nothing. NULL does nothing.
 * Do not free a copy of the struct. Threads: any, one at a time for one struct. Since 0.1.
 */
void sss_buf_free(sss_buf *buf);

/**
 * Replaces the payload of a living session, slides its idle deadline, and adds one to its version.
 *
 * Never creates and never resurrects: after a delete, an expiry or a revoke it is NOT_FOUND, also when that happened a
 * moment ago in another thread. opts and meta may be NULL.
 *
 * Errors: NOT_FOUND, TOO_LARGE, FULL (it would pass max_bytes; the old payload stays), INVALID, UNSUPPORTED, HANDLE,
 * FORKED, NOMEM; if sealed also CORRUPT (what it would replace). Threads: any. Since 0.1.
 */
sss_status sss_put(sss_store store,
                   const char *sid,
                   size_t sid_len,
                   const void *data,
                   size_t len,
                   const sss_options *opts,
                   sss_meta *meta);

/**
 * sss_put, but only if the session still has the version that was read (sss_meta.version), in one atomic step: else
 * CONFLICT, and nothing changes.
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
 * Slides the idle deadline of a session, as a get does, without reading it. meta may be NULL.
 *
 * Errors: NOT_FOUND, INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_touch(sss_store store, const char *sid, size_t sid_len, sss_meta *meta);

/**
 * Gives a session a new id, in one atomic step: this is what a login calls, against session fixation (CWE-384).
 *
 * Creation time and absolute deadline stay. data NULL keeps the payload and its version; else it is replaced. The
 * principal stays unless opts say otherwise. The old id is dead when this returns, or with opts->grace_ms reads the
 * session for that long, never writes it, and dies with it. opts and meta may be NULL; new_sid is required.
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
 * Ends a session, and wipes its payload. The second time it is NOT_FOUND.
 *
 * Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_delete(sss_store store, const char *sid, size_t sid_len);

/**
 * Removes up to max expired sessions; *removed, if wanted, is how many. Less than max: nothing is left to remove.
 *
 * The cost grows with what is expired, not with what lives; other threads get their turn in between. Expired sessions
 * are dead without it: it gives their room back. To be called from a timer, say every few seconds with a max of
 * 1000, and at once again while *removed is max. Creating sessions clears a few expired ones as well.
 *
 * memory: gives free memory back to the system here and nowhere else, with what removing left of max: up to 16 MiB for 1000.
 *
 * Errors: HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_sweep(sss_store store,
                     uint64_t max,
                     uint64_t *removed);

/**
 * Lists the living sessions of a principal, the oldest first: the first cap of them are written to entries, and
 * *count is how many there are, which may be more than cap. (NULL, 0) as entries and cap only counts.
 *
 * Show it to the user as the list of devices; an entry names its session by a reference, never by its id. Listing is
 * not a use of the sessions.
 *
 * Errors: INVALID (an empty principal), HANDLE, FORKED, NOMEM. Threads: any. Since 0.1.
 */
sss_status sss_list(sss_store store,
                    const void *principal,
                    size_t principal_len,
                    sss_entry *entries,
                    size_t cap,
                    size_t *count);

/**
 * Ends all sessions of a principal; *count, if wanted, is how many lived. Whatever sss_create or sss_renew had returned
 * before this was called is dead when it returns.
 *
 * except_sid spares the session that this id reads ("log out my other devices"); if it reads none of the principal's,
 * nothing is spared. (NULL, 0) spares nothing.
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
 * Writes the public reference of a living session: what sss_list calls it, and what may stand in a log. It opens
 * nothing, and stays the same until the session is renewed. Not a use of the session. ref is required.
 *
 * Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_ref(sss_store store, const char *sid, size_t sid_len, uint8_t ref[SSS_REF_LEN]);

/**
 * Ends the session with this reference. Before you let a user do that, see that the reference is in the list of this
 * user's sessions (CWE-639).
 *
 * Errors: NOT_FOUND, INVALID, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_delete_ref(sss_store store, const uint8_t ref[SSS_REF_LEN]);

/**
 * Copies the counters of a store. Under concurrent use the numbers need not be of one instant. stats is required.
 *
 * Errors: INVALID, UNSUPPORTED, HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_stats(sss_store store, sss_stats_t *stats);

/**
 * Moves the clock of a store that was opened with clock=manual forward by ms milliseconds: for tests.
 *
 * Errors: UNSUPPORTED (another clock), INVALID (ms is negative), HANDLE, FORKED. Threads: any. Since 0.1.
 */
sss_status sss_advance_clock(sss_store store, int64_t ms);

/**
 * Copies the text of the last failure of the calling thread: one line in English that names what was wrong, never an
 * id, a payload or a password. *len is its length; a NUL follows it in buf if cap is larger. A cap that is less:
 * TOO_SMALL, and *len is what is needed. Before any failure the text is empty. A call that succeeds does not change it,
 * and neither does this one. len may be NULL.
 *
 * Read it on the thread that failed, before it calls anything else of the library: in Go under LockOSThread.
 *
 * Errors: TOO_SMALL, INVALID. Threads: any. Since 0.1.
 */
sss_status sss_last_error(char *buf,
                          size_t cap,
                          size_t *len);

/**
 * One short line in English for a status, never NULL, also for a number that this version does not know. Static: not
 * to be freed. Threads: any. Since 0.1.
 */
const char *sss_strerror(sss_status status);

/**
 * The version of the library that is loaded: major<<16 | minor<<8 | patch. Compare it with SSS_VERSION, that of the
 * header: while major is 0 both minor numbers must be equal. Threads: any. Since 0.1.
 */
uint32_t sss_version(void);

/** The same as text, such as "0.1.0". Static: not to be freed. Threads: any. Since 0.1. */
const char *sss_version_string(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SSS_H */
