/* log.c - the log of `run` and `gate`, on stderr: its options, the timer that
 * writes the counts of floods, and the events of a relay. */
#include "cli/cli.h"
#include "outbox/outbox_internal.h"

static void
open_with(const struct cli *cli, struct cli_log *l, uv_loop_t *loop,
    uint64_t format, uint64_t level)
{
    wb__log_init(&l->log, cli->env, STDERR_FILENO, (enum wb__log_format)format,
        (enum wb__log_level)level);
    (void)uv_timer_init(loop, &l->timer);
    uv_unref((uv_handle_t *)&l->timer);
    l->timer.data = l;
    l->open = true;
}

void
cli_log_open(const struct cli *cli, struct cli_log *l, uv_loop_t *loop)
{
    uint64_t quiet = cli->quiet ? WB__LOG_ERROR : WB__LOG_INFO;

    open_with(cli, l, loop,
        cli_number(cli, "log", cli->json ? WB__LOG_JSON : WB__LOG_TEXT),
        cli_number(cli, "log-level", cli->verbose ? WB__LOG_DEBUG : quiet));
}

void
cli_log_open_verbose(const struct cli *cli, struct cli_log *l, uv_loop_t *loop)
{
    open_with(
        cli, l, loop, cli->json ? WB__LOG_JSON : WB__LOG_TEXT, WB__LOG_DEBUG);
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
    if (level > l->log.level)
        return; /* most events are deliveries */
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

/* ---- events of a relay -------------------------------------------------- */

static void
log_attempt(struct cli_log *l, const struct wb_relay_event *e,
    const struct wb__log_fields *f)
{
    if (e->state == WB_STATE_ABANDONED)
        cli_log(l, WB__LOG_ERROR, "abandoned", f);
    else if (e->outcome == WB_DELIVERED)
        cli_log(l, WB__LOG_DEBUG, "delivered", f);
    else
        cli_log(l, WB__LOG_WARN, "attempt-failed", f);
}

void
cli_log_event(void *ctx, const struct wb_relay_event *e)
{
    static const struct {
        enum wb__log_level level;
        const char *event;
    } as[] = {
        [WB_RELAY_LEASE_LOST] = {WB__LOG_WARN, "lease-lost"},
        [WB_RELAY_ENDED] = {WB__LOG_ERROR, "abandoned"},
        [WB_RELAY_BREAKER_OPENED] = {WB__LOG_WARN, "breaker-opened"},
        [WB_RELAY_BREAKER_CLOSED] = {WB__LOG_INFO, "breaker-closed"},
        [WB_RELAY_DATABASE_LOST] = {WB__LOG_ERROR, "database-lost"},
        [WB_RELAY_DATABASE_FOUND] = {WB__LOG_INFO, "database-found"},
        [WB_RELAY_STANDBY] = {WB__LOG_INFO, "standby"},
        [WB_RELAY_STARTED] = {WB__LOG_INFO, "start"},
        [WB_RELAY_STOPPING] = {WB__LOG_INFO, "stopping"},
    };
    bool attempt =
        e->type == WB_RELAY_ATTEMPT || e->type == WB_RELAY_LEASE_LOST;
    const struct wb__log_fields f = {.id = wb_slice(e->id.text),
        .kind = e->kind,
        .attempt = e->attempt,
        .outcome = attempt ? wb__outcome_name(e->outcome) : NULL,
        .status = e->status,
        .error = e->error,
        .timed = attempt || e->type == WB_RELAY_DATABASE_FOUND,
        .duration_ms = e->duration_ms,
        .scope = e->scope,
        .count = e->count};

    if (e->type == WB_RELAY_ATTEMPT)
        log_attempt(ctx, e, &f);
    else if (e->type < WB_COUNT(as) && as[e->type].event != NULL)
        cli_log(ctx, as[e->type].level, as[e->type].event, &f);
}
