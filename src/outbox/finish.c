/* finish.c - end claims, and take the next ones in the same commit.
 *
 * (1) A finish is compare-and-set on (state, token) under the write lock: one
 *     that does not fit is FENCED and changes nothing.
 * (2) A confirmed message that nobody may ask for again is deleted. One with an
 *     id or key of the caller's becomes a tombstone in place: payload gone,
 *     content hash and last token kept. One whose confirm may be repeated
 *     stays as a tombstone for FORGET_MS, gone for everybody else.
 * (3) Every batch of finishes purges a bounded number of rows whose time is
 *     over; single ones do so once in a while. */
#include "outbox/outbox_internal.h"

enum {
    FORGET_MS = 3600000,
    PURGE_MAX = 256,
    ERROR_CHARS = 2048
};

struct finish_op {
    struct wb__op op;
    struct wb_finish *finishes;
    size_t n;
    const struct wb_claim *claim;
    struct wb_batch *batch;
    int64_t now_ms, lease_ms; /* lease_ms: extend */
    bool claimed;             /* *batch is of an earlier run of this one */
    bool healthy;             /* no scope has failed since it succeeded */
};

/* ---- one message ------------------------------------------------------- */

static enum wb_status
find(struct wb_outbox *box, const struct wb_finish *f, struct wb__head *head,
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
    return rc;
}

