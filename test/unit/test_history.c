/* test_history.c - the last attempts of a message that failed, when it ended,
 * and a message about each one that is abandoned. */
#include <stdio.h>

#include "outbox_fixture.h"

static const char *
log_of(const struct wb_id *id)
{
    char sql[128];

    (void)snprintf(sql, sizeof(sql),
        "SELECT attempts_log FROM waybill_outbox WHERE id = '%s'", id->text);
    return sql_text(sql);
}

/* Claim it when it is due, and fail. */
static void
fail_once(struct wb_outbox *box, const char *error)
{
    static const struct wb_retry_policy often = {
        .base_ms = 10, .cap_ms = 10, .factor = 1, .max_attempts = 100};
    static const struct wb_breaker_policy never = {
        .failures = 1000, .open_ms = 1};
    struct wb_source source = {.kind = S("a"), .max_attempts = 100};
    struct wb_claim claim = {.sources = &source, .n_sources = 1};
    struct wb_batch batch = {0};
    struct wb_finish f = {.outcome = WB_RETRY,
        .error = S(error),
        .retry = &often,
        .breaker = &never};
    struct wb_err err = {0};

    fake_clock_advance_ms(1000);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    f.id = batch.row[0].id;
    f.token = batch.row[0].token;
    wb_batch_free(&batch);
    fake_clock_advance_ms(7);
    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
}

TEST(test_history__attempts_fail__kept_with_time_duration_status_and_error)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");
    char want[256];

    CHECK_TEXT("NULL", log_of(&id));
    fail_once(box, "503 Service Unavailable");
    fail_once(box, "transport: timeout\n after 3 s");
    (void)snprintf(want, sizeof(want),
        "%lld 7 retry 503 503 Service Unavailable\n"
        "%lld 7 retry 0 transport: timeout after 3 s\n",
        (long long)(FAKE_START_MS + 1000), (long long)(FAKE_START_MS + 2007));
    CHECK_TEXT(want, log_of(&id));
    wb_outbox_close(box);
}

TEST(test_history__many_attempts__the_last_ten_are_kept)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");
    char error[4000];
    const char *line;
    int n = 0;

    for (int i = 0; i < 25; i++) {
        memset(error, 'a' + i, sizeof(error));
        error[sizeof(error) - 1] = '\0';
        fail_once(box, error);
    }
    for (line = log_of(&id); (line = strchr(line, '\n')) != NULL; line++)
        n++;
    CHECK_INT(10, n);
    CHECK_HAS("yyyy\n", log_of(&id)); /* the 25th */
    CHECK_HAS("pppp\n", log_of(&id)); /* the 16th */
    CHECK(strstr(log_of(&id), "oooo") == NULL);
    wb_outbox_close(box);
}

/* A reply that the caller knows better, and a log that none of ours wrote. */
TEST(test_history__given_times_and_foreign_log__bounded_all_the_same)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");
    struct taken t = box_claim(box, NULL);
    struct wb_finish f = {.id = t.id,
        .token = t.token,
        .outcome = WB_UNKNOWN,
        .began_ms = FAKE_START_MS - 5,
        .reply_status = 207,
        .error = S("400 x")};
    struct wb_err err = {0};
    char want[64];

    sql_run("UPDATE waybill_outbox SET attempts_log = 'none of ours'");
    for (int i = 0; i < 13; i++)
        sql_run("UPDATE waybill_outbox SET attempts_log ="
                " attempts_log || attempts_log");
    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    (void)snprintf(want, sizeof(want), "%lld 5 unknown 207 400 x\n",
        (long long)(FAKE_START_MS - 5));
    CHECK_TEXT(want, log_of(&id));
    wb_outbox_close(box);
}

TEST(test_history__healthy_path__nothing_is_written)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted a =
        box_send(box, (struct wb_message){.kind = S("a"), .key = S("k")});
    struct taken t = box_claim(box, NULL);

    box_confirm(box, &t);
    CHECK_TEXT("NULL", log_of(&a.id));
    wb_outbox_close(box);
}

static struct wb_row shown;

static enum wb_status
keep_row(void *ctx, const struct wb_row *row)
{
    (void)ctx;
    shown = *row;
    shown.attempts_log.len = row->attempts_log.len;
    return WB_OK;
}

