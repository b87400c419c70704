/* sqlite_admin.c - online backup, and how the file is. */
#include <stdio.h>

#include "db/sqlite.h"

/* The copy is nobody's yet: whoever opens it gives it an incarnation. */
static int
disown(sqlite3 *copy)
{
    return sqlite3_exec(copy,
        "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL;"
        "UPDATE waybill_meta SET value = '' WHERE name = 'file'",
        NULL, NULL, NULL);
}

static int
copy_pages(sqlite3 *from, sqlite3 *to, int64_t busy_ms)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    int code;

    if (b == NULL)
        return sqlite3_extended_errcode(to);
    while ((code = sqlite3_backup_step(b, 1024)) == SQLITE_OK ||
           ((code == SQLITE_BUSY || code == SQLITE_LOCKED) && busy_ms > 0)) {
        if (code != SQLITE_OK) {
            wb__sleep_us(10000);
            busy_ms -= 10;
        }
    }
    return sqlite3_backup_finish(b) == SQLITE_OK ? SQLITE_OK : code;
}

/* Of one snapshot: or each commit of another process would start it anew. What
 * ends it is made ready first, for it must not want memory then. */
static int
copy_to(sqlite3 *from, sqlite3 *to, int64_t busy_ms)
{
    sqlite3_stmt *release = NULL;
    int code =
        sqlite3_prepare_v2(from, "RELEASE waybill_backup", -1, &release, NULL);

    if (code == SQLITE_OK)
        code = sqlite3_exec(from,
            "SAVEPOINT waybill_backup; SELECT count(*) FROM waybill_meta", NULL,
            NULL, NULL);
    if (code == SQLITE_OK)
        code = copy_pages(from, to, busy_ms);
    (void)sqlite3_step(release);
    (void)sqlite3_finalize(release);
    return code;
}

static enum wb_status
copy_file(struct wb__sqlite *s, const char *path, struct wb_err *err)
{
    sqlite3 *copy = NULL;
    enum wb_status rc = WB_OK;
    int code = sqlite3_open_v2(path, &copy, SQLITE_OPEN_READWRITE, NULL);

    if (code == SQLITE_OK)
        code = copy_to(s->handle, copy, s->db.opts.busy_ms);
    if (code == SQLITE_OK)
        code = disown(copy);
    if (code != SQLITE_OK)
        rc = wb__fail(err, wb__sqlite_status(code), code, "backup to %s: %s",
            path, sqlite3_errstr(code));
    if (sqlite3_close(copy) != SQLITE_OK && rc == WB_OK)
        rc = wb__fail(err, WB_IO, 0, "backup to %s: cannot close it", path);
    return rc;
}

enum wb_status
wb__sqlite_backup(struct wb__db *db, const char *path, struct wb_err *err)
{
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    enum wb_status rc;

    if (sqlite3_txn_state(s->handle, "main") == SQLITE_TXN_WRITE)
        return wb__fail(err, WB_BUSY, 0,
            "backup to %s: the connection is inside a transaction that "
            "wrote; commit it first",
            path);
    rc = wb__file_create(path, err);
    if (rc == WB_EMPTY)
        return wb__fail(err, WB_REFUSED, 0,
            "%s is there already; a backup never overwrites", path);
    if (rc != WB_OK)
        return rc;
    rc = copy_file(s, path, err);
    if (rc != WB_OK)
        wb__file_remove(path);
    return rc;
}

static void
places(const struct wb__sqlite *s, struct wb_health *h)
{
    const char *slash = s->path == NULL ? NULL : strrchr(s->path, '/');
    char folder[4096] = ".";
    struct wb__file_info p;

    if (s->path == NULL)
        return;
    p = wb__file_info_of(s->path);
    h->file_bytes = p.bytes;
    h->file_mode = p.mode;
    h->network_fs = p.network;
    h->wal_bytes = wb__file_info_of(s->log_path).bytes;
    if (slash != NULL)
        (void)snprintf(folder, sizeof(folder), "%.*s",
            slash == s->path ? 1 : (int)(slash - s->path), s->path);
    h->folder_mode = wb__file_info_of(folder).mode;
}

static bool
has_reset_bug(void)
{
    int v = sqlite3_libversion_number();
    bool repaired = (v >= 3044006 && v < 3045000) ||
                    (v >= 3050007 && v < 3051000) || v >= 3051003;

    return v >= 3007000 && !repaired;
}

enum wb_status
wb__sqlite_health(struct wb__db *db, struct wb_health *h, struct wb_err *err)
{
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    char text[32];
    enum wb_status rc;

    (void)snprintf(
        h->engine, sizeof(h->engine), "SQLite %s", sqlite3_libversion());
    h->wal_reset_bug = has_reset_bug();
    places(s, h);
    rc = wb__sqlite_text(s, "PRAGMA journal_mode", h->journal_mode,
        sizeof(h->journal_mode), err);
    if (rc == WB_OK)
        rc = wb__sqlite_text(s, "PRAGMA synchronous", text, sizeof(text), err);
    /* Inside a transaction it cannot be set; a relaxed one ended here, and the
     * next durable one sets it first. */
    h->full_sync =
        rc == WB_OK && (s->relaxed || text[0] == '2' || text[0] == '3');
    if (rc == WB_OK)
        rc = wb__sqlite_text(s,
            "SELECT value FROM waybill_meta WHERE name = 'version'", text,
            sizeof(text), err);
    if (rc == WB_OK)
        h->schema_version = text[0] - '0';
    if (rc == WB_OK)
        rc = wb__sqlite_text(s, "PRAGMA integrity_check(1)", h->integrity,
            sizeof(h->integrity), err);
    return rc;
}
