/* idem_fixture.h - what the tests of the idempotency store share: stores of
 * every backend, short forms of long calls. A program that uses it names its
 * backend in `backend` before a test runs. */
#ifndef WB_TEST_IDEM_FIXTURE_H
#define WB_TEST_IDEM_FIXTURE_H

#include <stdio.h>

#include "base/base.h"
#include "support.h"
#include "waybill/idem.h"

struct backend {
    const char *name;
    enum wb_status (*open)(struct wb_idem **out,
        const struct wb_idem_opts *opts, struct wb_err *err);
};
static const struct backend *backend;

static inline enum wb_status
open_sql(
    struct wb_idem **out, const struct wb_idem_opts *opts, struct wb_err *err)
{
    return wb_idem_open(out, "idem.db", opts, err);
}

/* In the schema of the test. */
static inline enum wb_status
open_pg(
    struct wb_idem **out, const struct wb_idem_opts *opts, struct wb_err *err)
{
    return wb_idem_open(out, test_db_url(), opts, err);
}

static const struct backend memory_backend = {"memory", wb_idem_open_memory};
static const struct backend sql_backend = {"sqlite", open_sql};
static const struct backend pg_backend = {"postgres", open_pg};

/* A sleep that only moves the clock. */
static inline void
sleep_by_clock(void *ctx, int64_t us)
{
    (void)ctx;
    fake_env.mono_us += us;
    fake_env.wall_ms += (us + 999) / 1000;
}

static inline struct wb_idem *
open_with(struct wb_idem_opts opts)
{
    struct wb_err err = {0};
    struct wb_idem *store = NULL;

    fake_env.env.sleep_us = sleep_by_clock;
    if (opts.env == NULL)
        opts.env = ENV;
    CHECK_OK(backend->open(&store, &opts, &err), err);
    return store;
}

static inline struct wb_idem *
open_store(void)
{
    return open_with((struct wb_idem_opts){0});
}

static inline struct wb_idem_op
op_of(const char *identity, const char *scope, const char *key)
{
    return (struct wb_idem_op){
        wb_slice(identity), wb_slice(scope), wb_slice(key)};
}

static inline struct wb_fingerprint
print_of(const char *text)
{
    struct wb_slice s = wb_slice(text);
    struct wb_fingerprint fp;

    CHECK(wb_idem_fingerprint(&s, 1, &fp) == WB_OK);
    return fp;
}

static inline struct wb_idem_record
record_of(int status, const char *body)
{
    return (struct wb_idem_record){
        .status = status, .body = wb_slice(body), .ttl_ms = WB_IDEM_TTL_MS};
}

/* Begin key for "me" in "s" with the fingerprint of what. */
static inline struct wb_idem_result
begin_with(struct wb_idem *store, const char *key, const char *what,
    struct wb_idem_begin how)
{
    struct wb_idem_op op = op_of("me", "s", key);
    struct wb_fingerprint fp = print_of(what);
    struct wb_idem_result result = {0};
    struct wb_err err = {0};

    CHECK_OK(wb_idem_begin(store, &op, &fp, &how, &result, &err), err);
    return result;
}

/* The answer alone; *token where there is one. */
static inline enum wb_idem_answer
begin(struct wb_idem *store, const char *key, uint64_t *token)
{
    struct wb_idem_result r =
        begin_with(store, key, "request", (struct wb_idem_begin){0});
    enum wb_idem_answer answer = r.answer;

    if (token != NULL)
        *token = answer == WB_IDEM_ACQUIRED ? r.token : 0;
    wb_idem_result_free(&r);
    return answer;
}

static inline enum wb_status
complete(
    struct wb_idem *store, const char *key, uint64_t token, const char *body)
{
    struct wb_idem_op op = op_of("me", "s", key);
    struct wb_idem_record record = record_of(201, body);

    return wb_idem_complete(store, &op, token, &record, NULL);
}

static inline enum wb_status
release(struct wb_idem *store, const char *key, uint64_t token)
{
    struct wb_idem_op op = op_of("me", "s", key);

    return wb_idem_release(store, &op, token, NULL);
}

static inline enum wb_status
extend(struct wb_idem *store, const char *key, uint64_t token, int64_t ms)
{
    struct wb_idem_op op = op_of("me", "s", key);

    return wb_idem_extend(store, &op, token, ms, NULL);
}

/* Store a record of a key without a claim. */
static inline void
put(struct wb_idem *store, const char *key, const char *body, int64_t ttl_ms)
{
    struct wb_idem_op op = op_of("me", "s", key);
    struct wb_idem_record record = record_of(200, body);
    struct wb_err err = {0};

    record.ttl_ms = ttl_ms;
    record.fingerprint = print_of("request");
    CHECK_OK(wb_idem_store(store, &op, &record, &err), err);
}

/* Is there a record with this body? */
static inline bool
has(struct wb_idem *store, const char *key, const char *body)
{
    struct wb_idem_op op = op_of("me", "s", key);
    struct wb_idem_result r = {0};
    enum wb_status rc = wb_idem_lookup(store, &op, &r, NULL);
    bool same = rc == WB_OK && wb__eq(r.record.body, wb_slice(body));

    CHECK(rc == WB_OK || rc == WB_EMPTY);
    wb_idem_result_free(&r);
    return same;
}

#define CHECK_ANSWER(name, call) CHECK_INT(WB_IDEM_##name, (call))

/* Run the tests once on each backend, by cmocka's own main loop: on PostgreSQL
 * where there is a server, or else on the two that need none. */
static inline int
run_every(const struct CMUnitTest *tests, size_t n)
{
    const struct backend *const here[] = {&memory_backend, &sql_backend};
    int failed = 0;

    backend = &pg_backend;
    if (test_on_pg())
        return test_run_all(tests, n);
    for (size_t i = 0; i < WB_COUNT(here); i++) {
        backend = here[i];
        failed += _cmocka_run_group_tests(backend->name, tests, n, NULL, NULL);
    }
    return failed;
}
#define RUN_EVERY(tests) \
    return run_every(tests, sizeof(tests) / sizeof((tests)[0]))

#endif /* WB_TEST_IDEM_FIXTURE_H */
