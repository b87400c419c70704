/* drain.c - one relay, for one pass or until a signal; the command drain.
 *
 * (1) SIGTERM and SIGINT end a pass as if nothing more were due: requests in
 *     flight are finished, and the report is still printed. */
#include "cli/cli.h"

static struct wb_relay *stopped_by_signal;

static void
on_stop_signal(int number)
{
    (void)number;
    wb_relay_stop(stopped_by_signal);
}

static void
on_progress(void *ctx, const struct wb_report *r)
{
    const struct cli *cli = ctx;

    cli_progress(cli, "%llu attempted, %llu confirmed, %llu to be retried",
        (unsigned long long)r->attempted, (unsigned long long)r->confirmed,
        (unsigned long long)r->retried);
}

static json_t *
report_object(const struct cli *cli, const struct wb_report *r)
{
    json_t *tally = json_object();

    for (size_t i = 0; i < r->n_tally; i++)
        (void)json_object_set_new(
            tally, r->tally[i].name, json_integer((json_int_t)r->tally[i].n));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, "
                     "s:s?, s:I, s:I, s:I, s:o, s:o}",
        "attempted", (json_int_t)r->attempted, "confirmed",
        (json_int_t)r->confirmed, "retried", (json_int_t)r->retried,
        "abandoned", (json_int_t)r->abandoned, "rejected",
        (json_int_t)r->rejected, "released", (json_int_t)r->released, "fenced",
        (json_int_t)r->fenced, "duration_ms", (json_int_t)r->duration_ms,
        "breakers_open", (json_int_t)r->breakers_open, "tally", tally, "ended",
        (json_int_t)r->ended, "reason",
        r->attempted == 0 ? wb_drained_name(r->why) : NULL, "kinds_paused",
        (json_int_t)r->kinds_paused, "left", (json_int_t)r->left,
        "kinds_unrouted", (json_int_t)r->kinds_unrouted, "routes_failed",
        cli_failed_list(cli), "next_retry_ms", cli_int(r->next_retry_ms));
}

/* "3 confirmed, 1 retried": what is not 0. */
static void
add_count(struct wb__buf *b, uint64_t n, const char *name)
{
    if (n > 0)
        wb__buf_fmt(b, "%s%llu %s", b->len > 0 ? ", " : "",
            (unsigned long long)n, name);
}

/* Why nothing was attempted, and what to do. */
static void
add_why(const struct cli *cli, const struct wb_report *r, struct wb__buf *b)
{
    static const char *const reason[] = {
        [WB_DRAIN_EMPTY] = "nothing is due",
        [WB_DRAIN_BREAKER_OPEN] = "the breaker of what is due is open, see "
                                  "waybill breaker",
        [WB_DRAIN_BUSY] = "another drain or worker delivers what is due",
        [WB_DRAIN_NOT_READY] =
            "no route is configured for what is due, see --config",
        [WB_DRAIN_UNROUTED] = "no route is for the kinds that wait, see "
                              "waybill status",
    };
    const char *what = reason[r->why];
    struct wb_err err = {0};
    size_t n_routes = 0;

    if (cli->config != NULL)
        (void)wb_config_routes(cli->config, &n_routes);
    if (r->why == WB_DRAIN_NOT_READY && n_routes > 0)
        (void)wb_config_ready(cli->config, &err);
    if (r->why == WB_DRAIN_NOT_READY && n_routes > 0)
        what = "no route for what is due can start";
    if (r->why == WB_DRAIN_EMPTY && r->kinds_paused > 0)
        what = "what is due is paused, see waybill status";
    wb__buf_fmt(b, "; %s: %s", wb_drained_name(r->why),
        err.msg[0] != '\0' ? err.msg : what);
}

static void
sentence(const struct cli *cli, const struct wb_report *r, struct wb__buf *b)
{
    int64_t wait_ms =
        wb__sat_sub(r->next_retry_ms, cli->env->wall_ms(cli->env->ctx));
    char span[32];

    *b = (struct wb__buf){.env = cli->env, .max = 64 * 1024};
    if (r->attempted == 0)
        wb__buf_str(b, "nothing attempted");
    add_count(b, r->confirmed, "confirmed");
    add_count(b, r->retried, "to be retried");
    if (wait_ms > 0) /* of a worker the first may have been long ago */
        wb__buf_fmt(b, " (the first in %s)", cli_span(wait_ms, span));
    add_count(b, r->abandoned, "abandoned");
    add_count(b, r->rejected, "rejected");
    add_count(b, r->released, "released");
    add_count(b, r->fenced, "fenced");
    add_count(b, r->left, "left in flight");
    add_count(b, r->ended, "ended without an attempt");
    add_count(b, r->breakers_open,
        r->breakers_open == 1 ? "breaker open" : "breakers open");
    add_count(b, r->kinds_paused,
        r->kinds_paused == 1 ? "kind paused" : "kinds paused");
    add_count(b, r->kinds_unrouted,
        r->kinds_unrouted == 1 ? "kind without a route"
                               : "kinds without a route");
    wb__buf_fmt(b, "; took %s", cli_span(r->duration_ms, span));
    if (r->attempted == 0)
        add_why(cli, r, b);
    for (size_t i = 0; i < r->n_tally; i++)
        wb__buf_fmt(b, "; %s %llu", r->tally[i].name,
            (unsigned long long)r->tally[i].n);
}

