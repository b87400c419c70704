/* sim_actors.c - producers, a worker and an administrator. */
#include <stdio.h>

#include "sim.h"

enum {
    MANY = 4
};

/* ---- producers --------------------------------------------------------- */

struct draft {
    char payload[3400];
    struct wb_message m;
};

/* All fields follow from n: the same message can be sent again. */
static void
draft_set(struct draft *d, int n)
{
    const struct sim_message *m = &sim.message[n];
    int pad = n % 13 == 5 ? 3200 : 20 + n * 7 % 90;
    int len = snprintf(d->payload, sizeof(d->payload),
        "{\"n\":%d,\"pad\":\"%0*d\"}", n, pad, n);

    d->m = (struct wb_message){.kind = wb_slice(sim_kind[m->kind]),
        .payload = {d->payload, (size_t)len},
        .key = wb_slice(m->key),
        .lane = wb_slice(m->lane_name),
        .content_type = wb_slice(m->type),
        .due_ms = m->due_ms,
        .expires_ms = m->expires_ms};
    if (m->has_id)
        d->m.id = wb_slice(m->id.text);
    if (sim.opts.sabotage == SIM_NO_LANES)
        d->m.lane.len = 0;
}

static int
new_message(void)
{
    int n = sim.n++;
    struct sim_message *m = &sim.message[n];

    *m = (struct sim_message){.kind = sim_pick(SIM_KINDS)};
    m->keyed = sim_pick(3) == 0;
    m->has_id = sim_pick(3) == 0;
    m->lane = sim_pick(3) == 0 ? 1 + sim_pick(SIM_LANES) : 0;
    (void)snprintf(m->type, sizeof(m->type), "m/%d", n);
    if (m->keyed)
        (void)snprintf(m->key, sizeof(m->key), "key %d", n);
    if (m->lane > 0)
        (void)snprintf(m->lane_name, sizeof(m->lane_name), "lane %d", m->lane);
    if (m->has_id)
        (void)snprintf(m->id.text, sizeof(m->id.text),
            "%08x-0000-7000-8000-%012x", (unsigned)sim.random, (unsigned)n);
    if (sim_pick(4) == 0 && sim.days_ms <= 0)
        m->due_ms = m->chosen_ms = sim.wall_ms + sim_pick(60000);
    if (sim_pick(8) == 0)
        m->expires_ms = sim.wall_ms + 60000 + sim_pick(60000);
    return n;
}

static void
accepted(int n, const struct wb_accepted *a)
{
    struct sim_message *m = &sim.message[n];

    sim_event(SIM_E_ACCEPTED, n, a->status, a->duplicate);
    if (a->status != WB_OK) {
        sim_violation(SIM_LOST, n, a->status);
        return;
    }
    if (m->has_id && memcmp(m->id.text, a->id.text, WB_ID_LEN) != 0)
        sim_violation(SIM_DOUBLED, n, -1);
    if (a->duplicate != m->acked && !m->unsure)
        sim_violation(SIM_DOUBLED, n, -2);
    m->id = a->id;
    if (!m->acked && !m->unsure && !sim.nested)
        m->order = ++sim.orders;
    if (!m->acked)
        sim.figures->accepted++;
    m->acked = true;
    m->unsure = m->refused = false;
}

/* The outcome of one call for all its messages. */
static void
enqueued(int first, int many, enum wb_status rc, const struct wb_accepted *a)
{
    bool alive = !sim_is_dead();

    (void)sim_call_ended(rc);
    for (int n = first; n < first + many; n++) {
        if (sim.message[n].due_ms <= sim.wall_ms)
            sim.message[n].due_ms = 0; /* at once, by whatever clock */
        if (alive && rc == WB_OK) {
            accepted(n, &a[n - first]);
            continue;
        }
        sim_event(SIM_E_ACCEPTED, n, rc, -1);
        if (sim.opts.sabotage == SIM_ACK_BEFORE_COMMIT) {
            sim.message[n].acked = true;
            continue;
        }
        sim.message[n].unsure =
            sim.message[n].unsure || !alive || sim_is_unknown(rc);
        sim.message[n].refused =
            !sim.message[n].unsure && !sim.message[n].acked;
    }
}

