/* sqlite.h - the parts of the SQLite engine. */
#ifndef WB_SRC_DB_SQLITE_H
#define WB_SRC_DB_SQLITE_H

#include <sqlite3.h>

#include "db/engine.h"
#include "os/os.h"

/* A turn between processes; see turn.c. */
struct wb__turn {
    struct wb__lockfile lock;
    const struct wb_env *env;
    int64_t slice_end_us;
    bool held;
};
enum {
    WB__LOCK_MAIN,
    WB__LOCK_NEXT,
    WB__LOCK_LAST = 7, /* NEXT to LAST: who waits */
    WB__LOCK_DRAIN
};
void wb__turn_take(struct wb__turn *t);
void wb__turn_give(struct wb__turn *t);

struct wb__sqlite {
    struct wb__db db;
    sqlite3 *handle;
    sqlite3_stmt *stmt[WB__SQL_COUNT]; /* prepared when first used */
    sqlite3_stmt *begin, *begin_read, *commit, *rollback;
    sqlite3_stmt *savepoint, *release, *rollback_to; /* in a caller's own */
    bool borrowed, relaxed, nested, hooked;
    /* Those adopted: in a ring on one connection, in a list on all of them. */
    struct wb__sqlite *peer, *next;
    bool begun; /* a transaction of our own, not nested, is open */
    /* the caller's transaction has writes of ours; is being committed */
    bool pledged, committing;
    struct wb__turn turn;
    sqlite3 *checkpointer; /* opened when first needed */
    int wal_frames;        /* in the log after our last commit */
    int wal_long;      /* frames that call for a checkpoint; tests lower it */
    int checkpoint_at; /* try again once it is this long */
    char *path;        /* NULL on a VFS of the caller's */
    char *lock_path, *log_path; /* beside it */
    bool wake;                  /* see wb__db_wake() */
};

enum wb_status wb__sqlite_status(int code);

/* Map the handle's last error to a status, with what was being done in the
 * text; IO marks the connection FAILED. */
enum wb_status wb__sqlite_fail(
    struct wb__sqlite *s, const char *what, struct wb_err *err);
#define WB__SQLITE_NO_ROOM \
    "no room: make some on the disk, or raise the limit, and try again"
/* Whether a write to the log or the database (file: SQLITE_FCNTL_..._POINTER)
 * failed for want of room. SQLite itself knows a full disk, but neither a full
 * quota nor a limit of the process. */
bool wb__sqlite_is_full(sqlite3 *handle, int file, int code);
/* A write failed: nothing more is written, by nobody on the connection. */
void wb__sqlite_failed(struct wb__sqlite *s);
enum wb_status wb__sqlite_exec(
    struct wb__sqlite *s, const char *sql, struct wb_err *err);
/* First column of the first row as text, cut to fit; "" without a row. */
WB_MUST_USE enum wb_status wb__sqlite_text(struct wb__sqlite *s,
    const char *sql, char *out, size_t size, struct wb_err *err);

/* checkpoint.c: run after a commit; moves the log into the file once it is
 * long. */
int wb__sqlite_on_wal(void *ctx, sqlite3 *h, const char *schema, int frames);
/* On a caller's connection, which may have several of us. */
void wb__sqlite_hook(struct wb__sqlite *s);
void wb__sqlite_unhook(struct wb__sqlite *s);
enum wb_status wb__sqlite_checkpoint(struct wb__sqlite *s, struct wb_err *err);
/* Make durable what can be read, after a write that failed. BUSY: not yet. */
WB_MUST_USE enum wb_status wb__sqlite_mend(
    struct wb__sqlite *s, struct wb_err *err);
/* If one failed since the last time. */
WB_MUST_USE enum wb_status wb__sqlite_mend_if_failed(
    struct wb__sqlite *s, struct wb_err *err);

/* sqlite_open.c */
WB_MUST_USE enum wb_status wb__sqlite_handle(
    struct wb__sqlite *s, sqlite3 **out, const char *path, struct wb_err *err);
enum wb_status wb__sqlite_backup(
    struct wb__db *db, const char *path, struct wb_err *err);
enum wb_status wb__sqlite_health(
    struct wb__db *db, struct wb_health *health, struct wb_err *err);
/* migrate.c: refuse, before anything is changed, a file that is not ours, not
 * to be written, or of a newer version. */
WB_MUST_USE enum wb_status wb__sqlite_check(
    struct wb__sqlite *s, struct wb_err *err);
/* Bring the tables up to date and give a copied file a new
 * incarnation. */
WB_MUST_USE enum wb_status wb__sqlite_migrate(
    struct wb__sqlite *s, bool existing, struct wb_err *err);

extern const struct wb__engine wb__sqlite_engine;

#endif /* WB_SRC_DB_SQLITE_H */
