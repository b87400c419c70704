/* sandbox.c - a Lua state that can neither reach out nor run away.
 *
 * (1) Names are copied from Lua's libraries one by one: what is not in the
 *     lists below does not exist for a script.
 * (2) A call spends steps and CPU time; once they are gone every further
 *     instruction fails, so that no pcall can go on.
 * (3) Memory is counted by the allocator and bounded.
 * (4) next and pairs go in order: numbers, text by its bytes, booleans.
 * (5) C functions that may take long spend steps for what they could take at
 *     worst, before they begin.
 * (6) Nothing of a script runs while Lua collects: no finalizers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "script/script.h"

enum {
    HOOK_EVERY = 1000
};

struct wb__script *
wb__script_of(lua_State *L)
{
    return *(struct wb__script **)lua_getextraspace(L);
}

/* ---- bounds ------------------------------------------------------------ */

static void *
resize(void *ctx, void *ptr, size_t old, size_t size)
{
    struct wb__script *s = ctx;
    void *p;

    if (ptr == NULL)
        old = 0; /* Lua tells the type here */
    if (size == 0) {
        wb__free(s->env, ptr);
        s->bytes -= old;
        return NULL;
    }
    if (size > old && size - old > s->limits.bytes - s->bytes) {
        s->denied = true;
        return NULL;
    }
    p = s->env->resize(s->env->ctx, ptr, size);
    if (p == NULL && size > old)
        return NULL;
    s->bytes += size - old;
    return p != NULL ? p : ptr; /* to shrink must not fail, says Lua */
}

static void spend_hook(lua_State *L, lua_Debug *ar);

/* An error in that line of the file; luaL_error() would take the line of
 * whoever called. */
WB_NORETURN static void
fail_at(lua_State *L, int line, const char *text)
{
    if (line > 0)
        (void)lua_pushfstring(L, WB__CHUNK ":%d: %s", line, text);
    else
        (void)lua_pushstring(L, text);
    (void)lua_error(L);
    wb__panic(__FILE__, __LINE__, __func__, "lua_error() returned");
}

/* Out of steps: fail now, and at each instruction that is still tried. */
WB_NORETURN static void
ran_out(lua_State *L, int line)
{
    lua_sethook(L, spend_hook, LUA_MASKCOUNT, 1);
    fail_at(L, line, "ran out of steps; is there an endless loop?");
}

static void
spend_hook(lua_State *L, lua_Debug *ar)
{
    struct wb__script *s = wb__script_of(L);

    s->steps -= HOOK_EVERY;
    if (s->steps >= 0 && clock() <= s->cpu_end)
        return;
    s->steps = -1;
    ran_out(L, lua_getinfo(L, "l", ar) ? ar->currentline : 0);
}

int
wb__script_line(lua_State *L)
{
    lua_Debug ar;

    /* C functions on the way, such as pcall, have no line. */
    for (int level = 1; lua_getstack(L, level, &ar); level++)
        if (lua_getinfo(L, "l", &ar) && ar.currentline > 0)
            return ar.currentline;
    return 0;
}

void
wb__script_spend(lua_State *L, int64_t steps)
{
    struct wb__script *s = wb__script_of(L);

    if (steps <= s->steps) {
        s->steps -= steps;
        return;
    }
    s->steps = -1;
    ran_out(L, wb__script_line(L));
}

/* ---- order ------------------------------------------------------------- */

struct key {
    enum {
        NUMBER,
        TEXT,
        BOOLEAN
    } type;
    bool is_integer;
    lua_Integer integer; /* or the boolean */
    lua_Number number;
    struct wb_slice text;
};

static struct key
key_at(lua_State *L, int at)
{
    struct key k = {.type = BOOLEAN};

    switch (lua_type(L, at)) {
    case LUA_TNUMBER:
        k.type = NUMBER;
        k.is_integer = lua_isinteger(L, at);
        k.integer = k.is_integer ? lua_tointeger(L, at) : 0;
        k.number = lua_tonumber(L, at);
        break;
    case LUA_TSTRING:
        k.type = TEXT;
        k.text.ptr = lua_tolstring(L, at, &k.text.len);
        break;
    case LUA_TBOOLEAN:
        k.integer = lua_toboolean(L, at);
        break;
    default:
        (void)luaL_error(
            L, "a table with a %s as key has no order", luaL_typename(L, at));
    }
    return k;
}

static int
sign(bool less, bool more)
{
    return (int)more - (int)less;
}

