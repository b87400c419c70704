/* process.h - run one command to its end and pass its output on. */
#ifndef WB_SRC_OS_PROCESS_H
#define WB_SRC_OS_PROCESS_H

#include "base/base.h"

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
 * Returns     OK, also if it could not be started; IO: no pipes or no process,
 *             nothing was run.
 * Threads     the main one; one command at a time.
 */
WB_MUST_USE enum wb_status wb__process_run(
    struct wb__process *process, struct wb_err *err);

/* Write all bytes, waiting until fd takes them. 0, or an errno. */
WB_MUST_USE int wb__write_all(int fd, struct wb_slice bytes);

#endif /* WB_SRC_OS_PROCESS_H */
