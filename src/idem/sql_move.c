/* sql_move.c - what ends or changes a claim, in SQL.
 *
 * (1) A move is one guarded statement: it changes one row, or the token did
 *     not fit. Only then is the row read, to tell a repeat from a stranger.
 * (2) What stands for an effect that has happened, or may have, is committed
 *     FULL; what a power cut may undo at the cost of a repeat is not. */
#include "idem/sql.h"

static struct wb__idem_job
job_of(struct wb_idem *store, const struct wb_idem_op *op, uint64_t token,
    enum wb__tx tx)
{
    return (struct wb__idem_job){.job.tx = tx,
        .sql = (struct wb__idem_sql *)store,
        .op = op,
        .token = token};
}

#define AT(op) \
    wb__text((op)->identity), wb__text((op)->scope), wb__text((op)->key)

static struct wb__val
ends_of(const struct wb_idem_record *record, int64_t now_ms)
{
    if (record->ttl_ms <= 0)
        return wb__int_or_null(0);
    return wb__int(wb__sql_time(now_ms, record->ttl_ms));
}

static struct wb__val
ttl_of(const struct wb_idem_record *record)
{
    return wb__int_or_null(record->ttl_ms > 0 ? record->ttl_ms : 0);
}

/* ---- complete ---------------------------------------------------------- */

/* The same token and the same record: nothing more to do. */
static enum wb_status
check_repeat(struct wb__db *db, struct wb__idem_job *job, struct wb_err *err)
{
    const struct wb_idem_record *want = job->record;
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, job, &row, err);

    job->outcome = WB_FENCED;
    if (rc == WB_EMPTY)
        return WB_OK;
    if (rc != WB_OK)
        return rc;
    if (row.state == WB_IDEM_DONE && row.token == job->token &&
        row.record.status == want->status &&
        row.record.ttl_ms == (want->ttl_ms > 0 ? want->ttl_ms : 0) &&
        wb__eq(row.record.headers, want->headers) &&
        wb__eq(row.record.body, want->body))
        job->outcome = WB_OK;
    wb__sql_found_end(db);
    return WB_OK;
}

static enum wb_status
run_complete(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    const struct wb_idem_record *r = job->record;
    int64_t changed = 0;
    enum wb_status rc;

    job->now_ms = wb__db_now(db);
    rc = wb__db_run(db, WB__SQL_IDEM_COMPLETE,
        WB__ARGS(AT(job->op), wb__int((int64_t)job->token),
            wb__int(job->now_ms), ends_of(r, job->now_ms), ttl_of(r),
            wb__int(r->status), wb__blob(r->headers), wb__blob(r->body)),
        &changed, err);
    job->outcome = WB_OK;
    return rc != WB_OK || changed > 0 ? rc : check_repeat(db, job, err);
}

/* ---- release, extend, mark --------------------------------------------- */

static enum wb_status
run_release(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    struct wb__idem_row row;
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_RELEASE,
        WB__ARGS(
            AT(job->op), wb__int((int64_t)job->token), wb__int(wb__db_now(db))),
        &changed, err);

    job->outcome = WB_OK;
    if (rc != WB_OK || changed > 0)
        return rc;
    rc = wb__sql_find(db, job, &row, err);
    if (rc == WB_EMPTY) /* it is gone */
        return WB_OK;
    if (rc == WB_OK)
        wb__sql_found_end(db);
    job->outcome = WB_FENCED;
    return rc;
}

static enum wb_status
run_extend(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    int64_t changed = 0, now_ms = wb__db_now(db);
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_EXTEND,
        WB__ARGS(AT(job->op), wb__int((int64_t)job->token), wb__int(now_ms),
            wb__int(wb__sql_time(now_ms, job->lease_ms))),
        &changed, err);

    job->outcome = changed > 0 ? WB_OK : WB_FENCED;
    return rc;
}

