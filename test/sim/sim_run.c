/* sim_run.c - the clocks, the disk and the faults: one seed from start to end.
 */
#include <stdlib.h>

#include "db/sqlite.h"
#include "outbox/outbox_internal.h"
#include "sim.h"

enum {
    STEPS = 70,
    DAY_MS = 86400000,
    ROUNDS = 400,
    ROUNDS_DATED = 3, /* until each process has looked at the clock */
    AGAIN_MAX = 4
};

struct sim sim;
static struct powercut blank; /* a disk with the tables created */

/* ---- environment ------------------------------------------------------- */

static int64_t
env_wall_ms(void *ctx)
{
    (void)ctx;
    return sim.wall_ms;
}

static int64_t
env_mono_us(void *ctx)
{
    (void)ctx;
    return sim.mono_us;
}

static void
env_random(void *ctx, void *out, size_t len)
{
    unsigned char *at = out;

    (void)ctx;
    while (len > 0) {
        uint64_t r = random_next(&sim.library_random);
        size_t n = len < sizeof(r) ? len : sizeof(r);

        memcpy(at, &r, n);
        at += n;
        len -= n;
    }
}

/* ---- a call inside a call ------------------------------------------------ */

static void
on_io(void *ctx, struct powercut *disk)
{
    int me = sim.me, other;

    (void)ctx;
    if (disk->ops != sim.nest_at || sim.depth > 0)
        return;
    other = (me + sim_pick(sim.processes)) % sim.processes;
    if (other == me || sim.process[other].box == NULL ||
        sim.process[other].stopped || sim_failed(other))
        return;
    sim_fired(SIM_NESTED);
    sim.nested = true;
    sim.depth = 1;
    sim.me = other;
    disk->owner = (unsigned)other;
    sim_act(other);
    disk->owner = (unsigned)me;
    sim.me = me;
    sim.depth = 0;
}

/* ---- process deaths and power cuts ------------------------------------- */

static void
process_died(int process)
{
    sim.disk.gone |= 1U << process;
    sim_close(process);
    sim.disk.gone &= ~(1U << process);
    sim_event(SIM_E_DIED, -1, process, 0);
}

static void
cut(void)
{
    static const enum sim_fault kind[] = {
        SIM_CUT_LOSE, SIM_CUT_PREFIX, SIM_CUT_TEAR, SIM_CUT_KEEP};
    int loss = sim_pick(4);

    sim.disk.dead = true;
    for (int p = 0; p < sim.processes; p++)
        sim_close(p);
    powercut_cut(&sim.disk, &sim.disk, (enum powercut_loss)loss,
        random_next(&sim.random));
    sim.mono_us = sim_pick(1000000);
    sim.jumps++;
    for (int n = 0; n < sim.n; n++)
        sim.message[n].lease_end_ms = 0; /* a claim may be undone */
    for (int k = 0; k < SIM_KINDS; k++)
        sim.breaker[k].probe_token = 0;
    for (int i = 0; i < SIM_WIRES; i++)
        if (sim.wire[i].deadline_us > sim.mono_us)
            sim.wire[i].deadline_us = sim.mono_us;
    sim_fired(kind[loss]);
    sim_event(SIM_E_POWER, -1, loss, 0);
}

/* Recover, perhaps with another cut during recovery, and check the store. */
static void
recover(bool settled)
{
    for (int again = 0; again <= AGAIN_MAX; again++) {
        int p = sim_pick(sim.processes);
        bool good;

        sim.disk.fault.kinds = 0;
        sim.disk.kill_at = sim.nest_at = 0;
        sim.disk.cut_at = again < AGAIN_MAX && settled && sim_pick(5) == 0
                              ? sim.disk.ops + 1 + sim_pick(6)
                              : 0;
        sim.me = p;
        sim.disk.owner = (unsigned)p;
        sim.process[p].stopped = false;
        good = sim_open(p) && sim_check(p, settled);
        sim.disk.cut_at = 0;
        if (sim.disk.dead) {
            sim_fired(SIM_CUT_AGAIN);
            cut();
        } else if (good) {
            sim.figures->cycles++;
            return;
        } else if (again == AGAIN_MAX) {
            sim_violation(SIM_DAMAGED, -1, p);
        } else {
            sim_close(p);
        }
    }
}

/* Close dead and failed processes; after a crash, check the store. */
static void
after_step(void)
{
    unsigned gone = sim.disk.gone;

    sim.nested = false;
    if (sim.disk.dead) {
        cut();
        recover(true);
        return;
    }
    for (int p = 0; p < sim.processes; p++) {
        if ((gone >> p & 1U) != 0) {
            sim_fired(SIM_KILL);
            process_died(p);
        } else if (sim_failed(p)) {
            sim_close(p);
        }
    }
    if (gone != 0)
        recover(false);
}

