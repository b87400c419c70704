/* claim.c - lease the oldest due messages over several kinds.
 *
 * Each kind has its oldest row at the front of one index. A claim looks at the
 * front of every kind it may take from, and takes rows from the oldest kind up
 * to where the next oldest begins: a merge, whose cost depends on the kinds and
 * on the rows taken, and not on what waits.
 *
 * (1) Rows are copied before they are changed, and changed in the same
 *     transaction: a claim that fails has leased nothing.
 * (2) The batch is in the order (due, seq).
 * (3) A scope that is half-open gives one row and is then closed to the rest of
 *     the claim.
 * (4) What a claim ends on its way (expired, lease ran out) and the bytes it
 *     copies are bounded: the next claim goes on. */
#include "outbox/outbox_internal.h"

enum {
    ENDED_MAX = 1000,
    BYTES_MAX = 16 << 20,
    HELD_MS = 50
};

/* A source that may give: where its front is. */
struct front {
    const struct wb_source *source;
    size_t index;
    struct wb_slice kind, scope;
    struct wb__breaker *breaker; /* NULL: healthy */
    int64_t due_ms, seq;
    bool has;    /* due_ms and seq are those of a due row */
    bool passed; /* its rows are held by other transactions */
};

struct claiming {
    struct wb_outbox *box;
    const struct wb_claim *claim;
    struct wb_batch *batch;
    struct wb__arena *arena;
    struct wb__breakers breakers;
    struct front *front;
    size_t n, max, bytes;
    int64_t now_ms, due_by_ms, lease_ms;
};

/* ---- sources ----------------------------------------------------------- */

