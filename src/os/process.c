/* process.c - run one child process to its end and forward signals to it.
 *
 * (1) Between fork and exec only async-signal-safe calls: other threads may
 *     hold any lock.
 * (2) SIGCHLD is blocked except in ppoll(): an exit is never missed. The
 *     forwarded signals are blocked until the child is there to get them, and
 *     in the child until their handlers are the old ones again.
 * (3) `child` is cleared before the child is reaped: no signal goes to another
 *     process that was given the same pid. */
#define _GNU_SOURCE /* pipe2, ppoll */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"

enum {
    GRACE_MS = 1000,
    READ_BYTES = 65536
};

/* ---- signals ----------------------------------------------------------- */

static const int forwarded_signals[] = {SIGTERM, SIGINT, SIGHUP};
static volatile sig_atomic_t child; /* 0: none */
static volatile sig_atomic_t forwarded;

static void
forward_signal(int number, siginfo_t *info, void *context)
{
    int sys = errno;

    (void)context;
    if (child != 0) {
        forwarded = 1;
        /* A terminal sends its signals to the child as well. */
        if (info->si_code != SI_KERNEL)
            (void)kill((pid_t)child, number);
    }
    errno = sys;
}

static void
wake(int number)
{
    (void)number; /* ppoll() returns */
}

struct signals {
    struct sigaction before[WB_COUNT(forwarded_signals)], chld;
    sigset_t mask;
};

static void
signals_block(struct signals *s)
{
    struct sigaction act = {
        .sa_sigaction = forward_signal, .sa_flags = SA_SIGINFO};
    struct sigaction end = {.sa_handler = wake};
    sigset_t hold;

    child = 0;
    forwarded = 0;
    (void)sigemptyset(&hold);
    (void)sigaddset(&hold, SIGCHLD);
    for (size_t i = 0; i < WB_COUNT(forwarded_signals); i++)
        (void)sigaddset(&hold, forwarded_signals[i]);
    WB_ASSERT(pthread_sigmask(SIG_BLOCK, &hold, &s->mask) == 0);
    (void)sigemptyset(&act.sa_mask);
    (void)sigemptyset(&end.sa_mask);
    for (size_t i = 0; i < WB_COUNT(forwarded_signals); i++) {
        (void)sigaction(forwarded_signals[i], NULL, &s->before[i]);
        if (s->before[i].sa_handler != SIG_IGN)
            (void)sigaction(forwarded_signals[i], &act, NULL);
    }
    (void)sigaction(SIGCHLD, &end, &s->chld);
}

/* ---- start ------------------------------------------------------------- */

/* From the child: its output, and the errno of a failed start, which closes
 * when exec succeeds. -1: closed. */
struct pipes {
    int out[2], err[2], start[2];
};

static void
close_end(int *fd)
{
    wb__fd_close(*fd);
    *fd = -1;
}

static void
pipes_close(struct pipes *p)
{
    for (int i = 0; i < 2; i++) {
        wb__fd_close(p->out[i]);
        wb__fd_close(p->err[i]);
        wb__fd_close(p->start[i]);
    }
}

/* In the child. The pipes are above 2: main.c keeps 0 to 2 open. */
WB_NORETURN static void
child_exec(const struct wb__process *process, const struct pipes *p,
    const struct signals *s, pid_t parent)
{
    int sys;

    (void)signal(SIGPIPE, SIG_DFL); /* ignored in this process only */
    (void)signal(SIGXFSZ, SIG_DFL);
    (void)signal(SIGCHLD, SIG_DFL);
    for (size_t i = 0; i < WB_COUNT(forwarded_signals); i++)
        (void)sigaction(forwarded_signals[i], &s->before[i], NULL);
    (void)pthread_sigmask(SIG_SETMASK, &s->mask, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() != parent)
        (void)raise(SIGKILL); /* the parent died before prctl() */
    if (dup2(p->out[1], STDOUT_FILENO) >= 0 &&
        dup2(p->err[1], STDERR_FILENO) >= 0)
        (void)execvp(process->argv[0], (char *const *)process->argv);
    sys = errno;
    if (write(p->start[1], &sys, sizeof(sys)) < 0)
        (void)raise(SIGKILL); /* the parent must not take this for a start */
    _exit(127);
}

