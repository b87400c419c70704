/* test_postgres.c - what PostgreSQL alone has: transactions side by side, the
 * caller's connection, a server that goes away. Each race is stopped in its
 * midst by a transaction of the test's, and waited for in pg_stat_activity. */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "db/postgres.h"
#include "outbox/outbox_internal.h"
#include "outbox_fixture.h"
#include "support_pg.h"

static struct wb_outbox *
attach(PGconn *conn)
{
    const struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_attach_pg(&box, conn, &opts, &err), err);
    return box;
}

/* ---- calls on threads -------------------------------------------------- */

struct call {
    pthread_t thread;
    struct wb_outbox *box;
    struct wb_message message[2];
    struct wb_accepted accepted[2];
    struct taken taken;
    struct wb_batch batch;
    struct wb_finish finish[2];
    enum wb_status status;
    struct wb_err err;
};

static void *
send_it(void *ctx)
{
    struct call *c = ctx;

    c->status =
        wb_outbox_enqueue(c->box, &c->message[0], &c->accepted[0], &c->err);
    return NULL;
}

static void *
claim_it(void *ctx)
{
    struct call *c = ctx;
    const struct wb_claim claim = {0};

    c->status = wb_outbox_claim(c->box, &claim, &c->batch, &c->err);
    return NULL;
}

static void *
confirm_it(void *ctx)
{
    struct call *c = ctx;

    c->status =
        wb_outbox_confirm(c->box, &c->taken.id, c->taken.token, &c->err);
    return NULL;
}

static void *
fail_it(void *ctx)
{
    struct call *c = ctx;
    struct wb_finish f = {.id = c->taken.id, .token = c->taken.token};

    c->status = wb_outbox_fail(c->box, &f, &c->err);
    return NULL;
}

static void *
send_both(void *ctx)
{
    struct call *c = ctx;

    c->status =
        wb_outbox_enqueue_many(c->box, c->message, 2, c->accepted, &c->err);
    return NULL;
}

static void *
finish_both(void *ctx)
{
    struct call *c = ctx;

    c->status = wb_outbox_finish(c->box, c->finish, 2, NULL, NULL, &c->err);
    return NULL;
}

static void
start(struct call *c, void *(*work)(void *))
{
    CHECK(pthread_create(&c->thread, NULL, work, c) == 0);
}

static void
join(struct call *c)
{
    CHECK(pthread_join(c->thread, NULL) == 0);
}

/* ---- O-3 --------------------------------------------------------------- */

static void
test_postgres__O3_callers_transaction__commit_and_rollback_are_the_callers(
    void **state)
{
    struct wb_outbox *own = box_open();
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = attach(conn);

    (void)state;
    test_pg_run(conn, "BEGIN");
    (void)box_put(box, "a");
    test_pg_run(conn, "ROLLBACK");
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox"));
    test_pg_run(conn, "BEGIN");
    (void)box_put(box, "a");
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox"));
    CHECK(PQtransactionStatus(conn) == PQTRANS_INTRANS);
    test_pg_run(conn, "COMMIT");
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    (void)box_put(box, "a"); /* outside of any it commits by itself */
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
    test_pg_run(conn, "SELECT 1"); /* the connection stays the caller's */
    PQfinish(conn);
    wb_outbox_close(own);
}

