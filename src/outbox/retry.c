/* retry.c - the retry decision. Pure functions only: no clock, no I/O. */
#include "waybill/retry.h"

#include "outbox/outbox_internal.h"

static const struct wb_retry_policy standard = WB_RETRY_POLICY_DEFAULT;

const char *
wb__outcome_name(enum wb_outcome outcome)
{
    static const char *const names[] = {[WB_DELIVERED] = "delivered",
        [WB_RETRY] = "retry",
        [WB_REJECTED] = "rejected",
        [WB_UNKNOWN] = "unknown"};

    return names[outcome];
}

/* The most that is added to a listed delay. */
static int64_t
spread_ms(int64_t delay)
{
    return delay / 10;
}

/* The policy with every value in range, so that nothing below can overflow. */
static struct wb_retry_policy
in_range(const struct wb_retry_policy *policy)
{
    struct wb_retry_policy p = policy == NULL ? standard : *policy;

    if (p.base_ms < 0)
        p.base_ms = 0;
    if (p.cap_ms < p.base_ms)
        p.cap_ms = p.base_ms;
    if (p.retry_after_ms < 0)
        p.retry_after_ms = 0;
    if (p.factor < 1)
        p.factor = 1;
    if (p.max_attempts < 1)
        p.max_attempts = 1;
    if (p.delays_ms == NULL)
        p.n_delays = 0;
    return p;
}

/* base, base * factor, base * factor^2 ... cap; or a listed delay, with the
 * most that is added to it. */
static int64_t
window_ms(const struct wb_retry_policy *p, uint32_t number)
{
    int64_t window = p->base_ms;

    if (p->n_delays > 0) {
        uint32_t last = number < p->n_delays ? number : p->n_delays;

        window = p->delays_ms[last > 0 ? last - 1 : 0];
        return window > 0 ? wb__sat_add(window, spread_ms(window)) : 0;
    }
    for (uint32_t i = 1; i < number && window < p->cap_ms; i++) {
        if (p->factor == 1 || window == 0)
            break;
        if (window > p->cap_ms / p->factor)
            return p->cap_ms;
        window *= p->factor;
    }
    return window;
}

static struct wb_decision
dead(const char *why)
{
    return (struct wb_decision){.verdict = WB_VERDICT_DEAD, .why = why};
}

int64_t
wb__retry_after_ms(
    const struct wb_retry_policy *policy, const struct wb_attempt *attempt)
{
    struct wb_retry_policy p = in_range(policy);

    return attempt->retry_after_ms < p.retry_after_ms ? attempt->retry_after_ms
                                                      : p.retry_after_ms;
}

struct wb_decision
wb_retry_decide(
    const struct wb_retry_policy *policy, const struct wb_attempt *attempt)
{
    struct wb_retry_policy p = in_range(policy);
    int64_t now = attempt->now_ms > 0 ? attempt->now_ms : 0;
    int64_t window, half, delay;
    int64_t retry_after = wb__retry_after_ms(policy, attempt);

    if (attempt->outcome == WB_DELIVERED)
        return (struct wb_decision){
            .verdict = WB_VERDICT_DONE, .why = "delivered"};
    if (attempt->outcome == WB_REJECTED && !p.retry_rejected)
        return dead("rejected");
    if (attempt->number >= p.max_attempts)
        return dead("attempts");
    window = window_ms(&p, attempt->number);
    /* A listed delay is kept, and its retries spread a little. */
    half = p.n_delays > 0 ? window / 11 : window / 2;
    /* Upper half of the window, so that retries spread but never bunch at
     * zero. */
    delay = window - half + (int64_t)(attempt->random % ((uint64_t)half + 1));
    if (retry_after > delay)
        delay = retry_after;
    return (struct wb_decision){.verdict = WB_VERDICT_RETRY,
        .at_ms = wb__sat_add(now, delay),
        .why = "retry"};
}

int64_t
wb_retry_horizon_ms(const struct wb_retry_policy *policy, bool with_retry_after)
{
    struct wb_retry_policy p = in_range(policy);
    int64_t sum = 0;

    for (uint32_t n = 1; n < p.max_attempts && sum < INT64_MAX; n++) {
        int64_t wait = window_ms(&p, n);
        uint32_t times = 1;

        if (n >= p.n_delays && wait == window_ms(&p, n + 1))
            times = p.max_attempts - n; /* so are all that follow */
        if (with_retry_after && p.retry_after_ms > wait)
            wait = p.retry_after_ms;
        if (wait > (INT64_MAX - sum) / times)
            return INT64_MAX;
        sum += wait * times;
        n += times - 1;
    }
    return sum;
}