json_t *
cli_last_drain(const struct cli *cli)
{
    char text[8192];
    json_t *last = NULL;

    if (wb_relay_last(cli->db, text, sizeof(text), NULL) == WB_OK)
        last = json_loads(text, 0, NULL);
    return last != NULL ? last : json_null();
}

enum cli_exit
cli_drain(struct cli *cli, struct wb_relay *relay, struct wb_drain *drain,
    bool forever, struct cli_drained *out)
{
    struct wb_report report = {0};
    struct wb_err err = {0};
    enum wb_status rc;

    drain->progress = on_progress;
    drain->ctx = cli;
    stopped_by_signal = relay;
    cli_on_stop_signal(on_stop_signal, SA_RESTART);
    rc = (forever ? wb_relay_run : wb_relay_drain)(relay, drain, &report, &err);
    cli_on_stop_signal(SIG_DFL, 0);
    cli_progress(cli, "%s", "");
    if (rc != WB_OK && report.attempted == 0)
        return cli_fail_no_usage(cli, &err);
    if (cli->json)
        out->object = report_object(cli, &report);
    else
        sentence(cli, &report, &out->text);
    if (rc != WB_OK) /* not "temporary": that is where nothing was attempted */
        return cli_fail_as(cli, CLI_FAILED, &err);
    if (report.attempted == 0)
        return CLI_NOTHING;
    return report.confirmed == report.attempted ? CLI_DONE : CLI_SOME;
}

enum cli_exit
cli_drain_and_print(struct cli *cli, struct wb_relay *relay,
    struct wb_drain *drain, bool forever)
{
    struct cli_drained out = {0};
    enum cli_exit code = cli_drain(cli, relay, drain, forever, &out);

    if (out.object != NULL)
        (void)cli_json(cli, out.object);
    else if (out.text.len > 0)
        cli_report(cli, "%s", out.text.ptr);
    wb__buf_fini(&out.text);
    return code;
}

/* Quiet, but with --verbose: then each event is a line on stderr. */
static enum cli_exit
run_drain(struct cli *cli)
{
    struct wb_drain drain = {.kind = cli_slice(cli, "kind"),
        .concurrency = (uint32_t)cli_number(cli, "concurrency", 0),
        .max = cli_number(cli, "max", 0),
        .for_ms = cli_ms(cli, "for", 0)};
    static struct cli_log log; /* until the loop is closed */
    struct wb_relay *relay = NULL;
    enum cli_exit code;
    size_t failed = 0;
    char text[300];

    if (cli->verbose) {
        cli->on_event = cli_log_event;
        cli->event_ctx = &log;
    }
    code = cli_open(cli, &relay);
    if (code == CLI_DONE)
        failed = cli_failed_routes(cli);
    if (code == CLI_DONE && cli_proxy_unused(cli, text, sizeof(text)))
        cli_note(cli, "note: %s", text);
    if (code == CLI_DONE && cli->verbose)
        cli_log_open_verbose(cli, &log, &cli->loop);
    if (code == CLI_DONE)
        code = cli_drain_and_print(cli, relay, &drain, false);
    cli_log_close(&log);
    wb_relay_free(relay);
    return failed > 0 && (code == CLI_DONE || code == CLI_NOTHING) ? CLI_SOME
                                                                   : code;
}

static const struct cli_option drain_options[] = {
    {"kind", CLI_KIND, "K", "messages of this kind alone [all with a route]"},
    {"max", CLI_COUNT, "N", "messages attempted at most [all that are due]"},
    {"for", CLI_SPAN, "D", "start no more after this time [no limit]"},
    {"concurrency", CLI_BATCH, "N",
        "limit of drains of this database, and of requests in flight "
        "[1 drain; as the routes say]"},
    {0},
};

const struct cli_command cli_drain_once = {
    .name = "drain",
    .group = "Outbox",
    .args = "[--kind K] [--max N] [--for D] [--concurrency N]",
    .help = "deliver what is due, once",
    .more = "One bounded pass: each message is attempted at most once. Only "
            "kinds that have a\nroute in the configuration are taken.",
    .options = drain_options,
    .run = run_drain,
    .needs_routes = true,
    .exits =
        "3  nothing attempted: empty, breaker-open, busy, unrouted, not-ready\n"
        "4  some messages were not confirmed, or a route cannot start",
    .examples = "waybill drain\n"
                "waybill drain --kind mail.sent --max 100 --for 30s\n"
                "waybill --json drain | jq .confirmed",
};
