/* conformance.c: runs the scenarios of tests/conformance (files on the command line) through the C API, once with
 * sss_get and once with sss_get_buf. It knows the format (README.md there) and nothing of the
 * contract: what must happen stands in the data. Also: a failing call must not have written its
 * outputs. */
#include "steps.h"

/* What scenarios may need: of this driver, which has all that there are, and of the engine under test. */
static const struct {
    const char *name;
    unsigned engines; /* those that have it */
} abilities[] = {
    {"buffers", ~0u},
    {"handles", ~0u},
    {"close", ~0u},
    {"fork", ~0u},
    {"options", ~0u},
    {"flags", ~0u},
    {"memory", 1u << MEMORY},
    {"processes", 1u << LMDB | 1u << LMDB_POWER},
    {"limits", ~(1u << REDIS)},
};

/* ---- checks ---- */

static int is_number(const char *check, const char *value, uint64_t came) {
    uint64_t expected;
    if (!number(value, &expected)) return 0;
    return expected == came ? 1 : fail("expected %s, came %" PRIu64, check, came);
}

static int is_time(const char *check, const char *value, int64_t came) {
    int64_t expected;
    if (!world.has_origin) return fail("no session was created yet");
    if (strcmp(value, "infinity") == 0) {
        expected = SSS_FOREVER;
    } else if (duration(value, &expected)) {
        expected += world.origin_ms;
    } else {
        return 0;
    }
    return came == expected ? 1 : fail("expected %s, came %" PRId64 "ms", check, came - world.origin_ms);
}

static int is_authentication(const char *check, const char *value, int64_t came) {
    if (strcmp(value, "never") == 0) return came == 0 ? 1 : fail("expected %s, came %" PRId64, check, came);
    return came != 0 ? is_time(check, value, came) : fail("expected %s, came never", check);
}

static int is_timeout(const char *check, const char *value, int64_t came) {
    int64_t expected;
    if (!timeout(value, &expected)) return 0;
    return came == expected ? 1 : fail("expected %s, came %" PRId64 "ms", check, came);
}

/* A DATA, or `none`. The bytes behind a label are zeros. */
static int is_label(const char *value, const sss_entry *entry) {
    unsigned char *expected = NULL;
    size_t len = 0, i;
    int good = strcmp(value, "none") == 0 || bytes(value, &expected, &len);
    if (good && (entry->label_len != len || memcmp(entry->label, expected ? expected : entry->label, len) != 0))
        good = fail("expected the label %s, came %.*s", value, (int)entry->label_len, (const char *)entry->label);
    for (i = entry->label_len; i < sizeof entry->label; i++) good &= entry->label[i] == 0;
    free(expected);
    return good;
}

static int is_data(const char *value) {
    unsigned char *expected = NULL;
    size_t len;
    int good = bytes(value, &expected, &len);
    if (good && (len != got.len || memcmp(expected, got.data, len) != 0))
        good = fail("expected %s, came %zu bytes: %.*s", value, got.len, got.len > 40 ? 40 : (int)got.len, (char *)got.data);
    free(expected);
    return good;
}

/* refs=$a,$b versions=1,2 lens=5,5 labels=a,none authentications=0ms,never in list order */
static int is_list(const char *key, const char *check, char *values) {
    size_t i = 0;
    uint8_t ref[SSS_REF_LEN];
    char *value;
    for (value = strtok(values, ","); value; value = strtok(NULL, ","), i++) {
        if (i >= got.count) return fail("%s: only %" PRIu64 " in the list", check, got.count);
        if (strcmp(key, "versions") == 0) {
            if (!is_number(key, value, got.entries[i].version)) return 0;
        } else if (strcmp(key, "lens") == 0) {
            if (!is_number(key, value, got.entries[i].payload_len)) return 0;
        } else if (strcmp(key, "labels") == 0) {
            if (!is_label(value, &got.entries[i])) return 0;
        } else if (strcmp(key, "authentications") == 0) {
            if (!is_authentication(check, value, got.entries[i].authenticated_ms)) return 0;
        } else {
            if (!reference_of(value, ref)) return 0;
            if (memcmp(ref, got.entries[i].ref, sizeof ref) != 0) return fail("entry %zu is not %s", i, value);
        }
    }
    return i == got.count ? 1 : fail("%s, but %" PRIu64 " in the list", check, got.count);
}

