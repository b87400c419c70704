/* sim.h - a deterministic simulation of Waybill: one seed is one history.
 *
 * One thread plays several processes that have one outbox file open, the
 * network, a receiver, the clocks and the disk. The library is the real one:
 * outbox, retry, breaker, and the relay except its loop. Each step is drawn at
 * random: a process does something, a request or response arrives or is lost, a
 * clock jumps, a write fails, a process is killed or stopped, the power fails.
 *
 * (1) The same seed gives the same history: time, randomness, disk and network
 *     depend on it alone. test_sim.c compares a hash of the events.
 * (2) The checks compare the store with a model, which knows what calls
 *     returned and what the receiver did. The outcome of a call that was
 *     interrupted, or returned IO, is unknown: both outcomes are accepted.
 * (3) The whole store is read after every crash, by the process that opens it
 *     first.
 * (4) In liveness mode the faults end; then each accepted message must have its
 *     effect, once, in bounded time (I15).
 * (5) A saboteur is a deliberate defect that the checks must find. Saboteurs
 *     are switches of the simulation, not of the library: the relay's calls to
 *     the outbox pass through sim_wrap.c. */
#ifndef WB_TEST_SIM_H
#define WB_TEST_SIM_H

#include "fault/powercut_vfs.h"
#include "random.h"
#include "relay/relay.h"

enum {
    SIM_MESSAGES = 64,
    SIM_PROCESSES = 3,
    SIM_KINDS = 3,
    SIM_LANES = 3,
    SIM_HELD = 4,
    SIM_BATCH = 3,
    SIM_WIRES = 48,
    SIM_EVENTS = 4096,
    SIM_MOST = 4, /* attempts */
    SIM_OPEN_MS = 20000,
    SIM_FAILURES = 3,
    SIM_LEASE_MS = 30000,
    SIM_KEEP_DAYS = 30,
    SIM_TIMEOUT_MS = 40000
};

/* ---- counters -------------------------------------------------------- */

/* What must never happen; see doc/INVARIANTS.md. */
#define SIM_VIOLATIONS(X)                                         \
    X(LOST, "lost")             /* I1: accepted, and gone */      \
    X(DOUBLED, "doubled")       /* I3: two effects, two rows */   \
    X(REVIVED, "revived")       /* I4 */                          \
    X(UNEXPECTED, "unexpected") /* I2 */                          \
    X(STALE, "stale")           /* I5: an old token passed */     \
    X(FENCED, "fenced")         /* a good token did not */        \
    X(SHARED, "shared")         /* two leases at once */          \
    X(ORDER, "order")           /* I6 */                          \
    X(EARLY, "early")           /* I7 */                          \
    X(ATTEMPTS, "attempts")     /* I7 */                          \
    X(BREAKER, "breaker")       /* I8 */                          \
    X(PAUSED, "paused")         /* taken from a paused kind */    \
    X(MISJUDGED, "misjudged")   /* receiver did not reject */     \
    X(DAMAGED, "damaged")       /* cannot be read or opened */    \
    X(MALFORMED, "malformed")   /* a bad row was not set aside */ \
    X(OVERDUE, "overdue")       /* no rule sets such a wait */    \
    X(UNDRAINED, "undrained")   /* I15 */
enum sim_violation {
#define X(name, text) SIM_##name,
    SIM_VIOLATIONS(X)
#undef X
    SIM_VIOLATION_COUNT
};

/* Injected faults. Each must have fired in a run of many seeds. */
#define SIM_FAULTS(X)                             \
    X(CUT_LOSE, "cuts that lose")                 \
    X(CUT_PREFIX, "keep a prefix")                \
    X(CUT_TEAR, "tear")                           \
    X(CUT_KEEP, "keep")                           \
    X(CUT_AGAIN, "during recovery")               \
    X(KILL, "killed")                             \
    X(STOP, "stopped")                            \
    X(FAIL_READ, "reads failed")                  \
    X(FAIL_WRITE, "writes")                       \
    X(FAIL_HALF, "half writes")                   \
    X(FAIL_FULL, "disk full")                     \
    X(FAIL_SYNC, "syncs")                         \
    X(FAIL_OTHER, "other calls")                  \
    X(NESTED, "inside a call of another process") \
    X(JUMP_AHEAD, "clock a day ahead")            \
    X(JUMP_BACK, "a day back")                    \
    X(DAYS_AHEAD, "many days ahead")              \
    X(CORRECTED, "corrected")                     \
    X(FROZEN, "frozen")                           \
    X(LOSE_REQUEST, "requests lost")              \
    X(LOSE_RESPONSE, "responses lost")            \
    X(DUPLICATE, "requests twice")                \
    X(LATE, "late after the timeout")             \
    X(REFUSE, "refused")                          \
    X(STATUS_5XX, "5xx")                          \
    X(STATUS_429, "429")                          \
    X(STATUS_4XX, "4xx")                          \
    X(OLD_TOKEN, "old tokens shown")              \
    X(BAD_ROW, "bad rows by SQL")
