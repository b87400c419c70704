/* idem.c - the public calls of the idempotency store: checks and defaults.
 *
 * (1) A backend gets calls with valid arguments only.
 * (2) A zero token is fenced here, whatever the store holds. */
#include "idem/idem.h"

/* ---- names ------------------------------------------------------------- */

const char *
wb_idem_answer_name(enum wb_idem_answer answer)
{
    static const char *const names[] = {"?", "acquired", "replay", "in-flight",
        "held", "mismatch", "unknown", "limit", "unguarded"};

    return names[(unsigned)answer < WB_COUNT(names) ? answer : 0];
}

const char *
wb_idem_state_name(enum wb_idem_state state)
{
    static const char *const names[] = {
        "claimed", "sending", "done", "unknown"};

    return (unsigned)state < WB_COUNT(names) ? names[state] : "?";
}

enum wb_status
wb_idem_fingerprint(
    const struct wb_slice *parts, size_t n, struct wb_fingerprint *fingerprint)
{
    uint8_t hash[32];

    if (!wb__sha256(parts, n, hash))
        return WB_NOMEM;
    memcpy(fingerprint->bytes, hash, sizeof(fingerprint->bytes));
    return WB_OK;
}

/* ---- for backends ----------------------------------------------- */

static int64_t
or_default(int64_t value, int64_t by_default)
{
    return value > 0 ? value : by_default;
}

void
wb__idem_init(struct wb_idem *store, const struct wb__idem_backend *backend,
    const struct wb_idem_opts *opts)
{
    static const struct wb_idem_opts none = {0};

    if (opts == NULL)
        opts = &none;
    store->backend = backend;
    store->env = opts->env == NULL ? wb_env_system() : opts->env;
    store->opts = *opts;
    store->opts.hold_ms = or_default(opts->hold_ms, 86400000);
    store->opts.max_waiters = or_default(opts->max_waiters, 64);
    store->opts.max_records = or_default(opts->max_records, 10000);
    store->opts.max_bytes = or_default(opts->max_bytes, 64 << 20);
    store->opts.identity_claims = or_default(opts->identity_claims, 0);
    store->opts.identity_bytes = or_default(opts->identity_bytes, 0);
    store->opts.busy_ms = or_default(opts->busy_ms, 5000);
}

uint64_t
wb__idem_token(const struct wb_idem *store)
{
    uint64_t token;

    do
        store->env->random(store->env->ctx, &token, sizeof(token));
    while (token == 0);
    return token;
}

void
wb__idem_sleep(const struct wb_env *env, int64_t us)
{
    if (env->sleep_us != NULL)
        env->sleep_us(env->ctx, us);
    else
        wb__sleep_us(us);
}

enum wb_status
wb__idem_taken(const struct wb_idem_op *op, struct wb_err *err)
{
    return wb__fail(err, WB_BUSY, 0,
        "key \"%.*s\" is claimed, or its outcome unknown; complete, release "
        "or settle it first",
        WB_SHOW(op->key));
}

/* ---- results ----------------------------------------------------------- */

void
wb_idem_result_free(struct wb_idem_result *result)
{
    if (result->copy != NULL)
        wb__free(result->env, result->copy);
    *result = (struct wb_idem_result){0};
}

bool
wb__idem_copy_record(struct wb_idem_result *result, const struct wb_env *env,
    const struct wb_idem_record *record)
{
    size_t len = record->headers.len + record->body.len;
    size_t size = result->room < 256 ? 256 : result->room;
    char *at = result->copy;

    if (len > result->room || result->env != env) {
        while (size < len)
            size += size;
        at = env->resize(env->ctx, NULL, size);
        if (at == NULL)
            return false;
        if (result->copy != NULL)
            wb__free(result->env, result->copy);
        result->env = env;
        result->copy = at;
        result->room = size;
    }
    result->answer = WB_IDEM_REPLAY;
    result->record = *record;
    result->record.headers.ptr = at;
    at = wb__append(at, record->headers);
    result->record.body.ptr = at;
    (void)wb__append(at, record->body);
    return true;
}

