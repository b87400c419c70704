/* sandbox.c - a Lua state with limits, and the libraries a script may use.
 *
 * (1) Names are copied from Lua's libraries one by one: what is not in the
 *     lists below does not exist for a script.
 * (2) A call spends steps and CPU time; once they are used up every further
 *     instruction fails, so that no pcall can go on.
 * (3) Memory is counted by the allocator and limited.
 * (4) next and pairs visit keys in order: numbers, text by its bytes, booleans.
 * (5) C functions that may take long spend the steps of their worst case before
 *     they begin.
 * (6) Nothing of a script runs while Lua collects garbage: no finalizers. */
#include <stdio.h>
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

/* ---- limits ------------------------------------------------------------ */

static void *
resize(void *ctx, void *ptr, size_t old, size_t size)
{
    struct wb__script *s = ctx;
    void *p;

    if (ptr == NULL)
        old = 0; /* for a new object Lua passes its type here */
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
    return p != NULL ? p : ptr; /* Lua requires that shrinking succeeds */
}

int
wb__script_line(lua_State *L)
{
    lua_Debug ar;

    /* C functions on the stack, such as pcall, have no line. */
    for (int level = 0; lua_getstack(L, level, &ar); level++)
        if (lua_getinfo(L, "l", &ar) && ar.currentline > 0)
            return ar.currentline;
    return 0;
}

/* luaL_error() would use the line of the direct caller, which may be in C. */
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

static void
count_hook(lua_State *L, lua_Debug *ar)
{
    struct wb__script *s = wb__script_of(L);

    (void)ar;
    if (clock() > s->cpu_end)
        s->steps = -1;
    wb__script_spend(L, HOOK_EVERY);
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
    lua_sethook(L, count_hook, LUA_MASKCOUNT, 1); /* fail at each instruction */
    fail_at(
        L, wb__script_line(L), "ran out of steps; is there an endless loop?");
}

/* ---- order ------------------------------------------------------------- */

/* Of the type of a key; a Lua error for a type without an order. */
static int
rank(lua_State *L, int at)
{
    int type = lua_type(L, at);

    if (type == LUA_TBOOLEAN)
        return LUA_TSTRING + 1;
    if (type != LUA_TNUMBER && type != LUA_TSTRING)
        (void)luaL_error(
            L, "a table with a %s as key has no order", luaL_typename(L, at));
    return type;
}

static bool
is_before(lua_State *L, int a, int b)
{
    int order = rank(L, a) - rank(L, b);

    if (order != 0)
        return order < 0;
    if (lua_isboolean(L, a))
        return lua_toboolean(L, a) < lua_toboolean(L, b);
    return lua_compare(L, a, b, LUA_OPLT); /* of text in the locale "C" */
}

bool
wb__next_in_order(lua_State *L, int table)
{
    int after = lua_gettop(L), best = after + 1;
    int64_t n = 0;

    luaL_checkstack(L, 4, "next");
    lua_pushnil(L);
    for (lua_pushnil(L); lua_next(L, table); n++) {
        lua_pop(L, 1);
        (void)rank(L, -1);
        if ((lua_isnil(L, after) || is_before(L, after, -1)) &&
            (lua_isnil(L, best) || is_before(L, -1, best)))
            lua_copy(L, -1, best);
    }
    wb__script_spend(L, n);
    lua_remove(L, after);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    lua_pushvalue(L, -1);
    lua_rawget(L, table);
    return true;
}

static int
ordered_next(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    if (wb__next_in_order(L, 1))
        return 2;
    lua_pushnil(L);
    return 1;
}

static int
key_less(lua_State *L)
{
    lua_pushboolean(L, is_before(L, 1, 2));
    return 1;
}

void
wb__sort(lua_State *L)
{
    int at = lua_gettop(L);

    wb__script_spend(L, 20 * (int64_t)lua_rawlen(L, at));
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, LUA_TABLIBNAME);
    lua_getfield(L, -1, "sort");
    lua_pushvalue(L, at);
    lua_pushcfunction(L, key_less);
    lua_call(L, 2, 0);
    lua_settop(L, at);
}

/* The iterator of pairs: upvalues sorted keys and position. Keys removed since
 * pairs was called are left out. */
static int
pairs_step(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));

    luaL_checktype(L, 1, LUA_TTABLE);
    do {
        lua_settop(L, 1);
        if (lua_rawgeti(L, lua_upvalueindex(1), ++i) == LUA_TNIL)
            return 1;
        lua_pushvalue(L, -1);
    } while (lua_rawget(L, 1) == LUA_TNIL);
    lua_pushinteger(L, i);
    lua_replace(L, lua_upvalueindex(2));
    return 2;
}

static int
ordered_pairs(lua_State *L)
{
    lua_Integer n = 0;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_newtable(L); /* index 2: the keys */
    for (lua_pushnil(L); lua_next(L, 1);) {
        lua_pop(L, 1);
        (void)rank(L, -1);
        lua_pushvalue(L, -1);
        lua_rawseti(L, 2, ++n);
    }
    wb__sort(L);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, pairs_step, 2);
    lua_pushvalue(L, 1);
    return 2;
}

/* ---- guards: they check, then call Lua's own function, upvalue 1 ------- */

static int
call_original(lua_State *L)
{
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* A finalizer would run outside all limits. */
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
    return call_original(L);
}

/* Each piece of a pattern that may match more or fewer bytes, and a start at
 * any position, multiplies the work: the matcher tries all ways to divide n
 * bytes among them. */
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
    bool anchors = lua_tointeger(L, lua_upvalueindex(2));
    struct wb_slice text, pattern;

    text.ptr = luaL_checklstring(L, 1, &text.len);
    pattern.ptr = luaL_checklstring(L, 2, &pattern.len);
    anchors = anchors && pattern.len > 0 && pattern.ptr[0] == '^';
    wb__script_spend(L, pattern_cost(pattern, text.len, !anchors));
    return call_original(L);
}

