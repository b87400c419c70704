/* sim_history.c - randomness, events and violations. */
#include <inttypes.h>
#include <stdio.h>

#include "sim.h"

static const char *const event_kinds[] = {
#define X(name, text) text,
    SIM_EVENT_KINDS(X)
#undef X
};
static const char *const violations[] = {
#define X(name, text) text,
    SIM_VIOLATIONS(X)
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
sim_violation_name(enum sim_violation w)
{
    return violations[w];
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

struct sim_opts
sim_sabotage_opts(enum sim_sabotage s)
{
    return (struct sim_opts){.sabotage = s,
        .liveness = s == SIM_BAD_ROW_FAILS_ALL || s == SIM_NEVER_DATED_ANEW};
}

uint64_t
sim_violations(const struct sim_figures *f)
{
    uint64_t sum = 0;

    for (int w = 0; w < SIM_VIOLATION_COUNT; w++)
        sum += f->violation[w];
    return sum;
}

int
sim_pick(int n)
{
    return (int)(random_next(&sim.random) % (uint64_t)n);
}

/* ---- events ------------------------------------------------------------ */

static void
print(const struct sim_event *e)
{
    (void)printf(
        "  %3d  %13" PRId64 "  process %d  ", e->step, e->wall_ms, e->process);
    if (e->message >= 0)
        (void)printf("message %d  ", e->message);
    (void)printf("%s", event_kinds[e->kind]);
    if (e->kind == SIM_E_VIOLATION)
        (void)printf(" %s", violations[e->a]);
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
sim_event(enum sim_event_kind kind, int message, int64_t a, int64_t b)
{
    struct sim_event e = {.step = sim.step,
        .kind = (int)kind,
        .message = message,
        .process = sim.me,
        .wall_ms = sim.wall_ms,
        .a = a,
        .b = b};

    mix(((int64_t)e.step << 32) + e.kind * 4096 + e.message * 16 + e.process);
    mix(e.wall_ms);
    mix(a);
    mix(b);
    if (sim.n_events < SIM_EVENTS)
        sim.event[sim.n_events++] = e;
    if (sim.opts.trace)
        print(&e);
}

void
sim_violation(enum sim_violation v, int message, int64_t detail)
{
    sim_event(SIM_E_VIOLATION, message, v, detail);
    sim.figures->violation[v]++;
}

void
sim_fired(enum sim_fault fault)
{
    sim.figures->fault[fault]++;
}

/* ---- explanation ------------------------------------------------------- */

static bool
belongs(const struct sim_event *e, int message)
{
    return e->message == message || e->message < 0;
}

static void
explain_message(const struct sim_event *v)
{
    int first = 0, n = 0;

    for (int i = sim.n_events - 1; i >= 0 && n < 20; i--) {
        n += sim.event[i].step <= v->step && belongs(&sim.event[i], v->message);
        first = i;
    }
    (void)printf("message %d: %s, after\n", v->message, violations[v->a]);
    for (int i = first; i < sim.n_events && &sim.event[i] <= v; i++)
        if (belongs(&sim.event[i], v->message))
            print(&sim.event[i]);
}

void
sim_explain(uint64_t seed)
{
    int shown = 0;

    for (int i = 0; i < sim.n_events && shown < 3; i++)
        if (sim.event[i].kind == SIM_E_VIOLATION) {
            explain_message(&sim.event[i]);
            shown++;
        }
    (void)printf("to repeat: sim --seed %" PRIu64 " --seeds 1 --mode %s", seed,
        sim.opts.liveness ? "liveness" : "safety");
    if (sim.opts.sabotage != SIM_SOUND)
        (void)printf(" --sabotage %s", sabotages[sim.opts.sabotage]);
    (void)printf(" --trace\n");
}
