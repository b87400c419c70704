/* sql.h - the parts of the SQL backend. */
#ifndef WB_SRC_IDEM_SQL_H
#define WB_SRC_IDEM_SQL_H

#include <stdatomic.h>

#include "db/group_commit.h"
#include "idem/idem.h"

struct wb__idem_sql {
    struct wb_idem base;           /* first */
    struct wb__commit_group group; /* all writes, and reads while it is idle */
    struct wb__mutex reading;
    struct wb__db *reader; /* for reads during a commit; opened when needed */
    struct wb__mutex waiting;
    struct wb__sql_waiter *waiters;
    uint32_t acquired; /* claims since the store was opened: when to reap */
    char *url;         /* NULL on a borrowed connection */
    struct wb__sql_clock {
        char boot[64];     /* "": the clock of the environment or server */
        atomic_bool known; /* offset_ms is that of the file */
        _Atomic int64_t offset_ms; /* of its time against wb__boot_ms() */
    } clock;
};

/* ---- sql_clock.c ------------------------------------------------------- */

/* Needs a connection. */
void wb__sql_clock_init(struct wb__idem_sql *sql);
/* In a transaction that writes, before its first wb__sql_now(): the file's
 * clock is from then on the same for all its processes. */
WB_MUST_USE enum wb_status wb__sql_clock_set(
    struct wb__idem_sql *sql, struct wb__db *db, struct wb_err *err);
int64_t wb__sql_now(const struct wb_idem *store, struct wb__db *db);

/* ---- sql_steps.c ------------------------------------------------------- */

/*
 * One step of a call, inside a transaction. Needs call->now_ms where it writes.
 * If it returns OK and has set call->decided, call->rc is the outcome; not
 * decided: the next step follows. If it fails, the transaction is rolled back
 * and the step may be run again.
 */
typedef enum wb_status wb__sql_step(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err);

wb__sql_step wb__sql_find_answer, wb__sql_acquire, wb__sql_move, wb__sql_lookup,
    wb__sql_drop_expired, wb__sql_peek, wb__sql_forget;

enum {
    WB__SQL_REAP_ROWS = 1000
};
/* Delete at most WB__SQL_REAP_ROWS expired rows; *n (may be NULL): how many. */
WB_MUST_USE enum wb_status wb__sql_reap_some(struct wb__db *db,
    const struct wb_idem *store, int64_t now_ms, int64_t *n,
    struct wb_err *err);

/* The current row of IDEM_LIST; slices are borrowed from the statement. False
 * if it has expired. */
bool wb__sql_item(struct wb__db *db, int64_t now_ms, int64_t hold_ms,
    struct wb_idem_item *item);

/* The sum, at most 2^60: what SQL adds to it does not overflow. */
int64_t wb__sql_time(int64_t from_ms, int64_t span_ms);

#endif /* WB_SRC_IDEM_SQL_H */
