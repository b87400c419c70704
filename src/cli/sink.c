/* sink.c - requests in, effects down, answers out. See sink.h.
 *
 *  1. A request is answered after the flush that covers it: on_check() runs
 *     once a turn of the loop, after all input of the turn. */
#include "cli/sink.h"

#include <signal.h>
#include <stdio.h>
#include <uv.h>

#include "cli/sink_items.h"
#include "http/server.h"

enum {
    HEAD_BYTES = 64 << 10,
    CONNS = 4096
};

struct sink {
    const struct sink_opts *opts;
    const struct wb_env *env;
    uv_loop_t loop;
    uv_check_t check;
    uv_idle_t idle; /* keeps the loop from waiting before the check */
    uv_signal_t term, intr;
    struct wb__http_server *server;
    struct sink_effects *effects;
    struct turn *queue, **queue_end; /* to be flushed and answered */
    struct turn *delayed;
    struct sink_stats stats;
    uint64_t chance;
    bool stopping;
    enum wb_status status; /* of the file; once bad, nothing is applied */
    struct wb_err err;
};

/* A request between its arrival and its answer. */
struct turn {
    struct sink *sink;
    struct turn *next, **link;
    struct wb__exchange *call;
    uv_timer_t timer;
    struct sink_stats did;
    int status;
    bool drop;
    const char *why;
};

const char *
sink_stats_text(const struct sink_stats *s, char *out)
{
    (void)snprintf(out, 256,
        "{\"received\":%llu,\"applied\":%llu,\"duplicates\":%llu,"
        "\"failed\":%llu,\"dropped\":%llu,\"effects\":%llu}",
        (unsigned long long)s->received, (unsigned long long)s->applied,
        (unsigned long long)s->duplicates, (unsigned long long)s->failed,
        (unsigned long long)s->dropped, (unsigned long long)s->effects);
    return out;
}

static const char *
stats_now(struct sink *s, char *out)
{
    s->stats.effects = sink_effects_count(s->effects);
    return sink_stats_text(&s->stats, out);
}

/* splitmix64. Each request takes two, whatever is done with them, so that
 * one option does not move the chances of the other. */
static bool
happens(struct sink *s, uint32_t ppm)
{
    uint64_t z = s->chance += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % 1000000 < ppm;
}

/* ---- answers ----------------------------------------------------------- */

static void
answer(struct wb__exchange *call, int status, const char *extra,
    struct wb_slice body)
{
    char headers[128];

    (void)snprintf(
        headers, sizeof(headers), "Content-Type: application/json\n%s", extra);
    wb__exchange_respond(call,
        &(struct wb__response){
            .status = status, .headers = wb_slice(headers), .body = body});
}

static void
answer_error(struct wb__exchange *call, int status, const char *why)
{
    char body[256];

    (void)snprintf(body, sizeof(body), "{\"error\":\"%s\"}\n", why);
    answer(call, status,
        status == 405 ? "Allow: POST, PUT, PATCH, DELETE\n" : "",
        wb_slice(body));
}

static void
answer_done(struct turn *t)
{
    const struct sink_opts *o = t->sink->opts;
    char counts[128];

    (void)snprintf(counts, sizeof(counts),
        "{\"applied\":%llu,\"duplicates\":%llu}\n",
        (unsigned long long)t->did.applied,
        (unsigned long long)t->did.duplicates);
    answer(t->call, 200, "", wb_slice(o->reply != NULL ? o->reply : counts));
}

/* The answer that was asked for by --status or --fail. */
static void
answer_fault(struct turn *t)
{
    int64_t wait_ms = t->sink->opts->retry_after_ms;
    int64_t wait_s = wb__sat_add(wait_ms, 999) / 1000;
    char extra[64] = "";

    if (wait_s > 0)
        (void)snprintf(
            extra, sizeof(extra), "Retry-After: %lld\n", (long long)wait_s);
    answer(t->call, t->status, extra, WB_LIT("{\"error\":\"asked for\"}\n"));
}

static void
finish(struct turn *t)
{
    if (t->drop)
        wb__exchange_drop(t->call);
    else if (t->why != NULL)
        answer_error(t->call, t->status, t->why);
    else if (t->status != 0)
        answer_fault(t);
    else
        answer_done(t);
}

