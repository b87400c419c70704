/* workload.c - the calls of a workload, drawn from its seed. See workload.h. */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum {
    LEASE_MS = 30000,
    MANY = 5,
    CLAIMS = 4,
    PAYLOAD = 3000
};

static const char *const kinds[] = {"a.first", "b.second", "c.third"};

/* ---- accept ------------------------------------------------------------ */

struct draft {
    char type[16], key[16], lane[16];
    char payload[PAYLOAD];
    size_t len;
    const char *kind;
};

/* All fields follow from n: the same message can be sent again. */
static struct wb_message
draft_of(const struct workload *w, int n, struct draft *d)
{
    const struct entry *e = &w->ledger.entry[n];
    uint64_t random = (uint64_t)n;

    d->len = random_next(&random) % 16 == 0 ? PAYLOAD
                                            : 40 + random_next(&random) % 400;
    memset(d->payload, 'a' + n % 26, d->len);
    d->kind = kinds[n % (int)(sizeof(kinds) / sizeof(kinds[0]))];
    (void)snprintf(d->type, sizeof(d->type), "m/%d", n);
    d->key[0] = d->lane[0] = '\0';
    if (e->keyed)
        (void)snprintf(d->key, sizeof(d->key), "key %d", n);
    if (e->lane != 0)
        (void)snprintf(d->lane, sizeof(d->lane), "lane %d", e->lane);
    return (struct wb_message){.kind = wb_slice(d->kind),
        .payload = {d->payload, d->len},
        .key = wb_slice(d->key),
        .lane = wb_slice(d->lane),
        .content_type = wb_slice(d->type)};
}

static int
new_message(struct workload *w)
{
    bool keyed = workload_pick(w, 2) == 0;
    int lane = workload_pick(w, 3) == 0 ? 1 + workload_pick(w, LANES) : 0;

    return ledger_new(&w->ledger, keyed, lane);
}

static void
accepted_set(struct workload *w, int n, const struct wb_accepted *a)
{
    struct entry *e = &w->ledger.entry[n];

    if (a->status != WB_OK || a->duplicate)
        w->found.stray++;
    e->id = a->id;
    e->seq = a->seq;
    (void)ledger_join(&w->ledger, n);
}

static void
do_enqueue(struct workload *w, int many)
{
    static struct draft draft[MANY];
    struct wb_message message[MANY];
    struct wb_accepted accepted[MANY] = {0};
    struct wb_outbox *box = workload_some_box(w);
    int first = w->ledger.n;
    enum wb_status rc;

    if (box == NULL || first + many > LEDGER_MAX)
        return;
    ledger_begin(&w->ledger);
    for (int i = 0; i < many; i++) {
        int n = new_message(w);

        ledger_must(&w->ledger, n,
            w->ledger.entry[n].lane ? BIT(PENDING) | BIT(HELD) : BIT(PENDING));
        message[i] = draft_of(w, n, &draft[i]);
    }
    rc = many == 1 ? wb_outbox_enqueue(box, message, accepted, NULL)
                   : wb_outbox_enqueue_many(
                         box, message, (size_t)many, accepted, NULL);
    for (int i = 0; i < many && rc == WB_OK; i++)
        accepted_set(w, first + i, &accepted[i]);
    ledger_end(&w->ledger, rc, true);
    workload_call_ended(w, rc);
}

/* An accepted message again: it must be a duplicate. */
static void
do_repeat(struct workload *w)
{
    static struct draft draft;
    struct wb_accepted a = {0};
    struct wb_message m;
    struct wb_outbox *box = workload_some_box(w);
    int n = w->ledger.n == 0 ? 0 : workload_pick(w, w->ledger.n);
    enum wb_status rc;

    if (box == NULL || n >= w->ledger.n || !w->ledger.entry[n].keyed ||
        w->ledger.entry[n].now == ABSENT)
        return;
    m = draft_of(w, n, &draft);
    ledger_begin(&w->ledger);
    rc = wb_outbox_enqueue(box, &m, &a, NULL);
    if (rc == WB_OK &&
        (!a.duplicate || strcmp(a.id.text, w->ledger.entry[n].id.text) != 0))
        w->found.doubled++;
    ledger_end(&w->ledger, rc, false);
    workload_call_ended(w, rc);
}

/* ---- claim ------------------------------------------------------------- */

