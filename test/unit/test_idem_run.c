/* test_idem_run.c - the dispatcher, on every backend. */
#include "idem_fixture.h"

#include <pthread.h>
#include <sqlite3.h>
#include <unistd.h>

#include "support_pg.h"

static sqlite3 *writer;
static void *pg_writer;

static void
take_write_lock(void)
{
#ifdef WB_LIBPQ
    if (backend == &pg_backend) {
        pg_writer = test_pg_lock("waybill_idem");
        return;
    }
#endif
    CHECK(sqlite3_open("idem.db", &writer) == SQLITE_OK);
    CHECK(
        sqlite3_exec(writer, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
}

static void
drop_write_lock(void)
{
    CHECK(sqlite3_close(writer) == SQLITE_OK);
    writer = NULL;
#ifdef WB_LIBPQ
    if (pg_writer != NULL)
        test_pg_unlock(pg_writer);
#endif
    pg_writer = NULL;
}

struct effect {
    int runs;
    enum wb_idem_end end;
    const char *body;
    bool send;         /* mark it before */
    bool forget;       /* an administrator frees the key meanwhile */
    int64_t passes_ms; /* while it runs, by the clock that is moved */
    int sleeps_ms;     /* the same by the machine's */
    struct wb_idem_call seen;
    enum wb_idem_answer others; /* what a second begin gets meanwhile */
};

static enum wb_idem_end
run_effect(void *ctx, struct wb_idem_call *call)
{
    struct effect *e = ctx;
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};

    e->runs++;
    e->seen = *call;
    if (e->send &&
        wb_idem_sending(call->store, call->op, call->token, NULL) != WB_OK)
        return WB_IDEM_NOT_APPLIED;
    if (e->forget)
        CHECK_STATUS(OK, wb_idem_forget(call->store, call->op, NULL, NULL));
    fake_clock_advance_ms(e->passes_ms);
    if (e->sleeps_ms > 0)
        usleep((useconds_t)e->sleeps_ms * 1000);
    if (wb_idem_begin(call->store, call->op, &fp, NULL, &r, NULL) == WB_OK)
        e->others = r.answer;
    wb_idem_result_free(&r);
    call->record.status = 201;
    call->record.body = wb_slice(e->body);
    return e->end;
}

static enum wb_status
run_it(struct wb_idem *store, struct effect *e, struct wb_idem_begin how,
    struct wb_idem_result *r, struct wb_err *err)
{
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_fingerprint fp = print_of("request");

    return wb_idem_run(store, &op, &fp, &how, run_effect, e, r, err);
}

TEST(test_run__applied__once_then_replayed)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_APPLIED, .body = "made"};
    struct wb_idem_begin none = {0};
    struct wb_idem_result r = {0};
    struct wb_err err = {0};

    CHECK_OK(run_it(store, &e, none, &r, &err), err);
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK_INT(201, r.record.status);
    CHECK_SLICE("made", r.record.body);
    CHECK_ANSWER(IN_FLIGHT, e.others);
    CHECK(e.seen.token == r.token && e.seen.token != 0);
    CHECK_OK(run_it(store, &e, none, &r, &err), err);
    CHECK_ANSWER(REPLAY, r.answer);
    CHECK_SLICE("made", r.record.body);
    CHECK_INT(WB_IDEM_TTL_MS, r.record.ttl_ms);
    CHECK_INT(1, e.runs);
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

TEST(test_run__not_applied__key_is_free_and_it_runs_again)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_NOT_APPLIED, .body = "no"};
    struct wb_idem_begin none = {0};
    struct wb_idem_result r = {0};

    CHECK_STATUS(OK, run_it(store, &e, none, &r, NULL));
    e.end = WB_IDEM_APPLIED;
    e.body = "yes";
    CHECK_STATUS(OK, run_it(store, &e, none, &r, NULL));
    CHECK_INT(2, e.runs);
    CHECK(has(store, "k", "yes"));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

TEST(test_run__maybe__unknown_until_settled)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_MAYBE, .body = ""};
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_begin none = {0};
    struct wb_idem_result r = {0};

    CHECK_STATUS(OK, run_it(store, &e, none, &r, NULL));
    CHECK_STATUS(OK, run_it(store, &e, none, &r, NULL));
    CHECK_ANSWER(UNKNOWN, r.answer);
    CHECK_INT(1, e.runs);
    CHECK_STATUS(OK, wb_idem_settle(store, &op, NULL, NULL));
    CHECK_STATUS(OK, run_it(store, &e, none, &r, NULL));
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK_INT(2, e.runs);
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

