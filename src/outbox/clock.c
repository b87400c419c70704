/* clock.c - which times can be believed.
 *
 * The wall clock of a machine may be wrong, and may be corrected. waybill_meta
 * holds the latest time that the database has seen (seen) and the latest that
 * is believed (trusted); accepts and finishes move both on, once a minute.
 *
 * (1) A clock that is behind what the database has seen was ahead before: what
 *     was created or claimed in the future is dated anew, as of now. A wait or
 *     a lease that began then has its length from now; a due time that the
 *     sender chose stays.
 * (2) Ids and keys are forgotten by the trusted time. A clock that is more than
 *     a day further on than the database has seen is not trusted until it has
 *     gone on for another hour, or until this process saw the time pass: a
 *     clock that is ahead for less forgets nothing too early. */
#include "outbox/outbox_internal.h"

enum {
    CHECK_MS = 60000,
    HOUR_MS = 3600000,
    DAY_MS = 86400000
};

/* What the database has seen. *newest: the creation of its last message, which
 * may have been inserted by SQL. */
static enum wb_status
read_clock(struct wb_outbox *box, int64_t *seen_ms, int64_t *trusted_ms,
    int64_t *newest_ms, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_CLOCK;
    enum wb_status rc = wb__db_start(box->db, sql, WB__NO_ARGS, err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(box->db, sql, err);
    if (rc == WB_OK) {
        *seen_ms = wb__db_int(box->db, sql, 0);
        *trusted_ms = wb__db_int(box->db, sql, 1);
        *newest_ms = wb__db_int(box->db, sql, 2);
    }
    wb__db_end(box->db, sql);
    return rc;
}

static bool
is_fresh(const struct wb_outbox *box, int64_t now_ms)
{
    const struct wb__clock *c = &box->clock;

    return c->known && (!c->left || box->db->nested) &&
           c->rollbacks == box->db->rollbacks && now_ms >= c->wall_ms &&
           wb__sat_sub(now_ms, c->wall_ms) < CHECK_MS;
}

/* Whether now is the last check's time and what has passed since. */
static bool
saw_it_pass(const struct wb__clock *c, int64_t now_ms, int64_t mono_ms)
{
    return c->known && c->seen_ms == c->trusted_ms &&
           wb__sat_sub(now_ms, c->wall_ms) <= mono_ms - c->mono_ms + CHECK_MS;
}

/* Move c on to now, from what the database holds. */
static void
judge(struct wb__clock *c, int64_t now_ms, bool passed)
{
    if (c->seen_ms > c->trusted_ms && !passed) {
        if (wb__sat_sub(now_ms, c->seen_ms) < HOUR_MS)
            return;
        c->trusted_ms = c->seen_ms;
    }
    c->seen_ms = now_ms;
    if (passed || wb__sat_sub(now_ms, c->trusted_ms) <= DAY_MS)
        c->trusted_ms = now_ms;
}

static enum wb_status
date_anew(
    struct wb_outbox *box, int64_t now_ms, int64_t ahead_ms, struct wb_err *err)
{
    enum wb_status rc = wb__db_run(box->db, WB__SQL_DATE_ANEW,
        WB__ARGS(wb__int(now_ms), wb__int(ahead_ms)), NULL, err);

    if (rc != WB_OK)
        return rc;
    return wb__db_run(
        box->db, WB__SQL_PROBES_ANEW, WB__ARGS(wb__int(now_ms)), NULL, err);
}

enum wb_status
wb__clock_check(struct wb_outbox *box, int64_t now_ms, struct wb_err *err)
{
    struct wb__clock *c = &box->clock, next = {.known = true,
                                           .left = box->db->nested,
                                           .rollbacks = box->db->rollbacks,
                                           .wall_ms = now_ms};
    int64_t seen_ms, trusted_ms, newest_ms, last_ms;
    bool back;
    enum wb_status rc;

    if (is_fresh(box, now_ms))
        return WB_OK;
    rc = read_clock(box, &seen_ms, &trusted_ms, &newest_ms, err);
    if (rc != WB_OK)
        return rc;
    next.mono_ms = box->env->mono_us(box->env->ctx) / 1000;
    next.seen_ms = seen_ms != 0 ? seen_ms : now_ms;
    next.trusted_ms = seen_ms != 0 ? trusted_ms : now_ms;
    last_ms = newest_ms > seen_ms ? newest_ms : seen_ms;
    back = wb__sat_sub(last_ms, now_ms) > CHECK_MS;
    if (back) {
        next.seen_ms = now_ms;
        if (next.trusted_ms > now_ms)
            next.trusted_ms = now_ms;
        if (!box->db->nested)
            rc = date_anew(box, now_ms, wb__sat_sub(last_ms, now_ms), err);
    } else {
        judge(&next, now_ms, saw_it_pass(c, now_ms, next.mono_ms));
    }
    /* Inside a caller's transaction the rows would stay locked, or fail it.
     * SQLite's are: that the clock was ahead must be known later. */
    if (rc == WB_OK &&
        (!box->db->nested || (!back && !box->db->engine->side_by_side)))
        rc = wb__db_run(box->db, WB__SQL_CLOCK_SET,
            WB__ARGS(wb__int(next.seen_ms), wb__int(next.trusted_ms)), NULL,
            err);
    if (rc == WB_OK)
        *c = next;
    return rc;
}

enum wb_status
wb__clock_went_back(
    struct wb_outbox *box, int64_t now_ms, bool *back, struct wb_err *err)
{
    int64_t seen_ms, trusted_ms, newest_ms;
    enum wb_status rc;

    if (is_fresh(box, now_ms) || box->db->nested)
        return WB_OK;
    rc = read_clock(box, &seen_ms, &trusted_ms, &newest_ms, err);
    if (rc == WB_OK && (wb__sat_sub(seen_ms, now_ms) > CHECK_MS ||
                           wb__sat_sub(newest_ms, now_ms) > CHECK_MS))
        *back = true;
    return rc;
}

int64_t
wb__clock_trusted(const struct wb_outbox *box, int64_t now_ms)
{
    const struct wb__clock *c = &box->clock;

    return c->known && c->seen_ms > c->trusted_ms ? c->trusted_ms : now_ms;
}
