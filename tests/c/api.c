/* api.c: what each function on a single session promises: results, optional and required outputs, times on a manual
 * clock. Must not repeat the rules of the store that the conformance files have; the C face is the
 * subject. */
#include "test_store.h"

#define MANUAL "memory:?clock=manual&timeout=10s&idle_timeout=5s"

static sss_meta meta_of(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    sss_buf buf = {NULL, 0, NULL};
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, &meta));
    sss_buf_free(&buf);
    return meta;
}

static void create_writes_id_and_nul(void) {
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

static void payload_is_any_bytes(void) {
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

static void get_fills_exact_buffer(void) {
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

static void too_small_buffer_reports_length(void) {
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

static void get_slides_peek_does_not(void) {
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

static void get_buf_copy_outlives_store(void) {
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

static void second_buf_free_does_nothing(void) {
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

static void renew_may_overwrite_old_id(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE], old_sid[SSS_SID_SIZE];
    new_session(store, "x", NULL, sid);
    memcpy(old_sid, sid, sizeof sid);
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, sid, NULL));
    CHECK_PAYLOAD(store, sid, "x");
    CHECK_STATUS(peek(store, old_sid), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void id_needs_no_nul(void) {
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

static void may_block_by_engine(void) {
    static const uint32_t expected[] = {0, SSS_BLOCKS_WRITES, SSS_BLOCKS_READS | SSS_BLOCKS_WRITES};
    int engine;
    for (engine = MEMORY; engine <= LMDB_POWER; engine++) {
        struct test_store test_store = new_test_store((enum engine)engine);
        sss_store store = open_test_store(&test_store, "");
        uint32_t waits = 99;
        CHECK_OK(sss_may_block(store, &waits));
        CHECK_NUM(waits, expected[engine]);
        CHECK_OK(sss_close(store));
        CHECK_STATUS(sss_may_block(store, &waits), SSS_E_HANDLE);
        CHECK_NUM(waits, expected[engine]); /* written only on success */
        remove_test_store(&test_store);
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(create_writes_id_and_nul),
        TEST(create_fills_meta),
        TEST(payload_is_any_bytes),
        TEST(get_fills_exact_buffer),
        TEST(too_small_buffer_reports_length),
        TEST(get_slides_peek_does_not),
        TEST(get_buf_copy_outlives_store),
        TEST(second_buf_free_does_nothing),
        TEST(renew_may_overwrite_old_id),
        TEST(id_needs_no_nul),
        TEST(may_block_by_engine),
    };
    return run_tests("api", tests, COUNT_OF(tests), argc, argv);
}
