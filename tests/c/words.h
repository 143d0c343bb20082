/* words.h: what single words of a conformance step mean: payloads, times, options, ids, variables. The format is
 * described in tests/conformance/README.md. Every word it does not know is an error of the step,
 * never ignored. */
#ifndef WORDS_H
#define WORDS_H
#include "test_store.h"
#include <ctype.h>
#include <stdarg.h>

enum { MAX_LINE = 8192, MAX_WORDS = 64, MAX_NAMES = 64, MAX_PAYLOAD = (1 << 20) + 1 };

static struct {
    const char *file;
    long line;
    char text[MAX_LINE], split[MAX_LINE]; /* as written; cut into words */
    char *word[MAX_WORDS];
    int words, arrow; /* how many; where "->" stands (== words: nowhere) */
} step;

struct variable {
    char name[32];
    char value[SSS_SID_LEN]; /* an id or a reference */
    size_t len;
};

struct handle {
    char name[32];
    sss_store store;
    int open;
};

/* What one scenario knows; wiped before each. */
static struct {
    char scenario[128];
    struct test_store test_store;
    struct variable variables[MAX_NAMES];
    struct handle handles[MAX_NAMES];
    sss_store stale;
    int64_t advanced_ms, origin_ms;
    int has_origin;
} world;

/* Reports why the step failed, and is 0: return fail(...). */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static inline int fail(const char *format, ...) {
    va_list args;
    fprintf(stderr, "%s:%ld: %s\n    in %s: ", step.file, step.line, step.text, world.scenario);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 0;
}

static inline int starts_with(const char *word, const char *prefix) {
    return strncmp(word, prefix, strlen(prefix)) == 0;
}

static inline int number(const char *word, uint64_t *value) {
    char *end;
    errno = 0;
    *value = strtoull(word, &end, 10);
    return isdigit((unsigned char)word[0]) && *end == '\0' && errno == 0 ? 1 : fail("no number: %s", word);
}

/* 500ms 10s 5m 3h */
static inline int duration(const char *word, int64_t *ms) {
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;
    size_t i;
    errno = 0;
    *ms = strtoll(word, &end, 10);
    for (i = 0; i < COUNT_OF(units) && errno == 0 && end != word; i++) {
        if (strcmp(end, units[i].unit) == 0 && !__builtin_mul_overflow(*ms, units[i].ms, ms)) return 1;
    }
    return fail("no time: %s", word);
}

static inline int timeout(const char *word, int64_t *ms) {
    if (strcmp(word, "infinity") == 0) return *ms = SSS_FOREVER, 1;
    if (strcmp(word, "dead") == 0) return *ms = -1, 1;
    if (strcmp(word, "inherit") == 0) return *ms = SSS_INHERIT, 1;
    return duration(word, ms);
}

/* DATA and PRINCIPAL. The caller frees *data, which is never NULL. */
static inline int bytes(const char *word, unsigned char **data, size_t *len) {
    uint64_t count;
    size_t i;
    *data = NULL, *len = 0;
    if (starts_with(word, "fill:")) {
        if (!number(word + 5, &count) || count > MAX_PAYLOAD) return fail("no size: %s", word);
        *len = (size_t)count;
        if (!(*data = (unsigned char *)malloc(*len + 1))) abort();
        for (i = 0; i < *len; i++) (*data)[i] = (unsigned char)(i % 251);
        return 1;
    }
    if (!(*data = (unsigned char *)malloc(strlen(word) + 1))) abort();
    if (strcmp(word, "empty") == 0) return 1;
    if (starts_with(word, "hex:")) {
        for (word += 4; word[0]; word += 2) {
            unsigned byte;
            int used = 0;
            if (sscanf(word, "%2x%n", &byte, &used) != 1 || used != 2) return fail("no hex digits: %s", word);
            (*data)[(*len)++] = (unsigned char)byte;
        }
        return 1;
    }
    *len = strlen(word);
    memcpy(*data, word, *len);
    for (i = 0; i < *len; i++) {
        if (!isalnum((unsigned char)word[i]) && !strchr("_.-", word[i])) return fail("no payload: %s", word);
    }
    return 1;
}

