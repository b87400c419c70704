/* campaign_fault.c - each I/O and each allocation fails, once and without
 * end; and clocks that jump. See campaign.h (4), (5). */
#include <limits.h>

#include "campaign_level.h"
#include "memory.h"

/* Kinds 0: memory. */
static const struct {
    const char *name;
    unsigned kinds;
    int code;
    bool half;
} plans[CAMPAIGN_PLANS] = {
    {"memory", 0, 0, false},
    {"write EIO", POWERCUT_WRITE, SQLITE_IOERR_WRITE, false},
    {"write short", POWERCUT_WRITE, SQLITE_IOERR_WRITE, true},
    {"write ENOSPC", POWERCUT_WRITE, SQLITE_FULL, false},
    {"write ENOSPC, short", POWERCUT_WRITE, SQLITE_FULL, true},
    {"sync EIO", POWERCUT_SYNC, SQLITE_IOERR_FSYNC, false},
    {"truncate EIO", POWERCUT_TRUNCATE, SQLITE_IOERR_TRUNCATE, false},
    {"open EMFILE", POWERCUT_CREATE, SQLITE_CANTOPEN, false},
    {"delete EIO", POWERCUT_DELETE, SQLITE_IOERR_DELETE, false},
    {"read EIO", POWERCUT_READ, SQLITE_IOERR_READ, false},
    {"lock ENOLCK", POWERCUT_LOCK, SQLITE_IOERR_LOCK, false},
    {"shared memory ENOSPC", POWERCUT_SHM, SQLITE_IOERR_SHMSIZE, false},
};

const char *
campaign_plan_name(int plan)
{
    return plans[plan].name;
}

static void
arm(struct level *l, int plan, long nth, bool ever)
{
    memory = (struct memory){0};
    if (plans[plan].kinds == 0) {
        memory.fail = nth;
        memory.ever = ever;
        return;
    }
    l->disk.fault = (struct powercut_fault){.kinds = plans[plan].kinds,
        .skip = nth - 1,
        .ever = ever,
        .half = plans[plan].half,
        .code = plans[plan].code};
}

static long
disarm(struct level *l)
{
    long fired = l->disk.fault.fired + memory.failed;

    l->disk.fault = (struct powercut_fault){0};
    memory = (struct memory){0};
    return fired;
}

/* The number of points at which it can fail in this run. */
static long
count(struct campaign *c, uint64_t seed, int plan)
{
    struct level *l = &campaign_level[0];
    long n;

    campaign_start(l, seed, true);
    l->w.goes_on = true;
    arm(l, plan, LONG_MAX, false);
    workload_run(&l->w, c->steps);
    n = plans[plan].kinds == 0 ? memory.asked
                               : LONG_MAX - 1 - l->disk.fault.skip;
    (void)disarm(l);
    campaign_stop(l);
    return n;
}

/* The faults have ended: everything works, and everything is there. */
static void
recover(struct level *l)
{
    struct workload *w = &l->w;

    workload_run(w, 10);
    for (int h = 0; h < HANDLES; h++)
        workload_close(w, h, false);
    workload_open(w, 0);
    if (w->box[0] == NULL) {
        w->found.unopened++;
        return;
    }
    ledger_check(&w->ledger, workload_handle(w, 0), &w->found);
    w->goes_on = false;
    workload_drain(w, 0);
}

static void
fail_nth(struct campaign *c, uint64_t seed, int plan, long nth, bool ever)
{
    struct level *l = &campaign_level[0];
    long fired;

    c->after = nth;
    campaign_start(l, seed, true);
    campaign_level[1].seed = seed;
    campaign_level[1].at = nth;
    l->w.goes_on = true;
    arm(l, plan, nth, ever);
    workload_run(&l->w, c->steps);
    fired = disarm(l);
    c->plan[plan].points++;
    c->plan[plan].fired += fired;
    c->plan[plan].unfired += fired == 0;
    c->plan[plan].failures += l->w.failures;
    campaign_check_copy(l, &l->disk, POWERCUT_LOSE);
    campaign_check_copy(l, &l->disk, POWERCUT_KEEP);
    recover(l);
    campaign_report(c, l, &l->w.found);
    campaign_stop(l);
}

static void
fail_each(struct campaign *c, uint64_t seed, int plan)
{
    long total = count(c, seed, plan);
    long step = c->every < total / 3 ? c->every : total / 3 + 1;

    for (long nth = 1 + (long)(seed % (uint64_t)step); nth <= total;
         nth += step) {
        if (c->only != 0 && c->only != nth)
            continue;
        fail_nth(c, seed, plan, nth, false);
        fail_nth(c, seed, plan, nth, true);
    }
}

void
campaign_fault(struct campaign *c)
{
    campaign_begin(c);
    for (int plan = 0; plan < CAMPAIGN_PLANS; plan++)
        for (int s = 0; s < c->seeds; s++)
            if (c->plans == 0 || (c->plans & 1U << plan) != 0)
                fail_each(c, c->seed + (uint64_t)s, plan);
    campaign_end();
}

/* ---- C15 --------------------------------------------------------------- */

static void
jump_about(struct campaign *c, uint64_t seed)
{
    struct level *l = &campaign_level[0];

    campaign_start(l, seed, true);
    campaign_level[1].seed = seed;
    l->w.wild_clock = true;
    workload_run(&l->w, c->steps);
    l->w.found.unopened += l->w.stopped != WB_OK;
    recover(l);
    c->points[0]++;
    campaign_report(c, l, &l->w.found);
    campaign_stop(l);
}

void
campaign_clock(struct campaign *c)
{
    campaign_begin(c);
    for (int s = 0; s < c->seeds; s++)
        jump_about(c, c->seed + (uint64_t)s);
    campaign_end();
}
