/* uuid.c - UUIDv7 (RFC 9562, section 5.7) and the canonical text form. */
#include "base/base.h"

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
