/* db.h - one SQL interface over two engines, SQLite and PostgreSQL.
 *
 * A connection runs the statements of sql.h, one thread at a time. No module
 * above this one depends on which engine it is.
 *
 * (1) What a FULL transaction committed survives a power cut.
 * (2) What a RELAXED one committed survives a crash of the process; a power
 *     cut may undo it, whole, together with later relaxed ones only.
 * (3) A call that fails inside a transaction leaves the rollback to the caller.
 *     Nothing of the transaction stays.
 * (4) When a write transaction, a COMMIT or a checkpoint meets an I/O error the
 *     connection is FAILED: every later call returns IO and writes nothing. A
 *     full disk is not such an error: it is FULL, and rolled back. Neither is a
 *     read outside of a write transaction that fails. */
#ifndef WB_SRC_DB_DB_H
#define WB_SRC_DB_DB_H

#include <stdatomic.h>

#include "base/base.h"
#include "db/sql.h"

struct wb__db;
struct wb_health;
struct sqlite3;
struct pg_conn;

struct wb__db_opts {
    const struct wb_env *env;
    int64_t busy_ms;
    bool existing;     /* never create */
    bool read_only;    /* existing, and nothing is changed, not even tables */
    bool older;        /* read_only: tables of an older version, too */
    bool empty;        /* a file that is not there is an empty one in memory */
    bool server_clock; /* see wb__db_now() */
    bool allow_network_fs;
};

/* url: a postgres:// one, or else the path of a SQLite file. */
WB_MUST_USE enum wb_status wb__db_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err);
bool wb__db_is_postgres(const char *url);
/* The path by which a database that is open has its files, for the path that
 * was given: absolute, without links. False: there is no such file. */
WB_MUST_USE bool wb__db_file_name(const char *path, char *out, size_t size);

/* How to open a connection to PostgreSQL. The engine is in libwaybill, which
 * sets this when it is loaded (wb__postgres_add); NULL: the program has the
 * core alone, or libpq was missing when libwaybill was built. */
struct wb__db_opener {
    enum wb_status (*open)(struct wb__db **out, const char *url,
        const struct wb__db_opts *opts, struct wb_err *err);
    enum wb_status (*borrow)(struct wb__db **out, struct pg_conn *conn,
        const struct wb__db_opts *opts, struct wb_err *err);
};
extern const struct wb__db_opener *wb__db_postgres;

/* Use a connection of the caller's; see wb_outbox_adopt(). With adopt false
 * nothing is changed, and a connection that does not fit is refused. */
WB_MUST_USE enum wb_status wb__db_borrow(struct wb__db **out,
    struct sqlite3 *sqlite, bool adopt, const struct wb__db_opts *opts,
    struct wb_err *err);
/* The same for one to PostgreSQL; see wb_outbox_attach_pg(). */
WB_MUST_USE enum wb_status wb__db_borrow_pg(struct wb__db **out,
    struct pg_conn *conn, const struct wb__db_opts *opts, struct wb_err *err);

enum wb__tx {
    WB__TX_NONE, /* not for begin: what runs needs no transaction */
    WB__TX_READ,
    WB__TX_RELAXED,
    WB__TX_FULL
};

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

/* The arguments of a statement: WB__ARGS(wb__int(1), wb__text(s)). */
struct wb__args {
    const struct wb__val *val;
    size_t n;
};
#define WB__ARGS(...)                                         \
    ((struct wb__args){(const struct wb__val[]){__VA_ARGS__}, \
        sizeof((struct wb__val[]){__VA_ARGS__}) / sizeof(struct wb__val)})
#define WB__NO_ARGS ((struct wb__args){NULL, 0})

/* Files to watch for work, NULL if the engine has none; they are never opened.
 * wake changes right after a commit of this library. log changes while any
 * program writes; its commit comes a little later. */
struct wb__watch {
    const char *wake, *log;
};

/* ---- what an engine provides --------------------------------------------
 * The functions below this table call it; they say what each entry does. */
