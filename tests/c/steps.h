/* steps.h: the verbs of a conformance step: each reads its words, makes one call, and leaves in `got` what came. A call
 * that fails must not have written its outputs. Must not judge a result: that is what the checks in
 * the data are for. */
#ifndef STEPS_H
#define STEPS_H
#include "words.h"

static int through_buf; /* get and peek by sss_get_buf */

/* What a step gave, for its checks. */
static struct {
    sss_status status;
    sss_meta meta;
    int has_meta, has_len, has_count, has_stats;
    unsigned char *data; /* freed after the step */
    size_t len;
    uint64_t count;
    sss_entry *entries; /* freed after the step */
    sss_stats_t stats;
} got;

/* ---- verbs; word[1] is the handle, `store` its value ---- */

static sss_store store;

static inline int with_meta(sss_status status) {
    got.has_meta = status == SSS_OK;
    outputs_checked(status, NULL, 0, &got.meta);
    got.status = status;
    return 1;
}

static inline int do_open(void) {
    char options[MAX_LINE] = "", url[MAX_LINE];
    int i, clock_given = 0;
    size_t used = 0;
    sss_store opened = 4711;
    struct handle *handle;
    for (i = 2; i < step.arrow; i++) {
        clock_given |= starts_with(step.word[i], "clock=");
        used += (size_t)snprintf(options + used, sizeof options - used, "%s%s", i == 2 ? "" : "&", step.word[i]);
    }
    if (!clock_given) snprintf(options + used, sizeof options - used, "%sclock=manual", i == 2 ? "" : "&");
    got.status = sss_open(url, url_of(&world.test_store, options, url, sizeof url), &opened);
    if (got.status != SSS_OK) return CHECK(opened == 4711);
    if (!(handle = handle_named(step.word[1], 1))) return 0;
    if (handle->open) return fail("%s is open already", handle->name);
    handle->store = opened;
    return handle->open = 1;
}

static inline int do_url(void) {
    const char *text = step.word[1];
    size_t len = strlen(text);
    sss_store opened = 4711;
    if (len < 2 || text[0] != '"' || text[len - 1] != '"') return fail("no quoted URL: %s", text);
    got.status = sss_open(text + 1, len - 2, &opened);
    if (got.status != SSS_OK) return CHECK(opened == 4711);
    return CHECK_OK(sss_close(opened));
}

static inline int do_close(void) {
    size_t i;
    got.status = sss_close(store);
    for (i = 0; i < MAX_NAMES && got.status == SSS_OK; i++) {
        if (world.handles[i].store == store) world.handles[i].open = 0;
    }
    return 1;
}

static inline int do_advance(void) {
    int64_t ms;
    if (!duration(step.word[2], &ms)) return 0;
    got.status = sss_advance_clock(store, ms);
    if (got.status == SSS_OK) world.advanced_ms += ms;
    return 1;
}

static inline int do_create(void) {
    struct options options;
    unsigned char *data = NULL;
    size_t len;
    char sid[SSS_SID_SIZE];
    int good = bytes(step.word[3], &data, &len) & options_from(4, &options);
    memset(sid, PATTERN, sizeof sid);
    if (good) {
        with_meta(outputs_checked(sss_create(store, data, len, &options.c, sid, &got.meta), sid, sizeof sid, NULL));
        if (got.status == SSS_OK) good = set_variable(step.word[2], sid, SSS_SID_LEN);
        if (got.status == SSS_OK && !world.has_origin) {
            world.has_origin = 1;
            world.origin_ms = got.meta.created_ms - world.advanced_ms;
        }
    }
    free(data);
    free_options(&options);
    return good;
}

static inline uint32_t access_flags(void) {
    return strcmp(step.word[0], "peek") == 0 ? SSS_PEEK : 0;
}

static inline int read_with_capacity(size_t cap) {
    const char *sid;
    size_t sid_len;
    if (!id_of(step.word[2], &sid, &sid_len)) return 0;
    if (!(got.data = (unsigned char *)malloc(cap))) abort(); /* exactly: tools see a byte too many */
    memset(got.data, PATTERN, cap);
    with_meta(outputs_checked(sss_get(store, sid, sid_len, access_flags(), got.data, cap, &got.len, &got.meta), got.data, cap, NULL));
    got.has_len = got.status == SSS_OK || got.status == SSS_E_TOO_SMALL;
    return got.has_len || CHECK(got.len == 0);
}

