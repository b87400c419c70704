/* sql_begin.c - begin and lookup in SQL.
 *
 * (1) Who acquires is decided by one guarded INSERT; whoever it turns away
 *     reads, in the same transaction, what was there.
 * (2) What is known already is answered by a read alone.
 * (3) Waiters poll, a bounded number a key, and never on a borrowed
 *     connection. */
#include "idem/sql.h"

#define WAIT_MAX_MS (INT64_C(1) << 40) /* 34 years */

enum {
    REAP_EACH = 64, /* acquired claims between two reapings */
    REAP_ROWS = 1000
};

struct wb__sql_waiter {
    const struct wb_idem_op *op;
    struct wb__sql_waiter *next, **link;
};

/* ---- the answer -------------------------------------------------------- */

/* A row that stands, as it looks to this begin. */
static enum wb_status
answer_row(struct wb__idem_job *job, const struct wb__idem_row *row,
    struct wb_err *err)
{
    struct wb_idem_result *result = job->result;

    if (!wb__fingerprint_eq(&row->record.fingerprint, job->fingerprint))
        result->answer = WB_IDEM_MISMATCH;
    else if (row->state == WB_IDEM_DOUBTFUL)
        result->answer = WB_IDEM_UNKNOWN;
    else if (row->state != WB_IDEM_DONE)
        result->answer = WB_IDEM_IN_FLIGHT;
    else if (!wb__idem_give(result, job->sql->face.env, &row->record))
        return wb__nomem(err, "a record");
    return WB_OK;
}

/* OK with the answer, or EMPTY in job->outcome if the key is free. */
static enum wb_status
look(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, job, &row, err);

    job->outcome = WB_EMPTY;
    if (rc == WB_EMPTY)
        return WB_OK;
    if (rc != WB_OK)
        return rc;
    if (!row.over) {
        job->outcome = WB_OK;
        rc = answer_row(job, &row, err);
    }
    wb__sql_found_end(db);
    return rc;
}

/* ---- acquire ----------------------------------------------------------- */

static enum wb_status
check_quota(struct wb__db *db, struct wb__idem_job *job, bool *used_up,
    struct wb_err *err)
{
    const struct wb_idem_opts *opts = &job->sql->face.opts;
    struct wb__val identity = wb__text(job->op->identity);
    enum wb_status rc = WB_OK;
    int64_t n = 0, bytes = 0;

    if (opts->identity_claims > 0)
        rc = wb__db_one_int(db, WB__SQL_IDEM_CLAIMS,
            WB__ARGS(identity, wb__int(job->now_ms), wb__int(opts->hold_ms)),
            &n, err);
    if (rc == WB_OK && opts->identity_bytes > 0)
        rc = wb__db_one_int(db, WB__SQL_IDEM_BYTES,
            WB__ARGS(identity, wb__int(job->now_ms)), &bytes, err);
    *used_up = (opts->identity_claims > 0 && n >= opts->identity_claims) ||
               (opts->identity_bytes > 0 && bytes >= opts->identity_bytes);
    return rc;
}

/* OK if the row is ours, EMPTY if it is somebody else's. */
static enum wb_status
insert_claim(struct wb__db *db, struct wb__idem_job *job, struct wb_err *err)
{
    const struct wb_idem_op *op = job->op;
    struct wb_slice fp = {
        (const char *)job->fingerprint->bytes, sizeof(job->fingerprint->bytes)};
    enum wb_idem_state state =
        job->how->sending ? WB_IDEM_SENDING : WB_IDEM_CLAIMED;
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_CLAIM,
        WB__ARGS(wb__text(op->identity), wb__text(op->scope), wb__text(op->key),
            wb__int((int64_t)job->token), wb__int(job->now_ms),
            wb__int(job->sql->face.opts.hold_ms),
            wb__text(wb_slice(wb_idem_state_name(state))), wb__blob(fp),
            wb__int(wb__sql_time(job->now_ms, job->how->lease_ms))),
        &changed, err);

    return rc == WB_OK && changed == 0 ? WB_EMPTY : rc;
}

static enum wb_status
reap_some(
    struct wb__db *db, struct wb__idem_job *job, int64_t *n, struct wb_err *err)
{
    return wb__db_run(db, WB__SQL_IDEM_REAP,
        WB__ARGS(wb__int(job->now_ms),
            wb__int(job->now_ms - job->sql->face.opts.hold_ms),
            wb__int(REAP_ROWS)),
        n, err);
}

