/* memory.c - the idempotency store in the memory of one process.
 *
 * (1) Every call decides and acts while it holds the store's lock; a call that
 *     waits for another's claim releases the lock meanwhile.
 * (2) All memory that a call needs is allocated before its first change.
 * (3) A claim that has expired counts as none, whether or not it was removed
 *     yet.
 * (4) A record keeps half of its claim's token, to recognise a completion that
 *     is repeated. A wrong match is harmless: it changes nothing. */
#include "idem/memory.h"

enum {
    WRITE_EFFORT = 2, /* for wb__memory_clean() */
    LIMIT_EFFORT = 32,
    DAY_MS = 86400000
};

/* ---- locked lookup ----------------------------------------------------- */

/* A call with its entry, in a store that is locked. */
struct lookup {
    struct wb__memory *m;
    const struct wb__idem_call *call;
    struct wb__entry *e; /* NULL: none */
    int64_t now_ms;
    uint32_t hash;
    struct wb__key key;
};

static int64_t
now_ms(const struct wb__memory *m)
{
    const struct wb_env *env = m->base.env;
    int64_t ms = env->coarse_ms != NULL ? env->coarse_ms(env->ctx)
                                        : env->mono_us(env->ctx) / 1000;

    return ms - m->opened_ms;
}

/* At the start, and again after the lock was released. */
static void
find(struct lookup *l)
{
    l->now_ms = now_ms(l->m);
    l->e = wb__table_find(&l->m->table, l->hash, &l->key);
}

/* The entry, removed first if it has expired; NULL if there is none. A read
 * leaves a lapsed claim to its holder. */
static struct wb__entry *
live_entry(struct lookup *l)
{
    enum wb__idem_verb verb = l->call->verb;

    if (l->e != NULL && wb__expire_if_due(l->m, l->e, l->now_ms))
        l->e = NULL;
    if (l->e == NULL || !wb__is_lapsed(l->e))
        return l->e;
    if (verb == WB__IDEM_BEGIN || verb == WB__IDEM_STORE ||
        verb == WB__IDEM_FORGET) {
        wb__claim_end(l->m, l->e->claim, NULL);
        l->e = NULL;
    }
    return NULL;
}

/* ---- begin ------------------------------------------------------------- */

/* Needs a free entry. NULL: out of memory. */
static struct wb__memory_claim *
add_claim(struct lookup *l)
{
    struct wb__memory *m = l->m;
    const struct wb_idem_begin *how = &l->call->how;
    const struct wb_env *env = m->base.env;
    struct wb__memory_claim *claim = env->resize(
        env->ctx, NULL, offsetof(struct wb__memory_claim, bytes) + l->key.len);

    if (claim == NULL)
        return NULL;
    *claim = (struct wb__memory_claim){
        .ends = {.key = wb__sat_add(l->now_ms, how->lease_ms)},
        .state = how->sending ? WB_IDEM_SENDING : WB_IDEM_CLAIMED,
        .since_ms = l->now_ms,
        .fingerprint = *l->call->fingerprint};
    memcpy(claim->bytes, l->key.bytes, l->key.len);
    if (!wb__heap_push(&m->claims, &claim->ends)) {
        wb__free(env, claim);
        return NULL;
    }
    do { /* a keyed hash of a counter is random for all who lack the key */
        m->n_tokens++;
        claim->token =
            wb__siphash(m->token_seed, &m->n_tokens, sizeof(m->n_tokens));
    } while (claim->token == 0);
    l->e = wb__table_add_claim(&m->table, l->hash, claim);
    return claim;
}

/* FULL: a limit of the identity is reached. */
static enum wb_status
acquire_once(struct lookup *l)
{
    const struct wb_idem_opts *opts = &l->m->base.opts;
    struct wb_slice identity = l->call->op->identity;
    const struct wb__memory_claim *claim;
    struct wb__account *a;

    if (!wb__account_open(l->m, identity, 1, &a))
        return WB_NOMEM;
    if (a != NULL &&
        ((opts->identity_claims > 0 && a->claims >= opts->identity_claims) ||
            (opts->identity_bytes > 0 && a->bytes >= opts->identity_bytes)))
        return WB_FULL;
    claim = add_claim(l);
    if (claim == NULL) {
        wb__account_add(l->m, identity, 0, 0); /* a new one is removed */
        return WB_NOMEM;
    }
    if (a != NULL)
        a->claims++;
    l->call->result->answer = WB_IDEM_ACQUIRED;
    l->call->result->token = claim->token;
    return WB_OK;
}

