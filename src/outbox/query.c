/* query.c - read the outbox, and what little of it is administration.
 *
 * (1) Rows are handed out between transactions, a page at a time, so that a
 *     reader that is slow to take them pins no snapshot and stops no writer. */
#include <stdlib.h>

#include "outbox/outbox_internal.h"

enum {
    PAGE = 256
};

struct look_op {
    struct wb__op op;
    struct wb__arena arena;
    const struct wb_filter *filter;
    struct wb_slice low, high; /* show: the range of ids */
    struct wb_row *row;
    size_t n, limit;
    int64_t after;
};

static enum wb_status
look_fini(struct look_op *o, enum wb_status rc)
{
    wb__arena_clear(&o->arena);
    return rc;
}

/* Copy the rows of a started statement into the arena, and end it. */
static enum wb_status
collect(struct wb_outbox *box, struct look_op *o, enum wb__sql sql,
    bool payload, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    o->n = 0;
    wb__arena_clear(&o->arena);
    o->row = wb__arena_alloc(&o->arena, o->limit * sizeof(*o->row));
    if (o->row == NULL)
        rc = wb__nomem(err, "list");
    while (rc == WB_OK && o->n < o->limit &&
           (rc = wb__db_next(box->db, sql, err)) == WB_OK) {
        rc = wb__row_read(box, sql, payload, &o->row[o->n], err);
        if (rc == WB_OK && !wb__row_copy(&o->arena, &o->row[o->n]))
            rc = wb__nomem(err, "list");
        o->n += rc == WB_OK;
    }
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

/* Rows end their lease or their retention at due_ms; only while something is
 * still to come is that shown. */
static void
show_due(struct wb_row *row)
{
    if (row->state == WB_STATE_ABANDONED || row->state == WB_STATE_DELIVERED)
        row->due_ms = 0;
}

static enum wb_status
hand_out(struct look_op *o, wb_row_fn *fn, void *ctx)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < o->n && rc == WB_OK; i++) {
        show_due(&o->row[i]);
        rc = fn(ctx, &o->row[i]);
    }
    return rc;
}

static enum wb_status
list_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct look_op *o = (struct look_op *)op;
    struct wb_slice state = {0};
    enum wb_status rc;

    if (o->filter->state >= 0)
        state = wb_slice(wb_state_name((enum wb_state)o->filter->state));
    rc = wb__db_start(box->db, WB__SQL_LIST,
        WB__ARGS(wb__int(o->after), wb__text_or_null(state),
            wb__text_or_null(o->filter->kind), wb__int((int64_t)o->limit)),
        err);
    return rc != WB_OK ? rc : collect(box, o, WB__SQL_LIST, false, err);
}

enum wb_status
wb_outbox_list(struct wb_outbox *box, const struct wb_filter *filter,
    wb_row_fn *fn, void *ctx, struct wb_err *err)
{
    struct look_op o = {.filter = filter, .arena = {.env = box->env}};
    uint64_t left = filter->limit > 0 ? filter->limit : UINT64_MAX;
    enum wb_status rc = WB_OK;

    o.after = INT64_MIN;
    do {
        o.op = (struct wb__op){.run = list_run, .tx = WB__TX_READ};
        o.limit = left < PAGE ? (size_t)left : PAGE;
        rc = wb__outbox_run(box, &o.op, err);
        if (rc == WB_OK)
            rc = hand_out(&o, fn, ctx);
        if (o.n > 0)
            o.after = o.row[o.n - 1].seq;
        left -= o.n;
    } while (rc == WB_OK && left > 0 && o.n == PAGE);
    return look_fini(&o, rc);
}

static enum wb_status
show_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct look_op *o = (struct look_op *)op;
    enum wb_status rc = wb__db_start(box->db, WB__SQL_SHOW,
        WB__ARGS(wb__text(o->low), wb__text(o->high)), err);

    return rc != WB_OK ? rc : collect(box, o, WB__SQL_SHOW, true, err);
}

