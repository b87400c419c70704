/* sink.h - a receiver for trying and testing: `waybill sink`.
 *
 *  1. Each id takes effect once: one line of NDJSON in the file, durable
 *     before the answer. Those that arrive together share one write and sync.
 *  2. A kill at any instruction doubles nothing: ids are read back from the
 *     file, a torn last line is cut off.
 *  3. It misbehaves by a seeded chance only: the same seed and the same order
 *     of requests give the same faults. */
#ifndef WB_SRC_CLI_SINK_H
#define WB_SRC_CLI_SINK_H

#include "base/base.h"

struct sink_opts {
    const struct wb_env *env; /* [wb_env_system()] */
    const char *listen;       /* host:port, [v6]:port or :port */
    const char *into;         /* the file; created if missing */
    uint32_t fail_ppm;        /* chance to answer 500 before applying, 1e-6 */
    uint32_t drop_ppm;        /* chance to apply and close unanswered, 1e-6 */
    int64_t delay_ms;         /* answer this long after applying */
    int status;               /* 200..599: this answer always, never applied */
    int64_t retry_after_ms;   /* Retry-After, of status and of fail */
    const char *reply;        /* JSON body of 200 answers [the counts] */
    uint64_t seed;            /* [random] */
    bool seeded;
    /* It listens now. To be printed. */
    void (*ready)(void *ctx, const char *address, uint64_t seed);
    void *ctx;
};

/* Messages, since the start; effects: lines in the file. */
struct sink_stats {
    uint64_t received, applied, duplicates, failed, dropped, effects;
};

/*
 * Serve until SIGTERM or SIGINT, finish what is in flight, fill *stats.
 *
 * POST, PUT, PATCH and DELETE, any path: a message. Its id is Idempotency-Key,
 * else webhook-id; without one each request is its own. Waybill-Kind and
 * Waybill-Key are noted. Waybill-Ids (a list) makes the body a batch: a JSON
 * array, or lines if its type is application/x-ndjson, one item an id.
 * GET /stats: the counts.
 *
 * Returns     OK, INVALID (the address), UNAVAILABLE (address or file),
 *             NOTFOUND, REFUSED, BUSY (another sink has the file), CORRUPT (a
 *             line that is no effect), FULL (too many ids), NOMEM, IO (a
 *             sync failed: nothing was applied after it).
 */
WB_MUST_USE enum wb_status sink_run(
    const struct sink_opts *opts, struct sink_stats *stats, struct wb_err *err);

/* {"received":1,...} without a newline; out has room for 256. */
const char *sink_stats_text(const struct sink_stats *stats, char *out);

#endif /* WB_SRC_CLI_SINK_H */
