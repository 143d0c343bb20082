/* errors.c: every status that a caller can provoke here, required and optional outputs, sss_last_error,
 * sss_strerror, version numbers. Must not pin the wording of messages, only what they name and what
 * they never hold. */
#include "check.h"

static const char *last_error(void) {
    static char text[1024];
    size_t len = 0;
    CHECK_OK(sss_last_error(text, sizeof text, &len));
    CHECK(len < sizeof text && strlen(text) == len);
    return text;
}

static sss_status open_url(const char *url) {
    sss_store store = 4711;
    sss_status status = sss_open(url, strlen(url), &store);
    if (status == SSS_OK) {
        CHECK_OK(sss_close(store));
    } else {
        CHECK(store == 4711); /* written only on success */
    }
    return status;
}

static void version_macros_match_library(void) {
    char text[32];
    CHECK_NUM(sss_version(), SSS_VERSION);
    CHECK_NUM(sss_version(), (SSS_VERSION_MAJOR << 16) | (SSS_VERSION_MINOR << 8) | SSS_VERSION_PATCH);
    CHECK(strcmp(sss_version_string(), SSS_VERSION_STRING) == 0);
    snprintf(text, sizeof text, "%d.%d.%d", SSS_VERSION_MAJOR, SSS_VERSION_MINOR, SSS_VERSION_PATCH);
    CHECK(strcmp(sss_version_string(), text) == 0);
}

static void statuses_have_distinct_texts(void) {
    static const sss_status unknown[] = {1, 2, 19, 1000, -20, -21, -1000, INT32_MAX, INT32_MIN};
    size_t i, k;
    CHECK_NUM(COUNT_OF(status_names), 20);
    for (i = 0; i < COUNT_OF(status_names); i++) {
        const char *text = sss_strerror(status_names[i].code);
        if (!CHECK(text != NULL && text[0] != '\0')) continue;
        CHECK(text == sss_strerror(status_names[i].code)); /* static: it may be kept */
        CHECK_NUM(status_names[i].code, -(int)i);
        for (k = 0; k < i; k++) CHECK(strcmp(text, sss_strerror(status_names[k].code)) != 0);
    }
    for (i = 0; i < COUNT_OF(unknown); i++) {
        const char *text = sss_strerror(unknown[i]);
        CHECK(text != NULL && text[0] != '\0');
        CHECK(text != NULL && strcmp(text, sss_strerror(SSS_OK)) != 0);
    }
}

static void url_errors_name_the_part(void) {
    static const struct {
        const char *url;
        sss_status status;
        const char *culprit;
    } cases[] = {
        {"", SSS_E_URL, ""},
        {"nosuchscheme:", SSS_E_URL, "nosuchscheme"},
        {"memory", SSS_E_URL, "memory"},
        {"memory:bad name", SSS_E_URL, ""},
        {"memory:?colour=blue", SSS_E_URL, "colour"},
        {"memory:?timeout=1s&timeout=2s", SSS_E_URL, "timeout"},
        {"memory:?timeout=0", SSS_E_URL, "timeout"},
        {"memory:?timeout=-1s", SSS_E_URL, "timeout"},
        {"memory:?idle_timeout=5x", SSS_E_URL, "idle_timeout"},
        {"memory:?timeout=", SSS_E_URL, "timeout"},
        {"memory:?max_payload=0", SSS_E_URL, "max_payload"},
        {"memory:?clock=sundial", SSS_E_URL, "clock"},
        {"lmdb:sessions", SSS_E_URL, "'/'"},
        {"lmdb:/nowhere/at/all", SSS_E_IO, "directory"},
        {"lmdb:/dev/null", SSS_E_IO, "directory"},
        {"redis://localhost/x", SSS_E_URL, "database"},
        {"memory:?timeout=10s&idle_timeout=infinity&max_payload=64KiB&max_sessions=10&clock=manual", SSS_OK, ""},
        {"memory:name.of-a_store1", SSS_OK, ""},
    };
    sss_store store = 0;
    size_t i;
    for (i = 0; i < COUNT_OF(cases); i++) {
        if (!CHECK_STATUS(open_url(cases[i].url), cases[i].status)) fprintf(stderr, "  with the URL \"%s\"\n", cases[i].url);
        if (cases[i].status != SSS_OK) CHECK(strstr(last_error(), cases[i].culprit) != NULL);
    }
    CHECK_STATUS(sss_open("memory:\0", 8, &store), SSS_E_URL); /* a NUL is no name */
}

