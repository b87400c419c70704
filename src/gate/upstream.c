/* upstream.c - connections to the server behind the gateway. See upstream.h.
 *
 * A link is CLOSED once its handles are; until then its memory stays. */
#include "gate/upstream.h"

#include <stdio.h>

#include "http/deadline.h"
#include "os/os.h"

enum {
    HEAD_BYTES = 32 << 10,
    INTERIM_MAX = 16, /* 1xx before an answer */
    UNSENT_MAX = 4 << 20
};

struct wb__upstream_conn {
    struct wb__upstream *up;
    struct wb__upstream_request *ask; /* NULL: kept, or closing */
    struct wb__upstream_conn *prev, *next;
    uv_tcp_t tcp;
    struct wb__deadline alarm;
    uv_connect_t connect;
    uv_getaddrinfo_t lookup;
    struct addrinfo *found, *trying;
    struct wb__http_parser parser;
    struct wb__buf unsent; /* until it is flushed and connected */
    size_t queued;
    int64_t kept_us; /* since */
    int handles, interim;
    const char *why; /* it failed, and says so when the timer rings */
    bool connected, closing, wrote, sent_all, paused, looking;
};

struct wb__upstream {
    struct wb__upstream_opts opts;
    char host[256], port[8];
    struct wb__upstream_conn *first;
    bool closed;
    char input[64 << 10];
};

struct piece {
    uv_write_t write; /* first */
    struct wb__upstream_conn *link;
    size_t len;
    char bytes[];
};

static void on_alarm(struct wb__deadline *alarm);
static void try_next(struct wb__upstream_conn *l, int why);

/* ---- the list: those that answered last come first --------------------- */

static void
list_add(struct wb__upstream_conn *l)
{
    struct wb__upstream *up = l->up;

    l->prev = NULL;
    l->next = up->first;
    if (l->next != NULL)
        l->next->prev = l;
    up->first = l;
}

static void
list_remove(struct wb__upstream_conn *l)
{
    *(l->prev == NULL ? &l->up->first : &l->prev->next) = l->next;
    if (l->next != NULL)
        l->next->prev = l->prev;
}

/* ---- ends -------------------------------------------------------------- */

static void
free_up_if_over(struct wb__upstream *up)
{
    if (up->closed && up->first == NULL)
        wb__free(up->opts.env, up);
}

static void
free_if_over(struct wb__upstream_conn *l)
{
    struct wb__upstream *up = l->up;

    if (l->handles > 0 || l->looking)
        return;
    list_remove(l);
    if (l->found != NULL)
        uv_freeaddrinfo(l->found);
    wb__http_parser_fini(&l->parser);
    wb__buf_fini(&l->unsent);
    wb__free(up->opts.env, l);
    free_up_if_over(up);
}

static void
on_closed(uv_handle_t *handle)
{
    struct wb__upstream_conn *l = handle->data;

    l->handles--;
    if (!l->closing) /* only the socket: the next address is tried */
        try_next(l, 0);
    else
        free_if_over(l);
}

static void
close_link(struct wb__upstream_conn *l)
{
    if (l->closing)
        return;
    l->closing = true;
    if (l->ask != NULL)
        l->ask->link = NULL;
    l->ask = NULL;
    uv_close((uv_handle_t *)&l->alarm.timer, on_closed);
    if (!uv_is_closing((uv_handle_t *)&l->tcp))
        uv_close((uv_handle_t *)&l->tcp, on_closed);
}

static void
fail(struct wb__upstream_conn *l, const char *why)
{
    struct wb__upstream_request *ask = l->ask;
    bool wrote = l->wrote;

    close_link(l);
    if (ask != NULL)
        ask->on_fail(ask, wrote, why);
}

static void
restart_timer(struct wb__upstream_conn *l)
{
    const struct wb__upstream_opts *o = &l->up->opts;

    if (l->closing || l->why != NULL)
        return;
    if (l->paused)
        wb__deadline_cancel(&l->alarm);
    else
        wb__deadline_set(&l->alarm, l->ask == NULL  ? o->idle_ms
                                    : !l->connected ? o->connect_ms
                                                    : o->silence_ms);
}

static void
on_alarm(struct wb__deadline *alarm)
{
    struct wb__upstream_conn *l = alarm->timer.data;

    fail(l, l->why != NULL ? l->why
            : l->connected ? "it was silent for too long"
                           : "no connection came about in time");
}

