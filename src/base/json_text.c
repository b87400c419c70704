/* json_text.c - JSON texts as they are written.
 *
 * (1) Nothing is decoded, so nothing is changed: numbers of any size, escapes,
 *     the order of names and names that stand twice.
 * (2) Valid is what RFC 8259 allows: UTF-8, no byte order mark. Nesting is
 *     limited, which also limits the recursion here. */
#include "base/base.h"

enum {
    DEPTH_MAX = 2048
};

struct scan {
    const char *at, *end;
    int depth;
};

static bool skip_value(struct scan *s);

static void
skip_space(struct scan *s)
{
    while (
        s->at < s->end && *s->at != '\0' && strchr(" \t\r\n", *s->at) != NULL)
        s->at++;
}

static bool
skip_char(struct scan *s, char c)
{
    bool found = s->at < s->end && *s->at == c;

    s->at += found;
    return found;
}

static bool
skip_word(struct scan *s, const char *word)
{
    while (*word != '\0' && skip_char(s, *word))
        word++;
    return *word == '\0';
}

static bool
skip_digits(struct scan *s)
{
    const char *start = s->at;

    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > start;
}

static bool
skip_number(struct scan *s)
{
    (void)skip_char(s, '-');
    if (!skip_char(s, '0') && !skip_digits(s))
        return false;
    if (skip_char(s, '.') && !skip_digits(s))
        return false;
    if (!skip_char(s, 'e') && !skip_char(s, 'E'))
        return true;
    if (!skip_char(s, '+'))
        (void)skip_char(s, '-');
    return skip_digits(s);
}

/* The value of a hexadecimal digit, or -1. */
static int
hex(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c);

    return at == NULL || c == '\0' ? -1 : (int)(at - digits);
}

/* Past one character of a string. *unit: its code, of an escape that of the
 * UTF-16 unit, else that of the byte. False if it is not valid. */
static bool
skip_unit(struct scan *s, int *unit)
{
    static const char named[] = "\"\"\\\\//b\bf\fn\nr\rt\t";

    if (s->at == s->end || (unsigned char)*s->at < 0x20)
        return false;
    *unit = (unsigned char)*s->at++;
    if (*unit != '\\')
        return true;
    if (s->at == s->end)
        return false;
    if (!skip_char(s, 'u')) {
        for (const char *n = named; *n != '\0'; n += 2)
            if (skip_char(s, *n)) {
                *unit = n[1];
                return true;
            }
        return false;
    }
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = s->at < s->end ? hex(*s->at) : -1;

        if (digit < 0)
            return false;
        *unit = *unit << 4 | digit;
        s->at++;
    }
    return true;
}

/* *same: the string is this name. */
static bool
skip_string(struct scan *s, struct wb_slice name, bool *same)
{
    size_t n = 0;
    int unit;

    *same = true;
    if (!skip_char(s, '"'))
        return false;
    while (!skip_char(s, '"')) {
        if (!skip_unit(s, &unit))
            return false;
        *same = *same && n < name.len && unit == (unsigned char)name.ptr[n];
        n++;
    }
    *same = *same && n == name.len;
    return true;
}

/* The members of an object, behind its '{'. *value: the last that has this
 * name, if there is one. */
static bool
skip_members(struct scan *s, struct wb_slice name, struct wb_slice *value)
{
    bool same;

    skip_space(s);
    if (skip_char(s, '}'))
        return true;
    do {
        const char *start;

        skip_space(s);
        if (!skip_string(s, name, &same))
            return false;
        skip_space(s);
        if (!skip_char(s, ':'))
            return false;
        skip_space(s);
        start = s->at;
        if (!skip_value(s))
            return false;
        if (same)
            *value = (struct wb_slice){start, (size_t)(s->at - start)};
        skip_space(s);
    } while (skip_char(s, ','));
    return skip_char(s, '}');
}

static bool
skip_items(struct scan *s)
{
    skip_space(s);
    if (skip_char(s, ']'))
        return true;
    do {
        skip_space(s);
        if (!skip_value(s))
            return false;
        skip_space(s);
    } while (skip_char(s, ','));
    return skip_char(s, ']');
}

static bool
skip_value(struct scan *s)
{
    struct wb_slice unused;
    bool ok;

    switch (s->at < s->end ? *s->at : '\0') {
    case '{':
    case '[':
        if (s->depth == DEPTH_MAX)
            return false;
        s->depth++;
        ok = *s->at++ == '{' ? skip_members(s, (struct wb_slice){0}, &unused)
                             : skip_items(s);
        s->depth--;
        return ok;
    case '"':
        return skip_string(s, (struct wb_slice){0}, &ok);
    case 't':
        return skip_word(s, "true");
    case 'f':
        return skip_word(s, "false");
    case 'n':
        return skip_word(s, "null");
    default:
        return skip_number(s);
    }
}

bool
wb__json_valid(struct wb_slice text, size_t *bad)
{
    struct scan s = {text.ptr, text.ptr, 0};
    bool ok = text.len > 0;

    if (ok) {
        s.end += text.len;
        skip_space(&s);
        ok = skip_value(&s);
    }
    if (ok)
        skip_space(&s);
    if (bad != NULL)
        *bad = text.len > 0 ? (size_t)(s.at - text.ptr) : 0;
    return ok && s.at == s.end && wb__utf8_valid(text);
}

bool
wb__json_at(struct wb_slice text, struct wb_slice path, struct wb_slice *value)
{
    struct wb_slice at = wb__trim(text), name;

    if (at.len == 0)
        return false;
    while (wb__cut(&path, '.', &name)) {
        struct scan s = {at.ptr, at.ptr + at.len, 0};

        at = (struct wb_slice){0};
        if (!skip_char(&s, '{') || !skip_members(&s, name, &at) || at.len == 0)
            return false;
    }
    *value = at;
    return true;
}
