/* sql.c - the store in a SQL database: calls, list, reap, open and close.
 *
 * (1) All writes are made on one connection, in groups that share a commit.
 * (2) A read does not wait for the commits of others: while that connection is
 *     busy it uses a second one.
 * (3) A call that a read can decide writes nothing.
 * (4) Waiters poll, a bounded number for each key, and never on a borrowed
 *     connection.
 * (5) If one of many calls fails, their transaction is rolled back and each is
 *     made alone. Except after IO: the outcome is unknown, and nothing may be
 *     done twice. And after BUSY: each would wait as long again. */
#include "idem/sql.h"

/* ---- verbs ------------------------------------------------------------- */

/* `read` is tried first; if it leaves call->decided false, `write` is run. */
static const struct verb {
    wb__sql_step *read, *write;
    /* FULL: the effect has happened or may have. RELAXED: what a power cut may
     * undo at the cost of a repeat. */
    enum wb__tx tx;
} verbs[] = {
    /* A power cut that undoes a claim has ended its process, too. */
    [WB__IDEM_BEGIN] = {wb__sql_find_answer, wb__sql_acquire, WB__TX_RELAXED},
    [WB__IDEM_COMPLETE] = {NULL, wb__sql_move, WB__TX_FULL},
    [WB__IDEM_RELEASE] = {NULL, wb__sql_move, WB__TX_RELAXED},
    [WB__IDEM_EXTEND] = {NULL, wb__sql_move, WB__TX_RELAXED},
    [WB__IDEM_SENDING] = {NULL, wb__sql_move, WB__TX_FULL},
    [WB__IDEM_UNKNOWN] = {NULL, wb__sql_move, WB__TX_FULL},
    [WB__IDEM_SETTLE] = {NULL, wb__sql_move, WB__TX_FULL},
    [WB__IDEM_SETTLE_FREE] = {NULL, wb__sql_move, WB__TX_FULL},
    [WB__IDEM_LOOKUP] = {wb__sql_lookup, wb__sql_drop_expired, WB__TX_RELAXED},
    [WB__IDEM_STORE] = {NULL, wb__sql_move, WB__TX_FULL},
    [WB__IDEM_PEEK] = {wb__sql_peek, NULL, WB__TX_READ},
    [WB__IDEM_FORGET] = {NULL, wb__sql_forget, WB__TX_FULL},
};

static enum wb__tx
tx_of(const struct wb__idem_call *call)
{
    if (call->verb == WB__IDEM_BEGIN && call->how.sending)
        return WB__TX_FULL; /* the effect may begin at once */
    return verbs[call->verb].tx;
}

/* ---- read -------------------------------------------------------------- */

static struct wb__db_opts
db_opts(const struct wb__idem_sql *sql)
{
    return (struct wb__db_opts){.env = sql->base.env,
        .busy_ms = sql->base.opts.busy_ms,
        /* A clock that the caller gave is the clock. */
        .server_clock = sql->base.env->wall_ms == wb_env_system()->wall_ms,
        .existing = sql->base.opts.existing || sql->base.opts.read_only ||
                    sql->base.opts.empty,
        .read_only = sql->base.opts.read_only,
        .empty = sql->base.opts.empty,
        .allow_network_fs = sql->base.opts.allow_network_fs};
}

/* Run a job that only reads, without waiting for the commits of others: on the
 * connection that writes if it is idle, or else on the second one, where one
 * statement needs no BEGIN. */
static enum wb_status
read_job(struct wb__idem_sql *sql, struct wb__db_job *job, struct wb_err *err)
{
    struct wb__db_opts opts = db_opts(sql);
    enum wb_status rc = WB_UNAVAILABLE;

    job->tx = WB__TX_READ;
    if (wb__commit_group_try(&sql->group, job, err))
        return job->status;
    if (sql->base.borrowed)
        return wb__commit_group_run(&sql->group, job, err);
    opts.existing = true;
    wb__mutex_lock(&sql->reading);
    if (sql->reader != NULL ||
        wb__db_open(&sql->reader, sql->url, &opts, NULL) == WB_OK)
        rc = wb__db_check(sql->reader, err);
    if (rc == WB_OK)
        rc = job->run(sql->reader, job, err);
    if (rc == WB_UNAVAILABLE) { /* only BEGIN connects again */
        wb__db_close(sql->reader);
        sql->reader = NULL;
    }
    wb__mutex_unlock(&sql->reading);
    return rc != WB_UNAVAILABLE ? rc
                                : wb__commit_group_run(&sql->group, job, err);
}

/* ---- call -------------------------------------------------------------- */

/* Calls that share a transaction. */
struct batch {
    struct wb__db_job job; /* first */
    struct wb__idem_call *const *call;
    size_t n;
};

