/* args.c - reads the words of a command line by the tables of the commands.
 *
 * (1) Every option and argument is checked by its type here: a command never
 *     sees a malformed number, time, token, id or name.
 * (2) Options that hold for all commands are taken before and after the
 *     command; `--` ends the options.
 * (3) A usage error names the word and, if there is one, the nearest name. */
#include "cli/cli.h"
#include "outbox/outbox_internal.h"

const struct cli_option cli_globals[] = {
    {"db", CLI_FILE, "URL",
        "database [$WAYBILL_DB, else "
        "$XDG_STATE_HOME/waybill/waybill.db]"},
    {"config", CLI_FILE, "FILE",
        "Lua configuration [$WAYBILL_CONFIG, else "
        "$XDG_CONFIG_HOME/waybill/config.lua if it is there]"},
    {"json", CLI_FLAG, NULL, "one JSON object a line on stdout"},
    {"quiet", CLI_FLAG, NULL, "no output but results and errors"},
    {"verbose", CLI_FLAG, NULL, "progress on stderr, terminal or not"},
    {"help", CLI_FLAG, NULL, "this help"},
    {"version", CLI_FLAG, NULL, "the version"},
    {0},
};

/* ---- the nearest name --------------------------------------------------- */

void
cli_nearest_add(
    struct cli_nearest *nearest, struct wb_slice word, const char *name)
{
    struct wb_slice candidate = wb_slice(name);
    size_t d =
        wb__starts(candidate, word) ? 1 : wb__edit_distance(word, candidate);

    /* More than two letters off is another word. */
    if (d < (nearest->name != NULL ? nearest->distance : 3) &&
        d < candidate.len) {
        nearest->name = name;
        nearest->distance = d;
    }
}

/* ---- values by type ----------------------------------------------------- */

/* An option of the command, else a global one; NULL: there is none. */
static const struct cli_option *
find_option(const struct cli *cli, struct wb_slice name)
{
    const struct cli_option *lists[] = {
        cli->command != NULL ? cli->command->options : NULL, cli_globals};

    for (size_t i = 0; i < WB_COUNT(lists); i++) {
        for (const struct cli_option *o = lists[i]; o != NULL && o->name; o++) {
            if (wb__eq(wb_slice(o->name), name))
                return o;
        }
    }
    return NULL;
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
        err, WB_INVALID, 0, "not a share; give 0.25 or 25%%, at most 1");
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
        return wb__fail(
            err, WB_INVALID, 0, "not a kind; give 1 to 64 of a-z 0-9 _ . -");
    if ((type == CLI_NAME || type == CLI_PREFIX) &&
        (s.len < 1 || s.len > max || !wb__printable(s)))
        return wb__fail(err, WB_INVALID, 0,
            "give 1 to %zu bytes of printable characters", max);
    if (type == CLI_ID && !wb__uuid_parse(s, &id))
        return wb__fail(err, WB_INVALID, 0, "not an id; give a UUID in full");
    if (type == CLI_FILE && s.len == 0)
        return wb__fail(err, WB_INVALID, 0, "empty; give a name");
    return WB_OK;
}

static enum wb_status
parse_value(const struct cli *cli, enum cli_type type, const char *choices,
    const char *text, uint64_t *n, struct wb_err *err)
{
    struct wb_slice s = wb_slice(text), rest = wb_slice(choices), choice;
    enum wb_state state;
    int64_t ms = 0;
    enum wb_status rc;

    switch (type) {
    case CLI_TOKEN:
    case CLI_COUNT:
    case CLI_BATCH:
    case CLI_HTTP_STATUS:
        return parse_number(type, s, n, err);
    case CLI_SHARE:
        return parse_share(s, n, err);
    case CLI_BYTES:
        rc = wb__parse_size(s, &ms, err);
        *n = rc == WB_OK ? (uint64_t)ms : 0;
        return rc;
    case CLI_CHOICE:
        for (*n = 0; wb__cut(&rest, '|', &choice); ++*n)
            if (wb__eq(choice, s))
                return WB_OK;
        return wb__fail(err, WB_INVALID, 0, "give %s", choices);
    case CLI_STATUS:
        if (!wb__state_parse(s, &state))
            return wb__fail(err, WB_INVALID, 0,
                "no such status; give pending, held, processing, abandoned or "
                "delivered");
        *n = (uint64_t)state;
        return WB_OK;
    case CLI_DURATION:
    case CLI_SPAN:
        rc = wb__parse_duration(s, &ms, err);
        if (rc == WB_OK && ms == 0 && type == CLI_SPAN)
            rc = wb__fail(err, WB_INVALID, 0, "give more than 0");
        break;
    case CLI_TIME:
        rc = wb__parse_time(s, cli->now_ms, &ms, err);
        break;
    case CLI_WHEN:
    case CLI_PAST:
        rc = wb__parse_duration(s, &ms, NULL);
        if (rc == WB_OK)
            ms = wb__sat_add(cli->now_ms, type == CLI_WHEN ? ms : -ms);
        else
            rc = wb__parse_time(s, cli->now_ms, &ms, NULL);
        if (rc != WB_OK)
            rc = wb__fail(err, WB_INVALID, 0,
                "neither a time (2026-11-20T18:00:00Z) nor a duration (30s, "
                "5m, 2h, 7d)");
        break;
    default:
        return parse_name(type, s, err);
    }
    *n = (uint64_t)ms;
    return rc;
}

