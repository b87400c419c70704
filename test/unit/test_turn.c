/* test_turn.c - turns between processes: fair, and free when their holder dies
 * (turn.c). */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db/sqlite.h"
#include "outbox_fixture.h"

static int64_t
real_us(void)
{
    return wb_env_system()->mono_us(NULL);
}

/* Shared with the children. */
static atomic_long *
shared_new(void)
{
    void *p = mmap(
        NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static void
write_in_a_loop(atomic_long *n, atomic_long *stop)
{
    struct wb_outbox *box = NULL;
    struct wb_message m = {.kind = wb_slice("a"), .payload = wb_slice("{}")};

    if (wb_outbox_open(&box, BOX, NULL, NULL) != WB_OK)
        _Exit(1);
    while (*stop == 0)
        if (wb_outbox_enqueue(box, &m, NULL, NULL) == WB_OK)
            (*n)++;
    wb_outbox_close(box);
    _Exit(0);
}

TEST(test_turn__two_processes_in_a_loop__slower_has_half_of_the_faster)
{
    atomic_long *shared = shared_new();
    pid_t child[2];
    long fast, slow;

    wb_outbox_close(box_open());
    for (int i = 0; i < 2; i++) {
        child[i] = test_fork();
        if (child[i] == 0)
            write_in_a_loop(&shared[i], &shared[2]);
    }
    while (shared[0] < 5 || shared[1] < 5)
        (void)usleep(1000);
    shared[0] = shared[1] = 0;
    (void)usleep(2000000); /* what is measured is time itself */
    fast = shared[0] > shared[1] ? shared[0] : shared[1];
    slow = shared[0] > shared[1] ? shared[1] : shared[0];
    shared[2] = 1;
    for (int i = 0; i < 2; i++)
        CHECK(waitpid(child[i], NULL, 0) == child[i]);
    if (slow * 2 < fast)
        fail_msg("%ld against %ld", slow, fast);
    (void)munmap(shared, 4096);
}

static struct wb__turn
turn_open(void)
{
    struct wb__turn t = {.env = wb_env_system(), .lock = {.fd = -1}};

    CHECK_STATUS(OK, wb__lockfile_open(&t.lock, "turn-lock", NULL));
    return t;
}

TEST(test_turn__holder_killed__turn_is_free_at_once)
{
    struct wb__turn t = turn_open();
    pid_t child = test_fork();
    int64_t began;

    if (child == 0) {
        struct wb__turn own = turn_open();

        wb__lockfile_close(&t.lock);
        wb__turn_take(&own);
        test_write("taken", "", 0);
        (void)pause();
        _Exit(0);
    }
    while (access("taken", F_OK) != 0)
        (void)usleep(1000);
    CHECK(!wb__lockfile_try(&t.lock, WB__LOCK_MAIN));
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    began = real_us();
    wb__turn_take(&t);
    CHECK(t.held);
    CHECK(real_us() - began < 100000);
    wb__turn_give(&t);
    wb__lockfile_close(&t.lock);
}

/* A holder that is stopped costs patience, not the work. */
TEST(test_turn__holder_stopped__taken_for_granted_after_patience)
{
    struct wb__turn a = turn_open(), b = turn_open();
    int64_t began;

    wb__turn_take(&a);
    began = real_us();
    wb__turn_take(&b);
    CHECK(!b.held);
    CHECK(real_us() - began >= 200000);
    CHECK(real_us() - began < 5000000);
    wb__turn_give(&b); /* gives nothing that is not its own */
    CHECK(!wb__lockfile_try(&b.lock, WB__LOCK_MAIN));
    wb__turn_give(&a);
    wb__turn_take(&b);
    CHECK(b.held);
    wb__turn_give(&b);
    wb__lockfile_close(&a.lock);
    wb__lockfile_close(&b.lock);
}

/* ---- who waits --------------------------------------------------------- */

enum {
    WAITERS = 3
};
static struct {
    atomic_int n;
    int order[WAITERS];
} came;

static void *
wait_for_turn(void *number)
{
    struct wb__turn t = turn_open();

    wb__turn_take(&t);
    CHECK(t.held);
    came.order[came.n++] = *(int *)number;
    wb__turn_give(&t);
    wb__lockfile_close(&t.lock);
    return NULL;
}

TEST(test_turn__three_wait__in_the_order_they_came)
{
    struct wb__turn t = turn_open();
    int number[WAITERS];
    pthread_t thread[WAITERS];

    wb__turn_take(&t);
    for (int i = 0; i < WAITERS; i++) {
        int place = WB__LOCK_NEXT + i;

        number[i] = i;
        CHECK(pthread_create(&thread[i], NULL, wait_for_turn, &number[i]) == 0);
        while (!wb__lockfile_taken(&t.lock, place, place))
            (void)usleep(100);
    }
    wb__turn_give(&t);
    for (int i = 0; i < WAITERS; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
        CHECK_INT(i, came.order[i]);
    }
    wb__lockfile_close(&t.lock);
}

TEST(test_turn__others_wait__no_turn_but_behind_them)
{
    struct wb__turn t = turn_open(), waiting = turn_open();

    wb__turn_take(&t);
    CHECK(wb__lockfile_try(&waiting.lock, WB__LOCK_NEXT));
    wb__turn_give(&t);
    wb__turn_take(&t); /* nobody takes MAIN: its patience ends */
    CHECK(!t.held);
    wb__lockfile_close(&waiting.lock);
    wb__turn_take(&t);
    CHECK(t.held);
    wb__turn_give(&t);
    wb__lockfile_close(&t.lock);
}

TEST(test_turn__no_lock_file__no_turns_and_no_wait)
{
    struct wb__turn t = {.env = wb_env_system(), .lock = {.fd = -1}};

    wb__turn_take(&t);
    wb__turn_give(&t);
    CHECK(wb__lockfile_try(&t.lock, WB__LOCK_MAIN));
    wb__lockfile_free(&t.lock, WB__LOCK_MAIN);
    wb__lockfile_flag_set(&t.lock, true);
    CHECK(!wb__lockfile_flag(&t.lock));
    wb__lockfile_close(&t.lock);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_turn__two_processes_in_a_loop__slower_has_half_of_the_faster),
        RUN(test_turn__holder_killed__turn_is_free_at_once),
        RUN(test_turn__holder_stopped__taken_for_granted_after_patience),
        RUN(test_turn__three_wait__in_the_order_they_came),
        RUN(test_turn__others_wait__no_turn_but_behind_them),
        RUN(test_turn__no_lock_file__no_turns_and_no_wait),
    };
    return RUN_ALL(tests);
}
