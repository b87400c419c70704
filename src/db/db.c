/* db.c - what both engines have in common: refuse a FAILED connection, run a
 * statement, drain slots. */
#include "db/db.h"

/* ---- transactions and statements --------------------------------------- */

static enum wb_status
check_failed(struct wb__db *db, struct wb_err *err)
{
    if (!db->failed)
        return WB_OK;
    return wb__fail(err, WB_IO, 0,
        "a write failed before; close the store and open it again");
}

enum wb_status
wb__db_begin(struct wb__db *db, enum wb__tx tx, struct wb_err *err)
{
    enum wb_status rc = check_failed(db, err);

    WB_ASSERT(tx != WB__TX_NONE);
    db->clash = false;
    return rc != WB_OK ? rc : db->engine->begin(db, tx, err);
}

enum wb_status
wb__db_start(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    struct wb_err *err)
{
    enum wb_status rc = check_failed(db, err);

    return rc != WB_OK ? rc : db->engine->start(db, sql, args, err);
}

enum wb_status
wb__db_run(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    int64_t *changed, struct wb_err *err)
{
    const struct wb__engine *engine = db->engine;
    enum wb_status rc = wb__db_start(db, sql, args, err);

    if (rc != WB_OK)
        return rc;
    do
        rc = engine->next(db, sql, err);
    while (rc == WB_OK);
    if (rc == WB_EMPTY && changed != NULL)
        *changed = engine->changed(db, sql);
    engine->end(db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

enum wb_status
wb__db_one_int(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    int64_t *value, struct wb_err *err)
{
    enum wb_status rc = wb__db_start(db, sql, args, err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        *value = wb__db_int(db, sql, 0);
    wb__db_end(db, sql);
    return rc;
}

enum wb_status
wb__db_backup(struct wb__db *db, const char *path, struct wb_err *err)
{
    enum wb_status rc = check_failed(db, err);

    return rc != WB_OK ? rc : db->engine->backup(db, path, err);
}

enum wb_status
wb__db_compact(
    struct wb__db *db, int64_t *before, int64_t *after, struct wb_err *err)
{
    enum wb_status rc = check_failed(db, err);

    if (rc == WB_OK && db->engine->compact == NULL)
        return wb__fail(
            err, WB_INVALID, 0, "PostgreSQL does this by itself (autovacuum)");
    return rc != WB_OK ? rc : db->engine->compact(db, before, after, err);
}

/* ---- clock, drains ----------------------------------------------------- */

static int64_t
now_of(struct wb__db *db, bool may_ask)
{
    const struct wb_env *env = db->opts.env;

    if (db->opts.server_clock && db->engine->now != NULL)
        return db->engine->now(db, may_ask);
    return env->wall_ms(env->ctx);
}

int64_t
wb__db_now(struct wb__db *db)
{
    return now_of(db, true);
}

int64_t
wb__db_now_any(struct wb__db *db)
{
    return now_of(db, false);
}

/* An engine's lock belongs to the handle, which would get it a second time: so
 * a bit for each slot says that this handle has it. */
bool
wb__db_drain_try(struct wb__db *db, int slot)
{
    uint32_t bit;

    WB_ASSERT(slot >= 0 && slot < WB__DRAIN_SLOTS);
    bit = UINT32_C(1) << slot;
    if ((atomic_fetch_or(&db->drain_slots, bit) & bit) != 0)
        return false;
    if (db->engine->drain_try(db, slot))
        return true;
    atomic_fetch_and(&db->drain_slots, ~bit);
    return false;
}

void
wb__db_drain_free(struct wb__db *db, int slot)
{
    db->engine->drain_free(db, slot);
    atomic_fetch_and(&db->drain_slots, ~(UINT32_C(1) << slot));
}
