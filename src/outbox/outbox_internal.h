/* outbox_internal.h - what the files of the outbox share: one connection, used
 * by many threads, on which every operation is a job that runs inside a
 * transaction (db/group_commit.h).
 *
 * An operation is a struct whose first member is the job; it also holds the
 * outbox, if its run() needs more than the connection. The public call runs it
 * with wb__commit_group_run(&box->group, &op.job, err). Unless the comment says
 * otherwise, a function below is called by a running operation only. */
#ifndef WB_SRC_OUTBOX_OUTBOX_INTERNAL_H
#define WB_SRC_OUTBOX_OUTBOX_INTERNAL_H

#include <stdatomic.h>

#include "base/base.h"
#include "db/group_commit.h"
#include "waybill/outbox.h"

/* Random bytes, fetched in blocks: one by one they cost a system call each. A
 * block is used in the millisecond it was fetched in only. A UUIDv7 holds its
 * time beside the random bytes, so two copies of one running machine, which
 * have the same block, make different ids from the next millisecond on. */
struct wb__random_pool {
    int64_t ms;
    size_t left;
    uint8_t bytes[640];
};

/* The last check of the clock; see clock.c. */
struct wb__clock {
    bool known, left; /* left: in a caller's transaction, nothing was written */
    uint32_t rollbacks; /* a later one may have undone what it wrote */
    int64_t wall_ms, mono_ms;
    int64_t seen_ms;    /* after trusted_ms: since then the clock is ahead */
    int64_t trusted_ms; /* the latest time that is believed */
};

struct wb_outbox {
    const struct wb_env *env;
    struct wb_outbox_opts opts; /* defaults filled in */
    struct wb__db *db;
    char *url; /* NULL: the connection is the caller's */
    struct wb__commit_group group;
    /* Of the message that is being finished, inside its transaction. */
    enum wb_breaker_change breaker_change;
    int64_t rows_left; /* may be accepted before rows are counted again */
    struct wb__random_pool pool;
    struct wb__clock clock;
    bool borrowed;                /* the connection is the caller's */
    char on_abandoned[65];        /* "": no messages about messages */
    atomic_bool last_claim_empty; /* the next claim queries before it locks */
};

/* Replace a connection that is FAILED by a new one, and the locks of drain
 * slots with it: they are to be taken again. Anything else is left as it is.
 * Not OK: nothing has changed. Threads: that of the drain slots. */
WB_MUST_USE enum wb_status wb__outbox_reopen(
    struct wb_outbox *box, struct wb_err *err);

/* IO: the database was removed, renamed or replaced while it was open. Any
 * thread, at any time; it reads nothing. */
WB_MUST_USE enum wb_status wb__outbox_check(
    struct wb_outbox *box, struct wb_err *err);

/* The database's time, where it has a clock. For any thread. */
static inline int64_t
wb__outbox_now(const struct wb_outbox *box)
{
    return wb__db_now_any(box->db);
}

/* ---- clock (clock.c) ------------------------------------------------------ */

/* Of every write transaction, before it reads or writes a time. */
WB_MUST_USE enum wb_status wb__clock_check(
    struct wb_outbox *box, int64_t now_ms, struct wb_err *err);
/* Set *back if a check would find that the clock was ahead before. */
WB_MUST_USE enum wb_status wb__clock_went_back(
    struct wb_outbox *box, int64_t now_ms, bool *back, struct wb_err *err);
/* Now, or the last time that is believed. */
int64_t wb__clock_trusted(const struct wb_outbox *box, int64_t now_ms);

/* ---- room (compact.c) ----------------------------------------------------- */

/* Make room until *bytes, those in use, are below most, or nothing is left to
 * do, or as much is done as one call does. */
WB_MUST_USE enum wb_status wb__compact(
    struct wb_outbox *box, int64_t most, int64_t *bytes, struct wb_err *err);

/* ---- rows (row.c) --------------------------------------------------------- */

/* Take len bytes, at most the size of a block, from the pool. */
void wb__random_take(
    struct wb_outbox *box, int64_t now_ms, void *out, size_t len);

enum {
    WB__NAME_MAX_STORED = 1020 /* 255 characters of up to 4 bytes */
};

