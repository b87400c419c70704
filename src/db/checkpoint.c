/* checkpoint.c - the one way the log is moved into the database file.
 *
 * (1) SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint races
 *     a commit that starts the log anew (repaired in 3.44.6, 3.50.7 and
 *     3.51.3). So no connection checkpoints by itself (wal_autocheckpoint=0);
 *     one holds the write lock, so that nobody commits, while a second one
 *     runs a passive checkpoint.
 * (2) It runs after a commit that left wal_long frames or more in the log, and
 *     again after as many more where a reader kept it from finishing.
 * (3) When a sync fails, the kernel drops what was not on the disk yet: it is
 *     still read, never becomes durable, and later syncs succeed. Those who
 *     had the file open are told, once, and are FAILED; who opens it later is
 *     not, and would commit behind a hole in the log. So failures are counted
 *     in the lock file, and who opens the file after one first writes the log
 *     anew, where it is, and syncs it.
 * (4) A connection has one hook of a kind: all who were adopted on one are in a
 *     ring, and are told together. */
#include "db/sqlite.h"

enum {
    BLOCK = 65536
};

int
wb__sqlite_on_wal(void *ctx, sqlite3 *h, const char *schema, int frames)
{
    struct wb__sqlite *s = ctx, *peer = s;

    (void)h;
    if (strcmp(schema, "main") != 0)
        return SQLITE_OK;
    do {
        peer->pledged = peer->committing = false;
        if (peer->wake)
            wb__lockfile_poke(&peer->turn.lock);
        peer->wake = false;
    } while ((peer = peer->peer) != s);
    s->wal_frames = frames;
    if (frames < s->checkpoint_at - s->wal_long)
        s->checkpoint_at = s->wal_long; /* the log was started anew */
    /* A caller's connection has no other moment. The commit has happened: a
     * checkpoint that fails must not turn it into an error. */
    if (s->borrowed)
        (void)wb__sqlite_checkpoint(s, NULL);
    return SQLITE_OK;
}

/* The caller's own COMMIT is not seen to fail but by this: it began, and ended
 * in a rollback. See (3); a full disk is taken for as bad. */
static int
on_commit(void *ctx)
{
    struct wb__sqlite *s = ctx, *peer = s;

    do
        peer->committing = peer->pledged;
    while ((peer = peer->peer) != s);
    return 0;
}

static void
on_rollback(void *ctx)
{
    struct wb__sqlite *s = ctx, *peer = s;
    /* Inside a ROLLBACK of his the connection is not in autocommit yet. */
    bool ended = sqlite3_get_autocommit(s->handle) != 0;

    do {
        if (peer->committing && ended)
            wb__sqlite_failed(peer);
        peer->pledged = peer->committing = false;
    } while ((peer = peer->peer) != s);
}

static void
set_hooks(sqlite3 *h, struct wb__sqlite *s)
{
    (void)sqlite3_wal_hook(h, s == NULL ? NULL : wb__sqlite_on_wal, s);
    (void)sqlite3_commit_hook(h, s == NULL ? NULL : on_commit, s);
    (void)sqlite3_rollback_hook(h, s == NULL ? NULL : on_rollback, s);
}

static struct wb__mutex guard = {PTHREAD_MUTEX_INITIALIZER};
static struct wb__sqlite *adopted;

void
wb__sqlite_hook(struct wb__sqlite *s)
{
    struct wb__sqlite *other;

    wb__mutex_lock(&guard);
    other = adopted;
    while (other != NULL && other->handle != s->handle)
        other = other->next;
    if (other != NULL) {
        s->peer = other->peer;
        other->peer = s;
    }
    s->next = adopted;
    adopted = s;
    wb__mutex_unlock(&guard);
    set_hooks(s->handle, s);
}

void
wb__sqlite_unhook(struct wb__sqlite *s)
{
    struct wb__sqlite **at = &adopted, *before = s;

    wb__mutex_lock(&guard);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    wb__mutex_unlock(&guard);
    while (before->peer != s)
        before = before->peer;
    before->peer = s->peer;
    set_hooks(s->handle, before == s ? NULL : before);
}

