/* reload.c - other routes for a relay that runs.
 *
 * (1) A reload checks the new routes at once and uses them from the next cycle
 *     on. Routes that do not fit change nothing.
 * (2) The former routes are kept while one of their requests is in flight, and
 *     for two cycles more: an outcome, which refers to its route's policies, is
 *     committed by then. */
#include "relay/relay.h"

enum {
    CYCLES = 2
};

enum wb_status
wb_relay_reload(struct wb_relay *relay, const struct wb_relay_opts *opts,
    struct wb_err *err)
{
    struct wb_relay with = *relay;
    enum wb_status rc;

    if (relay->next.set || relay->former.set)
        return wb__fail(err, WB_BUSY, 0,
            "requests of the former routes are still in flight; try again");
    with.route = NULL;
    with.n_routes = 0;
    with.opts.routes = opts->routes;
    with.opts.n_routes = opts->n_routes;
    with.opts.lease_ms = wb__relay_lease_ms(opts);
    with.opts.ready = opts->ready;
    with.opts.ctx = opts->ctx;
    rc = wb__routes_set(&with, err);
    if (rc != WB_OK) {
        wb__free(relay->env, with.route);
        return rc;
    }
    relay->next = (struct wb__routes){.opts = with.opts,
        .route = with.route,
        .n = with.n_routes,
        .set = true};
    wb__relay_wake(relay, WB__KINDS_STALE);
    return WB_OK;
}

static bool
in_use(const struct wb__routes *routes)
{
    for (size_t i = 0; i < routes->n; i++)
        if (routes->route[i].in_flight > 0)
            return true;
    return false;
}

bool
wb__routes_switch(struct wb_relay *relay)
{
    struct wb__routes *former = &relay->former;

    if (relay->next.set) {
        *former = (struct wb__routes){
            .route = relay->route, .n = relay->n_routes, .set = true};
        relay->opts = relay->next.opts;
        relay->route = relay->next.route;
        relay->n_routes = relay->next.n;
        relay->next = (struct wb__routes){0};
        relay->claims.n = 0; /* these name the former routes' scopes */
        relay->claims.has_waiting_kinds = false;
        relay->claims.wake = WB__KINDS_STALE;
        return true;
    }
    if (!former->set || in_use(former))
        return false;
    if (former->cycles++ == CYCLES) {
        wb__free(relay->env, former->route);
        *former = (struct wb__routes){0};
        wb__relay_event(
            relay, &(struct wb_relay_event){.type = WB_RELAY_RELOADED});
    }
    return true;
}
