/* schema.c - every field of a configuration, and the one that checks them.
 *
 * (1) What is not in these tables is an error; so is any other type.
 * (2) What a field gives, a text or a function, is kept by Lua's registry for
 *     as long as the script lives.
 * (3) An error names the field, what it wants and what it got, in the field's
 *     own line; never the value of a secret. */
#include <stdio.h>

#include "script/script.h"
#include "transport/http.h"

#define MS_MAX    (INT64_C(3650) * 86400000) /* ten years */
#define BYTES_MAX (INT64_C(1) << 50)
enum {
    HEADER_MAX = 8000,
    ITEMS_MAX = 100
};

static const char *const transports[] = {"http", "exec", "file", NULL};
static const char *const methods[] = {"POST", "PUT", "PATCH", NULL};
static const char *const formats[] = {"array", "ndjson", NULL};

#define AT(member)  offsetof(struct wb__route_spec, member)
#define SET(member) offsetof(struct wb__settings, member)
#define HTTP        WB__ON_HTTP
#define ALL         WB__ON_ALL

/* clang-format off */
static const struct wb__field retry_fields[] = {
    {"base", WB__TYPE_DURATION, ALL, AT(base_ms), 0, MS_MAX, NULL, NULL},
    {"cap", WB__TYPE_DURATION, ALL, AT(cap_ms), 0, MS_MAX, NULL, NULL},
    {"factor", WB__TYPE_COUNT, ALL, AT(factor), 1, 1000, NULL, NULL},
    {"attempts", WB__TYPE_COUNT, ALL, AT(attempts), 1, 1000, NULL, NULL},
    {"immediate", WB__TYPE_BOOL, ALL, AT(immediate), 0, 0, NULL, NULL},
    {"retry_after", WB__TYPE_DURATION, ALL, AT(retry_after_ms), 0, MS_MAX, NULL, NULL},
    {"rejected", WB__TYPE_BOOL, ALL, AT(retry_rejected), 0, 0, NULL, NULL},
};
static const struct wb__field breaker_fields[] = {
    {"failures", WB__TYPE_COUNT, ALL, AT(failures), 1, 1000000, NULL, NULL},
    {"open", WB__TYPE_DURATION, ALL, AT(open_ms), 1, MS_MAX, NULL, NULL},
    {"scope", WB__TYPE_TEXT, ALL, AT(scope), 1, 255, NULL, NULL},
};
static const struct wb__field batch_fields[] = {
    {"max", WB__TYPE_COUNT, HTTP, AT(batch), 1, 64, NULL, NULL},
    {"format", WB__TYPE_WORD, HTTP, AT(format), 0, 0, formats, NULL},
};
static const struct wb__schema retry_schema = {retry_fields, WB_COUNT(retry_fields)};
static const struct wb__schema breaker_schema = {breaker_fields, WB_COUNT(breaker_fields)};
static const struct wb__schema batch_schema = {batch_fields, WB_COUNT(batch_fields)};

