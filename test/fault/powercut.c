/* powercut.c - the power-cut campaigns in full, for tools/torture.
 *
 *     powercut cut|sync [--seed N] [--seeds N] [--steps N] [--depth N]
 *              [--deepen N] [--every N] [--only OPERATION] [--sabotage NAME]
 *              [--tell 1] [--no-mend 1]
 *
 * Prints one line; exits 0 if nothing was found, 1 if something was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "campaign.h"

static int
usage(const char *what)
{
    (void)fprintf(stderr, "powercut: %s; see the head of powercut.c\n", what);
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
    if (strcmp(name, "--no-mend") == 0) {
        c->no_mend = atoi(value) != 0;
        return true;
    }
    if (strcmp(name, "--tell") == 0) {
        ledger_tells = atoi(value) != 0;
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
print(const struct campaign *c, bool sync)
{
    const struct findings *f = &c->found;

    (void)printf("%s %s: points %ld, second cuts %ld, third cuts %ld, at risk "
                 "%ld, syncs failed %ld, refused %ld, wrote after that %ld, "
                 "acknowledged %lld, confirmed %lld | lost %ld, revived %ld, "
                 "doubled %ld, torn %ld, stray %ld, stuck %ld, damaged %ld, "
                 "unopened %ld\n",
        sync ? "sync" : "cut", sabotage_name[c->sabotage], c->points[0],
        c->points[1], c->points[2], c->risky, c->syncs, c->refused, c->wrote,
        (long long)c->acked, (long long)c->confirmed, f->lost, f->revived,
        f->doubled, f->torn, f->stray, f->stuck, f->damaged, f->unopened);
    if (c->first[0] != '\0')
        (void)printf(
            "first: powercut %s %s\n", sync ? "sync" : "cut", c->first);
}

int
main(int argc, char **argv)
{
    struct campaign c = {0};
    bool sync = argc > 1 && strcmp(argv[1], "sync") == 0;

    if (argc < 2 || argc % 2 != 0 || (!sync && strcmp(argv[1], "cut") != 0))
        return usage("cut or sync, then options with values");
    for (int i = 2; i < argc; i += 2)
        if (!set_option(&c, argv[i], argv[i + 1]))
            return usage(argv[i]);
    if (c.depth > CAMPAIGN_DEPTH)
        return usage("depth: at most 3");
    if (sync)
        campaign_sync(&c);
    else
        campaign_cut(&c);
    print(&c, sync);
    return findings_sum(&c.found) != 0 || c.wrote != 0;
}
