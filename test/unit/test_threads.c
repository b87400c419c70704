/* test_threads.c - many threads on one handle: shared commits (O-2), and
 * how an operation affects those that share its transaction (group_commit.c
 * (3)). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "db/db.h"
#include "outbox/outbox_internal.h"
#include "outbox_fixture.h"
#include "shim_vfs.h"

enum {
    THREADS = 64,
    CALLS = 20
};

struct worker {
    pthread_t thread;
    struct wb_outbox *box;
    int number, calls;
    enum wb_status status; /* of the last call, or the first that failed */
    struct wb_err err;
    uint64_t count;
};

static int64_t
real_ms(void)
{
    return wb_env_system()->mono_us(NULL) / 1000;
}

static void
start(struct worker *w, void *(*run)(void *))
{
    CHECK(pthread_create(&w->thread, NULL, run, w) == 0);
}

static void
join(struct worker *w)
{
    CHECK(pthread_join(w->thread, NULL) == 0);
}

static void *
enqueue(void *ctx)
{
    struct worker *w = ctx;

    for (int i = 0; i < w->calls && w->status == WB_OK; i++) {
        char key[32];
        struct wb_message m = {.kind = S("a"), .payload = S("{}")};

        (void)snprintf(key, sizeof(key), "%d-%d", w->number, i);
        m.key = S(key);
        w->status = wb_outbox_enqueue(w->box, &m, NULL, &w->err);
    }
    return NULL;
}

TEST(test_threads__O2_64_threads__far_fewer_syncs_than_calls)
{
    struct worker w[THREADS] = {0};
    struct wb_outbox *box;

    shim_install();
    fake_env.env.vfs = "shim";
    box = box_open();
    shim.wal_syncs = 0;
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.box = box, .number = i, .calls = CALLS};
        start(&w[i], enqueue);
    }
    for (int i = 0; i < THREADS; i++) {
        join(&w[i]);
        CHECK_OK(w[i].status, w[i].err);
    }
    CHECK_INT(THREADS * CALLS, sql_int("SELECT count(*) FROM waybill_outbox"));
    CHECK(shim.wal_syncs * 4 < THREADS * CALLS);
    wb_outbox_close(box);
}

/* ---- one group: a plain connection holds the write lock until all wait --- */

static int
queued(struct wb_outbox *box)
{
    int n = 0;

    wb__mutex_lock(&box->group.lock);
    for (struct wb__db_job *job = box->group.first; job != NULL;
         job = job->next)
        n++;
    n += box->group.leading;
    wb__mutex_unlock(&box->group.lock);
    return n;
}

static void
wait_queued(struct wb_outbox *box, int n)
{
    while (queued(box) < n)
        (void)usleep(1000);
}

/* Queue the first, then these in order; then release the lock. */
static void
run_group(struct wb_outbox *box, struct worker *w, void *(*const run[])(void *),
    int n)
{
    void *lock = box_lock();

    for (int i = 0; i < n; i++) {
        w[i].box = box;
        w[i].number = i;
        w[i].calls = 1;
        start(&w[i], run[i]);
        wait_queued(box, i + 1);
    }
    box_unlock(lock);
    for (int i = 0; i < n; i++)
        join(&w[i]);
}

static void *
back_up(void *ctx)
{
    struct worker *w = ctx;

    w->status = wb_outbox_backup(w->box, "copy.db", &w->err);
    return NULL;
}

static void *
back_up_nowhere(void *ctx)
{
    struct worker *w = ctx;

    w->status = wb_outbox_backup(w->box, BOX "/copy.db", &w->err);
    return NULL;
}

static void *
look_at_health(void *ctx)
{
    struct worker *w = ctx;
    struct wb_health h;

    w->status = wb_outbox_health(w->box, &h, &w->err);
    w->count = h.full_sync && strcmp(h.integrity, "ok") == 0;
    return NULL;
}

static void *
list_all(void *ctx)
{
    struct worker *w = ctx;
    struct wb_filter all = {.state = -1};
    int n = 0;

    w->status = wb_outbox_list(w->box, &all, row_count, &n, &w->err);
    w->count = (uint64_t)n;
    return NULL;
}

TEST(test_threads__backup_among_enqueues__all_ok)
{
    void *(*const run[])(void *) = {
        enqueue, enqueue, back_up, enqueue, list_all};
    struct worker w[5] = {0};
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.busy_ms = 20000});
    int64_t began;

    began = real_ms();
    run_group(box, w, run, 5);
    for (int i = 0; i < 5; i++)
        CHECK_OK(w[i].status, w[i].err);
    CHECK_INT(3, w[4].count);
    CHECK(real_ms() - began < 10000); /* and not the time for a lock */
    wb_outbox_close(box);
}

