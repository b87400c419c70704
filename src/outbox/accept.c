/* accept.c - accept messages: check, find duplicates, insert.
 *
 * (1) A message is checked before its transaction begins.
 * (2) The unique indexes of id and key decide what is a duplicate; contents are
 *     compared only after an index has found one.
 * (3) A handle counts the rows again after it has accepted 1/1600 of max_rows:
 *     up to 16 handles together then stay within 16/1600, 1 %, of the limit. */
#include "outbox/outbox_internal.h"

enum {
    ATTEMPTS_MAX = 3,
    NAME_MAX_BYTES = 255,
    HEADERS_MAX_BYTES = 16384
};

struct accept_op {
    struct wb__db_job job;
    struct wb_outbox *box;
    const struct wb_message *messages;
    size_t n;
    struct wb_accepted *accepted; /* status set: the message was refused */
    struct wb_err refused;        /* of the last one that was refused ... */
    size_t last_refused;
    struct wb_err bad; /* of the last one that is not OK, refused or not */
};

/* ---- check ---------------------------------------------------------------- */

static bool
name_valid(struct wb_slice s)
{
    return s.len <= NAME_MAX_BYTES && wb__printable(s);
}

static enum wb_status
check_headers(struct wb_slice lines, struct wb_err *err)
{
    enum wb_status rc;
    struct wb_slice name, value;

    if (lines.len > HEADERS_MAX_BYTES)
        return wb__fail(err, WB_TOOBIG, 0,
            "the headers have %zu bytes, the limit is %d", lines.len,
            HEADERS_MAX_BYTES);
    rc = wb__request_headers_check(lines, err);
    while (rc == WB_OK && wb__headers_next(&lines, &name, &value))
        if (wb__eq_nocase(name, WB_LIT("Content-Type")))
            rc = wb__fail(err, WB_INVALID, 0,
                "header Content-Type: it is a field of the message");
    return rc;
}

static enum wb_status
check_message(
    const struct wb_outbox *box, const struct wb_message *m, struct wb_err *err)
{
    struct wb_id id;

    if (wb__kind_check(m->kind, err) != WB_OK)
        return WB_INVALID;
    if (!name_valid(m->key))
        return wb__fail(
            err, WB_INVALID, 0, "key: give 1 to 255 bytes of printable UTF-8");
    if (!name_valid(m->lane))
        return wb__fail(
            err, WB_INVALID, 0, "lane: give 1 to 255 bytes of printable UTF-8");
    if (m->id.len > 0 && !wb__uuid_parse(m->id, &id))
        return wb__fail(
            err, WB_INVALID, 0, "id \"%.*s\" is not a UUID", WB_SHOW(m->id));
    if (!name_valid(m->content_type))
        return wb__fail(
            err, WB_INVALID, 0, "content type: give up to 255 printable bytes");
    if (m->due_ms < 0 || m->expires_ms < 0)
        return wb__fail(err, WB_INVALID, 0,
            "due and expires: give a time after the start of 1970");
    if (m->expires_ms != 0 && m->expires_ms <= m->due_ms)
        return wb__fail(
            err, WB_INVALID, 0, "the message expires before it is due");
    if (m->payload.len > (size_t)box->opts.max_payload_bytes)
        return wb__fail(err, WB_TOOBIG, 0,
            "the payload has %zu bytes, the limit is %lld; send a reference "
            "instead, or raise max_payload",
            m->payload.len, (long long)box->opts.max_payload_bytes);
    return check_headers(m->headers, err);
}

/* ---- limits --------------------------------------------------------------- */

static enum wb_status
check_bytes(struct wb_outbox *box, int64_t most, struct wb_err *err)
{
    int64_t bytes = 0, one;
    enum wb_status rc = wb__db_bytes(box->db, &bytes, err);

    if (rc == WB_OK && bytes >= most)
        rc = wb__compact(box, most, &bytes, err);
    if (rc != WB_OK || bytes < most)
        return rc;
    rc = wb__db_one_int(box->db, WB__SQL_WAITING, WB__NO_ARGS, &one, err);
    if (rc != WB_OK && rc != WB_EMPTY)
        return rc;
    return wb__fail(err, WB_FULL, 0,
        "the outbox fills %lld bytes, its limit is %lld; %s", (long long)bytes,
        (long long)most,
        rc == WB_OK ? "drain it, or raise max_file"
                    : "nothing waits: discard abandoned messages, remember ids "
                      "and keys for less long (keep_delivered), or raise "
                      "max_file");
}

