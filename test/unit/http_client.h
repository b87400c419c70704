/* http_client.h - a server on a thread of its own and blocking clients over
 * loopback, for the tests of the server. Header only. */
#ifndef WB_TEST_HTTP_CLIENT_H
#define WB_TEST_HTTP_CLIENT_H

#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "http/server.h"

/* What the handler of the tests does, by path:
 *
 *     /drop   no response
 *     /later  responds after 20 ms
 *     /hold   responds when the client has gone, or at fixture_release()
 *     /split  responds with a header that would split the response
 *     /big    responds with 8 MiB
 *     /cut    responds in pieces; there is no memory for the last one while
 *             others are queued
 *     /begin  responds at once with "begun", ends with the request
 *     else    responds with "METHOD PATH BODY"
 */
struct fixture {
    uv_loop_t loop;
    uv_async_t wake;
    pthread_t thread;
    struct wb__http_server *server;
    int port;
    struct wb__exchange *held;
    uv_timer_t later;
    struct wb__exchange *late;
    atomic_int requests, gone, evil;
    atomic_bool want_stop, want_release, stopped;
};

static inline void
fixture_respond(struct wb__exchange *exchange)
{
    struct wb__buf b = {.env = ENV, .max = 16 << 20};
    struct wb__response a = {.status = 200, .headers = WB_LIT("X-Own: yes\n")};

    wb__buf_add(&b, exchange->head->method);
    wb__buf_str(&b, " ");
    wb__buf_add(&b, exchange->head->path);
    wb__buf_str(&b, " ");
    wb__buf_add(&b, exchange->body);
    if (wb__eq(exchange->head->path, WB_LIT("/big")))
        (void)memset(wb__buf_room(&b, 8 << 20), 'b', 8 << 20);
    a.body = wb__buf_slice(&b);
    if (wb__eq(exchange->head->path, WB_LIT("/split")))
        a.headers = WB_LIT("X: y\r\n\r\nHTTP/1.1 200 OK\n");
    wb__exchange_respond(exchange, &a);
    wb__buf_fini(&b);
}

static inline void
fixture_on_later(uv_timer_t *timer)
{
    struct fixture *h = timer->data;
    struct wb__exchange *exchange = h->late;

    h->late = NULL;
    fixture_respond(exchange);
}

static inline void
fixture_on_gone(struct wb__exchange *exchange)
{
    struct fixture *h = exchange->data;

    atomic_fetch_add(&h->gone, 1);
    h->held = NULL;
    fixture_respond(exchange);
}

static inline void
fixture_count_gone(struct wb__exchange *exchange)
{
    atomic_fetch_add(&((struct fixture *)exchange->data)->gone, 1);
}

static inline void
fixture_cut(struct wb__exchange *exchange)
{
    static const char bytes[64 << 10] = {0};
    const struct wb_slice piece = {bytes, sizeof(bytes)};

    exchange->on_gone = fixture_count_gone;
    wb__exchange_begin(
        exchange, &(struct wb__response){.status = 200}, WB__LENGTH_UNKNOWN);
    while (wb__exchange_queued(exchange) == 0)
        (void)wb__exchange_write(exchange, piece);
    fake_alloc_fail_at(0);
    wb__exchange_end(exchange);
}

static inline void
fixture_on_body_end(struct wb__exchange *exchange)
{
    wb__exchange_end(exchange);
}

static inline void
fixture_handle(void *ctx, struct wb__exchange *exchange)
{
    struct fixture *h = ctx;

    atomic_fetch_add(&h->requests, 1);
    exchange->data = h;
    if (wb__eq(exchange->head->path, WB_LIT("/evil")))
        atomic_fetch_add(&h->evil, 1);
    if (wb__eq(exchange->head->path, WB_LIT("/drop"))) {
        wb__exchange_drop(exchange);
    } else if (wb__eq(exchange->head->path, WB_LIT("/later")) &&
               h->late == NULL) {
        h->late = exchange;
        (void)uv_timer_start(&h->later, fixture_on_later, 20, 0);
    } else if (wb__eq(exchange->head->path, WB_LIT("/hold"))) {
        h->held = exchange;
        exchange->on_gone = fixture_on_gone;
    } else if (wb__eq(exchange->head->path, WB_LIT("/cut"))) {
        fixture_cut(exchange);
    } else if (wb__eq(exchange->head->path, WB_LIT("/begin"))) {
        exchange->on_body_end = fixture_on_body_end;
        wb__exchange_begin(exchange, &(struct wb__response){.status = 200}, 5);
        (void)wb__exchange_write(exchange, WB_LIT("begun"));
    } else {
        fixture_respond(exchange);
    }
}

static inline void
fixture_on_stopped(void *ctx)
{
    struct fixture *h = ctx;

    h->stopped = true;
    wb__http_server_close(h->server);
    uv_close((uv_handle_t *)&h->wake, NULL);
    uv_close((uv_handle_t *)&h->later, NULL);
}

