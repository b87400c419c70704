/* relay.h - the relay without its public calls.
 *
 *     cycle: commit the outcomes so far and claim messages, in one transaction
 *        -> requests: build one for each message or batch, and send it
 *        -> the transport calls back -> an outcome for the next cycle
 *
 * Only loop.c knows the event loop. The rest is driven by calls of
 * wb__relay_cycle(), between which transports report results: the simulation
 * runs the same code. */
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

/* A route, and what it does at the moment. */
struct wb__route_state {
    const struct wb_route *route;
    size_t n_kinds;      /* of it in wb__claims.source */
    uint32_t in_flight;  /* requests, of which ... */
    uint32_t n_sent;     /* are sent */
    uint32_t n_reserved; /* wait for a slow destination, and need no slot */
    uint32_t free;       /* requests that may start now */
    uint32_t slots;      /* messages the next claim may take */
    struct wb_rate rate; /* per_s 0: none */
};

/* The rows of one claim, kept while a request refers to them. */
struct wb__claimed_batch {
    struct wb_batch batch;
    size_t refs;
};

/* One request in flight: of one message, or of several. It is not sent before
 * the concurrency of its route and of the pass allows it. */
struct wb__delivery {
    struct wb__delivery *next, **link; /* wb_relay.in_flight */
    struct wb_relay *relay;
    struct wb__route_state *state;
    struct wb__claimed_batch *claimed;
    struct wb__item *item;
    size_t n;
    struct wb_request request;
    struct wb__buf body, ids; /* of a batch */
    int64_t sent_us;
    int64_t put_back_ms; /* its messages are to be put back until then; 0: no */
    int64_t extend_us;   /* when to extend the leases; 0: not started */
    bool sent, stale;
    bool failed; /* one of its messages has, for the breaker */
};
struct wb__item {
    const struct wb_claimed *message;
    struct wb_request request; /* as the build hook left it */
    void *token;               /* the hook's */
};

/* What an event says of an attempt, beside its wb_finish. */
struct wb__attempt_note {
    struct wb_slice kind, scope;
    int status;
    int64_t duration_ms;
};

#define WB__BATCH_MAX 64

/* A kind whose receiver says that it is gone; to be paused. */
struct wb__gone {
    struct wb__gone *next;
    struct wb_slice kind;
};

/* Outcomes of messages. */
struct wb__outcomes {
    struct wb_finish *finish;
    size_t n, cap;
    struct wb__attempt_note *note; /* of each, if there is on_event() */
    size_t note_cap;
    int64_t extend_us;       /* when to extend their leases */
    struct wb__gone *gone;   /* in errors */
    bool lanes;              /* some messages have a lane */
    struct wb__arena errors; /* texts of finish[] */
};

/* What the current pass may do. */
struct wb__limits {
    struct wb_slice kind; /* only this one; empty: every kind with a route */
    uint64_t messages;    /* that may still be claimed */
    uint32_t requests;    /* in flight at once; 0: only the routes limit them */
    int64_t due_by_ms;    /* claim what is due by then; 0: what is due now */
    int64_t not_before_ms; /* the earliest time for a retry */
    bool stopping;         /* claim no more */
};

/* Why the next cycle should claim; see wb__claim_step(). An event only raises
 * it, but WOKEN does not replace KINDS_STALE, which reads the kinds first. */
enum wb__wake {
    WB__IDLE,        /* the last claim found nothing, and nothing has changed */
    WB__RECHECK,     /* a message of a cached kind may be due */
    WB__KINDS_STALE, /* a message of another kind may be, too */
    WB__WOKEN        /* a process has just committed a message */
};
enum wb__claim_step {
    WB__CLAIM_NOTHING,
    WB__CLAIM_NOW,
    WB__READ_KINDS /* then claim */
};

struct wb__claims {
    enum wb__wake wake;
    bool has_waiting_kinds; /* the last read of the kinds found messages */
    /* The kinds that have a route and had messages, as of the last read that
     * found any. */
    struct wb_source *source;
    size_t n, cap;
    struct wb__arena names;
    int64_t next_due_ms; /* as the last claim said; 0: nothing to wait for */
    enum wb_none none;   /* why the last claim took nothing */
};

/* Routes that are to be used next, or were used before. */
struct wb__routes {
    struct wb_relay_opts opts;
    struct wb__route_state *route;
    size_t n;
    int cycles; /* since the last of their requests has ended */
    bool set;
};

