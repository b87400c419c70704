/* route.c - the route of a kind, the kinds that have messages, and how many
 * requests and messages each route may take now.
 *
 * (1) A kind without a route is never claimed.
 * (2) No claim makes more requests than are free, as long as the build hooks
 *     give the messages of a kind one URL and one header list. */
#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    CONCURRENCY = 8,
    LONGEST_RATE_US = 62000000 /* longer: the clock was wrong */
};

uint32_t
wb__concurrency_of(const struct wb_route *r)
{
    return r->concurrency > 0 ? r->concurrency : CONCURRENCY;
}

/* ---- routes ------------------------------------------------------------ */

static enum wb_status
route_check(
    const struct wb_relay *relay, const struct wb_route *r, struct wb_err *err)
{
    if (r->kind == NULL || (r->transport == NULL && r->failed == NULL))
        return wb__fail(err, WB_INVALID, 0,
            "route \"%s\": a route needs a kind and a transport",
            r->kind == NULL ? "" : r->kind);
    if (r->batch > WB__BATCH_MAX)
        return wb__fail(err, WB_INVALID, 0,
            "route \"%s\": batch is %u, the most is %d", r->kind, r->batch,
            WB__BATCH_MAX);
    if (wb_retry_horizon_ms(r->retry, false) >=
        relay->box->opts.keep_delivered_ms)
        return wb__fail(err, WB_INVALID, 0,
            "route \"%s\": retries go on for longer than ids and keys are "
            "kept; raise keep_delivered or lower the attempts",
            r->kind);
    return WB_OK;
}

enum wb_status
wb__routes_set(struct wb_relay *relay, struct wb_err *err)
{
    const struct wb_route *routes = relay->opts.routes;
    size_t n = relay->opts.n_routes;

    if (n == 0)
        return WB_OK;
    relay->route = wb__alloc(relay->env, n * sizeof(*relay->route));
    if (relay->route == NULL)
        return wb__nomem(err, "relay");
    for (size_t i = 0; i < n; i++) {
        enum wb_status rc = route_check(relay, &routes[i], err);

        if (rc != WB_OK)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(routes[i].kind, routes[j].kind) == 0)
                return wb__fail(err, WB_INVALID, 0,
                    "two routes are named \"%s\"", routes[i].kind);
        relay->route[relay->n_routes++] =
            (struct wb__route_state){.route = &routes[i],
                .rate = {.name = wb_slice(routes[i].kind),
                    .per_s = routes[i].rate_per_s,
                    .batch = routes[i].batch > 1 ? routes[i].batch : 1}};
    }
    return WB_OK;
}

const struct wb_route *
wb__route_find(const struct wb_route *routes, size_t n, struct wb_slice kind)
{
    const struct wb_route *best = NULL;
    size_t longest = 0;

    for (size_t i = 0; i < n; i++) {
        struct wb_slice prefix = wb_slice(routes[i].kind);

        if (wb__eq(prefix, kind))
            return &routes[i];
        if (prefix.len == 0 || prefix.ptr[prefix.len - 1] != '*')
            continue;
        prefix.len--;
        if (wb__starts(kind, prefix) &&
            (best == NULL || prefix.len > longest)) {
            best = &routes[i];
            longest = prefix.len;
        }
    }
    return best;
}

struct wb_slice
wb__route_scope(const struct wb_route *route)
{
    return wb_slice(route->scope != NULL ? route->scope : route->kind);
}

struct wb__route_state *
wb__route_state_of(struct wb_relay *relay, struct wb_slice kind)
{
    const struct wb_route *routes = relay->opts.routes;
    const struct wb_route *route =
        wb__route_find(routes, relay->opts.n_routes, kind);

    return route == NULL ? NULL : &relay->route[route - routes];
}

bool
wb__has_route(const struct wb_relay *relay, struct wb_slice kind, bool starts)
{
    const struct wb_route *r = relay->opts.routes;
    size_t n = relay->opts.n_routes;

    if (kind.len > 0) {
        r = wb__route_find(r, n, kind);
        n = r != NULL;
    }
    while (n > 0 && starts && r->failed != NULL) {
        r++;
        n--;
    }
    return n > 0;
}

/* ---- sources ----------------------------------------------------------- */

struct kinds_reading {
    struct wb_relay *relay;
    uint64_t unrouted;
    bool found;
};

/* Nothing is forgotten before the first kind is found: what the last read found
 * is still what a woken worker claims first. */
