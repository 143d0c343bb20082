/* Loaded into a server by LD_PRELOAD: its wall clock is wrong by the milliseconds at the start of the file that
 * SSS_CLOCK_FILE names, which may change while it runs. Its monotonic clock is right. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *error_ms;

__attribute__((constructor)) static void map_error(void) {
  int fd = open(getenv("SSS_CLOCK_FILE"), O_RDONLY);
  void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *error_ms, PROT_READ, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) abort();
  error_ms = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int failed = (int)syscall(SYS_clock_gettime, clock, time);
  /* An allocator asks for the time before this library is initialised. */
  if (!failed && error_ms && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ns = time->tv_nsec + *error_ms % 1000 * 1000000;
    time->tv_sec += *error_ms / 1000 + (ns >= 1000000000) - (ns < 0);
    time->tv_nsec = ns + (ns < 0 ? 1000000000 : ns >= 1000000000 ? -1000000000 : 0);
  }
  return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
