/* test_postgres_admin.c - drains, limits, restored and foreign databases on
 * PostgreSQL. */
#include <stdio.h>
#include <unistd.h>

#include "db/db.h"
#include "outbox/outbox_internal.h"
#include "outbox_fixture.h"

TEST(test_postgres__D2_drain__one_at_a_time_and_freed_by_close)
{
    struct wb_outbox *a = box_open(), *b = box_open();

    CHECK(wb__db_drain_try(a->db, 0));
    CHECK(!wb__db_drain_try(b->db, 0));
    CHECK(wb__db_drain_try(b->db, 1));
    wb__db_drain_flag_set(b->db, true);
    CHECK(wb__db_drain_flag(a->db));
    wb__db_drain_flag_set(a->db, false);
    CHECK(!wb__db_drain_flag(b->db));
    wb__db_drain_free(a->db, 0);
    CHECK(wb__db_drain_try(b->db, 0));
    wb_outbox_close(b);
    while (!wb__db_drain_try(a->db, 0)) /* the server notices by itself */
        (void)usleep(1000);
    wb_outbox_close(a);
}

/* The session that holds a drain slot ends, as when the server restarts: the
 * slot must not be released then, or the server prints a warning. */
TEST(test_postgres__session_of_the_drain_ends__nothing_printed)
{
    struct wb_outbox *box = box_open();
    int fd = dup(STDERR_FILENO);
    long printed;

    CHECK(wb__db_drain_try(box->db, 0));
    sql_run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
            " query LIKE 'SELECT pg_try_advisory_lock(%'");
    CHECK(freopen("printed", "w", stderr) != NULL);
    (void)wb__db_drain_flag(box->db); /* finds out */
    wb__db_drain_free(box->db, 0);
    printed = ftell(stderr);
    CHECK(dup2(fd, STDERR_FILENO) == STDERR_FILENO && close(fd) == 0);
    CHECK_INT(0, printed);
    CHECK(wb__db_drain_try(box->db, 0));
    wb_outbox_close(box);
}

TEST(test_postgres__O5_bytes__full)
{
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.max_file_bytes = 200000});
    int n = 0;

    while (n < 10000 && box_try(box, (struct wb_message){.kind = wb_slice("a"),
                                         .payload = wb_slice("{}")}) == WB_OK)
        n++;
    CHECK(n > 100 && n < 10000);
    wb_outbox_close(box);
}

TEST(test_postgres__O21_restored__old_tokens_are_fenced)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    wb_outbox_close(box);
    box = box_open(); /* the same database: the claim stands */
    CHECK_TEXT("processing", status_of(&t.id));
    wb_outbox_close(box);
    sql_run("UPDATE waybill_meta SET value = '1.2.3' WHERE name = 'file'");
    box = box_open();
    CHECK_STATUS(FENCED, wb_outbox_confirm(box, &t.id, t.token, NULL));
    CHECK_TEXT("pending", status_of(&t.id));
    wb_outbox_close(box);
}

TEST(test_postgres__O21_backup__names_the_servers_own_tools)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};

    CHECK_STATUS(UNAVAILABLE, wb_outbox_backup(box, "copy", &err));
    CHECK_HAS("pg_dump", err.msg);
    wb_outbox_close(box);
}

TEST(test_postgres__I13_health__says_what_is_in_force)
{
    struct wb_outbox *box = box_open();
    struct wb_health h;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK_HAS("PostgreSQL", h.engine);
    CHECK_TEXT("wal", h.journal_mode);
    CHECK_TEXT("ok", h.integrity);
    CHECK(h.full_sync && h.file_bytes > 0 && h.schema_version >= 1);
    wb_outbox_close(box);
}

TEST(test_postgres__tables_of_others__corrupt)
{
    struct wb_outbox *box = NULL;
    const struct wb_outbox_opts opts = {.env = ENV};

    sql_run("CREATE TABLE waybill_meta(x int)");
    CHECK_STATUS(CORRUPT, wb_outbox_open(&box, test_db_url(), &opts, NULL));
    sql_run("DROP TABLE waybill_meta");
    wb_outbox_close(box_open());
    sql_run("UPDATE waybill_meta SET value = '99' WHERE name = 'version'");
    CHECK_STATUS(NEWER, wb_outbox_open(&box, test_db_url(), &opts, NULL));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_postgres__D2_drain__one_at_a_time_and_freed_by_close),
        RUN(test_postgres__session_of_the_drain_ends__nothing_printed),
        RUN(test_postgres__O5_bytes__full),
        RUN(test_postgres__O21_restored__old_tokens_are_fenced),
        RUN(test_postgres__O21_backup__names_the_servers_own_tools),
        RUN(test_postgres__I13_health__says_what_is_in_force),
        RUN(test_postgres__tables_of_others__corrupt),
    };
    return RUN_ALL(tests);
}
