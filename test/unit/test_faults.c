/* test_faults.c - each write and sync fails once: FAILED until
 * reopened (db.h (4), I11, I17), and a full disk, which is not (I14). */
#include <stdio.h>

#include "outbox_fixture.h"
#include "shim_vfs.h"

static struct wb_outbox *
shim_box(void)
{
    struct wb_outbox *box;

    shim_install();
    fake_env.env.vfs = "shim";
    box = box_open();
    (void)box_put(box, "warm");
    return box;
}

static struct wb_message
keyed(void)
{
    return (struct wb_message){
        .kind = S("a"), .payload = S("{}"), .key = S("k")};
}

/* A FAILED store promises nothing and writes nothing. */
static void
check_failed(struct wb_outbox *box)
{
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_filter all = {.state = -1};
    struct wb_select none = {0};
    struct wb_selected did;
    struct wb_health h;
    struct wb_err err = {0};
    struct wb_id id = {"0190a000-0000-7000-8000-00000000000a"};
    int64_t writes;
    int n = 0;

    shim_heal();
    writes = shim.writes;
    CHECK_STATUS(IO, wb_outbox_enqueue(box,
                         &(struct wb_message){.kind = S("a")}, NULL, &err));
    CHECK_HAS("open it again", err.msg);
    CHECK_STATUS(IO, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_STATUS(IO, wb_outbox_confirm(box, &id, 1, NULL));
    CHECK_STATUS(IO, wb_outbox_list(box, &all, row_count, &n, NULL));
    CHECK_STATUS(IO, wb_outbox_redrive(box, &none, &did, NULL, NULL, NULL));
    CHECK_STATUS(IO, wb_outbox_health(box, &h, NULL));
    CHECK_STATUS(IO, wb_outbox_backup(box, "copy.db", NULL));
    wb_batch_free(&batch);
    wb_outbox_close(box);
    CHECK_INT(writes, shim.writes);
}

TEST(test_faults__I11_accept_fails_anywhere__unknown_and_safe_to_repeat)
{
    static const int codes[] = {SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC};

    for (int op = SHIM_WRITE; op <= SHIM_SYNC; op++) {
        for (long n = 0;; n++) {
            struct wb_outbox *box = shim_box();
            enum wb_status rc;
            bool fired;

            shim_fail((enum shim_op)op, n, codes[op], false);
            rc = box_try(box, keyed());
            fired = shim.fired > 0;
            if (fired) {
                CHECK_INT(WB_IO, rc);
                check_failed(box);
                box = box_open();
            }
            (void)box_send(box, keyed());
            CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                                 " key = 'k'"));
            CHECK_TEXT("ok", sql_text("PRAGMA integrity_check"));
            sql_run("DELETE FROM waybill_outbox");
            shim_heal();
            wb_outbox_close(box);
            if (!fired)
                break;
            CHECK(n < 100);
        }
    }
}

TEST(test_faults__I4_finish_fails_anywhere__repeated_or_done_never_both)
{
    for (long n = 0;; n++) {
        struct wb_outbox *box = shim_box();
        struct taken t = box_claim(box, NULL);
        enum wb_status rc;
        bool fired;

        shim_fail(SHIM_WRITE, n, SQLITE_IOERR_WRITE, true);
        rc = wb_outbox_confirm(box, &t.id, t.token, NULL);
        fired = shim.fired > 0;
        CHECK_INT(fired ? WB_IO : WB_OK, rc);
        if (fired) {
            check_failed(box);
            box = box_open();
            box_confirm(box, &t); /* the token matches, or did before */
        }
        shim_heal();
        CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
        CHECK_TEXT("delivered", status_of(&t.id));
        sql_run("DELETE FROM waybill_outbox");
        wb_outbox_close(box);
        if (!fired)
            break;
        CHECK(n < 100);
    }
}

