/* postgres_open.c - connect to a server, or use a caller's connection.
 *
 * (1) Text is UTF-8 on both sides, or the connection is refused.
 * (2) A caller's connection keeps its settings: what we need is set for our
 *     own transactions alone.
 * (3) A restored database differs from the old one in the id of the database or
 *     of the table, or in the server's system identifier, which not every role
 *     may read. A copy of the server's files has the same ids, and is not
 *     noticed. */
#include <stdio.h>

#include "db/postgres.h"
#include "db/schema_pg.h" /* generated from schema/pg */

enum {
    OLDEST = 120000 /* PostgreSQL 12 */
};

static enum wb_status
check_server(struct wb__postgres *s, struct wb_err *err)
{
    static const char *const names[] = {"server_encoding", "client_encoding"};

    if (PQserverVersion(s->conn) < OLDEST)
        return wb__fail(err, WB_REFUSED, 0,
            "the server is older than PostgreSQL 12; give a newer one");
    for (size_t i = 0; i < WB_COUNT(names); i++) {
        const char *value = PQparameterStatus(s->conn, names[i]);

        if (value == NULL || strcmp(value, "UTF8") != 0)
            return wb__fail(err, WB_REFUSED, 0,
                "%s is %s and not UTF8; give a database with UTF8", names[i],
                value == NULL ? "unknown" : value);
    }
    return WB_OK;
}

/* DATABASE.TABLE. and, where the role may read it, the system identifier: see
 * struct wb__tables. */
static enum wb_status
identity_of(struct wb__db *db, char out[64], struct wb_err *err)
{
    char system[32] = "", may[8];
    enum wb_status rc = wb__postgres_text(db,
        "SELECT has_function_privilege('pg_control_system()', 'execute')", may,
        sizeof(may), err);

    if (rc == WB_OK && may[0] == 't')
        rc = wb__postgres_text(db,
            "SELECT system_identifier FROM pg_control_system()", system,
            sizeof(system), err);
    if (rc == WB_OK)
        rc = wb__postgres_text(db,
            "SELECT oid || '.' || 'waybill_outbox'::regclass::oid"
            " FROM pg_database WHERE datname = current_database()",
            out, 32, err);
    if (rc == WB_OK)
        (void)snprintf(out + strlen(out), 32, ".%.30s", system);
    return rc;
}

static const struct wb__tables tables = {
    .schema = wb__schema,
    .version = WB_COUNT(wb__schema),
    /* Not by to_regclass(): it may not see what was committed since this
     * session began. */
    .count = "SELECT nullif(count(*), 0) FROM pg_class WHERE relname IN"
             " ('waybill_meta', 'waybill_outbox') AND pg_table_is_visible(oid)",
    .lock = "SELECT pg_advisory_xact_lock("
            "hashtextextended('waybill migrate', 0))",
    .identity = identity_of,
    .foreign = "the database has tables named waybill_* that are not "
               "Waybill's; give another database, or a schema by search_path",
    .missing = "the tables are not there, or are old; open the database with "
               "wb_outbox_open(), or run `waybill init` on it, first",
};

static struct wb__postgres *
postgres_new(const struct wb__db_opts *opts)
{
    static _Atomic uint32_t last;
    struct wb__postgres *s = wb__alloc(opts->env, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->db.engine = &wb__postgres_engine;
    s->db.opts = *opts;
    s->number = atomic_fetch_add(&last, 1);
    wb__mutex_init(&s->lock);
    return s;
}

/* Check the connected server, then migrate; closes s on failure. */
static enum wb_status
set_up(struct wb__postgres *s, enum wb_status rc, bool existing,
    struct wb__db **out, struct wb_err *err)
{
    if (rc == WB_OK)
        rc = check_server(s, err);
    if (rc == WB_OK)
        rc = wb__postgres_pooler(s, err);
    if (rc == WB_OK && s->db.opts.server_clock)
        rc = wb__postgres_read_clock(s, err);
    if (rc == WB_OK)
        rc = wb__tables_migrate(&s->db, &tables, existing, err);
    if (rc == WB_OK)
        *out = &s->db;
    else
        s->db.engine->close(&s->db);
    return rc;
}

static enum wb_status
postgres_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb__postgres *s = postgres_new(opts);

    if (s == NULL)
        return wb__nomem(err, "open");
    return set_up(s, wb__postgres_connect(s, url, err), false, out, err);
}

static enum wb_status
postgres_borrow(struct wb__db **out, struct pg_conn *conn,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb__postgres *s = postgres_new(opts);
    enum wb_status rc = WB_OK;

    if (s == NULL)
        return wb__nomem(err, "attach");
    s->conn = conn;
    s->borrowed = true;
    if (PQstatus(conn) != CONNECTION_OK)
        rc = wb__fail(err, WB_UNAVAILABLE, 0,
            "attach: the connection is not open; connect it first");
    return set_up(s, rc, true, out, err);
}

/* Before main(), or when libwaybill is loaded. */
__attribute__((constructor)) void
wb__postgres_add(void)
{
    static const struct wb__db_opener opener = {postgres_open, postgres_borrow};

    wb__db_postgres = &opener;
}
