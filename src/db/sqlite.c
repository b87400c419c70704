/* sqlite.c - the SQLite engine: statements, transactions, drains, health.
 *
 * (1) PRAGMA synchronous acts when it is prepared and is refused inside a
 *     transaction: it is run as text, before BEGIN, and only on change.
 * (2) COMMIT that fails with an I/O error leaves its outcome unknown; all
 *     other failures have rolled back, or are rolled back here. */
#include "db/sqlite.h"

#include <stdio.h>
#include <stdlib.h>

#include "waybill/outbox.h" /* struct wb_health */

static const char *const sql_text[WB__SQL_COUNT] = {
#define X(name, sqlite, postgres) [WB__SQL_##name] = (sqlite),
    WB__SQL_MAP(X)
#undef X
};
static const char *const tx_text[WB__TX_SQL_COUNT] = {
    [WB__BEGIN_READ] = "BEGIN",
    [WB__BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [WB__COMMIT] = "COMMIT",
    [WB__ROLLBACK] = "ROLLBACK",
    [WB__SAVEPOINT] = "SAVEPOINT waybill",
    [WB__RELEASE] = "RELEASE waybill",
    [WB__ROLLBACK_TO] = "ROLLBACK TO waybill",
};

static struct wb__sqlite *
of(struct wb__db *db)
{
    return (struct wb__sqlite *)db;
}

/* ---- statements -------------------------------------------------------- */

static enum wb_status
prepare(
    struct wb__sqlite *s, const char *sql, sqlite3_stmt **q, struct wb_err *err)
{
    if (*q == NULL && sqlite3_prepare_v3(s->handle, sql, -1,
                          SQLITE_PREPARE_PERSISTENT, q, NULL) != SQLITE_OK)
        return wb__sqlite_fail(s, "prepare", err);
    return WB_OK;
}

static int
bind(sqlite3_stmt *q, int at, const struct wb__val *v)
{
    const char *ptr = v->s.ptr == NULL ? "" : v->s.ptr;

    switch (v->type) {
    case WB__INT:
        return sqlite3_bind_int64(q, at, v->i);
    case WB__TEXT:
        return sqlite3_bind_text64(
            q, at, ptr, v->s.len, SQLITE_STATIC, SQLITE_UTF8);
    case WB__BLOB:
        return sqlite3_bind_blob64(q, at, ptr, v->s.len, SQLITE_STATIC);
    case WB__NULL:
        break;
    }
    return sqlite3_bind_null(q, at);
}

static enum wb_status
lite_start(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    enum wb_status rc = prepare(s, sql_text[sql], &s->stmt[sql], err);

    if (rc != WB_OK)
        return rc;
    WB_ASSERT(!sqlite3_stmt_busy(s->stmt[sql]));
    WB_ASSERT((size_t)sqlite3_bind_parameter_count(s->stmt[sql]) == args.n);
    for (size_t i = 0; i < args.n; i++)
        if (bind(s->stmt[sql], (int)i + 1, &args.val[i]) != SQLITE_OK)
            return wb__sqlite_fail(s, "bind", err);
    return WB_OK;
}

static enum wb_status
lite_next(struct wb__db *db, enum wb__sql sql, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);

    switch (sqlite3_step(s->stmt[sql])) {
    case SQLITE_ROW:
        return WB_OK;
    case SQLITE_DONE:
        return WB_EMPTY;
    default:
        return wb__sqlite_fail(s, "the database", err);
    }
}

static void
lite_end(struct wb__db *db, enum wb__sql sql)
{
    (void)sqlite3_reset(of(db)->stmt[sql]);
}

static struct wb_slice
lite_slice(struct wb__db *db, enum wb__sql sql, int column)
{
    sqlite3_stmt *q = of(db)->stmt[sql];
    const void *p;

    /* column_text converts the text of a UTF-16 database to UTF-8. */
    if (sqlite3_column_type(q, column) == SQLITE_TEXT)
        p = sqlite3_column_text(q, column);
    else
        p = sqlite3_column_blob(q, column);
    if (p == NULL)
        return (struct wb_slice){NULL, 0};
    return (struct wb_slice){p, (size_t)sqlite3_column_bytes(q, column)};
}

static int64_t
lite_int(struct wb__db *db, enum wb__sql sql, int column)
{
    return sqlite3_column_int64(of(db)->stmt[sql], column);
}

static bool
lite_null(struct wb__db *db, enum wb__sql sql, int column)
{
    return sqlite3_column_type(of(db)->stmt[sql], column) == SQLITE_NULL;
}

static int64_t
lite_changed(struct wb__db *db, enum wb__sql sql)
{
    (void)sql;
    return sqlite3_changes64(of(db)->handle);
}

static int64_t
lite_last_seq(struct wb__db *db)
{
    return sqlite3_last_insert_rowid(of(db)->handle);
}

/* ---- transactions ------------------------------------------------------ */

