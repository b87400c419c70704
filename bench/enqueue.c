/* enqueue.c - E1 to E5: messages in.
 *
 * one/bare-one: one a call, after the log's first checkpoint. many/bare-many:
 * batches of a thousand. lines: those of a file, bare. tx/bare-tx: inside
 * the caller's transaction. threads: each durable on return. procs: processes
 * in a loop. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

enum {
    WARM = 500 /* commits of three pages: past a thousand frames */
};

static int64_t
now_ms(void)
{
    const struct wb_env *env = wb_env_system();

    return env->wall_ms(env->ctx);
}

static void
print_bytes(const char *path, const char *name, int64_t n)
{
    struct stat st;

    if (stat(path, &st) == 0)
        bench_print(name, (double)st.st_size / (double)n);
}

/* ---- one a call -------------------------------------------------------- */

static void
one_put(struct wb_outbox *box)
{
    struct wb_message m = bench_message();
    struct wb_err err = {0};

    bench_ok(wb_outbox_enqueue(box, &m, NULL, &err), &err, "enqueue");
}

/* The bytes of log per commit are measured before the first checkpoint. */
static void
one(void)
{
    struct wb_outbox *box = bench_open(bench_path("db"));
    double start, end;
    int64_t n = 0;

    for (; n < WARM; n++) {
        one_put(box);
        if (n + 1 == 200)
            print_bytes(bench_path("db-wal"), "log_bytes", 200);
    }
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n++)
        one_put(box);
    bench_rate(n - WARM, bench_now() - start);
    wb_outbox_close(box);
    print_bytes(bench_path("db"), "bytes", n);
}

static void
bare_one(void)
{
    struct bare b;
    double start, end;
    int64_t n = 0;

    bare_open(&b, bench_path("db"));
    for (; n < WARM; n++) {
        bare_insert(&b, bench_payload(), now_ms());
        if (n + 1 == 200)
            print_bytes(bench_path("db-wal"), "log_bytes", 200);
    }
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n++)
        bare_insert(&b, bench_payload(), now_ms());
    bench_rate(n - WARM, bench_now() - start);
    bare_close(&b);
    print_bytes(bench_path("db"), "bytes", n);
}

/* ---- a thousand a commit ----------------------------------------------- */

static void
many(void)
{
    struct wb_outbox *box = bench_open(bench_path("db"));
    double start, end;
    int64_t n = 0;

    bench_fill(box, 10000);
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n += 1000)
        bench_fill(box, 1000);
    bench_rate(n, bench_now() - start);
    wb_outbox_close(box);
}

static void
bare_fill(struct bare *b, int64_t n)
{
    int64_t ms = now_ms();

    bare_step(b, b->begin);
    for (int64_t i = 0; i < n; i++)
        bare_insert(b, bench_payload(), ms);
    bare_step(b, b->commit);
}

static void
bare_many(void)
{
    struct bare b;
    double start, end;
    int64_t n = 0;

    bare_open(&b, bench_path("db"));
    for (int i = 0; i < 10; i++)
        bare_fill(&b, 1000);
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n += 1000)
        bare_fill(&b, 1000);
    bench_rate(n, bench_now() - start);
    bare_close(&b);
}

/* The lines of stdin, a thousand a commit. */
static void
bare_lines(void)
{
    struct bare b;
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int64_t n = 0;

    bare_open(&b, bench_path("db"));
    bare_step(&b, b.begin);
    while ((len = getline(&line, &cap, stdin)) > 0) {
        bare_insert(&b, (struct wb_slice){line, (size_t)len - 1}, now_ms());
        if (++n % 1000 == 0) {
            bare_step(&b, b.commit);
            bare_step(&b, b.begin);
        }
    }
    bare_step(&b, b.commit);
    bare_close(&b);
    free(line);
}

/* ---- in the caller's transaction --------------------------------------- */

/* Transactions of 1,000 orders, each with its message by put(). Measured is the
 * CPU time without the commit, which belongs to the caller and is the same for
 * both. */
