/* ledger.c - what was promised, compared with the tables. See ledger.h. */
#include "ledger.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ledger_trace;

long
findings_sum(const struct findings *f)
{
    return f->lost + f->revived + f->doubled + f->torn + f->stray + f->stuck +
           f->damaged + f->unopened;
}

void
findings_add(struct findings *to, const struct findings *f)
{
    to->lost += f->lost;
    to->revived += f->revived;
    to->doubled += f->doubled;
    to->torn += f->torn;
    to->stray += f->stray;
    to->stuck += f->stuck;
    to->damaged += f->damaged;
    to->unopened += f->unopened;
}

/* ---- calls ------------------------------------------------------------- */

int
ledger_new(struct ledger *l, bool keyed, int lane)
{
    struct entry *e = &l->entry[l->n];

    assert(l->n < LEDGER_MAX);
    *e = (struct entry){.now = ABSENT,
        .since = BIT(ABSENT),
        .keyed = keyed,
        .lane = lane,
        .order = ++l->orders};
    return l->n++;
}

void
ledger_begin(struct ledger *l)
{
    l->in_call = true;
}

void
ledger_may(struct ledger *l, int n, unsigned pictures)
{
    l->entry[n].pending_call |= pictures;
}

void
ledger_must(struct ledger *l, int n, unsigned pictures)
{
    struct entry *e = &l->entry[n];

    ledger_may(l, n, pictures);
    e->before = e->since;
    e->after = pictures;
}

void
ledger_may_claim(struct ledger *l)
{
    const unsigned waiting = BIT(PENDING) | BIT(HELD) | BIT(PROCESSING);

    for (int n = 0; n < l->n; n++)
        if (((l->entry[n].since | l->entry[n].pending_call) & waiting) != 0)
            ledger_may(l, n, BIT(PROCESSING));
}

static void
entry_end(struct entry *e, enum wb_status status, bool full)
{
    if (status == WB_IO && e->pending_call != 0) {
        e->since |= e->pending_call;
        e->lo -= e->lo > 0;
        e->hi++;
    }
    if (status == WB_OK && full) {
        e->since = BIT(e->now);
        e->lo = e->hi = e->attempts;
    }
    e->pending_call = e->before = e->after = 0;
}

void
ledger_end(struct ledger *l, enum wb_status status, bool full)
{
    for (int n = 0; n < l->n; n++)
        entry_end(&l->entry[n], status, full);
    l->in_call = false;
}

void
ledger_set(struct ledger *l, int n, enum picture now)
{
    struct entry *e = &l->entry[n];

    if (!e->acked && now != ABSENT) {
        e->acked = true;
        l->acked++;
    }
    if (now == DELIVERED || (now == ABSENT && e->acked))
        l->confirmed++;
    e->now = now;
    e->since |= BIT(now);
}

void
ledger_attempts(struct ledger *l, int n, uint32_t attempts)
{
    struct entry *e = &l->entry[n];

    e->attempts = attempts;
    e->lo = attempts < e->lo ? attempts : e->lo;
    e->hi = attempts > e->hi ? attempts : e->hi;
}

static bool
is_live(const struct entry *e)
{
    return e->now == PENDING || e->now == HELD || e->now == PROCESSING;
}

void
ledger_promote(struct ledger *l, int lane)
{
    int first = -1;

    for (int n = 0; n < l->n && lane != 0; n++)
        if (l->entry[n].lane == lane && is_live(&l->entry[n]) &&
            (first < 0 || l->entry[n].order < l->entry[first].order))
            first = n;
    if (first >= 0 && l->entry[first].now == HELD)
        ledger_set(l, first, PENDING);
}

enum picture
ledger_join(struct ledger *l, int n)
{
    int lane = l->entry[n].lane;
    enum picture now = PENDING;

    for (int i = 0; i < l->n && lane != 0; i++)
        if (i != n && l->entry[i].lane == lane && is_live(&l->entry[i]))
            now = HELD;
    l->entry[n].order = ++l->orders;
    ledger_set(l, n, now);
    return now;
}

/* ---- rows -------------------------------------------------------------- */

static enum picture
picture_of(const char *status)
{
    static const char *const names[PICTURES] = {
        "", "pending", "held", "processing", "abandoned", "delivered"};

    for (int p = PENDING; p < PICTURES; p++)
        if (strcmp(names[p], status) == 0)
            return (enum picture)p;
    return ABSENT;
}

struct row {
    enum picture now;
    int times;
    uint32_t attempts;
    uint64_t token;
    int64_t seq, due_ms;
    char id[WB_ID_LEN + 1];
};

/* The number is in the content type, which tombstones keep. */
static void
read_row(const struct ledger *l, sqlite3_stmt *q, struct row *rows, long *stray)
{
    const char *type = (const char *)sqlite3_column_text(q, 3);
    int n = type == NULL ? -1 : atoi(type + strcspn(type, "0123456789"));
    struct row *r = &rows[n < 0 ? 0 : n];

    if (n < 0 || n >= l->n) {
        ++*stray;
        return;
    }
    r->times++;
    r->seq = sqlite3_column_int64(q, 0);
    r->now = picture_of((const char *)sqlite3_column_text(q, 1));
    r->attempts = (uint32_t)sqlite3_column_int(q, 2);
    r->token = (uint64_t)sqlite3_column_int64(q, 4);
    r->due_ms = sqlite3_column_int64(q, 5);
    (void)snprintf(
        r->id, sizeof(r->id), "%s", (const char *)sqlite3_column_text(q, 6));
}

