/* sink_store.c - the messages of a request, and the file of `waybill sink`.
 *
 *  1. The set of ids has those whose line is in the file or in the next flush.
 *  2. No id is ever dropped: beyond IDS_BYTES new ones are refused.
 *  3. Bodies of a batch are the bytes as they arrived, without white space
 *     around them. A batch is accepted whole or refused whole. */
#include "cli/sink_store.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <uv.h>

#include "os/os.h"
#include "waybill/idem.h"

enum {
    LINES_BYTES = 4 << 20,            /* added, before it is full */
    LINE_BYTES = 7 * SINK_BODY_BYTES, /* a request, escaped, on top */
    ID_BYTES = 255,
    LOCK_BYTE = 0,
};
/* 71 million UUIDs, 25 million ids of 255 bytes. */
#define IDS_BYTES (INT64_C(8) << 30)

struct sink_store {
    const struct wb_env *env;
    const char *path;
    struct wb__lockfile lock;
    struct wb_idem *ids;
    struct wb_idem_result result;
    uint64_t lines; /* in the file */
    uint64_t added;
    struct wb__buf text; /* of what was added */
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

/* ---- the messages of a request ------------------------------------------ */

/* "abc" and abc are one id. */
static struct wb_slice
unquote(struct wb_slice s)
{
    if (s.len >= 2 && s.ptr[0] == '"' && s.ptr[s.len - 1] == '"')
        return (struct wb_slice){s.ptr + 1, s.len - 2};
    return s;
}

/* Length of the first element of what is inside a valid array. */
static size_t
element_len(struct wb_slice s)
{
    size_t depth = 0, i;
    bool text = false;

    for (i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (text && c == '\\')
            i++;
        else if (c == '"')
            text = !text;
        else if (!text && (c == '[' || c == '{'))
            depth++;
        else if (!text && (c == ']' || c == '}'))
            depth--;
        else if (!text && c == ',' && depth == 0)
            break;
    }
    return i < s.len ? i : s.len;
}

static bool
next_body(struct sink_messages *m, struct wb_slice *body)
{
    struct wb_slice *rest = &m->bodies;
    size_t len;

    if (m->form == SINK_LINES) {
        while (wb__cut(rest, '\n', body)) {
            *body = wb__trim(*body);
            if (body->len > 0)
                return true;
        }
        return false;
    }
    if (rest->len == 0)
        return false;
    len = element_len(*rest);
    *body = wb__trim((struct wb_slice){rest->ptr, len});
    *rest = wb__from(*rest, len < rest->len ? len + 1 : len);
    return true;
}

static bool
next_id(struct sink_messages *m, struct wb_slice *id)
{
    bool found = wb__cut(&m->ids, ',', id);

    if (found)
        *id = unquote(wb__trim(*id));
    return found;
}

bool
sink_messages_next(struct sink_messages *m)
{
    if (m->n == 0)
        return false;
    m->n--;
    if (m->form != SINK_SINGLE)
        return next_id(m, &m->effect.id) && next_body(m, &m->effect.body);
    m->effect.id = m->ids;
    m->effect.body = m->bodies;
    return true;
}

/* m->ids and m->bodies are set. NULL, or why the batch is refused. */
static const char *
read_batch(struct sink_messages *m, struct wb_slice type)
{
    struct wb_slice id, body = m->bodies;
    size_t n_bodies = 0;
    struct sink_messages ahead;

    m->form = wb__starts(type, WB_LIT("application/x-ndjson")) ? SINK_LINES
                                                               : SINK_ARRAY;
    if (m->form == SINK_ARRAY) {
        if (!wb__json_valid(body, NULL) || wb__trim(body).ptr[0] != '[')
            return "Waybill-Ids without a JSON array as the body";
        body = wb__trim(body);
        m->bodies = wb__trim((struct wb_slice){body.ptr + 1, body.len - 2});
    }
    ahead = *m;
    for (m->n = 0; next_id(&ahead, &id); m->n++)
        if (!sink_id_ok(id))
            return "an id of Waybill-Ids is not 1 to 255 printable characters";
    while (next_body(&ahead, &body))
        n_bodies++;
    return m->n == n_bodies ? NULL
                            : "Waybill-Ids and the body differ in number";
}

const char *
sink_messages_read(struct sink_messages *m, const struct wb__http_head *head,
    struct wb_slice body)
{
    struct wb_slice key = {0}, webhook_id = {0}, type = {0};
    struct wb_slice headers = head->headers, name, value, id;
    const struct {
        struct wb_slice name, *to;
    } known[] = {{WB_LIT("Idempotency-Key"), &key},
        {WB_LIT("webhook-id"), &webhook_id}, {WB_LIT("Waybill-Ids"), &m->ids},
        {WB_LIT("Waybill-Kind"), &m->effect.kind},
        {WB_LIT("Waybill-Key"), &m->effect.key},
        {WB_LIT("Content-Type"), &type}};
    unsigned n_keys = 0;