enum sim_fault {
#define X(name, text) SIM_##name,
    SIM_FAULTS(X)
#undef X
    SIM_FAULT_COUNT
};

#define SIM_SABOTAGES(X)                        \
    X(SOUND, "none")                            \
    X(MARK_BEFORE_SEND, "mark-before-send")     \
    X(LOST_IS_DELIVERED, "lost-is-delivered")   \
    X(LOST_IS_REJECTED, "lost-is-rejected")     \
    X(NO_FENCING, "no-fencing")                 \
    X(SHORT_LEASE, "short-lease")               \
    X(SYNC_NORMAL, "sync-normal")               \
    X(SYNC_OFF, "sync-off")                     \
    X(LYING_SYNC, "lying-sync")                 \
    X(NO_REPAIR, "no-repair")                   \
    X(BREAKER_FORGOTTEN, "breaker-forgotten")   \
    X(BREAKER_LATE, "breaker-late")             \
    X(FORGETFUL_RECEIVER, "forgetful-receiver") \
    X(NO_KEYS, "no-keys")                       \
    X(ACK_BEFORE_COMMIT, "ack-before-commit")   \
    X(SPLIT_COMMIT, "split-commit")             \
    X(IGNORE_RETRY_AFTER, "ignore-retry-after") \
    X(NO_LANES, "no-lanes")                     \
    X(TRUST_ROWS, "trust-rows")                 \
    X(BAD_ROW_FAILS_ALL, "bad-row-fails-all")   \
    X(PURGE_BY_ANY_CLOCK, "purge-by-any-clock") \
    X(NEVER_DATED_ANEW, "never-dated-anew")
enum sim_sabotage {
#define X(name, text) SIM_##name,
    SIM_SABOTAGES(X)
#undef X
    SIM_SABOTAGE_COUNT
};

struct sim_opts {
    bool liveness;
    bool trace; /* print each event */
    enum sim_sabotage sabotage;
};

/* Sums over seeds. */
struct sim_figures {
    uint64_t seeds, steps, cycles, calls, sends;
    uint64_t accepted, delivered, abandoned, discarded, recovered;
    uint64_t fault[SIM_FAULT_COUNT], violation[SIM_VIOLATION_COUNT];
    uint64_t bad_seeds, first_bad;
};
uint64_t sim_violations(const struct sim_figures *f);
enum sim_sabotage sim_sabotage_named(const char *name); /* or COUNT */
const char *sim_sabotage_name(enum sim_sabotage s);
/* Its mode: liveness where only waiting shows the defect. */
struct sim_opts sim_sabotage_opts(enum sim_sabotage s);
const char *sim_violation_name(enum sim_violation w);
const char *sim_fault_name(enum sim_fault f);

/* sim_begin() once, then sim_run() for each seed: the hash of its history. */
void sim_begin(const struct sim_opts *opts);
uint64_t sim_run(uint64_t seed, struct sim_figures *figures);
void sim_end(void);
/* Print the first violations of the last seed with the events of their
 * messages, and the command that repeats it. */
void sim_explain(uint64_t seed);

/* ---- internal ---------------------------------------------------------- */

/* A lease that was given by a clock that was ahead lasts its length, not until
 * that clock's end of it. */
struct sim_term {
    int64_t true_end_ms;
    unsigned aheads, backs; /* sim.aheads, sim.backs when it was given */
};