/* Not from within a call of the asker's. */
static void
fail_later(struct wb__upstream_conn *l, const char *why)
{
    if (l->closing || l->why != NULL)
        return;
    l->why = why;
    wb__deadline_set(&l->alarm, 0);
}

/* ---- in ---------------------------------------------------------------- */

/* The answer is whole: keep the connection if it is clean. */
static void
finish(struct wb__upstream_conn *l, struct wb_slice rest, bool ended)
{
    struct wb__upstream_request *ask = l->ask;

    l->ask = NULL;
    ask->link = NULL;
    if (ended || rest.len > 0 || !l->parser.head.keep_alive || !l->sent_all ||
        l->queued > 0 || l->paused || l->up->closed) {
        close_link(l);
    } else {
        wb__http_parser_next(&l->parser);
        list_remove(l);
        list_add(l);
        l->kept_us = l->up->opts.env->mono_us(l->up->opts.env->ctx);
        restart_timer(l);
    }
    ask->on_end(ask);
}

static void
take_head(struct wb__upstream_conn *l)
{
    if (l->parser.head.status == 101) {
        l->ask->switched = true;
        fail(l, "it changed to another protocol, unasked");
        return;
    }
    if (l->parser.head.status >= 200)
        l->ask->on_head(l->ask, &l->parser.head);
    else if (++l->interim > INTERIM_MAX)
        fail(l, "it sent interim answers without an end");
}

static void
next_answer(struct wb__upstream_conn *l)
{
    wb__http_parser_next(&l->parser);
    l->parser.bodyless = l->ask->bodyless;
}

static void
take(struct wb__upstream_conn *l, struct wb_slice in)
{
    struct wb_slice piece;

    while (l->ask != NULL && !l->closing) {
        switch (wb__http_parser_feed(&l->parser, &in, &piece)) {
        case WB__HTTP_MORE:
            if (l->ask->on_input_drained != NULL)
                l->ask->on_input_drained(l->ask);
            return;
        case WB__HTTP_HEAD:
            take_head(l);
            break;
        case WB__HTTP_BODY:
            l->ask->on_body(l->ask, piece);
            break;
        case WB__HTTP_DONE:
            if (l->parser.head.status < 200) {
                next_answer(l);
                break;
            }
            finish(l, in, false);
            return;
        case WB__HTTP_BAD:
            fail(l, l->parser.why);
            return;
        }
    }
}

static void
on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
    struct wb__upstream_conn *l = handle->data;

    (void)wanted;
    *buf = uv_buf_init(l->up->input, sizeof(l->up->input));
}

static void
on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf)
{
    struct wb__upstream_conn *l = tcp->data;

    if (n == 0 || l->closing)
        return;
    if (l->ask == NULL) { /* kept: whatever comes, it is not asked for */
        close_link(l);
        return;
    }
    if (n > 0) {
        restart_timer(l);
        take(l, (struct wb_slice){buf->base, (size_t)n});
    } else if (n == UV_EOF &&
               wb__http_parser_end(&l->parser) == WB__HTTP_DONE) {
        finish(l, (struct wb_slice){NULL, 0}, true);
    } else {
        fail(l, "the connection ended before the answer was whole");
    }
}

/* ---- out --------------------------------------------------------------- */

static void
on_written(uv_write_t *req, int status)
{
    struct piece *p = (struct piece *)req;
    struct wb__upstream_conn *l = p->link;

    l->queued -= p->len;
    wb__free(l->up->opts.env, p);
    /* A failure shows when reading, after what may have been answered. */
    if (l->closing || l->ask == NULL || status < 0)
        return;
    restart_timer(l);
    if (l->queued == 0 && l->ask->on_drain != NULL)
        l->ask->on_drain(l->ask);
}

static void
write_later(struct wb__upstream_conn *l, struct wb_slice bytes)
{
    struct piece *p = wb__alloc(l->up->opts.env, sizeof(*p) + bytes.len);
    uv_buf_t buf;

    if (p == NULL) {
        fail_later(l, "out of memory");
        return;
    }
    memcpy(p->bytes, bytes.ptr, bytes.len);
    p->link = l;
    p->len = bytes.len;
    l->queued += p->len;
    buf = uv_buf_init(p->bytes, (unsigned)p->len);
    if (uv_write(&p->write, (uv_stream_t *)&l->tcp, &buf, 1, on_written) == 0)
        return;
    l->queued -= p->len;
    wb__free(l->up->opts.env, p);
    fail_later(l, "it could not be written to");
}

