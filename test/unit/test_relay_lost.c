/* A database that is lost for a time: outcomes are kept; a worker stays up. */
#include <sqlite3.h>

#include "relay_fixture.h"
#include "shim_vfs.h"

/* ---- a fixture whose database can be made to fail ----------------------- */

struct trouble {
    struct fixture d;
    size_t break_at; /* at this request, counted from 1 */
    enum shim_op op;
    int code; /* of SQLite; 0: another connection locks it */
    sqlite3 *locker;
    uv_timer_t timer, poke;
    int wait_ms;       /* from the loss to the end of the trouble */
    size_t stop_after; /* requests; stops the worker */
    long fired;        /* faults, until the trouble ended */
    int events[32];
    char lost[256];
    int64_t advance_ms; /* the clock, while it is lost */
};

static void
begin_trouble(struct trouble *t)
{
    if (t->code != 0) {
        shim_fail(t->op, 0, t->code, true);
        return;
    }
    CHECK_INT(SQLITE_OK, sqlite3_open_v2(test_db_url(), &t->locker,
                             SQLITE_OPEN_READWRITE, NULL));
    CHECK_INT(SQLITE_OK,
        sqlite3_exec(t->locker, "BEGIN IMMEDIATE", NULL, NULL, NULL));
}

static void
end_trouble(uv_timer_t *timer)
{
    struct trouble *t = timer->data;

    t->fired = shim.fired;
    shim_heal();
    (void)sqlite3_close(t->locker);
    t->locker = NULL;
    uv_close((uv_handle_t *)&t->timer, NULL);
}

static void
on_send(struct fake *f)
{
    struct trouble *t = f->ctx;

    if (f->sent == t->break_at)
        begin_trouble(t);
    if (f->sent == t->stop_after)
        wb_relay_stop(t->d.relay);
}

static void
on_event(void *ctx, const struct wb_relay_event *e)
{
    struct trouble *t = ctx;

    t->events[e->type]++;
    if (e->type != WB_RELAY_DATABASE_LOST)
        return;
    (void)snprintf(
        t->lost, sizeof(t->lost), "%.*s", (int)e->error.len, e->error.ptr);
    fake_clock_advance_ms(t->advance_ms);
    if (t->wait_ms > 0 && t->timer.data == NULL) {
        CHECK(uv_timer_init(&t->d.loop, &t->timer) == 0);
        t->timer.data = t;
        (void)uv_timer_start(&t->timer, end_trouble, (uint64_t)t->wait_ms, 0);
    }
}

static void
trouble_open(struct trouble *t)
{
    struct wb_outbox_opts opts = {.env = ENV, .busy_ms = 20};
    struct wb_relay_opts relay = {
        .env = ENV, .on_event = on_event, .event_ctx = t};

    shim_install();
    fixture_open(&t->d);
    wb_outbox_close(t->d.box);
    fake_env.env.vfs = "shim";
    CHECK_OK(
        wb_outbox_open(&t->d.box, test_db_url(), &opts, &t->d.err), t->d.err);
    t->d.fake.on_send = on_send;
    t->d.fake.ctx = t;
    t->d.fake.loop = &t->d.loop;
    t->d.route[0].concurrency = 2;
    fixture_start_with(&t->d, 1, relay);
}

static void
trouble_close(struct trouble *t)
{
    fixture_close(&t->d);
    (void)sqlite3_close(t->locker);
    fake_env.env.vfs = NULL;
}

/* ---- outcomes are kept --------------------------------------------------- */

TEST(test_drain__database_locked_after_a_200__confirmed_when_it_is_free)
{
    struct trouble t = {.break_at = 1, .wait_ms = 300};
    struct wb_id id;

    trouble_open(&t);
    id = put(&t.d, "a", "x");
    drain(&t.d, (struct wb_drain){0});
    CHECK_INT(1, t.d.report.confirmed);
    CHECK_INT(1, t.d.fake.sent);
    CHECK_INT(1, t.events[WB_RELAY_DATABASE_LOST]);
    CHECK_INT(1, t.events[WB_RELAY_DATABASE_FOUND]);
    CHECK_STATUS(NOTFOUND, wb_outbox_show(t.d.box, wb_slice(id.text), on_state,
                               &(struct wb_row){0}, NULL));
    trouble_close(&t);
}

TEST(test_drain__database_locked_for_a_lease__ends_with_its_report)
{
    struct trouble t = {.break_at = 2, .advance_ms = 61000};
    struct wb_drain one_by_one = {.concurrency = 1};
    enum wb_status rc;

    trouble_open(&t);
    put(&t.d, "a", "x");
    put(&t.d, "a", "y");
    put(&t.d, "a", "z");
    rc = wb_relay_drain(t.d.relay, &one_by_one, &t.d.report, &t.d.err);
    CHECK_INT(WB_BUSY, rc);
    CHECK_INT(2, t.d.fake.sent); /* no claim while an outcome waits */
    CHECK_INT(1, t.d.report.confirmed);
    CHECK_INT(0, t.events[WB_RELAY_DATABASE_FOUND]);
    trouble_close(&t);
}

