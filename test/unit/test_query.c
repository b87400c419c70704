/* test_query.c - O-15: counts, list, show, kinds, health; I1: an accepted
 * message can be seen in some state until it is confirmed. */
#include <stdio.h>

#include "outbox_fixture.h"

static char text[8192];

static enum wb_status
print_counts(void *ctx, const struct wb_kind_counts *k)
{
    size_t n = strlen(text);

    (void)ctx;
    n += (size_t)snprintf(text + n, sizeof(text) - n, "%.*s%s",
        (int)k->kind.len, k->kind.ptr, k->paused ? "!" : "");
    for (int i = 0; i < WB_STATES; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, " %d", (int)k->n[i]);
    (void)snprintf(text + n, sizeof(text) - n, " %lld;",
        (long long)(k->oldest_pending_created_ms == 0
                        ? -1
                        : k->oldest_pending_created_ms - FAKE_START_MS));
    return WB_OK;
}

static const char *
counts(struct wb_outbox *box)
{
    struct wb_err err = {0};

    text[0] = '\0';
    CHECK_OK(wb_outbox_count(box, print_counts, NULL, &err), err);
    return text;
}

static const char *
kinds(struct wb_outbox *box)
{
    struct wb_err err = {0};

    text[0] = '\0';
    CHECK_OK(wb_outbox_kinds(box, print_counts, NULL, &err), err);
    return text;
}

static enum wb_status
print_row(void *ctx, const struct wb_row *r)
{
    size_t n = strlen(text);

    (void)ctx;
    (void)snprintf(text + n, sizeof(text) - n, "%lld %s %u %.*s;",
        (long long)r->seq, wb_state_name(r->state), r->attempts,
        (int)r->kind.len, r->kind.ptr);
    return WB_OK;
}

static const char *
list(struct wb_outbox *box, struct wb_filter f)
{
    struct wb_err err = {0};

    text[0] = '\0';
    CHECK_OK(wb_outbox_list(box, &f, print_row, NULL, &err), err);
    return text;
}

/* One of each state: 1 pending a, 2 processing b, 3 abandoned b, 4 delivered c
 * (kept), 5 and 6 of a lane. */
static struct wb_outbox *
box_with_all(void)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "a");
    (void)box_put(box, "b");
    (void)box_put(box, "b");
    t = box_claim(box, "b");
    fake_clock_advance_ms(10);
    t = box_claim(box, "b");
    box_abandon(box, &t);
    (void)box_send(box, (struct wb_message){.kind = S("c"), .key = S("k")});
    t = box_claim(box, "c");
    box_confirm(box, &t);
    (void)box_put_lane(box, "c", "l");
    (void)box_put_lane(box, "a", "l");
    return box;
}

TEST(test_query__O15_counts__by_kind_and_state_with_oldest_pending)
{
    struct wb_outbox *box = box_with_all();
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_pause(box, S("b"), true, &err), err);
    CHECK_OK(wb_outbox_pause(box, S("aa"), true, &err), err);
    CHECK_TEXT("a 1 1 0 0 0 0;aa! 0 0 0 0 0 -1;b! 0 0 1 1 0 -1;"
               "c 1 0 0 0 1 10;",
        counts(box));
    CHECK_TEXT("a 0 0 0 0 0 -1;b 0 0 0 0 0 -1;c 0 0 0 0 0 -1;", kinds(box));
    wb_outbox_close(box);
}

TEST(test_query__O15_empty__nothing_is_reported)
{
    struct wb_outbox *box = box_open();

    CHECK_TEXT("", counts(box));
    CHECK_TEXT("", kinds(box));
    CHECK_TEXT("", list(box, (struct wb_filter){.state = -1}));
    wb_outbox_close(box);
}

/* Found by fuzz_row: a kind that no constraint has seen. */
TEST(test_query__O15_kinds_of_nothing__counted_and_redriven_all_the_same)
{
    struct wb_outbox *box = box_open();
    struct wb_select all = {0};
    struct wb_selected did;
    sqlite3 *db = NULL;
    struct wb_err err = {0};

    box_fill(box, "a", 2);
    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db,
              "PRAGMA ignore_check_constraints=ON; UPDATE waybill_outbox SET"
              " status = 'abandoned', kind = CASE seq WHEN 1 THEN '' ELSE"
              " 'a' || char(0) || 'b' END",
              NULL, NULL, NULL) == SQLITE_OK);
    (void)sqlite3_close(db);
    (void)counts(box);
    (void)kinds(box);
    CHECK_OK(wb_outbox_redrive(box, &all, &did, kind_ignore, NULL, &err), err);
    CHECK_INT(2, did.total);
    wb_outbox_close(box);
}

