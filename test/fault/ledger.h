/* ledger.h - what was promised about each message, and whether it was kept.
 *
 * The ledger follows a workload call by call. At any moment, also during a
 * call, it knows for each message in which states it may be found after a cut.
 * It compares the tables with that:
 *
 * (1) The effect of a call that returned OK with a FULL commit is durable. A
 *     claim alone may be undone, together with the claims after it.
 * (2) A call that has not returned took effect completely or not at all.
 * (3) Every row was requested, and no row exists twice.
 * (4) A lane has at most one message that is not held, its first; and no
 *     message is held without one.
 * (5) The database passes its integrity check. */
#ifndef WB_TEST_LEDGER_H
#define WB_TEST_LEDGER_H

#include <sqlite3.h>

#include "waybill/outbox.h"

enum {
    LEDGER_MAX = 256
};

/* In which state a message is found. */
enum picture {
    ABSENT,
    PENDING,
    HELD,
    PROCESSING,
    ABANDONED,
    DELIVERED,
    PICTURES
};
#define BIT(picture) (1U << (picture))

struct entry {
    struct wb_id id; /* "" until known */
    enum picture now;
    unsigned since;         /* bits: where it was since the last FULL commit */
    unsigned pending_call;  /* bits: where the running call may move it */
    unsigned before, after; /* bits, if the running call is all or nothing */
    bool keyed, acked;
    int lane;  /* 0: none */
    int order; /* in its lane */
    uint32_t attempts, lo, hi;
    uint64_t token, stale; /* stale: one that was replaced; 0: none */
    int64_t seq, lease_end_ms;
};

struct ledger {
    struct entry entry[LEDGER_MAX];
    int n, orders;
    bool in_call;
    int64_t acked, confirmed;
};

/* Broken promises, counted. */
struct findings {
    long lost;     /* acknowledged, and gone, or what was done to it undone */
    long revived;  /* confirmed, and back */
    long doubled;  /* two rows, or claimed twice */
    long torn;     /* part of a transaction */
    long stray;    /* not requested, or in an impossible state */
    long stuck;    /* held without a head, or two heads in a lane */
    long damaged;  /* integrity_check */
    long unopened; /* the library refuses to open it, or to work */
};
/* Print each message that is in no allowed state, for debugging. */
extern bool ledger_trace;

long findings_sum(const struct findings *f);
void findings_add(struct findings *to, const struct findings *f);

/* A new message; its number. */
int ledger_new(struct ledger *l, bool keyed, int lane);

/* A call begins; it may take a message to these states. */
void ledger_begin(struct ledger *l);
void ledger_may(struct ledger *l, int n, unsigned pictures);
/* The same, but all such messages of the call, or none of them. */
void ledger_must(struct ledger *l, int n, unsigned pictures);
void ledger_may_claim(struct ledger *l); /* any that is not ended */
/* It returned. OK: each message is where ledger_set() said meanwhile; with
 * full, durably (a FULL commit that changed something). IO: unknown. Else:
 * nothing happened. */
void ledger_end(struct ledger *l, enum wb_status status, bool full);
void ledger_set(struct ledger *l, int n, enum picture now);
void ledger_attempts(struct ledger *l, int n, uint32_t attempts);
/* The head of a lane ended, or a message joined it. */
void ledger_promote(struct ledger *l, int lane);
enum picture ledger_join(struct ledger *l, int n);

/* Compare the tables with the ledger. */
void ledger_check(const struct ledger *l, sqlite3 *db, struct findings *f);
/* Accept the tables as the truth; with durable, they cannot be lost. */
void ledger_settle(struct ledger *l, sqlite3 *db, bool durable);

#endif /* WB_TEST_LEDGER_H */
