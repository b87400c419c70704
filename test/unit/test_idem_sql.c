/* test_idem_sql.c - the store in SQLite alone: the caller's own transaction,
 * rows that cannot be read, what survives, how rows are found. */
#include "db/sql.h"
#include "idem_fixture.h"

#include <sqlite3.h>
#include <stdlib.h>

static sqlite3 *
connect_db(void)
{
    sqlite3 *db;

    CHECK(sqlite3_open("idem.db", &db) == SQLITE_OK);
    CHECK(sqlite3_busy_timeout(db, 2000) == SQLITE_OK);
    return db;
}

static void
must(sqlite3 *db, const char *sql)
{
    char *text = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK) {
        print_error("%s: %s\n", sql, text);
        fail();
    }
}

static int
ask(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *q;
    int n = -1;

    CHECK(sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK);
    if (sqlite3_step(q) == SQLITE_ROW)
        n = sqlite3_column_int(q, 0);
    (void)sqlite3_finalize(q);
    return n;
}

/* ---- inside the caller's transaction ----------------------------------- */

static sqlite3 *own;

static struct wb_idem *
adopt(void)
{
    struct wb_idem_opts opts = {.env = ENV};
    struct wb_idem *store = NULL;
    struct wb_err err = {0};

    own = connect_db();
    must(own, "PRAGMA journal_mode=WAL; CREATE TABLE effect(what TEXT)");
    CHECK_OK(wb_idem_adopt(&store, own, &opts, &err), err);
    return store;
}

static void
disown(struct wb_idem *store)
{
    wb_idem_close(store);
    CHECK(sqlite3_close(own) == SQLITE_OK);
}

static void
test_idem_sql__claim_effect_record_in_one_transaction__all_or_nothing(
    void **state)
{
    struct wb_idem *store = adopt(), *other = open_store();
    uint64_t token;

    (void)state;
    for (int commits = 0; commits < 2; commits++) {
        must(own, "BEGIN IMMEDIATE");
        CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
        must(own, "INSERT INTO effect VALUES('made')");
        CHECK_STATUS(OK, complete(store, "k", token, "done"));
        CHECK_ANSWER(REPLAY, begin(store, "k", NULL));
        CHECK(!has(other, "k", "done")); /* not committed yet */
        must(own, commits ? "COMMIT" : "ROLLBACK");
        CHECK_INT(commits, ask(own, "SELECT count(*) FROM effect"));
        CHECK_INT(commits, has(store, "k", "done"));
        CHECK_INT(commits, has(other, "k", "done"));
    }
    wb_idem_close(other);
    disown(store);
}

static enum wb_idem_end
make_effect(void *ctx, struct wb_idem_call *call)
{
    must(own, "INSERT INTO effect VALUES('run')");
    call->record.body = WB_LIT("ran");
    ++*(int *)ctx;
    return WB_IDEM_APPLIED;
}

TEST(test_idem_sql__run_in_a_transaction__effect_and_record_together)
{
    struct wb_idem *store = adopt();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};
    int runs = 0;

    for (int i = 0; i < 3; i++) {
        must(own, "BEGIN");
        CHECK_STATUS(OK,
            wb_idem_run(store, &op, &fp, NULL, make_effect, &runs, &r, NULL));
        CHECK_INT(i < 2 ? WB_IDEM_ACQUIRED : WB_IDEM_REPLAY, r.answer);
        must(own, i == 0 ? "ROLLBACK" : "COMMIT");
        CHECK_INT(i > 0, ask(own, "SELECT count(*) FROM effect"));
    }
    CHECK_INT(2, runs);
    wb_idem_result_free(&r);
    disown(store);
}

TEST(test_idem_sql__borrowed__never_waits)
{
    struct wb_idem *store = adopt();
    struct wb_idem_begin how = {.wait_ms = 10000};
    int64_t from = fake_env.mono_us;
    struct wb_idem_result r;

    fake_env.env.sleep_us = sleep_by_clock;
    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    r = begin_with(store, "k", "request", how);
    CHECK_ANSWER(HELD, r.answer);
    CHECK_INT(from, fake_env.mono_us);
    disown(store);
}

