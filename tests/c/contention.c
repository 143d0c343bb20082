/* contention.c: threads that want the same thing: exactly one wins, caps hold at every moment, and counts are
 * exact afterwards. Must not measure speed. */
#include "team.h"

enum { THREADS = 4 };

static sss_store store;
static sss_options alice;
static char sid[SSS_SID_SIZE], renewed[THREADS][SSS_SID_SIZE];
static sss_status answer[THREADS];

static void set_up(const char *url) {
    store = open_store(url);
    alice = with_principal("alice");
}

static int winner_of(long losers_status) {
    int i, winners = 0, winner = 0;
    for (i = 0; i < THREADS; i++) {
        if (answer[i] == SSS_OK) {
            winner = i, winners++;
        } else {
            CHECK_STATUS(answer[i], (sss_status)losers_status);
        }
    }
    CHECK_NUM(winners, 1);
    return winner;
}

/* ---- put_if ---- */

static void put_if_same_version(long round, int thread) {
    char payload = (char)('a' + thread);
    answer[thread] = sss_put_if(store, sid, SSS_SID_LEN, (uint64_t)round + 1, &payload, 1, NULL, NULL);
}

static void one_put_if_won(long round) {
    char payload = (char)('a' + winner_of(SSS_E_CONFLICT)), buf[4];
    sss_meta meta = SSS_META_INIT;
    size_t len = 0;
    CHECK_OK(sss_get(store, sid, SSS_SID_LEN, 0, buf, sizeof buf, &len, &meta));
    CHECK_BYTES(buf, len, &payload, 1);
    CHECK_NUM(meta.version, round + 2);
}

static void of_put_ifs_at_one_version_exactly_one_wins(void) {
    long n;
    set_up("memory:");
    new_session(store, "x", NULL, sid);
    n = run_team(THREADS, rounds(20000), NULL, put_if_same_version, one_put_if_won);
    CHECK_NUM(stats_of(store).puts, n);
    CHECK_NUM(stats_of(store).conflicts, n * (THREADS - 1));
    CHECK_OK(sss_close(store));
}

/* ---- renew ---- */

static void renew_same(long round, int thread) {
    sss_options options = SSS_OPTIONS_INIT;
    options.grace_ms = round % 2 ? 60000 : 0;
    answer[thread] = sss_renew(store, sid, SSS_SID_LEN, NULL, 0, &options, renewed[thread], NULL);
}

static void one_renew_won(long round) {
    int winner = winner_of(SSS_E_NOT_FOUND);
    CHECK_OK(sss_put(store, renewed[winner], SSS_SID_LEN, "y", 1, NULL, NULL));
    if (round % 2) {
        CHECK_PAYLOAD(store, sid, "y");
    } else {
        CHECK_STATUS(peek(store, sid), SSS_E_NOT_FOUND);
    }
    CHECK_NUM(stats_of(store).sessions, 1);
    memcpy(sid, renewed[winner], sizeof sid);
}

static void of_renewals_of_one_id_exactly_one_wins(void) {
    long n;
    set_up("memory:");
    new_session(store, "x", NULL, sid);
    n = run_team(THREADS, rounds(20000), NULL, renew_same, one_renew_won);
    CHECK_NUM(stats_of(store).renewed, n);
    CHECK_OK(sss_delete(store, sid, SSS_SID_LEN));
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_OK(sss_close(store));
}

/* ---- caps ---- */

enum { PER_PRINCIPAL = 3 };

static void crowd_alice(long round, int thread) {
    char guest[SSS_SID_SIZE], next[SSS_SID_SIZE];
    size_t count = 0;
    switch ((round + thread) % 3) { /* the three ways to one session more */
    case 0:
        CHECK_OK(sss_create(store, "x", 1, &alice, guest, NULL));
        break;
    case 1:
        CHECK_OK(sss_create(store, "x", 1, NULL, guest, NULL));
        CHECK_OK(sss_renew(store, guest, SSS_SID_LEN, NULL, 0, &alice, next, NULL));
        break;
    default:
        CHECK_OK(sss_create(store, "x", 1, NULL, guest, NULL));
        CHECK_OK(sss_put(store, guest, SSS_SID_LEN, "x", 1, &alice, NULL));
    }
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, &count));
    CHECK(count <= PER_PRINCIPAL);
}

static void alice_has_three(long round) {
    size_t count = 0;
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, &count));
    CHECK_NUM(count, PER_PRINCIPAL);
    CHECK_NUM(stats_of(store).sessions, PER_PRINCIPAL);
    CHECK_NUM(stats_of(store).revoked, (round + 1) * THREADS - PER_PRINCIPAL);
}