enum wb_status
wb__idem_check(struct wb_idem *store, struct wb_err *err)
{
    return store->backend->check == NULL ? WB_OK
                                         : store->backend->check(store, err);
}

/* ---- checks ------------------------------------------------------------ */

enum wb_status
wb__idem_op_check(const struct wb_idem_op *op, struct wb_err *err)
{
    if (wb__printable(op->key) && wb__printable(op->identity) &&
        wb__printable(op->scope))
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "key, identity and scope must be UTF-8 without control characters");
}

static enum wb_status
check_record(const struct wb_idem_record *record, struct wb_err *err)
{
    if (record->status < 0 || record->status > 65535)
        return wb__fail(err, WB_INVALID, 0,
            "status %d of a record: give 0 to 65535", record->status);
    if (record->headers.len > WB__IDEM_HEADERS_MAX)
        return wb__fail(err, WB_TOOBIG, 0,
            "the headers of a record have %zu bytes, the limit is %d",
            record->headers.len, WB__IDEM_HEADERS_MAX);
    if (record->body.len > INT32_MAX)
        return wb__fail(err, WB_TOOBIG, 0,
            "the body of a record has %zu bytes, the limit is %d",
            record->body.len, INT32_MAX);
    return WB_OK;
}

static enum wb_status
fenced(const struct wb_idem_op *op, struct wb_err *err)
{
    return wb__fail(err, WB_FENCED, 0,
        "the claim on key \"%.*s\" was lost, or has ended", WB_SHOW(op->key));
}

/* Check the arguments of a call and fill in its defaults. */
static enum wb_status
check(struct wb__idem_call *c, struct wb_err *err)
{
    bool has_token =
        c->verb >= WB__IDEM_COMPLETE && c->verb <= WB__IDEM_UNKNOWN;
    bool has_record = c->verb == WB__IDEM_COMPLETE ||
                      c->verb == WB__IDEM_SETTLE || c->verb == WB__IDEM_STORE;
    const struct wb_idem_op *op = c->op;
    enum wb_status rc = WB_OK;

    if (has_token && c->token == 0)
        return fenced(op, err);
    c->how.lease_ms = or_default(c->how.lease_ms, WB_IDEM_LEASE_MS);
    if (op->key.len < 1 || op->key.len > WB__IDEM_KEY_MAX ||
        op->identity.len > WB__IDEM_IDENTITY_MAX ||
        op->scope.len > WB__IDEM_SCOPE_MAX)
        return wb__fail(err, WB_INVALID, 0,
            "key \"%.*s\": give a key of 1 to %d bytes, an identity of up to "
            "%d, a scope of up to %d",
            WB_SHOW(op->key), WB__IDEM_KEY_MAX, WB__IDEM_IDENTITY_MAX,
            WB__IDEM_SCOPE_MAX);
    if (c->verb == WB__IDEM_STORE)
        rc = wb__idem_op_check(op, err);
    if (rc == WB_OK && has_record)
        rc = check_record(&c->record, err);
    return rc;
}

/* ---- calls ------------------------------------------------------------- */

static enum wb_status
make(struct wb_idem *store, struct wb__idem_call *c, struct wb_err *err)
{
    enum wb_status rc = check(c, err);

    if (rc != WB_OK)
        return rc;
    rc = store->backend->call(store, c, err);
    if (rc == WB_FENCED)
        return fenced(c->op, err);
    if (rc == WB_NOTFOUND)
        return wb__fail(err, rc, 0, "key \"%.*s\" %s", WB_SHOW(c->op->key),
            c->verb == WB__IDEM_PEEK || c->verb == WB__IDEM_FORGET
                ? "is not known"
                : "has no unknown outcome to settle");
    return rc;
}

void
wb__idem_alone(struct wb_idem *store, struct wb__idem_call *c)
{
    c->rc = make(store, c, NULL);
}

