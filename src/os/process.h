/* process.h - one command, run to its end, its output passing through. */
#ifndef WB_SRC_OS_PROCESS_H
#define WB_SRC_OS_PROCESS_H

#include "base/base.h"

struct wb__process {
    const char *const *argv; /* ended by NULL */
    /* Each piece of output as it comes; fd is 1 or 2. */
    void (*output)(void *ctx, int fd, struct wb_slice piece);
    void *ctx;

    /* What came of it. */
    int start_errno; /* why it could not be started; 0: it was */
    int status;      /* its exit status, or 128 + the signal it died by */
    bool by_signal;
    bool forwarded; /* it was sent a signal that was meant for us */
};

/*
 * Run the command found along PATH.
 *
 * Guarantees  It has our stdin, our signal mask and what signals we were born
 *             to ignore. It is killed if this process dies. TERM, INT and HUP
 *             are handed on at once, also while output() waits; one that came
 *             before the command was there is handed on when it is. Back when
 *             the command has ended and its output is closed, or a second
 *             after its end.
 * Returns     OK, also if it could not be started; NOMEM, IO: no pipes or no
 *             process, nothing was run.
 * Threads     the main one; one command at a time.
 */
WB_MUST_USE enum wb_status wb__process_run(
    struct wb__process *process, struct wb_err *err);

/* Write it all, waiting where need be. 0, or the errno that ended it. */
WB_MUST_USE int wb__write_all(int fd, struct wb_slice bytes);

#endif /* WB_SRC_OS_PROCESS_H */
