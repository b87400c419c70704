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
 * (4) The number of messages that a claim abandons (expired, lease ran out) and
 *     the bytes it copies are bounded: the next claim continues. */
#include <stdio.h>

#include "outbox/outbox_internal.h"

enum {
    ENDED_MAX = 1000,
    BYTES_MAX = 16 << 20,
    LOCKED_MS =
        50 /* until rows locked by another transaction are tried again */
};

/* A position in the order (due, seq). */
struct bound {
    int64_t due_ms, seq;
};

/* A source that is not paused, and its oldest row. A claim merges the fronts,
 * oldest row first. */
struct front {
    const struct wb_source *source; /* NULL: any kind */
    size_t index;
    struct wb_slice kind, scope;
    struct wb__breaker *breaker; /* NULL: it has no row, it is closed */
    struct bound at;
    bool ready;  /* the row at that position may be taken */
    bool locked; /* other transactions have locked its rows */
};

struct claiming {
    struct wb_outbox *box;
    const struct wb_claim *claim;
    struct wb_batch *batch;
    struct wb__arena *arena; /* owned by the batch */
    struct wb__breakers breakers;
    struct wb_slice *paused;
    struct front *front;
    struct wb_row *row; /* copied, not leased yet */
    size_t n_paused, n_fronts, n_rows, max, bytes;
    int64_t now_ms, due_by_ms, lease_ms;
};

/* ---- sources -------------------------------------------------------------- */