TEST(test_faults__claim_fails__nothing_leased_slots_given_back)
{
    struct wb_outbox *box = shim_box();
    uint32_t slots = 3;
    struct wb_source source = {.kind = S("warm"), .slots = &slots};
    struct wb_claim claim = {.sources = &source, .n_sources = 1, .max = 2};
    struct wb_batch batch = {0};

    shim_fail(SHIM_WRITE, 0, SQLITE_IOERR_WRITE, true);
    CHECK_STATUS(IO, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK(shim.fired > 0);
    CHECK_INT(3, slots);
    CHECK_INT(0, batch.len);
    CHECK(batch.memory == NULL);
    check_failed(box);
    box = box_open();
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

static enum wb_status
send_100(struct wb_outbox *box)
{
    static struct wb_message m[100];
    static struct wb_accepted a[100];

    for (int i = 0; i < 100; i++)
        m[i] = (struct wb_message){.kind = S("a")};
    return wb_outbox_enqueue_many(box, m, 100, a, NULL);
}

/* A checkpoint that fails comes after a commit that stands: the second sync of
 * the log in one call is the checkpoint's. */
TEST(test_faults__I17_checkpoint_sync_fails__accepted_then_failed)
{
    struct wb_outbox *box = shim_box();
    int64_t sent = 1;

    for (int i = 0; i < 100 && shim.fired == 0; i++) {
        shim_fail(SHIM_SYNC, 1, SQLITE_IOERR_FSYNC, false);
        CHECK_STATUS(OK, send_100(box));
        sent += 100;
    }
    CHECK(shim.fired > 0);
    CHECK_INT(sent, sql_int("SELECT count(*) FROM waybill_outbox"));
    check_failed(box);
}

/* ---- a full disk ------------------------------------------------------- */

TEST(test_faults__I14_disk_full__full_and_ok_after_space_is_freed)
{
    struct wb_outbox *box = shim_box();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_filter all = {.state = -1};
    struct wb_err err = {0};
    int n = 0;

    for (long at = 0; at < 3; at++) {
        shim_fail(SHIM_WRITE, at, SQLITE_FULL, true);
        CHECK_STATUS(
            FULL, wb_outbox_enqueue(
                      box, &(struct wb_message){.kind = S("a")}, NULL, &err));
        CHECK(shim.fired > 0);
        CHECK_STATUS(FULL, wb_outbox_claim(box, &claim, &batch, NULL));
        n = 0;
        CHECK_OK(wb_outbox_list(box, &all, row_count, &n, &err), err);
        CHECK_INT(1, n);
        shim_heal();
    }
    (void)box_put(box, "a");
    (void)box_claim(box, NULL);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

/* The shared memory cannot grow for the same reason. */
TEST(test_faults__I14_no_space_for_shared_memory__full_not_failed)
{
    struct wb_outbox *box;
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_err err = {0};

    wb_outbox_close(shim_box());
    shim_fail(SHIM_SHM, 0, SQLITE_IOERR_SHMSIZE, true);
    CHECK_STATUS(FULL, wb_outbox_open(&box, BOX, &opts, &err));
    shim_heal();
    box = box_open();
    (void)box_put(box, "a");
    wb_outbox_close(box);
}

TEST(test_faults__read_fails__io_and_text_says_what_to_do)
{
    struct wb_outbox *box = shim_box();
    struct wb_filter all = {.state = -1};
    struct wb_err err = {0};
    int n = 0;

    box_fill(box, "a", 5000);
    wb_outbox_close(box);
    box = box_open();
    shim_fail(SHIM_READ, 0, SQLITE_IOERR_READ, true);
    CHECK_STATUS(IO, wb_outbox_list(box, &all, row_count, &n, &err));
    CHECK(shim.fired > 0);
    CHECK_HAS("open it again", err.msg);
    shim_heal();
    wb_outbox_close(box);
    box = box_open();
    CHECK_OK(wb_outbox_list(box, &all, row_count, &n, &err), err);
    wb_outbox_close(box);
}

/* A temporary file, or one more where the limit of open files is reached. */
TEST(test_db__read_cannot_open_temp_file__not_failed)
{
    struct wb_outbox *box = shim_box();
    struct wb_filter all = {.state = -1};
    struct wb_err err = {0};
    int n = 0;

    box_fill(box, "a", 5000);
    wb_outbox_close(box);
    box = box_open();
    shim_fail(SHIM_READ, 0, SQLITE_CANTOPEN, true);
    CHECK_STATUS(UNAVAILABLE, wb_outbox_list(box, &all, row_count, &n, &err));
    CHECK(shim.fired > 0);
    CHECK_HAS("limit of open files", err.msg);
    shim_heal();
    (void)box_put(box, "a");
    CHECK_OK(wb_outbox_list(box, &all, row_count, &n, &err), err);
    wb_outbox_close(box);
}

TEST(test_db__read_fails__io_and_not_failed)
{
    struct wb_outbox *box = shim_box();
    struct wb_filter all = {.state = -1};
    struct wb_err err = {0};
    int n = 0;

    box_fill(box, "a", 5000);
    wb_outbox_close(box);
    box = box_open();
    shim_fail(SHIM_READ, 0, SQLITE_IOERR_READ, true);
    CHECK_STATUS(IO, wb_outbox_list(box, &all, row_count, &n, &err));
    CHECK(shim.fired > 0);
    shim_heal();
    (void)box_put(box, "a");
    CHECK_OK(wb_outbox_list(box, &all, row_count, &n, &err), err);
    wb_outbox_close(box);
}

TEST(test_db__read_fails_inside_a_write__failed)
{
    struct wb_outbox *box = shim_box();
    struct wb_filter all = {.state = -1};
    struct wb_message m = keyed();
    int n = 0;

    box_fill(box, "a", 5000);
    wb_outbox_close(box);
    box = box_open();
    shim_fail(SHIM_READ, 0, SQLITE_IOERR_READ, true);
    CHECK_STATUS(IO, wb_outbox_enqueue(box, &m, NULL, NULL));
    CHECK(shim.fired > 0);
    shim_heal();
    CHECK_STATUS(IO, wb_outbox_list(box, &all, row_count, &n, NULL));
    check_failed(box);
}

TEST(test_faults__open_fails_anywhere__status_and_then_opens)
{
    for (int op = SHIM_WRITE; op <= SHIM_SYNC; op++) {
        for (long n = 0;; n++) {
            struct wb_outbox_opts opts = {.env = ENV};
            struct wb_outbox *box = NULL;
            enum wb_status rc;
            bool fired;

            shim_install();
            fake_env.env.vfs = "shim";
            shim_fail((enum shim_op)op, n, SQLITE_IOERR, false);
            rc = wb_outbox_open(&box, BOX, &opts, NULL);
            fired = shim.fired > 0;
            if (!fired)
                CHECK_INT(WB_OK, rc);
            else if (rc != WB_OK)
                CHECK_INT(WB_IO, rc);
            wb_outbox_close(box);
            shim_heal();
            box = box_open();
            (void)box_put(box, "a");
            wb_outbox_close(box);
            (void)remove(BOX);
            if (!fired)
                break;
            CHECK(n < 100);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_faults__I11_accept_fails_anywhere__unknown_and_safe_to_repeat),
        RUN(test_faults__I4_finish_fails_anywhere__repeated_or_done_never_both),
        RUN(test_faults__claim_fails__nothing_leased_slots_given_back),
        RUN(test_faults__I17_checkpoint_sync_fails__accepted_then_failed),
        RUN(test_faults__I14_disk_full__full_and_ok_after_space_is_freed),
        RUN(test_faults__I14_no_space_for_shared_memory__full_not_failed),
        RUN(test_faults__read_fails__io_and_text_says_what_to_do),
        RUN(test_db__read_cannot_open_temp_file__not_failed),
        RUN(test_db__read_fails__io_and_not_failed),
        RUN(test_db__read_fails_inside_a_write__failed),
        RUN(test_faults__open_fails_anywhere__status_and_then_opens),
    };
    return RUN_ALL(tests);
}
