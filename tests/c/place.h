/* place.h: where a store of its own is: a name in memory, a directory under TMPDIR that is removed again, or a prefix in a
 * Redis server. Which engine is under test says SSS_TEST_ENGINE: memory (also if it is not set), lmdb, lmdb-power, or one of
 * redis, for which tests/processes/with_redis.rs starts the servers and says in SSS_TEST_REDIS what the URLs are. */
#ifndef PLACE_H
#define PLACE_H
#include "check.h"
#include <dirent.h>

enum engine { MEMORY, LMDB, LMDB_POWER, REDIS };

struct place {
    enum engine engine;
    char path[256]; /* the part of the URL behind the scheme */
};

static inline enum engine engine_under_test(void) {
    const char *name = getenv("SSS_TEST_ENGINE");
    if (!name || strcmp(name, "memory") == 0) return MEMORY;
    if (strcmp(name, "lmdb") == 0) return LMDB;
    if (strcmp(name, "lmdb-power") == 0) return LMDB_POWER;
    if (strncmp(name, "redis", 5) == 0 && getenv("SSS_TEST_REDIS")) return REDIS;
    fprintf(stderr, "SSS_TEST_ENGINE is %s, not memory, lmdb, lmdb-power or a redis that with_redis has started\n", name);
    exit(2);
}

static inline int has_directory(enum engine engine) {
    return engine == LMDB || engine == LMDB_POWER;
}

static inline struct place new_place(enum engine engine) {
    static long serial;
    const char *folder = getenv("TMPDIR");
    struct place place;
    place.engine = engine;
    if (!has_directory(engine))
        folder = "";
    else if (!folder)
        folder = "/tmp";
    snprintf(place.path, sizeof place.path, "%s%sc-%ld-%ld", folder, folder[0] ? "/sss-" : "", (long)getpid(), ++serial);
    return place;
}

/* The URL of the store there; its options are joined by '&'. */
static inline size_t url_of(const struct place *place, const char *options, char *url, size_t size) {
    int used;
    if (place->engine == MEMORY) {
        used = snprintf(url, size, "memory:%s?%s", place->path, options);
    } else if (place->engine == REDIS) {
        static const char name[] = "{name}";
        const char *base = getenv("SSS_TEST_REDIS"), *at = base ? strstr(base, name) : NULL;
        if (!at) abort();
        used = snprintf(url, size, "%.*s%s%s%s%s", (int)(at - base), base, place->path, at + sizeof name - 1,
                        options[0] ? "&" : "", options);
    } else { /* tests make many stores, and each file is reserved as a whole */
        used = snprintf(url, size, "lmdb:%s?durability=%s%s%s%s", place->path, place->engine == LMDB ? "process" : "power",
                        strstr(options, "max_bytes=") ? "" : "&max_bytes=16MiB", options[0] ? "&" : "", options);
    }
    if (used < 0 || (size_t)used >= size) abort();
    return (size_t)used;
}

static inline sss_store open_place(const struct place *place, const char *options) {
    char url[1024];
    size_t len = url_of(place, options, url, sizeof url);
    sss_store store = 0;
    CHECK_OK(sss_open(url, len, &store));
    return store;
}

static inline void remove_place(const struct place *place) {
    DIR *folder = has_directory(place->engine) ? opendir(place->path) : NULL;
    struct dirent *file;
    char path[1024];
    if (!folder) return; /* it may never have been opened */
    while ((file = readdir(folder))) {
        snprintf(path, sizeof path, "%s/%s", place->path, file->d_name);
        if (file->d_name[0] != '.') CHECK(unlink(path) == 0);
    }
    closedir(folder);
    CHECK(rmdir(place->path) == 0);
}

#endif
