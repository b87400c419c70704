/* test_adopt.c - O-3, I2: an outbox on a connection of the application's. */
#include <stdio.h>

#include "adopt_fixture.h"

/* ---- transactions ------------------------------------------------------ */

TEST(test_adopt__O3_commit_and_rollback__are_the_callers)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);

    run(db, "CREATE TABLE orders(n)");
    run(db, "BEGIN; INSERT INTO orders VALUES(1)");
    (void)box_put(box, "a");
    CHECK_INT(0, messages()); /* not yet for others */
    CHECK(!sqlite3_get_autocommit(db));
    run(db, "COMMIT");
    CHECK_INT(1, messages());
    run(db, "BEGIN; INSERT INTO orders VALUES(2)");
    (void)box_put(box, "a");
    (void)box_put(box, "a");
    run(db, "ROLLBACK");
    CHECK_INT(1, messages());
    CHECK_INT(1, sql_int("SELECT count(*) FROM orders"));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__O3_outside_a_transaction__commits_by_itself)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    struct taken t;

    (void)box_put(box, "a");
    CHECK_INT(1, messages());
    t = box_claim(box, NULL);
    box_confirm(box, &t);
    CHECK(sqlite3_get_autocommit(db));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* What a caller's transaction dates nothing of is dated outside of it. */
TEST(test_adopt__clock_was_ahead_in_a_transaction__dated_anew_outside)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    struct taken t;

    for (int inside_again = 0; inside_again < 2; inside_again++) {
        fake_env.wall_ms += 10 * DAY;
        run(db, "BEGIN");
        (void)box_put(box, "a");
        run(db, "COMMIT");
        fake_env.wall_ms -= 10 * DAY;
        if (inside_again) {
            run(db, "BEGIN");
            (void)box_put(box, "b");
            run(db, "COMMIT");
        }
        t = box_claim(box, "a");
        box_confirm(box, &t);
        fake_clock_advance_ms(120000);
    }
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* A message that is refused leaves the caller's transaction as it was. */
TEST(test_adopt__O3_refused_inside__transaction_goes_on)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    struct wb_message m = {.kind = S("a"), .payload = S("1"), .key = S("k")};

    run(db, "CREATE TABLE orders(n)");
    run(db, "BEGIN; INSERT INTO orders VALUES(1)");
    (void)box_send(box, m);
    m.payload = S("2");
    CHECK_STATUS(MISMATCH, box_try(box, m));
    m.kind = S("NO");
    CHECK_STATUS(INVALID, box_try(box, m));
    run(db, "INSERT INTO orders VALUES(2); COMMIT");
    CHECK_INT(1, messages());
    CHECK_INT(2, sql_int("SELECT count(*) FROM orders"));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__O3_savepoint_rolled_back__message_gone_with_it)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);

    run(db, "BEGIN");
    (void)box_put(box, "a");
    run(db, "SAVEPOINT s");
    (void)box_put(box, "a");
    run(db, "ROLLBACK TO s; RELEASE s");
    (void)box_put(box, "a");
    run(db, "COMMIT");
    CHECK_INT(2, messages());
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__O3_another_connection_writes__busy_and_nothing_begun)
{
    sqlite3 *db = app_open(), *other = app_open();
    struct wb_outbox *box = adopt(db);
    struct wb_message m = {.kind = S("a")};

    (void)sqlite3_busy_timeout(db, 50);
    run(other, "BEGIN IMMEDIATE");
    CHECK_STATUS(BUSY, box_try(box, m));
    CHECK(sqlite3_get_autocommit(db));
    run(db, "BEGIN; SELECT * FROM waybill_outbox");
    CHECK_STATUS(BUSY, box_try(box, m));
    CHECK(!sqlite3_get_autocommit(db));
    run(db, "COMMIT");
    run(other, "ROLLBACK");
    (void)box_send(box, m);
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    CHECK(sqlite3_close(other) == SQLITE_OK);
}

/* ---- what is refused --------------------------------------------------- */

