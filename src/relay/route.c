/* route.c - which route a kind takes, and how much it may carry now.
 *
 * (1) The longest name that fits wins: exact before any prefix.
 * (2) A kind without a route is never claimed. */
#include "relay/route.h"

#include "outbox/box.h"
#include "relay/relay.h"

enum {
    CONCURRENCY = 8,
    BATCH_MAX = 64
};

static uint32_t
concurrency_of(const struct wb_route *r)
{
    return r->concurrency > 0 ? r->concurrency : CONCURRENCY;
}

static uint32_t
batch_of(const struct wb_route *r)
{
    return r->batch > 1 ? r->batch : 1;
}

/* ---- checks ------------------------------------------------------------ */

static enum wb_status
check_route(
    const struct wb_relay *relay, const struct wb_route *r, struct wb_err *err)
{
    if (r->kind == NULL || r->transport == NULL)
        return wb__fail(err, WB_INVALID, 0,
            "route \"%s\": a route needs a kind and a transport",
            r->kind == NULL ? "" : r->kind);
    if (r->batch > BATCH_MAX)
        return wb__fail(err, WB_INVALID, 0,
            "route \"%s\": batch is %u, the most is %d", r->kind, r->batch,
            BATCH_MAX);
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
    relay->live = wb__alloc(relay->env, n * sizeof(*relay->live));
    if (relay->live == NULL)
        return wb__nomem(err, "relay");
    for (size_t i = 0; i < n; i++) {
        enum wb_status rc = check_route(relay, &routes[i], err);

        if (rc != WB_OK)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(routes[i].kind, routes[j].kind) == 0)
                return wb__fail(err, WB_INVALID, 0,
                    "two routes are named \"%s\"", routes[i].kind);
        relay->live[relay->n_live++].route = &routes[i];
    }
    return WB_OK;
}

/* ---- kinds ------------------------------------------------------------- */

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

    return route == NULL ? NULL : &relay->live[route - routes];
}

struct adding {
    struct wb_relay *relay;
    struct wb_slice only;
};

static enum wb_status
add_source(struct wb_relay *relay, struct wb_slice kind)
{
    struct wb__route_state *live = wb__route_state_of(relay, kind);
    struct wb_source *s;

    if (live == NULL)
        return WB_OK;
    if (relay->n_sources == 0) {
        relay->n_known = 0;
        wb__arena_clear(&relay->kinds);
    }
    if (relay->n_sources == relay->source_cap) {
        size_t cap = relay->source_cap == 0 ? 16 : 2 * relay->source_cap;
        struct wb_source *grown = relay->env->resize(
            relay->env->ctx, relay->source, cap * sizeof(*grown));

        if (grown == NULL)
            return WB_NOMEM;
        relay->source = grown;
        relay->source_cap = cap;
    }
    s = &relay->source[relay->n_sources];
    *s = (struct wb_source){.scope = wb__route_scope(live->route),
        .max_attempts =
            live->route->retry == NULL ? 0 : live->route->retry->max_attempts,
        .slots = &live->slots};
    if (!wb__arena_dup(&relay->kinds, kind, &s->kind))
        return WB_NOMEM;
    relay->n_sources++;
    return WB_OK;
}

static enum wb_status
on_kind(void *ctx, const struct wb_kind_counts *counts)
{
    struct adding *a = ctx;

    if (a->only.len > 0 && !wb__eq(a->only, counts->kind))
        return WB_OK;
    return add_source(a->relay, counts->kind);
}

enum wb_status
wb__sources_set(
    struct wb_relay *relay, struct wb_slice only, struct wb_err *err)
{
    struct adding a = {.relay = relay, .only = only};
    enum wb_status rc;

    relay->n_sources = 0;
    rc = wb_outbox_kinds(relay->box, on_kind, &a, err);
    if (rc == WB_OK && relay->n_sources > 0)
        relay->n_known = relay->n_sources;
    return rc == WB_NOMEM ? wb__nomem(err, "relay") : rc;
}

/* ---- room -------------------------------------------------------------- */

/* A route with a rate may catch up on what it missed of the last LATE_US. */
enum {
    LATE_US = 100000
};

static int64_t
interval_us(const struct wb_route *r)
{
    return 1000000 / (int64_t)r->rate_per_s + 1;
}

void
wb__rate_sent(struct wb__route_state *live, int64_t now_us)
{
    if (live->route->rate_per_s == 0)
        return;
    if (live->next_us < now_us - LATE_US)
        live->next_us = now_us - LATE_US;
    live->next_us += interval_us(live->route);
}

static uint32_t
live_slots(struct wb__route_state *live, int64_t now_us, int64_t *wait_us)
{
    const struct wb_route *r = live->route;
    uint32_t most = concurrency_of(r);
    uint32_t requests = most > live->in_flight ? most - live->in_flight : 0;

    if (r->rate_per_s == 0 || requests == 0)
        return requests * batch_of(r);
    if (now_us >= live->next_us) {
        int64_t due = 1 + (now_us - live->next_us) / interval_us(r);

        return (due < requests ? (uint32_t)due : requests) * batch_of(r);
    }
    if (*wait_us == 0 || live->next_us < *wait_us)
        *wait_us = live->next_us;
    return 0;
}

uint32_t
wb__slots_set(struct wb_relay *relay, int64_t *wait_us)
{
    int64_t now_us = relay->env->mono_us(relay->env->ctx);
    uint32_t sum = 0;

    *wait_us = 0;
    for (size_t i = 0; i < relay->n_live; i++) {
        struct wb__route_state *live = &relay->live[i];

        live->slots = live_slots(live, now_us, wait_us);
        sum += live->slots < WB_CLAIM_MAX ? live->slots : WB_CLAIM_MAX;
    }
    return sum;
}