/* Lua 5.4.4 loops over the count even where there is nothing to repeat. */
static int
safe_rep(lua_State *L)
{
    size_t len, between;

    (void)luaL_checklstring(L, 1, &len);
    (void)luaL_optlstring(L, 3, "", &between);
    if (len + between > 0)
        return call_original(L);
    (void)luaL_checkinteger(L, 2);
    lua_pushliteral(L, "");
    return 1;
}

/* Functions that walk a table; upvalue 2 is how far. A false length from __len
 * would make them walk for ever. */
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
    return call_original(L);
}

/* ---- libraries --------------------------------------------------------- */

static const struct {
    const char *name;
    lua_CFunction open;
    const char *members;
} libraries[] = {
    {LUA_GNAME, luaopen_base,
        "assert error getmetatable ipairs next pairs pcall rawequal rawget "
        "rawlen select setmetatable tonumber tostring type"},
    {LUA_STRLIBNAME, luaopen_string,
        "byte char find format gmatch gsub len lower match rep reverse sub "
        "upper"},
    {LUA_TABLIBNAME, luaopen_table, "concat insert pack remove sort unpack"},
    {LUA_MATHLIBNAME, luaopen_math,
        "abs ceil floor fmod huge max maxinteger min mininteger modf sqrt "
        "tointeger type ult"},
    {LUA_UTF8LIBNAME, luaopen_utf8,
        "char charpattern codepoint codes len offset"},
};
static const struct {
    const char *name;
    lua_CFunction guard;
    int upvalue;
} guards[] = {
    {"next", ordered_next, 0},
    {"pairs", ordered_pairs, 0},
    {"setmetatable", safe_setmetatable, 0},
    {"find", safe_pattern, true},
    {"gmatch", safe_pattern, false},
    {"gsub", safe_pattern, true},
    {"match", safe_pattern, true},
    {"rep", safe_rep, 0},
    {"concat", safe_walk, WALK_ALL},
    {"insert", safe_walk, WALK_INSERT},
    {"remove", safe_walk, WALK_REMOVE},
    {"sort", safe_walk, WALK_SORT},
    {"unpack", safe_walk, WALK_ALL},
};

/* Copy members, or their guards, from the library at the top to the table below
 * it; pop the library. */
static void
copy_members(lua_State *L, struct wb_slice members)
{
    struct wb_slice name;

    while (wb__cut(&members, ' ', &name)) {
        lua_pushlstring(L, name.ptr, name.len);
        lua_pushvalue(L, -1);
        lua_rawget(L, -3);
        for (size_t i = 0; i < WB_COUNT(guards); i++)
            if (wb__eq(name, wb_slice(guards[i].name))) {
                lua_pushinteger(L, guards[i].upvalue);
                lua_pushcclosure(L, guards[i].guard, 2);
                break;
            }
        lua_rawset(L, -4);
    }
    lua_pop(L, 1);
}

void
wb__sandbox_push(lua_State *L)
{
    lua_newtable(L);
    luaL_requiref(L, libraries[0].name, libraries[0].open, 0);
    copy_members(L, wb_slice(libraries[0].members));
    for (size_t i = 1; i < WB_COUNT(libraries); i++) {
        lua_newtable(L);
        luaL_requiref(L, libraries[i].name, libraries[i].open, 0);
        copy_members(L, wb_slice(libraries[i].members));
        lua_setfield(L, -2, libraries[i].name);
    }
    /* Methods of text are the same functions; scripts cannot reach the table
     * that holds them. */
    lua_pushliteral(L, "");
    (void)lua_getmetatable(L, -1);
    (void)lua_getfield(L, -3, LUA_STRLIBNAME);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "string");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}

void
wb__type_new(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
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

/* From the Lua error at the top; our path replaces the chunk's name. */
static enum wb_status
convert_error(struct wb__script *s, int code, struct wb_err *err)
{
    const char *text;

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
    text = lua_tostring(s->lua, -1);
    if (!wb__starts(wb_slice(text), WB_LIT(WB__CHUNK ":")))
        return wb__fail(err, WB_INVALID, 0, "%s: %s", s->path, text);
    return wb__fail(
        err, WB_INVALID, 0, "%s%s", s->path, text + sizeof(WB__CHUNK) - 1);
}

/* ---- open, call, close ------------------------------------------------- */

enum wb_status
wb__script_open(struct wb__script *s, struct wb_err *err)
{
    s->arena.env = s->reasons.env = s->env;
    s->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (s->locale == (locale_t)0)
        return wb__nomem(err, "locale");
    s->lua = lua_newstate(resize, s);
    if (s->lua == NULL)
        return wb__nomem(err, "Lua");
    *(struct wb__script **)lua_getextraspace(s->lua) = s;
    return WB_OK;
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
    lua_sethook(s->lua, count_hook, LUA_MASKCOUNT, HOOK_EVERY);
    lua_pushcfunction(s->lua, fn);
    lua_pushlightuserdata(s->lua, arg);
    code = lua_pcall(s->lua, 1, 0, 0);
    if (code != LUA_OK)
        rc = convert_error(s, code, err);
    lua_settop(s->lua, 0);
    (void)uselocale(before);
    return rc;
}

void
wb__script_close(struct wb__script *s)
{
    if (s->lua != NULL)
        lua_close(s->lua);
    if (s->locale != (locale_t)0)
        freelocale(s->locale);
    wb__free(s->env, s->secrets);
    wb__arena_clear(&s->arena);
    wb__arena_clear(&s->reasons);
}
