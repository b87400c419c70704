/* waybill/outbox.h - messages kept until they are delivered.
 *
 * A message is accepted into a table of a SQLite file or a PostgreSQL database,
 * leased by workers with a fencing token, and confirmed, retried or abandoned.
 * One handle serves any number of threads of one process; any number of
 * processes may have the same file open. See doc/STATES.md for the states and
 * doc/FORMATS.md for the tables.
 *
 * Each call lists what it returns. In addition every call may return BUSY,
 * NOMEM, IO, CORRUPT, FULL (the disk is full) and, on PostgreSQL, UNAVAILABLE
 * and REFUSED. Every call may be made from any thread, unless the handle uses a
 * connection of the caller's. */
#ifndef WB_OUTBOX_H
#define WB_OUTBOX_H

#include "waybill/env.h"
#include "waybill/retry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct wb_outbox;
struct sqlite3;
struct pg_conn; /* libpq's PGconn */

/* Zero means the default in brackets. */
struct wb_outbox_opts {
    const struct wb_env *env;  /* [wb_env_system()] */
    int64_t busy_ms;           /* longest wait for a lock [5 s] */
    int64_t max_payload_bytes; /* of one message [1 MiB] */
    int64_t max_file_bytes;    /* pages in use x page size [no limit] */
    int64_t max_rows;          /* waiting and abandoned [no limit] */
    int64_t keep_delivered_ms; /* ids and keys remembered [7 d] */
    int64_t keep_abandoned_ms; /* [30 d] */
    bool existing;             /* never create: NOTFOUND instead */
    bool read_only; /* existing, and change nothing: needs no right to write */
    bool older;     /* with read_only: tables of an older version, too, to be
                       copied by wb_outbox_backup() and for nothing else */
    bool empty;     /* a file that is not there: an empty outbox in memory */
    bool allow_network_fs;        /* open a file on one; unsafe */
    struct wb_slice on_abandoned; /* kind of a message about each one that is
                                     abandoned; see doc/FORMATS.md [none] */
};

/*
 * Open the outbox at url, the path of a SQLite file or postgres://...; create
 * or migrate it.
 *
 * Guarantees  A new file has mode 0600, new folders 0700. The connection is
 *             WAL and synchronous=FULL, both read back. Tables are waybill_*;
 *             nothing else in the file is changed.
 * Gives       *out: freed with wb_outbox_close(). Untouched unless OK.
 * Returns     OK, BUSY, INVALID (another kind of url), NOTFOUND, NOMEM, IO,
 *             CORRUPT (not a database, or it has other tables of these names),
 *             NEWER, REFUSED (no right to write, network file system, a folder,
 *             not WAL), UNAVAILABLE (no server, or built without PostgreSQL).
 * Threads     any; Blocks: up to busy_ms. Since 0.1
 */
WB_MUST_USE enum wb_status wb_outbox_open(struct wb_outbox **out,
    const char *url, const struct wb_outbox_opts *opts, struct wb_err *err);

/* NULL is fine. No other call on the handle may be running. */
void wb_outbox_close(struct wb_outbox *box);

/* ---- accept ------------------------------------------------------------ */

/* All slices are borrowed for the call. Zero or empty means the default. */
struct wb_message {
    struct wb_slice kind;         /* 1..64 of a-z 0-9 _ . - */
    struct wb_slice payload;      /* opaque bytes, may be empty */
    struct wb_slice id;           /* a UUID [a new UUIDv7] */
    struct wb_slice key;          /* 1..255 printable bytes [none] */
    struct wb_slice lane;         /* 1..255 printable bytes [none] */
    struct wb_slice content_type; /* [application/json] */
    struct wb_slice headers;      /* lines "Name: value\n" [none] */
    int64_t due_ms;               /* not before [now] */
    int64_t expires_ms;           /* not after [never] */
};

struct wb_accepted {
    enum wb_status status; /* of this message */
    struct wb_id id;       /* if duplicate, of the message accepted before */
    int64_t seq;           /* its row, if OK or MISMATCH; else 0 */
    bool duplicate;        /* id or key was accepted before: nothing new */
};

