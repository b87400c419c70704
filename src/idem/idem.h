/* idem.h - internals of the idempotency store: the call, the interface of
 * backends, the lease renewer.
 *
 * idem.c checks the arguments of a call and fills in its defaults; a backend
 * decides the call inside one critical section or transaction. */
#ifndef WB_SRC_IDEM_IDEM_H
#define WB_SRC_IDEM_IDEM_H

#include "base/base.h"
#include "os/os.h"
#include "waybill/idem.h"

enum {
    WB__IDEM_IDENTITY_MAX = 255,
    WB__IDEM_KEY_MAX = 255,
    WB__IDEM_SCOPE_MAX = 8191,
    WB__IDEM_HEADERS_MAX = 65535,
    WB__IDEM_POLL_US = 25000, /* of waiters that get no signal */
    WB__IDEM_MANY = 64        /* calls that share a commit, at most */
};

/*
 * One call of the store: what a caller requests, how a backend makes it and
 * what came out.
 */
struct wb__idem_call {
    enum wb__idem_verb {
        WB__IDEM_BEGIN,
        WB__IDEM_COMPLETE,
        WB__IDEM_RELEASE,
        WB__IDEM_EXTEND,
        WB__IDEM_SENDING,
        WB__IDEM_UNKNOWN,
        WB__IDEM_SETTLE,      /* done, with the record */
        WB__IDEM_SETTLE_FREE, /* not applied: the key is free */
        WB__IDEM_LOOKUP,
        WB__IDEM_STORE,
        WB__IDEM_PEEK,
        WB__IDEM_FORGET
    } verb;
    const struct wb_idem_op *op;
    uint64_t token;                           /* COMPLETE to UNKNOWN */
    const struct wb_fingerprint *fingerprint; /* BEGIN */
    struct wb_idem_begin how;                 /* BEGIN; EXTEND: lease_ms */
    struct wb_idem_result *result;            /* BEGIN, LOOKUP */
    struct wb_idem_item *item;                /* PEEK, FORGET */
    enum wb_status rc;                        /* the outcome */
    struct wb__idem_call *next;               /* see wb__idem_many() */
    struct wb_idem_record record;             /* COMPLETE, SETTLE, STORE */
    /* The backend's, while it makes the call: */
    struct wb_idem *store;
    int64_t now_ms;
    bool decided; /* rc and the result are final */
};

/* Every call that a backend gets has been checked; defaults are filled in. */
struct wb__idem_backend {
    void (*close)(struct wb_idem *store);
    /* Make one call and return its outcome. A BEGIN may wait. The text of
     * FENCED and NOTFOUND is written by idem.c. */
    enum wb_status (*call)(
        struct wb_idem *store, struct wb__idem_call *call, struct wb_err *err);
    /* Make at most WB__IDEM_MANY calls and set rc of each. No BEGIN waits.
     * NULL: one at a time is as cheap. */
    void (*many)(
        struct wb_idem *store, struct wb__idem_call *const *call, size_t n);
    /* As wb__idem_check(); NULL: there is no file. */
    enum wb_status (*check)(struct wb_idem *store, struct wb_err *err);
    enum wb_status (*list)(struct wb_idem *store,
        enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item),
        void *ctx, struct wb_err *err);
    enum wb_status (*reap)(
        struct wb_idem *store, uint64_t *n, struct wb_err *err);
};

/* See run.c. */
struct wb__lease {
    const struct wb_idem_op *op;
    uint64_t token;
    int64_t lease_ms;
    int64_t next_us; /* when to renew it, by the monotonic clock */
    int64_t ends_us; /* when it ends unless it is renewed */
    struct wb__lease *next, **link;
};
struct wb__lease_renewer {
    struct wb__mutex lock;
    struct wb__cond wake, idle;
    struct wb__thread thread;
    bool running, stop;
    struct wb__lease *first;
    const struct wb__lease *busy; /* is being renewed */
};

/* First member of every backend. */
struct wb_idem {
    const struct wb__idem_backend *backend;
    const struct wb_env *env;
    struct wb_idem_opts opts; /* defaults filled in */
    bool borrowed; /* on a connection of the caller's: leases are not renewed */
    struct wb__lease_renewer renewer;
};

/* IO: the database was removed, renamed or replaced while it was open. Any
 * thread, at any time; it reads nothing. */
WB_MUST_USE enum wb_status wb__idem_check(
    struct wb_idem *store, struct wb_err *err);

/* ---- idem.c ------------------------------------------------------------ */

/* All but the renewer. */
void wb__idem_init(struct wb_idem *store,
    const struct wb__idem_backend *backend, const struct wb_idem_opts *opts);
/* Make one call and set its rc. */
void wb__idem_alone(struct wb_idem *store, struct wb__idem_call *call);
/* Make the calls of a chain, each as if alone but with shared commits, and set
 * rc of each. A BEGIN among several must not wait. */
void wb__idem_many(struct wb_idem *store, struct wb__idem_call *first);

/* For backends: */

uint64_t wb__idem_token(const struct wb_idem *store); /* never 0 */
/* INVALID if a name has characters that no key may have. To be checked before a
 * row is made: a key that is there has passed. */
WB_MUST_USE enum wb_status wb__idem_op_check(
    const struct wb_idem_op *op, struct wb_err *err);
/* Answer REPLAY with a copy of the record. False, and nothing changed: out of
 * memory. */
WB_MUST_USE bool wb__idem_copy_record(struct wb_idem_result *result,
    const struct wb_env *env, const struct wb_idem_record *record);
/* BUSY: the key is claimed, or its outcome unknown. */
enum wb_status wb__idem_taken(const struct wb_idem_op *op, struct wb_err *err);
static inline bool
wb__fingerprint_eq(
    const struct wb_fingerprint *a, const struct wb_fingerprint *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}
static inline bool
wb__idem_op_eq(const struct wb_idem_op *a, const struct wb_idem_op *b)
{
    return wb__eq(a->key, b->key) && wb__eq(a->scope, b->scope) &&
           wb__eq(a->identity, b->identity);
}
static inline char *
wb__append(char *at, struct wb_slice s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}
/* Sleep by the environment's clock, or else the machine's. */
void wb__idem_sleep(const struct wb_env *env, int64_t us);

/* ---- run.c ------------------------------------------------------------- */

void wb__lease_renewer_init(struct wb__lease_renewer *renewer);
/* Join the thread. Needs: no wb_idem_run() is running. */
void wb__lease_renewer_fini(struct wb__lease_renewer *renewer);

#endif /* WB_SRC_IDEM_IDEM_H */
