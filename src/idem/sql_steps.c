/* sql_steps.c - the steps of calls in SQL, and the rows that they read.
 *
 * (1) A row that is malformed, or of an unknown version, is an error whatever
 *     it says: a begin on its key never runs.
 * (2) One guarded INSERT decides which begin acquires the key; one that did
 *     not get it reads, in the same transaction, what holds the key.
 * (3) A move changes the state of a key by one guarded statement: it changes
 *     one row, or the token or the state did not fit. Only then the row is
 *     read, to find out whether the same call was made before. */
#include "idem/sql.h"

enum {
    REAP_EACH = 64 /* acquired claims between two reapings */
};

/* Arguments that statements share: the operation; the token and the time; what
 * is kept of a record. */
#define OP(call)                                                 \
    wb__text((call)->op->identity), wb__text((call)->op->scope), \
        wb__text((call)->op->key)
#define CLAIM(call) OP(call), wb__int((int64_t)(call)->token)
#define RECORD(call)                                                      \
    ends_of(call), wb__int_or_null(ttl_of(&(call)->record)),              \
        wb__int((call)->record.status), wb__blob((call)->record.headers), \
        wb__blob((call)->record.body)

/* ---- values ------------------------------------------------------------ */

static struct wb__val
fingerprint_of(const struct wb_fingerprint *fp)
{
    return wb__blob(
        (struct wb_slice){(const char *)fp->bytes, sizeof(fp->bytes)});
}

static struct wb__val
state_of(enum wb_idem_state state)
{
    return wb__text(wb_slice(wb_idem_state_name(state)));
}

int64_t
wb__sql_time(int64_t from_ms, int64_t span_ms)
{
    const int64_t latest = INT64_C(1) << 60;
    int64_t ms = wb__sat_add(from_ms, span_ms);

    return ms < latest ? ms : latest;
}

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

/* ---- rows -------------------------------------------------------------- */

/* A row as it is now; slices are borrowed from the statement. */
struct row {
    enum wb_idem_state state;
    bool expired; /* its key is free */
    uint64_t token;
    int64_t since_ms, ends_ms;    /* 0: never; of the hold, if DOUBTFUL */
    struct wb_idem_record record; /* DONE; the fingerprint always */
};

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
malformed(const struct wb_idem_op *op, const char *column, struct wb_err *err)
{
    return wb__fail(err, WB_CORRUPT, 0,
        "key \"%.*s\": its row in waybill_idem has a malformed %s; free the "
        "key",
        WB_SHOW(op->key), column);
}

