/* send.c - accept messages: one, or one a line.
 *
 * (1) Exit 0 means every message is on disk and survives a power cut,
 *     whatever a drain afterwards came to. */
#include "cli/cli.h"

/* ---- the message ------------------------------------------------------- */

/* Every --header as a line. */
static bool
read_headers(struct cli *cli, struct wb__buf *lines)
{
    struct wb_err err = {0};

    *lines = (struct wb__buf){.env = cli->env, .max = WB__HEADERS_BYTES};
    for (size_t i = 0; i < cli->n_values; i++) {
        struct wb_slice rest = wb_slice(cli->value[i].text), name;

        if (strcmp(cli->value[i].option->name, "header") != 0)
            continue;
        if (strpbrk(rest.ptr, "\r\n") != NULL ||
            memchr(rest.ptr, ':', rest.len) == NULL ||
            !wb__cut(&rest, ':', &name)) {
            (void)cli_usage(cli, "--header '%.60s': not NAME:VALUE on one line",
                cli->value[i].text);
            return false;
        }
        if (wb__eq_nocase(name, WB_LIT("Content-Type"))) {
            (void)cli_usage(cli, "--header Content-Type: take --content-type");
            return false;
        }
        wb__buf_add(lines, name);
        wb__buf_str(lines, ": ");
        wb__buf_add(lines, wb__trim(rest));
        wb__buf_str(lines, "\n");
    }
    if (lines->failed != WB_OK)
        (void)wb__fail(&err, lines->failed, 0,
            "the headers take more than %d bytes", WB__HEADERS_BYTES);
    else if (wb__request_headers_check(wb__buf_slice(lines), &err) == WB_OK)
        return true;
    (void)cli_fail_as(cli, CLI_USAGE, &err);
    return false;
}

/* What all messages of this call have in common. */
static bool
read_message(struct cli *cli, struct wb_message *m, struct wb__buf *headers)
{
    if (cli_has(cli, "at") && cli_has(cli, "in")) {
        (void)cli_usage(cli, "--at and --in exclude each other; give one");
        return false;
    }
    *m = (struct wb_message){.id = cli_slice(cli, "id"),
        .key = cli_slice(cli, "key"),
        .lane = cli_slice(cli, "lane"),
        .content_type = cli_slice(cli, "content-type"),
        .due_ms = cli_ms(cli, "at", 0),
        .expires_ms = cli_ms(cli, "expires", 0)};
    if (cli_has(cli, "in"))
        m->due_ms = wb__sat_add(cli->now_ms, cli_ms(cli, "in", 0));
    if (!cli_arg_kind(cli, 0, &m->kind) || !read_headers(cli, headers))
        return false;
    m->headers = wb__buf_slice(headers);
    return true;
}

/* ---- the payload ------------------------------------------------------- */

/* From the argument, or from stdin where there is none or it is "-". */
static enum cli_exit
read_payload(struct cli *cli, struct wb_message *m, struct wb__buf *b)
{
    bool named = cli->n_args > 1;
    enum cli_exit code = CLI_DONE;

    if (named && strcmp(cli->arg[1], "-") != 0) {
        m->payload = wb_slice(cli->arg[1]);
        return CLI_DONE;
    }
    if (!named && cli_is_terminal(STDIN_FILENO))
        return cli_usage(cli, "no payload; give it as an argument, or - to "
                              "type it here");
    code = cli_read_all(cli, b);
    m->payload = wb__buf_slice(b);
    return code;
}

/* ---- one message ------------------------------------------------------- */

/* Drain if that was asked for. The messages are kept whatever it comes to: a
 * failure here is told, but an exit code that makes the caller send again
 * would be worse. */
static void
drain_after(struct cli *cli, struct wb_relay *relay, json_t *object)
{
    struct wb_drain drain = {0};
    struct cli_drained out = {0};

    if (relay == NULL)
        return;
    (void)cli_drain(cli, relay, &drain, false, &out);
    if (cli->json)
        (void)json_object_set_new(
            object, "drain", out.object != NULL ? out.object : json_null());
    else if (out.text.len > 0)
        cli_note(cli, "%s", out.text.ptr);
    wb__buf_fini(&out.text);
}

static enum cli_exit
send_one(struct cli *cli, struct wb_relay *relay, struct wb_message *m)
{
    struct wb__buf payload = {0};
    struct wb_accepted a = {0};
    struct wb_err err = {0};
    enum cli_exit code = read_payload(cli, m, &payload);
    json_t *object = NULL;

    if (code == CLI_DONE && wb_outbox_enqueue(cli->box, m, &a, &err) != WB_OK)
        code = cli_fail(cli, &err);
    wb__buf_fini(&payload);
    if (code != CLI_DONE)
        return code;
    if (cli->json)
        object = json_pack("{s:s, s:o, s:b}", "id", a.id.text, "seq",
            cli_int(a.seq), "duplicate", (int)a.duplicate);
    else if (a.duplicate)
        cli_note(cli, "accepted before, nothing new");
    cli_say(cli, "%s", a.id.text);
    (void)fflush(stdout);
    drain_after(cli, relay, object);
    return cli->json ? cli_json(cli, object) : CLI_DONE;
}

