/* args.c: pointers, lengths, struct sizes and flag bits that a careless or hostile caller passes. Wrong memory lies
 * before a page that may not be touched, so that a read or write too far crashes the test.
 * Must not pass what C itself forbids (misaligned structs). */
#include "check.h"
#include <stddef.h>

static sss_store store;
static char sid[SSS_SID_SIZE];
static unsigned char *forbidden; /* the end of readable memory; AREA bytes before it are ours */
enum { PAGE = 4096, AREA = 2 * PAGE };

static void set_up(void) {
    store = open_store("memory:?clock=manual");
    new_session(store, "payload", NULL, sid);
    forbidden = (unsigned char *)mmap(NULL, AREA + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(forbidden != MAP_FAILED)) exit(1);
    forbidden += AREA;
    CHECK(mprotect(forbidden, PAGE, PROT_NONE) == 0);
}

static void tear_down(void) {
    CHECK_OK(sss_close(store));
    munmap(forbidden - AREA, AREA + PAGE);
}

/* A rejected call changed nothing: same counters (but `errors`), same session. */
static void check_nothing_happened(const sss_stats_t *before) {
    sss_stats_t after = stats_of(store);
    after.errors = before->errors;
    CHECK_BYTES(&after, sizeof after, before, sizeof *before);
}

/* ---- pointer and length ---- */

static sss_status open_url(const void *p, size_t n) {
    sss_store opened = 4711;
    sss_status status = sss_open((const char *)p, n, &opened);
    CHECK(opened == 4711);
    return status;
}
static sss_status open_global_url(const void *p, size_t n) {
    return sss_open_global((const char *)p, n);
}
static sss_status create_data(const void *p, size_t n) {
    char made[SSS_SID_SIZE];
    return sss_create(store, p, n, NULL, made, NULL);
}
static sss_options owned_by(const void *p, size_t n) {
    sss_options options = SSS_OPTIONS_INIT;
    options.principal = p;
    options.principal_len = n;
    return options;
}
static sss_status create_principal(const void *p, size_t n) {
    sss_options options = owned_by(p, n);
    char made[SSS_SID_SIZE];
    return sss_create(store, "x", 1, &options, made, NULL);
}
static sss_status get_sid(const void *p, size_t n) {
    char buf[16];
    return sss_get(store, (const char *)p, n, 0, buf, sizeof buf, NULL, NULL);
}
static sss_status get_into(const void *p, size_t n) {
    return sss_get(store, sid, SSS_SID_LEN, 0, (void *)(uintptr_t)p, n, NULL, NULL);
}
static sss_status get_buf_sid(const void *p, size_t n) {
    sss_buf buf = {NULL, 0, NULL};
    sss_status status = sss_get_buf(store, (const char *)p, n, 0, &buf, NULL);
    CHECK(buf.data == NULL && buf.owner == NULL);
    return status;
}
static sss_status put_sid(const void *p, size_t n) {
    return sss_put(store, (const char *)p, n, "x", 1, NULL, NULL);
}
static sss_status put_data(const void *p, size_t n) {
    return sss_put(store, sid, SSS_SID_LEN, p, n, NULL, NULL);
}
static sss_status put_principal(const void *p, size_t n) {
    sss_options options = owned_by(p, n);
    return sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL);
}
static sss_status put_label(const void *p, size_t n) {
    sss_options options = with_principal("labelled");
    options.label = p;
    options.label_len = n;
    return sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL);
}
static sss_status put_if_sid(const void *p, size_t n) {
    return sss_put_if(store, (const char *)p, n, 1, "x", 1, NULL, NULL);
}
static uint64_t version(void) {
    sss_meta meta = SSS_META_INIT;
    CHECK_OK(sss_touch(store, sid, SSS_SID_LEN, &meta));
    return meta.version;
}
static sss_status put_if_data(const void *p, size_t n) {
    return sss_put_if(store, sid, SSS_SID_LEN, version(), p, n, NULL, NULL);
}
static sss_status put_if_principal(const void *p, size_t n) {
    sss_options options = owned_by(p, n);
    return sss_put_if(store, sid, SSS_SID_LEN, version(), "x", 1, &options, NULL);
}
static sss_status touch_sid(const void *p, size_t n) {
    return sss_touch(store, (const char *)p, n, NULL);
}
static sss_status renew_sid(const void *p, size_t n) {
    char made[SSS_SID_SIZE];
    return sss_renew(store, (const char *)p, n, NULL, 0, NULL, made, NULL);
}
static sss_status renew_data(const void *p, size_t n) {
    return sss_renew(store, sid, SSS_SID_LEN, p, n, NULL, sid, NULL);
}
static sss_status renew_principal(const void *p, size_t n) {
    sss_options options = owned_by(p, n);
    return sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &options, sid, NULL);
}
static sss_status delete_sid(const void *p, size_t n) {
    return sss_delete(store, (const char *)p, n);
}
static sss_status list_principal(const void *p, size_t n) {
    return sss_list(store, p, n, NULL, 0, NULL);
}
static sss_status list_entries(const void *p, size_t n) {
    return sss_list(store, "alice", 5, (sss_entry *)(uintptr_t)p, n, NULL);
}
static sss_status revoke_principal(const void *p, size_t n) {
    return sss_revoke(store, p, n, NULL, 0, NULL);
}
static sss_status revoke_except(const void *p, size_t n) {
    return sss_revoke(store, "alice", 5, (const char *)p, n, NULL);
}
static sss_status ref_sid(const void *p, size_t n) {
    uint8_t ref[SSS_REF_LEN];
    return sss_ref(store, (const char *)p, n, ref);
}
static sss_status delete_ref_principal(const void *p, size_t n) {
    uint8_t ref[SSS_REF_LEN];
    memset(ref, 0xAA, sizeof ref);
    return sss_delete_ref(store, ref, p, n);
}
static sss_status last_error_buf(const void *p, size_t n) {
    CHECK_STATUS(sss_close(0), SSS_E_HANDLE); /* so that there is a text */
    return sss_last_error((char *)(uintptr_t)p, n, NULL);
}

