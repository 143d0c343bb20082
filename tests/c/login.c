/* login.c: logins, reauthentications, labels, calls by reference and sss_revoke_all, as a C program meets them: structs
 * of older callers, the texts of failures, outputs that are not wanted or must not be written. What
 * the calls do to sessions is in tests/conformance. */
#include "check.h"

#define MANUAL "memory:?clock=manual&timeout=100s&idle_timeout=infinity"

static const char *last_error(void) {
    static char text[1024];
    size_t len = 0;
    text[0] = '\0';
    CHECK_OK(sss_last_error(text, sizeof text, &len));
    return text;
}

static sss_options with_label(const char *principal, const void *label, size_t label_len) {
    sss_options options = with_principal(principal);
    options.label = label;
    options.label_len = label_len;
    return options;
}

static sss_entry only_entry(sss_store store, const char *principal) {
    sss_entry entry;
    size_t count = 0;
    memset(&entry, PATTERN, sizeof entry);
    CHECK_OK(sss_list(store, principal, strlen(principal), &entry, 1, &count));
    CHECK_NUM(count, 1);
    return entry;
}

static void login_restarts_timeouts(void) {
    sss_store store = open_store(MANUAL);
    sss_options alice = with_principal("alice"), again = SSS_OPTIONS_INIT;
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];
    again.flags = SSS_REAUTHENTICATED;
    CHECK_OK(sss_create(store, "cart", 4, NULL, sid, &meta));
    CHECK_NUM(meta.authenticated_ms, 0);
    CHECK_NUM(meta.timeout_ms, 100000);
    CHECK_NUM(meta.idle_timeout_ms, SSS_FOREVER);
    CHECK_OK(sss_advance_clock(store, 99000));
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &alice, sid, &meta));
    CHECK_NUM(meta.authenticated_ms, meta.created_ms + 99000);
    CHECK_NUM(meta.expires_ms, meta.created_ms + 199000);
    CHECK_OK(sss_advance_clock(store, 1000));
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &alice, sid, &meta)); /* the same principal: a rotation */
    CHECK_NUM(meta.expires_ms, meta.created_ms + 199000);
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &again, sid, &meta));
    CHECK_NUM(meta.authenticated_ms, meta.created_ms + 100000);
    CHECK_NUM(meta.expires_ms, meta.created_ms + 200000);
    CHECK_OK(sss_close(store));
}

/* Each is INVALID, says why, and leaves session, id and outputs as they were. */
static void refused(sss_store store, const char *sid, const sss_options *options, const char *why) {
    sss_meta meta = SSS_META_INIT;
    char renewed[SSS_SID_SIZE];
    memset(renewed, PATTERN, sizeof renewed);
    CHECK_STATUS(outputs_checked(sss_renew(store, sid, SSS_SID_LEN, "y", 1, options, renewed, &meta), renewed, sizeof renewed, &meta),
                 SSS_E_INVALID);
    CHECK(strstr(last_error(), why) != NULL);
    CHECK_PAYLOAD(store, sid, "x");
}

static void wrong_logins_are_invalid(void) {
    sss_store store = open_store(MANUAL);
    sss_options options = with_principal("alice"), flagged = SSS_OPTIONS_INIT;
    sss_stats_t before;
    char sid[SSS_SID_SIZE], made[SSS_SID_SIZE];
    flagged.flags = SSS_REAUTHENTICATED;
    new_session(store, "x", NULL, sid);
    before = stats_of(store);
    CHECK_STATUS(sss_create(store, "x", 1, &flagged, made, NULL), SSS_E_INVALID);
    CHECK(strstr(last_error(), "renew") != NULL);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "y", 1, &flagged, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 1, "y", 1, &flagged, NULL), SSS_E_INVALID);
    options.grace_ms = 1;
    refused(store, sid, &options, "grace");
    flagged.grace_ms = INT64_MAX;
    refused(store, sid, &flagged, "grace");
    flagged.grace_ms = 0;
    flagged.flags |= SSS_CLEAR_PRINCIPAL;
    refused(store, sid, &flagged, "principal");
    CHECK_NUM(stats_of(store).renewed, before.renewed);
    CHECK_NUM(stats_of(store).errors, 0);
    CHECK_OK(sss_close(store));
}

