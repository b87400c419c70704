/* conn.c - one connection: from bytes to calls and back.
 *
 *  1. phase is what is waited for; set_phase() alone changes it, and gives
 *     each phase its deadline.
 *  2. A connection is freed once its handles are closed and its call, if one
 *     is open, has been answered.
 *  3. Input that arrives while a call is open waits in `later`, bounded: past
 *     LATER_BYTES nothing is read. */
#include "http/conn.h"

#include "http/answer.h"

enum phase {
    IDLE, /* between requests */
    HEAD,
    BODY,
    CALL, /* the handler has it */
    WRITE,
    LINGER, /* nothing more will be sent; input is thrown away */
    CLOSED,
};

enum {
    LATER_BYTES = 64 << 10,
    LINGER_BYTES = 4 << 20
};

struct wb__conn {
    struct wb__call call; /* first: a call is its connection */
    struct wb__server *server;
    struct wb__conn *prev, *next;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct wb__http_parser parser;
    struct wb__buf body, later, out;
    enum phase phase;
    int handles;     /* not closed yet */
    bool called;     /* the handler owes an answer */
    bool eof;        /* the client shuts its side */
    bool full;       /* reading is stopped, `later` being full */
    bool keep_alive; /* after the answer being written */
    size_t drained;
    size_t bytes; /* as counted in server->bytes */
};

static void on_timer(uv_timer_t *timer);
static void on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf);
static void resume(struct wb__conn *c);

/* ---- the server's list and books ----------------------------------------- */

static void
list_add(struct wb__conn *c)
{
    struct wb__server *s = c->server;

    c->prev = s->last;
    c->next = NULL;
    *(s->last == NULL ? &s->first : &s->last->next) = c;
    s->last = c;
}

static void
list_remove(struct wb__conn *c)
{
    struct wb__server *s = c->server;

    *(c->prev == NULL ? &s->first : &c->prev->next) = c->next;
    *(c->next == NULL ? &s->last : &c->next->prev) = c->prev;
}

/* Bring the books up to date. False: all connections together hold too much. */
static bool
account(struct wb__conn *c)
{
    size_t now = c->parser.text.cap + c->body.cap + c->later.cap + c->out.cap;

    c->server->bytes = c->server->bytes - c->bytes + now;
    c->bytes = now;
    return c->server->bytes <= c->server->opts.max_bytes;
}

/* ---- ends ---------------------------------------------------------------- */

static void
free_if_over(struct wb__conn *c)
{
    struct wb__server *s = c->server;

    if (c->handles > 0 || c->called)
        return;
    wb__http_parser_fini(&c->parser);
    wb__buf_fini(&c->body);
    wb__buf_fini(&c->later);
    wb__buf_fini(&c->out);
    (void)account(c);
    list_remove(c);
    wb__free(s->opts.env, c);
    s->conns--;
    s->conn_ended(s);
}

static void
on_closed(uv_handle_t *handle)
{
    struct wb__conn *c = handle->data;

    c->handles--;
    free_if_over(c);
}

static void
tell_gone(struct wb__conn *c)
{
    if (!c->called || c->call.gone)
        return;
    c->call.gone = true;
    if (c->call.on_gone != NULL)
        c->call.on_gone(&c->call);
}

static void
close_conn(struct wb__conn *c)
{
    if (c->phase == CLOSED)
        return;
    c->phase = CLOSED;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
    tell_gone(c);
}

static void
set_phase(struct wb__conn *c, enum phase phase)
{
    const struct wb__server_opts *o = &c->server->opts;
    int64_t ms = phase == IDLE    ? o->idle_ms
                 : phase == HEAD  ? o->head_ms
                 : phase == BODY  ? o->body_ms
                 : phase == WRITE ? o->write_ms
                                  : o->linger_ms;

    c->phase = phase;
    if (phase == CALL)
        (void)uv_timer_stop(&c->timer);
    else
        (void)uv_timer_start(&c->timer, on_timer, (uint64_t)ms, 0);
}

/* ---- out ----------------------------------------------------------------- */

static void
on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
    struct wb__conn *c = handle->data;

    (void)wanted;
    *buf = uv_buf_init(c->server->input, sizeof(c->server->input));
}

static void
read_on(struct wb__conn *c)
{
    if (c->full && !c->eof)
        (void)uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    c->full = false;
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
    struct wb__conn *c = req->handle->data;

    if (c->phase != CLOSED && (status < 0 || c->eof))
        close_conn(c);
}

/* Nothing more will be answered. Closing now would reset the connection if
 * input is unread, and take the answer away from the client. */
