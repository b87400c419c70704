/* monitor.c - the server of `run --listen` and `gate --admin`: GET /healthz and
 * GET /metrics; the metrics of an outbox, and the command that prints them.
 *
 * (1) It only reads, and only for a request. */
#include "cli/cli.h"
#include "db/db.h"
#include "http/server.h"
#include "outbox/outbox_internal.h"

#define PAGE_MAX ((size_t)8 * 1024 * 1024)

/* The counts of an outbox take a walk over its table, on a worker thread. A
 * page that took longer than SLOW_US serves for SHARE times as long as it took:
 * scrapes cost a twentieth of a CPU at most. */
enum {
    SLOW_US = 50000,
    SHARE = 20
};

/* ---- metrics of an outbox ----------------------------------------------- */

struct outbox_page {
    struct wb__buf *text;
    struct wb__buf paused;
    int64_t oldest_ms, due_ms; /* first creation, first due time, or 0 */
};

static void
add_sample(struct wb__buf *b, const char *name, const char *label,
    struct wb_slice value, uint64_t n)
{
    wb__buf_fmt(b, "%s{%s=\"", name, label);
    cli_metric_label(b, value);
    wb__buf_fmt(b, "\"} %llu\n", (unsigned long long)n);
}

static void
keep_first(int64_t *first, int64_t ms)
{
    if (ms != 0 && (*first == 0 || ms < *first))
        *first = ms;
}

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct outbox_page *page = ctx;

    for (int i = 0; i < WB_STATE_DELIVERED; i++) {
        wb__buf_str(page->text, "waybill_messages{kind=\"");
        cli_metric_label(page->text, k->kind);
        wb__buf_fmt(page->text, "\",status=\"%s\"} %llu\n",
            wb_state_name((enum wb_state)i), (unsigned long long)k->n[i]);
    }
    add_sample(&page->paused, "waybill_paused", "kind", k->kind, k->paused);
    keep_first(&page->oldest_ms, k->oldest_pending_created_ms);
    if (!k->paused)
        keep_first(&page->due_ms, k->next_due_ms);
    return WB_OK;
}

static enum wb_status
add_breaker(void *ctx, const struct wb_breaker *breaker)
{
    add_sample(ctx, "waybill_breaker_open", "scope", breaker->scope,
        breaker->state != WB_CLOSED);
    return WB_OK;
}

static void
add_age(const struct cli *cli, struct wb__buf *text, const char *name,
    const char *help, int64_t since_ms)
{
    int64_t age_ms =
        since_ms == 0 ? 0 : cli->env->wall_ms(cli->env->ctx) - since_ms;

    cli_metric(text, name, "gauge", help);
    wb__buf_fmt(
        text, "%s %.3f\n", name, age_ms > 0 ? (double)age_ms / 1000 : 0);
}

static void
add_file(const struct cli *cli, struct wb__buf *text, const char *suffix,
    const char *name, const char *help)
{
    char path[sizeof(cli->db) + 8];

    (void)snprintf(path, sizeof(path), "%s%s", cli->db, suffix);
    cli_metric(text, name, "gauge", help);
    wb__buf_fmt(text, "%s %llu\n", name,
        (unsigned long long)wb__file_info_of(path).bytes);
}

