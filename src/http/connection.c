/* connection.c - one connection: from bytes to calls and back.
 *
 *  1. phase is what is waited for; wb__connection_set_phase() alone changes it,
 * and gives each phase its deadline.
 *  2. A connection is freed once its handles are closed and its call, if one
 *     is open, has been answered.
 *  3. Input that arrives while a call is open waits in `later`, bounded: past
 *     LATER_BYTES nothing is read. */
#include "http/connection.h"

#include "http/response.h"

enum {
    LATER_BYTES = 64 << 10,
    LINGER_BYTES = 4 << 20
};

static void on_alarm(struct wb__deadline *alarm);
static void on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf);
static void resume(struct wb__connection *c);

/* ---- the server's list and books --------------------------------------- */

static void
list_add(struct wb__connection *c)
{
    struct wb__http_server *s = c->server;

    c->prev = s->last;
    c->next = NULL;
    *(s->last == NULL ? &s->first : &s->last->next) = c;
    s->last = c;
}

static void
list_remove(struct wb__connection *c)
{
    struct wb__http_server *s = c->server;

    *(c->prev == NULL ? &s->first : &c->prev->next) = c->next;
    *(c->next == NULL ? &s->last : &c->next->prev) = c->prev;
}

bool
wb__connection_account(struct wb__connection *c)
{
    size_t now = c->parser.text.cap + c->body.cap + c->later.cap + c->out.cap +
                 c->queued;

    c->server->bytes = c->server->bytes - c->bytes + now;
    c->bytes = now;
    return c->server->bytes <= c->server->opts.max_bytes;
}

/* ---- ends -------------------------------------------------------------- */

static void
free_if_over(struct wb__connection *c)
{
    struct wb__http_server *s = c->server;

    if (c->handles > 0 || c->called)
        return;
    wb__http_parser_fini(&c->parser);
    wb__buf_fini(&c->body);
    wb__buf_fini(&c->later);
    wb__buf_fini(&c->out);
    (void)wb__connection_account(c);
    list_remove(c);
    wb__free(s->opts.env, c);
    s->conns--;
    s->conn_ended(s);
}

static void
on_closed(uv_handle_t *handle)
{
    struct wb__connection *c = handle->data;

    c->handles--;
    free_if_over(c);
}

static void
tell_gone(struct wb__connection *c)
{
    if (!c->called || c->call.gone)
        return;
    c->call.gone = true;
    if (c->call.on_gone != NULL)
        c->call.on_gone(&c->call);
}

void
wb__connection_close(struct wb__connection *c)
{
    if (c->phase == WB__CLOSED)
        return;
    c->phase = WB__CLOSED;
    /* An end before its time must not look like the end. */
    if (!c->endless || uv_tcp_close_reset(&c->tcp, on_closed) != 0)
        uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->alarm.timer, on_closed);
    tell_gone(c);
}

void
wb__connection_set_phase(struct wb__connection *c, enum wb__phase phase)
{
    const struct wb__http_server_opts *o = &c->server->opts;
    int64_t ms = phase == WB__IDLE                         ? o->idle_ms
                 : phase == WB__HEAD                       ? o->head_ms
                 : phase == WB__BODY                       ? o->body_ms
                 : phase == WB__WRITE || phase == WB__CALL ? o->write_ms
                                                           : o->linger_ms;

    c->phase = phase;
    if (phase == WB__CALL && c->queued == 0)
        wb__deadline_cancel(&c->alarm);
    else
        wb__deadline_set(&c->alarm, ms);
}

/* ---- out --------------------------------------------------------------- */

static void
on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
    struct wb__connection *c = handle->data;

    (void)wanted;
    *buf = uv_buf_init(c->server->input, sizeof(c->server->input));
}

