/* sql_row.c - a row of waybill_idem, read and doubted.
 *
 * (1) A row that is malformed, or of a version that is not known, is an error
 *     whatever it says: it is never run. */
#include "idem/sql.h"

int64_t
wb__sql_time(int64_t from_ms, int64_t span_ms)
{
    const int64_t latest = INT64_C(1) << 60;
    int64_t ms = wb__sat_add(from_ms, span_ms);

    return ms < latest ? ms : latest;
}

enum wb_status
wb__sql_state(struct wb_slice name, enum wb_idem_state *state)
{
    for (int i = 0; i <= WB_IDEM_DOUBTFUL; i++) {
        if (wb__eq(name, wb_slice(wb_idem_state_name((enum wb_idem_state)i)))) {
            *state = (enum wb_idem_state)i;
            return WB_OK;
        }
    }
    return WB_CORRUPT;
}

bool
wb__sql_fingerprint(struct wb_slice blob, struct wb_fingerprint *out)
{
    if (blob.len != sizeof(out->bytes))
        return false;
    memcpy(out->bytes, blob.ptr, blob.len);
    return true;
}

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

/* By the clock: a claim that is over is none, or unknown if it was sending. */
static void
set_time(struct wb__idem_row *row, int64_t now_ms, int64_t hold_ms)
{
    if (row->state == WB_IDEM_SENDING && row->ends_ms <= now_ms) {
        row->state = WB_IDEM_DOUBTFUL;
        row->ends_ms = wb__sql_time(row->ends_ms, hold_ms);
    }
    row->over = row->ends_ms != 0 && row->ends_ms <= now_ms;
}

static enum wb_status
read_row(struct wb__db *db, const struct wb__idem_job *job,
    struct wb__idem_row *row, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    enum wb_status rc = check_version(job->op, wb__db_int(db, sql, 1), err);

    *row = (struct wb__idem_row){.token = (uint64_t)wb__db_int(db, sql, 3),
        .since_ms = wb__db_int(db, sql, 4),
        .ends_ms = wb__db_int(db, sql, 5)};
    if (rc != WB_OK)
        return rc;
    if (wb__sql_state(wb__db_slice(db, sql, 0), &row->state) != WB_OK)
        return malformed(job->op, "state", err);
    if (!wb__sql_fingerprint(
            wb__db_slice(db, sql, 2), &row->record.fingerprint))
        return malformed(job->op, "fingerprint", err);
    if (row->state != WB_IDEM_DONE && wb__db_null(db, sql, 5))
        return malformed(job->op, "ends_ms", err);
    if (row->state == WB_IDEM_DONE)
        rc = read_record(db, job->op, row, err);
    set_time(row, job->now_ms, job->sql->face.opts.hold_ms);
    return rc;
}

enum wb_status
wb__sql_find(struct wb__db *db, struct wb__idem_job *job,
    struct wb__idem_row *row, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    enum wb_status rc = wb__db_start(db, sql,
        WB__ARGS(wb__text(job->op->identity), wb__text(job->op->scope),
            wb__text(job->op->key)),
        err);

    job->now_ms = wb__db_now(db);
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        rc = read_row(db, job, row, err);
    if (rc != WB_OK)
        wb__db_end(db, sql);
    return rc;
}

void
wb__sql_found_end(struct wb__db *db)
{
    wb__db_end(db, WB__SQL_IDEM_FIND);
}
