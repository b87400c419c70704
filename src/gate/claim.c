/* claim.c - the life of a keyed request, and who else has its key.
 *
 * A request is freed once its call is over and no job of it is under way. */
#include "gate/gate_internal.h"

int64_t
wb__gate_now(const struct wb__gate *gate)
{
    return gate->opts.env->mono_us(gate->opts.env->ctx);
}

static void
on_tick(uv_timer_t *timer)
{
    struct wb__gate *gate = timer->data;

    gate->ticking = false;
    gate->on_tick(gate);
    if (gate->first != NULL && !gate->ticking)
        wb__gate_tick(gate, WB__GATE_POLL_MS);
}

void
wb__gate_tick(struct wb__gate *gate, uint64_t ms)
{
    if (gate->ticking && ms > 0)
        return;
    gate->ticking = true;
    (void)uv_timer_start(&gate->tick, on_tick, ms, 0);
}

void
wb__keyed_account(struct wb__keyed *x)
{
    size_t now = x->body.cap + x->answer.cap + x->kept.cap + x->fields.cap;

    x->gate->bytes = x->gate->bytes - x->bytes + now;
    x->bytes = now;
}

struct wb__keyed *
wb__keyed_new(struct wb__gate *gate, struct wb__exchange *call)
{
    const struct wb_env *env = gate->opts.env;
    struct wb__keyed *x = wb__alloc(env, sizeof(*x));

    if (x == NULL)
        return NULL;
    x->gate = gate;
    x->call = call;
    x->job.keyed = x->renew.keyed = x;
    x->scope.env = x->body.env = x->fields.env = x->kept.env = x->answer.env =
        env;
    x->scope.max = 8191;
    x->body.max = gate->opts.body_bytes;
    x->fields.max = x->kept.max = 60000;
    x->answer.max = SIZE_MAX / 4; /* carry.c holds it to its limit */
    x->began_us = wb__gate_now(gate);
    x->next = gate->first;
    if (x->next != NULL)
        x->next->prev = x;
    gate->first = x;
    wb__gate_tick(gate, WB__GATE_POLL_MS);
    return x;
}

void
wb__keyed_name(struct wb__keyed *x)
{
    x->op.identity = (struct wb_slice){x->identity.text, x->identity.len};
    x->op.key = (struct wb_slice){x->key.text, x->key.len};
    x->op.scope = wb__buf_slice(&x->scope);
}

static bool
is_same(const struct wb__keyed *a, const struct wb__keyed *b)
{
    return wb__eq(a->op.key, b->op.key) && wb__eq(a->op.scope, b->op.scope) &&
           wb__eq(a->op.identity, b->op.identity);
}

size_t
wb__keyed_waiters(const struct wb__keyed *x)
{
    size_t n = 0;

    for (const struct wb__keyed *y = x->gate->first; y != NULL; y = y->next)
        n += y->stage == WB__WAITING && is_same(x, y);
    return n;
}

bool
wb__keyed_is_held_here(const struct wb__keyed *x)
{
    for (const struct wb__keyed *y = x->gate->first; y != NULL; y = y->next)
        if ((y->stage == WB__HOLDING || y->stage == WB__ENDING) &&
            is_same(x, y))
            return true;
    return false;
}

static void
free_keyed(struct wb__keyed *x)
{
    struct wb__gate *gate = x->gate;

    if (x->prev == NULL)
        gate->first = x->next;
    else
        x->prev->next = x->next;
    if (x->next != NULL)
        x->next->prev = x->prev;
    wb_idem_result_free(&x->result);
    wb__buf_fini(&x->scope);
    wb__buf_fini(&x->body);
    wb__buf_fini(&x->fields);
    wb__buf_fini(&x->kept);
    wb__buf_fini(&x->answer);
    wb__keyed_account(x);
    wb__free(gate->opts.env, x);
    if (gate->stopped)
        wb__gate_tick(gate, 0); /* which sees whether it was the last one */
}

static bool
wake_waiters(const struct wb__keyed *x)
{
    bool any = false;

    for (struct wb__keyed *y = x->gate->first; y != NULL; y = y->next) {
        y->woken |= y->stage == WB__WAITING && is_same(x, y);
        any |= y->woken;
    }
    return any;
}

void
wb__keyed_over(struct wb__keyed *x)
{
    if (x->stage == WB__ENDING && wake_waiters(x))
        wb__gate_tick(x->gate, 0);
    if (x->stage != WB__OVER)
        wb__gate_timed(x->gate, wb__gate_now(x->gate) - x->began_us);
    x->stage = WB__OVER;
    x->call = NULL;
    if (!x->job.busy && !x->renew.busy)
        free_keyed(x);
}

void
wb__keyed_refuse(struct wb__keyed *x, enum wb__gate_error problem)
{
    wb__gate_respond_error(x->call, problem);
    wb__keyed_over(x);
}
