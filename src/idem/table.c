/* table.c - open addressing over a slab of entries.
 *
 * (1) Every entry in use is in one slot, and no slot between its home, which
 *     its hash says, and that slot is empty. A removal moves later entries
 *     back; there are no tombstones.
 * (2) Records are in one list by use, claims in none.
 * (3) Growing and shrinking build a new table and replace the old one: if
 *     memory runs out nothing changes. */
#include "idem/memory.h"

enum {
    CAP_MIN = 8,
    FETCH_LINES = 4
};

void
wb__table_init(struct wb__table *t, const struct wb_env *env)
{
    *t = (struct wb__table){
        .env = env, .free = WB__NONE, .newest = WB__NONE, .oldest = WB__NONE};
}

void
wb__table_fini(struct wb__table *t)
{
    wb__free(t->env, t->slab);
    wb__free(t->env, t->slot);
}

/* ---- hash table -------------------------------------------------------- */

/* The header is compared first: keys of other lengths differ there. */
static bool
has_key(const struct wb__entry *e, const struct wb__key *key)
{
    const char *own = e->kind == WB__RECORD  ? e->record->bytes
                      : e->kind == WB__CLAIM ? e->claim->bytes
                                             : e->account->key;

    return memcmp(own, key->bytes, WB__KEY_HEADER) == 0 &&
           memcmp(own, key->bytes, key->len) == 0;
}

struct wb__entry *
wb__table_find(
    const struct wb__table *t, uint32_t hash, const struct wb__key *key)
{
    if (t->cap == 0)
        return NULL;
    for (uint32_t i = hash & t->mask; t->slot[i] != 0; i = (i + 1) & t->mask) {
        struct wb__entry *e = &t->slab[t->slot[i] - 1];

        if (e->hash != hash)
            continue;
        /* The caller reads a record to its end. To fetch its cache lines at
         * once makes a lookup a tenth faster. */
        for (int k = 0; k < FETCH_LINES; k++)
            __builtin_prefetch((const char *)e->record + (ptrdiff_t)64 * k);
        if (has_key(e, key))
            return e;
    }
    return NULL;
}

/* ---- list by use ------------------------------------------------------- */

static void
list_remove(struct wb__table *t, struct wb__entry *e)
{
    if (e->prev != WB__NONE)
        t->slab[e->prev].next = e->next;
    else
        t->newest = e->next;
    if (e->next != WB__NONE)
        t->slab[e->next].prev = e->prev;
    else
        t->oldest = e->prev;
}

static void
list_add(struct wb__table *t, struct wb__entry *e)
{
    uint32_t at = (uint32_t)(e - t->slab);

    e->prev = WB__NONE;
    e->next = t->newest;
    if (t->newest != WB__NONE)
        t->slab[t->newest].prev = at;
    else
        t->oldest = at;
    t->newest = at;
}

void
wb__table_touch(struct wb__table *t, struct wb__entry *e)
{
    WB_ASSERT(e->kind == WB__RECORD);
    if (e->prev == WB__NONE)
        return; /* it is the newest */
    list_remove(t, e);
    list_add(t, e);
}

/* ---- entries ----------------------------------------------------------- */

static struct wb__entry *
add(struct wb__table *t, uint32_t hash)
{
    struct wb__entry *e;
    uint32_t i = hash & t->mask;

    WB_ASSERT(t->free != WB__NONE);
    e = &t->slab[t->free];
    while (t->slot[i] != 0)
        i = (i + 1) & t->mask;
    t->slot[i] = t->free + 1;
    t->free = e->next;
    t->used++;
    e->hash = hash;
    return e;
}

struct wb__entry *
wb__table_add_claim(
    struct wb__table *t, uint32_t hash, struct wb__memory_claim *claim)
{
    struct wb__entry *e = add(t, hash);

    e->kind = WB__CLAIM;
    e->claim = claim;
    claim->at = (uint32_t)(e - t->slab);
    return e;
}

struct wb__entry *
wb__table_add_record(
    struct wb__table *t, uint32_t hash, struct wb__memory_record *record)
{
    struct wb__entry *e = add(t, hash);

    wb__table_complete(t, e, record);
    return e;
}

void
wb__table_add_account(
    struct wb__table *t, uint32_t hash, struct wb__account *account)
{
    struct wb__entry *e = add(t, hash);

    e->kind = WB__ACCOUNT;
    e->account = account;
}

void
wb__table_complete(
    struct wb__table *t, struct wb__entry *e, struct wb__memory_record *record)
{
    e->kind = WB__RECORD;
    e->record = record;
    list_add(t, e);
}

void
wb__table_remove(struct wb__table *t, struct wb__entry *e)
{
    uint32_t at = (uint32_t)(e - t->slab), hole = e->hash & t->mask, i, home;

    WB_ASSERT(e->kind != WB__FREE);
    while (t->slot[hole] != at + 1)
        hole = (hole + 1) & t->mask;
    /* Keep every entry reachable from its home; see (1). */
    for (i = (hole + 1) & t->mask; t->slot[i] != 0; i = (i + 1) & t->mask) {
        home = t->slab[t->slot[i] - 1].hash & t->mask;
        if (((i - home) & t->mask) < ((i - hole) & t->mask))
            continue; /* its home is after the hole */
        t->slot[hole] = t->slot[i];
        hole = i;
    }
    t->slot[hole] = 0;
    if (e->kind == WB__RECORD)
        list_remove(t, e);
    *e = (struct wb__entry){.kind = WB__FREE, .next = t->free};
    t->free = at;
    t->used--;
}

/* ---- size -------------------------------------------------------------- */

static bool
resize(struct wb__table *t, uint32_t cap)
{
    uint32_t slots = 16;
    struct wb__table to;

    while (slots / 4 * 3 < cap) /* at most three quarters full */
        slots += slots;
    wb__table_init(&to, t->env);
    to.slab = wb__alloc(t->env, cap * sizeof(*to.slab));
    to.slot = wb__alloc(t->env, slots * sizeof(*to.slot));
    if (to.slab == NULL || to.slot == NULL) {
        wb__table_fini(&to);
        return false;
    }
    to.cap = cap;
    to.mask = slots - 1;
    for (uint32_t at = cap; at > 0; at--) {
        to.slab[at - 1].next = to.free;
        to.free = at - 1;
    }
    for (uint32_t at = t->oldest; at != WB__NONE; at = t->slab[at].prev)
        (void)wb__table_add_record(&to, t->slab[at].hash, t->slab[at].record);
    for (uint32_t at = 0; at < t->cap; at++) {
        const struct wb__entry *e = &t->slab[at];

        if (e->kind == WB__CLAIM)
            (void)wb__table_add_claim(&to, e->hash, e->claim);
        else if (e->kind == WB__ACCOUNT)
            wb__table_add_account(&to, e->hash, e->account);
    }
    wb__table_fini(t);
    *t = to;
    return true;
}

/* By an eighth at a time, so that little memory is unused. */
bool
wb__table_reserve(struct wb__table *t, uint32_t n)
{
    WB_ASSERT(n <= CAP_MIN);
    if (t->cap - t->used >= n)
        return true;
    return t->cap <= UINT32_MAX / 4 && resize(t, t->cap + t->cap / 8 + CAP_MIN);
}

void
wb__table_shrink(struct wb__table *t)
{
    if (t->cap > 8 * CAP_MIN && t->used < t->cap / 4)
        (void)resize(t, t->cap / 2);
}
