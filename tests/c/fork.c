/* fork.c: a forked child is told SSS_E_FORKED at once by everything inherited, works with stores of its own, never mints
 * an id that another process mints too, and leaves the parent unharmed; also when other threads of
 * the parent held every lock at the fork. Each child has an alarm: a hang is a failure. */
#include "every_call.h"
#include <sys/syscall.h>

enum { CHILD_SECONDS = 20 };

/* what children inherit */
static struct {
    sss_store plain, named, stale;
    char plain_sid[SSS_SID_SIZE], named_sid[SSS_SID_SIZE], global_sid[SSS_SID_SIZE];
} inherited;

static void set_up(void) {
    inherited.plain = open_store("memory:");
    inherited.named = open_store("memory:fork");
    inherited.stale = open_store("memory:");
    CHECK_OK(sss_close(inherited.stale));
    new_session(inherited.plain, "plain", NULL, inherited.plain_sid);
    new_session(inherited.named, "named", NULL, inherited.named_sid);
    CHECK_OK(sss_open_global("memory:", 7));
    new_session(SSS_GLOBAL, "global", NULL, inherited.global_sid);
}

static void parent_is_unharmed(void) {
    CHECK_PAYLOAD(inherited.plain, inherited.plain_sid, "plain");
    CHECK_PAYLOAD(inherited.named, inherited.named_sid, "named");
    CHECK_PAYLOAD(SSS_GLOBAL, inherited.global_sid, "global");
}

static void tear_down(void) {
    parent_is_unharmed();
    CHECK_OK(sss_delete(SSS_GLOBAL, inherited.global_sid, SSS_SID_LEN));
    CHECK_OK(sss_close(inherited.plain));
    CHECK_OK(sss_close(inherited.named));
}

static void check_inherited(void) {
    sss_status status;
    every_call_is(inherited.plain, inherited.plain_sid, SSS_E_FORKED);
    every_call_is(inherited.named, inherited.named_sid, SSS_E_FORKED);
    CHECK_STATUS(sss_close(inherited.plain), SSS_E_FORKED);
    CHECK_STATUS(sss_close(inherited.plain), SSS_E_FORKED); /* it did not close the first time */
    CHECK_STATUS(sss_close(inherited.named), SSS_E_FORKED);
    every_call_is(inherited.stale, inherited.plain_sid, SSS_E_HANDLE);
    CHECK_STATUS(sss_close(inherited.stale), SSS_E_HANDLE);
    every_call_is(0, inherited.plain_sid, SSS_E_HANDLE);
    status = sss_close(SSS_GLOBAL);
    CHECK(status == SSS_E_FORKED || status == SSS_E_UNSUPPORTED);
}

static void check_own_store(const char *url, const char *parents_sid) {
    sss_store store = open_store(url);
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE];
    CHECK(store != inherited.plain && store != inherited.named);
    CHECK_STATUS(peek(store, parents_sid), SSS_E_NOT_FOUND); /* a new, empty one */
    CHECK_NUM(stats_of(store).created, 0);
    new_session(store, "child", NULL, sid);
    CHECK_PAYLOAD(store, sid, "child");
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
    CHECK_OK(sss_delete(store, next, SSS_SID_LEN));
    CHECK_OK(sss_close(store));
    CHECK_STATUS(sss_close(store), SSS_E_HANDLE);
}

static void everything_inherited(void *unused) {
    char text[256];
    size_t len = 0;
    (void)unused;
    check_inherited();
    every_call_is(SSS_GLOBAL, inherited.global_sid, SSS_E_FORKED);
    CHECK_OK(sss_last_error(text, sizeof text, &len));
    CHECK(strstr(text, "fork") != NULL);
    check_own_store("memory:", inherited.plain_sid);
    check_own_store("memory:fork", inherited.named_sid);
    check_own_store("memory:fork", inherited.named_sid);
    check_inherited(); /* stores of its own changed nothing */
    every_call_is(SSS_GLOBAL, inherited.global_sid, SSS_E_FORKED);
}

static void child_is_refused_inherited_memory(void) {
    set_up();
    in_child(CHILD_SECONDS, everything_inherited, NULL);
    tear_down();
}

static void open_global_in_child(void *url) {
    char sid[SSS_SID_SIZE];
    every_call_is(SSS_GLOBAL, inherited.global_sid, SSS_E_FORKED);
    CHECK_OK(sss_open_global((const char *)url, strlen((const char *)url)));
    CHECK_STATUS(peek(SSS_GLOBAL, inherited.global_sid), SSS_E_NOT_FOUND);
    new_session(SSS_GLOBAL, "child", NULL, sid);
    CHECK_PAYLOAD(SSS_GLOBAL, sid, "child");
    CHECK_NUM(stats_of(SSS_GLOBAL).sessions, 1);
    check_inherited();
}

static void child_must_reopen_global_store(void) {
    static char same[] = "memory:", other[] = "memory:fork?clock=manual";
    set_up();
    in_child(CHILD_SECONDS, open_global_in_child, same);
    in_child(CHILD_SECONDS, open_global_in_child, other);
    tear_down();
}

