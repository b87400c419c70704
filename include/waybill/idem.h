/* waybill/idem.h - one effect for many requests: the idempotency store.
 *
 * An operation is (identity, scope, key). The first begin acquires a claim; its
 * caller does the work and completes the claim with a record. Every later begin
 * gets that record. One handle serves any number of threads; a SQL database
 * serves any number of processes. See doc/INVARIANTS.md.
 *
 *     switch (result.answer) {
 *     case WB_IDEM_ACQUIRED:  do it, then wb_idem_complete() with the token
 *     case WB_IDEM_REPLAY:    result.record is what the first call stored
 *     case WB_IDEM_IN_FLIGHT:
 *     case WB_IDEM_HELD:      another call is running: try later
 *     case WB_IDEM_MISMATCH:  the key was used for another request: refuse
 *     case WB_IDEM_UNKNOWN:   the effect may have happened: a person must check
 *     case WB_IDEM_LIMIT:     a quota of this identity is used up
 *     }
 *
 * No store can prevent this: a crash after the effect and before the record.
 * When the lease has ended, the key is free again, or its outcome is unknown if
 * the claim was marked sending. Only wb_idem_adopt() has no such window, as
 * effect and record are in one transaction. */
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
    int64_t max_records;      /* memory: completed records [10,000] */
    int64_t max_bytes;        /* memory: of records, with overhead [64 MiB] */
    int64_t identity_claims;  /* live claims of one identity [no limit] */
    int64_t identity_bytes;   /* records of one identity [no limit] */
    int64_t busy_ms;          /* SQL: longest wait for a lock [5 s] */
    bool allow_network_fs;    /* SQL: allow a network file system; unsafe */
    bool existing;            /* SQL: never create: NOTFOUND instead */
    bool read_only; /* SQL: existing, and change nothing: no right to write */
    bool empty; /* SQL: a file that is not there: an empty store in memory */
};

/*
 * Open a store in the memory of this process.
 *
 * Guarantees  Records are dropped when they have expired, and the least
 *             recently used ones above max_records or max_bytes. A claim is
 *             never evicted. Time is monotonic: a step of the wall clock
 *             expires and revives nothing.
 * Gives       *out: freed with wb_idem_close(). Untouched unless OK.
 * Returns     OK, NOMEM.
 * Threads     any. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_open_memory(
    struct wb_idem **out, const struct wb_idem_opts *opts, struct wb_err *err);

/*
 * Open the store in the SQLite file at url, a path, or in PostgreSQL, a
 * postgres:// URL; create or migrate it. An outbox may use the same one.
 *
 * Guarantees  A completed record survives a power cut. A claim survives the
 *             end of the process; a power cut may undo it, unless it was marked
 *             sending. In SQLite, steps of the wall clock change nothing until
 *             the machine is restarted, and all processes agree on the time; in
 *             PostgreSQL it is the server's.
 * Gives       *out: freed with wb_idem_close(). Untouched unless OK.
 * Returns     as wb_outbox_open().
 * Threads     any; Blocks: up to busy_ms. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_open(struct wb_idem **out, const char *url,
    const struct wb_idem_opts *opts, struct wb_err *err);

/*
 * Open a store on the caller's connection. Calls inside the caller's
 * transaction are part of it: claim, effect and record commit together or not
 * at all. wb_idem_adopt() configures the connection, wb_idem_attach() changes
 * nothing; see wb_outbox_adopt().
 *
 * Guarantees  No other connection sees a claim that is not committed: until
 *             then this one holds the write lock. A begin never waits here, as
 *             a transaction does not see new commits. Time is read when a call
 *             is made, not at the commit.
 * Threads     those of the connection, one at a time. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_adopt(struct wb_idem **out,
    struct sqlite3 *db, const struct wb_idem_opts *opts, struct wb_err *err);
WB_MUST_USE enum wb_status wb_idem_attach(struct wb_idem **out,
    struct sqlite3 *db, const struct wb_idem_opts *opts, struct wb_err *err);

/* NULL is fine. No other call may be running. */
void wb_idem_close(struct wb_idem *store);

