/* sim.c - sim [--seed N] [--seeds N] [--mode safety|liveness]
 *             [--sabotage NAME|all] [--within N] [--trace]
 *
 * Runs seeds from --seed on, and prints counters at the end. The first seed
 * with a violation ends the run; its events are printed with the command that
 * repeats it. With --sabotage, a violation must be found within N seeds.
 *
 * Exit status: 0 no violation (or every saboteur was caught), 1 otherwise. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sim.h"

enum {
    MANY = 2000 /* seeds in which each fault must have fired */
};

static struct sim_opts opts;
static uint64_t first = 1, seeds = 1000, within = 2000;
static bool all;

/* ---- counters ---------------------------------------------------------- */

static double
cpu_s(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static void
print_figures(const struct sim_figures *f, double s)
{
    uint64_t fired = 0;

    for (int i = 0; i < SIM_FAULT_COUNT; i++) {
        (void)printf("%s%s %" PRIu64, i == 0 ? "" : ", ",
            sim_fault_name((enum sim_fault)i), f->fault[i]);
        fired += f->fault[i];
    }
    (void)printf("\nsim: seeds %" PRIu64 ", steps %" PRIu64 ", points %" PRIu64
                 ", faults fired %" PRIu64 ", calls %" PRIu64 ", sends %" PRIu64
                 ", %.0f points/s\n",
        f->seeds, f->steps, f->cycles, fired, f->calls, f->sends,
        s > 0 ? (double)f->cycles / s : 0);
    (void)printf("acknowledged %" PRIu64 ", recovered %" PRIu64
                 ", delivered %" PRIu64 ", abandoned %" PRIu64
                 ", discarded %" PRIu64 "; ",
        f->accepted, f->recovered, f->delivered, f->abandoned, f->discarded);
    for (int w = 0; w < SIM_VIOLATION_COUNT; w++)
        (void)printf("%s%s %" PRIu64, w == 0 ? "" : ", ",
            sim_violation_name((enum sim_violation)w), f->violation[w]);
    (void)printf("\n");
}

static bool
all_fired(const struct sim_figures *f)
{
    bool good = true;

    for (int i = 0; i < SIM_FAULT_COUNT && f->seeds >= MANY; i++)
        if (f->fault[i] == 0) {
            (void)printf(
                "never fired: %s\n", sim_fault_name((enum sim_fault)i));
            good = false;
        }
    return good;
}

/* ---- runs -------------------------------------------------------------- */

static bool
run(void)
{
    struct sim_figures f = {0};
    double began = cpu_s();

    sim_begin(&opts);
    for (uint64_t i = 0; i < seeds && f.bad_seeds == 0; i++)
        (void)sim_run(first + i, &f);
    print_figures(&f, cpu_s() - began);
    if (f.bad_seeds > 0)
        sim_explain(f.first_bad);
    sim_end();
    return f.bad_seeds == 0 && all_fired(&f);
}

/* It counts only if its seed is sound without the defect. */
static bool
is_sound(uint64_t seed)
{
    struct sim_figures f = {0};

    opts.sabotage = SIM_SOUND;
    sim_begin(&opts);
    (void)sim_run(seed, &f);
    sim_end();
    return f.bad_seeds == 0;
}

static bool
catch_one(enum sim_sabotage s)
{
    struct sim_figures f = {0};
    bool caught;

    opts = sim_sabotage_opts(s);
    sim_begin(&opts);
    for (uint64_t i = 0; i < within && f.bad_seeds == 0; i++)
        (void)sim_run(first + i, &f);
    sim_end();
    caught = f.bad_seeds > 0 && is_sound(f.first_bad);
    (void)printf("%-20s %s after %" PRIu64 " seeds:", sim_sabotage_name(s),
        caught            ? "caught"
        : f.bad_seeds > 0 ? "NOT SOUND WITHOUT IT"
                          : "NOT CAUGHT",
        f.seeds);
    for (int w = 0; w < SIM_VIOLATION_COUNT; w++)
        if (f.violation[w] > 0)
            (void)printf(" %s", sim_violation_name((enum sim_violation)w));
    (void)printf("\n");
    return caught;
}

static bool
catch_all(void)
{
    int caught = 0;

    for (int s = SIM_SOUND + 1; s < SIM_SABOTAGE_COUNT; s++)
        caught += catch_one((enum sim_sabotage)s);
    (void)printf("%d of %d saboteurs caught\n", caught, SIM_SABOTAGE_COUNT - 1);
    return caught == SIM_SABOTAGE_COUNT - 1;
}

/* ---- arguments --------------------------------------------------------- */

static bool
option(const char *name, const char *value)
{
    if (strcmp(name, "--seed") == 0)
        first = strtoull(value, NULL, 10);
    else if (strcmp(name, "--seeds") == 0)
        seeds = strtoull(value, NULL, 10);
    else if (strcmp(name, "--within") == 0)
        within = strtoull(value, NULL, 10);
    else if (strcmp(name, "--mode") == 0)
        opts.liveness = strcmp(value, "liveness") == 0;
    else if (strcmp(name, "--sabotage") == 0 && strcmp(value, "all") == 0)
        all = true;
    else if (strcmp(name, "--sabotage") == 0)
        opts.sabotage = sim_sabotage_named(value);
    else
        return false;
    return opts.sabotage != SIM_SABOTAGE_COUNT;
}

int
main(int argc, char **argv)
{
    bool good = true;

    for (int i = 1; i < argc && good; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            opts.trace = true;
        else if (i + 1 < argc && option(argv[i], argv[i + 1]))
            i++;
        else
            good = false;
    }
    if (!good) {
        (void)fprintf(stderr,
            "usage: sim [--seed N] [--seeds N] [--mode safety|liveness]"
            " [--sabotage NAME|all] [--within N] [--trace]\n");
        return 2;
    }
    return (all ? catch_all() : run()) ? 0 : 1;
}
