/* test_clock.c - a wall clock that is wrong, and is corrected: what was written
 * under it waits no longer than it should, and nothing is forgotten too early.
 *
 * fake_clock_advance_ms() moves the wall clock and the monotonic one: time
 * passes. To move the wall clock alone is to set it. */
#include <stdio.h>

#include "outbox_fixture.h"

#define HOUR INT64_C(3600000)

static void
set_clock(int64_t by_ms)
{
    fake_env.wall_ms += by_ms;
}

static struct wb_health
health(struct wb_outbox *box)
{
    struct wb_health h;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    return h;
}

/* Another process, which has seen no time pass. */
static void
reopen(struct wb_outbox **box)
{
    wb_outbox_close(*box);
    *box = box_open();
}

static struct wb_message
keyed(const char *key)
{
    return (struct wb_message){
        .kind = S("a"), .key = S(key), .payload = S("{}")};
}

static void
deliver(struct wb_outbox *box)
{
    struct taken t = box_claim(box, NULL);

    box_confirm(box, &t);
}

/* ---- due times --------------------------------------------------------- */

TEST(test_clock__accepted_while_it_was_ahead__delivered_when_it_is_right)
{
    static const int64_t ahead[] = {2 * 60000, HOUR, 10 * DAY, 3650 * DAY};

    for (size_t i = 0; i < sizeof(ahead) / sizeof(ahead[0]); i++) {
        struct wb_outbox *box = box_open();

        set_clock(ahead[i]);
        (void)box_put(box, "a");
        (void)box_put_lane(box, "a", "l");
        (void)box_put_lane(box, "a", "l");
        set_clock(-ahead[i]);
        if (i % 2 == 0)
            reopen(&box);
        for (int k = 0; k < 3; k++)
            deliver(box);
        CHECK_INT(0, health(box).future);
        wb_outbox_close(box);
    }
}

/* With an idle worker that is there all the time, and by SQL alone. */
TEST(test_clock__inserted_by_sql_while_it_was_ahead__delivered_all_the_same)
{
    struct wb_outbox *box = box_open();
    char sql[256];

    (void)box_claim_none(box, NULL);
    (void)snprintf(sql, sizeof(sql),
        "INSERT INTO waybill_outbox(id, kind, payload, due_ms, created_ms)"
        " VALUES('0190a000-0000-7000-8000-00000000000a', 'a', '', %lld, %lld)",
        (long long)(FAKE_START_MS + 10 * DAY),
        (long long)(FAKE_START_MS + 10 * DAY));
    sql_run(sql);
    CHECK_INT(1, health(box).future);
    deliver(box);
    wb_outbox_close(box);
}