/* Now what the kernel takes; the rest, and any error, is uv_write()'s. */
static void
flush(struct wb__upstream_conn *l)
{
    struct wb_slice bytes = wb__buf_slice(&l->unsent);
    uv_buf_t buf = uv_buf_init(l->unsent.ptr, (unsigned)bytes.len);
    int sent = 0;

    if (!l->connected || l->why != NULL || bytes.len == 0)
        return;
    l->wrote = true;
    if (l->queued == 0)
        sent = uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);
    bytes = wb__from(bytes, sent < 0 ? 0 : (size_t)sent);
    if (bytes.len > 0)
        write_later(l, bytes);
    wb__buf_fini(&l->unsent);
    if (bytes.len == 0 && l->ask->on_drain != NULL)
        l->ask->on_drain(l->ask);
}

/* ---- connecting -------------------------------------------------------- */

static void
begin_talk(struct wb__upstream_conn *l)
{
    l->connected = true;
    (void)uv_tcp_nodelay(&l->tcp, 1);
    restart_timer(l);
    if (uv_read_start((uv_stream_t *)&l->tcp, on_alloc, on_read) != 0)
        fail(l, "it could not be read from");
    else
        flush(l);
}

static void
on_connected(uv_connect_t *req, int status)
{
    struct wb__upstream_conn *l = req->handle->data;

    if (l->closing)
        return;
    if (status == 0)
        begin_talk(l);
    else if (l->trying == NULL)
        fail(l, uv_strerror(status));
    else /* a socket that failed to connect is of no more use */
        uv_close((uv_handle_t *)&l->tcp, on_closed);
}

static void
try_next(struct wb__upstream_conn *l, int why)
{
    const struct addrinfo *at = l->trying;
    int rc;

    if (at == NULL) {
        fail(l, uv_strerror(why));
        return;
    }
    l->trying = at->ai_next;
    (void)uv_tcp_init(l->up->opts.loop, &l->tcp);
    l->tcp.data = l;
    l->handles++;
    rc = uv_tcp_connect(&l->connect, &l->tcp, at->ai_addr, on_connected);
    if (rc != 0)
        fail(l, uv_strerror(rc));
}

static void
on_found(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct wb__upstream_conn *l = req->data;

    l->looking = false;
    l->found = l->trying = found;
    if (l->closing) {
        free_if_over(l);
        return;
    }
    uv_close((uv_handle_t *)&l->tcp, on_closed);
    if (status != 0) {
        l->trying = NULL;
        fail(l, uv_strerror(status));
    }
}

static int
look_up(struct wb__upstream_conn *l)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int rc = uv_getaddrinfo(l->up->opts.loop, &l->lookup, on_found, l->up->host,
        l->up->port, &hints);

    l->looking = rc == 0;
    return rc;
}

/* An address is connected to at once; a name is looked up first. */
static int
connect_link(struct wb__upstream_conn *l)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    uint64_t port = 0;
    const struct sockaddr *at = NULL;

    if (!wb__parse_u64(wb_slice(l->up->port), UINT16_MAX, &port))
        return UV_EINVAL;
    if (uv_ip4_addr(l->up->host, (int)port, &in) == 0)
        at = (const struct sockaddr *)&in;
    else if (uv_ip6_addr(l->up->host, (int)port, &in6) == 0)
        at = (const struct sockaddr *)&in6;
    return at == NULL ? look_up(l)
                      : uv_tcp_connect(&l->connect, &l->tcp, at, on_connected);
}

