/* process.h - start a child process; run one command to its end. */
#ifndef WB_SRC_OS_PROCESS_H
#define WB_SRC_OS_PROCESS_H

#include <signal.h>

#include "base/base.h"

/* ---- one child --------------------------------------------------------- */

struct wb__child {
    const char *const *argv; /* ended by NULL; argv[0] is looked up in PATH */
    char *const *env;        /* ended by NULL; NULL: that of this process */
    int in;                  /* its stdin; -1: that of this process */
    const sigset_t *mask;    /* the signals it blocks; NULL: none */
    /* It leads a session and a process group of its own, and ignores no signal.
     * Without: it ignores what this process was started to ignore. */
    bool own_session;

    /* Set by wb__child_start(); a descriptor that is closed is -1. */
    int pid;
    int out, err; /* to read what it writes */
    int end;      /* readable once it has ended (a pidfd) */
    int start;    /* it waits here for wb__child_exec() */
};

/*
 * Fork a child. It runs nothing before wb__child_exec(): its end can be watched
 * and signals can be sent to it before its command begins.
 *
 * Guarantees  Every descriptor here is closed on exec. SIGKILL ends the child
 *             when the thread that started it ends, also by kill -9 of this
 *             process; not the processes that the child has started.
 * Returns     0, or an errno: there is no child. ENOSYS: Linux before 5.3.
 * Threads     one that lives as long as the child: the loop's, or the main one.
 */
WB_MUST_USE int wb__child_start(struct wb__child *child);

/* Execute its command. 0, or the errno of exec: the child has ended without
 * it and is to be reaped. Called once. */
WB_MUST_USE int wb__child_exec(struct wb__child *child);

/* Wait for its end; its pid may then belong to another process. False: other
 * code of this process has reaped it, its status is lost. */
bool wb__child_reap(struct wb__child *child, int *exit_status, int *signal);

/* Close the descriptors that are not -1. */
void wb__child_close(struct wb__child *child);

/* ---- one command ------------------------------------------------------- */

struct wb__process {
    const char *const *argv; /* ended by NULL */
    /* Called with each piece of output; fd is 1 or 2. */
    void (*output)(void *ctx, int fd, struct wb_slice piece);
    void *ctx;

    /* The outcome. */
    int start_errno; /* why it could not be started, or 0 */
    int status;      /* exit status, or 128 + number of the signal */
    bool by_signal;
    bool forwarded; /* a signal to this process was forwarded to it */
};

/*
 * Run a command that is looked up in PATH.
 *
 * Guarantees  It inherits stdin, the signal mask and the signals that this
 *             process was started to ignore. It is killed if this process dies.
 *             TERM, INT and HUP are forwarded at once, also during output();
 *             one that comes before the command has started, after its start.
 *             Returns when the command has ended and its output is closed, or
 *             one second after its end.
 * Returns     OK, also if it could not be started; IO: no process for it,
 * nothing was run. Threads     the main one; one command at a time.
 */
WB_MUST_USE enum wb_status wb__process_run(
    struct wb__process *process, struct wb_err *err);

/* Write all bytes, waiting until fd takes them. 0, or an errno. */
WB_MUST_USE int wb__write_all(int fd, struct wb_slice bytes);

#endif /* WB_SRC_OS_PROCESS_H */