/*
 * Accept one message.
 *
 * Guarantees  OK: it survives a power cut. Anything else: it was not accepted,
 *             except after IO from COMMIT, where it is unknown; repeating it
 *             with the same id or key is safe. Threads that call at once share
 *             one commit.
 * Gives       *accepted: filled when OK (also for a duplicate) or MISMATCH
 *             (id and seq of the message that has the id or key).
 * Returns     OK, BUSY, MISMATCH, INVALID, TOOBIG, FULL, NOMEM, IO, CORRUPT.
 * Threads     any; Blocks: until durable, up to busy_ms for the lock.
 *             See doc/INVARIANTS.md (I1, I11, I14). Since 0.1
 */
WB_MUST_USE enum wb_status wb_outbox_enqueue(struct wb_outbox *box,
    const struct wb_message *message, struct wb_accepted *accepted,
    struct wb_err *err);

/* The same for n messages in one commit. accepted[i].status is the status of
 * message i (OK, MISMATCH, INVALID, TOOBIG, FULL); a bad message does not keep
 * the others from being accepted, and *err describes the last bad one. If the
 * call itself does not return OK, none was accepted (or unknown, as above). */
WB_MUST_USE enum wb_status wb_outbox_enqueue_many(struct wb_outbox *box,
    const struct wb_message *messages, size_t n, struct wb_accepted *accepted,
    struct wb_err *err);

/*
 * Open an outbox on a connection of the caller's, to accept messages inside
 * the caller's own transactions.
 *
 * wb_outbox_adopt() sets the connection up: WAL, synchronous=FULL,
 * wal_autocheckpoint=0 and the schema; it replaces the connection's WAL hook,
 * with which the library runs its guarded checkpoint after a commit, and its
 * commit and rollback hooks, with which it notices that a COMMIT of the
 * caller's failed. It is refused inside a transaction.
 * wb_outbox_attach() changes nothing: REFUSED unless the connection already is
 * WAL and FULL, NOTFOUND without the schema. Both are refused on a network file
 * system.
 *
 * Guarantees  wb_outbox_enqueue() on the new handle runs in the caller's
 *             transaction: the caller commits or rolls back, and the message
 *             is durable when that commit is. Outside a transaction it commits
 *             by itself. All other calls work as well. The caller owns the
 *             connection and closes it after the handle.
 *             After a COMMIT that failed every adopted handle on the
 *             connection (there may be several, also those of
 *             wb_idem_adopt()) may return IO: close them and adopt again. An
 *             attached handle does not notice: after an I/O error the caller
 *             closes it, and the connection.
 * Threads     those of the connection, one at a time. Since 0.1
 */
WB_MUST_USE enum wb_status wb_outbox_adopt(struct wb_outbox **out,
    struct sqlite3 *db, const struct wb_outbox_opts *opts, struct wb_err *err);
WB_MUST_USE enum wb_status wb_outbox_attach(struct wb_outbox **out,
    struct sqlite3 *db, const struct wb_outbox_opts *opts, struct wb_err *err);

/*
 * The same on a connection to PostgreSQL, a PGconn of libpq. Its session is not
 * changed, except that statements are prepared, and dropped at close. The
 * tables are made by wb_outbox_open() with the database's URL: NOTFOUND without
 * them.
 *
 * Guarantees  as above; inside the caller's transaction each call is a
 *             savepoint with a name of its own. A message with a lane needs
 *             READ COMMITTED, and is REFUSED at any other level; senders of one
 *             lane wait for each other's transactions.
 * Returns     also UNAVAILABLE (not connected, or built without PostgreSQL).
 * Threads     those of the connection, one at a time. Since 0.1
 */
WB_MUST_USE enum wb_status wb_outbox_attach_pg(struct wb_outbox **out,
    struct pg_conn *conn, const struct wb_outbox_opts *opts,
    struct wb_err *err);

/* ---- claim ------------------------------------------------------------- */

/* Requests a second, over all workers of the database. Sources share one. */
struct wb_rate {
    struct wb_slice name; /* up to 80 bytes */
    uint32_t per_s;       /* > 0 */
    uint32_t batch;       /* messages of one kind a request; > 0 */
    int64_t next_us;      /* out: no request before this, Unix microseconds */
    uint32_t permits, used;
    bool locked;
};

