/* config.c - a configuration file, from its text to routes.
 *
 * (1) Whatever is wrong is found while the file is read, before anything is
 *     opened; the first thing found is what is reported, in its own line.
 * (2) A name that nobody knows is an error, read or written: a mistyped
 *     `raedy = …` does not pass for a variable. */
#include <stdio.h>

#include "os/os.h"
#include "script/script.h"
#include "waybill/config.h"

enum {
    ROUTES_MAX = 1000,
    PATH_SHOWN = 120
};

static struct wb_config *
config_of(lua_State *L)
{
    return (struct wb_config *)wb__script_of(L);
}

/* ---- route ------------------------------------------------------------- */

static bool
name_valid(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-");

    if (strcmp(name + n, "*") == 0)
        return n < 64;
    return n > 0 && n <= 64 && name[n] == '\0';
}

static void
check_name(lua_State *L, int line)
{
    struct wb__route_spec *spec;
    const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";

    if (!wb__script_of(L)->reading)
        (void)luaL_error(L, "route is for the top of the file, not for hooks");
    if (!name_valid(name) || strlen(name) != lua_rawlen(L, 1))
        wb__script_fail(L, WB_INVALID, line,
            "route wants the kind it is for, 1 to 64 of a-z 0-9 _ . - with a * "
            "at its end for a prefix, as in route \"mail.*\" { … }");
    for (spec = config_of(L)->first; spec != NULL; spec = spec->next)
        if (strcmp(spec->name, name) == 0)
            wb__script_fail(L, WB_INVALID, line,
                "route \"%s\" stands twice, first in line %d; take one out",
                name, spec->line);
    if (config_of(L)->n_routes == ROUTES_MAX)
        wb__script_fail(L, WB_INVALID, line, "more than %d routes", ROUTES_MAX);
}

static struct wb__route_spec *
add_spec(lua_State *L, int line)
{
    struct wb_config *c = config_of(L);
    struct wb__route_spec *spec =
        wb__arena_alloc(&c->script.arena, sizeof(*spec));
    struct wb_slice name = {0};

    if (spec == NULL ||
        !wb__arena_dup(&c->script.arena, wb_slice(lua_tostring(L, 1)), &name))
        wb__script_fail(L, WB_NOMEM, line, "out of memory");
    *spec = (struct wb__route_spec){.name = name.ptr,
        .line = line,
        .base_ms = -1,
        .cap_ms = -1,
        .retry_after_ms = -1};
    if (c->last != NULL)
        c->last->next = spec;
    else
        c->first = spec;
    c->last = spec;
    c->n_routes++;
    return spec;
}

/* The { … } behind route "name". */
static int
route_fields(lua_State *L)
{
    struct wb__route_spec *spec = lua_touserdata(L, lua_upvalueindex(1));
    struct wb__record record = {"route", spec->name, spec->line, NULL};

    if (!wb__script_of(L)->reading || spec->given)
        return luaL_error(L, "route \"%s\" has its fields already", spec->name);
    if (!lua_istable(L, 1))
        wb__record_fail(
            L, &record, WB_INVALID, NULL, "wants a table of fields, { … }");
    lua_settop(L, 1);
    wb__schema_read(L, 1, &wb__route_schema, &record, spec);
    wb__route_check(L, 1, spec, &record);
    spec->given = true;
    return 0;
}

static int
route(lua_State *L)
{
    int line = wb__script_line(L);

    check_name(L, line);
    lua_pushlightuserdata(L, add_spec(L, line));
    lua_pushcclosure(L, route_fields, 1);
    return 1;
}

/* ---- outbox and relay -------------------------------------------------- */

static void
read_settings(lua_State *L, const char *keyword,
    const struct wb__schema *schema, int *line)
{
    struct wb__record record = {keyword, NULL, wb__script_line(L), NULL};

    if (!wb__script_of(L)->reading)
        (void)luaL_error(
            L, "%s is for the top of the file, not for hooks", keyword);
    if (*line != 0)
        wb__record_fail(L, &record, WB_INVALID, NULL,
            "stands twice, first in line %d; take one out", *line);
    if (!lua_istable(L, 1))
        wb__record_fail(
            L, &record, WB_INVALID, NULL, "wants a table of fields, { … }");
    *line = record.line;
    lua_settop(L, 1);
    wb__schema_read(L, 1, schema, &record, &config_of(L)->settings);
}

static int
outbox(lua_State *L)
{
    read_settings(
        L, "outbox", &wb__outbox_schema, &config_of(L)->settings.outbox_line);
    return 0;
}

static int
relay(lua_State *L)
{
    read_settings(
        L, "relay", &wb__relay_schema, &config_of(L)->settings.relay_line);
    return 0;
}

/* ---- names ------------------------------------------------------------- */

static const char *const known[] = {"route", "env", "file", "ready", "outbox",
    "relay", "tally", "array", "null", "string", "table", "math", "utf8",
    "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall",
    "rawequal", "rawget", "rawlen", "select", "setmetatable", "tonumber",
    "tostring", "type"};

