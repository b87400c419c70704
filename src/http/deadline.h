/* deadline.h - a deadline that is moved with every step of a connection.
 *
 *  1. Moving it on costs a store: the timer below rings when the deadline that
 *     it was started for is over, and then sleeps on for what was added.
 *  2. It rings once, not before its deadline, and never once it is off. */
#ifndef WB_SRC_HTTP_DEADLINE_H
#define WB_SRC_HTTP_DEADLINE_H

#include <stdbool.h>
#include <uv.h>

struct wb__deadline {
    uv_timer_t timer; /* first; its data is the owner's */
    void (*ring)(struct wb__deadline *alarm);
    uint64_t due;  /* UINT64_MAX: off */
    uint64_t next; /* when the timer rings, if it is active */
};

void wb__deadline_init(uv_loop_t *loop, struct wb__deadline *alarm,
    void (*ring)(struct wb__deadline *alarm));
void wb__deadline_set(struct wb__deadline *alarm, int64_t ms);
void wb__deadline_cancel(struct wb__deadline *alarm);

#endif /* WB_SRC_HTTP_DEADLINE_H */
