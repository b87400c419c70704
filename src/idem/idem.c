/* idem.c - the face of the idempotency store: checks, defaults, names.
 *
 * (1) A backend is called with valid arguments only.
 * (2) A zero token is fenced here, before anything is looked at. */
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

bool
wb__fingerprint_eq(
    const struct wb_fingerprint *a, const struct wb_fingerprint *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* ---- what backends share ----------------------------------------------- */

static int64_t
or_default(int64_t value, int64_t standard)
{
    return value > 0 ? value : standard;
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
    wb__keeper_init(&store->keeper);
}

void
wb__idem_fini(struct wb_idem *store)
{
    wb__keeper_fini(&store->keeper);
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
wb__idem_fenced(const struct wb_idem_op *op, struct wb_err *err)
{
    return wb__fail(err, WB_FENCED, 0,
        "the claim on key \"%.*s\" was lost, or has ended", WB_SHOW(op->key));
}

enum wb_status
wb__idem_taken(const struct wb_idem_op *op, struct wb_err *err)
{
    return wb__fail(err, WB_BUSY, 0,
        "key \"%.*s\" is claimed, or its outcome unknown; complete, release "
        "or settle it first",
        WB_SHOW(op->key));
}

enum wb_status
wb__idem_not_unknown(const struct wb_idem_op *op, struct wb_err *err)
{
    return wb__fail(err, WB_NOTFOUND, 0,
        "key \"%.*s\" has no unknown outcome to settle", WB_SHOW(op->key));
}

/* ---- results ----------------------------------------------------------- */

void
wb_idem_result_free(struct wb_idem_result *result)
{
    if (result->copy != NULL)
        wb__free(result->env, result->copy);
    *result = (struct wb_idem_result){0};
}

static bool
make_room(struct wb_idem_result *result, const struct wb_env *env, size_t len)
{
    size_t room = result->room < 256 ? 256 : result->room;
    void *copy;

    if (len <= result->room && result->env == env)
        return true;
    while (room < len)
        room += room;
    copy = env->resize(env->ctx, NULL, room);
    if (copy == NULL)
        return false;
    if (result->copy != NULL)
        wb__free(result->env, result->copy);
    result->env = env;
    result->copy = copy;
    result->room = room;
    return true;
}

static struct wb_slice
copy_to(char *at, struct wb_slice s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return (struct wb_slice){at, s.len};
}

bool
wb__idem_give(struct wb_idem_result *result, const struct wb_env *env,
    const struct wb_idem_record *record)
{
    if (!make_room(result, env, record->headers.len + record->body.len))
        return false;
    result->answer = WB_IDEM_REPLAY;
    result->record = *record;
    result->record.headers = copy_to(result->copy, record->headers);
    result->record.body =
        copy_to((char *)result->copy + record->headers.len, record->body);
    return true;
}

/* ---- checks ------------------------------------------------------------ */

static enum wb_status
op_lengths(const struct wb_idem_op *op, struct wb_err *err)
{
    if (op->key.len >= 1 && op->key.len <= WB__IDEM_KEY_MAX &&
        op->identity.len <= WB__IDEM_IDENTITY_MAX &&
        op->scope.len <= WB__IDEM_SCOPE_MAX)
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "key \"%.*s\": give a key of 1 to %d bytes, an identity of up to %d, "
        "a scope of up to %d",
        WB_SHOW(op->key), WB__IDEM_KEY_MAX, WB__IDEM_IDENTITY_MAX,
        WB__IDEM_SCOPE_MAX);
}

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
record_check(const struct wb_idem_record *record, struct wb_err *err)
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

/* The lengths, and a token that was given out at all. */
static enum wb_status
claim_check(const struct wb_idem_op *op, uint64_t token, struct wb_err *err)
{
    return token == 0 ? wb__idem_fenced(op, err) : op_lengths(op, err);
}

/* ---- the calls --------------------------------------------------------- */

void
wb_idem_close(struct wb_idem *store)
{
    if (store != NULL)
        store->backend->close(store);
}

enum wb_status
wb_idem_begin(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_fingerprint *fingerprint, const struct wb_idem_begin *begin,
    struct wb_idem_result *result, struct wb_err *err)
{
    struct wb_idem_begin how = {0};
    enum wb_status rc = op_lengths(op, err);

    if (begin != NULL)
        how = *begin;
    how.lease_ms = or_default(how.lease_ms, WB_IDEM_LEASE_MS);
    if (rc == WB_OK)
        rc = store->backend->begin(store, op, fingerprint, &how, result, err);
    return rc;
}

enum wb_status
wb_idem_complete(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, const struct wb_idem_record *record, struct wb_err *err)
{
    enum wb_status rc = claim_check(op, token, err);

    if (rc == WB_OK)
        rc = record_check(record, err);
    if (rc == WB_OK)
        rc = store->backend->complete(store, op, token, record, err);
    return rc;
}

enum wb_status
wb_idem_release(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    enum wb_status rc = claim_check(op, token, err);

    return rc != WB_OK ? rc : store->backend->release(store, op, token, err);
}

enum wb_status
wb_idem_extend(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, int64_t lease_ms, struct wb_err *err)
{
    enum wb_status rc = claim_check(op, token, err);

    lease_ms = or_default(lease_ms, WB_IDEM_LEASE_MS);
    if (rc == WB_OK)
        rc = store->backend->extend(store, op, token, lease_ms, err);
    return rc;
}

enum wb_status
wb_idem_sending(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    enum wb_status rc = claim_check(op, token, err);

    if (rc == WB_OK)
        rc = store->backend->mark(store, op, token, WB_IDEM_SENDING, err);
    return rc;
}

enum wb_status
wb_idem_unknown(struct wb_idem *store, const struct wb_idem_op *op,
    uint64_t token, struct wb_err *err)
{
    enum wb_status rc = claim_check(op, token, err);

    if (rc == WB_OK)
        rc = store->backend->mark(store, op, token, WB_IDEM_DOUBTFUL, err);
    return rc;
}

enum wb_status
wb_idem_settle(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    enum wb_status rc = op_lengths(op, err);

    if (rc == WB_OK && record != NULL)
        rc = record_check(record, err);
    if (rc == WB_OK)
        rc = store->backend->settle(store, op, record, err);
    return rc;
}

enum wb_status
wb_idem_lookup(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_result *result, struct wb_err *err)
{
    enum wb_status rc = op_lengths(op, err);

    return rc != WB_OK ? rc : store->backend->lookup(store, op, result, err);
}

enum wb_status
wb_idem_store(struct wb_idem *store, const struct wb_idem_op *op,
    const struct wb_idem_record *record, struct wb_err *err)
{
    enum wb_status rc = op_lengths(op, err);

    if (rc == WB_OK)
        rc = wb__idem_op_check(op, err);
    if (rc == WB_OK)
        rc = record_check(record, err);
    if (rc == WB_OK)
        rc = store->backend->store(store, op, record, err);
    return rc;
}

static enum wb_status
not_known(const struct wb_idem_op *op, struct wb_err *err)
{
    return wb__fail(
        err, WB_NOTFOUND, 0, "key \"%.*s\" is not known", WB_SHOW(op->key));
}

enum wb_status
wb_idem_peek(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    enum wb_status rc = op_lengths(op, err);

    if (rc == WB_OK)
        rc = store->backend->peek(store, op, item, err);
    return rc == WB_NOTFOUND ? not_known(op, err) : rc;
}

enum wb_status
wb_idem_forget(struct wb_idem *store, const struct wb_idem_op *op,
    struct wb_idem_item *item, struct wb_err *err)
{
    struct wb_idem_item scratch;
    enum wb_status rc = op_lengths(op, err);

    if (rc == WB_OK)
        rc = store->backend->forget(
            store, op, item == NULL ? &scratch : item, err);
    return rc == WB_NOTFOUND ? not_known(op, err) : rc;
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
    uint64_t scratch;

    return store->backend->reap(store, n == NULL ? &scratch : n, err);
}

/* ---- many at once ------------------------------------------------------ */

void
wb__idem_alone(struct wb_idem *store, struct wb__idem_call *c)
{
    switch (c->verb) {
    case WB__IDEM_BEGIN:
        c->rc = wb_idem_begin(
            store, c->op, c->fingerprint, &c->how, c->result, NULL);
        break;
    case WB__IDEM_COMPLETE:
        c->rc = wb_idem_complete(store, c->op, c->token, &c->record, NULL);
        break;
    case WB__IDEM_RELEASE:
        c->rc = wb_idem_release(store, c->op, c->token, NULL);
        break;
    case WB__IDEM_EXTEND:
        c->rc = wb_idem_extend(store, c->op, c->token, c->how.lease_ms, NULL);
        break;
    case WB__IDEM_UNKNOWN:
        c->rc = wb_idem_unknown(store, c->op, c->token, NULL);
        break;
    }
}

static bool
is_valid(struct wb__idem_call *c)
{
    c->rc = c->verb == WB__IDEM_BEGIN ? op_lengths(c->op, NULL)
                                      : claim_check(c->op, c->token, NULL);
    if (c->rc == WB_OK && c->verb == WB__IDEM_COMPLETE)
        c->rc = record_check(&c->record, NULL);
    c->how.lease_ms = or_default(c->how.lease_ms, WB_IDEM_LEASE_MS);
    return c->rc == WB_OK;
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
        if (is_valid(c))
            call[n++] = c;
        c = c->next;
        if (n > 0 && (n == WB__IDEM_MANY || c == NULL)) {
            store->backend->many(store, call, n);
            n = 0;
        }
    }
}
