/* group_commit.c - the queue in which threads share commits.
 *
 * (1) A job is completed after the transaction it ran in has ended: OK only if
 *     that transaction committed.
 * (2) There is one leader at a time, which runs what is queued; N threads never
 *     cost N commits. Threads whose jobs were just completed are likely to
 *     return: the next leader is the thread whose job brings the queue to the
 *     length of the last group, or the first of the queue after PATIENCE_US.
 *     Otherwise every commit would have half of the threads while the other
 *     half is being woken. A single thread never waits.
 * (3) A job that fails does not fail the others: they are run again, each
 *     alone. Once the store is FAILED nothing is run again.
 * (4) Where transactions run side by side, one that locks several lanes locks
 *     them first, sorted, and jobs of one row each run in the order of their
 *     rows: two transactions then wait for each other in one direction only.
 *     What clashes for another reason is rolled back and run again. */
#include "db/group_commit.h"

enum {
    CLASHES_MAX = 8,
    LANES_MAX_BYTES = 1 << 26,
    BUSY_MAX = 2,     /* stop after so many single jobs have returned BUSY */
    PATIENCE_US = 200 /* about one sync of a good disk */
};

enum job_state {
    QUEUED,
    NUDGED, /* woken since the leader has finished: it may lead now */
    RUNNING,
    DONE
};

void
wb__commit_group_init(struct wb__commit_group *g, struct wb__db *db)
{
    *g = (struct wb__commit_group){.db = db};
    g->last = &g->first;
    wb__mutex_init(&g->lock);
}

void
wb__commit_group_fini(struct wb__commit_group *g)
{
    WB_ASSERT(!g->leading && g->first == NULL);
    wb__mutex_fini(&g->lock);
}

/* ---- lanes ---------------------------------------------------------------- */

void
wb__lanes_add(struct wb__lanes *l, struct wb_slice name)
{
    wb__buf_add(&l->names, name);
    wb__buf_str(&l->names, "\n");
    l->n++;
}

void
wb__lanes_add_id(struct wb__lanes *l, const struct wb_id *id)
{
    wb__buf_str(&l->ids, id->text);
    wb__buf_str(&l->ids, "\n");
    l->n++;
}

/* A single lane needs no order. Without the memory to list them all none is
 * locked here: a clash is then run again, as any other. */
