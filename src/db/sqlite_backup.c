/* sqlite_backup.c - a copy of the database, and a rewrite without free pages,
 * while it is in use.
 *
 * (1) The copy is written beside its name, checked, and gets its name at the
 *     end: what has the name of a backup is whole, and is never a copy of a
 *     database that was damaged. Nothing is overwritten.
 * (2) A rewrite is a transaction: VACUUM puts all pages into the log, and the
 *     checkpoint after it cuts the file. What fails leaves all as it was. */
#include <stdio.h>

#include "db/sqlite.h"

/* In one read transaction, or each commit of another process would start the
 * copy again. RELEASE is prepared first: it must not need memory. */
static int
copy_to(sqlite3 *from, sqlite3 *to, int64_t busy_ms)
{
    sqlite3_stmt *release = NULL;
    sqlite3_backup *b = NULL;
    int code =
        sqlite3_prepare_v2(from, "RELEASE waybill_backup", -1, &release, NULL);

    if (code == SQLITE_OK)
        code = sqlite3_exec(from,
            "SAVEPOINT waybill_backup; SELECT count(*) FROM waybill_meta", NULL,
            NULL, NULL);
    if (code == SQLITE_OK) {
        b = sqlite3_backup_init(to, "main", from, "main");
        code = b == NULL ? sqlite3_extended_errcode(to) : SQLITE_OK;
    }
    while (b != NULL && ((code = sqlite3_backup_step(b, 1024)) == SQLITE_OK ||
                            ((code == SQLITE_BUSY || code == SQLITE_LOCKED) &&
                                busy_ms > 0))) {
        if (code != SQLITE_OK) {
            wb__sleep_us(10000);
            busy_ms -= 10;
        }
    }
    /* It does not report a step that was BUSY to the end. */
    if (b != NULL && sqlite3_backup_finish(b) == SQLITE_OK &&
        code == SQLITE_DONE)
        code = SQLITE_OK;
    (void)sqlite3_step(release);
    (void)sqlite3_finalize(release);
    return code;
}

/* Without an identity: the first open gives it a new incarnation. */
static enum wb_status
finish_copy(sqlite3 *copy, const char *path, struct wb_err *err)
{
    sqlite3_stmt *q = NULL;
    const unsigned char *text = NULL;
    enum wb_status rc = WB_OK;
    int code = sqlite3_exec(copy,
        "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL;"
        "UPDATE waybill_meta SET value = '' WHERE name = 'file'",
        NULL, NULL, NULL);

    if (code == SQLITE_OK)
        code =
            sqlite3_prepare_v2(copy, "PRAGMA integrity_check(1)", -1, &q, NULL);
    if (code == SQLITE_OK && (code = sqlite3_step(q)) == SQLITE_ROW) {
        text = sqlite3_column_text(q, 0);
        code = text == NULL ? SQLITE_NOMEM : SQLITE_OK;
    }
    if (text != NULL && strcmp((const char *)text, "ok") != 0)
        rc = wb__fail(err, WB_CORRUPT, SQLITE_CORRUPT,
            "backup to %.90s: the database is damaged (%.40s); nothing was "
            "copied, keep the older backups and see waybill doctor",
            path, (const char *)text);
    (void)sqlite3_finalize(q);
    if (code != SQLITE_OK)
        rc = wb__fail(err, wb__sqlite_status(code), code,
            "backup to %.150s: %s%s", path, sqlite3_errstr(code),
            (code & 0xff) == SQLITE_CORRUPT
                ? "; the database is damaged: nothing was copied"
                : "");
    return rc;
}

static enum wb_status
copy_file(struct wb__sqlite *s, const char *temp, const char *path,
    struct wb_err *err)
{
    sqlite3 *copy = NULL;
    enum wb_status rc;
    int code = sqlite3_open_v2(temp, &copy, SQLITE_OPEN_READWRITE, NULL);

