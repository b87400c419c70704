/* memory.c - the store in the memory of one process.
 *
 * (1) Every call decides and acts under the lock of one shard.
 * (2) Whatever needs memory gets it before the first change.
 * (3) A claim is on no list of use: it is never dropped for room.
 * (4) A claim whose time is over is as good as none, whether or not somebody
 *     has taken it away; only its late holder can tell.
 * (5) A record remembers half of its claim's token, to know a completion that
 *     is repeated. A stranger who guesses it, and the record, changes nothing.
 */
#include "idem/memory.h"

/* ---- begin ------------------------------------------------------------- */

static uint64_t
new_token(struct wb__visit *v)
{
    struct wb__shard *s = v->s;
    const struct wb_env *env = v->m->face.env;

    do {
        if (s->n_tokens == 0) {
            env->random(env->ctx, s->token, sizeof(s->token));
            s->n_tokens = WB__TOKENS;
        }
    } while (s->token[--s->n_tokens] == 0);
    return s->token[s->n_tokens];
}

static struct wb__claim *
claim_new(struct wb__visit *v, const struct wb_fingerprint *fingerprint,
    const struct wb_idem_begin *how)
{
    const struct wb_env *env = v->m->face.env;
    struct wb__claim *claim = env->resize(
        env->ctx, NULL, offsetof(struct wb__claim, bytes) + v->key.len);

    if (claim == NULL)
        return NULL;
    *claim = (struct wb__claim){
        .ends = {.key = wb__sat_add(v->now_ms, how->lease_ms)},
        .state = how->sending ? WB_IDEM_SENDING : WB_IDEM_CLAIMED,
        .since_ms = v->now_ms,
        .fingerprint = *fingerprint};
    memcpy(claim->bytes, v->key.bytes, v->key.len);
    if (wb__table_reserve(&v->s->table) &&
        wb__heap_push(&v->s->table.claims, &claim->ends)) {
        claim->token = new_token(v);
        claim->at = wb__table_add(&v->s->table, v->hash, claim);
        return claim;
    }
    wb__free(env, claim);
    return NULL;
}

static enum wb_status
acquire(struct wb__visit *v, const struct wb_fingerprint *fingerprint,
    const struct wb_idem_begin *how, struct wb_idem_result *result,
    struct wb_err *err)
{
    const struct wb__claim *claim;
    enum wb_status rc = wb__idem_op_check(v->op, err);

    if (rc == WB_OK)
        rc = wb__quota_claim(&v->m->quota, v->op->identity);
    result->answer = WB_IDEM_LIMIT;
    if (rc != WB_OK)
        return rc == WB_FULL    ? WB_OK
               : rc == WB_NOMEM ? wb__nomem(err, "a claim")
                                : rc;
    claim = claim_new(v, fingerprint, how);
    if (claim == NULL) {
        wb__quota_add(&v->m->quota, v->op->identity, -1, 0);
        return wb__nomem(err, "a claim");
    }
    result->answer = WB_IDEM_ACQUIRED;
    result->token = claim->token;
    return WB_OK;
}

enum {
    DAY_MS = 86400000 /* whoever waits longer looks at the clock in between */
};

/* Where the clock is moved by hand nobody is signalled by it: poll. */
static void
sleep_some(struct wb__visit *v, struct wb__waiter *w, int64_t us)
{
    const struct wb_env *env = v->m->face.env;

    if (env->sleep_us == NULL) {
        wb__cond_wait_us(&w->wake, &v->s->lock, us);
        return;
    }
    wb__mutex_unlock(&v->s->lock);
    env->sleep_us(env->ctx, us < WB__IDEM_POLL_US ? us : WB__IDEM_POLL_US);
    wb__mutex_lock(&v->s->lock);
}

/* Until the claim has changed or is over, or the time is. False: at once. */
static bool
wait_for(struct wb__visit *v, struct wb__claim *claim, int64_t until_ms)
{
    struct wb__waiter w = {.next = claim->waiters, .link = &claim->waiters};
    int64_t ends_ms = claim->ends.key < until_ms ? claim->ends.key : until_ms;

    if (until_ms <= v->now_ms ||
        claim->n_waiters >= v->m->face.opts.max_waiters)
        return false;
    wb__cond_init(&w.wake);
    if (w.next != NULL)
        w.next->link = &w.next;
    claim->waiters = &w;
    claim->n_waiters++;
    ends_ms -= v->now_ms;
    sleep_some(v, &w, (ends_ms < DAY_MS ? ends_ms : DAY_MS) * 1000);
    if (!w.woken) { /* else the claim is gone, or has let go of all */
        *w.link = w.next;
        if (w.next != NULL)
            w.next->link = w.link;
        claim->n_waiters--;
    }
    wb__cond_fini(&w.wake);
    v->now_ms = wb__memory_now(v->m);
    wb__visit_find(v);
    return true;
}

