/* test_finish.c - O-9 to O-13: tokens, confirm, fail, release. */
#include <stdio.h>

#include "outbox_fixture.h"

static struct wb_outbox *
box_with_claim(struct taken *t)
{
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    *t = box_claim(box, NULL);
    return box;
}

/* Every call that takes a token. */
static void
check_fenced(struct wb_outbox *box, const struct wb_id *id, uint64_t token)
{
    struct wb_finish f = {.id = *id, .token = token, .outcome = WB_RETRY};
    char before[512];

    (void)snprintf(before, sizeof(before), "%s",
        sql_text("SELECT group_concat(quote(status) || quote(due_ms) ||"
                 " quote(token) || quote(attempts) || quote(last_error)) ||"
                 " (SELECT count(*) FROM waybill_breaker)"
                 " FROM waybill_outbox"));
    CHECK_STATUS(FENCED, wb_outbox_confirm(box, id, token, NULL));
    CHECK_STATUS(FENCED, wb_outbox_release(box, id, token, NULL));
    CHECK_STATUS(FENCED, wb_outbox_fail(box, &f, NULL));
    CHECK_STATUS(OK, wb_outbox_extend(box, &f, 1, 1000, NULL));
    CHECK_STATUS(FENCED, f.status);
    CHECK_TEXT(before,
        sql_text("SELECT group_concat(quote(status) || quote(due_ms) ||"
                 " quote(token) || quote(attempts) || quote(last_error)) ||"
                 " (SELECT count(*) FROM waybill_breaker)"
                 " FROM waybill_outbox"));
}

/* ---- O-9, I5 ----------------------------------------------------------- */

TEST(test_finish__O9_wrong_tokens__fenced_and_unchanged)
{
    struct taken t, b;
    struct wb_outbox *box = box_with_claim(&t);

    (void)box_put(box, "b");
    b = box_claim(box, NULL);
    check_fenced(box, &t.id, t.token ^ 1);
    check_fenced(box, &t.id, 0);
    check_fenced(box, &t.id, b.token);
    check_fenced(box, &b.id, t.token);
    box_confirm(box, &t);
    wb_outbox_close(box);
}

TEST(test_finish__O9_not_claimed__zero_does_not_fit)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");

    check_fenced(box, &id, 0);
    wb_outbox_close(box);
}

TEST(test_finish__O9_taken_over_reset_released_failed__old_token_fenced)
{
    struct taken t, u;
    struct wb_outbox *box = box_with_claim(&t);
    uint64_t n;

    fake_clock_advance_ms(60000);
    u = box_claim(box, NULL); /* claimed by another worker */
    check_fenced(box, &t.id, t.token);
    box_release(box, &u);
    check_fenced(box, &u.id, u.token);
    u = box_claim(box, NULL);
    (void)box_fail(box, &u, WB_RETRY);
    check_fenced(box, &u.id, u.token);
    fake_clock_advance_ms(DAY);
    u = box_claim(box, NULL);
    CHECK_STATUS(OK, wb_outbox_reset_stale(box, 0, &n, NULL));
    check_fenced(box, &u.id, u.token);
    u = box_claim(box, NULL);
    box_abandon(box, &u);
    check_fenced(box, &u.id, u.token);
    wb_outbox_close(box);
}

/* The lease ended without another claim: the worker was only slow. */
TEST(test_finish__O9_lease_ended_not_taken_over__still_fits)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);

    fake_clock_advance_ms(600000);
    box_confirm(box, &t);
    wb_outbox_close(box);
}

