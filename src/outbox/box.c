/* box.c - open, close, and the queue in which threads share commits.
 *
 * (1) An operation is answered after the transaction it ran in has ended: OK
 *     only if that committed.
 * (2) One leader at a time. When it has run what was queued it hands the lead
 *     to the first of those who came meanwhile; N threads never cost N commits.
 * (3) An operation that fails takes nobody with it: the others are run again,
 *     each alone. Once the store is FAILED nothing is run again. */
#include "outbox/box.h"

int64_t
wb__box_now(const struct wb_outbox *box)
{
    return box->env->wall_ms(box->env->ctx);
}

uint64_t
wb__box_random(const struct wb_outbox *box)
{
    uint64_t r;

    box->env->random(box->env->ctx, &r, sizeof(r));
    return r;
}

/* Run the operations from first up to end in one transaction. */
static enum wb_status
run_together(struct wb_outbox *box, struct wb__op *first, struct wb__op *end,
    bool *began, struct wb_err *err)
{
    enum wb__tx tx = WB__TX_NONE;
    enum wb_status rc;

    for (struct wb__op *op = first; op != end; op = op->next)
        if (op->tx > tx)
            tx = op->tx;
    if (tx == WB__TX_NONE)
        return first->run(box, first, err);
    rc = wb__db_begin(box->db, tx, err);
    if (rc != WB_OK)
        return rc;
    *began = true;
    for (struct wb__op *op = first; op != end && rc == WB_OK; op = op->next)
        rc = op->run(box, op, err);
    if (rc == WB_OK)
        return wb__db_commit(box->db, err);
    wb__db_rollback(box->db);
    return rc;
}

static void
run_group(struct wb_outbox *box, struct wb__op *first, struct wb__op *end)
{
    struct wb_err err = {0};
    bool began = false, alone;
    enum wb_status rc = run_together(box, first, end, &began, &err);

    /* Who did not get the lock together would wait as long for it alone. */
    alone =
        rc != WB_OK && began && first->next != end && !wb__db_failed(box->db);
    for (struct wb__op *op = first; op != end; op = op->next) {
        op->err = err;
        op->status =
            alone ? run_together(box, op, op->next, &began, &op->err) : rc;
    }
}

/* Take those off the queue that may share a transaction; gives who is next. */
static struct wb__op *
take_group(struct wb_outbox *box)
{
    struct wb__op *end = box->first->next;

    if (box->first->tx != WB__TX_NONE)
        while (end != NULL && end->tx != WB__TX_NONE)
            end = end->next;
    box->first = end;
    if (end == NULL)
        box->last = &box->first;
    return end;
}

/* Called, and returns, with the lock held. */
static void
lead(struct wb_outbox *box, struct wb__op *own)
{
    struct wb__op *first = box->first, *end = take_group(box);

    box->leading = true;
    wb__mutex_unlock(&box->lock);
    run_group(box, first, end);
    wb__mutex_lock(&box->lock);
    for (struct wb__op *op = first; op != end; op = op->next) {
        op->done = true;
        if (op != own)
            wb__cond_signal(&op->wake);
    }
    box->leading = box->first != NULL;
    if (box->leading) {
        box->first->lead = true;
        wb__cond_signal(&box->first->wake);
    }
}

enum wb_status
wb__box_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    wb__cond_init(&op->wake);
    wb__mutex_lock(&box->lock);
    *box->last = op;
    box->last = &op->next;
    op->lead = !box->leading;
    while (!op->done && !op->lead)
        wb__cond_wait(&op->wake, &box->lock);
    if (!op->done)
        lead(box, op);
    wb__mutex_unlock(&box->lock);
    wb__cond_fini(&op->wake);
    if (op->status != WB_OK && err != NULL)
        *err = op->err;
    return op->status;
}

/* ---- open, close ----------------------------------------------------------
 */

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
    box->opts.busy_ms = or_default(opts->busy_ms, 5000);
    box->opts.max_payload_bytes = or_default(opts->max_payload_bytes, 1 << 20);
    box->opts.keep_delivered_ms =
        or_default(opts->keep_delivered_ms, 7LL * 86400000);
    box->opts.keep_abandoned_ms =
        or_default(opts->keep_abandoned_ms, 30LL * 86400000);
    box->last = &box->first;
    wb__mutex_init(&box->lock);
    return box;
}

void
wb_outbox_close(struct wb_outbox *box)
{
    if (box == NULL)
        return;
    WB_ASSERT(!box->leading && box->first == NULL);
    wb__db_close(box->db);
    wb__mutex_fini(&box->lock);
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
    if (rc == WB_OK)
        *out = box;
    else
        wb_outbox_close(box);
    return rc;
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
    if (rc == WB_OK)
        *out = box;
    else
        wb_outbox_close(box);
    return rc;
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
