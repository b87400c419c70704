/* admin.c - what people do to the outbox: redrive, discard, pause, breakers.
 *
 * (1) A selection is acted on in one transaction, whatever its size, and read
 *     a page at a time.
 * (2) A redriven message of a lane rejoins at its tail. */
#include <stdlib.h>

#include "outbox/outbox_internal.h"

enum {
    PAGE = 128
};

/* ---- redrive, discard -------------------------------------------------- */

struct select_op {
    struct wb__op op;
    const struct wb_select *select;
    struct wb_selected selected;
    struct wb__arena arena;
    struct wb_kind_counts *kind;
    size_t n_kinds, cap;
    bool discard;
};

static enum wb_status
count_kind(struct select_op *o, const char *kind, struct wb_err *err)
{
    struct wb_slice name = wb_slice(kind);
    size_t i = 0;

    while (i < o->n_kinds && !wb__eq(o->kind[i].kind, name))
        i++;
    if (i == o->cap) {
        size_t cap = o->cap == 0 ? 16 : 2 * o->cap;
        struct wb_kind_counts *grown =
            wb__arena_alloc(&o->arena, cap * sizeof(*grown));

        if (grown == NULL)
            return wb__nomem(err, "select");
        if (o->n_kinds > 0)
            memcpy(grown, o->kind, o->n_kinds * sizeof(*grown));
        o->kind = grown;
        o->cap = cap;
    }
    if (i == o->n_kinds &&
        !wb__arena_dup(&o->arena, name, &o->kind[o->n_kinds++].kind))
        return wb__nomem(err, "select");
    o->kind[i].n[WB_STATE_PENDING]++;
    o->selected.total++;
    return WB_OK;
}

static enum wb_status
redrive_row(struct wb_outbox *box, const struct wb__head *h, struct wb_err *err)
{
    struct wb_slice lane = wb_slice(h->lane);
    enum wb_status rc = WB_OK;

    if (h->state == WB_STATE_HELD)
        return WB_OK; /* it goes when its lane does */
    rc = wb__db_run(box->db, WB__SQL_REDRIVE,
        WB__ARGS(wb__int(h->seq), wb__int(wb__outbox_now(box))), NULL, err);
    if (rc == WB_OK && h->state == WB_STATE_ABANDONED && lane.len > 0)
        rc = wb__db_run(box->db, WB__SQL_REJOIN,
            WB__ARGS(wb__int(h->seq), wb__text(lane)), NULL, err);
    if (rc == WB_OK)
        rc = wb__db_run(box->db, WB__SQL_BREAKER_DELETE,
            WB__ARGS(wb__text(wb_slice(h->scope))), NULL, err);
    return rc;
}

static enum wb_status
discard_row(struct wb_outbox *box, const struct wb__head *h, struct wb_err *err)
{
    enum wb_status rc = wb__db_run(
        box->db, WB__SQL_DELETE, WB__ARGS(wb__int(h->seq)), NULL, err);

    return rc != WB_OK ? rc : wb__lane_promote(box, wb_slice(h->lane), err);
}

static enum wb_status
act(struct wb_outbox *box, struct select_op *o, const struct wb__head *h,
    struct wb_err *err)
{
    enum wb_status rc = count_kind(o, h->kind, err);

    if (rc != WB_OK || o->select->dry_run)
        return rc;
    return o->discard ? discard_row(box, h, err) : redrive_row(box, h, err);
}

static enum wb_status
act_on_ids(struct wb_outbox *box, struct select_op *o, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < o->select->n_ids && rc == WB_OK; i++) {
        struct wb__head h;

        rc = wb__head_find(box, WB__SQL_HEAD_BY_ID,
            wb__text(wb_slice(o->select->ids[i].text)), &h, err);
        if (rc == WB_EMPTY || (rc == WB_OK && h.state == WB_STATE_DELIVERED)) {
            o->selected.missing++;
            rc = WB_OK;
        } else if (rc == WB_OK && h.state == WB_STATE_PROCESSING) {
            o->selected.skipped++;
        } else if (rc == WB_OK) {
            rc = act(box, o, &h, err);
        }
    }
    return rc;
}

