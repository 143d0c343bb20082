/* lifecycle.c: a session from a guest's first page to its expiry, through the whole C API. Prints every step and returns
 * non-zero if a result is not what sss.h promises. Never prints a whole id: an id is a secret.
 *
 *     cc lifecycle.c -I include -L target/release -lsss -o lifecycle && LD_LIBRARY_PATH=target/release ./lifecycle
 */
#include "sss.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MINUTE_MS (60 * 1000)

static int step_number = 0, surprises = 0;

/* Prints a step and its result; a status that was not expected is a surprise. */
static void step(const char *verb, const char *what, sss_status status, sss_status expected, const char *format, ...) {
    va_list args;
    printf("%2d. %-9s%-44s -> ", ++step_number, verb, what);
    if (status == SSS_OK) {
        printf("ok");
    } else {
        printf("%s", sss_strerror(status));
    }
    if (format) {
        printf(", ");
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
    }
    putchar('\n');
    if (status != expected) {
        char text[256] = "";
        surprises++;
        if (status != SSS_OK) (void)sss_last_error(text, sizeof text, NULL);
        printf("    UNEXPECTED: \"%s\" was promised. %s\n", sss_strerror(expected), text);
    }
}

/* Reports a result that is not what was promised. */
static void expect(int ok, const char *promise) {
    if (ok) return;
    surprises++;
    printf("    UNEXPECTED: it is not true that %s\n", promise);
}

static int holds(const char *data, size_t len, const char *text) {
    return len == strlen(text) && memcmp(data, text, len) == 0;
}