static enum wb_status
run_tx(struct wb__sqlite *s, enum wb__tx_sql sql, struct wb_err *err)
{
    enum wb_status rc = prepare(s, tx_text[sql], &s->tx[sql], err);

    if (rc != WB_OK)
        return rc;
    if (sqlite3_step(s->tx[sql]) != SQLITE_DONE)
        rc = wb__sqlite_fail(s, tx_text[sql], err);
    (void)sqlite3_reset(s->tx[sql]);
    return rc;
}

static void
lite_rollback(struct wb__db *db)
{
    struct wb__sqlite *s = of(db);

    /* Some failures (full disk, I/O) have rolled back already. */
    if (s->nested) {
        (void)run_tx(s, WB__ROLLBACK_TO, NULL);
        (void)run_tx(s, WB__RELEASE, NULL);
    } else if (!sqlite3_get_autocommit(s->handle)) {
        (void)run_tx(s, WB__ROLLBACK, NULL);
    }
    s->begun = s->begun && !sqlite3_get_autocommit(s->handle);
    s->writing = s->writing && s->begun;
    wb__write_queue_leave(&s->queue);
}

enum {
    CHECKED_US = 1000
};

/* Whether the files are still those that were opened. A begin just after a
 * commit does not compare again: the commit has. */
static enum wb_status
check_files(struct wb__sqlite *s, bool at_begin, struct wb_err *err)
{
    const struct wb_env *clock = wb_env_system();
    int64_t now_us = clock->mono_us(clock->ctx);
    enum wb_status rc;

    if (at_begin && s->checked_us != 0 && now_us - s->checked_us < CHECKED_US)
        return WB_OK;
    rc = wb__sqlite_place_check_soon(s, now_us, err);
    s->checked_us = rc == WB_OK ? now_us : 0;
    return rc;
}

static enum wb_status
begin_write(struct wb__sqlite *s, enum wb__tx tx, struct wb_err *err)
{
    bool relaxed = tx == WB__TX_RELAXED && !s->borrowed;
    enum wb_status rc = WB_OK;

    if (s->relaxed != relaxed) /* see (1) */
        rc = wb__sqlite_exec(&s->db,
            relaxed ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL",
            err);
    if (rc != WB_OK)
        return rc;
    s->relaxed = relaxed;
    wb__write_queue_enter(&s->queue);
    s->writing = true;
    rc = run_tx(s, WB__BEGIN_WRITE, err);
    s->begun = s->writing = rc == WB_OK;
    if (rc != WB_OK)
        wb__write_queue_leave(&s->queue);
    return rc;
}

static enum wb_status
lite_begin(struct wb__db *db, enum wb__tx tx, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    enum wb__tx_sql rollback = WB__ROLLBACK;
    enum wb_status rc;

    if (s->begun) /* the last rollback had no memory: repeat it */
        lite_rollback(db);
    if (s->begun)
        return wb__nomem(err, "a rollback");
    rc = check_files(s, true, err);
    if (rc != WB_OK)
        return rc;
    s->nested = s->borrowed && !sqlite3_get_autocommit(s->handle);
    db->nested = s->nested;
    if (s->nested)
        rollback = WB__ROLLBACK_TO;
    /* Before anything is begun: a rollback must not need memory. */
    rc = prepare(s, tx_text[rollback], &s->tx[rollback], err);
    if (rc == WB_OK && s->nested)
        rc = prepare(s, tx_text[WB__RELEASE], &s->tx[WB__RELEASE], err);
    if (rc != WB_OK)
        return rc;
    if (s->nested) {
        s->tx_has_our_writes |= tx != WB__TX_READ;
        s->writing = tx != WB__TX_READ; /* while it begins, too */
        rc = run_tx(s, WB__SAVEPOINT, err);
        s->writing = s->writing && rc == WB_OK;
        return rc;
    }
    s->tx_has_our_writes = db->wake = false;
    if (tx != WB__TX_READ && s->full)
        rc = wb__sqlite_make_room(s, err);
    if (rc != WB_OK)
        return rc;
    if (tx != WB__TX_READ)
        return begin_write(s, tx, err);
    rc = run_tx(s, WB__BEGIN_READ, err);
    s->begun = rc == WB_OK;
    return rc;
}

static enum wb_status
lite_commit(struct wb__db *db, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    enum wb_status rc = run_tx(s, s->nested ? WB__RELEASE : WB__COMMIT, err);

    if (rc != WB_OK) {
        lite_rollback(db);
        return rc;
    }
    s->writing = false;
    if (s->nested)
        return WB_OK;
    s->begun = false;
    rc = check_files(s, false, err);
    /* A checkpoint that fails does not undo the commit: it makes the connection
     * FAILED, which the next call reports. */
    if (!s->borrowed)
        (void)wb__sqlite_checkpoint(s, NULL);
    wb__write_queue_leave(&s->queue);
    return rc;
}

/* ---- size, drains ------------------------------------------------------ */

static enum wb_status
lite_bytes(struct wb__db *db, int64_t *bytes, struct wb_err *err)
{
    char text[32];
    enum wb_status rc = wb__sqlite_text(db,
        "SELECT (page_count - freelist_count) * page_size FROM"
        " pragma_page_count, pragma_freelist_count, pragma_page_size",
        text, sizeof(text), err);

    *bytes = strtoll(text, NULL, 10);
    return rc;
}

