/* layout.c: the binary face of sss.h: sizes, offsets, macro values and prototypes that compiled programs rely on, checked
 * mostly by the compiler. Includes sss.h first and twice: it must need nothing before it. Change
 * nothing here without a new SONAME. */
#define _DEFAULT_SOURCE 1
#include "sss.h"
#include "sss.h"

#include "check.h"
#include <stddef.h>

#define ASSERT(name, condition) typedef char assert_##name[(condition) ? 1 : -1]
#define MEMBER(type, member, at) ASSERT(type##_##member, offsetof(type, member) == (at))

ASSERT(lp64, sizeof(void *) == 8 && sizeof(long) == 8 && sizeof(size_t) == 8);
ASSERT(status, sizeof(sss_status) == 4 && (sss_status)-1 < 0);
ASSERT(store, sizeof(sss_store) == 8 && (sss_store)-1 > 0);

ASSERT(options, sizeof(sss_options) == 64);
MEMBER(sss_options, size, 0);
MEMBER(sss_options, flags, 4);
MEMBER(sss_options, timeout_ms, 8);
MEMBER(sss_options, idle_timeout_ms, 16);
MEMBER(sss_options, principal, 24);
MEMBER(sss_options, principal_len, 32);
MEMBER(sss_options, grace_ms, 40);
MEMBER(sss_options, label, 48);
MEMBER(sss_options, label_len, 56);

ASSERT(meta, sizeof(sss_meta) == 64);
MEMBER(sss_meta, size, 0);
MEMBER(sss_meta, flags, 4);
MEMBER(sss_meta, version, 8);
MEMBER(sss_meta, created_ms, 16);
MEMBER(sss_meta, last_seen_ms, 24);
MEMBER(sss_meta, expires_ms, 32);
MEMBER(sss_meta, authenticated_ms, 40);
MEMBER(sss_meta, timeout_ms, 48);
MEMBER(sss_meta, idle_timeout_ms, 56);

ASSERT(entry, sizeof(sss_entry) == 376);
MEMBER(sss_entry, ref, 0);
MEMBER(sss_entry, version, 32);
MEMBER(sss_entry, payload_len, 40);
MEMBER(sss_entry, created_ms, 48);
MEMBER(sss_entry, last_seen_ms, 56);
MEMBER(sss_entry, expires_ms, 64);
MEMBER(sss_entry, authenticated_ms, 72);
MEMBER(sss_entry, label_len, 80);
MEMBER(sss_entry, label, 84);
MEMBER(sss_entry, reserved, 344);

ASSERT(stats, sizeof(sss_stats_t) == 112);
MEMBER(sss_stats_t, size, 0);
MEMBER(sss_stats_t, flags, 4);
MEMBER(sss_stats_t, sessions, 8);
MEMBER(sss_stats_t, bytes, 16);
MEMBER(sss_stats_t, created, 24);
MEMBER(sss_stats_t, hits, 32);
MEMBER(sss_stats_t, misses, 40);
MEMBER(sss_stats_t, puts, 48);
MEMBER(sss_stats_t, deleted, 56);
MEMBER(sss_stats_t, renewed, 64);
MEMBER(sss_stats_t, conflicts, 72);
MEMBER(sss_stats_t, revoked, 80);
MEMBER(sss_stats_t, expired, 88);
MEMBER(sss_stats_t, rejected, 96);
MEMBER(sss_stats_t, errors, 104);

ASSERT(buf, sizeof(sss_buf) == 24);
MEMBER(sss_buf, data, 0);
MEMBER(sss_buf, len, 8);
MEMBER(sss_buf, owner, 16);

ASSERT(constants, SSS_SID_LEN == 128 && SSS_SID_SIZE == 129 && SSS_REF_LEN == 32);
ASSERT(flags, SSS_PEEK == 1 && SSS_CLEAR_PRINCIPAL == 1 && SSS_REAUTHENTICATED == 2 && SSS_BLOCKS_READS == 1 && SSS_BLOCKS_WRITES == 2);
ASSERT(forever, SSS_FOREVER == INT64_MAX);
ASSERT(global, SSS_GLOBAL == UINT64_MAX && sizeof(SSS_GLOBAL) == 8);

#if SSS_VERSION_MAJOR != 0 || SSS_VERSION_MINOR < 1 || SSS_VERSION < 0x000100 || SSS_E_PANIC != -19 || SSS_OK != 0
#error "these macros are for the preprocessor, too"
#endif

/* A prototype that changed does not compile here. */
static sss_status (*const open_p)(const char *, size_t, sss_store *) = sss_open;
static sss_status (*const open_global_p)(const char *, size_t) = sss_open_global;
static sss_status (*const close_p)(sss_store) = sss_close;
static sss_status (*const waits_p)(sss_store, uint32_t *) = sss_may_block;
static sss_status (*const create_p)(sss_store, const void *, size_t, const sss_options *, char *, sss_meta *) = sss_create;
static sss_status (*const get_p)(sss_store, const char *, size_t, uint32_t, void *, size_t, size_t *, sss_meta *) = sss_get;
static sss_status (*const get_buf_p)(sss_store, const char *, size_t, uint32_t, sss_buf *, sss_meta *) = sss_get_buf;
static void (*const buf_free_p)(sss_buf *) = sss_buf_free;
static sss_status (*const put_p)(sss_store, const char *, size_t, const void *, size_t, const sss_options *, sss_meta *) = sss_put;
static sss_status (*const put_if_p)(sss_store, const char *, size_t, uint64_t, const void *, size_t, const sss_options *,
                                    sss_meta *) = sss_put_if;
