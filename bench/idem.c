/* idem.c - I1 to I3: the idempotency store.
 *
 * lookup: keys of which 90 % are known, n of them in memory, threads at it; the
 * record is copied out. new: begin and complete, a key never seen, with n
 * kept. replay/bare-select: a key that is known in a file. first: begin and
 * complete of new keys in a file, by threads; sending=1: the claim is durable,
 * too. bytes, of lookup: of an entry beyond key and body. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "bench.h"
#include "waybill/idem.h"

enum {
    KEY = 18,
    BODY = 100,
    CHUNK = 4096 /* calls between two readings of the clock */
};

static struct {
    struct wb_idem *store;
    char (*keys)[KEY];
    int64_t n_keys, n; /* a tenth of the keys is not stored */
    double end;
    int64_t done, hits;
} all;

static const struct wb_fingerprint print = {{1}};

static struct wb_idem_op
op_of(const char *key)
{
    return (struct wb_idem_op){.identity = WB_LIT("acme"),
        .scope = WB_LIT("POST /orders"),
        .key = {key, KEY}};
}

static struct wb_idem_record
record_of(void)
{
    return (struct wb_idem_record){.status = 200,
        .body = {bench_payload().ptr, BODY},
        .ttl_ms = WB_IDEM_TTL_MS,
        .fingerprint = print};
}

static void
number_key(char *key, uint64_t number)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "key-%014llu",
        (unsigned long long)(number % 100000000000000));
    memcpy(key, text, KEY);
}

static void
make_keys(void)
{
    all.n = bench_opt("n", 10000);
    all.n_keys = all.n * 10 / 9;
    all.keys = calloc((size_t)all.n_keys, KEY);
    if (all.keys == NULL)
        bench_die("out of memory");
    for (int64_t i = 0; i < all.n_keys; i++)
        number_key(all.keys[i], (uint64_t)i);
}

static void
store_all(void)
{
    struct wb_idem_record record = record_of();
    struct wb_err err = {0};

    for (int64_t i = 0; i < all.n; i++) {
        struct wb_idem_op op = op_of(all.keys[i]);

        bench_ok(wb_idem_store(all.store, &op, &record, &err), &err, "store");
    }
}

static void
open_memory(const struct wb_env *env)
{
    const struct wb_idem_opts opts = {
        .env = env, .max_records = all.n, .max_bytes = INT64_C(1) << 40};
    struct wb_err err = {0};

    bench_ok(wb_idem_open_memory(&all.store, &opts, &err), &err, "open");
}

static void
print_rates(int64_t n, double seconds, double cpu)
{
    bench_rate(n, seconds);
    bench_print("per_cpu_s", (double)n / cpu);
}

/* ---- memory: lookup ---------------------------------------------------- */

static int64_t counted;

/* Counts the eight bytes that malloc() puts before each block, too. */
static void *
counting_resize(void *ctx, void *p, size_t n)
{
    (void)ctx;
    if (p != NULL)
        counted -= (int64_t)malloc_usable_size(p) + 8;
    if (n == 0) {
        free(p);
        return NULL;
    }
    p = realloc(p, n);
    if (p != NULL)
        counted += (int64_t)malloc_usable_size(p) + 8;
    return p;
}

static void
measure_bytes(void)
{
    struct wb_env env = *wb_env_system();
    const size_t own = KEY + sizeof("acme") - 1 + sizeof("POST /orders") - 1;

    env.resize = counting_resize;
    open_memory(&env);
    store_all();
    bench_print("bytes", (double)counted / (double)all.n - (double)own - BODY);
    wb_idem_close(all.store);
}

static void
lookup_thread(int64_t i)
{
    struct wb_idem_result result = {0};
    int64_t n = 0, hits = 0;

    (void)i;
    do {
        for (int k = 0; k < CHUNK; k++) {
            struct wb_idem_op op =
                op_of(all.keys[bench_random() % (uint64_t)all.n_keys]);

            hits += wb_idem_lookup(all.store, &op, &result, NULL) == WB_OK;
        }
        n += CHUNK;
    } while (bench_now() < all.end);
    wb_idem_result_free(&result);
    (void)__atomic_add_fetch(&all.done, n, __ATOMIC_RELAXED);
    (void)__atomic_add_fetch(&all.hits, hits, __ATOMIC_RELAXED);
}

static void
lookup(void)
{
    double start, cpu;

    make_keys();
    measure_bytes();
    open_memory(NULL);
    store_all();
    start = bench_now();
    cpu = bench_cpu();
    all.end = bench_until();
    bench_threads(bench_opt("threads", 1), lookup_thread);
    print_rates(all.done, bench_now() - start, bench_cpu() - cpu);
    bench_print("hits", (double)all.hits / (double)all.done);
    wb_idem_close(all.store);
}

/* ---- begin and complete ------------------------------------------------ */

static void
first(const char *key, const struct wb_idem_begin *how,
    struct wb_idem_result *result)
{
    struct wb_idem_op op = op_of(key);
    struct wb_idem_record record = record_of();
    struct wb_err err = {0};

