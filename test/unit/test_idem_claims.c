/* test_idem_claims.c - claims of the idempotency store, on every backend:
 * fencing, waiting, unknown outcomes (C of the specification). */
#include "idem_fixture.h"

/* ---- the fencing table (C-4, C-6) -------------------------------------- */

/* The state of the claim of `token` when the token is presented. */
enum situation {
    LIVE,
    LATE,      /* the lease has ended, nobody has claimed since */
    LAPSED,    /* the same of a sending claim: the outcome is unknown */
    TAKEN,     /* the lease has ended, another begin acquired the key */
    COMPLETED, /* by this token */
    RELEASED,  /* by this token */
    NEXT_DONE, /* the next holder completed */
    MARKED,    /* unknown, by this token */
    SITUATIONS
};

static uint64_t next_token;

static uint64_t
arrange(struct wb_idem *store, const char *key, enum situation how)
{
    struct wb_idem_op op = op_of("me", "s", key);
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, key, &token));
    if (how == LAPSED)
        CHECK_STATUS(OK, wb_idem_sending(store, &op, token, NULL));
    if (how == LATE || how == LAPSED || how == TAKEN || how == NEXT_DONE)
        fake_clock_advance_ms(60000);
    if (how == LAPSED)
        CHECK_ANSWER(UNKNOWN, begin(store, key, NULL));
    if (how == TAKEN || how == NEXT_DONE)
        CHECK_ANSWER(ACQUIRED, begin(store, key, &next_token));
    if (how == NEXT_DONE)
        CHECK_STATUS(OK, complete(store, key, next_token, "next"));
    if (how == COMPLETED)
        CHECK_STATUS(OK, complete(store, key, token, "mine"));
    if (how == RELEASED)
        CHECK_STATUS(OK, release(store, key, token));
    if (how == MARKED)
        CHECK_STATUS(OK, wb_idem_unknown(store, &op, token, NULL));
    return token;
}

/* What must hold after a fenced call, whatever it was. */
static void
check_untouched(struct wb_idem *store, const char *key, enum situation how)
{
    switch (how) {
    case LIVE:
        CHECK_ANSWER(IN_FLIGHT, begin(store, key, NULL));
        break;
    case TAKEN:
        CHECK_ANSWER(IN_FLIGHT, begin(store, key, NULL));
        CHECK_STATUS(OK, complete(store, key, next_token, "next"));
        break;
    case COMPLETED:
        CHECK(has(store, key, "mine"));
        break;
    case NEXT_DONE:
        CHECK(has(store, key, "next"));
        break;
    case LAPSED:
    case MARKED:
        CHECK_ANSWER(UNKNOWN, begin(store, key, NULL));
        break;
    default:
        CHECK_ANSWER(ACQUIRED, begin(store, key, NULL));
    }
}

TEST(test_idem__token_presented__accepted_or_fenced_as_the_table_says)
{
    enum {
        COMPLETE,
        COMPLETE_OTHER,
        RELEASE,
        EXTEND,
        SEND,
        MAYBE,
        CALLS
    };
    static const char fenced[SITUATIONS][CALLS + 1] = {
        /* complete, complete other, release, extend, sending, unknown */
        [LIVE] = "------",
        [LATE] = "------",
        [LAPSED] = "------",
        [TAKEN] = "FFFFFF",
        [COMPLETED] = "-FFFFF",
        [RELEASED] = "FF-FFF",
        [NEXT_DONE] = "FFFFFF",
        [MARKED] = "FFFFFF"};
    struct wb_idem *store = open_store();

    for (int s = 0; s < SITUATIONS; s++) {
        for (int c = 0; c < CALLS; c++) {
            char key[32];
            struct wb_idem_op op;
            enum wb_status rc = WB_OK;
            uint64_t token;

            (void)snprintf(key, sizeof(key), "k-%d-%d", s, c);
            op = op_of("me", "s", key);
            token = arrange(store, key, (enum situation)s);
            if (c == COMPLETE || c == COMPLETE_OTHER)
                rc = complete(
                    store, key, token, c == COMPLETE ? "mine" : "other");
            if (c == RELEASE)
                rc = release(store, key, token);
            if (c == EXTEND)
                rc = extend(store, key, token, 0);
            if (c == SEND)
                rc = wb_idem_sending(store, &op, token, NULL);
            if (c == MAYBE)
                rc = wb_idem_unknown(store, &op, token, NULL);
            if (rc != (fenced[s][c] == 'F' ? WB_FENCED : WB_OK))
                print_error(
                    "situation %d, call %d: %s\n", s, c, wb_status_name(rc));
            CHECK_INT(fenced[s][c] == 'F' ? WB_FENCED : WB_OK, rc);
            if (rc == WB_FENCED)
                check_untouched(store, key, (enum situation)s);
        }
    }
    wb_idem_close(store);
}

