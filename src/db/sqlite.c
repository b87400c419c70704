/* sqlite.c - the SQLite engine: transactions, statements, statuses.
 *
 * (1) PRAGMA synchronous acts when it is prepared and is refused inside a
 *     transaction: it is run as text, before BEGIN, and only on change.
 * (2) COMMIT that fails with an I/O error leaves its outcome unknown; all
 *     other failures have rolled back, or are rolled back here. */
#include "db/sqlite.h"

#include <stdio.h>

static const char *const sql_text[WB__SQL_COUNT] = {
#define X(name, sqlite, postgres) [WB__SQL_##name] = (sqlite),
    WB__SQL_MAP(X)
#undef X
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

    /* A text of a UTF-16 database is turned into UTF-8 by column_text. */
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
run_once(
    struct wb__sqlite *s, sqlite3_stmt **q, const char *sql, struct wb_err *err)
{
    enum wb_status rc = prepare(s, sql, q, err);

    if (rc != WB_OK)
        return rc;
    if (sqlite3_step(*q) != SQLITE_DONE)
        rc = wb__sqlite_fail(s, sql, err);
    (void)sqlite3_reset(*q);
    return rc;
}

static enum wb_status
set_sync(struct wb__sqlite *s, bool relaxed, struct wb_err *err)
{
    enum wb_status rc;

    if (s->relaxed == relaxed)
        return WB_OK;
    rc = wb__sqlite_exec(s,
        relaxed ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL", err);
    if (rc == WB_OK)
        s->relaxed = relaxed;
    return rc;
}

/* Before anything is begun: what takes it back must not want memory then. */
static enum wb_status
prepare_rollback(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc;

    if (!s->nested)
        return prepare(s, "ROLLBACK", &s->rollback, err);
    rc = prepare(s, "ROLLBACK TO waybill", &s->rollback_to, err);
    return rc == WB_OK ? prepare(s, "RELEASE waybill", &s->release, err) : rc;
}

static void
lite_rollback(struct wb__db *db)
{
    struct wb__sqlite *s = of(db);

    /* Some failures (full disk, I/O) have rolled back already. */
    if (s->nested) {
        (void)run_once(s, &s->rollback_to, "ROLLBACK TO waybill", NULL);
        (void)run_once(s, &s->release, "RELEASE waybill", NULL);
    } else if (!sqlite3_get_autocommit(s->handle)) {
        (void)run_once(s, &s->rollback, "ROLLBACK", NULL);
    }
    s->begun = s->begun && !sqlite3_get_autocommit(s->handle);
    wb__turn_give(&s->turn);
}

/* A rollback that did not happen for want of memory is made up for here. */
static enum wb_status
end_last(struct wb__sqlite *s, struct wb_err *err)
{
    if (s->begun)
        lite_rollback(&s->db);
    return s->begun ? wb__nomem(err, "a rollback") : WB_OK;
}

static enum wb_status
begin_write(struct wb__sqlite *s, enum wb__tx tx, struct wb_err *err)
{
    enum wb_status rc = set_sync(s, tx == WB__TX_RELAXED && !s->borrowed, err);

    if (rc != WB_OK)
        return rc;
    wb__turn_take(&s->turn);
    rc = run_once(s, &s->begin, "BEGIN IMMEDIATE", err);
    if (rc != WB_OK)
        wb__turn_give(&s->turn);
    return rc;
}

static enum wb_status
lite_begin(struct wb__db *db, enum wb__tx tx, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    enum wb_status rc = end_last(s, err);

    if (rc != WB_OK)
        return rc;
    s->nested = s->borrowed && !sqlite3_get_autocommit(s->handle);
    rc = prepare_rollback(s, err);
    if (rc != WB_OK)
        return rc;
    s->pledged = s->nested;
    if (s->nested)
        return run_once(s, &s->savepoint, "SAVEPOINT waybill", err);
    s->wake = false;
    rc = tx == WB__TX_READ ? run_once(s, &s->begin_read, "BEGIN", err)
                           : begin_write(s, tx, err);
    s->begun = rc == WB_OK;
    return rc;
}

static enum wb_status
lite_commit(struct wb__db *db, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    enum wb_status rc;

    rc = s->nested ? run_once(s, &s->release, "RELEASE waybill", err)
                   : run_once(s, &s->commit, "COMMIT", err);
    if (rc != WB_OK)
        lite_rollback(db);
    if (rc != WB_OK || s->nested)
        return rc;
    s->begun = false;
    /* The commit stands whatever comes of the checkpoint; one that fails has
     * marked the connection, and the next call says so. */
    if (!s->borrowed)
        (void)wb__sqlite_checkpoint(s, NULL);
    wb__turn_give(&s->turn);
    return WB_OK;
}

/* ---- around it --------------------------------------------------------- */

static enum wb_status
lite_bytes(struct wb__db *db, int64_t *bytes, struct wb_err *err)
{
    struct wb__sqlite *s = of(db);
    char text[32];
    enum wb_status rc = wb__sqlite_text(s,
        "SELECT (page_count - freelist_count) * page_size FROM"
        " pragma_page_count, pragma_freelist_count, pragma_page_size",
        text, sizeof(text), err);
    uint64_t v = 0;

    if (rc == WB_OK && !wb__parse_u64(wb_slice(text), INT64_MAX, &v))
        return wb__fail(err, WB_CORRUPT, 0, "the size of the file: %s", text);
    *bytes = (int64_t)v;
    return rc;
}

static bool
lite_drain_try(struct wb__db *db, int slot)
{
    return wb__lockfile_try(&of(db)->turn.lock, WB__LOCK_DRAIN + slot);
}

static void
lite_drain_free(struct wb__db *db, int slot)
{
    wb__lockfile_free(&of(db)->turn.lock, WB__LOCK_DRAIN + slot);
}

static void
lite_drain_flag_set(struct wb__db *db, bool on)
{
    wb__lockfile_flag_set(&of(db)->turn.lock, on);
}

static bool
lite_drain_flag(struct wb__db *db)
{
    return wb__lockfile_flag(&of(db)->turn.lock);
}

static void
lite_wake(struct wb__db *db)
{
    of(db)->wake = true;
}

static struct wb__watch
lite_watch(struct wb__db *db)
{
    return (struct wb__watch){of(db)->lock_path, of(db)->log_path};
}

static const char *
lite_path(struct wb__db *db)
{
    return of(db)->path;
}

static void
lite_close(struct wb__db *db)
{
    struct wb__sqlite *s = of(db);
    const struct wb_env *env = db->opts.env;

    for (int i = 0; i < WB__SQL_COUNT; i++)
        (void)sqlite3_finalize(s->stmt[i]);
    (void)sqlite3_finalize(s->begin);
    (void)sqlite3_finalize(s->begin_read);
    (void)sqlite3_finalize(s->commit);
    (void)sqlite3_finalize(s->rollback);
    (void)sqlite3_finalize(s->rollback_to);
    (void)sqlite3_finalize(s->savepoint);
    (void)sqlite3_finalize(s->release);
    (void)sqlite3_close(s->checkpointer);
    if (s->hooked)
        wb__sqlite_unhook(s);
    /* After a failed write nothing more is written, not even the checkpoint of
     * the last connection. */
    if (db->failed && s->handle != NULL && (s->hooked || !s->borrowed))
        (void)sqlite3_db_config(
            s->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (!s->borrowed)
        (void)sqlite3_close(s->handle);
    wb__lockfile_close(&s->turn.lock);
    wb__free(env, s->path);
    wb__free(env, s->lock_path);
    wb__free(env, s->log_path);
    wb__free(env, s);
}

const struct wb__engine wb__sqlite_engine = {
    .close = lite_close,
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
    .bytes = lite_bytes,
    .drain_try = lite_drain_try,
    .drain_free = lite_drain_free,
    .drain_flag_set = lite_drain_flag_set,
    .drain_flag = lite_drain_flag,
    .wake = lite_wake,
    .watch = lite_watch,
    .path = lite_path,
    .backup = wb__sqlite_backup,
    .health = wb__sqlite_health,
};
