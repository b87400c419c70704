/* drain.c - drain and run: one relay, for one pass or until a signal.
 *
 * (1) SIGTERM and SIGINT end a pass as if nothing more were due: requests in
 *     flight end, and the report is still printed.
 * (2) A second SIGINT ends the process at once, so that nobody has to wait for
 * a slow receiver. A second SIGTERM does not: timeout(1) sends two. */
#include <signal.h>

#include "cli/cli.h"
#include "http/server.h"

static struct wb_relay *stopped_by_signal;

static void
on_signal(int number)
{
    if (number == SIGINT)
        (void)signal(number, SIG_DFL);
    wb_relay_stop(stopped_by_signal);
}

struct caught {
    int number;
    void (*before)(int number);
};

/* An ignored signal stays ignored: a background job does not get the terminal's
 * interrupts. */
static void
signal_set(struct caught *c)
{
    c->before = signal(c->number, on_signal);
    if (c->before == SIG_IGN)
        (void)signal(c->number, SIG_IGN);
}

static void
signal_unset(const struct caught *c)
{
    (void)signal(c->number, c->before);
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
tally_object(const struct wb_report *r)
{
    json_t *tally = json_object();

    for (size_t i = 0; i < r->n_tally; i++)
        (void)json_object_set_new(
            tally, r->tally[i].name, json_integer((json_int_t)r->tally[i].n));
    return tally;
}

static json_t *
report_object(const struct wb_report *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, "
                     "s:s?, s:I}",
        "attempted", (json_int_t)r->attempted, "confirmed",
        (json_int_t)r->confirmed, "retried", (json_int_t)r->retried,
        "abandoned", (json_int_t)r->abandoned, "rejected",
        (json_int_t)r->rejected, "released", (json_int_t)r->released, "fenced",
        (json_int_t)r->fenced, "duration_ms", (json_int_t)r->duration_ms,
        "breakers_open", (json_int_t)r->breakers_open, "tally", tally_object(r),
        "ended", (json_int_t)r->ended, "reason",
        r->attempted == 0 ? wb_drained_name(r->why) : NULL, "kinds_paused",
        (json_int_t)r->kinds_paused);
}

/* "3 confirmed, 1 retried": what is not 0. */
static void
add_count(struct wb__buf *b, uint64_t n, const char *name)
{
    if (n > 0)
        wb__buf_fmt(b, "%s%llu %s", b->len > 0 ? ", " : "",
            (unsigned long long)n, name);
}

/* Why nothing was attempted, and what to do about it. */
static void
add_why(const struct cli *cli, const struct wb_report *r, struct wb__buf *b)
{
    static const char *const reason[] = {
        [WB_DRAIN_EMPTY] = "nothing is due",
        [WB_DRAIN_BREAKER_OPEN] = "what is due waits behind a breaker, see "
                                  "waybill breaker",
        [WB_DRAIN_BUSY] = "a drain or worker has this database, and will look "
                          "again",
        [WB_DRAIN_NOT_READY] = "no route for it is configured, see --config",
    };
    const char *what = reason[r->why];
    struct wb_err err = {0};
    size_t n_routes = 0;

    if (cli->config != NULL)
        (void)wb_config_routes(cli->config, &n_routes);
    if (r->why == WB_DRAIN_NOT_READY && n_routes > 0)
        (void)wb_config_ready(cli->config, &err);
    if (r->why == WB_DRAIN_EMPTY && r->kinds_paused > 0)
        what = "what is due is paused, see waybill status";
    wb__buf_fmt(b, "; %s: %s", wb_drained_name(r->why),
        err.msg[0] != '\0' ? err.msg : what);
}

static void
sentence(const struct cli *cli, const struct wb_report *r, struct wb__buf *b)
{
    char span[32];

    *b = (struct wb__buf){.env = cli->env, .max = 64 * 1024};
    if (r->attempted == 0)
        wb__buf_str(b, "nothing attempted");
    add_count(b, r->confirmed, "confirmed");
    add_count(b, r->retried, "to be retried");
    add_count(b, r->abandoned, "abandoned");
    add_count(b, r->rejected, "rejected");
    add_count(b, r->released, "given back");
    add_count(b, r->fenced, "fenced");
    add_count(b, r->ended, "ended without an attempt");
    add_count(b, r->breakers_open, "breakers open");
    add_count(b, r->kinds_paused, "kinds paused");
    wb__buf_fmt(b, " in %s", cli_span(r->duration_ms, span));
    if (r->attempted == 0)
        add_why(cli, r, b);
    for (size_t i = 0; i < r->n_tally; i++)
        wb__buf_fmt(b, "; %s %llu", r->tally[i].name,
            (unsigned long long)r->tally[i].n);
}

