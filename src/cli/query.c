/* query.c - status, list and show; they change nothing. */
#include "cli/cli.h"

struct totals {
    struct cli *cli;
    uint64_t n[WB_STATES];
    int64_t oldest_ms; /* creation of the oldest pending; 0: none */
    json_t *by_kind, *paused, *unrouted, *breakers, *lanes;
    struct cli_table table;
};

static void
set_by_kind(json_t *object, struct wb_slice kind, json_t *value)
{
    (void)json_object_setn_new_nocheck(object, kind.ptr, kind.len, value);
}

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct totals *c = ctx;
    json_t *counts = c->cli->json ? json_object() : NULL;
    uint64_t waiting = k->n[WB_STATE_PENDING] + k->n[WB_STATE_HELD] +
                       k->n[WB_STATE_PROCESSING];
    bool unrouted = waiting > 0 && c->cli->route_error.status == WB_OK &&
                    cli_route(c->cli, k->kind) == NULL;

    for (int i = 0; i < WB_STATES; i++) {
        c->n[i] += k->n[i];
        (void)json_object_set_new(counts, wb_state_name((enum wb_state)i),
            json_integer((json_int_t)k->n[i]));
    }
    if (k->oldest_pending_created_ms != 0 &&
        (c->oldest_ms == 0 || k->oldest_pending_created_ms < c->oldest_ms))
        c->oldest_ms = k->oldest_pending_created_ms;
    if (k->paused)
        (void)json_array_append_new(c->paused, cli_str(k->kind));
    if (!c->cli->json) {
        cli_cell_slice(&c->table, k->kind);
        for (int i = 0; i < WB_STATE_DELIVERED; i++)
            cli_cell(&c->table, "%llu", (unsigned long long)k->n[i]);
        cli_cell(&c->table, "%s%s%s", k->paused ? "paused" : "",
            k->paused && unrouted ? ", " : "", unrouted ? "no route" : "");
        cli_row(&c->table);
        return WB_OK;
    }
    set_by_kind(c->by_kind, k->kind, counts);
    if (unrouted)
        set_by_kind(c->unrouted, k->kind, json_integer((json_int_t)waiting));
    return WB_OK;
}

static enum wb_status
add_breaker(void *ctx, const struct wb_breaker *b)
{
    struct totals *c = ctx;
    char line[4 * 255 + 1], when[32];

    (void)json_array_append_new(c->breakers, cli_breaker_object(b));
    (void)wb__one_line(b->scope, 255, line);
    cli_print(c->cli, "breaker %s is %s after %u failure%s%s%s", line,
        wb_breaker_state_name(b->state), b->failures,
        b->failures == 1 ? "" : "s",
        b->state == WB_OPEN ? "; the next attempt is " : "",
        b->state == WB_OPEN ? cli_when(c->cli, b->open_until_ms, when) : "");
    return WB_OK;
}

/* An array, also where the last drain has none. */
static json_t *
failed_routes(json_t *last_drain)
{
    json_t *failed = json_object_get(last_drain, "routes_failed");

    return failed != NULL ? json_deep_copy(failed) : json_array();
}

static json_t *
status_object(struct totals *c, json_t *last_drain)
{
    json_int_t age = wb__sat_sub(c->cli->now_ms, c->oldest_ms);

    return json_pack("{s:I, s:I, s:I, s:I, s:O, s:o, s:O, s:O, s:O, s:O, "
                     "s:{s:i, s:i}, s:o, s:o, s:O}",
        "pending", (json_int_t)c->n[WB_STATE_PENDING], "held",
        (json_int_t)c->n[WB_STATE_HELD], "processing",
        (json_int_t)c->n[WB_STATE_PROCESSING], "abandoned",
        (json_int_t)c->n[WB_STATE_ABANDONED], "by_kind", c->by_kind,
        "oldest_pending_ms",
        c->oldest_ms == 0 ? json_null() : json_integer(age > 0 ? age : 0),
        "breakers", c->breakers, "paused", c->paused, "unrouted", c->unrouted,
        "last_drain", last_drain, "spill", "files", 0, "bad", 0,
        "routes_failed", failed_routes(last_drain), "config_error",
        cli_str(wb_slice(c->cli->route_error.msg)), "lanes", c->lanes);
}