    *m = (struct sink_messages){
        .n = 1, .bodies = body, .effect = {.path = head->path}};
    while (wb__headers_next(&headers, &name, &value)) {
        n_keys += wb__eq_nocase(name, known[0].name);
        for (size_t i = 0; i < WB_COUNT(known); i++)
            if (wb__eq_nocase(name, known[i].name))
                *known[i].to = value;
    }
    if (m->ids.len > 0)
        return read_batch(m, type);
    id = unquote(n_keys > 0 ? key : webhook_id);
    if (n_keys > 1 || ((n_keys > 0 || id.len > 0) && !sink_id_ok(id)))
        return "the id is not 1 to 255 printable characters, given once";
    m->ids = id;
    return NULL;
}

/* OK: the id is new. EMPTY: a duplicate. Else it is not taken; without memory
 * for its record it is refused until the lease of its claim ends. The record
 * is a mark only: each request has a response of its own. */
static enum wb_status
take_id(struct sink_store *s, struct wb_slice id, struct wb_err *err)
{
    static const struct wb_fingerprint any = {{0}};
    const struct wb_idem_record done = {.status = 200};
    const struct wb_idem_op op = {.key = id};
    enum wb_status status =
        wb_idem_begin(s->ids, &op, &any, NULL, &s->result, err);

    if (status != WB_OK)
        return status;
    if (s->result.answer == WB_IDEM_REPLAY)
        return WB_EMPTY;
    if (s->result.answer != WB_IDEM_ACQUIRED)
        return wb__fail(err, WB_FULL, 0,
            "%s: its ids need more than %lld bytes of memory; choose another "
            "file",
            s->path, (long long)IDS_BYTES);
    return wb_idem_complete(s->ids, &op, s->result.token, &done, err);
}

/* ---- reading back ------------------------------------------------------- */

/* The line being read: as much of its beginning as holds an id. */
struct reading {
    struct sink_store *s;
    char head[sizeof("{\"id\":\"\"") + ID_BYTES];
    size_t head_len;
    char last; /* byte */
};

static enum wb_status
take_line(struct reading *r, struct wb_err *err)
{
    static const struct wb_slice no_id = {"{\"id\":null,", 11};
    static const struct wb_slice begin = {"{\"id\":\"", 7};
    struct wb_slice line = {r->head, r->head_len}, id = {0};
    enum wb_status status = WB_OK;
    bool valid = wb__starts(line, no_id);

    if (wb__starts(line, begin)) {
        line = wb__from(line, begin.len);
        valid = wb__cut(&line, '"', &id) && sink_id_ok(id);
    }
    if (!valid || r->last != '}')
        return wb__fail(err, WB_CORRUPT, 0,
            "%s: line %llu is not an effect of a sink; repair it or choose "
            "another file",
            r->s->path, (unsigned long long)r->s->lines + 1);
    if (id.len > 0)
        status = take_id(r->s, id, err);
    if (status == WB_EMPTY)
        status = WB_OK;
    r->s->lines += status == WB_OK;
    return status;
}

/* Read all lines. Cut off a last one that a kill cut short: it never had a
 * response. A system error is in *sys. */
static enum wb_status
read_lines(struct reading *r, FILE *file, int *sys, struct wb_err *err)
{
    enum wb_status status = WB_OK;
    int64_t at = 0, whole = 0;
    uv_fs_t req;
    int c;

    while (status == WB_OK && (c = getc(file)) != EOF) {
        at++;
        if (c == '\n') {
            status = take_line(r, err);
            r->head_len = 0;
            whole = at;
        } else if (r->head_len < sizeof(r->head)) {
            r->head[r->head_len++] = (char)c;
        }
        r->last = (char)c;
    }
    *sys = ferror(file) ? errno : 0;
    if (status != WB_OK || *sys != 0 || whole == at)
        return status;
    *sys = -uv_fs_ftruncate(NULL, &req, fileno(file), whole, NULL);
    uv_fs_req_cleanup(&req);
    if (*sys == 0) {
        *sys = -uv_fs_fsync(NULL, &req, fileno(file), NULL);
        uv_fs_req_cleanup(&req);
    }
    return WB_OK;
}

/* Make the ids and the count those of the file. */
static enum wb_status
read_back(struct sink_store *s, struct wb_err *err)
{
    const struct wb_idem_opts opts = {.env = s->env,
        .max_records = INT64_MAX,
        .max_bytes = INT64_MAX,
        .identity_bytes = IDS_BYTES}; /* the only limit: it refuses, the others
                                         would drop records */
    struct reading r = {.s = s};
    enum wb_status status;
    FILE *file;
    int sys;

    s->lines = 0;
    wb_idem_close(s->ids);
    s->ids = NULL;
    status = wb_idem_open_memory(&s->ids, &opts, err);
    if (status != WB_OK)
        return status;
    file = fopen(s->path, "r+");
    sys = file == NULL ? errno : 0;
    if (file != NULL) {
        status = read_lines(&r, file, &sys, err);
        (void)fclose(file);
    }
    if (sys != 0)
        return wb__fail(err, WB_UNAVAILABLE, sys, "cannot read back %s: %s",
            s->path, strerror(sys));
    return status;
}

/* ---- lines -------------------------------------------------------------- */

/* NULL: not UTF-8, or with a NUL, which few JSON readers accept. */
static json_t *
text_or_null(struct wb_slice s)
{
    if (s.len == 0 || memchr(s.ptr, '\0', s.len) != NULL)
        return NULL;
    return json_stringn(s.ptr, s.len);
}

static int
on_text(const char *text, size_t len, void *ctx)
{
    struct wb__buf *b = ctx;

    wb__buf_add(b, (struct wb_slice){text, len});
    return b->failed == WB_OK ? 0 : -1;
}

/* Append the line to s->text, or leave that as it was. */
static bool
add_line(
    struct sink_store *s, const struct sink_effect *effect, int64_t received_ms)
{
    struct wb__buf base64 = {.env = s->env, .max = LINE_BYTES};
    struct wb_slice body = effect->body;
    json_t *text = body.len == 0 ? json_string("") : text_or_null(body);
    size_t before = s->text.len;
    json_t *line = json_pack("{s:o?, s:o?}", "id", text_or_null(effect->id),
        "kind", text_or_null(effect->kind));
    bool ok;

