/* open.c - where the outbox and the configuration are, and opening them.
 *
 * (1) Nothing is taken from the current folder unasked.
 * (2) Every command opens the outbox here, with the limits of the
 *     configuration. */
#include <stdlib.h>

#include "cli/cli.h"
#include "relay/relay.h"

/* An empty variable is as good as none. */
static const char *
variable(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* $XDG/waybill/file, else $HOME/otherwise/waybill/file. A folder that is not
 * absolute is to be ignored, says the XDG base directory specification. */
static bool
in_home(const char *xdg, const char *otherwise, const char *file, char *out,
    size_t room)
{
    const char *base = variable(xdg), *home = variable("HOME");
    int n;

    if (base != NULL && base[0] == '/')
        n = snprintf(out, room, "%s/waybill/%s", base, file);
    else if (home != NULL)
        n = snprintf(out, room, "%s/%s/waybill/%s", home, otherwise, file);
    else
        return false;
    return n > 0 && (size_t)n < room;
}

static bool
copy(char *out, size_t room, const char *text)
{
    int n = snprintf(out, room, "%s", text);

    return n > 0 && (size_t)n < room;
}

const char *
cli_named_db(const struct cli *cli)
{
    const char *named = cli_text(cli, "db");

    return named != NULL ? named : variable("WAYBILL_DB");
}

enum wb_status
cli_find_db(struct cli *cli, struct wb_err *err)
{
    const char *named = cli_named_db(cli);

    if (named != NULL && named[0] == '~' && named[1] == '/')
        return wb__fail(err, WB_INVALID, 0,
            "%s: it is the shell that knows ~, and none has read this; write "
            "the path in full, or ./~/",
            named);
    if (named != NULL && !copy(cli->db, sizeof(cli->db), named))
        return wb__fail(
            err, WB_INVALID, 0, "the name of the database is too long");
    if (named == NULL && !in_home("XDG_STATE_HOME", ".local/state",
                             "waybill.db", cli->db, sizeof(cli->db)))
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "no place for the database: HOME is not set; give --db FILE");
    return WB_OK;
}

/* The file that holds: named, or found; empty if there is none. */
static enum wb_status
find_config(struct cli *cli, struct wb_err *err)
{
    const char *named = cli_text(cli, "config");

    if (named == NULL)
        named = variable("WAYBILL_CONFIG");
    if (named != NULL &&
        !copy(cli->config_path, sizeof(cli->config_path), named))
        return wb__fail(
            err, WB_INVALID, 0, "the name of the configuration is too long");
    if (named != NULL)
        return WB_OK;
    if (!in_home("XDG_CONFIG_HOME", ".config", "config.lua", cli->config_path,
            sizeof(cli->config_path)) ||
        !wb__file_info_of(cli->config_path).exists)
        cli->config_path[0] = '\0';
    return WB_OK;
}

static enum wb_status
open_loop(struct cli *cli, struct wb_err *err)
{
    int sys = uv_loop_init(&cli->loop);

    if (sys != 0)
        return wb__fail(
            err, WB_IO, -sys, "no event loop: %s", uv_strerror(sys));
    cli->loop_open = true;
    return WB_OK;
}

enum wb_status
cli_open_config(struct cli *cli, bool transports, struct wb_err *err)
{
    enum wb_status rc = find_config(cli, err);

    if (rc == WB_OK && transports)
        rc = open_loop(cli, err);
    if (rc != WB_OK || cli->config_path[0] == '\0')
        return rc;
    rc = cli_read_config(cli, transports, err);
    if (rc == WB_OK)
        cli->routes = wb_config_routes(cli->config, &cli->n_routes);
    return rc;
}

static enum wb_status
open_box(struct cli *cli, struct wb_err *err)
{
    enum wb_status rc = cli_find_db(cli, err);
    struct wb_outbox_opts opts = {0};

    if (rc != WB_OK)
        return rc;
    if (cli->config != NULL)
        opts = *wb_config_outbox(cli->config);
    opts.env = cli->env;
    return wb_outbox_open(&cli->box, cli->db, &opts, err);
}

static enum cli_exit
open_both(struct cli *cli, bool transports)
{
    struct wb_err err = {0};
    enum wb_status rc = cli_open_config(cli, transports, &err);

    if (rc == WB_OK)
        rc = open_box(cli, &err);
    if (rc == WB_OK)
        return CLI_DONE;
    return cli_fail_beyond(cli, &err);
}

enum cli_exit
cli_open(struct cli *cli)
{
    return open_both(cli, false);
}

enum cli_exit
cli_open_relay(struct cli *cli, struct wb_relay **relay)
{
    enum cli_exit code = open_both(cli, true);
    struct wb_relay_opts opts = {.env = cli->env, .loop = &cli->loop};
    struct wb_err err = {0};

    if (code != CLI_DONE)
        return code;
    opts.routes = cli->routes;
    opts.n_routes = cli->n_routes;
    if (cli->config != NULL) {
        opts.lease_ms = wb_config_lease_ms(cli->config);
        opts.ready = wb_config_ready;
        opts.ctx = cli->config;
    }
    if (wb_relay_new(relay, cli->box, &opts, &err) == WB_OK)
        return CLI_DONE;
    return cli_fail_as(cli, CLI_FAILED, &err);
}

void
cli_close(struct cli *cli)
{
    wb_config_close(cli->config);
    wb_outbox_close(cli->box);
    /* What was closed a moment ago still has its callbacks to run. */
    for (int i = 0; i < 100 && cli->loop_open; i++) {
        (void)uv_run(&cli->loop, UV_RUN_NOWAIT);
        cli->loop_open = uv_loop_close(&cli->loop) != 0;
    }
    wb__free(cli->env, cli->value);
    wb__free(cli->env, cli->arg);
}

const struct wb_route *
cli_route(const struct cli *cli, struct wb_slice kind)
{
    return wb__route_find(cli->routes, cli->n_routes, kind);
}
