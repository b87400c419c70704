/* env.c - clock, randomness and memory of this machine. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/base.h"
#include "os/os.h"

static int64_t
clock_us(clockid_t id)
{
    struct timespec t;

    WB_ASSERT(clock_gettime(id, &t) == 0);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t
wall_ms(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_REALTIME) / 1000;
}

static int64_t
mono_us(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_MONOTONIC);
}

static int64_t
coarse_ms(void *ctx)
{
    (void)ctx;
    return clock_us(CLOCK_MONOTONIC_COARSE) / 1000;
}

static void
random_bytes(void *ctx, void *out, size_t len)
{
    char *p = out;

    (void)ctx;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);

        WB_ASSERT(n > 0 || errno == EINTR);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}

static void *
resize(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, size);
}

const struct wb_env *
wb_env_system(void)
{
    static const struct wb_env env = {
        .wall_ms = wall_ms,
        .mono_us = mono_us,
        .random = random_bytes,
        .resize = resize,
        .coarse_ms = coarse_ms,
    };

    return &env;
}

void
wb__sleep_us(int64_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};

    (void)nanosleep(&t, NULL);
}