TEST(test_run__claimed_by_another__not_run)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_APPLIED, .body = ""};
    struct wb_idem_begin wait = {.wait_ms = 1000};
    struct wb_idem_result r = {0};

    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    CHECK_STATUS(OK, run_it(store, &e, wait, &r, NULL));
    CHECK_ANSWER(HELD, r.answer);
    CHECK_INT(0, e.runs);
    wb_idem_close(store);
}

TEST(test_run__claimed_by_another_meanwhile__fenced_and_said_so)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_APPLIED, .body = "late", .forget = true};
    struct wb_idem_begin none = {0};
    struct wb_idem_result r = {0};
    struct wb_err err = {0};

    CHECK_STATUS(FENCED, run_it(store, &e, none, &r, &err));
    CHECK_HAS("k", err.msg);
    CHECK_ANSWER(ACQUIRED, e.others); /* another begin got the key */
    CHECK(!has(store, "k", "late"));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* C-4 */
TEST(test_run__sending_and_lease_ended__unknown_until_it_is_recorded)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_APPLIED,
        .body = "late",
        .send = true,
        .passes_ms = 60000};
    struct wb_idem_begin none = {0};
    struct wb_idem_result r = {0};

    CHECK_STATUS(OK, run_it(store, &e, none, &r, NULL));
    /* The lease renewer may have been faster. */
    CHECK(e.others == WB_IDEM_UNKNOWN || e.others == WB_IDEM_IN_FLIGHT);
    CHECK(has(store, "k", "late"));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* By the machine's clock, as the thread that renews sleeps by it. */
TEST(test_run__longer_than_its_lease__renewed)
{
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.env = wb_env_system()});
    struct effect e = {
        .end = WB_IDEM_APPLIED, .body = "slow", .sleeps_ms = 700};
    struct wb_idem_begin brief = {.lease_ms = 200};
    struct wb_idem_result r = {0};
    struct wb_err err = {0};

    CHECK_OK(run_it(store, &e, brief, &r, &err), err);
    CHECK_ANSWER(IN_FLIGHT, e.others);
    CHECK(has(store, "k", "slow"));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

enum {
    THREADS = 8,
    EACH = 25
};

struct runner {
    pthread_t thread;
    struct wb_idem *store;
    int no, runs;
};

static enum wb_idem_end
count_run(void *ctx, struct wb_idem_call *call)
{
    (void)call;
    ++*(int *)ctx;
    return WB_IDEM_APPLIED;
}

static void *
run_many(void *arg)
{
    struct runner *t = arg;
    struct wb_fingerprint fp = {{0}};
    struct wb_idem_result r = {0};
    char key[32];

    for (int i = 0; i < EACH; i++) {
        struct wb_idem_op op;

        (void)snprintf(key, sizeof(key), "%d-%d", t->no, i);
        op = op_of("me", "s", key);
        if (wb_idem_run(t->store, &op, &fp, NULL, count_run, &t->runs, &r,
                NULL) != WB_OK)
            break;
    }
    wb_idem_result_free(&r);
    return NULL;
}

