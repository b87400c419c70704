/* relay.c - a relay without what drives it. See relay.h. */
#include "relay/relay.h"

enum {
    LEASE_MS = 60000
};

static int64_t
lease_of(const struct wb_relay_opts *opts)
{
    int64_t lease = opts->lease_ms > 0 ? opts->lease_ms : LEASE_MS;

    for (size_t i = 0; i < opts->n_routes && opts->lease_ms <= 0; i++)
        if (opts->routes[i].timeout_ms > lease / 2)
            lease = opts->routes[i].timeout_ms * 2;
    return lease;
}

void
wb__relay_free(struct wb_relay *relay)
{
    while (relay->requests != NULL)
        wb__in_flight_free(relay->requests);
    wb__arena_clear(&relay->kinds);
    wb__outcomes_drop(relay);
    wb__tally_clear(&relay->tally);
    wb__free(relay->env, relay->live);
    wb__free(relay->env, relay->source);
    wb__free(relay->env, relay->pending.finish);
    wb__free(relay->env, relay->committing.finish);
    wb__free(relay->env, relay);
}

enum wb_status
wb__relay_new(struct wb_relay **out, struct wb_outbox *box,
    const struct wb_relay_opts *opts, struct wb_err *err)
{
    const struct wb_env *env = opts->env == NULL ? wb_env_system() : opts->env;
    struct wb_relay *relay = wb__alloc(env, sizeof(*relay));
    enum wb_status rc;

    if (relay == NULL)
        return wb__nomem(err, "relay");
    relay->env = env;
    relay->box = box;
    relay->opts = *opts;
    relay->opts.lease_ms = lease_of(opts);
    relay->loop = opts->loop;
    relay->kinds.env = relay->tally.names.env = env;
    relay->pending.errors.env = relay->committing.errors.env = env;
    rc = wb__routes_set(relay, err);
    if (rc == WB_OK)
        *out = relay;
    else
        wb__relay_free(relay);
    return rc;
}
