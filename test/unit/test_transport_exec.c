/* test_transport_exec.c - T-5: a command per message; F5, S3, S11. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport_fixture.h"

static bool no_process; /* may be made */

/* Replaces the function of libc. */
pid_t
fork(void)
{
    pid_t (*next)(void) = (pid_t(*)(void))(uintptr_t)dlsym(RTLD_NEXT, "fork");

    errno = EAGAIN;
    return no_process ? -1 : next();
}

static uv_loop_t loop;
static struct wb_transport *command;
static struct sent sent;

static void
open_command(const char *const *argv)
{
    struct wb_err err = {0};

    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_exec_new(&command, ENV, &loop, argv, &err), err);
}

static void
open_shell(const char *script)
{
    const char *argv[] = {"sh", "-c", script, NULL};

    open_command(argv);
}

static void
close_command(void)
{
    wb_transport_free(command);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, uv_loop_close(&loop));
}

static void
run_with(const struct wb_request *q)
{
    send_and_wait(&loop, command, q, &sent);
}

/* Run script on some_request(), with a deadline. */
static void
run_shell(const char *script, int64_t timeout_ms)
{
    struct wb_request q = some_request();

    q.timeout_ms = timeout_ms;
    open_shell(script);
    run_with(&q);
    close_command();
}

TEST(test_exec__payload_and_environment__reach_the_command)
{
    struct wb_request q = some_request();
    static const char script[] =
        "cat; for v in ID KIND KEY ATTEMPT CONTENT_TYPE HEADER_X_TENANT "
        "HEADER_A_B HEADER_LEFT IDS; do eval \"echo \\\"|\\$WAYBILL_$v\\\"\"; "
        "done; "
        "echo \"|$HOME_OF_TEST|$WAYBILL_CONFIG\"";

    CHECK_INT(0, setenv("HOME_OF_TEST", "here", 1));
    CHECK_INT(0, setenv("WAYBILL_CONFIG", "kept", 1));
    CHECK_INT(0, setenv("WAYBILL_ID", "outer", 1));
    CHECK_INT(0, setenv("WAYBILL_HEADER_LEFT", "outer", 1));
    open_shell(script);
    q.key = wb_slice("my-key");
    q.attempt = 3;
    q.ids = wb_slice("a,b");
    q.headers = wb_slice("X-Tenant: $(touch owned); `x`\na.b: c d\n");
    run_with(&q);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(0, sent.status);
    CHECK_TEXT("", sent.error);
    CHECK_TEXT("{\"n\":1}|0190b5a8-7c1e-7000-8000-000000000001\n|order.paid\n"
               "|my-key\n|3\n|application/json\n|$(touch owned); `x`\n|c d\n"
               "|\n|a,b\n|here|kept\n",
        sent.body);
    CHECK(access("owned", F_OK) != 0);
    close_command();
}

/* Run inside a command that an outer Waybill gave a batch. */
TEST(test_exec__outer_batch__its_ids_are_not_handed_down)
{
    struct wb_request q = some_request();

    CHECK_INT(0, setenv("WAYBILL_IDS", "outer", 1));
    open_shell("env | grep ^WAYBILL_IDS=; true");
    run_with(&q);
    CHECK_TEXT("", sent.body);
    q.ids = wb_slice("a,b");
    run_with(&q);
    CHECK_TEXT("WAYBILL_IDS=a,b\n", sent.body);
    close_command();
    CHECK_INT(0, unsetenv("WAYBILL_IDS"));
}

TEST(test_exec__argv__no_shell_between) /* S11 */
{
    const char *argv[] = {"printf", "%s,%s", "$HOME; a b", "", NULL};
    struct wb_request q = some_request();

    open_command(argv);
    run_with(&q);
    CHECK_TEXT("$HOME; a b,", sent.body);
    close_command();
}