static void
linger(struct wb__conn *c)
{
    set_phase(c, LINGER);
    wb__buf_fini(&c->later);
    read_on(c);
    if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) != 0)
        close_conn(c);
}

static void
on_written(uv_write_t *req, int status)
{
    struct wb__conn *c = req->handle->data;

    if (c->phase == CLOSED)
        return;
    wb__buf_fini(&c->out);
    wb__buf_fini(&c->body);
    if (status < 0)
        close_conn(c);
    else if (!c->keep_alive)
        linger(c);
    else
        resume(c);
    (void)account(c);
}

static void
send_answer(struct wb__conn *c, const struct wb__answer *a,
    const struct wb__http_head *head, bool keep_alive)
{
    const struct wb_env *env = c->server->opts.env;
    uv_buf_t buf;

    c->keep_alive = keep_alive && !a->close && !c->server->stopping;
    c->out.max = a->body.len + a->headers.len * 2 + 1024;
    wb__answer_add(&c->out, a, head, c->keep_alive, env->wall_ms(env->ctx));
    (void)account(c);
    buf = uv_buf_init(c->out.ptr, (unsigned)c->out.len);
    set_phase(c, WRITE);
    if (c->out.failed != WB_OK ||
        uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) != 0)
        close_conn(c);
}

/* Answer for the server itself, and end the connection. */
static void
refuse(struct wb__conn *c, int status, const char *why)
{
    char text[256];
    struct wb__buf body = {.env = c->server->opts.env, .max = sizeof(text)};
    struct wb__answer a = {.status = status,
        .headers = WB_LIT("Content-Type: application/problem+json\n")};

    wb__buf_fmt(&body, "{\"status\":%d,\"title\":\"%s\",\"detail\":\"%s\"}\n",
        status, wb__http_reason(status), why);
    a.body = wb__buf_slice(&body);
    wb__buf_fini(&c->body); /* others may be short of it */
    send_answer(c, &a, NULL, false);
    wb__buf_fini(&body);
}

void
wb__call_answer(struct wb__call *call, const struct wb__answer *answer)
{
    static const struct wb__answer broken = {.status = 500};
    struct wb__conn *c = (struct wb__conn *)call;

    WB_ASSERT(c->called);
    WB_ASSERT(answer->status >= 200 && answer->status <= 599);
    c->called = false;
    if (c->phase == CLOSED) {
        free_if_over(c);
        return;
    }
    if (wb__headers_check(answer->headers, NULL) != WB_OK)
        answer = &broken; /* never a header that splits the answer (S3) */
    send_answer(c, answer, call->head, call->head->keep_alive);
}

void
wb__call_drop(struct wb__call *call)
{
    struct wb__conn *c = (struct wb__conn *)call;

    WB_ASSERT(c->called);
    c->called = false;
    if (c->phase == CLOSED)
        free_if_over(c);
    else
        close_conn(c);
}

/* ---- in ------------------------------------------------------------------ */

static void
on_timer(uv_timer_t *timer)
{
    struct wb__conn *c = timer->data;

    if (c->phase == HEAD)
        refuse(c, 408, "the head did not arrive in time");
    else if (c->phase == BODY)
        refuse(c, 408, "the body did not arrive in time");
    else
        close_conn(c);
}

static void
begin_body(struct wb__conn *c, struct wb_slice in)
{
    static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const struct wb__http_head *head = &c->parser.head;
    uv_buf_t buf = uv_buf_init(text, sizeof(text) - 1);

    if (!head->chunked && head->length == 0)
        return;
    set_phase(c, BODY);
    /* Nothing else is on its way out: this fits, or the client is gone. */
    if (head->expects && in.len == 0 &&
        uv_try_write((uv_stream_t *)&c->tcp, &buf, 1) != (int)buf.len)
        close_conn(c);
}

static void
begin_call(struct wb__conn *c)
{
    set_phase(c, CALL);
    c->called = true;
    c->call = (struct wb__call){
        .head = &c->parser.head, .body = wb__buf_slice(&c->body)};
    c->server->opts.handle(c->server->opts.ctx, &c->call);
}

static void
take_body(struct wb__conn *c, struct wb_slice piece)
{
    wb__buf_add(&c->body, piece);
    if (c->body.failed != WB_OK)
        refuse(c, 503, "out of memory");
}

