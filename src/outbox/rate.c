/* rate.c - how many requests of a route may start now. The state of a rate is
 * in the database, so that it holds over all drains and workers of it. Only a
 * claim that takes something under a rate writes it.
 *
 * (1) What is kept is the time before which no request may start. It lies
 *     behind the clock by LATE_US at most: so much is caught up at once.
 * (2) One that is more than a minute further ahead than a request's share of
 *     time was written by a clock that was wrong, and counts as now. */
#include <stdio.h>
#include <stdlib.h>

#include "outbox/claim.h"

enum {
    LATE_US = 100000,
    AHEAD_US = 60000000
};

static int64_t
interval_us(const struct wb_rate *r)
{
    return 1000000 / (int64_t)r->per_s + 1;
}

/* The name of its row, of the column's type. */
static struct wb_slice
row_name(const struct wb_rate *r, char out[96])
{
    (void)snprintf(out, 96, "rate:%.*s", WB_SHOW(r->name));
    return wb_slice(out);
}

enum wb_status
wb__rate_read(
    struct wb__claiming *c, struct wb_rate *r, bool lock, struct wb_err *err)
{
    const enum wb__sql sql = lock ? WB__SQL_META_LOCK : WB__SQL_META_GET;
    struct wb__db *db = c->box->db;
    int64_t now_us = c->now_ms * 1000,
            latest_us = now_us + interval_us(r) + AHEAD_US;
    char name[96], digits[32];
    struct wb__args args = WB__ARGS(wb__text(row_name(r, name)));
    enum wb_status rc =
        lock ? wb__db_run(db, WB__SQL_META_NEW, args, NULL, err) : WB_OK;

    if (rc == WB_OK)
        rc = wb__db_start(db, sql, args, err);
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    r->next_us = 0;
    if (rc == WB_OK) {
        (void)snprintf(
            digits, sizeof(digits), "%.*s", WB_SHOW(wb__db_slice(db, sql, 0)));
        r->next_us = strtoll(digits, NULL, 10);
    }
    wb__db_end(db, sql);
    if (r->next_us < now_us - LATE_US)
        r->next_us = now_us - LATE_US;
    if (r->next_us > latest_us)
        r->next_us = now_us;
    r->permits = r->next_us > now_us
                     ? 0
                     : (uint32_t)(1 + (now_us - r->next_us) / interval_us(r));
    r->used = 0;
    r->locked = lock;
    return rc == WB_EMPTY ? WB_OK : rc;
}

uint32_t
wb__rate_left(const struct wb__front *f)
{
    const struct wb_rate *r = f->source == NULL ? NULL : f->source->rate;
    uint32_t begun;

    if (r == NULL)
        return WB_CLAIM_MAX;
    begun = (r->batch - f->n_taken % r->batch) % r->batch;
    return r->permits >= WB_CLAIM_MAX ? WB_CLAIM_MAX
                                      : begun + r->permits * r->batch;
}

void
wb__rate_take(struct wb__front *f)
{
    struct wb_rate *r = f->source == NULL ? NULL : f->source->rate;

    if (r == NULL)
        return;
    if (f->n_taken++ % r->batch == 0) {
        WB_ASSERT(r->permits > 0 && r->locked);
        r->permits--;
        r->used++;
    }
}

enum wb_status
wb__rates_save(struct wb__claiming *c, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < c->n_fronts && rc == WB_OK; i++) {
        const struct wb_source *s = c->front[i].source;
        char name[96], text[32];

        if (s == NULL || s->rate == NULL || s->rate->used == 0)
            continue;
        s->rate->next_us += s->rate->used * interval_us(s->rate);
        s->rate->used = 0;
        (void)snprintf(text, sizeof(text), "%lld", (long long)s->rate->next_us);
        rc = wb__db_run(c->box->db, WB__SQL_META_SET,
            WB__ARGS(
                wb__text(row_name(s->rate, name)), wb__text(wb_slice(text))),
            NULL, err);
    }
    return rc;
}
