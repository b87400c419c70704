/* test_fault.c - every kind of I/O and every allocation fails, once or
 * permanently: a sample; tools/torture tests all. C5, C6, C7; I1, I4, I11, I14,
 * I17. */
#include "support.h"

#include <sqlite3.h>
#include <stdio.h>

#include "campaign.h"
#include "db/sqlite.h"
#include "memory.h"
#include "outbox/outbox_internal.h"

/* THINNED: one of so many operations fails; sanitized builds are slow. */

static void
check_sound(const struct campaign *c)
{
    if (findings_sum(&c->found) != 0)
        print_error("repeat with: powercut %s\n", c->first);
    CHECK_INT(0, findings_sum(&c->found));
    for (int p = 0; p < CAMPAIGN_PLANS; p++)
        if (c->plan[p].points > 0)
            print_message("%s: %ld points, %ld faults, %ld calls failed\n",
                campaign_plan_name(p), c->plan[p].points, c->plan[p].fired,
                c->plan[p].failures);
}

TEST(test_fault__any_io_once_or_for_ever__nothing_lost_then_all_delivered)
{
    struct campaign c = {.every = 9 * THINNED, .plans = ~1U};

    campaign_fault(&c);
    check_sound(&c);
    for (int p = 1; p < CAMPAIGN_PLANS; p++) {
        CHECK(c.plan[p].points > 0);
        CHECK(c.plan[p].fired >= c.plan[p].points - c.plan[p].unfired);
        CHECK(c.plan[p].unfired * 10 <= c.plan[p].points);
    }
}

TEST(
    test_fault__any_allocation_once_or_for_ever__nothing_lost_then_all_delivered)
{
    struct campaign c = {.every = 150 * THINNED, .plans = 1};

    campaign_fault(&c);
    check_sound(&c);
    CHECK(c.plan[0].points > 200 / THINNED &&
          c.plan[0].failures > 1000 / THINNED);
}

/* I5, I7, C15. */
TEST(test_fault__clock_jumps_days_stands_still_runs__repeats_and_no_loss)
{
    struct campaign c = {.seeds = 400 / THINNED, .steps = 120};

    campaign_clock(&c);
    check_sound(&c);
    CHECK(c.fenced > 200 / THINNED);
}

/* ---- the bug: without memory an enqueue could not be rolled back -------- */

static long
rows_of(sqlite3 *db)
{
    sqlite3_stmt *q = NULL;
    long n = -1;

    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM waybill_outbox", -1, &q,
            NULL) == SQLITE_OK &&
        sqlite3_step(q) == SQLITE_ROW)
        n = (long)sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    return n;
}

/* All allocations from the n-th on fail in an enqueue inside the caller's
 * transaction, which then commits. False once none failed. */
static bool
enqueue_without_memory(sqlite3 *db, struct wb_outbox *box, long n)
{
    struct wb_message m = {
        .kind = wb_slice("k"), .payload = wb_slice("p"), .key = wb_slice("x")};
    long before = rows_of(db);
    enum wb_status rc;
    bool failed;

    CHECK_INT(SQLITE_OK, sqlite3_exec(db, "BEGIN", NULL, NULL, NULL));
    memory = (struct memory){.fail = n, .ever = true};
    rc = wb_outbox_enqueue(box, &m, NULL, NULL);
    failed = memory.failed > 0;
    memory = (struct memory){0};
    /* SQLite itself may have rolled back the transaction. */
    CHECK(rc != WB_OK || !sqlite3_get_autocommit(db));
    if (!sqlite3_get_autocommit(db))
        CHECK_INT(SQLITE_OK, sqlite3_exec(db, "COMMIT", NULL, NULL, NULL));
    CHECK_INT(rc == WB_OK ? before + 1 : before, rows_of(db));
    return failed;
}

TEST(test_fault__no_memory_to_roll_back_with__callers_commit_has_nothing_of_it)
{
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};
    sqlite3 *db = NULL;
    long n = 1;
    bool more = true;

    while (more) {
        CHECK_INT(SQLITE_OK, sqlite3_open("own.db", &db));
        CHECK_OK(wb_outbox_adopt(&box, db, NULL, &err), err);
        more = enqueue_without_memory(db, box, n++);
        wb_outbox_close(box);
        CHECK_INT(SQLITE_OK, sqlite3_close(db));
    }
    CHECK(n > 50);
}

/* ---- the bug: without memory a checkpoint did not release its lock ------ */

TEST(test_fault__no_memory_in_a_checkpoint__lock_is_free_again)
{
    const struct wb_message m = {
        .kind = wb_slice("k"), .payload = wb_slice("p")};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};
    struct wb__sqlite *s;
    enum wb_status rc;
    long failed = 1;

    CHECK_OK(wb_outbox_open(&box, "box.db", NULL, &err), err);
    s = (struct wb__sqlite *)box->db;
    s->wal_long = 1;
    for (long n = 1; failed > 0; n++) {
        memory = (struct memory){.fail = n};
        rc = wb_outbox_enqueue(box, &m, NULL, NULL);
        failed = memory.failed;
        CHECK(rc == WB_OK || failed > 0);
        memory = (struct memory){0};
        CHECK(sqlite3_get_autocommit(s->handle));
        CHECK_OK(wb_outbox_enqueue(box, &m, NULL, &err), err);
    }
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_fault__any_io_once_or_for_ever__nothing_lost_then_all_delivered),
        RUN(test_fault__any_allocation_once_or_for_ever__nothing_lost_then_all_delivered),
        RUN(test_fault__clock_jumps_days_stands_still_runs__repeats_and_no_loss),
        RUN(test_fault__no_memory_to_roll_back_with__callers_commit_has_nothing_of_it),
        RUN(test_fault__no_memory_in_a_checkpoint__lock_is_free_again),
    };

    memory_install();
    return RUN_ALL(tests);
}