/* ---- words -------------------------------------------------------------- */

struct words {
    char **word;
    int n, at;
    bool options_ended; /* `--` was seen */
};

static enum cli_exit
unknown_option(struct cli *cli, const char *word)
{
    const struct cli_option *o =
        cli->command != NULL ? cli->command->options : NULL;
    struct wb_slice name, rest = wb_slice(word + 2);
    struct cli_nearest nearest = {0};

    if (word[1] != '-')
        return cli_usage(cli,
            "unknown option %s; options are long (--help lists them), and -- "
            "goes before an argument that begins with -",
            word);
    if (wb__cut(&rest, '=', &name)) {
        for (; o != NULL && o->name != NULL; o++)
            cli_nearest_add(&nearest, name, o->name);
        for (o = cli_globals; o->name != NULL; o++)
            cli_nearest_add(&nearest, name, o->name);
    }
    if (nearest.name != NULL)
        return cli_usage(
            cli, "unknown option %s; did you mean --%s?", word, nearest.name);
    if (cli->command == NULL)
        return cli_usage(cli,
            "unknown option %s before the command; see waybill --help", word);
    return cli_usage(cli, "unknown option %s; see waybill %s --help", word,
        cli->command->name);
}

static enum cli_exit
take_option(struct cli *cli, struct words *w, const char *word)
{
    struct wb_slice rest = wb_slice(word + 2), name = {0};
    struct wb_err err = {0};
    struct cli_value v = {0};

    if (word[1] == '-' && wb__cut(&rest, '=', &name))
        v.option = find_option(cli, name);
    if (v.option == NULL)
        return unknown_option(cli, word);
    if (name.ptr[name.len] == '=')
        v.text = name.ptr + name.len + 1;
    if (v.option->type == CLI_FLAG) {
        if (v.text != NULL)
            return cli_usage(cli, "--%s takes no value", v.option->name);
    } else {
        if (v.text == NULL && w->at < w->n)
            v.text = w->word[w->at++];
        if (v.text == NULL)
            return cli_usage(cli, "--%s needs a value: --%s %s", v.option->name,
                v.option->name, v.option->arg);
        if (parse_value(cli, v.option->type, v.option->arg, v.text, &v.n,
                &err) != WB_OK)
            return cli_usage(
                cli, "--%s '%s': %s", v.option->name, v.text, err.msg);
    }
    cli->value[cli->n_values++] = v;
    return CLI_DONE;
}

static enum cli_exit
take_command(struct cli *cli, const char *word)
{
    struct cli_nearest nearest = {0};

    for (size_t i = 0; cli->commands[i] != NULL; i++) {
        if (strcmp(cli->commands[i]->name, word) == 0) {
            cli->command = cli->commands[i];
            return CLI_DONE;
        }
        cli_nearest_add(&nearest, wb_slice(word), cli->commands[i]->name);
    }
    if (nearest.name != NULL)
        return cli_usage(
            cli, "unknown command '%s'; did you mean %s?", word, nearest.name);
    return cli_usage(
        cli, "unknown command '%s'; waybill --help lists them", word);
}

