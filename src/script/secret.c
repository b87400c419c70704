/* secret.c - env and file: values that are used and never shown.
 *
 * (1) A secret is a userdata: a script can join it to text, which gives a
 *     secret again, and pass it on; it cannot read, print or compare it.
 * (2) Its bytes are wiped when Lua frees it.
 * (3) With a text as default the value is not a secret: the author of the file
 *     says so, as in env("URL", "http://localhost"). With false it may be
 *     absent.
 * (4) Line ends at the end of a value are cut off.
 * (5) env and file work while the configuration is read, not in hooks.
 * (6) A secret that is not found has no bytes, and holds the reason; every text
 *     that it is joined to holds the reason, too. */
#include <stdio.h>
#include <stdlib.h>

#include "os/os.h"
#include "script/script.h"

enum {
    SECRET_MAX = 65536
};

struct secret {
    size_t len;
    struct wb__absent *absent;
    char bytes[];
};

static struct secret *
secret_new(lua_State *L, size_t len)
{
    struct secret *s = lua_newuserdatauv(L, sizeof(*s) + len, 0);

    s->len = len;
    s->absent = NULL;
    luaL_setmetatable(L, "secret");
    return s;
}

void
wb__secret_push(lua_State *L, struct wb_slice bytes)
{
    struct secret *s = secret_new(L, bytes.len);

    if (bytes.len > 0)
        memcpy(s->bytes, bytes.ptr, bytes.len);
}

bool
wb__text_at(lua_State *L, int at, struct wb__value *out)
{
    const struct secret *s = luaL_testudata(L, at, "secret");

    *out = (struct wb__value){.secret = s != NULL};
    if (s != NULL) {
        out->text = (struct wb_slice){s->bytes, s->len};
        out->absent = s->absent;
    } else if (lua_type(L, at) == LUA_TSTRING) {
        out->text.ptr = lua_tolstring(L, at, &out->text.len);
    } else {
        return false;
    }
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
    struct wb__value a, b;
    struct secret *s;

    if (!wb__text_at(L, 1, &a) || !wb__text_at(L, 2, &b))
        return luaL_error(L, "a secret can be joined to text only");
    s = secret_new(L, a.text.len + b.text.len);
    s->absent = a.absent != NULL ? a.absent : b.absent;
    if (a.absent != NULL && b.absent != NULL)
        b.absent->in_route = true; /* if a is */
    if (a.text.len > 0)
        memcpy(s->bytes, a.text.ptr, a.text.len);
    if (b.text.len > 0)
        memcpy(s->bytes + a.text.len, b.text.ptr, b.text.len);
    return 1;
}

/* ---- a buffer that Lua owns -------------------------------------------- */

static int
buf_free(lua_State *L)
{
    struct wb__buf *b = lua_touserdata(L, 1);

    if (b->ptr != NULL)
        explicit_bzero(b->ptr, b->cap);
    wb__buf_fini(b);
    return 0;
}

struct wb__buf *
wb__secret_buf_push(lua_State *L, size_t max)
{
    struct wb__buf *b = lua_newuserdatauv(L, sizeof(*b), 0);

    *b = (struct wb__buf){.env = wb__script_of(L)->env, .max = max};
    luaL_setmetatable(L, "secret buffer");
    return b;
}

/* ---- env and file ------------------------------------------------------ */

static void
check_arguments(lua_State *L, const char *function)
{
    const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
    bool default_is_false = lua_isboolean(L, 2) && !lua_toboolean(L, 2);

    if (!wb__script_of(L)->reading)
        (void)luaL_error(L,
            "%s is for the top of the file, not for hooks; "
            "keep its value in a local",
            function);
    if (name[0] == '\0' || lua_rawlen(L, 1) != strlen(name))
        wb__script_fail(L, WB_INVALID, wb__script_line(L),
            "%s wants a name, as in %s \"NAME\"", function, function);
    if (!lua_isnoneornil(L, 2) && lua_type(L, 2) != LUA_TSTRING &&
        !default_is_false)
        wb__script_fail(L, WB_INVALID, wb__script_line(L),
            "%s takes a text as default, or false", function);
}

