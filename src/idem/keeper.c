/* keeper.c - one thread a store renews the leases of running dispatchers.
 *
 * (1) It is started with the first lease to keep, and joined when the store
 *     is closed.
 * (2) A lease is renewed each third of it; a renewal that fails is tried again
 *     at the next third, and a claim that was lost stays lost.
 * (3) Once wb__keeper_drop() is back nobody renews the lease any more. */
#include "idem/idem.h"

void
wb__keeper_init(struct wb__keeper *keeper)
{
    wb__mutex_init(&keeper->lock);
    wb__cond_init(&keeper->wake);
    wb__cond_init(&keeper->idle);
}

void
wb__keeper_fini(struct wb__keeper *keeper)
{
    wb__mutex_lock(&keeper->lock);
    WB_ASSERT(keeper->first == NULL);
    keeper->stop = true;
    wb__cond_signal(&keeper->wake);
    wb__mutex_unlock(&keeper->lock);
    if (keeper->running)
        wb__thread_join(&keeper->thread);
    wb__cond_fini(&keeper->idle);
    wb__cond_fini(&keeper->wake);
    wb__mutex_fini(&keeper->lock);
}

static struct wb__lease *
first_due(const struct wb__keeper *keeper)
{
    struct wb__lease *first = keeper->first;

    for (struct wb__lease *l = first; l != NULL; l = l->next) {
        if (l->next_us < first->next_us)
            first = l;
    }
    return first;
}

/* Called, and returns, with the lock held. */
static void
renew(struct wb_idem *store, struct wb__lease *lease)
{
    struct wb__keeper *keeper = &store->keeper;
    struct wb__idem_call extend = {.verb = WB__IDEM_EXTEND,
        .op = lease->op,
        .token = lease->token,
        .how.lease_ms = lease->lease_ms};

    lease->next_us += lease->lease_ms * 1000 / 3;
    keeper->busy = lease;
    wb__mutex_unlock(&keeper->lock);
    (void)store->backend->call(store, &extend, NULL);
    wb__mutex_lock(&keeper->lock);
    keeper->busy = NULL;
    wb__cond_signal(&keeper->idle);
}

static void *
keep(void *ctx)
{
    struct wb_idem *store = ctx;
    struct wb__keeper *keeper = &store->keeper;
    struct wb__lease *lease;
    int64_t us;

    wb__mutex_lock(&keeper->lock);
    while (!keeper->stop) {
        lease = first_due(keeper);
        if (lease == NULL) {
            wb__cond_wait(&keeper->wake, &keeper->lock);
            continue;
        }
        us = lease->next_us - store->env->mono_us(store->env->ctx);
        if (us > 0)
            wb__cond_wait_us(&keeper->wake, &keeper->lock, us);
        else
            renew(store, lease);
    }
    wb__mutex_unlock(&keeper->lock);
    return NULL;
}

enum wb_status
wb__keeper_hold(
    struct wb_idem *store, struct wb__lease *lease, struct wb_err *err)
{
    struct wb__keeper *keeper = &store->keeper;
    bool kept;

    /* A lease of years needs no renewal, and must not overflow. */
    if (lease->lease_ms > INT64_C(1) << 40)
        lease->lease_ms = INT64_C(1) << 40;
    lease->next_us =
        store->env->mono_us(store->env->ctx) + lease->lease_ms * 1000 / 3;
    wb__mutex_lock(&keeper->lock);
    if (!keeper->running)
        keeper->running = wb__thread_start(&keeper->thread, keep, store);
    kept = keeper->running;
    if (kept) {
        lease->next = keeper->first;
        lease->link = &keeper->first;
        if (lease->next != NULL)
            lease->next->link = &lease->next;
        keeper->first = lease;
        wb__cond_signal(&keeper->wake);
    }
    wb__mutex_unlock(&keeper->lock);
    if (kept) /* its links are the others' to change by now */
        return WB_OK;
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "no thread to renew the lease with; nothing was done");
}

void
wb__keeper_drop(struct wb_idem *store, struct wb__lease *lease)
{
    struct wb__keeper *keeper = &store->keeper;

    wb__mutex_lock(&keeper->lock);
    *lease->link = lease->next;
    if (lease->next != NULL)
        lease->next->link = lease->link;
    while (keeper->busy == lease)
        wb__cond_wait(&keeper->idle, &keeper->lock);
    wb__mutex_unlock(&keeper->lock);
}