/* C-4 */
TEST(test_idem__wrong_or_zero_token__fenced_in_every_situation)
{
    struct wb_idem *store = open_store();

    for (int s = 0; s < SITUATIONS; s++) {
        char key[32];
        struct wb_idem_op op;
        uint64_t token;

        (void)snprintf(key, sizeof(key), "k-%d", s);
        op = op_of("me", "s", key);
        token = arrange(store, key, (enum situation)s);
        for (int zero = 0; zero < 2; zero++) {
            uint64_t wrong = zero ? 0 : token ^ 1;

            CHECK_STATUS(FENCED, complete(store, key, wrong, "mine"));
            CHECK_STATUS(FENCED, extend(store, key, wrong, 0));
            CHECK_STATUS(FENCED, wb_idem_sending(store, &op, wrong, NULL));
            CHECK_STATUS(FENCED, wb_idem_unknown(store, &op, wrong, NULL));
            if (zero || s != RELEASED) /* else it is gone */
                CHECK_STATUS(FENCED, release(store, key, wrong));
        }
        check_untouched(store, key, (enum situation)s);
    }
    wb_idem_close(store);
}

/* C-6 */
TEST(test_idem__release_of_a_key_that_is_gone__ok)
{
    struct wb_idem *store = open_store();

    CHECK_STATUS(OK, release(store, "never", 7));
    wb_idem_close(store);
}

/* C-4 */
TEST(test_idem__tokens_of_a_key__never_repeat)
{
    enum {
        N = 300
    };
    static uint64_t seen[N];
    struct wb_idem *store = open_store();

    for (int i = 0; i < N; i++) {
        CHECK_ANSWER(ACQUIRED, begin(store, "k", &seen[i]));
        for (int j = 0; j < i; j++)
            CHECK(seen[j] != seen[i]);
        if (i % 3 == 0)
            CHECK_STATUS(OK, release(store, "k", seen[i]));
        else
            fake_clock_advance_ms(60000);
        if (i % 50 == 49) { /* nor across a restart */
            wb_idem_close(store);
            store = open_store();
        }
    }
    wb_idem_close(store);
}

/* ---- lease (C-3) ------------------------------------------------------- */

TEST(test_idem__lease__sixty_seconds_half_open)
{
    static const int64_t standard[] = {0, -5};
    struct wb_idem *store = open_store();

    for (size_t i = 0; i < WB_COUNT(standard); i++) {
        struct wb_idem_begin how = {.lease_ms = standard[i]};
        struct wb_idem_result r = begin_with(store, "k", "request", how);

        CHECK_ANSWER(ACQUIRED, r.answer);
        fake_clock_advance_ms(59999);
        CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
        fake_clock_advance_ms(1);
        CHECK_ANSWER(ACQUIRED, begin(store, "k", &r.token));
        CHECK_STATUS(OK, release(store, "k", r.token));
    }
    wb_idem_close(store);
}

/* C-4: a paused machine */
TEST(test_idem__late_extend__the_lease_is_held_again)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {.sending = true};
    struct wb_idem_result r = begin_with(store, "sending", "request", how);
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "claimed", &token));
    fake_clock_advance_ms(3600000);
    CHECK_ANSWER(UNKNOWN, begin(store, "sending", NULL));
    CHECK_STATUS(OK, extend(store, "claimed", token, 1000));
    CHECK_STATUS(OK, extend(store, "sending", r.token, 1000));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "claimed", NULL));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "sending", NULL));
    fake_clock_advance_ms(1000);
    CHECK_ANSWER(UNKNOWN, begin(store, "sending", NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "claimed", NULL));
    CHECK_STATUS(FENCED, complete(store, "claimed", token, "late"));
    wb_idem_close(store);
}

/* C-4: what looks at the key meanwhile does not take it from its holder */
TEST(test_idem__late_and_looked_at__the_token_is_still_good)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_item item;
    uint64_t token, other;

    for (int sending = 0; sending < 2; sending++) {
        CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
        if (sending)
            CHECK_STATUS(OK, wb_idem_sending(store, &op, token, NULL));
        fake_clock_advance_ms(3600000);
        CHECK_INT(sending ? WB_OK : WB_NOTFOUND,
            wb_idem_peek(store, &op, &item, NULL));
        CHECK(!has(store, "k", ""));
        CHECK_ANSWER(ACQUIRED, begin(store, "other", &other));
        CHECK_STATUS(OK, release(store, "other", other));
        CHECK_STATUS(OK, wb_idem_reap(store, NULL, NULL));
        CHECK_STATUS(FENCED, complete(store, "k", token ^ 1, "wrong"));
        CHECK_STATUS(OK, complete(store, "k", token, "late"));
        CHECK_ANSWER(REPLAY, begin(store, "k", NULL));
        CHECK_STATUS(OK, wb_idem_forget(store, &op, NULL, NULL));
    }
    wb_idem_close(store);
}

