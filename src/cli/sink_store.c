/* sink_store.c - see sink_store.h.
 *
 *  1. An id is done in the store if its line is in the file, or noted for the
 *     next flush.
 *  2. No id is ever dropped: beyond IDS_BYTES new ones are refused. */
#include "cli/sink_store.h"

#include <jansson.h>
#include <uv.h>

#include "os/os.h"
#include "waybill/idem.h"

enum {
    LINES_BYTES = 4 << 20,            /* noted, before it is full */
    LINE_BYTES = 7 * SINK_BODY_BYTES, /* a request, escaped, on top */
    ID_BYTES = 255,
    LOCK_BYTE = 0,
};
/* 71 million UUIDs, 25 million ids of 255 bytes. */
#define IDS_BYTES (INT64_C(8) << 30)

struct sink_effects {
    const struct wb_env *env;
    const char *path;
    struct wb__lockfile lock;
    struct wb_idem *ids;
    struct wb_idem_result result;
    uint64_t lines; /* in the file */
    uint64_t noted;
    struct wb__buf text; /* of what was noted */
};

bool
sink_id_ok(struct wb_slice id)
{
    for (size_t i = 0; i < id.len; i++)
        if (id.ptr[i] <= ' ' || id.ptr[i] > '~' || id.ptr[i] == '"' ||
            id.ptr[i] == '\\')
            return false;
    return id.len > 0 && id.len <= ID_BYTES;
}

/* ---- ids --------------------------------------------------------------- */

static enum wb_status
ids_full(const struct sink_effects *e, struct wb_err *err)
{
    return wb__fail(err, WB_FULL, 0,
        "%s: its ids need more than %lld bytes of memory; choose another file",
        e->path, (long long)IDS_BYTES);
}

/* OK: nobody had it. EMPTY: a duplicate. Else not taken; without memory for
 * the record it is refused until the lease of its claim is over. The record
 * is no more than a mark: an answer tells of its own request. */
static enum wb_status
take_id(struct sink_effects *e, struct wb_slice id, struct wb_err *err)
{
    static const struct wb_fingerprint any = {{0}};
    const struct wb_idem_record done = {.status = 200};
    const struct wb_idem_op op = {.key = id};
    enum wb_status status =
        wb_idem_begin(e->ids, &op, &any, NULL, &e->result, err);

    if (status != WB_OK)
        return status;
    if (e->result.answer == WB_IDEM_REPLAY)
        return WB_EMPTY;
    if (e->result.answer != WB_IDEM_ACQUIRED)
        return ids_full(e, err);
    return wb_idem_complete(e->ids, &op, e->result.token, &done, err);
}

/* A store without an id. Nothing is dropped from it: whose ids use up the
 * limit gets no more. */
static enum wb_status
no_ids(struct sink_effects *e, struct wb_err *err)
{
    const struct wb_idem_opts opts = {.env = e->env,
        .max_records = INT64_MAX,
        .max_bytes = INT64_MAX,
        .identity_bytes = IDS_BYTES};

    wb_idem_close(e->ids);
    e->ids = NULL;
    return wb_idem_open_memory(&e->ids, &opts, err);
}

/* ---- reading back ------------------------------------------------------ */

/* The line being read: as much of its beginning as holds an id. */
struct reading {
    struct sink_effects *e;
    char head[sizeof("{\"id\":\"\"") + ID_BYTES];
    size_t head_len;
    char last;         /* byte */
    int64_t at, whole; /* bytes read; up to the end of the last whole line */
};

static enum wb_status
line_wrong(const struct reading *r, struct wb_err *err)
{
    return wb__fail(err, WB_CORRUPT, 0,
        "%s: line %llu is no effect of a sink; repair it or choose another "
        "file",
        r->e->path, (unsigned long long)r->e->lines + 1);
}

static enum wb_status
take_line(struct reading *r, struct wb_err *err)
{
    struct wb_slice line = {r->head, r->head_len}, id;
    enum wb_status status;

    if (r->last != '}')
        return line_wrong(r, err);
    if (wb__starts(line, WB_LIT("{\"id\":\""))) {
        line = wb__from(line, sizeof("{\"id\":\"") - 1);
        if (!wb__cut(&line, '"', &id) || !sink_id_ok(id))
            return line_wrong(r, err);
        status = take_id(r->e, id, err);
        if (status != WB_OK && status != WB_EMPTY)
            return status;
    } else if (!wb__starts(line, WB_LIT("{\"id\":null,"))) {
        return line_wrong(r, err);
    }
    r->e->lines++;
    return WB_OK;
}

