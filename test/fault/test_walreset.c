/* test_walreset.c - SQLite's WAL-reset bug (3.7.0 to 3.51.2), forced (C23).
 *
 * After a checkpoint has read the size of the log and before it copies the
 * frames, another connection commits and so restarts the log. The checkpoint
 * then marks frames as copied that it has never seen, and the next restart of
 * the log overwrites them: commits are lost, and integrity_check reports ok. A
 * hook in the checkpointer's file makes the commit at that moment. */
#include "support.h"

#include <stdio.h>

#include "db/sqlite.h"
#include "outbox/outbox_internal.h"

enum {
    BATCH = 40,
    PAYLOAD = 3000
};

static sqlite3_io_methods hooked;
static const sqlite3_io_methods *plain;
static struct wb_outbox *other; /* commits at the wrong moment */
static int armed, fired;
static enum wb_status answer;
static long accepted;

static enum wb_status
put(struct wb_outbox *box)
{
    static char payload[PAYLOAD];
    struct wb_message m = {
        .kind = wb_slice("k"), .payload = {payload, sizeof(payload)}};
    enum wb_status rc = wb_outbox_enqueue(box, &m, NULL, NULL);

    accepted += rc == WB_OK;
    return rc;
}

static int
unfetch(sqlite3_file *file, sqlite3_int64 at, void *page)
{
    if (armed) {
        armed = 0;
        fired++;
        answer = put(other);
    }
    return plain->xUnfetch(file, at, page);
}

static void
hook(sqlite3 *db)
{
    sqlite3_file *file = NULL;

    CHECK_INT(SQLITE_OK,
        sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file));
    plain = file->pMethods;
    hooked = *plain;
    hooked.xUnfetch = unfetch;
    file->pMethods = &hooked;
}

static sqlite3 *
open_raw(void)
{
    sqlite3 *db = NULL;

    CHECK_INT(SQLITE_OK, sqlite3_open("box.db", &db));
    CHECK_INT(SQLITE_OK,
        sqlite3_exec(db,
            "PRAGMA wal_autocheckpoint=0; SELECT * FROM waybill_outbox", NULL,
            NULL, NULL));
    return db;
}

static struct wb_outbox *
open_box(void)
{
    struct wb_outbox_opts opts = {.busy_ms = 1};
    struct wb_err err = {0};
    struct wb_outbox *box = NULL;

    CHECK_OK(wb_outbox_open(&box, "box.db", &opts, &err), err);
    return box;
}

static struct wb__sqlite *
engine(struct wb_outbox *box)
{
    return (struct wb__sqlite *)box->db;
}

/* Fill the log and copy all of it: the next commit restarts the log. */
static void
fill_and_checkpoint(sqlite3 *db)
{
    for (int i = 0; i < BATCH; i++)
        CHECK_STATUS(OK, put(other));
    CHECK_INT(SQLITE_OK, sqlite3_wal_checkpoint_v2(
                             db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL));
}

/* Messages in the file, -1 where it is damaged. */
static long
count(void)
{
    sqlite3_stmt *q = NULL;
    sqlite3 *db = NULL;
    long n = -1;

    if (sqlite3_open("box.db", &db) == SQLITE_OK &&
        sqlite3_prepare_v2(db, "SELECT count(*) FROM waybill_outbox", -1, &q,
            NULL) == SQLITE_OK &&
        sqlite3_step(q) == SQLITE_ROW)
        n = (long)sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    (void)sqlite3_close(db);
    return n;
}

/* Fill the log after the commit of the hook, truncate it, count the messages.
 */
static long
present_after(sqlite3 *db)
{
    CHECK_INT(1, fired);
    for (int i = 0; i < BATCH - 1; i++)
        CHECK_STATUS(OK, put(other));
    (void)sqlite3_wal_checkpoint_v2(
        db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    (void)sqlite3_close(db);
    wb_outbox_close(other);
    return count();
}

static void
begin(void)
{
    armed = fired = 0;
    accepted = 0;
    other = open_box();
}

TEST(test_walreset__guarded_checkpoint__commit_waits_and_nothing_is_lost)
{
    struct wb_outbox *box;
    sqlite3 *db;
    long present;

    begin();
    box = open_box();
    db = open_raw();
    engine(box)->wal_long = 1;
    CHECK_STATUS(OK, put(box)); /* the checkpointer is opened */
    CHECK(engine(box)->checkpointer != NULL);
    hook(engine(box)->checkpointer);
    fill_and_checkpoint(db);
    engine(box)->wal_frames = engine(box)->checkpoint_at = 1;
    armed = 1;
    CHECK_STATUS(OK, wb__sqlite_checkpoint(engine(box), NULL));
    CHECK_INT(WB_BUSY, answer);
    wb_outbox_close(box);
    present = present_after(db); /* accepts more messages before it counts */
    CHECK_INT(accepted, present);
}

static bool
is_affected(void)
{
    int v = sqlite3_libversion_number();
    bool repaired = (v >= 3044006 && v < 3045000) ||
                    (v >= 3050007 && v < 3051000) || v >= 3051003;

    return v >= 3007000 && !repaired;
}

/* The control: without the guard the same commit loses messages; else the test
 * above would prove nothing. */
TEST(test_walreset__plain_passive_checkpoint__loses_on_an_affected_sqlite)
{
    sqlite3 *db, *checkpointer;
    long present;

    begin();
    CHECK_STATUS(OK, put(other));
    db = open_raw();
    checkpointer = open_raw();
    hook(checkpointer);
    fill_and_checkpoint(db);
    armed = 1;
    (void)sqlite3_wal_checkpoint_v2(
        checkpointer, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    CHECK_STATUS(OK, answer);
    (void)sqlite3_close(checkpointer);
    present = present_after(db);
    print_message("SQLite %s: accepted %ld, present %ld\n",
        sqlite3_libversion(), accepted, present);
    if (is_affected())
        CHECK(present < accepted);
    else
        CHECK_INT(accepted, present);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_walreset__guarded_checkpoint__commit_waits_and_nothing_is_lost),
        RUN(test_walreset__plain_passive_checkpoint__loses_on_an_affected_sqlite),
    };

    return RUN_ALL(tests);
}