static bool
read_rows(const struct ledger *l, sqlite3 *db, struct row *rows, long *stray)
{
    sqlite3_stmt *q;
    int code = sqlite3_prepare_v2(db,
        "SELECT seq, status, attempts, content_type, token, due_ms, id"
        " FROM waybill_outbox",
        -1, &q, NULL);

    memset(rows, 0, LEDGER_MAX * sizeof(*rows));
    if (code != SQLITE_OK)
        return false;
    while ((code = sqlite3_step(q)) == SQLITE_ROW)
        read_row(l, q, rows, stray);
    (void)sqlite3_finalize(q);
    return code == SQLITE_DONE;
}

/* ---- check ------------------------------------------------------------- */

static void
print_entry(int n, const struct entry *e, const struct row *r)
{
    (void)printf("message %d%s, lane %d, %s: found %d x%d attempts %u; now %d, "
                 "since %#x, call %#x, attempts %u..%u\n",
        n, e->keyed ? " keyed" : "", e->lane, e->acked ? "acked" : "not acked",
        r->now, r->times, r->attempts, e->now, e->since, e->pending_call, e->lo,
        e->hi);
}

static void
check_entry(
    const struct ledger *l, int n, const struct row *r, struct findings *f)
{
    const struct entry *e = &l->entry[n];
    unsigned may = e->since | (l->in_call ? e->pending_call : 0);
    uint32_t slack = l->in_call ? 1 : 0;
    bool ended = (may & ~(BIT(DELIVERED) | BIT(ABSENT))) == 0;
    bool counted = r->attempts + slack >= e->lo && r->attempts <= e->hi + slack;

    /* A tombstone that was not requested may be deleted after an hour. */
    if ((may & BIT(DELIVERED)) != 0 && !e->keyed)
        may |= BIT(ABSENT);
    if (r->now == ABSENT || r->now == DELIVERED)
        counted = true;
    if (ledger_trace && ((may & BIT(r->now)) == 0 || !counted))
        print_entry(n, e, r);
    if (r->times > 1)
        f->doubled++;
    if ((may & BIT(r->now)) == 0) {
        if (r->now == ABSENT)
            f->lost++;
        else if (ended && e->acked)
            f->revived++;
        else if (!e->acked)
            f->stray++;
        else
            f->lost++; /* what was done to it was undone */
    } else if (!counted) {
        f->lost++;
    }
}

static void
check_whole(const struct ledger *l, const struct row *rows, struct findings *f)
{
    bool before = false, after = false;

    for (int n = 0; n < l->n && l->in_call; n++) {
        const struct entry *e = &l->entry[n];
        unsigned bit = BIT(rows[n].now);

        if (e->after == 0 || (e->before & e->after & bit) != 0)
            continue;
        before = before || (e->before & bit) != 0;
        after = after || (e->after & bit) != 0;
    }
    if (before && after)
        f->torn++;
}

static long
count_of(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *q;
    long n = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK)
        return -1;
    if (sqlite3_step(q) == SQLITE_ROW)
        n = (long)sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    return n;
}

static void
check_tables(sqlite3 *db, struct findings *f)
{
    if (count_of(db,
            "SELECT count(*) FROM waybill_outbox h WHERE status = 'held'"
            " AND NOT EXISTS (SELECT 1 FROM waybill_outbox p WHERE"
            "  p.lane = h.lane AND p.lane IS NOT NULL"
            "  AND p.status IN ('pending', 'processing'))") != 0)
        f->stuck++;
    if (count_of(db, "SELECT count(*) FROM (SELECT 1 FROM waybill_outbox WHERE"
                     " lane IS NOT NULL AND status IN ('pending', 'processing')"
                     " GROUP BY lane HAVING count(*) > 1)") != 0)
        f->stuck++;
    if (count_of(db, "SELECT count(*) FROM pragma_integrity_check WHERE"
                     " integrity_check <> 'ok'") != 0)
        f->damaged++;
}

void
ledger_check(const struct ledger *l, sqlite3 *db, struct findings *f)
{
    struct row rows[LEDGER_MAX];

    if (!read_rows(l, db, rows, &f->stray)) {
        f->unopened++;
        return;
    }
    for (int n = 0; n < l->n; n++)
        check_entry(l, n, &rows[n], f);
    check_whole(l, rows, f);
    check_tables(db, f);
}

void
ledger_settle(struct ledger *l, sqlite3 *db, bool durable)
{
    struct row rows[LEDGER_MAX];
    long stray = 0;

    if (!read_rows(l, db, rows, &stray))
        return;
    for (int n = 0; n < l->n; n++) {
        struct entry *e = &l->entry[n];
        const struct row *r = &rows[n];

        e->since = (durable ? 0 : e->since | e->pending_call) | BIT(r->now);
        e->pending_call = e->before = e->after = 0;
        e->now = r->now;
        e->acked = e->acked || r->now != ABSENT;
        e->attempts = r->attempts;
        e->lo = durable || r->attempts < e->lo ? r->attempts : e->lo;
        e->hi = durable || r->attempts > e->hi ? r->attempts : e->hi;
        e->token = r->token;
        e->seq = r->seq;
        e->lease_end_ms = r->due_ms;
        e->order = (int)r->seq;
        l->orders = e->order > l->orders ? e->order : l->orders;
        memcpy(e->id.text, r->id, sizeof(r->id));
    }
    l->in_call = false;
}
