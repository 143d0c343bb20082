/* processes.c: one lmdb: store of several processes, as C programs share it: a forked child uses the handles that it inherits,
 * whatever its parent's threads were doing, and neither harms the other. What memory: does there is
 * in fork.c; what each call has to do in a child is in tests/conformance/fork.txt. Each child has
 * an alarm: a hang is a failure. */
#include "test_store.h"

enum { CHILD_SECONDS = 20, THREADS = 8 };

static struct test_store test_store;
static sss_store store;
static char sid[SSS_SID_SIZE];

static void set_up(void) {
    test_store = new_test_store(LMDB);
    store = open_test_store(&test_store, "");
    new_session(store, "parent", NULL, sid);
}

static void tear_down(void) {
    CHECK_OK(sss_close(store));
    remove_test_store(&test_store);
}

/* ---- what is inherited ---- */

static void use(void *unused) {
    (void)unused;
    CHECK_PAYLOAD(store, sid, "parent");
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "child", 5, NULL, NULL));
}

static void child_uses_inherited_handle(void) {
    set_up();
    in_child(CHILD_SECONDS, use, NULL);
    CHECK_PAYLOAD(store, sid, "child");
    tear_down();
}

static void use_in_grandchild(void *unused) {
    in_child(CHILD_SECONDS, use, unused);
    CHECK_PAYLOAD(store, sid, "child");
}

static void grandchild_uses_inherited_handle(void) {
    set_up();
    in_child(CHILD_SECONDS, use_in_grandchild, NULL);
    CHECK_PAYLOAD(store, sid, "child");
    tear_down();
}

static void is_closed(void *unused) {
    (void)unused;
    CHECK_STATUS(peek(store, sid), SSS_E_HANDLE);
    CHECK_STATUS(sss_close(store), SSS_E_HANDLE);
}

static void close_inherited(void *use_first) {
    if (use_first) CHECK_PAYLOAD(store, sid, "parent");
    CHECK_OK(sss_close(store));
    is_closed(NULL);
    in_child(CHILD_SECONDS, is_closed, NULL);
}

static void close_in_child_leaves_parent_open(void) {
    set_up();
    in_child(CHILD_SECONDS, close_inherited, NULL);
    in_child(CHILD_SECONDS, close_inherited, &test_store);
    CHECK_PAYLOAD(store, sid, "parent");
    tear_down();
}

static void handle_closed_before_fork_stays_closed(void) {
    set_up();
    CHECK_OK(sss_close(store));
    in_child(CHILD_SECONDS, is_closed, NULL);
    remove_test_store(&test_store);
}

static void open_own(void *unused) {
    sss_store own = open_test_store(&test_store, "");
    (void)unused;
    CHECK(own != store);
    CHECK_PAYLOAD(own, sid, "parent");
    CHECK_OK(sss_close(store));
    CHECK_PAYLOAD(own, sid, "parent");
    CHECK_OK(sss_close(own));
}

static void child_opens_distinct_handle(void) {
    set_up();
    in_child(CHILD_SECONDS, open_own, NULL);
    CHECK_PAYLOAD(store, sid, "parent");
    tear_down();
}

static void use_after_parent(void *waiting) {
    char byte;
    int *pipes = (int *)waiting;
    close(pipes[1]);
    CHECK(read(pipes[0], &byte, 1) == 0); /* its end: the parent has closed the store */
    use(NULL);
    CHECK_OK(sss_close(store));
    store = open_test_store(&test_store, "");
    CHECK_PAYLOAD(store, sid, "child");
    CHECK_OK(sss_close(store));
}

static void child_outlives_parents_close(void) {
    int pipes[2], status = 0;
    pid_t pid;
    set_up();
    CHECK(pipe(pipes) == 0);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        failed_here = 0;
        alarm(CHILD_SECONDS);
        use_after_parent(pipes);
        _exit(failed_here ? 1 : 0);
    }
    CHECK_OK(sss_close(store));
    close(pipes[1]);
    close(pipes[0]);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    store = open_test_store(&test_store, "");
    CHECK_PAYLOAD(store, sid, "child");
    tear_down();
}

static void leave_by_exit(void *unused) {
    use(unused);
    exit(failed_here ? 1 : 0); /* with what the library does at exit, unlike the other children */
}

static void child_may_exit(void) {
    set_up();
    in_child(CHILD_SECONDS, leave_by_exit, NULL);
    CHECK_PAYLOAD(store, sid, "child");
    tear_down();
}

/* ---- the process-wide store, which this process must not open for itself ---- */

