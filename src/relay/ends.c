/* ends.c - how messages ended since the last turn: what the next one finishes,
 * and the counts that come of it. */
#include "relay/relay.h"

static bool
finish_room(struct wb_relay *relay)
{
    size_t cap = relay->finish_cap == 0 ? 64 : 2 * relay->finish_cap;
    struct wb_finish *grown;

    if (relay->n_finish < relay->finish_cap)
        return true;
    grown = relay->env->resize(
        relay->env->ctx, relay->finish, cap * sizeof(*grown));
    if (grown == NULL)
        return false;
    relay->finish = grown;
    relay->finish_cap = cap;
    return true;
}

enum wb_status
wb__end_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    struct wb_slice error = result->error;
    struct wb_finish *f;

    if (!finish_room(relay))
        return WB_NOMEM;
    f = &relay->finish[relay->n_finish];
    *f = (struct wb_finish){.id = message->id,
        .token = message->token,
        .seq = message->seq,
        .end = result->outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL,
        .forget = true,
        .outcome = result->outcome,
        .retry_after_ms = result->retry_after_ms,
        .not_before_ms = relay->not_before_ms,
        .retry = route->retry,
        .breaker = route->breaker};
    if (error.len > 16384)
        error.len = 16384; /* more than is ever kept of it */
    if (!wb__arena_dup(&relay->errors, error, &f->error))
        return WB_NOMEM;
    relay->n_finish++;
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

void
wb__ends_told(struct wb_relay *relay)
{
    for (size_t i = 0; i < relay->n_finish; i++)
        count_finish(&relay->report, &relay->finish[i]);
    relay->n_finish = 0;
    wb__arena_clear(&relay->errors);
}
