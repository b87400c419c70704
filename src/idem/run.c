/* run.c - the dispatcher: begin, run once, finish; or replay. A lease is
 * renewed while its effect runs.
 *
 * (1) If the store fails, fn is not called, unless begin->open is set.
 * (2) After fn has run, the key is released only if fn said NOT_APPLIED. While
 *     the store is down, the outcome is stored again and again for the time of
 *     one lease; a record that cannot be stored makes the outcome unknown.
 * (3) A store has one thread that renews leases. It starts with the first lease
 *     and is joined when the store is closed.
 * (4) A lease is renewed each third of its time. A renewal that fails is tried
 *     again a third later; a claim that was lost stays lost.
 * (5) When remove_lease() returns, the lease is not renewed any more. */
#include "idem/idem.h"

enum {
    RETRY_FIRST_US = 20000, /* after the first failure; then twice as long */
    RETRY_MAX_US = 1000000
};

/* ---- the lease renewer ------------------------------------------------- */

void
wb__lease_renewer_init(struct wb__lease_renewer *renewer)
{
    wb__mutex_init(&renewer->lock);
    wb__cond_init(&renewer->wake);
    wb__cond_init(&renewer->idle);
}

void
wb__lease_renewer_fini(struct wb__lease_renewer *renewer)
{
    wb__mutex_lock(&renewer->lock);
    WB_ASSERT(renewer->first == NULL);
    renewer->stop = true;
    wb__cond_signal(&renewer->wake);
    wb__mutex_unlock(&renewer->lock);
    if (renewer->running)
        wb__thread_join(&renewer->thread);
    wb__cond_fini(&renewer->idle);
    wb__cond_fini(&renewer->wake);
    wb__mutex_fini(&renewer->lock);
}

/* Needs the lock; gives it up while the store is called. */
static void
renew(struct wb_idem *store, struct wb__lease *lease)
{
    struct wb__lease_renewer *renewer = &store->renewer;
    struct wb__idem_call extend = {.verb = WB__IDEM_EXTEND,
        .op = lease->op,
        .token = lease->token,
        .how.lease_ms = lease->lease_ms};
    int64_t from_us = store->env->mono_us(store->env->ctx);
    enum wb_status rc;

    lease->next_us += lease->lease_ms * 1000 / 3;
    renewer->busy = lease;
    wb__mutex_unlock(&renewer->lock);
    rc = store->backend->call(store, &extend, NULL);
    wb__mutex_lock(&renewer->lock);
    if (rc == WB_OK)
        lease->ends_us = from_us + lease->lease_ms * 1000;
    renewer->busy = NULL;
    wb__cond_signal(&renewer->idle);
}

static void *
run_renewer(void *ctx)
{
    struct wb_idem *store = ctx;
    struct wb__lease_renewer *renewer = &store->renewer;
    struct wb__lease *lease;
    int64_t us;

    wb__mutex_lock(&renewer->lock);
    while (!renewer->stop) {
        lease = renewer->first;
        for (struct wb__lease *l = lease; l != NULL; l = l->next)
            lease = l->next_us < lease->next_us ? l : lease;
        if (lease == NULL) {
            wb__cond_wait(&renewer->wake, &renewer->lock);
            continue;
        }
        us = lease->next_us - store->env->mono_us(store->env->ctx);
        if (us > 0)
            wb__cond_wait_us(&renewer->wake, &renewer->lock, us);
        else
            renew(store, lease);
    }
    wb__mutex_unlock(&renewer->lock);
    return NULL;
}

/* Renew the lease until it is removed; until then it must stay where it is.
 * UNAVAILABLE: no thread could be started. */
