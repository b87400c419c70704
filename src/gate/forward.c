/* forward.c - a request on its way upstream, and its response on its way back.
 *
 *  1. While much is queued for the client, nothing more is read from upstream.
 *  2. The response of a keyed request stays in memory until it is whole. One
 *     that is too long, or a stream of events, is sent while it arrives, except
 *     its last byte. */
#include "gate/gate_internal.h"

static void
on_drain(struct wb__exchange *exchange)
{
    struct wb__forward *f = exchange->data;

    wb__upstream_pause(&f->upstream, false);
}

static void
on_input_drained(struct wb__upstream_request *upstream)
{
    struct wb__forward *f = upstream->data;

    wb__exchange_flush(f->exchange);
}

enum wb_status
wb__forward_request(const struct wb__gate *gate, struct wb__forward *f,
    const struct wb_slice *body)
{
    const struct wb__http_head *head = f->exchange->head;
    struct wb__rule_request request = {.head = head,
        .identity_header = gate->opts.identity_header,
        .key_header = gate->policy.key_header,
        .keyed = body != NULL,
        .authority = gate->authority,
        .has_body = body != NULL || head->chunked || head->has_length,
        .length = body != NULL    ? body->len
                  : head->chunked ? WB__LENGTH_UNKNOWN
                                  : head->length};
    struct wb__buf bytes = {.env = gate->opts.env,
        .max = (64 << 10) + (body == NULL ? 0 : body->len)};
    enum wb_status rc;

    wb__rule_write_request(&bytes, &request);
    if (body != NULL)
        wb__buf_add(&bytes, *body);
    f->upstream.data = f;
    f->upstream.on_input_drained = on_input_drained;
    rc = bytes.failed;
    if (rc == WB_OK)
        rc = wb__upstream_send(
            gate->upstream, &f->upstream, wb__buf_slice(&bytes));
    if (rc == WB_OK)
        f->exchange->on_drain = on_drain;
    wb__buf_fini(&bytes);
    return rc;
}

void
wb__forward_head(struct wb__forward *f, int status, uint64_t length,
    const struct wb__buf *headers)
{
    wb__exchange_begin(f->exchange,
        &(struct wb__response){.status = status,
            .headers = wb__buf_slice(headers),
            .undated = true},
        length);
}

bool
wb__forward_piece(struct wb__forward *f, struct wb_slice piece)
{
    if (!wb__exchange_write(f->exchange, piece))
        return false;
    if (wb__exchange_queued(f->exchange) > WB__GATE_QUEUE)
        wb__upstream_pause(&f->upstream, true);
    return true;
}

/* ---- the response of a keyed request ----------------------------------- */

void
wb__held_response_init(struct wb__held_response *h, struct wb__forward *forward,
    const struct wb_env *env)
{
    *h = (struct wb__held_response){.forward = forward,
        .headers = {.env = env, .max = 60000},
        .stored_headers = {.env = env, .max = 60000},
        .body = {.env = env, .max = SIZE_MAX / 4}}; /* its owner limits it */
}

void
wb__held_response_fini(struct wb__held_response *h)
{
    wb__buf_fini(&h->headers);
    wb__buf_fini(&h->stored_headers);
    wb__buf_fini(&h->body);
}

enum wb_status
wb__held_response_head(
    struct wb__held_response *h, const struct wb__http_head *head)
{
    h->status = head->status;
    h->length = head->has_length ? head->length : WB__LENGTH_UNKNOWN;
    wb__rule_copy_fields(&h->headers, head->headers, WB__FORWARD);
    wb__rule_copy_fields(&h->stored_headers, head->headers, WB__REPLAY);
    if (h->headers.failed != WB_OK || h->stored_headers.failed != WB_OK)
        return WB_NOMEM;
    return wb__rule_is_event_stream(head->headers) ? wb__held_response_stream(h)
                                                   : WB_OK;
}

enum wb_status
wb__held_response_stream(struct wb__held_response *h)
{
    struct wb__buf *b = &h->body;
    char last;

    if (!h->streaming) {
        wb__buf_str(&h->stored_headers, "Idempotent-Truncated: true\n");
        if (h->stored_headers.failed != WB_OK)
            return WB_NOMEM;
        h->streaming = true;
        wb__forward_head(h->forward, h->status, h->length, &h->headers);
    }
    if (b->len >= 2) {
        last = b->ptr[b->len - 1];
        /* The request continues also if its client has gone. */
        (void)wb__forward_piece(
            h->forward, (struct wb_slice){b->ptr, b->len - 1});
        wb__buf_fini(b);
        wb__buf_add(b, (struct wb_slice){&last, 1});
    }
    return b->failed;
}

void
wb__held_response_send(struct wb__held_response *h)
{
    if (h->streaming) {
        (void)wb__exchange_write(h->forward->exchange, wb__buf_slice(&h->body));
        wb__exchange_end(h->forward->exchange);
    } else {
        wb__exchange_respond(
            h->forward->exchange, &(struct wb__response){.status = h->status,
                                      .headers = wb__buf_slice(&h->headers),
                                      .body = wb__buf_slice(&h->body),
                                      .undated = true});
    }
}

enum wb_status
wb__held_response_load(
    struct wb__held_response *h, const struct wb_idem_record *record)
{
    struct wb__buf *headers = &h->headers;

    wb__buf_add(headers, record->headers);
    wb__buf_str(headers, "Idempotent-Replayed: true\n");
    return record->status < 200 || record->status > 599 ? WB_INVALID
                                                        : headers->failed;
}

void
wb__held_response_replay(
    struct wb__held_response *h, const struct wb_idem_record *record)
{
    wb__exchange_respond(
        h->forward->exchange, &(struct wb__response){.status = record->status,
                                  .headers = wb__buf_slice(&h->headers),
                                  .body = record->body,
                                  .undated = true});
}
