/* keys.c - list, show, release and settle keys of the idempotency store. */
#include "cli/keys.h"

/* A known key as an object; the operation apart, as an item may lack it. */
static json_t *
item_object(const struct wb_idem_op *op, const struct wb_idem_item *item)
{
    bool is_done = item->state == WB_IDEM_DONE;

    return json_pack("{s:o, s:o, s:o, s:s, s:I, s:o, s:o, s:o}", "identity",
        cli_str(op->identity), "scope", cli_str(op->scope), "key",
        cli_str(op->key), "state", wb_idem_state_name(item->state), "since_ms",
        (json_int_t)item->since_ms, "ends_ms", cli_int(item->ends_ms), "status",
        is_done ? json_integer(item->status) : json_null(), "bytes",
        is_done ? json_integer((json_int_t)item->bytes) : json_null());
}

/* "never", "in 5m"; out holds 32 bytes. */
static const char *
ends(const struct cli *cli, const struct wb_idem_item *item, char *out)
{
    return item->ends_ms == 0 ? "never" : cli_when(cli, item->ends_ms, out);
}

struct key_listing {
    struct cli *cli;
    struct cli_table table;
    uint64_t n, limit; /* 0: all */
};

static enum wb_status
list_item(void *ctx, const struct wb_idem_item *item)
{
    struct key_listing *l = ctx;
    char when[32], status[16] = "-";

    if (!cli_key_chosen(l->cli, item))
        return WB_OK;
    if (item->state == WB_IDEM_DONE)
        (void)snprintf(status, sizeof(status), "%d", item->status);
    if (l->cli->json) {
        if (cli_json(l->cli, item_object(&item->op, item)) != CLI_DONE)
            return WB_NOMEM;
    } else {
        cli_cell_slice(&l->table, item->op.key);
        cli_cell_slice(&l->table, item->op.scope);
        cli_cell_slice(&l->table, item->op.identity);
        cli_cell(&l->table, "%s", wb_idem_state_name(item->state));
        cli_cell(&l->table, "%s", status);
        cli_cell(&l->table, "%s", cli_when(l->cli, item->since_ms, when));
        cli_cell(&l->table, "%s", ends(l->cli, item, when));
        cli_row(&l->table);
    }
    return ++l->n == l->limit ? WB_EMPTY : WB_OK; /* EMPTY: enough */
}

static enum cli_exit
run_list(struct cli *cli, struct wb_idem *store)
{
    static const char *const head[] = {
        "KEY", "SCOPE", "IDENTITY", "STATE", "STATUS", "SINCE", "ENDS"};
    struct key_listing l = {.cli = cli, .limit = cli_number(cli, "limit", 0)};
    enum cli_exit code = CLI_DONE;
    struct wb_err err = {0};
    enum wb_status rc;

    cli->unwritten = NULL;
    cli_table_begin(cli, &l.table, head, WB_COUNT(head));
    rc = wb_idem_list(store, list_item, &l, &err);
    if (rc != WB_OK && rc != WB_EMPTY)
        code = cli_fail(cli, &err);
    if (cli_table_end(cli, &l.table) != CLI_DONE)
        code = CLI_FAILED;
    if (code == CLI_DONE && l.n == 0)
        cli_note(cli, "no keys");
    return code;
}

static void
print_item(struct cli *cli, const struct wb_idem_op *op,
    const struct wb_idem_item *item)
{
    char when[32];

    cli_print_field(cli, "key", op->key);
    cli_print_field(cli, "scope", op->scope);
    cli_print_field(cli, "identity", op->identity);
    cli_print(cli, "%-13s %s", "state", wb_idem_state_name(item->state));
    cli_print(cli, "%-13s %s", "since", cli_when(cli, item->since_ms, when));
    cli_print(cli, "%-13s %s", "ends", ends(cli, item, when));
    if (item->state != WB_IDEM_DONE)
        return;
    cli_print(cli, "%-13s %d", "status", item->status);
    cli_print(cli, "%-13s %zu byte%s", "record", item->bytes,
        item->bytes == 1 ? "" : "s");
}

