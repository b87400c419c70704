/* memory_entry.c - the life of claims and records in the memory store, and what
 * is counted for each identity.
 *
 * (1) What has expired is removed by later calls on other keys:
 *     claims by a heap of their ends, records by a scan that checks a few
 *     entries with every write, and more where it finds expired ones.
 * (2) The account of an identity is counted up before it is counted down: at
 *     zero it is freed. */
#include "idem/memory.h"

enum {
    CLEAN_BONUS = 8,    /* entries to check more for each expired record */
    CLEAN_ENTRIES = 32, /* per unit of effort: entries passed at most, and */
    CLEAN_CLAIMS = 8    /* claims removed at most */
};

uint32_t
wb__memory_hash(const struct wb__memory *m, const struct wb__key *key)
{
    return (uint32_t)wb__siphash(m->seed, key->bytes, key->len);
}

/* ---- accounts ---------------------------------------------------------- */

static bool
has_accounts(const struct wb__memory *m)
{
    return m->base.opts.identity_claims > 0 || m->base.opts.identity_bytes > 0;
}

static struct wb__entry *
find_account(const struct wb__memory *m, struct wb_slice identity,
    struct wb__key *key, uint32_t *hash)
{
    wb__key_make(key, &(struct wb_idem_op){.identity = identity});
    *hash = wb__memory_hash(m, key);
    return wb__table_find(&m->table, *hash, key);
}

bool
wb__account_open(struct wb__memory *m, struct wb_slice identity,
    uint32_t entries, struct wb__account **out)
{
    const struct wb__entry *e;
    struct wb__account *a;
    struct wb__key key;
    uint32_t hash;

    *out = NULL;
    if (!has_accounts(m))
        return wb__table_reserve(&m->table, entries);
    if (!wb__table_reserve(&m->table, entries + 1))
        return false;
    e = find_account(m, identity, &key, &hash);
    if (e != NULL) {
        *out = e->account;
        return true;
    }
    a = wb__alloc(m->base.env, sizeof(*a) + key.len);
    if (a == NULL)
        return false;
    memcpy(a->key, key.bytes, key.len);
    wb__table_add_account(&m->table, hash, a);
    *out = a;
    return true;
}

void
wb__account_add(
    struct wb__memory *m, struct wb_slice identity, int claims, int64_t bytes)
{
    struct wb__entry *e;
    struct wb__account *a;
    struct wb__key key;
    uint32_t hash;

    if (!has_accounts(m))
        return;
    e = find_account(m, identity, &key, &hash);
    WB_ASSERT(e != NULL);
    a = e->account;
    a->claims += claims;
    a->bytes += bytes;
    WB_ASSERT(a->claims >= 0 && a->bytes >= 0);
    if (a->claims == 0 && a->bytes == 0) {
        wb__table_remove(&m->table, e);
        wb__free(m->base.env, a);
    }
}

/* ---- records ----------------------------------------------------------- */

/* Longer than any program runs. */
#define TTL_MAX_MS (INT64_C(1) << 47)

int64_t
wb__record_ttl_ms(const struct wb_idem_record *record)
{
    bool expires = record->ttl_ms > 0 && record->ttl_ms < TTL_MAX_MS;

    return expires ? record->ttl_ms : 0;
}

/* All the bytes that a record takes, those of the table included. */
static int64_t
record_bytes(const struct wb__memory_record *r)
{
    return (int64_t)(sizeof(*r) + sizeof(struct wb__entry) + 16 +
                     wb__key_len(r->bytes) + r->headers_len + r->body_len);
}

enum wb_status
wb__record_new(const struct wb__memory *m, const struct wb__key *key,
    const struct wb_idem_record *record, int64_t now_ms,
    struct wb__memory_record **out, struct wb_err *err)
{
    const struct wb_env *env = m->base.env;
    struct wb__memory_record *r = env->resize(env->ctx, NULL,
        offsetof(struct wb__memory_record, bytes) + key->len +
            record->headers.len + record->body.len);
    char *at;

    if (r == NULL)
        return wb__nomem(err, "a record");
    r->fingerprint = record->fingerprint;
    r->stored_ms = (uint64_t)now_ms;
    r->status = (uint64_t)record->status & 0xffff;
    r->ttl_ms = (uint64_t)wb__record_ttl_ms(record);
    r->headers_len = record->headers.len & 0xffff;
    r->body_len = (uint32_t)record->body.len;
    r->token = 0;
    at = wb__append(r->bytes, (struct wb_slice){key->bytes, key->len});
    at = wb__append(at, record->headers);
    (void)wb__append(at, record->body);
    if (record_bytes(r) <= m->base.opts.max_bytes) {
        *out = r;
        return WB_OK;
    }
    wb__free(env, r);
    return wb__fail(err, WB_TOOBIG, 0,
        "the record of key \"%.*s\" does not fit into the store's %lld bytes",
        WB_SHOW(wb__key_op(key->bytes).key), (long long)m->base.opts.max_bytes);
}

struct wb_idem_record
wb__record_get(const struct wb__memory *m, const struct wb__memory_record *r)
{
    const char *headers = r->bytes + wb__key_len(r->bytes);

    return (struct wb_idem_record){.status = (int)r->status,
        .headers = {headers, r->headers_len},
        .body = {headers + r->headers_len, r->body_len},
        .ttl_ms = (int64_t)r->ttl_ms,
        .stored_ms = m->opened_wall_ms + (int64_t)r->stored_ms,
        .fingerprint = r->fingerprint};
}

