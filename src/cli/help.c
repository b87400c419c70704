/* help.c - help and completions, made from the tables of commands. */
#include "cli/cli.h"

#define STATUSES "pending held processing abandoned delivered"

static void
print_indented(const char *lines)
{
    struct wb_slice rest = wb_slice(lines), line;

    while (wb__cut(&rest, '\n', &line))
        printf("  %.*s\n", (int)line.len, line.ptr);
}

static void
print_options(const char *title, const struct cli_option *o)
{
    char word[40];

    if (o == NULL)
        return;
    printf("\n%s\n", title);
    for (; o->name != NULL; o++) {
        (void)snprintf(word, sizeof(word), "--%s%s%s", o->name,
            o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
        printf("  %-20s %s\n", word, o->help);
    }
}

static void
help_command(const struct cli_command *c)
{
    printf("waybill %s - %s\n\nUsage: waybill [GLOBAL] %s %s\n", c->name,
        c->help, c->name, c->args);
    if (c->more != NULL)
        printf("\n%s\n", c->more);
    print_options("Options", c->options);
    print_options("Global options", cli_globals);
    puts("\nExit codes");
    if (!c->only_exits)
        puts("  0  done\n  1  failed; stderr says why\n  2  usage");
    if (c->exits != NULL)
        print_indented(c->exits);
    if (!c->only_exits)
        puts("  75 busy or full, try again");
    if (c->examples != NULL) {
        puts("\nExamples");
        print_indented(c->examples);
    }
}

void
cli_help(const struct cli *cli)
{
    const char *group = "";

    if (cli->command != NULL) {
        help_command(cli->command);
        return;
    }
    puts("waybill - messages neither lost nor doubled\n\n"
         "Usage: waybill [GLOBAL] COMMAND [ARGS]");
    for (size_t i = 0; cli->commands[i] != NULL; i++) {
        const struct cli_command *c = cli->commands[i];

        if (strcmp(c->group, group) != 0)
            printf("\n%s\n", c->group);
        group = c->group;
        printf("  %-12s %s\n", c->name, c->help);
    }
    print_options("Global options", cli_globals);
    puts("\nDurations are written 500ms, 30s, 5m, 2h, 7d; times as "
         "2026-11-20T18:00:00Z or now.\n"
         "waybill COMMAND --help says more; so does waybill(1).");
}

/* ---- completions: the commands, and the options of each ----------------- */

/* Text inside single quotes, specials with a backslash before them. */
static void
print_quoted(const char *text, const char *specials)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\'", stdout);
        else if (strchr(specials, *text) != NULL)
            putchar('\\');
        putchar(*text);
    }
}

/* What the first argument may be, where its usage says a|b|c; with blanks. */
static const char *
choices(const struct cli_command *c, char out[64])
{
    size_t n = strcspn(c->args, " ");

    out[0] = '\0';
    if (n >= 64 || memchr(c->args, '|', n) == NULL)
        return out;
    for (size_t i = 0; i <= n; i++)
        out[i] = (char)(i == n ? '\0' : c->args[i] == '|' ? ' ' : c->args[i]);
    return out;
}

static void
bash_words(const struct cli_option *o)
{
    for (; o != NULL && o->name != NULL; o++)
        printf(" --%s", o->name);
}

/* What may follow the options that name a file or a status. */
static void
bash_values(const struct cli_option *o)
{
    for (; o != NULL && o->name != NULL; o++) {
        if (o->type == CLI_FILE)
            printf("    --%s) of=(-f) ;;\n", o->name);
        else if (o->type == CLI_STATUS)
            printf("    --%s) of=(-W '" STATUSES "') ;;\n", o->name);
    }
}

static void
complete_bash(const struct cli *cli)
{
    const struct cli_command *const *c;
    char first[64];

    printf("# bash completion for waybill; made by `waybill completions "
           "bash`.\n"
           "_waybill() {\n"
           "  local cur=${COMP_WORDS[COMP_CWORD]} "
           "prev=${COMP_WORDS[COMP_CWORD-1]} word command='' words of\n"
           "  COMPREPLY=()\n"
           "  [ \"$cur\" != = ] || cur=\n" /* --status=S comes as three words */
           "  [ \"$prev\" != = ] || prev=${COMP_WORDS[COMP_CWORD-2]}\n"
           "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
           "    case $word in\n    ");
    for (c = cli->commands; *c != NULL; c++)
        printf("%s%s", c == cli->commands ? "" : "|", (*c)->name);
    puts(") command=$word; break ;;\n    esac\n  done\n  of=()\n"
         "  case $prev in");
    bash_values(cli_globals);
    for (c = cli->commands; *c != NULL; c++)
        bash_values((*c)->options);
    puts("  esac\n  case $command in");
    for (c = cli->commands; *c != NULL; c++) {
        printf("    %s) words='%s", (*c)->name, choices(*c, first));
        bash_words((*c)->options);
        puts("' ;;");
    }
    printf("    *) words='");
    for (c = cli->commands; *c != NULL; c++)
        printf(" %s", (*c)->name);
    printf("' ;;\n  esac\n  words+='");
    bash_words(cli_globals);
    puts("'\n  [ ${#of[@]} -gt 0 ] || of=(-W \"$words\")\n"
         "  mapfile -t COMPREPLY < <(compgen \"${of[@]}\" -- \"$cur\")\n"
         "}\ncomplete -o default -F _waybill waybill");
}