/* Read a column of kinds into the arena: KINDS or PAUSED. */
static enum wb_status
read_kinds(struct claiming *c, enum wb__sql sql, struct wb_slice **kinds,
    size_t *n, struct wb_err *err)
{
    size_t cap = 0;
    enum wb_status rc = wb__db_start(c->box->db, sql, WB__NO_ARGS, err);

    *n = 0;
    *kinds = NULL;
    if (rc != WB_OK)
        return rc;
    while ((rc = wb__db_next(c->box->db, sql, err)) == WB_OK) {
        if (*n == cap) {
            struct wb_slice *grown;

            cap = cap == 0 ? 64 : 2 * cap;
            grown = wb__arena_alloc(c->arena, cap * sizeof(*grown));
            if (grown != NULL && *n > 0)
                memcpy(grown, *kinds, *n * sizeof(*grown));
            *kinds = grown;
        }
        if (*kinds == NULL ||
            !wb__arena_dup(
                c->arena, wb__db_slice(c->box->db, sql, 0), &(*kinds)[*n])) {
            rc = wb__nomem(err, "claim");
            break;
        }
        (*n)++;
    }
    wb__db_end(c->box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static bool
front_add(struct claiming *c, const struct wb_source *source, size_t index,
    struct wb_slice kind)
{
    struct front *f = &c->front[c->n++];
    bool scoped = source != NULL && source->scope.len > 0;

    *f = (struct front){.source = source, .index = index, .kind = kind};
    f->breaker = wb__breakers_find(&c->breakers, scoped ? source->scope : kind);
    return wb__arena_dup(c->arena, scoped ? source->scope : kind, &f->scope);
}

/* Where the first row of a kind is. EMPTY: there is none. */
static enum wb_status
first_due(struct claiming *c, struct wb_slice kind, int64_t *due_ms,
    int64_t *seq, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_FIRST_DUE;
    struct wb__db *db = c->box->db;
    enum wb_status rc = wb__db_start(db, sql, WB__ARGS(wb__text(kind)), err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK) {
        *due_ms = wb__db_int(db, sql, 0);
        *seq = wb__db_int(db, sql, 1);
    }
    wb__db_end(db, sql);
    return rc;
}

/* A paused kind is not taken from. One that holds something back goes to the
 * front of the list. */
static enum wb_status
note_paused(struct claiming *c, size_t at, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;
    struct wb_slice kind = batch->paused[at];
    int64_t due_ms = 0, seq;
    enum wb_status rc = first_due(c, kind, &due_ms, &seq, err);

    if (rc == WB_OK && due_ms <= c->due_by_ms && at >= batch->n_paused) {
        batch->paused[at] = batch->paused[batch->n_paused];
        batch->paused[batch->n_paused++] = kind;
    }
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
fronts_set(struct claiming *c, struct wb_err *err)
{
    const struct wb_claim *claim = c->claim;
    struct wb_slice *kinds = NULL, **paused = &c->batch->paused;
    size_t n = claim->n_sources, n_paused;
    enum wb_status rc = read_kinds(c, WB__SQL_PAUSED, paused, &n_paused, err);

    if (rc == WB_OK && claim->sources == NULL)
        rc = read_kinds(c, WB__SQL_KINDS, &kinds, &n, err);
    if (rc != WB_OK || n == 0)
        return rc;
    c->front = wb__arena_alloc(c->arena, n * sizeof(*c->front));
    if (c->front == NULL)
        return wb__nomem(err, "claim");
    for (size_t i = 0; i < n && rc == WB_OK; i++) {
        const struct wb_source *source =
            claim->sources == NULL ? NULL : &claim->sources[i];
        struct wb_slice kind = source == NULL ? kinds[i] : source->kind;
        size_t p = 0;

        while (p < n_paused && !wb__eq(kind, (*paused)[p]))
            p++;
        if (p < n_paused)
            rc = note_paused(c, p, err);
        else if (!front_add(c, source, i, kind))
            rc = wb__nomem(err, "claim");
    }
    return rc;
}

/* ---- fronts ------------------------------------------------------------ */

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

static enum wb_status
note_blocked(struct claiming *c, struct wb_slice scope, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;

    for (size_t i = 0; i < batch->n_scopes; i++)
        if (wb__eq(batch->scopes[i], scope))
            return WB_OK;
    if (batch->scopes == NULL)
        batch->scopes =
            wb__arena_alloc(c->arena, (c->n + 1) * sizeof(*batch->scopes));
    if (batch->scopes == NULL ||
        !wb__arena_dup(c->arena, scope, &batch->scopes[batch->n_scopes]))
        return wb__nomem(err, "claim");
    batch->n_scopes++;
    return WB_OK;
}

/* Look at the first row of a kind, and whether it may go now. */
static enum wb_status
front_look(struct claiming *c, struct front *f, struct wb_err *err)
{
    int64_t lets_ms = c->now_ms;
    enum wb_status rc = first_due(c, f->kind, &f->due_ms, &f->seq, err);

    f->has = false;
    if (rc != WB_OK || f->passed)
        return rc == WB_EMPTY ? WB_OK : rc;
    if (f->breaker != NULL)
        lets_ms = wb__breaker_lets_ms(f->breaker, c->now_ms);
    f->has =
        f->due_ms <= c->due_by_ms && lets_ms <= c->now_ms && !front_full(f);
    if (!front_full(f) && !f->has)
        note_next(c->batch, f->due_ms > lets_ms ? f->due_ms : lets_ms);
    if (f->due_ms <= c->due_by_ms && lets_ms > c->now_ms)
        return note_blocked(c, f->scope, err);
    return WB_OK;
}

static bool
front_before(const struct front *a, const struct front *b)
{
    return a->due_ms < b->due_ms || (a->due_ms == b->due_ms && a->seq < b->seq);
}

/* The oldest front, and how far its rows may go before another's turn. */
static struct front *
front_oldest(struct claiming *c, int64_t *due_ms, int64_t *seq)
{
    struct front *first = NULL, *second = NULL;

    for (size_t i = 0; i < c->n; i++) {
        struct front *f = &c->front[i];

        if (!f->has)
            continue;
        if (first == NULL || front_before(f, first)) {
            second = first;
            first = f;
        } else if (second == NULL || front_before(f, second)) {
            second = f;
        }
    }
    *due_ms = second == NULL ? c->due_by_ms : second->due_ms;
    *seq = second == NULL ? INT64_MAX : second->seq;
    return first;
}

/* ---- rows -------------------------------------------------------------- */

static size_t
front_want(const struct claiming *c, const struct front *f)
{
    size_t want = c->max - c->batch->len;

    if (f->source != NULL && f->source->slots != NULL &&
        *f->source->slots < want)
        want = *f->source->slots;
    if (f->breaker != NULL && f->breaker->open_until_ms != 0)
        want = 1; /* half-open: the probe */
    return want;
}

/* Copy up to want rows out of the statement: its memory is gone at the next
 * step, and rows must not change under an open walk. */
static enum wb_status
rows_copy(struct claiming *c, struct wb_row *rows, size_t want, size_t *n,
    struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_DUE;
    enum wb_status rc = WB_OK;

    while (*n < want && c->bytes < BYTES_MAX &&
           (rc = wb__db_next(c->box->db, sql, err)) == WB_OK) {
        rc = wb__row_read(c->box, sql, true, &rows[*n], err);
        if (rc != WB_OK)
            return rc;
        if (!wb__row_copy(c->arena, &rows[*n]))
            return wb__nomem(err, "claim");
        c->bytes += sizeof(rows[*n]) + rows[*n].payload.len;
        (*n)++;
    }
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
rows_due(struct claiming *c, const struct front *f, int64_t due_ms, int64_t seq,
    struct wb_row *rows, size_t want, size_t *n, struct wb_err *err)
{
    enum wb_status rc = wb__db_start(c->box->db, WB__SQL_DUE,
        WB__ARGS(wb__text(f->kind), wb__int(due_ms), wb__int(seq),
            wb__int((int64_t)want)),
        err);

    if (rc != WB_OK)
        return rc;
    rc = rows_copy(c, rows, want, n, err);
    wb__db_end(c->box->db, WB__SQL_DUE);
    return rc;
}

static uint64_t
new_token(struct claiming *c)
{
    uint64_t token;

    do
        wb__random_take(c->box, c->now_ms, &token, sizeof(token));
    while (token == 0);
    return token;
}

static void
batch_push(struct claiming *c, const struct front *f, const struct wb_row *r,
    uint64_t token, int64_t end_ms)
{
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
}

static enum wb_status
row_lease(struct claiming *c, struct front *f, const struct wb_row *r,
    struct wb_err *err)
{
    int64_t end_ms = wb__sat_add(c->now_ms, c->lease_ms);
    uint64_t token = new_token(c);
    bool scoped = !wb__eq(f->scope, r->kind);
    enum wb_status rc = wb__db_run(c->box->db, WB__SQL_LEASE,
        WB__ARGS(wb__int(r->seq), wb__int((int64_t)token), wb__int(end_ms),
            wb__int(c->now_ms),
            wb__text_or_null(scoped ? f->scope : (struct wb_slice){0})),
        NULL, err);

    if (rc == WB_OK && f->breaker != NULL && f->breaker->open_until_ms != 0) {
        f->breaker->probe_token = token;
        f->breaker->probe_until_ms = end_ms;
        rc = wb__breaker_put(c->box, f->breaker, err);
    }
    if (rc == WB_OK)
        batch_push(c, f, r, token, end_ms);
    return rc;
}

/* Lease a row, or end it where it may not go out any more. */
static enum wb_status
row_take(struct claiming *c, struct front *f, const struct wb_row *r,
    struct wb_err *err)
{
    uint32_t most = f->source == NULL || f->source->max_attempts == 0
                        ? 8
                        : f->source->max_attempts;
    const char *reason = NULL;

    if (r->expires_ms != 0 && r->expires_ms <= c->now_ms)
        reason = "expired";
    else if (r->attempts >= most &&
             (r->state == WB_STATE_PROCESSING || r->reason.len > 0))
        reason = "lease ran out"; /* by itself, or put back by reset_stale() */
    if (reason == NULL)
        return row_lease(c, f, r, err);
    c->batch->ended++;
    return wb__abandon(
        c->box, r->seq, r->lane, reason, (struct wb_slice){0}, err);
}

/* The probe of a half-open breaker goes to whom its row says: others may have
 * taken it since the breakers were read. */
static enum wb_status
front_lock(struct claiming *c, struct front *f, struct wb_err *err)
{
    struct wb__breaker *b = f->breaker;
    enum wb_status rc;

    if (b == NULL || b->open_until_ms == 0)
        return WB_OK;
    rc = wb__breaker_find(c->box, f->scope, b, err);
    f->has = wb__breaker_lets_ms(b, c->now_ms) <= c->now_ms;
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
front_take(struct claiming *c, struct front *f, int64_t due_ms, int64_t seq,
    struct wb_row *rows, struct wb_err *err)
{
    size_t n = 0, want = front_want(c, f);
    enum wb_status rc = front_lock(c, f, err);

    if (rc != WB_OK || !f->has)
        return rc;
    rc = rows_due(c, f, due_ms, seq, rows, want, &n, err);
    if (rc == WB_OK && n == 0) { /* others are at its rows: in a moment */
        f->passed = true;
        note_next(c->batch, wb__sat_add(c->now_ms, HELD_MS));
    }
    for (size_t i = 0; i < n && rc == WB_OK; i++)
        rc = row_take(c, f, &rows[i], err);
    return rc;
}

/* Fronts that a row just taken may have changed: its own, its scope's, and,
 * where a lane went on, any. */
static enum wb_status
fronts_look(
    struct claiming *c, const struct front *took, bool all, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < c->n && rc == WB_OK; i++) {
        struct front *f = &c->front[i];

        if (f == took || all || (f->has && front_full(f)) ||
            (f->breaker != NULL && f->breaker == took->breaker))
            rc = front_look(c, f, err);
    }
    return rc;
}

static enum wb_status
take_rows(struct claiming *c, struct wb_err *err)
{
    struct wb_row *rows = wb__arena_alloc(c->arena, c->max * sizeof(*rows));
    enum wb_status rc = WB_OK;
    int64_t due_ms, seq;

    c->batch->row = wb__arena_alloc(c->arena, c->max * sizeof(*c->batch->row));
    if (rows == NULL || c->batch->row == NULL)
        return wb__nomem(err, "claim");
    while (rc == WB_OK && c->batch->len < c->max && c->bytes < BYTES_MAX &&
           c->batch->ended < ENDED_MAX) {
        struct front *f = front_oldest(c, &due_ms, &seq);
        size_t ended = c->batch->ended;

        if (f == NULL)
            break;
        rc = front_take(c, f, due_ms, seq, rows, err);
        if (rc == WB_OK)
            rc = fronts_look(c, f, c->batch->ended > ended, err);
    }
    /* There is more; or a lane may have gone on in a kind not looked at. */
    if (front_oldest(c, &due_ms, &seq) != NULL ||
        (c->batch->ended > 0 && c->claim->sources == NULL))
        c->batch->next_due_ms = c->now_ms;
    return rc;
}

/* ---- the whole --------------------------------------------------------- */

static struct wb__arena *
batch_arena(struct wb_outbox *box, struct wb_batch *batch)
{
    struct wb__arena *a;

    wb_batch_free(batch);
    a = wb__alloc(box->env, sizeof(*a));
    if (a != NULL)
        a->env = box->env;
    batch->memory = a;
    return a;
}

void
wb_batch_free(struct wb_batch *batch)
{
    struct wb__arena *a;

    if (batch == NULL)
        return;
    a = batch->memory;
    if (a != NULL) {
        wb__arena_clear(a);
        wb__free(a->env, a);
    }
    *batch = (struct wb_batch){0};
}

static struct claiming
claiming_of(
    struct wb_outbox *box, const struct wb_claim *claim, struct wb_batch *batch)
{
    struct claiming c = {.box = box, .claim = claim, .batch = batch};

    c.now_ms = wb__outbox_now(box);
    c.due_by_ms = claim->due_by_ms > 0 && claim->due_by_ms < c.now_ms
                      ? claim->due_by_ms
                      : c.now_ms;
    c.lease_ms = claim->lease_ms > 0 ? claim->lease_ms : 60000;
    c.max = claim->max > 0 ? claim->max : 1;
    if (c.max > WB_CLAIM_MAX)
        c.max = WB_CLAIM_MAX;
    c.arena = batch_arena(box, batch);
    return c;
}

/* See what could be taken: everything but the taking. */
static enum wb_status
survey(struct claiming *c, struct wb_err *err)
{
    enum wb_status rc;

    if (c->arena == NULL)
        return wb__nomem(err, "claim");
    rc = wb__breakers_load(c->box, c->arena, &c->breakers, err);
    if (rc == WB_OK)
        rc = fronts_set(c, err);
    for (size_t i = 0; i < c->n && rc == WB_OK; i++)
        rc = front_look(c, &c->front[i], err);
    return rc;
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

static void
set_reason(struct wb_batch *batch)
{
    batch->reason = batch->n_scopes > 0 ? WB_NONE_BREAKER_OPEN : WB_NONE_EMPTY;
}

enum wb_status
wb__claim_run(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    struct claiming c = claiming_of(box, claim, batch);
    enum wb_status rc = survey(&c, err);

    if (rc == WB_OK)
        rc = take_rows(&c, err);
    atomic_store(&box->last_claim_empty, batch->len == 0);
    set_reason(batch);
    return rc;
}

enum wb_status
wb__claim_peek(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    struct claiming c = claiming_of(box, claim, batch);
    enum wb_status rc = survey(&c, err);
    int64_t due_ms, seq;

    set_reason(batch);
    if (rc == WB_OK && front_oldest(&c, &due_ms, &seq) == NULL)
        return WB_EMPTY;
    return rc;
}