/* The write lock is held: nobody commits meanwhile. */
static enum wb_status
move_guarded(struct wb__sqlite *s, int *frames, int *moved, struct wb_err *err)
{
    enum wb_status rc = WB_OK;
    int code;

    if (s->checkpointer == NULL) {
        rc = wb__sqlite_handle(
            s, &s->checkpointer, sqlite3_db_filename(s->handle, "main"), err);
        if (rc != WB_OK)
            return rc;
    }
    code = sqlite3_wal_checkpoint_v2(
        s->checkpointer, "main", SQLITE_CHECKPOINT_PASSIVE, frames, moved);
    if ((code & 0xff) == SQLITE_IOERR && code != SQLITE_IOERR_NOMEM &&
        !wb__sqlite_is_full(s->checkpointer, SQLITE_FCNTL_FILE_POINTER, code)) {
        wb__sqlite_failed(s);
        return wb__fail(err, WB_IO, code, "checkpoint: %s",
            sqlite3_errmsg(s->checkpointer));
    }
    return WB_OK;
}

/* Move what can be moved. Not all, and not an error, where a reader is in the
 * way, or the write lock is not to be had: then *moved is less than *frames. */
static enum wb_status
move_log(struct wb__sqlite *s, int *frames, int *moved, struct wb_err *err)
{
    enum wb_status rc;

    *frames = 1;
    *moved = 0;
    if (wb__db_begin(&s->db, WB__TX_FULL, NULL) != WB_OK)
        return WB_OK;
    rc = move_guarded(s, frames, moved, err);
    wb__db_rollback(&s->db);
    return rc;
}

enum wb_status
wb__sqlite_checkpoint(struct wb__sqlite *s, struct wb_err *err)
{
    int frames, moved;

    if (s->checkpoint_at == 0)
        s->checkpoint_at = s->wal_long;
    if (s->wal_frames < s->checkpoint_at)
        return WB_OK;
    s->checkpoint_at = s->wal_frames + s->wal_long;
    return move_log(s, &frames, &moved, err);
}

/* ---- after a failed sync ----------------------------------------------- */

static int
rewrite(sqlite3_file *log, char *block, int size)
{
    sqlite3_int64 end = 0;
    int code = log->pMethods->xFileSize(log, &end);

    for (sqlite3_int64 at = 0; at < end && code == SQLITE_OK; at += size) {
        int n = end - at < size ? (int)(end - at) : size;

        code = log->pMethods->xRead(log, block, n, at);
        if (code == SQLITE_OK)
            code = log->pMethods->xWrite(log, block, n, at);
    }
    return code == SQLITE_OK ? log->pMethods->xSync(log, SQLITE_SYNC_NORMAL)
                             : code;
}

/* The same bytes at the same place: for those who read it nothing changes. */
static enum wb_status
rewrite_log(struct wb__sqlite *s, struct wb_err *err)
{
    sqlite3_file *log = NULL;
    char *block;
    int code;

    (void)sqlite3_file_control(
        s->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log == NULL || log->pMethods == NULL)
        return WB_OK;
    block = wb__alloc(s->db.opts.env, BLOCK);
    if (block == NULL)
        return wb__nomem(err, "open");
    code = rewrite(log, block, BLOCK);
    wb__free(s->db.opts.env, block);
    if (code == SQLITE_OK)
        return WB_OK;
    wb__sqlite_failed(s);
    return wb__fail(err, WB_IO, code,
        "a write failed before, and writing the log anew fails, too; see to "
        "the disk");
}

enum wb_status
wb__sqlite_mend(struct wb__sqlite *s, struct wb_err *err)
{
    int frames, moved;
    enum wb_status rc = wb__db_begin(&s->db, WB__TX_FULL, err);

    if (rc != WB_OK)
        return rc;
    rc = rewrite_log(s, err);
    wb__db_rollback(&s->db);
    /* Of the database itself only a header just written can be lost: what a
     * checkpoint writes stays in the log until it is durable. */
    return rc == WB_OK ? move_log(s, &frames, &moved, err) : rc;
}

enum wb_status
wb__sqlite_mend_if_failed(struct wb__sqlite *s, struct wb_err *err)
{
    uint8_t failures;
    enum wb_status rc;

    if (!wb__lockfile_failed(&s->turn.lock, &failures))
        return WB_OK;
    rc = wb__sqlite_mend(s, err);
    if (rc == WB_OK)
        wb__lockfile_repaired(&s->turn.lock, failures);
    return rc;
}
