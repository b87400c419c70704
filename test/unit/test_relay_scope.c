/* Destinations of one route, told apart by scope_of (B-3): one that is slow or
 * dead does not keep the messages of the others waiting. */
#include "relay_fixture.h"

/* ---- two tenants ------------------------------------------------------- */

/* The payload begins with the name of its tenant: A or B. */
struct tenants {
    struct wb_transport base;
    bool a_hangs;           /* its requests stay open */
    enum wb_outcome a_ends; /* else how they end */
    size_t sent[2];
    struct {
        wb_done_fn *done;
        void *ctx;
    } open[16];
    size_t n_open;
};

static void
tenants_send(struct wb_transport *self, const struct wb_request *q,
    wb_done_fn *done, void *ctx)
{
    struct tenants *t = (struct tenants *)self;
    bool a = q->body.ptr[0] == 'A';
    struct wb_result r = {.outcome = a ? t->a_ends : WB_DELIVERED};

    t->sent[!a]++;
    if (a && t->a_hangs) {
        CHECK(t->n_open < 16);
        t->open[t->n_open].done = done;
        t->open[t->n_open++].ctx = ctx;
    } else {
        done(ctx, &r);
    }
}

static void
tenants_end_open(struct tenants *t)
{
    struct wb_result r = {.outcome = WB_DELIVERED};

    while (t->n_open > 0) {
        t->n_open--;
        t->open[t->n_open].done(t->open[t->n_open].ctx, &r);
    }
}

static enum wb_status
tenant_of(void *ctx, const struct wb_claimed *m, char *out, size_t size)
{
    (void)ctx;
    snprintf(out, size, "tenant-%c", m->payload.ptr[0]);
    return WB_OK;
}

static void
tenants_open(struct fixture *d, struct tenants *t)
{
    fixture_open(d);
    *t = (struct tenants){
        .base = {.name = "tenants", .send = tenants_send, .free = fake_free}};
    d->route[0].transport = &t->base;
    d->route[0].scope_of = tenant_of;
    fixture_start(d, 1);
    for (int i = 0; i < 40; i++)
        put(d, "a", "A");
    for (int i = 0; i < 5; i++)
        put(d, "a", "B");
}

/* Run cycles, each ms of them a moment apart, until so many are confirmed. */
static void
cycles_until(struct fixture *d, struct tenants *t, uint64_t confirmed)
{
    for (int i = 0; d->relay->report.confirmed < confirmed; i++) {
        if (i == 1000)
            fail_msg("confirmed %d; sent %zu and %zu; in flight %zu",
                (int)d->relay->report.confirmed, t->sent[0], t->sent[1],
                d->relay->n_in_flight);
        cycle(d);
        fake_clock_advance_ms(1);
        if (!t->a_hangs)
            tenants_end_open(t);
    }
}

/* ---- slow -------------------------------------------------------------- */

static void
check_slow(const struct wb__limits *limits)
{
    struct tenants t;
    struct fixture d;

    tenants_open(&d, &t);
    t.a_hangs = true;
    fake_clock_advance_ms(1);
    wb__relay_begin(d.relay, limits);
    cycle(&d);
    CHECK_INT(4, t.sent[0]); /* half of the slots */
    fake_clock_advance_ms(300);
    cycles_until(&d, &t, 5);
    CHECK_INT(4, t.sent[0]);
    CHECK_INT(5, t.sent[1]);
    for (int i = 0; i < 100; i++) /* it does not spin */
        if (cycle(&d) > 0)
            break;
    CHECK(cycle(&d) > 0);
    put(&d, "a", "B");
    t.a_hangs = false;
    cycles_until(&d, &t, 45);
    CHECK_INT(45, d.relay->report.attempted - (t.sent[1] - 5));
    CHECK_INT(40, t.sent[0]);
    tenants_end_open(&t);
    cycle(&d);
    fixture_close(&d);
}

TEST(test_scope__B3_one_destination_hangs__others_delivered_then_all)
{
    check_slow(&(struct wb__limits){.messages = UINT64_MAX});
}