static const struct pair {
    const char *name;
    sss_status (*call)(const void *, size_t);
    sss_status null_0, valid_0; /* what (NULL, 0) and (pointer, 0) give; (NULL, n) and a length beyond PTRDIFF_MAX: INVALID */
} pairs[] = {
    {"open url", open_url, SSS_E_URL, SSS_E_URL},
    {"open_global url", open_global_url, SSS_E_URL, SSS_E_URL},
    {"create data", create_data, SSS_OK, SSS_OK},
    {"create principal", create_principal, SSS_OK, SSS_E_INVALID},
    {"get sid", get_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"get buf", get_into, SSS_E_TOO_SMALL, SSS_E_TOO_SMALL},
    {"get_buf sid", get_buf_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"put sid", put_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"put data", put_data, SSS_OK, SSS_OK},
    {"put principal", put_principal, SSS_OK, SSS_E_INVALID},
    {"put label", put_label, SSS_OK, SSS_OK},
    {"put_if sid", put_if_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"put_if data", put_if_data, SSS_OK, SSS_OK},
    {"put_if principal", put_if_principal, SSS_OK, SSS_E_INVALID},
    {"touch sid", touch_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"renew sid", renew_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"renew data", renew_data, SSS_OK, SSS_OK},
    {"renew principal", renew_principal, SSS_OK, SSS_E_INVALID},
    {"delete sid", delete_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"list principal", list_principal, SSS_E_INVALID, SSS_E_INVALID},
    {"list entries", list_entries, SSS_OK, SSS_OK},
    {"revoke principal", revoke_principal, SSS_E_INVALID, SSS_E_INVALID},
    {"revoke except", revoke_except, SSS_OK, SSS_OK},
    {"ref sid", ref_sid, SSS_E_NOT_FOUND, SSS_E_NOT_FOUND},
    {"delete_ref principal", delete_ref_principal, SSS_E_NOT_FOUND, SSS_E_INVALID},
    {"last_error buf", last_error_buf, SSS_E_TOO_SMALL, SSS_E_TOO_SMALL},
};

static void is(const struct pair *pair, const char *what, const void *p, size_t n, sss_status expected) {
    char label[96];
    snprintf(label, sizeof label, "%s (%s, %zu)", pair->name, what, n);
    check_status(__FILE__, __LINE__, label, pair->call(p, n), expected);
}

static void null_with_length_0_is_empty(void) {
    size_t i;
    set_up();
    for (i = 0; i < COUNT_OF(pairs); i++) {
        CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "payload", 7, NULL, NULL));
        is(&pairs[i], "NULL", NULL, 0, pairs[i].null_0);
        CHECK_OK(sss_put(store, sid, SSS_SID_LEN, "payload", 7, NULL, NULL));
        is(&pairs[i], "pointer", forbidden, 0, pairs[i].valid_0); /* length 0: nothing is read */
    }
    tear_down();
}

