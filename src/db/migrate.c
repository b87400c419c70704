/* migrate.c - the version of the tables, and whose file this is.
 *
 * (1) A migration and the version it leads to commit together.
 * (2) Each file has an incarnation. A file that was copied or restored is not
 *     the one its incarnation was made for: it gets a new one, and every token
 *     given out before is forgotten. A file is known by inode and time of
 *     birth; a backup is written with neither. */
#include <stdio.h>

#include "db/schema.h" /* generated from schema/ */
#include "db/sqlite.h"

enum {
    VERSION = WB_COUNT(wb__schema)
};

static enum wb_status
read_version(struct wb__sqlite *s, int *version, struct wb_err *err)
{
    char text[32];
    enum wb_status rc = wb__sqlite_text(s,
        "SELECT sum(name IN ('waybill_meta', 'waybill_outbox')) FROM"
        " sqlite_schema WHERE type IN ('table', 'view')"
        " AND name LIKE 'waybill\\_%' ESCAPE '\\'",
        text, sizeof(text), err);
    uint64_t v = 0;

    *version = 0;
    if (rc != WB_OK || strcmp(text, "") == 0)
        return rc;
    if (strcmp(text, "2") != 0)
        return wb__fail(err, WB_CORRUPT, 0,
            "the file has tables named waybill_* that are not Waybill's; "
            "give another file");
    rc = wb__sqlite_text(s,
        "SELECT value FROM waybill_meta WHERE name = 'version'", text,
        sizeof(text), err);
    if (rc != WB_OK)
        return rc;
    if (!wb__parse_u64(wb_slice(text), INT64_MAX, &v) || v == 0)
        return wb__fail(err, WB_CORRUPT, 0,
            "waybill_meta holds no version; the file was not written by "
            "Waybill");
    if (v > VERSION)
        return wb__fail(err, WB_NEWER, 0,
            "the tables are of version %s, this Waybill knows up to %d; "
            "install a newer Waybill",
            text, VERSION);
    *version = (int)v;
    return WB_OK;
}

enum wb_status
wb__sqlite_check(struct wb__sqlite *s, struct wb_err *err)
{
    int version;
    enum wb_status rc = read_version(s, &version, err);

    if (rc == WB_OK && sqlite3_db_readonly(s->handle, "main") != 0)
        return wb__fail(err, WB_REFUSED, 0,
            "the file may only be read; give this user the right to write");
    if (rc == WB_OK && version == 0 && s->db.opts.existing)
        return wb__fail(err, WB_NOTFOUND, 0,
            "the file holds no outbox, and none is to be made");
    return rc;
}

static enum wb_status
migrate_from(struct wb__sqlite *s, int version, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (int v = version; v < VERSION && rc == WB_OK; v++)
        rc = wb__sqlite_exec(s, wb__schema[v], err);
    if (rc == WB_OK)
        rc = wb__db_run(&s->db, WB__SQL_META_SET,
            WB__ARGS(wb__text(WB_LIT("version")), wb__int(VERSION)), NULL, err);
    return rc;
}

/* What tells this file from a copy of it; empty where nothing does. */
static void
identity_of(struct wb__sqlite *s, char out[64])
{
    struct wb__file_info p = {0};

    out[0] = '\0';
    if (s->path != NULL)
        p = wb__file_info_of(s->path);
    if (p.exists)
        (void)snprintf(
            out, 64, "%lld.%lld", (long long)p.inode, (long long)p.born_us);
}

static enum wb_status
is_same_file(
    struct wb__sqlite *s, const char *identity, bool *same, struct wb_err *err)
{
    char text[64];
    enum wb_status rc =
        wb__sqlite_text(s, "SELECT value FROM waybill_meta WHERE name = 'file'",
            text, sizeof(text), err);

    *same = identity[0] == '\0' || strcmp(text, identity) == 0;
    return rc;
}

static enum wb_status
new_incarnation(struct wb__sqlite *s, const char *identity, struct wb_err *err)
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

/* Everything again, now that nobody else can write. */
static enum wb_status
update(struct wb__sqlite *s, const char *identity, struct wb_err *err)
{
    bool same = false;
    int version;
    enum wb_status rc = read_version(s, &version, err);

    if (rc == WB_OK && version < VERSION)
        rc = migrate_from(s, version, err);
    if (rc == WB_OK)
        rc = is_same_file(s, identity, &same, err);
    if (rc == WB_OK && !same)
        rc = new_incarnation(s, identity, err);
    return rc;
}

enum wb_status
wb__sqlite_migrate(struct wb__sqlite *s, bool existing, struct wb_err *err)
{
    char identity[64];
    bool same = false;
    int version;
    enum wb_status rc = read_version(s, &version, err);

    identity_of(s, identity);
    if (rc == WB_OK && version == VERSION)
        rc = is_same_file(s, identity, &same, err);
    if (rc != WB_OK || same)
        return rc;
    if (existing && version < VERSION)
        return wb__fail(err, WB_NOTFOUND, 0,
            "attach: the tables are not there, or are old; call "
            "wb_outbox_adopt() or run `waybill status` on the file first");
    rc = wb__db_begin(&s->db, WB__TX_FULL, err);
    if (rc != WB_OK)
        return rc;
    rc = update(s, identity, err);
    if (rc == WB_OK)
        return wb__db_commit(&s->db, err);
    wb__db_rollback(&s->db);
    return rc;
}