/* ---- many -------------------------------------------------------------- */

static enum cli_exit
send_lines(struct cli *cli, struct wb_relay *relay, const struct wb_message *m)
{
    struct cli_counts n = {0};
    enum cli_exit code = cli_import(cli, m, cli_slice(cli, "key-prefix"), &n);
    json_t *object = NULL;

    if (code == CLI_USAGE)
        return code;
    if (cli->json)
        object = json_pack("{s:I, s:I, s:I}", "accepted",
            (json_int_t)n.accepted, "duplicates", (json_int_t)n.duplicates,
            "rejected", (json_int_t)n.rejected);
    cli_say(cli, "%llu accepted, %llu duplicates, %llu rejected",
        (unsigned long long)n.accepted, (unsigned long long)n.duplicates,
        (unsigned long long)n.rejected);
    (void)fflush(stdout);
    drain_after(cli, code == CLI_DONE ? relay : NULL, object);
    if (cli->json && cli_json(cli, object) != CLI_DONE)
        return CLI_FAILED;
    return code == CLI_DONE && n.rejected > 0 ? CLI_SOME : code;
}

/* ---- the command ------------------------------------------------------- */

static enum cli_exit
check_lines(struct cli *cli)
{
    static const char *const single[] = {"id", "key"};

    if (!cli_has(cli, "lines"))
        return !cli_has(cli, "key-prefix")
                   ? CLI_DONE
                   : cli_usage(cli, "--key-prefix goes with --lines only");
    for (size_t i = 0; i < WB_COUNT(single); i++) {
        if (cli_has(cli, single[i]))
            return cli_usage(cli,
                "--%s would be that of every line; take --key-prefix",
                single[i]);
    }
    if (cli->n_args > 1)
        return cli_usage(cli, "--lines reads the payloads from standard "
                              "input; leave the argument out");
    return CLI_DONE;
}

static enum cli_exit
run_send(struct cli *cli)
{
    struct wb_message m = {0};
    struct wb__buf headers = {0};
    struct wb_relay *relay = NULL;
    enum cli_exit code = check_lines(cli);

    if (code == CLI_DONE && !read_message(cli, &m, &headers))
        code = CLI_USAGE;
    if (code == CLI_DONE)
        code =
            cli_has(cli, "drain") ? cli_open_relay(cli, &relay) : cli_open(cli);
    if (code == CLI_DONE)
        code = cli_has(cli, "lines") ? send_lines(cli, relay, &m)
                                     : send_one(cli, relay, &m);
    wb_relay_free(relay);
    wb__buf_fini(&headers);
    return code;
}

static const struct cli_option send_options[] = {
    {"id", CLI_ID, "ID", "a UUID of your own [a new one]", false},
    {"key", CLI_NAME, "KEY",
        "the same key twice is one message, also after delivery [none]", false},
    {"lane", CLI_NAME, "LANE",
        "messages of one lane go in order, one at a time [none]", false},
    {"at", CLI_TIME, "T", "not before this time [now]", false},
    {"in", CLI_DURATION, "D", "not before so long from now [0s]", false},
    {"expires", CLI_WHEN, "T|D",
        "not after this time, or so long from now [never]", false},
    {"content-type", CLI_NAME, "TYPE", "of the payload [application/json]",
        false},
    {"header", CLI_TEXT, "N:V", "a header of this message; may be repeated",
        false},
    {"drain", CLI_FLAG, NULL, "deliver what is due afterwards", false},
    {"lines", CLI_FLAG, NULL, "each line of stdin is a payload", false},
    {"key-prefix", CLI_PREFIX, "P",
        "with --lines: P:<line number> is the key of a line", false},
    {0},
};

const struct cli_command cli_send = {
    .name = "send",
    .group = "Outbox",
    .args = "KIND [PAYLOAD|-]",
    .help = "accept a message, or one a line",
    .more = "The payload is the argument, or stdin. Exit 0 means the message "
            "is on disk, whatever\na drain afterwards came to. An import with "
            "--lines and --key-prefix can be run\nagain: what was accepted "
            "before is not accepted twice.",
    .options = send_options,
    .min_args = 1,
    .max_args = 2,
    .run = run_send,
    .exits = "4  with --lines: some lines were rejected, the others are kept",
    .examples =
        "waybill send mail.sent '{\"to\":\"ada\"}' --key order-17\n"
        "generate | waybill send report.ready - --in 5m --expires 2d\n"
        "waybill send import.row --lines --key-prefix june < june.ndjson",
};
