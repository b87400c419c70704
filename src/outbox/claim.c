/* claim.c - lease the oldest due messages over several kinds.
 *
 * Each kind has its oldest row at the front of one index. A claim reads the
 * front of every kind it may take from, then takes rows of the kind with the
 * oldest front up to where the second oldest begins, and so on: a merge, whose
 * cost depends on the number of kinds and of rows taken, not on how many
 * messages wait.
 *
 * (1) Rows are copied before they are changed, and changed in the same
 *     transaction: a claim that fails has leased nothing.
 * (2) The batch is in the order (due, seq).
 * (3) A half-open scope gives one row and is then closed to the rest of the
 *     claim.
 * (4) A message whose scope is its own and held (the breaker is open, or its
 *     worker says so) is deferred: its due time becomes the end of that. Its
 *     attempts stay, and it is not in the way of later claims.
 * (5) Of the messages whose lease ran out one is leased at a time, so that one
 *     that kills its worker takes no attempt from the others again and again.
 * (6) One damaged row is abandoned, and does not keep the others back.
 * (7) The number of messages that a claim abandons or defers, and the bytes it
 *     copies, are bounded: the next claim continues. */
#include <stdio.h>

#include "outbox/claim.h"

enum {
    ENDED_MAX = 1000,
    BYTES_MAX = 16 << 20,
    PROBE_WAIT_MS = 2000, /* until the others of its scope are tried again */
    LOCKED_MS = 50 /* until rows that another transaction locked are tried */
};

#define ATTEMPTS_MAX UINT32_C(4000000000) /* as the tables have it */

/* ---- rows ----------------------------------------------------------------- */

static bool
is_half_open(const struct wb__breaker *b)
{
    return b != NULL && b->open_until_ms != 0;
}

/* Copy the due rows of a front up to limit into c->row: a slice of a statement
 * is valid until its next step only, and rows must not change while a statement
 * walks over them. */
static enum wb_status
copy_rows(struct wb__claiming *c, const struct wb__front *f,
    struct wb__bound limit, struct wb_err *err)
{
    const enum wb__sql sql = c->no_stale ? WB__SQL_FRESH : WB__SQL_DUE;
    size_t want = c->max - c->batch->len;
    enum wb_status rc;