TEST(test_exec__exit_status__decides)
{
    static const struct {
        int status;
        enum wb_outcome outcome;
    } cases[] = {
        {0, WB_DELIVERED},
        {1, WB_RETRY},
        {2, WB_RETRY},
        {64, WB_RETRY},
        {65, WB_REJECTED},
        {74, WB_REJECTED},
        {75, WB_RETRY},
        {76, WB_REJECTED},
        {78, WB_REJECTED},
        {79, WB_RETRY},
        {127, WB_RETRY},
        {255, WB_RETRY},
    };
    char script[50];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(script, sizeof(script), "exit %d", cases[i].status);
        run_shell(script, 5000);
        CHECK_INT(cases[i].outcome, sent.outcome);
        CHECK_INT(cases[i].status, sent.status);
        (void)snprintf(
            script, sizeof(script), "exit status %d", cases[i].status);
        CHECK_TEXT(i == 0 ? "" : script, sent.error);
    }
}

TEST(test_exec__stderr__last_lines_are_the_error)
{
    run_shell(
        "printf 'first\\n\\n\\nlast \\033[1mline\\n\\n' >&2; exit 65", 5000);
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_INT(65, sent.status);
    CHECK_TEXT("first | last [1mline", sent.error);
    run_shell("seq 1 15 >&2; exit 1", 5000);
    CHECK_TEXT("6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15", sent.error);
    run_shell("echo before >&2; kill -TERM $$", 5000);
    CHECK_TEXT("transport: died of signal 15: before", sent.error);
    run_shell("echo before >&2; sleep 30", 300);
    CHECK_TEXT("transport: killed after 300 ms: before", sent.error);
    run_shell("echo noise >&2; exit 0", 5000);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("", sent.error);
}

TEST(test_exec__endless_stderr__last_lines_still_found)
{
    run_shell("seq 1000000 1003000 >&2; echo the end >&2; exit 1", 5000);
    CHECK_HAS("1002992 | 1002993 | ", sent.error);
    CHECK_HAS("1003000 | the end", sent.error);
    CHECK(sent.error[0] == '1');
    run_shell("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", 5000);
    CHECK_INT(1500, strlen(sent.error));
    run_shell(
        "head -c 4000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2; "
        "exit 1",
        5000);
    CHECK_TEXT("end", sent.error);
}

TEST(test_exec__signal__retry)
{
    run_shell("kill -TERM $$", 5000);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_INT(0, sent.status);
    CHECK_TEXT("transport: died of signal 15", sent.error);
}

TEST(test_exec__reads_nothing__large_payload_harmless)
{
    struct wb_request q = some_request();
    char *large = malloc(1 << 20);

    memset(large, 'x', 1 << 20);
    q.body = (struct wb_slice){large, 1 << 20};
    open_shell("exit 0");
    run_with(&q);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_command();
    open_shell("wc -c");
    run_with(&q);
    CHECK_TEXT("1048576\n", sent.body);
    q.body = (struct wb_slice){0};
    run_with(&q);
    CHECK_TEXT("0\n", sent.body);
    close_command();
    free(large);
}

TEST(test_exec__writes_a_lot__64_kib_kept)
{
    run_shell("head -c 1000000 /dev/zero | tr '\\0' y", 5000);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(65536, sent.body_len);
    CHECK(sent.cut);
}

/* Gone, or a zombie that nobody has waited for yet. */
static bool
is_dead(const char *pid)
{
    char path[60], line[200] = "";
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", atoi(pid));
    f = fopen(path, "r");
    if (f == NULL)
        return true;
    (void)(fgets(line, sizeof(line), f) != NULL);
    (void)fclose(f);
    return line[0] == '\0' || strstr(line, ") Z ") != NULL;
}

TEST(test_exec__timeout__whole_group_killed_and_unknown)
{
    uint64_t start = uv_hrtime();
    char *pid;

    run_shell("echo so far; sleep 30 & "
              "sh -c 'echo $$ > child; exec sleep 30'",
        300);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_TEXT("transport: killed after 300 ms", sent.error);
    CHECK_TEXT("so far\n", sent.body);
    CHECK((uv_hrtime() - start) / 1000000 < 2500);
    pid = test_read("child", NULL);
    for (int i = 0; i < 400 && !is_dead(pid); i++)
        uv_sleep(5);
    CHECK(is_dead(pid));
    free(pid);
}

/* The message of a killed worker is sent again by another: the first command
 * must not run on beside the second. */
