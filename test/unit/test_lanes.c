/* test_lanes.c - O-16, I6: one message of a lane at a time, in order of seq;
 * when the head ends, in whatever way, the next one becomes pending. */
#include <stdio.h>

#include "outbox_fixture.h"

static const char *
states(void)
{
    return sql_text("SELECT group_concat(status, ' ') FROM (SELECT status FROM"
                    " waybill_outbox ORDER BY seq) AS s");
}

static struct wb_outbox *
box_with_lane(struct wb_id *id, int n)
{
    struct wb_outbox *box = box_open();

    for (int i = 0; i < n; i++)
        id[i] = box_put_lane(box, "a", "l");
    return box;
}

static void
check_next(struct wb_outbox *box, const struct wb_id *id, struct taken *t)
{
    *t = box_claim(box, NULL);
    CHECK_TEXT(id->text, t->id.text);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
}

TEST(test_lanes__O16_three_of_a_lane__one_in_flight_in_order)
{
    struct wb_id id[3];
    struct wb_outbox *box = box_with_lane(id, 3);
    struct taken t;

    CHECK_TEXT("pending held held", states());
    for (int i = 0; i < 3; i++) {
        check_next(box, &id[i], &t);
        box_confirm(box, &t);
    }
    CHECK_TEXT("delivered delivered delivered", states());
    wb_outbox_close(box);
}

TEST(test_lanes__O16_other_lanes_and_none__are_not_held)
{
    struct wb_outbox *box = box_open();
    struct wb_claim claim = {.max = 10};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    (void)box_put_lane(box, "a", "l");
    (void)box_put_lane(box, "a", "m");
    (void)box_put_lane(box, "a", NULL);
    (void)box_put_lane(box, "b", "l"); /* one lane for several kinds */
    (void)box_put_lane(box, "b", "m");
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(3, batch.len);
    CHECK_SLICE("l", batch.row[0].lane);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

/* A retry keeps the head where it is; only its lane waits. */
TEST(test_lanes__I6_head_is_retried__followers_wait)
{
    struct wb_id id[2];
    struct wb_outbox *box = box_with_lane(id, 2);
    struct taken t;

    check_next(box, &id[0], &t);
    (void)box_fail(box, &t, WB_RETRY);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
    fake_clock_advance_ms(10000);
    check_next(box, &id[0], &t);
    box_release(box, &t);
    check_next(box, &id[0], &t);
    fake_clock_advance_ms(60000); /* the lease runs out */
    check_next(box, &id[0], &t);
    box_confirm(box, &t);
    check_next(box, &id[1], &t);
    wb_outbox_close(box);
}

TEST(test_lanes__O16_head_abandoned__next_goes)
{
    struct wb_id id[2];
    struct wb_outbox *box = box_with_lane(id, 2);
    struct taken t;

    check_next(box, &id[0], &t);
    box_abandon(box, &t);
    CHECK_TEXT("abandoned pending", states());
    check_next(box, &id[1], &t);
    wb_outbox_close(box);
}

TEST(test_lanes__O16_heads_expired__followers_go_in_the_same_claim)
{
    struct wb_outbox *box = box_open();
    struct wb_id last;
    struct taken t;

    for (int i = 0; i < 3; i++)
        (void)box_send(box, (struct wb_message){.kind = S("a"),
                                .lane = S("l"),
                                .expires_ms = FAKE_START_MS + 1});
    last = box_put_lane(box, "a", "l");
    fake_clock_advance_ms(1);
    check_next(box, &last, &t);
    CHECK_TEXT("abandoned abandoned abandoned processing", states());
    wb_outbox_close(box);
}

/* The next message of the lane is of a kind that had nothing due when the claim
 * began: the claim at least reports that another claim may find something. */
TEST(test_lanes__O16_next_is_of_another_kind__reported_or_leased)
{
    struct wb_outbox *box = box_open();
    int64_t next = 0;
    struct wb_id last;

    (void)box_send(box,
        (struct wb_message){
            .kind = S("a"), .lane = S("l"), .expires_ms = FAKE_START_MS + 1});
    last = box_put_lane(box, "b", "l");
    fake_clock_advance_ms(1);
    (void)box_claim_none(box, &next);
    CHECK(next > 0 && next <= fake_env.wall_ms);
    CHECK_TEXT(last.text, box_claim(box, NULL).id.text);
    wb_outbox_close(box);
}

TEST(test_lanes__O16_head_lease_ran_out_too_often__next_goes)
{
    struct wb_id id[2];
    struct wb_outbox *box = box_with_lane(id, 2);
    struct taken t;

    for (int i = 0; i < 8; i++) {
        check_next(box, &id[0], &t);
        fake_clock_advance_ms(60000);
    }
    check_next(box, &id[1], &t);
    wb_outbox_close(box);
}

static void
discard(struct wb_outbox *box, const struct wb_id *id)
{
    struct wb_select one = {.ids = id, .n_ids = 1};
    struct wb_selected did;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_discard(box, &one, &did, NULL, NULL, &err), err);
    CHECK_INT(1, did.total);
}

