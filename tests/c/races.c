/* races.c: threads race whatever ends a session against whatever uses it: nothing ever comes back, nothing that was
 * acknowledged is lost. Must not accept "usually": every round is checked, and every dead id again
 * at the end. */
#include "team.h"

#define URL "memory:?clock=manual&timeout=1000s&idle_timeout=5s"

static sss_store store;
static sss_options alice;

/* ids that are dead: asked again when all rounds are over */
static struct {
    char (*ids)[SSS_SID_SIZE];
    long count, room;
} graveyard;

static void bury(const char *sid) {
    if (graveyard.count == graveyard.room) {
        graveyard.room = graveyard.room ? graveyard.room * 2 : 1024;
        graveyard.ids = (char(*)[SSS_SID_SIZE])realloc((void *)graveyard.ids, (size_t)graveyard.room * SSS_SID_SIZE);
        if (!graveyard.ids) abort();
    }
    memcpy(graveyard.ids[graveyard.count++], sid, SSS_SID_SIZE);
}

static void set_up(const char *url) {
    store = open_store(url);
    alice = with_principal("alice");
}

static void tear_down(void) {
    long i;
    for (i = 0; i < graveyard.count; i++) CHECK_STATUS(peek(store, graveyard.ids[i]), SSS_E_NOT_FOUND);
    free((void *)graveyard.ids);
    memset(&graveyard, 0, sizeof graveyard);
    CHECK_OK(sss_close(store));
}

/* ---- one killer against two users of the same session ---- */

enum killer { DELETE, DELETE_REF, REVOKE, EXPIRE, RENEW, KILLERS };
enum user { PUT, PUT_IF, TOUCH, GET, RENEW_AWAY, RENEW_GRACE, CHANGE_OWNER, CREATE, USERS };
static const char *const killer_names[] = {"delete", "delete_ref", "revoke", "expire", "renew"};
static const char *const user_names[] = {"put", "put_if", "touch", "get", "renew", "renew with grace", "change owner", "create"};

static struct {
    enum killer killer;
    enum user user[2];
    char sid[SSS_SID_SIZE];
    uint8_t ref[SSS_REF_LEN];
    sss_status killed, used[2];                    /* what they got; a user its last answer */
    uint64_t revoked;
    char renewed[2][SSS_SID_SIZE], by_killer[SSS_SID_SIZE];
    int published[2], published_before_revoke[2];
    long puts[2];
} duel;

static void duel_prepare(long round) {
    (void)round;
    new_session(store, "x", &alice, duel.sid);
    CHECK_OK(sss_ref(store, duel.sid, SSS_SID_LEN, duel.ref));
    duel.revoked = 0;
    memset(duel.renewed, 0, sizeof duel.renewed);
    memset(duel.published, 0, sizeof duel.published);
    memset(duel.published_before_revoke, 0, sizeof duel.published_before_revoke);
    memset(duel.puts, 0, sizeof duel.puts);
}

static sss_status kill_it(void) {
    int i;
    switch (duel.killer) {
    case DELETE:
        return sss_delete(store, duel.sid, SSS_SID_LEN);
    case DELETE_REF:
        return sss_delete_ref(store, duel.ref, NULL, 0);
    case REVOKE:
        for (i = 0; i < 2; i++) duel.published_before_revoke[i] = __atomic_load_n(&duel.published[i], __ATOMIC_ACQUIRE);
        return sss_revoke(store, "alice", 5, NULL, 0, &duel.revoked);
    case EXPIRE:
        return sss_advance_clock(store, 5000);
    default:
        return sss_renew(store, duel.sid, SSS_SID_LEN, NULL, 0, NULL, duel.by_killer, NULL);
    }
}

static sss_status use_it(int i) {
    sss_options options = SSS_OPTIONS_INIT, bob = with_principal("bob");
    sss_status status;
    char buf[8];
    switch (duel.user[i]) {
    case PUT:
        return sss_put(store, duel.sid, SSS_SID_LEN, "yy", 2, NULL, NULL);
    case PUT_IF:
        return sss_put_if(store, duel.sid, SSS_SID_LEN, 1, "yy", 2, NULL, NULL);
    case TOUCH:
        return sss_touch(store, duel.sid, SSS_SID_LEN, NULL);
    case GET:
        return sss_get(store, duel.sid, SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL);
    case CHANGE_OWNER:
        return sss_put(store, duel.sid, SSS_SID_LEN, "yy", 2, &bob, NULL);
    case CREATE:
        status = sss_create(store, "x", 1, &alice, duel.renewed[i], NULL);
        break;
    default:
        options.grace_ms = duel.user[i] == RENEW_GRACE ? 1000 : 0;
        status = sss_renew(store, duel.sid, SSS_SID_LEN, NULL, 0, &options, duel.renewed[i], NULL);
    }
    if (status == SSS_OK) __atomic_store_n(&duel.published[i], 1, __ATOMIC_RELEASE);
    return status;
}

