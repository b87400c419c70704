/* sqlite.h - the parts of the SQLite engine. */
#ifndef WB_SRC_DB_SQLITE_H
#define WB_SRC_DB_SQLITE_H

#include <sqlite3.h>

#include "db/db.h"
#include "os/os.h"

/* ---- write_queue.c: the processes that want to write, in their order ---- */

struct wb__write_queue {
    struct wb__lockfile lock;
    const struct wb_env *env;
    int64_t slice_end_us; /* until then MAIN may be taken without queueing */
    bool held;
};
/* Bytes of the lock file: MAIN, the queue from NEXT to LAST, a byte for each
 * drain slot from DRAIN on. */
enum {
    WB__LOCK_MAIN,
    WB__LOCK_NEXT,
    WB__LOCK_LAST = 7,
    WB__LOCK_DRAIN
};
void wb__write_queue_enter(struct wb__write_queue *q);
void wb__write_queue_leave(struct wb__write_queue *q); /* fine if not entered */

/* ---- a connection ------------------------------------------------------- */

/* The statements of transactions; SAVEPOINT and below: in a caller's one. */
enum wb__tx_sql {
    WB__BEGIN_READ,
    WB__BEGIN_WRITE,
    WB__COMMIT,
    WB__ROLLBACK,
    WB__SAVEPOINT,
    WB__RELEASE,
    WB__ROLLBACK_TO,
    WB__TX_SQL_COUNT
};

enum {
    WB__FILE_DB,
    WB__FILE_LOG,
    WB__FILE_SHM,
    WB__FILES
};

struct wb__sqlite {
    struct wb__db db;
    sqlite3 *handle;
    sqlite3_stmt *stmt[WB__SQL_COUNT], *tx[WB__TX_SQL_COUNT]; /* once used */
    bool borrowed, hooked;
    bool relaxed;  /* synchronous is NORMAL, not FULL */
    bool keep_log; /* read_only, and it held frames: not ours to move */
    bool begun;    /* a transaction of our own, not nested, is open */
    bool nested;   /* the last one was a savepoint in the caller's */
    bool writing;  /* the open one may write */
    bool full;     /* there was no room: shorten the log before the next one */
    /* The caller's transaction has writes of ours; it is being committed. */
    bool tx_has_our_writes, committing;
    /* Adopted ones: all on one connection form a ring, all there are a list. */
    struct wb__sqlite *peer, *next;
    struct wb__write_queue queue;
    sqlite3 *checkpointer; /* opened when first needed */
    int64_t cut_us;        /* not before, cut a long log again */
    int wal_frames;        /* in the log after our last commit */
    int wal_long;      /* frames that call for a checkpoint; tests lower it */
    int checkpoint_at; /* the next one is tried at so many frames */
    /* NULL on a VFS of the caller's, and in memory. */
    char *file[WB__FILES], *lock_path;
    struct wb__file_id id[WB__FILES]; /* once it is open */
    int folder;                       /* watched, or -1 */
    uint32_t checks;                  /* before it is watched */
    int64_t checked_us;               /* that they are still there */
    int64_t compared_us;              /* by their paths */
};

#define WB__LOG_KEPT_BYTES 8388608 /* of a log that starts anew */
#define WB__LOG_KEPT_SQL   "PRAGMA journal_size_limit=8388608;"

/* ---- sqlite_call.c: statuses, plain statements, connections ------------- */

/* The status for a SQLite result code. */
enum wb_status wb__sqlite_status(int code);
/* Whether a write to the log or the database (file: SQLITE_FCNTL_..._POINTER)
 * failed because the disk, a quota or a limit of the process is full. SQLite
 * itself recognises only the full disk. */
bool wb__sqlite_is_full(sqlite3 *handle, int file, int code);
#define WB__SQLITE_FULL_TEXT \
    "no room: make some on the disk, or raise the limit, and try again"
/* Report the handle's last error; what: what was being done. An I/O error
 * inside a write transaction also makes the connection FAILED. */
enum wb_status wb__sqlite_fail(
    struct wb__sqlite *s, const char *what, struct wb_err *err);
/* A write failed: from now on all connections that share the handle are FAILED,
 * and the lock file counts the failure for those that are opened later. */
void wb__sqlite_set_failed(struct wb__sqlite *s);

WB_MUST_USE enum wb_status wb__sqlite_exec(
    struct wb__db *db, const char *sql, struct wb_err *err);
