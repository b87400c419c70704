/* open.c - open or borrow a connection; which engine a url names. */
#include "db/sqlite.h"

const struct wb__db_opener *wb__db_postgres;

static enum wb_status
no_postgres(struct wb_err *err)
{
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "PostgreSQL is not in this program; link libwaybill too (pkg-config "
        "waybill), built with libpq; or give the path of a SQLite file");
}

/* No path looks so: a file would be made that is named after a password. */
static bool
may_be_conninfo(const char *url)
{
    const char *at = strstr(url, "password");

    if (at != NULL) {
        at += strlen("password");
        at += strspn(at, " ");
    }
    return (at != NULL && *at == '=') ||
           wb__starts(wb_slice(url), WB_LIT("postgres:")) ||
           wb__starts(wb_slice(url), WB_LIT("postgresql:"));
}

enum wb_status
wb__db_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    size_t scheme = strcspn(url, "/:");

    if (!wb__db_is_postgres(url) && may_be_conninfo(url))
        return wb__fail(err, WB_INVALID, 0,
            "this is neither a path nor a URL (it is not shown, as it may hold "
            "a password); give postgres://USER:PASSWORD@HOST:PORT/DATABASE, or "
            "postgres://?service=NAME");
    if (wb__db_is_postgres(url))
        return wb__db_postgres != NULL
                   ? wb__db_postgres->open(out, url, opts, err)
                   : no_postgres(err);
    if (scheme > 0 && wb__starts(wb_slice(url + scheme), WB_LIT("://")))
        return wb__fail(err, WB_INVALID, 0,
            "%.*s:// is no kind of database; give a path, or postgres://...",
            (int)scheme, url); /* the rest may hold a password */
    return wb__sqlite_open(out, url, opts, err);
}

bool
wb__db_is_postgres(const char *url)
{
    struct wb_slice s = wb_slice(url);

    return wb__starts(s, WB_LIT("postgres://")) ||
           wb__starts(s, WB_LIT("postgresql://"));
}

bool
wb__db_file_name(const char *path, char *out, size_t size)
{
    return wb__file_real(path, out, size);
}

enum wb_status
wb__db_borrow_pg(struct wb__db **out, struct pg_conn *conn,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    return wb__db_postgres != NULL
               ? wb__db_postgres->borrow(out, conn, opts, err)
               : no_postgres(err);
}