enum wb_status
cli_metrics_outbox(
    const struct cli *cli, struct wb__buf *text, struct wb_err *err)
{
    struct outbox_page page = {
        .text = text, .paused = {.env = cli->env, .max = text->max}};
    enum wb_status rc;

    cli_metric(text, "waybill_messages", "gauge", "By kind and status.");
    rc = wb_outbox_count(cli->box, add_kind, &page, err);
    cli_metric(text, "waybill_paused", "gauge", "1 where a kind is paused.");
    wb__buf_add(text, wb__buf_slice(&page.paused));
    if (page.paused.failed != WB_OK)
        text->failed = page.paused.failed;
    wb__buf_fini(&page.paused);
    add_age(cli, text, "waybill_oldest_pending_seconds",
        "Age of the oldest pending message, 0 if there is none.",
        page.oldest_ms);
    add_age(cli, text, "waybill_oldest_due_seconds",
        "For how long the first due message has been due, of kinds that are "
        "not paused.",
        page.due_ms);
    if (!wb__db_is_postgres(cli->db)) {
        add_file(cli, text, "", "waybill_database_bytes", "Of the file.");
        add_file(
            cli, text, "-wal", "waybill_wal_bytes", "Of the write-ahead log.");
    }
    cli_metric(text, "waybill_breaker_open", "gauge",
        "1 where a destination's breaker is open or half-open.");
    if (rc == WB_OK)
        rc = wb_outbox_breakers(
            cli->box, (struct wb_slice){0}, add_breaker, text, err);
    return rc;
}

