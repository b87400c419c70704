/* test_postgres_notify.c - workers are notified of commits: which, when, and
 * after the session was lost. The clock stands still unless it is moved, so
 * that no poll of a worker finds a message. */
#include <libpq-fe.h>
#include <poll.h>
#include <unistd.h>

#include "db/postgres.h"
#include "outbox_fixture.h"
#include "relay_fixture.h"
#include "support_pg.h"

static const struct wb_outbox_opts options = {.env = ENV};

/* ---- a session that listens -------------------------------------------- */

struct listener {
    struct wb_outbox *box;
    int fd;
};

static struct listener
listener_open(void)
{
    struct listener l = {.box = box_open()};

    CHECK(wb__db_drain_try(l.box->db, 0)); /* opens the session */
    l.fd = wb__db_listen(l.box->db);
    CHECK(l.fd >= 0);
    CHECK_INT(-1, wb__db_listen(l.box->db)); /* the same session */
    return l;
}

static void
listener_close(struct listener *l)
{
    (void)close(l->fd);
    wb_outbox_close(l->box);
}

static void
wait_readable(const struct listener *l)
{
    CHECK_INT(
        1, poll(&(struct pollfd){.fd = l->fd, .events = POLLIN}, 1, 30000));
}

static bool
is_notified(const struct listener *l)
{
    bool any;

    CHECK(wb__db_notified(l->box->db, &any));
    return any;
}

/* All that was notified before this has arrived after it. */
static void
catch_up(const struct listener *l)
{
    (void)wb__db_drain_flag(l->box->db);
}

/* ---- tests ------------------------------------------------------------- */

TEST(test_postgres__commit__listener_is_notified_after_it)
{
    struct listener l = listener_open();
    struct wb_outbox *box = box_open();

    CHECK(!is_notified(&l));
    (void)box_put(box, "a");
    wait_readable(&l);
    CHECK(is_notified(&l));
    CHECK(!is_notified(&l));
    wb_outbox_close(box);
    listener_close(&l);
}

TEST(test_postgres__commits_in_quick_succession__one_notification)
{
    struct listener l = listener_open();
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    catch_up(&l);
    CHECK(is_notified(&l));
    (void)box_put(box, "a");
    catch_up(&l);
    CHECK(!is_notified(&l));
    fake_clock_advance_ms(WB__NOTIFY_US / 1000);
    (void)box_put(box, "a");
    catch_up(&l);
    CHECK(is_notified(&l)); /* read by another use of the session */
    wb_outbox_close(box);
    listener_close(&l);
}

TEST(test_postgres__commit_without_a_new_message__no_notification)
{
    struct listener l = listener_open();
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    catch_up(&l);
    CHECK(is_notified(&l));
    fake_clock_advance_ms(1000);
    (void)box_claim(box, NULL);
    catch_up(&l);
    CHECK(!is_notified(&l));
    wb_outbox_close(box);
    listener_close(&l);
}

TEST(test_postgres__callers_transaction__notified_when_it_commits)
{
    struct listener l = listener_open();
    PGconn *conn = test_pg_connection();
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_attach_pg(&box, conn, &options, &err), err);
    test_pg_run(conn, "BEGIN");
    (void)box_put(box, "a");
    (void)box_put(box, "a");
    catch_up(&l);
    CHECK(!is_notified(&l));
    test_pg_run(conn, "ROLLBACK");
    catch_up(&l);
    CHECK(!is_notified(&l));
    test_pg_run(conn, "BEGIN");
    (void)box_put(box, "a");
    test_pg_run(conn, "COMMIT");
    catch_up(&l);
    CHECK(is_notified(&l));
    wb_outbox_close(box);
    PQfinish(conn);
    listener_close(&l);
}

TEST(test_postgres__session_lost__the_next_one_listens)
{
    struct listener l = listener_open();
    struct wb_outbox *box = box_open();
    PGconn *conn = test_pg_connection();
    bool any;

    test_pg_run(conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                      " WHERE query = 'LISTEN waybill'");
    wait_readable(&l);
    while (wb__db_notified(l.box->db, &any))
        (void)poll(NULL, 0, 1);
    (void)close(l.fd);
    catch_up(&l); /* whatever uses the session next opens another one */
    l.fd = wb__db_listen(l.box->db);
    CHECK(l.fd >= 0);
    (void)box_put(box, "a");
    wait_readable(&l);
    CHECK(is_notified(&l));
    PQfinish(conn);
    wb_outbox_close(box);
    listener_close(&l);
}

/* ---- the worker -------------------------------------------------------- */

struct producer {
    struct fixture d;
    struct wb_outbox *other;
    uv_timer_t timer;
    int step;
};

static void
stop_after_three(struct fake *f)
{
    struct producer *p = f->ctx;

    if (f->sent == 3)
        wb_relay_stop(p->d.relay);
}

/* The second and the third message are not notified: the worker checks once
 * more, when the clock has moved. */
static void
send_next(uv_timer_t *timer)
{
    struct producer *p = timer->data;

    if (p->step == 0) {
        p->step++;
        (void)box_put(p->other, "a");
    } else if (p->step == 1 && p->d.fake.sent == 1) {
        p->step++;
        (void)box_put(p->other, "a");
        (void)box_put(p->other, "a");
        fake_clock_advance_ms(3 * WB__NOTIFY_US / 1000);
    }
}

TEST(test_postgres__idle_worker__woken_by_notifications_alone)
{
    struct producer p = {0};
    struct fixture *d = &p.d;

    fixture_open(d);
    d->fake.ctx = &p;
    d->fake.loop = &d->loop;
    d->fake.on_send = stop_after_three;
    fixture_start_with(d, 1, (struct wb_relay_opts){.env = ENV});
    CHECK_OK(
        wb_outbox_open(&p.other, test_db_url(), &options, &d->err), d->err);
    CHECK(uv_timer_init(&d->loop, &p.timer) == 0);
    p.timer.data = &p;
    (void)uv_timer_start(&p.timer, send_next, 50, 50);
    CHECK_OK(wb_relay_run(d->relay, &(struct wb_drain){0}, &d->report, &d->err),
        d->err);
    CHECK_INT(3, d->report.confirmed);
    wb_outbox_close(p.other);
    uv_close((uv_handle_t *)&p.timer, NULL);
    fixture_close(d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_postgres__commit__listener_is_notified_after_it),
        RUN(test_postgres__commits_in_quick_succession__one_notification),
        RUN(test_postgres__commit_without_a_new_message__no_notification),
        RUN(test_postgres__callers_transaction__notified_when_it_commits),
        RUN(test_postgres__session_lost__the_next_one_listens),
        RUN(test_postgres__idle_worker__woken_by_notifications_alone),
    };

    return RUN_ALL(tests);
}
