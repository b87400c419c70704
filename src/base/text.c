/* text.c - UTF-8, single lines, base64, UUIDs. */
#include "base/base.h"

/* Length of the UTF-8 character at s[0] and its code point; 0 if there is no
 * valid one (RFC 3629: no overlong forms, no surrogates, up to U+10FFFF). */
static size_t
utf8_next(struct wb_slice s, uint32_t *point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t len;
    uint32_t c = p[0];

    if (c < 0x80) {
        *point = c;
        return 1;
    }
    len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || len > s.len)
        return 0;
    c &= 0x7fU >> len;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fU);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *point = c;
    return len;
}

static bool
is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

static bool
is_valid(struct wb_slice s, bool controls)
{
    uint32_t c;
    size_t len;

    for (size_t i = 0; i < s.len; i += len) {
        len = 1;
        if (s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f)
            continue; /* as nearly all are */
        len = utf8_next(wb__from(s, i), &c);
        if (len == 0 || (!controls && is_control(c)))
            return false;
    }
    return true;
}

bool
wb__utf8_valid(struct wb_slice s)
{
    return is_valid(s, true);
}

bool
wb__printable(struct wb_slice s)
{
    return is_valid(s, false);
}

size_t
wb__one_line(struct wb_slice s, size_t max_chars, char *out)
{
    size_t n = 0, chars = 0, step;
    bool gap = false;

    for (size_t i = 0; i < s.len && chars < max_chars; i += step) {
        uint32_t c = 0;

        step = utf8_next(wb__from(s, i), &c);
        if (step != 0 && (c == ' ' || is_control(c))) {
            gap = n > 0;
            continue;
        }
        if (gap) {
            out[n++] = ' ';
            gap = false;
            if (++chars == max_chars)
                break;
        }
        memcpy(out + n, step == 0 ? "?" : s.ptr + i, step == 0 ? 1 : step);
        step = step == 0 ? 1 : step;
        n += step;
        chars++;
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    out[n] = '\0';
    return n;
}

void
wb__base64(struct wb__buf *b, struct wb_slice bytes)
{
    static const char digit[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)bytes.ptr;
    char *out;

    if (bytes.len > b->max) {
        b->failed = WB_TOOBIG;
        return;
    }
    out = wb__buf_room(b, (bytes.len + 2) / 3 * 4);
    if (out == NULL)
        return;
    for (size_t left = bytes.len; left > 0; p += 3, out += 4) {
        uint32_t v = (uint32_t)p[0] << 16;

        v |= left > 1 ? (uint32_t)p[1] << 8 : 0;
        v |= left > 2 ? p[2] : 0;
        out[0] = digit[v >> 18];
        out[1] = digit[v >> 12 & 63];
        out[2] = '=';
        out[3] = '=';
        if (left > 1)
            out[2] = digit[v >> 6 & 63];
        if (left > 2)
            out[3] = digit[v & 63];
        left -= left > 3 ? 3 : left;
    }
}

/* ---- UUIDs: version 7 (RFC 9562, section 5.7) and the canonical text ---- */

static const char hex[] = "0123456789abcdef";

static bool
is_dash(int at)
{
    return at == 8 || at == 13 || at == 18 || at == 23;
}

struct wb_id
wb__uuid7(int64_t wall_ms, const uint8_t random[10])
{
    uint8_t b[16];
    struct wb_id id = {""};

    for (int i = 0; i < 6; i++)
        b[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
    memcpy(b + 6, random, 10);
    b[6] = (uint8_t)(0x70 | (b[6] & 0x0f));
    b[8] = (uint8_t)(0x80 | (b[8] & 0x3f));
    for (int at = 0, nibble = 0; at < WB_ID_LEN; at++) {
        if (is_dash(at)) {
            id.text[at] = '-';
            continue;
        }
        id.text[at] = hex[b[nibble / 2] >> (nibble % 2 ? 0 : 4) & 15];
        nibble++;
    }
    return id;
}

bool
wb__uuid_parse(struct wb_slice s, struct wb_id *out)
{
    struct wb_id id = {""};

    if (s.len != WB_ID_LEN)
        return false;
    for (int i = 0; i < WB_ID_LEN; i++) {
        char c = s.ptr[i];

        if (c >= 'A' && c <= 'F')
            c = (char)(c + ('a' - 'A'));
        if (is_dash(i) ? c != '-' : c == '\0' || strchr(hex, c) == NULL)
            return false;
        id.text[i] = c;
    }
    *out = id;
    return true;
}

/* ---- the distance of two words ----------------------------------------- */

enum {
    WORD_MAX = 32
};

size_t
wb__edit_distance(struct wb_slice a, struct wb_slice b)
{
    size_t row[WORD_MAX + 1], diagonal, above, least;

    if (a.len > WORD_MAX || b.len > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            above = row[j];
            least = (above < row[j - 1] ? above : row[j - 1]) + 1;
            diagonal += a.ptr[i - 1] != b.ptr[j - 1];
            row[j] = diagonal < least ? diagonal : least;
            diagonal = above;
        }
    }
    return row[b.len];
}
