/* check.h: what every C test shares: checks that print file, line and the library's own error text, a test list,
 * and counts that survive a fork (children count into the same page). Must not hide a failure: a
 * crashed or hanging child is one, and a test without a single check is one too. Include it first,
 * it sets the feature macros. */
#ifndef CHECK_H
#define CHECK_H
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1
#endif

#include "sss.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* a well-formed id that was never created */
#define UNKNOWN_SID                                                                                                    \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"                                                 \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

#ifdef __SANITIZE_ADDRESS__
enum { UNDER_ASAN = 1 };
#else
enum { UNDER_ASAN = 0 };
#endif

struct tally {
    long checks, failed;
};
static struct tally *tally;         /* one page shared with forked children */
static long failed_here;            /* in this process only: decides a child's exit code */
static const char *test_name = "";
static const char *skip_reason;     /* set by a test that cannot run here, and printed */
enum { MAX_PRINTED_FAILURES = 20 }; /* per process; a broken library must not print a million lines */

static const struct {
    sss_status code;
    const char *name;
} status_names[] = {
    {SSS_OK, "ok"},
    {SSS_E_INVALID, "invalid"},
    {SSS_E_HANDLE, "handle"},
    {SSS_E_NOT_FOUND, "not_found"},
    {SSS_E_CONFLICT, "conflict"},
    {SSS_E_TOO_SMALL, "too_small"},
    {SSS_E_TOO_LARGE, "too_large"},
    {SSS_E_FULL, "full"},
    {SSS_E_EXISTS, "exists"},
    {SSS_E_URL, "url"},
    {SSS_E_UNSUPPORTED, "unsupported"},
    {SSS_E_IO, "io"},
    {SSS_E_UNAVAILABLE, "unavailable"},
    {SSS_E_TIMEOUT, "timeout"},
    {SSS_E_BUSY, "busy"},
    {SSS_E_CORRUPT, "corrupt"},
    {SSS_E_RANDOM, "random"},
    {SSS_E_NOMEM, "nomem"},
    {SSS_E_FORKED, "forked"},
    {SSS_E_PANIC, "panic"},
};

static inline const char *status_name(sss_status code) {
    size_t i;
    for (i = 0; i < COUNT_OF(status_names); i++) {
        if (status_names[i].code == code) return status_names[i].name;
    }
    return "(a status that the header does not have)";
}

/* ---- checks: each returns 1 or 0, so that a test can stop early: if (!CHECK(...)) return; ---- */

static inline int check_passed(void) {
    __atomic_add_fetch(&tally->checks, 1, __ATOMIC_RELAXED);
    return 1;
}

static inline int check_failed(const char *file, int line, const char *what, const char *detail) {
    char text[512];
    size_t len = 0;
    __atomic_add_fetch(&tally->checks, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&tally->failed, 1, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&failed_here, 1, __ATOMIC_RELAXED) > MAX_PRINTED_FAILURES) return 0;
    if (sss_last_error(text, sizeof text, &len) != SSS_OK || len >= sizeof text) len = 0;
    fprintf(stderr, "%s:%d: %s: %s%s%s [last error: %.*s]\n", file, line, test_name, what, detail[0] ? ": " : "", detail,
            (int)len, text);
    return 0;
}

static inline int check_true(const char *file, int line, const char *what, int ok) {
    return ok ? check_passed() : check_failed(file, line, what, "");
}

static inline int check_status(const char *file, int line, const char *what, sss_status came, sss_status expected) {
    char detail[160];
    if (came == expected) return check_passed();
    snprintf(detail, sizeof detail, "expected %s, came %s (%" PRId32 ")", status_name(expected), status_name(came), came);
    return check_failed(file, line, what, detail);
}

static inline int check_number(const char *file, int line, const char *what, int64_t came, int64_t expected) {
    char detail[160];
    if (came == expected) return check_passed();
    snprintf(detail, sizeof detail, "expected %" PRId64 ", came %" PRId64, expected, came);
    return check_failed(file, line, what, detail);
}

static inline int check_bytes(const char *file, int line, const char *what, const void *came, size_t came_len,
                              const void *expected, size_t expected_len) {
    char detail[160];
    if (came_len == expected_len && (came_len == 0 || memcmp(came, expected, came_len) == 0)) return check_passed();
    snprintf(detail, sizeof detail, "%zu bytes came, %zu expected%s", came_len, expected_len,
             came_len == expected_len ? ", contents differ" : "");
    return check_failed(file, line, what, detail);
}

