/* carry.c - a claimed request goes upstream, and its answer comes back.
 *
 *  1. The claim is marked sending before wb__carry() is called.
 *  2. deliver() alone lets go of the last byte, after the store said OK.
 *  3. Whatever happens the claim ends: completed, freed or unknown. Where the
 *     store cannot be told, its lease ends it as unknown. */
#include "gate/gate_internal.h"

/* ---- the end ----------------------------------------------------------- */

static void
on_drain(struct wb__exchange *call)
{
    struct wb__keyed *x = call->data;

    if (x->stage == WB__HOLDING)
        wb__upstream_pause(&x->ask, false);
}

static void
deliver_all(struct wb__keyed *x)
{
    wb__exchange_respond(x->call, &(struct wb__response){.status = x->status,
                                      .headers = wb__buf_slice(&x->fields),
                                      .body = wb__buf_slice(&x->answer),
                                      .undated = true});
}

static void
deliver(struct wb__keyed *x)
{
    if (!x->begun) {
        deliver_all(x);
    } else {
        (void)wb__exchange_write(x->call, wb__buf_slice(&x->answer));
        wb__exchange_end(x->call);
    }
    wb__keyed_over(x);
}

static void
give_up(struct wb__keyed *x)
{
    if (x->begun) {
        wb__exchange_drop(x->call);
        wb__keyed_over(x);
    } else {
        wb__keyed_refuse(x, x->problem);
    }
}

/* ---- unknown ----------------------------------------------------------- */

static void
done_unknown(struct wb__job_run *job)
{
    struct wb__keyed *x = job->keyed;

    x->gate->n.store_errors +=
        job->call.rc != WB_OK && job->call.rc != WB_FENCED;
    give_up(x);
}

static void
end_unknown(struct wb__keyed *x, enum wb__gate_error problem)
{
    x->gate->n.unknown++;
    x->stage = WB__ENDING;
    x->problem = problem;
    wb__gate_job(&x->job, (struct wb__idem_call){.verb = WB__IDEM_UNKNOWN},
        done_unknown);
}

/* ---- freed ------------------------------------------------------------- */

static const struct wb__idem_call release = {.verb = WB__IDEM_RELEASE};

static void
note_released(struct wb__keyed *x, enum wb_status rc)
{
    x->gate->n.released += rc == WB_OK;
    x->gate->n.store_errors += rc != WB_OK && rc != WB_FENCED;
}

static void
done_release(struct wb__job_run *job)
{
    note_released(job->keyed, job->call.rc);
    deliver(job->keyed);
}

/* Nothing was sent. */
static void
done_release_unsent(struct wb__job_run *job)
{
    note_released(job->keyed, job->call.rc);
    give_up(job->keyed);
}

/* ---- completed --------------------------------------------------------- */

static void
done_complete(struct wb__job_run *job)
{
    struct wb__keyed *x = job->keyed;
    struct wb__gate_counters *n = &x->gate->n;

    if (job->call.rc == WB_OK) {
        n->truncated += x->truncated;
        deliver(x);
        return;
    }
    n->store_errors += job->call.rc != WB_FENCED;
    n->lost += job->call.rc == WB_FENCED && !x->lost;
    end_unknown(x, WB__STORE_UNAVAILABLE);
}

static void
complete(struct wb__keyed *x)
{
    struct wb__idem_call call = {.verb = WB__IDEM_COMPLETE,
        .record = {.status = x->status,
            .headers = wb__buf_slice(&x->kept),
            .ttl_ms = x->gate->opts.ttl_ms}};

    if (!x->truncated)
        call.record.body = wb__buf_slice(&x->answer);
    wb__gate_job(&x->job, call, done_complete);
}

/* ---- the answer comes -------------------------------------------------- */

/* From here on it goes through, but for its last byte, and is not kept. */
static void
begin_stream(struct wb__keyed *x)
{
    x->begun = x->truncated = true;
    wb__buf_str(&x->kept, "Idempotent-Truncated: true\n");
    wb__exchange_begin(x->call,
        &(struct wb__response){.status = x->status,
            .headers = wb__buf_slice(&x->fields),
            .undated = true},
        x->length);
}

/* All but the last byte. */
static void
let_go(struct wb__keyed *x)
{
    struct wb__buf *b = &x->answer;
    char last;

    if (b->len < 2)
        return;
    last = b->ptr[b->len - 1];
    if (wb__exchange_write(x->call, (struct wb_slice){b->ptr, b->len - 1}) &&
        wb__exchange_queued(x->call) > WB__GATE_QUEUE)
        wb__upstream_pause(&x->ask, true);
    wb__buf_fini(b);
    wb__buf_add(b, (struct wb_slice){&last, 1});
}

static void
fail(struct wb__keyed *x, enum wb__gate_error problem)
{
    wb__upstream_cancel(&x->ask);
    end_unknown(x, problem);
}

