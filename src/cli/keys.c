/* keys.c - list, show, release and settle keys of the idempotency store. */
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

/* Do the options choose it? */
static bool
chosen(const struct cli *cli, const struct wb_idem_item *item)
{
    int64_t age_ms = cli->now_ms - item->since_ms;

    return cli_number(cli, "state", item->state) == item->state &&
           (!cli_has(cli, "identity") ||
               wb__eq(cli_slice(cli, "identity"), item->op.identity)) &&
           (!cli_has(cli, "scope") ||
               wb__eq(cli_slice(cli, "scope"), item->op.scope)) &&
           age_ms >= cli_ms(cli, "older-than", age_ms);
}

static enum wb_status
list_item(void *ctx, const struct wb_idem_item *item)
{
    struct key_listing *l = ctx;
    char when[32], status[16] = "-";

    if (!chosen(l->cli, item))
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
    struct wb_idem_op op = op_of_args(cli);
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
    struct wb_idem_op op = op_of_args(cli);
    struct wb_idem_item item = {0};
    struct wb_err err = {0};

    if (wb_idem_forget(store, &op, &item, &err) != WB_OK)
        return cli_fail(cli, &err);
    return freed(cli, &op, item.state);
}

/* Of the scope `once` an exit status, of a gateway's (METHOD /path) one of
 * HTTP; of other scopes any. */
