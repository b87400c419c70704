/* transport_fixture.h - a loop, and what became of what was sent. */
#ifndef WB_TEST_TRANSPORT_FIXTURE_H
#define WB_TEST_TRANSPORT_FIXTURE_H

#include <stdio.h>
#include <uv.h>

#include "base/base.h"
#include "support.h"
#include "waybill/transport.h"

struct sent {
    int calls; /* of done() */
    enum wb_outcome outcome;
    int status;
    int64_t retry_after_ms;
    size_t body_len;
    bool cut, coded, json, no_resource;
    char body[70000], error[5000];
};

static inline void
sent_done(void *ctx, const struct wb_result *r)
{
    struct sent *s = ctx;

    s->calls++;
    s->outcome = r->outcome;
    s->status = r->status;
    s->retry_after_ms = r->retry_after_ms;
    s->body_len = r->body.len;
    s->cut = r->cut;
    s->coded = r->coded;
    s->json = r->json;
    s->no_resource = r->no_resource;
    (void)snprintf(
        s->body, sizeof(s->body), "%.*s", (int)r->body.len, r->body.ptr);
    (void)snprintf(
        s->error, sizeof(s->error), "%.*s", (int)r->error.len, r->error.ptr);
}

/* A request that a test may change before it is sent. */
static inline struct wb_request
some_request(void)
{
    return (struct wb_request){
        .id = {"0190b5a8-7c1e-7000-8000-000000000001"},
        .kind = {"order.paid", 10},
        .attempt = 1,
        .now_ms = FAKE_START_MS,
        .timeout_ms = 5000,
        .body = {"{\"n\":1}", 7},
    };
}

/* Send, and run the loop until nothing is left to do. */
static inline void
send_and_wait(uv_loop_t *loop, struct wb_transport *t,
    const struct wb_request *request, struct sent *out)
{
    memset(out, 0, sizeof(*out));
    t->send(t, request, sent_done, out);
    (void)uv_run(loop, UV_RUN_DEFAULT);
    CHECK_INT(1, out->calls);
}

#endif /* WB_TEST_TRANSPORT_FIXTURE_H */