static char
lower_hex(char c)
{
    return c >= 'A' && c <= 'F' ? (char)(c + ('a' - 'A')) : c;
}

/* A prefix of an id stands for the range from itself to itself and "g...". */
static bool
id_range(
    struct wb_slice prefix, char low[WB_ID_LEN + 2], char high[WB_ID_LEN + 2])
{
    if (prefix.len < 8 || prefix.len > WB_ID_LEN)
        return false;
    for (size_t i = 0; i < prefix.len; i++) {
        low[i] = lower_hex(prefix.ptr[i]);
        if (low[i] == '\0' || strchr("0123456789abcdef-", low[i]) == NULL)
            return false;
    }
    low[prefix.len] = '\0';
    memcpy(high, low, prefix.len);
    memcpy(high + prefix.len, "g", 2);
    return true;
}

enum wb_status
wb_outbox_show(struct wb_outbox *box, struct wb_slice prefix, wb_row_fn *fn,
    void *ctx, struct wb_err *err)
{
    char low[WB_ID_LEN + 2], high[WB_ID_LEN + 2];
    struct look_op o = {.op = {.run = show_run, .tx = WB__TX_READ},
        .arena = {.env = box->env},
        .limit = 2};
    enum wb_status rc;

    if (!id_range(prefix, low, high))
        return wb__fail(err, WB_INVALID, 0,
            "\"%.*s\" is no id; give 8 or more of its characters",
            WB_SHOW(prefix));
    o.low = wb_slice(low);
    o.high = wb_slice(high);
    rc = wb__outbox_run(box, &o.op, err);
    if (rc == WB_OK && o.n == 0)
        rc = wb__fail(err, WB_NOTFOUND, 0, "%s: no such message", low);
    if (rc == WB_OK && o.n > 1)
        rc = wb__fail(err, WB_INVALID, 0,
            "%s fits more than one message; give more of the id", low);
    if (rc == WB_OK)
        rc = hand_out(&o, fn, ctx);
    return look_fini(&o, rc);
}

/* ---- counts ------------------------------------------------------------ */

struct count_op {
    struct wb__op op;
    struct wb__arena arena;
    struct wb_kind_counts *kind;
    size_t n, cap;
    bool names_only;
};