void
wb__connection_read(struct wb__connection *c)
{
    if (!c->full && !c->paused && !c->eof)
        (void)uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

static void
read_on(struct wb__connection *c)
{
    if (!c->full && !c->paused)
        return;
    c->full = c->paused = false;
    wb__connection_read(c);
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
    struct wb__connection *c = req->handle->data;

    if (c->phase != WB__CLOSED && (status < 0 || c->eof))
        wb__connection_close(c);
}

/* Nothing more will be answered. Closing now would reset the connection if
 * input is unread, and take the answer away from the client. */
static void
linger(struct wb__connection *c)
{
    wb__connection_set_phase(c, WB__LINGER);
    wb__buf_fini(&c->later);
    read_on(c);
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) != 0)
        wb__connection_close(c);
}

void
wb__connection_answered(struct wb__connection *c, bool ok)
{
    wb__buf_fini(&c->out);
    wb__buf_fini(&c->body);
    c->endless = c->endless && !ok;
    if (!ok)
        wb__connection_close(c);
    else if (!c->keep_alive)
        linger(c);
    else if (c->reading)
        c->again = true;
    else
        resume(c);
    (void)wb__connection_account(c);
}

size_t
wb__connection_try(struct wb__connection *c, uv_buf_t *bufs, unsigned n)
{
    int wrote = uv_try_write((uv_stream_t *)&c->tcp, bufs, n);

    return wrote < 0 ? 0 : (size_t)wrote;
}

static void
on_written(uv_write_t *req, int status)
{
    struct wb__connection *c = req->handle->data;

    if (c->phase != WB__CLOSED)
        wb__connection_answered(c, status == 0);
}

static void
send_answer(struct wb__connection *c, const struct wb__response *a,
    const struct wb__http_head *head, bool keep_alive)
{
    const struct wb_env *env = c->server->opts.env;
    size_t sent;
    uv_buf_t buf;

    /* A request that is not over leaves nothing to go on with. */
    c->keep_alive =
        keep_alive && !a->close && !c->server->stopping && c->phase != WB__BODY;
    c->out.max = a->body.len + a->headers.len * 2 + 1024;
    wb__response_add(&c->out, a, head, c->keep_alive, env->wall_ms(env->ctx));
    (void)wb__connection_account(c);
    wb__connection_set_phase(c, WB__WRITE);
    if (c->out.failed != WB_OK) {
        wb__connection_close(c);
        return;
    }
    buf = uv_buf_init(c->out.ptr, (unsigned)c->out.len);
    sent = wb__connection_try(c, &buf, 1);
    buf = uv_buf_init(c->out.ptr + sent, (unsigned)(c->out.len - sent));
    if (buf.len == 0)
        wb__connection_answered(c, true);
    else if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) !=
             0)
        wb__connection_close(c);
}

/* Answer for the server itself, and end the connection. */
static void
refuse(struct wb__connection *c, int status, const char *why)
{
    char text[256];
    struct wb__buf body = {.env = c->server->opts.env, .max = sizeof(text)};
    struct wb__response a = {.status = status,
        .headers = WB_LIT("Content-Type: application/problem+json\n")};

    if (c->called && c->begun) {
        wb__connection_close(c);
        return;
    }
    c->refused = c->called;
    tell_gone(c);
    wb__buf_fmt(&body, "{\"status\":%d,\"title\":\"%s\",\"detail\":\"%s\"}\n",
        status, wb__http_reason(status), why);
    a.body = wb__buf_slice(&body);
    wb__buf_fini(&c->body); /* others may be short of it */
    send_answer(c, &a, NULL, false);
    wb__buf_fini(&body);
}

void
wb__exchange_respond(
    struct wb__exchange *call, const struct wb__response *answer)
{
    static const struct wb__response broken = {.status = 500};
    struct wb__connection *c = (struct wb__connection *)call;

    WB_ASSERT(c->called && !c->begun);
    WB_ASSERT(answer->status >= 200 && answer->status <= 599);
    c->called = false;
    if (c->phase == WB__CLOSED || c->refused) {
        free_if_over(c);
        return;
    }
    if (wb__headers_check(answer->headers, NULL) != WB_OK)
        answer = &broken; /* never a header that splits the answer (S3) */
    send_answer(c, answer, call->head, call->head->keep_alive);
}

void
wb__exchange_drop(struct wb__exchange *call)
{
    struct wb__connection *c = (struct wb__connection *)call;

    WB_ASSERT(c->called);
    c->called = false;
    if (c->phase == WB__CLOSED || c->refused)
        free_if_over(c);
    else
        wb__connection_close(c);
}