/* The next page of abandoned rows after (*due_ms, *seq), which move on. */
static enum wb_status
read_page(struct wb_outbox *box, const struct wb_select *s, int64_t *due_ms,
    int64_t *seq, struct wb__head page[PAGE], size_t *n, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_ABANDONED;
    int64_t before_ms = s->older_ms > 0
                            ? wb__sat_add(wb__outbox_now(box), -s->older_ms)
                            : INT64_MAX;
    enum wb_status rc = wb__db_start(box->db, sql,
        WB__ARGS(wb__int(*due_ms), wb__int(*seq), wb__text_or_null(s->kind),
            wb__int(before_ms), wb__int(PAGE)),
        err);

    *n = 0;
    if (rc != WB_OK)
        return rc;
    while (*n < PAGE && (rc = wb__db_next(box->db, sql, err)) == WB_OK) {
        rc = wb__head_read(box, sql, &page[*n], err);
        if (rc != WB_OK)
            break;
        *due_ms = page[*n].due_ms;
        *seq = page[*n].seq;
        (*n)++;
    }
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
act_on_abandoned(struct wb_outbox *box, struct select_op *o, struct wb_err *err)
{
    struct wb__head *page = wb__arena_alloc(&o->arena, PAGE * sizeof(*page));
    uint64_t most = o->select->limit > 0 ? o->select->limit : UINT64_MAX;
    int64_t due_ms = INT64_MIN, seq = INT64_MIN;
    enum wb_status rc = WB_OK;
    size_t n = PAGE;

    if (page == NULL)
        return wb__nomem(err, "select");
    while (rc == WB_OK && n == PAGE && o->selected.total < most) {
        rc = read_page(box, o->select, &due_ms, &seq, page, &n, err);
        for (size_t i = 0; i < n && rc == WB_OK && o->selected.total < most;
             i++)
            rc = act(box, o, &page[i], err);
    }
    return rc;
}

static enum wb_status
select_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct select_op *o = (struct select_op *)op;

    wb__arena_clear(&o->arena);
    o->n_kinds = o->cap = 0;
    o->selected = (struct wb_selected){0};
    if (o->select->ids != NULL)
        return act_on_ids(box, o, err);
    return act_on_abandoned(box, o, err);
}

static int
by_kind(const void *a, const void *b)
{
    const struct wb_kind_counts *x = a, *y = b;

    return wb__cmp(x->kind, y->kind);
}

static enum wb_status
select_do(struct wb_outbox *box, struct select_op *o,
    struct wb_selected *selected, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    enum wb_status rc;

    o->op = (struct wb__op){.run = select_run,
        .tx = o->select->dry_run ? WB__TX_READ : WB__TX_FULL};
    o->arena.env = box->env;
    rc = wb__outbox_run(box, &o->op, err);
    if (rc == WB_OK)
        *selected = o->selected;
    if (o->n_kinds > 1)
        qsort(o->kind, o->n_kinds, sizeof(*o->kind), by_kind);
    for (size_t i = 0; i < o->n_kinds && rc == WB_OK && fn != NULL; i++)
        rc = fn(ctx, &o->kind[i]);
    wb__arena_clear(&o->arena);
    return rc;
}

enum wb_status
wb_outbox_redrive(struct wb_outbox *box, const struct wb_select *select,
    struct wb_selected *selected, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    struct select_op o = {.select = select};

    return select_do(box, &o, selected, fn, ctx, err);
}

enum wb_status
wb_outbox_discard(struct wb_outbox *box, const struct wb_select *select,
    struct wb_selected *selected, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    struct select_op o = {.select = select, .discard = true};

    return select_do(box, &o, selected, fn, ctx, err);
}

/* ---- pause ------------------------------------------------------------- */

