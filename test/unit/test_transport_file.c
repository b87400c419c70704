/* test_transport_file.c - T-5: NDJSON in a file, one durable line a message;
 * F3, S11. And the callback transport. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "transport_fixture.h"

static int bad_syncs;    /* how many of the next fsync() fail */
static atomic_bool hang; /* fsync() waits while it is true */

/* Replaces the function of libc. */
int
fsync(int fd)
{
    while (atomic_load(&hang))
        (void)poll(NULL, 0, 1);
    if (bad_syncs == 0)
        return fdatasync(fd);
    bad_syncs--;
    errno = EIO;
    return -1;
}

static uv_loop_t loop;
static struct wb_transport *file;
static struct sent sent;

static void
open_file(const char *path)
{
    struct wb_err err = {0};

    CHECK_OK(wb_file_new(&file, ENV, &loop, path, &err), err);
}

static void
append(const char *body, size_t len)
{
    struct wb_request q = some_request();

    q.body = (struct wb_slice){body, len};
    send_and_wait(&loop, file, &q, &sent);
}

static void
check_file(const char *path, const char *text)
{
    char *found = test_read(path, NULL);

    CHECK_TEXT(text, found);
    free(found);
}

static void
close_file(void)
{
    wb_transport_free(file);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
}

#define HEAD                                                             \
    "{\"id\":\"0190b5a8-7c1e-7000-8000-000000000001\",\"kind\":\"order." \
    "paid\","

TEST(test_file__json__one_line_each)
{
    open_file("out.ndjson");
    append("{\"n\":1}", 7);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("", sent.error);
    append("[1,\r\n 2]\n", 9);
    append("\"a\\nb\"", 6);
    append("123456789012345678901234567890", 30);
    check_file("out.ndjson",
        HEAD "\"payload\":{\"n\":1}}\n" HEAD "\"payload\":[1,   2] }\n" HEAD
             "\"payload\":\"a\\nb\"}\n" HEAD
             "\"payload\":123456789012345678901234567890}\n");
    close_file();
}

TEST(test_file__no_json__base64)
{
    static const struct {
        const char *body;
        size_t len;
        const char *base64;
    } cases[] = {
        {"", 0, ""},
        {"{\"n\":", 5, "eyJuIjo="},
        {"1 2", 3, "MSAy"},
        {"\"\xff\"", 3, "Iv8i"},
        {"a\nb", 3, "YQpi"},
        {"1}\n{\"id\":1", 10, "MX0KeyJpZCI6MQ=="},
        {"\0", 1, "AA=="},
    };

    open_file("out");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[200];

        append(cases[i].body, cases[i].len);
        CHECK_INT(WB_DELIVERED, sent.outcome);
        (void)snprintf(line, sizeof(line), HEAD "\"payload_base64\":\"%s\"}\n",
            cases[i].base64);
        check_file("out", line);
        CHECK_INT(0, unlink("out"));
    }
    close_file();
}

TEST(test_file__new_file__private) /* S11 */
{
    struct stat st;
    mode_t old = umask(0);

    open_file("out");
    (void)umask(old);
    CHECK_INT(0, stat("out", &st));
    CHECK_INT(0600, st.st_mode & 07777);
    close_file();
}

TEST(test_file__link_folder_device_fifo__refused) /* S11 */
{
    struct wb_transport *t = NULL;

    test_write("target", "", 0);
    CHECK_INT(0, symlink("target", "link"));
    CHECK_INT(0, mkdir("folder", 0700));
    CHECK_INT(0, mkfifo("fifo", 0600));
    CHECK_STATUS(REFUSED, wb_file_new(&t, ENV, &loop, "link", NULL));
    CHECK_STATUS(REFUSED, wb_file_new(&t, ENV, &loop, "/dev/full", NULL));
    CHECK_STATUS(REFUSED, wb_file_new(&t, ENV, &loop, "fifo", NULL));
    CHECK_STATUS(UNAVAILABLE, wb_file_new(&t, ENV, &loop, "folder", NULL));
    CHECK_STATUS(NOTFOUND, wb_file_new(&t, ENV, &loop, "none/out", NULL));
    CHECK(t == NULL);
}

TEST(test_file__rotated_away__goes_into_a_new_one)
{
    open_file("out");
    append("1", 1);
    CHECK_INT(0, rename("out", "out.1"));
    append("2", 1);
    check_file("out.1", HEAD "\"payload\":1}\n");
    check_file("out", HEAD "\"payload\":2}\n");
    CHECK_INT(0, unlink("out"));
    CHECK_INT(0, symlink("out.1", "out"));
    append("3", 1);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_HAS("transport: out is a symbolic link", sent.error);
    check_file("out.1", HEAD "\"payload\":1}\n");
    close_file();
}

TEST(test_file__torn_line_before__ended_first)
{
    test_write("out", "{\"id\":\"half", 11);
    open_file("out");
    append("1", 1);
    check_file("out", "{\"id\":\"half\n" HEAD "\"payload\":1}\n");
    close_file();
}

