/* quota.c - the claims and bytes of each identity, counted where a limit is
 * set. An identity has an account as long as it has a claim or a record. */
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
find_or_add(struct wb__quota *q, struct wb_slice identity)
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
is_unlimited(const struct wb__quota *q)
{
    return q->max_claims == 0 && q->max_bytes == 0;
}

bool
wb__quota_open(struct wb__quota *q, struct wb_slice identity)
{
    return is_unlimited(q) || find_or_add(q, identity) != NULL;
}

enum wb_status
wb__quota_claim(struct wb__quota *q, struct wb_slice identity)
{
    struct wb__account *a;

    if (is_unlimited(q))
        return WB_OK;
    a = *find(q, identity);
    if (a != NULL && ((q->max_claims > 0 && a->claims >= q->max_claims) ||
                         (q->max_bytes > 0 && a->bytes >= q->max_bytes)))
        return WB_FULL;
    a = find_or_add(q, identity);
    if (a == NULL)
        return WB_NOMEM;
    a->claims++;
    return WB_OK;
}

void
wb__quota_add(
    struct wb__quota *q, struct wb_slice identity, int claims, int64_t bytes)
{
    struct wb__account **link, *a;

    if (is_unlimited(q))
        return;
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
}
