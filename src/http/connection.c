/* connection.c - one connection: from bytes to exchanges and back.
 *
 *  1. phase is what is waited for; wb__connection_set_phase() alone changes it,
 *     and gives each phase its deadline.
 *  2. A connection is freed once its handles are closed and its exchange, if
 *     one is open, was ended by the handler.
 *  3. Input that arrives while an exchange is open waits in `pipelined`,
 *     bounded: past PIPELINED_BYTES nothing is read. */
#include "http/connection.h"

enum {
    PIPELINED_BYTES = 64 << 10,
    LINGER_BYTES = 48 << 20,
    LINGER_STEP = 64 << 10 /* so much within linger_ms extends the wait */
};

static void next_requests(struct wb__connection *c);

/* Count its memory. False: all connections together hold too much. */
static bool
account(struct wb__connection *c)
{
    size_t now = c->parser.text.cap + c->body.cap + c->pipelined.cap +
                 c->head.cap + c->stream.queued;

    c->server->bytes = c->server->bytes - c->bytes + now;
    c->bytes = now;
    return c->server->bytes <= c->server->opts.max_bytes;
}

/* ---- phases and the end ------------------------------------------------- */

void
wb__connection_set_phase(struct wb__connection *c, enum wb__phase phase)
{
    const struct wb__http_server_opts *o = &c->server->opts;
    const int64_t ms[] = {
        [WB__PHASE_IDLE] = o->idle_ms,
        [WB__PHASE_HEAD] = o->head_ms,
        [WB__PHASE_BODY] = o->body_ms,
        [WB__PHASE_HANDLER] = o->write_ms,
        [WB__PHASE_WRITE] = o->write_ms,
        [WB__PHASE_LINGER] = o->linger_ms,
    };

    WB_ASSERT(phase < WB__PHASE_CLOSED);
    c->phase = phase;
    /* No deadline while the connection waits for the handler alone. */
    if (c->stream.queued == 0 &&
        (phase == WB__PHASE_HANDLER || (phase == WB__PHASE_BODY && c->paused)))
        wb__tcp_stream_cancel_deadline(&c->stream);
    else
        wb__tcp_stream_set_deadline(&c->stream, ms[phase]);
}

/* The queue of bytes to send has changed: a client that takes nothing is cut
 * off. While a body arrives its own deadline is kept. */
static void
restart_write_deadline(struct wb__connection *c)
{
    if (c->phase == WB__PHASE_HANDLER || c->phase == WB__PHASE_WRITE ||
        (c->phase == WB__PHASE_BODY && c->paused))
        wb__connection_set_phase(c, c->phase);
}

static void
free_if_unused(struct wb__connection *c)
{
    struct wb__http_server *s = c->server;

    if (!wb__tcp_stream_is_closed(&c->stream) ||
        c->exchange_state != WB__EXCHANGE_NONE)
        return;
    wb__http_parser_fini(&c->parser);
    wb__buf_fini(&c->body);
    wb__buf_fini(&c->pipelined);
    wb__buf_fini(&c->head);
    (void)account(c);
    wb__tcp_stream_remove(&c->stream);
    wb__free(s->opts.env, c);
    s->connections--;
    s->on_connection_freed(s);
}

static void
on_closed(struct wb__tcp_stream *s)
{
    free_if_unused(s->owner);
}

void
wb__connection_release(struct wb__connection *c)
{
    c->exchange_state = WB__EXCHANGE_NONE;
    free_if_unused(c);
}

static void
report_gone(struct wb__connection *c)
{
    if (c->exchange_state == WB__EXCHANGE_NONE || c->exchange.gone)
        return;
    c->exchange.gone = true;
    if (c->exchange.on_gone != NULL)
        c->exchange.on_gone(&c->exchange);
}

/* From now on the handler's response is dropped. */
static void
detach_exchange(struct wb__connection *c)
{
    if (c->exchange_state != WB__EXCHANGE_NONE)
        c->exchange_state = WB__EXCHANGE_DETACHED;
    report_gone(c);
}

void
wb__connection_close(struct wb__connection *c)
{
    if (c->phase == WB__PHASE_CLOSED)
        return;
    c->phase = WB__PHASE_CLOSED;
    wb__tcp_stream_close(&c->stream, c->framing == WB__FRAMING_CLOSE);
    detach_exchange(c);
}

void
wb__connection_update_reading(struct wb__connection *c)
{
    if (c->paused || c->eof || c->pipelined.len >= PIPELINED_BYTES)
        wb__tcp_stream_read_stop(&c->stream);
    else
        (void)wb__tcp_stream_read_start(&c->stream);
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
    struct wb__connection *c = req->data;

    if (status < 0 || c->eof)
        wb__connection_close(c);
}

