/* server.c - listening, accepting, stopping. See server.h. */
#include "http/server.h"

#include <netdb.h>
#include <stdio.h>

#include "http/connection.h"

enum {
    BACKLOG = 1024
};

/* ---- the address ------------------------------------------------------- */

bool
wb__http_split_address(
    struct wb_slice s, struct wb_slice *host, struct wb_slice *port)
{
    size_t end = s.len; /* of the host */
    bool has_port;

    while (end > 0 && s.ptr[end - 1] != ':' && s.ptr[end - 1] != ']')
        end--;
    has_port = end > 0 && s.ptr[end - 1] == ':';
    *port = wb__from(s, has_port ? end : s.len);
    end = has_port ? end - 1 : s.len;
    *host = (struct wb_slice){s.ptr, end};
    if (end > 2 && s.ptr[0] == '[' && s.ptr[end - 1] == ']')
        *host = (struct wb_slice){s.ptr + 1, end - 2};
    else if (end > 0 && memchr(s.ptr, ':', end) != NULL)
        return false;
    return host->len < 256;
}

static void
read_address(struct wb__http_server *s)
{
    struct sockaddr_storage at;
    int len = sizeof(at);
    char host[64] = "?";

    if (uv_tcp_getsockname(&s->listener, (struct sockaddr *)&at, &len) != 0)
        return;
    if (at.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&at;

        (void)uv_ip6_name(in6, host, sizeof(host));
        (void)snprintf(s->address, sizeof(s->address), "[%s]:%d", host,
            (int)ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&at;

        (void)uv_ip4_name(in, host, sizeof(host));
        (void)snprintf(s->address, sizeof(s->address), "%s:%d", host,
            (int)ntohs(in->sin_port));
    }
}

/* ---- connections ------------------------------------------------------- */

/* libuv keeps one client until it is accepted, and reports no other before. */
static void
accept_one(struct wb__http_server *s)
{
    struct wb__connection *c = s->spare;

    s->waiting = s->connections >= s->opts.max_conns || c == NULL;
    if (s->waiting) {
        wb__connection_close_idle(s, false);
        return;
    }
    s->spare = wb__connection_new(s);
    wb__connection_accept(c);
}

static void
on_connection(uv_stream_t *listener, int status)
{
    struct wb__http_server *s = listener->data;

    /* Otherwise out of descriptors, or the client has left: nothing to do. */
    if (status == 0 && !s->stopping)
        accept_one(s);
}

static void
end_if_idle(struct wb__http_server *s)
{
    void (*stopped)(void *ctx) = s->opts.stopped;

    if (s->listening || s->connections > 0)
        return;
    if (s->closed) {
        wb__free(s->opts.env, s->spare);
        wb__free(s->opts.env, s);
    } else if (stopped != NULL) {
        s->opts.stopped = NULL;
        stopped(s->opts.ctx); /* may close the server */
    }
}

static void
on_connection_freed(struct wb__http_server *s)
{
    if (s->spare == NULL && !s->stopping)
        s->spare = wb__connection_new(s);
    if (s->waiting && !s->stopping)
        accept_one(s);
    end_if_idle(s);
}

static void
on_listener_closed(uv_handle_t *listener)
{
    struct wb__http_server *s = listener->data;

    s->listening = false;
    end_if_idle(s);
}

/* ---- open, stop, close -------------------------------------------------- */

static void
fill_defaults(struct wb__http_server_opts *o)
{
    o->env = o->env == NULL ? wb_env_system() : o->env;
    o->max_conns = o->max_conns == 0 ? 1024 : o->max_conns;
    o->max_bytes = o->max_bytes == 0 ? (size_t)64 << 20 : o->max_bytes;
    o->idle_ms = o->idle_ms == 0 ? 60000 : o->idle_ms;
    o->head_ms = o->head_ms == 0 ? 10000 : o->head_ms;
    o->body_ms = o->body_ms == 0 ? 30000 : o->body_ms;
    o->write_ms = o->write_ms == 0 ? 30000 : o->write_ms;
    o->linger_ms = o->linger_ms == 0 ? 2000 : o->linger_ms;
}

static enum wb_status
listen_on(struct wb__http_server *s, struct wb_slice host, struct wb_slice port,
    struct wb_err *err)
{
    const struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    char host_z[256] = "0.0.0.0", port_z[8];
    uv_getaddrinfo_t req;
    int rc;

    if (host.len > 0)
        (void)snprintf(host_z, sizeof(host_z), "%.*s", (int)host.len, host.ptr);
    (void)snprintf(port_z, sizeof(port_z), "%.*s", (int)port.len, port.ptr);
    rc = uv_getaddrinfo(s->opts.loop, &req, NULL, host_z, port_z, &hints);
    if (rc == 0) {
        rc = uv_tcp_bind(&s->listener, req.addrinfo->ai_addr, 0);
        uv_freeaddrinfo(req.addrinfo);
    }
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&s->listener, BACKLOG, on_connection);
    if (rc != 0)
        return wb__fail(err, WB_UNAVAILABLE, -rc,
            "cannot listen on %.*s: %s; choose another address, or port 0",
            WB_SHOW(s->opts.listen), uv_strerror(rc));
    read_address(s);
    return WB_OK;
}

enum wb_status
wb__http_server_open(struct wb__http_server **out,
    const struct wb__http_server_opts *opts, struct wb_err *err)
{
    struct wb__http_server_opts o = *opts;
    struct wb_slice host, port;
    uint64_t number;
    struct wb__http_server *s;
    enum wb_status status;

    WB_ASSERT(o.loop != NULL && o.handle != NULL);
    fill_defaults(&o);
    if (!wb__http_split_address(o.listen, &host, &port) ||
        !wb__parse_u64(port, UINT16_MAX, &number))
        return wb__fail(err, WB_INVALID, 0,
            "\"%.*s\" is not an address to listen on; write host:port, "
            "[v6]:port or :port",
            WB_SHOW(o.listen));
    s = wb__alloc(o.env, sizeof(*s));
    if (s == NULL)
        return wb__nomem(err, "server");
    s->opts = o;
    wb__connection_init_group(&s->streams, &o);
    s->spare = wb__connection_new(s);
    if (s->spare == NULL) {
        wb__free(o.env, s);
        return wb__nomem(err, "server");
    }
    s->on_connection_freed = on_connection_freed;
    s->listener.data = s;
    (void)uv_tcp_init(o.loop, &s->listener);
    s->listening = true;
    status = listen_on(s, host, port, err);
    s->opts.listen = (struct wb_slice){NULL, 0};
    if (status != WB_OK)
        wb__http_server_close(s);
    else
        *out = s;
    return status;
}

const char *
wb__http_server_address(const struct wb__http_server *server)
{
    return server->address;
}

static void
close_listener(struct wb__http_server *s)
{
    if (!s->stopping)
        uv_close((uv_handle_t *)&s->listener, on_listener_closed);
    s->stopping = true;
}

void
wb__http_server_stop(struct wb__http_server *s)
{
    close_listener(s);
    wb__connection_close_idle(s, true);
}

void
wb__http_server_close(struct wb__http_server *s)
{
    if (s == NULL)
        return;
    close_listener(s);
    s->closed = true;
    wb__connection_close_all(s);
    end_if_idle(s);
}
