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
        RUN(test_batch__T4_other_reply_cut_off__delivered),
        RUN(test_batch__T4_whole_fails__all_share_the_outcome),
        RUN(test_batch__sent_again__same_id),
        RUN(test_batch__hook_for_the_results__decides_or_leaves_it_or_all_are_unknown),
    };

    return RUN_ALL(tests);
}
