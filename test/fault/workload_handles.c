/* workload_handles.c - environment, handles and sabotage of a workload. See
 * workload.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/sqlite.h"
#include "memory.h"
#include "outbox/outbox_internal.h"
#include "random.h"
#include "workload.h"

const char *const sabotage_name[SABOTAGES] = {
    "sound", "NORMAL", "OFF", "DELETE+FULL", "lying sync", "DELETE+EXTRA"};

/* ---- environment ------------------------------------------------------- */

int
workload_pick(struct workload *w, int n)
{
    return (int)(random_next(&w->random) % (uint64_t)n);
}

static int64_t
env_wall_ms(void *ctx)
{
    return ((struct workload *)ctx)->wall_ms;
}

static int64_t
env_mono_us(void *ctx)
{
    return ((struct workload *)ctx)->wall_ms * 1000;
}

static void
env_random(void *ctx, void *out, size_t len)
{
    struct workload *w = ctx;
    unsigned char *at = out;

    while (len-- > 0)
        *at++ = (unsigned char)random_next(&w->library_random);
}

void
workload_init(struct workload *w, struct powercut *disk, uint64_t seed)
{
    memset(w->box, 0, sizeof(w->box));
    w->disk = disk;
    w->wall_ms = INT64_C(1767225600000);
    w->random = seed;
    w->library_random = ~seed;
    w->stopped = WB_OK;
    w->unsure = w->keep_open = w->no_repair = w->goes_on = false;
    w->wild_clock = false;
    w->latest_ms = w->fenced = 0;
    w->failures = w->io_failures = w->repaired = 0;
    w->found = (struct findings){0};
    w->calls = 0;
    w->handle = w->last = 0;
    w->handles = HANDLES;
    w->env = (struct wb_env){.ctx = w,
        .wall_ms = env_wall_ms,
        .mono_us = env_mono_us,
        .random = env_random,
        .resize = memory_resize,
        .vfs = disk->vfs.zName};
}

/* ---- open, close ------------------------------------------------------- */

static struct wb__sqlite *
engine(struct workload *w, int h)
{
    return (struct wb__sqlite *)w->box[h]->db;
}

sqlite3 *
workload_handle(struct workload *w, int h)
{
    return engine(w, h)->handle;
}

/* Ignores the library's own pragma: during a call, for a transaction that must
 * be FULL after one that need not, it would replace EXTRA by FULL, which loses
 * messages without WAL. */
static int
keep_sync(void *ctx, int action, const char *name, const char *value,
    const char *db, const char *trigger)
{
    (void)ctx;
    (void)db;
    (void)trigger;
    return action == SQLITE_PRAGMA && value != NULL &&
                   strcmp(name, "synchronous") == 0
               ? SQLITE_IGNORE
               : SQLITE_OK;
}

/* Before each call, because the library changes the pragma. */
static void
sabotage_handle(struct workload *w, int h)
{
    static const char *const pragma[SABOTAGES] = {
        [SYNC_NORMAL] = "PRAGMA synchronous=NORMAL",
        [SYNC_OFF] = "PRAGMA synchronous=OFF",
        [JOURNAL_DELETE] = "PRAGMA journal_mode=DELETE",
        [JOURNAL_EXTRA] =
            "PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA",
    };

    if (w->sabotage == SOUND || w->box[h] == NULL)
        return;
    w->disk->lying = w->sabotage == LYING_SYNC;
    engine(w, h)->relaxed = false;
    (void)sqlite3_set_authorizer(workload_handle(w, h), NULL, NULL);
    if (pragma[w->sabotage] != NULL)
        (void)sqlite3_exec(
            workload_handle(w, h), pragma[w->sabotage], NULL, NULL, NULL);
    if (w->sabotage == JOURNAL_EXTRA)
        (void)sqlite3_set_authorizer(workload_handle(w, h), keep_sync, NULL);
}

bool
workload_stopped(struct workload *w, enum wb_status status)
{
    if (status == WB_OK || status == WB_EMPTY)
        return false;
    w->failures++;
    w->unsure = w->unsure || status == WB_IO;
    w->io_failures += status == WB_IO;
    if (w->goes_on)
        return true;
    if (w->stopped == WB_OK)
        w->stopped = status;
    return true;
}

/* What a program would do after an error. */
static void
continue_after(struct workload *w, enum wb_status status)
{
    if (status == WB_CORRUPT || status == WB_NEWER || status == WB_REFUSED)
        w->found.damaged++;
    if (ledger_trace)
        (void)printf("call %ld: %s\n", w->calls, wb_status_name(status));
    if (status == WB_IO)
        workload_close(w, w->last, false);
}

void
workload_call_ended(struct workload *w, enum wb_status status)
{
    w->calls++;
    if (workload_stopped(w, status) && w->goes_on)
        continue_after(w, status);
}

void
workload_open(struct workload *w, int h)
{
    const int64_t long_ms = INT64_C(86400000) * 3650;
    struct wb_outbox_opts opts = {.env = &w->env,
        .busy_ms = 50,
        .keep_delivered_ms = long_ms,
        .keep_abandoned_ms = long_ms};

    if (w->box[h] != NULL ||
        workload_stopped(w, wb_outbox_open(&w->box[h], "box.db", &opts, NULL)))
        return;
    engine(w, h)->wal_long = CHECKPOINT_FRAMES;
    if (!w->unsure)
        return;
    /* The outcome of the interrupted call is known now. The simulated disk has
     * no lock file, which would make the library repair a failed store. */
    ledger_settle(&w->ledger, workload_handle(w, h), false);
    if (w->no_repair || w->repaired == w->io_failures)
        return;
    if (workload_stopped(w, wb__sqlite_repair(engine(w, h), NULL)))
        workload_close(w, h, false);
    else
        w->repaired = w->io_failures;
}

void
workload_close(struct workload *w, int h, bool quick)
{
    if (w->box[h] == NULL)
        return;
    if (quick)
        (void)sqlite3_db_config(
            workload_handle(w, h), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    wb_outbox_close(w->box[h]);
    w->box[h] = NULL;
}

struct wb_outbox *
workload_some_box(struct workload *w)
{
    /* Without WAL, two connections would only block each other. */
    bool alone = w->sabotage == JOURNAL_DELETE || w->sabotage == JOURNAL_EXTRA;
    int h = w->handle + (alone ? 0 : workload_pick(w, w->handles));

    w->last = h;
    workload_open(w, h);
    sabotage_handle(w, h);
    return w->stopped == WB_OK ? w->box[h] : NULL;
}
