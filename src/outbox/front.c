/* front.c - the fronts of a claim: for each kind, the position of its oldest
 * row and whether that may be taken. The front of a kind is the beginning of
 * its part of one index, so that reading it does not depend on how many wait.
 */
#include "outbox/claim.h"

/* ---- sources -------------------------------------------------------------- */

/* Read a column of kinds into the arena: KINDS or PAUSED. */
static enum wb_status
read_kinds(struct wb__claiming *c, enum wb__sql sql, struct wb_slice **kinds,
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
first_due(struct wb__claiming *c, struct wb_slice kind, struct wb__bound *first,
    struct wb_err *err)
{
    const enum wb__sql sql =
        c->no_stale ? WB__SQL_FIRST_FRESH : WB__SQL_FIRST_DUE;
    struct wb__db *db = c->box->db;
    enum wb_status rc = wb__db_start(db, sql, WB__ARGS(wb__text(kind)), err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        *first =
            (struct wb__bound){wb__db_int(db, sql, 0), wb__db_int(db, sql, 1)};
    wb__db_end(db, sql);
    return rc;
}

/* The scopes of messages that are not known yet: their worker asks. */
static enum wb_status
list_holds(struct wb__claiming *c, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;

    batch->holds =
        wb__arena_alloc(c->arena, (c->breakers.n + 1) * sizeof(*batch->holds));
    if (batch->holds == NULL)
        return wb__nomem(err, "claim");
    for (size_t i = 0; i < c->breakers.n; i++) {
        const struct wb__breaker *b = &c->breakers.row[i];
        int64_t until_ms = wb__breaker_free_ms(b, c->now_ms);

        if (b->open_until_ms != 0)
            batch->holds[batch->n_holds++] =
                (struct wb_hold){.scope = wb_slice(b->scope),
                    .until_ms = until_ms > c->now_ms ? until_ms : 0};
    }
    return WB_OK;
}

enum wb_status
wb__fronts_find(struct wb__claiming *c, struct wb_err *err)
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
        struct wb__bound first;

        if (paused == NULL) {
            struct wb__front *f = &c->front[c->n_fronts++];
            struct wb_slice scope =
                source != NULL && source->scope.len > 0 ? source->scope : kind;

            if (source != NULL && source->rate != NULL)
                rc = wb__rate_read(c, source->rate, false, err);
            *f = (struct wb__front){.source = source, .index = i, .kind = kind};
            if (source == NULL || !source->scope_by_message)
                f->breaker = wb__breakers_find(&c->breakers, scope);
            else if (rc == WB_OK && batch->holds == NULL)
                rc = list_holds(c, err);
            if (rc == WB_OK && !wb__arena_dup(c->arena, scope, &f->scope))
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

bool
wb__front_full(const struct wb__front *f)
{
    return f->source != NULL &&
           ((f->source->slots != NULL && *f->source->slots == 0) ||
               (f->source->rate != NULL && wb__rate_left(f) == 0));
}

void
wb__batch_next(struct wb_batch *batch, int64_t ms)
{
    if (batch->next_due_ms == 0 || ms < batch->next_due_ms)
        batch->next_due_ms = ms;
}

enum wb_status
wb__batch_blocked(
    struct wb__claiming *c, struct wb_slice scope, struct wb_err *err)
{
    struct wb_batch *batch = c->batch;

    if (find_slice(batch->scopes, batch->n_scopes, scope) != NULL)
        return WB_OK;
    if (!wb__arena_grow(c->arena, &batch->scopes, batch->n_scopes,
            &c->scopes_cap, sizeof(*batch->scopes)) ||
        !wb__arena_dup(c->arena, scope, &batch->scopes[batch->n_scopes]))
        return wb__nomem(err, "claim");
    batch->n_scopes++;
    batch->reason = WB_NONE_BREAKER_OPEN;
    return WB_OK;
}

enum wb_status
wb__front_refresh(
    struct wb__claiming *c, struct wb__front *f, struct wb_err *err)
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
    f->ready = due && !blocked && !wb__front_full(f);
    if (!f->ready && !wb__front_full(f))
        wb__batch_next(
            c->batch, f->at.due_ms > free_ms ? f->at.due_ms : free_ms);
    return due && blocked ? wb__batch_blocked(c, f->scope, err) : WB_OK;
}

static bool
is_before(struct wb__bound a, struct wb__bound b)
{
    return a.due_ms < b.due_ms || (a.due_ms == b.due_ms && a.seq < b.seq);
}

struct wb__front *
wb__front_oldest(struct wb__claiming *c, struct wb__bound *limit)
{
    struct wb__front *first = NULL, *second = NULL;

    for (size_t i = 0; i < c->n_fronts; i++) {
        struct wb__front *f = &c->front[i];

        if (!f->ready)
            continue;
        if (first == NULL || is_before(f->at, first->at)) {
            second = first;
            first = f;
        } else if (second == NULL || is_before(f->at, second->at)) {
            second = f;
        }
    }
    *limit = second == NULL ? (struct wb__bound){c->due_by_ms, INT64_MAX}
                            : second->at;
    return first;
}
