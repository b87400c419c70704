/* flight.c - from a claimed message to a request, and from its result back.
 *
 * (1) Every message of a load gets exactly one end: by its result, or at once
 *     where no request could be built for it.
 * (2) A load's rows live until the last of its flights is over. */
#include "relay/relay.h"

enum {
    TIMEOUT_MS = 30000
};

static void
load_release(struct wb_relay *relay, struct wb__claimed_batch *load)
{
    if (--load->refs > 0)
        return;
    wb_batch_free(&load->batch);
    wb__free(relay->env, load);
}

static void
item_release(const struct wb_route *route, struct wb__item *item)
{
    if (item->token != NULL && route->release != NULL)
        route->release(route->ctx, item->token);
    item->token = NULL;
}

void
wb__in_flight_free(struct wb__in_flight *f)
{
    struct wb_relay *relay = f->relay;

    if (f->link != NULL) {
        *f->link = f->next;
        if (f->next != NULL)
            f->next->link = f->link;
        f->live->in_flight--;
        relay->in_flight--;
    }
    for (size_t i = 0; i < f->n; i++)
        item_release(f->live->route, &f->item[i]);
    wb__buf_fini(&f->body);
    wb__buf_fini(&f->ids);
    load_release(relay, f->load);
    wb__free(relay->env, f->item);
    wb__free(relay->env, f);
}

static struct wb__in_flight *
flight_new(struct wb_relay *relay, struct wb__route_state *live,
    struct wb__claimed_batch *load, size_t cap)
{
    struct wb__in_flight *f = wb__alloc(relay->env, sizeof(*f));

    if (f == NULL)
        return NULL;
    f->item = wb__alloc(relay->env, cap * sizeof(*f->item));
    if (f->item == NULL) {
        wb__free(relay->env, f);
        return NULL;
    }
    f->relay = relay;
    f->live = live;
    f->load = load;
    load->refs++;
    f->body = (struct wb__buf){.env = relay->env, .max = SIZE_MAX / 4};
    f->ids = f->body;
    return f;
}

/* ---- the end ----------------------------------------------------------- */

/* Out of memory here would lose the end of a delivery, which costs a repeat:
 * the lease runs out. */
static void
item_end(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, struct wb_result *result)
{
    bool answered = result->status >= 200 && result->status < 300;

    if (route->judge != NULL &&
        (answered || (result->status == 0 && result->outcome == WB_DELIVERED)))
        route->judge(route->ctx, message, result, &relay->tally);
    (void)(wb__outcome_note(relay, route, message, result) == WB_OK);
    if (result->status == 410 && route->disable_on_410)
        (void)(wb_outbox_pause(relay->box, message->kind, true, NULL) == WB_OK);
}

static void
each_item(void *ctx, size_t i, struct wb_result *result)
{
    struct wb__in_flight *f = ctx;

    item_end(f->relay, f->live->route, f->item[i].message, result);
}

static void
on_done(void *ctx, const struct wb_result *result)
{
    struct wb__in_flight *f = ctx;
    struct wb_result own = *result;

    if (f->live->route->batch > 1)
        wb__batch_results(f, &own, each_item, f);
    else
        each_item(f, 0, &own);
    wb__in_flight_free(f);
}

/* Nothing was sent: no request can be made of it, or not now. */
static void
end_unsent(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_err *why)
{
    struct wb_result r = {
        .outcome = why->status == WB_NOMEM ? WB_RETRY : WB_REJECTED,
        .error = wb_slice(why->msg)};

    item_end(relay, route, message, &r);
}

/* ---- the request ------------------------------------------------------- */

/* What a message asks for, before the hook of its route has its say. */
static struct wb_request
request_of(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *m)
{
    return (struct wb_request){.id = m->id,
        .kind = m->kind,
        .key = m->key,
        .attempt = m->attempts,
        .now_ms = relay->env->wall_ms(relay->env->ctx),
        .timeout_ms = route->timeout_ms > 0 ? route->timeout_ms : TIMEOUT_MS,
        .content_type = m->content_type,
        .headers = m->headers,
        .body = m->payload};
}