static void null_with_length_is_invalid(void) {
    static const size_t lengths[] = {1, 7, SSS_SID_LEN, SSS_SID_LEN + 1, 1 << 20, (1 << 20) + 1,
                                     PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX};
    sss_stats_t before;
    size_t i, k;
    set_up();
    for (i = 0; i < COUNT_OF(pairs); i++) {
        before = stats_of(store);
        for (k = 0; k < COUNT_OF(lengths); k++) is(&pairs[i], "NULL", NULL, lengths[k], SSS_E_INVALID);
        check_nothing_happened(&before);
    }
    CHECK_PAYLOAD(store, sid, "payload");
    tear_down();
}

static void absurd_length_is_invalid(void) {
    static const size_t lengths[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX - 127, SIZE_MAX - 1, SIZE_MAX};
    sss_stats_t before;
    size_t i, k;
    set_up();
    for (i = 0; i < COUNT_OF(pairs); i++) {
        before = stats_of(store);
        for (k = 0; k < COUNT_OF(lengths); k++) is(&pairs[i], "forbidden page", forbidden, lengths[k], SSS_E_INVALID);
        check_nothing_happened(&before);
    }
    CHECK_STATUS(list_entries(forbidden, PTRDIFF_MAX / sizeof(sss_entry) + 1), SSS_E_INVALID); /* counted in entries */
    CHECK_PAYLOAD(store, sid, "payload");
    tear_down();
}

static void inputs_are_read_to_their_length(void) {
    sss_options options = SSS_OPTIONS_INIT;
    char *end;
    uint8_t ref[SSS_REF_LEN];
    size_t len;
    set_up();
    end = (char *)forbidden;
    memcpy(end - SSS_SID_LEN, sid, SSS_SID_LEN);
    CHECK_OK(sss_touch(store, end - SSS_SID_LEN, SSS_SID_LEN, NULL));
    CHECK_OK(sss_get(store, end - SSS_SID_LEN, SSS_SID_LEN, 0, end - SSS_SID_LEN - 7, 7, &len, NULL));
    CHECK_OK(sss_ref(store, end - SSS_SID_LEN, SSS_SID_LEN, ref));
    memset(end - 5, 'a', 5);
    options.principal = end - 5;
    options.principal_len = 5;
    CHECK_OK(sss_put(store, sid, SSS_SID_LEN, end - 5, 5, &options, NULL));
    CHECK_OK(sss_list(store, end - 5, 5, NULL, 0, &len));
    CHECK_NUM(len, 1);
    CHECK_OK(sss_list(store, end - 5, 5, (sss_entry *)(void *)(end - 2 * sizeof(sss_entry)), 2, &len));
    memset(end - 5, 'a', 5);
    CHECK_OK(sss_revoke(store, end - 5, 5, end - 5, 5, NULL));
    memcpy(end - 7, "memory:", 7);
    {
        sss_store opened = 0;
        CHECK_OK(sss_open(end - 7, 7, &opened));
        CHECK_OK(sss_close(opened));
    }
    memcpy(end - SSS_REF_LEN, ref, SSS_REF_LEN);
    CHECK_STATUS(sss_delete_ref(store, (uint8_t *)end - SSS_REF_LEN, NULL, 0), SSS_E_NOT_FOUND);
    new_session(store, "x", NULL, end - SSS_SID_SIZE); /* an id written up to the last byte */
    tear_down();
}

/* ---- structs that begin with their size ---- */

