/* support_pg.c - the tests' database on PostgreSQL: a schema for each test.
 * See support.h. */
#include "support_pg.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <unistd.h>

#include "support.h"

enum {
    BOOL_OID = 16
};

static char schema[64], url[512];

static PGconn *
connect_to(const char *where)
{
    PGconn *conn = PQconnectdb(where);

    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s: %s", where, PQerrorMessage(conn));
    (void)PQsetNoticeProcessor(conn, NULL, NULL);
    PQclear(PQexec(conn, "SET client_min_messages = warning"));
    return conn;
}

PGconn *
test_pg_connection(void)
{
    return connect_to(url);
}

void
test_pg_run(PGconn *conn, const char *sql)
{
    PGresult *r = PQexec(conn, sql);

    if (PQresultStatus(r) != PGRES_COMMAND_OK &&
        PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(conn));
    PQclear(r);
}

static void
run(const char *where, const char *sql)
{
    PGconn *conn = connect_to(where);

    test_pg_run(conn, sql);
    PQfinish(conn);
}

void
test_pg_begin(const char *server)
{
    static int number;
    char sql[1024];

    (void)snprintf(schema, sizeof(schema), "t%ld_%d", (long)getpid(), ++number);
    (void)snprintf(
        url, sizeof(url), "%s?options=-csearch_path%%3D%s", server, schema);
    (void)snprintf(sql, sizeof(sql),
        "CREATE SCHEMA %s; SET search_path = %s;"
        /* SQLite functions that the tests' queries use */
        "CREATE FUNCTION quote(anyelement) RETURNS text LANGUAGE sql AS"
        " $$ SELECT coalesce(quote_literal($1::text), 'NULL') $$;"
        "CREATE FUNCTION join_two(text, text, text) RETURNS text LANGUAGE sql "
        "AS"
        " $$ SELECT coalesce($1 || $3, '') || $2 $$;"
        "CREATE AGGREGATE group_concat(text)(sfunc = textcat, stype = text);"
        "CREATE AGGREGATE group_concat(text, text)(sfunc = join_two,"
        " stype = text)",
        schema, schema);
    run(server, sql);
}

void
test_pg_end(const char *server)
{
    char sql[128];

    /* A lock that a failed test still holds must not block the other tests. */
    (void)snprintf(sql, sizeof(sql),
        "SET lock_timeout = '5s'; DROP SCHEMA %s CASCADE", schema);
    run(server, sql);
}

const char *
test_pg_url(void)
{
    return url;
}

void *
test_pg_lock(const char *table)
{
    char sql[96];
    PGconn *conn = connect_to(url);

    PQclear(PQexec(conn, "BEGIN"));
    (void)snprintf(sql, sizeof(sql), "LOCK TABLE %s", table);
    PQclear(PQexec(conn, sql));
    assert_int_equal(PQTRANS_INTRANS, PQtransactionStatus(conn));
    return conn;
}

void
test_pg_unlock(void *lock)
{
    PQfinish(lock);
}

/* The SQLite text of a payload query, in PostgreSQL's words. */
static void
translate(const char *sql, char *out, size_t size)
{
    static const char theirs[] = "CAST(payload AS TEXT)",
                      ours[] = "convert_from(payload, 'UTF8')";
    const char *at = strstr(sql, theirs);

    if (at == NULL)
        (void)snprintf(out, size, "%s", sql);
    else
        (void)snprintf(out, size, "%.*s%s%s", (int)(at - sql), sql, ours,
            at + sizeof(theirs) - 1);
}

void
test_pg_text(const char *sql, char *out, size_t size)
{
    char text[4096];
    PGconn *conn = connect_to(url);
    PGresult *r;

    translate(sql, text, sizeof(text));
    r = PQexec(conn, text);
    if (PQresultStatus(r) != PGRES_TUPLES_OK &&
        PQresultStatus(r) != PGRES_COMMAND_OK)
        fail_msg("%s: %s", text, PQerrorMessage(conn));
    (void)snprintf(out, size, "%s",
        PQntuples(r) == 0 || PQgetisnull(r, 0, 0) ? "NULL"
        : PQftype(r, 0) == BOOL_OID
            ? (PQgetvalue(r, 0, 0)[0] == 't' ? "1" : "0")
            : PQgetvalue(r, 0, 0));
    PQclear(r);
    PQfinish(conn);
}

void
test_pg_wait_blocked(int sessions)
{
    char text[32] = "";

    for (int tries = 0; tries < 5000; tries++) {
        test_pg_text("SELECT count(*) FROM pg_stat_activity"
                     " WHERE wait_event_type = 'Lock'",
            text, sizeof(text));
        if (atoi(text) >= sessions)
            return;
        (void)usleep(1000);
    }
    fail_msg("%s of %d sessions wait for a lock", text, sessions);
}
