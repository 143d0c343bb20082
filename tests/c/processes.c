/* processes.c: one lmdb: store of several processes, as C programs share it: a forked child uses the handles that it inherits,
 * whatever its parent's threads were doing, and neither harms the other. What memory: does there is in fork.c; what each call
 * has to do in a child is in tests/conformance/fork.txt. Each child has an alarm: a hang is a failure. */
#include "place.h"

enum { CHILD_SECONDS = 20, THREADS = 8 };

static struct place place;
static sss_store store;
static char sid[SSS_SID_SIZE];

static void set_up(void) {
    place = new_place(LMDB);
    store = open_place(&place, "");
    new_session(store, "parent", NULL, sid);
}

static void tear_down(void) {
    CHECK_OK(sss_close(store));
    remove_place(&place);
}

/* ---- what is inherited ---- */

static void use(void *unused) {
    (void)unused;
    CHECK_PAYLOAD(store, sid, "parent");
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "child", 5, NULL, NULL));
}

static void an_inherited_handle_works_and_the_parent_sees_what_was_done(void) {
    set_up();
    in_child(CHILD_SECONDS, use, NULL);
    CHECK_PAYLOAD(store, sid, "child");
    tear_down();
}

static void use_in_grandchild(void *unused) {
    in_child(CHILD_SECONDS, use, unused);
    CHECK_PAYLOAD(store, sid, "child");
}

static void a_grandchild_works_also_if_its_parent_never_used_the_handle(void) {
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

static void closing_in_a_child_closes_for_the_child_and_its_children_only(void) {
    set_up();
    in_child(CHILD_SECONDS, close_inherited, NULL);
    in_child(CHILD_SECONDS, close_inherited, &place);
    CHECK_PAYLOAD(store, sid, "parent");
    tear_down();
}

static void a_handle_closed_before_the_fork_is_closed_in_the_child(void) {
    set_up();
    CHECK_OK(sss_close(store));
    in_child(CHILD_SECONDS, is_closed, NULL);
    remove_place(&place);
}

static void open_own(void *unused) {
    sss_store own = open_place(&place, "");
    (void)unused;
    CHECK(own != store);
    CHECK_PAYLOAD(own, sid, "parent");
    CHECK_OK(sss_close(store));
    CHECK_PAYLOAD(own, sid, "parent");
    CHECK_OK(sss_close(own));
}

static void a_handle_of_the_childs_own_is_another_one(void) {
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
    store = open_place(&place, "");
    CHECK_PAYLOAD(store, sid, "child");
    CHECK_OK(sss_close(store));
}

static void a_child_goes_on_when_its_parent_has_closed(void) {
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
    store = open_place(&place, "");
    CHECK_PAYLOAD(store, sid, "child");
    tear_down();
}

static void leave_by_exit(void *unused) {
    use(unused);
    exit(failed_here ? 1 : 0); /* with what the library does at exit, unlike the other children */
}

static void a_child_may_leave_by_exit(void) {
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
    size_t len = url_of(&place, "", url, sizeof url);
    CHECK_OK(sss_open_global(url, len));
    new_session(SSS_GLOBAL, "parent", NULL, sid);
    in_child(CHILD_SECONDS, use_global, unused);
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "child");
    CHECK_OK(sss_open_global(url, len));
    CHECK_STATUS(sss_open_global("memory:", 7), SSS_E_EXISTS);
}

static void the_process_wide_store_works_in_a_child(void) {
    place = new_place(LMDB);
    in_child(CHILD_SECONDS, use_global_in_two_generations, NULL);
    remove_place(&place);
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

static void a_child_that_finds_another_store_in_the_directory_does_not_take_it_for_its_parents(void) {
    struct place moved;
    sss_store other;
    set_up();
    moved = place;
    strcat(moved.path, "-moved");
    CHECK(rename(place.path, moved.path) == 0);
    other = open_place(&place, "");
    in_child(CHILD_SECONDS, find_another, NULL);
    CHECK_OK(sss_close(other));
    CHECK_OK(sss_close(store));
    remove_place(&place);
    remove_place(&moved);
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
            sss_store again = open_place(&place, "");
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

static void a_child_works_at_once_while_eight_threads_of_its_parent_are_in_calls(void) {
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
        TEST(an_inherited_handle_works_and_the_parent_sees_what_was_done),
        TEST(a_grandchild_works_also_if_its_parent_never_used_the_handle),
        TEST(closing_in_a_child_closes_for_the_child_and_its_children_only),
        TEST(a_handle_closed_before_the_fork_is_closed_in_the_child),
        TEST(a_handle_of_the_childs_own_is_another_one),
        TEST(a_child_goes_on_when_its_parent_has_closed),
        TEST(a_child_may_leave_by_exit),
        TEST(the_process_wide_store_works_in_a_child),
        TEST(a_child_that_finds_another_store_in_the_directory_does_not_take_it_for_its_parents),
        TEST(a_child_works_at_once_while_eight_threads_of_its_parent_are_in_calls),
    };
    return run_tests("processes", tests, COUNT_OF(tests), argc, argv);
}
