/* ready.c - could a keyed request be served now? A claim is made and released
 * in the store, then a connection to upstream is opened and closed. Nothing is
 * sent upstream. */
#include "gate/gate_internal.h"

#include <stdio.h>

struct probe {
    struct wb__gate *gate;
    void (*done)(void *ctx, const char *why);
    void *ctx;
    char key[120];
    struct wb_idem_op op;
    struct wb_fingerprint fingerprint;
    struct wb_idem_result result;
    struct wb__store_call call;
    struct wb__upstream_request upstream;
};

static void
end(struct probe *p, const char *why)
{
    struct wb__gate *gate = p->gate;

    p->done(p->ctx, why);
    wb_idem_result_free(&p->result);
    wb__free(gate->opts.env, p);
    gate->probes--;
    if (gate->stopped)
        gate->on_idle(gate);
}

static void
on_connected(struct wb__upstream_request *upstream)
{
    wb__upstream_cancel(upstream);
    end(upstream->data, NULL);
}

static void
on_fail(struct wb__upstream_request *upstream, bool sent, const char *why)
{
    char text[160];

    (void)sent;
    (void)snprintf(text, sizeof(text), "upstream: %s", why);
    end(upstream->data, text);
}

static void
call_store(struct probe *p, struct wb__idem_call call,
    void (*done)(struct wb__store_call *c))
{
    call.op = &p->op;
    p->call.call = call;
    wb__store_queue_add(&p->gate->queue, &p->call, done);
}

static void
end_without_store(struct probe *p, const char *what, enum wb_status rc)
{
    struct wb_err err = {0};
    char text[600];

    (void)snprintf(text, sizeof(text), "store: a claim cannot be %s: %s", what,
        wb__gate_store_reason(p->gate, rc, &err));
    end(p, text);
}

static void
on_released(struct wb__store_call *c)
{
    struct probe *p = c->data;

    if (c->call.rc != WB_OK && c->call.rc != WB_FENCED) {
        end_without_store(p, "released", c->call.rc);
        return;
    }
    p->upstream = (struct wb__upstream_request){.data = p,
        .fresh = true,
        .on_connected = on_connected,
        .on_fail = on_fail};
    if (wb__upstream_send(p->gate->upstream, &p->upstream,
            (struct wb_slice){NULL, 0}) != WB_OK)
        end(p, "out of memory");
}

static void
on_claimed(struct wb__store_call *c)
{
    struct probe *p = c->data;

    if (c->call.rc != WB_OK)
        end_without_store(p, "made", c->call.rc);
    else if (p->result.answer != WB_IDEM_ACQUIRED)
        end(p, "store: a claim cannot be made");
    else
        call_store(p,
            (struct wb__idem_call){
                .verb = WB__IDEM_RELEASE, .token = p->result.token},
            on_released);
}

void
wb__gate_check_ready(
    struct wb__gate *gate, void (*done)(void *ctx, const char *why), void *ctx)
{
    const struct wb_env *env = gate->opts.env;
    struct probe *p = gate->stopping ? NULL : wb__alloc(env, sizeof(*p));

    if (p == NULL) {
        done(ctx, gate->stopping ? "it is stopping" : "out of memory");
        return;
    }
    gate->probes++;
    p->gate = gate;
    p->done = done;
    p->ctx = ctx;
    p->call.data = p;
    /* Not the key of a probe that runs, here or in another gateway. */
    (void)snprintf(p->key, sizeof(p->key), "%s %p %lld", wb__gate_address(gate),
        (void *)p, (long long)env->mono_us(env->ctx));
    p->op = (struct wb_idem_op){
        .scope = WB_LIT("waybill readyz"), .key = wb_slice(p->key)};
    call_store(p,
        (struct wb__idem_call){.verb = WB__IDEM_BEGIN,
            .fingerprint = &p->fingerprint,
            .how = {.lease_ms = 1000},
            .result = &p->result},
        on_claimed);
}