TEST(test_postgres__O3_refused_message__the_callers_transaction_goes_on)
{
    struct wb_outbox *own = box_open();
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = attach(conn);
    const struct wb_message lane = {
        .kind = S("a"), .lane = S("l"), .payload = S("{}")};

    test_pg_run(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    CHECK_STATUS(REFUSED, box_try(box, lane)); /* O-16 would not hold */
    (void)box_put(box, "a");
    test_pg_run(conn, "COMMIT");
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    test_pg_run(conn, "BEGIN");
    PQclear(PQexec(conn, "SELECT 1/0"));
    CHECK_STATUS(REFUSED, box_try(box, lane));
    test_pg_run(conn, "ROLLBACK");
    wb_outbox_close(box);
    PQfinish(conn);
    wb_outbox_close(own);
}

TEST(test_postgres__O3_no_tables__notfound_and_none_made)
{
    const struct wb_outbox_opts opts = {.env = ENV, .existing = true};
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = NULL;

    CHECK_STATUS(NOTFOUND, wb_outbox_attach_pg(&box, conn, &opts, NULL));
    CHECK_STATUS(NOTFOUND, wb_outbox_open(&box, test_db_url(), &opts, NULL));
    CHECK_INT(1, sql_int("SELECT to_regclass('waybill_meta') IS NULL"));
    PQfinish(conn);
}

/* ---- races ------------------------------------------------------------- */

TEST(test_postgres__O4_key_taken_by_an_open_transaction__duplicate)
{
    struct call c = {.box = box_open()};
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = attach(conn);
    struct wb_accepted first;

    c.message[0] =
        (struct wb_message){.kind = S("a"), .key = S("k"), .payload = S("{}")};
    test_pg_run(conn, "BEGIN");
    first = box_send(box, c.message[0]);
    start(&c, send_it);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK(c.accepted[0].duplicate);
    CHECK_TEXT(first.id.text, c.accepted[0].id.text);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
    PQfinish(conn);
    wb_outbox_close(c.box);
}

TEST(test_postgres__O8_rows_of_others__passed_over)
{
    struct call c = {.box = box_open()};
    PGconn *conn = test_pg_connection();
    struct taken t;

    box_fill(c.box, "a", 2);
    test_pg_run(
        conn, "BEGIN; SELECT 1 FROM waybill_outbox WHERE seq = 1 FOR UPDATE");
    t = box_claim(c.box, NULL);
    CHECK_INT(2, t.seq);
    (void)claim_it(&c);
    CHECK_STATUS(EMPTY, c.status);
    CHECK_INT(WB_NONE_EMPTY, c.batch.reason);
    CHECK_INT(fake_env.wall_ms + 50, c.batch.next_due_ms);
    wb_batch_free(&c.batch);
    test_pg_run(conn, "COMMIT");
    t = box_claim(c.box, NULL);
    CHECK_INT(1, t.seq);
    PQfinish(conn);
    wb_outbox_close(c.box);
}

/* The breaker was read as free for a probe; meanwhile another one took it. */
TEST(test_postgres__B2_probe_taken_meanwhile__one_goes_out)
{
    struct call c = {.box = box_open()};
    PGconn *conn = test_pg_connection();
    char sql[160];

    box_fill(c.box, "a", 5);
    for (int i = 0; i < 3; i++) {
        struct taken t = box_claim(c.box, NULL);

        (void)box_fail(c.box, &t, WB_RETRY);
    }
    fake_clock_advance_ms(60000);
    (void)snprintf(sql, sizeof(sql),
        "BEGIN; UPDATE waybill_breaker SET probe_token = 1,"
        " probe_until_ms = %lld",
        (long long)fake_env.wall_ms + 60000);
    test_pg_run(conn, sql);
    start(&c, claim_it);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_STATUS(EMPTY, c.status);
    wb_batch_free(&c.batch);
    PQfinish(conn);
    wb_outbox_close(c.box);
}

/* Two failures at the same time count as two, even the first ones. */
TEST(test_postgres__B1_failure_beside_an_open_one__both_count)
{
    struct wb_outbox *box = box_open();
    PGconn *conn = test_pg_connection();
    struct wb_outbox *other = attach(conn);
    struct call c = {.box = box};
    struct taken t;

    box_fill(box, "a", 2);
    t = box_claim(box, NULL);
    c.taken = box_claim(box, NULL);
    test_pg_run(conn, "BEGIN");
    (void)box_fail(other, &t, WB_RETRY);
    start(&c, fail_it);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK_INT(2, sql_int("SELECT failures FROM waybill_breaker"));
    wb_outbox_close(other);
    PQfinish(conn);
    wb_outbox_close(box);
}

/* The head is confirmed while a sender of its lane has not committed: the
 * follower saw a head, and the confirm must see the follower. */
TEST(test_postgres__O16_head_ends_beside_an_open_sender__follower_goes)
{
    struct call c = {.box = box_open()};
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = attach(conn);
    struct wb_id follower;

    (void)box_put_lane(c.box, "a", "l");
    c.taken = box_claim(c.box, NULL);
    test_pg_run(conn, "BEGIN");
    follower = box_put_lane(box, "a", "l");
    start(&c, confirm_it);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK_TEXT("pending", status_of(&follower));
    wb_outbox_close(box);
    PQfinish(conn);
    wb_outbox_close(c.box);
}

static void
test_postgres__O16_sender_behind_an_open_one__in_the_order_of_commits(
    void **state)
{
    struct call c = {.box = box_open()};
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = attach(conn);
    struct taken t;
    struct wb_id first;

    (void)state;
    c.message[0] =
        (struct wb_message){.kind = S("a"), .lane = S("l"), .payload = S("{}")};
    test_pg_run(conn, "BEGIN");
    first = box_put_lane(box, "a", "l");
    start(&c, send_it);
    test_pg_wait_blocked(1);
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK_TEXT("held", status_of(&c.accepted[0].id));
    t = box_claim(c.box, NULL);
    CHECK_TEXT(first.text, t.id.text);
    (void)box_claim_none(c.box, NULL);
    wb_outbox_close(box);
    PQfinish(conn);
    wb_outbox_close(c.box);
}

/* ---- more than one lane ------------------------------------------------ */

static void
test_postgres__O16_many_lanes__locked_sorted_before_the_first_is_used(
    void **state)
{
    struct call c = {.box = box_open()};
    struct wb_outbox *box = box_open();
    PGconn *conn = test_pg_connection();

    (void)state;
    c.message[0] = (struct wb_message){.kind = S("a"), .lane = S("m")};
    c.message[1] = (struct wb_message){.kind = S("a"), .lane = S("l")};
    test_pg_run(conn, "BEGIN; SELECT waybill_lane('l')");
    start(&c, send_both);
    test_pg_wait_blocked(1);
    (void)box_put_lane(box, "a", "m"); /* while they wait for l, m is free */
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK_INT(3, sql_int("SELECT count(*) FROM waybill_outbox"));
    PQfinish(conn);
    wb_outbox_close(box);
    wb_outbox_close(c.box);
}

static void
claim_lanes(struct call *c)
{
    const char *lanes[] = {"m", "l"};

    for (int i = 0; i < 2; i++) {
        struct taken t;

        (void)box_put_lane(c->box, "a", lanes[i]);
        t = box_claim(c->box, NULL);
        c->finish[i] =
            (struct wb_finish){.id = t.id, .seq = t.seq, .token = t.token};
    }
}

TEST(test_postgres__O16_finish_of_many_lanes__locked_sorted_too)
{
    struct call c = {.box = box_open()};
    struct wb_outbox *box = box_open();
    PGconn *conn = test_pg_connection();

    claim_lanes(&c);
    test_pg_run(conn, "BEGIN; SELECT waybill_lane('l')");
    start(&c, finish_both);
    test_pg_wait_blocked(1);
    (void)box_put_lane(box, "a", "m");
    test_pg_run(conn, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"
                         " WHERE status = 'pending'"));
    PQfinish(conn);
    wb_outbox_close(box);
    wb_outbox_close(c.box);
}

