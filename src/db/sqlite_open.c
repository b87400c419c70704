/* sqlite_open.c - open a file, adopt or attach to a connection; refuse what is
 * not safe.
 *
 * (1) The database is never opened, nor closed, outside SQLite: that would
 *     drop its locks. A new file is created 0600 before SQLite opens it.
 * (2) The connection is WAL and synchronous=FULL: set, then read back, as a
 *     journal_mode that cannot be set stays what it was, without an error.
 * (3) A copy of the file differs from it in inode or time of creation; a backup
 *     is written with neither. */
#include <errno.h>
#include <stdio.h>

#include "db/schema.h" /* generated from schema/ */
#include "db/sqlite.h"

enum {
    WAL_LONG = 1000
};

static char *
path_with(const struct wb_env *env, const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *p = wb__alloc(env, size);

    if (p != NULL)
        (void)snprintf(p, size, "%s%s", path, suffix);
    return p;
}

static enum wb_status
network_check(const char *path, const struct wb__db_opts *opts, bool network,
    struct wb_err *err)
{
    if (network && !opts->allow_network_fs)
        return wb__fail(err, WB_REFUSED, 0,
            "%s is on a network file system, where SQLite's locks do not "
            "hold; put it on a local disk",
            path);
    return WB_OK;
}

static enum wb_status
path_check(const char *path, const struct wb__db_opts *opts,
    const struct wb__file_info *info, struct wb_err *err)
{
    if (info->exists && !info->is_file)
        return wb__fail(err, WB_REFUSED, 0,
            "%s is %s; give the path of a database file", path,
            info->is_dir ? "a folder" : "not a regular file");
    if (network_check(path, opts, info->network, err) != WB_OK)
        return WB_REFUSED;
    if (!info->exists && (opts->existing || info->sys != ENOENT))
        return wb__fail(err, wb__sys_status(info->sys), info->sys, "%s: %s",
            path, strerror(info->sys));
    return WB_OK;
}

static enum wb_status
path_prepare(
    const char *path, const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb__file_info info = wb__file_info_of(path);
    enum wb_status rc;
    bool created;

    if (path[0] == '\0' || path[0] == ':' ||
        wb__starts(wb_slice(path), WB_LIT("file:")))
        return wb__fail(err, WB_INVALID, 0,
            "\"%s\" is neither the path of a file nor postgres://...", path);
    rc = path_check(path, opts, &info, err);
    if (rc != WB_OK || info.exists)
        return rc;
    rc = wb__folders_make(path, err);
    if (rc == WB_OK)
        rc = wb__file_create(path, err);
    if (rc != WB_OK && rc != WB_EMPTY)
        return rc;
    info = wb__file_info_of(path); /* now on the file system of its folder */
    created = rc == WB_OK;
    rc = path_check(path, opts, &info, err);
    if (rc != WB_OK && created)
        wb__file_remove(path);
    return rc;
}

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
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    struct wb__file_info info = {0};

    (void)err;
    out[0] = '\0';
    if (s->path != NULL)
        info = wb__file_info_of(s->path);
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
               "wb_outbox_adopt() or run `waybill status` on the file first",
};

static enum wb_status
tables_check(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = wb__tables_check(&s->db, &tables, err);

    if ((rc == WB_OK || rc == WB_NOTFOUND) &&
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
    s->wal_long = WAL_LONG;
    s->peer = s;
    s->queue.env = opts->env;
    s->queue.lock.fd = -1;
    return s;
}

/* Paths beside the file. If the lock file cannot be opened there is no queue of
 * writers: slower, but as safe. */
static enum wb_status
paths_set(struct wb__sqlite *s, const char *path, struct wb_err *err)
{
    const struct wb_env *env = s->db.opts.env;

    s->path = path_with(env, path, "");
    s->log_path = path_with(env, path, "-wal");
    s->lock_path = path_with(env, path, "-lock");
    if (s->path == NULL || s->log_path == NULL || s->lock_path == NULL)
        return wb__nomem(err, "open");
    s->db.path = s->path;
    s->db.watch = (struct wb__watch){s->lock_path, s->log_path};
    (void)wb__lockfile_open(&s->queue.lock, s->lock_path, NULL);
    return WB_OK;
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
    return rc == WB_OK ? wb__sqlite_repair_if_failed(s, err) : rc;
}

static enum wb_status
own_open(struct wb__sqlite *s, const char *path, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (s->db.opts.env->vfs == NULL) {
        rc = path_prepare(path, &s->db.opts, err);
        if (rc == WB_OK)
            rc = paths_set(s, path, err);
    }
    if (rc == WB_OK)
        rc = wb__sqlite_handle(s, &s->handle, path, err);
    if (rc != WB_OK)
        return rc;
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
        rc = network_check(path, opts, wb__file_info_of(path).network, err);
        if (rc == WB_OK)
            rc = paths_set(s, path, err);
    }
    if (rc == WB_OK && adopt) {
        rc = adopt_handle(s, err);
    } else if (rc == WB_OK) { /* change nothing, refuse what does not fit */
        rc = tables_check(s, err);
        if (rc == WB_OK)
            rc = check_modes(s, err);
        if (rc == WB_OK)
            rc = wb__tables_migrate(&s->db, &tables, true, err);
    }
    if (rc != WB_OK) {
        s->db.engine->close(&s->db);
        return rc;
    }
    *out = &s->db;
    return WB_OK;
}
