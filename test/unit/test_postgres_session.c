/* test_postgres_session.c - sessions on PostgreSQL: a statement that fails, the
 * clock, passwords, identity, prepared statements that are gone. */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "db/postgres.h"
#include "outbox_fixture.h"
#include "support_pg.h"

static const struct {
    const char *name, *text;
} statements[] = {
#define X(name, sqlite, postgres) \
    {#name, (postgres) != NULL ? (postgres) : (sqlite)},
    WB__SQL_MAP(X)
#undef X
};

static PGconn *
conn_of(struct wb__db *db)
{
    return ((struct wb__postgres *)db)->conn;
}

/* ---- statements that fail ---------------------------------------------- */

enum {
    ARGS_MAX = 16
};

/* How many arguments a statement has. */
static size_t
count_args(const char *text)
{
    size_t n = 0;

    for (const char *at = text; *at != '\0'; at++)
        if ((*at == '?' || *at == '$') && at[1] >= '1' && at[1] <= '9') {
            size_t i = strtoul(at + 1, NULL, 10);

            n = i > n ? i : n;
        }
    return n;
}

static enum wb_status
try_statement(struct wb__db *db, enum wb__sql sql, struct wb_err *err)
{
    struct wb__val val[ARGS_MAX];
    size_t n = count_args(statements[sql].text);

    CHECK(n <= ARGS_MAX);
    for (size_t i = 0; i < n; i++)
        val[i] = wb__int(1);
    return wb__db_run(db, sql, (struct wb__args){val, n}, NULL, err);
}

/* Is the session out of any transaction, and does it work? */
static void
check_usable(struct wb__db *db, const char *name)
{
    struct wb_err err = {0};

    if (!((struct wb__postgres *)db)->nested &&
        PQtransactionStatus(conn_of(db)) != PQTRANS_IDLE)
        fail_msg("%s: a transaction is left open", name);
    CHECK_OK(wb__db_begin(db, WB__TX_FULL, &err), err);
    CHECK_OK(wb__db_run(db, WB__SQL_META_SET,
                 WB__ARGS(wb__text(WB_LIT("t")), wb__int(1)), NULL, &err),
        err);
    CHECK_OK(wb__db_commit(db, &err), err);
}

/* Every statement ends by lock_timeout behind a lock of the tables; first
 * while it is prepared, then while it runs. */
static int
cancel_all(struct wb__db *db, bool in_transaction)
{
    static const char lock[] =
        "BEGIN; LOCK TABLE waybill_outbox, waybill_meta, waybill_breaker,"
        " waybill_paused, waybill_idem";
    PGconn *other = test_pg_connection();
    int failed = 0;

    for (int round = 0; round < 2; round++)
        for (enum wb__sql sql = 0; sql < WB__SQL_COUNT; sql++) {
            struct wb_err err = {0};
            enum wb_status rc;

            if (round == 1) { /* prepared, whatever it says */
                CHECK_OK(wb__db_begin(db, WB__TX_FULL, &err), err);
                (void)!try_statement(db, sql, NULL);
                wb__db_rollback(db);
            }
            test_pg_run(other, lock);
            if (in_transaction)
                CHECK_OK(wb__db_begin(db, WB__TX_FULL, &err), err);
            rc = try_statement(db, sql, &err);
            if (in_transaction)
                wb__db_rollback(db);
            test_pg_run(other, "ROLLBACK");
            failed += rc == WB_BUSY;
            check_usable(db, statements[sql].name);
        }
    PQfinish(other);
    return failed;
}

/* All but those of the two that use no table. */
#define MOST (2 * (WB__SQL_COUNT - 6))

TEST(test_postgres__each_statement_ended_by_the_server__the_session_is_usable)
{
    const struct wb__db_opts opts = {.env = ENV, .busy_ms = 5000};
    struct wb__db *db = NULL;
    struct wb_err err = {0};

    wb_outbox_close(box_open());
    CHECK_OK(wb__db_open(&db, test_pg_url(), &opts, &err), err);
    test_pg_run(conn_of(db), "SET lock_timeout = '5ms'");
    CHECK(cancel_all(db, true) >= MOST);
    CHECK(cancel_all(db, false) >= MOST);
    wb__db_close(db);
}

/* On a caller's connection, in the caller's transaction: that goes on. */
TEST(
    test_postgres__each_statement_ended_by_the_server__the_callers_transaction_goes_on)
{
    const struct wb__db_opts opts = {.env = ENV, .busy_ms = 5000};
    PGconn *conn = test_pg_connection();
    struct wb__db *db = NULL;
    struct wb_err err = {0};

    wb_outbox_close(box_open());
    CHECK_OK(wb__db_borrow_pg(&db, conn, &opts, &err), err);
    test_pg_run(conn, "SET lock_timeout = '5ms'");
    for (enum wb__sql sql = 0; sql < WB__SQL_COUNT; sql++) {
        test_pg_run(conn, "BEGIN");
        CHECK_OK(wb__db_begin(db, WB__TX_FULL, &err), err);
        (void)!try_statement(db, sql, NULL);
        PQclear(PQexec(conn, "SELECT 1/0")); /* whatever it was, it failed */
        wb__db_rollback(db);
        CHECK(PQtransactionStatus(conn) == PQTRANS_INTRANS);
        check_usable(db, statements[sql].name);
        test_pg_run(conn, "COMMIT");
    }
    wb__db_close(db);
    PQfinish(conn);
}

/* Texts that are no prepared statements, and a commit. */
TEST(test_postgres__texts_and_commit_fail__the_session_is_usable)
{
    const struct wb__db_opts opts = {.env = ENV, .busy_ms = 5000};
    struct wb__db *db = NULL;
    struct wb_err err = {0};
    char text[64];

    wb_outbox_close(box_open());
    CHECK_OK(wb__db_open(&db, test_pg_url(), &opts, &err), err);
    for (int i = 0; i < 2; i++) {
        if (i == 1)
            CHECK_OK(wb__db_begin(db, WB__TX_READ, &err), err);
        CHECK(db->engine->exec(db, "SELECT 1/0", &err) != WB_OK);
        if (i == 1)
            wb__db_rollback(db);
        check_usable(db, "exec");
        CHECK(db->engine->text(db, "SELECT 1/0", text, sizeof(text), &err) !=
              WB_OK);
        check_usable(db, "text");
    }
    CHECK_OK(
        db->engine->exec(db,
            "CREATE TABLE late(n int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
            &err),
        err);
    CHECK_OK(wb__db_begin(db, WB__TX_FULL, &err), err);
    CHECK_OK(
        db->engine->exec(db, "INSERT INTO late VALUES(1), (1)", &err), err);
    CHECK_STATUS(INVALID, wb__db_commit(db, &err));
    check_usable(db, "commit");
    wb__db_close(db);
}

/* DISCARD ALL of the caller, or a pooler's, takes prepared statements away. */
TEST(test_postgres__prepared_statements_discarded__prepared_again)
{
    PGconn *conn = test_pg_connection();
    struct wb_outbox *own = box_open(), *box = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_attach_pg(
                 &box, conn, &(struct wb_outbox_opts){.env = ENV}, &err),
        err);
    (void)box_put(box, "a");
    test_pg_run(conn, "DEALLOCATE ALL");
    (void)box_put(box, "a");
    wb_outbox_close(box);
    PQfinish(conn);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(own);
}