static enum wb_status
run_read(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct wb__idem_call *call = *((struct batch *)base)->call;

    return verbs[call->verb].read(db, call, err);
}

static enum wb_status
run_writes(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct batch *b = (struct batch *)base;
    struct wb_idem *store = b->call[0]->store;
    enum wb_status rc =
        wb__sql_clock_set((struct wb__idem_sql *)store, db, err);

    for (size_t i = 0; i < b->n && rc == WB_OK; i++) {
        b->call[i]->now_ms = wb__sql_now(store, db);
        rc = verbs[b->call[i]->verb].write(db, b->call[i], err);
    }
    return rc;
}

/* Transactions lock their rows in this order, the same in every process. */
static uint64_t
order_of(const struct wb_idem_op *op)
{
    const struct wb_slice name[] = {op->identity, op->scope, op->key};
    uint64_t hash[2] = {0, 0};

    for (size_t i = 0; i < WB_COUNT(name); i++)
        hash[0] = wb__siphash(hash, name[i].ptr, name[i].len);
    return hash[0];
}

static enum wb_status
write_calls(struct wb__idem_sql *sql, struct wb__idem_call *const *call,
    size_t n, struct wb_err *err)
{
    struct batch b = {
        .job.run = run_writes, .job.tx = WB__TX_RELAXED, .call = call, .n = n};

    for (size_t i = 0; i < n; i++) {
        if (tx_of(call[i]) > b.job.tx)
            b.job.tx = tx_of(call[i]);
    }
    if (n == 1)
        b.job.order = order_of(call[0]->op);
    return wb__commit_group_run(&sql->group, &b.job, err);
}

/* Decide the call by a read, if that is possible. */
static enum wb_status
read_call(struct wb__idem_call *call, struct wb_err *err)
{
    struct batch b = {.job.run = run_read, .call = &call, .n = 1};

    call->decided = false;
    /* On a borrowed connection a read first could keep the transaction from
     * writing afterwards. */
    if (verbs[call->verb].read == NULL ||
        (call->verb == WB__IDEM_BEGIN && call->store->borrowed))
        return WB_OK;
    return read_job((struct wb__idem_sql *)call->store, &b.job, err);
}

static enum wb_status
call_once(struct wb__idem_call *call, struct wb_err *err)
{
    enum wb_status rc = read_call(call, err);

    /* More than once only if a row expires after the INSERT of BEGIN did not
     * replace it and before it is read. */
    while (rc == WB_OK && !call->decided)
        rc = write_calls((struct wb__idem_sql *)call->store, &call, 1, err);
    return rc;
}

/* ---- wait -------------------------------------------------------------- */

#define WAIT_MAX_MS (INT64_C(1) << 40) /* 34 years */

struct wb__sql_waiter {
    const struct wb_idem_op *op;
    bool joined;
    struct wb__sql_waiter *next;
};

/* False if max_waiters wait for this key already. */
static bool
join_waiters(struct wb__idem_sql *sql, struct wb__sql_waiter *w)
{
    int64_t n = 0;

    if (w->joined)
        return true;
    wb__mutex_lock(&sql->waiting);
    for (const struct wb__sql_waiter *o = sql->waiters; o != NULL; o = o->next)
        n += wb__idem_op_eq(o->op, w->op);
    if (n < sql->base.opts.max_waiters) {
        w->joined = true;
        w->next = sql->waiters;
        sql->waiters = w;
    }
    wb__mutex_unlock(&sql->waiting);
    return w->joined;
}

static enum wb_status
begin_or_wait(struct wb__idem_call *call, struct wb_err *err)
{
    struct wb__idem_sql *sql = (struct wb__idem_sql *)call->store;
    const struct wb_env *env = call->store->env;
    struct wb__sql_waiter w = {.op = call->op};
    int64_t from_us = env->mono_us(env->ctx), left_us;
    int64_t wait_ms =
        call->how.wait_ms < WAIT_MAX_MS ? call->how.wait_ms : WAIT_MAX_MS;
    enum wb_status rc;

    for (;;) {
        rc = call_once(call, err);
        if (rc != WB_OK || call->result->answer != WB_IDEM_IN_FLIGHT)
            break;
        left_us = wait_ms * 1000 - (env->mono_us(env->ctx) - from_us);
        if (left_us <= 0 || call->store->borrowed || !join_waiters(sql, &w)) {
            if (wait_ms > 0)
                call->result->answer = WB_IDEM_HELD;
            break;
        }
        wb__idem_sleep(
            env, left_us < WB__IDEM_POLL_US ? left_us : WB__IDEM_POLL_US);
    }
    if (w.joined) {
        struct wb__sql_waiter **at = &sql->waiters;

        wb__mutex_lock(&sql->waiting);
        while (*at != &w)
            at = &(*at)->next;
        *at = w.next;
        wb__mutex_unlock(&sql->waiting);
    }
    return rc;
}

