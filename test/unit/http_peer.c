/* http_peer.c - a receiver on loopback for tests. */
#define _GNU_SOURCE /* memmem, accept4, POLLRDHUP */
#include "http_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static int
listen_on(int *port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&in, len) != 0 ||
        listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &len) != 0)
        abort();
    *port = ntohs(in.sin_port);
    return fd;
}

int
peer_dead_port(void)
{
    int port, fd = listen_on(&port);

    (void)close(fd);
    return port;
}

bool
peer_say(struct peer_conn *c, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = c->tls != NULL ? SSL_write(c->tls, text, (int)len)
                                   : send(c->fd, text, len, MSG_NOSIGNAL);

        if (n <= 0 || c->peer->stopping)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* Copied under the lock: the test may be writing the next one already. */
bool
peer_reply(struct peer_conn *c)
{
    struct peer *p = c->peer;
    char own[sizeof(p->own)];
    const char *reply = own;
    size_t len;

    (void)pthread_mutex_lock(&p->lock);
    if (p->own[0] == '\0')
        reply = p->reply;
    memcpy(own, p->own, sizeof(own));
    len = p->own[0] == '\0' ? p->reply_len : 0;
    (void)pthread_mutex_unlock(&p->lock);
    return peer_say(c, reply, len > 0 ? len : strlen(reply));
}

void
peer_set_reply(struct peer *p, const char *text)
{
    (void)pthread_mutex_lock(&p->lock);
    (void)snprintf(p->own, sizeof(p->own), "%s", text);
    (void)pthread_mutex_unlock(&p->lock);
}

bool
peer_wait_ms(struct peer_conn *c, int ms)
{
    struct pollfd p = {c->fd, POLLRDHUP, 0};

    return poll(&p, 1, ms) == 0 && !c->peer->stopping;
}

bool
peer_reset(struct peer_conn *c)
{
    struct linger none = {.l_onoff = 1};

    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    (void)close(c->fd);
    c->fd = -1;
    return false;
}

/* Length of the whole request at text, or 0 if it is not all there. */
static size_t
request_len(const char *text, size_t len, bool head_only)
{
    const char *end = memmem(text, len, "\r\n\r\n", 4), *field;
    size_t head, body = 0;

    if (end == NULL)
        return 0;
    head = (size_t)(end - text) + 4;
    field = memmem(text, head, "\r\nContent-Length:", 17);
    if (field != NULL && !head_only)
        body = strtoul(field + 17, NULL, 10);
    return head + body <= len ? head + body : 0;
}

static bool
read_request(struct peer_conn *c, char *text, size_t *have)
{
    size_t len;

    while ((len = request_len(text, *have, c->peer->head_only)) == 0) {
        size_t space = PEER_REQUEST - 1 - *have;
        ssize_t n = c->tls != NULL ? SSL_read(c->tls, text + *have, (int)space)
                                   : recv(c->fd, text + *have, space, 0);

        if (n <= 0)
            return false;
        *have += (size_t)n;
    }
    (void)pthread_mutex_lock(&c->peer->lock);
    memcpy(c->peer->last, text, len);
    c->peer->last[len] = '\0';
    c->peer->last_len = len;
    (void)pthread_mutex_unlock(&c->peer->lock);
    *have -= len;
    memmove(text, text + len, *have);
    c->requests++;
    c->peer->requests++;
    return true;
}

static int
choose_http2(SSL *tls, const unsigned char **out, unsigned char *len,
    const unsigned char *in, unsigned in_len, void *user)
{
    static const unsigned char h2[] = "h2";

    (void)tls;
    (void)in;
    (void)in_len;
    (void)user;
    *out = h2;
    *len = 2;
    return SSL_TLSEXT_ERR_OK;
}

bool
peer_ping(struct peer_conn *c)
{
    static const char settings[9] = {0, 0, 0, 4},
                      ping[17] = {0, 0, 8, 6, 0, 0, 0, 0, 0, 'p'};
    static char pings[800 * sizeof(ping)], sink[65536];
    struct pollfd p = {c->fd, POLLIN | POLLOUT, 0};

    for (size_t i = 0; i < 800; i++)
        memcpy(pings + i * sizeof(ping), ping, sizeof(ping));
    if (!peer_say(c, settings, sizeof(settings)))
        return false;
    (void)fcntl(c->fd, F_SETFL, O_NONBLOCK);
    while (!c->peer->stopping && poll(&p, 1, 10) >= 0) {
        int n = SSL_read(c->tls, sink, sizeof(sink));

        if (n <= 0 && SSL_get_error(c->tls, n) != SSL_ERROR_WANT_READ)
            break;
        n = p.revents & POLLOUT ? SSL_write(c->tls, pings, sizeof(pings)) : 1;
        if (n <= 0 && SSL_get_error(c->tls, n) != SSL_ERROR_WANT_WRITE)
            break;
    }
    return false;
}

static void *
tls_accept(struct peer *p, int fd)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL *tls;

    if (p->http2)
        SSL_CTX_set_alpn_select_cb(ctx, choose_http2, NULL);
    if (p->tls_ca != NULL) {
        (void)SSL_CTX_load_verify_locations(ctx, p->tls_ca, NULL);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    }
    tls = SSL_new(ctx);
    SSL_CTX_free(ctx);
    if (p->tls_old) {
        (void)SSL_set_cipher_list(tls, "ALL:@SECLEVEL=0");
        (void)SSL_set_max_proto_version(tls, TLS1_1_VERSION);
    }
    if (SSL_use_certificate_file(tls, p->tls_cert, SSL_FILETYPE_PEM) == 1 &&
        SSL_use_PrivateKey_file(tls, p->tls_key, SSL_FILETYPE_PEM) == 1 &&
        SSL_set_fd(tls, fd) == 1 && SSL_accept(tls) == 1) {
        p->certificates += SSL_get0_peer_certificate(tls) != NULL;
        return tls;
    }
    SSL_free(tls);
    return NULL;
}

