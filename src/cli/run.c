/* run.c - the command run: a worker that stays.
 *
 * (1) SIGTERM and SIGINT claim nothing more: requests in flight end, within
 *     --grace, and the report is printed.
 * (2) SIGHUP reads the configuration again. One with an error is refused, and
 *     the former one stays. What was read before is freed when no request uses
 *     it.
 * (3) The log goes to stderr, a line an event. The service manager is told
 *     when the worker is ready, reloads and stops.
 * (4) A database that is away when the worker starts is waited for as one that
 *     goes away later: see src/relay/lost.c. */
#include <inttypes.h>
#include <unistd.h>

#include "cli/cli.h"
#include "relay/relay.h"

struct worker {
    struct cli *cli;
    struct wb_relay *relay;
    struct cli_log log;
    struct cli_metrics metrics;
    struct cli_monitor monitor;
    struct wb_config *former; /* in use by requests in flight */
    uv_signal_t hangup;
    uv_timer_t watchdog;
    int64_t lost_us, wait_us; /* since when the database is waited for */
    bool started;
    bool open, again; /* a SIGHUP came while former was in use */
};

/* ---- reload ------------------------------------------------------------- */

static enum wb_status
read_again(struct worker *w, struct wb_relay_opts *opts, struct wb_err *err)
{
    struct cli *cli = w->cli;
    struct wb_config *current = cli->config;
    enum wb_status rc;

    cli->config = NULL;
    rc = cli->read_config(cli, true, err);
    if (rc == WB_OK) {
        opts->routes = wb_config_routes(cli->config, &opts->n_routes);
        opts->lease_ms = wb_config_lease_ms(cli->config);
        opts->ready = wb_config_ready;
        opts->ctx = cli->config;
        rc = wb_relay_reload(w->relay, opts, err);
    }
    if (rc == WB_OK) {
        w->former = current;
        return WB_OK;
    }
    wb_config_close(cli->config);
    cli->config = current;
    return rc;
}

/* Their messages wait; a reload tries them again. */
static void
log_failed_routes(struct worker *w)
{
    for (size_t i = 0; i < w->cli->n_routes; i++)
        if (w->cli->routes[i].failed != NULL)
            cli_log(&w->log, WB__LOG_ERROR, "route-failed",
                &(struct wb__log_fields){
                    .kind = wb_slice(w->cli->routes[i].kind),
                    .error = wb_slice(w->cli->routes[i].failed)});
}

static void
log_routes(struct worker *w)
{
    char text[300];

    log_failed_routes(w);
    if (cli_proxy_unused(w->cli, text, sizeof(text)))
        cli_log(&w->log, WB__LOG_WARN, "proxy-unused",
            &(struct wb__log_fields){.detail = wb_slice(text)});
}

static void
reload(struct worker *w)
{
    struct wb_relay_opts opts = {0};
    struct wb_err err = {0};
    char text[64];

    w->again = w->former != NULL;
    if (w->again)
        return;
    (void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
        w->cli->env->mono_us(w->cli->env->ctx));
    (void)wb__notify(text);
    if (w->cli->config_path[0] == '\0')
        (void)wb__fail(&err, WB_NOTFOUND, 0, "no configuration was read");
    if (err.status == WB_OK && read_again(w, &opts, &err) == WB_OK) {
        w->cli->routes = opts.routes;
        w->cli->n_routes = opts.n_routes;
        cli_log(&w->log, WB__LOG_INFO, "reload",
            &(struct wb__log_fields){.detail = wb_slice(w->cli->config_path)});
        log_routes(w);
    } else {
        cli_log(&w->log, WB__LOG_ERROR, "reload-refused",
            &(struct wb__log_fields){.error = wb_slice(err.msg)});
    }
    (void)wb__notify("READY=1");
}

static void
on_hangup(uv_signal_t *handle, int number)
{
    (void)number;
    reload(handle->data);
}

static void
on_event(void *ctx, const struct wb_relay_event *event)
{
    struct worker *w = ctx;

    cli_log_event(&w->log, event);
    cli_metrics_event(&w->metrics, event);
    w->started = w->started || event->type == WB_RELAY_STARTED ||
                 event->type == WB_RELAY_STANDBY;
    if (event->type == WB_RELAY_STARTED)
        (void)wb__notify("READY=1\nSTATUS=delivering");
    if (event->type == WB_RELAY_STANDBY)
        (void)wb__notify("READY=1\nSTATUS=standby: another worker delivers");
    if (event->type == WB_RELAY_STOPPING)
        (void)wb__notify("STOPPING=1");
    if (event->type != WB_RELAY_RELOADED)
        return;
    wb_config_close(w->former);
    w->former = NULL;
    if (w->again)
        reload(w);
}

static void
write_counters(void *ctx, struct wb__buf *text)
{
    struct worker *w = ctx;

    w->metrics.in_flight = w->relay->n_in_flight;
    cli_metrics_write(&w->metrics, text);
    cli_metrics_log(&w->log.log, text);
    cli_metrics_unrouted(text, w->relay->report.kinds_unrouted);
    cli_metrics_build(text);
}

/* ---- the worker --------------------------------------------------------- */

static void
on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    (void)wb__notify("WATCHDOG=1");
}

