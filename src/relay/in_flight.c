/* in_flight.c - from a claimed message to a request, and from its result to an
 * outcome, which the next cycle commits.
 *
 * (1) Every message of a claim gets exactly one outcome: by its result, or at
 *     once where no request could be built for it.
 * (2) The rows of a claim are kept until the last of its requests has ended. */
#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    TIMEOUT_MS = 30000,
    REST_MS = 1000, /* before a message that was released is claimed again */
    ERROR_BYTES = 16384 /* more of an error than is ever kept */
};

static void
claimed_release(struct wb_relay *relay, struct wb__claimed_batch *claimed)
{
    WB_ASSERT(claimed->refs > 0);
    if (--claimed->refs > 0)
        return;
    wb_batch_free(&claimed->batch);
    wb__free(relay->env, claimed);
}

static void
item_release(const struct wb_route *route, struct wb__item *item)
{
    if (item->token != NULL && route->release != NULL)
        route->release(route->ctx, item->token);
    item->token = NULL;
}

void
wb__delivery_free(struct wb__delivery *d)
{
    struct wb_relay *relay = d->relay;

    if (d->link != NULL) {
        *d->link = d->next;
        if (d->next != NULL)
            d->next->link = d->link;
        WB_ASSERT(d->state->in_flight > 0 && relay->n_in_flight > 0);
        d->state->in_flight--;
        d->state->n_sent -= d->sent;
        relay->n_in_flight--;
        relay->n_sent -= d->sent;
    }
    for (size_t i = 0; i < d->n; i++)
        item_release(d->state->route, &d->item[i]);
    wb__buf_fini(&d->body);
    wb__buf_fini(&d->ids);
    claimed_release(relay, d->claimed);
    wb__free(relay->env, d->item);
    wb__free(relay->env, d);
}

static struct wb__delivery *
delivery_new(struct wb_relay *relay, struct wb__route_state *state,
    struct wb__claimed_batch *claimed, size_t cap)
{
    struct wb__delivery *d = wb__alloc(relay->env, sizeof(*d));
    struct wb__item *item = wb__alloc(relay->env, cap * sizeof(*item));

    if (d == NULL || item == NULL) {
        wb__free(relay->env, item);
        wb__free(relay->env, d);
        return NULL;
    }
    *d = (struct wb__delivery){.relay = relay,
        .state = state,
        .claimed = claimed,
        .item = item,
        .body = {.env = relay->env, .max = SIZE_MAX / 4}};
    d->ids = d->body;
    claimed->refs++;
    return d;
}

/* ---- outcomes ---------------------------------------------------------- */

static int64_t
mono_us(const struct wb_relay *relay)
{
    return relay->env->mono_us(relay->env->ctx);
}

void
wb__relay_event(
    const struct wb_relay *relay, const struct wb_relay_event *event)
{
    if (relay->opts.on_event != NULL)
        relay->opts.on_event(relay->opts.event_ctx, event);
}

/* Keep what the event will say: the route may be gone by then. */
static bool
attempt_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    struct wb__outcomes *o = &relay->pending;
    struct wb__attempt_note *note;

    if (relay->opts.on_event == NULL)
        return true;
    if (!wb__array_grow(
            relay->env, &o->note, o->n, &o->note_cap, sizeof(*o->note)))
        return false;
    note = &o->note[o->n];
    *note = (struct wb__attempt_note){.status = result->status};
    if (relay->sent_us != 0)
        note->duration_ms = (mono_us(relay) - relay->sent_us) / 1000;
    return wb__arena_dup(&o->errors, message->kind, &note->kind) &&
           wb__arena_dup(&o->errors, wb__route_scope(route), &note->scope);
}