TEST(test_query__list__by_state_kind_limit_in_order)
{
    struct wb_outbox *box = box_with_all();

    CHECK_TEXT("1 pending 0 a;2 processing 1 b;3 abandoned 1 b;"
               "5 pending 0 c;6 held 0 a;",
        list(box, (struct wb_filter){.state = -1}));
    CHECK_TEXT("4 delivered 1 c;",
        list(box, (struct wb_filter){.state = WB_STATE_DELIVERED}));
    CHECK_TEXT("6 held 0 a;",
        list(box, (struct wb_filter){.state = WB_STATE_HELD, .kind = S("a")}));
    CHECK_TEXT("1 pending 0 a;2 processing 1 b;",
        list(box, (struct wb_filter){.state = -1, .limit = 2}));
    CHECK_TEXT("", list(box, (struct wb_filter){.state = 77}));
    wb_outbox_close(box);
}

TEST(test_query__list_of_several_pages__each_row_once)
{
    static const uint64_t limits[] = {0, 1, 255, 256, 257, 512, 513, 1000};
    struct wb_outbox *box = box_open();

    box_fill(box, "a", 600);
    for (size_t i = 0; i < 8; i++) {
        struct wb_filter f = {.state = -1, .limit = limits[i]};
        uint64_t want = limits[i] == 0 || limits[i] > 600 ? 600 : limits[i];
        int n = 0;

        CHECK_STATUS(OK, wb_outbox_list(box, &f, row_count, &n, NULL));
        CHECK_INT(want, n);
    }
    wb_outbox_close(box);
}

static enum wb_status
stop_at_two(void *ctx, const struct wb_row *row)
{
    (void)row;
    return ++*(int *)ctx == 2 ? WB_UNAVAILABLE : WB_OK;
}

TEST(test_query__list_by_key_lane_time_error__those_alone_page_by_page)
{
    struct wb_outbox *box = box_with_all();
    const struct wb_filter delivered = {
        .state = WB_STATE_DELIVERED, .match.key = S("k")};

    CHECK_TEXT("4 delivered 1 c;", list(box, delivered));
    CHECK_TEXT(
        "", list(box, (struct wb_filter){.state = -1, .match.key = S("K")}));
    CHECK_TEXT("4 delivered 1 c;",
        list(box, (struct wb_filter){.state = WB_STATE_DELIVERED,
                      .match.key_prefix = S("k")}));
    CHECK_TEXT("", list(box, (struct wb_filter){.state = WB_STATE_DELIVERED,
                                 .match.key_prefix = S("%")}));
    CHECK_TEXT("5 pending 0 c;6 held 0 a;",
        list(box, (struct wb_filter){.state = -1, .match.lane = S("l")}));
    CHECK_TEXT("3 abandoned 1 b;",
        list(box,
            (struct wb_filter){.state = -1, .match.error = S("Internal S")}));
    CHECK_TEXT("3 abandoned 1 b;",
        list(box,
            (struct wb_filter){.state = -1, .match.error = S("rejected")}));
    CHECK_TEXT("",
        list(box, (struct wb_filter){.state = -1, .match.error = S("100%")}));
    CHECK_TEXT("5 pending 0 c;6 held 0 a;",
        list(box, (struct wb_filter){.state = -1,
                      .match.created_from_ms = FAKE_START_MS + 10}));
    CHECK_TEXT("1 pending 0 a;2 processing 1 b;3 abandoned 1 b;",
        list(box, (struct wb_filter){.state = -1,
                      .match.created_before_ms = FAKE_START_MS + 10}));
    CHECK_TEXT("3 abandoned 1 b;5 pending 0 c;",
        list(box, (struct wb_filter){.state = -1, .limit = 2, .after_seq = 2}));
    wb_outbox_close(box);
}

TEST(test_query__show_by_key__found_while_it_is_remembered)
{
    struct wb_outbox *box = box_with_all();
    struct wb_err err = {0};
    int n = 0;

    CHECK_OK(wb_outbox_show_key(box, S("k"), row_count, &n, &err), err);
    CHECK_INT(1, n);
    CHECK_STATUS(
        NOTFOUND, wb_outbox_show_key(box, S("K"), row_count, &n, &err));
    CHECK_HAS("no longer remembered", err.msg);
    wb_outbox_close(box);
}