static struct wb_claim
claim_of(struct workload *w)
{
    static const struct wb_source sources[] = {
        {.kind = {"a.first", 7}, .max_attempts = 1000},
        {.kind = {"b.second", 8}, .max_attempts = 1000},
        {.kind = {"c.third", 7}, .max_attempts = 1000},
    };

    return (struct wb_claim){.sources = sources,
        .n_sources = sizeof(sources) / sizeof(sources[0]),
        .max = (uint32_t)(1 + workload_pick(w, CLAIMS)),
        .lease_ms = LEASE_MS};
}

static int
number_of(const struct wb_claimed *r)
{
    return r->content_type.len > 2 ? atoi(r->content_type.ptr + 2) : -1;
}

static void
take(struct workload *w, const struct wb_claimed *r)
{
    int n = number_of(r);
    struct entry *e = &w->ledger.entry[n];

    if (n < 0 || n >= w->ledger.n) {
        w->found.stray++;
        return;
    }
    if (e->now == PROCESSING && e->lease_end_ms > w->wall_ms)
        w->found.doubled++;
    else if (e->now == DELIVERED || (e->now == ABSENT && e->acked))
        w->found.revived++;
    else if (e->now != PENDING && e->now != PROCESSING)
        w->found.stray++;
    ledger_set(&w->ledger, n, PROCESSING);
    ledger_attempts(&w->ledger, n, r->attempts);
    if (e->token != 0 && e->token != r->token)
        e->stale = e->token;
    e->id = r->id;
    e->seq = r->seq;
    e->token = r->token;
    e->lease_end_ms = r->lease_end_ms;
}

static void
do_claim(struct workload *w)
{
    struct wb_outbox *box = workload_some_box(w);
    struct wb_claim claim = claim_of(w);
    struct wb_batch batch = {0};
    enum wb_status rc;

    if (box == NULL)
        return;
    ledger_begin(&w->ledger);
    ledger_may_claim(&w->ledger);
    rc = wb_outbox_claim(box, &claim, &batch, NULL);
    if (rc != WB_OK && batch.len > 0)
        w->found.stray++;
    for (size_t i = 0; i < batch.len; i++)
        take(w, &batch.row[i]);
    ledger_end(&w->ledger, rc, false);
    workload_call_ended(w, rc);
    wb_batch_free(&batch);
}

/* ---- finish ------------------------------------------------------------ */

static const struct wb_retry_policy retry = {.base_ms = 1000,
    .cap_ms = 5000,
    .retry_after_ms = 5000,
    .factor = 2,
    .max_attempts = 5};
static const struct wb_breaker_policy breaker = {3, 2000};

static struct wb_finish
finish_of(struct workload *w, int n)
{
    const struct entry *e = &w->ledger.entry[n];
    struct wb_finish f = {.id = e->id,
        .token = e->token,
        .seq = workload_pick(w, 2) == 0 ? e->seq : 0,
        .forget = workload_pick(w, 2) == 0,
        .outcome = WB_RETRY,
        .error = wb_slice("503 Service Unavailable"),
        .retry = &retry,
        .breaker = &breaker};
    int end = workload_pick(w, 10);

    f.end = end < 5 ? WB_CONFIRM : end < 9 ? WB_FAIL : WB_RELEASE;
    if (end == 8)
        f.outcome = WB_REJECTED;
    return f;
}

static enum picture
picture_after(const struct workload *w, int n, const struct wb_finish *f)
{
    if (f->end == WB_CONFIRM)
        return f->forget && !w->ledger.entry[n].keyed ? ABSENT : DELIVERED;
    if (f->end == WB_FAIL &&
        (f->outcome == WB_REJECTED || w->ledger.entry[n].attempts >= 5))
        return ABANDONED;
    return PENDING;
}

/* The messages of a lane that may become its head when one of it ends. */
static void
lane_may(struct workload *w, int lane)
{
    for (int n = 0; n < w->ledger.n && lane != 0; n++)
        if (w->ledger.entry[n].lane == lane)
            ledger_may(&w->ledger, n, BIT(PENDING));
}

static int
choose_finishes(
    struct workload *w, struct wb_finish *finish, int *number, int most)
{
    int count = 0;

    for (int n = 0; n < w->ledger.n && count < most; n++) {
        const struct entry *e = &w->ledger.entry[n];
        enum picture after;

        if (e->now != PROCESSING || workload_pick(w, 4) == 0)
            continue;
        number[count] = n;
        finish[count] = finish_of(w, n);
        lane_may(w, e->lane);
        after = picture_after(w, n, &finish[count]);
        if (after == PENDING) /* the same call may claim it again */
            ledger_may(&w->ledger, n, BIT(after));
        else
            ledger_must(&w->ledger, n, BIT(after));
        count++;
    }
    return count;
}

