/* test_postgres_plans.c - O-18 on PostgreSQL: the statements of claim, finish,
 * query and purge find their rows by index, in a table of some thousand
 * analysed rows, by the plan that serves every argument. */
#include <libpq-fe.h>
#include <stdio.h>

#include "db/sql.h"
#include "outbox_fixture.h"

static const struct {
    const char *name, *sqlite, *postgres;
} statements[] = {
#define X(name, sqlite, postgres) {#name, (sqlite), (postgres)},
    WB__SQL_MAP(X)
#undef X
};

static PGconn *conn;

static PGresult *
run(const char *sql)
{
    PGresult *r = PQexec(conn, sql);

    if (PQresultStatus(r) != PGRES_COMMAND_OK &&
        PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(conn));
    return r;
}

/* Few kinds, many lanes, one row in ten ended. */
static void
fill(void)
{
    wb_outbox_close(box_open());
    conn = PQconnectdb(test_db_url());
    CHECK(PQstatus(conn) == CONNECTION_OK);
    PQclear(
        run("ALTER TABLE waybill_outbox DISABLE TRIGGER USER;"
            "INSERT INTO waybill_outbox(id, kind, status, due_ms, token, "
            "claimed_ms,"
            " key, lane, payload) SELECT '01900000-0000-7000-8000-' ||"
            " lpad(to_hex(n), 12, '0'), 'k' || n % 5, (array['abandoned', "
            "'delivered',"
            " 'processing', 'held', 'pending', 'pending', 'pending', 'pending',"
            " 'pending', 'pending'])[1 + n / 3 % 10], 1000 * n, n, n,"
            " CASE WHEN n % 2 = 0 THEN 'key' || n END,"
            " CASE WHEN n % 2 = 1 THEN 'lane' || n % 1000 END, repeat('x', "
            "200)::bytea"
            " FROM generate_series(1, 5000) n;"
            "INSERT INTO waybill_idem(identity, scope, key, state, "
            "fingerprint, token,"
            " since_ms, ends_ms) SELECT 'i' || n % 50, 's' || n % 7, 'k' || n,"
            " 'claimed', decode(repeat('00', 16), 'hex'), n, n, 1000 * n"
            " FROM generate_series(1, 5000) n;"
            "ALTER TABLE waybill_outbox ENABLE TRIGGER USER;"
            "ANALYZE; SET plan_cache_mode = force_generic_plan"));
}

static const char *
sql_of(const char *name)
{
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
        if (strcmp(statements[i].name, name) == 0)
            return statements[i].postgres != NULL ? statements[i].postgres
                                                  : statements[i].sqlite;
    return name; /* one of a function's */
}

/* The whole plan of a statement, whatever its arguments; static. */
static const char *
plan_of(const char *name)
{
    static char plan[8192];
    char text[4096], execute[200] = "EXPLAIN EXECUTE p";
    PGresult *r;
    int most = 0;

    (void)snprintf(text, sizeof(text), "PREPARE p AS %s", sql_of(name));
    for (char *at = text; (at = strpbrk(at, "?$")) != NULL; at++) {
        *at = '$';
        most = atoi(at + 1) > most ? atoi(at + 1) : most;
    }
    PQclear(run(text));
    for (int i = 0; i < most; i++)
        (void)strcat(execute, i == 0 ? "(NULL" : ", NULL");
    r = run(most > 0 ? strcat(execute, ")") : execute);
    plan[0] = '\0';
    for (int i = 0; i < PQntuples(r); i++)
        (void)snprintf(plan + strlen(plan), sizeof(plan) - strlen(plan), "%s\n",
            PQgetvalue(r, i, 0));
    PQclear(r);
    PQclear(run("DEALLOCATE p"));
    return plan;
}

TEST(test_postgres__O18_plans__by_index_and_no_scan_of_the_table)
{
    static const char live[] =
        "SELECT max(seq) FROM waybill_outbox WHERE lane = $1"
        " AND status NOT IN ('abandoned', 'delivered')";
    static const char *const plans[][2] = {
        {"HEAD_BY_SEQ", "waybill_outbox_pkey"},
        {"HEAD_BY_ID", "waybill_outbox_id"},
        {"HEAD_BY_KEY", "waybill_outbox_key"},
        {"KINDS", "waybill_outbox_ready"},
        {"FIRST_DUE", "waybill_outbox_ready"},
        {"DUE", "waybill_outbox_ready"},
        {"FIRST_FRESH", "waybill_outbox_ready"},
        {"FRESH", "waybill_outbox_ready"},
        {"LEASE", "waybill_outbox_pkey"},
        {"DELETE", "waybill_outbox_pkey"},
        {"CONFIRM", "waybill_outbox_id"},
        {"TOMBSTONE", "waybill_outbox_pkey"},
        {"PENDING", "waybill_outbox_pkey"},
        {"ABANDON", "waybill_outbox_pkey"},
        {"EXTEND", "waybill_outbox_pkey"},
        {"LOCK_LANES", "waybill_outbox_id"},
        {live, "waybill_outbox_lane"},
        {"PURGE", "waybill_outbox_ended"},
        {"ABANDONED", "waybill_outbox_ended"},
        {"SHOW", "waybill_outbox_id"},
        {"LIST", "waybill_outbox_pkey"},
        {"IDEM_FIND", "waybill_idem_key"},
        {"IDEM_COMPLETE", "waybill_idem_key"},
        {"IDEM_RELEASE", "waybill_idem_key"},
        {"IDEM_DROP", "waybill_idem_key"},
        {"IDEM_CLAIMS", "waybill_idem_key"},
        {"IDEM_LIST", "waybill_idem_pkey"},
        {"IDEM_REAP", "waybill_idem_ends"},
    };
    int bad = 0;

    fill();
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        const char *plan = plan_of(plans[i][0]);

        if (strstr(plan, plans[i][1]) != NULL &&
            strstr(plan, "Seq Scan on waybill_") == NULL)
            continue;
        print_error("%s: not by %s:\n%s", plans[i][0], plans[i][1], plan);
        bad++;
    }
    CHECK_INT(0, bad);
    PQfinish(conn);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_postgres__O18_plans__by_index_and_no_scan_of_the_table),
    };
    return RUN_ALL(tests);
}
