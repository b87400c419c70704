/* transport.c - what all transports share, and the one that calls a C function.
 */
#include <errno.h>
#include <stdio.h>

#include "transport/http.h"

void
wb_transport_free(struct wb_transport *transport)
{
    if (transport != NULL)
        transport->free(transport);
}

static void
report_unsent(
    wb_done_fn *done, void *ctx, struct wb_result res, const char *why)
{
    char text[sizeof(((struct wb_err *)0)->msg) + 16];

    (void)snprintf(text, sizeof(text), "transport: %s", why);
    res.error = wb_slice(text);
    done(ctx, &res);
}

void
wb__transport_refuse(
    wb_done_fn *done, void *ctx, enum wb_outcome outcome, const char *why)
{
    report_unsent(done, ctx, (struct wb_result){.outcome = outcome}, why);
}

void
wb__transport_lacks(wb_done_fn *done, void *ctx, const char *why)
{
    report_unsent(done, ctx,
        (struct wb_result){.outcome = WB_RETRY, .no_resource = true}, why);
}

bool
wb__errno_is_lack(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS ||
           error == ENOMEM;
}

/* ---- callback ---------------------------------------------------------- */

struct callback {
    struct wb_transport base; /* first: cast back to the callback */
    const struct wb_env *env;
    wb_callback_fn *fn;
    void *ctx;
};

static void
callback_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct callback *c = (struct callback *)self;
    struct wb_result result = {0};

    c->fn(c->ctx, request, &result);
    done(ctx, &result);
}

static void
callback_free(struct wb_transport *self)
{
    struct callback *c = (struct callback *)self;

    wb__free(c->env, c);
}

enum wb_status
wb_callback_new(struct wb_transport **out, const struct wb_env *env,
    wb_callback_fn *fn, void *ctx, struct wb_err *err)
{
    struct callback *c;

    *out = NULL;
    env = env == NULL ? wb_env_system() : env;
    c = wb__alloc(env, sizeof(*c));
    if (c == NULL)
        return wb__nomem(err, "callback transport");
    c->base = (struct wb_transport){"callback", callback_send, callback_free};
    c->env = env;
    c->fn = fn;
    c->ctx = ctx;
    *out = &c->base;
    return WB_OK;
}
