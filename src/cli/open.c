/* open.c - finds and opens the outbox and the configuration; stop signals.
 *
 * (1) Nothing is read from the current folder unless it is named.
 * (2) Every command but doctor opens the outbox here, with the limits of the
 *     configuration. */
#include <stdlib.h>

#include "cli/cli.h"
#include "db/db.h"
#include "relay/relay.h"
#include "script/script.h"

/* NULL also if it is empty. */
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
    size_t max)
{
    const char *base = variable(xdg), *home = variable("HOME");
    int n;

    if (base != NULL && base[0] == '/')
        n = snprintf(out, max, "%s/waybill/%s", base, file);
    else if (home != NULL)
        n = snprintf(out, max, "%s/%s/waybill/%s", home, otherwise, file);
    else
        return false;
    return n > 0 && (size_t)n < max;
}

static bool
copy(char *out, size_t max, const char *text)
{
    int n = snprintf(out, max, "%s", text);

    return n > 0 && (size_t)n < max;
}

const char *
cli_named_db(const struct cli *cli)
{
    const char *named = cli_text(cli, "db");

    return named != NULL ? named : variable("WAYBILL_DB");
}

void
cli_hide_url(const char *word)
{
    char *at = word != NULL && wb__db_is_postgres(word)
                   ? (char *)(uintptr_t)word + strcspn(word, ":") + 3
                   : NULL;

    if (at != NULL)
        memset(at, '*', strlen(at));
}

enum wb_status
cli_find_db(struct cli *cli, struct wb_err *err)
{
    const char *named = cli_named_db(cli);

    if (cli->db[0] != '\0')
        return WB_OK;
    if (named != NULL && named[0] == '~' && named[1] == '/')
        return wb__fail(err, WB_INVALID, 0,
            "%s: only a shell replaces ~; write the path in full, or ./~/",
            named);
    if (named != NULL && !copy(cli->db, sizeof(cli->db), named))
        return wb__fail(
            err, WB_INVALID, 0, "the name of the database is too long");
    if (named == NULL && !in_home("XDG_STATE_HOME", ".local/state",
                             "waybill.db", cli->db, sizeof(cli->db)))
        return wb__fail(err, WB_UNAVAILABLE, 0,
            "no folder for the database: HOME is not set; give --db FILE");
    cli_hide_url(cli_text(cli, "db"));
    return WB_OK;
}

/* Set cli->config_path: named, or found; empty if there is none. */
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

enum wb_status
cli_open_config(struct cli *cli, bool transports, struct wb_err *err)
{
    enum wb_status rc = find_config(cli, err);

    if (rc == WB_OK && transports) {
        int sys = uv_loop_init(&cli->loop);

        if (sys != 0)
            return wb__fail(
                err, WB_IO, -sys, "no event loop: %s", uv_strerror(sys));
        cli->loop_open = true;
    }
    if (rc != WB_OK || cli->config_path[0] == '\0')
        return rc;
    rc = cli->read_config(cli, transports, err);
    if (rc == WB_OK)
        cli->routes = wb_config_routes(cli->config, &cli->n_routes);
    return rc;
}

static bool
is_one_of(const struct cli *cli, const char *const *names)
{
    while (*names != NULL && strcmp(*names, cli->command->name) != 0)
        names++;
    return *names != NULL;
}

/* The commands that make a database which is not there, and those that change
 * nothing. By name: each command calls this file. */
static const char *const creates[] = {
    "init", "send", "run", "pause", "gate", "once", NULL};
static const char *const reads[] = {
    "status", "list", "show", "metrics", "backup", "doctor", NULL};
static const char *const copies[] = {"backup", NULL};
static const char *const needs_file[] = {"backup", "compact", "migrate", NULL};

/* A database that is named on the command line and is not there is an error:
 * the name may be mistyped. The usual one, or that of $WAYBILL_DB, is empty
 * before the first message. */
static bool
may_be_missing(const struct cli *cli)
{
    return cli_text(cli, "db") == NULL && !is_one_of(cli, needs_file);
}

/* Accepting a message does not depend on the routes, nor does any command but
 * those that deliver or use a route's policies: only the settings are needed.
 */
