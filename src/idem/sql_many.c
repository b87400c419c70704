/* sql_many.c - many calls of the store in one transaction.
 *
 * (1) Reads come first, by themselves; what they answer writes nothing.
 * (2) A call that fails takes nobody with it: all are rolled back, and each is
 *     made alone. Not out of IO: what happened is unknown, and must not happen
 *     twice; nor out of BUSY: each would wait as long again. */
#include "idem/sql.h"

struct batch {
    struct wb__db_job job; /* first */
    struct wb__idem_job each[WB__IDEM_MANY];
    struct wb__idem_call *call[WB__IDEM_MANY];
    size_t n;
};

static enum wb_status
run_batch(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct batch *b = (struct batch *)base;
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < b->n && rc == WB_OK; i++)
        rc = b->each[i].job.run(db, &b->each[i].job, err);
    return rc;
}

/* The call needs a write, or has its answer. */
static void
add_call(struct batch *b, struct wb_idem *store, struct wb__idem_call *call)
{
    struct wb__idem_job *job = &b->each[b->n];

    if (call->verb == WB__IDEM_BEGIN) {
        job->outcome = WB_EMPTY;
        call->rc = wb__sql_begin_job(store, call, job);
        if (call->rc != WB_OK || job->outcome == WB_OK)
            return;
    } else {
        *job = wb__sql_move_job(store, call);
    }
    if (job->job.tx > b->job.tx)
        b->job.tx = job->job.tx;
    b->call[b->n++] = call;
}

static void
end_call(struct wb_idem *store, const struct wb__idem_job *job,
    struct wb__idem_call *call, enum wb_status rc)
{
    call->rc = rc == WB_OK ? job->outcome : rc;
    if ((rc != WB_OK && rc != WB_IO && rc != WB_BUSY) || call->rc == WB_EMPTY)
        wb__idem_alone(store, call);
}

void
wb__sql_many(struct wb_idem *store, struct wb__idem_call *const *call, size_t n)
{
    struct batch b = {.job.run = run_batch, .job.tx = WB__TX_RELAXED};
    enum wb_status rc;

    for (size_t i = 0; i < n; i++)
        add_call(&b, store, call[i]);
    if (b.n == 0)
        return;
    rc = wb__commit_group_run(
        &((struct wb__idem_sql *)store)->group, &b.job, NULL);
    for (size_t i = 0; i < b.n; i++)
        end_call(store, &b.each[i], b.call[i], rc);
}