/* The name at index 2; a literal where it is no text. */
static struct wb_slice
name_at(lua_State *L)
{
    struct wb_slice name = WB_LIT("?");

    if (lua_type(L, 2) == LUA_TSTRING)
        name.ptr = lua_tolstring(L, 2, &name.len);
    return name;
}

/* A name that is read: upvalue 1 has what there is. */
static int
env_get(lua_State *L)
{
    char hint[WB__SUGGEST_MAX];
    struct wb_slice name = name_at(L);

    lua_settop(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
        return 1;
    wb__suggest(name, known, WB_COUNT(known), hint);
    wb__script_fail(L, WB_INVALID, wb__script_line(L),
        "unknown name \"%.40s\"%s", name.ptr,
        hint[0] != '\0' ? hint
                        : "; a sandbox has no more than doc/CONFIG.md "
                          "lists");
}

/* A name that is written: `ready`, and no other. */
static int
env_set(lua_State *L)
{
    struct wb_config *c = config_of(L);
    struct wb_slice name = name_at(L);
    int line = wb__script_line(L);
    char hint[WB__SUGGEST_MAX];

    if (!wb__eq(name, WB_LIT("ready")) || !c->script.reading) {
        wb__suggest(name, known, WB_COUNT(known), hint);
        wb__script_fail(L, WB_INVALID, line,
            "\"%.40s\" cannot be set%s; a value of your own is a local",
            name.ptr, hint);
    }
    if (!lua_isfunction(L, 3))
        wb__script_fail(L, WB_INVALID, line, "ready wants a function, not a %s",
            luaL_typename(L, 3));
    if (c->ready != 0)
        wb__script_fail(L, WB_INVALID, line, "ready stands twice");
    lua_settop(L, 3);
    c->ready = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

/* Push the environment of the file: an empty table that asks. */
static void
push_env(lua_State *L)
{
    static const luaL_Reg ours[] = {
        {"route", route}, {"outbox", outbox}, {"relay", relay}, {NULL, NULL}};
    int names;

    lua_newtable(L);
    lua_newtable(L);
    wb__sandbox_push(L);
    names = lua_gettop(L);
    luaL_setfuncs(L, ours, 0);
    wb__secret_init(L, names);
    wb__json_init(L, names);
    wb__hooks_init(L, names);
    lua_pushcclosure(L, env_get, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, env_set);
    lua_setfield(L, -2, "__newindex");
    lua_pushliteral(L, "environment");
    lua_setfield(L, -2, "__metatable");
    (void)lua_setmetatable(L, -2);
}

/* ---- what must hold over all ------------------------------------------- */

static void
check_lease(lua_State *L, const struct wb_config *c)
{
    const struct wb__settings *set = &c->settings;
    struct wb__record record = {"relay", NULL, set->relay_line, NULL};
    const struct wb__route_spec *spec;

    for (spec = c->first; spec != NULL && set->lease_ms != 0;
         spec = spec->next) {
        int64_t timeout = spec->timeout_ms != 0 ? spec->timeout_ms : 30000;

        if (set->lease_ms < 2 * timeout)
            wb__record_fail(L, &record, WB_INVALID, "lease",
                "lease is less than twice the timeout of route \"%s\" (%lld "
                "ms); make it at least %lldms",
                spec->name, (long long)timeout, (long long)(2 * timeout));
    }
}

/* A message that is still being tried must not be forgotten (O-4). */
static void
check_retention(lua_State *L, const struct wb_config *c)
{
    int64_t keep = c->settings.outbox.keep_delivered_ms;

    if (keep == 0)
        keep = INT64_C(7) * 86400000;
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct wb_route *r = &c->routes[i];
        int64_t horizon = wb_retry_horizon_ms(r->retry, false);
        const struct wb__route_spec *spec = c->first;

        if (horizon < keep)
            continue;
        while (strcmp(spec->name, r->kind) != 0)
            spec = spec->next;
        wb__script_fail(L, WB_INVALID, spec->line,
            "route \"%s\": its retries may take %lld h, but ids are kept for "
            "%lld h; fewer retry.attempts, less retry.cap, or more "
            "outbox.keep_delivered",
            r->kind, (long long)(horizon / 3600000),
            (long long)(keep / 3600000));
    }
}

static void
make_routes(lua_State *L, struct wb_config *c)
{
    const struct wb__route_spec *spec;
    struct wb_err err = {0};
    size_t i = 0;

    c->routes = wb__arena_alloc(
        &c->script.arena, (c->n_routes + 1) * sizeof(*c->routes));
    for (spec = c->first; spec != NULL; spec = spec->next) {
        if (!spec->given)
            wb__script_fail(L, WB_INVALID, spec->line,
                "route \"%s\" has no fields; write route \"%s\" { … }",
                spec->name, spec->name);
        if (c->routes == NULL ||
            wb__route_make(&c->script, spec, &c->routes[i++], &err) != WB_OK)
            wb__script_fail(L, WB_NOMEM, spec->line, "out of memory");
    }
}

static int
read_file(lua_State *L)
{
    struct wb_config *c = lua_touserdata(L, 1);
    struct wb_slice text = c->script.source;

    push_env(L);
    if (luaL_loadbufferx(L, text.ptr, text.len, "=" WB__CHUNK, "t") != LUA_OK)
        return lua_error(L);
    lua_insert(L, -2);
    (void)lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 0);
    make_routes(L, c);
    check_lease(L, c);
    check_retention(L, c);
    return 0;
}