    bench_ok(wb_idem_begin(all.store, &op, &print, how, result, &err), &err,
        "begin");
    if (result->answer != WB_IDEM_ACQUIRED)
        bench_die("begin: %s", wb_idem_answer_name(result->answer));
    bench_ok(wb_idem_complete(all.store, &op, result->token, &record, &err),
        &err, "complete");
}

static void
fresh(void)
{
    struct wb_idem_result result = {0};
    uint64_t number = 50000000000000;
    char key[KEY];
    double start, cpu, end;
    int64_t n = 0;

    make_keys();
    open_memory(NULL);
    store_all();
    number_key(key, number);
    start = bench_now();
    cpu = bench_cpu();
    end = bench_until();
    do {
        for (int k = 0; k < CHUNK; k++) {
            uint64_t x = ++number;

            for (int d = KEY - 1; d > 4; d--, x /= 10) /* cheap */
                key[d] = (char)('0' + x % 10);
            first(key, NULL, &result);
        }
        n += CHUNK;
    } while (bench_now() < end);
    print_rates(n, bench_now() - start, bench_cpu() - cpu);
    wb_idem_result_free(&result);
    wb_idem_close(all.store);
}

static void
first_thread(int64_t i)
{
    const struct wb_idem_begin how = {.sending = bench_opt("sending", 0) != 0};
    struct wb_idem_result result = {0};
    uint64_t number = (uint64_t)(i + 1) * 1000000000000;
    char key[KEY];
    int64_t n = 0;

    for (; bench_now() < all.end; n++) {
        number_key(key, number++);
        first(key, &how, &result);
    }
    wb_idem_result_free(&result);
    (void)__atomic_add_fetch(&all.done, n, __ATOMIC_RELAXED);
}

static void
first_file(void)
{
    struct wb_err err = {0};
    double start;

    bench_ok(
        wb_idem_open(&all.store, bench_path("db"), NULL, &err), &err, "open");
    start = bench_now();
    all.end = bench_until();
    bench_threads(bench_opt("threads", 64), first_thread);
    bench_rate(all.done, bench_now() - start);
    wb_idem_close(all.store);
}

/* ---- a file: replay ---------------------------------------------------- */

/* In one commit. */
static void
fill_file(const char *path)
{
    struct wb_err err = {0};
    struct bare b;

    make_keys();
    bare_open(&b, path);
    bench_ok(wb_idem_adopt(&all.store, b.db, NULL, &err), &err, "adopt");
    bare_step(&b, b.begin);
    store_all();
    bare_step(&b, b.commit);
    wb_idem_close(all.store);
    bare_close(&b);
}

static void
replay(void)
{
    struct wb_idem_result result = {0};
    struct wb_err err = {0};
    double start, cpu, end;
    int64_t n = 0;

    fill_file(bench_path("db"));
    bench_ok(
        wb_idem_open(&all.store, bench_path("db"), NULL, &err), &err, "open");
    start = bench_now();
    cpu = bench_cpu();
    end = bench_until();
    for (; bench_now() < end; n++) {
        struct wb_idem_op op =
            op_of(all.keys[bench_random() % (uint64_t)all.n]);

        bench_ok(wb_idem_begin(all.store, &op, &print, NULL, &result, &err),
            &err, "begin");
        if (result.answer != WB_IDEM_REPLAY)
            bench_die("replay: %s", wb_idem_answer_name(result.answer));
    }
    print_rates(n, bench_now() - start, bench_cpu() - cpu);
    wb_idem_result_free(&result);
    wb_idem_close(all.store);
}

/* The columns that begin reads, and a copy of the body. */
static void
select_one(struct bare *b, sqlite3_stmt *q, const char *key)
{
    char body[BODY];

    (void)sqlite3_bind_text(q, 1, "acme", 4, SQLITE_STATIC);
    (void)sqlite3_bind_text(q, 2, "POST /orders", 12, SQLITE_STATIC);
    (void)sqlite3_bind_text(q, 3, key, KEY, SQLITE_STATIC);
    if (sqlite3_step(q) != SQLITE_ROW || sqlite3_column_bytes(q, 5) != BODY)
        bench_die("select: %s", sqlite3_errmsg(b->db));
    memcpy(body, sqlite3_column_blob(q, 5), BODY);
    (void)sqlite3_column_int(q, 2);
    (void)sqlite3_column_int(q, 3);
    __asm__ volatile("" : : "r"(body) : "memory");
    (void)sqlite3_reset(q);
}

static void
bare_select(void)
{
    struct bare b;
    sqlite3_stmt *q;
    double start, cpu, end;
    int64_t n = 0;

    fill_file(bench_path("db"));
    bare_open(&b, bench_path("db"));
    q = bare_prepare(&b,
        "SELECT state, fingerprint, ends_ms, status, headers, body"
        " FROM waybill_idem WHERE identity = ?1 AND scope = ?2 AND key = ?3");
    start = bench_now();
    cpu = bench_cpu();
    end = bench_until();
    for (; bench_now() < end; n++)
        select_one(&b, q, all.keys[bench_random() % (uint64_t)all.n]);
    print_rates(n, bench_now() - start, bench_cpu() - cpu);
    bare_close(&b);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {{"lookup", lookup},
        {"new", fresh}, {"first", first_file}, {"replay", replay},
        {"bare-select", bare_select}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