/* The columns of a row that an operation on one message needs. Programs that
 * insert by SQL can put anything into a row, and a damaged file can hold
 * anything: reading cannot fail, so that one such row stops no other. What is
 * not valid is cut, or replaced: an unknown state by abandoned, a scope that is
 * too long by the kind. */
struct wb__head {
    int64_t seq, due_ms, claimed_ms;
    struct wb_id id;
    enum wb_state state;
    uint32_t attempts;
    uint64_t token; /* 0: none */
    bool keep, has_hash, lane_cut;
    uint8_t hash[32];
    char kind[65];
    char scope[256];                    /* the kind, where none was given */
    char lane[WB__NAME_MAX_STORED + 1]; /* "" if none */
};
/* By one of HEAD_BY_SEQ, HEAD_BY_ID, HEAD_BY_KEY. EMPTY: there is none. */
WB_MUST_USE enum wb_status wb__head_find(struct wb_outbox *box,
    enum wb__sql sql, struct wb__val by, struct wb__head *head,
    struct wb_err *err);
/* From the current row of a statement that selects WB__HEAD. */
void wb__head_read(
    struct wb_outbox *box, enum wb__sql sql, struct wb__head *head);
/* The message has ended: the next one of its lane becomes pending. */
WB_MUST_USE enum wb_status wb__head_promote(
    struct wb_outbox *box, const struct wb__head *head, struct wb_err *err);
/* Fill in the content hash if the row, inserted by SQL, came without one. */
WB_MUST_USE enum wb_status wb__head_hash(
    struct wb_outbox *box, struct wb__head *head, struct wb_err *err);

/* From the current row of a statement that selects WB__FULL and, with payload,
 * the payload as its last column. Slices are borrowed from the statement. */
void wb__row_read(
    struct wb_outbox *box, enum wb__sql sql, bool payload, struct wb_row *row);
/* The column whose content keeps the row from being delivered; NULL: none. */
const char *wb__row_malformed(const struct wb_row *row);
/* The last arguments of LIST and ABANDONED. */
#define WB__MATCH_ARGS(m)                                                     \
    wb__text_or_null((m)->key), wb__text_or_null((m)->lane),                  \
        wb__text_or_null((m)->error),                                         \
        wb__int((m)->created_from_ms > 0 ? (m)->created_from_ms : INT64_MIN), \
        wb__int((m)->created_before_ms > 0 ? (m)->created_before_ms - 1       \
                                           : INT64_MAX),                      \
        wb__text_or_null((m)->key_prefix)
/* Copy all slices of *row into the arena. False: out of memory. */
WB_MUST_USE bool wb__row_copy(struct wb__arena *a, struct wb_row *row);

/* 1..64 of a-z 0-9 _ . - */
WB_MUST_USE enum wb_status wb__kind_check(
    struct wb_slice kind, struct wb_err *err);
WB_MUST_USE bool wb__state_parse(struct wb_slice name, enum wb_state *state);
/* May a message move from one state to the other? */
bool wb__state_may(enum wb_state from, enum wb_state to);

/* The hash by which O-4 compares kind, content type, lane and payload. */
WB_MUST_USE bool wb__content_hash(struct wb_slice kind,
    struct wb_slice content_type, struct wb_slice lane, struct wb_slice payload,
    uint8_t out[32]);

/* ---- what has failed (history.c) ------------------------------------------- */

/* Log one more attempt; one that succeeded only behind others. */
WB_MUST_USE enum wb_status wb__history_add(struct wb_outbox *box,
    const struct wb__head *head, const struct wb_finish *f,
    enum wb_outcome outcome, int64_t now_ms, struct wb_err *err);

/* ---- changes (row.c) ------------------------------------------------------ */

/* Delete a row. */
WB_MUST_USE enum wb_status wb__row_delete(
    struct wb_outbox *box, int64_t seq, struct wb_err *err);
/* Abandon a message (abandon.c) and promote the next of its lane. reason is
 * static. */
WB_MUST_USE enum wb_status wb__abandon(struct wb_outbox *box, int64_t seq,
    struct wb_slice lane, const char *reason, struct wb_slice error,
    struct wb_err *err);
/* The head of a lane has ended: its next message becomes pending. */
WB_MUST_USE enum wb_status wb__lane_promote(
    struct wb_outbox *box, struct wb_slice lane, struct wb_err *err);