/* A kind that a claim may lease from, and the scope of its breaker. */
struct wb_source {
    struct wb_slice kind;
    struct wb_slice scope; /* of the breaker; up to 255 bytes [the kind] */
    uint32_t max_attempts; /* [8] */
    struct wb_rate *rate;  /* NULL: no limit */
    bool scope_by_message; /* the scope of each message is the one that its
                              last finish named, if any, and not the above */
    uint32_t *slots;       /* how many more may be leased; counted down. Sources
                              may share one. NULL: no limit */
};

/* Nothing of this scope is to go out before that time. */
struct wb_hold {
    struct wb_slice scope;
    int64_t until_ms; /* 0: one message may, as the probe */
};

struct wb_claim {
    const struct wb_source *sources; /* [every kind, scope = kind] */
    size_t n_sources;
    uint32_t max;      /* messages [1]; at most WB_CLAIM_MAX */
    int64_t lease_ms;  /* [60 s] */
    int64_t due_by_ms; /* lease what is due by then [now]; never later */
    const struct wb_hold *holds; /* of sources with scope_by_message */
    size_t n_holds;
    bool no_stale; /* none whose lease ran out */
};
#define WB_CLAIM_MAX 1024

struct wb_claimed {
    struct wb_id id;
    int64_t seq;
    uint64_t token;    /* 64 random bits, never 0 */
    uint32_t attempts; /* this one included */
    bool stale;        /* its last lease ran out: maybe it ended its worker */
    size_t source;     /* index into wb_claim.sources, if given */
    int64_t created_ms, expires_ms /* 0: never */, lease_end_ms;
    struct wb_slice kind, scope, key, lane, payload, content_type, headers;
};

enum wb_none {
    WB_NONE_EMPTY,
    WB_NONE_BREAKER_OPEN
};

/* Owns its rows until wb_batch_free(). Zero is a valid empty batch. */
struct wb_batch {
    struct wb_claimed *row; /* in order (due, seq) */
    size_t len;
    size_t ended;        /* abandoned by the claim: expired, lease ran out */
    enum wb_none reason; /* when EMPTY */
    int64_t next_due_ms; /* earliest time at which another claim may find
                            something, breakers considered; 0: none waits */
    size_t deferred; /* whose scope is held: due when that ends, not leased */
    struct wb_hold *holds; /* with scope_by_message: breakers not closed */
    size_t n_holds;
    struct wb_slice *scopes; /* whose open breakers hold due messages back */
    size_t n_scopes;
    struct wb_slice *paused; /* paused kinds that have due messages */
    size_t n_paused;
    void *memory;
};
void wb_batch_free(struct wb_batch *batch); /* NULL and empty are fine */

/*
 * Lease the oldest messages that are due, over all sources whose breaker is
 * not open.
 *
 * Guarantees  A message is leased to one worker at a time. Not OK: nothing was
 *             leased. A message whose lease ran out is leased again; at
 *             max_attempts it is abandoned, as is an expired message or a
 *             damaged row, and counted in ended. Of those whose lease ran out
 *             a claim leases one, so that one that kills its worker is
 *             separated from those that were leased with it. Through a
 *             half-open breaker exactly one message goes out. Not durable by
 *             itself: a power cut may undo it, which costs a repeated delivery.
 * Returns     OK, EMPTY (batch->reason says why), BUSY, INVALID, NOMEM, IO.
 * Threads     any; Blocks: up to busy_ms. See doc/INVARIANTS.md. Since 0.1
 */
WB_MUST_USE enum wb_status wb_outbox_claim(struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err);

/* ---- finish ------------------------------------------------------------ */

enum wb_end {
    WB_CONFIRM,
    WB_FAIL,
    WB_RELEASE
};

/* The states of a message; see doc/STATES.md. */
#define WB_STATE_MAP(X)                                               \
    X(PENDING, "pending", TO(PROCESSING) | TO(HELD) | TO(ABANDONED))  \
    X(HELD, "held", TO(PENDING))                                      \
    X(PROCESSING, "processing",                                       \
        TO(PENDING) | TO(PROCESSING) | TO(ABANDONED) | TO(DELIVERED)) \
    X(ABANDONED, "abandoned", TO(PENDING) | TO(HELD))                 \
    X(DELIVERED, "delivered", 0)
enum wb_state {
#define X(id, text, next) WB_STATE_##id,
    WB_STATE_MAP(X)
#undef X
    WB_STATES
};
const char *wb_state_name(enum wb_state state);

enum wb_breaker_change {
    WB_BREAKER_SAME,
    WB_BREAKER_OPENED,
    WB_BREAKER_CLOSED
};