static enum wb_status
check_limits(struct wb_outbox *box, struct wb_err *err)
{
    int64_t rows = 0, left;
    int64_t most_rows = box->opts.max_rows, most = box->opts.max_file_bytes;
    enum wb_status rc;

    if (most_rows > 0 && box->rows_left <= 0) {
        rc = wb__db_one_int(box->db, WB__SQL_ROWS, WB__NO_ARGS, &rows, err);
        if (rc != WB_OK)
            return rc;
        left = most_rows - rows;
        if (left <= 0)
            return wb__fail(err, WB_FULL, 0,
                "the outbox holds %lld messages, its limit; drain it, or raise "
                "max_rows",
                (long long)rows);
        box->rows_left = most_rows / 1600 > 1 ? most_rows / 1600 : 1;
        if (left < box->rows_left)
            box->rows_left = left;
    }
    return most > 0 ? check_bytes(box, most, err) : WB_OK;
}

/* ---- one message ---------------------------------------------------------- */

struct candidate {
    const struct wb_message *m;
    int64_t now_ms;
    struct wb_id id;
    bool keep;        /* id or key are the caller's: it may be sent again */
    uint8_t hash[32]; /* if keep */
};

/* One that is still remembered: a tombstone that is not, but was not purged
 * yet, is deleted. */
static enum wb_status
find_remembered(struct wb_outbox *box, enum wb__sql sql, struct wb_slice by,
    int64_t now_ms, struct wb__head *head, struct wb_err *err)
{
    enum wb_status rc = wb__head_find(box, sql, wb__text(by), head, err);

    if (rc != WB_OK || head->state != WB_STATE_DELIVERED ||
        head->due_ms > wb__clock_trusted(box, now_ms))
        return rc;
    rc = wb__row_delete(box, head->seq, err);
    return rc == WB_OK ? WB_EMPTY : rc;
}

/* Find the message that has the id or the key. EMPTY: there is none. MISMATCH:
 * they are those of two messages; *first is the one that has the key. */
static enum wb_status
find_first(struct wb_outbox *box, const struct candidate *c,
    struct wb__head *first, struct wb_err *err)
{
    struct wb__head by_key;
    enum wb_status key_rc, rc = find_remembered(box, WB__SQL_HEAD_BY_ID,
                               wb_slice(c->id.text), c->now_ms, first, err);

    if (c->m->key.len == 0 || (rc != WB_OK && rc != WB_EMPTY))
        return rc;
    key_rc = find_remembered(
        box, WB__SQL_HEAD_BY_KEY, c->m->key, c->now_ms, &by_key, err);
    if (key_rc == WB_EMPTY)
        return rc;
    if (key_rc == WB_OK && rc == WB_OK && first->seq != by_key.seq)
        key_rc = WB_MISMATCH;
    *first = by_key;
    return key_rc;
}

/* Report a message whose id or key was accepted before, with the same content
 * or with another. EMPTY: it was not. */
static enum wb_status
find_duplicate(struct wb_outbox *box, const struct candidate *c,
    struct wb_accepted *accepted, struct wb_err *err)
{
    struct wb__head first;
    enum wb_status rc = find_first(box, c, &first, err);

    if (rc == WB_OK)
        rc = wb__head_hash(box, &first, err);
    if (rc != WB_OK && rc != WB_MISMATCH)
        return rc;
    *accepted = (struct wb_accepted){.id = first.id, .seq = first.seq};
    if (rc == WB_OK && wb__eq(wb_slice(first.kind), c->m->kind) &&
        (!first.has_hash || memcmp(first.hash, c->hash, 32) == 0))
        accepted->duplicate = true;
    else
        accepted->status = wb__fail(err, WB_MISMATCH, 0,
            "the %s is taken by message %s with other content; use another",
            c->m->key.len > 0 ? "key" : "id", first.id.text);
    return WB_OK;
}

/* EMPTY: nothing was inserted. */
static enum wb_status
insert(struct wb_outbox *box, const struct candidate *c,
    struct wb_accepted *accepted, struct wb_err *err)
{
    const struct wb_message *m = c->m;
    struct wb_slice hash = {(const char *)c->hash, sizeof(c->hash)};
    struct wb__val none = {.type = WB__NULL};
    int64_t changed = 0;
    enum wb_status rc = check_limits(box, err);

    if (rc == WB_FULL) {
        accepted->status = WB_FULL;
        return WB_OK;
    }
    if (rc != WB_OK)
        return rc;
    rc = wb__db_run(box->db, WB__SQL_INSERT,
        WB__ARGS(wb__text(wb_slice(c->id.text)), wb__text(m->kind),
            wb__int(m->due_ms > 0 ? m->due_ms : c->now_ms), wb__int(c->now_ms),
            wb__int_or_null(m->expires_ms), wb__text_or_null(m->key),
            wb__text_or_null(m->lane), wb__int(c->keep),
            c->keep ? wb__blob(hash) : none, wb__text_or_null(m->content_type),
            wb__text_or_null(m->headers), wb__blob(m->payload)),
        &changed, err);
    if (rc != WB_OK)
        return rc;
    if (changed != 1)
        return WB_EMPTY;
    box->rows_left--;
    box->db->wake = true;
    *accepted =
        (struct wb_accepted){.id = c->id, .seq = wb__db_last_seq(box->db)};
    return WB_OK;
}

