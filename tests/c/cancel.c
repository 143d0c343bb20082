/* cancel.c: pthread_cancel has no effect inside a call of the library: the thread ends at its next cancellation point
 * outside, and what it did inside is whole. Each round has an alarm through its child: a hang is a
 * failure. */
#include "test_store.h"

enum { CHILD_SECONDS = 60, THREADS = 4 };

static sss_store store;
static char shared_sid[SSS_SID_SIZE];
static long calls_begun[THREADS], calls_ended[THREADS];

static void one_of_each(int thread) {
    sss_options owner = with_principal("alice");
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE], buf[16];
    __atomic_add_fetch(&calls_begun[thread], 1, __ATOMIC_SEQ_CST);
    CHECK_OK(sss_create(store, "x", 1, &owner, sid, NULL));
    CHECK_OK(sss_put(store, shared_sid, SSS_SID_LEN, "yy", 2, NULL, NULL));
    CHECK_OK(sss_get(store, shared_sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL));
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, NULL));
    CHECK_OK(sss_delete(store, next, SSS_SID_LEN));
    CHECK_OK(sss_sweep(store, 10, NULL));
    __atomic_add_fetch(&calls_ended[thread], 1, __ATOMIC_SEQ_CST);
}

static void *call_until_cancelled(void *number) {
    int state;
    for (;;) {
        /* fprintf in a failing check is a cancellation point too */
        one_of_each((int)(uintptr_t)number);
        pthread_testcancel();
        if (pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) != 0 || state != PTHREAD_CANCEL_ENABLE) abort();
    }
    return NULL;
}

static void cancel_threads_in_calls(void *unused) {
    struct test_store place = new_test_store(engine_under_test());
    long round, n = rounds(100);
    uintptr_t i;
    (void)unused;
    store = open_test_store(&place, "");
    new_session(store, "x", NULL, shared_sid);
    for (round = 0; round < n; round++) {
        pthread_t threads[THREADS];
        void *result;
        memset(calls_begun, 0, sizeof calls_begun);
        memset(calls_ended, 0, sizeof calls_ended);
        for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, call_until_cancelled, (void *)i) == 0);
        for (i = 0; i < THREADS; i++) {
            while (__atomic_load_n(&calls_begun[i], __ATOMIC_SEQ_CST) == 0) sched_yield();
        }
        for (i = 0; i < THREADS; i++) CHECK(pthread_cancel(threads[i]) == 0);
        for (i = 0; i < THREADS; i++) {
            CHECK(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED);
            CHECK_NUM(calls_ended[i], calls_begun[i]);
        }
        CHECK_NUM(stats_of(store).sessions, 1);
    }
    CHECK_NUM(stats_of(store).errors, 0);
    CHECK_OK(sss_close(store));
    remove_test_store(&place);
}

static void cancelled_thread_finishes_its_call(void) {
    in_child(CHILD_SECONDS, cancel_threads_in_calls, NULL);
}

/* A state that the caller has disabled stays disabled. */
static void cancel_state_of_caller_is_restored(void) {
    int state;
    store = open_store("memory:");
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state) == 0 && state == PTHREAD_CANCEL_ENABLE);
    new_session(store, "x", NULL, shared_sid);
    CHECK_STATUS(peek(store, UNKNOWN_SID), SSS_E_NOT_FOUND);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0 && state == PTHREAD_CANCEL_DISABLE);
    CHECK_STATUS(sss_touch(0, shared_sid, SSS_SID_LEN, NULL), SSS_E_HANDLE);
    CHECK_OK(sss_close(store));
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0 && state == PTHREAD_CANCEL_ENABLE);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(cancelled_thread_finishes_its_call),
        TEST(cancel_state_of_caller_is_restored),
    };
    return run_tests("cancel", tests, COUNT_OF(tests), argc, argv);
}