static enum wb_status
read_record(struct wb__db *db, const struct wb_idem_op *op, struct row *row,
    struct wb_err *err)
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
read_row(struct wb__db *db, const struct wb__idem_call *call, struct row *row,
    struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    int64_t version = wb__db_int(db, sql, 1);
    enum wb_status rc = WB_OK;

    *row = (struct row){.token = (uint64_t)wb__db_int(db, sql, 3),
        .since_ms = wb__db_int(db, sql, 4),
        .ends_ms = wb__db_int(db, sql, 5)};
    if (version != 1)
        return wb__fail(err, version > 1 ? WB_NEWER : WB_CORRUPT, 0,
            "key \"%.*s\": its row in waybill_idem is of version %lld, this "
            "Waybill knows 1; install a newer Waybill, or free the key",
            WB_SHOW(call->op->key), (long long)version);
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

/* Read the row of the call's operation, and set call->now_ms. EMPTY if there is
 * none, CORRUPT or NEWER if it cannot be read. After OK the statement must be
 * ended. */
static enum wb_status
find_row(struct wb__db *db, struct wb__idem_call *call, struct row *row,
    struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_FIND;
    enum wb_status rc = wb__db_start(db, sql, WB__ARGS(OP(call)), err);

    call->now_ms = wb__sql_now(call->store, db);
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        rc = read_row(db, call, row, err);
    if (rc != WB_OK)
        wb__db_end(db, sql);
    return rc;
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
/* To be returned by a step: the outcome is final. */
static enum wb_status
decide(struct wb__idem_call *call, enum wb_status outcome)
{
    call->decided = true;
    call->rc = outcome;
    return WB_OK;
}

/* ---- answer ------------------------------------------------------------ */

/* Not decided if the key is free. */
enum wb_status
wb__sql_find_answer(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct wb_idem_result *result = call->result;
    struct row row;
    enum wb_status rc = find_row(db, call, &row, err);

    call->decided = false;
    if (rc != WB_OK)
        return rc == WB_EMPTY ? WB_OK : rc;
    if (!row.expired) {
        rc = decide(call, WB_OK);
        if (!wb__fingerprint_eq(&row.record.fingerprint, call->fingerprint))
            result->answer = WB_IDEM_MISMATCH;
        else if (row.state == WB_IDEM_DOUBTFUL)
            result->answer = WB_IDEM_UNKNOWN;
        else if (row.state != WB_IDEM_DONE)
            result->answer = WB_IDEM_IN_FLIGHT;
        else if (!wb__idem_copy_record(result, call->store->env, &row.record))
            rc = wb__nomem(err, "a record");
    }
    wb__db_end(db, WB__SQL_IDEM_FIND);
    return rc;
}

/* ---- acquire ----------------------------------------------------------- */

/* Under a quota a key that is known is answered first: it takes nothing new. */
static enum wb_status
admit(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_opts *opts = &call->store->opts;
    struct wb__val identity = wb__text(call->op->identity);
    struct wb__val now = wb__int(call->now_ms), hold = wb__int(opts->hold_ms);
    int64_t n = 0, bytes = 0;
    enum wb_status rc;

    if (opts->identity_claims == 0 && opts->identity_bytes == 0)
        return WB_OK;
    rc = wb__db_run(db, WB__SQL_IDEM_LOCK, WB__ARGS(identity), NULL, err);
    if (rc == WB_OK)
        rc = wb__sql_find_answer(db, call, err);
    if (rc == WB_OK && !call->decided && opts->identity_claims > 0)
        rc = wb__db_one_int(
            db, WB__SQL_IDEM_CLAIMS, WB__ARGS(identity, now, hold), &n, err);
    if (rc == WB_OK && !call->decided && opts->identity_bytes > 0)
        rc = wb__db_one_int(
            db, WB__SQL_IDEM_BYTES, WB__ARGS(identity, now), &bytes, err);
    if (rc == WB_OK && !call->decided &&
        ((opts->identity_claims > 0 && n >= opts->identity_claims) ||
            (opts->identity_bytes > 0 && bytes >= opts->identity_bytes))) {
        call->result->answer = WB_IDEM_LIMIT;
        rc = decide(call, WB_OK);
    }
    return rc;
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
    enum wb_idem_state state =
        call->how.sending ? WB_IDEM_SENDING : WB_IDEM_CLAIMED;
    int64_t inserted = 0;
    enum wb_status rc = WB_OK;

    call->decided = false;
    if (sql->acquired % REAP_EACH == 0)
        rc = wb__sql_reap_some(db, call->store, call->now_ms, NULL, err);
    if (rc == WB_OK)
        rc = admit(db, call, err);
    if (rc != WB_OK || call->decided)
        return rc;
    rc = wb__db_run(db, WB__SQL_IDEM_CLAIM,
        WB__ARGS(CLAIM(call), wb__int(call->now_ms),
            wb__int(call->store->opts.hold_ms), state_of(state),
            fingerprint_of(call->fingerprint),
            wb__int(wb__sql_time(call->now_ms, call->how.lease_ms))),
        &inserted, err);
    if (rc != WB_OK)
        return rc;
    if (inserted == 0)
        return wb__sql_find_answer(db, call, err);
    sql->acquired++;
    call->result->answer = WB_IDEM_ACQUIRED;
    call->result->token = call->token;
    return decide(call, WB_OK);
}
static enum wb_status
change(struct wb__db *db, struct wb__idem_call *call, enum wb__sql sql,
    struct wb__args args, enum wb_status refused, struct wb_err *err)
{
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(db, sql, args, &changed, err);

    if (rc != WB_OK)
        return rc;
    return decide(call, changed > 0 ? WB_OK : refused);
}

/* ---- moves ------------------------------------------------------------- */

/* COMPLETE and RELEASE that changed nothing: OK if the same call has done it
 * already. */
static enum wb_status
check_repeat(struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    const struct wb_idem_record *want = &call->record;
    struct row row;
    enum wb_status rc = find_row(db, call, &row, err);
    bool same;

    if (rc == WB_EMPTY)
        return decide(call, call->verb == WB__IDEM_RELEASE ? WB_OK : WB_FENCED);
    if (rc != WB_OK)
        return rc;
    same = call->verb == WB__IDEM_COMPLETE && row.state == WB_IDEM_DONE &&
           row.token == call->token && row.record.status == want->status &&
           row.record.ttl_ms == ttl_of(want) &&
           wb__eq(row.record.headers, want->headers) &&
           wb__eq(row.record.body, want->body);
    wb__db_end(db, WB__SQL_IDEM_FIND);
    return decide(call, same ? WB_OK : WB_FENCED);
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
            WB__ARGS(CLAIM(call), now, RECORD(call)), WB_FENCED, err);
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
            WB__ARGS(
                CLAIM(call), state_of(WB_IDEM_SENDING), wb__int_or_null(0)),
            WB_FENCED, err);
    case WB__IDEM_UNKNOWN:
        return change(db, call, WB__SQL_IDEM_MARK,
            WB__ARGS(CLAIM(call), state_of(WB_IDEM_DOUBTFUL), held_until),
            WB_FENCED, err);
    case WB__IDEM_SETTLE:
        return change(db, call, WB__SQL_IDEM_SETTLE,
            WB__ARGS(OP(call), now, hold, RECORD(call)), WB_NOTFOUND, err);
    case WB__IDEM_SETTLE_FREE:
        return change(db, call, WB__SQL_IDEM_SETTLE_FREE,
            WB__ARGS(OP(call), now, hold), WB_NOTFOUND, err);
    case WB__IDEM_STORE:
        return change(db, call, WB__SQL_IDEM_STORE,
            WB__ARGS(OP(call), wb__int(0), now, hold,
                fingerprint_of(&call->record.fingerprint), RECORD(call)),
            WB_BUSY, err);
    default:
        WB_ASSERT(!"a move");
    }
    if (rc == WB_OK && call->rc == WB_FENCED)
        rc = check_repeat(db, call, err);
    return rc;
}

