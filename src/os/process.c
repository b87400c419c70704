/* process.c - start a child process; run one command and forward signals to it.
 *
 * (1) Between fork and exec only async-signal-safe calls: other threads may
 *     hold any lock.
 * (2) The forwarded signals are blocked until the child is there to get them.
 *     In the child all signals are blocked until no handler of this process is
 *     left: it loses none.
 * (3) `running` is cleared before the child is reaped: no signal goes to
 *     another process that was given the same pid.
 * (4) Orphans of the command become children of this process (a subreaper):
 *     it sees whether a process of the run lives on. */
#define _GNU_SOURCE /* pipe2, execvpe */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"

enum {
    GRACE_MS = 1000,
    READ_BYTES = 65536
};

/* ---- one child --------------------------------------------------------- */

static void
close_end(int *fd)
{
    wb__fd_close(*fd);
    *fd = -1;
}

/* dup2() to 0, 1 or 2 must neither overwrite fd nor leave it closed on exec. */
static int
above_stdio(int fd)
{
    return fd < 0 || fd > STDERR_FILENO
               ? fd
               : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

/* In the child. SIGPIPE and SIGXFSZ are ignored in this process only. */
static void
signals_default(bool all)
{
    struct sigaction now;

    for (int i = 1; i <= SIGRTMAX; i++) /* refused for those of libc */
        if (sigaction(i, NULL, &now) == 0 &&
            (all || now.sa_handler != SIG_IGN || i == SIGPIPE || i == SIGXFSZ))
            (void)signal(i, SIG_DFL);
}

WB_NORETURN static void
child_run(const struct wb__child *c, int out, int err, int start, pid_t parent)
{
    int in = above_stdio(c->in), sys;
    sigset_t none;
    char go;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() != parent)
        (void)raise(SIGKILL); /* the parent died before prctl() */
    out = above_stdio(out);
    err = above_stdio(err);
    start = above_stdio(start);
    if (read(start, &go, 1) != 1)
        (void)raise(SIGKILL);
    if (c->own_session)
        (void)setsid();
    signals_default(c->own_session);
    (void)sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, c->mask != NULL ? c->mask : &none, NULL);
    if ((c->in < 0 || dup2(in, STDIN_FILENO) >= 0) &&
        dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0)
        (void)execvpe(c->argv[0], (char *const *)c->argv,
            c->env != NULL ? c->env : environ);
    sys = errno;
    if (write(start, &sys, sizeof(sys)) < 0)
        (void)raise(SIGKILL); /* the parent must not take this for a start */
    _exit(127);
}

static pid_t
child_fork(const struct wb__child *c, int out, int err, int start)
{
    pid_t parent = getpid(), pid;
    sigset_t all, before;

    (void)sigfillset(&all);
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    pid = fork();
    if (pid == 0)
        child_run(c, out, err, start, parent);
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return pid;
}

int
wb__child_start(struct wb__child *c)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1}, start[2] = {-1, -1}, sys;
    struct sigaction chld;

    /* Where it is ignored, the kernel reaps the children and drops their exit
     * status. A process can be started so. */
    if (sigaction(SIGCHLD, NULL, &chld) == 0 && chld.sa_handler == SIG_IGN)
        (void)signal(SIGCHLD, SIG_DFL);
    c->pid = c->end = -1;
    if (pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0 &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, start) == 0)
        c->pid = child_fork(c, out[1], err[1], start[1]);
    if (c->pid > 0)
        c->end = (int)syscall(SYS_pidfd_open, c->pid, 0);
    sys = errno;
    c->out = out[0];
    c->err = err[0];
    c->start = start[0];
    wb__fd_close(out[1]);
    wb__fd_close(err[1]);
    wb__fd_close(start[1]);
    if (c->end >= 0)
        return 0;
    if (c->pid > 0) {
        (void)kill(c->pid, SIGKILL);
        (void)wb__child_reap(c, &(int){0}, &(int){0});
    }
    wb__child_close(c);
    return sys;
}

int
wb__child_exec(struct wb__child *c)
{
    int sys = 0;
    ssize_t n;

    /* Fails if it has been killed: then its end is reported as any other. */
    (void)send(c->start, "", 1, MSG_NOSIGNAL);
    do /* end of file: exec succeeded */
        n = read(c->start, &sys, sizeof(sys));
    while (n < 0 && errno == EINTR);
    close_end(&c->start);
    return n == sizeof(sys) ? sys : 0;
}

bool
wb__child_reap(struct wb__child *c, int *exit_status, int *signal)
{
    int status = 0;
    pid_t pid;

    do
        pid = waitpid(c->pid, &status, 0);
    while (pid < 0 && errno == EINTR);
    *exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    *signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return pid == c->pid;
}

void
wb__child_close(struct wb__child *c)
{
    close_end(&c->out);
    close_end(&c->err);
    close_end(&c->end);
    close_end(&c->start);
}

/* ---- forwarded signals ------------------------------------------------- */

/* All that would end this process, but for those that a fault of its own
 * raises; and those of real time. */
static const int forwarded_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT,
    SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO, SIGPWR,
    SIGSTKFLT};
static volatile sig_atomic_t running; /* 0: none */

/* A terminal sends these to the child as well. */
static bool
is_of_terminal(int number, const siginfo_t *info)
{
    return info->si_code == SI_KERNEL &&
           (number == SIGINT || number == SIGQUIT || number == SIGHUP);
}

static void
forward_signal(int number, siginfo_t *info, void *context)
{
    int sys = errno;

    (void)context;
    if (running != 0 && !is_of_terminal(number, info))
        (void)kill((pid_t)running, number);
    errno = sys;
}

