/* accept.c - take messages in.
 *
 * (1) A message is checked before anything is touched.
 * (2) The unique indexes of id and key decide what is a duplicate; only after
 *     one of them has spoken are contents compared.
 * (3) Rows are counted again after every 1/1600 of max_rows, so that up to 16
 *     handles together stay within 1 % of it, whenever each of them counted. */
#include <stdio.h>

#include "outbox/outbox_internal.h"

enum {
    RETRIES_MAX = 3,
    NAME_MAX_BYTES = 255,
    HEADERS_MAX_BYTES = 16384
};

bool
wb__kind_valid(struct wb_slice kind)
{
    for (size_t i = 0; i < kind.len; i++) {
        char c = kind.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
                c == '.' || c == '-'))
            return false;
    }
    return kind.len >= 1 && kind.len <= 64;
}

static bool
name_valid(struct wb_slice s)
{
    return s.len <= NAME_MAX_BYTES && wb__printable(s);
}

static enum wb_status
check_sizes(
    const struct wb_outbox *box, const struct wb_message *m, struct wb_err *err)
{
    if (m->payload.len > (size_t)box->opts.max_payload_bytes)
        return wb__fail(err, WB_TOOBIG, 0,
            "the payload has %zu bytes, the limit is %lld; send a reference "
            "instead, or raise max_payload",
            m->payload.len, (long long)box->opts.max_payload_bytes);
    if (m->headers.len > HEADERS_MAX_BYTES)
        return wb__fail(err, WB_TOOBIG, 0,
            "the headers have %zu bytes, the limit is %d", m->headers.len,
            HEADERS_MAX_BYTES);
    return WB_OK;
}

static enum wb_status
check_headers(struct wb_slice lines, struct wb_err *err)
{
    enum wb_status rc = wb__request_headers_check(lines, err);
    struct wb_slice name, value;

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

    if (!wb__kind_valid(m->kind))
        return wb__fail(err, WB_INVALID, 0,
            "kind \"%.*s\": give 1 to 64 of a-z 0-9 _ . -", WB_SHOW(m->kind));
    if (!name_valid(m->key))
        return wb__fail(
            err, WB_INVALID, 0, "key: give 1 to 255 bytes of printable UTF-8");
    if (!name_valid(m->lane))
        return wb__fail(
            err, WB_INVALID, 0, "lane: give 1 to 255 bytes of printable UTF-8");
    if (m->id.len > 0 && !wb__uuid_parse(m->id, &id))
        return wb__fail(
            err, WB_INVALID, 0, "id \"%.*s\" is no UUID", WB_SHOW(m->id));
    if (!name_valid(m->content_type))
        return wb__fail(
            err, WB_INVALID, 0, "content type: give up to 255 printable bytes");
    if (m->due_ms < 0 || m->expires_ms < 0)
        return wb__fail(err, WB_INVALID, 0, "a time before 1970");
    if (m->expires_ms != 0 && m->expires_ms <= m->due_ms)
        return wb__fail(
            err, WB_INVALID, 0, "the message expires before it is due");
    if (check_sizes(box, m, err) != WB_OK)
        return WB_TOOBIG;
    return check_headers(m->headers, err);
}

/* ---- limits ------------------------------------------------------------ */

static enum wb_status
check_rows(struct wb_outbox *box, struct wb_err *err)
{
    int64_t rows = 0, room, most = box->opts.max_rows;
    enum wb_status rc;

    if (most <= 0 || box->rows_left > 0)
        return WB_OK;
    rc = wb__db_one_int(box->db, WB__SQL_ROWS, WB__NO_ARGS, &rows, err);
    if (rc != WB_OK)
        return rc;
    room = most - rows;
    if (room <= 0)
        return wb__fail(err, WB_FULL, 0,
            "the outbox holds %lld messages, its limit; drain it, or raise "
            "max_rows",
            (long long)rows);
    box->rows_left = most / 1600 > 1 ? most / 1600 : 1;
    if (room < box->rows_left)
        box->rows_left = room;
    return WB_OK;
}

static enum wb_status
check_room(struct wb_outbox *box, struct wb_err *err)
{
    int64_t bytes = 0, most = box->opts.max_file_bytes;
    enum wb_status rc = check_rows(box, err);

    if (rc != WB_OK || most <= 0)
        return rc;
    rc = wb__db_bytes(box->db, &bytes, err);
    if (rc == WB_OK && bytes >= most)
        return wb__fail(err, WB_FULL, 0,
            "the outbox fills %lld bytes, its limit is %lld; drain it, or "
            "raise max_file",
            (long long)bytes, (long long)most);
    return rc;
}

/* ---- duplicates -------------------------------------------------------- */

/* Who has the id or the key. EMPTY if nobody; two different rows: MISMATCH,
 * with the one that has the key. */
