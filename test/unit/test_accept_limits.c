/* test_accept_limits.c - O-5: every limit: its status, and what is one below or
 * above it. */
#include <stdio.h>

#include "outbox_fixture.h"

static char many[20000];

static struct wb_slice
x(size_t n)
{
    memset(many, 'x', sizeof(many));
    return (struct wb_slice){many, n};
}

static struct wb_message
message(void)
{
    return (struct wb_message){.kind = S("mail"), .payload = S("{}")};
}

TEST(test_accept__O5_kind__1_to_64_of_its_letters)
{
    static const char *const bad[] = {
        "", "A", "a b", "a/b", "a\xc3\xa4", "a\n", "*"};
    struct wb_outbox *box = box_open();
    struct wb_message m = message();

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        m.kind = S(bad[i]);
        CHECK_STATUS(INVALID, box_try(box, m));
    }
    m.kind = (struct wb_slice){"a\0b", 3};
    CHECK_STATUS(INVALID, box_try(box, m));
    m.kind = x(65);
    CHECK_STATUS(INVALID, box_try(box, m));
    m.kind = x(64);
    (void)box_send(box, m);
    m.kind = S("a0_.-z");
    (void)box_send(box, m);
    wb_outbox_close(box);
}

TEST(test_accept__O5_key_lane_type__up_to_255_printable_bytes)
{
    static const char *const bad[] = {
        "a\nb", "\x1b[1m", "\x7f", "\xc2\x9b", "\xff", "\xed\xa0\x80"};
    struct wb_outbox *box = box_open();

    for (int field = 0; field < 3; field++) {
        struct wb_message m = message();
        struct wb_slice *s = field == 0   ? &m.key
                             : field == 1 ? &m.lane
                                          : &m.content_type;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            *s = S(bad[i]);
            CHECK_STATUS(INVALID, box_try(box, m));
        }
        *s = (struct wb_slice){"a\0b", 3};
        CHECK_STATUS(INVALID, box_try(box, m));
        *s = x(256);
        CHECK_STATUS(INVALID, box_try(box, m));
        *s = x(255);
        (void)box_send(box, m);
        *s = S("gr\xc3\xbc\xc3\x9f " /* and a space */);
        (void)box_send(box, m);
    }
    wb_outbox_close(box);
}

/* A message whose texts have the longest length allowed can be finished. */
TEST(test_accept__O5_longest_names__claimed_and_confirmed)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message();
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    m.kind = x(64);
    m.key = m.lane = m.content_type = x(255);
    (void)box_send(box, m);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(255, batch.row[0].lane.len);
    CHECK_OK(wb_outbox_confirm(box, &batch.row[0].id, batch.row[0].token, &err),
        err);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_accept__O5_payload__one_byte_more_is_toobig)
{
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.max_payload_bytes = 1000});
    struct wb_message m = message();
    struct wb_err err = {0};

    m.payload = x(1000);
    (void)box_send(box, m);
    m.payload = x(1001);
    CHECK_STATUS(TOOBIG, wb_outbox_enqueue(box, &m, NULL, &err));
    CHECK_HAS("1001", err.msg);
    CHECK_INT(WB_TOOBIG, err.status);
    wb_outbox_close(box);
}

TEST(test_accept__O5_payload_by_default__one_mebibyte)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message();
    char *big = calloc(1, (1 << 20) + 1);

    CHECK(big != NULL);
    m.payload = (struct wb_slice){big, 1 << 20};
    (void)box_send(box, m);
    m.payload.len++;
    CHECK_STATUS(TOOBIG, box_try(box, m));
    free(big);
    m.payload = (struct wb_slice){NULL, 0};
    (void)box_send(box, m);
    wb_outbox_close(box);
}

TEST(test_accept__O5_headers__16_kibibytes_and_no_content_type)
{
    struct wb_outbox *box = box_open();
    struct wb_message m = message();

    m.headers = x(16385);
    CHECK_STATUS(TOOBIG, box_try(box, m));
    memcpy(many, "A: ", 3);
    many[16383] = '\n';
    m.headers.len = 16384;
    (void)box_send(box, m);
    m.headers = wb_slice("content-type: text/plain\n");
    CHECK_STATUS(INVALID, box_try(box, m)); /* no route could send it */
    wb_outbox_close(box);
}

TEST(test_accept__O5_times_that_make_no_sense__invalid)
{
    static const struct {
        int64_t due, expires;
    } bad[] = {{-1, 0}, {0, -1}, {INT64_MIN, 0}, {0, INT64_MIN},
        {FAKE_START_MS, FAKE_START_MS}, {INT64_MAX, INT64_MAX}};
    struct wb_outbox *box = box_open();

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wb_message m = message();

        m.due_ms = bad[i].due;
        m.expires_ms = bad[i].expires;
        CHECK_STATUS(INVALID, box_try(box, m));
    }
    wb_outbox_close(box);
}

