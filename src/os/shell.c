/* shell.c - run a shell command for a bounded time and keep its output.
 *
 * (1) The command leads a process group of its own, which is killed when the
 *     command has ended, at the time limit, and by wb__shell_stop(). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "os/os.h"

static volatile sig_atomic_t running; /* pid of the command; 0: none */
static volatile sig_atomic_t stopped;

static void
kill_group(int pid)
{
    (void)kill(-pid, SIGKILL);
    (void)kill(pid, SIGKILL); /* not yet in its group */
}

void
wb__shell_stop(void)
{
    int sys = errno;

    stopped = 1;
    if (running != 0)
        kill_group((int)running);
    errno = sys;
}

/* Its stdout goes to out, its stderr is passed on. */
static void
read_some(int *fd, struct wb__buf *out)
{
    char block[4096];
    ssize_t n = read(*fd, block, sizeof(block));
    struct wb_slice piece = {block, n > 0 ? (size_t)n : 0};

    if (n > 0 && out != NULL)
        wb__buf_add(out, piece);
    if (n > 0 && (out != NULL || wb__write_all(STDERR_FILENO, piece) == 0))
        return;
    if (n < 0 && errno == EINTR)
        return;
    wb__fd_close(*fd);
    *fd = -1;
}

/* Until the command has ended and what it wrote was read. False: the time limit
 * came before. */
static bool
follow(const struct wb_env *env, struct wb__child *c, struct wb__buf *out,
    int64_t limit_ms)
{
    int64_t until_ms = wb__sat_add(env->mono_us(env->ctx) / 1000, limit_ms);
    bool ended = false;

    for (;;) {
        struct pollfd fds[] = {{.fd = c->out, .events = POLLIN},
            {.fd = c->err, .events = POLLIN},
            {.fd = ended ? -1 : c->end, .events = POLLIN}};
        int64_t left_ms = until_ms - env->mono_us(env->ctx) / 1000;
        int n;

        if (left_ms <= 0)
            return false;
        n = poll(fds, WB_COUNT(fds),
            ended               ? 0
            : left_ms < 3600000 ? (int)left_ms
                                : 3600000);
        if (n == 0 && ended)
            return true;
        if (n <= 0)
            continue;
        if (fds[2].revents != 0) {
            ended = true;
            kill_group(c->pid); /* not reaped yet: the number is its own */
        }
        if (fds[0].revents != 0)
            read_some(&c->out, out);
        if (fds[1].revents != 0)
            read_some(&c->err, NULL);
    }
}

enum wb_status
wb__shell_run(const struct wb_env *env, struct wb__shell *s, struct wb_err *err)
{
    const char *argv[] = {"sh", "-c", s->command, NULL};
    struct wb__child c = {.argv = argv, .own_session = true};
    int sys;

    c.in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sys = c.in < 0 ? errno : wb__child_start(&c);
    wb__fd_close(c.in);
    if (sys == 0) {
        running = c.pid;
        if (stopped != 0)
            kill_group(c.pid);
        sys = wb__child_exec(&c);
        s->late = !follow(env, &c, s->out, s->limit_ms);
        if (s->late)
            kill_group(c.pid);
        running = 0;
        WB_ASSERT(wb__child_reap(&c, &s->status, &s->signal));
        wb__child_close(&c);
    }
    s->stopped = stopped != 0;
    if (sys != 0)
        return wb__fail(
            err, WB_UNAVAILABLE, sys, "cannot run sh: %s", strerror(sys));
    return WB_OK;
}
