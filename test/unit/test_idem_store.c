/* test_idem_store.c - the rules of the idempotency store, on every backend:
 * M, S and C of the specification. */
#include "idem_fixture.h"

/* ---- operation and record (M) ------------------------------------------ */

/* M-1 */
TEST(test_idem__other_identity_or_scope__never_seen)
{
    static const char *const others[][3] = {
        {"you", "s", "k"}, {"me", "t", "k"}, {"me", "s", "l"}, {"", "s", "k"}};
    struct wb_idem *store = open_store();
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, complete(store, "k", token, "mine"));
    for (size_t i = 0; i < WB_COUNT(others); i++) {
        struct wb_idem_op op = op_of(others[i][0], others[i][1], others[i][2]);

        CHECK_STATUS(EMPTY, wb_idem_lookup(store, &op, &r, NULL));
        CHECK_STATUS(OK, wb_idem_begin(store, &op, &fp, NULL, &r, NULL));
        CHECK_ANSWER(ACQUIRED, r.answer);
    }
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* M-2 */
TEST(test_idem__parts_moved_across_their_borders__other_operations)
{
    static const char *const ops[][3] = {{"a", "b", "c"}, {"ab", "", "c"},
        {"", "ab", "c"}, {"a", "", "bc"}, {"", "", "abc"}, {"", "a", "bc"},
        {"a:b", "c", "d"}, {"a", "b:c", "d"}, {"a", "b", "c:d"}};
    struct wb_idem *store = open_store();
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};

    for (size_t i = 0; i < WB_COUNT(ops); i++) {
        struct wb_idem_op op = op_of(ops[i][0], ops[i][1], ops[i][2]);

        CHECK_STATUS(OK, wb_idem_begin(store, &op, &fp, NULL, &r, NULL));
        CHECK_ANSWER(ACQUIRED, r.answer);
    }
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* M-2 */
TEST(test_idem__fingerprint_of_parts__framed)
{
    struct wb_slice a[] = {WB_LIT("a"), WB_LIT("bc")};
    struct wb_slice b[] = {WB_LIT("ab"), WB_LIT("c")};
    struct wb_fingerprint x, y;

    CHECK_STATUS(OK, wb_idem_fingerprint(a, 2, &x));
    CHECK_STATUS(OK, wb_idem_fingerprint(b, 2, &y));
    CHECK(memcmp(&x, &y, sizeof(x)) != 0);
    CHECK_STATUS(OK, wb_idem_fingerprint(a, 2, &y));
    CHECK(memcmp(&x, &y, sizeof(x)) == 0);
}

static void
check_same(struct wb_idem_record want, struct wb_idem_record got)
{
    CHECK_INT(want.status, got.status);
    CHECK(wb__eq(want.headers, got.headers));
    CHECK(wb__eq(want.body, got.body));
    CHECK_INT(want.ttl_ms, got.ttl_ms);
    CHECK_INT(want.stored_ms, got.stored_ms);
    CHECK(memcmp(&want.fingerprint, &got.fingerprint,
              sizeof(want.fingerprint)) == 0);
}

