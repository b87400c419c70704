/* json.c - JSON texts and Lua values.
 *
 * (1) An object is a table; a null in it is an absent field. An array is a
 *     table with a metatable that marks it; a null in it is `null`, so that the
 *     other items keep their places.
 * (2) Both directions stop at WB__JSON_DEPTH, which also limits the recursion
 *     here, and spend steps for every value.
 * (3) A Lua error leaks nothing: a userdata owns the tree.
 * (4) Errors show nothing of a text. */
#include <math.h>

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
wb__json_parse(
    struct wb_slice text, const char *what, json_t **out, struct wb_err *err)
{
    return parse(text, what, 0, out, err);
}

json_t *
wb__json_member(json_t *root, struct wb_slice path)
{
    struct wb_slice name;

    while (root != NULL && wb__cut(&path, '.', &name))
        root = json_object_getn(root, name.ptr, name.len);
    return root;
}

static int
append(const char *bytes, size_t len, void *ctx)
{
    struct wb__buf *out = ctx;

    wb__buf_add(out, (struct wb_slice){bytes, len});
    return out->failed == WB_OK ? 0 : -1;
}

static void
dump(struct wb__buf *out, const json_t *value, size_t flags)
{
    if (json_dump_callback(
            value, append, out, flags | JSON_COMPACT | JSON_ENCODE_ANY) != 0 &&
        out->failed == WB_OK)
        out->failed = WB_NOMEM;
}

void
wb__json_write(struct wb__buf *out, const json_t *value, size_t flags)
{
    size_t begin = out->len;
    json_t *again = NULL;
    bool exact;

    /* 15 digits write 0.1 as 0.1; some numbers need 17. */
    dump(out, value, flags | JSON_REAL_PRECISION(15));
    if (out->failed != WB_OK)
        return;
    exact = wb__json_parse(wb__from(wb__buf_slice(out), begin), "copy", &again,
                NULL) == WB_OK &&
            json_equal(again, value);
    json_decref(again);
    if (exact)
        return;
    out->len = begin;
    dump(out, value, flags | JSON_REAL_PRECISION(17));
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

static struct wb_slice
utf8_at(lua_State *L, int at, const char *what)
{
    struct wb_slice text;

    text.ptr = lua_tolstring(L, at, &text.len);
    if (!wb__utf8_valid(text))
        (void)luaL_error(L, "JSON wants UTF-8; this %s is not", what);
    return text;
}

/* A new node for the value at the top; containers are empty. */
static json_t *
new_node(lua_State *L)
{
    struct wb_slice text;

    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        text = utf8_at(L, -1, "text");
        return json_stringn(text.ptr, text.len);
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            return json_integer(lua_tointeger(L, -1));
        if (!isfinite(lua_tonumber(L, -1)))
            (void)luaL_error(
                L, "JSON has no number for %f", lua_tonumber(L, -1));
        return json_real(lua_tonumber(L, -1));
    case LUA_TBOOLEAN:
        return json_boolean(lua_toboolean(L, -1));
    case LUA_TTABLE:
        return is_array(L) ? json_array() : json_object();
    case LUA_TLIGHTUSERDATA:
        return json_null();
    default:
        (void)luaL_error(L, "JSON has no value for a %s", luaL_typename(L, -1));
        return NULL;
    }
}

/* Add the value at the top to parent, an array, or an object whose new member
 * has the text at -2 as name. The value is inside of depth containers. */
static void
add_value(lua_State *L, json_t *parent, int depth)
{
    json_t *node;
    struct wb_slice name = {0};
    int failed;

    wb__script_spend(L, 10);
    luaL_checkstack(L, 6, "JSON");
    if (depth >= WB__JSON_DEPTH && lua_istable(L, -1))
        (void)luaL_error(L, "tables nested deeper than %d", WB__JSON_DEPTH);
    if (json_is_object(parent)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            (void)luaL_error(L, "a table with a %s as name is no JSON object",
                luaL_typename(L, -2));
        name = utf8_at(L, -2, "name");
    }
    node = new_node(L);
    /* Both take the node, also if they fail or it is NULL. */
    failed = json_is_array(parent)
                 ? json_array_append_new(parent, node)
                 : json_object_setn_new(parent, name.ptr, name.len, node);
    if (failed)
        (void)luaL_error(L, "not enough memory");
    if (json_is_object(node)) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
            add_value(L, node, depth + 1);
    } else if (json_is_array(node)) {
        lua_Integer n = (lua_Integer)lua_rawlen(L, -1);

        for (lua_Integer i = 1; i <= n; i++) {
            if (lua_rawgeti(L, -1, i) == LUA_TNIL)
                (void)luaL_error(L, "a list with a hole; write null there");
            add_value(L, node, depth + 1);
            lua_pop(L, 1);
        }
    }
}

void
wb__json_encode(lua_State *L, struct wb__buf *out)
{
    json_t **box = push_box(L);

    *box = json_array();
    if (*box == NULL)
        (void)luaL_error(L, "not enough memory");
    lua_pushvalue(L, -2);
    add_value(L, *box, 0);
    /* Lua's own order of names differs from run to run. */
    wb__json_write(out, json_array_get(*box, 0), JSON_SORT_KEYS);
    json_decref(*box);
    *box = NULL;
    lua_pop(L, 2);
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
