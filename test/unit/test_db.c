/* test_db.c - the statements and the tables: query plans pinned (O-18), states
 * and constraints the same in C and in SQL. */
#include "db/sql.h"

#include <stdio.h>

#include "db/sqlite.h"
#include "outbox/outbox_internal.h"
#include "outbox_fixture.h"

static const struct {
    const char *name, *sql;
} statements[] = {
#define X(name, sqlite, postgres) {#name, (sqlite)},
    WB__SQL_MAP(X)
#undef X
};

static sqlite3 *
open_plain(void)
{
    struct wb_outbox *box = box_open();
    sqlite3 *db = NULL;

    wb_outbox_close(box);
    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    return db;
}

/* All of EXPLAIN QUERY PLAN's lines; static. */
static const char *
plan_of(sqlite3 *db, const char *sql)
{
    static char plan[4096];
    char explain[4096];
    sqlite3_stmt *q = NULL;
    size_t n = 0;

    plan[0] = '\0';
    (void)snprintf(explain, sizeof(explain), "EXPLAIN QUERY PLAN %s", sql);
    if (sqlite3_prepare_v2(db, explain, -1, &q, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    while (sqlite3_step(q) == SQLITE_ROW)
        n += (size_t)snprintf(plan + n, sizeof(plan) - n, "%s;",
            (const char *)sqlite3_column_text(q, 3));
    (void)sqlite3_finalize(q);
    return plan;
}

static const char *
sql_of(const char *name)
{
    for (size_t i = 0; i < WB_COUNT(statements); i++)
        if (strcmp(statements[i].name, name) == 0)
            return statements[i].sql;
    fail_msg("no statement %s", name);
    return NULL;
}

/* Those that are for people, or for once in a file's life, may walk. ROWS walks
 * the narrow indexes, and only where max_rows is set. */
static bool
may_scan(const char *name)
{
    static const char *const list[] = {"ROWS", "COUNTS", "LIST", "STUCK",
        "RESET_PROBES", "RESET_STALE", "TOKENS_FORGET", "PROMOTE_LONG",
        "DATE_ANEW", "PROBES_ANEW", "FUTURE", "SHOW_END"};

    for (size_t i = 0; i < WB_COUNT(list); i++)
        if (strcmp(list[i], name) == 0)
            return true;
    return false;
}

TEST(test_db__O18_every_statement__no_walk_over_the_outbox)
{
    sqlite3 *db = open_plain();

    for (size_t i = 0; i < WB_COUNT(statements); i++) {
        const char *plan = plan_of(db, statements[i].sql);

        if (!may_scan(statements[i].name) &&
            strstr(plan, "SCAN waybill_outbox") != NULL)
            fail_msg("%s: %s", statements[i].name, plan);
        if (strstr(plan, "AUTOMATIC") != NULL)
            fail_msg("%s: %s", statements[i].name, plan);
    }
    (void)sqlite3_close(db);
}

/* The hot paths, index by index: a predicate that no longer fits its partial
 * index shows here. */
TEST(test_db__O18_hot_statements__their_index)
{
    static const char *const plans[][2] = {
        {"HEAD_BY_SEQ", "INTEGER PRIMARY KEY (rowid=?)"},
        {"HEAD_BY_ID", "INDEX waybill_outbox_id (id=?)"},
        {"HEAD_BY_KEY", "INDEX waybill_outbox_key (key=?)"},
        {"CONFIRM", "INTEGER PRIMARY KEY (rowid=?)"},
        {"KINDS", "INDEX waybill_outbox_ready (kind>?)"},
        {"FIRST_DUE", "INDEX waybill_outbox_ready (kind=?)"},
        {"FIRST_FRESH", "INDEX waybill_outbox_ready (kind=?)"},
        {"FRESH", "INDEX waybill_outbox_ready (kind=? AND due_ms<?)"},
        {"DUE", "INDEX waybill_outbox_ready (kind=? AND due_ms<?)"},
        {"PROMOTE", "INDEX waybill_outbox_lane (lane=?)"},
        {"PURGE", "INDEX waybill_outbox_ended (status=? AND due_ms<?)"},
        {"ABANDONED", "INDEX waybill_outbox_ended (status=? AND due_ms>?)"},
        {"SHOW", "INDEX waybill_outbox_id (id>? AND id<?)"},
        {"SHOW_END", "COVERING INDEX waybill_outbox_id"},
        {"LIST", "INTEGER PRIMARY KEY (rowid>?)"},
        {"REJOIN", "INDEX waybill_outbox_lane (lane=?)"},
        {"ROWS", "COVERING INDEX waybill_outbox_ended (status=?)"},
    };
    sqlite3 *db = open_plain();

    for (size_t i = 0; i < WB_COUNT(plans); i++) {
        const char *plan = plan_of(db, sql_of(plans[i][0]));

        if (strstr(plan, plans[i][1]) == NULL)
            fail_msg("%s: %s", plans[i][0], plan);
    }
    (void)sqlite3_close(db);
}

TEST(test_db__O18_order_of_due_rows__out_of_the_index_not_sorted)
{
    static const char *const names[] = {"FIRST_DUE", "DUE", "FIRST_FRESH",
        "FRESH", "PURGE", "ABANDONED", "LIST", "SHOW", "HEAD_BY_ID"};
    sqlite3 *db = open_plain();

    for (size_t i = 0; i < WB_COUNT(names); i++)
        if (strstr(plan_of(db, sql_of(names[i])), "TEMP B-TREE") != NULL)
            fail_msg("%s is sorted", names[i]);
    (void)sqlite3_close(db);
}

static bool
makes_table(sqlite3 *db, const char *sql)
{
    char query[2048];
    sqlite3_stmt *q;
    bool made = false;

    (void)snprintf(query, sizeof(query), "EXPLAIN %s", sql);
    CHECK(sqlite3_prepare_v2(db, query, -1, &q, NULL) == SQLITE_OK);
    while (!made && sqlite3_step(q) == SQLITE_ROW)
        made = strcmp((const char *)sqlite3_column_text(q, 1),
                   "OpenEphemeral") == 0;
    (void)sqlite3_finalize(q);
    return made;
}

/* A table that SQLite makes for itself, as for a list of more than two words or
 * for RETURNING, costs as much as the write. */
TEST(test_db__statements_of_one_row__make_no_table)
{
    static const char *const may[] = {"KINDS", "PURGE", "RESET_PROBES",
        "IDEM_REAP", "PROMOTE_LONG", "CLOCK_SET", "LANES", "SHOW_END"};
    sqlite3 *db = open_plain();

    for (size_t i = 0; i < WB_COUNT(statements); i++) {
        bool wanted = true;

        for (size_t j = 0; j < WB_COUNT(may); j++)
            wanted = wanted && strcmp(statements[i].name, may[j]) != 0;
        if (wanted && makes_table(db, statements[i].sql))
            fail_msg("%s makes a table", statements[i].name);
    }
    (void)sqlite3_close(db);
}

/* The trigger's query for a lane uses an index as well. */
TEST(test_db__O16_trigger__uses_the_index_of_lanes)
{
    static const char live[] =
        "lane IS NOT NULL AND status NOT IN ('abandoned', 'delivered'))";
    sqlite3 *db = open_plain();
    char sql[512];

    (void)snprintf(sql, sizeof(sql),
        "SELECT EXISTS (SELECT 1 FROM waybill_outbox WHERE lane = ?1 AND seq <>"
        " ?2 AND %s",
        live);
    CHECK_HAS("INDEX waybill_outbox_lane (lane=?)", plan_of(db, sql));
    (void)sqlite3_close(db);
    CHECK_HAS(
        live, sql_text("SELECT sql FROM sqlite_schema WHERE type = 'trigger'"));
}

TEST(test_db__states__one_list_in_c_and_in_the_constraint)
{
    static const char *const names[] = {
#define X(id, text, next) text,
        WB_STATE_MAP(X)
#undef X
    };
    char in[512] = "";
    sqlite3 *db = open_plain();

    for (size_t i = 0; i < WB_STATES; i++) {
        size_t n = strlen(in);
        enum wb_state back;

        (void)snprintf(in + n, sizeof(in) - n, "%sstatus = '%s'",
            n == 0 ? "CHECK (\n        " : "\n        OR ", names[i]);
        CHECK_TEXT(names[i], wb_state_name((enum wb_state)i));
        CHECK(wb__state_parse(wb_slice(names[i]), &back));
        CHECK_INT(i, back);
    }
    (void)snprintf(in + strlen(in), 3, "),");
    CHECK_HAS(in, sql_text("SELECT sql FROM sqlite_schema WHERE"
                           " name = 'waybill_outbox'"));
    CHECK_TEXT("?", wb_state_name(WB_STATES));
    (void)sqlite3_close(db);
}

TEST(test_db__I4_delivered__is_an_end)
{
    for (int to = 0; to < WB_STATES; to++)
        CHECK(!wb__state_may(WB_STATE_DELIVERED, (enum wb_state)to));
    CHECK(wb__state_may(WB_STATE_PROCESSING, WB_STATE_DELIVERED));
    CHECK(!wb__state_may(WB_STATE_HELD, WB_STATE_PROCESSING));
    CHECK(!wb__state_may(WB_STATE_PENDING, WB_STATE_DELIVERED));
}

/* So many characters of four bytes each. */
#define FOUR_BYTES(n) "replace(hex(zeroblob(" #n ")), '00', '\xf0\x9f\x93\xa6')"

/* What another language may insert, and what the constraints refuse: no row of
 * theirs must be one that we cannot read. */
TEST(test_db__foreign_rows__refused_unless_whole)
{
    static const struct {
        const char *columns, *values;
        bool good;
    } rows[] = {
        {"id, kind, payload", "'ID', 'a', x'00'", true},
        {"id, kind, payload", "'ID', 'a', 'text'", true},
        {"id, kind, payload", "'ID', 'a', 17", false},
        {"id, kind, payload", "'ID', 'a', NULL", false},
        {"id, kind, payload", "'ID', 'A', ''", false},
        {"id, kind, payload", "'ID', '', ''", false},
        {"id, kind, payload", "upper('ID'), 'a', ''", false},
        {"id, kind, payload", "'x' || 'ID', 'a', ''", false},
        {"id, kind, payload", "replace('ID', '-', 'z'), 'a', ''", false},
        {"id, kind, payload", "replace('ID', '0', 'g'), 'a', ''", false},
        {"id, kind, payload", "replace('ID', '-', 'a'), 'a', ''", false},
        {"id, kind, payload", "'ID' || char(0) || 'x', 'a', ''", false},
        {"id, kind, payload", "'ID', 'a' || char(0) || 'x', ''", false},
        {"id, kind, payload, lane", "'ID', 'a', '', ''", false},
        {"id, kind, payload, lane",
            "'ID', 'a', '', substr(hex(zeroblob(200)), 1, 255)", true},
        {"id, kind, payload, lane",
            "'ID', 'a', '', substr(hex(zeroblob(200)), 1, 256)", false},
        {"id, kind, payload, lane", "'ID', 'a', '', " FOUR_BYTES(255), true},
        {"id, kind, payload, lane", "'ID', 'a', '', " FOUR_BYTES(256), false},
        {"id, kind, payload, key", "'ID', 'a', '', " FOUR_BYTES(255), true},
        {"id, kind, payload, key", "'ID', 'a', '', " FOUR_BYTES(256), false},
        {"id, kind, payload, lane", "'ID', 'a', '', 'a' || char(0)", false},
        {"id, kind, payload, key", "'ID', 'a', '', 'a' || char(0)", false},
        {"id, kind, payload, status", "'ID', 'a', '', 'done'", false},
        {"id, kind, payload, attempts", "'ID', 'a', '', -1", false},
        {"id, kind, payload, attempts", "'ID', 'a', '', 9223372036854775807",
            false},
        {"id, kind, payload, due_ms", "'ID', 'a', '', 'soon'", false},
    };
    sqlite3 *db = open_plain();

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        static const char id[] = "0190a000-0000-7000-8000-00000000000a";
        const char *rest = strstr(rows[i].values, "ID") + 2;
        char sql[1024];
        int code;

        (void)snprintf(sql, sizeof(sql),
            "INSERT INTO waybill_outbox(%s) VALUES(%.*s%s%s)", rows[i].columns,
            (int)(rest - 2 - rows[i].values), rows[i].values, id, rest);
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
        if ((code == SQLITE_OK) != rows[i].good)
            fail_msg("%s: %s", sql, sqlite3_errmsg(db));
        if (code == SQLITE_OK) {
            struct wb_outbox *box = box_open();
            struct taken t;

            fake_env.wall_ms = INT64_C(9000000000000);
            t = box_claim(box, NULL);
            box_confirm(box, &t);
            wb_outbox_close(box);
        }
        (void)sqlite3_exec(db, "DELETE FROM waybill_outbox", NULL, NULL, NULL);
    }
    (void)sqlite3_close(db);
}

/* The defaults of the columns are those of a new message. */
TEST(test_db__foreign_row_with_defaults__due_now_kept_and_pending)
{
    sqlite3 *db = open_plain();
    int64_t now = wb_env_system()->wall_ms(NULL), due;

    (void)sqlite3_close(db);
    sql_run("INSERT INTO waybill_outbox(id, kind, payload)"
            " VALUES('0190a000-0000-7000-8000-00000000000a', 'a', '')");
    CHECK_TEXT("pending|0|1|",
        sql_text("SELECT status || '|' || attempts || '|' || keep || '|' ||"
                 " coalesce(token, '') FROM waybill_outbox"));
    due = sql_int("SELECT due_ms FROM waybill_outbox WHERE due_ms ="
                  " created_ms");
    CHECK(due >= now - 1000 && due <= now + 60000);
}

/* Found by powercut fault: without memory a ROLLBACK may fail, and every later
 * call found a transaction within a transaction. */
static void
leave_begun(struct wb_outbox *box)
{
    struct wb__sqlite *s = (struct wb__sqlite *)box->db;

    CHECK(sqlite3_exec(s->handle,
              "BEGIN IMMEDIATE; INSERT INTO waybill_paused VALUES('left')",
              NULL, NULL, NULL) == SQLITE_OK);
    s->begun = true;
}

TEST(test_db__rollback_without_memory__made_up_for_at_the_next_begin)
{
    struct wb_outbox *box = box_open();

    leave_begun(box);
    (void)box_put(box, "a");
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_paused"));
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* Must not be mistaken for a transaction of the caller: it would stay open. */
TEST(test_db__rollback_without_memory__on_a_callers_connection_too)
{
    const struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};
    sqlite3 *db = NULL;

    CHECK_INT(SQLITE_OK, sqlite3_open(BOX, &db));
    CHECK_OK(wb_outbox_adopt(&box, db, &opts, &err), err);
    leave_begun(box);
    (void)box_put(box, "a");
    CHECK(sqlite3_get_autocommit(db));
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_paused"));
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
    CHECK_INT(SQLITE_OK, sqlite3_close(db));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_db__O18_every_statement__no_walk_over_the_outbox),
        RUN(test_db__O18_hot_statements__their_index),
        RUN(test_db__O18_order_of_due_rows__out_of_the_index_not_sorted),
        RUN(test_db__statements_of_one_row__make_no_table),
        RUN(test_db__O16_trigger__uses_the_index_of_lanes),
        RUN(test_db__states__one_list_in_c_and_in_the_constraint),
        RUN(test_db__I4_delivered__is_an_end),
        RUN(test_db__foreign_rows__refused_unless_whole),
        RUN(test_db__foreign_row_with_defaults__due_now_kept_and_pending),
        RUN(test_db__rollback_without_memory__made_up_for_at_the_next_begin),
        RUN(test_db__rollback_without_memory__on_a_callers_connection_too),
    };
    return RUN_ALL(tests);
}
