/* Drain slots, and the worker. */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "relay_fixture.h"

/* ---- D-2 --------------------------------------------------------------- */

TEST(test_drain__D2_slot_taken__busy_and_flag_left)
{
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *other;
    struct fixture d;

    fixture_open(&d);
    fixture_start(&d, 1);
    put(&d, "a", "1");
    CHECK_OK(wb_outbox_open(&other, test_db_url(), &opts, &d.err), d.err);
    CHECK(wb__db_drain_try(other->db, 0));
    wb__db_drain_flag_set(other->db, false);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(WB_DRAIN_BUSY, d.report.why);
    CHECK_INT(0, d.report.attempted);
    CHECK(wb__db_drain_flag(other->db));
    drain(&d, (struct wb_drain){.concurrency = 2});
    CHECK_INT(1, d.report.confirmed); /* the second of two slots */
    wb__db_drain_free(other->db, 0);
    wb_outbox_close(other);
    fixture_close(&d);
}

/* Two relays of one process may share a handle, and with it the lock file's
 * descriptor or the session, to which a lock of its own is no obstacle. */
static void
drain_by_another_relay(struct fake *f)
{
    struct fixture *d = f->ctx;
    struct wb_relay_opts opts = {
        .env = ENV, .routes = d->route, .n_routes = 1, .loop = &d->loop};
    struct wb_report report;
    struct wb_relay *other;

    if (f->sent > 1)
        return;
    CHECK_OK(wb_relay_new(&other, d->box, &opts, &d->err), d->err);
    CHECK_OK(
        wb_relay_drain(other, &(struct wb_drain){0}, &report, &d->err), d->err);
    CHECK_INT(WB_DRAIN_BUSY, report.why);
    wb_relay_free(other);
}

TEST(test_drain__D2_same_handle__busy_as_well)
{
    struct fixture d;

    fixture_open(&d);
    d.route[0].concurrency = 1;
    d.fake.on_send = drain_by_another_relay;
    d.fake.ctx = &d;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK(wb__db_drain_try(d.box->db, 0)); /* given up again */
    CHECK(!wb__db_drain_try(d.box->db, 0));
    wb__db_drain_free(d.box->db, 0);
    fixture_close(&d);
}

/* Another drain comes by while this one sends: it finds the slot taken and
 * leaves; its message must not be stranded. */
static void
send_while_draining(struct fake *f)
{
    struct fixture *d = f->ctx;
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *other;
    struct wb_message m = {.kind = WB_LIT("a"), .payload = WB_LIT("late")};

    if (f->sent != 1)
        return;
    fake_clock_advance_ms(10);
    CHECK_OK(wb_outbox_open(&other, test_db_url(), &opts, &d->err), d->err);
    CHECK_OK(wb_outbox_enqueue(other, &m, NULL, &d->err), d->err);
    CHECK(!wb__db_drain_try(other->db, 0));
    wb__db_drain_flag_set(other->db, true);
    wb_outbox_close(other);
}

TEST(test_drain__D2_flag_set_meanwhile__another_pass)
{
    struct fixture d;

    fixture_open(&d);
    d.fake.on_send = send_while_draining;
    d.fake.ctx = &d;
    fixture_start(&d, 1);
    put(&d, "a", "early");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK_TEXT("late", d.fake.bodies[1]);
    fixture_close(&d);
}

/* ---- D-3 --------------------------------------------------------------- */

struct stopping {
    struct fixture *fixture;
    size_t after;
};

static void
stop_after(struct fake *f)
{
    struct stopping *s = f->ctx;

    if (f->sent >= s->after)
        wb_relay_stop(s->fixture->relay);
}

/* Another process enqueues while the worker sleeps: the commit wakes it. */
TEST(test_worker__D3_other_process_commits__wakes_and_delivers)
{
    struct wb_relay_opts opts = {.env = wb_env_system()};
    struct wb_drain options = {0};
    struct stopping s;
    struct fixture d;
    int64_t start_us;
    pid_t child;
    int status;

    fixture_open(&d);
    s = (struct stopping){.fixture = &d, .after = 1};
    d.fake.on_send = stop_after;
    d.fake.ctx = &s;
    fixture_start_with(&d, 1, opts);
    child = test_fork();
    if (child == 0) {
        struct wb_outbox *box;
        struct wb_message m = {.kind = WB_LIT("a"), .due_ms = 1};

        usleep(100000); /* the worker is asleep by then */
        if (wb_outbox_open(&box, test_db_url(), NULL, NULL) != WB_OK ||
            wb_outbox_enqueue(box, &m, NULL, NULL) != WB_OK)
            _Exit(1);
        wb_outbox_close(box);
        _Exit(0);
    }
    start_us = opts.env->mono_us(NULL);
    CHECK_OK(wb_relay_run(d.relay, &options, &d.report, &d.err), d.err);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_INT(1, d.report.confirmed);
    CHECK(opts.env->mono_us(NULL) - start_us < 10000000); /* not LONGEST_US */
    fixture_close(&d);
}