    if (code == SQLITE_OK)
        code = copy_to(s->handle, copy, s->db.opts.busy_ms);
    rc = code == SQLITE_OK
             ? finish_copy(copy, path, err)
             : wb__fail(err, wb__sqlite_status(code), code,
                   "backup to %.150s: %s%s", path, sqlite3_errstr(code),
                   (code & 0xff) == SQLITE_CORRUPT
                       ? "; the database is damaged: nothing was copied"
                       : "");
    if (sqlite3_close(copy) != SQLITE_OK && rc == WB_OK)
        rc = wb__fail(err, WB_IO, 0, "backup to %s: cannot close it", path);
    return rc;
}

static enum wb_status
exists_already(const char *path, struct wb_err *err)
{
    return wb__fail(err, WB_REFUSED, 0,
        "%s is there already; a backup never overwrites", path);
}

enum wb_status
wb__sqlite_backup(struct wb__db *db, const char *path, struct wb_err *err)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    char temp[4096], file[4096 + 16];
    enum wb_status rc;

    if (sqlite3_txn_state(s->handle, "main") == SQLITE_TXN_WRITE)
        return wb__fail(err, WB_BUSY, 0,
            "backup to %s: the connection is inside a transaction that "
            "wrote; commit it first",
            path);
    if (wb__file_info_of(path).exists)
        return exists_already(path, err);
    rc = wb__file_temp(path, temp, sizeof(temp), err);
    if (rc != WB_OK)
        return rc;
    rc = copy_file(s, temp, path, err);
    if (rc == WB_OK)
        rc = wb__file_publish(temp, path, err);
    if (rc == WB_EMPTY)
        rc = exists_already(path, err);
    for (size_t i = 0; i < WB_COUNT(ends) && rc != WB_OK; i++) {
        (void)snprintf(file, sizeof(file), "%s%s", temp, ends[i]);
        wb__file_remove(file);
    }
    return rc;
}

/* ---- compact -------------------------------------------------------------- */

static int64_t
bytes_on_disk(const struct wb__sqlite *s)
{
    return wb__file_id_of(s->file[WB__FILE_DB]).bytes +
           wb__file_id_of(s->file[WB__FILE_LOG]).bytes;
}

/* VACUUM writes the pages in use to a temporary file, then to the log. */
static enum wb_status
check_room(struct wb__sqlite *s, struct wb_err *err)
{
    int64_t used = 0, room = wb__file_room(s->file[WB__FILE_DB]);
    enum wb_status rc = s->db.engine->bytes(&s->db, &used, err);

    if (rc != WB_OK || room < 0 || room / 2 > used)
        return rc;
    return wb__fail(err, WB_FULL, 0,
        "%.120s: compact needs %lld bytes of room for a time, there are %lld; "
        "make room first",
        s->file[WB__FILE_DB], (long long)used * 2, (long long)room);
}

enum wb_status
wb__sqlite_compact(
    struct wb__db *db, int64_t *before, int64_t *after, struct wb_err *err)
{
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    enum wb_status rc;

    if (s->file[WB__FILE_DB] == NULL || s->borrowed)
        return wb__fail(err, WB_INVALID, 0,
            "compact needs a connection of its own to a file; open it by its "
            "path");
    rc = wb__sqlite_place_check(db, err);
    if (rc == WB_OK)
        rc = check_room(s, err);
    if (rc != WB_OK)
        return rc;
    *before = bytes_on_disk(s);
    wb__write_queue_enter(&s->queue);
    s->writing = true;
    rc = wb__sqlite_exec(db, "PRAGMA synchronous=FULL; VACUUM", err);
    s->writing = s->relaxed = false;
    wb__write_queue_leave(&s->queue);
    if (rc == WB_OK)
        rc = wb__sqlite_place_check(db, err);
    if (rc != WB_OK)
        return rc;
    rc = wb__sqlite_exec(db, "PRAGMA journal_size_limit=0", err);
    wb__sqlite_cut_log(s);
    if (rc == WB_OK)
        rc = wb__sqlite_exec(db, WB__LOG_KEPT_SQL, err);
    *after = bytes_on_disk(s);
    return rc;
}
