/* breaker.c - the breaker of each scope, kept in a table that processes share.
 *
 *     closed --failures--> open --open time--> half-open --success--> closed
 *                            ^---------failure----'
 *
 * (1) A scope without a row is closed and has not failed: the healthy path
 *     writes nothing.
 * (2) Through a half-open breaker exactly one message goes out, the probe. The
 *     row keeps its token and the end of its lease; when that lease has ended,
 *     another claim may be the probe. An end further ahead than any lease was
 *     written by a clock that was wrong, and counts as past.
 * (3) A destination that asks for a rest (429 or 503 with Retry-After) gets it:
 *     its breaker is open until then, and no failure is counted.
 * (4) An open_until_ms further ahead than the open time itself was written by a
 *     clock that was wrong, and counts as past. */
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
wb__breaker_free_ms(const struct wb__breaker *b, int64_t now_ms)
{
    switch (wb__breaker_state(b, now_ms)) {
    case WB_OPEN:
        return b->open_until_ms;
    case WB_HALF_OPEN:
        return b->probe_token != 0 && now_ms < b->probe_until_ms &&
                       b->probe_until_ms <=
                           wb__sat_add(now_ms, WB__LEASE_MAX_MS)
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

enum wb_status
wb__breakers_load(struct wb_outbox *box, struct wb__arena *a,
    struct wb__breakers *all, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_BREAKERS;
    enum wb_status rc = wb__db_start(box->db, sql, WB__NO_ARGS, err);

    *all = (struct wb__breakers){0};
    if (rc != WB_OK)
        return rc;
    while ((rc = wb__db_next(box->db, sql, err)) == WB_OK) {
        if (!wb__arena_grow(
                a, &all->row, all->n, &all->cap, sizeof(*all->row))) {
            rc = wb__nomem(err, "breakers");
            break;
        }
        read_row(box, sql, &all->row[all->n++]);
    }
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
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
wb__breaker_delete(
    struct wb_outbox *box, struct wb_slice scope, struct wb_err *err)
{
    return wb__db_run(
        box->db, WB__SQL_BREAKER_DELETE, WB__ARGS(wb__text(scope)), NULL, err);
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
    if (b.open_until_ms != 0 && b.probe_token == token)
        box->breaker_change = WB_BREAKER_CLOSED;
    if (b.open_until_ms == 0 || b.probe_token == token)
        return wb__breaker_delete(box, scope, err);
    /* Sent before it opened: the count is reset, open_until_ms stays. */
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
        box->breaker_change = WB_BREAKER_OPENED;
    }
    return wb__breaker_put(box, &b, err);
}

enum wb_status
wb__breaker_rest(struct wb_outbox *box, struct wb_slice scope, uint64_t token,
    int64_t rest_ms, struct wb_err *err)
{
    int64_t now_ms = wb__outbox_now(box);
    int64_t until_ms = wb__sat_add(now_ms, rest_ms);
    struct wb__breaker b;
    enum wb_status rc = wb__db_run(
        box->db, WB__SQL_BREAKER_NEW, WB__ARGS(wb__text(scope)), NULL, err);

    if (rc == WB_OK)
        rc = wb__breaker_find(box, scope, &b, err);
    if (rc != WB_OK && rc != WB_EMPTY)
        return rc;
    if (b.probe_token == token)
        b.probe_token = 0;
    if (wb__breaker_state(&b, now_ms) != WB_OPEN ||
        b.open_until_ms < until_ms) {
        b.open_ms = rest_ms;
        b.open_until_ms = until_ms;
    }
    return wb__breaker_put(box, &b, err);
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

/* ---- list, reset ---------------------------------------------------------- */

struct breakers_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    struct wb_slice scope; /* empty: all */
    struct wb__arena arena;
    struct wb__breakers all;
    bool reset;
    uint64_t n; /* reset, and not closed before */
};

static bool
is_selected(struct wb_slice scope, const struct wb__breaker *b)
{
    return scope.len == 0 || wb__eq(scope, wb_slice(b->scope));
}

static enum wb_status
breakers_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct breakers_op *o = (struct breakers_op *)job;
    enum wb_status rc;

    (void)db;
    wb__arena_clear(&o->arena);
    o->n = 0;
    rc = wb__breakers_load(o->box, &o->arena, &o->all, err);
    for (size_t i = 0; i < o->all.n && rc == WB_OK && o->reset; i++) {
        const struct wb__breaker *b = &o->all.row[i];

        if (!is_selected(o->scope, b))
            continue;
        rc = wb__breaker_delete(o->box, wb_slice(b->scope), err);
        o->n += wb__breaker_state(b, wb__outbox_now(o->box)) != WB_CLOSED;
    }
    return rc;
}

enum wb_status
wb_outbox_breakers(struct wb_outbox *box, struct wb_slice scope,
    wb_breaker_fn *fn, void *ctx, struct wb_err *err)
{
    struct breakers_op o = {.job = {.run = breakers_run, .tx = WB__TX_READ},
        .box = box,
        .scope = scope,
        .arena = {.env = box->env}};
    const struct wb_breaker closed = {.scope = scope};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);
    int64_t now_ms = wb__outbox_now(box);
    bool found = scope.len == 0;

    for (size_t i = 0; i < o.all.n && rc == WB_OK; i++) {
        const struct wb__breaker *b = &o.all.row[i];
        struct wb_breaker shown = {.scope = wb_slice(b->scope),
            .state = wb__breaker_state(b, now_ms),
            .failures = b->failures};

        if (!is_selected(scope, b))
            continue;
        found = true;
        if (shown.state == WB_OPEN)
            shown.open_until_ms = b->open_until_ms;
        rc = fn(ctx, &shown);
    }
    if (rc == WB_OK && !found)
        rc = fn(ctx, &closed);
    wb__arena_clear(&o.arena);
    return rc;
}

enum wb_status
wb_outbox_breaker_reset(struct wb_outbox *box, struct wb_slice scope,
    uint64_t *n, struct wb_err *err)
{
    struct breakers_op o = {.job = {.run = breakers_run, .tx = WB__TX_FULL},
        .box = box,
        .scope = scope,
        .arena = {.env = box->env},
        .reset = true};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);

    if (rc == WB_OK)
        *n = o.n;
    wb__arena_clear(&o.arena);
    return rc;
}
