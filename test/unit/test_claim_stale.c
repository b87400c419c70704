/* test_claim_stale.c - messages that may have killed their worker, and damaged
 * rows: the others go on. */
#include "outbox_fixture.h"

/* Claim up to 8: how many, and of how many the last lease ran out. */
static size_t
claim_many(struct wb_outbox *box, bool no_stale, size_t *stale)
{
    struct wb_claim claim = {.max = 8, .no_stale = no_stale};
    struct wb_batch batch = {0};
    enum wb_status rc = wb_outbox_claim(box, &claim, &batch, NULL);
    size_t n = batch.len;

    CHECK(rc == WB_OK || (rc == WB_EMPTY && n == 0));
    *stale = 0;
    for (size_t i = 0; i < n; i++)
        *stale += batch.row[i].stale;
    wb_batch_free(&batch);
    return n;
}

TEST(test_claim__lease_ran_out__one_of_them_at_a_time)
{
    struct wb_outbox *box = box_open();
    size_t stale;

    box_fill(box, "a", 4);
    box_fill(box, "b", 4);
    CHECK_INT(8, claim_many(box, false, &stale));
    CHECK_INT(0, stale);
    fake_clock_advance_ms(60000);
    box_fill(box, "b", 3);
    CHECK_INT(3, claim_many(box, true, &stale)); /* one is in flight */
    CHECK_INT(0, stale);
    box_fill(box, "a", 2);
    CHECK_INT(3, claim_many(box, false, &stale)); /* fresh ones go on */
    CHECK_INT(1, stale);
    CHECK_INT(1, claim_many(box, false, &stale));
    CHECK_INT(1, stale);
    wb_outbox_close(box);
}

/* Claim, and confirm all, unless the bad one is among them: then the worker
 * dies, and the leases run out. */
static void
work_once(struct wb_outbox *box, const struct wb_id *bad)
{
    struct wb_claim claim = {.max = 8};
    struct wb_batch batch = {0};
    enum wb_status rc = wb_outbox_claim(box, &claim, &batch, NULL);
    bool killed = false;

    CHECK(rc == WB_OK || rc == WB_EMPTY);
    for (size_t k = 0; k < batch.len; k++)
        killed |= strcmp(batch.row[k].id.text, bad->text) == 0;
    for (size_t k = 0; k < batch.len && !killed; k++) {
        CHECK(batch.row[k].attempts <= 2);
        CHECK_STATUS(OK,
            wb_outbox_confirm(box, &batch.row[k].id, batch.row[k].token, NULL));
    }
    wb_batch_free(&batch);
    if (killed)
        fake_clock_advance_ms(60000);
}

TEST(test_claim__one_kills_its_worker__others_lose_one_attempt)
{
    struct wb_outbox *box = box_open();
    struct wb_id bad;

    box_fill(box, "a", 3);
    bad = box_put(box, "a");
    box_fill(box, "a", 4);
    for (int i = 0; i < 100 && strcmp(status_of(&bad), "abandoned") != 0; i++) {
        (void)box_put(box, "b");
        work_once(box, &bad);
    }
    CHECK_TEXT("abandoned", status_of(&bad));
    for (int i = 0; i < 100; i++)
        work_once(box, &bad);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox WHERE status"
                         " IN ('pending', 'processing')"));
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox WHERE status"
                         " = 'abandoned'"));
    wb_outbox_close(box);
}

TEST(test_claim__row_with_most_attempts__abandoned_others_go_on)
{
    struct wb_outbox *box = box_open();
    struct wb_id bad = box_put(box, "a");
    size_t stale;

    sql_run("UPDATE waybill_outbox SET attempts = 4000000000");
    (void)box_put(box, "a");
    (void)box_put(box, "b");
    CHECK_INT(2, claim_many(box, false, &stale));
    CHECK_TEXT("abandoned", status_of(&bad));
    CHECK_TEXT("attempts", sql_text("SELECT reason FROM waybill_outbox"
                                    " WHERE status = 'abandoned'"));
    wb_outbox_close(box);
}

TEST(test_claim__malformed_row__abandoned_others_go_on)
{
    struct wb_outbox *box = box_open();
    sqlite3 *db;
    size_t stale;

    (void)box_put(box, "a");
    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db,
              "PRAGMA ignore_check_constraints = ON;"
              "UPDATE waybill_outbox SET id = 'none'",
              NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    (void)box_put(box, "a");
    (void)box_put(box, "b");
    CHECK_INT(2, claim_many(box, false, &stale));
    CHECK_HAS(
        "id is not valid", sql_text("SELECT last_error FROM waybill_outbox"
                                    " WHERE id = 'none'"));
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_claim__lease_ran_out__one_of_them_at_a_time),
        RUN(test_claim__one_kills_its_worker__others_lose_one_attempt),
        RUN(test_claim__row_with_most_attempts__abandoned_others_go_on),
        RUN(test_claim__malformed_row__abandoned_others_go_on),
    };

    return RUN_ALL(tests);
}