static void
redrive(struct wb_outbox *box, const struct wb_id *id)
{
    struct wb_select one = {.ids = id, .n_ids = 1};
    struct wb_selected did;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_redrive(box, &one, &did, NULL, NULL, &err), err);
    CHECK_INT(1, did.total);
}

TEST(test_lanes__O16_head_or_follower_discarded__order_kept)
{
    struct wb_id id[4];
    struct wb_outbox *box = box_with_lane(id, 4);
    struct taken t;

    discard(box, &id[1]); /* held */
    CHECK_TEXT("pending held held", states());
    discard(box, &id[0]); /* the head */
    CHECK_TEXT("pending held", states());
    check_next(box, &id[2], &t);
    discard(box, &id[3]);
    box_confirm(box, &t);
    wb_outbox_close(box);
}

TEST(test_lanes__O16_redriven__rejoins_at_the_tail)
{
    struct wb_id id[3];
    struct wb_outbox *box = box_with_lane(id, 3);
    struct taken t;

    check_next(box, &id[0], &t);
    box_abandon(box, &t);
    (void)box_put(box, "other");
    redrive(box, &id[0]);
    CHECK_TEXT("pending held pending held", states());
    t = box_claim(box, "a");
    CHECK_TEXT(id[1].text, t.id.text);
    box_confirm(box, &t);
    t = box_claim(box, "a");
    CHECK_TEXT(id[2].text, t.id.text);
    box_confirm(box, &t);
    t = box_claim(box, "a");
    CHECK_TEXT(id[0].text, t.id.text);
    CHECK_INT(1, t.attempts);
    box_confirm(box, &t);
    wb_outbox_close(box);
}

/* Both of a lane in one call: the first rejoins, the second behind it. */
TEST(test_lanes__O16_all_redriven_together__one_goes)
{
    struct wb_id id[3];
    struct wb_outbox *box = box_with_lane(id, 3);
    struct wb_select all = {0};
    struct wb_selected did;
    struct wb_err err = {0};
    struct taken t;

    for (int i = 0; i < 3; i++) {
        t = box_claim(box, NULL);
        box_abandon(box, &t);
        fake_clock_advance_ms(1);
    }
    CHECK_TEXT("abandoned abandoned abandoned", states());
    CHECK_OK(wb_outbox_redrive(box, &all, &did, NULL, NULL, &err), err);
    CHECK_INT(3, did.total);
    CHECK_TEXT("pending held held", states());
    for (int i = 0; i < 3; i++) {
        check_next(box, &id[i], &t);
        box_confirm(box, &t);
    }
    wb_outbox_close(box);
}

/* A redriven message that is held still waits for its lane. */
TEST(test_lanes__O16_held_redriven__still_held)
{
    struct wb_id id[2];
    struct wb_outbox *box = box_with_lane(id, 2);

    redrive(box, &id[1]);
    redrive(box, &id[0]);
    CHECK_TEXT("pending held", states());
    wb_outbox_close(box);
}

TEST(test_lanes__O16_inserted_by_sql__held_by_the_trigger)
{
    struct wb_id id[1];
    struct wb_outbox *box = box_with_lane(id, 1);
    struct taken t;

    for (int i = 0; i < 3; i++)
        sql_run("INSERT INTO waybill_outbox(id, kind, lane, payload, due_ms)"
                " VALUES('0190a000-0000-7000-8000-00000000000' || (SELECT"
                " count(*) FROM waybill_outbox), 'a', 'l', '{}', 1)");
    sql_run("INSERT INTO waybill_outbox(id, kind, lane, payload, due_ms)"
            " VALUES('0190a000-0000-7000-8000-000000000009', 'a', 'm', '{}',"
            " 1)");
    CHECK_TEXT("pending held held held pending", states());
    t = box_claim(box, NULL);
    CHECK_TEXT("m", t.lane);
    check_next(box, &id[0], &t);
    box_confirm(box, &t);
    t = box_claim(box, NULL);
    CHECK_TEXT("0190a000-0000-7000-8000-000000000001", t.id.text);
    wb_outbox_close(box);
}

/* A lane that has tombstones only is as free as an empty one. */
TEST(test_lanes__O16_only_ended_ones_left__new_one_goes)
{
    struct wb_id id[2];
    struct wb_outbox *box = box_with_lane(id, 2);
    struct taken t;

    check_next(box, &id[0], &t);
    box_confirm(box, &t);
    check_next(box, &id[1], &t);
    box_abandon(box, &t);
    id[0] = box_put_lane(box, "a", "l");
    check_next(box, &id[0], &t);
    wb_outbox_close(box);
}

static unsigned
some_random(void)
{
    unsigned r;

    ENV->random(ENV->ctx, &r, sizeof(r));
    return r;
}

