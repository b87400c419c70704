/* upstream.h - requests to one HTTP/1.1 server, over connections that are kept.
 *
 *  1. A kept connection is used only within idle_ms of its last answer, and
 *     only while nothing can be read from it. (G-14)
 *  2. Nothing is ever sent twice. on_fail() tells whether a byte may have left:
 *     a write that met the end of the connection counts as sent. (G-9)
 *  3. Answers 1xx are dropped; what the parser refuses, a 101 and an answer cut
 *     short are no answer. (G-14)
 *
 * All of it belongs to the thread of the loop. */
#ifndef WB_SRC_GATE_UPSTREAM_H
#define WB_SRC_GATE_UPSTREAM_H

#include <uv.h>

#include "http/parser.h"

struct wb__upstream;
struct wb__upstream_conn;

/* Zero means the default in brackets. */
struct wb__upstream_opts {
    const struct wb_env *env;
    uv_loop_t *loop;
    struct wb_slice host, port; /* borrowed for the call */
    int64_t connect_ms;         /* name and connection [5 s] */
    int64_t silence_ms;         /* between any two bytes [60 s] */
    int64_t idle_ms;            /* a kept connection lives [2 s] */
};

/* One request. After on_end(), on_fail() or wb__upstream_cancel() nothing is
 * called any more. */
struct wb__upstream_request {
    void *data;
    bool bodyless; /* the request is HEAD */
    void (*on_head)(
        struct wb__upstream_request *ask, const struct wb__http_head *head);
    void (*on_body)(struct wb__upstream_request *ask, struct wb_slice piece);
    void (*on_input_drained)(struct wb__upstream_request
            *ask); /* all that came was told; may be NULL
                    */
    void (*on_end)(struct wb__upstream_request *ask);
    void (*on_fail)(
        struct wb__upstream_request *ask, bool sent, const char *why);
    void (*on_drain)(
        struct wb__upstream_request *ask); /* all has gone out; may be NULL */
    struct wb__upstream_conn *link;
    bool switched; /* it failed by a 101 */
};

WB_MUST_USE enum wb_status wb__upstream_open(struct wb__upstream **out,
    const struct wb__upstream_opts *opts, struct wb_err *err);
/* Once the last request is over; memory goes as the loop goes round. */
void wb__upstream_close(struct wb__upstream *up);

/* The first bytes of a request, copied; they leave with wb__upstream_flush() or
 * wb__upstream_end(). NOMEM: nothing was done. What else goes wrong is told
 * later. */
WB_MUST_USE enum wb_status wb__upstream_send(struct wb__upstream *up,
    struct wb__upstream_request *ask, struct wb_slice bytes);
/* More bytes, copied. */
void wb__upstream_write(
    struct wb__upstream_request *ask, struct wb_slice bytes);
size_t wb__upstream_queued(const struct wb__upstream_request *ask);
/* Nothing more is at hand: send what there is. */
void wb__upstream_flush(struct wb__upstream_request *ask);
/* The request is complete. */
void wb__upstream_end(struct wb__upstream_request *ask);
void wb__upstream_pause(
    struct wb__upstream_request *ask, bool pause); /* reading the answer */
void wb__upstream_cancel(struct wb__upstream_request *ask);

#endif /* WB_SRC_GATE_UPSTREAM_H */