static sss_status (*const touch_p)(sss_store, const char *, size_t, sss_meta *) = sss_touch;
static sss_status (*const renew_p)(sss_store, const char *, size_t, const void *, size_t, const sss_options *, char *,
                                   sss_meta *) = sss_renew;
static sss_status (*const delete_p)(sss_store, const char *, size_t) = sss_delete;
static sss_status (*const sweep_p)(sss_store, uint64_t, uint64_t *) = sss_sweep;
static sss_status (*const list_p)(sss_store, const void *, size_t, sss_entry *, size_t, size_t *) = sss_list;
static sss_status (*const revoke_p)(sss_store, const void *, size_t, const char *, size_t, uint64_t *) = sss_revoke;
static sss_status (*const ref_p)(sss_store, const char *, size_t, uint8_t *) = sss_ref;
static sss_status (*const delete_ref_p)(sss_store, const uint8_t *, const void *, size_t) = sss_delete_ref;
static sss_status (*const touch_ref_p)(sss_store, const uint8_t *, uint32_t, sss_meta *) = sss_touch_ref;
static sss_status (*const revoke_all_p)(sss_store, uint64_t *) = sss_revoke_all;
static sss_status (*const stats_p)(sss_store, sss_stats_t *) = sss_stats;
static sss_status (*const advance_clock_p)(sss_store, int64_t) = sss_advance_clock;
static sss_status (*const last_error_p)(char *, size_t, size_t *) = sss_last_error;
static const char *(*const strerror_p)(sss_status) = sss_strerror;
static uint32_t (*const version_p)(void) = sss_version;
static const char *(*const version_string_p)(void) = sss_version_string;

static void prototypes_link(void) {
    CHECK(open_p && open_global_p && close_p && waits_p && create_p && get_p && get_buf_p && buf_free_p && put_p && put_if_p);
    CHECK(touch_p && renew_p && delete_p && sweep_p && list_p && revoke_p && ref_p && delete_ref_p && stats_p);
    CHECK(touch_ref_p && revoke_all_p);
    CHECK(advance_clock_p && last_error_p && strerror_p && version_p && version_string_p);
}

static void init_macros_set_only_size(void) {
    sss_options options = SSS_OPTIONS_INIT, no_options;
    sss_meta meta = SSS_META_INIT, no_meta;
    sss_stats_t stats = SSS_STATS_INIT, no_stats;
    memset(&no_options, 0, sizeof no_options);
    memset(&no_meta, 0, sizeof no_meta);
    memset(&no_stats, 0, sizeof no_stats);
    no_options.size = sizeof no_options;
    no_meta.size = sizeof no_meta;
    no_stats.size = sizeof no_stats;
    CHECK_BYTES(&options, sizeof options, &no_options, sizeof no_options);
    CHECK_BYTES(&meta, sizeof meta, &no_meta, sizeof no_meta);
    CHECK_BYTES(&stats, sizeof stats, &no_stats, sizeof no_stats);
}

/* The library agrees with this header about where things are: each member has a value of its own. */
static void struct_layouts_match(void) {
    sss_store store = open_store("memory:?clock=manual&timeout=100s&idle_timeout=50s");
    sss_options options = with_principal("alice");
    sss_meta meta = SSS_META_INIT;
    sss_entry entry;
    char sid[SSS_SID_SIZE];
    options.timeout_ms = 7000;
    options.idle_timeout_ms = 3000;
    options.label = "phone";
    options.label_len = 5;
    CHECK_OK(sss_create(store, "12345", 5, &options, sid, NULL));
    CHECK_OK(sss_advance_clock(store, 2000));
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "1234", 4, NULL, &meta));
    CHECK_NUM(meta.version, 2);
    CHECK_NUM(meta.last_seen_ms - meta.created_ms, 2000);
    CHECK_NUM(meta.expires_ms - meta.created_ms, 5000);
    CHECK_NUM(meta.flags, 0);
    CHECK_NUM(meta.authenticated_ms, meta.created_ms);
    CHECK_NUM(meta.timeout_ms, 7000);
    CHECK_NUM(meta.idle_timeout_ms, 3000);
    CHECK_OK(sss_list(store, "alice", 5, &entry, 1, NULL));
    CHECK_NUM(entry.version, 2);
    CHECK_NUM(entry.payload_len, 4);
    CHECK_NUM(entry.created_ms, meta.created_ms);
    CHECK_NUM(entry.last_seen_ms, meta.last_seen_ms);
    CHECK_NUM(entry.expires_ms, meta.expires_ms);
    CHECK_NUM(entry.authenticated_ms, meta.created_ms);
    CHECK_BYTES(entry.label, entry.label_len, "phone", 5);
    CHECK_NUM(entry.label[5], 0);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(prototypes_link),
        TEST(init_macros_set_only_size),
        TEST(struct_layouts_match),
    };
    return run_tests("layout", tests, COUNT_OF(tests), argc, argv);
}