struct wb_relay {
    const struct wb_env *env;
    struct wb_outbox *box;
    struct wb_relay_opts opts;
    struct wb__route_state *route;
    size_t n_routes;
    struct wb__routes next, former; /* see reload.c */

    struct wb__limits limits;
    struct wb__claims claims;
    struct wb__delivery *in_flight;
    size_t n_in_flight, n_sent;
    struct wb_hold *holds; /* slow destinations, for the next claim */
    size_t n_holds, holds_cap, n_reserved;
    int64_t deferred_until_ms; /* the last message that a claim put off */
    struct wb__arena hold_names;
    size_t n_stale; /* in flight, of messages whose last lease ran out */
    struct wb__outcomes pending;    /* for the next cycle to commit */
    struct wb__outcomes committing; /* by the current one */
    bool db_used;                   /* the current cycle ran a transaction */
    int64_t sent_us; /* of the request that has just ended, 0: not sent */
    struct wb_report report;
    struct wb_tally tally;

    /* Call fn(arg), which may block, and return when it has. Requests may end
     * meanwhile: fn() touches nothing of the relay that they use. */
    void (*run_blocking)(struct wb_relay *relay, void (*fn)(void *), void *arg);
    struct wb__loop *loop;         /* loop.c; NULL: without an event loop */
    struct wb__listener *listener; /* listen.c; NULL: files are watched */
    int n_listeners;               /* also those that are being closed */
    bool notified;                 /* of a commit, since the last cycle */
};

static inline int64_t
wb__relay_us(const struct wb_relay *relay)
{
    return relay->env->mono_us(relay->env->ctx);
}

/* ---- cycle.c ----------------------------------------------------------- */

/* A relay without an event loop: the caller runs the cycles, in one thread.
 * No transport may call back after wb__relay_free(), which forgets the requests
 * in flight and the outcomes. */
WB_MUST_USE enum wb_status wb__relay_new(struct wb_relay **out,
    struct wb_outbox *box, const struct wb_relay_opts *opts,
    struct wb_err *err);
void wb__relay_free(struct wb_relay *relay);

/* Start a pass: the next cycle reads the kinds, and claims. */
void wb__relay_begin(struct wb_relay *relay, const struct wb__limits *limits);

/* The lease of these options, or the default. */
int64_t wb__relay_lease_ms(const struct wb_relay_opts *opts);

/* Something happened: the next cycle may have messages to claim. */
void wb__relay_wake(struct wb_relay *relay, enum wb__wake wake);

/* Does a cycle claim? may_claim: the limits, the routes and their rates allow
 * it; commits: it has outcomes to commit in any case. */
enum wb__claim_step wb__claim_step(
    const struct wb__claims *claims, bool may_claim, bool commits);

/* Run one cycle. *deadline_us, set if OK: the monotonic time of the next cycle
 * (in the past: at once; INT64_MAX: none), unless a result or a wake comes
 * first. BUSY: nothing was lost, and the cycle may be repeated. */
WB_MUST_USE enum wb_status wb__relay_cycle(
    struct wb_relay *relay, int64_t *deadline_us, struct wb_err *err);

/* ---- route.c ----------------------------------------------------------- */

/* The route whose pattern is the kind itself; else, of those whose pattern is a
 * prefix of the kind and '*', the one with the longest prefix; else NULL. */
const struct wb_route *wb__route_find(
    const struct wb_route *routes, size_t n, struct wb_slice kind);
/* All kinds of a route share one breaker, whose scope is the configured one, or
 * the route's pattern. */
struct wb_slice wb__route_scope(const struct wb_route *route);

WB_MUST_USE enum wb_status wb__routes_set(
    struct wb_relay *relay, struct wb_err *err);
struct wb__route_state *wb__route_state_of(
    struct wb_relay *relay, struct wb_slice kind);
/* Is there a route for the kind (empty: any at all)? starts: one that did not
 * fail. */
bool wb__has_route(
    const struct wb_relay *relay, struct wb_slice kind, bool starts);
/* Read the kinds that have messages: sets sources and has_waiting_kinds. */
WB_MUST_USE enum wb_status wb__sources_read(
    struct wb_relay *relay, struct wb_err *err);
/* How many requests may start now; sets free of each route. *rate_us: when the
 * first route that its rate holds back may go on; 0: none is held back. */
uint32_t wb__requests_free(struct wb_relay *relay, int64_t *rate_us);
/* How many messages may be claimed, so that they make no more requests than
 * that; sets slots of each route. */