static inline int do_get(void) {
    sss_buf buf = {NULL, 0, NULL};
    const char *sid;
    size_t sid_len;
    if (!through_buf) return read_with_capacity(MAX_PAYLOAD);
    if (!id_of(step.word[2], &sid, &sid_len)) return 0;
    with_meta(sss_get_buf(store, sid, sid_len, access_flags(), &buf, &got.meta));
    if (got.status != SSS_OK) return CHECK(buf.data == NULL && buf.len == 0 && buf.owner == NULL);
    got.has_len = 1;
    got.len = buf.len;
    if (!(got.data = (unsigned char *)malloc(buf.len + 1))) abort();
    memcpy(got.data, buf.data, buf.len);
    sss_buf_free(&buf);
    return 1;
}

static inline int do_get_cap(void) {
    uint64_t cap;
    return number(step.word[3], &cap) && read_with_capacity((size_t)cap);
}

static inline int do_put(void) {
    int if_version = strcmp(step.word[0], "put_if") == 0;
    struct options options;
    unsigned char *data = NULL;
    const char *sid;
    size_t len, sid_len;
    uint64_t version = 0;
    int good = bytes(step.word[3 + if_version], &data, &len) & options_from(4 + if_version, &options);
    good = good && id_of(step.word[2], &sid, &sid_len) && (!if_version || number(step.word[3], &version));
    if (good)
        with_meta(if_version ? sss_put_if(store, sid, sid_len, version, data, len, &options.c, &got.meta)
                             : sss_put(store, sid, sid_len, data, len, &options.c, &got.meta));
    free(data);
    free_options(&options);
    return good;
}

static inline int do_touch(void) {
    const char *sid;
    size_t len;
    return id_of(step.word[2], &sid, &len) && with_meta(sss_touch(store, sid, len, &got.meta));
}

static inline int do_renew(void) {
    struct options options;
    const char *sid;
    size_t len;
    char renewed[SSS_SID_SIZE];
    int good = options_from(4, &options) && id_of(step.word[2], &sid, &len);
    memset(renewed, PATTERN, sizeof renewed);
    if (good) {
        sss_status status = sss_renew(store, sid, len, options.data, options.data_len, &options.c, renewed, &got.meta);
        with_meta(outputs_checked(status, renewed, sizeof renewed, NULL));
        if (got.status == SSS_OK) good = set_variable(step.word[3], renewed, SSS_SID_LEN);
    }
    free_options(&options);
    return good;
}

static inline int do_delete(void) {
    const char *sid;
    size_t len;
    if (!id_of(step.word[2], &sid, &len)) return 0;
    got.status = sss_delete(store, sid, len);
    return 1;
}

static inline int do_ref(void) {
    uint8_t ref[SSS_REF_LEN];
    const char *sid;
    size_t len;
    memset(ref, PATTERN, sizeof ref);
    if (!id_of(step.word[2], &sid, &len)) return 0;
    got.status = outputs_checked(sss_ref(store, sid, len, ref), ref, sizeof ref, NULL);
    return got.status != SSS_OK || set_variable(step.word[3], ref, sizeof ref);
}

static inline int do_delete_ref(void) {
    uint8_t ref[SSS_REF_LEN];
    unsigned char *principal = NULL;
    size_t len = 0;
    int i, good = reference_of(step.word[2], ref);
    for (i = 3; i < step.arrow && good; i++) {
        good = starts_with(step.word[i], "principal=") && !principal ? bytes(step.word[i] + 10, &principal, &len)
                                                                     : fail("unknown option: %s", step.word[i]);
    }
    if (good) got.status = sss_delete_ref(store, ref, principal, len);
    free(principal);
    return good;
}

static inline int do_touch_ref(void) {
    uint8_t ref[SSS_REF_LEN];
    uint32_t flags = strcmp(step.word[0], "peek_ref") == 0 ? SSS_PEEK : 0;
    return reference_of(step.word[2], ref) && with_meta(sss_touch_ref(store, ref, flags, &got.meta));
}

static inline int do_revoke_all(void) {
    memset(&got.count, PATTERN, sizeof got.count);
    got.status = outputs_checked(sss_revoke_all(store, &got.count), &got.count, sizeof got.count, NULL);
    return got.has_count = 1;
}

static inline int do_sweep(void) {
    uint64_t max;
    if (!number(step.word[2], &max)) return 0;
    memset(&got.count, PATTERN, sizeof got.count);
    got.status = outputs_checked(sss_sweep(store, max, &got.count), &got.count, sizeof got.count, NULL);
    return got.has_count = 1;
}