static sss_status create_meta(void *p) {
    char made[SSS_SID_SIZE];
    return sss_create(store, "x", 1, NULL, made, (sss_meta *)p);
}
static sss_status get_meta(void *p) {
    char buf[16];
    return sss_get(store, sid, SSS_SID_LEN, SSS_PEEK, buf, sizeof buf, NULL, (sss_meta *)p);
}
static sss_status get_buf_meta(void *p) {
    sss_buf buf = {NULL, 0, NULL};
    sss_status status = sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, (sss_meta *)p);
    sss_buf_free(&buf);
    return status;
}
static sss_status put_meta(void *p) {
    return sss_put(store, sid, SSS_SID_LEN, "payload", 7, NULL, (sss_meta *)p);
}
static sss_status put_if_meta(void *p) {
    return sss_put_if(store, sid, SSS_SID_LEN, version(), "payload", 7, NULL, (sss_meta *)p);
}
static sss_status touch_meta(void *p) {
    return sss_touch(store, sid, SSS_SID_LEN, (sss_meta *)p);
}
static sss_status renew_meta(void *p) {
    return sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, sid, (sss_meta *)p);
}
static sss_status touch_ref_meta(void *p) {
    uint8_t ref[SSS_REF_LEN];
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    return sss_touch_ref(store, ref, SSS_PEEK, (sss_meta *)p);
}
static sss_status stats_stats(void *p) {
    return sss_stats(store, (sss_stats_t *)p);
}
static sss_status create_options(void *p) {
    char made[SSS_SID_SIZE];
    return sss_create(store, "x", 1, (sss_options *)p, made, NULL);
}
static sss_status put_options(void *p) {
    return sss_put(store, sid, SSS_SID_LEN, "payload", 7, (sss_options *)p, NULL);
}
static sss_status put_if_options(void *p) {
    return sss_put_if(store, sid, SSS_SID_LEN, version(), "payload", 7, (sss_options *)p, NULL);
}
static sss_status renew_options(void *p) {
    return sss_renew(store, sid, SSS_SID_LEN, NULL, 0, (sss_options *)p, sid, NULL);
}

static const struct sized {
    const char *name;
    sss_status (*call)(void *);
    uint32_t size; /* as this header knows it */
    int output;
} structs[] = {
    {"create meta", create_meta, sizeof(sss_meta), 1},       {"get meta", get_meta, sizeof(sss_meta), 1},
    {"get_buf meta", get_buf_meta, sizeof(sss_meta), 1},     {"put meta", put_meta, sizeof(sss_meta), 1},
    {"put_if meta", put_if_meta, sizeof(sss_meta), 1},       {"touch meta", touch_meta, sizeof(sss_meta), 1},
    {"renew meta", renew_meta, sizeof(sss_meta), 1},         {"touch_ref meta", touch_ref_meta, sizeof(sss_meta), 1},
    {"stats", stats_stats, sizeof(sss_stats_t), 1},
    {"create options", create_options, sizeof(sss_options), 0}, {"put options", put_options, sizeof(sss_options), 0},
    {"put_if options", put_if_options, sizeof(sss_options), 0}, {"renew options", renew_options, sizeof(sss_options), 0},
};

/* A struct that claims `claimed` bytes and really has `real` of them before the forbidden page (rounded up to 8). */
static void struct_is(const struct sized *s, uint32_t claimed, size_t real, int tail_byte, sss_status expected) {
    static unsigned char before[AREA], reference[4096];
    size_t known = s->size < claimed ? s->size : claimed, i;
    unsigned char *p = forbidden - (real + 7) / 8 * 8;
    sss_stats_t stats = stats_of(store);
    char label[96];
    memset(forbidden - AREA, s->output ? 0xEE : 0, AREA); /* old contents of an output do not matter */
    memcpy(p, &claimed, sizeof claimed);
    memset(p + 4, 0, 4);
    for (i = s->size; i < real; i++) p[i] = 0;
    if (tail_byte) p[real - 1] = 1;
    memcpy(before, forbidden - AREA, AREA);
    snprintf(label, sizeof label, "%s of size %" PRIu32, s->name, claimed);
    check_status(__FILE__, __LINE__, label, s->call(p), expected);
    if (expected != SSS_OK) {
        check_nothing_happened(&stats);
    } else if (s->output && known > 8) {
        check_true(__FILE__, __LINE__, label, p[8] != 0xEE || s->call == stats_stats); /* something was written */
        if (s->call == get_meta) { /* peeks agree, however much of them was asked for */
            sss_meta full = SSS_META_INIT;
            CHECK_OK(get_meta(&full));
            memcpy(reference, &full, sizeof full);
            CHECK_BYTES(p + 8, known - 8, reference + 8, known - 8);
        }
        memcpy(&before[p - (forbidden - AREA)] + 8, p + 8, known - 8); /* may differ; all else must not */
    }
    check_bytes(__FILE__, __LINE__, label, forbidden - AREA, AREA, before, AREA);
}