/* ---- out ---------------------------------------------------------------- */

void
wb__connection_response_sent(struct wb__connection *c)
{
    c->framing = WB__FRAMING_LENGTH;
    wb__buf_fini(&c->body);
    if (!c->keep_alive) {
        /* Nothing more will be sent. Closing now would reset the connection if
         * input is unread, and take the response away from the client. */
        c->linger_end_ms =
            uv_now(c->server->opts.loop) + (uint64_t)c->server->opts.body_ms;
        wb__connection_set_phase(c, WB__PHASE_LINGER);
        wb__buf_fini(&c->pipelined);
        c->paused = false;
        wb__connection_update_reading(c);
        c->shutdown.data = c;
        if (uv_shutdown(
                &c->shutdown, (uv_stream_t *)&c->stream.tcp, on_shutdown) != 0)
            wb__connection_close(c);
    } else if (c->parsing) {
        c->next_ready = true;
    } else {
        next_requests(c);
    }
    (void)account(c);
}

static void
on_sent(struct wb__tcp_stream *s, int status)
{
    struct wb__connection *c = s->owner;

    (void)account(c);
    if (status < 0)
        wb__connection_close(c);
    if (c->phase == WB__PHASE_WRITE && s->queued == 0) {
        wb__connection_response_sent(c);
        return;
    }
    restart_write_deadline(c);
    /* Also where the connection is closed: the queue is empty. */
    if (s->queued == 0 && c->exchange_state != WB__EXCHANGE_NONE &&
        c->exchange.on_drain != NULL)
        c->exchange.on_drain(&c->exchange);
}

void
wb__connection_write(
    struct wb__connection *c, const struct wb_slice *parts, size_t n)
{
    if (wb__tcp_stream_write(&c->stream, parts, n) != 0) {
        wb__connection_close(c);
    } else if (c->stream.queued > 0) {
        (void)account(c);
        restart_write_deadline(c);
    }
    wb__buf_fini(&c->head);
}

bool
wb__connection_keeps_alive(const struct wb__connection *c,
    const struct wb__response *response, const struct wb__http_head *request)
{
    /* After a request that is not complete no other can be found. */
    return request != NULL && request->keep_alive && !response->close &&
           !c->server->stopping && c->phase != WB__PHASE_BODY;
}

void
wb__connection_respond(struct wb__connection *c,
    const struct wb__response *response, const struct wb__http_head *request)
{
    bool bodyless = response->status == 204 || response->status == 304;
    bool is_head = request != NULL && wb__eq(request->method, WB_LIT("HEAD"));
    struct wb_slice parts[2];

    c->keep_alive = wb__connection_keeps_alive(c, response, request);
    wb__response_add_head(&c->head, response, request,
        bodyless ? WB__LENGTH_UNKNOWN : response->body.len, c->keep_alive);
    wb__connection_set_phase(c, WB__PHASE_WRITE);
    if (c->head.failed != WB_OK) {
        wb__connection_close(c);
        return;
    }
    parts[0] = wb__buf_slice(&c->head);
    parts[1] = response->body;
    wb__connection_write(c, parts, bodyless || is_head ? 1 : 2);
    if (c->phase == WB__PHASE_WRITE && c->stream.queued == 0)
        wb__connection_response_sent(c);
}

/* Respond in place of the handler, and end the connection. */
static void
refuse(struct wb__connection *c, int status, const char *why)
{
    char text[256];
    struct wb__buf body = {.env = c->server->opts.env, .max = sizeof(text)};
    struct wb__response response = {.status = status,
        .headers = WB_LIT("Content-Type: application/problem+json\n")};

    if (c->exchange_state == WB__EXCHANGE_BEGUN) {
        wb__connection_close(c);
        return;
    }
    if (c->server->opts.refused != NULL)
        c->server->opts.refused(c->server->opts.ctx, status, why);
    detach_exchange(c);
    wb__buf_fini(&c->body); /* it may be the memory that is lacking */
    wb__buf_fmt(&body, "{\"status\":%d,\"title\":\"%s\",\"detail\":\"%s\"}\n",
        status, wb__http_reason(status), why);
    response.body = wb__buf_slice(&body);
    wb__connection_respond(c, &response, NULL);
    wb__buf_fini(&body);
}

/* ---- in ----------------------------------------------------------------- */