    if (effect->key.len > 0)
        (void)json_object_set_new(line, "key", text_or_null(effect->key));
    if (text == NULL) {
        wb__base64(&base64, body);
        if (base64.failed == WB_OK)
            (void)json_object_set_new(
                line, "body_base64", json_stringn(base64.ptr, base64.len));
        wb__buf_fini(&base64);
    } else {
        (void)json_object_set_new(line, "body", text);
    }
    (void)json_object_set_new(line, "received_ms", json_integer(received_ms));
    (void)json_object_set_new(line, "path", text_or_null(effect->path));
    ok = json_object_size(line) >= 5 &&
         json_dump_callback(line, on_text, &s->text, JSON_COMPACT) == 0;
    json_decref(line);
    wb__buf_str(&s->text, "\n");
    if (ok && s->text.failed == WB_OK)
        return true;
    s->text.len = before;
    s->text.failed = WB_OK;
    return false;
}

enum wb_status
sink_store_add(
    struct sink_store *s, const struct sink_effect *effect, int64_t received_ms)
{
    const struct wb_idem_op op = {.key = effect->id};
    enum wb_status status = op.key.len > 0 ? take_id(s, op.key, NULL) : WB_OK;

    if (status != WB_OK)
        return status;
    if (add_line(s, effect, received_ms)) {
        s->added++;
        return WB_OK;
    }
    if (op.key.len > 0)
        WB_ASSERT(wb_idem_forget(s->ids, &op, NULL, NULL) == WB_OK);
    return WB_NOMEM;
}

enum wb_status
sink_store_flush(struct sink_store *s, struct wb_err *err)
{
    enum wb_status status = WB_OK;

    if (s->added == 0)
        return WB_OK;
    status = wb__append_line(s->path, wb__buf_slice(&s->text), true, err);
    if (status == WB_OK)
        s->lines += s->added;
    s->added = 0;
    wb__buf_clear(&s->text);
    /* After a failed sync the file may hold anything, now or later. */
    if (status == WB_OK || status == WB_IO)
        return status;
    return read_back(s, err) == WB_OK ? status : WB_IO;
}

bool
sink_store_is_full(const struct sink_store *s)
{
    return s->text.len > LINES_BYTES;
}

uint64_t
sink_store_count(const struct sink_store *s)
{
    return s->lines;
}

enum wb_status
sink_store_open(struct sink_store **out, const struct wb_env *env,
    const char *path, struct wb_err *err)
{
    struct sink_store *s = wb__alloc(env, sizeof(*s));
    enum wb_status status;

    if (s == NULL)
        return wb__nomem(err, path);
    s->env = s->text.env = env;
    s->text.max = LINES_BYTES + LINE_BYTES;
    s->path = path;
    s->lock.fd = -1;
    status = wb__append_check(path, err);
    if (status == WB_OK)
        status = wb__lockfile_open(&s->lock, path, err);
    if (status == WB_OK && !wb__lockfile_try(&s->lock, LOCK_BYTE))
        status = wb__fail(err, WB_BUSY, 0,
            "%s belongs to another sink that runs; stop it or choose another "
            "file",
            path);
    if (status == WB_OK)
        status = read_back(s, err);
    if (status == WB_OK)
        *out = s;
    else
        sink_store_close(s);
    return status;
}

void
sink_store_close(struct sink_store *s)
{
    if (s == NULL)
        return;
    wb__lockfile_close(&s->lock);
    wb__buf_fini(&s->text);
    wb_idem_result_free(&s->result);
    wb_idem_close(s->ids);
    wb__free(s->env, s);
}
