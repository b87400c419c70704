/* test_transport_file.c - T-5: NDJSON in a file, one durable line a message;
 * F3, S11. And the callback transport. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "transport_fixture.h"

static int bad_syncs; /* how many of the next fsync() fail */

/* Replaces the function of libc. */
int
fsync(int fd)
{
    if (bad_syncs == 0)
        return fdatasync(fd);
    bad_syncs--;
    errno = EIO;
    return -1;
}

static struct wb_transport *file;
static struct sent sent;

static void
open_file(const char *path)
{
    struct wb_err err = {0};

    CHECK_OK(wb_file_new(&file, ENV, path, &err), err);
}

static void
append(const char *body, size_t len)
{
    struct wb_request q = some_request();

    memset(&sent, 0, sizeof(sent));
    q.body = (struct wb_slice){body, len};
    file->send(file, &q, sent_done, &sent);
    CHECK_INT(1, sent.calls);
}

static void
check_file(const char *path, const char *text)
{
    char *found = test_read(path, NULL);

    CHECK_TEXT(text, found);
    free(found);
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
    wb_transport_free(file);
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
    wb_transport_free(file);
}

TEST(test_file__new_file__private) /* S11 */
{
    struct stat st;
    mode_t old = umask(0);

    open_file("out");
    (void)umask(old);
    CHECK_INT(0, stat("out", &st));
    CHECK_INT(0600, st.st_mode & 07777);
    wb_transport_free(file);
}

TEST(test_file__link_folder_device_fifo__refused) /* S11 */
{
    struct wb_transport *t = NULL;

    test_write("target", "", 0);
    CHECK_INT(0, symlink("target", "link"));
    CHECK_INT(0, mkdir("folder", 0700));
    CHECK_INT(0, mkfifo("fifo", 0600));
    CHECK_STATUS(REFUSED, wb_file_new(&t, ENV, "link", NULL));
    CHECK_STATUS(REFUSED, wb_file_new(&t, ENV, "/dev/full", NULL));
    CHECK_STATUS(REFUSED, wb_file_new(&t, ENV, "fifo", NULL));
    CHECK_STATUS(UNAVAILABLE, wb_file_new(&t, ENV, "folder", NULL));
    CHECK_STATUS(NOTFOUND, wb_file_new(&t, ENV, "none/out", NULL));
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
    CHECK_HAS("transport: cannot open out", sent.error);
    check_file("out.1", HEAD "\"payload\":1}\n");
    wb_transport_free(file);
}

TEST(test_file__torn_line_before__ended_first)
{
    test_write("out", "{\"id\":\"half", 11);
    open_file("out");
    append("1", 1);
    check_file("out", "{\"id\":\"half\n" HEAD "\"payload\":1}\n");
    wb_transport_free(file);
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
    wb_transport_free(file);
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
    wb_transport_free(file);
}

/* The name must be on the disk before a line in it counts. */
TEST(test_file__folder_not_synced__nothing_delivered) /* F2 */
{
    struct wb_transport *t;

    bad_syncs = 1;
    CHECK_STATUS(UNAVAILABLE, wb_file_new(&t, ENV, "out", NULL));
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
    wb_transport_free(file);
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
    wb_transport_free(file);
}

TEST(test_file__memory_fails__retry_and_no_leak) /* F4 */
{
    for (long n = 0;; n++) {
        struct wb_err err = {0};

        fake_alloc_fail_at(n);
        if (wb_file_new(&file, ENV, "out", &err) == WB_OK) {
            append("1", 1);
            CHECK(sent.outcome ==
                  (fake_env.failed == 0 ? WB_DELIVERED : WB_RETRY));
            wb_transport_free(file);
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
                if (wb__append_line("out", WB_LIT("0123456789\n"), NULL) !=
                    WB_OK)
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
    wb_transport_free(file);
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
        RUN(test_callback__result__handed_on),
    };
    return RUN_ALL(tests);
}
