/* finish.c - end claims, and take the next ones in the same commit; extend
 * leases; put stale claims back.
 *
 * (1) A finish is compare-and-set on (state, token) under the write lock: one
 *     that does not fit is FENCED and changes nothing.
 * (2) A confirmed message that cannot be sent again is deleted. One with an id
 *     or key of the application's becomes a tombstone: its row stays without
 *     the payload, with content hash and last token. One whose confirm may be
 *     repeated stays as a tombstone for KEEP_CONFIRM_MS, visible only to a
 *     repeated confirm.
 * (3) Every batch of finishes purges a bounded number of rows whose retention
 *     has ended; small batches do so at random, in proportion to their size. */
#include "outbox/outbox_internal.h"

enum {
    KEEP_CONFIRM_MS = 3600000,
    PURGE_MAX = 256,
    ERROR_CHARS = 2048
};

static uint64_t
outbox_random(const struct wb_outbox *box)
{
    uint64_t r;

    box->env->random(box->env->ctx, &r, sizeof(r));
    return r;
}

/* ---- find the claim ------------------------------------------------------- */

/* f->status: OK if the message is leased with this token; else NOTFOUND or
 * FENCED. */
static enum wb_status
find_claimed(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    struct wb_err *err)
{
    enum wb_status rc = WB_EMPTY;

    if (f->seq > 0)
        rc =
            wb__head_find(box, WB__SQL_HEAD_BY_SEQ, wb__int(f->seq), head, err);
    if (rc == WB_OK && strcmp(head->id.text, f->id.text) != 0)
        rc = WB_EMPTY; /* the row was reused, or moved to its lane's tail */
    if (rc == WB_EMPTY)
        rc = wb__head_find(
            box, WB__SQL_HEAD_BY_ID, wb__text(wb_slice(f->id.text)), head, err);
    f->status = WB_OK;
    if (rc == WB_EMPTY)
        f->status = WB_NOTFOUND;
    else if (rc == WB_OK && (head->state != WB_STATE_PROCESSING ||
                                head->token != f->token || f->token == 0))
        f->status = WB_FENCED;
    return rc == WB_EMPTY ? WB_OK : rc;
}

/* ---- confirm -------------------------------------------------------------- */

static void
set_delivered(struct wb_finish *f)
{
    f->status = WB_OK;
    f->state = WB_STATE_DELIVERED;
    f->due_ms = 0;
}

static enum wb_status
confirm(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    int64_t now_ms, struct wb_err *err)
{
    int64_t keep_ms =
        head->keep ? box->opts.keep_delivered_ms : KEEP_CONFIRM_MS;
    struct wb_slice hash = {(const char *)head->hash, sizeof(head->hash)};
    struct wb__val none = {.type = WB__NULL};
    enum wb_status rc = head->keep ? wb__head_hash(box, head, err) : WB_OK;

    if (rc == WB_OK && f->forget && !head->keep)
        rc = wb__row_delete(box, head->seq, err);
    else if (rc == WB_OK)
        rc = wb__db_run(box->db, WB__SQL_TOMBSTONE,
            WB__ARGS(wb__int(head->seq), wb__int(wb__sat_add(now_ms, keep_ms)),
                head->has_hash ? wb__blob(hash) : none, wb__int(now_ms)),
            NULL, err);
    if (rc == WB_OK && head->keep && head->attempts > 1)
        rc = wb__history_add(box, head, f, WB_DELIVERED, now_ms, err);
    if (rc == WB_OK)
        rc = wb__head_promote(box, head, err);
    if (rc == WB_OK)
        rc = wb__breaker_success(box, wb_slice(head->scope), f->token, err);
    set_delivered(f);
    return rc;
}

/* The usual confirm in one statement: no trace is kept, the message has no lane
 * and no breaker has a row. EMPTY: it is another one, or the claim does not
 * hold. The attempts must be known: to return them from the statement SQLite
 * builds a temporary table, which costs as much as the deletion. */
static enum wb_status
confirm_plain(struct wb_outbox *box, struct wb_finish *f, struct wb_err *err)
{
    int64_t changed = 0;
    enum wb_status rc;

    if (f->end != WB_CONFIRM || !f->forget || f->token == 0 || f->attempts == 0)
        return WB_EMPTY;
    rc = wb__db_run(box->db, WB__SQL_CONFIRM,
        WB__ARGS(wb__int(f->seq), wb__text(wb_slice(f->id.text)),
            wb__int((int64_t)f->token)),
        &changed, err);
    if (rc != WB_OK || changed == 0)
        return rc == WB_OK ? WB_EMPTY : rc;
    set_delivered(f);
    return WB_OK;
}