static void
tx_run(struct bare *b, void (*put)(void *ctx), void *ctx)
{
    sqlite3_stmt *order;
    double start, took = 0, end = bench_until();
    int64_t n = 0;

    if (sqlite3_exec(b->db, "CREATE TABLE orders(id INTEGER PRIMARY KEY, v)",
            NULL, NULL, NULL) != SQLITE_OK)
        bench_die("orders: %s", sqlite3_errmsg(b->db));
    order = bare_prepare(b, "INSERT INTO orders(v) VALUES('some order')");
    for (; bench_now() < end; n += 1000) {
        bare_step(b, b->begin);
        start = bench_cpu();
        for (int i = 0; i < 1000; i++) {
            bare_step(b, order);
            put(ctx);
        }
        took += bench_cpu() - start;
        bare_step(b, b->commit);
    }
    bench_print("us", took * 1e6 / (double)n);
    bench_print("n", (double)n);
}

static void
put_ours(void *ctx)
{
    one_put(ctx);
}

static void
put_bare(void *ctx)
{
    bare_insert(ctx, bench_payload(), now_ms());
}

static void
tx(void)
{
    struct wb_outbox *box;
    struct wb_err err = {0};
    struct bare b;

    bare_open(&b, bench_path("db"));
    bench_ok(wb_outbox_adopt(&box, b.db, NULL, &err), &err, "adopt");
    tx_run(&b, put_ours, box);
    wb_outbox_close(box);
    bare_close(&b);
}

static void
bare_tx(void)
{
    struct bare b;

    bare_open(&b, bench_path("db"));
    tx_run(&b, put_bare, &b);
    bare_close(&b);
}

/* ---- threads ----------------------------------------------------------- */

static struct {
    struct wb_outbox *box;
    double end;
    int64_t done;
} threads;

static void
thread_put(int64_t i)
{
    int64_t n = 0;

    (void)i;
    for (; bench_now() < threads.end; n++)
        one_put(threads.box);
    (void)__atomic_add_fetch(&threads.done, n, __ATOMIC_RELAXED);
}

static void
threads_run(void)
{
    double start;

    threads.box = bench_open(bench_path("db"));
    for (int i = 0; i < WARM; i++)
        one_put(threads.box);
    start = bench_now();
    threads.end = bench_until();
    bench_threads(bench_opt("threads", 64), thread_put);
    bench_rate(threads.done, bench_now() - start);
    wb_outbox_close(threads.box);
}

/* ---- processes --------------------------------------------------------- */

struct proc_result {
    double n, worst;
};

static struct proc_result
proc_loop(double end)
{
    struct wb_outbox *box = bench_open(bench_path("db"));
    struct proc_result t = {0};
    double before, now = bench_now();

    while (now < end) {
        before = now;
        one_put(box);
        now = bench_now();
        t.n++;
        if (now - before > t.worst)
            t.worst = now - before;
    }
    wb_outbox_close(box);
    return t;
}

static void
procs(void)
{
    struct wb_outbox *box = bench_open(bench_path("db"));
    struct proc_result t, sum = {0};
    double least = 1e18, most = 0, start = bench_now(), end = bench_until();
    int64_t n = bench_opt("procs", 2);
    int fds[2];

    wb_outbox_close(box);
    if (pipe(fds) != 0)
        bench_die("no pipe");
    for (int64_t i = 0; i < n; i++) {
        if (fork() == 0) {
            t = proc_loop(end);
            _exit(write(fds[1], &t, sizeof(t)) != (ssize_t)sizeof(t));
        }
    }
    for (int64_t i = 0; i < n; i++) {
        if (read(fds[0], &t, sizeof(t)) != (ssize_t)sizeof(t))
            bench_die("a process died");
        sum.n += t.n;
        sum.worst = t.worst > sum.worst ? t.worst : sum.worst;
        least = t.n < least ? t.n : least;
        most = t.n > most ? t.n : most;
    }
    while (wait(NULL) > 0)
        ;
    bench_print("per_s", sum.n / (bench_now() - start));
    bench_print("fair", least / most);
    bench_print("worst_ms", sum.worst * 1000);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {{"one", one},
        {"bare-one", bare_one}, {"many", many}, {"bare-many", bare_many},
        {"bare-lines", bare_lines}, {"tx", tx}, {"bare-tx", bare_tx},
        {"threads", threads_run}, {"procs", procs}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
