/* cycle.c - one cycle of the relay: commit the outcomes of the requests that
 * have ended, claim messages in the same transaction, and send them.
 *
 * (1) A worker claims no more than it can send at once, and extends leases when
 *     half of them is over: none ends while its request is in flight.
 * (2) In a pass only what was due at its start is claimed, and a retry is due
 *     after its start: each message is attempted at most once.
 * (3) What blocks (the transaction, and extending leases) goes through
 *     run_blocking(): requests go on meanwhile, and what ends is committed by
 *     the next cycle. */
#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    LEASE_MS = 60000,
    BUSY_US = 100000 /* repeat after this, if the database was busy */
};

/* ---- the relay --------------------------------------------------------- */

static void
run_here(struct wb_relay *relay, void (*fn)(void *arg), void *arg)
{
    (void)relay;
    fn(arg);
}

int64_t
wb__relay_lease_ms(const struct wb_relay_opts *opts)
{
    int64_t lease_ms = LEASE_MS;

    if (opts->lease_ms > 0)
        return opts->lease_ms;
    for (size_t i = 0; i < opts->n_routes; i++)
        if (opts->routes[i].timeout_ms > lease_ms / 2)
            lease_ms = opts->routes[i].timeout_ms * 2;
    return lease_ms;
}

enum wb_status
wb__relay_new(struct wb_relay **out, struct wb_outbox *box,
    const struct wb_relay_opts *opts, struct wb_err *err)
{
    const struct wb_env *env = opts->env == NULL ? wb_env_system() : opts->env;
    struct wb_relay *relay = wb__alloc(env, sizeof(*relay));
    enum wb_status rc;

    if (relay == NULL)
        return wb__nomem(err, "relay");
    relay->env = env;
    relay->box = box;
    relay->opts = *opts;
    relay->opts.lease_ms = wb__relay_lease_ms(opts);
    relay->run_blocking = run_here;
    relay->claims.names.env = relay->tally.names.env = env;
    relay->hold_names.env = env;
    relay->pending.errors.env = relay->committing.errors.env = env;
    rc = wb__routes_set(relay, err);
    if (rc == WB_OK)
        *out = relay;
    else
        wb__relay_free(relay);
    return rc;
}

void
wb__relay_free(struct wb_relay *relay)
{
    while (relay->in_flight != NULL)
        wb__delivery_free(relay->in_flight);
    wb__arena_clear(&relay->claims.names);
    wb__arena_clear(&relay->hold_names);
    wb__free(relay->env, relay->holds);
    wb__outcomes_drop(relay);
    wb__tally_clear(&relay->tally);
    wb__free(relay->env, relay->next.route);
    wb__free(relay->env, relay->former.route);
    wb__free(relay->env, relay->route);
    wb__free(relay->env, relay->claims.source);
    wb__free(relay->env, relay->pending.finish);
    wb__free(relay->env, relay->committing.finish);
    wb__free(relay->env, relay->pending.note);
    wb__free(relay->env, relay->committing.note);
    wb__free(relay->env, relay);
}

void
wb__relay_begin(struct wb_relay *relay, const struct wb__limits *limits)
{
    relay->limits = *limits;
    relay->claims.wake = WB__KINDS_STALE;
    relay->claims.n = 0;
    relay->claims.next_due_ms = 0;
}

/* ---- when the relay claims --------------------------------------------- */

/* A woken worker claims the kinds it knows before it reads them again. Where
 * they are to be read in any case, that is done first: the message may be of a
 * new kind. */
void
wb__relay_wake(struct wb_relay *relay, enum wb__wake wake)
{
    struct wb__claims *c = &relay->claims;

    if (wake > c->wake && c->wake != WB__KINDS_STALE)
        c->wake = wake;
}

