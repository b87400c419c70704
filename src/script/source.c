/* source.c - in which line a field is written.
 *
 * Lua tells the line of a call, not of a field in its table; so the text is
 * read again, just well enough: names, strings, comments and braces.
 *
 * (1) The answer is a line of the source at or below the one asked from. */
#include "script/script.h"

struct lexer {
    struct wb_slice rest;
    int line;
};

enum token {
    END,
    NAME,
    STRING,
    SIGN
};

static bool
is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || c == '_';
}

static void
skip(struct lexer *x, size_t n)
{
    for (; n > 0 && x->rest.len > 0; n--) {
        x->line += x->rest.ptr[0] == '\n';
        x->rest = wb__from(x->rest, 1);
    }
}

static char
peek(const struct lexer *x, size_t at)
{
    return at < x->rest.len ? x->rest.ptr[at] : '\0';
}

/* Past [[ … ]] or [=[ … ]=] at position `at`; false if none begins there. */
static bool
skip_long(struct lexer *x, size_t at)
{
    size_t equals = 0, same;

    if (peek(x, at) != '[')
        return false;
    while (peek(x, at + 1 + equals) == '=')
        equals++;
    if (peek(x, at + 1 + equals) != '[')
        return false;
    skip(x, at + 2 + equals);
    while (x->rest.len > 0) {
        bool close = peek(x, 0) == ']';

        skip(x, 1);
        for (same = 0; close && peek(x, same) == '=';)
            same++;
        if (close && same == equals && peek(x, same) == ']')
            break;
    }
    skip(x, equals + 1);
    return true;
}

static void
skip_blank(struct lexer *x)
{
    for (;;) {
        if (peek(x, 0) == '-' && peek(x, 1) == '-') {
            if (skip_long(x, 2))
                continue;
            while (x->rest.len > 0 && peek(x, 0) != '\n')
                skip(x, 1);
        } else if (x->rest.len > 0 && strchr(" \t\r\n", peek(x, 0)) != NULL) {
            skip(x, 1);
        } else {
            return;
        }
    }
}

/* The next token; *text without its quotes. */
static enum token
next_token(struct lexer *x, struct wb_slice *text)
{
    char first;
    size_t n = 1;

    skip_blank(x);
    *text = x->rest;
    if (x->rest.len == 0)
        return END;
    first = peek(x, 0);
    if (is_name(first)) {
        while (is_name(peek(x, n)))
            n++;
        text->len = n;
        skip(x, n);
        return NAME;
    }
    if (first == '"' || first == '\'') {
        while (n < x->rest.len && peek(x, n) != first)
            n += peek(x, n) == '\\' ? 2 : 1;
        n = n < x->rest.len ? n : x->rest.len;
        *text = (struct wb_slice){text->ptr + 1, n - 1};
        skip(x, n + 1);
        return STRING;
    }
    if (skip_long(x, 0)) {
        text->len = 0;
        return STRING;
    }
    n = first == '=' && peek(x, 1) == '=' ? 2 : 1;
    text->len = n;
    skip(x, n);
    return SIGN;
}

/* Is what was just read the name of a field: `name =` or `["name"] =`? */
static bool
is_field(struct lexer x, enum token token)
{
    struct wb_slice text;

    if (token == STRING &&
        (next_token(&x, &text) != SIGN || text.ptr[0] != ']'))
        return false;
    return (token == NAME || token == STRING) &&
           next_token(&x, &text) == SIGN && wb__eq(text, WB_LIT("="));
}

static struct lexer
start_at(struct wb_slice source, int line, const char *keyword)
{
    struct lexer x = {source, 1}, first;
    struct wb_slice text;

    while (x.line < line && x.rest.len > 0)
        skip(&x, 1);
    first = x;
    while (x.line == line && next_token(&x, &text) != END)
        if (wb__eq(text, wb_slice(keyword)))
            return x;
    return first;
}

/* Past the { that opens the table of the call; false where another statement
 * comes first, as in route "x"(table). */
static bool
open_table(struct lexer *x)
{
    struct wb_slice text;
    enum token token;
    int parens = 0;

    while ((token = next_token(x, &text)) != END) {
        if (token == SIGN && text.ptr[0] == '{')
            return true;
        if (token == NAME && parens <= 0)
            return false;
        if (token == SIGN)
            parens += (text.ptr[0] == '(') - (text.ptr[0] == ')');
    }
    return false;
}

int
wb__source_line(struct wb_slice source, int line, const char *keyword,
    const char *outer, struct wb_slice field)
{
    struct lexer x = start_at(source, line, keyword);
    const struct wb_slice path[2] = {
        outer != NULL ? wb_slice(outer) : field, field};
    int last = outer != NULL, level = 0, depth = open_table(&x), at;
    struct wb_slice text;
    enum token token;

    while (depth > 0 && (token = next_token(&x, &text)) != END) {
        at = x.line;
        depth += token == SIGN && text.ptr[0] == '{';
        if (token == SIGN && text.ptr[0] == '}' && --depth <= level)
            level = depth - 1;
        if (level < 0 || depth != level + 1 || !wb__eq(text, path[level]) ||
            !is_field(x, token))
            continue;
        if (level == last)
            return at;
        level++;
    }
    return line;
}