TEST(test_drain__database_locked_before_anything__ends_at_once)
{
    struct trouble t = {0};

    trouble_open(&t);
    put(&t.d, "a", "x");
    begin_trouble(&t);
    CHECK_STATUS(BUSY, wb_relay_drain(t.d.relay, &(struct wb_drain){0},
                           &t.d.report, &t.d.err));
    CHECK_INT(0, t.events[WB_RELAY_DATABASE_LOST]);
    trouble_close(&t);
}

/* ---- a worker stays up ---------------------------------------------------- */

static void
worker_waits_out(struct trouble *t, const char *says)
{
    trouble_open(t);
    t->wait_ms = 300;
    t->break_at = 2;
    t->stop_after = 5;
    for (int i = 0; i < 5; i++)
        put(&t->d, "a", "x");
    CHECK_OK(wb_relay_run(
                 t->d.relay, &(struct wb_drain){0}, &t->d.report, &t->d.err),
        t->d.err);
    CHECK_INT(5, t->d.fake.sent); /* none of them twice */
    CHECK_INT(5, t->d.report.confirmed);
    CHECK_INT(1, t->events[WB_RELAY_DATABASE_LOST]);
    CHECK_INT(1, t->events[WB_RELAY_DATABASE_FOUND]);
    CHECK_INT(5, t->events[WB_RELAY_ATTEMPT]);
    CHECK_HAS(says, t->lost);
    CHECK(!t->d.box->db->failed);
    trouble_close(t);
}

TEST(test_worker__database_locked__waits_and_goes_on)
{
    struct trouble t = {0};

    worker_waits_out(&t, "locked");
}

TEST(test_worker__disk_full__waits_and_goes_on)
{
    struct trouble t = {.op = SHIM_WRITE, .code = SQLITE_FULL};

    worker_waits_out(&t, "full");
}

/* Nothing of a connection whose sync failed can be trusted: a new one is
 * opened, and the outcomes are committed on that. */
TEST(test_worker__sync_fails__opens_the_database_again_and_goes_on)
{
    struct trouble t = {.op = SHIM_SYNC, .code = SQLITE_IOERR_FSYNC};

    worker_waits_out(&t, "close the store");
}

/* A worker that can claim nothing is not back before it can. */
TEST(test_worker__claims_fail__lost_and_found_once)
{
    struct trouble t = {.wait_ms = 300, .stop_after = 1};

    trouble_open(&t);
    put(&t.d, "a", "x");
    begin_trouble(&t);
    CHECK_OK(
        wb_relay_run(t.d.relay, &(struct wb_drain){0}, &t.d.report, &t.d.err),
        t.d.err);
    CHECK_INT(1, t.d.report.confirmed);
    CHECK_INT(1, t.events[WB_RELAY_DATABASE_LOST]);
    CHECK_INT(1, t.events[WB_RELAY_DATABASE_FOUND]);
    trouble_close(&t);
}

static void
poke_again(uv_timer_t *timer)
{
    struct trouble *t = timer->data;

    wb__db_drain_flag_set(t->d.box->db, true); /* changes a watched file */
}

/* An attempt that fails writes the log, which is watched: that must not be the
 * reason for the next attempt. */
TEST(test_worker__watched_files_change_while_it_waits__waits_on)
{
    struct trouble t = {
        .wait_ms = 400, .op = SHIM_WRITE, .code = SQLITE_FULL, .stop_after = 1};

    trouble_open(&t);
    put(&t.d, "a", "x");
    CHECK(uv_timer_init(&t.d.loop, &t.poke) == 0);
    t.poke.data = &t;
    (void)uv_timer_start(&t.poke, poke_again, 2, 2);
    begin_trouble(&t);
    CHECK_OK(
        wb_relay_run(t.d.relay, &(struct wb_drain){0}, &t.d.report, &t.d.err),
        t.d.err);
    CHECK_INT(1, t.d.report.confirmed);
    CHECK(t.fired > 0 && t.fired < 20);
    uv_close((uv_handle_t *)&t.poke, NULL);
    trouble_close(&t);
}

TEST(test_worker__stopped_while_its_database_is_lost__ends)
{
    struct trouble t = {.stop_after = 1, .break_at = 1, .advance_ms = 61000};

    trouble_open(&t);
    put(&t.d, "a", "x");
    CHECK_STATUS(BUSY,
        wb_relay_run(t.d.relay, &(struct wb_drain){0}, &t.d.report, &t.d.err));
    trouble_close(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_drain__database_locked_after_a_200__confirmed_when_it_is_free),
        RUN(test_drain__database_locked_for_a_lease__ends_with_its_report),
        RUN(test_drain__database_locked_before_anything__ends_at_once),
        RUN(test_worker__database_locked__waits_and_goes_on),
        RUN(test_worker__disk_full__waits_and_goes_on),
        RUN(test_worker__sync_fails__opens_the_database_again_and_goes_on),
        RUN(test_worker__claims_fail__lost_and_found_once),
        RUN(test_worker__watched_files_change_while_it_waits__waits_on),
        RUN(test_worker__stopped_while_its_database_is_lost__ends),
    };

    return RUN_ALL(tests);
}
