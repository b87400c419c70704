/* sql_begin.c - the steps of BEGIN in SQL: answer from the row, or acquire.
 *
 * (1) One guarded INSERT decides which begin acquires the key; one that did
 *     not get it reads, in the same transaction, what holds the key. */
#include "idem/sql.h"

enum {
    REAP_EACH = 64 /* acquired claims between two reapings */
};

/* ---- answer ------------------------------------------------------------ */

static enum wb_status
answer_row(struct wb__idem_call *call, const struct wb__idem_row *row,
    struct wb_err *err)
{
    struct wb_idem_result *result = call->result;

    if (!wb__fingerprint_eq(&row->record.fingerprint, call->fingerprint))
        result->answer = WB_IDEM_MISMATCH;
    else if (row->state == WB_IDEM_DOUBTFUL)
        result->answer = WB_IDEM_UNKNOWN;
    else if (row->state != WB_IDEM_DONE)
        result->answer = WB_IDEM_IN_FLIGHT;
    else if (!wb__idem_copy_record(result, call->store->env, &row->record))
        return wb__nomem(err, "a record");
    return wb__sql_decide(call, WB_OK);
}

/* Not decided if the key is free. */
enum wb_status
wb__sql_find_answer(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_row row;
    enum wb_status rc = wb__sql_find(db, call, &row, err);

    call->decided = false;
    if (rc != WB_OK)
        return rc == WB_EMPTY ? WB_OK : rc;
    if (!row.expired)
        rc = answer_row(call, &row, err);
    wb__sql_found_end(db);
    return rc;
}

/* ---- acquire ----------------------------------------------------------- */

static enum wb_status
check_quota(struct wb__db *db, const struct wb__idem_call *call, bool *used_up,
    struct wb_err *err)
{
    const struct wb_idem_opts *opts = &call->store->opts;
    struct wb__val identity = wb__text(call->op->identity);
    enum wb_status rc = WB_OK;
    int64_t n = 0, bytes = 0;

    if (opts->identity_claims > 0)
        rc = wb__db_one_int(db, WB__SQL_IDEM_CLAIMS,
            WB__ARGS(identity, wb__int(call->now_ms), wb__int(opts->hold_ms)),
            &n, err);
    if (rc == WB_OK && opts->identity_bytes > 0)
        rc = wb__db_one_int(db, WB__SQL_IDEM_BYTES,
            WB__ARGS(identity, wb__int(call->now_ms)), &bytes, err);
    *used_up = (opts->identity_claims > 0 && n >= opts->identity_claims) ||
               (opts->identity_bytes > 0 && bytes >= opts->identity_bytes);
    return rc;
}

/* Under a quota a key that is known is answered first: it takes nothing new. */
static enum wb_status
admit(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_opts *opts = &call->store->opts;
    bool used_up = false;
    enum wb_status rc;

    if (opts->identity_claims == 0 && opts->identity_bytes == 0)
        return WB_OK;
    rc = wb__db_run(db, WB__SQL_IDEM_LOCK,
        WB__ARGS(wb__text(call->op->identity)), NULL, err);
    if (rc == WB_OK)
        rc = wb__sql_find_answer(db, call, err);
    if (rc == WB_OK && !call->decided)
        rc = check_quota(db, call, &used_up, err);
    if (rc == WB_OK && used_up) {
        call->result->answer = WB_IDEM_LIMIT;
        rc = wb__sql_decide(call, WB_OK);
    }
    return rc;
}

static enum wb_status
insert_claim(struct wb__db *db, const struct wb__idem_call *call,
    int64_t *inserted, struct wb_err *err)
{
    enum wb_idem_state state =
        call->how.sending ? WB_IDEM_SENDING : WB_IDEM_CLAIMED;

    return wb__db_run(db, WB__SQL_IDEM_CLAIM,
        WB__ARGS(WB__OP_ARGS(call->op), wb__int((int64_t)call->token),
            wb__int(call->now_ms), wb__int(call->store->opts.hold_ms),
            wb__sql_state(state), wb__sql_fingerprint(call->fingerprint),
            wb__int(wb__sql_time(call->now_ms, call->how.lease_ms))),
        inserted, err);
}

enum wb_status
wb__sql_reap_some(struct wb__db *db, const struct wb_idem *store,
    int64_t now_ms, int64_t *n, struct wb_err *err)
{
    return wb__db_run(db, WB__SQL_IDEM_REAP,
        WB__ARGS(wb__int(now_ms), wb__int(now_ms - store->opts.hold_ms),
            wb__int(WB__SQL_REAP_ROWS)),
        n, err);
}

enum wb_status
wb__sql_acquire(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_sql *sql = (struct wb__idem_sql *)call->store;
    int64_t inserted = 0;
    enum wb_status rc = WB_OK;

    call->decided = false;
    if (sql->acquired % REAP_EACH == 0)
        rc = wb__sql_reap_some(db, call->store, call->now_ms, NULL, err);
    if (rc == WB_OK)
        rc = admit(db, call, err);
    if (rc != WB_OK || call->decided)
        return rc;
    rc = insert_claim(db, call, &inserted, err);
    if (rc != WB_OK)
        return rc;
    if (inserted == 0)
        return wb__sql_find_answer(db, call, err);
    sql->acquired++;
    call->result->answer = WB_IDEM_ACQUIRED;
    call->result->token = call->token;
    return wb__sql_decide(call, WB_OK);
}