/* ---- faults ------------------------------------------------------------ */

static void
arm_fault(void)
{
    static const struct {
        unsigned kinds;
        int code;
        bool half;
        enum sim_fault as;
    } plan[] = {
        {POWERCUT_READ, SQLITE_IOERR_READ, false, SIM_FAIL_READ},
        {POWERCUT_WRITE, SQLITE_IOERR_WRITE, false, SIM_FAIL_WRITE},
        {POWERCUT_WRITE, SQLITE_IOERR_WRITE, true, SIM_FAIL_HALF},
        {POWERCUT_WRITE, SQLITE_FULL, false, SIM_FAIL_FULL},
        {POWERCUT_SYNC, SQLITE_IOERR_FSYNC, false, SIM_FAIL_SYNC},
        {POWERCUT_SYNC, SQLITE_IOERR_FSYNC, false, SIM_FAIL_SYNC},
        {POWERCUT_TRUNCATE | POWERCUT_CREATE | POWERCUT_DELETE | POWERCUT_LOCK |
                POWERCUT_SHM,
            SQLITE_IOERR, false, SIM_FAIL_OTHER},
    };
    int i = sim_pick((int)WB_COUNT(plan));
    bool sync = plan[i].as == SIM_FAIL_SYNC;

    if (sim.disk.cut_at > sim.disk.ops || sim.disk.kill_at > sim.disk.ops)
        return;

    sim.disk.fault = (struct powercut_fault){.kinds = plan[i].kinds,
        .skip = sim_pick(sync ? 2 : 8),
        .half = plan[i].half,
        .code = plan[i].code};
    sim.armed = plan[i].as;
    sim_event(SIM_E_FAULT, -1, plan[i].as, sim.disk.fault.skip);
}

static void
note_fault(void)
{
    if (sim.disk.fault.fired == 0)
        return;
    sim_event(SIM_E_FIRED, -1, sim.armed, 0);
    sim.figures->fault[sim.armed] += (uint64_t)sim.disk.fault.fired;
    sim.disk.fault.fired = 0;
}

/* Not while a fault is armed: a process that is killed between a failed sync
 * and the record of it cannot have reported the failure. */
static void
arm_end(void)
{
    long at = sim.disk.ops + 1 + sim_pick(24);

    if (sim.disk.fault.kinds != 0 || sim.disk.cut_at > sim.disk.ops ||
        sim.disk.kill_at > sim.disk.ops)
        return;
    if (sim_pick(2) == 0)
        sim.disk.cut_at = at;
    else
        sim.disk.kill_at = at;
    sim_event(SIM_E_FAULT, -1, -1, at - sim.disk.ops);
}

static void
set_clock(int64_t wall_ms)
{
    sim.aheads += wall_ms > sim.wall_ms;
    sim.backs += wall_ms < sim.wall_ms;
    sim.jumps++;
    sim.wall_ms = wall_ms;
}

/* Once, and back: two such steps, the first of which no commit saw corrected,
 * look like a machine that was off twice, and are believed. */
static void
jump_days(void)
{
    bool ahead = sim.days_ms == 0;

    if (sim.days_ms < 0)
        return;
    if (ahead)
        sim.days_ms = (int64_t)DAY_MS * (SIM_KEEP_DAYS + 1 + sim_pick(370));
    set_clock(sim.wall_ms + (ahead ? sim.days_ms : -sim.days_ms));
    if (!ahead)
        sim.days_ms = -1;
    sim_fired(ahead ? SIM_DAYS_AHEAD : SIM_CORRECTED);
}

static void
jump(void)
{
    int what = sim_pick(6);

    switch (what == 0 && sim.days_ms > 0 ? 5 : what) {
    case 0:
        set_clock(sim.wall_ms + DAY_MS);
        sim_fired(SIM_JUMP_AHEAD);
        break;
    case 1:
        set_clock(sim.wall_ms - DAY_MS);
        sim_fired(SIM_JUMP_BACK);
        break;
    case 2:
        set_clock(sim.wall_ms - sim_pick(60000));
        break;
    case 4:
    case 5:
        jump_days();
        break;
    default:
        sim.frozen = 5 + sim_pick(15);
        sim_fired(SIM_FROZEN);
    }
    sim.jumps++;
    sim_event(SIM_E_CLOCK, -1, sim.wall_ms, sim.frozen);
}

