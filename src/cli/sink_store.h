/* sink_store.h - the messages of a request to `waybill sink`, and its file: a
 * line for each effect, one effect for each id. */
#ifndef WB_SRC_CLI_SINK_STORE_H
#define WB_SRC_CLI_SINK_STORE_H

#include "http/parser.h"

struct sink_store;

enum {
    SINK_BODY_BYTES = 8 << 20 /* of a request */
};

/* A message as it was received. Without an id it is never a duplicate. */
struct sink_effect {
    struct wb_slice id; /* empty, or as sink_id_ok() requires */
    struct wb_slice kind, key, path, body;
};

/* 1..255 printable ASCII characters without space, quote and backslash. */
bool sink_id_ok(struct wb_slice id);

/* POST, PUT, PATCH and DELETE, any path: a message. Its id is Idempotency-Key,
 * else webhook-id; without one each request is its own. Waybill-Kind and
 * Waybill-Key are kept. Waybill-Ids (a list) makes the body a batch: a JSON
 * array, or lines if its type is application/x-ndjson, one element for each id.
 */
struct sink_messages {
    struct sink_effect effect; /* of all: kind, key, path */
    struct wb_slice ids, bodies;
    size_t n; /* that are left */
    enum {
        SINK_SINGLE,
        SINK_LINES,
        SINK_ARRAY
    } form;
};
/* NULL, or why the request is refused. */
const char *sink_messages_read(struct sink_messages *m,
    const struct wb__http_head *head, struct wb_slice body);
/* Set m->effect to the next message. False after the last. */
bool sink_messages_next(struct sink_messages *m);

/* Lock the file, read its ids, cut off a torn last line. BUSY: another sink has
 * the file. CORRUPT: a line is not an effect. FULL: too many ids. UNAVAILABLE,
 * NOMEM. */
WB_MUST_USE enum wb_status sink_store_open(struct sink_store **out,
    const struct wb_env *env, const char *path, struct wb_err *err);
void sink_store_close(struct sink_store *s); /* NULL is fine */

/* Add an effect to the next flush. OK: it is new. EMPTY: the file or the next
 * flush has this id. FULL, NOMEM. */
WB_MUST_USE enum wb_status sink_store_add(struct sink_store *s,
    const struct sink_effect *effect, int64_t received_ms);

/* Enough was added: flush before more. */
bool sink_store_is_full(const struct sink_store *s);

/* Write durably what was added. IO: unknown, and no call but close may follow.
 * Any other failure: none of it has happened. */
WB_MUST_USE enum wb_status sink_store_flush(
    struct sink_store *s, struct wb_err *err);

uint64_t sink_store_count(const struct sink_store *s); /* effects in the file */

#endif /* WB_SRC_CLI_SINK_STORE_H */
