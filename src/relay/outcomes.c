/* outcomes.c - outcomes of messages: pending until the next cycle commits them,
 * then counted in the report. */
#include "relay/relay.h"

static bool
outcomes_grow(const struct wb_env *env, struct wb__outcomes *o)
{
    size_t cap = o->cap == 0 ? 64 : 2 * o->cap;
    struct wb_finish *grown;

    if (o->n < o->cap)
        return true;
    grown = env->resize(env->ctx, o->finish, cap * sizeof(*grown));
    if (grown == NULL)
        return false;
    o->finish = grown;
    o->cap = cap;
    return true;
}

enum wb_status
wb__outcome_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    struct wb_slice error = result->error;
    struct wb__outcomes *o = &relay->pending;
    struct wb_finish *f;

    if (!outcomes_grow(relay->env, o))
        return WB_NOMEM;
    f = &o->finish[o->n];
    *f = (struct wb_finish){.id = message->id,
        .token = message->token,
        .seq = message->seq,
        .end = result->outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL,
        .forget = true,
        .attempts = message->attempts,
        .outcome = result->outcome,
        .retry_after_ms = result->retry_after_ms,
        .not_before_ms = relay->limits.not_before_ms,
        .retry = route->retry,
        .breaker = route->breaker};
    if (error.len > 16384)
        error.len = 16384; /* more than is ever kept of it */
    if (!wb__arena_dup(&o->errors, error, &f->error))
        return WB_NOMEM;
    o->n++;
    o->lanes |= message->lane.len > 0;
    return WB_OK;
}

static void
count_finish(struct wb_report *r, const struct wb_finish *f)
{
    if (f->status == WB_NOTFOUND)
        return; /* discarded meanwhile */
    r->attempted++;
    if (f->status != WB_OK)
        r->fenced++;
    else if (f->end == WB_CONFIRM)
        r->confirmed++;
    else if (f->end == WB_RELEASE)
        r->released++;
    else if (f->state == WB_STATE_PENDING)
        r->retried++;
    else if (f->outcome == WB_REJECTED)
        r->rejected++;
    else
        r->abandoned++;
}

size_t
wb__outcomes_left(const struct wb_relay *relay)
{
    return relay->pending.n + relay->committing.n;
}

void
wb__outcomes_take(struct wb_relay *relay)
{
    struct wb__outcomes empty = relay->committing;

    if (empty.n > 0)
        return;
    relay->committing = relay->pending;
    relay->pending = empty;
}

static void
outcomes_clear(struct wb__outcomes *o)
{
    o->n = 0;
    o->lanes = false;
    wb__arena_clear(&o->errors);
}

void
wb__outcomes_committed(struct wb_relay *relay)
{
    for (size_t i = 0; i < relay->committing.n; i++)
        count_finish(&relay->report, &relay->committing.finish[i]);
    outcomes_clear(&relay->committing);
}

void
wb__outcomes_drop(struct wb_relay *relay)
{
    outcomes_clear(&relay->committing);
    outcomes_clear(&relay->pending);
}
