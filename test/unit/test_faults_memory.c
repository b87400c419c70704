/* test_faults_memory.c - each allocation fails once, ours and SQLite's:
 * NOMEM, nothing changed, nothing lost, and the next call works. */
#include <stdio.h>
#include <unistd.h>

#include "outbox_fixture.h"

/* ---- SQLite's allocator, over its own ---------------------------------- */

static sqlite3_mem_methods plain;
static atomic_long lite_fail_in = -1, lite_failed;

static bool
lite_must_fail(void)
{
    long left = lite_fail_in;

    if (left < 0)
        return false;
    left = atomic_fetch_sub(&lite_fail_in, 1);
    lite_failed += left == 0;
    return left == 0;
}

static void *
lite_malloc(int n)
{
    return lite_must_fail() ? NULL : plain.xMalloc(n);
}

static void *
lite_realloc(void *p, int n)
{
    return lite_must_fail() ? NULL : plain.xRealloc(p, n);
}

static void
lite_install(void)
{
    sqlite3_mem_methods m;

    CHECK(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain) == SQLITE_OK);
    m = plain;
    m.xMalloc = lite_malloc;
    m.xRealloc = lite_realloc;
    CHECK(sqlite3_config(SQLITE_CONFIG_MALLOC, &m) == SQLITE_OK);
}

/* ---- the calls --------------------------------------------------------- */

static struct taken claimed; /* what finish ends */

static enum wb_status
call_enqueue(struct wb_outbox *box)
{
    struct wb_message m = {
        .kind = S("a"), .payload = S("{}"), .key = S("k"), .lane = S("l")};

    return box_try(box, m);
}

static enum wb_status
call_claim(struct wb_outbox *box)
{
    uint32_t slots = 2;
    struct wb_source source = {
        .kind = S("a"), .scope = S("s"), .slots = &slots};
    struct wb_claim claim = {.sources = &source, .n_sources = 1, .max = 5};
    struct wb_batch batch = {0};
    enum wb_status rc = wb_outbox_claim(box, &claim, &batch, NULL);

    CHECK_INT(rc == WB_OK ? 2 : 0, batch.len);
    CHECK_INT(rc == WB_OK ? 0 : 2, slots);
    wb_batch_free(&batch);
    return rc;
}

static enum wb_status
call_claim_all(struct wb_outbox *box)
{
    struct wb_claim claim = {.max = 5};
    struct wb_batch batch = {0};
    enum wb_status rc = wb_outbox_claim(box, &claim, &batch, NULL);

    wb_batch_free(&batch);
    return rc;
}

static enum wb_status
call_finish(struct wb_outbox *box)
{
    struct wb_finish f = {.id = claimed.id,
        .token = claimed.token,
        .end = WB_FAIL,
        .outcome = WB_RETRY,
        .error = S("500")};
    struct wb_claim claim = {.max = 5};
    struct wb_batch batch = {0};
    enum wb_status rc = wb_outbox_finish(box, &f, 1, &claim, &batch, NULL);

    wb_batch_free(&batch);
    return rc;
}

static enum wb_status
call_confirm(struct wb_outbox *box)
{
    return wb_outbox_confirm(box, &claimed.id, claimed.token, NULL);
}

static enum wb_status
call_list(struct wb_outbox *box)
{
    struct wb_filter all = {.state = -1};
    int n = 0;
    enum wb_status rc = wb_outbox_list(box, &all, row_count, &n, NULL);

    CHECK(rc != WB_OK || n == 5);
    return rc;
}

static enum wb_status
call_show(struct wb_outbox *box)
{
    int n = 0;

    return wb_outbox_show(box, S(claimed.id.text), row_count, &n, NULL);
}

static enum wb_status
call_count(struct wb_outbox *box)
{
    return wb_outbox_count(box, kind_ignore, NULL, NULL);
}

static enum wb_status
call_redrive(struct wb_outbox *box)
{
    struct wb_select all = {0};
    struct wb_selected did = {0};
    enum wb_status rc =
        wb_outbox_redrive(box, &all, &did, kind_ignore, NULL, NULL);

    CHECK_INT(rc == WB_OK, did.total);
    return rc;
}

static enum wb_status
call_discard(struct wb_outbox *box)
{
    struct wb_select all = {0};
    struct wb_selected did = {0};

    return wb_outbox_discard(box, &all, &did, kind_ignore, NULL, NULL);
}

static enum wb_status
call_reset(struct wb_outbox *box)
{
    uint64_t n;

    return wb_outbox_breaker_reset(box, S(""), &n, NULL);
}

static enum wb_status
call_health(struct wb_outbox *box)
{
    struct wb_health h;

    return wb_outbox_health(box, &h, NULL);
}

static const struct {
    const char *name;
    enum wb_status (*run)(struct wb_outbox *box);
} calls[] = {
    {"enqueue", call_enqueue},
    {"claim", call_claim},
    {"claim of all", call_claim_all},
    {"finish and claim", call_finish},
    {"confirm", call_confirm},
    {"list", call_list},
    {"show", call_show},
    {"count", call_count},
    {"redrive", call_redrive},
    {"discard", call_discard},
    {"breaker reset", call_reset},
    {"health", call_health},
};

/* ---- the state before each call ---------------------------------------- */

/* Two messages waiting, one claimed, one abandoned, one behind an open breaker:
 * made once, then restored into the same file, so that tokens stay valid. */
static char *made;
static size_t made_len;

static void
make_all(void)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "b");
    t = box_claim(box, NULL);
    box_abandon(box, &t);
    (void)box_put(box, "b");
    claimed = box_claim(box, NULL);
    box_fill(box, "a", 2);
    (void)box_put(box, "open");
    sql_run("INSERT INTO waybill_breaker VALUES('open', 3, 1767225630000,"
            " 60000, NULL, 0)");
    wb_outbox_close(box);
    made = test_read(BOX, &made_len);
}

