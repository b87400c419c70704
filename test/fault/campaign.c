/* campaign.c - power cuts by the hundred thousand. See campaign.h. */
#include "campaign.h"

#include <stdio.h>
#include <string.h>

enum {
    STEPS_AFTER = 6
};

/* A disk and what runs on it; each level is a copy of the one before. */
struct level {
    struct powercut disk;
    struct workload w;
    struct campaign *c;
    uint64_t seed;
    int depth;
    enum powercut_loss loss; /* that made it */
    long at;
};
static struct level levels[CAMPAIGN_DEPTH + 1];

static uint64_t
mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) ^ b;

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ (z >> 31);
}

static void
levels_init(struct campaign *c)
{
    static const char *const names[CAMPAIGN_DEPTH + 1] = {
        "powercut-0", "powercut-1", "powercut-2", "powercut-3"};

    for (int i = 0; i <= CAMPAIGN_DEPTH; i++) {
        powercut_init(&levels[i].disk, names[i]);
        levels[i].c = c;
        levels[i].depth = i;
    }
    c->seed = c->seed == 0 ? 1 : c->seed;
    c->seeds = c->seeds == 0 ? 1 : c->seeds;
    c->steps = c->steps == 0 ? 60 : c->steps;
    c->depth = c->depth == 0 ? 1 : c->depth;
    c->deepen = c->deepen == 0 ? 40 : c->deepen;
    c->drain = c->drain == 0 ? 50 : c->drain;
    c->every = c->every == 0 ? 1 : c->every;
}

static void
levels_fini(void)
{
    for (int i = 0; i <= CAMPAIGN_DEPTH; i++)
        powercut_fini(&levels[i].disk);
}

static void
tell(struct campaign *c, const struct level *l, const struct findings *f)
{
    const struct level *top = &levels[1];

    findings_add(&c->found, f);
    if (findings_sum(f) == 0 || c->first[0] != '\0')
        return;
    (void)snprintf(c->first, sizeof(c->first),
        "--seed %llu --only %ld: after %d, psow %d, loss %d, depth %d at %ld: "
        "lost %ld revived %ld doubled %ld torn %ld stray %ld stuck %ld "
        "damaged %ld unopened %ld",
        (unsigned long long)top->seed, top->at, c->after, top->disk.psow,
        l->loss, l->depth, l->at, f->lost, f->revived, f->doubled, f->torn,
        f->stray, f->stuck, f->damaged, f->unopened);
}

/* ---- C1, C2 -------------------------------------------------------------- */

static void at_operation(void *ctx, struct powercut *disk);

/* The power is back: open, look, and perhaps go on. */
static void
look(struct level *l, bool deeper, bool drain)
{
    struct workload *w = &l->w;
    struct findings f = {0};

    l->disk.before = deeper ? at_operation : NULL;
    l->disk.ctx = l;
    workload_open(w, 0);
    if (w->stopped != WB_OK)
        f.unopened++;
    else
        ledger_check(&w->ledger, workload_handle(w, 0), &f);
    if (w->stopped == WB_OK && (deeper || drain)) {
        ledger_settle(&w->ledger, workload_handle(w, 0), true);
        if (deeper)
            workload_run(w, STEPS_AFTER);
        else
            workload_drain(w, 0);
        f.unopened += w->stopped != WB_OK;
    }
    for (int h = 0; h < HANDLES; h++)
        workload_close(w, h, !deeper);
    findings_add(&f, &w->found);
    tell(l->c, l, &f);
}

static void
cut_and_look(const struct level *from, const struct powercut *disk,
    enum powercut_loss loss)
{
    struct level *to = &levels[from->depth + 1];
    struct campaign *c = from->c;
    uint64_t seed = mix(mix(from->seed, (uint64_t)disk->ops), loss);
    int rare = to->depth == 1 ? c->deepen : 25 * c->deepen;
    bool deeper = to->depth < c->depth && mix(seed, 1) % (uint64_t)rare == 0;
    bool drain = mix(seed, 2) % (uint64_t)c->drain == 0;

    to->seed = from->depth == 0 ? from->seed : seed;
    to->loss = loss;
    to->at = c->after == 0 || from->depth > 0 ? disk->ops : to->at;
    powercut_cut(&to->disk, disk, loss, seed);
    to->disk.lying = false;
    workload_init(&to->w, &to->disk, seed);
    to->w.ledger = from->w.ledger;
    to->w.wall_ms = from->w.wall_ms;
    c->points[from->depth]++;
    look(to, deeper, drain);
}