/* Read a column of kinds into the arena: KINDS or PAUSED. */
static enum wb_status
read_kinds(struct claiming *c, enum wb__sql sql, struct wb_slice **kinds,
    size_t *n, struct wb_err *err)
{
    struct wb__db *db = c->box->db;
    size_t cap = 0;
    enum wb_status rc = wb__db_start(db, sql, WB__NO_ARGS, err);

    *n = 0;
    *kinds = NULL;
    if (rc != WB_OK)
        return rc;
    while ((rc = wb__db_next(db, sql, err)) == WB_OK) {
        if (!wb__arena_grow(c->arena, kinds, *n, &cap, sizeof(**kinds)) ||
            !wb__arena_dup(c->arena, wb__db_slice(db, sql, 0), &(*kinds)[*n])) {
            rc = wb__nomem(err, "claim");
            break;
        }
        (*n)++;
    }
    wb__db_end(db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static const struct wb_slice *
find_slice(const struct wb_slice *list, size_t n, struct wb_slice s)
{
    for (size_t i = 0; i < n; i++)
        if (wb__eq(list[i], s))
            return &list[i];
    return NULL;
}

/* The position of the first row of a kind. EMPTY: there is none. */
static enum wb_status
first_due(struct claiming *c, struct wb_slice kind, struct bound *first,
    struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_FIRST_DUE;
    struct wb__db *db = c->box->db;
    enum wb_status rc = wb__db_start(db, sql, WB__ARGS(wb__text(kind)), err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        *first = (struct bound){wb__db_int(db, sql, 0), wb__db_int(db, sql, 1)};
    wb__db_end(db, sql);
    return rc;
}

/* Make a front of each source, or of each kind that has messages. A paused kind
 * has none; the batch lists it if one of its messages is due. */
static enum wb_status
resolve_sources(struct claiming *c, struct wb_err *err)
{
    const struct wb_source *sources = c->claim->sources;
    struct wb_batch *batch = c->batch;
    struct wb_slice *kinds = NULL;
    size_t n = c->claim->n_sources;
    enum wb_status rc =
        read_kinds(c, WB__SQL_PAUSED, &c->paused, &c->n_paused, err);

    if (rc == WB_OK && sources == NULL)
        rc = read_kinds(c, WB__SQL_KINDS, &kinds, &n, err);
    if (rc != WB_OK || n == 0)
        return rc;
    c->front = wb__arena_alloc(c->arena, n * sizeof(*c->front));
    batch->paused =
        wb__arena_alloc(c->arena, (c->n_paused + 1) * sizeof(*batch->paused));
    if (c->front == NULL || batch->paused == NULL)
        return wb__nomem(err, "claim");
    for (size_t i = 0; i < n && rc == WB_OK; i++) {
        const struct wb_source *source = sources == NULL ? NULL : &sources[i];
        struct wb_slice kind = source == NULL ? kinds[i] : source->kind;
        const struct wb_slice *paused =
            find_slice(c->paused, c->n_paused, kind);
        struct bound first;

        if (paused == NULL) {
            struct front *f = &c->front[c->n_fronts++];
            struct wb_slice scope =
                source != NULL && source->scope.len > 0 ? source->scope : kind;

            *f = (struct front){.source = source, .index = i, .kind = kind};
            f->breaker = wb__breakers_find(&c->breakers, scope);
            if (!wb__arena_dup(c->arena, scope, &f->scope))
                rc = wb__nomem(err, "claim");
        } else if (find_slice(batch->paused, batch->n_paused, kind) == NULL) {
            rc = first_due(c, kind, &first, err);
            if (rc == WB_OK && first.due_ms <= c->due_by_ms)
                batch->paused[batch->n_paused++] = *paused;
            rc = rc == WB_EMPTY ? WB_OK : rc;
        }
    }
    return rc;
}

/* ---- fronts --------------------------------------------------------------- */

/* A front without free slots is not taken from. */
static bool
front_full(const struct front *f)
{
    return f->source != NULL && f->source->slots != NULL &&
           *f->source->slots == 0;
}

static void
note_next(struct wb_batch *batch, int64_t ms)
{
    if (batch->next_due_ms == 0 || ms < batch->next_due_ms)
        batch->next_due_ms = ms;
}

/* Put a scope whose breaker holds a message back into the batch's list. */
static enum wb_status
note_blocked(struct claiming *c, struct wb_slice scope, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;

    if (find_slice(batch->scopes, batch->n_scopes, scope) != NULL)
        return WB_OK;
    if (batch->scopes == NULL)
        batch->scopes = wb__arena_alloc(
            c->arena, (c->n_fronts + 1) * sizeof(*batch->scopes));
    if (batch->scopes == NULL ||
        !wb__arena_dup(c->arena, scope, &batch->scopes[batch->n_scopes]))
        return wb__nomem(err, "claim");
    batch->n_scopes++;
    batch->reason = WB_NONE_BREAKER_OPEN;
    return WB_OK;
}

/* Read the first row's position, and decide whether it may be taken now. */
static enum wb_status
front_refresh(struct claiming *c, struct front *f, struct wb_err *err)
{
    int64_t free_ms = f->breaker == NULL
                          ? c->now_ms
                          : wb__breaker_free_ms(f->breaker, c->now_ms);
    bool due, blocked = free_ms > c->now_ms;
    enum wb_status rc = first_due(c, f->kind, &f->at, err);

    f->ready = false;
    if (rc != WB_OK || f->locked)
        return rc == WB_EMPTY ? WB_OK : rc;
    due = f->at.due_ms <= c->due_by_ms;
    f->ready = due && !blocked && !front_full(f);
    if (!f->ready && !front_full(f))
        note_next(c->batch, f->at.due_ms > free_ms ? f->at.due_ms : free_ms);
    return due && blocked ? note_blocked(c, f->scope, err) : WB_OK;
}

static bool
is_before(struct bound a, struct bound b)
{
    return a.due_ms < b.due_ms || (a.due_ms == b.due_ms && a.seq < b.seq);
}

/* The ready front with the oldest row, and how far its rows may be taken before
 * those of the second oldest. NULL: none is ready. */
static struct front *
front_oldest(struct claiming *c, struct bound *limit)
{
    struct front *first = NULL, *second = NULL;

    for (size_t i = 0; i < c->n_fronts; i++) {
        struct front *f = &c->front[i];

        if (!f->ready)
            continue;
        if (first == NULL || is_before(f->at, first->at)) {
            second = first;
            first = f;
        } else if (second == NULL || is_before(f->at, second->at)) {
            second = f;
        }
    }
    *limit =
        second == NULL ? (struct bound){c->due_by_ms, INT64_MAX} : second->at;
    return first;
}

/* ---- rows ----------------------------------------------------------------- */

static bool
is_half_open(const struct front *f)
{
    return f->breaker != NULL && f->breaker->open_until_ms != 0;
}

/* Copy the due rows of a front up to limit into c->row: a slice of a statement
 * is valid until its next step only, and rows must not change while a statement
 * walks over them. */
static enum wb_status
copy_rows(struct claiming *c, const struct front *f, struct bound limit,
    struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_DUE;
    size_t want = c->max - c->batch->len;
    enum wb_status rc;

    if (f->source != NULL && f->source->slots != NULL &&
        *f->source->slots < want)
        want = *f->source->slots;
    if (is_half_open(f))
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

static enum wb_status
row_lease(struct claiming *c, struct front *f, const struct wb_row *r,
    struct wb_err *err)
{
    int64_t end_ms = wb__sat_add(c->now_ms, c->lease_ms);
    bool scoped = !wb__eq(f->scope, r->kind);
    uint64_t token;
    enum wb_status rc;

    WB_ASSERT(wb__state_may(r->state, WB_STATE_PROCESSING));
    do
        wb__random_take(c->box, c->now_ms, &token, sizeof(token));
    while (token == 0);
    rc = wb__db_run(c->box->db, WB__SQL_LEASE,
        WB__ARGS(wb__int(r->seq), wb__int((int64_t)token), wb__int(end_ms),
            wb__int(c->now_ms),
            wb__text_or_null(scoped ? f->scope : (struct wb_slice){0})),
        NULL, err);
    if (rc == WB_OK && is_half_open(f)) {
        f->breaker->probe_token = token;
        f->breaker->probe_until_ms = end_ms;
        rc = wb__breaker_put(c->box, f->breaker, err);
    }
    if (rc != WB_OK)
        return rc;
    WB_ASSERT(c->batch->len < c->max && !front_full(f));
    c->batch->row[c->batch->len++] = (struct wb_claimed){.id = r->id,
        .seq = r->seq,
        .token = token,
        .attempts = r->attempts + 1,
        .source = f->index,
        .created_ms = r->created_ms,
        .expires_ms = r->expires_ms,
        .lease_end_ms = end_ms,
        .kind = r->kind,
        .scope = f->scope,
        .key = r->key,
        .lane = r->lane,
        .payload = r->payload,
        .content_type = r->content_type,
        .headers = r->headers};
    if (f->source != NULL && f->source->slots != NULL)
        (*f->source->slots)--;
    return WB_OK;
}

/* Lease a row, or abandon it if it must not, or cannot, be delivered. */
static enum wb_status
row_take(struct claiming *c, struct front *f, const struct wb_row *r,
    struct wb_err *err)
{
    uint32_t most = f->source == NULL || f->source->max_attempts == 0
                        ? 8
                        : f->source->max_attempts;
    const char *reason = NULL, *column = wb__row_malformed(r);
    char error[64] = "";

    if (column != NULL) {
        reason = "malformed";
        (void)snprintf(
            error, sizeof(error), "the row's %s is not valid", column);
    } else if (r->expires_ms != 0 && r->expires_ms <= c->now_ms)
        reason = "expired";
    else if (r->attempts >= most &&
             (r->state == WB_STATE_PROCESSING || r->reason.len > 0))
        reason = "lease ran out"; /* by itself, or put back by reset_stale() */
    if (reason == NULL)
        return row_lease(c, f, r, err);
    c->batch->ended++;
    return wb__abandon(c->box, r->seq, r->lane, reason, wb_slice(error), err);
}

static enum wb_status
front_take(
    struct claiming *c, struct front *f, struct bound limit, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (is_half_open(f)) {
        /* Another claim may have become the probe since the breakers were
         * read: lock the row and read it again. */
        rc = wb__breaker_find(c->box, f->scope, f->breaker, err);
        if (rc != WB_OK && rc != WB_EMPTY)
            return rc;
        f->ready = wb__breaker_free_ms(f->breaker, c->now_ms) <= c->now_ms;
        if (!f->ready)
            return WB_OK;
    }
    rc = copy_rows(c, f, limit, err);
    if (rc == WB_OK && c->n_rows == 0) {
        f->locked = true;
        note_next(c->batch, wb__sat_add(c->now_ms, LOCKED_MS));
    }
    for (size_t i = 0; i < c->n_rows && rc == WB_OK; i++)
        rc = row_take(c, f, &c->row[i], err);
    return rc;
}

static enum wb_status
take_rows(struct claiming *c, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;
    enum wb_status rc = WB_OK;
    struct bound limit;

    c->row = wb__arena_alloc(c->arena, c->max * sizeof(*c->row));
    batch->row = wb__arena_alloc(c->arena, c->max * sizeof(*batch->row));
    if (c->row == NULL || batch->row == NULL)
        return wb__nomem(err, "claim");
    while (rc == WB_OK && batch->len < c->max && c->bytes < BYTES_MAX &&
           batch->ended < ENDED_MAX) {
        struct front *f = front_oldest(c, &limit);
        size_t ended = batch->ended;

        if (f == NULL)
            break;
        rc = front_take(c, f, limit, err);
        /* Refresh the fronts that may have changed: this one, those of its
         * breaker, those whose slots are used up. When a message was abandoned
         * its lane continues, in a front that may be any. */
        for (size_t i = 0; i < c->n_fronts && rc == WB_OK; i++) {
            struct front *other = &c->front[i];

            if (other == f || batch->ended > ended ||
                (other->ready && front_full(other)) ||
                (other->breaker != NULL && other->breaker == f->breaker))
                rc = front_refresh(c, other, err);
        }
    }
    /* There is more; or a lane may have gone on in a kind without a front. */
    if (front_oldest(c, &limit) != NULL ||
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
survey(struct claiming *c, struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    enum wb_status rc;

    wb__claim_undo(claim, batch); /* of a run that was rolled back */
    *c = (struct claiming){.box = box, .claim = claim, .batch = batch};
    c->now_ms = wb__outbox_now(box);
    c->due_by_ms = claim->due_by_ms > 0 && claim->due_by_ms < c->now_ms
                       ? claim->due_by_ms
                       : c->now_ms;
    c->lease_ms = claim->lease_ms > 0 ? claim->lease_ms : 60000;
    c->max = claim->max > 0 ? claim->max : 1;
    if (c->max > WB_CLAIM_MAX)
        c->max = WB_CLAIM_MAX;
    c->arena = batch->memory = wb__alloc(box->env, sizeof(*c->arena));
    if (c->arena == NULL)
        return wb__nomem(err, "claim");
    c->arena->env = box->env;
    rc = wb__breakers_load(box, c->arena, &c->breakers, err);
    if (rc == WB_OK)
        rc = resolve_sources(c, err);
    for (size_t i = 0; i < c->n_fronts && rc == WB_OK; i++)
        rc = front_refresh(c, &c->front[i], err);
    return rc;
}

enum wb_status
wb__claim_run(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    struct claiming c;
    enum wb_status rc = survey(&c, box, claim, batch, err);

    if (rc == WB_OK)
        rc = take_rows(&c, err);
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
    struct claiming c;
    struct bound limit;
    enum wb_status rc = survey(&c, o->box, o->claim, o->batch, err);

    (void)db;
    o->pending = rc == WB_OK && front_oldest(&c, &limit) != NULL;
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