TEST(test_scope__B3_one_hangs_in_a_pass__all_delivered_in_it)
{
    check_slow(&(struct wb__limits){.messages = UINT64_MAX,
        .due_by_ms = FAKE_START_MS + 1,
        .not_before_ms = FAKE_START_MS + 2});
}

/* ---- dead -------------------------------------------------------------- */

static int64_t
attempts_of(struct fixture *d, struct wb_id last)
{
    return state_of(d, last).attempts;
}

TEST(test_scope__B3_one_destination_is_dead__no_attempt_lost_others_go_on)
{
    struct tenants t;
    struct fixture d;
    struct wb_id last;
    size_t sent;

    tenants_open(&d, &t);
    last = put(&d, "a", "A");
    t.a_ends = WB_RETRY;
    begin(&d, 0);
    cycles_until(&d, &t, 5);
    for (int i = 0; i < 50; i++)
        cycle(&d);
    sent = t.sent[0];
    CHECK(sent <= 8); /* of one claim, before the breaker opened */
    CHECK_INT(0, attempts_of(&d, last));
    CHECK(cycle(&d) > 1000000);

    fake_clock_advance_ms(61000); /* one probe, and no other */
    for (int i = 0; i < 50; i++)
        cycle(&d);
    CHECK_INT(sent + 1, t.sent[0]);
    CHECK_INT(0, attempts_of(&d, last));
    put(&d, "a", "B");
    wb__relay_wake(d.relay, WB__WOKEN);
    cycles_until(&d, &t, 6);
    CHECK_INT(sent + 1, t.sent[0]);

    t.a_ends = WB_DELIVERED;
    for (int i = 0; i < 200; i++) {
        fake_clock_advance_ms(1000);
        cycle(&d);
    }
    cycles_until(&d, &t, 47);
    fixture_close(&d);
}

TEST(test_scope__B3_drain_and_a_dead_destination__reason_is_the_breaker)
{
    struct tenants t;
    struct fixture d;

    tenants_open(&d, &t);
    t.a_ends = WB_RETRY;
    drain(&d, (struct wb_drain){0});
    CHECK_INT(5, d.report.confirmed);
    CHECK(d.report.retried <= 8);
    CHECK_INT(d.report.attempted, sum(&d.report));
    CHECK_INT(1, d.report.breakers_open);
    put(&d, "a", "A");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(WB_DRAIN_BREAKER_OPEN, d.report.why);
    fixture_close(&d);
}

/* ---- without a scope --------------------------------------------------- */

static enum wb_status
no_tenant(void *ctx, const struct wb_claimed *m, char *out, size_t size)
{
    (void)ctx;
    (void)m;
    (void)out;
    (void)size;
    return WB_INVALID;
}

static enum wb_status
on_breaker(void *ctx, const struct wb_breaker *b)
{
    *(int *)ctx = (int)b->state;
    return WB_OK;
}

static int
breaker_state(struct fixture *d, const char *scope)
{
    int state = -1;

    CHECK_OK(wb_outbox_breakers(
                 d->box, wb_slice(scope), on_breaker, &state, &d->err),
        d->err);
    return state;
}

TEST(test_scope__hook_fails__scope_of_the_route)
{
    struct tenants t;
    struct fixture d;

    tenants_open(&d, &t);
    d.route[0].scope_of = no_tenant;
    t.a_ends = WB_RETRY;
    drain(&d, (struct wb_drain){0});
    CHECK(d.report.attempted <= 8);
    CHECK_INT(WB_OPEN, breaker_state(&d, "a"));
    put(&d, "a", "A");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(WB_DRAIN_BREAKER_OPEN, d.report.why);
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_scope__B3_one_destination_hangs__others_delivered_then_all),
        RUN(test_scope__B3_one_hangs_in_a_pass__all_delivered_in_it),
        RUN(test_scope__B3_one_destination_is_dead__no_attempt_lost_others_go_on),
        RUN(test_scope__B3_drain_and_a_dead_destination__reason_is_the_breaker),
        RUN(test_scope__hook_fails__scope_of_the_route),
    };

    return RUN_ALL(tests);
}