/* Returns failures of the store only; the message's own status is in
 * accepted->status. */
static enum wb_status
accept_one(struct wb_outbox *box, const struct wb_message *m, int64_t now_ms,
    struct wb_accepted *accepted, struct wb_err *err)
{
    struct candidate c = {
        .m = m, .now_ms = now_ms, .keep = m->id.len > 0 || m->key.len > 0};
    enum wb_status rc;

    *accepted = (struct wb_accepted){0};
    if (m->id.len == 0 || !wb__uuid_parse(m->id, &c.id)) {
        uint8_t random[10];

        wb__random_take(box, now_ms, random, sizeof(random));
        c.id = wb__uuid7(now_ms, random);
    }
    if (c.keep && !wb__content_hash(
                      m->kind, m->content_type, m->lane, m->payload, c.hash))
        return wb__nomem(err, "content hash");
    /* If nothing was inserted, another transaction has committed the same id or
     * key after the query: now the query finds it. */
    for (int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        rc = c.keep ? find_duplicate(box, &c, accepted, err) : WB_EMPTY;
        if (rc == WB_EMPTY)
            rc = insert(box, &c, accepted, err);
        if (rc != WB_EMPTY)
            return rc;
    }
    return wb__fail(err, WB_CORRUPT, 0,
        "message %s was not inserted: another program has put a trigger on "
        "waybill_outbox; drop it",
        c.id.text);
}

/* ---- the operation -------------------------------------------------------- */

static bool
is_refused(const struct wb_accepted *a)
{
    return a->status == WB_INVALID || a->status == WB_TOOBIG;
}

static void
accept_lanes(const struct wb__db_job *job, struct wb__lanes *lanes)
{
    const struct accept_op *o = (const struct accept_op *)job;

    for (size_t i = 0; i < o->n; i++)
        if (o->messages[i].lane.len > 0 && !is_refused(&o->accepted[i]))
            wb__lanes_add(lanes, o->messages[i].lane);
}

static enum wb_status
accept_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct accept_op *o = (struct accept_op *)job;
    int64_t now_ms = wb__outbox_now(o->box);
    enum wb_status rc = wb__clock_check(o->box, now_ms, err);

    (void)db;
    o->bad = o->refused;
    for (size_t i = 0; i < o->n && rc == WB_OK; i++) {
        if (is_refused(&o->accepted[i]))
            continue;
        rc = accept_one(o->box, &o->messages[i], now_ms, &o->accepted[i], err);
        if (rc == WB_OK && o->accepted[i].status != WB_OK &&
            i >= o->last_refused)
            o->bad = *err;
    }
    return rc;
}

enum wb_status
wb_outbox_enqueue(struct wb_outbox *box, const struct wb_message *message,
    struct wb_accepted *accepted, struct wb_err *err)
{
    struct wb_accepted a = {0};
    struct accept_op o = {
        .job = {.run = accept_run, .lanes = accept_lanes, .tx = WB__TX_FULL},
        .box = box,
        .messages = message,
        .n = 1,
        .accepted = &a};
    enum wb_status rc = check_message(box, message, err);

    if (rc == WB_OK)
        rc = wb__commit_group_run(&box->group, &o.job, err);
    if (rc != WB_OK)
        return rc;
    if (a.status != WB_OK && err != NULL)
        *err = o.bad;
    if (accepted != NULL && (a.status == WB_OK || a.status == WB_MISMATCH))
        *accepted = a;
    return a.status;
}

enum wb_status
wb_outbox_enqueue_many(struct wb_outbox *box, const struct wb_message *messages,
    size_t n, struct wb_accepted *accepted, struct wb_err *err)
{
    struct accept_op o = {
        .job = {.run = accept_run, .lanes = accept_lanes, .tx = WB__TX_FULL},
        .box = box,
        .messages = messages,
        .n = n,
        .accepted = accepted};
    enum wb_status rc;

    for (size_t i = 0; i < n; i++) {
        accepted[i] = (struct wb_accepted){0};
        accepted[i].status = check_message(box, &messages[i], &o.refused);
        if (accepted[i].status != WB_OK)
            o.last_refused = i;
    }
    rc = wb__commit_group_run(&box->group, &o.job, err);
    if (rc == WB_OK && o.bad.status != WB_OK && err != NULL)
        *err = o.bad;
    return rc;
}