static void duel_act(long round, int thread) {
    int i = thread - 1, times, dead = 0;
    (void)round;
    if (thread == 0) {
        duel.killed = kill_it();
        if (duel.killer == REVOKE && (duel.user[0] == CHANGE_OWNER || duel.user[1] == CHANGE_OWNER)) return;
        if (duel.killed == SSS_OK) CHECK_STATUS(peek(store, duel.sid), SSS_E_NOT_FOUND); /* at once, while others go on */
        return;
    }
    for (times = 0; times < (duel.user[i] < RENEW_AWAY ? 3 : 1); times++) {
        duel.used[i] = use_it(i);
        if (duel.used[i] == SSS_OK && (duel.user[i] < TOUCH || duel.user[i] == CHANGE_OWNER)) duel.puts[i]++;
        if (dead) CHECK_STATUS(duel.used[i], SSS_E_NOT_FOUND); /* once dead, dead for ever */
        dead |= duel.used[i] == SSS_E_NOT_FOUND;
        CHECK(duel.used[i] == SSS_OK || duel.used[i] == SSS_E_NOT_FOUND ||
              (duel.used[i] == SSS_E_CONFLICT && duel.user[i] == PUT_IF));
    }
}

/* Only this id may live now, every acknowledged write is in it, and only its owner has it; then it ends, too. */
static void check_survivor(const char *sid, const char *owner) {
    long puts = duel.puts[0] + duel.puts[1];
    sss_meta meta = SSS_META_INIT;
    sss_buf buf = {NULL, 0, NULL};
    size_t alices = 9, bobs = 9;
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, &alices));
    CHECK_OK(sss_list(store, "bob", 3, NULL, 0, &bobs));
    CHECK_NUM(alices, owner[0] == 'a');
    CHECK_NUM(bobs, owner[0] == 'b');
    CHECK_OK(sss_get_buf(store, sid, SSS_SID_LEN, SSS_PEEK, &buf, &meta));
    CHECK_NUM(meta.version, 1 + puts);
    CHECK_BYTES(buf.data, buf.len, puts ? "yy" : "x", puts ? 2 : 1);
    sss_buf_free(&buf);
    CHECK_OK(sss_delete(store, sid, SSS_SID_LEN));
    bury(sid);
}

static void duel_verify(long round) {
    int i, renewals = duel.killer == RENEW && duel.killed == SSS_OK, owner_changed = 0, created = 0;
    const char *heir = NULL, *survivor = NULL;
    (void)round;
    for (i = 0; i < 2; i++) {
        if (duel.used[i] != SSS_OK) continue;
        if (duel.user[i] == RENEW_AWAY || duel.user[i] == RENEW_GRACE) renewals++, heir = duel.renewed[i];
        if (duel.user[i] == CHANGE_OWNER) owner_changed = 1;
        if (duel.user[i] == CREATE) { /* another session of alice: it matters to revoke only */
            created = 1;
            if (duel.published_before_revoke[i]) CHECK_STATUS(peek(store, duel.renewed[i]), SSS_E_NOT_FOUND);
            (void)sss_delete(store, duel.renewed[i], SSS_SID_LEN);
            bury(duel.renewed[i]);
        }
    }
    CHECK(renewals <= 1);
    switch (duel.killer) {
    case DELETE: /* the first one made the other one NOT_FOUND */
        CHECK_NUM((duel.killed == SSS_OK) + renewals, 1);
        survivor = heir;
        break;
    case DELETE_REF:
        if (duel.killed != SSS_OK) {
            CHECK_NUM(renewals, 1);
            survivor = heir;
        }
        break;
    case REVOKE:
        CHECK_OK(duel.killed);
        if (owner_changed) survivor = heir ? heir : duel.sid; /* a put that is OK after revoke would be a resurrection */
        if (!created) CHECK_NUM(duel.revoked, survivor ? 0 : 1);
        break;
    case EXPIRE:
        CHECK_OK(duel.killed);
        break;
    default:
        CHECK_NUM(renewals, 1);
        survivor = duel.killed == SSS_OK ? duel.by_killer : heir;
    }
    if (survivor) check_survivor(survivor, owner_changed ? "bob" : "alice");
    CHECK_STATUS(peek(store, duel.sid), SSS_E_NOT_FOUND); /* also in grace: the session behind it has ended */
    bury(duel.sid);
    if (heir && heir != survivor) {
        CHECK_STATUS(peek(store, heir), SSS_E_NOT_FOUND);
        bury(heir);
    }
    CHECK_OK(sss_sweep(store, UINT64_MAX, NULL));
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_NUM(stats_of(store).bytes, 0);
}

