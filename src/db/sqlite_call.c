/* sqlite_call.c - what every part of the SQLite engine calls: statuses, plain
 * statements, connections.
 *
 * (1) The status of an error depends on the error alone. An I/O error makes the
 *     connection FAILED inside a write transaction, from BEGIN to its end, in a
 *     checkpoint, a repair, and the switch to WAL; one of a read does not. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "db/sqlite.h"

enum wb_status
wb__sqlite_status(int code)
{
    if (code == SQLITE_IOERR_NOMEM)
        return WB_NOMEM;
    if (code == SQLITE_IOERR_SHMSIZE) /* no space for the shared memory */
        return WB_FULL;
    if (code == SQLITE_IOERR_GETTEMPPATH)
        return WB_UNAVAILABLE;
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_SCHEMA: /* it kept changing */
    /* Interrupted, or rolled back meanwhile, by the caller whose connection it
     * is: nothing of ours was written. */
    case SQLITE_INTERRUPT:
    case SQLITE_ABORT:
        return WB_BUSY;
    case SQLITE_NOMEM:
        return WB_NOMEM;
    case SQLITE_FULL:
        return WB_FULL;
    case SQLITE_CANTOPEN: /* such as a temporary file: nothing was written */
        return WB_UNAVAILABLE;
    case SQLITE_TOOBIG:
        return WB_TOOBIG;
    case SQLITE_CONSTRAINT:
        return WB_INVALID;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return WB_REFUSED;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:
        return WB_CORRUPT;
    default: /* MISUSE too: how far a closed handle got is unknown */
        return WB_IO;
    }
}

bool
wb__sqlite_is_full(sqlite3 *handle, int file, int code)
{
    sqlite3_file *f = NULL;
    int sys = 0;

    if (code != SQLITE_IOERR_WRITE)
        return false;
    (void)sqlite3_file_control(handle, "main", file, &f);
    if (f != NULL && f->pMethods != NULL)
        (void)f->pMethods->xFileControl(f, SQLITE_FCNTL_LAST_ERRNO, &sys);
    return wb__sys_status(sys) == WB_FULL;
}

void
wb__sqlite_set_failed(struct wb__sqlite *s)
{
    struct wb__sqlite *peer = s;

    if (!s->db.failed)
        wb__lockfile_count_failure(&s->queue.lock);
    do
        peer->db.failed = true;
    while ((peer = peer->peer) != s);
}

/* What to do; with the name of the file, which SQLite's texts do not have. */
static const char *
advice(const struct wb__sqlite *s, enum wb_status rc, int code, char text[200])
{
    const char *file = s->file[WB__FILE_DB];

    if (file == NULL)
        file = "the database";
    text[0] = '\0';
    if (rc == WB_IO)
        return "; close the store and open it again";
    if (rc == WB_FULL)
        return "; " WB__SQLITE_FULL_TEXT;
    if (rc == WB_UNAVAILABLE)
        return "; see to the folder of temporary files and the limit of open "
               "files";
    if (code == SQLITE_BUSY_SNAPSHOT)
        return "; begin a transaction that writes with BEGIN IMMEDIATE";
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
        return "; see waybill doctor, and restore a backup";
    case SQLITE_BUSY:
        (void)snprintf(text, 200,
            "; another program writes to it for long: wait, or find it with "
            "fuser -v %.90s",
            file);
        break;
    case SQLITE_READONLY:
        (void)snprintf(text, 200,
            "; give this user the right to write %.90s, and -wal and -shm",
            file);
        break;
    default:
        break;
    }
    return text;
}

enum wb_status
wb__sqlite_fail(struct wb__sqlite *s, const char *what, struct wb_err *err)
{
    char text[200];
    int code = sqlite3_extended_errcode(s->handle);
    enum wb_status rc = wb__sqlite_status(code);

    if (wb__sqlite_is_full(s->handle, SQLITE_FCNTL_JOURNAL_POINTER, code))
        rc = WB_FULL;
    if (rc == WB_IO && s->writing)
        wb__sqlite_set_failed(s);
    s->full = s->full || rc == WB_FULL;
    /* what may be a whole statement: cut it, so that the advice fits. */
    return wb__fail(err, rc, code, "%.40s: %s%s", what,
        sqlite3_errmsg(s->handle), advice(s, rc, code, text));
}

