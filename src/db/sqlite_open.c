/* sqlite_open.c - open a file, adopt or attach to a connection; refuse what is
 * not safe.
 *
 * (1) The connection is WAL and synchronous=FULL: set, then read back, as a
 *     journal_mode that cannot be set stays what it was, without an error.
 * (2) A copy of the file differs from it in inode or time of creation; a backup
 *     is written with neither.
 * (3) What is opened to read changes nothing: neither tables nor journal mode,
 *     nor the log that a killed program left. It needs no right to write: where
 *     SQLite can make no shared memory, no program has the database open, and
 *     it is read as it lies. */
#include <errno.h>
#include <stdio.h>

#include "db/schema.h" /* generated from schema/ */
#include "db/sqlite.h"

enum {
    WAL_LONG = 1000
};

/* The switch to WAL needs an exclusive lock, for which SQLite does not wait:
 * other processes may be opening the same new file. */
static enum wb_status
set_wal(struct wb__sqlite *s, struct wb_err *err)
{
    char mode[16] = "";
    enum wb_status rc;
    /* SQLite waits for some of the locks: count time, not attempts. */
    const struct wb_env *clock = wb_env_system();
    int64_t began_us = clock->mono_us(clock->ctx);

    do {
        rc = wb__sqlite_text(
            &s->db, "PRAGMA journal_mode=WAL", mode, sizeof(mode), err);
        if (rc != WB_BUSY || (clock->mono_us(clock->ctx) - began_us) / 1000 >=
                                 s->db.opts.busy_ms)
            break;
        wb__sleep_us(5000);
    } while (true);
    /* This writes to the file itself, not to the log. */
    if (rc == WB_IO && wb__sqlite_is_full(s->handle, SQLITE_FCNTL_FILE_POINTER,
                           sqlite3_extended_errcode(s->handle)))
        return wb__fail(err, WB_FULL, 0, WB__SQLITE_FULL_TEXT);
    if (rc == WB_IO)
        wb__sqlite_set_failed(s);
    return rc;
}

static enum wb_status
check_modes(struct wb__sqlite *s, struct wb_err *err)
{
    char mode[16] = "", sync[16] = "";
    enum wb_status rc = wb__sqlite_text(
        &s->db, "PRAGMA main.journal_mode", mode, sizeof(mode), err);

    if (rc == WB_OK)
        rc = wb__sqlite_text(
            &s->db, "PRAGMA main.synchronous", sync, sizeof(sync), err);
    if (rc != WB_OK)
        return rc;
    if (strcmp(mode, "wal") != 0)
        return wb__fail(err, WB_REFUSED, 0,
            "the journal mode is %s and not WAL; a message would not be "
            "safe there",
            mode);
    if (strcmp(sync, "2") != 0 && strcmp(sync, "3") != 0)
        return wb__fail(err, WB_REFUSED, 0,
            "synchronous is %s and not FULL; a message would not survive a "
            "power cut",
            sync);
    return WB_OK;
}

static enum wb_status
identity_of(struct wb__db *db, char out[64], struct wb_err *err)
{
    struct wb__file_info info = {0};

    (void)err;
    out[0] = '\0';
    if (db->path != NULL)
        info = wb__file_info_of(db->path);
    if (info.exists)
        (void)snprintf(out, 64, "%lld.%lld", (long long)info.inode,
            (long long)info.born_us);
    return WB_OK;
}

/* BEGIN IMMEDIATE keeps other migrations out. */
static const struct wb__tables tables = {
    .schema = wb__schema,
    .version = WB_COUNT(wb__schema),
    .count = "SELECT sum(name IN ('waybill_meta', 'waybill_outbox')) FROM"
             " sqlite_schema WHERE type IN ('table', 'view')"
             " AND name LIKE 'waybill\\_%' ESCAPE '\\'",
    .identity = identity_of,
    .foreign = "the file has tables named waybill_* that are not Waybill's; "
               "give another file",
    .missing = "attach: the tables are not there, or are old; call "
               "wb_outbox_adopt() or run `waybill init` on the file first",
};

static enum wb_status
tables_check(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = wb__tables_check(&s->db, &tables, err);

    if ((rc == WB_OK || rc == WB_NOTFOUND) && !s->db.opts.read_only &&
        sqlite3_db_readonly(s->handle, "main") != 0)
        return wb__fail(err, WB_REFUSED, 0,
            "the file may only be read; give this user the right to write");
    return rc;
}

