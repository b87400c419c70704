/* pump.c - one turn of the relay: what ended is finished and what there is
 * room for is claimed, in one commit.
 *
 * (1) A worker claims no more than it can send at once, and extends claims at
 *     half their lease: what it holds never outlives its lease.
 * (2) In a pass only what was due at its start is claimed, and what is retried
 *     is due after its start: each message is attempted at most once. */
#include "outbox/box.h"
#include "relay/relay.h"

enum {
    AGAIN_US = 100000 /* after the database was busy */
};

/* ---- leases ------------------------------------------------------------ */

static int64_t
half_lease_us(const struct wb_relay *relay)
{
    return relay->opts.lease_ms * 500;
}

/* Extend the claims of one flight. One that was lost is told by its finish. */
static enum wb_status
extend(struct wb_relay *relay, struct wb__in_flight *flight, struct wb_err *err)
{
    struct wb_finish claims[64];

    WB_ASSERT(flight->n <= WB_COUNT(claims));
    for (size_t i = 0; i < flight->n; i++)
        claims[i] = (struct wb_finish){.id = flight->item[i].message->id,
            .token = flight->item[i].message->token,
            .seq = flight->item[i].message->seq};
    return wb_outbox_extend(
        relay->box, claims, flight->n, relay->opts.lease_ms, err);
}

static enum wb_status
extend_due(struct wb_relay *relay, int64_t *wait_us, struct wb_err *err)
{
    int64_t now_us = relay->env->mono_us(relay->env->ctx);
    enum wb_status rc = WB_OK;

    for (struct wb__in_flight *f = relay->requests; f != NULL; f = f->next) {
        if (f->extend_us <= now_us) {
            if (rc == WB_OK) /* BUSY for one is BUSY for all */
                rc = extend(relay, f, err);
            if (rc != WB_OK && rc != WB_BUSY)
                return rc;
            f->extend_us =
                now_us + (rc == WB_OK ? half_lease_us(relay) : AGAIN_US);
        }
        if (*wait_us == 0 || f->extend_us < *wait_us)
            *wait_us = f->extend_us;
    }
    return WB_OK;
}

/* ---- claim ------------------------------------------------------------- */

static uint32_t
batch_most(const struct wb_relay *relay)
{
    uint32_t most = 1;

    for (size_t i = 0; i < relay->n_live; i++)
        if (relay->live[i].route->batch > most)
            most = relay->live[i].route->batch;
    return most;
}

static uint32_t
claim_most(struct wb_relay *relay, int64_t *wait_us)
{
    uint64_t most = wb__slots_set(relay, wait_us), room;

    if (relay->stopping || relay->n_sources == 0 ||
        (!relay->look && wb__outcomes_left(relay) == 0))
        return 0;
    if (most > relay->left)
        most = relay->left;
    if (most > WB_CLAIM_MAX)
        most = WB_CLAIM_MAX;
    if (relay->most_in_flight == 0)
        return (uint32_t)most;
    room = relay->most_in_flight > relay->in_flight
               ? relay->most_in_flight - relay->in_flight
               : 0;
    room *= batch_most(relay);
    return (uint32_t)(most < room ? most : room);
}

static void
note_claim(struct wb_relay *relay, const struct wb_batch *batch, bool held_back)
{
    relay->report.ended += batch->ended;
    relay->next_due_ms = batch->next_due_ms;
    relay->none = batch->reason;
    relay->report.kinds_paused = batch->n_paused;
    relay->left -= batch->len;
    /* What a rate holds back was not asked for. */
    relay->look = batch->len > 0 || batch->ended > 0 || held_back;
}

struct commit {
    struct wb_relay *relay;
    const struct wb_claim *claim; /* or NULL */
    struct wb_batch *batch;
    struct wb_err *err;
    enum wb_status rc;
};

/* Touches nothing of the relay but told and the slots of its routes, so that
 * requests may go on meanwhile. */
static void
commit_run(void *arg)
{
    struct commit *c = arg;
    struct wb__outcomes *told = &c->relay->committing;

    if (told->n > 0)
        c->rc = wb_outbox_finish(
            c->relay->box, told->finish, told->n, c->claim, c->batch, c->err);
    else
        c->rc = wb_outbox_claim(c->relay->box, c->claim, c->batch, c->err);
}

static enum wb_status
turn_commit(struct wb_relay *relay, uint32_t most, bool held_back,
    struct wb_batch *batch, struct wb_err *err)
{
    struct wb_claim claim = {.sources = relay->source,
        .n_sources = relay->n_sources,
        .max = most,
        .lease_ms = relay->opts.lease_ms,
        .due_by_ms = relay->due_by_ms};
    struct commit c = {.relay = relay,
        .claim = most > 0 ? &claim : NULL,
        .batch = batch,
        .err = err};

    wb__outcomes_take(relay);
    if (relay->committing.n == 0 && most == 0)
        return WB_OK;
    if (relay->run_blocking != NULL)
        relay->run_blocking(relay, commit_run, &c);
    else
        commit_run(&c);
    if (c.rc != WB_OK && c.rc != WB_EMPTY)
        return c.rc;
    /* The next of a lane may be of a kind that did not wait before. */
    relay->kinds_stale |= relay->committing.lanes || batch->ended > 0;
    wb__outcomes_committed(relay);
    if (most > 0)
        note_claim(relay, batch, held_back);
    return WB_OK;
}

/* A worker that was woken claims at once, of the kinds it knows: there is a
 * message, so a look before is a waste, and which kinds wait now it reads in
 * the next turn, when the message is on its way. */
static enum wb_status
sources_ready(struct wb_relay *relay, struct wb_slice only, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (relay->woken)
        atomic_store(&relay->box->dry, false);
    if (relay->woken && relay->n_known > 0)
        relay->n_sources = relay->n_known;
    else if (relay->kinds_stale)
        rc = wb__sources_set(relay, only, err);
    relay->kinds_stale = relay->woken || rc != WB_OK;
    relay->woken = false;
    return rc;
}

enum wb_status
wb__relay_cycle(struct wb_relay *relay, struct wb_slice only, int64_t *wait_us,
    struct wb_err *err)
{
    struct wb__claimed_batch *load = wb__alloc(relay->env, sizeof(*load));
    enum wb_status rc;
    uint32_t most;

    if (load == NULL)
        return wb__nomem(err, "relay");
    load->refs = 1;
    rc = sources_ready(relay, only, err);
    if (rc == WB_OK) {
        most = claim_most(relay, wait_us);
        rc = turn_commit(relay, most, *wait_us != 0, &load->batch, err);
        relay->look |= relay->kinds_stale;
    }
    if (rc != WB_OK) {
        wb__free(relay->env, load);
        return rc;
    }
    rc = wb__in_flight_start(relay, load, err);
    return rc != WB_OK ? rc : extend_due(relay, wait_us, err);
}