/* ---- settings ---------------------------------------------------------- */

static void
check_setting(struct wb__db *db, const char *name, const char *value)
{
    char sql[128], text[64];
    struct wb_err err = {0};

    (void)snprintf(sql, sizeof(sql), "SELECT current_setting('%s')", name);
    CHECK_OK(db->engine->text(db, sql, text, sizeof(text), &err), err);
    CHECK_TEXT(value, text);
}

TEST(test_postgres__session__limits_are_set_and_the_users_own_win)
{
    const struct wb__db_opts opts = {.env = ENV, .busy_ms = 4000};
    struct wb__db *db = NULL;
    struct wb_err err = {0};
    char url[700];

    wb_outbox_close(box_open());
    CHECK_OK(wb__db_open(&db, test_pg_url(), &opts, &err), err);
    check_setting(db, "statement_timeout", "30s");
    check_setting(db, "lock_timeout", "4s");
    check_setting(db, "idle_in_transaction_session_timeout", "1min");
    check_setting(db, "tcp_keepalives_idle", "10");
    CHECK_INT(35000, ((struct wb__postgres *)db)->silent_ms);
    wb__db_close(db);
    (void)snprintf(url, sizeof(url),
        "%s%%20-cstatement_timeout%%3D7s%%20-clock_timeout%%3D1s",
        test_pg_url());
    CHECK_OK(wb__db_open(&db, url, &opts, &err), err);
    check_setting(db, "statement_timeout", "7s");
    check_setting(db, "lock_timeout", "1s");
    CHECK_INT(12000, ((struct wb__postgres *)db)->silent_ms);
    wb__db_close(db);
}

