/* ends.c - how messages ended since the last turn: what the next one finishes,
 * and the counts that come of it. */
#include "relay/relay.h"

static bool
ends_room(const struct wb_env *env, struct wb__outcomes *e)
{
    size_t cap = e->cap == 0 ? 64 : 2 * e->cap;
    struct wb_finish *grown;

    if (e->n < e->cap)
        return true;
    grown = env->resize(env->ctx, e->finish, cap * sizeof(*grown));
    if (grown == NULL)
        return false;
    e->finish = grown;
    e->cap = cap;
    return true;
}

enum wb_status
wb__outcome_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    struct wb_slice error = result->error;
    struct wb__outcomes *e = &relay->pending;
    struct wb_finish *f;

    if (!ends_room(relay->env, e))
        return WB_NOMEM;
    f = &e->finish[e->n];
    *f = (struct wb_finish){.id = message->id,
        .token = message->token,
        .seq = message->seq,
        .end = result->outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL,
        .forget = true,
        .attempts = message->attempts,
        .outcome = result->outcome,
        .retry_after_ms = result->retry_after_ms,
        .not_before_ms = relay->not_before_ms,
        .retry = route->retry,
        .breaker = route->breaker};
    if (error.len > 16384)
        error.len = 16384; /* more than is ever kept of it */
    if (!wb__arena_dup(&e->errors, error, &f->error))
        return WB_NOMEM;
    e->n++;
    e->lanes |= message->lane.len > 0;
    return WB_OK;
}

static void
count_finish(struct wb_report *r, const struct wb_finish *f)
{
    if (f->status == WB_NOTFOUND)
        return; /* vanished meanwhile: moves no counter */
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
ends_clear(struct wb__outcomes *e)
{
    e->n = 0;
    e->lanes = false;
    wb__arena_clear(&e->errors);
}

void
wb__outcomes_committed(struct wb_relay *relay)
{
    for (size_t i = 0; i < relay->committing.n; i++)
        count_finish(&relay->report, &relay->committing.finish[i]);
    ends_clear(&relay->committing);
}

void
wb__outcomes_drop(struct wb_relay *relay)
{
    ends_clear(&relay->committing);
    ends_clear(&relay->pending);
}