TEST(test_query__row_function_stops__its_status_is_returned)
{
    struct wb_outbox *box = box_with_all();
    struct wb_filter f = {.state = -1};
    int n = 0;

    CHECK_STATUS(UNAVAILABLE, wb_outbox_list(box, &f, stop_at_two, &n, NULL));
    CHECK_INT(2, n);
    (void)box_put(box, "a"); /* nothing was left open */
    wb_outbox_close(box);
}

static enum wb_status
print_all(void *ctx, const struct wb_row *r)
{
    (void)ctx;
    (void)snprintf(text, sizeof(text), "%s|%.*s|%.*s|%.*s|%.*s|%lld|%lld",
        r->id.text, (int)r->payload.len, r->payload.ptr, (int)r->key.len,
        r->key.len > 0 ? r->key.ptr : "", (int)r->reason.len,
        r->reason.len > 0 ? r->reason.ptr : "", (int)r->last_error.len,
        r->last_error.len > 0 ? r->last_error.ptr : "", (long long)r->due_ms,
        (long long)r->claimed_ms);
    return WB_OK;
}

TEST(test_query__show__by_the_unique_end_of_an_id)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    int n = 0;

    for (int i = 0; i < 2; i++)
        (void)box_send(
            box, (struct wb_message){.kind = S("a"),
                     .id = i ? S("0190a000-0000-7000-8000-3f1f2a6c9d10")
                             : S("0190a000-0000-7000-9000-3f1f2a6c9d11")});
    CHECK_OK(wb_outbox_show(box, S("2A6C9D10"), row_count, &n, &err), err);
    CHECK_OK(
        wb_outbox_show(box, S("-9000-3f1f2a6c9d11"), row_count, &n, &err), err);
    CHECK_INT(2, n);
    CHECK_STATUS(
        NOTFOUND, wb_outbox_show(box, S("3f1f2a6c"), row_count, &n, &err));
    CHECK_HAS("never accepted, or is no longer remembered", err.msg);
    CHECK_STATUS(
        INVALID, wb_outbox_show(box, S("6c9d10"), row_count, &n, &err));
    (void)box_send(box, (struct wb_message){.kind = S("a"),
                            .id = S("0190a001-0000-7000-8000-3f1f2a6c9d10")});
    CHECK_STATUS(
        INVALID, wb_outbox_show(box, S("2a6c9d10"), row_count, &n, &err));
    CHECK_HAS("more than one", err.msg);
    wb_outbox_close(box);
}

TEST(test_query__show__by_id_or_unique_prefix)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};

    (void)box_send(box, (struct wb_message){.kind = S("a"),
                            .payload = S("{\"x\":1}"),
                            .key = S("k"),
                            .id = S("0190a000-0000-7000-8000-00000000000a")});
    (void)box_send(box, (struct wb_message){.kind = S("a"),
                            .id = S("0190a000-0000-7000-9000-00000000000a")});
    CHECK_OK(
        wb_outbox_show(box, S("0190A000-0000-7000-8"), print_all, NULL, &err),
        err);
    CHECK_TEXT("0190a000-0000-7000-8000-00000000000a|{\"x\":1}|k|||"
               "1767225600000|0",
        text);
    CHECK_OK(wb_outbox_show(box, S("0190a000-0000-7000-9000-00000000000a"),
                 print_all, NULL, &err),
        err);
    CHECK_STATUS(INVALID,
        wb_outbox_show(box, S("0190a000-0000"), print_all, NULL, &err));
    CHECK_HAS("more than one", err.msg);
    CHECK_STATUS(
        INVALID, wb_outbox_show(box, S("0190a00"), print_all, NULL, NULL));
    CHECK_STATUS(
        INVALID, wb_outbox_show(box, S("0190a00*"), print_all, NULL, NULL));
    CHECK_STATUS(
        INVALID, wb_outbox_show(box, S("0190a000-0000-7000-8000-00000000000aa"),
                     print_all, NULL, NULL));
    CHECK_STATUS(
        INVALID, wb_outbox_show(box, (struct wb_slice){"0190a000\0", 9},
                     print_all, NULL, NULL));
    CHECK_STATUS(
        NOTFOUND, wb_outbox_show(box, S("0190a001"), print_all, NULL, NULL));
    wb_outbox_close(box);
}

/* A message without id or key is gone once delivered; its tombstone, kept for a
 * worker that confirms twice, is not shown. */
