/* waybill/idem.h - one effect for many requests: the idempotency store.
 *
 * An operation is (identity, scope, key). The first who begins it acquires a
 * claim, does the work and completes it with a record; everybody after that
 * is given the record. One handle serves any number of threads; stores in a
 * SQLite file serve any number of processes. See doc/INVARIANTS.md.
 *
 *     switch (result.answer) {
 *     case WB_IDEM_ACQUIRED:  do it, then wb_idem_complete() with the token
 *     case WB_IDEM_REPLAY:    result.record is what the first one stored
 *     case WB_IDEM_IN_FLIGHT:
 *     case WB_IDEM_HELD:      somebody is at it: try later
 *     case WB_IDEM_MISMATCH:  the key was used for something else: refuse
 *     case WB_IDEM_UNKNOWN:   it may have happened: a human must look
 *     case WB_IDEM_LIMIT:     this identity has too much here already
 *     }
 *
 * What no store can close: a crash after the effect and before the record. The
 * key is then free again once the lease is over, or `unknown` if the claim
 * was marked sending. Only wb_idem_adopt(), with effect and record in one
 * transaction, has no such window. */
#ifndef WB_IDEM_H
#define WB_IDEM_H

#include "waybill/env.h"

#ifdef __cplusplus
extern "C" {
#endif

struct wb_idem;
struct sqlite3;

#define WB_IDEM_TTL_MS   INT64_C(86400000) /* a usual time to keep a record */
#define WB_IDEM_LEASE_MS INT64_C(60000)

/* Zero, or less, means the default in brackets. */
struct wb_idem_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    int64_t hold_ms;          /* an unknown outcome holds its key [24 h] */
    int64_t max_waiters;      /* for one key at a time [64] */
    int64_t max_records;      /* memory: completed ones [10,000] */
    int64_t max_bytes;        /* memory: of them, all counted [64 MiB] */
    int64_t identity_claims;  /* live claims of one identity [no limit] */
    int64_t identity_bytes;   /* records of one identity [no limit] */
    int64_t busy_ms;          /* SQL: longest wait for a lock [5 s] */
    bool allow_network_fs;    /* SQL: open it all the same; unsafe */
};

/*
 * Open a store in the memory of this process.
 *
 * Guarantees  Completed records are dropped when their time is over, and the
 *             least recently used ones above max_records or max_bytes. A claim
 *             is never dropped for room. Time is monotonic: a step of the wall
 *             clock expires and revives nothing.
 * Gives       *out: freed with wb_idem_close(). Untouched unless OK.
 * Returns     OK, NOMEM.
 * Threads     any. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_open_memory(
    struct wb_idem **out, const struct wb_idem_opts *opts, struct wb_err *err);

/*
 * Open the store in the SQLite file at url, a path, or in PostgreSQL, a
 * postgres:// one; create or migrate it. It may be that of an outbox.
 *
 * Guarantees  What was completed survives a power cut. A claim survives the
 *             end of the process; a power cut may undo one, but none that is
 *             marked sending. Records are dropped when their time is over, by
 *             the wall clock.
 * Gives       *out: freed with wb_idem_close(). Untouched unless OK.
 * Returns     as wb_outbox_open().
 * Threads     any; Blocks: up to busy_ms. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_open(struct wb_idem **out, const char *url,
    const struct wb_idem_opts *opts, struct wb_err *err);

/*
 * Put a store on a connection of the caller's. Calls inside a transaction of
 * the caller's are part of it: claim, effect and record commit together or
 * not at all. wb_idem_adopt() makes the connection fit, wb_idem_attach()
 * changes nothing; see wb_outbox_adopt().
 *
 * Guarantees  Nobody else sees a claim that is not committed: until then the
 *             connection holds the write lock. A begin never waits here: what
 *             a transaction sees does not change. Time is looked at when a
 *             call is made, not when the commit is.
 * Threads     those of the connection, one at a time. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_adopt(struct wb_idem **out,
    struct sqlite3 *db, const struct wb_idem_opts *opts, struct wb_err *err);
WB_MUST_USE enum wb_status wb_idem_attach(struct wb_idem **out,
    struct sqlite3 *db, const struct wb_idem_opts *opts, struct wb_err *err);

/* NULL is fine. No other call may be under way. */
void wb_idem_close(struct wb_idem *store);

/* ---- operation, fingerprint, record ------------------------------------ */

/* All slices are borrowed for the call. Printable UTF-8: the key 1..255
 * bytes, the identity up to 255, the scope up to 8,191. */
