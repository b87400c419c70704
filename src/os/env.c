/* env.c - clock, randomness and memory of this machine. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

/* Asked of the kernel itself: a program that runs under a changed clock has to
 * agree with the others. */
int64_t
wb__boot_ms(void)
{
    struct timespec t = {0};

    (void)syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool
wb__boot_name(char name[64])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, name, 36);
    struct stat time_namespace;

    wb__fd_close(fd);
    if (n != 36)
        return false;
    if (stat("/proc/self/ns/time", &time_namespace) != 0)
        time_namespace.st_ino = 0;
    (void)snprintf(
        name + n, 64 - 36, ".%llu", (unsigned long long)time_namespace.st_ino);
    return true;
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
