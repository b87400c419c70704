/* test_sim.c - a short run of the simulator: no violation, the same seed gives
 * the same history, and each saboteur is caught. */
#include "sim.h"
#include "support.h"

enum {
    SEEDS = 800 / THINNED,
    DRAINS = 100 / THINNED,
    SAME = 40 / THINNED,
    WITHIN = 2000
};

/* Runs seeds up to the first with a violation; returns how many were run. */
static uint64_t
run(const struct sim_opts *opts, uint64_t seeds, struct sim_figures *f)
{
    uint64_t n = 0;

    *f = (struct sim_figures){0};
    sim_begin(opts);
    while (n < seeds && f->bad_seeds == 0)
        (void)sim_run(++n, f);
    if (f->bad_seeds > 0 && opts->sabotage == SIM_SOUND)
        sim_explain(f->first_bad);
    sim_end();
    return n;
}

TEST(test_sim__faults_without_end__no_violation)
{
    const struct sim_opts opts = {0};
    struct sim_figures f;

    (void)run(&opts, SEEDS, &f);
    CHECK_INT(0, sim_violations(&f));
    for (int i = 0; i < SIM_FAULT_COUNT; i++)
        if (f.fault[i] == 0)
            fail_msg("never fired: %s", sim_fault_name((enum sim_fault)i));
    CHECK(f.accepted > SEEDS && f.delivered > SEEDS && f.cycles > SEEDS);
}

TEST(test_sim__I15_faults_end__all_is_delivered_once)
{
    const struct sim_opts opts = {.liveness = true};
    struct sim_figures f;

    (void)run(&opts, DRAINS, &f);
    CHECK_INT(0, sim_violations(&f));
    CHECK_INT(f.accepted, f.delivered + f.discarded);
    CHECK(f.delivered > 5 * DRAINS);
}

TEST(test_sim__same_seed__same_history)
{
    const struct sim_opts opts = {.liveness = true};
    struct sim_figures f = {0};
    uint64_t hash[SAME];

    sim_begin(&opts);
    for (uint64_t i = 0; i < SAME; i++)
        hash[i] = sim_run(i, &f);
    sim_end();
    sim_begin(&opts);
    for (uint64_t i = SAME; i-- > 0;)
        CHECK(sim_run(i, &f) == hash[i]);
    sim_end();
    CHECK(hash[0] != hash[1]);
}

TEST(test_sim__each_saboteur__is_caught)
{
    struct sim_figures f;

    for (int s = SIM_SOUND + 1; s < SIM_SABOTAGE_COUNT; s += THINNED) {
        struct sim_opts opts = sim_sabotage_opts((enum sim_sabotage)s);
        uint64_t seed;

        if (run(&opts, WITHIN, &f) == WITHIN && f.bad_seeds == 0)
            fail_msg("not caught: %s", sim_sabotage_name(opts.sabotage));
        seed = f.first_bad;
        opts.sabotage = SIM_SOUND;
        f = (struct sim_figures){0};
        sim_begin(&opts);
        (void)sim_run(seed, &f);
        sim_end();
        CHECK_INT(0, sim_violations(&f));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_sim__faults_without_end__no_violation),
        RUN(test_sim__I15_faults_end__all_is_delivered_once),
        RUN(test_sim__same_seed__same_history),
        RUN(test_sim__each_saboteur__is_caught),
    };

    return RUN_ALL(tests);
}