static enum wb_status
run_mark(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    int64_t changed = 0, now_ms = wb__db_now(db);
    int64_t hold_ms = job->sql->face.opts.hold_ms;
    struct wb__val ends = wb__int_or_null(
        job->state == WB_IDEM_DOUBTFUL ? wb__sql_time(now_ms, hold_ms) : 0);
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_MARK,
        WB__ARGS(AT(job->op), wb__int((int64_t)job->token), wb__int(now_ms),
            wb__text(wb_slice(wb_idem_state_name(job->state))), ends),
        &changed, err);

    job->outcome = changed > 0 ? WB_OK : WB_FENCED;
    return rc;
}

struct wb__idem_job
wb__sql_move_job(struct wb_idem *store, const struct wb__idem_call *call)
{
    static const struct {
        enum wb_status (*run)(
            struct wb__db *db, struct wb__db_job *base, struct wb_err *err);
        enum wb__tx tx;
    } move[] = {
        [WB__IDEM_COMPLETE] = {run_complete, WB__TX_FULL},
        [WB__IDEM_RELEASE] = {run_release, WB__TX_RELAXED},
        [WB__IDEM_EXTEND] = {run_extend, WB__TX_RELAXED},
        [WB__IDEM_UNKNOWN] = {run_mark, WB__TX_FULL},
    };
    struct wb__idem_job job =
        job_of(store, call->op, call->token, move[call->verb].tx);

    job.job.run = move[call->verb].run;
    job.record = &call->record;
    job.lease_ms = call->how.lease_ms;
    job.state = WB_IDEM_DOUBTFUL;
    return job;
}

static enum wb_status
run_move(struct wb__idem_job *job, struct wb_err *err)
{
    enum wb_status rc = wb__sql_write(job, err);

    if (rc == WB_OK && job->outcome == WB_FENCED)
        rc = wb__idem_fenced(job->op, err);
    return rc;
}

enum wb_status
wb__sql_complete(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, const struct wb_idem_record *record, struct wb_err *err)
{
    const struct wb__idem_call call = {
        .verb = WB__IDEM_COMPLETE, .op = op, .token = token, .record = *record};
    struct wb__idem_job job = wb__sql_move_job(store, &call);

    return run_move(&job, err);
}

enum wb_status
wb__sql_release(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    const struct wb__idem_call call = {
        .verb = WB__IDEM_RELEASE, .op = op, .token = token};
    struct wb__idem_job job = wb__sql_move_job(store, &call);

    return run_move(&job, err);
}

enum wb_status
wb__sql_extend(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, int64_t lease_ms, struct wb_err *err)
{
    const struct wb__idem_call call = {.verb = WB__IDEM_EXTEND,
        .op = op,
        .token = token,
        .how.lease_ms = lease_ms};
    struct wb__idem_job job = wb__sql_move_job(store, &call);

    return run_move(&job, err);
}

enum wb_status
wb__sql_mark(struct wb_idem *store, const struct wb_idem_op *op, uint64_t token,
    enum wb_idem_state state, struct wb_err *err)
{
    const struct wb__idem_call call = {
        .verb = WB__IDEM_UNKNOWN, .op = op, .token = token};
    struct wb__idem_job job = wb__sql_move_job(store, &call);

    job.state = state;
    return run_move(&job, err);
}

/* ---- without a claim --------------------------------------------------- */

static enum wb_status
run_settle(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    const struct wb_idem_record *r = job->record;
    struct wb__val now = wb__int(wb__db_now(db));
    struct wb__val hold = wb__int(job->sql->face.opts.hold_ms);
    int64_t changed = 0;
    enum wb_status rc;

    if (r == NULL)
        rc = wb__db_run(db, WB__SQL_IDEM_SETTLE_FREE,
            WB__ARGS(AT(job->op), now, hold), &changed, err);
    else
        rc = wb__db_run(db, WB__SQL_IDEM_SETTLE,
            WB__ARGS(AT(job->op), now, hold, ends_of(r, now.i), ttl_of(r),
                wb__int(r->status), wb__blob(r->headers), wb__blob(r->body)),
            &changed, err);
    job->outcome = changed > 0 ? WB_OK : WB_NOTFOUND;
    return rc;
}

