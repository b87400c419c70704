/* keys.c - what the idempotency store holds: look, free, settle. */
#include "cli/cli.h"
#include "waybill/idem.h"

static struct wb_idem_op
op_of_args(const struct cli *cli)
{
    return (struct wb_idem_op){cli_slice(cli, "identity"),
        cli_has(cli, "scope") ? cli_slice(cli, "scope") : WB_LIT("once"),
        wb_slice(cli->arg[1])};
}

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

/* ---- list -------------------------------------------------------------- */

struct listing {
    struct cli *cli;
    struct cli_table table;
    uint64_t n, limit; /* 0: all */
};

static bool
is_wanted(struct cli *cli, const struct wb_idem_item *item)
{
    const char *state = cli_text(cli, "state");

    return (state == NULL ||
               strcmp(state, wb_idem_state_name(item->state)) == 0) &&
           (!cli_has(cli, "identity") ||
               wb__eq(cli_slice(cli, "identity"), item->op.identity)) &&
           (!cli_has(cli, "scope") ||
               wb__eq(cli_slice(cli, "scope"), item->op.scope));
}

static void
item_row(struct listing *l, const struct wb_idem_item *item)
{
    char when[32];

    cli_cell_slice(&l->table, item->op.key);
    cli_cell_slice(&l->table, item->op.scope);
    cli_cell_slice(&l->table, item->op.identity);
    cli_cell(&l->table, "%s", wb_idem_state_name(item->state));
    if (item->state == WB_IDEM_DONE)
        cli_cell(&l->table, "%d", item->status);
    else
        cli_cell(&l->table, "-");
    cli_cell(&l->table, "%s", cli_when(l->cli, item->since_ms, when));
    cli_cell(&l->table, "%s",
        item->ends_ms == 0 ? "never" : cli_when(l->cli, item->ends_ms, when));
    cli_row(&l->table);
}

static enum wb_status
list_item(void *ctx, const struct wb_idem_item *item)
{
    struct listing *l = ctx;

    if (!is_wanted(l->cli, item))
        return WB_OK;
    if (!l->cli->json)
        item_row(l, item);
    else if (cli_json(l->cli, item_object(&item->op, item)) != CLI_DONE)
        return WB_NOMEM;
    return ++l->n == l->limit ? WB_EMPTY : WB_OK; /* EMPTY: enough */
}

