/* outbox.c - open and close the outbox; its clock and its random bytes. */
#include "outbox/outbox_internal.h"

static int64_t
or_default(int64_t value, int64_t standard)
{
    return value > 0 ? value : standard;
}

/* A new outbox without its connection, and the options for that. NULL: out of
 * memory. */
static struct wb_outbox *
outbox_new(const struct wb_outbox_opts *opts, struct wb__db_opts *db_opts)
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
    box->opts.busy_ms = or_default(opts->busy_ms, 5000);
    box->opts.max_payload_bytes = or_default(opts->max_payload_bytes, 1 << 20);
    box->opts.keep_delivered_ms =
        or_default(opts->keep_delivered_ms, 7LL * 86400000);
    box->opts.keep_abandoned_ms =
        or_default(opts->keep_abandoned_ms, 30LL * 86400000);
    atomic_init(&box->last_claim_empty, true);
    *db_opts = (struct wb__db_opts){
        .env = box->env,
        .busy_ms = box->opts.busy_ms,
        .existing = box->opts.existing,
        .allow_network_fs = box->opts.allow_network_fs,
    };
    return box;
}

/* rc says whether box->db was opened. */
static enum wb_status
finish_open(struct wb_outbox **out, struct wb_outbox *box, enum wb_status rc)
{
    if (rc != WB_OK) {
        wb__free(box->env, box);
        return rc;
    }
    wb__commit_group_init(&box->group, box->db);
    *out = box;
    return WB_OK;
}

enum wb_status
wb_outbox_open(struct wb_outbox **out, const char *url,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb__db_opts o;
    struct wb_outbox *box = outbox_new(opts, &o);

    if (box == NULL)
        return wb__nomem(err, "open");
    return finish_open(out, box, wb__db_open(&box->db, url, &o, err));
}

enum wb_status
wb_outbox_adopt(struct wb_outbox **out, struct sqlite3 *db,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb__db_opts o;
    struct wb_outbox *box = outbox_new(opts, &o);

    if (box == NULL)
        return wb__nomem(err, "adopt");
    return finish_open(out, box, wb__db_borrow(&box->db, db, true, &o, err));
}

enum wb_status
wb_outbox_attach(struct wb_outbox **out, struct sqlite3 *db,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb__db_opts o;
    struct wb_outbox *box = outbox_new(opts, &o);

    if (box == NULL)
        return wb__nomem(err, "attach");
    return finish_open(out, box, wb__db_borrow(&box->db, db, false, &o, err));
}

enum wb_status
wb_outbox_attach_pg(struct wb_outbox **out, struct pg_conn *conn,
    const struct wb_outbox_opts *opts, struct wb_err *err)
{
    struct wb__db_opts o;
    struct wb_outbox *box = outbox_new(opts, &o);

    if (box == NULL)
        return wb__nomem(err, "attach");
    return finish_open(out, box, wb__db_borrow_pg(&box->db, conn, &o, err));
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

/* ---- clock, random bytes -------------------------------------------------- */

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

void
wb__random_take(struct wb_outbox *box, int64_t now_ms, void *out, size_t len)
{
    struct wb__random_pool *p = &box->pool;
    bool repeated = p->ms == now_ms;

    WB_ASSERT(len <= sizeof(p->bytes));
    if (!repeated || p->left < len) {
        /* The first request of a millisecond may be its only one. */
        p->left = repeated ? sizeof(p->bytes) : len;
        p->ms = now_ms;
        box->env->random(box->env->ctx, p->bytes, p->left);
    }
    p->left -= len;
    memcpy(out, p->bytes + p->left, len);
}