TEST(test_threads__backup_to_nowhere_among_enqueues__only_it_fails)
{
    void *(*const run[])(void *) = {enqueue, enqueue, back_up_nowhere, enqueue};
    struct worker w[4] = {0};
    struct wb_outbox *box = box_open();

    run_group(box, w, run, 4);
    CHECK(w[2].status != WB_OK);
    CHECK_OK(w[1].status, w[1].err);
    CHECK_OK(w[3].status, w[3].err);
    (void)box_put(box, "a");
    wb_outbox_close(box);
}

TEST(test_threads__health_among_enqueues__all_ok)
{
    void *(*const run[])(void *) = {enqueue, enqueue, look_at_health, enqueue};
    struct worker w[4] = {0};
    struct wb_outbox *box = box_open();

    run_group(box, w, run, 4);
    for (int i = 0; i < 4; i++)
        CHECK_OK(w[i].status, w[i].err);
    CHECK_INT(1, w[2].count);
    wb_outbox_close(box);
}

static void *
reset_breaker(void *ctx)
{
    struct worker *w = ctx;
    uint64_t n;

    w->status = wb_outbox_breaker_reset(w->box, S("x"), &n, &w->err);
    return NULL;
}

static void *
enqueue_big(void *ctx)
{
    static char big[200000];
    struct worker *w = ctx;
    struct wb_message m = {.kind = S("a"), .payload = {big, sizeof(big)}};

    w->status = wb_outbox_enqueue(w->box, &m, NULL, &w->err);
    return NULL;
}

/* The file may not grow: the commit of the big one is FULL, and the others are
 * accepted. */
TEST(test_threads__one_too_much_for_the_disk__others_accepted)
{
    void *(*const run[])(void *) = {
        enqueue, enqueue, enqueue_big, enqueue, reset_breaker};
    struct worker w[5] = {0};
    struct wb_outbox *box;
    sqlite3 *handle = NULL;

    CHECK(sqlite3_open(BOX, &handle) == SQLITE_OK);
    CHECK(wb_outbox_adopt(&box, handle, &(struct wb_outbox_opts){.env = ENV},
              NULL) == WB_OK);
    CHECK(sqlite3_exec(handle, "PRAGMA max_page_count = 30", NULL, NULL,
              NULL) == SQLITE_OK);
    (void)sqlite3_busy_timeout(handle, 60000);
    run_group(box, w, run, 5);
    CHECK_STATUS(FULL, w[2].status);
    CHECK_OK(w[1].status, w[1].err);
    CHECK_OK(w[3].status, w[3].err);
    CHECK_OK(w[4].status, w[4].err);
    wb_outbox_close(box);
    (void)sqlite3_close(handle);
}

/* "Blocks: up to busy_ms": once, and not once per waiting thread. */
TEST(test_threads__lock_not_had_in_time__busy_for_all_at_once)
{
    struct worker w[10] = {0};
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.busy_ms = 300});
    void *lock = box_lock();
    int64_t began = real_ms();

    for (int i = 0; i < 10; i++) {
        w[i] = (struct worker){.box = box, .number = i, .calls = 1};
        start(&w[i], enqueue);
    }
    for (int i = 0; i < 10; i++)
        join(&w[i]);
    CHECK(real_ms() - began < 2000);
    for (int i = 0; i < 10; i++)
        CHECK_STATUS(BUSY, w[i].status);
    box_unlock(lock);
    (void)box_put(box, "a");
    wb_outbox_close(box);
}

/* ---- a group over a fake engine -------------------- */

enum {
    JOBS = 5
};

static struct {
    struct wb__commit_group group;
    atomic_int begins;
} fake;

static int
fake_queued(void)
{
    int n = 0;

    wb__mutex_lock(&fake.group.lock);
    for (struct wb__db_job *job = fake.group.first; job != NULL;
         job = job->next)
        n++;
    wb__mutex_unlock(&fake.group.lock);
    return n;
}

/* The first begin waits until all others have queued behind it; from the fourth
 * on the lock is busy. */
static enum wb_status
fake_begin(struct wb__db *db, enum wb__tx tx, struct wb_err *err)
{
    (void)db;
    (void)tx;
    if (fake.begins++ == 0)
        while (fake_queued() < JOBS - 1)
            (void)usleep(1000);
    return fake.begins < 4 ? WB_OK : wb__fail(err, WB_BUSY, 0, "locked");
}