TEST(test_accept__O5_id__any_uuid_and_nothing_else)
{
    static const char *const bad[] = {"x", "0190a000-0000-7000-8000-0000000000",
        "0190a000-0000-7000-8000-00000000000g",
        "0190a000+0000-7000-8000-00000000000a",
        "{190a000-0000-7000-8000-00000000000}"};
    struct wb_outbox *box = box_open();
    struct wb_message m = message();

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        m.id = S(bad[i]);
        CHECK_STATUS(INVALID, box_try(box, m));
    }
    m.id = S("ffffffff-ffff-ffff-ffff-ffffffffffff");
    (void)box_send(box, m);
    wb_outbox_close(box);
}

/* ---- rows -------------------------------------------------------------- */

/* How many are accepted before the first FULL, at most. */
static size_t
fill(struct wb_outbox *box, size_t at_most)
{
    size_t n = 0;

    while (n < at_most && box_try(box, message()) == WB_OK)
        n++;
    return n;
}

TEST(test_accept__O5_rows__exact_with_one_handle)
{
    static const int64_t limits[] = {1, 2, 17, 1000};

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct wb_outbox *box =
            box_open_with((struct wb_outbox_opts){.max_rows = limits[i]});

        CHECK_INT(limits[i], fill(box, 2000));
        CHECK_STATUS(FULL, box_try(box, message()));
        wb_outbox_close(box);
        sql_run("DELETE FROM waybill_outbox");
    }
}

TEST(test_accept__O5_rows_in_turns_of_several_handles__within_1_percent)
{
    struct wb_outbox *box[8];
    int64_t n = 0;

    for (int i = 0; i < 8; i++)
        box[i] = box_open_with((struct wb_outbox_opts){.max_rows = 2000});
    for (int full = 0; full < 8;) {
        full = 0;
        for (int i = 0; i < 8; i++)
            full += fill(box[i], 3) < 3;
    }
    n = sql_int("SELECT count(*) FROM waybill_outbox");
    CHECK(n >= 1980 && n <= 2020);
    for (int i = 0; i < 8; i++)
        wb_outbox_close(box[i]);
}

/* A handle that counted before the outbox was full, and was idle since. */
TEST(test_accept__O5_rows_counted_long_ago__within_1_percent)
{
    const struct wb_outbox_opts opts = {.max_rows = 2000};
    struct wb_outbox *early = box_open_with(opts), *late = box_open_with(opts);

    CHECK_INT(1, fill(early, 1));
    CHECK_INT(1999, fill(late, 3000));
    (void)fill(early, 3000);
    CHECK(sql_int("SELECT count(*) FROM waybill_outbox") <= 2020);
    wb_outbox_close(early);
    wb_outbox_close(late);
}

/* Waiting, held, processing and abandoned count; delivered does not. */
TEST(test_accept__O5_rows__what_counts)
{
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.max_rows = 4});
    struct wb_message keyed = message();
    struct taken t;

    keyed.key = S("k");
    (void)box_send(box, keyed);
    t = box_claim(box, NULL);
    box_confirm(box, &t); /* a tombstone: does not count */
    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    box_abandon(box, &t);
    (void)box_put_lane(box, "a", "l");
    (void)box_put_lane(box, "a", "l"); /* held */
    (void)box_put(box, "b");
    t = box_claim(box, "b"); /* processing */
    CHECK_STATUS(FULL, box_try(box, message()));
    CHECK(box_send(box, keyed).duplicate); /* inserts nothing */
    box_confirm(box, &t);
    (void)box_send(box, message());
    CHECK_STATUS(FULL, box_try(box, message()));
    wb_outbox_close(box);
}

TEST(test_accept__O5_full_in_a_batch__the_rest_is_reported)
{
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.max_rows = 2});
    struct wb_message m[3] = {message(), message(), message()};
    struct wb_accepted a[3];
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_enqueue_many(box, m, 3, a, &err), err);
    CHECK_STATUS(OK, a[1].status);
    CHECK_STATUS(FULL, a[2].status);
    CHECK_INT(WB_FULL, err.status);
    CHECK_HAS("max_rows", err.msg);
    wb_outbox_close(box);
}

