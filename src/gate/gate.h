/* gate.h - the idempotency gateway: a server in front of another one. The first
 * request with a key is forwarded; every repeat gets its stored response.
 *
 *  1. A request with a key is sent upstream only after its claim is durable and
 *     marked sending, and never twice. (G-9)
 *  2. No client gets a complete response before its record is committed. (G-6)
 *  3. If it is unknown whether a request took effect, the response says so, and
 *     the key is held. (G-9)
 *  4. All other requests pass through, in pieces, unchanged. (G-2)
 *  5. Each response that says that a request failed is logged, with the reason.
 *
 * Everything runs on the thread of the loop; calls of a store that blocks run
 * on the loop's worker threads. */
#ifndef WB_SRC_GATE_GATE_H
#define WB_SRC_GATE_GATE_H

#include "http/server.h"
#include "os/log.h"
#include "waybill/idem.h"

struct wb__gate;

enum wb__gate_anonymous {
    WB__GATE_REFUSE,
    WB__GATE_PASS, /* not deduplicated; the response says so */
    WB__GATE_SHARE /* they all have one identity */
};

/* Zero means the default in brackets. */
struct wb__gate_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    struct uv_loop_s *loop;
    struct wb_slice listen;     /* as the server's */
    struct wb_slice upstream;   /* http://host[:port] */
    struct wb_idem *store;      /* stays the caller's */
    bool blocking;              /* its calls may block: use worker threads */
    int64_t ttl_ms;             /* <= 0: for ever */
    int64_t lease_ms;           /* [60 s] */
    int64_t wait_ms;            /* for another's claim; 0: not at all */
    int64_t silence_ms;         /* longest pause of upstream [60 s] */
    struct wb_slice methods;    /* guarded; a list [POST,PATCH] */
    struct wb_slice paths;      /* guarded with what is below; a list [all] */
    struct wb_slice key_header; /* [Idempotency-Key] */
    /* Where the identity is: one of these [a hash of Authorization]. The
     * claims, a list, are those of a bearer token that another server has
     * checked. */
    struct wb_slice identity_header, identity_cookie, identity_claim;
    enum wb__gate_anonymous anonymous; /* [REFUSE] */
    bool require_key;
    bool virtual_hosts; /* a key belongs to one Host */
    /* What statuses of upstream do to a key: lists of statuses and ranges.
     * [keep; free 408, 425, 429 and 5xx; unknown 502 and 504] */
    struct wb_slice keep, release, unknown;
    struct wb_slice fingerprint; /* raw, none, json, json:without a,b [raw] */
    bool fresh_connections;      /* a new one for each keyed request */
    size_t body_bytes;           /* of a keyed request [1 MiB] */
    size_t response_bytes;       /* stored with its body [1 MiB] */
    size_t max_bytes;            /* of all of them together [64 MiB] */
    struct wb__http_server_opts server; /* limits and timeouts */
    /* May be NULL. level: an enum wb__log_level. */
    void (*log)(void *ctx, int level, const char *event,
        const struct wb__log_fields *fields);
    struct wb__log *access_log; /* a line for each request; may be NULL */
    void (*stopped)(void *ctx); /* may be NULL */
    void *ctx;
};

/* INVALID, UNAVAILABLE and NOMEM as wb__http_server_open(). Slices are borrowed
 * until the gateway is freed. */
WB_MUST_USE enum wb_status wb__gate_open(struct wb__gate **out,
    const struct wb__gate_opts *opts, struct wb_err *err);
const char *wb__gate_address(const struct wb__gate *gate);

/* Accept no more connections; finish the requests under way; then call
 * stopped(), once. */
void wb__gate_stop(struct wb__gate *gate);

/* No keyed request is under way. */
bool wb__gate_is_idle(const struct wb__gate *gate);

/* A line for each keyed request that is cut now and may have had an effect. */
void wb__gate_log_cut(const struct wb__gate *gate);

/* Free it. No keyed request is under way: from stopped() on that is so. */
void wb__gate_close(struct wb__gate *gate);

/* Could a keyed request be served now: does the store take a claim, and
 * upstream a connection? done() is called once; why: NULL, or what is wrong. */
void wb__gate_check_ready(
    struct wb__gate *gate, void (*done)(void *ctx, const char *why), void *ctx);

/* The counters, in the text format of Prometheus. (G-13) */
void wb__gate_metrics(const struct wb__gate *gate, struct wb__buf *out);

#endif /* WB_SRC_GATE_GATE_H */
