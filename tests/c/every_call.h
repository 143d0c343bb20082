/* every_call.h: each function that takes a store handle, as a table of one-argument calls that also check that a
 * failure wrote no output. Used where a handle is wrong, closing or inherited. A new function of
 * sss.h belongs here. Must not hold sss_close: whether that may be called depends on the test. */
#ifndef EVERY_CALL_H
#define EVERY_CALL_H
#include "check.h"

static inline sss_status call_create(sss_store store, const char *sid) {
    sss_options options = with_principal("every");
    sss_meta meta = SSS_META_INIT;
    char created[SSS_SID_SIZE];
    (void)sid;
    memset(created, PATTERN, sizeof created);
    return outputs_checked(sss_create(store, "x", 1, &options, created, &meta), created, sizeof created, &meta);
}

static inline sss_status call_get(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    char buf[64];
    size_t len;
    sss_status status;
    memset(buf, PATTERN, sizeof buf);
    memset(&len, PATTERN, sizeof len);
    status = outputs_checked(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, &len, &meta), buf, sizeof buf, &meta);
    return outputs_checked(status, &len, sizeof len, NULL);
}

static inline sss_status call_get_buf(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    sss_buf buf;
    sss_status status;
    memset(&buf, PATTERN, sizeof buf);
    status = outputs_checked(sss_get_buf(store, sid, SSS_SID_LEN, 0, &buf, &meta), &buf, sizeof buf, &meta);
    if (status == SSS_OK) sss_buf_free(&buf);
    return status;
}

static inline sss_status call_put(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    return outputs_checked(sss_put(store, sid, SSS_SID_LEN, "y", 1, NULL, &meta), NULL, 0, &meta);
}

static inline sss_status call_put_if(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    return outputs_checked(sss_put_if(store, sid, SSS_SID_LEN, 1, "y", 1, NULL, &meta), NULL, 0, &meta);
}

static inline sss_status call_touch(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    return outputs_checked(sss_touch(store, sid, SSS_SID_LEN, &meta), NULL, 0, &meta);
}

static inline sss_status call_renew(sss_store store, const char *sid) {
    sss_meta meta = SSS_META_INIT;
    char renewed[SSS_SID_SIZE];
    memset(renewed, PATTERN, sizeof renewed);
    return outputs_checked(sss_renew(store, sid, SSS_SID_LEN, NULL, 0, NULL, renewed, &meta), renewed, sizeof renewed, &meta);
}

static inline sss_status call_delete(sss_store store, const char *sid) {
    return sss_delete(store, sid, SSS_SID_LEN);
}

static inline sss_status call_sweep(sss_store store, const char *sid) {
    uint64_t removed;
    (void)sid;
    memset(&removed, PATTERN, sizeof removed);
    return outputs_checked(sss_sweep(store, 10, &removed), &removed, sizeof removed, NULL);
}

static inline sss_status call_list(sss_store store, const char *sid) {
    sss_entry entries[2];
    size_t count;
    sss_status status;
    (void)sid;
    memset(entries, PATTERN, sizeof entries);
    memset(&count, PATTERN, sizeof count);
    status = outputs_checked(sss_list(store, "every", 5, entries, 2, &count), entries, sizeof entries, NULL);
    return outputs_checked(status, &count, sizeof count, NULL);
}

static inline sss_status call_revoke(sss_store store, const char *sid) {
    uint64_t count;
    memset(&count, PATTERN, sizeof count);
    return outputs_checked(sss_revoke(store, "every", 5, sid, SSS_SID_LEN, &count), &count, sizeof count, NULL);
}

static inline sss_status call_ref(sss_store store, const char *sid) {
    uint8_t ref[SSS_REF_LEN];
    memset(ref, PATTERN, sizeof ref);
    return outputs_checked(sss_ref(store, sid, SSS_SID_LEN, ref), ref, sizeof ref, NULL);
}

static inline sss_status call_delete_ref(sss_store store, const char *sid) {
    uint8_t ref[SSS_REF_LEN];
    (void)sid;
    memset(ref, 0xAA, sizeof ref);
    return sss_delete_ref(store, ref, "every", 5);
}

static inline sss_status call_touch_ref(sss_store store, const char *sid) {
    uint8_t ref[SSS_REF_LEN];
    sss_meta meta = SSS_META_INIT;
    (void)sid;
    memset(ref, 0xAA, sizeof ref);
    return outputs_checked(sss_touch_ref(store, ref, 0, &meta), NULL, 0, &meta);
}

static inline sss_status call_revoke_all(sss_store store, const char *sid) {
    uint64_t count;
    (void)sid;
    memset(&count, PATTERN, sizeof count);
    return outputs_checked(sss_revoke_all(store, &count), &count, sizeof count, NULL);
}

static inline sss_status call_stats(sss_store store, const char *sid) {
    sss_stats_t stats = SSS_STATS_INIT;
    sss_status status;
    (void)sid;
    memset(&stats.sessions, PATTERN, sizeof stats - offsetof(sss_stats_t, sessions));
    status = sss_stats(store, &stats);
    return outputs_checked(status, &stats.sessions, sizeof stats - offsetof(sss_stats_t, sessions), NULL);
}

static inline sss_status call_advance_clock(sss_store store, const char *sid) {
    (void)sid;
    return sss_advance_clock(store, 1);
}

static inline sss_status call_waits(sss_store store, const char *sid) {
    uint32_t waits;
    (void)sid;
    memset(&waits, PATTERN, sizeof waits);
    return outputs_checked(sss_may_block(store, &waits), &waits, sizeof waits, NULL);
}

static const struct {
    const char *name;
    sss_status (*call)(sss_store, const char *sid);
} every_call[] = {
    {"create", call_create},   {"get", call_get},       {"get_buf", call_get_buf},
    {"put", call_put},         {"put_if", call_put_if}, {"touch", call_touch},
    {"renew", call_renew},     {"delete", call_delete}, {"sweep", call_sweep},
    {"list", call_list},       {"revoke", call_revoke}, {"ref", call_ref},
    {"delete_ref", call_delete_ref}, {"stats", call_stats},   {"advance_clock", call_advance_clock},
    {"waits", call_waits},     {"touch_ref", call_touch_ref},   {"revoke_all", call_revoke_all},
};

/* Every function says `expected` for this handle. */
static inline int every_call_is(sss_store store, const char *sid, sss_status expected) {
    int good = 1;
    size_t i;
    for (i = 0; i < COUNT_OF(every_call); i++) {
        good &= check_status(__FILE__, __LINE__, every_call[i].name, every_call[i].call(store, sid), expected);
    }
    return good;
}

#endif