/* Keep the secret at the top as long as the script: transports mask it. */
static void
note_secret(lua_State *L)
{
    struct wb__script *s = wb__script_of(L);
    const struct secret *secret = lua_touserdata(L, -1);

    if (!wb__array_grow(s->env, &s->secrets, s->n_secrets, &s->cap_secrets,
            sizeof(*s->secrets)))
        wb__script_fail(L, WB_NOMEM, wb__script_line(L), "out of memory");
    lua_pushvalue(L, -1);
    (void)luaL_ref(L, LUA_REGISTRYINDEX);
    s->secrets[s->n_secrets++] = (struct wb_slice){secret->bytes, secret->len};
}

/* Push a secret that was not found. */
static void
push_absent(lua_State *L, const char *why)
{
    struct wb__script *s = wb__script_of(L);
    struct wb__absent *a = wb__arena_alloc(&s->arena, sizeof(*a));
    struct wb_slice text;

    if (a == NULL || !wb__arena_dup(&s->arena, wb_slice(why), &text))
        wb__script_fail(L, WB_NOMEM, wb__script_line(L), "out of memory");
    *a = (struct wb__absent){
        .next = s->absent, .why = text.ptr, .line = wb__script_line(L)};
    s->absent = a;
    secret_new(L, 0)->absent = a;
}

/* Push the value of the name at index 1; the default is at index 2. */
static int
push_value(
    lua_State *L, struct wb_slice value, const char *what, const char *fix)
{
    char why[200];

    if (value.len == 0 && lua_isnoneornil(L, 2)) {
        (void)snprintf(why, sizeof(why), "%s %.80s is not there or empty; %s",
            what, lua_tostring(L, 1), fix);
        push_absent(L, why);
    } else if (value.len == 0 && lua_isboolean(L, 2)) {
        lua_pushnil(L);
    } else if (value.len == 0) {
        lua_pushvalue(L, 2);
    } else if (lua_type(L, 2) == LUA_TSTRING) {
        lua_pushlstring(L, value.ptr, value.len);
    } else {
        wb__secret_push(L, value);
        note_secret(L);
    }
    return 1;
}

static int
read_env(lua_State *L)
{
    struct wb_slice value;

    check_arguments(L, "env");
    value = wb_slice(getenv(lua_tostring(L, 1)));
    /* As $(...) of a shell does: a line end is not part of a secret. */
    while (value.len > 0 && strchr("\r\n", value.ptr[value.len - 1]) != NULL)
        value.len--;
    return push_value(L, value, "environment variable", "export it");
}

static int
read_file(lua_State *L)
{
    const char *path;
    struct wb__buf *b;
    struct wb_err err = {0};
    enum wb_status rc;

    check_arguments(L, "file");
    lua_settop(L, 2);
    path = lua_tostring(L, 1);
    path = lua_pushfstring(
        L, "%s%s", path[0] == '/' ? "" : wb__script_of(L)->folder, path);
    b = wb__secret_buf_push(L, SECRET_MAX);
    rc = wb__file_read(path, b, &err);
    if (rc == WB_NOMEM)
        wb__script_fail(L, rc, wb__script_line(L), "%s", err.msg);
    if (rc != WB_OK && rc != WB_NOTFOUND) {
        push_absent(L, err.msg);
        return 1;
    }
    return push_value(L, wb__trim(wb__buf_slice(b)), "file",
        "one line with the secret belongs there");
}

void
wb__secret_init(lua_State *L, int names)
{
    static const luaL_Reg secret[] = {{"__gc", secret_wipe},
        {"__concat", secret_join}, {"__tostring", secret_show}, {NULL, NULL}};
    static const luaL_Reg buffer[] = {{"__gc", buf_free}, {NULL, NULL}};

    wb__type_new(L, "secret", secret);
    wb__type_new(L, "secret buffer", buffer);
    lua_pushcfunction(L, read_env);
    lua_setfield(L, names, "env");
    lua_pushcfunction(L, read_file);
    lua_setfield(L, names, "file");
}
