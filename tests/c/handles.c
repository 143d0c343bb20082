/* handles.c: a handle that is not open is SSS_E_HANDLE from every function, always, from any thread, also while
 * another thread closes; and no handle is ever given out twice. Must not assume how a handle is
 * built up. */
#include "every_call.h"

static void check_dead(sss_store handle) {
    every_call_is(handle, UNKNOWN_SID, SSS_E_HANDLE);
    CHECK_STATUS(sss_close(handle), SSS_E_HANDLE);
}

static void zero_is_not_a_handle(void) {
    check_dead(0);
}

static void closed_handle_stays_invalid(void) {
    sss_store first = open_store("memory:"), later[20];
    size_t i;
    CHECK_OK(sss_close(first));
    check_dead(first); /* closed twice */
    for (i = 0; i < COUNT_OF(later); i++) {
        later[i] = open_store("memory:"); /* one of them gets its slot */
        check_dead(first);
    }
    for (i = 0; i < COUNT_OF(later); i++) CHECK_OK(sss_close(later[i]));
    check_dead(first);
}

static void every_handle_bit_matters(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE];
    int bit;
    new_session(store, "x", NULL, sid);
    for (bit = 0; bit < 64; bit++) {
        check_dead(store ^ ((uint64_t)1 << bit));
        check_dead(SSS_GLOBAL ^ ((uint64_t)1 << bit));
    }
    CHECK_PAYLOAD(store, sid, "x");
    CHECK_OK(sss_close(store));
}

static void random_numbers_are_not_handles(void) {
    sss_store store = open_store("memory:");
    uint64_t x = UINT64_C(0x9E3779B97F4A7C15);
    long i, n = rounds(20000);
    for (i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift; never 0 */
        CHECK_STATUS(every_call[i % (long)COUNT_OF(every_call)].call(x, UNKNOWN_SID), SSS_E_HANDLE);
        CHECK_STATUS(sss_close(x), SSS_E_HANDLE);
    }
    for (i = 1; i < 1000; i++) CHECK_STATUS(sss_touch((sss_store)i, UNKNOWN_SID, SSS_SID_LEN, NULL), SSS_E_HANDLE);
    CHECK_OK(sss_close(store));
}

static void close_leaves_other_handles(void) {
    sss_store a = open_store("memory:handles"), b = open_store("memory:handles"), c = open_store("memory:");
    char sid[SSS_SID_SIZE];
    CHECK(a != b);
    new_session(a, "shared", NULL, sid);
    CHECK_PAYLOAD(b, sid, "shared");
    CHECK_STATUS(peek(c, sid), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(a));
    CHECK_PAYLOAD(b, sid, "shared");
    CHECK_OK(sss_close(b));
    a = open_store("memory:handles"); /* its last handle took it along */
    CHECK_STATUS(peek(a, sid), SSS_E_NOT_FOUND);
    CHECK_NUM(stats_of(a).created, 0);
    CHECK_OK(sss_close(a));
    CHECK_OK(sss_close(c));
}

static int by_value(const void *a, const void *b) {
    sss_store x = *(const sss_store *)a, y = *(const sss_store *)b;
    return x < y ? -1 : x > y;
}

static void handles_are_unique(void) {
    enum { OPEN_AT_ONCE = 7 };
    long n = rounds(100000), i;
    sss_store *all = (sss_store *)malloc((size_t)n * sizeof *all);
    if (!CHECK(all != NULL)) return;
    for (i = 0; i < n; i++) {
        all[i] = 0;
        CHECK_OK(sss_open("memory:", 7, &all[i]));
        if (i >= OPEN_AT_ONCE) {
            CHECK_OK(sss_close(all[i - OPEN_AT_ONCE]));
            CHECK_STATUS(sss_sweep(all[i - OPEN_AT_ONCE], 1, NULL), SSS_E_HANDLE);
        }
    }
    for (i = n < OPEN_AT_ONCE ? 0 : n - OPEN_AT_ONCE; i < n; i++) CHECK_OK(sss_close(all[i]));
    for (i = 0; i < n; i += 97) CHECK_STATUS(sss_touch(all[i], UNKNOWN_SID, SSS_SID_LEN, NULL), SSS_E_HANDLE);
    qsort(all, (size_t)n, sizeof *all, by_value);
    for (i = 1; i < n; i++) CHECK(all[i] != all[i - 1] && all[i] != 0 && all[i] != SSS_GLOBAL);
    free(all);
}

