/* keyed_request.c - one request with a key, from its head to its response.
 *
 *     without a claim           |  holds the claim
 *
 *     READING ----> CLAIMING -----> FORWARDING ----> ENDING
 *        |           |  |  ^    |                       |
 *        |           |  v  |    |  upstream has         |  the store
 *        |           | WAITING  |  responded or failed  |  has replied
 *        v           v  v       |                       v
 *       OVER <------------------------------------------+
 *
 *  1. The claim is begun once the whole body has arrived; it is marked sending
 *     before anything is sent upstream. (G-4, G-9)
 *  2. A waiting request sleeps until the request of this gateway that holds the
 *     claim has ended. If another process holds it, BEGIN is repeated every
 *     WB__GATE_POLL_MS. At most WB__GATE_WAITERS wait per key. (G-5, C-2)
 *  3. A waiting request whose client leaves is dropped; one that holds the
 *     claim continues. (G-10)
 *  4. respond() alone sends the last byte of a response, after the store has
 *     committed the outcome. (G-6)
 *  5. Every claim ends: completed, released or unknown. While the store is
 *     locked or full it is ended again and again; the end of the lease makes it
 *     unknown.
 *  6. OVER: the exchange has ended. The request is freed once no renewal of its
 *     lease is under way. */
#include "gate/gate_internal.h"

enum request_state {
    READING,
    CLAIMING,   /* BEGIN is under way */
    WAITING,    /* another request holds the claim */
    FORWARDING, /* upstream has the request */
    ENDING,     /* COMPLETE, RELEASE or UNKNOWN is under way */
    OVER
};

struct wb__keyed_request {
    struct wb__forward forward; /* first; its exchange is NULL if OVER */
    struct wb__gate *gate;
    struct wb__keyed_request *prev, *next;
    enum request_state state;
    struct wb__name identity, key;
    struct wb__buf scope, body;
    struct wb_idem_op op; /* of the three above */
    struct wb_fingerprint fingerprint;
    struct wb_idem_result result; /* of BEGIN */
    uint64_t token;
    struct wb__store_call store_call, renewal;
    int64_t began_us, wait_until_us, renew_at_us, end_until_us;
    int64_t repeat_at_us; /* the end of the claim; 0: no */
    bool waited, lost;    /* lost: the claim, to another request */
    struct wb__held_response response;
    enum wb__gate_error error; /* once ENDING */
    const char *why;           /* NULL: the error says it all */
    size_t bytes;              /* of its buffers, as counted in gate->bytes */
};

static void claim(struct wb__keyed_request *r);
static void forward(struct wb__keyed_request *r);
static void end_claim(struct wb__keyed_request *r, enum wb__idem_verb verb,
    enum wb__gate_error error);
static void respond(struct wb__keyed_request *r, enum wb__gate_error error);
static void end(struct wb__keyed_request *r);
static void start_tick(struct wb__gate *gate, uint64_t ms);

static void
move(struct wb__keyed_request *r, enum request_state to)
{
    static const unsigned allowed[] = {[READING] = 1u << CLAIMING | 1u << OVER,
        [CLAIMING] = 1u << WAITING | 1u << FORWARDING | 1u << OVER,
        [WAITING] = 1u << CLAIMING | 1u << OVER,
        [FORWARDING] = 1u << ENDING,
        [ENDING] = 1u << ENDING | 1u << OVER, /* not completed: unknown */
        [OVER] = 0};

    WB_ASSERT((allowed[r->state] & 1u << to) != 0);
    r->state = to;
}

static const unsigned holder_states = 1u << FORWARDING | 1u << ENDING;
static const unsigned waiter_states = 1u << WAITING | 1u << CLAIMING;

/* How many requests with the key of r are in one of these states; of waiters,
 * those that have waited. */
static size_t
count_same_key(const struct wb__keyed_request *r, unsigned states)
{
    const struct wb__keyed_request *o = r->gate->requests;
    size_t n = 0;

    for (; o != NULL; o = o->next)
        n += (states & 1u << o->state) != 0 &&
             (states != waiter_states || o->waited) &&
             wb__idem_op_eq(&r->op, &o->op);
    return n;
}

static void
account(struct wb__keyed_request *r)
{
    size_t now = r->body.cap + r->response.headers.cap +
                 r->response.stored_headers.cap + r->response.body.cap;

    r->gate->bytes = r->gate->bytes - r->bytes + now;
    r->bytes = now;
}