static void messages_contain_no_secret(void) {
    static const char *const urls[] = {
        "redis://user:hunter2@localhost/x", "rediss://:hunter2@localhost:70000", "nosuchscheme://user:hunter2@host",
        "memory:?hunter2=1&timeout=x", "memory:?password=hunter2", "redis://localhost?secret=hunter2",
    };
    sss_store store = open_store("memory:?max_payload=8");
    char sid[SSS_SID_SIZE], dead[SSS_SID_SIZE];
    size_t i;
    for (i = 0; i < COUNT_OF(urls); i++) {
        CHECK(open_url(urls[i]) != SSS_OK);
        if (i != 3) CHECK(strstr(last_error(), "hunter2") == NULL); /* 3: the name of an option is no secret */
        CHECK(strchr(last_error(), '\n') == NULL);
    }
    new_session(store, "x", NULL, sid);
    new_session(store, "x", NULL, dead);
    CHECK_OK(sss_delete(store, dead, SSS_SID_LEN));
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "payload-canary", 14, NULL, NULL), SSS_E_TOO_LARGE);
    CHECK(strstr(last_error(), "canary") == NULL);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 9, "x", 1, NULL, NULL), SSS_E_CONFLICT);
    for (i = 0; i + 8 <= SSS_SID_LEN; i++) {
        char piece[9] = {0};
        memcpy(piece, sid + i, 8);
        CHECK(strstr(last_error(), piece) == NULL);
    }
    CHECK_STATUS(sss_touch(store, dead, SSS_SID_LEN, NULL), SSS_E_NOT_FOUND);
    for (i = 0; i + 8 <= SSS_SID_LEN; i++) {
        char piece[9] = {0};
        memcpy(piece, dead + i, 8);
        CHECK(strstr(last_error(), piece) == NULL);
    }
    CHECK_OK(sss_close(store));
}

static void null_required_output_is_invalid(void) {
    sss_store store = open_store("memory:");
    sss_stats_t before = stats_of(store), after;
    char sid[SSS_SID_SIZE];
    CHECK_STATUS(sss_open("memory:", 7, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_create(store, "x", 1, NULL, NULL, NULL), SSS_E_INVALID);
    after = stats_of(store); /* no session without a known id */
    CHECK_NUM(after.sessions, before.sessions);
    CHECK_NUM(after.created, before.created);
    new_session(store, "x", NULL, sid);
    CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, NULL, NULL), SSS_E_INVALID);
    CHECK_PAYLOAD(store, sid, "x");
    CHECK_STATUS(sss_get_buf(store, sid, SSS_SID_LEN, 0, NULL, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_ref(store, sid, SSS_SID_LEN, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_delete_ref(store, NULL, NULL, 0), SSS_E_INVALID);
    CHECK_STATUS(sss_stats(store, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_may_block(store, NULL), SSS_E_INVALID);
    CHECK_OK(sss_close(store));
}

static void unwanted_outputs_may_be_null(void) {
    sss_store store = open_store("memory:");
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE], buf[8];
    sss_buf lent = {NULL, 0, NULL};
    CHECK_OK(sss_create(store, "x", 1, NULL, sid, NULL));
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL));
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, 0, &lent, NULL));
    sss_buf_free(&lent);
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "y", 1, NULL, NULL));
    CHECK_OK(sss_put_if(store, sid, SSS_SID_LEN, 2, "z", 1, NULL, NULL));
    CHECK_OK(sss_touch(store, sid, SSS_SID_LEN, NULL));
    CHECK_OK(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, next, NULL));
    CHECK_OK(sss_sweep(store, 1, NULL));
    CHECK_OK(sss_list(store, "a", 1, NULL, 0, NULL));
    CHECK_OK(sss_revoke(store, "a", 1, NULL, 0, NULL));
    CHECK_STATUS(sss_last_error(buf, 0, NULL), strlen(last_error()) ? SSS_E_TOO_SMALL : SSS_OK);
    CHECK_OK(sss_close(store));
}

static void argument_rules_are_enforced(void) {
    sss_store store = open_store("memory:");
    sss_store manual = open_store("memory:?clock=manual");
    sss_options options = SSS_OPTIONS_INIT, both = with_principal("alice"), none = with_principal("");
    char sid[SSS_SID_SIZE], next[SSS_SID_SIZE];
    new_session(store, "x", NULL, sid);

    CHECK_STATUS(sss_create(store, "x", 1, &none, next, NULL), SSS_E_INVALID); /* empty, but not NULL */
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, &none, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &none, next, NULL), SSS_E_INVALID);
    options.flags = both.flags = SSS_CLEAR_PRINCIPAL;
    CHECK_STATUS(sss_create(store, "x", 1, &options, next, NULL), SSS_E_INVALID); /* nothing to clear yet */
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, &both, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 1, "x", 1, &both, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &both, next, NULL), SSS_E_INVALID);

    options.flags = 0;
    options.grace_ms = 1; /* only renew has one */
    CHECK_STATUS(sss_create(store, "x", 1, &options, next, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL), SSS_E_INVALID);
    CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 1, "x", 1, &options, NULL), SSS_E_INVALID);
    options.grace_ms = -1;
    CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &options, next, NULL), SSS_E_INVALID);
    CHECK_PAYLOAD(store, sid, "x");

    CHECK_STATUS(sss_advance_clock(store, 1), SSS_E_UNSUPPORTED); /* clock=system */
    CHECK_STATUS(sss_advance_clock(manual, -1), SSS_E_INVALID);
    CHECK_STATUS(sss_advance_clock(manual, INT64_MIN), SSS_E_INVALID);
    CHECK_OK(sss_advance_clock(manual, 0));
    CHECK_OK(sss_close(manual));
    CHECK_OK(sss_close(store));
}

