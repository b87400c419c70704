/* thread.c - locks that spin, waits with a time limit, futexes, threads. */
#define _GNU_SOURCE /* pthread_cond_clockwait, syscall */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"

enum {
    SPIN_TRIES = 20,
    SPIN_PAUSE = 2000 /* iterations of a loop: about a microsecond */
};

void
wb__mutex_lock_spin(struct wb__mutex *m)
{
    for (int i = 0; i < SPIN_TRIES; i++) {
        if (pthread_mutex_trylock(&m->m) == 0)
            return;
        for (volatile int k = 0; k < SPIN_PAUSE; k++)
            ;
    }
    wb__mutex_lock(m);
}

void
wb__cond_wait_us(struct wb__cond *c, struct wb__mutex *m, int64_t us)
{
    struct timespec t;
    int sys;

    if (us > INT64_C(86400000000))
        us = INT64_C(86400000000); /* a day; an early return is allowed */
    WB_ASSERT(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    t.tv_sec += us / 1000000;
    t.tv_nsec += us % 1000000 * 1000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    sys = pthread_cond_clockwait(&c->c, &m->m, CLOCK_MONOTONIC, &t);
    WB_ASSERT(sys == 0 || sys == ETIMEDOUT);
}

bool
wb__futex_wait(wb__futex *w, uint32_t seen, int64_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};

    return syscall(SYS_futex, w, FUTEX_WAIT_PRIVATE, seen, us > 0 ? &t : NULL,
               NULL, 0) == 0 ||
           errno != ETIMEDOUT;
}

void
wb__futex_wake(wb__futex *w)
{
    (void)syscall(SYS_futex, w, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

bool
wb__thread_start(struct wb__thread *t, void *(*fn)(void *ctx), void *ctx)
{
    sigset_t all, before;
    int sys;

    (void)sigfillset(&all);
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    sys = pthread_create(&t->id, NULL, fn, ctx);
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return sys == 0;
}

void
wb__thread_join(struct wb__thread *t)
{
    WB_ASSERT(pthread_join(t->id, NULL) == 0);
}