static enum wb_status
fake_commit(struct wb__db *db, struct wb_err *err)
{
    (void)db;
    (void)err;
    return WB_OK;
}

static void
fake_rollback(struct wb__db *db)
{
    (void)db;
}

static enum wb_status
run_bad(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    (void)db;
    (void)job;
    return wb__fail(err, WB_CORRUPT, 0, "a row of mine");
}

static enum wb_status
run_good(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    (void)db;
    (void)job;
    (void)err;
    return WB_OK;
}

static void *
run_job(void *ctx)
{
    struct worker *w = ctx;
    struct wb__db_job job = {
        .run = w->number == 1 ? run_bad : run_good, .tx = WB__TX_FULL};

    w->status = wb__commit_group_run(&fake.group, &job, &w->err);
    return NULL;
}

/* A job that is not tried any more, because two before it were BUSY, is BUSY,
 * and does not get the error of another job. */
static void
test_threads__one_fails_others_busy__each_has_its_own_error(void **state)
{
    static const struct wb__engine engine = {
        .begin = fake_begin, .commit = fake_commit, .rollback = fake_rollback};
    struct wb__db db = {.engine = &engine};
    struct worker w[JOBS] = {0};

    (void)state;
    wb__commit_group_init(&fake.group, &db);
    for (int i = 0; i < JOBS; i++) {
        w[i].number = i;
        start(&w[i], run_job);
        while (i < JOBS - 1 && (fake_queued() < i || fake.begins == 0))
            (void)usleep(1000);
    }
    for (int i = 0; i < JOBS; i++)
        join(&w[i]);
    CHECK_STATUS(OK, w[0].status);
    CHECK_STATUS(CORRUPT, w[1].status);
    for (int i = 2; i < JOBS; i++) {
        CHECK_STATUS(BUSY, w[i].status);
        CHECK_TEXT("locked", w[i].err.msg);
    }
    wb__commit_group_fini(&fake.group);
}

/* ---- everything at once ------------------------------------------------ */

static void *
deliver(void *ctx)
{
    struct worker *w = ctx;
    struct wb_claim claim = {.max = 8};
    struct wb_batch batch = {0};

    while (w->status == WB_OK && w->count < 200) {
        struct wb_finish f[8];

        w->status = wb_outbox_claim(w->box, &claim, &batch, &w->err);
        if (w->status == WB_EMPTY)
            w->status = WB_OK;
        for (size_t i = 0; i < batch.len; i++)
            f[i] = (struct wb_finish){
                .id = batch.row[i].id, .token = batch.row[i].token};
        if (w->status == WB_OK && batch.len > 0)
            w->status =
                wb_outbox_finish(w->box, f, batch.len, NULL, NULL, &w->err);
        for (size_t i = 0; i < batch.len; i++)
            w->count += f[i].status == WB_OK;
        wb_batch_free(&batch);
    }
    return NULL;
}

TEST(test_threads__all_kinds_of_calls_at_once__nothing_lost)
{
    void *(*const run[])(void *) = {enqueue, enqueue, enqueue, enqueue, deliver,
        list_all, look_at_health, back_up};
    struct worker w[8] = {0};
    struct wb_outbox *box = box_open();
    int n = test_on_pg() ? 7 : 8; /* a server has its own backup */

    for (int i = 0; i < n; i++) {
        w[i] = (struct worker){.box = box, .number = i, .calls = 50};
        start(&w[i], run[i]);
    }
    for (int i = 0; i < n; i++) {
        join(&w[i]);
        CHECK_OK(w[i].status, w[i].err);
    }
    CHECK_INT(200, w[4].count);
    CHECK_INT(200, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                           " status = 'delivered'"));
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_threads__O2_64_threads__far_fewer_syncs_than_calls),
        RUN(test_threads__backup_among_enqueues__all_ok),
        RUN(test_threads__backup_to_nowhere_among_enqueues__only_it_fails),
        RUN(test_threads__health_among_enqueues__all_ok),
        RUN(test_threads__one_too_much_for_the_disk__others_accepted),
        RUN(test_threads__lock_not_had_in_time__busy_for_all_at_once),
        RUN(test_threads__one_fails_others_busy__each_has_its_own_error),
        RUN(test_threads__all_kinds_of_calls_at_once__nothing_lost),
    };
    return RUN_ALL(tests);
}
