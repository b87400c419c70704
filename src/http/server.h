/* server.h - an HTTP/1.1 server on a libuv loop.
 *
 *  1. A handler sees complete requests only, one at a time a connection, in
 *     order, and answers each now or later.
 *  2. A request that the parser refuses is answered with its status, and the
 *     connection closes: nothing after it is read as a request. (G-11)
 *  3. Memory, connections and every wait are bounded by the options. (G-12)
 *  4. After an answer that closes, the sending side is shut and input drained
 *     for a while, so that the client can read the answer. (G-12)
 *  5. With opts.stream a handler sees a request from its head on, and bodies
 *     go through in pieces both ways; each side can hold up the other. (G-4)
 *
 * All of it belongs to the thread of the loop. */
#ifndef WB_SRC_HTTP_SERVER_H
#define WB_SRC_HTTP_SERVER_H

#include "http/parser.h"

struct uv_loop_s;
struct wb__http_server;

/* One request, until it is answered or dropped: exactly once, also where the
 * client has gone. */
struct wb__exchange {
    const struct wb__http_head *head;
    struct wb_slice body;
    void *data; /* the handler's own */

    /* The client left, or shut its sending side: an answer would still be
     * written. Called once, at most. May be NULL. */
    void (*on_gone)(struct wb__exchange *call);
    bool gone;

    /* With opts.stream, set in handle(); the body's pieces, then its end. An
     * answer before that end closes the connection. May be NULL. */
    void (*on_body)(struct wb__exchange *call, struct wb_slice piece);
    void (*on_body_end)(struct wb__exchange *call);
    bool patient; /* body_ms counts from piece to piece */

    /* All that has come so far was told. May be NULL. */
    void (*on_input_drained)(struct wb__exchange *call);

    /* All that was written has gone out. May be NULL. */
    void (*on_drain)(struct wb__exchange *call);
};

/* Zero means the default in brackets. */
struct wb__http_server_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    struct uv_loop_s *loop;
    struct wb_slice listen; /* host:port, [v6]:port or :port; 0 chooses one */
    struct wb__http_limits limits;
    size_t max_conns; /* more wait in the backlog; idle ones make room [1024] */
    size_t max_bytes; /* of heads, bodies and answers of all [64 MiB] */
    int64_t idle_ms;  /* between requests [60 s] */
    int64_t head_ms;  /* first byte of a head to its last [10 s] */
    int64_t body_ms;  /* likewise [30 s] */
    int64_t write_ms; /* likewise, of an answer [30 s] */
    int64_t linger_ms; /* draining after the last answer [2 s] */
    bool stream;       /* handle() at the head of a request with a body */
    void (*handle)(void *ctx, struct wb__exchange *call);
    void (*stopped)(void *ctx); /* see wb__http_server_stop(); may be NULL */
    void *ctx;
};

/*
 * Listen.
 *
 * Gives       *out: ended with wb__http_server_close(). `:port` is every IPv4
 *             address, `[::]:port` every address of both.
 * Returns     OK, INVALID (the address), UNAVAILABLE (it is in use, or not
 *             ours; the loop must then go round once to free what was tried),
 *             NOMEM.
 */
WB_MUST_USE enum wb_status wb__http_server_open(struct wb__http_server **out,
    const struct wb__http_server_opts *opts, struct wb_err *err);

/* The address with the real port. */
const char *wb__http_server_address(const struct wb__http_server *server);

/* Accept no more; finish what has begun, then call stopped(), once. */
void wb__http_server_stop(struct wb__http_server *server);

/* Drop every connection. Memory is freed as the loop goes round, and once
 * every open call has been answered. NULL is fine. */
void wb__http_server_close(struct wb__http_server *server);

struct wb__response {
    int status;              /* 200..599 */
    struct wb_slice headers; /* lines "Name: value\n"; lengths, Connection and
                                Date are the server's */
    struct wb_slice body;    /* copied; not sent to HEAD */
    bool close;              /* end the connection after it */
    bool undated;            /* no Date but what is in headers */
};
void wb__exchange_respond(
    struct wb__exchange *call, const struct wb__response *answer);

/* Close the connection without an answer, or in the midst of one. */
void wb__exchange_drop(struct wb__exchange *call);

/* ---- in pieces --------------------------------------------------------- */

/* An answer whose body follows: length bytes, or until wb__exchange_end() where
 * it is WB__LENGTH_UNKNOWN (chunked, or up to the close for HTTP/1.0).
 * answer->body is not looked at. */
#define WB__LENGTH_UNKNOWN UINT64_MAX
void wb__exchange_begin(struct wb__exchange *call,
    const struct wb__response *answer, uint64_t length);

/* Nothing more is at hand: write the head without waiting for a piece. */
void wb__exchange_flush(struct wb__exchange *call);

/* The next piece, copied. False: nobody reads it, the connection is gone. */
bool wb__exchange_write(struct wb__exchange *call, struct wb_slice piece);

/* Bytes written, but not out yet. */
size_t wb__exchange_queued(const struct wb__exchange *call);

/* The answer is complete, the call over: nothing of it is called any more. */
void wb__exchange_end(struct wb__exchange *call);

/* Stop reading the body, and go on. */
void wb__exchange_pause(struct wb__exchange *call, bool pause);

#endif /* WB_SRC_HTTP_SERVER_H */
