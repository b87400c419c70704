/* test_idem_memory.c - the memory store alone: recency, caps, what is left
 * behind, the clock. */
#include "idem/memory.h"
#include "idem_fixture.h"

static const char *
key_no(int i)
{
    static char key[4][16];
    static int next;

    next = (next + 1) % 4;
    (void)snprintf(key[next], sizeof(key[next]), "key-%d", i);
    return key[next];
}

static struct wb__memory *
inside(struct wb_idem *store)
{
    return (struct wb__memory *)store;
}

/* ---- recency (S-4) ----------------------------------------------------- */

TEST(test_idem_memory__full__least_recently_used_goes)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.max_records = 3});

    put(store, "a", "1", 0);
    put(store, "b", "2", 0);
    put(store, "c", "3", 0);
    CHECK(has(store, "a", "1"));                   /* a lookup is a use, */
    CHECK_ANSWER(REPLAY, begin(store, "b", NULL)); /* and a replay */
    put(store, "d", "4", 0);
    CHECK(!has(store, "c", "3"));
    put(store, "a", "5", 0); /* and storing again */
    put(store, "e", "6", 0);
    CHECK(!has(store, "b", "2"));
    CHECK(has(store, "a", "5") && has(store, "d", "4") && has(store, "e", "6"));
    wb_idem_close(store);
}

/* Against a simple model: an array ordered by use. */
static void
use_at_random(struct wb_idem *store, int cap)
{
    enum {
        KEYS = 150
    };
    int order[KEYS], body[KEYS] = {0}, n = 0, at;
    unsigned r = 7;

    for (int i = 0; i < 20000; i++) {
        int k = (int)((r = r * 1103515245U + 12345U) >> 16) % KEYS;
        char text[16];

        for (at = 0; at < n && order[at] != k; at++)
            ;
        if ((r >> 8) % 3 == 0) {
            body[k] = i;
            (void)snprintf(text, sizeof(text), "%d", i);
            put(store, key_no(k), text, 0);
            if (at == n) {
                n = n < cap ? n + 1 : cap;
                at = n - 1;
            }
        } else {
            (void)snprintf(text, sizeof(text), "%d", body[k]);
            CHECK_INT(at < n, has(store, key_no(k), text));
            if (at == n)
                continue;
        }
        memmove(order + 1, order, (size_t)at * sizeof(order[0]));
        order[0] = k;
        CHECK_INT(n, inside(store)->records);
    }
}

TEST(test_idem_memory__random_use__agrees_with_model)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.max_records = 60});

    use_at_random(store, 60);
    wb_idem_close(store);
}

TEST(test_idem_memory__unused_for_long__still_the_oldest)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.max_records = 40});

    put(store, "ancient", "x", 0);
    for (int i = 0; i < 1200; i++)
        put(store, key_no(i % 39), "y", 0);
    put(store, "one more", "z", 0);
    CHECK(!has(store, "ancient", "x"));
    for (int i = 0; i < 39; i++)
        CHECK(has(store, key_no(i), "y"));
    wb_idem_close(store);
}

/* ---- caps (S-4) -------------------------------------------------------- */

TEST(test_idem_memory__defaults__ten_thousand_records_fit)
{
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.max_records = -1, .max_bytes = 0});

    for (int i = 0; i < 10000; i++)
        put(store, key_no(i), "x", 0);
    CHECK_INT(10000, inside(store)->records);
    for (int i = 0; i < 10000; i++)
        CHECK(has(store, key_no(i), "x"));
    put(store, "one more", "x", 0);
    CHECK_INT(10000, inside(store)->records);
    CHECK(!has(store, key_no(0), "x") && has(store, key_no(1), "x"));
    wb_idem_close(store);
}

TEST(test_idem_memory__bytes_used_up__oldest_go_until_it_fits)
{
    static char body[4001];
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.max_bytes = 10000});
    struct wb_idem_op op = op_of("me", "s", "large");
    struct wb_idem_record record = {0};

    memset(body, 'b', sizeof(body) - 1);
    put(store, "a", body, 0);
    put(store, "b", body, 0);
    put(store, "c", "small", 0);
    CHECK_INT(3, inside(store)->records);
    put(store, "d", body, 0);
    CHECK(!has(store, "a", body));
    CHECK(has(store, "b", body) && has(store, "c", "small"));
    CHECK(inside(store)->bytes <= 10000);
    record.body = (struct wb_slice){body, 4000};
    record.headers = (struct wb_slice){body, 4000};
    CHECK_STATUS(OK, wb_idem_store(store, &op, &record, NULL));
    CHECK_INT(2, inside(store)->records);
    CHECK(has(store, "c", "small"));
    wb_idem_close(store);
}

TEST(test_idem_memory__record_beyond_all_bytes__toobig_and_claim_stays)
{
    static char body[10001];
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.max_bytes = 10000});
    uint64_t token;

    memset(body, 'b', sizeof(body) - 1);
    put(store, "a", "x", 0);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK_STATUS(TOOBIG, complete(store, "k", token, body));
    CHECK(has(store, "a", "x"));
    CHECK_STATUS(OK, complete(store, "k", token, "small"));
    wb_idem_close(store);
}