TEST(test_idem__extend__lease_counts_from_now)
{
    struct wb_idem *store = open_store();
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    fake_clock_advance_ms(59999);
    CHECK_STATUS(OK, extend(store, "k", token, 5000));
    fake_clock_advance_ms(4999);
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    CHECK_STATUS(OK, extend(store, "k", token, 0));
    fake_clock_advance_ms(59999);
    CHECK_STATUS(OK, complete(store, "k", token, "done"));
    wb_idem_close(store);
}

/* C-3: the lease has no effect on how long a record is kept */
TEST(test_idem__completed__outlives_the_lease)
{
    struct wb_idem *store = open_store();
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, complete(store, "k", token, "done"));
    fake_clock_advance_ms(WB_IDEM_TTL_MS - 1);
    CHECK(has(store, "k", "done"));
    fake_clock_advance_ms(1);
    CHECK(!has(store, "k", "done"));
    wb_idem_close(store);
}

/* ---- waiting (C-2), by a clock that is moved --------------------------- */

TEST(test_idem__wait__held_after_it)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {.wait_ms = 10000};
    int64_t from = fake_env.mono_us;
    struct wb_idem_result r;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    r = begin_with(store, "k", "request", how);
    CHECK_ANSWER(HELD, r.answer);
    CHECK(fake_env.mono_us - from >= 10000000);
    CHECK(fake_env.mono_us - from <= 10100000);
    wb_idem_close(store);
}

TEST(test_idem__wait_past_the_lease__waiter_acquires)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {.wait_ms = 100000};
    int64_t from = fake_env.mono_us;
    struct wb_idem_result r;
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    r = begin_with(store, "k", "request", how);
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK(fake_env.mono_us - from >= 60000000);
    CHECK(fake_env.mono_us - from <= 60100000);
    CHECK_STATUS(FENCED, complete(store, "k", token, "late"));
    wb_idem_close(store);
}

static struct wb_idem *sleeping_store;
static uint64_t sleeping_token;
static int naps;

/* The holder ends its claim while another begin waits. */
static void
complete_at_third_nap(void *ctx, int64_t us)
{
    sleep_by_clock(ctx, us);
    CHECK(us <= 25000);
    if (++naps == 3)
        CHECK_STATUS(OK, complete(sleeping_store, "k", sleeping_token, "done"));
}

static void
release_at_third_nap(void *ctx, int64_t us)
{
    sleep_by_clock(ctx, us);
    if (++naps == 3)
        CHECK_STATUS(OK, release(sleeping_store, "k", sleeping_token));
}

static void
unknown_at_third_nap(void *ctx, int64_t us)
{
    struct wb_idem_op op = op_of("me", "s", "k");

    sleep_by_clock(ctx, us);
    if (++naps == 3)
        CHECK_STATUS(
            OK, wb_idem_unknown(sleeping_store, &op, sleeping_token, NULL));
}

TEST(test_idem__holder_ends_while_waited_for__waiter_gets_the_outcome)
{
    static const struct {
        void (*nap)(void *ctx, int64_t us);
        enum wb_idem_answer answer;
    } ways[] = {{complete_at_third_nap, WB_IDEM_REPLAY},
        {release_at_third_nap, WB_IDEM_ACQUIRED},
        {unknown_at_third_nap, WB_IDEM_UNKNOWN}};
    struct wb_idem_begin how = {.wait_ms = 10000};

    for (size_t i = 0; i < WB_COUNT(ways); i++) {
        struct wb_idem_op op = op_of("me", "s", "k");
        struct wb_idem_result r;
        enum wb_status rc;

        sleeping_store = open_store();
        rc = wb_idem_forget(sleeping_store, &op, NULL, NULL);
        CHECK(rc == WB_OK || rc == WB_NOTFOUND); /* of the round before */
        naps = 0;
        CHECK_ANSWER(ACQUIRED, begin(sleeping_store, "k", &sleeping_token));
        fake_env.env.sleep_us = ways[i].nap;
        r = begin_with(sleeping_store, "k", "request", how);
        CHECK_INT(ways[i].answer, r.answer);
        CHECK_INT(3, naps);
        wb_idem_result_free(&r);
        wb_idem_close(sleeping_store);
    }
}

/* M-7: a begin with another fingerprint is answered at once */
TEST(test_idem__mismatch_in_flight__no_wait)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {.wait_ms = 10000};
    int64_t from = fake_env.mono_us;
    struct wb_idem_result r;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    r = begin_with(store, "k", "other", how);
    CHECK_ANSWER(MISMATCH, r.answer);
    CHECK_INT(from, fake_env.mono_us);
    wb_idem_close(store);
}

