/* test_idem_race.c - many threads, and many processes, on one key. */
#include "idem_fixture.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

/* Threads need a clock that runs by itself, and a shared allocator. */
static struct wb_idem *
open_real(struct wb_idem_opts opts)
{
    opts.env = wb_env_system();
    return open_with(opts);
}

struct racer {
    struct wb_idem *store;
    struct wb_idem_begin how;
    enum wb_status rc;
    enum wb_idem_answer answer;
    bool same_body, finished;
    pthread_t thread;
};

enum {
    RACERS = 200
};
static struct racer racers[RACERS];
static pthread_barrier_t line;

/* Begin; the thread that acquires completes unless it must not wait. */
static void *
race(void *ctx)
{
    struct racer *r = ctx;
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_fingerprint fp = print_of("request");
    struct wb_idem_result result = {0};

    (void)pthread_barrier_wait(&line);
    r->rc = wb_idem_begin(r->store, &op, &fp, &r->how, &result, NULL);
    r->answer = result.answer;
    r->same_body = r->answer == WB_IDEM_REPLAY &&
                   wb__eq(result.record.body, WB_LIT("once"));
    if (r->rc == WB_OK && r->answer == WB_IDEM_ACQUIRED && r->how.wait_ms > 0)
        r->finished = complete(r->store, "k", result.token, "once") == WB_OK;
    wb_idem_result_free(&result);
    return NULL;
}

static void
run_racers(struct wb_idem *store, int n, struct wb_idem_begin how)
{
    CHECK(pthread_barrier_init(&line, NULL, (unsigned)n) == 0);
    for (int i = 0; i < n; i++) {
        racers[i] = (struct racer){.store = store, .how = how};
        CHECK(pthread_create(&racers[i].thread, NULL, race, &racers[i]) == 0);
    }
    for (int i = 0; i < n; i++)
        CHECK(pthread_join(racers[i].thread, NULL) == 0);
    CHECK(pthread_barrier_destroy(&line) == 0);
}

static int
count(int n, enum wb_idem_answer answer)
{
    int found = 0;

    for (int i = 0; i < n; i++) {
        CHECK_INT(WB_OK, racers[i].rc);
        found += racers[i].answer == answer;
    }
    return found;
}

/* C-1 */
TEST(test_idem__two_hundred_begins__one_acquired)
{
    for (int round = 0; round < 5; round++) {
        struct wb_idem *store = open_real((struct wb_idem_opts){0});
        struct wb_idem_op op = op_of("me", "s", "k");

        run_racers(store, RACERS, (struct wb_idem_begin){0});
        CHECK_INT(1, count(RACERS, WB_IDEM_ACQUIRED));
        CHECK_INT(RACERS - 1, count(RACERS, WB_IDEM_IN_FLIGHT));
        CHECK_STATUS(OK, wb_idem_forget(store, &op, NULL, NULL));
        wb_idem_close(store);
    }
}

/* C-2: one acts, all others are given its record */
TEST(test_idem__two_hundred_wait__one_effect_and_all_get_its_record)
{
    struct wb_idem *store =
        open_real((struct wb_idem_opts){.max_waiters = RACERS});

    run_racers(store, RACERS, (struct wb_idem_begin){.wait_ms = 30000});
    CHECK_INT(1, count(RACERS, WB_IDEM_ACQUIRED));
    CHECK_INT(RACERS - 1, count(RACERS, WB_IDEM_REPLAY));
    for (int i = 0; i < RACERS; i++)
        CHECK(racers[i].same_body || racers[i].finished);
    wb_idem_close(store);
}

static struct wb_idem *held_store;
static uint64_t held_token;

static void *
release_later(void *ctx)
{
    (void)ctx;
    usleep(50000); /* most of them wait by then; it holds if none does */
    return (void *)(intptr_t)release(held_store, "k", held_token);
}

/* C-2: release wakes waiters, and one of them becomes the holder */
TEST(test_idem__holder_releases__one_waiter_acquires_the_others_replay)
{
    enum {
        N = 40
    };
    pthread_t thread;
    void *rc;

    held_store = open_real((struct wb_idem_opts){0});
    CHECK_ANSWER(ACQUIRED, begin(held_store, "k", &held_token));
    CHECK(pthread_create(&thread, NULL, release_later, NULL) == 0);
    run_racers(held_store, N, (struct wb_idem_begin){.wait_ms = 30000});
    CHECK(pthread_join(thread, &rc) == 0);
    CHECK_INT(WB_OK, (intptr_t)rc);
    CHECK_INT(1, count(N, WB_IDEM_ACQUIRED));
    CHECK_INT(N - 1, count(N, WB_IDEM_REPLAY));
    wb_idem_close(held_store);
}