enum sim_bad { /* a row inserted by SQL */
    SIM_GOOD,
    SIM_BAD_ATTEMPTS, /* it may be sent once, or not at all */
    SIM_BAD_LANE,     /* from here on: never sent */
    SIM_BAD_KEY,
    SIM_BAD_HEADERS,
    SIM_BADS
};

struct sim_message {
    char type[16], key[16], lane_name[20];
    struct wb_id id; /* "" until known */
    bool has_id, keyed;
    int kind, lane; /* lane 0: none */
    enum sim_bad bad;
    int64_t due_ms, expires_ms, chosen_ms; /* chosen: by the sender */
    /* accepting it */
    bool acked, unsure, refused, adopted;
    uint64_t order; /* among those of its lane; 0: unknown */
    /* what calls reported since */
    bool confirm_tried, confirmed, discard_tried, discarded;
    uint64_t token;
    int64_t lease_end_ms;       /* 0: not leased, or unknown */
    struct sim_term term;       /* of the lease */
    unsigned lease_jumps;       /* sim.jumps when the lease was given */
    int64_t floor_ms;           /* not due before, by the clock it was set by */
    unsigned floor_jumps;       /* sim.jumps when it was set */
    uint64_t retry_after_token; /* of its last response, and */
    int64_t retry_after_ms;     /* its Retry-After */
    int effects, rejections;
    /* as last read */
    bool there, business;
    enum wb_state state;
};

struct sim_held { /* a claim of the worker that is not a relay */
    int n;        /* message; -1: free */
    struct wb_id id;
    uint64_t token;
    int64_t seq;
    bool sent, ended;
    struct wb_result result;
};

struct sim_transport {
    struct wb_transport base;
    int process;
};

struct sim_process {
    bool stopped;
    struct wb_outbox *box;
    sqlite3 *own; /* adopted */
    struct wb_relay *relay;
    struct sim_held held[SIM_HELD];
    struct sim_transport transport;
    struct wb_route route[SIM_KINDS];
    int64_t cycle_ms; /* of its last successful relay cycle */
};

enum sim_phase {
    SIM_FREE,
    SIM_REQUEST,
    SIM_RESPONSE,
    SIM_GONE
};
struct sim_wire {
    enum sim_phase phase;
    int process;
    wb_done_fn *done; /* NULL: its sender is dead or timed out */
    void *ctx;
    int64_t deadline_us;
    size_t n;
    int message[SIM_BATCH];
    struct wb_id id[SIM_BATCH];
    uint64_t token[SIM_BATCH]; /* of the claim */
    int status;
    int64_t retry_after_ms;
};

struct sim_breaker {
    bool unsure;
    uint32_t failures;
    int64_t open_until_ms, open_ms;
    uint64_t probe_token;
    int64_t probe_until_ms;
    struct sim_term term; /* of the probe */
};

struct sim_event {
    int step, kind, message, process;
    int64_t wall_ms, a, b;
};
#define SIM_EVENT_KINDS(X)                  \
    X(ENQUEUE, "enqueue")                   \
    X(ACCEPTED, "accepted")                 \
    X(RESULT, "result")                     \
    X(CLAIM, "claimed: attempt, lease end") \
    X(SEND, "sent")                         \
    X(EFFECT, "effect")                     \
    X(REPLY, "reply")                       \
    X(FINISH, "finish: end, outcome")       \
    X(FINISHED, "finished: status, due")    \
    X(EXTEND, "extend")                     \
    X(ADMIN, "admin")                       \
    X(OPEN, "open")                         \
    X(DIED, "died")                         \
    X(POWER, "power cut")                   \
    X(STOPPED, "stopped or continued")      \
    X(CLOCK, "clock")                       \
    X(FIRED, "fault fired")                 \
    X(FAULT, "fault armed")                 \
    X(ROW, "read: state, attempts")         \
    X(DRAIN, "faults end")                  \
    X(VIOLATION, "VIOLATION")
enum sim_event_kind {
#define X(name, text) SIM_E_##name,
    SIM_EVENT_KINDS(X)
#undef X
    SIM_EVENT_KIND_COUNT
};