static struct {
    sss_store store;
    char sid[SSS_SID_SIZE];
} childs;

static void grandchild(void *unused) {
    check_inherited();
    every_call_is(childs.store, childs.sid, SSS_E_FORKED);
    every_call_is(SSS_GLOBAL, inherited.global_sid, SSS_E_FORKED);
    CHECK_STATUS(sss_close(childs.store), SSS_E_FORKED);
    check_own_store("memory:", childs.sid);
    check_own_store("memory:fork", childs.sid);
    (void)unused;
}

static void child_with_child(void *unused) {
    (void)unused;
    childs.store = open_store("memory:fork");
    new_session(childs.store, "child", NULL, childs.sid);
    CHECK_OK(sss_open_global("memory:childs", 13));
    in_child(CHILD_SECONDS, grandchild, NULL);
    CHECK_PAYLOAD(childs.store, childs.sid, "child");
    check_inherited();
    CHECK_OK(sss_close(childs.store));
}

static void grandchild_is_refused_inherited_memory(void) {
    set_up();
    in_child(CHILD_SECONDS, child_with_child, NULL);
    tear_down();
}

static void open_many(void *unused) {
    sss_store own[300];
    size_t i;
    int bit;
    (void)unused;
    for (bit = 0; bit < 64; bit++) { /* wrong numbers do not get through either */
        sss_status status = sss_touch(inherited.plain ^ ((uint64_t)1 << bit), inherited.plain_sid, SSS_SID_LEN, NULL);
        CHECK(status == SSS_E_HANDLE || status == SSS_E_FORKED);
    }
    for (i = 0; i < COUNT_OF(own); i++) own[i] = open_store("memory:");
    check_inherited();
    for (i = 0; i < COUNT_OF(own); i++) {
        CHECK(own[i] != inherited.plain && own[i] != inherited.named && own[i] != inherited.stale);
        CHECK_OK(sss_close(own[i]));
    }
    for (i = 0; i < COUNT_OF(own); i++) CHECK_STATUS(sss_close(own[i]), SSS_E_HANDLE);
    check_inherited();
}

static void child_handles_differ_from_parents(void) {
    set_up();
    in_child(CHILD_SECONDS, open_many, NULL);
    tear_down();
}

static void free_it(void *buf) {
    CHECK_BYTES(((sss_buf *)buf)->data, ((sss_buf *)buf)->len, "plain", 5);
    sss_buf_free((sss_buf *)buf);
    sss_buf_free((sss_buf *)buf);
}

static void buffer_is_freed_on_both_sides(void) {
    sss_buf buf = {NULL, 0, NULL};
    set_up();
    CHECK_OK(sss_get_buf(inherited.plain, inherited.plain_sid, SSS_SID_LEN, 0, &buf, NULL));
    in_child(CHILD_SECONDS, free_it, &buf);
    free_it(&buf);
    tear_down();
}

static void leave_by_exit(void *unused) {
    (void)unused;
    check_inherited();
    exit(failed_here ? 1 : 0); /* with all destructors, unlike the other children */
}

static void child_may_exit(void) {
    set_up();
    in_child(CHILD_SECONDS, leave_by_exit, NULL);
    tear_down();
}