/* Under a quota a key that is known comes first: it takes nothing new. */
static enum wb_status
admit(struct wb__db *db, struct wb__idem_job *job, struct wb_err *err)
{
    const struct wb_idem_opts *opts = &job->sql->face.opts;
    bool used_up = false;
    enum wb_status rc;

    job->now_ms = wb__db_now(db);
    job->outcome = WB_EMPTY;
    if (opts->identity_claims == 0 && opts->identity_bytes == 0)
        return WB_OK;
    rc = wb__db_run(db, WB__SQL_IDEM_LOCK,
        WB__ARGS(wb__text(job->op->identity)), NULL, err);
    if (rc == WB_OK)
        rc = look(db, &job->job, err);
    if (rc == WB_OK && job->outcome == WB_EMPTY)
        rc = check_quota(db, job, &used_up, err);
    if (rc == WB_OK && used_up) {
        job->outcome = WB_OK;
        job->result->answer = WB_IDEM_LIMIT;
    }
    return rc;
}

static enum wb_status
acquire(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    enum wb_status rc = WB_OK;

    if (job->sql->acquired % REAP_EACH == 0) {
        job->now_ms = wb__db_now(db);
        rc = reap_some(db, job, NULL, err);
    }
    if (rc == WB_OK)
        rc = admit(db, job, err);
    if (rc != WB_OK || job->outcome == WB_OK)
        return rc;
    rc = insert_claim(db, job, err);
    if (rc == WB_EMPTY)
        return look(db, base, err);
    job->sql->acquired++;
    job->outcome = WB_OK;
    job->result->answer = WB_IDEM_ACQUIRED;
    job->result->token = job->token;
    return rc;
}

/* ---- wait -------------------------------------------------------------- */

static bool
same_op(const struct wb_idem_op *a, const struct wb_idem_op *b)
{
    return wb__eq(a->key, b->key) && wb__eq(a->scope, b->scope) &&
           wb__eq(a->identity, b->identity);
}

/* False if too many wait for this key already. */
static bool
join_waiters(struct wb__idem_sql *sql, struct wb__sql_waiter *w)
{
    int64_t n = 0;

    wb__mutex_lock(&sql->waiting);
    for (const struct wb__sql_waiter *o = sql->waiters; o != NULL; o = o->next)
        n += same_op(o->op, w->op);
    if (n < sql->face.opts.max_waiters) {
        w->next = sql->waiters;
        w->link = &sql->waiters;
        if (w->next != NULL)
            w->next->link = &w->next;
        sql->waiters = w;
    }
    wb__mutex_unlock(&sql->waiting);
    return w->link != NULL;
}

static void
leave_waiters(struct wb__idem_sql *sql, struct wb__sql_waiter *w)
{
    if (w->link == NULL)
        return;
    wb__mutex_lock(&sql->waiting);
    *w->link = w->next;
    if (w->next != NULL)
        w->next->link = w->link;
    wb__mutex_unlock(&sql->waiting);
}

static enum wb_status
begin_once(struct wb__idem_job *job, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    job->outcome = WB_EMPTY;
    job->job.run = look;
    /* On a borrowed connection a read first could keep the transaction from
     * writing afterwards. */
    if (!job->sql->face.borrowed)
        rc = wb__sql_read(job, err);
    job->job.run = acquire;
    /* Twice at most, but for a clock that moves: who was turned away looks. */
    while (rc == WB_OK && job->outcome == WB_EMPTY)
        rc = wb__sql_write(job, err);
    return rc;
}

static enum wb_status
begin_or_wait(
    struct wb__idem_job *job, struct wb__sql_waiter *w, struct wb_err *err)
{
    struct wb__idem_sql *sql = job->sql;
    const struct wb_env *env = sql->face.env;
    int64_t from_us = env->mono_us(env->ctx), left_us;
    int64_t wait_ms =
        job->how->wait_ms < WAIT_MAX_MS ? job->how->wait_ms : WAIT_MAX_MS;
    enum wb_status rc;

