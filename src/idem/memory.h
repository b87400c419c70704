/* memory.h - the parts of the memory store.
 *
 * One mutex guards a whole store. A hash table finds the entry of an operation,
 * which is a claim or a record; a list orders the records by their last use. */
#ifndef WB_SRC_IDEM_MEMORY_H
#define WB_SRC_IDEM_MEMORY_H

#include "base/base.h"
#include "idem/idem.h"

/* ---- operations -------------------------------------------------------- */

/* An operation as bytes: a header with the lengths of identity and key, one
 * byte each, and of the scope, two bytes; then identity, scope and key. */
enum {
    WB__KEY_HEADER = 4
};
struct wb__key {
    size_t len;
    char bytes[WB__KEY_HEADER + WB__IDEM_IDENTITY_MAX + WB__IDEM_SCOPE_MAX +
               WB__IDEM_KEY_MAX];
};

static inline void
wb__key_make(struct wb__key *key, const struct wb_idem_op *op)
{
    char *at = key->bytes;

    *at++ = (char)op->identity.len;
    *at++ = (char)op->key.len;
    *at++ = (char)(op->scope.len & 0xff);
    *at++ = (char)(op->scope.len >> 8);
    at = wb__append(at, op->identity);
    at = wb__append(at, op->scope);
    at = wb__append(at, op->key);
    key->len = (size_t)(at - key->bytes);
}

/* The operation, its slices borrowed from the bytes of a key. */
static inline struct wb_idem_op
wb__key_op(const char *bytes)
{
    const unsigned char *len = (const unsigned char *)bytes;
    struct wb_idem_op op;

    op.identity = (struct wb_slice){bytes + WB__KEY_HEADER, len[0]};
    op.scope = (struct wb_slice){
        op.identity.ptr + op.identity.len, len[2] | (size_t)len[3] << 8};
    op.key = (struct wb_slice){op.scope.ptr + op.scope.len, len[1]};
    return op;
}

static inline size_t
wb__key_len(const char *bytes)
{
    struct wb_idem_op op = wb__key_op(bytes);

    return (size_t)(op.key.ptr + op.key.len - bytes);
}

/* ---- claims and records ------------------------------------------------ */

/* Times are milliseconds of the monotonic clock since the store was opened. */
struct wb__memory_record {
    struct wb_fingerprint fingerprint;
    uint64_t stored_ms : 48, status : 16;
    uint64_t ttl_ms : 48 /* 0: never expires */, headers_len : 16;
    uint32_t body_len;
    uint32_t token; /* lower half of its claim's token: see memory.c (4) */
    char bytes[];   /* key, headers, body */
};

/* On the stack of a thread that waits for a claim to end. */
struct wb__waiter {
    struct wb__cond wake;
    bool woken; /* and no longer in the claim's list */
    struct wb__waiter *next, **link;
};

struct wb__memory_claim {
    struct wb__heap_node ends; /* of the lease, or of the hold if unknown */
    enum wb_idem_state state;
    bool lapsed; /* see claim_expire_if_due(); its token is still good */
    uint32_t at; /* index of its entry */
    int64_t since_ms;
    uint64_t token;
    struct wb_fingerprint fingerprint;
    struct wb__waiter *waiters;
    int64_t n_waiters;
    char bytes[]; /* key */
};

/* Claims and bytes of one identity, kept only where a limit is set, as long as
 * one of them is not zero. Its key has the identity alone; those of operations
 * are never empty. */
struct wb__account {
    int64_t claims, bytes;
    char key[];
};

/* ---- table.c: hash table and list by use ------------------------------- */

#define WB__NONE UINT32_MAX

struct wb__entry {
    union {
        struct wb__memory_claim *claim;
        struct wb__memory_record *record;
        struct wb__account *account;
    };
    enum wb__entry_kind {
        WB__FREE,
        WB__CLAIM,
        WB__RECORD,
        WB__ACCOUNT
    } kind;
    uint32_t hash;
    uint32_t prev, next; /* RECORD: by use; FREE: next in the free list */
};

struct wb__table {
    const struct wb_env *env;
    struct wb__entry *slab;
    uint32_t *slot; /* index of an entry + 1; 0: empty */
    uint32_t cap, used, mask;
    uint32_t free; /* first free entry */
    uint32_t newest, oldest;
};
void wb__table_init(struct wb__table *t, const struct wb_env *env);
void wb__table_fini(struct wb__table *t); /* frees no claim or record */
/* The entry of the key, or NULL. */
struct wb__entry *wb__table_find(
    const struct wb__table *t, uint32_t hash, const struct wb__key *key);
