/* sim_process.c - processes that have the file open, one of them on a
 * connection of its own, and how they die. */
#include "db/sqlite.h"
#include "outbox/outbox_internal.h"
#include "sim.h"

enum {
    CHECKPOINT_FRAMES = 24
};

static struct wb__sqlite *
engine(int process)
{
    return (struct wb__sqlite *)sim.process[process].box->db;
}

sqlite3 *
sim_handle(int process)
{
    return engine(process)->handle;
}

bool
sim_is_dead(void)
{
    return sim.disk.dead || (sim.disk.gone >> sim.disk.owner & 1U) != 0;
}

bool
sim_is_unknown(enum wb_status rc)
{
    return rc == WB_IO || rc == WB_FULL;
}

bool
sim_call_ended(enum wb_status rc)
{
    sim.figures->calls++;
    if (sim.nested || sim_is_dead() || sim_is_unknown(rc))
        sim_model_unsure();
    if (sim_is_dead())
        return false;
    if (rc == WB_CORRUPT || rc == WB_NEWER || rc == WB_REFUSED)
        sim_violation(SIM_DAMAGED, -1, rc);
    return rc == WB_OK || rc == WB_EMPTY;
}

/* ---- close ------------------------------------------------------------- */

bool
sim_failed(int process)
{
    const struct sim_process *p = &sim.process[process];

    return p->box != NULL && p->box->db->failed;
}

/* Counts a failed store, as the lock file would, so that the next process that
 * opens it repairs it. */
void
sim_close(int process)
{
    struct sim_process *p = &sim.process[process];
    unsigned owner = sim.disk.owner;

    sim.disk.owner = (unsigned)process;
    sim_net_dead(process);
    if (p->relay != NULL)
        wb__relay_free(p->relay);
    sim.failures += sim_failed(process);
    wb_outbox_close(p->box);
    (void)sqlite3_close(p->own);
    p->relay = NULL;
    p->box = NULL;
    p->own = NULL;
    p->stopped = false;
    for (int i = 0; i < SIM_HELD; i++)
        p->held[i].n = -1;
    sim.disk.owner = owner;
}

/* ---- open -------------------------------------------------------------- */

static void
routes_set(int process)
{
    struct sim_process *p = &sim.process[process];

    p->transport.base =
        (struct wb_transport){.name = "simulated", .send = sim_send};
    p->transport.process = process;
    for (int k = 0; k < SIM_KINDS; k++)
        p->route[k] = (struct wb_route){.kind = sim_kind[k],
            .transport = &p->transport.base,
            .retry = &sim_retry,
            .breaker = &sim_breaker_policy,
            .timeout_ms = SIM_TIMEOUT_MS,
            .concurrency = 4,
            .batch = k == 1 ? SIM_BATCH : 1};
}

static enum wb_status
box_open(int process)
{
    const int64_t keep_ms = INT64_C(86400000) * SIM_KEEP_DAYS;
    const struct wb_outbox_opts opts = {.env = &sim.env,
        .busy_ms = 1,
        .keep_delivered_ms = keep_ms,
        .keep_abandoned_ms = keep_ms};
    struct sim_process *p = &sim.process[process];

    if (process != sim.adopted)
        return wb_outbox_open(&p->box, "box.db", &opts, NULL);
    if (sqlite3_open_v2("box.db", &p->own, SQLITE_OPEN_READWRITE,
            sim.disk.vfs.zName) != SQLITE_OK)
        return WB_IO;
    return wb_outbox_adopt(&p->box, p->own, &opts, NULL);
}

/* The simulated disk has no lock file, which would report a failed store to the
 * library: so call the repair here. */
static enum wb_status
repair(int process)
{
    enum wb_status rc;

    engine(process)->wal_long = CHECKPOINT_FRAMES;
    if (sim.opts.sabotage == SIM_BREAKER_FORGOTTEN)
        (void)sqlite3_exec(sim_handle(process), "DELETE FROM waybill_breaker",
            NULL, NULL, NULL);
    if (sim.repaired == sim.failures || sim.opts.sabotage == SIM_NO_REPAIR)
        return WB_OK;
    rc = wb__sqlite_repair(engine(process), NULL);
    if (rc == WB_OK)
        sim.repaired = sim.failures;
    return rc;
}

static enum wb_status
relay_open(int process)
{
    struct sim_process *p = &sim.process[process];
    const struct wb_relay_opts opts = {.env = &sim.env,
        .routes = p->route,
        .n_routes = SIM_KINDS,
        .lease_ms = SIM_LEASE_MS};
    enum wb_status rc;

    rc = wb__relay_new(&p->relay, p->box, &opts, NULL);
    if (rc == WB_OK)
        wb__relay_begin(p->relay, &(struct wb__limits){.messages = UINT64_MAX});
    return rc;
}

/* Before each call, because the library changes the pragma. */
static void
sabotage(int process)
{
    const char *pragma = sim.opts.sabotage == SIM_SYNC_NORMAL
                             ? "PRAGMA synchronous=NORMAL"
                             : "PRAGMA synchronous=OFF";

    sim.disk.lying = sim.opts.sabotage == SIM_LYING_SYNC;
    if (sim.opts.sabotage != SIM_SYNC_NORMAL &&
        sim.opts.sabotage != SIM_SYNC_OFF)
        return;
    engine(process)->relaxed = false;
    (void)sqlite3_exec(sim_handle(process), pragma, NULL, NULL, NULL);
}

bool
sim_open(int process)
{
    struct sim_process *p = &sim.process[process];
    enum wb_status rc;

    if (p->box == NULL) {
        routes_set(process);
        rc = box_open(process);
        if (rc == WB_OK)
            rc = repair(process);
        if (rc == WB_OK)
            rc = relay_open(process);
        sim_event(SIM_E_OPEN, -1, rc, process);
        if (!sim_call_ended(rc)) {
            sim_close(process);
            return false;
        }
    }
    sabotage(process);
    return true;
}

/* ---- the relay --------------------------------------------------------- */

/* One relay cycle, as loop.c runs it; sometimes without a wakeup. */
void
sim_relay_cycle(int process)
{
    struct sim_process *p = &sim.process[process];
    struct wb_relay *relay = p->relay;
    int64_t deadline_us;
    enum wb_status rc;

    if (relay == NULL)
        return;
    sim_net_timeouts(process);
    if (sim.no_faults || sim_pick(3) > 0)
        wb__relay_wake(relay, WB__KINDS_STALE);
    rc = wb__relay_cycle(relay, &deadline_us, NULL);
    if (!sim_call_ended(rc))
        return;
    p->cycle_ms = sim.wall_ms;
}
