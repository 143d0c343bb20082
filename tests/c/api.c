/* api.c: what each function on a single session promises: results, optional and required outputs, times on a manual
 * clock. Must not repeat the rules of the store that the conformance files have; the C face is the subject. */
#include "place.h"

#define MANUAL "memory:?clock=manual&timeout=10s&idle_timeout=5s"

static sss_meta meta_of(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    sss_buf buf = {NULL, 0, NULL};
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, &meta));
    sss_buf_free(&buf);
    return meta;
}

static void create_gives_128_base64url_characters_a_nul_and_not_a_byte_more(void) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE + 8];
    int round;
    for (round = 0; round < 200; round++) {
        memset(sid, '!', sizeof sid);
        CHECK_OK(sss_create(store, "x", 1, NULL, sid, NULL));
        CHECK_NUM(strspn(sid, alphabet), SSS_SID_LEN);
        CHECK(sid[SSS_SID_LEN] == '\0');
        CHECK_BYTES(sid + SSS_SID_SIZE, 8, "!!!!!!!!", 8);
    }
    CHECK_OK(sss_close(store));
}

static void create_fills_meta(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];
    CHECK_OK(sss_create(store, "x", 1, NULL, sid, &meta));
    CHECK_NUM(meta.version, 1);
    CHECK(meta.created_ms > 1500000000000 && meta.created_ms < 5000000000000); /* Unix time in ms */
    CHECK_NUM(meta.last_seen_ms, meta.created_ms);
    CHECK_NUM(meta.expires_ms, meta.created_ms + 5000);
    CHECK_NUM(meta.size, sizeof meta);
    CHECK_OK(sss_close(store));
}

static void create_with_own_timeouts(void) {
    sss_store store = open_store(MANUAL);
    sss_options options = SSS_OPTIONS_INIT;
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];

    options.timeout_ms = 2000; /* the shorter of both counts */
    CHECK_OK(sss_create(store, "x", 1, &options, sid, &meta));
    CHECK_NUM(meta.expires_ms, meta.created_ms + 2000);

    options.timeout_ms = options.idle_timeout_ms = SSS_FOREVER;
    CHECK_OK(sss_create(store, "x", 1, &options, sid, &meta));
    CHECK_NUM(meta.expires_ms, SSS_FOREVER);
    CHECK_OK(sss_advance_clock(store, INT64_C(1000) * 3600 * 24 * 365));
    CHECK_OK(peek(store, sid));

    options.idle_timeout_ms = -1; /* dead at once, no error */
    CHECK_OK(sss_create(store, "x", 1, &options, sid, NULL));
    CHECK_STATUS(peek(store, sid), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void data_is_bytes_also_zeros_and_none_at_all(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE], bytes[256], back[256];
    size_t i, len = 99;
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (char)i;
    CHECK_OK(sss_create(store, bytes, sizeof bytes, NULL, sid, NULL));
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, back, sizeof back, &len, NULL));
    CHECK_BYTES(back, len, bytes, sizeof bytes);

    CHECK_OK(sss_create(store, NULL, 0, NULL, sid, NULL));
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, NULL, 0, &len, NULL)); /* nothing fits into no buffer */
    CHECK_NUM(len, 0);
    CHECK_OK(sss_close(store));
}

static void get_into_a_buffer_that_just_fits(void) {
    sss_store store = open_store("memory:");
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE], buf[16];
    size_t len = 0;
    new_session(store, "hello", NULL, sid);
    memset(buf, '!', sizeof buf);
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, buf, 5, &len, &meta));
    CHECK_NUM(len, 5);
    CHECK_NUM(meta.version, 1);
    CHECK_BYTES(buf, 6, "hello!", 6); /* no NUL, nothing beyond */
    memset(buf, '!', sizeof buf);
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, &len, NULL));
    CHECK_BYTES(buf, 6, "hello!", 6);
    CHECK_OK(sss_close(store));
}

static void too_small_reports_the_length_copies_nothing_slides_nothing(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT, before, untouched = SSS_META_INIT;
    char sid[SSS_SID_SIZE], buf[4] = {'!', '!', '!', '!'};
    size_t len = 0;
    new_session(store, "hello", NULL, sid);
    before = meta_of(store, sid);
    CHECK_OK(sss_advance_clock(store, 1000));
    CHECK_STATUS(sss_get(store, sid, SSS_SID_LEN, 0, buf, 4, &len, &meta), SSS_E_TOO_SMALL);
    CHECK_NUM(len, 5);
    CHECK_BYTES(buf, 4, "!!!!", 4);
    CHECK_BYTES(&meta, sizeof meta, &untouched, sizeof untouched);
    len = 0;
    CHECK_STATUS(sss_get(store, sid, SSS_SID_LEN, 0, NULL, 0, &len, NULL), SSS_E_TOO_SMALL);
    CHECK_NUM(len, 5);
    CHECK_STATUS(sss_get(store, sid, SSS_SID_LEN, 0, buf, 4, NULL, NULL), SSS_E_TOO_SMALL);
    meta = meta_of(store, sid);
    CHECK_BYTES(&meta, sizeof meta, &before, sizeof before);
    CHECK_OK(sss_close(store));
}