/* As the last drain or worker found them: this command may have another
 * environment. */
static void
print_failed_routes(const struct cli *cli, json_t *failed)
{
    json_t *route;
    size_t i;

    json_array_foreach(failed, i, route)
    {
        cli_print(cli,
            "route %s cannot start, its messages wait: %s; put it right, then "
            "drain, or restart the worker",
            json_string_value(json_object_get(route, "kind")),
            json_string_value(json_object_get(route, "error")));
    }
}

static enum wb_status
add_lanes(struct totals *c, struct wb_err *err)
{
    struct cli_lanes lanes = {c->cli, c->paused, c->breakers, c->lanes};

    return cli_print_lanes(&lanes, err);
}

static enum cli_exit
run_status(struct cli *cli)
{
    static const char *const head[] = {
        "KIND", "PENDING", "HELD", "PROCESSING", "ABANDONED", ""};
    struct totals c = {.cli = cli};
    struct wb_err err = {0};
    enum cli_exit code = CLI_DONE;
    char span[32], when[32];
    json_t *last;

    cli->unwritten = NULL;
    c.by_kind = json_object();
    c.unrouted = json_object();
    c.paused = json_array();
    c.breakers = json_array();
    c.lanes = json_array();
    cli_table_begin(cli, &c.table, head, WB_COUNT(head));
    if (wb_outbox_count(cli->box, add_kind, &c, &err) != WB_OK)
        code = cli_fail(cli, &err);
    if (cli_table_end(cli, &c.table) != CLI_DONE)
        code = CLI_FAILED;
    if (code == CLI_DONE)
        cli_print(cli,
            "%llu pending, %llu held, %llu processing, %llu abandoned",
            (unsigned long long)c.n[WB_STATE_PENDING],
            (unsigned long long)c.n[WB_STATE_HELD],
            (unsigned long long)c.n[WB_STATE_PROCESSING],
            (unsigned long long)c.n[WB_STATE_ABANDONED]);
    if (code == CLI_DONE && c.oldest_ms > cli->now_ms)
        cli_print(cli, "the oldest was created in the future: a clock is, or "
                       "was, wrong");
    else if (code == CLI_DONE && c.oldest_ms != 0)
        cli_print(cli, "the oldest has been pending for %s",
            cli_span(wb__sat_sub(cli->now_ms, c.oldest_ms), span));
    if (code == CLI_DONE && wb_outbox_breakers(cli->box, (struct wb_slice){0},
                                add_breaker, &c, &err) != WB_OK)
        code = cli_fail(cli, &err);
    if (code == CLI_DONE && add_lanes(&c, &err) != WB_OK)
        code = cli_fail(cli, &err);
    last = code == CLI_DONE ? cli_last_drain(cli) : NULL;
    print_failed_routes(cli, json_object_get(last, "routes_failed"));
    if (json_is_object(last))
        cli_print(cli, "last drain: %s, %lld attempted, %lld confirmed",
            cli_when(
                cli, json_integer_value(json_object_get(last, "at_ms")), when),
            (long long)json_integer_value(json_object_get(last, "attempted")),
            (long long)json_integer_value(json_object_get(last, "confirmed")));
    if (code == CLI_DONE && cli->json)
        code = cli_json(cli, status_object(&c, last));
    json_decref(last);
    json_decref(c.by_kind);
    json_decref(c.unrouted);
    json_decref(c.paused);
    json_decref(c.breakers);
    json_decref(c.lanes);
    return code;
}

const struct cli_command cli_status = {
    .name = "status",
    .group = "Outbox",
    .args = "",
    .help = "counts and health",
    .run = run_status,
    .opens_outbox = true,
    .examples = "waybill status\n"
                "waybill --json status | jq .by_kind",
};