/* ---- retry, abandon, release ---------------------------------------------- */

/* A delivery failed: the retry policy decides between retry and abandon. */
static enum wb_status
fail(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    int64_t now_ms, struct wb_err *err)
{
    char text[4 * ERROR_CHARS + 1];
    struct wb_slice error = {text, wb__one_line(f->error, ERROR_CHARS, text)};
    struct wb_slice scope = wb_slice(head->scope);
    struct wb_attempt attempt = {
        .outcome = f->outcome == WB_DELIVERED ? WB_RETRY : f->outcome,
        .number = head->attempts,
        .now_ms = now_ms,
        .retry_after_ms = f->retry_after_ms,
        .random = outbox_random(box)};
    struct wb_decision d = wb_retry_decide(f->retry, &attempt);
    int64_t rest_ms = f->rest ? wb__retry_after_ms(f->retry, &attempt) : 0;
    bool free_attempt = rest_ms > 0 && f->no_attempt;
    enum wb_status rc =
        wb__history_add(box, head, f, attempt.outcome, now_ms, err);

    if (rc != WB_OK)
        return rc;
    if (free_attempt)
        d = (struct wb_decision){
            .verdict = WB_VERDICT_RETRY, .at_ms = wb__sat_add(now_ms, rest_ms)};
    if (d.verdict == WB_VERDICT_RETRY) {
        f->state = WB_STATE_PENDING;
        f->due_ms = d.at_ms > f->not_before_ms ? d.at_ms : f->not_before_ms;
        rc = wb__db_run(box->db, WB__SQL_PENDING,
            WB__ARGS(wb__int(head->seq), wb__int(f->due_ms),
                wb__int(free_attempt && head->attempts > 0),
                wb__text_or_null(error)),
            NULL, err);
    } else {
        WB_ASSERT(d.verdict == WB_VERDICT_DEAD);
        f->state = WB_STATE_ABANDONED;
        f->due_ms = 0;
        rc = wb__abandon(
            box, head->seq, (struct wb_slice){0}, d.why, error, err);
        if (rc == WB_OK)
            rc = wb__head_promote(box, head, err);
    }
    if (rc != WB_OK)
        return rc;
    if (rest_ms > 0)
        return wb__breaker_rest(box, scope, f->token, rest_ms, err);
    /* A rejected message says nothing about its destination. */
    return f->outcome == WB_REJECTED || f->not_counted
               ? wb__breaker_extend(box, scope, f->token, 0, err)
               : wb__breaker_failure(box, scope, f->token, f->breaker, err);
}

static enum wb_status
release(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    int64_t now_ms, struct wb_err *err)
{
    char text[4 * ERROR_CHARS + 1];
    struct wb_slice error = {text, wb__one_line(f->error, ERROR_CHARS, text)};
    enum wb_status rc;

    f->state = WB_STATE_PENDING;
    /* If the clock was ahead when it was claimed, it is due now. */
    f->due_ms = head->claimed_ms < now_ms ? head->claimed_ms : now_ms;
    if (f->not_before_ms > 0)
        f->due_ms = f->not_before_ms;
    f->attempts = head->attempts > 0 ? head->attempts - 1 : 0;
    rc = wb__db_run(box->db, WB__SQL_PENDING,
        WB__ARGS(wb__int(head->seq), wb__int(f->due_ms),
            wb__int(head->attempts > 0), wb__text_or_null(error)),
        NULL, err);
    if (rc != WB_OK)
        return rc;
    return wb__breaker_extend(box, wb_slice(head->scope), f->token, 0, err);
}

/* ---- finish --------------------------------------------------------------- */

struct finish_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    struct wb_finish *finishes;
    size_t n;
    const struct wb_claim *claim; /* NULL: none */
    struct wb_batch *batch;
};

/* The scope that the finish names; it is kept with the message, if that stays,
 * for its next claim. */
static enum wb_status
scope_set(struct wb_outbox *box, const struct wb_finish *f,
    struct wb__head *head, struct wb_err *err)
{
    if (f->scope.len >= sizeof(head->scope))
        return wb__fail(err, WB_INVALID, 0,
            "finish %s: the scope is longer than 255 bytes", f->id.text);
    memcpy(head->scope, f->scope.ptr, f->scope.len);
    head->scope[f->scope.len] = '\0';
    return f->end == WB_CONFIRM
               ? WB_OK
               : wb__db_run(box->db, WB__SQL_SCOPE,
                     WB__ARGS(wb__int(head->seq), wb__text(f->scope)), NULL,
                     err);
}

