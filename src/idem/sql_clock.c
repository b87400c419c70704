/* sql_clock.c - the time by which leases end and records expire.
 *
 * (1) In PostgreSQL it is the server's clock; and a clock that the caller gave
 *     is the clock.
 * (2) In a SQLite file it does not step. It is the time since the machine was
 *     started, plus what the wall clock was ahead of that when the file was
 *     first written since. That offset is in the file: processes that see
 *     different wall clocks agree.
 * (3) After a restart of the machine it is the wall clock again. */
#include <stdio.h>

#include "idem/sql.h"
#include "os/os.h"

#define CLOCK wb__text(WB_LIT("clock"))

/* "<boot> <offset>". EMPTY: none since the machine was started. */
static enum wb_status
read_offset(const struct wb__idem_sql *sql, struct wb__db *db, int64_t *ms,
    struct wb_err *err)
{
    const enum wb__sql get = WB__SQL_META_GET;
    enum wb_status rc = wb__db_start(db, get, WB__ARGS(CLOCK), err);
    struct wb_slice value, boot;
    uint64_t n = 0;

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, get, err);
    if (rc == WB_OK) {
        value = wb__db_slice(db, get, 0);
        if (!wb__cut(&value, ' ', &boot) ||
            !wb__eq(boot, wb_slice(sql->clock.boot)) ||
            !wb__parse_u64(value, INT64_MAX / 2, &n))
            rc = WB_EMPTY;
    }
    wb__db_end(db, get);
    *ms = (int64_t)n;
    return rc;
}

static void
use_offset(struct wb__idem_sql *sql, int64_t ms)
{
    atomic_store(&sql->clock.offset_ms, ms);
    /* In a transaction of the caller's it may be rolled back. */
    atomic_store(&sql->clock.known, !sql->base.borrowed);
}

void
wb__sql_clock_init(struct wb__idem_sql *sql)
{
    struct wb__db *db = sql->group.db;
    int64_t ms;

    if (!db->opts.server_clock || db->engine->now != NULL ||
        !wb__boot_name(sql->clock.boot))
        sql->clock.boot[0] = '\0';
    else if (!sql->base.borrowed && read_offset(sql, db, &ms, NULL) == WB_OK)
        use_offset(sql, ms);
}

enum wb_status
wb__sql_clock_set(
    struct wb__idem_sql *sql, struct wb__db *db, struct wb_err *err)
{
    char value[96];
    int64_t ms = 0;
    enum wb_status rc;

    if (sql->clock.boot[0] == '\0' || atomic_load(&sql->clock.known))
        return WB_OK;
    rc = read_offset(sql, db, &ms, err);
    if (rc == WB_OK)
        use_offset(sql, ms);
    if (rc != WB_EMPTY)
        return rc;
    ms = wb__db_now(db) - wb__boot_ms();
    ms = ms > 0 ? ms : 1; /* the wall clock was not set yet */
    atomic_store(&sql->clock.offset_ms, ms);
    (void)snprintf(
        value, sizeof(value), "%s %lld", sql->clock.boot, (long long)ms);
    return wb__db_run(db, WB__SQL_META_SET,
        WB__ARGS(CLOCK, wb__text(wb_slice(value))), NULL, err);
}

int64_t
wb__sql_now(const struct wb_idem *store, struct wb__db *db)
{
    const struct wb__sql_clock *clock =
        &((const struct wb__idem_sql *)store)->clock;
    int64_t offset_ms = atomic_load(&clock->offset_ms);

    if (clock->boot[0] == '\0' || offset_ms == 0)
        return wb__db_now(db);
    return wb__boot_ms() + offset_ms;
}