static void
on_timer_closed(uv_handle_t *timer)
{
    struct turn *t = timer->data;

    wb__free(t->sink->env, t);
}

static void
finish_delayed(struct turn *t)
{
    *t->link = t->next;
    if (t->next != NULL)
        t->next->link = t->link;
    finish(t);
    uv_close((uv_handle_t *)&t->timer, on_timer_closed);
}

static void
on_timer(uv_timer_t *timer)
{
    finish_delayed(timer->data);
}

static void
finish_or_delay(struct turn *t)
{
    struct sink *s = t->sink;

    if (s->opts->delay_ms == 0 || s->stopping) {
        finish(t);
        wb__free(s->env, t);
        return;
    }
    (void)uv_timer_init(&s->loop, &t->timer);
    t->timer.data = t;
    (void)uv_timer_start(&t->timer, on_timer, (uint64_t)s->opts->delay_ms, 0);
    t->link = &s->delayed;
    t->next = s->delayed;
    if (t->next != NULL)
        t->next->link = &t->next;
    s->delayed = t;
}

/* ---- stopping ---------------------------------------------------------- */

static void
stop(struct sink *s)
{
    s->stopping = true;
    while (s->delayed != NULL)
        finish_delayed(s->delayed);
    wb__http_server_stop(s->server);
}

static void
close_handles(struct sink *s)
{
    uv_close((uv_handle_t *)&s->check, NULL);
    uv_close((uv_handle_t *)&s->idle, NULL);
    uv_close((uv_handle_t *)&s->term, NULL);
    uv_close((uv_handle_t *)&s->intr, NULL);
}

static void
on_stopped(void *ctx)
{
    struct sink *s = ctx;

    wb__http_server_close(s->server);
    close_handles(s);
}

/* ---- effects ----------------------------------------------------------- */

/* What was noted has not happened. */
static void
undo(struct sink *s)
{
    for (struct turn *t = s->queue; t != NULL; t = t->next) {
        if (t->did.applied + t->did.duplicates == 0)
            continue;
        t->did.failed += t->did.applied + t->did.duplicates;
        t->did.applied = t->did.duplicates = t->did.dropped = 0;
        t->drop = false;
        t->status = 503;
        t->why = "the effects could not be written";
    }
}

static void
count(struct sink *s, const struct sink_stats *did)
{
    s->stats.received += did->received;
    s->stats.applied += did->applied;
    s->stats.duplicates += did->duplicates;
    s->stats.failed += did->failed;
    s->stats.dropped += did->dropped;
}

static void
flush(struct sink *s)
{
    struct wb_err err;
    struct turn *t, *next;

    if (s->status == WB_OK) {
        enum wb_status status = sink_effects_flush(s->effects, &err);

        if (status != WB_OK)
            undo(s);
        if (status == WB_IO) {
            s->status = status;
            s->err = err;
        }
    }
    next = s->queue;
    s->queue = NULL;
    s->queue_end = &s->queue; /* an answer may bring the next request in */
    while ((t = next) != NULL) {
        next = t->next;
        count(s, &t->did);
        finish_or_delay(t);
    }
}

static void
on_check(uv_check_t *check)
{
    struct sink *s = check->data;

    (void)uv_check_stop(&s->check);
    (void)uv_idle_stop(&s->idle);
    flush(s); /* which may start both again */
    if (s->status != WB_OK && !s->stopping)
        stop(s);
}

static void
on_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void
apply(struct turn *t, struct sink_items *items)
{
    struct sink *s = t->sink;
    int64_t now_ms = s->env->wall_ms(s->env->ctx);

    while (t->why == NULL && sink_items_next(items)) {
        switch (sink_effects_add(s->effects, &items->item, now_ms)) {
        case WB_OK:
            t->did.applied++;
            break;
        case WB_EMPTY:
            t->did.duplicates++;
            break;
        default:
            t->status = 503;
            t->why = "no room to note the effect";
            t->did.failed += items->n + 1;
            break;
        }
    }
}

/* ---- requests ---------------------------------------------------------- */

static void
decide(struct turn *t, struct sink_items *items)
{
    struct sink *s = t->sink;
    bool fail = happens(s, s->opts->fail_ppm);
    bool drop = happens(s, s->opts->drop_ppm);

    t->did.received = items->n;
    if (s->status != WB_OK) {
        t->status = 503;
        t->why = "the file has failed";
    } else if (s->opts->status != 0) {
        t->status = s->opts->status;
    } else if (fail) {
        t->status = 500;
    } else {
        t->drop = drop;
        t->did.dropped = drop ? items->n : 0;
        apply(t, items);
        return;
    }
    t->did.failed = items->n;
}

