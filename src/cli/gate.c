/* gate.c - the command around the gateway.
 *
 * (1) SIGTERM and SIGINT let what has begun come to its end; a second one does
 *     not wait: the store then holds what was under way as unknown. */
#include <signal.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "gate/gate.h"

#define PAGE_MAX ((size_t)64 * 1024)

struct front {
    struct cli *cli;
    struct wb_idem *store;
    struct wb__gate *gate;
    struct wb__http_server *admin;
    uv_signal_t term, intr;
    bool watching, stopping, hurry;
};

/* ---- store ------------------------------------------------------------- */

static enum wb_status
open_file(struct cli *cli, struct wb_idem **store, const char *named,
    struct wb_err *err)
{
    const struct wb_idem_opts opts = {.env = cli->env};
    enum wb_status rc = WB_OK;

    if (named == NULL) {
        rc = cli_find_db(cli, err);
        named = cli->db;
    }
    return rc == WB_OK ? wb_idem_open(store, named, &opts, err) : rc;
}

static enum wb_status
open_store(struct front *f, bool *blocking, struct wb_err *err)
{
    const struct wb_idem_opts opts = {.env = f->cli->env};
    const char *named = cli_text(f->cli, "store");

    *blocking = named == NULL || strcmp(named, "memory") != 0;
    if (!*blocking)
        return wb_idem_open_memory(&f->store, &opts, err);
    if (named != NULL && strcmp(named, "sqlite") == 0)
        named = NULL;
    return open_file(f->cli, &f->store, named, err);
}

/* ---- admin ------------------------------------------------------------- */

static void
answer(struct wb__exchange *call, int status, const char *type,
    struct wb_slice body)
{
    char headers[100];

    (void)snprintf(headers, sizeof(headers),
        "Content-Type: %s\nCache-Control: no-store\n", type);
    wb__exchange_respond(call,
        &(struct wb__response){
            .status = status, .headers = wb_slice(headers), .body = body});
}

static void
handle_admin(void *ctx, struct wb__exchange *call)
{
    const struct front *f = ctx;
    struct wb__buf page = {.env = f->cli->env, .max = PAGE_MAX};

    if (wb__eq(call->head->path, WB_LIT("/healthz"))) {
        answer(call, 200, "text/plain", WB_LIT("ok\n"));
    } else if (!wb__eq(call->head->path, WB_LIT("/metrics"))) {
        answer(call, 404, "text/plain",
            WB_LIT("there are /healthz and /metrics\n"));
    } else {
        wb__gate_metrics(f->gate, &page);
        answer(call, page.failed == WB_OK ? 200 : 503,
            "text/plain; version=0.0.4", wb__buf_slice(&page));
    }
    wb__buf_fini(&page);
}

static enum wb_status
open_admin(struct front *f, struct wb_err *err)
{
    const struct wb__http_server_opts opts = {.env = f->cli->env,
        .loop = &f->cli->loop,
        .listen = cli_slice(f->cli, "admin"),
        .max_conns = 64,
        .handle = handle_admin,
        .ctx = f};

    return opts.listen.len == 0 ? WB_OK
                                : wb__http_server_open(&f->admin, &opts, err);
}

/* ---- run --------------------------------------------------------------- */

static void
close_all(struct front *f)
{
    wb__gate_close(f->gate);
    wb__http_server_close(f->admin);
    if (f->watching) {
        uv_close((uv_handle_t *)&f->term, NULL);
        uv_close((uv_handle_t *)&f->intr, NULL);
    }
}

static void
on_stopped(void *ctx)
{
    close_all(ctx);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    struct front *f = handle->data;

    (void)number;
    if (f->stopping) {
        f->hurry = true;
        uv_stop(&f->cli->loop);
        return;
    }
    f->stopping = true;
    wb__gate_stop(f->gate);
}

