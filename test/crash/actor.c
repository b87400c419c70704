/* actor.c - one process of the harness. See actor.h.
 *
 *     actor producer|worker DB HISTORY NAME SEED SOCKET LEASE_MS SABOTAGE */
#include "actor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const sabotage_name[SABOTAGES] = {"sound", "mark-before-send",
    "no-keys", "split-commit", "ack-before-commit", "no-transaction",
    "lost-is-no", "no-fencing", "short-lease", "short-retention"};

bool
actor_one_in(struct actor *a, unsigned n)
{
    return random_next(&a->random) % n == 0;
}

static int64_t
clock_us(clockid_t id)
{
    struct timespec t;

    (void)clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t
actor_wall_ms(void)
{
    return clock_us(CLOCK_REALTIME) / 1000;
}

int64_t
actor_mono_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

void
actor_sleep_ms(int64_t ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    (void)nanosleep(&t, NULL);
}

void
actor_write(struct actor *a, const struct event *e)
{
    char line[512];
    int n = snprintf(line, sizeof(line),
        "{\"t\":%lld,\"w\":%lld,\"p\":\"%s.%ld\",\"f\":\"%s\",\"y\":\"%s\","
        "\"k\":\"%s\",\"i\":\"%s\",\"tok\":\"%llu\",\"n\":%u,\"due\":%lld}\n",
        (long long)actor_mono_us(), (long long)actor_wall_ms(), a->name,
        (long)getpid(), e->what, e->type, e->key, e->id == NULL ? "" : e->id,
        (unsigned long long)e->token, e->attempts, (long long)e->due_ms);

    if (write(a->history, line, (size_t)n) != n)
        _exit(3);
}

void
actor_need(enum wb_status status, const struct wb_err *err)
{
    if (status == WB_OK)
        return;
    (void)fprintf(stderr, "actor: %s: %s\n", wb_status_name(status), err->msg);
    _exit(3);
}

static void
open_box(struct actor *a)
{
    struct wb_outbox_opts opts = {.busy_ms = 20000};
    struct wb_err err = {0};

    if (a->sabotage == SHORT_RETENTION)
        opts.keep_delivered_ms = 1;
    actor_need(wb_outbox_open(&a->box, a->db, &opts, &err), &err);
}

static enum sabotage
sabotage_of(const char *name)
{
    for (int s = 0; s < SABOTAGES; s++)
        if (strcmp(sabotage_name[s], name) == 0)
            return (enum sabotage)s;
    (void)fprintf(stderr, "actor: no sabotage %s\n", name);
    exit(2);
}

int
main(int argc, char **argv)
{
    struct actor a = {0};

    if (argc != 9)
        return 2;
    a.db = argv[2];
    a.history = open(argv[3], O_WRONLY | O_CREAT | O_APPEND, 0600);
    a.name = argv[4];
    a.random = strtoull(argv[5], NULL, 10);
    a.socket = argv[6];
    a.lease_ms = atol(argv[7]);
    a.sabotage = sabotage_of(argv[8]);
    if (a.history < 0)
        return 3;
    open_box(&a);
    if (strcmp(argv[1], "producer") == 0)
        producer_run(&a);
    worker_run(&a);
    return 0;
}
