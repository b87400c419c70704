/* upstream.h - requests to one HTTP/1.1 server, over connections that are kept.
 *
 *  1. A kept connection is used only within idle_ms of its last response, and
 *     only while nothing can be read from it. (G-14)
 *  2. Nothing is ever sent twice. on_fail() says whether a byte may have left:
 *     a write that met the end of the connection counts as sent. (G-9)
 *  3. Responses 1xx are dropped. What the parser refuses, a 101 and a response
 *     that was cut short are failures. (G-14)
 *
 * All of it belongs to the thread of the loop. */
#ifndef WB_SRC_GATE_UPSTREAM_H
#define WB_SRC_GATE_UPSTREAM_H

#include <uv.h>

#include "http/parser.h"

struct wb__upstream;
struct wb__upstream_connection;

/* Zero means the default in brackets. */
struct wb__upstream_opts {
    const struct wb_env *env;
    uv_loop_t *loop;
    struct wb_slice host, port; /* copied */
    int64_t connect_ms;         /* name lookup and connection [5 s] */
    int64_t silence_ms;         /* between any two bytes [60 s] */
    int64_t idle_ms;            /* until a kept connection is closed [2 s] */
};

/* One request. No callback comes after on_end(), on_fail() or
 * wb__upstream_cancel(). */
struct wb__upstream_request {
    void *data;
    bool bodyless; /* the request is HEAD */
    void (*on_head)(
        struct wb__upstream_request *request, const struct wb__http_head *head);
    void (*on_body)(
        struct wb__upstream_request *request, struct wb_slice piece);
    /* Every byte that has arrived was passed on. May be NULL. */
    void (*on_input_drained)(struct wb__upstream_request *request);
    void (*on_end)(struct wb__upstream_request *request);
    void (*on_fail)(
        struct wb__upstream_request *request, bool sent, const char *why);
    /* Every byte that was written has been sent. May be NULL. */
    void (*on_drain)(struct wb__upstream_request *request);
    struct wb__upstream_connection *connection; /* NULL: the request is over */
    bool switched;                              /* it failed because of a 101 */
};

WB_MUST_USE enum wb_status wb__upstream_open(struct wb__upstream **out,
    const struct wb__upstream_opts *opts, struct wb_err *err);
/* Once the last request is over. Memory is freed from the loop. */
void wb__upstream_close(struct wb__upstream *up);

/* Begin a request with its first bytes, copied; they are sent with
 * wb__upstream_flush() or wb__upstream_end(). NOMEM: nothing was done. Any
 * other failure is reported by on_fail(), from the loop. */
WB_MUST_USE enum wb_status wb__upstream_send(struct wb__upstream *up,
    struct wb__upstream_request *request, struct wb_slice bytes);

/* The functions below do nothing once the request is over. */

/* More bytes, copied. */
void wb__upstream_write(
    struct wb__upstream_request *request, struct wb_slice bytes);
/* Bytes written, but not sent yet. */
size_t wb__upstream_queued(const struct wb__upstream_request *request);
/* No more bytes are at hand: send what was written. */
void wb__upstream_flush(struct wb__upstream_request *request);
/* The request is complete. */
void wb__upstream_end(struct wb__upstream_request *request);
/* Stop reading the response, or go on. */
void wb__upstream_pause(struct wb__upstream_request *request, bool pause);
void wb__upstream_cancel(struct wb__upstream_request *request);

#endif /* WB_SRC_GATE_UPSTREAM_H */
