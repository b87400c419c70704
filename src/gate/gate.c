/* gate.c - open, stop and close the gateway, and choose how a request is
 * handled. See gate.h. */
#include "gate/gate.h"

#include "gate/gate_internal.h"

/* ---- requests ---------------------------------------------------------- */

static void
refuse(struct wb__gate *gate, struct wb__exchange *exchange,
    enum wb__gate_error error)
{
    gate->n.refused++;
    wb__gate_respond_error(gate, exchange, error, NULL);
}

static void
handle_key(struct wb__gate *gate, struct wb__exchange *exchange,
    const struct wb__name *key)
{
    const struct wb__gate_opts *o = &gate->opts;
    struct wb__name identity;
    enum wb__found found =
        wb__identity_read(o, exchange->head->headers, &identity);

    if (found == WB__FOUND_NOMEM)
        refuse(gate, exchange, WB__GATE_OUT_OF_MEMORY);
    else if (found == WB__FOUND_BAD)
        refuse(gate, exchange, WB__GATE_BAD_KEY);
    else if (found == WB__FOUND_ONE || o->anonymous == WB__GATE_SHARE)
        wb__keyed_request_handle(gate, exchange, &identity, key);
    else if (o->anonymous == WB__GATE_REFUSE)
        refuse(gate, exchange, WB__GATE_ANONYMOUS);
    else
        wb__passthrough_handle(gate, exchange, true);
}

static void
handle(void *ctx, struct wb__exchange *exchange)
{
    struct wb__gate *gate = ctx;
    const struct wb__http_head *head = exchange->head;
    enum wb__guard guard = wb__policy_guard(&gate->policy, head);
    struct wb__name key;
    enum wb__found found =
        guard != WB__GUARD_KEY
            ? WB__FOUND_NONE
            : wb__rule_read_key(head->headers, gate->policy.key_header, &key);

    if (guard == WB__GUARD_REFUSE)
        refuse(gate, exchange, WB__GATE_BAD_METHOD);
    else if (found == WB__FOUND_BAD)
        refuse(gate, exchange, WB__GATE_BAD_KEY);
    else if (found == WB__FOUND_ONE)
        handle_key(gate, exchange, &key);
    else if (guard == WB__GUARD_KEY && gate->opts.require_key)
        refuse(gate, exchange, WB__GATE_KEY_REQUIRED);
    else
        wb__passthrough_handle(gate, exchange, false);
}

/* ---- the options ------------------------------------------------------- */

static enum wb_status
read_upstream(
    struct wb__gate *gate, struct wb__upstream_opts *up, struct wb_err *err)
{
    struct wb_slice s = gate->opts.upstream, rest;
    uint64_t port;

    if (s.len > 7 &&
        wb__eq_nocase((struct wb_slice){s.ptr, 7}, WB_LIT("http://"))) {
        rest = wb__from(s, 7);
        (void)wb__cut(&rest, '/', &gate->authority);
        if (rest.len == 0 &&
            wb__http_split_address(gate->authority, &up->host, &up->port) &&
            up->host.len > 0) {
            if (up->port.len == 0)
                up->port = WB_LIT("80");
            if (wb__parse_u64(up->port, UINT16_MAX, &port) && port > 0)
                return WB_OK;
        }
    }
    /* The text leaves out the URL: it may hold a password. */
    return wb__fail(err, WB_INVALID, 0,
        "the upstream must be http://host:port, without path or password");
}

/* ---- the end ----------------------------------------------------------- */

/* Once the server has stopped and the last keyed request has ended. */
static void
notify_stopped(struct wb__gate *gate)
{
    if (!gate->stopped || gate->requests != NULL || gate->probes > 0 ||
        gate->stopped_notified)
        return;
    gate->stopped_notified = true;
    if (gate->opts.stopped != NULL)
        gate->opts.stopped(gate->opts.ctx);
}

static void
on_server_stopped(void *ctx)
{
    struct wb__gate *gate = ctx;

    gate->stopped = true;
    notify_stopped(gate);
}

void
wb__gate_stop(struct wb__gate *gate)
{
    gate->stopping = true;
    wb__http_server_stop(gate->server);
}