/* S-7: one thread renews all leases; to be run under ThreadSanitizer, too */
TEST(test_run__many_threads__each_runs_its_own)
{
    struct wb_idem *store = open_store();
    struct runner t[THREADS] = {{0}};

    for (int i = 0; i < THREADS; i++) {
        t[i].store = store;
        t[i].no = i;
        CHECK(pthread_create(&t[i].thread, NULL, run_many, &t[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(t[i].thread, NULL) == 0);
        CHECK_INT(EACH, t[i].runs);
    }
    wb_idem_close(store);
}

static enum wb_idem_end
run_unstorable(void *ctx, struct wb_idem_call *call)
{
    static char headers[65536];

    ++*(int *)ctx;
    call->record.headers = (struct wb_slice){headers, sizeof(headers)};
    return WB_IDEM_APPLIED;
}

/* C-5: what happened and cannot be recorded is unknown, never free */
TEST(test_run__record_cannot_be_stored__unknown)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};
    int runs = 0;

    CHECK_STATUS(TOOBIG,
        wb_idem_run(store, &op, &fp, NULL, run_unstorable, &runs, &r, NULL));
    CHECK_INT(1, runs);
    CHECK_ANSWER(UNKNOWN, begin(store, "k", NULL));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

struct locked {
    int runs, sleeps, free_at;
};

static struct locked *locked;

/* A sleep of the fake clock; the store is free again at the n-th. */
static void
sleep_while_locked(void *ctx, int64_t us)
{
    sleep_by_clock(ctx, us);
    if (++locked->sleeps == locked->free_at)
        drop_write_lock();
    else if (backend == &memory_backend)
        fake_alloc_fail_at(0);
}

static enum wb_idem_end
run_and_lock(void *ctx, struct wb_idem_call *call)
{
    struct locked *l = ctx;

    l->runs++;
    if (backend == &memory_backend)
        fake_alloc_fail_at(0);
    else
        take_write_lock();
    call->record.body = wb_slice("kept");
    return WB_IDEM_APPLIED;
}

static enum wb_status
run_locked(struct wb_idem *store, struct locked *l)
{
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_begin sending = {.sending = true};
    struct wb_idem_result r = {0};
    enum wb_status rc;

    locked = l;
    fake_env.env.sleep_us = sleep_while_locked;
    rc = wb_idem_run(store, &op, &fp, &sending, run_and_lock, l, &r, NULL);
    fake_alloc_fail_at(-1);
    fake_env.env.sleep_us = sleep_by_clock;
    wb_idem_result_free(&r);
    return rc;
}

TEST(test_run__store_down_at_the_end__tried_until_it_is_back)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.busy_ms = 1});
    struct locked l = {.free_at = 9};

    CHECK_STATUS(OK, run_locked(store, &l));
    CHECK_INT(1, l.runs);
    CHECK(
        l.sleeps >= 9 && l.sleeps < 20); /* a server frees it a little later */
    CHECK(has(store, "k", "kept"));
    wb_idem_close(store);
}

TEST(test_run__store_down_past_the_lease__unknown)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.busy_ms = 1});
    struct locked l = {.free_at = -1};
    enum wb_status rc = run_locked(store, &l);

    CHECK(rc == WB_BUSY || rc == WB_NOMEM);
    CHECK(l.sleeps > 2 &&
          l.sleeps < 100); /* growing waits, however slow the calls */
    drop_write_lock();
    if (backend != &memory_backend) { /* a server frees it a little later */
        wb_idem_close(store);
        store = open_store();
    }
    CHECK_ANSWER(UNKNOWN, begin(store, "k", NULL));
    wb_idem_close(store);
}

/* If the store fails, the call fails; it runs without the store only on
 * request, and reports that. */
TEST(test_run__store_down__not_run_unless_open)
{
    struct wb_idem *store = open_store();
    struct effect e = {.end = WB_IDEM_APPLIED, .body = "open"};
    struct wb_idem_begin open = {.open = true}, closed = {0};
    struct wb_idem_result r = {0};
    enum wb_status rc;

    if (backend != &memory_backend) { /* it needs no memory of ours: break it */
        wb_idem_close(store);
        store = open_with((struct wb_idem_opts){.busy_ms = 1});
        take_write_lock();
    }
    fake_alloc_fail_at(0);
    rc = run_it(store, &e, closed, &r, NULL);
    CHECK(rc == WB_NOMEM || rc == WB_BUSY);
    CHECK_INT(0, e.runs);
    fake_alloc_fail_at(0);
    CHECK_STATUS(OK, run_it(store, &e, open, &r, NULL));
    CHECK_ANSWER(UNGUARDED, r.answer);
    CHECK_INT(0, e.seen.token);
    CHECK_INT(1, e.runs);
    fake_alloc_fail_at(-1);
    drop_write_lock();
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_run__applied__once_then_replayed),
        RUN(test_run__not_applied__key_is_free_and_it_runs_again),
        RUN(test_run__maybe__unknown_until_settled),
        RUN(test_run__claimed_by_another__not_run),
        RUN(test_run__claimed_by_another_meanwhile__fenced_and_said_so),
        RUN(test_run__sending_and_lease_ended__unknown_until_it_is_recorded),
        RUN(test_run__longer_than_its_lease__renewed),
        RUN(test_run__many_threads__each_runs_its_own),
        RUN(test_run__record_cannot_be_stored__unknown),
        RUN(test_run__store_down_at_the_end__tried_until_it_is_back),
        RUN(test_run__store_down_past_the_lease__unknown),
        RUN(test_run__store_down__not_run_unless_open),
    };

    RUN_EVERY(tests);
}