static void
on_deadline(struct wb__tcp_stream *s)
{
    struct wb__connection *c = s->owner;

    if (c->phase == WB__PHASE_HEAD)
        refuse(c, 408, "the head did not arrive in time");
    else if (c->phase == WB__PHASE_BODY)
        refuse(c, 408, "the body did not arrive in time");
    else
        wb__connection_close(c);
}

static void
begin_exchange(struct wb__connection *c)
{
    c->exchange_state = WB__EXCHANGE_OPEN;
    c->exchange = (struct wb__exchange){
        .head = &c->parser.head, .body = wb__buf_slice(&c->body)};
    c->server->opts.handle(c->server->opts.ctx, &c->exchange);
}

/* The head is complete; `in` is what followed it. */
static void
on_head(struct wb__connection *c, struct wb_slice in)
{
    static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const struct wb__http_head *head = &c->parser.head;
    uv_buf_t buf = uv_buf_init(text, sizeof(text) - 1);

    if (!head->chunked && head->length == 0)
        return;
    wb__connection_set_phase(c, WB__PHASE_BODY);
    if (c->server->opts.stream)
        begin_exchange(c);
    /* Not after the head of the response. Nothing else is being sent: this
     * fits, or the client is gone. */
    if (c->phase == WB__PHASE_BODY && head->expects && in.len == 0 &&
        c->exchange_state != WB__EXCHANGE_BEGUN &&
        uv_try_write((uv_stream_t *)&c->stream.tcp, &buf, 1) != (int)buf.len)
        wb__connection_close(c);
}

static void
on_body(struct wb__connection *c, struct wb_slice piece)
{
    if (c->exchange_state != WB__EXCHANGE_NONE) {
        if (c->exchange.patient && !c->paused)
            wb__connection_set_phase(c, WB__PHASE_BODY); /* a new deadline */
        if (c->exchange.on_body != NULL)
            c->exchange.on_body(&c->exchange, piece);
        return;
    }
    wb__buf_add(&c->body, piece);
    if (c->body.failed != WB_OK)
        refuse(c, 503, "out of memory");
}

/* Parse until a request is complete or the input used up; what is left. */
static struct wb_slice
parse(struct wb__connection *c, struct wb_slice in)
{
    struct wb_slice piece = {NULL, 0};

    while (c->phase <= WB__PHASE_BODY) {
        switch (wb__http_parser_feed(&c->parser, &in, &piece)) {
        case WB__HTTP_MORE:
            if (c->phase == WB__PHASE_IDLE && wb__http_parser_begun(&c->parser))
                wb__connection_set_phase(c, WB__PHASE_HEAD);
            if (c->exchange_state != WB__EXCHANGE_NONE &&
                c->exchange.on_input_drained != NULL)
                c->exchange.on_input_drained(&c->exchange);
            if (!account(c) && c->phase <= WB__PHASE_BODY)
                refuse(c, 503, "too much is held for other requests");
            return in;
        case WB__HTTP_HEAD:
            on_head(c, in);
            break;
        case WB__HTTP_BODY:
            on_body(c, piece);
            break;
        case WB__HTTP_DONE:
            wb__connection_set_phase(c, WB__PHASE_HANDLER);
            if (c->exchange_state == WB__EXCHANGE_NONE)
                begin_exchange(c);
            if (c->exchange_state != WB__EXCHANGE_NONE &&
                c->exchange.on_body_end != NULL)
                c->exchange.on_body_end(&c->exchange);
            break;
        case WB__HTTP_BAD:
            refuse(c, c->parser.status, c->parser.why);
            break;
        }
    }
    return in;
}

/* Will input that comes now be parsed, once the response was sent? */
static bool
has_next(const struct wb__connection *c)
{
    return c->phase == WB__PHASE_HANDLER ||
           (c->phase == WB__PHASE_WRITE && c->keep_alive);
}

/* Input that is not needed any more. A client that sends on before it reads the
 * response gets the time of a body: a reset before that would lose it the
 * response. */
static void
drain(struct wb__connection *c, size_t n)
{
    const struct wb__http_server_opts *o = &c->server->opts;
    uint64_t now = uv_now(o->loop);
    bool step = (c->drained + n) / LINGER_STEP != c->drained / LINGER_STEP;

    c->drained += n;
    if (c->drained > LINGER_BYTES)
        wb__connection_close(c);
    else if (step && c->phase == WB__PHASE_LINGER &&
             now + (uint64_t)o->linger_ms < c->linger_end_ms)
        wb__connection_set_phase(c, WB__PHASE_LINGER);
}

