/* json.c - JSON texts and Lua values.
 *
 * (1) An object is a table; a null in it is an absent field. An array is a
 *     table that knows it is one; a null in it is `null`, so that the others
 *     keep their places.
 * (2) Both ways stop at WB__JSON_DEPTH and spend steps for every value.
 * (3) A Lua error on the way leaks nothing: a userdata owns the tree.
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

static bool
means(struct wb_slice text, const json_t *value)
{
    json_t *again;
    bool same = wb__json_parse(text, "copy", &again, NULL) == WB_OK &&
                json_equal(again, value);

    json_decref(again);
    return same;
}

void
wb__json_write(struct wb__buf *out, const json_t *value, size_t flags)
{
    size_t begin = out->len;

    /* 0.1 should not become 0.10000000000000001, unless it must. */
    dump(out, value, flags | JSON_REAL_PRECISION(15));
    if (out->failed != WB_OK ||
        means((struct wb_slice){out->ptr + begin, out->len - begin}, value))
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

struct open_node { /* a container half-way through */
    json_t *node;
    void *member; /* of an object */
    size_t index; /* of an array */
};

static void
push_scalar(lua_State *L, const json_t *v)
{
    switch (json_typeof(v)) {
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
    case JSON_OBJECT:
    case JSON_ARRAY:
        lua_pushlightuserdata(L, NULL);
        break;
    }
}

/* Push the table of a container and begin it. */
static void
open_container(lua_State *L, struct open_node *at, json_t *v)
{
    bool array = json_is_array(v);
    size_t n = array ? json_array_size(v) : json_object_size(v);

    luaL_checkstack(L, 6, "JSON");
    lua_createtable(L, array ? (int)n : 0, array ? 0 : (int)n);
    if (array)
        luaL_setmetatable(L, "array");
    *at = (struct open_node){.node = v};
    at->member = array ? NULL : json_object_iter(v);
}

/* The next child, and its key pushed; NULL at the end. */
static json_t *
next_child(lua_State *L, struct open_node *at)
{
    json_t *child;

    if (json_is_array(at->node)) {
        child = json_array_get(at->node, at->index++);
        if (child != NULL)
            lua_pushinteger(L, (lua_Integer)at->index);
        return child;
    }
    if (at->member == NULL)
        return NULL;
    child = json_object_iter_value(at->member);
    lua_pushlstring(L, json_object_iter_key(at->member),
        json_object_iter_key_len(at->member));
    at->member = json_object_iter_next(at->node, at->member);
    return child;
}

