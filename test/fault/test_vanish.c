/* test_vanish.c - the files of a database are removed, renamed or replaced
 * under open handles, between calls and inside a COMMIT: what is accepted after
 * that is in the database that has the name, and no claim is given (I1, I3).
 *
 * The saboteur compares nothing: it must be caught. */
#include <stdio.h>
#include <stdlib.h>

#include "db/sqlite.h"
#include "outbox/outbox_internal.h"
#include "random.h"
#include "support.h"

#define FILE_DB "d/box.db"

enum {
    SEEDS = 60 / THINNED, /* unless an argument says more */
    CALLS = 12,
    HANDLES = 2
};

static uint64_t seeds = SEEDS;

static const char *const ways[] = {
    "rm " FILE_DB,
    "mv " FILE_DB " d/old.db",
    "cp " FILE_DB " d/new.db && mv d/new.db " FILE_DB,
    "rm " FILE_DB "-wal",
    "rm " FILE_DB "-shm",
    "mv d e && mkdir d",
    "rm d/*",
};

struct run {
    struct wb_outbox *box[HANDLES];
    uint64_t random;
    const char *way;
    bool vanished;
    struct wb_id accepted[CALLS]; /* since then, or across it */
    size_t n;
    long refused, kept, lost, claimed;
};

static void
vanish(struct run *r)
{
    r->vanished = true;
    CHECK_INT(0, system(r->way)); /* NOLINT: a test's own text */
}

static int
in_commit(void *ctx)
{
    struct run *r = ctx;

    if (!r->vanished)
        vanish(r);
    return 0;
}

static struct wb__sqlite *
engine(struct wb_outbox *box)
{
    return (struct wb__sqlite *)box->db;
}

static struct wb_outbox *
open_one(void)
{
    const struct wb_outbox_opts opts = {.env = ENV, .busy_ms = 200};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_open(&box, FILE_DB, &opts, &err), err);
    return box;
}

static void
call(struct run *r, struct wb_outbox *box)
{
    const struct wb_message m = {.kind = wb_slice("k")};
    const struct wb_claim claim = {.max = 1};
    struct wb_accepted a = {0};
    struct wb_batch batch = {0};
    enum wb_status rc;

    if (random_next(&r->random) % 3 == 0 && r->vanished) {
        rc = wb_outbox_claim(box, &claim, &batch, NULL);
        r->claimed += rc == WB_OK && batch.len > 0;
        wb_batch_free(&batch);
    } else {
        rc = wb_outbox_enqueue(box, &m, &a, NULL);
        if (rc == WB_OK && r->vanished)
            r->accepted[r->n++] = a.id;
    }
    r->refused += rc == WB_IO;
}

static enum wb_status
found(void *ctx, const struct wb_row *row)
{
    (void)row;
    *(bool *)ctx = true;
    return WB_OK;
}

/* Of what was accepted since, what the database of that name does not have. */
static void
count_lost(struct run *r)
{
    struct wb_outbox *box = open_one();

    for (size_t i = 0; i < r->n; i++) {
        bool there = false;

        (void)!wb_outbox_show(
            box, wb_slice(r->accepted[i].text), found, &there, NULL);
        r->lost += !there;
        r->kept += there;
    }
    wb_outbox_close(box);
}

static void
one(struct run *r, uint64_t seed, bool sabotage)
{
    bool inside = seed % 2 == 0;
    int at;

    r->random = seed;
    r->way = ways[seed % WB_COUNT(ways)];
    r->vanished = false;
    r->n = 0;
    at = (int)(random_next(&r->random) % (CALLS - 4));
    CHECK_INT(0, system("rm -rf d e && mkdir d")); /* NOLINT */
    for (int h = 0; h < HANDLES; h++) {
        r->box[h] = open_one();
        if (sabotage)
            memset(engine(r->box[h])->id, 0, sizeof(engine(r->box[h])->id));
    }
    for (int i = 0; i < CALLS; i++) {
        struct wb_outbox *box = r->box[random_next(&r->random) % HANDLES];

        if (i == at && inside)
            (void)sqlite3_commit_hook(engine(box)->handle, in_commit, r);
        else if (i == at)
            vanish(r);
        call(r, box);
    }
    CHECK(r->vanished);
    for (int h = 0; h < HANDLES; h++)
        wb_outbox_close(r->box[h]);
    count_lost(r);
}

TEST(test_vanish__files_vanish_at_any_time__nothing_accepted_is_lost)
{
    struct run r = {0};

    for (uint64_t seed = 0; seed < seeds; seed++)
        one(&r, seed, false);
    print_message("vanish: %d faults, refused %ld, acknowledged %ld; lost %ld, "
                  "doubled %ld\n",
        (int)seeds, r.refused, r.kept, r.lost, r.claimed);
    CHECK_INT(0, r.lost);
    CHECK_INT(0, r.claimed);
    CHECK(r.refused > (long)seeds);
}

TEST(test_vanish__nothing_is_compared__caught)
{
    struct run r = {0};

    for (uint64_t seed = 0; seed < SEEDS && r.lost * r.claimed == 0; seed++) {
        struct run sound = {0};

        one(&sound, seed, false);
        CHECK_INT(0, sound.lost + sound.claimed);
        one(&r, seed, true);
    }
    CHECK(r.lost > 0);
    CHECK(r.claimed > 0);
    print_message("vanish: 1 of 1 saboteurs caught\n");
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        RUN(test_vanish__files_vanish_at_any_time__nothing_accepted_is_lost),
        RUN(test_vanish__nothing_is_compared__caught),
    };

    if (argc > 1)
        seeds = strtoull(argv[1], NULL, 10);
    return RUN_ALL(tests);
}