static void label_is_listed_with_zeros_behind_it(void) {
    sss_store store = open_store("memory:");
    unsigned char longest[256];
    sss_options options = with_label("alice", "phone\0x", 7);
    sss_entry entry;
    char sid[SSS_SID_SIZE];
    size_t i;
    memset(longest, 0xFF, sizeof longest);
    new_session(store, "x", &options, sid);
    entry = only_entry(store, "alice");
    CHECK_BYTES(entry.label, entry.label_len, "phone\0x", 7);
    for (i = 7; i < sizeof entry.label; i++) CHECK_NUM(entry.label[i], 0);
    options = with_label("alice", longest, 255);
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL));
    entry = only_entry(store, "alice");
    CHECK_BYTES(entry.label, entry.label_len, longest, 255);
    CHECK_NUM(entry.label[255], 0);
    options = with_label("alice", longest, 256);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL), SSS_E_INVALID);
    CHECK(strstr(last_error(), "label") != NULL);
    options = with_principal("alice"); /* not given: it stays */
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL));
    CHECK_NUM(only_entry(store, "alice").label_len, 255);
    options = with_label("alice", "", 0); /* given, and empty: it goes */
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL));
    entry = only_entry(store, "alice");
    CHECK_NUM(entry.label_len, 0);
    CHECK_NUM(entry.label[0], 0);
    CHECK_OK(sss_close(store));
}

static void label_without_principal_is_invalid(void) {
    sss_store store = open_store("memory:");
    sss_options options = SSS_OPTIONS_INIT;
    char sid[SSS_SID_SIZE], made[SSS_SID_SIZE];
    new_session(store, "x", NULL, sid);
    options.label = "phone";
    for (options.label_len = 0; options.label_len <= 5; options.label_len += 5) {
        options.flags = 0;
        CHECK_STATUS(sss_create(store, "x", 1, &options, made, NULL), SSS_E_INVALID);
        CHECK(strstr(last_error(), "label") != NULL);
        CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "y", 1, &options, NULL), SSS_E_INVALID);
        refused(store, sid, &options, "label");
        options.flags = SSS_CLEAR_PRINCIPAL;
        refused(store, sid, &options, "label");
    }
    options = with_label("alice", NULL, 5);
    CHECK_STATUS(sss_create(store, "x", 1, &options, made, NULL), SSS_E_INVALID);
    CHECK(strstr(last_error(), "label is NULL") != NULL);
    CHECK_OK(sss_close(store));
}

/* The first edition ended in grace_ms and expires_ms. */
static void structs_without_the_second_edition_work(void) {
    sss_store store = open_store(MANUAL);
    sss_options options = with_label("alice", (const void *)(uintptr_t)1, 99);
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];
    options.size = offsetof(sss_options, label); /* what is behind it is not read */
    meta.size = offsetof(sss_meta, authenticated_ms);
    meta.authenticated_ms = meta.timeout_ms = meta.idle_timeout_ms = 4711;
    CHECK_OK(sss_create(store, "x", 1, &options, sid, &meta));
    CHECK_NUM(meta.version, 1);
    CHECK_NUM(meta.expires_ms, meta.created_ms + 100000);
    CHECK(meta.authenticated_ms == 4711 && meta.timeout_ms == 4711 && meta.idle_timeout_ms == 4711);
    CHECK_NUM(only_entry(store, "alice").label_len, 0);
    meta.size = offsetof(sss_meta, timeout_ms);
    CHECK_OK(sss_touch(store, sid, SSS_SID_LEN, &meta));
    CHECK_NUM(meta.authenticated_ms, meta.created_ms);
    CHECK(meta.timeout_ms == 4711 && meta.idle_timeout_ms == 4711);
    CHECK_OK(sss_close(store));
}