/* ---- closing while others call ---- */

enum { CALLERS = 8 };
static struct {
    sss_store store;
    char sid[SSS_SID_SIZE];
    pthread_barrier_t start;
    int closed;  /* set after sss_close returned */
    int winners; /* closers that got OK */
} race;

static void *call_until_closed(void *number) {
    size_t i = (size_t)(uintptr_t)number;
    int saw_it_closed = 0;
    pthread_barrier_wait(&race.start);
    while (saw_it_closed < 2 * (int)COUNT_OF(every_call)) { /* two whole turns after the first HANDLE */
        int closed_before = __atomic_load_n(&race.closed, __ATOMIC_ACQUIRE);
        sss_status status = every_call[i++ % COUNT_OF(every_call)].call(race.store, race.sid);
        CHECK(status == SSS_OK || status == SSS_E_NOT_FOUND || status == SSS_E_CONFLICT || status == SSS_E_UNSUPPORTED ||
              status == SSS_E_HANDLE);
        if (saw_it_closed || closed_before) CHECK_STATUS(status, SSS_E_HANDLE);
        if (status == SSS_E_HANDLE) saw_it_closed++;
    }
    return NULL;
}

static void *close_it(void *unused) {
    (void)unused;
    pthread_barrier_wait(&race.start);
    if (sss_close(race.store) == SSS_OK) __atomic_add_fetch(&race.winners, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&race.closed, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void close_during_calls_is_safe(void) {
    long n = rounds(400), round;
    uintptr_t i;
    for (round = 0; round < n; round++) {
        pthread_t callers[CALLERS], closers[2];
        sss_options owner = with_principal("every");
        race.store = open_store(round % 2 ? "memory:handles-race" : "memory:");
        race.closed = race.winners = 0;
        new_session(race.store, "x", &owner, race.sid);
        pthread_barrier_init(&race.start, NULL, CALLERS + 2);
        for (i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call_until_closed, (void *)i);
        for (i = 0; i < 2; i++) pthread_create(&closers[i], NULL, close_it, NULL);
        for (i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
        for (i = 0; i < 2; i++) pthread_join(closers[i], NULL);
        pthread_barrier_destroy(&race.start);
        CHECK_NUM(race.winners, 1);
        check_dead(race.store);
    }
}

/* Named stores come and go under eight threads; every open handle has a working store. */
static void *open_use_close(void *unused) {
    long n = rounds(4000), i;
    char sid[SSS_SID_SIZE];
    (void)unused;
    for (i = 0; i < n; i++) {
        sss_store store = 0;
        CHECK_OK(sss_open("memory:come-and-go", 18, &store));
        CHECK_OK(sss_create(store, "x", 1, NULL, sid, NULL));
        CHECK_OK(sss_touch(store, sid, SSS_SID_LEN, NULL));
        CHECK_OK(sss_delete(store, sid, SSS_SID_LEN));
        CHECK_OK(sss_close(store));
        CHECK_STATUS(sss_touch(store, sid, SSS_SID_LEN, NULL), SSS_E_HANDLE);
    }
    return NULL;
}

static void named_store_survives_concurrent_open_close(void) {
    pthread_t threads[CALLERS];
    sss_store store;
    int i;
    for (i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, open_use_close, NULL);
    for (i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    store = open_store("memory:come-and-go");
    CHECK_NUM(stats_of(store).created, 0); /* all handles were closed: it is a new store */
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(zero_is_not_a_handle),
        TEST(closed_handle_stays_invalid),
        TEST(every_handle_bit_matters),
        TEST(random_numbers_are_not_handles),
        TEST(close_leaves_other_handles),
        TEST(handles_are_unique),
        TEST(close_during_calls_is_safe),
        TEST(named_store_survives_concurrent_open_close),
    };
    return run_tests("handles", tests, COUNT_OF(tests), argc, argv);
}
