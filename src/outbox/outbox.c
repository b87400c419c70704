/* outbox.c - open and close an outbox. */
#include "outbox/outbox_internal.h"

static int64_t
or_default(int64_t value, int64_t standard)
{
    return value > 0 ? value : standard;
}

/* The connection to use: one of url, sqlite and pg. */
struct connection {
    const char *url;
    struct sqlite3 *sqlite;
    bool adopt;
    struct pg_conn *pg;
};

static enum wb_status
outbox_new(struct wb_outbox **out, const struct connection *c,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    static const struct wb_outbox_opts none = {0};
    const struct wb_outbox_opts *given = opts == NULL ? &none : opts;
    const struct wb_env *env =
        given->env == NULL ? wb_env_system() : given->env;
    struct wb_outbox *box = wb__alloc(env, sizeof(*box));
    struct wb__db_opts o = {.env = env,
        .busy_ms = or_default(given->busy_ms, 5000),
        .existing = given->existing || given->read_only || given->empty,
        .read_only = given->read_only,
        .older = given->older,
        .empty = given->empty,
        /* A clock that the caller gave is the clock. */
        .server_clock = env->wall_ms == wb_env_system()->wall_ms,
        .allow_network_fs = given->allow_network_fs};
    enum wb_status rc;

    if (box == NULL)
        return wb__nomem(err, c->url != NULL ? "open" : "attach");
    if (given->on_abandoned.len > 0 &&
        wb__kind_check(given->on_abandoned, err) != WB_OK) {
        wb__free(env, box);
        return WB_INVALID;
    }
    box->env = env;
    box->borrowed = c->url == NULL;
    box->opts = *given;
    if (given->on_abandoned.len > 0)
        memcpy(box->on_abandoned, given->on_abandoned.ptr,
            given->on_abandoned.len);
    box->opts.busy_ms = o.busy_ms;
    box->opts.max_payload_bytes = or_default(given->max_payload_bytes, 1 << 20);
    box->opts.keep_delivered_ms =
        or_default(given->keep_delivered_ms, 7LL * 86400000);
    box->opts.keep_abandoned_ms =
        or_default(given->keep_abandoned_ms, 30LL * 86400000);
    atomic_init(&box->last_claim_empty, true);
    if (c->url != NULL)
        rc = wb__db_open(&box->db, c->url, &o, err);
    else if (c->pg != NULL)
        rc = wb__db_borrow_pg(&box->db, c->pg, &o, err);
    else
        rc = wb__db_borrow(&box->db, c->sqlite, c->adopt, &o, err);
    if (rc == WB_OK && c->url != NULL) {
        box->url = wb__alloc(env, strlen(c->url) + 1);
        rc = box->url == NULL ? wb__nomem(err, "open") : WB_OK;
    }
    if (rc != WB_OK) {
        wb__db_close(box->db);
        wb__free(env, box);
        return rc;
    }
    if (box->url != NULL)
        memcpy(box->url, c->url, strlen(c->url) + 1);
    wb__commit_group_init(&box->group, box->db);
    *out = box;
    return WB_OK;
}

enum wb_status
wb_outbox_open(struct wb_outbox **out, const char *url,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    return outbox_new(out, &(struct connection){.url = url}, opts, err);
}

enum wb_status
wb_outbox_adopt(struct wb_outbox **out, struct sqlite3 *db,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    const struct connection c = {.sqlite = db, .adopt = true};

    return outbox_new(out, &c, opts, err);
}

enum wb_status
wb_outbox_attach(struct wb_outbox **out, struct sqlite3 *db,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    return outbox_new(out, &(struct connection){.sqlite = db}, opts, err);
}

enum wb_status
wb_outbox_attach_pg(struct wb_outbox **out, struct pg_conn *conn,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    return outbox_new(out, &(struct connection){.pg = conn}, opts, err);
}

enum wb_status
wb__outbox_check(struct wb_outbox *box, struct wb_err *err)
{
    return wb__db_check(box->db, err);
}

void
wb_outbox_close(struct wb_outbox *box)
{
    if (box == NULL)
        return;
    wb__commit_group_fini(&box->group);
    wb__db_close(box->db);
    wb__free(box->env, box->url);
    wb__free(box->env, box);
}

/* ---- a connection that failed ------------------------------------------- */

struct reopen_op {
    struct wb__db_job job;
    struct wb_outbox *box;
};

/* The leader of the group runs it: no other thread uses the connection. */
static enum wb_status
reopen_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct wb_outbox *box = ((struct reopen_op *)job)->box;
    struct wb__db_opts opts = db->opts;
    enum wb_status rc;

    if (!db->failed || box->url == NULL)
        return WB_OK;
    opts.existing = true;
    rc = wb__db_open(&box->db, box->url, &opts, err);
    if (rc != WB_OK)
        return rc;
    box->group.db = box->db;
    wb__db_close(db);
    return WB_OK;
}

enum wb_status
wb__outbox_reopen(struct wb_outbox *box, struct wb_err *err)
{
    struct reopen_op o = {
        .job = {.run = reopen_run, .tx = WB__TX_NONE}, .box = box};

    return wb__commit_group_run(&box->group, &o.job, err);
}
