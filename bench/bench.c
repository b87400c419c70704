/* bench.c - see bench.h. */
#define _GNU_SOURCE
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"

static int args_n;
static char **args;

int
bench_main(int argc, char **argv, const struct bench_subject *subjects)
{
    args_n = argc;
    args = argv;
    for (; argc > 2 && subjects->name != NULL; subjects++) {
        if (strcmp(argv[1], subjects->name) == 0) {
            subjects->run();
            return 0;
        }
    }
    bench_die("usage: %s SUBJECT FOLDER [name=number...]", argv[0]);
}

int64_t
bench_opt(const char *name, int64_t standard)
{
    size_t n = strlen(name);

    for (int i = 3; i < args_n; i++)
        if (strncmp(args[i], name, n) == 0 && args[i][n] == '=')
            return strtoll(args[i] + n + 1, NULL, 10);
    return standard;
}

const char *
bench_path(const char *name)
{
    static char path[4096];

    (void)snprintf(path, sizeof(path), "%s/%s", args[2], name);
    return path;
}

void
bench_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    exit(1);
}

void
bench_ok(enum wb_status rc, const struct wb_err *err, const char *what)
{
    if (rc != WB_OK)
        bench_die("%s: %s: %s", what, wb_status_name(rc), err->msg);
}

void
bench_print(const char *name, double value)
{
    (void)printf("%s=%.6g\n", name, value);
    (void)fflush(stdout);
}

static double cpu_began;

void
bench_rate(int64_t n, double seconds)
{
    bench_print("per_s", (double)n / seconds);
    bench_print("n", (double)n);
    if (cpu_began > 0)
        bench_print("per_cpu_s", (double)n / (bench_cpu() - cpu_began));
}

static double
seconds_of(clockid_t id)
{
    struct timespec t;

    (void)clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double
bench_now(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double
bench_cpu(void)
{
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

double
bench_until(void)
{
    cpu_began = bench_cpu();
    return bench_now() + (double)bench_opt("ms", 500) / 1000;
}

uint64_t
bench_random(void)
{
    static _Thread_local uint64_t x;

    if (x == 0)
        x = (uint64_t)(bench_now() * 1e9) ^ (uintptr_t)&x;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

void
bench_pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    (void)sched_setaffinity(0, sizeof(set), &set); /* one CPU is fine, too */
}

struct wb_slice
bench_payload(void)
{
    static char text[301];
    static const char head[] = "{\"order\":12345678,\"text\":\"";

    if (text[0] == '\0') {
        (void)memset(text, 'x', 300);
        memcpy(text, head, sizeof(head) - 1);
        memcpy(text + 298, "\"}", 2);
    }
    return (struct wb_slice){text, 300};
}

struct wb_message
bench_message(void)
{
    return (struct wb_message){
        .kind = WB_LIT("order.paid"), .payload = bench_payload()};
}

/* ---- threads ----------------------------------------------------------- */

struct thread {
    pthread_t id;
    int64_t number;
    void (*fn)(int64_t i);
};

static void *
thread_main(void *arg)
{
    struct thread *t = arg;

    t->fn(t->number);
    return NULL;
}

void
bench_threads(int64_t n, void (*fn)(int64_t i))
{
    struct thread *all = calloc((size_t)n, sizeof(*all));

    if (all == NULL)
        bench_die("out of memory");
    for (int64_t i = 0; i < n; i++) {
        all[i] = (struct thread){.number = i, .fn = fn};
        if (pthread_create(&all[i].id, NULL, thread_main, &all[i]) != 0)
            bench_die("no thread");
    }
    for (int64_t i = 0; i < n; i++)
        (void)pthread_join(all[i].id, NULL);
    free(all);
}

/* ---- the library ------------------------------------------------------- */

struct wb_outbox *
bench_open(const char *path)
{
    struct wb_outbox *box;
    struct wb_err err = {0};

    bench_ok(wb_outbox_open(&box, path, NULL, &err), &err, path);
    return box;
}

void
bench_fill(struct wb_outbox *box, int64_t n)
{
    static struct wb_message m[1000];
    static struct wb_accepted a[1000];
    struct wb_err err = {0};

    for (size_t i = 0; i < 1000; i++)
        m[i] = bench_message();
    for (; n > 0; n -= 1000)
        bench_ok(wb_outbox_enqueue_many(
                     box, m, n < 1000 ? (size_t)n : 1000, a, &err),
            &err, "fill");
}

/* ---- bare SQLite ------------------------------------------------------- */

sqlite3_stmt *
bare_prepare(struct bare *b, const char *sql)
{
    sqlite3_stmt *q;

    if (sqlite3_prepare_v3(
            b->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q, NULL) != SQLITE_OK)
        bench_die("%s: %s", sql, sqlite3_errmsg(b->db));
    return q;
}

void
bare_step(struct bare *b, sqlite3_stmt *q)
{
    if (sqlite3_step(q) != SQLITE_DONE)
        bench_die("%s: %s", sqlite3_sql(q), sqlite3_errmsg(b->db));
    (void)sqlite3_reset(q);
}

void
bare_open(struct bare *b, const char *path)
{
    wb_outbox_close(bench_open(path));
    if (sqlite3_open_v2(path, &b->db,
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        sqlite3_exec(b->db, "PRAGMA synchronous=FULL", NULL, NULL, NULL) !=
            SQLITE_OK)
        bench_die("%s: %s", path, sqlite3_errmsg(b->db));
    (void)sqlite3_busy_timeout(b->db, 5000);
    b->begin = bare_prepare(b, "BEGIN IMMEDIATE");
    b->commit = bare_prepare(b, "COMMIT");
    b->insert = bare_prepare(b,
        "INSERT INTO waybill_outbox(id, kind, due_ms, created_ms, payload)"
        " VALUES(?1, ?2, ?3, ?4, ?5)");
}

void
bare_close(struct bare *b)
{
    sqlite3_stmt *q;

    while ((q = sqlite3_next_stmt(b->db, NULL)) != NULL)
        (void)sqlite3_finalize(q);
    (void)sqlite3_close(b->db);
}

void
bare_insert(struct bare *b, struct wb_slice payload, int64_t now_ms)
{
    struct {
        uint64_t a;
        uint16_t b;
    } random = {bench_random(), (uint16_t)bench_random()};
    uint8_t bytes[10];
    struct wb_id id;

    memcpy(bytes, &random.a, 8);
    memcpy(bytes + 8, &random.b, 2);
    id = wb__uuid7(now_ms, bytes);
    (void)sqlite3_bind_text(b->insert, 1, id.text, WB_ID_LEN, SQLITE_STATIC);
    (void)sqlite3_bind_text(b->insert, 2, "order.paid", 10, SQLITE_STATIC);
    (void)sqlite3_bind_int64(b->insert, 3, now_ms);
    (void)sqlite3_bind_int64(b->insert, 4, now_ms);
    (void)sqlite3_bind_blob(
        b->insert, 5, payload.ptr, (int)payload.len, SQLITE_STATIC);
    bare_step(b, b->insert);
}