/* A cycle claims only if it may: the pass goes on and has messages left, a
 * request may start (neither the routes nor the pass are at their concurrency),
 * and a kind that has a route had messages when the kinds were last read. If
 * so, the wake state decides:
 *
 *     IDLE         The last claim found nothing. The cycle claims only if it
 *                  commits outcomes: in the same transaction it costs little.
 *     RECHECK      A message of a known kind may have become due: the last
 *                  claim took some, a due time has come, or a rate held a route
 *                  back. The cycle claims.
 *     KINDS_STALE  There may be a message of a kind that had none: a pass
 *                  began, the next message of a lane came up, or another
 *                  program wrote. The cycle reads the kinds, then claims.
 *     WOKEN        A process has committed a message. The cycle claims the
 *                  known kinds at once; the next one reads the kinds.
 *
 * After a claim the state is IDLE if it took nothing, else RECHECK. A cycle
 * that may not claim leaves the state as it is. */
enum wb__claim_step
wb__claim_step(const struct wb__claims *claims, bool may_claim, bool commits)
{
    if (!may_claim)
        return WB__CLAIM_NOTHING;
    if (claims->wake == WB__KINDS_STALE ||
        (claims->wake == WB__WOKEN && claims->n == 0))
        return WB__READ_KINDS;
    if (claims->wake == WB__WOKEN)
        return WB__CLAIM_NOW;
    return claims->has_waiting_kinds && (claims->wake == WB__RECHECK || commits)
               ? WB__CLAIM_NOW
               : WB__CLAIM_NOTHING;
}

/* A route that its rate holds back is no reason not to read the kinds. */
static bool
may_claim(const struct wb_relay *relay, uint32_t requests, int64_t rate_us)
{
    return !relay->limits.stopping && relay->limits.messages > 0 &&
           (requests > 0 || rate_us != 0);
}

/* Decide what this cycle claims: *max messages, maybe 0. Consumes the wake
 * state. *rate_us: as wb__requests_free(). */
static enum wb_status
claim_prepare(
    struct wb_relay *relay, uint32_t *max, int64_t *rate_us, struct wb_err *err)
{
    struct wb__claims *c = &relay->claims;
    uint32_t requests = wb__requests_free(relay, rate_us);
    enum wb__claim_step step;
    enum wb_status rc;

    *max = 0;
    if (c->next_due_ms != 0 && wb__outbox_now(relay->box) >= c->next_due_ms) {
        c->next_due_ms = 0;
        wb__relay_wake(relay, WB__RECHECK);
    }
    step = wb__claim_step(
        c, may_claim(relay, requests, *rate_us), wb__outcomes_left(relay) > 0);
    if (step == WB__READ_KINDS) {
        rc = wb__sources_read(relay, err);
        if (rc != WB_OK)
            return rc;
        relay->db_used = true;
        c->wake = WB__RECHECK;
    } else if (step == WB__CLAIM_NOW && c->wake == WB__WOKEN) {
        /* There is a message: a query before the claim would be a waste. */
        atomic_store(&relay->box->last_claim_empty, false);
        c->has_waiting_kinds = true;
        c->wake = WB__KINDS_STALE;
    }
    if (step == WB__CLAIM_NOTHING || !c->has_waiting_kinds)
        return WB_OK;
    *max = wb__slots_set(relay, requests);
    if (*max > 0 && c->wake != WB__KINDS_STALE)
        c->wake = WB__IDLE;
    return WB_OK;
}

/* ---- commit ------------------------------------------------------------ */

struct commit {
    struct wb_relay *relay;
    const struct wb_claim *claim; /* or NULL */
    struct wb_batch *batch;
    struct wb_err *err;
    enum wb_status rc;
};

/* On another thread: it may use only relay->committing and the routes' slots.
 */
static void
commit_run(void *arg)
{
    struct commit *c = arg;
    struct wb__outcomes *o = &c->relay->committing;

    for (const struct wb__gone *g = o->gone; g != NULL; g = g->next)
        (void)(wb_outbox_pause(c->relay->box, g->kind, true, NULL) == WB_OK);
    if (o->n > 0)
        c->rc = wb_outbox_finish(
            c->relay->box, o->finish, o->n, c->claim, c->batch, c->err);
    else
        c->rc = wb_outbox_claim(c->relay->box, c->claim, c->batch, c->err);
}

