/* sim_history.c - chance, what happened, and what was wrong with it. */
#include <inttypes.h>
#include <stdio.h>

#include "sim.h"

static const char *const whats[] = {
#define X(name, text) text,
    SIM_WHATS(X)
#undef X
};
static const char *const wrongs[] = {
#define X(name, text) text,
    SIM_WRONGS(X)
#undef X
};
static const char *const faults[] = {
#define X(name, text) text,
    SIM_FAULTS(X)
#undef X
};
static const char *const sabotages[] = {
#define X(name, text) text,
    SIM_SABOTAGES(X)
#undef X
};

const char *
sim_wrong_name(enum sim_wrong w)
{
    return wrongs[w];
}

const char *
sim_fault_name(enum sim_fault f)
{
    return faults[f];
}

const char *
sim_sabotage_name(enum sim_sabotage s)
{
    return sabotages[s];
}

enum sim_sabotage
sim_sabotage_named(const char *name)
{
    int s = 0;

    while (s < SIM_SABOTAGE_COUNT && strcmp(name, sabotages[s]) != 0)
        s++;
    return (enum sim_sabotage)s;
}

uint64_t
sim_wrongs(const struct sim_figures *f)
{
    uint64_t sum = 0;

    for (int w = 0; w < SIM_WRONG_COUNT; w++)
        sum += f->wrong[w];
    return sum;
}

/* splitmix64 */
uint64_t
sim_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int
sim_pick(int n)
{
    return (int)(sim_random(&sim.chance) % (uint64_t)n);
}

/* ---- events ------------------------------------------------------------ */

static void
print(const struct sim_event *e)
{
    (void)printf(
        "  %3d  %13" PRId64 "  process %d  ", e->step, e->wall_ms, e->process);
    if (e->message >= 0)
        (void)printf("message %d  ", e->message);
    (void)printf("%s", whats[e->what]);
    if (e->what == SIM_E_WRONG)
        (void)printf(" %s", wrongs[e->a]);
    else
        (void)printf(" %" PRId64, e->a);
    (void)printf(" %" PRId64 "\n", e->b);
}

static void
mix(int64_t value)
{
    sim.hash = (sim.hash ^ (uint64_t)value) * UINT64_C(0x100000001b3);
    sim.hash ^= sim.hash >> 29;
}

void
sim_event(enum sim_what what, int message, int64_t a, int64_t b)
{
    struct sim_event e = {.step = sim.step,
        .what = (int)what,
        .message = message,
        .process = sim.me,
        .wall_ms = sim.wall_ms,
        .a = a,
        .b = b};

    mix(((int64_t)e.step << 32) + e.what * 4096 + e.message * 16 + e.process);
    mix(e.wall_ms);
    mix(a);
    mix(b);
    if (sim.n_events < SIM_EVENTS)
        sim.event[sim.n_events++] = e;
    if (sim.opts.tell)
        print(&e);
}

void
sim_wrong(enum sim_wrong wrong, int message, int64_t detail)
{
    sim_event(SIM_E_WRONG, message, wrong, detail);
    sim.figures->wrong[wrong]++;
}

void
sim_fired(enum sim_fault fault)
{
    sim.figures->fault[fault]++;
}

/* ---- an explanation ---------------------------------------------------- */

static bool
belongs(const struct sim_event *e, int message)
{
    return e->message == message || e->message < 0;
}

static void
explain_message(const struct sim_event *wrong)
{
    int first = 0, n = 0;

    for (int i = sim.n_events - 1; i >= 0 && n < 20; i--) {
        n += sim.event[i].step <= wrong->step &&
             belongs(&sim.event[i], wrong->message);
        first = i;
    }
    (void)printf("message %d: %s, after\n", wrong->message, wrongs[wrong->a]);
    for (int i = first; i < sim.n_events && &sim.event[i] <= wrong; i++)
        if (belongs(&sim.event[i], wrong->message))
            print(&sim.event[i]);
}

void
sim_explain(uint64_t seed)
{
    int shown = 0;

    for (int i = 0; i < sim.n_events && shown < 3; i++)
        if (sim.event[i].what == SIM_E_WRONG) {
            explain_message(&sim.event[i]);
            shown++;
        }
    (void)printf("again: sim --seed %" PRIu64 " --seeds 1 --mode %s", seed,
        sim.opts.liveness ? "liveness" : "safety");
    if (sim.opts.sabotage != SIM_SOUND)
        (void)printf(" --sabotage %s", sabotages[sim.opts.sabotage]);
    (void)printf(" --tell\n");
}
