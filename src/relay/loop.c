/* drain.c - the loop around the pump: one bounded pass, or a worker.
 *
 * (1) One drain of a database at a time, or as many as it was told. One that
 *     finds no place leaves a flag; whoever holds a place looks again after it
 *     has given it up, so that no message is stranded.
 * (2) A worker sleeps until a due time, the end of a breaker or of half a
 *     lease, a commit of another process, or LONGEST_MS have gone by, whichever
 *     is first. A commit through this library says so. Other programs are
 *     noticed by their writing the log, before their commit is there to see:
 *     the worker looks again after 2 ms, 4 ms and so on, up to AGAIN_MS.
 * (3) Nothing returns while a request is in flight.
 * (4) While a commit is under way requests go on; what ends meanwhile is
 *     finished by the next turn. */
#include <stdatomic.h>
#include <uv.h>

#include "outbox/box.h"
#include "relay/relay.h"

enum {
    LONGEST_MS = 30000,
    AGAIN_MS = 1024,
    READY_US = 5000000,
    NOTE_US = 10000000
};

struct wb__loop {
    uv_loop_t own;
    uv_async_t stop;
    uv_timer_t timer;
    uv_prepare_t prepare;
    size_t waiting; /* in flight when the wait began */
    uv_fs_event_t wake, log;
    int64_t again_us; /* look again then; 0: no log was written lately */
    int64_t again_ms; /* and, if nothing came, after this long again */
    atomic_bool stopped;
    int open; /* handles not closed yet */
};

/* ---- handles ----------------------------------------------------------- */

/* To wake the loop is all that is asked of them. */
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

/* Between the loop's timers and its sleep. A request may have begun and ended
 * in a timer, libcurl's for one: then nothing else may ever come. */
static void
on_prepare(uv_prepare_t *handle)
{
    struct wb_relay *relay = handle->data;
    struct wb__loop *d = relay->driver;

    if (relay->in_flight < d->waiting)
        (void)uv_timer_start(&d->timer, on_timer, 0, 0);
}

static void
look_again(struct wb_relay *relay)
{
    relay->look = relay->kinds_stale = true;
}

static void
on_wake(uv_fs_event_t *handle, const char *name, int events, int status)
{
    struct wb_relay *relay = handle->data;

    (void)name;
    (void)events;
    (void)status;
    relay->woken |= !relay->kinds_stale; /* else they are to be read now */
    look_again(relay);
}

static void
on_log(uv_fs_event_t *handle, const char *name, int events, int status)
{
    struct wb_relay *relay = handle->data;
    struct wb__loop *d = relay->driver;

    (void)name;
    (void)events;
    (void)status;
    d->again_ms = 2;
    if (d->again_us == 0)
        d->again_us = relay->env->mono_us(relay->env->ctx) + 2000;
}

static void
on_close(uv_handle_t *handle)
{
    struct wb_relay *relay = handle->data;

    relay->driver->open--;
}

static void
handle_own(struct wb_relay *relay, uv_handle_t *handle)
{
    handle->data = relay;
    relay->driver->open++;
}

static enum wb_status
loop_open(struct wb_relay *relay, struct wb_err *err)
{
    struct wb__loop *d = wb__alloc(relay->env, sizeof(*d));

    if (d == NULL)
        return wb__nomem(err, "relay");
    relay->driver = d;
    if (relay->loop == NULL) {
        if (uv_loop_init(&d->own) != 0)
            return wb__fail(
                err, WB_UNAVAILABLE, 0, "relay: no event loop to be had");
        relay->loop = &d->own;
        relay->own_loop = true;
    }
    if (uv_async_init(relay->loop, &d->stop, on_stop) != 0)
        return wb__fail(err, WB_UNAVAILABLE, 0, "relay: no event to be had");
    handle_own(relay, (uv_handle_t *)&d->stop);
    (void)uv_timer_init(relay->loop, &d->timer);
    handle_own(relay, (uv_handle_t *)&d->timer);
    (void)uv_prepare_init(relay->loop, &d->prepare);
    handle_own(relay, (uv_handle_t *)&d->prepare);
    (void)uv_fs_event_init(relay->loop, &d->wake);
    handle_own(relay, (uv_handle_t *)&d->wake);
    (void)uv_fs_event_init(relay->loop, &d->log);
    handle_own(relay, (uv_handle_t *)&d->log);
    return WB_OK;
}

