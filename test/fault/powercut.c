/* powercut.c - the power-cut campaigns in full, for tools/torture.
 *
 *     powercut cut|sync|fault|clock [--seed N] [--seeds N] [--steps N]
 *              [--depth N] [--deepen N] [--drain N] [--every N]
 *              [--only OPERATION] [--sabotage NAME] [--trace 1]
 *              [--no-repair 1] [--plan N]
 *
 * Prints one line of counters; exits 0 if there were no findings, else 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "campaign.h"
#include "memory.h"

static int
usage(const char *what)
{
    (void)fprintf(stderr, "powercut: %s; see the top of powercut.c\n", what);
    return 2;
}

static bool
set_sabotage(struct campaign *c, const char *name)
{
    for (int s = 0; s < SABOTAGES; s++) {
        if (strcmp(sabotage_name[s], name) == 0) {
            c->sabotage = (enum sabotage)s;
            return true;
        }
    }
    return false;
}

static bool
set_option(struct campaign *c, const char *name, const char *value)
{
    const struct {
        const char *name;
        int *at;
    } numbers[] = {{"--seeds", &c->seeds}, {"--steps", &c->steps},
        {"--depth", &c->depth}, {"--deepen", &c->deepen},
        {"--every", &c->every}, {"--drain", &c->drain}};

    if (strcmp(name, "--sabotage") == 0)
        return set_sabotage(c, value);
    if (strcmp(name, "--no-repair") == 0) {
        c->no_repair = atoi(value) != 0;
        return true;
    }
    if (strcmp(name, "--trace") == 0) {
        ledger_trace = atoi(value) != 0;
        return true;
    }
    if (strcmp(name, "--plan") == 0) {
        c->plans |= 1U << atoi(value);
        return true;
    }
    if (strcmp(name, "--seed") == 0) {
        c->seed = strtoull(value, NULL, 10);
        return true;
    }
    if (strcmp(name, "--only") == 0) {
        c->only = atol(value);
        return true;
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(numbers[i].name, name) == 0) {
            *numbers[i].at = atoi(value);
            return *numbers[i].at > 0;
        }
    }
    return false;
}

static void
print(const struct campaign *c, const char *name)
{
    const struct findings *f = &c->found;

    for (int p = 0; p < CAMPAIGN_PLANS; p++)
        if (c->plan[p].points > 0)
            (void)printf("%s: points %ld, fired %ld, points without %ld, calls "
                         "that failed %ld\n",
                campaign_plan_name(p), c->plan[p].points, c->plan[p].fired,
                c->plan[p].unfired, c->plan[p].failures);
    (void)printf("%s %s: points %ld, second cuts %ld, third cuts %ld, at risk "
                 "%ld, stale refused %ld, syncs failed %ld, refused %ld, wrote "
                 "after that %ld, "
                 "acknowledged %lld, confirmed %lld | lost %ld, revived %ld, "
                 "doubled %ld, torn %ld, stray %ld, stuck %ld, damaged %ld, "
                 "unopened %ld\n",
        name, sabotage_name[c->sabotage], c->points[0], c->points[1],
        c->points[2], c->risky, c->fenced, c->syncs, c->refused, c->wrote,
        (long long)c->acked, (long long)c->confirmed, f->lost, f->revived,
        f->doubled, f->torn, f->stray, f->stuck, f->damaged, f->unopened);
    if (c->first[0] != '\0')
        (void)printf("first: powercut %s %s\n", name, c->first);
}

static const struct command {
    const char *name;
    void (*run)(struct campaign *c);
} commands[] = {
    {"cut", campaign_cut},
    {"sync", campaign_sync},
    {"fault", campaign_fault},
    {"clock", campaign_clock},
};

static const struct command *
find(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

int
main(int argc, char **argv)
{
    struct campaign c = {0};
    const struct command *command = argc < 2 ? NULL : find(argv[1]);

    memory_install();
    if (command == NULL || argc % 2 != 0)
        return usage("cut, sync, fault or clock, then options with values");
    for (int i = 2; i < argc; i += 2)
        if (!set_option(&c, argv[i], argv[i + 1]))
            return usage(argv[i]);
    if (c.depth > CAMPAIGN_DEPTH)
        return usage("depth: at most 3");
    command->run(&c);
    print(&c, command->name);
    return findings_sum(&c.found) != 0 || c.wrote != 0;
}
