/* principals.c: sessions that belong to somebody: list, revoke, references, and the counters of sss_stats.
 * Must not look inside a reference: it is opaque, only its use counts. */
#include "check.h"

#define MANUAL "memory:?clock=manual&timeout=10s&idle_timeout=5s"

static size_t count_of(sss_store store, const char *principal) {
    size_t count = 999;
    CHECK_OK(sss_list(store, principal, strlen(principal), NULL, 0, &count));
    return count;
}

static void list_fills_what_fits_and_counts_all(void) {
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

static void an_entry_never_holds_an_id(void) {
    sss_store store = open_store("memory:");
    sss_options alice = with_principal("alice");
    char sid[SSS_SID_SIZE], piece[9];
    sss_entry entry;
    size_t i, k;
    int found = 0;
    new_session(store, "x", &alice, sid);
    memset(&entry, 0, sizeof entry);
    CHECK_OK(sss_list(store, "alice", 5, &entry, 1, NULL));
    for (i = 0; i + 8 <= SSS_SID_LEN; i++) {
        memcpy(piece, sid + i, 8);
        for (k = 0; k + 8 <= sizeof entry; k++) found |= memcmp((char *)&entry + k, piece, 8) == 0;
    }
    CHECK(!found);
    CHECK_STATUS(sss_touch(store, (const char *)entry.ref, SSS_REF_LEN, NULL), SSS_E_NOT_FOUND); /* a ref opens nothing */
    CHECK_OK(sss_close(store));
}

static void dead_sessions_are_not_listed(void) {
    sss_store store = open_store(MANUAL);
    sss_options alice = with_principal("alice");
    char sid[SSS_SID_SIZE];
    new_session(store, "x", &alice, sid);
    CHECK_NUM(count_of(store, "alice"), 1);
    CHECK_OK(sss_advance_clock(store, 5000));
    CHECK_NUM(count_of(store, "alice"), 0);
    CHECK_OK(sss_close(store));
}

static void revoke_ends_all_or_all_but_one(void) {
    sss_store store = open_store("memory:");
    sss_options alice = with_principal("alice"), bob = with_principal("bob");
    char sid[4][SSS_SID_SIZE], bobs[SSS_SID_SIZE], nobodys[SSS_SID_SIZE];
    uint64_t count = 99;
    int i;
    for (i = 0; i < 4; i++) new_session(store, "x", &alice, sid[i]);
    new_session(store, "x", &bob, bobs);
    new_session(store, "x", NULL, nobodys);

    CHECK_OK(sss_revoke(store, "alice", 5, sid[2], SSS_SID_LEN, &count));
    CHECK_NUM(count, 3);
    for (i = 0; i < 4; i++) CHECK_STATUS(peek(store, sid[i]), i == 2 ? SSS_OK : SSS_E_NOT_FOUND);
    CHECK_OK(sss_revoke(store, "alice", 5, bobs, SSS_SID_LEN, &count)); /* somebody else's id spares nothing */
    CHECK_NUM(count, 1);
    CHECK_OK(sss_revoke(store, "alice", 5, NULL, 0, &count));
    CHECK_NUM(count, 0);
    CHECK_OK(peek(store, bobs));
    CHECK_OK(peek(store, nobodys));
    CHECK_OK(sss_revoke(store, "bob", 3, UNKNOWN_SID, SSS_SID_LEN, NULL));
    CHECK_STATUS(peek(store, bobs), SSS_E_NOT_FOUND);
    CHECK_OK(peek(store, nobodys));
    CHECK_NUM(stats_of(store).revoked, 5);
    CHECK_OK(sss_close(store));
}

static void a_reference_ends_the_session_and_survives_changes_of_it(void) {
    sss_store store = open_store(MANUAL);
    sss_options alice = with_principal("alice");
    sss_meta meta = SSS_META_INIT;
    uint8_t ref[SSS_REF_LEN + 1], again[SSS_REF_LEN], unknown[SSS_REF_LEN];
    char sid[SSS_SID_SIZE];
    memset(unknown, 0xAA, sizeof unknown);
    new_session(store, "x", &alice, sid);
    ref[SSS_REF_LEN] = '!';
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    CHECK(ref[SSS_REF_LEN] == '!');
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "y", 1, NULL, NULL));
    CHECK_OK(sss_advance_clock(store, 1000));
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, again));
    CHECK_BYTES(again, SSS_REF_LEN, ref, SSS_REF_LEN);
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, SSS_PEEK, again, sizeof again, NULL, &meta));
    CHECK_NUM(meta.last_seen_ms, meta.created_ms); /* sss_ref did not slide */

    CHECK_STATUS(sss_delete_ref(store, unknown), SSS_E_NOT_FOUND);
    CHECK_OK(sss_delete_ref(store, ref));
    CHECK_STATUS(peek(store, sid), SSS_E_NOT_FOUND);
    CHECK_STATUS(sss_delete_ref(store, ref), SSS_E_NOT_FOUND);
    memset(again, '!', sizeof again);
    CHECK_STATUS(sss_ref(store, sid, SSS_SID_LEN, again), SSS_E_NOT_FOUND);
    CHECK_BYTES(again, 4, "!!!!", 4);
    CHECK_NUM(stats_of(store).deleted, 1);
    CHECK_OK(sss_close(store));
}

