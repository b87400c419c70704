/* upstream.c - requests to the server behind the gateway, over connections that
 * are kept.
 *
 *  1. A kept connection is used only within idle_ms of its last response, and
 *     only while nothing can be read from it. (G-14)
 *  2. Nothing is ever sent twice. on_fail() says whether a byte may have left:
 *     a write that met the end of the connection counts as sent. (G-9)
 *     It also says that a kept connection ended before any byte of a response:
 *     the owner of a safe request may send that again.
 *  3. Responses 1xx are dropped. What the parser refuses, a 101 and a response
 *     that was cut short are failures. (G-14)
 *
 * The states of a connection: LOOKUP -> CONNECTING -> CONNECTED -> CLOSED; a
 * literal address needs no LOOKUP. An address that cannot be connected to is
 * followed by the next one of the name, on a new socket, still in CONNECTING.
 */
#include "gate/gate_internal.h"

#include <stdio.h>

#include "http/tcp_stream.h"
#include "os/os.h"

enum {
    HEAD_BYTES = 32 << 10,
    INTERIM_MAX = 100,   /* responses 1xx before the final one */
    UNSENT_MAX = 1 << 30 /* the owners of requests limit what they write */
};

struct wb__upstream {
    struct wb__upstream_opts opts;
    char host[256], port[8];
    struct wb__tcp_group connections; /* the last one responded last */
    bool closed;
};

enum connection_state {
    LOOKUP,
    CONNECTING,
    CONNECTED,
    CLOSED, /* its memory stays until handles and lookup are done */
};

struct wb__upstream_connection {
    struct wb__upstream *up;
    struct wb__upstream_request *request; /* NULL: kept, or closed */
    struct wb__tcp_stream stream;
    enum connection_state state;
    bool lookup_pending;
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
    struct addrinfo *addresses, *next_address;
    struct wb__http_parser parser;
    struct wb__buf unsent; /* until it is flushed and connected */
    int interim;           /* responses 1xx */
    bool may_have_sent, request_complete, paused;
    bool reused;         /* it was kept when this request began */
    const char *failure; /* reported when the deadline, now due, expires */
    int64_t kept_since_us;
};

/* ---- the end ------------------------------------------------------------ */

static void
free_upstream_if_unused(struct wb__upstream *up)
{
    if (up->closed && up->connections.first == NULL)
        wb__free(up->opts.env, up);
}

static void
free_if_unused(struct wb__upstream_connection *c)
{
    struct wb__upstream *up = c->up;

    if (!wb__tcp_stream_is_closed(&c->stream) || c->lookup_pending)
        return;
    wb__tcp_stream_remove(&c->stream);
    if (c->addresses != NULL)
        uv_freeaddrinfo(c->addresses);
    wb__http_parser_fini(&c->parser);
    wb__buf_fini(&c->unsent);
    wb__free(up->opts.env, c);
    free_upstream_if_unused(up);
}

static void
on_closed(struct wb__tcp_stream *s)
{
    free_if_unused(s->owner);
}

static void
close_connection(struct wb__upstream_connection *c)
{
    c->state = CLOSED;
    if (c->request != NULL)
        c->request->connection = NULL;
    c->request = NULL;
    wb__tcp_stream_close(&c->stream, false);
}

static void
fail(struct wb__upstream_connection *c, const char *why)
{
    struct wb__upstream_request *request = c->request;

    close_connection(c);
    if (request != NULL)
        request->on_fail(request, c->may_have_sent, why);
}

static void
restart_deadline(struct wb__upstream_connection *c)
{
    const struct wb__upstream_opts *o = &c->up->opts;
    int64_t ms = c->request == NULL      ? o->idle_ms
                 : c->state != CONNECTED ? o->connect_ms
                                         : o->silence_ms;

    if (c->state == CLOSED || c->failure != NULL)
        return;
    if (c->paused)
        wb__tcp_stream_cancel_deadline(&c->stream);
    else
        wb__tcp_stream_set_deadline(&c->stream, ms);
}

