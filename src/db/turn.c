/* turn.c - fairness between processes that write to one file.
 *
 * SQLite's busy handler sleeps and tries again, so that a process in a loop
 * starves the others for whole seconds. Here whoever wants to write takes the
 * MAIN byte of a lock file first. A process may take it again and again for a
 * slice of time; after that it queues: it must hold NEXT to wait for MAIN, so
 * that the one who queued before it goes first.
 *
 * (1) This is courtesy, not safety: SQLite's own lock keeps writers apart. A
 *     turn that does not come within PATIENCE (its holder is stopped, or the
 *     lock file is out of order) is taken for granted. */
#include "db/sqlite.h"

enum {
    SLICE_US = 5000,
    POLL_US = 100,
    PATIENCE_US = 250000
};

/* Wait for one byte, as long as there is patience left. */
static bool
wait_for(struct wb__turn *t, int byte, int *patience_us)
{
    while (!wb__lockfile_try(&t->lock, byte)) {
        if (*patience_us <= 0)
            return false;
        wb__sleep_us(POLL_US);
        *patience_us -= POLL_US;
    }
    return true;
}

void
wb__turn_take(struct wb__turn *t)
{
    int patience_us = PATIENCE_US;
    bool next;

    if (t->env->mono_us(t->env->ctx) < t->slice_end_us &&
        wb__lockfile_try(&t->lock, WB__LOCK_MAIN)) {
        t->held = true;
        return;
    }
    next = wait_for(t, WB__LOCK_NEXT, &patience_us);
    t->held = wait_for(t, WB__LOCK_MAIN, &patience_us);
    if (next)
        wb__lockfile_free(&t->lock, WB__LOCK_NEXT);
    t->slice_end_us = t->env->mono_us(t->env->ctx) + SLICE_US;
}

void
wb__turn_give(struct wb__turn *t)
{
    if (t->held)
        wb__lockfile_free(&t->lock, WB__LOCK_MAIN);
    t->held = false;
}
