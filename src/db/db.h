/* db.h - one SQL face for two engines.
 *
 * A connection runs the statements of sql.h, one thread at a time. Nothing
 * above this room knows which engine it is.
 *
 * (1) What a FULL transaction committed survives a power cut.
 * (2) What a RELAXED one committed survives a crash of the process; a power
 *     cut may undo it, whole, together with later relaxed ones only.
 * (3) A call that fails inside a transaction leaves it to be rolled back by
 *     the caller; nothing of it stays.
 * (4) After a failed write or sync the connection is FAILED: every later call
 *     returns IO and writes nothing. A full disk is no such failure: it is
 *     FULL, and rolled back. */
#ifndef WB_SRC_DB_DB_H
#define WB_SRC_DB_DB_H

#include "base/base.h"
#include "db/sql.h"

struct wb__db;
struct sqlite3;
struct pg_conn;

struct wb__db_opts {
    const struct wb_env *env;
    int64_t busy_ms;
    bool existing;     /* never create */
    bool server_clock; /* see wb__db_now() */
    bool allow_network_fs;
};

/* url: a postgres:// one, or else the path of a SQLite file. */
WB_MUST_USE enum wb_status wb__db_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err);
bool wb__db_is_postgres(const char *url);

/* On a connection of the caller's; see wb_outbox_adopt(). With adopt false
 * nothing is changed, and what does not fit is refused. */
WB_MUST_USE enum wb_status wb__db_borrow(struct wb__db **out,
    struct sqlite3 *sqlite, bool adopt, const struct wb__db_opts *opts,
    struct wb_err *err);
/* On one to PostgreSQL; see wb_outbox_attach_pg(). */
WB_MUST_USE enum wb_status wb__db_borrow_pg(struct wb__db **out,
    struct pg_conn *conn, const struct wb__db_opts *opts, struct wb_err *err);
void wb__db_close(struct wb__db *db);
bool wb__db_failed(const struct wb__db *db); /* see (4) */
/* The last BUSY was two transactions that stood in each other's way: the same
 * one, run again from its begin, may well pass. */
bool wb__db_clashed(const struct wb__db *db);

/* ---- transactions ------------------------------------------------------ */

enum wb__tx {
    WB__TX_NONE, /* not for begin: what is asked is asked outside of any */
    WB__TX_READ,
    WB__TX_RELAXED,
    WB__TX_FULL
};

/* On a borrowed connection inside the caller's transaction this is a
 * savepoint, and commit makes nothing durable. BUSY: nothing begun. */
WB_MUST_USE enum wb_status wb__db_begin(
    struct wb__db *db, enum wb__tx tx, struct wb_err *err);
/* Not OK: rolled back, but for IO, which is unknown. */
WB_MUST_USE enum wb_status wb__db_commit(struct wb__db *db, struct wb_err *err);
void wb__db_rollback(struct wb__db *db);

/* ---- statements -------------------------------------------------------- */

enum wb__sql_type {
    WB__NULL,
    WB__INT,
    WB__TEXT,
    WB__BLOB
};
struct wb__val {
    enum wb__sql_type type;
    int64_t i;
    struct wb_slice s; /* TEXT, BLOB */
};

static inline struct wb__val
wb__int(int64_t i)
{
    return (struct wb__val){.type = WB__INT, .i = i};
}

/* NULL where zero means none. */
static inline struct wb__val
wb__int_or_null(int64_t i)
{
    return (struct wb__val){.type = i == 0 ? WB__NULL : WB__INT, .i = i};
}

static inline struct wb__val
wb__text(struct wb_slice s)
{
    return (struct wb__val){.type = WB__TEXT, .s = s};
}

static inline struct wb__val
wb__text_or_null(struct wb_slice s)
{
    return (struct wb__val){.type = s.len == 0 ? WB__NULL : WB__TEXT, .s = s};
}

static inline struct wb__val
wb__blob(struct wb_slice s)
{
    return (struct wb__val){.type = WB__BLOB, .s = s};
}