static int is_counter(const char *key, const char *check, const char *value) {
    static const char *const names[] = {"sessions", "bytes", "created", "hits", "misses", "puts", "deleted", "renewed",
                                        "conflicts", "revoked", "expired", "rejected", "errors"};
    size_t i;
    for (i = 0; i < COUNT_OF(names); i++) {
        if (strcmp(names[i], key) == 0) return is_number(check, value, (&got.stats.sessions)[i]);
    }
    return fail("unknown counter: %s", key);
}

static int message_has(const char *word) {
    char text[1024];
    size_t len = 0;
    if (!CHECK_OK(sss_last_error(text, sizeof text, &len))) return 0;
    return strstr(text, word) ? 1 : fail("the message is: %s", text);
}

static int check_holds(const char *check) {
    static const char *const of_lists[] = {"refs", "versions", "lens", "labels", "authentications"};
    char key[MAX_LINE], *value;
    size_t i;
    if (starts_with(check, "message~")) return got.status != SSS_OK ? message_has(check + 8) : fail("a success has no message");
    strcpy(key, check);
    if (!(value = strchr(key, '='))) return fail("unknown check: %s", check);
    *value++ = '\0';
    if (strcmp(key, "len") == 0 && got.has_len) return is_number(check, value, got.len);
    if (got.status != SSS_OK) return fail("%s cannot be checked on a failure", check);
    if (strcmp(key, "data") == 0 && got.data) return is_data(value);
    if (strcmp(key, "count") == 0 && got.has_count) return is_number(check, value, got.count);
    for (i = 0; i < COUNT_OF(of_lists) && got.entries; i++) {
        if (strcmp(key, of_lists[i]) == 0) return is_list(key, check, value);
    }
    if (got.has_stats) return is_counter(key, check, value);
    if (got.has_meta && strcmp(key, "version") == 0) return is_number(check, value, got.meta.version);
    if (got.has_meta && strcmp(key, "created") == 0) return is_time(check, value, got.meta.created_ms);
    if (got.has_meta && strcmp(key, "seen") == 0) return is_time(check, value, got.meta.last_seen_ms);
    if (got.has_meta && strcmp(key, "expires") == 0) return is_time(check, value, got.meta.expires_ms);
    if (got.has_meta && strcmp(key, "authenticated") == 0) return is_authentication(check, value, got.meta.authenticated_ms);
    if (got.has_meta && strcmp(key, "timeout") == 0) return is_timeout(check, value, got.meta.timeout_ms);
    if (got.has_meta && strcmp(key, "idle_timeout") == 0) return is_timeout(check, value, got.meta.idle_timeout_ms);
    return fail("unknown check for this step: %s", check);
}

static int step_holds(void) {
    static const sss_meta no_meta = SSS_META_INIT;
    static const sss_stats_t no_stats = SSS_STATS_INIT;
    const struct verb *verb = verbs;
    const char *expected = step.arrow + 1 < step.words ? step.word[step.arrow + 1] : "ok";
    int good, i;
    while (verb < verbs + COUNT_OF(verbs) && strcmp(verb->name, step.word[0]) != 0) verb++;
    if (verb == verbs + COUNT_OF(verbs)) return fail("unknown verb");
    if (step.arrow < verb->words || (step.arrow > verb->words && !verb->options)) return fail("wrong number of words");
    if (verb->arrow == NEVER ? step.arrow < step.words : verb->arrow == ALWAYS && step.arrow + 1 >= step.words)
        return fail("-> STATUS is %s", verb->arrow == NEVER ? "not for this verb" : "missing");
    if (verb->handle && !store_of(step.word[1], &store)) return 0;
    memset(&got, 0, sizeof got);
    got.meta = no_meta;
    got.stats = no_stats;
    good = verb->run();
    if (good && strcmp(expected, status_name(got.status)) != 0)
        good = fail("expected %s, came %s", expected, status_name(got.status));
    for (i = step.arrow + 2; i < step.words && good; i++) good = check_holds(step.word[i]);
    free(got.data);
    free(got.entries);
    return good;
}

/* ---- scenarios and files ---- */

static struct {
    long passed, failed, not_applicable;
} count;

static enum { OUTSIDE, RUNNING, SKIPPING, NOT_APPLICABLE } state; /* SKIPPING: it failed, or a child runs these steps */
static int failed_now;
static pid_t child_of;  /* not 0: this process is the child of a `fork` step */
static int forks_ahead; /* while a child runs: how many `join` until it is this process's turn */
static long tally_failed_before;

static void begin_scenario(const char *name) {
    memset(&world, 0, sizeof world);
    snprintf(world.scenario, sizeof world.scenario, "%s", name);
    world.test_store = new_test_store(engine_under_test());
    world.stale = open_store("memory:");
    CHECK_OK(sss_close(world.stale));
    tally_failed_before = tally->failed;
    failed_now = forks_ahead = 0;
    state = RUNNING;
}

