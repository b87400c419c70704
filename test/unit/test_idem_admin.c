/* test_idem_admin.c - listing, freeing and reaping of the idempotency store,
 * and what it does without memory, on every backend. */
#include "idem_fixture.h"

/* ---- list, free, reap -------------------------------------------------- */

struct seen {
    int n, claimed, sending, done, unknown;
    struct wb_idem_item last;
    char key[16];
};

static enum wb_status
see(void *ctx, const struct wb_idem_item *item)
{
    struct seen *s = ctx;

    s->n++;
    s->claimed += item->state == WB_IDEM_CLAIMED;
    s->sending += item->state == WB_IDEM_SENDING;
    s->done += item->state == WB_IDEM_DONE;
    s->unknown += item->state == WB_IDEM_DOUBTFUL;
    s->last = *item;
    (void)snprintf(s->key, sizeof(s->key), "%.*s", WB_SHOW(item->op.key));
    return WB_OK;
}

static enum wb_status
stop(void *ctx, const struct wb_idem_item *item)
{
    (void)item;
    ++*(int *)ctx;
    return WB_REFUSED;
}

TEST(test_idem__list__every_key_that_has_not_expired)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op unknown = op_of("me", "s", "unknown");
    struct wb_idem_begin sending = {.sending = true, .lease_ms = 10000};
    struct seen s = {0};
    uint64_t token;
    int n = 0;

    put(store, "over", "x", 1000);
    put(store, "done", "12345", 5000);
    fake_clock_advance_ms(1000);
    CHECK_ANSWER(ACQUIRED, begin(store, "claimed", NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "unknown", &token));
    CHECK_STATUS(OK, wb_idem_unknown(store, &unknown, token, NULL));
    (void)begin_with(store, "sending", "r", sending);
    CHECK_STATUS(OK, wb_idem_list(store, see, &s, NULL));
    CHECK_INT(4, s.n);
    CHECK_INT(1, s.claimed);
    CHECK_INT(1, s.sending);
    CHECK_INT(1, s.done);
    CHECK_INT(1, s.unknown);
    CHECK_STATUS(REFUSED, wb_idem_list(store, stop, &n, NULL));
    CHECK_INT(1, n);
    fake_clock_advance_ms(60000); /* what was sending is unknown now */
    s = (struct seen){0};
    CHECK_STATUS(OK, wb_idem_list(store, see, &s, NULL));
    CHECK_INT(2, s.n);
    CHECK_INT(2, s.unknown);
    wb_idem_close(store);
}

TEST(test_idem__list__says_what_is_known)
{
    struct wb_idem *store = open_store();
    struct seen s = {0};

    put(store, "done", "12345", 5000);
    CHECK_STATUS(OK, wb_idem_list(store, see, &s, NULL));
    CHECK_INT(1, s.n);
    CHECK_TEXT("done", s.key);
    CHECK_INT(200, s.last.status);
    CHECK_INT(5, s.last.bytes);
    CHECK_INT(fake_env.wall_ms, s.last.since_ms);
    CHECK_INT(fake_env.wall_ms + 5000, s.last.ends_ms);
    put(store, "done", "12345", 0);
    CHECK_STATUS(OK, wb_idem_list(store, see, &s, NULL));
    CHECK_INT(0, s.last.ends_ms);
    wb_idem_close(store);
}

TEST(test_idem__peek__as_listed)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_item item = {0};
    uint64_t token;

    CHECK_STATUS(NOTFOUND, wb_idem_peek(store, &op, &item, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, wb_idem_peek(store, &op, &item, NULL));
    CHECK_INT(WB_IDEM_CLAIMED, item.state);
    CHECK_INT(fake_env.wall_ms + 60000, item.ends_ms);
    CHECK_STATUS(OK, complete(store, "k", token, "done"));
    CHECK_STATUS(OK, wb_idem_peek(store, &op, &item, NULL));
    CHECK_INT(WB_IDEM_DONE, item.state);
    CHECK_INT(201, item.status);
    CHECK_INT(4, item.bytes);
    fake_clock_advance_ms(WB_IDEM_TTL_MS);
    CHECK_STATUS(NOTFOUND, wb_idem_peek(store, &op, &item, NULL));
    wb_idem_close(store);
}

