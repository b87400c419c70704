/* sim_net.c - the network, and a receiver that stores ids.
 *
 * A request is delivered, lost, delivered twice, or late; its response is
 * delivered, lost or late. Where one is lost the sender gets a timeout.
 * Requests of a dead process still arrive.
 *
 * The receiver records every effect in a list that may hold an id twice: then
 * the effect was doubled. */
#include <stdlib.h>

#include "sim.h"

enum {
    RECEIVER_OK,
    RECEIVER_DOWN,
    RECEIVER_BUSY,
    RECEIVER_REJECTS,
    RECEIVER_MODES
};

void
sim_net_begin(void)
{
    for (int k = 0; k < SIM_KINDS; k++)
        sim.receiver_mode[k] =
            sim_pick(2) == 0 ? RECEIVER_OK : sim_pick(RECEIVER_MODES);
}

/* ---- the sender's side ------------------------------------------------- */

static struct sim_wire *
wire_free(void)
{
    for (int i = 0; i < SIM_WIRES; i++)
        if (sim.wire[i].phase == SIM_FREE)
            return &sim.wire[i];
    return NULL;
}

/* Numbers and ids of the messages in a body: one object, or an array. */
static size_t
unpack(const struct wb_request *r, int *number, struct wb_id *id)
{
    struct wb_slice body = r->body, ids = r->ids, piece = {r->id.text, 36};
    size_t n = 0;

    for (size_t i = 0; i + 4 < body.len && n < SIM_BATCH; i++) {
        if (memcmp(body.ptr + i, "\"n\":", 4) != 0)
            continue;
        if (ids.len > 0)
            (void)wb__cut(&ids, ',', &piece);
        memcpy(id[n].text, piece.ptr, 36);
        id[n].text[36] = '\0';
        number[n] = atoi(body.ptr + i + 4);
        if (number[n] >= 0 && number[n] < sim.n)
            n++;
        else
            sim_violation(SIM_UNEXPECTED, -1, number[n]);
    }
    return n;
}

static void
refuse(wb_done_fn *done, void *ctx)
{
    const struct wb_result r = {
        .outcome = WB_RETRY, .error = WB_LIT("transport: connection refused")};

    sim_fired(SIM_REFUSE);
    done(ctx, &r);
}

void
sim_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    int process = ((struct sim_transport *)self)->process;
    struct sim_wire *w = wire_free();
    struct sim_wire filled = {.phase = SIM_REQUEST,
        .process = process,
        .done = done,
        .ctx = ctx,
        .deadline_us = sim.mono_us + SIM_TIMEOUT_MS * 1000LL};

    if (sim_is_dead())
        return; /* it died before it sent */
    filled.n = unpack(request, filled.message, filled.id);
    for (size_t i = 0; i < filled.n; i++)
        sim_event(SIM_E_SEND, filled.message[i], request->attempt, process);
    sim.figures->sends += filled.n;
    for (size_t i = 0; i < filled.n; i++)
        filled.token[i] = sim.message[filled.message[i]].token;
    if (w == NULL || (!sim.no_faults && sim_pick(40) == 0))
        refuse(done, ctx);
    else
        *w = filled;
}

static void
report_result(struct sim_wire *w, const struct wb_result *result)
{
    wb_done_fn *done = w->done;

    w->done = NULL;
    for (size_t i = 0; i < w->n; i++) {
        sim_event(SIM_E_RESULT, w->message[i], result->outcome, result->status);
        sim.message[w->message[i]].retry_after_token = w->token[i];
        sim.message[w->message[i]].retry_after_ms = result->retry_after_ms;
    }
    done(w->ctx, result);
}

static void
report_timeout(struct sim_wire *w)
{
    struct wb_result r = {.outcome = WB_UNKNOWN,
        .error = WB_LIT("transport: no response in time")};

    if (sim.opts.sabotage == SIM_LOST_IS_DELIVERED)
        r.outcome = WB_DELIVERED;
    if (sim.opts.sabotage == SIM_LOST_IS_REJECTED)
        r.outcome = WB_REJECTED;
    report_result(w, &r);
    if (w->phase != SIM_REQUEST)
        w->phase = SIM_FREE; /* a request may still arrive */
}

void
sim_net_timeouts(int process)
{
    for (int i = 0; i < SIM_WIRES; i++) {
        struct sim_wire *w = &sim.wire[i];

        if (w->phase != SIM_FREE && w->done != NULL && w->process == process &&
            w->deadline_us <= sim.mono_us)
            report_timeout(w);
    }
}

void
sim_net_dead(int process)
{
    for (int i = 0; i < SIM_WIRES; i++) {
        struct sim_wire *w = &sim.wire[i];

        if (w->phase == SIM_FREE || w->done == NULL || w->process != process)
            continue;
        w->done = NULL;
        if (w->phase != SIM_REQUEST)
            w->phase = SIM_FREE;
    }
}

