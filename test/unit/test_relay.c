/* The relay: drains, routes, response rules, the note of the last drain. */
#include "relay_fixture.h"

/* ---- D-1 --------------------------------------------------------------- */

TEST(test_drain__D1_three_due__each_delivered_once)
{
    struct fixture d;

    fixture_open(&d);
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    put(&d, "a", "3");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, d.report.attempted);
    CHECK_INT(3, d.report.confirmed);
    CHECK_INT(WB_DRAIN_DONE, d.report.why);
    CHECK_INT(3, d.fake.sent);
    CHECK_TEXT("1", d.fake.bodies[0]);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(WB_DRAIN_EMPTY, d.report.why);
    fixture_close(&d);
}

/* Immediate retries are due at once, and still wait for the next pass. */
TEST(test_drain__D1_immediate_retry__once_a_pass)
{
    static const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;
    struct fixture d;

    fixture_open(&d);
    d.route[0].retry = &now;
    d.fake.outcome = WB_RETRY;
    d.fake.error = "503 Service Unavailable";
    fixture_start(&d, 1);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(1, d.report.retried);
    fake_clock_advance_ms(2);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.fake.sent);
    CHECK_INT(2, d.fake.attempts[1]);
    CHECK_TEXT(d.fake.ids[0], d.fake.ids[1]);
    fixture_close(&d);
}

TEST(test_drain__D1_max_and_kind__no_more_than_asked)
{
    struct fixture d;

    fixture_open(&d);
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    fixture_start(&d, 2);
    for (int i = 0; i < 5; i++) {
        put(&d, "a", "x");
        put(&d, "b", "y");
    }
    drain(&d, (struct wb_drain){.max = 2});
    CHECK_INT(2, d.report.attempted);
    drain(&d, (struct wb_drain){.kind = WB_LIT("b")});
    CHECK_INT(4, d.report.attempted);
    drain(&d, (struct wb_drain){.kind = WB_LIT("c")});
    CHECK_INT(WB_DRAIN_NOT_READY, d.report.why);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(4, d.report.attempted);
    fixture_close(&d);
}

static bool
never_ready(void *ctx, struct wb_err *err)
{
    (void)ctx;
    (void)err;
    return false;
}

TEST(test_drain__D1_not_ready__nothing_touched)
{
    struct wb_relay_opts opts = {.env = ENV, .ready = never_ready};
    struct fixture d;
    struct wb_id id;

    fixture_open(&d);
    fixture_start_with(&d, 1, opts);
    id = put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(WB_DRAIN_NOT_READY, d.report.why);
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(0, state_of(&d, id).attempts);
    fixture_close(&d);
}

/* Every end has its own counter, and they add up. */
TEST(test_drain__D1_all_outcomes__counters_are_disjoint)
{
    static const struct wb_retry_policy once = {.max_attempts = 1};
    struct fixture d;
    struct wb_id id[3];

    fixture_open(&d);
    d.route[0].concurrency = 1;
    d.route[1] = (struct wb_route){
        .kind = "b", .transport = &d.fake.base, .retry = &once};
    d.fake.n_script = 5;
    d.fake.script[0] = WB_DELIVERED;
    d.fake.script[1] = WB_RETRY;
    d.fake.script[2] = WB_REJECTED;
    d.fake.script[3] = WB_UNKNOWN;
    d.fake.script[4] = WB_RETRY;
    d.fake.error = "500 Internal Server Error";
    fixture_start(&d, 2);
    for (int i = 0; i < 3; i++) {
        id[i] = put(&d, "a", "x");
        fake_clock_advance_ms(1);
    }
    put(&d, "a", "x");
    fake_clock_advance_ms(1);
    put(&d, "b", "x");
    drain(&d, (struct wb_drain){.concurrency = 1});
    CHECK_INT(5, d.report.attempted);
    CHECK_INT(1, d.report.confirmed);
    CHECK_INT(2, d.report.retried);
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(1, d.report.abandoned);
    CHECK_INT(d.report.attempted, sum(&d.report));
    CHECK_INT(WB_STATE_PENDING, state_of(&d, id[1]).state);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, id[2]).state);
    fixture_close(&d);
}

TEST(test_drain__ended_on_the_way__counted_apart)
{
    struct wb_message m = {.kind = WB_LIT("a"),
        .payload = WB_LIT("1"),
        .expires_ms = FAKE_START_MS + 5};
    struct fixture d;

    fixture_open(&d);
    fixture_start(&d, 1);
    CHECK_OK(wb_outbox_enqueue(d.box, &m, NULL, &d.err), d.err);
    fake_clock_advance_ms(10);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(1, d.report.ended);
    CHECK_INT(0, d.fake.sent);
    fixture_close(&d);
}

