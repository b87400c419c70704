/* open.c - which engine a url means. */
#include "db/engine.h"

enum wb_status
wb__db_open(struct wb__db **out, const char *url,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb_slice s = wb_slice(url);

    if (wb__starts(s, WB_LIT("postgres://")) ||
        wb__starts(s, WB_LIT("postgresql://")))
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "PostgreSQL is not built into this libwaybill; give the path of "
            "a SQLite file");
    return wb__sqlite_open(out, url, opts, err);
}

enum wb_status
wb__db_borrow(struct wb__db **out, struct sqlite3 *sqlite, bool adopt,
    const struct wb__db_opts *opts, struct wb_err *err)
{
    return wb__sqlite_borrow(out, sqlite, adopt, opts, err);
}
