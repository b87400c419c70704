/* test_durable.c - O-1: what is synced before a call returns, counted in a VFS:
 * accept, finish and administration sync the log, once; a claim does not. */
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
    (void)box_put(box, "warm"); /* the header of a new log costs one more */
    shim.wal_syncs = 0;
    return box;
}

static long
syncs(void)
{
    return atomic_exchange(&shim.wal_syncs, 0);
}

TEST(test_durable__O1_enqueue__syncs_the_log_once)
{
    struct wb_outbox *box = shim_box();

    for (int i = 0; i < 5; i++) {
        (void)box_put(box, "a");
        CHECK_INT(1, syncs());
    }
    box_fill(box, "a", 100);
    CHECK_INT(1, syncs());
    wb_outbox_close(box);
}

TEST(test_durable__O1_claim_extend_and_empty_claim__sync_nothing)
{
    struct wb_outbox *box = shim_box();
    struct wb_finish f = {0};
    struct wb_err err = {0};
    struct taken t = box_claim(box, NULL);

    CHECK_INT(0, syncs());
    f.id = t.id;
    f.token = t.token;
    CHECK_OK(wb_outbox_extend(box, &f, 1, 1000, &err), err);
    CHECK_INT(0, syncs());
    (void)box_claim_none(box, NULL);
    CHECK_INT(0, syncs());
    wb_outbox_close(box);
}

/* NORMAL is left behind: a claim before does not make an accept cheap. */
TEST(test_durable__O1_accept_after_a_claim__syncs)
{
    struct wb_outbox *box = shim_box();

    for (int i = 0; i < 3; i++) {
        (void)box_claim(box, NULL);
        CHECK_INT(0, syncs());
        (void)box_put(box, "a");
        CHECK_INT(1, syncs());
    }
    wb_outbox_close(box);
}

TEST(test_durable__O1_accept_after_claim_and_health__syncs)
{
    struct wb_outbox *box = shim_box();
    struct wb_health h;
    struct wb_err err = {0};

    (void)box_claim(box, NULL);
    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK(h.full_sync);
    (void)syncs();
    (void)box_put(box, "a");
    CHECK_INT(1, syncs());
    wb_outbox_close(box);
}

TEST(test_durable__O1_confirm_fail_release__sync_once_each)
{
    struct wb_outbox *box = shim_box();
    struct taken t;

    t = box_claim(box, NULL);
    box_release(box, &t);
    CHECK_INT(1, syncs());
    t = box_claim(box, NULL);
    (void)box_fail(box, &t, WB_RETRY);
    CHECK_INT(1, syncs());
    fake_clock_advance_ms(DAY);
    t = box_claim(box, NULL);
    box_confirm(box, &t);
    CHECK_INT(1, syncs());
    wb_outbox_close(box);
}

TEST(test_durable__O1_finish_and_next_claim__one_sync_for_both)
{
    struct wb_outbox *box = shim_box();
    struct wb_claim claim = {.max = 64};
    struct wb_batch batch = {0};
    struct wb_finish f[64];
    struct wb_err err = {0};

    box_fill(box, "a", 200);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    (void)syncs();
    for (int i = 0; i < 64; i++)
        f[i] = (struct wb_finish){.id = batch.row[i].id,
            .token = batch.row[i].token,
            .seq = batch.row[i].seq,
            .end = WB_CONFIRM};
    CHECK_OK(wb_outbox_finish(box, f, 64, &claim, &batch, &err), err);
    CHECK_INT(1, syncs());
    CHECK_INT(64, batch.len);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_durable__O1_administration__syncs_once_each)
{
    struct wb_outbox *box = shim_box();
    struct wb_select all = {0};
    struct wb_selected did;
    struct wb_err err = {0};
    struct taken t = box_claim(box, NULL);
    uint64_t n;

    CHECK_OK(wb_outbox_reset_stale(box, 0, &n, &err), err);
    CHECK_INT(1, n);
    CHECK_INT(1, syncs());
    t = box_claim(box, NULL);
    box_abandon(box, &t);
    (void)syncs();
    CHECK_OK(wb_outbox_redrive(box, &all, &did, NULL, NULL, &err), err);
    CHECK_INT(1, did.total);
    CHECK_INT(1, syncs());
    CHECK_OK(wb_outbox_pause(box, S("warm"), true, &err), err);
    CHECK_INT(1, syncs());
    all.ids = &t.id;
    all.n_ids = 1;
    CHECK_OK(wb_outbox_discard(box, &all, &did, NULL, NULL, &err), err);
    CHECK_INT(1, did.total);
    CHECK_INT(1, syncs());
    wb_outbox_close(box);
}

/* The log does not grow without end, and is moved with a sync of each file. */
TEST(test_durable__I14_long_log__checkpointed_and_used_again)
{
    struct wb_outbox *box = shim_box();
    int64_t size, longest = 0;

    shim.main_syncs = 0;
    for (int i = 0; i < 300; i++) {
        size_t len = 0;

        box_fill(box, "a", 200);
        free(test_read(BOX "-wal", &len));
        longest = (int64_t)len > longest ? (int64_t)len : longest;
    }
    size = sql_int("SELECT page_count * page_size FROM pragma_page_count,"
                   " pragma_page_size");
    CHECK(shim.main_syncs >= 2);
    CHECK(size > longest);
    CHECK(longest < 2 * 1000 * 4120);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_durable__O1_enqueue__syncs_the_log_once),
        RUN(test_durable__O1_claim_extend_and_empty_claim__sync_nothing),
        RUN(test_durable__O1_accept_after_a_claim__syncs),
        RUN(test_durable__O1_accept_after_claim_and_health__syncs),
        RUN(test_durable__O1_confirm_fail_release__sync_once_each),
        RUN(test_durable__O1_finish_and_next_claim__one_sync_for_both),
        RUN(test_durable__O1_administration__syncs_once_each),
        RUN(test_durable__I14_long_log__checkpointed_and_used_again),
    };
    return RUN_ALL(tests);
}
