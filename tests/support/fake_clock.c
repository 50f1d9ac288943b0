/* Stand before the C library's time of day, for LD_PRELOAD: it is ahead by what the file FAKE_CLOCK holds, eight
   bytes, in seconds. A wait until a time of day ends by that clock. The monotonic clocks and the times of files
   stay, as they do when a clock is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none = 0;
static const volatile int64_t *ahead_s = &none;
static int (*true_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  true_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  const char *path = getenv("FAKE_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) ahead_s = mapped;
  close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
  if (!true_clock) begin();
  int failed = true_clock(id, now);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_s;
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  int failed = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return failed;
}

time_t time(time_t *copy) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (copy) *copy = now.tv_sec;
  return now.tv_sec;
}

/* Return the time of the machine's clock at which `until` is reached, where that is a time of day. */
static struct timespec by_machine(const struct timespec *until) {
  struct timespec reached = *until;
  if (until->tv_sec > 1000000000) reached.tv_sec -= *ahead_s; /* no monotonic clock has run for 30 years */
  return reached;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  static int (*true_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!true_wait) *(void **)&true_wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!true_wait) *(void **)&true_wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec reached = by_machine(until);
  return true_wait(condition, mutex, &reached);
}

long syscall(long number, ...) {
  static long (*true_call)(long, ...);
  if (!true_call) *(void **)&true_call = dlsym(RTLD_NEXT, "syscall");
  long words[6];
  va_list given;
  va_start(given, number);
  for (int i = 0; i < 6; i++) words[i] = va_arg(given, long);
  va_end(given);
  struct timespec reached;
  if (number == SYS_futex && words[1] & FUTEX_CLOCK_REALTIME && words[3]) {
    reached = by_machine((const struct timespec *)words[3]);
    words[3] = (long)&reached;
  }
  return true_call(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}
