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
 *     checks again after 2 ms, 4 ms and so on, up to LOG_MS. PostgreSQL
 * notifies of commits, not of each one (listen.c); beside it the worker checks
 * every POLL_US, as other programs may insert without a notification. (3)
 * Nothing returns while a request is in flight, but at the end of the grace
 *     after a stop.
 * (4) While a transaction runs, requests continue. */
#include <stdatomic.h>
#include <uv.h>

#include "outbox/outbox_internal.h"
#include "relay/pass.h"

enum {
    LONGEST_US = 30000000,
    POLL_US = 1000000, /* instead, where there are no files to watch */
    LOG_MS = 1024,
    READY_US = 5000000,
    PROGRESS_US = 100000,
    SAVE_US = 10000000,
    LAST_US = 5000000
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
    if (l->log_us == 0 || l->log_us > wb__relay_us(relay) + 2000)
        l->log_us = wb__relay_us(relay) + 2000;
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
            return wb__fail(err, WB_UNAVAILABLE, 0,
                "relay: an event loop cannot be made; raise the limit of open "
                "files");
        l->uv = &l->own;
    }
    if (uv_async_init(l->uv, &l->stop, on_stop) != 0)
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "relay: an event cannot be made; raise the limit of open files");
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
    wb__listen_stop(relay);
    while (l->open > 0 || relay->n_listeners > 0)
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
 * here. */
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
    WB_ASSERT(relay->n_in_flight == 0 || relay->report.left > 0);
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

static bool
is_stopped(const struct wb_relay *relay)
{
    return atomic_load(&relay->loop->stopped);
}

/* ---- the steps of a pass ----------------------------------------------- */

static bool
is_ready(struct wb_relay *relay)
{
    return relay->opts.ready == NULL ||
           relay->opts.ready(relay->opts.ctx, NULL);
}

/* What happened since the last cycle, and may the next one claim? */
static void
before_cycle(struct wb__pass *p)
{
    struct wb_relay *relay = p->relay;
    struct wb__loop *l = relay->loop;
    int64_t now_us = wb__relay_us(relay);

    if (p->worker && now_us >= p->ready_us) {
        p->ready = is_ready(relay);
        p->ready_us = now_us + READY_US;
    }
    if (l->log_us != 0 && now_us >= l->log_us) {
        wb__relay_wake(relay, WB__KINDS_STALE);
        l->log_us = l->log_ms > LOG_MS ? 0 : now_us + l->log_ms * 1000;
        l->log_ms *= 2;
    }
    p->stopped = is_stopped(relay);
    wb__slot_keep(p, now_us);
    if (p->worker && wb__listen_keep(relay, l->uv))
        wb__relay_wake(relay, WB__KINDS_STALE);
    if (relay->notified) {
        relay->notified = false;
        wb__relay_wake(relay, WB__WOKEN);
        l->log_us = now_us + 2 * WB__NOTIFY_US;
        l->log_ms = LOG_MS + 1; /* once */
    }
    relay->db_used = false;
    p->held = p->lost_us != 0 && wb__outcomes_left(relay) > 0;
    relay->limits.stopping = !wb__pass_is_on(p) || !p->ready ||
                             (p->end_us != 0 && now_us >= p->end_us) || p->held;
    if (p->drain->progress != NULL && now_us - p->progress_us >= PROGRESS_US) {
        p->progress_us = now_us;
        p->drain->progress(p->drain->ctx, &relay->report);
    }
}

static bool
is_over(const struct wb__pass *p)
{
    const struct wb_relay *relay = p->relay;

    if (!wb__relay_is_idle(relay))
        return p->left_us != 0 && wb__relay_us(relay) >= p->left_us;
    if (relay->limits.messages == 0)
        return true;
    if (p->worker)
        return p->stopped ||
               (p->end_us != 0 && wb__relay_us(relay) >= p->end_us);
    return relay->limits.stopping ||
           wb__claim_step(&relay->claims, true, false) == WB__CLAIM_NOTHING;
}

/* Sleep until something happens, or the deadline. Everything the loop has ready
 * is handled before the next cycle, so that one transaction commits it. */
