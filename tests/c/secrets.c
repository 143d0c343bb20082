/* secrets.c: what a call leaves behind in memory. Each call runs on a thread whose stack is ours, and that stack is
 * searched when the thread has ended. Must not print what it looks for. */
#include "check.h"

enum {
    STACK = 1 << 20,
    /* longer than any register: the dynamic linker saves those, and what a caller passed may be in them */
    RUN = 80
};

static sss_store store;
static char sid[SSS_SID_SIZE], new_sid[SSS_SID_SIZE];
static sss_status status;

static void *create(void *unused) {
    status = sss_create(store, "hello", 5, NULL, sid, NULL);
    return unused;
}

static void *renew(void *unused) {
    status = sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, new_sid, NULL);
    return unused;
}

static int holds(const char *memory, size_t len, const char *secret) {
    size_t at, from;
    for (at = 0; at + RUN <= len; at++)
        for (from = 0; from + RUN <= SSS_SID_LEN; from++)
            if (memory[at] == secret[from] && memcmp(memory + at, secret + from, RUN) == 0) return 1;
    return 0;
}

/* runs the call on a stack of its own, and looks for the id there */
static void leaves_no_copy_of(void *(*call)(void *), const char *secret) {
    pthread_attr_t attributes;
    pthread_t thread;
    char *stack = (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == (char *)MAP_FAILED) abort();
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, STACK)) abort();
    if (pthread_create(&thread, &attributes, call, NULL) || pthread_join(thread, NULL)) abort();
    CHECK_OK(status);
    /* valgrind forbids to look at a stack that is no longer used; the calls themselves it watches */
    if (!getenv("SSS_TEST_VALGRIND")) CHECK(!holds(stack, STACK, secret));
    (void)pthread_attr_destroy(&attributes);
    (void)munmap(stack, STACK);
}

static void no_id_is_left_on_stack(void) {
    store = open_store("memory:");
    leaves_no_copy_of(create, sid);
    leaves_no_copy_of(renew, new_sid);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(no_id_is_left_on_stack),
    };
    return run_tests("secrets", tests, COUNT_OF(tests), argc, argv);
}
