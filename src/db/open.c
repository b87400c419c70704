/* open.c - which engine a url means. */
#include "db/engine.h"

#ifndef WB_LIBPQ
static enum wb_status
not_built(struct wb_err *err)
{
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "PostgreSQL is not built into this libwaybill; give the path of a "
        "SQLite file");
}
#endif

enum wb_status
wb__db_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    if (!wb__db_is_postgres(url))
        return wb__sqlite_open(out, url, opts, err);
#ifdef WB_LIBPQ
    return wb__postgres_open(out, url, opts, err);
#else
    return not_built(err);
#endif
}

bool
wb__db_is_postgres(const char *url)
{
    struct wb_slice s = wb_slice(url);

    return wb__starts(s, WB_LIT("postgres://")) ||
           wb__starts(s, WB_LIT("postgresql://"));
}

enum wb_status
wb__db_borrow(struct wb__db **out, struct sqlite3 *sqlite, bool adopt,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    return wb__sqlite_borrow(out, sqlite, adopt, opts, err);
}

enum wb_status
wb__db_borrow_pg(struct wb__db **out, struct pg_conn *conn,
    const struct wb__db_opts *opts, struct wb_err *err)
{
#ifdef WB_LIBPQ
    return wb__postgres_borrow(out, conn, opts, err);
#else
    (void)out;
    (void)conn;
    (void)opts;
    return not_built(err);
#endif
}