static void put_and_renew_keep_set_and_clear_the_principal(void) {
    sss_store store = open_store("memory:");
    sss_options alice = with_principal("alice"), bob = with_principal("bob"), clear = SSS_OPTIONS_INIT, nothing = SSS_OPTIONS_INIT;
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE];
    clear.flags = SSS_CLEAR_PRINCIPAL;
    new_session(store, "x", &alice, sid);
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "y", 1, &nothing, NULL));
    CHECK_NUM(count_of(store, "alice"), 1);
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "y", 1, &bob, NULL));
    CHECK(count_of(store, "alice") == 0 && count_of(store, "bob") == 1);
    CHECK_OK(sss_put_if(store, sid, SSS_SID_LEN, 3, "y", 1, &clear, NULL));
    CHECK(count_of(store, "alice") == 0 && count_of(store, "bob") == 0);
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &alice, next, NULL));
    CHECK_NUM(count_of(store, "alice"), 1);
    CHECK_OK(sss_renew(store, next, SSS_SID_LEN, NULL, 0, NULL, sid, NULL));
    CHECK_NUM(count_of(store, "alice"), 1);
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &clear, next, NULL));
    CHECK_NUM(count_of(store, "alice"), 0);
    CHECK_PAYLOAD(store, next, "y");
    CHECK_OK(sss_close(store));
}

static void a_principal_is_bytes_not_text(void) {
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

static void stats_count_what_happened(void) {
    sss_store store = open_store(MANUAL "&max_payload=4");
    sss_options alice = with_principal("alice");
    sss_stats_t stats;
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE], buf[8];
    new_session(store, "1234", &alice, sid);
    new_session(store, "123", NULL, next);
    CHECK_STATUS(sss_create(store, "12345", 5, NULL, next, NULL), SSS_E_TOO_LARGE);
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL));
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, SSS_PEEK, buf, sizeof buf, NULL, NULL));
    CHECK_STATUS(sss_get(store, UNKNOWN_SID, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "12", 2, NULL, NULL));
    CHECK_OK(sss_put_if(store, sid, SSS_SID_LEN, 2, "1", 1, NULL, NULL));
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 2, "1", 1, NULL, NULL), SSS_E_CONFLICT);
    CHECK_STATUS(sss_put(store, UNKNOWN_SID, SSS_SID_LEN, "x", 1, NULL, NULL), SSS_E_NOT_FOUND);
    stats = stats_of(store);
    CHECK_NUM(stats.sessions, 2);
    CHECK_NUM(stats.bytes, 4);
    CHECK_OK(sss_delete(store, next, SSS_SID_LEN));
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
    CHECK_OK(sss_revoke(store, "alice", 5, NULL, 0, NULL));
    new_session(store, "x", NULL, sid);
    CHECK_OK(sss_advance_clock(store, 5000));
    CHECK_OK(sss_sweep(store, 10, NULL));
    stats = stats_of(store);
    CHECK_NUM(stats.size, sizeof stats);
    CHECK_NUM(stats.sessions, 0);
    CHECK_NUM(stats.bytes, 0);
    CHECK_NUM(stats.created, 3);
    CHECK_NUM(stats.hits, 2);
    CHECK_NUM(stats.misses, 1);
    CHECK_NUM(stats.puts, 2);
    CHECK_NUM(stats.deleted, 1);
    CHECK_NUM(stats.renewed, 1);
    CHECK_NUM(stats.conflicts, 1);
    CHECK_NUM(stats.revoked, 1);
    CHECK_NUM(stats.expired, 1);
    CHECK_NUM(stats.rejected, 1);
    CHECK_NUM(stats.errors, 0);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(list_fills_what_fits_and_counts_all),
        TEST(an_entry_never_holds_an_id),
        TEST(dead_sessions_are_not_listed),
        TEST(revoke_ends_all_or_all_but_one),
        TEST(a_reference_ends_the_session_and_survives_changes_of_it),
        TEST(put_and_renew_keep_set_and_clear_the_principal),
        TEST(a_principal_is_bytes_not_text),
        TEST(stats_count_what_happened),
    };
    return run_tests("principals", tests, COUNT_OF(tests), argc, argv);
}