/* ---- open -------------------------------------------------------------- */

static enum wb_status
read_text(struct wb_config *c, const char *path, struct wb_err *err)
{
    enum wb_status rc = wb__file_read(path, &c->text, err);
    struct wb_slice text = wb__buf_slice(&c->text);

    if (rc == WB_TOOBIG)
        return wb__fail(
            err, rc, 0, "%s: more than 1 MiB is no configuration", path);
    if (text.len == 0)
        text.ptr = "";
    c->script.source =
        wb__starts(text, WB_LIT("\xef\xbb\xbf")) ? wb__from(text, 3) : text;
    return rc;
}

/* The path as errors show it, and its folder. */
static enum wb_status
keep_path(struct wb_config *c, const char *path, struct wb_err *err)
{
    struct wb_slice all = wb_slice(path), name, folder = all;
    char shown[PATH_SHOWN + 4];
    size_t cut = all.len > PATH_SHOWN ? all.len - PATH_SHOWN : 0;

    (void)snprintf(
        shown, sizeof(shown), "%s%s", cut > 0 ? "..." : "", path + cut);
    while (folder.len > 0 && folder.ptr[folder.len - 1] != '/')
        folder.len--;
    if (!wb__arena_dup(&c->script.arena, wb_slice(shown), &name) ||
        !wb__arena_dup(&c->script.arena, folder, &folder))
        return wb__nomem(err, path);
    c->script.path = name.ptr;
    c->script.folder = folder.len > 0 ? folder.ptr : "";
    return WB_OK;
}

static enum wb_status
read_all(struct wb_config *c, const char *path, struct wb_err *err)
{
    enum wb_status rc = keep_path(c, path, err);

    if (rc == WB_OK)
        rc = read_text(c, path, err);
    if (rc == WB_OK)
        rc = wb__script_open(&c->script, err);
    if (rc != WB_OK)
        return rc;
    c->script.reading = true;
    rc = wb__script_call(&c->script, read_file, c, err);
    c->script.reading = false;
    /* What a script caught and went on is still wrong. */
    if (c->script.err.status != WB_OK) {
        if (err != NULL)
            *err = c->script.err;
        return c->script.err.status;
    }
    return rc;
}

enum wb_status
wb__config_read(struct wb_config **out, const char *path,
    const struct wb_env *env, bool check_only, struct wb_err *err)
{
    static const struct wb__limits limits = WB__SCRIPT_LIMITS;
    struct wb_config *c;
    enum wb_status rc;

    if (env == NULL)
        env = wb_env_system();
    c = wb__alloc(env, sizeof(*c));
    if (c == NULL)
        return wb__nomem(err, path);
    c->script.env = env;
    c->script.arena.env = env;
    c->script.limits = limits;
    c->script.check_only = check_only;
    c->settings.outbox.env = env;
    c->text = (struct wb__buf){.env = env, .max = WB__SOURCE_MAX};
    rc = read_all(c, path, err);
    if (rc == WB_OK)
        *out = c;
    else
        wb_config_close(c);
    return rc;
}

void
wb_config_close(struct wb_config *c)
{
    const struct wb_env *env;

    if (c == NULL)
        return;
    env = c->script.env;
    for (size_t i = 0; c->routes != NULL && i < c->n_routes; i++)
        wb_transport_free(c->routes[i].transport);
    if (c->http != NULL)
        c->http_close(c->http);
    wb__script_close(&c->script);
    wb__buf_fini(&c->text);
    wb__free(env, c);
}

const struct wb_route *
wb_config_routes(const struct wb_config *c, size_t *n)
{
    *n = c->n_routes;
    return c->routes;
}

const struct wb_outbox_opts *
wb_config_outbox(const struct wb_config *c)
{
    return &c->settings.outbox;
}

int64_t
wb_config_lease_ms(const struct wb_config *c)
{
    return c->settings.lease_ms;
}

/* ---- ready ------------------------------------------------------------- */

struct answer {
    int function;
    bool yes;
    char reason[201];
};

static int
call_ready(lua_State *L)
{
    struct answer *a = lua_touserdata(L, 1);

    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, a->function);
    lua_call(L, 0, 2);
    a->yes = lua_toboolean(L, -2);
    if (lua_type(L, -1) == LUA_TSTRING)
        (void)wb__one_line(wb_slice(lua_tostring(L, -1)), 50, a->reason);
    return 0;
}

bool
wb_config_ready(void *config, struct wb_err *err)
{
    struct wb_config *c = config;
    struct answer a = {.function = c->ready, .reason = "ready() says no"};

    if (c->ready == 0)
        return true;
    if (wb__script_call(&c->script, call_ready, &a, err) != WB_OK)
        return false;
    if (!a.yes)
        (void)wb__fail(err, WB_UNAVAILABLE, 0, "%s", a.reason);
    return a.yes;
}
