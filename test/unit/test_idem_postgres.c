/* test_idem_postgres.c - what the idempotency store does on PostgreSQL alone:
 * the server's clock, and transactions that run side by side. */
#include "idem_fixture.h"

#include <libpq-fe.h>
#include <pthread.h>

#include "db/postgres.h"
#include "idem/sql.h"
#include "support_pg.h"

static int64_t
sql_int(const char *sql)
{
    char text[64];

    test_pg_text(sql, text, sizeof(text));
    return strtoll(text, NULL, 10);
}

/* ---- S-6 --------------------------------------------------------------- */

/* From now on the server's clock is ahead by so much, for connections that look
 * up functions in the test's schema first. */
static void
set_server_clock(const char *ahead)
{
    char sql[256], text[8];

    (void)snprintf(sql, sizeof(sql),
        "CREATE OR REPLACE FUNCTION clock_timestamp() RETURNS timestamptz"
        " LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp()"
        " + interval '%s' $$",
        ahead);
    test_pg_text(sql, text, sizeof(text));
}

static struct wb_idem *
open_beside_clock(void)
{
    const struct wb_idem_opts opts = {.env = wb_env_system()};
    struct wb_idem *store = NULL;
    struct wb_err err = {0};
    char url[600];

    (void)snprintf(url, sizeof(url), "%s,pg_catalog", test_pg_url());
    CHECK_OK(wb_idem_open(&store, url, &opts, &err), err);
    return store;
}

TEST(test_idem_postgres__S6_servers_clock__decides)
{
    struct wb_idem *store;
    uint64_t old, token;

    set_server_clock("1 hour");
    store = open_beside_clock();
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &old));
    CHECK(sql_int("SELECT min(since_ms) - floor(extract(epoch FROM"
                  " pg_catalog.clock_timestamp()) * 1000) FROM waybill_idem") >
          3500000);
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    set_server_clock("2 hours");
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(FENCED, complete(store, "k", old, "late"));
    CHECK_STATUS(OK, complete(store, "k", token, "body"));
    CHECK(has(store, "k", "body"));
    set_server_clock("3 days");
    CHECK(!has(store, "k", "body"));
    wb_idem_close(store);
}

/* ---- side by side ------------------------------------------------------ */

static struct wb_idem *store;

/* A record of "k" that has expired, and a transaction that has claimed the key
 * and not committed yet. */
static PGconn *
claim_again(void)
{
    PGconn *conn = test_pg_connection();

    store = open_store();
    put(store, "k", "x", 1000);
    fake_clock_advance_ms(1000);
    test_pg_run(conn, "BEGIN; UPDATE waybill_idem SET state = 'claimed',"
                      " token = 7, ends_ms = ends_ms + 60000, ttl_ms = NULL,"
                      " status = NULL, headers = NULL, body = NULL");
    return conn;
}

static void
check_claimed(PGconn *conn)
{
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_idem WHERE token = 7"));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    PQfinish(conn);
    wb_idem_close(store);
}

TEST(test_idem_postgres__reaped_while_claimed_again__stays)
{
    PGconn *conn = claim_again();
    uint64_t n;

    CHECK_STATUS(OK, wb_idem_reap(store, &n, NULL));
    CHECK_INT(0, n);
    test_pg_run(conn, "COMMIT");
    check_claimed(conn);
}

static void *
look_up(void *ctx)
{
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_result r = {0};

    (void)ctx;
    return (void *)(intptr_t)wb_idem_lookup(store, &op, &r, NULL);
}

/* A lookup deletes an expired row; it must read it again before. */
TEST(test_idem_postgres__dropped_while_claimed_again__stays)
{
    PGconn *conn = claim_again();
    pthread_t thread;
    void *rc;

    CHECK(pthread_create(&thread, NULL, look_up, NULL) == 0);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    CHECK(pthread_join(thread, &rc) == 0);
    CHECK_INT(WB_EMPTY, (intptr_t)rc);
    check_claimed(conn);
}

static void *
begin_it(void *ctx)
{
    (void)ctx;
    return (void *)(intptr_t)begin(store, "k", NULL);
}

TEST(test_idem_postgres__S5_quota__counted_by_one_at_a_time)
{
    PGconn *conn = test_pg_connection();
    pthread_t thread;
    void *answer;

    store = open_with((struct wb_idem_opts){.identity_claims = 1});
    test_pg_run(conn,
        "BEGIN;"
        "SELECT pg_advisory_xact_lock(hashtextextended('me',"
        " 'waybill_idem'::regclass::oid::bigint));"
        "INSERT INTO waybill_idem(identity, scope, key, state,"
        " fingerprint, token, since_ms, ends_ms) VALUES('me', 's', 'x',"
        " 'claimed', decode(repeat('00', 16), 'hex'), 7, 0, CAST(1 AS "
        "bigint) << 60)");
    CHECK(pthread_create(&thread, NULL, begin_it, NULL) == 0);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    CHECK(pthread_join(thread, &answer) == 0);
    CHECK_INT(WB_IDEM_LIMIT, (intptr_t)answer);
    PQfinish(conn);
    wb_idem_close(store);
}

/* A connection that was cut while idle fails no call. */
static void
test_idem_postgres__connection_cut__connected_again_at_the_next_call(
    void **state)
{
    const struct wb__idem_sql *sql;
    char cut[96];

    (void)state;
    store = open_store();
    sql = (struct wb__idem_sql *)store;
    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    (void)snprintf(cut, sizeof(cut), "SELECT pg_terminate_backend(%d, 5000)",
        PQbackendPID(((struct wb__postgres *)sql->group.db)->conn));
    CHECK_INT(1, sql_int(cut));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem_postgres__S6_servers_clock__decides),
        RUN(test_idem_postgres__reaped_while_claimed_again__stays),
        RUN(test_idem_postgres__dropped_while_claimed_again__stays),
        RUN(test_idem_postgres__S5_quota__counted_by_one_at_a_time),
        RUN(test_idem_postgres__connection_cut__connected_again_at_the_next_call),
    };

    backend = &pg_backend;
    return RUN_ALL(tests);
}
