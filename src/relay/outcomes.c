/* outcomes.c - the outcomes of messages, from a result to the commit of the
 * next cycle, and the events that say so.
 *
 * (1) A message that was not sent for want of our own resources is released:
 *     that costs it no attempt. */
#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    REST_MS = 1000, /* before a message that was released is claimed again */
    ERROR_BYTES = 16384 /* more of an error than is ever kept */
};

void
wb__relay_event(
    const struct wb_relay *relay, const struct wb_relay_event *event)
{
    if (relay->opts.on_event != NULL)
        relay->opts.on_event(relay->opts.event_ctx, event);
}

/* Room for one more outcome, not counted yet, with an empty note for its event.
 * NULL: no memory. */
static struct wb_finish *
outcome_new(struct wb_relay *relay)
{
    struct wb__outcomes *o = &relay->pending;

    if (!wb__array_grow(
            relay->env, &o->finish, o->n, &o->cap, sizeof(*o->finish)))
        return NULL;
    if (relay->opts.on_event != NULL) {
        if (!wb__array_grow(
                relay->env, &o->note, o->n, &o->note_cap, sizeof(*o->note)))
            return NULL;
        o->note[o->n] = (struct wb__attempt_note){0};
    }
    if (o->n == 0)
        o->extend_us = wb__relay_us(relay) + relay->opts.lease_ms * 250;
    return &o->finish[o->n];
}

/* Keep what the event will say: the route may be gone by then. */
static bool
attempt_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    struct wb__outcomes *o = &relay->pending;
    struct wb__attempt_note *note;

    if (relay->opts.on_event == NULL)
        return true;
    note = &o->note[o->n];
    note->status = result->status;
    if (relay->sent_us != 0)
        note->duration_ms = (wb__relay_us(relay) - relay->sent_us) / 1000;
    return wb__arena_dup(&o->errors, message->kind, &note->kind) &&
           wb__arena_dup(&o->errors, wb__route_scope(route), &note->scope);
}

enum wb_status
wb__outcome_note(struct wb_relay *relay, const struct wb_route *route,
    const struct wb_claimed *message, const struct wb_result *result)
{
    /* The receiver says when it will have time: for every message. */
    bool busy = result->outcome == WB_RETRY && result->retry_after_ms > 0 &&
                (result->status == 429 || result->status == 503);
    struct wb_slice error = result->error;
    struct wb__outcomes *o = &relay->pending;
    struct wb_finish *f = outcome_new(relay);

    if (f == NULL || !attempt_note(relay, route, message, result))
        return WB_NOMEM;
    *f = (struct wb_finish){.id = message->id,
        .token = message->token,
        .seq = message->seq,
        .end = result->outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL,
        .forget = true,
        .attempts = message->attempts,
        .outcome = result->outcome,
        .retry_after_ms = result->retry_after_ms,
        .rest = busy,
        .no_attempt = busy && route->busy_is_free,
        .not_before_ms = relay->limits.not_before_ms,
        .retry = route->retry,
        .breaker = route->breaker};
    if (result->no_resource && result->outcome == WB_RETRY) {
        int64_t now_ms = wb__outbox_now(relay->box);

        f->end = WB_RELEASE;
        f->not_before_ms = wb__sat_add(now_ms, REST_MS);
    }
    if (route->scope_of != NULL && f->end != WB_RELEASE &&
        !wb__arena_dup(&o->errors, message->scope, &f->scope))
        return WB_NOMEM;
    if (error.len > ERROR_BYTES)
        error.len = ERROR_BYTES;
    if (!wb__arena_dup(&o->errors, error, &f->error))
        return WB_NOMEM;
    o->n++;
    o->lanes |= message->lane.len > 0;
    return WB_OK;
}

void
wb__deferral_note(
    struct wb_relay *relay, const struct wb_claimed *message, int64_t until_ms)
{
    struct wb__outcomes *o = &relay->pending;
    struct wb_finish *f = outcome_new(relay);

    if (f == NULL)
        return;
    *f = (struct wb_finish){.id = message->id,
        .token = message->token,
        .seq = message->seq,
        .end = WB_RELEASE,
        .not_before_ms = until_ms};
    o->n += wb__arena_dup(&o->errors, message->scope, &f->scope);
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
    o->gone = NULL;
    o->lanes = false;
    wb__arena_clear(&o->errors);
}

static void
attempt_event(const struct wb_relay *relay, size_t i)
{
    const struct wb_finish *f = &relay->committing.finish[i];
    const struct wb__attempt_note *note = &relay->committing.note[i];
    struct wb_relay_event event = {.type = WB_RELAY_ATTEMPT,
        .id = f->id,
        .kind = note->kind,
        .error = f->end == WB_CONFIRM ? (struct wb_slice){0} : f->error,
        .attempt = f->attempts,
        .outcome = f->outcome,
        .state = f->state,
        .status = note->status,
        .duration_ms = note->duration_ms};

    if (f->status == WB_FENCED)
        event.type = WB_RELAY_LEASE_LOST;
    if (f->end != WB_RELEASE)
        wb__relay_event(relay, &event);
    if (f->breaker_change != WB_BREAKER_SAME)
        wb__relay_event(
            relay, &(struct wb_relay_event){
                       .type = f->breaker_change == WB_BREAKER_OPENED
                                   ? WB_RELAY_BREAKER_OPENED
                                   : WB_RELAY_BREAKER_CLOSED,
                       .kind = note->kind,
                       .scope = note->scope,
                       .error = event.error});
}

static void
count_retry(struct wb_report *r, int64_t due_ms)
{
    r->retried++;
    if (r->next_retry_ms == 0 || due_ms < r->next_retry_ms)
        r->next_retry_ms = due_ms;
}

void
wb__outcomes_committed(struct wb_relay *relay)
{
    struct wb_report *r = &relay->report;

    for (size_t i = 0; i < relay->committing.n; i++) {
        const struct wb_finish *f = &relay->committing.finish[i];

        if (f->status == WB_NOTFOUND)
            continue; /* discarded meanwhile */
        if (f->end == WB_RELEASE && f->scope.len > 0) {
            relay->limits.messages++; /* deferred: it was no attempt */
            continue;
        }
        if (relay->opts.on_event != NULL)
            attempt_event(relay, i);
        r->attempted++;
        if (f->status != WB_OK)
            r->fenced++;
        else if (f->end == WB_CONFIRM)
            r->confirmed++;
        else if (f->end == WB_RELEASE)
            r->released++;
        else if (f->state == WB_STATE_PENDING)
            count_retry(r, f->due_ms);
        else if (f->outcome == WB_REJECTED)
            r->rejected++;
        else
            r->abandoned++;
    }
    outcomes_clear(&relay->committing);
}

void
wb__outcomes_drop(struct wb_relay *relay)
{
    outcomes_clear(&relay->committing);
    outcomes_clear(&relay->pending);
}
