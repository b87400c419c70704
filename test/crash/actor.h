/* actor.h - a producer or a worker of the harness: a process that uses the
 * library as a program would, and records what it did.
 *
 * (1) One event is one line of JSON, appended with one write(2), before a call
 *     (invoke) and after it (ok, fail, info). A process that is killed in
 *     between leaves an open invoke: the call may or may not have happened.
 * (2) A sabotage does one thing wrong that the checker must find. */
#ifndef WB_TEST_ACTOR_H
#define WB_TEST_ACTOR_H

#include <stdbool.h>

#include "../random.h"
#include "waybill/outbox.h"

enum sabotage {
    SOUND,
    MARK_BEFORE_SEND,  /* confirm, then send */
    NO_KEYS,           /* every send under a fresh id */
    SPLIT_COMMIT,      /* own row and message in two commits */
    ACK_BEFORE_COMMIT, /* "accepted", then accept */
    NO_TRANSACTION,    /* the message of a transaction outside of it */
    LOST_IS_NO,        /* no response: enqueued again as a new message */
    NO_FENCING,        /* confirm with the token that is in the row now */
    SHORT_LEASE,       /* shorter than a send takes */
    SHORT_RETENTION,   /* keys forgotten before they are repeated */
    SABOTAGES
};
extern const char *const sabotage_name[SABOTAGES];

struct actor {
    const char *db, *name, *socket;
    int history;
    uint64_t random;
    enum sabotage sabotage;
    int64_t lease_ms;
    struct wb_outbox *box;
};

bool actor_one_in(struct actor *a, unsigned n);
void actor_sleep_ms(int64_t ms);
int64_t actor_wall_ms(void);
int64_t actor_mono_us(void);

/* What happened to a message: key, and id and token if there are. */
struct event {
    const char *what, *type; /* enqueue, claim, ...; invoke, ok, ... */
    const char *key, *id;
    uint64_t token;
    uint32_t attempts;
    int64_t due_ms;
};
void actor_write(struct actor *a, const struct event *e);

/* Unless status is OK, prints the error and ends the process. */
void actor_need(enum wb_status status, const struct wb_err *err);

void producer_run(struct actor *a); /* does not return */
void worker_run(struct actor *a);   /* does not return */

#endif /* WB_TEST_ACTOR_H */
