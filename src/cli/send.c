/* send.c - accept messages: one, or one a line.
 *
 * (1) Exit 0 means that every message is on disk and survives a power cut,
 *     whatever the outcome of a drain afterwards. */
#include "cli/cli.h"
#include "outbox/outbox_internal.h"

#define TIME_MAX_MS INT64_C(253402300799999) /* the last of the year 9999 */

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
            (void)cli_usage(cli, "--header Content-Type: give --content-type");
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
        .kind = wb_slice(cli->arg[0]),
        .key = cli_slice(cli, "key"),
        .lane = cli_slice(cli, "lane"),
        .content_type = cli_slice(cli, "content-type"),
        .due_ms = cli_ms(cli, "at", 0),
        .expires_ms = cli_ms(cli, "expires", 0)};
    if (cli_has(cli, "in"))
        m->due_ms = wb__sat_add(cli->now_ms, cli_ms(cli, "in", 0));
    if (m->due_ms > TIME_MAX_MS || m->expires_ms > TIME_MAX_MS) {
        (void)cli_usage(cli, "--%s: give a time before the end of year 9999",
            m->due_ms > TIME_MAX_MS ? "in" : "expires");
        return false;
    }
    if (m->expires_ms != 0 && m->expires_ms <= cli->now_ms) {
        (void)cli_usage(
            cli, "--expires: it has expired already; give a time to come");
        return false;
    }
    if (!read_headers(cli, headers))
        return false;
    m->headers = wb__buf_slice(headers);
    return true;
}

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

/* Drain if relay is not NULL. A failure is printed, but does not change the
 * exit code: the messages are accepted, and the caller must not send them
 * again. */
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

/* What is accepted without a route waits until it has one. */
static void
note_route(struct cli *cli, const struct wb_message *m)
{
    if (cli->n_routes > 0 && cli_route(cli, m->kind) == NULL)
        cli_note(cli,
            "note: no route of the configuration is for %.*s; it "
            "waits until one is",
            WB_SHOW(m->kind));
}

static enum cli_exit
send_one(struct cli *cli, struct wb_relay *relay, struct wb_message *m)
{
    struct wb__buf payload = {0};
    struct wb_accepted a = {0};
    struct wb_err err = {0};
    enum cli_exit code = read_payload(cli, m, &payload);
    json_t *object = NULL;
    static char unwritten[80];

    if (code == CLI_DONE && wb_outbox_enqueue(cli->box, m, &a, &err) != WB_OK)
        code = cli_fail(cli, &err);
    if (code == CLI_DONE)
        cli_note_payload(cli, m);
    wb__buf_fini(&payload);
    if (code != CLI_DONE)
        return code;
    if (cli->json)
        object = json_pack("{s:s, s:o, s:b}", "id", a.id.text, "seq",
            cli_int(a.seq), "duplicate", (int)a.duplicate);
    else if (a.duplicate)
        cli_note(cli, "accepted before, nothing new");
    (void)snprintf(unwritten, sizeof(unwritten),
        "%s is accepted; do not send it again", a.id.text);
    cli->unwritten = unwritten;
    cli_report(cli, "%s", a.id.text);
    (void)fflush(stdout);
    drain_after(cli, relay, object);
    return cli->json ? cli_json(cli, object) : CLI_DONE;
}

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
    cli_report(cli, "%llu accepted, %llu duplicate%s, %llu rejected",
        (unsigned long long)n.accepted, (unsigned long long)n.duplicates,
        n.duplicates == 1 ? "" : "s", (unsigned long long)n.rejected);
    (void)fflush(stdout);
    drain_after(cli, code == CLI_DONE ? relay : NULL, object);
    if (cli->json && cli_json(cli, object) != CLI_DONE)
        return CLI_FAILED;
    return code == CLI_DONE && n.rejected > 0 ? CLI_SOME : code;
}

static enum cli_exit
check_lines(struct cli *cli)
{
    if (!cli_has(cli, "lines"))
        return !cli_has(cli, "key-prefix")
                   ? CLI_DONE
                   : cli_usage(cli, "--key-prefix needs --lines");
    if (cli_has(cli, "id") || cli_has(cli, "key"))
        return cli_usage(cli,
            "--%s would be that of every line; give --key-prefix",
            cli_has(cli, "id") ? "id" : "key");
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
        code = cli_open(cli, cli_has(cli, "drain") ? &relay : NULL);
    if (code == CLI_DONE && cli_has(cli, "in")) /* by the database's clock */
        m.due_ms = wb__sat_add(wb__outbox_now(cli->box), cli_ms(cli, "in", 0));
    if (code == CLI_DONE)
        code = cli_has(cli, "lines") ? send_lines(cli, relay, &m)
                                     : send_one(cli, relay, &m);
    if (code == CLI_DONE)
        note_route(cli, &m);
    wb_relay_free(relay);
    wb__buf_fini(&headers);
    return code;
}

static const struct cli_option send_options[] = {
    {"id", CLI_ID, "ID", "a UUID of your own [a new one]"},
    {"key", CLI_NAME, "KEY",
        "two messages with the same key are one, also after delivery [none]"},
    {"lane", CLI_NAME, "LANE",
        "messages of one lane are delivered in order, one at a time [none]"},
    {"at", CLI_TIME, "T", "not before this time [now]"},
    {"in", CLI_DURATION, "D", "not before this much time has passed [0s]"},
    {"expires", CLI_WHEN, "T|D",
        "not after this time, or this much time from now [never]"},
    {"content-type", CLI_NAME, "TYPE", "of the payload [application/json]"},
    {"header", CLI_TEXT, "N:V", "a header of this message; may be repeated"},
    {"drain", CLI_FLAG, NULL, "deliver what is due afterwards"},
    {"lines", CLI_FLAG, NULL, "each line of stdin is a payload"},
    {"key-prefix", CLI_PREFIX, "P",
        "with --lines: P:<line number> is the key of a line"},
    {0},
};

const struct cli_command cli_send = {
    .name = "send",
    .group = "Outbox",
    .args = "KIND [PAYLOAD|-]",
    .arg_type = CLI_KIND,
    .help = "accept a message, or one a line",
    .more = "The payload is the argument, or stdin. Exit 0 means the message "
            "is on disk, whatever\nthe outcome of a drain afterwards. An "
            "import with "
            "--lines and --key-prefix can be\nrun again: what was accepted "
            "before is not accepted twice.",
    .options = send_options,
    .n_args = 1,
    .optional_args = 1,
    .run = run_send,
    .exits = "4  with --lines: some lines were rejected, the others are kept",
    .examples =
        "waybill send mail.sent '{\"to\":\"ada\"}' --key order-17\n"
        "generate | waybill send report.ready - --in 5m --expires 2d\n"
        "waybill send import.row --lines --key-prefix june < june.ndjson",
};