/* ---- the server's clock ------------------------------------------------ */

/* The function hides the server's own: its clock is an hour ahead of ours. */
TEST(test_postgres__outbox_times__by_the_servers_clock)
{
    const struct wb_outbox_opts opts = {.env = wb_env_system()};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};
    int64_t server_ms;
    struct taken t;
    char url[600];

    wb_outbox_close(box_open());
    sql_run("CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT pg_catalog.clock_timestamp()"
            " + interval '1 hour' $$");
    (void)snprintf(url, sizeof(url), "%s,pg_catalog", test_pg_url());
    CHECK_OK(wb_outbox_open(&box, url, &opts, &err), err);
    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    server_ms = sql_int("SELECT CAST(floor(extract(epoch FROM"
                        " pg_catalog.clock_timestamp()) * 1000) AS bigint)") +
                3600000;
    CHECK(t.lease_end_ms > server_ms);
    CHECK(t.lease_end_ms <= server_ms + 600000);
    CHECK_INT(
        1, sql_int("SELECT count(*) FROM waybill_outbox WHERE created_ms >"
                   " extract(epoch FROM pg_catalog.clock_timestamp()) * 1000"
                   " + 3000000 AND claimed_ms >= created_ms"));
    (void)box_fail(box, &t, WB_RETRY);
    CHECK(sql_int("SELECT due_ms FROM waybill_outbox") > server_ms - 60000);
    wb_outbox_close(box);
}

/* ---- tables ------------------------------------------------------------ */

static void *
open_it(void *status)
{
    struct wb_outbox *box = NULL;

    *(enum wb_status *)status = wb_outbox_open(
        &box, test_pg_url(), &(struct wb_outbox_opts){.env = ENV}, NULL);
    wb_outbox_close(box);
    return NULL;
}

TEST(test_postgres__tables_made_by_many_at_once__made_once_and_all_open)
{
    enum {
        N = 8
    };
    pthread_t thread[N];
    enum wb_status status[N];

    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < N; i++)
            CHECK(pthread_create(&thread[i], NULL, open_it, &status[i]) == 0);
        for (int i = 0; i < N; i++) {
            CHECK(pthread_join(thread[i], NULL) == 0);
            CHECK_STATUS(OK, status[i]);
        }
        sql_run("DROP TABLE waybill_outbox, waybill_meta, waybill_breaker,"
                " waybill_paused, waybill_idem;"
                "DROP FUNCTION waybill_lane, waybill_hold, waybill_promote,"
                " waybill_rejoin, waybill_hash, waybill_send(text, text, text,"
                " text, text, timestamptz, timestamptz, text, text),"
                " waybill_send(text, bytea, text, text, text, timestamptz,"
                " timestamptz, text, text)");
    }
}

/* ---- identity ---------------------------------------------------------- */