struct wb_idem_op {
    struct wb_slice identity; /* whose key it is */
    struct wb_slice scope;    /* what it is for: `POST /orders`, `once` */
    struct wb_slice key;
};

/* What the request was: SHA-256 of its parts, cut to 128 bits. Two requests
 * that share one, found on purpose, deceive only who sends both. */
struct wb_fingerprint {
    uint8_t bytes[16];
};

/* Of the parts, each behind its length: ("a", "bc") is not ("ab", "c"). OK or
 * NOMEM. */
WB_MUST_USE enum wb_status wb_idem_fingerprint(
    const struct wb_slice *parts, size_t n, struct wb_fingerprint *fingerprint);

/* What is stored and given again, byte for byte. */
struct wb_idem_record {
    int status;              /* 0..65535 */
    struct wb_slice headers; /* lines "Name: value\n", up to 65,535 bytes */
    struct wb_slice body;
    int64_t ttl_ms;                    /* <= 0: for ever */
    int64_t stored_ms;                 /* wall clock; set by the store */
    struct wb_fingerprint fingerprint; /* of the begin; set by the store */
};

/* ---- claim ------------------------------------------------------------- */

enum wb_idem_answer {
    WB_IDEM_ACQUIRED = 1, /* the claim is yours: result.token */
    WB_IDEM_REPLAY,       /* result.record */
    WB_IDEM_IN_FLIGHT,    /* claimed by somebody; no wait was asked for */
    WB_IDEM_HELD,         /* the same after the wait, or too many wait */
    WB_IDEM_MISMATCH,     /* known with another fingerprint */
    WB_IDEM_UNKNOWN,      /* it may have happened; held until settled */
    WB_IDEM_LIMIT,        /* a quota of this identity is used up */
    WB_IDEM_UNGUARDED     /* wb_idem_run() ran without the store, as asked */
};

/* "acquired", "replay", "in-flight", "held", "mismatch", "unknown", "limit",
 * "unguarded" */
const char *wb_idem_answer_name(enum wb_idem_answer answer);

/* Zero it before its first use; it may be used for many calls, and is freed
 * with wb_idem_result_free() at the end. */
struct wb_idem_result {
    enum wb_idem_answer answer;
    uint64_t token;               /* ACQUIRED: 64 random bits, never 0 */
    struct wb_idem_record record; /* REPLAY: a copy, until the next call */
    const struct wb_env *env;     /* of the copy */
    void *copy;
    size_t room;
};
void wb_idem_result_free(struct wb_idem_result *result);

struct wb_idem_begin {
    int64_t lease_ms; /* [60 s] */
    int64_t wait_ms;  /* for somebody else's claim to end [not at all] */
    bool sending;     /* as wb_idem_sending() at once, in the same commit */
    bool open;        /* wb_idem_run() alone: run, too, if the store is down */
};

/*
 * Begin an operation.
 *
 * Guarantees  One of any number of begins on a free key is ACQUIRED, across
 *             threads and, in SQL, processes. A waiter sleeps until the holder
 *             completes (REPLAY), releases or loses its lease (one waiter is
 *             ACQUIRED), or its time is over (HELD). If not OK, nothing was
 *             claimed, but for IO out of COMMIT: unknown; the lease ends.
 * Takes       begin: NULL for the defaults.
 * Gives       *result: the answer; token or record as it says.
 * Returns     OK for every answer. INVALID, BUSY, NOMEM, FULL, IO, UNAVAILABLE
 *             (no server); CORRUPT or NEWER for a record that cannot be read,
 *             which is never run.
 * Threads     any; Blocks: up to wait_ms, and busy_ms.
 *             See doc/INVARIANTS.md (M-6, C-1, C-2). Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_begin(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_fingerprint *fingerprint,
    const struct wb_idem_begin *begin, struct wb_idem_result *result,
    struct wb_err *err);

/*
 * Complete a claim with its record.
 *
 * Guarantees  OK: every later begin is answered with it. The same token and
 *             record again is OK. Any failure leaves the claim as it was, and
 *             complete may be called again; the effect has happened, so never
 *             release then: mark it with wb_idem_unknown().
 * Returns     OK, FENCED (the token is late, wrong, spent or zero; nothing
 *             changed), TOOBIG, INVALID, BUSY, NOMEM, FULL, IO, UNAVAILABLE,
 *             CORRUPT.
 * Threads     any. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_complete(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token,
    const struct wb_idem_record *record, struct wb_err *err);

/* Nothing happened: the key is free. OK too if nothing is left of the key;
 * FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_release(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);

/* Keep the claim for lease_ms from now [60 s]. FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_extend(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, int64_t lease_ms,
    struct wb_err *err);

/* From now on the effect may happen at any moment: if the lease runs out, the
 * key is not free but unknown. Durable when OK. FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_sending(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);

/* It may have happened: the claim is given up, its key is held for hold_ms.
 * Durable when OK. FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_unknown(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);

/* Somebody has looked: an unknown outcome becomes done with the record, or,
 * with NULL, not applied and free. NOTFOUND if the key's outcome is not
 * unknown. */