/* Lanes against a model: a random walk over every call that changes a state. */
TEST(test_lanes__I6_random_walk__always_oldest_first_one_in_flight)
{
    struct wb_outbox *box = box_open();
    struct wb_retry_policy many = WB_RETRY_POLICY_IMMEDIATE;
    char last[3][64] = {"", "", ""};

    many.max_attempts = UINT32_MAX;
    for (int step = 0; step < 600; step++) {
        static const char *const lanes[] = {"x", "y", "z"};
        unsigned r = some_random();
        struct wb_claim claim = {.max = 1 + r % 4};
        struct wb_batch batch = {0};

        (void)box_put_lane(box, "a", lanes[r / 8 % 3]);
        if (wb_outbox_claim(box, &claim, &batch, NULL) == WB_OK) {
            for (size_t i = 0; i < batch.len; i++) {
                struct wb_finish f = {.id = batch.row[i].id,
                    .token = batch.row[i].token,
                    .end = (enum wb_end)(r / 64 % 3),
                    .outcome = WB_REJECTED,
                    .retry = &many};
                int lane = batch.row[i].lane.ptr[0] - 'x';

                for (size_t k = 0; k < i; k++)
                    CHECK(batch.row[k].lane.ptr[0] != 'x' + lane);
                CHECK(strcmp(last[lane], "") == 0 ||
                      strcmp(last[lane], f.id.text) == 0);
                CHECK_STATUS(
                    OK, wb_outbox_finish(box, &f, 1, NULL, NULL, NULL));
                CHECK_STATUS(OK, f.status);
                (void)snprintf(last[lane], sizeof(last[lane]), "%s",
                    f.end == WB_RELEASE ? f.id.text : "");
            }
        }
        wb_batch_free(&batch);
    }
    /* of the live messages of a lane all but the oldest are held */
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox o WHERE status IN"
                         " ('pending', 'held') AND (status = 'held') ="
                         " (seq = (SELECT min(seq) FROM waybill_outbox i WHERE"
                         " i.lane = o.lane AND i.status IN ('pending', 'held',"
                         " 'processing')))"));
    wb_outbox_close(box);
}

static enum wb_status
add_heads(void *ctx, const struct wb_lane_heads *h)
{
    char *text = ctx;
    size_t n = strlen(text);

    (void)snprintf(text + n, 100 - n, "%.*s %d %d %d %d;", (int)h->kind.len,
        h->kind.ptr, (int)h->lanes, (int)h->held, (int)h->retrying_lanes,
        (int)h->retrying_held);
    return WB_OK;
}

/* A paused kind, or one without a route, may be what a lane waits for. */
TEST(test_lanes__O16_blocked__kind_of_the_head_reported)
{
    struct wb_outbox *box = box_open();
    char text[100] = "";

    (void)box_put_lane(box, "a", "1");
    (void)box_put_lane(box, "b", "1");
    (void)box_put_lane(box, "b", "1");
    (void)box_put_lane(box, "a", "2");
    (void)box_put_lane(box, "a", "2");
    (void)box_put_lane(box, "b", "3"); /* nothing waits behind it */
    (void)box_put_lane(box, "c", "4");
    (void)box_put_lane(box, "a", "4");
    CHECK_STATUS(OK, wb_outbox_pause(box, S("a"), true, NULL));
    CHECK_STATUS(OK, wb_outbox_lanes(box, add_heads, text, NULL));
    CHECK_TEXT("a 2 3 0 0;c 1 1 0 0;", text);
    wb_outbox_close(box);
}

TEST(test_lanes__I6_head_to_be_retried__reported_with_what_waits_behind_it)
{
    struct wb_id id[3];
    struct wb_outbox *box = box_with_lane(id, 3);
    char text[100] = "", sent[100] = "";
    struct taken t;

    check_next(box, &id[0], &t);
    CHECK_STATUS(OK, wb_outbox_lanes(box, add_heads, sent, NULL));
    CHECK_TEXT("a 1 2 0 0;", sent);
    (void)box_fail(box, &t, WB_RETRY);
    CHECK_STATUS(OK, wb_outbox_lanes(box, add_heads, text, NULL));
    CHECK_TEXT("a 1 2 1 2;", text);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_lanes__O16_three_of_a_lane__one_in_flight_in_order),
        RUN(test_lanes__O16_other_lanes_and_none__are_not_held),
        RUN(test_lanes__I6_head_is_retried__followers_wait),
        RUN(test_lanes__O16_head_abandoned__next_goes),
        RUN(test_lanes__O16_heads_expired__followers_go_in_the_same_claim),
        RUN(test_lanes__O16_next_is_of_another_kind__reported_or_leased),
        RUN(test_lanes__O16_head_lease_ran_out_too_often__next_goes),
        RUN(test_lanes__O16_head_or_follower_discarded__order_kept),
        RUN(test_lanes__O16_redriven__rejoins_at_the_tail),
        RUN(test_lanes__O16_all_redriven_together__one_goes),
        RUN(test_lanes__O16_held_redriven__still_held),
        RUN(test_lanes__O16_inserted_by_sql__held_by_the_trigger),
        RUN(test_lanes__O16_only_ended_ones_left__new_one_goes),
        RUN(test_lanes__O16_blocked__kind_of_the_head_reported),
        RUN(test_lanes__I6_head_to_be_retried__reported_with_what_waits_behind_it),
        RUN(test_lanes__I6_random_walk__always_oldest_first_one_in_flight),
    };
    return RUN_ALL(tests);
}
