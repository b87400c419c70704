/* parser.c - the way through a message: lines of the head, then the body. See
 * parser.h for the guarantees. */
#include "http/parser.h"

#include "http/head.h"

enum state {
    HEAD,
    SIZED, /* p->left bytes of body to come */
    CHUNKS,
    ENDLESS, /* up to the end of the input */
    OVER,
    BAD,
};

enum {
    HEAD_BYTES = 16 << 10,
    FIRST_BYTES = 1000,
    FIELDS = 128,
    BODY_BYTES = 1 << 20
};

void
wb__http_parser_init(struct wb__http_parser *p, const struct wb_env *env,
    enum wb__http_mode mode, const struct wb__http_limits *limits)
{
    *p = (struct wb__http_parser){.mode = mode, .limits = *limits};
    if (p->limits.head_bytes == 0)
        p->limits.head_bytes = HEAD_BYTES;
    if (p->limits.fields == 0)
        p->limits.fields = FIELDS;
    if (p->limits.body_bytes == 0)
        p->limits.body_bytes = BODY_BYTES;
    p->text.env = env;
    p->text.max = p->limits.head_bytes;
}

void
wb__http_parser_fini(struct wb__http_parser *p)
{
    wb__buf_fini(&p->text);
}

void
wb__http_parser_next(struct wb__http_parser *p)
{
    WB_ASSERT(p->state == OVER);
    wb__buf_fini(&p->text);
    wb__http_parser_init(p, p->text.env, p->mode, &p->limits);
}

bool
wb__http_parser_begun(const struct wb__http_parser *p)
{
    return p->state != HEAD || p->raw_bytes > 0;
}

/* ---- head -------------------------------------------------------------- */

/* A field as it came becomes "Name: value\n" in its place, which is never
 * longer. */
static bool
end_field(struct wb__http_parser *p, struct wb_slice line)
{
    struct wb_slice name = {line.ptr, 0}, value;
    char *at = p->text.ptr + p->line;

    while (
        name.len < line.len && wb__is_tchar((unsigned char)line.ptr[name.len]))
        name.len++;
    if (name.len == 0 || name.len == line.len || line.ptr[name.len] != ':')
        return wb__http_refuse(p, 400, "a header line is not NAME: VALUE");
    if (++p->fields > p->limits.fields)
        return wb__http_refuse(p, 431, "too many header fields");
    value = wb__trim(wb__from(line, name.len + 1));
    if (value.len > 0)
        memmove(at + name.len + 2, value.ptr, value.len);
    at[name.len + 1] = ' ';
    value.ptr = at + name.len + 2;
    at[name.len + 2 + value.len] = '\n';
    p->text.len = p->line + name.len + 2 + value.len + 1;
    return wb__http_field(p, name, value);
}

static bool
end_start(struct wb__http_parser *p, struct wb_slice line)
{
    p->text.len--;
    p->text.ptr[p->text.len - 1] = '\n';
    return p->mode == WB__HTTP_REQUESTS ? wb__http_request_line(p, line)
                                        : wb__http_status_line(p, line);
}

static enum state
body_state(const struct wb__http_parser *p)
{
    if (p->bodyless)
        return OVER;
    if (p->head.chunked)
        return CHUNKS;
    if (p->head.has_length || p->mode == WB__HTTP_REQUESTS)
        return SIZED;
    return ENDLESS;
}

static bool
end_head(struct wb__http_parser *p)
{
    p->text.len = p->line;
    if (!(p->mode == WB__HTTP_REQUESTS ? wb__http_settle_request(p)
                                       : wb__http_settle_response(p)))
        return false;
    p->state = body_state(p);
    p->left = p->head.length;
    p->chunks = (struct wb__chunked){.max_body = p->limits.body_bytes,
        .max_overhead = p->limits.head_bytes - p->raw_bytes};
    return true;
}

/* One line is complete in p->text, CR LF and all. */
static bool
end_line(struct wb__http_parser *p)
{
    struct wb_slice line = {p->text.ptr + p->line, p->text.len - p->line - 2};
    bool ok;

    if (line.len == 0 && p->line > 0)
        return end_head(p);
    if (line.len == 0) /* RFC 9112, 2.2 lets one pass; no client needs it */
        return wb__http_refuse(p, 400, "an empty line where a message begins");
    ok = p->line == 0 ? end_start(p, line) : end_field(p, line);
    p->line = p->text.len;
    return ok;
}

