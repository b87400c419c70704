/* query.c - read the outbox: list, show, count.
 *
 * (1) Rows are reported between transactions, a page at a time, so that a slow
 *     reader pins no snapshot and stops no writer. */
#include "outbox/outbox_internal.h"

enum {
    PAGE = 256
};

/* ---- list, show ----------------------------------------------------------- */

struct rows_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    struct wb__arena arena;
    struct wb_row *row;
    size_t n, limit;
    const struct wb_filter *filter; /* list */
    int64_t from;                   /* seq */
    enum wb__sql sql;               /* show */
    struct wb__args args;
};

/* Copy the rows of a started statement into the arena, and end it. */
static enum wb_status
copy_rows(struct rows_op *o, enum wb__sql sql, bool payload, struct wb_err *err)
{
    struct wb__db *db = o->box->db;
    enum wb_status rc = WB_OK;

    o->n = 0;
    wb__arena_clear(&o->arena);
    o->row = wb__arena_alloc(&o->arena, o->limit * sizeof(*o->row));
    if (o->row == NULL)
        rc = wb__nomem(err, "list");
    while (rc == WB_OK && o->n < o->limit &&
           (rc = wb__db_next(db, sql, err)) == WB_OK) {
        struct wb_row *row = &o->row[o->n];

        wb__row_read(o->box, sql, false, row);
        row->ended_ms = wb__db_int(db, sql, 16);
        row->attempts_log = wb__db_slice(db, sql, 17);
        if (payload)
            row->payload = wb__db_slice(db, sql, 18);
        if (!wb__row_copy(&o->arena, row))
            rc = wb__nomem(err, "list");
        o->n += rc == WB_OK;
    }
    wb__db_end(db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
report_rows(struct rows_op *o, wb_row_fn *fn, void *ctx)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < o->n && rc == WB_OK; i++) {
        struct wb_row *row = &o->row[i];

        /* There it is the end of the retention, which is not shown. */
        if (row->state == WB_STATE_ABANDONED ||
            row->state == WB_STATE_DELIVERED)
            row->due_ms = 0;
        rc = fn(ctx, row);
    }
    return rc;
}

static enum wb_status
list_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct rows_op *o = (struct rows_op *)job;
    struct wb_slice state = {0};
    enum wb_status rc;

    if (o->filter->state >= 0)
        state = wb_slice(wb_state_name((enum wb_state)o->filter->state));
    rc = wb__db_start(db, WB__SQL_LIST,
        WB__ARGS(wb__int(o->from), wb__text_or_null(state),
            wb__text_or_null(o->filter->kind), wb__int((int64_t)o->limit),
            WB__MATCH_ARGS(&o->filter->match)),
        err);
    return rc != WB_OK ? rc : copy_rows(o, WB__SQL_LIST, false, err);
}

enum wb_status
wb_outbox_list(struct wb_outbox *box, const struct wb_filter *filter,
    wb_row_fn *fn, void *ctx, struct wb_err *err)
{
    struct rows_op o = {.box = box,
        .arena = {.env = box->env},
        .filter = filter,
        .from = filter->after_seq != 0 ? wb__sat_add(filter->after_seq, 1)
                                       : INT64_MIN};
    uint64_t left = filter->limit > 0 ? filter->limit : UINT64_MAX;
    enum wb_status rc = WB_OK;

    do {
        o.job = (struct wb__db_job){.run = list_run, .tx = WB__TX_READ};
        o.limit = left < PAGE ? (size_t)left : PAGE;
        rc = wb__commit_group_run(&box->group, &o.job, err);
        if (rc == WB_OK)
            rc = report_rows(&o, fn, ctx);
        if (o.n > 0)
            o.from = wb__sat_add(o.row[o.n - 1].seq, 1);
        left -= o.n;
    } while (rc == WB_OK && left > 0 && o.n == PAGE &&
             o.row[o.n - 1].seq < INT64_MAX);
    wb__arena_clear(&o.arena);
    return rc;
}

