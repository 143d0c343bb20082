/* The C worker of tests/interop.py, which has the protocol: raw bytes through sss.h. */
#define _POSIX_C_SOURCE 200809L
#include "sss.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void work(char *line);

static sss_store store;

static const char *name_of(sss_status status) {
    switch (status) {
    case SSS_OK: return "ok";
    case SSS_E_NOT_FOUND: return "not_found";
    case SSS_E_CONFLICT: return "conflict";
    case SSS_E_FULL: return "full";
    case SSS_E_BUSY: return "busy";
    default: return "another";
    }
}

/* In place: the bytes are never longer than their digits. "-" is no bytes. */
static size_t unhex(char *word) {
    size_t len = 0;
    unsigned byte;
    for (; word[2 * len] && word[2 * len] != '-'; len++) {
        if (sscanf(word + 2 * len, "%2x", &byte) != 1) abort();
        word[len] = (char)byte;
    }
    return len;
}

static void say(sss_status status, const char *value) {
    printf(status == SSS_OK && value[0] ? "= %s %s\n" : "= %s\n", name_of(status), value);
    fflush(stdout);
}

static void say_number(sss_status status, uint64_t number) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    say(status, text);
}

static void say_session(const char *sid) {
    sss_buf buf = {NULL, 0, NULL};
    sss_meta meta = SSS_META_INIT;
    sss_status status = sss_get_buf(store, sid, strlen(sid), 0, &buf, &meta);
    size_t i;
    printf("= %s", name_of(status));
    if (status == SSS_OK) {
        printf(" %" PRIu64 " %s", meta.version, buf.len ? "" : "-");
        for (i = 0; i < buf.len; i++) printf("%02x", buf.data[i]);
    }
    putchar('\n');
    fflush(stdout);
    sss_buf_free(&buf);
}

static void count(const char *sid, long times) {
    sss_status status = SSS_OK;
    while (times > 0) {
        char text[32];
        size_t len = 0;
        sss_meta meta = SSS_META_INIT;
        status = sss_get(store, sid, strlen(sid), 0, text, sizeof text - 1, &len, &meta);
        if (status != SSS_OK) break;
        text[len] = '\0';
        len = (size_t)snprintf(text, sizeof text, "%ld", atol(text) + 1);
        status = sss_put_if(store, sid, strlen(sid), meta.version, text, len, NULL, NULL);
        if (status == SSS_E_CONFLICT) continue;
        if (status != SSS_OK) break;
        puts("= counted");
        fflush(stdout);
        times--;
    }
    say(status, "");
}

static void answer(char **word) {
    const char *verb = word[0];
    char sid[SSS_SID_SIZE] = "";
    sss_options options = SSS_OPTIONS_INIT;
    sss_meta meta = SSS_META_INIT;
    size_t len, listed = 0;
    uint64_t number = 0;
    sss_status status;
    if (strcmp(verb, "open") == 0) {
        say(sss_open(word[1], strlen(word[1]), &store), "");
    } else if (strcmp(verb, "create") == 0) {
        len = unhex(word[1]);
        options.principal_len = unhex(word[2]);
        options.principal = word[2];
        status = sss_create(store, word[1], len, &options, sid, NULL);
        say(status, sid);
    } else if (strcmp(verb, "get") == 0) {
        say_session(word[1]);
    } else if (strcmp(verb, "put_if") == 0) {
        len = unhex(word[3]);
        status = sss_put_if(store, word[1], strlen(word[1]), strtoull(word[2], NULL, 10), word[3], len, NULL, &meta);
        say_number(status, meta.version);
    } else if (strcmp(verb, "renew") == 0) {
        status = sss_renew(store, word[1], strlen(word[1]), NULL, 0, NULL, sid, NULL);
        say(status, sid);
    } else if (strcmp(verb, "delete") == 0) {
        say(sss_delete(store, word[1], strlen(word[1])), "");
    } else if (strcmp(verb, "list") == 0) {
        status = sss_list(store, word[1], unhex(word[1]), NULL, 0, &listed);
        say_number(status, listed);
    } else if (strcmp(verb, "revoke") == 0) {
        status = sss_revoke(store, word[1], unhex(word[1]), NULL, 0, &number);
        say_number(status, number);
    } else if (strcmp(verb, "count") == 0) {
        count(word[1], atol(word[2]));
    } else {
        abort();
    }
}

/* Does what a line says. worker.py calls this too, with the whole of this file as a library in its own process. */
void work(char *line) {
    char *word[4], *next = strtok(line, " \n");
    int words;
    for (words = 0; words < 4; words++) {
        word[words] = next;
        if (next) next = strtok(NULL, " \n");
    }
    if (word[0]) answer(word);
}

int main(void) {
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) work(line);
    free(line);
    return 0;
}
