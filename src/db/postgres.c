/* postgres.c - the PostgreSQL engine: statements, transactions, clock, health.
 *
 * (1) Transactions are READ COMMITTED: each statement sees what was committed
 *     before it, and what it is going to change it locks.
 * (2) A FULL transaction commits with synchronous_commit on, whatever the
 *     server's default; a RELAXED one with it off: a crash of the server undoes
 *     what was committed within three times wal_writer_delay before.
 * (3) If the connection breaks in COMMIT the outcome is unknown: IO. All other
 *     failures have rolled back, a begin that failed half-way too. A connection
 *     that broke before is opened again by the next begin.
 * (4) A statement that fails leaves the session usable: what is open is rolled
 *     back, and if that fails too, a connection of ours is closed and opened
 *     again.
 * (5) The clock is the server's. It is read at each begin; in between, the time
 *     that has passed here is added. It is never ahead of the server's, and
 *     behind it by the round trip of that begin at most.
 * (6) Workers are notified of a commit in a transaction of its own after it,
 *     as a NOTIFY holds a lock of the whole server until its commit; by one
 *     handle at most once in WB__NOTIFY_US. Only inside a caller's transaction
 *     it is part of that. */
#include "db/postgres.h"

#include <stdio.h>
#include <stdlib.h>

#include "waybill/outbox.h" /* struct wb_health */

enum {
    ARGS_MAX = 16,
    TEXT_MAX = 2048,
    CLOCK_US = 1000000,
    INT8_OID = 20,
    INT4_OID = 23
};

static const char *const sql_text[WB__SQL_COUNT] = {
#define X(name, sqlite, postgres) \
    [WB__SQL_##name] = (postgres) != NULL ? (postgres) : (sqlite),
    WB__SQL_MAP(X)
#undef X
};

static struct wb__postgres *
of(struct wb__db *db)
{
    return (struct wb__postgres *)db;
}

/* ---- statements -------------------------------------------------------- */

/* A name of this handle: several may share a caller's connection. */
static void
name_of(const struct wb__postgres *s, int sql, char name[48])
{
    (void)snprintf(name, 48, "waybill_%u_%d", (unsigned)s->number, sql);
}

static enum wb_status
prepare(struct wb__postgres *s, enum wb__sql sql, struct wb_err *err)
{
    char name[48], text[TEXT_MAX];
    int n = snprintf(text, sizeof(text), "%s", sql_text[sql]);
    PGresult *r;

    WB_ASSERT(n > 0 && n < TEXT_MAX);
    if (s->prepared[sql])
        return WB_OK;
    for (char *at = text; (at = strchr(at, '?')) != NULL;)
        *at = '$';
    name_of(s, sql, name);
    r = s->borrowed ? PQprepare(s->conn, name, text, 0, NULL)
                    : wb__postgres_result(
                          s, PQsendPrepare(s->conn, name, text, 0, NULL));
    if (PQresultStatus(r) != PGRES_COMMAND_OK)
        return wb__postgres_fail(s, "prepare", r, err);
    PQclear(r);
    s->prepared[sql] = true;
    return WB_OK;
}

struct params {
    const char *value[ARGS_MAX];
    int len[ARGS_MAX], binary[ARGS_MAX];
    char digits[ARGS_MAX][24];
};

/* Integers are sent as text, which fits every integer type. Text and bytes are
 * sent in binary, which needs no NUL at their end. */
static bool
params_set(struct params *p, struct wb__args args)
{
    WB_ASSERT(args.n <= ARGS_MAX);
    for (size_t i = 0; i < args.n; i++) {
        const struct wb__val *v = &args.val[i];

        if (v->s.len > INT32_MAX)
            return false;
        p->value[i] = v->s.ptr == NULL ? "" : v->s.ptr;
        p->len[i] = (int)v->s.len;
        p->binary[i] = v->type != WB__INT;
        if (v->type == WB__NULL)
            p->value[i] = NULL;
        if (v->type == WB__INT) {
            (void)snprintf(
                p->digits[i], sizeof(p->digits[i]), "%lld", (long long)v->i);
            p->value[i] = p->digits[i];
        }
    }
    return true;
}

static int64_t
read_int(const PGresult *r, int row, int column)
{
    const unsigned char *at = (const unsigned char *)PQgetvalue(r, row, column);
    int len = PQgetlength(r, row, column);
    uint64_t v = len > 0 && (at[0] & 0x80) != 0 ? UINT64_MAX : 0;

    if (PQftype(r, column) != INT8_OID && PQftype(r, column) != INT4_OID)
        return strtoll(
            (const char *)at, NULL, 10); /* a text column, as of META_GET */
    for (int i = 0; i < len; i++)
        v = v << 8 | at[i];
    return (int64_t)v;
}

static enum wb_status
pg_start(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    struct wb_err *err)
{
    struct wb__postgres *s = of(db);
    struct params p;
    char name[48];
    PGresult *r;
    enum wb_status rc = prepare(s, sql, err);

    if (rc != WB_OK)
        return rc;
    WB_ASSERT(s->result[sql] == NULL);
    if (!params_set(&p, args))
        return wb__fail(err, WB_TOOBIG, 0, "a value is longer than 2 GiB");
    name_of(s, sql, name);
    r = s->borrowed ? PQexecPrepared(s->conn, name, (int)args.n, p.value, p.len,
                          p.binary, 1)
                    : wb__postgres_result(
                          s, PQsendQueryPrepared(s->conn, name, (int)args.n,
                                 p.value, p.len, p.binary, 1));
    if (PQresultStatus(r) != PGRES_TUPLES_OK &&
        PQresultStatus(r) != PGRES_COMMAND_OK)
        return wb__postgres_fail(s, "the database", r, err);
    s->result[sql] = r;
    s->row[sql] = -1;
    if (sql == WB__SQL_INSERT && PQntuples(r) == 1)
        s->last_seq = read_int(r, 0, 0);
    return WB_OK;
}

static enum wb_status
pg_next(struct wb__db *db, enum wb__sql sql, struct wb_err *err)
{
    struct wb__postgres *s = of(db);

    (void)err;
    return ++s->row[sql] < PQntuples(s->result[sql]) ? WB_OK : WB_EMPTY;
}

static void
pg_end(struct wb__db *db, enum wb__sql sql)
{
    PQclear(of(db)->result[sql]);
    of(db)->result[sql] = NULL;
}

static bool
pg_null(struct wb__db *db, enum wb__sql sql, int column)
{
    return PQgetisnull(of(db)->result[sql], of(db)->row[sql], column) != 0;
}

static struct wb_slice
pg_slice(struct wb__db *db, enum wb__sql sql, int column)
{
    const PGresult *r = of(db)->result[sql];
    int row = of(db)->row[sql];

    if (PQgetlength(r, row, column) == 0)
        return (struct wb_slice){NULL, 0};
    return (struct wb_slice){
        PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column)};
}

