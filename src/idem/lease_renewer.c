/* lease_renewer.c - renew the leases of running dispatchers.
 *
 * (1) A store has one thread for it, which starts with the first lease and is
 *     joined when the store is closed.
 * (2) A lease is renewed each third of its time. A renewal that fails is tried
 *     again a third later; a claim that was lost stays lost.
 * (3) When wb__lease_renewer_remove() returns, the lease is not renewed any
 *     more. */
#include "idem/idem.h"

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

static struct wb__lease *
first_due(const struct wb__lease_renewer *renewer)
{
    struct wb__lease *first = renewer->first;

    for (struct wb__lease *l = first; l != NULL; l = l->next) {
        if (l->next_us < first->next_us)
            first = l;
    }
    return first;
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

    lease->next_us += lease->lease_ms * 1000 / 3;
    renewer->busy = lease;
    wb__mutex_unlock(&renewer->lock);
    (void)store->backend->call(store, &extend, NULL);
    wb__mutex_lock(&renewer->lock);
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
        lease = first_due(renewer);
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

enum wb_status
wb__lease_renewer_add(
    struct wb_idem *store, struct wb__lease *lease, struct wb_err *err)
{
    struct wb__lease_renewer *renewer = &store->renewer;
    bool running;

    /* A renewal is not needed for years, and the time must not overflow. */
    if (lease->lease_ms > INT64_C(1) << 40)
        lease->lease_ms = INT64_C(1) << 40;
    lease->next_us =
        store->env->mono_us(store->env->ctx) + lease->lease_ms * 1000 / 3;
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

void
wb__lease_renewer_remove(struct wb_idem *store, struct wb__lease *lease)
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