int main(void) {
    const char *url = "memory:?timeout=3h&idle_timeout=10m&clock=manual"; /* a clock that we move ourselves */
    const char *user = "alice";
    sss_store store;
    sss_options alice = SSS_OPTIONS_INIT; /* every struct that has a size begins with its macro */
    sss_meta meta = SSS_META_INIT;
    sss_stats_t stats = SSS_STATS_INIT;
    sss_entry devices[8];
    char guest[SSS_SID_SIZE], laptop[SSS_SID_SIZE], phone[SSS_SID_SIZE], page[256];
    size_t len = 0, count = 0, i;
    uint64_t ended = 0, removed = 0;
    sss_status status;

    printf("libsss %s\n\n", sss_version_string());
    status = sss_open(url, strlen(url), &store);
    step("open", "a store in the memory of this process", status, SSS_OK, NULL);
    if (status != SSS_OK) return 1;

    /* A guest's first page: the new id goes to the client as a cookie, the data stays here. */
    status = sss_create(store, SSS_STR("cart=1"), NULL, guest, NULL);
    step("create", "a session for a guest", status, SSS_OK, "id %.4s…(%d)", guest, SSS_SID_LEN);

    /* The next request sends the id. */
    status = sss_get(store, guest, SSS_SID_LEN, 0, page, sizeof page, &len, &meta);
    step("get", "what the session holds", status, SSS_OK, "\"%.*s\", version %d", (int)len, page, (int)meta.version);
    expect(holds(page, len, "cart=1") && meta.version == 1, "it holds what was stored");

    /* Two requests of one user may run at once: put_if writes only over the version that was read. */
    status = sss_put_if(store, guest, SSS_SID_LEN, 1, SSS_STR("cart=2"), NULL, &meta);
    step("put_if", "an update of version 1", status, SSS_OK, "now version %d", (int)meta.version);
    status = sss_put_if(store, guest, SSS_SID_LEN, 1, SSS_STR("cart=9"), NULL, NULL);
    step("put_if", "another update of version 1, too late", status, SSS_E_CONFLICT, NULL);

    /* Login: a new id, so that an attacker who planted or knew the old one has nothing (session fixation). */
    alice.principal = user;
    alice.principal_len = strlen(user);
    alice.label = "laptop"; /* for the page of alice's devices */
    alice.label_len = strlen("laptop");
    status = sss_renew(store, guest, SSS_SID_LEN, SSS_STR("user=alice cart=2"), &alice, laptop, &meta);
    step("renew", "the id, because the guest logs in as alice", status, SSS_OK, "id %.4s…(%d)", laptop, SSS_SID_LEN);
    expect(meta.authenticated_ms == meta.last_seen_ms, "both timeouts count from the login");
    status = sss_get(store, guest, SSS_SID_LEN, 0, page, sizeof page, &len, NULL);
    step("get", "the id from before the login", status, SSS_E_NOT_FOUND, NULL);
    status = sss_get(store, laptop, SSS_SID_LEN, SSS_PEEK, page, sizeof page, &len, NULL);
    step("get", "the new id", status, SSS_OK, "\"%.*s\"", (int)len, page);
    expect(holds(page, len, "user=alice cart=2"), "the renewed session holds the new data");

    /* A second device, a minute later. */
    step("advance", "the clock by 1 minute", sss_advance_clock(store, 1 * MINUTE_MS), SSS_OK, NULL);
    alice.label = "phone";
    alice.label_len = strlen("phone");
    status = sss_create(store, SSS_STR("user=alice"), &alice, phone, NULL);
    step("create", "a session for alice's phone", status, SSS_OK, "id %.4s…(%d)", phone, SSS_SID_LEN);

    /* "Where am I logged in?" A reference names a session and opens nothing. */
    status = sss_list(store, SSS_STR("alice"), devices, sizeof devices / sizeof devices[0], &count);
    step("list", "the sessions of alice", status, SSS_OK, "%d sessions", (int)count);
    expect(count == 2, "alice has two sessions");
    for (i = 0; i < count && i < sizeof devices / sizeof devices[0]; i++) {
        printf("             ref %02x%02x%02x%02x…  %-6.*s  version %d  %2d bytes  idle for %d s\n", devices[i].ref[0],
               devices[i].ref[1], devices[i].ref[2], devices[i].ref[3], (int)devices[i].label_len, (const char *)devices[i].label,
               (int)devices[i].version, (int)devices[i].payload_len,
               (int)((devices[count - 1].last_seen_ms - devices[i].last_seen_ms) / 1000));
    }

    /* "Log out my other devices." */
    status = sss_revoke(store, SSS_STR("alice"), laptop, SSS_SID_LEN, &ended);
    step("revoke", "all sessions of alice but the laptop's", status, SSS_OK, "%d ended", (int)ended);
    expect(ended == 1, "one session ended");
    status = sss_get(store, phone, SSS_SID_LEN, 0, page, sizeof page, &len, NULL);
    step("get", "the phone's session", status, SSS_E_NOT_FOUND, NULL);
    status = sss_get(store, laptop, SSS_SID_LEN, 0, page, sizeof page, &len, NULL);
    step("get", "the laptop's session", status, SSS_OK, "\"%.*s\"", (int)len, page);

    /* Each use slides the idle deadline of 10 minutes. */
    step("advance", "the clock by 9 minutes", sss_advance_clock(store, 9 * MINUTE_MS), SSS_OK, NULL);
    status = sss_touch(store, laptop, SSS_SID_LEN, &meta);
    step("touch", "the laptop's session, in time", status, SSS_OK, "dies in %d minutes",
         (int)((meta.expires_ms - meta.last_seen_ms) / MINUTE_MS));
    step("advance", "the clock by 10 minutes", sss_advance_clock(store, 10 * MINUTE_MS), SSS_OK, NULL);
    status = sss_get(store, laptop, SSS_SID_LEN, 0, page, sizeof page, &len, NULL);
    step("get", "the laptop's session, idle for too long", status, SSS_E_NOT_FOUND, NULL);
    status = sss_put(store, laptop, SSS_SID_LEN, SSS_STR("user=alice"), NULL, NULL);
    step("put", "to the session that has ended", status, SSS_E_NOT_FOUND, NULL);

    /* From a timer: reclaims the memory of expired sessions. */
    status = sss_sweep(store, 1000, &removed);
    step("sweep", "up to 1000 expired sessions", status, SSS_OK, "%d removed", (int)removed);
    expect(removed == 1, "one expired session was removed");

    status = sss_stats(store, &stats);
    step("stats", "of the store", status, SSS_OK, "%d left; %d created, %d renewed, %d revoked, %d expired",
         (int)stats.sessions, (int)stats.created, (int)stats.renewed, (int)stats.revoked, (int)stats.expired);
    expect(stats.sessions == 0 && stats.bytes == 0, "nothing is left");
    expect(stats.created == 2 && stats.renewed == 1 && stats.revoked == 1 && stats.expired == 1, "the counters are exact");

    step("close", "the store", sss_close(store), SSS_OK, NULL);
    step("close", "it again", sss_close(store), SSS_E_HANDLE, NULL);

    printf("\n%s\n", surprises ? "Some results were not as promised." : "All results were as promised.");
    return surprises ? 1 : 0;
}