static enum wb_status
acquire(struct lookup *l, struct wb_err *err)
{
    enum wb_status rc = wb__idem_op_check(l->call->op, err);

    if (rc != WB_OK)
        return rc;
    l->call->result->answer = WB_IDEM_LIMIT;
    wb__memory_clean(l->m, l->now_ms, WRITE_EFFORT);
    rc = acquire_once(l);
    if (rc == WB_FULL) { /* expired entries may count, too */
        wb__memory_clean(l->m, l->now_ms, LIMIT_EFFORT);
        rc = acquire_once(l);
    }
    if (rc == WB_NOMEM)
        return wb__nomem(err, "a claim");
    return WB_OK;
}

/* Sleep until the claim ends, its outcome is unknown, or until_ms; then find
 * the entry again. May return early. False, without sleep: it is until_ms, or
 * too many wait. The waiter is on this stack, but in the list of the claim only
 * while the claim exists: its waiters are woken and unlinked before it is
 * freed. */
static bool
wait_for(struct lookup *l, struct wb__memory_claim *claim, int64_t until_ms)
{
    const struct wb_env *env = l->m->base.env;
    struct wb__waiter w = {.next = claim->waiters, .link = &claim->waiters};
    int64_t ms =
        (claim->ends.key < until_ms ? claim->ends.key : until_ms) - l->now_ms;

    if (until_ms <= l->now_ms ||
        claim->n_waiters >= l->m->base.opts.max_waiters)
        return false;
    if (ms > DAY_MS)
        ms = DAY_MS;
    wb__cond_init(&w.wake);
    if (w.next != NULL)
        w.next->link = &w.next;
    claim->waiters = &w;
    claim->n_waiters++;
    if (env->sleep_us == NULL) {
        wb__cond_wait_us(&w.wake, &l->m->lock, ms * 1000);
    } else { /* a test's clock does not signal the condition: poll */
        wb__mutex_unlock(&l->m->lock);
        env->sleep_us(env->ctx,
            ms * 1000 < WB__IDEM_POLL_US ? ms * 1000 : WB__IDEM_POLL_US);
        wb__mutex_lock(&l->m->lock);
    }
    if (!w.woken) {
        *w.link = w.next;
        if (w.next != NULL)
            w.next->link = w.link;
        claim->n_waiters--;
    }
    wb__cond_fini(&w.wake);
    find(l);
    return true;
}

static enum wb_status
replay(struct lookup *l, struct wb_err *err)
{
    struct wb_idem_record record = wb__record_get(l->m, l->e->record);

    if (!wb__idem_copy_record(l->call->result, l->m->base.env, &record))
        return wb__nomem(err, "a record");
    wb__table_touch(&l->m->table, l->e);
    return WB_OK;
}

static enum wb_status
begin(struct lookup *l, struct wb_err *err)
{
    int64_t wait_ms = l->call->how.wait_ms;
    int64_t until_ms = wb__sat_add(l->now_ms, wait_ms);
    enum wb_idem_answer *answer = &l->call->result->answer;
    const struct wb__entry *e;

    do {
        e = live_entry(l);
        if (e == NULL)
            return acquire(l, err);
        *answer = WB_IDEM_MISMATCH;
        if (!wb__fingerprint_eq(l->call->fingerprint,
                e->kind == WB__CLAIM ? &e->claim->fingerprint
                                     : &e->record->fingerprint))
            return WB_OK;
        if (e->kind == WB__RECORD)
            return replay(l, err);
        *answer = WB_IDEM_UNKNOWN;
        if (e->claim->state == WB_IDEM_DOUBTFUL)
            return WB_OK;
    } while (wait_for(l, e->claim, until_ms));
    *answer = wait_ms > 0 ? WB_IDEM_HELD : WB_IDEM_IN_FLIGHT;
    return WB_OK;
}

/* ---- the end of a claim ------------------------------------------------ */

/* The claim becomes the record of the call. */
static enum wb_status
complete_claim(
    struct lookup *l, struct wb__memory_claim *claim, struct wb_err *err)
{
    struct wb__memory_record *r;
    enum wb_status rc =
        wb__record_new(l->m, &l->key, &l->call->record, l->now_ms, &r, err);

    if (rc != WB_OK)
        return rc;
    wb__claim_end(l->m, claim, r);
    wb__memory_evict(l->m);
    return WB_OK;
}

/* Has this token completed the entry with the same record before? */
static bool
is_repeat(const struct lookup *l)
{
    const struct wb_idem_record *record = &l->call->record;
    struct wb_idem_record old;

    if (l->call->verb != WB__IDEM_COMPLETE || l->e == NULL ||
        l->e->kind != WB__RECORD)
        return false;
    old = wb__record_get(l->m, l->e->record);
    return l->e->record->token == (uint32_t)l->call->token &&
           old.status == record->status &&
           old.ttl_ms == wb__record_ttl_ms(record) &&
           wb__eq(old.headers, record->headers) &&
           wb__eq(old.body, record->body);
}

