/* conn.h - what server.c and conn.c share: the server's books. */
#ifndef WB_SRC_HTTP_CONN_H
#define WB_SRC_HTTP_CONN_H

#include <uv.h>

#include "http/server.h"

struct wb__conn;

struct wb__server {
    struct wb__server_opts opts;
    uv_tcp_t listener;
    char address[80];
    bool stopping, listening, closed;
    bool waiting;           /* somebody is in the backlog, not accepted yet */
    struct wb__conn *spare; /* with none, one lack of memory would end it all */
    struct wb__conn *first, *last; /* those idle longest come first */
    size_t conns;
    size_t bytes; /* held by all connections */
    char input[64 << 10];
    /* A connection has ended and left the list. */
    void (*conn_ended)(struct wb__server *server);
};

/* A connection that nobody is on yet, freed with wb__free(); NULL: out of
 * memory. Take the next in the backlog on it: from then on it is its own. */
struct wb__conn *wb__conn_new(struct wb__server *server);
void wb__conn_accept(struct wb__conn *conn);

/* Close those between two requests: all, or the one idle longest. */
void wb__conn_close_idle(struct wb__server *server, bool every);
void wb__conn_close_all(struct wb__server *server);

#endif /* WB_SRC_HTTP_CONN_H */
