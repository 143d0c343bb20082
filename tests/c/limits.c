/* limits.c: payload sizes, FULL and the way out of it, max_per_principal, and memory that runs out. A living session
 * is never dropped to make room. Must not depend on when exactly a create clears expired
 * neighbours, only that it does. */
#include "check.h"
#include <sys/resource.h>

enum { MIB = 1 << 20 };

static char *filled(size_t len) {
    char *bytes = (char *)malloc(len + 1);
    size_t i;
    if (!bytes) abort();
    for (i = 0; i <= len; i++) bytes[i] = (char)(i % 251);
    return bytes;
}

static void default_max_payload_is_one_mebibyte(void) {
    sss_store store = open_store("memory:");
    char *data = filled(MIB + 1), *back = (char *)malloc(MIB);
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE];
    sss_buf buf = {NULL, 0, NULL};
    size_t len = 0;
    CHECK_OK(sss_create(store, data, MIB, NULL, sid, NULL));
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, back, MIB, &len, NULL));
    CHECK_BYTES(back, len, data, MIB);
    CHECK_STATUS(sss_create(store, data, MIB + 1, NULL, next, NULL), SSS_E_TOO_LARGE);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, data, MIB + 1, NULL, NULL), SSS_E_TOO_LARGE);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 1, data, MIB + 1, NULL, NULL), SSS_E_TOO_LARGE);
    CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, data, MIB + 1, NULL, next, NULL), SSS_E_TOO_LARGE);
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, NULL));
    CHECK_BYTES(buf.data, buf.len, data, MIB);
    sss_buf_free(&buf);
    CHECK_NUM(stats_of(store).bytes, MIB);
    CHECK_NUM(stats_of(store).rejected, 4);
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, NULL, 0, NULL, NULL));
    CHECK_NUM(stats_of(store).bytes, 0);
    CHECK_OK(sss_close(store));
    free(data);
    free(back);
}

static void max_payload_comes_from_url(void) {
    sss_store store = open_store("memory:?max_payload=4"), large = open_store("memory:?max_payload=4MiB");
    char *data = filled(4 * MIB);
    char sid[SSS_SID_SIZE];
    CHECK_OK(sss_create(store, "1234", 4, NULL, sid, NULL));
    CHECK_STATUS(sss_create(store, "12345", 5, NULL, sid, NULL), SSS_E_TOO_LARGE);
    CHECK_OK(sss_create(large, data, 4 * MIB, NULL, sid, NULL));
    CHECK_STATUS(sss_create(large, data, 4 * MIB + 1, NULL, sid, NULL), SSS_E_TOO_LARGE);
    CHECK_OK(sss_close(store));
    CHECK_OK(sss_close(large));
    free(data);
}

static void sizes_around_powers_of_two_work(void) {
    sss_store store = open_store("memory:");
    char *data = filled(MIB), *back = (char *)malloc(MIB);
    char sid[SSS_SID_SIZE];
    size_t power, len, size;
    CHECK_OK(sss_create(store, NULL, 0, NULL, sid, NULL));
    for (power = 1; power <= MIB; power *= 2) {
        for (size = power - 1; size <= power + 1 && size <= MIB; size++) {
            CHECK_OK(sss_put(store, sid, SSS_SID_LEN, data, size, NULL, NULL));
            CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, back, size, &len, NULL));
            CHECK_BYTES(back, len, data, size);
            CHECK_NUM(stats_of(store).bytes, size);
        }
    }
    CHECK_OK(sss_close(store));
    free(data);
    free(back);
}

/* ---- memory that runs out; in a child, because the limit is the process's ---- */