/* ---- O-6, routes ------------------------------------------------------- */

TEST(test_route__O6_no_route__left_waiting)
{
    struct fixture d;
    struct wb_id id;

    fixture_open(&d);
    fixture_start(&d, 1);
    id = put(&d, "other", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.fake.sent);
    CHECK_INT(0, state_of(&d, id).attempts);
    CHECK_INT(WB_STATE_PENDING, state_of(&d, id).state);
    fixture_close(&d);
}

TEST(test_route__several_fit__longest_wins)
{
    struct fixture d;

    fixture_open(&d);
    d.route[0].kind = "*";
    d.route[1] = (struct wb_route){.kind = "git.*", .transport = &d.fake.base};
    d.route[2] =
        (struct wb_route){.kind = "git.push", .transport = &d.fake.base};
    fixture_start(&d, 3);
    CHECK_TEXT("git.push",
        wb__route_state_of(d.relay, WB_LIT("git.push"))->route->kind);
    CHECK_TEXT(
        "git.*", wb__route_state_of(d.relay, WB_LIT("git.pull"))->route->kind);
    CHECK_TEXT("*", wb__route_state_of(d.relay, WB_LIT("gi"))->route->kind);
    put(&d, "x", "1");
    put(&d, "git.push", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    fixture_close(&d);
}

TEST(test_route__wrong__refused_with_its_name)
{
    static const struct wb_retry_policy long_one = {
        86400000, 86400000, 0, 1, 9, false, NULL, 0};
    struct wb_relay_opts opts = {.env = ENV};
    struct fixture d;

    fixture_open(&d);
    opts.routes = d.route;
    opts.n_routes = 2;
    opts.loop = &d.loop;
    d.route[1] = d.route[0];
    CHECK_STATUS(INVALID, wb_relay_new(&d.relay, d.box, &opts, &d.err));
    CHECK_HAS("two routes are named \"a\"", d.err.msg);
    opts.n_routes = 1;
    d.route[0].batch = 65;
    CHECK_STATUS(INVALID, wb_relay_new(&d.relay, d.box, &opts, &d.err));
    CHECK_HAS("the most is 64", d.err.msg);
    d.route[0].batch = 0;
    d.route[0].retry = &long_one; /* O-4: 8 d of retries, ids kept 7 d */
    CHECK_STATUS(INVALID, wb_relay_new(&d.relay, d.box, &opts, &d.err));
    CHECK_HAS("keep_delivered", d.err.msg);
    d.route[0].retry = NULL;
    fixture_start(&d, 1);
    fixture_close(&d);
}

/* ---- B-3 --------------------------------------------------------------- */

TEST(test_drain__B3_dead_endpoint__others_go_on)
{
    struct fixture d;
    struct fake dead;

    fixture_open(&d);
    dead = d.fake;
    dead.outcome = WB_RETRY;
    d.route[0].concurrency = 1;
    d.route[0].transport = &dead.base;
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    fixture_start(&d, 2);
    for (int i = 0; i < 10; i++)
        put(&d, "a", "x");
    for (int i = 0; i < 10; i++)
        put(&d, "b", "y");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, dead.sent); /* then its breaker opened */
    CHECK_INT(10, d.fake.sent);
    CHECK_INT(1, d.report.breakers_open);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(WB_DRAIN_BREAKER_OPEN, d.report.why);
    CHECK_INT(3, dead.sent);
    fixture_close(&d);
}

/* ---- O-16 -------------------------------------------------------------- */

static void
put_lane(struct fixture *d, const char *kind, int64_t expires_ms)
{
    struct wb_message m = {.kind = wb_slice(kind),
        .payload = WB_LIT("x"),
        .lane = WB_LIT("l"),
        .expires_ms = expires_ms};

    CHECK_OK(wb_outbox_enqueue(d->box, &m, NULL, &d->err), d->err);
}

/* The next of a lane may be of a kind that had nothing to give before. */
TEST(test_drain__O16_next_is_of_another_kind__goes_in_the_same_pass)
{
    struct fixture d;

    fixture_open(&d);
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    fixture_start(&d, 2);
    put_lane(&d, "a", 0);
    put_lane(&d, "b", 0);
    put_lane(&d, "a", 0);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, d.report.confirmed);
    fixture_close(&d);
}