static void touch_ref_slides_or_peeks(void) {
    sss_store store = open_store("memory:?clock=manual&timeout=100s&idle_timeout=10s");
    sss_meta meta = SSS_META_INIT;
    uint8_t ref[SSS_REF_LEN];
    char sid[SSS_SID_SIZE];
    new_session(store, "x", NULL, sid);
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    CHECK_OK(sss_advance_clock(store, 5000));
    CHECK_OK(sss_touch_ref(store, ref, SSS_PEEK, &meta));
    CHECK_NUM(meta.last_seen_ms, meta.created_ms);
    CHECK_OK(sss_touch_ref(store, ref, SSS_PEEK, NULL));
    CHECK_OK(sss_touch_ref(store, ref, 0, NULL));
    CHECK_OK(sss_touch_ref(store, ref, SSS_PEEK, &meta));
    CHECK_NUM(meta.last_seen_ms, meta.created_ms + 5000);
    CHECK_STATUS(sss_touch_ref(store, NULL, 0, &meta), SSS_E_INVALID);
    CHECK(strstr(last_error(), "ref is NULL") != NULL);
    CHECK_STATUS(sss_touch_ref(store, ref, SSS_PEEK | 2, &meta), SSS_E_UNSUPPORTED);
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, sid, NULL));
    meta.size = sizeof meta;
    memset(&meta.version, PATTERN, sizeof meta - offsetof(sss_meta, version));
    CHECK_STATUS(sss_touch_ref(store, ref, 0, &meta), SSS_E_NOT_FOUND);
    CHECK(untouched(&meta.version, sizeof meta - offsetof(sss_meta, version)));
    CHECK_OK(sss_close(store));
}

static void delete_ref_checks_the_principal(void) {
    sss_store store = open_store("memory:");
    sss_options alice = with_principal("alice");
    uint8_t ref[SSS_REF_LEN];
    char sid[SSS_SID_SIZE];
    new_session(store, "x", &alice, sid);
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    CHECK_STATUS(sss_delete_ref(store, ref, "bob", 3), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_delete_ref(store, ref, "alic", 4), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_delete_ref(store, ref, "", 0), SSS_E_INVALID);
    CHECK(strstr(last_error(), "principal") != NULL);
    CHECK_STATUS(sss_delete_ref(store, ref, NULL, 5), SSS_E_INVALID);
    CHECK_STATUS(sss_delete_ref(store, NULL, "alice", 5), SSS_E_INVALID);
    CHECK_PAYLOAD(store, sid, "x");
    CHECK_OK(sss_delete_ref(store, ref, "alice", 5));
    CHECK_STATUS(sss_delete_ref(store, ref, "alice", 5), SSS_E_NOT_FOUND);
    new_session(store, "x", &alice, sid);
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    CHECK_OK(sss_delete_ref(store, ref, NULL, 0)); /* whosever it is */
    CHECK_NUM(stats_of(store).deleted, 2);
    CHECK_OK(sss_close(store));
}

/* Enough sessions for several chunks and many steps. */
static void revoke_all_ends_many_sessions(void) {
    enum { SESSIONS = 20000 };
    static char sids[SESSIONS][SSS_SID_SIZE];
    sss_store store = open_store("memory:");
    sss_options alice = with_principal("alice");
    uint64_t count = 0;
    long i, n = rounds(SESSIONS);
    for (i = 0; i < n; i++) new_session(store, i % 7 ? "small" : UNKNOWN_SID, i % 2 ? &alice : NULL, sids[i]);
    CHECK_OK(sss_revoke_all(store, &count));
    CHECK_NUM(count, n);
    for (i = 0; i < n; i++) {
        if (!CHECK_STATUS(peek(store, sids[i]), SSS_E_NOT_FOUND)) break;
    }
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_NUM(stats_of(store).revoked, n);
    new_session(store, "x", &alice, sids[0]);
    CHECK_PAYLOAD(store, sids[0], "x");
    CHECK_OK(sss_revoke_all(store, NULL));
    CHECK_STATUS(peek(store, sids[0]), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(login_restarts_timeouts),
        TEST(wrong_logins_are_invalid),
        TEST(label_is_listed_with_zeros_behind_it),
        TEST(label_without_principal_is_invalid),
        TEST(structs_without_the_second_edition_work),
        TEST(touch_ref_slides_or_peeks),
        TEST(delete_ref_checks_the_principal),
        TEST(revoke_all_ends_many_sessions),
    };
    return run_tests("login", tests, COUNT_OF(tests), argc, argv);
}
