/* exit.c: lmdb: stores that are left in good order, so that also the next start of the machine finds their sessions: by
 * sss_close or at exit, by processes that end one after the other or all at the same time, as the
 * workers of a server do. */
#include "test_store.h"

enum { CHILD_SECONDS = 20, LEAVERS = 2 };

static struct test_store test_store;
static char sids[LEAVERS][SSS_SID_SIZE];

/* What LEAVERS processes share: how many of them have come to each meeting. */
static struct {
    int opened, left;
} *met;

static void meet(int *count) {
    __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(count, __ATOMIC_RELAXED) < LEAVERS) usleep(1000);
}

static void set_up(void) {
    void *shared = mmap(NULL, sizeof *met + sizeof sids, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(shared != MAP_FAILED)) abort();
    memset(shared, 0, sizeof *met);
    memcpy(&met, &shared, sizeof met);
    test_store = new_test_store(LMDB);
}

static void tear_down(void) {
    CHECK(munmap(met, sizeof *met + sizeof sids) == 0);
    remove_test_store(&test_store);
}

/* As if the machine had restarted: state.shm has the boot id of the store's last use, behind the first 8 bytes. */
static void start_machine_anew(void) {
    char path[512];
    unsigned char boot[16];
    size_t i;
    FILE *file;
    snprintf(path, sizeof path, "%s/state.shm", test_store.path);
    file = fopen(path, "r+b");
    if (!CHECK(file != NULL)) return;
    CHECK(fseek(file, 8, SEEK_SET) == 0 && fread(boot, sizeof boot, 1, file) == 1);
    for (i = 0; i < sizeof boot; i++) boot[i] ^= 0xFF;
    CHECK(fseek(file, 8, SEEK_SET) == 0 && fwrite(boot, sizeof boot, 1, file) == 1);
    CHECK(fclose(file) == 0);
}

static void expect_sessions(uint64_t count) {
    sss_store store;
    start_machine_anew();
    store = open_test_store(&test_store, "");
    CHECK_NUM(stats_of(store).sessions, count);
    CHECK_OK(sss_close(store));
}

/* ---- one process ---- */

static void write_and_close(void *unused) {
    sss_store store = open_test_store(&test_store, "");
    (void)unused;
    new_session(store, "x", NULL, sids[0]);
    CHECK_OK(sss_close(store));
}

static void closed_store_survives_reboot(void) {
    set_up();
    in_child(CHILD_SECONDS, write_and_close, NULL);
    expect_sessions(1);
    tear_down();
}

static void write_and_exit(void *unused) {
    (void)unused;
    new_session(open_test_store(&test_store, ""), "x", NULL, sids[0]);
    exit(failed_here ? 1 : 0);
}

static void store_open_at_exit_survives_reboot(void) {
    set_up();
    in_child(CHILD_SECONDS, write_and_exit, NULL);
    expect_sessions(1);
    tear_down();
}

static void write_and_crash(void *unused) {
    (void)unused;
    new_session(open_test_store(&test_store, ""), "x", NULL, sids[0]);
    _exit(failed_here ? 1 : 0);
}

static void crashed_store_ends_with_reboot(void) {
    set_up();
    in_child(CHILD_SECONDS, write_and_crash, NULL);
    fprintf(stderr, "the next line of sss is part of a test\n");
    expect_sessions(0);
    tear_down();
}

/* ---- several processes ---- */

static void wait_for_others(void) {
    meet(&met->left);
}

static void leave_together(void *unused) {
    int status, i, failed = 0;
    (void)unused;
    fflush(NULL);
    for (i = 0; i < LEAVERS; i++) {
        if (fork() != 0) continue;
        failed_here = 0;
        alarm(CHILD_SECONDS);
        /* Before the library registers what it does at exit, so that it is called after that. */
        atexit(wait_for_others);
        new_session(open_test_store(&test_store, ""), "x", NULL, sids[i]);
        meet(&met->opened);
        exit(failed_here ? 1 : 0);
    }
    for (i = 0; i < LEAVERS; i++) failed += wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    CHECK_NUM(failed, 0);
}

/* Neither is gone when the other one does what it does at exit. In a child, for this process has registered that already. */
static void concurrent_exits_survive_reboot(void) {
    set_up();
    in_child(2 * CHILD_SECONDS, leave_together, NULL);
    expect_sessions(LEAVERS);
    tear_down();
}

static void close_together(void *unused) {
    int status, i, failed = 0;
    sss_store store;
    (void)unused;
    fflush(NULL);
    for (i = 0; i < LEAVERS; i++) {
        if (fork() != 0) continue;
        failed_here = 0;
        alarm(CHILD_SECONDS);
        store = open_test_store(&test_store, "");
        new_session(store, "x", NULL, sids[i]);
        meet(&met->opened);
        CHECK_OK(sss_close(store));
        _exit(failed_here ? 1 : 0);
    }
    for (i = 0; i < LEAVERS; i++) failed += wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    CHECK_NUM(failed, 0);
}

static void concurrent_closes_survive_reboot(void) {
    long i, n = rounds(50);
    for (i = 0; i < n; i++) {
        set_up();
        in_child(2 * CHILD_SECONDS, close_together, NULL);
        expect_sessions(LEAVERS);
        tear_down();
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(closed_store_survives_reboot),
        TEST(store_open_at_exit_survives_reboot),
        TEST(crashed_store_ends_with_reboot),
        TEST(concurrent_exits_survive_reboot),
        TEST(concurrent_closes_survive_reboot),
    };
    return run_tests("exit", tests, COUNT_OF(tests), argc, argv);
}