TEST(test_exec__worker_killed__child_is_killed)
{
    struct wb_request q = some_request();
    pid_t worker = fork();
    char *pid;

    CHECK(worker >= 0);
    if (worker == 0) {
        open_shell("echo $$ > new && mv new command; exec sleep 30");
        run_with(&q);
        _exit(0);
    }
    for (int i = 0; i < 2000 && access("command", F_OK) != 0; i++)
        uv_sleep(5);
    pid = test_read("command", NULL);
    CHECK(!is_dead(pid));
    CHECK_INT(0, kill(worker, SIGKILL));
    CHECK_INT(worker, waitpid(worker, NULL, 0));
    for (int i = 0; i < 1000 && !is_dead(pid); i++)
        uv_sleep(5);
    CHECK(is_dead(pid));
    free(pid);
}

/* SIGCHLD ignored: the exit status arrives all the same. */
TEST(test_exec__signals_ignored_here__default_in_the_command)
{
    CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    CHECK(signal(SIGHUP, SIG_IGN) != SIG_ERR);
    /* Signals 1 to 31; those above belong to libc. */
    run_shell("grep -cE '^Sig(Blk|Ign):.{9}[08]0{7}$' /proc/self/status; "
              "exit 3",
        5000);
    CHECK_INT(3, sent.status);
    CHECK_TEXT("2\n", sent.body);
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    CHECK(signal(SIGHUP, SIG_DFL) != SIG_ERR);
}

/* The kernel, or a waitpid() of the program, was faster. */
TEST(test_exec__exit_status_taken_by_others__unknown)
{
    struct wb_request q = some_request();

    open_shell("sleep 0.3");
    memset(&sent, 0, sizeof(sent));
    command->send(command, &q, sent_done, &sent);
    CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
    CHECK_INT(1, sent.calls);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_TEXT("transport: other code of this process took the exit status",
        sent.error);
    close_command();
}

/* The payload then has descriptor 0. */
TEST(test_exec__stdin_closed_here__command_has_the_payload)
{
    struct wb_request q = some_request();
    int kept, left;

    open_shell("cat");
    kept = fcntl(0, F_DUPFD_CLOEXEC, 10);
    (void)close(0);
    run_with(&q);
    left = fcntl(0, F_GETFD);
    if (kept >= 0) {
        (void)dup2(kept, 0);
        (void)close(kept);
    }
    CHECK_INT(-1, left); /* the payload is closed */
    CHECK_TEXT("{\"n\":1}", sent.body);
    close_command();
}

TEST(test_exec__grandchild_holds_the_pipes__not_waited_for)
{
    uint64_t start = uv_hrtime();

    run_shell("echo hi; sleep 4 & exit 0", 10000);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("hi\n", sent.body);
    CHECK((uv_hrtime() - start) / 1000000 < 3000);
}

TEST(test_exec__no_such_command__retry_and_says_so)
{
    const char *argv[] = {"waybill-no-such-command", NULL};
    struct wb_request q = some_request();

    open_command(argv);
    run_with(&q);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_TEXT(
        "transport: cannot start the command \"waybill-no-such-command\": "
        "no such file or directory",
        sent.error);
    close_command();
}

TEST(test_exec__bad_request__rejected) /* S3 */
{
    struct wb_request q = some_request();

    open_shell("touch ran");
    q.headers = wb_slice("A: b\r\n");
    run_with(&q);
    CHECK_INT(WB_REJECTED, sent.outcome);
    q.headers = (struct wb_slice){0};
    q.kind = (struct wb_slice){"a\0b", 3};
    run_with(&q);
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK(access("ran", F_OK) != 0);
    close_command();
}

TEST(test_exec__bad_command__invalid)
{
    static const char *const none[] = {NULL}, *const empty[] = {"", NULL};
    struct wb_transport *t;

    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_STATUS(INVALID, wb_exec_new(&t, ENV, &loop, none, NULL));
    CHECK_STATUS(INVALID, wb_exec_new(&t, ENV, &loop, empty, NULL));
    CHECK_INT(0, uv_loop_close(&loop));
}