static void
on_deadline(struct wb__tcp_stream *s)
{
    struct wb__upstream_connection *c = s->owner;

    fail(c, c->failure != NULL      ? c->failure
            : c->state == CONNECTED ? "it was silent for too long"
                                    : "no connection came about in time");
}

/* For failures within a call of wb__upstream_...(): on_fail() comes from the
 * loop. */
static void
fail_later(struct wb__upstream_connection *c, const char *why)
{
    if (c->state == CLOSED || c->failure != NULL)
        return;
    c->failure = why;
    wb__tcp_stream_set_deadline(&c->stream, 0);
}

/* ---- the response ------------------------------------------------------- */

/* The response is complete: keep the connection if it is clean. rest: input
 * behind the response; eof: the connection has ended. */
static void
end_request(struct wb__upstream_connection *c, struct wb_slice rest, bool eof)
{
    struct wb__upstream_request *request = c->request;
    const struct wb_env *env = c->up->opts.env;

    if (eof || rest.len > 0 || !c->parser.head.keep_alive ||
        !c->request_complete || c->stream.queued > 0 || c->paused ||
        c->failure != NULL || c->up->closed) {
        close_connection(c);
    } else {
        c->request = NULL;
        request->connection = NULL;
        wb__http_parser_next(&c->parser);
        wb__tcp_stream_touch(&c->stream);
        c->kept_since_us = env->mono_us(env->ctx);
        restart_deadline(c);
    }
    request->on_end(request);
}

static void
on_head(struct wb__upstream_connection *c)
{
    if (c->parser.head.status == 101) {
        c->request->switched = true;
        fail(c, "it changed to another protocol, unasked");
    } else if (c->parser.head.status >= 200) {
        c->request->on_head(c->request, &c->parser.head);
    } else if (++c->interim > INTERIM_MAX) {
        fail(c, "it sent interim responses without an end");
    }
}

static void
parse(struct wb__upstream_connection *c, struct wb_slice in)
{
    struct wb_slice piece;

    while (c->request != NULL) {
        switch (wb__http_parser_feed(&c->parser, &in, &piece)) {
        case WB__HTTP_MORE:
            if (c->request->on_input_drained != NULL)
                c->request->on_input_drained(c->request);
            return;
        case WB__HTTP_HEAD:
            on_head(c);
            break;
        case WB__HTTP_BODY:
            c->request->on_body(c->request, piece);
            break;
        case WB__HTTP_DONE:
            if (c->parser.head.status >= 200) {
                end_request(c, in, false);
                return;
            }
            wb__http_parser_next(&c->parser);
            c->parser.bodyless = c->request->bodyless;
            break;
        case WB__HTTP_BAD:
            fail(c, c->parser.why);
            return;
        }
    }
}

/* The connection has ended within a response, or before it. */
static void
fail_at_end(struct wb__upstream_connection *c)
{
    bool begun = wb__http_parser_begun(&c->parser) || c->interim > 0;

    c->request->stale = c->reused && !begun;
    fail(c, begun ? "the connection ended before the response was complete"
            : c->reused
                ? "the kept connection was closed as the request was sent"
                : "the connection ended without a response");
}

static void
on_read(struct wb__tcp_stream *s, ssize_t n, const char *bytes)
{
    struct wb__upstream_connection *c = s->owner;

    if (c->request == NULL) { /* kept: no request is open */
        close_connection(c);
    } else if (n > 0) {
        restart_deadline(c);
        parse(c, (struct wb_slice){bytes, (size_t)n});
    } else if (n == UV_EOF &&
               wb__http_parser_end(&c->parser) == WB__HTTP_DONE) {
        end_request(c, (struct wb_slice){NULL, 0}, true);
    } else {
        fail_at_end(c);
    }
}

/* ---- the request -------------------------------------------------------- */

static void
report_drained(struct wb__upstream_connection *c)
{
    if (c->stream.queued == 0 && c->request->on_drain != NULL)
        c->request->on_drain(c->request);
}

