/* sql_move.c - the steps of all calls but BEGIN, in SQL.
 *
 * (1) A move changes the state of a key by one guarded statement: it changes
 *     one row, or the token or the state did not fit. Only then the row is
 *     read, to find out whether the same call was made before. */
#include "idem/sql.h"

/* Arguments that statements share: the operation, the token and the time; what
 * is kept of a record. */
#define CLAIM(call)                                           \
    WB__OP_ARGS((call)->op), wb__int((int64_t)(call)->token), \
        wb__int((call)->now_ms)
#define RECORD(call)                                                      \
    ends_of(call), wb__int_or_null(ttl_of(&(call)->record)),              \
        wb__int((call)->record.status), wb__blob((call)->record.headers), \
        wb__blob((call)->record.body)

/* 0: for ever. */
static int64_t
ttl_of(const struct wb_idem_record *record)
{
    return record->ttl_ms > 0 ? record->ttl_ms : 0;
}

static struct wb__val
ends_of(const struct wb__idem_call *call)
{
    int64_t ttl_ms = ttl_of(&call->record);

    return wb__int_or_null(
        ttl_ms == 0 ? 0 : wb__sql_time(call->now_ms, ttl_ms));
}

static enum wb_status
change(struct wb__db *db, struct wb__idem_call *call, enum wb__sql sql,
    struct wb__args args, enum wb_status refused, struct wb_err *err)
{
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, sql, args, &changed, err);

    if (rc != WB_OK)
        return rc;
    return wb__sql_decide(call, changed > 0 ? WB_OK : refused);
}

/* ---- moves ------------------------------------------------------------- */

/* COMPLETE and RELEASE that changed nothing: OK if the same call has done it
 * already. */
static enum wb_status
check_repeat(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_record *want = &call->record;
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, call, &row, err);
    bool same;

    if (rc == WB_EMPTY)
        return wb__sql_decide(
            call, call->verb == WB__IDEM_RELEASE ? WB_OK : WB_FENCED);
    if (rc != WB_OK)
        return rc;
    same = call->verb == WB__IDEM_COMPLETE && row.state == WB_IDEM_DONE &&
           row.token == call->token && row.record.status == want->status &&
           row.record.ttl_ms == ttl_of(want) &&
           wb__eq(row.record.headers, want->headers) &&
           wb__eq(row.record.body, want->body);
    wb__sql_found_end(db);
    return wb__sql_decide(call, same ? WB_OK : WB_FENCED);
}

/* Run the guarded statement of a move. The outcome is OK if it changed a row.
 */
enum wb_status
wb__sql_move(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__val now = wb__int(call->now_ms);
    struct wb__val hold = wb__int(call->store->opts.hold_ms);
    struct wb__val held_until = wb__int(wb__sql_time(now.i, hold.i));
    enum wb_status rc = WB_INVALID;

    switch (call->verb) {
    case WB__IDEM_COMPLETE:
        rc = change(db, call, WB__SQL_IDEM_COMPLETE,
            WB__ARGS(CLAIM(call), RECORD(call)), WB_FENCED, err);
        break;
    case WB__IDEM_RELEASE:
        rc = change(db, call, WB__SQL_IDEM_RELEASE, WB__ARGS(CLAIM(call)),
            WB_FENCED, err);
        break;
    case WB__IDEM_EXTEND:
        return change(db, call, WB__SQL_IDEM_EXTEND,
            WB__ARGS(
                CLAIM(call), wb__int(wb__sql_time(now.i, call->how.lease_ms))),
            WB_FENCED, err);
    case WB__IDEM_SENDING: /* the lease ends when it would have */
        return change(db, call, WB__SQL_IDEM_MARK,
            WB__ARGS(CLAIM(call), wb__sql_state(WB_IDEM_SENDING),
                wb__int_or_null(0)),
            WB_FENCED, err);
    case WB__IDEM_UNKNOWN:
        return change(db, call, WB__SQL_IDEM_MARK,
            WB__ARGS(CLAIM(call), wb__sql_state(WB_IDEM_DOUBTFUL), held_until),
            WB_FENCED, err);
    case WB__IDEM_SETTLE:
        return change(db, call, WB__SQL_IDEM_SETTLE,
            WB__ARGS(WB__OP_ARGS(call->op), now, hold, RECORD(call)),
            WB_NOTFOUND, err);
    case WB__IDEM_SETTLE_FREE:
        return change(db, call, WB__SQL_IDEM_SETTLE_FREE,
            WB__ARGS(WB__OP_ARGS(call->op), now, hold), WB_NOTFOUND, err);
    case WB__IDEM_STORE:
        return change(db, call, WB__SQL_IDEM_STORE,
            WB__ARGS(WB__OP_ARGS(call->op), wb__int(0), now, hold,
                wb__sql_fingerprint(&call->record.fingerprint), RECORD(call)),
            WB_BUSY, err);
    default:
        WB_ASSERT(!"a move");
    }
    if (rc == WB_OK && call->rc == WB_FENCED)
        rc = check_repeat(db, call, err);
    return rc;
}

/* ---- lookup ------------------------------------------------------------ */

/* Not decided if the row has expired: it is to be deleted. */
enum wb_status
wb__sql_lookup(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, call, &row, err);

    call->decided = false;
    if (rc == WB_EMPTY)
        return wb__sql_decide(call, WB_EMPTY);
    if (rc != WB_OK)
        return rc;
    if (!row.expired)
        rc = wb__sql_decide(call, row.state == WB_IDEM_DONE ? WB_OK : WB_EMPTY);
    if (call->decided && call->rc == WB_OK &&
        !wb__idem_copy_record(call->result, call->store->env, &row.record))
        rc = wb__nomem(err, "a record");
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
        WB__ARGS(WB__OP_ARGS(call->op), wb__int(call->now_ms),
            wb__int(call->store->opts.hold_ms)),
        NULL, err);
    return rc != WB_OK ? rc : wb__sql_decide(call, WB_EMPTY);
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
        return wb__sql_decide(call, WB_NOTFOUND);
    if (rc != WB_OK)
        return rc;
    wb__sql_found_end(db);
    if (row.expired)
        return wb__sql_decide(call, WB_NOTFOUND);
    item_of(&row, call->item);
    return wb__sql_decide(call, WB_OK);
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
        return wb__sql_decide(call, WB_NOTFOUND);
    if (rc == WB_OK)
        wb__sql_found_end(db);
    else if (rc == WB_CORRUPT || rc == WB_NEWER)
        row = (struct wb__idem_row){.state = WB_IDEM_DOUBTFUL};
    else
        return rc;
    item_of(&row, call->item);
    rc = wb__db_run(
        db, WB__SQL_IDEM_DELETE, WB__ARGS(WB__OP_ARGS(call->op)), NULL, err);
    return rc != WB_OK
               ? rc
               : wb__sql_decide(call, row.expired ? WB_NOTFOUND : WB_OK);
}