/* Interrupts poll(): orphans of the command are to be reaped. */
static void
wake(int number)
{
    (void)number;
}

/* From here on; block them until the child is there. */
static void
signals_take(sigset_t *before)
{
    struct sigaction act = {
        .sa_sigaction = forward_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigaction chld = {.sa_handler = wake, .sa_flags = SA_RESTART}, now;
    sigset_t hold;

    running = 0;
    (void)sigemptyset(&hold);
    for (size_t i = 0; i < WB_COUNT(forwarded_signals); i++)
        (void)sigaddset(&hold, forwarded_signals[i]);
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
        (void)sigaddset(&hold, i);
    WB_ASSERT(pthread_sigmask(SIG_BLOCK, &hold, before) == 0);
    (void)sigemptyset(&act.sa_mask);
    for (int i = 1; i <= SIGRTMAX; i++)
        if (sigismember(&hold, i) == 1 && sigaction(i, NULL, &now) == 0 &&
            now.sa_handler != SIG_IGN)
            (void)sigaction(i, &act, NULL);
    (void)sigemptyset(&chld.sa_mask);
    (void)sigaction(SIGCHLD, &chld, NULL);
}

/* ---- one command ------------------------------------------------------- */

static int64_t
now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
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

/* A shell that executes this program in its place (exec) leaves its own
 * children to it, as one that reads the output; these are not of the run. */
static pid_t inherited[64];
static size_t n_inherited;

/* The main thread's children, as the kernel lists them; false: it does not. */
static bool
list_children(char *text, size_t size)
{
    char path[64];
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, size - 1);
    wb__fd_close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return n >= 0 && (size_t)n < size - 1;
}

static void
note_inherited(void)
{
    char text[512], *at = text;
    siginfo_t any;
    pid_t pid;

    n_inherited = 0;
    if (waitid(P_ALL, 0, &any, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        !list_children(text, sizeof(text)))
        return;
    while (n_inherited < WB_COUNT(inherited) &&
           (pid = (pid_t)strtol(at, &at, 10)) > 0)
        inherited[n_inherited++] = pid;
}

/* Is a child alive that is not an inherited one? */
static bool
others_live(void)
{
    char text[4096], *at = text;
    pid_t pid;
    size_t i;

    if (n_inherited == 0 || !list_children(text, sizeof(text)))
        return true;
    while ((pid = (pid_t)strtol(at, &at, 10)) > 0) {
        for (i = 0; i < n_inherited && inherited[i] != pid; i++)
            ;
        if (i == n_inherited)
            return true;
    }
    return false;
}

/* Orphans of the command are children of this process. Reap those that have
 * ended, but not the command itself (0: it has been reaped). True: some live.
 */
static bool
reap_orphans(pid_t command)
{
    siginfo_t ended;

    for (;;) {
        ended.si_pid = 0;
        if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0)
            return false;
        if (ended.si_pid == 0 || ended.si_pid == command)
            return others_live();
        (void)waitpid(ended.si_pid, NULL, 0);
    }
}

bool
wb__process_left(int64_t wait_ms)
{
    int64_t until_ms = now_ms() + wait_ms, left_ms;
    sigset_t chld;

    (void)sigemptyset(&chld);
    (void)sigaddset(&chld, SIGCHLD);
    WB_ASSERT(pthread_sigmask(SIG_BLOCK, &chld, NULL) == 0);
    while (reap_orphans(0)) {
        left_ms = until_ms - now_ms();
        if (left_ms <= 0)
            return true;
        (void)sigtimedwait(&chld, NULL,
            &(struct timespec){
                .tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000});
    }
    return false;
}

/* Until it has ended and its output is closed, or GRACE_MS after its end. */
static void
follow(struct wb__process *process, struct wb__child *c)
{
    int64_t until_ms = -1, left_ms = -1; /* set when it has ended */

    for (;;) {
        struct pollfd fds[] = {{.fd = c->out, .events = POLLIN},
            {.fd = c->err, .events = POLLIN},
            {.fd = until_ms < 0 ? c->end : -1, .events = POLLIN}};

        if (until_ms >= 0)
            left_ms = until_ms - now_ms();
        if (until_ms >= 0 && (left_ms <= 0 || (c->out < 0 && c->err < 0)))
            return;
        if (poll(fds, WB_COUNT(fds), (int)left_ms) <= 0) {
            (void)reap_orphans(c->pid);
            continue;
        }
        if (fds[2].revents != 0) {
            running = 0;
            until_ms = now_ms() + GRACE_MS;
        }
        if (fds[0].revents != 0)
            read_some(process, STDOUT_FILENO, &c->out);
        if (fds[1].revents != 0)
            read_some(process, STDERR_FILENO, &c->err);
    }
}

enum wb_status
wb__process_run(struct wb__process *process, struct wb_err *err)
{
    sigset_t before;
    struct wb__child c = {.argv = process->argv, .in = -1, .mask = &before};
    int sys, signal = 0;

    note_inherited();
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    signals_take(&before);
    sys = wb__child_start(&c);
    if (sys == 0)
        running = c.pid;
    WB_ASSERT(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (sys != 0)
        return wb__fail(err, WB_IO, sys, "no process for the command: %s",
            sys == ENOSYS ? "Linux 5.3 or later is needed" : strerror(sys));
    process->start_errno = wb__child_exec(&c);
    if (process->start_errno == 0)
        follow(process, &c);
    running = 0;
    WB_ASSERT(wb__child_reap(&c, &process->status, &signal));
    process->by_signal = signal != 0;
    if (signal != 0)
        process->status = 128 + signal;
    wb__child_close(&c);
    return WB_OK;
}