json_t *
cli_last_drain(const struct cli *cli)
{
    char text[2048];
    json_t *last = NULL;

    if (wb_relay_last(cli->db, text, sizeof(text), NULL) == WB_OK)
        last = json_loads(text, 0, NULL);
    return last != NULL ? last : json_null();
}

static enum cli_exit
drained(const struct wb_report *r)
{
    if (r->attempted == 0)
        return CLI_NOTHING;
    return r->confirmed == r->attempted ? CLI_DONE : CLI_SOME;
}

enum cli_exit
cli_drain(struct cli *cli, struct wb_relay *relay, struct wb_drain *drain,
    bool forever, struct cli_drained *out)
{
    struct caught term = {.number = SIGTERM}, interrupt = {.number = SIGINT};
    struct wb_report report = {0};
    struct wb_err err = {0};
    enum wb_status rc;

    drain->progress = on_progress;
    drain->ctx = cli;
    stopped_by_signal = relay;
    signal_set(&term);
    signal_set(&interrupt);
    rc = (forever ? wb_relay_run : wb_relay_drain)(relay, drain, &report, &err);
    signal_unset(&interrupt);
    signal_unset(&term);
    cli_progress(cli, "%s", "");
    if (rc != WB_OK)
        return cli_fail_beyond(cli, &err);
    if (cli->json)
        out->object = report_object(&report);
    else
        sentence(cli, &report, &out->text);
    return drained(&report);
}

/* ---- the commands ------------------------------------------------------ */

static enum cli_exit
drain_and_print(struct cli *cli, struct wb_relay *relay, bool forever)
{
    struct wb_drain drain = {.kind = cli_slice(cli, "kind"),
        .concurrency = (uint32_t)cli_number(cli, "concurrency", 0)};
    struct cli_drained out = {0};
    enum cli_exit code;

    if (!forever) {
        drain.max = cli_number(cli, "max", 0);
        drain.for_ms = cli_ms(cli, "for", 0);
    }
    code = cli_drain(cli, relay, &drain, forever, &out);
    if (out.object != NULL)
        (void)cli_json(cli, out.object);
    else if (out.text.len > 0)
        cli_say(cli, "%s", out.text.ptr);
    wb__buf_fini(&out.text);
    return code;
}

static enum cli_exit
run_drain(struct cli *cli)
{
    struct wb_relay *relay = NULL;
    enum cli_exit code = cli_open_relay(cli, &relay);

    if (code == CLI_DONE)
        code = drain_and_print(cli, relay, false);
    wb_relay_free(relay);
    return code;
}

/* A worker that was stopped has done its task, whatever it delivered. */
static enum cli_exit
run_run(struct cli *cli)
{
    const char *listen = cli_text(cli, "listen");
    struct cli_monitor monitor = {0};
    struct wb_relay *relay = NULL;
    enum cli_exit code = cli_open_relay(cli, &relay);

    if (code == CLI_DONE && listen != NULL)
        code = cli_listen(cli, listen, &monitor);
    if (code == CLI_DONE)
        code = drain_and_print(cli, relay, true);
    wb__http_server_close(monitor.server);
    wb_relay_free(relay);
    return code == CLI_NOTHING || code == CLI_SOME ? CLI_DONE : code;
}

static const struct cli_option drain_options[] = {
    {"kind", CLI_KIND, "K", "messages of this kind alone [all with a route]",
        false},
    {"max", CLI_COUNT, "N", "messages attempted at most [all that are due]",
        false},
    {"for", CLI_SPAN, "D", "take no more after this long [no limit]", false},
    {"concurrency", CLI_BATCH, "N",
        "drains of this database at once, and requests in flight "
        "[1 drain; the routes decide]",
        false},
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
    .exits = "3  nothing attempted: empty, breaker-open, busy, not-ready\n"
             "4  some messages were not confirmed",
    .examples = "waybill drain\n"
                "waybill drain --kind mail.sent --max 100 --for 30s\n"
                "waybill --json drain | jq .confirmed",
};

static const struct cli_option run_options[] = {
    {"kind", CLI_KIND, "K", "messages of this kind alone [all with a route]",
        false},
    {"concurrency", CLI_BATCH, "N",
        "workers of this database at once, and requests in flight "
        "[1 worker; the routes decide]",
        false},
    {"listen", CLI_TEXT, "ADDR",
        "answer GET /metrics and /healthz there; host:port or :port [off]",
        false},
    {0},
};

const struct cli_command cli_run = {
    .name = "run",
    .group = "Outbox",
    .args = "[--kind K] [--concurrency N] [--listen ADDR]",
    .help = "deliver until stopped",
    .more =
        "The worker. It wakes on new messages, due times and breaker ends. "
        "SIGTERM and\nSIGINT finish what is in flight, print the counts and "
        "end it with 0.",
    .options = run_options,
    .run = run_run,
    .examples = "waybill run\n"
                "waybill run --listen 127.0.0.1:9464",
};