static enum wb_status
find_first(struct wb_outbox *box, const struct wb_message *m, struct wb_id id,
    struct wb__head *first, struct wb_err *err)
{
    struct wb__head by_key;
    enum wb_status rc = wb__head_find(
        box, WB__SQL_HEAD_BY_ID, wb__text(wb_slice(id.text)), first, err);
    enum wb_status key_rc = WB_EMPTY;

    if (rc != WB_OK && rc != WB_EMPTY)
        return rc;
    if (m->key.len > 0)
        key_rc = wb__head_find(
            box, WB__SQL_HEAD_BY_KEY, wb__text(m->key), &by_key, err);
    if (key_rc == WB_EMPTY)
        return rc;
    if (key_rc == WB_OK) {
        bool two = rc == WB_OK && first->seq != by_key.seq;

        *first = by_key;
        return two ? WB_MISMATCH : WB_OK;
    }
    return key_rc;
}

static enum wb_status
same_content(struct wb_outbox *box, const struct wb_message *m,
    const uint8_t hash[32], struct wb__head *first, bool *same,
    struct wb_err *err)
{
    enum wb_status rc = wb__head_hash(box, first, err);

    *same = rc == WB_OK && wb__eq(wb_slice(first->kind), m->kind) &&
            (!first->has_hash || memcmp(first->hash, hash, 32) == 0);
    return rc;
}

static enum wb_status
mismatch(struct wb_err *err, const struct wb_message *m,
    const struct wb__head *first, struct wb_accepted *accepted)
{
    accepted->id = first->id;
    accepted->seq = first->seq;
    accepted->status = WB_MISMATCH;
    return wb__fail(err, WB_MISMATCH, 0,
        "the %s is taken by message %s with other content; use another",
        m->key.len > 0 ? "key" : "id", first->id.text);
}

/* ---- one message ------------------------------------------------------- */

struct candidate {
    const struct wb_message *m;
    struct wb_id id;
    bool keep;
    uint8_t hash[32];
};

static enum wb_status
insert(struct wb_outbox *box, const struct candidate *c, int64_t now_ms,
    bool *inserted, struct wb_err *err)
{
    const struct wb_message *m = c->m;
    struct wb_slice hash = {(const char *)c->hash, sizeof(c->hash)};
    struct wb__val none = {.type = WB__NULL};
    int64_t changed = 0;
    enum wb_status rc = wb__db_run(box->db, WB__SQL_INSERT,
        WB__ARGS(wb__text(wb_slice(c->id.text)), wb__text(m->kind),
            wb__int(m->due_ms > 0 ? m->due_ms : now_ms), wb__int(now_ms),
            wb__int_or_null(m->expires_ms), wb__text_or_null(m->key),
            wb__text_or_null(m->lane), wb__int(c->keep),
            c->keep ? wb__blob(hash) : none, wb__text_or_null(m->content_type),
            wb__text_or_null(m->headers), wb__blob(m->payload)),
        &changed, err);

    *inserted = changed == 1;
    return rc;
}

/* The id or the key is known: say by whom, and whether it is the same. */
static enum wb_status
answer_duplicate(struct wb_outbox *box, const struct candidate *c,
    struct wb__head *first, struct wb_accepted *accepted, struct wb_err *err)
{
    bool same;
    enum wb_status rc = same_content(box, c->m, c->hash, first, &same, err);

    if (rc != WB_OK)
        return rc;
    if (!same) {
        (void)mismatch(err, c->m, first, accepted);
        return WB_OK;
    }
    *accepted = (struct wb_accepted){
        .id = first->id, .seq = first->seq, .duplicate = true};
    return WB_OK;
}

/* A tombstone whose time is over, and that no purge has met yet. */
static bool
is_over(const struct wb__head *h, int64_t now_ms)
{
    return h->state == WB_STATE_DELIVERED && h->due_ms <= now_ms;
}

/* EMPTY: nothing was inserted. */
static enum wb_status
accept_new(struct wb_outbox *box, const struct candidate *c, int64_t now_ms,
    struct wb_accepted *accepted, struct wb_err *err)
{
    bool inserted = false;
    enum wb_status rc = check_room(box, err);

    if (rc == WB_FULL) {
        accepted->status = WB_FULL;
        return WB_OK;
    }
    if (rc == WB_OK)
        rc = insert(box, c, now_ms, &inserted, err);
    if (rc != WB_OK)
        return rc;
    if (!inserted)
        return WB_EMPTY;
    box->rows_left--;
    wb__db_wake(box->db);
    *accepted =
        (struct wb_accepted){.id = c->id, .seq = wb__db_last_seq(box->db)};
    return WB_OK;
}

/* With an id or key of the caller's: somebody may have it. */
static enum wb_status
accept_known(struct wb_outbox *box, const struct candidate *c, int64_t now_ms,
    struct wb_accepted *accepted, struct wb_err *err)
{
    struct wb__head first;
    enum wb_status rc = find_first(box, c->m, c->id, &first, err);

