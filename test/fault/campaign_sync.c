/* campaign_sync.c - each sync fails, one after another. See campaign.h (2). */
#include "campaign_level.h"

/* The handle that continues after a failed sync. */
enum after {
    NO_HANDLE = 1,
    OTHER_HANDLE, /* that was open already */
    NEW_HANDLE,
    AFTERS
};

/* Every call on the handle is refused, and nothing is written. */
static void
use_failed_handle(struct level *l)
{
    struct workload *w = &l->w;
    long ops = l->disk.ops;
    int last = w->last;

    w->handles = 1;
    w->handle = last;
    for (int i = 0; i < 8 && w->box[last] != NULL; i++) {
        long calls = w->calls;

        w->stopped = WB_OK;
        workload_run(w, 1);
        l->c->refused += w->calls > calls;
        if (w->calls > calls && w->stopped != WB_IO)
            w->found.stray++;
    }
    l->c->wrote += l->disk.ops != ops;
    w->handle = 1 - last;
}

static void
continue_after(struct level *l, enum after after)
{
    struct workload *w = &l->w;

    w->stopped = WB_OK;
    w->no_repair = l->c->no_repair;
    if (after == NO_HANDLE)
        return;
    if (after == NEW_HANDLE) {
        for (int h = 0; h < HANDLES; h++)
            workload_close(w, h, false);
        w->handles = HANDLES;
        w->handle = 0;
    }
    w->keep_open = after == OTHER_HANDLE;
    if (after == OTHER_HANDLE && w->box[w->handle] == NULL)
        return;
    if (after == OTHER_HANDLE)
        ledger_settle(&w->ledger, workload_handle(w, w->handle), false);
    workload_run(w, 20);
}

static void
fail_sync(struct campaign *c, uint64_t seed, long nth, enum after after)
{
    struct level *l = &campaign_level[0];

    c->after = after;
    campaign_start(l, seed, true);
    l->disk.fault = (struct powercut_fault){
        .kinds = POWERCUT_SYNC, .skip = nth - 1, .code = SQLITE_IOERR_FSYNC};
    workload_run(&l->w, c->steps);
    c->syncs += l->disk.fault.fired;
    if (l->w.stopped == WB_IO) {
        use_failed_handle(l);
        l->disk.before = campaign_at_operation;
        l->disk.ctx = l;
        continue_after(l, after);
        l->disk.before = NULL;
    }
    campaign_level[1].seed = seed;
    campaign_level[1].at = nth;
    campaign_report(c, l, &l->w.found);
    for (int loss = 0; loss < POWERCUT_LOSSES; loss++)
        campaign_check_copy(l, &l->disk, (enum powercut_loss)loss);
    campaign_stop(l);
}

static long
count_syncs(struct campaign *c, uint64_t seed)
{
    struct level *l = &campaign_level[0];

    campaign_start(l, seed, true);
    workload_run(&l->w, c->steps);
    campaign_stop(l);
    return l->disk.syncs;
}

void
campaign_sync(struct campaign *c)
{
    campaign_begin(c);
    for (int s = 0; s < c->seeds; s++) {
        uint64_t seed = c->seed + (uint64_t)s;
        long syncs = count_syncs(c, seed);

        for (long nth = 1; nth <= syncs; nth++)
            for (int after = NO_HANDLE; after < AFTERS; after++)
                if (c->only == 0 || c->only == nth)
                    fail_sync(c, seed, nth, (enum after)after);
    }
    campaign_end();
}