static void
call_store(struct wb__keyed_request *r, struct wb__store_call *c,
    struct wb__idem_call call, void (*done)(struct wb__store_call *c))
{
    call.op = &r->op;
    call.token = r->token;
    c->call = call;
    wb__store_queue_add(&r->gate->queue, c, done);
}

static void
refuse(struct wb__keyed_request *r, enum wb__gate_error e, uint64_t *counter)
{
    *counter += 1;
    respond(r, e);
}

static void
log_access(const struct wb__keyed_request *r, int status, const char *outcome)
{
    wb__gate_log_access(r->gate, r->forward.exchange->head, status, outcome,
        wb__gate_us(r->gate) - r->began_us);
}

static void
drop(struct wb__keyed_request *r)
{
    log_access(r, 0, "cut");
    wb__exchange_drop(r->forward.exchange);
    end(r);
}

/* ---- READING ----------------------------------------------------------- */

static void
on_gone(struct wb__exchange *exchange)
{
    struct wb__keyed_request *r = exchange->data;

    if (r->state == READING || r->state == WAITING)
        drop(r);
}

static void
on_body(struct wb__exchange *exchange, struct wb_slice piece)
{
    struct wb__keyed_request *r = exchange->data;
    struct wb__gate *gate = r->gate;

    wb__buf_add(&r->body, piece);
    account(r);
    if (r->body.failed == WB_TOOBIG)
        refuse(r, WB__GATE_TOO_LARGE, &gate->n.refused);
    else if (r->body.failed != WB_OK || gate->bytes > gate->opts.max_bytes)
        refuse(r, WB__GATE_OUT_OF_MEMORY, &gate->n.refused);
}

static void
on_body_end(struct wb__exchange *exchange)
{
    struct wb__keyed_request *r = exchange->data;
    const struct wb__gate *gate = r->gate;

    r->op.identity = (struct wb_slice){r->identity.text, r->identity.len};
    r->op.key = (struct wb_slice){r->key.text, r->key.len};
    r->op.scope = wb__buf_slice(&r->scope);
    if (wb__fingerprint_of(&gate->policy.fingerprint, gate->opts.env,
            exchange->head, r->op.scope, wb__buf_slice(&r->body),
            &r->fingerprint) != WB_OK) {
        respond(r, WB__GATE_OUT_OF_MEMORY);
        return;
    }
    r->wait_until_us =
        wb__sat_add(wb__gate_us(gate), gate->opts.wait_ms * 1000);
    claim(r);
}

void
wb__keyed_request_handle(struct wb__gate *gate, struct wb__exchange *exchange,
    const struct wb__name *identity, const struct wb__name *key)
{
    const struct wb__http_head *head = exchange->head;
    const struct wb_env *env = gate->opts.env;
    struct wb__keyed_request *r = wb__alloc(env, sizeof(*r));

    if (r == NULL) {
        wb__gate_respond_error(gate, exchange, WB__GATE_OUT_OF_MEMORY, NULL);
        return;
    }
    *r = (struct wb__keyed_request){.forward.exchange = exchange,
        .gate = gate,
        .next = gate->requests,
        .identity = *identity,
        .key = *key,
        .scope = {.env = env, .max = WB__IDEM_SCOPE_MAX},
        .body = {.env = env, .max = gate->opts.body_bytes},
        .store_call.data = r,
        .renewal.data = r,
        .began_us = wb__gate_us(gate)};
    wb__held_response_init(&r->response, &r->forward, env);
    if (r->next != NULL)
        r->next->prev = r;
    gate->requests = r;
    start_tick(gate, WB__GATE_POLL_MS);
    exchange->data = r;
    exchange->on_gone = on_gone;
    exchange->on_body = on_body;
    exchange->on_body_end = on_body_end;
    wb__rule_write_scope(&r->scope, head, gate->opts.virtual_hosts);
    if (head->length > gate->opts.body_bytes)
        refuse(r, WB__GATE_TOO_LARGE, &gate->n.refused);
    else if (r->scope.failed != WB_OK)
        refuse(r, WB__GATE_URI_TOO_LONG, &gate->n.refused);
}

/* ---- CLAIMING, WAITING ------------------------------------------------- */

