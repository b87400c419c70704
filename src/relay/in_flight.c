/* in_flight.c - from a claimed message to a request, and from its result to an
 * outcome, which the next cycle commits.
 *
 * (1) Every message of a claim gets exactly one outcome: by its result, or at
 *     once where no request could be built for it.
 * (2) The rows of a claim are kept until the last of its requests has ended.
 * (3) A batch that is rejected as a whole is split until the rejected message
 *     is alone; a request that fails is one failure for the breaker. */
#include "relay/relay.h"

enum {
    TIMEOUT_MS = 30000,
    BATCH_BYTES = 1 << 20
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
        relay->n_stale -= d->stale;
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

/* ---- the result of a request ------------------------------------------- */

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

/* Does the response rule apply to it? */
static bool
is_judged(const struct wb_result *r)
{
    return r->status == 0 ? r->outcome == WB_DELIVERED
                          : r->status >= 200 && r->status < 300;
}

/* Out of memory here loses the outcome, which costs a repeat: the lease runs
 * out. */
static void
item_outcome(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, struct wb_result *result)
{
    if (route->judge != NULL && is_judged(result))
        route->judge(route->ctx, message, result, &relay->tally);
    (void)(wb__outcome_note(relay, route, message, result) == WB_OK);
    if (result->status == 410 && route->disable_on_410)
        gone_note(&relay->pending, message->kind);
}

static void
each_item(void *ctx, size_t i, struct wb_result *result)
{
    struct wb__delivery *d = ctx;
    struct wb__outcomes *o = &d->relay->pending;
    size_t n = o->n;

    item_outcome(d->relay, d->state->route, d->item[i].message, result);
    /* A request that failed is one failure of its destination. */
    if (o->n > n && result->outcome != WB_DELIVERED &&
        result->outcome != WB_REJECTED) {
        o->finish[n].not_counted = d->failed;
        d->failed = true;
    }
}

/* ---- the batch as a whole ---------------------------------------------- */

/* Is the result, which all messages of a batch share, a rejection of each? */
static bool
is_rejected_as_one(const struct wb__delivery *d, const struct wb_result *result)
{
    const struct wb_route *route = d->state->route;
    struct wb_tally ignored = {.names.env = d->relay->env};
    bool rejected = d->n > 1;

    for (size_t i = 0; i < d->n && rejected; i++) {
        struct wb_result r = *result;

        if (route->judge != NULL && is_judged(&r))
            route->judge(route->ctx, d->item[i].message, &r, &ignored);
        rejected = r.outcome == WB_REJECTED;
    }
    wb__tally_clear(&ignored);
    return rejected;
}

static void delivery_start(struct wb__delivery *d);

/* The receiver has rejected the request and not said which of its messages:
 * send each half again in a request of its own, until a rejected message is
 * alone. The claims are kept, so that this costs no attempt; if the worker dies
 * on the way their leases run out. False, and nothing has changed: out of
 * memory. */
static bool
delivery_split(struct wb__delivery *d)
{
    const size_t half[2] = {(d->n + 1) / 2, d->n / 2};
    const struct wb__item *item = d->item;
    struct wb__delivery *part[2] = {NULL, NULL};
    bool ok = true;

    for (size_t i = 0; i < 2 && ok; item += half[i++]) {
        part[i] = delivery_new(d->relay, d->state, d->claimed, half[i]);
        ok = part[i] != NULL;
        if (!ok)
            break;
        memcpy(part[i]->item, item, half[i] * sizeof(*item));
        part[i]->n = half[i];
        part[i]->extend_us = d->extend_us;
        ok = wb__batch_encode(part[i], NULL) == WB_OK;
    }
    if (ok)
        d->n = 0; /* the hooks' tokens are the parts' */
    for (size_t i = 0; i < 2 && !ok; i++)
        if (part[i] != NULL) {
            part[i]->n = 0;
            wb__delivery_free(part[i]);
        }
    if (!ok)
        return false;
    wb__delivery_free(d);
    delivery_start(part[0]);
    delivery_start(part[1]);
    return true;
}

static void
on_done(void *ctx, const struct wb_result *result)
{
    struct wb__delivery *d = ctx;
    struct wb_relay *relay = d->relay;
    struct wb_result own = *result;
    bool each, as_one;

    WB_ASSERT(d->sent && d->n > 0);
    relay->sent_us = d->sent_us;
    each =
        d->state->route->batch > 1 && wb__batch_results(d, &own, each_item, d);
    as_one = !each && is_rejected_as_one(d, &own);
    if (!as_one || !delivery_split(d)) {
        if (as_one)
            own = (struct wb_result){
                .outcome = WB_RETRY, .error = WB_LIT("out of memory")};
        for (size_t i = 0; i < d->n && !each; i++) {
            struct wb_result item = own;

            each_item(d, i, &item);
        }
        wb__delivery_free(d);
    }
    relay->sent_us = 0;
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
    d->sent_us = wb__relay_us(relay);
    d->state->n_sent++;
    relay->n_sent++;
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
    d->stale = d->item[0].message->stale;
    relay->n_stale += d->stale;
    if (d->extend_us == 0)
        d->extend_us = wb__relay_us(relay) + relay->opts.lease_ms * 500;
    if (!wb__route_is_full(relay, d->state) && !wb__scope_is_full(d))
        delivery_send(d);
}

/* A transport may call back while it sends: after each the list is another. */
void
wb__deliveries_resume(struct wb_relay *relay)
{
    struct wb__delivery *d = relay->in_flight, *first = NULL;

    while (d != NULL && relay->n_sent < relay->n_in_flight) {
        if (!d->sent && !wb__route_is_full(relay, d->state) &&
            !wb__scope_is_full(d))
            first = d; /* the list begins with the newest */
        d = d->next;
        if (d == NULL && first != NULL) {
            delivery_send(first);
            first = NULL;
            d = relay->in_flight;
        }
    }
}

void
wb__deliveries_put_back(struct wb_relay *relay)
{
    struct wb__delivery *next;

    for (struct wb__delivery *d = relay->in_flight; d != NULL; d = next) {
        next = d->next;
        if (d->put_back_ms == 0)
            continue;
        for (size_t i = 0; i < d->n; i++)
            wb__deferral_note(relay, d->item[i].message, d->put_back_ms);
        wb__delivery_free(d);
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
            if (wb__outcome_note(relay, d->state->route, d->item[i].message,
                    &none) == WB_OK) {
                o->finish[o->n - 1].end = WB_RELEASE;
                o->finish[o->n - 1].scope.len = 0; /* it is not deferred */
            }
    wb__deliveries_drop_unsent(relay);
}

/* ---- from a claim to requests ------------------------------------------ */

/* The last attempt of a message is made without others, so that it does not
 * fail for the fault of another message again; so is one after a lease that ran
 * out. */
static bool
is_sent_alone(const struct wb_route *route, const struct wb_claimed *m)
{
    static const struct wb_retry_policy standard = WB_RETRY_POLICY_DEFAULT;
    const struct wb_retry_policy *p =
        route->retry != NULL ? route->retry : &standard;

    return m->stale || (m->attempts > 1 && m->attempts >= p->max_attempts);
}

/* Send row[at]; where its route has batches, with the rows after it that can
 * share the request. state[i] of those is cleared. */
static enum wb_status
send_from(struct wb_relay *relay, struct wb__route_state **state, size_t at,
    struct wb__claimed_batch *claimed, struct wb_err *err)
{
    struct wb__route_state *own = state[at];
    const struct wb_claimed *row = claimed->batch.row;
    size_t most = own->route->batch > 1 ? own->route->batch : 1;
    size_t end = most > 1 && !is_sent_alone(own->route, &row[at])
                     ? claimed->batch.len
                     : at + 1;
    struct wb__delivery *d = delivery_new(relay, own, claimed, most);
    uint64_t left =
        own->route->batch_bytes > 0 ? own->route->batch_bytes : BATCH_BYTES;
    enum wb_status rc = WB_OK;

    if (d == NULL)
        return WB_NOMEM;
    for (size_t i = at; i < end && d->n < most; i++) {
        struct wb__item *item = &d->item[d->n];
        const struct wb_request *r = &item->request;
        const struct wb_request *first = &d->item[0].request;

        if (state[i] != own || (i > at && is_sent_alone(own->route, &row[i])))
            continue;
        if (!item_build(relay, own->route, &row[i], item)) {
            state[i] = NULL;
        } else if (d->n > 0 && r->body.len >= left) {
            item_release(own->route, item);
            break;
        } else if (wb__eq(row[i].scope, row[at].scope) &&
                   wb__eq(r->url, first->url) && wb__eq(r->kind, first->kind) &&
                   wb__eq(r->headers, first->headers)) {
            state[i] = NULL;
            left -= r->body.len < left ? r->body.len + 1 : left;
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
    for (size_t i = 0; rc == WB_OK && i < n; i++) {
        struct wb_claimed *m = &claimed->batch.row[i];
        int64_t until_ms = -1;

        if (state[i] != NULL)
            rc = wb__scope_find(relay, state[i], claimed, m, &until_ms);
        if (rc == WB_OK && until_ms >= 0) {
            wb__deferral_note(relay, m, until_ms);
            state[i] = NULL;
        }
    }
    for (size_t i = 0; rc == WB_OK && i < n; i++)
        if (state[i] != NULL)
            rc = send_from(relay, state, i, claimed, err);
    wb__free(relay->env, state);
    claimed_release(relay, claimed);
    return rc == WB_NOMEM ? wb__nomem(err, "relay") : rc;
}
