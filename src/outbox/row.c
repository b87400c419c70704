/* row.c - rows of the outbox table: the random bytes of their ids and tokens,
 * the syntax of kinds and states, reading rows, and the changes that several
 * operations make. */
#include "outbox/outbox_internal.h"

/* ---- random bytes --------------------------------------------------------- */

void
wb__random_take(struct wb_outbox *box, int64_t now_ms, void *out, size_t len)
{
    struct wb__random_pool *p = &box->pool;
    bool repeated = p->ms == now_ms;

    WB_ASSERT(len <= sizeof(p->bytes));
    if (!repeated || p->left < len) {
        /* The first request of a millisecond may be its only one. */
        p->left = repeated ? sizeof(p->bytes) : len;
        p->ms = now_ms;
        box->env->random(box->env->ctx, p->bytes, p->left);
    }
    p->left -= len;
    memcpy(out, p->bytes + p->left, len);
}

/* ---- kinds and states ----------------------------------------------------- */

enum wb_status
wb__kind_check(struct wb_slice kind, struct wb_err *err)
{
    bool valid = kind.len >= 1 && kind.len <= 64;

    for (size_t i = 0; i < kind.len && valid; i++) {
        char c = kind.ptr[i];

        valid = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
                c == '.' || c == '-';
    }
    if (valid)
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "kind \"%.*s\": give 1 to 64 of a-z 0-9 _ . -", WB_SHOW(kind));
}

#define TO(id) (1U << WB_STATE_##id)
static const struct {
    const char *name;
    unsigned next;
} states[WB_STATES] = {
#define X(id, text, to) [WB_STATE_##id] = {(text), (to)},
    WB_STATE_MAP(X)
#undef X
};
#undef TO

const char *
wb_state_name(enum wb_state state)
{
    return (unsigned)state < WB_STATES ? states[state].name : "?";
}

bool
wb__state_may(enum wb_state from, enum wb_state to)
{
    WB_ASSERT((unsigned)from < WB_STATES && (unsigned)to < WB_STATES);
    return (states[from].next >> to & 1U) != 0;
}

bool
wb__state_parse(struct wb_slice name, enum wb_state *state)
{
    for (int i = 0; i < WB_STATES; i++) {
        if (wb__eq(name, wb_slice(states[i].name))) {
            *state = (enum wb_state)i;
            return true;
        }
    }
    return false;
}

/* ---- reading -------------------------------------------------------------- */

/* The table's constraint keeps it in range, but the file may have lost it. */
static uint32_t
attempts_of(int64_t n)
{
    return n < 0 ? 0 : n < UINT32_MAX ? (uint32_t)n : UINT32_MAX - 1;
}

/* What fits of it. False: that is not all. */
static bool
copy_text(char *out, size_t size, struct wb_slice s)
{
    bool fits = s.len < size;

    if (!fits)
        s.len = size - 1;
    if (s.len > 0)
        memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
    return fits;
}

/* False: it is not a UUID, and *id is what fits of it. */
static bool
read_id(struct wb_slice text, struct wb_id *id)
{
    return wb__uuid_parse(text, id) ||
           (copy_text(id->text, sizeof(id->text), text) && false);
}

/* False: it is none of ours. Such a row can be neither claimed nor finished; to
 * redrive or discard it is as good as to an abandoned one. */
static bool
read_state(struct wb_slice name, enum wb_state *state)
{
    *state = WB_STATE_ABANDONED;
    return wb__state_parse(name, state);
}