static void max_per_principal_holds_at_every_moment(void) {
    set_up("memory:?max_per_principal=3");
    run_team(THREADS, rounds(5000), NULL, crowd_alice, alice_has_three);
    CHECK_OK(sss_close(store));
}

/* ---- the last place in a store with room for one session, or for one payload ---- */

static void create_one(long round, int thread) {
    (void)round;
    answer[thread] = sss_create(store, "x", 1, NULL, renewed[thread], NULL);
}

static void one_got_the_place(long round) {
    int winner = winner_of(SSS_E_FULL);
    (void)round;
    CHECK_NUM(stats_of(store).sessions, 1);
    CHECK_NUM(stats_of(store).bytes, 1);
    CHECK_OK(sss_delete(store, renewed[winner], SSS_SID_LEN));
}

static void of_creates_for_the_last_place_exactly_one_wins(void) {
    set_up("memory:?max_sessions=1");
    run_team(THREADS, rounds(20000), NULL, create_one, one_got_the_place);
    CHECK_OK(sss_close(store));
    set_up("memory:?max_bytes=1");
    run_team(THREADS, rounds(20000), NULL, create_one, one_got_the_place);
    CHECK_OK(sss_close(store));
}

enum { MAX_SESSIONS = 10, MAX_BYTES = 100 };
static long made;

static void fill_up(long round, int thread) {
    char mine[6][SSS_SID_SIZE];
    char payload[16] = {0};
    int i, k = 0;
    for (i = 0; i < 6; i++) {
        sss_status status = sss_create(store, payload, (size_t)((round + thread + i) % 16), NULL, mine[k], NULL);
        sss_stats_t stats = stats_of(store);
        CHECK(stats.sessions <= MAX_SESSIONS && stats.bytes <= MAX_BYTES);
        if (status == SSS_OK) {
            k++;
        } else {
            CHECK_STATUS(status, SSS_E_FULL);
        }
    }
    __atomic_add_fetch(&made, k, __ATOMIC_RELAXED);
    for (i = 0; i < k; i++) { /* grow and shrink, then go; refused growth is no harm */
        sss_status status = sss_put(store, mine[i], SSS_SID_LEN, payload, 16, NULL, NULL);
        CHECK(status == SSS_OK || status == SSS_E_FULL);
        CHECK(stats_of(store).bytes <= MAX_BYTES);
        if (i % 2) CHECK_OK(sss_put(store, mine[i], SSS_SID_LEN, payload, 0, NULL, NULL));
        CHECK_OK(sss_delete(store, mine[i], SSS_SID_LEN));
    }
}

static void all_room_is_free_again(long round) {
    char filler[MAX_SESSIONS][SSS_SID_SIZE], extra[SSS_SID_SIZE];
    int i;
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_NUM(stats_of(store).bytes, 0);
    if (round % 50) return;
    for (i = 0; i < MAX_SESSIONS; i++) CHECK_OK(sss_create(store, "0123456789", 10, NULL, filler[i], NULL));
    CHECK_STATUS(sss_create(store, "", 0, NULL, extra, NULL), SSS_E_FULL);
    for (i = 0; i < MAX_SESSIONS; i++) CHECK_OK(sss_delete(store, filler[i], SSS_SID_LEN));
    __atomic_add_fetch(&made, MAX_SESSIONS, __ATOMIC_RELAXED);
}

static void max_sessions_and_max_bytes_hold_at_every_moment(void) {
    set_up("memory:?max_sessions=10&max_bytes=100");
    made = 0;
    run_team(THREADS, rounds(3000), NULL, fill_up, all_room_is_free_again);
    CHECK_NUM(stats_of(store).created, made);
    CHECK_NUM(stats_of(store).deleted, made);
    CHECK_OK(sss_close(store));
}

/* ---- everything at once, then the books must balance ---- */

enum { SLOTS = 64 };
static const char *const names[] = {"ann", "bob", "cid", "dan"};
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static char slots[SLOTS][SSS_SID_SIZE];
static struct {
    uint64_t created, hits, misses, puts, deleted, renewed, conflicts, revoked;
} book;

static sss_status counted(sss_status status, uint64_t *on_ok) {
    if (status == SSS_OK) __atomic_add_fetch(on_ok, 1, __ATOMIC_RELAXED);
    CHECK(status == SSS_OK || status == SSS_E_NOT_FOUND || status == SSS_E_CONFLICT);
    return status;
}

