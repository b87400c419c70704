/* claim.c - C1 to C3: claim and confirm.
 *
 * batch/bare-batch: 64 at a time, the confirms of a batch and the next claim in
 * one commit. one/bare-one: one at a time; ours makes only the confirm durable.
 * Each begins past the log's first checkpoint: from then on it is overwritten.
 * n=...: waiting messages to fill the folder with, unless an earlier round did.
 * heap=1: between them as many abandoned, delayed and kept keys. kill: the time
 * from opening after a kill -9 to the first claim. */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "bench.h"

enum {
    BATCH = 64,
    WARM_BATCHES = 32,
    WARM = 300
};

static int64_t
now_ms(void)
{
    const struct wb_env *env = wb_env_system();

    return env->wall_ms(env->ctx);
}

/* ---- what waits -------------------------------------------------------- */

struct heap {
    struct bare b;
    sqlite3_stmt *insert;
    int64_t ms;
};

static void
heap_put(struct heap *h, int what)
{
    static const char *const status[] = {
        "pending", "abandoned", "pending", "delivered"};
    static const int64_t wait_ms[] = {0, 1000000000, 1000000000, 500000000};
    uint64_t random[2] = {bench_random(), bench_random()};
    struct wb_id id = wb__uuid7(h->ms, (const uint8_t *)random);
    struct wb_slice payload = bench_payload();
    bool kept = what == 3;

    (void)sqlite3_bind_text(h->insert, 1, id.text, WB_ID_LEN, SQLITE_STATIC);
    (void)sqlite3_bind_text(h->insert, 2, status[what], -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(h->insert, 3, h->ms + wait_ms[what]);
    (void)sqlite3_bind_int64(h->insert, 4, h->ms);
    (void)sqlite3_bind_text(
        h->insert, 5, kept ? id.text : NULL, WB_ID_LEN, SQLITE_STATIC);
    (void)sqlite3_bind_blob(
        h->insert, 6, kept ? id.text : NULL, 32, SQLITE_STATIC);
    (void)sqlite3_bind_blob(
        h->insert, 7, payload.ptr, kept ? 0 : (int)payload.len, SQLITE_STATIC);
    bare_step(&h->b, h->insert);
}

static void
heap_fill(const char *path, int64_t n)
{
    struct heap h = {.ms = now_ms()};

    bare_open(&h.b, path);
    h.insert = bare_prepare(&h.b,
        "INSERT INTO waybill_outbox(id, kind, status, due_ms, created_ms, key,"
        " hash, payload) VALUES(?1, 'order.paid', ?2, ?3, ?4, ?5, ?6, ?7)");
    bare_step(&h.b, h.b.begin);
    for (int64_t i = 0; i < n; i++) {
        if (i % 10000 == 0)
            h.ms++;
        for (int what = 0; what < 4; what++)
            heap_put(&h, what);
    }
    bare_step(&h.b, h.b.commit);
    bare_close(&h.b);
}

static int64_t
ask(const char *path, const char *sql)
{
    struct bare b;
    sqlite3_stmt *q;
    int64_t n;

    bare_open(&b, path);
    q = bare_prepare(&b, sql);
    (void)sqlite3_step(q);
    n = sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    bare_close(&b);
    return n;
}

/* The checkpoint keeps the cost of filling out of the measurement. */
static const char *
filled(void)
{
    const char *path = bench_path("db");
    int64_t n = bench_opt("n", 100000), have;

    have = access(path, F_OK) != 0
               ? 0
               : ask(path, "SELECT count(*) FROM waybill_outbox WHERE"
                           " status IN ('pending', 'processing') AND"
                           " kind = 'order.paid' AND due_ms <= 4102444800000"
                           " AND due_ms < created_ms + 900000000");
    if (have == 0 && bench_opt("heap", 0) != 0) {
        heap_fill(path, n);
    } else if (have < n) {
        struct wb_outbox *box = bench_open(path);

        bench_fill(box, n - have);
        wb_outbox_close(box);
    }
    (void)ask(path, "PRAGMA wal_checkpoint(TRUNCATE)");
    return path;
}

static const struct wb_source source = {.kind = {"order.paid", 10}};

/* ---- ours -------------------------------------------------------------- */

static size_t
confirms_of(const struct wb_batch *batch, struct wb_finish *f)
{
    for (size_t i = 0; i < batch->len; i++)
        f[i] = (struct wb_finish){.id = batch->row[i].id,
            .token = batch->row[i].token,
            .seq = batch->row[i].seq,
            .attempts = batch->row[i].attempts,
            .end = WB_CONFIRM,
            .forget = true};
    return batch->len;
}

/* Confirm a batch and claim the next one; returns how many were confirmed. */
static size_t
cycle(struct wb_outbox *box, struct wb_batch *batch)
{
    const struct wb_claim claim = {
        .sources = &source, .n_sources = 1, .max = BATCH};
    static struct wb_finish f[BATCH];
    struct wb_err err = {0};
    size_t n = confirms_of(batch, f);

    bench_ok(wb_outbox_finish(box, f, n, &claim, batch, &err), &err, "finish");
    for (size_t i = 0; i < n; i++)
        if (f[i].status != WB_OK)
            bench_die("a confirm was refused");
    return n;
}

static int64_t
cycles(struct wb_outbox *box, double end)
{
    struct wb_batch batch = {0};
    int64_t n = 0;

    do
        n += (int64_t)cycle(box, &batch);
    while (batch.len > 0 && bench_now() < end);
    n += (int64_t)cycle(box, &batch); /* claims another batch, which expires */
    wb_batch_free(&batch);
    return n;
}

static void
batch_ours(void)
{
    struct wb_outbox *box = bench_open(filled());
    double took = 0, start, ms = (double)bench_opt("ms", 500) / 1000;
    int64_t n = 0, few = bench_opt("n", 100000);

    for (int i = 0; i < WARM_BATCHES && few >= 50000; i += 2)
        (void)cycles(box, 0);
    (void)bench_until();
    do {
        start = bench_now();
        n += cycles(box, start + ms - took);
        took += bench_now() - start;
        if (few < 50000)
            bench_fill(box, few);
    } while (few < 50000 && took < ms);
    bench_rate(n, took);
    wb_outbox_close(box);
}

/* The confirm is durable, the claim need not be. */
static void
one_take(struct wb_outbox *box)
{
    const struct wb_claim claim = {
        .sources = &source, .n_sources = 1, .max = 1};
    static struct wb_batch batch;
    struct wb_finish f[1];
    struct wb_err err = {0};

    bench_ok(wb_outbox_claim(box, &claim, &batch, &err), &err, "claim");
    (void)confirms_of(&batch, f);
    bench_ok(wb_outbox_finish(box, f, 1, NULL, NULL, &err), &err, "confirm");
    wb_batch_free(&batch);
}

static void
one_ours(void)
{
    struct wb_outbox *box = bench_open(filled());
    double start, end;
    int64_t n = 0;

    for (int i = 0; i < WARM; i++)
        one_take(box);
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n++)
        one_take(box);
    bench_rate(n, bench_now() - start);
    wb_outbox_close(box);
}

