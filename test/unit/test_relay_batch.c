/* Batches: several messages in one request (T-4). */
#include "relay_fixture.h"

/* ---- T-4 --------------------------------------------------------------- */

static void
batch_fixture(struct fixture *d)
{
    fixture_open(d);
    d->route[0].batch = 3;
    d->fake.status = 200;
    d->fake.body = "ok";
}

TEST(test_batch__T4_array__bodies_in_order_with_their_ids)
{
    struct fixture d;
    struct wb_id id[5];
    char want[256];

    batch_fixture(&d);
    fixture_start(&d, 1);
    for (int i = 0; i < 5; i++)
        id[i] = put(&d, "a", i == 0 ? "{\"n\":0}" : "[1]");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(5, d.report.confirmed);
    CHECK_INT(2, d.fake.sent);
    CHECK_TEXT("[{\"n\":0},[1],[1]]", d.fake.bodies[0]);
    CHECK_TEXT("[[1],[1]]", d.fake.bodies[1]);
    snprintf(
        want, sizeof(want), "%s,%s,%s", id[0].text, id[1].text, id[2].text);
    CHECK_TEXT(want, d.fake.batch_ids[0]);
    fixture_close(&d);
}

TEST(test_batch__T4_ndjson__one_line_each)
{
    struct fixture d;

    batch_fixture(&d);
    d.route[0].batch_ndjson = true;
    fixture_start(&d, 1);
    put(&d, "a", "{\"n\":0}");
    put(&d, "a", "{\n \"n\" : 0.1\r\n}"); /* and never 0.10000000000000001 */
    drain(&d, (struct wb_drain){0});
    CHECK_TEXT("{\"n\":0}\n{  \"n\" : 0.1  }\n", d.fake.bodies[0]);
    fixture_close(&d);
}

TEST(test_batch__T4_one_is_no_json__it_fails_alone)
{
    struct fixture d;
    struct wb_id bad;

    batch_fixture(&d);
    fixture_start(&d, 1);
    put(&d, "a", "1");
    bad = put(&d, "a", "{nonsense");
    put(&d, "a", "3");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK_INT(1, d.report.rejected);
    CHECK_TEXT("[1,3]", d.fake.bodies[0]);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, bad).state);
    fixture_close(&d);
}

TEST(test_batch__T4_results_per_item__each_has_its_own_end)
{
    struct fixture d;
    struct wb_id id[3];

    batch_fixture(&d);
    d.fake.body = "{\"results\":[{\"status\":201},{\"status\":503},"
                  "{\"error\":\"no such team\"}]}";
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        id[i] = put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.confirmed);
    CHECK_INT(1, d.report.retried);
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(WB_STATE_PENDING, state_of(&d, id[1]).state);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, id[2]).state);
    fixture_close(&d);
}

static enum wb_status
second_is_bad(void *ctx, const struct wb_claimed *const *message, size_t n,
    const struct wb_result *response, struct wb_result *result,
    struct wb_err *err)
{
    (void)ctx;
    CHECK_INT(3, n);
    CHECK_SLICE("[1,1,1]", response->body);
    CHECK_SLICE("2", message[1]->payload);
    if (response->status == 207)
        return wb__fail(err, WB_INVALID, 0, "cannot read it");
    result[1].outcome = WB_REJECTED;
    result[1].error = wb_slice("bad");
    return response->status == 201 ? WB_NOTFOUND : WB_OK;
}

TEST(test_batch__hook_for_the_results__decides_or_leaves_it_or_all_are_unknown)
{
    static const int status[] = {200, 201, 207};

    for (size_t i = 0; i < WB_COUNT(status); i++) {
        struct fixture d;

        batch_fixture(&d);
        d.fake.body = "[1,1,1]";
        d.fake.status = status[i];
        d.route[0].results = second_is_bad;
        fixture_start(&d, 1);
        for (int k = 1; k <= 3; k++)
            put(&d, "a", k == 2 ? "2" : "1");
        drain(&d, (struct wb_drain){0});
        CHECK_INT(i == 0 ? 2 : i == 1 ? 3 : 0, d.report.confirmed);
        CHECK_INT(i == 0 ? 1 : 0, d.report.rejected);
        CHECK_INT(i == 2 ? 3 : 0, d.report.retried);
        fixture_close(&d);
    }
}

