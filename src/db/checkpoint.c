/* checkpoint.c - move the log into the database file; repair after a failed
 * sync.
 *
 * (1) SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint races
 *     a commit that starts the log anew (repaired in 3.44.6, 3.50.7 and
 *     3.51.3). So no connection checkpoints by itself (wal_autocheckpoint=0);
 *     one holds the write lock, so that no other can commit, while a second
 *     one runs a passive checkpoint.
 * (2) It runs after a commit that left wal_long frames or more in the log, and
 *     again after as many more where a reader kept it from finishing.
 *     A log that starts anew is cut to WB__LOG_KEPT_BYTES (journal_size_limit).
 *     One that is longer while nothing is committed, since a reader kept it
 *     from being cut, is started anew by a small commit.
 * (3) When a sync fails, the kernel forgets that the pages were not written:
 *     they are still read, never become durable, and later syncs succeed.
 *     Processes that had the file open get the error once, and are FAILED. A
 *     process that opens it later gets none, and would commit behind a hole in
 *     the log. So the lock file counts failures; the first to open the database
 *     after one writes the log again, in place, and syncs it.
 * (4) A connection has one hook of each type: all handles that were adopted on
 *     one connection are in a ring, and the hook serves each of them. */
#include "db/sqlite.h"

enum {
    BLOCK = 65536,
    CUT_AGAIN_US = 10000000
};

int
wb__sqlite_on_wal(void *ctx, sqlite3 *h, const char *schema, int frames)
{
    struct wb__sqlite *s = ctx, *peer = s;

    (void)h;
    if (strcmp(schema, "main") != 0)
        return SQLITE_OK;
    do {
        peer->tx_has_our_writes = peer->committing = false;
        if (peer->db.wake)
            wb__lockfile_poke(&peer->queue.lock);
        peer->db.wake = false;
    } while ((peer = peer->peer) != s);
    s->wal_frames = frames;
    if (frames < s->checkpoint_at - s->wal_long)
        s->checkpoint_at = s->wal_long; /* the log was started anew */
    /* On a caller's connection this hook is the only place that runs after each
     * commit, also after the caller's own. SQLite calls it after the commit,
     * with the write lock released, and allows it to write. The COMMIT that
     * is still on the stack may be ours: then begun is still set, and the next
     * begin finds autocommit on and only clears it (lite_begin in sqlite.c). A
     * checkpoint that fails must not make the commit an error. */
    if (s->borrowed)
        (void)wb__sqlite_checkpoint(s, NULL);
    return SQLITE_OK;
}

/* The only sign that the caller's own COMMIT failed is that a commit which
 * began ends in a rollback. See (3). A full disk looks the same, and counts as
 * one. A COMMIT into a file that is no longer there is refused: it is the
 * caller's to say that a message was accepted. */
static int
on_commit(void *ctx)
{
    struct wb__sqlite *s = ctx, *peer = s;
    bool ours = false;

    do {
        peer->committing = peer->tx_has_our_writes;
        ours |= peer->committing;
    } while ((peer = peer->peer) != s);
    if (!ours || wb__sqlite_place_check(&s->db, NULL) == WB_OK)
        return 0;
    do
        peer->committing = false;
    while ((peer = peer->peer) != s);
    return 1; /* the COMMIT becomes a ROLLBACK */
}

static void
on_rollback(void *ctx)
{
    struct wb__sqlite *s = ctx, *peer = s;
    /* In a ROLLBACK of the caller's the connection is not in autocommit yet. */
    bool ended = sqlite3_get_autocommit(s->handle) != 0;

    do {
        if (peer->committing && ended)
            wb__sqlite_set_failed(peer);
        peer->tx_has_our_writes = peer->committing = false;
    } while ((peer = peer->peer) != s);
}

static void
set_hooks(sqlite3 *h, struct wb__sqlite *s)
{
    (void)sqlite3_wal_hook(h, s == NULL ? NULL : wb__sqlite_on_wal, s);
    (void)sqlite3_commit_hook(h, s == NULL ? NULL : on_commit, s);
    (void)sqlite3_rollback_hook(h, s == NULL ? NULL : on_rollback, s);
}

static struct wb__mutex adopted_lock = {PTHREAD_MUTEX_INITIALIZER};
static struct wb__sqlite *adopted;

void
wb__sqlite_hook(struct wb__sqlite *s)
{
    struct wb__sqlite *other;

    wb__mutex_lock(&adopted_lock);
    other = adopted;
    while (other != NULL && other->handle != s->handle)
        other = other->next;
    if (other != NULL) {
        s->peer = other->peer;
        other->peer = s;
    }
    s->next = adopted;
    adopted = s;
    wb__mutex_unlock(&adopted_lock);
    set_hooks(s->handle, s);
}

void
wb__sqlite_unhook(struct wb__sqlite *s)
{
    struct wb__sqlite **at = &adopted, *before = s;

    wb__mutex_lock(&adopted_lock);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    wb__mutex_unlock(&adopted_lock);
    while (before->peer != s)
        before = before->peer;
    before->peer = s->peer;
    set_hooks(s->handle, before == s ? NULL : before);
}

/* With locking_mode=EXCLUSIVE no other connection can open the database: none
 * can commit meanwhile, and a second one would only wait. */
static bool
is_exclusive(struct wb__sqlite *s)
{
    char mode[16];

    return s->borrowed &&
           wb__sqlite_text(&s->db, "PRAGMA main.locking_mode", mode,
               sizeof(mode), NULL) == WB_OK &&
           strcmp(mode, "exclusive") == 0;
}