static enum wb_status
replay(struct wb__visit *v, const struct wb__kept *kept,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb_idem_record record = wb__kept_record(v->m, kept);

    if (!wb__idem_copy_record(result, v->m->face.env, &record))
        return wb__nomem(err, "a record");
    wb__record_used(v->m, v->s, v->at);
    return WB_OK;
}

static enum wb_status
begin_visited(struct wb__visit *v, const struct wb_fingerprint *fingerprint,
    const struct wb_idem_begin *how, struct wb_idem_result *result,
    struct wb_err *err)
{
    int64_t until_ms = wb__sat_add(v->now_ms, how->wait_ms);
    const struct wb_fingerprint *known;
    struct wb__claim *claim;
    bool is_claim = false;
    void *what;

    do {
        what = wb__visit_standing(v, &is_claim);
        if (what == NULL)
            return acquire(v, fingerprint, how, result, err);
        claim = what;
        known = is_claim ? &claim->fingerprint
                         : &((const struct wb__kept *)what)->fingerprint;
        result->answer = WB_IDEM_MISMATCH;
        if (!wb__fingerprint_eq(known, fingerprint))
            return WB_OK;
        if (!is_claim)
            return replay(v, what, result, err);
        result->answer = WB_IDEM_UNKNOWN;
        if (claim->state == WB_IDEM_DOUBTFUL)
            return WB_OK;
    } while (wait_for(v, claim, until_ms));
    result->answer = how->wait_ms > 0 ? WB_IDEM_HELD : WB_IDEM_IN_FLIGHT;
    return WB_OK;
}

static void
tidy_all(struct wb__memory *m)
{
    for (int i = 0; i < WB__SHARDS; i++) {
        wb__mutex_lock(&m->shard[i].lock);
        wb__shard_tidy(m, &m->shard[i], wb__memory_now(m));
        wb__mutex_unlock(&m->shard[i].lock);
    }
}

static enum wb_status
memory_begin(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_fingerprint *fingerprint, const struct wb_idem_begin *begin,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb__visit v;
    enum wb_status rc;

    wb__visit_begin(&v, store, op);
    rc = begin_visited(&v, fingerprint, begin, result, err);
    if (rc == WB_OK && result->answer == WB_IDEM_LIMIT) {
        /* What counts against it may have ended without anybody noticing. */
        wb__mutex_unlock(&v.s->lock);
        tidy_all(v.m);
        wb__visit_begin(&v, store, op);
        rc = begin_visited(&v, fingerprint, begin, result, err);
    }
    if (rc == WB_OK && result->answer == WB_IDEM_ACQUIRED)
        wb__shard_tidy(v.m, v.s, v.now_ms);
    wb__mutex_unlock(&v.s->lock);
    return rc;
}

/* ---- the end of a claim ------------------------------------------------ */

static bool
is_repeat(const struct wb__visit *v, uint64_t token,
    const struct wb_idem_record *record)
{
    const struct wb__kept *kept = v->s->table.slab[v->at].what;
    struct wb_idem_record old = wb__kept_record(v->m, kept);

    return kept->token == (uint32_t)token && old.status == record->status &&
           old.ttl_ms == wb__ttl_of(record) &&
           wb__eq(old.headers, record->headers) &&
           wb__eq(old.body, record->body);
}

static enum wb_status
complete_visited(struct wb__visit *v, uint64_t token,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__claim *claim = wb__visit_claim(v, token);
    struct wb__kept *kept = NULL;
    enum wb_status rc;

    if (claim == NULL) {
        if (v->at != WB__NONE && !wb__is_claim(&v->s->table.slab[v->at]) &&
            is_repeat(v, token, record))
            return WB_OK;
        return WB_FENCED;
    }
    rc = wb__kept_new(v, record, token, &claim->fingerprint, &kept, err);
    if (rc == WB_OK)
        wb__claim_end(v->m, v->s, claim, kept);
    return rc;
}

static enum wb_status
memory_complete(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__visit v;
    enum wb_status rc;

    wb__visit_begin(&v, store, op);
    rc = complete_visited(&v, token, record, err);
    wb__visit_end(&v);
    return rc;
}

static enum wb_status
memory_release(
    struct wb_idem *store, const struct wb_idem_op *op, uint64_t token)
{
    struct wb__visit v;
    struct wb__claim *claim;
    enum wb_status rc = WB_OK;

    wb__visit_begin(&v, store, op);
    claim = wb__visit_claim(&v, token);
    if (claim != NULL)
        wb__claim_end(v.m, v.s, claim, NULL);
    else if (v.at != WB__NONE)
        rc = WB_FENCED;
    wb__visit_end(&v);
    return rc;
}