/* Does the claim still stand? Sets f->status if it does not. */
static enum wb_status
find_claimed(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    struct wb_err *err)
{
    enum wb_status rc = find(box, f, head, err);

    f->status = WB_OK;
    if (rc == WB_EMPTY)
        f->status = WB_NOTFOUND;
    else if (rc == WB_OK && (head->state != WB_STATE_PROCESSING ||
                                head->token != f->token || f->token == 0))
        f->status = WB_FENCED;
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
tombstone(struct wb_outbox *box, struct wb__head *head, int64_t now_ms,
    struct wb_err *err)
{
    int64_t keep_ms = head->keep ? box->opts.keep_delivered_ms : FORGET_MS;
    struct wb_slice hash = {(const char *)head->hash, sizeof(head->hash)};
    struct wb__val none = {.type = WB__NULL};
    enum wb_status rc = head->keep ? wb__head_hash(box, head, err) : WB_OK;

    if (rc != WB_OK)
        return rc;
    return wb__db_run(box->db, WB__SQL_TOMBSTONE,
        WB__ARGS(wb__int(head->seq), wb__int(wb__sat_add(now_ms, keep_ms)),
            head->has_hash ? wb__blob(hash) : none),
        NULL, err);
}

static enum wb_status
confirm(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    int64_t now_ms, struct wb_err *err)
{
    struct wb_slice scope = wb_slice(head->scope);
    enum wb_status rc;

    if (head->keep || !f->forget)
        rc = tombstone(box, head, now_ms, err);
    else
        rc = wb__db_run(
            box->db, WB__SQL_DELETE, WB__ARGS(wb__int(head->seq)), NULL, err);
    if (rc == WB_OK)
        rc = wb__lane_promote(box, wb_slice(head->lane), err);
    if (rc == WB_OK)
        rc = wb__breaker_success(box, scope, f->token, err);
    f->state = WB_STATE_DELIVERED;
    f->due_ms = 0;
    return rc;
}

static enum wb_status
release(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    int64_t now_ms, struct wb_err *err)
{
    struct wb__val none = {.type = WB__NULL};
    /* A clock that was ahead then must not make it wait now. */
    int64_t due_ms = head->claimed_ms < now_ms ? head->claimed_ms : now_ms;
    enum wb_status rc = wb__db_run(box->db, WB__SQL_PENDING,
        WB__ARGS(wb__int(head->seq), wb__int(due_ms), wb__int(1), none), NULL,
        err);

    f->state = WB_STATE_PENDING;
    f->due_ms = due_ms;
    f->attempts = head->attempts > 0 ? head->attempts - 1 : 0;
    if (rc != WB_OK)
        return rc;
    return wb__breaker_pass(box, wb_slice(head->scope), f->token, err);
}

static enum wb_status
count_failure(struct wb_outbox *box, const struct wb_finish *f,
    const struct wb__head *head, struct wb_err *err)
{
    struct wb_slice scope = wb_slice(head->scope);

    if (f->outcome == WB_REJECTED)
        return wb__breaker_pass(box, scope, f->token, err);
    return wb__breaker_failure(box, scope, f->token, f->breaker, err);
}

static enum wb_status
fail(struct wb_outbox *box, struct wb_finish *f, struct wb__head *head,
    int64_t now_ms, struct wb_err *err)
{
    char text[4 * ERROR_CHARS + 1];
    struct wb_slice error = {text, wb__one_line(f->error, ERROR_CHARS, text)};
    struct wb_attempt attempt = {
        .outcome = f->outcome == WB_DELIVERED ? WB_RETRY : f->outcome,
        .number = head->attempts,
        .now_ms = now_ms,
        .retry_after_ms = f->retry_after_ms,
        .random = wb__outbox_random(box)};
    struct wb_decision d = wb_retry_decide(f->retry, &attempt);
    enum wb_status rc;

    if (d.verdict == WB_VERDICT_DEAD) {
        f->state = WB_STATE_ABANDONED;
        f->due_ms = 0;
        rc = wb__abandon(
            box, head->seq, wb_slice(head->lane), d.why, error, err);
    } else {
        f->state = WB_STATE_PENDING;
        f->due_ms = d.at_ms > f->not_before_ms ? d.at_ms : f->not_before_ms;
        rc = wb__db_run(box->db, WB__SQL_PENDING,
            WB__ARGS(wb__int(head->seq), wb__int(f->due_ms), wb__int(0),
                wb__text_or_null(error)),
            NULL, err);
    }
    return rc != WB_OK ? rc : count_failure(box, f, head, err);
}

/* The usual end in one statement: a confirm that leaves nothing behind, with
 * nobody waiting for it. EMPTY: it is not that, or the claim does not stand.
 * The attempts are the caller's: SQLite makes a table for what a statement
 * returns, which costs as much as the deleting. */
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
    f->status = WB_OK;
    f->state = WB_STATE_DELIVERED;
    f->due_ms = 0;
    return WB_OK;
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
    if (f->status == WB_FENCED && f->end == WB_CONFIRM &&
        head.state == WB_STATE_DELIVERED && head.token == f->token) {
        f->status = WB_OK; /* confirmed before, by the same claim */
        f->state = WB_STATE_DELIVERED;
        f->due_ms = 0;
        return WB_OK;
    }
    if (f->status == WB_FENCED)
        return WB_OK;
    switch (f->end) {
    case WB_CONFIRM:
        return confirm(box, f, &head, now_ms, err);
    case WB_RELEASE:
        return release(box, f, &head, now_ms, err);
    case WB_FAIL:
        break;
    }
    return fail(box, f, &head, now_ms, err);
}

/* ---- the operations ---------------------------------------------------- */

static enum wb_status
purge(struct wb_outbox *box, int64_t now_ms, struct wb_err *err)
{
    static const enum wb_state ended[] = {
        WB_STATE_DELIVERED, WB_STATE_ABANDONED};
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < WB_COUNT(ended) && rc == WB_OK; i++)
        rc = wb__db_run(box->db, WB__SQL_PURGE,
            WB__ARGS(wb__text(wb_slice(wb_state_name(ended[i]))),
                wb__int(now_ms), wb__int(PURGE_MAX)),
            NULL, err);
    return rc;
}

