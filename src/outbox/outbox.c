/* outbox.c - open, close, and how an operation gets its transaction. */
#include "outbox/outbox_internal.h"

int64_t
wb__outbox_now(const struct wb_outbox *box)
{
    return box->env->wall_ms(box->env->ctx);
}

uint64_t
wb__outbox_random(const struct wb_outbox *box)
{
    uint64_t r;

    box->env->random(box->env->ctx, &r, sizeof(r));
    return r;
}

/* The first of a millisecond may be its only one. */
void
wb__random_take(struct wb_outbox *box, int64_t now_ms, void *out, size_t len)
{
    struct wb__random_pool *d = &box->pool;
    bool again = d->ms == now_ms;

    if (!again || d->left < len) {
        d->left = again ? sizeof(d->bytes) : len;
        d->ms = now_ms;
        box->env->random(box->env->ctx, d->bytes, d->left);
    }
    d->left -= len;
    memcpy(out, d->bytes + d->left, len);
}

static enum wb_status
run_job(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct wb__op *op = (struct wb__op *)job;

    (void)db;
    return op->run(op->box, op, err);
}

enum wb_status
wb__outbox_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    op->box = box;
    op->job =
        (struct wb__db_job){.run = run_job, .lanes = op->lanes, .tx = op->tx};
    return wb__commit_group_run(&box->group, &op->job, err);
}

/* ---- open, close ------------------------------------------------------- */

static int64_t
or_default(int64_t value, int64_t standard)
{
    return value > 0 ? value : standard;
}

static struct wb_outbox *
box_new(const struct wb_outbox_opts *opts)
{
    static const struct wb_outbox_opts none = {0};
    const struct wb_env *env;
    struct wb_outbox *box;

    if (opts == NULL)
        opts = &none;
    env = opts->env == NULL ? wb_env_system() : opts->env;
    box = wb__alloc(env, sizeof(*box));
    if (box == NULL)
        return NULL;
    box->env = env;
    box->opts = *opts;
    atomic_init(&box->last_claim_empty, true);
    box->opts.busy_ms = or_default(opts->busy_ms, 5000);
    box->opts.max_payload_bytes = or_default(opts->max_payload_bytes, 1 << 20);
    box->opts.keep_delivered_ms =
        or_default(opts->keep_delivered_ms, 7LL * 86400000);
    box->opts.keep_abandoned_ms =
        or_default(opts->keep_abandoned_ms, 30LL * 86400000);
    wb__commit_group_init(&box->group, NULL);
    return box;
}

void
wb_outbox_close(struct wb_outbox *box)
{
    if (box == NULL)
        return;
    wb__commit_group_fini(&box->group);
    wb__db_close(box->db);
    wb__free(box->env, box);
}

static struct wb__db_opts
db_opts(const struct wb_outbox *box)
{
    return (struct wb__db_opts){
        .env = box->env,
        .busy_ms = box->opts.busy_ms,
        .existing = box->opts.existing,
        .allow_network_fs = box->opts.allow_network_fs,
    };
}

static enum wb_status
opened(struct wb_outbox **out, struct wb_outbox *box, enum wb_status rc)
{
    box->group.db = box->db;
    if (rc == WB_OK)
        *out = box;
    else
        wb_outbox_close(box);
    return rc;
}

enum wb_status
wb_outbox_open(struct wb_outbox **out, const char *url,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb_outbox *box = box_new(opts);
    struct wb__db_opts o;
    enum wb_status rc;

    if (box == NULL)
        return wb__nomem(err, "open");
    o = db_opts(box);
    rc = wb__db_open(&box->db, url, &o, err);
    return opened(out, box, rc);
}

static enum wb_status
borrow(struct wb_outbox **out, struct sqlite3 *db, bool adopt,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb_outbox *box = box_new(opts);
    struct wb__db_opts o;
    enum wb_status rc;

    if (box == NULL)
        return wb__nomem(err, "adopt");
    o = db_opts(box);
    rc = wb__db_borrow(&box->db, db, adopt, &o, err);
    return opened(out, box, rc);
}

enum wb_status
wb_outbox_attach_pg(struct wb_outbox **out, struct pg_conn *conn,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb_outbox *box = box_new(opts);
    struct wb__db_opts o;
    enum wb_status rc;

    if (box == NULL)
        return wb__nomem(err, "attach");
    o = db_opts(box);
    rc = wb__db_borrow_pg(&box->db, conn, &o, err);
    return opened(out, box, rc);
}

enum wb_status
wb_outbox_adopt(struct wb_outbox **out, struct sqlite3 *db,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    return borrow(out, db, true, opts, err);
}

enum wb_status
wb_outbox_attach(struct wb_outbox **out, struct sqlite3 *db,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    return borrow(out, db, false, opts, err);
}
