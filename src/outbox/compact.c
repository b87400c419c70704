/* compact.c - make room where the file is full of tombstones.
 *
 * A tombstone is a row that has lost its payload. It stays on its page, which
 * it leaves nearly empty: SQLite joins a page with the next one when a row
 * leaves it, not when a row shrinks. So each tombstone is moved to another
 * place and back.
 *
 * (1) Only an accept that finds the file full compacts, up to STEPS times ROWS
 *     tombstones, in its own transaction.
 * (2) waybill_meta holds how far that has come, in order of confirmation, so
 *     that each tombstone is moved once. */
#include "outbox/outbox_internal.h"

enum {
    ROWS = 256,
    STEPS = 16
};

struct place {
    int64_t due_ms, seq;
};

static enum wb_status
read_meta(
    struct wb_outbox *box, const char *name, int64_t *n, struct wb_err *err)
{
    enum wb_status rc = wb__db_one_int(
        box->db, WB__SQL_META_GET, WB__ARGS(wb__text(wb_slice(name))), n, err);

    if (rc == WB_EMPTY)
        *n = 0;
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
write_meta(
    struct wb_outbox *box, const char *name, int64_t n, struct wb_err *err)
{
    return wb__db_run(box->db, WB__SQL_META_SET,
        WB__ARGS(wb__text(wb_slice(name)), wb__int(n)), NULL, err);
}

/* The tombstones behind at. */
static enum wb_status
read_places(struct wb_outbox *box, struct place at, struct place places[ROWS],
    size_t *n, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_TOMBSTONES;
    enum wb_status rc = wb__db_start(box->db, sql,
        WB__ARGS(wb__int(at.due_ms), wb__int(at.seq), wb__int(ROWS)), err);

    *n = 0;
    if (rc != WB_OK)
        return rc;
    while (*n < ROWS && (rc = wb__db_next(box->db, sql, err)) == WB_OK)
        places[(*n)++] = (struct place){
            wb__db_int(box->db, sql, 1), wb__db_int(box->db, sql, 0)};
    wb__db_end(box->db, sql);
    return rc == WB_EMPTY ? WB_OK : rc;
}

static enum wb_status
move(struct wb_outbox *box, int64_t from, int64_t to, struct wb_err *err)
{
    return wb__db_run(
        box->db, WB__SQL_MOVE, WB__ARGS(wb__int(from), wb__int(to)), NULL, err);
}

enum wb_status
wb__compact(
    struct wb_outbox *box, int64_t most, int64_t *bytes, struct wb_err *err)
{
    struct place at = {0, 0}, places[ROWS];
    enum wb_status rc;
    size_t n = ROWS;

    if (box->db->engine->side_by_side) /* PostgreSQL's vacuum does that */
        return WB_OK;
    rc = read_meta(box, "compacted_due_ms", &at.due_ms, err);
    if (rc == WB_OK)
        rc = read_meta(box, "compacted_seq", &at.seq, err);
    for (int step = 0; step < STEPS && n == ROWS && *bytes >= most; step++) {
        if (rc == WB_OK)
            rc = read_places(box, at, places, &n, err);
        for (size_t i = 0; i < n && rc == WB_OK; i++)
            rc = move(box, places[i].seq, -places[i].seq, err);
        for (size_t i = 0; i < n && rc == WB_OK; i++)
            rc = move(box, -places[i].seq, places[i].seq, err);
        if (rc == WB_OK)
            rc = wb__db_bytes(box->db, bytes, err);
        if (rc != WB_OK)
            return rc;
        if (n > 0)
            at = places[n - 1];
    }
    if (rc == WB_OK)
        rc = write_meta(box, "compacted_due_ms", at.due_ms, err);
    return rc != WB_OK ? rc : write_meta(box, "compacted_seq", at.seq, err);
}