static void
finished(struct workload *w, int n, const struct wb_finish *f)
{
    enum picture now = picture_after(w, n, f);

    if (f->status != WB_OK) {
        w->found.lost++; /* a good token was refused */
        if (ledger_trace)
            (void)printf(
                "message %d: a finish got %s\n", n, wb_status_name(f->status));
        return;
    }
    ledger_set(&w->ledger, n, now);
    ledger_attempts(&w->ledger, n, f->attempts);
    if (now != PENDING)
        ledger_promote(&w->ledger, w->ledger.entry[n].lane);
}

static void
do_finish(struct workload *w, bool with_claim)
{
    struct wb_outbox *box = workload_some_box(w);
    struct wb_finish finish[CLAIMS];
    struct wb_claim claim = claim_of(w);
    struct wb_batch batch = {0};
    int number[CLAIMS], count;
    enum wb_status rc;

    if (box == NULL)
        return;
    ledger_begin(&w->ledger);
    count = choose_finishes(w, finish, number, 1 + workload_pick(w, CLAIMS));
    if (with_claim)
        ledger_may_claim(&w->ledger);
    rc = wb_outbox_finish(box, finish, (size_t)count,
        with_claim ? &claim : NULL, with_claim ? &batch : NULL, NULL);
    for (int i = 0; i < count && rc == WB_OK; i++)
        finished(w, number[i], &finish[i]);
    if (rc != WB_OK && batch.len > 0)
        w->found.stray++;
    for (size_t i = 0; i < batch.len; i++)
        take(w, &batch.row[i]);
    ledger_end(&w->ledger, rc, count > 0 || batch.len > 0);
    workload_call_ended(w, rc);
    wb_batch_free(&batch);
}

/* A worker that was suspended past the end of its lease continues. */
static void
do_stale(struct workload *w)
{
    struct wb_outbox *box = workload_some_box(w);
    int n = w->ledger.n == 0 ? 0 : workload_pick(w, w->ledger.n);
    const struct entry *e = &w->ledger.entry[n];
    struct wb_finish f = {.id = e->id, .token = e->stale, .seq = e->seq};
    enum wb_status rc;

    if (box == NULL || n >= w->ledger.n || e->stale == 0)
        return;
    f.end = (enum wb_end)workload_pick(w, 3);
    ledger_begin(&w->ledger);
    rc = workload_pick(w, 4) == 0
             ? wb_outbox_extend(box, &f, 1, LEASE_MS, NULL)
             : wb_outbox_finish(box, &f, 1, NULL, NULL, NULL);
    if (rc == WB_OK && f.status != WB_FENCED && f.status != WB_NOTFOUND)
        w->found.doubled++;
    w->fenced += rc == WB_OK && f.status == WB_FENCED;
    ledger_end(&w->ledger, rc, false);
    workload_call_ended(w, rc);
}

/* ---- administration ---------------------------------------------------- */

static int
some_in(struct workload *w, unsigned pictures)
{
    int from = w->ledger.n == 0 ? 0 : workload_pick(w, w->ledger.n);

    for (int i = 0; i < w->ledger.n; i++) {
        int n = (from + i) % w->ledger.n;

        if ((BIT(w->ledger.entry[n].now) & pictures) != 0)
            return n;
    }
    return -1;
}

static void
do_redrive(struct workload *w)
{
    struct wb_outbox *box = workload_some_box(w);
    int n = some_in(w, BIT(ABANDONED));
    struct wb_select select = {.n_ids = 1};
    struct wb_selected selected = {0};
    enum wb_status rc;

    if (box == NULL || n < 0)
        return;
    select.ids = &w->ledger.entry[n].id;
    ledger_begin(&w->ledger);
    w->ledger.entry[n].lo = 0;
    ledger_must(&w->ledger, n, BIT(PENDING) | BIT(HELD));
    rc = wb_outbox_redrive(box, &select, &selected, NULL, NULL, NULL);
    if (rc == WB_OK) {
        w->found.stray += selected.total != 1;
        ledger_attempts(&w->ledger, n, 0);
        (void)ledger_join(&w->ledger, n);
    }
    ledger_end(&w->ledger, rc, true);
    workload_call_ended(w, rc);
}

