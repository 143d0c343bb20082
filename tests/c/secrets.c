/* secrets.c: what calls leave behind in memory. Each call runs on a thread whose stack is ours, and that stack is searched
 * when the thread has ended. A payload lies only in pages that neither core dumps nor forked
 * children get. Must not print what it looks for. */
#include "test_store.h"
#include <fcntl.h>

enum {
    STACK = 1 << 20,
    RUN = 16, /* so many bytes of a secret in a row are a copy of it */
    PAYLOAD = 4096
};

static sss_store store;
static char sid[SSS_SID_SIZE], new_sid[SSS_SID_SIZE];
static unsigned char payload[PAYLOAD], buffer[PAYLOAD];
static sss_status status;

static void *create(void *unused) {
    status = sss_create(store, payload, PAYLOAD, NULL, sid, NULL);
    return unused;
}

static void *get(void *unused) {
    status = sss_get(store, sid, SSS_SID_LEN, 0, buffer, PAYLOAD, NULL, NULL);
    return unused;
}

static void *get_buf(void *unused) {
    sss_buf buf = {NULL, 0, NULL};
    status = sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, NULL);
    sss_buf_free(&buf);
    return unused;
}

static void *put(void *unused) {
    status = sss_put(store, sid, SSS_SID_LEN, payload, PAYLOAD, NULL, NULL);
    return unused;
}

static void *touch(void *unused) {
    status = sss_touch(store, sid, SSS_SID_LEN, NULL);
    return unused;
}

static void *renew(void *unused) {
    sss_options grace = SSS_OPTIONS_INIT;
    grace.grace_ms = 3600000;
    status = sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &grace, new_sid, NULL);
    return unused;
}

static void *get_by_old_id(void *unused) {
    return get(unused);
}

static void *renew_with_payload(void *unused) {
    status = sss_renew(store, new_sid, SSS_SID_LEN, payload, PAYLOAD, NULL, sid, NULL);
    return unused;
}

static void *delete_session(void *unused) {
    status = sss_delete(store, sid, SSS_SID_LEN);
    return unused;
}

/* Whether RUN bytes in a row of a secret are in a memory. */
static int holds(const unsigned char *memory, size_t len, const void *secret, size_t secret_len) {
    const unsigned char *wanted = (const unsigned char *)secret;
    size_t at, from;
    for (at = 0; at + RUN <= len; at++) {
        if (memory[at] == 0) continue; /* no secret of ours has zeros */
        for (from = 0; from + RUN <= secret_len; from++) {
            if (memory[at] == wanted[from] && memcmp(memory + at, wanted + from, RUN) == 0) return 1;
        }
    }
    return 0;
}

static void leaves_nothing_on_stack(const char *name, void *(*call)(void *)) {
    pthread_attr_t attributes;
    pthread_t thread;
    unsigned char *stack = (unsigned char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == (unsigned char *)MAP_FAILED) abort();
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, STACK)) abort();
    if (pthread_create(&thread, &attributes, call, NULL) || pthread_join(thread, NULL)) abort();
    CHECK_OK(status);
    /* valgrind forbids to look at a stack that is no longer used; the calls themselves it watches */
    if (!getenv("SSS_TEST_VALGRIND")) {
        int id_is_left = holds(stack, STACK, sid, SSS_SID_LEN) || holds(stack, STACK, new_sid, SSS_SID_LEN);
        int payload_is_left = holds(stack, STACK, payload, PAYLOAD);
        if (id_is_left) check_failed(__FILE__, __LINE__, name, "a part of an id is left on the stack");
        if (payload_is_left) check_failed(__FILE__, __LINE__, name, "a part of the payload is left on the stack");
    }
    (void)pthread_attr_destroy(&attributes);
    (void)munmap(stack, STACK);
}

static void fill_payload(unsigned seed) {
    size_t i;
    for (i = 0; i < PAYLOAD; i++) {
        seed = seed * 1103515245u + 12345u;
        payload[i] = (unsigned char)((seed >> 16) | 1);
    }
}

