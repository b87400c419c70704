/* Cycles: when they claim, requests in flight, leases, rates. */
#include "relay_fixture.h"

/* ---- when the relay claims --------------------------------------------- */

TEST(test_claim_step__each_wake_state__claims_or_not)
{
    static const struct {
        enum wb__wake wake;
        size_t n_known;
        bool has_waiting_kinds, may_claim, commits;
        enum wb__claim_step step;
    } row[] = {
        {WB__WOKEN, 1, true, false, true, WB__CLAIM_NOTHING},
        {WB__KINDS_STALE, 1, true, false, true, WB__CLAIM_NOTHING},
        {WB__IDLE, 1, true, true, false, WB__CLAIM_NOTHING},
        {WB__IDLE, 1, true, true, true, WB__CLAIM_NOW},
        {WB__IDLE, 1, false, true, true, WB__CLAIM_NOTHING},
        {WB__RECHECK, 1, true, true, false, WB__CLAIM_NOW},
        {WB__RECHECK, 1, false, true, false, WB__CLAIM_NOTHING},
        {WB__KINDS_STALE, 1, true, true, false, WB__READ_KINDS},
        {WB__KINDS_STALE, 0, false, true, false, WB__READ_KINDS},
        {WB__WOKEN, 1, true, true, false, WB__CLAIM_NOW},
        {WB__WOKEN, 1, false, true, false, WB__CLAIM_NOW},
        {WB__WOKEN, 0, false, true, false, WB__READ_KINDS},
    };

    for (size_t i = 0; i < WB_COUNT(row); i++) {
        struct wb__claims c = {.wake = row[i].wake,
            .n = row[i].n_known,
            .has_waiting_kinds = row[i].has_waiting_kinds};

        CHECK_INT(
            row[i].step, wb__claim_step(&c, row[i].may_claim, row[i].commits));
    }
}

/* ---- in flight --------------------------------------------------------- */

TEST(test_drain__T1_concurrency__never_more_in_flight)
{
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].concurrency = 3;
    fixture_start(&d, 1);
    for (int i = 0; i < 10; i++)
        put(&d, "a", "x");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(10, d.report.confirmed);
    CHECK_INT(3, d.fake.most_flying);
    for (int i = 0; i < 10; i++)
        put(&d, "a", "x");
    d.fake.most_flying = 0;
    drain(&d, (struct wb_drain){.concurrency = 2});
    CHECK_INT(2, d.fake.most_flying);
    fixture_close(&d);
}

/* A batch route must not let the others send a request for each message that a
 * batch could take. */
TEST(test_drain__T1_concurrency_and_a_batch_route__never_more_in_flight)
{
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].concurrency = 50;
    d.route[1] =
        (struct wb_route){.kind = "b", .transport = &d.fake.base, .batch = 50};
    fixture_start(&d, 2);
    for (int i = 0; i < 20; i++) {
        put(&d, "a", "1");
        put(&d, "b", "1");
    }
    drain(&d, (struct wb_drain){.concurrency = 2});
    CHECK_INT(40, d.report.confirmed);
    CHECK_INT(2, d.fake.most_flying);
    for (int i = 0; i < 60; i++)
        put(&d, "b", "1");
    d.fake.sent = 0;
    drain(&d, (struct wb_drain){.concurrency = 2});
    CHECK_INT(60, d.report.confirmed);
    CHECK_INT(2, d.fake.sent); /* of one kind alone batches are full */
    fixture_close(&d);
}

/* A batch is of one kind, so several kinds of a route make several requests. */
TEST(test_drain__T1_batches_of_several_kinds__never_more_in_flight)
{
    static const char *const kind[] = {"ev.a", "ev.b", "ev.c", "ev.d"};
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].kind = "ev.*";
    d.route[0].concurrency = 2;
    d.route[0].batch = 3;
    fixture_start(&d, 1);
    for (int i = 0; i < 24; i++)
        put(&d, kind[i % 4], "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(24, d.report.confirmed);
    CHECK_INT(2, d.fake.most_flying);
    fixture_close(&d);
}

static enum wb_status
url_of_its_own(void *ctx, const struct wb_claimed *message,
    struct wb_request *request, void **token, struct wb_err *err)
{
    (void)ctx;
    (void)token;
    (void)err;
    request->url = message->payload;
    return WB_OK;
}

/* A batch has one URL: a message for which the build hook sets another URL is
 * sent later in the same pass. */