static enum cli_exit
run_list(struct cli *cli, struct wb_idem *store)
{
    static const char *const head[] = {
        "KEY", "SCOPE", "IDENTITY", "STATE", "STATUS", "SINCE", "ENDS"};
    struct listing l = {.cli = cli, .limit = cli_number(cli, "limit", 0)};
    enum cli_exit code = CLI_DONE;
    struct wb_err err = {0};
    enum wb_status rc;

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

/* ---- show -------------------------------------------------------------- */

static void
add_record(struct cli *cli, json_t *object, const struct wb_idem_record *r)
{
    struct wb__buf b = {.env = cli->env, .max = SIZE_MAX / 2};

    (void)json_object_set_new(object, "headers", cli_headers(r->headers));
    if (wb__utf8_valid(r->body)) {
        (void)json_object_set_new(object, "body",
            json_stringn_nocheck(
                r->body.len > 0 ? r->body.ptr : "", r->body.len));
        return;
    }
    wb__base64(&b, r->body);
    if (b.failed == WB_OK)
        (void)json_object_set_new(
            object, "body_base64", json_stringn_nocheck(b.ptr, b.len));
    wb__buf_fini(&b);
}

static void
say_item(struct cli *cli, const struct wb_idem_op *op,
    const struct wb_idem_item *item)
{
    char when[32], line[4 * 255 + 1];

    (void)wb__one_line(op->key, 255, line);
    cli_tell(cli, "%-13s %s", "key", line);
    (void)wb__one_line(op->scope, 255, line);
    cli_tell(cli, "%-13s %s", "scope", line);
    (void)wb__one_line(op->identity, 255, line);
    if (line[0] != '\0')
        cli_tell(cli, "%-13s %s", "identity", line);
    cli_tell(cli, "%-13s %s", "state", wb_idem_state_name(item->state));
    cli_tell(cli, "%-13s %s", "since", cli_when(cli, item->since_ms, when));
    cli_tell(cli, "%-13s %s", "ends",
        item->ends_ms == 0 ? "never" : cli_when(cli, item->ends_ms, when));
    if (item->state != WB_IDEM_DONE)
        return;
    cli_tell(cli, "%-13s %d", "status", item->status);
    cli_tell(cli, "%-13s %zu bytes", "record", item->bytes);
}

static enum cli_exit
run_show(struct cli *cli, struct wb_idem *store)
{
    struct wb_idem_op op = op_of_args(cli);
    struct wb_idem_result result = {0};
    struct wb_idem_item item = {0};
    struct wb_err err = {0};
    json_t *object;
    enum wb_status rc = wb_idem_peek(store, &op, &item, &err);

    if (rc == WB_OK && cli->json && item.state == WB_IDEM_DONE)
        rc = wb_idem_lookup(store, &op, &result, &err);
    if (rc != WB_OK)
        return rc == WB_EMPTY ? CLI_NOTHING : cli_fail(cli, &err);
    if (!cli->json) {
        say_item(cli, &op, &item);
        return CLI_DONE;
    }
    object = item_object(&op, &item);
    if (object != NULL && item.state == WB_IDEM_DONE)
        add_record(cli, object, &result.record);
    wb_idem_result_free(&result);
    return cli_json(cli, object);
}

/* ---- release, settle --------------------------------------------------- */

static enum cli_exit
freed(struct cli *cli, const struct wb_idem_op *op, enum wb_idem_state was)
{
    char line[4 * 255 + 1];

    (void)wb__one_line(op->key, 255, line);
    cli_say(cli, "key %s is free; it was %s", line, wb_idem_state_name(was));
    if (!cli->json)
        return CLI_DONE;
    return cli_json(cli, json_pack("{s:o, s:s, s:b}", "key", cli_str(op->key),
                             "was", wb_idem_state_name(was), "freed", 1));
}

static enum cli_exit
run_release(struct cli *cli, struct wb_idem *store)
{
    struct wb_idem_op op = op_of_args(cli);
    struct wb_idem_item item = {0};
    struct wb_err err = {0};

    if (wb_idem_forget(store, &op, &item, &err) != WB_OK)
        return cli_fail(cli, &err);
    return freed(cli, &op, item.state);
}

/* What can be replayed: by `once` an exit status, by a gateway, whose scopes
 * are METHOD /path, one of HTTP; of other scopes nothing is known here. */
static bool
read_status(struct cli *cli, const struct wb_idem_op *op, int *status)
{
    bool once = wb__eq(op->scope, WB_LIT("once"));
    bool http = memchr(op->scope.ptr, ' ', op->scope.len) != NULL;
    uint64_t min = http ? 200 : 0, max = http ? 599 : once ? 255 : 65535;
    uint64_t n = min;

    if (cli_has(cli, "status") &&
        (!wb__parse_u64(cli_slice(cli, "status"), max, &n) || n < min)) {
        (void)cli_usage(cli, "--status '%s': of this scope take %llu to %llu",
            cli_text(cli, "status"), (unsigned long long)min,
            (unsigned long long)max);
        return false;
    }
    *status = (int)n;
    return true;
}

static enum cli_exit
run_settle(struct cli *cli, struct wb_idem *store)
{
    struct wb_idem_op op = op_of_args(cli);
    struct wb_idem_record record = {.body = cli_slice(cli, "body"),
        .ttl_ms = cli_ms(cli, "ttl", WB_IDEM_TTL_MS)};
    bool is_done = cli_has(cli, "done");
    struct wb_err err = {0};

    if (is_done == cli_has(cli, "not-applied"))
        return cli_usage(cli, "settle: give --done or --not-applied");
    if (!read_status(cli, &op, &record.status))
        return CLI_USAGE;
    if (wb_idem_settle(store, &op, is_done ? &record : NULL, &err) != WB_OK)
        return cli_fail(cli, &err);
    if (!is_done)
        return freed(cli, &op, WB_IDEM_DOUBTFUL);
    cli_say(cli, "key %s is done", cli->arg[1]);
    if (!cli->json)
        return CLI_DONE;
    return cli_json(cli, json_pack("{s:o, s:s, s:i}", "key", cli_str(op.key),
                             "state", "done", "status", record.status));
}

/* ---- the command ------------------------------------------------------- */

static const struct verb {
    const char *name;
    size_t args;         /* the verb included */
    const char *options; /* beside those of all commands */
    enum cli_exit (*run)(struct cli *cli, struct wb_idem *store);
} verbs[] = {{"list", 1, "identity scope state limit", run_list},
    {"show", 2, "identity scope", run_show},
    {"release", 2, "identity scope", run_release},
    {"settle", 2, "identity scope done not-applied status body ttl",
        run_settle}};

static const char *
verb_name(const void *list, size_t i)
{
    (void)list;
    return i < WB_COUNT(verbs) ? verbs[i].name : NULL;
}

static bool
is_global(const struct cli_option *option)
{
    const struct cli_option *o = cli_globals;

    while (o->name != NULL && o != option)
        o++;
    return o->name != NULL;
}

/* An option that a verb does not look at would promise what it does not do. */
static bool
takes_options(struct cli *cli, const struct verb *verb)
{
    for (size_t i = 0; i < cli->n_values; i++) {
        const struct cli_option *option = cli->value[i].option;
        struct wb_slice rest = wb_slice(verb->options), one;
        bool known = is_global(option);

        while (!known && wb__cut(&rest, ' ', &one))
            known = wb__eq(one, wb_slice(option->name));
        if (!known) {
            (void)cli_usage(cli, "%s takes no --%s", verb->name, option->name);
            return false;
        }
    }
    return true;
}

static const struct verb *
find_verb(struct cli *cli)
{
    const char *near;

    for (size_t i = 0; i < WB_COUNT(verbs); i++) {
        if (strcmp(cli->arg[0], verbs[i].name) != 0)
            continue;
        if (cli->n_args == verbs[i].args)
            return takes_options(cli, &verbs[i]) ? &verbs[i] : NULL;
        (void)cli_usage(cli, "%s takes %s", verbs[i].name,
            verbs[i].args == 1 ? "no key" : "one key");
        return NULL;
    }
    near = cli_closest(cli->arg[0], verb_name, NULL);
    (void)cli_usage(cli, "keys '%s'?%s%s%s take list, show, release or settle",
        cli->arg[0], near != NULL ? " did you mean " : "",
        near != NULL ? near : "", near != NULL ? "?" : "");
    return NULL;
}

static bool
state_is_one(struct cli *cli)
{
    const char *state = cli_text(cli, "state");

    for (int i = 0; state != NULL && i <= WB_IDEM_DOUBTFUL; i++) {
        if (strcmp(state, wb_idem_state_name((enum wb_idem_state)i)) == 0)
            return true;
    }
    if (state != NULL)
        (void)cli_usage(
            cli, "--state '%s': take claimed, sending, done or unknown", state);
    return state == NULL;
}

static enum cli_exit
run_keys(struct cli *cli)
{
    const struct verb *verb = find_verb(cli);
    struct wb_idem_opts opts = {.env = cli->env};
    struct wb_idem *store = NULL;
    struct wb_err err = {0};
    enum cli_exit code;

    if (verb == NULL || !state_is_one(cli))
        return CLI_USAGE;
    if (cli_find_db(cli, &err) != WB_OK ||
        wb_idem_open(&store, cli->db, &opts, &err) != WB_OK)
        return cli_fail_beyond(cli, &err);
    code = verb->run(cli, store);
    wb_idem_close(store);
    return code;
}

static const struct cli_option keys_options[] = {
    {"identity", CLI_TEXT, "I", "whose key [list: all; else nobody's]", false},
    {"scope", CLI_TEXT, "S",
        "of what: once, or POST /path [list: all; else once]", false},
    {"state", CLI_TEXT, "S", "list: claimed, sending, done or unknown [all]",
        false},
    {"limit", CLI_COUNT, "N", "list: at most so many [all]", false},
    {"done", CLI_FLAG, NULL, "settle: it happened; keep a record", false},
    {"not-applied", CLI_FLAG, NULL, "settle: it did not; free the key", false},
    {"status", CLI_TEXT, "N",
        "settle --done: status of the record [0; a gateway's: 200]", false},
    {"body", CLI_TEXT, "TEXT", "settle --done: body of the record [empty]",
        false},
    {"ttl", CLI_DURATION, "D",
        "settle --done: keep it for so long; 0s: for ever [24h]", false},
    {0},
};

const struct cli_command cli_keys = {
    .name = "keys",
    .group = "Idempotency",
    .args = "list|show|release|settle [KEY] [--identity I] [--scope S] ...",
    .help = "what the idempotency store holds: look, free, settle",
    .more = "release frees a key whatever it holds: a record is forgotten, a "
            "run that goes on\ncan no longer be recorded. settle tells how an "
            "unknown outcome ended.",
    .options = keys_options,
    .min_args = 1,
    .max_args = 2,
    .run = run_keys,
    .exits = "3  no such key; settle: its outcome is not unknown",
    .examples = "waybill keys list --state unknown\n"
                "waybill keys release invoice-4711\n"
                "waybill keys settle 4711 --scope 'POST /charges' --identity "
                "acme \\\n    --done --status 201",
};
