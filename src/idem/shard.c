/* shard.c - what happens to entries of a shard by time, use and room.
 *
 * (1) Recency is one clock for all shards: each use takes its next number, and
 *     room is made in the shard whose oldest record has the least one.
 * (2) Numbers are kept in 32 bits and compared by age. Before an age could
 *     wrap round, those of very old records are set to "very old".
 * (3) What is past its time goes without being asked for: claims by a heap,
 *     records by a hand that goes round the slab with every write, faster
 *     where it finds some. */
#include "idem/memory.h"

enum {
    HAND_LOOKS = 2,  /* entries that a write looks at */
    HAND_BONUS = 8,  /* and so many more for each one that was over */
    HAND_MAX = 64,   /* slots passed at most, free ones as well */
    CLAIMS_MAX = 16, /* ended claims that a write takes away */
    AGE_MAX = 1 << 30
};

/* ---- records ----------------------------------------------------------- */

/* All that a record takes, bookkeeping included. */
int64_t
wb__kept_cost(const struct wb__kept *kept)
{
    return (int64_t)(sizeof(*kept) + sizeof(struct wb__entry) + 16 +
                     wb__key_len(kept->bytes) + kept->headers_len +
                     kept->body_len);
}

/* n: 1 for one more, -1 for one less. */
void
wb__record_count(struct wb__memory *m, const struct wb__kept *kept, int n)
{
    int64_t cost = wb__kept_cost(kept);

    atomic_fetch_add_explicit(&m->records, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->bytes, n * cost, memory_order_relaxed);
    wb__quota_add(&m->quota, wb__key_op(kept->bytes).identity, 0, n * cost);
}

void
wb__record_drop(struct wb__memory *m, struct wb__shard *s, uint32_t at)
{
    struct wb__kept *kept = s->table.slab[at].what;

    wb__table_remove(&s->table, at);
    wb__record_count(m, kept, -1);
    wb__free(m->face.env, kept);
}

static uint32_t
uses(struct wb__memory *m)
{
    return (uint32_t)atomic_load_explicit(&m->uses, memory_order_relaxed);
}

/* See (2). */
static void
cap_ages(struct wb__memory *m, struct wb__shard *s)
{
    if (!atomic_load_explicit(&s->old, memory_order_relaxed))
        return;
    atomic_store(&s->old, false);
    wb__table_cap_ages(&s->table, uses(m), AGE_MAX);
}

void
wb__record_used(struct wb__memory *m, struct wb__shard *s, uint32_t at)
{
    uint64_t n =
        atomic_fetch_add_explicit(&m->uses, 1, memory_order_relaxed) + 1;

    if (n % AGE_MAX == 0) {
        for (int i = 0; i < WB__SHARDS; i++)
            atomic_store(&m->shard[i].old, true);
    }
    cap_ages(m, s);
    wb__table_use(&s->table, at, (uint32_t)n);
}

/* ---- time -------------------------------------------------------------- */

static void
wake_all(struct wb__claim *claim)
{
    for (struct wb__waiter *w = claim->waiters; w != NULL; w = w->next) {
        w->woken = true;
        wb__cond_signal(&w->wake);
    }
    claim->waiters = NULL;
    claim->n_waiters = 0;
}

void
wb__claim_end(struct wb__memory *m, struct wb__shard *s,
    struct wb__claim *claim, struct wb__kept *kept)
{
    uint32_t at = claim->at;

    wake_all(claim);
    wb__heap_remove(&s->table.claims, &claim->ends);
    if (kept == NULL) {
        wb__table_remove(&s->table, at);
    } else {
        s->table.slab[at].what = kept;
        wb__record_count(m, kept, 1);
        wb__record_used(m, s, at);
    }
    wb__quota_add(&m->quota, wb__key_op(claim->bytes).identity, -1, 0);
    wb__free(m->face.env, claim);
}

