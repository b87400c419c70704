/* ask.c - ask a shell command whether an operation took effect.
 *
 * (1) Only the exit statuses 0 and 3 decide: a command that fails by itself
 *     ends with another one. Whatever else happens, the key is to be left as it
 *     is. */
#include "cli/cli.h"

enum {
    NOT_APPLIED = 3 /* 1 and 2 are what programs give when they fail */
};

static void
on_stop(int number)
{
    (void)number;
    wb__shell_stop();
}

static bool
set_variable(const char *name, struct wb_slice value)
{
    char text[8192]; /* a scope is shorter */

    (void)snprintf(text, sizeof(text), "%.*s", WB_SHOW(value));
    return strlen(text) == value.len && setenv(name, text, 1) == 0;
}

static enum cli_answer
answer_of(const struct wb__shell *s, struct wb_err *err)
{
    char span[32];

    if (s->stopped)
        return CLI_STOPPED;
    if (s->late)
        (void)wb__fail(err, WB_UNAVAILABLE, 0,
            "the command did not end within %s", cli_span(s->limit_ms, span));
    else if (s->signal != 0)
        (void)wb__fail(
            err, WB_UNAVAILABLE, 0, "signal %d ended the command", s->signal);
    else if (s->status != 0 && s->status != NOT_APPLIED)
        (void)wb__fail(err, WB_UNAVAILABLE, 0,
            "the command exited with %d, which is neither 0 nor %d", s->status,
            NOT_APPLIED);
    else
        return s->status == 0 ? CLI_APPLIED : CLI_NOT_APPLIED;
    return CLI_NO_ANSWER;
}

enum cli_answer
cli_ask(struct cli *cli, const struct wb_idem_op *op, struct wb__buf *body,
    struct wb_err *err)
{
    struct wb__shell s = {.command = cli_text(cli, "ask"),
        .limit_ms = cli_ms(cli, "ask-timeout", 30000),
        .out = body};

    if (!set_variable("WAYBILL_KEY", op->key) ||
        !set_variable("WAYBILL_SCOPE", op->scope) ||
        !set_variable("WAYBILL_IDENTITY", op->identity)) {
        (void)wb__fail(err, WB_INVALID, 0,
            "its name cannot be passed on in the environment");
        return CLI_NO_ANSWER;
    }
    cli_on_stop_signal(on_stop, 0);
    if (wb__shell_run(cli->env, &s, err) != WB_OK)
        return CLI_NO_ANSWER;
    return answer_of(&s, err);
}
