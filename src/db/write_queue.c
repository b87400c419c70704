/* write_queue.c - fairness between processes that write to one file.
 *
 * SQLite's busy handler sleeps and tries again, so that one process in a loop
 * keeps the others out for whole seconds. Here a writer first locks the MAIN
 * byte of a lock file. For a slice of time it may lock it again without
 * queueing. After that, if others wait, it queues: the bytes NEXT to LAST are
 * the slots of a queue. A writer locks the last slot and moves up one at a
 * time, so that none overtakes another. Only if there are more writers than
 * slots do they compete for the last slot.
 *
 * (1) This is fairness, not safety: SQLite's own lock keeps writers apart. A
 *     writer that has waited for PATIENCE (the holder is stopped, or the lock
 *     file does not work) continues without MAIN. */
#include "db/sqlite.h"

enum {
    SLICE_US = 5000,
    POLL_US = 100,
    PATIENCE_US = 250000
};

/* Wait for one byte until the patience is used up. Those far behind in the
 * queue poll less often. */
static bool
wait_for(struct wb__write_queue *q, int byte, int *patience_us)
{
    while (!wb__lockfile_try(&q->lock, byte)) {
        if (*patience_us <= 0)
            return false;
        wb__sleep_us(POLL_US * (byte + 1));
        *patience_us -= POLL_US * (byte + 1);
    }
    return true;
}

/* From the last slot up to MAIN; false: it took too long. */
static bool
move_up(struct wb__write_queue *q)
{
    int patience_us = PATIENCE_US;
    int slot = WB__LOCK_LAST;

    while (wait_for(q, slot, &patience_us)) {
        if (slot < WB__LOCK_LAST)
            wb__lockfile_free(&q->lock, slot + 1);
        if (slot-- == WB__LOCK_MAIN)
            return true;
    }
    if (slot < WB__LOCK_LAST)
        wb__lockfile_free(&q->lock, slot + 1);
    return false;
}

void
wb__write_queue_enter(struct wb__write_queue *q)
{
    bool first;

    if (q->held)
        return;
    first = q->env->mono_us(q->env->ctx) < q->slice_end_us ||
            !wb__lockfile_taken(&q->lock, WB__LOCK_NEXT, WB__LOCK_LAST);
    if (first && wb__lockfile_try(&q->lock, WB__LOCK_MAIN)) {
        q->held = true;
        return;
    }
    q->held = move_up(q);
    q->slice_end_us = q->env->mono_us(q->env->ctx) + SLICE_US;
}

void
wb__write_queue_leave(struct wb__write_queue *q)
{
    if (q->held)
        wb__lockfile_free(&q->lock, WB__LOCK_MAIN);
    q->held = false;
}
