/* scope.c - destinations of one route, where the route tells them apart
 * (scope_of): one that is slow, or whose breaker is open, does not keep the
 * messages of the others waiting.
 *
 * (1) A destination starts a request only while it has fewer in flight than the
 *     route has free slots: alone it gets half of them, a second one half of
 *     what is left.
 * (2) A message that waits for its own destination takes up a slot for SLOW_US
 *     at most. Then the claim defers those after it.
 * (3) A message whose scope was not known to its claim, and is held, is put
 *     back. From then on the outbox knows its scope. Neither counts as an
 *     attempt. */
#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    SLOW_US = 250000,
    LONGEST_MS = 60000
};

/* The requests of one destination of a route. */
struct load {
    size_t sent, waiting;
    int64_t oldest_us; /* when the first of them was sent */
};

static struct load
load_of(const struct wb_relay *relay, const struct wb__route_state *state,
    struct wb_slice scope)
{
    struct load l = {.oldest_us = INT64_MAX};

    for (const struct wb__delivery *d = relay->in_flight; d != NULL;
         d = d->next) {
        if (d->state != state || !wb__eq(d->item[0].message->scope, scope))
            continue;
        l.waiting += !d->sent && d->put_back_ms == 0;
        l.sent += d->sent;
        if (d->sent && d->sent_us < l.oldest_us)
            l.oldest_us = d->sent_us;
    }
    return l;
}

static bool
is_full(const struct wb__route_state *state, const struct load *l)
{
    return l->sent > 0 &&
           l->sent + state->n_sent >= wb__concurrency_of(state->route);
}

bool
wb__scope_is_full(const struct wb__delivery *d)
{
    struct load l;

    if (d->state->route->scope_of == NULL)
        return false;
    l = load_of(d->relay, d->state, d->item[0].message->scope);
    return is_full(d->state, &l);
}

/* Is it full, and does not end its requests? */
static bool
is_slow(const struct wb_relay *relay, const struct wb__route_state *state,
    const struct load *l)
{
    return is_full(state, l) && wb__relay_us(relay) - l->oldest_us >= SLOW_US;
}

/* When a message of a slow destination is due again: in about the time that its
 * request has taken so far, behind those that were put back before; in a pass,
 * behind all that is due in it. */
static int64_t
wait_until_ms(const struct wb_relay *relay, const struct load *l)
{
    int64_t now_ms = wb__outbox_now(relay->box);
    int64_t ms = (wb__relay_us(relay) - l->oldest_us) / 1000;

    if (relay->limits.due_by_ms != 0)
        return relay->limits.due_by_ms;
    ms = now_ms + (ms < LONGEST_MS ? ms : LONGEST_MS);
    return relay->deferred_until_ms > ms &&
                   relay->deferred_until_ms < now_ms + LONGEST_MS
               ? relay->deferred_until_ms
               : ms;
}

enum wb_status
wb__scope_find(struct wb_relay *relay, const struct wb__route_state *state,
    struct wb__claimed_batch *claimed, struct wb_claimed *m, int64_t *until_ms)
{
    const struct wb_route *route = state->route;
    const struct wb_batch *batch = &claimed->batch;
    char text[256] = "";
    struct wb_slice scope;
    struct load l;
    bool known;

    *until_ms = -1;
    if (route->scope_of == NULL)
        return WB_OK;
    if (route->scope_of(route->ctx, m, text, sizeof(text)) != WB_OK ||
        text[0] == '\0')
        scope = wb__route_scope(route);
    else
        scope = wb_slice(text);
    known = wb__eq(scope, m->scope);
    if (!wb__arena_dup(claimed->batch.memory, scope, &m->scope))
        return WB_NOMEM;
    for (size_t i = 0; i < batch->n_holds && !known; i++)
        if (wb__eq(batch->holds[i].scope, scope)) {
            relay->claims.none = WB_NONE_BREAKER_OPEN;
            *until_ms = batch->holds[i].until_ms;
            return WB_OK;
        }
    l = load_of(relay, state, scope);
    if (is_slow(relay, state, &l) && l.waiting >= l.sent)
        *until_ms = wait_until_ms(relay, &l);
    return WB_OK;
}

static enum wb_status
hold_add(struct wb_relay *relay, struct wb_slice scope, int64_t until_ms)
{
    struct wb_hold *h;

    for (size_t i = 0; i < relay->n_holds; i++)
        if (wb__eq(relay->holds[i].scope, scope))
            return WB_OK;
    if (!wb__array_grow(relay->env, &relay->holds, relay->n_holds,
            &relay->holds_cap, sizeof(*h)))
        return WB_NOMEM;
    h = &relay->holds[relay->n_holds];
    if (!wb__arena_dup(&relay->hold_names, scope, &h->scope))
        return WB_NOMEM;
    h->until_ms = until_ms;
    relay->n_holds++;
    return WB_OK;
}

/* A slow destination keeps as many messages waiting as it has requests, so that
 * it goes on at once; these take up no slot of the route. */
enum wb_status
wb__scopes_check(struct wb_relay *relay)
{
    enum wb_status rc = WB_OK;

    relay->n_holds = relay->n_reserved = 0;
    wb__arena_clear(&relay->hold_names);
    for (size_t i = 0; i < relay->n_routes; i++)
        relay->route[i].n_reserved = 0;
    for (struct wb__delivery *d = relay->in_flight; d != NULL && rc == WB_OK;
         d = d->next) {
        struct wb_slice scope = d->item[0].message->scope;
        struct load l;

        if (d->sent || d->state->route->scope_of == NULL)
            continue;
        l = load_of(relay, d->state, scope);
        if (!is_slow(relay, d->state, &l))
            continue;
        if (l.waiting >= l.sent)
            rc = hold_add(relay, scope, wait_until_ms(relay, &l));
        if (l.waiting <= l.sent) {
            d->state->n_reserved++;
            relay->n_reserved++;
        } else {
            d->put_back_ms = wait_until_ms(relay, &l);
        }
    }
    return rc;
}

int64_t
wb__scopes_deadline_us(const struct wb_relay *relay)
{
    for (const struct wb__delivery *d = relay->in_flight; d != NULL;
         d = d->next)
        if (!d->sent && d->state->route->scope_of != NULL)
            return wb__relay_us(relay) + SLOW_US;
    return INT64_MAX;
}