/* Counts by kind, sorted by kind, in an arena. */
struct wb__kinds {
    struct wb__arena arena;
    struct wb_kind_counts *row;
    size_t n, cap;
};
/* The counts of a kind, zero if it was not there. NULL: out of memory. */
WB_MUST_USE struct wb_kind_counts *wb__kinds_get(
    struct wb__kinds *kinds, struct wb_slice kind);
void wb__kinds_clear(struct wb__kinds *kinds);
/* For any thread: call fn (may be NULL) for each, up to the first not OK. */
WB_MUST_USE enum wb_status wb__kinds_report(
    const struct wb__kinds *kinds, wb_kind_fn *fn, void *ctx);

/* ---- breakers (breaker.c) ------------------------------------------------- */

struct wb__breaker {
    char scope[256];
    uint32_t failures;
    int64_t open_until_ms; /* 0: closed */
    int64_t open_ms, probe_until_ms;
    uint64_t probe_token; /* 0: there is no probe */
};
struct wb__breakers {
    struct wb__breaker *row;
    size_t n, cap;
};
/* All breakers that have a row, into the arena. */
WB_MUST_USE enum wb_status wb__breakers_load(struct wb_outbox *box,
    struct wb__arena *a, struct wb__breakers *all, struct wb_err *err);
/* NULL: the scope has no row, its breaker is closed. */
struct wb__breaker *wb__breakers_find(
    const struct wb__breakers *all, struct wb_slice scope);

/* One breaker, locked to the end of the transaction. EMPTY: it has no row, and
 * *b is a closed one. */
WB_MUST_USE enum wb_status wb__breaker_find(struct wb_outbox *box,
    struct wb_slice scope, struct wb__breaker *b, struct wb_err *err);
WB_MUST_USE enum wb_status wb__breaker_put(
    struct wb_outbox *box, const struct wb__breaker *b, struct wb_err *err);
/* Close it. */
WB_MUST_USE enum wb_status wb__breaker_delete(
    struct wb_outbox *box, struct wb_slice scope, struct wb_err *err);

enum wb_breaker_state wb__breaker_state(
    const struct wb__breaker *b, int64_t now_ms);
/* The longest lease that a configuration allows. */
#define WB__LEASE_MAX_MS (7 * INT64_C(86400000))
/* When a message may go out through it; not after now_ms: now. */
int64_t wb__breaker_free_ms(const struct wb__breaker *b, int64_t now_ms);

/* The outcome of a claim in this scope. */
WB_MUST_USE enum wb_status wb__breaker_success(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token, struct wb_err *err);
WB_MUST_USE enum wb_status wb__breaker_failure(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token,
    const struct wb_breaker_policy *policy, struct wb_err *err);
/* The destination asks not to be called for rest_ms: open until then. That is
 * not a failure. */
WB_MUST_USE enum wb_status wb__breaker_rest(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token, int64_t rest_ms, struct wb_err *err);
/* If the claim with this token is the probe, it lasts until until_ms; with 0
 * it is the probe no longer, and another claim may be. */
WB_MUST_USE enum wb_status wb__breaker_extend(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token, int64_t until_ms,
    struct wb_err *err);

/* ---- retry (retry.c) ------------------------------------------------------ */

/* "delivered", "retry", "rejected" or "unknown"; for any thread. */
const char *wb__outcome_name(enum wb_outcome outcome);
/* The wait that the receiver asks for, limited by the policy. */
int64_t wb__retry_after_ms(
    const struct wb_retry_policy *policy, const struct wb_attempt *attempt);

/* ---- claim (claim.c) ------------------------------------------------------ */

/* For any thread: the checks of a claim before its transaction. */
WB_MUST_USE enum wb_status wb__claim_check(
    const struct wb_claim *claim, struct wb_err *err);
/* Lease into *batch; with len 0, batch->reason says why. */
WB_MUST_USE enum wb_status wb__claim_run(struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err);
/* For any thread: the transaction did not commit. Give the slots back and empty
 * the batch. */
void wb__claim_undo(const struct wb_claim *claim, struct wb_batch *batch);

#endif /* WB_SRC_OUTBOX_OUTBOX_INTERNAL_H */