void
wb__idem_many(struct wb_idem *store, struct wb__idem_call *c)
{
    struct wb__idem_call *call[WB__IDEM_MANY];
    size_t n = 0;

    if (store->backend->many == NULL || c->next == NULL) {
        for (; c != NULL; c = c->next)
            wb__idem_alone(store, c);
        return;
    }
    while (c != NULL) {
        c->rc = check(c, NULL);
        if (c->rc == WB_OK)
            call[n++] = c;
        c = c->next;
        if (n > 0 && (n == WB__IDEM_MANY || c == NULL)) {
            store->backend->many(store, call, n);
            n = 0;
        }
    }
}

/* For the calls that are made most often. Clearing the whole struct is slow,
 * and only a call with a record needs more than its first part. */
static void
init(struct wb__idem_call *c, enum wb__idem_verb verb,
    const struct wb_idem_op *op)
{
    memset(c, 0, offsetof(struct wb__idem_call, record));
    c->verb = verb;
    c->op = op;
}

enum wb_status
wb_idem_begin(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_fingerprint *fingerprint, const struct wb_idem_begin *begin,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb__idem_call c;

    init(&c, WB__IDEM_BEGIN, op);
    c.fingerprint = fingerprint;
    c.result = result;
    if (begin != NULL)
        c.how = *begin;
    return make(store, &c, err);
}

enum wb_status
wb_idem_complete(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__idem_call c;

    init(&c, WB__IDEM_COMPLETE, op);
    c.token = token;
    c.record = *record;
    return make(store, &c, err);
}

enum wb_status
wb_idem_release(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    struct wb__idem_call c = {
        .verb = WB__IDEM_RELEASE, .op = op, .token = token};

    return make(store, &c, err);
}

enum wb_status
wb_idem_extend(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, int64_t lease_ms, struct wb_err *err)
{
    struct wb__idem_call c = {.verb = WB__IDEM_EXTEND,
        .op = op,
        .token = token,
        .how.lease_ms = lease_ms};

    return make(store, &c, err);
}

enum wb_status
wb_idem_sending(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    struct wb__idem_call c = {
        .verb = WB__IDEM_SENDING, .op = op, .token = token};

    return make(store, &c, err);
}

enum wb_status
wb_idem_unknown(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    struct wb__idem_call c = {
        .verb = WB__IDEM_UNKNOWN, .op = op, .token = token};

    return make(store, &c, err);
}

enum wb_status
wb_idem_settle(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__idem_call c = {.verb = WB__IDEM_SETTLE_FREE, .op = op};

    if (record != NULL) {
        c.verb = WB__IDEM_SETTLE;
        c.record = *record;
    }
    return make(store, &c, err);
}

enum wb_status
wb_idem_lookup(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb__idem_call c;

    init(&c, WB__IDEM_LOOKUP, op);
    c.result = result;
    return make(store, &c, err);
}

enum wb_status
wb_idem_store(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    struct wb__idem_call c = {
        .verb = WB__IDEM_STORE, .op = op, .record = *record};

    return make(store, &c, err);
}

enum wb_status
wb_idem_peek(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb__idem_call c = {.verb = WB__IDEM_PEEK, .op = op, .item = item};

    return make(store, &c, err);
}

enum wb_status
wb_idem_forget(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb_idem_item unused;
    struct wb__idem_call c = {.verb = WB__IDEM_FORGET,
        .op = op,
        .item = item == NULL ? &unused : item};

    return make(store, &c, err);
}

enum wb_status
wb_idem_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err)
{
    return store->backend->list(store, fn, ctx, err);
}

enum wb_status
wb_idem_reap(struct wb_idem *store, uint64_t *n, struct wb_err *err)
{
    uint64_t unused;

    return store->backend->reap(store, n == NULL ? &unused : n, err);
}

void
wb_idem_close(struct wb_idem *store)
{
    if (store != NULL)
        store->backend->close(store);
}
