/* admin.c - retry, discard, pause, resume, backup, compact, breaker.
 *
 * (1) retry and discard change nothing without ids or --abandoned. */
#include "cli/cli.h"

/* ---- retry and discard -------------------------------------------------- */

struct selection {
    struct cli *cli;
    struct wb_select select;
    struct wb_id *ids;
    json_t *by_kind;
};

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct selection *s = ctx;

    (void)json_object_setn_new_nocheck(s->by_kind, k->kind.ptr, k->kind.len,
        json_integer((json_int_t)k->n[WB_STATE_PENDING]));
    return WB_OK;
}

static enum cli_exit
read_selection(struct cli *cli, struct selection *s)
{
    static const char *const narrowing[] = {"older-than", "kind", "lane", "key",
        "key-prefix", "error", "since", "until", "limit"};
    bool all = cli_has(cli, "abandoned");

    s->select.kind = cli_slice(cli, "kind");
    s->select.older_ms = cli_ms(cli, "older-than", 0);
    s->select.limit = cli_number(cli, "limit", 0);
    s->select.match = cli_match(cli);
    s->select.dry_run = cli->reads = cli_has(cli, "dry-run");
    if (all)
        return cli->n_args == 0
                   ? CLI_DONE
                   : cli_usage(cli, "give ids or --abandoned, not both");
    if (cli->n_args == 0)
        return cli_usage(cli, "which messages? give ids, or --abandoned");
    for (size_t i = 0; i < WB_COUNT(narrowing); i++) {
        if (cli_has(cli, narrowing[i]))
            return cli_usage(cli, "--%s needs --abandoned", narrowing[i]);
    }
    s->ids = wb__alloc(cli->env, cli->n_args * sizeof(*s->ids));
    if (s->ids == NULL)
        return cli_nomem(cli, "the ids");
    for (size_t i = 0; i < cli->n_args; i++)
        s->ids[i] = cli_id(cli, i);
    s->select.ids = s->ids;
    s->select.n_ids = cli->n_args;
    return CLI_DONE;
}

/* The counts, then what was named and could not be done. */
static enum cli_exit
print_selected(
    struct selection *s, const struct wb_selected *n, const char *done)
{
    struct cli *cli = s->cli;
    const char *kind;
    json_t *count;
    enum cli_exit code = cli_result(cli,
        json_pack("{s:I, s:O, s:b}", "total", (json_int_t)n->total, "by_kind",
            s->by_kind, "dry_run", (int)s->select.dry_run),
        "%llu %s%s", (unsigned long long)n->total,
        s->select.dry_run ? "would be " : "", done);

    json_object_foreach(s->by_kind, kind, count) cli_report(
        cli, "  %s %lld", kind, (long long)json_integer_value(count));
    if (n->skipped > 0)
        cli_print_error(cli, WB_BUSY,
            "%llu being processed, not changed; try again when the claim ends",
            (unsigned long long)n->skipped);
    if (n->missing > 0)
        cli_print_error(cli, WB_NOTFOUND,
            "%llu not found; waybill list shows the messages",
            (unsigned long long)n->missing);
    if (code != CLI_DONE)
        return code;
    if (n->skipped > 0 || (n->missing > 0 && n->total > 0))
        return CLI_SOME;
    return n->missing > 0 ? CLI_NOTHING : CLI_DONE;
}

static enum cli_exit
run_retry_or_discard(struct cli *cli)
{
    bool retry = cli->command == &cli_retry;
    struct selection s = {.cli = cli, .by_kind = json_object()};
    struct wb_selected n = {0};
    struct wb_err err = {0};
    enum cli_exit code = read_selection(cli, &s);

    if (code == CLI_DONE)
        code = cli_open(cli, NULL);
    if (code == CLI_DONE)
        code = (retry ? wb_outbox_redrive : wb_outbox_discard)(
                   cli->box, &s.select, &n, add_kind, &s, &err) == WB_OK
                   ? print_selected(&s, &n, retry ? "put back" : "deleted")
                   : cli_fail(cli, &err);
    json_decref(s.by_kind);
    wb__free(cli->env, s.ids);
    return code;
}

static const char select_args[] =
    "ID... | --abandoned [--kind K] [--lane L] [--error TEXT] ... [--dry-run]";
static const char select_exits[] =
    "3  no such message\n"
    "4  some of the ids were being processed, or not found";