struct wb_finish {
    /* in */
    struct wb_id id;
    uint64_t token;
    enum wb_end end;
    int64_t seq;             /* from the claim, saves a look-up [0: by id] */
    struct wb_slice scope;   /* of the breaker [that of the claim] */
    bool forget;             /* CONFIRM: will not be repeated, keep no trace */
    enum wb_outcome outcome; /* FAIL: REJECTED, UNKNOWN, or else RETRY */
    struct wb_slice error;   /* FAIL, RELEASE: stored as one line */
    int64_t retry_after_ms;  /* FAIL: what the receiver asked for */
    bool rest;               /* FAIL: retry_after_ms is for the whole scope: no
                                message of it goes out before */
    bool no_attempt;         /* FAIL with rest: it uses up no attempt */
    bool not_counted;        /* FAIL: the breaker has counted this failure with
                                another message of the same request */
    int64_t not_before_ms;   /* FAIL: the next due time is not before it;
                                RELEASE: it is this [that of the claim] */
    const struct wb_retry_policy *retry;     /* FAIL [the default] */
    const struct wb_breaker_policy *breaker; /* FAIL [the default] */
    int64_t began_ms; /* of the attempt [last claim or extension] */
    int reply_status; /* [the number that error begins with] */
    /* out */
    enum wb_status status; /* OK, FENCED, NOTFOUND: of this one */
    enum wb_state state;   /* if OK */
    uint32_t attempts;     /* in: from the claim, saves reading it [0] */
    int64_t due_ms;        /* of the next attempt; 0: there is none */
    enum wb_breaker_change breaker_change; /* of the destination, by this */
};

/*
 * End n claims, and lease the next messages, in one commit.
 *
 * Guarantees  A finish whose token does not match is FENCED and changes
 *             nothing; a confirm may be repeated with the same token and
 *             result. A message that no longer exists is NOTFOUND, which is
 *             not an error of the call. Durable when OK. Not OK: none was
 *             finished, except after IO, where it is unknown.
 * Takes       claim: NULL, or what to lease next; then batch must be given.
 * Returns     OK (also if the batch is empty), BUSY, INVALID (the claim),
 *             NOMEM, IO.
 * Threads     any; Blocks: until durable. Since 0.1
 */
WB_MUST_USE enum wb_status wb_outbox_finish(struct wb_outbox *box,
    struct wb_finish *finishes, size_t n, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err);

/* One claim each: OK, FENCED, NOTFOUND, BUSY, NOMEM, IO. */
WB_MUST_USE enum wb_status wb_outbox_confirm(struct wb_outbox *box,
    const struct wb_id *id, uint64_t token, struct wb_err *err);
WB_MUST_USE enum wb_status wb_outbox_release(struct wb_outbox *box,
    const struct wb_id *id, uint64_t token, struct wb_err *err);
WB_MUST_USE enum wb_status wb_outbox_fail(
    struct wb_outbox *box, struct wb_finish *finish, struct wb_err *err);

/* Extend claims: their leases end lease_ms from now. Of each finish id, seq and
 * token are read; status, state, attempts and due_ms (the new end of the lease)
 * are written. */
WB_MUST_USE enum wb_status wb_outbox_extend(struct wb_outbox *box,
    struct wb_finish *claims, size_t n, int64_t lease_ms, struct wb_err *err);

/* Make leased messages pending again: with older_ms < 0 those whose lease has
 * ended, else those claimed or extended more than older_ms ago. *n: how many.
 */
WB_MUST_USE enum wb_status wb_outbox_reset_stale(
    struct wb_outbox *box, int64_t older_ms, uint64_t *n, struct wb_err *err);

/* ---- query ------------------------------------------------------------- */

struct wb_row {
    struct wb_id id;
    int64_t seq;
    enum wb_state state;
    uint32_t attempts;
    int64_t due_ms; /* next attempt, or end of the lease; 0: abandoned or
                       delivered */
    int64_t created_ms, claimed_ms, expires_ms; /* 0: none */
    struct wb_slice kind, key, lane, scope, reason, last_error, content_type,
        headers, payload;
    int64_t ended_ms; /* abandoned or delivered at; 0: it waits, or this
                         was not kept before version 3 of the tables */
    struct wb_slice attempts_log; /* the last ten attempts, from the first that
                              failed, oldest first; a line each: began and took
                              (ms), outcome, status of the reply or 0, error */
    const char *malformed; /* "id" or "status", if the row's is not a valid one:
                              then id is what fits of it, state ABANDONED */
};
/* Called for each row, which is borrowed for the call. Any status except OK
 * ends the list and is returned. The function must not call the outbox. */