/* Parse until a request is complete or the input used up; what is left. */
static struct wb_slice
parse(struct wb__conn *c, struct wb_slice in)
{
    struct wb_slice piece = {NULL, 0};

    while (c->phase <= BODY) {
        switch (wb__http_parser_feed(&c->parser, &in, &piece)) {
        case WB__HTTP_MORE:
            if (c->phase == IDLE && wb__http_parser_begun(&c->parser))
                set_phase(c, HEAD);
            if (!account(c))
                refuse(c, 503, "too much is held for other requests");
            return in;
        case WB__HTTP_HEAD:
            begin_body(c, in);
            break;
        case WB__HTTP_BODY:
            take_body(c, piece);
            break;
        case WB__HTTP_DONE:
            begin_call(c);
            break;
        case WB__HTTP_BAD:
            refuse(c, c->parser.status, c->parser.why);
            break;
        }
    }
    return in;
}

static void
drain(struct wb__conn *c, size_t n)
{
    c->drained += n;
    if (c->drained > LINGER_BYTES)
        close_conn(c);
}

/* Keep input for when the answer has gone out. */
static void
keep(struct wb__conn *c, struct wb_slice in)
{
    if (c->phase == WRITE && !c->keep_alive)
        drain(c, in.len);
    if (c->phase != CALL && (c->phase != WRITE || !c->keep_alive))
        return;
    wb__buf_add(&c->later, in);
    if (c->later.failed != WB_OK) {
        close_conn(c);
        return;
    }
    (void)account(c);
    if (c->later.len >= LATER_BYTES) {
        c->full = true;
        (void)uv_read_stop((uv_stream_t *)&c->tcp);
    }
}

/* The answer is out: on to the next request, part of which may be here. */
static void
resume(struct wb__conn *c)
{
    struct wb_slice in = wb__buf_slice(&c->later), left;

    wb__http_parser_next(&c->parser);
    list_remove(c);
    list_add(c);
    set_phase(c, IDLE);
    left = parse(c, in);
    if (left.len == 0)
        wb__buf_fini(&c->later);
    else
        memmove(c->later.ptr, left.ptr, left.len);
    c->later.len = left.len;
    /* What has begun will never be complete, or the place is wanted. */
    if ((c->phase <= BODY && c->eof) ||
        (c->phase == IDLE && (c->server->stopping || c->server->waiting)))
        close_conn(c);
    else if (c->phase != CLOSED && c->later.len < LATER_BYTES)
        read_on(c);
}

/* End of input, or of everything. */
static void
on_end(struct wb__conn *c, bool clean)
{
    c->eof = true;
    if (!clean || c->phase <= BODY || c->phase == LINGER)
        close_conn(c);
    else
        tell_gone(c);
}

static void
on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf)
{
    struct wb__conn *c = tcp->data;

    if (n == 0 || c->phase == CLOSED)
        return;
    if (n < 0)
        on_end(c, n == UV_EOF);
    else if (c->phase == LINGER)
        drain(c, (size_t)n);
    else if (c->phase == CALL || c->phase == WRITE)
        keep(c, (struct wb_slice){buf->base, (size_t)n});
    else
        keep(c, parse(c, (struct wb_slice){buf->base, (size_t)n}));
}

/* ---- begin --------------------------------------------------------------- */

static void
init_buffers(struct wb__conn *c)
{
    const struct wb__server_opts *o = &c->server->opts;

    wb__http_parser_init(&c->parser, o->env, WB__HTTP_REQUESTS, &o->limits);
    c->body.env = c->later.env = c->out.env = o->env;
    c->body.max = c->parser.limits.body_bytes;
    c->later.max = LATER_BYTES + sizeof(c->server->input);
}

struct wb__conn *
wb__conn_new(struct wb__server *s)
{
    struct wb__conn *c = wb__alloc(s->opts.env, sizeof(*c));

    if (c != NULL) {
        c->server = s;
        c->tcp.data = c->timer.data = c;
        init_buffers(c);
    }
    return c;
}

void
wb__conn_accept(struct wb__conn *c)
{
    struct wb__server *s = c->server;

    (void)uv_tcp_init(s->opts.loop, &c->tcp);
    (void)uv_timer_init(s->opts.loop, &c->timer);
    c->handles = 2;
    list_add(c);
    s->conns++;
    set_phase(c, IDLE);
    if (uv_accept((uv_stream_t *)&s->listener, (uv_stream_t *)&c->tcp) != 0 ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0)
        close_conn(c);
    else
        (void)uv_tcp_nodelay(&c->tcp, 1);
}

void
wb__conn_close_idle(struct wb__server *s, bool every)
{
    for (struct wb__conn *c = s->first; c != NULL; c = c->next) {
        if (c->phase != IDLE)
            continue;
        close_conn(c);
        if (!every)
            return;
    }
}

void
wb__conn_close_all(struct wb__server *s)
{
    for (struct wb__conn *c = s->first; c != NULL; c = c->next)
        close_conn(c);
}