/* ---- unknown (dispatcher, G-9) ----------------------------------------- */

TEST(test_idem__sending_lease_ended__unknown_never_free)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {.sending = true};
    struct wb_idem_op op = op_of("me", "s", "later");
    struct wb_idem_result r;
    uint64_t token;

    r = begin_with(store, "k", "request", how);
    CHECK_ANSWER(ACQUIRED, r.answer);
    CHECK_ANSWER(ACQUIRED, begin(store, "later", &token));
    CHECK_STATUS(OK, wb_idem_sending(store, &op, token, NULL));
    fake_clock_advance_ms(59999);
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "later", NULL));
    fake_clock_advance_ms(1);
    CHECK_ANSWER(UNKNOWN, begin(store, "k", NULL));
    CHECK_ANSWER(UNKNOWN, begin(store, "later", NULL));
    CHECK_STATUS(OK, complete(store, "later", token, "late"));
    CHECK(has(store, "later", "late"));
    fake_clock_advance_ms(86400000 - 1);
    CHECK_ANSWER(UNKNOWN, begin(store, "k", NULL));
    fake_clock_advance_ms(1); /* the hold ends */
    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    wb_idem_close(store);
}

TEST(test_idem__sending__completes_and_releases_as_any_claim)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {.sending = true};
    struct wb_idem_result r = begin_with(store, "k", "request", how);

    CHECK_STATUS(OK, extend(store, "k", r.token, 1000));
    CHECK_STATUS(OK, complete(store, "k", r.token, "done"));
    CHECK(has(store, "k", "done"));
    r = begin_with(store, "l", "request", how);
    CHECK_STATUS(OK, release(store, "l", r.token));
    CHECK_ANSWER(ACQUIRED, begin(store, "l", NULL));
    wb_idem_close(store);
}

TEST(test_idem__unknown__holds_the_key_until_hold_ms_passed)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.hold_ms = 5000});
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_begin wait = {.wait_ms = 1000};
    struct wb_idem_result r;
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, wb_idem_unknown(store, &op, token, NULL));
    r = begin_with(store, "k", "request", wait);
    CHECK_ANSWER(UNKNOWN, r.answer);
    r = begin_with(store, "k", "other", wait);
    CHECK_ANSWER(MISMATCH, r.answer);
    CHECK(!has(store, "k", ""));
    fake_clock_advance_ms(4999);
    CHECK_ANSWER(UNKNOWN, begin(store, "k", NULL));
    fake_clock_advance_ms(1);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", NULL));
    wb_idem_close(store);
}

TEST(test_idem__settle__done_with_a_record_or_free)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k"),
                      free_op = op_of("me", "s", "f");
    struct wb_idem_record record = record_of(204, "");
    uint64_t token;

    CHECK_STATUS(NOTFOUND, wb_idem_settle(store, &op, &record, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(NOTFOUND, wb_idem_settle(store, &op, &record, NULL));
    CHECK_STATUS(OK, wb_idem_unknown(store, &op, token, NULL));
    CHECK_STATUS(OK, wb_idem_settle(store, &op, &record, NULL));
    CHECK_ANSWER(REPLAY, begin(store, "k", NULL));
    CHECK_STATUS(NOTFOUND, wb_idem_settle(store, &op, &record, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "f", &token));
    CHECK_STATUS(OK, wb_idem_sending(store, &free_op, token, NULL));
    fake_clock_advance_ms(60000);
    CHECK_STATUS(OK, wb_idem_settle(store, &free_op, NULL, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "f", NULL));
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem__token_presented__accepted_or_fenced_as_the_table_says),
        RUN(test_idem__wrong_or_zero_token__fenced_in_every_situation),
        RUN(test_idem__release_of_a_key_that_is_gone__ok),
        RUN(test_idem__tokens_of_a_key__never_repeat),
        RUN(test_idem__lease__sixty_seconds_half_open),
        RUN(test_idem__late_extend__the_lease_is_held_again),
        RUN(test_idem__late_and_looked_at__the_token_is_still_good),
        RUN(test_idem__extend__lease_counts_from_now),
        RUN(test_idem__completed__outlives_the_lease),
        RUN(test_idem__wait__held_after_it),
        RUN(test_idem__wait_past_the_lease__waiter_acquires),
        RUN(test_idem__holder_ends_while_waited_for__waiter_gets_the_outcome),
        RUN(test_idem__mismatch_in_flight__no_wait),
        RUN(test_idem__sending_lease_ended__unknown_never_free),
        RUN(test_idem__sending__completes_and_releases_as_any_claim),
        RUN(test_idem__unknown__holds_the_key_until_hold_ms_passed),
        RUN(test_idem__settle__done_with_a_record_or_free),
    };

    RUN_EVERY(tests);
}