TEST(test_drain__O16_head_expired__next_of_another_kind_goes)
{
    struct fixture d;

    fixture_open(&d);
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    fixture_start(&d, 2);
    put_lane(&d, "a", FAKE_START_MS + 1);
    put_lane(&d, "b", 0);
    fake_clock_advance_ms(2);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.ended);
    CHECK_INT(1, d.report.confirmed);
    fixture_close(&d);
}

/* ---- T-2 --------------------------------------------------------------- */

static void
judge(void *ctx, const struct wb_claimed *message, struct wb_result *result,
    struct wb_tally *tally)
{
    (void)ctx;
    if (wb__eq(result->body, WB_LIT("{\"recorded\":false}"))) {
        result->outcome = WB_REJECTED;
        result->error = WB_LIT("not recorded");
        return;
    }
    wb_tally_add(tally, "uploaded", 1);
    wb_tally_add(tally, message->payload.ptr[0] == '1' ? "one" : "other", 1);
}

TEST(test_drain__T2_response_rule__rejects_and_counts)
{
    struct fixture d;

    fixture_open(&d);
    d.route[0].judge = judge;
    d.fake.status = 200;
    d.fake.body = "{\"recorded\":true}";
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, d.report.n_tally);
    CHECK_TEXT("one", d.report.tally[0].name);
    CHECK_TEXT("uploaded", d.report.tally[2].name);
    CHECK_INT(2, d.report.tally[2].n);
    d.fake.body = "{\"recorded\":false}";
    put(&d, "a", "3");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(0, d.report.n_tally);
    fixture_close(&d);
}

TEST(test_drain__R3_gone__kind_paused_where_the_route_says)
{
    struct fixture d;
    struct wb_batch batch = {0};
    struct wb_claim claim = {.max = 1};

    fixture_open(&d);
    d.route[0].disable_on_410 = true;
    d.fake.outcome = WB_REJECTED;
    d.fake.status = 410;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    put(&d, "a", "2");
    CHECK_STATUS(EMPTY, wb_outbox_claim(d.box, &claim, &batch, &d.err));
    wb_batch_free(&batch);
    fixture_close(&d);
}

/* ---- the note ---------------------------------------------------------- */

/* 429 or 503 with Retry-After is about the destination. */
static void
check_rest(int status, bool is_free)
{
    struct fixture d;
    struct wb_id id[2];

    fixture_open(&d);
    d.route[0].concurrency = 1;
    d.route[0].busy_is_free = is_free;
    d.fake.outcome = WB_RETRY;
    d.fake.status = status;
    d.fake.retry_after_ms = 120000;
    fixture_start(&d, 1);
    id[0] = put(&d, "a", "0");
    id[1] = put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(1, d.report.retried);
    CHECK_INT(is_free ? 0 : 1, state_of(&d, id[0]).attempts);
    CHECK_INT(0, state_of(&d, id[1]).attempts);
    fake_clock_advance_ms(119999);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(WB_DRAIN_BREAKER_OPEN, d.report.why);
    fake_clock_advance_ms(1);
    d.fake.outcome = WB_DELIVERED;
    d.fake.status = 200;
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    fixture_close(&d);
}

TEST(test_drain__R3_429_with_retry_after__scope_rests)
{
    check_rest(429, false);
}

TEST(test_drain__R3_503_with_retry_after_and_free__no_attempt_used)
{
    check_rest(503, true);
}

/* Without an end to the rest, or with another status, it is that message's. */
TEST(test_drain__R3_retry_after_of_another_status__only_that_message_waits)
{
    struct fixture d;

    fixture_open(&d);
    d.route[0].concurrency = 1;
    d.fake.outcome = WB_RETRY;
    d.fake.status = 500;
    d.fake.retry_after_ms = 120000;
    fixture_start(&d, 1);
    put(&d, "a", "0");
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.fake.sent);
    CHECK_INT(0, d.report.breakers_open);
    fixture_close(&d);
}

TEST(test_drain__O15_last_drain__reported_without_the_database)
{
    char text[1024];
    struct fixture d;

    fixture_open(&d);
    fixture_start(&d, 1);
    CHECK_STATUS(
        NOTFOUND, wb_relay_last(test_db_url(), text, sizeof(text), &d.err));
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    fixture_close(&d);
    if (!test_on_pg())
        test_write("box.db", "rubbish", 7);
    CHECK_OK(wb_relay_last(test_db_url(), text, sizeof(text), &d.err), d.err);
    CHECK_HAS("\"confirmed\":1", text);
    CHECK_STATUS(TOOBIG, wb_relay_last(test_db_url(), text, 10, &d.err));
}

/* ---- memory ------------------------------------------------------------ */

/* Whatever runs out of memory, nothing is lost: what was sent and not noted is
 * sent again with the same id. */