static inline struct variable *variable(const char *name, int create) {
    size_t i;
    if (name[0] != '$' || strlen(name) >= sizeof world.variables[0].name) {
        fail("no variable: %s", name);
        return NULL;
    }
    for (i = 0; i < MAX_NAMES && world.variables[i].name[0]; i++) {
        if (strcmp(world.variables[i].name, name) == 0) return &world.variables[i];
    }
    if (!create || i == MAX_NAMES) {
        fail("the variable %s has no value", name);
        return NULL;
    }
    strcpy(world.variables[i].name, name);
    return &world.variables[i];
}

static inline int set_variable(const char *name, const void *value, size_t len) {
    struct variable *v = variable(name, 1);
    if (!v) return 0;
    memcpy(v->value, value, v->len = len);
    return 1;
}

/* An id to present: a variable, `unknown` or `malformed:TEXT`. */
static inline int id_of(const char *word, const char **id, size_t *len) {
    struct variable *v;
    if (strcmp(word, "unknown") == 0) return *id = UNKNOWN_SID, *len = SSS_SID_LEN, 1;
    if (starts_with(word, "malformed:")) return *id = word + 10, *len = strlen(*id), 1;
    if (!(v = variable(word, 0))) return 0;
    return *id = v->value, *len = v->len, 1;
}

static inline int reference_of(const char *word, uint8_t ref[SSS_REF_LEN]) {
    struct variable *v;
    memset(ref, 0xAA, SSS_REF_LEN);
    if (strcmp(word, "unknown_ref") == 0) return 1;
    if (!(v = variable(word, 0))) return 0;
    if (v->len != SSS_REF_LEN) return fail("%s is no reference", word);
    memcpy(ref, v->value, SSS_REF_LEN);
    return 1;
}

static inline struct handle *handle_named(const char *name, int create) {
    size_t i;
    for (i = 0; i < MAX_NAMES && world.handles[i].name[0]; i++) {
        if (strcmp(world.handles[i].name, name) == 0) return &world.handles[i];
    }
    if (!create || i == MAX_NAMES || strlen(name) >= sizeof world.handles[0].name) {
        fail("no handle: %s", name);
        return NULL;
    }
    strcpy(world.handles[i].name, name);
    return &world.handles[i];
}

static inline int store_of(const char *name, sss_store *store) {
    struct handle *handle;
    if (strcmp(name, "none") == 0) return *store = 0, 1;
    if (strcmp(name, "stale") == 0) return *store = world.stale, 1;
    if (!(handle = handle_named(name, 0))) return 0;
    return *store = handle->store, 1;
}

/* The options of a step from word `first` up to the arrow, and data= for renew. */
struct options {
    sss_options c;
    unsigned char *principal, *label, *data;
    size_t data_len;
};

static inline int options_from(int first, struct options *options) {
    static const sss_options initial = SSS_OPTIONS_INIT;
    int i;
    memset(options, 0, sizeof *options);
    options->c = initial;
    for (i = first; i < step.arrow; i++) {
        const char *word = step.word[i];
        int good = 0;
        if (starts_with(word, "timeout=")) {
            good = timeout(word + 8, &options->c.timeout_ms);
        } else if (starts_with(word, "idle_timeout=")) {
            good = timeout(word + 13, &options->c.idle_timeout_ms);
        } else if (starts_with(word, "grace=")) {
            good = duration(word + 6, &options->c.grace_ms);
        } else if (starts_with(word, "principal=") && !options->principal) {
            good = bytes(word + 10, &options->principal, &options->c.principal_len);
            options->c.principal = options->principal;
        } else if (strcmp(word, "clear_principal") == 0) {
            good = 1;
            options->c.flags |= SSS_CLEAR_PRINCIPAL;
        } else if (starts_with(word, "label=") && !options->label) {
            good = bytes(word + 6, &options->label, &options->c.label_len);
            options->c.label = options->label;
        } else if (strcmp(word, "reauthenticated") == 0) {
            good = 1;
            options->c.flags |= SSS_REAUTHENTICATED;
        } else if (starts_with(word, "data=") && strcmp(step.word[0], "renew") == 0 && !options->data) {
            good = bytes(word + 5, &options->data, &options->data_len);
        } else {
            fail("unknown option: %s", word);
        }
        if (!good) return 0;
    }
    return 1;
}

static inline void free_options(struct options *options) {
    free(options->principal);
    free(options->label);
    free(options->data);
}

#endif
