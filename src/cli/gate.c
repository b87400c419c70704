/* gate.c - `waybill gate`: options, signals and start of the gateway.
 *
 * (1) The first SIGTERM or SIGINT lets requests in flight finish. The second
 *     one, or the end of --grace, does not wait: event streams are cut, and the
 *     outcome of keyed requests is then unknown.
 * (2) HUP, USR1 and USR2 are ignored: they do not end what runs. */
#include <errno.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "gate/gate.h"
#include "idem/idem.h"

struct gateway {
    struct cli *cli;
    struct wb_idem *store;
    struct wb__gate *gate;
    struct cli_monitor monitor; /* --admin */
    struct cli_stop stop;
    struct cli_log log;
    FILE *access_file;
    struct wb__log access;
    uv_timer_t grace; /* its end stops the gateway as a second signal does */
    bool stopping, aborted;
};

static enum wb_status
open_store(struct gateway *g, bool *blocking, struct wb_err *err)
{
    const struct wb_idem_opts opts = {.env = g->cli->env};
    const char *store = cli_text(g->cli, "store");
    enum wb_status rc = WB_OK;

    *blocking = store == NULL || strcmp(store, "memory") != 0;
    if (!*blocking)
        return wb_idem_open_memory(&g->store, &opts, err);
    if (store == NULL || strcmp(store, "sqlite") == 0) {
        rc = cli_find_db(g->cli, err);
        store = g->cli->db;
    }
    if (rc == WB_OK)
        rc = wb_idem_open(&g->store, store, &opts, err);
    cli_hide_url(cli_text(g->cli, "store"));
    return rc;
}

/* The gateway's stopped(), and where the start failed. */
static void
close_all(void *ctx)
{
    struct gateway *g = ctx;

    wb__gate_close(g->gate);
    cli_monitor_close(&g->monitor);
    g->gate = NULL;
    cli_stop_close(&g->stop);
    uv_close((uv_handle_t *)&g->grace, NULL);
    cli_log_close(&g->log);
}

static void
abort_requests(struct gateway *g)
{
    g->aborted = true;
    uv_stop(&g->cli->loop);
}

static void
on_grace(uv_timer_t *timer)
{
    abort_requests(timer->data);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    struct gateway *g = handle->data;

    (void)number;
    if (g->stopping) {
        abort_requests(g);
        return;
    }
    g->stopping = true;
    (void)uv_timer_start(
        &g->grace, on_grace, (uint64_t)cli_ms(g->cli, "grace", 60000), 0);
    wb__gate_stop(g->gate);
}

static void
write_log(void *ctx, int level, const char *event,
    const struct wb__log_fields *fields)
{
    struct gateway *g = ctx;

    cli_log(&g->log, (enum wb__log_level)level, event, fields);
}

/* --access-log: lines as those of --log, and all of them. */
static enum wb_status
open_access_log(struct gateway *g, struct wb_err *err)
{
    const char *path = cli_text(g->cli, "access-log");

    if (path == NULL)
        return WB_OK;
    g->access_file = fopen(path, "ae");
    if (g->access_file == NULL)
        return wb__fail(err, WB_IO, errno,
            "%s cannot be appended to: %s; --access-log names a file", path,
            strerror(errno));
    wb__log_init(&g->access, g->cli->env, fileno(g->access_file),
        g->log.log.format, WB__LOG_INFO);
    g->access.unlimited = true;
    return WB_OK;
}

static void
close_access_log(struct gateway *g)
{
    if (g->access_file == NULL)
        return;
    wb__log_fini(&g->access);
    (void)fclose(g->access_file);
}

static void
respond_ready(void *ctx, const char *why)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%s\n", why == NULL ? "ready" : why);
    wb__exchange_respond(
        ctx, &(struct wb__response){.status = why == NULL ? 200 : 503,
                 .headers = WB_LIT("Content-Type: text/plain\n"
                                   "Cache-Control: no-store\n"),
                 .body = wb_slice(text)});
}

static void
handle_ready(void *ctx, struct wb__exchange *exchange)
{
    struct gateway *g = ctx;

    wb__gate_check_ready(g->gate, respond_ready, exchange);
}

static enum wb_status
write_metrics(const void *ctx, struct wb__buf *page, struct wb_err *err)
{
    const struct gateway *g = ctx;

    (void)err;
    wb__gate_metrics(g->gate, page);
    cli_metrics_log(&g->log.log, page);
    cli_metrics_build(page);
    return WB_OK;
}

