/* group.c - the queue in which threads share commits.
 *
 * (1) A job is answered after the transaction it ran in has ended: OK only if
 *     that committed.
 * (2) One leader at a time. When it has run what was queued it hands the lead
 *     to the first of those who came meanwhile; N threads never cost N commits.
 * (3) A job that fails takes nobody with it: the others are run again, each
 *     alone. Out of an I/O error nothing is run again. */
#include "db/group.h"

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

/* Run the jobs from first up to end in one transaction. */
static enum wb_status
run_together(struct wb__group *g, struct wb__job *first, struct wb__job *end,
    struct wb_err *err)
{
    enum wb__tx tx = WB__TX_READ;
    enum wb_status rc;

    for (const struct wb__job *job = first; job != end; job = job->next)
        if (job->tx > tx)
            tx = job->tx;
    rc = wb__db_begin(g->db, tx, err);
    if (rc != WB_OK)
        return rc;
    for (struct wb__job *job = first; job != end && rc == WB_OK;
         job = job->next)
        rc = job->run(g->db, job, err);
    if (rc == WB_OK)
        return wb__db_commit(g->db, err);
    wb__db_rollback(g->db);
    return rc;
}

static void
run_all(struct wb__group *g, struct wb__job *first)
{
    struct wb_err err = {0};
    enum wb_status rc = run_together(g, first, NULL, &err);
    bool alone = rc != WB_OK && rc != WB_IO && first->next != NULL;

    for (struct wb__job *job = first; job != NULL; job = job->next) {
        job->err = err;
        job->status = alone ? run_together(g, job, job->next, &job->err) : rc;
    }
}

/* Called, and returns, with the lock held. */
static void
lead(struct wb__group *g, const struct wb__job *own)
{
    struct wb__job *first = g->first, *next;

    g->leading = true;
    g->first = NULL;
    g->last = &g->first;
    wb__mutex_unlock(&g->lock);
    run_all(g, first);
    wb__mutex_lock(&g->lock);
    for (struct wb__job *job = first; job != NULL; job = next) {
        next = job->next;
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
