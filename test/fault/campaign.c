/* campaign.c - power cuts at every operation. See campaign.h. */
#include "campaign_level.h"

#include <stdio.h>
#include <string.h>

enum {
    STEPS_AFTER = 6
};

struct level campaign_level[CAMPAIGN_DEPTH + 1];

static uint64_t
mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) ^ b;

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ (z >> 31);
}

void
campaign_begin(struct campaign *c)
{
    static const char *const names[CAMPAIGN_DEPTH + 1] = {
        "powercut-0", "powercut-1", "powercut-2", "powercut-3"};

    for (int i = 0; i <= CAMPAIGN_DEPTH; i++) {
        powercut_init(&campaign_level[i].disk, names[i]);
        campaign_level[i].c = c;
        campaign_level[i].depth = i;
    }
    c->seed = c->seed == 0 ? 1 : c->seed;
    c->seeds = c->seeds == 0 ? 1 : c->seeds;
    c->steps = c->steps == 0 ? 60 : c->steps;
    c->depth = c->depth == 0 ? 1 : c->depth;
    c->deepen = c->deepen == 0 ? 40 : c->deepen;
    c->drain = c->drain == 0 ? 50 : c->drain;
    c->every = c->every == 0 ? 1 : c->every;
}

void
campaign_end(void)
{
    for (int i = 0; i <= CAMPAIGN_DEPTH; i++)
        powercut_fini(&campaign_level[i].disk);
}

void
campaign_report(
    struct campaign *c, const struct level *l, const struct findings *f)
{
    const struct level *top = &campaign_level[1];

    findings_add(&c->found, f);
    if (findings_sum(f) == 0 || c->first[0] != '\0')
        return;
    (void)snprintf(c->first, sizeof(c->first),
        "--seed %llu --only %ld: after %ld, psow %d, loss %d, depth %d at %ld: "
        "lost %ld revived %ld doubled %ld torn %ld stray %ld stuck %ld "
        "damaged %ld unopened %ld",
        (unsigned long long)top->seed, top->at, c->after, top->disk.psow,
        l->loss, l->depth, l->at, f->lost, f->revived, f->doubled, f->torn,
        f->stray, f->stuck, f->damaged, f->unopened);
}

/* ---- C1, C2 ------------------------------------------------------------ */

/* The power is back: open, check, and perhaps continue. */
static void
check_copy(struct level *l, bool deeper, bool drain)
{
    struct workload *w = &l->w;
    struct findings f = {0};

    l->disk.before = deeper ? campaign_at_operation : NULL;
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
    campaign_report(l->c, l, &f);
}

void
campaign_check_copy(const struct level *from, const struct powercut *disk,
    enum powercut_loss loss)
{
    struct level *to = &campaign_level[from->depth + 1];
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
    check_copy(to, deeper, drain);
}

/* Recursion ends at CAMPAIGN_DEPTH: the last level has no hook. */
void
campaign_at_operation(void *ctx, struct powercut *disk)
{
    const struct level *l = ctx;
    struct campaign *c = l->c;

    if (l->depth == 0 && disk->ops % c->every != 0)
        return;
    if (l->depth == 0 && c->only != 0 && disk->ops != c->only && c->after == 0)
        return;
    c->risky += l->depth == 0 && powercut_unsynced(disk) > 0;
    for (int loss = 0; loss < POWERCUT_LOSSES; loss++)
        campaign_check_copy(l, disk, (enum powercut_loss)loss);
}

void
campaign_start(struct level *l, uint64_t seed, bool psow)
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

void
campaign_stop(struct level *l)
{
    struct campaign *c = l->c;

    l->disk.before = NULL;
    for (int h = 0; h < HANDLES; h++)
        workload_close(&l->w, h, true);
    c->acked += l->w.ledger.acked;
    c->confirmed += l->w.ledger.confirmed;
    c->fenced += l->w.fenced;
}

static void
cut_everywhere(struct campaign *c, uint64_t seed, bool psow)
{
    struct level *l = &campaign_level[0];
    struct findings f;

    campaign_start(l, seed, psow);
    l->disk.before = campaign_at_operation;
    l->disk.ctx = l;
    workload_run(&l->w, c->steps);
    for (int h = 0; h < HANDLES; h++)
        workload_close(&l->w, h, false);
    f = l->w.found;
    f.unopened += l->w.stopped != WB_OK;
    campaign_level[1].seed = seed;
    campaign_report(c, l, &f);
    campaign_stop(l);
}

void
campaign_cut(struct campaign *c)
{
    campaign_begin(c);
    for (int s = 0; s < c->seeds; s++)
        for (int psow = 0; psow < 2; psow++)
            cut_everywhere(c, c->seed + (uint64_t)s, psow != 0);
    campaign_end();
}
