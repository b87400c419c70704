/* admin.c - administration: redrive and discard messages, pause kinds, back the
 * database up, check its health.
 *
 * (1) A selection is changed in one transaction, whatever its size, and read a
 *     page at a time.
 * (2) A redriven message of a lane rejoins the lane at its tail. */
#include "outbox/outbox_internal.h"

enum {
    PAGE = 128 /* rows of a selection that are read at once */
};

/* ---- redrive, discard ----------------------------------------------------- */

struct select_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    const struct wb_select *select;
    struct wb_selected selected;
    struct wb__kinds kinds; /* selected by kind, counted as pending */
    enum wb_status (*change)(
        struct wb_outbox *box, const struct wb__head *h, struct wb_err *err);
};

static enum wb_status
redrive_row(struct wb_outbox *box, const struct wb__head *h, struct wb_err *err)
{
    struct wb_slice lane = wb_slice(h->lane);
    enum wb_status rc;

    if (h->state == WB_STATE_HELD)
        return WB_OK; /* it waits for its lane, and then is delivered */
    rc = wb__db_run(box->db, WB__SQL_REDRIVE,
        WB__ARGS(wb__int(h->seq), wb__int(wb__outbox_now(box))), NULL, err);
    if (rc == WB_OK && h->state == WB_STATE_ABANDONED && lane.len > 0)
        rc = wb__db_run(box->db, WB__SQL_REJOIN,
            WB__ARGS(wb__int(h->seq), wb__text(lane)), NULL, err);
    return rc != WB_OK ? rc : wb__breaker_delete(box, wb_slice(h->scope), err);
}

static enum wb_status
discard_row(struct wb_outbox *box, const struct wb__head *h, struct wb_err *err)
{
    enum wb_status rc = wb__row_delete(box, h->seq, err);

    return rc != WB_OK ? rc : wb__head_promote(box, h, err);
}

static enum wb_status
change_row(struct select_op *o, const struct wb__head *h, struct wb_err *err)
{
    struct wb_kind_counts *k = wb__kinds_get(&o->kinds, wb_slice(h->kind));

    if (k == NULL)
        return wb__nomem(err, "select");
    k->n[WB_STATE_PENDING]++;
    o->selected.total++;
    return o->select->dry_run ? WB_OK : o->change(o->box, h, err);
}

static enum wb_status
change_ids(struct select_op *o, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < o->select->n_ids && rc == WB_OK; i++) {
        struct wb__head h;

        rc = wb__head_find(o->box, WB__SQL_HEAD_BY_ID,
            wb__text(wb_slice(o->select->ids[i].text)), &h, err);
        if (rc == WB_EMPTY || (rc == WB_OK && h.state == WB_STATE_DELIVERED)) {
            o->selected.missing++;
            rc = WB_OK;
        } else if (rc == WB_OK && h.state == WB_STATE_PROCESSING) {
            o->selected.skipped++;
        } else if (rc == WB_OK) {
            rc = change_row(o, &h, err);
        }
    }
    return rc;
}

/* Read the next page of abandoned rows behind (*due_ms, *seq), which become
 * those of its last row. */
static enum wb_status
read_page(struct wb_outbox *box, const struct wb_select *s, int64_t *due_ms,
    int64_t *seq, struct wb__head page[PAGE], size_t *n, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_ABANDONED;
    int64_t before_ms = s->older_ms > 0
                            ? wb__sat_add(wb__outbox_now(box), -s->older_ms)
                            : INT64_MAX;
    enum wb_status rc = wb__db_start(box->db, sql,
        WB__ARGS(wb__int(*due_ms), wb__int(*seq), wb__text_or_null(s->kind),
            wb__int(before_ms), wb__int(PAGE), WB__MATCH_ARGS(&s->match)),
        err);

    *n = 0;
    if (rc != WB_OK)
        return rc;
    while (*n < PAGE && (rc = wb__db_next(box->db, sql, err)) == WB_OK) {
        wb__head_read(box, sql, &page[*n]);
        *due_ms = page[*n].due_ms;
        *seq = page[*n].seq;
        (*n)++;
    }
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
change_abandoned(struct select_op *o, struct wb_err *err)
{
    struct wb__head *page =
        wb__arena_alloc(&o->kinds.arena, PAGE * sizeof(*page));
    uint64_t most = o->select->limit > 0 ? o->select->limit : UINT64_MAX;
    int64_t due_ms = INT64_MIN, seq = INT64_MIN;
    enum wb_status rc = WB_OK;
    size_t n = PAGE;

    if (page == NULL)
        return wb__nomem(err, "select");
    while (rc == WB_OK && n == PAGE && o->selected.total < most) {
        rc = read_page(o->box, o->select, &due_ms, &seq, page, &n, err);
        for (size_t i = 0; i < n && rc == WB_OK && o->selected.total < most;
             i++)
            rc = change_row(o, &page[i], err);
    }
    return rc;
}

static enum wb_status
select_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct select_op *o = (struct select_op *)job;

    (void)db;
    wb__kinds_clear(&o->kinds);
    o->selected = (struct wb_selected){0};
    return o->select->ids != NULL ? change_ids(o, err)
                                  : change_abandoned(o, err);
}

