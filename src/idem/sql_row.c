/* sql_row.c - read rows of waybill_idem.
 *
 * (1) A row that is malformed, or of an unknown version, is an error whatever
 *     it says: a begin on its key never runs. */
#include "idem/sql.h"

int64_t
wb__sql_time(int64_t from_ms, int64_t span_ms)
{
    const int64_t latest = INT64_C(1) << 60;
    int64_t ms = wb__sat_add(from_ms, span_ms);

    return ms < latest ? ms : latest;
}

/* False if there is no state of that name. */
static bool
read_state(struct wb_slice name, enum wb_idem_state *state)
{
    for (int i = 0; i <= WB_IDEM_DOUBTFUL; i++) {
        if (wb__eq(name, wb_slice(wb_idem_state_name((enum wb_idem_state)i)))) {
            *state = (enum wb_idem_state)i;
            return true;
        }
    }
    return false;
}

/* False if it is malformed. */
static bool
read_fingerprint(struct wb_slice blob, struct wb_fingerprint *out)
{
    if (blob.len != sizeof(out->bytes))
        return false;
    memcpy(out->bytes, blob.ptr, blob.len);
    return true;
}

/* ---- one row ----------------------------------------------------------- */

static enum wb_status
check_version(const struct wb_idem_op *op, int64_t version, struct wb_err *err)
{
    if (version == 1)
        return WB_OK;
    return wb__fail(err, version > 1 ? WB_NEWER : WB_CORRUPT, 0,
        "key \"%.*s\": its row in waybill_idem is of version %lld, this "
        "Waybill knows 1; install a newer Waybill, or free the key",
        WB_SHOW(op->key), (long long)version);
}

static enum wb_status
malformed(const struct wb_idem_op *op, const char *column, struct wb_err *err)
{
    return wb__fail(err, WB_CORRUPT, 0,
        "key \"%.*s\": its row in waybill_idem has a malformed %s; free the "
        "key",
        WB_SHOW(op->key), column);
}

static enum wb_status
read_record(struct wb__db *db, const struct wb_idem_op *op,
    struct wb__idem_row *row, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    struct wb_idem_record *r = &row->record;
    int64_t status = wb__db_int(db, sql, 7);

    if (wb__db_null(db, sql, 7) || status < 0 || status > 65535)
        return malformed(op, "status", err);
    if (wb__db_null(db, sql, 8))
        return malformed(op, "headers", err);
    if (wb__db_null(db, sql, 9))
        return malformed(op, "body", err);
    r->status = (int)status;
    r->headers = wb__db_slice(db, sql, 8);
    r->body = wb__db_slice(db, sql, 9);
    r->ttl_ms = wb__db_int(db, sql, 6);
    r->stored_ms = row->since_ms;
    return WB_OK;
}

/* When the lease of a sending claim has ended, its outcome is unknown, and it
 * holds its key for hold_ms more. True if the row has expired. */
static bool
apply_time(enum wb_idem_state *state, int64_t *ends_ms, int64_t now_ms,
    int64_t hold_ms)
{
    if (*state == WB_IDEM_SENDING && *ends_ms <= now_ms) {
        *state = WB_IDEM_DOUBTFUL;
        *ends_ms = wb__sql_time(*ends_ms, hold_ms);
    }
    return *ends_ms != 0 && *ends_ms <= now_ms;
}

static enum wb_status
read_row(struct wb__db *db, const struct wb__idem_call *call,
    struct wb__idem_row *row, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    enum wb_status rc = check_version(call->op, wb__db_int(db, sql, 1), err);

    *row = (struct wb__idem_row){.token = (uint64_t)wb__db_int(db, sql, 3),
        .since_ms = wb__db_int(db, sql, 4),
        .ends_ms = wb__db_int(db, sql, 5)};
    if (rc != WB_OK)
        return rc;
    if (!read_state(wb__db_slice(db, sql, 0), &row->state))
        return malformed(call->op, "state", err);
    if (!read_fingerprint(wb__db_slice(db, sql, 2), &row->record.fingerprint))
        return malformed(call->op, "fingerprint", err);
    if (row->state != WB_IDEM_DONE && wb__db_null(db, sql, 5))
        return malformed(call->op, "ends_ms", err);
    if (row->state == WB_IDEM_DONE)
        rc = read_record(db, call->op, row, err);
    row->expired = apply_time(
        &row->state, &row->ends_ms, call->now_ms, call->store->opts.hold_ms);
    return rc;
}

enum wb_status
wb__sql_find(struct wb__db *db, struct wb__idem_call *call,
    struct wb__idem_row *row, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    enum wb_status rc =
        wb__db_start(db, sql, WB__ARGS(WB__OP_ARGS(call->op)), err);

    call->now_ms = wb__db_now(db);
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        rc = read_row(db, call, row, err);
    if (rc != WB_OK)
        wb__db_end(db, sql);
    return rc;
}

void
wb__sql_found_end(struct wb__db *db)
{
    wb__db_end(db, WB__SQL_IDEM_FIND);
}

/* ---- a row of the list ------------------------------------------------- */

bool
wb__sql_item(struct wb__db *db, int64_t now_ms, int64_t hold_ms,
    struct wb_idem_item *item)
{
    const enum wb__sql sql = WB__SQL_IDEM_LIST;

    *item = (struct wb_idem_item){.op = {.identity = wb__db_slice(db, sql, 1),
                                      .scope = wb__db_slice(db, sql, 2),
                                      .key = wb__db_slice(db, sql, 3)},
        .since_ms = wb__db_int(db, sql, 7),
        .ends_ms = wb__db_int(db, sql, 8),
        .status = (int)wb__db_int(db, sql, 9),
        .bytes = (size_t)wb__db_int(db, sql, 10)};
    /* A row that cannot be read holds its key, and its outcome is unknown. */
    if (!read_state(wb__db_slice(db, sql, 4), &item->state) ||
        !read_fingerprint(wb__db_slice(db, sql, 6), &item->fingerprint) ||
        wb__db_int(db, sql, 5) != 1) {
        item->state = WB_IDEM_DOUBTFUL;
        return true;
    }
    return !apply_time(&item->state, &item->ends_ms, now_ms, hold_ms);
}