static void end_scenario(void) {
    size_t i;
    if (state == OUTSIDE) return;
    for (i = 0; i < MAX_NAMES && !child_of; i++) {
        if (world.handles[i].open) CHECK_OK(sss_close(world.handles[i].store));
    }
    if (child_of) _exit(failed_now | (tally->failed != tally_failed_before));
    remove_test_store(&world.test_store);
    failed_now |= tally->failed != tally_failed_before;
    if (failed_now) {
        count.failed++;
    } else if (state == NOT_APPLICABLE) {
        count.not_applicable++;
    } else {
        count.passed++;
    }
    state = OUTSIDE;
}

static void fork_here(void) {
    int status = 0;
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm(20);
        child_of = getppid();
        return;
    }
    if (!CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0))
        failed_now = !fail("the child failed or hung");
    state = SKIPPING;
    forks_ahead = 1;
}

/* The end of a child, whose parent runs on. */
static void join_here(void) {
    if (forks_ahead) {
        if (--forks_ahead == 0 && !failed_now) state = RUNNING;
    } else if (child_of) {
        end_scenario();
    } else if (state == RUNNING) {
        failed_now = !fail("there is no child");
        state = SKIPPING;
    }
}

static void needs(const char *ability) {
    size_t k = 0;
    while (k < COUNT_OF(abilities) && strcmp(abilities[k].name, ability) != 0) k++;
    if (k == COUNT_OF(abilities)) {
        failed_now = !fail("unknown ability: %s", ability);
    } else if (!(abilities[k].engines & 1u << world.test_store.engine)) {
        state = NOT_APPLICABLE;
    }
}

static void run_line(char *line) {
    char *word;
    size_t i;
    if (line[0] == '\0' || line[0] == '#') return;
    strcpy(step.text, line);
    strcpy(step.split, line);
    step.words = 0;
    for (word = strtok(step.split, " "); word && step.words < MAX_WORDS; word = strtok(NULL, " ")) step.word[step.words++] = word;
    for (step.arrow = 0; step.arrow < step.words && strcmp(step.word[step.arrow], "->") != 0;) step.arrow++;
    if (strcmp(step.word[0], "scenario") == 0 && step.words == 2) {
        end_scenario();
        begin_scenario(step.word[1]);
    } else if (state == OUTSIDE) {
        count.failed += !fail("a step outside of a scenario");
    } else if (strcmp(step.word[0], "needs") == 0) {
        for (i = 1; i < (size_t)step.words; i++) needs(step.word[i]);
    } else if (strcmp(step.word[0], "join") == 0 && step.words == 2) {
        join_here();
    } else if (strcmp(step.word[0], "fork") == 0 && step.words == 2) {
        if (state == RUNNING) {
            fork_here();
        } else if (forks_ahead) {
            forks_ahead++;
        }
    } else if (state == RUNNING && !step_holds()) {
        failed_now = 1;
        state = SKIPPING;
    }
}

/* Reads the whole file before the first step: a forked child would share the place in an open one with its parent. */
static void run_file(const char *path) {
    static char text[1 << 18], line[MAX_LINE];
    FILE *file = fopen(path, "r");
    size_t len = file ? fread(text, 1, sizeof text - 1, file) : 0;
    char *at, *end;
    if (!file || !feof(file)) {
        fprintf(stderr, "%s: cannot be read, or is too long\n", path);
        count.failed++;
        return;
    }
    fclose(file);
    text[len] = '\0';
    step.file = path;
    for (at = text, step.line = 1; *at; at = end + (*end != '\0'), step.line++) {
        end = at + strcspn(at, "\n");
        if ((size_t)(end - at) >= sizeof line) abort(); /* longer than any in the files */
        memcpy(line, at, (size_t)(end - at));
        line[end - at] = '\0';
        run_line(line);
    }
    end_scenario();
}

int main(int argc, char **argv) {
    int i;
    open_tally();
    for (through_buf = 0; through_buf < 2; through_buf++) {
        test_name = through_buf ? "through sss_get_buf" : "through sss_get";
        for (i = 1; i < argc; i++) run_file(argv[i]);
    }
    printf("conformance: %ld scenarios passed, %ld not applicable (to this engine)\n", count.passed / 2, count.not_applicable / 2);
    return close_tally("conformance (by sss_get and by sss_get_buf)", count.passed, count.failed, count.not_applicable);
}