static const struct cli_option select_options[] = {
    {"abandoned", CLI_FLAG, NULL, "every abandoned message"},
    {"older-than", CLI_DURATION, "D",
        "with --abandoned: last claimed, else created, longer than D ago "
        "[all]"},
    {"kind", CLI_KIND, "K", "with --abandoned: of this kind alone [all]"},
    CLI_MATCH_OPTIONS("with --abandoned: "),
    {"limit", CLI_COUNT, "N", "with --abandoned: at most so many [all]"},
    {"dry-run", CLI_FLAG, NULL, "count, change nothing"},
    {0},
};

const struct cli_command cli_retry = {
    .name = "retry",
    .group = "Outbox",
    .args = select_args,
    .arg_type = CLI_ID,
    .help = "put messages back, attempts 0",
    .more = "What is being processed is left alone. The breaker of the "
            "destination is closed.",
    .options = select_options,
    .optional_args = CLI_MANY,
    .run = run_retry_or_discard,
    .exits = select_exits,
    .examples =
        "waybill retry --abandoned --dry-run\n"
        "waybill retry --abandoned --kind mail.sent --older-than 1h\n"
        "waybill retry --abandoned --key-prefix customer-7: --error 503\n"
        "waybill retry 0193f5a2-7c1e-7aaa-8000-3f1f2a6c9d10",
};

const struct cli_command cli_discard = {
    .name = "discard",
    .group = "Outbox",
    .args = select_args,
    .arg_type = CLI_ID,
    .help = "delete messages for good",
    .more = "With ids also what waits; what is being processed is left alone.",
    .options = select_options,
    .optional_args = CLI_MANY,
    .run = run_retry_or_discard,
    .exits = select_exits,
    .examples = "waybill discard --abandoned --older-than 30d --dry-run\n"
                "waybill discard 0193f5a2-7c1e-7aaa-8000-3f1f2a6c9d10\n"
                "waybill --json list --kind a.typo | jq -r .id | xargs waybill "
                "discard",
};

/* ---- pause and resume --------------------------------------------------- */

/* What is known of a kind before it is changed. */
struct known_kind {
    struct wb_slice kind;
    bool known, paused;
};

static enum wb_status
find_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct known_kind *is = ctx;

    if (wb__eq(k->kind, is->kind)) {
        is->known = true;
        is->paused = k->paused;
    }
    return WB_OK;
}

static enum cli_exit
run_pause_or_resume(struct cli *cli)
{
    bool pause = cli->command == &cli_pause;
    struct known_kind is = {.kind = wb_slice(cli->arg[0])};
    struct wb_err err = {0};

    if (wb_outbox_count(cli->box, find_kind, &is, &err) != WB_OK ||
        wb_outbox_pause(cli->box, is.kind, pause, &err) != WB_OK)
        return cli_fail(cli, &err);
    if (pause && !is.known && cli->route_error.status == WB_OK &&
        cli_route(cli, is.kind) == NULL)
        cli_note(cli,
            "%s has no message and no route yet; is it the right "
            "name?",
            cli->arg[0]);
    return cli_result(cli,
        json_pack("{s:s, s:b}", "kind", cli->arg[0], "paused", (int)pause),
        pause       ? "%s is paused: accepted and kept, not delivered"
        : is.paused ? "%s is resumed"
                    : "%s was not paused; nothing to do",
        cli->arg[0]);
}

const struct cli_command cli_pause = {
    .name = "pause",
    .group = "Outbox",
    .args = "KIND",
    .arg_type = CLI_KIND,
    .help = "keep messages of a kind back",
    .more = "They are accepted and kept, and delivered after resume.",
    .n_args = 1,
    .run = run_pause_or_resume,
    .opens_outbox = true,
    .examples = "waybill pause mail.sent",
};

const struct cli_command cli_resume = {
    .name = "resume",
    .group = "Outbox",
    .args = "KIND",
    .arg_type = CLI_KIND,
    .help = "deliver them again",
    .n_args = 1,
    .run = run_pause_or_resume,
    .opens_outbox = true,
    .examples = "waybill resume mail.sent",
};

static enum cli_exit
run_backup(struct cli *cli)
{
    struct wb_err err = {0};

    if (wb_outbox_backup(cli->box, cli->arg[0], &err) != WB_OK)
        return cli_fail_no_usage(cli, &err);
    return cli_result(cli,
        json_pack("{s:o}", "file", cli_str(wb_slice(cli->arg[0]))),
        "copied to %s", cli->arg[0]);
}