/* ---- the receiver ------------------------------------------------------ */

static bool
is_known(const struct wb_id *id)
{
    for (int i = 0; i < sim.n_seen; i++)
        if (memcmp(sim.seen[i].id.text, id->text, WB_ID_LEN) == 0)
            return true;
    return false;
}

static void
effect(int n, const struct wb_id *id)
{
    if (sim.opts.sabotage != SIM_FORGETFUL_RECEIVER && is_known(id))
        return;
    if (sim.n_seen < (int)WB_COUNT(sim.seen)) {
        sim.seen[sim.n_seen].id = *id;
        sim.seen[sim.n_seen++].n = n;
    }
    sim_event(SIM_E_EFFECT, n, 0, 0);
    if (++sim.message[n].effects > 1)
        sim_violation(SIM_DOUBLED, n, sim.message[n].effects);
    if (sim.message[n].refused)
        sim_violation(SIM_UNEXPECTED, n, 2);
}

static int
status_of(int mode)
{
    if (sim.no_faults)
        return 200;
    switch (mode) {
    case RECEIVER_DOWN:
        return sim_pick(8) == 0 ? 200 : 503;
    case RECEIVER_BUSY:
        return sim_pick(3) == 0 ? 200 : 429;
    case RECEIVER_REJECTS:
        return sim_pick(3) == 0 ? 400 : 200;
    default:
        return sim_pick(30) == 0 ? 500 : 200;
    }
}

/* Some of a batch may have had its effect before the receiver failed. */
static void
receive(struct sim_wire *w)
{
    size_t done = w->n;

    w->retry_after_ms = 0;
    w->status = status_of(sim.receiver_mode[sim.message[w->message[0]].kind]);
    if (w->status == 429)
        w->retry_after_ms = 1000 * (int64_t)(1 + sim_pick(200));
    if (w->status != 200)
        done = w->status == 500 ? (size_t)sim_pick((int)w->n + 1) : 0;
    for (size_t i = 0; i < done; i++)
        effect(w->message[i], &w->id[i]);
    for (size_t i = 0; i < w->n && w->status == 400; i++)
        sim.message[w->message[i]].rejections++;
    for (size_t i = 0; i < w->n; i++)
        sim_event(SIM_E_REPLY, w->message[i], w->status, w->retry_after_ms);
    if (w->status >= 400)
        sim_fired(w->status >= 500   ? SIM_STATUS_5XX
                  : w->status == 429 ? SIM_STATUS_429
                                     : SIM_STATUS_4XX);
    w->phase = w->done == NULL ? SIM_FREE : SIM_RESPONSE;
}

/* ---- steps ------------------------------------------------------------ */

static void
respond(struct sim_wire *w)
{
    struct wb_result r = {.outcome = wb_http_outcome(w->status),
        .status = w->status,
        .retry_after_ms = w->retry_after_ms};

    if (r.outcome != WB_DELIVERED)
        r.error = WB_LIT("no");
    report_result(w, &r);
    w->phase = SIM_FREE;
}

static void
request_step(struct sim_wire *w)
{
    struct sim_wire *copy = wire_free();
    int draw = sim_pick(20);

    if (draw == 0) {
        sim_fired(SIM_LOSE_REQUEST);
        w->phase = w->done == NULL ? SIM_FREE : SIM_GONE;
        return;
    }
    if (draw <= 2 && copy != NULL) {
        sim_fired(SIM_DUPLICATE);
        *copy = *w;
        copy->done = NULL;
    }
    if (w->done == NULL)
        sim_fired(SIM_LATE);
    receive(w);
}

static void
response_step(struct sim_wire *w)
{
    if (sim_pick(10) == 0) {
        sim_fired(SIM_LOSE_RESPONSE);
        w->phase = SIM_GONE;
    } else if (!sim.process[w->process].stopped) {
        respond(w);
    }
}

void
sim_net_step(void)
{
    int from = sim_pick(SIM_WIRES);

    if (sim_pick(8) == 0)
        sim_net_begin();
    for (int i = 0; i < SIM_WIRES; i++) {
        struct sim_wire *w = &sim.wire[(from + i) % SIM_WIRES];

        if (w->phase == SIM_REQUEST) {
            request_step(w);
            return;
        }
        if (w->phase == SIM_RESPONSE) {
            response_step(w);
            return;
        }
    }
}

void
sim_net_settle(void)
{
    for (int i = 0; i < SIM_WIRES; i++) {
        struct sim_wire *w = &sim.wire[i];

        if (w->phase == SIM_REQUEST)
            receive(w);
        if (w->phase == SIM_RESPONSE)
            respond(w);
    }
}
