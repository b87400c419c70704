/* test_admin.c - O-14, O-20: redrive, discard, and pause. */
#include <stdio.h>

#include "outbox_fixture.h"

static struct wb_id
put_abandoned(struct wb_outbox *box, const char *kind)
{
    struct wb_id id = box_put(box, kind);
    struct taken t = box_claim(box, kind);

    CHECK_TEXT(id.text, t.id.text);
    box_abandon(box, &t);
    return id;
}

/* What a selection reported per kind: "a=2 b=1". */
static char reported[256];

static enum wb_status
report_kind(void *ctx, const struct wb_kind_counts *k)
{
    size_t n = strlen(reported);

    (void)ctx;
    (void)snprintf(reported + n, sizeof(reported) - n, "%s%.*s=%d",
        n > 0 ? " " : "", (int)k->kind.len, k->kind.ptr,
        (int)k->n[WB_STATE_PENDING]);
    return WB_OK;
}

static struct wb_selected
redrive(struct wb_outbox *box, struct wb_select s)
{
    struct wb_selected did = {0};
    struct wb_err err = {0};

    reported[0] = '\0';
    CHECK_OK(wb_outbox_redrive(box, &s, &did, report_kind, NULL, &err), err);
    return did;
}

static struct wb_selected
discard(struct wb_outbox *box, struct wb_select s)
{
    struct wb_selected did = {0};
    struct wb_err err = {0};

    reported[0] = '\0';
    CHECK_OK(wb_outbox_discard(box, &s, &did, report_kind, NULL, &err), err);
    return did;
}

TEST(test_admin__O14_redrive__as_new_and_breaker_closed)
{
    struct wb_outbox *box = box_open();
    struct taken t;
    char sql[512];

    box_fill(box, "a", 3);
    for (int i = 0; i < 3; i++) {
        t = box_claim(box, NULL);
        (void)box_fail(box, &t, WB_RETRY);
    }
    fake_clock_advance_ms(60000);
    t = box_claim(box, NULL);
    box_abandon(box, &t);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_breaker"));
    CHECK_INT(1, redrive(box, (struct wb_select){0}).total);
    CHECK_TEXT("a=1", reported);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_breaker"));
    CHECK_TEXT("pending", status_of(&t.id));
    (void)snprintf(sql, sizeof(sql),
        "SELECT attempts = 0 AND last_error IS NULL AND reason IS NULL AND"
        " token IS NULL AND claimed_ms IS NULL AND"
        " due_ms = created_ms + 60000 FROM waybill_outbox WHERE id = '%s'",
        t.id.text);
    CHECK_INT(1, sql_int(sql));
    wb_outbox_close(box);
}

TEST(test_admin__O14_by_kind_limit_dry_run__counts_in_kind_order)
{
    struct wb_outbox *box = box_open();

    for (int i = 0; i < 3; i++)
        (void)put_abandoned(box, "b");
    (void)put_abandoned(box, "c");
    (void)put_abandoned(box, "a");
    (void)box_put(box, "a");
    CHECK_INT(5, redrive(box, (struct wb_select){.dry_run = true}).total);
    CHECK_TEXT("a=1 b=3 c=1", reported);
    CHECK_INT(5, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                         " status = 'abandoned'"));
    CHECK_INT(
        2, redrive(box, (struct wb_select){.kind = S("b"), .limit = 2}).total);
    CHECK_TEXT("b=2", reported);
    CHECK_INT(0, redrive(box, (struct wb_select){.kind = S("none")}).total);
    CHECK_TEXT("", reported);
    CHECK_INT(3, redrive(box, (struct wb_select){0}).total);
    CHECK_TEXT("a=1 b=1 c=1", reported);
    wb_outbox_close(box);
}

TEST(test_admin__O14_by_lane_key_error__those_alone)
{
    struct wb_outbox *box = box_open();
    struct wb_selected did;
    struct wb_err err = {0};
    struct wb_select by[] = {{.match.lane = S("l0"), .dry_run = true},
        {.match.key = S("k1"), .dry_run = true},
        {.match.key_prefix = S("k"), .dry_run = true},
        {.match.key_prefix = S("k0"), .dry_run = true},
        {.match.key_prefix = S("1"), .dry_run = true},
        {.match.error = S("Internal"), .dry_run = true},
        {.match.error = S("teapot"), .dry_run = true},
        {.match.created_from_ms = FAKE_START_MS + 1, .dry_run = true},
        {.match.lane = S("l1")}};
    static const uint64_t want[] = {1, 1, 2, 1, 0, 2, 0, 0, 1};

    for (int i = 0; i < 2; i++) {
        struct wb_message m = {.kind = S("a"),
            .key = i ? S("k1") : S("k0"),
            .lane = i ? S("l1") : S("l0")};
        struct taken t;

        (void)box_send(box, m);
        t = box_claim(box, "a");
        box_abandon(box, &t);
    }
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        CHECK_OK(wb_outbox_redrive(box, &by[i], &did, NULL, NULL, &err), err);
        CHECK_INT(want[i], did.total);
    }
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                         " status = 'pending' AND key = 'k1'"));
    wb_outbox_close(box);
}