void
wb__head_read(struct wb_outbox *box, enum wb__sql sql, struct wb__head *head)
{
    struct wb__db *db = box->db;
    struct wb_slice hash = wb__db_slice(db, sql, 11);
    struct wb_slice scope = wb__db_slice(db, sql, 8);

    *head = (struct wb__head){.seq = wb__db_int(db, sql, 0),
        .due_ms = wb__db_int(db, sql, 4),
        .attempts = attempts_of(wb__db_int(db, sql, 5)),
        .token = (uint64_t)wb__db_int(db, sql, 6),
        .claimed_ms = wb__db_int(db, sql, 7),
        .keep = wb__db_int(db, sql, 10) != 0};
    (void)read_id(wb__db_slice(db, sql, 1), &head->id);
    (void)read_state(wb__db_slice(db, sql, 3), &head->state);
    (void)copy_text(head->kind, sizeof(head->kind), wb__db_slice(db, sql, 2));
    if (scope.len == 0 || scope.len >= sizeof(head->scope))
        scope = wb_slice(head->kind);
    (void)copy_text(head->scope, sizeof(head->scope), scope);
    head->lane_cut =
        !copy_text(head->lane, sizeof(head->lane), wb__db_slice(db, sql, 9));
    head->has_hash = hash.len == sizeof(head->hash);
    if (head->has_hash)
        memcpy(head->hash, hash.ptr, sizeof(head->hash));
}

enum wb_status
wb__head_find(struct wb_outbox *box, enum wb__sql sql, struct wb__val by,
    struct wb__head *head, struct wb_err *err)
{
    enum wb_status rc = wb__db_start(box->db, sql, WB__ARGS(by), err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(box->db, sql, err);
    if (rc == WB_OK)
        wb__head_read(box, sql, head);
    wb__db_end(box->db, sql);
    return rc;
}

void
wb__row_read(
    struct wb_outbox *box, enum wb__sql sql, bool payload, struct wb_row *row)
{
    struct wb__db *db = box->db;

    *row = (struct wb_row){.seq = wb__db_int(db, sql, 0),
        .kind = wb__db_slice(db, sql, 2),
        .due_ms = wb__db_int(db, sql, 4),
        .created_ms = wb__db_int(db, sql, 5),
        .attempts = attempts_of(wb__db_int(db, sql, 6)),
        .claimed_ms = wb__db_int(db, sql, 7),
        .expires_ms = wb__db_int(db, sql, 8),
        .scope = wb__db_slice(db, sql, 9),
        .key = wb__db_slice(db, sql, 10),
        .lane = wb__db_slice(db, sql, 11),
        .reason = wb__db_slice(db, sql, 12),
        .last_error = wb__db_slice(db, sql, 13),
        .content_type = wb__db_slice(db, sql, 14),
        .headers = wb__db_slice(db, sql, 15)};
    if (payload)
        row->payload = wb__db_slice(db, sql, 16);
    if (!read_state(wb__db_slice(db, sql, 3), &row->state))
        row->malformed = "status";
    if (!read_id(wb__db_slice(db, sql, 1), &row->id))
        row->malformed = "id";
}

const char *
wb__row_malformed(const struct wb_row *row)
{
    const struct {
        const char *column;
        struct wb_slice text;
        size_t max;
    } texts[] = {{"key", row->key, WB__NAME_MAX_STORED},
        {"lane", row->lane, WB__NAME_MAX_STORED},
        {"content_type", row->content_type, SIZE_MAX},
        {"headers", row->headers, SIZE_MAX}};

    if (row->malformed != NULL)
        return row->malformed;
    if (wb__kind_check(row->kind, NULL) != WB_OK)
        return "kind";
    for (size_t i = 0; i < WB_COUNT(texts); i++) {
        struct wb_slice s = texts[i].text;

        if (s.len > 0 && (s.len > texts[i].max || !wb__utf8_valid(s) ||
                             memchr(s.ptr, '\0', s.len) != NULL))
            return texts[i].column;
    }
    return NULL;
}

bool
wb__row_copy(struct wb__arena *a, struct wb_row *row)
{
    struct wb_slice *all[] = {&row->kind, &row->scope, &row->key, &row->lane,
        &row->reason, &row->last_error, &row->content_type, &row->headers,
        &row->payload, &row->attempts_log};

    for (size_t i = 0; i < WB_COUNT(all); i++)
        if (!wb__arena_dup(a, *all[i], all[i]))
            return false;
    return true;
}

/* ---- content hash --------------------------------------------------------- */

bool
wb__content_hash(struct wb_slice kind, struct wb_slice content_type,
    struct wb_slice lane, struct wb_slice payload, uint8_t out[32])
{
    /* The default is the same content whether it is given or left out. */
    struct wb_slice type = wb__eq(content_type, WB_LIT("application/json"))
                               ? (struct wb_slice){0}
                               : content_type;
    const struct wb_slice parts[] = {kind, type, lane, payload};