TEST(test_accept__O5_bytes__full_and_after_a_drain_accepted_again)
{
    const int64_t most = 200000;
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.max_file_bytes = most});
    struct wb_message m = message();
    struct wb_err err = {0};
    enum wb_status rc;
    int n = 0;

    m.payload = x(5000);
    while ((rc = wb_outbox_enqueue(box, &m, NULL, &err)) == WB_OK)
        n++;
    CHECK_INT(WB_FULL, rc);
    CHECK_HAS("max_file", err.msg);
    CHECK(n > 20);
    CHECK(sql_int("SELECT page_count * page_size FROM pragma_page_count,"
                  " pragma_page_size") <= most + 3 * 4096);
    for (; n > 10; n--) {
        struct taken t = box_claim(box, NULL);
        struct wb_finish f = {
            .id = t.id, .token = t.token, .end = WB_CONFIRM, .forget = true};

        CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
    }
    (void)box_send(box, m);
    wb_outbox_close(box);
}

/* Confirm all that wait; how many there were. */
static int
deliver_all(struct wb_outbox *box)
{
    struct wb_claim claim = {.max = 64};
    struct wb_batch batch = {0};
    struct wb_finish f[64];
    int n = 0;

    while (wb_outbox_claim(box, &claim, &batch, NULL) == WB_OK) {
        struct wb_err err = {0};

        for (size_t i = 0; i < batch.len; i++)
            f[i] = (struct wb_finish){
                .id = batch.row[i].id, .token = batch.row[i].token};
        CHECK_OK(wb_outbox_finish(box, f, batch.len, NULL, NULL, &err), err);
        n += (int)batch.len;
    }
    wb_batch_free(&batch);
    return n;
}

static struct wb_message
keyed(int number)
{
    static char key[32];
    struct wb_message m = message();

    (void)snprintf(key, sizeof(key), "key %d", number);
    m.key = S(key);
    m.payload = x(1500);
    return m;
}

/* A tombstone takes the room of its id and key, not of its payload. */
TEST(test_accept__O5_full_of_tombstones__accepted_since_nothing_waits)
{
    const int64_t most = 1500000;
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.max_file_bytes = most});
    int n = 0;

    for (int round = 0; round < 30; round++) {
        for (int i = 0; i < 100; i++)
            (void)box_send(box, keyed(n++));
        CHECK_INT(100, deliver_all(box));
    }
    for (int i = 0; i < n; i += 97)
        CHECK(box_send(box, keyed(i)).duplicate);
    CHECK_INT(n, sql_int("SELECT count(*) FROM waybill_outbox WHERE seq > 0"));
    CHECK(sql_int("SELECT page_count * page_size FROM pragma_page_count,"
                  " pragma_page_size") <= most + 200000);
    wb_outbox_close(box);
}

/* A handle for each message, as commands have it. */
TEST(test_accept__O5_full_of_tombstones__each_is_moved_once)
{
    struct wb_outbox_opts opts = {.max_file_bytes = 400000};
    struct wb_outbox *box = box_open_with(opts);
    struct wb_err err = {0};
    enum wb_status rc = WB_OK;
    int n = 0;

    while (rc == WB_OK && n < 20000) {
        struct wb_message m = keyed(n++);

        if (n % 50 == 0) {
            wb_outbox_close(box);
            box = box_open_with(opts);
        }
        rc = wb_outbox_enqueue(box, &m, NULL, &err);
        if (rc == WB_OK && n % 20 == 0)
            (void)deliver_all(box);
    }
    CHECK_INT(WB_FULL, rc);
    CHECK(n > 1000); /* 400 bytes each, the indexes included */
    (void)deliver_all(box);
    do {
        struct wb_message m = keyed(n++);

        rc = wb_outbox_enqueue(box, &m, NULL, &err);
        (void)deliver_all(box);
    } while (rc == WB_OK);
    CHECK_HAS("keep_delivered", err.msg);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_accept__O5_kind__1_to_64_of_its_letters),
        RUN(test_accept__O5_key_lane_type__up_to_255_printable_bytes),
        RUN(test_accept__O5_longest_names__claimed_and_confirmed),
        RUN(test_accept__O5_payload__one_byte_more_is_toobig),
        RUN(test_accept__O5_payload_by_default__one_mebibyte),
        RUN(test_accept__O5_headers__16_kibibytes_and_no_content_type),
        RUN(test_accept__O5_times_that_make_no_sense__invalid),
        RUN(test_accept__O5_id__any_uuid_and_nothing_else),
        RUN(test_accept__O5_rows__exact_with_one_handle),
        RUN(test_accept__O5_rows_in_turns_of_several_handles__within_1_percent),
        RUN(test_accept__O5_rows_counted_long_ago__within_1_percent),
        RUN(test_accept__O5_rows__what_counts),
        RUN(test_accept__O5_full_in_a_batch__the_rest_is_reported),
        RUN(test_accept__O5_full_of_tombstones__accepted_since_nothing_waits),
        RUN(test_accept__O5_full_of_tombstones__each_is_moved_once),
        RUN(test_accept__O5_bytes__full_and_after_a_drain_accepted_again),
    };
    return RUN_ALL(tests);
}
