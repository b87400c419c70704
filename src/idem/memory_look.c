/* memory_look.c - the memory store without a claim: look, store, settle, free,
 * list, reap. */
#include "idem/memory.h"

static void
kept_replace(struct wb__visit *v, struct wb__kept *kept)
{
    struct wb__entry *e = &v->s->table.slab[v->at];

    /* First the new one: the account of the identity must not close. */
    wb__record_count(v->m, kept, 1);
    wb__record_count(v->m, e->what, -1);
    wb__free(v->m->face.env, e->what);
    e->what = kept;
    wb__record_used(v->m, v->s, v->at);
}

static enum wb_status
kept_add(struct wb__visit *v, struct wb__kept *kept, struct wb_err *err)
{
    if (wb__quota_open(&v->m->quota, v->op->identity) == WB_OK) {
        if (wb__table_reserve(&v->s->table)) {
            v->at = wb__table_add(&v->s->table, v->hash, kept);
            wb__record_count(v->m, kept, 1);
            wb__record_used(v->m, v->s, v->at);
            return WB_OK;
        }
        wb__quota_add(&v->m->quota, v->op->identity, 0, 0); /* close it */
    }
    wb__free(v->m->face.env, kept);
    return wb__nomem(err, "a record");
}

enum wb_status
wb__memory_store(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__visit v;
    struct wb__kept *kept;
    bool is_claim = false;
    const void *there;
    enum wb_status rc;

    wb__visit_begin(&v, store, op);
    there = wb__visit_standing(&v, &is_claim);
    if (there != NULL && is_claim)
        rc = wb__idem_taken(op, err);
    else
        rc = wb__kept_new(&v, record, 0, &record->fingerprint, &kept, err);
    if (rc == WB_OK && there != NULL)
        kept_replace(&v, kept);
    else if (rc == WB_OK)
        rc = kept_add(&v, kept, err);
    wb__visit_end(&v);
    return rc;
}

enum wb_status
wb__memory_settle(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__visit v;
    struct wb__kept *kept = NULL;
    struct wb__claim *claim;
    bool is_claim = false;
    enum wb_status rc = WB_OK;

    wb__visit_begin(&v, store, op);
    claim = wb__visit_standing(&v, &is_claim);
    if (claim == NULL || !is_claim || claim->state != WB_IDEM_DOUBTFUL)
        rc = WB_NOTFOUND;
    else if (record != NULL)
        rc = wb__kept_new(
            &v, record, claim->token, &claim->fingerprint, &kept, err);
    if (rc == WB_OK)
        wb__claim_end(v.m, v.s, claim, kept);
    wb__visit_end(&v);
    return rc;
}

enum wb_status
wb__memory_lookup(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb__visit v;
    struct wb_idem_record record;
    bool is_claim = false;
    enum wb_status rc = WB_EMPTY;
    const void *what;

    wb__visit_begin(&v, store, op);
    what = wb__visit_standing(&v, &is_claim);
    if (what != NULL && !is_claim) {
        record = wb__kept_record(v.m, what);
        rc = wb__idem_copy_record(result, store->env, &record)
                 ? WB_OK
                 : wb__nomem(err, "a record");
    }
    if (rc == WB_OK)
        wb__record_used(v.m, v.s, v.at);
    wb__mutex_unlock(&v.s->lock);
    return rc;
}

/* ---- items ------------------------------------------------------------- */

static void
claim_item(const struct wb__memory *m, const struct wb__claim *claim,
    struct wb_idem_item *item)
{
    *item = (struct wb_idem_item){.op = wb__key_op(claim->bytes),
        .state = claim->state,
        .fingerprint = claim->fingerprint,
        .ends_ms = wb__sat_add(m->opened_wall_ms, claim->ends.key),
        .since_ms = m->opened_wall_ms + claim->since_ms};
}

static void
kept_item(const struct wb__memory *m, const struct wb__kept *kept,
    struct wb_idem_item *item)
{
    struct wb_idem_record r = wb__kept_record(m, kept);

    *item = (struct wb_idem_item){.op = wb__key_op(kept->bytes),
        .state = WB_IDEM_DONE,
        .fingerprint = r.fingerprint,
        .ends_ms = r.ttl_ms == 0 ? 0 : r.stored_ms + r.ttl_ms,
        .since_ms = r.stored_ms,
        .status = r.status,
        .bytes = r.headers.len + r.body.len};
}

static void
item_of(const struct wb__memory *m, const struct wb__entry *e,
    struct wb_idem_item *item)
{
    if (wb__is_claim(e))
        claim_item(m, e->what, item);
    else
        kept_item(m, e->what, item);
}

enum wb_status
wb__memory_peek(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb__visit v;
    bool is_claim = false, found;

    (void)err;
    wb__visit_begin(&v, store, op);
    found = wb__visit_standing(&v, &is_claim) != NULL;
    if (found) {
        item_of(v.m, &v.s->table.slab[v.at], item);
        item->op = (struct wb_idem_op){0};
    }
    wb__mutex_unlock(&v.s->lock);
    return found ? WB_OK : WB_NOTFOUND;
}

enum wb_status
wb__memory_forget(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb__visit v;
    bool is_claim = false;
    void *what;

    (void)err;
    wb__visit_begin(&v, store, op);
    what = wb__visit_standing(&v, &is_claim);
    if (what != NULL) {
        item_of(v.m, &v.s->table.slab[v.at], item);
        item->op = (struct wb_idem_op){0};
        if (is_claim)
            wb__claim_end(v.m, v.s, what, NULL);
        else
            wb__record_drop(v.m, v.s, v.at);
    }
    wb__visit_end(&v);
    return what != NULL ? WB_OK : WB_NOTFOUND;
}

/* Every entry that stands, to fn (may be NULL); *gone counts the others. */
static enum wb_status
walk_shard(struct wb__memory *m, struct wb__shard *s,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    uint64_t *gone)
{
    int64_t now_ms = wb__memory_now(m);
    enum wb_status rc = WB_OK;
    struct wb_idem_item item;

    for (uint32_t at = 0; at < s->table.cap && rc == WB_OK; at++) {
        if (s->table.slab[at].what == NULL)
            continue;
        if (!wb__entry_stands(m, s, at, now_ms)) {
            ++*gone;
        } else if (fn != NULL) {
            item_of(m, &s->table.slab[at], &item);
            rc = fn(ctx, &item);
        }
    }
    wb__table_shrink(&s->table);
    return rc;
}

static enum wb_status
walk(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    uint64_t *gone)
{
    struct wb__memory *m = (struct wb__memory *)store;
    enum wb_status rc = WB_OK;

    *gone = 0;
    for (int i = 0; i < WB__SHARDS && rc == WB_OK; i++) {
        wb__mutex_lock(&m->shard[i].lock);
        rc = walk_shard(m, &m->shard[i], fn, ctx, gone);
        wb__mutex_unlock(&m->shard[i].lock);
    }
    return rc;
}

enum wb_status
wb__memory_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err)
{
    uint64_t gone;

    (void)err;
    return walk(store, fn, ctx, &gone);
}

enum wb_status
wb__memory_reap(struct wb_idem *store, uint64_t *n, struct wb_err *err)
{
    (void)err;
    return walk(store, NULL, NULL, n);
}
