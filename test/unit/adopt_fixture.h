/* adopt_fixture.h - a connection of the application's, and an outbox on it. */
#ifndef WB_TEST_ADOPT_FIXTURE_H
#define WB_TEST_ADOPT_FIXTURE_H

#include "outbox_fixture.h"

static inline const struct wb_outbox_opts *
opts(void)
{
    static struct wb_outbox_opts o;

    o = (struct wb_outbox_opts){.env = ENV, .busy_ms = 200};
    return &o;
}

static inline sqlite3 *
app_open(void)
{
    sqlite3 *db = NULL;

    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 5000);
    return db;
}

static inline void
run(sqlite3 *db, const char *sql)
{
    char *text = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        fail_msg("%s: %s", sql, text);
}

static inline int64_t
ask(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *q = NULL;
    int64_t v;

    CHECK(sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK);
    CHECK(sqlite3_step(q) == SQLITE_ROW);
    v = sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    return v;
}

static inline struct wb_outbox *
adopt(sqlite3 *db)
{
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_adopt(&box, db, opts(), &err), err);
    return box;
}

static inline int64_t
messages(void)
{
    return sql_int("SELECT count(*) FROM waybill_outbox");
}

#endif /* WB_TEST_ADOPT_FIXTURE_H */
