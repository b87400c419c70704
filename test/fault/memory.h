/* memory.h - allocators that can be made to fail: the one in the library's
 * environment, and SQLite's own. Both count together: the n-th allocation of a
 * run is the n-th of either. */
#ifndef WB_TEST_MEMORY_H
#define WB_TEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

struct memory {
    long asked;  /* allocations so far */
    long fail;   /* this one fails, counted from 1; 0: none */
    bool ever;   /* and all later ones */
    long failed; /* so far */
};
extern struct memory memory;

/* Once, before the first call of SQLite. */
void memory_install(void);

/* realloc(3), with free(3) for size 0; fails as memory says. */
void *memory_resize(void *ctx, void *ptr, size_t size);

#endif /* WB_TEST_MEMORY_H */
