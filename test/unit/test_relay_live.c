/* A relay while it runs: reload, standby, grace, the last pass. */
#include "relay_fixture.h"

struct live {
    struct fixture d;
    struct fake second; /* of the other routes */
    struct wb_route route;
    struct wb_outbox *other;
    uv_timer_t timer;
    int events[32];
    size_t sent_when_free; /* by both */
    wb_done_fn *done;      /* of a request that is to end later */
    void *done_ctx;
};

static void
on_event(void *ctx, const struct wb_relay_event *e)
{
    struct live *t = ctx;

    t->events[e->type]++;
    if (e->type == WB_RELAY_RELOADED) {
        t->sent_when_free = t->d.fake.sent + t->second.sent;
        wb_relay_stop(t->d.relay);
    }
}

static void
live_open(struct live *t)
{
    struct wb_outbox_opts opts = {.env = ENV};

    *t = (struct live){0};
    fixture_open(&t->d);
    t->d.fake.ctx = t->second.ctx = t;
    t->d.fake.loop = t->second.loop = &t->d.loop;
    t->second.base = t->d.fake.base;
    t->route = (struct wb_route){.kind = "*", .transport = &t->second.base};
    fixture_start_with(&t->d, 1,
        (struct wb_relay_opts){
            .env = ENV, .on_event = on_event, .event_ctx = t});
    CHECK_OK(
        wb_outbox_open(&t->other, test_db_url(), &opts, &t->d.err), t->d.err);
    CHECK(uv_timer_init(&t->d.loop, &t->timer) == 0);
    t->timer.data = t;
}

static void
live_close(struct live *t)
{
    wb_outbox_close(t->other);
    uv_close((uv_handle_t *)&t->timer, NULL);
    fixture_close(&t->d);
}

static void
run(struct live *t, struct wb_drain options)
{
    CHECK_OK(
        wb_relay_run(t->d.relay, &options, &t->d.report, &t->d.err), t->d.err);
}

/* ---- reload -------------------------------------------------------------- */

static void
reload_once(struct fake *f)
{
    struct live *t = f->ctx;
    struct wb_relay_opts opts = {.routes = &t->route, .n_routes = 1};

    if (f->sent > 1)
        return;
    CHECK_OK(wb_relay_reload(t->d.relay, &opts, &t->d.err), t->d.err);
    CHECK_STATUS(BUSY, wb_relay_reload(t->d.relay, &opts, NULL));
    put(&t->d, "b", "2"); /* which had no route */
    put(&t->d, "a", "3");
}

TEST(test_worker__reload__in_flight_ends_under_the_former_routes)
{
    struct live t;

    live_open(&t);
    t.d.fake.on_send = reload_once;
    put(&t.d, "a", "1");
    run(&t, (struct wb_drain){0});
    CHECK_INT(1, t.d.fake.sent);
    CHECK_INT(2, t.second.sent);
    CHECK_INT(3, t.d.report.confirmed);
    CHECK_INT(1, t.events[WB_RELAY_RELOADED]);
    live_close(&t);
}

TEST(test_relay__reload_of_routes_that_do_not_fit__changes_nothing)
{
    struct wb_route twice[] = {{0}, {0}};
    struct wb_relay_opts opts = {.routes = twice, .n_routes = 2};
    struct live t;

    live_open(&t);
    twice[0] = twice[1] = t.route;
    CHECK_STATUS(INVALID, wb_relay_reload(t.d.relay, &opts, &t.d.err));
    CHECK_HAS("two routes", t.d.err.msg);
    put(&t.d, "a", "1");
    drain(&t.d, (struct wb_drain){0});
    CHECK_INT(1, t.d.fake.sent);
    live_close(&t);
}

/* ---- standby ------------------------------------------------------------- */

static void
free_slot(uv_timer_t *timer)
{
    struct live *t = timer->data;

    CHECK_INT(0, t->d.fake.sent);
    CHECK_INT(1, t->events[WB_RELAY_STANDBY]);
    CHECK_INT(0, t->events[WB_RELAY_STARTED]);
    wb__db_drain_free(t->other->db, 0);
    fake_clock_advance_ms(1100);
}

static void
stop_now(struct fake *f)
{
    struct live *t = f->ctx;

    wb_relay_stop(t->d.relay);
}

TEST(test_worker__standby__takes_the_slot_when_it_is_free)
{
    struct live t;

    live_open(&t);
    t.d.fake.on_send = stop_now;
    put(&t.d, "a", "1");
    CHECK(wb__db_drain_try(t.other->db, 0));
    CHECK_STATUS(BUSY,
        wb_relay_run(t.d.relay, &(struct wb_drain){0}, &t.d.report, &t.d.err));
    (void)uv_timer_start(&t.timer, free_slot, 50, 0);
    run(&t, (struct wb_drain){.standby = true});
    CHECK_INT(1, t.events[WB_RELAY_STARTED]);
    CHECK_INT(1, t.d.report.confirmed);
    live_close(&t);
}

/* ---- the end of a worker ------------------------------------------------- */

static void
never_answer(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct live *t = ((struct fake *)self)->ctx;

    (void)request;
    (void)done;
    (void)ctx;
    ((struct fake *)self)->sent++;
    wb_relay_stop(t->d.relay);
}