struct wb__engine {
    bool side_by_side; /* write transactions run so, and may deadlock */
    void (*close)(struct wb__db *db);
    /* Whether the open database is still the one that its name names. Any
     * thread. NULL: it always is. */
    enum wb_status (*check)(struct wb__db *db, struct wb_err *err);
    enum wb_status (*begin)(
        struct wb__db *db, enum wb__tx tx, struct wb_err *err);
    enum wb_status (*commit)(struct wb__db *db, struct wb_err *err);
    void (*rollback)(struct wb__db *db);
    enum wb_status (*start)(struct wb__db *db, enum wb__sql sql,
        struct wb__args args, struct wb_err *err);
    enum wb_status (*next)(
        struct wb__db *db, enum wb__sql sql, struct wb_err *err);
    void (*end)(struct wb__db *db, enum wb__sql sql);
    struct wb_slice (*slice)(struct wb__db *db, enum wb__sql sql, int column);
    int64_t (*integer)(struct wb__db *db, enum wb__sql sql, int column);
    bool (*null)(struct wb__db *db, enum wb__sql sql, int column);
    int64_t (*changed)(struct wb__db *db, enum wb__sql sql);
    int64_t (*last_seq)(struct wb__db *db);
    /* SQL as text, not from sql.h: statements without rows, and the first
     * column of the first row as text, cut to fit, "" without a row. */
    enum wb_status (*exec)(
        struct wb__db *db, const char *sql, struct wb_err *err);
    enum wb_status (*text)(struct wb__db *db, const char *sql, char *out,
        size_t size, struct wb_err *err);
    /* NULL: no clock of its own. may_ask: the caller uses the connection. */
    int64_t (*now)(struct wb__db *db, bool may_ask);
    enum wb_status (*bytes)(
        struct wb__db *db, int64_t *bytes, struct wb_err *err);
    bool (*drain_try)(struct wb__db *db, int slot);
    void (*drain_free)(struct wb__db *db, int slot);
    void (*drain_flag_set)(struct wb__db *db, bool on);
    bool (*drain_flag)(struct wb__db *db);
    /* NULL: watch the files instead. */
    int (*listen)(struct wb__db *db);
    bool (*notified)(struct wb__db *db, bool *any);
    enum wb_status (*backup)(
        struct wb__db *db, const char *path, struct wb_err *err);
    /* NULL: the engine does it by itself. */
    enum wb_status (*compact)(
        struct wb__db *db, int64_t *before, int64_t *after, struct wb_err *err);
    enum wb_status (*health)(
        struct wb__db *db, struct wb_health *health, struct wb_err *err);
};

/* First member of every engine's connection. */
struct wb__db {
    const struct wb__engine *engine;
    struct wb__db_opts opts;
    bool failed; /* see (4) */
    /* The last BUSY was two transactions that blocked each other: the same one,
     * run again from its begin, may well succeed. */
    bool clash;
    bool
        wake; /* set it to wake the workers when the open transaction commits */
    bool nested;                  /* the open transaction is a caller's */
    uint32_t rollbacks;           /* of transactions, since it was opened */
    _Atomic uint32_t drain_slots; /* taken through this handle */
    /* Of the database: the absolute one without links; NULL if it has none. */
    const char *path;
    struct wb__watch watch;
};

static inline void
wb__db_close(struct wb__db *db)
{
    if (db != NULL)
        db->engine->close(db);
}

/* IO: the database was removed, renamed or replaced; see check() above. */
WB_MUST_USE static inline enum wb_status
wb__db_check(struct wb__db *db, struct wb_err *err)
{
    return db->engine->check == NULL ? WB_OK : db->engine->check(db, err);
}

/* ---- transactions ------------------------------------------------------ */

/* On a borrowed connection inside the caller's transaction this is a
 * savepoint, and commit makes nothing durable. Not OK: nothing begun. */