static struct wb_kind_counts *
kind_add(struct count_op *o, struct wb_slice kind)
{
    if (o->n > 0 && wb__eq(o->kind[o->n - 1].kind, kind))
        return &o->kind[o->n - 1];
    if (o->n == o->cap) {
        size_t cap = o->cap == 0 ? 64 : 2 * o->cap;
        struct wb_kind_counts *grown =
            wb__arena_alloc(&o->arena, cap * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        if (o->n > 0)
            memcpy(grown, o->kind, o->n * sizeof(*grown));
        o->kind = grown;
        o->cap = cap;
    }
    if (!wb__arena_dup(&o->arena, kind, &o->kind[o->n].kind))
        return NULL;
    return &o->kind[o->n++];
}

static void
count_row(struct wb_outbox *box, struct wb_kind_counts *k)
{
    const enum wb__sql sql = WB__SQL_COUNTS;
    enum wb_state state;

    if (!wb__state_parse(wb__db_slice(box->db, sql, 1), &state))
        return;
    k->n[state] = (uint64_t)wb__db_int(box->db, sql, 2);
    if (state == WB_STATE_PENDING)
        k->oldest_pending_created_ms = wb__db_int(box->db, sql, 3);
}

static enum wb_status
count_rows(struct wb_outbox *box, struct count_op *o, enum wb__sql sql,
    struct wb_err *err)
{
    enum wb_status rc = wb__db_start(box->db, sql, WB__NO_ARGS, err);

    if (rc != WB_OK)
        return rc;
    while ((rc = wb__db_next(box->db, sql, err)) == WB_OK) {
        struct wb_kind_counts *k = kind_add(o, wb__db_slice(box->db, sql, 0));

        if (k == NULL) {
            rc = wb__nomem(err, "count");
            break;
        }
        if (sql == WB__SQL_COUNTS)
            count_row(box, k);
        else
            k->paused = sql == WB__SQL_PAUSED;
    }
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static int
by_kind(const void *a, const void *b)
{
    const struct wb_kind_counts *x = a, *y = b;

    return wb__cmp(x->kind, y->kind);
}

/* Kinds that are paused come in twice if they have messages too. */
static void
kinds_merge(struct count_op *o)
{
    size_t to = 0;

    if (o->n > 1)
        qsort(o->kind, o->n, sizeof(*o->kind), by_kind);
    for (size_t i = 0; i < o->n; i++) {
        struct wb_kind_counts *k = &o->kind[i];

        if (to > 0 && wb__eq(o->kind[to - 1].kind, k->kind)) {
            bool paused = o->kind[to - 1].paused || k->paused;

            if (!k->paused)
                o->kind[to - 1] = *k;
            o->kind[to - 1].paused = paused;
        } else {
            o->kind[to++] = *k;
        }
    }
    o->n = to;
}

static enum wb_status
count_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct count_op *o = (struct count_op *)op;
    enum wb_status rc;

    wb__arena_clear(&o->arena);
    o->n = o->cap = 0;
    rc =
        count_rows(box, o, o->names_only ? WB__SQL_KINDS : WB__SQL_COUNTS, err);
    if (rc == WB_OK && !o->names_only)
        rc = count_rows(box, o, WB__SQL_PAUSED, err);
    kinds_merge(o);
    return rc;
}

static enum wb_status
count(struct wb_outbox *box, bool names_only, wb_kind_fn *fn, void *ctx,
    struct wb_err *err)
{
    struct count_op o = {.op = {.run = count_run, .tx = WB__TX_READ},
        .arena = {.env = box->env},
        .names_only = names_only};
    enum wb_status rc = wb__outbox_run(box, &o.op, err);

    for (size_t i = 0; i < o.n && rc == WB_OK; i++)
        rc = fn(ctx, &o.kind[i]);
    wb__arena_clear(&o.arena);
    return rc;
}

enum wb_status
wb_outbox_count(
    struct wb_outbox *box, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    return count(box, false, fn, ctx, err);
}

enum wb_status
wb_outbox_kinds(
    struct wb_outbox *box, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    return count(box, true, fn, ctx, err);
}

/* ---- health ------------------------------------------------------------ */

struct health_op {
    struct wb__op op;
    struct wb_health *health;
};

static enum wb_status
health_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct health_op *o = (struct health_op *)op;
    int64_t stuck = 0;
    enum wb_status rc = wb__db_one_int(box->db, WB__SQL_STUCK,
        WB__ARGS(wb__int(wb__outbox_now(box))), &stuck, err);

    o->health->stuck = (uint64_t)stuck;
    return rc == WB_OK ? wb__db_health(box->db, o->health, err) : rc;
}

enum wb_status
wb_outbox_health(
    struct wb_outbox *box, struct wb_health *health, struct wb_err *err)
{
    struct health_op o = {
        .op = {.run = health_run, .tx = WB__TX_READ}, .health = health};

    *health = (struct wb_health){0};
    return wb__outbox_run(box, &o.op, err);
}

struct backup_op {
    struct wb__op op;
    const char *path;
};

static enum wb_status
backup_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    return wb__db_backup(box->db, ((struct backup_op *)op)->path, err);
}

enum wb_status
wb_outbox_backup(struct wb_outbox *box, const char *path, struct wb_err *err)
{
    struct backup_op o = {
        .op = {.run = backup_run, .tx = WB__TX_NONE}, .path = path};

    return wb__outbox_run(box, &o.op, err);
}
