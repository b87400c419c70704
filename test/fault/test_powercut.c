/* test_powercut.c - samples of the power-cut campaigns; tools/torture runs them
 * in full. C1, C2, C3 of the fault model; I1, I2, I4, I12, I17. */
#include "support.h"

#include <stdio.h>

#include "campaign.h"

/* THINNED: the cut is at one of so many operations; sanitized builds are slow.
 */

static void
check_sound(const struct campaign *c)
{
    if (findings_sum(&c->found) != 0)
        print_error("repeat with: powercut %s\n", c->first);
    CHECK_INT(0, findings_sum(&c->found));
}

/* ---- the disk itself --------------------------------------------------- */

static sqlite3 *
open_raw(struct powercut *disk, const char *pragmas)
{
    sqlite3 *db = NULL;

    CHECK_INT(SQLITE_OK,
        sqlite3_open_v2("raw.db", &db,
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, disk->vfs.zName));
    CHECK_INT(SQLITE_OK, sqlite3_exec(db, pragmas, NULL, NULL, NULL));
    return db;
}

static int
rows_after_cut(struct powercut *disk, enum powercut_loss loss)
{
    sqlite3_stmt *q = NULL;
    sqlite3 *db;
    int rows = -1;

    powercut_cut(disk, disk, loss, 7);
    db = open_raw(disk, "PRAGMA wal_autocheckpoint=0");
    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &q, NULL) ==
            SQLITE_OK &&
        sqlite3_step(q) == SQLITE_ROW)
        rows = sqlite3_column_int(q, 0);
    (void)sqlite3_finalize(q);
    (void)sqlite3_close(db);
    return rows;
}

/* Two rows: one synced, one not. */
static int
one_of_two(enum powercut_loss loss)
{
    struct powercut disk;
    sqlite3 *db;
    int rows;

    powercut_init(&disk, "powercut-test");
    db = open_raw(&disk, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                         "CREATE TABLE t(x); INSERT INTO t VALUES(1);"
                         "PRAGMA synchronous=OFF; INSERT INTO t VALUES(2)");
    disk.cut_at = disk.ops + 1;
    CHECK(sqlite3_exec(db, "INSERT INTO t VALUES(3)", NULL, NULL, NULL) !=
          SQLITE_OK);
    CHECK(disk.dead);
    (void)sqlite3_close(db);
    rows = rows_after_cut(&disk, loss);
    powercut_fini(&disk);
    return rows;
}

TEST(test_disk__cut__synced_stays_and_unsynced_may_be_lost)
{
    CHECK_INT(1, one_of_two(POWERCUT_LOSE));
    CHECK_INT(2, one_of_two(POWERCUT_KEEP));
}

TEST(test_disk__sync_fails__bytes_are_read_but_never_durable)
{
    struct powercut disk;
    sqlite3 *db;

    powercut_init(&disk, "powercut-test");
    db = open_raw(&disk,
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)");
    disk.fault = (struct powercut_fault){
        .kinds = POWERCUT_SYNC, .code = SQLITE_IOERR_FSYNC};
    CHECK_INT(SQLITE_IOERR,
        sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL));
    CHECK_INT(1, disk.fault.fired);
    CHECK_INT(SQLITE_OK,
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL));
    (void)sqlite3_close(db);
    CHECK_INT(0, rows_after_cut(&disk, POWERCUT_KEEP));
    powercut_fini(&disk);
}

/* ---- C1 ---------------------------------------------------------------- */

TEST(test_powercut__at_any_operation__nothing_acknowledged_is_lost)
{
    struct campaign c = {.seeds = 3, .every = THINNED};

    campaign_cut(&c);
    check_sound(&c);
    CHECK(c.points[0] > 8000 / THINNED && c.risky > 2000 / THINNED);
    CHECK(c.acked > 200 && c.confirmed > 50);
}

/* This journal mode is safe: the campaign must not report a loss. */
TEST(test_powercut__journal_delete_extra__nothing_is_lost)
{
    struct campaign c = {.every = 4 * THINNED, .sabotage = JOURNAL_EXTRA};

    campaign_cut(&c);
    check_sound(&c);
}

static void
check_loss_found(enum sabotage sabotage)
{
    struct campaign c = {.every = 10, .sabotage = sabotage};

    campaign_cut(&c);
    print_message("%s: lost %ld, revived %ld\n", sabotage_name[sabotage],
        c.found.lost, c.found.revived);
    CHECK(c.found.lost > 0);
}

TEST(test_powercut__synchronous_normal__is_detected)
{
    check_loss_found(SYNC_NORMAL);
}

TEST(test_powercut__synchronous_off__is_detected)
{
    check_loss_found(SYNC_OFF);
}

TEST(test_powercut__journal_delete_full__is_detected)
{
    check_loss_found(JOURNAL_DELETE);
}

TEST(test_powercut__lying_sync__is_detected)
{
    check_loss_found(LYING_SYNC);
}

/* ---- C2 ---------------------------------------------------------------- */

TEST(test_powercut__again_during_recovery__nothing_acknowledged_is_lost)
{
    struct campaign c = {.seed = 100,
        .every = 4 * THINNED,
        .depth = 3,
        .deepen = 1 + 30 / THINNED};

    campaign_cut(&c);
    check_sound(&c);
    CHECK(c.points[1] > 200);
}

/* ---- C3 ---------------------------------------------------------------- */

TEST(test_powercut__sync_failed__failed_writes_nothing_and_reopened_repairs)
{
    struct campaign c = {.seed = 200, .every = 8 * THINNED};

    campaign_sync(&c);
    check_sound(&c);
    CHECK(c.syncs > 50 && c.refused > 100);
    CHECK_INT(0, c.wrote);
}

/* The bug: reopened after a failed sync, a store appended behind a gap in its
 * log, and the next power cut lost what it had acknowledged since. */
TEST(test_powercut__opened_without_repair_after_failed_sync__is_detected)
{
    struct campaign c = {.seed = 200, .every = 8 * THINNED, .no_repair = true};

    campaign_sync(&c);
    CHECK(c.found.lost > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_disk__cut__synced_stays_and_unsynced_may_be_lost),
        RUN(test_disk__sync_fails__bytes_are_read_but_never_durable),
        RUN(test_powercut__at_any_operation__nothing_acknowledged_is_lost),
        RUN(test_powercut__journal_delete_extra__nothing_is_lost),
        RUN(test_powercut__synchronous_normal__is_detected),
        RUN(test_powercut__synchronous_off__is_detected),
        RUN(test_powercut__journal_delete_full__is_detected),
        RUN(test_powercut__lying_sync__is_detected),
        RUN(test_powercut__again_during_recovery__nothing_acknowledged_is_lost),
        RUN(test_powercut__sync_failed__failed_writes_nothing_and_reopened_repairs),
        RUN(test_powercut__opened_without_repair_after_failed_sync__is_detected),
    };

    return RUN_ALL(tests);
}