TEST(test_history__ended__when_it_was_abandoned_or_delivered)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted a =
        box_send(box, (struct wb_message){.kind = S("a"), .key = S("k")});
    struct wb_select all = {0};
    struct wb_selected did;
    struct wb_err err = {0};
    struct taken t;

    fake_clock_advance_ms(5);
    t = box_claim(box, NULL);
    box_abandon(box, &t);
    CHECK_OK(wb_outbox_show(box, S(a.id.text), keep_row, NULL, &err), err);
    CHECK_INT(fake_env.wall_ms, shown.ended_ms);
    CHECK_OK(wb_outbox_redrive(box, &all, &did, NULL, NULL, &err), err);
    CHECK_OK(wb_outbox_show(box, S(a.id.text), keep_row, NULL, &err), err);
    CHECK_INT(0, shown.ended_ms);
    CHECK(shown.attempts_log.len > 0);
    fail_once(box, "x");
    fake_clock_advance_ms(1000);
    t = box_claim(box, NULL);
    box_confirm(box, &t);
    CHECK_OK(wb_outbox_show(box, S(a.id.text), keep_row, NULL, &err), err);
    CHECK_INT(fake_env.wall_ms, shown.ended_ms);
    CHECK_HAS(" delivered 0 \n", log_of(&a.id));
    wb_outbox_close(box);
}

/* ---- messages about abandoned ones --------------------------------------- */

static struct wb_outbox *
box_with_alerts(void)
{
    return box_open_with(
        (struct wb_outbox_opts){.on_abandoned = S("ops.alert")});
}

TEST(test_history__abandoned__a_message_about_it_in_the_same_transaction)
{
    struct wb_outbox *box = box_with_alerts();
    struct wb_accepted a =
        box_send(box, (struct wb_message){
                          .kind = S("a"), .key = S("k \"1\""), .lane = S("l")});
    struct taken t = box_claim(box, NULL);
    char want[512];

    box_abandon(box, &t);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    t = box_claim(box, "ops.alert");
    (void)snprintf(want, sizeof(want),
        "{\"attempts\":1,\"id\":\"%s\",\"kind\":\"a\",\"key\":\"k \\\"1\\\"\","
        "\"lane\":\"l\",\"reason\":\"rejected\","
        "\"last_error\":\"500 Internal Server Error\"}",
        a.id.text);
    CHECK_TEXT(want, t.payload);
    /* One about it is not sent about. */
    box_abandon(box, &t);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* The claim abandons as well; nulls are null. */
TEST(test_history__expired__a_message_about_it)
{
    struct wb_outbox *box = box_with_alerts();
    struct taken t;

    (void)box_send(box,
        (struct wb_message){.kind = S("a"), .expires_ms = FAKE_START_MS + 1});
    fake_clock_advance_ms(2);
    (void)box_claim_none(box, NULL); /* it abandons */
    t = box_claim(box, NULL);
    CHECK_TEXT("ops.alert", t.kind);
    CHECK_HAS("\"key\":null,\"lane\":null,\"reason\":\"expired\","
              "\"last_error\":null}",
        t.payload);
    wb_outbox_close(box);
}

TEST(test_history__on_abandoned_is_no_kind__invalid)
{
    struct wb_outbox_opts opts = {.env = ENV, .on_abandoned = S("A b")};
    struct wb_outbox *box = NULL;

    CHECK_STATUS(INVALID, wb_outbox_open(&box, test_db_url(), &opts, NULL));
    CHECK(box == NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_history__attempts_fail__kept_with_time_duration_status_and_error),
        RUN(test_history__many_attempts__the_last_ten_are_kept),
        RUN(test_history__given_times_and_foreign_log__bounded_all_the_same),
        RUN(test_history__healthy_path__nothing_is_written),
        RUN(test_history__ended__when_it_was_abandoned_or_delivered),
        RUN(test_history__abandoned__a_message_about_it_in_the_same_transaction),
        RUN(test_history__expired__a_message_about_it),
        RUN(test_history__on_abandoned_is_no_kind__invalid),
    };
    return RUN_ALL(tests);
}
