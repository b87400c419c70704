/* postgres_migrate.c - the version of the tables, and whose database this is.
 *
 * (1) A migration and the version it leads to commit together, and one session
 *     at a time migrates.
 * (2) Each database has an incarnation. A restored one is not the one its
 *     incarnation was made for: it gets a new one, and every token given out
 *     before is forgotten. It is known by the server's system identifier, where
 *     we may read that, by the database and by the table. A copy of the
 *     server's files has the same ones, and is not told apart. */
#include <stdio.h>
#include <stdlib.h>

#include "db/postgres.h"
#include "db/schema_pg.h" /* generated from schema/pg */

enum {
    VERSION = WB_COUNT(wb__schema)
};

static enum wb_status
read_version(struct wb__postgres *s, int *version, struct wb_err *err)
{
    char text[32];
    enum wb_status rc = wb__postgres_text(s,
        "SELECT (to_regclass('waybill_meta') IS NOT NULL) || ',' ||"
        " (to_regclass('waybill_outbox') IS NOT NULL)",
        text, sizeof(text), err);

    *version = 0;
    if (rc != WB_OK || strcmp(text, "false,false") == 0)
        return rc;
    if (strcmp(text, "true,true") != 0)
        return wb__fail(err, WB_CORRUPT, 0,
            "the database has tables named waybill_* that are not Waybill's; "
            "give another database, or a schema by search_path");
    rc = wb__postgres_text(s,
        "SELECT value FROM waybill_meta WHERE name = 'version'", text,
        sizeof(text), err);
    *version = atoi(text);
    if (rc == WB_OK && *version > VERSION)
        return wb__fail(err, WB_NEWER, 0,
            "the tables are of version %d, this Waybill knows up to %d; "
            "install a newer Waybill",
            *version, VERSION);
    if (rc == WB_OK && *version < 1)
        return wb__fail(err, WB_CORRUPT, 0,
            "waybill_meta holds no version; the tables were not made by "
            "Waybill");
    return rc;
}

static enum wb_status
migrate_from(struct wb__postgres *s, int version, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (int v = version; v < VERSION && rc == WB_OK; v++)
        rc = wb__postgres_exec(s, wb__schema[v], err);
    if (rc == WB_OK)
        rc = wb__db_run(&s->db, WB__SQL_META_SET,
            WB__ARGS(wb__text(WB_LIT("version")), wb__int(VERSION)), NULL, err);
    return rc;
}

/* What tells this database from a restored one. */
static enum wb_status
identity_of(struct wb__postgres *s, char out[64], struct wb_err *err)
{
    char system[32] = "", may[8];
    enum wb_status rc = wb__postgres_text(s,
        "SELECT has_function_privilege('pg_control_system()', 'execute')", may,
        sizeof(may), err);

    if (rc == WB_OK && may[0] == 't')
        rc = wb__postgres_text(s,
            "SELECT system_identifier FROM pg_control_system()", system,
            sizeof(system), err);
    if (rc == WB_OK)
        rc = wb__postgres_text(s,
            "SELECT oid || '.' || 'waybill_outbox'::regclass::oid"
            " FROM pg_database WHERE datname = current_database()",
            out, 32, err);
    if (rc == WB_OK)
        (void)snprintf(out + strlen(out), 32, ".%.30s", system);
    return rc;
}

static enum wb_status
is_same(struct wb__postgres *s, const char *identity, bool *same,
    struct wb_err *err)
{
    char text[64];
    enum wb_status rc = wb__postgres_text(s,
        "SELECT value FROM waybill_meta WHERE name = 'file'", text,
        sizeof(text), err);

    *same = strcmp(text, identity) == 0;
    return rc;
}

static enum wb_status
new_incarnation(
    struct wb__postgres *s, const char *identity, struct wb_err *err)
{
    const struct wb_env *env = s->db.opts.env;
    uint32_t random;
    enum wb_status rc;

    env->random(env->ctx, &random, sizeof(random));
    rc = wb__db_run(&s->db, WB__SQL_META_SET,
        WB__ARGS(wb__text(WB_LIT("incarnation")), wb__int(random)), NULL, err);
    if (rc == WB_OK)
        rc = wb__db_run(&s->db, WB__SQL_META_SET,
            WB__ARGS(wb__text(WB_LIT("file")), wb__text(wb_slice(identity))),
            NULL, err);
    if (rc == WB_OK)
        rc = wb__db_run(&s->db, WB__SQL_TOKENS_FORGET, WB__NO_ARGS, NULL, err);
    if (rc == WB_OK)
        rc = wb__db_run(&s->db, WB__SQL_CLAIMS_FORGET, WB__NO_ARGS, NULL, err);
    if (rc == WB_OK)
        rc = wb__db_run(&s->db, WB__SQL_PROBES_FORGET, WB__NO_ARGS, NULL, err);
    return rc;
}

/* Everything again, now that nobody else migrates. */
static enum wb_status
update(struct wb__postgres *s, struct wb_err *err)
{
    char identity[64] = "";
    bool same = false;
    int version = 0;
    enum wb_status rc = wb__postgres_exec(s,
        "SELECT pg_advisory_xact_lock(hashtextextended('waybill migrate', 0))",
        err);

    if (rc == WB_OK)
        rc = read_version(s, &version, err);
    if (rc == WB_OK && version < VERSION)
        rc = migrate_from(s, version, err);
    if (rc == WB_OK)
        rc = identity_of(s, identity, err);
    if (rc == WB_OK)
        rc = is_same(s, identity, &same, err);
    if (rc == WB_OK && !same)
        rc = new_incarnation(s, identity, err);
    return rc;
}

enum wb_status
wb__postgres_migrate(struct wb__postgres *s, bool existing, struct wb_err *err)
{
    char identity[64] = "";
    bool same = false;
    int version;
    enum wb_status rc = read_version(s, &version, err);

    if (rc == WB_OK && version == VERSION)
        rc = identity_of(s, identity, err);
    if (rc == WB_OK && version == VERSION)
        rc = is_same(s, identity, &same, err);
    if (rc != WB_OK || same)
        return rc;
    if (existing && version < VERSION)
        return wb__fail(err, WB_NOTFOUND, 0,
            "the tables are not there, or are old; open the database with "
            "wb_outbox_open(), or run `waybill status` on it, first");
    rc = wb__db_begin(&s->db, WB__TX_FULL, err);
    if (rc != WB_OK)
        return rc;
    rc = update(s, err);
    if (rc == WB_OK)
        return wb__db_commit(&s->db, err);
    wb__db_rollback(&s->db);
    return rc;
}
