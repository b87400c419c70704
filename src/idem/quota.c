/* quota.c - claims and bytes of each identity, where a limit is set.
 *
 * (1) An identity has an account as long as it has a claim or a record.
 * (2) Locked last: whoever holds a shard may ask here, never the reverse. */
#include "idem/memory.h"

struct wb__account {
    struct wb__account *next;
    int64_t claims, bytes;
    size_t len;
    char identity[];
};

bool
wb__quota_init(struct wb__quota *q, const struct wb_idem *store)
{
    *q = (struct wb__quota){.env = store->env,
        .max_claims = store->opts.identity_claims,
        .max_bytes = store->opts.identity_bytes,
        .mask = 15};
    q->bucket = wb__alloc(q->env, (q->mask + 1) * sizeof(struct wb__account *));
    if (q->bucket == NULL)
        return false;
    q->env->random(q->env->ctx, q->seed, sizeof(q->seed));
    wb__mutex_init(&q->lock);
    return true;
}

void
wb__quota_fini(struct wb__quota *q)
{
    struct wb__account *a;

    if (q->bucket == NULL)
        return;
    for (size_t i = 0; i <= q->mask; i++) {
        while ((a = q->bucket[i]) != NULL) {
            q->bucket[i] = a->next;
            wb__free(q->env, a);
        }
    }
    wb__free(q->env, q->bucket);
    wb__mutex_fini(&q->lock);
}

static struct wb__account **
find(struct wb__quota *q, struct wb_slice identity)
{
    uint64_t hash = wb__siphash(q->seed, identity.ptr, identity.len);
    struct wb__account **link = &q->bucket[hash & q->mask];

    while (
        *link != NULL &&
        !wb__eq((struct wb_slice){(*link)->identity, (*link)->len}, identity))
        link = &(*link)->next;
    return link;
}

/* Twice the buckets; without memory the chains get longer. */
static void
grow(struct wb__quota *q)
{
    struct wb__quota wide = *q;
    struct wb__account *a;

    wide.mask = 2 * q->mask + 1;
    wide.bucket =
        wb__alloc(q->env, (wide.mask + 1) * sizeof(struct wb__account *));
    if (wide.bucket == NULL)
        return;
    for (size_t i = 0; i <= q->mask; i++) {
        while ((a = q->bucket[i]) != NULL) {
            struct wb__account **link =
                find(&wide, (struct wb_slice){a->identity, a->len});

            q->bucket[i] = a->next;
            a->next = NULL;
            *link = a;
        }
    }
    wb__free(q->env, q->bucket);
    q->bucket = wide.bucket;
    q->mask = wide.mask;
}

static struct wb__account *
open_account(struct wb__quota *q, struct wb_slice identity)
{
    struct wb__account **link = find(q, identity), *a = *link;

    if (a != NULL)
        return a;
    a = wb__alloc(q->env, sizeof(*a) + identity.len);
    if (a == NULL)
        return NULL;
    a->len = identity.len;
    if (identity.len > 0)
        memcpy(a->identity, identity.ptr, identity.len);
    *link = a;
    if (++q->n > q->mask)
        grow(q);
    return a;
}

static bool
unlimited(const struct wb__quota *q)
{
    return q->max_claims == 0 && q->max_bytes == 0;
}

static enum wb_status
claim_more(struct wb__quota *q, struct wb_slice identity)
{
    const struct wb__account *there = *find(q, identity);
    struct wb__account *a;

    if (there != NULL &&
        ((q->max_claims > 0 && there->claims >= q->max_claims) ||
            (q->max_bytes > 0 && there->bytes >= q->max_bytes)))
        return WB_FULL;
    a = open_account(q, identity);
    if (a == NULL)
        return WB_NOMEM;
    a->claims++;
    return WB_OK;
}

enum wb_status
wb__quota_claim(struct wb__quota *q, struct wb_slice identity)
{
    enum wb_status rc;

    if (unlimited(q))
        return WB_OK;
    wb__mutex_lock(&q->lock);
    rc = claim_more(q, identity);
    wb__mutex_unlock(&q->lock);
    return rc;
}

enum wb_status
wb__quota_open(struct wb__quota *q, struct wb_slice identity)
{
    const struct wb__account *a;

    if (unlimited(q))
        return WB_OK;
    wb__mutex_lock(&q->lock);
    a = open_account(q, identity);
    wb__mutex_unlock(&q->lock);
    return a == NULL ? WB_NOMEM : WB_OK;
}

void
wb__quota_add(
    struct wb__quota *q, struct wb_slice identity, int claims, int64_t bytes)
{
    struct wb__account **link, *a;

    if (unlimited(q))
        return;
    wb__mutex_lock(&q->lock);
    link = find(q, identity);
    a = *link;
    WB_ASSERT(a != NULL);
    a->claims += claims;
    a->bytes += bytes;
    WB_ASSERT(a->claims >= 0 && a->bytes >= 0);
    if (a->claims == 0 && a->bytes == 0) {
        *link = a->next;
        q->n--;
        wb__free(q->env, a);
    }
    wb__mutex_unlock(&q->lock);
}