static void
worker_open(struct worker *w)
{
    struct cli *cli = w->cli;
    uint64_t ms = (uint64_t)wb__watchdog_us() / 2000;
    struct sigaction before;

    cli_log_open(cli, &w->log, &cli->loop);
    (void)uv_signal_init(&cli->loop, &w->hangup);
    (void)uv_timer_init(&cli->loop, &w->watchdog);
    w->hangup.data = w;
    w->open = true;
    /* Under nohup(1) it stays ignored. */
    (void)sigaction(SIGHUP, NULL, &before);
    if (before.sa_handler != SIG_IGN)
        (void)uv_signal_start(&w->hangup, on_hangup, SIGHUP);
    if (ms > 0)
        (void)uv_timer_start(&w->watchdog, on_watchdog, 0, ms);
}

static void
worker_close(struct worker *w)
{
    if (!w->open)
        return;
    if (w->started)
        cli_log(&w->log, WB__LOG_INFO, "stop", NULL);
    uv_close((uv_handle_t *)&w->hangup, NULL);
    uv_close((uv_handle_t *)&w->watchdog, NULL);
    cli_log_close(&w->log);
}

/* ---- the database is away at the start; see (4) ------------------------- */

enum {
    FIRST_WAIT_US = 100000,
    LONG_WAIT_US = 3000000 /* waits are not doubled once they are that long */
};

/* Nothing is claimed or in flight yet. Process 1 of a container would not be
 * ended by a signal that it does not handle. */
static void
on_early_stop(int number)
{
    (void)number;
    _exit(CLI_DONE);
}

static void
on_db_lost(struct cli *cli, const struct wb_err *err)
{
    struct worker *w = cli->event_ctx;

    if (!w->open)
        worker_open(w);
    if (w->lost_us == 0) {
        w->lost_us = cli->env->mono_us(cli->env->ctx);
        w->wait_us = FIRST_WAIT_US;
        cli_log(&w->log, WB__LOG_ERROR, "database-lost",
            &(struct wb__log_fields){.error = wb_slice(err->msg)});
    } else if (w->wait_us < LONG_WAIT_US) {
        w->wait_us *= 2;
    }
    /* The next attempt takes an hour at most, the limit of `busy`. */
    (void)wb__notify("STATUS=waiting for the database\n"
                     "EXTEND_TIMEOUT_USEC=3660000000");
    wb__sleep_us(w->wait_us);
}

static void
log_db_found(struct worker *w)
{
    const struct wb_env *env = w->cli->env;

    if (w->lost_us == 0)
        return;
    cli_log(&w->log, WB__LOG_INFO, "database-found",
        &(struct wb__log_fields){.timed = true,
            .duration_ms = (env->mono_us(env->ctx) - w->lost_us) / 1000});
}

static enum cli_exit
run_worker(struct cli *cli)
{
    static struct worker w; /* its handles close after this */
    const char *listen = cli_text(cli, "listen");
    struct wb_drain drain = {.kind = cli_slice(cli, "kind"),
        .concurrency = (uint32_t)cli_number(cli, "concurrency", 0),
        .standby = cli_has(cli, "standby"),
        .grace_ms = cli_ms(cli, "grace", 0)};
    enum cli_exit code;

    w.cli = cli;
    w.metrics.env = cli->env;
    w.monitor.write_counters = write_counters;
    w.monitor.counters_ctx = &w;
    cli->on_event = on_event;
    cli->event_ctx = &w;
    cli->on_db_lost = on_db_lost;
    cli_on_stop_signal(on_early_stop, 0);
    code = cli_open(cli, &w.relay);
    if (code == CLI_DONE && listen != NULL)
        code = cli_listen(cli, listen, &w.monitor);
    if (code == CLI_DONE) {
        if (!w.open)
            worker_open(&w);
        log_db_found(&w);
        log_routes(&w);
        code = cli_drain_and_print(cli, w.relay, &drain, true);
    }
    worker_close(&w);
    cli_monitor_close(&w.monitor);
    wb_relay_free(w.relay);
    wb_config_close(w.former);
    cli_metrics_fini(&w.metrics);
    /* A worker that was stopped has succeeded, whatever it delivered. */
    return code == CLI_NOTHING || code == CLI_SOME ? CLI_DONE : code;
}

static const struct cli_option run_options[] = {
    {"kind", CLI_KIND, "K", "messages of this kind alone [all with a route]"},
    {"concurrency", CLI_BATCH, "N",
        "limit of workers of this database, and of requests in flight "
        "[1 worker; as the routes say]"},
    {"listen", CLI_TEXT, "ADDR",
        "serve GET /metrics and /healthz; host:port or :port [off]"},
    {"standby", CLI_FLAG, NULL,
        "where another worker runs: wait, and take over when it ends"},
    {"grace", CLI_SPAN, "D",
        "after SIGTERM wait this long for requests in flight [their timeouts]"},
    CLI_LOG_OPTIONS,
    {0},
};

const struct cli_command cli_run = {
    .name = "run",
    .group = "Outbox",
    .args = "[--kind K] [--listen ADDR] [--standby] [--grace D] ...",
    .help = "deliver until stopped",
    .more = "The worker. It wakes on new messages, due times and breaker ends. "
            "SIGTERM and\nSIGINT finish the requests in flight and print the "
            "counts; "
            "it exits with 0. SIGHUP\nreads the routes again. Where the "
            "database is locked, full or away it waits, also at its\nstart.",
    .options = run_options,
    .run = run_worker,
    .needs_routes = true,
    .examples = "waybill run\n"
                "waybill run --listen 127.0.0.1:9464\n"
                "waybill run --standby --grace 30s --log json",
};