/* Another program locks a row and then its lane. Ours has the lane, and is the
 * one that closes the ring: the server ends its transaction, the only one whose
 * wait is looked at, and it is run again. */
TEST(test_postgres__deadlock_with_another_program__run_again)
{
    struct call c = {.box = box_open()};
    PGconn *gate = test_pg_connection(), *other = test_pg_connection();

    claim_lanes(&c);
    test_pg_run(gate, "BEGIN; SELECT waybill_lane('m')");
    test_pg_run(other,
        "SET deadlock_timeout = '1h'; BEGIN;"
        " SELECT 1 FROM waybill_outbox WHERE lane = 'm' FOR UPDATE");
    start(&c, finish_both);
    test_pg_wait_blocked(1); /* it has l, and waits for m */
    CHECK(PQsendQuery(other, "SELECT waybill_lane('l')") == 1);
    test_pg_wait_blocked(2);
    test_pg_run(gate, "COMMIT");
    PQclear(PQgetResult(other)); /* only because ours gave l back */
    PQclear(PQgetResult(other));
    CHECK(PQtransactionStatus(other) == PQTRANS_INTRANS);
    test_pg_run(other, "COMMIT");
    join(&c);
    CHECK_OK(c.status, c.err);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"
                         " WHERE status = 'delivered'"));
    PQfinish(gate);
    PQfinish(other);
    wb_outbox_close(c.box);
}

/* ---- the server -------------------------------------------------------- */

TEST(test_postgres__connection_cut__connected_again_at_the_next_call)
{
    struct wb_outbox *box = box_open();
    char sql[128];

    (void)box_put(box, "a");
    (void)snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend(%d, 5000)",
        PQbackendPID(((struct wb__postgres *)box->db)->conn));
    CHECK_INT(1, sql_int(sql));
    (void)box_put(box, "a");
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* A cancel or a timeout in the midst of begin, which is several statements: the
 * session must not stay in a transaction that failed. The function hides the
 * server's own, which asks the time there. */