/* Input after a complete request: keep it for later, or throw it away. */
static void
on_pipelined(struct wb__connection *c, struct wb_slice in)
{
    if (in.len == 0 || c->phase == WB__PHASE_CLOSED)
        return;
    if (has_next(c)) {
        wb__buf_add(&c->pipelined, in);
        if (c->pipelined.failed != WB_OK) {
            wb__connection_close(c);
            return;
        }
        (void)account(c);
        wb__connection_update_reading(c);
        return;
    }
    drain(c, in.len);
}

/* The response was sent: parse the next request, which may have come. */
static void
next_request(struct wb__connection *c)
{
    struct wb__buf in = c->pipelined;
    struct wb_slice left;

    c->pipelined = (struct wb__buf){.env = in.env, .max = in.max};
    c->paused = false;
    wb__http_parser_next(&c->parser);
    wb__tcp_stream_touch(&c->stream);
    wb__connection_set_phase(c, WB__PHASE_IDLE);
    left = parse(c, wb__buf_slice(&in));
    if (left.len > 0 && has_next(c)) {
        memmove(in.ptr, left.ptr, left.len);
        in.len = left.len;
        c->pipelined = in;
    } else {
        wb__buf_fini(&in);
    }
    /* The request will never be complete, or another client waits. */
    if ((c->phase <= WB__PHASE_BODY && c->eof) ||
        (c->phase == WB__PHASE_IDLE &&
            (c->server->stopping || c->server->waiting))) {
        wb__connection_close(c);
    } else if (c->phase != WB__PHASE_CLOSED) {
        wb__connection_update_reading(c);
    }
}

/* A request that the handler responds to at once is followed by the next one in
 * this loop, not by recursion. */
static void
next_requests(struct wb__connection *c)
{
    c->parsing = true;
    do {
        c->next_ready = false;
        next_request(c);
    } while (c->next_ready);
    c->parsing = false;
}

static void
on_read(struct wb__tcp_stream *s, ssize_t n, const char *bytes)
{
    struct wb__connection *c = s->owner;
    struct wb_slice in = {bytes, n < 0 ? 0 : (size_t)n};

    if (n < 0) {
        c->eof = true;
        if (n != UV_EOF || c->phase <= WB__PHASE_BODY ||
            c->phase == WB__PHASE_LINGER)
            wb__connection_close(c);
        else
            report_gone(c);
        return;
    }
    if (c->phase > WB__PHASE_BODY) {
        on_pipelined(c, in);
        return;
    }
    c->parsing = true;
    c->next_ready = false;
    on_pipelined(c, parse(c, in));
    c->parsing = false;
    if (c->next_ready)
        next_requests(c);
}

/* ---- begin -------------------------------------------------------------- */

void
wb__connection_init_group(
    struct wb__tcp_group *group, const struct wb__http_server_opts *o)
{
    group->env = o->env;
    group->loop = o->loop;
    group->on_read = on_read;
    group->on_sent = on_sent;
    group->on_deadline = on_deadline;
    group->on_closed = on_closed;
}

struct wb__connection *
wb__connection_new(struct wb__http_server *s)
{
    const struct wb__http_server_opts *o = &s->opts;
    struct wb__connection *c = wb__alloc(o->env, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->server = s;
    wb__http_parser_init(&c->parser, o->env, WB__HTTP_REQUESTS, &o->limits);
    c->body.env = c->pipelined.env = c->head.env = o->env;
    c->body.max = c->parser.limits.body_bytes;
    c->pipelined.max = PIPELINED_BYTES + sizeof(s->streams.input);
    return c;
}

void
wb__connection_accept(struct wb__connection *c)
{
    struct wb__http_server *s = c->server;

    wb__tcp_stream_init(&c->stream, &s->streams, c);
    s->connections++;
    wb__connection_set_phase(c, WB__PHASE_IDLE);
    if (uv_accept((uv_stream_t *)&s->listener, (uv_stream_t *)&c->stream.tcp) !=
            0 ||
        wb__tcp_stream_read_start(&c->stream) != 0)
        wb__connection_close(c);
    else
        (void)uv_tcp_nodelay(&c->stream.tcp, 1);
}

void
wb__connection_close_idle(struct wb__http_server *s, bool every)
{
    for (struct wb__tcp_stream *t = s->streams.first; t != NULL; t = t->next) {
        struct wb__connection *c = t->owner;

        if (c->phase != WB__PHASE_IDLE)
            continue;
        wb__connection_close(c);
        if (!every)
            return;
    }
}

void
wb__connection_close_all(struct wb__http_server *s)
{
    for (struct wb__tcp_stream *t = s->streams.first; t != NULL; t = t->next)
        wb__connection_close(t->owner);
}
