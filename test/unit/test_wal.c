/* test_wal.c - the log of SQLite: it is shortened when it was long, used again
 * when it has filled the disk, and does not stall an exclusive connection. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "adopt_fixture.h"
#include "db/sqlite.h"
#include "outbox/outbox_internal.h"

static struct wb__sqlite *
engine(struct wb_outbox *box)
{
    return (struct wb__sqlite *)box->db;
}

static int64_t
size_of(const char *path)
{
    struct stat st;

    CHECK(stat(path, &st) == 0);
    return st.st_size;
}

/* A reader that keeps what it sees now; its close lets go. */
static sqlite3 *
reader(void)
{
    sqlite3 *db = app_open();

    run(db, "BEGIN; SELECT count(*) FROM waybill_outbox");
    return db;
}

/* Ten messages of 1 MB, while a reader keeps the log from being used again. */
static void
grow(struct wb_outbox *box)
{
    static char bytes[1000000];
    const struct wb_message m = {
        .kind = wb_slice("a"), .payload = {bytes, sizeof(bytes)}};
    sqlite3 *db = reader();

    for (int i = 0; i < 10; i++)
        (void)box_send(box, m);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    CHECK(size_of(BOX "-wal") > 9000000);
}

TEST(test_wal__reader_is_gone_and_nothing_is_written__cut)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};

    grow(box);
    fake_clock_advance_ms(10001); /* the reader was there a moment ago */
    CHECK_OK(wb_outbox_count(box, kind_ignore, NULL, &err), err);
    CHECK_INT(WB__LOG_KEPT_BYTES, size_of(BOX "-wal"));
    CHECK_INT(10, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* The limit of this process stands for the disk: the log may not grow. */
TEST(test_wal__log_fills_the_disk__used_again_once_the_reader_is_gone)
{
    struct wb_outbox *box = box_open();
    struct rlimit old, tight;
    sqlite3 *db = reader();
    enum wb_status rc = WB_OK;
    bool on = false;

    (void)signal(SIGXFSZ, SIG_IGN);
    CHECK_INT(0, getrlimit(RLIMIT_FSIZE, &old));
    tight = old;
    tight.rlim_cur = 500000;
    CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &tight));
    for (int i = 0; i < 1000 && rc == WB_OK; i++)
        rc = wb_outbox_pause(box, S("k"), on = !on, NULL);
    CHECK_INT(WB_FULL, rc);
    CHECK_STATUS(FULL, wb_outbox_pause(box, S("k"), true, NULL));
    CHECK(sqlite3_close(db) == SQLITE_OK);
    rc = wb_outbox_pause(box, S("k"), true, NULL);
    CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &old));
    CHECK_INT(WB_OK, rc);
    wb_outbox_close(box);
}

TEST(test_wal__exclusive_connection__moved_by_itself_without_a_second_one)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box;
    int64_t before;

    run(db, "PRAGMA locking_mode=EXCLUSIVE");
    box = adopt(db);
    before = size_of(BOX);
    engine(box)->wal_long = 1;
    for (int i = 0; i < 5; i++) {
        run(db, "BEGIN IMMEDIATE");
        for (int j = 0; j < 20; j++)
            (void)box_put_lane(box, "a", "a lane of some length");
        run(db, "COMMIT");
    }
    CHECK(engine(box)->checkpointer == NULL);
    CHECK(size_of(BOX) > before);
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    CHECK_INT(100, messages());
}

TEST(test_wal__made_exclusive_after_a_checkpoint__not_locked_out)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);

    engine(box)->wal_long = 1;
    (void)box_put(box, "a");
    (void)box_put(box, "a");
    (void)sqlite3_busy_timeout(db, 0);
    run(db, "PRAGMA locking_mode=EXCLUSIVE");
    (void)box_put(box, "a");
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    CHECK_INT(3, messages());
}

TEST(test_wal__locked_by_another__says_which_file_and_how_to_find_it)
{
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.busy_ms = 50});
    const struct wb_message m = {.kind = wb_slice("a")};
    void *lock = box_lock();
    struct wb_err err = {0};

    CHECK_STATUS(BUSY, wb_outbox_enqueue(box, &m, NULL, &err));
    CHECK_HAS("fuser -v /", err.msg);
    CHECK_HAS(BOX, err.msg);
    box_unlock(lock);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_wal__reader_is_gone_and_nothing_is_written__cut),
        RUN(test_wal__log_fills_the_disk__used_again_once_the_reader_is_gone),
        RUN(test_wal__exclusive_connection__moved_by_itself_without_a_second_one),
        RUN(test_wal__made_exclusive_after_a_checkpoint__not_locked_out),
        RUN(test_wal__locked_by_another__says_which_file_and_how_to_find_it),
    };
    return RUN_ALL(tests);
}