/* Larger than what Waybill reads numbers into. */
#define LARGE "18446744073709551615"

TEST(test_batch__T4_integer_past_64_bits__sent_as_it_came)
{
    struct fixture d;

    batch_fixture(&d);
    fixture_start(&d, 1);
    put(&d, "a", LARGE);
    put(&d, "a", "[1]");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK_TEXT("[" LARGE ",[1]]", d.fake.bodies[0]);
    fixture_close(&d);
}

/* What fails beside such a number has failed. */
TEST(test_batch__T4_results_with_such_numbers__each_has_its_own_end)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.body = "[{\"status\":201,\"id\":" LARGE "},{\"status\":503},"
                  "{\"status\":" LARGE "}]";
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.confirmed);
    CHECK_INT(1, d.report.retried);
    CHECK_INT(1, d.report.rejected);
    fixture_close(&d);
}

TEST(test_batch__T4_status_that_is_none__rejected)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.body = "[{\"status\":4294967496}]"; /* 200, cut to 32 bits */
    fixture_start(&d, 1);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.rejected);
    fixture_close(&d);
}

/* The outcome of each is unknown: sent again, not counted as delivered. */
TEST(test_batch__T4_results_cut_off__unknown)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.body = " [{\"status\":503,\"error\":\"a long st";
    d.fake.cut = true;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.confirmed);
    CHECK_INT(2, d.report.retried);
    fixture_close(&d);
}

/* What was meant to be read and cannot be is never delivered. */
TEST(test_batch__T4_reply_that_cannot_be_read__unknown)
{
    static const struct {
        const char *body;
        bool coded, json;
        int confirmed;
    } cases[] = {
        {"\x1f\x8b\x08", true, true, 0},
        {"ok", false, false, 2}, /* sets the breaker back */
        {"{'results':[]}", false, false, 0},
        {"", true, true, 2},
        {"not json", false, true, 0},
        {"done", false, false, 2},
        {"\xef\xbb\xbf[{\"status\":503},{\"status\":200}]", false, true, 1},
        {"\xef\xbb\xbf[{\"status\":503}", false, false, 0},
    };

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        struct fixture d;

        batch_fixture(&d);
        d.fake.body = cases[i].body;
        d.fake.coded = cases[i].coded;
        d.fake.json = cases[i].json;
        fixture_start(&d, 1);
        put(&d, "a", "1");
        put(&d, "a", "2");
        drain(&d, (struct wb_drain){0});
        CHECK_INT(cases[i].confirmed, d.report.confirmed);
        CHECK_INT(2 - cases[i].confirmed, d.report.retried);
        fixture_close(&d);
    }
}

/* A failure that a reply tells of in whatever form is not a delivery. */
TEST(test_batch__T4_failure_in_another_form__not_delivered)
{
    static const struct {
        const char *body;
        int confirmed, rejected;
    } cases[] = {
        {"[{\"status\":\"200\"},{\"status\":\"422\"}]", 1, 1},
        {"[{\"status\":\"200\"},{\"status\":\"503\"}]", 1, 0},
        {"[{\"status\":\"error\"},{\"ok\":true,\"status\":\"done\"}]", 1, 0},
        {"[{\"status\":{\"code\":500}},{\"status\":null}]", 1, 0},
        {"[200,422]", 1, 0},
        {"[true,false]", 1, 1},
        {"[7,\"01\"]", 2, 0},
        {"[null,{}]", 2, 0},
        {"[{\"status\":422}]", 0, 0},
        {"[{\"status\":200}]", 2, 0}, /* sets the breaker back */
        {"[{\"status\":200},{\"status\":200},{\"ok\":false}]", 0, 0},
        {"{\"results\":[{\"id\":\"x\",\"error\":\"no such team\"}]}", 0, 0},
        {"[]", 2, 0},
        {"{\"results\":[]}", 2, 0},
    };

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        struct fixture d;

        batch_fixture(&d);
        d.fake.body = cases[i].body;
        fixture_start(&d, 1);
        put(&d, "a", "1");
        put(&d, "a", "2");
        drain(&d, (struct wb_drain){0});
        CHECK_INT(cases[i].confirmed, d.report.confirmed);
        CHECK_INT(cases[i].rejected, d.report.rejected);
        CHECK_INT(2 - cases[i].confirmed - cases[i].rejected, d.report.retried);
        fixture_close(&d);
    }
}

