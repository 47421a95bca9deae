/* A clock that can be moved under a running process: CLOCK_REALTIME plus the nanoseconds that the file FAULTS_CLOCK
 * holds, by LD_PRELOAD. CLOCK_MONOTONIC stays as it is, as it does when a machine's clock is set.
 *
 * libfaketime 0.9.10 does not serve: it miscounts an absolute clock_nanosleep on CLOCK_MONOTONIC, which is how Python
 * sleeps from 3.11 on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NANO 1000000000LL

static const volatile long long *offset_ns;

__attribute__((constructor)) static void map_offset(void) {
    const char *path = getenv("FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset_ns, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (mapped != MAP_FAILED) offset_ns = mapped;
}

static void add(struct timespec *t, long long ns) {
    long long all = t->tv_sec * NANO + t->tv_nsec + ns;
    t->tv_sec = all / NANO;
    t->tv_nsec = all % NANO;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    long result = syscall(SYS_clock_gettime, id, t);
    if (result == 0 && offset_ns && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) add(t, *offset_ns);
    return (int)result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}

/* Its deadline was reckoned by the moved clock, and the kernel waits by its own: multiprocessing's locks wait so. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    struct timespec real = *deadline;
    if (offset_ns) add(&real, -*offset_ns);
    return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}