static enum wb_status
run_select(struct select_op *o, struct wb_selected *selected, wb_kind_fn *fn,
    void *ctx, struct wb_err *err)
{
    enum wb_status rc;

    o->job.run = select_run;
    o->job.tx = o->select->dry_run ? WB__TX_READ : WB__TX_FULL;
    o->kinds.arena.env = o->box->env;
    rc = wb__commit_group_run(&o->box->group, &o->job, err);
    if (rc == WB_OK) {
        *selected = o->selected;
        rc = wb__kinds_report(&o->kinds, fn, ctx);
    }
    wb__kinds_clear(&o->kinds);
    return rc;
}

enum wb_status
wb_outbox_redrive(struct wb_outbox *box, const struct wb_select *select,
    struct wb_selected *selected, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    struct select_op o = {.box = box, .select = select, .change = redrive_row};

    return run_select(&o, selected, fn, ctx, err);
}

enum wb_status
wb_outbox_discard(struct wb_outbox *box, const struct wb_select *select,
    struct wb_selected *selected, wb_kind_fn *fn, void *ctx, struct wb_err *err)
{
    struct select_op o = {.box = box, .select = select, .change = discard_row};

    return run_select(&o, selected, fn, ctx, err);
}

/* ---- pause ---------------------------------------------------------------- */

struct pause_op {
    struct wb__db_job job;
    struct wb_slice kind;
    bool paused;
};

static enum wb_status
pause_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct pause_op *o = (struct pause_op *)job;

    return wb__db_run(db, o->paused ? WB__SQL_PAUSE : WB__SQL_RESUME,
        WB__ARGS(wb__text(o->kind)), NULL, err);
}

enum wb_status
wb_outbox_pause(struct wb_outbox *box, struct wb_slice kind, bool paused,
    struct wb_err *err)
{
    struct pause_op o = {.job = {.run = pause_run, .tx = WB__TX_FULL},
        .kind = kind,
        .paused = paused};
    enum wb_status rc = wb__kind_check(kind, err);

    return rc != WB_OK ? rc : wb__commit_group_run(&box->group, &o.job, err);
}

/* ---- backup --------------------------------------------------------------- */

struct backup_op {
    struct wb__db_job job;
    const char *path;
};

static enum wb_status
backup_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    return wb__db_backup(db, ((struct backup_op *)job)->path, err);
}

enum wb_status
wb_outbox_backup(struct wb_outbox *box, const char *path, struct wb_err *err)
{
    struct backup_op o = {
        .job = {.run = backup_run, .tx = WB__TX_NONE}, .path = path};

    return wb__commit_group_run(&box->group, &o.job, err);
}

/* ---- compact -------------------------------------------------------------- */

struct compact_op {
    struct wb__db_job job;
    int64_t before, after;
};

static enum wb_status
compact_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct compact_op *o = (struct compact_op *)job;

    return wb__db_compact(db, &o->before, &o->after, err);
}

enum wb_status
wb_outbox_compact(struct wb_outbox *box, int64_t *bytes_before,
    int64_t *bytes_after, struct wb_err *err)
{
    struct compact_op o = {.job = {.run = compact_run, .tx = WB__TX_NONE}};
    enum wb_status rc = wb__commit_group_run(&box->group, &o.job, err);

    if (rc == WB_OK) {
        *bytes_before = o.before;
        *bytes_after = o.after;
    }
    return rc;
}

/* ---- health --------------------------------------------------------------- */

struct health_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    struct wb_health *health;
};

static enum wb_status
health_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct health_op *o = (struct health_op *)job;
    int64_t stuck = 0, future = 0, now_ms = wb__outbox_now(o->box);
    enum wb_status rc = wb__db_one_int(
        db, WB__SQL_STUCK, WB__ARGS(wb__int(now_ms)), &stuck, err);

    if (rc == WB_OK)
        rc = wb__db_one_int(db, WB__SQL_FUTURE,
            WB__ARGS(wb__int(wb__sat_add(now_ms, 60000))), &future, err);
    o->health->stuck = (uint64_t)stuck;
    o->health->future = (uint64_t)future;
    return rc == WB_OK ? wb__db_health(db, o->health, err) : rc;
}

enum wb_status
wb_outbox_health(
    struct wb_outbox *box, struct wb_health *health, struct wb_err *err)
{
    struct health_op o = {.job = {.run = health_run, .tx = WB__TX_READ},
        .box = box,
        .health = health};

    *health = (struct wb_health){0};
    return wb__commit_group_run(&box->group, &o.job, err);
}