/* M-4 */
TEST(test_idem__record__comes_back_exactly)
{
    static const struct wb_slice bodies[] = {{NULL, 0}, {"\0", 1},
        {"\xff\xfe\0z\r\n", 6}, {"plain", 5}, {"'); DROP TABLE x; --", 20}};
    static const struct wb_slice headers[] = {
        {NULL, 0}, {"A: b\nA: c\n", 10}, {"X: \xe9\n", 6}};
    struct wb_idem *store = open_store();
    struct wb_idem_result r = {0};
    struct wb_err err = {0};

    for (size_t i = 0; i < WB_COUNT(bodies) * WB_COUNT(headers); i++) {
        char key[16];
        struct wb_idem_op op;
        struct wb_idem_record record = {.status = i % 2 ? 65535 : 0,
            .headers = headers[i % WB_COUNT(headers)],
            .body = bodies[i % WB_COUNT(bodies)],
            .ttl_ms = (int64_t)(i * 1000)};
        uint64_t token;

        (void)snprintf(key, sizeof(key), "k%zu", i);
        op = op_of("me", "s", key);
        fake_clock_advance_ms(1);
        CHECK_ANSWER(ACQUIRED, begin(store, key, &token));
        CHECK_OK(wb_idem_complete(store, &op, token, &record, &err), err);
        record.stored_ms = fake_env.wall_ms;
        record.fingerprint = print_of("request");
        CHECK_OK(wb_idem_lookup(store, &op, &r, &err), err);
        check_same(record, r.record);
        CHECK_OK(wb_idem_begin(store, &op, &record.fingerprint, NULL, &r, &err),
            err);
        CHECK_ANSWER(REPLAY, r.answer);
        check_same(record, r.record);
    }
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* M-4, a body larger than any existing buffer */
TEST(test_idem__large_body__comes_back_exactly)
{
    const size_t len = 3 * 1000 * 1000;
    char *body = malloc(len);
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_record record = {.body = {body, len}, .ttl_ms = 1000};
    struct wb_idem_result r = {0};
    uint64_t token;

    ENV->random(ENV->ctx, body, len);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, wb_idem_complete(store, &op, token, &record, NULL));
    CHECK_STATUS(OK, wb_idem_lookup(store, &op, &r, NULL));
    CHECK(wb__eq(r.record.body, record.body));
    wb_idem_result_free(&r);
    wb_idem_close(store);
    free(body);
}

/* M-5 */
TEST(test_idem__buffers_changed_afterwards__record_is_not)
{
    struct wb_idem *store = open_store();
    char body[] = "body", key[] = "key", head[] = "A: b\n";
    struct wb_idem_op op = op_of("me", "s", key);
    struct wb_idem_record record = {
        .status = 200, .body = {body, 4}, .headers = {head, 5}, .ttl_ms = 1000};
    struct wb_idem_result r = {0};
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "key", &token));
    CHECK_STATUS(OK, wb_idem_complete(store, &op, token, &record, NULL));
    memcpy(body, "XXXX", 4);
    memcpy(head, "Y: z\n", 5);
    CHECK_STATUS(OK, wb_idem_lookup(store, &op, &r, NULL));
    CHECK_SLICE("body", r.record.body);
    memset(r.copy, '#', r.room); /* what was copied out, too */
    memcpy(key, "zzz", 3);
    op = op_of("me", "s", "key");
    CHECK_STATUS(OK, wb_idem_lookup(store, &op, &r, NULL));
    CHECK_SLICE("body", r.record.body);
    CHECK_SLICE("A: b\n", r.record.headers);
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* M-6, M-7 */
TEST(test_idem__begin__each_answer)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin none = {0};
    struct wb_idem_result r;
    uint64_t token, second;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK(token != 0);
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    r = begin_with(store, "k", "something else", none);
    CHECK_ANSWER(MISMATCH, r.answer);
    CHECK_STATUS(OK, complete(store, "k", token, "done"));
    r = begin_with(store, "k", "something else", none);
    CHECK_ANSWER(MISMATCH, r.answer);
    r = begin_with(store, "k", "request", none);
    CHECK_ANSWER(REPLAY, r.answer);
    CHECK_SLICE("done", r.record.body);
    wb_idem_result_free(&r);
    CHECK_ANSWER(ACQUIRED, begin(store, "other", &second));
    CHECK(second != token);
    CHECK_TEXT("acquired", wb_idem_answer_name(WB_IDEM_ACQUIRED));
    CHECK_TEXT("?", wb_idem_answer_name((enum wb_idem_answer)99));
    wb_idem_close(store);
}