TEST(test_clock__a_time_the_sender_chose__is_kept)
{
    struct wb_outbox *box = box_open();
    int64_t at = FAKE_START_MS + 30 * DAY;

    set_clock(10 * DAY);
    (void)box_send(box, (struct wb_message){.kind = S("a"), .due_ms = at});
    set_clock(-10 * DAY);
    (void)box_claim_none(box, NULL);
    CHECK_INT(at, sql_int("SELECT due_ms FROM waybill_outbox"));
    CHECK_INT(FAKE_START_MS, sql_int("SELECT created_ms FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_clock__failed_while_it_was_ahead__the_wait_has_its_length_from_now)
{
    for (int claimed_before = 0; claimed_before < 2; claimed_before++) {
        struct wb_outbox *box = box_open();
        struct taken t;

        (void)box_put(box, "a");
        if (claimed_before)
            t = box_claim(box, NULL);
        set_clock(10 * DAY);
        if (!claimed_before)
            t = box_claim(box, NULL);
        (void)box_fail(box, &t, WB_RETRY);
        set_clock(-10 * DAY);
        (void)box_claim_none(box, NULL);
        fake_clock_advance_ms(10000); /* the first wait's window */
        t = box_claim(box, NULL);
        CHECK_INT(2, t.attempts);
        box_confirm(box, &t);
        wb_outbox_close(box);
        sql_run("DELETE FROM waybill_outbox");
        sql_run("DELETE FROM waybill_breaker");
        fake_env.wall_ms = FAKE_START_MS;
    }
}

/* What a transaction has dated anew is undone when it is rolled back. */
TEST(test_clock__the_call_that_dates_anew_fails__the_next_one_dates)
{
    struct wb_outbox *box = box_open();
    struct wb_message other = keyed("k");

    (void)box_send(box, keyed("k"));
    deliver(box);
    set_clock(10 * DAY);
    (void)box_put(box, "a");
    set_clock(-10 * DAY);
    other.payload = S("another");
    CHECK_STATUS(MISMATCH, box_try(box, other));
    deliver(box);
    wb_outbox_close(box);
}

/* Its worker may be alive, for as long as it believes its lease to last. */
TEST(test_clock__claimed_while_it_was_ahead__the_lease_has_its_length_from_now)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "a");
    set_clock(10 * DAY);
    (void)box_claim(box, NULL);
    set_clock(-10 * DAY);
    reopen(&box);
    (void)box_claim_none(box, NULL);
    CHECK_INT(0, health(box).future);
    fake_clock_advance_ms(59999);
    (void)box_claim_none(box, NULL);
    fake_clock_advance_ms(1);
    t = box_claim(box, NULL);
    CHECK_INT(2, t.attempts);
    box_confirm(box, &t);
    wb_outbox_close(box);
}

TEST(test_clock__extended_while_it_was_ahead__the_lease_has_its_length_from_now)
{
    struct wb_outbox *box = box_open();
    struct wb_finish f = {0};
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    f.id = t.id;
    f.token = t.token;
    set_clock(10 * DAY);
    CHECK_STATUS(OK, wb_outbox_extend(box, &f, 1, 60000, NULL));
    set_clock(-10 * DAY);
    reopen(&box);
    (void)box_claim_none(box, NULL);
    fake_clock_advance_ms(60000);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

/* The scope is not closed for longer than the lost probe's lease. */
TEST(test_clock__probe_claimed_while_it_was_ahead__the_next_after_its_lease)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    for (int i = 0; i < 3; i++) {
        (void)box_put(box, "a");
        t = box_claim(box, NULL);
        (void)box_fail(box, &t, WB_RETRY);
    }
    CHECK_INT(1, sql_int("SELECT open_until_ms > 0 FROM waybill_breaker"));
    (void)box_put(box, "a");
    set_clock(10 * DAY);
    (void)box_claim(box, NULL);
    set_clock(-10 * DAY);
    reopen(&box);
    (void)box_claim_none(box, NULL);
    fake_clock_advance_ms(59999);
    (void)box_claim_none(box, NULL);
    fake_clock_advance_ms(1);
    deliver(box);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_breaker"));
    wb_outbox_close(box);
}

/* ---- what is remembered ------------------------------------------------ */

/* Purge with certainty: 64 finishes in one batch. */
static void
finish_64(struct wb_outbox *box)
{
    struct wb_claim claim = {.max = 64};
    struct wb_batch batch = {0};
    struct wb_finish f[64];
    struct wb_err err = {0};

    box_fill(box, "other", 64);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    for (size_t i = 0; i < 64; i++)
        f[i] = (struct wb_finish){.id = batch.row[i].id,
            .seq = batch.row[i].seq,
            .token = batch.row[i].token,
            .forget = true};
    CHECK_OK(wb_outbox_finish(box, f, 64, NULL, NULL, &err), err);
    wb_batch_free(&batch);
}

TEST(test_clock__ahead_for_less_than_an_hour__no_key_is_forgotten)
{
    for (int restart = 0; restart < 2; restart++) {
        struct wb_outbox *box = box_open();

        (void)box_send(box, keyed("k"));
        deliver(box);
        set_clock(10 * DAY);
        if (restart)
            reopen(&box);
        CHECK(box_send(box, keyed("k")).duplicate);
        finish_64(box);
        fake_clock_advance_ms(HOUR / 2);
        if (restart)
            reopen(&box);
        finish_64(box);
        CHECK(box_send(box, keyed("k")).duplicate);
        set_clock(-10 * DAY);
        finish_64(box);
        CHECK(box_send(box, keyed("k")).duplicate);
        wb_outbox_close(box);
        sql_run("DELETE FROM waybill_outbox");
        fake_env.wall_ms = FAKE_START_MS + 2 * HOUR;
    }
}

/* A program that runs once a week. */
TEST(test_clock__the_machine_was_off__keys_are_forgotten_in_the_end)
{
    struct wb_outbox *box = box_open();

    (void)box_send(box, keyed("k"));
    deliver(box);
    for (int week = 0; week < 2; week++) {
        set_clock(8 * DAY);
        reopen(&box);
        CHECK(box_send(box, keyed("k")).duplicate);
        fake_clock_advance_ms(2 * HOUR);
        CHECK(!box_send(box, keyed("k")).duplicate);
        deliver(box);
    }
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_clock__accepted_while_it_was_ahead__delivered_when_it_is_right),
        RUN(test_clock__inserted_by_sql_while_it_was_ahead__delivered_all_the_same),
        RUN(test_clock__a_time_the_sender_chose__is_kept),
        RUN(test_clock__failed_while_it_was_ahead__the_wait_has_its_length_from_now),
        RUN(test_clock__the_call_that_dates_anew_fails__the_next_one_dates),
        RUN(test_clock__claimed_while_it_was_ahead__the_lease_has_its_length_from_now),
        RUN(test_clock__extended_while_it_was_ahead__the_lease_has_its_length_from_now),
        RUN(test_clock__probe_claimed_while_it_was_ahead__the_next_after_its_lease),
        RUN(test_clock__ahead_for_less_than_an_hour__no_key_is_forgotten),
        RUN(test_clock__the_machine_was_off__keys_are_forgotten_in_the_end),
    };
    return RUN_ALL(tests);
}