enum wb_status
wb__sqlite_exec(struct wb__db *db, const char *sql, struct wb_err *err)
{
    struct wb__sqlite *s = (struct wb__sqlite *)db;

    if (sqlite3_exec(s->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return wb__sqlite_fail(s, sql, err);
    return WB_OK;
}

enum wb_status
wb__sqlite_text(struct wb__db *db, const char *sql, char *out, size_t size,
    struct wb_err *err)
{
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    sqlite3_stmt *q;
    const unsigned char *text;
    int code;

    out[0] = '\0';
    if (sqlite3_prepare_v2(s->handle, sql, -1, &q, NULL) != SQLITE_OK)
        return wb__sqlite_fail(s, sql, err);
    code = sqlite3_step(q);
    text = code == SQLITE_ROW ? sqlite3_column_text(q, 0) : NULL;
    if (text != NULL)
        (void)snprintf(out, size, "%s", (const char *)text);
    code = sqlite3_finalize(q);
    return code == SQLITE_OK ? WB_OK : wb__sqlite_fail(s, sql, err);
}

/* Why it cannot be opened, and what to do. */
static const char *
open_problem(sqlite3 *h, int code)
{
    switch (code & 0xff) {
    case SQLITE_NOTADB:
        return "file is not a database; give the path of one, or of a file "
               "that is not there yet";
    case SQLITE_CORRUPT:
        return "the file is damaged; restore a backup";
    case SQLITE_READONLY:
        return "its folder may only be read, and SQLite writes beside the "
               "file; give this user the right to write there";
    case SQLITE_CANTOPEN:
        if (sqlite3_system_errno(h) != 0)
            return strerror(sqlite3_system_errno(h));
        /* fall through */
    default:
        return sqlite3_errmsg(h);
    }
}

static enum wb_status
handle_fail(
    sqlite3 *h, int code, const char *path, bool read_only, struct wb_err *err)
{
    enum wb_status rc = wb__sqlite_status(code);
    const char *text = h == NULL ? "out of memory" : open_problem(h, code);

    if ((code & 0xff) == SQLITE_CANTOPEN)
        rc = wb__sys_status(sqlite3_system_errno(h));
    if (rc == WB_FULL)
        text = WB__SQLITE_FULL_TEXT;
    if (h != NULL && !read_only && sqlite3_db_readonly(h, "main") == 1) {
        rc = WB_REFUSED;
        text = "it may only be read; give this user the right to write, on a "
               "file system that is mounted for writing";
    }
    rc = wb__fail(err, rc, code, "cannot open %s: %s", path, text);
    (void)sqlite3_close(h);
    return rc;
}

enum wb_status
wb__sqlite_handle(struct wb__sqlite *s, sqlite3 **out, const char *path,
    int flags, struct wb_err *err)
{
    sqlite3 *h = NULL;
    int code = sqlite3_open_v2(path, &h,
        flags | SQLITE_OPEN_NOMUTEX |
            (s->db.opts.env->vfs != NULL ? SQLITE_OPEN_CREATE : 0),
        s->db.opts.env->vfs);

    if (code == SQLITE_OK)
        code = sqlite3_extended_result_codes(h, 1);
    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(h,
            s->db.opts.busy_ms < INT_MAX ? (int)s->db.opts.busy_ms : INT_MAX);
    if (code == SQLITE_OK)
        code = sqlite3_db_config(h, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(h,
            "PRAGMA wal_autocheckpoint=0; PRAGMA "
            "synchronous=FULL;" WB__LOG_KEPT_SQL
            "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON",
            NULL, NULL, NULL);
    if (code == SQLITE_OK && (flags & SQLITE_OPEN_READWRITE) != 0 &&
        s->db.opts.read_only)
        code = sqlite3_exec(h, "PRAGMA query_only=ON", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return handle_fail(h, code, path, s->db.opts.read_only, err);
    *out = h;
    return WB_OK;
}
