/* json.c - JSON texts and Lua values.
 *
 * (1) An object is a table; a null in it is an absent field. An array is a
 *     table with a metatable that marks it; a null in it is `null`, so that the
 *     other items keep their places.
 * (2) Both directions stop at WB__JSON_DEPTH, which also limits the recursion
 *     here, and spend steps for every value.
 * (3) A Lua error leaks nothing: a userdata owns the tree.
 * (4) Errors show nothing of a text. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "script/script.h"

/* ---- without Lua ------------------------------------------------------- */

static enum wb_status
parse(struct wb_slice text, const char *what, size_t flags, json_t **out,
    struct wb_err *err)
{
    json_error_t at;

    *out = json_loadb(text.len > 0 ? text.ptr : "", text.len,
        flags | JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
    if (*out != NULL)
        return WB_OK;
    if (json_error_code(&at) == json_error_out_of_memory)
        return wb__nomem(err, what);
    if (json_error_code(&at) == json_error_numeric_overflow)
        return wb__fail(err, WB_INVALID, 0,
            "%s has a number that does not fit into 64 bits (line %d, column "
            "%d); send it as text",
            what, at.line, at.column);
    return wb__fail(err, WB_INVALID, 0, "%s is not JSON (line %d, column %d)",
        what, at.line, at.column);
}

enum wb_status
wb__json_check(struct wb_slice text, const char *what, struct wb_err *err)
{
    size_t bad, line = 1, column = 1;

    if (wb__json_valid(text, &bad))
        return WB_OK;
    for (size_t i = 0; i < bad; i++) {
        column = text.ptr[i] == '\n' ? 1 : column + 1;
        line += text.ptr[i] == '\n';
    }
    return wb__fail(err, WB_INVALID, 0, "%s is not JSON (line %zu, column %zu)",
        what, line, column);
}

/* ---- a tree owned by Lua ----------------------------------------------- */

static int
box_free(lua_State *L)
{
    json_t **box = lua_touserdata(L, 1);

    json_decref(*box);
    *box = NULL;
    return 0;
}

static json_t **
push_box(lua_State *L)
{
    json_t **box = lua_newuserdatauv(L, sizeof(json_t *), 0);

    *box = NULL;
    luaL_setmetatable(L, "json tree");
    return box;
}

/* ---- JSON to Lua ------------------------------------------------------- */

/* Push the value, which is inside of depth containers. */
static void
push_value(lua_State *L, json_t *v, int depth)
{
    const char *name;
    size_t i, len;
    json_t *child;

    wb__script_spend(L, 10);
    luaL_checkstack(L, 4, "JSON");
    if (depth >= WB__JSON_DEPTH && (json_is_object(v) || json_is_array(v)))
        (void)luaL_error(L, "JSON nested deeper than %d", WB__JSON_DEPTH);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        lua_createtable(L, 0, (int)json_object_size(v));
        json_object_keylen_foreach(v, name, len, child)
        {
            lua_pushlstring(L, name, len);
            push_value(L, child, depth + 1);
            if (json_is_null(child))
                lua_pop(L, 2);
            else
                lua_rawset(L, -3);
        }
        break;
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(v), 0);
        luaL_setmetatable(L, "array");
        json_array_foreach(v, i, child)
        {
            push_value(L, child, depth + 1);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        lua_pushinteger(L, json_integer_value(v));
        break;
    case JSON_REAL:
        lua_pushnumber(L, json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, json_is_true(v));
        break;
    case JSON_NULL:
        lua_pushlightuserdata(L, NULL);
        break;
    }
}

bool
wb__json_push(lua_State *L, struct wb_slice text, const char *what, bool near,
    struct wb_err *err)
{
    json_t **box = push_box(L);
    enum wb_status rc = parse(text, what, 0, box, err);

    if (rc != WB_OK && near)
        rc = parse(text, what, JSON_DECODE_INT_AS_REAL, box, err);
    if (rc != WB_OK) {
        lua_pop(L, 1);
        return false;
    }
    push_value(L, *box, 0);
    json_decref(*box);
    *box = NULL;
    lua_remove(L, -2);
    return true;
}

/* ---- Lua to JSON ------------------------------------------------------- */

/* Of the table at the top: one marked as array, or with items. */
static bool
is_array(lua_State *L)
{
    bool marked = lua_getmetatable(L, -1);
    lua_Unsigned items = lua_rawlen(L, -1 - marked), all = 0;

    if (marked) {
        luaL_getmetatable(L, "array");
        marked = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
    }
    if (!marked && items == 0)
        return false;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        all++;
    if (all > items)
        (void)luaL_error(L, "a table with both items and names is no JSON");
    return true;
}