/* A disk that is full in the middle of a line, by the limit of file sizes:
 * the write is short, and what it left goes. */
TEST(test_file__disk_full__line_cut_off_and_retry) /* F3, C7 */
{
    struct rlimit old, tight;
    char before[200];

    open_file("out");
    append("1", 1);
    (void)snprintf(before, sizeof(before), HEAD "\"payload\":1}\n");
    CHECK_INT(0, getrlimit(RLIMIT_FSIZE, &old));
    (void)signal(SIGXFSZ, SIG_IGN);
    for (size_t space = 0; space < strlen(before); space += 7) {
        tight = old;
        tight.rlim_cur = strlen(before) + space;
        CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &tight));
        append("2", 1);
        CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &old));
        CHECK_INT(WB_RETRY, sent.outcome);
        CHECK_HAS("transport: cannot write all of a line to out", sent.error);
        check_file("out", before);
    }
    (void)signal(SIGXFSZ, SIG_DFL);
    append("2", 1);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_file();
}

TEST(test_file__sync_fails__unknown_then_fine) /* F3 */
{
    open_file("out");
    append("1", 1);
    bad_syncs = 1;
    append("2", 1);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_TEXT("transport: cannot sync out: Input/output error", sent.error);
    append("3", 1);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_file();
}

/* The name must be on the disk before a line in it counts. */
TEST(test_file__folder_not_synced__nothing_delivered) /* F2 */
{
    struct wb_transport *t;

    bad_syncs = 1;
    CHECK_STATUS(UNAVAILABLE, wb_file_new(&t, ENV, &loop, "out", NULL));
    bad_syncs = 0;
    open_file("out");
    CHECK_INT(0, unlink("out"));
    bad_syncs = 2;
    append("1", 1);
    CHECK_INT(WB_RETRY, sent.outcome);
    append("1", 1);
    CHECK_INT(WB_RETRY, sent.outcome);
    append("1", 1);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    check_file("out", HEAD "\"payload\":1}\n");
    close_file();
}

TEST(test_file__kind_with_quote__rejected)
{
    struct wb_request q = some_request();

    open_file("out");
    memset(&sent, 0, sizeof(sent));
    q.kind = wb_slice("a\",\"x\":\"");
    file->send(file, &q, sent_done, &sent);
    CHECK_INT(WB_REJECTED, sent.outcome);
    check_file("out", "");
    close_file();
}

TEST(test_file__memory_fails__retry_and_no_leak) /* F4 */
{
    for (long n = 0;; n++) {
        struct wb_err err = {0};

        fake_alloc_fail_at(n);
        if (wb_file_new(&file, ENV, &loop, "out", &err) == WB_OK) {
            append("1", 1);
            CHECK(sent.outcome ==
                  (fake_env.failed == 0 ? WB_DELIVERED : WB_RETRY));
            close_file();
        } else {
            CHECK_INT(WB_NOMEM, err.status);
        }
        if (fake_env.failed == 0)
            break;
    }
    fake_alloc_fail_at(-1);
    check_file("out", HEAD "\"payload\":1}\n");
}

/* Writers in several processes: every line whole. */
TEST(test_file__many_writers__no_line_torn)
{
    pid_t child[4];
    char *text, *line;
    int lines = 0;

    open_file("out");
    for (int i = 0; i < 4; i++) {
        child[i] = test_fork();
        if (child[i] == 0) {
            for (int k = 0; k < 50; k++)
                if (wb__append_line(
                        "out", WB_LIT("0123456789\n"), true, NULL) != WB_OK)
                    _Exit(1);
            _Exit(0);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status;

        CHECK_INT(child[i], waitpid(child[i], &status, 0));
        CHECK_INT(0, status);
    }
    text = test_read("out", NULL);
    for (line = text; *line != '\0'; line += 11, lines++)
        CHECK(strncmp(line, "0123456789\n", 11) == 0);
    CHECK_INT(200, lines);
    free(text);
    close_file();
}

/* ---- a file that is locked, a disk that hangs ---------------------------- */

/* Lock it as another program would. */
static int
lock_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    return fd;
}

static void
on_tick(uv_timer_t *timer)
{
    int *left = timer->data;

    if (--*left == 0) {
        (void)flock(left[1], LOCK_UN);
        uv_close((uv_handle_t *)timer, NULL);
    }
}

TEST(test_file__locked_by_another__loop_goes_on_and_line_follows)
{
    struct wb_request q = some_request();
    struct sent second = {0};
    uv_timer_t timer;
    int left[2] = {20, -1};

    open_file("out");
    left[1] = lock_file("out");
    timer.data = left;
    CHECK_INT(0, uv_timer_init(&loop, &timer));
    CHECK_INT(0, uv_timer_start(&timer, on_tick, 1, 1));
    memset(&sent, 0, sizeof(sent));
    file->send(file, &q, sent_done, &sent);
    q.body = WB_LIT("2");
    file->send(file, &q, sent_done, &second);
    CHECK_INT(0, sent.calls);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, left[0]);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(WB_DELIVERED, second.outcome);
    check_file("out", HEAD "\"payload\":{\"n\":1}}\n" HEAD "\"payload\":2}\n");
    CHECK_INT(0, close(left[1]));
    close_file();
}

