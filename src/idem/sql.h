/* sql.h - the parts of the SQL backend. */
#ifndef WB_SRC_IDEM_SQL_H
#define WB_SRC_IDEM_SQL_H

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
};

/* ---- sql_row.c --------------------------------------------------------- */

/* A row as it is now; slices are borrowed from the statement. */
struct wb__idem_row {
    enum wb_idem_state state;
    bool expired; /* its key is free */
    uint64_t token;
    int64_t since_ms, ends_ms;    /* 0: never; of the hold, if DOUBTFUL */
    struct wb_idem_record record; /* DONE; the fingerprint always */
};

/* The sum, at most 2^60: what SQL adds to it does not overflow. */
int64_t wb__sql_time(int64_t from_ms, int64_t span_ms);

/* Read the row of the call's operation. EMPTY if there is none, CORRUPT or
 * NEWER if it cannot be read. After OK wb__sql_found_end() must follow. Sets
 * call->now_ms. */
WB_MUST_USE enum wb_status wb__sql_find(struct wb__db *db,
    struct wb__idem_call *call, struct wb__idem_row *row, struct wb_err *err);
void wb__sql_found_end(struct wb__db *db);

/* The current row of IDEM_LIST; slices are borrowed from the statement. False
 * if it has expired. */
bool wb__sql_item(struct wb__db *db, int64_t now_ms, int64_t hold_ms,
    struct wb_idem_item *item);

/* ---- the steps of calls ------------------------------------------------ */

/*
 * One step of a call, inside a transaction. Needs call->now_ms where it writes.
 * If it returns OK and has set call->decided, call->rc is the outcome; not
 * decided: the next step follows. If it fails, the transaction is rolled back
 * and the step may be run again.
 */
typedef enum wb_status wb__sql_step(
    struct wb__db *db, struct wb__idem_call *call, struct wb_err *err);

/* To be returned by a step: the outcome is final. */
static inline enum wb_status
wb__sql_decide(struct wb__idem_call *call, enum wb_status outcome)
{
    call->decided = true;
    call->rc = outcome;
    return WB_OK;
}

/* The arguments ?1 to ?3 of every statement on one row. */
#define WB__OP_ARGS(op) \
    wb__text((op)->identity), wb__text((op)->scope), wb__text((op)->key)

static inline struct wb__val
wb__sql_fingerprint(const struct wb_fingerprint *fp)
{
    return wb__blob(
        (struct wb_slice){(const char *)fp->bytes, sizeof(fp->bytes)});
}

static inline struct wb__val
wb__sql_state(enum wb_idem_state state)
{
    return wb__text(wb_slice(wb_idem_state_name(state)));
}

/* sql_begin.c */
wb__sql_step wb__sql_find_answer, wb__sql_acquire;
enum {
    WB__SQL_REAP_ROWS = 1000
};
/* Delete at most WB__SQL_REAP_ROWS expired rows; *n (may be NULL): how many. */
WB_MUST_USE enum wb_status wb__sql_reap_some(struct wb__db *db,
    const struct wb_idem *store, int64_t now_ms, int64_t *n,
    struct wb_err *err);

/* sql_move.c */
wb__sql_step wb__sql_move, wb__sql_lookup, wb__sql_drop_expired, wb__sql_peek,
    wb__sql_forget;

#endif /* WB_SRC_IDEM_SQL_H */
