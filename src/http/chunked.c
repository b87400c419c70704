/* chunked.c - the chunked transfer coding (RFC 9112, 7.1), byte by byte.
 *
 *  1. A size is 1 to 16 hexadecimal digits, then CR LF or an extension; lines
 *     end in CR LF and in nothing else.
 *  2. Extensions and trailers are held to the rules of fields, counted, and
 *     dropped. */
#include "http/chunked.h"

enum state {
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* at the beginning of a line of the trailer section */
    NAME,
    VALUE,
    VALUE_LF,
    LAST_LF,
    OVER,
    BAD,
};

static void
refuse(struct wb__chunked *c, int status, const char *why)
{
    c->state = BAD;
    c->status = status;
    c->why = why;
}

/* Go on to next if ok, else refuse. */
static void
move(struct wb__chunked *c, bool ok, enum state next, const char *why)
{
    if (ok)
        c->state = next;
    else
        refuse(c, 400, why);
}

static int
hex_value(unsigned char b)
{
    if (b >= '0' && b <= '9')
        return b - '0';
    b |= 0x20;
    return b >= 'a' && b <= 'f' ? b - 'a' + 10 : -1;
}

/* The size is known to be over: its digits are followed by `;` or CR. */
static void
end_size(struct wb__chunked *c, unsigned char b)
{
    if (c->digits == 0 || (b != ';' && b != '\r'))
        refuse(c, 400, "a chunk size is not hexadecimal digits");
    else if (c->size > c->max_body - c->body)
        refuse(c, 413, "the body is larger than the limit");
    else
        c->state = b == ';' ? EXTENSION : SIZE_LF;
}

static void
step_size(struct wb__chunked *c, unsigned char b)
{
    int v = hex_value(b);

    if (v < 0)
        end_size(c, b);
    else if (++c->digits > 16)
        refuse(c, 400, "a chunk size is too long");
    else
        c->size = c->size << 4 | (unsigned)v;
}

/* Bytes that are neither data nor size: bounded, or an endless extension
 * would cost nothing to send. */
static bool
count(struct wb__chunked *c)
{
    if (c->overhead++ < c->max_overhead)
        return true;
    refuse(c, 431, "chunk extensions and trailers are larger than the limit");
    return false;
}

static void
step_trailer(struct wb__chunked *c, unsigned char b)
{
    static const char wrong[] = "a trailer line is malformed";

    if (!count(c))
        return;
    switch (c->state) {
    case TRAILER:
        if (b == '\r')
            c->state = LAST_LF;
        else
            move(c, wb__is_tchar(b), NAME, wrong);
        break;
    case NAME:
        if (b == ':')
            c->state = VALUE;
        else
            move(c, wb__is_tchar(b), NAME, wrong);
        break;
    case VALUE:
        if (b == '\r')
            c->state = VALUE_LF;
        else
            move(c, wb__http_is_text(b), VALUE, wrong);
        break;
    case VALUE_LF:
        move(c, b == '\n', TRAILER, wrong);
        break;
    default:
        move(c, b == '\n', OVER, wrong);
        break;
    }
}

static void
step(struct wb__chunked *c, unsigned char b)
{
    static const char wrong[] = "a chunk does not end in CR LF";

    switch (c->state) {
    case SIZE:
        step_size(c, b);
        break;
    case EXTENSION:
        if (!count(c))
            break;
        if (b == '\r')
            c->state = SIZE_LF;
        else
            move(c, wb__http_is_text(b), EXTENSION,
                "a chunk extension has a control character");
        break;
    case SIZE_LF:
        move(c, b == '\n', c->size > 0 ? DATA : TRAILER,
            "a chunk size does not end in CR LF");
        break;
    case DATA_CR:
        move(c, b == '\r', DATA_LF, wrong);
        break;
    case DATA_LF:
        c->digits = 0;
        move(c, b == '\n', SIZE, wrong);
        break;
    default:
        step_trailer(c, b);
        break;
    }
}

static void
take_data(struct wb__chunked *c, struct wb_slice *in, struct wb_slice *piece)
{
    piece->ptr = in->ptr;
    piece->len = in->len < c->size ? in->len : (size_t)c->size;
    *in = wb__from(*in, piece->len);
    c->size -= piece->len;
    c->body += piece->len;
    if (c->size == 0)
        c->state = DATA_CR;
}

enum wb__http_event
wb__chunked_feed(
    struct wb__chunked *c, struct wb_slice *in, struct wb_slice *piece)
{
    while (in->len > 0 && c->state != OVER && c->state != BAD) {
        if (c->state == DATA) {
            take_data(c, in, piece);
            return WB__HTTP_BODY;
        }
        step(c, (unsigned char)in->ptr[0]);
        *in = wb__from(*in, 1);
    }
    if (c->state == BAD)
        return WB__HTTP_BAD;
    return c->state == OVER ? WB__HTTP_DONE : WB__HTTP_MORE;
}
