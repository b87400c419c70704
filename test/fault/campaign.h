/* campaign.h - power cuts and other faults at every operation of a workload.
 *
 * A workload runs once on a disk. In each of its operations the disk is copied
 * as a power cut would leave it, once for each loss mode; the library opens the
 * copy, which is then compared with the ledger. So there is a cut at every
 * operation, but the workload runs only once.
 *
 * (1) campaign_cut(): C1, and C2 where depth > 1: on some of the copies the
 *     workload continues, from recovery on, and is cut at each operation too.
 * (2) campaign_sync(): C3. Each sync fails once; the handle must be FAILED and
 *     write nothing more. Then no handle, another open handle, or a new handle
 *     continues, and the power is cut.
 * (3) A finding is reported with the arguments that repeat it.
 * (4) campaign_fault(): C5, C6, C7 for SQLite's files and for memory. Each
 *     write, sync, lock and allocation fails, once and without end; the
 *     workload continues as a program would. Then the power is cut in a copy;
 *     on the disk itself the faults end and every message must be delivered.
 * (5) campaign_clock(): C15. Clocks that jump days forth and back, stand still
 *     or run fast cause repeats, but lose no message. */
#ifndef WB_TEST_CAMPAIGN_H
#define WB_TEST_CAMPAIGN_H

#include "workload.h"

enum {
    CAMPAIGN_DEPTH = 3,
    CAMPAIGN_PLANS = 12
};

/* The counts of one kind of fault. */
struct campaign_plan {
    long points;
    long fired;    /* faults */
    long unfired;  /* points without one */
    long failures; /* calls that reported one */
};

struct campaign {
    /* in; 0: the default in brackets */
    uint64_t seed; /* the first one [1] */
    int seeds;     /* [1] */
    int steps;     /* calls of a run [60] */
    int depth;     /* cuts on top of each other [1] */
    int deepen;    /* one copy in so many is cut again [40]; of those,
                       one in 25 times as many a third time */
    int drain;     /* one copy in so many is drained to the end [50] */
    int every;     /* cut at every operation, or each n-th [1] */
    long only;     /* this operation of the first disk, or this sync [all] */
    enum sabotage sabotage;
    unsigned plans; /* campaign_fault(): bits, by number [all] */
    bool
        no_repair; /* campaign_sync(): open after a failure as if there was none
                    */
    /* out */
    long points[CAMPAIGN_DEPTH]; /* copies, by depth */
    long risky;   /* of them, those that could have lost something */
    long syncs;   /* that were made to fail */
    long fenced;  /* stale tokens that were refused */
    long refused; /* calls on a FAILED handle, all refused */
    long wrote;   /* of those, that wrote: must be 0 */
    struct campaign_plan plan[CAMPAIGN_PLANS];
    int64_t acked, confirmed;
    struct findings found;
    char first[160]; /* the first finding */
    /* internal */
    long after; /* campaign_sync(): enum after; campaign_fault(): the n-th */
};

void campaign_cut(struct campaign *c);
void campaign_sync(struct campaign *c);
void campaign_fault(struct campaign *c);
void campaign_clock(struct campaign *c);
const char *campaign_plan_name(int plan);

#endif /* WB_TEST_CAMPAIGN_H */
