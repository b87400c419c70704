/* admin.c - put back, delete, pause, copy, and look after breakers.
 *
 * (1) retry and discard act on nothing unless told on what: ids, or
 *     --abandoned. */
#include "cli/cli.h"

/* ---- retry and discard ------------------------------------------------- */

struct selection {
    struct cli *cli;
    struct wb_select select;
    struct wb_id *ids;
    json_t *by_kind;
};

typedef enum wb_status act_fn(struct wb_outbox *box,
    const struct wb_select *select, struct wb_selected *selected,
    wb_kind_fn *fn, void *ctx, struct wb_err *err);

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct selection *s = ctx;

    (void)json_object_setn_new_nocheck(s->by_kind, k->kind.ptr, k->kind.len,
        json_integer((json_int_t)k->n[WB_STATE_PENDING]));
    return WB_OK;
}

static enum cli_exit
read_ids(struct cli *cli, struct selection *s)
{
    struct wb_err err;

    s->ids = wb__alloc(cli->env, cli->n_args * sizeof(*s->ids));
    if (s->ids == NULL) {
        (void)wb__nomem(&err, "the ids");
        return cli_fail(cli, &err);
    }
    for (size_t i = 0; i < cli->n_args; i++) {
        if (!cli_arg_id(cli, i, &s->ids[i]))
            return CLI_USAGE;
    }
    s->select.ids = s->ids;
    s->select.n_ids = cli->n_args;
    return CLI_DONE;
}

static enum cli_exit
read_selection(struct cli *cli, struct selection *s)
{
    static const char *const narrowing[] = {"older-than", "kind", "limit"};
    bool all = cli_has(cli, "abandoned");

    s->select.kind = cli_slice(cli, "kind");
    s->select.older_ms = cli_ms(cli, "older-than", 0);
    s->select.limit = cli_number(cli, "limit", 0);
    s->select.dry_run = cli_has(cli, "dry-run");
    if (all && cli->n_args > 0)
        return cli_usage(cli, "give ids or --abandoned, not both");
    if (!all && cli->n_args == 0)
        return cli_usage(cli, "which messages? give ids, or --abandoned");
    for (size_t i = 0; !all && i < WB_COUNT(narrowing); i++) {
        if (cli_has(cli, narrowing[i]))
            return cli_usage(
                cli, "--%s goes with --abandoned only", narrowing[i]);
    }
    return all ? CLI_DONE : read_ids(cli, s);
}

static enum cli_exit
print_selected(
    struct selection *s, const struct wb_selected *n, const char *done)
{
    struct cli *cli = s->cli;
    const char *kind;
    json_t *count;

    if (cli->json)
        return cli_json(
            cli, json_pack("{s:I, s:O, s:b}", "total", (json_int_t)n->total,
                     "by_kind", s->by_kind, "dry_run", (int)s->select.dry_run));
    cli_say(cli, "%llu %s%s", (unsigned long long)n->total,
        s->select.dry_run ? "would be " : "", done);
    json_object_foreach(s->by_kind, kind, count)
        cli_say(cli, "  %s %lld", kind, (long long)json_integer_value(count));
    return CLI_DONE;
}

/* What was named and could not be done. */
static enum cli_exit
tell_left_out(struct cli *cli, const struct wb_selected *n)
{
    if (n->skipped > 0)
        cli_complain(cli, WB_BUSY,
            "%llu being processed, left alone; try again when the claim ends",
            (unsigned long long)n->skipped);
    if (n->missing > 0)
        cli_complain(cli, WB_NOTFOUND,
            "%llu not found; waybill list shows what is there",
            (unsigned long long)n->missing);
    if (n->skipped > 0 || (n->missing > 0 && n->total > 0))
        return CLI_SOME;
    return n->missing > 0 ? CLI_NOTHING : CLI_DONE;
}

static enum cli_exit
act(struct cli *cli, act_fn *fn, const char *done)
{
    struct selection s = {.cli = cli};
    struct wb_selected n = {0};
    struct wb_err err = {0};
    enum cli_exit code = read_selection(cli, &s);

    if (code == CLI_DONE)
        code = cli_open(cli);
    s.by_kind = json_object();
    if (code == CLI_DONE &&
        fn(cli->box, &s.select, &n, add_kind, &s, &err) != WB_OK)
        code = cli_fail(cli, &err);
    if (code == CLI_DONE)
        code = print_selected(&s, &n, done);
    if (code == CLI_DONE)
        code = tell_left_out(cli, &n);
    json_decref(s.by_kind);
    wb__free(cli->env, s.ids);
    return code;
}

static enum cli_exit
run_retry(struct cli *cli)
{
    return act(cli, wb_outbox_redrive, "put back");
}

static enum cli_exit
run_discard(struct cli *cli)
{
    return act(cli, wb_outbox_discard, "deleted");
}

static const struct cli_option select_options[] = {
    {"abandoned", CLI_FLAG, NULL, "every abandoned message", false},
    {"older-than", CLI_DURATION, "D",
        "with --abandoned: last claimed, else created, longer than D ago [all]",
        false},
    {"kind", CLI_KIND, "K", "with --abandoned: of this kind alone [all]",
        false},
    {"limit", CLI_COUNT, "N", "with --abandoned: at most so many [all]", false},
    {"dry-run", CLI_FLAG, NULL, "count, change nothing", false},
    {0},
};

