/* visit.c - one call on one entry: find its shard, lock it, leave it tidy. */
#include "idem/memory.h"

enum {
    WRITES_EACH = 8 /* writes to a shard for one look at another */
};

/* ---- enter and leave --------------------------------------------------- */

void
wb__visit_find(struct wb__visit *v)
{
    v->at = wb__table_find(&v->s->table, v->hash, v->key.bytes, v->key.len);
}

void
wb__visit_begin(
    struct wb__visit *v, struct wb_idem *store, const struct wb_idem_op *op)
{
    uint64_t hash;

    v->m = (struct wb__memory *)store;
    v->op = op;
    wb__key_make(&v->key, op);
    hash = wb__siphash(v->m->seed, v->key.bytes, v->key.len);
    v->hash = (uint32_t)hash;
    v->s = &v->m->shard[hash >> 32 & (WB__SHARDS - 1)];
    wb__mutex_lock(&v->s->lock);
    wb__visit_find(v);
    v->now_ms = wb__memory_now(v->m); /* while what was found is fetched */
}

/* After a write. A shard that nobody writes to any more is tidied by the
 * writes to others. */
void
wb__visit_end(struct wb__visit *v)
{
    uint32_t n = v->s->writes++;
    struct wb__shard *other;

    wb__shard_tidy(v->m, v->s, v->now_ms);
    wb__mutex_unlock(&v->s->lock);
    wb__memory_evict(v->m);
    if (n % WRITES_EACH != 0)
        return;
    n = n / WRITES_EACH + (uint32_t)(v->s - v->m->shard);
    other = &v->m->shard[n % WB__SHARDS];
    wb__mutex_lock(&other->lock);
    wb__shard_tidy(v->m, other, v->now_ms);
    wb__mutex_unlock(&other->lock);
}

/* The entry, once what is past its time has gone. */
void *
wb__visit_standing(struct wb__visit *v, bool *is_claim)
{
    const struct wb__entry *e;

    if (v->at != WB__NONE && !wb__entry_stands(v->m, v->s, v->at, v->now_ms))
        v->at = WB__NONE;
    if (v->at == WB__NONE)
        return NULL;
    e = &v->s->table.slab[v->at];
    *is_claim = wb__is_claim(e);
    return e->what;
}

/* The claim that the token is for, or NULL: late, wrong or spent. */
struct wb__claim *
wb__visit_claim(struct wb__visit *v, uint64_t token)
{
    struct wb__claim *claim;

    if (v->at == WB__NONE || !wb__is_claim(&v->s->table.slab[v->at]))
        return NULL;
    claim = v->s->table.slab[v->at].what;
    if (claim->token != token || claim->state == WB_IDEM_DOUBTFUL ||
        claim->ends.key <= v->now_ms)
        return NULL;
    return claim;
}

/* ---- records ----------------------------------------------------------- */

#define FOREVER_MS (INT64_C(1) << 47) /* longer than anybody waits */

int64_t
wb__ttl_of(const struct wb_idem_record *record)
{
    return record->ttl_ms > 0 && record->ttl_ms < FOREVER_MS ? record->ttl_ms
                                                             : 0;
}

enum wb_status
wb__kept_new(const struct wb__visit *v, const struct wb_idem_record *record,
    uint64_t token, const struct wb_fingerprint *fingerprint,
    struct wb__kept **out, struct wb_err *err)
{
    const struct wb_env *env = v->m->face.env;
    struct wb__kept *kept = env->resize(env->ctx, NULL,
        offsetof(struct wb__kept, bytes) + v->key.len + record->headers.len +
            record->body.len);
    char *at;

    if (kept == NULL)
        return wb__nomem(err, "a record");
    kept->fingerprint = *fingerprint;
    kept->stored_ms = (uint64_t)v->now_ms;
    kept->status = (uint64_t)record->status & 0xffff;
    kept->ttl_ms = (uint64_t)wb__ttl_of(record);
    kept->headers_len = record->headers.len & 0xffff;
    kept->body_len = (uint32_t)record->body.len;
    kept->token = (uint32_t)token;
    at = kept->bytes;
    at += wb__append(at, (struct wb_slice){v->key.bytes, v->key.len});
    at += wb__append(at, record->headers);
    (void)wb__append(at, record->body);
    if (wb__kept_cost(kept) <= v->m->face.opts.max_bytes) {
        *out = kept;
        return WB_OK;
    }
    wb__free(env, kept);
    return wb__fail(err, WB_TOOBIG, 0,
        "the record of key \"%.*s\" does not fit into the store's %lld bytes",
        WB_SHOW(v->op->key), (long long)v->m->face.opts.max_bytes);
}