/* ---- list and show ------------------------------------------------------ */

static json_t *
row_object(const struct wb_row *r)
{
    return json_pack("{s:s, s:I, s:o, s:s, s:I, s:o, s:I, s:o, s:o, s:o, s:o, "
                     "s:o}",
        "id", r->id.text, "seq", (json_int_t)r->seq, "kind", cli_str(r->kind),
        "status", wb_state_name(r->state), "attempts", (json_int_t)r->attempts,
        "due_ms", cli_int(r->due_ms), "created_ms", (json_int_t)r->created_ms,
        "last_error", cli_str(r->last_error), "reason", cli_str(r->reason),
        "key", cli_str(r->key), "lane", cli_str(r->lane), "expires_ms",
        cli_int(r->expires_ms));
}

struct listing {
    struct cli *cli;
    struct cli_table table;
    uint64_t n, limit;
    struct wb_id last;
    bool more; /* messages than the limit */
};

static enum wb_status
list_row(void *ctx, const struct wb_row *r)
{
    struct listing *l = ctx;
    char when[32];

    l->more = l->n == l->limit;
    if (l->more)
        return WB_OK;
    l->n++;
    l->last = r->id;
    if (l->cli->json)
        return cli_json(l->cli, row_object(r)) == CLI_DONE ? WB_OK : WB_NOMEM;
    cli_cell(&l->table, "%s", r->id.text);
    cli_cell_slice(&l->table, r->kind);
    cli_cell(&l->table, "%s", wb_state_name(r->state));
    cli_cell(&l->table, "%u", r->attempts);
    cli_cell(&l->table, "%s", cli_when(l->cli, r->due_ms, when));
    cli_cell(&l->table, "%s", cli_when(l->cli, r->created_ms, when));
    cli_cell_slice(
        &l->table, r->last_error.len > 0 ? r->last_error : r->reason);
    cli_row(&l->table);
    return WB_OK;
}

static enum wb_status
take_seq(void *ctx, const struct wb_row *r)
{
    *(int64_t *)ctx = r->seq;
    return WB_OK;
}

/* Where the page begins: behind a message, which may be gone by now if it was
 * given by its seq. */
static enum cli_exit
read_after(struct cli *cli, int64_t *seq)
{
    struct wb_slice after = cli_slice(cli, "after");
    struct wb_err err = {0};
    uint64_t n;

    if (after.len == 0)
        return CLI_DONE;
    if (after.len == WB_ID_LEN)
        return wb_outbox_show(cli->box, after, take_seq, seq, &err) == WB_OK
                   ? CLI_DONE
                   : cli_fail(cli, &err);
    if (!wb__parse_u64(after, INT64_MAX, &n) || n == 0)
        return cli_usage(cli, "--after '%.60s': give an id in full, or a seq",
            cli_text(cli, "after"));
    *seq = (int64_t)n;
    return CLI_DONE;
}

static enum cli_exit
run_list(struct cli *cli)
{
    static const char *const head[] = {
        "ID", "KIND", "STATUS", "ATTEMPTS", "DUE", "CREATED", "LAST ERROR"};
    struct wb_filter filter = {
        .state = -1, .kind = cli_slice(cli, "kind"), .match = cli_match(cli)};
    struct listing l = {.cli = cli, .limit = cli_number(cli, "limit", 0)};
    struct wb_err err = {0};
    enum cli_exit code = read_after(cli, &filter.after_seq);

    cli->unwritten = NULL;
    if (code != CLI_DONE)
        return code;
    if (l.limit > 0)
        filter.limit = l.limit + 1; /* to see whether there are more */
    else
        l.limit = UINT64_MAX;
    if (cli_has(cli, "status"))
        filter.state = (int)cli_number(cli, "status", 0);
    cli_table_begin(cli, &l.table, head, WB_COUNT(head));
    if (wb_outbox_list(cli->box, &filter, list_row, &l, &err) != WB_OK)
        code = cli_fail(cli, &err);
    if (code == CLI_DONE)
        code = cli_table_end(cli, &l.table);
    if (code == CLI_DONE && l.n == 0)
        cli_note(cli, "no messages");
    else if (code == CLI_DONE && l.more)
        cli_note(cli, "there are more; continue with --after %s", l.last.text);
    return code;
}