static struct wb__sqlite *
sqlite_new(const struct wb__db_opts *opts)
{
    struct wb__sqlite *s = wb__alloc(opts->env, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->db.engine = &wb__sqlite_engine;
    s->db.opts = *opts;
    s->db.opts.existing |= opts->read_only;
    s->wal_long = WAL_LONG;
    s->folder = -1;
    s->peer = s;
    s->queue.env = opts->env;
    s->queue.lock.fd = -1;
    return s;
}

/* Change what does not fit, check it, and bring the tables up to date. */
static enum wb_status
set_up(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = tables_check(s, err);

    if (rc == WB_OK)
        rc = set_wal(s, err);
    if (rc == WB_OK && s->borrowed) /* ours has it from wb__sqlite_handle() */
        rc = wb__sqlite_exec(&s->db,
            "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0", err);
    if (rc == WB_OK)
        rc = check_modes(s, err);
    if (rc == WB_OK)
        rc = wb__tables_migrate(&s->db, &tables, false, err);
    if (rc == WB_OK)
        rc = wb__sqlite_repair_if_failed(s, err);
    if (rc == WB_OK)
        wb__sqlite_place_note(s);
    return rc;
}

/* The tables, empty, in memory. */
static enum wb_status
open_empty(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc;

    s->db.opts.read_only = s->db.opts.existing = false;
    rc = wb__sqlite_handle(s, &s->handle,
        ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, err);
    return rc == WB_OK ? wb__tables_migrate(&s->db, &tables, false, err) : rc;
}

/* As file:PATH?immutable=1: no lock is taken, no file made. */
static enum wb_status
open_as_it_lies(struct wb__sqlite *s, const char *path, struct wb_err *err)
{
    struct wb__buf url = {.env = s->db.opts.env, .max = 3 * 4096 + 32};
    enum wb_status rc = WB_OK;

    wb__buf_str(&url, "file:");
    for (const char *p = path; *p != '\0'; p++)
        wb__buf_fmt(&url, strchr("%?#", *p) != NULL ? "%%%02X" : "%c", *p);
    wb__buf_str(&url, "?immutable=1");
    if (url.failed != WB_OK)
        rc = wb__nomem(err, "open");
    else
        rc = wb__sqlite_handle(s, &s->handle, url.ptr,
            SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err);
    wb__buf_fini(&url);
    return rc;
}

/* See (3). */
static enum wb_status
open_to_read(struct wb__sqlite *s, const char *path, struct wb_err *err)
{
    enum wb_status rc;

    rc = wb__sqlite_handle(s, &s->handle, path,
        wb__sqlite_place_writable(path) ? SQLITE_OPEN_READWRITE
                                        : SQLITE_OPEN_READONLY,
        err);
    if (rc != WB_OK && wb__sqlite_place_idle(path) &&
        open_as_it_lies(s, path, NULL) == WB_OK)
        rc = WB_OK;
    if (rc == WB_OK)
        rc = wb__sqlite_place_set(s, err);
    if (rc != WB_OK)
        return rc;
    s->keep_log = wb__file_id_of(s->file[WB__FILE_LOG]).bytes > 0;
    rc = wb__tables_check(&s->db, &tables, err);
    if (rc == WB_OK)
        rc = wb__tables_migrate(&s->db, &tables, true, err);
    if (rc == WB_OK)
        wb__sqlite_place_note(s);
    return rc;
}

static enum wb_status
own_open(struct wb__sqlite *s, const char *path, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (s->db.opts.env->vfs == NULL)
        rc = wb__sqlite_place_prepare(path, &s->db.opts, err);
    if (rc == WB_OK && s->db.opts.env->vfs == NULL && !s->db.opts.read_only)
        rc = wb__sqlite_place_open_up(path, err);
    if (rc == WB_NOTFOUND && s->db.opts.empty)
        return open_empty(s, err);
    if (rc == WB_OK && s->db.opts.read_only)
        return open_to_read(s, path, err);
    if (rc == WB_OK)
        rc = wb__sqlite_handle(s, &s->handle, path, SQLITE_OPEN_READWRITE, err);
    if (rc == WB_OK)
        rc = wb__sqlite_place_set(s, err);
    if (rc == WB_OK && s->db.opts.existing) /* before a file is made */
        rc = tables_check(s, err);
    if (rc != WB_OK)
        return rc;
    wb__sqlite_place_lock(s);
    (void)sqlite3_wal_hook(s->handle, wb__sqlite_on_wal, s);
    wb__write_queue_enter(&s->queue);
    rc = set_up(s, err);
    wb__write_queue_leave(&s->queue);
    return rc;
}

enum wb_status
wb__sqlite_open(struct wb__db **out, const char *path,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb__sqlite *s = sqlite_new(opts);
    enum wb_status rc;

    if (s == NULL)
        return wb__nomem(err, "open");
    rc = own_open(s, path, err);
    if (rc == WB_OK) {
        *out = &s->db;
        return WB_OK;
    }
    s->db.engine->close(&s->db);
    if (err != NULL && strstr(err->msg, path) == NULL) {
        struct wb_err inner = *err;

        (void)wb__fail(err, rc, inner.sys, "%.100s: %.150s", path, inner.msg);
    }
    return rc;
}

/* ---- a connection of the caller's --------------------------------------- */

static enum wb_status
adopt_handle(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc;

    if (!sqlite3_get_autocommit(s->handle))
        return wb__fail(err, WB_REFUSED, 0,
            "adopt: the connection is inside a transaction; commit it first");
    rc = set_up(s, err);
    s->hooked = rc == WB_OK;
    if (s->hooked)
        wb__sqlite_hook(s);
    return rc;
}

enum wb_status
wb__db_borrow(struct wb__db **out, struct sqlite3 *handle, bool adopt,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb__sqlite *s = sqlite_new(opts);
    const char *path = sqlite3_db_filename(handle, "main");
    enum wb_status rc = WB_OK;

    if (s == NULL)
        return wb__nomem(err, "adopt");
    s->handle = handle;
    s->borrowed = true;
    if (path != NULL && path[0] != '\0' && opts->env->vfs == NULL) {
        struct wb__file_info info = wb__file_info_of(path);

        rc = wb__sqlite_place_safe(path, opts, &info, err);
        if (rc == WB_OK)
            rc = wb__sqlite_place_set(s, err);
    }
    if (rc == WB_OK && adopt) {
        wb__sqlite_place_lock(s);
        rc = adopt_handle(s, err);
    } else if (rc == WB_OK) { /* change nothing, refuse what does not fit */
        rc = tables_check(s, err);
        if (rc == WB_OK)
            rc = check_modes(s, err);
        if (rc == WB_OK)
            rc = wb__tables_migrate(&s->db, &tables, true, err);
        if (rc == WB_OK) {
            wb__sqlite_place_note(s);
            wb__sqlite_place_lock(s);
        }
    }
    if (rc != WB_OK) {
        s->db.engine->close(&s->db);
        return rc;
    }
    *out = &s->db;
    return WB_OK;
}