struct pause_op {
    struct wb__op op;
    struct wb_slice kind;
    bool paused;
};

static enum wb_status
pause_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct pause_op *o = (struct pause_op *)op;

    return wb__db_run(box->db, o->paused ? WB__SQL_PAUSE : WB__SQL_RESUME,
        WB__ARGS(wb__text(o->kind)), NULL, err);
}

enum wb_status
wb_outbox_pause(struct wb_outbox *box, struct wb_slice kind, bool paused,
    struct wb_err *err)
{
    struct pause_op o = {.op = {.run = pause_run, .tx = WB__TX_FULL},
        .kind = kind,
        .paused = paused};

    if (!wb__kind_valid(kind))
        return wb__fail(err, WB_INVALID, 0,
            "kind \"%.*s\": give 1 to 64 of a-z 0-9 _ . -", WB_SHOW(kind));
    return wb__outbox_run(box, &o.op, err);
}

/* ---- breakers ---------------------------------------------------------- */

struct breakers_op {
    struct wb__op op;
    struct wb__arena arena;
    struct wb__breakers all;
    struct wb_slice scope;
    bool reset;
    uint64_t n;
};

static enum wb_status
breakers_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct breakers_op *o = (struct breakers_op *)op;
    enum wb_status rc;

    wb__arena_clear(&o->arena);
    o->n = 0;
    rc = wb__breakers_load(box, &o->arena, &o->all, err);
    for (size_t i = 0; i < o->all.n && rc == WB_OK && o->reset; i++) {
        const struct wb__breaker *b = &o->all.row[i];
        struct wb_slice scope = wb_slice(b->scope);

        if (o->scope.len > 0 && !wb__eq(o->scope, scope))
            continue;
        rc = wb__db_run(box->db, WB__SQL_BREAKER_DELETE,
            WB__ARGS(wb__text(scope)), NULL, err);
        o->n += wb__breaker_state(b, wb__outbox_now(box)) != WB_CLOSED;
    }
    return rc;
}

static enum wb_status
show_breaker(struct wb_outbox *box, const struct wb__breaker *b,
    wb_breaker_fn *fn, void *ctx)
{
    int64_t now_ms = wb__outbox_now(box);
    struct wb_breaker shown = {.scope = wb_slice(b->scope),
        .state = wb__breaker_state(b, now_ms),
        .failures = b->failures};

    if (shown.state == WB_OPEN)
        shown.open_until_ms = b->open_until_ms;
    return fn(ctx, &shown);
}

enum wb_status
wb_outbox_breakers(struct wb_outbox *box, struct wb_slice scope,
    wb_breaker_fn *fn, void *ctx, struct wb_err *err)
{
    struct breakers_op o = {.op = {.run = breakers_run, .tx = WB__TX_READ},
        .arena = {.env = box->env},
        .scope = scope};
    const struct wb_breaker healthy = {.scope = scope};
    enum wb_status rc = wb__outbox_run(box, &o.op, err);
    bool found = scope.len == 0;

    for (size_t i = 0; i < o.all.n && rc == WB_OK; i++) {
        if (scope.len > 0 && !wb__eq(scope, wb_slice(o.all.row[i].scope)))
            continue;
        found = true;
        rc = show_breaker(box, &o.all.row[i], fn, ctx);
    }
    if (rc == WB_OK && !found)
        rc = fn(ctx, &healthy);
    wb__arena_clear(&o.arena);
    return rc;
}

enum wb_status
wb_outbox_breaker_reset(struct wb_outbox *box, struct wb_slice scope,
    uint64_t *n, struct wb_err *err)
{
    struct breakers_op o = {.op = {.run = breakers_run, .tx = WB__TX_FULL},
        .arena = {.env = box->env},
        .scope = scope,
        .reset = true};
    enum wb_status rc = wb__outbox_run(box, &o.op, err);

    if (rc == WB_OK)
        *n = o.n;
    wb__arena_clear(&o.arena);
    return rc;
}