TEST(test_idem_sql__attach__changes_nothing_and_needs_the_tables)
{
    struct wb_idem_opts opts = {.env = ENV};
    struct wb_idem *store = NULL;
    sqlite3 *db = connect_db();

    must(db, "CREATE TABLE mine(x)");
    CHECK_STATUS(REFUSED, wb_idem_attach(&store, db, &opts, NULL));
    must(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
    CHECK_STATUS(NOTFOUND, wb_idem_attach(&store, db, &opts, NULL));
    CHECK_INT(
        1, ask(db, "SELECT count(*) FROM sqlite_schema WHERE type='table'"));
    wb_idem_close(open_store());
    CHECK_STATUS(OK, wb_idem_attach(&store, db, &opts, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    wb_idem_close(store);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* ---- rows that cannot be read (M-6) ------------------------------------ */

TEST(test_idem_sql__malformed_or_unknown_row__error_never_a_run)
{
    static const struct {
        const char *damage;
        enum wb_status status;
    } rows[] = {{"version = 2", WB_NEWER}, {"version = 0", WB_CORRUPT},
        {"version = 2, ends_ms = 1", WB_NEWER}, {"state = 'new'", WB_CORRUPT},
        {"fingerprint = x'00'", WB_CORRUPT}, {"status = NULL", WB_CORRUPT},
        {"status = 70000", WB_CORRUPT}, {"headers = NULL", WB_CORRUPT},
        {"body = NULL", WB_CORRUPT},
        {"state = 'claimed', ends_ms = NULL", WB_CORRUPT}};
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};
    struct wb_idem_item was;
    struct wb_err err = {0};
    sqlite3 *db = connect_db();

    must(db, "PRAGMA ignore_check_constraints=ON");
    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        char sql[128];

        put(store, "k", "x", 5000);
        (void)snprintf(
            sql, sizeof(sql), "UPDATE waybill_idem SET %s", rows[i].damage);
        must(db, sql);
        CHECK_INT(
            rows[i].status, wb_idem_begin(store, &op, &fp, NULL, &r, &err));
        CHECK_HAS("\"k\"", err.msg);
        CHECK_INT(rows[i].status, wb_idem_lookup(store, &op, &r, NULL));
        CHECK_STATUS(OK, wb_idem_reap(store, NULL, NULL));
        CHECK_STATUS(OK, wb_idem_forget(store, &op, &was, NULL)); /* the fix */
        CHECK_INT(WB_IDEM_DOUBTFUL, was.state);
        CHECK_STATUS(OK, wb_idem_begin(store, &op, &fp, NULL, &r, NULL));
        CHECK_ANSWER(ACQUIRED, r.answer);
        CHECK_STATUS(OK, wb_idem_forget(store, &op, NULL, NULL));
    }
    wb_idem_result_free(&r);
    wb_idem_close(store);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* ---- what survives ----------------------------------------------------- */

TEST(test_idem_sql__opened_again__claims_and_records_are_there)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin sending = {.sending = true};
    uint64_t token, claim;

    CHECK_ANSWER(ACQUIRED, begin(store, "done", &token));
    CHECK_STATUS(OK, complete(store, "done", token, "x"));
    CHECK_ANSWER(ACQUIRED, begin(store, "claim", &claim));
    (void)begin_with(store, "sent", "request", sending);
    wb_idem_close(store);
    store = open_store();
    CHECK(has(store, "done", "x"));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "claim", NULL));
    CHECK_STATUS(OK, complete(store, "claim", claim, "y"));
    fake_clock_advance_ms(60000);
    CHECK_ANSWER(UNKNOWN, begin(store, "sent", NULL));
    wb_idem_close(store);
}

/* C-5 */
TEST(test_idem_sql__complete_fails__claim_stays_and_may_be_completed)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.busy_ms = 20});
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_record record = record_of(200, "done");
    struct wb_err err = {0};
    sqlite3 *db = connect_db();
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    must(db, "BEGIN IMMEDIATE");
    CHECK_STATUS(BUSY, wb_idem_complete(store, &op, token, &record, &err));
    CHECK(err.msg[0] != '\0');
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL)); /* reads go on */
    must(db, "COMMIT");
    CHECK_STATUS(OK, wb_idem_complete(store, &op, token, &record, &err));
    CHECK(has(store, "k", "done"));
    wb_idem_close(store);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* S-6: by the wall clock, which outlives the process */
TEST(test_idem_sql__wall_clock__decides)
{
    struct wb_idem *store = open_store();

    put(store, "k", "x", 5000);
    fake_env.mono_us += 3600000000;
    CHECK(has(store, "k", "x"));
    fake_env.wall_ms += 5000;
    CHECK(!has(store, "k", "x"));
    wb_idem_close(store);
}

TEST(test_idem_sql__application_tables_in_the_file__left_alone)
{
    sqlite3 *db = connect_db();

    must(db, "PRAGMA journal_mode=WAL; PRAGMA user_version=7;"
             "CREATE TABLE mine(x); INSERT INTO mine VALUES(1)");
    wb_idem_close(open_store());
    CHECK_INT(1, ask(db, "SELECT count(*) FROM mine"));
    CHECK_INT(7, ask(db, "PRAGMA user_version"));
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* C-4: the copy's holder is not the original's */
TEST(test_idem_sql__file_copied__tokens_of_its_claims_are_dead)
{
    struct wb_idem *store = open_store();
    uint64_t token, again;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    wb_idem_close(store);
    CHECK_INT(0, system("cp idem.db copy.db && mv idem.db first.db &&"
                        " mv copy.db idem.db"));
    store = open_store();
    CHECK_STATUS(FENCED, complete(store, "k", token, "late"));
    CHECK_STATUS(FENCED, extend(store, "k", token, 1000));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL)); /* until its lease ends */
    fake_clock_advance_ms(WB_IDEM_LEASE_MS);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &again));
    CHECK(again != token);
    wb_idem_close(store);
    CHECK_INT(0, system("mv first.db idem.db; rm -f idem.db-*"));
    fake_clock_advance_ms(-WB_IDEM_LEASE_MS);
    store = open_store(); /* the original, moved or not, still accepts it */
    CHECK_STATUS(OK, complete(store, "k", token, "in time"));
    wb_idem_close(store);
}

