/* pass.h - one pass of a drain, or the run of a worker: what loop.c shares with
 * slot.c and lost.c. */
#ifndef WB_SRC_RELAY_PASS_H
#define WB_SRC_RELAY_PASS_H

#include <uv.h>

#include "relay/relay.h"

struct wb__pass {
    struct wb_relay *relay;
    const struct wb_drain *drain;
    bool worker;
    int64_t start_us, end_us; /* end_us: claim no more after it; 0: never */
    int64_t progress_us, ready_us, saved_us; /* last, next, last */
    uint64_t saved; /* attempts in the report that was last saved */
    bool ready;
    int slot;        /* of drains; -1: none, nothing is claimed */
    int64_t slot_us; /* try again to take one, or clear the flag, then */
    int64_t left_us; /* no longer than this after a stop; 0: not stopped */
    int64_t lost_us; /* since when the database is lost; 0: it is not */
    int64_t wait_us; /* before the next attempt to use it */
    bool held;       /* outcomes wait for the database: claim nothing */
    bool stopped;    /* wb_relay_stop() was called */
    bool stopping;   /* and reported */
    bool last_pass;  /* stopped; deliver what another drain left to us */
};

/* ---- slot.c ------------------------------------------------------------ */

/* Take a free slot, if there is one; true also where it has one. */
bool wb__slot_try(struct wb__pass *p);
/* As wb__slot_try(); if there is none, the holders are flagged to check for
 * messages once more. */
WB_MUST_USE bool wb__slot_take(struct wb__pass *p);
void wb__slot_free(struct wb__pass *p);
/* A server that was away has forgotten the lock. */
void wb__slot_renew(struct wb__pass *p);
/* Before each cycle: note a stop; a worker takes, keeps or frees its slot. */
void wb__slot_keep(struct wb__pass *p, int64_t now_us);
/* May it claim, as far as a stop and the slots go? */
bool wb__pass_is_on(const struct wb__pass *p);

/* ---- listen.c ---------------------------------------------------------- */

/* Where commits are notified by a socket: watch the one of today on uv, and set
 * relay->notified if there was one. True: it is a new one, and commits since
 * the last one was lost were not notified. */
WB_MUST_USE bool wb__listen_keep(struct wb_relay *relay, uv_loop_t *uv);
void wb__listen_stop(struct wb_relay *relay);

/* ---- lost.c ------------------------------------------------------------ */

/* A cycle failed. True: wait for p->wait_us, and run another one, which commits
 * the outcomes that are kept. */
WB_MUST_USE bool wb__database_lost(
    struct wb__pass *p, enum wb_status rc, const struct wb_err *err);
/* A cycle was OK. False: it only committed outcomes that had waited, and the
 * next one shows whether messages can be claimed again. */
WB_MUST_USE bool wb__database_found(struct wb__pass *p);
/* Nothing is in flight, and no outcome waits. */
bool wb__relay_is_idle(const struct wb_relay *relay);

#endif /* WB_SRC_RELAY_PASS_H */
