/* group.h - many threads, one connection, shared commits.
 *
 * Every call is a job that runs inside a transaction. Threads queue their
 * jobs; the first becomes the leader and runs all that wait in one
 * transaction, so that they share one commit. */
#ifndef WB_SRC_DB_GROUP_H
#define WB_SRC_DB_GROUP_H

#include "db/db.h"
#include "os/os.h"

/*
 * One job. run() is called inside a transaction, by the thread that leads; it
 * must leave everything as it was unless it returns OK, keep what it finds in
 * its own fields, and bear being run again after a rollback.
 */
struct wb__job {
    enum wb_status (*run)(
        struct wb__db *db, struct wb__job *job, struct wb_err *err);
    enum wb__tx tx; /* the least it needs; NONE: to be run by itself */
    enum wb_status status;
    struct wb_err err;
    bool done, lead;
    struct wb__cond wake;
    struct wb__job *next;
};

struct wb__group {
    struct wb__db *db;
    struct wb__mutex lock; /* of the queue; never held across I/O */
    struct wb__job *first, **last;
    bool leading;
};
void wb__group_init(struct wb__group *g, struct wb__db *db);
void wb__group_fini(struct wb__group *g); /* the connection stays open */

/* Run a job; back when the transaction it ran in has ended. */
WB_MUST_USE enum wb_status wb__group_run(
    struct wb__group *g, struct wb__job *job, struct wb_err *err);
/* The same, but only if nobody else is at it. False: not run. */
WB_MUST_USE bool wb__group_try(
    struct wb__group *g, struct wb__job *job, struct wb_err *err);

#endif /* WB_SRC_DB_GROUP_H */