static enum cli_exit
take_word(struct cli *cli, struct words *w)
{
    const char *word = w->word[w->at++];

    if (!w->options_ended && strcmp(word, "--") == 0) {
        w->options_ended = true;
        return CLI_DONE;
    }
    if (!w->options_ended && strcmp(word, "-h") == 0)
        return take_option(cli, w, "--help");
    if (!w->options_ended && strcmp(word, "-V") == 0)
        return take_option(cli, w, "--version");
    if (!w->options_ended && word[0] == '-' && word[1] != '\0')
        return take_option(cli, w, word);
    if (cli->command == NULL && strcmp(word, "help") == 0)
        return take_option(cli, w, "--help");
    if (cli->command == NULL)
        return take_command(cli, word);
    if (cli->n_args == cli->command->n_args + cli->command->optional_args)
        return cli_usage(cli,
            "one argument too many: '%s'; usage: waybill %s %s", word,
            cli->command->name, cli->command->args);
    cli->arg[cli->n_args++] = word;
    return CLI_DONE;
}

/* Nothing is missing, and the arguments are of their type. */
static enum cli_exit
check_complete(struct cli *cli)
{
    const struct cli_command *c = cli->command;
    struct wb_slice rest, name;
    struct wb_err err;
    uint64_t n;

    if (cli_has(cli, "help") || cli_has(cli, "version"))
        return CLI_DONE;
    if (c == NULL)
        return cli_usage(cli, "no command; waybill --help lists them");
    if (cli->json && c->no_json)
        return cli_usage(cli, "--json has no meaning here; leave it out");
    if (cli->n_args < c->n_args)
        return cli_usage(cli, "an argument is missing; usage: waybill %s %s",
            c->name, c->args);
    rest = wb_slice(c->required);
    while (wb__cut(&rest, ' ', &name)) {
        const struct cli_option *o = find_option(cli, name);

        WB_ASSERT(o != NULL);
        if (!cli_has(cli, o->name))
            return cli_usage(cli, "--%s %s is missing; see waybill %s --help",
                o->name, o->arg, c->name);
    }
    for (size_t i = 0; i < (c->optional_args == CLI_MANY ? cli->n_args : 1);
         i++) {
        if (i < cli->n_args && parse_value(cli, c->arg_type, c->args,
                                   cli->arg[i], &n, &err) != WB_OK)
            return cli_usage(cli, "'%.60s': %s", cli->arg[i], err.msg);
    }
    return CLI_DONE;
}

enum cli_exit
cli_parse(struct cli *cli, int argc, char **argv)
{
    struct words w = {argv, argc, 1, false};
    size_t max = (size_t)argc + 1;
    enum cli_exit rc = CLI_DONE;

    /* An error in an early word is printed as a later --json demands. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        cli->json = cli->json || strcmp(argv[i], "--json") == 0;
    cli->value = wb__alloc(cli->env, max * sizeof(*cli->value));
    cli->arg = wb__alloc(cli->env, max * sizeof(*cli->arg));
    if (cli->value == NULL || cli->arg == NULL)
        return cli_nomem(cli, "the command line");
    while (rc == CLI_DONE && w.at < w.n)
        rc = take_word(cli, &w);
    if (rc == CLI_DONE)
        cli->json = cli_has(cli, "json"); /* it may be the value of an option */
    if (rc == CLI_DONE)
        rc = check_complete(cli);
    cli->quiet = cli_has(cli, "quiet");
    cli->verbose = cli_has(cli, "verbose");
    return rc;
}

/* ---- what was given ----------------------------------------------------- */

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

struct wb_id
cli_id(const struct cli *cli, size_t at)
{
    struct wb_id id;

    WB_ASSERT(wb__uuid_parse(wb_slice(cli->arg[at]), &id));
    return id;
}

/* In a match 0 means any time: a time of 1970 or before becomes 1. */
static int64_t
past_ms(const struct cli *cli, const char *name)
{
    int64_t ms = cli_ms(cli, name, 0);

    return cli_has(cli, name) && ms < 1 ? 1 : ms;
}

struct wb_match
cli_match(const struct cli *cli)
{
    return (struct wb_match){.key = cli_slice(cli, "key"),
        .key_prefix = cli_slice(cli, "key-prefix"),
        .lane = cli_slice(cli, "lane"),
        .error = cli_slice(cli, "error"),
        .created_from_ms = past_ms(cli, "since"),
        .created_before_ms = past_ms(cli, "until")};
}