static void
loop_close(struct wb_relay *relay)
{
    struct wb__loop *d = relay->driver;

    if (d == NULL)
        return;
    if (d->open > 0) {
        uv_close((uv_handle_t *)&d->stop, on_close);
        uv_close((uv_handle_t *)&d->timer, on_close);
        uv_close((uv_handle_t *)&d->prepare, on_close);
        uv_close((uv_handle_t *)&d->wake, on_close);
        uv_close((uv_handle_t *)&d->log, on_close);
    }
    while (d->open > 0)
        (void)uv_run(relay->loop, UV_RUN_ONCE);
    if (relay->own_loop)
        WB_ASSERT(uv_loop_close(&d->own) == 0);
    wb__free(relay->env, d);
}

/* ---- commits ----------------------------------------------------------- */

struct aside {
    uv_work_t work;
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static void
on_aside(uv_work_t *work)
{
    struct aside *a = work->data;

    a->fn(a->arg);
}

static void
on_aside_done(uv_work_t *work, int status)
{
    struct aside *a = work->data;

    (void)status;
    a->done = true;
}

/* On a thread of libuv's, as long as requests are under way, which go on
 * meanwhile; else the way there and back would only take time. Whoever brings
 * an environment of his own has not said that threads may share it. */
static void
run_aside(struct wb_relay *relay, void (*fn)(void *arg), void *arg)
{
    struct aside a = {.fn = fn, .arg = arg};

    a.work.data = &a;
    if (relay->in_flight == 0 || relay->env != wb_env_system() ||
        relay->box->env != relay->env ||
        uv_queue_work(relay->loop, &a.work, on_aside, on_aside_done) != 0) {
        fn(arg);
        return;
    }
    while (!a.done)
        (void)uv_run(relay->loop, UV_RUN_ONCE);
}

/* ---- the relay --------------------------------------------------------- */

void
wb_relay_free(struct wb_relay *relay)
{
    if (relay == NULL)
        return;
    WB_ASSERT(relay->in_flight == 0);
    loop_close(relay);
    wb__relay_free(relay);
}

enum wb_status
wb_relay_new(struct wb_relay **out, struct wb_outbox *box,
    const struct wb_relay_opts *opts, struct wb_err *err)
{
    struct wb_relay *relay = NULL;
    enum wb_status rc = wb__relay_new(&relay, box, opts, err);

    if (rc != WB_OK)
        return rc;
    relay->run_blocking = run_aside;
    rc = loop_open(relay, err);
    if (rc == WB_OK)
        *out = relay;
    else
        wb_relay_free(relay);
    return rc;
}

void
wb_relay_stop(struct wb_relay *relay)
{
    atomic_store(&relay->driver->stopped, true);
    (void)uv_async_send(&relay->driver->stop);
}

/* ---- one pass ---------------------------------------------------------- */

struct pass {
    struct wb_relay *relay;
    const struct wb_drain *drain;
    bool worker;
    int64_t start_us, end_us; /* end_us: claim no more after it; 0: never */
    int64_t shown_us, ready_us, noted_us;
    uint64_t noted; /* attempts when the note was last left */
    bool ready;
};

static int64_t
mono_us(const struct wb_relay *relay)
{
    return relay->env->mono_us(relay->env->ctx);
}

static bool
is_stopped(const struct wb_relay *relay)
{
    return atomic_load(&relay->driver->stopped);
}

static bool
is_ready(struct wb_relay *relay)
{
    return relay->opts.ready == NULL ||
           relay->opts.ready(relay->opts.ctx, NULL);
}

static void
pass_begin(struct pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t now_ms = wb__box_now(relay->box);

    relay->due_by_ms = p->worker ? 0 : now_ms;
    relay->not_before_ms = p->worker ? 0 : wb__sat_add(now_ms, 1);
    relay->most_in_flight = p->drain->concurrency;
    look_again(relay);
    relay->woken = false;
    relay->n_known = 0;
    relay->next_due_ms = 0;
}

/* The log was written a while ago: its commit may be there now. */
static void
pass_again(struct wb_relay *relay, int64_t now_us)
{
    struct wb__loop *d = relay->driver;

    if (d->again_us == 0 || now_us < d->again_us)
        return;
    look_again(relay);
    d->again_us = d->again_ms > AGAIN_MS ? 0 : now_us + d->again_ms * 1000;
    d->again_ms *= 2;
}

/* Decide, before a turn, whether it may claim. */
static void
pass_look(struct pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t now_us = mono_us(relay);

    if (p->worker && now_us >= p->ready_us) {
        p->ready = is_ready(relay);
        p->ready_us = now_us + READY_US;
        relay->look = true;
    }
    pass_again(relay, now_us);
    if (relay->next_due_ms != 0 &&
        wb__box_now(relay->box) >= relay->next_due_ms)
        relay->look = true;
    relay->stopping = is_stopped(relay) || !p->ready ||
                      (p->end_us != 0 && now_us >= p->end_us);
    if (p->drain->progress != NULL && now_us - p->shown_us >= 100000) {
        p->shown_us = now_us;
        p->drain->progress(p->drain->ctx, &relay->report);
    }
}

static bool
pass_over(const struct pass *p, int64_t wait_us)
{
    const struct wb_relay *relay = p->relay;

    if (relay->in_flight > 0 || wb__outcomes_left(relay) > 0)
        return false;
    if (p->worker)
        return is_stopped(relay) || relay->left == 0 ||
               (p->end_us != 0 && mono_us(relay) >= p->end_us);
    return relay->stopping || relay->left == 0 || relay->n_sources == 0 ||
           (!relay->look && wait_us == 0);
}

static void
sooner(int64_t *ms, int64_t at_us, int64_t now_us)
{
    if (at_us != 0 && (at_us - now_us) / 1000 + 1 < *ms)
        *ms = (at_us - now_us) / 1000 + 1;
}

/* How long the loop may sleep at most. */
static int64_t
sleep_ms(const struct pass *p, int64_t wait_us)
{
    const struct wb_relay *relay = p->relay;
    int64_t now_us = mono_us(relay), ms = LONGEST_MS, until_ms;

    sooner(&ms, wait_us, now_us);
    if (p->end_us > now_us)
        sooner(&ms, p->end_us, now_us);
    if (p->worker && !p->ready)
        sooner(&ms, p->ready_us, now_us);
    if (p->worker && !relay->stopping)
        sooner(&ms, relay->driver->again_us, now_us);
    until_ms = relay->next_due_ms - wb__box_now(relay->box);
    if (p->worker && relay->next_due_ms != 0 && !relay->stopping &&
        until_ms < ms)
        ms = until_ms;
    return ms > 0 && !relay->kinds_stale ? ms : 1;
}

/* Sleep until something happens. What the loop has ready is all handled before
 * the next turn, so that it is finished in one commit. */
static void
pass_wait(struct pass *p, int64_t wait_us)
{
    struct wb_relay *relay = p->relay;
    struct wb__loop *d = relay->driver;
    int64_t ms = sleep_ms(p, wait_us);

    d->waiting = relay->in_flight;
    uv_update_time(relay->loop);
    (void)uv_timer_start(&d->timer, on_timer, (uint64_t)ms, 0);
    (void)uv_prepare_start(&d->prepare, on_prepare);
    (void)uv_run(relay->loop, UV_RUN_ONCE);
    (void)uv_prepare_stop(&d->prepare);
    (void)uv_timer_stop(&d->timer);
    if (ms == LONGEST_MS && wb__outcomes_left(relay) == 0)
        look_again(relay); /* in case a wake was lost */
}

/* The database or memory failed: what is in flight must end before anything is
 * freed. How it ended is told if it still can be; else the leases run out. */
static void
pass_abort(struct pass *p)
{
    int64_t wait_us;

    p->relay->stopping = true;
    while (p->relay->in_flight > 0)
        pass_wait(p, 0);
    while (wb__outcomes_left(p->relay) > 0 &&
           wb__relay_cycle(p->relay, p->drain->kind, &wait_us, NULL) == WB_OK)
        ;
    wb__outcomes_drop(p->relay);
}

/* A worker that is killed has told what it did all the same. */
static void
pass_note(struct pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t now_us = mono_us(relay);

    if (!p->worker || relay->report.attempted == p->noted ||
        now_us - p->noted_us < NOTE_US)
        return;
    p->noted_us = now_us;
    p->noted = relay->report.attempted;
    relay->report.duration_ms = (now_us - p->start_us) / 1000;
    relay->report.why = WB_DRAIN_DONE;
    wb__report_note(relay);
}

/* Would another turn find nothing to do? */
static bool
must_wait(const struct wb_relay *relay, int64_t wait_us)
{
    return wb__outcomes_left(relay) == 0 &&
           (relay->in_flight > 0 || !relay->look || wait_us != 0 ||
               relay->stopping || relay->n_sources == 0);
}

static enum wb_status
pass_run(struct pass *p, struct wb_err *err)
{
    int64_t wait_us = 0;
    enum wb_status rc;

    pass_begin(p);
    while (true) {
        pass_look(p);
        rc = wb__relay_cycle(p->relay, p->drain->kind, &wait_us, err);
        if (rc == WB_BUSY && p->worker) {
            pass_wait(p, mono_us(p->relay) + 100000); /* nothing changed */
            continue;
        }
        if (rc != WB_OK)
            break;
        if (pass_over(p, wait_us))
            return WB_OK;
        pass_note(p);
        if (must_wait(p->relay, wait_us))
            pass_wait(p, wait_us);
    }
    pass_abort(p);
    return rc;
}

/* ---- drain, run -------------------------------------------------------- */

static int
take_drain_slot(struct wb_relay *relay, uint32_t places)
{
    int n = places < 1                 ? 1
            : places > WB__DRAIN_SLOTS ? WB__DRAIN_SLOTS
                                       : (int)places;

    for (int turn = 0; turn < 2; turn++) {
        for (int slot = 0; slot < n; slot++)
            if (wb__db_drain_try(relay->box->db, slot))
                return slot;
        /* Whoever held it may have looked at the flag before it was set. */
        wb__db_drain_flag_set(relay->box->db, true);
    }
    return -1;
}

static void
report_begin(struct wb_relay *relay, const struct wb_drain *drain)
{
    relay->report = (struct wb_report){.why = WB_DRAIN_EMPTY};
    wb__tally_clear(&relay->tally);
    relay->left = drain->max > 0 ? drain->max : UINT64_MAX;
}

static bool
has_route(struct wb_relay *relay, struct wb_slice only)
{
    return only.len > 0 ? wb__route_state_of(relay, only) != NULL
                        : relay->n_live > 0;
}

static struct pass
pass_of(struct wb_relay *relay, const struct wb_drain *drain, bool worker)
{
    struct pass p = {.relay = relay, .drain = drain, .worker = worker};

    p.ready = true;
    p.start_us = mono_us(relay);
    if (drain->for_ms > 0 && drain->for_ms <= INT64_MAX / 1000)
        p.end_us = wb__sat_add(p.start_us, drain->for_ms * 1000);
    return p;
}

static enum wb_status
drain_passes(struct pass *p, int slot, struct wb_err *err)
{
    struct wb_relay *relay = p->relay;
    struct wb__db *db = relay->box->db;
    enum wb_status rc;

    do {
        wb__db_drain_flag_set(db, false);
        rc = pass_run(p, err);
        wb__db_drain_free(db, slot);
    } while (rc == WB_OK && !relay->stopping && relay->left > 0 &&
             wb__db_drain_flag(db) && wb__db_drain_try(db, slot));
    if (relay->none == WB_NONE_BREAKER_OPEN)
        relay->report.why = WB_DRAIN_BREAKER_OPEN;
    return rc;
}

enum wb_status
wb_relay_drain(struct wb_relay *relay, const struct wb_drain *drain,
    struct wb_report *report, struct wb_err *err)
{
    struct pass p = pass_of(relay, drain, false);
    enum wb_status rc;
    int slot;

