/* schema.c - reading the fields of a Lua table after a table of fields.
 *
 * (1) A name that is not in the table of fields is an error; so is any other
 *     type.
 * (2) Lua's registry keeps the texts and functions of the fields as long as the
 *     script lives.
 * (3) An error names the field, what it wants and what it got, in the field's
 *     own line; never the value of a secret. */
#include <stdio.h>

#include "script/script.h"
#include "transport/http.h"

enum {
    HEADER_MAX = 8000,
    ITEMS_MAX = 100,
    FUNCTIONS_DEPTH = 8
};

/* ---- the line of a field -----------------------------------------------
 * Lua knows the line of a call, but not of a field in its table. So the text is
 * searched, with just enough of Lua's syntax to skip strings and comments. */

static const char name_chars[] = "abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

/* Past the [[ … ]] or [=[ … ]=] at p; p itself if none begins there. */
static const char *
skip_long(const char *p)
{
    size_t equals = p[0] == '[' ? strspn(p + 1, "=") : 0;
    const char *end = p + equals + 1;

    if (p[0] != '[' || *end != '[')
        return p;
    while ((end = strchr(end + 1, ']')) != NULL)
        if (strspn(end + 1, "=") == equals && end[equals + 1] == ']')
            return end + equals + 2;
    return p + strlen(p);
}

/* The next name or number, string with its quotes, or sign, and *p past it;
 * empty at the end of the text. */
static struct wb_slice
next_token(const char **p)
{
    const char *at = *p, *end;

    for (;;) {
        at += strspn(at, " \t\r\n");
        if (at[0] != '-' || at[1] != '-')
            break;
        end = skip_long(at + 2);
        at = end > at + 2 ? end : at + strcspn(at, "\n");
    }
    end = at + strspn(at, name_chars);
    if (*at == '"' || *at == '\'') {
        end = at + 1;
        while (*end != '\0' && *end != *at)
            end += end[0] == '\\' && end[1] != '\0' ? 2 : 1;
        end += *end != '\0';
    } else if (end == at) {
        end = skip_long(at);
        end += end == at && *at != '\0';
    }
    *p = end;
    return (struct wb_slice){at, (size_t)(end - at)};
}

/* Is the token, with p behind it, the name in `name =` or `["name"] =`? */
static bool
is_field(struct wb_slice token, const char *p, struct wb_slice name)
{
    if (token.len >= 2 && (token.ptr[0] == '"' || token.ptr[0] == '\'')) {
        token = (struct wb_slice){token.ptr + 1, token.len - 2};
        if (*next_token(&p).ptr != ']')
            return false;
    }
    return wb__eq(token, name) && *next_token(&p).ptr == '=' && *p != '=';
}

static int
line_of(const char *source, const char *p)
{
    int line = 1;

    for (; source < p; source++)
        line += *source == '\n';
    return line;
}

/* The line of outer.field (outer may be NULL) in the table that follows keyword
 * in or after line; that line if it is not found. */
static int
field_line(const char *source, int line, const char *keyword, const char *outer,
    const char *field)
{
    const char *p = source, *call;
    struct wb_slice token;
    int tables = 0, parens = 0, depth = outer == NULL ? 1 : 2;
    bool inside = outer == NULL;

    for (int n = 1; n < line; n++) {
        p = strchr(p, '\n');
        if (p == NULL)
            return line;
        p++;
    }
    for (call = p; (token = next_token(&call)).len > 0;)
        if (wb__eq(token, wb_slice(keyword))) {
            p = line_of(p, token.ptr) == 1 ? call : p;
            break;
        }
    while ((token = next_token(&p)).len > 0) {
        char c = token.ptr[0];

        tables += (c == '{') - (c == '}');
        parens += (c == '(') - (c == ')');
        /* A name before the table opens: the table is written elsewhere. */
        if (tables == 0 &&
            (c == '}' || (parens == 0 && strchr(name_chars, c) != NULL)))
            return line;
        if (tables == depth && inside && is_field(token, p, wb_slice(field)))
            return line_of(source, token.ptr);
        if (tables == 1 && outer != NULL)
            inside =
                c != '}' && (inside || is_field(token, p, wb_slice(outer)));
    }
    return line;
}

/* ---- errors ------------------------------------------------------------ */