WB_MUST_USE enum wb_status wb__db_begin(
    struct wb__db *db, enum wb__tx tx, struct wb_err *err);

/* Not OK: rolled back, except IO, whose outcome is unknown. */
WB_MUST_USE static inline enum wb_status
wb__db_commit(struct wb__db *db, struct wb_err *err)
{
    return db->engine->commit(db, err);
}

static inline void
wb__db_rollback(struct wb__db *db)
{
    db->rollbacks++;
    db->engine->rollback(db);
}

/* ---- statements -------------------------------------------------------- */

static inline struct wb__val
wb__int(int64_t i)
{
    return (struct wb__val){.type = WB__INT, .i = i};
}

static inline struct wb__val
wb__int_or_null(int64_t i) /* 0 is NULL */
{
    return (struct wb__val){.type = i == 0 ? WB__NULL : WB__INT, .i = i};
}

static inline struct wb__val
wb__text(struct wb_slice s)
{
    return (struct wb__val){.type = WB__TEXT, .s = s};
}

static inline struct wb__val
wb__text_or_null(struct wb_slice s) /* empty is NULL */
{
    return (struct wb__val){.type = s.len == 0 ? WB__NULL : WB__TEXT, .s = s};
}

static inline struct wb__val
wb__blob(struct wb_slice s)
{
    return (struct wb__val){.type = WB__BLOB, .s = s};
}

/* Run a statement for its rows: start, then next until it is not OK (EMPTY: no
 * more rows), then end, which must follow each start that was OK. A statement
 * has one cursor: it cannot be started again before its end. */
WB_MUST_USE enum wb_status wb__db_start(struct wb__db *db, enum wb__sql sql,
    struct wb__args args, struct wb_err *err);

WB_MUST_USE static inline enum wb_status
wb__db_next(struct wb__db *db, enum wb__sql sql, struct wb_err *err)
{
    return db->engine->next(db, sql, err);
}

static inline void
wb__db_end(struct wb__db *db, enum wb__sql sql)
{
    db->engine->end(db, sql);
}

/* Columns of the current row; slices are borrowed until next or end. */
static inline struct wb_slice
wb__db_slice(struct wb__db *db, enum wb__sql sql, int column)
{
    return db->engine->slice(db, sql, column);
}

static inline int64_t
wb__db_int(struct wb__db *db, enum wb__sql sql, int column)
{
    return db->engine->integer(db, sql, column);
}

static inline bool
wb__db_null(struct wb__db *db, enum wb__sql sql, int column)
{
    return db->engine->null(db, sql, column);
}

/* Run a statement that gives no rows. *changed (may be NULL): rows inserted,
 * updated or deleted by it, triggers not counted. */
WB_MUST_USE enum wb_status wb__db_run(struct wb__db *db, enum wb__sql sql,
    struct wb__args args, int64_t *changed, struct wb_err *err);

/* First column of the first row, or EMPTY. */
WB_MUST_USE enum wb_status wb__db_one_int(struct wb__db *db, enum wb__sql sql,
    struct wb__args args, int64_t *value, struct wb_err *err);

/* The seq of the row that the last INSERT made. */
static inline int64_t
wb__db_last_seq(struct wb__db *db)
{
    return db->engine->last_seq(db);
}

/* ---- clock, size, state ------------------------------------------------ */

/* The wall clock. With server_clock, and if the engine has a server: the
 * server's, as of the last begin or at most a second ago, and the time that has
 * passed here since. It is never ahead of the server's clock, and behind it by
 * a round trip at most. */
int64_t wb__db_now(struct wb__db *db);
/* The same as of the last begin; for any thread. */
int64_t wb__db_now_any(struct wb__db *db);

/* Bytes in use, read cheaply. PostgreSQL also counts the space of deleted rows
 * until it is used again. */
WB_MUST_USE static inline enum wb_status
wb__db_bytes(struct wb__db *db, int64_t *bytes, struct wb_err *err)
{
    return db->engine->bytes(db, bytes, err);
}