/* First column of the first row as text, cut to fit; "" without a row. */
WB_MUST_USE enum wb_status wb__sqlite_text(struct wb__db *db, const char *sql,
    char *out, size_t size, struct wb_err *err);
/* Open a connection of our own, with the settings all of ours have. flags: of
 * sqlite3_open_v2(). */
WB_MUST_USE enum wb_status wb__sqlite_handle(struct wb__sqlite *s,
    sqlite3 **out, const char *path, int flags, struct wb_err *err);

/* ---- sqlite_place.c: names and files ------------------------------------ */

/* Refuse a path that cannot be opened safely; create a file that is missing. */
WB_MUST_USE enum wb_status wb__sqlite_place_prepare(
    const char *path, const struct wb__db_opts *opts, struct wb_err *err);
/* Whether SQLite can write to a file and to those beside it. */
WB_MUST_USE bool wb__sqlite_place_writable(const char *path);
/* Whether no program has it open, and none was killed: SQLite left no files
 * beside it. */
WB_MUST_USE bool wb__sqlite_place_idle(const char *path);
/* Refuse a place where SQLite's locks or its log do not work. */
WB_MUST_USE enum wb_status wb__sqlite_place_safe(const char *path,
    const struct wb__db_opts *opts, const struct wb__file_info *info,
    struct wb_err *err);
/* The paths of the file that the handle has open. */
WB_MUST_USE enum wb_status wb__sqlite_place_set(
    struct wb__sqlite *s, struct wb_err *err);
/* Open the lock file beside it, or make one. */
void wb__sqlite_place_lock(struct wb__sqlite *s);
/* See to it that the files beside a database can be written if it can. */
WB_MUST_USE enum wb_status wb__sqlite_place_open_up(
    const char *path, struct wb_err *err);
/* Note which files are open. */
void wb__sqlite_place_note(struct wb__sqlite *s);
/* IO: a path names another file, or none. Any thread. */
WB_MUST_USE enum wb_status wb__sqlite_place_check(
    struct wb__db *db, struct wb_err *err);
/* The same for less, after most commits: what changes in the folder, or the
 * folder's own name, is noticed at once, one above it renamed within a tenth of
 * a second. */
WB_MUST_USE enum wb_status wb__sqlite_place_check_soon(
    struct wb__sqlite *s, int64_t now_us, struct wb_err *err);
/* Whether a path beside the database names a file of others, which the close of
 * the last connection would remove. */
WB_MUST_USE bool wb__sqlite_place_keep(struct wb__sqlite *s);

/* ---- checkpoint.c ------------------------------------------------------- */

/* The hook of a connection of our own. */
int wb__sqlite_on_wal(void *ctx, sqlite3 *h, const char *schema, int frames);
/* The hooks of a caller's connection, which several of us may share. */
void wb__sqlite_hook(struct wb__sqlite *s);
void wb__sqlite_unhook(struct wb__sqlite *s);
/* Run after a commit: move the log into the file if it is long. */
enum wb_status wb__sqlite_checkpoint(struct wb__sqlite *s, struct wb_err *err);
/* A write found no room: what is in the log may go into the file, and the log
 * may then be used again from its start. */
WB_MUST_USE enum wb_status wb__sqlite_make_room(
    struct wb__sqlite *s, struct wb_err *err);
/* Move the log, and start it anew with a small commit, which cuts it to
 * journal_size_limit; not while a reader holds it. */
void wb__sqlite_cut_log(struct wb__sqlite *s);
/* Make everything that can be read durable, after a write that failed. BUSY:
 * not yet. */
WB_MUST_USE enum wb_status wb__sqlite_repair(
    struct wb__sqlite *s, struct wb_err *err);
/* The same, if a write failed since the last repair. */
WB_MUST_USE enum wb_status wb__sqlite_repair_if_failed(
    struct wb__sqlite *s, struct wb_err *err);

/* ---- sqlite_backup.c ---------------------------------------------------- */

WB_MUST_USE enum wb_status wb__sqlite_backup(
    struct wb__db *db, const char *path, struct wb_err *err);
WB_MUST_USE enum wb_status wb__sqlite_compact(
    struct wb__db *db, int64_t *before, int64_t *after, struct wb_err *err);

/* ---- sqlite_open.c, sqlite.c --------------------------------------------- */

WB_MUST_USE enum wb_status wb__sqlite_open(struct wb__db **out,
    const char *path, const struct wb__db_opts *opts, struct wb_err *err);

extern const struct wb__engine wb__sqlite_engine;

#endif /* WB_SRC_DB_SQLITE_H */