/* ---- operation, fingerprint, record ------------------------------------ */

/* All slices are borrowed for the call. Printable UTF-8: the key 1..255
 * bytes, the identity up to 255, the scope up to 8,191. */
struct wb_idem_op {
    struct wb_slice identity; /* whose key it is */
    struct wb_slice scope;    /* what it is for: `POST /orders`, `once` */
    struct wb_slice key;
};

/* Identifies the request: SHA-256 of its parts, cut to 128 bits. Keys
 * belong to one identity, so a collision harms only the client that made it. */
struct wb_fingerprint {
    uint8_t bytes[16];
};

/* Each part is hashed after its length: ("a", "bc") is not ("ab", "c"). OK or
 * NOMEM. */
WB_MUST_USE enum wb_status wb_idem_fingerprint(
    const struct wb_slice *parts, size_t n, struct wb_fingerprint *fingerprint);

/* What is stored and replayed, byte for byte. */
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
    WB_IDEM_IN_FLIGHT,    /* another call has the claim; wait_ms is 0 */
    WB_IDEM_HELD,         /* it still has it after wait_ms, or too many wait */
    WB_IDEM_MISMATCH,     /* the key has another fingerprint */
    WB_IDEM_UNKNOWN,      /* the outcome is unknown; held until settled */
    WB_IDEM_LIMIT,        /* a quota of this identity is used up */
    WB_IDEM_UNGUARDED     /* wb_idem_run() ran without the store, as asked */
};

/* "acquired", "replay", "in-flight", "held", "mismatch", "unknown", "limit",
 * "unguarded" */
const char *wb_idem_answer_name(enum wb_idem_answer answer);

/* Zero it before its first use. It may be used for many calls; free it with
 * wb_idem_result_free() at the end. */
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
    int64_t wait_ms;  /* for another call's claim to end [no wait] */
    bool sending;     /* like wb_idem_sending(), in the same commit */
    bool open;        /* only wb_idem_run(): call fn even if the store fails */
};

/*
 * Begin an operation.
 *
 * Guarantees  One of any number of begins on a free key is ACQUIRED, across
 *             threads and, in SQL, processes. A waiter sleeps until the holder
 *             completes (REPLAY), releases or loses its lease (one waiter is
 *             ACQUIRED), or wait_ms has passed (HELD). If not OK, nothing was
 *             claimed; except after IO from COMMIT, when a claim may be there
 *             until its lease ends.
 * Takes       begin: NULL for the defaults.
 * Gives       *result: the answer, and with it the token or the record.
 * Returns     OK for every answer. INVALID, BUSY, NOMEM, FULL, IO, UNAVAILABLE
 *             (no server); CORRUPT or NEWER for a record that cannot be read:
 *             its key is never ACQUIRED.
 * Threads     any; Blocks: up to wait_ms, and busy_ms.
 *             See doc/INVARIANTS.md (I9). Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_begin(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_fingerprint *fingerprint,
    const struct wb_idem_begin *begin, struct wb_idem_result *result,
    struct wb_err *err);

/*
 * Complete a claim with its record.
 *
 * Guarantees  OK: every later begin gets the record. The same token and record
 *             again is OK. A token is good until another begin has acquired the
 *             key, also after the lease has ended. Any failure leaves the claim
 *             as it was, and complete may be called again. The effect has
 *             happened: never release then, but mark the claim with
 *             wb_idem_unknown().
 * Returns     OK, FENCED (the token is replaced, wrong, used or zero; nothing
 *             changed), TOOBIG, INVALID, BUSY, NOMEM, FULL, IO, UNAVAILABLE,
 *             CORRUPT.
 * Threads     any. Since 0.1
 */
WB_MUST_USE enum wb_status wb_idem_complete(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token,
    const struct wb_idem_record *record, struct wb_err *err);

/* Nothing happened: the key becomes free. OK if it is free already; FENCED as
 * above. */
