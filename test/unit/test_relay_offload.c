/* Transactions while requests are in flight, on a thread or not. */
#include "db/sqlite.h"
#include "relay_fixture.h"

static enum wb_status
count_row(void *ctx, const struct wb_row *row)
{
    (void)row;
    ++*(int *)ctx;
    return WB_OK;
}

static int
rows_left(struct fixture *d)
{
    struct wb_filter all = {.state = -1};
    int n = 0;

    CHECK_OK(wb_outbox_list(d->box, &all, count_row, &n, &d->err), d->err);
    return n;
}

/* Replaces the thread: every request in flight ends before the commit. */
static void
end_all_first(struct wb_relay *relay, void (*fn)(void *arg), void *arg)
{
    struct wb__outcomes before = relay->committing;

    while (relay->n_in_flight > 0)
        uv_run(relay->opts.loop, UV_RUN_ONCE);
    CHECK(relay->committing.finish == before.finish &&
          relay->committing.n == before.n);
    fn(arg);
}

TEST(test_drain__D1_requests_end_during_a_commit__committed_by_the_next)
{
    struct fixture d;
    const struct wb_report *r = &d.report;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].concurrency = 3;
    fixture_start(&d, 1);
    d.relay->run_blocking = end_all_first;
    for (int i = 0; i < 20; i++)
        put(&d, "a", "x");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(20, r->confirmed);
    CHECK_INT(20, r->attempted);
    CHECK_INT(20, d.fake.sent);
    CHECK_INT(0, rows_left(&d));
    fixture_close(&d);
}

static enum wb_status
see_paused(void *ctx, const struct wb_kind_counts *k)
{
    *(bool *)ctx = *(bool *)ctx || k->paused;
    return WB_OK;
}

static bool
is_paused(struct wb_relay *relay)
{
    bool paused = false;
    struct wb_err err;

    CHECK_OK(wb_outbox_count(relay->box, see_paused, &paused, &err), err);
    return paused;
}

static bool paused_in_fn;

static void
see_pause(struct wb_relay *relay, void (*fn)(void *arg), void *arg)
{
    bool before = is_paused(relay);

    fn(arg);
    paused_in_fn = paused_in_fn || (!before && is_paused(relay));
}

/* The loop never waits for the database's lock. */
TEST(test_drain__receiver_is_gone__kind_paused_with_the_commit_off_the_loop)
{
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.fake.status = 410;
    d.fake.outcome = WB_REJECTED;
    d.route[0].disable_on_410 = true;
    d.route[0].concurrency = 1;
    fixture_start(&d, 1);
    d.relay->run_blocking = see_pause;
    paused_in_fn = false;
    put(&d, "a", "x");
    put(&d, "a", "x");
    drain(&d, (struct wb_drain){0});
    CHECK(paused_in_fn);
    CHECK_INT(1, d.fake.sent);
    fixture_close(&d);
}

/* The outcomes of a cycle that found the database busy are committed by the
 * next one, those since then after them: none is lost, none committed twice. */
TEST(test_cycle__BUSY__outcomes_are_kept_apart_and_committed_again)
{
    struct wb_claimed m = {.id = {"00000000-0000-7000-8000-000000000000"}};
    struct wb_result good = {.outcome = WB_DELIVERED};
    struct fixture d;

    fixture_open(&d);
    fixture_start(&d, 1);
    CHECK_OK(wb__outcome_note(d.relay, &d.route[0], &m, &good), d.err);
    wb__outcomes_take(d.relay);
    CHECK_OK(wb__outcome_note(d.relay, &d.route[0], &m, &good), d.err);
    CHECK_OK(wb__outcome_note(d.relay, &d.route[0], &m, &good), d.err);
    wb__outcomes_take(d.relay);
    CHECK_INT(1, d.relay->committing.n);
    CHECK_INT(3, wb__outcomes_left(d.relay));
    wb__outcomes_committed(d.relay);
    wb__outcomes_take(d.relay);
    CHECK_INT(2, d.relay->committing.n);
    wb__outcomes_drop(d.relay);
    CHECK_INT(0, wb__outcomes_left(d.relay));
    fixture_close(&d);
}

static void
run_sql(sqlite3 *db, const char *sql)
{
    CHECK_INT(SQLITE_OK, sqlite3_exec(db, sql, NULL, NULL, NULL));
}