static const struct wb__field route_fields[] = {
    {"transport", WB__TYPE_WORD, ALL, AT(transport), 0, 0, transports, NULL},
    {"url", WB__TYPE_VALUE, HTTP, AT(url), 1, WB__URL_MAX, NULL, NULL},
    {"method", WB__TYPE_WORD, HTTP, AT(method), 0, 0, methods, NULL},
    {"headers", WB__TYPE_HEADERS, HTTP, AT(headers), 0, 0, NULL, NULL},
    {"secret", WB__TYPE_SECRET, HTTP, AT(secret), 0, 0, NULL, NULL},
    {"secrets", WB__TYPE_SECRETS, HTTP, AT(secrets), 0, 0, NULL, NULL},
    {"argv", WB__TYPE_LIST, WB__ON_EXEC, AT(argv), 0, 0, NULL, NULL},
    {"path", WB__TYPE_TEXT, WB__ON_FILE, AT(path), 1, 4000, NULL, NULL},
    {"body", WB__TYPE_VALUE, ALL, AT(body), 1, 1000, NULL, NULL},
    {"response", WB__TYPE_FUNCTION, ALL, AT(response), 0, 0, NULL, NULL},
    {"timeout", WB__TYPE_DURATION, ALL, AT(timeout_ms), 1, 86400000, NULL, NULL},
    {"concurrency", WB__TYPE_COUNT, ALL, AT(concurrency), 1, 1000, NULL, NULL},
    {"rate", WB__TYPE_COUNT, ALL, AT(rate), 1, 1000000, NULL, NULL},
    {"retry", WB__TYPE_GROUP, ALL, 0, 0, 0, NULL, &retry_schema},
    {"breaker", WB__TYPE_GROUP, ALL, 0, 0, 0, NULL, &breaker_schema},
    {"batch", WB__TYPE_GROUP, HTTP, 0, 0, 0, NULL, &batch_schema},
    {"public_only", WB__TYPE_BOOL, HTTP, AT(public_only), 0, 0, NULL, NULL},
    {"follow", WB__TYPE_BOOL, HTTP, AT(follow), 0, 0, NULL, NULL},
    {"http1", WB__TYPE_BOOL, HTTP, AT(http1), 0, 0, NULL, NULL},
    {"ca_file", WB__TYPE_TEXT, HTTP, AT(ca_file), 1, 4000, NULL, NULL},
    {"max_reply", WB__TYPE_SIZE, HTTP, AT(max_reply), 1, 16 << 20, NULL, NULL},
    {"disable_on_410", WB__TYPE_BOOL, HTTP, AT(disable_on_410), 0, 0, NULL, NULL},
};
static const struct wb__field outbox_fields[] = {
    {"max_payload", WB__TYPE_SIZE, ALL, SET(outbox.max_payload_bytes), 1, 1 << 30, NULL, NULL},
    {"max_rows", WB__TYPE_COUNT, ALL, SET(outbox.max_rows), 1, BYTES_MAX, NULL, NULL},
    {"max_file", WB__TYPE_SIZE, ALL, SET(outbox.max_file_bytes), 65536, BYTES_MAX, NULL, NULL},
    {"keep_delivered", WB__TYPE_DURATION, ALL, SET(outbox.keep_delivered_ms), 1, MS_MAX, NULL, NULL},
    {"keep_abandoned", WB__TYPE_DURATION, ALL, SET(outbox.keep_abandoned_ms), 1, MS_MAX, NULL, NULL},
    {"busy", WB__TYPE_DURATION, ALL, SET(outbox.busy_ms), 1, 3600000, NULL, NULL},
};
static const struct wb__field relay_fields[] = {
    {"lease", WB__TYPE_DURATION, ALL, SET(lease_ms), 1000, 7 * 86400000, NULL, NULL},
};
/* clang-format on */
const struct wb__schema wb__route_schema = {
    route_fields, WB_COUNT(route_fields)};
const struct wb__schema wb__outbox_schema = {
    outbox_fields, WB_COUNT(outbox_fields)};
const struct wb__schema wb__relay_schema = {
    relay_fields, WB_COUNT(relay_fields)};

/* ---- errors ------------------------------------------------------------ */

