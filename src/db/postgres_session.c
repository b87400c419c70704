/* postgres_session.c - connections and sessions of ours.
 *
 * (1) A network that is silent, a server that is stopped and a client that is
 *     gone are noticed: on our side by libpq's connect_timeout, keepalives and
 *     tcp_user_timeout and by the limit of wb__postgres_wait(), on the server's
 *     by the settings below. What the user, the role, the database or the
 *     server's configuration sets is left as it is.
 * (2) No text of an error holds a part of the url.
 * (3) Session state has to last: see wb__postgres_pooler(). */
#include <stdio.h>
#include <stdlib.h>

#include "db/postgres.h"

enum {
    SILENT_MS = 10000,    /* before the session is set up */
    TRANSFER_MS = 5000,   /* after the server's own limit of a statement */
    STATEMENT_MS = 30000, /* statement_timeout */
    POOLER_ROUNDS = 4
};

/* In milliseconds, but for keepalives: seconds. A lock of a client that froze
 * inside a transaction is freed by the third; of one whose machine is gone, by
 * the last four. */
static const char settings[] =
    "SELECT set_config(name, ours.value, false) FROM pg_settings JOIN (VALUES"
    "('lock_timeout', '%lld'),"
    "('statement_timeout', '%d'),"
    "('idle_in_transaction_session_timeout', '60000'),"
    "('tcp_keepalives_idle', '10'),"
    "('tcp_keepalives_interval', '5'),"
    "('tcp_keepalives_count', '3'),"
    "('tcp_user_timeout', '15000')"
    ") AS ours(name, value) USING (name) WHERE source = 'default';"
    "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'";

static void
ignore(void *ctx, const PGresult *result)
{
    (void)ctx;
    (void)result;
}

static int64_t
busy_ms(const struct wb__postgres *s)
{
    return s->db.opts.busy_ms < INT32_MAX ? s->db.opts.busy_ms : INT32_MAX;
}

bool
wb__postgres_settings(struct wb__postgres *s, PGconn *conn)
{
    char text[sizeof(settings) + 32];
    PGresult *r;
    int64_t ms;

    if (PQstatus(conn) != CONNECTION_OK)
        return false;
    (void)PQsetNoticeReceiver(conn, ignore, NULL); /* we never print */
    (void)PQsetnonblocking(conn, 1);
    (void)snprintf(
        text, sizeof(text), settings, (long long)busy_ms(s), (int)STATEMENT_MS);
    r = wb__postgres_wait(conn, PQsendQuery(conn, text), SILENT_MS);
    if (PQresultStatus(r) != PGRES_TUPLES_OK || PQntuples(r) != 1) {
        PQclear(r);
        return false;
    }
    ms = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
    PQclear(r);
    if (conn == s->conn)
        s->silent_ms = ms == 0 ? 0 : ms + TRANSFER_MS;
    return true;
}

/* ---- connect ----------------------------------------------------------- */

/* Characters that a user or a password has to escape move the borders of what
 * libpq reads, and then its messages show parts of the password: a second '@',
 * or one behind a '/', and a port that is not a number. */
static bool
is_readable(const char *url)
{
    PQconninfoOption *all = PQconninfoParse(url, NULL);
    const char *at = strstr(url, "://") + 3, *host = at + strcspn(at, "@/");
    bool ok = all != NULL;

    at = *host == '@' ? host + 1 : host;
    if (at[strcspn(at, "@?")] == '@')
        ok = false;
    for (const PQconninfoOption *o = all; ok && o->keyword != NULL; o++)
        if (strcmp(o->keyword, "port") == 0 && o->val != NULL)
            ok = o->val[strspn(o->val, "0123456789,")] == '\0';
    PQconninfoFree(all);
    return ok;
}