static enum wb_status
on_kind(void *ctx, const struct wb_kind_counts *counts)
{
    struct kinds_reading *r = ctx;
    struct wb_relay *relay = r->relay;
    struct wb__claims *c = &relay->claims;
    struct wb_slice only = relay->limits.kind;
    struct wb__route_state *state = wb__route_state_of(relay, counts->kind);
    struct wb_source *s;

    r->unrouted += state == NULL;
    if (state == NULL || state->route->failed != NULL ||
        (only.len > 0 && !wb__eq(only, counts->kind)))
        return WB_OK;
    if (!r->found) {
        c->n = 0;
        wb__arena_clear(&c->names);
        for (size_t i = 0; i < relay->n_routes; i++)
            relay->route[i].n_kinds = 0;
        r->found = true;
    }
    if (!wb__array_grow(relay->env, &c->source, c->n, &c->cap, sizeof(*s)))
        return WB_NOMEM;
    s = &c->source[c->n];
    *s = (struct wb_source){
        .scope = wb__route_scope(state->route), .slots = &state->slots};
    s->rate = state->rate.per_s > 0 ? &state->rate : NULL;
    s->scope_by_message = state->route->scope_of != NULL;
    if (state->route->retry != NULL)
        s->max_attempts = state->route->retry->max_attempts;
    if (!wb__arena_dup(&c->names, counts->kind, &s->kind))
        return WB_NOMEM;
    c->n++;
    state->n_kinds++;
    return WB_OK;
}

enum wb_status
wb__sources_read(struct wb_relay *relay, struct wb_err *err)
{
    struct kinds_reading r = {.relay = relay};
    enum wb_status rc = wb_outbox_kinds(relay->box, on_kind, &r, err);

    if (rc == WB_OK)
        relay->report.kinds_unrouted = r.unrouted;
    relay->claims.has_waiting_kinds = rc == WB_OK && r.found;
    return rc == WB_NOMEM ? wb__nomem(err, "relay") : rc;
}

/* ---- how many requests and messages ------------------------------------ */

bool
wb__route_is_full(
    const struct wb_relay *relay, const struct wb__route_state *state)
{
    return state->n_sent >= wb__concurrency_of(state->route) ||
           (relay->limits.requests > 0 &&
               relay->n_sent >= relay->limits.requests);
}

/* The claim decides how many its rate allows; before next_us it is none. A rate
 * is at least one a second. */
static uint32_t
route_free(const struct wb_relay *relay, struct wb__route_state *state,
    int64_t now_us, int64_t *rate_us)
{
    uint32_t most = wb__concurrency_of(state->route);
    uint32_t used = state->in_flight - state->n_reserved;
    int64_t wait_us = state->rate.next_us - wb__outbox_now(relay->box) * 1000;

    if (used >= most)
        return 0;
    if (state->rate.per_s == 0 || wait_us <= 0 || wait_us > LONGEST_RATE_US)
        return most - used;
    if (*rate_us == 0 || now_us + wait_us < *rate_us)
        *rate_us = now_us + wait_us;
    return 0;
}

uint32_t
wb__requests_free(struct wb_relay *relay, int64_t *rate_us)
{
    int64_t now_us = wb__relay_us(relay);
    uint64_t sum = 0, left = UINT32_MAX;
    size_t used = relay->n_in_flight - relay->n_reserved;

    *rate_us = 0;
    for (size_t i = 0; i < relay->n_routes; i++) {
        struct wb__route_state *state = &relay->route[i];

        state->free = route_free(relay, state, now_us, rate_us);
        sum += state->free;
    }
    if (relay->limits.requests > 0)
        left =
            relay->limits.requests > used ? relay->limits.requests - used : 0;
    return (uint32_t)(sum < left ? sum : left);
}

/* So many messages make no more than so many requests: each takes up to batch
 * messages of one kind, and of each kind one may be not full. */
static uint32_t
messages_for(uint32_t requests, uint32_t batch, size_t n_kinds)
{
    uint64_t full = (uint64_t)requests * batch;
    uint64_t unused = n_kinds > 1 ? (n_kinds - 1) * (uint64_t)(batch - 1) : 0;
    uint64_t n = full > unused + requests ? full - unused : requests;

    return n < WB_CLAIM_MAX ? (uint32_t)n : WB_CLAIM_MAX;
}

uint32_t
wb__slots_set(struct wb_relay *relay, uint32_t requests)
{
    const struct wb__limits *limits = &relay->limits;
    uint32_t least = WB__BATCH_MAX, max = WB_CLAIM_MAX;
    uint64_t sum = 0;

    for (size_t i = 0; i < relay->n_routes; i++) {
        struct wb__route_state *state = &relay->route[i];
        uint32_t batch = state->route->batch > 1 ? state->route->batch : 1;

        state->slots = messages_for(state->free, batch, state->n_kinds);
        if (state->n_kinds > 0) {
            sum += state->slots;
            least = batch < least ? batch : least;
        }
    }
    if (limits->requests > 0)
        max = messages_for(requests, least, relay->claims.n);
    max = sum < max ? (uint32_t)sum : max;
    return limits->messages < max ? (uint32_t)limits->messages : max;
}