TEST(test_finish__O9_row_reused__by_seq_or_by_id_fits_no_other)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_finish f = {.id = t.id,
        .token = t.token,
        .seq = t.seq,
        .end = WB_CONFIRM,
        .forget = true,
        .attempts = 1};
    struct taken u;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
    CHECK_STATUS(OK, f.status);
    CHECK_INT(WB_STATE_DELIVERED, f.state);
    CHECK_INT(1, f.attempts);
    (void)box_put(box, "b");
    u = box_claim(box, NULL);
    CHECK_INT(t.seq, u.seq); /* the same row */
    CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
    CHECK_STATUS(NOTFOUND, f.status);
    CHECK_STATUS(NOTFOUND, wb_outbox_confirm(box, &t.id, u.token, NULL));
    f.id = u.id; /* and an old token for the new message */
    CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
    CHECK_STATUS(FENCED, f.status);
    CHECK_TEXT("processing", status_of(&u.id));
    wb_outbox_close(box);
}

TEST(test_finish__O9_seq_of_another_row__row_found_by_id)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_finish f = {
        .id = t.id, .token = t.token, .seq = 999, .end = WB_CONFIRM};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
    CHECK_STATUS(OK, f.status);
    CHECK_INT(WB_STATE_DELIVERED, f.state);
    wb_outbox_close(box);
}

TEST(test_finish__O9_tokens__never_zero_and_all_different)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = 500};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    box_fill(box, "a", 500);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    for (size_t i = 0; i < batch.len; i++) {
        CHECK(batch.row[i].token != 0);
        for (size_t k = 0; k < i; k++)
            CHECK(batch.row[i].token != batch.row[k].token);
    }
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

/* ---- O-11, I4 ---------------------------------------------------------- */

TEST(test_finish__O11_confirmed_twice__ok_both_times)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);

    box_confirm(box, &t);
    box_confirm(box, &t);
    CHECK_STATUS(FENCED, wb_outbox_confirm(box, &t.id, t.token + 1, NULL));
    CHECK_STATUS(FENCED, wb_outbox_release(box, &t.id, t.token, NULL));
    wb_outbox_close(box);
}

/* I4: a confirmed message never comes back, whatever is called. */
TEST(test_finish__I4_confirmed__never_claimed_again)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_select all = {0}, one = {.ids = &t.id, .n_ids = 1};
    struct wb_selected did;
    uint64_t n;

    box_confirm(box, &t);
    fake_clock_advance_ms(60000);
    CHECK_STATUS(OK, wb_outbox_reset_stale(box, 0, &n, NULL));
    CHECK_INT(0, n);
    CHECK_STATUS(OK, wb_outbox_redrive(box, &all, &did, NULL, NULL, NULL));
    CHECK_INT(0, did.total);
    CHECK_STATUS(OK, wb_outbox_redrive(box, &one, &did, NULL, NULL, NULL));
    CHECK_INT(1, did.missing);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
    wb_outbox_close(box);
}

TEST(test_finish__O11_gone__notfound_moves_no_counter)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_finish f = {.id = t.id, .token = t.token, .outcome = WB_RETRY};

    sql_run("DELETE FROM waybill_outbox");
    CHECK_STATUS(NOTFOUND, wb_outbox_confirm(box, &t.id, t.token, NULL));
    CHECK_STATUS(NOTFOUND, wb_outbox_fail(box, &f, NULL));
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_breaker"));
    wb_outbox_close(box);
}

TEST(test_finish__O4_expired_tombstones__purged_by_finishes)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};

    for (int i = 0; i < 3; i++) {
        struct wb_claim claim = {.max = 100};
        struct wb_batch batch = {0};
        struct wb_finish f[100];

        box_fill(box, "a", 100);
        CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
        for (int k = 0; k < 100; k++)
            f[k] = (struct wb_finish){.id = batch.row[k].id,
                .token = batch.row[k].token,
                .end = i == 1 ? WB_FAIL : WB_CONFIRM,
                .outcome = WB_REJECTED};
        CHECK_OK(wb_outbox_finish(box, f, 100, NULL, NULL, &err), err);
        wb_batch_free(&batch);
        fake_clock_advance_ms(i == 1 ? 30 * DAY : 0);
    }
    /* 100 confirmed and 100 abandoned are over; 100 are fresh */
    CHECK_INT(100, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* ---- O-10: release ----------------------------------------------------- */

TEST(test_finish__O10_release__attempt_undone_and_due_again)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);

    box_release(box, &t);
    CHECK_TEXT("pending|0", sql_text("SELECT status || '|' || attempts FROM"
                                     " waybill_outbox"));
    t = box_claim(box, NULL);
    CHECK_INT(1, t.attempts);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_breaker"));
    wb_outbox_close(box);
}