enum wb_status
wb__outcome_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    struct wb_slice error = result->error;
    struct wb__outcomes *o = &relay->pending;
    struct wb_finish *f;

    if (!wb__array_grow(
            relay->env, &o->finish, o->n, &o->cap, sizeof(*o->finish)))
        return WB_NOMEM;
    if (!attempt_note(relay, route, message, result))
        return WB_NOMEM;
    if (o->n == 0)
        o->extend_us = mono_us(relay) + relay->opts.lease_ms * 250;
    f = &o->finish[o->n];
    *f = (struct wb_finish){.id = message->id,
        .token = message->token,
        .seq = message->seq,
        .end = result->outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL,
        .forget = true,
        .attempts = message->attempts,
        .outcome = result->outcome,
        .retry_after_ms = result->retry_after_ms,
        .not_before_ms = relay->limits.not_before_ms,
        .retry = route->retry,
        .breaker = route->breaker};
    if (result->no_resource && result->outcome == WB_RETRY) {
        int64_t now_ms = wb__outbox_now(relay->box);

        f->end = WB_RELEASE;
        f->not_before_ms = wb__sat_add(now_ms, REST_MS);
    }
    if (error.len > ERROR_BYTES)
        error.len = ERROR_BYTES;
    if (!wb__arena_dup(&o->errors, error, &f->error))
        return WB_NOMEM;
    o->n++;
    o->lanes |= message->lane.len > 0;
    return WB_OK;
}

size_t
wb__outcomes_left(const struct wb_relay *relay)
{
    return relay->pending.n + relay->committing.n;
}

void
wb__outcomes_take(struct wb_relay *relay)
{
    struct wb__outcomes empty = relay->committing;

    if (empty.n > 0)
        return;
    relay->committing = relay->pending;
    relay->pending = empty;
}

static void
outcomes_clear(struct wb__outcomes *o)
{
    o->n = 0;
    o->gone = NULL;
    o->lanes = false;
    wb__arena_clear(&o->errors);
}

static void
attempt_event(const struct wb_relay *relay, size_t i)
{
    const struct wb_finish *f = &relay->committing.finish[i];
    const struct wb__attempt_note *note = &relay->committing.note[i];
    struct wb_relay_event event = {.type = WB_RELAY_ATTEMPT,
        .id = f->id,
        .kind = note->kind,
        .error = f->end == WB_CONFIRM ? (struct wb_slice){0} : f->error,
        .attempt = f->attempts,
        .outcome = f->outcome,
        .state = f->state,
        .status = note->status,
        .duration_ms = note->duration_ms};

    if (f->status == WB_FENCED)
        event.type = WB_RELAY_LEASE_LOST;
    if (f->end != WB_RELEASE)
        wb__relay_event(relay, &event);
    if (f->breaker_change != WB_BREAKER_SAME)
        wb__relay_event(
            relay, &(struct wb_relay_event){
                       .type = f->breaker_change == WB_BREAKER_OPENED
                                   ? WB_RELAY_BREAKER_OPENED
                                   : WB_RELAY_BREAKER_CLOSED,
                       .kind = note->kind,
                       .scope = note->scope,
                       .error = event.error});
}

void
wb__outcomes_committed(struct wb_relay *relay)
{
    struct wb_report *r = &relay->report;

    for (size_t i = 0; i < relay->committing.n; i++) {
        const struct wb_finish *f = &relay->committing.finish[i];

        if (f->status == WB_NOTFOUND)
            continue; /* discarded meanwhile */
        if (relay->opts.on_event != NULL)
            attempt_event(relay, i);
        r->attempted++;
        if (f->status != WB_OK)
            r->fenced++;
        else if (f->end == WB_CONFIRM)
            r->confirmed++;
        else if (f->end == WB_RELEASE)
            r->released++;
        else if (f->state == WB_STATE_PENDING)
            r->retried++;
        else if (f->outcome == WB_REJECTED)
            r->rejected++;
        else
            r->abandoned++;
    }
    outcomes_clear(&relay->committing);
}

void
wb__outcomes_drop(struct wb_relay *relay)
{
    outcomes_clear(&relay->committing);
    outcomes_clear(&relay->pending);
}

