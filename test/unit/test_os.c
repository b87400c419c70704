/* test_os.c - files, locks between processes, commands, the machine's
 * environment. */
#include "os/os.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

static uint32_t
mode_of(const char *path)
{
    struct stat st;

    CHECK(lstat(path, &st) == 0);
    return st.st_mode & 07777;
}

TEST(test_os__file_info__type_size_mode_inode)
{
    struct wb__file_info p;

    p = wb__file_info_of("none");
    CHECK(!p.exists);
    CHECK_INT(ENOENT, p.sys);
    test_write("file", "12345", 5);
    CHECK(chmod("file", 0640) == 0);
    p = wb__file_info_of("file");
    CHECK(p.exists && p.is_file && !p.is_dir && !p.network);
    CHECK_INT(5, p.bytes);
    CHECK_INT(0640, p.mode);
    CHECK(p.inode != 0);
    p = wb__file_info_of(".");
    CHECK(p.exists && p.is_dir && !p.is_file);
    CHECK_INT(ENOTDIR, wb__file_info_of("file/x").sys);
}

static int syncs;
static bool sync_fails;

/* Replaces the function of libc. */
int
fsync(int fd)
{
    syncs++;
    errno = EIO;
    return sync_fails ? -1 : fdatasync(fd);
}

TEST(test_os__S11_folders__made_0700_up_to_the_name)
{
    struct wb_err err = {0};
    char path[5000];
    mode_t old = umask(0);

    syncs = 0;
    CHECK_STATUS(OK, wb__folders_make("a/b//c/file", NULL));
    CHECK_INT(3, syncs); /* of the folder that each is in */
    CHECK_INT(0700, mode_of("a"));
    CHECK_INT(0700, mode_of("a/b/c"));
    CHECK(access("a/b/c/file", F_OK) != 0);
    CHECK_STATUS(OK, wb__folders_make("a/b/c/file", NULL));
    CHECK_STATUS(OK, wb__folders_make("file", NULL));
    CHECK_STATUS(OK, wb__folders_make("/tmp/file", NULL));
    CHECK_INT(3, syncs);
    sync_fails = true;
    CHECK_STATUS(IO, wb__folders_make("unsynced/file", &err));
    sync_fails = false;
    CHECK_HAS("cannot sync the folder above unsynced", err.msg);
    test_write("plain", "", 0);
    CHECK_STATUS(IO, wb__folders_make("plain/x/file", NULL));
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    CHECK_STATUS(INVALID, wb__folders_make(path, NULL));
    (void)umask(old);
}

TEST(test_os__S11_create__never_over_a_file_or_through_a_link)
{
    mode_t old = umask(0);

    CHECK_STATUS(OK, wb__file_create("new", NULL));
    CHECK_INT(0600, mode_of("new"));
    CHECK_STATUS(EMPTY, wb__file_create("new", NULL));
    CHECK(symlink("target", "link") == 0);
    CHECK_STATUS(EMPTY, wb__file_create("link", NULL));
    CHECK(access("target", F_OK) != 0);
    CHECK_STATUS(NOTFOUND, wb__file_create("no/new", NULL));
    wb__file_remove("new");
    wb__file_remove("new");
    CHECK(access("new", F_OK) != 0);
    (void)umask(old);
}

TEST(test_os__replace_and_read__whole_or_old)
{
    struct wb__buf b = {.env = ENV, .max = 20000};
    char big[10000];
    size_t len = 0;

    memset(big, 'b', sizeof(big));
    CHECK_STATUS(NOTFOUND, wb__file_read("f", &b, NULL));
    CHECK_STATUS(OK, wb__file_replace("f", S("one"), NULL));
    CHECK_INT(0600, mode_of("f"));
    CHECK_STATUS(
        OK, wb__file_replace("f", (struct wb_slice){big, sizeof(big)}, NULL));
    CHECK_STATUS(OK, wb__file_read("f", &b, NULL));
    CHECK_INT(10000, b.len);
    CHECK(memcmp(big, b.ptr, b.len) == 0);
    CHECK_STATUS(OK, wb__file_replace("f", S(""), NULL));
    free(test_read("f", &len));
    CHECK_INT(0, len);
    CHECK_STATUS(NOTFOUND, wb__file_replace("no/f", S("x"), NULL));
    wb__buf_fini(&b);
}

TEST(test_os__replace_fails__old_one_and_no_leftover)
{
    char name[300];
    char *text;

    CHECK(mkdir("folder", 0700) == 0);
    test_write("folder/x", "x", 1);
    CHECK_STATUS(IO, wb__file_replace("folder", S("new"), NULL));
    text = test_read("folder/x", NULL);
    CHECK_TEXT("x", text);
    free(text);
    (void)snprintf(name, sizeof(name), "folder.%ld.tmp", (long)getpid());
    CHECK(access(name, F_OK) != 0);
}

TEST(test_os__read__bounded)
{
    struct wb__buf b = {.env = ENV, .max = 9};

    test_write("f", "0123456789", 10);
    CHECK_STATUS(TOOBIG, wb__file_read("f", &b, NULL));
    wb__buf_fini(&b);
    b.max = 10;
    CHECK_STATUS(OK, wb__file_read("f", &b, NULL));
    CHECK_SLICE("0123456789", wb__buf_slice(&b));
    wb__buf_fini(&b);
}

/* ---- locks ------------------------------------------------------------- */