static int64_t
pg_int(struct wb__db *db, enum wb__sql sql, int column)
{
    if (pg_null(db, sql, column))
        return 0;
    return read_int(of(db)->result[sql], of(db)->row[sql], column);
}

static int64_t
pg_changed(struct wb__db *db, enum wb__sql sql)
{
    return strtoll(PQcmdTuples(of(db)->result[sql]), NULL, 10);
}

static int64_t
pg_last_seq(struct wb__db *db)
{
    return of(db)->last_seq;
}

/* ---- clock: see (5) ---------------------------------------------------- */

static int64_t
mono_us(const struct wb__postgres *s)
{
    return s->db.opts.env->mono_us(s->db.opts.env->ctx);
}

/* The answer came after the server had read its clock: so the time is not ahead
 * of it. */
static void
set_clock(struct wb__postgres *s, const char *ms)
{
    s->clock_us = mono_us(s);
    atomic_store(&s->offset_us, strtoll(ms, NULL, 10) * 1000 - s->clock_us);
}

enum wb_status
wb__postgres_read_clock(struct wb__postgres *s, struct wb_err *err)
{
    char now[24];
    enum wb_status rc =
        wb__postgres_text(&s->db, WB__POSTGRES_TIME, now, sizeof(now), err);

    if (rc == WB_OK)
        set_clock(s, now);
    return rc;
}

static int64_t
pg_now(struct wb__db *db, bool may_ask)
{
    struct wb__postgres *s = of(db);

    if (may_ask && mono_us(s) - s->clock_us > CLOCK_US &&
        PQtransactionStatus(s->conn) == PQTRANS_IDLE)
        (void)!wb__postgres_read_clock(s, NULL);
    return (mono_us(s) + atomic_load(&s->offset_us)) / 1000;
}

/* ---- transactions ------------------------------------------------------ */

static bool
is_open(const PGconn *conn)
{
    return PQtransactionStatus(conn) == PQTRANS_INTRANS ||
           PQtransactionStatus(conn) == PQTRANS_INERROR;
}

/* A cancel may arrive during the rollback: then roll back once more. */
static void
pg_rollback(struct wb__db *db)
{
    struct wb__postgres *s = of(db);

    if (s->nested) {
        if (is_open(s->conn))
            PQclear(PQexec(s->conn,
                "ROLLBACK TO SAVEPOINT waybill; RELEASE SAVEPOINT waybill"));
        return;
    }
    for (int i = 0; i < 3 && is_open(s->conn); i++)
        PQclear(wb__postgres_query(s, "ROLLBACK"));
    if (!s->borrowed && is_open(s->conn))
        wb__fd_shut(PQsocket(s->conn));
}