TEST(test_file__locked_past_the_timeout__retry_and_nothing_added)
{
    struct wb_request q = some_request();
    struct sent second = {0};
    int fd;

    open_file("out");
    fd = lock_file("out");
    q.timeout_ms = 1000; /* a first try must fit, also on a slow machine */
    memset(&sent, 0, sizeof(sent));
    file->send(file, &q, sent_done, &sent);
    file->send(file, &q, sent_done, &second);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(1, sent.calls);
    CHECK_INT(1, second.calls);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_INT(WB_RETRY, second.outcome);
    CHECK_HAS("another program keeps out locked", sent.error);
    check_file("out", "");
    CHECK_INT(0, close(fd));
    append("1", 1);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_file();
}

TEST(test_file__write_past_the_timeout__unknown_and_next_one_waits)
{
    struct wb_request q = some_request();
    struct sent second = {0};

    open_file("out");
    append("0", 1);
    atomic_store(&hang, true);
    q.timeout_ms = 20;
    memset(&sent, 0, sizeof(sent));
    file->send(file, &q, sent_done, &sent);
    while (sent.calls == 0)
        (void)uv_run(&loop, UV_RUN_ONCE);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_TEXT("transport: the write takes too long", sent.error);
    q.timeout_ms = 60000;
    q.body = WB_LIT("2");
    file->send(file, &q, sent_done, &second);
    CHECK_INT(0, second.calls);
    atomic_store(&hang, false);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(WB_DELIVERED, second.outcome);
    CHECK_INT(1, sent.calls);
    close_file();
}

TEST(test_file__freed_while_lines_wait_and_one_is_written__no_call_no_leak)
{
    struct wb_request q = some_request();

    open_file("out");
    append("0", 1);
    atomic_store(&hang, true);
    memset(&sent, 0, sizeof(sent));
    file->send(file, &q, sent_done, &sent);
    file->send(file, &q, sent_done, &sent);
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    wb_transport_free(file);
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    atomic_store(&hang, false);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, sent.calls);
}

TEST(test_file__no_descriptor_left__not_written_and_no_attempt)
{
    struct rlimit old, none;

    open_file("f");
    CHECK_INT(0, getrlimit(RLIMIT_NOFILE, &old));
    none = old;
    none.rlim_cur = 3;
    CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &none));
    append("1", 1);
    CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &old));
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK(sent.no_resource);
    CHECK_HAS("cannot open f: Too many open files", sent.error);
    append("1", 1);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    wb_transport_free(file);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
}

/* ---- callback ---------------------------------------------------------- */

static void
answer(void *ctx, const struct wb_request *q, struct wb_result *r)
{
    *(int *)ctx += (int)q->attempt;
    r->outcome = WB_UNKNOWN;
    r->status = 7;
    r->error = wb_slice("lost");
}

TEST(test_callback__result__handed_on)
{
    struct wb_request q = some_request();
    struct wb_transport *t;
    struct wb_err err = {0};
    int calls = 0;

    CHECK_OK(wb_callback_new(&t, ENV, answer, &calls, &err), err);
    CHECK_TEXT("callback", t->name);
    memset(&sent, 0, sizeof(sent));
    t->send(t, &q, sent_done, &sent);
    CHECK_INT(1, calls);
    CHECK_INT(1, sent.calls);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_INT(7, sent.status);
    CHECK_TEXT("lost", sent.error);
    wb_transport_free(t);
    wb_transport_free(NULL);
    fake_alloc_fail_at(0);
    CHECK_STATUS(NOMEM, wb_callback_new(&t, ENV, answer, NULL, NULL));
    fake_alloc_fail_at(-1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_file__json__one_line_each),
        RUN(test_file__no_json__base64),
        RUN(test_file__new_file__private),
        RUN(test_file__link_folder_device_fifo__refused),
        RUN(test_file__rotated_away__goes_into_a_new_one),
        RUN(test_file__torn_line_before__ended_first),
        RUN(test_file__disk_full__line_cut_off_and_retry),
        RUN(test_file__sync_fails__unknown_then_fine),
        RUN(test_file__folder_not_synced__nothing_delivered),
        RUN(test_file__kind_with_quote__rejected),
        RUN(test_file__memory_fails__retry_and_no_leak),
        RUN(test_file__many_writers__no_line_torn),
        RUN(test_file__locked_by_another__loop_goes_on_and_line_follows),
        RUN(test_file__locked_past_the_timeout__retry_and_nothing_added),
        RUN(test_file__write_past_the_timeout__unknown_and_next_one_waits),
        RUN(test_file__freed_while_lines_wait_and_one_is_written__no_call_no_leak),
        RUN(test_file__no_descriptor_left__not_written_and_no_attempt),
        RUN(test_callback__result__handed_on),
    };

    CHECK_INT(0, uv_loop_init(&loop));
    return RUN_ALL(tests);
}
