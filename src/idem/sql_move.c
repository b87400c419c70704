/* sql_move.c - what ends or changes a claim, and the calls without a claim, in
 * SQL.
 *
 * (1) A move is one guarded statement: it changes one row, or the token did
 *     not fit. Only then the row is read, to find out whether the same call was
 *     made before. */
#include "idem/sql.h"

#define AT(op) \
    wb__text((op)->identity), wb__text((op)->scope), wb__text((op)->key)

static enum wb_status
decide(struct wb__idem_call *call, enum wb_status outcome)
{
    call->decided = true;
    call->rc = outcome;
    return WB_OK;
}

static struct wb__val
ends_of(const struct wb_idem_record *record, int64_t now_ms)
{
    if (record->ttl_ms <= 0)
        return wb__int_or_null(0);
    return wb__int(wb__sql_time(now_ms, record->ttl_ms));
}

static struct wb__val
ttl_of(const struct wb_idem_record *record)
{
    return wb__int_or_null(record->ttl_ms > 0 ? record->ttl_ms : 0);
}

/* ---- with a token ------------------------------------------------------ */

/* The same token and the same record: nothing is left to do. */
static enum wb_status
check_repeat(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_record *want = &call->record;
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, call, &row, err);
    bool repeat;

    if (rc == WB_EMPTY)
        return decide(call, WB_FENCED);
    if (rc != WB_OK)
        return rc;
    repeat = row.state == WB_IDEM_DONE && row.token == call->token &&
             row.record.status == want->status &&
             row.record.ttl_ms == (want->ttl_ms > 0 ? want->ttl_ms : 0) &&
             wb__eq(row.record.headers, want->headers) &&
             wb__eq(row.record.body, want->body);
    wb__sql_found_end(db);
    return decide(call, repeat ? WB_OK : WB_FENCED);
}

enum wb_status
wb__sql_complete(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_record *r = &call->record;
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_COMPLETE,
        WB__ARGS(AT(call->op), wb__int((int64_t)call->token),
            wb__int(call->now_ms), ends_of(r, call->now_ms), ttl_of(r),
            wb__int(r->status), wb__blob(r->headers), wb__blob(r->body)),
        &changed, err);

    if (rc != WB_OK)
        return rc;
    return changed > 0 ? decide(call, WB_OK) : check_repeat(db, call, err);
}

enum wb_status
wb__sql_release(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_row row;
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_RELEASE,
        WB__ARGS(
            AT(call->op), wb__int((int64_t)call->token), wb__int(call->now_ms)),
        &changed, err);

    if (rc != WB_OK)
        return rc;
    if (changed > 0)
        return decide(call, WB_OK);
    rc = wb__sql_find(db, call, &row, err);
    if (rc == WB_EMPTY) /* the key is free already */
        return decide(call, WB_OK);
    if (rc != WB_OK)
        return rc;
    wb__sql_found_end(db);
    return decide(call, WB_FENCED);
}

enum wb_status
wb__sql_extend(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_EXTEND,
        WB__ARGS(AT(call->op), wb__int((int64_t)call->token),
            wb__int(call->now_ms),
            wb__int(wb__sql_time(call->now_ms, call->how.lease_ms))),
        &changed, err);

    return rc != WB_OK ? rc : decide(call, changed > 0 ? WB_OK : WB_FENCED);
}

/* SENDING keeps the end of the lease; UNKNOWN holds the key for hold_ms. */
enum wb_status
wb__sql_mark(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    bool unknown = call->verb == WB__IDEM_UNKNOWN;
    const char *state =
        wb_idem_state_name(unknown ? WB_IDEM_DOUBTFUL : WB_IDEM_SENDING);
    int64_t ends_ms =
        unknown ? wb__sql_time(call->now_ms, call->store->opts.hold_ms) : 0;
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_MARK,
        WB__ARGS(AT(call->op), wb__int((int64_t)call->token),
            wb__int(call->now_ms), wb__text(wb_slice(state)),
            wb__int_or_null(ends_ms)),
        &changed, err);

    return rc != WB_OK ? rc : decide(call, changed > 0 ? WB_OK : WB_FENCED);
}

/* ---- settle, store, lookup --------------------------------------------- */