static void struct_sizes(void) {
    size_t i;
    set_up();
    for (i = 0; i < COUNT_OF(structs); i++) {
        const struct sized *s = &structs[i];
        struct_is(s, 0, 8, 0, SSS_E_INVALID);
        struct_is(s, 4, 8, 0, SSS_E_INVALID);
        struct_is(s, 7, 8, 0, SSS_E_INVALID);
        struct_is(s, 8, 8, 0, SSS_OK);
        struct_is(s, 16, 16, 0, SSS_OK);
        struct_is(s, s->size - 8, s->size - 8, 0, SSS_OK);
        struct_is(s, s->size - 1, s->size - 1, 0, SSS_OK);
        struct_is(s, s->size, s->size, 0, SSS_OK);
        struct_is(s, s->size + 1, s->size + 1, 0, SSS_OK);
        struct_is(s, s->size + 8, s->size + 8, 0, SSS_OK);
        struct_is(s, s->size + 1, s->size + 1, 1, SSS_E_UNSUPPORTED);
        struct_is(s, s->size + 8, s->size + 8, 1, SSS_E_UNSUPPORTED);
        struct_is(s, 4096, 4096, 0, SSS_OK);
        struct_is(s, 4096, 4096, 1, SSS_E_UNSUPPORTED);
        struct_is(s, 4097, 8, 0, SSS_E_INVALID); /* refused before anything behind the first 8 bytes is read */
        struct_is(s, 0x80000000u, 8, 0, SSS_E_INVALID);
        struct_is(s, UINT32_MAX, 8, 0, SSS_E_INVALID);
    }
    CHECK_PAYLOAD(store, sid, "payload");
    tear_down();
}

static void shorter_options_work(void) {
    sss_options options = with_principal("alice");
    sss_meta meta = SSS_META_INIT;
    char made[SSS_SID_SIZE];
    size_t count = 99;
    set_up();
    options.timeout_ms = 2000;
    options.idle_timeout_ms = 1000;
    options.size = offsetof(sss_options, idle_timeout_ms); /* a caller that knew only the first timeout */
    CHECK_OK(sss_create(store, "x", 1, &options, made, &meta));
    CHECK_NUM(meta.expires_ms, meta.created_ms + 2000);
    options.size = offsetof(sss_options, principal);
    CHECK_OK(sss_create(store, "x", 1, &options, made, &meta));
    CHECK_NUM(meta.expires_ms, meta.created_ms + 1000);
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, &count));
    CHECK_NUM(count, 0);
    options.size = sizeof options;
    CHECK_OK(sss_create(store, "x", 1, &options, made, NULL));
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, &count));
    CHECK_NUM(count, 1);
    tear_down();
}

static void unknown_flags_are_unsupported(void) {
    char made[SSS_SID_SIZE], buf[16];
    sss_buf lent = {NULL, 0, NULL};
    sss_stats_t before;
    uint8_t ref[SSS_REF_LEN];
    int bit;
    set_up();
    CHECK_OK(sss_ref(store, sid, SSS_SID_LEN, ref));
    before = stats_of(store);
    for (bit = 1; bit < 32; bit++) {
        sss_options options = SSS_OPTIONS_INIT;
        options.flags = UINT32_C(1) << bit;
        CHECK_STATUS(sss_get(store, sid, SSS_SID_LEN, options.flags, buf, sizeof buf, NULL, NULL), SSS_E_UNSUPPORTED);
        CHECK_STATUS(sss_get(store, sid, SSS_SID_LEN, options.flags | SSS_PEEK, buf, sizeof buf, NULL, NULL), SSS_E_UNSUPPORTED);
        CHECK_STATUS(sss_get_buf(store, sid, SSS_SID_LEN, options.flags, &lent, NULL), SSS_E_UNSUPPORTED);
        CHECK_STATUS(sss_touch_ref(store, ref, options.flags, NULL), SSS_E_UNSUPPORTED);
        if (options.flags == SSS_REAUTHENTICATED) continue;
        CHECK_STATUS(sss_create(store, "x", 1, &options, made, NULL), SSS_E_UNSUPPORTED);
        CHECK_STATUS(sss_put(store, sid, SSS_SID_LEN, "x", 1, &options, NULL), SSS_E_UNSUPPORTED);
        CHECK_STATUS(sss_put_if(store, sid, SSS_SID_LEN, 1, "x", 1, &options, NULL), SSS_E_UNSUPPORTED);
        CHECK_STATUS(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &options, made, NULL), SSS_E_UNSUPPORTED);
    }
    check_nothing_happened(&before);
    CHECK_PAYLOAD(store, sid, "payload");
    tear_down();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(null_with_length_0_is_empty),
        TEST(null_with_length_is_invalid),
        TEST(absurd_length_is_invalid),
        TEST(inputs_are_read_to_their_length),
        TEST(struct_sizes),
        TEST(shorter_options_work),
        TEST(unknown_flags_are_unsupported),
    };
    return run_tests("args", tests, COUNT_OF(tests), argc, argv);
}