static struct wb_outbox *
box_with_all(void)
{
    test_write(BOX, made, made_len);
    return box_open();
}

static void
dump(char *out, size_t size)
{
    (void)snprintf(out, size, "%s",
        sql_text("SELECT (SELECT group_concat(quote(id) || quote(status) ||"
                 " quote(due_ms) || quote(attempts) || quote(token) ||"
                 " quote(last_error)) FROM waybill_outbox) || (SELECT"
                 " group_concat(quote(scope) || failures || open_until_ms)"
                 " FROM waybill_breaker)"));
}

/* One call with its n-th allocation failing, on a connection that has prepared
 * no statement yet. False: it had no more. */
static bool
try_nth(size_t call, long n, bool lite)
{
    struct wb_outbox *box = box_with_all();
    char before[4000], after[4000];
    enum wb_status rc;
    bool failed;

    dump(before, sizeof(before));
    if (lite)
        lite_fail_in = n;
    else
        fake_alloc_fail_at(n);
    lite_failed = 0;
    rc = calls[call].run(box);
    failed = lite ? lite_failed > 0 : fake_env.failed > 0;
    lite_fail_in = -1;
    fake_alloc_fail_at(-1);
    if (rc != WB_OK && (!failed || rc != WB_NOMEM))
        fail_msg(
            "%s, allocation %ld: %s", calls[call].name, n, wb_status_name(rc));
    dump(after, sizeof(after));
    if (rc != WB_OK && strcmp(before, after) != 0)
        fail_msg("%s, allocation %ld: changed\n%s\n%s", calls[call].name, n,
            before, after);
    if (rc != WB_OK)
        CHECK_INT(WB_OK, calls[call].run(box));
    wb_outbox_close(box);
    return failed;
}

TEST(test_memory__each_of_ours_fails__nomem_and_nothing_changed)
{
    long faults = 0;

    make_all();
    for (size_t call = 0; call < sizeof(calls) / sizeof(calls[0]); call++)
        for (long n = 0; try_nth(call, n, false); n++)
            CHECK(++faults < 10000);
    CHECK(faults > 20); /* or it injected nothing */
    free(made);
}

TEST(test_memory__each_of_sqlites_fails__nomem_and_nothing_changed)
{
    long faults = 0;

    make_all();
    for (size_t call = 0; call < sizeof(calls) / sizeof(calls[0]); call++)
        for (long n = 0; try_nth(call, n, true); n += n < 60 ? 1 : 3)
            CHECK(++faults < 10000);
    CHECK(faults > 500);
    free(made);
}

static bool
try_open(long n, bool lite)
{
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *box = NULL;
    enum wb_status rc;
    bool failed;

    (void)remove(BOX);
    if (lite)
        lite_fail_in = n;
    else
        fake_alloc_fail_at(n);
    lite_failed = 0;
    rc = wb_outbox_open(&box, BOX, &opts, NULL);
    failed = lite ? lite_failed > 0 : fake_env.failed > 0;
    lite_fail_in = -1;
    fake_alloc_fail_at(-1);
    CHECK((rc == WB_OK) == (box != NULL));
    if (rc != WB_OK && (!failed || rc != WB_NOMEM))
        fail_msg("open, allocation %ld: %s", n, wb_status_name(rc));
    wb_outbox_close(box);
    box = box_open();
    (void)box_put(box, "a");
    wb_outbox_close(box);
    return failed;
}

TEST(test_memory__open__each_of_ours_fails)
{
    for (long n = 0; try_open(n, false); n++)
        CHECK(n < 100);
}

TEST(test_memory__open__each_of_sqlites_fails)
{
    for (long n = 0; try_open(n, true); n += n < 60 ? 1 : 5)
        CHECK(n < 5000);
}

/* Inside the caller's transaction: it stays open, without the message. */
TEST(test_memory__O3_in_a_transaction__each_of_sqlites_fails)
{
    struct wb_outbox_opts opts = {.env = ENV};

    for (long n = 0;; n++) {
        struct wb_outbox *box = NULL;
        sqlite3 *db = NULL;
        enum wb_status rc;
        bool failed;

        (void)remove(BOX);
        CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
        CHECK_STATUS(OK, wb_outbox_adopt(&box, db, &opts, NULL));
        CHECK(sqlite3_exec(db,
                  "CREATE TABLE mine(a); BEGIN; INSERT INTO mine"
                  " VALUES(1)",
                  NULL, NULL, NULL) == SQLITE_OK);
        lite_failed = 0;
        lite_fail_in = n;
        rc = call_enqueue(box);
        failed = lite_failed > 0;
        lite_fail_in = -1;
        CHECK(rc == WB_OK || (failed && rc == WB_NOMEM));
        if (!sqlite3_get_autocommit(db))
            CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
        CHECK_INT(rc == WB_OK, sql_int("SELECT count(*) FROM waybill_outbox"));
        wb_outbox_close(box);
        CHECK(sqlite3_close(db) == SQLITE_OK);
        if (!failed)
            break;
        CHECK(n < 1000);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_memory__each_of_ours_fails__nomem_and_nothing_changed),
        RUN(test_memory__each_of_sqlites_fails__nomem_and_nothing_changed),
        RUN(test_memory__open__each_of_ours_fails),
        RUN(test_memory__open__each_of_sqlites_fails),
        RUN(test_memory__O3_in_a_transaction__each_of_sqlites_fails),
    };

    /* thousands of files, none of which must survive a power cut */
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);
    lite_install();
    return RUN_ALL(tests);
}
