/* test_accept.c - what is the same message and what is not (O-4), a bad
 * message in a batch (O-1), kinds and headers (O-6, O-19). */
#include <stdio.h>

#include "outbox_fixture.h"

#define ID_A "0190a000-0000-7000-8000-00000000000a"
#define ID_B "0190a000-0000-7000-8000-00000000000b"

static struct wb_message
message(const char *id, const char *key)
{
    return (struct wb_message){.kind = S("mail"),
        .payload = S("{\"n\":1}"),
        .id = S(id),
        .key = S(key)};
}

/* ---- O-4 --------------------------------------------------------------- */

TEST(test_accept__O4_same_id_twice__duplicate_of_the_first)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted first = box_send(box, message(ID_A, NULL)), again;

    CHECK(!first.duplicate && first.seq > 0);
    again = box_send(box, message(ID_A, NULL));
    CHECK(again.duplicate);
    CHECK_TEXT(ID_A, again.id.text);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O4_same_id_in_capitals__duplicate)
{
    struct wb_outbox *box = box_open();

    (void)box_send(box, message(ID_A, NULL));
    CHECK(box_send(box, message("0190A000-0000-7000-8000-00000000000A", NULL))
              .duplicate);
    wb_outbox_close(box);
}

TEST(test_accept__O4_same_key_twice__duplicate_with_first_id)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted first = box_send(box, message(NULL, "k")), again;

    again = box_send(box, message(NULL, "k"));
    CHECK(again.duplicate);
    CHECK_TEXT(first.id.text, again.id.text);
    again = box_send(box, message(ID_A, "k")); /* an unused id */
    CHECK(again.duplicate);
    CHECK_TEXT(first.id.text, again.id.text);
    wb_outbox_close(box);
}

TEST(test_accept__O4_same_key_other_content__mismatch_and_unchanged)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted first = box_send(box, message(NULL, "k"));
    struct wb_message other[4];
    struct wb_err err = {0};

    for (size_t i = 0; i < 4; i++)
        other[i] = message(NULL, "k");
    other[0].kind = S("sms");
    other[1].payload = S("{\"n\":2}");
    other[2].content_type = S("text/plain");
    other[3].lane = S("l");
    for (size_t i = 0; i < 4; i++) {
        struct wb_accepted a = {0};

        CHECK_STATUS(MISMATCH, wb_outbox_enqueue(box, &other[i], &a, &err));
        CHECK_TEXT(first.id.text, a.id.text);
        CHECK_INT(first.seq, a.seq);
        CHECK_HAS(first.id.text, err.msg);
    }
    CHECK_TEXT("mail|{\"n\":1}||",
        sql_text("SELECT kind || '|' || CAST(payload AS TEXT) || '|' ||"
                 " coalesce(content_type, '') || '|' || coalesce(lane, '')"
                 " FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O4_same_key_other_times_and_headers__duplicate)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message(NULL, "k");

    (void)box_send(box, m);
    m.due_ms = FAKE_START_MS + DAY;
    m.expires_ms = FAKE_START_MS + 2 * DAY;
    m.headers = S("Trace: 1\n");
    CHECK(box_send(box, m).duplicate);
    CHECK_INT(FAKE_START_MS, sql_int("SELECT due_ms FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* The default content type is the same content, given or left out. */
TEST(test_accept__O4_default_content_type_written_out__duplicate)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message(NULL, "k");

    (void)box_send(box, m);
    m.content_type = S("application/json");
    CHECK(box_send(box, m).duplicate);
    wb_outbox_close(box);
}

/* Bytes that move from one field to the next make other content. */
TEST(test_accept__O4_bytes_move_between_fields__mismatch)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message(NULL, "k");

    m.lane = S("ab");
    m.payload = S("c");
    (void)box_send(box, m);
    m.lane = S("a");
    m.payload = S("bc");
    CHECK_STATUS(MISMATCH, box_try(box, m));
    wb_outbox_close(box);
}

TEST(test_accept__O4_after_delivery__duplicate_for_the_retention)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted first = box_send(box, message(NULL, "k"));
    struct wb_message other = message(NULL, "k");
    struct taken t = box_claim(box, NULL);

    other.payload = S("other");
    box_confirm(box, &t);
    CHECK_TEXT("delivered||32",
        sql_text("SELECT status || '|' || CAST(payload AS TEXT) || '|' ||"
                 " length(hash) FROM waybill_outbox"));
    fake_clock_advance_ms(7 * DAY - 1);
    CHECK_TEXT(first.id.text, box_send(box, message(NULL, "k")).id.text);
    CHECK_STATUS(MISMATCH, box_try(box, other));
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, NULL));
    wb_outbox_close(box);
}