    while (rc == WB_OK && is_over(&first, now_ms)) {
        rc = wb__db_run(
            box->db, WB__SQL_DELETE, WB__ARGS(wb__int(first.seq)), NULL, err);
        if (rc == WB_OK)
            rc = find_first(box, c->m, c->id, &first, err);
    }
    if (rc == WB_EMPTY)
        return accept_new(box, c, now_ms, accepted, err);
    if (rc == WB_OK)
        return answer_duplicate(box, c, &first, accepted, err);
    if (rc != WB_MISMATCH)
        return rc;
    (void)mismatch(err, c->m, &first, accepted);
    return WB_OK;
}

/* Where nothing was inserted, another transaction has committed the same id or
 * key since we looked: it is there now. */
static enum wb_status
accept_checked(struct wb_outbox *box, const struct candidate *c, int64_t now_ms,
    struct wb_accepted *accepted, struct wb_err *err)
{
    enum wb_status rc = WB_EMPTY;

    for (int turn = 0; turn < RETRIES_MAX && rc == WB_EMPTY; turn++)
        rc = c->keep ? accept_known(box, c, now_ms, accepted, err)
                     : accept_new(box, c, now_ms, accepted, err);
    if (rc == WB_EMPTY)
        return wb__fail(err, WB_CORRUPT, 0,
            "message %s was not taken in: a trigger of another program stands "
            "on waybill_outbox; drop it",
            c->id.text);
    return rc;
}

/* Only trouble with the store is returned; the message's own is in
 * accepted->status. */
static enum wb_status
accept_one(struct wb_outbox *box, const struct wb_message *m, int64_t now_ms,
    struct wb_accepted *accepted, struct wb_err *err)
{
    struct candidate c = {.m = m, .keep = m->id.len > 0 || m->key.len > 0};

    *accepted = (struct wb_accepted){0};
    accepted->status = check_message(box, m, err);
    if (accepted->status != WB_OK)
        return WB_OK;
    if (m->id.len == 0 || !wb__uuid_parse(m->id, &c.id)) {
        uint8_t random[10];

        wb__random_take(box, now_ms, random, sizeof(random));
        c.id = wb__uuid7(now_ms, random);
    }
    if (c.keep && !wb__content_hash(
                      m->kind, m->content_type, m->lane, m->payload, c.hash))
        return wb__nomem(err, "content hash");
    return accept_checked(box, &c, now_ms, accepted, err);
}

/* ---- the operation ----------------------------------------------------- */

struct accept_op {
    struct wb__op op;
    const struct wb_message *messages;
    size_t n;
    struct wb_accepted *accepted;
    struct wb_err own; /* of the last bad message */
};

static enum wb_status
accept_run(struct wb_outbox *box, struct wb__op *op, struct wb_err *err)
{
    struct accept_op *a = (struct accept_op *)op;
    int64_t now_ms = wb__outbox_now(box);
    enum wb_status rc = WB_OK;

    a->own = (struct wb_err){0}; /* of a run that was rolled back */
    for (size_t i = 0; i < a->n && rc == WB_OK; i++) {
        rc = accept_one(box, &a->messages[i], now_ms, &a->accepted[i], err);
        if (rc == WB_OK && a->accepted[i].status != WB_OK)
            a->own = *err;
    }
    return rc;
}

/* A name that is refused could hold what separates them. */
static void
accept_lanes(const struct wb__db_job *job, struct wb__lanes *lanes)
{
    const struct accept_op *a = (const struct accept_op *)job;

    for (size_t i = 0; i < a->n; i++)
        if (a->messages[i].lane.len > 0 && name_valid(a->messages[i].lane))
            wb__lanes_add(lanes, a->messages[i].lane);
}

enum wb_status
wb_outbox_enqueue_many(struct wb_outbox *box, const struct wb_message *messages,
    size_t n, struct wb_accepted *accepted, struct wb_err *err)
{
    struct accept_op a = {
        .op = {.run = accept_run, .lanes = accept_lanes, .tx = WB__TX_FULL},
        .messages = messages,
        .n = n,
        .accepted = accepted};
    enum wb_status rc = wb__outbox_run(box, &a.op, err);

    if (rc == WB_OK && a.own.status != WB_OK && err != NULL)
        *err = a.own;
    return rc;
}

enum wb_status
wb_outbox_enqueue(struct wb_outbox *box, const struct wb_message *message,
    struct wb_accepted *accepted, struct wb_err *err)
{
    struct wb_accepted a = {0};
    enum wb_status rc;

    /* What is refused for itself alone costs no transaction. */
    rc = check_message(box, message, err);
    if (rc != WB_OK)
        return rc;
    rc = wb_outbox_enqueue_many(box, message, 1, &a, err);
    if (rc == WB_OK)
        rc = a.status;
    if (accepted != NULL && (rc == WB_OK || rc == WB_MISMATCH))
        *accepted = a;
    return rc;
}
