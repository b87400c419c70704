/* postgres_admin.c - the lock of drains, sizes, and how the server is.
 *
 * (1) Drains are locked by advisory locks of a session of their own, which the
 *     server frees when it ends, however it ends. On a caller's connection the
 *     caller's session holds them. */
#include <stdio.h>
#include <stdlib.h>

#include "db/postgres.h"

enum wb_status
wb__postgres_bytes(struct wb__db *db, int64_t *bytes, struct wb_err *err)
{
    char text[32];
    enum wb_status rc = wb__postgres_text((struct wb__postgres *)db,
        "SELECT pg_total_relation_size('waybill_outbox')", text, sizeof(text),
        err);

    *bytes = strtoll(text, NULL, 10);
    return rc;
}

/* ---- drains ------------------------------------------------------------ */

/* A second connection to where the first one goes. */
static PGconn *
connect_side(PGconn *conn)
{
    const char *key[64], *value[64];
    PQconninfoOption *all = PQconninfo(conn);
    PGconn *side;
    int n = 0;

    for (const PQconninfoOption *o = all; o != NULL && o->keyword != NULL; o++)
        if (o->val != NULL && n < 63) {
            key[n] = o->keyword;
            value[n++] = o->val;
        }
    key[n] = NULL;
    value[n] = NULL;
    side = PQconnectdbParams(key, value, 0);
    PQconninfoFree(all);
    wb__postgres_silence(side);
    return side;
}

static bool
ask(struct wb__postgres *s, const char *sql)
{
    PGconn *conn = s->conn;
    PGresult *r;
    bool yes;

    wb__mutex_lock(&s->lock);
    if (!s->borrowed) {
        if (s->side != NULL && PQstatus(s->side) != CONNECTION_OK)
            PQreset(s->side);
        if (s->side == NULL)
            s->side = connect_side(s->conn);
        conn = s->side;
    }
    r = PQexec(conn, sql);
    yes = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1 &&
          PQgetvalue(r, 0, 0)[0] == 't';
    PQclear(r);
    wb__mutex_unlock(&s->lock);
    return yes;
}

static bool
ask_slot(struct wb__db *db, const char *function, int slot)
{
    char sql[128];

    (void)snprintf(sql, sizeof(sql),
        "SELECT %s('waybill_outbox'::regclass::oid::bigint::bit(32)::int, %d)",
        function, slot);
    return ask((struct wb__postgres *)db, sql);
}

bool
wb__postgres_drain_try(struct wb__db *db, int slot)
{
    return ask_slot(db, "pg_try_advisory_lock", slot);
}

void
wb__postgres_drain_free(struct wb__db *db, int slot)
{
    (void)ask_slot(db, "pg_advisory_unlock", slot);
}

void
wb__postgres_drain_flag_set(struct wb__db *db, bool on)
{
    (void)ask((struct wb__postgres *)db,
        on ? "INSERT INTO waybill_meta VALUES('drain', '1')"
             " ON CONFLICT DO NOTHING RETURNING true"
           : "DELETE FROM waybill_meta WHERE name = 'drain' RETURNING true");
}

bool
wb__postgres_drain_flag(struct wb__db *db)
{
    return ask((struct wb__postgres *)db,
        "SELECT true FROM waybill_meta WHERE name = 'drain'");
}

/* ---- administration ---------------------------------------------------- */

enum wb_status
wb__postgres_backup(struct wb__db *db, const char *path, struct wb_err *err)
{
    (void)db;
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "backup to %s: PostgreSQL has its own tools: pg_dump -t 'waybill_*', "
        "or pg_basebackup",
        path);
}

enum wb_status
wb__postgres_health(struct wb__db *db, struct wb_health *h, struct wb_err *err)
{
    struct wb__postgres *s = (struct wb__postgres *)db;
    const char *version = PQparameterStatus(s->conn, "server_version");
    char text[32];
    enum wb_status rc = wb__postgres_bytes(db, &h->file_bytes, err);

    (void)snprintf(h->engine, sizeof(h->engine), "PostgreSQL %s",
        version != NULL ? version : "");
    (void)snprintf(h->journal_mode, sizeof(h->journal_mode), "wal");
    if (rc == WB_OK)
        rc = wb__postgres_text(s,
            "SELECT current_setting('fsync')::bool AND"
            " current_setting('full_page_writes')::bool",
            text, sizeof(text), err);
    h->full_sync = text[0] == 't';
    if (rc == WB_OK)
        rc = wb__postgres_text(s,
            "SELECT value FROM waybill_meta WHERE name = 'version'", text,
            sizeof(text), err);
    h->schema_version = strtoll(text, NULL, 10);
    if (rc == WB_OK)
        rc = wb__postgres_text(s,
            "SELECT coalesce('not valid: index ' || min(indexrelid::regclass"
            "::text), 'ok') FROM pg_index WHERE NOT (indisvalid AND indisready)"
            " AND indrelid = 'waybill_outbox'::regclass",
            h->integrity, sizeof(h->integrity), err);
    return rc;
}