    if (f->source != NULL && f->source->slots != NULL &&
        *f->source->slots < want)
        want = *f->source->slots;
    if (wb__rate_left(f) < want)
        want = wb__rate_left(f);
    if (is_half_open(f->breaker))
        want = 1; /* the probe */
    c->n_rows = 0;
    rc = wb__db_start(c->box->db, sql,
        WB__ARGS(wb__text(f->kind), wb__int(limit.due_ms), wb__int(limit.seq),
            wb__int((int64_t)want)),
        err);
    if (rc != WB_OK)
        return rc;
    while (c->n_rows < want && c->bytes < BYTES_MAX &&
           (rc = wb__db_next(c->box->db, sql, err)) == WB_OK) {
        struct wb_row *r = &c->row[c->n_rows];

        wb__row_read(c->box, sql, true, r);
        if (!wb__row_copy(c->arena, r)) {
            rc = wb__nomem(err, "claim");
            break;
        }
        c->bytes += sizeof(*r) + r->payload.len;
        c->n_rows++;
    }
    wb__db_end(c->box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

/* Its lease ran out: the worker that had it may have died of it. */
static bool
is_stale(const struct wb_row *r)
{
    return r->state == WB_STATE_PROCESSING || r->reason.len > 0;
}

static enum wb_status
row_lease(struct wb__claiming *c, struct wb__front *f, const struct wb_row *r,
    struct wb_slice scope, struct wb__breaker *breaker, struct wb_err *err)
{
    int64_t end_ms = wb__sat_add(c->now_ms, c->lease_ms);
    bool scoped = !wb__eq(scope, r->kind);
    uint64_t token;
    enum wb_status rc;

    WB_ASSERT(wb__state_may(r->state, WB_STATE_PROCESSING));
    do
        wb__random_take(c->box, c->now_ms, &token, sizeof(token));
    while (token == 0);
    rc = wb__db_run(c->box->db, WB__SQL_LEASE,
        WB__ARGS(wb__int(r->seq), wb__int((int64_t)token), wb__int(end_ms),
            wb__int(c->now_ms),
            wb__text_or_null(scoped ? scope : (struct wb_slice){0})),
        NULL, err);
    if (rc == WB_OK && is_half_open(breaker)) {
        breaker->probe_token = token;
        breaker->probe_until_ms = end_ms;
        rc = wb__breaker_put(c->box, breaker, err);
    }
    if (rc != WB_OK)
        return rc;
    WB_ASSERT(c->batch->len < c->max && !wb__front_full(f));
    c->batch->row[c->batch->len++] = (struct wb_claimed){.id = r->id,
        .seq = r->seq,
        .token = token,
        .attempts = r->attempts + 1,
        .source = f->index,
        .stale = is_stale(r),
        .created_ms = r->created_ms,
        .expires_ms = r->expires_ms,
        .lease_end_ms = end_ms,
        .kind = r->kind,
        .scope = scope,
        .key = r->key,
        .lane = r->lane,
        .payload = r->payload,
        .content_type = r->content_type,
        .headers = r->headers};
    c->no_stale = c->no_stale || is_stale(r);
    if (f->source != NULL && f->source->slots != NULL)
        (*f->source->slots)--;
    wb__rate_take(f);
    return WB_OK;
}

/* Another claim may have become the probe of a half-open breaker since the
 * breakers were read: lock the row and read it again. *free_ms: when a message
 * may go out through it. */
static enum wb_status
breaker_recheck(struct wb__claiming *c, struct wb__breaker *b, int64_t *free_ms,
    struct wb_err *err)
{
    char scope[sizeof(b->scope)];
    enum wb_status rc;

    memcpy(scope, b->scope, sizeof(scope));
    *free_ms = wb__breaker_free_ms(b, c->now_ms);
    if (!is_half_open(b) || *free_ms > c->now_ms)
        return WB_OK;
    rc = wb__breaker_find(c->box, wb_slice(scope), b, err);
    *free_ms = wb__breaker_free_ms(b, c->now_ms);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
row_defer(struct wb__claiming *c, const struct wb_row *r, int64_t until_ms,
    struct wb_err *err)
{
    c->batch->deferred++;
    return wb__db_run(c->box->db, WB__SQL_DEFER,
        WB__ARGS(wb__int(r->seq), wb__int(until_ms)), NULL, err);
}

/* Lease a row, unless its scope is held: then it is due when that ends, and not
 * in the way of the others until then. Where the worker holds it, 1 ms after
 * the one before it; if the claim is limited by due_by, behind all others that
 * are due by then. */
static enum wb_status
row_lease_or_defer(struct wb__claiming *c, struct wb__front *f,
    const struct wb_row *r, struct wb_err *err)
{
    struct wb__breaker *b = f->breaker;
    const struct wb_hold *hold = NULL;
    int64_t free_ms = 0;
    enum wb_status rc = WB_OK;

    if (f->source == NULL || !f->source->scope_by_message)
        return row_lease(c, f, r, f->scope, b, err);
    b = wb__breakers_find(&c->breakers, r->scope);
    if (b != NULL)
        rc = breaker_recheck(c, b, &free_ms, err);
    if (rc == WB_OK && free_ms > c->now_ms) {
        rc = wb__batch_blocked(c, r->scope, err);
        /* The probe may succeed long before its lease ends. */
        if (b->probe_token != 0 && free_ms > c->now_ms + PROBE_WAIT_MS)
            free_ms = c->now_ms + PROBE_WAIT_MS;
        return rc != WB_OK ? rc : row_defer(c, r, free_ms, err);
    }
    for (size_t i = 0; i < c->claim->n_holds && rc == WB_OK; i++)
        if (wb__eq(c->claim->holds[i].scope, r->scope))
            hold = &c->claim->holds[i];
    if (rc != WB_OK || hold == NULL)
        return rc != WB_OK ? rc : row_lease(c, f, r, r->scope, b, err);
    if (c->claim->due_by_ms <= 0)
        return row_defer(
            c, r, hold->until_ms + (int64_t)c->batch->deferred, err);
    if (r->due_ms < c->due_by_ms)
        return row_defer(c, r, c->due_by_ms, err);
    f->locked = true;
    return WB_OK;
}

/* Lease a row, or abandon it if it must not be delivered any more. One whose
 * lease ran out is left where another such row is taken. */
static enum wb_status
row_take(struct wb__claiming *c, struct wb__front *f, const struct wb_row *r,
    struct wb_err *err)
{
    uint32_t most = f->source == NULL || f->source->max_attempts == 0
                        ? 8
                        : f->source->max_attempts;
    const char *reason = NULL, *column = wb__row_malformed(r);
    char error[96] = "";

    if (column == NULL && !wb__state_may(r->state, WB_STATE_PROCESSING))
        return wb__fail(err, WB_CORRUPT, 0,
            "row %lld is %s, but the index has it among those that wait; "
            "restore a backup",
            (long long)r->seq, wb_state_name(r->state));
    if (column != NULL) {
        reason = "malformed";
        (void)snprintf(
            error, sizeof(error), "the row's %s is not valid", column);
    } else if (r->expires_ms != 0 && r->expires_ms <= c->now_ms)
        reason = "expired";
    else if (r->attempts >= most && is_stale(r))
        reason = "lease ran out"; /* by itself, or put back by reset_stale() */
    else if (r->attempts >= ATTEMPTS_MAX) {
        reason = "attempts";
        (void)snprintf(error, sizeof(error),
            "its row has more attempts than a message can have; retry sets "
            "them to 0");
    }
    if (reason == NULL)
        return c->no_stale && is_stale(r) ? WB_OK
                                          : row_lease_or_defer(c, f, r, err);
    c->batch->ended++;
    return wb__abandon(c->box, r->seq, r->lane, reason, wb_slice(error), err);
}

static enum wb_status
front_take(struct wb__claiming *c, struct wb__front *f, struct wb__bound limit,
    struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (is_half_open(f->breaker)) {
        int64_t free_ms;

        rc = breaker_recheck(c, f->breaker, &free_ms, err);
        f->ready = rc == WB_OK && free_ms <= c->now_ms;
        if (!f->ready)
            return rc;
    }
    if (f->source != NULL && f->source->rate != NULL &&
        !f->source->rate->locked) {
        rc = wb__rate_read(c, f->source->rate, true, err);
        f->ready = rc == WB_OK && !wb__front_full(f);
        if (!f->ready)
            return rc;
    }
    rc = copy_rows(c, f, limit, err);
    if (rc == WB_OK && c->n_rows == 0) {
        f->locked = true;
        wb__batch_next(c->batch, wb__sat_add(c->now_ms, LOCKED_MS));
    }
    for (size_t i = 0; i < c->n_rows && rc == WB_OK; i++)
        rc = row_take(c, f, &c->row[i], err);
    return rc;
}

static enum wb_status
take_rows(struct wb__claiming *c, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;
    enum wb_status rc = WB_OK;
    struct wb__bound limit;

    c->row = wb__arena_alloc(c->arena, c->max * sizeof(*c->row));
    batch->row = wb__arena_alloc(c->arena, c->max * sizeof(*batch->row));
    if (c->row == NULL || batch->row == NULL)
        return wb__nomem(err, "claim");
    while (rc == WB_OK && batch->len < c->max && c->bytes < BYTES_MAX &&
           batch->ended + batch->deferred < ENDED_MAX) {
        struct wb__front *f = wb__front_oldest(c, &limit);
        size_t ended = batch->ended;
        bool no_stale = c->no_stale;

        if (f == NULL)
            break;
        rc = front_take(c, f, limit, err);
        /* Refresh the fronts that may have changed: this one, those of its
         * breaker, those whose slots are used up; all, once a message whose
         * lease ran out is taken, since others of that kind wait. When a
         * message was abandoned its lane continues, in a front that may be any.
         */
        for (size_t i = 0; i < c->n_fronts && rc == WB_OK; i++) {
            struct wb__front *other = &c->front[i];

            if (other == f || batch->ended > ended || c->no_stale != no_stale ||
                (other->ready && wb__front_full(other)) ||
                (other->breaker != NULL && other->breaker == f->breaker))
                rc = wb__front_refresh(c, other, err);
        }
    }
    /* There is more; or a lane may have gone on in a kind without a front. */
    if (wb__front_oldest(c, &limit) != NULL ||
        (batch->ended > 0 && c->claim->sources == NULL))
        batch->next_due_ms = c->now_ms;
    return rc;
}

/* ---- batch ---------------------------------------------------------------- */

void
wb_batch_free(struct wb_batch *batch)
{
    struct wb__arena *a = batch != NULL ? batch->memory : NULL;

    if (a != NULL) {
        wb__arena_clear(a);
        wb__free(a->env, a);
    }
    if (batch != NULL)
        *batch = (struct wb_batch){0};
}

void
wb__claim_undo(const struct wb_claim *claim, struct wb_batch *batch)
{
    for (size_t i = 0; i < batch->len && claim->sources != NULL; i++) {
        uint32_t *slots = claim->sources[batch->row[i].source].slots;

        if (slots != NULL)
            (*slots)++;
    }
    wb_batch_free(batch);
}

/* ---- the operations ------------------------------------------------------- */

enum wb_status
wb__claim_check(const struct wb_claim *claim, struct wb_err *err)
{
    if (claim->lease_ms < 0)
        return wb__fail(
            err, WB_INVALID, 0, "claim: the lease is below 0; give 0 or more");
    for (size_t i = 0; i < claim->n_sources; i++)
        if (claim->sources[i].scope.len >=
            sizeof(((struct wb__head *)0)->scope))
            return wb__fail(err, WB_INVALID, 0,
                "claim: the scope \"%.*s\" is longer than 255 bytes",
                WB_SHOW(claim->sources[i].scope));
    return WB_OK;
}

/* Empty the batch and read everything that decides what can be taken. */
static enum wb_status
survey(struct wb__claiming *c, struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err)
{
    enum wb_status rc;

    wb__claim_undo(claim, batch); /* of a run that was rolled back */
    *c = (struct wb__claiming){.box = box, .claim = claim, .batch = batch};
    c->now_ms = wb__outbox_now(box);
    c->due_by_ms = claim->due_by_ms > 0 && claim->due_by_ms < c->now_ms
                       ? claim->due_by_ms
                       : c->now_ms;
    c->lease_ms = claim->lease_ms > 0 ? claim->lease_ms : 60000;
    c->no_stale = claim->no_stale;
    c->max = claim->max > 0 ? claim->max : 1;
    if (c->max > WB_CLAIM_MAX)
        c->max = WB_CLAIM_MAX;
    c->arena = batch->memory = wb__alloc(box->env, sizeof(*c->arena));
    if (c->arena == NULL)
        return wb__nomem(err, "claim");
    c->arena->env = box->env;
    rc = wb__breakers_load(box, c->arena, &c->breakers, err);
    if (rc == WB_OK)
        rc = wb__fronts_find(c, err);
    for (size_t i = 0; i < c->n_fronts && rc == WB_OK; i++)
        rc = wb__front_refresh(c, &c->front[i], err);
    return rc;
}

enum wb_status
wb__claim_run(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    struct wb__claiming c;
    enum wb_status rc = survey(&c, box, claim, batch, err);

    if (rc == WB_OK)
        rc = take_rows(&c, err);
    if (rc == WB_OK)
        rc = wb__rates_save(&c, err);
    atomic_store(&box->last_claim_empty, batch->len == 0);
    return rc;
}

struct claim_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    const struct wb_claim *claim;
    struct wb_batch *batch;
    bool pending; /* there may be something to lease */
};

static enum wb_status
query_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct claim_op *o = (struct claim_op *)job;
    struct wb__claiming c;
    struct wb__bound limit;
    enum wb_status rc = survey(&c, o->box, o->claim, o->batch, err);

    (void)db;
    o->pending = rc == WB_OK && wb__front_oldest(&c, &limit) != NULL;
    if (rc == WB_OK && !o->pending)
        rc = wb__clock_went_back(o->box, c.now_ms, &o->pending, err);
    return rc;
}

static enum wb_status
claim_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct claim_op *o = (struct claim_op *)job;
    enum wb_status rc = wb__clock_check(o->box, wb__outbox_now(o->box), err);

