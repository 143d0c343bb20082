/* principals.c: sessions with a principal: list, revoke, references, and the counters of sss_stats.
 * Must not look inside a reference: it is opaque, only its use counts. */
#include "check.h"

#define MANUAL "memory:?clock=manual&timeout=10s&idle_timeout=5s"

static size_t count_of(sss_store store, const char *principal) {
    size_t count = 999;
    CHECK_OK(sss_list(store, principal, strlen(principal), NULL, 0, &count));
    return count;
}

static void list_counts_beyond_capacity(void) {
    sss_store store = open_store(MANUAL);
    sss_options alice = with_principal("alice");
    sss_entry entries[4];
    uint8_t ref[SSS_REF_LEN];
    char sid[3][SSS_SID_SIZE];
    size_t i, count = 99, guard;
    for (i = 0; i < 3; i++) {
        CHECK_OK(sss_create(store, "12345", i + 1, &alice, sid[i], NULL));
        CHECK_OK(sss_advance_clock(store, 100));
    }
    CHECK_OK(sss_put(store, sid[1], SSS_SID_LEN, "12", 2, NULL, NULL));

    for (guard = 0; guard <= 4; guard++) { /* cap 0..4 of 3 */
        size_t filled = guard < 3 ? guard : 3;
        memset(entries, 0xAA, sizeof entries);
        CHECK_OK(sss_list(store, "alice", 5, entries, guard, &count));
        CHECK_NUM(count, 3);
        for (i = filled * sizeof entries[0]; i < sizeof entries; i++) {
            if (!CHECK(((unsigned char *)entries)[i] == 0xAA)) break; /* nothing behind the filled ones */
        }
        for (i = 0; i < filled; i++) { /* the oldest first */
            CHECK_OK(sss_ref(store, sid[i], SSS_SID_LEN, ref));
            CHECK_BYTES(entries[i].ref, SSS_REF_LEN, ref, SSS_REF_LEN);
            CHECK_NUM(entries[i].version, i == 1 ? 2 : 1);
            CHECK_NUM(entries[i].payload_len, i == 1 ? 2 : i + 1);
            CHECK_NUM(entries[i].created_ms, entries[0].created_ms + (int64_t)i * 100);
            CHECK_NUM(entries[i].last_seen_ms, entries[0].created_ms + (i == 1 ? 300 : (int64_t)i * 100));
            CHECK_NUM(entries[i].expires_ms, entries[i].last_seen_ms + 5000); /* listing slid nothing */
            CHECK(entries[i].reserved[0] == 0 && entries[i].reserved[1] == 0);
            CHECK(entries[i].reserved[2] == 0 && entries[i].reserved[3] == 0);
        }
    }
    CHECK_OK(sss_list(store, "alice", 5, entries, 4, NULL));
    CHECK_NUM(count_of(store, "bob"), 0);
    CHECK_NUM(count_of(store, "alic"), 0);
    CHECK_OK(sss_close(store));
}

static void entries_contain_no_id(void) {
    sss_store store = open_store("memory:");
    sss_options alice = with_principal("alice");
    char sid[SSS_SID_SIZE], piece[9];
    sss_entry entry;
    size_t i, k;
    int found = 0;
    new_session(store, "x", &alice, sid);
    memset(&entry, 0xa5, sizeof entry);
    CHECK_OK(sss_list(store, "alice", 5, &entry, 1, NULL));
    for (k = offsetof(sss_entry, label); k < sizeof entry; k++) CHECK(((unsigned char *)&entry)[k] == 0); /* padding too */
    for (i = 0; i + 8 <= SSS_SID_LEN; i++) {
        memcpy(piece, sid + i, 8);
        for (k = 0; k + 8 <= sizeof entry; k++) found |= memcmp((char *)&entry + k, piece, 8) == 0;
    }
    CHECK(!found);
    CHECK_STATUS(sss_touch(store, (const char *)entry.ref, SSS_REF_LEN, NULL), SSS_E_NOT_FOUND); /* a ref opens nothing */
    CHECK_OK(sss_close(store));
}

static void principal_is_any_bytes(void) {
    sss_store store = open_store("memory:");
    sss_options options = SSS_OPTIONS_INIT;
    char sid[SSS_SID_SIZE];
    size_t count = 0;
    options.principal = "a\0b\xff";
    options.principal_len = 4;
    new_session(store, "x", &options, sid);
    CHECK_OK(sss_list(store, "a\0b\xff", 4, NULL, 0, &count));
    CHECK_NUM(count, 1);
    CHECK_OK(sss_list(store, "a\0b", 3, NULL, 0, &count));
    CHECK_NUM(count, 0);
    CHECK_NUM(count_of(store, "a"), 0);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(list_counts_beyond_capacity),
        TEST(entries_contain_no_id),
        TEST(principal_is_any_bytes),
    };
    return run_tests("principals", tests, COUNT_OF(tests), argc, argv);
}
