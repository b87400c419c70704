/* waybill/relay.h - where outbox, routes and transports meet.
 *
 * A relay claims messages that have a route, hands each to the route's
 * transport, and ends the claim with the outcome. wb_relay_drain() is one
 * bounded pass; wb_relay_run() goes on until it is stopped. */
#ifndef WB_RELAY_H
#define WB_RELAY_H

#include "waybill/outbox.h"
#include "waybill/transport.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Named counts of a pass. */
struct wb_tally;
void wb_tally_add(struct wb_tally *tally, const char *name, uint64_t n);

/* How the messages of a kind are delivered. */
struct wb_route {
    const char *kind; /* exact, or a prefix and '*'; the longest match wins */
    struct wb_transport *transport; /* borrowed */
    const char *failed; /* why there is no transport: its kinds are left alone
                           and the others delivered [none] */
    const char *proxy_unused; /* variable of the environment with a proxy, which
                                 this route does not use [none] */
    const char *endpoint;     /* to be shown: URL, command or file [none] */
    const char *scope; /* of the breaker [kind, as written here]; see also
                          scope_of */
    const struct wb_retry_policy *retry;     /* [the default] */
    const struct wb_breaker_policy *breaker; /* [the default] */
    int64_t timeout_ms;                      /* [30 s] */
    uint32_t concurrency;                    /* requests in flight [8] */
    uint32_t rate_per_s;                     /* requests a second [no limit] */
    uint32_t batch;       /* messages a request [1], at most 64 */
    uint64_t batch_bytes; /* of the messages of one request [1 MiB] */
    bool batch_ndjson;    /* NDJSON instead of one JSON array */
    bool busy_is_free;    /* 429 or 503 with Retry-After uses up no attempt */
    bool disable_on_410;  /* pause the kind when the receiver says Gone */

    /*
     * Hooks, any may be NULL.
     *
     * build: set request->url, ->body, ->headers for the message, and *token.
     * What they point to must live until release(ctx, *token) is called. Not
     * OK: the message is rejected with err->msg, or tried again if NOMEM or
     * UNAVAILABLE.
     * judge: the response rule. Called if the response is 2xx, or the message
     * was delivered without a status. May change result->outcome and ->error
     * (which then must live until judge is called again), and count.
     * scope_of: the destination that the message is really for, as text of up
     * to 255 bytes, ended by NUL: the scope of its breaker. One destination
     * gets at most as many of the route's slots as it leaves to others, and one
     * that is slow or whose breaker is open does not keep the messages of the
     * others waiting. Not OK or empty: scope, as above.
     * results: what a delivered response to a batch means for each of its n
     * messages: set outcome, status, error and retry_after_ms of result[i],
     * which begins as a copy of the response. What they point to must live
     * until it is called again. Not OK: the outcome of all is unknown, with
     * err->msg; NOTFOUND: the response is read as without the hook.
     * release: the attempt is over; called if build has set a token.
     */
    void *ctx;
    enum wb_status (*build)(void *ctx, const struct wb_claimed *message,
        struct wb_request *request, void **token, struct wb_err *err);
    void (*judge)(void *ctx, const struct wb_claimed *message,
        struct wb_result *result, struct wb_tally *tally);
    enum wb_status (*scope_of)(
        void *ctx, const struct wb_claimed *message, char *out, size_t size);
    enum wb_status (*results)(void *ctx,
        const struct wb_claimed *const *message, size_t n,
        const struct wb_result *response, struct wb_result *result,
        struct wb_err *err);
    void (*release)(void *ctx, void *token);
};

/* What happened, for a log or metrics. What is 0 or empty does not apply. */
enum wb_relay_event_type {
    WB_RELAY_ATTEMPT,        /* its outcome is committed; state: the message's
                                new one, abandoned if it was the last */
    WB_RELAY_LEASE_LOST,     /* the outcome of an attempt changed nothing:
                                another worker has the message */
    WB_RELAY_ENDED,          /* count messages abandoned without an attempt */
    WB_RELAY_BREAKER_OPENED, /* of scope */
    WB_RELAY_BREAKER_CLOSED,
    WB_RELAY_DATABASE_LOST,  /* error; the relay waits, and keeps outcomes */
    WB_RELAY_DATABASE_FOUND, /* duration_ms: how long it was lost */
    WB_RELAY_STANDBY,        /* another worker has the drain slot */
    WB_RELAY_STARTED,        /* this one has it, and delivers */
    WB_RELAY_STOPPING,       /* wb_relay_stop() was called: it claims no more */
    WB_RELAY_RELOADED,       /* nothing uses the former routes any more */
    WB_RELAY_COMMITTED,      /* count outcomes and claims, in duration_ms */
};
struct wb_relay_event {
    enum wb_relay_event_type type;
    struct wb_id id;
    struct wb_slice kind, scope, error;
    uint32_t attempt;
    enum wb_outcome outcome;
    enum wb_state state;
    int status; /* HTTP status or exit status */
    int64_t duration_ms;
    uint64_t count;
};