#ifdef SYS_fork
static void raw_fork_is_detected(void) {
    int status = 0;
    pid_t pid;
    set_up();
    fflush(NULL);
    pid = (pid_t)syscall(SYS_fork);
    if (pid == 0) {
        failed_here = 0;
        alarm(CHILD_SECONDS);
        everything_inherited(NULL);
        _exit(failed_here ? 1 : 0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tear_down();
}
#endif

/* ---- ids ---- */

typedef char (*id_list)[SSS_SID_SIZE];

enum { THREADS = 8, IDS_PER_ROUND = 4 };

static void mint(sss_store store, id_list ids, int count) {
    while (count-- > 0) CHECK_OK(sss_create(store, "x", 1, NULL, ids[count], NULL));
}

static int by_text(const void *a, const void *b) {
    return strcmp((const char *)a, (const char *)b);
}

static id_list new_ids(long count) {
    void *ids = mmap(NULL, (size_t)count * SSS_SID_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ids == MAP_FAILED) abort();
    return (id_list)ids;
}

static void all_differ(id_list ids, long count) {
    long i;
    qsort((void *)ids, (size_t)count, sizeof ids[0], by_text);
    CHECK_NUM(strlen(ids[0]), SSS_SID_LEN); /* every place was filled */
    for (i = 1; i < count; i++) CHECK(strcmp(ids[i], ids[i - 1]) != 0);
    munmap((void *)ids, (size_t)count * SSS_SID_SIZE);
}

static void open_and_mint(void *ids) {
    sss_store store = open_store("memory:");
    mint(store, (id_list)ids, IDS_PER_ROUND);
    CHECK_OK(sss_close(store));
}

/* With nothing going on but the forks: a generator that the children inherit would begin alike in all of them. */
static void child_and_parent_ids_differ(void) {
    enum { CHILDREN = 50 };
    id_list ids = new_ids((CHILDREN + 1) * IDS_PER_ROUND);
    long i;
    set_up();
    for (i = 0; i < CHILDREN; i++) in_child(CHILD_SECONDS, open_and_mint, ids[i * IDS_PER_ROUND]);
    open_and_mint(ids[i * IDS_PER_ROUND]);
    all_differ(ids, (CHILDREN + 1) * IDS_PER_ROUND);
    tear_down();
}

/* ---- fork while eight threads of the parent hammer the library ---- */

static int stop;
static long living; /* sessions that the hammering threads left in inherited.plain */

static void *hammer(void *number) {
    sss_options owner = with_principal("hammer");
    long i = (long)(uintptr_t)number, mine = 0;
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE], buf[8];
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        sss_store store = 0;
        CHECK_OK(sss_create(inherited.plain, "x", 1, &owner, sid, NULL));
        CHECK_OK(sss_put(inherited.plain, sid, SSS_SID_LEN, "yy", 2, NULL, NULL));
        CHECK_OK(sss_get(inherited.plain, sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL));
        CHECK_OK(sss_renew(inherited.plain, sid, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
        CHECK_OK(sss_list(inherited.plain, "hammer", 6, NULL, 0, NULL));
        if (i++ % 64 == 0) {
            mine++;
        } else {
            CHECK_OK(sss_delete(inherited.plain, next, SSS_SID_LEN));
        }
        CHECK_OK(sss_create(SSS_GLOBAL, "x", 1, &owner, sid, NULL));
        CHECK_OK(sss_delete(SSS_GLOBAL, sid, SSS_SID_LEN));
        CHECK_OK(sss_open(i % 2 ? "memory:fork" : "memory:", i % 2 ? 11 : 7, &store));
        CHECK_OK(sss_sweep(store, 1, NULL));
        CHECK_OK(sss_close(store));
        CHECK_STATUS(sss_touch(inherited.stale, sid, SSS_SID_LEN, NULL), SSS_E_HANDLE);
    }
    __atomic_add_fetch(&living, mine, __ATOMIC_RELAXED);
    return NULL;
}

static void refuse_and_mint(void *ids) {
    sss_store store;
    everything_inherited(NULL);
    store = open_store("memory:fork");
    mint(store, (id_list)ids, IDS_PER_ROUND);
    CHECK_OK(sss_close(store));
    /* Valgrind would call lost what the parent's other threads had only in their registers. */
    if (getenv("SSS_TEST_VALGRIND") && !failed_here) execlp("true", "true", (char *)NULL);
}

static void fork_during_calls_keeps_ids_unique(void) {
    long n = rounds(300), i, count = n * 2 * IDS_PER_ROUND;
    pthread_t threads[THREADS];
    uintptr_t t;
    id_list ids;
    if (UNDER_ASAN) {
        skip_reason = "AddressSanitizer's allocator hangs in children that are forked while other threads allocate";
        return;
    }
    ids = new_ids(count);
    set_up();
    stop = 0, living = 0;
    for (t = 0; t < THREADS; t++) pthread_create(&threads[t], NULL, hammer, (void *)t);
    for (i = 0; i < n; i++) {
        mint(inherited.named, &ids[2 * i * IDS_PER_ROUND], IDS_PER_ROUND);
        in_child(CHILD_SECONDS, refuse_and_mint, ids[(2 * i + 1) * IDS_PER_ROUND]);
        parent_is_unharmed();
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);

    CHECK_NUM(stats_of(inherited.plain).sessions, living + 1);
    CHECK_NUM(stats_of(inherited.plain).bytes, living * 2 + 5);
    CHECK_NUM(stats_of(inherited.named).sessions, n * IDS_PER_ROUND + 1);
    CHECK_NUM(stats_of(inherited.plain).errors + stats_of(inherited.named).errors, 0);
    for (i = 0; i < n * IDS_PER_ROUND; i++) {
        CHECK_OK(peek(inherited.named, ids[i / IDS_PER_ROUND * 2 * IDS_PER_ROUND + i % IDS_PER_ROUND]));
    }
    all_differ(ids, count);
    tear_down();
}

/* SSS_GLOBAL is open at the end, and so are inherited stores in children. LeakSanitizer does not
 * search the pages of a store's own, so it takes what they point to as lost. Valgrind searches them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(child_is_refused_inherited_memory),
        TEST(child_must_reopen_global_store),
        TEST(grandchild_is_refused_inherited_memory),
        TEST(child_handles_differ_from_parents),
        TEST(buffer_is_freed_on_both_sides),
        TEST(child_may_exit),
#ifdef SYS_fork
        TEST(raw_fork_is_detected),
#endif
        TEST(child_and_parent_ids_differ),
        TEST(fork_during_calls_keeps_ids_unique),
    };
    return run_tests("fork", tests, COUNT_OF(tests), argc, argv);
}
