/* exchange.c - the calls of a handler: respond, at once or in pieces, drop,
 * pause. See server.h.
 *
 *  1. A piece is written at once, the head of the response with the first.
 *  2. While pieces are queued a client that takes nothing for write_ms is cut
 *     off.
 *  3. What is written to a detached exchange is dropped. */
#include <stdio.h>

#include "http/connection.h"

static const struct wb_slice none = {NULL, 0};

static struct wb__connection *
open_exchange(struct wb__exchange *exchange)
{
    struct wb__connection *c = (struct wb__connection *)exchange;

    WB_ASSERT(c->exchange_state != WB__EXCHANGE_NONE);
    return c;
}

void
wb__exchange_respond(
    struct wb__exchange *exchange, const struct wb__response *response)
{
    static const struct wb__response broken = {.status = 500};
    struct wb__connection *c = open_exchange(exchange);

    WB_ASSERT(c->exchange_state != WB__EXCHANGE_BEGUN);
    WB_ASSERT(response->status >= 200 && response->status <= 599);
    if (c->exchange_state == WB__EXCHANGE_DETACHED) {
        wb__connection_release(c);
        return;
    }
    c->exchange_state = WB__EXCHANGE_NONE;
    if (wb__headers_check(response->headers, NULL) != WB_OK)
        response = &broken; /* never a header that splits the response (S3) */
    wb__connection_respond(c, response, exchange->head);
}

void
wb__exchange_drop(struct wb__exchange *exchange)
{
    struct wb__connection *c = open_exchange(exchange);

    if (c->exchange_state == WB__EXCHANGE_DETACHED) {
        wb__connection_release(c);
        return;
    }
    c->exchange_state = WB__EXCHANGE_NONE;
    wb__connection_close(c);
}

/* ---- in pieces ---------------------------------------------------------- */

void
wb__exchange_begin(struct wb__exchange *exchange,
    const struct wb__response *response, uint64_t length)
{
    struct wb__connection *c = open_exchange(exchange);
    bool bodyless = response->status == 204 || response->status == 304 ||
                    wb__eq(exchange->head->method, WB_LIT("HEAD"));

    WB_ASSERT(c->exchange_state != WB__EXCHANGE_BEGUN);
    WB_ASSERT(response->status >= 200 && response->status <= 599);
    if (c->exchange_state == WB__EXCHANGE_DETACHED)
        return;
    c->exchange_state = WB__EXCHANGE_BEGUN;
    c->framing = length != WB__LENGTH_UNKNOWN || bodyless ? WB__FRAMING_LENGTH
                 : exchange->head->minor == 1             ? WB__FRAMING_CHUNKS
                                                          : WB__FRAMING_CLOSE;
    c->keep_alive = c->framing != WB__FRAMING_CLOSE &&
                    wb__connection_keeps_alive(c, response, exchange->head);
    wb__response_add_head(
        &c->head, response, exchange->head, length, c->keep_alive);
    if (c->head.failed != WB_OK ||
        wb__headers_check(response->headers, NULL) != WB_OK)
        wb__connection_close(c);
}

/* The head of the response, if it was not written yet, then a piece between
 * what frames it. */
static void
write_framed(struct wb__connection *c, struct wb_slice before,
    struct wb_slice piece, struct wb_slice after)
{
    const struct wb_slice parts[] = {
        wb__buf_slice(&c->head), before, piece, after};

    wb__connection_write(c, parts, WB_COUNT(parts));
}

void
wb__exchange_flush(struct wb__exchange *exchange)
{
    struct wb__connection *c = (struct wb__connection *)exchange;

    if (c->exchange_state == WB__EXCHANGE_BEGUN && c->head.len > 0)
        write_framed(c, none, none, none);
}

bool
wb__exchange_write(struct wb__exchange *exchange, struct wb_slice piece)
{
    struct wb__connection *c = open_exchange(exchange);
    char size[24];
    int n;

    if (c->exchange_state == WB__EXCHANGE_DETACHED)
        return false;
    WB_ASSERT(c->exchange_state == WB__EXCHANGE_BEGUN);
    if (piece.len == 0)
        return true;
    if (c->framing == WB__FRAMING_CHUNKS) {
        n = snprintf(size, sizeof(size), "%zx\r\n", piece.len);
        write_framed(
            c, (struct wb_slice){size, (size_t)n}, piece, WB_LIT("\r\n"));
    } else {
        write_framed(c, none, piece, none);
    }
    return c->phase != WB__PHASE_CLOSED;
}

size_t
wb__exchange_queued(const struct wb__exchange *exchange)
{
    return ((const struct wb__connection *)exchange)->stream.queued;
}

void
wb__exchange_end(struct wb__exchange *exchange)
{
    struct wb__connection *c = open_exchange(exchange);

    WB_ASSERT(c->exchange_state != WB__EXCHANGE_OPEN);
    exchange->on_gone = NULL; /* the handler has ended it: no more callbacks */
    if (c->exchange_state == WB__EXCHANGE_BEGUN) {
        c->keep_alive = c->keep_alive && c->phase != WB__PHASE_BODY;
        if (c->framing == WB__FRAMING_CHUNKS)
            write_framed(c, WB_LIT("0\r\n\r\n"), none, none);
        else
            wb__exchange_flush(exchange);
    }
    if (c->exchange_state == WB__EXCHANGE_DETACHED) { /* or by that write */
        wb__connection_release(c);
        return;
    }
    c->exchange_state = WB__EXCHANGE_NONE;
    wb__connection_set_phase(c, WB__PHASE_WRITE);
    if (c->stream.queued == 0)
        wb__connection_response_sent(c);
}

void
wb__exchange_pause(struct wb__exchange *exchange, bool pause)
{
    struct wb__connection *c = (struct wb__connection *)exchange;

    if (c->phase != WB__PHASE_BODY || c->paused == pause)
        return;
    c->paused = pause;
    wb__connection_update_reading(c);
    wb__connection_set_phase(
        c, WB__PHASE_BODY); /* its deadline depends on it */
}