static enum wb_status
show_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct rows_op *o = (struct rows_op *)job;
    enum wb_status rc = wb__db_start(db, o->sql, o->args, err);

    return rc != WB_OK ? rc : copy_rows(o, o->sql, true, err);
}

/* Report the only row that the statement finds. EMPTY: there is none. INVALID:
 * there are more. */
static enum wb_status
show_one(struct wb_outbox *box, enum wb__sql sql, struct wb__args args,
    wb_row_fn *fn, void *ctx, struct wb_err *err)
{
    struct rows_op o = {.job = {.run = show_run, .tx = WB__TX_READ},
        .box = box,
        .arena = {.env = box->env},
        .limit = 2,
        .sql = sql,
        .args = args};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);

    if (rc == WB_OK)
        rc = o.n == 0 ? WB_EMPTY : o.n > 1 ? WB_INVALID : WB_OK;
    if (rc == WB_OK)
        rc = report_rows(&o, fn, ctx);
    wb__arena_clear(&o.arena);
    return rc;
}

/* The ids with this beginning are those from itself to itself + "g", which
 * follows every hexadecimal digit. False: it is not a part of an id. */
static bool
id_range(
    struct wb_slice part, char low[WB_ID_LEN + 2], char high[WB_ID_LEN + 2])
{
    if (part.len < 8 || part.len > WB_ID_LEN)
        return false;
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];

        low[i] = c >= 'A' && c <= 'F' ? (char)(c + ('a' - 'A')) : c;
        if (c == '\0' || strchr("0123456789abcdef-", low[i]) == NULL)
            return false;
    }
    low[part.len] = '\0';
    memcpy(high, low, part.len);
    memcpy(high + part.len, "g", 2);
    return true;
}

enum wb_status
wb_outbox_show(struct wb_outbox *box, struct wb_slice part, wb_row_fn *fn,
    void *ctx, struct wb_err *err)
{
    char low[WB_ID_LEN + 2], high[WB_ID_LEN + 2];
    enum wb_status rc;

    if (!id_range(part, low, high))
        return wb__fail(err, WB_INVALID, 0,
            "\"%.*s\" is not an id; give 8 or more of its characters",
            WB_SHOW(part));
    rc = show_one(box, WB__SQL_SHOW,
        WB__ARGS(wb__text(wb_slice(low)), wb__text(wb_slice(high))), fn, ctx,
        err);
    if (rc == WB_EMPTY && part.len < WB_ID_LEN)
        rc = show_one(box, WB__SQL_SHOW_END,
            WB__ARGS(wb__text(wb_slice(low)), wb__int((int64_t)part.len)), fn,
            ctx, err);
    if (rc == WB_EMPTY)
        return wb__fail(err, WB_NOTFOUND, 0,
            "%s: no such message: it was never accepted, or is no longer "
            "remembered",
            low);
    if (rc == WB_INVALID)
        return wb__fail(err, WB_INVALID, 0,
            "%s fits more than one message; give more of the id, or its end",
            low);
    return rc;
}

enum wb_status
wb_outbox_show_key(struct wb_outbox *box, struct wb_slice key, wb_row_fn *fn,
    void *ctx, struct wb_err *err)
{
    enum wb_status rc =
        show_one(box, WB__SQL_SHOW_KEY, WB__ARGS(wb__text(key)), fn, ctx, err);

    if (rc == WB_EMPTY)
        return wb__fail(err, WB_NOTFOUND, 0,
            "key \"%.*s\": no such message: none was accepted with it, or it "
            "is no longer remembered",
            WB_SHOW(key));
    return rc;
}

/* ---- counts --------------------------------------------------------------- */

struct count_op {
    struct wb__db_job job;
    struct wb__kinds kinds;
    bool names_only;
};

/* Read one of KINDS (the names alone), COUNTS, PAUSED. */
static enum wb_status
read_counts(struct wb__db *db, struct wb__kinds *kinds, enum wb__sql sql,
    struct wb_err *err)
{
    enum wb_status rc = wb__db_start(db, sql, WB__NO_ARGS, err);