static void
arm_something(void)
{
    int what = sim_pick(100);
    int p = sim_pick(sim.processes);

    if (sim_pick(100) < sim.crashes)
        arm_end();
    if (what < 6) {
        arm_fault();
    } else if (what < 11) {
        jump();
    } else if (what < 16) {
        sim.process[p].stopped = !sim.process[p].stopped;
        if (sim.process[p].stopped)
            sim_fired(SIM_STOP);
        sim_event(SIM_E_STOPPED, -1, p, sim.process[p].stopped);
    } else if (what < 22) {
        sim.nest_at = sim.disk.ops + 1 + sim_pick(8);
    }
}

/* ---- a step ------------------------------------------------------------ */

static void
advance_clocks(int64_t ms)
{
    sim.mono_us += ms * 1000;
    sim.true_ms += ms;
    if (sim.frozen > 0 && --sim.frozen >= 0)
        sim.jumps++; /* the clocks differ now */
    else
        sim.wall_ms += ms;
    if (sim.wall_ms > sim.latest_ms)
        sim.latest_ms = sim.wall_ms;
}

static void
act(int process)
{
    sim.me = process;
    sim.disk.owner = (unsigned)process;
    if (sim.process[process].stopped || !sim_open(process))
        return;
    sim_act(process);
}

static void
step(void)
{
    sim.step++;
    sim.figures->steps++;
    advance_clocks(sim_pick(4) == 0 ? sim_pick(20000) : sim_pick(1500));
    arm_something();
    if (sim_pick(10) < 4)
        sim_net_step();
    else
        act(sim_pick(sim.processes));
    note_fault();
    after_step();
}

/* ---- liveness ---------------------------------------------------------- */

static void
end_faults(void)
{
    sim.no_faults = true;
    sim.frozen = 0;
    sim.jumps++;
    sim.nest_at = 0;
    sim.disk.fault.kinds = 0;
    sim.disk.cut_at = sim.disk.kill_at = 0;
    set_clock(sim.true_ms);
    for (int p = 0; p < sim.processes; p++)
        sim.process[p].stopped = false;
    sim_event(SIM_E_DRAIN, -1, sim.n, 0);
}

static void
drain_round(void)
{
    advance_clocks(1000);
    for (int p = 0; p < sim.processes; p++) {
        act(p);
        if (sim.process[p].box == NULL)
            continue;
        sim_relay_cycle(p);
        for (int i = 0; i < 8; i++)
            sim_worker(p);
    }
    sim_net_settle();
    after_step();
}

/* Bad rows have been set aside: else they would be abandoned again and again.
 */
static void
discard_bad(int process)
{
    for (int n = 0; n < sim.n; n++) {
        struct sim_message *m = &sim.message[n];
        const struct wb_select select = {.ids = &m->id, .n_ids = 1};
        struct wb_selected selected = {0};

        if (m->bad <= SIM_BAD_ATTEMPTS)
            continue;
        m->discard_tried = true;
        (void)sim_call_ended(wb_outbox_discard(
            sim.process[process].box, &select, &selected, NULL, NULL, NULL));
    }
}

/* Resume all kinds and redrive what was abandoned. */
static uint64_t
revive(int process)
{
    struct wb_selected selected = {0};
    const struct wb_select all = {.older_ms = 0};
    struct wb_outbox *box = sim.process[process].box;

    for (int k = 0; k < SIM_KINDS; k++)
        (void)sim_call_ended(
            wb_outbox_pause(box, wb_slice(sim_kind[k]), false, NULL));
    for (int k = 0; k < SIM_KINDS; k++)
        sim.paused[k] = 0;
    for (int n = 0; n < sim.n; n++) {
        sim.message[n].due_ms = sim.message[n].floor_ms =
            sim.message[n].expires_ms = 0;
        sim.message[n].order = 0;
    }
    sim_model_unsure();
    /* A sync that failed before may be reported only now. */
    if (!sim_call_ended(
            wb_outbox_redrive(box, &all, &selected, NULL, NULL, NULL)))
        selected.total = 1;
    sim_event(SIM_E_ADMIN, -1, 5, (int64_t)selected.total);
    return selected.total;
}

static void
drained(void)
{
    for (int n = 0; n < sim.n; n++) {
        const struct sim_message *m = &sim.message[n];

        if (m->acked && !m->discard_tried && m->effects == 0)
            sim_violation(SIM_UNDRAINED, n, m->state);
        if (m->there && m->state != WB_STATE_DELIVERED &&
            m->state != WB_STATE_ABANDONED)
            sim_violation(SIM_UNDRAINED, n, m->state);
    }
}

