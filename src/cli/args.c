/* args.c - the words of a command line, read against the tables.
 *
 * (1) Every option is checked by its type here: a command never sees a
 *     malformed number, time, token or name.
 * (2) Options that hold for all commands are taken before and after the
 *     command; `--` ends the options.
 * (3) A usage error names the word and, where there is one, its nearest. */
#include "cli/cli.h"
#include "outbox/outbox_internal.h"

const struct cli_option cli_globals[] = {
    {"db", CLI_FILE, "URL",
        "database [$WAYBILL_DB, else "
        "$XDG_STATE_HOME/waybill/waybill.db]",
        false},
    {"config", CLI_FILE, "FILE",
        "Lua configuration [$WAYBILL_CONFIG, else "
        "$XDG_CONFIG_HOME/waybill/config.lua if it is there]",
        false},
    {"json", CLI_FLAG, NULL, "one JSON object a line on stdout", false},
    {"quiet", CLI_FLAG, NULL, "nothing but what was asked for, and errors",
        false},
    {"verbose", CLI_FLAG, NULL, "progress on stderr, terminal or not", false},
    {"help", CLI_FLAG, NULL, "this help", false},
    {"version", CLI_FLAG, NULL, "the version", false},
    {0},
};

/* ---- the nearest name -------------------------------------------------- */

const char *
cli_closest(const char *word, const char *(*name)(const void *list, size_t i),
    const void *list)
{
    const char *best = NULL, *candidate;
    size_t nearest = 3, d; /* more than two letters off is another word */

    for (size_t i = 0; (candidate = name(list, i)) != NULL; i++) {
        d = wb__starts(wb_slice(candidate), wb_slice(word))
                ? 1
                : wb__edit_distance(wb_slice(word), wb_slice(candidate));
        if (d < nearest && d < strlen(candidate)) {
            nearest = d;
            best = candidate;
        }
    }
    return best;
}

/* ---- tables ------------------------------------------------------------ */

static const struct cli_option *
find_in(const struct cli_option *list, struct wb_slice name)
{
    for (; list != NULL && list->name != NULL; list++) {
        if (wb__eq(wb_slice(list->name), name))
            return list;
    }
    return NULL;
}

static const struct cli_option *
find_option(const struct cli *cli, struct wb_slice name)
{
    const struct cli_option *o = NULL;

    if (cli->command != NULL)
        o = find_in(cli->command->options, name);
    return o != NULL ? o : find_in(cli_globals, name);
}

/* Options of the command, then the global ones. */
static const char *
option_name(const void *list, size_t i)
{
    const struct cli *cli = list;
    const struct cli_option *o =
        cli->command != NULL ? cli->command->options : NULL;

    for (; o != NULL && o->name != NULL; o++) {
        if (i-- == 0)
            return o->name;
    }
    return cli_globals[i].name;
}

static const char *
command_name(const void *list, size_t i)
{
    const struct cli *cli = list;

    return cli->commands[i] != NULL ? cli->commands[i]->name : NULL;
}

/* ---- values by type ---------------------------------------------------- */

static enum wb_status
parse_state(struct wb_slice s, uint64_t *n, struct wb_err *err)
{
    for (int i = 0; i < WB_STATES; i++) {
        if (wb__eq(s, wb_slice(wb_state_name((enum wb_state)i)))) {
            *n = (uint64_t)i;
            return WB_OK;
        }
    }
    return wb__fail(err, WB_INVALID, 0,
        "no such status; take pending, held, processing, abandoned or "
        "delivered");
}

static enum wb_status
parse_when(struct wb_slice s, int64_t now_ms, int64_t *ms, struct wb_err *err)
{
    if (wb__parse_duration(s, ms, NULL) == WB_OK) {
        *ms = wb__sat_add(now_ms, *ms);
        return WB_OK;
    }
    if (wb__parse_time(s, now_ms, ms, NULL) == WB_OK)
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "neither a time (2026-11-20T18:00:00Z) nor a duration (30s, 5m, 2h, "
        "7d)");
}

/* "0.25" or "25%" to millionths. */
static enum wb_status
parse_share(struct wb_slice s, uint64_t *n, struct wb_err *err)
{
    uint64_t whole = 0, part = 0, unit = 1000000;
    bool percent = s.len > 0 && s.ptr[s.len - 1] == '%';
    struct wb_slice rest = {s.ptr, s.len - percent}, digits;

    if (wb__cut(&rest, '.', &digits) && wb__parse_u64(digits, 100, &whole) &&
        rest.len <= 6 &&
        (rest.len == 0 || wb__parse_u64(rest, 999999, &part))) {
        for (size_t i = 0; i < rest.len; i++)
            unit /= 10;
        *n = (whole * 1000000 + part * unit) / (percent ? 100 : 1);
        if (*n <= 1000000)
            return WB_OK;
    }
    return wb__fail(
        err, WB_INVALID, 0, "not a share; take 0.25 or 25%%, at most 1");
}

static enum wb_status
refuse(struct wb_err *err, const char *what)
{
    return wb__fail(err, WB_INVALID, 0, "%s", what);
}

