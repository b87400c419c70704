/* loop.c - drain and run: the event loop around the cycles.
 *
 * (1) One drain of a database at a time, or as many as its concurrency allows.
 *     One that finds no free slot sets a flag; the holder of a slot reads the
 *     flag after it has freed the slot, and makes another pass: no message is
 *     left behind.
 * (2) A worker sleeps until the deadline of the cycle, the end of its time, a
 *     commit of another process, or LONGEST_US have passed, whichever is first.
 *     A commit through this library wakes it. Other programs are noticed when
 *     they write the log, which is before their commit is visible: the worker
 *     checks again after 2 ms, 4 ms and so on, up to LOG_MS.
 * (3) Nothing returns while a request is in flight.
 * (4) While a transaction runs, requests continue. */
#include <stdatomic.h>
#include <uv.h>

#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    LONGEST_US = 30000000,
    LOG_MS = 1024,
    READY_US = 5000000,
    BUSY_US = 100000,
    PROGRESS_US = 100000,
    SAVE_US = 10000000
};

struct wb__loop {
    uv_loop_t own;
    uv_loop_t *uv; /* own, or the caller's */
    uv_async_t stop;
    uv_timer_t timer;
    uv_prepare_t prepare;
    uv_fs_event_t commit, log;
    int open;       /* handles that are not closed yet */
    size_t waiting; /* requests in flight when the wait began */
    int64_t log_us; /* check then; 0: no log was written lately */
    int64_t log_ms; /* and, if nothing came, again after so long */
    atomic_bool stopped;
};

static int64_t
mono_us(const struct wb_relay *relay)
{
    return relay->env->mono_us(relay->env->ctx);
}

/* ---- handles ----------------------------------------------------------- */

/* These only wake the loop. */
static void
on_stop(uv_async_t *handle)
{
    (void)handle;
}

static void
on_timer(uv_timer_t *handle)
{
    (void)handle;
}

/* Runs between the loop's timers and its sleep. A request may have ended in a
 * timer (libcurl's does that): then no event may follow, so do not sleep. */
static void
on_prepare(uv_prepare_t *handle)
{
    struct wb_relay *relay = handle->data;
    struct wb__loop *l = relay->loop;

    if (relay->n_in_flight < l->waiting)
        (void)uv_timer_start(&l->timer, on_timer, 0, 0);
}

static void
on_commit(uv_fs_event_t *handle, const char *name, int events, int status)
{
    (void)name;
    (void)events;
    (void)status;
    wb__relay_wake(handle->data, WB__WOKEN);
}

static void
on_log(uv_fs_event_t *handle, const char *name, int events, int status)
{
    struct wb_relay *relay = handle->data;
    struct wb__loop *l = relay->loop;

    (void)name;
    (void)events;
    (void)status;
    l->log_ms = 2;
    if (l->log_us == 0 || l->log_us > mono_us(relay) + 2000)
        l->log_us = mono_us(relay) + 2000;
}

static void
on_close(uv_handle_t *handle)
{
    struct wb_relay *relay = handle->data;

    relay->loop->open--;
}

#define HANDLES(l)                                                      \
    {                                                                   \
        &(l)->stop, &(l)->timer, &(l)->prepare, &(l)->commit, &(l)->log \
    }

static enum wb_status
loop_open(struct wb_relay *relay, struct wb_err *err)
{
    struct wb__loop *l = relay->loop;
    void *const handle[] = HANDLES(l);

    l->uv = relay->opts.loop;
    if (l->uv == NULL) {
        if (uv_loop_init(&l->own) != 0)
            return wb__fail(
                err, WB_UNAVAILABLE, 0, "relay: no event loop to be had");
        l->uv = &l->own;
    }
    if (uv_async_init(l->uv, &l->stop, on_stop) != 0)
        return wb__fail(err, WB_UNAVAILABLE, 0, "relay: no event to be had");
    (void)uv_timer_init(l->uv, &l->timer);
    (void)uv_prepare_init(l->uv, &l->prepare);
    (void)uv_fs_event_init(l->uv, &l->commit);
    (void)uv_fs_event_init(l->uv, &l->log);
    for (; l->open < (int)WB_COUNT(handle); l->open++)
        ((uv_handle_t *)handle[l->open])->data = relay;
    return WB_OK;
}