/* A line's bytes: CR right before LF, LF right after CR, neither elsewhere. */
static bool
bytes_ok(const struct wb__http_parser *p, struct wb_slice s)
{
    char last = '\0';

    if (p->text.len > p->line)
        last = p->text.ptr[p->text.len - 1];
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if ((last == '\r') != (c == '\n'))
            return false;
        if (c != '\r' && c != '\n' && !wb__http_is_text((unsigned char)c))
            return false;
        last = c;
    }
    return true;
}

/* Most heads come in one piece: memory for all of it, once. */
static void
reserve(struct wb__http_parser *p, struct wb_slice in)
{
    size_t len = in.len < FIRST_BYTES ? in.len : FIRST_BYTES;

    if (p->text.cap == 0)
        wb__buf_reserve(&p->text, len < p->text.max ? len : p->text.max);
}

/* Take the rest of a line, or what there is of it. */
static bool
take_bytes(struct wb__http_parser *p, struct wb_slice *in, bool *ended)
{
    size_t room = p->limits.head_bytes - p->raw_bytes;
    struct wb_slice s = {in->ptr, in->len < room ? in->len : room};
    const char *lf;

    if (room == 0)
        return wb__http_refuse(p, 431, "the head is larger than the limit");
    lf = memchr(s.ptr, '\n', s.len);
    if (lf != NULL)
        s.len = (size_t)(lf - s.ptr) + 1;
    if (!bytes_ok(p, s))
        return wb__http_refuse(
            p, 400, "a control character, or a line that ends without CR LF");
    reserve(p, *in);
    wb__buf_add(&p->text, s);
    if (p->text.failed != WB_OK)
        return wb__http_refuse(p, 503, "out of memory");
    p->raw_bytes += s.len;
    *in = wb__from(*in, s.len);
    *ended = lf != NULL;
    return true;
}

static enum wb__http_event
feed_head(struct wb__http_parser *p, struct wb_slice *in)
{
    while (in->len > 0) {
        bool ended = false;

        if (!take_bytes(p, in, &ended) || (ended && !end_line(p))) {
            p->state = BAD;
            return WB__HTTP_BAD;
        }
        if (p->state != HEAD)
            return WB__HTTP_HEAD;
    }
    return WB__HTTP_MORE;
}

/* ---- body -------------------------------------------------------------- */

static enum wb__http_event
feed_sized(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    if (p->left == 0) {
        p->state = OVER;
        return WB__HTTP_DONE;
    }
    if (in->len == 0)
        return WB__HTTP_MORE;
    piece->ptr = in->ptr;
    piece->len = in->len < p->left ? in->len : (size_t)p->left;
    *in = wb__from(*in, piece->len);
    p->left -= piece->len;
    return WB__HTTP_BODY;
}

static enum wb__http_event
feed_chunks(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    enum wb__http_event event = wb__chunked_feed(&p->chunks, in, piece);

    if (event == WB__HTTP_DONE)
        p->state = OVER;
    if (event == WB__HTTP_BAD) {
        (void)wb__http_refuse(p, p->chunks.status, p->chunks.why);
        p->state = BAD;
    }
    return event;
}

static enum wb__http_event
feed_endless(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    if (in->len == 0)
        return WB__HTTP_MORE;
    if (p->body_bytes == p->limits.body_bytes) {
        (void)wb__http_refuse(p, 413, "the body is larger than the limit");
        p->state = BAD;
        return WB__HTTP_BAD;
    }
    p->left = p->limits.body_bytes - p->body_bytes;
    piece->ptr = in->ptr;
    piece->len = in->len < p->left ? in->len : (size_t)p->left;
    *in = wb__from(*in, piece->len);
    p->body_bytes += piece->len;
    return WB__HTTP_BODY;
}

enum wb__http_event
wb__http_parser_feed(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    switch ((enum state)p->state) {
    case HEAD:
        return feed_head(p, in);
    case SIZED:
        return feed_sized(p, in, piece);
    case CHUNKS:
        return feed_chunks(p, in, piece);
    case ENDLESS:
        return feed_endless(p, in, piece);
    case OVER:
        return WB__HTTP_DONE;
    case BAD:
        break;
    }
    return WB__HTTP_BAD;
}

enum wb__http_event
wb__http_parser_end(struct wb__http_parser *p)
{
    if (!wb__http_parser_begun(p))
        return WB__HTTP_MORE;
    if (p->state == ENDLESS || p->state == OVER ||
        (p->state == SIZED && p->left == 0)) {
        p->state = OVER;
        return WB__HTTP_DONE;
    }
    if (p->state != BAD)
        (void)wb__http_refuse(p, 400, "the message was cut short");
    p->state = BAD;
    return WB__HTTP_BAD;
}
