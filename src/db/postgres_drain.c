/* postgres_drain.c - drain slots, the flag of drains, notifications of commits.
 *
 * (1) A slot is an advisory lock of a session of its own, which the server
 *     frees when that session ends, however it ends. On a caller's connection
 *     the caller's session holds it.
 * (2) If that session is lost, its locks are taken again at the next call.
 * (3) A worker's session also listens for the commits of others. Whatever uses
 *     the session may read a notification: libpq keeps it until it is asked. */
#include <stdio.h>

#include "db/postgres.h"

enum {
    SILENT_MS = 7000 /* these statements take no time */
};

static struct wb__postgres *
of(struct wb__db *db)
{
    return (struct wb__postgres *)db;
}

static bool
is_true(PGresult *r)
{
    bool yes = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1 &&
               PQgetvalue(r, 0, 0)[0] == 't';

    PQclear(r);
    return yes;
}

static bool
query_drains(struct wb__postgres *s, const char *sql)
{
    return is_true(
        wb__postgres_wait(s->drains, PQsendQuery(s->drains, sql), SILENT_MS));
}

static void
slot_sql(char sql[128], const char *function, int slot)
{
    (void)snprintf(sql, 128,
        "SELECT %s('waybill_outbox'::regclass::oid::bigint::bit(32)::int, %d)",
        function, slot);
}

static void
listen(struct wb__postgres *s)
{
    PGresult *r;

    if (!s->listen)
        return;
    r = wb__postgres_wait(
        s->drains, PQsendQuery(s->drains, "LISTEN waybill"), SILENT_MS);
    s->new_session = PQresultStatus(r) == PGRES_COMMAND_OK;
    PQclear(r);
}

/* Open a session for drains where there is none, and take the locks that the
 * last one had: bits. */
static bool
have_session(struct wb__postgres *s, uint32_t bits)
{
    char sql[128];

    if (s->drains != NULL && PQstatus(s->drains) == CONNECTION_OK)
        return true;
    if (s->drains == NULL)
        s->drains = wb__postgres_second(s);
    else
        PQreset(s->drains);
    if (!wb__postgres_settings(s, s->drains))
        return false;
    for (int slot = 0; slot < WB__DRAIN_SLOTS; slot++)
        if ((bits & UINT32_C(1) << slot) != 0) {
            slot_sql(sql, "pg_try_advisory_lock", slot);
            (void)query_drains(s, sql);
        }
    listen(s);
    return true;
}

/* Run a query on the session of drains; whether it gives one row with true.
 * but: the slot whose lock is being taken, which a new session does not take
 * again; or -1. */
static bool
query_true(struct wb__postgres *s, const char *sql, int but)
{
    uint32_t bits = atomic_load(&s->db.drain_slots);
    bool yes;

    if (but >= 0)
        bits &= ~(UINT32_C(1) << but);
    wb__mutex_lock(&s->lock);
    if (s->borrowed) {
        yes = is_true(PQexec(s->conn, sql));
    } else {
        yes = have_session(s, bits) && query_drains(s, sql);
        /* Lost since the last call, which only shows when it is used. */
        if (s->drains != NULL && PQstatus(s->drains) != CONNECTION_OK &&
            have_session(s, bits))
            yes = query_drains(s, sql);
    }
    wb__mutex_unlock(&s->lock);
    return yes;
}

bool
wb__postgres_drain_try(struct wb__db *db, int slot)
{
    char sql[128];

    slot_sql(sql, "pg_try_advisory_lock", slot);
    return query_true(of(db), sql, slot);
}

void
wb__postgres_drain_free(struct wb__db *db, int slot)
{
    struct wb__postgres *s = of(db);
    char sql[128];
    bool lost;

    wb__mutex_lock(&s->lock);
    lost = !s->borrowed && PQstatus(s->drains) != CONNECTION_OK;
    wb__mutex_unlock(&s->lock);
    slot_sql(sql, "pg_advisory_unlock", slot);
    if (!lost) /* or it is free already */
        (void)query_true(s, sql, slot);
}

void
wb__postgres_flag_set(struct wb__db *db, bool on)
{
    (void)query_true(of(db),
        on ? "INSERT INTO waybill_meta VALUES('drain', '1')"
             " ON CONFLICT DO NOTHING RETURNING true"
           : "DELETE FROM waybill_meta WHERE name = 'drain' RETURNING true",
        -1);
}

bool
wb__postgres_flag(struct wb__db *db)
{
    return query_true(
        of(db), "SELECT true FROM waybill_meta WHERE name = 'drain'", -1);
}

int
wb__postgres_listen(struct wb__db *db)
{
    struct wb__postgres *s = of(db);
    int fd = -1;

    wb__mutex_lock(&s->lock);
    if (!s->listen && !s->borrowed && s->drains != NULL) {
        s->listen = true;
        listen(s);
    }
    if (s->new_session)
        fd = wb__fd_copy(PQsocket(s->drains));
    if (fd >= 0)
        s->new_session = false;
    wb__mutex_unlock(&s->lock);
    return fd;
}

bool
wb__postgres_notified(struct wb__db *db, bool *any)
{
    struct wb__postgres *s = of(db);
    PGnotify *n;
    bool alive;

    wb__mutex_lock(&s->lock);
    alive = s->drains != NULL && PQconsumeInput(s->drains) == 1;
    while (s->drains != NULL && (n = PQnotifies(s->drains)) != NULL) {
        *any = true;
        PQfreemem(n);
    }
    wb__mutex_unlock(&s->lock);
    return alive;
}
