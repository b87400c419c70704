/* heap.h - a binary heap of nodes that are members of the caller's structs.
 * First is O(1); push, remove and move are O(log n). */
#ifndef WB_SRC_BASE_HEAP_H
#define WB_SRC_BASE_HEAP_H

#include "base/base.h"

struct wb__heap_node {
    int64_t key;
    uint32_t at; /* where it is in the heap */
};

/* A zero-initialised heap with env set is empty. */
struct wb__heap {
    const struct wb_env *env;
    struct wb__heap_node **node;
    uint32_t n, cap;
};

/* Add a node by its key. False when out of memory: nothing changed. */
WB_MUST_USE bool wb__heap_push(struct wb__heap *h, struct wb__heap_node *node);
void wb__heap_remove(struct wb__heap *h, struct wb__heap_node *node);
void wb__heap_move(struct wb__heap *h, struct wb__heap_node *node, int64_t key);
/* The one with the least key, or NULL. */
struct wb__heap_node *wb__heap_first(const struct wb__heap *h);
void wb__heap_fini(struct wb__heap *h); /* the nodes are left alone */

#endif /* WB_SRC_BASE_HEAP_H */