    (void)db;
    return rc != WB_OK ? rc : wb__claim_run(o->box, o->claim, o->batch, err);
}

/* A crash of PostgreSQL's server leaves the worker, which goes on to send what
 * it has claimed: such a claim must not be undone. With SQLite worker and
 * database lose their power together, and the sync would double the time to the
 * send. */
static enum wb__tx
claim_tx(const struct wb_outbox *box)
{
    return box->db->engine->side_by_side ? WB__TX_FULL : WB__TX_RELAXED;
}

/* An idle worker takes no write lock: unless the last claim found something, a
 * read transaction finds out first whether there is anything to lease. */
enum wb_status
wb_outbox_claim(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    struct claim_op o = {.box = box,
        .claim = claim,
        .batch = batch,
        .pending = !atomic_load(&box->last_claim_empty)};
    enum wb_status rc = wb__claim_check(claim, err);

    wb_batch_free(batch);
    if (rc == WB_OK && !o.pending) {
        o.job = (struct wb__db_job){.run = query_run, .tx = WB__TX_READ};
        rc = wb__commit_group_run(&box->group, &o.job, err);
    }
    if (rc == WB_OK && o.pending) {
        o.job = (struct wb__db_job){.run = claim_run, .tx = claim_tx(box)};
        rc = wb__commit_group_run(&box->group, &o.job, err);
    }
    if (rc != WB_OK)
        wb__claim_undo(claim, batch);
    return rc == WB_OK && batch->len == 0 ? WB_EMPTY : rc;
}