static inline int do_list(void) {
    unsigned char *principal;
    size_t len, count = 0, cap;
    int good = bytes(step.word[2], &principal, &len);
    if (good) {
        got.status = sss_list(store, principal, len, NULL, 0, &count);
        cap = count;
        if (!(got.entries = (sss_entry *)malloc(cap * sizeof *got.entries + 1))) abort();
        if (got.status == SSS_OK)
            good = CHECK_OK(sss_list(store, principal, len, got.entries, cap, &count)) && CHECK(count == cap);
        got.count = count;
        got.has_count = 1;
    }
    free(principal);
    return good;
}

static inline int do_revoke(void) {
    unsigned char *principal;
    const char *except = NULL;
    size_t len, except_len = 0;
    int good = bytes(step.word[2], &principal, &len), i;
    for (i = 3; i < step.arrow && good; i++) {
        good = starts_with(step.word[i], "except=") ? id_of(step.word[i] + 7, &except, &except_len)
                                                    : fail("unknown option: %s", step.word[i]);
    }
    memset(&got.count, PATTERN, sizeof got.count);
    if (good) {
        got.status = sss_revoke(store, principal, len, except, except_len, &got.count);
        outputs_checked(got.status, &got.count, sizeof got.count, NULL);
    }
    free(principal);
    got.has_count = 1;
    return good;
}

static inline int do_stats(void) {
    got.status = sss_stats(store, &got.stats);
    return got.has_stats = 1;
}

static inline int do_status(void) {
    uint64_t magnitude; /* the code is 0 or negative */
    sss_status code;
    size_t i;
    if (!number(step.word[2] + (step.word[2][0] == '-'), &magnitude)) return 0;
    code = -(sss_status)magnitude;
    for (i = 0; i < COUNT_OF(status_names); i++) {
        if (strcmp(status_names[i].name, step.word[1]) != 0) continue;
        if (status_names[i].code != code) return fail("%s is %" PRId32 " in sss.h", step.word[1], status_names[i].code);
        return sss_strerror(code)[0] ? 1 : fail("the text is empty");
    }
    return fail("unknown status: %s", step.word[1]);
}

static inline int do_compare(void) {
    struct variable *a = variable(step.word[1], 0), *b = variable(step.word[2], 0);
    int same;
    if (!a || !b) return 0;
    same = a->len == b->len && memcmp(a->value, b->value, a->len) == 0;
    return same == (strcmp(step.word[0], "same") == 0) ? 1 : fail("they are %s", same ? "equal" : "different");
}

enum arrow { NEVER, MAY, ALWAYS };
static const struct verb {
    const char *name;
    int words; /* fewest, with the verb; more are options, if `options` */
    int options, handle;
    enum arrow arrow;
    int (*run)(void);
} verbs[] = {
    {"open", 2, 1, 0, MAY, do_open},        {"url", 2, 0, 0, ALWAYS, do_url},         {"close", 2, 0, 1, MAY, do_close},
    {"advance", 3, 0, 1, MAY, do_advance},  {"create", 4, 1, 1, ALWAYS, do_create},   {"get", 3, 0, 1, ALWAYS, do_get},
    {"peek", 3, 0, 1, ALWAYS, do_get},      {"get_cap", 4, 0, 1, ALWAYS, do_get_cap}, {"put", 4, 1, 1, ALWAYS, do_put},
    {"put_if", 5, 1, 1, ALWAYS, do_put},    {"touch", 3, 0, 1, ALWAYS, do_touch},     {"renew", 4, 1, 1, ALWAYS, do_renew},
    {"delete", 3, 0, 1, ALWAYS, do_delete}, {"ref", 4, 0, 1, ALWAYS, do_ref},         {"delete_ref", 3, 1, 1, ALWAYS, do_delete_ref},
    {"sweep", 3, 0, 1, ALWAYS, do_sweep},   {"list", 3, 0, 1, ALWAYS, do_list},       {"revoke", 3, 1, 1, ALWAYS, do_revoke},
    {"stats", 2, 0, 1, ALWAYS, do_stats},   {"status", 3, 0, 0, NEVER, do_status},    {"same", 3, 0, 0, NEVER, do_compare},
    {"different", 3, 0, 0, NEVER, do_compare}, {"touch_ref", 3, 0, 1, ALWAYS, do_touch_ref},
    {"peek_ref", 3, 0, 1, ALWAYS, do_touch_ref}, {"revoke_all", 2, 0, 1, ALWAYS, do_revoke_all},
};

#endif