TEST(test_postgres__begin_cancelled__rolled_back_and_the_next_one_begins)
{
    static const char cancel[] =
        "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE 'cancelled' USING ERRCODE = '57014'; END $$";
    const struct wb__db_opts opts = {
        .env = ENV, .busy_ms = 1000, .server_clock = true};
    char url[600];
    PGconn *other;

    wb_outbox_close(box_open());
    (void)snprintf(url, sizeof(url), "%s,pg_catalog", test_pg_url());
    other = PQconnectdb(url);
    for (int borrowed = 0; borrowed < 2; borrowed++) {
        PGconn *conn = PQconnectdb(url);
        struct wb__db *db = NULL;
        struct wb_err err = {0};
        enum wb_status rc = borrowed == 1
                                ? wb__db_borrow_pg(&db, conn, &opts, &err)
                                : wb__db_open(&db, url, &opts, &err);

        CHECK_OK(rc, err);
        test_pg_run(other, cancel);
        for (enum wb__tx tx = WB__TX_READ; tx <= WB__TX_FULL; tx++)
            CHECK_STATUS(BUSY, wb__db_begin(db, tx, &err));
        CHECK(PQtransactionStatus(((struct wb__postgres *)db)->conn) ==
              PQTRANS_IDLE);
        test_pg_run(other, "DROP FUNCTION clock_timestamp()");
        CHECK_OK(wb__db_begin(db, WB__TX_FULL, &err), err);
        CHECK_OK(wb__db_commit(db, &err), err);
        wb__db_close(db);
        PQfinish(conn);
    }
    PQfinish(other);
}

TEST(test_postgres__no_server__unavailable)
{
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    CHECK_STATUS(
        UNAVAILABLE, wb_outbox_open(&box, "postgres://u:geheim@127.0.0.1:1/x",
                         &(struct wb_outbox_opts){.env = ENV}, &err));
    CHECK_HAS("refused", err.msg);
    CHECK(strstr(err.msg, "geheim") == NULL);
}

TEST(test_postgres__statuses__by_sqlstate)
{
    CHECK_STATUS(UNAVAILABLE, wb__postgres_status("08006"));
    CHECK_STATUS(UNAVAILABLE, wb__postgres_status("57P01"));
    CHECK_STATUS(BUSY, wb__postgres_status("40001"));
    CHECK_STATUS(BUSY, wb__postgres_status("40P01"));
    CHECK_STATUS(BUSY, wb__postgres_status("55P03"));
    CHECK_STATUS(BUSY, wb__postgres_status("57014"));
    CHECK_STATUS(FULL, wb__postgres_status("53100"));
    CHECK_STATUS(NOMEM, wb__postgres_status("53200"));
    CHECK_STATUS(REFUSED, wb__postgres_status("42501"));
    CHECK_STATUS(CORRUPT, wb__postgres_status("42P01"));
    CHECK_STATUS(IO, wb__postgres_status("58030"));
    CHECK_STATUS(IO, wb__postgres_status(NULL));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_postgres__O3_callers_transaction__commit_and_rollback_are_the_callers),
        RUN(test_postgres__O3_refused_message__the_callers_transaction_goes_on),
        RUN(test_postgres__O3_no_tables__notfound_and_none_made),
        RUN(test_postgres__O4_key_taken_by_an_open_transaction__duplicate),
        RUN(test_postgres__O8_rows_of_others__passed_over),
        RUN(test_postgres__B2_probe_taken_meanwhile__one_goes_out),
        RUN(test_postgres__B1_failure_beside_an_open_one__both_count),
        RUN(test_postgres__O16_head_ends_beside_an_open_sender__follower_goes),
        RUN(test_postgres__O16_sender_behind_an_open_one__in_the_order_of_commits),
        RUN(test_postgres__O16_many_lanes__locked_sorted_before_the_first_is_used),
        RUN(test_postgres__O16_finish_of_many_lanes__locked_sorted_too),
        RUN(test_postgres__deadlock_with_another_program__run_again),
        RUN(test_postgres__connection_cut__connected_again_at_the_next_call),
        RUN(test_postgres__begin_cancelled__rolled_back_and_the_next_one_begins),
        RUN(test_postgres__no_server__unavailable),
        RUN(test_postgres__statuses__by_sqlstate),
    };
    return RUN_ALL(tests);
}
