/* breaker.c - the breaker of each destination, on disk, shared by processes.
 *
 *     closed --failures--> open --open time--> half-open --success--> closed
 *                            ^---------failure----'
 *
 * (1) A scope without a row is closed and has not failed: the healthy path
 *     writes nothing.
 * (2) Half-open lets exactly one claim out, whose token and lease end are kept
 *     in the row. When that lease ends, the turn passes.
 * (3) An end that is further ahead than the open time itself was written by a
 *     clock that was wrong, and counts as ended. */
#include <stdio.h>

#include "outbox/outbox_internal.h"

static const char *const state_names[] = {"closed", "open", "half-open"};

const char *
wb_breaker_state_name(enum wb_breaker_state state)
{
    return (unsigned)state < WB_COUNT(state_names) ? state_names[state] : "?";
}

enum wb_breaker_state
wb__breaker_state(const struct wb__breaker *b, int64_t now_ms)
{
    if (b->open_until_ms == 0)
        return WB_CLOSED;
    if (now_ms < b->open_until_ms &&
        b->open_until_ms <= wb__sat_add(now_ms, b->open_ms))
        return WB_OPEN;
    return WB_HALF_OPEN;
}

int64_t
wb__breaker_lets_ms(const struct wb__breaker *b, int64_t now_ms)
{
    switch (wb__breaker_state(b, now_ms)) {
    case WB_OPEN:
        return b->open_until_ms;
    case WB_HALF_OPEN:
        return b->probe_token != 0 && now_ms < b->probe_until_ms
                   ? b->probe_until_ms
                   : now_ms;
    case WB_CLOSED:
        break;
    }
    return now_ms;
}

static void
read_row(struct wb_outbox *box, enum wb__sql sql, struct wb__breaker *b)
{
    struct wb__db *db = box->db;
    struct wb_slice scope = wb__db_slice(db, sql, 0);

    *b = (struct wb__breaker){.failures = (uint32_t)wb__db_int(db, sql, 1),
        .open_until_ms = wb__db_int(db, sql, 2),
        .open_ms = wb__db_int(db, sql, 3),
        .probe_token = (uint64_t)wb__db_int(db, sql, 4),
        .probe_until_ms = wb__db_int(db, sql, 5)};
    (void)snprintf(b->scope, sizeof(b->scope), "%.*s", (int)scope.len,
        scope.len > 0 ? scope.ptr : "");
}

static enum wb_status
load_rows(struct wb_outbox *box, struct wb__arena *a, struct wb__breakers *all,
    struct wb_err *err)
{
    size_t cap = 0;
    enum wb_status rc;

    while ((rc = wb__db_next(box->db, WB__SQL_BREAKERS, err)) == WB_OK) {
        if (all->n == cap) {
            struct wb__breaker *row;

            cap = cap == 0 ? 8 : 2 * cap;
            row = wb__arena_alloc(a, cap * sizeof(*row));
            if (row == NULL)
                return wb__nomem(err, "breakers");
            if (all->n > 0)
                memcpy(row, all->row, all->n * sizeof(*row));
            all->row = row;
        }
        read_row(box, WB__SQL_BREAKERS, &all->row[all->n++]);
    }
    return rc == WB_EMPTY ? WB_OK : rc;
}

enum wb_status
wb__breakers_load(struct wb_outbox *box, struct wb__arena *a,
    struct wb__breakers *all, struct wb_err *err)
{
    enum wb_status rc =
        wb__db_start(box->db, WB__SQL_BREAKERS, WB__NO_ARGS, err);

    *all = (struct wb__breakers){0};
    if (rc != WB_OK)
        return rc;
    rc = load_rows(box, a, all, err);
    wb__db_end(box->db, WB__SQL_BREAKERS);
    return rc;
}

struct wb__breaker *
wb__breakers_find(const struct wb__breakers *all, struct wb_slice scope)
{
    for (size_t i = 0; i < all->n; i++)
        if (wb__eq(wb_slice(all->row[i].scope), scope))
            return &all->row[i];
    return NULL;
}