static enum wb_status
parse_number(
    enum cli_type type, struct wb_slice s, uint64_t *n, struct wb_err *err)
{
    uint64_t min = type == CLI_HTTP_STATUS ? 200 : 1;
    uint64_t max = type == CLI_TOKEN         ? UINT64_MAX
                   : type == CLI_BATCH       ? WB_CLAIM_MAX
                   : type == CLI_HTTP_STATUS ? 599
                                             : INT64_MAX;

    if (wb__parse_u64(s, max, n) && *n >= min)
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0, "not a whole number from %llu to %llu",
        (unsigned long long)min, (unsigned long long)max);
}

static enum wb_status
parse_name(enum cli_type type, struct wb_slice s, struct wb_err *err)
{
    size_t max = type == CLI_NAME ? 255 : CLI_PREFIX_MAX;
    struct wb_id id;

    if (type == CLI_KIND && wb__kind_check(s, NULL) != WB_OK)
        return refuse(err, "not a kind; take 1 to 64 of a-z 0-9 _ . -");
    if ((type == CLI_NAME || type == CLI_PREFIX) &&
        (s.len < 1 || s.len > max || !wb__printable(s)))
        return wb__fail(err, WB_INVALID, 0,
            "take 1 to %zu bytes of printable characters", max);
    if (type == CLI_ID && !wb__uuid_parse(s, &id))
        return refuse(err, "not an id; take a UUID in full");
    if (type == CLI_FILE && s.len == 0)
        return refuse(err, "empty; give a name");
    return WB_OK;
}

static enum wb_status
parse_value(const struct cli *cli, struct cli_value *v, struct wb_err *err)
{
    struct wb_slice s = wb_slice(v->text);
    int64_t ms = 0;
    enum wb_status rc;

    switch (v->option->type) {
    case CLI_TOKEN:
    case CLI_COUNT:
    case CLI_BATCH:
    case CLI_HTTP_STATUS:
        return parse_number(v->option->type, s, &v->n, err);
    case CLI_SHARE:
        return parse_share(s, &v->n, err);
    case CLI_STATUS:
        return parse_state(s, &v->n, err);
    case CLI_DURATION:
    case CLI_SPAN:
        rc = wb__parse_duration(s, &ms, err);
        if (rc == WB_OK && ms == 0 && v->option->type == CLI_SPAN)
            rc = refuse(err, "must be longer than 0");
        break;
    case CLI_TIME:
        rc = wb__parse_time(s, cli->now_ms, &ms, err);
        break;
    case CLI_WHEN:
        rc = parse_when(s, cli->now_ms, &ms, err);
        break;
    default:
        return parse_name(v->option->type, s, err);
    }
    v->n = (uint64_t)ms;
    return rc;
}

/* ---- words ------------------------------------------------------------- */

struct words {
    char **word;
    int n, at;
    bool ended; /* `--` was seen */
};

static enum cli_exit
unknown_option(struct cli *cli, const char *word)
{
    struct wb_slice name, rest = wb_slice(word + 2);
    char text[33] = ""; /* no name is longer */
    const char *near = NULL;

    if (word[1] != '-')
        return cli_usage(cli,
            "unknown option %s; options are long (--help lists them), and -- "
            "goes before an argument that begins with -",
            word);
    if (wb__cut(&rest, '=', &name) && name.len < sizeof(text)) {
        memcpy(text, name.ptr, name.len);
        near = cli_closest(text, option_name, cli);
    }
    if (near != NULL)
        return cli_usage(
            cli, "unknown option %s; did you mean --%s?", word, near);
    if (cli->command == NULL)
        return cli_usage(cli,
            "unknown option %s before the command; see waybill --help", word);
    return cli_usage(cli, "unknown option %s; see waybill %s --help", word,
        cli->command->name);
}

static enum cli_exit
take_value(struct cli *cli, struct cli_value v)
{
    struct wb_err err = {0};

    if (v.option->type != CLI_FLAG && parse_value(cli, &v, &err) != WB_OK)
        return cli_usage(cli, "--%s '%s': %s", v.option->name, v.text, err.msg);
    cli->value[cli->n_values++] = v;
    return CLI_DONE;
}

static enum cli_exit
take_option(struct cli *cli, struct words *w, const char *word)
{
    struct wb_slice rest = wb_slice(word + 2), name;
    struct cli_value v = {0};
    bool has_value;

    if (word[1] != '-' || !wb__cut(&rest, '=', &name))
        return unknown_option(cli, word);
    has_value = name.ptr[name.len] == '=';
    v.option = find_option(cli, name);
    if (v.option == NULL)
        return unknown_option(cli, word);
    if (v.option->type == CLI_FLAG) {
        if (has_value)
            return cli_usage(cli, "--%s takes no value", v.option->name);
        return take_value(cli, v);
    }
    v.text = has_value ? name.ptr + name.len + 1 : NULL;
    if (!has_value && w->at < w->n)
        v.text = w->word[w->at++];
    if (v.text == NULL)
        return cli_usage(cli, "--%s needs a value: --%s %s", v.option->name,
            v.option->name, v.option->arg);
    return take_value(cli, v);
}

