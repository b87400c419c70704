/* idem.h - the idempotency store inside: one face, backends behind it.
 *
 * idem.c checks what callers give and fills in defaults; a backend sees valid
 * arguments only and decides inside one critical section or transaction. */
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
    WB__IDEM_POLL_US = 25000, /* where nobody signals */
    WB__IDEM_MANY = 64
};

/*
 * One call of the store: what a caller asks for, how a backend makes it and
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
    struct wb_idem_record record;             /* COMPLETE, SETTLE, STORE */
    struct wb_idem_result *result;            /* BEGIN, LOOKUP */
    struct wb_idem_item *item;                /* PEEK, FORGET */
    enum wb_status rc;                        /* the outcome */
    struct wb__idem_call *next;               /* see wb__idem_many() */
    /* The backend's, while it makes the call: */
    struct wb_idem *store;
    int64_t now_ms;
    bool decided; /* rc and what it goes with are final */
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
    enum wb_status (*list)(struct wb_idem *store,
        enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item),
        void *ctx, struct wb_err *err);
    enum wb_status (*reap)(
        struct wb_idem *store, uint64_t *n, struct wb_err *err);
};

/* keeper.c: the thread that renews the leases of running dispatchers. */
struct wb__lease;
struct wb__keeper {
    struct wb__mutex lock;
    struct wb__cond wake, idle;
    struct wb__thread thread;
    bool running, stop;
    struct wb__lease *first;
    const struct wb__lease *busy; /* being renewed */
};

/* First member of every backend. */
struct wb_idem {
    const struct wb__idem_backend *backend;
    const struct wb_env *env;
    struct wb_idem_opts opts; /* defaults filled in */
    bool borrowed;            /* one thread's; no keeper */
    struct wb__keeper keeper;
};

/* idem.c */
void wb__idem_init(struct wb_idem *store,
    const struct wb__idem_backend *backend, const struct wb_idem_opts *opts);
void wb__idem_fini(struct wb_idem *store);
/* Make the calls of a chain, each as if alone, but with shared commits, and set
 * rc of each. */
void wb__idem_many(struct wb_idem *store, struct wb__idem_call *first);
void wb__idem_alone(struct wb_idem *store, struct wb__idem_call *call);
uint64_t wb__idem_token(const struct wb_idem *store);
/* OK, or why the names will not do. */
WB_MUST_USE enum wb_status wb__idem_op_check(
    const struct wb_idem_op *op, struct wb_err *err);
/* Copy a record into the result. False, and nothing changed, without memory. */
WB_MUST_USE bool wb__idem_copy_record(struct wb_idem_result *result,
    const struct wb_env *env, const struct wb_idem_record *record);
enum wb_status wb__idem_taken(const struct wb_idem_op *op, struct wb_err *err);
bool wb__fingerprint_eq(
    const struct wb_fingerprint *a, const struct wb_fingerprint *b);

/* Sleep by the environment's clock, or the machine's. */
void wb__idem_sleep(const struct wb_env *env, int64_t us);

/* ---- keeper.c ---------------------------------------------------------- */

struct wb__lease {
    const struct wb_idem_op *op;
    uint64_t token;
    int64_t lease_ms;
    int64_t next_us; /* renew at */
    struct wb__lease *next, **link;
};
void wb__keeper_init(struct wb__keeper *keeper);
void wb__keeper_fini(struct wb__keeper *keeper); /* stops the thread */
/* Renew it until it is let go. UNAVAILABLE: no thread. */
WB_MUST_USE enum wb_status wb__keeper_hold(
    struct wb_idem *store, struct wb__lease *lease, struct wb_err *err);
void wb__keeper_drop(struct wb_idem *store, struct wb__lease *lease);

#endif /* WB_SRC_IDEM_IDEM_H */
