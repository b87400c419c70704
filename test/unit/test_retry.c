/* test_retry.c - R-1 to R-4: the decision, as a table and over hostile values.
 */
#include <stdio.h>

#include "support.h"
#include "waybill/retry.h"

static const struct wb_retry_policy standard = WB_RETRY_POLICY_DEFAULT;

static struct wb_decision
decide(const struct wb_retry_policy *policy, enum wb_outcome outcome,
    uint32_t number, int64_t asked, uint64_t random)
{
    struct wb_attempt a = {.outcome = outcome,
        .number = number,
        .now_ms = FAKE_START_MS,
        .retry_after_ms = asked,
        .random = random};

    return wb_retry_decide(policy, &a);
}

TEST(test_retry__R1_outcomes__done_retry_dead_with_a_reason)
{
    struct wb_retry_policy stubborn = standard;
    struct wb_decision d;

    d = decide(NULL, WB_DELIVERED, 1, 0, 0);
    CHECK_INT(WB_VERDICT_DONE, d.verdict);
    CHECK_TEXT("delivered", d.why);
    d = decide(NULL, WB_DELIVERED, 100, 0, 0);
    CHECK_INT(WB_VERDICT_DONE, d.verdict);
    d = decide(NULL, WB_REJECTED, 1, 0, 0);
    CHECK_INT(WB_VERDICT_DEAD, d.verdict);
    CHECK_TEXT("rejected", d.why);
    CHECK_INT(0, d.at_ms);
    d = decide(NULL, WB_UNKNOWN, 7, 0, 0);
    CHECK_INT(WB_VERDICT_RETRY, d.verdict);
    CHECK_TEXT("retry", d.why);
    d = decide(NULL, WB_RETRY, 8, 0, 0);
    CHECK_INT(WB_VERDICT_DEAD, d.verdict);
    CHECK_TEXT("attempts", d.why);
    stubborn.retry_rejected = true;
    CHECK_INT(
        WB_VERDICT_RETRY, decide(&stubborn, WB_REJECTED, 7, 0, 0).verdict);
    CHECK_INT(WB_VERDICT_DEAD, decide(&stubborn, WB_REJECTED, 8, 0, 0).verdict);
}

TEST(test_retry__R2_default__ten_seconds_by_four_up_to_six_hours)
{
    static const int64_t window[] = {
        10000, 40000, 160000, 640000, 2560000, 10240000, 21600000};

    for (uint32_t i = 0; i < 7; i++) {
        int64_t half = window[i] / 2, at;

        at = decide(NULL, WB_RETRY, i + 1, 0, 0).at_ms - FAKE_START_MS;
        CHECK_INT(window[i] - half, at);
        at = decide(NULL, WB_RETRY, i + 1, 0, (uint64_t)half).at_ms -
             FAKE_START_MS;
        CHECK_INT(window[i], at);
        at = decide(NULL, WB_RETRY, i + 1, 0, UINT64_MAX).at_ms - FAKE_START_MS;
        CHECK(at >= window[i] - half && at <= window[i]);
    }
}

TEST(test_retry__R2_jitter__spreads_over_the_upper_half)
{
    int quarter[4] = {0};

    for (int i = 0; i < 4000; i++) {
        uint64_t r;
        int64_t wait;

        ENV->random(ENV->ctx, &r, sizeof(r));
        wait = decide(NULL, WB_RETRY, 1, 0, r).at_ms - FAKE_START_MS;
        CHECK(wait >= 5000 && wait <= 10000);
        quarter[(wait - 5000) * 4 / 5001]++;
    }
    for (int i = 0; i < 4; i++)
        CHECK(quarter[i] > 800 && quarter[i] < 1200);
}

TEST(test_retry__R2_immediate__at_once_eight_times)
{
    const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;

    for (uint32_t i = 1; i < 8; i++)
        CHECK_INT(
            FAKE_START_MS, decide(&now, WB_RETRY, i, 0, UINT64_MAX).at_ms);
    CHECK_INT(WB_VERDICT_DEAD, decide(&now, WB_RETRY, 8, 0, 0).verdict);
    CHECK_INT(0, wb_retry_horizon_ms(&now, false));
}

TEST(test_retry__R3_retry_after__a_minimum_bounded_by_a_day)
{
    CHECK_INT(FAKE_START_MS + 5000, /* below the minimum of the window */
        decide(NULL, WB_RETRY, 1, 4999, 0).at_ms);
    CHECK_INT(FAKE_START_MS + 5001, decide(NULL, WB_RETRY, 1, 5001, 0).at_ms);
    CHECK_INT(
        FAKE_START_MS + 86400000, decide(NULL, WB_RETRY, 1, 86400001, 0).at_ms);
    CHECK_INT(FAKE_START_MS + 86400000,
        decide(NULL, WB_RETRY, 1, INT64_MAX, 0).at_ms);
    CHECK_INT(
        FAKE_START_MS + 5000, decide(NULL, WB_RETRY, 1, INT64_MIN, 0).at_ms);
}

/* Whatever the arguments: not before now, not further than the larger limit,
 * and dead in the end. */