static void
push_tree(lua_State *L, json_t *root)
{
    struct open_node stack[WB__JSON_DEPTH];
    size_t depth = 0;
    json_t *v;

    if (!json_is_object(root) && !json_is_array(root)) {
        push_scalar(L, root);
        return;
    }
    open_container(L, &stack[depth++], root);
    while (depth > 0) {
        v = next_child(L, &stack[depth - 1]);
        if (v == NULL) {
            if (--depth > 0)
                lua_pop(L, 1);
            continue;
        }
        wb__script_spend(L, 10);
        if (json_is_object(v) || json_is_array(v)) {
            if (depth == WB__JSON_DEPTH)
                (void)luaL_error(
                    L, "JSON nested deeper than %d", WB__JSON_DEPTH);
            open_container(L, &stack[depth++], v);
            lua_pushvalue(L, -1);
            lua_insert(L, -3);
            lua_rawset(L, -4);
        } else if (json_is_null(v) && json_is_object(stack[depth - 1].node)) {
            lua_pop(L, 1);
        } else {
            push_scalar(L, v);
            lua_rawset(L, -3);
        }
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
    push_tree(L, *box);
    json_decref(*box);
    *box = NULL;
    lua_remove(L, -2);
    return true;
}

/* ---- Lua to JSON ------------------------------------------------------- */

static bool
is_array(lua_State *L, int at)
{
    bool marked = lua_getmetatable(L, at);

    if (marked) {
        luaL_getmetatable(L, "array");
        marked = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
    }
    return marked || lua_rawlen(L, at) > 0;
}

static json_t *
number_node(lua_State *L, int at)
{
    lua_Number n = lua_tonumber(L, at);

    if (lua_isinteger(L, at))
        return json_integer(lua_tointeger(L, at));
    if (!isfinite(n))
        (void)luaL_error(L, "JSON has no number for %f", n);
    return json_real(n);
}

/* A new node for the Lua value at `at`; containers come empty. */
static json_t *
new_node(lua_State *L, int at)
{
    json_t *node = NULL;
    size_t len;
    const char *text;

    switch (lua_type(L, at)) {
    case LUA_TSTRING:
        text = lua_tolstring(L, at, &len);
        if (!wb__utf8_valid((struct wb_slice){text, len}))
            (void)luaL_error(L, "JSON wants UTF-8; this text is not");
        node = json_stringn(text, len);
        break;
    case LUA_TNUMBER:
        node = number_node(L, at);
        break;
    case LUA_TBOOLEAN:
        node = json_boolean(lua_toboolean(L, at));
        break;
    case LUA_TTABLE:
        node = is_array(L, at) ? json_array() : json_object();
        break;
    case LUA_TLIGHTUSERDATA:
        node = json_null();
        break;
    default:
        (void)luaL_error(L, "JSON has no value for a %s", luaL_typename(L, at));
    }
    if (node == NULL)
        (void)luaL_error(L, "not enough memory");
    return node;
}

/* Put child into parent; the Lua key is at -2. Keeps no reference if not. */
static void
attach(lua_State *L, json_t *parent, json_t *child)
{
    struct wb_slice key;
    int failed;

    if (json_is_array(parent)) {
        failed = json_array_append_new(parent, child);
    } else {
        key.ptr = lua_tolstring(L, -2, &key.len);
        failed = json_object_setn_new(parent, key.ptr, key.len, child);
    }
    if (failed)
        (void)luaL_error(L, "not enough memory");
}

/* Push key and value of the next child of the table at the top (below its last
 * key, for an object). */
static bool
next_value(lua_State *L, struct open_node *at)
{
    size_t n;

    if (json_is_object(at->node)) {
        if (!lua_next(L, -2))
            return false;
        if (lua_type(L, -2) != LUA_TSTRING)
            (void)luaL_error(L, "a table with a %s as name is no JSON object",
                luaL_typename(L, -2));
        lua_pushvalue(L, -2);
        n = lua_rawlen(L, -1);
        if (!wb__utf8_valid((struct wb_slice){lua_tostring(L, -1), n}))
            (void)luaL_error(L, "JSON wants UTF-8; this name is not");
        lua_pop(L, 1);
        return true;
    }
    if (++at->index > lua_rawlen(L, -1))
        return false;
    lua_pushinteger(L, (lua_Integer)at->index);
    (void)lua_rawgeti(L, -2, (lua_Integer)at->index);
    if (lua_isnil(L, -1))
        (void)luaL_error(L, "a list with a hole; write null there");
    return true;
}

/* A list has nothing but its items. */
static void
check_list(lua_State *L)
{
    lua_Unsigned n = 0;

    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        n++;
    if (n > lua_rawlen(L, -1))
        (void)luaL_error(L, "a table with both items and names is no JSON");
}

/* Begin the container whose table is at the top. */
static void
begin(lua_State *L, struct open_node *at, json_t *node)
{
    luaL_checkstack(L, 6, "JSON");
    *at = (struct open_node){.node = node};
    if (json_is_array(node))
        check_list(L);
    else
        lua_pushnil(L);
}

static void
build_tree(lua_State *L, int at, json_t **root)
{
    struct open_node stack[WB__JSON_DEPTH];
    size_t depth = 0;
    json_t *child;

    *root = new_node(L, at);
    if (lua_type(L, at) != LUA_TTABLE)
        return;
    lua_pushvalue(L, at);
    begin(L, &stack[depth++], *root);
    while (depth > 0) {
        if (!next_value(L, &stack[depth - 1])) {
            lua_pop(L, 1);
            if (--depth > 0 && json_is_array(stack[depth - 1].node))
                lua_pop(L, 1); /* the index; an object's name stays */
            continue;
        }
        wb__script_spend(L, 10);
        child = new_node(L, -1);
        attach(L, stack[depth - 1].node, child);
        if (lua_type(L, -1) == LUA_TTABLE) {
            if (depth == WB__JSON_DEPTH)
                (void)luaL_error(
                    L, "tables nested deeper than %d", WB__JSON_DEPTH);
            begin(L, &stack[depth++], child);
        } else {
            lua_pop(L, json_is_array(stack[depth - 1].node) ? 2 : 1);
        }
    }
}

void
wb__json_encode(lua_State *L, int at, struct wb__buf *out)
{
    json_t **box;

    at = lua_absindex(L, at);
    box = push_box(L);
    build_tree(L, at, box);
    /* Lua's own order of names differs from run to run. */
    wb__json_write(out, *box, JSON_SORT_KEYS);
    json_decref(*box);
    *box = NULL;
    lua_pop(L, 1);
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
    luaL_newmetatable(L, "json tree");
    lua_pushcfunction(L, box_free);
    lua_setfield(L, -2, "__gc");
    luaL_newmetatable(L, "array");
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    lua_pushcfunction(L, mark_array);
    lua_setfield(L, names, "array");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, names, "null");
}