bool
wb__gate_is_idle(const struct wb__gate *gate)
{
    return gate == NULL || gate->requests == NULL;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    struct wb__gate *gate = handle->data;

    wb__free(gate->opts.env, gate);
}

void
wb__gate_close(struct wb__gate *gate)
{
    if (gate == NULL)
        return;
    WB_ASSERT(gate->requests == NULL);
    wb__http_server_close(gate->server);
    if (gate->upstream != NULL)
        wb__upstream_close(gate->upstream);
    uv_close((uv_handle_t *)&gate->tick, on_timer_closed);
}

/* ---- open -------------------------------------------------------------- */

static void
fill_defaults(struct wb__gate_opts *o)
{
    if (o->env == NULL)
        o->env = wb_env_system();
    if (o->lease_ms <= 0)
        o->lease_ms = WB_IDEM_LEASE_MS;
    if (o->lease_ms > INT64_C(1) << 40) /* years; must not overflow */
        o->lease_ms = INT64_C(1) << 40;
    if (o->wait_ms > INT64_C(1) << 40)
        o->wait_ms = INT64_C(1) << 40;
    if (o->body_bytes == 0)
        o->body_bytes = 1 << 20;
    if (o->response_bytes == 0)
        o->response_bytes = 1 << 20;
    /* Four of the largest: a body is copied once on its way. */
    if (o->max_bytes == 0)
        o->max_bytes = (size_t)64 << 20;
    if (o->max_bytes / 4 < o->body_bytes)
        o->max_bytes = o->body_bytes * 4;
}

static void
on_server_refused(void *ctx, int status, const char *why)
{
    static const struct wb__http_head unknown = {.status = 0};

    wb__gate_log(ctx, status >= 500 ? WB__LOG_WARN : WB__LOG_INFO, "refused",
        &unknown,
        (struct wb__log_fields){
            .kind = WB_LIT("http"), .status = status, .error = wb_slice(why)});
    wb__gate_log_access(ctx, &unknown, status, "http", -1);
}

static enum wb_status
open_server(struct wb__gate *gate, struct wb_err *err)
{
    struct wb__http_server_opts opts = gate->opts.server;

    opts.env = gate->opts.env;
    opts.loop = gate->opts.loop;
    opts.listen = gate->opts.listen;
    if (opts.max_bytes == 0)
        opts.max_bytes = gate->opts.max_bytes;
    opts.limits.body_bytes = INT64_MAX; /* keyed_request.c limits its own */
    opts.stream = true;
    opts.handle = handle;
    opts.stopped = on_server_stopped;
    opts.refused = on_server_refused;
    opts.ctx = gate;
    return wb__http_server_open(&gate->server, &opts, err);
}

enum wb_status
wb__gate_open(
    struct wb__gate **out, const struct wb__gate_opts *opts, struct wb_err *err)
{
    struct wb__gate_opts o = *opts;
    struct wb__upstream_opts up = {0};
    struct wb__gate *gate;
    enum wb_status rc;

    fill_defaults(&o);
    gate = wb__alloc(o.env, sizeof(*gate));
    if (gate == NULL)
        return wb__nomem(err, "gateway");
    gate->opts = o;
    gate->queue.store = o.store;
    gate->queue.loop = o.loop;
    gate->queue.blocking = o.blocking;
    gate->on_idle = notify_stopped;
    (void)uv_timer_init(o.loop, &gate->tick);
    gate->tick.data = gate;
    up.env = o.env;
    up.loop = o.loop;
    up.silence_ms = o.silence_ms;
    rc = o.body_bytes <= (size_t)512 << 20
             ? wb__policy_read(&gate->policy, &gate->opts, err)
             : wb__fail(err, WB_INVALID, 0,
                   "a keyed body is held in memory: 512 MiB at most");
    if (rc == WB_OK)
        rc = read_upstream(gate, &up, err);
    if (rc == WB_OK)
        rc = wb__upstream_open(&gate->upstream, &up, err);
    if (rc == WB_OK)
        rc = open_server(gate, err);
    if (rc == WB_OK)
        *out = gate;
    else
        wb__gate_close(gate);
    return rc;
}

const char *
wb__gate_address(const struct wb__gate *gate)
{
    return wb__http_server_address(gate->server);
}