/* ---- O-12, I7 ---------------------------------------------------------- */

TEST(test_finish__O12_fail__retried_within_the_window_until_max)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");
    int64_t window = 10000;

    for (uint32_t i = 1; i <= 8; i++) {
        struct taken t = box_claim(box, NULL);
        struct wb_finish f = box_fail(box, &t, WB_RETRY);
        int64_t now = fake_env.wall_ms;

        CHECK_INT(i, f.attempts);
        if (i == 8) {
            CHECK_INT(WB_STATE_ABANDONED, f.state);
            CHECK_INT(0, f.due_ms);
            break;
        }
        CHECK_INT(WB_STATE_PENDING, f.state);
        CHECK(f.due_ms >= now + window / 2 && f.due_ms <= now + window);
        fake_env.wall_ms = f.due_ms - 1;
        (void)box_claim_none(box, NULL);     /* I7: not before its time */
        fake_env.wall_ms = f.due_ms + 60000; /* and past the breaker's */
        window = window * 4 < 21600000 ? window * 4 : 21600000;
    }
    CHECK_TEXT("abandoned", status_of(&id));
    CHECK_TEXT("attempts", sql_text("SELECT reason FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_finish__O12_rejected__abandoned_at_once_with_its_error)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_finish f = {.id = t.id,
        .token = t.token,
        .outcome = WB_REJECTED,
        .error = S("401 Unauthorized: {\"error\":\"x\"}")};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    CHECK_INT(WB_STATE_ABANDONED, f.state);
    CHECK_TEXT("rejected|401 Unauthorized: {\"error\":\"x\"}",
        sql_text("SELECT reason || '|' || last_error FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* Zero is DELIVERED: a fail without an outcome means retry, bounded and not
 * immediate. */
TEST(test_finish__O12_fail_without_outcome__counts_as_retry)
{
    struct wb_outbox *box = box_open();
    struct wb_retry_policy once = WB_RETRY_POLICY_IMMEDIATE;
    struct wb_err err = {0};

    once.max_attempts = 2;
    (void)box_put(box, "a");
    for (int i = 1; i <= 2; i++) {
        struct taken t = box_claim(box, NULL);
        struct wb_finish f = {
            .id = t.id, .token = t.token, .end = WB_FAIL, .retry = &once};

        CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
        CHECK_INT(i == 1 ? WB_STATE_PENDING : WB_STATE_ABANDONED, f.state);
        CHECK_INT(i == 1 ? FAKE_START_MS : 0, f.due_ms);
    }
    CHECK_INT(2, sql_int("SELECT failures FROM waybill_breaker"));
    wb_outbox_close(box);
}

TEST(test_finish__R3_retry_after_and_not_before__are_floors)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_finish f = {.id = t.id,
        .token = t.token,
        .outcome = WB_RETRY,
        .retry_after_ms = 3600000};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    CHECK_INT(FAKE_START_MS + 3600000, f.due_ms);
    fake_clock_advance_ms(3600000);
    t = box_claim(box, NULL);
    f.token = t.token;
    f.retry_after_ms = INT64_MAX; /* bounded by a day */
    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    CHECK_INT(fake_env.wall_ms + DAY, f.due_ms);
    fake_clock_advance_ms(DAY);
    t = box_claim(box, NULL);
    f.token = t.token;
    f.retry_after_ms = INT64_MIN;
    f.not_before_ms = fake_env.wall_ms + 5 * DAY;
    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    CHECK_INT(fake_env.wall_ms + 5 * DAY, f.due_ms);
    wb_outbox_close(box);
}

TEST(test_finish__O12_error__one_line_of_2048_characters)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    char text[9000] = " \n500\t\tInternal\r\n \x1b[1mError: ";
    struct wb_finish f = {.id = t.id, .token = t.token, .outcome = WB_RETRY};
    struct wb_err err = {0};

    for (size_t i = strlen(text); i + 2 < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa4", 3);
    f.error = S(text);
    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    CHECK_INT(2048, sql_int("SELECT length(last_error) FROM waybill_outbox"));
    CHECK_HAS("500 Internal [1mError: \xc3\xa4",
        sql_text("SELECT last_error FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* ---- several in one commit --------------------------------------------- */

TEST(test_finish__O9_one_bad_in_a_batch__the_others_finished)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    struct wb_finish f[4];

    for (int i = 0; i < 3; i++) {
        struct taken t;

        (void)box_put(box, "a");
        t = box_claim(box, NULL);
        f[i] = (struct wb_finish){.id = t.id,
            .token = t.token + (i == 1),
            .end = i == 2 ? WB_RELEASE : WB_CONFIRM};
    }
    f[3] = f[0];
    (void)strcpy(f[3].id.text, "0190a000-0000-7000-8000-00000000000a");
    CHECK_OK(wb_outbox_finish(box, f, 4, NULL, NULL, &err), err);
    CHECK_STATUS(OK, f[0].status);
    CHECK_STATUS(FENCED, f[1].status);
    CHECK_STATUS(OK, f[2].status);
    CHECK_STATUS(NOTFOUND, f[3].status);
    CHECK_INT(WB_STATE_PENDING, f[2].state);
    CHECK_INT(0, f[2].attempts);
    wb_outbox_close(box);
}

TEST(test_finish__O9_batch_out_of_next_claim_empty__still_ok)
{
    struct taken t;
    struct wb_outbox *box = box_with_claim(&t);
    struct wb_finish f = {.id = t.id, .token = t.token, .end = WB_CONFIRM};
    struct wb_claim claim = {.max = 8};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_finish(box, &f, 1, &claim, &batch, &err), err);
    CHECK_INT(0, batch.len);
    CHECK_INT(WB_NONE_EMPTY, batch.reason);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_finish__O9_wrong_tokens__fenced_and_unchanged),
        RUN(test_finish__O9_not_claimed__zero_does_not_fit),
        RUN(test_finish__O9_taken_over_reset_released_failed__old_token_fenced),
        RUN(test_finish__O9_lease_ended_not_taken_over__still_fits),
        RUN(test_finish__O9_row_reused__by_seq_or_by_id_fits_no_other),
        RUN(test_finish__O9_seq_of_another_row__row_found_by_id),
        RUN(test_finish__O9_tokens__never_zero_and_all_different),
        RUN(test_finish__O11_confirmed_twice__ok_both_times),
        RUN(test_finish__I4_confirmed__never_claimed_again),
        RUN(test_finish__O11_gone__notfound_moves_no_counter),
        RUN(test_finish__O4_expired_tombstones__purged_by_finishes),
        RUN(test_finish__O10_release__attempt_undone_and_due_again),
        RUN(test_finish__O12_fail__retried_within_the_window_until_max),
        RUN(test_finish__O12_rejected__abandoned_at_once_with_its_error),
        RUN(test_finish__O12_fail_without_outcome__counts_as_retry),
        RUN(test_finish__R3_retry_after_and_not_before__are_floors),
        RUN(test_finish__O12_error__one_line_of_2048_characters),
        RUN(test_finish__O9_one_bad_in_a_batch__the_others_finished),
        RUN(test_finish__O9_batch_out_of_next_claim_empty__still_ok),
    };
    return RUN_ALL(tests);
}
