/* receiver.c - the command around sink.c: a receiver to try things on. */
#include "cli/cli.h"
#include "cli/sink.h"

static void
on_ready(void *ctx, const char *address, uint64_t seed)
{
    const struct cli *cli = ctx;

    cli_say(
        cli, "listening on %s, seed %llu", address, (unsigned long long)seed);
    if (cli->json)
        (void)cli_json(
            (struct cli *)ctx, json_pack("{s:s, s:s}", "listening", address,
                                   "seed", cli_u64(seed, (char[24]){0})));
    (void)fflush(stdout);
}

static enum cli_exit
print_stats(struct cli *cli, const struct sink_stats *stats)
{
    char text[256];

    if (!cli->json)
        cli_say(cli, "%llu received, %llu applied, %llu duplicates",
            (unsigned long long)stats->received,
            (unsigned long long)stats->applied,
            (unsigned long long)stats->duplicates);
    else
        puts(sink_stats_text(stats, text));
    return CLI_DONE;
}

static enum cli_exit
run_sink(struct cli *cli)
{
    struct sink_opts opts = {.env = cli->env,
        .listen = cli_text(cli, "listen"),
        .into = cli_text(cli, "into"),
        .fail_ppm = (uint32_t)cli_number(cli, "fail", 0),
        .drop_ppm = (uint32_t)cli_number(cli, "drop", 0),
        .delay_ms = cli_ms(cli, "delay", 0),
        .status = (int)cli_number(cli, "status", 0),
        .retry_after_ms = cli_ms(cli, "retry-after", 0),
        .reply = cli_text(cli, "reply"),
        .seed = cli_number(cli, "seed", 0),
        .seeded = cli_has(cli, "seed"),
        .ready = on_ready,
        .ctx = cli};
    struct sink_stats stats = {0};
    struct wb_err err = {0};

    if (sink_run(&opts, &stats, &err) != WB_OK)
        return err.status == WB_INVALID ? cli_fail(cli, &err) /* the address */
                                        : cli_fail_beyond(cli, &err);
    return print_stats(cli, &stats);
}

static const struct cli_option sink_options[] = {
    {"listen", CLI_TEXT, "ADDR", "host:port, or :port; required", true},
    {"into", CLI_FILE, "FILE", "one line of JSON an effect; required", true},
    {"fail", CLI_SHARE, "P", "answer 500 before applying, this share [0]",
        false},
    {"drop", CLI_SHARE, "P", "apply and hang up unanswered, this share [0]",
        false},
    {"delay", CLI_DURATION, "D", "answer so long after applying [0s]", false},
    {"status", CLI_HTTP_STATUS, "N", "answer this always, applying nothing",
        false},
    {"retry-after", CLI_DURATION, "D", "ask for it where not accepted [no]",
        false},
    {"reply", CLI_TEXT, "JSON", "body of 200 answers [the counts]", false},
    {"seed", CLI_TOKEN, "N", "of the chances, to repeat a run [random]", false},
    {0},
};

const struct cli_command cli_sink = {
    .name = "sink",
    .group = "Trying out",
    .args = "--listen ADDR --into FILE [--fail P] [--drop P] [--delay D] ...",
    .help = "a receiver that applies each id once",
    .more = "For trying and testing. SIGTERM ends it and prints the counts; "
            "GET /stats shows\nthem. It reads FILE's ids back when it starts.",
    .options = sink_options,
    .run = run_sink,
    .examples =
        "waybill sink --listen 127.0.0.1:8080 --into effects.ndjson\n"
        "waybill sink --listen :8080 --into e.ndjson --fail 0.2 --drop 5%",
};
