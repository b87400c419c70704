/* passthrough.c - a request without a key: in pieces, both ways. (G-2, G-4) */
#include "gate/gate_internal.h"

#include <stdio.h>

struct passthrough {
    struct wb__forward forward; /* first */
    struct wb__gate *gate;
    bool chunked; /* the request */
    bool unidentified;
    bool request_complete; /* then on_gone() leaves freeing to the response */
    bool response_begun;
    int status; /* of the response */
    int64_t began_us;
};

/* End both sides at once. */
static void
drop(struct passthrough *p)
{
    wb__gate_log_access(p->gate, p->forward.exchange->head, p->status, "cut",
        wb__gate_us(p->gate) - p->began_us);
    wb__upstream_cancel(&p->forward.upstream);
    wb__exchange_drop(p->forward.exchange);
    wb__free(p->gate->opts.env, p);
}

/* ---- the request ------------------------------------------------------- */

static void
on_gone(struct wb__exchange *exchange)
{
    struct passthrough *p = exchange->data;

    if (!p->request_complete)
        drop(p);
}

static void
on_body(struct wb__exchange *exchange, struct wb_slice piece)
{
    struct passthrough *p = exchange->data;
    char size[24];

    if (p->chunked) {
        (void)snprintf(size, sizeof(size), "%zx\r\n", piece.len);
        wb__upstream_write(&p->forward.upstream, wb_slice(size));
    }
    wb__upstream_write(&p->forward.upstream, piece);
    if (p->chunked)
        wb__upstream_write(&p->forward.upstream, WB_LIT("\r\n"));
    if (wb__upstream_queued(&p->forward.upstream) > WB__GATE_QUEUE)
        wb__exchange_pause(exchange, true);
}

static void
on_request_drained(struct wb__exchange *exchange)
{
    struct passthrough *p = exchange->data;

    wb__upstream_flush(&p->forward.upstream);
}

static void
on_upstream_drain(struct wb__upstream_request *upstream)
{
    struct passthrough *p = upstream->data;

    wb__exchange_pause(p->forward.exchange, false);
}

static void
on_body_end(struct wb__exchange *exchange)
{
    struct passthrough *p = exchange->data;

    p->request_complete = true;
    if (p->chunked)
        wb__upstream_write(&p->forward.upstream, WB_LIT("0\r\n\r\n"));
    wb__upstream_end(&p->forward.upstream);
}

/* ---- the response ------------------------------------------------------ */

static void
on_head(struct wb__upstream_request *upstream, const struct wb__http_head *head)
{
    struct passthrough *p = upstream->data;
    struct wb__buf headers = {
        .env = p->gate->opts.env, .max = head->headers.len + 64};

    if (wb__eq(p->forward.exchange->head->method, WB_LIT("OPTIONS")))
        wb__cors_learn(
            &p->gate->cors, p->forward.exchange->head->headers, head->headers);
    wb__rule_copy_fields(&headers, head->headers, WB__FORWARD);
    if (p->unidentified)
        wb__buf_str(&headers, "Idempotency-Skipped: anonymous\n");
    if (headers.failed != WB_OK) {
        drop(p);
    } else {
        p->status = head->status;
        p->response_begun = true;
        wb__forward_head(&p->forward, head->status,
            head->has_length ? head->length : WB__LENGTH_UNKNOWN, &headers);
    }
    wb__buf_fini(&headers);
}

static void
on_response_body(struct wb__upstream_request *upstream, struct wb_slice piece)
{
    struct passthrough *p = upstream->data;
    /* If the client has gone, on_gone() frees p while the request is not
     * complete, perhaps within this call; after that it is ours to free. */
    bool ours = p->request_complete;

    if (!wb__forward_piece(&p->forward, piece) && ours)
        drop(p);
}

static void
on_end(struct wb__upstream_request *upstream)
{
    struct passthrough *p = upstream->data;

    wb__gate_log_access(p->gate, p->forward.exchange->head, p->status, "passed",
        wb__gate_us(p->gate) - p->began_us);
    wb__exchange_end(p->forward.exchange);
    wb__free(p->gate->opts.env, p);
}

/* A safe method that met the end of a kept connection goes out once more, on a
 * connection of its own. */
static bool
may_repeat(struct passthrough *p)
{
    static const struct wb_slice safe[] = {
        {"GET", 3}, {"HEAD", 4}, {"OPTIONS", 7}, {"TRACE", 5}};
    const struct wb__http_head *head = p->forward.exchange->head;
    struct wb__upstream_request *upstream = &p->forward.upstream;

    if (!upstream->stale || upstream->fresh || p->response_begun ||
        !p->request_complete || head->chunked || head->length > 0)
        return false;
    upstream->fresh = true;
    for (size_t i = 0; i < WB_COUNT(safe); i++)
        if (wb__eq(head->method, safe[i]))
            return true;
    return false;
}

static void
on_fail(struct wb__upstream_request *upstream, bool sent, const char *why)
{
    struct passthrough *p = upstream->data;

    if (may_repeat(p) &&
        wb__forward_request(p->gate, &p->forward, NULL) == WB_OK) {
        wb__upstream_end(&p->forward.upstream);
        return;
    }
    p->gate->n.upstream_errors++;
    if (p->response_begun) {
        wb__gate_log(p->gate, WB__LOG_WARN, "response-cut",
            p->forward.exchange->head,
            (struct wb__log_fields){.error = wb_slice(why)});
        wb__gate_log_access(p->gate, p->forward.exchange->head, p->status,
            "cut", wb__gate_us(p->gate) - p->began_us);
        wb__exchange_drop(p->forward.exchange);
    } else {
        wb__gate_respond_error(p->gate, p->forward.exchange,
            !sent                ? WB__GATE_UPSTREAM_UNREACHABLE
            : upstream->switched ? WB__GATE_UPSTREAM_SWITCHED
                                 : WB__GATE_UPSTREAM_FAILED,
            why);
    }
    wb__free(p->gate->opts.env, p);
}

/* ---- begin ------------------------------------------------------------- */

void
wb__passthrough_handle(
    struct wb__gate *gate, struct wb__exchange *exchange, bool unidentified)
{
    const struct wb__http_head *head = exchange->head;
    struct passthrough *p = wb__alloc(gate->opts.env, sizeof(*p));

    gate->n.passed++;
    gate->n.unidentified += unidentified;
    if (p == NULL) {
        wb__gate_respond_error(gate, exchange, WB__GATE_OUT_OF_MEMORY, NULL);
        return;
    }
    *p = (struct passthrough){.chunked = head->chunked,
        .unidentified = unidentified,
        .gate = gate,
        .began_us = wb__gate_us(gate),
        .forward = {.exchange = exchange,
            .upstream = {.bodyless = wb__eq(head->method, WB_LIT("HEAD")),
                .on_head = on_head,
                .on_body = on_response_body,
                .on_end = on_end,
                .on_fail = on_fail,
                .on_drain = on_upstream_drain}}};
    if (wb__forward_request(gate, &p->forward, NULL) != WB_OK) {
        wb__free(p->gate->opts.env, p);
        wb__gate_respond_error(gate, exchange, WB__GATE_OUT_OF_MEMORY, NULL);
        return;
    }
    exchange->data = p;
    exchange->patient = true;
    exchange->on_gone = on_gone;
    exchange->on_body = on_body;
    exchange->on_body_end = on_body_end;
    exchange->on_input_drained = on_request_drained;
}
