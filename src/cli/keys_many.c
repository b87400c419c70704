/* keys_many.c - which keys the command line names, and how they are settled;
 * release or settle every key that the options choose; ask about keys whose
 * outcome is unknown.
 *
 * (1) The keys are listed first and then changed one by one: one that is not as
 *     it was listed is left as it is. */
#include "cli/keys.h"

/* ---- what the options say ------------------------------------------------ */

struct wb_idem_op
cli_key_of_args(const struct cli *cli)
{
    return (struct wb_idem_op){cli_slice(cli, "identity"),
        cli_has(cli, "scope") ? cli_slice(cli, "scope") : WB_LIT("once"),
        wb_slice(cli->arg[1])};
}

bool
cli_key_chosen(const struct cli *cli, const struct wb_idem_item *item)
{
    int64_t age_ms = cli->now_ms - item->since_ms;

    return cli_number(cli, "state", item->state) == item->state &&
           (!cli_has(cli, "identity") ||
               wb__eq(cli_slice(cli, "identity"), item->op.identity)) &&
           (!cli_has(cli, "scope") ||
               wb__eq(cli_slice(cli, "scope"), item->op.scope)) &&
           age_ms >= cli_ms(cli, "older-than", age_ms);
}

bool
cli_key_status(struct cli *cli, const struct wb_idem_op *op, int *status)
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

bool
cli_keys_outcome(struct cli *cli)
{
    if (cli_has(cli, "done") + cli_has(cli, "not-applied") +
            cli_has(cli, "ask") ==
        1)
        return true;
    (void)cli_usage(cli, "settle: give --done, --not-applied or --ask CMD");
    return false;
}

/* ---- the keys -------------------------------------------------------------- */

/* Of one key as it was listed. */
struct choice {
    struct wb_idem_op op;
    enum wb_idem_state state;
    int64_t since_ms;
    int status; /* of its record */
};

enum {
    ASK_BODY_MAX = 1024 * 1024
};

struct choices {
    struct cli *cli;
    struct wb__arena arena;
    struct choice *at;
    size_t n, room, limit; /* 0: all */
    bool settle, ask, dry, stopped, usage;
    json_int_t done, freed, left; /* of those that were asked about */
};

/* A run in progress is released only where its state is named: its key would be
 * free, and the next run beside it. */
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

    if (!cli_key_chosen(c->cli, item) || !may_change(c, item->state))
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
    c->usage = c->settle && !cli_key_status(c->cli, &one->op, &one->status);
    c->n++;
    return c->usage || c->n == c->limit ? WB_EMPTY : WB_OK; /* enough */
}

/* OK only if the key is still as it was chosen. */
static enum wb_status
check_unchanged(
    struct wb_idem *store, const struct choice *one, struct wb_err *err)
{
    struct wb_idem_item now;
    enum wb_status rc = wb_idem_peek(store, &one->op, &now, err);

    return rc == WB_OK &&
                   (now.state != one->state || now.since_ms != one->since_ms)
               ? WB_NOTFOUND
               : rc;
}

static enum wb_status
change_key(struct wb_idem *store, const struct choice *one,
    const struct wb_idem_record *record, struct wb_err *err)
{
    enum wb_status rc = check_unchanged(store, one, err);

    if (rc != WB_OK)
        return rc;
    return one->state == WB_IDEM_DOUBTFUL
               ? wb_idem_settle(store, &one->op, record, err)
               : wb_idem_forget(store, &one->op, NULL, err);
}

static enum wb_status
ask_and_settle(struct choices *c, struct wb_idem *store,
    const struct choice *one, struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__buf body = {.env = c->cli->env, .max = ASK_BODY_MAX};
    enum wb_status rc = check_unchanged(store, one, err);
    enum cli_answer answer = CLI_NO_ANSWER;

    if (rc != WB_OK)
        return rc;
    answer = cli_ask(c->cli, &one->op, &body, err);
    c->stopped = answer == CLI_STOPPED;
    if (c->stopped)
        rc = wb__fail(err, WB_UNAVAILABLE, 0,
            "stopped by a signal; neither this key nor those after it were "
            "asked about");
    else if (answer == CLI_NO_ANSWER)
        rc = err->status;
    else if (answer == CLI_APPLIED && !cli_has(c->cli, "body")) {
        record->body = wb__buf_slice(&body);
        if (body.failed != WB_OK)
            rc = wb__fail(err, body.failed, 0,
                "the command's output cannot be kept: %s",
                body.failed == WB_NOMEM ? "out of memory"
                                        : "it is longer than 1 MiB");
    }
    if (rc == WB_OK)
        rc = change_key(store, one, answer == CLI_APPLIED ? record : NULL, err);
    c->done += rc == WB_OK && answer == CLI_APPLIED;
    c->freed += rc == WB_OK && answer == CLI_NOT_APPLIED;
    wb__buf_fini(&body);
    return rc;
}

/* Of one key. NOTFOUND: it has changed since it was listed. */
static enum wb_status
change_one(struct choices *c, struct wb_idem *store, const struct choice *one,
    struct wb_err *err)
{
    struct wb_idem_record record = {.status = one->status,
        .body = cli_slice(c->cli, "body"),
        .ttl_ms = cli_ms(c->cli, "ttl", WB_IDEM_TTL_MS)};

