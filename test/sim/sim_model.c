/* sim_model.c - the state of each message and breaker, as calls reported it,
 * and the check of each result against it.
 *
 * Calls of one process may begin and end inside a call of another. So whether a
 * token may be valid is determined when the call begins. */
#include <stdlib.h>

#include "sim.h"

const struct wb_retry_policy sim_retry = {
    2000, 60000, 120000, 2, SIM_MOST, false, NULL, 0};
const struct wb_breaker_policy sim_breaker_policy = {SIM_FAILURES, SIM_OPEN_MS};
const char *const sim_kind[SIM_KINDS] = {"a.plain", "b.batch", "c.other"};

int
sim_message_of_type(struct wb_slice type)
{
    int n = type.len > 2 && type.len < 8 ? 0 : -1;

    for (size_t i = 2; i < type.len && n >= 0; i++)
        n = n * 10 + (type.ptr[i] - '0');
    return n < sim.n ? n : -1;
}

int
sim_message_of_id(const struct wb_id *id)
{
    for (int n = 0; n < sim.n; n++)
        if (memcmp(sim.message[n].id.text, id->text, WB_ID_LEN) == 0)
            return n;
    return -1;
}

static int64_t
later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- claim ------------------------------------------------------------- */

static bool
is_open(const struct sim_breaker *b)
{
    return b->open_until_ms > sim.wall_ms &&
           b->open_until_ms <= sim.wall_ms + b->open_ms;
}

static struct sim_term
term_begun(void)
{
    return (struct sim_term){sim.true_ms + SIM_LEASE_MS, sim.aheads, sim.backs};
}

/* Whatever the clock has done since, nobody else may have it. Set back, it may
 * have been dated anew; set ahead after that, it may be over. */
static bool
lasts(int64_t end_ms, const struct sim_term *t)
{
    return end_ms > sim.wall_ms && t->true_end_ms > sim.true_ms &&
           (t->aheads == sim.aheads || t->backs == sim.backs);
}

static void
claim_breaker(int n, const struct wb_claimed *r)
{
    struct sim_breaker *b = &sim.breaker[sim.message[n].kind];

    if (b->unsure || b->open_until_ms == 0)
        return;
    if (is_open(b) ||
        (b->probe_token != 0 && lasts(b->probe_until_ms, &b->term)))
        sim_violation(SIM_BREAKER, n, b->open_until_ms);
    b->probe_token = r->token;
    b->probe_until_ms = r->lease_end_ms;
    b->term = term_begun();
}

/* The message must be one that may be claimed now. */
static void
claim_check(int n, const struct wb_claimed *r)
{
    struct sim_message *m = &sim.message[n];

    if (m->confirmed || m->discarded)
        sim_violation(SIM_REVIVED, n, m->confirmed);
    if (m->refused)
        sim_violation(SIM_UNEXPECTED, n, 0);
    if (m->bad > SIM_BAD_ATTEMPTS)
        sim_violation(SIM_MALFORMED, n, m->bad);
    if (lasts(m->lease_end_ms, &m->term))
        sim_violation(SIM_SHARED, n, m->lease_end_ms);
    if (r->attempts > SIM_MOST && m->bad != SIM_BAD_ATTEMPTS)
        sim_violation(SIM_ATTEMPTS, n, r->attempts);
    if ((m->due_ms > sim.wall_ms && r->attempts == 1) ||
        (m->floor_ms > sim.wall_ms && m->floor_jumps == sim.jumps))
        sim_violation(SIM_EARLY, n, m->due_ms);
    if (m->expires_ms != 0 && m->expires_ms <= sim.wall_ms)
        sim_violation(SIM_EARLY, n, m->expires_ms);
    if (sim.paused[m->kind] == 1)
        sim_violation(SIM_PAUSED, n, m->kind);
    /* One that had expired is back after a power cut that undid the claim. */
    if (m->order != 0 && m->order < sim.lane_order[m->lane] &&
        m->expires_ms == 0)
        sim_violation(SIM_ORDER, n, (int64_t)m->order);
}

/* A process whose relay ran its cycles in time, with no clock jump, has
 * extended its leases: another process must not get its messages. */
static void
claim_short(int n)
{
    for (int p = 0; p < SIM_PROCESSES; p++) {
        struct sim_process *o = &sim.process[p];

        for (struct wb__delivery *f = o->relay == NULL ? NULL
                                                       : o->relay->in_flight;
             f != NULL && p != sim.me; f = f->next)
            for (size_t i = 0; i < f->n; i++)
                if (sim_message_of_id(&f->item[i].message->id) == n &&
                    f->item[i].message->token == sim.message[n].token &&
                    sim.message[n].lease_end_ms != 0 &&
                    sim.message[n].lease_jumps == sim.jumps &&
                    sim.wall_ms < o->cycle_ms + SIM_LEASE_MS / 2)
                    sim_violation(SIM_SHARED, n, p);
    }
}

void
sim_model_claim(const struct wb_batch *batch)
{
    for (size_t i = 0; i < batch->len; i++) {
        const struct wb_claimed *r = &batch->row[i];
        int n = sim_message_of_type(r->content_type);
        struct sim_message *m = &sim.message[n];

        sim_event(SIM_E_CLAIM, n, r->attempts, r->lease_end_ms);
        if (n < 0) {
            sim_violation(SIM_UNEXPECTED, n, r->seq);
            continue;
        }
        claim_check(n, r);
        claim_short(n);
        claim_breaker(n, r);
        m->id = r->id;
        m->token = r->token;
        m->lease_end_ms = r->lease_end_ms;
        m->term = term_begun();
        m->lease_jumps = sim.jumps;
        m->due_ms = m->floor_ms = 0; /* now its lease counts */
        if (m->order > sim.lane_order[m->lane] && m->lane != 0)
            sim.lane_order[m->lane] = m->order;
    }
}