TEST(test_admin__O14_dry_run__writes_nothing)
{
    struct wb_outbox *box = box_open();

    (void)put_abandoned(box, "a");
    (void)redrive(box, (struct wb_select){.dry_run = true});
    (void)discard(box, (struct wb_select){.dry_run = true});
    CHECK_TEXT("abandoned|1|rejected",
        sql_text("SELECT status || '|' || attempts || '|' || reason FROM"
                 " waybill_outbox"));
    wb_outbox_close(box);
}

/* Age counts from the last claim, else from creation. */
TEST(test_admin__O14_older_than__since_last_claim)
{
    struct wb_outbox *box = box_open();

    (void)put_abandoned(box, "claimed");
    (void)box_send(box, (struct wb_message){.kind = S("never"),
                            .expires_ms = FAKE_START_MS + 1});
    fake_clock_advance_ms(1000);
    (void)box_claim_none(box, NULL); /* ends what expired */
    CHECK_INT(
        0, redrive(box, (struct wb_select){.older_ms = 1001, .dry_run = true})
               .total);
    CHECK_INT(
        2, redrive(box, (struct wb_select){.older_ms = 1000, .dry_run = true})
               .total);
    CHECK_INT(0, redrive(box, (struct wb_select){.older_ms = INT64_MAX}).total);
    CHECK_INT(2,
        redrive(box, (struct wb_select){.older_ms = INT64_MIN, .dry_run = true})
            .total);
    wb_outbox_close(box);
}

TEST(test_admin__O14_expired_one_redriven__may_go_again)
{
    struct wb_outbox *box = box_open();

    (void)box_send(box,
        (struct wb_message){.kind = S("a"), .expires_ms = FAKE_START_MS + 1});
    fake_clock_advance_ms(1);
    (void)box_claim_none(box, NULL);
    CHECK_INT(1, redrive(box, (struct wb_select){0}).total);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

TEST(test_admin__O14_ids__processing_skipped_unknown_missing)
{
    struct wb_outbox *box = box_open();
    struct wb_id id[5];
    struct taken t;

    id[0] = put_abandoned(box, "a");
    id[1] = box_put(box, "b");
    t = box_claim(box, "b");
    id[2] = (struct wb_id){"0190a000-0000-7000-8000-00000000000a"};
    id[3] = box_put(box, "c"); /* waiting for its retry */
    t = box_claim(box, "c");
    (void)box_fail(box, &t, WB_RETRY);
    id[4] = box_put(box, "d");
    t = box_claim(box, "d");
    box_confirm(box, &t);
    for (int dry = 1; dry >= 0; dry--) {
        struct wb_selected did = redrive(box,
            (struct wb_select){.ids = id, .n_ids = 5, .dry_run = dry == 1});

        CHECK_INT(2, did.total);
        CHECK_INT(1, did.skipped);
        CHECK_INT(2, did.missing);
        CHECK_TEXT("a=1 c=1", reported);
        CHECK_TEXT(dry ? "abandoned" : "pending", status_of(&id[0]));
    }
    CHECK_TEXT("processing", status_of(&id[1]));
    CHECK_TEXT("c", box_claim(box, "c").kind); /* at once */
    wb_outbox_close(box);
}

TEST(test_admin__O14_many_pages__all_in_one_transaction)
{
    struct wb_outbox *box = box_open();

    box_fill(box, "a", 1000);
    sql_run("UPDATE waybill_outbox SET status = 'abandoned', due_ms = 7 +"
            " seq % 3, claimed_ms = 1");
    CHECK_INT(300, redrive(box, (struct wb_select){.limit = 300}).total);
    CHECK_INT(700, redrive(box, (struct wb_select){0}).total);
    CHECK_INT(1000, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                            " status = 'pending'"));
    wb_outbox_close(box);
}

TEST(test_admin__discard__gone_for_good)
{
    struct wb_outbox *box = box_open();
    struct wb_id id[2];
    struct taken t;

    (void)put_abandoned(box, "a");
    (void)put_abandoned(box, "b");
    id[0] = box_put(box, "c");
    id[1] = box_put(box, "d");
    t = box_claim(box, "d");
    CHECK_INT(2, discard(box, (struct wb_select){.dry_run = true}).total);
    CHECK_INT(1, discard(box, (struct wb_select){.kind = S("a")}).total);
    CHECK_INT(1, discard(box, (struct wb_select){0}).total);
    CHECK_TEXT("b=1", reported);
    CHECK_INT(1, discard(box, (struct wb_select){.ids = id, .n_ids = 2}).total);
    CHECK_TEXT("NULL", status_of(&id[0]));
    CHECK_TEXT("processing", status_of(&id[1]));
    box_confirm(box, &t);
    wb_outbox_close(box);
}