const struct cli_command cli_retry = {
    .name = "retry",
    .group = "Outbox",
    .args = "ID... | --abandoned [--older-than D] [--kind K] [--limit N] "
            "[--dry-run]",
    .help = "put messages back, attempts 0",
    .more = "What is being processed is left alone. The breaker of the "
            "destination is closed.",
    .options = select_options,
    .max_args = CLI_MANY,
    .run = run_retry,
    .exits = "3  no such message\n"
             "4  some of the ids were being processed, or not found",
    .examples = "waybill retry --abandoned --dry-run\n"
                "waybill retry --abandoned --kind mail.sent --older-than 1h\n"
                "waybill retry 0193f5a2-7c1e-7aaa-8000-3f1f2a6c9d10",
};

const struct cli_command cli_discard = {
    .name = "discard",
    .group = "Outbox",
    .args = "ID... | --abandoned [--older-than D] [--kind K] [--limit N] "
            "[--dry-run]",
    .help = "delete messages for good",
    .more = "With ids also what waits; what is being processed is left alone.",
    .options = select_options,
    .max_args = CLI_MANY,
    .run = run_discard,
    .exits = "3  no such message\n"
             "4  some of the ids were being processed, or not found",
    .examples = "waybill discard --abandoned --older-than 30d --dry-run\n"
                "waybill discard 0193f5a2-7c1e-7aaa-8000-3f1f2a6c9d10",
};

/* ---- pause and resume -------------------------------------------------- */

static enum cli_exit
set_paused(struct cli *cli, bool paused)
{
    struct wb_slice kind;
    struct wb_err err = {0};
    enum cli_exit code;

    if (!cli_arg_kind(cli, 0, &kind))
        return CLI_USAGE;
    code = cli_open(cli);
    if (code != CLI_DONE)
        return code;
    if (wb_outbox_pause(cli->box, kind, paused, &err) != WB_OK)
        return cli_fail(cli, &err);
    cli_say(cli, "%s is %s", cli->arg[0],
        paused ? "paused: accepted and kept, not delivered" : "not paused");
    if (!cli->json)
        return CLI_DONE;
    return cli_json(cli,
        json_pack("{s:s, s:b}", "kind", cli->arg[0], "paused", (int)paused));
}

static enum cli_exit
run_pause(struct cli *cli)
{
    return set_paused(cli, true);
}

static enum cli_exit
run_resume(struct cli *cli)
{
    return set_paused(cli, false);
}

const struct cli_command cli_pause = {
    .name = "pause",
    .group = "Outbox",
    .args = "KIND",
    .help = "keep messages of a kind back",
    .more = "They are accepted and kept, and delivered after resume.",
    .min_args = 1,
    .max_args = 1,
    .run = run_pause,
    .examples = "waybill pause mail.sent",
};

const struct cli_command cli_resume = {
    .name = "resume",
    .group = "Outbox",
    .args = "KIND",
    .help = "deliver them again",
    .min_args = 1,
    .max_args = 1,
    .run = run_resume,
    .examples = "waybill resume mail.sent",
};

/* ---- backup ------------------------------------------------------------ */

static enum cli_exit
run_backup(struct cli *cli)
{
    struct wb_err err = {0};
    enum cli_exit code;

    if (cli->arg[0][0] == '\0')
        return cli_usage(cli, "FILE is empty; give the path of a new file");
    code = cli_open(cli);
    if (code != CLI_DONE)
        return code;
    if (wb_outbox_backup(cli->box, cli->arg[0], &err) != WB_OK)
        return cli_fail_beyond(cli, &err);
    cli_say(cli, "copied to %s", cli->arg[0]);
    if (!cli->json)
        return CLI_DONE;
    return cli_json(
        cli, json_pack("{s:o}", "file", cli_str(wb_slice(cli->arg[0]))));
}

const struct cli_command cli_backup = {
    .name = "backup",
    .group = "Outbox",
    .args = "FILE",
    .help = "copy the database while it is in use",
    .more = "FILE must not exist. It opens as an outbox: ids stay, tokens of "
            "claims do not.",
    .min_args = 1,
    .max_args = 1,
    .run = run_backup,
    .examples = "waybill backup /var/backups/waybill-monday.db",
};

/* ---- breaker ----------------------------------------------------------- */

json_t *
cli_breaker_object(const struct wb_breaker *b)
{
    return json_pack("{s:o, s:s, s:i, s:o}", "scope", cli_str(b->scope),
        "state", wb_breaker_state_name(b->state), "failures", (int)b->failures,
        "open_until_ms", cli_int(b->open_until_ms));
}

struct breakers {
    struct cli *cli;
    bool reset; /* tell them as they are afterwards */
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

/* A reset is told once it is done: listed before, shown closed. */
static enum cli_exit
run_breaker(struct cli *cli)
{
    static const char *const head[] = {
        "SCOPE", "STATE", "FAILURES", "OPEN UNTIL"};
    struct breakers list = {.cli = cli, .reset = cli_has(cli, "reset")};
    struct wb_slice scope = {0};
    struct wb_err err = {0};
    enum cli_exit code = cli_open(cli);
    uint64_t n;

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
    return code;
}

static const struct cli_option breaker_options[] = {
    {"reset", CLI_FLAG, NULL, "close it", false},
    {0},
};

const struct cli_command cli_breaker = {
    .name = "breaker",
    .group = "Plumbing",
    .args = "[SCOPE] [--reset]",
    .help = "look at breakers, or close them",
    .more = "A scope is a destination: a route, else a kind. Without one, all.",
    .options = breaker_options,
    .max_args = 1,
    .run = run_breaker,
    .examples = "waybill breaker\n"
                "waybill breaker mail.sent --reset",
};
