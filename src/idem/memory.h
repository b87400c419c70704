/* memory.h - the parts of the memory backend.
 *
 * Operations are spread over shards by a keyed hash. A shard is one lock over
 * one table: an index of 32-bit slots into a slab of entries, each of which
 * is free, a claim or a record that was kept. */
#ifndef WB_SRC_IDEM_MEMORY_H
#define WB_SRC_IDEM_MEMORY_H

#include <stdatomic.h>

#include "base/heap.h"
#include "idem/idem.h"

/* ---- operations -------------------------------------------------------- */

/* An operation as bytes, its parts behind their lengths: one length for the
 * identity, one for the key, two for the scope, then the three. */
enum {
    WB__FRAME = 4
};
struct wb__key {
    size_t len;
    char bytes[WB__FRAME + WB__IDEM_IDENTITY_MAX + WB__IDEM_SCOPE_MAX +
               WB__IDEM_KEY_MAX];
};
static inline size_t
wb__append(char *at, struct wb_slice s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return s.len;
}

static inline void
wb__key_make(struct wb__key *key, const struct wb_idem_op *op)
{
    size_t n = WB__FRAME;

    key->bytes[0] = (char)op->identity.len;
    key->bytes[1] = (char)op->key.len;
    key->bytes[2] = (char)(op->scope.len & 0xff);
    key->bytes[3] = (char)(op->scope.len >> 8);
    n += wb__append(key->bytes + n, op->identity);
    n += wb__append(key->bytes + n, op->scope);
    n += wb__append(key->bytes + n, op->key);
    key->len = n;
}

/* Slices into the bytes. */
static inline struct wb_idem_op
wb__key_op(const char *framed)
{
    const unsigned char *len = (const unsigned char *)framed;
    struct wb_idem_op op;

    op.identity = (struct wb_slice){framed + WB__FRAME, len[0]};
    op.scope = (struct wb_slice){
        op.identity.ptr + op.identity.len, len[2] | (size_t)len[3] << 8};
    op.key = (struct wb_slice){op.scope.ptr + op.scope.len, len[1]};
    return op;
}

static inline size_t
wb__key_len(const char *framed)
{
    const unsigned char *len = (const unsigned char *)framed;

    return WB__FRAME + len[0] + len[1] + (len[2] | (size_t)len[3] << 8);
}

/* ---- what an entry is -------------------------------------------------- */

/* Milliseconds since the store was opened, by the monotonic clock. */
struct wb__kept {
    struct wb_fingerprint fingerprint;
    uint64_t stored_ms : 48, status : 16;
    uint64_t ttl_ms : 48 /* 0: for ever */, headers_len : 16;
    uint32_t body_len;
    uint32_t token; /* half of it: see memory.c (5) */
    char bytes[];   /* framed operation, headers, body */
};

struct wb__waiter {
    struct wb__cond wake;
    bool woken;
    struct wb__waiter *next, **link;
};

struct wb__claim {
    struct wb__heap_node ends; /* of the lease, or of the hold if DOUBTFUL */
    enum wb_idem_state state;
    uint32_t at; /* its entry */
    int64_t since_ms;
    uint64_t token;
    struct wb_fingerprint fingerprint;
    struct wb__waiter *waiters;
    int64_t n_waiters;
    char bytes[]; /* framed operation */
};

/* ---- table.c ----------------------------------------------------------- */

#define WB__NONE  UINT32_MAX
#define WB__CLAIM (UINT32_MAX - 1)

struct wb__entry {
    void *what;          /* NULL: free, and next is the next free one */
    uint32_t hash;       /* lower half */
    uint32_t prev, next; /* by use; prev is WB__CLAIM where what is a claim */
    uint32_t stamp;      /* of the last use */
};

struct wb__table {
    const struct wb_env *env;
    struct wb__entry *slab;
    uint32_t *slot; /* index into slab + 1; 0: empty */
    uint32_t cap, used, free, mask;
    uint32_t newest, oldest;
    uint32_t hand; /* where the search for expired records goes on */
    struct wb__heap claims;
    /* For who looks without the lock: the stamp of oldest with bit 32 set; 0
     * if there is no record. */
    _Atomic uint64_t oldest_stamp;
};
void wb__table_init(struct wb__table *t, const struct wb_env *env);
void wb__table_fini(struct wb__table *t); /* what was in it is the caller's */
uint32_t wb__table_find(
    const struct wb__table *t, uint32_t hash, const char *key, size_t len);
/* Room for one entry more. Moves entries: indexes change. */
WB_MUST_USE bool wb__table_reserve(struct wb__table *t);
/* Give back what is not needed any more. Moves entries. */
void wb__table_shrink(struct wb__table *t);
/* Needs reserved room. The entry is a claim until it is used. */
uint32_t wb__table_add(struct wb__table *t, uint32_t hash, void *what);
void wb__table_remove(struct wb__table *t, uint32_t at);
/* The entry is a record, just now used. */
void wb__table_use(struct wb__table *t, uint32_t at, uint32_t stamp);

/* What was last used longer ago than max was last used max ago. */
void wb__table_cap_ages(struct wb__table *t, uint32_t now, uint32_t max);

static inline bool
wb__is_claim(const struct wb__entry *e)
{
    return e->prev == WB__CLAIM;
}

/* ---- quota.c: what each identity has ----------------------------------- */

struct wb__account;
struct wb__quota {
    const struct wb_env *env;
    int64_t max_claims, max_bytes; /* 0: no limit */
    uint64_t seed[2];
    struct wb__mutex lock;
    struct wb__account **bucket;
    size_t n, mask;
};
WB_MUST_USE bool wb__quota_init(
    struct wb__quota *q, const struct wb_idem *store);