/* C-2: a lease that runs out lets a waiter in, by the real clock */
TEST(test_idem__lease_runs_out__a_waiter_acquires)
{
    enum {
        N = 10
    };
    struct wb_idem_begin brief = {.lease_ms = 100};

    held_store = open_real((struct wb_idem_opts){0});
    (void)begin_with(held_store, "k", "request", brief);
    run_racers(held_store, N, (struct wb_idem_begin){.wait_ms = 30000});
    CHECK_INT(1, count(N, WB_IDEM_ACQUIRED));
    CHECK_INT(N - 1, count(N, WB_IDEM_REPLAY));
    wb_idem_close(held_store);
}

/* ---- no more than 64 wait ---------------------------------------------- */

static int sleepers;
static bool full;

/* Called instead of sleeping: begins the key again, as another caller would,
 * until one of them returns without a sleep. */
static void
begin_deeper(void *ctx, int64_t us)
{
    struct wb_idem_begin how = {.wait_ms = 1000};
    struct wb_idem_result r;

    if (!full) {
        sleepers++;
        r = begin_with(held_store, "k", "request", how);
        CHECK_ANSWER(HELD, r.answer);
        full = true;
    }
    sleep_by_clock(ctx, us);
}

/* C-2 */
TEST(test_idem__more_than_64_waiters__held_at_once)
{
    struct wb_idem_begin how = {.wait_ms = 1000};
    struct wb_idem_result r;

    held_store = open_store();
    fake_env.env.sleep_us = begin_deeper;
    CHECK_ANSWER(ACQUIRED, begin(held_store, "k", NULL));
    sleepers = 0;
    full = false;
    r = begin_with(held_store, "k", "request", how);
    CHECK_ANSWER(HELD, r.answer);
    CHECK_INT(64, sleepers);
    wb_idem_close(held_store);
}

/* ---- processes --------------------------------------------------------- */

enum {
    PROCESSES = 8,
    EACH = RACERS / PROCESSES
};

/* A process of its own with EACH threads, once all are there; how many
 * acquired. */
static void
child(int start, int fd, struct wb_idem_begin how)
{
    struct wb_idem *store = open_real((struct wb_idem_opts){.max_waiters = 99});
    unsigned char n[2] = {0};

    CHECK(write(fd, n, 1) == 1);
    CHECK(read(start, n, 1) == 0); /* ends when the parent lets go */
    run_racers(store, EACH, how);
    n[0] = (unsigned char)count(EACH, WB_IDEM_ACQUIRED);
    n[1] = (unsigned char)count(EACH, WB_IDEM_REPLAY);
    wb_idem_close(store);
    _exit(write(fd, n, sizeof(n)) == sizeof(n) ? 0 : 1);
}

static void
run_processes(struct wb_idem_begin how, int *acquired, int *replayed)
{
    int start[2], fd[2], status;
    unsigned char n[2];

    *acquired = *replayed = 0;
    wb_idem_close(open_real((struct wb_idem_opts){0}));
    CHECK(pipe(fd) == 0 && pipe(start) == 0);
    for (int i = 0; i < PROCESSES; i++) {
        if (test_fork() == 0) {
            (void)close(start[1]);
            child(start[0], fd[1], how);
        }
    }
    (void)close(fd[1]);
    (void)close(start[0]);
    for (int i = 0; i < PROCESSES; i++)
        CHECK(read(fd[0], n, 1) == 1);
    (void)close(start[1]);
    for (int i = 0; i < PROCESSES; i++) {
        CHECK(read(fd[0], n, sizeof(n)) == sizeof(n));
        *acquired += n[0];
        *replayed += n[1];
    }
    (void)close(fd[0]);
    for (int i = 0; i < PROCESSES; i++) {
        CHECK(wait(&status) > 0);
        CHECK_INT(0, status);
    }
}

/* C-1, C-2 */
TEST(test_idem__eight_processes__one_acquired)
{
    struct wb_idem_op op = op_of("me", "s", "k");
    struct wb_idem *store;
    int acquired, replayed;

    if (backend == &memory_backend)
        return; /* of one process */
    run_processes((struct wb_idem_begin){0}, &acquired, &replayed);
    CHECK_INT(1, acquired);
    CHECK_INT(0, replayed);
    store = open_real((struct wb_idem_opts){0});
    CHECK_STATUS(OK, wb_idem_forget(store, &op, NULL, NULL));
    wb_idem_close(store);
    run_processes(
        (struct wb_idem_begin){.wait_ms = 60000}, &acquired, &replayed);
    CHECK_INT(1, acquired);
    CHECK_INT(RACERS - 1, replayed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem__two_hundred_begins__one_acquired),
        RUN(test_idem__two_hundred_wait__one_effect_and_all_get_its_record),
        RUN(test_idem__holder_releases__one_waiter_acquires_the_others_replay),
        RUN(test_idem__lease_runs_out__a_waiter_acquires),
        RUN(test_idem__more_than_64_waiters__held_at_once),
        RUN(test_idem__eight_processes__one_acquired),
    };

    RUN_EVERY(tests);
}