static void get_slides_and_peek_does_not(void) {
    sss_store store = open_store(MANUAL);
    sss_meta first, meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE], buf[8];
    new_session(store, "x", NULL, sid);
    first = meta_of(store, sid);
    CHECK_OK(sss_advance_clock(store, 1000));
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, SSS_PEEK, buf, sizeof buf, NULL, &meta));
    CHECK_NUM(meta.last_seen_ms, first.created_ms);
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, &meta));
    CHECK_NUM(meta.last_seen_ms, first.created_ms + 1000);
    CHECK_NUM(meta.expires_ms, first.created_ms + 6000);
    CHECK_NUM(meta.created_ms, first.created_ms);
    CHECK_OK(sss_close(store));
}

static void get_buf_lends_a_copy_that_outlives_session_and_store(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT;
    sss_buf buf = {NULL, 0, NULL};
    char sid[SSS_SID_SIZE];
    new_session(store, "hello", NULL, sid);
    CHECK_OK(sss_advance_clock(store, 1000));
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, &meta));
    CHECK_NUM(meta.last_seen_ms, meta.created_ms + 1000); /* slid */
    CHECK_OK(sss_delete(store, sid, SSS_SID_LEN));
    CHECK_OK(sss_close(store));
    CHECK_BYTES(buf.data, buf.len, "hello", 5);
    sss_buf_free(&buf);
}

static void buf_free_twice_does_nothing(void) {
    sss_store store = open_store("memory:");
    sss_buf buf = {NULL, 0, NULL};
    char sid[SSS_SID_SIZE];
    sss_buf_free(NULL);
    sss_buf_free(&buf); /* never filled */
    new_session(store, "hello", NULL, sid);
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, NULL));
    sss_buf_free(&buf);
    CHECK(buf.data == NULL && buf.len == 0 && buf.owner == NULL);
    sss_buf_free(&buf);
    sss_buf_free(&buf);
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, NULL)); /* the struct can be used again */
    CHECK_BYTES(buf.data, buf.len, "hello", 5);
    sss_buf_free(&buf);

    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, NULL, 0, NULL, NULL));
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, NULL)); /* an empty payload */
    CHECK_NUM(buf.len, 0);
    sss_buf_free(&buf);
    sss_buf_free(&buf);
    CHECK_OK(sss_close(store));
}