static enum cli_exit
run_show(struct cli *cli, struct wb_idem *store)
{
    struct wb_idem_op op = cli_key_of_args(cli);
    struct wb_idem_result result = {0};
    struct wb_idem_item item = {0};
    struct wb_err err = {0};
    json_t *object;
    enum wb_status rc = wb_idem_peek(store, &op, &item, &err);

    cli->unwritten = NULL;
    if (rc == WB_OK && cli->json && item.state == WB_IDEM_DONE)
        rc = wb_idem_lookup(store, &op, &result, &err);
    if (rc != WB_OK)
        return rc == WB_EMPTY ? CLI_NOTHING : cli_fail(cli, &err);
    if (!cli->json) {
        print_item(cli, &op, &item);
        return CLI_DONE;
    }
    object = item_object(&op, &item);
    if (item.state == WB_IDEM_DONE) {
        (void)json_object_set_new(
            object, "headers", cli_headers(result.record.headers));
        cli_add_bytes(cli, object, "body", result.record.body);
    }
    wb_idem_result_free(&result);
    return cli_json(cli, object);
}

static enum cli_exit
freed(struct cli *cli, const struct wb_idem_op *op, enum wb_idem_state was)
{
    char line[4 * 255 + 1];

    (void)wb__one_line(op->key, 255, line);
    return cli_result(cli,
        json_pack("{s:o, s:s, s:b}", "key", cli_str(op->key), "was",
            wb_idem_state_name(was), "freed", 1),
        "key %s is free; it was %s", line, wb_idem_state_name(was));
}

static enum cli_exit
run_release(struct cli *cli, struct wb_idem *store)
{
    struct wb_idem_op op = cli_key_of_args(cli);
    struct wb_idem_item item = {0};
    struct wb_err err = {0};

    if (wb_idem_forget(store, &op, &item, &err) != WB_OK)
        return cli_fail(cli, &err);
    return freed(cli, &op, item.state);
}

static enum cli_exit
run_settle(struct cli *cli, struct wb_idem *store)
{
    struct wb_idem_op op = cli_key_of_args(cli);
    struct wb_idem_record record = {.body = cli_slice(cli, "body"),
        .ttl_ms = cli_ms(cli, "ttl", WB_IDEM_TTL_MS)};
    bool is_done = cli_has(cli, "done");
    struct wb_err err = {0};

    if (cli_has(cli, "ask"))
        return cli_keys_many(cli, store);
    if (!cli_keys_outcome(cli))
        return CLI_USAGE;
    if (!cli_key_status(cli, &op, &record.status))
        return CLI_USAGE;
    if (wb_idem_settle(store, &op, is_done ? &record : NULL, &err) != WB_OK)
        return cli_fail(cli, &err);
    if (!is_done)
        return freed(cli, &op, WB_IDEM_DOUBTFUL);
    return cli_result(cli,
        json_pack("{s:o, s:s, s:i}", "key", cli_str(op.key), "state", "done",
            "status", record.status),
        "key %s is done", cli->arg[1]);
}

/* ---- the command -------------------------------------------------------- */

#define MANY   "identity scope state older-than limit dry-run"
#define SETTLE " done not-applied ask ask-timeout status body ttl"

static const struct keys_verb {
    const char *name;
    size_t args;         /* the verb included */
    const char *options; /* beside those of all commands */
    enum cli_exit (*run)(struct cli *cli, struct wb_idem *store);
} verbs[] = {
    {"list", 1, "identity scope state older-than limit", run_list},
    {"show", 2, "identity scope", run_show},
    {"release", 2, "identity scope", run_release},
    {"release", 1, MANY, cli_keys_many},
    {"settle", 2, "identity scope" SETTLE, run_settle},
    {"settle", 1, MANY SETTLE, cli_keys_many},
};

/* Options that a verb does not use are refused. */
static bool
takes_options(struct cli *cli, const struct keys_verb *verb)
{
    for (size_t i = 0; i < cli->n_values; i++) {
        const struct cli_option *option = cli->value[i].option, *o;
        struct wb_slice rest = wb_slice(verb->options), name;
        bool known = false;

        for (o = cli_globals; o->name != NULL; o++)
            known = known || o == option;
        while (wb__cut(&rest, ' ', &name))
            known = known || wb__eq(name, wb_slice(option->name));
        if (!known) {
            (void)cli_usage(cli, "%s%s takes no --%s", verb->name,
                verb->args == 2 ? " of one key" : "", option->name);
            return false;
        }
    }
    return true;
}