static void
on_sent(struct wb__tcp_stream *s, int status)
{
    struct wb__upstream_connection *c = s->owner;

    /* A failure is reported by reading, after any response that has come. */
    if (c->request == NULL || status < 0)
        return;
    restart_deadline(c);
    report_drained(c);
}

static void
flush(struct wb__upstream_connection *c)
{
    struct wb_slice bytes = wb__buf_slice(&c->unsent);
    int rc;

    if (c->state != CONNECTED || c->failure != NULL || bytes.len == 0)
        return;
    c->may_have_sent = true;
    rc = wb__tcp_stream_write(&c->stream, &bytes, 1);
    wb__buf_fini(&c->unsent);
    if (rc != 0) {
        c->request->stale =
            c->reused && rc != UV_ENOMEM && !wb__http_parser_begun(&c->parser);
        fail_later(c,
            rc == UV_ENOMEM ? "out of memory" : "it could not be written to");
    } else
        report_drained(c);
}

/* ---- connecting --------------------------------------------------------- */

static void connect_next(struct wb__upstream_connection *c);

static void
on_connect_failed(struct wb__upstream_connection *c, int rc)
{
    if (c->next_address == NULL)
        fail(c, uv_strerror(rc));
    else
        wb__tcp_stream_reopen(&c->stream);
}

static void
on_reopened(struct wb__tcp_stream *s)
{
    connect_next(s->owner);
}

static void
on_connected(uv_connect_t *req, int status)
{
    struct wb__upstream_connection *c = req->data;

    if (c->state == CLOSED)
        return;
    if (status != 0) {
        on_connect_failed(c, status);
        return;
    }
    c->state = CONNECTED;
    (void)uv_tcp_nodelay(&c->stream.tcp, 1);
    restart_deadline(c);
    if (wb__tcp_stream_read_start(&c->stream) != 0)
        fail(c, "it could not be read from");
    else if (c->request != NULL && c->request->on_connected != NULL)
        c->request->on_connected(c->request);
    else
        flush(c);
}

static int
connect_to(struct wb__upstream_connection *c, const struct sockaddr *address)
{
    c->state = CONNECTING;
    return uv_tcp_connect(&c->connect, &c->stream.tcp, address, on_connected);
}

static void
connect_next(struct wb__upstream_connection *c)
{
    const struct addrinfo *address = c->next_address;
    int rc;

    c->next_address = address->ai_next;
    rc = connect_to(c, address->ai_addr);
    if (rc != 0)
        on_connect_failed(c, rc);
}

static void
on_lookup_done(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct wb__upstream_connection *c = req->data;

    c->lookup_pending = false;
    c->addresses = c->next_address = found;
    if (c->state == CLOSED)
        free_if_unused(c);
    else if (status != 0)
        fail(c, uv_strerror(status));
    else
        connect_next(c);
}

/* A literal address is connected to at once; a name is looked up first. */
static int
start_connecting(struct wb__upstream_connection *c)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    const struct wb__upstream *up = c->up;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    uint64_t port = 0;
    int rc;

    if (!wb__parse_u64(wb_slice(up->port), UINT16_MAX, &port))
        return UV_EINVAL;
    if (uv_ip4_addr(up->host, (int)port, &in) == 0)
        return connect_to(c, (const struct sockaddr *)&in);
    if (uv_ip6_addr(up->host, (int)port, &in6) == 0)
        return connect_to(c, (const struct sockaddr *)&in6);
    rc = uv_getaddrinfo(
        up->opts.loop, &c->lookup, on_lookup_done, up->host, up->port, &hints);
    c->lookup_pending = rc == 0;
    return rc;
}

