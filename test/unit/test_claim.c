/* test_claim.c - O-8, O-10, O-17: what is leased, in which order, and why
 * nothing is. */
#include <stdio.h>

#include "outbox_fixture.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct wb_id
put_due(struct wb_outbox *box, const char *kind, int64_t due_ms)
{
    return box_send(box, (struct wb_message){.kind = S(kind), .due_ms = due_ms})
        .id;
}

/* Kinds of the rows that a claim gives, in order: "a b a". */
static const char *
claim_kinds(struct wb_outbox *box, const struct wb_claim *claim)
{
    static char text[1024];
    struct wb_batch batch = {0};
    size_t n = 0;

    CHECK_STATUS(OK, wb_outbox_claim(box, claim, &batch, NULL));
    for (size_t i = 0; i < batch.len; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.*s",
            i == 0 ? "" : " ", (int)batch.row[i].kind.len,
            batch.row[i].kind.ptr);
    wb_batch_free(&batch);
    return text;
}

TEST(test_claim__O8_several_kinds__oldest_first_by_due_then_seq)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = 100};

    (void)put_due(box, "c", FAKE_START_MS - 1);
    (void)put_due(box, "a", FAKE_START_MS);
    (void)put_due(box, "b", FAKE_START_MS);
    (void)put_due(box, "a", FAKE_START_MS);
    (void)put_due(box, "b", FAKE_START_MS - 2);
    (void)put_due(box, "b", FAKE_START_MS + 1); /* not yet */
    CHECK_TEXT("b c a b a", claim_kinds(box, &claim));
    wb_outbox_close(box);
}

TEST(test_claim__O8_max__taken_over_the_kinds_not_from_the_first)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = 3};

    for (int i = 0; i < 3; i++) {
        (void)put_due(box, "busy", FAKE_START_MS - 10 + 3 * i);
        (void)put_due(box, "rare", FAKE_START_MS - 9 + 3 * i);
    }
    CHECK_TEXT("busy rare busy", claim_kinds(box, &claim));
    CHECK_TEXT("rare busy rare", claim_kinds(box, &claim));
    wb_outbox_close(box);
}

TEST(test_claim__O8_sources__only_their_kinds_up_to_their_slots)
{
    struct wb_outbox *box = box_open();
    uint32_t shared = 3, own = 1;
    const struct wb_source sources[] = {
        {.kind = S("a"), .slots = &shared},
        {.kind = S("b"), .slots = &shared},
        {.kind = S("c"), .slots = &own},
    };
    struct wb_claim claim = {.sources = sources, .n_sources = 3, .max = 100};

    for (int i = 0; i < 4; i++) {
        (void)box_put(box, "a");
        (void)box_put(box, "b");
        (void)box_put(box, "c");
        (void)box_put(box, "d");
    }
    CHECK_TEXT("a b c a", claim_kinds(box, &claim));
    CHECK_INT(0, shared);
    CHECK_INT(0, own);
    shared = 1;
    CHECK_TEXT("b", claim_kinds(box, &claim));
    wb_outbox_close(box);
}

TEST(test_claim__O8_source_index_and_scope__come_with_the_row)
{
    struct wb_outbox *box = box_open();
    const struct wb_source sources[] = {
        {.kind = S("x")}, {.kind = S("a"), .scope = S("https://h/")}};
    struct wb_claim claim = {.sources = sources, .n_sources = 2};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    (void)box_put(box, "a");
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(1, batch.row[0].source);
    CHECK_SLICE("https://h/", batch.row[0].scope);
    CHECK_TEXT("https://h/", sql_text("SELECT scope FROM waybill_outbox"));
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

/* A scope that can be stored but not read again would keep its message from
 * being finished for ever. */
TEST(test_claim__O8_scope_too_long_or_lease_negative__invalid)
{
    static char scope[300];
    struct wb_outbox *box = box_open();
    struct wb_source source = {.kind = S("a"), .scope = {scope, 256}};
    struct wb_claim claim = {.sources = &source, .n_sources = 1};
    struct wb_claim lease = {.lease_ms = -1};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    memset(scope, 's', sizeof(scope));
    (void)box_put(box, "a");
    CHECK_STATUS(INVALID, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_STATUS(INVALID, wb_outbox_claim(box, &lease, &batch, NULL));
    CHECK_STATUS(INVALID, wb_outbox_finish(box, NULL, 0, &claim, &batch, NULL));
    source.scope.len = 255;
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_OK(wb_outbox_confirm(box, &batch.row[0].id, batch.row[0].token, &err),
        err);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_claim__O8_nothing_due__empty_with_next_due)
{
    struct wb_outbox *box = box_open();
    int64_t next = -1;

    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, &next));
    CHECK_INT(0, next);
    (void)put_due(box, "a", FAKE_START_MS + 500);
    (void)put_due(box, "b", FAKE_START_MS + 300);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, &next));
    CHECK_INT(FAKE_START_MS + 300, next);
    wb_outbox_close(box);
}