static enum wb_status
check_store(const void *ctx, struct wb_err *err)
{
    return wb__idem_check(((const struct gateway *)ctx)->store, err);
}

static enum wb_status
open_all(struct gateway *g, struct wb_err *err)
{
    struct cli *cli = g->cli;
    struct wb__gate_opts opts = {.env = cli->env,
        .loop = &cli->loop,
        .listen = cli_slice(cli, "listen"),
        .upstream = cli_slice(cli, "upstream"),
        .ttl_ms = cli_ms(cli, "ttl", WB_IDEM_TTL_MS),
        .lease_ms = cli_ms(cli, "lease", WB_IDEM_LEASE_MS),
        .wait_ms = cli_ms(cli, "wait", 10000),
        .silence_ms = cli_ms(cli, "timeout", 60000),
        .identity_header = cli_slice(cli, "identity-header"),
        .anonymous = (enum wb__gate_anonymous)cli_number(
            cli, "anonymous", WB__GATE_REFUSE),
        .identity_cookie = cli_slice(cli, "identity-cookie"),
        .identity_claim = cli_slice(cli, "identity-claim"),
        .methods = cli_slice(cli, "methods"),
        .paths = cli_slice(cli, "paths"),
        .key_header = cli_slice(cli, "key-header"),
        .require_key = cli_has(cli, "require-key"),
        .virtual_hosts = cli_has(cli, "virtual-hosts"),
        .keep = cli_slice(cli, "keep"),
        .release = cli_slice(cli, "free"),
        .unknown = cli_slice(cli, "unknown"),
        .fingerprint = cli_slice(cli, "fingerprint"),
        .fresh_connections = cli_has(cli, "fresh-connections"),
        .body_bytes = (size_t)cli_number(cli, "max-body", 0) << 20,
        .server.body_ms = cli_ms(cli, "body-time", 0),
        .log = write_log,
        .stopped = close_all,
        .ctx = g};
    struct wb_slice admin = cli_slice(cli, "admin");
    enum wb_status rc = open_access_log(g, err);

    opts.access_log = g->access_file != NULL ? &g->access : NULL;
    if (rc == WB_OK)
        rc = open_store(g, &opts.blocking, err);
    opts.store = g->store;
    if (rc == WB_OK)
        rc = wb__gate_open(&g->gate, &opts, err);
    g->monitor = (struct cli_monitor){.cli = cli,
        .write_metrics = write_metrics,
        .ctx = g,
        .check = check_store,
        .check_ctx = g,
        .handle_ready = handle_ready,
        .ready_ctx = g};
    if (rc == WB_OK && admin.len > 0)
        rc = cli_monitor_open(&g->monitor, admin, err);
    return rc;
}

static enum cli_exit
run_gate(struct cli *cli)
{
    struct gateway g = {.cli = cli};
    const char *address, *admin = "";
    struct wb_err err = {0};
    enum wb_status rc;

    /* Two batches of store calls, and name lookups, which libuv gives half of
     * the threads. */
    if (getenv("UV_THREADPOOL_SIZE") == NULL)
        (void)uv_os_setenv("UV_THREADPOOL_SIZE", "4");
    if (uv_loop_init(&cli->loop) != 0)
        return cli_nomem(cli, "event loop");
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGUSR1, SIG_IGN);
    (void)signal(SIGUSR2, SIG_IGN);
    (void)uv_timer_init(&cli->loop, &g.grace);
    g.grace.data = &g;
    cli_log_open(cli, &g.log, &cli->loop);
    rc = open_all(&g, &err);
    if (rc == WB_OK) {
        cli_stop_open(&g.stop, &cli->loop, on_signal, &g);
        address = wb__gate_address(g.gate);
        if (g.monitor.server != NULL)
            admin = wb__http_server_address(g.monitor.server);
        (void)cli_result(cli,
            json_pack("{s:s, s:o}", "listening", address, "admin",
                cli_str(wb_slice(admin))),
            "listening on %s, upstream %s%s%s", address,
            cli_text(cli, "upstream"), admin[0] != '\0' ? ", admin " : "",
            admin);
        (void)fflush(stdout);
    } else {
        close_all(&g);
    }
    (void)uv_run(&cli->loop, UV_RUN_DEFAULT);
    if (g.aborted) { /* threads may still use the store */
        if (!wb__gate_is_idle(g.gate))
            wb__gate_log_cut(g.gate);
        wb__log_fini(&g.log.log);
        exit(wb__gate_is_idle(g.gate) ? CLI_DONE : CLI_FAILED);
    }
    wb_idem_close(g.store);
    close_access_log(&g);
    WB_ASSERT(uv_loop_close(&cli->loop) == 0);
    return rc == WB_OK ? CLI_DONE : cli_fail(cli, &err);
}

