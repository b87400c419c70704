/* sim_memory.c - an allocator for one thread: most of the time to open a
 * database is spent in malloc.
 *
 * Freed blocks are kept for the next allocation of their size class, and never
 * returned to the system. Sanitized builds use malloc itself. */
#include <stdlib.h>

#include "sim.h"

enum {
    HEAD = 16, /* keeps what follows it aligned */
    CLASSES = 24,
    SLAB = 1 << 20
};

struct block {
    struct block *next; /* free one of this class */
    size_t grade;
};
static struct block *spare[CLASSES];
static char *slab;
static size_t slab_left;

/* 32, 48, 64, 96, 128 ... */
static size_t
grade_bytes(size_t grade)
{
    return ((size_t)32 << grade / 2) + grade % 2 * ((size_t)16 << grade / 2);
}

static size_t
grade_of(size_t bytes)
{
    size_t bits, grade;

    if (bytes <= 32)
        return 0;
    bits = 63 - (size_t)__builtin_clzll((unsigned long long)bytes - 1);
    grade = 2 * (bits - 5);
    return grade_bytes(grade + 1) >= bytes ? grade + 1 : grade + 2;
}

static struct block *
block_new(size_t grade, size_t bytes)
{
    struct block *b;

    if (grade >= CLASSES)
        return malloc(HEAD + bytes);
    if (slab_left < HEAD + grade_bytes(grade)) {
        slab = malloc(SLAB);
        slab_left = SLAB;
    }
    if (slab == NULL)
        abort();
    b = (struct block *)slab;
    slab += HEAD + grade_bytes(grade);
    slab_left -= HEAD + grade_bytes(grade);
    return b;
}

static void *
take(int n)
{
    size_t bytes = (size_t)n, grade = grade_of(bytes);
    struct block *b = grade < CLASSES ? spare[grade] : NULL;

    if (b != NULL)
        spare[grade] = b->next;
    else
        b = block_new(grade, bytes);
    if (b == NULL)
        return NULL;
    b->grade = grade < CLASSES ? grade : bytes + CLASSES;
    return (char *)b + HEAD;
}

static struct block *
block_of(void *ptr)
{
    return (struct block *)((char *)ptr - HEAD);
}

static int
size_of(void *ptr)
{
    size_t grade = block_of(ptr)->grade;

    return (int)(grade < CLASSES ? grade_bytes(grade) : grade - CLASSES);
}

static void
give(void *ptr)
{
    struct block *b = block_of(ptr);

    if (b->grade >= CLASSES) {
        free(b);
        return;
    }
    b->next = spare[b->grade];
    spare[b->grade] = b;
}

static void *
resize(void *ptr, int n)
{
    void *grown;

    if (n <= size_of(ptr))
        return ptr;
    grown = take(n);
    if (grown == NULL)
        return NULL;
    memcpy(grown, ptr, (size_t)size_of(ptr));
    give(ptr);
    return grown;
}

static int
round_up(int n)
{
    size_t grade = grade_of((size_t)n);

    return grade < CLASSES ? (int)grade_bytes(grade) : (n + 7) & ~7;
}

static int
begin(void *ctx)
{
    (void)ctx;
    return SQLITE_OK;
}

static void
end(void *ctx)
{
    (void)ctx;
}

void
sim_memory_install(void)
{
    static const sqlite3_mem_methods methods = {
        take, give, resize, size_of, round_up, begin, end, NULL};

    if (SIM_OWN_MEMORY &&
        sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK)
        abort();
}

void *
sim_memory_resize(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    if (!SIM_OWN_MEMORY && size > 0)
        return realloc(ptr, size);
    if (size > 0)
        return ptr == NULL ? take((int)size) : resize(ptr, (int)size);
    if (!SIM_OWN_MEMORY)
        free(ptr);
    else if (ptr != NULL)
        give(ptr);
    return NULL;
}
