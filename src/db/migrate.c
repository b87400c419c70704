/* migrate.c - the version of the tables, and the incarnation of the database.
 *
 * (1) A migration and the version it leads to commit together, and one
 *     connection at a time migrates.
 * (2) Each database has an incarnation. One that was copied or restored is not
 *     the one its incarnation was made for: it gets a new one, and every token
 *     given out before is forgotten. See identity() of struct wb__tables. */
#include "db/db.h"

struct wb__tables_watch wb__tables_watch;

static void
report(int from, int to, bool changed)
{
    if (wb__tables_watch.found != NULL)
        wb__tables_watch.found(wb__tables_watch.ctx, from, to, changed);
}

/* 0: no tables yet. */
static enum wb_status
read_version(struct wb__db *db, const struct wb__tables *tables, int *version,
    struct wb_err *err)
{
    char text[32];
    uint64_t v = 0;
    enum wb_status rc =
        db->engine->text(db, tables->count, text, sizeof(text), err);

    *version = 0;
    if (rc != WB_OK || text[0] == '\0')
        return rc;
    if (strcmp(text, "2") != 0)
        return wb__fail(err, WB_CORRUPT, 0, "%s", tables->foreign);
    rc = db->engine->text(db,
        "SELECT value FROM waybill_meta WHERE name = 'version'", text,
        sizeof(text), err);
    if (rc != WB_OK)
        return rc;
    if (!wb__parse_u64(wb_slice(text), INT64_MAX, &v) || v == 0)
        return wb__fail(err, WB_CORRUPT, 0,
            "waybill_meta holds no version; the tables were not made by "
            "Waybill");
    if (v > (uint64_t)tables->version)
        return wb__fail(err, WB_NEWER, 0,
            "the tables are of version %s, this Waybill knows up to %d; "
            "install a newer Waybill",
            text, tables->version);
    *version = (int)v;
    return WB_OK;
}

static enum wb_status
missing(struct wb_err *err)
{
    return wb__fail(err, WB_NOTFOUND, 0,
        "the database holds no outbox, and none is to be made; waybill init "
        "makes one");
}

enum wb_status
wb__tables_check(
    struct wb__db *db, const struct wb__tables *tables, struct wb_err *err)
{
    int version;
    enum wb_status rc = read_version(db, tables, &version, err);

    if (rc == WB_OK && version == 0 && db->opts.existing)
        return missing(err);
    return rc;
}

/* One of them may lack the last part; see struct wb__tables. */
static bool
is_same(const char *stored, const char *identity)
{
    size_t a = strlen(stored), b = strlen(identity), n = a < b ? a : b;

    if (n == 0)
        return b == 0;
    return strncmp(stored, identity, n) == 0 &&
           (a == b || identity[n - 1] == '.');
}

static enum wb_status
read_identity(struct wb__db *db, const struct wb__tables *tables,
    char identity[64], bool *same, struct wb_err *err)
{
    char stored[64];
    enum wb_status rc = tables->identity(db, identity, err);

    if (rc == WB_OK)
        rc = db->engine->text(db,
            "SELECT value FROM waybill_meta WHERE name = 'file'", stored,
            sizeof(stored), err);
    *same = rc == WB_OK && is_same(stored, identity);
    return rc;
}

static enum wb_status
meta_set(struct wb__db *db, const char *name, struct wb__val value,
    struct wb_err *err)
{
    return wb__db_run(db, WB__SQL_META_SET,
        WB__ARGS(wb__text(wb_slice(name)), value), NULL, err);
}

static enum wb_status
new_incarnation(struct wb__db *db, const char *identity, struct wb_err *err)
{
    static const enum wb__sql forget[] = {
        WB__SQL_TOKENS_FORGET, WB__SQL_CLAIMS_FORGET, WB__SQL_PROBES_FORGET};
    const struct wb_env *env = db->opts.env;
    uint32_t random;
    enum wb_status rc;

    env->random(env->ctx, &random, sizeof(random));
    rc = meta_set(db, "incarnation", wb__int(random), err);
    if (rc == WB_OK)
        rc = meta_set(db, "file", wb__text(wb_slice(identity)), err);
    for (size_t i = 0; i < WB_COUNT(forget) && rc == WB_OK; i++)
        rc = wb__db_run(db, forget[i], WB__NO_ARGS, NULL, err);
    return rc;
}

/* In a transaction that keeps other migrations out: read everything again. */
static enum wb_status
update(struct wb__db *db, const struct wb__tables *tables, int *from,
    struct wb_err *err)
{
    char identity[64];
    bool same = false;
    int version = 0;
    enum wb_status rc = WB_OK;

    if (tables->lock != NULL)
        rc = db->engine->exec(db, tables->lock, err);
    if (rc == WB_OK)
        rc = read_version(db, tables, &version, err);
    *from = version;
    for (int v = version; v < tables->version && rc == WB_OK; v++)
        rc = db->engine->exec(db, tables->schema[v], err);
    if (rc == WB_OK && version < tables->version)
        rc = meta_set(db, "version", wb__int(tables->version), err);
    if (rc == WB_OK)
        rc = read_identity(db, tables, identity, &same, err);
    if (rc == WB_OK && !same)
        rc = new_incarnation(db, identity, err);
    return rc;
}

/* For a reader, which changes nothing. */
static enum wb_status
check_current(const struct wb__tables *tables, int version, struct wb_err *err)
{
    if (version == tables->version)
        return WB_OK;
    report(version, tables->version, false);
    return wb__fail(err, WB_REFUSED, 0,
        "the tables are of version %d, this Waybill needs %d; run waybill "
        "migrate",
        version, tables->version);
}

enum wb_status
wb__tables_migrate(struct wb__db *db, const struct wb__tables *tables,
    bool existing, struct wb_err *err)
{
    char identity[64];
    bool same = false;
    int version;
    enum wb_status rc = read_version(db, tables, &version, err);

    if (rc == WB_OK && version == 0 && db->opts.existing && !existing)
        rc = missing(err);
    if (rc == WB_OK && version == tables->version)
        report(version, version, false);
    if (rc == WB_OK && db->opts.read_only)
        return db->opts.older ? WB_OK : check_current(tables, version, err);
    if (rc == WB_OK && version == tables->version)
        rc = read_identity(db, tables, identity, &same, err);
    if (rc != WB_OK || same)
        return rc;
    if (existing && version < tables->version)
        return wb__fail(err, WB_NOTFOUND, 0, "%s", tables->missing);
    rc = wb__db_begin(db, WB__TX_FULL, err);
    if (rc != WB_OK)
        return rc;
    rc = update(db, tables, &version, err);
    if (rc == WB_OK)
        rc = wb__db_commit(db, err);
    else
        wb__db_rollback(db);
    if (rc == WB_OK && version < tables->version)
        report(version, tables->version, true);
    return rc;
}