static void named_store_with_other_clock_is_exists(void) {
    sss_store store = open_store("memory:errors?clock=manual");
    CHECK_STATUS(open_url("memory:errors?clock=system"), SSS_E_EXISTS);
    CHECK_STATUS(open_url("memory:errors?clock=manual"), SSS_OK);
    CHECK_STATUS(open_url("memory:errors"), SSS_OK); /* follows what is there */
    CHECK_OK(sss_close(store));
    CHECK_STATUS(open_url("memory:errors?clock=system"), SSS_OK); /* gone with its last handle */
}

static void clock_saturates(void) {
    sss_store store = open_store("memory:?clock=manual");
    sss_options forever = SSS_OPTIONS_INIT, nearly = SSS_OPTIONS_INIT;
    char sid[2][SSS_SID_SIZE];
    int i;
    forever.timeout_ms = forever.idle_timeout_ms = SSS_FOREVER;
    nearly.timeout_ms = nearly.idle_timeout_ms = SSS_FOREVER - 1;
    new_session(store, "x", &forever, sid[0]);
    new_session(store, "x", &nearly, sid[1]);
    for (i = 0; i < 3; i++) {
        sss_status status = sss_advance_clock(store, INT64_MAX);
        CHECK(status == SSS_OK || status == SSS_E_INVALID);
        (void)sss_touch(store, sid[1], SSS_SID_LEN, NULL);
        CHECK_OK(sss_touch(store, sid[0], SSS_SID_LEN, NULL));
    }
    CHECK_OK(sss_close(store));
}

static void last_error_starts_empty(void) {
    size_t len = 99;
    char text[8] = "!!!";
    CHECK_OK(sss_last_error(NULL, 0, &len));
    CHECK_NUM(len, 0);
    len = 99;
    CHECK_OK(sss_last_error(text, sizeof text, &len));
    CHECK_NUM(len, 0);
    CHECK(text[0] == '\0');
}

static void last_error_fits_any_buffer(void) {
    char text[512], full[512];
    size_t full_len = 0, len, cap;
    CHECK_STATUS(sss_close(0), SSS_E_HANDLE);
    CHECK_OK(sss_last_error(full, sizeof full, &full_len));
    if (!CHECK(full_len > 0 && full_len < sizeof full && full[full_len] == '\0' && strlen(full) == full_len)) return;
    CHECK(strchr(full, '\n') == NULL);
    for (cap = 0; cap <= full_len + 2; cap++) {
        memset(text, '!', sizeof text);
        len = 0;
        CHECK_STATUS(sss_last_error(text, cap, &len), cap < full_len ? SSS_E_TOO_SMALL : SSS_OK);
        CHECK_NUM(len, full_len);
        if (cap < full_len) {
            CHECK(text[0] == '!');
        } else {
            CHECK_BYTES(text, full_len, full, full_len); /* and TOO_SMALL above did not replace the text */
            CHECK(text[full_len] == (cap > full_len ? '\0' : '!'));
        }
        CHECK(text[full_len + 1] == '!');
    }
    CHECK_STATUS(sss_last_error(NULL, 0, &len), SSS_E_TOO_SMALL);
}

static void last_error_keeps_latest_failure(void) {
    char first[512];
    sss_store store;
    CHECK_STATUS(open_url("memory:?timeout=never"), SSS_E_URL);
    strcpy(first, last_error());
    store = open_store("memory:");
    CHECK(strcmp(first, last_error()) == 0);
    CHECK_STATUS(sss_put_if(store, UNKNOWN_SID, SSS_SID_LEN, 1, "x", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK(last_error()[0] != '\0' && strcmp(first, last_error()) != 0);
    CHECK_OK(sss_close(store));
}

static void *fail_in_another_thread(void *unused) {
    (void)unused;
    last_error_starts_empty();
    CHECK_STATUS(open_url("memory:?other_thread=1"), SSS_E_URL);
    CHECK(strstr(last_error(), "other_thread") != NULL);
    return NULL;
}

static void last_error_is_per_thread(void) {
    pthread_t thread;
    CHECK_STATUS(open_url("memory:?this_thread=1"), SSS_E_URL);
    if (!CHECK(pthread_create(&thread, NULL, fail_in_another_thread, NULL) == 0)) return;
    pthread_join(thread, NULL);
    CHECK(strstr(last_error(), "this_thread") != NULL);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(last_error_starts_empty), /* stays the first */
        TEST(version_macros_match_library),
        TEST(statuses_have_distinct_texts),
        TEST(url_errors_name_the_part),
        TEST(messages_contain_no_secret),
        TEST(null_required_output_is_invalid),
        TEST(unwanted_outputs_may_be_null),
        TEST(argument_rules_are_enforced),
        TEST(named_store_with_other_clock_is_exists),
        TEST(clock_saturates),
        TEST(last_error_fits_any_buffer),
        TEST(last_error_keeps_latest_failure),
        TEST(last_error_is_per_thread),
    };
    return run_tests("errors", tests, COUNT_OF(tests), argc, argv);
}