/* ---- one call, many calls ---------------------------------------------- */

static enum wb_status
prepare(struct wb_idem *store, struct wb__idem_call *call, struct wb_err *err)
{
    call->store = store;
    if (call->verb != WB__IDEM_BEGIN)
        return WB_OK;
    call->token = wb__idem_token(store);
    return wb__idem_op_check(call->op, err);
}

static enum wb_status
sql_call(struct wb_idem *store, struct wb__idem_call *call, struct wb_err *err)
{
    enum wb_status rc = prepare(store, call, err);

    if (rc == WB_OK)
        rc = call->verb == WB__IDEM_BEGIN ? begin_or_wait(call, err)
                                          : call_once(call, err);
    if (rc != WB_OK)
        return rc;
    return call->rc == WB_BUSY ? wb__idem_taken(call->op, err) : call->rc;
}

static void
sql_many(struct wb_idem *store, struct wb__idem_call *const *call, size_t n)
{
    struct wb__idem_call *left[WB__IDEM_MANY];
    size_t n_left = 0;
    enum wb_status rc;

    WB_ASSERT(n <= WB__IDEM_MANY);
    for (size_t i = 0; i < n; i++) {
        rc = prepare(store, call[i], NULL);
        if (rc == WB_OK)
            rc = read_call(call[i], NULL);
        if (rc != WB_OK)
            call[i]->rc = rc;
        else if (!call[i]->decided)
            left[n_left++] = call[i];
    }
    if (n_left == 0)
        return;
    rc = write_calls((struct wb__idem_sql *)store, left, n_left, NULL);
    for (size_t i = 0; i < n_left; i++) {
        if (rc == WB_IO || rc == WB_BUSY)
            left[i]->rc = rc;
        else if (rc != WB_OK || !left[i]->decided)
            wb__idem_alone(store, left[i]);
    }
}

/* ---- list -------------------------------------------------------------- */

enum {
    PAGE = 256
};

/* No statement is open while the caller's function runs: a slow reader does
 * not hold back checkpoints. */
struct page {
    struct wb__db_job job; /* first */
    const struct wb_idem *store;
    struct wb__arena arena;
    struct wb_idem_item *item; /* PAGE of them */
    size_t n;
    int64_t now_ms;
    int64_t after, rows; /* the last seq; how many rows, expired ones too */
};

static enum wb_status
run_page(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_IDEM_LIST;
    struct page *p = (struct page *)base;
    struct wb_idem_op *op;
    int64_t from = p->after;
    enum wb_status rc =
        wb__db_start(db, sql, WB__ARGS(wb__int(from), wb__int(PAGE)), err);

    if (rc != WB_OK)
        return rc;
    p->now_ms = wb__sql_now(p->store, db);
    p->n = 0;
    p->rows = 0;
    wb__arena_clear(&p->arena);
    while (rc == WB_OK && (rc = wb__db_next(db, sql, err)) == WB_OK) {
        op = &p->item[p->n].op;
        p->after = wb__db_int(db, sql, 0);
        p->rows++;
        if (!wb__sql_item(
                db, p->now_ms, p->store->opts.hold_ms, &p->item[p->n]))
            continue;
        if (!wb__arena_dup(&p->arena, op->identity, &op->identity) ||
            !wb__arena_dup(&p->arena, op->scope, &op->scope) ||
            !wb__arena_dup(&p->arena, op->key, &op->key))
            rc = wb__nomem(err, "a page of keys");
        p->n++;
    }
    wb__db_end(db, sql);
    if (rc == WB_EMPTY)
        return WB_OK;
    p->after = from; /* the page may be read again */
    return rc;
}

static enum wb_status
sql_list(struct wb_idem *store,
    enum wb_status (*fn)(void *ctx, const struct wb_idem_item *item), void *ctx,
    struct wb_err *err)
{
    struct page p = {
        .job.run = run_page, .store = store, .arena = {.env = store->env}};
    enum wb_status rc = WB_OK;

    p.item = wb__alloc(store->env, PAGE * sizeof(*p.item));
    if (p.item == NULL)
        return wb__nomem(err, "a page of keys");
    do {
        rc = read_job((struct wb__idem_sql *)store, &p.job, err);
        for (size_t i = 0; rc == WB_OK && i < p.n; i++)
            rc = fn(ctx, &p.item[i]);
    } while (rc == WB_OK && p.rows == PAGE);
    wb__arena_clear(&p.arena);
    wb__free(store->env, p.item);
    return rc;
}