/* BEGIN and, in the same round trip, the time. A failure half-way (cancel, a
 * timeout) leaves the session in a transaction that failed: roll it back. */
static enum wb_status
begin_own(struct wb__postgres *s, const char *begin, struct wb_err *err)
{
    char text[200], now[24] = "";
    enum wb_status rc;

    (void)snprintf(text, sizeof(text), "%s;%s", begin,
        s->db.opts.server_clock ? WB__POSTGRES_TIME : "");
    rc = s->db.opts.server_clock
             ? wb__postgres_text(&s->db, text, now, sizeof(now), err)
             : wb__postgres_exec(&s->db, text, err);
    if (rc != WB_OK)
        pg_rollback(&s->db);
    else if (s->db.opts.server_clock)
        set_clock(s, now);
    return rc;
}

static enum wb_status
pg_begin(struct wb__db *db, enum wb__tx tx, struct wb_err *err)
{
    static const char *const text[] = {
#define BEGIN "BEGIN ISOLATION LEVEL READ COMMITTED"
        [WB__TX_READ] = BEGIN,
        [WB__TX_RELAXED] =
            BEGIN " READ WRITE;SET LOCAL synchronous_commit = off",
        [WB__TX_FULL] = BEGIN " READ WRITE;SET LOCAL synchronous_commit = on",
#undef BEGIN
    };
    struct wb__postgres *s = of(db);
    enum wb_status rc;

    s->nested = s->borrowed && PQtransactionStatus(s->conn) != PQTRANS_IDLE &&
                PQstatus(s->conn) == CONNECTION_OK;
    db->nested = s->nested;
    db->wake = false;
    if (s->nested && PQtransactionStatus(s->conn) != PQTRANS_INTRANS)
        return wb__fail(err, WB_REFUSED, 0,
            "the connection's transaction has failed, or a command of it is "
            "under way; end it first");
    if (s->nested)
        return begin_own(s, "SAVEPOINT waybill", err);
    if (!s->borrowed)
        pg_rollback(db); /* what a failure may have left */
    rc = begin_own(s, text[tx], err);
    if (rc == WB_UNAVAILABLE && !s->borrowed) {
        rc = wb__postgres_again(s, err);
        if (rc == WB_OK)
            rc = begin_own(s, text[tx], err);
    }
    return rc;
}

/* After a commit. If it fails, the workers find the message by their poll. */
static void
notify(struct wb__postgres *s)
{
    int64_t now_us = mono_us(s);

    if (s->notified_us != 0 && now_us - s->notified_us < WB__NOTIFY_US)
        return;
    s->notified_us = now_us;
    PQclear(wb__postgres_query(s, "BEGIN;SET LOCAL synchronous_commit = off;"
                                  "NOTIFY waybill;COMMIT"));
}

static enum wb_status
pg_commit(struct wb__db *db, struct wb_err *err)
{
    struct wb__postgres *s = of(db);
    bool wake = db->wake;
    PGresult *r;
    enum wb_status rc;

    db->wake = false;
    if (s->nested) {
        rc = wb__postgres_exec(&s->db,
            wake ? "RELEASE SAVEPOINT waybill;NOTIFY waybill"
                 : "RELEASE SAVEPOINT waybill",
            err);
        if (rc != WB_OK)
            pg_rollback(db);
        return rc;
    }
    r = wb__postgres_query(s, "COMMIT");
    if (PQresultStatus(r) == PGRES_COMMAND_OK) {
        bool done = strcmp(PQcmdStatus(r), "COMMIT") == 0;

        PQclear(r);
        if (done && wake)
            notify(s);
        return done ? WB_OK
                    : wb__fail(err, WB_UNAVAILABLE, 0,
                          "commit: the transaction had failed, and was rolled "
                          "back");
    }
    rc = wb__postgres_fail(s, "commit", r, err);
    pg_rollback(db);
    if (rc == WB_UNAVAILABLE || rc == WB_NOMEM)
        return wb__fail(err, WB_IO, 0,
            "commit: the connection to PostgreSQL broke: whether it happened "
            "is unknown");
    return rc;
}

/* ---- size, backup, health ----------------------------------------------- */

static enum wb_status
pg_bytes(struct wb__db *db, int64_t *bytes, struct wb_err *err)
{
    char text[32];
    enum wb_status rc =
        wb__postgres_text(db, "SELECT pg_total_relation_size('waybill_outbox')",
            text, sizeof(text), err);

    *bytes = strtoll(text, NULL, 10);
    return rc;
}

