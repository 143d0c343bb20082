/* fork_contention.c: forks while eight threads of the parent wait for one another inside the library; in each child eight
 * threads do the same. Nothing that the child inherits from the parent's waiting threads may make
 * one of its own wait for ever. With SSS_TEST_ENGINE the children go on with the inherited store;
 * on memory: they open their own. */
#include "test_store.h"

/* A payload so large that its copying under the lock keeps the other threads waiting for longer than they spin. */
enum { CHILD_SECONDS = 20, THREADS = 8, CALLS = 16, LARGE = 256 << 10 };

static struct test_store place;
static sss_store store;
static char sid[SSS_SID_SIZE], global_sid[SSS_SID_SIZE]; /* which all threads use */
static char payload[LARGE];
static int stop;

/* Everything that takes a lock, on sessions that all threads share. */
static void contend(int number) {
    sss_options owner = with_principal("alice");
    char own[SSS_SID_SIZE], next[SSS_SID_SIZE];
    sss_buf buf = {NULL, 0, NULL};
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, payload, LARGE, NULL, NULL));
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, NULL));
    CHECK_NUM(buf.len, LARGE);
    sss_buf_free(&buf);
    CHECK_OK(sss_get_buf(SSS_GLOBAL, global_sid, SSS_SID_LEN, 0, &buf, NULL));
    CHECK_NUM(buf.len, LARGE);
    sss_buf_free(&buf);
    if (number % 16 == 0) {
        sss_store another = 0;
        CHECK_OK(sss_create(store, "x", 1, &owner, own, NULL));
        CHECK_OK(sss_renew(store, own, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
        CHECK_OK(sss_list(store, "alice", 5, NULL, 0, NULL));
        CHECK_OK(sss_delete(store, next, SSS_SID_LEN));
        CHECK_OK(sss_open("memory:contended", 16, &another));
        CHECK_OK(sss_close(another));
    }
}

static void *contend_until_stopped(void *number) {
    int i;
    for (i = (int)(uintptr_t)number; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) contend(i);
    return NULL;
}

static void *contend_some_times(void *number) {
    int i;
    for (i = 0; i < CALLS; i++) contend(i + (int)(uintptr_t)number);
    return NULL;
}

static void run_in_child(void *unused) {
    pthread_t threads[THREADS];
    uintptr_t i;
    (void)unused;
    if (place.engine == MEMORY) {
        store = open_store("memory:");
        CHECK_OK(sss_create(store, payload, LARGE, NULL, sid, NULL));
    }
    CHECK_OK(sss_open_global("memory:", 7));
    CHECK_OK(sss_create(SSS_GLOBAL, payload, LARGE, NULL, global_sid, NULL));
    for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, contend_some_times, (void *)i) == 0);
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void children_never_wait_for_threads_of_parent(void) {
    pthread_t threads[THREADS];
    long round, n = rounds(200);
    uintptr_t i;
    if (UNDER_ASAN) {
        skip_reason = "AddressSanitizer's allocator hangs in children that are forked while other threads allocate";
        return;
    }
    if (getenv("SSS_TEST_VALGRIND")) {
        skip_reason = "valgrind reports memory that threads of the parent held at the fork as lost in the child";
        return;
    }
    place = new_test_store(engine_under_test());
    store = open_test_store(&place, "");
    CHECK_OK(sss_create(store, payload, LARGE, NULL, sid, NULL));
    CHECK_OK(sss_open_global("memory:", 7));
    CHECK_OK(sss_create(SSS_GLOBAL, payload, LARGE, NULL, global_sid, NULL));
    stop = 0;
    for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, contend_until_stopped, (void *)i) == 0);
    for (round = 0; round < n && failed_here == 0; round++) in_child(CHILD_SECONDS, run_in_child, NULL);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    contend(0);
    CHECK_OK(sss_close(store));
    remove_test_store(&place);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(children_never_wait_for_threads_of_parent),
    };
    return run_tests("fork_contention", tests, COUNT_OF(tests), argc, argv);
}
