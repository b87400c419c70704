/* workload.h - a seeded run of all public calls of an outbox, on a disk with
 * simulated power cuts; with a ledger of what was promised.
 *
 * (1) The same seed does the same calls in the same order.
 * (2) Two handles, as of two processes, have the file open and alternate.
 * (3) Every result is compared with the ledger at once: a claimed message was
 *     due, a duplicate is recognised, a finish with a valid token succeeds.
 * (4) Replaced tokens are tried from time to time: they must be refused.
 * (5) There is a checkpoint every 40 frames, not every 1,000. */
#ifndef WB_TEST_WORKLOAD_H
#define WB_TEST_WORKLOAD_H

#include "ledger.h"
#include "powercut_vfs.h"

/* Ways to weaken durability without the library's knowledge: the campaigns must
 * find each, except the last one, which is slow and safe. */
enum sabotage {
    SOUND,
    SYNC_NORMAL,
    SYNC_OFF,
    JOURNAL_DELETE, /* DELETE and FULL */
    LYING_SYNC,
    JOURNAL_EXTRA, /* DELETE and EXTRA */
    SABOTAGES
};
extern const char *const sabotage_name[SABOTAGES];

enum {
    HANDLES = 2,
    LANES = 3,
    CHECKPOINT_FRAMES = 40
};

struct workload {
    struct powercut *disk;
    enum sabotage sabotage;
    struct wb_env env;
    int64_t wall_ms, latest_ms;
    uint64_t random;         /* of the choice of calls */
    uint64_t library_random; /* what the library is given */
    struct wb_outbox *box[HANDLES];
    struct ledger ledger;
    struct findings found;  /* wrong answers */
    enum wb_status stopped; /* the first status that ends a run */
    bool unsure;            /* a call ended with IO */
    bool wild_clock;        /* days forth and back, frozen, fast */
    long fenced;            /* stale tokens that were refused */
    bool goes_on;           /* after a failure, continue as a program would:
                               after IO close and open again */
    long failures;          /* calls that ended with neither OK nor EMPTY */
    bool keep_open;         /* no handle is closed at random */
    bool no_repair;         /* sabotage: as if no failure had been counted */
    long io_failures, repaired;
    long calls;
    int handle, handles; /* which ones take part: from, how many */
    int last;            /* the one used last */
};

/* Zero but for disk and sabotage; seed it and give it an environment. */
void workload_init(struct workload *w, struct powercut *disk, uint64_t seed);

/* Open handle h; what fails is in w->stopped. */
void workload_open(struct workload *w, int h);
/* Close handle h; quick: without the checkpoint of the last one. */
void workload_close(struct workload *w, int h, bool quick);
/* The connection below a handle. */
sqlite3 *workload_handle(struct workload *w, int h);

/* Up to steps calls, drawn at random, until w->stopped. */
void workload_run(struct workload *w, int steps);

/* Deliver everything that is left: each message must come exactly once. */
void workload_drain(struct workload *w, int h);

/* ---- internal ----------------------------------------------------------- */

int workload_pick(struct workload *w, int n); /* 0.. n - 1 */
/* A usable handle, opened if necessary; NULL once stopped. */
struct wb_outbox *workload_some_box(struct workload *w);
/* A call returned status: counted; the run stops unless OK or EMPTY. */
void workload_call_ended(struct workload *w, enum wb_status status);
bool workload_stopped(struct workload *w, enum wb_status status);

#endif /* WB_TEST_WORKLOAD_H */