static void
check_hostile(const struct wb_retry_policy *p, const struct wb_attempt *a)
{
    struct wb_decision d = wb_retry_decide(p, a);
    int64_t now = a->now_ms > 0 ? a->now_ms : 0;
    int64_t cap = p->cap_ms > p->base_ms ? p->cap_ms : p->base_ms;
    int64_t most = cap > p->retry_after_ms ? cap : p->retry_after_ms;
    int64_t last;

    for (uint32_t i = 0; i < p->n_delays; i++)
        if (p->delays_ms[i] > most)
            most = p->delays_ms[i];
    if (most < 0)
        most = 0;
    if (p->n_delays > 0)
        most = most > INT64_MAX - most / 10 ? INT64_MAX : most + most / 10;
    last = now > INT64_MAX - most ? INT64_MAX : now + most;
    CHECK(d.why != NULL);
    if (d.verdict != WB_VERDICT_RETRY) {
        CHECK_INT(0, d.at_ms);
        return;
    }
    CHECK(d.at_ms >= now && d.at_ms <= last);
    CHECK(a->number < (p->max_attempts < 1 ? 1 : p->max_attempts));
}

TEST(test_retry__R4_hostile_values__neither_immortal_nor_ancient)
{
    static const int64_t t[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, 59999,
        86400000, INT64_MAX / 2, INT64_MAX - 1, INT64_MAX};
    static const uint32_t u[] = {0, 1, 2, 8, UINT32_MAX - 1, UINT32_MAX};

    for (int i = 0; i < 200000; i++) {
        uint32_t r[10];
        struct wb_retry_policy p;
        struct wb_attempt a;

        ENV->random(ENV->ctx, r, sizeof(r));
        p = (struct wb_retry_policy){t[r[0] % 10], t[r[1] % 10], t[r[2] % 10],
            u[r[3] % 6], u[r[4] % 6], r[5] % 2, t, r[9] % 11};
        a = (struct wb_attempt){(enum wb_outcome)(r[5] / 2 % 4), u[r[6] % 6],
            t[r[7] % 10], t[r[8] % 10], (uint64_t)r[9] << 32 | r[0]};
        check_hostile(&p, &a);
    }
}

TEST(test_retry__listed_delays__kept_the_last_one_repeats)
{
    static const int64_t delays[] = {1000, 5, 60000};
    struct wb_retry_policy p = {.max_attempts = 6,
        .delays_ms = delays,
        .n_delays = 3,
        .retry_after_ms = 70000};
    static const int64_t least[] = {1000, 5, 60000, 60000, 60000};

    for (uint32_t n = 1; n <= 5; n++)
        for (int k = 0; k < 3; k++) {
            struct wb_attempt a = {.outcome = WB_RETRY,
                .number = n,
                .now_ms = 100,
                .random = k == 0   ? 0
                          : k == 1 ? UINT64_MAX
                                   : 12345};
            struct wb_decision d = wb_retry_decide(&p, &a);
            int64_t delay = d.at_ms - 100;

            CHECK_INT(WB_VERDICT_RETRY, d.verdict);
            CHECK(delay >= least[n - 1] &&
                  delay <= least[n - 1] + least[n - 1] / 10);
            CHECK(k > 0 || delay == least[n - 1]);
            a.retry_after_ms = 65000;
            CHECK(wb_retry_decide(&p, &a).at_ms >= 65100);
        }
    CHECK_INT(1100 + 5 + 3 * 66000, wb_retry_horizon_ms(&p, false));
    CHECK_INT(5 * 70000, wb_retry_horizon_ms(&p, true));
}

TEST(test_retry__R4_clock_near_the_end_of_time__saturates)
{
    struct wb_attempt a = {
        .outcome = WB_RETRY, .number = 1, .now_ms = INT64_MAX - 1};

    CHECK_INT(INT64_MAX, wb_retry_decide(NULL, &a).at_ms);
    a.now_ms = INT64_MIN;
    CHECK_INT(5000, wb_retry_decide(NULL, &a).at_ms);
}

/* The horizon is the sum of the longest waits, and covers every run. */
TEST(test_retry__R2_horizon__sum_of_the_longest_waits)
{
    struct wb_retry_policy p = standard;

    CHECK_INT(35250000, wb_retry_horizon_ms(NULL, false));
    CHECK_INT(INT64_C(7) * 86400000, wb_retry_horizon_ms(NULL, true));
    p.max_attempts = 1;
    CHECK_INT(0, wb_retry_horizon_ms(&p, true));
    p.max_attempts = UINT32_MAX;
    CHECK_INT(35250000 - 21600000 + INT64_C(21600000) * (UINT32_MAX - 7),
        wb_retry_horizon_ms(&p, false));
    p.cap_ms = INT64_MAX;
    CHECK_INT(INT64_MAX, wb_retry_horizon_ms(&p, false));
    p.factor = 0;
    p.base_ms = -5;
    CHECK_INT(
        INT64_C(86400000) * (UINT32_MAX - 1), wb_retry_horizon_ms(&p, true));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_retry__R1_outcomes__done_retry_dead_with_a_reason),
        RUN(test_retry__R2_default__ten_seconds_by_four_up_to_six_hours),
        RUN(test_retry__R2_jitter__spreads_over_the_upper_half),
        RUN(test_retry__R2_immediate__at_once_eight_times),
        RUN(test_retry__R3_retry_after__a_minimum_bounded_by_a_day),
        RUN(test_retry__R4_hostile_values__neither_immortal_nor_ancient),
        RUN(test_retry__R4_clock_near_the_end_of_time__saturates),
        RUN(test_retry__R2_horizon__sum_of_the_longest_waits),
        RUN(test_retry__listed_delays__kept_the_last_one_repeats),
    };
    return RUN_ALL(tests);
}