    report_begin(relay, drain);
    *report = relay->report;
    report->why = WB_DRAIN_NOT_READY;
    if (!has_route(relay, drain->kind) || !is_ready(relay))
        return WB_OK;
    slot = take_drain_slot(relay, drain->concurrency);
    report->why = WB_DRAIN_BUSY;
    if (slot < 0)
        return WB_OK;
    relay->none = WB_NONE_EMPTY;
    rc = drain_passes(&p, slot, err);
    if (rc == WB_OK)
        rc = wb__report_end(relay, (mono_us(relay) - p.start_us) / 1000, err);
    *report = relay->report;
    return rc;
}

/* What cannot be watched is looked at every LONGEST_MS. */
static void
watch(struct wb_relay *relay)
{
    struct wb__watch w = wb__db_watch(relay->box->db);

    if (w.wake != NULL)
        (void)uv_fs_event_start(&relay->driver->wake, on_wake, w.wake, 0);
    if (w.log != NULL)
        (void)uv_fs_event_start(&relay->driver->log, on_log, w.log, 0);
}

enum wb_status
wb_relay_run(struct wb_relay *relay, const struct wb_drain *drain,
    struct wb_report *report, struct wb_err *err)
{
    struct pass p = pass_of(relay, drain, true);
    enum wb_status rc, end_rc;
    int slot;

    report_begin(relay, drain);
    *report = relay->report;
    if (!has_route(relay, drain->kind))
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "no route is configured; there is nothing to work on");
    slot = take_drain_slot(relay, drain->concurrency);
    if (slot < 0)
        return wb__fail(err, WB_BUSY, 0,
            "another worker or drain has this database; stop it, or give "
            "--concurrency");
    watch(relay);
    rc = pass_run(&p, err);
    (void)uv_fs_event_stop(&relay->driver->wake);
    (void)uv_fs_event_stop(&relay->driver->log);
    wb__db_drain_free(relay->box->db, slot);
    end_rc = wb__report_end(
        relay, (mono_us(relay) - p.start_us) / 1000, rc == WB_OK ? err : NULL);
    *report = relay->report;
    return rc != WB_OK ? rc : end_rc;
}