/* A call that presents a token. */
static enum wb_status
use_claim(struct lookup *l, struct wb_err *err)
{
    const struct wb__idem_call *c = l->call;
    struct wb__memory_claim *claim =
        l->e != NULL && l->e->kind == WB__CLAIM ? l->e->claim : NULL;

    /* Is the token wrong or used? A late one is good. */
    if (claim == NULL || claim->token != c->token ||
        (claim->state == WB_IDEM_DOUBTFUL && !claim->lapsed)) {
        bool is_gone = c->verb == WB__IDEM_RELEASE && l->e == NULL;

        return is_gone || is_repeat(l) ? WB_OK : WB_FENCED;
    }
    if (!wb__claim_revive(l->m, claim, l->now_ms))
        return wb__nomem(err, "a claim");
    if (c->verb == WB__IDEM_COMPLETE)
        return complete_claim(l, claim, err);
    if (c->verb == WB__IDEM_RELEASE)
        wb__claim_end(l->m, claim, NULL);
    else if (c->verb == WB__IDEM_EXTEND)
        wb__heap_move(&l->m->claims, &claim->ends,
            wb__sat_add(l->now_ms, c->how.lease_ms));
    else if (c->verb == WB__IDEM_SENDING)
        claim->state = WB_IDEM_SENDING;
    else
        wb__claim_hold(l->m, claim, l->now_ms);
    return WB_OK;
}

static enum wb_status
settle(struct lookup *l, struct wb_err *err)
{
    const struct wb__entry *e = live_entry(l);

    if (e == NULL || e->kind != WB__CLAIM ||
        e->claim->state != WB_IDEM_DOUBTFUL)
        return WB_NOTFOUND;
    if (l->call->verb == WB__IDEM_SETTLE)
        return complete_claim(l, e->claim, err);
    wb__claim_end(l->m, e->claim, NULL);
    return WB_OK;
}

static enum wb_status
store_record(struct lookup *l, struct wb_err *err)
{
    struct wb__memory *m = l->m;
    struct wb__entry *e = live_entry(l);
    struct wb__memory_record *r;
    struct wb__account *unused;
    enum wb_status rc;

    if (e != NULL && e->kind == WB__CLAIM)
        return wb__idem_taken(l->call->op, err);
    rc = wb__record_new(m, &l->key, &l->call->record, l->now_ms, &r, err);
    if (rc != WB_OK)
        return rc;
    if (!wb__account_open(m, l->call->op->identity, 1, &unused)) {
        wb__free(m->base.env, r);
        return wb__nomem(err, "a record");
    }
    l->e = wb__table_find(&m->table, l->hash, &l->key); /* it may have moved */
    wb__record_count(m, r, 1);
    if (l->e != NULL)
        wb__record_drop(m, l->e);
    l->e = wb__table_add_record(&m->table, l->hash, r);
    wb__memory_evict(m);
    return WB_OK;
}

/* ---- items ------------------------------------------------------------- */

static struct wb_idem_item
item_of(const struct wb__memory *m, const struct wb__entry *e)
{
    const struct wb__memory_claim *claim = e->claim;
    struct wb_idem_record r;

    if (e->kind == WB__CLAIM)
        return (struct wb_idem_item){.op = wb__key_op(claim->bytes),
            .state = claim->state,
            .fingerprint = claim->fingerprint,
            .ends_ms = wb__sat_add(m->opened_wall_ms, claim->ends.key),
            .since_ms = m->opened_wall_ms + claim->since_ms};
    r = wb__record_get(m, e->record);
    return (struct wb_idem_item){.op = wb__key_op(e->record->bytes),
        .state = WB_IDEM_DONE,
        .fingerprint = r.fingerprint,
        .ends_ms = r.ttl_ms == 0 ? 0 : r.stored_ms + r.ttl_ms,
        .since_ms = r.stored_ms,
        .status = r.status,
        .bytes = r.headers.len + r.body.len};
}

static enum wb_status
peek(struct lookup *l)
{
    if (live_entry(l) == NULL)
        return WB_NOTFOUND;
    *l->call->item = item_of(l->m, l->e);
    l->call->item->op = (struct wb_idem_op){0};
    return WB_OK;
}

/* Remove expired entries and count them in *n; call fn (may be NULL) for every
 * other one. Holds the lock all the time: an entry moves when the table grows
 * or shrinks. */