static enum wb_status
is_healthy(struct wb_outbox *box, bool *healthy, struct wb_err *err)
{
    int64_t one;
    enum wb_status rc =
        wb__db_one_int(box->db, WB__SQL_BREAKER_ANY, WB__NO_ARGS, &one, err);

    *healthy = rc == WB_EMPTY;
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
finish_next(struct wb_outbox *box, struct finish_op *o, struct wb_finish *f,
    struct wb_err *err)
{
    enum wb_status rc = o->healthy ? confirm_plain(box, f, err) : WB_EMPTY;

    if (rc != WB_EMPTY)
        return rc;
    o->healthy = o->healthy && f->end == WB_CONFIRM;
    return finish_one(box, f, o->now_ms, err);
}

static enum wb_status
finish_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct finish_op *o = (struct finish_op *)op;
    enum wb_status rc = o->n == 0 ? WB_OK : is_healthy(box, &o->healthy, err);

    o->now_ms = wb__outbox_now(box);
    for (size_t i = 0; i < o->n && rc == WB_OK; i++)
        rc = finish_next(box, o, &o->finishes[i], err);
    if (rc == WB_OK && o->n > 0 && wb__outbox_random(box) % 64 < o->n)
        rc = purge(box, o->now_ms, err);
    if (rc != WB_OK || o->claim == NULL)
        return rc;
    if (o->claimed)
        wb__claim_undo(o->claim, o->batch);
    o->claimed = true;
    return wb__claim_run(box, o->claim, o->batch, err);
}

static void
finish_lanes(const struct wb__db_job *job, struct wb__lanes *lanes)
{
    const struct finish_op *o = (const struct finish_op *)job;

    for (size_t i = 0; i < o->n; i++)
        wb__lanes_add_id(lanes, &o->finishes[i].id);
}

static enum wb_status
check_claim(const struct wb_claim *claim, struct wb_err *err)
{
    if (claim != NULL && claim->lease_ms < 0)
        return wb__fail(err, WB_INVALID, 0, "claim: a lease below zero");
    for (size_t i = 0; claim != NULL && i < claim->n_sources; i++)
        if (claim->sources[i].scope.len >=
            sizeof(((struct wb__head *)0)->scope))
            return wb__fail(err, WB_INVALID, 0,
                "claim: the scope \"%.*s\" is longer than 255 bytes",
                WB_SHOW(claim->sources[i].scope));
    return WB_OK;
}

static enum wb_status
run_finish(struct wb_outbox *box, struct finish_op *o, struct wb_err *err)
{
    enum wb_status rc = wb__outbox_run(box, &o->op, err);

    if (rc != WB_OK && o->claim != NULL)
        wb__claim_undo(o->claim, o->batch);
    return rc;
}

enum wb_status
wb_outbox_finish(struct wb_outbox *box, struct wb_finish *finishes, size_t n,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err)
{
    struct finish_op o = {
        .op = {.run = finish_run, .lanes = finish_lanes, .tx = WB__TX_FULL},
        .finishes = finishes,
        .n = n,
        .claim = claim,
        .batch = batch};
    enum wb_status rc = check_claim(claim, err);

    WB_ASSERT(claim == NULL || batch != NULL);
    if (batch != NULL)
        wb_batch_free(batch);
    return rc != WB_OK ? rc : run_finish(box, &o, err);
}

static enum wb_status
peek_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct finish_op *o = (struct finish_op *)op;
    enum wb_status rc = wb__claim_peek(box, o->claim, o->batch, err);

    o->claimed = rc == WB_OK;
    return rc == WB_EMPTY ? WB_OK : rc;
}

/* An idle worker takes no write lock: it looks first, unless there was more
 * the last time. */
enum wb_status
wb_outbox_claim(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    struct finish_op look = {.op = {.run = peek_run, .tx = WB__TX_READ},
        .claim = claim,
        .batch = batch};
    struct finish_op take = {.op = {.run = finish_run, .tx = WB__TX_RELAXED},
        .claim = claim,
        .batch = batch};
    enum wb_status rc = check_claim(claim, err);

    wb_batch_free(batch);
    look.claimed = !atomic_load(&box->last_claim_empty);
    if (rc == WB_OK && !look.claimed)
        rc = run_finish(box, &look, err);
    if (rc == WB_OK && look.claimed)
        rc = run_finish(box, &take, err);
    return rc == WB_OK && batch->len == 0 ? WB_EMPTY : rc;
}

