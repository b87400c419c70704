/* gate.c - `waybill gate`: options, signals and start of the gateway.
 *
 * (1) The first SIGTERM or SIGINT lets requests in flight finish. The second
 *     one does not wait: their outcome is then unknown. */
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
    return rc == WB_OK ? wb_idem_open(&g->store, store, &opts, err) : rc;
}

/* The gateway's stopped(), and where the start failed. */
static void
close_all(void *ctx)
{
    struct gateway *g = ctx;

    wb__gate_close(g->gate);
    cli_monitor_close(&g->monitor);
    cli_stop_close(&g->stop);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    struct gateway *g = handle->data;

    (void)number;
    if (g->stopping) {
        g->aborted = true;
        uv_stop(&g->cli->loop);
        return;
    }
    g->stopping = true;
    wb__gate_stop(g->gate);
}

static enum wb_status
write_metrics(const void *ctx, struct wb__buf *page, struct wb_err *err)
{
    (void)err;
    wb__gate_metrics(ctx, page);
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
            cli, "anonymous", WB__GATE_PASS),
        .require_key = cli_has(cli, "require-key"),
        .stopped = close_all,
        .ctx = g};
    struct wb_slice admin = cli_slice(cli, "admin");
    enum wb_status rc = open_store(g, &opts.blocking, err);

    opts.store = g->store;
    if (rc == WB_OK)
        rc = wb__gate_open(&g->gate, &opts, err);
    g->monitor = (struct cli_monitor){.cli = cli,
        .write_metrics = write_metrics,
        .ctx = g->gate,
        .check = check_store,
        .check_ctx = g};
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

    /* More concurrent store calls share more commits. */
    if (getenv("UV_THREADPOOL_SIZE") == NULL)
        (void)uv_os_setenv("UV_THREADPOOL_SIZE", "32");
    if (uv_loop_init(&cli->loop) != 0)
        return cli_nomem(cli, "event loop");
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
    if (g.aborted) /* threads may still use the store */
        exit(CLI_FAILED);
    wb_idem_close(g.store);
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
    {"identity-header", CLI_NAME, "NAME",
        "set by a trusted proxy [a hash of Authorization]"},
    {"anonymous", CLI_CHOICE, "pass|refuse|share",
        "a key without identity [pass]"},
    {"require-key", CLI_FLAG, NULL, "refuse POST and PATCH without a key"},
    {"admin", CLI_TEXT, "ADDR", "serve GET /metrics and /healthz"},
    {0},
};

const struct cli_command cli_gate = {
    .name = "gate",
    .group = "Receiving",
    .args = "--listen ADDR --upstream URL [--store STORE] [--ttl D] ...",
    .help = "one effect for each Idempotency-Key in front of a server",
    .more =
        "POST and PATCH with an Idempotency-Key are forwarded once; repeats "
        "get the stored response.\nEverything else is forwarded as it is. "
        "A request that may have taken effect without a\nconfirmation gets "
        "409 outcome-unknown, held for 24 hours. SIGTERM finishes requests "
        "in\nflight.",
    .options = gate_options,
    .required = "listen upstream",
    .run = run_gate,
    .examples = "waybill gate --listen 127.0.0.1:8080 --upstream "
                "http://127.0.0.1:9000\n"
                "waybill gate --listen :8080 --upstream http://app:9000 "
                "--identity-header X-Tenant --admin 127.0.0.1:9100",
};