static struct wb__upstream_conn *
new_link(struct wb__upstream *up)
{
    static const struct wb__http_limits limits = {
        .head_bytes = HEAD_BYTES, .body_bytes = INT64_MAX};
    struct wb__upstream_conn *l = wb__alloc(up->opts.env, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->up = up;
    list_add(l);
    l->unsent.env = up->opts.env;
    l->unsent.max = UNSENT_MAX;
    wb__http_parser_init(&l->parser, up->opts.env, WB__HTTP_RESPONSES, &limits);
    (void)uv_tcp_init(up->opts.loop, &l->tcp);
    wb__deadline_init(up->opts.loop, &l->alarm, on_alarm);
    l->tcp.data = l->alarm.timer.data = l->lookup.data = l;
    l->handles = 2;
    return l;
}

/* ---- the pool ---------------------------------------------------------- */

static bool
is_fresh(const struct wb__upstream_conn *l)
{
    const struct wb__upstream_opts *o = &l->up->opts;
    int64_t age_us = o->env->mono_us(o->env->ctx) - l->kept_us;
    uv_os_fd_t fd;

    return age_us < o->idle_ms * 1000 &&
           uv_fileno((const uv_handle_t *)&l->tcp, &fd) == 0 &&
           !wb__readable(fd);
}

static struct wb__upstream_conn *
take_kept(struct wb__upstream *up)
{
    for (struct wb__upstream_conn *l = up->first; l != NULL; l = l->next) {
        if (l->ask != NULL || l->closing)
            continue;
        if (is_fresh(l))
            return l;
        close_link(l);
    }
    return NULL;
}

static void
bind_ask(struct wb__upstream_conn *l, struct wb__upstream_request *ask)
{
    l->ask = ask;
    ask->link = l;
    l->sent_all = l->wrote = l->paused = false;
    l->interim = 0;
    l->parser.bodyless = ask->bodyless;
    restart_timer(l);
}

enum wb_status
wb__upstream_send(struct wb__upstream *up, struct wb__upstream_request *ask,
    struct wb_slice bytes)
{
    struct wb__upstream_conn *l = take_kept(up);
    int rc;

    if (l == NULL)
        l = new_link(up);
    if (l == NULL)
        return WB_NOMEM;
    wb__buf_add(&l->unsent, bytes);
    if (l->unsent.failed != WB_OK) {
        close_link(l);
        return WB_NOMEM;
    }
    bind_ask(l, ask);
    rc = l->connected ? 0 : connect_link(l);
    if (rc != 0)
        fail_later(l, uv_strerror(rc));
    return WB_OK;
}

void
wb__upstream_write(struct wb__upstream_request *ask, struct wb_slice bytes)
{
    struct wb__upstream_conn *l = ask->link;

    if (l == NULL || bytes.len == 0)
        return;
    wb__buf_add(&l->unsent, bytes);
    if (l->unsent.failed != WB_OK)
        fail_later(l, "out of memory");
}

size_t
wb__upstream_queued(const struct wb__upstream_request *ask)
{
    return ask->link == NULL ? 0 : ask->link->queued + ask->link->unsent.len;
}

void
wb__upstream_flush(struct wb__upstream_request *ask)
{
    if (ask->link != NULL)
        flush(ask->link);
}

void
wb__upstream_end(struct wb__upstream_request *ask)
{
    if (ask->link == NULL)
        return;
    ask->link->sent_all = true;
    flush(ask->link);
}

void
wb__upstream_pause(struct wb__upstream_request *ask, bool pause)
{
    struct wb__upstream_conn *l = ask->link;

    if (l == NULL || !l->connected || l->paused == pause)
        return;
    l->paused = pause;
    restart_timer(l);
    if (pause)
        (void)uv_read_stop((uv_stream_t *)&l->tcp);
    else
        (void)uv_read_start((uv_stream_t *)&l->tcp, on_alloc, on_read);
}

void
wb__upstream_cancel(struct wb__upstream_request *ask)
{
    if (ask->link != NULL)
        close_link(ask->link);
}

enum wb_status
wb__upstream_open(struct wb__upstream **out,
    const struct wb__upstream_opts *opts, struct wb_err *err)
{
    struct wb__upstream *up = wb__alloc(opts->env, sizeof(*up));

    if (up == NULL)
        return wb__nomem(err, "upstream");
    up->opts = *opts;
    up->opts.connect_ms = opts->connect_ms == 0 ? 5000 : opts->connect_ms;
    up->opts.silence_ms = opts->silence_ms == 0 ? 60000 : opts->silence_ms;
    up->opts.idle_ms = opts->idle_ms == 0 ? 2000 : opts->idle_ms;
    (void)snprintf(up->host, sizeof(up->host), "%.*s", (int)opts->host.len,
        opts->host.ptr);
    (void)snprintf(up->port, sizeof(up->port), "%.*s", (int)opts->port.len,
        opts->port.ptr);
    *out = up;
    return WB_OK;
}

void
wb__upstream_close(struct wb__upstream *up)
{
    up->closed = true;
    for (struct wb__upstream_conn *l = up->first; l != NULL; l = l->next)
        if (l->ask == NULL)
            close_link(l);
    free_up_if_over(up);
}