const struct cli_command cli_backup = {
    .name = "backup",
    .group = "Outbox",
    .args = "FILE",
    .arg_type = CLI_FILE,
    .help = "copy the database while it is in use",
    .more = "FILE must not exist. It opens as an outbox: ids stay, tokens of "
            "claims do not.",
    .n_args = 1,
    .run = run_backup,
    .opens_outbox = true,
    .examples = "waybill backup /var/backups/waybill-monday.db",
};

static enum cli_exit
run_compact(struct cli *cli)
{
    int64_t before = 0, after = 0;
    struct wb_err err = {0};

    if (wb_outbox_compact(cli->box, &before, &after, &err) != WB_OK)
        return cli_fail_no_usage(cli, &err);
    return cli_result(cli,
        json_pack("{s:I, s:I}", "bytes_before", (json_int_t)before,
            "bytes_after", (json_int_t)after),
        "%lld bytes before, %lld now", (long long)before, (long long)after);
}

const struct cli_command cli_compact = {
    .name = "compact",
    .group = "Outbox",
    .args = "",
    .help = "give the room of deleted messages back to the disk",
    .more = "Rewrites the database; writers wait meanwhile. It needs twice the "
            "room of what is\nkept, for a time.",
    .run = run_compact,
    .opens_outbox = true,
    .examples = "waybill compact",
};

/* ---- breaker ------------------------------------------------------------ */

json_t *
cli_breaker_object(const struct wb_breaker *b)
{
    return json_pack("{s:o, s:s, s:i, s:o}", "scope", cli_str(b->scope),
        "state", wb_breaker_state_name(b->state), "failures", (int)b->failures,
        "open_until_ms", cli_int(b->open_until_ms));
}

struct breakers {
    struct cli *cli;
    bool reset; /* print each as closed */
    uint64_t n;
    struct cli_table table;
};

static enum wb_status
breaker_row(void *ctx, const struct wb_breaker *b)
{
    struct breakers *list = ctx;
    struct wb_breaker shown = *b;
    char when[32];

    list->n++;
    if (list->reset)
        shown = (struct wb_breaker){.scope = b->scope, .state = WB_CLOSED};
    if (list->cli->json)
        return cli_json(list->cli, cli_breaker_object(&shown)) == CLI_DONE
                   ? WB_OK
                   : WB_NOMEM;
    cli_cell_slice(&list->table, shown.scope);
    cli_cell(&list->table, "%s", wb_breaker_state_name(shown.state));
    cli_cell(&list->table, "%u", shown.failures);
    cli_cell(
        &list->table, "%s", cli_when(list->cli, shown.open_until_ms, when));
    cli_row(&list->table);
    return WB_OK;
}

/* A reset closes the breakers after they were read, and prints them as closed
 * when that is done. */
static enum cli_exit
run_breaker(struct cli *cli)
{
    static const char *const head[] = {
        "SCOPE", "STATE", "FAILURES", "OPEN UNTIL"};
    struct breakers list = {.cli = cli, .reset = cli_has(cli, "reset")};
    struct wb_slice scope = {0};
    struct wb_err err = {0};
    enum cli_exit code = CLI_DONE;
    uint64_t n = 0;

    cli->reads = !list.reset;
    if (cli->reads)
        cli->unwritten = NULL;
    code = cli_open(cli, NULL);
    if (code != CLI_DONE)
        return code;
    if (cli->n_args > 0)
        scope = wb_slice(cli->arg[0]);
    cli_table_begin(cli, &list.table, head, WB_COUNT(head));
    if (wb_outbox_breakers(cli->box, scope, breaker_row, &list, &err) !=
            WB_OK ||
        (list.reset &&
            wb_outbox_breaker_reset(cli->box, scope, &n, &err) != WB_OK))
        code = cli_fail(cli, &err);
    if (code == CLI_DONE)
        code = cli_table_end(cli, &list.table);
    if (code == CLI_DONE && list.n == 0)
        cli_note(cli, "every breaker is closed");
    else if (code == CLI_DONE && list.reset && n == 0)
        cli_note(cli, "%s has no failures, or is not a scope; nothing to reset",
            cli->arg[0]);
    return code;
}

static const struct cli_option breaker_options[] = {
    {"reset", CLI_FLAG, NULL, "close it"},
    {0},
};

const struct cli_command cli_breaker = {
    .name = "breaker",
    .group = "Plumbing",
    .args = "[SCOPE] [--reset]",
    .help = "show breakers, or close them",
    .more = "A scope is a destination: a route, else a kind. Without one, all.",
    .options = breaker_options,
    .optional_args = 1,
    .run = run_breaker,
    .examples = "waybill breaker\n"
                "waybill breaker mail.sent --reset",
};