TEST(test_accept__O4_retention_over__a_new_message)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted first = box_send(box, message(ID_A, "k")), again;
    struct taken t = box_claim(box, NULL);

    box_confirm(box, &t);
    fake_clock_advance_ms(7 * DAY);
    again = box_send(box, message(ID_B, "k"));
    CHECK(!again.duplicate);
    CHECK_TEXT(ID_B, again.id.text);
    (void)first;
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O4_id_and_key_of_two_expired_tombstones__a_new_message)
{
    struct wb_outbox *box = box_open();

    (void)box_send(box, message(ID_A, NULL));
    (void)box_send(box, message(ID_B, "k"));
    for (int i = 0; i < 2; i++) {
        struct taken t = box_claim(box, NULL);

        box_confirm(box, &t);
    }
    CHECK_STATUS(MISMATCH, box_try(box, message(ID_A, "k")));
    fake_clock_advance_ms(7 * DAY);
    CHECK(!box_send(box, message(ID_A, "k")).duplicate);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O4_id_and_key_of_two_messages__mismatch)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted a = {0};
    struct wb_message both = message(ID_A, "k");

    (void)box_send(box, message(ID_A, NULL));
    (void)box_send(box, message(ID_B, "k"));
    CHECK_STATUS(MISMATCH, wb_outbox_enqueue(box, &both, &a, NULL));
    CHECK_TEXT(ID_B, a.id.text);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O4_abandoned__still_one_message)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_send(box, message(NULL, "k"));
    t = box_claim(box, NULL);
    box_abandon(box, &t);
    CHECK(box_send(box, message(NULL, "k")).duplicate);
    wb_outbox_close(box);
}

/* Rows inserted by other languages have no hash: their content is hashed when
 * it is compared or confirmed. Their payload may be text. */
TEST(test_accept__O4_row_inserted_by_sql__compared_like_any)
{
    struct wb_outbox *box = box_open();
    struct wb_message other = message(NULL, "k");
    struct taken t;

    other.payload = S("{}");
    sql_run("INSERT INTO waybill_outbox(id, kind, key, payload, due_ms)"
            " VALUES('" ID_A "', 'mail', 'k', '{\"n\":1}', 0)");
    CHECK_TEXT(ID_A, box_send(box, message(NULL, "k")).id.text);
    CHECK_STATUS(MISMATCH, box_try(box, other));
    t = box_claim(box, NULL);
    CHECK_TEXT("{\"n\":1}", t.payload);
    box_confirm(box, &t);
    CHECK(box_send(box, message(NULL, "k")).duplicate);
    CHECK_STATUS(MISMATCH, box_try(box, other));
    wb_outbox_close(box);
}

TEST(test_accept__O4_neither_id_nor_key__never_a_duplicate)
{
    struct wb_outbox *box = box_open();

    CHECK(!box_send(box, message(NULL, NULL)).duplicate);
    CHECK(!box_send(box, message(NULL, NULL)).duplicate);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O4_twice_in_one_batch__second_is_duplicate)
{
    struct wb_outbox *box = box_open();
    struct wb_message m[2] = {message(NULL, "k"), message(NULL, "k")};
    struct wb_accepted a[2];
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_enqueue_many(box, m, 2, a, &err), err);
    CHECK(!a[0].duplicate && a[1].duplicate);
    CHECK_TEXT(a[0].id.text, a[1].id.text);
    wb_outbox_close(box);
}

/* ---- O-1: batches ------------------------------------------------------ */

TEST(test_accept__O1_one_bad_message_in_a_batch__others_accepted)
{
    struct wb_outbox *box = box_open();
    struct wb_message m[4] = {message(NULL, NULL), message("no uuid", NULL),
        message(NULL, "k"), message(NULL, "k")};
    struct wb_accepted a[4];
    struct wb_err err = {0};

    m[3].payload = S("other");
    CHECK_OK(wb_outbox_enqueue_many(box, m, 4, a, &err), err);
    CHECK_STATUS(OK, a[0].status);
    CHECK_STATUS(INVALID, a[1].status);
    CHECK_STATUS(OK, a[2].status);
    CHECK_STATUS(MISMATCH, a[3].status);
    CHECK_INT(0, a[1].seq);
    CHECK_INT(WB_MISMATCH, err.status);
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    CHECK_OK(wb_outbox_enqueue_many(box, m, 0, a, &err), err);
    wb_outbox_close(box);
}

TEST(test_accept__O1_new_message__due_and_created_now_with_v7_id)
{
    struct wb_outbox *box = box_open();
    struct wb_accepted a = box_send(box, message(NULL, NULL));

    CHECK_INT('7', a.id.text[14]);
    CHECK_TEXT("pending|1767225600000|1767225600000|0",
        sql_text("SELECT status || '|' || due_ms || '|' || created_ms || '|'"
                 " || attempts FROM waybill_outbox"));
    wb_outbox_close(box);
}

static struct {
    void (*random)(void *ctx, void *out, size_t len);
    size_t calls, bytes;
} counted;

static void
count_random(void *ctx, void *out, size_t len)
{
    counted.calls++;
    counted.bytes += len;
    counted.random(ctx, out, len);
}

/* Random bytes are fetched in blocks, and what is left of a block is not used
 * after the millisecond: a copy of the process or the machine has it, too. */