static void
take_message(struct sink *s, struct wb__exchange *call)
{
    struct turn *t = wb__alloc(s->env, sizeof(*t));
    struct sink_items items;

    if (t == NULL) {
        answer_error(call, 503, "out of memory");
        return;
    }
    *t = (struct turn){.sink = s, .call = call};
    if (sink_effects_full(s->effects))
        flush(s);
    t->why = sink_items_read(&items, call->head, call->body);
    if (t->why != NULL)
        t->status = 400;
    else
        decide(t, &items);
    *s->queue_end = t;
    s->queue_end = &t->next;
    (void)uv_check_start(&s->check, on_check);
    (void)uv_idle_start(&s->idle, on_idle);
}

static void
handle(void *ctx, struct wb__exchange *call)
{
    static const struct wb_slice message[] = {
        {"POST", 4}, {"PUT", 3}, {"PATCH", 5}, {"DELETE", 6}};
    struct sink *s = ctx;
    char text[256];

    for (size_t i = 0; i < WB_COUNT(message); i++) {
        if (wb__eq(call->head->method, message[i])) {
            take_message(s, call);
            return;
        }
    }
    if (!wb__eq(call->head->path, WB_LIT("/stats")))
        answer_error(call, 405, "send messages by POST; GET /stats");
    else
        answer(call, 200, "", wb_slice(stats_now(s, text)));
}

/* ---- run --------------------------------------------------------------- */

static enum wb_status
open_server(struct sink *s, struct wb_err *err)
{
    const struct wb__http_server_opts opts = {
        .env = s->env,
        .loop = &s->loop,
        .listen = wb_slice(s->opts->listen),
        .limits = {.head_bytes = HEAD_BYTES, .body_bytes = SINK_BODY_BYTES},
        .max_conns = CONNS,
        .handle = handle,
        .stopped = on_stopped,
        .ctx = s,
    };

    return wb__http_server_open(&s->server, &opts, err);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    struct sink *s = handle->data;

    (void)number;
    if (!s->stopping) {
        stop(s);
        return;
    }
    flush(s); /* the second one is in a hurry */
    wb__http_server_close(s->server);
    close_handles(s);
}

static void
open_handles(struct sink *s)
{
    (void)uv_check_init(&s->loop, &s->check);
    (void)uv_idle_init(&s->loop, &s->idle);
    (void)uv_signal_init(&s->loop, &s->term);
    (void)uv_signal_init(&s->loop, &s->intr);
    s->check.data = s->term.data = s->intr.data = s;
    (void)uv_signal_start(&s->term, on_signal, SIGTERM);
    (void)uv_signal_start(&s->intr, on_signal, SIGINT);
}

static enum wb_status
serve(struct sink *s, struct wb_err *err)
{
    enum wb_status status = open_server(s, err);

    if (status == WB_OK) {
        open_handles(s);
        if (s->opts->ready != NULL)
            s->opts->ready(
                s->opts->ctx, wb__http_server_address(s->server), s->chance);
    }
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    return status;
}

enum wb_status
sink_run(
    const struct sink_opts *opts, struct sink_stats *stats, struct wb_err *err)
{
    struct sink s = {.opts = opts, .chance = opts->seed};
    enum wb_status status;

    s.env = opts->env != NULL ? opts->env : wb_env_system();
    s.queue_end = &s.queue;
    if (!opts->seeded)
        s.env->random(s.env->ctx, &s.chance, sizeof(s.chance));
    status = sink_effects_open(&s.effects, s.env, opts->into, err);
    if (status != WB_OK)
        return status;
    if (uv_loop_init(&s.loop) != 0) {
        sink_effects_close(s.effects);
        return wb__nomem(err, "event loop");
    }
    status = serve(&s, err);
    s.stats.effects = sink_effects_count(s.effects);
    *stats = s.stats;
    sink_effects_close(s.effects);
    WB_ASSERT(uv_loop_close(&s.loop) == 0);
    if (s.status != WB_OK && err != NULL)
        *err = s.err;
    return s.status != WB_OK ? s.status : status;
}