static enum wb_status
take_block(struct reading *r, struct wb_slice block, struct wb_err *err)
{
    enum wb_status status = WB_OK;

    for (size_t i = 0; i < block.len && status == WB_OK; i++) {
        char c = block.ptr[i];

        r->at++;
        if (c == '\n') {
            status = take_line(r, err);
            r->head_len = 0;
            r->whole = r->at;
        } else if (r->head_len < sizeof(r->head)) {
            r->head[r->head_len++] = c;
        }
        r->last = c;
    }
    return status;
}

static enum wb_status
file_fail(const struct sink_effects *e, const char *what, ssize_t rc,
    struct wb_err *err)
{
    return wb__fail(err, WB_UNAVAILABLE, (int)-rc, "cannot %s %s: %s", what,
        e->path, uv_strerror((int)rc));
}

static enum wb_status
read_all(struct reading *r, uv_file fd, struct wb_err *err)
{
    static char block[64 << 10];
    uv_buf_t buf = uv_buf_init(block, sizeof(block));
    enum wb_status status = WB_OK;
    uv_fs_t req;
    ssize_t n = 1;

    while (n > 0 && status == WB_OK) {
        n = uv_fs_read(NULL, &req, fd, &buf, 1, -1, NULL);
        uv_fs_req_cleanup(&req);
        if (n < 0)
            return file_fail(r->e, "read", n, err);
        status = take_block(r, (struct wb_slice){block, (size_t)n}, err);
    }
    return status;
}

/* A line that a kill cut short was never answered for. */
static enum wb_status
cut_torn(struct reading *r, uv_file fd, struct wb_err *err)
{
    uv_fs_t req;
    int rc;

    if (r->whole == r->at)
        return WB_OK;
    rc = uv_fs_ftruncate(NULL, &req, fd, r->whole, NULL);
    uv_fs_req_cleanup(&req);
    if (rc == 0) {
        rc = uv_fs_fsync(NULL, &req, fd, NULL);
        uv_fs_req_cleanup(&req);
    }
    return rc == 0 ? WB_OK : file_fail(r->e, "cut the torn line of", rc, err);
}

/* Make the ids and the count those of the file. */
static enum wb_status
read_back(struct sink_effects *e, struct wb_err *err)
{
    struct reading r = {.e = e};
    enum wb_status status = no_ids(e, err);
    uv_fs_t req;
    uv_file fd;

    if (status != WB_OK)
        return status;
    e->lines = 0;
    fd = uv_fs_open(NULL, &req, e->path, UV_FS_O_RDWR, 0, NULL);
    uv_fs_req_cleanup(&req);
    if (fd < 0)
        return file_fail(e, "open", fd, err);
    status = read_all(&r, fd, err);
    if (status == WB_OK)
        status = cut_torn(&r, fd, err);
    (void)uv_fs_close(NULL, &req, fd, NULL);
    uv_fs_req_cleanup(&req);
    return status;
}

/* ---- lines ------------------------------------------------------------- */

/* NULL is no text: bytes that are no UTF-8, or a NUL that few JSON readers
 * take. */
static json_t *
text_or_null(struct wb_slice s)
{
    if (s.len == 0 || memchr(s.ptr, '\0', s.len) != NULL)
        return NULL;
    return json_stringn(s.ptr, s.len);
}

static void
add_body(const struct sink_effects *e, json_t *line, struct wb_slice body)
{
    struct wb__buf b = {.env = e->env, .max = LINE_BYTES};
    json_t *text = body.len == 0 ? json_string("") : text_or_null(body);

    if (text != NULL) {
        (void)json_object_set_new(line, "body", text);
        return;
    }
    wb__base64(&b, body);
    if (b.failed == WB_OK)
        (void)json_object_set_new(
            line, "body_base64", json_stringn(b.ptr, b.len));
    wb__buf_fini(&b);
}