TEST(test_query__show_of_a_delivered_one__only_if_it_is_kept)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");
    struct taken t = box_claim(box, NULL);
    struct wb_accepted kept;

    box_confirm(box, &t);
    CHECK_STATUS(
        NOTFOUND, wb_outbox_show(box, S(id.text), print_all, NULL, NULL));
    kept = box_send(box, (struct wb_message){.kind = S("a"), .key = S("k")});
    t = box_claim(box, NULL);
    box_confirm(box, &t);
    CHECK_STATUS(
        OK, wb_outbox_show(box, S(kept.id.text), print_all, NULL, NULL));
    wb_outbox_close(box);
}

TEST(test_query__I13_health__says_what_is_in_force)
{
    struct wb_outbox *box = box_open();
    struct wb_health h;
    struct wb_err err = {0};

    (void)box_put(box, "a");
    (void)box_claim(box, NULL);
    fake_clock_advance_ms(119999);
    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK_INT(0, h.stuck);
    fake_clock_advance_ms(1);
    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK_INT(1, h.stuck);
    CHECK_TEXT("wal", h.journal_mode);
    CHECK_TEXT("ok", h.integrity);
    CHECK_HAS(sqlite3_libversion(), h.engine);
    CHECK(h.full_sync && !h.network_fs);
    CHECK(h.schema_version >= 1);
    sql_run("UPDATE waybill_meta SET value = 12 WHERE name = 'version'");
    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK_INT(12, h.schema_version);
    CHECK_INT(0600, h.file_mode);
    CHECK_INT(0700, h.folder_mode);
    CHECK(h.file_bytes > 0 && h.wal_bytes > 0);
    CHECK_INT(strcmp(sqlite3_libversion(), "3.40.1") == 0 || h.wal_reset_bug,
        h.wal_reset_bug);
    wb_outbox_close(box);
}

/* ---- I1 ---------------------------------------------------------------- */

static enum wb_status
add_all(void *ctx, const struct wb_kind_counts *k)
{
    for (int i = 0; i < WB_STATES; i++)
        *(int64_t *)ctx += (int64_t)k->n[i];
    return WB_OK;
}

TEST(test_query__I1_random_calls__every_accepted_one_is_somewhere)
{
    struct wb_outbox *box = box_open();
    int64_t accepted = 0, confirmed = 0; /* those without a key are gone */

    for (int step = 0; step < 400; step++) {
        struct wb_claim claim = {.max = 3};
        struct wb_batch batch = {0};
        int64_t seen = 0;
        uint32_t r;

        ENV->random(ENV->ctx, &r, sizeof(r));
        (void)box_put_lane(box, "a", r % 2 ? "l" : NULL);
        accepted++;
        if (wb_outbox_claim(box, &claim, &batch, NULL) == WB_OK) {
            for (size_t i = 0; i < batch.len; i++) {
                struct wb_finish f = {.id = batch.row[i].id,
                    .token = batch.row[i].token,
                    .end = (enum wb_end)(r / 2 % 3),
                    .outcome = (enum wb_outcome)(r / 8 % 4)};

                if (r / 64 % 5 == 0)
                    continue;
                CHECK_STATUS(
                    OK, wb_outbox_finish(box, &f, 1, NULL, NULL, NULL));
                confirmed += f.end == WB_CONFIRM;
            }
        }
        wb_batch_free(&batch);
        fake_clock_advance_ms(r % 1000); /* in total less than any retention */
        CHECK_STATUS(OK, wb_outbox_count(box, add_all, &seen, NULL));
        CHECK_INT(accepted, seen + confirmed);
    }
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_query__O15_counts__by_kind_and_state_with_oldest_pending),
        RUN(test_query__O15_empty__nothing_is_reported),
        RUN(test_query__O15_kinds_of_nothing__counted_and_redriven_all_the_same),
        RUN(test_query__list__by_state_kind_limit_in_order),
        RUN(test_query__list_of_several_pages__each_row_once),
        RUN(test_query__list_by_key_lane_time_error__those_alone_page_by_page),
        RUN(test_query__show_by_key__found_while_it_is_remembered),
        RUN(test_query__row_function_stops__its_status_is_returned),
        RUN(test_query__show__by_the_unique_end_of_an_id),
        RUN(test_query__show__by_id_or_unique_prefix),
        RUN(test_query__show_of_a_delivered_one__only_if_it_is_kept),
        RUN(test_query__I13_health__says_what_is_in_force),
        RUN(test_query__I1_random_calls__every_accepted_one_is_somewhere),
    };
    return RUN_ALL(tests);
}
