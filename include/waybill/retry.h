/* waybill/retry.h - when to try a delivery again, and when to stop. */
#ifndef WB_RETRY_H
#define WB_RETRY_H

#include "waybill/waybill.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The outcome of one attempt. */
enum wb_outcome {
    WB_DELIVERED, /* the receiver accepted it */
    WB_RETRY,     /* not accepted, may be later: refused, 408, 425, 429, 5xx */
    WB_REJECTED,  /* never accepted as it is: other 4xx */
    WB_UNKNOWN,   /* sent, no full response: it may have taken effect */
};

enum wb_verdict {
    WB_VERDICT_DONE,  /* remove from the outbox */
    WB_VERDICT_RETRY, /* try again at at_ms */
    WB_VERDICT_DEAD,  /* abandon; why says which limit was reached */
};

/* A policy that is not given (NULL) is WB_RETRY_POLICY_DEFAULT. Values out of
 * range are taken as the nearest that is in range. */
struct wb_retry_policy {
    int64_t base_ms;          /* delay after the first failure; 0: at once */
    int64_t cap_ms;           /* the delay never grows past this; >= base_ms */
    int64_t retry_after_ms;   /* longest wait a receiver may ask for */
    uint32_t factor;          /* growth per attempt; >= 1 */
    uint32_t max_attempts;    /* abandon after this many; >= 1 */
    bool retry_rejected;      /* retry what was rejected, too */
    const int64_t *delays_ms; /* instead of base, cap and factor: the delay
                                 after each failure; the last one repeats */
    uint32_t n_delays;        /* 0: none are listed */
};

/* 10 s, 40 s, ... 6 h: eight attempts span about ten hours. */
#define WB_RETRY_POLICY_DEFAULT                         \
    {                                                   \
        10000, 21600000, 86400000, 4, 8, false, NULL, 0 \
    }
/* No delay: the next drain tries again, eight times in all. */
#define WB_RETRY_POLICY_IMMEDIATE            \
    {                                        \
        0, 0, 86400000, 1, 8, false, NULL, 0 \
    }

struct wb_attempt {
    enum wb_outcome outcome;
    uint32_t number;        /* 1 for the first attempt */
    int64_t now_ms;         /* wall clock */
    int64_t retry_after_ms; /* what the receiver asked for, 0 if nothing */
    uint64_t random;        /* 64 fresh random bits, for jitter */
};

struct wb_decision {
    enum wb_verdict verdict;
    int64_t at_ms;   /* RETRY: when; else 0 */
    const char *why; /* static: "delivered", "retry", "attempts", "rejected" */
};

/*
 * Decide what happens to a message after one attempt.
 *
 * Guarantees  Pure: reads no clock, draws no randomness, allocates nothing,
 *             cannot fail. A retry lies in [now + window/2, now + window],
 *             window = base * factor^(number-1) limited to cap; where delays
 *             are listed, in [now + delay, now + delay + delay/10].
 *             Retry-After, limited by the policy, is a lower bound. Whatever
 *             the arguments, a retry is never before now and never later than
 *             the larger of the two limits from now.
 * Source      exponential backoff with jitter over the upper half; see
 *             "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 * Threads     any. Since 0.1
 */
WB_MUST_USE struct wb_decision wb_retry_decide(
    const struct wb_retry_policy *policy, const struct wb_attempt *attempt);

/* The longest time that the policy allows between the first attempt and the
 * last, if every wait is as long as it can be (with_retry_after: as long as
 * Retry-After can make it). Saturates. Keys must be kept for longer than this.
 */
WB_MUST_USE int64_t wb_retry_horizon_ms(
    const struct wb_retry_policy *policy, bool with_retry_after);

/* A breaker opens after this many failures in a row, for this long. */
struct wb_breaker_policy {
    uint32_t failures; /* >= 1 */
    int64_t open_ms;   /* > 0 */
};
#define WB_BREAKER_POLICY_DEFAULT \
    {                             \
        3, 60000                  \
    }

#ifdef __cplusplus
}
#endif
#endif /* WB_RETRY_H */