/* ---- reap -------------------------------------------------------------- */

struct reap {
    struct wb__db_job job; /* first */
    const struct wb_idem *store;
    int64_t n;
};

static enum wb_status
run_reap(struct wb__db *db, struct wb__db_job *base, struct wb_err *err)
{
    struct reap *r = (struct reap *)base;

    return wb__sql_reap_some(
        db, r->store, wb__sql_now(r->store, db), &r->n, err);
}

static enum wb_status
sql_reap(struct wb_idem *store, uint64_t *n, struct wb_err *err)
{
    struct reap r = {
        .job.run = run_reap, .job.tx = WB__TX_RELAXED, .store = store};
    enum wb_status rc;

    *n = 0;
    do {
        rc = wb__commit_group_run(
            &((struct wb__idem_sql *)store)->group, &r.job, err);
        *n += rc == WB_OK ? (uint64_t)r.n : 0;
    } while (rc == WB_OK && r.n == WB__SQL_REAP_ROWS);
    return rc;
}

/* ---- open and close ---------------------------------------------------- */

static void
sql_close(struct wb_idem *store)
{
    struct wb__idem_sql *sql = (struct wb__idem_sql *)store;

    wb__lease_renewer_fini(&store->renewer);
    wb__commit_group_fini(&sql->group);
    wb__mutex_fini(&sql->waiting);
    wb__mutex_fini(&sql->reading);
    wb__db_close(sql->reader);
    wb__db_close(sql->group.db);
    wb__free(store->env, sql->url);
    wb__free(store->env, sql);
}

static enum wb_status
sql_check(struct wb_idem *store, struct wb_err *err)
{
    return wb__db_check(((struct wb__idem_sql *)store)->group.db, err);
}

static const struct wb__idem_backend sql_backend = {
    .close = sql_close,
    .check = sql_check,
    .call = sql_call,
    .many = sql_many,
    .list = sql_list,
    .reap = sql_reap,
};

static struct wb__idem_sql *
sql_new(const struct wb_idem_opts *opts)
{
    const struct wb_env *env =
        opts == NULL || opts->env == NULL ? wb_env_system() : opts->env;
    struct wb__idem_sql *sql = wb__alloc(env, sizeof(*sql));

    if (sql == NULL)
        return NULL;
    wb__idem_init(&sql->base, &sql_backend, opts);
    wb__lease_renewer_init(&sql->base.renewer);
    sql->base.opts.hold_ms = wb__sql_time(sql->base.opts.hold_ms, 0);
    wb__commit_group_init(&sql->group, NULL);
    wb__mutex_init(&sql->waiting);
    wb__mutex_init(&sql->reading);
    return sql;
}

/* For the second connection; not a relative path, which chdir() changes. */
static enum wb_status
keep_url(struct wb__idem_sql *sql, const char *url, struct wb_err *err)
{
    const char *name = sql->group.db->path;
    size_t size = strlen(name != NULL ? name : url) + 1;

    sql->url = wb__alloc(sql->base.env, size);
    if (sql->url == NULL)
        return wb__nomem(err, "a store");
    memcpy(sql->url, name != NULL ? name : url, size);
    return WB_OK;
}

/* Open a store on the caller's connection db; if it is NULL, on a new one to
 * url. */
static enum wb_status
open_store(struct wb_idem **out, const char *url, struct sqlite3 *db,
    bool adopt, const struct wb_idem_opts *opts, struct wb_err *err)
{
    struct wb__idem_sql *sql = sql_new(opts);
    struct wb__db_opts o;
    enum wb_status rc;

    if (sql == NULL)
        return wb__nomem(err, "a store");
    sql->base.borrowed = db != NULL;
    o = db_opts(sql);
    if (db != NULL) {
        rc = wb__db_borrow(&sql->group.db, db, adopt, &o, err);
    } else {
        rc = wb__db_open(&sql->group.db, url, &o, err);
        if (rc == WB_OK)
            rc = keep_url(sql, url, err);
    }
    if (rc == WB_OK) {
        wb__sql_clock_init(sql);
        *out = &sql->base;
    } else {
        sql_close(&sql->base);
    }
    return rc;
}

enum wb_status
wb_idem_open(struct wb_idem **out, const char *url,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    return open_store(out, url, NULL, false, opts, err);
}

enum wb_status
wb_idem_adopt(struct wb_idem **out, struct sqlite3 *db,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    return open_store(out, NULL, db, true, opts, err);
}

enum wb_status
wb_idem_attach(struct wb_idem **out, struct sqlite3 *db,
    const struct wb_idem_opts *opts, struct wb_err *err)
{
    return open_store(out, NULL, db, false, opts, err);
}
