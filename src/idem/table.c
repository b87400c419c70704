/* table.c - open addressing over a slab of entries.
 *
 * (1) Every entry in use is in one slot, and no empty slot lies between its
 *     home and that slot: removal shifts back, there are no tombstones.
 * (2) Records are on one list by use, claims on none.
 * (3) Growth and shrinking build anew and swap: without memory nothing
 *     changes. */
#include "idem/memory.h"

enum {
    CAP_MIN = 8,
    FETCH_LINES = 4
};

void
wb__table_init(struct wb__table *t, const struct wb_env *env)
{
    *t = (struct wb__table){.env = env,
        .free = WB__NONE,
        .newest = WB__NONE,
        .oldest = WB__NONE,
        .claims = {.env = env}};
}

void
wb__table_fini(struct wb__table *t)
{
    wb__free(t->env, t->slab);
    wb__free(t->env, t->slot);
    wb__heap_fini(&t->claims);
}

/* The first bytes are the frame: keys of other lengths differ there. */
static bool
is_key(const struct wb__entry *e, const char *key, size_t len)
{
    const char *own = wb__is_claim(e)
                          ? ((const struct wb__claim *)e->what)->bytes
                          : ((const struct wb__kept *)e->what)->bytes;

    return memcmp(own, key, WB__FRAME) == 0 && memcmp(own, key, len) == 0;
}

/* A record is read from its beginning to its end. */
static void
fetch(const char *what)
{
    for (int i = 0; i < FETCH_LINES; i++)
        __builtin_prefetch(what + (ptrdiff_t)64 * i);
}

uint32_t
wb__table_find(
    const struct wb__table *t, uint32_t hash, const char *key, size_t len)
{
    if (t->cap == 0)
        return WB__NONE;
    for (uint32_t i = hash & t->mask; t->slot[i] != 0; i = (i + 1) & t->mask) {
        const struct wb__entry *e = &t->slab[t->slot[i] - 1];

        if (e->hash != hash)
            continue;
        fetch(e->what);
        if (is_key(e, key, len))
            return t->slot[i] - 1;
    }
    return WB__NONE;
}

static void
slot_put(struct wb__table *t, uint32_t at)
{
    uint32_t i = t->slab[at].hash & t->mask;

    while (t->slot[i] != 0)
        i = (i + 1) & t->mask;
    t->slot[i] = at + 1;
}

static void
slot_take(struct wb__table *t, uint32_t at)
{
    uint32_t hole = t->slab[at].hash & t->mask, i, home;

    while (t->slot[hole] != at + 1)
        hole = (hole + 1) & t->mask;
    for (i = (hole + 1) & t->mask; t->slot[i] != 0; i = (i + 1) & t->mask) {
        home = t->slab[t->slot[i] - 1].hash & t->mask;
        if (((i - home) & t->mask) < ((i - hole) & t->mask))
            continue; /* it would come to lie before its home */
        t->slot[hole] = t->slot[i];
        hole = i;
    }
    t->slot[hole] = 0;
}

/* ---- by use ------------------------------------------------------------ */

static void
publish(struct wb__table *t)
{
    uint64_t stamp = t->oldest == WB__NONE
                         ? 0
                         : t->slab[t->oldest].stamp | UINT64_C(1) << 32;

    atomic_store_explicit(&t->oldest_stamp, stamp, memory_order_relaxed);
}

static void
unlink_use(struct wb__table *t, uint32_t at)
{
    struct wb__entry *e = &t->slab[at];

    if (e->prev != WB__NONE)
        t->slab[e->prev].next = e->next;
    else
        t->newest = e->next;
    if (e->next != WB__NONE)
        t->slab[e->next].prev = e->prev;
    else
        t->oldest = e->prev;
    if (e->next == WB__NONE)
        publish(t);
}

