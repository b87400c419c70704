/* server.h - an HTTP/1.1 server on a libuv loop.
 *
 *  1. Without opts.stream a handler is given complete requests only, one at a
 *     time for each connection, in order. It responds to each at once or later.
 *  2. To a request that the parser refuses the server responds with the
 *     parser's status, and closes the connection: nothing behind it is read as
 *     a request. (G-11)
 *  3. Memory, connections and every wait are bounded by the options. (G-12)
 *  4. After a response that closes the connection, the sending side is shut
 *     and input drained for linger_ms, or, while much of it comes, for up to
 *     body_ms, so that the client can read the response. (G-12)
 *  5. With opts.stream a handler is given a request once its head is complete,
 *     and bodies pass in pieces both ways; each side can make the other wait.
 *     (G-4)
 *
 * All of it belongs to the thread of the loop. */
#ifndef WB_SRC_HTTP_SERVER_H
#define WB_SRC_HTTP_SERVER_H

#include "http/parser.h"

struct uv_loop_s;
struct wb__http_server;

/* One request and its response. The handler ends each exchange exactly once, by
 * wb__exchange_respond(), _end() or _drop(), also where the client has gone. */
struct wb__exchange {
    const struct wb__http_head *head;
    struct wb_slice body;
    void *data; /* the handler's own */

    /* The client has gone, or shut its sending side; in the second case a
     * response is still sent. Called once at most. May be NULL. */
    void (*on_gone)(struct wb__exchange *exchange);
    bool gone;

    /* With opts.stream, set in handle(): the pieces of the body, then its end.
     * A response before that end closes the connection. May be NULL. */
    void (*on_body)(struct wb__exchange *exchange, struct wb_slice piece);
    void (*on_body_end)(struct wb__exchange *exchange);
    bool patient; /* body_ms counts from piece to piece */

    /* Every byte that has arrived was passed on. May be NULL. */
    void (*on_input_drained)(struct wb__exchange *exchange);

    /* Every byte that was written has been sent. May be NULL. */
    void (*on_drain)(struct wb__exchange *exchange);
};

/* Zero means the default in brackets. */
struct wb__http_server_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    struct uv_loop_s *loop;
    struct wb_slice listen; /* host:port, [v6]:port or :port; 0 chooses one */
    struct wb__http_limits limits;
    size_t
        max_conns; /* more wait in the backlog; idle ones are closed [1024] */
    size_t max_bytes;  /* of all heads, bodies and responses [64 MiB] */
    int64_t idle_ms;   /* between requests [60 s] */
    int64_t head_ms;   /* first byte of a head to its last [10 s] */
    int64_t body_ms;   /* likewise [30 s] */
    int64_t write_ms;  /* likewise, of a response [30 s] */
    int64_t linger_ms; /* draining after the last response [2 s] */
    bool stream;       /* handle() at the head of a request with a body */
    void (*handle)(void *ctx, struct wb__exchange *exchange);
    void (*stopped)(void *ctx); /* see wb__http_server_stop(); may be NULL */
    /* The server has responded in place of the handler. May be NULL. */
    void (*refused)(void *ctx, int status, const char *why);
    void *ctx;
};

/*
 * Listen.
 *
 * Takes       opts->listen: `:port` is every IPv4 address, `[::]:port` every
 *             address of IPv4 and IPv6.
 * Gives       *out: freed by wb__http_server_close().
 * Returns     OK, INVALID (the address), UNAVAILABLE (the address is in use, or
 *             not of this machine; run the loop to free the memory), NOMEM.
 */
WB_MUST_USE enum wb_status wb__http_server_open(struct wb__http_server **out,
    const struct wb__http_server_opts *opts, struct wb_err *err);

/* Split host:port, [v6]:port, :port, or a host alone: an empty port. Does not
 * check the port. False: malformed. */
WB_MUST_USE bool wb__http_split_address(
    struct wb_slice s, struct wb_slice *host, struct wb_slice *port);

/* The address with the real port. */
const char *wb__http_server_address(const struct wb__http_server *server);

/* Accept no more clients, close idle connections; when the last connection has
 * ended call stopped(), once. */
void wb__http_server_stop(struct wb__http_server *server);

/* Close every connection. Memory is freed from the loop, once every exchange
 * has ended. NULL is fine. */
void wb__http_server_close(struct wb__http_server *server);

struct wb__response {
    int status;              /* 200..599 */
    struct wb_slice headers; /* lines "Name: value\n"; lengths, Connection and
                                Date are the server's */
    struct wb_slice body;    /* copied; not sent to HEAD */
    bool close;              /* close the connection after it */
    bool undated;            /* a Date in headers is kept, none is added */
};
void wb__exchange_respond(
    struct wb__exchange *exchange, const struct wb__response *response);

/* Close the connection, without a response or within one. */
void wb__exchange_drop(struct wb__exchange *exchange);

/* ---- in pieces --------------------------------------------------------- */

/* Begin a response whose body follows: length bytes, or until
 * wb__exchange_end() where length is WB__LENGTH_UNKNOWN (chunked, or up to the
 * close for HTTP/1.0). response->body is ignored. */
#define WB__LENGTH_UNKNOWN UINT64_MAX
void wb__exchange_begin(struct wb__exchange *exchange,
    const struct wb__response *response, uint64_t length);

/* Write the head without waiting for a piece. */
void wb__exchange_flush(struct wb__exchange *exchange);

/* The next piece, copied. False: the connection is closed. */
bool wb__exchange_write(struct wb__exchange *exchange, struct wb_slice piece);

/* Bytes written, but not sent yet. */
size_t wb__exchange_queued(const struct wb__exchange *exchange);

/* The response is complete. No callback of the exchange is called any more. */
void wb__exchange_end(struct wb__exchange *exchange);

/* Stop reading the body, or go on. */
void wb__exchange_pause(struct wb__exchange *exchange, bool pause);

#endif /* WB_SRC_HTTP_SERVER_H */