static enum wb_status
finish_one(struct wb_outbox *box, struct wb_finish *f, int64_t now_ms,
    struct wb_err *err)
{
    struct wb__head head;
    enum wb_status rc = find_claimed(box, f, &head, err);

    if (rc != WB_OK || f->status == WB_NOTFOUND)
        return rc;
    f->attempts = head.attempts;
    box->breaker_change = WB_BREAKER_SAME;
    if (f->status == WB_FENCED) {
        if (f->end == WB_CONFIRM && head.state == WB_STATE_DELIVERED &&
            head.token == f->token)
            set_delivered(f); /* confirmed before, by the same claim */
        return WB_OK;
    }
    if (f->scope.len > 0 && (!wb__eq(f->scope, wb_slice(head.scope)) ||
                                wb__eq(f->scope, wb_slice(head.kind))))
        rc = scope_set(box, f, &head, err);
    if (rc != WB_OK)
        return rc;
    switch (f->end) {
    case WB_CONFIRM:
        rc = confirm(box, f, &head, now_ms, err);
        break;
    case WB_FAIL:
        rc = fail(box, f, &head, now_ms, err);
        break;
    case WB_RELEASE:
        rc = release(box, f, &head, now_ms, err);
        break;
    }
    f->breaker_change = box->breaker_change;
    WB_ASSERT(rc != WB_OK || wb__state_may(head.state, f->state));
    return rc;
}

static enum wb_status
finish_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    static const enum wb_state ended[] = {
        WB_STATE_DELIVERED, WB_STATE_ABANDONED};
    struct finish_op *o = (struct finish_op *)job;
    struct wb_outbox *box = o->box;
    int64_t one, now_ms = wb__outbox_now(box);
    bool purge, healthy = false; /* no breaker has a row */
    enum wb_status rc;

    rc = wb__clock_check(box, now_ms, err);
    if (rc == WB_OK && o->n > 0) {
        rc = wb__db_one_int(db, WB__SQL_BREAKER_ANY, WB__NO_ARGS, &one, err);
        healthy = rc == WB_EMPTY;
        rc = healthy ? WB_OK : rc;
    }
    for (size_t i = 0; i < o->n && rc == WB_OK; i++) {
        struct wb_finish *f = &o->finishes[i];

        rc = healthy ? confirm_plain(box, f, err) : WB_EMPTY;
        if (rc == WB_EMPTY) {
            healthy = healthy && f->end == WB_CONFIRM;
            rc = finish_one(box, f, now_ms, err);
        }
    }
    purge = rc == WB_OK && o->n > 0 && outbox_random(box) % 64 < o->n;
    for (size_t i = 0; i < WB_COUNT(ended) && purge && rc == WB_OK; i++)
        rc = wb__db_run(db, WB__SQL_PURGE,
            WB__ARGS(wb__text(wb_slice(wb_state_name(ended[i]))),
                wb__int(wb__clock_trusted(box, now_ms)), wb__int(PURGE_MAX)),
            NULL, err);
    if (rc == WB_OK && o->claim != NULL)
        rc = wb__claim_run(box, o->claim, o->batch, err);
    return rc;
}

static void
finish_lanes(const struct wb__db_job *job, struct wb__lanes *lanes)
{
    const struct finish_op *o = (const struct finish_op *)job;

    for (size_t i = 0; i < o->n; i++)
        wb__lanes_add_id(lanes, &o->finishes[i].id);
}

enum wb_status
wb_outbox_finish(struct wb_outbox *box, struct wb_finish *finishes, size_t n,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err)
{
    struct finish_op o = {
        .job = {.run = finish_run, .lanes = finish_lanes, .tx = WB__TX_FULL},
        .box = box,
        .finishes = finishes,
        .n = n,
        .claim = claim,
        .batch = batch};
    enum wb_status rc = claim == NULL ? WB_OK : wb__claim_check(claim, err);

    WB_ASSERT(claim == NULL || batch != NULL);
    if (batch != NULL)
        wb_batch_free(batch);
    if (rc == WB_OK)
        rc = wb__commit_group_run(&box->group, &o.job, err);
    if (rc != WB_OK && claim != NULL)
        wb__claim_undo(claim, batch);
    return rc;
}