static const struct keys_verb *
find_verb(struct cli *cli)
{
    struct cli_nearest nearest = {0};
    const struct keys_verb *named = NULL;

    for (size_t i = 0; i < WB_COUNT(verbs); i++) {
        cli_nearest_add(&nearest, wb_slice(cli->arg[0]), verbs[i].name);
        if (strcmp(cli->arg[0], verbs[i].name) != 0)
            continue;
        named = &verbs[i];
        if (cli->n_args == verbs[i].args)
            return takes_options(cli, &verbs[i]) ? &verbs[i] : NULL;
    }
    if (named != NULL)
        (void)cli_usage(cli, "%s takes %s", named->name,
            named->args == 1 && named->run == run_list ? "no key" : "one key");
    else if (nearest.name != NULL)
        (void)cli_usage(
            cli, "keys '%s'? did you mean %s?", cli->arg[0], nearest.name);
    else
        (void)cli_usage(
            cli, "keys '%s'? give list, show, release or settle", cli->arg[0]);
    return NULL;
}

static enum cli_exit
run_keys(struct cli *cli)
{
    const struct keys_verb *verb = find_verb(cli);
    struct wb_idem_opts opts = {.env = cli->env};
    struct wb_idem *store = NULL;
    struct wb_err err = {0};
    enum cli_exit code;

    if (verb == NULL)
        return CLI_USAGE;
    opts.existing = true;
    opts.empty = cli_text(cli, "db") == NULL;
    opts.read_only =
        strcmp(cli->arg[0], "list") == 0 || strcmp(cli->arg[0], "show") == 0;
    if (cli_find_db(cli, &err) != WB_OK ||
        wb_idem_open(&store, cli->db, &opts, &err) != WB_OK)
        return cli_fail_no_usage(cli, &err);
    code = verb->run(cli, store);
    wb_idem_close(store);
    return code;
}

static const struct cli_option keys_options[] = {
    {"identity", CLI_TEXT, "I", "of the key [with KEY: none; else all]"},
    {"scope", CLI_TEXT, "S",
        "of the key: once, or POST /path [with KEY: once; else all]"},
    {"state", CLI_CHOICE, "claimed|sending|done|unknown",
        "without KEY: of this state alone [all]"},
    {"older-than", CLI_DURATION, "D",
        "without KEY: begun or stored that long ago [all]"},
    {"limit", CLI_COUNT, "N", "without KEY: at most this many [all]"},
    {"dry-run", CLI_FLAG, NULL,
        "release, settle without KEY: count, change nothing"},
    {"done", CLI_FLAG, NULL, "settle: it took effect; keep a record"},
    {"not-applied", CLI_FLAG, NULL,
        "settle: it did not take effect; free the key"},
    {"ask", CLI_TEXT, "CMD",
        "settle: run sh -c CMD; exit 0: as --done, 3: as --not-applied; "
        "else the key is left"},
    {"ask-timeout", CLI_SPAN, "D", "settle --ask: time for each CMD [30s]"},
    {"status", CLI_TEXT, "N",
        "settle --done: status of the record [0; a gateway's: 200]"},
    {"body", CLI_TEXT, "TEXT",
        "settle --done: body of the record [empty; with --ask CMD's output]"},
    {"ttl", CLI_DURATION, "D",
        "settle --done: keep it for this long; 0s: for ever [24h]"},
    {0},
};

const struct cli_command cli_keys = {
    .name = "keys",
    .group = "Idempotency",
    .args = "list|show|release|settle [KEY] [--identity I] [--scope S] ...",
    .help = "show, free or settle keys of the idempotency store",
    .more =
        "release frees a key in any state: a record is deleted, a run in "
        "progress can no\nlonger be recorded. settle records how an unknown "
        "outcome ended. Without KEY\nboth change every key that --scope, "
        "--identity, --state and --older-than choose;\nrelease leaves runs in "
        "progress out unless --state names them. CMD of --ask runs once\nfor "
        "each key whose outcome is unknown, and finds it in WAYBILL_KEY, "
        "WAYBILL_SCOPE\nand WAYBILL_IDENTITY.",
    .options = keys_options,
    .n_args = 1,
    .optional_args = 1,
    .run = run_keys,
    .exits = "3  no such key; settle: its outcome is not unknown\n"
             "4  without KEY, or with --ask: some could not be changed",
    .examples = "waybill keys list --state unknown\n"
                "waybill keys release invoice-4711\n"
                "waybill keys settle 4711 --scope 'POST /charges' --identity "
                "acme \\\n    --done --status 201\n"
                "waybill keys settle --scope 'POST /charges' --older-than 1h "
                "\\\n    --not-applied --dry-run\n"
                "waybill keys settle --scope 'POST /charges' --ask "
                "./was-it-charged",
};
