/* gate.h - the idempotency gateway: a server in front of another one, which
 * lets the first request with a key through and gives its answer again to every
 * other one.
 *
 *  1. A request with a key goes upstream only after its claim is durable and
 *     marked sending, and never twice. (G-9)
 *  2. No client sees a whole answer before its record is committed. (G-6)
 *  3. What is not known to have happened or not is said, and held. (G-9)
 *  4. Everything else passes, in pieces, untouched. (G-2)
 *
 * All of it belongs to the thread of the loop; a store that blocks is called
 * from the loop's pool of threads. */
#ifndef WB_SRC_GATE_GATE_H
#define WB_SRC_GATE_GATE_H

#include "http/server.h"
#include "waybill/idem.h"

struct wb__gate;

enum wb__gate_anonymous {
    WB__GATE_PASS, /* undeduplicated, and it says so */
    WB__GATE_REFUSE,
    WB__GATE_SHARE /* all who have no name are one */
};

/* Zero means the default in brackets. */
struct wb__gate_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    struct uv_loop_s *loop;
    struct wb_slice listen;          /* as the server's */
    struct wb_slice upstream;        /* http://host[:port] */
    struct wb_idem *store;           /* the caller's */
    bool blocking;                   /* its calls may block: use threads */
    int64_t ttl_ms;                  /* <= 0: for ever */
    int64_t lease_ms;                /* [60 s] */
    int64_t wait_ms;                 /* for another's claim; 0: not at all */
    int64_t silence_ms;              /* upstream may say nothing for [60 s] */
    struct wb_slice identity_header; /* [a hash of Authorization] */
    enum wb__gate_anonymous anonymous;
    bool require_key;
    size_t body_bytes;   /* of a keyed request [1 MiB] */
    size_t answer_bytes; /* of an answer to replay in full [1 MiB] */
    size_t max_bytes;    /* of all of them together [64 MiB] */
    struct wb__http_server_opts server; /* limits and times */
    void (*stopped)(void *ctx);         /* may be NULL */
    void *ctx;
};

/* INVALID, UNAVAILABLE and NOMEM as wb__http_server_open(). Slices are borrowed
 * for as long as the gateway lives. */
WB_MUST_USE enum wb_status wb__gate_open(struct wb__gate **out,
    const struct wb__gate_opts *opts, struct wb_err *err);
const char *wb__gate_address(const struct wb__gate *gate);

/* Accept no more; finish what has begun; call stopped(), once. */
void wb__gate_stop(struct wb__gate *gate);

/* Free it, within stopped() or later. */
void wb__gate_close(struct wb__gate *gate);

/* The counters, in the text format of Prometheus. (G-13) */
void wb__gate_metrics(const struct wb__gate *gate, struct wb__buf *out);

#endif /* WB_SRC_GATE_GATE_H */