static enum wb_status
finish_single(struct wb_outbox *box, struct wb_finish *f, const char *what,
    struct wb_err *err)
{
    enum wb_status rc = wb_outbox_finish(box, f, 1, NULL, NULL, err);

    if (rc != WB_OK)
        return rc;
    if (f->status == WB_FENCED)
        return wb__fail(err, WB_FENCED, 0,
            "%s %s: fenced: the lease was lost, or the token is another's; "
            "nothing changed",
            what, f->id.text);
    if (f->status == WB_NOTFOUND)
        return wb__fail(
            err, WB_NOTFOUND, 0, "%s %s: no such message", what, f->id.text);
    return WB_OK;
}

enum wb_status
wb_outbox_confirm(struct wb_outbox *box, const struct wb_id *id, uint64_t token,
    struct wb_err *err)
{
    struct wb_finish f = {.id = *id, .token = token, .end = WB_CONFIRM};

    return finish_single(box, &f, "confirm", err);
}

enum wb_status
wb_outbox_fail(
    struct wb_outbox *box, struct wb_finish *finish, struct wb_err *err)
{
    finish->end = WB_FAIL;
    return finish_single(box, finish, "fail", err);
}

enum wb_status
wb_outbox_release(struct wb_outbox *box, const struct wb_id *id, uint64_t token,
    struct wb_err *err)
{
    struct wb_finish f = {.id = *id, .token = token, .end = WB_RELEASE};

    return finish_single(box, &f, "release", err);
}

/* ---- extend --------------------------------------------------------------- */

struct extend_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    struct wb_finish *claims;
    size_t n;
    int64_t lease_ms;
};

static enum wb_status
extend_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct extend_op *o = (struct extend_op *)job;
    enum wb_status rc = wb__clock_check(o->box, wb__outbox_now(o->box), err);

    for (size_t i = 0; i < o->n && rc == WB_OK; i++) {
        int64_t now_ms = wb__outbox_now(o->box);
        int64_t end_ms = wb__sat_add(now_ms, o->lease_ms);
        struct wb_finish *f = &o->claims[i];
        struct wb__head head;

        rc = find_claimed(o->box, f, &head, err);
        if (rc != WB_OK || f->status != WB_OK)
            continue;
        f->state = WB_STATE_PROCESSING;
        f->attempts = head.attempts;
        f->due_ms = end_ms;
        rc = wb__db_run(db, WB__SQL_EXTEND,
            WB__ARGS(wb__int(head.seq), wb__int(end_ms), wb__int(now_ms)), NULL,
            err);
        if (rc == WB_OK)
            rc = wb__breaker_extend(
                o->box, wb_slice(head.scope), f->token, end_ms, err);
    }
    return rc;
}

enum wb_status
wb_outbox_extend(struct wb_outbox *box, struct wb_finish *claims, size_t n,
    int64_t lease_ms, struct wb_err *err)
{
    struct extend_op o = {.job = {.run = extend_run, .tx = WB__TX_RELAXED},
        .box = box,
        .claims = claims,
        .n = n,
        .lease_ms = lease_ms};

    if (lease_ms <= 0)
        return wb__fail(err, WB_INVALID, 0, "extend: a lease must be above 0");
    return wb__commit_group_run(&box->group, &o.job, err);
}

/* ---- reset_stale ---------------------------------------------------------- */

struct reset_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    int64_t older_ms, n;
};

static enum wb_status
reset_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct reset_op *o = (struct reset_op *)job;
    int64_t now_ms = wb__outbox_now(o->box);
    int64_t before_ms =
        o->older_ms < 0 ? INT64_MIN : wb__sat_add(now_ms, -o->older_ms);
    const struct wb__args args = WB__ARGS(wb__int(now_ms), wb__int(before_ms));
    enum wb_status rc = wb__db_run(db, WB__SQL_RESET_PROBES, args, NULL, err);

    if (rc == WB_OK)
        rc = wb__db_run(db, WB__SQL_RESET_STALE, args, &o->n, err);
    return rc;
}

enum wb_status
wb_outbox_reset_stale(
    struct wb_outbox *box, int64_t older_ms, uint64_t *n, struct wb_err *err)
{
    struct reset_op o = {.job = {.run = reset_run, .tx = WB__TX_FULL},
        .box = box,
        .older_ms = older_ms};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);

    if (rc == WB_OK)
        *n = (uint64_t)o.n;
    return rc;
}