static int
key_compare(const void *left, const void *right)
{
    const struct key *a = left, *b = right;
    size_t len = a->text.len < b->text.len ? a->text.len : b->text.len;
    int order = 0;

    if (a->type != b->type)
        return sign(a->type<b->type, a->type> b->type);
    if (a->type == TEXT && len > 0)
        order = memcmp(a->text.ptr, b->text.ptr, len);
    if (a->type == TEXT)
        return order != 0
                   ? order
                   : sign(a->text.len<b->text.len, a->text.len> b->text.len);
    if (a->type == NUMBER && !(a->is_integer && b->is_integer))
        return sign(a->number<b->number, a->number> b->number);
    return sign(a->integer<b->integer, a->integer> b->integer);
}

static void
push_key(lua_State *L, const struct key *k)
{
    if (k->type == TEXT)
        lua_pushlstring(L, k->text.ptr, k->text.len);
    else if (k->type == BOOLEAN)
        lua_pushboolean(L, (int)k->integer);
    else if (k->is_integer)
        lua_pushinteger(L, k->integer);
    else
        lua_pushnumber(L, k->number);
}

/* next(table [, key]): the least key above the given one. */
static int
ordered_next(lua_State *L)
{
    struct key after, best, k;
    bool any = false, first;
    int64_t n = 0;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    first = lua_isnil(L, 2);
    after = first ? (struct key){0} : key_at(L, 2);
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1), n++) {
        lua_pushvalue(L, -2); /* reading a key must not turn it into text */
        k = key_at(L, -1);
        lua_pop(L, 1);
        if ((!first && key_compare(&k, &after) <= 0) ||
            (any && key_compare(&k, &best) >= 0))
            continue;
        best = k;
        any = true;
    }
    wb__script_spend(L, n);
    if (!any)
        return lua_pushnil(L), 1;
    push_key(L, &best);
    lua_pushvalue(L, -1);
    lua_rawget(L, 1);
    return 2;
}

/* The iterator of pairs: upvalues keys and position. Keys that went away on
 * the way are left out. */
static int
pairs_step(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    for (;;) {
        if (lua_rawgeti(L, lua_upvalueindex(1), ++i) == LUA_TNIL)
            return 1;
        lua_pushvalue(L, -1);
        if (lua_rawget(L, 1) != LUA_TNIL)
            break;
        lua_settop(L, 1);
    }
    lua_pushinteger(L, i);
    lua_replace(L, lua_upvalueindex(2));
    return 2;
}

static int64_t
table_size(lua_State *L, int at)
{
    int64_t n = 0;

    for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1))
        n++;
    return n;
}

static int
ordered_pairs(lua_State *L)
{
    int64_t n, i = 0;
    struct key *keys;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    n = table_size(L, 1);
    wb__script_spend(L, n);
    keys = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof(*keys), 0);
    for (lua_pushnil(L); lua_next(L, 1); i++) {
        lua_pop(L, 1);
        keys[i] = key_at(L, -1);
    }
    qsort(keys, (size_t)n, sizeof(*keys), key_compare);
    lua_createtable(L, (int)n, 0);
    for (i = 0; i < n; i++) {
        push_key(L, &keys[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, pairs_step, 2);
    lua_pushvalue(L, 1);
    return 2;
}

/* ---- guards ------------------------------------------------------------ */

/* A finalizer would run outside all bounds. */
static int
safe_setmetatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    if (lua_type(L, 2) == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "__gc is not for scripts");
        lua_pop(L, 1);
    }
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Pieces of a pattern that may match more or less: the matcher tries all their
 * combinations, which are the ways to divide n bytes among them. */
static int64_t
pattern_cost(struct wb_slice pattern, size_t n, bool anywhere)
{
    double ways = 1, pieces = anywhere ? 1 : 0;

    for (size_t i = 0; i < pattern.len; i++) {
        if (pattern.ptr[i] == '%')
            pieces += ++i < pattern.len && pattern.ptr[i] == 'b';
        else if (strchr("*+-?", pattern.ptr[i]) != NULL)
            pieces++;
    }
    for (double i = 1; i <= pieces && ways < 1e15; i++)
        ways = ways * ((double)n + i) / i;
    ways = ways * (1 + (double)pattern.len / 16) / 8;
    return ways < 1e15 ? (int64_t)ways : (int64_t)1e15;
}

