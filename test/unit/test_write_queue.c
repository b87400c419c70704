/* test_write_queue.c - the queue of writing processes: fair, and free when its
 * holder dies (write_queue.c). */
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

TEST(test_write_queue__two_processes_in_a_loop__slower_has_half_of_the_faster)
{
    atomic_long *shared = shared_new();
    pid_t child[2];
    long fast = 1, slow = 0;

    wb_outbox_close(box_open());
    for (int i = 0; i < 2; i++) {
        child[i] = test_fork();
        if (child[i] == 0)
            write_in_a_loop(&shared[i], &shared[2]);
    }
    while (shared[0] < 5 || shared[1] < 5)
        (void)usleep(1000);
    /* On a busy machine one of them may not run for a while: measure again. */
    for (int i = 0; i < 5 && slow * 2 < fast; i++) {
        shared[0] = shared[1] = 0;
        (void)usleep(2000000); /* what is measured is time itself */
        fast = shared[0] > shared[1] ? shared[0] : shared[1];
        slow = shared[0] > shared[1] ? shared[1] : shared[0];
    }
    shared[2] = 1;
    for (int i = 0; i < 2; i++)
        CHECK(waitpid(child[i], NULL, 0) == child[i]);
    if (slow * 2 < fast)
        fail_msg("%ld against %ld", slow, fast);
    (void)munmap(shared, 4096);
}

static struct wb__write_queue
queue_open(void)
{
    struct wb__write_queue t = {.env = wb_env_system(), .lock = {.fd = -1}};

    CHECK_STATUS(OK, wb__lockfile_open(&t.lock, "queue-lock", NULL));
    return t;
}

TEST(test_write_queue__holder_killed__free_at_once)
{
    struct wb__write_queue t = queue_open();
    pid_t child = test_fork();
    int64_t began;

    if (child == 0) {
        struct wb__write_queue own = queue_open();

        wb__lockfile_close(&t.lock);
        wb__write_queue_enter(&own);
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
    wb__write_queue_enter(&t);
    CHECK(t.held);
    CHECK(real_us() - began < 100000);
    wb__write_queue_leave(&t);
    wb__lockfile_close(&t.lock);
}

/* A holder that is stopped costs patience, not the work. */
TEST(test_write_queue__holder_stopped__goes_on_after_patience)
{
    struct wb__write_queue a = queue_open(), b = queue_open();
    int64_t began;

    wb__write_queue_enter(&a);
    began = real_us();
    wb__write_queue_enter(&b);
    CHECK(!b.held);
    CHECK(real_us() - began >= 200000);
    CHECK(real_us() - began < 5000000);
    wb__write_queue_leave(&b); /* gives nothing that is not its own */
    CHECK(!wb__lockfile_try(&b.lock, WB__LOCK_MAIN));
    wb__write_queue_leave(&a);
    wb__write_queue_enter(&b);
    CHECK(b.held);
    wb__write_queue_leave(&b);
    wb__lockfile_close(&a.lock);
    wb__lockfile_close(&b.lock);
}

/* ---- waiting ----------------------------------------------------------- */

enum {
    WAITERS = 3
};
static struct {
    atomic_int n;
    int order[WAITERS];
} came;

static void *
wait_in_queue(void *number)
{
    struct wb__write_queue t = queue_open();

    wb__write_queue_enter(&t);
    CHECK(t.held);
    came.order[came.n++] = *(int *)number;
    wb__write_queue_leave(&t);
    wb__lockfile_close(&t.lock);
    return NULL;
}

TEST(test_write_queue__three_wait__in_the_order_they_came)
{
    struct wb__write_queue t = queue_open();
    int number[WAITERS];
    pthread_t thread[WAITERS];

    wb__write_queue_enter(&t);
    for (int i = 0; i < WAITERS; i++) {
        int slot = WB__LOCK_NEXT + i;

        number[i] = i;
        CHECK(pthread_create(&thread[i], NULL, wait_in_queue, &number[i]) == 0);
        while (!wb__lockfile_taken(&t.lock, slot, slot))
            (void)usleep(100);
    }
    wb__write_queue_leave(&t);
    for (int i = 0; i < WAITERS; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
        CHECK_INT(i, came.order[i]);
    }
    wb__lockfile_close(&t.lock);
}

TEST(test_write_queue__others_wait__only_behind_them)
{
    struct wb__write_queue t = queue_open(), waiting = queue_open();

    wb__write_queue_enter(&t);
    CHECK(wb__lockfile_try(&waiting.lock, WB__LOCK_NEXT));
    wb__write_queue_leave(&t);
    wb__write_queue_enter(&t); /* MAIN stays free: its patience ends */
    CHECK(!t.held);
    wb__lockfile_close(&waiting.lock);
    wb__write_queue_enter(&t);
    CHECK(t.held);
    wb__write_queue_leave(&t);
    wb__lockfile_close(&t.lock);
}

TEST(test_write_queue__no_lock_file__no_queue_and_no_wait)
{
    struct wb__write_queue t = {.env = wb_env_system(), .lock = {.fd = -1}};

    wb__write_queue_enter(&t);
    wb__write_queue_leave(&t);
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
        RUN(test_write_queue__two_processes_in_a_loop__slower_has_half_of_the_faster),
        RUN(test_write_queue__holder_killed__free_at_once),
        RUN(test_write_queue__holder_stopped__goes_on_after_patience),
        RUN(test_write_queue__three_wait__in_the_order_they_came),
        RUN(test_write_queue__others_wait__only_behind_them),
        RUN(test_write_queue__no_lock_file__no_queue_and_no_wait),
    };
    return RUN_ALL(tests);
}