static enum wb_status
lock_lanes(struct wb__commit_group *g, const struct wb__db_job *first,
    const struct wb__db_job *end, struct wb_err *err)
{
    struct wb__buf none = {.env = g->db->opts.env, .max = LANES_MAX_BYTES};
    struct wb__lanes l = {none, none, 0};
    enum wb_status rc = WB_OK;

    if (!g->db->engine->side_by_side)
        return WB_OK;
    for (const struct wb__db_job *job = first; job != end; job = job->next)
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

/* ---- transactions --------------------------------------------------------- */

/* Run the jobs from first up to end in one transaction; a job without a
 * transaction is run alone. If the transaction clashed with another and was
 * rolled back, run it again. Sets *began once a transaction has begun. */
static enum wb_status
run_with_retry(struct wb__commit_group *g, struct wb__db_job *first,
    struct wb__db_job *end, bool *began, struct wb_err *err)
{
    enum wb__tx tx = WB__TX_NONE;
    enum wb_status rc;
    int clashes = 0;

    for (const struct wb__db_job *job = first; job != end; job = job->next)
        if (job->tx > tx)
            tx = job->tx;
    if (tx == WB__TX_NONE)
        return first->run(g->db, first, err);
    do {
        rc = wb__db_begin(g->db, tx, err);
        if (rc != WB_OK)
            continue;
        *began = true;
        rc = lock_lanes(g, first, end, err);
        for (struct wb__db_job *job = first; job != end && rc == WB_OK;
             job = job->next)
            rc = job->run(g->db, job, err);
        if (rc == WB_OK)
            rc = wb__db_commit(g->db, err);
        else
            wb__db_rollback(g->db);
    } while (rc == WB_BUSY && g->db->clash && ++clashes < CLASHES_MAX);
    return rc;
}

static void
run_jobs(struct wb__commit_group *g, struct wb__db_job *first,
    struct wb__db_job *end)
{
    struct wb_err err = {0};
    bool began = false, alone;
    int busy = 0;
    enum wb_status verdict = run_with_retry(g, first, end, &began, &err);

    /* Jobs that did not get the lock together would wait as long for it alone.
     * After IO it is unknown what happened, and it must not happen twice. */
    alone = verdict != WB_OK && verdict != WB_IO && began &&
            first->next != end && !g->db->failed;
    for (struct wb__db_job *job = first; job != end; job = job->next) {
        if (alone && busy < BUSY_MAX) {
            job->err = (struct wb_err){0};
            job->status = run_with_retry(g, job, job->next, &began, &job->err);
            if (job->status == WB_BUSY && ++busy == BUSY_MAX) {
                verdict = WB_BUSY; /* of the rest, which is not tried */
                err = job->err;
            }
        } else {
            job->status = verdict;
            job->err = err;
        }
    }
}

/* ---- queue ---------------------------------------------------------------- */

static void
append(struct wb__commit_group *g, struct wb__db_job *job)
{
    WB_ASSERT(job->run != NULL);
    job->next = NULL;
    atomic_init(&job->state, QUEUED);
    *g->last = job;
    g->last = &job->next;
    g->queued++;
}

/* Take the jobs off the queue that may share a transaction. Returns the first
 * job behind them. */
static struct wb__db_job *
take_jobs(struct wb__commit_group *g)
{
    struct wb__db_job *end = g->first;
    bool together = end->tx != WB__TX_NONE;

    do {
        atomic_store(&end->state, RUNNING);
        g->queued--;
        end = end->next;
    } while (end != NULL && together && end->tx != WB__TX_NONE);
    g->first = end;
    if (end == NULL)
        g->last = &g->first;
    return end;
}

/* Sort by order; jobs of the same order stay as they came. */
static struct wb__db_job *
sort_jobs(struct wb__db_job *first, struct wb__db_job *end)
{
    struct wb__db_job *sorted = end;

    while (first != end) {
        struct wb__db_job *job = first, **at = &sorted;

        first = job->next;
        while (*at != end && (*at)->order <= job->order)
            at = &(*at)->next;
        job->next = *at;
        *at = job;
    }
    return sorted;
}

/* Run the jobs at the front of the queue. Needs the lock, and releases it. */
static void
lead(struct wb__commit_group *g, const struct wb__db_job *own)
{
    struct wb__db_job *first = g->first, *next;
    size_t taken = g->queued;
    struct wb__db_job *end;

    WB_ASSERT(!g->leading && first != NULL);
    end = take_jobs(g);
    taken -= g->queued;
    g->leading = true;
    wb__mutex_unlock(&g->lock);
    if (g->db->engine->side_by_side)
        first = sort_jobs(first, end);
    run_jobs(g, first, end);
    wb__mutex_lock(&g->lock);
    g->leading = false;
    g->expected = taken + g->queued;
    next = g->first;
    if (next != NULL)
        atomic_store(&next->state, NUDGED);
    wb__mutex_unlock(&g->lock);
    if (next != NULL)
        wb__futex_wake(&next->state);
    for (struct wb__db_job *job = first; job != end; job = next) {
        next = job->next; /* a job's memory may be gone once it is DONE */
        atomic_store(&job->state, DONE);
        if (job != own)
            wb__futex_wake(&job->state);
    }
}

static enum wb_status
result_of(const struct wb__db_job *job, struct wb_err *err)
{
    if (job->status != WB_OK && err != NULL)
        *err = job->err;
    return job->status;
}

enum wb_status
wb__commit_group_run(
    struct wb__commit_group *g, struct wb__db_job *job, struct wb_err *err)
{
    bool patient = true;

    wb__mutex_lock(&g->lock);
    append(g, job);
    for (;;) { /* with the lock held */
        uint32_t state = atomic_load(&job->state);
        bool next = !g->leading && g->first == job;

        if (state == NUDGED)
            atomic_store(&job->state, state = QUEUED);
        if (state == QUEUED && !g->leading &&
            (g->queued >= g->expected || !patient)) {
            lead(g, job);
        } else {
            wb__mutex_unlock(&g->lock);
            if (state != DONE)
                patient =
                    wb__futex_wait(&job->state, state, next ? PATIENCE_US : 0);
        }
        if (atomic_load(&job->state) == DONE)
            return result_of(job, err);
        wb__mutex_lock(&g->lock);
    }
}

bool
wb__commit_group_try(
    struct wb__commit_group *g, struct wb__db_job *job, struct wb_err *err)
{
    wb__mutex_lock(&g->lock);
    if (g->leading || g->first != NULL) {
        wb__mutex_unlock(&g->lock);
        return false;
    }
    append(g, job);
    lead(g, job);
    (void)result_of(job, err);
    return true;
}