/* Upvalue 2: does ^ bind the match to the start? It does not for gmatch. */
static int
safe_pattern(lua_State *L)
{
    struct wb_slice text, pattern;
    bool anchors = lua_tointeger(L, lua_upvalueindex(2));

    text.ptr = luaL_checklstring(L, 1, &text.len);
    pattern.ptr = luaL_checklstring(L, 2, &pattern.len);
    anchors = anchors && pattern.len > 0 && pattern.ptr[0] == '^';
    wb__script_spend(L, pattern_cost(pattern, text.len, !anchors));
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Nothing, so and so often: Lua 5.4.4 counts it out. */
static int
safe_rep(lua_State *L)
{
    size_t len, between;

    (void)luaL_checklstring(L, 1, &len);
    (void)luaL_optlstring(L, 3, "", &between);
    if (len + between > 0)
        return lua_tocfunction(L, lua_upvalueindex(1))(L);
    (void)luaL_checkinteger(L, 2);
    lua_pushliteral(L, "");
    return 1;
}

/* Functions that walk a table, and by how much. A length made up by __len
 * would have them walk for ever. */
enum {
    WALK_ALL,
    WALK_SORT,
    WALK_INSERT,
    WALK_REMOVE
};

static int
safe_walk(lua_State *L)
{
    int64_t how = lua_tointeger(L, lua_upvalueindex(2)), n;

    luaL_checktype(L, 1, LUA_TTABLE);
    if (luaL_getmetafield(L, 1, "__len") != LUA_TNIL)
        return luaL_error(L, "a plain table is needed, without __len");
    n = (int64_t)lua_rawlen(L, 1);
    if ((how == WALK_INSERT && lua_gettop(L) == 2) ||
        (how == WALK_REMOVE && lua_gettop(L) == 1))
        n = 1; /* at the end */
    wb__script_spend(L, how == WALK_SORT ? n * 20 : n);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* ---- libraries --------------------------------------------------------- */

struct name {
    const char *library, *name;
    lua_CFunction guard; /* gets Lua's own as its upvalue */
    int how;
};
static const struct name base_names[] = {{"_G", "assert", NULL, 0},
    {"_G", "error", NULL, 0}, {"_G", "getmetatable", NULL, 0},
    {"_G", "ipairs", NULL, 0}, {"_G", "next", ordered_next, 0},
    {"_G", "pairs", ordered_pairs, 0}, {"_G", "pcall", NULL, 0},
    {"_G", "rawequal", NULL, 0}, {"_G", "rawget", NULL, 0},
    {"_G", "rawlen", NULL, 0}, {"_G", "select", NULL, 0},
    {"_G", "setmetatable", safe_setmetatable, 0}, {"_G", "tonumber", NULL, 0},
    {"_G", "tostring", NULL, 0}, {"_G", "type", NULL, 0}};
static const struct name string_names[] = {{"string", "byte", NULL, 0},
    {"string", "char", NULL, 0}, {"string", "find", safe_pattern, 1},
    {"string", "format", NULL, 0}, {"string", "gmatch", safe_pattern, 0},
    {"string", "gsub", safe_pattern, 1}, {"string", "len", NULL, 0},
    {"string", "lower", NULL, 0}, {"string", "match", safe_pattern, 1},
    {"string", "rep", safe_rep, 0}, {"string", "reverse", NULL, 0},
    {"string", "sub", NULL, 0}, {"string", "upper", NULL, 0}};
static const struct name table_names[] = {
    {"table", "concat", safe_walk, WALK_ALL},
    {"table", "insert", safe_walk, WALK_INSERT}, {"table", "pack", NULL, 0},
    {"table", "remove", safe_walk, WALK_REMOVE},
    {"table", "sort", safe_walk, WALK_SORT},
    {"table", "unpack", safe_walk, WALK_ALL}};
static const struct name math_names[] = {{"math", "abs", NULL, 0},
    {"math", "ceil", NULL, 0}, {"math", "floor", NULL, 0},
    {"math", "fmod", NULL, 0}, {"math", "huge", NULL, 0},
    {"math", "max", NULL, 0}, {"math", "maxinteger", NULL, 0},
    {"math", "min", NULL, 0}, {"math", "mininteger", NULL, 0},
    {"math", "modf", NULL, 0}, {"math", "sqrt", NULL, 0},
    {"math", "tointeger", NULL, 0}, {"math", "type", NULL, 0},
    {"math", "ult", NULL, 0}};
static const struct name utf8_names[] = {{"utf8", "char", NULL, 0},
    {"utf8", "charpattern", NULL, 0}, {"utf8", "codepoint", NULL, 0},
    {"utf8", "codes", NULL, 0}, {"utf8", "len", NULL, 0},
    {"utf8", "offset", NULL, 0}};

/* The library's table at the top of the stack gives what the list names, to
 * the table below it. */
static void
copy_names(lua_State *L, const struct name *list, size_t n)
{
    int library = lua_gettop(L);

    for (size_t i = 0; i < n; i++) {
        (void)lua_getfield(L, library, list[i].name);
        if (list[i].guard != NULL) {
            lua_pushinteger(L, list[i].how);
            lua_pushcclosure(L, list[i].guard, 2);
        }
        lua_setfield(L, library - 1, list[i].name);
    }
}

/* A library of its own in the table at the top. */
static void
add_library(lua_State *L, lua_CFunction open, const struct name *list, size_t n)
{
    lua_createtable(L, 0, (int)n);
    luaL_requiref(L, list[0].library, open, 0);
    copy_names(L, list, n);
    lua_pop(L, 1);
    lua_setfield(L, -2, list[0].library);
}

void
wb__sandbox_push(lua_State *L)
{
    lua_newtable(L);
    luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
    copy_names(L, base_names, WB_COUNT(base_names));
    lua_pop(L, 1);
    add_library(L, luaopen_string, string_names, WB_COUNT(string_names));
    add_library(L, luaopen_table, table_names, WB_COUNT(table_names));
    add_library(L, luaopen_math, math_names, WB_COUNT(math_names));
    add_library(L, luaopen_utf8, utf8_names, WB_COUNT(utf8_names));
    /* Methods of text are the same functions, and their table is out of
     * reach. */
    lua_pushliteral(L, "");
    (void)lua_getmetatable(L, -1);
    (void)lua_getfield(L, -3, "string");
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "string");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}

/* ---- errors ------------------------------------------------------------ */

void
wb__script_fail(
    lua_State *L, enum wb_status status, int line, const char *fmt, ...)
{
    struct wb__script *s = wb__script_of(L);
    char text[sizeof(s->err.msg)];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (s->reading && s->err.status == WB_OK)
        (void)wb__fail(&s->err, status, 0, "%s:%d: %s", s->path, line, text);
    fail_at(L, line, text);
}

/* Lua's text of an error, with our path where Lua has the chunk's name. */
static enum wb_status
report(struct wb__script *s, int code, struct wb_err *err)
{
    const char *text;
    struct wb_slice all;

    if (code == LUA_ERRMEM && !s->denied)
        return wb__nomem(err, s->path);
    if (code == LUA_ERRMEM)
        return wb__fail(err, WB_INVALID, 0,
            "%s: ran out of its %zu MiB of memory", s->path,
            s->limits.bytes >> 20);
    if (lua_type(s->lua, -1) != LUA_TSTRING)
        return wb__fail(err, WB_INVALID, 0,
            "%s: failed with a %s in place of an error text", s->path,
            luaL_typename(s->lua, -1));
    text = lua_tolstring(s->lua, -1, &all.len);
    all.ptr = text;
    if (!wb__starts(all, WB_LIT(WB__CHUNK ":")))
        return wb__fail(err, WB_INVALID, 0, "%s: %s", s->path, text);
    return wb__fail(
        err, WB_INVALID, 0, "%s%s", s->path, text + sizeof(WB__CHUNK) - 1);
}

/* ---- open, call, close ------------------------------------------------- */

enum wb_status
wb__script_open(struct wb__script *s, struct wb_err *err)
{
    s->arena.env = s->env;
    s->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (s->locale == (locale_t)0)
        return wb__nomem(err, "locale");
    s->lua = lua_newstate(resize, s);
    if (s->lua == NULL)
        return wb__nomem(err, "Lua");
    *(struct wb__script **)lua_getextraspace(s->lua) = s;
    return WB_OK;
}

void
wb__script_close(struct wb__script *s)
{
    if (s->lua != NULL)
        lua_close(s->lua);
    if (s->locale != (locale_t)0)
        freelocale(s->locale);
    wb__arena_clear(&s->arena);
}

enum wb_status
wb__script_call(
    struct wb__script *s, lua_CFunction fn, void *arg, struct wb_err *err)
{
    locale_t before = uselocale(s->locale);
    enum wb_status rc = WB_OK;
    int code;

    s->calls++;
    s->steps = s->limits.steps;
    s->cpu_end = clock() + s->limits.cpu_ms * (CLOCKS_PER_SEC / 1000);
    s->denied = false;
    lua_sethook(s->lua, spend_hook, LUA_MASKCOUNT, HOOK_EVERY);
    lua_pushcfunction(s->lua, fn);
    lua_pushlightuserdata(s->lua, arg);
    code = lua_pcall(s->lua, 1, 0, 0);
    if (code != LUA_OK)
        rc = report(s, code, err);
    lua_settop(s->lua, 0);
    (void)uselocale(before);
    return rc;
}