static enum cli_exit
take_command(struct cli *cli, const char *word)
{
    const char *near;

    for (size_t i = 0; cli->commands[i] != NULL; i++) {
        if (strcmp(cli->commands[i]->name, word) == 0) {
            cli->command = cli->commands[i];
            return CLI_DONE;
        }
    }
    near = cli_closest(word, command_name, cli);
    if (near != NULL)
        return cli_usage(
            cli, "unknown command '%s'; did you mean %s?", word, near);
    return cli_usage(
        cli, "unknown command '%s'; waybill --help lists them", word);
}

static enum cli_exit
take_word(struct cli *cli, struct words *w)
{
    const char *word = w->word[w->at++];

    if (!w->ended && strcmp(word, "--") == 0) {
        w->ended = true;
        return CLI_DONE;
    }
    if (!w->ended && word[0] == '-' && word[1] != '\0')
        return take_option(cli, w, word);
    if (cli->command == NULL && strcmp(word, "help") == 0)
        return take_option(cli, w, "--help");
    if (cli->command == NULL)
        return take_command(cli, word);
    if (cli->n_args >= cli->command->max_args)
        return cli_usage(cli,
            "one argument too many: '%s'; usage: waybill %s %s", word,
            cli->command->name, cli->command->args);
    cli->arg[cli->n_args++] = word;
    return CLI_DONE;
}

static enum cli_exit
check_complete(struct cli *cli)
{
    const struct cli_command *c = cli->command;

    if (cli_has(cli, "help") || cli_has(cli, "version"))
        return CLI_DONE;
    if (c == NULL)
        return cli_usage(cli, "no command; waybill --help lists them");
    if (cli->n_args < c->min_args)
        return cli_usage(cli, "an argument is missing; usage: waybill %s %s",
            c->name, c->args);
    for (const struct cli_option *o = c->options; o != NULL && o->name; o++) {
        if (o->required && !cli_has(cli, o->name))
            return cli_usage(cli, "--%s %s is missing; see waybill %s --help",
                o->name, o->arg, c->name);
    }
    return CLI_DONE;
}

/* An error in the first word must already be told as the last one asks. */
static bool
asks_for_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0)
            return true;
    }
    return false;
}

enum cli_exit
cli_parse(struct cli *cli, int argc, char **argv)
{
    struct words w = {argv, argc, 1, false};
    size_t room = (size_t)argc + 1;
    enum cli_exit rc = CLI_DONE;
    struct wb_err err;

    cli->json = asks_for_json(argc, argv);
    cli->value = wb__alloc(cli->env, room * sizeof(*cli->value));
    cli->arg = wb__alloc(cli->env, room * sizeof(*cli->arg));
    if (cli->value == NULL || cli->arg == NULL) {
        (void)wb__nomem(&err, "the command line");
        return cli_fail(cli, &err);
    }
    while (rc == CLI_DONE && w.at < w.n)
        rc = take_word(cli, &w);
    if (rc == CLI_DONE)
        cli->json = cli_has(cli, "json"); /* and not a value that looks so */
    if (rc == CLI_DONE)
        rc = check_complete(cli);
    cli->quiet = cli_has(cli, "quiet");
    cli->verbose = cli_has(cli, "verbose");
    return rc;
}

/* ---- what was given ---------------------------------------------------- */

static const struct cli_value *
given(const struct cli *cli, const char *name)
{
    const struct cli_option *o = find_option(cli, wb_slice(name));

    WB_ASSERT(o != NULL);
    for (size_t i = cli->n_values; i > 0; i--) {
        if (cli->value[i - 1].option == o)
            return &cli->value[i - 1];
    }
    return NULL;
}

bool
cli_has(const struct cli *cli, const char *name)
{
    return given(cli, name) != NULL;
}

const char *
cli_text(const struct cli *cli, const char *name)
{
    const struct cli_value *v = given(cli, name);

    return v != NULL ? v->text : NULL;
}

struct wb_slice
cli_slice(const struct cli *cli, const char *name)
{
    return wb_slice(cli_text(cli, name));
}

uint64_t
cli_number(const struct cli *cli, const char *name, uint64_t otherwise)
{
    const struct cli_value *v = given(cli, name);

    return v != NULL ? v->n : otherwise;
}

int64_t
cli_ms(const struct cli *cli, const char *name, int64_t otherwise)
{
    return (int64_t)cli_number(cli, name, (uint64_t)otherwise);
}

bool
cli_arg_kind(struct cli *cli, size_t at, struct wb_slice *kind)
{
    struct wb_err err;

    *kind = wb_slice(cli->arg[at]);
    if (parse_name(CLI_KIND, *kind, &err) == WB_OK)
        return true;
    (void)cli_usage(cli, "'%s': %s", cli->arg[at], err.msg);
    return false;
}

bool
cli_arg_id(struct cli *cli, size_t at, struct wb_id *id)
{
    if (wb__uuid_parse(wb_slice(cli->arg[at]), id))
        return true;
    (void)cli_usage(cli, "'%s': not an id; take a UUID in full", cli->arg[at]);
    return false;
}
