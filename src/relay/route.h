/* route.h - the route of a kind, and the scope of its breaker: for the relay,
 * and for commands that claim without one. */
#ifndef WB_SRC_RELAY_ROUTE_H
#define WB_SRC_RELAY_ROUTE_H

#include "waybill/relay.h"

/* The route whose pattern is the kind itself; else, of those whose pattern is a
 * prefix of the kind and '*', the one with the longest prefix; else NULL. */
const struct wb_route *wb__route_find(
    const struct wb_route *routes, size_t n, struct wb_slice kind);

/* All kinds of a route share one breaker, whose scope is the configured one, or
 * the route's pattern. */
struct wb_slice wb__route_scope(const struct wb_route *route);

#endif /* WB_SRC_RELAY_ROUTE_H */
