/* http_peer.h - a receiver on loopback that sends exactly the bytes that a test
 * wants. One thread for each connection; nothing here checks. */
#ifndef WB_TEST_HTTP_PEER_H
#define WB_TEST_HTTP_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
    PEER_CONNECTIONS = 256,
    PEER_REQUEST = 1 << 17
};

struct peer;

/* One connection, as a behaviour sees it. */
struct peer_conn {
    struct peer *peer;
    int fd;
    void *tls;    /* SSL, or NULL */
    int requests; /* read on this connection */
    pthread_t thread;
};

/* Answer one request. False: close the connection. */
typedef bool peer_behaviour(struct peer_conn *c);

struct peer {
    char own[4096];                 /* peer_set_reply() keeps the text here */
    peer_behaviour *answer;         /* [send reply, keep the connection] */
    const char *reply;              /* ["HTTP/1.1 204 No Content\r\n\r\n"] */
    size_t reply_len;               /* [strlen(reply)] */
    const char *tls_cert, *tls_key; /* PEM files: speak TLS */
    bool tls_old;                   /* 1.1 at most */
    const char *tls_ca;      /* ask for client certificates of this one */
    atomic_int certificates; /* that were shown */
    bool http2;              /* over TLS: answer, with nothing read */
    bool head_only;          /* answer before the body is read */

    int port;
    atomic_int requests, connections;
    pthread_mutex_t lock;
    char last[PEER_REQUEST]; /* the last request, head and body */
    size_t last_len;

    int listener;
    atomic_bool stopping;
    pthread_t thread;
    struct peer_conn conn[PEER_CONNECTIONS];
    atomic_int n_conn;
};

void peer_start(struct peer *p); /* fields above port may be set before */
/* Another reply from now on, copied; the peer may be serving. */
void peer_set_reply(struct peer *p, const char *text);
void peer_stop(struct peer *p);

/* For behaviours. False once the other side is gone. */
bool peer_say(struct peer_conn *c, const char *text, size_t len);
bool peer_reply(struct peer_conn *c); /* peer->reply */
/* Close the connection with a reset. Always false. */
bool peer_reset(struct peer_conn *c);
/* HTTP/2: PINGs without end, their ACKs are read. */
bool peer_ping(struct peer_conn *c);
/* Wait, but not longer than the peer lives. */
bool peer_wait_ms(struct peer_conn *c, int ms);

/* A port on 127.0.0.1 that is not listened on. */
int peer_dead_port(void);

/* Value of a header in the last request, in a static buffer; NULL: none. */
const char *peer_header(struct peer *p, const char *name);
/* How often the header is there. */
int peer_headers(struct peer *p, const char *name);
const char *peer_body(struct peer *p); /* of the last request */

#endif /* WB_TEST_HTTP_PEER_H */