/* A transport that answers out of a timer, with nothing to follow. */
struct quick {
    struct wb_transport base;
    uv_timer_t timer;
    wb_done_fn *done;
    void *ctx;
};

static void
quick_answer(uv_timer_t *timer)
{
    struct quick *q = timer->data;

    q->done(q->ctx, &(struct wb_result){.outcome = WB_DELIVERED});
}

static void
quick_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct quick *q = (struct quick *)self;

    (void)request;
    q->done = done;
    q->ctx = ctx;
    (void)uv_timer_start(&q->timer, quick_answer, 0, 0);
}

/* libuv sleeps after its timers: one that ends the worker must prevent that. */
TEST(test_worker__ends_in_a_timer_before_the_sleep__no_sleep)
{
    struct wb_relay_opts opts = {.env = wb_env_system()};
    struct quick q = {.base = {.send = quick_send}};
    struct wb_drain all = {0};
    struct fixture d;
    int64_t start_us;

    fixture_open(&d);
    CHECK_INT(0, uv_timer_init(&d.loop, &q.timer));
    q.timer.data = &q;
    d.route[0].transport = &q.base;
    fixture_start_with(&d, 1, opts);
    put(&d, "a", "x");
    start_us = opts.env->mono_us(NULL);
    CHECK_OK(wb_relay_drain(d.relay, &all, &d.report, &d.err), d.err);
    CHECK_INT(1, d.report.confirmed);
    CHECK(opts.env->mono_us(NULL) - start_us < 10000000); /* not LONGEST_US */
    uv_close((uv_handle_t *)&q.timer, NULL);
    fixture_close(&d);
}

/* The message is on its way before the kinds are read. */
TEST(test_worker__D3_woken__known_kinds_first_and_new_ones_next)
{
    struct fixture d;

    fixture_open(&d);
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    fixture_start(&d, 2);
    put(&d, "a", "1");
    begin(&d, 0);
    while (cycle(&d) <= 0)
        ;
    CHECK_INT(1, d.fake.sent);
    put(&d, "b", "2");
    put(&d, "a", "3");
    wb__relay_wake(d.relay, WB__WOKEN);
    CHECK(cycle(&d) <= 0);
    CHECK_INT(2, d.fake.sent);
    CHECK_TEXT("3", d.fake.bodies[1]);
    CHECK(cycle(&d) <= 0);
    CHECK_INT(3, d.fake.sent);
    CHECK_TEXT("2", d.fake.bodies[2]);
    wb__outcomes_drop(d.relay);
    fixture_close(&d);
}

TEST(test_worker__D3_stopped__in_flight_is_finished)
{
    struct wb_drain options = {0};
    struct stopping s;
    struct fixture d;

    fixture_open(&d);
    s = (struct stopping){.fixture = &d, .after = 1};
    d.fake.loop = &d.loop;
    d.fake.on_send = stop_after;
    d.fake.ctx = &s;
    d.route[0].concurrency = 2;
    fixture_start(&d, 1);
    for (int i = 0; i < 9; i++)
        put(&d, "a", "x");
    CHECK_OK(wb_relay_run(d.relay, &options, &d.report, &d.err), d.err);
    CHECK_INT(2, d.fake.sent); /* what was claimed with the first */
    CHECK_INT(2, d.report.confirmed);
    fixture_close(&d);
}

/* A fixture on the clock of the machine, whose worker stops after so many. */
static void
fixture_real(struct fixture *d, struct stopping *s, size_t after)
{
    struct wb_relay_opts opts = {
        .env = wb_env_system(), .routes = d->route, .n_routes = 1};

    *s = (struct stopping){.fixture = d, .after = after};
    d->fake.on_send = stop_after;
    d->fake.ctx = s;
    opts.loop = &d->loop;
    wb_outbox_close(d->box);
    CHECK_OK(wb_outbox_open(&d->box, test_db_url(), NULL, &d->err), d->err);
    CHECK_OK(wb_relay_new(&d->relay, d->box, &opts, &d->err), d->err);
}