static bool
read_status(struct cli *cli, const struct wb_idem_op *op, int *status)
{
    bool once = wb__eq(op->scope, WB_LIT("once"));
    bool http = memchr(op->scope.ptr, ' ', op->scope.len) != NULL;
    uint64_t min = http ? 200 : 0, max = http ? 599 : once ? 255 : 65535;
    uint64_t n = min;

    if (cli_has(cli, "status") &&
        (!wb__parse_u64(cli_slice(cli, "status"), max, &n) || n < min)) {
        (void)cli_usage(cli, "--status '%s': for this scope give %llu to %llu",
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
    return cli_result(cli,
        json_pack("{s:o, s:s, s:i}", "key", cli_str(op.key), "state", "done",
            "status", record.status),
        "key %s is done", cli->arg[1]);
}

/* ---- many keys ---------------------------------------------------------- */

/* Of one key as it was listed. */
struct choice {
    struct wb_idem_op op;
    enum wb_idem_state state;
    int64_t since_ms;
    int status; /* of its record */
};

struct choices {
    struct cli *cli;
    struct wb__arena arena;
    struct choice *at;
    size_t n, room, limit; /* 0: all */
    bool settle, usage;
};

/* A run in progress is released only where its state is named: the next run of
 * its key would then run beside it. */
static bool
may_change(const struct choices *c, enum wb_idem_state state)
{
    if (c->settle)
        return state == WB_IDEM_DOUBTFUL;
    return state == WB_IDEM_DONE || state == WB_IDEM_DOUBTFUL ||
           cli_has(c->cli, "state");
}

static enum wb_status
choose(void *ctx, const struct wb_idem_item *item)
{
    struct choices *c = ctx;
    struct choice *one;

    if (!chosen(c->cli, item) || !may_change(c, item->state))
        return WB_OK;
    if (c->n == c->room) {
        size_t room = c->room == 0 ? 64 : 2 * c->room;
        const struct wb_env *env = c->cli->env;

        one = env->resize(env->ctx, c->at, room * sizeof(*one));
        if (one == NULL)
            return WB_NOMEM;
        c->at = one;
        c->room = room;
    }
    one = &c->at[c->n];
    *one = (struct choice){.state = item->state, .since_ms = item->since_ms};
    if (!wb__arena_dup(&c->arena, item->op.identity, &one->op.identity) ||
        !wb__arena_dup(&c->arena, item->op.scope, &one->op.scope) ||
        !wb__arena_dup(&c->arena, item->op.key, &one->op.key))
        return WB_NOMEM;
    c->usage = c->settle && !read_status(c->cli, &one->op, &one->status);
    c->n++;
    return c->usage || c->n == c->limit ? WB_EMPTY : WB_OK; /* enough */
}

/* OK only if the key is still as it was chosen. */
static enum wb_status
change_key(const struct choices *c, struct wb_idem *store,
    const struct choice *one, struct wb_err *err)
{
    struct wb_idem_record record = {.status = one->status,
        .body = cli_slice(c->cli, "body"),
        .ttl_ms = cli_ms(c->cli, "ttl", WB_IDEM_TTL_MS)};
    struct wb_idem_item now;
    enum wb_status rc;

    if (one->state == WB_IDEM_DOUBTFUL)
        return wb_idem_settle(
            store, &one->op, cli_has(c->cli, "done") ? &record : NULL, err);
    rc = wb_idem_peek(store, &one->op, &now, err);
    if (rc == WB_OK &&
        (now.state != one->state || now.since_ms != one->since_ms))
        rc = WB_NOTFOUND;
    return rc != WB_OK ? rc : wb_idem_forget(store, &one->op, NULL, err);
}

static enum cli_exit
change_chosen(struct choices *c, struct wb_idem *store)
{
    bool dry = cli_has(c->cli, "dry-run");
    json_t *by_scope = json_object();
    json_int_t total = 0;
    enum cli_exit code = CLI_DONE;

    for (size_t i = 0; i < c->n; i++) {
        const struct wb_slice scope = c->at[i].op.scope;
        struct wb_err err = {0};
        enum wb_status rc = dry ? WB_OK : change_key(c, store, &c->at[i], &err);

        if (rc == WB_NOTFOUND) /* it has changed since it was listed */
            continue;
        if (rc != WB_OK) {
            cli_print_error(
                c->cli, rc, "key %.*s: %s", WB_SHOW(c->at[i].op.key), err.msg);
            code = CLI_SOME;
            continue;
        }
        total++;
        (void)json_object_setn_new(by_scope, scope.ptr, scope.len,
            json_integer(1 + json_integer_value(json_object_getn(
                                 by_scope, scope.ptr, scope.len))));
    }
    (void)cli_result(c->cli,
        json_pack("{s:I, s:o, s:b}", "total", total, "by_scope", by_scope,
            "dry_run", (int)dry),
        "%lld key%s %s%s", (long long)total, total == 1 ? "" : "s",
        dry ? "would be " : "", c->settle ? "settled" : "released");
    return code;
}

static enum cli_exit
run_many(struct cli *cli, struct wb_idem *store)
{
    struct choices c = {.cli = cli,
        .arena = {.env = cli->env},
        .limit = cli_number(cli, "limit", 0),
        .settle = strcmp(cli->arg[0], "settle") == 0};
    enum cli_exit code = CLI_USAGE;
    struct wb_err err = {0};
    enum wb_status rc;

    if (c.settle && cli_has(cli, "done") == cli_has(cli, "not-applied"))
        return cli_usage(cli, "settle: give --done or --not-applied");
    if (!cli_has(cli, "scope") && !cli_has(cli, "identity") &&
        !cli_has(cli, "state") && !cli_has(cli, "older-than"))
        return cli_usage(cli,
            "%s takes one key; or, for many, --scope, --identity, --state or "
            "--older-than",
            cli->arg[0]);
    rc = wb_idem_list(store, choose, &c, &err);
    if (rc == WB_NOMEM)
        code = cli_nomem(cli, "the keys");
    else if (rc != WB_OK && rc != WB_EMPTY)
        code = cli_fail(cli, &err);
    else if (!c.usage)
        code = change_chosen(&c, store);
    wb__arena_clear(&c.arena);
    wb__free(cli->env, c.at);
    return code;
}

/* ---- the command -------------------------------------------------------- */

#define MANY "identity scope state older-than limit dry-run"

static const struct keys_verb {
    const char *name;
    size_t args;         /* the verb included */
    const char *options; /* beside those of all commands */
    enum cli_exit (*run)(struct cli *cli, struct wb_idem *store);
} verbs[] = {
    {"list", 1, "identity scope state older-than limit", run_list},
    {"show", 2, "identity scope", run_show},
    {"release", 2, "identity scope", run_release},
    {"release", 1, MANY, run_many},
    {"settle", 2, "identity scope done not-applied status body ttl",
        run_settle},
    {"settle", 1, MANY " done not-applied status body ttl", run_many},
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
    {"status", CLI_TEXT, "N",
        "settle --done: status of the record [0; a gateway's: 200]"},
    {"body", CLI_TEXT, "TEXT", "settle --done: body of the record [empty]"},
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
        "progress out unless --state names them.",
    .options = keys_options,
    .n_args = 1,
    .optional_args = 1,
    .run = run_keys,
    .exits = "3  no such key; settle: its outcome is not unknown",
    .examples = "waybill keys list --state unknown\n"
                "waybill keys release invoice-4711\n"
                "waybill keys settle 4711 --scope 'POST /charges' --identity "
                "acme \\\n    --done --status 201\n"
                "waybill keys settle --scope 'POST /charges' --older-than 1h "
                "\\\n    --not-applied --dry-run",
};