TEST(test_adopt__O3_inside_a_transaction__refused)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = NULL;

    run(db, "CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)");
    CHECK_STATUS(REFUSED, wb_outbox_adopt(&box, db, opts(), NULL));
    CHECK(box == NULL);
    CHECK(!sqlite3_get_autocommit(db));
    run(db, "COMMIT");
    CHECK_INT(1, ask(db, "SELECT count(*) FROM t"));
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__O3_in_memory__refused)
{
    struct wb_outbox *box = NULL;
    sqlite3 *db = NULL;

    CHECK(sqlite3_open(":memory:", &db) == SQLITE_OK);
    CHECK_STATUS(REFUSED, wb_outbox_adopt(&box, db, opts(), NULL));
    CHECK_STATUS(REFUSED, wb_outbox_attach(&box, db, opts(), NULL));
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__O3_read_only__refused)
{
    struct wb_outbox *box = box_open();
    sqlite3 *db = NULL;

    wb_outbox_close(box);
    box = NULL;
    CHECK(sqlite3_open_v2(BOX, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK);
    CHECK_STATUS(REFUSED, wb_outbox_adopt(&box, db, opts(), NULL));
    CHECK_STATUS(REFUSED, wb_outbox_attach(&box, db, opts(), NULL));
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_attach__O3_not_wal_or_not_full__refused_and_unchanged)
{
    struct wb_outbox *box = NULL;
    sqlite3 *db = app_open();
    struct wb_err err = {0};

    CHECK_STATUS(REFUSED, wb_outbox_attach(&box, db, opts(), &err));
    CHECK_HAS("WAL", err.msg);
    CHECK_TEXT("delete", sql_text("PRAGMA journal_mode"));
    run(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL");
    CHECK_STATUS(REFUSED, wb_outbox_attach(&box, db, opts(), &err));
    CHECK_HAS("FULL", err.msg);
    CHECK_INT(1, ask(db, "PRAGMA synchronous"));
    run(db, "PRAGMA synchronous=FULL");
    CHECK_STATUS(NOTFOUND, wb_outbox_attach(&box, db, opts(), &err));
    CHECK_INT(0, ask(db, "SELECT count(*) FROM sqlite_schema"));
    wb_outbox_close(adopt(db));
    CHECK_STATUS(OK, wb_outbox_attach(&box, db, opts(), &err));
    (void)box_put(box, "a");
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* NEWER, CORRUPT: "nothing changed" holds for the mode of the file as well. */
TEST(test_adopt__tables_not_ours_or_newer__connection_unchanged)
{
    struct wb_outbox *box = NULL;
    sqlite3 *db = app_open();

    run(db, "PRAGMA synchronous=NORMAL; CREATE TABLE waybill_meta(name, value);"
            "CREATE TABLE waybill_outbox(a)");
    CHECK_STATUS(CORRUPT, wb_outbox_adopt(&box, db, opts(), NULL));
    run(db, "INSERT INTO waybill_meta VALUES('version', 999)");
    CHECK_STATUS(NEWER, wb_outbox_adopt(&box, db, opts(), NULL));
    CHECK_TEXT("delete", sql_text("PRAGMA journal_mode"));
    CHECK_INT(1, ask(db, "PRAGMA synchronous"));
    CHECK_INT(1000, ask(db, "PRAGMA wal_autocheckpoint"));
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* ---- the connection, the file ------------------------------------------ */

TEST(test_adopt__O3_adopted__wal_full_and_the_checkpoint_rule)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box;

    run(db, "PRAGMA synchronous=OFF; PRAGMA user_version=5;"
            "PRAGMA application_id=6; CREATE TABLE mine(a)");
    box = adopt(db);
    CHECK_TEXT("wal", sql_text("PRAGMA journal_mode"));
    CHECK_INT(2, ask(db, "PRAGMA synchronous"));
    CHECK_INT(0, ask(db, "PRAGMA wal_autocheckpoint"));
    CHECK_INT(5, ask(db, "PRAGMA user_version"));
    CHECK_INT(6, ask(db, "PRAGMA application_id"));
    CHECK_INT(0, ask(db, "SELECT count(*) FROM mine"));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

static size_t
log_bytes(void)
{
    size_t len = 0;

    free(test_read(BOX "-wal", &len));
    return len;
}

/* The application's own commits, too, end in the guarded checkpoint. */
TEST(test_adopt__O3_long_log__checkpointed_from_the_hook)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    size_t longest = 0;

    run(db, "CREATE TABLE mine(a)");
    for (int i = 0; i < 300; i++) {
        run(db, "INSERT INTO mine VALUES(randomblob(100000))");
        if (log_bytes() > longest)
            longest = log_bytes();
    }
    CHECK(longest < 2 * 1000 * 4120); /* of 30 MB written */
    run(db, "BEGIN");
    (void)box_put(box, "a");
    run(db, "COMMIT");
    CHECK_INT(300, sql_int("SELECT count(*) FROM mine"));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* ... also while a statement of the application is being read. */
TEST(test_adopt__O3_checkpoint_under_an_open_select__select_goes_on)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    sqlite3_stmt *q = NULL;
    int rows = 0;

    run(db, "CREATE TABLE mine(a); CREATE TABLE log(a);"
            "INSERT INTO mine VALUES(1), (2), (3), (4)");
    CHECK(sqlite3_prepare_v2(db, "SELECT a FROM mine", -1, &q, NULL) ==
          SQLITE_OK);
    while (sqlite3_step(q) == SQLITE_ROW) {
        rows++;
        for (int i = 0; i < 30; i++)
            run(db, "INSERT INTO log VALUES(randomblob(200000))");
        (void)box_put(box, "a");
    }
    CHECK_INT(4, rows);
    (void)sqlite3_finalize(q);
    CHECK_INT(4, messages());
    CHECK_TEXT("ok", sql_text("PRAGMA integrity_check"));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

static int
count_hook(void *n, sqlite3 *db, const char *schema, int frames)
{
    (void)db;
    (void)schema;
    (void)frames;
    (*(int *)n)++;
    return SQLITE_OK;
}

/* Attach changes nothing: neither does its end. */
TEST(test_attach__O3_wal_hook_of_the_callers__stays_through_close)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = NULL;
    int n = 0;

    wb_outbox_close(adopt(db));
    (void)sqlite3_wal_hook(db, count_hook, &n);
    CHECK_STATUS(OK, wb_outbox_attach(&box, db, opts(), NULL));
    (void)box_put(box, "a");
    CHECK_INT(1, n);
    wb_outbox_close(box);
    run(db, "CREATE TABLE mine(a)");
    CHECK_INT(2, n);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__O3_not_adopted_after_all__wal_hook_stays)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = NULL;
    int n = 0;

    run(db, "PRAGMA journal_mode=WAL; CREATE TABLE waybill_outbox(a)");
    (void)sqlite3_wal_hook(db, count_hook, &n);
    CHECK_STATUS(CORRUPT, wb_outbox_adopt(&box, db, opts(), NULL));
    run(db, "CREATE TABLE mine(a)");
    CHECK_INT(1, n);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* An application whose file is UTF-16. */
TEST(test_adopt__O3_utf16_file__messages_as_they_were_given)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box;
    struct wb_message m = {.kind = S("a"),
        .payload = S("gr\xc3\xbc\xc3\x9f"),
        .key = S("k\xc3\xa4"),
        .lane = S("l\xc3\xa4")};
    struct taken t;

    run(db, "PRAGMA encoding='UTF-16'; CREATE TABLE mine(a)");
    box = adopt(db);
    (void)box_send(box, m);
    CHECK(box_send(box, m).duplicate);
    t = box_claim(box, NULL);
    CHECK_TEXT("gr\xc3\xbc\xc3\x9f", t.payload);
    CHECK_TEXT("l\xc3\xa4", t.lane);
    box_confirm(box, &t);
    CHECK(box_send(box, m).duplicate);
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_adopt__health_and_list__work_on_a_borrowed_one)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);
    struct wb_filter all = {.state = -1};
    struct wb_health h;
    struct wb_err err = {0};
    int n = 0;

    run(db, "BEGIN");
    (void)box_put(box, "a");
    CHECK_OK(wb_outbox_list(box, &all, row_count, &n, &err), err);
    CHECK_INT(1, n);
    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK(h.full_sync);
    run(db, "ROLLBACK");
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_adopt__O3_commit_and_rollback__are_the_callers),
        RUN(test_adopt__O3_outside_a_transaction__commits_by_itself),
        RUN(test_adopt__clock_was_ahead_in_a_transaction__dated_anew_outside),
        RUN(test_adopt__O3_refused_inside__transaction_goes_on),
        RUN(test_adopt__O3_savepoint_rolled_back__message_gone_with_it),
        RUN(test_adopt__O3_another_connection_writes__busy_and_nothing_begun),
        RUN(test_adopt__O3_inside_a_transaction__refused),
        RUN(test_adopt__O3_in_memory__refused),
        RUN(test_adopt__O3_read_only__refused),
        RUN(test_attach__O3_not_wal_or_not_full__refused_and_unchanged),
        RUN(test_adopt__tables_not_ours_or_newer__connection_unchanged),
        RUN(test_adopt__O3_adopted__wal_full_and_the_checkpoint_rule),
        RUN(test_adopt__O3_long_log__checkpointed_from_the_hook),
        RUN(test_adopt__O3_checkpoint_under_an_open_select__select_goes_on),
        RUN(test_attach__O3_wal_hook_of_the_callers__stays_through_close),
        RUN(test_adopt__O3_not_adopted_after_all__wal_hook_stays),
        RUN(test_adopt__O3_utf16_file__messages_as_they_were_given),
        RUN(test_adopt__health_and_list__work_on_a_borrowed_one),
    };
    return RUN_ALL(tests);
}
