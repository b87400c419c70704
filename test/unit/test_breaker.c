/* test_breaker.c - B-1 to B-4, I8: rule by rule, then a random walk of two
 * scopes against a dumb model. */
#include <stdio.h>

#include "outbox_fixture.h"

static struct wb_retry_policy again = {.max_attempts = UINT32_MAX,
    .retry_rejected = true};

/* Claim one of a and end it so. */
static void
attempt(struct wb_outbox *box, enum wb_end end, enum wb_outcome outcome)
{
    struct taken t = box_claim(box, "a");
    struct wb_finish f = {.id = t.id,
        .token = t.token,
        .end = end,
        .outcome = outcome,
        .retry = &again};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_finish(box, &f, 1, NULL, NULL, &err), err);
    CHECK_STATUS(OK, f.status);
}

static void
fail_times(struct wb_outbox *box, int n)
{
    for (int i = 0; i < n; i++)
        attempt(box, WB_FAIL, WB_RETRY);
}

static enum wb_status
copy_breaker(void *ctx, const struct wb_breaker *b)
{
    struct wb_breaker *out = ctx;

    *out = *b;
    out->scope = (struct wb_slice){0};
    return WB_OK;
}

static struct wb_breaker
breaker_of(struct wb_outbox *box, const char *scope)
{
    struct wb_breaker b = {0};
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_breakers(box, S(scope), copy_breaker, &b, &err), err);
    return b;
}

static struct wb_outbox *
box_with(size_t n)
{
    struct wb_outbox *box = box_open();

    box_fill(box, "a", n);
    return box;
}

TEST(test_breaker__B1_three_failures_in_a_row__open_for_a_minute)
{
    struct wb_outbox *box = box_with(9);
    int64_t next = 0;

    attempt(box, WB_FAIL, WB_RETRY);
    attempt(box, WB_FAIL, WB_UNKNOWN);
    CHECK_INT(WB_CLOSED, breaker_of(box, "a").state);
    CHECK_INT(2, breaker_of(box, "a").failures);
    attempt(box, WB_FAIL, WB_RETRY);
    CHECK_INT(WB_OPEN, breaker_of(box, "a").state);
    CHECK_INT(FAKE_START_MS + 60000, breaker_of(box, "a").open_until_ms);
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, &next));
    CHECK_INT(FAKE_START_MS + 60000, next);
    fake_clock_advance_ms(59999);
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    fake_clock_advance_ms(1);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

TEST(test_breaker__B1_none__names_the_scopes_that_held_back)
{
    struct wb_outbox *box = box_with(9);
    struct wb_claim claim = {0};
    struct wb_batch batch = {0};

    fail_times(box, 3);
    CHECK_STATUS(EMPTY, wb_outbox_claim(box, &claim, &batch, NULL));
    CHECK_INT(1, batch.n_scopes);
    CHECK_SLICE("a", batch.scopes[0]);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_breaker__B1_rejected__neither_counts_nor_resets)
{
    struct wb_outbox *box = box_with(9);

    fail_times(box, 2);
    attempt(box, WB_FAIL, WB_REJECTED);
    CHECK_INT(2, breaker_of(box, "a").failures);
    attempt(box, WB_RELEASE, WB_RETRY);
    CHECK_INT(2, breaker_of(box, "a").failures);
    fail_times(box, 1);
    CHECK_INT(WB_OPEN, breaker_of(box, "a").state);
    wb_outbox_close(box);
}

TEST(test_breaker__B2_any_confirm__resets_the_count)
{
    struct wb_outbox *box = box_with(9);

    fail_times(box, 2);
    attempt(box, WB_CONFIRM, WB_DELIVERED);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_breaker"));
    fail_times(box, 2);
    CHECK_INT(WB_CLOSED, breaker_of(box, "a").state);
    wb_outbox_close(box);
}

TEST(test_breaker__B2_half_open__exactly_one_probe_whatever_is_asked)
{
    struct wb_outbox *box = box_with(9);
    const struct wb_source two[] = {{.kind = S("a")}, {.kind = S("a")}};
    struct wb_claim claim = {.sources = two, .n_sources = 2, .max = 100};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    fail_times(box, 3);
    fake_clock_advance_ms(60000);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(1, batch.len);
    CHECK_INT(WB_HALF_OPEN, breaker_of(box, "a").state);
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    CHECK_OK(wb_outbox_confirm(box, &batch.row[0].id, batch.row[0].token, &err),
        err);
    CHECK_INT(WB_CLOSED, breaker_of(box, "a").state);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(8, batch.len);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_breaker__B2_probe_fails__open_again_at_once)
{
    struct wb_outbox *box = box_with(9);

    fail_times(box, 3);
    for (int i = 0; i < 3; i++) {
        fake_clock_advance_ms(60000);
        attempt(box, WB_FAIL, WB_RETRY);
        CHECK_INT(WB_OPEN, breaker_of(box, "a").state);
        CHECK_INT(fake_env.wall_ms + 60000, breaker_of(box, "a").open_until_ms);
        CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    }
    wb_outbox_close(box);
}