static void
loop_close(struct wb_relay *relay)
{
    struct wb__loop *l = relay->loop;
    void *const handle[] = HANDLES(l);

    for (int i = l->open; i > 0; i--)
        uv_close(handle[i - 1], on_close);
    while (l->open > 0)
        (void)uv_run(l->uv, UV_RUN_ONCE);
    if (l->uv == &l->own)
        WB_ASSERT(uv_loop_close(&l->own) == 0);
    wb__free(relay->env, l);
}

/* ---- blocking calls ---------------------------------------------------- */

struct offloaded {
    uv_work_t work;
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static void
on_work(uv_work_t *work)
{
    struct offloaded *o = work->data;

    o->fn(o->arg);
}

static void
on_work_done(uv_work_t *work, int status)
{
    struct offloaded *o = work->data;

    (void)status;
    o->done = true;
}

/* Call fn on a thread of libuv's while requests are in flight, which go on
 * meanwhile. Without any, changing threads would only take time. Only the
 * system's environment is known to be thread-safe: with any other, call fn
 * here.
 */
static void
run_offloaded(struct wb_relay *relay, void (*fn)(void *arg), void *arg)
{
    uv_loop_t *uv = relay->loop->uv;
    struct offloaded o = {.fn = fn, .arg = arg};

    o.work.data = &o;
    if (relay->n_in_flight == 0 || relay->env != wb_env_system() ||
        relay->box->env != relay->env ||
        uv_queue_work(uv, &o.work, on_work, on_work_done) != 0) {
        fn(arg);
        return;
    }
    while (!o.done)
        (void)uv_run(uv, UV_RUN_ONCE);
}

/* ---- the relay --------------------------------------------------------- */

enum wb_status
wb_relay_new(struct wb_relay **out, struct wb_outbox *box,
    const struct wb_relay_opts *opts, struct wb_err *err)
{
    struct wb_relay *relay = NULL;
    enum wb_status rc = wb__relay_new(&relay, box, opts, err);

    if (rc != WB_OK)
        return rc;
    relay->run_blocking = run_offloaded;
    relay->loop = wb__alloc(relay->env, sizeof(*relay->loop));
    rc = relay->loop == NULL ? wb__nomem(err, "relay") : loop_open(relay, err);
    if (rc == WB_OK)
        *out = relay;
    else
        wb_relay_free(relay);
    return rc;
}

void
wb_relay_free(struct wb_relay *relay)
{
    if (relay == NULL)
        return;
    WB_ASSERT(relay->n_in_flight == 0);
    if (relay->loop != NULL)
        loop_close(relay);
    wb__relay_free(relay);
}

void
wb_relay_stop(struct wb_relay *relay)
{
    atomic_store(&relay->loop->stopped, true);
    (void)uv_async_send(&relay->loop->stop);
}

/* ---- one pass ---------------------------------------------------------- */

struct pass {
    struct wb_relay *relay;
    const struct wb_drain *drain;
    bool worker;
    int64_t start_us, end_us; /* end_us: claim no more after it; 0: never */
    int64_t progress_us, ready_us, saved_us; /* last, next, last */
    uint64_t saved; /* attempts in the report that was last saved */
    bool ready;
};

static bool
is_stopped(const struct wb_relay *relay)
{
    return atomic_load(&relay->loop->stopped);
}

static bool
is_ready(struct wb_relay *relay)
{
    return relay->opts.ready == NULL ||
           relay->opts.ready(relay->opts.ctx, NULL);
}

/* What happened since the last cycle, and may the next one claim? */
static void
before_cycle(struct pass *p)
{
    struct wb_relay *relay = p->relay;
    struct wb__loop *l = relay->loop;
    int64_t now_us = mono_us(relay);

    if (p->worker && now_us >= p->ready_us) {
        p->ready = is_ready(relay);
        p->ready_us = now_us + READY_US;
    }
    if (l->log_us != 0 && now_us >= l->log_us) {
        wb__relay_wake(relay, WB__KINDS_STALE);
        l->log_us = l->log_ms > LOG_MS ? 0 : now_us + l->log_ms * 1000;
        l->log_ms *= 2;
    }
    relay->limits.stopping = is_stopped(relay) || !p->ready ||
                             (p->end_us != 0 && now_us >= p->end_us);
    if (p->drain->progress != NULL && now_us - p->progress_us >= PROGRESS_US) {
        p->progress_us = now_us;
        p->drain->progress(p->drain->ctx, &relay->report);
    }
}

static bool
is_over(const struct pass *p)
{
    const struct wb_relay *relay = p->relay;

    if (relay->n_in_flight > 0 || wb__outcomes_left(relay) > 0)
        return false;
    if (relay->limits.messages == 0)
        return true;
    if (p->worker)
        return is_stopped(relay) ||
               (p->end_us != 0 && mono_us(relay) >= p->end_us);
    return relay->limits.stopping ||
           wb__claim_step(&relay->claims, true, false) == WB__CLAIM_NOTHING;
}

/* Sleep until something happens, or the deadline. Everything the loop has ready
 * is handled before the next cycle, so that one transaction commits it. */
static void
wait_until(struct pass *p, int64_t deadline_us)
{
    struct wb_relay *relay = p->relay;
    struct wb__loop *l = relay->loop;
    int64_t now_us = mono_us(relay), longest_us = now_us + LONGEST_US;
    int64_t at_us = deadline_us < longest_us ? deadline_us : longest_us, us;

    if (p->end_us > now_us && p->end_us < at_us)
        at_us = p->end_us;
    if (p->worker && !p->ready && p->ready_us < at_us)
        at_us = p->ready_us;
    if (p->worker && !relay->limits.stopping && l->log_us != 0 &&
        l->log_us < at_us)
        at_us = l->log_us;
    us = at_us - now_us;
    l->waiting = relay->n_in_flight;
    uv_update_time(l->uv);
    if (us > 0) {
        (void)uv_timer_start(&l->timer, on_timer, (uint64_t)us / 1000 + 1, 0);
        (void)uv_prepare_start(&l->prepare, on_prepare);
    }
    (void)uv_run(l->uv, us > 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    (void)uv_prepare_stop(&l->prepare);
    (void)uv_timer_stop(&l->timer);
    if (mono_us(relay) >= longest_us)
        wb__relay_wake(relay, WB__KINDS_STALE); /* an event may be lost */
}

/* The database or memory failed: what is in flight must end before anything is
 * freed. The outcomes are committed if they still can be; else the leases run
 * out. */
static void
give_up(struct pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t deadline_us;

    relay->limits.stopping = true;
    wb__deliveries_drop_unsent(relay);
    while (relay->n_in_flight > 0) {
        wait_until(p, INT64_MAX);
        wb__deliveries_drop_unsent(relay); /* of a batch that was split */
    }
    while (wb__outcomes_left(relay) > 0 &&
           wb__relay_cycle(relay, &deadline_us, NULL) == WB_OK)
        ;
    wb__outcomes_drop(relay);
}

/* A worker saves its report now and then, in case it is killed. */
static void
save_report(struct pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t now_us = mono_us(relay);

    if (!p->worker || relay->report.attempted == p->saved ||
        now_us - p->saved_us < SAVE_US)
        return;
    p->saved_us = now_us;
    p->saved = relay->report.attempted;
    relay->report.duration_ms = (now_us - p->start_us) / 1000;
    relay->report.why = WB_DRAIN_DONE;
    wb__report_save(relay);
}

static enum wb_status
run_pass(struct pass *p, struct wb_err *err)
{
    struct wb_relay *relay = p->relay;
    struct wb__limits limits = relay->limits;
    int64_t now_ms = wb__outbox_now(relay->box), deadline_us;
    enum wb_status rc;

    limits.due_by_ms = p->worker ? 0 : now_ms;
    limits.not_before_ms = p->worker ? 0 : wb__sat_add(now_ms, 1);
    wb__relay_begin(relay, &limits);
    while (true) {
        before_cycle(p);
        rc = wb__relay_cycle(relay, &deadline_us, err);
        if (rc == WB_BUSY && p->worker) {
            wait_until(p, mono_us(relay) + BUSY_US); /* nothing changed */
            continue;
        }
        if (rc != WB_OK)
            break;
        if (is_over(p))
            return WB_OK;
        save_report(p);
        wait_until(p, deadline_us);
    }
    give_up(p);
    return rc;
}

/* ---- drain, run -------------------------------------------------------- */

static int
take_drain_slot(struct wb_relay *relay, uint32_t slots)
{
    int n = slots < 1                 ? 1
            : slots > WB__DRAIN_SLOTS ? WB__DRAIN_SLOTS
                                      : (int)slots;

    for (int attempt = 0; attempt < 2; attempt++) {
        for (int slot = 0; slot < n; slot++)
            if (wb__db_drain_try(relay->box->db, slot))
                return slot;
        /* The holder may have read the flag before it was set: try again. */
        wb__db_drain_flag_set(relay->box->db, true);
    }
    return -1;
}

/* False: no route fits. */
static bool
drain_begin(struct pass *p, struct wb_relay *relay,
    const struct wb_drain *drain, struct wb_report *report)
{
    *p = (struct pass){.relay = relay,
        .drain = drain,
        .ready = true,
        .start_us = mono_us(relay)};
    if (drain->for_ms > 0 && drain->for_ms <= INT64_MAX / 1000)
        p->end_us = wb__sat_add(p->start_us, drain->for_ms * 1000);
    wb__tally_clear(&relay->tally);
    relay->report = *report = (struct wb_report){.why = WB_DRAIN_EMPTY};
    relay->limits = (struct wb__limits){.kind = drain->kind,
        .messages = drain->max > 0 ? drain->max : UINT64_MAX,
        .requests = drain->concurrency};
    return drain->kind.len > 0 ? wb__route_state_of(relay, drain->kind) != NULL
                               : relay->n_routes > 0;
}

enum wb_status
wb_relay_drain(struct wb_relay *relay, const struct wb_drain *drain,
    struct wb_report *report, struct wb_err *err)
{
    struct wb__db *db = relay->box->db;
    struct pass p;
    bool routed = drain_begin(&p, relay, drain, report);
    enum wb_status rc;
    int slot;

    report->why = WB_DRAIN_NOT_READY;
    if (!routed || !is_ready(relay))
        return WB_OK;
    report->why = WB_DRAIN_BUSY;
    slot = take_drain_slot(relay, drain->concurrency);
    if (slot < 0)
        return WB_OK;
    relay->claims.none = WB_NONE_EMPTY;
    do {
        wb__db_drain_flag_set(db, false);
        rc = run_pass(&p, err);
        wb__db_drain_free(db, slot);
    } while (rc == WB_OK && !relay->limits.stopping &&
             relay->limits.messages > 0 && wb__db_drain_flag(db) &&
             wb__db_drain_try(db, slot));
    if (relay->claims.none == WB_NONE_BREAKER_OPEN)
        relay->report.why = WB_DRAIN_BREAKER_OPEN;
    if (rc == WB_OK)
        rc = wb__report_end(relay, (mono_us(relay) - p.start_us) / 1000, err);
    *report = relay->report;
    return rc;
}

enum wb_status
wb_relay_run(struct wb_relay *relay, const struct wb_drain *drain,
    struct wb_report *report, struct wb_err *err)
{
    struct wb__watch w = relay->box->db->watch;
    enum wb_status rc, end_rc;
    struct pass p;
    int slot;

    if (!drain_begin(&p, relay, drain, report))
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "no route is configured; there is nothing to work on");
    slot = take_drain_slot(relay, drain->concurrency);
    if (slot < 0)
        return wb__fail(err, WB_BUSY, 0,
            "another worker or drain has this database; stop it, or give "
            "--concurrency");
    /* Where commits cannot be watched, the worker checks every LONGEST_US. */
    if (w.wake != NULL)
        (void)uv_fs_event_start(&relay->loop->commit, on_commit, w.wake, 0);
    if (w.log != NULL)
        (void)uv_fs_event_start(&relay->loop->log, on_log, w.log, 0);
    p.worker = true;
    rc = run_pass(&p, err);
    (void)uv_fs_event_stop(&relay->loop->commit);
    (void)uv_fs_event_stop(&relay->loop->log);
    wb__db_drain_free(relay->box->db, slot);
    end_rc = wb__report_end(
        relay, (mono_us(relay) - p.start_us) / 1000, rc == WB_OK ? err : NULL);
    *report = relay->report;
    return rc != WB_OK ? rc : end_rc;
}