/* Build the request of one message. False: it has got its end. */
static bool
item_build(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *m, struct wb__item *item)
{
    struct wb_err err = {0};
    enum wb_status rc = WB_OK;

    *item =
        (struct wb__item){.message = m, .request = request_of(relay, route, m)};
    if (route->build != NULL)
        rc = route->build(route->ctx, m, &item->request, &item->token, &err);
    if (rc == WB_OK && route->batch > 1 && !wb__batch_fits(item->request.body))
        rc = wb__fail(&err, WB_INVALID, 0,
            "the payload is no JSON, which a batch is made of");
    if (rc == WB_OK)
        return true;
    item_release(route, item);
    err.status = rc;
    end_unsent(relay, route, m, &err);
    return false;
}

static void
flight_send(struct wb__in_flight *f)
{
    struct wb_relay *relay = f->relay;
    const struct wb_route *route = f->live->route;
    int64_t now_us = relay->env->mono_us(relay->env->ctx);

    f->next = relay->requests;
    if (f->next != NULL)
        f->next->link = &f->next;
    f->link = &relay->requests;
    relay->requests = f;
    f->live->in_flight++;
    relay->in_flight++;
    f->extend_us = now_us + relay->opts.lease_ms * 500;
    wb__rate_sent(f->live, now_us);
    route->transport->send(route->transport, &f->request, on_done, f);
}

static enum wb_status
send_single(struct wb_relay *relay, struct wb__route_state *live,
    struct wb__claimed_batch *load, const struct wb_claimed *m)
{
    struct wb__in_flight *f = flight_new(relay, live, load, 1);

    if (f == NULL)
        return WB_NOMEM;
    if (!item_build(relay, live->route, m, &f->item[0])) {
        wb__in_flight_free(f);
        return WB_OK;
    }
    f->n = 1;
    f->request = f->item[0].request;
    flight_send(f);
    return WB_OK;
}

/* ---- batches ----------------------------------------------------------- */

static bool
same_request(const struct wb_request *a, const struct wb_request *b)
{
    return wb__eq(a->url, b->url) && wb__eq(a->headers, b->headers) &&
           wb__eq(a->kind, b->kind);
}

static enum wb_status
flight_close(struct wb__in_flight *f, struct wb_err *err)
{
    enum wb_status rc = wb__batch_encode(f, err);

    if (rc == WB_OK)
        flight_send(f);
    else
        wb__in_flight_free(f);
    return rc;
}

/* Messages from row[at] on that take this route and make one request; those
 * that are taken have their route cleared. */
static enum wb_status
send_batch(struct wb_relay *relay, struct wb__route_state **live, size_t at,
    struct wb__claimed_batch *load, struct wb_err *err)
{
    struct wb__route_state *own = live[at];
    size_t most = own->route->batch;
    struct wb__in_flight *f = flight_new(relay, own, load, most);

    if (f == NULL)
        return wb__nomem(err, "relay");
    for (size_t i = at; i < load->batch.len && f->n < most; i++) {
        struct wb__item *item = &f->item[f->n];

        if (live[i] != own)
            continue;
        if (!item_build(relay, own->route, &load->batch.row[i], item)) {
            live[i] = NULL;
        } else if (f->n == 0 ||
                   same_request(&item->request, &f->item[0].request)) {
            live[i] = NULL;
            f->n++;
        } else {
            item_release(own->route, item);
        }
    }
    if (f->n > 0)
        return flight_close(f, err);
    wb__in_flight_free(f);
    return WB_OK;
}

static enum wb_status
send_all(struct wb_relay *relay, struct wb__claimed_batch *load,
    struct wb__route_state **live, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < load->batch.len; i++)
        live[i] = wb__route_state_of(relay, load->batch.row[i].kind);
    for (size_t i = 0; i < load->batch.len && rc == WB_OK; i++) {
        if (live[i] == NULL)
            continue;
        if (live[i]->route->batch > 1)
            rc = send_batch(relay, live, i, load, err);
        else
            rc = send_single(relay, live[i], load, &load->batch.row[i]);
    }
    return rc == WB_NOMEM ? wb__nomem(err, "relay") : rc;
}

/* Out of memory on the way: what was not sent waits for its lease to end. */
enum wb_status
wb__in_flight_start(
    struct wb_relay *relay, struct wb__claimed_batch *load, struct wb_err *err)
{
    struct wb__route_state **live = NULL;
    enum wb_status rc = WB_OK;

    if (load->batch.len > 0) {
        live = wb__alloc(
            relay->env, load->batch.len * sizeof(struct wb__route_state *));
        rc = live == NULL ? wb__nomem(err, "relay")
                          : send_all(relay, load, live, err);
    }
    wb__free(relay->env, live);
    load_release(relay, load);
    return rc;
}