    return wb__sha256(parts, WB_COUNT(parts), out);
}

enum wb_status
wb__head_hash(struct wb_outbox *box, struct wb__head *head, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_CONTENT;
    enum wb_status rc;

    if (head->has_hash || head->state == WB_STATE_DELIVERED)
        return WB_OK; /* a tombstone has no content left */
    rc = wb__db_start(box->db, sql, WB__ARGS(wb__int(head->seq)), err);
    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(box->db, sql, err);
    if (rc == WB_OK)
        head->has_hash = wb__content_hash(wb__db_slice(box->db, sql, 0),
            wb__db_slice(box->db, sql, 1), wb__db_slice(box->db, sql, 2),
            wb__db_slice(box->db, sql, 3), head->hash);
    wb__db_end(box->db, sql);
    if (rc == WB_OK && !head->has_hash)
        return wb__nomem(err, "content hash");
    return rc == WB_EMPTY ? WB_OK : rc;
}

/* ---- changes -------------------------------------------------------------- */

enum wb_status
wb__row_delete(struct wb_outbox *box, int64_t seq, struct wb_err *err)
{
    return wb__db_run(
        box->db, WB__SQL_DELETE, WB__ARGS(wb__int(seq)), NULL, err);
}

enum wb_status
wb__lane_promote(
    struct wb_outbox *box, struct wb_slice lane, struct wb_err *err)
{
    if (lane.len == 0)
        return WB_OK;
    return wb__db_run(
        box->db, WB__SQL_PROMOTE, WB__ARGS(wb__text(lane)), NULL, err);
}

enum wb_status
wb__head_promote(
    struct wb_outbox *box, const struct wb__head *head, struct wb_err *err)
{
    if (head->lane_cut) /* a lane that only SQL can have written */
        return wb__db_run(
            box->db, WB__SQL_PROMOTE_LONG, WB__NO_ARGS, NULL, err);
    return wb__lane_promote(box, wb_slice(head->lane), err);
}

/* ---- counts by kind ------------------------------------------------------- */

struct wb_kind_counts *
wb__kinds_get(struct wb__kinds *kinds, struct wb_slice kind)
{
    size_t at = 0, end = kinds->n;
    struct wb_slice name;

    while (at < end) {
        size_t middle = at + (end - at) / 2;
        int order = wb__cmp(kinds->row[middle].kind, kind);

        if (order == 0)
            return &kinds->row[middle];
        if (order < 0)
            at = middle + 1;
        else
            end = middle;
    }
    if (!wb__arena_grow(&kinds->arena, &kinds->row, kinds->n, &kinds->cap,
            sizeof(*kinds->row)) ||
        !wb__arena_dup(&kinds->arena, kind, &name))
        return NULL;
    memmove(&kinds->row[at + 1], &kinds->row[at],
        (kinds->n++ - at) * sizeof(*kinds->row));
    kinds->row[at] = (struct wb_kind_counts){.kind = name};
    return &kinds->row[at];
}

void
wb__kinds_clear(struct wb__kinds *kinds)
{
    wb__arena_clear(&kinds->arena);
    *kinds = (struct wb__kinds){.arena = kinds->arena};
}

enum wb_status
wb__kinds_report(const struct wb__kinds *kinds, wb_kind_fn *fn, void *ctx)
{
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < kinds->n && rc == WB_OK && fn != NULL; i++)
        rc = fn(ctx, &kinds->row[i]);
    return rc;
}