static const struct cli_option list_options[] = {
    {"status", CLI_STATUS, "S",
        "pending, held, processing, abandoned or delivered [all but "
        "delivered]"},
    {"kind", CLI_KIND, "K", "of this kind alone [all]"},
    CLI_MATCH_OPTIONS(""),
    {"limit", CLI_COUNT, "N", "at most so many, oldest first [all]"},
    {"after", CLI_TEXT, "ID|SEQ",
        "continue behind this message: the next page [from the first]"},
    {0},
};

const struct cli_command cli_list = {
    .name = "list",
    .group = "Outbox",
    .args = "[--status S] [--kind K] [--lane L] [--error TEXT] ... [--limit N]",
    .help = "messages, oldest first",
    .options = list_options,
    .run = run_list,
    .opens_outbox = true,
    .examples = "waybill list --status abandoned\n"
                "waybill list --error 'no such user' --since 1d\n"
                "waybill --json list --kind mail.sent --limit 10",
};

static void
print_time(const struct cli *cli, const char *name, int64_t ms)
{
    char when[32], text[32];

    if (ms == 0)
        return;
    wb__format_time(ms, text);
    cli_print(cli, "%-13s %s (%s)", name, text, cli_when(cli, ms, when));
}

struct attempt {
    uint64_t at_ms, took_ms, status;
    struct wb_slice outcome, error;
};

/* The next attempt of a log; see wb_row.attempts_log. */
static bool
next_attempt(struct wb_slice *log, struct attempt *a)
{
    struct wb_slice line, word[4] = {{NULL, 0}};

    if (!wb__cut(log, '\n', &line))
        return false;
    for (size_t i = 0; i < WB_COUNT(word); i++)
        (void)wb__cut(&line, ' ', &word[i]);
    *a = (struct attempt){.outcome = word[2], .error = line};
    return wb__parse_u64(word[0], INT64_MAX, &a->at_ms) &&
           wb__parse_u64(word[1], INT64_MAX, &a->took_ms) &&
           wb__parse_u64(word[3], INT32_MAX, &a->status);
}

static json_t *
attempts_array(struct wb_slice log)
{
    json_t *list = json_array();
    struct attempt a;

    while (next_attempt(&log, &a))
        (void)json_array_append_new(
            list, json_pack("{s:I, s:I, s:o, s:o, s:o}", "at_ms",
                      (json_int_t)a.at_ms, "took_ms", (json_int_t)a.took_ms,
                      "outcome", cli_str(a.outcome), "status",
                      cli_int((int64_t)a.status), "error", cli_str(a.error)));
    return list;
}

static void
print_attempts(const struct cli *cli, struct wb_slice log)
{
    char when[32], took[32], line[4 * 300 + 1];
    struct attempt a;

    while (next_attempt(&log, &a)) {
        (void)wb__one_line(a.error, 300, line);
        cli_print(cli, "%-13s %s, took %s: %.*s%s%s", "attempt",
            cli_when(cli, (int64_t)a.at_ms, when),
            cli_span((int64_t)a.took_ms, took), WB_SHOW(a.outcome),
            line[0] != '\0' ? ": " : "", line);
    }
}

/* What a message that was delivered no longer has is null. */
static json_t *
show_object(struct cli *cli, const struct wb_row *r)
{
    json_t *object = row_object(r);

    if (r->state == WB_STATE_DELIVERED)
        (void)json_object_update_new(
            object, json_pack("{s:n, s:o, s:n}", "payload", "content_type",
                        cli_str(r->content_type), "headers"));
    else
        cli_add_content(cli, object, r->payload, r->content_type, r->headers);
    (void)json_object_set_new(object, "scope", cli_str(r->scope));
    (void)json_object_set_new(object, "ended_ms", cli_int(r->ended_ms));
    (void)json_object_set_new(
        object, "attempts_log", attempts_array(r->attempts_log));
    return object;
}