TEST(test_batch__T4_other_reply_cut_off__delivered)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.body = "<html>[";
    d.fake.cut = true;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.confirmed);
    fixture_close(&d);
}

TEST(test_batch__T4_whole_fails__all_share_the_outcome)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.outcome = WB_UNKNOWN;
    fixture_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(3, d.report.retried);
    fixture_close(&d);
}

/* The same messages together are the same request again. */
TEST(test_batch__sent_again__same_id)
{
    static const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;
    struct fixture d;

    batch_fixture(&d);
    d.route[0].retry = &now;
    d.fake.outcome = WB_RETRY;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    fake_clock_advance_ms(2);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.fake.sent);
    CHECK_TEXT(d.fake.ids[0], d.fake.ids[1]);
    fixture_close(&d);
}

/* ---- trouble stays with its cause -------------------------------------- */

/* The receiver rejects each request that has a 0, and takes the others. */
static void
reject_zero(struct fake *f)
{
    bool bad = strstr(f->bodies[f->sent - 1], "0") != NULL;

    f->outcome = bad ? WB_REJECTED : WB_DELIVERED;
    f->status = bad ? 413 : 200;
}

static void
split_fixture(struct fixture *d, bool with_loop)
{
    batch_fixture(d);
    d->route[0].batch = 8;
    d->fake.loop = with_loop ? &d->loop : NULL;
    d->fake.on_send = reject_zero;
    fixture_start(d, 1);
}

static void
check_split(bool with_loop)
{
    struct fixture d;
    struct wb_id id[8];

    split_fixture(&d, with_loop);
    for (int i = 0; i < 8; i++)
        id[i] = put(&d, "a", i == 5 ? "0" : "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(7, d.report.confirmed);
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(8, d.report.attempted);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, id[5]).state);
    CHECK_INT(7, d.fake.sent); /* 8; 4, 4; 2, 2; 1, 1 */
    fixture_close(&d);
}

TEST(test_batch__one_rejects_the_request__split_until_it_is_alone)
{
    check_split(false);
    check_split(true);
}

/* A response rule that rejects all of them says as little about each. */
static void
judge_zero(void *ctx, const struct wb_claimed *message,
    struct wb_result *result, struct wb_tally *tally)
{
    (void)message;
    if (((struct fake *)ctx)->status != 299)
        return;
    result->outcome = WB_REJECTED;
    wb_tally_add(tally, "bad", 1);
}

static void
refuse_zero(struct fake *f)
{
    f->status = strstr(f->bodies[f->sent - 1], "0") != NULL ? 299 : 200;
}

TEST(test_batch__rule_rejects_all__split_and_counted_once)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.on_send = refuse_zero;
    d.route[0].judge = judge_zero;
    d.route[0].ctx = &d.fake;
    fixture_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "0");
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(1, d.report.n_tally);
    CHECK_INT(1, d.report.tally[0].n);
    fixture_close(&d);
}

/* Killed between the halves: nothing is lost, and no attempt but that one. */
TEST(test_batch__killed_while_split__all_are_still_claimed)
{
    struct fixture d;
    struct wb_id id[4];

    split_fixture(&d, true);
    for (int i = 0; i < 4; i++)
        id[i] = put(&d, "a", i == 0 ? "0" : "1");
    begin(&d, 1);
    cycle(&d);
    while (d.fake.sent < 2)
        uv_run(&d.loop, UV_RUN_ONCE);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(WB_STATE_PROCESSING, state_of(&d, id[i]).state);
        CHECK_INT(1, state_of(&d, id[i]).attempts);
    }
    while (d.relay->n_in_flight > 0 || wb__outcomes_left(d.relay) > 0) {
        cycle(&d);
        uv_run(&d.loop, UV_RUN_NOWAIT);
    }
    CHECK_INT(3, d.relay->report.confirmed);
    CHECK_INT(1, d.relay->report.rejected);
    fixture_close(&d);
}