TEST(test_drain__T1_batches_of_several_urls__never_more_in_flight)
{
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].concurrency = 2;
    d.route[0].batch = 10;
    d.route[0].build = url_of_its_own;
    fixture_start(&d, 1);
    for (int i = 0; i < 30; i++)
        put(&d, "a", (const char *[]){"1", "2", "3", "4", "5"}[i % 5]);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(30, d.report.confirmed);
    CHECK_INT(2, d.fake.most_flying);
    fixture_close(&d);
}

/* More is due, but no request may start: only the end of one is of use. */
TEST(test_cycle__D3_concurrency_reached__sleeps_until_a_request_ends)
{
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "x");
    begin(&d, 1);
    CHECK(cycle(&d) > 29000000); /* half a lease */
    CHECK_INT(1, d.fake.sent);
    CHECK(cycle(&d) > 29000000);
    end_requests(&d);
    CHECK(cycle(&d) > 29000000);
    CHECK_INT(2, d.fake.sent);
    end_requests(&d);
    wb__outcomes_drop(d.relay);
    fixture_close(&d);
}

/* A message is due, and its route full: its time, which has come, must not keep
 * the worker awake. */
TEST(test_cycle__D3_due_and_no_slot__sleeps_until_a_request_ends)
{
    struct wb_message m = {.kind = WB_LIT("a"), .due_ms = FAKE_START_MS + 5000};
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].concurrency = 2;
    fixture_start(&d, 1);
    put(&d, "a", "x");
    CHECK_OK(wb_outbox_enqueue(d.box, &m, NULL, &d.err), d.err);
    begin(&d, 1);
    (void)cycle(&d);
    CHECK_INT(1, d.fake.sent);
    fake_clock_advance_ms(6000);
    CHECK(cycle(&d) > 20000000);
    end_requests(&d);
    (void)cycle(&d);
    CHECK_INT(2, d.fake.sent);
    end_requests(&d);
    wb__outcomes_drop(d.relay);
    fixture_close(&d);
}

/* Milliseconds that are no longer a time in microseconds. */
TEST(test_cycle__D3_due_at_the_end_of_time__sleeps)
{
    struct wb_message m = {.kind = WB_LIT("a"), .due_ms = INT64_MAX / 2};
    struct fixture d;

    fixture_open(&d);
    fixture_start(&d, 1);
    CHECK_OK(wb_outbox_enqueue(d.box, &m, NULL, &d.err), d.err);
    begin(&d, 0);
    CHECK(cycle(&d) > INT64_MAX / 2);
    CHECK_INT(0, d.fake.sent);
    fixture_close(&d);
}

/* Requests that take long must not make the rate slower. */
TEST(test_cycle__T1_rate_and_a_request_in_flight__next_in_time)
{
    struct fixture d;
    int64_t us;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].rate_per_s = 1;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    begin(&d, 0);
    us = cycle(&d);
    CHECK_INT(1, d.fake.sent);
    CHECK(us > 500000 && us <= 1000001);
    fake_clock_advance_ms(us / 1000 + 1);
    (void)cycle(&d);
    CHECK_INT(2, d.fake.sent);
    end_requests(&d);
    wb__outcomes_drop(d.relay);
    fixture_close(&d);
}

static void
past_half_the_lease(struct fake *f)
{
    struct fixture *d = f->ctx;
    const struct wb__delivery *in_flight;

    /* Once all three are out, more than half of the lease goes by. */
    if (f->sent != 3)
        return;
    fake_clock_advance_ms(31000);
    for (in_flight = d->relay->in_flight; in_flight != NULL;
         in_flight = in_flight->next)
        CHECK(in_flight->extend_us <= fake_env.mono_us);
}

TEST(test_drain__D2a_half_a_lease_gone__claims_extended)
{
    struct fixture d;
    struct wb_batch batch = {0};
    struct wb_claim claim = {.max = 10};

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.fake.on_send = past_half_the_lease;
    d.fake.ctx = &d;
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "x");
    begin(&d, 0);
    (void)cycle(&d);
    fake_clock_advance_ms(30000); /* 61 s after the claim */
    CHECK_STATUS(EMPTY, wb_outbox_claim(d.box, &claim, &batch, &d.err));
    wb_batch_free(&batch);
    end_requests(&d);
    wb__outcomes_drop(d.relay);
    fixture_close(&d);
}