/* ---- reaping and plans ------------------------------------------------- */

TEST(test_idem_sql__thousands_expired__reaped_in_batches)
{
    struct wb_idem *store = open_store();
    sqlite3 *db = connect_db();
    uint64_t n = 0;

    must(db, "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c"
             " WHERE i < 3500) INSERT INTO waybill_idem(identity, scope, key,"
             " state, fingerprint, token, since_ms, ends_ms) SELECT 'me', 's',"
             " 'k' || i, 'claimed', zeroblob(16), i, 1, 2 FROM c");
    CHECK_ANSWER(ACQUIRED, begin(store, "new", NULL)); /* takes one batch */
    CHECK_INT(2501, ask(db, "SELECT count(*) FROM waybill_idem"));
    CHECK_STATUS(OK, wb_idem_reap(store, &n, NULL));
    CHECK_INT(2500, n);
    CHECK_INT(1, ask(db, "SELECT count(*) FROM waybill_idem"));
    wb_idem_close(store);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

static void
check_plan(sqlite3 *db, const char *sql, const char *piece)
{
    char query[2048];
    sqlite3_stmt *q;
    bool found = false, scans = false;

    (void)snprintf(query, sizeof(query), "EXPLAIN QUERY PLAN %s", sql);
    CHECK(sqlite3_prepare_v2(db, query, -1, &q, NULL) == SQLITE_OK);
    while (sqlite3_step(q) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(q, 3);

        found = found || strstr(text, piece) != NULL;
        scans = scans || strncmp(text, "SCAN waybill_idem", 17) == 0;
    }
    (void)sqlite3_finalize(q);
    if (!found || scans)
        print_error("%s: not by %s\n", sql, piece);
    CHECK(found && !scans);
}

TEST(test_idem_sql__plans__by_index)
{
    static const char key[] =
        "waybill_idem_key (identity=? AND scope=? AND key=?)";
    static const struct {
        const char *sql, *name;
    } pinned[] = {
#define X(name, sqlite, postgres) {sqlite, #name},
        WB__SQL_MAP(X)
#undef X
    };
    sqlite3 *db = connect_db();
    int n = 0;

    wb_idem_close(open_store());
    for (size_t i = 0; i < WB_COUNT(pinned); i++) {
        const char *name = pinned[i].name;
        bool inserts = strncmp(pinned[i].sql, "INSERT", 6) == 0;

        if (strncmp(name, "IDEM_", 5) != 0 || inserts ||
            strcmp(name, "IDEM_LOCK") == 0)
            continue;
        n++;
        if (strcmp(name, "IDEM_LIST") == 0)
            check_plan(db, pinned[i].sql, "INTEGER PRIMARY KEY (rowid>?)");
        else if (strcmp(name, "IDEM_REAP") == 0)
            check_plan(db, pinned[i].sql, "waybill_idem_ends (ends_ms");
        else if (strcmp(name, "IDEM_CLAIMS") == 0 ||
                 strcmp(name, "IDEM_BYTES") == 0)
            check_plan(db, pinned[i].sql, "waybill_idem_key (identity=?)");
        else
            check_plan(db, pinned[i].sql, key);
    }
    CHECK(n >= 11);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem_sql__claim_effect_record_in_one_transaction__all_or_nothing),
        RUN(test_idem_sql__run_in_a_transaction__effect_and_record_together),
        RUN(test_idem_sql__borrowed__never_waits),
        RUN(test_idem_sql__attach__changes_nothing_and_needs_the_tables),
        RUN(test_idem_sql__malformed_or_unknown_row__error_never_a_run),
        RUN(test_idem_sql__opened_again__claims_and_records_are_there),
        RUN(test_idem_sql__complete_fails__claim_stays_and_may_be_completed),
        RUN(test_idem_sql__wall_clock__decides),
        RUN(test_idem_sql__application_tables_in_the_file__left_alone),
        RUN(test_idem_sql__file_copied__tokens_of_its_claims_are_dead),
        RUN(test_idem_sql__thousands_expired__reaped_in_batches),
        RUN(test_idem_sql__plans__by_index),
    };

    backend = &sql_backend;
    return RUN_ALL(tests);
}