static enum wb_status
commit(struct wb_relay *relay, uint32_t max, bool held_back,
    struct wb_batch *batch, struct wb_err *err)
{
    struct wb_claim claim = {.sources = relay->claims.source,
        .n_sources = relay->claims.n,
        .max = max,
        .lease_ms = relay->opts.lease_ms,
        .due_by_ms = relay->limits.due_by_ms,
        .holds = relay->holds,
        .n_holds = relay->n_holds,
        .no_stale = relay->n_stale > 0};
    int64_t rate_us;
    struct commit c = {.relay = relay,
        .claim = max > 0 ? &claim : NULL,
        .batch = batch,
        .err = err};
    int64_t begin_us;

    wb__outcomes_take(relay);
    if (relay->committing.n == 0 && max == 0)
        return WB_OK;
    begin_us = wb__relay_us(relay);
    relay->run_blocking(relay, commit_run, &c);
    if (c.rc != WB_OK && c.rc != WB_EMPTY) {
        wb__relay_wake(relay, WB__RECHECK);
        return c.rc;
    }
    relay->db_used = true;
    if (relay->committing.n + batch->len > 0)
        wb__relay_event(
            relay, &(struct wb_relay_event){.type = WB_RELAY_COMMITTED,
                       .count = relay->committing.n + batch->len,
                       .duration_ms = (wb__relay_us(relay) - begin_us) / 1000});
    WB_ASSERT(batch->len <= max && batch->len <= relay->limits.messages);
    /* The next message of a lane may be of a kind that had none before. */
    if (relay->committing.lanes || batch->ended > 0)
        wb__relay_wake(relay, WB__KINDS_STALE);
    wb__outcomes_committed(relay);
    if (max == 0)
        return WB_OK;
    relay->report.ended += batch->ended;
    if (batch->deferred > 0 && relay->n_holds > 0)
        relay->deferred_until_ms =
            relay->holds[0].until_ms + (int64_t)batch->deferred;
    relay->report.kinds_paused = batch->n_paused;
    relay->limits.messages -= batch->len;
    relay->claims.next_due_ms = batch->next_due_ms;
    /* A message that is deferred is not due any more for the next claim. */
    if (batch->reason != WB_NONE_EMPTY)
        relay->claims.none = batch->reason;
    /* The claim had no messages of a route that its rate held back. */
    (void)wb__requests_free(relay, &rate_us);
    held_back = held_back || rate_us != 0;
    if (batch->len > 0 || batch->deferred > 0 || held_back)
        wb__relay_wake(relay, WB__RECHECK);
    return WB_OK;
}

/* ---- leases ------------------------------------------------------------ */

struct extension {
    struct wb_relay *relay;
    struct wb_finish *claims;
    size_t n;
    struct wb_err *err;
    enum wb_status rc;
};

static void
extend_run(void *arg)
{
    struct extension *x = arg;

    x->rc = wb_outbox_extend(
        x->relay->box, x->claims, x->n, x->relay->opts.lease_ms, x->err);
}

/* Extend the leases that are half over, all in one transaction. A claim that
 * was lost is noticed when its outcome is committed. */