static enum wb_status
open_settings(struct cli *cli, struct wb_err *err)
{
    struct wb_err problem = *err;
    enum wb_status rc =
        wb__config_read_settings(&cli->config, cli->config_path, cli->env, err);

    if (rc == WB_OK)
        cli_note(cli, "%s (drain and run will not start)", problem.msg);
    cli->route_error = problem;
    return rc;
}

/* A file that cannot be opened for another reason than a lock or a full disk
 * stays so; a server may be started later. */
static bool
may_come_back(const struct cli *cli, enum wb_status rc)
{
    return rc == WB_BUSY || rc == WB_FULL ||
           (rc == WB_UNAVAILABLE && wb__db_is_postgres(cli->db));
}

static enum wb_status
open_outbox(
    struct cli *cli, const struct wb_outbox_opts *opts, struct wb_err *err)
{
    enum wb_status rc;

    while ((rc = wb_outbox_open(&cli->box, cli->db, opts, err)) != WB_OK &&
           cli->on_db_lost != NULL && may_come_back(cli, rc))
        cli->on_db_lost(cli, err);
    return rc;
}

enum cli_exit
cli_open(struct cli *cli, struct wb_relay **relay)
{
    struct wb_outbox_opts opts = {0};
    struct wb_relay_opts relay_opts = {.env = cli->env, .loop = &cli->loop};
    struct wb_err err = {0};
    enum wb_status rc = cli_open_config(cli, relay != NULL, &err);

    if ((rc == WB_INVALID || rc == WB_UNAVAILABLE) &&
        !cli->command->needs_routes && cli->config_path[0] != '\0') {
        rc = open_settings(cli, &err);
        relay = NULL;
    }
    if (rc == WB_OK)
        rc = cli_find_db(cli, &err);
    if (rc == WB_OK && cli->config != NULL)
        opts = *wb_config_outbox(cli->config);
    opts.env = cli->env;
    opts.existing = !is_one_of(cli, creates);
    opts.read_only = cli->reads || is_one_of(cli, reads);
    opts.older = is_one_of(cli, copies);
    opts.empty = opts.existing && may_be_missing(cli);
    if (rc == WB_OK)
        rc = open_outbox(cli, &opts, &err);
    if (rc != WB_OK)
        return cli_fail_no_usage(cli, &err);
    if (relay == NULL)
        return CLI_DONE;
    relay_opts.on_event = cli->on_event;
    relay_opts.event_ctx = cli->event_ctx;
    relay_opts.routes = cli->routes;
    relay_opts.n_routes = cli->n_routes;
    if (cli->config != NULL) {
        relay_opts.lease_ms = wb_config_lease_ms(cli->config);
        relay_opts.ready = wb_config_ready;
        relay_opts.ctx = cli->config;
    }
    if (wb_relay_new(relay, cli->box, &relay_opts, &err) == WB_OK)
        return CLI_DONE;
    return cli_fail_as(cli, CLI_FAILED, &err);
}

void
cli_close(struct cli *cli)
{
    wb_config_close(cli->config);
    wb_outbox_close(cli->box);
    /* Handles that were just closed still have callbacks to run. */
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

/* ---- stop signals ------------------------------------------------------- */

void
cli_on_stop_signal(void (*handler)(int number), int flags)
{
    struct sigaction stop = {.sa_handler = handler}, before;

    for (int i = 0; i < 2; i++) {
        int number = i == 0 ? SIGTERM : SIGINT;

        stop.sa_flags = flags | (number == SIGINT ? SA_RESETHAND : 0);
        (void)sigaction(number, NULL, &before);
        if (before.sa_handler != SIG_IGN)
            (void)sigaction(number, &stop, NULL);
    }
}

void
cli_stop_open(
    struct cli_stop *s, uv_loop_t *loop, uv_signal_cb on_signal, void *ctx)
{
    (void)uv_signal_init(loop, &s->term);
    (void)uv_signal_init(loop, &s->interrupt);
    s->term.data = s->interrupt.data = ctx;
    (void)uv_signal_start(&s->term, on_signal, SIGTERM);
    (void)uv_signal_start(&s->interrupt, on_signal, SIGINT);
    s->open = true;
}

void
cli_stop_close(struct cli_stop *s)
{
    if (!s->open)
        return;
    uv_close((uv_handle_t *)&s->term, NULL);
    uv_close((uv_handle_t *)&s->interrupt, NULL);
    s->open = false;
}
