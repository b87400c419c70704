/* group_commit.h - many threads, one connection, shared commits.
 *
 * Every operation is a job that runs inside a transaction. Threads queue their
 * jobs; one of them becomes the leader and runs all that are queued in one
 * transaction, so that they share one commit. */
#ifndef WB_SRC_DB_GROUP_COMMIT_H
#define WB_SRC_DB_GROUP_COMMIT_H

#include "db/db.h"
#include "os/os.h"

/* The lanes that jobs are going to lock: by name, or by the id of a message in
 * the lane. Each is followed by a line feed, which neither can contain. */
struct wb__lanes {
    struct wb__buf names, ids;
    size_t n;
};
void wb__lanes_add(struct wb__lanes *l, struct wb_slice name);
void wb__lanes_add_id(struct wb__lanes *l, const struct wb_id *id);

/*
 * One job, the first member of an operation's own struct. The leader's thread
 * calls run() inside a transaction, with err never NULL. run() must change
 * nothing unless it returns OK, keep its results in its own struct, and be
 * ready to run again after a rollback.
 */
struct wb__db_job {
    enum wb_status (*run)(
        struct wb__db *db, struct wb__db_job *job, struct wb_err *err);
    /* Adds the lanes that run() will lock; NULL: none. */
    void (*lanes)(const struct wb__db_job *job, struct wb__lanes *lanes);
    enum wb__tx tx;        /* the least it needs; NONE: runs by itself */
    uint64_t order;        /* of the one row it changes, if only one; see (4) */
    enum wb_status status; /* the outcome */
    struct wb_err err;
    wb__futex state; /* this and next: private to group_commit.c */
    struct wb__db_job *next;
};

struct wb__commit_group {
    struct wb__db *db;
    struct wb__mutex lock; /* of the queue; never held across I/O */
    struct wb__db_job *first, **last;
    size_t queued, expected;
    bool leading;
};
void wb__commit_group_init(struct wb__commit_group *g, struct wb__db *db);
void wb__commit_group_fini(
    struct wb__commit_group *g); /* the connection stays open */

/* Run a job; returns when the transaction it ran in has ended. */
WB_MUST_USE enum wb_status wb__commit_group_run(
    struct wb__commit_group *g, struct wb__db_job *job, struct wb_err *err);
/* Run a job if no other is queued or running; false: not run. True: job->status
 * is the outcome. */
WB_MUST_USE bool wb__commit_group_try(
    struct wb__commit_group *g, struct wb__db_job *job, struct wb_err *err);

#endif /* WB_SRC_DB_GROUP_COMMIT_H */
