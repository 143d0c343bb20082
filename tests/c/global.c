/* global.c: the process-wide store: first use, sss_open_global before and after it, and that it cannot be closed.
 * Each case runs in a process of its own; the parent itself must never touch SSS_GLOBAL. */
#include "check.h"

#define MANUAL "memory:?clock=manual&idle_timeout=5s"

static sss_status open_global(const char *url) {
    return sss_open_global(url, strlen(url));
}

static void first_use(void *unused) {
    char sid[SSS_SID_SIZE];
    (void)unused;
    CHECK_OK(sss_create(SSS_GLOBAL, "x", 1, NULL, sid, NULL));
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "x");
    CHECK_OK(open_global("memory:")); /* that is what it had been opened as */
    CHECK_STATUS(open_global(MANUAL), SSS_E_EXISTS);
    CHECK_STATUS(open_global("memory:other"), SSS_E_EXISTS);
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "x");
    CHECK_STATUS(sss_advance_clock(SSS_GLOBAL, 1), SSS_E_UNSUPPORTED);
}
static void first_use_opens_memory(void) {
    in_child(10, first_use, NULL);
}

static void any_call_opens(void *unused) {
    (void)unused;
    CHECK_STATUS(sss_touch(SSS_GLOBAL, UNKNOWN_SID, SSS_SID_LEN, NULL), SSS_E_NOT_FOUND);
    CHECK_STATUS(open_global(MANUAL), SSS_E_EXISTS);
    CHECK_NUM(stats_of(SSS_GLOBAL).sessions, 0);
}
static void missing_session_is_first_use(void) {
    in_child(10, any_call_opens, NULL);
}

static void opened_before(void *unused) {
    sss_meta meta = SSS_META_INIT;
    char sid[SSS_SID_SIZE];
    (void)unused;
    CHECK_OK(open_global(MANUAL));
    CHECK_OK(sss_create(SSS_GLOBAL, "x", 1, NULL, sid, &meta));
    CHECK_NUM(meta.expires_ms, meta.created_ms + 5000);
    CHECK_OK(open_global(MANUAL)); /* the same URL again is fine and changes nothing */
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "x");
    CHECK_STATUS(open_global("memory:"), SSS_E_EXISTS);
    CHECK_OK(sss_advance_clock(SSS_GLOBAL, 5000));
    CHECK_STATUS(peek(SSS_GLOBAL, sid), SSS_E_NOT_FOUND);
}
static void open_before_use_sets_url(void) {
    in_child(10, opened_before, NULL);
}

static void bad_urls(void *unused) {
    (void)unused;
    CHECK_STATUS(open_global(""), SSS_E_URL);
    CHECK_STATUS(open_global("memory:?colour=blue"), SSS_E_URL);
    CHECK_STATUS(open_global("redis://nowhere/x"), SSS_E_URL);
    CHECK_OK(open_global(MANUAL)); /* the failures opened nothing */
    CHECK_OK(sss_advance_clock(SSS_GLOBAL, 1));
}
static void failed_open_leaves_global_closed(void) {
    in_child(10, bad_urls, NULL);
}

static void close_it(void *unused) {
    char sid[SSS_SID_SIZE];
    (void)unused;
    CHECK_STATUS(sss_close(SSS_GLOBAL), SSS_E_UNSUPPORTED); /* never opened */
    CHECK_OK(sss_create(SSS_GLOBAL, "x", 1, NULL, sid, NULL));
    CHECK_STATUS(sss_close(SSS_GLOBAL), SSS_E_UNSUPPORTED);
    CHECK_STATUS(sss_close(SSS_GLOBAL), SSS_E_UNSUPPORTED);
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "x");
}
static void global_cannot_be_closed(void) {
    in_child(10, close_it, NULL);
}

static void separate(void *unused) {
    sss_store store = open_store("memory:"), named;
    char sid[SSS_SID_SIZE];
    (void)unused;
    CHECK_OK(open_global("memory:shared"));
    named = open_store("memory:shared");
    CHECK_OK(sss_create(SSS_GLOBAL, "x", 1, NULL, sid, NULL));
    CHECK_STATUS(peek(store, sid), SSS_E_NOT_FOUND);
    CHECK_PAYLOAD(named, sid, "x");
    CHECK_OK(sss_close(named));
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "x"); /* it holds the named store by itself */
    CHECK_OK(sss_close(store));
}
static void global_is_separate_unless_named(void) {
    in_child(10, separate, NULL);
}

/* ---- eight threads at once ---- */

enum { THREADS = 8 };
static pthread_barrier_t start;
static char sids[THREADS][SSS_SID_SIZE];
static sss_status opened[THREADS];

static void *create_in_global(void *number) {
    pthread_barrier_wait(&start);
    CHECK_OK(sss_create(SSS_GLOBAL, "x", 1, NULL, sids[(uintptr_t)number], NULL));
    return NULL;
}

static void *open_global_as(void *number) {
    char url[32];
    snprintf(url, sizeof url, "memory:name%d", (int)(uintptr_t)number);
    pthread_barrier_wait(&start);
    opened[(uintptr_t)number] = open_global(url);
    return NULL;
}

static void in_eight_threads(void *(*body)(void *)) {
    pthread_t threads[THREADS];
    uintptr_t i;
    pthread_barrier_init(&start, NULL, THREADS);
    for (i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, body, (void *)i);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
}

static void first_uses(void *unused) {
    int i;
    (void)unused;
    in_eight_threads(create_in_global);
    for (i = 0; i < THREADS; i++) CHECK_PAYLOAD(SSS_GLOBAL, sids[i], "x");
    CHECK_NUM(stats_of(SSS_GLOBAL).sessions, THREADS);
}
static void concurrent_first_uses_open_one_store(void) {
    long n = rounds(50);
    while (n-- > 0) in_child(10, first_uses, NULL);
}

static void different_urls(void *unused) {
    int i, winners = 0;
    (void)unused;
    in_eight_threads(open_global_as);
    for (i = 0; i < THREADS; i++) {
        if (opened[i] == SSS_OK) {
            winners++;
        } else {
            CHECK_STATUS(opened[i], SSS_E_EXISTS);
        }
    }
    CHECK_NUM(winners, 1);
}
static void concurrent_opens_have_one_winner(void) {
    long n = rounds(50);
    while (n-- > 0) in_child(10, different_urls, NULL);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(first_use_opens_memory),
        TEST(missing_session_is_first_use),
        TEST(open_before_use_sets_url),
        TEST(failed_open_leaves_global_closed),
        TEST(global_cannot_be_closed),
        TEST(global_is_separate_unless_named),
        TEST(concurrent_first_uses_open_one_store),
        TEST(concurrent_opens_have_one_winner),
    };
    return run_tests("global", tests, COUNT_OF(tests), argc, argv);
}
