/* test_idem_clock.c - the wall clock steps, or two processes see different
 * ones: the idempotency store in a SQLite file (S-6). */
#include <sqlite3.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "idem_fixture.h"

static int64_t step_s; /* what the wall clock is ahead of the machine's */

/* In place of libc's, for this program. */
int
clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);

    if (id == CLOCK_REALTIME)
        t->tv_sec += step_s;
    return rc;
}

/* As a process that starts while the wall clock is so far ahead. */
static struct wb_idem *
open_ahead(int64_t seconds)
{
    step_s = seconds;
    return open_with((struct wb_idem_opts){.env = wb_env_system()});
}

TEST(test_idem_clock__another_process_sees_another_time__never_beside_the_first)
{
    static const int64_t steps[] = {3600, -3600, 90000, -90000, 1000000000};
    struct wb_idem *first = open_ahead(0), *second;
    uint64_t token;

    CHECK_ANSWER(ACQUIRED, begin(first, "k", &token));
    for (size_t i = 0; i < WB_COUNT(steps); i++) {
        second = open_ahead(steps[i]);
        CHECK_ANSWER(IN_FLIGHT, begin(second, "k", NULL));
        CHECK_STATUS(OK, wb_idem_reap(second, NULL, NULL));
        wb_idem_close(second);
        CHECK_STATUS(OK, extend(first, "k", token, 0));
    }
    CHECK_STATUS(OK, complete(first, "k", token, "first"));
    wb_idem_close(first);
}

TEST(test_idem_clock__clock_stepped__a_record_made_before_is_not_expired)
{
    static const int64_t steps[] = {0, -200000, 200000};
    struct wb_idem *store;
    uint64_t token;
    char key[8];

    for (size_t i = 0; i < WB_COUNT(steps); i++) {
        (void)snprintf(key, sizeof(key), "%zu", i);
        store = open_ahead(steps[i]);
        CHECK_ANSWER(ACQUIRED, begin(store, key, &token));
        CHECK_STATUS(OK, complete(store, key, token, "kept"));
        wb_idem_close(store);
        store = open_ahead(0);
        CHECK(has(store, key, "kept"));
        step_s = 200000; /* while it is open */
        CHECK(has(store, key, "kept"));
        wb_idem_close(store);
    }
}

/* The first write after a restart of the machine: the wall clock. */
TEST(test_idem_clock__machine_restarted__the_wall_clock_is_taken_again)
{
    struct wb_idem *store = open_ahead(0);
    sqlite3 *db = NULL;
    uint64_t token;

    put(store, "short", "x", 3600000);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    wb_idem_close(store);
    CHECK(sqlite3_open("idem.db", &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db,
              "UPDATE waybill_meta SET value = 'another 5' WHERE name = "
              "'clock'",
              NULL, NULL, NULL) == SQLITE_OK);
    CHECK_INT(1, sqlite3_changes(db));
    CHECK(sqlite3_close(db) == SQLITE_OK);
    store = open_ahead(7200);
    CHECK_ANSWER(ACQUIRED, begin(store, "k", &token));
    CHECK(!has(store, "short", "x"));
    step_s = 0;
    CHECK_ANSWER(IN_FLIGHT, begin(store, "k", NULL));
    wb_idem_close(store);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem_clock__another_process_sees_another_time__never_beside_the_first),
        RUN(test_idem_clock__clock_stepped__a_record_made_before_is_not_expired),
        RUN(test_idem_clock__machine_restarted__the_wall_clock_is_taken_again),
    };

    backend = &sql_backend;
    return RUN_ALL(tests);
}