/* Zero means the default in brackets. */
struct wb_relay_opts {
    const struct wb_env *env;
    const struct wb_route *routes; /* borrowed */
    size_t n_routes;
    struct uv_loop_s *loop; /* that the transports use */
    int64_t lease_ms;       /* [60 s, at least twice the longest timeout] */
    bool (*ready)(void *ctx, struct wb_err *err); /* err: NULL [always] */
    void *ctx;
    /* Called on the thread of the loop; what *event points at is valid until it
     * returns. It calls nothing of the relay but wb_relay_stop(), and
     * wb_relay_reload() once the former routes are free. [none] */
    void (*on_event)(void *event_ctx, const struct wb_relay_event *event);
    void *event_ctx;
};

struct wb_relay;
/* Returns OK, NOMEM, INVALID (two routes of one kind, retries that go on for
 * longer than ids are kept, ...). */
WB_MUST_USE enum wb_status wb_relay_new(struct wb_relay **out,
    struct wb_outbox *box, const struct wb_relay_opts *opts,
    struct wb_err *err);
void wb_relay_free(struct wb_relay *relay); /* NULL is fine */

enum wb_drained {
    WB_DRAIN_DONE,         /* attempted something, or see below */
    WB_DRAIN_EMPTY,        /* nothing was due */
    WB_DRAIN_BREAKER_OPEN, /* all that is due waits for an open breaker */
    WB_DRAIN_BUSY,         /* another drain runs, and will check again */
    WB_DRAIN_NOT_READY,    /* no route, or ready() returned false */
    WB_DRAIN_UNROUTED,     /* nothing was due but of kinds without a route */
};
const char *wb_drained_name(enum wb_drained why); /* "empty", ... */

struct wb_count {
    const char *name;
    uint64_t n;
};
/* What a pass did. attempted is the sum of the six after it. */
struct wb_report {
    uint64_t attempted, confirmed, retried, abandoned, rejected, released,
        fenced;
    uint64_t ended; /* abandoned without an attempt: expired, lease ran out */
    int64_t duration_ms;
    uint64_t breakers_open;  /* at the end */
    uint64_t kinds_paused;   /* with something due, at the last claim */
    uint64_t kinds_unrouted; /* that wait, when the kinds were last read */
    uint64_t left;           /* messages in flight when grace_ms was over */
    int64_t next_retry_ms;   /* when the first of those to be retried is due; 0:
                                there is none */
    enum wb_drained why;
    const struct wb_count *tally; /* in order of name; owned by the relay until
                                     its next pass */
    size_t n_tally;
};

struct wb_drain {
    struct wb_slice kind; /* [all that have a route] */
    uint64_t max;         /* messages attempted [all that are due] */
    int64_t for_ms;       /* stop claiming after this long [no limit] */
    uint32_t concurrency; /* drains of this database at once, and requests of
                             this one in flight [1 drain, routes decide] */
    /* Called about ten times a second with the counts so far. May be NULL. */
    void (*progress)(void *ctx, const struct wb_report *so_far);
    void *ctx;
    int64_t grace_ms; /* after wb_relay_stop(): return this much later at the
                         latest [when all requests have ended] */
    bool standby;     /* wb_relay_run: wait for a drain slot [BUSY] */
};

/*
 * One bounded pass.
 *
 * Guarantees  Each message is attempted at most once a pass. Transport
 *             failures are in the counts; an error is the database's. A crash
 *             at any instruction loses nothing: what was in flight is sent
 *             again with the same id. An outcome that cannot be committed is
 *             kept, and committed again until the lease of its message is over;
 *             nothing is claimed meanwhile. *report is right after an error
 *             too. Once grace_ms is over, what is not sent is released, and
 *             what is in flight stays claimed until its lease ends: free the
 *             relay, then its transports, and do not run the loop in between.
 * Returns     OK (see report->why), or an error of the database.
 * Threads     that of the loop; Blocks: until the pass is over. Since 0.1
 */
WB_MUST_USE enum wb_status wb_relay_drain(struct wb_relay *relay,
    const struct wb_drain *drain, struct wb_report *report, struct wb_err *err);

/* Drain until wb_relay_stop(); wakes for new messages (also those of other
 * processes), due times and the end of a breaker's time. Requests in flight end
 * before it returns. It waits until its database can be used again, whatever
 * the reason is but CORRUPT and NEWER. BUSY: another drain or worker has the
 * drain slots. */
WB_MUST_USE enum wb_status wb_relay_run(struct wb_relay *relay,
    const struct wb_drain *drain, struct wb_report *report, struct wb_err *err);

/* End wb_relay_run(), or a drain, early; later calls end at once. Threads: any;
 * safe in a signal handler. */
void wb_relay_stop(struct wb_relay *relay);

/*
 * Use other routes from the next claim on; of opts routes, n_routes, lease_ms,
 * ready and ctx are read. Requests in flight end under the former routes, which
 * stay in use until the event WB_RELAY_RELOADED.
 *
 * Returns     OK; as wb_relay_new(), or BUSY (the former routes are not free
 *             yet): nothing has changed.
 * Threads     the loop's, also in a callback. Since 0.1
 */
WB_MUST_USE enum wb_status wb_relay_reload(struct wb_relay *relay,
    const struct wb_relay_opts *opts, struct wb_err *err);

/* What the last drain of the database at url did, as one line of JSON (fields
 * of wb_report, and at_ms). It is kept beside the file, so that it can be read
 * when the database cannot. NOTFOUND if there was none; TOOBIG. */
WB_MUST_USE enum wb_status wb_relay_last(
    const char *url, char *out, size_t size, struct wb_err *err);

#ifdef __cplusplus
}
#endif
#endif /* WB_RELAY_H */
