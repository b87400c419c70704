/* open.c - which engine a url names. */
#include "db/sqlite.h"

const struct wb__db_opener *wb__db_postgres;

static enum wb_status
no_postgres(struct wb_err *err)
{
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "PostgreSQL is not in this program; link libwaybill too (pkg-config "
        "waybill), built with libpq; or give the path of a SQLite file");
}

/* The length of SCHEME in SCHEME://..., which nobody means as a path; else 0.
 */
static size_t
scheme_len(struct wb_slice url)
{
    size_t n = 0;

    while (n < url.len && url.ptr[n] != '/' && url.ptr[n] != ':')
        n++;
    return wb__starts(wb__from(url, n), WB_LIT("://")) ? n : 0;
}

enum wb_status
wb__db_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    int scheme = (int)scheme_len(wb_slice(url));

    if (!wb__db_is_postgres(url) && scheme > 0)
        return wb__fail(err, WB_INVALID, 0,
            "%.*s:// is no kind of database; give a path, or postgres://...",
            scheme, url); /* the rest may hold a password */
    if (!wb__db_is_postgres(url))
        return wb__sqlite_open(out, url, opts, err);
    if (wb__db_postgres == NULL)
        return no_postgres(err);
    return wb__db_postgres->open(out, url, opts, err);
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
    if (wb__db_postgres == NULL)
        return no_postgres(err);
    return wb__db_postgres->borrow(out, conn, opts, err);
}
