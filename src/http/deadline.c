/* deadline.c - see deadline.h. */
#include "http/deadline.h"

static void on_timer(uv_timer_t *timer);

static void
sleep_for(struct wb__deadline *a, uint64_t now, uint64_t ms)
{
    a->next = now + ms;
    (void)uv_timer_start(&a->timer, on_timer, ms, 0);
}

static void
on_timer(uv_timer_t *timer)
{
    struct wb__deadline *a = (struct wb__deadline *)timer;
    uint64_t now = uv_now(timer->loop);

    if (a->due == UINT64_MAX)
        return;
    if (a->due > now) {
        sleep_for(a, now, a->due - now);
        return;
    }
    a->due = UINT64_MAX;
    a->ring(a);
}

void
wb__deadline_init(uv_loop_t *loop, struct wb__deadline *a,
    void (*ring)(struct wb__deadline *alarm))
{
    (void)uv_timer_init(loop, &a->timer);
    a->ring = ring;
    a->due = UINT64_MAX;
}

void
wb__deadline_set(struct wb__deadline *a, int64_t ms)
{
    uint64_t now = uv_now(a->timer.loop);

    a->due = now + (uint64_t)ms;
    if (!uv_is_active((const uv_handle_t *)&a->timer) || a->next > a->due)
        sleep_for(a, now, (uint64_t)ms);
}

void
wb__deadline_cancel(struct wb__deadline *a)
{
    a->due = UINT64_MAX;
}
