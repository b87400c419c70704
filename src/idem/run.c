/* run.c - the dispatcher: begin, run once, finish; or replay.
 *
 * (1) If the store fails, fn is not called, unless begin->open asks for it.
 * (2) After fn has run, the key is released only if fn said NOT_APPLIED. A
 *     record that cannot be stored makes the outcome unknown. */
#include "idem/idem.h"

typedef enum wb_idem_end (*effect)(void *ctx, struct wb_idem_call *call);

static enum wb_status
finish(struct wb_idem *store, const struct wb_idem_call *call,
    enum wb_idem_end end, struct wb_err *err)
{
    struct wb__idem_call unknown = {
        .verb = WB__IDEM_UNKNOWN, .op = call->op, .token = call->token};
    enum wb_status rc;

    if (end == WB_IDEM_NOT_APPLIED)
        return wb_idem_release(store, call->op, call->token, err);
    if (end == WB_IDEM_MAYBE)
        return wb_idem_unknown(store, call->op, call->token, err);
    rc = wb_idem_complete(store, call->op, call->token, &call->record, err);
    if (rc != WB_OK)
        wb__idem_alone(store, &unknown);
    return rc;
}

static enum wb_status
run_claimed(struct wb_idem *store, struct wb_idem_call *call, int64_t lease_ms,
    effect fn, void *ctx, struct wb_err *err)
{
    struct wb__lease lease = {
        .op = call->op, .token = call->token, .lease_ms = lease_ms};
    struct wb__idem_call release = {
        .verb = WB__IDEM_RELEASE, .op = call->op, .token = call->token};
    enum wb_idem_end end;
    enum wb_status rc = WB_OK;

    if (!store->borrowed)
        rc = wb__lease_renewer_add(store, &lease, err);
    if (rc != WB_OK) {
        wb__idem_alone(store, &release);
        return rc;
    }
    end = fn(ctx, call);
    if (!store->borrowed)
        wb__lease_renewer_remove(store, &lease);
    return finish(store, call, end, err);
}

/* The store failed; the input was not the reason. */
static bool
is_down(enum wb_status rc)
{
    return rc == WB_BUSY || rc == WB_FULL || rc == WB_NOMEM || rc == WB_IO ||
           rc == WB_UNAVAILABLE;
}

enum wb_status
wb_idem_run(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_fingerprint *fingerprint, const struct wb_idem_begin *begin,
    effect fn, void *ctx, struct wb_idem_result *result, struct wb_err *err)
{
    struct wb_idem_call call = {
        .store = store, .op = op, .record = {.ttl_ms = WB_IDEM_TTL_MS}};
    int64_t lease_ms = begin != NULL && begin->lease_ms > 0 ? begin->lease_ms
                                                            : WB_IDEM_LEASE_MS;
    enum wb_status rc =
        wb_idem_begin(store, op, fingerprint, begin, result, err);

    if (rc == WB_OK && result->answer == WB_IDEM_ACQUIRED) {
        call.token = result->token;
        rc = run_claimed(store, &call, lease_ms, fn, ctx, err);
        result->record = call.record;
    } else if (is_down(rc) && begin != NULL && begin->open) {
        (void)fn(ctx, &call);
        result->answer = WB_IDEM_UNGUARDED;
        result->token = 0;
        result->record = call.record;
        rc = WB_OK;
    }
    return rc;
}