enum wb_status
wb__breaker_put(
    struct wb_outbox *box, const struct wb__breaker *b, struct wb_err *err)
{
    return wb__db_run(box->db, WB__SQL_BREAKER_PUT,
        WB__ARGS(wb__text(wb_slice(b->scope)), wb__int(b->failures),
            wb__int(b->open_until_ms), wb__int(b->open_ms),
            wb__int_or_null((int64_t)b->probe_token),
            wb__int(b->probe_until_ms)),
        NULL, err);
}

enum wb_status
wb__breaker_find(struct wb_outbox *box, struct wb_slice scope,
    struct wb__breaker *b, struct wb_err *err)
{
    enum wb_status rc =
        wb__db_start(box->db, WB__SQL_BREAKER, WB__ARGS(wb__text(scope)), err);

    *b = (struct wb__breaker){0};
    (void)snprintf(
        b->scope, sizeof(b->scope), "%.*s", (int)scope.len, scope.ptr);
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(box->db, WB__SQL_BREAKER, err);
    if (rc == WB_OK)
        read_row(box, WB__SQL_BREAKER, b);
    wb__db_end(box->db, WB__SQL_BREAKER);
    return rc;
}

enum wb_status
wb__breaker_success(struct wb_outbox *box, struct wb_slice scope,
    uint64_t token, struct wb_err *err)
{
    struct wb__breaker b;
    enum wb_status rc = wb__breaker_find(box, scope, &b, err);

    if (rc == WB_EMPTY)
        return WB_OK;
    if (rc != WB_OK)
        return rc;
    if (b.open_until_ms == 0 || b.probe_token == token)
        return wb__db_run(box->db, WB__SQL_BREAKER_DELETE,
            WB__ARGS(wb__text(scope)), NULL, err);
    /* Sent before it opened: the count is reset, the time stays. */
    if (b.failures == 0)
        return WB_OK;
    b.failures = 0;
    return wb__breaker_put(box, &b, err);
}

enum wb_status
wb__breaker_failure(struct wb_outbox *box, struct wb_slice scope,
    uint64_t token, const struct wb_breaker_policy *policy, struct wb_err *err)
{
    static const struct wb_breaker_policy standard = WB_BREAKER_POLICY_DEFAULT;
    struct wb__breaker b;
    enum wb_status rc = wb__db_run(
        box->db, WB__SQL_BREAKER_NEW, WB__ARGS(wb__text(scope)), NULL, err);
    bool probe;

    if (rc == WB_OK)
        rc = wb__breaker_find(box, scope, &b, err);
    if (rc != WB_OK && rc != WB_EMPTY)
        return rc;
    if (policy == NULL)
        policy = &standard;
    probe = b.open_until_ms != 0 && b.probe_token == token;
    if (b.failures < UINT32_MAX)
        b.failures++;
    if (probe || (b.open_until_ms == 0 && b.failures >= policy->failures)) {
        b.open_ms = policy->open_ms > 0 ? policy->open_ms : standard.open_ms;
        b.open_until_ms = wb__sat_add(wb__outbox_now(box), b.open_ms);
        b.probe_token = 0;
    }
    return wb__breaker_put(box, &b, err);
}

enum wb_status
wb__breaker_pass(struct wb_outbox *box, struct wb_slice scope, uint64_t token,
    struct wb_err *err)
{
    return wb__breaker_extend(box, scope, token, 0, err);
}

enum wb_status
wb__breaker_extend(struct wb_outbox *box, struct wb_slice scope, uint64_t token,
    int64_t until_ms, struct wb_err *err)
{
    struct wb__breaker b;
    enum wb_status rc = wb__breaker_find(box, scope, &b, err);

    if (rc == WB_EMPTY || (rc == WB_OK && b.probe_token != token))
        return WB_OK;
    if (rc != WB_OK)
        return rc;
    b.probe_until_ms = until_ms;
    if (until_ms == 0)
        b.probe_token = 0;
    return wb__breaker_put(box, &b, err);
}