/* ---- finish ------------------------------------------------------------ */

void
sim_model_finish_begin(
    const struct wb_finish *finishes, size_t n, enum sim_hold *hold)
{
    for (size_t i = 0; i < n; i++) {
        const struct wb_finish *f = &finishes[i];
        int at = sim_message_of_id(&f->id);
        struct sim_message *m;

        sim_event(SIM_E_FINISH, at, f->end, f->outcome);
        hold[i] = SIM_OLD;
        if (at < 0) {
            sim_violation(SIM_UNEXPECTED, at, 0);
            continue;
        }
        m = &sim.message[at];
        if (m->token != f->token) {
            sim_fired(SIM_OLD_TOKEN);
            continue;
        }
        /* While a clock was ahead, another process may have claimed it. */
        hold[i] =
            m->lease_end_ms > sim.latest_ms && lasts(m->lease_end_ms, &m->term)
                ? SIM_FIRM
                : SIM_MAYBE;
        m->lease_end_ms = 0;
        m->confirm_tried = m->confirm_tried || f->end == WB_CONFIRM;
    }
}

/* The Retry-After of its attempt. */
static int64_t
asked_ms(const struct wb_finish *f, const struct sim_message *m)
{
    int64_t asked = m->retry_after_token == f->token ? m->retry_after_ms : 0;

    return asked < sim_retry.retry_after_ms ? asked : sim_retry.retry_after_ms;
}

static void
finish_breaker(const struct sim_message *m, const struct wb_finish *f)
{
    struct sim_breaker *b = &sim.breaker[m->kind];
    bool probe = b->open_until_ms != 0 && b->probe_token == f->token;

    if (f->end == WB_CONFIRM) {
        if (b->open_until_ms == 0 || probe)
            *b = (struct sim_breaker){.unsure = b->unsure};
        b->failures = 0;
    } else if (f->end == WB_FAIL && f->rest && asked_ms(f, m) > 0) {
        if (probe)
            b->probe_token = 0;
        if (!is_open(b) || b->open_until_ms < sim.wall_ms + asked_ms(f, m)) {
            b->open_ms = asked_ms(f, m);
            b->open_until_ms = sim.wall_ms + b->open_ms;
        }
    } else if (f->end == WB_FAIL && f->outcome != WB_REJECTED &&
               !f->not_counted) {
        b->failures++;
        if (probe || (b->open_until_ms == 0 && b->failures >= SIM_FAILURES)) {
            b->open_ms = SIM_OPEN_MS;
            b->open_until_ms = sim.wall_ms + SIM_OPEN_MS;
            b->probe_token = 0;
        }
    } else if (probe) {
        b->probe_token = 0;
    }
}

/* At least half the backoff of its attempt, and the Retry-After. */
static int64_t
backoff_ms(const struct wb_finish *f, const struct sim_message *m)
{
    int64_t window = sim_retry.base_ms;

    for (uint32_t i = 1; i < f->attempts; i++)
        window *= sim_retry.factor;
    if (window > sim_retry.cap_ms)
        window = sim_retry.cap_ms;
    return later(window / 2, asked_ms(f, m));
}

static void
finish_good(int n, const struct wb_finish *f, enum sim_hold hold)
{
    struct sim_message *m = &sim.message[n];

    if (hold == SIM_OLD) {
        sim_violation(SIM_STALE, n, f->end);
        return;
    }
    finish_breaker(m, f);
    m->confirmed = m->confirmed || f->end == WB_CONFIRM;
    if (f->end == WB_FAIL && f->state == WB_STATE_PENDING)
        m->floor_ms = sim.wall_ms + backoff_ms(f, m);
    m->floor_jumps = sim.jumps;
}

void
sim_model_finish_end(
    const struct wb_finish *finishes, size_t n, const enum sim_hold *hold)
{
    for (size_t i = 0; i < n; i++) {
        const struct wb_finish *f = &finishes[i];
        int at = sim_message_of_id(&f->id);

        sim_event(SIM_E_FINISHED, at, f->status, f->due_ms);
        if (at >= 0 && f->status == WB_OK)
            finish_good(at, f, hold[i]);
        else if (at >= 0 && hold[i] == SIM_FIRM)
            sim_violation(SIM_FENCED, at, f->status);
    }
}

/* From now on the lease may be the old one or the new one. */
void
sim_model_extend_begin(const struct wb_finish *claims, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int at = sim_message_of_id(&claims[i].id);

        if (at >= 0 && sim.message[at].token == claims[i].token)
            sim.message[at].lease_end_ms = 0;
    }
}

void
sim_model_extended(const struct wb_finish *claims, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int at = sim_message_of_id(&claims[i].id);
        struct sim_message *m = &sim.message[at];
        struct sim_breaker *b;

        sim_event(SIM_E_EXTEND, at, claims[i].status, claims[i].due_ms);
        if (at < 0 || claims[i].status != WB_OK)
            continue;
        if (m->token != claims[i].token) {
            sim_violation(SIM_STALE, at, -1);
            continue;
        }
        m->lease_end_ms = claims[i].due_ms;
        m->term = term_begun();
        m->lease_jumps = sim.jumps;
        b = &sim.breaker[m->kind];
        if (b->probe_token == claims[i].token) {
            b->probe_until_ms = claims[i].due_ms;
            b->term = m->term;
        }
    }
}

void
sim_model_unsure(void)
{
    for (int k = 0; k < SIM_KINDS; k++)
        sim.breaker[k].unsure = true;
}