static void
write_escape(struct wb__buf *out, char c)
{
    static const char *const short_ones[] = {['\b'] = "\\b",
        ['\t'] = "\\t",
        ['\n'] = "\\n",
        ['\f'] = "\\f",
        ['\r'] = "\\r"};

    if (c == '"' || c == '\\')
        wb__buf_fmt(out, "\\%c", c);
    else if ((size_t)c < WB_COUNT(short_ones) && short_ones[(size_t)c] != NULL)
        wb__buf_str(out, short_ones[(size_t)c]);
    else
        wb__buf_fmt(out, "\\u%04X", (unsigned)c);
}

static void
write_text(lua_State *L, int at, const char *what, struct wb__buf *out)
{
    struct wb_slice text;
    size_t start = 0;

    text.ptr = lua_tolstring(L, at, &text.len);
    if (!wb__utf8_valid(text))
        (void)luaL_error(L, "JSON wants UTF-8; this %s is not", what);
    wb__buf_str(out, "\"");
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if ((unsigned char)c >= 0x20 && c != '"' && c != '\\')
            continue;
        wb__buf_add(out, (struct wb_slice){text.ptr + start, i - start});
        write_escape(out, c);
        start = i + 1;
    }
    wb__buf_add(out, wb__from(text, start));
    wb__buf_str(out, "\"");
}

/* As few digits as give the same number again, written so that it is read as
 * a number with a fraction. */
static void
write_real(lua_State *L, double n, struct wb__buf *out)
{
    char text[32], *plus;
    int digits = 15;

    if (!isfinite(n))
        (void)luaL_error(L, "JSON has no number for %f", n);
    do
        (void)snprintf(text, sizeof(text), "%.*g", digits, n);
    while (strtod(text, NULL) != n && ++digits <= 17);
    plus = strchr(text, '+');
    if (plus != NULL)
        memmove(plus, plus + 1, strlen(plus));
    wb__buf_str(out, text);
    if (strpbrk(text, ".e") == NULL)
        wb__buf_str(out, ".0");
}

/* Push a sorted list of the names of the table at the top; their number. */
static lua_Integer
push_names(lua_State *L)
{
    int at = lua_gettop(L);
    lua_Integer n = 0;

    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, at);) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            (void)luaL_error(L, "a table with a %s as name is no JSON object",
                luaL_typename(L, -1));
        lua_pushvalue(L, -1);
        lua_rawseti(L, at + 1, ++n);
    }
    wb__sort(L);
    return n;
}

static void write_value(lua_State *L, struct wb__buf *out, int depth);

static void
write_table(lua_State *L, struct wb__buf *out, int depth)
{
    bool array = is_array(L);
    int at = lua_gettop(L);
    lua_Integer n = array ? (lua_Integer)lua_rawlen(L, at) : push_names(L);

    wb__buf_str(out, array ? "[" : "{");
    for (lua_Integer i = 1; i <= n; i++) {
        wb__buf_str(out, i > 1 ? "," : "");
        if (lua_rawgeti(L, -1, i) == LUA_TNIL)
            (void)luaL_error(L, "a list with a hole; write null there");
        if (!array) {
            write_text(L, -1, "name", out);
            wb__buf_str(out, ":");
            (void)lua_rawget(L, at);
        }
        write_value(L, out, depth + 1);
        lua_pop(L, 1);
    }
    wb__buf_str(out, array ? "]" : "}");
    lua_settop(L, at);
}

/* Append the value at the top, which is inside of depth containers. */
static void
write_value(lua_State *L, struct wb__buf *out, int depth)
{
    wb__script_spend(L, 10);
    luaL_checkstack(L, 8, "JSON");
    if (depth >= WB__JSON_DEPTH && lua_istable(L, -1))
        (void)luaL_error(L, "tables nested deeper than %d", WB__JSON_DEPTH);
    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        write_text(L, -1, "text", out);
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            wb__buf_fmt(out, "%lld", (long long)lua_tointeger(L, -1));
        else
            write_real(L, lua_tonumber(L, -1), out);
        break;
    case LUA_TBOOLEAN:
        wb__buf_str(out, lua_toboolean(L, -1) ? "true" : "false");
        break;
    case LUA_TTABLE:
        write_table(L, out, depth);
        break;
    case LUA_TLIGHTUSERDATA:
        wb__buf_str(out, "null");
        break;
    default:
        (void)luaL_error(L, "JSON has no value for a %s", luaL_typename(L, -1));
    }
}

void
wb__json_encode(lua_State *L, struct wb__buf *out)
{
    write_value(L, out, 0);
}

/* ---- names ------------------------------------------------------------- */

static int
mark_array(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_setmetatable(L, "array");
    return 1;
}

void
wb__json_init(lua_State *L, int names)
{
    static const luaL_Reg tree[] = {{"__gc", box_free}, {NULL, NULL}};
    static const luaL_Reg array[] = {{NULL, NULL}};

    wb__type_new(L, "json tree", tree);
    wb__type_new(L, "array", array);
    lua_pushcfunction(L, mark_array);
    lua_setfield(L, names, "array");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, names, "null");
}