    for (;;) {
        rc = begin_once(job, err);
        if (rc != WB_OK || job->result->answer != WB_IDEM_IN_FLIGHT)
            return rc;
        left_us = wait_ms * 1000 - (env->mono_us(env->ctx) - from_us);
        if (left_us <= 0 || sql->face.borrowed ||
            (w->link == NULL && !join_waiters(sql, w)))
            break;
        wb__idem_sleep(
            env, left_us < WB__IDEM_POLL_US ? left_us : WB__IDEM_POLL_US);
    }
    if (job->how->wait_ms > 0)
        job->result->answer = WB_IDEM_HELD;
    return WB_OK;
}

enum wb_status
wb__sql_begin(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_fingerprint *fingerprint, const struct wb_idem_begin *how,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb__idem_job job = {
        /* A claim may be lost to a power cut: its process is lost as well. But
         * not one whose effect may have begun. */
        .job.tx = how->sending ? WB__TX_FULL : WB__TX_RELAXED,
        .sql = (struct wb__idem_sql *)store,
        .op = op,
        .fingerprint = fingerprint,
        .how = how,
        .result = result,
        .token = wb__idem_token(store)};
    struct wb__sql_waiter w = {.op = op};
    enum wb_status rc = wb__idem_op_check(op, err);

    if (rc == WB_OK)
        rc = begin_or_wait(&job, &w, err);
    leave_waiters(job.sql, &w);
    return rc;
}

enum wb_status
wb__sql_begin_job(struct wb_idem *store, const struct wb__idem_call *call,
    struct wb__idem_job *job)
{
    enum wb_status rc = wb__idem_op_check(call->op, NULL);

    *job = (struct wb__idem_job){.job.run = look,
        .job.tx = call->how.sending ? WB__TX_FULL : WB__TX_RELAXED,
        .sql = (struct wb__idem_sql *)store,
        .op = call->op,
        .fingerprint = call->fingerprint,
        .how = &call->how,
        .result = call->result,
        .token = wb__idem_token(store)};
    if (rc == WB_OK && !store->borrowed)
        rc = wb__sql_read(job, NULL);
    job->job.run = acquire;
    return rc;
}

/* ---- lookup, reap ------------------------------------------------------ */

static enum wb_status
find_record(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, job, &row, err);

    job->outcome = WB_EMPTY;
    job->n = 0;
    if (rc == WB_EMPTY)
        return WB_OK;
    if (rc != WB_OK)
        return rc;
    job->n = row.over;
    if (!row.over && row.state == WB_IDEM_DONE) {
        job->outcome = WB_OK;
        if (!wb__idem_give(job->result, job->sql->face.env, &row.record))
            rc = wb__nomem(err, "a record");
    }
    wb__sql_found_end(db);
    return rc;
}

/* Looked at again, as somebody may have begun it in the meantime. */
static enum wb_status
drop_over(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    const struct wb_idem_op *op = job->op;
    enum wb_status rc = find_record(db, base, err);

    if (rc == WB_OK && job->n > 0)
        rc = wb__db_run(db, WB__SQL_IDEM_DROP,
            WB__ARGS(wb__text(op->identity), wb__text(op->scope),
                wb__text(op->key), wb__int(job->now_ms),
                wb__int(job->sql->face.opts.hold_ms)),
            NULL, err);
    return rc;
}

enum wb_status
wb__sql_lookup(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb__idem_job job = {.job.run = find_record,
        .job.tx = WB__TX_RELAXED,
        .sql = (struct wb__idem_sql *)store,
        .op = op,
        .result = result};
    enum wb_status rc = wb__sql_read(&job, err);

    job.job.run = drop_over;
    if (rc == WB_OK && job.n > 0)
        rc = wb__sql_write(&job, err);
    return rc != WB_OK ? rc : job.outcome;
}

static enum wb_status
reap_job(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    int64_t n = 0;
    enum wb_status rc;

    job->now_ms = wb__db_now(db);
    rc = reap_some(db, job, &n, err);
    job->n = (uint64_t)n;
    return rc;
}

enum wb_status
wb__sql_reap(struct wb_idem *store, uint64_t *n, struct wb_err *err)
{
    struct wb__idem_job job = {.job.run = reap_job,
        .job.tx = WB__TX_RELAXED,
        .sql = (struct wb__idem_sql *)store};
    enum wb_status rc;

    *n = 0;
    do {
        rc = wb__sql_write(&job, err);
        *n += rc == WB_OK ? job.n : 0;
    } while (rc == WB_OK && job.n == REAP_ROWS);
    return rc;
}