/* How long the worker ran. */
static int64_t
run_us(struct fixture *d)
{
    const struct wb_env *env = wb_env_system();
    int64_t start_us = env->mono_us(NULL);
    struct wb_drain options = {0};

    CHECK_OK(wb_relay_run(d->relay, &options, &d->report, &d->err), d->err);
    return env->mono_us(NULL) - start_us;
}

TEST(test_worker__D3_due_later__sleeps_until_then)
{
    struct wb_message m = {.kind = WB_LIT("a")};
    struct stopping s;
    struct fixture d;
    clock_t cpu;
    int64_t us;

    fixture_open(&d);
    fixture_real(&d, &s, 1);
    m.due_ms = wb_env_system()->wall_ms(NULL) + 1000;
    CHECK_OK(wb_outbox_enqueue(d.box, &m, NULL, &d.err), d.err);
    cpu = clock();
    us = run_us(&d);
    CHECK(us > 500000 && us < 10000000);
    CHECK((clock() - cpu) * 4 < CLOCKS_PER_SEC);
    CHECK_INT(1, d.report.confirmed);
    fixture_close(&d);
}

TEST(test_worker__D3_breaker_open__sleeps_until_its_end)
{
    static const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;
    static const struct wb_breaker_policy one = {1, 700};
    struct stopping s;
    struct fixture d;
    int64_t us;

    fixture_open(&d);
    d.route[0].retry = &now;
    d.route[0].breaker = &one;
    d.fake.n_script = 1;
    d.fake.script[0] = WB_RETRY;
    fixture_real(&d, &s, 2);
    put(&d, "a", "x");
    us = run_us(&d);
    CHECK(us > 500000 && us < 10000000);
    CHECK_INT(1, d.report.confirmed);
    fixture_close(&d);
}

static bool
never_ready(void *ctx, struct wb_err *err)
{
    (void)err;
    ++*(int *)ctx;
    return false;
}

/* With a time limit it waits to become ready until the limit. */
TEST(test_worker__not_ready__stays_for_its_time)
{
    struct wb_drain options = {.for_ms = 200};
    int asked = 0;
    struct wb_relay_opts opts = {
        .env = wb_env_system(), .ready = never_ready, .ctx = &asked};
    struct fixture d;
    int64_t start_us;

    fixture_open(&d);
    fixture_start_with(&d, 1, opts);
    put(&d, "a", "x");
    start_us = opts.env->mono_us(NULL);
    CHECK_OK(wb_relay_run(d.relay, &options, &d.report, &d.err), d.err);
    CHECK(opts.env->mono_us(NULL) - start_us >= 200000);
    CHECK_INT(1, asked);
    CHECK_INT(0, d.fake.sent);
    fixture_close(&d);
}

/* A time beyond the range of the clock means no limit. */
TEST(test_worker__for_longer_than_the_clock_range__until_stopped)
{
    struct wb_drain options = {.for_ms = INT64_MAX / 1000 + 1};
    struct stopping s;
    struct fixture d;

    fixture_open(&d);
    s = (struct stopping){.fixture = &d, .after = 1};
    d.fake.on_send = stop_after;
    d.fake.ctx = &s;
    fixture_start(&d, 1);
    put(&d, "a", "x");
    CHECK_OK(wb_relay_run(d.relay, &options, &d.report, &d.err), d.err);
    CHECK_INT(1, d.report.confirmed);
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_drain__D2_slot_taken__busy_and_flag_left),
        RUN(test_drain__D2_same_handle__busy_as_well),
        RUN(test_drain__D2_flag_set_meanwhile__another_pass),
        RUN(test_worker__D3_other_process_commits__wakes_and_delivers),
        RUN(test_worker__ends_in_a_timer_before_the_sleep__no_sleep),
        RUN(test_worker__D3_woken__known_kinds_first_and_new_ones_next),
        RUN(test_worker__D3_stopped__in_flight_is_finished),
        RUN(test_worker__D3_due_later__sleeps_until_then),
        RUN(test_worker__D3_breaker_open__sleeps_until_its_end),
        RUN(test_worker__not_ready__stays_for_its_time),
        RUN(test_worker__for_longer_than_the_clock_range__until_stopped),
    };

    return RUN_ALL(tests);
}
