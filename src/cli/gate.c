/* gate.c - `waybill gate`: the command around the gateway.
 *
 * (1) The first SIGTERM or SIGINT lets the requests under way finish. The
 *     second one does not wait: the store then holds them as unknown. */
#include <signal.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "gate/gate.h"

struct gateway {
    struct cli *cli;
    enum wb__gate_anonymous anonymous;
    struct wb_idem *store;
    struct wb__gate *gate;
    struct cli_monitor monitor; /* --admin */
    uv_signal_t term, intr;
    bool signals_open, stopping, aborted;
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
    wb__http_server_close(g->monitor.server);
    if (g->signals_open) {
        uv_close((uv_handle_t *)&g->term, NULL);
        uv_close((uv_handle_t *)&g->intr, NULL);
    }
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

static void
watch_signals(struct gateway *g)
{
    (void)uv_signal_init(&g->cli->loop, &g->term);
    (void)uv_signal_init(&g->cli->loop, &g->intr);
    g->term.data = g->intr.data = g;
    (void)uv_signal_start(&g->term, on_signal, SIGTERM);
    (void)uv_signal_start(&g->intr, on_signal, SIGINT);
    g->signals_open = true;
}

static void
print_addresses(struct gateway *g)
{
    const char *at = wb__gate_address(g->gate);
    bool has_admin = g->monitor.server != NULL;
    const char *admin =
        has_admin ? wb__http_server_address(g->monitor.server) : "";

    cli_say(g->cli, "listening on %s, upstream %s%s%s", at,
        cli_text(g->cli, "upstream"), has_admin ? ", admin " : "", admin);
    if (g->cli->json)
        (void)cli_json(g->cli, json_pack("{s:s, s:o}", "listening", at, "admin",
                                   cli_str(wb_slice(admin))));
    (void)fflush(stdout);
}

static enum wb_status
write_metrics(const void *ctx, struct wb__buf *page, struct wb_err *err)
{
    (void)err;
    wb__gate_metrics(ctx, page);
    return WB_OK;
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
        .anonymous = g->anonymous,
        .require_key = cli_has(cli, "require-key"),
        .stopped = close_all,
        .ctx = g};
    struct wb_slice admin = cli_slice(cli, "admin");
    enum wb_status rc = open_store(g, &opts.blocking, err);

    opts.store = g->store;
    if (rc == WB_OK)
        rc = wb__gate_open(&g->gate, &opts, err);
    g->monitor = (struct cli_monitor){
        .cli = cli, .write_metrics = write_metrics, .ctx = g->gate};
    if (rc == WB_OK && admin.len > 0)
        rc = cli_monitor_open(&g->monitor, admin, err);
    return rc;
}

static bool
read_anonymous(struct cli *cli, enum wb__gate_anonymous *anonymous)
{
    static const char *const names[] = {[WB__GATE_PASS] = "pass",
        [WB__GATE_REFUSE] = "refuse",
        [WB__GATE_SHARE] = "share"};
    const char *text = cli_text(cli, "anonymous");

    for (size_t i = 0; text != NULL && i < WB_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *anonymous = (enum wb__gate_anonymous)i;
            return true;
        }
    }
    if (text != NULL)
        (void)cli_usage(
            cli, "--anonymous '%s': take pass, refuse or share", text);
    return text == NULL;
}

static enum cli_exit
run_gate(struct cli *cli)
{
    struct gateway g = {.cli = cli};
    struct wb_err err = {0};
    enum wb_status rc;

    if (!read_anonymous(cli, &g.anonymous))
        return CLI_USAGE;
    /* More calls of the store at once share more commits. */
    if (getenv("UV_THREADPOOL_SIZE") == NULL)
        (void)uv_os_setenv("UV_THREADPOOL_SIZE", "32");
    if (uv_loop_init(&cli->loop) != 0)
        return cli_fail_as(cli, CLI_FAILED, &err);
    rc = open_all(&g, &err);
    if (rc == WB_OK) {
        watch_signals(&g);
        print_addresses(&g);
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
    {"listen", CLI_TEXT, "ADDR", "host:port, or :port; required", true},
    {"upstream", CLI_TEXT, "URL", "http://host:port; required", true},
    {"store", CLI_FILE, "STORE",
        "sqlite (in --db), memory, a file of its own, postgres://… [sqlite]",
        false},
    {"ttl", CLI_DURATION, "D", "keep answers so long; 0 for ever [24h]", false},
    {"lease", CLI_SPAN, "D", "a claim, renewed while the gateway lives [60s]",
        false},
    {"wait", CLI_DURATION, "D",
        "for a request with the same key, then 409; 0 at once [10s]", false},
    {"timeout", CLI_SPAN, "D", "upstream may say nothing so long [60s]", false},
    {"identity-header", CLI_NAME, "NAME",
        "set by a trusted hop [a hash of Authorization]", false},
    {"anonymous", CLI_TEXT, "HOW",
        "a key without identity: pass, refuse or share [pass]", false},
    {"require-key", CLI_FLAG, NULL, "refuse POST and PATCH without a key",
        false},
    {"admin", CLI_TEXT, "ADDR", "answer /metrics and /healthz there", false},
    {0},
};

const struct cli_command cli_gate = {
    .name = "gate",
    .group = "Receiving",
    .args = "--listen ADDR --upstream URL [--store STORE] [--ttl D] ...",
    .help = "one effect for each Idempotency-Key in front of a server",
    .more = "POST and PATCH with an Idempotency-Key go upstream once; repeats "
            "get the stored answer.\nEverything else passes. What may have "
            "happened and was not confirmed is answered\n409 outcome-unknown "
            "and held 24 hours. SIGTERM finishes what has begun.",
    .options = gate_options,
    .run = run_gate,
    .examples = "waybill gate --listen 127.0.0.1:8080 --upstream "
                "http://127.0.0.1:9000\n"
                "waybill gate --listen :8080 --upstream http://app:9000 "
                "--identity-header X-Tenant --admin 127.0.0.1:9100",
};