void
wb__record_fail(lua_State *L, const struct wb__record *r, enum wb_status status,
    const char *field, const char *fmt, ...)
{
    struct wb__script *s = wb__script_of(L);
    int line = r->line;
    char text[sizeof(s->err.msg)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (field != NULL)
        line = wb__source_line(
            s->source, line, r->keyword, r->outer, wb_slice(field));
    if (r->name != NULL)
        wb__script_fail(
            L, status, line, "%s \"%s\": %s", r->keyword, r->name, text);
    wb__script_fail(L, status, line, "%s: %s", r->keyword, text);
}

/* "retry.base", as an error shows it */
static const char *
full_name(lua_State *L, const struct wb__record *r, const char *field)
{
    if (r->outer == NULL)
        return field;
    return lua_pushfstring(L, "%s.%s", r->outer, field);
}

/* What a field wants, pushed. */
static const char *
wanted(lua_State *L, const struct wb__field *f)
{
    static const char *const fixed[] = {
        [WB__TYPE_TEXT] = "text",
        [WB__TYPE_SECRET] = "env \"NAME\" or file \"PATH\"",
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
wrong_type(
    lua_State *L, const struct wb__record *r, const struct wb__field *f, int at)
{
    const char *got = type_name(L, at); /* before anything is pushed */
    const char *name = full_name(L, r, f->name);

    wb__record_fail(L, r, WB_INVALID, f->name, "%s wants %s, not %s", name,
        wanted(L, f), got);
}

/* ---- the nearest name -------------------------------------------------- */

void
wb__suggest(struct wb_slice word, const char *const *names, size_t n,
    char out[WB__SUGGEST_MAX])
{
    size_t nearest = 3, d; /* more than two letters off is another word */

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

/* ---- unknown names ----------------------------------------------------- */

static const struct wb__field *
find_field(const struct wb__schema *schema, struct wb_slice name)
{
    for (size_t i = 0; i < schema->n; i++)
        if (wb__eq(name, wb_slice(schema->field[i].name)))
            return &schema->field[i];
    return NULL;
}

WB_NORETURN static void
unknown(lua_State *L, const struct wb__record *r,
    const struct wb__schema *schema, struct wb_slice name)
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
    wb__record_fail(L, r, WB_INVALID, name.ptr, "unknown name \"%.40s\"%s",
        full_name(L, r, name.ptr), hint[0] != '\0' ? hint : list);
}

/* The first in order, as Lua's own order differs from run to run. */
static void
check_names(lua_State *L, int at, const struct wb__schema *schema,
    const struct wb__record *r)
{
    struct wb_slice first = {0}, name;

    for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            wb__record_fail(L, r, WB_INVALID, NULL,
                "%s%sa value without a name; write name = value",
                r->outer != NULL ? r->outer : "", r->outer != NULL ? ": " : "");
        name.ptr = lua_tolstring(L, -2, &name.len);
        if (find_field(schema, name) == NULL &&
            (first.ptr == NULL || strcmp(name.ptr, first.ptr) < 0))
            first = name;
    }
    if (first.ptr != NULL)
        unknown(L, r, schema, first);
}

/* ---- values ------------------------------------------------------------ */

/* Keep the value at `at` for as long as the script lives. */
static int
keep(lua_State *L, int at)
{
    lua_pushvalue(L, at);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static void
check_range(lua_State *L, const struct wb__record *r, const struct wb__field *f,
    int64_t n)
{
    if (n >= f->min && n <= f->max)
        return;
    if (f->type == WB__TYPE_COUNT)
        wb__record_fail(L, r, WB_INVALID, f->name, "%s wants %s, not %lld",
            full_name(L, r, f->name), wanted(L, f), (long long)n);
    wb__record_fail(L, r, WB_INVALID, f->name, "%s is too %s; %lld%s at %s",
        full_name(L, r, f->name), n < f->min ? "small" : "large",
        (long long)(n < f->min ? f->min : f->max),
        f->type == WB__TYPE_SIZE ? " bytes" : " ms",
        n < f->min ? "least" : "most");
}

static int64_t
read_count(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    int is_whole = 0;
    int64_t n = lua_tointegerx(L, -1, &is_whole);

    if (lua_type(L, -1) != LUA_TNUMBER || !is_whole)
        wrong_type(L, r, f, -1);
    check_range(L, r, f, n);
    return n;
}

/* "30s" or "64k" */
static int64_t
read_units(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    struct wb_err err;
    struct wb_slice s;
    enum wb_status rc;
    int64_t n;

    if (f->type == WB__TYPE_SIZE && lua_isinteger(L, -1)) {
        n = lua_tointeger(L, -1);
    } else {
        if (lua_type(L, -1) != LUA_TSTRING)
            wrong_type(L, r, f, -1);
        s.ptr = lua_tolstring(L, -1, &s.len);
        rc = f->type == WB__TYPE_SIZE ? wb__parse_size(s, &n, &err)
                                      : wb__parse_duration(s, &n, &err);
        if (rc != WB_OK)
            wb__record_fail(L, r, WB_INVALID, f->name, "%s: %s",
                full_name(L, r, f->name), err.msg);
    }
    check_range(L, r, f, n);
    return n;
}

static int64_t
read_word(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    const char *word, *name;

    if (lua_type(L, -1) != LUA_TSTRING)
        wrong_type(L, r, f, -1);
    word = lua_tostring(L, -1);
    for (int64_t i = 0; f->words[i] != NULL; i++)
        if (strcmp(f->words[i], word) == 0)
            return i;
    name = full_name(L, r, f->name);
    wb__record_fail(L, r, WB_INVALID, f->name, "%s wants %s, not \"%.40s\"",
        name, wanted(L, f), word);
}

/* Text as it may stand in a call of the kernel: no NUL, and not too long. */
static struct wb__text
read_text(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    struct wb__text text;
    bool secret_fits = f->type == WB__TYPE_VALUE;

    if (!wb__text_at(L, -1, &text) || (text.secret && !secret_fits))
        wrong_type(L, r, f, -1);
    if (!text.absent &&
        (text.s.len == 0 || memchr(text.s.ptr, '\0', text.s.len) != NULL))
        wb__record_fail(L, r, WB_INVALID, f->name,
            "%s is empty, or has a zero byte", full_name(L, r, f->name));
    if (f->max > 0 && (int64_t)text.s.len > f->max)
        wb__record_fail(L, r, WB_INVALID, f->name, "%s is longer than %lld",
            full_name(L, r, f->name), (long long)f->max);
    (void)keep(L, -1);
    return text;
}

static struct wb__text
read_secret(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    struct wb__text text;

    if (!wb__text_at(L, -1, &text) || !text.secret)
        wrong_type(L, r, f, -1);
    (void)keep(L, -1);
    return text;
}

static struct wb__value
read_value(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    if (lua_isfunction(L, -1))
        return (struct wb__value){.function = keep(L, -1)};
    if (f->type == WB__TYPE_FUNCTION)
        wrong_type(L, r, f, -1);
    return (struct wb__value){.text = read_text(L, r, f)};
}

static void *
room_for(lua_State *L, size_t n, size_t size)
{
    void *p = wb__arena_alloc(&wb__script_of(L)->arena, (n + 1) * size);

    if (p == NULL)
        wb__script_fail(L, WB_NOMEM, wb__script_line(L),
            "out of memory; nothing was opened");
    return p;
}

static struct wb__list
read_list(lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    int at = lua_gettop(L);
    struct wb__list list = {.n = lua_istable(L, at) ? lua_rawlen(L, at) : 0};

    if (list.n == 0 || list.n > ITEMS_MAX)
        wrong_type(L, r, f, at);
    list.item = room_for(L, list.n, sizeof(*list.item));
    for (size_t i = 0; i < list.n; i++) {
        (void)lua_rawgeti(L, at, (lua_Integer)i + 1);
        list.item[i] = f->type == WB__TYPE_SECRETS ? read_secret(L, r, f)
                                                   : read_text(L, r, f);
        lua_pop(L, 1);
    }
    return list;
}

/* ---- headers ----------------------------------------------------------- */

/* The line is wiped: its value may be a secret. The error shows none of it. */
static enum wb_status
check_header(const struct wb__header *h, struct wb_err *err)
{
    char line[HEADER_MAX];
    struct wb__buf out = {
        .max = sizeof(line) - 1, .ptr = line, .cap = sizeof(line)};
    enum wb_status rc;

    wb__buf_add(&out, h->name);
    wb__buf_add(&out, WB_LIT(": "));
    wb__buf_add(&out, h->value.s);
    wb__buf_add(&out, WB_LIT("\n"));
    rc = out.failed != WB_OK
             ? wb__fail(err, WB_INVALID, 0, "header is longer than %d bytes",
                   HEADER_MAX)
             : wb__request_headers_check(wb__buf_slice(&out), err);
    if (rc == WB_OK && memchr(line, '\n', out.len - 1) != NULL)
        rc = wb__fail(err, WB_INVALID, 0, "header has a second line");
    explicit_bzero(line, sizeof(line));
    return rc;
}

static void
read_header(lua_State *L, const struct wb__record *r, const struct wb__field *f,
    struct wb__header *header)
{
    struct wb__record in = {r->keyword, r->name, r->line, f->name};
    struct wb_err err;

    if (lua_type(L, -2) != LUA_TSTRING)
        wrong_type(L, r, f, -2);
    header->name.ptr = lua_tolstring(L, -2, &header->name.len);
    if (!wb__text_at(L, -1, &header->value))
        wb__record_fail(L, &in, WB_INVALID, header->name.ptr,
            "headers.%.40s wants text or env \"NAME\", not %s",
            header->name.ptr, type_name(L, -1));
    if (!header->value.absent && check_header(header, &err) != WB_OK)
        wb__record_fail(L, &in, WB_INVALID, header->name.ptr,
            "headers.%.40s: %s", header->name.ptr, err.msg);
    (void)keep(L, -2);
    (void)keep(L, -1);
}

static struct wb__headers
read_headers(
    lua_State *L, const struct wb__record *r, const struct wb__field *f)
{
    int at = lua_gettop(L);
    struct wb__headers headers = {0};
    struct wb__header one;
    size_t i;

    if (!lua_istable(L, at))
        wrong_type(L, r, f, at);
    headers.item = room_for(L, WB__HEADERS_MAX, sizeof(*headers.item));
    for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
        read_header(L, r, f, &one);
        if (headers.n == WB__HEADERS_MAX)
            wb__record_fail(L, r, WB_INVALID, f->name,
                "headers has more than %d", WB__HEADERS_MAX);
        for (i = headers.n++;
             i > 0 && strcmp(headers.item[i - 1].name.ptr, one.name.ptr) > 0;
             i--)
            headers.item[i] = headers.item[i - 1];
        headers.item[i] = one;
    }
    return headers;
}

/* ---- one table --------------------------------------------------------- */

/* The value at the top into *to, as the field says. */
static void
read_field(lua_State *L, const struct wb__record *r, const struct wb__field *f,
    void *to)
{
    switch (f->type) {
    case WB__TYPE_TEXT:
        *(struct wb__text *)to = read_text(L, r, f);
        break;
    case WB__TYPE_SECRET:
        *(struct wb__text *)to = read_secret(L, r, f);
        break;
    case WB__TYPE_VALUE:
    case WB__TYPE_FUNCTION:
        *(struct wb__value *)to = read_value(L, r, f);
        break;
    case WB__TYPE_DURATION:
    case WB__TYPE_SIZE:
        *(int64_t *)to = read_units(L, r, f);
        break;
    case WB__TYPE_COUNT:
        *(int64_t *)to = read_count(L, r, f);
        break;
    case WB__TYPE_BOOL:
        if (!lua_isboolean(L, -1))
            wrong_type(L, r, f, -1);
        *(bool *)to = lua_toboolean(L, -1);
        break;
    case WB__TYPE_WORD:
        *(int64_t *)to = read_word(L, r, f);
        break;
    case WB__TYPE_LIST:
    case WB__TYPE_SECRETS:
        *(struct wb__list *)to = read_list(L, r, f);
        break;
    case WB__TYPE_HEADERS:
        *(struct wb__headers *)to = read_headers(L, r, f);
        break;
    case WB__TYPE_GROUP:
        break;
    }
}

/* The fields of a table that has no groups. */
static void
read_plain(lua_State *L, int at, const struct wb__schema *schema,
    const struct wb__record *r, char *out)
{
    check_names(L, at, schema, r);
    for (size_t i = 0; i < schema->n; i++) {
        const struct wb__field *f = &schema->field[i];

        lua_pushstring(L, f->name);
        if (lua_rawget(L, at) != LUA_TNIL && f->type != WB__TYPE_GROUP)
            read_field(L, r, f, out + f->offset);
        lua_settop(L, -2);
    }
}

void
wb__schema_read(lua_State *L, int at, const struct wb__schema *schema,
    const struct wb__record *record, void *out)
{
    struct wb__record inner = *record;

    luaL_checkstack(L, 20, "fields");
    read_plain(L, at, schema, record, out);
    for (size_t i = 0; i < schema->n; i++) {
        const struct wb__field *f = &schema->field[i];

        if (f->type != WB__TYPE_GROUP)
            continue;
        inner.outer = f->name;
        lua_pushstring(L, f->name);
        if (lua_rawget(L, at) != LUA_TNIL && !lua_istable(L, -1))
            wrong_type(L, record, f, -1);
        if (lua_istable(L, -1))
            read_plain(L, lua_gettop(L), f->group, &inner, out);
        lua_pop(L, 1);
    }
}