static void limit_memory(size_t more) {
    struct rlimit limit;
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!CHECK(file != NULL && fscanf(file, "%zu", &pages) == 1)) return;
    fclose(file);
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + more;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* Creates sessions until memory runs out; each its own principal, if `owned`. */
static void fill_with(size_t size, int owned) {
    sss_store store = open_store("memory:?max_payload=64MiB");
    sss_options options = SSS_OPTIONS_INIT;
    char *data = filled(size);
    char first[SSS_SID_SIZE], sid[SSS_SID_SIZE];
    sss_status status = SSS_OK;
    uint64_t made = 1;
    int i;
    CHECK_OK(sss_create(store, data, size, NULL, first, NULL));
    if (owned) {
        options.principal = &made; /* the number is the name */
        options.principal_len = sizeof made;
    }
    limit_memory((size_t)48 * MIB);
    while (made < 10000000 && (status = sss_create(store, data, size, &options, sid, NULL)) == SSS_OK) made++;
    CHECK_STATUS(status, SSS_E_NOMEM);
    for (i = 0; i < 100; i++) { /* a smaller step may still find memory; nothing else may come */
        status = sss_create(store, data, size, &options, sid, NULL);
        CHECK(status == SSS_OK || status == SSS_E_NOMEM);
        made += status == SSS_OK;
    }
    CHECK_NUM(stats_of(store).sessions, made);
    CHECK_NUM(stats_of(store).bytes, made * size);
    CHECK_OK(sss_touch(store, first, SSS_SID_LEN, NULL)); /* the sessions from before are still there */
    CHECK_OK(sss_delete(store, first, SSS_SID_LEN));
    CHECK_OK(sss_close(store));
    store = open_store("memory:?max_payload=64MiB"); /* the memory came back */
    CHECK_OK(sss_create(store, data, size, NULL, sid, NULL));
    CHECK_OK(sss_close(store));
    free(data);
}
static void fill_with_large(void *unused) {
    (void)unused;
    fill_with(8 * MIB, 0);
}
static void fill_with_small(void *unused) {
    (void)unused;
    fill_with(100, 0);
}
static void fill_with_owned(void *unused) {
    (void)unused;
    fill_with(10, 1);
}

/* What needs as much memory again as the session has, or as a principal has sessions. */
static void read_without_memory(void *unused) {
    sss_store store = open_store("memory:?max_payload=64MiB");
    sss_options alice = with_principal("alice");
    char *data = filled(32 * MIB);
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE], many[SSS_SID_SIZE];
    sss_buf buf = {NULL, 0, NULL};
    size_t count = 0, len = 0;
    sss_status status;
    int i;
    (void)unused;
    CHECK_OK(sss_create(store, data, 32 * MIB, NULL, sid, NULL));
    for (i = 0; i < 50000; i++) CHECK_OK(sss_create(store, NULL, 0, &alice, many, NULL));
    limit_memory((size_t)2 * MIB);
    CHECK_STATUS(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, NULL), SSS_E_NOMEM);
    CHECK(buf.data == NULL && buf.len == 0 && buf.owner == NULL);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, data, 31 * MIB, NULL, NULL), SSS_E_NOMEM);
    CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, data, 31 * MIB, NULL, next, NULL), SSS_E_NOMEM);
    status = sss_get(store, sid, SSS_SID_LEN, 0, data, 32 * MIB, &len, NULL); /* needs memory only to open a seal */
    CHECK(status == SSS_OK || (status == SSS_E_NOMEM && getenv("SSS_TEST_OPTIONS")));
    status = sss_list(store, "alice", 5, NULL, 0, &count);
    CHECK(status == SSS_E_NOMEM || (status == SSS_OK && count == 50000));
    status = sss_revoke(store, "alice", 5, NULL, 0, NULL);
    CHECK(status == SSS_E_NOMEM || (status == SSS_OK && stats_of(store).sessions == 1));
    CHECK_OK(sss_close(store));
    free(data);
}

static void limited(void (*body)(void *)) {
    if (UNDER_ASAN) skip_reason = "AddressSanitizer reserves terabytes of addresses";
    if (getenv("SSS_TEST_VALGRIND")) skip_reason = "valgrind's own memory would count";
    if (!skip_reason) in_child(60, body, NULL);
}
static void large_payload_without_memory_is_nomem(void) {
    limited(fill_with_large);
}
static void many_sessions_without_memory_is_nomem(void) {
    limited(fill_with_small);
}
static void many_principals_without_memory_is_nomem(void) {
    limited(fill_with_owned);
}
static void read_and_put_without_memory_is_nomem(void) {
    limited(read_without_memory);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(default_max_payload_is_one_mebibyte),
        TEST(max_payload_comes_from_url),
        TEST(sizes_around_powers_of_two_work),
        TEST(large_payload_without_memory_is_nomem),
        TEST(many_sessions_without_memory_is_nomem),
        TEST(many_principals_without_memory_is_nomem),
        TEST(read_and_put_without_memory_is_nomem),
    };
    return run_tests("limits", tests, COUNT_OF(tests), argc, argv);
}
