/* connection.h - what the files of the server share: the server's own state, a
 * connection, and the head of a response. */
#ifndef WB_SRC_HTTP_CONNECTION_H
#define WB_SRC_HTTP_CONNECTION_H

#include "http/server.h"
#include "http/tcp_stream.h"

struct wb__connection;

struct wb__http_server {
    struct wb__http_server_opts opts;
    struct wb__tcp_group streams;
    uv_tcp_t listener;
    char address[80];
    bool stopping, listening, closed;
    bool waiting; /* a client is in the backlog, but max_conns are open */
    /* Allocated ahead: libuv stops reporting clients while one is not accepted,
     * so out of memory must not prevent that. */
    struct wb__connection *spare;
    size_t connections; /* open, or closed with an open exchange */
    size_t bytes;       /* held by all connections */
    /* A connection was freed. */
    void (*on_connection_freed)(struct wb__http_server *server);
};

/* What the connection waits for. */
enum wb__phase {
    WB__PHASE_IDLE,    /* the first byte of a request */
    WB__PHASE_HEAD,    /* the rest of a head */
    WB__PHASE_BODY,    /* the rest of a body */
    WB__PHASE_HANDLER, /* the response to a complete request */
    WB__PHASE_WRITE,   /* the last bytes of a complete response to be sent */
    WB__PHASE_LINGER,  /* the client's end: nothing more will be sent, input is
                          thrown away */
    WB__PHASE_CLOSED,  /* its handles, and the end of the exchange */
};

enum wb__exchange_state {
    WB__EXCHANGE_NONE,
    WB__EXCHANGE_OPEN,     /* no response has begun */
    WB__EXCHANGE_BEGUN,    /* of a response in pieces the head was written */
    WB__EXCHANGE_DETACHED, /* the connection is closed, or the server has
                              responded itself: what the handler writes is
                              dropped, until it ends the exchange */
};

/* How the client finds the end of a response in pieces. */
enum wb__framing {
    WB__FRAMING_LENGTH,
    WB__FRAMING_CHUNKS,
    WB__FRAMING_CLOSE, /* an end before its time must be a reset */
};

struct wb__connection {
    struct wb__exchange exchange; /* first: cast from one to the other */
    struct wb__http_server *server;
    struct wb__tcp_stream stream;
    uv_shutdown_t shutdown;
    struct wb__http_parser parser;
    enum wb__phase phase;
    enum wb__exchange_state exchange_state;
    enum wb__framing framing; /* of the response being written */
    bool keep_alive;          /* after that response */
    bool parsing;             /* input is being parsed further up the stack */
    bool next_ready; /* a response was sent meanwhile: parse the next request */
    bool paused;     /* the handler does not want more of the body now */
    bool eof;        /* the client has shut its sending side */
    struct wb__buf body;
    struct wb__buf pipelined; /* input after the request that is open */
    struct wb__buf head;      /* of a response in pieces, until the first one */
    size_t drained;           /* bytes thrown away while lingering */
    uint64_t linger_end_ms;   /* by the loop's clock */
    size_t bytes;             /* as counted in server->bytes */
};

/* Once, before the first connection. */
void wb__connection_init_group(
    struct wb__tcp_group *group, const struct wb__http_server_opts *opts);
/* A connection without a client, freed with wb__free(). NULL: out of memory. */
struct wb__connection *wb__connection_new(struct wb__http_server *server);
/* Give it the next client of the backlog; from then on it frees itself. */
void wb__connection_accept(struct wb__connection *c);

/* Does nothing if it is closed. */
void wb__connection_close(struct wb__connection *c);
/* Close those between two requests: all, or the one idle longest. */
void wb__connection_close_idle(struct wb__http_server *server, bool every);
void wb__connection_close_all(struct wb__http_server *server);

/* ---- for exchange.c ----------------------------------------------------- */

/* Also restarts the phase's deadline. */
void wb__connection_set_phase(struct wb__connection *c, enum wb__phase phase);
/* Read, unless there is a reason not to. */
void wb__connection_update_reading(struct wb__connection *c);
/* Does the connection stay open after this response? */
bool wb__connection_keeps_alive(const struct wb__connection *c,
    const struct wb__response *response, const struct wb__http_head *request);
/* Write parts of a response; on failure the connection is closed. */
void wb__connection_write(
    struct wb__connection *c, const struct wb_slice *parts, size_t n);
/* Write a whole response. request: NULL where there was none complete. */
void wb__connection_respond(struct wb__connection *c,
    const struct wb__response *response, const struct wb__http_head *request);
/* A whole response was sent: go on with the next request, or end. */
void wb__connection_response_sent(struct wb__connection *c);
/* The handler has ended its exchange. A closed connection may be freed now. */
void wb__connection_release(struct wb__connection *c);

/* ---- head.c ------------------------------------------------------------- */

/* Append the head of a response. Fields that the server sets are left out of
 * response->headers. request: as above. length: of the body;
 * WB__LENGTH_UNKNOWN makes it chunked, or up to the close for HTTP/1.0. */
void wb__response_add_head(struct wb__buf *out,
    const struct wb__response *response, const struct wb__http_head *request,
    uint64_t length, bool keep_alive);

#endif /* WB_SRC_HTTP_CONNECTION_H */
