/* clock.c: the clock of memory: stores. It goes on while the machine sleeps and is not moved by steps of the wall clock;
 * wall times are told by the present offset. This program takes the place of the system's
 * clock_gettime, so that the library sees a machine that sleeps, and a wall clock that is set. */
#include "check.h"
#include <sys/syscall.h>
#include <time.h>

enum { SECOND_MS = 1000, MINUTE_MS = 60 * SECOND_MS, HOUR_MS = 60 * MINUTE_MS };

static int64_t slept_ms, wall_step_ms;

static struct timespec later(struct timespec time, int64_t ms) {
    int64_t ns = (int64_t)time.tv_nsec + ms % 1000 * 1000000;
    time.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    time.tv_nsec = (long)(ns % 1000000000);
    return time;
}

#ifdef __cplusplus
extern "C"
#endif
int clock_gettime(clockid_t id, struct timespec *time);

int clock_gettime(clockid_t id, struct timespec *time) {
    if (syscall(SYS_clock_gettime, id, time) != 0) return -1;
    if (id == CLOCK_BOOTTIME) *time = later(*time, __atomic_load_n(&slept_ms, __ATOMIC_RELAXED));
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        *time = later(*time, __atomic_load_n(&slept_ms, __ATOMIC_RELAXED) + __atomic_load_n(&wall_step_ms, __ATOMIC_RELAXED));
    }
    return 0;
}

static int64_t wall_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The library sees a change at the next tick of the coarse clock. */
static void wait_for_tick(void) {
    struct timespec before, now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, &before);
    do {
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, &now);
    } while (now.tv_sec == before.tv_sec && now.tv_nsec == before.tv_nsec);
}

static void sleep_for(int64_t ms) {
    __atomic_add_fetch(&slept_ms, ms, __ATOMIC_RELAXED);
    wait_for_tick();
}

static void step_wall_clock(int64_t ms) {
    __atomic_add_fetch(&wall_step_ms, ms, __ATOMIC_RELAXED);
    wait_for_tick();
}

static sss_meta meta_of(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    char buf[16];
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, SSS_PEEK, buf, sizeof buf, NULL, &meta));
    return meta;
}

/* Whole seconds: what lies between is processor time. */
#define CHECK_ABOUT(came, expected) CHECK((came) > (expected) - 30 * SECOND_MS && (came) < (expected) + 30 * SECOND_MS)

static void sessions_expire_while_machine_sleeps(void) {
    sss_store store = open_store("memory:?timeout=12h&idle_timeout=10m");
    char idle[SSS_SID_SIZE], after[SSS_SID_SIZE], absolute[SSS_SID_SIZE];
    sss_options no_idle_timeout = SSS_OPTIONS_INIT;
    uint64_t removed = 0;
    no_idle_timeout.idle_timeout_ms = SSS_FOREVER;
    new_session(store, "idle", NULL, idle);
    new_session(store, "absolute", &no_idle_timeout, absolute);
    sleep_for(9 * MINUTE_MS);
    CHECK_OK(peek(store, idle));
    sleep_for(8 * HOUR_MS);
    CHECK_STATUS(peek(store, idle), SSS_E_NOT_FOUND);
    CHECK_OK(peek(store, absolute));
    CHECK_OK(sss_sweep(store, 10, &removed));
    CHECK_NUM(removed, 1);
    new_session(store, "after", NULL, after);
    sleep_for(4 * HOUR_MS);
    CHECK_STATUS(peek(store, absolute), SSS_E_NOT_FOUND);
    CHECK_STATUS(peek(store, after), SSS_E_NOT_FOUND);
    CHECK_OK(sss_close(store));
}

static void wall_times_are_right_after_sleep(void) {
    sss_store store = open_store("memory:?timeout=infinity&idle_timeout=infinity");
    char before[SSS_SID_SIZE], after[SSS_SID_SIZE];
    int64_t created = wall_ms();
    new_session(store, "before", NULL, before);
    sleep_for(8 * HOUR_MS);
    new_session(store, "after", NULL, after);
    CHECK_ABOUT(meta_of(store, before).created_ms, created);
    CHECK_ABOUT(meta_of(store, after).created_ms, created + 8 * HOUR_MS);
    CHECK_ABOUT(meta_of(store, after).created_ms, wall_ms());
    CHECK_OK(sss_close(store));
}

static void step_of_wall_clock_ends_no_session(void) {
    sss_store store = open_store("memory:?timeout=3h&idle_timeout=10m");
    sss_options owner = with_principal("alice");
    sss_entry entry;
    size_t count = 0;
    char sid[SSS_SID_SIZE];
    int i;
    new_session(store, "x", &owner, sid);
    for (i = 0; i < 2; i++) {
        sss_meta meta;
        step_wall_clock(i == 0 ? 100 * HOUR_MS : -200 * HOUR_MS);
        meta = meta_of(store, sid);
        /* The session is as old and lives as long as before. */
        CHECK_ABOUT(meta.created_ms, wall_ms());
        CHECK_ABOUT(meta.last_seen_ms, wall_ms());
        CHECK_ABOUT(meta.expires_ms, wall_ms() + 10 * MINUTE_MS);
        CHECK_OK(sss_list(store, "alice", 5, &entry, 1, &count));
        CHECK_NUM(count, 1);
        CHECK_NUM(entry.created_ms, meta.created_ms);
        CHECK_NUM(entry.expires_ms, meta.expires_ms);
    }
    CHECK_OK(sss_close(store));
}

static void times_of_session_do_not_vary_between_calls(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE];
    sss_meta first;
    int i;
    new_session(store, "x", NULL, sid);
    first = meta_of(store, sid);
    for (i = 0; i < 50; i++) {
        sss_meta now;
        wait_for_tick();
        now = meta_of(store, sid);
        CHECK_NUM(now.created_ms, first.created_ms);
        CHECK_NUM(now.expires_ms, first.expires_ms);
    }
    CHECK(first.created_ms <= wall_ms());
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(sessions_expire_while_machine_sleeps),
        TEST(wall_times_are_right_after_sleep),
        TEST(step_of_wall_clock_ends_no_session),
        TEST(times_of_session_do_not_vary_between_calls),
    };
    return run_tests("clock", tests, COUNT_OF(tests), argc, argv);
}
