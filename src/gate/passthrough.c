/* passthrough.c - a request without a key: in pieces, both ways. (G-2, G-4) */
#include "gate/gate_internal.h"

#include <stdio.h>

struct plain {
    struct wb__gate *gate;
    struct wb__exchange *call;
    struct wb__upstream_request ask;
    bool chunked, complete, begun, skipped;
};

static void
free_plain(struct plain *p)
{
    wb__free(p->gate->opts.env, p);
}

/* Neither side gets any more. */
static void
drop(struct plain *p)
{
    wb__upstream_cancel(&p->ask);
    wb__exchange_drop(p->call);
    free_plain(p);
}

/* ---- there ------------------------------------------------------------- */

static void
on_gone(struct wb__exchange *call)
{
    struct plain *p = call->data;

    if (!p->complete)
        drop(p);
}

static void
on_piece(struct wb__exchange *call, struct wb_slice piece)
{
    struct plain *p = call->data;
    char size[24];

    if (p->chunked) {
        (void)snprintf(size, sizeof(size), "%zx\r\n", piece.len);
        wb__upstream_write(&p->ask, wb_slice(size));
    }
    wb__upstream_write(&p->ask, piece);
    if (p->chunked)
        wb__upstream_write(&p->ask, WB_LIT("\r\n"));
    if (wb__upstream_queued(&p->ask) > WB__GATE_QUEUE)
        wb__exchange_pause(call, true);
}

static void
on_call_turn(struct wb__exchange *call)
{
    struct plain *p = call->data;

    wb__upstream_flush(&p->ask);
}

static void
on_sent(struct wb__upstream_request *ask)
{
    struct plain *p = ask->data;

    wb__exchange_pause(p->call, false);
}

static void
on_body_end(struct wb__exchange *call)
{
    struct plain *p = call->data;

    p->complete = true;
    if (p->chunked)
        wb__upstream_write(&p->ask, WB_LIT("0\r\n\r\n"));
    wb__upstream_end(&p->ask);
}

/* ---- back -------------------------------------------------------------- */

static void
on_head(struct wb__upstream_request *ask, const struct wb__http_head *head)
{
    struct plain *p = ask->data;
    struct wb__buf fields = {
        .env = p->gate->opts.env, .max = head->headers.len + 64};

    wb__rule_copy_fields(&fields, head->headers, false);
    if (p->skipped)
        wb__buf_str(&fields, "Idempotency-Skipped: anonymous\n");
    if (fields.failed != WB_OK) {
        drop(p);
    } else {
        p->begun = true;
        wb__exchange_begin(p->call,
            &(struct wb__response){.status = head->status,
                .headers = wb__buf_slice(&fields),
                .undated = true},
            head->has_length ? head->length : WB__LENGTH_UNKNOWN);
    }
    wb__buf_fini(&fields);
}

static void
on_body(struct wb__upstream_request *ask, struct wb_slice piece)
{
    struct plain *p = ask->data;
    bool mine = p->complete; /* else on_gone() has dropped it */

    if (wb__exchange_write(p->call, piece)) {
        if (wb__exchange_queued(p->call) > WB__GATE_QUEUE)
            wb__upstream_pause(&p->ask, true);
    } else if (mine) {
        drop(p);
    }
}

static void
on_ask_turn(struct wb__upstream_request *ask)
{
    struct plain *p = ask->data;

    wb__exchange_flush(p->call);
}

static void
on_drain(struct wb__exchange *call)
{
    struct plain *p = call->data;

    wb__upstream_pause(&p->ask, false);
}

static void
on_end(struct wb__upstream_request *ask)
{
    struct plain *p = ask->data;

    wb__exchange_end(p->call);
    free_plain(p);
}

static void
on_fail(struct wb__upstream_request *ask, bool sent, const char *why)
{
    struct plain *p = ask->data;

    (void)why;
    p->gate->n.upstream_errors++;
    if (p->begun)
        wb__exchange_drop(p->call);
    else
        wb__gate_respond_error(p->call, !sent ? WB__UPSTREAM_UNREACHABLE
                                        : ask->switched ? WB__UPSTREAM_SWITCHED
                                                        : WB__UPSTREAM_FAILED);
    free_plain(p);
}

/* ---- begin ------------------------------------------------------------- */

static enum wb_status
begin(struct plain *p)
{
    const struct wb__http_head *head = p->call->head;
    struct wb__rule_request r = {.head = head,
        .identity_header = p->gate->opts.identity_header,
        .authority = p->gate->authority,
        .has_body = head->chunked || head->has_length,
        .length = head->chunked ? WB__LENGTH_UNKNOWN : head->length};
    struct wb__buf request = {.env = p->gate->opts.env, .max = 64 << 10};
    enum wb_status rc;

    p->chunked = head->chunked;
    p->ask = (struct wb__upstream_request){.data = p,
        .bodyless = wb__eq(head->method, WB_LIT("HEAD")),
        .on_head = on_head,
        .on_body = on_body,
        .on_input_drained = on_ask_turn,
        .on_end = on_end,
        .on_fail = on_fail,
        .on_drain = on_sent};
    wb__rule_write_request(&request, &r);
    rc = request.failed;
    if (rc == WB_OK)
        rc = wb__upstream_send(p->gate->up, &p->ask, wb__buf_slice(&request));
    wb__buf_fini(&request);
    return rc;
}

void
wb__passthrough_handle(
    struct wb__gate *gate, struct wb__exchange *call, bool skipped)
{
    struct plain *p = wb__alloc(gate->opts.env, sizeof(*p));

    gate->n.passed++;
    gate->n.skipped += skipped;
    if (p != NULL) {
        *p = (struct plain){.gate = gate, .call = call, .skipped = skipped};
        if (begin(p) == WB_OK) {
            call->data = p;
            call->patient = true;
            call->on_gone = on_gone;
            call->on_body = on_piece;
            call->on_body_end = on_body_end;
            call->on_input_drained = on_call_turn;
            call->on_drain = on_drain;
            return;
        }
        free_plain(p);
    }
    wb__gate_respond_error(call, WB__OUT_OF_MEMORY);
}