TEST(test_idem__forget__key_is_free_and_holder_fenced)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_item item;
    uint64_t token, again;

    CHECK_STATUS(NOTFOUND, wb_idem_forget(store, &op, &item, NULL));
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(OK, wb_idem_forget(store, &op, &item, NULL));
    CHECK_INT(WB_IDEM_CLAIMED, item.state);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &again));
    CHECK_STATUS(FENCED, complete(store, "k", token, "late"));
    CHECK_STATUS(OK, complete(store, "k", again, "done"));
    CHECK_STATUS(OK, wb_idem_forget(store, &op, &item, NULL));
    CHECK_INT(WB_IDEM_DONE, item.state);
    CHECK_INT(201, item.status);
    CHECK(!has(store, "k", "done"));
    wb_idem_close(store);
}

/* C-7, S-3 */
TEST(test_idem__thousand_dead_claims_and_records__reaped)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {0};
    struct seen s = {0};
    uint64_t n = 0;
    char key[16];

    for (int i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof(key), "c%d", i);
        how.lease_ms = 1 + (i * 7919) % 5000;
        (void)begin_with(store, key, "r", how);
        (void)snprintf(key, sizeof(key), "r%d", i);
        put(store, key, "x", 1 + (i * 7919) % 5000);
    }
    fake_clock_advance_ms(5001);
    put(store, "stays", "x", 1000);
    CHECK_STATUS(OK, wb_idem_list(store, see, &s, NULL));
    CHECK_INT(1, s.n);
    CHECK_STATUS(OK, wb_idem_reap(store, &n, NULL));
    CHECK_STATUS(OK, wb_idem_reap(store, &n, NULL));
    CHECK_INT(0, n);
    CHECK(has(store, "stays", "x"));
    wb_idem_close(store);
}

/* ---- memory that fails ------------------------------------------------- */

TEST(test_idem__no_memory__nothing_changed_then_it_works)
{
    struct wb_idem *store = open_store();
    struct wb_idem_op op = op_of("me", "s", "k"),
                      put_op = op_of("me", "s", "p");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_record record = record_of(201, "body");
    struct wb_idem_result r = {0};
    enum wb_status rc;
    long n;

    for (n = 0; n < 100; n++) {
        fake_alloc_fail_at(n);
        rc = wb_idem_begin(store, &op, &fp, NULL, &r, NULL);
        if (fake_env.failed == 0)
            break;
        CHECK(rc == WB_NOMEM);
        CHECK(!has(store, "k", ""));
    }
    CHECK_INT(WB_OK, rc);
    CHECK_ANSWER(ACQUIRED, r.answer);
    for (n = 0; n < 100; n++) {
        fake_alloc_fail_at(n);
        rc = wb_idem_complete(store, &op, r.token, &record, NULL);
        if (fake_env.failed == 0)
            break;
        CHECK(rc == WB_NOMEM);
        fake_alloc_fail_at(-1);
        CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    }
    CHECK_INT(WB_OK, rc);
    for (n = 0; n < 100; n++) {
        fake_alloc_fail_at(n);
        rc = wb_idem_store(store, &put_op, &record, NULL);
        if (fake_env.failed == 0)
            break;
        CHECK(rc == WB_NOMEM);
    }
    fake_alloc_fail_at(-1);
    CHECK(has(store, "k", "body") && has(store, "p", "body"));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

TEST(test_idem__open_without_memory__says_so)
{
    struct wb_idem_opts opts = {.env = ENV};
    struct wb_idem *store = NULL;
    enum wb_status rc = WB_NOMEM;

    for (long n = 0; n < 100; n++) {
        fake_alloc_fail_at(n);
        rc = backend->open(&store, &opts, NULL);
        if (fake_env.failed == 0)
            break;
        CHECK(rc == WB_NOMEM || rc == WB_OK);
        if (rc == WB_OK)
            wb_idem_close(store);
        store = NULL;
    }
    fake_alloc_fail_at(-1);
    CHECK_INT(WB_OK, rc);
    wb_idem_close(store);
    wb_idem_close(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem__list__every_key_that_has_not_expired),
        RUN(test_idem__list__says_what_is_known),
        RUN(test_idem__peek__as_listed),
        RUN(test_idem__forget__key_is_free_and_holder_fenced),
        RUN(test_idem__thousand_dead_claims_and_records__reaped),
        RUN(test_idem__no_memory__nothing_changed_then_it_works),
        RUN(test_idem__open_without_memory__says_so),
    };

    RUN_EVERY(tests);
}
