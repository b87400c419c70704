/* group_commit.c - the queue in which threads share commits.
 *
 * (1) A job is answered after the transaction it ran in has ended: OK only if
 *     that committed.
 * (2) One leader at a time, who runs what is queued; N threads never cost N
 *     commits. Those just answered are likely to come back: the next one to
 *     lead is who completes as many as there were, or the first of the queue
 *     once its patience is over. Else every commit would carry half of them
 *     while the other half is being woken. A single thread never waits.
 * (3) A job that fails takes nobody with it: the others are run again, each
 *     alone. Once the store is FAILED nothing is run again.
 * (4) Where transactions run side by side, one that locks several lanes locks
 *     them first, sorted, and jobs of one row each run in the order of these:
 *     two transactions wait for each other in one direction only. What clashes
 *     for another reason is rolled back and run again. */
#include "db/group_commit.h"

enum {
    CLASHES_MAX = 8,
    LANES_MAX_BYTES = 1 << 26,
    BUSY_MAX = 2,     /* of those that had to wait together, and then alone */
    PATIENCE_US = 200 /* about one sync of a good disk */
};

/* Of a job. */
enum {
    WAIT, /* queued */
    LOOK, /* the same, and nobody leads: see whether to */
    TAKEN,
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

/* ---- lanes ------------------------------------------------------------- */

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

/* ---- transactions ------------------------------------------------------ */

/* Run the jobs from first up to end in one transaction; one that wants none
 * comes alone. */
static enum wb_status
run_together(struct wb__commit_group *g, struct wb__db_job *first,
    struct wb__db_job *end, bool *began, struct wb_err *err)
{
    enum wb__tx tx = WB__TX_NONE;
    enum wb_status rc;

    for (const struct wb__db_job *job = first; job != end; job = job->next)
        if (job->tx > tx)
            tx = job->tx;
    if (tx == WB__TX_NONE)
        return first->run(g->db, first, err);
    rc = wb__db_begin(g->db, tx, err);
    if (rc != WB_OK)
        return rc;
    *began = true;
    rc = lock_lanes(g, first, end, err);
    for (struct wb__db_job *job = first; job != end && rc == WB_OK;
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
run_through(struct wb__commit_group *g, struct wb__db_job *first,
    struct wb__db_job *end, bool *began, struct wb_err *err)
{
    enum wb_status rc;
    int turns = CLASHES_MAX;

    do
        rc = run_together(g, first, end, began, err);
    while (rc == WB_BUSY && wb__db_clashed(g->db) && --turns > 0);
    return rc;
}

static void
run_some(struct wb__commit_group *g, struct wb__db_job *first,
    struct wb__db_job *end)
{
    struct wb_err err = {0};
    bool began = false, alone;
    int busy = 0;
    enum wb_status rc = run_through(g, first, end, &began, &err);

    /* Who did not get the lock together would wait as long for it alone; out of
     * IO it is unknown what happened, and must not happen twice. */
    alone = rc != WB_OK && rc != WB_IO && began && first->next != end &&
            !wb__db_failed(g->db);
    for (struct wb__db_job *job = first; job != end; job = job->next) {
        job->err = err;
        job->status = rc;
        if (!alone || busy == BUSY_MAX)
            continue;
        job->status = run_through(g, job, job->next, &began, &job->err);
        if (job->status == WB_BUSY) {
            busy++;
            rc = WB_BUSY; /* what those behind are told, and not another's */
            err = job->err;
        }
    }
}

/* Take those off the queue that may share a transaction; gives who is next. */
static struct wb__db_job *
take_some(struct wb__commit_group *g)
{
    struct wb__db_job *end = g->first;
    bool together = end->tx != WB__TX_NONE;

    do {
        atomic_store(&end->state, TAKEN);
        g->queued--;
        end = end->next;
    } while (end != NULL && together && end->tx != WB__TX_NONE);
    g->first = end;
    if (end == NULL)
        g->last = &g->first;
    return end;
}

/* Their memory is gone as soon as they know. */
static void
tell(struct wb__db_job *job, const struct wb__db_job *end,
    const struct wb__db_job *own)
{
    while (job != end) {
        struct wb__db_job *next = job->next;

        atomic_store(&job->state, DONE);
        if (job != own)
            wb__futex_wake(&job->state);
        job = next;
    }
}

/* Those of the same order stay in that of their arrival. */
static struct wb__db_job *
sort(struct wb__db_job *first, struct wb__db_job *end)
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

/* Called with the lock held, and returns without. */
static void
lead(struct wb__commit_group *g, const struct wb__db_job *own)
{
    struct wb__db_job *first = g->first, *next;
    size_t before = g->queued;
    struct wb__db_job *end = take_some(g);

    before -= g->queued;
    g->leading = true;
    wb__mutex_unlock(&g->lock);
    if (g->db->engine->side_by_side)
        first = sort(first, end);
    run_some(g, first, end);
    wb__mutex_lock(&g->lock);
    g->leading = false;
    g->expected = before + g->queued;
    next = g->first;
    if (next != NULL)
        atomic_store(&next->state, LOOK);
    wb__mutex_unlock(&g->lock);
    if (next != NULL)
        wb__futex_wake(&next->state);
    tell(first, end, own);
}

static void
enqueue(struct wb__commit_group *g, struct wb__db_job *job)
{
    job->next = NULL;
    atomic_init(&job->state, WAIT);
    *g->last = job;
    g->last = &job->next;
    g->queued++;
}

/* Lead those who wait, or sleep until something has changed. */
static void
lead_or_sleep(struct wb__commit_group *g, struct wb__db_job *job, bool *patient)
{
    uint32_t state = atomic_load(&job->state);
    bool next = !g->leading && g->first == job;

    if (state == LOOK)
        atomic_store(&job->state, state = WAIT);
    if (state == WAIT && !g->leading &&
        (g->queued >= g->expected || !*patient)) {
        lead(g, job);
        return;
    }
    wb__mutex_unlock(&g->lock);
    if (state != DONE)
        *patient = wb__futex_wait(&job->state, state, next ? PATIENCE_US : 0);
}

static enum wb_status
answer(const struct wb__db_job *job, struct wb_err *err)
{
    if (job->status != WB_OK && err != NULL)
        *err = job->err;
    return job->status;
}

/* Called with the lock held, and returns without. */
static enum wb_status
see_through(struct wb__commit_group *g, struct wb__db_job *job, bool patient,
    struct wb_err *err)
{
    enqueue(g, job);
    lead_or_sleep(g, job, &patient);
    while (atomic_load(&job->state) != DONE) {
        wb__mutex_lock(&g->lock);
        lead_or_sleep(g, job, &patient);
    }
    return answer(job, err);
}

enum wb_status
wb__commit_group_run(
    struct wb__commit_group *g, struct wb__db_job *job, struct wb_err *err)
{
    wb__mutex_lock(&g->lock);
    return see_through(g, job, true, err);
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
    (void)see_through(g, job, false, err);
    return true;
}