TEST(test_breaker__B2_probe_released_or_rejected__next_may_probe)
{
    struct wb_outbox *box = box_with(9);

    fail_times(box, 3);
    fake_clock_advance_ms(60000);
    attempt(box, WB_RELEASE, WB_RETRY);
    CHECK_INT(WB_HALF_OPEN, breaker_of(box, "a").state);
    attempt(box, WB_FAIL, WB_REJECTED);
    CHECK_INT(WB_HALF_OPEN, breaker_of(box, "a").state);
    attempt(box, WB_CONFIRM, WB_DELIVERED);
    CHECK_INT(WB_CLOSED, breaker_of(box, "a").state);
    wb_outbox_close(box);
}

TEST(test_breaker__B2_prober_killed__next_may_probe_after_its_lease)
{
    struct wb_outbox *box = box_with(9);
    struct wb_finish f = {0};
    struct taken dead;
    int64_t next = 0;

    fail_times(box, 3);
    fake_clock_advance_ms(60000);
    dead = box_claim(box, NULL);
    f.id = dead.id;
    f.token = dead.token;
    fake_clock_advance_ms(30000);
    CHECK_STATUS(OK, wb_outbox_extend(box, &f, 1, 60000, NULL));
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, &next));
    CHECK_INT(fake_env.wall_ms + 60000, next);
    fake_clock_advance_ms(59999);
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    fake_clock_advance_ms(1);
    (void)box_claim(box, NULL);
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    wb_outbox_close(box);
}

/* A slow worker ends a claim that was made before the breaker opened. */
TEST(test_breaker__B2_late_failure_of_no_probe__changes_no_time)
{
    struct wb_outbox *box = box_with(9);
    struct taken late = box_claim(box, NULL), probe;
    struct wb_finish f;

    fail_times(box, 3);
    f = box_fail(box, &late, WB_RETRY); /* while open */
    CHECK_INT(WB_STATE_PENDING, f.state);
    CHECK_INT(FAKE_START_MS + 60000, breaker_of(box, "a").open_until_ms);
    fake_clock_advance_ms(60000);
    probe = box_claim(box, NULL);
    CHECK_INT(WB_HALF_OPEN, breaker_of(box, "a").state);
    box_confirm(box, &probe);
    CHECK_INT(WB_CLOSED, breaker_of(box, "a").state);
    wb_outbox_close(box);
}

TEST(test_breaker__B2_end_further_than_its_time__counts_as_ended)
{
    struct wb_outbox *box = box_with(9);

    fake_env.wall_ms += 365 * DAY;
    fail_times(box, 3);
    fake_env.wall_ms -= 365 * DAY;
    CHECK_INT(WB_HALF_OPEN, breaker_of(box, "a").state);
    wb_outbox_close(box);
}

TEST(test_breaker__B2_probe_end_further_than_any_lease__counts_as_ended)
{
    struct wb_outbox *box = box_with(9);

    fail_times(box, 3);
    fake_clock_advance_ms(60001);
    (void)box_claim(box, NULL); /* the probe */
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    sql_run("UPDATE waybill_breaker SET probe_until_ms = probe_until_ms +"
            " 691200000"); /* eight days */
    (void)box_claim(box, NULL);
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    wb_outbox_close(box);
}