void
wb__connection_let_go(struct wb__connection *c)
{
    c->called = false;
    if (c->phase == WB__CLOSED || c->refused)
        free_if_over(c);
}

/* ---- in ---------------------------------------------------------------- */

static void
on_alarm(struct wb__deadline *alarm)
{
    struct wb__connection *c = alarm->timer.data;

    if (c->phase == WB__HEAD)
        refuse(c, 408, "the head did not arrive in time");
    else if (c->phase == WB__BODY)
        refuse(c, 408, "the body did not arrive in time");
    else
        wb__connection_close(c);
}

static bool
has_body(const struct wb__http_head *head)
{
    return head->chunked || head->length > 0;
}

/* The client waits to be asked for its body. */
static void
ask_for_body(struct wb__connection *c, struct wb_slice in)
{
    static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    uv_buf_t buf = uv_buf_init(text, sizeof(text) - 1);

    /* Nothing else is on its way out: this fits, or the client is gone. */
    if (c->phase == WB__BODY && c->parser.head.expects && in.len == 0 &&
        uv_try_write((uv_stream_t *)&c->tcp, &buf, 1) != (int)buf.len)
        wb__connection_close(c);
}

static void
begin_call(struct wb__connection *c)
{
    c->called = true;
    c->refused = c->begun = false;
    c->call = (struct wb__exchange){
        .head = &c->parser.head, .body = wb__buf_slice(&c->body)};
    c->server->opts.handle(c->server->opts.ctx, &c->call);
}

static void
end_head(struct wb__connection *c, struct wb_slice in)
{
    if (!has_body(&c->parser.head))
        return;
    wb__connection_set_phase(c, WB__BODY);
    if (c->server->opts.stream)
        begin_call(c);
    ask_for_body(c, in);
}

static void
end_request(struct wb__connection *c)
{
    wb__connection_set_phase(c, WB__CALL);
    if (!c->called)
        begin_call(c);
    if (c->called && c->call.on_body_end != NULL)
        c->call.on_body_end(&c->call);
}

