/* monitor.c - the server of `run --listen` and `gate --admin`: GET /healthz and
 * GET /metrics; and the metrics of an outbox.
 *
 * (1) It only reads, and only for a request: nothing is cached. */
#include "cli/cli.h"
#include "http/server.h"

struct outbox_page {
    struct wb__buf *text;
    int64_t oldest_ms; /* creation time of the oldest pending message, or 0 */
};

/* A label value, escaped as the text format of Prometheus requires. */
static void
add_label(struct wb__buf *b, struct wb_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        bool end = s.ptr[i] == '\n';

        if (end || s.ptr[i] == '"' || s.ptr[i] == '\\')
            wb__buf_str(b, "\\");
        wb__buf_add(b, (struct wb_slice){end ? "n" : s.ptr + i, 1});
    }
}

static void
add_help(struct wb__buf *b, const char *name, const char *help)
{
    wb__buf_fmt(b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
}

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct outbox_page *page = ctx;

    for (int i = 0; i < WB_STATE_DELIVERED; i++) {
        wb__buf_str(page->text, "waybill_messages{kind=\"");
        add_label(page->text, k->kind);
        wb__buf_fmt(page->text, "\",status=\"%s\"} %llu\n",
            wb_state_name((enum wb_state)i), (unsigned long long)k->n[i]);
    }
    if (k->oldest_pending_created_ms != 0 &&
        (page->oldest_ms == 0 ||
            k->oldest_pending_created_ms < page->oldest_ms))
        page->oldest_ms = k->oldest_pending_created_ms;
    return WB_OK;
}

static enum wb_status
add_breaker(void *ctx, const struct wb_breaker *breaker)
{
    struct outbox_page *page = ctx;

    wb__buf_str(page->text, "waybill_breaker_open{scope=\"");
    add_label(page->text, breaker->scope);
    wb__buf_fmt(page->text, "\"} %d\n", breaker->state == WB_CLOSED ? 0 : 1);
    return WB_OK;
}

static enum wb_status
write_outbox_metrics(const void *ctx, struct wb__buf *text, struct wb_err *err)
{
    const struct cli *cli = ctx;
    const struct wb_env *env = cli->env;
    struct outbox_page page = {.text = text};
    enum wb_status rc;
    double age_s = 0;

    add_help(text, "waybill_messages", "Messages by kind and status.");
    rc = wb_outbox_count(cli->box, add_kind, &page, err);
    if (page.oldest_ms != 0)
        age_s = (double)(env->wall_ms(env->ctx) - page.oldest_ms) / 1000;
    add_help(text, "waybill_oldest_pending_seconds",
        "Age of the oldest pending message, 0 if there is none.");
    wb__buf_fmt(
        text, "waybill_oldest_pending_seconds %.3f\n", age_s > 0 ? age_s : 0);
    add_help(text, "waybill_breaker_open",
        "1 where a destination's breaker is open or half-open.");
    if (rc == WB_OK)
        rc = wb_outbox_breakers(
            cli->box, (struct wb_slice){0}, add_breaker, &page, err);
    return rc;
}

/* ---- the server --------------------------------------------------------- */

static void
respond(struct wb__exchange *exchange, int status, const char *type,
    struct wb_slice body)
{
    char headers[120];

    (void)snprintf(headers, sizeof(headers),
        "Content-Type: %s\nCache-Control: no-store\n%s", type,
        status == 405 ? "Allow: GET, HEAD\n" : "");
    wb__exchange_respond(exchange,
        &(struct wb__response){
            .status = status, .headers = wb_slice(headers), .body = body});
}

static void
handle(void *ctx, struct wb__exchange *exchange)
{
    const struct wb__http_head *head = exchange->head;
    const struct cli_monitor *m = ctx;
    struct wb__buf page = {.env = m->cli->env, .max = (size_t)8 * 1024 * 1024};
    struct wb_err err = {0};

    if (!wb__eq(head->method, WB_LIT("GET")) &&
        !wb__eq(head->method, WB_LIT("HEAD")))
        respond(exchange, 405, "text/plain", WB_LIT("GET only\n"));
    else if (wb__eq(head->path, WB_LIT("/healthz")))
        respond(exchange, 200, "text/plain", WB_LIT("ok\n"));
    else if (wb__eq(head->path, WB_LIT("/readyz")) && m->handle_ready != NULL)
        m->handle_ready(m->ready_ctx, exchange);
    else if (!wb__eq(head->path, WB_LIT("/metrics")))
        respond(exchange, 404, "text/plain",
            WB_LIT("no such path; GET /healthz or /metrics\n"));
    else if (m->write_metrics(m->ctx, &page, &err) == WB_OK &&
             page.failed == WB_OK)
        respond(
            exchange, 200, "text/plain; version=0.0.4", wb__buf_slice(&page));
    else
        respond(exchange, 503, "text/plain",
            wb_slice(err.msg[0] != '\0' ? err.msg : "out of memory"));
    wb__buf_fini(&page);
}

enum wb_status
cli_monitor_open(
    struct cli_monitor *m, struct wb_slice address, struct wb_err *err)
{
    const struct wb__http_server_opts opts = {.env = m->cli->env,
        .loop = &m->cli->loop,
        .listen = address,
        .max_conns = 64,
        .handle = handle,
        .ctx = m};

    return wb__http_server_open(&m->server, &opts, err);
}

enum cli_exit
cli_listen(struct cli *cli, const char *address, struct cli_monitor *m)
{
    struct wb_err err = {0};
    const char *at;

    *m = (struct cli_monitor){
        .cli = cli, .write_metrics = write_outbox_metrics, .ctx = cli};
    if (cli_monitor_open(m, wb_slice(address), &err) != WB_OK)
        return cli_fail(cli, &err);
    at = wb__http_server_address(m->server);
    cli_note(cli, "listening on %s", at);
    if (cli->json)
        (void)cli_json(cli, json_pack("{s:s}", "listening", at));
    (void)fflush(stdout);
    return CLI_DONE;
}