static void
link_newest(struct wb__table *t, uint32_t at)
{
    struct wb__entry *e = &t->slab[at];

    e->prev = WB__NONE;
    e->next = t->newest;
    if (t->newest != WB__NONE)
        t->slab[t->newest].prev = at;
    else
        t->oldest = at;
    t->newest = at;
    if (e->next == WB__NONE)
        publish(t);
}

void
wb__table_use(struct wb__table *t, uint32_t at, uint32_t stamp)
{
    struct wb__entry *e = &t->slab[at];

    if (!wb__is_claim(e))
        unlink_use(t, at);
    e->stamp = stamp;
    link_newest(t, at);
}

void
wb__table_cap_ages(struct wb__table *t, uint32_t now, uint32_t max)
{
    for (uint32_t at = t->oldest;
         at != WB__NONE && now - t->slab[at].stamp > max; at = t->slab[at].prev)
        t->slab[at].stamp = now - max;
    publish(t);
}

/* ---- size -------------------------------------------------------------- */

uint32_t
wb__table_add(struct wb__table *t, uint32_t hash, void *what)
{
    uint32_t at = t->free;

    WB_ASSERT(at != WB__NONE);
    t->free = t->slab[at].next;
    t->slab[at] = (struct wb__entry){
        .what = what, .hash = hash, .prev = WB__CLAIM, .next = WB__NONE};
    t->used++;
    slot_put(t, at);
    return at;
}

void
wb__table_remove(struct wb__table *t, uint32_t at)
{
    struct wb__entry *e = &t->slab[at];

    slot_take(t, at);
    if (!wb__is_claim(e))
        unlink_use(t, at);
    *e = (struct wb__entry){.next = t->free};
    t->free = at;
    t->used--;
}

/* Slots for so many entries: a power of two, at most three quarters full. */
static uint32_t
slots_for(uint32_t cap)
{
    uint32_t n = 16;

    while (n / 4 * 3 < cap)
        n += n;
    return n;
}

static void
copy_entries(struct wb__table *to, const struct wb__table *from)
{
    for (uint32_t at = from->oldest; at != WB__NONE; at = from->slab[at].prev) {
        const struct wb__entry *e = &from->slab[at];

        wb__table_use(to, wb__table_add(to, e->hash, e->what), e->stamp);
    }
    for (uint32_t i = 0; i < from->claims.n; i++) {
        struct wb__claim *claim = (struct wb__claim *)from->claims.node[i];

        claim->at = wb__table_add(to, from->slab[claim->at].hash, claim);
    }
}

static bool
resize(struct wb__table *t, uint32_t cap)
{
    uint32_t slots = slots_for(cap);
    struct wb__table fresh;

    wb__table_init(&fresh, t->env);
    fresh.slab = wb__alloc(t->env, cap * sizeof(*fresh.slab));
    fresh.slot = wb__alloc(t->env, slots * sizeof(*fresh.slot));
    if (fresh.slab == NULL || fresh.slot == NULL) {
        wb__table_fini(&fresh);
        return false;
    }
    fresh.cap = cap;
    fresh.mask = slots - 1;
    for (uint32_t at = cap; at > 0; at--) {
        fresh.slab[at - 1].next = fresh.free;
        fresh.free = at - 1;
    }
    copy_entries(&fresh, t);
    wb__free(t->env, t->slab);
    wb__free(t->env, t->slot);
    t->slab = fresh.slab;
    t->slot = fresh.slot;
    t->cap = fresh.cap;
    t->mask = fresh.mask;
    t->free = fresh.free;
    t->newest = fresh.newest;
    t->oldest = fresh.oldest;
    t->hand = 0;
    return true;
}

/* By an eighth at a time: little is ever reserved in vain. */
bool
wb__table_reserve(struct wb__table *t)
{
    if (t->free != WB__NONE)
        return true;
    return t->cap <= UINT32_MAX / 4 && resize(t, t->cap + t->cap / 8 + CAP_MIN);
}

void
wb__table_shrink(struct wb__table *t)
{
    if (t->cap > 8 * CAP_MIN && t->used < t->cap / 4)
        (void)resize(t, t->cap / 2);
}