/* The clock advances to the next due message, so ROUNDS are enough. */
static void
drain(void)
{
    int64_t due_ms = 1;

    end_faults();
    for (int round = 0; round < ROUNDS && due_ms != 0; round++) {
        drain_round();
        sim.me = 0;
        sim.disk.owner = 0;
        if (!sim_open(0))
            continue;
        if (round == 0)
            (void)revive(0);
        if (round == ROUNDS_DATED)
            sim_check_waits(0);
        due_ms = sim_next_due(0);
        if (round % 4 == 3 && due_ms > sim.wall_ms)
            advance_clocks(due_ms - sim.wall_ms);
        if (due_ms != 0)
            continue;
        sim_check_aside(0);
        discard_bad(0);
        due_ms = (int64_t)revive(0); /* what was abandoned meanwhile */
    }
}

/* ---- a seed ------------------------------------------------------------ */

static void
seed_begin(uint64_t seed)
{
    memset(&sim.random, 0,
        offsetof(struct sim, event) - offsetof(struct sim, random));
    sim.n_events = 0;
    sim.random = seed;
    sim.library_random = ~seed;
    sim.wall_ms = sim.latest_ms = sim.true_ms = INT64_C(1767225600000);
    for (int p = 0; p < SIM_PROCESSES; p++)
        for (int i = 0; i < SIM_HELD; i++)
            sim.process[p].held[i].n = -1;
    powercut_cut(&sim.disk, &blank, POWERCUT_KEEP, seed);
    sqlite3_randomness(0, NULL); /* seeded anew from the disk */
    sim.disk.before = on_io;
    sim.disk.psow = sim_pick(2) == 0;
    sim.processes = 1 + sim_pick(SIM_PROCESSES);
    sim.adopted = sim_pick(2 * SIM_PROCESSES);
    sim.crashes = 4 << sim_pick(4);
    sim_net_begin();
}

static void
seed_end(void)
{
    for (int p = 0; p < sim.processes; p++)
        sim_close(p);
    for (int n = 0; n < sim.n; n++) {
        const struct sim_message *m = &sim.message[n];

        sim.figures->delivered += m->acked && m->effects > 0;
        sim.figures->discarded +=
            m->acked && m->effects == 0 && m->discard_tried && !m->there;
        sim.figures->abandoned += m->acked && m->effects == 0 && m->there &&
                                  m->state == WB_STATE_ABANDONED;
    }
}

uint64_t
sim_run(uint64_t seed, struct sim_figures *figures)
{
    uint64_t wrongs = sim_violations(figures);

    sim.figures = figures;
    seed_begin(seed);
    while (sim.step < STEPS)
        step();
    if (sim.opts.liveness)
        drain();
    end_faults();
    recover(false);
    if (sim.opts.liveness)
        drained();
    seed_end();
    figures->seeds++;
    if (sim_violations(figures) > wrongs && figures->bad_seeds++ == 0)
        figures->first_bad = seed;
    return sim.hash;
}

/* ---- setup -------------------------------------------------------------- */

/* One thread needs no locks, nor the pools that they protect. */
static void
configure(void)
{
    static bool done;

    if (done)
        return;
    if (sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) != SQLITE_OK)
        abort();
    sim_memory_install();
    done = true;
}

/* Tables that are not used here would be read at each open: drop them. */
static void
format(void)
{
    struct wb_env env = sim.env;
    const struct wb_outbox_opts opts = {.env = &env};
    struct wb_outbox *box = NULL;

    env.vfs = blank.vfs.zName;
    sim.wall_ms = 1;
    if (wb_outbox_open(&box, "box.db", &opts, NULL) != WB_OK ||
        sqlite3_exec(((struct wb__sqlite *)box->db)->handle,
            "DROP TABLE waybill_idem;"
            "CREATE TABLE business(n INTEGER PRIMARY KEY)",
            NULL, NULL, NULL) != SQLITE_OK)
        abort();
    wb_outbox_close(box);
}

void
sim_begin(const struct sim_opts *opts)
{
    configure();
    powercut_init(&blank, "sim-blank");
    powercut_init(&sim.disk, "sim");
    if (sqlite3_vfs_register(&sim.disk.vfs, 1) != SQLITE_OK)
        abort();
    sim.opts = *opts;
    sim.env = (struct wb_env){.wall_ms = env_wall_ms,
        .mono_us = env_mono_us,
        .random = env_random,
        .resize = sim_memory_resize,
        .vfs = "sim"};
    format();
}

void
sim_end(void)
{
    powercut_fini(&sim.disk);
    powercut_fini(&blank);
}