/* ---- lookup ------------------------------------------------------------ */

/* Not decided if a record has expired: it is to be deleted. */
enum wb_status
wb__sql_lookup(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err)
{
    struct row row;
    enum wb_status rc = find_row(db, call, &row, err);

    call->decided = false;
    if (rc == WB_EMPTY)
        return decide(call, WB_EMPTY);
    if (rc != WB_OK)
        return rc;
    if (!row.expired || row.state != WB_IDEM_DONE)
        rc = decide(call, row.state == WB_IDEM_DONE ? WB_OK : WB_EMPTY);
    if (call->decided && call->rc == WB_OK &&
        !wb__idem_copy_record(call->result, call->store->env, &row.record))
        rc = wb__nomem(err, "a record");
    wb__db_end(db, WB__SQL_IDEM_FIND);
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
        WB__ARGS(OP(call), wb__int(call->now_ms)), NULL, err);
    return rc != WB_OK ? rc : decide(call, WB_EMPTY);
}

/* ---- peek, forget ------------------------------------------------------ */

static void
item_of(const struct row *row, struct wb_idem_item *item)
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
    struct row row;
    enum wb_status rc = find_row(db, call, &row, err);

    if (rc == WB_EMPTY)
        return decide(call, WB_NOTFOUND);
    if (rc != WB_OK)
        return rc;
    wb__db_end(db, WB__SQL_IDEM_FIND);
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
    struct row row = {0};
    enum wb_status rc = find_row(db, call, &row, err);

    if (rc == WB_EMPTY)
        return decide(call, WB_NOTFOUND);
    if (rc == WB_OK)
        wb__db_end(db, WB__SQL_IDEM_FIND);
    else if (rc == WB_CORRUPT || rc == WB_NEWER)
        row = (struct row){.state = WB_IDEM_DOUBTFUL};
    else
        return rc;
    item_of(&row, call->item);
    rc = wb__db_run(db, WB__SQL_IDEM_DELETE, WB__ARGS(OP(call)), NULL, err);
    return rc != WB_OK ? rc : decide(call, row.expired ? WB_NOTFOUND : WB_OK);
}
