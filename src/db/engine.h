/* engine.h - what an engine provides; db.c calls it. */
#ifndef WB_SRC_DB_ENGINE_H
#define WB_SRC_DB_ENGINE_H

#include <stdatomic.h>

#include "db/db.h"
#include "waybill/outbox.h"

struct wb__engine {
    bool side_by_side; /* transactions run so, and may deadlock */
    void (*close)(struct wb__db *db);
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
    int64_t (*now)(struct wb__db *db); /* NULL: no clock of its own */
    enum wb_status (*bytes)(
        struct wb__db *db, int64_t *bytes, struct wb_err *err);
    bool (*drain_try)(struct wb__db *db, int slot);
    void (*drain_free)(struct wb__db *db, int slot);
    void (*drain_flag_set)(struct wb__db *db, bool on);
    bool (*drain_flag)(struct wb__db *db);
    void (*wake)(struct wb__db *db);
    struct wb__watch (*watch)(struct wb__db *db);
    const char *(*path)(struct wb__db *db);
    enum wb_status (*backup)(
        struct wb__db *db, const char *path, struct wb_err *err);
    enum wb_status (*health)(
        struct wb__db *db, struct wb_health *health, struct wb_err *err);
};

/* First member of every engine's connection. */
struct wb__db {
    const struct wb__engine *engine;
    struct wb__db_opts opts;
    bool failed;             /* a write or sync failed: see db.h (4) */
    bool clash;              /* see wb__db_clashed() */
    _Atomic uint32_t places; /* of drains, taken through this handle */
};

WB_MUST_USE enum wb_status wb__sqlite_open(struct wb__db **out,
    const char *path, const struct wb__db_opts *opts, struct wb_err *err);
WB_MUST_USE enum wb_status wb__sqlite_borrow(struct wb__db **out,
    struct sqlite3 *handle, bool adopt, const struct wb__db_opts *opts,
    struct wb_err *err);

/* How a connection to PostgreSQL is had. The engine is in libwaybill, which
 * sets this when it is loaded (wb__postgres_add); NULL: the program has the
 * core alone, or libpq was missing when libwaybill was built. */
struct wb__db_opener {
    enum wb_status (*open)(struct wb__db **out, const char *url,
        const struct wb__db_opts *opts, struct wb_err *err);
    enum wb_status (*borrow)(struct wb__db **out, struct pg_conn *conn,
        const struct wb__db_opts *opts, struct wb_err *err);
};
extern const struct wb__db_opener *wb__db_postgres;

#endif /* WB_SRC_DB_ENGINE_H */
