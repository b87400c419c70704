/* campaign.h - power cuts by the hundred thousand.
 *
 * A workload runs once on a disk; in each of its operations the disk is copied
 * as a cut would leave it, once for each way of losing, and the copy is opened
 * by the library and held against the ledger. That is a cut at every
 * operation, without running the workload again for each.
 *
 * (1) campaign_cut(): C1, and C2 where depth > 1: a part of the copies goes on
 *     to work, recovery first, and is cut at each operation in turn.
 * (2) campaign_sync(): C3. Each sync fails once; the handle must be FAILED and
 *     write nothing more. Then nobody, another handle, or a new one goes on,
 *     and the power is cut.
 * (3) A finding is told with the arguments that repeat it.
 * (4) campaign_fault(): C5, C6, C7 as far as SQLite's files and memory go.
 *     Each write, sync, lock, allocation fails, once and for ever; the program
 *     goes on as a program would, the power is cut, and, on the disk itself,
 *     the trouble ends and all is delivered.
 * (5) campaign_clock(): C15. Clocks that jump days forth and back, stand still
 *     and run fast cost repeats, never a message. */
#ifndef WB_TEST_CAMPAIGN_H
#define WB_TEST_CAMPAIGN_H

#include "workload.h"

enum {
    CAMPAIGN_DEPTH = 3,
    CAMPAIGN_PLANS = 12
};

/* What came of one kind of fault. */
struct campaign_plan {
    long points;
    long fired;    /* faults */
    long unfired;  /* points without one */
    long failures; /* calls that told of one */
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
    bool no_mend; /* campaign_sync(): open after a failure as if there was none
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
    /* inside */
    long after; /* campaign_sync(): who goes on; campaign_fault(): the n-th */
};

void campaign_cut(struct campaign *c);
void campaign_sync(struct campaign *c);
void campaign_fault(struct campaign *c);
void campaign_clock(struct campaign *c);
const char *campaign_plan_name(int plan);

#endif /* WB_TEST_CAMPAIGN_H */
