/* turn.c - fairness between processes that write to one file.
 *
 * SQLite's busy handler sleeps and tries again, so that a process in a loop
 * starves the others for whole seconds. Here whoever wants to write takes the
 * MAIN byte of a lock file first. A process may take it again and again for a
 * slice of time; after that it queues, if others do: the bytes behind MAIN are
 * a corridor, entered at its end, in which nobody overtakes. Only more
 * processes than it has places for race, for its entry.
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

/* Wait for one byte, as long as there is patience left. Who is far behind
 * looks less often. */
static bool
wait_for(struct wb__turn *t, int byte, int *patience_us)
{
    while (!wb__lockfile_try(&t->lock, byte)) {
        if (*patience_us <= 0)
            return false;
        wb__sleep_us(POLL_US * (byte + 1));
        *patience_us -= POLL_US * (byte + 1);
    }
    return true;
}

/* Through the corridor, from place to place; false: it took too long. */
static bool
queue(struct wb__turn *t)
{
    int patience_us = PATIENCE_US;
    int place = WB__LOCK_LAST;

    while (wait_for(t, place, &patience_us)) {
        if (place < WB__LOCK_LAST)
            wb__lockfile_free(&t->lock, place + 1);
        if (place-- == WB__LOCK_MAIN)
            return true;
    }
    if (place < WB__LOCK_LAST)
        wb__lockfile_free(&t->lock, place + 1);
    return false;
}

void
wb__turn_take(struct wb__turn *t)
{
    bool mine = t->held || t->env->mono_us(t->env->ctx) < t->slice_end_us;

    if (!mine)
        mine = !wb__lockfile_taken(&t->lock, WB__LOCK_NEXT, WB__LOCK_LAST);
    if (t->held || (mine && wb__lockfile_try(&t->lock, WB__LOCK_MAIN))) {
        t->held = true;
        return;
    }
    t->held = queue(t);
    t->slice_end_us = t->env->mono_us(t->env->ctx) + SLICE_US;
}

void
wb__turn_give(struct wb__turn *t)
{
    if (t->held)
        wb__lockfile_free(&t->lock, WB__LOCK_MAIN);
    t->held = false;
}