static void
advance(uv_timer_t *timer)
{
    (void)timer;
    fake_clock_advance_ms(5000);
}

TEST(test_worker__grace_is_over__in_flight_left_to_the_lease_rest_released)
{
    struct wb_id first, second;
    struct live t;

    live_open(&t);
    t.d.fake.base.send = never_answer;
    t.d.route[0].concurrency = 1;
    first = put(&t.d, "a", "1");
    second = put(&t.d, "b", "2");
    (void)uv_timer_start(&t.timer, advance, 50, 0);
    run(&t, (struct wb_drain){.grace_ms = 4000});
    CHECK_INT(1, t.d.report.left);
    CHECK_INT(0, t.d.report.attempted);
    CHECK_INT(WB_STATE_PROCESSING, state_of(&t.d, first).state);
    CHECK_INT(WB_STATE_PENDING, state_of(&t.d, second).state);
    live_close(&t);
}

/* The response comes once a drain has got the slot. */
static void
drain_finds_slot(uv_timer_t *timer)
{
    struct live *t = timer->data;

    if (!wb__db_drain_try(t->other->db, 0)) {
        (void)uv_timer_start(timer, drain_finds_slot, 1, 0);
        return;
    }
    wb__db_drain_free(t->other->db, 0);
    t->done(t->done_ctx, &(struct wb_result){.outcome = WB_DELIVERED});
}

static void
answer_later(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct live *t = ((struct fake *)self)->ctx;

    (void)request;
    t->done = done;
    t->done_ctx = ctx;
    wb_relay_stop(t->d.relay);
    (void)uv_timer_start(&t->timer, drain_finds_slot, 0, 0);
}

TEST(test_worker__D2_stopped__frees_its_slot_before_its_requests_end)
{
    struct live t;

    live_open(&t);
    t.d.fake.base.send = answer_later;
    put(&t.d, "a", "1");
    run(&t, (struct wb_drain){0});
    CHECK_INT(1, t.d.report.confirmed);
    live_close(&t);
}

/* A drain was told "busy" just before the worker was stopped. */
static void
drain_comes_then_stop(struct fake *f)
{
    struct live *t = f->ctx;

    if (f->sent > 1)
        return;
    fake_clock_advance_ms(10);
    put(&t->d, "a", "2");
    CHECK(!wb__db_drain_try(t->other->db, 0));
    wb__db_drain_flag_set(t->other->db, true);
    wb_relay_stop(t->d.relay);
}

TEST(test_worker__D2_flag_set_and_stopped__another_pass)
{
    struct live t;

    live_open(&t);
    t.d.fake.on_send = drain_comes_then_stop;
    put(&t.d, "a", "1");
    run(&t, (struct wb_drain){0});
    CHECK_INT(2, t.d.report.confirmed);
    CHECK(!wb__db_drain_flag(t.other->db));
    CHECK(wb__db_drain_try(t.other->db, 0));
    wb__db_drain_free(t.other->db, 0);
    live_close(&t);
}

/* ---- events -------------------------------------------------------------- */

struct seen {
    char text[2048];
};

static void
write_event(void *ctx, const struct wb_relay_event *e)
{
    struct seen *s = ctx;
    size_t len = strlen(s->text);

    if (e->type == WB_RELAY_COMMITTED)
        return; /* it depends on what was committed together */
    (void)snprintf(s->text + len, sizeof(s->text) - len,
        "%d %.*s %.*s %u %d %d %.*s\n", (int)e->type, (int)e->kind.len,
        e->kind.ptr, (int)e->scope.len, e->scope.ptr, e->attempt, (int)e->state,
        e->status, (int)e->error.len, e->error.ptr);
}

TEST(test_drain__events__of_each_attempt_and_of_breakers)
{
    static const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;
    static const struct wb_breaker_policy two = {2, 1000};
    struct seen s = {""};
    struct fixture d;

    fixture_open(&d);
    d.route[0].retry = &now;
    d.route[0].breaker = &two;
    d.fake.n_script = 2;
    d.fake.script[0] = d.fake.script[1] = WB_RETRY;
    d.fake.status = 503;
    d.fake.error = "down";
    fixture_start_with(&d, 1,
        (struct wb_relay_opts){
            .env = ENV, .on_event = write_event, .event_ctx = &s});
    put(&d, "a", "1");
    for (int i = 0; i < 3; i++) {
        drain(&d, (struct wb_drain){0});
        fake_clock_advance_ms(2000);
    }
    CHECK_TEXT("0 a  1 0 503 down\n"
               "0 a  2 0 503 down\n"
               "3 a a 0 0 0 down\n"
               "0 a  3 4 503 \n"
               "4 a a 0 0 0 \n",
        s.text);
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_worker__reload__in_flight_ends_under_the_former_routes),
        RUN(test_relay__reload_of_routes_that_do_not_fit__changes_nothing),
        RUN(test_worker__standby__takes_the_slot_when_it_is_free),
        RUN(test_worker__grace_is_over__in_flight_left_to_the_lease_rest_released),
        RUN(test_worker__D2_stopped__frees_its_slot_before_its_requests_end),
        RUN(test_worker__D2_flag_set_and_stopped__another_pass),
        RUN(test_drain__events__of_each_attempt_and_of_breakers),
    };

    return RUN_ALL(tests);
}