static enum wb_status
memory_extend(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, int64_t lease_ms)
{
    struct wb__visit v;
    struct wb__claim *claim;

    wb__visit_begin(&v, store, op);
    claim = wb__visit_claim(&v, token);
    if (claim != NULL)
        wb__heap_move(
            &v.s->table.claims, &claim->ends, wb__sat_add(v.now_ms, lease_ms));
    wb__visit_end(&v);
    return claim != NULL ? WB_OK : WB_FENCED;
}

static enum wb_status
memory_mark(struct wb_idem *store, const struct wb_idem_op *op, uint64_t token,
    enum wb_idem_state state)
{
    struct wb__visit v;
    struct wb__claim *claim;

    wb__visit_begin(&v, store, op);
    claim = wb__visit_claim(&v, token);
    if (claim != NULL)
        wb__claim_mark(v.m, v.s, claim, state, v.now_ms);
    wb__visit_end(&v);
    return claim != NULL ? WB_OK : WB_FENCED;
}

/* ---- open and close ---------------------------------------------------- */

static void
drop_all(struct wb__memory *m, struct wb__table *t)
{
    for (uint32_t at = 0; at < t->cap; at++)
        wb__free(m->face.env, t->slab[at].what);
    wb__table_fini(t);
}

static void
memory_close(struct wb_idem *store)
{
    struct wb__memory *m = (struct wb__memory *)store;

    wb__idem_fini(store);
    for (int i = 0; i < WB__SHARDS; i++) {
        drop_all(m, &m->shard[i].table);
        wb__mutex_fini(&m->shard[i].lock);
    }
    wb__mutex_fini(&m->evicting);
    wb__quota_fini(&m->quota);
    wb__free(store->env, m->block);
}

static enum wb_status
memory_call(struct wb_idem *store, struct wb__idem_call *c, struct wb_err *err)
{
    switch (c->verb) {
    case WB__IDEM_BEGIN:
        return memory_begin(
            store, c->op, c->fingerprint, &c->how, c->result, err);
    case WB__IDEM_COMPLETE:
        return memory_complete(store, c->op, c->token, &c->record, err);
    case WB__IDEM_RELEASE:
        return memory_release(store, c->op, c->token);
    case WB__IDEM_EXTEND:
        return memory_extend(store, c->op, c->token, c->how.lease_ms);
    case WB__IDEM_SENDING:
        return memory_mark(store, c->op, c->token, WB_IDEM_SENDING);
    case WB__IDEM_UNKNOWN:
        return memory_mark(store, c->op, c->token, WB_IDEM_DOUBTFUL);
    case WB__IDEM_SETTLE:
        return wb__memory_settle(store, c->op, &c->record, err);
    case WB__IDEM_SETTLE_FREE:
        return wb__memory_settle(store, c->op, NULL, err);
    case WB__IDEM_LOOKUP:
        return wb__memory_lookup(store, c->op, c->result, err);
    case WB__IDEM_STORE:
        return wb__memory_store(store, c->op, &c->record, err);
    case WB__IDEM_PEEK:
        return wb__memory_peek(store, c->op, c->item, err);
    case WB__IDEM_FORGET:
        return wb__memory_forget(store, c->op, c->item, err);
    }
    WB_ASSERT(!"a verb");
    return WB_INVALID;
}

static const struct wb__idem_backend memory_backend = {
    .close = memory_close,
    .call = memory_call,
    .list = wb__memory_list,
    .reap = wb__memory_reap,
};

/* An allocator need not know of cache lines. */
static struct wb__memory *
memory_alloc(const struct wb_env *env)
{
    const size_t line = _Alignof(struct wb__memory);
    char *block = wb__alloc(env, sizeof(struct wb__memory) + line);
    struct wb__memory *m;

    if (block == NULL)
        return NULL;
    m = (struct wb__memory *)(((uintptr_t)block + line - 1) / line * line);
    m->block = block;
    return m;
}

enum wb_status
wb_idem_open_memory(
    struct wb_idem **out, const struct wb_idem_opts *opts, struct wb_err *err)
{
    const struct wb_env *env =
        opts == NULL || opts->env == NULL ? wb_env_system() : opts->env;
    struct wb__memory *m = memory_alloc(env);

    if (m == NULL)
        return wb__nomem(err, "a store");
    wb__idem_init(&m->face, &memory_backend, opts);
    env->random(env->ctx, m->seed, sizeof(m->seed));
    m->opened_ms = wb__memory_now(m);
    m->opened_wall_ms = env->wall_ms(env->ctx);
    wb__mutex_init(&m->evicting);
    for (int i = 0; i < WB__SHARDS; i++) {
        wb__mutex_init(&m->shard[i].lock);
        wb__table_init(&m->shard[i].table, env);
    }
    if (!wb__quota_init(&m->quota, &m->face)) {
        memory_close(&m->face);
        return wb__nomem(err, "a store");
    }
    *out = &m->face;
    return WB_OK;
}