TEST(test_batch__split_and_any_alloc_fails__nothing_lost)
{
    struct wb_drain all = {0};
    struct fixture d;
    long n;

    split_fixture(&d, false);
    for (n = 0;; n++) {
        struct wb_id good;
        uint64_t failed;

        d.fake.sent = 0;
        put(&d, "a", "0");
        good = put(&d, "a", "1");
        put(&d, "a", "1");
        fake_alloc_fail_at(n);
        (void)(wb_relay_drain(d.relay, &all, &d.report, &d.err) == WB_OK);
        failed = fake_env.failed;
        fake_alloc_fail_at(-1);
        for (int i = 0; i < 4 && failed > 0; i++) {
            d.fake.sent = 0;
            fake_clock_advance_ms(61000);
            drain(&d, all);
        }
        CHECK_STATUS(NOTFOUND, wb_outbox_show(d.box, wb_slice(good.text),
                                   on_state, &(struct wb_row){0}, NULL));
        if (failed == 0)
            break;
    }
    CHECK(n > 5);
    fixture_close(&d);
}

TEST(test_batch__failed_request__one_failure_for_the_breaker)
{
    struct fixture d;

    batch_fixture(&d);
    d.fake.outcome = WB_RETRY;
    fixture_start(&d, 1);
    for (int i = 0; i < 6; i++)
        put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.fake.sent);
    CHECK_INT(6, d.report.retried);
    CHECK_INT(0, d.report.breakers_open);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.breakers_open);
    fixture_close(&d);
}

TEST(test_batch__byte_limit__next_request)
{
    struct fixture d;

    batch_fixture(&d);
    d.route[0].batch_bytes = 8;
    fixture_start(&d, 1);
    put(&d, "a", "[1,2]");
    put(&d, "a", "3");
    put(&d, "a", "[4,5]");
    put(&d, "a", "[6,7,8,9,10]"); /* too large in itself: alone */
    put(&d, "a", "11");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(5, d.report.confirmed);
    CHECK_TEXT("[[1,2],3]", d.fake.bodies[0]);
    CHECK_TEXT("[[4,5]]", d.fake.bodies[1]);
    CHECK_TEXT("[[6,7,8,9,10]]", d.fake.bodies[2]);
    CHECK_TEXT("[11]", d.fake.bodies[3]);
    fixture_close(&d);
}

/* One that makes the receiver fail takes no other with it. */
TEST(test_batch__last_attempt__made_alone)
{
    static const struct wb_retry_policy twice = {
        .factor = 1, .max_attempts = 2};
    struct fixture d;

    batch_fixture(&d);
    d.route[0].retry = &twice;
    d.fake.script[0] = d.fake.script[1] = WB_RETRY;
    d.fake.n_script = 2;
    fixture_start(&d, 1);
    put(&d, "a", "0");
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    fake_clock_advance_ms(2);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.abandoned);
    CHECK_INT(2, d.report.confirmed);
    CHECK_TEXT("[1]", d.fake.bodies[2]);
    fixture_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_batch__T4_array__bodies_in_order_with_their_ids),
        RUN(test_batch__T4_ndjson__one_line_each),
        RUN(test_batch__T4_one_is_no_json__it_fails_alone),
        RUN(test_batch__T4_results_per_item__each_has_its_own_end),
        RUN(test_batch__T4_integer_past_64_bits__sent_as_it_came),
        RUN(test_batch__T4_results_with_such_numbers__each_has_its_own_end),
        RUN(test_batch__T4_status_that_is_none__rejected),
        RUN(test_batch__T4_results_cut_off__unknown),
        RUN(test_batch__T4_reply_that_cannot_be_read__unknown),
        RUN(test_batch__T4_failure_in_another_form__not_delivered),
        RUN(test_batch__T4_other_reply_cut_off__delivered),
        RUN(test_batch__T4_whole_fails__all_share_the_outcome),
        RUN(test_batch__sent_again__same_id),
        RUN(test_batch__hook_for_the_results__decides_or_leaves_it_or_all_are_unknown),
        RUN(test_batch__one_rejects_the_request__split_until_it_is_alone),
        RUN(test_batch__rule_rejects_all__split_and_counted_once),
        RUN(test_batch__killed_while_split__all_are_still_claimed),
        RUN(test_batch__split_and_any_alloc_fails__nothing_lost),
        RUN(test_batch__failed_request__one_failure_for_the_breaker),
        RUN(test_batch__byte_limit__next_request),
        RUN(test_batch__last_attempt__made_alone),
    };

    return RUN_ALL(tests);
}