TEST(test_drain__any_alloc_fails__nothing_lost)
{
    struct wb_drain options = {0};
    struct fixture d;
    struct wb_id id;
    long n;

    fixture_open(&d);
    fixture_start(&d, 1);
    for (n = 0;; n++) {
        enum wb_status rc;

        id = put(&d, "a", "x");
        fake_alloc_fail_at(n);
        rc = wb_relay_drain(d.relay, &options, &d.report, &d.err);
        if (fake_env.failed == 0)
            break;
        fake_alloc_fail_at(-1);
        CHECK(rc == WB_OK || rc == WB_NOMEM);
        fake_clock_advance_ms(61000);
        drain(&d, (struct wb_drain){0});
        CHECK_STATUS(NOTFOUND, wb_outbox_show(d.box, wb_slice(id.text),
                                   on_state, &(struct wb_row){0}, NULL));
    }
    fake_alloc_fail_at(-1);
    CHECK(n > 5);
    fixture_close(&d);
}

static void
no_memory_after_first(struct fake *f)
{
    if (f->sent == 2)
        fake_alloc_fail_at(0);
}

/* A pass that fails still reports the outcomes it has. */
TEST(test_drain__no_memory_for_the_next__deliveries_are_reported)
{
    struct wb_drain options = {0};
    struct fixture d;
    struct wb_id id;

    fixture_open(&d);
    d.fake.on_send = no_memory_after_first;
    fixture_start(&d, 1);
    put(&d, "a", "0");
    drain(&d, options);
    id = put(&d, "a", "1");
    put(&d, "a", "2");
    CHECK_STATUS(NOMEM, wb_relay_drain(d.relay, &options, &d.report, &d.err));
    fake_alloc_fail_at(-1);
    CHECK_INT(2, d.fake.sent);
    CHECK_INT(1, d.report.confirmed);
    CHECK_STATUS(NOTFOUND, wb_outbox_show(d.box, wb_slice(id.text), on_state,
                               &(struct wb_row){0}, NULL));
    fixture_close(&d);
}

TEST(test_drain__no_resource__released_to_rest_and_no_attempt) /* O-10 */
{
    struct fixture d;

    fixture_open(&d);
    d.fake.outcome = WB_RETRY;
    d.fake.no_resource = true;
    d.fake.error = "transport: too many open files";
    fixture_start(&d, 1);
    for (int i = 0; i < 20; i++)
        put(&d, "a", "1");
    for (int i = 0; i < 10; i++) {
        drain(&d, (struct wb_drain){0});
        CHECK_INT(20, d.report.released);
        CHECK_INT(0, d.report.retried);
        drain(&d, (struct wb_drain){0});
        CHECK_INT(0, d.report.attempted); /* not before it has rested */
        fake_clock_advance_ms(1000);
    }
    d.fake.outcome = WB_DELIVERED;
    d.fake.sent = 0;
    drain(&d, (struct wb_drain){0});
    CHECK_INT(20, d.report.confirmed);
    CHECK_INT(1, d.fake.attempts[0]);
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_drain__D1_three_due__each_delivered_once),
        RUN(test_drain__D1_immediate_retry__once_a_pass),
        RUN(test_drain__D1_max_and_kind__no_more_than_asked),
        RUN(test_drain__D1_not_ready__nothing_touched),
        RUN(test_drain__D1_all_outcomes__counters_are_disjoint),
        RUN(test_drain__ended_on_the_way__counted_apart),
        RUN(test_route__O6_no_route__left_waiting),
        RUN(test_route__several_fit__longest_wins),
        RUN(test_route__wrong__refused_with_its_name),
        RUN(test_drain__B3_dead_endpoint__others_go_on),
        RUN(test_drain__O16_next_is_of_another_kind__goes_in_the_same_pass),
        RUN(test_drain__O16_head_expired__next_of_another_kind_goes),
        RUN(test_drain__T2_response_rule__rejects_and_counts),
        RUN(test_drain__R3_gone__kind_paused_where_the_route_says),
        RUN(test_drain__R3_429_with_retry_after__scope_rests),
        RUN(test_drain__R3_503_with_retry_after_and_free__no_attempt_used),
        RUN(test_drain__R3_retry_after_of_another_status__only_that_message_waits),
        RUN(test_drain__O15_last_drain__reported_without_the_database),
        RUN(test_drain__no_resource__released_to_rest_and_no_attempt),
        RUN(test_drain__any_alloc_fails__nothing_lost),
        RUN(test_drain__no_memory_for_the_next__deliveries_are_reported),
    };

    return RUN_ALL(tests);
}