/* An extension that found the database busy must not wait for the other half of
 * the lease: then the lease ends. */
TEST(test_cycle__D2a_BUSY_extending__again_in_a_moment)
{
    sqlite3 *other = NULL;
    int64_t wait_us = 0;
    struct fixture d;
    struct wb_id id;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    fixture_start(&d, 1);
    id = put(&d, "a", "x");
    begin(&d, 1);
    wait_us = cycle(&d);
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(SQLITE_OK, sqlite3_open("box.db", &other));
    sqlite3_busy_timeout(((struct wb__sqlite *)d.box->db)->handle, 1);
    run_sql(other, "BEGIN IMMEDIATE");
    fake_clock_advance_ms(30000);
    wait_us = cycle(&d);
    run_sql(other, "ROLLBACK");
    sqlite3_close(other);
    fake_clock_advance_ms(100);
    CHECK(wait_us <= 100000);
    wait_us = cycle(&d);
    CHECK_INT(ENV->wall_ms(ENV->ctx) + 60000, state_of(&d, id).due_ms);
    end_requests(&d);
    fixture_close(&d);
}

static int
count_busy(void *n, int calls)
{
    (void)calls;
    ++*(int *)n;
    return 0;
}

/* An extension that did not get the lock is not tried for each request again:
 * meanwhile nothing that is in flight would go on. */
TEST(test_cycle__D2a_BUSY_extending_many__waits_once)
{
    sqlite3 *other = NULL;
    int64_t wait_us = 0;
    struct fixture d;
    int waits = 0;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    fixture_start(&d, 1);
    for (int i = 0; i < 5; i++)
        put(&d, "a", "x");
    begin(&d, 5);
    wait_us = cycle(&d);
    CHECK_INT(5, d.fake.sent);
    CHECK_INT(SQLITE_OK, sqlite3_open("box.db", &other));
    sqlite3_busy_handler(
        ((struct wb__sqlite *)d.box->db)->handle, count_busy, &waits);
    run_sql(other, "BEGIN IMMEDIATE");
    fake_clock_advance_ms(30000);
    wait_us = cycle(&d);
    CHECK_INT(1, waits);
    run_sql(other, "ROLLBACK");
    sqlite3_close(other);
    fake_clock_advance_ms(100);
    wait_us = cycle(&d);
    CHECK(wait_us > 29000000); /* all of them */
    end_requests(&d);
    fixture_close(&d);
}

/* With the machine's own environment commits run on a thread. */
TEST(test_drain__machines_environment__each_sent_once_and_confirmed)
{
    struct wb_relay_opts opts = {.n_routes = 1};
    struct wb_message m = {.kind = WB_LIT("a"), .payload = WB_LIT("x")};
    struct fixture d = {0};

    d.fake.base = (struct wb_transport){
        .name = "fake", .send = fake_send, .free = fake_free};
    d.fake.loop = &d.loop;
    d.route[0] = (struct wb_route){
        .kind = "a", .transport = &d.fake.base, .concurrency = 7};
    opts.routes = d.route;
    opts.loop = &d.loop;
    CHECK(uv_loop_init(&d.loop) == 0);
    CHECK_OK(wb_outbox_open(&d.box, test_db_url(), NULL, &d.err), d.err);
    CHECK_OK(wb_relay_new(&d.relay, d.box, &opts, &d.err), d.err);
    for (int i = 0; i < 100; i++)
        CHECK_OK(wb_outbox_enqueue(d.box, &m, NULL, &d.err), d.err);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(100, d.report.confirmed);
    CHECK_INT(100, d.fake.sent);
    CHECK_INT(0, rows_left(&d));
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_drain__D1_requests_end_during_a_commit__committed_by_the_next),
        RUN(test_drain__receiver_is_gone__kind_paused_with_the_commit_off_the_loop),
        RUN(test_cycle__BUSY__outcomes_are_kept_apart_and_committed_again),
        RUN(test_cycle__D2a_BUSY_extending__again_in_a_moment),
        RUN(test_cycle__D2a_BUSY_extending_many__waits_once),
        RUN(test_drain__machines_environment__each_sent_once_and_confirmed),
    };

    return RUN_ALL(tests);
}