static enum wb_status
extend_due(struct wb_relay *relay, struct wb_err *err)
{
    int64_t now_us = wb__relay_us(relay);
    int64_t next_us = now_us + relay->opts.lease_ms * 500, again_us;
    struct extension x = {.relay = relay, .err = err};
    struct wb__outcomes *kept[] = {&relay->committing, &relay->pending};
    struct wb__delivery *d;

    for (d = relay->in_flight; d != NULL; d = d->next)
        x.n += d->extend_us <= now_us ? d->n : 0;
    for (size_t i = 0; i < WB_COUNT(kept); i++)
        x.n += kept[i]->extend_us <= now_us ? kept[i]->n : 0;
    if (x.n == 0)
        return WB_OK;
    x.claims = wb__alloc(relay->env, x.n * sizeof(*x.claims));
    if (x.claims == NULL)
        return wb__nomem(err, "relay");
    x.n = 0;
    for (d = relay->in_flight; d != NULL; d = d->next) {
        if (d->extend_us > now_us)
            continue;
        d->extend_us = next_us;
        for (size_t i = 0; i < d->n; i++)
            x.claims[x.n++] = (struct wb_finish){.id = d->item[i].message->id,
                .token = d->item[i].message->token,
                .seq = d->item[i].message->seq};
    }
    for (size_t i = 0; i < WB_COUNT(kept); i++) {
        if (kept[i]->n == 0 || kept[i]->extend_us > now_us)
            continue;
        kept[i]->extend_us = next_us;
        for (size_t j = 0; j < kept[i]->n; j++)
            x.claims[x.n++] = (struct wb_finish){.id = kept[i]->finish[j].id,
                .token = kept[i]->finish[j].token,
                .seq = kept[i]->finish[j].seq};
    }
    relay->run_blocking(relay, extend_run, &x);
    wb__free(relay->env, x.claims);
    relay->db_used = relay->db_used || x.rc == WB_OK;
    if (x.rc == WB_OK)
        return WB_OK;
    again_us = wb__relay_us(relay) + BUSY_US;
    for (d = relay->in_flight; d != NULL; d = d->next)
        if (d->extend_us == next_us)
            d->extend_us = again_us;
    for (size_t i = 0; i < WB_COUNT(kept); i++)
        if (kept[i]->extend_us == next_us)
            kept[i]->extend_us = again_us;
    return x.rc == WB_BUSY ? WB_OK : x.rc;
}

/* ---- the cycle --------------------------------------------------------- */

/* When the next cycle has something to do, even if nothing happens before.
 * held_back: a rate held a route back from the claim. */
static int64_t
next_deadline_us(struct wb_relay *relay, bool held_back)
{
    const struct wb__claims *c = &relay->claims;
    int64_t now_us = wb__relay_us(relay), rate_us;
    int64_t at_us = INT64_MAX, due_ms;
    uint32_t requests = wb__requests_free(relay, &rate_us);
    bool may = may_claim(relay, requests, rate_us);
    enum wb__claim_step step = wb__claim_step(c, may, false);

    if (wb__outcomes_left(relay) > 0 || step == WB__READ_KINDS)
        return now_us;
    /* While requests are in flight, the commit of the next outcome claims. */
    if (step == WB__CLAIM_NOW && rate_us != 0)
        at_us = rate_us;
    else if (step == WB__CLAIM_NOW &&
             (c->wake == WB__WOKEN || relay->in_flight == NULL || held_back))
        return now_us;
    if (may && c->next_due_ms != 0 && relay->limits.due_by_ms == 0) {
        due_ms = c->next_due_ms - wb__outbox_now(relay->box);
        if (due_ms < (at_us - now_us) / 1000)
            at_us = now_us + due_ms * 1000;
    }
    for (struct wb__delivery *d = relay->in_flight; d != NULL; d = d->next)
        at_us = d->extend_us < at_us ? d->extend_us : at_us;
    rate_us = wb__scopes_deadline_us(relay);
    return rate_us < at_us ? rate_us : at_us;
}

enum wb_status
wb__relay_cycle(
    struct wb_relay *relay, int64_t *deadline_us, struct wb_err *err)
{
    struct wb__claimed_batch *claimed = wb__alloc(relay->env, sizeof(*claimed));
    int64_t rate_us = 0;
    enum wb_status rc;
    uint32_t max;

    if (claimed == NULL)
        return wb__nomem(err, "relay");
    claimed->refs = 1;
    wb__deliveries_resume(relay);
    rc = wb__scopes_check(relay);
    wb__deliveries_put_back(relay);
    if (rc == WB_OK)
        rc = claim_prepare(relay, &max, &rate_us, err);
    if (rc == WB_OK)
        rc = commit(relay, max, rate_us != 0, &claimed->batch, err);
    if (rc != WB_OK) {
        wb__free(relay->env, claimed);
        /* A lease may be extended where an outcome cannot be committed. */
        (void)(extend_due(relay, NULL) == WB_OK);
        return rc;
    }
    rc = wb__deliveries_start(relay, claimed, err);
    if (rc == WB_OK)
        rc = extend_due(relay, err);
    *deadline_us = next_deadline_us(relay, rate_us != 0);
    return rc;
}
