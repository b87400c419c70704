/* outbox_internal.h - the outbox inside: one connection, many threads. Every
 * call is an operation that runs inside a transaction. */
#ifndef WB_SRC_OUTBOX_OUTBOX_INTERNAL_H
#define WB_SRC_OUTBOX_OUTBOX_INTERNAL_H

#include <stdatomic.h>

#include "base/base.h"
#include "db/group_commit.h"
#include "waybill/outbox.h"

/* Random bytes fetched by the block: one by one they cost a system call each.
 * What is left over is good for the millisecond it was fetched in. An id has
 * its time beside them, so that a copy of the whole machine, which brings them
 * forth once more, brings forth another id from the next millisecond on. */
struct wb__random_pool {
    int64_t ms;
    size_t left;
    uint8_t bytes[640];
};

struct wb_outbox {
    const struct wb_env *env;
    struct wb_outbox_opts opts; /* defaults filled in */
    struct wb__db *db;
    struct wb__commit_group group; /* in which threads share commits */
    int64_t rows_left; /* may be accepted before rows are counted again */
    struct wb__random_pool pool; /* for the job that runs */
    atomic_bool last_claim_empty;
};

/* One operation: a job of db/group_commit.h, whose rules run() keeps. */
struct wb__op {
    struct wb__db_job job; /* first */
    struct wb_outbox *box;
    enum wb_status (*run)(
        struct wb_outbox *box, struct wb__op *op, struct wb_err *err);
    void (*lanes)(const struct wb__db_job *op, struct wb__lanes *lanes);
    enum wb__tx tx; /* both as in wb__db_job */
};
WB_MUST_USE enum wb_status wb__outbox_run(
    struct wb_outbox *box, struct wb__op *op, struct wb_err *err);

int64_t wb__outbox_now(const struct wb_outbox *box);
uint64_t wb__outbox_random(const struct wb_outbox *box);

/* For the rows of an operation that runs. */
void wb__random_take(
    struct wb_outbox *box, int64_t now_ms, void *out, size_t len);

/* ---- rows -------------------------------------------------------------- */

/* What an operation on one message needs to know of it. */
struct wb__head {
    int64_t seq, due_ms, claimed_ms;
    struct wb_id id;
    enum wb_state state;
    uint32_t attempts;
    uint64_t token; /* 0: none */
    bool keep, has_hash;
    uint8_t hash[32];
    char kind[65];
    char scope[256]; /* the kind, where none was given */
    char lane[1021]; /* "" if none; 255 characters, whoever wrote it */
};
/* By one of HEAD_BY_SEQ, HEAD_BY_ID, HEAD_BY_KEY. EMPTY if there is none. */
WB_MUST_USE enum wb_status wb__head_find(struct wb_outbox *box,
    enum wb__sql sql, struct wb__val by, struct wb__head *head,
    struct wb_err *err);
/* Out of the current row of a statement that selects WB__HEAD. */
WB_MUST_USE enum wb_status wb__head_read(struct wb_outbox *box,
    enum wb__sql sql, struct wb__head *head, struct wb_err *err);
/* Out of the current row of a statement that selects WB__FULL (payload last,
 * if asked for); all slices borrowed from the statement. */
WB_MUST_USE enum wb_status wb__row_read(struct wb_outbox *box, enum wb__sql sql,
    bool payload, struct wb_row *row, struct wb_err *err);
/* Copy all slices of *row into the arena. */
WB_MUST_USE bool wb__row_copy(struct wb__arena *a, struct wb_row *row);

/* 1..64 of a-z 0-9 _ . - */
WB_MUST_USE bool wb__kind_valid(struct wb_slice kind);

/* May a message go from one state to the other? */
bool wb__state_may(enum wb_state from, enum wb_state to);
WB_MUST_USE bool wb__state_parse(struct wb_slice name, enum wb_state *state);

/* What O-4 compares: kind, content type, lane, payload. */
WB_MUST_USE bool wb__content_hash(struct wb_slice kind,
    struct wb_slice content_type, struct wb_slice lane, struct wb_slice payload,
    uint8_t out[32]);
/* The same of a row, whoever wrote it. */
WB_MUST_USE enum wb_status wb__head_hash(
    struct wb_outbox *box, struct wb__head *head, struct wb_err *err);

/* Abandon, and let the next of its lane go. reason is static. */
WB_MUST_USE enum wb_status wb__abandon(struct wb_outbox *box, int64_t seq,
    struct wb_slice lane, const char *reason, struct wb_slice error,
    struct wb_err *err);
/* The head of a lane has ended: its next message may be claimed. */
WB_MUST_USE enum wb_status wb__lane_promote(
    struct wb_outbox *box, struct wb_slice lane, struct wb_err *err);

/* ---- breaker ----------------------------------------------------------- */

struct wb__breaker {
    char scope[256];
    uint32_t failures;
    int64_t open_until_ms, open_ms, probe_until_ms;
    uint64_t probe_token; /* 0: nobody probes */
};
struct wb__breakers {
    struct wb__breaker *row;
    size_t n;
};
/* All that have a row, into the arena. */
WB_MUST_USE enum wb_status wb__breakers_load(struct wb_outbox *box,
    struct wb__arena *a, struct wb__breakers *all, struct wb_err *err);
struct wb__breaker *wb__breakers_find(
    const struct wb__breakers *all, struct wb_slice scope);

/* One, locked to the end of the transaction; EMPTY, and a closed one, where
 * there is no row. */
WB_MUST_USE enum wb_status wb__breaker_find(struct wb_outbox *box,
    struct wb_slice scope, struct wb__breaker *b, struct wb_err *err);

enum wb_breaker_state wb__breaker_state(
    const struct wb__breaker *b, int64_t now_ms);
/* When it will let something through: now or earlier if it does now. */
int64_t wb__breaker_lets_ms(const struct wb__breaker *b, int64_t now_ms);

WB_MUST_USE enum wb_status wb__breaker_put(
    struct wb_outbox *box, const struct wb__breaker *b, struct wb_err *err);
/* The outcome of a claim in this scope. */
WB_MUST_USE enum wb_status wb__breaker_success(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token, struct wb_err *err);
WB_MUST_USE enum wb_status wb__breaker_failure(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token,
    const struct wb_breaker_policy *policy, struct wb_err *err);
/* Neither: a probe that was not one gives its turn back. */
WB_MUST_USE enum wb_status wb__breaker_pass(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token, struct wb_err *err);
/* The probe's claim was extended. */
WB_MUST_USE enum wb_status wb__breaker_extend(struct wb_outbox *box,
    struct wb_slice scope, uint64_t token, int64_t until_ms,
    struct wb_err *err);

/* ---- claim ------------------------------------------------------------- */

/* Lease into *batch, inside a transaction; len 0 and the reason if none. */
WB_MUST_USE enum wb_status wb__claim_run(struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err);
/* The same, but nothing is taken: OK if there is something to lease, EMPTY,
 * with the reason in *batch, if not. */
WB_MUST_USE enum wb_status wb__claim_peek(struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err);
/* The transaction did not commit: slots are given back, the batch emptied. */
void wb__claim_undo(const struct wb_claim *claim, struct wb_batch *batch);

#endif /* WB_SRC_OUTBOX_OUTBOX_INTERNAL_H */