static void
do_discard(struct workload *w)
{
    struct wb_outbox *box = workload_some_box(w);
    int n = some_in(w, BIT(ABANDONED) | BIT(PENDING) | BIT(HELD));
    struct wb_select select = {.n_ids = 1};
    struct wb_selected selected = {0};
    enum wb_status rc;

    if (box == NULL || n < 0)
        return;
    select.ids = &w->ledger.entry[n].id;
    ledger_begin(&w->ledger);
    lane_may(w, w->ledger.entry[n].lane);
    ledger_must(&w->ledger, n, BIT(ABSENT));
    rc = wb_outbox_discard(box, &select, &selected, NULL, NULL, NULL);
    if (rc == WB_OK) {
        w->found.stray += selected.total != 1;
        ledger_set(&w->ledger, n, ABSENT);
        ledger_promote(&w->ledger, w->ledger.entry[n].lane);
    }
    ledger_end(&w->ledger, rc, true);
    workload_call_ended(w, rc);
}

/* ---- the run ----------------------------------------------------------- */

/* A lease that a clock ahead has given is dated anew, with its length. */
static void
set_back(struct workload *w)
{
    for (int n = 0; n < w->ledger.n; n++) {
        struct entry *e = &w->ledger.entry[n];

        if (e->lease_end_ms > w->wall_ms + LEASE_MS)
            e->lease_end_ms = w->wall_ms + LEASE_MS;
    }
}

static void
advance_clock(struct workload *w)
{
    const int64_t day_ms = 86400000;

    if (w->wall_ms > w->latest_ms)
        w->latest_ms = w->wall_ms;
    w->wall_ms += workload_pick(w, 4) == 0 ? workload_pick(w, 40000)
                                           : workload_pick(w, 1000);
    if (!w->wild_clock)
        return;
    switch (workload_pick(w, 12)) {
    case 0:
        w->wall_ms += day_ms;
        break;
    case 1:
        w->wall_ms -= day_ms;
        set_back(w);
        break;
    case 2:
        w->wall_ms -= workload_pick(w, 60000);
        set_back(w);
        break;
    case 3:
        w->wall_ms += 100 * (int64_t)workload_pick(w, 1000);
        break;
    }
}

static void
step(struct workload *w)
{
    int what = workload_pick(w, 100);

    advance_clock(w);
    if (what < 28)
        do_enqueue(w, 1);
    else if (what < 37)
        do_enqueue(w, 2 + workload_pick(w, MANY - 1));
    else if (what < 42)
        do_repeat(w);
    else if (what < 59)
        do_claim(w);
    else if (what < 75)
        do_finish(w, false);
    else if (what < 87)
        do_finish(w, true);
    else if (what < 90)
        do_stale(w);
    else if (what < 93)
        do_redrive(w);
    else if (what < 95)
        do_discard(w);
    else if (!w->keep_open)
        workload_close(w, w->handle + workload_pick(w, w->handles), false);
}

void
workload_run(struct workload *w, int steps)
{
    for (int i = 0; i < steps && w->stopped == WB_OK; i++)
        step(w);
}

static int
drain_once(struct workload *w, int h)
{
    struct wb_claim claim = claim_of(w);
    struct wb_finish finish = {.end = WB_CONFIRM, .forget = true};
    struct wb_batch batch = {0};
    int n = -1;

    claim.max = 1;
    if (!workload_stopped(
            w, wb_outbox_claim(w->box[h], &claim, &batch, NULL)) &&
        batch.len == 1) {
        take(w, &batch.row[0]);
        n = number_of(&batch.row[0]);
        finish.id = batch.row[0].id;
        finish.token = batch.row[0].token;
        if (!workload_stopped(
                w, wb_outbox_finish(w->box[h], &finish, 1, NULL, NULL, NULL)))
            finished(w, n, &finish);
    }
    wb_batch_free(&batch);
    return n;
}

void
workload_drain(struct workload *w, int h)
{
    const unsigned waits = BIT(PENDING) | BIT(HELD) | BIT(PROCESSING);

    if (w->wall_ms < w->latest_ms)
        w->wall_ms = w->latest_ms;
    w->wall_ms += INT64_C(36000000); /* leases and breakers have ended */
    while (w->stopped == WB_OK && drain_once(w, h) >= 0)
        w->wall_ms++;
    if (w->stopped != WB_OK)
        w->found.unopened++;
    else if (some_in(w, waits) >= 0)
        w->found.stuck++;
}