static void
zsh_options(const struct cli_option *o)
{
    for (; o != NULL && o->name != NULL; o++) {
        printf(" \\\n    '*--%s[", o->name);
        print_quoted(o->help, "[]\\:");
        printf("]");
        if (o->type == CLI_STATUS)
            printf(":status:(" STATUSES ")");
        else if (o->type != CLI_FLAG)
            printf(":%s:%s", o->arg, o->type == CLI_FILE ? "_files" : "");
        printf("'");
    }
}

static void
complete_zsh(const struct cli *cli)
{
    const struct cli_command *const *c;
    char first[64];

    puts("#compdef waybill\n# made by `waybill completions zsh`.\n"
         "local -a commands\nlocal state line\ncommands=(");
    for (c = cli->commands; *c != NULL; c++) {
        printf("  '%s:", (*c)->name);
        print_quoted((*c)->help, "\\:");
        puts("'");
    }
    printf(")\n_arguments -C");
    zsh_options(cli_globals);
    puts(" \\\n    '1:command:->command' '*::argument:->argument'\n"
         "case $state in\n"
         "command) _describe command commands ;;\n"
         "argument) case $line[1] in");
    for (c = cli->commands; *c != NULL; c++) {
        printf("  %s) _arguments", (*c)->name);
        zsh_options((*c)->options);
        zsh_options(cli_globals);
        if (choices(*c, first)[0] != '\0')
            printf(" \\\n    '1:argument:(%s)'", first);
        puts(" \\\n    '*:argument:_files' ;;");
    }
    puts("  esac ;;\nesac");
}

static void
fish_options(const char *command, const struct cli_option *o)
{
    for (; o != NULL && o->name != NULL; o++) {
        printf("complete -c waybill -l %s", o->name);
        if (command != NULL)
            printf(" -n '__fish_seen_subcommand_from %s'", command);
        if (o->type == CLI_STATUS)
            printf(" -x -a '" STATUSES "'");
        else if (o->type != CLI_FLAG)
            printf(" %s", o->type == CLI_FILE ? "-r -F" : "-x");
        printf(" -d '");
        print_quoted(o->help, "\\");
        puts("'");
    }
}

static void
complete_fish(const struct cli *cli)
{
    const struct cli_command *const *c;
    char first[64];

    puts("# fish completion for waybill; made by `waybill completions fish`.");
    fish_options(NULL, cli_globals);
    for (c = cli->commands; *c != NULL; c++) {
        printf("complete -c waybill -n __fish_use_subcommand -f -a %s -d '",
            (*c)->name);
        print_quoted((*c)->help, "\\");
        puts("'");
        if (choices(*c, first)[0] != '\0')
            printf("complete -c waybill -n '__fish_seen_subcommand_from %s' -f "
                   "-a '%s'\n",
                (*c)->name, first);
        fish_options((*c)->name, (*c)->options);
    }
}

static enum cli_exit
run_completions(struct cli *cli)
{
    static const struct {
        const char *shell;
        void (*print)(const struct cli *cli);
    } shells[] = {{"bash", complete_bash}, {"zsh", complete_zsh},
        {"fish", complete_fish}};

    cli->unwritten = NULL;
    for (size_t i = 0; i < WB_COUNT(shells); i++) {
        if (strcmp(cli->arg[0], shells[i].shell) == 0) {
            shells[i].print(cli);
            return CLI_DONE;
        }
    }
    return cli_usage(
        cli, "'%s': not a known shell; give bash, zsh or fish", cli->arg[0]);
}

const struct cli_command cli_completions = {
    .name = "completions",
    .group = "Shell",
    .args = "bash|zsh|fish",
    .help = "print completions for a shell",
    .n_args = 1,
    .run = run_completions,
    .no_json = true,
    .examples = "waybill completions bash > "
                "~/.local/share/bash-completion/completions/waybill",
};
