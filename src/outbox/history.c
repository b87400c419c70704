/* history.c - the last attempts of a message, kept in its row from the first
 * one that fails.
 *
 * attempts_log holds one line an attempt, oldest first:
 *
 *     <began, ms> <took, ms> <outcome> <status of the reply, or 0> <error>
 *
 * (1) The healthy path writes nothing: a row whose attempts all succeed has no
 *     log.
 * (2) A log has LINES lines of bounded length: it does not grow. */
#include <stdio.h>

#include "outbox/outbox_internal.h"

enum {
    LINES = 10,
    ERROR_CHARS = 256,
    LINE_BYTES = 4 * ERROR_CHARS + 96
};

struct log {
    size_t len;
    char text[LINES * LINE_BYTES];
};

/* The lines of the log that stay when one is added. */
static struct wb_slice
last_lines(struct wb_slice log)
{
    struct wb_slice rest = log, line;
    size_t n = 0;

    while (wb__cut(&rest, '\n', &line))
        n++;
    for (; n >= LINES && wb__cut(&log, '\n', &line); n--)
        ;
    return log;
}

/* Errors begin with the status of the reply, where there was one. */
static int
status_of(struct wb_slice error)
{
    int status = 0;

    for (size_t i = 0; i < 3 && i < error.len; i++) {
        if (error.ptr[i] < '0' || error.ptr[i] > '9')
            return 0;
        status = status * 10 + (error.ptr[i] - '0');
    }
    return error.len == 3 || (error.len > 3 && error.ptr[3] == ' ') ? status
                                                                    : 0;
}

/* The log of a row, less the line that makes room for another; "" if it is none
 * of ours. */
static enum wb_status
read_log(
    struct wb_outbox *box, int64_t seq, struct log *log, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_ATTEMPTS;
    struct wb_slice old = {0};
    enum wb_status rc = wb__db_start(box->db, sql, WB__ARGS(wb__int(seq)), err);

    log->len = 0;
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(box->db, sql, err);
    if (rc == WB_OK)
        old = last_lines(wb__db_slice(box->db, sql, 0));
    if (old.len > 0 && old.len <= (LINES - 1) * LINE_BYTES) {
        memcpy(log->text, old.ptr, old.len);
        log->len = old.len;
    }
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

enum wb_status
wb__history_add(struct wb_outbox *box, const struct wb__head *head,
    const struct wb_finish *f, enum wb_outcome outcome, int64_t now_ms,
    struct wb_err *err)
{
    int64_t began_ms = f->began_ms != 0 ? f->began_ms : head->claimed_ms;
    int64_t took_ms = wb__sat_sub(now_ms, began_ms);
    char error[4 * ERROR_CHARS + 1] = "";
    struct log log;
    enum wb_status rc = read_log(box, head->seq, &log, err);

    if (rc != WB_OK || (outcome == WB_DELIVERED && log.len == 0))
        return rc;
    if (outcome != WB_DELIVERED)
        (void)wb__one_line(f->error, ERROR_CHARS, error);
    log.len += (size_t)snprintf(log.text + log.len, LINE_BYTES,
        "%lld %lld %s %d %s\n", (long long)began_ms,
        (long long)(took_ms > 0 ? took_ms : 0), wb__outcome_name(outcome),
        f->reply_status != 0 ? f->reply_status : status_of(wb_slice(error)),
        error);
    return wb__db_run(box->db, WB__SQL_ATTEMPTS_SET,
        WB__ARGS(
            wb__int(head->seq), wb__text((struct wb_slice){log.text, log.len})),
        NULL, err);
}