static void
on_head(struct wb__upstream_request *ask, const struct wb__http_head *head)
{
    struct wb__keyed *x = ask->data;

    x->status = head->status;
    x->length = head->has_length ? head->length : WB__LENGTH_UNKNOWN;
    wb__rule_copy_fields(&x->fields, head->headers, false);
    wb__rule_copy_fields(&x->kept, head->headers, true);
    if (x->fields.failed != WB_OK || x->kept.failed != WB_OK)
        fail(x, WB__OUTCOME_NOW_UNKNOWN);
    else if (wb__rule_is_event_stream(head->headers))
        begin_stream(x);
}

static void
on_body(struct wb__upstream_request *ask, struct wb_slice piece)
{
    struct wb__keyed *x = ask->data;
    const struct wb__gate_opts *o = &x->gate->opts;
    const enum wb_status *failed = &x->answer.failed;

    wb__buf_add(&x->answer, piece);
    wb__keyed_account(x);
    if (*failed == WB_OK && !x->begun &&
        (x->answer.len > o->answer_bytes || x->gate->bytes > o->max_bytes))
        begin_stream(x);
    if (*failed == WB_OK && x->begun)
        let_go(x);
    if (*failed != WB_OK) /* of the last byte, too */
        fail(x, WB__OUTCOME_NOW_UNKNOWN);
}

static void
on_input_drained(struct wb__upstream_request *ask)
{
    struct wb__keyed *x = ask->data;

    if (x->begun)
        wb__exchange_flush(x->call);
}

static void
on_end(struct wb__upstream_request *ask)
{
    struct wb__keyed *x = ask->data;

    x->stage = WB__ENDING;
    if (wb__rule_is_stored(x->status))
        complete(x);
    else
        wb__gate_job(&x->job, release, done_release);
}

static void
on_fail(struct wb__upstream_request *ask, bool sent, const char *why)
{
    struct wb__keyed *x = ask->data;

    (void)why;
    x->gate->n.upstream_errors++;
    if (sent) {
        end_unknown(
            x, ask->switched ? WB__OUTCOME_SWITCHED : WB__OUTCOME_NOW_UNKNOWN);
        return;
    }
    x->stage = WB__ENDING;
    x->problem = WB__UPSTREAM_UNREACHABLE;
    wb__gate_job(&x->job, release, done_release_unsent);
}

/* ---- the way there ----------------------------------------------------- */

static void
unsent(struct wb__keyed *x)
{
    x->stage = WB__ENDING;
    x->problem = WB__OUT_OF_MEMORY;
    wb__gate_job(&x->job, release, done_release_unsent);
}

void
wb__carry(struct wb__keyed *x)
{
    struct wb__gate *gate = x->gate;
    struct wb__buf request = {
        .env = gate->opts.env, .max = x->body.len + (64 << 10)};
    struct wb__rule_request r = {.head = x->call->head,
        .identity_header = gate->opts.identity_header,
        .authority = gate->authority,
        .has_body = true,
        .length = x->body.len};
    bool failed = false;

    gate->n.fresh++;
    x->stage = WB__HOLDING;
    x->renew_us =
        wb__sat_add(wb__gate_now(gate), gate->opts.lease_ms * 1000 / 3);
    x->call->on_drain = on_drain;
    x->ask = (struct wb__upstream_request){.data = x,
        .on_head = on_head,
        .on_body = on_body,
        .on_input_drained = on_input_drained,
        .on_end = on_end,
        .on_fail = on_fail};
    wb__rule_write_request(&request, &r);
    wb__buf_add(&request, wb__buf_slice(&x->body));
    if (request.failed != WB_OK ||
        wb__upstream_send(gate->up, &x->ask, wb__buf_slice(&request)) != WB_OK)
        failed = true;
    else
        wb__upstream_end(&x->ask);
    wb__buf_fini(&request);
    wb__buf_fini(&x->body);
    wb__keyed_account(x);
    if (failed)
        unsent(x);
}

/* ---- the lease --------------------------------------------------------- */

static void
done_renew(struct wb__job_run *job)
{
    struct wb__keyed *x = job->keyed;

    if (x->stage == WB__OVER) {
        wb__keyed_over(x);
        return;
    }
    if (x->stage == WB__HOLDING && job->call.rc == WB_FENCED && !x->lost) {
        x->lost = true;
        x->gate->n.lost++;
    }
    x->gate->n.store_errors +=
        job->call.rc != WB_OK && job->call.rc != WB_FENCED;
}

void
wb__carry_renew(struct wb__keyed *x, int64_t now_us)
{
    if (x->renew.busy || now_us < x->renew_us)
        return;
    x->renew_us = wb__sat_add(now_us, x->gate->opts.lease_ms * 1000 / 3);
    wb__gate_job(&x->renew,
        (struct wb__idem_call){
            .verb = WB__IDEM_EXTEND, .how.lease_ms = x->gate->opts.lease_ms},
        done_renew);
}
