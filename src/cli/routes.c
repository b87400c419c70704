/* routes.c - routes that cannot start: their kinds wait, all others are
 * delivered. */
#include "cli/cli.h"

static bool
concerns(const struct cli *cli, const struct wb_route *route)
{
    struct wb_slice kind = cli_slice(cli, "kind");

    return route->failed != NULL &&
           (kind.len == 0 || cli_route(cli, kind) == route);
}

size_t
cli_failed_routes(struct cli *cli)
{
    size_t n = 0;

    for (size_t i = 0; i < cli->n_routes; i++)
        if (concerns(cli, &cli->routes[i])) {
            cli_print_error(cli, WB_UNAVAILABLE, "%s; its messages wait",
                cli->routes[i].failed);
            n++;
        }
    return n;
}

bool
cli_proxy_unused(const struct cli *cli, char *out, size_t size)
{
    for (size_t i = 0; i < cli->n_routes; i++)
        if (cli->routes[i].proxy_unused != NULL) {
            (void)snprintf(out, size,
                "%s is set, and not used: write proxy = env \"%s\" in route "
                "\"%s\" and its like, or proxy = \"direct\"",
                cli->routes[i].proxy_unused, cli->routes[i].proxy_unused,
                cli->routes[i].kind);
            return true;
        }
    return false;
}

json_t *
cli_failed_list(const struct cli *cli)
{
    json_t *list = json_array();

    for (size_t i = 0; i < cli->n_routes; i++)
        if (concerns(cli, &cli->routes[i]))
            (void)json_array_append_new(
                list, json_pack("{s:s, s:s}", "kind", cli->routes[i].kind,
                          "error", cli->routes[i].failed));
    return list;
}
