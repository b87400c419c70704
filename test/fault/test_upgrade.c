/* test_upgrade.c - tables of an older version, with messages in them, are
 * upgraded; power cuts during the upgrade (C25). */
#include "support.h"

#include <stdio.h>

#include "powercut_vfs.h"
#include "waybill/outbox.h"

enum {
    MESSAGES = 20
};

static struct powercut before, after; /* before and after the cut */
static struct wb_env env;
static long cuts;

static sqlite3 *
raw(struct powercut *disk)
{
    sqlite3 *db = NULL;

    CHECK_INT(SQLITE_OK,
        sqlite3_open_v2("box.db", &db,
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, disk->vfs.zName));
    return db;
}

static void
run(sqlite3 *db, const char *sql)
{
    char *text = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        print_error("%s: %s\n", sql, text);
    CHECK(text == NULL);
}

static long
number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *q = NULL;
    long n = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK &&
        sqlite3_step(q) == SQLITE_ROW)
        n = (long)sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    return n;
}

/* As a program in another language inserts: the columns of version 1. */
static void
insert(sqlite3 *db, int from, int n)
{
    char sql[256];

    for (int i = from; i < from + n; i++) {
        (void)snprintf(sql, sizeof(sql),
            "INSERT INTO waybill_outbox(id, kind, payload, key) VALUES"
            "('0190a000-0000-7000-8000-%012d', 'old.kind', '{}', 'key %d')",
            i, i);
        run(db, sql);
    }
}

/* What version 1 left: its tables and its messages. */
static void
make_old(struct powercut *disk)
{
    char *schema = test_read(test_source("src/db/schema/001_outbox.sql"), NULL);
    sqlite3 *db = raw(disk);

    run(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
    run(db, "BEGIN");
    run(db, schema);
    run(db, "INSERT INTO waybill_meta VALUES('version', 1), ('file', ''),"
            " ('incarnation', 4711)");
    run(db, "COMMIT");
    insert(db, 0, MESSAGES);
    (void)sqlite3_close(db);
    free(schema);
}

static struct wb_outbox *
open_on(struct powercut *disk)
{
    struct wb_outbox_opts opts = {.env = &env};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    env.vfs = disk->vfs.zName;
    CHECK_OK(wb_outbox_open(&box, "box.db", &opts, &err), err);
    return box;
}

static void
check_upgraded(struct powercut *disk, long messages)
{
    sqlite3 *db = raw(disk);

    CHECK(number(db, "SELECT value FROM waybill_meta WHERE name = 'version'") >
          1);
    CHECK_INT(messages, number(db, "SELECT count(*) FROM waybill_outbox WHERE"
                                   " status = 'pending'"));
    CHECK(number(db, "SELECT count(*) FROM waybill_idem") == 0);
    CHECK_INT(2, number(db, "SELECT count(*) FROM"
                            " pragma_table_info('waybill_outbox') WHERE"
                            " name IN ('ended_ms', 'attempts_log')"));
    CHECK_INT(0, number(db, "SELECT count(*) FROM pragma_integrity_check WHERE"
                            " integrity_check <> 'ok'"));
    (void)sqlite3_close(db);
}

static void
cut_here(void *ctx, struct powercut *disk)
{
    (void)ctx;
    for (int loss = 0; loss < POWERCUT_LOSSES; loss++) {
        powercut_cut(
            &after, disk, (enum powercut_loss)loss, (uint64_t)disk->ops);
        wb_outbox_close(open_on(&after));
        check_upgraded(&after, MESSAGES);
        cuts++;
    }
}

static void
begin(void)
{
    env = *ENV;
    cuts = 0;
    powercut_init(&before, "upgrade-before");
    powercut_init(&after, "upgrade-after");
}

static void
end(void)
{
    powercut_fini(&before);
    powercut_fini(&after);
}

TEST(test_upgrade__power_cut_at_any_operation__old_or_new_and_all_messages)
{
    begin();
    make_old(&before);
    before.before = cut_here;
    wb_outbox_close(open_on(&before));
    before.before = NULL;
    check_upgraded(&before, MESSAGES);
    print_message("%ld cuts\n", cuts);
    CHECK(cuts > 60);
    end();
}

/* A process of the old version has the file open and continues. */
TEST(test_upgrade__old_writer_continues__its_messages_are_kept)
{
    struct wb_outbox *box;
    sqlite3 *old;

    begin();
    make_old(&before);
    old = raw(&before);
    CHECK_INT(MESSAGES, number(old, "SELECT count(*) FROM waybill_outbox"));
    box = open_on(&before);
    insert(old, MESSAGES, 5);
    (void)sqlite3_close(old);
    wb_outbox_close(box);
    check_upgraded(&before, MESSAGES + 5);
    end();
}

TEST(test_upgrade__tables_of_a_newer_version__refused_and_unchanged)
{
    struct wb_outbox_opts opts = {.env = &env};
    struct wb_outbox *box = NULL;
    sqlite3 *db;
    long ops;

    begin();
    make_old(&before);
    db = raw(&before);
    run(db, "UPDATE waybill_meta SET value = 1000 WHERE name = 'version'");
    ops = before.ops;
    env.vfs = before.vfs.zName;
    CHECK_STATUS(NEWER, wb_outbox_open(&box, "box.db", &opts, NULL));
    CHECK_INT(ops, before.ops);
    (void)sqlite3_close(db);
    end();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_upgrade__power_cut_at_any_operation__old_or_new_and_all_messages),
        RUN(test_upgrade__old_writer_continues__its_messages_are_kept),
        RUN(test_upgrade__tables_of_a_newer_version__refused_and_unchanged),
    };

    return RUN_ALL(tests);
}