void
wb__claim_mark(struct wb__memory *m, struct wb__shard *s,
    struct wb__claim *claim, enum wb_idem_state state, int64_t now_ms)
{
    claim->state = state;
    if (state != WB_IDEM_DOUBTFUL)
        return;
    wake_all(claim);
    wb__heap_move(&s->table.claims, &claim->ends,
        wb__sat_add(now_ms, m->face.opts.hold_ms));
}

static bool
claim_stands(struct wb__memory *m, struct wb__shard *s, struct wb__claim *claim,
    int64_t now_ms)
{
    if (claim->state == WB_IDEM_SENDING && claim->ends.key <= now_ms)
        wb__claim_mark(m, s, claim, WB_IDEM_DOUBTFUL, claim->ends.key);
    if (claim->ends.key > now_ms)
        return true;
    wb__claim_end(m, s, claim, NULL);
    return false;
}

bool
wb__entry_stands(
    struct wb__memory *m, struct wb__shard *s, uint32_t at, int64_t now_ms)
{
    const struct wb__entry *e = &s->table.slab[at];
    const struct wb__kept *kept = e->what;

    if (wb__is_claim(e))
        return claim_stands(m, s, e->what, now_ms);
    if (kept->ttl_ms == 0 ||
        now_ms < (int64_t)kept->stored_ms + (int64_t)kept->ttl_ms)
        return true;
    wb__record_drop(m, s, at);
    return false;
}

void
wb__shard_tidy(struct wb__memory *m, struct wb__shard *s, int64_t now_ms)
{
    struct wb__table *t = &s->table;
    int left = HAND_LOOKS;

    for (int i = 0; i < CLAIMS_MAX && t->claims.n > 0 &&
                    wb__heap_first(&t->claims)->key <= now_ms;
         i++)
        (void)claim_stands(m, s, (struct wb__claim *)t->claims.node[0], now_ms);
    for (int i = 0; i < HAND_MAX && left > 0 && t->cap > 0; i++) {
        t->hand = t->hand + 1 < t->cap ? t->hand + 1 : 0;
        if (t->slab[t->hand].what == NULL)
            continue;
        left += wb__entry_stands(m, s, t->hand, now_ms) ? -1 : HAND_BONUS;
    }
    /* The next write looks at these: nothing else has touched them for long. */
    for (uint32_t i = 1; i <= HAND_LOOKS && t->hand + i < t->cap; i++)
        __builtin_prefetch(t->slab[t->hand + i].what);
    wb__table_shrink(t);
}

/* ---- room -------------------------------------------------------------- */

static bool
is_full(const struct wb__memory *m)
{
    return atomic_load_explicit(&m->records, memory_order_relaxed) >
               m->face.opts.max_records ||
           atomic_load_explicit(&m->bytes, memory_order_relaxed) >
               m->face.opts.max_bytes;
}

/* The shard with the record that was used least recently; NULL without any. */
static struct wb__shard *
oldest_shard(struct wb__memory *m)
{
    struct wb__shard *best = NULL;
    uint32_t now = uses(m), age, best_age = 0;

    for (int i = 0; i < WB__SHARDS; i++) {
        struct wb__shard *s = &m->shard[i];
        uint64_t stamp;

        if (atomic_load_explicit(&s->old, memory_order_relaxed)) {
            wb__mutex_lock(&s->lock);
            cap_ages(m, s);
            wb__mutex_unlock(&s->lock);
        }
        stamp =
            atomic_load_explicit(&s->table.oldest_stamp, memory_order_relaxed);
        age = now - (uint32_t)stamp;
        if (stamp != 0 && (best == NULL || age > best_age)) {
            best = s;
            best_age = age;
        }
    }
    return best;
}

void
wb__memory_evict(struct wb__memory *m)
{
    struct wb__shard *s;

    if (!is_full(m))
        return;
    wb__mutex_lock(&m->evicting);
    while (is_full(m) && (s = oldest_shard(m)) != NULL) {
        wb__mutex_lock(&s->lock);
        if (s->table.oldest != WB__NONE)
            wb__record_drop(m, s, s->table.oldest);
        wb__mutex_unlock(&s->lock);
    }
    wb__mutex_unlock(&m->evicting);
}
