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
 *     /drop   no answer        /later  answers after 20 ms
 *     /hold   answers when the client has gone, or at house_release()
 *     /split  answers with a header that would split the answer
 *     /big    8 MiB            /cut    an answer in pieces; without memory for
 *                                      the last, while others wait
 *     else    answers "METHOD PATH BODY"
 */
struct house {
    uv_loop_t loop;
    uv_async_t wake;
    pthread_t thread;
    struct wb__http_server *server;
    int port;
    struct wb__exchange *held;
    uv_timer_t later;
    struct wb__exchange *late;
    atomic_int calls, gone, evil;
    atomic_bool want_stop, want_release, stopped;
};

static inline void
house_answer(struct wb__exchange *call)
{
    struct wb__buf b = {.env = ENV, .max = 16 << 20};
    struct wb__response a = {.status = 200, .headers = WB_LIT("X-Own: yes\n")};

    wb__buf_add(&b, call->head->method);
    wb__buf_str(&b, " ");
    wb__buf_add(&b, call->head->path);
    wb__buf_str(&b, " ");
    wb__buf_add(&b, call->body);
    if (wb__eq(call->head->path, WB_LIT("/big")))
        (void)memset(wb__buf_room(&b, 8 << 20), 'b', 8 << 20);
    a.body = wb__buf_slice(&b);
    if (wb__eq(call->head->path, WB_LIT("/split")))
        a.headers = WB_LIT("X: y\r\n\r\nHTTP/1.1 200 OK\n");
    wb__exchange_respond(call, &a);
    wb__buf_fini(&b);
}

static inline void
house_on_later(uv_timer_t *timer)
{
    struct house *h = timer->data;
    struct wb__exchange *call = h->late;

    h->late = NULL;
    house_answer(call);
}

static inline void
house_on_gone(struct wb__exchange *call)
{
    struct house *h = call->data;

    atomic_fetch_add(&h->gone, 1);
    h->held = NULL;
    house_answer(call);
}

static inline void
house_count_gone(struct wb__exchange *call)
{
    atomic_fetch_add(&((struct house *)call->data)->gone, 1);
}

static inline void
house_cut(struct wb__exchange *call)
{
    static const char bytes[64 << 10] = {0};
    const struct wb_slice piece = {bytes, sizeof(bytes)};

    call->on_gone = house_count_gone;
    wb__exchange_begin(
        call, &(struct wb__response){.status = 200}, WB__LENGTH_UNKNOWN);
    while (wb__exchange_queued(call) == 0)
        (void)wb__exchange_write(call, piece);
    world_fail_at(0);
    wb__exchange_end(call);
}

static inline void
house_handle(void *ctx, struct wb__exchange *call)
{
    struct house *h = ctx;

    atomic_fetch_add(&h->calls, 1);
    call->data = h;
    if (wb__eq(call->head->path, WB_LIT("/evil")))
        atomic_fetch_add(&h->evil, 1);
    if (wb__eq(call->head->path, WB_LIT("/drop"))) {
        wb__exchange_drop(call);
    } else if (wb__eq(call->head->path, WB_LIT("/later")) && h->late == NULL) {
        h->late = call;
        (void)uv_timer_start(&h->later, house_on_later, 20, 0);
    } else if (wb__eq(call->head->path, WB_LIT("/hold"))) {
        h->held = call;
        call->on_gone = house_on_gone;
    } else if (wb__eq(call->head->path, WB_LIT("/cut"))) {
        house_cut(call);
    } else {
        house_answer(call);
    }
}

static inline void
house_on_stopped(void *ctx)
{
    struct house *h = ctx;

    h->stopped = true;
    wb__http_server_close(h->server);
    uv_close((uv_handle_t *)&h->wake, NULL);
    uv_close((uv_handle_t *)&h->later, NULL);
}

static inline void
house_on_wake(uv_async_t *wake)
{
    struct house *h = wake->data;

    if (atomic_exchange(&h->want_release, false) && h->held != NULL) {
        struct wb__exchange *call = h->held;

        h->held = NULL;
        house_answer(call);
    }
    if (atomic_exchange(&h->want_stop, false))
        wb__http_server_stop(h->server);
}

static inline void *
house_run(void *arg)
{
    struct house *h = arg;

    (void)uv_run(&h->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* Fill in listen, handle, ... of opts and begin. NOMEM only where asked for. */
static inline enum wb_status
house_open(struct house *h, struct wb__http_server_opts opts)
{
    enum wb_status status;

    *h = (struct house){0};
    CHECK_INT(0, uv_loop_init(&h->loop));
    opts.env = ENV;
    opts.loop = &h->loop;
    if (opts.listen.len == 0)
        opts.listen = WB_LIT("127.0.0.1:0");
    opts.handle = house_handle;
    opts.stopped = house_on_stopped;
    opts.ctx = h;
    status = wb__http_server_open(&h->server, &opts, NULL);
    if (status != WB_OK) {
        (void)uv_run(&h->loop, UV_RUN_DEFAULT);
        CHECK_INT(0, uv_loop_close(&h->loop));
        return status;
    }
    h->port = atoi(strrchr(wb__http_server_address(h->server), ':') + 1);
    CHECK_INT(0, uv_async_init(&h->loop, &h->wake, house_on_wake));
    CHECK_INT(0, uv_timer_init(&h->loop, &h->later));
    h->wake.data = h->later.data = h;
    CHECK_INT(0, pthread_create(&h->thread, NULL, house_run, h));
    return WB_OK;
}

static inline void
house_stop(struct house *h)
{
    h->want_stop = true;
    (void)uv_async_send(&h->wake);
}

static inline void
house_release(struct house *h)
{
    h->want_release = true;
    (void)uv_async_send(&h->wake);
}

static inline void
house_wait(struct house *h)
{
    CHECK_INT(0, pthread_join(h->thread, NULL));
    CHECK_INT(0, uv_loop_close(&h->loop));
    CHECK(h->stopped);
}

static inline void
house_close(struct house *h)
{
    house_stop(h);
    house_wait(h);
}

/* ---- clients ----------------------------------------------------------- */

static inline int64_t
real_ms(void)
{
    return wb_env_system()->mono_us(NULL) / 1000;
}

static inline int
client_try(const struct house *h)
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
client_open(const struct house *h)
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

/* Read until text has come, or the end; what came is in a static buffer. */
static inline const char *
client_read(int fd, const char *until)
{
    static char got[1 << 20];
    size_t len = 0;

    got[0] = '\0';
    while (len < sizeof(got) - 1) {
        ssize_t n = recv(fd, got + len, sizeof(got) - 1 - len, 0);

        if (n < 0 && errno == EAGAIN)
            fail_msg("neither answer nor end, after \"%s\"", got);
        if (n <= 0)
            break;
        len += (size_t)n;
        got[len] = '\0';
        if (until != NULL && strstr(got, until) != NULL)
            break;
    }
    return got;
}

/* Is it over? Throws away what comes before. Also true after a reset. */
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

/* One connection: say it, end the sending side, read all. */
static inline const char *
client_once(const struct house *h, const char *bytes, size_t len)
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

/* Wait for something another thread does. */
#define WAIT_FOR(e)                              \
    do {                                         \
        int64_t wait_until_ = real_ms() + 20000; \
        while (!(e) && real_ms() < wait_until_)  \
            (void)poll(NULL, 0, 1);              \
        CHECK(e);                                \
    } while (0)

#endif /* WB_TEST_HTTP_CLIENT_H */
