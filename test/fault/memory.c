/* memory.c - allocators that can be made to fail. See memory.h. */
#include "memory.h"

#include <sqlite3.h>
#include <stdlib.h>

struct memory memory;
static sqlite3_mem_methods plain;

static bool
must_fail(void)
{
    bool fails;

    memory.asked++;
    fails =
        memory.fail != 0 && (memory.asked == memory.fail ||
                                (memory.ever && memory.asked > memory.fail));
    memory.failed += fails;
    return fails;
}

void *
memory_resize(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    return must_fail() ? NULL : realloc(ptr, size);
}

static void *
sqlite_malloc(int size)
{
    return must_fail() ? NULL : plain.xMalloc(size);
}

static void *
sqlite_realloc(void *ptr, int size)
{
    return must_fail() ? NULL : plain.xRealloc(ptr, size);
}

void
memory_install(void)
{
    sqlite3_mem_methods failing;

    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain) != SQLITE_OK)
        abort();
    failing = plain;
    failing.xMalloc = sqlite_malloc;
    failing.xRealloc = sqlite_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &failing) != SQLITE_OK)
        abort();
}
