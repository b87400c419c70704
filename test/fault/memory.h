/* memory.h - allocators that fail when told to: what the library is given in
 * its environment, and SQLite's own.
 *
 * (1) Both count together: the n-th allocation of a run, whoever asks.
 * (2) What is freed is freed; nothing is ever given back twice. */
#ifndef WB_TEST_MEMORY_H
#define WB_TEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

struct memory {
    long asked;  /* allocations so far */
    long fail;   /* this one fails, counted from 1; 0: none */
    bool ever;   /* and all after it */
    long failed; /* so far */
};
extern struct memory memory;

/* Before anything else of SQLite is called; once. */
void memory_install(void);

/* realloc(3), with free(3) for size 0; fails when it is its turn. */
void *memory_resize(void *ctx, void *ptr, size_t size);

#endif /* WB_TEST_MEMORY_H */