static void
wait_until(struct wb__pass *p, int64_t deadline_us)
{
    struct wb_relay *relay = p->relay;
    struct wb__loop *l = relay->loop;
    bool poll = p->worker && relay->box->db->watch.wake == NULL;
    int64_t now_us = wb__relay_us(relay);
    int64_t longest_us = now_us + (poll ? POLL_US : LONGEST_US);
    int64_t at_us = deadline_us < longest_us ? deadline_us : longest_us, us;

    if (p->end_us > now_us && p->end_us < at_us)
        at_us = p->end_us;
    if (p->left_us > now_us && p->left_us < at_us)
        at_us = p->left_us;
    if (p->worker && p->slot < 0 && p->slot_us < at_us)
        at_us = p->slot_us;
    if (p->worker && !p->ready && p->ready_us < at_us)
        at_us = p->ready_us;
    if (p->worker && !relay->limits.stopping && l->log_us != 0 &&
        l->log_us < at_us)
        at_us = l->log_us;
    us = is_stopped(relay) && !p->stopped ? 0 : at_us - now_us;
    l->waiting = relay->n_in_flight;
    uv_update_time(l->uv);
    if (us > 0) {
        (void)uv_timer_start(&l->timer, on_timer, (uint64_t)us / 1000 + 1, 0);
        (void)uv_prepare_start(&l->prepare, on_prepare);
    }
    (void)uv_run(l->uv, us > 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    (void)uv_prepare_stop(&l->prepare);
    (void)uv_timer_stop(&l->timer);
    if (wb__relay_us(relay) >= longest_us)
        wb__relay_wake(relay, WB__KINDS_STALE); /* an event may be lost */
}

/* Wait before the database is tried again. Attempts that fail write the log,
 * too: such events end no wait, a stop does. Measured by the loop's clock. */
static void
wait_lost(struct wb__pass *p)
{
    struct wb_relay *relay = p->relay;
    uv_loop_t *uv = relay->loop->uv;
    int64_t us = p->wait_us, now_us = wb__relay_us(relay);
    uint64_t end_ms;

    if (p->left_us != 0 && p->left_us - now_us < us)
        us = p->left_us - now_us;
    uv_update_time(uv);
    end_ms = uv_now(uv) + (uint64_t)(us > 0 ? us : 0) / 1000;
    do
        wait_until(p, now_us + us);
    while (uv_now(uv) < end_ms && is_stopped(relay) == p->stopped);
}

/* The database or memory failed for good: what is in flight must end before
 * anything is freed. The outcomes are committed if they still can be; else the
 * leases run out. */
static void
give_up(struct wb__pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t deadline_us;

    relay->limits.stopping = true;
    wb__deliveries_drop_unsent(relay);
    while (relay->n_in_flight > 0 &&
           (p->left_us == 0 || wb__relay_us(relay) < p->left_us)) {
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
save_report(struct wb__pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t now_us = wb__relay_us(relay);

    if (!p->worker || relay->report.attempted == p->saved ||
        now_us - p->saved_us < SAVE_US)
        return;
    p->saved_us = now_us;
    p->saved = relay->report.attempted;
    relay->report.duration_ms = (now_us - p->start_us) / 1000;
    relay->report.why = WB_DRAIN_DONE;
    wb__report_save(relay);
}

static void
ended_event(const struct wb_relay *relay, uint64_t n)
{
    if (n > 0)
        wb__relay_event(relay,
            &(struct wb_relay_event){.type = WB_RELAY_ENDED, .count = n});
}

/* The end of a pass. What is still in flight has no time left: it stays claimed
 * until its lease ends. What is not sent is released. */
static void
leave(struct wb__pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t deadline_us;

    if (wb__relay_is_idle(relay))
        return;
    relay->limits.stopping = true;
    wb__deliveries_release_unsent(relay);
    for (int i = 0; i < 2 && wb__outcomes_left(relay) > 0; i++)
        (void)(wb__relay_cycle(relay, &deadline_us, NULL) == WB_OK);
    wb__outcomes_drop(relay);
}

static enum wb_status
run_pass(struct wb__pass *p, struct wb_err *err)
{
    struct wb_relay *relay = p->relay;
    struct wb__limits limits = relay->limits;
    int64_t now_ms = wb__outbox_now(relay->box), deadline_us;
    struct wb_err own = {0};
    enum wb_status rc;
    uint64_t ended;

    limits.due_by_ms = p->worker ? 0 : now_ms;
    limits.not_before_ms = p->worker ? 0 : wb__sat_add(now_ms, 1);
    wb__relay_begin(relay, &limits);
    while (true) {
        before_cycle(p);
        ended = relay->report.ended;
        rc = wb__relay_cycle(relay, &deadline_us, &own);
        if (rc != WB_OK && wb__database_lost(p, rc, &own)) {
            wait_lost(p);
            continue;
        }
        if (rc != WB_OK)
            break;
        ended_event(relay, relay->report.ended - ended);
        if (wb__routes_switch(relay))
            deadline_us = 0;
        if (!wb__database_found(p))
            continue;
        if (is_over(p)) {
            leave(p);
            return WB_OK;
        }
        save_report(p);
        /* The next cycle commits these while the other requests go on. With a
         * pass of the loop in between, more would end first, and the commit
         * would find nothing in flight beside it. */
        if (wb__outcomes_left(relay) == 0)
            wait_until(p, deadline_us);
    }
    if (err != NULL)
        *err = own;
    give_up(p);
    return rc;
}

/* ---- drain, run -------------------------------------------------------- */

/* False: no route fits. */
static bool
drain_begin(struct wb__pass *p, struct wb_relay *relay,
    const struct wb_drain *drain, struct wb_report *report)
{
    *p = (struct wb__pass){.relay = relay,
        .drain = drain,
        .ready = true,
        .slot = -1,
        .start_us = wb__relay_us(relay)};
    if (drain->for_ms > 0 && drain->for_ms <= INT64_MAX / 1000)
        p->end_us = wb__sat_add(p->start_us, drain->for_ms * 1000);
    wb__tally_clear(&relay->tally);
    relay->report = *report = (struct wb_report){.why = WB_DRAIN_EMPTY};
    relay->limits = (struct wb__limits){.kind = drain->kind,
        .messages = drain->max > 0 ? drain->max : UINT64_MAX,
        .requests = drain->concurrency};
    return wb__has_route(relay, drain->kind, false);
}

static enum wb_status
drain_end(struct wb__pass *p, enum wb_status rc, struct wb_report *report,
    struct wb_err *err)
{
    struct wb_relay *relay = p->relay;

    for (struct wb__delivery *d = relay->in_flight; d != NULL; d = d->next)
        relay->report.left += d->n;
    rc = wb__report_end(
        relay, (wb__relay_us(relay) - p->start_us) / 1000, rc, err);
    *report = relay->report;
    return rc;
}

enum wb_status
wb_relay_drain(struct wb_relay *relay, const struct wb_drain *drain,
    struct wb_report *report, struct wb_err *err)
{
    struct wb__db *db = relay->box->db;
    struct wb__pass p;
    bool routed = drain_begin(&p, relay, drain, report);
    enum wb_status rc;

    report->why = WB_DRAIN_NOT_READY;
    if (!routed || !wb__has_route(relay, drain->kind, true) || !is_ready(relay))
        return WB_OK;
    report->why = WB_DRAIN_BUSY;
    if (!wb__slot_take(&p))
        return WB_OK;
    relay->claims.none = WB_NONE_EMPTY;
    do {
        wb__db_drain_flag_set(db, false);
        rc = run_pass(&p, err);
        wb__slot_free(&p);
        db = relay->box->db; /* maybe opened again */
    } while (rc == WB_OK && !relay->limits.stopping &&
             relay->limits.messages > 0 && wb__db_drain_flag(db) &&
             wb__slot_try(&p));
    if (relay->claims.none == WB_NONE_BREAKER_OPEN)
        relay->report.why = WB_DRAIN_BREAKER_OPEN;
    return drain_end(&p, rc, report, err);
}

/* A drain that found the slot taken, just before the worker stopped, has left
 * its messages to this worker. */
static enum wb_status
run_last_pass(struct wb__pass *p, struct wb_err *err)
{
    struct wb_relay *relay = p->relay;
    int64_t end_us = wb__relay_us(relay) + LAST_US;

    if (relay->n_in_flight > 0 || !wb__db_drain_flag(relay->box->db) ||
        !wb__slot_try(p))
        return WB_OK;
    wb__db_drain_flag_set(relay->box->db, false);
    p->worker = false;
    p->last_pass = true;
    p->end_us = p->left_us > 0 && p->left_us < end_us ? p->left_us : end_us;
    return run_pass(p, err);
}

enum wb_status
wb_relay_run(struct wb_relay *relay, const struct wb_drain *drain,
    struct wb_report *report, struct wb_err *err)
{
    struct wb__watch w = relay->box->db->watch;
    struct wb__pass p;
    enum wb_status rc;

    if (!drain_begin(&p, relay, drain, report))
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "no route is configured; there is nothing to work on");
    if (!wb__slot_take(&p) && !drain->standby)
        return wb__fail(err, WB_BUSY, 0,
            "another worker or drain has this database; stop it, or give "
            "--standby or --concurrency");
    wb__relay_event(
        relay, &(struct wb_relay_event){
                   .type = p.slot >= 0 ? WB_RELAY_STARTED : WB_RELAY_STANDBY});
    if (w.wake != NULL)
        (void)uv_fs_event_start(&relay->loop->commit, on_commit, w.wake, 0);
    if (w.log != NULL)
        (void)uv_fs_event_start(&relay->loop->log, on_log, w.log, 0);
    p.worker = true;
    wb__report_save(relay);
    rc = run_pass(&p, err);
    (void)uv_fs_event_stop(&relay->loop->commit);
    (void)uv_fs_event_stop(&relay->loop->log);
    wb__slot_free(&p);
    if (rc == WB_OK && is_stopped(relay))
        rc = run_last_pass(&p, err);
    wb__slot_free(&p);
    return drain_end(&p, rc, report, err);
}
