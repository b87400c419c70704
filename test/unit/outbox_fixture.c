/* outbox_fixture.c - see outbox_fixture.h. */
#include "outbox_fixture.h"

#include <stdio.h>

#include "support_pg.h"

struct wb_outbox *
box_open_with(struct wb_outbox_opts opts)
{
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    opts.env = ENV;
    CHECK_OK(wb_outbox_open(&box, test_db_url(), &opts, &err), err);
    return box;
}

struct wb_outbox *
box_open(void)
{
    return box_open_with((struct wb_outbox_opts){0});
}

struct wb_accepted
box_send(struct wb_outbox *box, struct wb_message m)
{
    struct wb_accepted a = {0};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_enqueue(box, &m, &a, &err), err);
    return a;
}

enum wb_status
box_try(struct wb_outbox *box, struct wb_message m)
{
    return wb_outbox_enqueue(box, &m, NULL, NULL);
}

struct wb_id
box_put(struct wb_outbox *box, const char *kind)
{
    return box_put_lane(box, kind, NULL);
}

struct wb_id
box_put_lane(struct wb_outbox *box, const char *kind, const char *lane)
{
    return box_send(box, (struct wb_message){.kind = wb_slice(kind),
                             .lane = wb_slice(lane),
                             .payload = wb_slice("{}")})
        .id;
}

void
box_fill(struct wb_outbox *box, const char *kind, size_t n)
{
    struct wb_message *m = calloc(n, sizeof(*m));
    struct wb_accepted *a = calloc(n, sizeof(*a));
    struct wb_err err = {0};

    CHECK(m != NULL && a != NULL);
    for (size_t i = 0; i < n; i++)
        m[i] = (struct wb_message){
            .kind = wb_slice(kind), .payload = wb_slice("{}")};
    CHECK_OK(wb_outbox_enqueue_many(box, m, n, a, &err), err);
    for (size_t i = 0; i < n; i++)
        CHECK_INT(WB_OK, a[i].status);
    free(m);
    free(a);
}

static void
copy_slice(char *out, size_t size, struct wb_slice s)
{
    (void)snprintf(out, size, "%.*s", (int)s.len, s.ptr == NULL ? "" : s.ptr);
}

static struct taken
taken_of(const struct wb_claimed *c)
{
    struct taken t = {.id = c->id,
        .token = c->token,
        .seq = c->seq,
        .lease_end_ms = c->lease_end_ms,
        .attempts = c->attempts};

    copy_slice(t.kind, sizeof(t.kind), c->kind);
    copy_slice(t.lane, sizeof(t.lane), c->lane);
    copy_slice(t.payload, sizeof(t.payload), c->payload);
    return t;
}

struct taken
box_claim(struct wb_outbox *box, const char *kind)
{
    struct wb_source source = {.kind = wb_slice(kind)};
    struct wb_claim claim = {
        .sources = kind == NULL ? NULL : &source, .n_sources = kind != NULL};
    struct wb_batch batch = {0};
    struct wb_err err = {.msg = "nothing to claim"};
    struct taken t;

    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(1, batch.len);
    t = taken_of(&batch.row[0]);
    wb_batch_free(&batch);
    return t;
}

enum wb_none
box_claim_none(struct wb_outbox *box, int64_t *next_due_ms)
{
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    enum wb_none reason;

    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    reason = batch.reason;
    if (next_due_ms != NULL)
        *next_due_ms = batch.next_due_ms;
    wb_batch_free(&batch);
    return reason;
}

void
box_confirm(struct wb_outbox *box, const struct taken *t)
{
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_confirm(box, &t->id, t->token, &err), err);
}

void
box_release(struct wb_outbox *box, const struct taken *t)
{
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_release(box, &t->id, t->token, &err), err);
}

struct wb_finish
box_fail(struct wb_outbox *box, const struct taken *t, enum wb_outcome outcome)
{
    struct wb_finish f = {.id = t->id,
        .token = t->token,
        .seq = t->seq,
        .outcome = outcome,
        .error = wb_slice("500 Internal Server Error")};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    return f;
}

void
box_abandon(struct wb_outbox *box, const struct taken *t)
{
    struct wb_finish f = box_fail(box, t, WB_REJECTED);

    CHECK_INT(WB_STATE_ABANDONED, f.state);
}

/* ---- plain SQL --------------------------------------------------------- */

static void
lite_text(const char *sql, char text[4096])
{
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    int code;

    CHECK(sqlite3_open_v2(BOX, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
    (void)sqlite3_exec(db, "PRAGMA wal_autocheckpoint=0", NULL, NULL, NULL);
    (void)sqlite3_busy_timeout(db, 5000);
    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    code = sqlite3_step(q);
    (void)snprintf(text, 4096, "%s",
        code == SQLITE_ROW && sqlite3_column_type(q, 0) != SQLITE_NULL
            ? (const char *)sqlite3_column_text(q, 0)
            : "NULL");
    while (code == SQLITE_ROW)
        code = sqlite3_step(q);
    if (code != SQLITE_DONE)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    (void)sqlite3_finalize(q);
    (void)sqlite3_close(db);
}

const char *
sql_text(const char *sql)
{
    static char text[4096];

#ifdef WB_LIBPQ
    if (test_on_pg()) {
        test_pg_text(sql, text, sizeof(text));
        return text;
    }
#endif
    lite_text(sql, text);
    return text;
}

void *
box_lock(void)
{
    sqlite3 *db = NULL;

#ifdef WB_LIBPQ
    if (test_on_pg())
        return test_pg_lock("waybill_outbox");
#endif
    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    return db;
}

void
box_unlock(void *lock)
{
#ifdef WB_LIBPQ
    if (test_on_pg()) {
        test_pg_unlock(lock);
        return;
    }
#endif
    (void)sqlite3_close(lock); /* rolls back */
}

void
sql_run(const char *sql)
{
    (void)sql_text(sql);
}

int64_t
sql_int(const char *sql)
{
    return strtoll(sql_text(sql), NULL, 10);
}

const char *
status_of(const struct wb_id *id)
{
    char sql[128];

    (void)snprintf(sql, sizeof(sql),
        "SELECT status FROM waybill_outbox WHERE id = '%s'", id->text);
    return sql_text(sql);
}

enum wb_status
row_count(void *n, const struct wb_row *row)
{
    (void)row;
    (*(int *)n)++;
    return WB_OK;
}

enum wb_status
kind_ignore(void *ctx, const struct wb_kind_counts *counts)
{
    (void)ctx;
    (void)counts;
    return WB_OK;
}
