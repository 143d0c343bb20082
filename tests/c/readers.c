/* readers.c: what a reader may see while others write, renew and let time pass: whole payloads, versions that only grow,
 * every session exactly once, and the dead never again. Each call is one atomic step, also one that only reads. */
#include "team.h"

enum { THREADS = 4 };

static sss_store store;
static char sid[SSS_SID_SIZE], newest[SSS_SID_SIZE];

/* ---- whole payloads ---- */

static void read_and_write(long round, int thread) {
    static uint64_t seen[THREADS];
    char bytes[3000];
    sss_meta meta = SSS_META_INIT;
    size_t len = (size_t)(round * 37 % (long)sizeof bytes) + 1, i, wrong = 0;
    if (round == 0) seen[thread] = 0;
    if (thread < THREADS / 2) {
        memset(bytes, (int)(len % 251), len);
        CHECK_OK(sss_put(store, sid, SSS_SID_LEN, bytes, len, NULL, &meta));
    } else {
        CHECK_OK(sss_get(store, sid, SSS_SID_LEN, thread % 2 ? SSS_PEEK : 0, bytes, sizeof bytes, &len, &meta));
        for (i = 0; i < len; i++) wrong += (unsigned char)bytes[i] != len % 251;
        CHECK_NUM(wrong, 0);
    }
    CHECK(meta.version >= seen[thread]); /* nobody sees an older one than before */
    seen[thread] = meta.version;
}

static void readers_see_whole_payloads_and_versions_that_only_grow(void) {
    long n;
    store = open_store("memory:");
    CHECK_OK(sss_create(store, NULL, 0, NULL, sid, NULL));
    n = run_team(THREADS, rounds(20000), NULL, read_and_write, NULL);
    CHECK_NUM(stats_of(store).puts, n * (THREADS / 2));
    CHECK_OK(sss_close(store));
}

/* ---- one session that is renewed all the time ---- */

static void renew_and_list(long round, int thread) {
    sss_entry entries[4];
    size_t count = 99;
    uint64_t revoked = 99;
    if (thread == 0) {
        CHECK_OK(sss_renew(store, newest, SSS_SID_LEN, NULL, 0, NULL, newest, NULL));
    } else if (thread == 1 || round % 2) {
        CHECK_OK(sss_list(store, "alice", 5, entries, 4, &count));
        CHECK_NUM(count, 1); /* under its old reference or under its new one, never under none or both */
    } else {
        CHECK_OK(sss_revoke(store, "nobody", 6, NULL, 0, &revoked));
        CHECK_NUM(revoked, 0);
    }
}

static void a_list_has_a_session_that_is_just_being_renewed(void) {
    sss_options alice = with_principal("alice");
    store = open_store("memory:");
    new_session(store, "x", &alice, newest);
    run_team(THREADS, rounds(20000), NULL, renew_and_list, NULL);
    CHECK_OK(sss_close(store));
}

static void renew_with_grace_and_read_old(long round, int thread) {
    sss_options grace = SSS_OPTIONS_INIT;
    uint8_t ref[SSS_REF_LEN];
    grace.grace_ms = 3600 * 1000;
    (void)round;
    if (thread == 0) {
        CHECK_OK(sss_renew(store, newest, SSS_SID_LEN, NULL, 0, &grace, newest, NULL));
    } else if (thread == 1) {
        CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    } else {
        CHECK_PAYLOAD(store, sid, "x");
    }
}

/* A grace time is a promise: renewals after the first one do not cut it short. */
static void an_id_in_grace_reads_while_the_session_is_renewed_again(void) {
    long n = rounds(2000);
    int generation;
    store = open_store("memory:");
    for (generation = 0; generation < 10; generation++) { /* each a new chain: following one gets longer all the time */
        new_session(store, "x", NULL, newest);
        memcpy(sid, newest, sizeof sid);
        run_team(THREADS, n / 10 + 1, NULL, renew_with_grace_and_read_old, NULL);
        CHECK_OK(sss_delete(store, newest, SSS_SID_LEN));
        CHECK_STATUS(peek(store, sid), SSS_E_NOT_FOUND);
    }
    CHECK_OK(sss_close(store));
}

/* ---- the moment of expiry ---- */

enum { LARGE = 1 << 20 }; /* copying it keeps the others waiting just where the clock matters */
static char *large;
static int seen_dead;

static void half_way_to_its_end(long round) {
    (void)round;
    CHECK_OK(sss_create(store, large, LARGE, NULL, sid, NULL));
    CHECK_OK(sss_advance_clock(store, 2500)); /* of an idle timeout of 5 s */
}

static void expire_and_use(long round, int thread) {
    int i;
    if (thread == 0) {
        CHECK_OK(sss_advance_clock(store, 2500));
        seen_dead = sss_touch(store, sid, SSS_SID_LEN, NULL) == SSS_E_NOT_FOUND; /* unless it was used before */
        return;
    }
    for (i = 0; i < 2; i++) {
        if (thread == 1) {
            sss_buf buf = {NULL, 0, NULL};
            (void)sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, NULL);
            sss_buf_free(&buf);
        } else if (thread == 2 || round % 2) {
            (void)sss_touch(store, sid, SSS_SID_LEN, NULL);
        } else {
            (void)sss_put(store, sid, SSS_SID_LEN, large, LARGE, NULL, NULL);
        }
    }
}

static void who_was_seen_dead_is_dead(long round) {
    (void)round;
    if (seen_dead) CHECK_STATUS(sss_touch(store, sid, SSS_SID_LEN, NULL), SSS_E_NOT_FOUND);
    (void)sss_delete(store, sid, SSS_SID_LEN);
    CHECK_OK(sss_sweep(store, UINT64_MAX, NULL));
}

static void a_session_seen_expired_is_never_seen_again(void) {
    store = open_store("memory:?clock=manual&timeout=1000s&idle_timeout=5s");
    if (!(large = (char *)calloc(1, LARGE))) abort();
    run_team(THREADS, rounds(3000), half_way_to_its_end, expire_and_use, who_was_seen_dead_is_dead);
    free(large);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(readers_see_whole_payloads_and_versions_that_only_grow),
        TEST(a_list_has_a_session_that_is_just_being_renewed),
        TEST(an_id_in_grace_reads_while_the_session_is_renewed_again),
        TEST(a_session_seen_expired_is_never_seen_again),
    };
    return run_tests("readers", tests, COUNT_OF(tests), argc, argv);
}
