/* lanes.c - why lanes wait. */
#include "cli/cli.h"
#include "relay/relay.h"

bool
cli_names(json_t *names, struct wb_slice name)
{
    json_t *one;
    size_t i;

    json_array_foreach(names, i, one)
    {
        if (wb__eq(wb_slice(json_string_value(one)), name))
            return true;
    }
    return false;
}

static bool
is_open(json_t *breakers, struct wb_slice scope)
{
    json_t *one;
    size_t i;

    json_array_foreach(breakers, i, one)
    {
        const char *state = json_string_value(json_object_get(one, "state"));

        if (strcmp(state, wb_breaker_state_name(WB_CLOSED)) != 0 &&
            wb__eq(wb_slice(json_string_value(json_object_get(one, "scope"))),
                scope))
            return true;
    }
    return false;
}

/* What holds for all messages of the kind; NULL: nothing. */
static const char *
reason_of_kind(const struct cli *cli, struct wb_slice kind, json_t *paused,
    json_t *breakers)
{
    const struct wb_route *route = cli_route(cli, kind);

    if (route == NULL && cli->route_error.status == WB_OK)
        return "no-route";
    if (cli_names(paused, kind))
        return "paused";
    return is_open(breakers, route == NULL ? kind : wb__route_scope(route))
               ? "breaker-open"
               : NULL;
}

static enum wb_status
add_lanes(void *ctx, const struct wb_lane_heads *h)
{
    struct cli_lanes *l = ctx;
    const char *reason =
        reason_of_kind(l->cli, h->kind, l->paused, l->breakers);
    uint64_t lanes = reason != NULL ? h->lanes : h->retrying_lanes;
    uint64_t waiting = reason != NULL ? h->held : h->retrying_held;
    char kind[4 * 64 + 1];

    if (lanes == 0)
        return WB_OK;
    if (reason == NULL)
        reason = "retrying";
    (void)json_array_append_new(
        l->list, json_pack("{s:o, s:I, s:I, s:s}", "kind", cli_str(h->kind),
                     "lanes", (json_int_t)lanes, "waiting", (json_int_t)waiting,
                     "reason", reason));
    (void)wb__one_line(h->kind, 64, kind);
    cli_print(l->cli, "%llu message%s wait%s in %llu lane%s behind %s: %s",
        (unsigned long long)waiting, waiting == 1 ? "" : "s",
        waiting == 1 ? "s" : "", (unsigned long long)lanes,
        lanes == 1 ? "" : "s", kind, reason);
    return WB_OK;
}

enum wb_status
cli_print_lanes(struct cli_lanes *lanes, struct wb_err *err)
{
    return wb_outbox_lanes(lanes->cli->box, add_lanes, lanes, err);
}