/* An empty list of ids selects nothing, and not everything. */
TEST(test_admin__no_ids_in_the_list__nothing_selected)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = put_abandoned(box, "a");
    struct wb_select none = {.ids = &id, .n_ids = 0};

    CHECK_INT(0, discard(box, none).total);
    CHECK_INT(0, redrive(box, none).total);
    CHECK_TEXT("abandoned", status_of(&id));
    wb_outbox_close(box);
}

/* A status of the callback ends the report and is returned; the changes
 * stay. */
static enum wb_status
refuse(void *ctx, const struct wb_kind_counts *k)
{
    (void)ctx;
    (void)k;
    return WB_FULL;
}

TEST(test_admin__teller_refuses__its_status_and_the_act_stands)
{
    struct wb_outbox *box = box_open();
    struct wb_select all = {0};
    struct wb_selected did = {0};
    struct wb_id id = put_abandoned(box, "a");

    CHECK_STATUS(FULL, wb_outbox_redrive(box, &all, &did, refuse, NULL, NULL));
    CHECK_INT(1, did.total);
    CHECK_TEXT("pending", status_of(&id));
    wb_outbox_close(box);
}

/* ---- O-20 -------------------------------------------------------------- */

TEST(test_admin__O20_paused__kept_and_not_claimed_until_resumed)
{
    struct wb_outbox *box = box_open(), *other = box_open();
    struct wb_err err = {0};
    struct wb_id id;
    int64_t next = -1;

    CHECK_OK(wb_outbox_pause(box, S("a"), true, &err), err);
    CHECK_OK(wb_outbox_pause(box, S("a"), true, &err), err);
    id = box_put(box, "a");
    (void)box_put(box, "b");
    CHECK_TEXT("b", box_claim(other, NULL).kind); /* other handles, too */
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(other, &next));
    CHECK_TEXT("pending", status_of(&id));
    CHECK_OK(wb_outbox_pause(other, S("a"), false, &err), err);
    CHECK_OK(wb_outbox_pause(other, S("a"), false, &err), err);
    CHECK_TEXT("a", box_claim(box, NULL).kind);
    CHECK_STATUS(INVALID, wb_outbox_pause(box, S("No"), true, &err));
    wb_outbox_close(box);
    wb_outbox_close(other);
}

static void
check_paused(struct wb_outbox *box, const char *kind, size_t n)
{
    struct wb_source twice[2] = {{.kind = S(kind)}, {.kind = S(kind)}};
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};

    if (kind != NULL)
        claim = (struct wb_claim){.sources = twice, .n_sources = 2};
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_INT(WB_NONE_EMPTY, batch.reason);
    CHECK_INT((int)n, batch.n_paused);
    if (n > 0)
        CHECK_SLICE("b", batch.paused[0]);
    wb_batch_free(&batch);
}

TEST(test_admin__O20_paused__reported_where_something_is_due)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};

    for (const char *k = "a\0b\0c\0"; *k != '\0'; k += 2)
        CHECK_OK(wb_outbox_pause(box, S(k), true, &err), err);
    (void)box_send(box,
        (struct wb_message){.kind = S("a"), .due_ms = FAKE_START_MS + 1000});
    (void)box_put(box, "b");
    check_paused(box, NULL, 1);
    check_paused(box, "b", 1);
    check_paused(box, "a", 0);
    check_paused(box, "c", 0);
    CHECK_OK(wb_outbox_pause(box, S("b"), false, &err), err);
    (void)box_claim(box, NULL);
    check_paused(box, NULL, 0);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_admin__O14_redrive__as_new_and_breaker_closed),
        RUN(test_admin__O14_by_kind_limit_dry_run__counts_in_kind_order),
        RUN(test_admin__O14_by_lane_key_error__those_alone),
        RUN(test_admin__O14_dry_run__writes_nothing),
        RUN(test_admin__O14_older_than__since_last_claim),
        RUN(test_admin__O14_expired_one_redriven__may_go_again),
        RUN(test_admin__O14_ids__processing_skipped_unknown_missing),
        RUN(test_admin__O14_many_pages__all_in_one_transaction),
        RUN(test_admin__discard__gone_for_good),
        RUN(test_admin__no_ids_in_the_list__nothing_selected),
        RUN(test_admin__teller_refuses__its_status_and_the_act_stands),
        RUN(test_admin__O20_paused__kept_and_not_claimed_until_resumed),
        RUN(test_admin__O20_paused__reported_where_something_is_due),
    };
    return RUN_ALL(tests);
}
