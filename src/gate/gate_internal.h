/* gate_internal.h - what the files of the gateway share. From the bottom up:
 * rules, upstream, answer and metrics, job, claim, carry, keyed and plain,
 * gate. */
#ifndef WB_SRC_GATE_GATE_INTERNAL_H
#define WB_SRC_GATE_GATE_INTERNAL_H

#include <uv.h>

#include "gate/gate.h"
#include "gate/rules.h"
#include "gate/upstream.h"
#include "idem/idem.h"

enum {
    WB__GATE_QUEUE = 256 << 10, /* past it the other side is held up */
    WB__GATE_POLL_MS = 25,
    WB__GATE_WAITERS = 64,
    WB__GATE_BUCKETS = 12
};

/* name in metrics, help */
#define WB__GATE_COUNTERS(X)                                        \
    X(fresh, "Keyed requests that went upstream.")                  \
    X(replay, "Answers given again.")                               \
    X(wait, "Requests that waited for another with their key.")     \
    X(conflict, "Requests refused because another was in flight.")  \
    X(mismatch, "Keys used again for another request.")             \
    X(skipped, "Keyed requests passed without an identity.")        \
    X(released, "Keys freed, since nothing final happened.")        \
    X(truncated, "Answers stored without their body.")              \
    X(unknown, "Requests whose outcome is unknown.")                \
    X(held, "Requests refused because an outcome is unknown.")      \
    X(lost, "Claims lost while their request was under way.")       \
    X(store_errors, "Calls of the store that failed.")              \
    X(refused, "Requests refused for their key, identity or size.") \
    X(passed, "Requests passed on as they are.")                    \
    X(upstream_errors, "Requests without a whole answer from upstream.")

struct wb__gate_counters {
#define WB__GATE_FIELD(name, help) uint64_t name;
    WB__GATE_COUNTERS(WB__GATE_FIELD)
#undef WB__GATE_FIELD
    uint64_t bucket[WB__GATE_BUCKETS + 1], seconds_us;
};

enum {
    WB__GATE_BATCHES = 2 /* one commits, the next begins to read */
};
struct wb__batch {
    uv_work_t work; /* first */
    struct wb__gate *gate;
    struct wb__idem_call *first; /* NULL: nothing is under way */
};

struct wb__gate {
    struct wb__gate_opts opts;
    struct wb__batch batch[WB__GATE_BATCHES];
    struct wb__idem_call *waiting, **last; /* for a batch to end */
    struct wb__http_server *server;
    struct wb__upstream *up;
    uv_timer_t tick;
    void (*on_tick)(struct wb__gate *gate);
    struct wb_slice authority;
    struct wb__keyed *first;
    size_t bytes; /* of keyed bodies and answers */
    struct wb__gate_counters n;
    bool ticking, stopped, told;
};

/* ---- error_response.c ------------------------------------------------- */

/* Why the gateway itself answers. (G-5) */
enum wb__gate_error {
    WB__BAD_KEY,
    WB__KEY_REQUIRED,
    WB__ANONYMOUS,
    WB__IN_FLIGHT,
    WB__MISMATCH,
    WB__OUTCOME_UNKNOWN,
    WB__OUTCOME_NOW_UNKNOWN,
    WB__OUTCOME_SWITCHED,
    WB__TOO_LARGE,
    WB__URI_TOO_LONG,
    WB__STORE_UNAVAILABLE,
    WB__UPSTREAM_UNREACHABLE,
    WB__UPSTREAM_FAILED,
    WB__UPSTREAM_SWITCHED,
    WB__OUT_OF_MEMORY,
};
void wb__gate_respond_error(
    struct wb__exchange *call, enum wb__gate_error problem);

/* ---- metrics.c --------------------------------------------------------- */

void wb__gate_timed(struct wb__gate *gate, int64_t us);

/* ---- store_queue.c ----------------------------------------------------- */

/* A call of the store, in a thread where it may block, together with those
 * that came meanwhile; then done(), with what became of it in call.rc. */
struct wb__job_run {
    struct wb__idem_call call; /* first */
    struct wb__keyed *keyed;
    void (*done)(struct wb__job_run *job);
    bool busy;
};
/* The operation and the token are filled in. */
void wb__gate_job(struct wb__job_run *job, struct wb__idem_call call,
    void (*done)(struct wb__job_run *job));

/* ---- claim.c: a keyed request ------------------------------------------ */

enum wb__stage {
    WB__READING,
    WB__BEGINNING, /* the store is asked */
    WB__WAITING,   /* for another's claim to end */
    WB__HOLDING,   /* the claim; upstream has the request */
    WB__ENDING,    /* the store is told */
    WB__OVER
};

struct wb__keyed {
    struct wb__gate *gate;
    struct wb__exchange *call; /* NULL: over */
    struct wb__keyed *prev, *next;
    enum wb__stage stage;
    struct wb__name identity, key;
    struct wb__buf scope, body, fields, kept, answer;
    struct wb_idem_op op;
    struct wb_fingerprint fingerprint;
    struct wb_idem_result result;
    uint64_t token;
    struct wb__job_run job, renew;
    struct wb__upstream_request ask;
    int64_t began_us, deadline_us, renew_us;
    int status;
    uint64_t length; /* as upstream gave it */
    enum wb__gate_error problem;
    size_t bytes; /* as counted in gate->bytes */
    bool waited, woken, begun, truncated, lost;
};

struct wb__keyed *wb__keyed_new(
    struct wb__gate *gate, struct wb__exchange *call);
/* Its scope is known: fill in op. */
void wb__keyed_name(struct wb__keyed *x);
void wb__keyed_account(struct wb__keyed *x);
/* The call has been answered, or dropped. Wakes who waits for the key. */
void wb__keyed_over(struct wb__keyed *x);
void wb__keyed_refuse(struct wb__keyed *x, enum wb__gate_error problem);
size_t wb__keyed_waiters(const struct wb__keyed *x);
bool wb__keyed_is_held_here(const struct wb__keyed *x);
int64_t wb__gate_now(const struct wb__gate *gate);
/* The tick comes after ms, then each WB__GATE_POLL_MS while anything lives. */
void wb__gate_tick(struct wb__gate *gate, uint64_t ms);

/* ---- carry.c: from the claim to its end -------------------------------- */

void wb__carry(struct wb__keyed *x);
void wb__carry_renew(struct wb__keyed *x, int64_t now_us);

/* ---- keyed.c, passthrough.c -------------------------------------------- */

void wb__keyed_handle(struct wb__gate *gate, struct wb__exchange *call,
    const struct wb__name *identity, const struct wb__name *key);
void wb__keyed_tick(struct wb__gate *gate);
void wb__passthrough_handle(
    struct wb__gate *gate, struct wb__exchange *call, bool skipped);

#endif /* WB_SRC_GATE_GATE_INTERNAL_H */