static void
wait_or_refuse(struct wb__keyed_request *r)
{
    struct wb__gate *gate = r->gate;

    if (r->forward.exchange->gone) {
        drop(r);
        return;
    }
    /* One that waits already keeps its place while it claims again. */
    if (!r->waited && count_same_key(r, waiter_states) >= WB__GATE_WAITERS)
        r->why = "too many requests with this key wait already";
    else if (wb__gate_us(gate) >= r->wait_until_us)
        r->why = "the first request with this key has not ended";
    if (r->why != NULL) {
        refuse(r, WB__GATE_IN_FLIGHT, &gate->n.conflict);
        return;
    }
    gate->n.wait += !r->waited;
    r->waited = true;
    move(r, WAITING);
}

static void
replay(struct wb__keyed_request *r)
{
    r->gate->n.replay++;
    if (wb__held_response_load(&r->response, &r->result.record) != WB_OK) {
        respond(r, WB__GATE_STORE_UNAVAILABLE);
        return;
    }
    log_access(r, r->result.record.status, "replay");
    wb__held_response_replay(&r->response, &r->result.record);
    end(r);
}

static void
on_claim_done(struct wb__store_call *c)
{
    struct wb__keyed_request *r = c->data;
    struct wb__gate_counters *n = &r->gate->n;

    if (c->call.rc != WB_OK) {
        wb__gate_store_failed(r->gate, r->forward.exchange->head, c->call.rc);
        r->why = "the claim could not be made; nothing was sent";
        respond(r, WB__GATE_STORE_UNAVAILABLE);
        return;
    }
    switch (r->result.answer) {
    case WB_IDEM_ACQUIRED:
        r->token = r->result.token;
        forward(r);
        break;
    case WB_IDEM_REPLAY:
        replay(r);
        break;
    case WB_IDEM_IN_FLIGHT:
    case WB_IDEM_HELD:
        wait_or_refuse(r);
        break;
    case WB_IDEM_MISMATCH:
        refuse(r, WB__GATE_MISMATCH, &n->mismatch);
        break;
    case WB_IDEM_UNKNOWN:
        refuse(r, WB__GATE_KEY_HELD, &n->held);
        break;
    default:
        r->why = "a quota of the store is used up; nothing was sent";
        refuse(r, WB__GATE_STORE_UNAVAILABLE, &n->store_errors);
        break;
    }
}

static void
claim(struct wb__keyed_request *r)
{
    move(r, CLAIMING);
    call_store(r, &r->store_call,
        (struct wb__idem_call){.verb = WB__IDEM_BEGIN,
            .fingerprint = &r->fingerprint,
            .how = {.lease_ms = r->gate->opts.lease_ms, .sending = true},
            .result = &r->result},
        on_claim_done);
}

/* ---- FORWARDING -------------------------------------------------------- */

static void
abort_upstream(struct wb__keyed_request *r)
{
    r->why = "out of memory for its response";
    wb__upstream_cancel(&r->forward.upstream);
    end_claim(r, WB__IDEM_UNKNOWN, WB__GATE_OUTCOME_UNKNOWN);
}

static void
on_head(struct wb__upstream_request *upstream, const struct wb__http_head *head)
{
    struct wb__keyed_request *r = upstream->data;

    if (wb__held_response_head(&r->response, head) != WB_OK)
        abort_upstream(r);
}

static void
on_response_body(struct wb__upstream_request *upstream, struct wb_slice piece)
{
    struct wb__keyed_request *r = upstream->data;
    struct wb__held_response *response = &r->response;
    const struct wb__gate_opts *o = &r->gate->opts;

    wb__buf_add(&response->body, piece);
    account(r);
    if (response->body.failed != WB_OK) {
        abort_upstream(r);
        return;
    }
    if (!response->streaming && response->body.len <= o->response_bytes &&
        r->gate->bytes <= o->max_bytes)
        return;
    if (wb__held_response_stream(response) != WB_OK)
        abort_upstream(r);
}

static void
on_end(struct wb__upstream_request *upstream)
{
    static const enum wb__idem_verb verb[] = {
        [WB__STATUS_KEEP] = WB__IDEM_COMPLETE,
        [WB__STATUS_FREE] = WB__IDEM_RELEASE,
        [WB__STATUS_UNKNOWN] = WB__IDEM_UNKNOWN};
    struct wb__keyed_request *r = upstream->data;

    end_claim(
        r, verb[r->gate->policy.action[r->response.status]], WB__GATE_NO_ERROR);
}