/* Recursion ends at CAMPAIGN_DEPTH: the last level has no hook. */
static void
at_operation(void *ctx, struct powercut *disk)
{
    const struct level *l = ctx;
    struct campaign *c = l->c;

    if (l->depth == 0 && disk->ops % c->every != 0)
        return;
    if (l->depth == 0 && c->only != 0 && disk->ops != c->only && c->after == 0)
        return;
    c->risky += l->depth == 0 && powercut_unsynced(disk) > 0;
    for (int loss = 0; loss < POWERCUT_LOSSES; loss++)
        cut_and_look(l, disk, (enum powercut_loss)loss);
}

static void
start(struct level *l, uint64_t seed, bool psow)
{
    powercut_wipe(&l->disk, seed);
    l->disk.psow = psow;
    l->seed = seed;
    workload_init(&l->w, &l->disk, seed);
    l->w.ledger = (struct ledger){0};
    l->w.sabotage = l->c->sabotage;
    (void)sqlite3_test_control(
        SQLITE_TESTCTRL_PRNG_SEED, (int)(seed & 0x7fffffff), NULL);
}

static void
stop(struct level *l)
{
    struct campaign *c = l->c;

    l->disk.before = NULL;
    for (int h = 0; h < HANDLES; h++)
        workload_close(&l->w, h, true);
    c->acked += l->w.ledger.acked;
    c->confirmed += l->w.ledger.confirmed;
}

static void
cut_everywhere(struct campaign *c, uint64_t seed, bool psow)
{
    struct level *l = &levels[0];
    struct findings f;

    start(l, seed, psow);
    l->disk.before = at_operation;
    l->disk.ctx = l;
    workload_run(&l->w, c->steps);
    for (int h = 0; h < HANDLES; h++)
        workload_close(&l->w, h, false);
    f = l->w.found;
    f.unopened += l->w.stopped != WB_OK;
    levels[1].seed = seed;
    tell(c, l, &f);
    stop(l);
}

void
campaign_cut(struct campaign *c)
{
    levels_init(c);
    for (int s = 0; s < c->seeds; s++)
        for (int psow = 0; psow < 2; psow++)
            cut_everywhere(c, c->seed + (uint64_t)s, psow != 0);
    levels_fini();
}

/* ---- C3 ------------------------------------------------------------------ */

/* Who goes on after a sync that failed. */
enum after {
    NOBODY = 1,
    ANOTHER, /* that was open already */
    A_NEW_ONE,
    AFTERS
};

/* Every call on the handle is refused, and nothing is written. */
static void
knock(struct level *l)
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
go_on(struct level *l, enum after after)
{
    struct workload *w = &l->w;

    w->stopped = WB_OK;
    w->no_mend = l->c->no_mend;
    if (after == NOBODY)
        return;
    if (after == A_NEW_ONE) {
        for (int h = 0; h < HANDLES; h++)
            workload_close(w, h, false);
        w->handles = HANDLES;
        w->handle = 0;
    }
    w->keep_open = after == ANOTHER;
    if (after == ANOTHER && w->box[w->handle] == NULL)
        return;
    if (after == ANOTHER)
        ledger_settle(&w->ledger, workload_handle(w, w->handle), false);
    workload_run(w, 20);
}

static void
fail_sync(struct campaign *c, uint64_t seed, long nth, enum after after)
{
    struct level *l = &levels[0];

    c->after = (int)after;
    start(l, seed, true);
    l->disk.fault = (struct powercut_fault){
        .kinds = POWERCUT_SYNC, .skip = nth - 1, .code = SQLITE_IOERR_FSYNC};
    workload_run(&l->w, c->steps);
    c->syncs += l->disk.fault.fired;
    if (l->w.stopped == WB_IO) {
        knock(l);
        l->disk.before = at_operation;
        l->disk.ctx = l;
        go_on(l, after);
        l->disk.before = NULL;
    }
    levels[1].seed = seed;
    levels[1].at = nth;
    tell(c, l, &l->w.found);
    for (int loss = 0; loss < POWERCUT_LOSSES; loss++)
        cut_and_look(l, &l->disk, (enum powercut_loss)loss);
    stop(l);
}

static long
count_syncs(struct campaign *c, uint64_t seed)
{
    struct level *l = &levels[0];

    start(l, seed, true);
    workload_run(&l->w, c->steps);
    stop(l);
    return l->disk.syncs;
}

void
campaign_sync(struct campaign *c)
{
    levels_init(c);
    for (int s = 0; s < c->seeds; s++) {
        uint64_t seed = c->seed + (uint64_t)s;
        long syncs = count_syncs(c, seed);

        for (long nth = 1; nth <= syncs; nth++)
            for (int after = NOBODY; after < AFTERS; after++)
                if (c->only == 0 || c->only == nth)
                    fail_sync(c, seed, nth, (enum after)after);
    }
    levels_fini();
}
