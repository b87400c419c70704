/* sql.c - the store in a SQL database: open, close, borrow. */
#include "idem/sql.h"

static void
sql_close(struct wb_idem *store)
{
    struct wb__idem_sql *sql = (struct wb__idem_sql *)store;

    wb__idem_fini(store);
    wb__commit_group_fini(&sql->group);
    wb__mutex_fini(&sql->waiting);
    wb__mutex_fini(&sql->reading);
    wb__db_close(sql->reader);
    wb__db_close(sql->group.db);
    wb__free(store->env, sql->url);
    wb__free(store->env, sql);
}

static const struct wb__idem_backend sql_backend = {
    .close = sql_close,
    .begin = wb__sql_begin,
    .complete = wb__sql_complete,
    .release = wb__sql_release,
    .extend = wb__sql_extend,
    .mark = wb__sql_mark,
    .settle = wb__sql_settle,
    .lookup = wb__sql_lookup,
    .store = wb__sql_store,
    .peek = wb__sql_peek,
    .forget = wb__sql_forget,
    .list = wb__sql_list,
    .reap = wb__sql_reap,
    .many = wb__sql_many,
};

static struct wb__idem_sql *
sql_new(const struct wb_idem_opts *opts)
{
    const struct wb_env *env =
        opts == NULL || opts->env == NULL ? wb_env_system() : opts->env;
    struct wb__idem_sql *sql = wb__alloc(env, sizeof(*sql));

    if (sql == NULL)
        return NULL;
    wb__idem_init(&sql->face, &sql_backend, opts);
    /* Times are added up in the database. */
    sql->face.opts.hold_ms = wb__sql_time(sql->face.opts.hold_ms, 0);
    wb__commit_group_init(&sql->group, NULL);
    wb__mutex_init(&sql->waiting);
    wb__mutex_init(&sql->reading);
    return sql;
}

static bool
copy_url(struct wb__idem_sql *sql, const char *url)
{
    size_t size = strlen(url) + 1;

    sql->url = wb__alloc(sql->face.env, size);
    if (sql->url != NULL)
        memcpy(sql->url, url, size);
    return sql->url != NULL;
}

enum wb_status
wb_idem_open(struct wb_idem **out, const char *url,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    struct wb__idem_sql *sql = sql_new(opts);
    struct wb__db_opts o;
    enum wb_status rc;

    if (sql == NULL)
        return wb__nomem(err, "a store");
    o = wb__sql_db_opts(sql);
    if (copy_url(sql, url))
        rc = wb__db_open(&sql->group.db, url, &o, err);
    else
        rc = wb__nomem(err, "a store");
    if (rc == WB_OK)
        *out = &sql->face;
    else
        sql_close(&sql->face);
    return rc;
}

static enum wb_status
borrow(struct wb_idem **out, struct sqlite3 *db, bool adopt,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    struct wb__idem_sql *sql = sql_new(opts);
    struct wb__db_opts o;
    enum wb_status rc;

    if (sql == NULL)
        return wb__nomem(err, "a store");
    sql->face.borrowed = true;
    o = wb__sql_db_opts(sql);
    rc = wb__db_borrow(&sql->group.db, db, adopt, &o, err);
    if (rc == WB_OK)
        *out = &sql->face;
    else
        sql_close(&sql->face);
    return rc;
}

enum wb_status
wb_idem_adopt(struct wb_idem **out, struct sqlite3 *db,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    return borrow(out, db, true, opts, err);
}

enum wb_status
wb_idem_attach(struct wb_idem **out, struct sqlite3 *db,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    return borrow(out, db, false, opts, err);
}
