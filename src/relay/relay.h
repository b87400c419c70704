/* relay.h - the relay inside.
 *
 *     turn: finish what ended + claim for free slots, one commit
 *        -> flights: build the request, group a batch, send
 *        -> transport -> done: judge, a finish for the next turn
 *
 * relay.c, pump.c and flight.c know no event loop: whatever calls done() in
 * between turns drives them, so that a simulation runs the same code. drain.c
 * is the loop. */
#ifndef WB_SRC_RELAY_RELAY_H
#define WB_SRC_RELAY_RELAY_H

#include "base/base.h"
#include "waybill/relay.h"

struct wb_tally {
    struct wb__arena names;
    struct wb_count *count; /* in order of name */
    size_t n, cap;
};
void wb__tally_clear(struct wb_tally *tally);

/* A route as it runs. */
struct wb__route_state {
    const struct wb_route *route;
    uint32_t in_flight; /* requests */
    uint32_t slots;     /* messages the coming claim may take */
    int64_t next_us;    /* rate: no request before this */
};

/* A claim's rows, kept while any of them is in flight. */
struct wb__claimed_batch {
    struct wb_batch batch;
    size_t refs;
};

/* One request under way: one message, or several. */
struct wb__in_flight {
    struct wb__in_flight *next, **link; /* list of those in flight */
    struct wb_relay *relay;
    struct wb__route_state *live;
    struct wb__claimed_batch *load;
    struct wb__item *item;
    size_t n;
    struct wb_request request;
    struct wb__buf body; /* of a batch */
    struct wb__buf ids;
    int64_t extend_us; /* extend the claims from then on */
};
struct wb__item {
    const struct wb_claimed *message;
    struct wb_request request; /* as the build hook left it */
    void *token;               /* the hook's */
};

/* How messages ended. */
struct wb__outcomes {
    struct wb_finish *finish;
    size_t n, cap;
    bool lanes;              /* some are of a lane */
    struct wb__arena errors; /* texts of finish[] */
};

struct wb_relay {
    const struct wb_env *env;
    struct wb_outbox *box;
    struct wb_relay_opts opts;
    struct uv_loop_s *loop;
    bool own_loop;
    struct wb__route_state *live;
    size_t n_live;

    struct wb_source *source; /* kinds that have a route, this pass */
    size_t n_sources, source_cap;
    size_t n_known; /* those of when some last waited, which source[] keeps */
    struct wb__arena kinds; /* their names */
    bool kinds_stale;
    bool woken; /* claim of the known ones first; they are read after it */

    struct wb__in_flight *requests;
    size_t in_flight;               /* requests */
    struct wb__outcomes pending;    /* since the last turn */
    struct wb__outcomes committing; /* to the outbox by this one */
    /* Call fn(arg); requests may go on, and end, meanwhile. NULL: just call. */
    void (*run_blocking)(
        struct wb_relay *relay, void (*fn)(void *arg), void *arg);

    struct wb_report report;
    struct wb_tally tally;
    uint64_t left;         /* messages that may still be attempted */
    int64_t due_by_ms;     /* of this pass; 0: now */
    int64_t not_before_ms; /* of what is retried in it */
    uint32_t most_in_flight;
    bool stopping; /* claim no more */
    bool look;     /* a claim may find something */
    int64_t next_due_ms;
    enum wb_none none;

    struct wb__loop *driver; /* drain.c */
};

/* ---- relay.c ----------------------------------------------------------- */

/* A relay without a loop, for whoever calls wb__relay_cycle() and done() by
 * himself. Freeing drops what is in flight: no done() may come after it. */
WB_MUST_USE enum wb_status wb__relay_new(struct wb_relay **out,
    struct wb_outbox *box, const struct wb_relay_opts *opts,
    struct wb_err *err);
void wb__relay_free(struct wb_relay *relay);

/* ---- route.c ----------------------------------------------------------- */

WB_MUST_USE enum wb_status wb__routes_set(
    struct wb_relay *relay, struct wb_err *err);
struct wb__route_state *wb__route_state_of(
    struct wb_relay *relay, struct wb_slice kind);
/* The sources of the kinds that wait and have a route. */
WB_MUST_USE enum wb_status wb__sources_set(
    struct wb_relay *relay, struct wb_slice only, struct wb_err *err);
/* How many messages each route may take now; returns the sum. *wait_us: when
 * one that is held back by its rate may go on, or 0. */
void wb__rate_sent(struct wb__route_state *live, int64_t now_us);
uint32_t wb__slots_set(struct wb_relay *relay, int64_t *wait_us);

/* ---- flight.c ---------------------------------------------------------- */

/* Send all messages of a load; consumes its first reference. */
WB_MUST_USE enum wb_status wb__in_flight_start(
    struct wb_relay *relay, struct wb__claimed_batch *load, struct wb_err *err);
void wb__in_flight_free(struct wb__in_flight *flight);

/* ---- batch.c ----------------------------------------------------------- */

/* May the message go into a batch: is its body JSON? */
WB_MUST_USE bool wb__batch_fits(struct wb_slice body);
/* Make the flight's request out of its items. */
WB_MUST_USE enum wb_status wb__batch_encode(
    struct wb__in_flight *flight, struct wb_err *err);
/* What the reply says of each item: calls each(ctx, i, result) for all. */
void wb__batch_results(const struct wb__in_flight *flight,
    const struct wb_result *result,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx);

/* ---- ends.c ------------------------------------------------------------ */

/* Note the end of one message; *result is copied. */
WB_MUST_USE enum wb_status wb__outcome_note(struct wb_relay *relay,
    const struct wb_route *route, const struct wb_claimed *message,
    const struct wb_result *result);
/* Ends that no turn has finished yet. */
size_t wb__outcomes_left(const struct wb_relay *relay);
/* Take those noted so far, unless some were taken and not finished, into
 * relay->committing. */
void wb__outcomes_take(struct wb_relay *relay);
/* Those have been finished: count and forget them. */
void wb__outcomes_committed(struct wb_relay *relay);
/* Forget them all. */
void wb__outcomes_drop(struct wb_relay *relay);

/* ---- pump.c ------------------------------------------------------------ */

/* Finish what has ended, claim what there is room for, send it. *wait_us: the
 * monotonic time at which a turn has something to do though nothing ended; 0:
 * never. */
WB_MUST_USE enum wb_status wb__relay_cycle(struct wb_relay *relay,
    struct wb_slice only, int64_t *wait_us, struct wb_err *err);

/* ---- report.c ---------------------------------------------------------- */

/* Leave the note of the last drain beside the database. */
void wb__report_note(struct wb_relay *relay);
/* The end of a pass: fill in the report, leave the note. */
WB_MUST_USE enum wb_status wb__report_end(
    struct wb_relay *relay, int64_t duration_ms, struct wb_err *err);

#endif /* WB_SRC_RELAY_RELAY_H */