static void put_replaces_slides_and_counts_the_version(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];
    new_session(store, "old", NULL, sid);
    CHECK_OK(sss_advance_clock(store, 1000));
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "newer", 5, NULL, &meta));
    CHECK_NUM(meta.version, 2);
    CHECK_NUM(meta.last_seen_ms, meta.created_ms + 1000);
    CHECK_PAYLOAD(store, sid, "newer");
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "x", 1, NULL, NULL));
    CHECK_NUM(meta_of(store, sid).version, 3);
    CHECK_STATUS(sss_put(store, UNKNOWN_SID, SSS_SID_LEN, "x", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void put_if_writes_only_at_the_version_read(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT, untouched = SSS_META_INIT, before, after;
    char sid[SSS_SID_SIZE];
    new_session(store, "one", NULL, sid);
    CHECK_OK(sss_put_if(store, sid, SSS_SID_LEN, 1, "two", 3, NULL, &meta));
    CHECK_NUM(meta.version, 2);
    before = meta_of(store, sid);
    CHECK_OK(sss_advance_clock(store, 1000));
    meta = untouched;
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 1, "three", 5, NULL, &meta), SSS_E_CONFLICT);
    CHECK_BYTES(&meta, sizeof meta, &untouched, sizeof untouched);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 0, "three", 5, NULL, NULL), SSS_E_CONFLICT);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, UINT64_MAX, "three", 5, NULL, NULL), SSS_E_CONFLICT);
    after = meta_of(store, sid); /* a conflict slides nothing */
    CHECK_BYTES(&after, sizeof after, &before, sizeof before);
    CHECK_PAYLOAD(store, sid, "two");
    CHECK_STATUS(sss_put_if(store, UNKNOWN_SID, SSS_SID_LEN, 1, "x", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void touch_slides_and_keeps_the_version(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];
    int i;
    new_session(store, "x", NULL, sid);
    for (i = 1; i <= 3; i++) { /* 9 s of an idle timeout of 5 s; the absolute one of 10 s stays */
        CHECK_OK(sss_advance_clock(store, 3000));
        CHECK_OK(sss_touch(store, sid, SSS_SID_LEN, i == 2 ? NULL : &meta));
    }
    CHECK_NUM(meta.version, 1);
    CHECK_NUM(meta.last_seen_ms, meta.created_ms + 9000);
    CHECK_NUM(meta.expires_ms, meta.created_ms + 10000);
    CHECK_OK(sss_advance_clock(store, 999));
    CHECK_OK(sss_touch(store, sid, SSS_SID_LEN, NULL));
    CHECK_OK(sss_advance_clock(store, 1)); /* dead exactly at the deadline */
    CHECK_STATUS(sss_touch(store, sid, SSS_SID_LEN, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void renew_gives_a_new_id_and_ends_the_old_one(void) {
    sss_store store = open_store(MANUAL);
    sss_meta meta = SSS_META_INIT, first;
    char old_sid[SSS_SID_SIZE], sid[SSS_SID_SIZE + 1], again[SSS_SID_SIZE];
    new_session(store, "guest", NULL, old_sid);
    first = meta_of(store, old_sid);
    CHECK_OK(sss_advance_clock(store, 1000));
    sid[SSS_SID_SIZE] = '!';
    CHECK_OK(sss_renew(store, old_sid, SSS_SID_LEN, NULL, 0, NULL, sid, &meta)); /* data NULL: keep */
    CHECK(strlen(sid) == SSS_SID_LEN && sid[SSS_SID_SIZE] == '!' && strcmp(sid, old_sid) != 0);
    CHECK_NUM(meta.created_ms, first.created_ms);
    CHECK_NUM(meta.last_seen_ms, first.created_ms + 1000);
    CHECK_NUM(meta.version, 1);
    CHECK_PAYLOAD(store, sid, "guest");
    CHECK_STATUS(peek(store, old_sid), SSS_E_NOT_FOUND);

    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, "alice", 5, NULL, again, &meta));
    CHECK_NUM(meta.version, 2);
    CHECK_PAYLOAD(store, again, "alice");
    CHECK_OK(sss_renew(store, again, SSS_SID_LEN, "", 0, NULL, sid, NULL)); /* data not NULL: replace by nothing */
    CHECK_PAYLOAD(store, sid, "");

    memset(again, '!', sizeof again);
    CHECK_STATUS(sss_renew(store, old_sid, SSS_SID_LEN, NULL, 0, NULL, again, NULL), SSS_E_NOT_FOUND);
    CHECK(again[0] == '!' && again[SSS_SID_LEN] == '!');
    CHECK_OK(sss_close(store));
}

static void renew_may_write_the_new_id_over_the_old_one(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE], old_sid[SSS_SID_SIZE];
    new_session(store, "x", NULL, sid);
    memcpy(old_sid, sid, sizeof sid);
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, sid, NULL));
    CHECK_PAYLOAD(store, sid, "x");
    CHECK_STATUS(peek(store, old_sid), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void renew_with_grace_leaves_the_old_id_readable_never_writable(void) {
    sss_store store = open_store(MANUAL);
    sss_options grace = SSS_OPTIONS_INIT;
    sss_meta meta = SSS_META_INIT;
    char old_sid[SSS_SID_SIZE], sid[SSS_SID_SIZE], other[SSS_SID_SIZE];
    new_session(store, "x", NULL, old_sid);
    grace.grace_ms = 1000;
    CHECK_OK(sss_renew(store, old_sid, SSS_SID_LEN, NULL, 0, &grace, sid, NULL));
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "y", 1, NULL, NULL));
    CHECK_PAYLOAD(store, old_sid, "y");
    meta = meta_of(store, old_sid);
    CHECK_NUM(meta.version, 2);
    CHECK_NUM(meta.expires_ms, meta.created_ms + 1000);
    CHECK_STATUS(sss_put(store, old_sid, SSS_SID_LEN, "z", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_put_if(store, old_sid, SSS_SID_LEN, 2, "z", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_touch(store, old_sid, SSS_SID_LEN, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_delete(store, old_sid, SSS_SID_LEN), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_renew(store, old_sid, SSS_SID_LEN, NULL, 0, NULL, other, NULL), SSS_E_NOT_FOUND);
    CHECK_NUM(stats_of(store).sessions, 1);
    CHECK_OK(sss_advance_clock(store, 999));
    CHECK_OK(peek(store, old_sid));
    CHECK_OK(sss_advance_clock(store, 1));
    CHECK_STATUS(peek(store, old_sid), SSS_E_NOT_FOUND);
    CHECK_PAYLOAD(store, sid, "y");
    CHECK_OK(sss_close(store));
}

static void delete_ends_it_and_the_second_one_is_not_found(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE], buf[4];
    new_session(store, "x", NULL, sid);
    CHECK_OK(sss_delete(store, sid, SSS_SID_LEN));
    CHECK_STATUS(sss_delete(store, sid, SSS_SID_LEN), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_NUM(stats_of(store).bytes, 0);
    CHECK_OK(sss_close(store));
}

static void an_id_needs_no_nul_and_a_part_of_it_is_not_enough(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE], longer[SSS_SID_LEN + 1];
    new_session(store, "x", NULL, sid);
    memcpy(longer, sid, SSS_SID_LEN);
    longer[SSS_SID_LEN] = 'A';
    CHECK_OK(sss_touch(store, longer, SSS_SID_LEN, NULL));
    CHECK_STATUS(sss_touch(store, longer, SSS_SID_LEN + 1, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_touch(store, sid, SSS_SID_SIZE, NULL), SSS_E_NOT_FOUND); /* with its NUL */
    CHECK_STATUS(sss_touch(store, sid, SSS_SID_LEN - 1, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_touch(store, sid, 0, NULL), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void sweep_removes_what_expired_and_at_most_max(void) {
    sss_store store = open_store(MANUAL);
    sss_options longer = SSS_OPTIONS_INIT;
    char sid[SSS_SID_SIZE], living[SSS_SID_SIZE];
    uint64_t removed = 99;
    int i;
    longer.idle_timeout_ms = 9000;
    new_session(store, "living", &longer, living);
    for (i = 0; i < 10; i++) new_session(store, "x", NULL, sid);
    CHECK_OK(sss_sweep(store, 100, &removed));
    CHECK_NUM(removed, 0);
    CHECK_OK(sss_advance_clock(store, 5000));
    CHECK_NUM(stats_of(store).sessions, 11); /* counted until somebody clears them */
    CHECK_OK(sss_sweep(store, 0, &removed));
    CHECK_NUM(removed, 0);
    CHECK_OK(sss_sweep(store, 4, &removed));
    CHECK_NUM(removed, 4);
    CHECK_OK(sss_sweep(store, 3, NULL));
    CHECK_OK(sss_sweep(store, UINT64_MAX, &removed));
    CHECK_NUM(removed, 3);
    CHECK_NUM(stats_of(store).sessions, 1);
    CHECK_NUM(stats_of(store).expired, 10);
    CHECK_PAYLOAD(store, living, "living");
    CHECK_OK(sss_close(store));
}

static void waits_says_which_calls_may_wait(void) {
    static const uint32_t expected[] = {0, SSS_BLOCKS_WRITES, SSS_BLOCKS_READS | SSS_BLOCKS_WRITES};
    int engine;
    for (engine = MEMORY; engine <= LMDB_POWER; engine++) {
        struct place place = new_place((enum engine)engine);
        sss_store store = open_place(&place, "");
        uint32_t waits = 99;
        CHECK_OK(sss_may_block(store, &waits));
        CHECK_NUM(waits, expected[engine]);
        CHECK_OK(sss_close(store));
        CHECK_STATUS(sss_may_block(store, &waits), SSS_E_HANDLE);
        CHECK_NUM(waits, expected[engine]); /* written only on success */
        remove_place(&place);
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(create_gives_128_base64url_characters_a_nul_and_not_a_byte_more),
        TEST(create_fills_meta),
        TEST(create_with_own_timeouts),
        TEST(data_is_bytes_also_zeros_and_none_at_all),
        TEST(get_into_a_buffer_that_just_fits),
        TEST(too_small_reports_the_length_copies_nothing_slides_nothing),
        TEST(get_slides_and_peek_does_not),
        TEST(get_buf_lends_a_copy_that_outlives_session_and_store),
        TEST(buf_free_twice_does_nothing),
        TEST(put_replaces_slides_and_counts_the_version),
        TEST(put_if_writes_only_at_the_version_read),
        TEST(touch_slides_and_keeps_the_version),
        TEST(renew_gives_a_new_id_and_ends_the_old_one),
        TEST(renew_may_write_the_new_id_over_the_old_one),
        TEST(renew_with_grace_leaves_the_old_id_readable_never_writable),
        TEST(delete_ends_it_and_the_second_one_is_not_found),
        TEST(an_id_needs_no_nul_and_a_part_of_it_is_not_enough),
        TEST(sweep_removes_what_expired_and_at_most_max),
        TEST(waits_says_which_calls_may_wait),
    };
    return run_tests("api", tests, COUNT_OF(tests), argc, argv);
}