enum wb_status
wb__sql_settle(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_record *r = &call->record;
    struct wb__val now = wb__int(call->now_ms);
    struct wb__val hold = wb__int(call->store->opts.hold_ms);
    int64_t changed = 0;
    enum wb_status rc;

    if (call->verb == WB__IDEM_SETTLE_FREE)
        rc = wb__db_run(db, WB__SQL_IDEM_SETTLE_FREE,
            WB__ARGS(AT(call->op), now, hold), &changed, err);
    else
        rc = wb__db_run(db, WB__SQL_IDEM_SETTLE,
            WB__ARGS(AT(call->op), now, hold, ends_of(r, now.i), ttl_of(r),
                wb__int(r->status), wb__blob(r->headers), wb__blob(r->body)),
            &changed, err);
    return rc != WB_OK ? rc : decide(call, changed > 0 ? WB_OK : WB_NOTFOUND);
}

enum wb_status
wb__sql_store(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_record *r = &call->record;
    struct wb_slice fp = {
        (const char *)r->fingerprint.bytes, sizeof(r->fingerprint.bytes)};
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, WB__SQL_IDEM_STORE,
        WB__ARGS(AT(call->op), wb__int(0), wb__int(call->now_ms),
            wb__int(call->store->opts.hold_ms), wb__blob(fp),
            ends_of(r, call->now_ms), ttl_of(r), wb__int(r->status),
            wb__blob(r->headers), wb__blob(r->body)),
        &changed, err);

    return rc != WB_OK ? rc : decide(call, changed > 0 ? WB_OK : WB_BUSY);
}

/* Not decided if the row has expired: it is to be deleted. */
enum wb_status
wb__sql_lookup(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, call, &row, err);

    call->decided = false;
    if (rc == WB_EMPTY)
        return decide(call, WB_EMPTY);
    if (rc != WB_OK)
        return rc;
    if (row.state == WB_IDEM_DONE && !row.expired)
        rc = wb__idem_copy_record(call->result, call->store->env, &row.record)
                 ? decide(call, WB_OK)
                 : wb__nomem(err, "a record");
    else if (!row.expired)
        rc = decide(call, WB_EMPTY);
    wb__sql_found_end(db);
    return rc;
}

/* The row is read again: another begin may have acquired the key since. */
enum wb_status
wb__sql_drop_expired(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    enum wb_status rc = wb__sql_lookup(db, call, err);

    if (rc != WB_OK || call->decided)
        return rc;
    rc = wb__db_run(db, WB__SQL_IDEM_DROP,
        WB__ARGS(AT(call->op), wb__int(call->now_ms),
            wb__int(call->store->opts.hold_ms)),
        NULL, err);
    return rc != WB_OK ? rc : decide(call, WB_EMPTY);
}

/* ---- peek, forget ------------------------------------------------------ */

static void
item_of(const struct wb__idem_row *row, struct wb_idem_item *item)
{
    *item = (struct wb_idem_item){.state = row->state,
        .fingerprint = row->record.fingerprint,
        .ends_ms = row->ends_ms,
        .since_ms = row->since_ms,
        .status = row->record.status,
        .bytes = row->record.headers.len + row->record.body.len};
}

enum wb_status
wb__sql_peek(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, call, &row, err);

    if (rc == WB_EMPTY)
        return decide(call, WB_NOTFOUND);
    if (rc != WB_OK)
        return rc;
    wb__sql_found_end(db);
    if (row.expired)
        return decide(call, WB_NOTFOUND);
    item_of(&row, call->item);
    return decide(call, WB_OK);
}

/* A row that cannot be read is deleted as well: there is no other way to free
 * its key. */
enum wb_status
wb__sql_forget(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_row row = {0};
    enum wb_status rc = wb__sql_find(db, call, &row, err);

    if (rc == WB_EMPTY)
        return decide(call, WB_NOTFOUND);
    if (rc == WB_OK)
        wb__sql_found_end(db);
    else if (rc == WB_CORRUPT || rc == WB_NEWER)
        row = (struct wb__idem_row){.state = WB_IDEM_DOUBTFUL};
    else
        return rc;
    item_of(&row, call->item);
    rc = wb__db_run(db, WB__SQL_IDEM_DELETE, WB__ARGS(AT(call->op)), NULL, err);
    return rc != WB_OK ? rc : decide(call, row.expired ? WB_NOTFOUND : WB_OK);
}
