/* outbox_fixture.h - what the outbox's tests share: short forms of its calls,
 * and plain SQL on its file through a second connection. */
#ifndef WB_TEST_OUTBOX_FIXTURE_H
#define WB_TEST_OUTBOX_FIXTURE_H

#include <sqlite3.h>

#include "support.h"
#include "waybill/outbox.h"

#define BOX "box.db"
#define DAY INT64_C(86400000)

/* Open test_db_url() with ENV; opts, if given, without an env of its own. */
struct wb_outbox *box_open(void);
struct wb_outbox *box_open_with(struct wb_outbox_opts opts);

/* Accept a message; must be OK. */
struct wb_accepted box_send(struct wb_outbox *box, struct wb_message m);
struct wb_id box_put(struct wb_outbox *box, const char *kind);
struct wb_id box_put_lane(
    struct wb_outbox *box, const char *kind, const char *lane);
/* Accept n messages of a kind in one commit. */
void box_fill(struct wb_outbox *box, const char *kind, size_t n);
/* The status of accepting this. */
enum wb_status box_try(struct wb_outbox *box, struct wb_message m);

/* A claimed message, copied out of the batch. */
struct taken {
    struct wb_id id;
    uint64_t token;
    int64_t seq, lease_end_ms;
    uint32_t attempts;
    char kind[65], lane[256], payload[256];
};
/* Claim one message, with a kind of that kind; there must be one. */
struct taken box_claim(struct wb_outbox *box, const char *kind);
/* Nothing can be claimed: the reason, and when to try again (may be NULL). */
enum wb_none box_claim_none(struct wb_outbox *box, int64_t *next_due_ms);

/* End a claim: it must be OK. */
void box_confirm(struct wb_outbox *box, const struct taken *t);
void box_release(struct wb_outbox *box, const struct taken *t);
/* Fail with WB_RETRY etc.; returns the finish with its results. */
struct wb_finish box_fail(
    struct wb_outbox *box, const struct taken *t, enum wb_outcome outcome);
/* Fail until it is abandoned. */
void box_abandon(struct wb_outbox *box, const struct taken *t);

/* On a connection of their own. */
void sql_run(const char *sql);
int64_t sql_int(const char *sql);
const char *sql_text(const char *sql); /* static; "NULL" where it is */
/* Status of a message, by its id: static. */
const char *status_of(const struct wb_id *id);

/* Take the write lock, until box_unlock(). */
void *box_lock(void);
void box_unlock(void *lock);

/* Callbacks: count rows; ignore kinds. */
enum wb_status row_count(void *n, const struct wb_row *row);
enum wb_status kind_ignore(void *ctx, const struct wb_kind_counts *counts);

#endif /* WB_TEST_OUTBOX_FIXTURE_H */