WB_MUST_USE enum wb_status wb_idem_release(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);

/* The lease ends lease_ms from now [60 s]. FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_extend(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, int64_t lease_ms,
    struct wb_err *err);

/* From now on the effect may happen: if the lease ends, the key is not free,
 * but its outcome is unknown. Durable when OK. FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_sending(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);

/* The effect may have happened: the claim ends, its outcome is unknown, and the
 * key is held for hold_ms. Durable when OK. FENCED as above. */
WB_MUST_USE enum wb_status wb_idem_unknown(struct wb_idem *store,
    const struct wb_idem_op *op, uint64_t token, struct wb_err *err);

/* Record what has happened: an unknown outcome becomes done, with the record;
 * or, if record is NULL, not applied, and the key is free. NOTFOUND if the
 * key's outcome is not unknown. */
WB_MUST_USE enum wb_status wb_idem_settle(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_idem_record *record,
    struct wb_err *err);

/* ---- store ------------------------------------------------------------- */

/* The record of a key, as a REPLAY. EMPTY if there is none: never stored,
 * claimed, unknown or expired. */
WB_MUST_USE enum wb_status wb_idem_lookup(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_result *result,
    struct wb_err *err);

/* Store a record without a claim; it replaces an older one. The caller sets
 * record->fingerprint here. BUSY if the key is claimed or its outcome is
 * unknown. */
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

/* What the store knows about a key; slices are borrowed for the call. */
struct wb_idem_item {
    struct wb_idem_op op;
    enum wb_idem_state state;
    struct wb_fingerprint fingerprint;
    int64_t ends_ms;  /* wall clock: lease, ttl or hold; 0: never */
    int64_t since_ms; /* wall clock: begun, or stored */
    int status;       /* DONE */
    size_t bytes;     /* DONE: headers and body */
};

/* *item: what the store knows about one key, its slices empty. NOTFOUND if
 * nothing, or it has expired. */
WB_MUST_USE enum wb_status wb_idem_peek(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);

/* Free a key whatever it holds, as an administrator: its record is deleted, the
 * holder of its claim fenced. *item (may be NULL): what it was, its slices
 * empty. NOTFOUND if there is nothing. */
WB_MUST_USE enum wb_status wb_idem_forget(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);

/* Call fn for every key that has not expired, in no order, until fn does not
 * return OK; that status is returned. fn must be short and must not call the
 * store: the memory store is locked until the last call has returned. */
WB_MUST_USE enum wb_status wb_idem_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err);

/* Delete everything that has expired. Other calls do so little by little; a
 * service that is idle for long may call this. The memory store is locked
 * meanwhile. *n (may be NULL): how many. */
WB_MUST_USE enum wb_status wb_idem_reap(
    struct wb_idem *store, uint64_t *n, struct wb_err *err);

/* ---- dispatcher -------------------------------------------------------- */

/* The outcome of an effect. */
enum wb_idem_end {
    WB_IDEM_APPLIED = 1, /* done: keep the record */
    WB_IDEM_NOT_APPLIED, /* nothing happened: the key is free */
    WB_IDEM_MAYBE        /* unknown: hold the key */
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
 * Begin; if the claim was acquired, call fn and finish the claim as fn says.
 *
 * Guarantees  fn is called only with the claim. The store's own thread renews
 *             the lease while fn runs; not on a borrowed connection, where the
 *             transaction protects the claim. If the store fails, fn is not
 *             called, unless begin->open is set: the answer is then
 *             UNGUARDED, and call->token 0. If the store fails after fn, the
 *             outcome is stored again for the time of one lease. If the record
 *             cannot be stored, the outcome is marked unknown, and the status
 *             says why.
 * Gives       *result: as wb_idem_begin(); after fn was called the answer is
 *             ACQUIRED and record is call->record.
 * Returns     as wb_idem_begin() before fn, and UNAVAILABLE without a thread
 *             to renew the claim; as wb_idem_complete() after it.
 * Threads     any; Blocks: after fn, up to the lease. Since 0.1
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
