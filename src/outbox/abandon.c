/* abandon.c - abandon a message; if the options ask for it, accept one about it
 * in the same transaction. */
#include "outbox/outbox_internal.h"

enum {
    PAYLOAD_MAX_BYTES = 65536
};

/* "name":"value" or "name":null, after a comma. */
static void
add_text(struct wb__buf *b, const char *name, struct wb_slice value)
{
    char line[4 * 2048 + 1];
    const char *c;

    (void)wb__one_line(value, 2048, line);
    wb__buf_fmt(b, ",\"%s\":%s", name, value.len > 0 ? "\"" : "null");
    for (c = line; value.len > 0 && *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            wb__buf_str(b, "\\");
        wb__buf_add(b, (struct wb_slice){c, 1});
    }
    wb__buf_str(b, value.len > 0 ? "\"" : "");
}

/* EMPTY: the message is one of this kind itself. */
static enum wb_status
make_payload(
    struct wb_outbox *box, int64_t seq, struct wb__buf *b, struct wb_err *err)
{
    static const char *const names[] = {
        "kind", "key", "lane", "reason", "last_error"};
    const enum wb__sql sql = WB__SQL_ABANDONED_ROW;
    struct wb__db *db = box->db;
    enum wb_status rc = wb__db_start(db, sql, WB__ARGS(wb__int(seq)), err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK &&
        wb__eq(wb__db_slice(db, sql, 2), wb_slice(box->on_abandoned)))
        rc = WB_EMPTY;
    if (rc == WB_OK) {
        wb__buf_fmt(b, "{\"attempts\":%lld", (long long)wb__db_int(db, sql, 0));
        add_text(b, "id", wb__db_slice(db, sql, 1));
        for (size_t i = 0; i < WB_COUNT(names); i++)
            add_text(b, names[i], wb__db_slice(db, sql, (int)i + 2));
        wb__buf_str(b, "}");
    }
    wb__db_end(db, sql);
    if (rc == WB_OK && b->failed != WB_OK)
        rc = wb__nomem(err, "the message about an abandoned one");
    return rc;
}

/* Accept a message about an abandoned one. */
static enum wb_status
alert(struct wb_outbox *box, int64_t seq, struct wb_err *err)
{
    struct wb__buf b = {.env = box->env, .max = PAYLOAD_MAX_BYTES};
    struct wb__val none = {.type = WB__NULL};
    int64_t now_ms = wb__outbox_now(box);
    uint8_t random[10];
    struct wb_id id;
    enum wb_status rc;

    rc = make_payload(box, seq, &b, err);
    if (rc == WB_OK) {
        wb__random_take(box, now_ms, random, sizeof(random));
        id = wb__uuid7(now_ms, random);
        rc = wb__db_run(box->db, WB__SQL_INSERT,
            WB__ARGS(wb__text(wb_slice(id.text)),
                wb__text(wb_slice(box->on_abandoned)), wb__int(now_ms),
                wb__int(now_ms), none, none, none, wb__int(0), none, none, none,
                wb__blob(wb__buf_slice(&b))),
            NULL, err);
        box->db->wake = true;
    }
    wb__buf_fini(&b);
    return rc == WB_EMPTY ? WB_OK : rc;
}

enum wb_status
wb__abandon(struct wb_outbox *box, int64_t seq, struct wb_slice lane,
    const char *reason, struct wb_slice error, struct wb_err *err)
{
    int64_t now_ms = wb__outbox_now(box);
    int64_t until_ms = wb__sat_add(now_ms, box->opts.keep_abandoned_ms);
    enum wb_status rc = wb__db_run(box->db, WB__SQL_ABANDON,
        WB__ARGS(wb__int(seq), wb__int(until_ms), wb__text(wb_slice(reason)),
            wb__text_or_null(error), wb__int(now_ms)),
        NULL, err);

    if (rc == WB_OK && box->on_abandoned[0] != '\0')
        rc = alert(box, seq, err);
    return rc != WB_OK ? rc : wb__lane_promote(box, lane, err);
}