TEST(test_claim__O8_all_leased__next_due_is_the_first_lease_end)
{
    struct wb_outbox *box = box_open();
    int64_t next = -1;

    (void)box_put(box, "a");
    (void)box_claim(box, NULL);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, &next));
    CHECK_INT(FAKE_START_MS + 60000, next);
    wb_outbox_close(box);
}

TEST(test_claim__O8_due_by__never_later_than_now)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.due_by_ms = FAKE_START_MS - 5};
    struct wb_batch batch = {0};

    (void)put_due(box, "a", FAKE_START_MS - 4);
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    claim.due_by_ms = INT64_MAX;
    (void)put_due(box, "b", FAKE_START_MS + 1);
    CHECK_TEXT("a", claim_kinds(box, &claim));
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_claim__O8_max_out_of_range__at_most_claim_max)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = UINT32_MAX};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    box_fill(box, "a", WB_CLAIM_MAX + 10);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(WB_CLAIM_MAX, batch.len);
    CHECK(batch.next_due_ms <= FAKE_START_MS); /* there is more */
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

/* The bytes that a batch copies are bounded, whatever the payloads. */
TEST(test_claim__I14_large_payloads__batch_is_bounded)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = 64};
    struct wb_batch batch = {0};
    struct wb_err err = {0};
    char *big = calloc(1, 1 << 20);

    CHECK(big != NULL);
    for (int i = 0; i < 20; i++)
        (void)box_send(box,
            (struct wb_message){.kind = S("a"), .payload = {big, 1 << 20}});
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK(batch.len >= 15 && batch.len <= 17);
    CHECK_INT(FAKE_START_MS, batch.next_due_ms);
    wb_batch_free(&batch);
    free(big);
    wb_outbox_close(box);
}

/* ---- O-10 -------------------------------------------------------------- */

TEST(test_claim__O10_lease_ran_out__claimed_again_attempts_counted)
{
    struct wb_outbox *box = box_open();
    struct taken first, second;

    (void)box_put(box, "a");
    first = box_claim(box, NULL);
    CHECK_INT(1, first.attempts);
    fake_clock_advance_ms(59999);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
    fake_clock_advance_ms(1);
    second = box_claim(box, NULL);
    CHECK_INT(2, second.attempts);
    CHECK(second.token != first.token);
    CHECK_STATUS(FENCED, wb_outbox_confirm(box, &first.id, first.token, NULL));
    wb_outbox_close(box);
}

