/* sql_run.c - how a job of the SQL backend is run.
 *
 * (1) Everything that writes goes through one connection, in groups that share
 *     a commit.
 * (2) A read does not wait for the commits of others: while somebody is at
 *     the connection it takes another one, opened when first needed. */
#include "idem/sql.h"

/* Any order will do, if it is the same in every process. */
static uint64_t
order_of(const struct wb_idem_op *op)
{
    const struct wb_slice name[] = {op->identity, op->scope, op->key};
    uint64_t hash[2] = {0, 0};

    for (size_t i = 0; i < WB_COUNT(name); i++)
        hash[0] = wb__siphash(hash, name[i].ptr, name[i].len);
    return hash[0];
}

enum wb_status
wb__sql_write(struct wb__idem_job *job, struct wb_err *err)
{
    if (job->op != NULL)
        job->job.order = order_of(job->op);
    return wb__commit_group_run(&job->sql->group, &job->job, err);
}

struct wb__db_opts
wb__sql_db_opts(const struct wb__idem_sql *sql)
{
    return (struct wb__db_opts){.env = sql->face.env,
        .busy_ms = sql->face.opts.busy_ms,
        /* A clock that the caller brought along is the clock. */
        .server_clock = sql->face.env->wall_ms == wb_env_system()->wall_ms,
        .allow_network_fs = sql->face.opts.allow_network_fs};
}

/* With the lock of readers held; NULL if it cannot be opened. */
static struct wb__db *
get_reader(struct wb__idem_sql *sql)
{
    struct wb__db_opts opts = wb__sql_db_opts(sql);

    opts.existing = true;
    if (sql->reader == NULL &&
        wb__db_open(&sql->reader, sql->url, &opts, NULL) != WB_OK)
        sql->reader = NULL;
    return sql->reader;
}

/* One statement needs no BEGIN. */
static enum wb_status
read_beside(struct wb__idem_job *job, bool *done, struct wb_err *err)
{
    struct wb__idem_sql *sql = job->sql;
    struct wb__db *db;
    enum wb_status rc = WB_OK;

    wb__mutex_lock(&sql->reading);
    db = get_reader(sql);
    *done = db != NULL;
    if (db != NULL)
        rc = job->job.run(db, &job->job, err);
    if (rc == WB_UNAVAILABLE) { /* only a begin connects again */
        wb__db_close(db);
        sql->reader = NULL;
        *done = false;
    }
    wb__mutex_unlock(&sql->reading);
    return rc;
}

enum wb_status
wb__sql_read(struct wb__idem_job *job, struct wb_err *err)
{
    struct wb__commit_group *group = &job->sql->group;
    enum wb__tx tx = job->job.tx;
    enum wb_status rc = WB_OK;
    bool done;

    job->job.tx = WB__TX_READ;
    done = wb__commit_group_try(group, &job->job, err);
    if (done)
        rc = job->job.status;
    else if (!job->sql->face.borrowed)
        rc = read_beside(job, &done, err);
    if (!done)
        rc = wb__commit_group_run(group, &job->job, err);
    job->job.tx = tx;
    return rc;
}