TEST(test_exec__many_at_once__each_reported_once)
{
    static struct sent all[20];
    struct wb_request q = some_request();

    memset(all, 0, sizeof(all));
    open_shell("cat");
    for (int i = 0; i < 20; i++)
        command->send(command, &q, sent_done, &all[i]);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(1, all[i].calls);
        CHECK_TEXT("{\"n\":1}", all[i].body);
    }
    close_command();
}

TEST(test_exec__freed_in_flight__killed_and_no_done)
{
    struct wb_request q = some_request();
    uint64_t start = uv_hrtime();

    open_shell("exec sleep 30");
    memset(&sent, 0, sizeof(sent));
    command->send(command, &q, sent_done, &sent);
    (void)uv_run(&loop, UV_RUN_NOWAIT);
    close_command();
    CHECK_INT(0, sent.calls);
    CHECK((uv_hrtime() - start) / 1000000 < 3000);
}

TEST(test_exec__memory_fails__retry_and_no_leak) /* F4 */
{
    static const char *const argv[] = {"true", NULL};
    struct wb_request q = some_request();

    for (long n = 0;; n++) {
        struct wb_err err = {0};

        CHECK_INT(0, uv_loop_init(&loop));
        fake_alloc_fail_at(n);
        if (wb_exec_new(&command, ENV, &loop, argv, &err) == WB_OK) {
            run_with(&q);
            CHECK(sent.outcome ==
                  (fake_env.failed == 0 ? WB_DELIVERED : WB_RETRY));
            wb_transport_free(command);
        } else {
            CHECK_INT(WB_NOMEM, err.status);
        }
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        CHECK_INT(0, uv_loop_close(&loop));
        if (fake_env.failed == 0)
            break;
    }
    fake_alloc_fail_at(-1);
}

/* The limit of processes, or of descriptors, of this machine. */
TEST(test_exec__no_process_or_descriptor_left__not_sent_and_no_attempt)
{
    struct rlimit old, none;

    no_process = true;
    run_shell("exit 0", 5000);
    no_process = false;
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK(sent.no_resource);
    CHECK_HAS("cannot start the command \"sh\": ", sent.error);
    open_shell("exit 0");
    CHECK_INT(0, getrlimit(RLIMIT_NOFILE, &old));
    none = old;
    none.rlim_cur = 3;
    for (;; none.rlim_cur++) {
        struct wb_request q = some_request();

        CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &none));
        run_with(&q);
        CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &old));
        if (sent.outcome == WB_DELIVERED)
            break;
        CHECK_INT(WB_RETRY, sent.outcome);
        CHECK(sent.no_resource);
    }
    close_command();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_exec__payload_and_environment__reach_the_command),
        RUN(test_exec__outer_batch__its_ids_are_not_handed_down),
        RUN(test_exec__argv__no_shell_between),
        RUN(test_exec__exit_status__decides),
        RUN(test_exec__stderr__last_lines_are_the_error),
        RUN(test_exec__endless_stderr__last_lines_still_found),
        RUN(test_exec__signal__retry),
        RUN(test_exec__reads_nothing__large_payload_harmless),
        RUN(test_exec__writes_a_lot__64_kib_kept),
        RUN(test_exec__timeout__whole_group_killed_and_unknown),
        RUN(test_exec__worker_killed__child_is_killed),
        RUN(test_exec__signals_ignored_here__default_in_the_command),
        RUN(test_exec__exit_status_taken_by_others__unknown),
        RUN(test_exec__stdin_closed_here__command_has_the_payload),
        RUN(test_exec__grandchild_holds_the_pipes__not_waited_for),
        RUN(test_exec__no_such_command__retry_and_says_so),
        RUN(test_exec__bad_request__rejected),
        RUN(test_exec__bad_command__invalid),
        RUN(test_exec__many_at_once__each_reported_once),
        RUN(test_exec__freed_in_flight__killed_and_no_done),
        RUN(test_exec__memory_fails__retry_and_no_leak),
        RUN(test_exec__no_process_or_descriptor_left__not_sent_and_no_attempt),
    };
    return RUN_ALL(tests);
}