/* The url overrides the parameters before it. */
enum wb_status
wb__postgres_connect(
    struct wb__postgres *s, const char *url, struct wb_err *err)
{
    char seconds[16];
    const char *const key[] = {"connect_timeout", "keepalives_idle",
        "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "fallback_application_name", "dbname", "client_encoding", NULL};
    const char *const value[] = {
        seconds, "10", "5", "3", "15000", "waybill", url, "UTF8", NULL};
    bool accepts;
    enum wb_status rc;

    if (!is_readable(url))
        return wb__fail(err, WB_INVALID, 0,
            "the URL of the database cannot be read (it is not shown, as it "
            "may hold a password); give "
            "postgres://USER:PASSWORD@HOST:PORT/DATABASE, and in each of these "
            "write %% as %%25, @ as %%40, / as %%2F, : as %%3A and ? as %%3F");
    (void)snprintf(seconds, sizeof(seconds), "%d",
        s->db.opts.busy_ms < 2000      ? 2
        : s->db.opts.busy_ms < 3600000 ? (int)(s->db.opts.busy_ms / 1000)
                                       : 3600);
    s->silent_ms = SILENT_MS;
    s->conn = PQconnectdbParams(key, value, 1);
    if (s->conn == NULL)
        return wb__nomem(err, "connect");
    if (wb__postgres_settings(s, s->conn))
        return WB_OK;
    /* libpq gives no code. A server that accepts connections, and not this one,
     * refuses it: once more, as it may just have been started. */
    accepts = PQpingParams(key, value, 1) == PQPING_OK;
    if (accepts)
        PQreset(s->conn);
    if (accepts && wb__postgres_settings(s, s->conn))
        return WB_OK;
    rc = wb__postgres_fail(s, "cannot connect", NULL, err);
    if (!accepts || rc != WB_UNAVAILABLE)
        return rc;
    if (err != NULL)
        err->status = WB_REFUSED;
    return WB_REFUSED;
}

enum wb_status
wb__postgres_again(struct wb__postgres *s, struct wb_err *err)
{
    memset(s->prepared, 0, sizeof(s->prepared));
    PQreset(s->conn);
    if (!wb__postgres_settings(s, s->conn))
        return wb__postgres_fail(s, "cannot connect again", NULL, err);
    s->silent = false;
    return WB_OK;
}

PGconn *
wb__postgres_second(struct wb__postgres *s)
{
    const char *key[64], *value[64];
    PQconninfoOption *all = PQconninfo(s->conn);
    PGconn *conn;
    int n = 0;

    for (const PQconninfoOption *o = all; o != NULL && o->keyword != NULL; o++)
        if (o->val != NULL && n < 63) {
            key[n] = o->keyword;
            value[n++] = o->val;
        }
    key[n] = NULL;
    value[n] = NULL;
    conn = PQconnectdbParams(key, value, 0);
    PQconninfoFree(all);
    return conn;
}

/* ---- poolers ----------------------------------------------------------- */

/* The server process that ran the query; 0: none did. */
static int
process_of(PGresult *r)
{
    bool one = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1;
    int pid = one ? atoi(PQgetvalue(r, 0, 0)) : 0;

    PQclear(r);
    return pid;
}

static PGresult *
ask(PGconn *conn, const char *sql)
{
    return wb__postgres_wait(conn, PQsendQuery(conn, sql), SILENT_MS);
}

/* A pooler gives a session a made-up process number. A second session, in a
 * transaction, shows whether it keeps one process for each session: if not,
 * that session gets the process of the first one, or the first one gets
 * another. */
enum wb_status
wb__postgres_pooler(struct wb__postgres *s, struct wb_err *err)
{
    static const char pid[] = "SELECT pg_backend_pid()";
    int first = process_of(wb__postgres_query(s, pid)), other = 0, now;
    PGconn *second;
    bool shared = false;

    if (first == PQbackendPID(s->conn) || first == 0)
        return WB_OK;
    second = wb__postgres_second(s);
    for (int i = 0; i < POOLER_ROUNDS && !shared; i++) {
        now = process_of(ask(second, "BEGIN;SELECT pg_backend_pid()"));
        if (now == 0)
            break;
        shared = now == first || (other != 0 && now != other) ||
                 process_of(wb__postgres_query(s, pid)) != first;
        other = now;
        PQclear(ask(second, "COMMIT"));
    }
    PQfinish(second);
    if (shared)
        return wb__fail(err, WB_REFUSED, 0,
            "there is a pooler before the server that changes the server "
            "process with each transaction: locks and prepared statements "
            "would be lost; set pool_mode = session for this database "
            "(PgBouncer), "
            "or connect to the server itself");
    if (other == 0)
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "there is a pooler before the server that gives no second session; "
            "allow two for each worker (PgBouncer: pool_size), and "
            "pool_mode = session");
    return WB_OK;
}