static void
produce_new(int process, int many)
{
    static struct draft drafts[2][MANY];
    struct draft *draft = drafts[sim.depth]; /* a call inside has its own */
    struct wb_message message[MANY];
    struct wb_accepted a[MANY] = {0};
    int first = sim.n;
    enum wb_status rc;

    if (sim.n + many > SIM_MESSAGES)
        return;
    for (int i = 0; i < many; i++) {
        draft_set(&draft[i], new_message());
        message[i] = draft[i].m;
        sim_event(SIM_E_ENQUEUE, first + i, sim.message[first + i].kind,
            sim.message[first + i].lane);
    }
    rc = many == 1
             ? wb_outbox_enqueue(sim.process[process].box, message, a, NULL)
             : wb_outbox_enqueue_many(
                   sim.process[process].box, message, (size_t)many, a, NULL);
    enqueued(first, many, rc, a);
}

/* The caller's own transaction: its row and the message, or neither. */
static enum wb_status
enqueue_inside(
    struct sim_process *p, int n, struct draft *d, struct wb_accepted *a)
{
    char sql[64];
    enum wb_status rc = WB_BUSY;

    (void)snprintf(sql, sizeof(sql), "INSERT INTO business VALUES(%d)", n);
    if (sqlite3_exec(p->own, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return WB_BUSY;
    if (sqlite3_exec(p->own, sql, NULL, NULL, NULL) == SQLITE_OK)
        rc = WB_OK;
    if (rc == WB_OK && sim.opts.sabotage == SIM_SPLIT_COMMIT)
        (void)sqlite3_exec(p->own, "COMMIT", NULL, NULL, NULL);
    if (rc == WB_OK)
        rc = wb_outbox_enqueue(p->box, &d->m, a, NULL);
    if (rc == WB_OK && sim_pick(4) == 0)
        rc = WB_INVALID; /* the caller rolls back */
    if (rc == WB_OK && sqlite3_get_autocommit(p->own) == 0 &&
        sqlite3_exec(p->own, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        rc = WB_IO; /* unknown */
    if (sqlite3_get_autocommit(p->own) == 0)
        (void)sqlite3_exec(p->own, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static void
produce_inside(int process)
{
    static struct draft drafts[2];
    struct draft *draft = &drafts[sim.depth];
    struct wb_accepted a = {0};
    int n;

    if (sim.n == SIM_MESSAGES)
        return;
    n = new_message();
    sim.message[n].adopted = true;
    draft_set(draft, n);
    sim_event(SIM_E_ENQUEUE, n, sim.message[n].kind, sim.message[n].lane);
    enqueued(n, 1, enqueue_inside(&sim.process[process], n, draft, &a), &a);
}

/* Send a message again: if it was accepted, it must be a duplicate. */
static void
produce_again(int process)
{
    static struct draft drafts[2];
    struct draft *draft = &drafts[sim.depth];
    struct wb_accepted a = {0};
    int n = sim.n == 0 ? 0 : sim_pick(sim.n);
    struct sim_message *m = &sim.message[n];
    enum wb_status rc;

    if (n >= sim.n || !(m->has_id || m->keyed) || m->adopted || m->bad ||
        m->discard_tried)
        return;
    draft_set(draft, n);
    if (sim.opts.sabotage == SIM_NO_KEYS)
        draft->m.id.len = draft->m.key.len = 0;
    m->unsure = m->unsure || m->refused; /* to keep it simple */
    sim_event(SIM_E_ENQUEUE, n, -1, m->acked);
    rc = wb_outbox_enqueue(sim.process[process].box, &draft->m, &a, NULL);
    enqueued(n, 1, rc, &a);
}

/* ---- bad rows ---------------------------------------------------------- */

/* What no call of the library writes, and the table's checks let pass. */
static int
insert_bad(sqlite3 *db, int n)
{
    static char lane[2000];
    const struct sim_message *m = &sim.message[n];
    sqlite3_stmt *q = NULL;
    char payload[32];
    int code;

    (void)snprintf(payload, sizeof(payload), "{\"n\":%d}", n);
    memset(lane, 0x80, sizeof(lane)); /* one character, by length() */
    lane[0] = (char)0xc3;
    code = sqlite3_prepare_v2(db,
        "INSERT INTO waybill_outbox(id, kind, content_type, payload, due_ms,"
        " created_ms, attempts, lane, key, headers)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9)",
        -1, &q, NULL);
    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_bind_text(q, 1, m->id.text, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(q, 2, sim_kind[m->kind], -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(q, 3, m->type, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(q, 4, payload, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(q, 5, sim.wall_ms);
    (void)sqlite3_bind_int64(
        q, 6, m->bad == SIM_BAD_ATTEMPTS ? INT64_C(4000000000) : 0);
    if (m->bad == SIM_BAD_LANE)
        (void)sqlite3_bind_text(q, 7, lane, sizeof(lane), SQLITE_STATIC);
    else if (m->lane > 0)
        (void)sqlite3_bind_text(q, 7, m->lane_name, -1, SQLITE_STATIC);
    if (m->bad == SIM_BAD_KEY)
        (void)sqlite3_bind_text(q, 8, m->key, -1, SQLITE_STATIC);
    if (m->bad == SIM_BAD_HEADERS)
        (void)sqlite3_bind_text(q, 9, "x: \xff", -1, SQLITE_STATIC);
    (void)sqlite3_step(q);
    return sqlite3_finalize(q);
}

/* Another program's connection. It knows of no failed sync, its own or ours. */
static void
produce_bad(void)
{
    sqlite3 *db = NULL;
    struct sim_message *m;
    int n, code;

    if (sim.n == SIM_MESSAGES || sim.repaired != sim.failures)
        return;
    sim.disk.fault.kinds = 0;
    n = new_message();
    m = &sim.message[n];
    m->bad = (enum sim_bad)(1 + sim_pick(SIM_BADS - 1));
    m->has_id = true;
    m->due_ms = m->chosen_ms = m->expires_ms = 0;
    (void)snprintf(m->id.text, sizeof(m->id.text), "%08x-0000-7000-8000-%012x",
        (unsigned)sim.random, (unsigned)n);
    (void)snprintf(m->key, sizeof(m->key), "\xff%d", n);
    if (m->bad == SIM_BAD_LANE)
        m->lane = 0;
    sim_event(SIM_E_ENQUEUE, n, -2, m->bad);
    code = sqlite3_open_v2(
        "box.db", &db, SQLITE_OPEN_READWRITE, sim.disk.vfs.zName);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db,
            "PRAGMA wal_autocheckpoint=0;PRAGMA synchronous=FULL", NULL, NULL,
            NULL);
    if (code == SQLITE_OK)
        code = insert_bad(db, n);
    m->acked = code == SQLITE_OK && !sim_is_dead();
    m->unsure = sim_is_dead() || (code & 0xff) == SQLITE_IOERR;
    m->refused = !m->acked && !m->unsure;
    (void)sqlite3_close(db);
    sim_event(SIM_E_ACCEPTED, n, code, -2);
    sim.figures->accepted += m->acked;
    if (m->acked)
        sim_fired(SIM_BAD_ROW);
}

void
sim_produce(int process)
{
    if (sim_pick(16) == 0)
        produce_bad();
    else if (sim.process[process].own != NULL && sim_pick(3) > 0)
        produce_inside(process);
    else if (sim_pick(5) == 0)
        produce_again(process);
    else
        produce_new(process, sim_pick(3) == 0 ? 2 + sim_pick(MANY - 1) : 1);
}

/* ---- a worker without a relay ------------------------------------------ */

static void
worker_done(void *ctx, const struct wb_result *result)
{
    struct sim_held *h = ctx;

    h->ended = true;
    h->result = *result;
}

static void
worker_claim(int process, struct sim_held *h)
{
    struct wb_source sources[SIM_KINDS];
    const struct wb_claim claim = {
        .sources = sources, .n_sources = SIM_KINDS, .lease_ms = SIM_LEASE_MS};
    struct wb_batch batch = {0};

    for (int k = 0; k < SIM_KINDS; k++)
        sources[k] = (struct wb_source){
            .kind = wb_slice(sim_kind[k]), .max_attempts = SIM_MOST};
    if (wb_outbox_claim(sim.process[process].box, &claim, &batch, NULL) ==
            WB_OK &&
        !sim_is_dead()) {
        *h = (struct sim_held){
            .n = sim_message_of_type(batch.row[0].content_type),
            .id = batch.row[0].id,
            .token = batch.row[0].token,
            .seq = batch.row[0].seq};
        if (sim_pick(8) > 0) {
            const struct wb_request r = {.id = h->id,
                .kind = batch.row[0].kind,
                .attempt = batch.row[0].attempts,
                .body = batch.row[0].payload};

            h->sent = true;
            sim_send(&sim.process[process].transport.base, &r, worker_done, h);
        }
    }
    wb_batch_free(&batch);
}

/* Finish a sent message by its result; release one that was not sent. */
static void
worker_finish(int process, struct sim_held *h)
{
    struct wb_finish f = {.id = h->id,
        .token = h->token,
        .seq = sim_pick(2) == 0 ? h->seq : 0,
        .forget = sim_pick(2) == 0,
        .end = WB_RELEASE,
        .retry = &sim_retry,
        .breaker = &sim_breaker_policy};
    enum wb_status rc;

    if (h->sent && !h->ended)
        return;
    if (h->sent) {
        f.end = h->result.outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL;
        f.outcome = h->result.outcome;
        f.retry_after_ms = h->result.retry_after_ms;
        f.error = WB_LIT("no");
    }
    rc = wb_outbox_finish(sim.process[process].box, &f, 1, NULL, NULL, NULL);
    if (rc == WB_OK && !sim_is_dead() && (sim.no_faults || sim_pick(8) > 0))
        h->n = -1; /* else it finishes it once more later */
}

void
sim_worker(int process)
{
    struct sim_held *h = &sim.process[process].held[sim_pick(SIM_HELD)];

    sim_net_timeouts(process);
    if (h->n < 0 && !sim.no_faults) {
        worker_claim(process, h);
    } else if (h->n >= 0 && !sim.no_faults && sim_pick(4) == 0) {
        struct wb_finish f = {.id = h->id, .token = h->token, .seq = h->seq};

        (void)(wb_outbox_extend(sim.process[process].box, &f, 1, SIM_LEASE_MS,
                   NULL) == WB_OK);
    } else if (h->n >= 0) {
        worker_finish(process, h);
    }
}

/* ---- administration ---------------------------------------------------- */

/* The command may take effect, whatever it returns. */
static void
select_tried(int n, bool discard)
{
    struct sim_message *m = &sim.message[n];

    m->discard_tried = m->discard_tried || discard;
    if (discard)
        return;
    m->due_ms = m->floor_ms = m->expires_ms = 0;
    m->order = 0;
    sim.breaker[m->kind].unsure = true;
}

static void
admin_select(int process, bool discard)
{
    int n = sim.n == 0 ? 0 : sim_pick(sim.n);
    struct sim_message *m = &sim.message[n];
    /* One that was never claimed is then as if its sender had dated it. */
    bool ahead = !discard && sim.wall_ms > sim.true_ms;
    const struct wb_select select = {.ids = &m->id, .n_ids = 1};
    struct wb_selected selected = {0};
    struct wb_outbox *box = sim.process[process].box;
    enum wb_status rc;

    if (n >= sim.n || m->id.text[0] == '\0' || ahead)
        return;
    select_tried(n, discard);
    rc = discard ? wb_outbox_discard(box, &select, &selected, NULL, NULL, NULL)
                 : wb_outbox_redrive(box, &select, &selected, NULL, NULL, NULL);
    sim_event(SIM_E_ADMIN, n, discard, (int64_t)selected.total);
    if (!sim_call_ended(rc))
        return;
    m->discarded = m->discarded || (discard && selected.total == 1);
}

static void
admin_pause(int process)
{
    int k = sim_pick(SIM_KINDS);
    bool on = !sim.no_faults && sim_pick(3) == 0;
    enum wb_status rc = wb_outbox_pause(
        sim.process[process].box, wb_slice(sim_kind[k]), on, NULL);

    sim.paused[k] = 2;
    if (sim_call_ended(rc) && !sim.nested)
        sim.paused[k] = on;
    sim_event(SIM_E_ADMIN, -1, 2, sim.paused[k]);
}

static void
admin_reset(int process)
{
    uint64_t n = 0;
    int64_t older_ms = sim_pick(2) == 0 ? -1 : sim_pick(40000);
    enum wb_status rc =
        wb_outbox_reset_stale(sim.process[process].box, older_ms, &n, NULL);

    sim_event(SIM_E_ADMIN, -1, 3, (int64_t)n);
    for (int i = 0; i < sim.n; i++)
        sim.message[i].lease_end_ms = sim.message[i].due_ms =
            sim.message[i].floor_ms = 0;
    (void)sim_call_ended(rc);
    sim_model_unsure();
}

static void
admin_breaker(int process)
{
    uint64_t n = 0;

    (void)sim_call_ended(wb_outbox_breaker_reset(sim.process[process].box,
        wb_slice(sim_kind[sim_pick(SIM_KINDS)]), &n, NULL));
    sim_model_unsure();
    sim_event(SIM_E_ADMIN, -1, 4, (int64_t)n);
}

void
sim_admin(int process)
{
    int what = sim_pick(16);

    if (what < 5)
        admin_select(process, false);
    else if (what < 7)
        admin_select(process, true);
    else if (what < 13)
        admin_pause(process);
    else if (what == 13)
        admin_breaker(process);
    else if (sim.depth == 0)
        admin_reset(process);
}

void
sim_act(int process)
{
    int what = sim_pick(20);

    if (what < 6)
        sim_produce(process);
    else if (what < 13 && sim.process[process].relay != NULL)
        sim_relay_cycle(process);
    else if (what < 18)
        sim_worker(process);
    else
        sim_admin(process);
}
