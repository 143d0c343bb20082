/* shim.c: loaded before the C library into a process that uses an lmdb: store, it writes down in which order data.mdb is
 * written and what is made sure to be on the disk (also of directories) or read from it again, and
 * lets the disk fail when it is told to. It must not change the order of what it sees: a write and
 * its line are one step to all processes, and so is the beginning of a wait for the disk.
 *
 * SSS_SHIM_LOG: the file that records are added to. SSS_SHIM_FAIL: while there is a file of this
 * name, the next wait for data.mdb fails and removes it; a file of this name with ".later" becomes
 * that at the next one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum what { WRITE = 1, WAIT = 2, WAITED = 3, /* 4 is a note of the test */ DIRECTORY = 5, FORGOTTEN = 6 };
enum which { OTHER = 0, DATA = 1, MAP = 2 };

struct record {
    uint32_t what, which;
    uint64_t offset, len; /* of a WRITE, whose bytes follow, as a DIRECTORY's path does; else the thread's number and 0 */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -2;

static void begin(void) {
    pthread_mutex_lock(&mutex);
    if (log_fd == -2) {
        const char *path = getenv("SSS_SHIM_LOG");
        log_fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    }
    if (log_fd >= 0) flock(log_fd, LOCK_EX);
}

static void end(void) {
    if (log_fd >= 0) flock(log_fd, LOCK_UN);
    pthread_mutex_unlock(&mutex);
}

static void note(enum what what, enum which which, off_t offset, const struct iovec *parts, int count, size_t len) {
    struct record record = {what, which, (uint64_t)offset, len};
    struct iovec all[1 + 64];
    if (log_fd < 0) return;
    if (count > 64) abort();
    all[0].iov_base = &record;
    all[0].iov_len = sizeof record;
    if (count) memcpy(all + 1, parts, (size_t)count * sizeof *parts);
    if (syscall(SYS_writev, log_fd, all, count + 1) != (ssize_t)(sizeof record + (count ? len : 0))) abort();
}

static enum which named(const char *path) {
    const char *name = strrchr(path, '/');
    if (name && strcmp(name, "/data.mdb") == 0) return DATA;
    return name && strcmp(name, "/state.shm") == 0 ? MAP : OTHER;
}

static size_t path_of(int fd, char path[4096]) {
    char link[64];
    ssize_t len;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    len = readlink(link, path, 4095);
    path[len < 0 ? 0 : len] = 0;
    return strlen(path);
}

static enum which which_file(int fd) {
    char path[4096];
    path_of(fd, path);
    return named(path);
}

static enum which which_mapping(const void *address) {
    char line[4200];
    unsigned long from, to;
    enum which which = OTHER;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps)) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= (uintptr_t)address && (uintptr_t)address < to) which = named(line);
    }
    if (maps) fclose(maps);
    return which;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    struct iovec part = {(void *)(uintptr_t)bytes, len};
    ssize_t done;
    int is_data = which_file(fd) == DATA;
    if (is_data) begin();
    done = syscall(SYS_pwrite64, fd, bytes, len, offset);
    if (is_data && done == (ssize_t)len) note(WRITE, DATA, offset, &part, 1, len);
    if (is_data) end();
    return done;
}

/* At where lseek has put it. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t done;
    int is_data = which_file(fd) == DATA;
    off_t offset = is_data ? lseek(fd, 0, SEEK_CUR) : 0;
    if (is_data) begin();
    done = syscall(SYS_writev, fd, parts, count);
    if (is_data && done > 0) note(WRITE, DATA, offset, parts, count, (size_t)done);
    if (is_data) end();
    return done;
}

static int must_fail(void) {
    const char *path = getenv("SSS_SHIM_FAIL");
    char later[4096];
    if (!path) return 0;
    if (unlink(path) == 0) return 1;
    snprintf(later, sizeof later, "%s.later", path);
    rename(later, path);
    return 0;
}

static int waited(long call, enum which which, long first, long second, long third) {
    int result;
    if (which == OTHER) return (int)syscall(call, first, second, third);
    begin();
    note(WAIT, which, syscall(SYS_gettid), NULL, 0, 0);
    end();
    if (which == DATA && must_fail()) {
        errno = EIO;
        return -1;
    }
    result = (int)syscall(call, first, second, third);
    begin();
    if (result == 0) note(WAITED, which, syscall(SYS_gettid), NULL, 0, 0);
    end();
    return result;
}

int fdatasync(int fd) {
    return waited(SYS_fdatasync, which_file(fd), fd, 0, 0);
}

static int sync_directory(int fd) {
    char path[4096];
    struct iovec part = {path, path_of(fd, path)};
    int result = (int)syscall(SYS_fsync, fd);
    if (result == 0) {
        begin();
        note(DIRECTORY, OTHER, 0, &part, 1, part.iov_len);
        end();
    }
    return result;
}

int fsync(int fd) {
    struct stat about;
    if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode)) return sync_directory(fd);
    return waited(SYS_fsync, which_file(fd), fd, 0, 0);
}

int msync(void *address, size_t len, int flags) {
    return waited(SYS_msync, which_mapping(address), (long)(uintptr_t)address, (long)len, flags);
}

int posix_fadvise(int fd, off_t offset, off_t len, int advice) {
    long result = syscall(SYS_fadvise64, fd, offset, len, advice);
    if (result == 0 && advice == POSIX_FADV_DONTNEED && which_file(fd) == DATA) {
        begin();
        note(FORGOTTEN, DATA, 0, NULL, 0, 0);
        end();
    }
    return result == 0 ? 0 : errno;
}

/* The same under the name that programs with 64-bit offsets use. */
int posix_fadvise64(int fd, off64_t offset, off64_t len, int advice) {
    return posix_fadvise(fd, offset, len, advice);
}
