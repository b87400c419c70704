/* test_cost.c - O-18: what a claim and its finish cost does not grow with what
 * waits, counted in steps of SQLite's virtual machine. */
#include <stdio.h>

#include "outbox_fixture.h"

enum {
    FEW = 100,
    MANY = 20000
};

static long steps;

static int
count_step(void *ctx)
{
    (void)ctx;
    steps++;
    return 0;
}

/* One box on a connection whose steps are counted. */
struct counted {
    sqlite3 *db;
    struct wb_outbox *box;
};

static struct counted
counted_open(void)
{
    struct wb_outbox_opts opts = {.env = ENV};
    struct counted c = {0};
    struct wb_err err = {0};

    (void)remove(BOX);
    CHECK(sqlite3_open(BOX, &c.db) == SQLITE_OK);
    CHECK_OK(wb_outbox_adopt(&c.box, c.db, &opts, &err), err);
    sqlite3_progress_handler(c.db, 1, count_step, NULL);
    return c;
}

static void
counted_close(struct counted *c)
{
    wb_outbox_close(c->box);
    CHECK(sqlite3_close(c->db) == SQLITE_OK);
}

/* Claim and confirm 20, one by one, then 20 together. */
static long
work(struct wb_outbox *box)
{
    struct wb_claim claim = {.max = 20};
    struct wb_batch batch = {0};
    struct wb_finish f[20];
    long before;

    box_fill(box, "work", 40);
    before = steps;
    for (int i = 0; i < 20; i++) {
        struct taken t = box_claim(box, "work");

        box_confirm(box, &t);
    }
    CHECK_STATUS(OK, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_INT(20, batch.len);
    for (int i = 0; i < 20; i++)
        f[i] = (struct wb_finish){.id = batch.row[i].id,
            .seq = batch.row[i].seq,
            .token = batch.row[i].token,
            .end = WB_CONFIRM};
    CHECK_STATUS(OK, wb_outbox_finish(box, f, 20, NULL, NULL, NULL));
    wb_batch_free(&batch);
    return steps - before;
}

/* The cost with few and with many rows that make() made. */
static void
check_flat(void (*make)(struct wb_outbox *box, size_t n), const char *what)
{
    long cost[2];

    for (int i = 0; i < 2; i++) {
        struct counted c = counted_open();

        make(c.box, i == 0 ? FEW : MANY);
        (void)work(c.box); /* statements prepared */
        fake_env.seed = 7; /* the same purges */
        cost[i] = work(c.box);
        counted_close(&c);
    }
    if (cost[1] * 10 > cost[0] * 13)
        fail_msg("%s: %ld steps behind %d, %ld behind %d", what, cost[0], FEW,
            cost[1], MANY);
}

static void
make_waiting(struct wb_outbox *box, size_t n)
{
    box_fill(box, "zzz", n);
}

static void
make_with(struct wb_outbox *box, size_t n, const char *sql)
{
    box_fill(box, "other", n);
    sql_run(sql);
}

static void
make_waiting_before(struct wb_outbox *box, size_t n)
{
    struct wb_err err = {0};

    make_with(box, n, "UPDATE waybill_outbox SET due_ms = 1");
    CHECK_OK(wb_outbox_pause(box, S("other"), true, &err), err);
}

static void
make_delayed(struct wb_outbox *box, size_t n)
{
    make_with(box, n, "UPDATE waybill_outbox SET due_ms = 9000000000000");
}

static void
make_held(struct wb_outbox *box, size_t n)
{
    struct wb_message *m = calloc(n, sizeof(*m));
    struct wb_accepted *a = calloc(n, sizeof(*a));

    CHECK(m != NULL && a != NULL);
    for (size_t i = 0; i < n; i++)
        m[i] = (struct wb_message){.kind = S("lane"),
            .lane = S("l"),
            .due_ms = INT64_C(9000000000000)};
    CHECK_STATUS(OK, wb_outbox_enqueue_many(box, m, n, a, NULL));
    free(m);
    free(a);
}

static void
make_abandoned(struct wb_outbox *box, size_t n)
{
    make_with(box, n,
        "UPDATE waybill_outbox SET status = 'abandoned',"
        " due_ms = 9000000000000");
}

static void
make_kept(struct wb_outbox *box, size_t n)
{
    make_with(box, n,
        "UPDATE waybill_outbox SET status = 'delivered',"
        " due_ms = 9000000000000, payload = ''");
}

static void
make_blocked(struct wb_outbox *box, size_t n)
{
    make_with(box, n, "UPDATE waybill_outbox SET due_ms = 1");
    sql_run("INSERT INTO waybill_breaker VALUES('other', 3, 1767225660000,"
            " 60000, NULL, 0)");
}

static void
make_leased(struct wb_outbox *box, size_t n)
{
    make_with(box, n,
        "UPDATE waybill_outbox SET status = 'processing',"
        " token = seq, due_ms = 9000000000000");
}

TEST(test_cost__O18_whatever_waits__claim_and_finish_cost_the_same)
{
    static const struct {
        void (*make)(struct wb_outbox *box, size_t n);
        const char *what;
    } cases[] = {
        {make_waiting, "waiting behind"},
        {make_waiting_before, "waiting before, paused"},
        {make_delayed, "delayed"},
        {make_held, "held"},
        {make_abandoned, "abandoned"},
        {make_kept, "kept"},
        {make_blocked, "behind an open breaker"},
        {make_leased, "leased"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_flat(cases[i].make, cases[i].what);
}

/* Accepting costs the same too, behind whatever is there. */
TEST(test_cost__O18_enqueue__costs_the_same_behind_a_long_lane)
{
    long cost[2];

    for (int i = 0; i < 2; i++) {
        struct counted c = counted_open();

        make_held(c.box, i == 0 ? FEW : MANY);
        (void)box_put_lane(c.box, "lane", "l");
        steps = 0;
        (void)box_put_lane(c.box, "lane", "l");
        cost[i] = steps;
        counted_close(&c);
    }
    CHECK(cost[1] <= cost[0] + 10);
}

/* The next of a long lane is found at once. */
TEST(test_cost__O18_promotion__costs_the_same_in_a_long_lane)
{
    long cost[2];

    for (int i = 0; i < 2; i++) {
        struct counted c = counted_open();
        struct taken t;

        make_held(c.box, i == 0 ? FEW : MANY);
        fake_env.wall_ms = INT64_C(9000000000000);
        t = box_claim(c.box, NULL);
        box_confirm(c.box, &t);
        t = box_claim(c.box, NULL);
        fake_env.seed = 7;
        steps = 0;
        box_confirm(c.box, &t);
        cost[i] = steps;
        counted_close(&c);
        fake_env.wall_ms = FAKE_START_MS;
    }
    CHECK(cost[1] <= cost[0] + 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_cost__O18_whatever_waits__claim_and_finish_cost_the_same),
        RUN(test_cost__O18_enqueue__costs_the_same_behind_a_long_lane),
        RUN(test_cost__O18_promotion__costs_the_same_in_a_long_lane),
    };
    return RUN_ALL(tests);
}
