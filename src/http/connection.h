/* connection.h - what server.c, connection.c and stream.c share: the server's
 * books and a connection. */
#ifndef WB_SRC_HTTP_CONNECTION_H
#define WB_SRC_HTTP_CONNECTION_H

#include <uv.h>

#include "http/deadline.h"
#include "http/server.h"

struct wb__connection;

struct wb__http_server {
    struct wb__http_server_opts opts;
    uv_tcp_t listener;
    char address[80];
    bool stopping, listening, closed;
    bool waiting; /* somebody is in the backlog, not accepted yet */
    struct wb__connection
        *spare; /* with none, one lack of memory would end it all */
    struct wb__connection *first, *last; /* those idle longest come first */
    size_t conns;
    size_t bytes; /* held by all connections */
    char input[64 << 10];
    /* A connection has ended and left the list. */
    void (*conn_ended)(struct wb__http_server *server);
};

enum wb__phase {
    WB__IDLE, /* between requests */
    WB__HEAD,
    WB__BODY,
    WB__CALL, /* the handler has it */
    WB__WRITE,
    WB__LINGER, /* nothing more will be sent; input is thrown away */
    WB__CLOSED,
};

struct wb__connection {
    struct wb__exchange call; /* first: a call is its connection */
    struct wb__http_server *server;
    struct wb__connection *prev, *next;
    uv_tcp_t tcp;
    struct wb__deadline alarm;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct wb__http_parser parser;
    struct wb__buf body, later;
    struct wb__buf out; /* an answer, or the head of one in pieces until the
                           first of them comes */
    size_t queued;      /* bytes of an answer in pieces on their way out */
    enum wb__phase phase;
    int handles;     /* not closed yet */
    bool called;     /* the handler owes an answer */
    bool refused;    /* the server has answered in its place */
    bool begun;      /* of an answer in pieces the head has gone out */
    bool chunked;    /* the pieces are chunks */
    bool endless;    /* its close alone tells the end of an answer that is not
                        out yet */
    bool reading;    /* on_read() is under way: it goes on by itself */
    bool again;      /* an answer is out, and the next request's turn */
    bool paused;     /* the handler wants no more of the body now */
    bool eof;        /* the client shuts its side */
    bool full;       /* reading is stopped, `later` being full */
    bool keep_alive; /* after the answer being written */
    size_t drained;
    size_t bytes; /* as counted in server->bytes */
};

/* A connection that nobody is on yet, freed with wb__free(); NULL: out of
 * memory. Take the next in the backlog on it: from then on it is its own. */
struct wb__connection *wb__connection_new(struct wb__http_server *server);
void wb__connection_accept(struct wb__connection *conn);

void wb__connection_close(struct wb__connection *conn);
void wb__connection_set_phase(
    struct wb__connection *conn, enum wb__phase phase);
/* Bring the books up to date. False: all connections together hold too much. */
bool wb__connection_account(struct wb__connection *conn);
/* Read, unless somebody has reason not to. */
void wb__connection_read(struct wb__connection *conn);
/* Write what the kernel takes now; how much that was. The rest, and any error,
 * is uv_write()'s. */
size_t wb__connection_try(
    struct wb__connection *conn, uv_buf_t *bufs, unsigned n);
/* An answer went out, or did not. */
void wb__connection_answered(struct wb__connection *conn, bool ok);
/* Nobody is at the call any more. */
void wb__connection_let_go(struct wb__connection *conn);

/* Close those between two requests: all, or the one idle longest. */
void wb__connection_close_idle(struct wb__http_server *server, bool every);
void wb__connection_close_all(struct wb__http_server *server);

#endif /* WB_SRC_HTTP_CONNECTION_H */
