/* sim_check.c - compare the whole store with the model. */
#include "sim.h"

struct row {
    int n;
    enum wb_state state;
    int64_t seq, attempts;
    bool rejected;
};

/* ---- rows -------------------------------------------------------------- */

static bool
read_row(sqlite3_stmt *q, struct row *r)
{
    const char *type = (const char *)sqlite3_column_text(q, 1);
    const char *state = (const char *)sqlite3_column_text(q, 2);
    const char *reason = (const char *)sqlite3_column_text(q, 4);
    int s = 0;

    *r = (struct row){.seq = sqlite3_column_int64(q, 0),
        .attempts = sqlite3_column_int64(q, 3)};
    while (s < WB_STATES && state != NULL &&
           strcmp(wb_state_name((enum wb_state)s), state) != 0)
        s++;
    r->state = (enum wb_state)s;
    r->rejected = reason != NULL && strcmp(reason, "rejected") == 0;
    r->n = sim_message_of_type(wb_slice(type == NULL ? "" : type));
    return s < WB_STATES && r->n >= 0;
}

/* A row must be a message that may be there, in a state that it may have. */
static void
check_row(const struct row *r)
{
    struct sim_message *m = &sim.message[r->n];

    sim_event(SIM_E_ROW, r->n, r->state, r->attempts);
    if (m->there)
        sim_violation(SIM_DOUBLED, r->n, r->seq);
    if (m->refused)
        sim_violation(SIM_UNEXPECTED, r->n, r->seq);
    if (m->discarded || (m->confirmed && r->state != WB_STATE_DELIVERED))
        sim_violation(SIM_REVIVED, r->n, r->state);
    if (r->state == WB_STATE_DELIVERED && m->effects == 0)
        sim_violation(SIM_LOST, r->n, r->seq);
    if (r->state == WB_STATE_ABANDONED && r->rejected && m->rejections == 0)
        sim_violation(SIM_MISJUDGED, r->n, 0);
    if (r->attempts > SIM_MOST && m->bad != SIM_BAD_ATTEMPTS)
        sim_violation(SIM_ATTEMPTS, r->n, r->attempts);
    if (m->bad > SIM_BAD_ATTEMPTS &&
        (r->state == WB_STATE_PROCESSING || r->state == WB_STATE_DELIVERED))
        sim_violation(SIM_MALFORMED, r->n, r->state);
    m->there = true;
    m->state = r->state;
}

static bool
lives(enum wb_state s)
{
    return s == WB_STATE_PENDING || s == WB_STATE_PROCESSING;
}

/* A lane has one message at its head; the others are held. */
static void
check_lanes(void)
{
    int head[SIM_LANES + 1] = {0}, held[SIM_LANES + 1] = {0};

    for (int n = 0; n < sim.n; n++) {
        const struct sim_message *m = &sim.message[n];

        if (!m->there || m->lane == 0)
            continue;
        head[m->lane] += lives(m->state);
        held[m->lane] += m->state == WB_STATE_HELD;
        if (head[m->lane] > 1)
            sim_violation(SIM_ORDER, n, m->lane);
    }
    for (int l = 1; l <= SIM_LANES; l++)
        if (held[l] > 0 && head[l] == 0)
            sim_violation(SIM_ORDER, -1, l);
}

/* An accepted message is there, or was confirmed or discarded. */
static void
check_gone(int n, bool settled)
{
    struct sim_message *m = &sim.message[n];

    /* A log that another program left without a sync is read, and may yet be
     * lost. Ours is repaired: see sim_close(). */
    if (m->there && m->unsure && (settled || m->bad == SIM_GOOD)) {
        sim.figures->recovered += !m->acked; /* it may be sent twice, too */
        sim.figures->accepted += !m->acked;
        m->unsure = false;
        m->acked = true;
    }
    if (m->there || m->discard_tried)
        return;
    if (m->acked && (!m->confirm_tried || m->effects == 0))
        sim_violation(SIM_LOST, n, m->confirm_tried);
    if (m->unsure && settled && !m->confirm_tried) {
        m->unsure = false;
        m->refused = true; /* it was interrupted before the commit */
    }
}

static bool
each_row(sqlite3 *db, const char *sql, void (*fn)(sqlite3_stmt *q))
{
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &q, NULL);

    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(q);
        if (code == SQLITE_ROW)
            fn(q);
    }
    (void)sqlite3_finalize(q);
    return code == SQLITE_DONE;
}

static void
on_message(sqlite3_stmt *q)
{
    struct row r;

    if (read_row(q, &r))
        check_row(&r);
    else
        sim_violation(SIM_UNEXPECTED, -1, r.seq);
}

/* ---- the caller's rows ------------------------------------------------- */

