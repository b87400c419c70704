/* test_idem_many.c - many calls at once, on every backend: each as if it were
 * made alone. */
#include "idem/idem.h"

#include <sqlite3.h>

#include "idem_fixture.h"

enum {
    N = 150 /* more than one transaction takes */
};

static struct many {
    struct wb__idem_call call;
    struct wb_idem_op op;
    struct wb_idem_result result;
    char key[8];
} many[N];
static struct wb_fingerprint print;

/* In a chain, from the n-th to the last. */
static struct wb__idem_call *
chain(void)
{
    for (int i = 0; i < N; i++)
        many[i].call.next = i + 1 < N ? &many[i + 1].call : NULL;
    return &many[0].call;
}

/* Each pair of neighbours begins one key. */
static void
begin_pairs(struct wb_idem *store)
{
    print = print_of("request");
    for (int i = 0; i < N; i++) {
        struct many *m = &many[i];

        (void)snprintf(m->key, sizeof(m->key), "k%d", i / 2);
        m->op = op_of("me", "s", m->key);
        m->call = (struct wb__idem_call){.verb = WB__IDEM_BEGIN,
            .op = &m->op,
            .fingerprint = &print,
            .result = &m->result};
    }
    wb__idem_many(store, chain());
}

static void
complete_pairs(struct wb_idem *store)
{
    for (int i = 0; i < N; i++) {
        many[i].call.verb = WB__IDEM_COMPLETE;
        many[i].call.token = many[i].result.token;
        many[i].call.record = record_of(201, many[i].key);
    }
    wb__idem_many(store, chain());
}

static void
free_results(void)
{
    for (int i = 0; i < N; i++)
        wb_idem_result_free(&many[i].result);
}

static void
test_idem_many__two_of_each_key__one_acquires_completes_the_other_fenced(
    void **state)
{
    struct wb_idem *store = open_store();

    (void)state;
    begin_pairs(store);
    for (int i = 0; i < N; i++) {
        CHECK_INT(WB_OK, many[i].call.rc);
        CHECK_INT(i % 2 == 0 ? WB_IDEM_ACQUIRED : WB_IDEM_IN_FLIGHT,
            many[i].result.answer);
    }
    complete_pairs(store);
    for (int i = 0; i < N; i++) {
        CHECK_INT(i % 2 == 0 ? WB_OK : WB_FENCED, many[i].call.rc);
        CHECK(has(store, many[i].key, many[i].key));
    }
    begin_pairs(store);
    for (int i = 0; i < N; i++)
        CHECK_INT(WB_IDEM_REPLAY, many[i].result.answer);
    free_results();
    wb_idem_close(store);
}

TEST(test_idem_many__released_extended_unknown__as_alone)
{
    static const enum wb__idem_verb verb[] = {
        WB__IDEM_RELEASE, WB__IDEM_EXTEND, WB__IDEM_UNKNOWN};
    static const enum wb_idem_answer then[] = {
        WB_IDEM_ACQUIRED, WB_IDEM_IN_FLIGHT, WB_IDEM_UNKNOWN};
    struct wb_idem *store = open_store();

    begin_pairs(store);
    for (int i = 0; i < N; i += 2) {
        many[i].call.verb = verb[i / 2 % 3];
        many[i].call.token = many[i].result.token;
        many[i].call.how.lease_ms = 3 * WB_IDEM_LEASE_MS;
        many[i + 1].call = many[i].call;
        many[i + 1].call.token++; /* a wrong token */
    }
    wb__idem_many(store, chain());
    fake_clock_advance_ms(WB_IDEM_LEASE_MS);
    for (int i = 0; i < N; i += 2) {
        CHECK_INT(WB_OK, many[i].call.rc);
        if (i / 2 % 3 > 0)
            CHECK_INT(WB_FENCED, many[i + 1].call.rc);
        CHECK_INT(then[i / 2 % 3], begin(store, many[i].key, NULL));
    }
    free_results();
    wb_idem_close(store);
}

/* A row that cannot be read stops its own call and no other. */
TEST(test_idem_many__one_cannot_be_done__all_others_are)
{
    struct wb_idem *store = open_store();
    sqlite3 *db;

    begin_pairs(store);
    if (backend == &sql_backend) {
        CHECK(sqlite3_open("idem.db", &db) == SQLITE_OK);
        CHECK(sqlite3_exec(db,
                  "PRAGMA ignore_check_constraints=ON; UPDATE waybill_idem"
                  " SET fingerprint = x'00', token = 1 WHERE key = 'k3'",
                  NULL, NULL, NULL) == SQLITE_OK);
        CHECK(sqlite3_close(db) == SQLITE_OK);
    }
    complete_pairs(store);
    for (int i = 0; i < N; i += 2) {
        bool unread = backend == &sql_backend && i == 6;

        CHECK_INT(unread ? WB_CORRUPT : WB_OK, many[i].call.rc);
        CHECK(unread || has(store, many[i].key, many[i].key));
    }
    free_results();
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem_many__two_of_each_key__one_acquires_completes_the_other_fenced),
        RUN(test_idem_many__released_extended_unknown__as_alone),
        RUN(test_idem_many__one_cannot_be_done__all_others_are),
    };

    RUN_EVERY(tests);
}