/* Make sure of so many free entries. Moves entries. False, and nothing changed,
 * without memory. */
WB_MUST_USE bool wb__table_reserve(struct wb__table *t, uint32_t n);
/* Needs a free entry and a key that is not in the table. */
struct wb__entry *wb__table_add_claim(
    struct wb__table *t, uint32_t hash, struct wb__memory_claim *claim);
struct wb__entry *wb__table_add_record(
    struct wb__table *t, uint32_t hash, struct wb__memory_record *record);
void wb__table_add_account(
    struct wb__table *t, uint32_t hash, struct wb__account *account);
/* Make the entry of a claim that of its record. */
void wb__table_complete(
    struct wb__table *t, struct wb__entry *e, struct wb__memory_record *record);
/* The record is now the most recently used one. */
void wb__table_touch(struct wb__table *t, struct wb__entry *e);
void wb__table_remove(struct wb__table *t, struct wb__entry *e);
/* Free memory if few entries are in use. Moves entries. */
void wb__table_shrink(struct wb__table *t);

/* ---- store ------------------------------------------------------------- */

struct wb__memory {
    struct wb_idem base;
    uint64_t seed[2], token_seed[2];
    int64_t opened_ms, opened_wall_ms;
    /* All that follows is guarded by the lock. */
    uint64_t n_tokens;      /* so many were made */
    struct wb__heap claims; /* by the time they end */
    int64_t records, bytes;
    uint32_t scan_at; /* entry where the search for expired ones continues */
    struct wb__mutex lock;
    struct wb__table table;
};

/* ---- memory_entry.c: all with the lock held ----------------------------- */

/* The hash of a key in the table. */
uint32_t wb__memory_hash(const struct wb__memory *m, const struct wb__key *key);

/* The account of the identity, made if there was none, and so many free entries
 * besides. The entries may move. False: out of memory. Without a limit there
 * are no accounts, and *out is NULL. */
WB_MUST_USE bool wb__account_open(struct wb__memory *m,
    struct wb_slice identity, uint32_t entries, struct wb__account **out);
/* Change its counts. Needs an identity with an account; removes that when both
 * are zero. */
void wb__account_add(
    struct wb__memory *m, struct wb_slice identity, int claims, int64_t bytes);

/* Allocate a record. TOOBIG: it alone is larger than the store may be. */
WB_MUST_USE enum wb_status wb__record_new(const struct wb__memory *m,
    const struct wb__key *key, const struct wb_idem_record *record,
    int64_t now_ms, struct wb__memory_record **out, struct wb_err *err);
/* The ttl as it is kept; 0: never expires. */
int64_t wb__record_ttl_ms(const struct wb_idem_record *record);
struct wb_idem_record wb__record_get(
    const struct wb__memory *m, const struct wb__memory_record *r);
/* A claim whose lease has ended is as it was at that moment, for a call that
 * presents its token. Moves entries. False: out of memory. */
WB_MUST_USE bool wb__claim_revive(
    struct wb__memory *m, struct wb__memory_claim *claim, int64_t now_ms);

/* Add or remove the record's part in the counts of the store. */
void wb__record_count(
    struct wb__memory *m, const struct wb__memory_record *r, int n);
void wb__record_drop(struct wb__memory *m, struct wb__entry *e);
/* Drop the least recently used records until the limits are kept. */
void wb__memory_evict(struct wb__memory *m);

/* End the claim: wake its waiters, replace it by the record, or remove its
 * entry if that is NULL. Takes the record. */
void wb__claim_end(struct wb__memory *m, struct wb__memory_claim *claim,
    struct wb__memory_record *record);
/* The claim's outcome is unknown: wake its waiters, hold the key for hold_ms
 * from from_ms on. */
void wb__claim_hold(
    struct wb__memory *m, struct wb__memory_claim *claim, int64_t from_ms);

/* A claim that holds its key no longer; only its token is still good. */
static inline bool
wb__is_lapsed(const struct wb__entry *e)
{
    return e->kind == WB__CLAIM && e->claim->lapsed &&
           e->claim->state == WB_IDEM_CLAIMED;
}
/* True: the entry had expired and is removed. */
bool wb__expire_if_due(
    struct wb__memory *m, struct wb__entry *e, int64_t now_ms);
/* Remove some expired entries and shrink the table if few are left. The effort
 * is the number of live entries to check. Moves entries. */
void wb__memory_clean(struct wb__memory *m, int64_t now_ms, int effort);

#endif /* WB_SRC_IDEM_MEMORY_H */