/* A row of the caller's table must not be without its message. */
static void
on_business(sqlite3_stmt *q)
{
    int n = sqlite3_column_int(q, 0);
    struct sim_message *m = &sim.message[n];

    m->business = true;
    if (m->refused)
        sim_violation(SIM_UNEXPECTED, n, -3);
    if (!m->there && !m->confirm_tried && !m->discard_tried)
        sim_violation(SIM_LOST, n, -3);
}

/* ---- breakers ---------------------------------------------------------- */

static struct sim_breaker found[SIM_KINDS];

static void
on_breaker(sqlite3_stmt *q)
{
    const char *scope = (const char *)sqlite3_column_text(q, 0);

    for (int k = 0; k < SIM_KINDS; k++)
        if (strcmp(scope, sim_kind[k]) == 0)
            found[k] = (struct sim_breaker){
                .failures = (uint32_t)sqlite3_column_int(q, 1),
                .open_until_ms = sqlite3_column_int64(q, 2),
                .probe_token = (uint64_t)sqlite3_column_int64(q, 3),
                .probe_until_ms = sqlite3_column_int64(q, 4),
                .open_ms = sqlite3_column_int64(q, 5)};
}

static void
check_breakers(void)
{
    for (int k = 0; k < SIM_KINDS; k++) {
        const struct sim_breaker *b = &sim.breaker[k];

        if (!b->unsure && (b->failures != found[k].failures ||
                              b->open_until_ms != found[k].open_until_ms))
            sim_violation(SIM_BREAKER, -1, k);
        if (b->probe_token == found[k].probe_token)
            found[k].term = b->term;
        sim.breaker[k] = found[k];
    }
}

/* ---- everything -------------------------------------------------------- */

bool
sim_check(int process, bool settled)
{
    sqlite3 *db = sim_handle(process);
    bool good;

    for (int n = 0; n < sim.n; n++)
        sim.message[n].there = sim.message[n].business = false;
    memset(found, 0, sizeof(found));
    good = each_row(db,
        "SELECT seq, content_type, status, attempts, reason"
        " FROM waybill_outbox",
        on_message);
    if (good)
        good = each_row(db,
            "SELECT scope, failures, open_until_ms, probe_token,"
            " probe_until_ms, open_ms FROM waybill_breaker",
            on_breaker);
    if (good)
        good = each_row(db, "SELECT n FROM business", on_business);
    if (!good)
        return false;
    for (int n = 0; n < sim.n; n++) {
        check_gone(n, settled);
        if (sim.message[n].adopted && sim.message[n].there &&
            !sim.message[n].business)
            sim_violation(SIM_UNEXPECTED, n, -4);
    }
    check_lanes();
    check_breakers();
    return true;
}

static int64_t next_due_ms;

static void
on_due(sqlite3_stmt *q)
{
    next_due_ms = sqlite3_column_int64(q, 0);
}

int64_t
sim_next_due(int process)
{
    next_due_ms = 0;
    if (!each_row(sim_handle(process),
            "SELECT min(due_ms) FROM waybill_outbox"
            " WHERE status IN ('pending', 'processing')",
            on_due))
        sim_violation(SIM_DAMAGED, -1, 0);
    return next_due_ms;
}

static void
on_wait(sqlite3_stmt *q)
{
    const char *type = (const char *)sqlite3_column_text(q, 0);
    int n = sim_message_of_type(wb_slice(type == NULL ? "" : type));
    int64_t due_ms = sqlite3_column_int64(q, 1);

    /* A day: a wait of less may be a policy's. */
    if (n >= 0 && due_ms > sim.message[n].chosen_ms &&
        due_ms > sim.wall_ms + 86400000 + sim_retry.retry_after_ms)
        sim_violation(SIM_OVERDUE, n, due_ms);
}

void
sim_check_waits(int process)
{
    if (!each_row(sim_handle(process),
            "SELECT content_type, due_ms FROM waybill_outbox"
            " WHERE status IN ('pending', 'held', 'processing')"
            " UNION ALL SELECT 'm/0', probe_until_ms FROM waybill_breaker",
            on_wait))
        sim_violation(SIM_DAMAGED, -1, 0);
}

static void
on_aside(sqlite3_stmt *q)
{
    const char *type = (const char *)sqlite3_column_text(q, 0);
    const char *state = (const char *)sqlite3_column_text(q, 1);
    const char *reason = (const char *)sqlite3_column_text(q, 2);
    int n = sim_message_of_type(wb_slice(type == NULL ? "" : type));

    if (strcmp(state, "held") == 0)
        sim_violation(SIM_UNDRAINED, n, WB_STATE_HELD);
    if (n >= 0 && sim.message[n].bad > SIM_BAD_ATTEMPTS &&
        (reason == NULL || strcmp(reason, "malformed") != 0))
        sim_violation(SIM_MALFORMED, n, -1);
}

void
sim_check_aside(int process)
{
    if (!each_row(sim_handle(process),
            "SELECT content_type, status, reason FROM waybill_outbox",
            on_aside))
        sim_violation(SIM_DAMAGED, -1, 0);
}
