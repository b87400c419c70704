/* sql.h - the parts of the SQL backend. */
#ifndef WB_SRC_IDEM_SQL_H
#define WB_SRC_IDEM_SQL_H

#include "db/group_commit.h"
#include "idem/idem.h"

struct wb__sql_waiter;

struct wb__idem_sql {
    struct wb_idem face;
    struct wb__commit_group
        group; /* all that writes, and reads while it is idle */
    struct wb__mutex reading;
    struct wb__db *reader; /* for reads while others commit; when needed */
    struct wb__mutex waiting;
    struct wb__sql_waiter *waiters;
    uint32_t acquired; /* since opened; says when to reap */
    char *url;         /* NULL on a borrowed connection */
};

/* A row as it stands now; slices are borrowed from the statement. */
struct wb__idem_row {
    enum wb_idem_state state;
    bool over; /* as good as none */
    uint64_t token;
    int64_t since_ms, ends_ms;    /* 0: never; of the hold, if DOUBTFUL */
    struct wb_idem_record record; /* DONE; the fingerprint always */
};

/* One call. Jobs leave their answers here. */
struct wb__idem_job {
    struct wb__db_job job; /* first */
    struct wb__idem_sql *sql;
    const struct wb_idem_op *op;
    const struct wb_fingerprint *fingerprint;
    const struct wb_idem_begin *how;
    const struct wb_idem_record *record;
    struct wb_idem_result *result;
    struct wb_idem_item *item;
    uint64_t token;
    int64_t lease_ms;
    enum wb_idem_state state;
    int64_t now_ms;
    enum wb_status outcome; /* OK, FENCED, BUSY, EMPTY, NOTFOUND */
    uint64_t n;
};

/* ---- sql_run.c --------------------------------------------------------- */

/* Run a job; *err tells of failures, not of outcomes. */
WB_MUST_USE enum wb_status wb__sql_write(
    struct wb__idem_job *job, struct wb_err *err);
/* The same for one that reads alone: it does not wait for commits. */
WB_MUST_USE enum wb_status wb__sql_read(
    struct wb__idem_job *job, struct wb_err *err);

struct wb__db_opts wb__sql_db_opts(const struct wb__idem_sql *sql);

/* ---- sql_row.c --------------------------------------------------------- */

/* A time that can be added to without overflow. */
int64_t wb__sql_time(int64_t from_ms, int64_t span_ms);

/* Find the operation's row: EMPTY if there is none, CORRUPT or NEWER if it
 * cannot be read. After OK wb__sql_found_end() must follow. */
WB_MUST_USE enum wb_status wb__sql_find(struct wb__db *db,
    struct wb__idem_job *job, struct wb__idem_row *row, struct wb_err *err);
void wb__sql_found_end(struct wb__db *db);
WB_MUST_USE enum wb_status wb__sql_state(
    struct wb_slice name, enum wb_idem_state *state);
/* Copy the fingerprint; false if it is malformed. */
WB_MUST_USE bool wb__sql_fingerprint(
    struct wb_slice blob, struct wb_fingerprint *out);

/* ---- sql_begin.c, sql_move.c, sql_list.c ------------------------------- */

/* The job of a call that is not BEGIN. */
struct wb__idem_job wb__sql_move_job(
    struct wb_idem *store, const struct wb__idem_call *call);
/* The job of a BEGIN, which has been looked for: answered if its outcome is
 * OK. */
enum wb_status wb__sql_begin_job(struct wb_idem *store,
    const struct wb__idem_call *call, struct wb__idem_job *job);

void wb__sql_many(
    struct wb_idem *store, struct wb__idem_call *const *call, size_t n);

enum wb_status wb__sql_begin(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_fingerprint *fingerprint, const struct wb_idem_begin *how,
    struct wb_idem_result *result, struct wb_err *err);
enum wb_status wb__sql_complete(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token,
    const struct wb_idem_record *record, struct wb_err *err);
enum wb_status wb__sql_release(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);
enum wb_status wb__sql_extend(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, int64_t lease_ms,
    struct wb_err *err);
enum wb_status wb__sql_mark(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, enum wb_idem_state state, struct wb_err *err);
enum wb_status wb__sql_settle(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_idem_record *record,
    struct wb_err *err);
enum wb_status wb__sql_lookup(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_result *result,
    struct wb_err *err);
enum wb_status wb__sql_store(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err);
enum wb_status wb__sql_peek(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err);
enum wb_status wb__sql_forget(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);
enum wb_status wb__sql_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err);
enum wb_status wb__sql_reap(
    struct wb_idem *store, uint64_t *n, struct wb_err *err);

#endif /* WB_SRC_IDEM_SQL_H */
