/* limit.c - the upper limit that the disk sets.
 *
 * cal: overwrite 4 KiB, fdatasync, again. group: threads that share a write
 * and a sync through a minimal queue: each appends 4 KiB / 8 to the current
 * batch and waits until that batch is on disk. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

enum {
    FILE_BYTES = 16 << 20,
    RECORD = 512
};

static int
file_made(void)
{
    char *zeros = calloc(1, FILE_BYTES);
    int fd = open(bench_path("cal"), O_RDWR | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || zeros == NULL || write(fd, zeros, FILE_BYTES) != FILE_BYTES ||
        fsync(fd) != 0)
        bench_die("no file to write to");
    free(zeros);
    return fd;
}

static void
cal(void)
{
    static char block[4096];
    int fd = file_made();
    double start = bench_now(), end = bench_until();
    int64_t n = 0;

    for (; bench_now() < end; n++)
        if (pwrite(fd, block, sizeof(block), n % 4096 * 4096) != 4096 ||
            fdatasync(fd) != 0)
            bench_die("cal: a write failed");
    bench_rate(n, bench_now() - start);
}

/* ---- ideal group commit ------------------------------------------------ */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t synced[2];
    char batch[2][64 * 1024];
    size_t len[2];
    uint64_t filling; /* number of the batch that takes records */
    bool leading;
    int fd;
    off_t at;
    double end;
    int64_t done;
} group = {.lock = PTHREAD_MUTEX_INITIALIZER,
    .synced = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER}};

/* The caller holds the lock; it is released during the write. */
static void
group_write(void)
{
    uint64_t own = group.filling++;
    size_t len = group.len[own % 2];

    group.leading = true;
    group.len[group.filling % 2] = 0;
    (void)pthread_mutex_unlock(&group.lock);
    if (group.at + (off_t)len > FILE_BYTES)
        group.at = 0;
    if (pwrite(group.fd, group.batch[own % 2], len, group.at) != (ssize_t)len ||
        fdatasync(group.fd) != 0)
        bench_die("group: a write failed");
    group.at += (off_t)len;
    (void)pthread_mutex_lock(&group.lock);
    group.leading = false;
    (void)pthread_cond_broadcast(&group.synced[own % 2]);
    (void)pthread_cond_signal(&group.synced[group.filling % 2]);
}

static void
group_put(const char *record)
{
    uint64_t own;

    (void)pthread_mutex_lock(&group.lock);
    own = group.filling;
    memcpy(group.batch[own % 2] + group.len[own % 2], record, RECORD);
    group.len[own % 2] += RECORD;
    while (group.leading && group.filling == own)
        (void)pthread_cond_wait(&group.synced[own % 2], &group.lock);
    if (group.filling == own)
        group_write();
    else
        while (group.leading && group.filling == own + 1)
            (void)pthread_cond_wait(&group.synced[own % 2], &group.lock);
    (void)pthread_mutex_unlock(&group.lock);
}

static void
group_thread(int64_t i)
{
    static const char record[RECORD];
    int64_t n = 0;

    (void)i;
    for (; bench_now() < group.end; n++)
        group_put(record);
    (void)__atomic_add_fetch(&group.done, n, __ATOMIC_RELAXED);
}

static void
group_run(void)
{
    double start;

    group.fd = file_made();
    start = bench_now();
    group.end = bench_until();
    bench_threads(bench_opt("threads", 1), group_thread);
    bench_rate(group.done, bench_now() - start);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {
        {"cal", cal}, {"group", group_run}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