static void
watch_signals(struct front *f)
{
    (void)uv_signal_init(&f->cli->loop, &f->term);
    (void)uv_signal_init(&f->cli->loop, &f->intr);
    f->term.data = f->intr.data = f;
    (void)uv_signal_start(&f->term, on_signal, SIGTERM);
    (void)uv_signal_start(&f->intr, on_signal, SIGINT);
    f->watching = true;
}

static void
announce(struct front *f)
{
    const char *at = wb__gate_address(f->gate);
    const char *admin =
        f->admin == NULL ? "" : wb__http_server_address(f->admin);

    cli_say(f->cli, "listening on %s, upstream %s%s%s", at,
        cli_text(f->cli, "upstream"), f->admin == NULL ? "" : ", admin ",
        admin);
    if (f->cli->json)
        (void)cli_json(f->cli, json_pack("{s:s, s:o}", "listening", at, "admin",
                                   cli_str(wb_slice(admin))));
    (void)fflush(stdout);
}

static enum wb_status
open_gate(struct front *f, bool blocking, struct wb_err *err)
{
    const struct cli *cli = f->cli;
    const char *anonymous = cli_text(cli, "anonymous");
    struct wb__gate_opts opts = {.env = cli->env,
        .loop = &f->cli->loop,
        .listen = cli_slice(cli, "listen"),
        .upstream = cli_slice(cli, "upstream"),
        .store = f->store,
        .blocking = blocking,
        .ttl_ms = cli_ms(cli, "ttl", WB_IDEM_TTL_MS),
        .lease_ms = cli_ms(cli, "lease", WB_IDEM_LEASE_MS),
        .wait_ms = cli_ms(cli, "wait", 10000),
        .silence_ms = cli_ms(cli, "timeout", 60000),
        .identity_header = cli_slice(cli, "identity-header"),
        .require_key = cli_has(cli, "require-key"),
        .stopped = on_stopped,
        .ctx = f};

    if (anonymous != NULL && strcmp(anonymous, "refuse") == 0)
        opts.anonymous = WB__GATE_REFUSE;
    if (anonymous != NULL && strcmp(anonymous, "share") == 0)
        opts.anonymous = WB__GATE_SHARE;
    return wb__gate_open(&f->gate, &opts, err);
}

static enum wb_status
serve(struct front *f, struct wb_err *err)
{
    bool blocking = true;
    enum wb_status rc = open_store(f, &blocking, err);

    if (rc == WB_OK)
        rc = open_gate(f, blocking, err);
    if (rc == WB_OK)
        rc = open_admin(f, err);
    if (rc != WB_OK) {
        close_all(f);
    } else {
        watch_signals(f);
        announce(f);
    }
    (void)uv_run(&f->cli->loop, UV_RUN_DEFAULT);
    return rc;
}

static bool
words_ok(struct cli *cli)
{
    const char *anonymous = cli_text(cli, "anonymous");

    if (anonymous == NULL || strcmp(anonymous, "pass") == 0 ||
        strcmp(anonymous, "refuse") == 0 || strcmp(anonymous, "share") == 0)
        return true;
    (void)cli_usage(
        cli, "--anonymous '%s': take pass, refuse or share", anonymous);
    return false;
}

static enum cli_exit
run_gate(struct cli *cli)
{
    struct front f = {.cli = cli};
    struct wb_err err = {0};
    enum wb_status rc;

    if (!words_ok(cli))
        return CLI_USAGE;
    /* More of the store's calls at once share more commits. */
    if (getenv("UV_THREADPOOL_SIZE") == NULL)
        (void)uv_os_setenv("UV_THREADPOOL_SIZE", "32");
    if (uv_loop_init(&cli->loop) != 0)
        return cli_fail_as(cli, CLI_FAILED, &err);
    rc = serve(&f, &err);
    if (f.hurry) /* threads may still be at the store */
        exit(CLI_FAILED);
    wb_idem_close(f.store);
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
