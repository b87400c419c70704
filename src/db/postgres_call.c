/* postgres_call.c - what every part of the PostgreSQL engine calls: statuses,
 * plain statements, the connection. */
#include <stdio.h>

#include "db/postgres.h"

/* By the class of the SQLSTATE, or by the whole code where a class is more than
 * one case; the first that matches counts.
 * https://www.postgresql.org/docs/15/errcodes-appendix.html */
static const struct {
    const char *code;
    enum wb_status status;
} statuses[] = {
    {"08", WB_UNAVAILABLE},
    {"57P", WB_UNAVAILABLE}, /* the server stops, or is starting */
    {"53300", WB_UNAVAILABLE},
    {"40", WB_BUSY},
    {"55P03", WB_BUSY},
    {"57014", WB_BUSY},
    {"53100", WB_FULL},
    {"53", WB_NOMEM},
    {"54", WB_TOOBIG},
    {"22", WB_INVALID},
    {"23", WB_INVALID},
    {"25", WB_REFUSED},
    {"28", WB_REFUSED},
    {"42501", WB_REFUSED},
    {"3D", WB_NOTFOUND},
    {"42", WB_CORRUPT},
    {"XX", WB_CORRUPT},
};

enum wb_status
wb__postgres_status(const char *sqlstate)
{
    for (size_t i = 0; sqlstate != NULL && i < WB_COUNT(statuses); i++)
        if (wb__starts(wb_slice(sqlstate), wb_slice(statuses[i].code)))
            return statuses[i].status;
    return WB_IO;
}

enum wb_status
wb__postgres_fail(struct wb__postgres *s, const char *what, PGresult *result,
    struct wb_err *err)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    enum wb_status rc = wb__postgres_status(state);
    char text[4 * 160 + 1];

    if (PQstatus(s->conn) != CONNECTION_OK)
        rc = WB_UNAVAILABLE;
    else if (result == NULL)
        rc = WB_NOMEM;
    s->db.clash = state != NULL && rc == WB_BUSY &&
                  wb__starts(wb_slice(state), WB_LIT("40"));
    if (message == NULL)
        message = PQerrorMessage(s->conn);
    text[wb__one_line(wb_slice(message), 160, text)] = '\0';
    rc = wb__fail(err, rc, 0, "%s: PostgreSQL: %s", what, text);
    PQclear(result);
    return rc;
}

enum wb_status
wb__postgres_exec(struct wb__db *db, const char *sql, struct wb_err *err)
{
    struct wb__postgres *s = (struct wb__postgres *)db;
    PGresult *r = PQexec(s->conn, sql);

    if (PQresultStatus(r) != PGRES_COMMAND_OK &&
        PQresultStatus(r) != PGRES_TUPLES_OK)
        return wb__postgres_fail(s, "the database", r, err);
    PQclear(r);
    return WB_OK;
}

enum wb_status
wb__postgres_text(struct wb__db *db, const char *sql, char *out, size_t size,
    struct wb_err *err)
{
    struct wb__postgres *s = (struct wb__postgres *)db;
    PGresult *r = PQexec(s->conn, sql);

    out[0] = '\0';
    if (PQresultStatus(r) != PGRES_TUPLES_OK)
        return wb__postgres_fail(s, "the database", r, err);
    if (PQntuples(r) > 0)
        (void)snprintf(out, size, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    return WB_OK;
}

static void
ignore(void *ctx, const PGresult *result)
{
    (void)ctx;
    (void)result;
}

void
wb__postgres_silence(PGconn *conn)
{
    (void)PQsetNoticeReceiver(conn, ignore, NULL);
}

enum wb_status
wb__postgres_session(struct wb__postgres *s, struct wb_err *err)
{
    char text[96];

    memset(s->prepared, 0, sizeof(s->prepared));
    (void)snprintf(text, sizeof(text), "SET lock_timeout = %lld",
        (long long)(s->db.opts.busy_ms < INT32_MAX ? s->db.opts.busy_ms
                                                   : INT32_MAX));
    return wb__postgres_exec(&s->db, text, err);
}