#define CHECK(condition) check_true(__FILE__, __LINE__, #condition, (condition) ? 1 : 0)
#define CHECK_STATUS(call, expected) check_status(__FILE__, __LINE__, #call, (call), (expected))
#define CHECK_OK(call) CHECK_STATUS(call, SSS_OK)
#define CHECK_NUM(came, expected) check_number(__FILE__, __LINE__, #came, (int64_t)(came), (int64_t)(expected))
#define CHECK_BYTES(came, came_len, expected, expected_len)                                                            \
    check_bytes(__FILE__, __LINE__, #came, (came), (came_len), (expected), (expected_len))

/* ---- short forms of what nearly every test does ---- */

/* SSS_TEST_OPTIONS=seal=on opens all of them that way */
static inline sss_store open_store(const char *url) {
    const char *more = getenv("SSS_TEST_OPTIONS");
    sss_store store = 0;
    char full[256];
    snprintf(full, sizeof full, "%s%s%s", url, !more ? "" : strchr(url, '?') ? "&" : "?", more ? more : "");
    CHECK_OK(sss_open(full, strlen(full), &store));
    CHECK(store != 0 && store != SSS_GLOBAL);
    return store;
}

static inline void new_session(sss_store store, const char *text, const sss_options *options, char sid[SSS_SID_SIZE]) {
    CHECK_OK(sss_create(store, text, strlen(text), options, sid, NULL));
}

/* a status without a payload and without sliding */
static inline sss_status peek(sss_store store, const char *sid) {
    sss_buf buf = {NULL, 0, NULL};
    sss_status status = sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, NULL);
    sss_buf_free(&buf);
    return status;
}

#define CHECK_PAYLOAD(store, sid, text) check_payload(__FILE__, __LINE__, (store), (sid), (text), strlen(text))
static inline int check_payload(const char *file, int line, sss_store store, const char *sid, const void *data, size_t len) {
    sss_buf buf = {NULL, 0, NULL};
    sss_status status = sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, NULL);
    int good = check_status(file, line, "peek", status, SSS_OK) && check_bytes(file, line, "payload", buf.data, buf.len, data, len);
    sss_buf_free(&buf);
    return good;
}

static inline sss_options with_principal(const char *principal) {
    sss_options options = SSS_OPTIONS_INIT;
    options.principal = principal;
    options.principal_len = strlen(principal);
    return options;
}

enum { PATTERN = 0x5A };

static inline int untouched(const void *memory, size_t len) {
    const unsigned char *byte = (const unsigned char *)memory;
    while (len > 0 && *byte == PATTERN) byte++, len--;
    return len == 0;
}

/* On failure nothing of an output may have been written. */
static inline sss_status outputs_checked(sss_status status, const void *output, size_t len, const sss_meta *meta) {
    static const sss_meta initial = SSS_META_INIT;
    if (status != SSS_OK) {
        CHECK(untouched(output, len));
        if (meta) CHECK_BYTES(meta, sizeof *meta, &initial, sizeof initial);
    }
    return status;
}

static inline sss_stats_t stats_of(sss_store store) {
    sss_stats_t stats = SSS_STATS_INIT;
    CHECK_OK(sss_stats(store, &stats));
    return stats;
}

/* SSS_TEST_SCALE=10 runs a tenth of the rounds (under valgrind) */
static inline long rounds(long full) {
    const char *text = getenv("SSS_TEST_SCALE");
    long scaled = full * (text ? atol(text) : 100) / 100;
    return scaled < 1 ? 1 : scaled;
}

/* Runs body in a forked child that has `seconds` to finish; its checks count like the parent's. */
static inline void in_child(unsigned seconds, void (*body)(void *), void *arg) {
    int status = 0;
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        failed_here = 0;
        alarm(seconds);
        body(arg);
        _exit(failed_here ? 1 : 0);
    }
    if (!CHECK(pid > 0)) return;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        check_failed(__FILE__, __LINE__, "the child hangs", "");
    } else if (WIFSIGNALED(status)) {
        check_failed(__FILE__, __LINE__, "the child died of a signal", strsignal(WTERMSIG(status)));
    } else {
        check_true(__FILE__, __LINE__, "the child ended well (its failures are above)", WEXITSTATUS(status) == 0);
    }
}

static inline void open_tally(void) {
    tally = (struct tally *)mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED) abort();
}

/* The last line of every program; run.sh adds them up. The result is main()'s: a program of which
 * nothing ran has failed, unless all its tests said why they were skipped. */
static inline int close_tally(const char *program, long passed, long failed, long skipped) {
    printf("%s: %ld passed, %ld failed, %ld skipped (%ld checks)\n", program, passed, failed, skipped, tally->checks);
    munmap(tally, sizeof *tally);
    return failed || !(passed + skipped);
}

struct test {
    const char *name;
    void (*run)(void);
};
#define TEST(name) {#name, name}

/* The body of every main(): runs all tests, or those named on the command line. */
static inline int run_tests(const char *program, const struct test *tests, size_t count, int argc, char **argv) {
    long passed = 0, failed = 0, skipped = 0;
    size_t i;
    int arg, wanted;
    open_tally();
    for (i = 0; i < count; i++) {
        struct tally before = *tally;
        for (wanted = argc < 2, arg = 1; arg < argc; arg++) wanted |= strcmp(argv[arg], tests[i].name) == 0;
        if (!wanted) continue;
        test_name = tests[i].name;
        skip_reason = NULL;
        tests[i].run();
        if (skip_reason) {
            skipped++;
            printf("skip %s: %s (%s)\n", program, tests[i].name, skip_reason);
            continue;
        }
        if (tally->checks == before.checks) check_failed(__FILE__, __LINE__, "the test checked nothing", "");
        if (tally->failed == before.failed) {
            passed++;
        } else {
            failed++;
            printf("FAIL %s: %s\n", program, tests[i].name);
        }
    }
    return close_tally(program, passed, failed, skipped);
}

#endif