static void random_call(long round, int thread) {
    uint32_t dice = ((uint32_t)round * 2654435761u) ^ ((uint32_t)thread * 40503u << 7);
    size_t slot = (dice >> 8) % SLOTS, size = (dice >> 14) % 300;
    sss_options owner = with_principal(names[(dice >> 16) % COUNT_OF(names)]);
    char id[SSS_SID_SIZE], payload[300] = {0};
    sss_status status = SSS_E_NOT_FOUND;
    uint64_t count = 0;
    pthread_mutex_lock(&slots_lock);
    memcpy(id, slots[slot], sizeof id);
    pthread_mutex_unlock(&slots_lock);
    switch ((dice >> 3) % 16) {
    case 0:
        counted(sss_delete(store, id, SSS_SID_LEN), &book.deleted);
        break;
    case 1: /* rarely, else nothing lives long */
        if (round % 8) break;
        CHECK_OK(sss_revoke(store, owner.principal, owner.principal_len, id, SSS_SID_LEN, &count));
        __atomic_add_fetch(&book.revoked, count, __ATOMIC_RELAXED);
        break;
    case 2:
    case 3:
        status = counted(sss_renew(store, id, SSS_SID_LEN, size % 2 ? payload : NULL, size % 2 ? size : 0,
                                   size % 3 ? NULL : &owner, id, NULL), &book.renewed);
        break;
    case 4:
    case 5:
        counted(sss_put(store, id, SSS_SID_LEN, payload, size, size % 5 ? NULL : &owner, NULL), &book.puts);
        break;
    case 6:
        if (counted(sss_put_if(store, id, SSS_SID_LEN, 1 + size % 3, payload, size, NULL, NULL), &book.puts) == SSS_E_CONFLICT)
            __atomic_add_fetch(&book.conflicts, 1, __ATOMIC_RELAXED);
        break;
    case 7:
    case 8:
        if (counted(sss_get(store, id, SSS_SID_LEN, 0, payload, sizeof payload, NULL, NULL), &book.hits) != SSS_OK)
            __atomic_add_fetch(&book.misses, 1, __ATOMIC_RELAXED);
        break;
    default:
        status = counted(sss_create(store, payload, size, &owner, id, NULL), &book.created);
    }
    if (status != SSS_OK) return;
    pthread_mutex_lock(&slots_lock);
    memcpy(slots[slot], id, sizeof id);
    pthread_mutex_unlock(&slots_lock);
}

static void the_books_balance(long round) {
    sss_stats_t stats;
    uint64_t sessions = 0, bytes = 0;
    size_t i, k, count = 0;
    if (round % 2000) return;
    stats = stats_of(store);
    for (i = 0; i < COUNT_OF(names); i++) {
        sss_entry *entries;
        CHECK_OK(sss_list(store, names[i], 3, NULL, 0, &count));
        entries = (sss_entry *)calloc(count + 1, sizeof *entries);
        if (!entries) abort();
        CHECK_OK(sss_list(store, names[i], 3, entries, count, &count));
        for (k = 0; k < count; k++) bytes += entries[k].payload_len;
        sessions += count;
        free(entries);
    }
    CHECK_NUM(stats.sessions, sessions);
    CHECK_NUM(stats.bytes, bytes);
    CHECK_NUM(stats.sessions, book.created - book.deleted - book.revoked);
    CHECK_NUM(stats.created, book.created);
    CHECK_NUM(stats.hits, book.hits);
    CHECK_NUM(stats.misses, book.misses);
    CHECK_NUM(stats.puts, book.puts);
    CHECK_NUM(stats.deleted, book.deleted);
    CHECK_NUM(stats.renewed, book.renewed);
    CHECK_NUM(stats.conflicts, book.conflicts);
    CHECK_NUM(stats.revoked, book.revoked);
    CHECK_NUM(stats.errors + stats.rejected + stats.expired, 0);
}

static void counts_are_exact_after_everything_at_once(void) {
    size_t i;
    uint64_t count;
    set_up("memory:");
    for (i = 0; i < SLOTS; i++) memcpy(slots[i], UNKNOWN_SID, SSS_SID_SIZE);
    memset(&book, 0, sizeof book);
    run_team(8, rounds(20000), NULL, random_call, the_books_balance);
    for (i = 0; i < COUNT_OF(names); i++) CHECK_OK(sss_revoke(store, names[i], 3, NULL, 0, &count));
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_NUM(stats_of(store).bytes, 0);
    CHECK_OK(sss_close(store));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(of_put_ifs_at_one_version_exactly_one_wins),
        TEST(of_renewals_of_one_id_exactly_one_wins),
        TEST(of_creates_for_the_last_place_exactly_one_wins),
        TEST(max_per_principal_holds_at_every_moment),
        TEST(max_sessions_and_max_bytes_hold_at_every_moment),
        TEST(counts_are_exact_after_everything_at_once),
    };
    return run_tests("contention", tests, COUNT_OF(tests), argc, argv);
}