static inline void
fixture_on_wake(uv_async_t *wake)
{
    struct fixture *h = wake->data;

    if (atomic_exchange(&h->want_release, false) && h->held != NULL) {
        struct wb__exchange *exchange = h->held;

        h->held = NULL;
        fixture_respond(exchange);
    }
    if (atomic_exchange(&h->want_stop, false))
        wb__http_server_stop(h->server);
}

static inline void *
fixture_run(void *arg)
{
    struct fixture *h = arg;

    (void)uv_run(&h->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* Fill in listen, handle, ... of opts, and start the thread. */
static inline enum wb_status
fixture_open(struct fixture *h, struct wb__http_server_opts opts)
{
    enum wb_status status;

    *h = (struct fixture){0};
    CHECK_INT(0, uv_loop_init(&h->loop));
    opts.env = ENV;
    opts.loop = &h->loop;
    if (opts.listen.len == 0)
        opts.listen = WB_LIT("127.0.0.1:0");
    opts.handle = fixture_handle;
    opts.stopped = fixture_on_stopped;
    opts.ctx = h;
    status = wb__http_server_open(&h->server, &opts, NULL);
    if (status != WB_OK) {
        (void)uv_run(&h->loop, UV_RUN_DEFAULT);
        CHECK_INT(0, uv_loop_close(&h->loop));
        return status;
    }
    h->port = atoi(strrchr(wb__http_server_address(h->server), ':') + 1);
    CHECK_INT(0, uv_async_init(&h->loop, &h->wake, fixture_on_wake));
    CHECK_INT(0, uv_timer_init(&h->loop, &h->later));
    h->wake.data = h->later.data = h;
    CHECK_INT(0, pthread_create(&h->thread, NULL, fixture_run, h));
    return WB_OK;
}

static inline void
fixture_stop(struct fixture *h)
{
    h->want_stop = true;
    (void)uv_async_send(&h->wake);
}

static inline void
fixture_release(struct fixture *h)
{
    h->want_release = true;
    (void)uv_async_send(&h->wake);
}

static inline void
fixture_wait(struct fixture *h)
{
    CHECK_INT(0, pthread_join(h->thread, NULL));
    CHECK_INT(0, uv_loop_close(&h->loop));
    CHECK(h->stopped);
}

static inline void
fixture_close(struct fixture *h)
{
    fixture_stop(h);
    fixture_wait(h);
}

/* ---- clients ----------------------------------------------------------- */

static inline int64_t
real_ms(void)
{
    return wb_env_system()->mono_us(NULL) / 1000;
}

static inline int
client_try(const struct fixture *h)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
        .sin_port = htons((uint16_t)h->port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static inline int
client_open(const struct fixture *h)
{
    int fd = client_try(h);

    CHECK(fd >= 0);
    return fd;
}

/* False if the server has closed. */
static inline bool
client_send(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static inline void
client_say(int fd, const char *text)
{
    CHECK(client_send(fd, text, strlen(text)));
}

/* Read up to a text, or to the end; into a static buffer. */
static inline const char *
client_read(int fd, const char *until)
{
    static char got[1 << 20];
    size_t len = 0;

    got[0] = '\0';
    while (len < sizeof(got) - 1) {
        ssize_t n = recv(fd, got + len, sizeof(got) - 1 - len, 0);

        if (n < 0 && errno == EAGAIN)
            fail_msg("neither a response nor the end, after \"%s\"", got);
        if (n <= 0)
            break;
        len += (size_t)n;
        got[len] = '\0';
        if (until != NULL && strstr(got, until) != NULL)
            break;
    }
    return got;
}

/* Read to the end, and drop what comes. False after a timeout. */
static inline bool
client_ended(int fd)
{
    char byte[4096];
    ssize_t n;

    do
        n = recv(fd, byte, sizeof(byte), 0);
    while (n > 0);
    return n == 0 || errno == ECONNRESET;
}

/* One connection: send it, shut the sending side, read all. */
static inline const char *
client_once(const struct fixture *h, const char *bytes, size_t len)
{
    const char *got;
    int fd = client_open(h);

    (void)client_send(fd, bytes, len);
    (void)shutdown(fd, SHUT_WR);
    got = client_read(fd, NULL);
    (void)close(fd);
    return got;
}

static inline size_t
count_of(const char *text, const char *piece)
{
    size_t n = 0;

    for (; (text = strstr(text, piece)) != NULL; text += strlen(piece))
        n++;
    return n;
}

/* Wait for something that another thread does. */
#define WAIT_FOR(e)                              \
    do {                                         \
        int64_t wait_until_ = real_ms() + 20000; \
        while (!(e) && real_ms() < wait_until_)  \
            (void)poll(NULL, 0, 1);              \
        CHECK(e);                                \
    } while (0)

#endif /* WB_TEST_HTTP_CLIENT_H */