static enum wb_status
check_outbox(const void *ctx, struct wb_err *err)
{
    return wb__outbox_check(((const struct cli *)ctx)->box, err);
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

/* The page, and behind it what changes by the moment. */
static void
respond_metrics(struct cli_monitor *m, struct wb__exchange *exchange)
{
    struct wb__buf text = {.env = m->cli->env, .max = PAGE_MAX};

    wb__buf_add(&text, wb__buf_slice(&m->page));
    if (m->write_counters != NULL)
        m->write_counters(m->counters_ctx, &text);
    if (m->rc == WB_OK && text.failed == WB_OK)
        respond(
            exchange, 200, "text/plain; version=0.0.4", wb__buf_slice(&text));
    else
        respond(exchange, 503, "text/plain",
            wb_slice(m->err.msg[0] != '\0' ? m->err.msg : "out of memory"));
    wb__buf_fini(&text);
}

static void
make_page(struct cli_monitor *m)
{
    const struct wb_env *env = m->cli->env;
    int64_t start_us = env->mono_us(env->ctx);

    wb__buf_clear(&m->page);
    m->err = (struct wb_err){0};
    m->rc = m->write_metrics(m->ctx, &m->page, &m->err);
    if (m->rc == WB_OK)
        m->rc = m->page.failed;
    m->made_us = env->mono_us(env->ctx);
    m->took_us = m->made_us - start_us;
}

static void
on_work(uv_work_t *work)
{
    make_page(work->data);
}

static void
on_work_done(uv_work_t *work, int status)
{
    struct cli_monitor *m = work->data;
    struct wb__exchange *exchange = m->waiting;

    (void)status;
    m->waiting = NULL;
    respond_metrics(m, exchange);
}

static void
handle_metrics(struct cli_monitor *m, struct wb__exchange *exchange)
{
    int64_t now_us = m->cli->env->mono_us(m->cli->env->ctx);

    if (m->waiting != NULL) {
        respond(exchange, 503, "text/plain",
            WB_LIT("another scrape is being answered; try again\n"));
        return;
    }
    if (m->rc == WB_OK && m->took_us > SLOW_US &&
        now_us - m->made_us < SHARE * m->took_us) {
        respond_metrics(m, exchange);
        return;
    }
    m->work.data = m;
    if (m->offload &&
        uv_queue_work(&m->cli->loop, &m->work, on_work, on_work_done) == 0) {
        m->waiting = exchange;
        return;
    }
    make_page(m);
    respond_metrics(m, exchange);
}

static void
respond_health(const struct cli_monitor *m, struct wb__exchange *exchange)
{
    struct wb_err err = {0};

    if (m->check(m->check_ctx, &err) == WB_OK)
        respond(exchange, 200, "text/plain", WB_LIT("ok\n"));
    else
        respond(exchange, 503, "text/plain", wb_slice(err.msg));
}

static void
handle(void *ctx, struct wb__exchange *exchange)
{
    const struct wb__http_head *head = exchange->head;
    struct cli_monitor *m = ctx;

    if (!wb__eq(head->method, WB_LIT("GET")) &&
        !wb__eq(head->method, WB_LIT("HEAD")))
        respond(exchange, 405, "text/plain", WB_LIT("GET only\n"));
    else if (wb__eq(head->path, WB_LIT("/healthz")))
        respond_health(m, exchange);
    else if (wb__eq(head->path, WB_LIT("/readyz")) && m->handle_ready != NULL)
        m->handle_ready(m->ready_ctx, exchange);
    else if (wb__eq(head->path, WB_LIT("/metrics")))
        handle_metrics(m, exchange);
    else
        respond(exchange, 404, "text/plain",
            WB_LIT("no such path; GET /healthz or /metrics\n"));
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

    m->page = (struct wb__buf){.env = m->cli->env, .max = PAGE_MAX};
    return wb__http_server_open(&m->server, &opts, err);
}

void
cli_monitor_close(struct cli_monitor *m)
{
    while (m->waiting != NULL)
        (void)uv_run(&m->cli->loop, UV_RUN_ONCE);
    wb__http_server_close(m->server);
    m->server = NULL;
    if (m->page.env != NULL)
        wb__buf_fini(&m->page);
}

/* ---- of an outbox ------------------------------------------------------- */

static enum wb_status
write_outbox(const void *ctx, struct wb__buf *text, struct wb_err *err)
{
    return cli_metrics_outbox(ctx, text, err);
}

enum cli_exit
cli_listen(struct cli *cli, const char *address, struct cli_monitor *m)
{
    struct wb_err err = {0};
    const char *at;

    m->cli = cli;
    m->write_metrics = write_outbox;
    m->ctx = cli;
    m->offload = true;
    m->check = check_outbox;
    m->check_ctx = cli;
    if (cli_monitor_open(m, wb_slice(address), &err) != WB_OK)
        return cli_fail(cli, &err);
    at = wb__http_server_address(m->server);
    cli_note(cli, "listening on %s", at);
    if (cli->json)
        (void)cli_json(cli, json_pack("{s:s}", "listening", at));
    (void)fflush(stdout);
    return CLI_DONE;
}

/* ---- the command -------------------------------------------------------- */

struct unrouted {
    const struct cli *cli;
    uint64_t kinds;
};

static enum wb_status
count_unrouted(void *ctx, const struct wb_kind_counts *k)
{
    struct unrouted *u = ctx;

    u->kinds += u->cli->route_error.status == WB_OK &&
                cli_route(u->cli, k->kind) == NULL;
    return WB_OK;
}

static enum cli_exit
run_metrics(struct cli *cli)
{
    struct wb__buf text = {.env = cli->env, .max = PAGE_MAX};
    struct unrouted unrouted = {.cli = cli};
    struct wb_err err = {0};
    enum cli_exit code = CLI_DONE;

    cli->unwritten = NULL;
    if (cli_metrics_outbox(cli, &text, &err) != WB_OK ||
        wb_outbox_kinds(cli->box, count_unrouted, &unrouted, &err) != WB_OK)
        code = cli_fail(cli, &err);
    cli_metrics_unrouted(&text, unrouted.kinds);
    cli_metrics_build(&text);
    if (code == CLI_DONE && text.failed != WB_OK)
        code = cli_nomem(cli, "the page");
    if (code == CLI_DONE)
        (void)fwrite(text.ptr, 1, text.len, stdout);
    wb__buf_fini(&text);
    return code;
}

const struct cli_command cli_metrics_command = {
    .name = "metrics",
    .group = "Outbox",
    .args = "",
    .help = "counts and health for Prometheus",
    .more = "What run --listen serves of the database, in the text format; for "
            "the textfile\ncollector where no worker runs.",
    .run = run_metrics,
    .no_json = true,
    .opens_outbox = true,
    .examples = "waybill metrics >waybill.prom.new && mv waybill.prom.new "
                "waybill.prom",
};