WB_MUST_USE enum wb_status wb_idem_settle(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_idem_record *record,
    struct wb_err *err);

/* ---- store ------------------------------------------------------------- */

/* The record of a key, as a REPLAY. EMPTY if there is none: never stored, a
 * claim, unknown, or past its time. */
WB_MUST_USE enum wb_status wb_idem_lookup(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_result *result,
    struct wb_err *err);

/* Store a record without a claim, over an older one. record->fingerprint is
 * the caller's here. BUSY if the key is claimed or its outcome unknown. */
WB_MUST_USE enum wb_status wb_idem_store(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_idem_record *record,
    struct wb_err *err);

enum wb_idem_state {
    WB_IDEM_CLAIMED,
    WB_IDEM_SENDING, /* a claim whose effect may have begun */
    WB_IDEM_DONE,
    WB_IDEM_DOUBTFUL /* the outcome is unknown */
};
/* "claimed", "sending", "done", "unknown" */
const char *wb_idem_state_name(enum wb_idem_state state);

/* What is known of a key; slices are borrowed for the call. */
struct wb_idem_item {
    struct wb_idem_op op;
    enum wb_idem_state state;
    struct wb_fingerprint fingerprint;
    int64_t ends_ms;  /* wall clock: lease, ttl or hold; 0: never */
    int64_t since_ms; /* wall clock: begun, or stored */
    int status;       /* DONE */
    size_t bytes;     /* DONE: headers and body */
};

/* *item: what is known of one key, its slices empty. NOTFOUND if nothing, or it
 * is past its time. */
WB_MUST_USE enum wb_status wb_idem_peek(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);

/* Free a key whatever it holds, as an administrator: a record is forgotten, a
 * holder fenced. *item (may be NULL): what it was, its slices empty. NOTFOUND
 * if there is nothing. */
WB_MUST_USE enum wb_status wb_idem_forget(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);

/* Every key that is not past its time, in no order, until fn returns
 * something else than OK, which is handed on. fn must not call the store. */
WB_MUST_USE enum wb_status wb_idem_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err);

/* Drop what is past its time, all of it. Calls do so a little at a time; a
 * service that is idle for long may call this. *n (may be NULL): how many. */
WB_MUST_USE enum wb_status wb_idem_reap(
    struct wb_idem *store, uint64_t *n, struct wb_err *err);

/* ---- dispatcher -------------------------------------------------------- */

/* What came of an effect. */
enum wb_idem_end {
    WB_IDEM_APPLIED = 1, /* done: keep the record */
    WB_IDEM_NOT_APPLIED, /* nothing happened: the key is free */
    WB_IDEM_MAYBE        /* nobody can say: hold the key */
};

/* One run. fn may call wb_idem_sending(call->store, call->op, call->token)
 * before its effect begins, and fills in call->record, whose slices must stay
 * valid until wb_idem_run() returns. */
struct wb_idem_call {
    struct wb_idem *store;
    const struct wb_idem_op *op;
    uint64_t token;
    struct wb_idem_record record; /* ttl_ms is [24 h] when fn is called */
};

/*
 * Begin, call fn if the operation is ours, and finish it as fn says; or
 * replay.
 *
 * Guarantees  fn is called only with the claim, which is renewed while it
 *             runs (by a thread of the store's; not on a borrowed connection,
 *             where the transaction keeps it). A store that cannot be reached
 *             means that fn is not called, unless begin->open asks for it: the
 *             answer is then UNGUARDED, and call->token 0. If the record
 *             cannot be stored the outcome is marked unknown, and the status
 *             says why.
 * Gives       *result: as wb_idem_begin(); after fn was called the answer is
 *             ACQUIRED and record is call->record.
 * Returns     as wb_idem_begin() before fn, and UNAVAILABLE without a thread
 *             to renew the claim; as wb_idem_complete() after it.
 * Threads     any. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_run(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_fingerprint *fingerprint,
    const struct wb_idem_begin *begin,
    enum wb_idem_end (*fn)(void *ctx, struct wb_idem_call *call), void *ctx,
    struct wb_idem_result *result, struct wb_err *err);

#ifdef __cplusplus
}
#endif
#endif /* WB_IDEM_H */