static void
on_fail(struct wb__upstream_request *upstream, bool sent, const char *why)
{
    struct wb__keyed_request *r = upstream->data;

    r->why = why;
    r->gate->n.upstream_errors++;
    if (!sent)
        end_claim(r, WB__IDEM_RELEASE, WB__GATE_UPSTREAM_UNREACHABLE);
    else if (upstream->switched)
        end_claim(r, WB__IDEM_UNKNOWN, WB__GATE_OUTCOME_UNKNOWN_SWITCHED);
    else
        end_claim(r, WB__IDEM_UNKNOWN, WB__GATE_OUTCOME_UNKNOWN);
}

static void
forward(struct wb__keyed_request *r)
{
    struct wb__gate *gate = r->gate;
    struct wb_slice body = wb__buf_slice(&r->body);
    enum wb_status rc;

    gate->n.fresh++;
    move(r, FORWARDING);
    r->renew_at_us =
        wb__sat_add(wb__gate_us(gate), gate->opts.lease_ms * 1000 / 3);
    r->forward.upstream =
        (struct wb__upstream_request){.fresh = gate->opts.fresh_connections,
            .on_head = on_head,
            .on_body = on_response_body,
            .on_end = on_end,
            .on_fail = on_fail};
    rc = wb__forward_request(gate, &r->forward, &body);
    if (rc == WB_OK)
        wb__upstream_end(&r->forward.upstream);
    wb__buf_fini(&r->body);
    account(r);
    if (rc != WB_OK)
        end_claim(r, WB__IDEM_RELEASE, WB__GATE_OUT_OF_MEMORY);
}

/* ---- the lease, while FORWARDING and ENDING ---------------------------- */

static void
on_renewal_done(struct wb__store_call *c)
{
    struct wb__keyed_request *r = c->data;

    if (r->state == OVER) {
        end(r);
        return;
    }
    if (r->state == FORWARDING && c->call.rc == WB_FENCED && !r->lost) {
        r->lost = true;
        r->gate->n.lost++;
    }
    wb__gate_store_failed(r->gate, r->forward.exchange->head, c->call.rc);
}

/* ---- ENDING ------------------------------------------------------------ */

/* The store is locked or full: try again for as long as a lease lasts. UNKNOWN
 * needs no record: the lease ends so as well. */
static bool
is_to_repeat(
    const struct wb__keyed_request *r, const struct wb__idem_call *call)
{
    return (call->rc == WB_BUSY || call->rc == WB_FULL) &&
           call->verb != WB__IDEM_UNKNOWN &&
           wb__gate_us(r->gate) < r->end_until_us;
}

static void
on_claim_ended(struct wb__store_call *c)
{
    struct wb__keyed_request *r = c->data;
    struct wb__gate_counters *n = &r->gate->n;
    bool ok = c->call.rc == WB_OK;

    wb__gate_store_failed(r->gate, r->forward.exchange->head, c->call.rc);
    if (is_to_repeat(r, &c->call)) {
        r->repeat_at_us = wb__gate_us(r->gate) + WB__GATE_REPEAT_MS * 1000;
        return;
    }
    n->released += ok && c->call.verb == WB__IDEM_RELEASE;
    if (c->call.verb == WB__IDEM_COMPLETE) {
        n->truncated += ok && r->response.streaming;
        n->lost += c->call.rc == WB_FENCED && !r->lost;
    }
    if (c->call.verb == WB__IDEM_COMPLETE && !ok) {
        r->why = c->call.rc == WB_FENCED
                     ? "another request has taken the key meanwhile"
                     : "the response could not be recorded";
        end_claim(r, WB__IDEM_UNKNOWN, WB__GATE_STORE_UNAVAILABLE);
    } else {
        respond(r, r->error);
    }
}

/* COMPLETE stores the response. RELEASE: nothing was sent, or the response is
 * not a final one. UNKNOWN: the request may have taken effect. */
static void
end_claim(struct wb__keyed_request *r, enum wb__idem_verb verb,
    enum wb__gate_error error)
{
    struct wb__idem_call call = {.verb = verb};
    const struct wb__held_response *response = &r->response;