static void use_global(void *unused) {
    (void)unused;
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "parent");
    CHECK_OK(sss_put(SSS_GLOBAL, sid, SSS_SID_LEN, "child", 5, NULL, NULL));
}

static void use_global_in_two_generations(void *unused) {
    char url[512];
    size_t len = url_of(&test_store, "", url, sizeof url);
    CHECK_OK(sss_open_global(url, len));
    new_session(SSS_GLOBAL, "parent", NULL, sid);
    in_child(CHILD_SECONDS, use_global, unused);
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "child");
    CHECK_OK(sss_open_global(url, len));
    CHECK_STATUS(sss_open_global("memory:", 7), SSS_E_EXISTS);
}

static void global_store_works_in_child(void) {
    test_store = new_test_store(LMDB);
    in_child(CHILD_SECONDS, use_global_in_two_generations, NULL);
    remove_test_store(&test_store);
}

/* ---- a directory that is another one by now ---- */

static void find_another(void *unused) {
    char text[256];
    size_t len = 0;
    (void)unused;
    CHECK_STATUS(peek(store, sid), SSS_E_IO);
    CHECK_OK(sss_last_error(text, sizeof text, &len));
    CHECK(strstr(text, "another store") != NULL);
}

static void child_detects_replaced_store(void) {
    struct test_store moved;
    sss_store other;
    set_up();
    moved = test_store;
    strcat(moved.path, "-moved");
    CHECK(rename(test_store.path, moved.path) == 0);
    other = open_test_store(&test_store, "");
    in_child(CHILD_SECONDS, find_another, NULL);
    CHECK_OK(sss_close(other));
    CHECK_OK(sss_close(store));
    remove_test_store(&test_store);
    remove_test_store(&moved);
}

/* ---- forks while eight threads of the parent are in the library ---- */

static int stop;

static void *hammer(void *number) {
    sss_options owner = with_principal("hammer");
    long i = (long)(uintptr_t)number;
    char own[SSS_SID_SIZE], next[SSS_SID_SIZE], buf[8];
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        CHECK_OK(sss_create(store, "x", 1, &owner, own, NULL));
        CHECK_OK(sss_put(store, own, SSS_SID_LEN, "yy", 2, NULL, NULL));
        CHECK_OK(sss_get(store, own, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL));
        CHECK_OK(sss_renew(store, own, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
        CHECK_OK(sss_list(store, "hammer", 6, NULL, 0, NULL));
        CHECK_OK(sss_sweep(store, 1, NULL));
        CHECK_OK(sss_delete(store, next, SSS_SID_LEN));
        if (i++ % 16 == 0) {
            sss_store again = open_test_store(&test_store, "");
            CHECK_OK(sss_close(again));
        }
    }
    return NULL;
}

static void use_all(void *unused) {
    char own[SSS_SID_SIZE];
    use(unused);
    new_session(store, "x", NULL, own);
    CHECK_OK(sss_renew(store, own, SSS_SID_LEN, NULL, 0, NULL, own, NULL));
    CHECK_OK(sss_delete(store, own, SSS_SID_LEN));
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "parent", 6, NULL, NULL));
    /* Valgrind would call lost what the parent's other threads had only in their registers. */
    if (getenv("SSS_TEST_VALGRIND") && !failed_here) execlp("true", "true", (char *)NULL);
}

static void child_of_busy_process_works(void) {
    long n = rounds(200), i;
    pthread_t threads[THREADS];
    uintptr_t t;
    if (UNDER_ASAN) {
        skip_reason = "AddressSanitizer's allocator hangs in children that are forked while other threads allocate";
        return;
    }
    set_up();
    stop = 0;
    for (t = 0; t < THREADS; t++) pthread_create(&threads[t], NULL, hammer, (void *)t);
    for (i = 0; i < n; i++) {
        in_child(CHILD_SECONDS, use_all, NULL);
        CHECK_PAYLOAD(store, sid, "parent");
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
    CHECK_NUM(stats_of(store).sessions, 1);
    CHECK_NUM(stats_of(store).bytes, 6);
    CHECK_NUM(stats_of(store).errors, 0);
    tear_down();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(child_uses_inherited_handle),
        TEST(grandchild_uses_inherited_handle),
        TEST(close_in_child_leaves_parent_open),
        TEST(handle_closed_before_fork_stays_closed),
        TEST(child_opens_distinct_handle),
        TEST(child_outlives_parents_close),
        TEST(child_may_exit),
        TEST(global_store_works_in_child),
        TEST(child_detects_replaced_store),
        TEST(child_of_busy_process_works),
    };
    return run_tests("processes", tests, COUNT_OF(tests), argc, argv);
}
