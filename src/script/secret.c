/* secret.c - env and file: text that is used and never shown.
 *
 * (1) A secret is a userdata: a script can join it to text, which gives a
 *     secret again, and hand it on; it cannot read, print or compare it.
 * (2) Its bytes are wiped when Lua frees it.
 * (3) With a text as default the value is no secret, as the file's author
 *     says so: env("URL", "http://localhost"). With false it may be missing.
 * (4) env and file work while the configuration is read, not in hooks. */
#include <stdlib.h>

#include "os/os.h"
#include "script/script.h"

enum {
    SECRET_MAX = 65536
};

struct secret {
    size_t len;
    bool absent;
    char bytes[];
};

static struct secret *
secret_room(lua_State *L, size_t len)
{
    struct secret *s = lua_newuserdatauv(L, sizeof(*s) + len, 0);

    s->len = len;
    s->absent = false;
    luaL_setmetatable(L, "secret");
    return s;
}

void
wb__secret_push(lua_State *L, struct wb_slice bytes)
{
    struct secret *s = secret_room(L, bytes.len);

    if (bytes.len > 0)
        memcpy(s->bytes, bytes.ptr, bytes.len);
}

bool
wb__text_at(lua_State *L, int at, struct wb__text *out)
{
    const struct secret *s = luaL_testudata(L, at, "secret");

    *out = (struct wb__text){
        .secret = s != NULL, .absent = s != NULL && s->absent};
    if (s != NULL)
        out->s = (struct wb_slice){s->bytes, s->len};
    else if (lua_type(L, at) == LUA_TSTRING)
        out->s.ptr = lua_tolstring(L, at, &out->s.len);
    else
        return false;
    return true;
}

static int
secret_wipe(lua_State *L)
{
    struct secret *s = luaL_checkudata(L, 1, "secret");

    explicit_bzero(s->bytes, s->len);
    return 0;
}

static int
secret_show(lua_State *L)
{
    lua_pushliteral(L, "(secret)");
    return 1;
}

static int
secret_join(lua_State *L)
{
    struct wb__text a, b;
    struct secret *s;

    if (!wb__text_at(L, 1, &a) || !wb__text_at(L, 2, &b))
        return luaL_error(L, "a secret can be joined to text only");
    s = secret_room(L, a.s.len + b.s.len);
    s->absent = a.absent || b.absent;
    if (a.s.len > 0)
        memcpy(s->bytes, a.s.ptr, a.s.len);
    if (b.s.len > 0)
        memcpy(s->bytes + a.s.len, b.s.ptr, b.s.len);
    return 1;
}

/* Push what was found: argument 2 is the default. */
static int
give(lua_State *L, struct wb_slice value, const char *what, const char *mend)
{
    const char *name = lua_tostring(L, 1);
    bool needed = value.len == 0 && lua_isnoneornil(L, 2);

    if (needed && wb__script_of(L)->check_only) {
        secret_room(L, 0)->absent = true;
        return 1;
    }
    if (needed)
        wb__script_fail(L, WB_UNAVAILABLE, wb__script_line(L),
            "%s %.80s is not there or empty; %s", what, name, mend);
    if (value.len == 0 && lua_isboolean(L, 2))
        lua_pushnil(L);
    else if (value.len == 0)
        lua_pushvalue(L, 2);
    else if (lua_type(L, 2) == LUA_TSTRING)
        lua_pushlstring(L, value.ptr, value.len);
    else
        wb__secret_push(L, value);
    return 1;
}

static void
check_arguments(lua_State *L, const char *reader)
{
    int type = lua_type(L, 2);

    if (!wb__script_of(L)->reading)
        (void)luaL_error(L,
            "%s is for the top of the file, not for hooks; "
            "keep its value in a local",
            reader);
    if (lua_type(L, 1) != LUA_TSTRING || lua_rawlen(L, 1) == 0 ||
        lua_rawlen(L, 1) != strlen(lua_tostring(L, 1)))
        wb__script_fail(L, WB_INVALID, wb__script_line(L),
            "%s wants a name, as in %s \"NAME\"", reader, reader);
    if (!lua_isnoneornil(L, 2) && type != LUA_TSTRING &&
        (type != LUA_TBOOLEAN || lua_toboolean(L, 2)))
        wb__script_fail(L, WB_INVALID, wb__script_line(L),
            "%s takes a text as default, or false", reader);
}

static int
read_env(lua_State *L)
{
    check_arguments(L, "env");
    return give(L, wb_slice(getenv(lua_tostring(L, 1))), "environment variable",
        "export it");
}

/* The buffer is a userdata, so that a Lua error on the way frees it. */
static int
buf_free(lua_State *L)
{
    struct wb__buf *b = lua_touserdata(L, 1);

    if (b->ptr != NULL)
        explicit_bzero(b->ptr, b->cap);
    wb__buf_fini(b);
    return 0;
}

static struct wb__buf *
push_buf(lua_State *L)
{
    struct wb__buf *b = lua_newuserdatauv(L, sizeof(*b), 0);

    *b = (struct wb__buf){.env = wb__script_of(L)->env, .max = SECRET_MAX};
    luaL_setmetatable(L, "secret buffer");
    return b;
}

static int
read_file(lua_State *L)
{
    const char *path, *folder = wb__script_of(L)->folder;
    struct wb__buf *b;
    struct wb_err err = {0};
    enum wb_status rc;

    check_arguments(L, "file");
    lua_settop(L, 2);
    path = lua_tostring(L, 1);
    path = lua_pushfstring(L, "%s%s", path[0] == '/' ? "" : folder, path);
    b = push_buf(L);
    rc = wb__file_read(path, b, &err);
    if (rc != WB_OK && rc != WB_NOTFOUND)
        wb__script_fail(L, rc == WB_NOMEM ? rc : WB_UNAVAILABLE,
            wb__script_line(L), "%s", err.msg);
    return give(L, wb__trim(wb__buf_slice(b)), "file",
        "one line with the secret belongs there");
}

static void
new_type(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void
wb__secret_init(lua_State *L, int names)
{
    static const luaL_Reg secret[] = {{"__gc", secret_wipe},
        {"__concat", secret_join}, {"__tostring", secret_show}, {NULL, NULL}};
    static const luaL_Reg buffer[] = {{"__gc", buf_free}, {NULL, NULL}};

    new_type(L, "secret", secret);
    new_type(L, "secret buffer", buffer);
    lua_pushcfunction(L, read_env);
    lua_setfield(L, names, "env");
    lua_pushcfunction(L, read_file);
    lua_setfield(L, names, "file");
}