    if (verb == WB__IDEM_COMPLETE) {
        call.record.status = response->status;
        call.record.headers = wb__buf_slice(&response->stored_headers);
        call.record.ttl_ms = r->gate->opts.ttl_ms;
        if (!response->streaming)
            call.record.body = wb__buf_slice(&response->body);
    }
    if (verb == WB__IDEM_UNKNOWN) {
        r->gate->n.unknown++;
        wb__gate_log(r->gate, WB__LOG_WARN, "outcome-unknown",
            r->forward.exchange->head,
            (struct wb__log_fields){.status = response->status,
                .error = r->why == NULL ? WB_LIT("the status says nothing "
                                                 "about the effect")
                                        : wb_slice(r->why)});
    }
    r->error = error;
    if (r->state != ENDING)
        r->end_until_us =
            wb__sat_add(wb__gate_us(r->gate), r->gate->opts.lease_ms * 1000);
    move(r, ENDING);
    call_store(r, &r->store_call, call, on_claim_ended);
}

/* ---- OVER -------------------------------------------------------------- */

/* The error, or the response, or the rest of it. */
static void
respond(struct wb__keyed_request *r, enum wb__gate_error error)
{
    if (error == WB__GATE_NO_ERROR) {
        log_access(r, r->response.status, "fresh");
        wb__held_response_send(&r->response);
    } else if (r->response.streaming) {
        log_access(r, r->response.status, "cut");
        wb__exchange_drop(r->forward.exchange);
    } else {
        wb__gate_respond_error(r->gate, r->forward.exchange, error, r->why);
    }
    end(r);
}

/* The exchange has ended; or it had, and the last renewal is now done. */
static void
end(struct wb__keyed_request *r)
{
    struct wb__gate *gate = r->gate;

    WB_ASSERT(r->store_call.done == NULL);
    if (r->state != OVER) {
        if (r->state == ENDING && count_same_key(r, 1u << WAITING) > 0)
            start_tick(gate, 0); /* claims for those */
        wb__gate_add_latency(gate, wb__gate_us(gate) - r->began_us);
        move(r, OVER);
        r->forward.exchange = NULL;
    }
    if (r->renewal.done != NULL)
        return;
    *(r->prev == NULL ? &gate->requests : &r->prev->next) = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    wb_idem_result_free(&r->result);
    wb__buf_fini(&r->scope);
    wb__buf_fini(&r->body);
    wb__held_response_fini(&r->response);
    account(r);
    wb__free(gate->opts.env, r);
    if (gate->stopped)
        start_tick(gate, 0); /* calls on_idle() if it was the last one */
}

void
wb__gate_log_cut(const struct wb__gate *gate)
{
    for (const struct wb__keyed_request *r = gate->requests; r != NULL;
         r = r->next)
        if ((holder_states & 1u << r->state) != 0)
            wb__gate_log(gate, WB__LOG_WARN, "outcome-unknown",
                r->forward.exchange->head,
                (struct wb__log_fields){
                    .error = WB_LIT("the gateway stopped while it ran")});
}

/* ---- the timer --------------------------------------------------------- */

static void
on_tick(uv_timer_t *timer)
{
    struct wb__gate *gate = timer->data;
    int64_t at_us = wb__gate_us(gate), lease_ms = gate->opts.lease_ms;
    struct wb__keyed_request *next;

    gate->ticking = false;
    for (struct wb__keyed_request *r = gate->requests; r != NULL; r = next) {
        next = r->next;
        if (r->repeat_at_us != 0 && at_us >= r->repeat_at_us) {
            r->repeat_at_us = 0;
            r->store_call.call.next = NULL;
            call_store(r, &r->store_call, r->store_call.call, on_claim_ended);
        } else if ((holder_states & 1u << r->state) != 0 &&
                   r->renewal.done == NULL && at_us >= r->renew_at_us) {
            r->renew_at_us = wb__sat_add(at_us, lease_ms * 1000 / 3);
            call_store(r, &r->renewal,
                (struct wb__idem_call){
                    .verb = WB__IDEM_EXTEND, .how.lease_ms = lease_ms},
                on_renewal_done);
        } else if (r->state == WAITING &&
                   (at_us >= r->wait_until_us ||
                       count_same_key(r, holder_states) == 0)) {
            claim(r);
        }
    }
    if (gate->requests == NULL)
        gate->on_idle(gate);
    else
        start_tick(gate, WB__GATE_POLL_MS);
}

/* At once, or in ms unless a tick is due already. */
static void
start_tick(struct wb__gate *gate, uint64_t ms)
{
    if (gate->ticking && ms > 0)
        return;
    gate->ticking = true;
    (void)uv_timer_start(&gate->tick, on_tick, ms, 0);
}