/* The arguments of a statement: WB__ARGS(wb__int(1), wb__text(s)). */
struct wb__args {
    const struct wb__val *val;
    size_t n;
};
#define WB__ARGS(...)                                         \
    ((struct wb__args){(const struct wb__val[]){__VA_ARGS__}, \
        sizeof((struct wb__val[]){__VA_ARGS__}) / sizeof(struct wb__val)})
#define WB__NO_ARGS ((struct wb__args){NULL, 0})

/* Run a statement for its rows: start, then next until it is not OK (EMPTY:
 * no more), then end, which must always follow a start. A statement is its
 * own cursor: no two walks over one at a time. */
WB_MUST_USE enum wb_status wb__db_start(struct wb__db *db, enum wb__sql sql,
    struct wb__args args, struct wb_err *err);
WB_MUST_USE enum wb_status wb__db_next(
    struct wb__db *db, enum wb__sql sql, struct wb_err *err);
void wb__db_end(struct wb__db *db, enum wb__sql sql);

/* Columns of the current row; slices are borrowed until next or end. */
struct wb_slice wb__db_slice(struct wb__db *db, enum wb__sql sql, int column);
int64_t wb__db_int(struct wb__db *db, enum wb__sql sql, int column);
bool wb__db_null(struct wb__db *db, enum wb__sql sql, int column);

/* Run a statement that gives no rows. *changed (may be NULL): rows inserted,
 * updated or deleted by it, triggers not counted. */
WB_MUST_USE enum wb_status wb__db_run(struct wb__db *db, enum wb__sql sql,
    struct wb__args args, int64_t *changed, struct wb_err *err);

/* First column of the first row, or EMPTY. */
WB_MUST_USE enum wb_status wb__db_one_int(struct wb__db *db, enum wb__sql sql,
    struct wb__args args, int64_t *value, struct wb_err *err);

/* The wall clock: of the server, if it was asked for and there is one, as it
 * was when the transaction began, or at this call outside of any. The last time
 * known if the server cannot be asked: nothing is over too early for it. */
int64_t wb__db_now(struct wb__db *db);

/* The seq of the row that the last INSERT made. */
int64_t wb__db_last_seq(struct wb__db *db);

/* Bytes in use, as cheaply as the engine knows them. PostgreSQL counts the room
 * of deleted rows too, until it is used again. */
WB_MUST_USE enum wb_status wb__db_bytes(
    struct wb__db *db, int64_t *bytes, struct wb_err *err);

/* ---- around it --------------------------------------------------------- */

/* The lock of drains, slot 0.. WB__DRAIN_SLOTS - 1; freed when the process
 * dies; of any thread, also while another one runs a transaction. A drain that
 * does not get it sets the flag, and whoever held it looks again after having
 * unlocked. */
enum {
    WB__DRAIN_SLOTS = 32
};
WB_MUST_USE bool wb__db_drain_try(struct wb__db *db, int slot);
void wb__db_drain_free(struct wb__db *db, int slot);
void wb__db_drain_flag_set(struct wb__db *db, bool on);
bool wb__db_drain_flag(struct wb__db *db);

/* The commit of the transaction that is open makes work for workers. */
void wb__db_wake(struct wb__db *db);
/* Files that tell a worker so, NULL if the engine has none; to be watched,
 * never opened. wake changes right after a commit of this library; log while
 * anybody writes, whose commit then comes a little later. */
struct wb__watch {
    const char *wake, *log;
};
struct wb__watch wb__db_watch(struct wb__db *db);
/* The database's own path, NULL if it has none. */
const char *wb__db_path(struct wb__db *db);

/* Copy to a new file, online; the copy gets a new incarnation when opened. */
WB_MUST_USE enum wb_status wb__db_backup(
    struct wb__db *db, const char *path, struct wb_err *err);

struct wb_health;
WB_MUST_USE enum wb_status wb__db_health(
    struct wb__db *db, struct wb_health *health, struct wb_err *err);

#endif /* WB_SRC_DB_DB_H */