static enum wb_status
walk(struct wb__memory *m,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    uint64_t *n)
{
    enum wb_status rc = WB_OK;
    struct wb_idem_item item;
    int64_t now;

    *n = 0;
    wb__mutex_lock(&m->lock);
    now = now_ms(m);
    for (uint32_t at = 0; at < m->table.cap && rc == WB_OK; at++) {
        struct wb__entry *e = &m->table.slab[at];

        if (e->kind == WB__FREE || e->kind == WB__ACCOUNT)
            continue;
        if (wb__expire_if_due(m, e, now)) {
            ++*n;
        } else if (fn != NULL && !wb__is_lapsed(e)) {
            item = item_of(m, e);
            rc = fn(ctx, &item);
        }
    }
    wb__table_shrink(&m->table);
    wb__mutex_unlock(&m->lock);
    return rc;
}

static enum wb_status
memory_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err)
{
    uint64_t n;

    (void)err;
    return walk((struct wb__memory *)store, fn, ctx, &n);
}

static enum wb_status
memory_reap(struct wb_idem *store, uint64_t *n, struct wb_err *err)
{
    (void)err;
    return walk((struct wb__memory *)store, NULL, NULL, n);
}

/* ---- calls ------------------------------------------------------------- */

static enum wb_status
make_locked(struct lookup *l, struct wb_err *err)
{
    enum wb_status rc;

    switch (l->call->verb) {
    case WB__IDEM_BEGIN:
        return begin(l, err);
    case WB__IDEM_COMPLETE:
    case WB__IDEM_RELEASE:
    case WB__IDEM_EXTEND:
    case WB__IDEM_SENDING:
    case WB__IDEM_UNKNOWN:
        return use_claim(l, err);
    case WB__IDEM_SETTLE:
    case WB__IDEM_SETTLE_FREE:
        return settle(l, err);
    case WB__IDEM_LOOKUP:
        if (live_entry(l) == NULL || l->e->kind != WB__RECORD)
            return WB_EMPTY;
        return replay(l, err);
    case WB__IDEM_STORE:
        return store_record(l, err);
    case WB__IDEM_PEEK:
        return peek(l);
    case WB__IDEM_FORGET:
        rc = peek(l);
        if (rc == WB_OK && l->e->kind == WB__CLAIM)
            wb__claim_end(l->m, l->e->claim, NULL);
        else if (rc == WB_OK)
            wb__record_drop(l->m, l->e);
        return rc;
    }
    WB_ASSERT(!"a verb");
    return WB_INVALID;
}

static enum wb_status
memory_call(struct wb_idem *store, struct wb__idem_call *c, struct wb_err *err)
{
    bool reads = c->verb == WB__IDEM_LOOKUP || c->verb == WB__IDEM_PEEK;
    struct lookup l;
    enum wb_status rc;

    l.m = (struct wb__memory *)store;
    l.call = c;
    wb__key_make(&l.key, c->op);
    l.hash = wb__memory_hash(l.m, &l.key);
    wb__mutex_lock_spin(&l.m->lock);
    find(&l);
    rc = make_locked(&l, err);
    if (!reads && c->verb != WB__IDEM_BEGIN) /* see acquire() */
        wb__memory_clean(l.m, l.now_ms, WRITE_EFFORT);
    wb__mutex_unlock(&l.m->lock);
    return rc;
}

/* ---- open and close ---------------------------------------------------- */

static void
memory_close(struct wb_idem *store)
{
    struct wb__memory *m = (struct wb__memory *)store;

    wb__lease_renewer_fini(&store->renewer);
    for (uint32_t at = 0; at < m->table.cap; at++) {
        const struct wb__entry *e = &m->table.slab[at];

        wb__free(store->env, e->kind == WB__FREE     ? NULL
                             : e->kind == WB__CLAIM  ? (void *)e->claim
                             : e->kind == WB__RECORD ? (void *)e->record
                                                     : (void *)e->account);
    }
    wb__table_fini(&m->table);
    wb__heap_fini(&m->claims);
    wb__mutex_fini(&m->lock);
    wb__free(store->env, m);
}

enum wb_status
wb_idem_open_memory(
    struct wb_idem **out, const struct wb_idem_opts *opts, struct wb_err *err)
{
    static const struct wb__idem_backend backend = {
        .close = memory_close,
        .call = memory_call,
        .list = memory_list,
        .reap = memory_reap,
    };
    const struct wb_env *env =
        opts == NULL || opts->env == NULL ? wb_env_system() : opts->env;
    struct wb__memory *m = wb__alloc(env, sizeof(*m));

    if (m == NULL)
        return wb__nomem(err, "a store");
    wb__idem_init(&m->base, &backend, opts);
    wb__lease_renewer_init(&m->base.renewer);
    env->random(env->ctx, m->seed, sizeof(m->seed));
    env->random(env->ctx, m->token_seed, sizeof(m->token_seed));
    m->opened_ms = now_ms(m);
    m->opened_wall_ms = env->wall_ms(env->ctx);
    wb__mutex_init(&m->lock);
    wb__table_init(&m->table, env);
    m->claims.env = env;
    *out = &m->base;
    return WB_OK;
}