uint32_t wb__slots_set(struct wb_relay *relay, uint32_t requests);
/* Are as many requests sent as the route, or the pass, allows? */
bool wb__route_is_full(
    const struct wb_relay *relay, const struct wb__route_state *state);

/* ---- scope.c ----------------------------------------------------------- */

/* Set message->scope. *until_ms: the message must not be sent before that (0:
 * another claim decides); -1: it may be. OK, NOMEM. */
WB_MUST_USE enum wb_status wb__scope_find(struct wb_relay *relay,
    const struct wb__route_state *state, struct wb__claimed_batch *claimed,
    struct wb_claimed *message, int64_t *until_ms);
/* Has the destination as many requests as it leaves to others? */
bool wb__scope_is_full(const struct wb__delivery *delivery);
/* Find the slow destinations: set put_back_ms of the requests that wait for one
 * for too long, and list what holds their like for the next claim. OK, NOMEM.
 */
WB_MUST_USE enum wb_status wb__scopes_check(struct wb_relay *relay);
/* When to check again; INT64_MAX: nothing waits for a destination. */
int64_t wb__scopes_deadline_us(const struct wb_relay *relay);
/* Requests of the route in flight. */
uint32_t wb__concurrency_of(const struct wb_route *route);

/* ---- in_flight.c ------------------------------------------------------- */

/* Send all messages of a claim; consumes its first reference. */
WB_MUST_USE enum wb_status wb__deliveries_start(struct wb_relay *relay,
    struct wb__claimed_batch *claimed, struct wb_err *err);
/* Send the requests that wait, now that others have ended. */
void wb__deliveries_resume(struct wb_relay *relay);
/* Put back the messages of those whose put_back_ms is set. */
void wb__deliveries_put_back(struct wb_relay *relay);
/* Forget those that are not sent. */
void wb__deliveries_drop_unsent(struct wb_relay *relay);
/* Release those that are not sent: each gets an outcome that says so. */
void wb__deliveries_release_unsent(struct wb_relay *relay);
void wb__delivery_free(struct wb__delivery *delivery);

/* ---- outcomes.c -------------------------------------------------------- */

/* Note the outcome of one message; *result is copied. */
WB_MUST_USE enum wb_status wb__outcome_note(struct wb_relay *relay,
    const struct wb_route *route, const struct wb_claimed *message,
    const struct wb_result *result);
/* Note that a message was not sent: it is due again at until_ms, or now if that
 * is 0, and this attempt does not count. Without memory it waits until its
 * lease ends. */
void wb__deferral_note(
    struct wb_relay *relay, const struct wb_claimed *message, int64_t until_ms);
/* Outcomes that are not committed. */
size_t wb__outcomes_left(const struct wb_relay *relay);
/* Move the pending ones to relay->committing, unless some are still there. */
void wb__outcomes_take(struct wb_relay *relay);
/* Those in relay->committing were committed: count and forget them. */
void wb__outcomes_committed(struct wb_relay *relay);
void wb__outcomes_drop(struct wb_relay *relay);

/* Call the caller's on_event(), if it gave one. */
void wb__relay_event(
    const struct wb_relay *relay, const struct wb_relay_event *event);

/* ---- reload.c ---------------------------------------------------------- */

/* After a cycle that was OK: begin to use the routes of the last reload, and
 * forget the former ones when nothing refers to them. True: run another cycle
 * at once. */
WB_MUST_USE bool wb__routes_switch(struct wb_relay *relay);

/* ---- batch.c ----------------------------------------------------------- */

/* May the message go into a batch: is its body JSON? */
WB_MUST_USE bool wb__batch_fits(struct wb_slice body);
/* Make the delivery's request from its items. */
WB_MUST_USE enum wb_status wb__batch_encode(
    struct wb__delivery *delivery, struct wb_err *err);
/* True: the response has a result for every item, and each(ctx, i, result) was
 * called with it. False: *result, maybe changed, is the result of all. */
bool wb__batch_results(const struct wb__delivery *delivery,
    struct wb_result *result,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx);

/* ---- report.c ---------------------------------------------------------- */

/* Write the report where wb_relay_last() reads it. */
void wb__report_save(struct wb_relay *relay);
/* The end of a pass, which gave rc: fill in the report, and save it. Without an
 * error the breakers are counted too. Gives rc, or the error of that. */
WB_MUST_USE enum wb_status wb__report_end(struct wb_relay *relay,
    int64_t duration_ms, enum wb_status rc, struct wb_err *err);

#endif /* WB_SRC_RELAY_RELAY_H */
