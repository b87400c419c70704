/* log.c - the log of `run` and `gate`, on stderr: its options, and the timer
 * that writes the counts of floods. */
#include "cli/cli.h"

void
cli_log_open(const struct cli *cli, struct cli_log *l, uv_loop_t *loop)
{
    uint64_t quiet = cli->quiet ? WB__LOG_ERROR : WB__LOG_INFO;
    uint64_t format =
        cli_number(cli, "log", cli->json ? WB__LOG_JSON : WB__LOG_TEXT);

    wb__log_init(&l->log, cli->env, STDERR_FILENO, (enum wb__log_format)format,
        (enum wb__log_level)cli_number(
            cli, "log-level", cli->verbose ? WB__LOG_DEBUG : quiet));
    (void)uv_timer_init(loop, &l->timer);
    uv_unref((uv_handle_t *)&l->timer);
    l->timer.data = l;
    l->open = true;
}

static void
on_timer(uv_timer_t *timer)
{
    struct cli_log *l = timer->data;
    int64_t ms = wb__log_tick(&l->log);

    if (ms > 0)
        (void)uv_timer_start(timer, on_timer, (uint64_t)ms, 0);
}

void
cli_log(struct cli_log *l, enum wb__log_level level, const char *event,
    const struct wb__log_fields *fields)
{
    wb__log(&l->log, level, event, fields);
    on_timer(&l->timer);
}

void
cli_log_close(struct cli_log *l)
{
    if (!l->open)
        return;
    l->open = false;
    uv_close((uv_handle_t *)&l->timer, NULL);
    wb__log_fini(&l->log);
}
