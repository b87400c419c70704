/* parser.c - the lines of a head, then the body. See parser.h for the
 * guarantees.
 *
 * The chunked coding (RFC 9112, 7.1): a size is 1 to 16 hexadecimal digits,
 * then CR LF or an extension; every line ends in CR LF. */
#include "http/parser.h"

enum parser_state {
    HEAD,
    LENGTH,      /* p->left bytes of body to come */
    UNTIL_CLOSE, /* body up to the end of the input */
    DONE,
    BAD,
    /* a chunked body: what comes next */
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    TRAILER, /* a trailer line, or the last, empty line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
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
    WB_ASSERT(p->state == DONE);
    wb__buf_fini(&p->text);
    wb__http_parser_init(p, p->text.env, p->mode, &p->limits);
}

bool
wb__http_parser_begun(const struct wb__http_parser *p)
{
    return p->state != HEAD || p->raw_bytes > 0;
}

/* ---- head -------------------------------------------------------------- */

/* Rewrite a field as "Name: value\n" in its place, which is never longer. */
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
end_head(struct wb__http_parser *p)
{
    bool is_request = p->mode == WB__HTTP_REQUESTS;

    p->text.len = p->line;
    if (!(is_request ? wb__http_end_request_head(p)
                     : wb__http_end_response_head(p)))
        return false;
    p->left = p->head.length;
    p->state = p->bodyless                        ? DONE
               : p->head.chunked                  ? CHUNK_SIZE
               : p->head.has_length || is_request ? LENGTH
                                                  : UNTIL_CLOSE;
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
    if (line.len == 0) /* RFC 9112, 2.2 allows one; no client needs it */
        return wb__http_refuse(p, 400, "an empty line where a message begins");
    if (p->line > 0) {
        ok = end_field(p, line);
    } else {
        p->text.len--;
        p->text.ptr[p->text.len - 1] = '\n';
        ok = p->mode == WB__HTTP_REQUESTS ? wb__http_request_line(p, line)
                                          : wb__http_status_line(p, line);
    }
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

static size_t
smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Take the rest of a line, or what there is of it. */
static bool
take_bytes(struct wb__http_parser *p, struct wb_slice *in, bool *ended)
{
    size_t max = p->limits.head_bytes - p->raw_bytes;
    struct wb_slice s = {in->ptr, smaller(in->len, max)};
    const char *lf;

    if (max == 0)
        return wb__http_refuse(p, 431, "the head is larger than the limit");
    lf = memchr(s.ptr, '\n', s.len);
    if (lf != NULL)
        s.len = (size_t)(lf - s.ptr) + 1;
    if (!bytes_ok(p, s))
        return wb__http_refuse(
            p, 400, "a control character, or a line that ends without CR LF");
    if (p->text.cap == 0) /* most heads come whole: allocate once */
        wb__buf_reserve(
            &p->text, smaller(smaller(in->len, FIRST_BYTES), p->text.max));
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

/* The next piece of the body, at most p->left bytes. */
static enum wb__http_event
take_body(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    piece->ptr = in->ptr;
    piece->len = in->len < p->left ? in->len : (size_t)p->left;
    *in = wb__from(*in, piece->len);
    p->left -= piece->len;
    p->body_bytes += piece->len;
    return WB__HTTP_BODY;
}

static enum wb__http_event
refuse_body(struct wb__http_parser *p, int status, const char *why)
{
    (void)wb__http_refuse(p, status, why);
    p->state = BAD;
    return WB__HTTP_BAD;
}

static int
hex_value(unsigned char b)
{
    if (b >= '0' && b <= '9')
        return b - '0';
    b |= 0x20;
    return b >= 'a' && b <= 'f' ? b - 'a' + 10 : -1;
}

/* A byte of a chunk size, or the first one after it. */
static void
take_size(struct wb__http_parser *p, unsigned char b)
{
    int v = hex_value(b);

    if (v >= 0 && ++p->digits <= 16)
        p->left = p->left << 4 | (unsigned)v;
    else if (v >= 0)
        refuse_body(p, 400, "a chunk size is too long");
    else if (p->digits == 0 || (b != ';' && b != '\r'))
        refuse_body(p, 400, "a chunk size is not hexadecimal digits");
    else if (p->left > p->limits.body_bytes - p->body_bytes)
        refuse_body(p, 413, "the body is larger than the limit");
    else
        p->state = b == ';' ? CHUNK_EXTENSION : CHUNK_SIZE_LF;
}

/* One byte between the data of two chunks, or after the last one. */
static void
take_chunk_byte(struct wb__http_parser *p, unsigned char b)
{
    static const char crlf[] = "a chunk does not end in CR LF";
    static const char trailer[] = "a trailer line is malformed";
    static const struct {
        char end; /* leads to the state `next` */
        enum parser_state next;
        bool (*is_other)(unsigned char c); /* what leads to `other` */
        enum parser_state other;
        const char *why; /* any other byte is refused */
        bool counted;    /* as part of the head, which is limited */
    } rules[] = {
        [CHUNK_EXTENSION] = {'\r', CHUNK_SIZE_LF, wb__http_is_text,
            CHUNK_EXTENSION, "a chunk extension has a control character", true},
        [CHUNK_SIZE_LF] = {'\n', CHUNK_DATA, NULL, BAD,
            "a chunk size does not end in CR LF", false},
        [CHUNK_DATA_CR] = {'\r', CHUNK_DATA_LF, NULL, BAD, crlf, false},
        [CHUNK_DATA_LF] = {'\n', CHUNK_SIZE, NULL, BAD, crlf, false},
        [TRAILER] = {'\r', LAST_LF, wb__is_tchar, TRAILER_NAME, trailer, true},
        [TRAILER_NAME] = {':', TRAILER_VALUE, wb__is_tchar, TRAILER_NAME,
            trailer, true},
        [TRAILER_VALUE] = {'\r', TRAILER_LF, wb__http_is_text, TRAILER_VALUE,
            trailer, true},
        [TRAILER_LF] = {'\n', TRAILER, NULL, BAD, trailer, true},
        [LAST_LF] = {'\n', DONE, NULL, BAD, trailer, true},
    };
    int from = p->state;

    if (rules[from].counted && p->raw_bytes == p->limits.head_bytes) {
        refuse_body(
            p, 431, "chunk extensions and trailers are larger than the limit");
        return;
    }
    p->raw_bytes += rules[from].counted;
    if (b == (unsigned char)rules[from].end)
        p->state = (int)rules[from].next;
    else if (rules[from].is_other != NULL && rules[from].is_other(b))
        p->state = (int)rules[from].other;
    else
        refuse_body(p, 400, rules[from].why);
    if (p->state == CHUNK_DATA && p->left == 0)
        p->state = TRAILER; /* the last chunk has size 0 */
    if (p->state == CHUNK_SIZE)
        p->digits = 0;
}

static enum wb__http_event
feed_chunks(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    while (in->len > 0) {
        unsigned char b = (unsigned char)in->ptr[0];

        if (p->state == CHUNK_DATA) {
            take_body(p, in, piece);
            if (p->left == 0)
                p->state = CHUNK_DATA_CR;
            return WB__HTTP_BODY;
        }
        *in = wb__from(*in, 1);
        if (p->state == CHUNK_SIZE)
            take_size(p, b);
        else
            take_chunk_byte(p, b);
        if (p->state == BAD)
            return WB__HTTP_BAD;
        if (p->state == DONE)
            return WB__HTTP_DONE;
    }
    return WB__HTTP_MORE;
}

enum wb__http_event
wb__http_parser_feed(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece)
{
    switch (p->state) {
    case HEAD:
        return feed_head(p, in);
    case LENGTH:
        if (p->left > 0)
            return in->len == 0 ? WB__HTTP_MORE : take_body(p, in, piece);
        p->state = DONE;
        return WB__HTTP_DONE;
    case UNTIL_CLOSE:
        if (in->len == 0)
            return WB__HTTP_MORE;
        p->left = p->limits.body_bytes - p->body_bytes;
        if (p->left == 0)
            return refuse_body(p, 413, "the body is larger than the limit");
        return take_body(p, in, piece);
    case DONE:
        return WB__HTTP_DONE;
    case BAD:
        return WB__HTTP_BAD;
    default:
        return feed_chunks(p, in, piece);
    }
}

enum wb__http_event
wb__http_parser_end(struct wb__http_parser *p)
{
    if (!wb__http_parser_begun(p))
        return WB__HTTP_MORE;
    if (p->state == UNTIL_CLOSE || p->state == DONE ||
        (p->state == LENGTH && p->left == 0)) {
        p->state = DONE;
        return WB__HTTP_DONE;
    }
    return p->state == BAD ? WB__HTTP_BAD
                           : refuse_body(p, 400, "the message was cut short");
}