static enum wb_status
checkpoint_by(struct wb__sqlite *s, sqlite3 *handle, struct wb_err *err)
{
    int code = sqlite3_wal_checkpoint_v2(
        handle, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

    if ((code & 0xff) != SQLITE_IOERR || code == SQLITE_IOERR_NOMEM ||
        wb__sqlite_is_full(handle, SQLITE_FCNTL_FILE_POINTER, code))
        return WB_OK;
    wb__sqlite_set_failed(s);
    return wb__fail(err, WB_IO, code, "checkpoint: %s", sqlite3_errmsg(handle));
}

/* Move what can be moved, with the write lock held; see (1). It is not an error
 * if a reader keeps some of the log in use, or if the lock is not free. */
static enum wb_status
checkpoint(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (is_exclusive(s))
        return checkpoint_by(s, s->handle, err);
    if (wb__db_begin(&s->db, WB__TX_FULL, NULL) != WB_OK)
        return WB_OK;
    if (s->checkpointer == NULL)
        rc = wb__sqlite_handle(s, &s->checkpointer,
            sqlite3_db_filename(s->handle, "main"), SQLITE_OPEN_READWRITE, err);
    if (rc == WB_OK)
        rc = checkpoint_by(s, s->checkpointer, err);
    if (s->borrowed) { /* or the caller could not make it exclusive later */
        (void)sqlite3_close(s->checkpointer);
        s->checkpointer = NULL;
    }
    wb__db_rollback(&s->db);
    return rc;
}

enum wb_status
wb__sqlite_make_room(struct wb__sqlite *s, struct wb_err *err)
{
    s->full = false;
    return checkpoint(s, err);
}

void
wb__sqlite_cut_log(struct wb__sqlite *s)
{
    if (checkpoint(s, NULL) != WB_OK ||
        wb__db_begin(&s->db, WB__TX_RELAXED, NULL) != WB_OK)
        return;
    if (wb__db_run(&s->db, WB__SQL_META_SET,
            WB__ARGS(wb__text(WB_LIT("log_cut")), wb__int(wb__db_now(&s->db))),
            NULL, NULL) != WB_OK ||
        wb__db_commit(&s->db, NULL) != WB_OK)
        wb__db_rollback(&s->db);
}

/* See (2). A reader may still hold the log: not at every commit. */
static bool
is_time_to_cut(struct wb__sqlite *s)
{
    const struct wb_env *env = s->db.opts.env;
    int64_t now_us;

    if (s->borrowed || s->db.opts.read_only || s->file[WB__FILE_LOG] == NULL)
        return false;
    now_us = env->mono_us(env->ctx);
    if (now_us < s->cut_us)
        return false;
    s->cut_us = now_us + CUT_AGAIN_US;
    return wb__file_id_of(s->file[WB__FILE_LOG]).bytes > WB__LOG_KEPT_BYTES;
}

enum wb_status
wb__sqlite_checkpoint(struct wb__sqlite *s, struct wb_err *err)
{
    if (s->checkpoint_at == 0)
        s->checkpoint_at = s->wal_long;
    if (is_time_to_cut(s))
        wb__sqlite_cut_log(s);
    if (s->wal_frames < s->checkpoint_at)
        return WB_OK;
    s->checkpoint_at = s->wal_frames + s->wal_long;
    return checkpoint(s, err);
}

/* ---- after a failed sync ----------------------------------------------- */

/* The same bytes at the same place: for readers nothing changes. */
static enum wb_status
rewrite_log(struct wb__sqlite *s, struct wb_err *err)
{
    sqlite3_file *log = NULL;
    sqlite3_int64 end = 0;
    char *block;
    int code;

    (void)sqlite3_file_control(
        s->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log == NULL || log->pMethods == NULL)
        return WB_OK;
    block = wb__alloc(s->db.opts.env, BLOCK);
    if (block == NULL)
        return wb__nomem(err, "open");
    code = log->pMethods->xFileSize(log, &end);
    for (sqlite3_int64 at = 0; at < end && code == SQLITE_OK; at += BLOCK) {
        int n = end - at < BLOCK ? (int)(end - at) : BLOCK;

        code = log->pMethods->xRead(log, block, n, at);
        if (code == SQLITE_OK)
            code = log->pMethods->xWrite(log, block, n, at);
    }
    if (code == SQLITE_OK)
        code = log->pMethods->xSync(log, SQLITE_SYNC_NORMAL);
    wb__free(s->db.opts.env, block);
    if (code == SQLITE_OK)
        return WB_OK;
    wb__sqlite_set_failed(s);
    return wb__fail(err, WB_IO, code,
        "a write failed before, and writing the log again failed, too; "
        "check the disk");
}

enum wb_status
wb__sqlite_repair(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = wb__db_begin(&s->db, WB__TX_FULL, err);

    if (rc != WB_OK)
        return rc;
    rc = rewrite_log(s, err);
    wb__db_rollback(&s->db);
    /* The database file itself can have lost only a header just written: what a
     * checkpoint writes stays in the log until it is durable. */
    return rc == WB_OK ? checkpoint(s, err) : rc;
}

enum wb_status
wb__sqlite_repair_if_failed(struct wb__sqlite *s, struct wb_err *err)
{
    uint8_t failures;
    enum wb_status rc;

    if (!wb__lockfile_failed(&s->queue.lock, &failures))
        return WB_OK;
    rc = wb__sqlite_repair(s, err);
    if (rc == WB_OK)
        wb__lockfile_repaired(&s->queue.lock, failures);
    return rc;
}