enum wb_status
wb__sql_settle(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__idem_job job = job_of(store, op, 0, WB__TX_FULL);
    enum wb_status rc;

    job.job.run = run_settle;
    job.record = record;
    rc = wb__sql_write(&job, err);
    if (rc == WB_OK && job.outcome == WB_NOTFOUND)
        rc = wb__idem_not_unknown(op, err);
    return rc;
}

static enum wb_status
run_store(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    const struct wb_idem_record *r = job->record;
    struct wb_slice fp = {
        (const char *)r->fingerprint.bytes, sizeof(r->fingerprint.bytes)};
    int64_t changed = 0, now_ms = wb__db_now(db);
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_STORE,
        WB__ARGS(AT(job->op), wb__int(0), wb__int(now_ms),
            wb__int(job->sql->face.opts.hold_ms), wb__blob(fp),
            ends_of(r, now_ms), ttl_of(r), wb__int(r->status),
            wb__blob(r->headers), wb__blob(r->body)),
        &changed, err);

    job->outcome = changed > 0 ? WB_OK : WB_BUSY;
    return rc;
}

enum wb_status
wb__sql_store(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__idem_job job = job_of(store, op, 0, WB__TX_FULL);
    enum wb_status rc;

    job.job.run = run_store;
    job.record = record;
    rc = wb__sql_write(&job, err);
    if (rc == WB_OK && job.outcome == WB_BUSY)
        rc = wb__idem_taken(op, err);
    return rc;
}

/* ---- forget ------------------------------------------------------------ */

static void
item_of(const struct wb__idem_row *row, struct wb_idem_item *item)
{
    *item = (struct wb_idem_item){.state = row->state,
        .fingerprint = row->record.fingerprint,
        .ends_ms = row->ends_ms,
        .since_ms = row->since_ms,
        .status = row->record.status,
        .bytes = row->record.headers.len + row->record.body.len};
}

static enum wb_status
run_peek(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, job, &row, err);

    job->outcome = WB_NOTFOUND;
    if (rc != WB_OK)
        return rc == WB_EMPTY ? WB_OK : rc;
    if (!row.over) {
        job->outcome = WB_OK;
        item_of(&row, job->item);
    }
    wb__sql_found_end(db);
    return WB_OK;
}

enum wb_status
wb__sql_peek(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb__idem_job job = job_of(store, op, 0, WB__TX_READ);
    enum wb_status rc;

    job.job.run = run_peek;
    job.item = item;
    rc = wb__sql_read(&job, err);
    return rc != WB_OK ? rc : job.outcome;
}

/* What cannot be read is freed as well: this is the way to mend it. */
static enum wb_status
run_forget(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_job *job = (struct wb__idem_job *)base;
    struct wb__idem_row row = {0};
    enum wb_status rc = wb__sql_find(db, job, &row, err);

    job->outcome = rc == WB_EMPTY || row.over ? WB_NOTFOUND : WB_OK;
    if (rc == WB_OK)
        wb__sql_found_end(db);
    if (rc == WB_EMPTY)
        return WB_OK;
    if (rc != WB_OK && rc != WB_CORRUPT && rc != WB_NEWER)
        return rc;
    if (rc != WB_OK)
        row = (struct wb__idem_row){.state = WB_IDEM_DOUBTFUL};
    item_of(&row, job->item);
    return wb__db_run(
        db, WB__SQL_IDEM_DELETE, WB__ARGS(AT(job->op)), NULL, err);
}

enum wb_status
wb__sql_forget(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb__idem_job job = job_of(store, op, 0, WB__TX_FULL);
    enum wb_status rc;

    job.job.run = run_forget;
    job.item = item;
    rc = wb__sql_write(&job, err);
    return rc != WB_OK ? rc : job.outcome;
}