TEST(test_claim__O10_crashed_max_attempts_times__abandoned)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_id id = box_put(box, "a");

    for (uint32_t i = 1; i <= 8; i++) {
        struct taken t = box_claim(box, NULL);

        CHECK_INT(i, t.attempts);
        fake_clock_advance_ms(60000);
    }
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_INT(1, batch.ended);
    wb_batch_free(&batch);
    CHECK_TEXT("abandoned", status_of(&id));
    CHECK_TEXT("lease ran out", sql_text("SELECT reason FROM waybill_outbox"));
    CHECK_INT(8, sql_int("SELECT attempts FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_claim__O10_max_attempts_of_the_source__decides)
{
    struct wb_outbox *box = box_open();
    struct wb_source source = {.kind = S("a"), .max_attempts = 1};
    struct wb_claim claim = {.sources = &source, .n_sources = 1};
    struct wb_batch batch = {0};
    struct wb_id id = box_put(box, "a");

    CHECK_TEXT("a", claim_kinds(box, &claim));
    fake_clock_advance_ms(60000);
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    wb_batch_free(&batch);
    CHECK_TEXT("abandoned", status_of(&id));
    wb_outbox_close(box);
}

TEST(test_claim__O10_extended__not_taken_before_the_new_end)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    struct wb_finish f = {0};
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    f.id = t.id;
    f.token = t.token;
    fake_clock_advance_ms(50000);
    CHECK_OK(wb_outbox_extend(box, &f, 1, 30000, &err), err);
    CHECK_STATUS(OK, f.status);
    CHECK_INT(FAKE_START_MS + 80000, f.due_ms);
    fake_clock_advance_ms(29999);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
    fake_clock_advance_ms(1);
    (void)box_claim(box, NULL);
    CHECK_OK(wb_outbox_extend(box, &f, 1, 1000, &err), err);
    CHECK_STATUS(FENCED, f.status);
    CHECK_STATUS(INVALID, wb_outbox_extend(box, &f, 1, 0, &err));
    wb_outbox_close(box);
}

/* A worker that resets stale claims when it starts, and is killed by a message,
 * must not receive that message for ever. */
TEST(test_claim__O10_crashed_and_put_back_at_max_attempts__abandoned)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_id id = box_put(box, "a");
    uint64_t n;

    for (uint32_t i = 1; i <= 8; i++) {
        CHECK_INT(i, box_claim(box, NULL).attempts);
        fake_clock_advance_ms(60000);
        CHECK_STATUS(OK, wb_outbox_reset_stale(box, -1, &n, NULL));
        CHECK_INT(1, n);
    }
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_INT(1, batch.ended);
    wb_batch_free(&batch);
    CHECK_TEXT("abandoned", status_of(&id));
    CHECK_TEXT("lease ran out", sql_text("SELECT reason FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* The retry policy allows more attempts than the claim: a failed message is
 * claimed on. */
TEST(test_claim__O10_failed_max_attempts_times__goes_on)
{
    const struct wb_retry_policy patient = {.max_attempts = 20};
    struct wb_outbox *box = box_open();
    uint64_t n;

    (void)box_put(box, "a");
    (void)box_claim(box, NULL);
    fake_clock_advance_ms(60000);
    CHECK_STATUS(OK, wb_outbox_reset_stale(box, -1, &n, NULL));
    for (uint32_t i = 2; i <= 12; i++) {
        struct taken t = box_claim(box, NULL);
        struct wb_finish f = {.id = t.id, .token = t.token, .retry = &patient};

        CHECK_INT(i, t.attempts);
        CHECK_STATUS(OK, wb_outbox_fail(box, &f, NULL));
        fake_clock_advance_ms(86400000);
    }
    wb_outbox_close(box);
}

TEST(test_claim__O10_reset_stale__ended_leases_or_older_than)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = 2, .lease_ms = 1000};
    struct wb_err err = {0};
    uint64_t n = 9;

    box_fill(box, "a", 4);
    (void)claim_kinds(box, &claim); /* lease of 1 s */
    claim.lease_ms = 100000;
    (void)claim_kinds(box, &claim);
    CHECK_OK(wb_outbox_reset_stale(box, -1, &n, &err), err);
    CHECK_INT(0, n);
    fake_clock_advance_ms(1000);
    CHECK_OK(wb_outbox_reset_stale(box, -1, &n, &err), err);
    CHECK_INT(2, n);
    CHECK_OK(wb_outbox_reset_stale(box, 1001, &n, &err), err);
    CHECK_INT(0, n);
    CHECK_OK(wb_outbox_reset_stale(box, 1000, &n, &err), err);
    CHECK_INT(2, n);
    CHECK_OK(wb_outbox_reset_stale(box, INT64_MIN, &n, &err), err);
    CHECK_OK(wb_outbox_reset_stale(box, INT64_MAX, &n, &err), err);
    CHECK_INT(4, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                         " status = 'pending' AND attempts = 1"));
    claim.max = 4;
    for (int i = 0; i < 4; i++) /* one at a time: see test_claim_stale */
        CHECK_TEXT("a", claim_kinds(box, &claim));
    wb_outbox_close(box);
}

