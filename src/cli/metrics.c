/* metrics.c - what `run --listen` answers: GET /healthz and GET /metrics.
 *
 * (1) It only reads, and it reads when it is asked: nothing is kept. */
#include "cli/cli.h"
#include "http/server.h"

#define PAGE_MAX ((size_t)8 * 1024 * 1024)

struct page {
    const struct cli *cli;
    struct wb__buf text;
    int64_t oldest_ms;
};

/* A label's value, as the text format of Prometheus wants it. */
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
add_head(struct wb__buf *b, const char *name, const char *help)
{
    wb__buf_fmt(b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
}

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct page *page = ctx;

    for (int i = 0; i < WB_STATE_DELIVERED; i++) {
        wb__buf_str(&page->text, "waybill_messages{kind=\"");
        add_label(&page->text, k->kind);
        wb__buf_fmt(&page->text, "\",status=\"%s\"} %llu\n",
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
    struct page *page = ctx;

    wb__buf_str(&page->text, "waybill_breaker_open{scope=\"");
    add_label(&page->text, breaker->scope);
    wb__buf_fmt(&page->text, "\"} %d\n", breaker->state == WB_CLOSED ? 0 : 1);
    return WB_OK;
}

static enum wb_status
write_page(struct page *page, struct wb_err *err)
{
    const struct cli *cli = page->cli;
    const struct wb_env *env = cli->env;
    enum wb_status rc;
    double age_s = 0;

    add_head(&page->text, "waybill_messages", "Messages by kind and status.");
    rc = wb_outbox_count(cli->box, add_kind, page, err);
    if (page->oldest_ms != 0)
        age_s = (double)(env->wall_ms(env->ctx) - page->oldest_ms) / 1000;
    add_head(&page->text, "waybill_oldest_pending_seconds",
        "Age of the oldest pending message, 0 if there is none.");
    wb__buf_fmt(&page->text, "waybill_oldest_pending_seconds %.3f\n",
        age_s > 0 ? age_s : 0);
    add_head(&page->text, "waybill_breaker_open",
        "1 where a destination's breaker is open or half-open.");
    if (rc == WB_OK)
        rc = wb_outbox_breakers(
            cli->box, (struct wb_slice){0}, add_breaker, page, err);
    return rc == WB_OK ? page->text.failed : rc;
}

static void
answer(struct wb__exchange *call, int status, const char *type,
    struct wb_slice body)
{
    char headers[120];

    (void)snprintf(headers, sizeof(headers),
        "Content-Type: %s\nCache-Control: no-store\n%s", type,
        status == 405 ? "Allow: GET, HEAD\n" : "");
    wb__exchange_respond(call,
        &(struct wb__response){
            .status = status, .headers = wb_slice(headers), .body = body});
}

static void
answer_metrics(const struct cli *cli, struct wb__exchange *call)
{
    struct page page = {.cli = cli, .text = {.env = cli->env, .max = PAGE_MAX}};
    struct wb_err err = {0};

    if (write_page(&page, &err) == WB_OK)
        answer(
            call, 200, "text/plain; version=0.0.4", wb__buf_slice(&page.text));
    else
        answer(call, 503, "text/plain",
            wb_slice(err.msg[0] != '\0' ? err.msg : "out of memory"));
    wb__buf_fini(&page.text);
}

static void
handle(void *ctx, struct wb__exchange *call)
{
    const struct wb__http_head *head = call->head;

    if (!wb__eq(head->method, WB_LIT("GET")) &&
        !wb__eq(head->method, WB_LIT("HEAD")))
        answer(call, 405, "text/plain", WB_LIT("GET only\n"));
    else if (wb__eq(head->path, WB_LIT("/healthz")))
        answer(call, 200, "text/plain", WB_LIT("ok\n"));
    else if (wb__eq(head->path, WB_LIT("/metrics")))
        answer_metrics(ctx, call);
    else
        answer(call, 404, "text/plain",
            WB_LIT("there are /healthz and /metrics\n"));
}

enum cli_exit
cli_listen(
    struct cli *cli, const char *address, struct wb__http_server **server)
{
    struct wb__http_server_opts opts = {.env = cli->env,
        .loop = &cli->loop,
        .listen = wb_slice(address),
        .max_conns = 64,
        .handle = handle,
        .ctx = cli};
    struct wb_err err = {0};

    if (wb__http_server_open(server, &opts, &err) != WB_OK)
        return cli_fail(cli, &err);
    cli_note(cli, "listening on %s", wb__http_server_address(*server));
    if (cli->json)
        (void)cli_json(cli,
            json_pack("{s:s}", "listening", wb__http_server_address(*server)));
    (void)fflush(stdout);
    return CLI_DONE;
}