/* ---- bare SQLite ------------------------------------------------------- */

struct raw {
    struct bare b;
    sqlite3_stmt *due, *lease, *end;
    int64_t seq[BATCH], token[BATCH];
    char payload[BATCH][512];
    int n;
};

static void
raw_open(struct raw *h, const char *path)
{
    bare_open(&h->b, path);
    h->due = bare_prepare(&h->b,
        "SELECT seq, id, attempts, created_ms, key, content_type, headers,"
        " payload FROM waybill_outbox WHERE kind = ?1"
        " AND status IN ('pending', 'processing') AND due_ms <= ?2"
        " ORDER BY due_ms, seq LIMIT ?3");
    h->lease = bare_prepare(&h->b,
        "UPDATE waybill_outbox SET status = 'processing',"
        " attempts = attempts + 1, token = ?2, due_ms = ?3, claimed_ms = ?4"
        " WHERE seq = ?1");
    h->end = bare_prepare(&h->b,
        "DELETE FROM waybill_outbox WHERE seq = ?1 AND token = ?2"
        " AND status = 'processing'");
}

static void
raw_claim(struct raw *h, int most)
{
    int64_t ms = now_ms();

    (void)sqlite3_bind_text(h->due, 1, "order.paid", 10, SQLITE_STATIC);
    (void)sqlite3_bind_int64(h->due, 2, ms);
    (void)sqlite3_bind_int(h->due, 3, most);
    for (h->n = 0; sqlite3_step(h->due) == SQLITE_ROW; h->n++) {
        h->seq[h->n] = sqlite3_column_int64(h->due, 0);
        memcpy(h->payload[h->n], sqlite3_column_blob(h->due, 7),
            (size_t)sqlite3_column_bytes(h->due, 7));
    }
    (void)sqlite3_reset(h->due);
    for (int i = 0; i < h->n; i++) {
        h->token[i] = (int64_t)bench_random();
        (void)sqlite3_bind_int64(h->lease, 1, h->seq[i]);
        (void)sqlite3_bind_int64(h->lease, 2, h->token[i]);
        (void)sqlite3_bind_int64(h->lease, 3, ms + 60000);
        (void)sqlite3_bind_int64(h->lease, 4, ms);
        bare_step(&h->b, h->lease);
    }
}