/* S-4: claims neither go nor push */
TEST(test_idem_memory__claims_beyond_the_cap__none_evicted_none_evicts)
{
    struct wb_idem *store = open_with((struct wb_idem_opts){.max_records = 4});
    static uint64_t token[500];

    for (int i = 0; i < 4; i++)
        put(store, key_no(1000 + i), "x", 0);
    for (int i = 0; i < 500; i++)
        CHECK_ANSWER(ACQUIRED, begin(store, key_no(i), &token[i]));
    for (int i = 0; i < 4; i++)
        CHECK(has(store, key_no(1000 + i), "x"));
    for (int i = 0; i < 500; i++)
        CHECK_STATUS(OK, complete(store, key_no(i), token[i], "done"));
    CHECK_INT(4, inside(store)->records);
    CHECK(has(store, key_no(499), "done") && has(store, key_no(496), "done"));
    wb_idem_close(store);
}

/* ---- what is left behind (S-3, C-7) ------------------------------------ */

TEST(test_idem_memory__dead_writes__leave_no_memory)
{
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.max_records = 1000000});
    long before;

    put(store, "first", "x", 1);
    before = fake_env.live;
    for (int i = 0; i < 200000; i++) {
        put(store, key_no(i), "dead soon", 100); /* never read again */
        if (i % 100 == 0)
            fake_clock_advance_ms(1);
    }
    CHECK(inside(store)->records < 15000); /* 10,000 are alive */
    fake_clock_advance_ms(100);
    for (int i = 0; i < 8000; i++) /* other keys; a few of them do it all */
        put(store, key_no(i % 100), "alive", 1000);
    CHECK(inside(store)->records <= 110);
    CHECK(fake_env.live - before < 200);
    CHECK(inside(store)->table.cap < 4000);
    wb_idem_close(store);
}

TEST(test_idem_memory__dead_claims__gone_without_being_asked_for)
{
    struct wb_idem *store = open_store();
    struct wb_idem_begin how = {0};
    long before;

    put(store, "first", "x", 0);
    before = fake_env.live;
    for (int i = 0; i < 1000; i++) {
        how.lease_ms = 1 + (i * 7919) % 5000;
        (void)begin_with(store, key_no(i), "r", how);
    }
    fake_clock_advance_ms(5001);
    put(store, "first", "x", 0);
    fake_clock_advance_ms(86400000); /* their holders may be late */
    for (int i = 0; i < 200; i++)
        put(store, key_no(i), "x", 0);
    CHECK_INT(0, inside(store)->claims.n);
    CHECK(fake_env.live - before < 300);
    wb_idem_close(store);
}

TEST(test_idem_memory__identities_gone__their_accounts_too)
{
    struct wb_idem *store =
        open_with((struct wb_idem_opts){.identity_claims = 5});
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_record record = record_of(200, "x");
    struct wb_idem_result r = {0};
    uint64_t gone;

    record.ttl_ms = 100;
    for (int i = 0; i < 3000; i++) {
        struct wb_idem_op op = op_of(key_no(i), "s", "k");

        CHECK_STATUS(OK, wb_idem_begin(store, &op, &fp, NULL, &r, NULL));
        CHECK_STATUS(OK, wb_idem_complete(store, &op, r.token, &record, NULL));
    }
    CHECK_INT(2 * 3000, inside(store)->table.used); /* with accounts */
    fake_clock_advance_ms(100);
    CHECK_STATUS(OK, wb_idem_reap(store, &gone, NULL));
    CHECK_INT(3000, gone);
    CHECK_INT(0, inside(store)->table.used);
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

/* ---- the clock (S-6) --------------------------------------------------- */

TEST(test_idem_memory__wall_clock_steps__expires_and_revives_nothing)
{
    struct wb_idem *store = open_store();
    int64_t stored_ms = fake_env.wall_ms;
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem_result r = {0};
    uint64_t token;

    put(store, "k", "x", 5000);
    CHECK_ANSWER(ACQUIRED, begin(store, "claim", &token));
    fake_env.wall_ms += 3600000;
    CHECK(has(store, "k", "x"));
    CHECK_ANSWER(IN_FLIGHT, begin(store, "claim", NULL));
    fake_env.wall_ms -= 2 * 3600000;
    CHECK_STATUS(OK, wb_idem_lookup(store, &op, &r, NULL));
    CHECK_INT(stored_ms, r.record.stored_ms);
    fake_env.mono_us += 5000000;
    CHECK(!has(store, "k", "x"));
    fake_env.mono_us += 55000000;
    CHECK_ANSWER(ACQUIRED, begin(store, "claim", NULL));
    CHECK_STATUS(FENCED, complete(store, "claim", token, "late"));
    wb_idem_result_free(&r);
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem_memory__full__least_recently_used_goes),
        RUN(test_idem_memory__random_use__agrees_with_model),
        RUN(test_idem_memory__unused_for_long__still_the_oldest),
        RUN(test_idem_memory__defaults__ten_thousand_records_fit),
        RUN(test_idem_memory__bytes_used_up__oldest_go_until_it_fits),
        RUN(test_idem_memory__record_beyond_all_bytes__toobig_and_claim_stays),
        RUN(test_idem_memory__claims_beyond_the_cap__none_evicted_none_evicts),
        RUN(test_idem_memory__dead_writes__leave_no_memory),
        RUN(test_idem_memory__dead_claims__gone_without_being_asked_for),
        RUN(test_idem_memory__identities_gone__their_accounts_too),
        RUN(test_idem_memory__wall_clock_steps__expires_and_revives_nothing),
    };

    backend = &memory_backend;
    return RUN_ALL(tests);
}
