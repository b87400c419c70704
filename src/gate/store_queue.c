/* store_queue.c - the store's calls, off the loop where they may block.
 *
 *  1. Those that wait for a thread share its next turn, and so a commit.
 *  2. Every job is done once, on the loop. */
#include "gate/gate_internal.h"

static void start_batches(struct wb__gate *gate);

static void
finish(struct wb__idem_call *call)
{
    struct wb__job_run *job = (struct wb__job_run *)call;

    job->busy = false;
    job->done(job);
}

static void
run(uv_work_t *work)
{
    struct wb__batch *b = (struct wb__batch *)work;

    wb__idem_many(b->gate->opts.store, b->first);
}

static void
after(uv_work_t *work, int status)
{
    struct wb__batch *b = (struct wb__batch *)work;
    struct wb__idem_call *call = b->first, *next;

    (void)status; /* nobody cancels */
    b->first = NULL;
    start_batches(b->gate);
    for (; call != NULL; call = next) {
        next = call->next;
        finish(call); /* which may free it */
    }
}

static void
start_batches(struct wb__gate *gate)
{
    for (int i = 0; i < WB__GATE_BATCHES && gate->waiting != NULL; i++) {
        struct wb__batch *b = &gate->batch[i];

        if (b->first != NULL)
            continue;
        b->gate = gate;
        b->first = gate->waiting;
        gate->waiting = NULL;
        if (uv_queue_work(gate->opts.loop, &b->work, run, after) != 0) {
            run(&b->work);
            after(&b->work, 0);
        }
    }
}

void
wb__gate_job(struct wb__job_run *job, struct wb__idem_call call,
    void (*done)(struct wb__job_run *job))
{
    struct wb__keyed *x = job->keyed;
    struct wb__gate *gate = x->gate;

    WB_ASSERT(!job->busy);
    call.op = &x->op;
    call.token = x->token;
    job->call = call;
    job->done = done;
    job->busy = true;
    if (!gate->opts.blocking) {
        wb__idem_alone(gate->opts.store, &job->call);
        finish(&job->call);
        return;
    }
    if (gate->waiting == NULL)
        gate->last = &gate->waiting;
    *gate->last = &job->call;
    gate->last = &job->call.next;
    start_batches(gate);
}