/* The first round is not looked at: the dynamic linker saves registers when it resolves a function. */
static void calls_leave_nothing_on_stack(void) {
    static const struct {
        const char *name;
        void *(*call)(void *);
    } calls[] = {
        {"create", create},
        {"get", get},
        {"get_buf", get_buf},
        {"put", put},
        {"touch", touch},
        {"renew", renew},
        {"get by old id", get_by_old_id},
        {"renew with payload", renew_with_payload},
        {"delete", delete_session},
    };
    static const char *const options[] = {"", "seal=on"};
    struct test_store place;
    size_t i, k;
    for (k = 0; k < COUNT_OF(options); k++) {
        place = new_test_store(engine_under_test());
        store = open_test_store(&place, options[k]);
        fill_payload(1);
        for (i = 0; i < COUNT_OF(calls); i++) calls[i].call(NULL);
        fill_payload(2);
        for (i = 0; i < COUNT_OF(calls); i++) leaves_nothing_on_stack(calls[i].name, calls[i].call);
        CHECK_OK(sss_close(store));
        remove_test_store(&place);
    }
}

#ifdef __linux__
/* Looks through this process's writable memory for the payload, but for `ours`. Returns how many mappings have it; in
 * *exposed, how many of these are in core dumps or in forked children. */
static int mappings_with_payload(const unsigned char *secret, size_t len, const void *ours, int *exposed) {
    FILE *maps = fopen("/proc/self/smaps", "r");
    int memory = open("/proc/self/mem", O_RDONLY);
    unsigned long from = 0, to = 0;
    int found = 0, has_payload = 0;
    char line[512], access[8] = "";
    *exposed = 0;
    if (!maps || memory < 0) abort();
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) == 3 && strchr(line, '-') && line[0] != 'V') {
            unsigned long at;
            static unsigned char page[4096];
            has_payload = 0;
            if (strstr(line, "[stack]")) continue; /* this test's own registers may be saved there */
            for (at = from; access[1] == 'w' && at < to && !has_payload; at += sizeof page) {
                unsigned long own = (unsigned long)(uintptr_t)page;
                if (at < own + sizeof page && own < at + sizeof page) continue;
                if (pread(memory, page, sizeof page, (off_t)at) != (ssize_t)sizeof page) break;
                has_payload = holds(page, sizeof page, secret, len < 64 ? len : 64);
            }
            if (ours && (unsigned long)(uintptr_t)ours >= from && (unsigned long)(uintptr_t)ours < to) has_payload = 0;
            found += has_payload;
        } else if (has_payload && strncmp(line, "VmFlags:", 8) == 0) {
            *exposed += !strstr(line, " dd") || !strstr(line, " wf");
        }
    }
    fclose(maps);
    close(memory);
    return found;
}

static unsigned char *secret; /* in a mapping of its own */

static void look_for_payload_in_child(void *len) {
    int exposed, found = mappings_with_payload(secret, *(size_t *)len, secret, &exposed);
    CHECK_NUM(found, 0);
}

static void payloads_are_in_private_pages_only(void) {
    static const size_t sizes[] = {100, 9000, 20000, 40000, 1 << 20};
    char id[SSS_SID_SIZE];
    size_t i, k;
    int exposed, found;
    if (UNDER_ASAN || getenv("SSS_TEST_VALGRIND")) {
        skip_reason = "the tool keeps copies of its own";
        return;
    }
    if (getenv("SSS_TEST_OPTIONS")) {
        skip_reason = "the test searches for plaintext, which a sealed store does not keep";
        return;
    }
    store = open_store("memory:?seal=off");
    for (i = 0; i < COUNT_OF(sizes); i++) {
        secret = (unsigned char *)mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (secret == (unsigned char *)MAP_FAILED) abort();
        for (k = 0; k < sizes[i]; k++) secret[k] = (unsigned char)((k * 7 + i * 31 + k / 200) | 1);
        CHECK_OK(sss_create(store, secret, sizes[i], NULL, id, NULL));
        found = mappings_with_payload(secret, sizes[i], secret, &exposed);
        CHECK_NUM(found, 1);
        CHECK_NUM(exposed, 0);
        in_child(60, look_for_payload_in_child, (void *)(uintptr_t)&sizes[i]);
        CHECK_OK(sss_delete(store, id, SSS_SID_LEN));
        CHECK_NUM(mappings_with_payload(secret, sizes[i], secret, &exposed), 0);
        munmap(secret, 2 << 20);
    }
    CHECK_OK(sss_close(store));
}
#endif

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(calls_leave_nothing_on_stack),
#ifdef __linux__
        TEST(payloads_are_in_private_pages_only),
#endif
    };
    return run_tests("secrets", tests, COUNT_OF(tests), argc, argv);
}