typedef enum wb_status wb_row_fn(void *ctx, const struct wb_row *row);

/* What a message must have; empty and 0: anything. */
struct wb_match {
    struct wb_slice key, lane;
    struct wb_slice key_prefix; /* its key begins with that */
    struct wb_slice error;      /* its last error or its reason contains that */
    int64_t created_from_ms;    /* created at or after this time, */
    int64_t created_before_ms;  /* and before this one */
};

struct wb_filter {
    int state;             /* an enum wb_state, or -1: all but delivered */
    struct wb_slice kind;  /* [all] */
    uint64_t limit;        /* [all] */
    struct wb_match match; /* [all] */
    int64_t after_seq;     /* a page begins behind the last row of the one
                              before [the first row] */
};
/* In order of seq. Payloads are left out. */
WB_MUST_USE enum wb_status wb_outbox_list(struct wb_outbox *box,
    const struct wb_filter *filter, wb_row_fn *fn, void *ctx,
    struct wb_err *err);
/* One message with its payload, by its id, or by a unique beginning or end of
 * it of 8 or more characters. (Ids of one minute begin alike.) Also NOTFOUND,
 * and INVALID if the part is too short or fits more than one message. */
WB_MUST_USE enum wb_status wb_outbox_show(struct wb_outbox *box,
    struct wb_slice id_or_part, wb_row_fn *fn, void *ctx, struct wb_err *err);
/* The same by its key. */
WB_MUST_USE enum wb_status wb_outbox_show_key(struct wb_outbox *box,
    struct wb_slice key, wb_row_fn *fn, void *ctx, struct wb_err *err);

/* Called once per kind, in order of kind; counts are by enum wb_state. */
struct wb_kind_counts {
    struct wb_slice kind;
    uint64_t n[WB_STATES];
    bool paused;
    int64_t oldest_pending_created_ms; /* 0: none is pending */
    int64_t next_due_ms;               /* of the pending ones, the first */
};
typedef enum wb_status wb_kind_fn(
    void *ctx, const struct wb_kind_counts *counts);
/* Kinds with messages, and paused ones. Reads the whole table. */
WB_MUST_USE enum wb_status wb_outbox_count(
    struct wb_outbox *box, wb_kind_fn *fn, void *ctx, struct wb_err *err);
/* The names of the kinds that have pending or processing messages; all counts
 * are 0. Cheap: one index look-up per kind. */
WB_MUST_USE enum wb_status wb_outbox_kinds(
    struct wb_outbox *box, wb_kind_fn *fn, void *ctx, struct wb_err *err);

/* Called once per kind whose messages are the heads of lanes with others behind
 * them, in order of kind. */
struct wb_lane_heads {
    struct wb_slice kind;
    uint64_t lanes, held; /* such lanes, and the messages that wait in them */
    uint64_t retrying_lanes, retrying_held; /* of these, heads to be retried */
};
typedef enum wb_status wb_lanes_fn(
    void *ctx, const struct wb_lane_heads *heads);
/* What the lanes wait for. A head whose kind is paused (wb_outbox_count()), or
 * has no route, blocks its lane until that changes. Reads every message of a
 * lane. */
WB_MUST_USE enum wb_status wb_outbox_lanes(
    struct wb_outbox *box, wb_lanes_fn *fn, void *ctx, struct wb_err *err);

/* ---- administration ---------------------------------------------------- */

/* Which messages redrive and discard change: the given ids, or every abandoned
 * message of a kind and age. */
struct wb_select {
    const struct wb_id *ids; /* if given, only n_ids and dry_run count, too */
    size_t n_ids;
    struct wb_slice kind;  /* [all] */
    int64_t older_ms;      /* since the last claim, else since creation */
    uint64_t limit;        /* [all] */
    bool dry_run;          /* count, change nothing */
    struct wb_match match; /* [all] */
};
struct wb_selected {
    uint64_t total;
    uint64_t skipped; /* ids: being processed, left alone */
    uint64_t missing; /* ids: no such message */
};
/* One transaction. fn (may be NULL) is called once per kind, in order of kind,
 * with the kind's share of total in counts->n[WB_STATE_PENDING]. Redrive (the
 * command is `retry`) sets messages to pending with 0 attempts and no error, at
 * the tail of their lane, and closes the breaker of their scope. Discard
 * deletes messages for good; with ids also pending ones. */
