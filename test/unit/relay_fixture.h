/* relay_fixture.h - an outbox, a relay and a scripted transport, for the tests
 * of the relay. */
#ifndef WB_TEST_RELAY_FIXTURE_H
#define WB_TEST_RELAY_FIXTURE_H

#include <stdio.h>
#include <uv.h>

#include "base/base.h"
#include "outbox/outbox_internal.h"
#include "relay/relay.h"
#include "support.h"

/* ---- a scripted transport ---------------------------------------------- */

struct fake {
    struct wb_transport base;
    uv_loop_t *loop;         /* NULL: ends the attempt inside send() */
    enum wb_outcome outcome; /* of every attempt ... */
    int status;
    const char *error, *body;
    bool cut, coded, json; /* the body */
    bool no_resource;
    enum wb_outcome script[16]; /* ... but the first n_script */
    size_t n_script;
    int64_t retry_after_ms;
    size_t sent, flying, most_flying;
    char bodies[16][256], ids[16][WB_ID_LEN + 1], batch_ids[16][256];
    uint32_t attempts[16];
    void (*on_send)(struct fake *f); /* may set the outcome of this attempt */
    void *ctx;
};

struct answer {
    uv_timer_t timer;
    struct fake *fake;
    wb_done_fn *done;
    void *ctx;
    struct wb_result result;
};

static inline void
answer_freed(uv_handle_t *handle)
{
    free(handle->data);
}

static inline void
answer_now(uv_timer_t *timer)
{
    struct answer *a = timer->data;

    a->fake->flying--;
    uv_close((uv_handle_t *)timer, answer_freed);
    a->done(a->ctx, &a->result);
}

static inline struct wb_result
fake_result(struct fake *f)
{
    struct wb_result r = {.outcome = f->outcome,
        .status = f->status,
        .retry_after_ms = f->retry_after_ms,
        .body = wb_slice(f->body),
        .cut = f->cut,
        .coded = f->coded,
        .json = f->json,
        .no_resource = f->no_resource,
        .error = wb_slice(f->error)};

    if (f->sent <= f->n_script)
        r.outcome = f->script[f->sent - 1];
    return r;
}

static inline void
fake_send(struct wb_transport *self, const struct wb_request *q,
    wb_done_fn *done, void *ctx)
{
    struct fake *f = (struct fake *)self;
    struct wb_result r;
    struct answer *a;

    if (f->sent < 16) {
        snprintf(f->bodies[f->sent], sizeof(f->bodies[0]), "%.*s",
            (int)q->body.len, q->body.len > 0 ? q->body.ptr : "");
        snprintf(f->batch_ids[f->sent], sizeof(f->batch_ids[0]), "%.*s",
            (int)q->ids.len, q->ids.len > 0 ? q->ids.ptr : "");
        memcpy(f->ids[f->sent], q->id.text, sizeof(q->id.text));
        f->attempts[f->sent] = q->attempt;
    }
    f->sent++;
    if (f->on_send != NULL)
        f->on_send(f);
    r = fake_result(f);
    if (f->loop == NULL) {
        done(ctx, &r);
        return;
    }
    if (++f->flying > f->most_flying)
        f->most_flying = f->flying;
    a = calloc(1, sizeof(*a));
    *a = (struct answer){.fake = f, .done = done, .ctx = ctx, .result = r};
    uv_timer_init(f->loop, &a->timer);
    a->timer.data = a;
    uv_timer_start(&a->timer, answer_now, 1, 0);
}

static inline void
fake_free(struct wb_transport *self)
{
    (void)self;
}

/* ---- the fixture ------------------------------------------------- */

struct fixture {
    struct wb_outbox *box;
    struct wb_relay *relay;
    struct fake fake;
    struct wb_route route[3];
    struct wb_report report;
    struct wb_err err;
    uv_loop_t loop;
};

static inline void
fixture_open(struct fixture *d)
{
    struct wb_outbox_opts opts = {.env = ENV};

    *d = (struct fixture){0};
    d->fake.base = (struct wb_transport){
        .name = "fake", .send = fake_send, .free = fake_free};
    CHECK_OK(wb_outbox_open(&d->box, test_db_url(), &opts, &d->err), d->err);
    CHECK(uv_loop_init(&d->loop) == 0);
    d->route[0] = (struct wb_route){.kind = "a", .transport = &d->fake.base};
}

/* With routes and loop of the fixture. */
static inline void
fixture_start_with(
    struct fixture *d, size_t n_routes, struct wb_relay_opts opts)
{
    opts.routes = d->route;
    opts.n_routes = n_routes;
    opts.loop = &d->loop;
    CHECK_OK(wb_relay_new(&d->relay, d->box, &opts, &d->err), d->err);
}

static inline void
fixture_start(struct fixture *d, size_t n_routes)
{
    fixture_start_with(d, n_routes, (struct wb_relay_opts){.env = ENV});
}

static inline void
fixture_close(struct fixture *d)
{
    wb_relay_free(d->relay);
    while (uv_run(&d->loop, UV_RUN_NOWAIT) != 0)
        ;
    CHECK(uv_loop_close(&d->loop) == 0);
    wb_outbox_close(d->box);
}

static inline struct wb_id
put(struct fixture *d, const char *kind, const char *payload)
{
    struct wb_message m = {
        .kind = wb_slice(kind), .payload = wb_slice(payload)};
    struct wb_accepted a;

    CHECK_OK(wb_outbox_enqueue(d->box, &m, &a, &d->err), d->err);
    return a.id;
}

static inline void
drain(struct fixture *d, struct wb_drain options)
{
    CHECK_OK(wb_relay_drain(d->relay, &options, &d->report, &d->err), d->err);
}

/* ---- cycles without a loop --------------------------------------------- */

static inline void
begin(struct fixture *d, uint32_t requests)
{
    wb__relay_begin(d->relay,
        &(struct wb__limits){.messages = UINT64_MAX, .requests = requests});
}

/* One cycle; gives in how many microseconds the next one is wanted. */
static inline int64_t
cycle(struct fixture *d)
{
    int64_t deadline_us = 0;

    CHECK_OK(wb__relay_cycle(d->relay, &deadline_us, &d->err), d->err);
    return deadline_us - ENV->mono_us(ENV->ctx);
}

static inline void
end_requests(struct fixture *d)
{
    while (d->relay->n_in_flight > 0)
        uv_run(&d->loop, UV_RUN_ONCE);
}

/* ---- what came of it --------------------------------------------------- */

static inline uint64_t
sum(const struct wb_report *r)
{
    return r->confirmed + r->retried + r->abandoned + r->rejected +
           r->released + r->fenced;
}

static inline enum wb_status
on_state(void *ctx, const struct wb_row *row)
{
    struct wb_row *out = ctx;

    out->state = row->state;
    out->attempts = row->attempts;
    out->due_ms = row->due_ms;
    return WB_OK;
}

static inline struct wb_row
state_of(struct fixture *d, struct wb_id id)
{
    struct wb_row row = {0};

    CHECK_OK(wb_outbox_show(d->box, wb_slice(id.text), on_state, &row, &d->err),
        d->err);
    return row;
}

#endif /* WB_TEST_RELAY_FIXTURE_H */