    if (c->dry)
        return WB_OK;
    if (c->ask)
        return ask_and_settle(c, store, one, &record, err);
    return change_key(
        store, one, cli_has(c->cli, "done") ? &record : NULL, err);
}

/* What a dry run of --ask would ask about. */
static json_t *
list_chosen(const struct choices *c)
{
    static const char *const head[] = {"KEY", "SCOPE", "IDENTITY"};
    json_t *keys = json_array();
    struct cli_table table;

    cli_table_begin(c->cli, &table, head, WB_COUNT(head));
    for (size_t i = 0; i < c->n; i++) {
        const struct wb_idem_op *op = &c->at[i].op;

        if (c->cli->json) {
            (void)json_array_append_new(keys,
                json_pack("{s:o, s:o, s:o}", "identity", cli_str(op->identity),
                    "scope", cli_str(op->scope), "key", cli_str(op->key)));
            continue;
        }
        cli_cell_slice(&table, op->key);
        cli_cell_slice(&table, op->scope);
        cli_cell_slice(&table, op->identity);
        cli_row(&table);
    }
    (void)cli_table_end(c->cli, &table);
    return keys;
}

static enum cli_exit
print_changed(const struct choices *c, json_int_t total, json_t *by_scope)
{
    json_t *object = json_pack("{s:I, s:o, s:b}", "total", total, "by_scope",
        by_scope, "dry_run", (int)c->dry);
    char asked[128] = "";

    if (c->ask) {
        (void)json_object_set_new(object, "done", json_integer(c->done));
        (void)json_object_set_new(object, "freed", json_integer(c->freed));
        (void)json_object_set_new(object, "left", json_integer(c->left));
    }
    if (c->ask && c->dry)
        (void)json_object_set_new(object, "keys", list_chosen(c));
    else if (c->ask)
        (void)snprintf(asked, sizeof(asked),
            ": %lld done, %lld freed; %lld left as they were",
            (long long)c->done, (long long)c->freed, (long long)c->left);
    return cli_result(c->cli, object, "%lld key%s %s%s%s", (long long)total,
        total == 1 ? "" : "s", c->dry ? "would be " : "",
        c->ask && c->dry ? "asked about"
        : c->settle      ? "settled"
                         : "released",
        asked);
}

static enum cli_exit
change_chosen(struct choices *c, struct wb_idem *store)
{
    json_t *by_scope = json_object();
    json_int_t total = 0;
    bool failed = false;

    for (size_t i = 0; i < c->n && !c->stopped; i++) {
        const struct wb_slice scope = c->at[i].op.scope;
        struct wb_err err = {0};
        enum wb_status rc = change_one(c, store, &c->at[i], &err);

        if (rc == WB_NOTFOUND) /* it has changed since it was listed */
            continue;
        if (rc != WB_OK) {
            cli_print_error(
                c->cli, rc, "key %.*s: %s", WB_SHOW(c->at[i].op.key), err.msg);
            c->left += c->stopped ? (json_int_t)(c->n - i) : 1;
            failed = true;
            continue;
        }
        total++;
        (void)json_object_setn_new(by_scope, scope.ptr, scope.len,
            json_integer(1 + json_integer_value(json_object_getn(
                                 by_scope, scope.ptr, scope.len))));
    }
    if (print_changed(c, total, by_scope) != CLI_DONE)
        return CLI_FAILED;
    return failed ? CLI_SOME : CLI_DONE;
}

/* The one key that is named, if its outcome is unknown. */
static enum wb_status
choose_named(struct choices *c, struct wb_idem *store, struct wb_err *err)
{
    struct wb_idem_op op = cli_key_of_args(c->cli);
    struct wb_idem_item item = {0};
    enum wb_status rc = wb_idem_peek(store, &op, &item, err);

    item.op = op;
    if (rc == WB_EMPTY) /* no database */
        rc = wb__fail(
            err, WB_NOTFOUND, 0, "key \"%.*s\" is not known", WB_SHOW(op.key));
    if (rc == WB_OK && item.state != WB_IDEM_DOUBTFUL)
        rc = wb__fail(err, WB_NOTFOUND, 0,
            "key \"%.*s\" has no unknown outcome to settle", WB_SHOW(op.key));
    return rc != WB_OK ? rc : choose(c, &item);
}

enum cli_exit
cli_keys_many(struct cli *cli, struct wb_idem *store)
{
    struct choices c = {.cli = cli,
        .arena = {.env = cli->env},
        .limit = cli_number(cli, "limit", 0),
        .settle = strcmp(cli->arg[0], "settle") == 0,
        .ask = cli_has(cli, "ask"),
        .dry = cli_has(cli, "dry-run")};
    enum cli_exit code = CLI_USAGE;
    struct wb_err err = {0};
    enum wb_status rc;

    if (c.settle && !cli_keys_outcome(cli))
        return CLI_USAGE;
    if (cli->n_args == 1 && !cli_has(cli, "scope") &&
        !cli_has(cli, "identity") && !cli_has(cli, "state") &&
        !cli_has(cli, "older-than"))
        return cli_usage(cli,
            "%s takes one key; or, for many, --scope, --identity, --state or "
            "--older-than",
            cli->arg[0]);
    rc = cli->n_args == 1 ? wb_idem_list(store, choose, &c, &err)
                          : choose_named(&c, store, &err);
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
