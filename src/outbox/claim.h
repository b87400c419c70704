/* claim.h - what claim.c, front.c and rate.c share: one claim while it runs.
 *
 * A source that is not paused is a front. A claim merges the fronts, oldest row
 * first. */
#ifndef WB_SRC_OUTBOX_CLAIM_H
#define WB_SRC_OUTBOX_CLAIM_H

#include "outbox/outbox_internal.h"

/* A position in the order (due, seq). */
struct wb__bound {
    int64_t due_ms, seq;
};

/* A source that is not paused, and its oldest row. */
struct wb__front {
    const struct wb_source *source; /* NULL: any kind */
    size_t index;
    struct wb_slice kind, scope;
    struct wb__breaker *breaker; /* NULL: it has no row, it is closed; or each
                                    message has its own */
    struct wb__bound at;
    uint32_t n_taken; /* by this claim */
    bool ready;       /* the row at that position may be taken */
    bool locked;      /* its rows are locked by others, or held */
};

struct wb__claiming {
    struct wb_outbox *box;
    const struct wb_claim *claim;
    struct wb_batch *batch;
    struct wb__arena *arena; /* owned by the batch */
    struct wb__breakers breakers;
    struct wb_slice *paused;
    struct wb__front *front;
    struct wb_row *row; /* copied, not leased yet */
    size_t n_paused, n_fronts, n_rows, max, bytes, scopes_cap;
    bool no_stale; /* one whose lease ran out is taken, or none is wanted */
    int64_t now_ms, due_by_ms, lease_ms;
};

/* ---- front.c ------------------------------------------------------------ */

/* Make a front of each source, or of each kind that has messages. A paused kind
 * has none; the batch lists it if one of its messages is due. */
WB_MUST_USE enum wb_status wb__fronts_find(
    struct wb__claiming *c, struct wb_err *err);
/* Read the first row's position, and decide whether it may be taken now. */
WB_MUST_USE enum wb_status wb__front_refresh(
    struct wb__claiming *c, struct wb__front *f, struct wb_err *err);
/* The ready front with the oldest row, and how far its rows may be taken before
 * those of the second oldest. NULL: none is ready. */
struct wb__front *wb__front_oldest(
    struct wb__claiming *c, struct wb__bound *limit);
/* Has its source no free slot, or no request left by its rate? */
bool wb__front_full(const struct wb__front *f);
/* The batch: something may be claimed at that time. */
void wb__batch_next(struct wb_batch *batch, int64_t ms);
/* The batch: the breaker of this scope holds a due message back. */
WB_MUST_USE enum wb_status wb__batch_blocked(
    struct wb__claiming *c, struct wb_slice scope, struct wb_err *err);

/* ---- rate.c ------------------------------------------------------------- */

/* Read it; with lock, for the rest of the transaction. */
WB_MUST_USE enum wb_status wb__rate_read(
    struct wb__claiming *c, struct wb_rate *r, bool lock, struct wb_err *err);
/* How many more messages of a front its rate allows. */
uint32_t wb__rate_left(const struct wb__front *f);
/* One of them is leased. */
void wb__rate_take(struct wb__front *f);
/* Write what was used. */
WB_MUST_USE enum wb_status wb__rates_save(
    struct wb__claiming *c, struct wb_err *err);

#endif /* WB_SRC_OUTBOX_CLAIM_H */