static void *
serve(void *arg)
{
    struct peer_conn *c = arg;
    struct peer *p = c->peer;
    char *text = malloc(PEER_REQUEST);
    size_t have = 0;
    sigset_t pipe;

    /* OpenSSL writes without MSG_NOSIGNAL. The side under test must not need
     * this. */
    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    if (p->tls_cert != NULL)
        c->tls = tls_accept(p, c->fd);
    if (p->tls_cert == NULL || c->tls != NULL)
        while ((p->http2 || read_request(c, text, &have)) && p->answer(c))
            ;
    SSL_free(c->tls);
    (void)shutdown(c->fd, SHUT_RDWR);
    free(text);
    return NULL;
}

static void *
accept_all(void *arg)
{
    struct peer *p = arg;

    while (p->n_conn < PEER_CONNECTIONS) {
        int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        struct peer_conn *c = &p->conn[p->n_conn];

        if (fd < 0 && errno == EMFILE && !p->stopping) {
            (void)usleep(1000); /* a test of the limit */
            continue;
        }
        if (fd < 0)
            break;
        *c = (struct peer_conn){.peer = p, .fd = fd};
        p->connections++;
        if (pthread_create(&c->thread, NULL, serve, c) != 0)
            abort();
        p->n_conn++;
    }
    return NULL;
}

void
peer_start(struct peer *p)
{
    if (p->answer == NULL)
        p->answer = peer_reply;
    if (p->reply == NULL)
        p->reply = "HTTP/1.1 204 No Content\r\n\r\n";
    p->listener = listen_on(&p->port);
    (void)pthread_mutex_init(&p->lock, NULL);
    if (pthread_create(&p->thread, NULL, accept_all, p) != 0)
        abort();
}

void
peer_stop(struct peer *p)
{
    p->stopping = true;
    (void)shutdown(p->listener, SHUT_RDWR);
    (void)pthread_join(p->thread, NULL);
    (void)close(p->listener);
    for (int i = 0; i < p->n_conn; i++)
        (void)shutdown(p->conn[i].fd, SHUT_RDWR);
    for (int i = 0; i < p->n_conn; i++) {
        (void)pthread_join(p->conn[i].thread, NULL);
        (void)close(p->conn[i].fd);
    }
    (void)pthread_mutex_destroy(&p->lock);
}

/* The n-th line of that name in the last request; NULL if there is none. */
static const char *
find_header(struct peer *p, const char *name, int n)
{
    size_t len = strlen(name);
    const char *line = p->last;

    while ((line = strstr(line, "\r\n")) != NULL) {
        line += 2;
        if (line[0] == '\r')
            return NULL;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':' && n-- == 0)
            return line + len + 1;
    }
    return NULL;
}

const char *
peer_header(struct peer *p, const char *name)
{
    static char value[PEER_REQUEST];
    const char *at;

    (void)pthread_mutex_lock(&p->lock);
    at = find_header(p, name, 0);
    if (at != NULL) {
        at += strspn(at, " ");
        memcpy(value, at, strcspn(at, "\r"));
        value[strcspn(at, "\r")] = '\0';
    }
    (void)pthread_mutex_unlock(&p->lock);
    return at == NULL ? NULL : value;
}

int
peer_headers(struct peer *p, const char *name)
{
    int n = 0;

    (void)pthread_mutex_lock(&p->lock);
    while (find_header(p, name, n) != NULL)
        n++;
    (void)pthread_mutex_unlock(&p->lock);
    return n;
}

const char *
peer_body(struct peer *p)
{
    const char *end = strstr(p->last, "\r\n\r\n");

    return end == NULL ? "" : end + 4;
}
