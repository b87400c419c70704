/* stream.c - an answer in pieces, and a body that can be held up.
 *
 *  1. A piece is written at once, the head of the answer with the first. What
 *     the kernel does not take is copied, and counted until it has gone out.
 *  2. While pieces wait a reader that takes nothing for write_ms is cut off.
 *  3. A piece to a connection that is gone is thrown away. */
#include <stdio.h>

#include "http/connection.h"
#include "http/response.h"

static const struct wb_slice none = {NULL, 0};

struct piece {
    uv_write_t write; /* first */
    struct wb__connection *conn;
    size_t len;
    char bytes[];
};

static bool
is_out(const struct wb__connection *c)
{
    return c->phase == WB__CLOSED || c->refused;
}

/* Whoever takes nothing of what waits is cut off, whatever else goes on. */
static void
watch(struct wb__connection *c)
{
    if (c->phase == WB__CALL || c->phase == WB__WRITE ||
        (c->phase == WB__BODY && c->paused && c->queued > 0))
        wb__connection_set_phase(c, c->phase);
    else if (c->phase == WB__BODY && c->paused)
        wb__deadline_cancel(&c->alarm);
}

/* Also where the connection is gone: its pieces have left, too. */
static void
tell_drained(struct wb__connection *c)
{
    if (c->queued == 0 && c->called && c->call.on_drain != NULL)
        c->call.on_drain(&c->call);
}

static void
on_piece_written(uv_write_t *req, int status)
{
    struct piece *p = (struct piece *)req;
    struct wb__connection *c = p->conn;

    c->queued -= p->len;
    wb__free(c->server->opts.env, p);
    (void)wb__connection_account(c);
    if (status < 0)
        wb__connection_close(c);
    if (!c->called && c->phase == WB__WRITE && c->queued == 0) {
        wb__connection_answered(c, true);
        return;
    }
    watch(c);
    tell_drained(c);
}

/* What could not be written at once: skip bytes of it are out. */
static void
write_later(struct wb__connection *c, const uv_buf_t *bufs, unsigned n,
    size_t skip, size_t len)
{
    struct piece *p = wb__alloc(c->server->opts.env, sizeof(*p) + len);
    uv_buf_t buf;

    if (p == NULL) {
        wb__connection_close(c);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        size_t out = skip < bufs[i].len ? skip : bufs[i].len;

        memcpy(p->bytes + p->len, bufs[i].base + out, bufs[i].len - out);
        p->len += bufs[i].len - out;
        skip -= out;
    }
    p->conn = c;
    c->queued += p->len;
    (void)wb__connection_account(c);
    watch(c);
    buf = uv_buf_init(p->bytes, (unsigned)p->len);
    if (uv_write(&p->write, (uv_stream_t *)&c->tcp, &buf, 1,
            on_piece_written) != 0) {
        c->queued -= p->len;
        wb__free(c->server->opts.env, p);
        wb__connection_close(c);
    }
}

/* Write head and tail around a piece, as one, behind the head of the answer if
 * that still waits. */
static void
write_out(struct wb__connection *c, struct wb_slice head, struct wb_slice piece,
    struct wb_slice tail)
{
    const struct wb_slice all[] = {wb__buf_slice(&c->out), head, piece, tail};
    uv_buf_t bufs[WB_COUNT(all)];
    size_t len = 0, sent = 0;
    unsigned n = 0;

    for (size_t i = 0; i < WB_COUNT(all); i++) {
        if (all[i].len > 0)
            bufs[n++] = uv_buf_init(
                (char *)(uintptr_t)all[i].ptr, (unsigned)all[i].len);
        len += all[i].len;
    }
    if (c->queued == 0)
        sent = wb__connection_try(c, bufs, n);
    if (sent < len)
        write_later(c, bufs, n, sent, len - sent);
    wb__buf_fini(&c->out);
}

/* ---- the face ---------------------------------------------------------- */

static bool
is_bodyless(const struct wb__connection *c, int status)
{
    return status == 204 || status == 304 ||
           wb__eq(c->call.head->method, WB_LIT("HEAD"));
}

void
wb__exchange_begin(struct wb__exchange *call, const struct wb__response *answer,
    uint64_t length)
{
    struct wb__connection *c = (struct wb__connection *)call;
    const struct wb_env *env = c->server->opts.env;
    bool endless =
        length == WB__LENGTH_UNKNOWN && !is_bodyless(c, answer->status);

    WB_ASSERT(c->called && !c->begun);
    if (is_out(c))
        return;
    c->begun = true;
    c->chunked = endless && call->head->minor == 1;
    c->endless = endless && !c->chunked;
    c->keep_alive = call->head->keep_alive && !answer->close &&
                    !c->server->stopping && c->phase != WB__BODY &&
                    c->chunked == endless;
    c->out.max = answer->headers.len * 2 + 1024;
    wb__response_add_head(&c->out, answer, call->head, length, c->keep_alive,
        env->wall_ms(env->ctx));
    if (c->out.failed != WB_OK ||
        wb__headers_check(answer->headers, NULL) != WB_OK)
        wb__connection_close(c);
}

void
wb__exchange_flush(struct wb__exchange *call)
{
    struct wb__connection *c = (struct wb__connection *)call;

    if (!is_out(c) && c->begun && c->out.len > 0)
        write_out(c, none, none, none);
}

bool
wb__exchange_write(struct wb__exchange *call, struct wb_slice piece)
{
    struct wb__connection *c = (struct wb__connection *)call;
    char size[24];
    int n;

    WB_ASSERT(c->called);
    if (is_out(c))
        return false;
    WB_ASSERT(c->begun);
    if (piece.len == 0)
        return true;
    n = c->chunked ? snprintf(size, sizeof(size), "%zx\r\n", piece.len) : 0;
    write_out(c, (struct wb_slice){size, (size_t)n}, piece,
        c->chunked ? WB_LIT("\r\n") : none);
    return c->phase != WB__CLOSED;
}

size_t
wb__exchange_queued(const struct wb__exchange *call)
{
    return ((const struct wb__connection *)call)->queued;
}

void
wb__exchange_end(struct wb__exchange *call)
{
    struct wb__connection *c = (struct wb__connection *)call;

    WB_ASSERT(c->called);
    call->on_gone = NULL; /* whoever ends it wants to hear no more */
    if (!is_out(c)) {
        WB_ASSERT(c->begun);
        c->keep_alive = c->keep_alive && c->phase != WB__BODY;
        if (c->chunked)
            write_out(c, WB_LIT("0\r\n\r\n"), none, none);
        else
            wb__exchange_flush(call);
    }
    if (is_out(c)) {
        wb__connection_let_go(c);
        return;
    }
    wb__connection_set_phase(c, WB__WRITE);
    wb__connection_let_go(c);
    if (c->queued == 0)
        wb__connection_answered(c, true);
}

void
wb__exchange_pause(struct wb__exchange *call, bool pause)
{
    struct wb__connection *c = (struct wb__connection *)call;

    if (c->phase != WB__BODY || c->paused == pause)
        return;
    c->paused = pause;
    if (pause) {
        (void)uv_read_stop((uv_stream_t *)&c->tcp);
        watch(c);
    } else {
        wb__connection_set_phase(c, WB__BODY);
        wb__connection_read(c);
    }
}