TEST(test_os__locks__two_opens_of_one_process_exclude_each_other)
{
    struct wb__lockfile a, b, c;

    CHECK_STATUS(OK, wb__lockfile_open(&a, "l", NULL));
    CHECK_STATUS(OK, wb__lockfile_open(&b, "l", NULL));
    CHECK_INT(0600, mode_of("l"));
    CHECK(wb__lockfile_try(&a, 0));
    CHECK(wb__lockfile_try(&a, 0)); /* its own, again */
    CHECK(!wb__lockfile_try(&b, 0));
    CHECK(wb__lockfile_try(&b, 1)); /* another byte */
    CHECK_STATUS(OK, wb__lockfile_open(&c, "l", NULL));
    wb__lockfile_close(&c); /* drops nothing of a's */
    CHECK(!wb__lockfile_try(&b, 0));
    wb__lockfile_free(&a, 0);
    CHECK(wb__lockfile_try(&b, 0));
    wb__lockfile_close(&b);
    CHECK(wb__lockfile_try(&a, 0) && wb__lockfile_try(&a, 1));
    wb__lockfile_close(&a);
    wb__lockfile_close(&a);
    CHECK_PANICS(_Exit(wb__lockfile_try(&a, 64)));
}

TEST(test_os__flag__shared_and_kept)
{
    struct wb__lockfile a, b;

    CHECK_STATUS(OK, wb__lockfile_open(&a, "l", NULL));
    CHECK_STATUS(OK, wb__lockfile_open(&b, "l", NULL));
    CHECK(!wb__lockfile_flag(&a));
    wb__lockfile_flag_set(&a, true);
    CHECK(wb__lockfile_flag(&b));
    wb__lockfile_close(&a);
    wb__lockfile_close(&b);
    CHECK_STATUS(OK, wb__lockfile_open(&a, "l", NULL));
    CHECK(wb__lockfile_flag(&a));
    wb__lockfile_flag_set(&a, false);
    CHECK(!wb__lockfile_flag(&a));
    wb__lockfile_close(&a);
}

TEST(test_os__S11_lock_file_is_a_link__not_followed)
{
    struct wb__lockfile a;
    struct wb_err err = {0};

    CHECK(symlink("target", "l") == 0);
    CHECK(wb__lockfile_open(&a, "l", &err) != WB_OK);
    CHECK_INT(-1, a.fd);
    CHECK(access("target", F_OK) != 0);
    CHECK_HAS("l:", err.msg);
}

/* ---- the machine ------------------------------------------------------- */

TEST(test_os__system_environment__clocks_advance_and_random_bytes_differ)
{
    const struct wb_env *e = wb_env_system();
    int64_t mono = e->mono_us(e->ctx);
    uint8_t a[300], b[300];
    void *p;

    CHECK(e->wall_ms(e->ctx) > INT64_C(1600000000000));
    CHECK(e->mono_us(e->ctx) >= mono);
    wb__sleep_us(1500);
    CHECK(e->mono_us(e->ctx) >= mono + 1500);
    e->random(e->ctx, a, sizeof(a));
    e->random(e->ctx, b, sizeof(b));
    CHECK(memcmp(a, b, sizeof(a)) != 0);
    e->random(e->ctx, NULL, 0);
    p = e->resize(e->ctx, NULL, 10);
    CHECK(p != NULL);
    p = e->resize(e->ctx, p, 10000);
    CHECK(p != NULL);
    CHECK(e->resize(e->ctx, p, 0) == NULL);
}

static bool stop_it;

/* A signal for us that comes as our child has begun, and is not the command
 * yet. */
static void
on_child(void)
{
    if (!stop_it)
        return;
    (void)kill(getppid(), SIGTERM);
    (void)usleep(100000);
}

static void
nowhere(void *ctx, int fd, struct wb_slice piece)
{
    (void)ctx;
    (void)fd;
    (void)piece;
}

/* What was handed on ended the command: it is not said to have been, and the
 * command run to its end. */
TEST(test_os__process_signalled_between_fork_and_exec__signal_not_lost)
{
    static const char *const argv[] = {"sh", "-c", "exit 0", NULL};
    struct wb__process p = {.argv = argv, .output = nowhere};
    struct wb_err err = {0};

    CHECK_INT(0, pthread_atfork(NULL, NULL, on_child));
    stop_it = true;
    CHECK_OK(wb__process_run(&p, &err), err);
    stop_it = false;
    CHECK(p.by_signal);
    CHECK_INT(128 + SIGTERM, p.status);
    CHECK_OK(wb__process_run(&p, &err), err);
    CHECK_INT(0, p.status);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_os__file_info__type_size_mode_inode),
        RUN(test_os__S11_folders__made_0700_up_to_the_name),
        RUN(test_os__S11_create__never_over_a_file_or_through_a_link),
        RUN(test_os__replace_and_read__whole_or_old),
        RUN(test_os__replace_fails__old_one_and_no_leftover),
        RUN(test_os__read__bounded),
        RUN(test_os__locks__two_opens_of_one_process_exclude_each_other),
        RUN(test_os__flag__shared_and_kept),
        RUN(test_os__S11_lock_file_is_a_link__not_followed),
        RUN(test_os__process_signalled_between_fork_and_exec__signal_not_lost),
        RUN(test_os__system_environment__clocks_advance_and_random_bytes_differ),
    };
    return RUN_ALL(tests);
}