void wb__quota_fini(struct wb__quota *q);
/* One claim more. FULL: not for this identity. NOMEM. */
WB_MUST_USE enum wb_status wb__quota_claim(
    struct wb__quota *q, struct wb_slice identity);
/* A store without a claim: make sure that bytes can be counted. */
WB_MUST_USE enum wb_status wb__quota_open(
    struct wb__quota *q, struct wb_slice identity);
/* More or less of what was opened before. */
void wb__quota_add(
    struct wb__quota *q, struct wb_slice identity, int claims, int64_t bytes);

/* ---- shard.c ----------------------------------------------------------- */

enum {
    WB__SHARDS = 16,
    WB__TOKENS = 32
};
struct wb__shard {
    struct wb__mutex lock;
    struct wb__table table;
    _Alignas(64) atomic_bool old; /* stamps are about to wrap round */
    uint32_t writes;
    uint32_t n_tokens;
    uint64_t token[WB__TOKENS]; /* chance, fetched many at a time */
};

struct wb__memory {
    struct wb_idem face;
    void *block; /* it was allocated as */
    struct wb__quota quota;
    uint64_t seed[2];
    int64_t opened_ms, opened_wall_ms;
    struct wb__mutex evicting;
    _Alignas(64) _Atomic uint64_t uses; /* the clock of recency */
    _Alignas(64) _Atomic int64_t records;
    _Atomic int64_t bytes;
    struct wb__shard shard[WB__SHARDS];
};

/* All but the last are called with the shard's lock held. */
static inline int64_t
wb__memory_now(const struct wb__memory *m)
{
    const struct wb_env *env = m->face.env;
    int64_t ms = env->coarse_ms != NULL ? env->coarse_ms(env->ctx)
                                        : env->mono_us(env->ctx) / 1000;

    return ms - m->opened_ms;
}

/* Let the time of an entry take its effect. False: it is gone. */
bool wb__entry_stands(
    struct wb__memory *m, struct wb__shard *s, uint32_t at, int64_t now_ms);
/* A claim's entry goes, or becomes a record (kept != NULL); waiters wake. */
void wb__claim_end(struct wb__memory *m, struct wb__shard *s,
    struct wb__claim *claim, struct wb__kept *kept);
void wb__record_drop(struct wb__memory *m, struct wb__shard *s, uint32_t at);
void wb__record_count(struct wb__memory *m, const struct wb__kept *kept, int n);
int64_t wb__kept_cost(const struct wb__kept *kept);
void wb__record_used(struct wb__memory *m, struct wb__shard *s, uint32_t at);
void wb__claim_mark(struct wb__memory *m, struct wb__shard *s,
    struct wb__claim *claim, enum wb_idem_state state, int64_t now_ms);
/* After a write: drop some of what is past its time, give memory back. */
void wb__shard_tidy(struct wb__memory *m, struct wb__shard *s, int64_t now_ms);
/* Without any lock: back below the caps. */
void wb__memory_evict(struct wb__memory *m);

/* ---- visit.c ----------------------------------------------------------- */

/* One call: the operation, its shard (locked), its entry, if any. */
struct wb__visit {
    struct wb__memory *m;
    struct wb__shard *s;
    const struct wb_idem_op *op;
    int64_t now_ms;
    uint32_t hash, at;
    struct wb__key key;
};
void wb__visit_begin(
    struct wb__visit *v, struct wb_idem *store, const struct wb_idem_op *op);
void wb__visit_end(struct wb__visit *v);  /* after a write */
void wb__visit_find(struct wb__visit *v); /* again */
/* The entry, once what is past its time has gone; NULL if there is none. */
void *wb__visit_standing(struct wb__visit *v, bool *is_claim);
/* The claim that the token is for, or NULL: late, wrong or spent. */
struct wb__claim *wb__visit_claim(struct wb__visit *v, uint64_t token);

int64_t wb__ttl_of(const struct wb_idem_record *record); /* 0: for ever */
WB_MUST_USE enum wb_status wb__kept_new(const struct wb__visit *v,
    const struct wb_idem_record *record, uint64_t token,
    const struct wb_fingerprint *fingerprint, struct wb__kept **out,
    struct wb_err *err);
static inline struct wb_idem_record
wb__kept_record(const struct wb__memory *m, const struct wb__kept *kept)
{
    const char *headers = kept->bytes + wb__key_len(kept->bytes);

    return (struct wb_idem_record){.status = (int)kept->status,
        .headers = {headers, kept->headers_len},
        .body = {headers + kept->headers_len, kept->body_len},
        .ttl_ms = (int64_t)kept->ttl_ms,
        .stored_ms = m->opened_wall_ms + (int64_t)kept->stored_ms,
        .fingerprint = kept->fingerprint};
}

/* ---- memory_look.c ----------------------------------------------------- */

enum wb_status wb__memory_settle(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_idem_record *record,
    struct wb_err *err);
enum wb_status wb__memory_lookup(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_result *result,
    struct wb_err *err);
enum wb_status wb__memory_store(struct wb_idem *store,
    const struct wb_idem_op *op, const struct wb_idem_record *record,
    struct wb_err *err);
enum wb_status wb__memory_peek(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);
enum wb_status wb__memory_forget(struct wb_idem *store,
    const struct wb_idem_op *op, struct wb_idem_item *item, struct wb_err *err);
enum wb_status wb__memory_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err);
enum wb_status wb__memory_reap(
    struct wb_idem *store, uint64_t *n, struct wb_err *err);

#endif /* WB_SRC_IDEM_MEMORY_H */
