/* test_store.h: a store for one test: a name in memory, a directory under TMPDIR that is removed again, or a prefix in a
 * Redis server. Which engine is under test says SSS_TEST_ENGINE: memory (the default), lmdb,
 * lmdb-power, or one of redis, for which tests/processes/with_redis.rs starts the servers and says
 * in SSS_TEST_REDIS what the URLs are. */
#ifndef TEST_STORE_H
#define TEST_STORE_H
#include "check.h"
#include <dirent.h>

enum engine { MEMORY, LMDB, LMDB_POWER, REDIS };

struct test_store {
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

static inline struct test_store new_test_store(enum engine engine) {
    static long serial;
    const char *folder = getenv("TMPDIR");
    struct test_store test_store;
    test_store.engine = engine;
    if (!has_directory(engine))
        folder = "";
    else if (!folder)
        folder = "/tmp";
    snprintf(test_store.path, sizeof test_store.path, "%s%sc-%ld-%ld", folder, folder[0] ? "/sss-" : "", (long)getpid(), ++serial);
    return test_store;
}

/* The URL of the store there; its options are joined by '&'. */
static inline size_t url_of(const struct test_store *test_store, const char *options, char *url, size_t size) {
    int used;
    if (test_store->engine == MEMORY) {
        used = snprintf(url, size, "memory:%s?%s", test_store->path, options);
    } else if (test_store->engine == REDIS) {
        static const char name[] = "{name}";
        const char *base = getenv("SSS_TEST_REDIS"), *at = base ? strstr(base, name) : NULL;
        if (!at) abort();
        used = snprintf(url, size, "%.*s%s%s%s%s", (int)(at - base), base, test_store->path, at + sizeof name - 1,
                        options[0] ? "&" : "", options);
    } else { /* tests make many stores, and each file is reserved as a whole */
        used = snprintf(url, size, "lmdb:%s?durability=%s%s%s%s", test_store->path, test_store->engine == LMDB ? "process" : "power",
                        strstr(options, "max_bytes=") ? "" : "&max_bytes=16MiB", options[0] ? "&" : "", options);
    }
    if (used < 0 || (size_t)used >= size) abort();
    return (size_t)used;
}

static inline sss_store open_test_store(const struct test_store *test_store, const char *options) {
    char url[1024];
    size_t len = url_of(test_store, options, url, sizeof url);
    sss_store store = 0;
    CHECK_OK(sss_open(url, len, &store));
    return store;
}

static inline void remove_test_store(const struct test_store *test_store) {
    DIR *folder = has_directory(test_store->engine) ? opendir(test_store->path) : NULL;
    struct dirent *file;
    char path[1024];
    if (!folder) return; /* it may never have been opened */
    while ((file = readdir(folder))) {
        snprintf(path, sizeof path, "%s/%s", test_store->path, file->d_name);
        if (file->d_name[0] != '.') CHECK(unlink(path) == 0);
    }
    closedir(folder);
    CHECK(rmdir(test_store->path) == 0);
}

#endif