void
wb__record_fail(
    const struct wb__record *r, const char *field, const char *fmt, ...)
{
    struct wb__script *s = wb__script_of(r->L);
    int line = r->line;
    char text[sizeof(s->err.msg)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (field != NULL)
        line = field_line(s->source.ptr, line, r->keyword, r->outer, field);
    if (r->name != NULL)
        wb__script_fail(
            r->L, WB_INVALID, line, "%s \"%s\": %s", r->keyword, r->name, text);
    wb__script_fail(r->L, WB_INVALID, line, "%s: %s", r->keyword, text);
}

/* "retry.base", as an error shows it */
static const char *
full_name(const struct wb__record *r, const char *field)
{
    if (r->outer == NULL)
        return field;
    return lua_pushfstring(r->L, "%s.%s", r->outer, field);
}

static const char *
wanted(lua_State *L, const struct wb__field *f)
{
    static const char *const fixed[] = {
        [WB__TYPE_TEXT] = "text",
        [WB__TYPE_SECRET] = "env \"NAME\" or file \"PATH\"",
        [WB__TYPE_MAYBE_SECRET] = "text, env \"NAME\" or file \"PATH\"",
        [WB__TYPE_VALUE] = "text or a function",
        [WB__TYPE_FUNCTION] = "a function",
        [WB__TYPE_DURATION] = "a duration like \"30s\"",
        [WB__TYPE_SIZE] = "a size like \"64k\"",
        [WB__TYPE_BOOL] = "true or false",
        [WB__TYPE_LIST] = "a list like { \"a\", \"b\" }",
        [WB__TYPE_SECRETS] = "a list like { env \"NEW\", env \"OLD\" }",
        [WB__TYPE_HEADERS] = "a table like { [\"X-Name\"] = \"text\" }",
        [WB__TYPE_GROUP] = "a table",
    };

    if (f->type == WB__TYPE_COUNT)
        return lua_pushfstring(L, "a whole number from %I to %I",
            (LUAI_UACINT)f->min, (LUAI_UACINT)f->max);
    if (f->type != WB__TYPE_WORD)
        return fixed[f->type];
    lua_pushfstring(L, "\"%s\"", f->words[0]);
    for (size_t i = 1; f->words[i] != NULL; i++)
        lua_pushfstring(L, "%s%s\"%s\"", lua_tostring(L, -1),
            f->words[i + 1] == NULL ? " or " : ", ", f->words[i]);
    return lua_tostring(L, -1);
}

static const char *
type_name(lua_State *L, int at)
{
    if (luaL_testudata(L, at, "secret") != NULL)
        return "a secret";
    if (lua_type(L, at) == LUA_TSTRING)
        return "text";
    return lua_pushfstring(L, "a %s", luaL_typename(L, at));
}

WB_NORETURN static void
wrong_type(const struct wb__record *r, const struct wb__field *f, int at)
{
    const char *got = type_name(r->L, at); /* before anything is pushed */

    wb__record_fail(r, f->name, "%s wants %s, not %s", full_name(r, f->name),
        wanted(r->L, f), got);
}

void
wb__suggest(struct wb_slice word, const char *const *names, size_t n,
    char out[WB__SUGGEST_MAX])
{
    size_t nearest = 3, d; /* three letters apart is a different word */

    out[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        d = wb__edit_distance(word, wb_slice(names[i]));
        if (d >= nearest || d >= strlen(names[i]))
            continue;
        nearest = d;
        (void)snprintf(
            out, WB__SUGGEST_MAX, "; did you mean \"%s\"?", names[i]);
    }
}

/* ---- values: readers of the value at the top --------------------------- */

typedef void read_fn(
    const struct wb__record *r, const struct wb__field *f, void *to);

/* The route that is being read has this secret, which was not found. */
static void
meet_absent(lua_State *L, struct wb__absent *absent)
{
    struct wb__script *s = wb__script_of(L);

    if (absent == NULL)
        return;
    absent->in_route = true;
    if (s->met == NULL)
        s->met = absent;
}

/* Look for such secrets in what the function at the top, and functions in it,
 * use from outside. */
static void
meet_absent_in(lua_State *L, int depth)
{
    struct wb__value value;

    for (int i = 1; lua_getupvalue(L, -1, i) != NULL; i++) {
        if (wb__text_at(L, -1, &value))
            meet_absent(L, value.absent);
        else if (lua_isfunction(L, -1) && depth < FUNCTIONS_DEPTH)
            meet_absent_in(L, depth + 1);
        lua_pop(L, 1);
    }
}

/* Text, which may be passed to the kernel as a name: no NUL, and not too long;
 * or a secret, or a function. */
static void
read_value(const struct wb__record *r, const struct wb__field *f, void *to)
{
    lua_State *L = r->L;
    struct wb__value *value = to;
    bool is_text = wb__text_at(L, -1, value), fits = false;
    bool is_function = lua_isfunction(L, -1);
    int kept;

    if (f->type == WB__TYPE_TEXT || f->type == WB__TYPE_LIST)
        fits = is_text && !value->secret;
    else if (f->type == WB__TYPE_SECRET || f->type == WB__TYPE_SECRETS)
        fits = value->secret;
    else if (f->type == WB__TYPE_MAYBE_SECRET)
        fits = is_text;
    else
        fits = is_function || (f->type == WB__TYPE_VALUE && is_text);
    if (!fits)
        wrong_type(r, f, -1);
    meet_absent(L, value->absent);
    if (is_function)
        meet_absent_in(L, 0);
    if (is_text && value->absent == NULL && f->type != WB__TYPE_SECRET &&
        f->type != WB__TYPE_SECRETS &&
        (value->text.len == 0 ||
            memchr(value->text.ptr, '\0', value->text.len) != NULL))
        wb__record_fail(r, f->name, "%s is empty, or has a zero byte",
            full_name(r, f->name));
    if (f->max > 0 && (int64_t)value->text.len > f->max)
        wb__record_fail(r, f->name, "%s is longer than %lld",
            full_name(r, f->name), (long long)f->max);
    lua_pushvalue(L, -1);
    kept = luaL_ref(L, LUA_REGISTRYINDEX);
    value->function = is_function ? kept : 0;
}

static void
read_list(const struct wb__record *r, const struct wb__field *f, void *to)
{
    int at = lua_gettop(r->L);
    struct wb__list *list = to;

    list->n = lua_istable(r->L, at) ? lua_rawlen(r->L, at) : 0;
    if (list->n == 0 || list->n > ITEMS_MAX)
        wrong_type(r, f, at);
    list->item = wb__arena_alloc(
        &wb__script_of(r->L)->arena, list->n * sizeof(*list->item));
    if (list->item == NULL)
        wb__script_fail(r->L, WB_NOMEM, r->line, "out of memory");
    for (size_t i = 0; i < list->n; i++) {
        (void)lua_rawgeti(r->L, at, (lua_Integer)i + 1);
        read_value(r, f, &list->item[i]);
        lua_pop(r->L, 1);
    }
}

static void
check_range(const struct wb__record *r, const struct wb__field *f, int64_t n)
{
    if (n >= f->min && n <= f->max)
        return;
    if (f->type == WB__TYPE_COUNT)
        wb__record_fail(r, f->name, "%s wants %s, not %lld",
            full_name(r, f->name), wanted(r->L, f), (long long)n);
    wb__record_fail(r, f->name, "%s is too %s; %lld%s at %s",
        full_name(r, f->name), n < f->min ? "small" : "large",
        (long long)(n < f->min ? f->min : f->max),
        f->type == WB__TYPE_SIZE ? " bytes" : " ms",
        n < f->min ? "least" : "most");
}

static void
read_count(const struct wb__record *r, const struct wb__field *f, void *to)
{
    int is_whole = 0;
    int64_t n = lua_tointegerx(r->L, -1, &is_whole);

    if (lua_type(r->L, -1) != LUA_TNUMBER || !is_whole)
        wrong_type(r, f, -1);
    check_range(r, f, n);
    if (f->max > UINT32_MAX)
        *(int64_t *)to = n;
    else
        *(uint32_t *)to = (uint32_t)n;
}

/* "30s" or "64k"; a size may be a number of bytes. */
static void
read_units(const struct wb__record *r, const struct wb__field *f, void *to)
{
    struct wb_err err;
    struct wb_slice s;
    enum wb_status rc;
    int64_t n;

    if (f->type == WB__TYPE_SIZE && lua_isinteger(r->L, -1)) {
        n = lua_tointeger(r->L, -1);
    } else {
        if (lua_type(r->L, -1) != LUA_TSTRING)
            wrong_type(r, f, -1);
        s.ptr = lua_tolstring(r->L, -1, &s.len);
        rc = f->type == WB__TYPE_SIZE ? wb__parse_size(s, &n, &err)
                                      : wb__parse_duration(s, &n, &err);
        if (rc != WB_OK)
            wb__record_fail(
                r, f->name, "%s: %s", full_name(r, f->name), err.msg);
    }
    check_range(r, f, n);
    *(int64_t *)to = n;
}

static void
read_bool(const struct wb__record *r, const struct wb__field *f, void *to)
{
    if (!lua_isboolean(r->L, -1))
        wrong_type(r, f, -1);
    *(bool *)to = lua_toboolean(r->L, -1);
}

static void
read_word(const struct wb__record *r, const struct wb__field *f, void *to)
{
    const char *word;
    int64_t i = 0;

    if (lua_type(r->L, -1) != LUA_TSTRING)
        wrong_type(r, f, -1);
    word = lua_tostring(r->L, -1);
    while (f->words[i] != NULL && strcmp(f->words[i], word) != 0)
        i++;
    if (f->words[i] == NULL)
        wb__record_fail(r, f->name, "%s wants %s, not \"%.40s\"",
            full_name(r, f->name), wanted(r->L, f), word);
    *(int64_t *)to = i;
}

/* Append the header with its name at -2 and its value at the top. An error
 * shows nothing of the value. */
static void
add_header(const struct wb__record *r, struct wb__buf *lines)
{
    struct wb_slice name, line;
    struct wb__value value;
    size_t begin = lines->len;
    struct wb_err err;
    enum wb_status rc;

    name.ptr = lua_tolstring(r->L, -2, &name.len);
    if (!wb__text_at(r->L, -1, &value))
        wb__record_fail(r, name.ptr,
            "headers.%.40s wants text or env \"NAME\", not %s", name.ptr,
            type_name(r->L, -1));
    meet_absent(r->L, value.absent);
    if (value.absent != NULL)
        return;
    if (name.len + value.text.len > HEADER_MAX - 4)
        wb__record_fail(r, name.ptr,
            "headers.%.40s: header is longer than %d bytes", name.ptr,
            HEADER_MAX);
    wb__buf_add(lines, name);
    wb__buf_add(lines, WB_LIT(": "));
    wb__buf_add(lines, value.text);
    wb__buf_add(lines, WB_LIT("\n"));
    if (lines->failed != WB_OK)
        wb__script_fail(r->L, WB_NOMEM, r->line, "out of memory");
    line = wb__from(wb__buf_slice(lines), begin);
    rc = wb__request_headers_check(line, &err);
    if (rc == WB_OK && memchr(line.ptr, '\n', line.len - 1) != NULL)
        rc = wb__fail(&err, WB_INVALID, 0, "header has a second line");
    if (rc != WB_OK)
        wb__record_fail(r, name.ptr, "headers.%.40s: %s", name.ptr, err.msg);
}

static void
read_headers(const struct wb__record *r, const struct wb__field *f, void *to)
{
    struct wb__record in = {r->L, r->keyword, r->name, r->line, f->name};
    int at = lua_gettop(r->L);
    struct wb__buf *lines;
    size_t n = 0;

    if (!lua_istable(r->L, at))
        wrong_type(r, f, at);
    lines = wb__secret_buf_push(r->L, WB__HEADERS_MAX * HEADER_MAX);
    for (lua_pushnil(r->L); wb__next_in_order(r->L, at); lua_pop(r->L, 1)) {
        if (lua_type(r->L, -2) != LUA_TSTRING)
            wrong_type(r, f, -2);
        if (n++ == WB__HEADERS_MAX)
            wb__record_fail(
                r, f->name, "headers has more than %d", WB__HEADERS_MAX);
        add_header(&in, lines);
    }
    *(struct wb__value *)to =
        (struct wb__value){.text = wb__buf_slice(lines), .secret = true};
    (void)luaL_ref(r->L, LUA_REGISTRYINDEX); /* the buffer */
}

/* ---- tables ------------------------------------------------------------ */

WB_NORETURN static void
unknown_name(const struct wb__record *r, const struct wb__schema *schema,
    struct wb_slice name)
{
    const char *names[WB__FIELDS_MAX];
    char hint[WB__SUGGEST_MAX], list[200];
    size_t used = 0;

    for (size_t i = 0; i < schema->n; i++)
        names[i] = schema->field[i].name;
    wb__suggest(name, names, schema->n, hint);
    for (size_t i = 0; i < schema->n && used < 80; i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
            i == 0 ? "; known are " : ", ", names[i]);
    if (used >= 80)
        (void)snprintf(list, sizeof(list), "; doc/CONFIG.md has all names");
    wb__record_fail(r, name.ptr, "unknown name \"%.40s\"%s",
        full_name(r, name.ptr), hint[0] != '\0' ? hint : list);
}

static bool
has_field(const struct wb__schema *schema, struct wb_slice name)
{
    for (size_t i = 0; i < schema->n; i++)
        if (wb__eq(name, wb_slice(schema->field[i].name)))
            return true;
    return false;
}

/* Reports the first unknown name in order: Lua's order differs from run to
 * run. */
static void
check_names(const struct wb__record *r, int at, const struct wb__schema *schema)
{
    struct wb_slice first = {0}, name;

    for (lua_pushnil(r->L); lua_next(r->L, at); lua_pop(r->L, 1)) {
        if (schema->delays != 0 && lua_isinteger(r->L, -2))
            continue; /* read_delays() */
        if (lua_type(r->L, -2) != LUA_TSTRING)
            wb__record_fail(r, NULL,
                "%s%sa value without a name; write name = value",
                r->outer != NULL ? r->outer : "", r->outer != NULL ? ": " : "");
        name.ptr = lua_tolstring(r->L, -2, &name.len);
        if (!has_field(schema, name) &&
            (first.ptr == NULL || strcmp(name.ptr, first.ptr) < 0))
            first = name;
    }
    if (first.ptr != NULL)
        unknown_name(r, schema, first);
}

/* The values without a name: { "10s", "1m" }. */
static void
read_delays(const struct wb__record *r, int at, struct wb__delays *delays)
{
    static const struct wb__field each = {
        .name = "delays", .type = WB__TYPE_DURATION, .max = WB__MS_MAX};
    size_t n = lua_rawlen(r->L, at), all = 0;

    for (lua_pushnil(r->L); lua_next(r->L, at); lua_pop(r->L, 1))
        all += lua_isinteger(r->L, -2);
    if (all != n || n >= WB__DELAYS_MAX)
        wb__record_fail(r, NULL,
            "%s: a list of delays has a hole, or %d or more", r->outer,
            WB__DELAYS_MAX);
    if (n == 0)
        return;
    delays->ms =
        wb__arena_alloc(&wb__script_of(r->L)->arena, n * sizeof(*delays->ms));
    if (delays->ms == NULL)
        wb__script_fail(r->L, WB_NOMEM, r->line, "out of memory");
    for (delays->n = 0; delays->n < n; delays->n++) {
        (void)lua_rawgeti(r->L, at, (lua_Integer)delays->n + 1);
        read_units(r, &each, &delays->ms[delays->n]);
        lua_pop(r->L, 1);
    }
}

static void
read_group(const struct wb__record *r, const struct wb__field *f, void *to)
{
    struct wb__record in = {r->L, r->keyword, r->name, r->line, f->name};

    if (!lua_istable(r->L, -1))
        wrong_type(r, f, -1);
    wb__schema_read(&in, f->group, to);
}

static read_fn *const readers[] = {
    [WB__TYPE_TEXT] = read_value,
    [WB__TYPE_SECRET] = read_value,
    [WB__TYPE_MAYBE_SECRET] = read_value,
    [WB__TYPE_VALUE] = read_value,
    [WB__TYPE_FUNCTION] = read_value,
    [WB__TYPE_DURATION] = read_units,
    [WB__TYPE_SIZE] = read_units,
    [WB__TYPE_COUNT] = read_count,
    [WB__TYPE_BOOL] = read_bool,
    [WB__TYPE_WORD] = read_word,
    [WB__TYPE_LIST] = read_list,
    [WB__TYPE_SECRETS] = read_list,
    [WB__TYPE_HEADERS] = read_headers,
    [WB__TYPE_GROUP] = read_group,
};

void
wb__schema_read(
    const struct wb__record *record, const struct wb__schema *schema, void *out)
{
    lua_State *L = record->L;
    int at = lua_gettop(L);

    luaL_checkstack(L, 20, "fields");
    check_names(record, at, schema);
    if (schema->delays != 0)
        read_delays(record, at, (void *)((char *)out + schema->delays));
    for (size_t i = 0; i < schema->n; i++) {
        const struct wb__field *f = &schema->field[i];

        lua_pushstring(L, f->name);
        if (lua_rawget(L, at) != LUA_TNIL)
            readers[f->type](record, f, (char *)out + f->offset);
        lua_settop(L, at);
    }
}