void
wb__record_count(struct wb__memory *m, const struct wb__memory_record *r, int n)
{
    int64_t bytes = n * record_bytes(r);

    m->records += n;
    m->bytes += bytes;
    WB_ASSERT(m->records >= 0 && m->bytes >= 0);
    wb__account_add(m, wb__key_op(r->bytes).identity, 0, bytes);
}

void
wb__record_drop(struct wb__memory *m, struct wb__entry *e)
{
    struct wb__memory_record *r = e->record;

    wb__table_remove(&m->table, e);
    wb__record_count(m, r, -1);
    wb__free(m->base.env, r);
}

void
wb__memory_evict(struct wb__memory *m)
{
    struct wb__table *t = &m->table;

    while (m->records > m->base.opts.max_records ||
           m->bytes > m->base.opts.max_bytes)
        wb__record_drop(m, &t->slab[t->oldest]);
}

/* ---- claims ------------------------------------------------------------ */

static void
wake_all(struct wb__memory_claim *claim)
{
    for (struct wb__waiter *w = claim->waiters; w != NULL; w = w->next) {
        w->woken = true;
        wb__cond_signal(&w->wake);
    }
    claim->waiters = NULL;
    claim->n_waiters = 0;
}

void
wb__claim_end(struct wb__memory *m, struct wb__memory_claim *claim,
    struct wb__memory_record *record)
{
    struct wb__entry *e = &m->table.slab[claim->at];
    bool is_uncounted = wb__is_lapsed(e);

    WB_ASSERT(e->kind == WB__CLAIM && e->claim == claim);
    wake_all(claim);
    wb__heap_remove(&m->claims, &claim->ends);
    if (record == NULL) {
        wb__table_remove(&m->table, e);
    } else {
        record->token = (uint32_t)claim->token;
        record->fingerprint = claim->fingerprint;
        wb__table_complete(&m->table, e, record);
        wb__record_count(m, record, 1);
    }
    if (!is_uncounted)
        wb__account_add(m, wb__key_op(claim->bytes).identity, -1, 0);
    wb__free(m->base.env, claim);
}

void
wb__claim_hold(
    struct wb__memory *m, struct wb__memory_claim *claim, int64_t from_ms)
{
    claim->state = WB_IDEM_DOUBTFUL;
    claim->lapsed = false;
    wake_all(claim);
    wb__heap_move(
        &m->claims, &claim->ends, wb__sat_add(from_ms, m->base.opts.hold_ms));
}

/* ---- time -------------------------------------------------------------- */

/* A claim whose lease has ended is kept hold_ms longer: its holder may still
 * end it until another begin takes the key. One that was sending is DOUBTFUL;
 * another stays CLAIMED, counts for nothing and gives way to the next. */
static bool
claim_expire_if_due(
    struct wb__memory *m, struct wb__memory_claim *claim, int64_t now_ms)
{
    enum wb_idem_state was = claim->state;

    if (claim->ends.key <= now_ms && was != WB_IDEM_DOUBTFUL &&
        !claim->lapsed) {
        wb__claim_hold(m, claim, claim->ends.key);
        claim->lapsed = true;
        if (was == WB_IDEM_CLAIMED) {
            claim->state = was;
            wb__account_add(m, wb__key_op(claim->bytes).identity, -1, 0);
        }
    }
    if (claim->ends.key > now_ms)
        return false;
    wb__claim_end(m, claim, NULL);
    return true;
}

bool
wb__claim_revive(
    struct wb__memory *m, struct wb__memory_claim *claim, int64_t now_ms)
{
    struct wb__account *a = NULL;

    if (!claim->lapsed)
        return true;
    if (claim->state == WB_IDEM_CLAIMED &&
        !wb__account_open(m, wb__key_op(claim->bytes).identity, 0, &a))
        return false;
    if (a != NULL)
        a->claims++;
    if (claim->state == WB_IDEM_DOUBTFUL)
        claim->state = WB_IDEM_SENDING;
    claim->lapsed = false;
    wb__heap_move(&m->claims, &claim->ends, now_ms);
    return true;
}

bool
wb__expire_if_due(struct wb__memory *m, struct wb__entry *e, int64_t now_ms)
{
    if (e->kind == WB__CLAIM)
        return claim_expire_if_due(m, e->claim, now_ms);
    WB_ASSERT(e->kind == WB__RECORD);
    if (e->record->ttl_ms == 0 ||
        now_ms < (int64_t)e->record->stored_ms + (int64_t)e->record->ttl_ms)
        return false;
    wb__record_drop(m, e);
    return true;
}

void
wb__memory_clean(struct wb__memory *m, int64_t now_ms, int effort)
{
    struct wb__table *t = &m->table;
    int claims = effort * CLEAN_CLAIMS, entries = effort * CLEAN_ENTRIES;
    struct wb__heap_node *first;

    while (claims-- > 0 && (first = wb__heap_first(&m->claims)) != NULL &&
           first->key <= now_ms)
        (void)claim_expire_if_due(
            m, (struct wb__memory_claim *)first, now_ms); /* first member */
    while (entries-- > 0 && effort > 0 && t->cap > 0) {
        struct wb__entry *e;

        m->scan_at = m->scan_at + 1 < t->cap ? m->scan_at + 1 : 0;
        e = &t->slab[m->scan_at];
        if (e->kind != WB__RECORD)
            continue;
        effort--;
        if (wb__expire_if_due(m, e, now_ms))
            effort += CLEAN_BONUS;
    }
    wb__table_shrink(t);
}