static void
raw_confirm(struct raw *h)
{
    for (int i = 0; i < h->n; i++) {
        (void)sqlite3_bind_int64(h->end, 1, h->seq[i]);
        (void)sqlite3_bind_int64(h->end, 2, h->token[i]);
        bare_step(&h->b, h->end);
    }
}

static void
batch_take(struct raw *h)
{
    bare_step(&h->b, h->b.begin);
    raw_confirm(h);
    raw_claim(h, BATCH);
    bare_step(&h->b, h->b.commit);
}

static void
batch_raw(void)
{
    static struct raw h;
    double start, end;
    int64_t n = 0;

    raw_open(&h, filled());
    for (int i = 0; i < WARM_BATCHES; i++)
        batch_take(&h);
    start = bench_now();
    end = bench_until();
    do {
        n += h.n;
        batch_take(&h);
    } while (h.n > 0 && bench_now() < end);
    bench_rate(n, bench_now() - start);
    bare_close(&h.b);
}

static void
one_raw_take(struct raw *h)
{
    bare_step(&h->b, h->b.begin);
    raw_claim(h, 1);
    bare_step(&h->b, h->b.commit);
    bare_step(&h->b, h->b.begin);
    raw_confirm(h);
    bare_step(&h->b, h->b.commit);
}

static void
one_raw(void)
{
    static struct raw h;
    double start, end;
    int64_t n = 0;

    raw_open(&h, filled());
    for (int i = 0; i < WARM; i++)
        one_raw_take(&h);
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n++)
        one_raw_take(&h);
    bench_rate(n, bench_now() - start);
    bare_close(&h.b);
}

/* ---- after a kill ------------------------------------------------------ */

static void
killed(const char *path)
{
    struct wb_outbox *box;
    struct wb_batch batch = {0};
    double end = bench_now() + 0.3;

    box = bench_open(path);
    while (bench_now() < end)
        (void)cycle(box, &batch);
    (void)kill(getpid(), SIGKILL);
}

static void
after_kill(void)
{
    const struct wb_claim claim = {
        .sources = &source, .n_sources = 1, .max = BATCH};
    const char *path = filled();
    struct wb_batch batch = {0};
    struct wb_err err = {0};
    struct wb_outbox *box;
    pid_t pid = fork();
    double start;

    if (pid == 0)
        killed(path);
    (void)waitpid(pid, NULL, 0);
    start = bench_now();
    box = bench_open(path);
    bench_ok(wb_outbox_claim(box, &claim, &batch, &err), &err, "claim");
    bench_print("first_ms", (bench_now() - start) * 1000);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {{"batch", batch_ours},
        {"bare-batch", batch_raw}, {"one", one_ours}, {"bare-one", one_raw},
        {"kill", after_kill}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
