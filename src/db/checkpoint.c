/* checkpoint.c - the one way the log is moved into the database file.
 *
 * (1) SQLite 3.7.0 to 3.51.2 can lose commits when a passive checkpoint races
 *     a commit that starts the log anew (repaired in 3.44.6, 3.50.7 and
 *     3.51.3). So no connection checkpoints by itself (wal_autocheckpoint=0);
 *     one holds the write lock, so that nobody commits, while a second one
 *     runs a passive checkpoint.
 * (2) It runs after a commit that left wal_long frames or more in the log, and
 *     again after as many more where a reader kept it from finishing. */
#include "db/sqlite.h"

int
wb__sqlite_on_wal(void *ctx, sqlite3 *h, const char *schema, int frames)
{
    struct wb__sqlite *s = ctx;

    (void)h;
    if (strcmp(schema, "main") != 0)
        return SQLITE_OK;
    s->wal_frames = frames;
    if (s->wake)
        wb__lockfile_poke(&s->turn.lock);
    s->wake = false;
    if (frames < s->checkpoint_at - s->wal_long)
        s->checkpoint_at = s->wal_long; /* the log was started anew */
    /* A caller's connection has no other moment. The commit has happened: a
     * checkpoint that fails must not turn it into an error. */
    if (s->borrowed)
        (void)wb__sqlite_checkpoint(s, NULL);
    return SQLITE_OK;
}

static enum wb_status
checkpoint_guarded(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = WB_OK;
    int frames = 0, moved = 0, code;

    if (s->checkpointer == NULL) {
        rc = wb__sqlite_handle(
            s, &s->checkpointer, sqlite3_db_filename(s->handle, "main"), err);
        if (rc != WB_OK)
            return rc;
    }
    code = sqlite3_wal_checkpoint_v2(
        s->checkpointer, "main", SQLITE_CHECKPOINT_PASSIVE, &frames, &moved);
    if ((code & 0xff) == SQLITE_IOERR && code != SQLITE_IOERR_NOMEM) {
        s->db.failed = true;
        return wb__fail(err, WB_IO, code, "checkpoint: %s",
            sqlite3_errmsg(s->checkpointer));
    }
    return WB_OK;
}

enum wb_status
wb__sqlite_checkpoint(struct wb__sqlite *s, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (s->checkpoint_at == 0)
        s->checkpoint_at = s->wal_long;
    if (s->wal_frames < s->checkpoint_at)
        return WB_OK;
    s->checkpoint_at = s->wal_frames + s->wal_long;
    wb__turn_take(&s->turn);
    if (sqlite3_exec(s->handle, "BEGIN IMMEDIATE", NULL, NULL, NULL) ==
        SQLITE_OK) {
        rc = checkpoint_guarded(s, err);
        (void)sqlite3_exec(s->handle, "ROLLBACK", NULL, NULL, NULL);
    }
    wb__turn_give(&s->turn);
    return rc;
}
