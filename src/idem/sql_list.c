/* sql_list.c - every key, a page at a time.
 *
 * (1) No statement is open while the caller's function runs: a slow reader
 *     pins nothing. */
#include "idem/sql.h"

enum {
    PAGE = 256
};

struct page {
    struct wb__idem_job job; /* first */
    struct wb__arena arena;
    struct wb_idem_item *item; /* PAGE of them */
    size_t n;
    int64_t after, rows; /* the last seq seen; rows read, over ones as well */
};

/* The current row; false if it is past its time. */
static bool
read_item(struct wb__db *db, struct page *p, struct wb_idem_item *item)
{
    const enum wb__sql sql = WB__SQL_IDEM_LIST;

    *item = (struct wb_idem_item){.op = {.identity = wb__db_slice(db, sql, 1),
                                      .scope = wb__db_slice(db, sql, 2),
                                      .key = wb__db_slice(db, sql, 3)},
        .since_ms = wb__db_int(db, sql, 7),
        .ends_ms = wb__db_int(db, sql, 8),
        .status = (int)wb__db_int(db, sql, 9),
        .bytes = (size_t)wb__db_int(db, sql, 10)};
    /* What cannot be read holds its key, and nobody knows what happened. */
    if (wb__sql_state(wb__db_slice(db, sql, 4), &item->state) != WB_OK ||
        !wb__sql_fingerprint(wb__db_slice(db, sql, 6), &item->fingerprint) ||
        wb__db_int(db, sql, 5) != 1) {
        item->state = WB_IDEM_DOUBTFUL;
        return true;
    }
    if (item->state == WB_IDEM_SENDING && item->ends_ms <= p->job.now_ms) {
        item->state = WB_IDEM_DOUBTFUL;
        item->ends_ms =
            wb__sql_time(item->ends_ms, p->job.sql->face.opts.hold_ms);
    }
    return item->ends_ms == 0 || item->ends_ms > p->job.now_ms;
}

static enum wb_status
add_item(struct wb__db *db, struct page *p, struct wb_err *err)
{
    struct wb_idem_item *item = &p->item[p->n];

    p->after = wb__db_int(db, WB__SQL_IDEM_LIST, 0);
    p->rows++;
    if (!read_item(db, p, item))
        return WB_OK;
    if (!wb__arena_dup(&p->arena, item->op.identity, &item->op.identity) ||
        !wb__arena_dup(&p->arena, item->op.scope, &item->op.scope) ||
        !wb__arena_dup(&p->arena, item->op.key, &item->op.key))
        return wb__nomem(err, "a page of keys");
    p->n++;
    return WB_OK;
}

static enum wb_status
run_page(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_LIST;
    struct page *p = (struct page *)base;
    int64_t from = p->after;
    enum wb_status rc =
        wb__db_start(db, sql, WB__ARGS(wb__int(from), wb__int(PAGE)), err);

    if (rc != WB_OK)
        return rc;
    p->job.now_ms = wb__db_now(db);
    p->n = 0;
    p->rows = 0;
    wb__arena_clear(&p->arena);
    while (rc == WB_OK && (rc = wb__db_next(db, sql, err)) == WB_OK)
        rc = add_item(db, p, err);
    wb__db_end(db, sql);
    if (rc == WB_EMPTY)
        return WB_OK;
    p->after = from; /* it may be run again */
    return rc;
}

enum wb_status
wb__sql_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err)
{
    struct page p = {
        .job = {.job.run = run_page, .sql = (struct wb__idem_sql *)store},
        .arena = {.env = store->env}};
    enum wb_status rc = WB_OK;

    p.item = wb__alloc(store->env, PAGE * sizeof(*p.item));
    if (p.item == NULL)
        return wb__nomem(err, "a page of keys");
    do {
        rc = wb__sql_read(&p.job, err);
        for (size_t i = 0; rc == WB_OK && i < p.n; i++)
            rc = fn(ctx, &p.item[i]);
    } while (rc == WB_OK && p.rows == PAGE);
    wb__arena_clear(&p.arena);
    wb__free(store->env, p.item);
    return rc;
}