/* Copy to a new file, online; the copy gets a new incarnation when opened. */
WB_MUST_USE enum wb_status wb__db_backup(
    struct wb__db *db, const char *path, struct wb_err *err);

/* Give the room of deleted rows back to the disk; bytes before and after. */
WB_MUST_USE enum wb_status wb__db_compact(
    struct wb__db *db, int64_t *before, int64_t *after, struct wb_err *err);

WB_MUST_USE static inline enum wb_status
wb__db_health(struct wb__db *db, struct wb_health *health, struct wb_err *err)
{
    return db->engine->health(db, health, err);
}

/* ---- drains and workers ------------------------------------------------ */

/* Drains take a slot each, 0 to WB__DRAIN_SLOTS - 1. The lock of a slot is
 * freed when the process dies. Any thread may call, also while another one runs
 * a transaction. A drain that does not get its slot sets the flag; the drain
 * that holds it reads the flag after it has freed the slot. */
enum {
    WB__DRAIN_SLOTS = 32
};
WB_MUST_USE bool wb__db_drain_try(struct wb__db *db, int slot);
void wb__db_drain_free(struct wb__db *db, int slot);

static inline void
wb__db_drain_flag_set(struct wb__db *db, bool on)
{
    db->engine->drain_flag_set(db, on);
}

static inline bool
wb__db_drain_flag(struct wb__db *db)
{
    return db->engine->drain_flag(db);
}

/* ---- commits of others, where no file shows them ----------------------- */

/* Until a commit is notified, so many microseconds of those that follow may
 * not be: the worker checks once more after that time. */
#define WB__NOTIFY_US 10000

/* Listen for the commits of others. -1; or, if a session has begun to listen
 * since the last call, a copy of its socket, which the caller closes: what was
 * committed before may not have been notified. Threads: that of the drain
 * slots; the session is that of the slots. */
WB_MUST_USE static inline int
wb__db_listen(struct wb__db *db)
{
    return db->engine->listen == NULL ? -1 : db->engine->listen(db);
}

/* Set *any if a commit was notified since the last call. False: the socket has
 * no more to say. */
WB_MUST_USE static inline bool
wb__db_notified(struct wb__db *db, bool *any)
{
    *any = false;
    return db->engine->notified != NULL && db->engine->notified(db, any);
}

/* ---- inside this module ------------------------------------------------ */

/* The tables of an engine; see migrate.c. */
struct wb__tables {
    const char *const *schema; /* a script for each version, from 1 */
    int version;               /* how many */
    const char *count;         /* SQL: 2 if both tables of ours are there, */
                               /* "" without any table named waybill_* */
    const char *lock; /* SQL: keeps other migrations out; NULL: begin does */
    /* Something that differs between this database and a copy of it; "" if
     * nothing is known to. What not everyone may read comes last, behind a '.',
     * and is left out where it is not known. */
    enum wb_status (*identity)(
        struct wb__db *db, char out[64], struct wb_err *err);
    const char *foreign, *missing; /* texts of errors */
};

/* Refuse, before anything is changed, tables that are not ours or are of a
 * newer version, and missing ones with opts.existing. */
WB_MUST_USE enum wb_status wb__tables_check(
    struct wb__db *db, const struct wb__tables *tables, struct wb_err *err);
/* Called each time the tables of a database are found: of which version they
 * were, 0 for none, and of which they are to be. changed: that was done. The
 * command sets it, before it opens one. Threads: that of the open. */
struct wb__tables_watch {
    void (*found)(void *ctx, int from, int to, bool changed);
    void *ctx;
};
extern struct wb__tables_watch wb__tables_watch;

/* Bring the tables up to date, unless existing; give a database that was copied
 * or restored a new incarnation. */
WB_MUST_USE enum wb_status wb__tables_migrate(struct wb__db *db,
    const struct wb__tables *tables, bool existing, struct wb_err *err);

#endif /* WB_SRC_DB_DB_H */