TEST(test_idem__names_out_of_bounds__invalid_and_nothing_claimed)
{
    static char longest[8192 + 1];
    struct wb_idem *store = open_store();
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};
    struct wb_idem_op bad[] = {op_of("me", "s", ""), op_of("me", "s", "a\nb"),
        op_of("me", "s", "\xff"), op_of("m\x1b", "s", "k"),
        op_of("me", "s\x7f", "k"), {{longest, 256}, {"s", 1}, {"k", 1}},
        {{"me", 2}, {longest, 8192}, {"k", 1}},
        {{"me", 2}, {"s", 1}, {longest, 256}}};
    struct wb_idem_op good = {{longest, 255}, {longest, 8191}, {longest, 255}};
    struct wb_err err = {0};

    memset(longest, 'x', sizeof(longest) - 1);
    for (size_t i = 0; i < WB_COUNT(bad); i++) {
        CHECK_STATUS(
            INVALID, wb_idem_begin(store, &bad[i], &fp, NULL, &r, &err));
        CHECK(err.msg[0] != '\0');
    }
    CHECK_OK(wb_idem_begin(store, &good, &fp, NULL, &r, &err), err);
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK_OK(wb_idem_begin(store, &good, &fp, NULL, &r, &err), err);
    CHECK_ANSWER(IN_FLIGHT, r.answer);
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

TEST(test_idem__record_out_of_bounds__refused_and_claim_stays)
{
    static char longest[65536];
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_record record = {.status = 65536};
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(INVALID, wb_idem_complete(store, &op, token, &record, NULL));
    record.status = -1;
    CHECK_STATUS(INVALID, wb_idem_complete(store, &op, token, &record, NULL));
    record.status = 0;
    record.headers = (struct wb_slice){longest, sizeof(longest)};
    CHECK_STATUS(TOOBIG, wb_idem_complete(store, &op, token, &record, NULL));
    CHECK_STATUS(OK, complete(store, "k", token, "small"));
    wb_idem_close(store);
}

/* ---- store (S) --------------------------------------------------------- */

/* S-1 */
TEST(test_idem__lookup__leaves_no_claim_and_releases_none)
{
    struct wb_idem *store = open_store();
    uint64_t token;

    CHECK(!has(store, "k", ""));
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK(!has(store, "k", ""));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    CHECK_STATUS(OK, complete(store, "k", token, "done"));
    CHECK(has(store, "k", "done"));
    wb_idem_close(store);
}

/* S-2 */
TEST(test_idem__store__overwrites_a_record_never_a_claim)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "claimed");
    struct wb_idem_record record = record_of(200, "x");
    uint64_t token;

    put(store, "k", "one", 1000);
    put(store, "k", "two, which is longer", 1000);
    CHECK(has(store, "k", "two, which is longer"));
    CHECK_ANSWER(REPLAY, begin(store, "k", NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "claimed", &token));
    CHECK_STATUS(BUSY, wb_idem_store(store, &op, &record, NULL));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "claimed", NULL));
    CHECK_STATUS(OK, wb_idem_unknown(store, &op, token, NULL));
    CHECK_STATUS(BUSY, wb_idem_store(store, &op, &record, NULL));
    CHECK_ANSWER(UNKNOWN, begin(store, "claimed", NULL));
    wb_idem_close(store);
}

/* S-2: a claim whose lease has ended does not hold its key */
TEST(test_idem__store_over_a_dead_claim__stored_and_holder_fenced)
{
    struct wb_idem *store = open_store();
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    fake_clock_advance_ms(60000);
    put(store, "k", "new", 1000);
    CHECK_STATUS(FENCED, complete(store, "k", token, "old"));
    CHECK(has(store, "k", "new"));
    wb_idem_close(store);
}

/* S-3 */
TEST(test_idem__ttl__expired_at_exactly_stored_plus_ttl)
{
    static const int64_t forever[] = {0, -1, INT64_MIN, INT64_MAX};
    struct wb_idem *store = open_store();

    put(store, "k", "x", 1000);
    for (size_t i = 0; i < WB_COUNT(forever); i++)
        put(store, (const char *[]){"a", "b", "c", "d"}[i], "x", forever[i]);
    fake_clock_advance_ms(999);
    CHECK(has(store, "k", "x"));
    fake_clock_advance_ms(1);
    CHECK(!has(store, "k", "x"));
    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    fake_clock_advance_ms(INT64_C(86400000) * 365 * 100);
    for (size_t i = 0; i < WB_COUNT(forever); i++)
        CHECK(has(store, (const char *[]){"a", "b", "c", "d"}[i], "x"));
    wb_idem_close(store);
}