/* A lease or a probe that a wrong clock put days ahead. */
static void
test_claim__R4_clock_was_ahead__reset_stale_frees_message_and_probe(
    void **state)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    uint64_t n = 0;

    (void)state;
    box_fill(box, "a", 4);
    for (int i = 0; i < 3; i++) {
        struct taken t = box_claim(box, NULL);

        (void)box_fail(box, &t, WB_RETRY);
    }
    fake_env.wall_ms += 3 * DAY;
    (void)box_claim(box, NULL); /* the probe */
    fake_env.wall_ms -= 2 * DAY;
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    CHECK_OK(wb_outbox_reset_stale(box, -1, &n, &err), err);
    CHECK_INT(0, n); /* the lease has its length from now */
    fake_clock_advance_ms(60001);
    CHECK_OK(wb_outbox_reset_stale(box, -1, &n, &err), err);
    CHECK_INT(1, n);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

TEST(test_claim__R4_clock_back_then_released__due_at_once)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "a");
    fake_env.wall_ms += DAY;
    t = box_claim(box, NULL);
    fake_env.wall_ms -= DAY;
    box_release(box, &t);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

/* ---- O-17 -------------------------------------------------------------- */

TEST(test_claim__O17_expired__abandoned_not_sent)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_id id = box_send(box,
        (struct wb_message){.kind = S("a"), .expires_ms = FAKE_START_MS + 1000})
                          .id;

    fake_clock_advance_ms(1000);
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_INT(1, batch.ended);
    CHECK_INT(WB_NONE_EMPTY, batch.reason);
    wb_batch_free(&batch);
    CHECK_TEXT("abandoned", status_of(&id));
    CHECK_TEXT("expired", sql_text("SELECT reason FROM waybill_outbox"));
    CHECK_INT(0, sql_int("SELECT attempts FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_claim__O17_just_before__sent_with_its_end)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    (void)box_send(box, (struct wb_message){.kind = S("a"),
                            .expires_ms = FAKE_START_MS + 1000});
    fake_clock_advance_ms(999);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(FAKE_START_MS + 1000, batch.row[0].expires_ms);
    CHECK_INT(FAKE_START_MS, batch.row[0].created_ms);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

/* Thousands of expired messages before a live one: each claim abandons a
 * bounded number and reports that there is more, until the live one is leased.
 */
TEST(test_claim__O17_many_expired__bounded_a_claim)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    enum wb_status rc;
    int claims = 0;

    box_fill(box, "a", 5000);
    sql_run("UPDATE waybill_outbox SET expires_ms = 1");
    (void)box_put(box, "a");
    while ((rc = wb_outbox_claim(box, &claim, &batch, NULL)) == WB_EMPTY) {
        CHECK(batch.ended <= 3000);
        CHECK(batch.next_due_ms > 0 && batch.next_due_ms <= FAKE_START_MS);
        claims++;
    }
    CHECK_INT(WB_OK, rc);
    CHECK(claims >= 1 && claims < 10);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_claim__O8_several_kinds__oldest_first_by_due_then_seq),
        RUN(test_claim__O8_max__taken_over_the_kinds_not_from_the_first),
        RUN(test_claim__O8_sources__only_their_kinds_up_to_their_slots),
        RUN(test_claim__O8_source_index_and_scope__come_with_the_row),
        RUN(test_claim__O8_scope_too_long_or_lease_negative__invalid),
        RUN(test_claim__O8_nothing_due__empty_with_next_due),
        RUN(test_claim__O8_all_leased__next_due_is_the_first_lease_end),
        RUN(test_claim__O8_due_by__never_later_than_now),
        RUN(test_claim__O8_max_out_of_range__at_most_claim_max),
        RUN(test_claim__I14_large_payloads__batch_is_bounded),
        RUN(test_claim__O10_lease_ran_out__claimed_again_attempts_counted),
        RUN(test_claim__O10_crashed_max_attempts_times__abandoned),
        RUN(test_claim__O10_max_attempts_of_the_source__decides),
        RUN(test_claim__O10_extended__not_taken_before_the_new_end),
        RUN(test_claim__O10_crashed_and_put_back_at_max_attempts__abandoned),
        RUN(test_claim__O10_failed_max_attempts_times__goes_on),
        RUN(test_claim__O10_reset_stale__ended_leases_or_older_than),
        RUN(test_claim__R4_clock_was_ahead__reset_stale_frees_message_and_probe),
        RUN(test_claim__R4_clock_back_then_released__due_at_once),
        RUN(test_claim__O17_expired__abandoned_not_sent),
        RUN(test_claim__O17_just_before__sent_with_its_end),
        RUN(test_claim__O17_many_expired__bounded_a_claim),
    };
    return RUN_ALL(tests);
}