/* The pid; *sys: 0, or why the command could not be executed. */
static pid_t
start(const struct wb__process *process, struct pipes *p,
    const struct signals *s, int *sys)
{
    pid_t parent = getpid(), pid = fork();
    sigset_t hold = s->mask;
    ssize_t n;

    if (pid == 0)
        child_exec(process, p, s, parent);
    if (pid < 0)
        return pid;
    child = pid;
    (void)sigaddset(&hold, SIGCHLD);
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &hold, NULL) == 0);
    close_end(&p->out[1]);
    close_end(&p->err[1]);
    close_end(&p->start[1]);
    do /* end of file: exec succeeded */
        n = read(p->start[0], sys, sizeof(*sys));
    while (n < 0 && errno == EINTR);
    if (n != sizeof(*sys))
        *sys = 0;
    return pid;
}

/* ---- wait ----------------------------------------------------- */

static int64_t
now_ms(void)
{
    return wb_env_system()->mono_us(NULL) / 1000;
}

static bool
has_ended(pid_t pid)
{
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid != pid)
        return false;
    child = 0;
    return true;
}

/* Pass on one piece of output, or close the pipe at its end. */
static void
read_some(struct wb__process *process, int fd, int *from)
{
    static char block[READ_BYTES];
    ssize_t n = read(*from, block, sizeof(block));

    if (n > 0) {
        process->output(process->ctx, fd, (struct wb_slice){block, (size_t)n});
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        close_end(from);
    }
}

static void
follow(struct wb__process *process, struct pipes *p, pid_t pid,
    const sigset_t *mask)
{
    int64_t until_ms = -1, left_ms = 0; /* set when it has ended */
    struct timespec wait;
    bool ended;

    for (;;) {
        struct pollfd fds[] = {{.fd = p->out[0], .events = POLLIN},
            {.fd = p->err[0], .events = POLLIN}};

        ended = until_ms >= 0 || has_ended(pid);
        if (ended && until_ms < 0)
            until_ms = now_ms() + GRACE_MS;
        if (ended)
            left_ms = until_ms - now_ms();
        if (ended && (left_ms <= 0 || (p->out[0] < 0 && p->err[0] < 0)))
            return;
        wait = (struct timespec){left_ms / 1000, left_ms % 1000 * 1000000};
        if (ppoll(fds, 2, ended ? &wait : NULL, mask) <= 0)
            continue;
        if (fds[0].revents != 0)
            read_some(process, STDOUT_FILENO, &p->out[0]);
        if (fds[1].revents != 0)
            read_some(process, STDERR_FILENO, &p->err[0]);
    }
}

enum wb_status
wb__process_run(struct wb__process *process, struct wb_err *err)
{
    struct signals signals;
    struct pipes pipes = {{-1, -1}, {-1, -1}, {-1, -1}};
    pid_t pid;
    int status = 0;

    if (pipe2(pipes.out, O_CLOEXEC) != 0 || pipe2(pipes.err, O_CLOEXEC) != 0 ||
        pipe2(pipes.start, O_CLOEXEC) != 0) {
        pipes_close(&pipes);
        return wb__fail(
            err, WB_IO, errno, "no pipes for the command: %s", strerror(errno));
    }
    signals_block(&signals);
    pid = start(process, &pipes, &signals, &process->start_errno);
    if (pid < 0)
        (void)wb__fail(err, WB_IO, errno, "no process for the command: %s",
            strerror(errno));
    if (pid > 0 && process->start_errno == 0)
        follow(process, &pipes, pid, &signals.mask);
    child = 0;
    if (pid > 0) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        process->by_signal = WIFSIGNALED(status);
        process->status =
            process->by_signal ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    process->forwarded = forwarded != 0;
    for (size_t i = 0; i < WB_COUNT(forwarded_signals); i++)
        (void)sigaction(forwarded_signals[i], &signals.before[i], NULL);
    (void)sigaction(SIGCHLD, &signals.chld, NULL);
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &signals.mask, NULL) == 0);
    pipes_close(&pipes);
    return pid < 0 ? WB_IO : WB_OK;
}
