/* heap.c - binary heap in an array of pointers.
 *
 * (1) No node has a lesser key than its parent.
 * (2) node[i]->at == i.
 * (3) The array shrinks when it is mostly empty. */
#include "base/base.h"

static void
put(struct wb__heap *h, uint32_t at, struct wb__heap_node *node)
{
    h->node[at] = node;
    node->at = at;
}

static void
sift_up(struct wb__heap *h, struct wb__heap_node *node)
{
    uint32_t at = node->at;

    while (at > 0 && h->node[(at - 1) / 2]->key > node->key) {
        put(h, at, h->node[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(h, at, node);
}

static void
sift_down(struct wb__heap *h, struct wb__heap_node *node)
{
    uint32_t at = node->at, child;

    while ((child = 2 * at + 1) < h->n) {
        if (child + 1 < h->n && h->node[child + 1]->key < h->node[child]->key)
            child++;
        if (h->node[child]->key >= node->key)
            break;
        put(h, at, h->node[child]);
        at = child;
    }
    put(h, at, node);
}

static bool
set_cap(struct wb__heap *h, uint32_t cap)
{
    struct wb__heap_node **node =
        h->env->resize(h->env->ctx, h->node, cap * sizeof(*node));

    if (node == NULL)
        return false;
    h->node = node;
    h->cap = cap;
    return true;
}

bool
wb__heap_push(struct wb__heap *h, struct wb__heap_node *node)
{
    if (h->n == h->cap &&
        (h->cap > UINT32_MAX / 4 || !set_cap(h, h->cap < 8 ? 8 : 2 * h->cap)))
        return false;
    node->at = h->n++;
    sift_up(h, node);
    return true;
}

void
wb__heap_remove(struct wb__heap *h, struct wb__heap_node *node)
{
    struct wb__heap_node *last = h->node[--h->n];

    WB_ASSERT(node->at <= h->n && h->node[node->at] == node);
    if (last != node) {
        put(h, node->at, last);
        sift_up(h, last);
        sift_down(h, last);
    }
    if (h->cap > 64 && h->n < h->cap / 4)
        (void)set_cap(h, h->cap / 2); /* if it fails, the larger array stays */
}

void
wb__heap_move(struct wb__heap *h, struct wb__heap_node *node, int64_t key)
{
    node->key = key;
    sift_up(h, node);
    sift_down(h, node);
}

struct wb__heap_node *
wb__heap_first(const struct wb__heap *h)
{
    return h->n > 0 ? h->node[0] : NULL;
}

void
wb__heap_fini(struct wb__heap *h)
{
    wb__free(h->env, h->node);
    h->node = NULL;
    h->n = h->cap = 0;
}
