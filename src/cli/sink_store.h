/* sink_store.h - the file of a sink: one line an effect, one effect an id. */
#ifndef WB_SRC_CLI_SINK_STORE_H
#define WB_SRC_CLI_SINK_STORE_H

#include "base/base.h"

struct sink_effects;

enum {
    SINK_BODY_BYTES = 8 << 20
}; /* of a request */

/* A message as it came. An empty id is nobody's duplicate. */
struct sink_item {
    struct wb_slice id; /* as sink_id_ok() wants it */
    struct wb_slice kind, key, path, body;
};

/* 1..255 printable ASCII without space, quote and backslash. */
bool sink_id_ok(struct wb_slice id);

/* Lock the file, read its ids, cut off a torn last line. Statuses: see
 * sink_run(). */
WB_MUST_USE enum wb_status sink_effects_open(struct sink_effects **out,
    const struct wb_env *env, const char *path, struct wb_err *err);
void sink_effects_close(struct sink_effects *e); /* NULL is fine */

/* Note an effect for the next flush. OK: it is new. EMPTY: a duplicate of one
 * in the file or noted before. FULL, NOMEM. */
WB_MUST_USE enum wb_status sink_effects_add(
    struct sink_effects *e, const struct sink_item *item, int64_t received_ms);

/* So much is noted that a flush should come before more. */
bool sink_effects_full(const struct sink_effects *e);

/* Write what was noted, durably. Not OK: none of it has happened, and the file
 * was read again; but IO: unknown, and no call but close may follow. */
WB_MUST_USE enum wb_status sink_effects_flush(
    struct sink_effects *e, struct wb_err *err);

uint64_t sink_effects_count(const struct sink_effects *e);

#endif /* WB_SRC_CLI_SINK_STORE_H */
