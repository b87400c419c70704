/* group.c - the queue in which threads share commits.
 *
 * (1) A job is answered after the transaction it ran in has ended: OK only if
 *     that committed.
 * (2) One leader at a time. When it has run what was queued it hands the lead
 *     to the first of those who came meanwhile; N threads never cost N commits.
 * (3) A job that fails takes nobody with it: the others are run again, each
 *     alone. Once the store is FAILED nothing is run again.
 * (4) Where transactions run side by side, one that locks several lanes locks
 *     them first, sorted: two of them wait for each other in one direction
 *     only. What clashes for another reason is rolled back and run again. */
#include "db/group.h"

#include "db/engine.h"

enum {
    CLASHES_MAX = 8,
    LANES_MAX_BYTES = 1 << 26,
    BUSY_MAX = 2 /* of those that had to wait together, and then alone */
};

void
wb__group_init(struct wb__group *g, struct wb__db *db)
{
    *g = (struct wb__group){.db = db};
    g->last = &g->first;
    wb__mutex_init(&g->lock);
}

void
wb__group_fini(struct wb__group *g)
{
    WB_ASSERT(!g->leading && g->first == NULL);
    wb__mutex_fini(&g->lock);
}

/* ---- lanes --------------------------------------------------------------- */

static void
add(struct wb__lanes *l, struct wb__buf *to, struct wb_slice s)
{
    wb__buf_add(to, s);
    wb__buf_str(to, "\n");
    l->n++;
}

void
wb__lanes_add(struct wb__lanes *l, struct wb_slice name)
{
    add(l, &l->names, name);
}

void
wb__lanes_add_of(struct wb__lanes *l, const struct wb_id *id)
{
    add(l, &l->ids, wb_slice(id->text));
}

/* One lane needs no order. Without the memory to say them all there is none
 * either: then a clash is run again, as any other. */
static enum wb_status
lock_lanes(struct wb__group *g, const struct wb__job *first,
    const struct wb__job *end, struct wb_err *err)
{
    struct wb__buf none = {.env = g->db->opts.env, .max = LANES_MAX_BYTES};
    struct wb__lanes l = {none, none, 0};
    enum wb_status rc = WB_OK;

    if (!g->db->engine->side_by_side)
        return WB_OK;
    for (const struct wb__job *job = first; job != end; job = job->next)
        if (job->lanes != NULL)
            job->lanes(job, &l);
    if (l.n > 1 && l.names.failed == WB_OK && l.ids.failed == WB_OK)
        rc = wb__db_run(g->db, WB__SQL_LOCK_LANES,
            WB__ARGS(wb__text(wb__buf_slice(&l.names)),
                wb__text(wb__buf_slice(&l.ids))),
            NULL, err);
    wb__buf_fini(&l.names);
    wb__buf_fini(&l.ids);
    return rc;
}

/* ---- transactions -------------------------------------------------------- */

/* Run the jobs from first up to end in one transaction; one that wants none
 * comes alone. */
static enum wb_status
run_together(struct wb__group *g, struct wb__job *first, struct wb__job *end,
    bool *began, struct wb_err *err)
{
    enum wb__tx tx = WB__TX_NONE;
    enum wb_status rc;

    for (const struct wb__job *job = first; job != end; job = job->next)
        if (job->tx > tx)
            tx = job->tx;
    if (tx == WB__TX_NONE)
        return first->run(g->db, first, err);
    rc = wb__db_begin(g->db, tx, err);
    if (rc != WB_OK)
        return rc;
    *began = true;
    rc = lock_lanes(g, first, end, err);
    for (struct wb__job *job = first; job != end && rc == WB_OK;
         job = job->next)
        rc = job->run(g->db, job, err);
    if (rc == WB_OK)
        return wb__db_commit(g->db, err);
    wb__db_rollback(g->db);
    return rc;
}

/* Two transactions that clashed: one of them was rolled back, and starts anew.
 */
static enum wb_status
run_through(struct wb__group *g, struct wb__job *first, struct wb__job *end,
    bool *began, struct wb_err *err)
{
    enum wb_status rc;
    int turns = CLASHES_MAX;

    do
        rc = run_together(g, first, end, began, err);
    while (rc == WB_BUSY && wb__db_clashed(g->db) && --turns > 0);
    return rc;
}

static void
run_some(struct wb__group *g, struct wb__job *first, struct wb__job *end)
{
    struct wb_err err = {0};
    bool began = false, alone;
    int busy = 0;
    enum wb_status rc = run_through(g, first, end, &began, &err);

    /* Who did not get the lock together would wait as long for it alone; out of
     * IO it is unknown what happened, and must not happen twice. */
    alone = rc != WB_OK && rc != WB_IO && began && first->next != end &&
            !wb__db_failed(g->db);
    for (struct wb__job *job = first; job != end; job = job->next) {
        job->err = err;
        job->status = rc;
        if (alone && busy < BUSY_MAX)
            job->status = run_through(g, job, job->next, &began, &job->err);
        busy += job->status == WB_BUSY;
    }
}

/* Take those off the queue that may share a transaction; gives who is next. */
static struct wb__job *
take_some(struct wb__group *g)
{
    struct wb__job *end = g->first->next;

    if (g->first->tx != WB__TX_NONE)
        while (end != NULL && end->tx != WB__TX_NONE)
            end = end->next;
    g->first = end;
    if (end == NULL)
        g->last = &g->first;
    return end;
}

/* Called, and returns, with the lock held. */
static void
lead(struct wb__group *g, const struct wb__job *own)
{
    struct wb__job *first = g->first, *end = take_some(g);

    g->leading = true;
    wb__mutex_unlock(&g->lock);
    run_some(g, first, end);
    wb__mutex_lock(&g->lock);
    for (struct wb__job *job = first; job != end; job = job->next) {
        job->done = true;
        if (job != own)
            wb__cond_signal(&job->wake);
    }
    g->leading = g->first != NULL;
    if (g->leading) {
        g->first->lead = true;
        wb__cond_signal(&g->first->wake);
    }
}

static void
enqueue(struct wb__group *g, struct wb__job *job)
{
    job->next = NULL;
    job->done = false;
    *g->last = job;
    g->last = &job->next;
    job->lead = !g->leading;
}

static enum wb_status
answer(const struct wb__job *job, struct wb_err *err)
{
    if (job->status != WB_OK && err != NULL)
        *err = job->err;
    return job->status;
}

enum wb_status
wb__group_run(struct wb__group *g, struct wb__job *job, struct wb_err *err)
{
    wb__cond_init(&job->wake);
    wb__mutex_lock(&g->lock);
    enqueue(g, job);
    while (!job->done && !job->lead)
        wb__cond_wait(&job->wake, &g->lock);
    if (!job->done)
        lead(g, job);
    wb__mutex_unlock(&g->lock);
    wb__cond_fini(&job->wake);
    return answer(job, err);
}

bool
wb__group_try(struct wb__group *g, struct wb__job *job, struct wb_err *err)
{
    bool free;

    wb__mutex_lock(&g->lock);
    free = !g->leading;
    if (free) {
        enqueue(g, job);
        lead(g, job);
        (void)answer(job, err);
    }
    wb__mutex_unlock(&g->lock);
    return free;
}