TEST(test_drain__T1_rate__paced)
{
    struct fixture d;
    int64_t ms = 0;

    fixture_open(&d);
    d.route[0].rate_per_s = 100;
    fixture_start(&d, 1);
    for (int i = 0; i < 30; i++)
        put(&d, "a", "x");
    for (begin(&d, 0); d.fake.sent < 30 && ms < 1000; ms += 5) {
        (void)cycle(&d);
        fake_clock_advance_ms(5);
    }
    CHECK_INT(30, d.fake.sent);
    /* 30 at 100 a second, a tenth of one caught up */
    CHECK(ms >= 180 && ms <= 250);
    (void)cycle(&d);
    fixture_close(&d);
}

/* A rate is one of the database: not of a drain, and not of a worker. */
TEST(test_cycle__T1_rate_and_several_workers__holds_over_all)
{
    struct fixture d;
    struct wb_relay *other = NULL;
    struct wb_relay_opts opts = {.env = ENV, .n_routes = 1};
    const struct wb__limits all = {.messages = UINT64_MAX};
    int64_t deadline_us;

    fixture_open(&d);
    d.route[0].rate_per_s = 10;
    opts.routes = d.route;
    opts.loop = &d.loop;
    fixture_start(&d, 1);
    CHECK_OK(wb_relay_new(&other, d.box, &opts, &d.err), d.err);
    for (int i = 0; i < 20; i++)
        put(&d, "a", "1");
    for (size_t sent = 1; sent <= 5; sent++) {
        for (int i = 0; i < 5; i++) { /* ten drains at once */
            begin(&d, 0);
            (void)cycle(&d);
            wb__relay_begin(other, &all);
            CHECK_OK(wb__relay_cycle(other, &deadline_us, &d.err), d.err);
        }
        CHECK_INT(sent, d.fake.sent);
        fake_clock_advance_ms(101);
    }
    wb__outcomes_drop(other);
    wb_relay_free(other);
    fixture_close(&d);
}

TEST(test_cycle__T1_rate_written_by_a_clock_ahead__goes_on)
{
    struct fixture d;

    fixture_open(&d);
    d.route[0].rate_per_s = 10;
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "1");
    fake_env.wall_ms += 86400000;
    begin(&d, 0);
    (void)cycle(&d);
    CHECK_INT(1, d.fake.sent);
    fake_env.wall_ms -= 86400000;
    for (int i = 0; i < 40; i++) {
        (void)cycle(&d);
        fake_clock_advance_ms(100);
    }
    CHECK_INT(3, d.fake.sent);
    fixture_close(&d);
}

/* ---- a message that may kill the worker --------------------------------- */

/* After a crash: what was in flight then goes out one at a time, and not in a
 * batch; what is new goes on beside it. */
TEST(test_cycle__leases_ran_out__one_of_them_in_flight)
{
    struct wb_claim claim = {.max = 3};
    struct wb_batch lost = {0};
    struct fixture d;

    fixture_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].batch = 3;
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "1");
    CHECK_OK(wb_outbox_claim(d.box, &claim, &lost, &d.err), d.err);
    wb_batch_free(&lost); /* its worker died */
    fake_clock_advance_ms(60000);
    put(&d, "a", "2");
    begin(&d, 8);
    cycle(&d);
    cycle(&d);
    CHECK_INT(2, d.fake.sent);
    CHECK_INT(1, d.relay->n_stale);
    for (int i = 0; i < 3; i++) {
        end_requests(&d);
        cycle(&d);
    }
    CHECK_INT(4, d.relay->report.confirmed);
    CHECK_INT(4, d.fake.sent);
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_drain__T1_concurrency__never_more_in_flight),
        RUN(test_drain__T1_concurrency_and_a_batch_route__never_more_in_flight),
        RUN(test_drain__T1_batches_of_several_kinds__never_more_in_flight),
        RUN(test_drain__T1_batches_of_several_urls__never_more_in_flight),
        RUN(test_cycle__D3_concurrency_reached__sleeps_until_a_request_ends),
        RUN(test_cycle__D3_due_and_no_slot__sleeps_until_a_request_ends),
        RUN(test_cycle__D3_due_at_the_end_of_time__sleeps),
        RUN(test_cycle__T1_rate_and_a_request_in_flight__next_in_time),
        RUN(test_drain__D2a_half_a_lease_gone__claims_extended),
        RUN(test_drain__T1_rate__paced),
        RUN(test_cycle__T1_rate_and_several_workers__holds_over_all),
        RUN(test_cycle__T1_rate_written_by_a_clock_ahead__goes_on),
        RUN(test_claim_step__each_wake_state__claims_or_not),
        RUN(test_cycle__leases_ran_out__one_of_them_in_flight),
    };

    return RUN_ALL(tests);
}
