/* db.c - the face: refuses a FAILED connection, hands on to the engine. */
#include "db/db.h"

#include "db/engine.h"

void
wb__db_close(struct wb__db *db)
{
    if (db != NULL)
        db->engine->close(db);
}

bool
wb__db_failed(const struct wb__db *db)
{
    return db->failed;
}

bool
wb__db_clashed(const struct wb__db *db)
{
    return db->clash;
}

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

    db->clash = false;
    return rc != WB_OK ? rc : db->engine->begin(db, tx, err);
}

enum wb_status
wb__db_commit(struct wb__db *db, struct wb_err *err)
{
    return db->engine->commit(db, err);
}

void
wb__db_rollback(struct wb__db *db)
{
    db->engine->rollback(db);
}

enum wb_status
wb__db_start(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    struct wb_err *err)
{
    enum wb_status rc = check_failed(db, err);

    return rc != WB_OK ? rc : db->engine->start(db, sql, args, err);
}

enum wb_status
wb__db_next(struct wb__db *db, enum wb__sql sql, struct wb_err *err)
{
    return db->engine->next(db, sql, err);
}

void
wb__db_end(struct wb__db *db, enum wb__sql sql)
{
    db->engine->end(db, sql);
}

struct wb_slice
wb__db_slice(struct wb__db *db, enum wb__sql sql, int column)
{
    return db->engine->slice(db, sql, column);
}

int64_t
wb__db_int(struct wb__db *db, enum wb__sql sql, int column)
{
    return db->engine->integer(db, sql, column);
}

bool
wb__db_null(struct wb__db *db, enum wb__sql sql, int column)
{
    return db->engine->null(db, sql, column);
}

enum wb_status
wb__db_run(struct wb__db *db, enum wb__sql sql, struct wb__args args,
    int64_t *changed, struct wb_err *err)
{
    enum wb_status rc = wb__db_start(db, sql, args, err);

    if (rc != WB_OK)
        return rc;
    do
        rc = wb__db_next(db, sql, err);
    while (rc == WB_OK);
    if (rc == WB_EMPTY && changed != NULL)
        *changed = db->engine->changed(db, sql);
    wb__db_end(db, sql);
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

int64_t
wb__db_now(struct wb__db *db)
{
    const struct wb_env *env = db->opts.env;

    if (db->opts.server_clock && db->engine->now != NULL)
        return db->engine->now(db);
    return env->wall_ms(env->ctx);
}

int64_t
wb__db_last_seq(struct wb__db *db)
{
    return db->engine->last_seq(db);
}

enum wb_status
wb__db_bytes(struct wb__db *db, int64_t *bytes, struct wb_err *err)
{
    return db->engine->bytes(db, bytes, err);
}

/* A lock is the handle's: who has it already would be given it again. */
bool
wb__db_drain_try(struct wb__db *db, int slot)
{
    uint32_t place;

    WB_ASSERT(slot >= 0 && slot < WB__DRAIN_SLOTS);
    place = UINT32_C(1) << slot;
    if ((atomic_fetch_or(&db->places, place) & place) != 0)
        return false;
    if (db->engine->drain_try(db, slot))
        return true;
    atomic_fetch_and(&db->places, ~place);
    return false;
}

void
wb__db_drain_free(struct wb__db *db, int slot)
{
    db->engine->drain_free(db, slot);
    atomic_fetch_and(&db->places, ~(UINT32_C(1) << slot));
}

void
wb__db_drain_flag_set(struct wb__db *db, bool on)
{
    db->engine->drain_flag_set(db, on);
}

bool
wb__db_drain_flag(struct wb__db *db)
{
    return db->engine->drain_flag(db);
}

void
wb__db_wake(struct wb__db *db)
{
    db->engine->wake(db);
}

struct wb__watch
wb__db_watch(struct wb__db *db)
{
    return db->engine->watch(db);
}

const char *
wb__db_path(struct wb__db *db)
{
    return db->engine->path(db);
}

enum wb_status
wb__db_backup(struct wb__db *db, const char *path, struct wb_err *err)
{
    enum wb_status rc = check_failed(db, err);

    return rc != WB_OK ? rc : db->engine->backup(db, path, err);
}

enum wb_status
wb__db_health(struct wb__db *db, struct wb_health *health, struct wb_err *err)
{
    return db->engine->health(db, health, err);
}