/* Whoever may not read the server's system identifier is not another one. */
TEST(test_postgres__role_that_may_read_less__same_incarnation)
{
    const struct wb__db_opts opts = {.env = ENV, .busy_ms = 5000};
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    int64_t before;
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    before = sql_int("SELECT value FROM waybill_meta WHERE name ="
                     " 'incarnation'");
    for (int less = 0; less < 4; less++) { /* by turns */
        struct wb__db *db = NULL;

        /* As a role stored it that may not read it, and one that may. */
        sql_run(less % 2 == 0
                    ? "UPDATE waybill_meta SET value ="
                      " rtrim(value, '0123456789') WHERE name = 'file'"
                    : "UPDATE waybill_meta SET value = value || (SELECT"
                      " system_identifier FROM pg_control_system())"
                      " WHERE name = 'file' AND value LIKE '%.'");
        CHECK_OK(wb__db_open(&db, test_pg_url(), &opts, &err), err);
        wb__db_close(db);
    }
    CHECK_INT(before,
        sql_int("SELECT value FROM waybill_meta WHERE name = 'incarnation'"));
    box_confirm(box, &t);
    sql_run("UPDATE waybill_meta SET value = '1.1.' WHERE name = 'file'");
    wb_outbox_close(box);
    box = box_open(); /* a copy gets another one all the same */
    CHECK(before !=
          sql_int("SELECT value FROM waybill_meta WHERE name = 'incarnation'"));
    wb_outbox_close(box);
}

/* ---- passwords --------------------------------------------------------- */

TEST(test_postgres__bad_urls__no_part_of_the_password_is_shown)
{
    static const char *const urls[] = {
        "postgres://u:ge%heim@127.0.0.1:1/d",
        "postgres://u:geheim%@127.0.0.1:1/d",
        "postgres://u:geheim%zz@127.0.0.1:1/d",
        "postgres://u:x@geheim@127.0.0.1:1/d",
        "postgres://u:x@@geheim:1/d",
        "postgres://u:geheim/x@127.0.0.1:1/d",
        "postgres://u:12/geheim@127.0.0.1:1/d",
        "postgres://u:x/geheim?y@127.0.0.1:1/d",
        "postgres://u:12/x?geheim@127.0.0.1:1/d",
        "postgres://u:geheim@[::1/d",
        "postgres://u:geheim",
        "postgres://u:geheim@127.0.0.1:1/d?password",
        "postgres://127.0.0.1:1/d?password=geheim&no_such=1",
        "postgres://127.0.0.1:1/d?password=ge%heim",
        "postgres://127.0.0.1:1/d?passwort=geheim",
        "postgres://u:geheim@127.0.0.1:1/d",
        "postgres://127.0.0.1:1/d?password=geheim",
        "POSTGRES://u:geheim@127.0.0.1:1/d",
        "postgre://u:geheim@127.0.0.1:1/d",
        "postgres:/u:geheim@127.0.0.1:1/d",
        "postgres:u:geheim@127.0.0.1:1/d",
        "host=127.0.0.1 port=1 user=u password=geheim",
        "password = 'geheim' host=127.0.0.1 port=1",
    };

    for (size_t i = 0; i < WB_COUNT(urls); i++) {
        struct wb_outbox *box = NULL;
        struct wb_err err = {0};

        CHECK(wb_outbox_open(&box, urls[i],
                  &(struct wb_outbox_opts){.env = ENV, .busy_ms = 1000},
                  &err) != WB_OK);
        if (strlen(err.msg) < 10 || strstr(err.msg, "heim") != NULL)
            fail_msg("%s: %s", urls[i], err.msg);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_postgres__each_statement_ended_by_the_server__the_session_is_usable),
        RUN(test_postgres__each_statement_ended_by_the_server__the_callers_transaction_goes_on),
        RUN(test_postgres__texts_and_commit_fail__the_session_is_usable),
        RUN(test_postgres__prepared_statements_discarded__prepared_again),
        RUN(test_postgres__session__limits_are_set_and_the_users_own_win),
        RUN(test_postgres__outbox_times__by_the_servers_clock),
        RUN(test_postgres__tables_made_by_many_at_once__made_once_and_all_open),
        RUN(test_postgres__role_that_may_read_less__same_incarnation),
        RUN(test_postgres__bad_urls__no_part_of_the_password_is_shown),
    };
    return RUN_ALL(tests);
}