    if (rc != WB_OK)
        return rc;
    while ((rc = wb__db_next(db, sql, err)) == WB_OK) {
        struct wb_kind_counts *k =
            wb__kinds_get(kinds, wb__db_slice(db, sql, 0));
        enum wb_state state;

        if (k == NULL) {
            rc = wb__nomem(err, "count");
            break;
        }
        k->paused |= sql == WB__SQL_PAUSED;
        if (sql != WB__SQL_COUNTS ||
            !wb__state_parse(wb__db_slice(db, sql, 1), &state))
            continue;
        k->n[state] = (uint64_t)wb__db_int(db, sql, 2);
        if (state != WB_STATE_PENDING)
            continue;
        k->oldest_pending_created_ms = wb__db_int(db, sql, 3);
        k->next_due_ms = wb__db_int(db, sql, 4);
    }
    wb__db_end(db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
count_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct count_op *o = (struct count_op *)job;
    enum wb_status rc;

    wb__kinds_clear(&o->kinds);
    if (o->names_only)
        return read_counts(db, &o->kinds, WB__SQL_KINDS, err);
    rc = read_counts(db, &o->kinds, WB__SQL_COUNTS, err);
    return rc != WB_OK ? rc : read_counts(db, &o->kinds, WB__SQL_PAUSED, err);
}

static enum wb_status
run_count(struct wb_outbox *box, bool names_only, wb_kind_fn *fn, void *ctx,
    struct wb_err *err)
{
    struct count_op o = {.job = {.run = count_run, .tx = WB__TX_READ},
        .kinds.arena.env = box->env,
        .names_only = names_only};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);

    if (rc == WB_OK)
        rc = wb__kinds_report(&o.kinds, fn, ctx);
    wb__kinds_clear(&o.kinds);
    return rc;
}

enum wb_status
wb_outbox_count(
    struct wb_outbox *box, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    return run_count(box, false, fn, ctx, err);
}

enum wb_status
wb_outbox_kinds(
    struct wb_outbox *box, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    return run_count(box, true, fn, ctx, err);
}

/* ---- lanes ---------------------------------------------------------------- */

struct lanes_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    struct wb__arena arena;
    struct wb_lane_heads *row;
    size_t n, cap;
};

static enum wb_status
lanes_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_LANES;
    struct lanes_op *o = (struct lanes_op *)job;
    enum wb_status rc = wb__db_start(db, sql, WB__NO_ARGS, err);

    wb__arena_clear(&o->arena);
    o->row = NULL;
    o->n = o->cap = 0;
    if (rc != WB_OK)
        return rc;
    while ((rc = wb__db_next(db, sql, err)) == WB_OK) {
        struct wb_lane_heads h = {.lanes = (uint64_t)wb__db_int(db, sql, 1),
            .held = (uint64_t)wb__db_int(db, sql, 2),
            .retrying_lanes = (uint64_t)wb__db_int(db, sql, 3),
            .retrying_held = (uint64_t)wb__db_int(db, sql, 4)};

        if (!wb__arena_grow(&o->arena, &o->row, o->n, &o->cap, sizeof(h)) ||
            !wb__arena_dup(&o->arena, wb__db_slice(db, sql, 0), &h.kind)) {
            rc = wb__nomem(err, "lanes");
            break;
        }
        o->row[o->n++] = h;
    }
    wb__db_end(db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

enum wb_status
wb_outbox_lanes(
    struct wb_outbox *box, wb_lanes_fn *fn, void *ctx, struct wb_err *err)
{
    struct lanes_op o = {.job = {.run = lanes_run, .tx = WB__TX_READ},
        .box = box,
        .arena = {.env = box->env}};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);

    for (size_t i = 0; i < o.n && rc == WB_OK; i++)
        rc = fn(ctx, &o.row[i]);
    wb__arena_clear(&o.arena);
    return rc;
}