static const struct cli_option gate_options[] = {
    {"listen", CLI_TEXT, "ADDR", "host:port, or :port; required"},
    {"upstream", CLI_TEXT, "URL", "http://host:port; required"},
    {"store", CLI_FILE, "STORE",
        "sqlite (in --db), memory, a file, postgres://… [sqlite]"},
    {"ttl", CLI_DURATION, "D",
        "keep responses for this long; 0: for ever [24h]"},
    {"lease", CLI_SPAN, "D",
        "lease of a claim, renewed while the request runs [60s]"},
    {"wait", CLI_DURATION, "D",
        "wait for a request with the same key, then 409 [10s]"},
    {"timeout", CLI_SPAN, "D", "limit of silence of the upstream [60s]"},
    {"grace", CLI_DURATION, "D",
        "after SIGTERM, time for what has begun; then it is cut [60s]"},
    {"identity-header", CLI_NAME, "NAME",
        "set by a trusted proxy [a hash of Authorization]"},
    {"identity-cookie", CLI_NAME, "NAME", "cookie that names the client"},
    {"identity-claim", CLI_NAME, "NAME,...",
        "claims of a JWT that a trusted proxy has checked: iss,sub"},
    {"anonymous", CLI_CHOICE, "refuse|pass|share",
        "a key without identity [refuse: 401]"},
    {"require-key", CLI_FLAG, NULL, "refuse guarded methods without a key"},
    {"methods", CLI_NAME, "M,...", "guarded methods [POST,PATCH]"},
    {"paths", CLI_TEXT, "P,...",
        "guard these paths and what is below them [all]"},
    {"key-header", CLI_NAME, "NAME", "header of the key [Idempotency-Key]"},
    {"virtual-hosts", CLI_FLAG, NULL, "a key belongs to one Host"},
    {"fingerprint", CLI_TEXT, "KIND",
        "how bodies are compared: raw, none, json, json:without F,... [raw]"},
    {"keep", CLI_TEXT, "S,...",
        "statuses whose response is kept: 409, 500-599, 4xx"},
    {"free", CLI_TEXT, "S,...", "statuses that free the key [408,425,429,5xx]"},
    {"unknown", CLI_TEXT, "S,...",
        "statuses that say nothing about the effect [502,504]"},
    {"fresh-connections", CLI_FLAG, NULL,
        "a new connection for each keyed request"},
    {"max-body", CLI_COUNT, "MIB", "largest keyed body [1]"},
    {"body-time", CLI_SPAN, "D", "longest time for a keyed body [30s]"},
    CLI_LOG_OPTIONS,
    {"access-log", CLI_FILE, "FILE", "append a line for each request"},
    {"admin", CLI_TEXT, "ADDR", "serve GET /metrics, /healthz and /readyz"},
    {0},
};

const struct cli_command cli_gate = {
    .name = "gate",
    .group = "Receiving",
    .args = "--listen ADDR --upstream URL [--store STORE] [--ttl D] ...",
    .help = "one effect for each Idempotency-Key in front of a server",
    .more =
        "POST and PATCH with an Idempotency-Key are forwarded once; repeats "
        "get the stored response.\nKeys belong to the client that "
        "Authorization names; a key without it gets 401, and the\nanswer "
        "names the options. Everything else is forwarded as it is. A request "
        "that may\nhave taken effect without a confirmation gets 409 "
        "outcome-unknown, held for 24 hours.\nSIGTERM finishes requests in "
        "flight.",
    .options = gate_options,
    .required = "listen upstream",
    .run = run_gate,
    .examples =
        "waybill gate --listen 127.0.0.1:8080 --upstream "
        "http://127.0.0.1:9000 &\n"
        "for try in 1 2; do sleep 1; curl -i -d 'one order' \\\n"
        "    -H 'Authorization: Bearer me' -H 'Idempotency-Key: 8e03978e' "
        "\\\n"
        "    http://127.0.0.1:8080/orders; done\n"
        "waybill gate --listen :8080 --upstream http://app:9000 \\\n"
        "    --identity-header X-Tenant --admin 127.0.0.1:9100",
};