static struct wb__upstream_connection *
new_connection(struct wb__upstream *up)
{
    static const struct wb__http_limits limits = {
        .head_bytes = HEAD_BYTES, .body_bytes = INT64_MAX};
    struct wb__upstream_connection *c = wb__alloc(up->opts.env, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->up = up;
    c->unsent.env = up->opts.env;
    c->unsent.max = UNSENT_MAX;
    c->lookup.data = c->connect.data = c;
    wb__http_parser_init(&c->parser, up->opts.env, WB__HTTP_RESPONSES, &limits);
    wb__tcp_stream_init(&c->stream, &up->connections, c);
    return c;
}

/* ---- requests ----------------------------------------------------------- */

/* The kept connection that responded last and is still usable, or NULL. */
static struct wb__upstream_connection *
find_kept(struct wb__upstream *up)
{
    const struct wb_env *env = up->opts.env;
    int64_t since_us = env->mono_us(env->ctx) - up->opts.idle_ms * 1000;
    uv_os_fd_t fd;

    for (struct wb__tcp_stream *s = up->connections.last; s != NULL;
         s = s->prev) {
        struct wb__upstream_connection *c = s->owner;

        if (c->request != NULL || c->state == CLOSED)
            continue;
        if (c->kept_since_us > since_us &&
            uv_fileno((const uv_handle_t *)&s->tcp, &fd) == 0 &&
            !wb__readable(fd))
            return c;
        close_connection(c);
    }
    return NULL;
}

enum wb_status
wb__upstream_send(struct wb__upstream *up, struct wb__upstream_request *request,
    struct wb_slice bytes)
{
    struct wb__upstream_connection *c = request->fresh ? NULL : find_kept(up);
    int rc = 0;

    WB_ASSERT(!up->closed && request->connection == NULL);
    request->stale = false;
    if (c == NULL)
        c = new_connection(up);
    if (c == NULL)
        return WB_NOMEM;
    c->reused = c->state == CONNECTED;
    wb__buf_add(&c->unsent, bytes);
    if (c->unsent.failed != WB_OK) {
        close_connection(c);
        return WB_NOMEM;
    }
    c->request = request;
    request->connection = c;
    c->request_complete = c->may_have_sent = c->paused = false;
    c->interim = 0;
    c->parser.bodyless = request->bodyless;
    restart_deadline(c);
    if (c->state != CONNECTED)
        rc = start_connecting(c);
    if (rc != 0)
        fail_later(c, uv_strerror(rc));
    return WB_OK;
}

void
wb__upstream_write(struct wb__upstream_request *request, struct wb_slice bytes)
{
    struct wb__upstream_connection *c = request->connection;

    if (c == NULL || bytes.len == 0)
        return;
    wb__buf_add(&c->unsent, bytes);
    if (c->unsent.failed != WB_OK)
        fail_later(c, "out of memory");
}

size_t
wb__upstream_queued(const struct wb__upstream_request *request)
{
    const struct wb__upstream_connection *c = request->connection;

    return c == NULL ? 0 : c->stream.queued + c->unsent.len;
}

void
wb__upstream_flush(struct wb__upstream_request *request)
{
    if (request->connection != NULL)
        flush(request->connection);
}

void
wb__upstream_end(struct wb__upstream_request *request)
{
    if (request->connection == NULL)
        return;
    request->connection->request_complete = true;
    flush(request->connection);
}

void
wb__upstream_pause(struct wb__upstream_request *request, bool pause)
{
    struct wb__upstream_connection *c = request->connection;

    if (c == NULL || c->state != CONNECTED || c->paused == pause)
        return;
    c->paused = pause;
    restart_deadline(c);
    if (pause)
        wb__tcp_stream_read_stop(&c->stream);
    else
        (void)wb__tcp_stream_read_start(&c->stream);
}

void
wb__upstream_cancel(struct wb__upstream_request *request)
{
    if (request->connection != NULL)
        close_connection(request->connection);
}

/* ---- open and close ----------------------------------------------------- */

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
    up->connections.env = opts->env;
    up->connections.loop = opts->loop;
    up->connections.on_read = on_read;
    up->connections.on_sent = on_sent;
    up->connections.on_deadline = on_deadline;
    up->connections.on_reopened = on_reopened;
    up->connections.on_closed = on_closed;
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
    for (struct wb__tcp_stream *s = up->connections.first; s != NULL;
         s = s->next) {
        struct wb__upstream_connection *c = s->owner;

        if (c->request == NULL)
            close_connection(c);
    }
    free_upstream_if_unused(up);
}