static int
on_text(const char *text, size_t len, void *ctx)
{
    struct wb__buf *b = ctx;

    wb__buf_add(b, (struct wb_slice){text, len});
    return b->failed == WB_OK ? 0 : -1;
}

/* Append the line to e->text, or leave that as it was. */
static bool
add_line(
    struct sink_effects *e, const struct sink_item *item, int64_t received_ms)
{
    size_t before = e->text.len;
    json_t *line = json_pack("{s:o?, s:o?}", "id", text_or_null(item->id),
        "kind", text_or_null(item->kind));
    bool ok;

    if (item->key.len > 0)
        (void)json_object_set_new(line, "key", text_or_null(item->key));
    add_body(e, line, item->body);
    (void)json_object_set_new(line, "received_ms", json_integer(received_ms));
    (void)json_object_set_new(line, "path", text_or_null(item->path));
    ok = json_object_size(line) >= 5 &&
         json_dump_callback(line, on_text, &e->text, JSON_COMPACT) == 0;
    json_decref(line);
    wb__buf_str(&e->text, "\n");
    if (ok && e->text.failed == WB_OK)
        return true;
    e->text.len = before;
    e->text.failed = WB_OK;
    return false;
}

enum wb_status
sink_effects_add(
    struct sink_effects *e, const struct sink_item *item, int64_t received_ms)
{
    const struct wb_idem_op op = {.key = item->id};
    enum wb_status status = op.key.len > 0 ? take_id(e, op.key, NULL) : WB_OK;

    if (status != WB_OK)
        return status;
    if (add_line(e, item, received_ms)) {
        e->noted++;
        return WB_OK;
    }
    if (op.key.len > 0)
        WB_ASSERT(wb_idem_forget(e->ids, &op, NULL, NULL) == WB_OK);
    return WB_NOMEM;
}

enum wb_status
sink_effects_flush(struct sink_effects *e, struct wb_err *err)
{
    enum wb_status status = WB_OK;

    if (e->noted == 0)
        return WB_OK;
    status = wb__append_line(e->path, wb__buf_slice(&e->text), err);
    if (status == WB_OK)
        e->lines += e->noted;
    e->noted = 0;
    wb__buf_clear(&e->text);
    /* After a failed sync the file may hold anything, now or later. */
    if (status == WB_OK || status == WB_IO)
        return status;
    return read_back(e, err) == WB_OK ? status : WB_IO;
}

bool
sink_effects_full(const struct sink_effects *e)
{
    return e->text.len > LINES_BYTES;
}

uint64_t
sink_effects_count(const struct sink_effects *e)
{
    return e->lines;
}

/* ---- open and close ---------------------------------------------------- */

static enum wb_status
open_file(struct sink_effects *e, struct wb_err *err)
{
    enum wb_status status =
        wb__append_line(e->path, (struct wb_slice){NULL, 0}, err);

    if (status == WB_OK)
        status = wb__lockfile_open(&e->lock, e->path, err);
    if (status != WB_OK)
        return status;
    if (!wb__lockfile_try(&e->lock, LOCK_BYTE))
        return wb__fail(err, WB_BUSY, 0,
            "%s belongs to another sink that runs; stop it or choose another "
            "file",
            e->path);
    return read_back(e, err);
}

enum wb_status
sink_effects_open(struct sink_effects **out, const struct wb_env *env,
    const char *path, struct wb_err *err)
{
    struct sink_effects *e = wb__alloc(env, sizeof(*e));
    enum wb_status status;

    if (e == NULL)
        return wb__nomem(err, path);
    e->env = e->text.env = env;
    e->text.max = LINES_BYTES + LINE_BYTES;
    e->path = path;
    e->lock.fd = -1;
    status = open_file(e, err);
    if (status == WB_OK)
        *out = e;
    else
        sink_effects_close(e);
    return status;
}

void
sink_effects_close(struct sink_effects *e)
{
    if (e == NULL)
        return;
    wb__lockfile_close(&e->lock);
    wb__buf_fini(&e->text);
    wb_idem_result_free(&e->result);
    wb_idem_close(e->ids);
    wb__free(e->env, e);
}