TEST(test_accept__O1_many_in_a_millisecond__random_bytes_by_the_block)
{
    struct wb_outbox *box = box_open();

    counted.random = fake_env.env.random;
    counted.calls = counted.bytes = 0;
    fake_env.env.random = count_random;
    for (int i = 0; i < 65; i++)
        (void)box_put(box, "a");
    CHECK_INT(2, counted.calls);
    CHECK_INT(10 + 640, counted.bytes);
    (void)box_put(box, "a");
    CHECK_INT(3, counted.calls);
    fake_clock_advance_ms(1);
    (void)box_put(box, "a");
    CHECK_INT(4, counted.calls);
    CHECK_INT(10 + 640 + 640 + 10, counted.bytes);
    CHECK_INT(67, sql_int("SELECT count(DISTINCT id) FROM waybill_outbox"));
    wb_outbox_close(box);
}

/* Other programs use the file: a trigger on our table is not our bug. */
TEST(test_accept__O1_trigger_of_others_ignores_it__corrupt_not_a_crash)
{
    struct wb_outbox *box = box_open();

    sql_run("CREATE TRIGGER t BEFORE INSERT ON waybill_outbox BEGIN"
            " SELECT RAISE(IGNORE); END");
    CHECK_STATUS(CORRUPT, box_try(box, message(NULL, NULL)));
    CHECK_STATUS(CORRUPT, box_try(box, message(NULL, "k")));
    sql_run("DROP TRIGGER t");
    (void)box_send(box, message(NULL, NULL));
    wb_outbox_close(box);
}

TEST(test_accept__O1_due_later__not_claimed_before)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message(NULL, NULL);
    int64_t next = 0;

    m.due_ms = FAKE_START_MS + 5000;
    (void)box_send(box, m);
    CHECK_INT(WB_NONE_EMPTY, box_claim_none(box, &next));
    CHECK_INT(FAKE_START_MS + 5000, next);
    fake_clock_advance_ms(5000);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

/* ---- O-6, O-19 --------------------------------------------------------- */

TEST(test_accept__O6_kind_without_a_route__kept_and_counted)
{
    struct wb_outbox *box = box_open();
    struct wb_source other = {.kind = S("routed")};
    struct wb_claim claim = {.sources = &other, .n_sources = 1};
    struct wb_batch batch = {0};
    struct wb_id id = box_put(box, "unrouted");

    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    wb_batch_free(&batch);
    CHECK_TEXT("pending", status_of(&id));
    CHECK_INT(0, sql_int("SELECT attempts FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_accept__O19_headers__given_back_by_claim)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message(NULL, NULL);
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    m.headers = S("Traceparent: 00-1\nTenant: \xc3\xa4\n");
    m.content_type = S("text/plain");
    (void)box_send(box, m);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_SLICE("Traceparent: 00-1\nTenant: \xc3\xa4\n", batch.row[0].headers);
    CHECK_SLICE("text/plain", batch.row[0].content_type);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_accept__O19_headers_that_inject__invalid)
{
    static const char *const bad[] = {"A: b", "A b: c\n", ": c\n", "A:b\n",
        "A: b\r\n", "A: b\n\n", "A: b\nX\n", "A:  b\n", "A: b \n", "A: \x7f\n"};
    struct wb_outbox *box = box_open();

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wb_message m = message(NULL, NULL);

        m.headers = S(bad[i]);
        CHECK_STATUS(INVALID, box_try(box, m));
    }
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_accept__O4_same_id_twice__duplicate_of_the_first),
        RUN(test_accept__O4_same_id_in_capitals__duplicate),
        RUN(test_accept__O4_same_key_twice__duplicate_with_first_id),
        RUN(test_accept__O4_same_key_other_content__mismatch_and_unchanged),
        RUN(test_accept__O4_same_key_other_times_and_headers__duplicate),
        RUN(test_accept__O4_default_content_type_written_out__duplicate),
        RUN(test_accept__O4_bytes_move_between_fields__mismatch),
        RUN(test_accept__O4_after_delivery__duplicate_for_the_retention),
        RUN(test_accept__O4_retention_over__a_new_message),
        RUN(test_accept__O4_id_and_key_of_two_expired_tombstones__a_new_message),
        RUN(test_accept__O4_id_and_key_of_two_messages__mismatch),
        RUN(test_accept__O4_abandoned__still_one_message),
        RUN(test_accept__O4_row_inserted_by_sql__compared_like_any),
        RUN(test_accept__O4_neither_id_nor_key__never_a_duplicate),
        RUN(test_accept__O4_twice_in_one_batch__second_is_duplicate),
        RUN(test_accept__O1_one_bad_message_in_a_batch__others_accepted),
        RUN(test_accept__O1_new_message__due_and_created_now_with_v7_id),
        RUN(test_accept__O1_many_in_a_millisecond__random_bytes_by_the_block),
        RUN(test_accept__O1_trigger_of_others_ignores_it__corrupt_not_a_crash),
        RUN(test_accept__O1_due_later__not_claimed_before),
        RUN(test_accept__O6_kind_without_a_route__kept_and_counted),
        RUN(test_accept__O19_headers__given_back_by_claim),
        RUN(test_accept__O19_headers_that_inject__invalid),
    };
    return RUN_ALL(tests);
}