static enum wb_status
add_lease(struct wb_idem *store, struct wb__lease *lease, struct wb_err *err)
{
    struct wb__lease_renewer *renewer = &store->renewer;
    bool running;

    /* A renewal is not needed for years, and the time must not overflow. */
    if (lease->lease_ms > INT64_C(1) << 40)
        lease->lease_ms = INT64_C(1) << 40;
    lease->next_us =
        store->env->mono_us(store->env->ctx) + lease->lease_ms * 1000 / 3;
    lease->ends_us = lease->next_us + lease->lease_ms * 2000 / 3;
    wb__mutex_lock(&renewer->lock);
    if (!renewer->running)
        renewer->running =
            wb__thread_start(&renewer->thread, run_renewer, store);
    running = renewer->running;
    if (running) {
        lease->next = renewer->first;
        lease->link = &renewer->first;
        if (lease->next != NULL)
            lease->next->link = &lease->next;
        renewer->first = lease;
        wb__cond_signal(&renewer->wake);
    }
    wb__mutex_unlock(&renewer->lock);
    if (running)
        return WB_OK;
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "cannot start the thread that renews leases; the function was not "
        "called");
}

static void
remove_lease(struct wb_idem *store, struct wb__lease *lease)
{
    struct wb__lease_renewer *renewer = &store->renewer;

    wb__mutex_lock(&renewer->lock);
    *lease->link = lease->next;
    if (lease->next != NULL)
        lease->next->link = lease->link;
    while (renewer->busy == lease)
        wb__cond_wait(&renewer->idle, &renewer->lock);
    wb__mutex_unlock(&renewer->lock);
}

/* ---- run --------------------------------------------------------------- */

typedef enum wb_idem_end (*effect)(void *ctx, struct wb_idem_call *call);

/* The store failed; the input was not the reason. */
static bool
is_down(enum wb_status rc)
{
    return rc == WB_BUSY || rc == WB_FULL || rc == WB_NOMEM || rc == WB_IO ||
           rc == WB_UNAVAILABLE;
}

static enum wb_status
end_claim(struct wb_idem_call *call, enum wb_idem_end end, struct wb_err *err)
{
    if (end == WB_IDEM_NOT_APPLIED)
        return wb_idem_release(call->store, call->op, call->token, err);
    if (end == WB_IDEM_MAYBE)
        return wb_idem_unknown(call->store, call->op, call->token, err);
    return wb_idem_complete(
        call->store, call->op, call->token, &call->record, err);
}

/* While the store is down, again after growing waits, for the time of one
 * lease: until then the renewed lease keeps others from the key. A full disk
 * may have room for renewals alone, so that these do not end it. */
static enum wb_status
end_while_leased(struct wb_idem_call *call, const struct wb__lease *lease,
    enum wb_idem_end end, struct wb_err *err)
{
    struct wb__lease_renewer *renewer = &call->store->renewer;
    const struct wb_env *env = call->store->env;
    int64_t wait_us = RETRY_FIRST_US, left_us;
    int64_t until_us = env->mono_us(env->ctx) + lease->lease_ms * 1000;
    enum wb_status rc;

    for (;;) {
        rc = end_claim(call, end, err);
        if (!is_down(rc) || call->store->borrowed)
            return rc;
        wb__mutex_lock(&renewer->lock);
        left_us = lease->ends_us < until_us ? lease->ends_us : until_us;
        left_us -= env->mono_us(env->ctx);
        wb__mutex_unlock(&renewer->lock);
        if (left_us <= 0)
            return rc;
        wb__idem_sleep(env, left_us < wait_us ? left_us : wait_us);
        wait_us = 2 * wait_us < RETRY_MAX_US ? 2 * wait_us : RETRY_MAX_US;
    }
}

static enum wb_status
run_claimed(struct wb_idem *store, struct wb_idem_call *call, int64_t lease_ms,
    effect fn, void *ctx, struct wb_err *err)
{
    struct wb__lease lease = {
        .op = call->op, .token = call->token, .lease_ms = lease_ms};
    struct wb__idem_call last = {
        .verb = WB__IDEM_RELEASE, .op = call->op, .token = call->token};
    enum wb_idem_end end;
    enum wb_status rc = WB_OK;

    if (!store->borrowed)
        rc = add_lease(store, &lease, err);
    if (rc != WB_OK) {
        wb__idem_alone(store, &last);
        return rc;
    }
    end = fn(ctx, call);
    rc = end_while_leased(call, &lease, end, err);
    if (!store->borrowed)
        remove_lease(store, &lease);
    if (rc != WB_OK && end == WB_IDEM_APPLIED) {
        last.verb = WB__IDEM_UNKNOWN;
        wb__idem_alone(store, &last);
    }
    return rc;
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
