/* support.h - the fixture of every unit test, on top of cmocka.
 *
 *     #include "support.h"
 *
 *     TEST(test_claim__lease_ran_out__old_token_is_fenced)
 *     {
 *         struct wb_err err = {0};
 *         struct wb_outbox_opts opts = {.env = ENV};
 *         struct wb_outbox *box;
 *
 *         CHECK_OK(wb_outbox_open(&box, "box.db", &opts, &err), err);
 *         ...
 *         fake_clock_advance_ms(60001);
 *         CHECK_STATUS(FENCED, wb_outbox_confirm(box, &id, token, NULL));
 *         wb_outbox_close(box);
 *     }
 *
 *     int
 *     main(void)
 *     {
 *         const struct CMUnitTest tests[] = {
 *             RUN(test_claim__lease_ran_out__old_token_is_fenced),
 *         };
 *         return RUN_ALL(tests);
 *     }
 *
 * and one line in test/unit/meson.build. Guarantees:
 *  1. Each test starts in an empty folder of its own, which is removed
 *     afterwards: use relative names.
 *  2. Each test starts with a new fake_env: an environment with clocks that
 *     stand still until the test advances them, random numbers from a fixed
 *     seed, and an allocator that can be made to fail. Pass ENV to the code
 *     under test.
 *  3. A test that does not free memory allocated from ENV fails.
 * Use CHECK macros on the test's own thread only; other threads collect
 * results.
 */
#ifndef WB_TEST_SUPPORT_H
#define WB_TEST_SUPPORT_H

/* cmocka.h wants these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "waybill/env.h"

/* A test is a function that cmocka calls with a state it does not need. */
#define TEST(name)     static void name(__attribute__((unused)) void **state)
#define RUN(test)      cmocka_unit_test_setup_teardown(test, test_begin, test_end)
#define RUN_ALL(tests) test_run_all(tests, sizeof(tests) / sizeof((tests)[0]))

#define S(text) wb_slice(text)

int test_run_all(const struct CMUnitTest *tests, size_t n);
int test_begin(void **state);
int test_end(void **state);

/* ---- fake environment --------------------------------------------------- */

#define FAKE_START_MS INT64_C(1767225600000) /* 2026-01-01T00:00:00Z */

struct fake_env {
    struct wb_env env;
    _Atomic int64_t wall_ms; /* settable */
    _Atomic int64_t mono_us;
    _Atomic uint64_t seed; /* settable */
    atomic_long fail_in;   /* see fake_alloc_fail_at() */
    atomic_long failed;    /* allocations that were made to fail */
    atomic_long allocs;    /* allocations requested */
    atomic_long live;      /* blocks not freed yet */
};
extern struct fake_env fake_env;
#define ENV (&fake_env.env)

void fake_clock_advance_ms(int64_t ms); /* on both clocks */

/* Let the n-th allocation from now on fail, once (0: the next); n < 0: none.
 * Sets fake_env.failed to 0. To fail each, one after another:
 *
 *     for (n = 0;; n++) {
 *         fake_alloc_fail_at(n);
 *         status = the_call();
 *         if (fake_env.failed == 0)
 *             break;
 *         CHECK(status == WB_NOMEM); and nothing changed
 *     }
 *     fake_alloc_fail_at(-1);
 */
void fake_alloc_fail_at(long n);

/* ---- checks ------------------------------------------------------------ */

#define CHECK(e) assert_true(e)

/* Compare integers; a failure prints both. */
#define CHECK_INT(expected, actual) \
    check_int(                      \
        (intmax_t)(expected), (intmax_t)(actual), #actual, __FILE__, __LINE__)

/* CHECK_OK(wb_x(..., &err), err): prints err's text if the call fails. */
#define CHECK_OK(call, err)                                            \
    do {                                                               \
        enum wb_status check_status_ = (call);                         \
        check_ok(check_status_, (err).msg, #call, __FILE__, __LINE__); \
    } while (0)

/* CHECK_STATUS(BUSY, wb_x(...)) */
#define CHECK_STATUS(name, call) \
    check_status(WB_##name, (call), #call, __FILE__, __LINE__)

/* A slice holds exactly this text. */
#define CHECK_SLICE(text, slice) \
    check_slice((text), (slice), #slice, __FILE__, __LINE__)

/* A C string is, or contains, this text. */
#define CHECK_TEXT(text, actual) assert_string_equal((actual), (text))
#define CHECK_HAS(piece, actual) \
    check_has((piece), (actual), #actual, __FILE__, __LINE__)

/* The statement stops the process through WB_ASSERT. Runs in a child. */
#define CHECK_PANICS(statement)                                      \
    do {                                                             \
        pid_t check_child_ = test_fork();                            \
        if (check_child_ == 0) {                                     \
            statement;                                               \
            _Exit(0);                                                \
        }                                                            \
        check_aborted(check_child_, #statement, __FILE__, __LINE__); \
    } while (0)

void check_int(intmax_t expected, intmax_t actual, const char *what,
    const char *file, int line);
void check_ok(enum wb_status status, const char *msg, const char *what,
    const char *file, int line);
void check_status(enum wb_status expected, enum wb_status status,
    const char *what, const char *file, int line);
void check_slice(const char *text, struct wb_slice slice, const char *what,
    const char *file, int line);
void check_has(const char *piece, const char *text, const char *what,
    const char *file, int line);
void check_aborted(pid_t child, const char *what, const char *file, int line);
pid_t test_fork(void);

/* ---- database ------------------------------------------------------------
 *
 * The outbox's suite runs on both engines: with the url of a PostgreSQL server
 * in WAYBILL_TEST_PG (see test/pg/with_server) each test has a schema of its
 * own there. Tests that are about SQLite itself are listed in
 * test/pg/sqlite_only and skipped. */

/* "box.db" in the test's folder, or the test's schema. */
const char *test_db_url(void);
bool test_on_pg(void);

/* ---- files ------------------------------------------------------------- */

/* Write a file; read a whole file (NUL-terminated; free() it). An error fails
 * the test. */
void test_write(const char *path, const char *text, size_t len);
char *test_read(const char *path, size_t *len /* may be NULL */);

/* Path of a file of the repository, in a static buffer. */
const char *test_source(const char *path);

#endif /* WB_TEST_SUPPORT_H */