static bool
lite_drain_try(struct wb__db *db, int slot)
{
    return wb__lockfile_try(&of(db)->queue.lock, WB__LOCK_DRAIN + slot);
}

static void
lite_drain_free(struct wb__db *db, int slot)
{
    wb__lockfile_free(&of(db)->queue.lock, WB__LOCK_DRAIN + slot);
}

static void
lite_drain_flag_set(struct wb__db *db, bool on)
{
    wb__lockfile_flag_set(&of(db)->queue.lock, on);
}

static bool
lite_drain_flag(struct wb__db *db)
{
    return wb__lockfile_flag(&of(db)->queue.lock);
}

/* ---- health ---------------------------------------------------------- */

static void
files_info(const struct wb__sqlite *s, struct wb_health *h)
{
    const char *path = s->file[WB__FILE_DB];
    const char *slash = path == NULL ? NULL : strrchr(path, '/');
    char folder[4096] = ".";
    struct wb__file_info info;

    if (path == NULL)
        return;
    info = wb__file_info_of(path);
    h->file_bytes = info.bytes;
    h->file_mode = info.mode;
    h->network_fs = info.network;
    h->wal_bytes = wb__file_info_of(s->file[WB__FILE_LOG]).bytes;
    if (slash != NULL)
        (void)snprintf(folder, sizeof(folder), "%.*s",
            slash == path ? 1 : (int)(slash - path), path);
    h->folder_mode = wb__file_info_of(folder).mode;
}

static enum wb_status
lite_health(struct wb__db *db, struct wb_health *h, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    int v = sqlite3_libversion_number();
    char text[32];
    enum wb_status rc;

    (void)snprintf(
        h->engine, sizeof(h->engine), "SQLite %s", sqlite3_libversion());
    h->wal_reset_bug = v < 3051003 && !(v >= 3044006 && v < 3045000) &&
                       !(v >= 3050007 && v < 3051000); /* checkpoint.c (1) */
    files_info(s, h);
    rc = wb__sqlite_text(db, "PRAGMA journal_mode", h->journal_mode,
        sizeof(h->journal_mode), err);
    if (rc == WB_OK)
        rc = wb__sqlite_text(db, "PRAGMA synchronous", text, sizeof(text), err);
    /* NORMAL after a relaxed transaction is fine: the next durable one sets
     * FULL first. */
    h->full_sync =
        rc == WB_OK && (s->relaxed || text[0] == '2' || text[0] == '3');
    if (rc == WB_OK)
        rc = wb__sqlite_text(db,
            "SELECT value FROM waybill_meta WHERE name = 'version'", text,
            sizeof(text), err);
    if (rc == WB_OK)
        h->schema_version = strtoll(text, NULL, 10);
    if (rc == WB_OK)
        rc = wb__sqlite_text(db, "PRAGMA integrity_check(1)", h->integrity,
            sizeof(h->integrity), err);
    return rc;
}

/* ---- close ------------------------------------------------------------- */

static void
lite_close(struct wb__db *db)
{
    struct wb__sqlite *s = of(db);
    const struct wb_env *env = db->opts.env;

    for (int i = 0; i < WB__SQL_COUNT; i++)
        (void)sqlite3_finalize(s->stmt[i]);
    for (int i = 0; i < WB__TX_SQL_COUNT; i++)
        (void)sqlite3_finalize(s->tx[i]);
    (void)sqlite3_close(s->checkpointer);
    if (s->hooked)
        wb__sqlite_unhook(s);
    /* Once FAILED nothing more is written, not even the checkpoint that the
     * last connection makes when it closes; and it removes the log by name,
     * which may be that of another file. */
    if ((db->failed || s->keep_log || wb__sqlite_place_keep(s)) &&
        s->handle != NULL && (s->hooked || !s->borrowed))
        (void)sqlite3_db_config(
            s->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (!s->borrowed)
        (void)sqlite3_close(s->handle);
    wb__lockfile_close(&s->queue.lock);
    wb__fd_close(s->folder);
    for (int i = 0; i < WB__FILES; i++)
        wb__free(env, s->file[i]);
    wb__free(env, s->lock_path);
    wb__free(env, s);
}

const struct wb__engine wb__sqlite_engine = {
    .close = lite_close,
    .check = wb__sqlite_place_check,
    .begin = lite_begin,
    .commit = lite_commit,
    .rollback = lite_rollback,
    .start = lite_start,
    .next = lite_next,
    .end = lite_end,
    .slice = lite_slice,
    .integer = lite_int,
    .null = lite_null,
    .changed = lite_changed,
    .last_seq = lite_last_seq,
    .exec = wb__sqlite_exec,
    .text = wb__sqlite_text,
    .bytes = lite_bytes,
    .drain_try = lite_drain_try,
    .drain_free = lite_drain_free,
    .drain_flag_set = lite_drain_flag_set,
    .drain_flag = lite_drain_flag,
    .backup = wb__sqlite_backup,
    .compact = wb__sqlite_compact,
    .health = lite_health,
};