static enum wb_status
finish_alone(struct wb_outbox *box, struct wb_finish *f, const char *what,
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

    return finish_alone(box, &f, "confirm", err);
}

enum wb_status
wb_outbox_release(struct wb_outbox *box, const struct wb_id *id, uint64_t token,
    struct wb_err *err)
{
    struct wb_finish f = {.id = *id, .token = token, .end = WB_RELEASE};

    return finish_alone(box, &f, "release", err);
}

enum wb_status
wb_outbox_fail(
    struct wb_outbox *box, struct wb_finish *finish, struct wb_err *err)
{
    finish->end = WB_FAIL;
    return finish_alone(box, finish, "fail", err);
}

/* ---- extend, reset ----------------------------------------------------- */

static enum wb_status
extend_one(struct wb_outbox *box, struct wb_finish *f, int64_t now_ms,
    int64_t lease_ms, struct wb_err *err)
{
    int64_t end_ms = wb__sat_add(now_ms, lease_ms);
    struct wb__head head;
    enum wb_status rc = find_claimed(box, f, &head, err);

    if (rc != WB_OK || f->status != WB_OK)
        return rc;
    f->state = WB_STATE_PROCESSING;
    f->attempts = head.attempts;
    f->due_ms = end_ms;
    rc = wb__db_run(box->db, WB__SQL_EXTEND,
        WB__ARGS(wb__int(head.seq), wb__int(end_ms), wb__int(now_ms)), NULL,
        err);
    if (rc != WB_OK)
        return rc;
    return wb__breaker_extend(box, wb_slice(head.scope), f->token, end_ms, err);
}

static enum wb_status
extend_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct finish_op *o = (struct finish_op *)op;
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < o->n && rc == WB_OK; i++)
        rc = extend_one(
            box, &o->finishes[i], wb__outbox_now(box), o->lease_ms, err);
    return rc;
}

enum wb_status
wb_outbox_extend(struct wb_outbox *box, struct wb_finish *claims, size_t n,
    int64_t lease_ms, struct wb_err *err)
{
    struct finish_op o = {.op = {.run = extend_run, .tx = WB__TX_RELAXED},
        .finishes = claims,
        .n = n,
        .lease_ms = lease_ms};

    if (lease_ms <= 0)
        return wb__fail(err, WB_INVALID, 0, "extend: a lease must be above 0");
    return wb__outbox_run(box, &o.op, err);
}

struct reset_op {
    struct wb__op op;
    int64_t older_ms, n;
};

static enum wb_status
reset_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct reset_op *o = (struct reset_op *)op;
    int64_t now_ms = wb__outbox_now(box);
    int64_t before_ms =
        o->older_ms < 0 ? INT64_MIN : wb__sat_add(now_ms, -o->older_ms);

    const struct wb__args args = WB__ARGS(wb__int(now_ms), wb__int(before_ms));
    enum wb_status rc =
        wb__db_run(box->db, WB__SQL_RESET_PROBES, args, NULL, err);

    return rc != WB_OK
               ? rc
               : wb__db_run(box->db, WB__SQL_RESET_STALE, args, &o->n, err);
}

enum wb_status
wb_outbox_reset_stale(
    struct wb_outbox *box, int64_t older_ms, uint64_t *n, struct wb_err *err)
{
    struct reset_op o = {
        .op = {.run = reset_run, .tx = WB__TX_FULL}, .older_ms = older_ms};
    enum wb_status rc = wb__outbox_run(box, &o.op, err);

    if (rc == WB_OK)
        *n = (uint64_t)o.n;
    return rc;
}
