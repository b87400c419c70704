/* job.c - the store's calls, off the loop where they may block. */
#include "gate/inside.h"

static void
run(uv_work_t *work)
{
    struct wb__job_run *job = (struct wb__job_run *)work;

    job->run(job);
}

static void
finish(struct wb__job_run *job)
{
    job->busy = false;
    job->done(job);
}

static void
after(uv_work_t *work, int status)
{
    (void)status; /* nobody cancels */
    finish((struct wb__job_run *)work);
}

void
wb__gate_job(struct wb__gate *gate, struct wb__job_run *job,
    void (*fn)(struct wb__job_run *job), void (*done)(struct wb__job_run *job))
{
    WB_ASSERT(!job->busy);
    job->busy = true;
    job->run = fn;
    job->done = done;
    if (gate->opts.blocking &&
        uv_queue_work(gate->opts.loop, &job->work, run, after) == 0)
        return;
    fn(job);
    finish(job);
}