static enum wb_status
show_row(void *ctx, const struct wb_row *r)
{
    struct cli *cli = ctx;
    struct wb_slice lines = r->headers, line;

    if (cli->json)
        return cli_json(cli, show_object(cli, r)) == CLI_DONE ? WB_OK
                                                              : WB_NOMEM;
    cli_print(cli, "%-13s %s", "id", r->id.text);
    cli_print_field(cli, "kind", r->kind);
    cli_print(cli, "%-13s %s", "status", wb_state_name(r->state));
    cli_print_field(cli, "reason", r->reason);
    cli_print(cli, "%-13s %u", "attempts", r->attempts);
    cli_print_field(cli, "last error", r->last_error);
    print_time(cli, "due", r->due_ms);
    print_time(cli, "created", r->created_ms);
    print_time(cli, "expires", r->expires_ms);
    print_time(cli, wb_state_name(r->state), r->ended_ms);
    print_attempts(cli, r->attempts_log);
    cli_print_field(cli, "key", r->key);
    cli_print_field(cli, "lane", r->lane);
    cli_print_field(cli, "content type", r->content_type);
    while (wb__cut(&lines, '\n', &line))
        cli_print_field(cli, "header", line);
    if (r->state == WB_STATE_DELIVERED) {
        cli_print(cli, "%-13s %s", "payload", "deleted after delivery");
    } else if (!wb__utf8_valid(r->payload)) {
        cli_print(cli, "%-13s %zu byte%s no text; --json shows them", "payload",
            r->payload.len, r->payload.len == 1 ? " that is" : "s that are");
    } else if (cli_is_terminal(STDOUT_FILENO)) {
        cli_print_field(cli, "payload", r->payload);
    } else { /* as it is, also a NUL */
        printf("%-13s ", "payload");
        (void)fwrite(r->payload.ptr, 1, r->payload.len, stdout);
        putchar('\n');
    }
    return WB_OK;
}

static enum cli_exit
run_show(struct cli *cli)
{
    struct wb_err err = {0};
    enum cli_exit code;
    struct wb_slice key = cli_slice(cli, "key"), id;
    enum wb_status rc;

    cli->unwritten = NULL;
    if ((key.len > 0) == (cli->n_args > 0))
        return cli_usage(cli, "which message? give an id, or --key K");
    id = wb_slice(key.len > 0 ? NULL : cli->arg[0]);
    if (key.len == 0 && (id.len < 8 || id.len > WB_ID_LEN))
        return cli_usage(cli,
            "'%.60s': give an id in full, or 8 characters or more of its "
            "beginning or end",
            cli->arg[0]);
    code = cli_open(cli, NULL);
    if (code != CLI_DONE)
        return code;
    rc = key.len > 0 ? wb_outbox_show_key(cli->box, key, show_row, cli, &err)
                     : wb_outbox_show(cli->box, id, show_row, cli, &err);
    return rc == WB_OK ? CLI_DONE : cli_fail(cli, &err);
}

static const struct cli_option show_options[] = {
    {"key", CLI_NAME, "K", "the message that was sent with this key"},
    {0},
};

const struct cli_command cli_show = {
    .name = "show",
    .group = "Outbox",
    .args = "ID | --key K",
    .help = "one message and its payload",
    .more = "ID may be cut to its first or its last 8 characters or more where "
            "that is unique.\nIds that were made within a minute begin alike: "
            "give the end.",
    .options = show_options,
    .optional_args = 1,
    .run = run_show,
    .exits = "3  no such message: never accepted, or no longer remembered",
    .examples = "waybill show 3f1f2a6c9d10\n"
                "waybill show --key order:7\n"
                "waybill --json show 3f1f2a6c9d10 | jq -r .payload",
};
