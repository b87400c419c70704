/* store_queue.c - calls of the idempotency store, on worker threads if they may
 * block.
 *
 *  1. Calls that wait for a thread run as one batch, and share commits.
 *  2. The done() of each call runs once, on the loop. */
#include "gate/gate_internal.h"

static void start_batches(struct wb__store_queue *q);

static void
finish(struct wb__idem_call *call)
{
    struct wb__store_call *c = (struct wb__store_call *)call;
    void (*done)(struct wb__store_call * c) = c->done;

    c->done = NULL;
    done(c);
}

static void
run(uv_work_t *work)
{
    struct wb__store_batch *b = (struct wb__store_batch *)work;

    wb__idem_many(b->queue->store, b->first);
}

static void
after(uv_work_t *work, int status)
{
    struct wb__store_batch *b = (struct wb__store_batch *)work;
    struct wb__idem_call *call = b->first, *next;

    (void)status; /* work is never cancelled */
    b->first = NULL;
    start_batches(b->queue);
    for (; call != NULL; call = next) {
        next = call->next;
        finish(call); /* which may free it */
    }
}

static void
start_batches(struct wb__store_queue *q)
{
    for (int i = 0; i < WB__GATE_BATCHES && q->first != NULL; i++) {
        struct wb__store_batch *b = &q->batch[i];

        if (b->first != NULL)
            continue;
        b->queue = q;
        b->first = q->first;
        q->first = NULL;
        if (uv_queue_work(q->loop, &b->work, run, after) != 0) {
            run(&b->work);
            after(&b->work, 0);
        }
    }
}

void
wb__store_queue_add(struct wb__store_queue *q, struct wb__store_call *c,
    void (*done)(struct wb__store_call *c))
{
    WB_ASSERT(c->done == NULL); /* under way once at a time */
    c->done = done;
    if (!q->blocking) {
        wb__idem_alone(q->store, &c->call);
        finish(&c->call);
        return;
    }
    *(q->first == NULL ? &q->first : q->last) = &c->call;
    q->last = &c->call.next;
    start_batches(q);
}