WB_MUST_USE enum wb_status wb_outbox_redrive(struct wb_outbox *box,
    const struct wb_select *select, struct wb_selected *selected,
    wb_kind_fn *fn, void *ctx, struct wb_err *err);
WB_MUST_USE enum wb_status wb_outbox_discard(struct wb_outbox *box,
    const struct wb_select *select, struct wb_selected *selected,
    wb_kind_fn *fn, void *ctx, struct wb_err *err);

/* Messages of a paused kind are accepted and kept, but not leased, until it is
 * resumed (paused false). Idempotent. */
WB_MUST_USE enum wb_status wb_outbox_pause(struct wb_outbox *box,
    struct wb_slice kind, bool paused, struct wb_err *err);

enum wb_breaker_state {
    WB_CLOSED,
    WB_OPEN,
    WB_HALF_OPEN
};
const char *wb_breaker_state_name(enum wb_breaker_state state);
struct wb_breaker {
    struct wb_slice scope;
    enum wb_breaker_state state;
    uint32_t failures;     /* in a row */
    int64_t open_until_ms; /* 0 unless open */
};
typedef enum wb_status wb_breaker_fn(
    void *ctx, const struct wb_breaker *breaker);
/* The breakers that are not closed or have counted failures, in order of scope.
 * With a scope: the breaker of that scope, whatever its state. */
WB_MUST_USE enum wb_status wb_outbox_breakers(struct wb_outbox *box,
    struct wb_slice scope, wb_breaker_fn *fn, void *ctx, struct wb_err *err);
/* Close one breaker; with an empty scope, all. *n: how many were not closed
 * before. */
WB_MUST_USE enum wb_status wb_outbox_breaker_reset(struct wb_outbox *box,
    struct wb_slice scope, uint64_t *n, struct wb_err *err);

/* Copy the outbox, online, to a file that must not exist. The copy opens as an
 * outbox with a new incarnation: ids stay valid, tokens do not. It is checked
 * before it gets its name: CORRUPT, and no file, if the database is damaged. */
WB_MUST_USE enum wb_status wb_outbox_backup(
    struct wb_outbox *box, const char *path, struct wb_err *err);

/* Give the room of deleted rows back to the disk: rewrite a SQLite file without
 * it, an application's tables in the file too. Writers wait meanwhile. The
 * bytes are those of the file and its log. FULL: that needs more room than
 * there is; BUSY: another program writes, or reads all the time. INVALID: on a
 * connection of the caller's, or on PostgreSQL. Nothing is lost in any case.
 * Since 0.1 */
WB_MUST_USE enum wb_status wb_outbox_compact(struct wb_outbox *box,
    int64_t *bytes_before, int64_t *bytes_after, struct wb_err *err);

struct wb_health {
    char engine[64];       /* "SQLite 3.40.1" */
    char journal_mode[16]; /* "wal" */
    bool full_sync;        /* synchronous is FULL */
    bool wal_reset_bug;    /* this SQLite has it; the checkpoint is guarded
                              with any version */
    int64_t file_bytes, wal_bytes, schema_version;
    uint32_t file_mode, folder_mode; /* permission bits */
    bool network_fs;
    uint64_t stuck;      /* claims whose lease ended at least one lease time
                            ago, or that were made in the future */
    char integrity[128]; /* "ok", or the first error found */
    uint64_t future;     /* messages created or claimed in the future, by more
                            than a minute: a clock is, or was, wrong */
    int64_t snapshot_ms; /* PostgreSQL: start of the oldest transaction of
                            another session of this database, which keeps the
                            rows of ended messages from being removed; 0: there
                            is none, or this role may not see it */
    char snapshot[128];  /* whose it is; "" */
};
WB_MUST_USE enum wb_status wb_outbox_health(
    struct wb_outbox *box, struct wb_health *health, struct wb_err *err);

#ifdef __cplusplus
}
#endif
#endif /* WB_OUTBOX_H */
