/* postgres_call.c - what every part of the PostgreSQL engine calls: statuses,
 * plain statements, waiting for the server. */
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

/* What was prepared is gone (DISCARD ALL, a pooler), or no longer fits: the
 * transaction can be run again, which prepares again. */
static bool
lost_prepared(struct wb__postgres *s, const char *state)
{
    if (strcmp(state, "26000") != 0 && strcmp(state, "0A000") != 0)
        return false;
    memset(s->prepared, 0, sizeof(s->prepared));
    return true;
}

enum wb_status
wb__postgres_fail(struct wb__postgres *s, const char *what, PGresult *result,
    struct wb_err *err)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    enum wb_status rc = wb__postgres_status(state);
    char text[4 * 160 + 1];

    s->db.clash = state != NULL && wb__starts(wb_slice(state), WB_LIT("40"));
    if (state != NULL && lost_prepared(s, state)) {
        rc = WB_BUSY;
        s->db.clash = true;
    }
    if (PQstatus(s->conn) != CONNECTION_OK)
        rc = WB_UNAVAILABLE;
    else if (result == NULL)
        rc = WB_NOMEM;
    if (message == NULL)
        message = s->silent ? "the server has been silent for too long, so the "
                              "connection was closed"
                            : PQerrorMessage(s->conn);
    text[wb__one_line(wb_slice(message), 160, text)] = '\0';
    rc = wb__fail(err, rc, 0, "%s: PostgreSQL: %s", what, text);
    PQclear(result);
    return rc;
}

/* As PQexec() does: the last result, or the first that is an error. */
PGresult *
wb__postgres_wait(PGconn *conn, int sent, int64_t silent_ms)
{
    PGresult *last = NULL, *r;
    bool lost = sent == 0;

    if (lost)
        return NULL;
    do {
        int unsent;

        while (!lost && ((unsent = PQflush(conn)) == 1 || PQisBusy(conn))) {
            lost = !wb__fd_wait(PQsocket(conn), unsent == 1, silent_ms);
            if (lost)
                wb__fd_shut(PQsocket(conn));
            if (PQconsumeInput(conn) == 0)
                break;
        }
        r = PQgetResult(conn);
        if (r == NULL)
            break;
        if (PQresultStatus(last) != PGRES_FATAL_ERROR || last == NULL) {
            PQclear(last);
            last = r;
        } else {
            PQclear(r);
        }
    } while (PQstatus(conn) == CONNECTION_OK);
    if (!lost)
        return last;
    PQclear(last);
    return NULL;
}

PGresult *
wb__postgres_result(struct wb__postgres *s, int sent)
{
    PGresult *r = wb__postgres_wait(s->conn, sent, s->silent_ms);

    s->silent |= sent != 0 && r == NULL && PQstatus(s->conn) != CONNECTION_OK;
    return r;
}

PGresult *
wb__postgres_query(struct wb__postgres *s, const char *sql)
{
    return s->borrowed ? PQexec(s->conn, sql)
                       : wb__postgres_result(s, PQsendQuery(s->conn, sql));
}

enum wb_status
wb__postgres_exec(struct wb__db *db, const char *sql, struct wb_err *err)
{
    struct wb__postgres *s = (struct wb__postgres *)db;
    PGresult *r = wb__postgres_query(s, sql);

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
    PGresult *r = wb__postgres_query(s, sql);

    out[0] = '\0';
    if (PQresultStatus(r) != PGRES_TUPLES_OK)
        return wb__postgres_fail(s, "the database", r, err);
    if (PQntuples(r) > 0)
        (void)snprintf(out, size, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    return WB_OK;
}