/* S-3: the key of an expired record can be begun, with any fingerprint */
TEST(test_idem__ttl_expired__begun_anew_old_token_fenced)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_record record = record_of(201, "first");
    struct wb_idem_result r;
    uint64_t token;

    record.ttl_ms = 500;
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, wb_idem_complete(store, &op, token, &record, NULL));
    fake_clock_advance_ms(500);
    r = begin_with(store, "k", "new request", (struct wb_idem_begin){0});
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK(r.token != token);
    CHECK_STATUS(FENCED, wb_idem_complete(store, &op, token, &record, NULL));
    CHECK_STATUS(OK, complete(store, "k", r.token, "second"));
    CHECK(has(store, "k", "second"));
    wb_idem_close(store);
}

/* S-5 */
TEST(test_idem__identity_claims_used_up__limit_for_it_alone)
{
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.identity_claims = 2});
    struct wb_idem_op you = op_of("you", "s", "k1");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result r = {0};
    uint64_t token, t2;

    CHECK_ANSWER(ACQUIRED, begin(store, "k1", &token));
    CHECK_ANSWER(ACQUIRED, begin(store, "k2", &t2));
    CHECK_ANSWER(LIMIT, begin(store, "k3", NULL));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k2", NULL)); /* nothing new */
    CHECK_STATUS(OK, wb_idem_begin(store, &you, &fp, NULL, &r, NULL));
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK_STATUS(OK, complete(store, "k1", token, "done"));
    CHECK_ANSWER(ACQUIRED, begin(store, "k3", NULL));
    CHECK_ANSWER(LIMIT, begin(store, "k4", NULL));
    CHECK_STATUS(OK, release(store, "k2", t2));
    CHECK_ANSWER(ACQUIRED, begin(store, "k4", NULL));
    fake_clock_advance_ms(60000); /* dead claims do not count */
    CHECK_ANSWER(ACQUIRED, begin(store, "k5", NULL));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* S-5 */
TEST(test_idem__identity_bytes_used_up__limit_and_no_record_lost)
{
    static char body[6001];
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.identity_bytes = 10000});
    struct wb_idem_op you = op_of("you", "s", "k");
    struct wb_idem_record record;
    uint64_t token;

    memset(body, 'b', sizeof(body) - 1);
    record = record_of(200, "yours");
    CHECK_STATUS(OK, wb_idem_store(store, &you, &record, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "k1", &token));
    CHECK_STATUS(OK, complete(store, "k1", token, body));
    CHECK_ANSWER(ACQUIRED, begin(store, "k2", &token));
    CHECK_STATUS(OK, complete(store, "k2", token, body));
    CHECK_ANSWER(LIMIT, begin(store, "k3", NULL));
    CHECK_ANSWER(REPLAY, begin(store, "k1", NULL));
    CHECK(has(store, "k1", body) && has(store, "k2", body));
    CHECK_STATUS(
        OK, wb_idem_forget(store,
                &(struct wb_idem_op){WB_LIT("me"), WB_LIT("s"), WB_LIT("k1")},
                NULL, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "k3", NULL));
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem__other_identity_or_scope__never_seen),
        RUN(test_idem__parts_moved_across_their_borders__other_operations),
        RUN(test_idem__fingerprint_of_parts__framed),
        RUN(test_idem__record__comes_back_exactly),
        RUN(test_idem__large_body__comes_back_exactly),
        RUN(test_idem__buffers_changed_afterwards__record_is_not),
        RUN(test_idem__begin__each_answer),
        RUN(test_idem__names_out_of_bounds__invalid_and_nothing_claimed),
        RUN(test_idem__record_out_of_bounds__refused_and_claim_stays),
        RUN(test_idem__lookup__leaves_no_claim_and_releases_none),
        RUN(test_idem__store__overwrites_a_record_never_a_claim),
        RUN(test_idem__store_over_a_dead_claim__stored_and_holder_fenced),
        RUN(test_idem__ttl__expired_at_exactly_stored_plus_ttl),
        RUN(test_idem__ttl_expired__begun_anew_old_token_fenced),
        RUN(test_idem__identity_claims_used_up__limit_for_it_alone),
        RUN(test_idem__identity_bytes_used_up__limit_and_no_record_lost),
    };

    RUN_EVERY(tests);
}