static enum wb_status
pg_backup(struct wb__db *db, const char *path, struct wb_err *err)
{
    (void)db;
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "backup to %s: PostgreSQL has its own tools: pg_dump -t 'waybill_*', "
        "or pg_basebackup",
        path);
}

/* Of a session that runs or waits with a snapshot, or that has written; a role
 * sees those of others only as a member of pg_read_all_stats. */
static enum wb_status
oldest_snapshot(struct wb__db *db, struct wb_health *h, struct wb_err *err)
{
    char text[32 + sizeof(h->snapshot)], *who;
    enum wb_status rc = wb__postgres_text(db,
        "SELECT floor(extract(epoch FROM since) * 1000)::bigint || who FROM ("
        "SELECT xact_start, format(' session %s of %s, %s%s', pid, usename,"
        " state, ', ' || nullif(application_name, '')) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
        " AND coalesce(backend_xid, backend_xmin) IS NOT NULL"
        " UNION ALL SELECT prepared, ' prepared transaction ' || gid"
        " FROM pg_prepared_xacts WHERE database = current_database()"
        ") AS t(since, who) ORDER BY since LIMIT 1",
        text, sizeof(text), err);

    h->snapshot_ms = strtoll(text, &who, 10);
    (void)snprintf(
        h->snapshot, sizeof(h->snapshot), "%s", *who == ' ' ? who + 1 : who);
    return rc;
}

static enum wb_status
pg_health(struct wb__db *db, struct wb_health *h, struct wb_err *err)
{
    struct wb__postgres *s = of(db);
    const char *version = PQparameterStatus(s->conn, "server_version");
    char text[32];
    enum wb_status rc = pg_bytes(db, &h->file_bytes, err);

    (void)snprintf(h->engine, sizeof(h->engine), "PostgreSQL %s",
        version != NULL ? version : "");
    (void)snprintf(h->journal_mode, sizeof(h->journal_mode), "wal");
    if (rc == WB_OK)
        rc = wb__postgres_text(&s->db,
            "SELECT current_setting('fsync')::bool AND"
            " current_setting('full_page_writes')::bool",
            text, sizeof(text), err);
    h->full_sync = text[0] == 't';
    if (rc == WB_OK)
        rc = wb__postgres_text(&s->db,
            "SELECT value FROM waybill_meta WHERE name = 'version'", text,
            sizeof(text), err);
    h->schema_version = strtoll(text, NULL, 10);
    if (rc == WB_OK)
        rc = wb__postgres_text(&s->db,
            "SELECT coalesce('not valid: index ' || min(indexrelid::regclass"
            "::text), 'ok') FROM pg_index WHERE NOT (indisvalid AND indisready)"
            " AND indrelid = 'waybill_outbox'::regclass",
            h->integrity, sizeof(h->integrity), err);
    return rc == WB_OK ? oldest_snapshot(db, h, err) : rc;
}

/* ---- close ------------------------------------------------------------- */

static void
pg_close(struct wb__db *db)
{
    struct wb__postgres *s = of(db);
    char name[48], text[64];

    /* DEALLOCATE fails in a transaction that failed: then the statements stay,
     * which costs the caller's session a little memory. */
    for (int i = 0; i < WB__SQL_COUNT && s->borrowed &&
                    PQtransactionStatus(s->conn) != PQTRANS_INERROR;
         i++) {
        if (!s->prepared[i])
            continue;
        name_of(s, i, name);
        (void)snprintf(text, sizeof(text), "DEALLOCATE \"%s\"", name);
        PQclear(PQexec(s->conn, text));
    }
    if (!s->borrowed)
        PQfinish(s->conn);
    PQfinish(s->drains);
    wb__mutex_fini(&s->lock);
    wb__free(db->opts.env, s);
}

const struct wb__engine wb__postgres_engine = {
    .side_by_side = true,
    .close = pg_close,
    .begin = pg_begin,
    .commit = pg_commit,
    .rollback = pg_rollback,
    .start = pg_start,
    .next = pg_next,
    .end = pg_end,
    .slice = pg_slice,
    .integer = pg_int,
    .null = pg_null,
    .changed = pg_changed,
    .last_seq = pg_last_seq,
    .exec = wb__postgres_exec,
    .text = wb__postgres_text,
    .now = pg_now,
    .bytes = pg_bytes,
    .drain_try = wb__postgres_drain_try,
    .drain_free = wb__postgres_drain_free,
    .drain_flag_set = wb__postgres_flag_set,
    .drain_flag = wb__postgres_flag,
    .listen = wb__postgres_listen,
    .notified = wb__postgres_notified,
    .backup = pg_backup,
    .health = pg_health,
};