/* The next cycle pauses the kind: that may block, and would stop the loop. */
static void
gone_note(struct wb__outcomes *o, struct wb_slice kind)
{
    struct wb__gone *gone;

    for (gone = o->gone; gone != NULL; gone = gone->next)
        if (wb__eq(gone->kind, kind))
            return;
    gone = wb__arena_alloc(&o->errors, sizeof(*gone));
    if (gone == NULL || !wb__arena_dup(&o->errors, kind, &gone->kind))
        return;
    gone->next = o->gone;
    o->gone = gone;
}

/* Out of memory here loses the outcome, which costs a repeat: the lease runs
 * out. */
static void
item_outcome(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, struct wb_result *result)
{
    bool accepted = result->status >= 200 && result->status < 300;

    if (route->judge != NULL &&
        (accepted || (result->status == 0 && result->outcome == WB_DELIVERED)))
        route->judge(route->ctx, message, result, &relay->tally);
    (void)(wb__outcome_note(relay, route, message, result) == WB_OK);
    if (result->status == 410 && route->disable_on_410)
        gone_note(&relay->pending, message->kind);
}

static void
each_item(void *ctx, size_t i, struct wb_result *result)
{
    struct wb__delivery *d = ctx;

    item_outcome(d->relay, d->state->route, d->item[i].message, result);
}

static void
on_done(void *ctx, const struct wb_result *result)
{
    struct wb__delivery *d = ctx;
    struct wb_result own = *result;

    WB_ASSERT(d->sent && d->n > 0);
    d->relay->sent_us = d->sent_us;
    if (d->state->route->batch > 1)
        wb__batch_results(d, &own, each_item, d);
    else
        each_item(d, 0, &own);
    d->relay->sent_us = 0;
    wb__delivery_free(d);
}

/* ---- the request ------------------------------------------------------- */

/* Build the request of one message. False: none could be built, and that is the
 * message's outcome. */
static bool
item_build(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *m, struct wb__item *item)
{
    struct wb_err err = {0};
    struct wb_result unsent;
    enum wb_status rc = WB_OK;

    *item = (struct wb__item){.message = m,
        .request = {.id = m->id,
            .kind = m->kind,
            .key = m->key,
            .attempt = m->attempts,
            .now_ms = relay->env->wall_ms(relay->env->ctx),
            .timeout_ms =
                route->timeout_ms > 0 ? route->timeout_ms : TIMEOUT_MS,
            .content_type = m->content_type,
            .headers = m->headers,
            .body = m->payload}};
    if (route->build != NULL)
        rc = route->build(route->ctx, m, &item->request, &item->token, &err);
    if (rc == WB_OK && route->batch > 1 && !wb__batch_fits(item->request.body))
        rc = wb__fail(&err, WB_INVALID, 0,
            "the payload is not JSON, which a batch is made of");
    if (rc == WB_OK)
        return true;
    item_release(route, item);
    unsent = (struct wb_result){
        .outcome =
            rc == WB_NOMEM || rc == WB_UNAVAILABLE ? WB_RETRY : WB_REJECTED,
        .no_resource = rc == WB_NOMEM,
        .error = wb_slice(err.msg)};
    item_outcome(relay, route, m, &unsent);
    return false;
}

static void
delivery_send(struct wb__delivery *d)
{
    struct wb_relay *relay = d->relay;
    struct wb_transport *transport = d->state->route->transport;

    WB_ASSERT(!d->sent);
    d->sent = true;
    d->state->n_sent++;
    relay->n_sent++;
    d->sent_us = mono_us(relay);
    wb__rate_sent(d->state, d->sent_us);
    transport->send(transport, &d->request, on_done, d);
}

/* Send it, or have it wait. Its leases are extended from now on. */
static void
delivery_start(struct wb__delivery *d)
{
    struct wb_relay *relay = d->relay;

    d->next = relay->in_flight;
    if (d->next != NULL)
        d->next->link = &d->next;
    d->link = &relay->in_flight;
    relay->in_flight = d;
    d->state->in_flight++;
    relay->n_in_flight++;
    d->extend_us = mono_us(relay) + relay->opts.lease_ms * 500;
    if (!wb__route_is_full(relay, d->state))
        delivery_send(d);
}