TEST(test_breaker__B3_scope__shared_by_kinds_and_alone_otherwise)
{
    struct wb_outbox *box = box_with(9);
    const struct wb_source sources[] = {{.kind = S("a"), .scope = S("h1")},
        {.kind = S("b"), .scope = S("h1")}, {.kind = S("c")}};
    struct wb_claim claim = {.sources = sources, .n_sources = 3, .max = 3};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    box_fill(box, "b", 2);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    for (size_t i = 0; i < 3; i++) {
        struct wb_finish f = {.id = batch.row[i].id,
            .token = batch.row[i].token,
            .outcome = WB_RETRY};

        CHECK_OK(wb_outbox_fail(box, &f, &err), err);
    }
    CHECK_INT(WB_OPEN, breaker_of(box, "h1").state);
    CHECK_INT(WB_CLOSED, breaker_of(box, "a").state);
    box_fill(box, "c", 1);
    CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
    CHECK_INT(1, batch.len); /* of c; neither a nor b */
    CHECK_SLICE("c", batch.row[0].kind);
    CHECK_INT(1, batch.n_scopes);
    CHECK_SLICE("h1", batch.scopes[0]);
    wb_batch_free(&batch);
    wb_outbox_close(box);
}

TEST(test_breaker__B3_open__burns_no_attempts)
{
    struct wb_outbox *box = box_with(4);

    fail_times(box, 3);
    for (int i = 0; i < 50; i++) {
        (void)box_claim_none(box, NULL);
        fake_clock_advance_ms(1000);
    }
    CHECK_INT(3, sql_int("SELECT sum(attempts) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_breaker__B4_other_handle_and_after_reopen__the_same)
{
    struct wb_outbox *box = box_with(4), *other = box_open();

    fail_times(box, 2);
    fail_times(other, 1);
    CHECK_INT(WB_OPEN, breaker_of(box, "a").state);
    wb_outbox_close(box);
    wb_outbox_close(other);
    box = box_open();
    CHECK_INT(WB_NONE_BREAKER_OPEN, box_claim_none(box, NULL));
    wb_outbox_close(box);
}

TEST(test_breaker__B4_healthy_path__has_no_row)
{
    struct wb_outbox *box = box_with(4);

    attempt(box, WB_CONFIRM, WB_DELIVERED);
    attempt(box, WB_RELEASE, WB_RETRY);
    attempt(box, WB_FAIL, WB_REJECTED);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_breaker"));
    wb_outbox_close(box);
}

TEST(test_breaker__R4_hostile_policy_and_clock__neither_shut_nor_crash)
{
    static const struct wb_breaker_policy policies[] = {
        {0, 0}, {1, INT64_MIN}, {1, INT64_MAX}, {UINT32_MAX, -1}, {0, 1}};
    struct wb_outbox *box = box_with(40);
    struct wb_err err = {0};

    for (size_t i = 0; i < 5; i++) {
        struct taken t = box_claim(box, NULL);
        struct wb_finish f = {.id = t.id,
            .token = t.token,
            .outcome = WB_RETRY,
            .retry = &again,
            .breaker = &policies[i]};
        uint64_t n;

        CHECK_OK(wb_outbox_fail(box, &f, &err), err);
        (void)breaker_of(box, "a");
        CHECK_OK(wb_outbox_breaker_reset(box, S(""), &n, &err), err);
        (void)box_claim(box, NULL);
    }
    fake_env.wall_ms = INT64_MAX;
    fail_times(box, 3);
    (void)breaker_of(box, "a");
    fake_env.wall_ms = FAKE_START_MS;
    CHECK_INT(WB_HALF_OPEN, breaker_of(box, "a").state);
    wb_outbox_close(box);
}

TEST(test_breaker__reset__closes_and_counts_what_was_not_closed)
{
    struct wb_outbox *box = box_with(9);
    struct wb_err err = {0};
    uint64_t n = 9;

    fail_times(box, 2);
    CHECK_OK(wb_outbox_breaker_reset(box, S("a"), &n, &err), err);
    CHECK_INT(0, n); /* it was closed */
    CHECK_INT(0, breaker_of(box, "a").failures);
    fail_times(box, 3);
    CHECK_OK(wb_outbox_breaker_reset(box, S("b"), &n, &err), err);
    CHECK_INT(0, n);
    CHECK_INT(WB_OPEN, breaker_of(box, "a").state);
    CHECK_OK(wb_outbox_breaker_reset(box, S("a"), &n, &err), err);
    CHECK_INT(1, n);
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

/* ---- a model ----------------------------------------------------------- */

struct model {
    uint32_t failures;
    bool open;
    int64_t until, probe_end;
    uint64_t probe; /* token */
};

static unsigned
some_random(unsigned below)
{
    uint64_t r;

    ENV->random(ENV->ctx, &r, sizeof(r));
    return (unsigned)(r % below);
}

static void
model_end(struct model *m, const struct wb_finish *f, int64_t now)
{
    bool probe = m->open && m->probe == f->token;

    if (f->end == WB_CONFIRM && (probe || !m->open)) {
        *m = (struct model){0};
    } else if (f->end == WB_CONFIRM) {
        m->failures = 0;
    } else if (f->end == WB_RELEASE || f->outcome == WB_REJECTED) {
        if (probe)
            m->probe = 0;
    } else if (++m->failures >= 3 || probe) {
        if (probe || !m->open)
            *m = (struct model){m->failures, true, now + 60000, 0, 0};
    }
}

static bool
model_lets(const struct model *m, int64_t now)
{
    return !m->open ||
           (now >= m->until && (m->probe == 0 || now >= m->probe_end));
}

/* One claim, compared with the model, then perhaps ends of old claims. */
static void
walk(struct wb_outbox *box, struct model *m, struct wb_finish *held, size_t *n)
{
    int64_t now = fake_env.wall_ms;
    struct wb_source source = {.kind = S("a")};
    struct wb_claim claim = {
        .sources = &source, .n_sources = 1, .max = 1 + some_random(3)};
    struct wb_batch batch = {0};
    enum wb_status rc = wb_outbox_claim(box, &claim, &batch, NULL);

    CHECK_INT(model_lets(m, now) ? WB_OK : WB_EMPTY, rc);
    CHECK(!m->open || batch.len <= 1);
    for (size_t i = 0; i < batch.len; i++) {
        if (m->open) {
            m->probe = batch.row[i].token;
            m->probe_end = now + 60000;
        }
        if (*n < 32)
            held[(*n)++] = (struct wb_finish){
                .id = batch.row[i].id, .token = batch.row[i].token};
    }
    wb_batch_free(&batch);
    while (*n > 0 && some_random(3) > 0) {
        struct wb_finish *f = &held[some_random((unsigned)*n)];

        f->end = (enum wb_end)some_random(3);
        f->outcome = (enum wb_outcome)(WB_RETRY + some_random(3));
        f->retry = &again;
        CHECK_STATUS(OK, wb_outbox_finish(box, f, 1, NULL, NULL, NULL));
        if (f->status == WB_OK)
            model_end(m, f, now);
        *f = held[--(*n)];
    }
}

TEST(test_breaker__I8_random_walk__as_the_model_says)
{
    struct wb_outbox *box = box_with(3000);
    struct wb_finish held[32];
    struct model m = {0};
    size_t n = 0;
    int opened = 0;

    for (int step = 0; step < 1500; step++) {
        struct wb_breaker b;

        walk(box, &m, held, &n);
        b = breaker_of(box, "a");
        CHECK_INT(m.failures, b.failures);
        CHECK_INT(!m.open                      ? WB_CLOSED
                  : fake_env.wall_ms < m.until ? WB_OPEN
                                               : WB_HALF_OPEN,
            b.state);
        opened += m.open;
        fake_clock_advance_ms(some_random(2) ? some_random(20000) : 0);
        if (some_random(100) == 0) {
            wb_outbox_close(box);
            box = box_open();
        }
    }
    CHECK(opened > 100);
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_breaker__B1_three_failures_in_a_row__open_for_a_minute),
        RUN(test_breaker__B1_none__names_the_scopes_that_held_back),
        RUN(test_breaker__B1_rejected__neither_counts_nor_resets),
        RUN(test_breaker__B2_any_confirm__resets_the_count),
        RUN(test_breaker__B2_half_open__exactly_one_probe_whatever_is_asked),
        RUN(test_breaker__B2_probe_fails__open_again_at_once),
        RUN(test_breaker__B2_probe_released_or_rejected__next_may_probe),
        RUN(test_breaker__B2_prober_killed__next_may_probe_after_its_lease),
        RUN(test_breaker__B2_late_failure_of_no_probe__changes_no_time),
        RUN(test_breaker__B2_end_further_than_its_time__counts_as_ended),
        RUN(test_breaker__B2_probe_end_further_than_any_lease__counts_as_ended),
        RUN(test_breaker__B3_scope__shared_by_kinds_and_alone_otherwise),
        RUN(test_breaker__B3_open__burns_no_attempts),
        RUN(test_breaker__B4_other_handle_and_after_reopen__the_same),
        RUN(test_breaker__B4_healthy_path__has_no_row),
        RUN(test_breaker__R4_hostile_policy_and_clock__neither_shut_nor_crash),
        RUN(test_breaker__reset__closes_and_counts_what_was_not_closed),
        RUN(test_breaker__I8_random_walk__as_the_model_says),
    };
    return RUN_ALL(tests);
}
