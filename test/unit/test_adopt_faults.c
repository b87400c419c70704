/* test_adopt_faults.c - O-3, I17: faults on a connection of the
 * application, and which outbox reports them. */
#include <sys/stat.h>

#include "adopt_fixture.h"
#include "shim_vfs.h"

/* A sync that fails in the caller's own COMMIT drops unsynced data, and the
 * error is reported once: messages accepted after it would follow a gap in the
 * log. */
TEST(test_adopt__callers_commit_fails__failed_until_reopened)
{
    const struct wb_message m = {.kind = S("a")};
    sqlite3 *db = NULL;
    struct wb_outbox *box;

    shim_install();
    CHECK(sqlite3_open_v2(BOX, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
              "shim") == SQLITE_OK);
    box = adopt(db);
    run(db, "CREATE TABLE t(x UNIQUE); BEGIN");
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    shim_fail(SHIM_SYNC, 0, SQLITE_IOERR_FSYNC, false);
    CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK);
    shim_heal();
    (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    CHECK_STATUS(IO, wb_outbox_enqueue(box, &m, NULL, NULL));
    run(db, "BEGIN");
    CHECK_STATUS(IO, wb_outbox_enqueue(box, &m, NULL, NULL));
    run(db, "ROLLBACK");
    wb_outbox_close(box);
    box = adopt(db);
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* Two outboxes on one connection: an error that one of them gets is reported to
 * the other, too. */
TEST(test_adopt__two_on_one_connection__both_failed)
{
    const struct wb_message m = {.kind = S("a")};
    sqlite3 *db = NULL;
    struct wb_outbox *first, *second;

    shim_install();
    CHECK(sqlite3_open_v2(BOX, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
              "shim") == SQLITE_OK);
    for (int own = 0; own < 2; own++) {
        first = adopt(db);
        second = adopt(db);
        if (own == 0)
            run(db, "BEGIN");
        shim_fail(SHIM_SYNC, 0, SQLITE_IOERR_FSYNC, false);
        CHECK_INT(
            own == 0 ? WB_OK : WB_IO, wb_outbox_enqueue(first, &m, NULL, NULL));
        if (own == 0)
            CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK);
        shim_heal();
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        CHECK_STATUS(IO, wb_outbox_enqueue(first, &m, NULL, NULL));
        CHECK_STATUS(IO, wb_outbox_enqueue(second, &m, NULL, NULL));
        wb_outbox_close(own == 0 ? first : second);
        wb_outbox_close(own == 0 ? second : first);
    }
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* The hooks go with the last of them. */
TEST(test_adopt__one_of_two_closed__log_still_moved)
{
    static char big[200000];
    const struct wb_message m = {.kind = S("a"), .payload = {big, sizeof(big)}};
    sqlite3 *db = app_open();
    struct wb_outbox *box[2];
    struct stat st;

    for (int closed = 0; closed < 2; closed++) {
        box[0] = adopt(db);
        box[1] = adopt(db);
        wb_outbox_close(box[closed]);
        for (int i = 0; i < 50; i++)
            CHECK_STATUS(
                OK, wb_outbox_enqueue(box[1 - closed], &m, NULL, NULL));
        CHECK(stat(BOX "-wal", &st) == 0);
        CHECK(st.st_size < 8 << 20);
        wb_outbox_close(box[1 - closed]);
    }
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__caller_rolls_back__next_enqueues_work)
{
    const struct wb_message m = {.kind = S("a")};
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);

    run(db, "CREATE TABLE t(x UNIQUE); INSERT INTO t VALUES(1)");
    run(db, "BEGIN IMMEDIATE");
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    run(db, "ROLLBACK");
    run(db, "BEGIN IMMEDIATE");
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    CHECK(sqlite3_exec(db, "INSERT OR ROLLBACK INTO t VALUES(1)", NULL, NULL,
              NULL) != SQLITE_OK);
    CHECK(sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL) !=
          SQLITE_OK);
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    CHECK_INT(1, messages());
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

static int
stop_it(void *on)
{
    return *(int *)on;
}

/* A progress handler, or sqlite3_interrupt(), of the application's. */
TEST(test_adopt__interrupted__busy_and_goes_on)
{
    const struct wb_message m = {.kind = S("a")};
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    int on = 1;

    sqlite3_progress_handler(db, 1, stop_it, &on);
    CHECK_STATUS(BUSY, wb_outbox_enqueue(box, &m, NULL, NULL));
    on = 0;
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    run(db, "BEGIN");
    on = 1;
    CHECK_STATUS(BUSY, wb_outbox_enqueue(box, &m, NULL, NULL));
    on = 0;
    (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    CHECK_INT(2, messages());
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

static void
roll_back(sqlite3_context *ctx, int n, sqlite3_value **args)
{
    (void)n;
    (void)args;
    (void)sqlite3_exec(
        sqlite3_context_db_handle(ctx), "ROLLBACK", NULL, NULL, NULL);
}

/* SQLITE_ABORT in a write transaction: no write failed. */
TEST(test_adopt__caller_rolls_back_inside_our_statement__busy_not_failed)
{
    const struct wb_message m = {.kind = S("a")};
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);

    CHECK(sqlite3_create_function(db, "roll_back", 0, SQLITE_UTF8, NULL,
              roll_back, NULL, NULL) == SQLITE_OK);
    run(db, "CREATE TRIGGER t BEFORE INSERT ON waybill_outbox BEGIN"
            " SELECT roll_back(); END");
    CHECK_STATUS(BUSY, wb_outbox_enqueue(box, &m, NULL, NULL));
    run(db, "BEGIN");
    CHECK_STATUS(BUSY, wb_outbox_enqueue(box, &m, NULL, NULL));
    CHECK_INT(0, messages());
    run(db, "DROP TRIGGER t");
    CHECK_STATUS(OK, wb_outbox_enqueue(box, &m, NULL, NULL));
    CHECK_INT(1, messages());
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_adopt__callers_commit_fails__failed_until_reopened),
        RUN(test_adopt__two_on_one_connection__both_failed),
        RUN(test_adopt__one_of_two_closed__log_still_moved),
        RUN(test_adopt__caller_rolls_back__next_enqueues_work),
        RUN(test_adopt__interrupted__busy_and_goes_on),
        RUN(test_adopt__caller_rolls_back_inside_our_statement__busy_not_failed),
    };
    return RUN_ALL(tests);
}