static void nothing_comes_back(enum killer killer) {
    long n = rounds(600);
    int a, b;
    set_up(URL);
    duel.killer = killer;
    for (a = 0; a < USERS; a++) {
        for (b = a; b < USERS; b++) {
            long failed_before = tally->failed;
            duel.user[0] = (enum user)a, duel.user[1] = (enum user)b;
            run_team(3, n, duel_prepare, duel_act, duel_verify);
            if (tally->failed != failed_before)
                fprintf(stderr, "  in %s against %s and %s\n", killer_names[killer], user_names[a], user_names[b]);
        }
    }
    tear_down();
}
static void deleted_session_stays_dead(void) {
    nothing_comes_back(DELETE);
}
static void session_deleted_by_reference_stays_dead(void) {
    nothing_comes_back(DELETE_REF);
}
static void revoked_session_stays_dead(void) {
    nothing_comes_back(REVOKE);
}
static void expired_session_stays_dead(void) {
    nothing_comes_back(EXPIRE);
}
static void renew_loses_and_resurrects_nothing(void) {
    nothing_comes_back(RENEW);
}

/* ---- whole lists and the clock under fire ---- */

static char member[4][SSS_SID_SIZE];

static void four_sessions(long round) {
    int i;
    (void)round;
    for (i = 0; i < 4; i++) new_session(store, "x", &alice, member[i]);
}

static uint64_t spared_revoked;

static void revoke_others_against_renewals(long round, int thread) {
    char next[SSS_SID_SIZE];
    if (thread == 0) {
        CHECK_OK(sss_revoke(store, "alice", 5, member[round % 4], SSS_SID_LEN, &spared_revoked));
    } else if (thread != (int)(round % 4)) { /* the other sessions run away from it */
        sss_status status = SSS_OK;
        int hops = 0;
        memcpy(next, member[thread], sizeof next);
        while (status == SSS_OK && hops++ < 20) status = sss_renew(store, next, SSS_SID_LEN, NULL, 0, NULL, next, NULL);
        memcpy(member[thread], next, sizeof next);
    }
}

static void only_the_spared_one_lives(long round) {
    int i;
    size_t count = 99;
    CHECK_NUM(spared_revoked, 3);
    for (i = 0; i < 4; i++) CHECK_STATUS(peek(store, member[i]), i == (int)(round % 4) ? SSS_OK : SSS_E_NOT_FOUND);
    CHECK_OK(sss_list(store, "alice", 5, NULL, 0, &count));
    CHECK_NUM(count, 1);
    CHECK_OK(sss_delete(store, member[round % 4], SSS_SID_LEN));
    CHECK_NUM(stats_of(store).sessions, 0);
}

/* A session that is renewed while revoke runs is the same session: it cannot escape by changing its id. */
static void renew_does_not_escape_revoke(void) {
    set_up(URL);
    run_team(4, rounds(5000), four_sessions, revoke_others_against_renewals, only_the_spared_one_lives);
    tear_down();
}

static void sweep_against_users(long round, int thread) {
    char buf[8];
    sss_status status;
    switch ((thread + round) % 4) {
    case 0:
        CHECK_OK(sss_sweep(store, UINT64_MAX, NULL));
        break;
    case 1:
        CHECK_OK(sss_advance_clock(store, 5000));
        CHECK_STATUS(peek(store, member[thread]), SSS_E_NOT_FOUND);
        break;
    case 2:
        status = sss_get(store, member[thread], SSS_SID_LEN, 0, buf, sizeof buf, NULL, NULL);
        CHECK(status == SSS_OK || status == SSS_E_NOT_FOUND);
        break;
    default:
        status = sss_renew(store, member[thread], SSS_SID_LEN, "yy", 2, NULL, member[thread], NULL);
        CHECK(status == SSS_OK || status == SSS_E_NOT_FOUND);
    }
}

static void all_are_dead(long round) {
    int i;
    (void)round;
    for (i = 0; i < 4; i++) CHECK_STATUS(sss_put(store, member[i], SSS_SID_LEN, "z", 1, NULL, NULL), SSS_E_NOT_FOUND);
    CHECK_OK(sss_sweep(store, UINT64_MAX, NULL));
    CHECK_NUM(stats_of(store).sessions, 0);
    CHECK_NUM(stats_of(store).bytes, 0);
}

static void sweep_clears_during_use(void) {
    sss_stats_t stats;
    set_up(URL);
    run_team(4, rounds(5000), four_sessions, sweep_against_users, all_are_dead);
    stats = stats_of(store);
    CHECK_NUM(stats.expired, stats.created);
    tear_down();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        TEST(deleted_session_stays_dead),
        TEST(session_deleted_by_reference_stays_dead),
        TEST(revoked_session_stays_dead),
        TEST(expired_session_stays_dead),
        TEST(renew_loses_and_resurrects_nothing),
        TEST(renew_does_not_escape_revoke),
        TEST(sweep_clears_during_use),
    };
    return run_tests("races", tests, COUNT_OF(tests), argc, argv);
}
