/* gate.h - the idempotency gateway: a server in front of another one. The first
 * request with a key is forwarded; every repeat gets its stored response.
 *
 *  1. A request with a key is sent upstream only after its claim is durable and
 *     marked sending, and never twice. (G-9)
 *  2. No client gets a complete response before its record is committed. (G-6)
 *  3. If it is unknown whether a request took effect, the response says so, and
 *     the key is held. (G-9)
 *  4. All other requests pass through, in pieces, unchanged. (G-2)
 *
 * Everything runs on the thread of the loop; calls of a store that blocks run
 * on the loop's worker threads. */
#ifndef WB_SRC_GATE_GATE_H
#define WB_SRC_GATE_GATE_H

#include "http/server.h"
#include "waybill/idem.h"

struct wb__gate;

enum wb__gate_anonymous {
    WB__GATE_PASS, /* not deduplicated; the response says so */
    WB__GATE_REFUSE,
    WB__GATE_SHARE /* they all have one identity */
};

/* Zero means the default in brackets. */
struct wb__gate_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    struct uv_loop_s *loop;
    struct wb_slice listen;   /* as the server's */
    struct wb_slice upstream; /* http://host[:port] */
    struct wb_idem *store;    /* stays the caller's */
    bool blocking;            /* its calls may block: use worker threads */
    int64_t ttl_ms;           /* <= 0: for ever */
    int64_t lease_ms;         /* [60 s] */
    int64_t wait_ms;          /* for another's claim; 0: not at all */
    int64_t silence_ms;       /* longest pause of upstream [60 s] */
    struct wb_slice identity_header; /* [a hash of Authorization] */
    enum wb__gate_anonymous anonymous;
    bool require_key;
    size_t body_bytes;                  /* of a keyed request [1 MiB] */
    size_t response_bytes;              /* stored with its body [1 MiB] */
    size_t max_bytes;                   /* of all of them together [64 MiB] */
    struct wb__http_server_opts server; /* limits and timeouts */
    void (*stopped)(void *ctx);         /* may be NULL */
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

/* Free it. No keyed request is under way: from stopped() on that is so. */
void wb__gate_close(struct wb__gate *gate);

/* The counters, in the text format of Prometheus. (G-13) */
void wb__gate_metrics(const struct wb__gate *gate, struct wb__buf *out);

#endif /* WB_SRC_GATE_GATE_H */
