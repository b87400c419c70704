/* log.h - one line an event, as logfmt-like text or JSON.
 *
 * (1) A line is one write(2) of at most LINE_BYTES. A descriptor that takes
 *     nothing loses lines, which are counted; it never blocks the caller.
 * (2) The sixth line of one event and kind within ten seconds, and all after
 *     it, are counted; one line has the count when the time is over.
 * (3) Control characters never reach the line. The caller gives no payload and
 *     no secret. */
#ifndef WB_SRC_OS_LOG_H
#define WB_SRC_OS_LOG_H

#include "os/os.h"

enum wb__log_level {
    WB__LOG_ERROR,
    WB__LOG_WARN,
    WB__LOG_INFO,
    WB__LOG_DEBUG,
    WB__LOG_LEVELS
};
enum wb__log_format {
    WB__LOG_TEXT,
    WB__LOG_JSON
};

/* What is 0 or empty is left out of the line. */
struct wb__log_fields {
    struct wb_slice id, kind;
    uint64_t attempt;
    const char *outcome; /* "retry", ... */
    int status;          /* of HTTP, or of a command */
    struct wb_slice error;
    bool timed; /* with duration_ms, also if it is 0 */
    int64_t duration_ms;
    struct wb_slice scope;
    uint64_t count;
    struct wb_slice detail; /* anything else that a reader should know */
};

#define WB__LOG_FLOODS 32
struct wb__log_flood {
    const char *event; /* NULL: free */
    char kind[65];
    enum wb__log_level level;
    int64_t end_ms; /* of the ten seconds */
    uint32_t lines;
    uint64_t more; /* events without a line */
};

struct wb__log {
    const struct wb_env *env;
    int fd;
    enum wb__log_format format;
    enum wb__log_level level; /* lines above it are left out */
    bool priorities;          /* "<4>" before the line, for systemd */
    bool unlimited;           /* (2) does not hold: for a log of accesses */
    struct wb__mutex mutex;
    struct wb__log_flood flood[WB__LOG_FLOODS];
    uint64_t lost; /* lines that fd did not take since the last that it took */
    atomic_uint_fast64_t lines[WB__LOG_LEVELS]; /* written, for metrics */
};

/* Priorities are written where JOURNAL_STREAM names the file of fd. */
void wb__log_init(struct wb__log *log, const struct wb_env *env, int fd,
    enum wb__log_format format, enum wb__log_level level);
void wb__log_fini(struct wb__log *log); /* writes the counts */

/* event: lower case and hyphens, a literal. fields: NULL is fine. A log that is
 * NULL takes everything and writes nothing. Threads: any. */
void wb__log(struct wb__log *log, enum wb__log_level level, const char *event,
    const struct wb__log_fields *fields);

/* Write the counts whose time is over. Gives the milliseconds until the next
 * one is, 0: there is none. A caller with an event loop sets a timer. */
int64_t wb__log_tick(struct wb__log *log);

const char *wb__log_level_name(enum wb__log_level level);

#endif /* WB_SRC_OS_LOG_H */