/* A transport may call back while it sends: after each the list is another. */
void
wb__deliveries_resume(struct wb_relay *relay)
{
    struct wb__delivery *d = relay->in_flight;

    while (d != NULL && relay->n_sent < relay->n_in_flight) {
        if (d->sent || wb__route_is_full(relay, d->state)) {
            d = d->next;
        } else {
            delivery_send(d);
            d = relay->in_flight;
        }
    }
}

void
wb__deliveries_drop_unsent(struct wb_relay *relay)
{
    struct wb__delivery *next;

    for (struct wb__delivery *d = relay->in_flight; d != NULL; d = next) {
        next = d->next;
        if (!d->sent)
            wb__delivery_free(d);
    }
}

void
wb__deliveries_release_unsent(struct wb_relay *relay)
{
    const struct wb_result none = {.outcome = WB_RETRY};
    struct wb__outcomes *o = &relay->pending;

    for (struct wb__delivery *d = relay->in_flight; d != NULL; d = d->next)
        for (size_t i = 0; i < d->n && !d->sent; i++)
            if (wb__outcome_note(
                    relay, d->state->route, d->item[i].message, &none) == WB_OK)
                o->finish[o->n - 1].end = WB_RELEASE;
    wb__deliveries_drop_unsent(relay);
}

/* ---- from a claim to requests ------------------------------------------ */

/* Send row[at]; where its route has batches, with the rows after it that can
 * share the request. state[i] of those is cleared. */
static enum wb_status
send_from(struct wb_relay *relay, struct wb__route_state **state, size_t at,
    struct wb__claimed_batch *claimed, struct wb_err *err)
{
    struct wb__route_state *own = state[at];
    size_t most = own->route->batch > 1 ? own->route->batch : 1;
    size_t end = most > 1 ? claimed->batch.len : at + 1;
    struct wb__delivery *d = delivery_new(relay, own, claimed, most);
    enum wb_status rc = WB_OK;

    if (d == NULL)
        return WB_NOMEM;
    for (size_t i = at; i < end && d->n < most; i++) {
        struct wb__item *item = &d->item[d->n];
        const struct wb_request *r = &item->request;
        const struct wb_request *first = &d->item[0].request;

        if (state[i] != own)
            continue;
        if (!item_build(relay, own->route, &claimed->batch.row[i], item)) {
            state[i] = NULL;
        } else if (wb__eq(r->url, first->url) && wb__eq(r->kind, first->kind) &&
                   wb__eq(r->headers, first->headers)) {
            state[i] = NULL;
            d->n++;
        } else {
            item_release(own->route, item);
        }
    }
    if (d->n > 0 && most > 1)
        rc = wb__batch_encode(d, err);
    else
        d->request = d->item[0].request;
    if (d->n > 0 && rc == WB_OK)
        delivery_start(d);
    else
        wb__delivery_free(d);
    return rc;
}

/* Out of memory on the way: what was not sent waits until its lease ends. */
enum wb_status
wb__deliveries_start(struct wb_relay *relay, struct wb__claimed_batch *claimed,
    struct wb_err *err)
{
    size_t n = claimed->batch.len;
    struct wb__route_state **state = NULL;
    enum wb_status rc = WB_OK;

    if (n > 0) {
        state = wb__alloc(relay->env, n * sizeof(struct wb__route_state *));
        rc = state == NULL ? WB_NOMEM : WB_OK;
    }
    for (size_t i = 0; rc == WB_OK && i < n; i++)
        state[i] = wb__route_state_of(relay, claimed->batch.row[i].kind);
    for (size_t i = 0; rc == WB_OK && i < n; i++)
        if (state[i] != NULL)
            rc = send_from(relay, state, i, claimed, err);
    wb__free(relay->env, state);
    claimed_release(relay, claimed);
    return rc == WB_NOMEM ? wb__nomem(err, "relay") : rc;
}