struct sim {
    struct sim_opts opts;
    struct sim_figures *figures;
    struct wb_env env;
    struct powercut disk;
    /* zeroed for each seed, from here to event[] */
    uint64_t random;         /* of what the simulation does */
    uint64_t library_random; /* of what the library gets */
    int64_t wall_ms, mono_us, latest_ms;
    int64_t true_ms; /* what a right clock shows */
    int64_t days_ms; /* it was set so many days ahead; -1: and back */
    unsigned jumps, aheads, backs; /* all, and those in one direction */
    int processes, adopted;        /* their number; the one that adopts */
    int crashes;                   /* in 100 steps */
    int frozen;     /* steps for which the wall clock stands still */
    bool no_faults; /* from now on */
    int step, me;   /* me: the process that acts */
    int depth;      /* 1: inside a call of another process */
    bool nested;    /* another process acted inside this call */
    long nest_at;
    struct sim_process process[SIM_PROCESSES];
    struct sim_message message[SIM_MESSAGES];
    int n;
    uint64_t orders, lane_order[SIM_LANES + 1];
    struct sim_breaker breaker[SIM_KINDS];
    int paused[SIM_KINDS]; /* 0, 1, or 2: unknown */
    int receiver_mode[SIM_KINDS];
    struct sim_wire wire[SIM_WIRES];
    struct sim_seen {
        struct wb_id id;
        int n;
    } seen[4 * SIM_MESSAGES];
    int n_seen;
    uint64_t failures, repaired;
    enum sim_fault armed;
    uint64_t hash;
    struct sim_event event[SIM_EVENTS];
    int n_events;
};
extern struct sim sim;

/* sim_history.c */
int sim_pick(int n);
void sim_event(enum sim_event_kind what, int message, int64_t a, int64_t b);
void sim_violation(enum sim_violation wrong, int message, int64_t detail);
void sim_fired(enum sim_fault fault);

/* sim_model.c */
int sim_message_of_type(struct wb_slice type);
int sim_message_of_id(const struct wb_id *id);
extern const struct wb_retry_policy sim_retry;
extern const struct wb_breaker_policy sim_breaker_policy;
extern const char *const sim_kind[SIM_KINDS];
enum sim_hold {
    SIM_OLD,   /* a newer token was given */
    SIM_MAYBE, /* it may have been lost */
    SIM_FIRM   /* no other process can have claimed it */
};
void sim_model_claim(const struct wb_batch *batch);
void sim_model_finish_begin(
    const struct wb_finish *finishes, size_t n, enum sim_hold *hold);
void sim_model_finish_end(
    const struct wb_finish *finishes, size_t n, const enum sim_hold *hold);
void sim_model_extend_begin(const struct wb_finish *claims, size_t n);
void sim_model_extended(const struct wb_finish *claims, size_t n);
void sim_model_unsure(void); /* a call was interrupted, or returned IO */

/* sim_check.c: read the whole store and compare it with the model; false: it
 * could not be read. settled: a message that is absent cannot appear later. */
bool sim_check(int process, bool settled);
int64_t sim_next_due(int process); /* of what is pending; 0: nothing is */
/* The clock is right again: nothing waits longer than a rule of ours, or its
 * sender, has set. */
void sim_check_waits(int process);
/* Nothing is pending: nothing is held, and bad rows are named. */
void sim_check_aside(int process);

/* sim_net.c */
void sim_net_begin(void);
void sim_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx);
void sim_net_step(void);
void sim_net_settle(void); /* deliver all, without faults */
void sim_net_timeouts(int process);
void sim_net_dead(int process);

/* sim_memory.c */
void sim_memory_install(void);
void *sim_memory_resize(void *ctx, void *ptr, size_t size);

/* sim_process.c */
bool sim_is_dead(void); /* the process that acts, or the power */
bool sim_open(int process);
bool sim_failed(int process);
void sim_close(int process); /* drops its claims */
/* A call returned rc; false: an error, or its process died in it. */
bool sim_call_ended(enum wb_status rc);
/* A commit that returned FULL may be whole in the log: it then counts after a
 * crash, unless another commit was written over it. */
bool sim_is_unknown(enum wb_status rc);
sqlite3 *sim_handle(int process);
void sim_relay_cycle(int process);

/* sim_actors.c */
void sim_produce(int process);
void sim_worker(int process);
void sim_admin(int process);
void sim_act(int process); /* one of them */

#endif /* WB_TEST_SIM_H */
