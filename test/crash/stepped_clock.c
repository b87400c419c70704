/* stepped_clock.c - to be preloaded: the wall clock is $STEP seconds ahead of
 * the machine's. For test/crash/once.py. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int
clock_gettime(clockid_t id, struct timespec *t)
{
    const char *step = getenv("STEP");
    int rc = (int)syscall(SYS_clock_gettime, id, t);

    if (id == CLOCK_REALTIME && step != NULL)
        t->tv_sec += strtol(step, NULL, 10);
    return rc;
}
