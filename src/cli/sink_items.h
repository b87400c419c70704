/* sink_items.h - the messages in one request. */
#ifndef WB_SRC_CLI_SINK_ITEMS_H
#define WB_SRC_CLI_SINK_ITEMS_H

#include "cli/sink_store.h"
#include "http/parser.h"

/* Walks them; views into the request. */
struct sink_items {
    struct sink_item item; /* of all: kind, key, path */
    struct wb_slice ids, bodies;
    size_t n;
    enum {
        SINK_ONE,
        SINK_LINES,
        SINK_ARRAY
    } form;
};

/* Read a request. NULL, or what is wrong with it. */
const char *sink_items_read(struct sink_items *items,
    const struct wb__http_head *head, struct wb_slice body);

/* The next one in items->item. False after the last. */
bool sink_items_next(struct sink_items *items);

#endif /* WB_SRC_CLI_SINK_ITEMS_H */