static void
take_body(struct wb__connection *c, struct wb_slice piece)
{
    if (c->called) {
        if (c->call.patient && !c->paused)
            wb__connection_set_phase(c, WB__BODY); /* its time begins anew */
        if (c->call.on_body != NULL)
            c->call.on_body(&c->call, piece);
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

    while (c->phase <= WB__BODY) {
        switch (wb__http_parser_feed(&c->parser, &in, &piece)) {
        case WB__HTTP_MORE:
            if (c->phase == WB__IDLE && wb__http_parser_begun(&c->parser))
                wb__connection_set_phase(c, WB__HEAD);
            if (c->called && c->call.on_input_drained != NULL)
                c->call.on_input_drained(&c->call);
            if (!wb__connection_account(c))
                refuse(c, 503, "too much is held for other requests");
            return in;
        case WB__HTTP_HEAD:
            end_head(c, in);
            break;
        case WB__HTTP_BODY:
            take_body(c, piece);
            break;
        case WB__HTTP_DONE:
            end_request(c);
            break;
        case WB__HTTP_BAD:
            refuse(c, c->parser.status, c->parser.why);
            break;
        }
    }
    return in;
}

static void
drain(struct wb__connection *c, size_t n)
{
    c->drained += n;
    if (c->drained > LINGER_BYTES)
        wb__connection_close(c);
}

/* Keep input for when the answer has gone out. */
static void
keep(struct wb__connection *c, struct wb_slice in)
{
    if (c->phase == WB__LINGER || (c->phase == WB__WRITE && !c->keep_alive))
        drain(c, in.len);
    if (c->phase != WB__CALL && (c->phase != WB__WRITE || !c->keep_alive))
        return;
    wb__buf_add(&c->later, in);
    if (c->later.failed != WB_OK) {
        wb__connection_close(c);
        return;
    }
    (void)wb__connection_account(c);
    if (c->later.len >= LATER_BYTES) {
        c->full = true;
        (void)uv_read_stop((uv_stream_t *)&c->tcp);
    }
}

/* The answer is out: on to the next request, part of which may be here. */
static void
resume_one(struct wb__connection *c)
{
    struct wb_slice in = wb__buf_slice(&c->later), left;

    wb__http_parser_next(&c->parser);
    list_remove(c);
    list_add(c);
    wb__connection_set_phase(c, WB__IDLE);
    left = parse(c, in);
    if (left.len == 0 || c->phase == WB__LINGER) {
        wb__buf_fini(&c->later);
    } else {
        memmove(c->later.ptr, left.ptr, left.len);
        c->later.len = left.len;
    }
    /* What has begun will never be complete, or the place is wanted. */
    if ((c->phase <= WB__BODY && c->eof) ||
        (c->phase == WB__IDLE && (c->server->stopping || c->server->waiting)))
        wb__connection_close(c);
    else if (c->phase != WB__CLOSED && c->later.len < LATER_BYTES)
        read_on(c);
}

/* Requests that are answered at once follow each other here, not each inside
 * the one before. */
static void
resume(struct wb__connection *c)
{
    c->reading = true;
    do {
        c->again = false;
        resume_one(c);
    } while (c->again);
    c->reading = false;
}

static void
read_some(struct wb__connection *c, struct wb_slice in)
{
    c->reading = true;
    c->again = false;
    keep(c, parse(c, in));
    c->reading = false;
    if (c->again)
        resume(c);
}

/* End of input, or of everything. */
static void
on_end(struct wb__connection *c, bool clean)
{
    c->eof = true;
    if (!clean || c->phase <= WB__BODY || c->phase == WB__LINGER)
        wb__connection_close(c);
    else
        tell_gone(c);
}

static void
on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf)
{
    struct wb__connection *c = tcp->data;

    if (n == 0 || c->phase == WB__CLOSED)
        return;
    if (n < 0)
        on_end(c, n == UV_EOF);
    else if (c->phase == WB__LINGER)
        drain(c, (size_t)n);
    else if (c->phase == WB__CALL || c->phase == WB__WRITE)
        keep(c, (struct wb_slice){buf->base, (size_t)n});
    else
        read_some(c, (struct wb_slice){buf->base, (size_t)n});
}

/* ---- begin ------------------------------------------------------------- */

static void
init_buffers(struct wb__connection *c)
{
    const struct wb__http_server_opts *o = &c->server->opts;

    wb__http_parser_init(&c->parser, o->env, WB__HTTP_REQUESTS, &o->limits);
    c->body.env = c->later.env = c->out.env = o->env;
    c->body.max = c->parser.limits.body_bytes;
    c->later.max = LATER_BYTES + sizeof(c->server->input);
}

struct wb__connection *
wb__connection_new(struct wb__http_server *s)
{
    struct wb__connection *c = wb__alloc(s->opts.env, sizeof(*c));

    if (c != NULL) {
        c->server = s;
        c->tcp.data = c->alarm.timer.data = c;
        init_buffers(c);
    }
    return c;
}

void
wb__connection_accept(struct wb__connection *c)
{
    struct wb__http_server *s = c->server;

    (void)uv_tcp_init(s->opts.loop, &c->tcp);
    wb__deadline_init(s->opts.loop, &c->alarm, on_alarm);
    c->handles = 2;
    list_add(c);
    s->conns++;
    wb__connection_set_phase(c, WB__IDLE);
    if (uv_accept((uv_stream_t *)&s->listener, (uv_stream_t *)&c->tcp) != 0 ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0)
        wb__connection_close(c);
    else
        (void)uv_tcp_nodelay(&c->tcp, 1);
}

void
wb__connection_close_idle(struct wb__http_server *s, bool every)
{
    for (struct wb__connection *c = s->first; c != NULL; c = c->next) {
        if (c->phase != WB__IDLE)
            continue;
        wb__connection_close(c);
        if (!every)
            return;
    }
}

void
wb__connection_close_all(struct wb__http_server *s)
{
    for (struct wb__connection *c = s->first; c != NULL; c = c->next)
        wb__connection_close(c);
}
