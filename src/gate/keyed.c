/* keyed.c - a request with a key, from its head to the answer of the store.
 *
 *  1. The store is asked once the whole body is here. (G-4)
 *  2. Who waits sleeps until the holder, here, is done, or asks again every
 *     WB__GATE_POLL_MS where the holder is elsewhere; at most
 *     WB__GATE_WAITERS a key. (G-5, C-2)
 *  3. A waiter whose client leaves is dropped; a holder goes on. (G-10) */
#include "gate/gate_internal.h"

static void ask_store(struct wb__keyed *x);

/* ---- what the store says ----------------------------------------------- */

static void
replay(struct wb__keyed *x)
{
    const struct wb_idem_record *record = &x->result.record;

    x->gate->n.replay++;
    wb__buf_clear(&x->fields);
    wb__buf_add(&x->fields, record->headers);
    wb__buf_str(&x->fields, "Idempotent-Replayed: true\n");
    if (x->fields.failed != WB_OK || record->status < 200 ||
        record->status > 599) {
        wb__keyed_refuse(x, WB__STORE_UNAVAILABLE);
        return;
    }
    wb__exchange_respond(
        x->call, &(struct wb__response){.status = record->status,
                     .headers = wb__buf_slice(&x->fields),
                     .body = record->body,
                     .undated = true});
    wb__keyed_over(x);
}

static void
drop(struct wb__keyed *x)
{
    wb__exchange_drop(x->call);
    wb__keyed_over(x);
}

static void
wait_or_refuse(struct wb__keyed *x)
{
    struct wb__gate *gate = x->gate;

    if (x->call->gone) {
        drop(x);
    } else if (wb__gate_now(gate) >= x->deadline_us ||
               wb__keyed_waiters(x) >= WB__GATE_WAITERS) {
        gate->n.conflict++;
        wb__keyed_refuse(x, WB__IN_FLIGHT);
    } else {
        gate->n.wait += !x->waited;
        x->waited = true;
        x->woken = false;
        x->stage = WB__WAITING;
    }
}

static void
refuse(struct wb__keyed *x, enum wb__gate_error problem, uint64_t *counter)
{
    *counter += 1;
    wb__keyed_refuse(x, problem);
}

static void
done_begin(struct wb__job_run *job)
{
    struct wb__keyed *x = job->keyed;
    struct wb__gate_counters *n = &x->gate->n;

    if (job->call.rc != WB_OK) {
        refuse(x, WB__STORE_UNAVAILABLE, &n->store_errors);
        return;
    }
    switch (x->result.answer) {
    case WB_IDEM_ACQUIRED:
        x->token = x->result.token;
        wb__carry(x);
        break;
    case WB_IDEM_REPLAY:
        replay(x);
        break;
    case WB_IDEM_IN_FLIGHT:
    case WB_IDEM_HELD:
        wait_or_refuse(x);
        break;
    case WB_IDEM_MISMATCH:
        refuse(x, WB__MISMATCH, &n->mismatch);
        break;
    case WB_IDEM_UNKNOWN:
        refuse(x, WB__OUTCOME_UNKNOWN, &n->held);
        break;
    default: /* a quota is used up: the store has no room for it */
        refuse(x, WB__STORE_UNAVAILABLE, &n->store_errors);
        break;
    }
}

static void
ask_store(struct wb__keyed *x)
{
    x->stage = WB__BEGINNING;
    wb__gate_job(&x->job,
        (struct wb__idem_call){.verb = WB__IDEM_BEGIN,
            .fingerprint = &x->fingerprint,
            .how = {.lease_ms = x->gate->opts.lease_ms, .sending = true},
            .result = &x->result},
        done_begin);
}

/* The wait is for another's claim, not for the client's own bytes. */
static void
begin(struct wb__keyed *x)
{
    x->deadline_us =
        wb__sat_add(wb__gate_now(x->gate), x->gate->opts.wait_ms * 1000);
    ask_store(x);
}

/* ---- waiting and holding ----------------------------------------------- */

static void
tick_one(struct wb__keyed *x, int64_t now_us)
{
    if (x->stage == WB__HOLDING || x->stage == WB__ENDING)
        wb__carry_renew(x, now_us);
    else if (x->stage == WB__WAITING && (x->woken || now_us >= x->deadline_us ||
                                            !wb__keyed_is_held_here(x)))
        ask_store(x);
}

void
wb__keyed_tick(struct wb__gate *gate)
{
    int64_t now_us = wb__gate_now(gate);
    struct wb__keyed *next;

    for (struct wb__keyed *x = gate->first; x != NULL; x = next) {
        next = x->next;
        tick_one(x, now_us);
    }
}

/* ---- the request comes ------------------------------------------------- */

static void
on_gone(struct wb__exchange *call)
{
    struct wb__keyed *x = call->data;

    if (x->stage == WB__READING || x->stage == WB__WAITING)
        drop(x);
}

static void
on_body(struct wb__exchange *call, struct wb_slice piece)
{
    struct wb__keyed *x = call->data;
    struct wb__gate *gate = x->gate;

    wb__buf_add(&x->body, piece);
    wb__keyed_account(x);
    if (x->body.failed == WB_TOOBIG)
        refuse(x, WB__TOO_LARGE, &gate->n.refused);
    else if (x->body.failed != WB_OK || gate->bytes > gate->opts.max_bytes)
        refuse(x, WB__OUT_OF_MEMORY, &gate->n.refused);
}

static void
on_body_end(struct wb__exchange *call)
{
    struct wb__keyed *x = call->data;

    wb__keyed_name(x);
    if (wb__rule_fingerprint(
            call->head, wb__buf_slice(&x->body), &x->fingerprint) != WB_OK)
        wb__keyed_refuse(x, WB__OUT_OF_MEMORY);
    else
        begin(x);
}

/* METHOD and path, without the query. (M-3) */
static bool
make_scope(struct wb__keyed *x, const struct wb__http_head *head)
{
    wb__buf_add(&x->scope, head->method);
    wb__buf_str(&x->scope, " ");
    wb__buf_add(&x->scope, head->path);
    return x->scope.failed == WB_OK;
}

void
wb__keyed_handle(struct wb__gate *gate, struct wb__exchange *call,
    const struct wb__name *identity, const struct wb__name *key)
{
    struct wb__keyed *x = wb__keyed_new(gate, call);

    if (x == NULL) {
        wb__gate_respond_error(call, WB__OUT_OF_MEMORY);
        return;
    }
    x->identity = *identity;
    x->key = *key;
    call->data = x;
    call->on_gone = on_gone;
    call->on_body = on_body;
    call->on_body_end = on_body_end;
    if (call->head->length > gate->opts.body_bytes)
        refuse(x, WB__TOO_LARGE, &gate->n.refused);
    else if (!make_scope(x, call->head))
        refuse(x, WB__URI_TOO_LONG, &gate->n.refused);
}
