/* config.c - a configuration file, from its text to routes and settings.
 *
 * (1) Every mistake is found while the file is read, before anything is opened;
 *     the first one is reported, with its own line.
 * (2) An unknown name is an error, read or written: a mistyped `raedy = …` does
 *     not pass for a variable. */
#include <stdio.h>

#include "os/os.h"
#include "outbox/outbox_internal.h"
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

static void
check_reading(lua_State *L, const char *function)
{
    if (!wb__script_of(L)->reading)
        (void)luaL_error(
            L, "%s is for the top of the file, not for hooks", function);
}

/* ---- route "name" { … } ------------------------------------------------ */

/* A kind, or its beginning and a *. */
static bool
name_valid(struct wb_slice name)
{
    bool prefix = name.len > 0 && name.ptr[name.len - 1] == '*';
    struct wb_slice kind = {name.ptr, name.len - prefix};

    return name.len <= 64 &&
           ((prefix && kind.len == 0) || wb__kind_check(kind, NULL) == WB_OK);
}

/* The function that route "name" returns; upvalue 1 is the spec. */
static int
route_fields(lua_State *L)
{
    struct wb__route_spec *spec = lua_touserdata(L, lua_upvalueindex(1));
    struct wb__record record = {L, "route", spec->name, spec->line, NULL};

    if (!wb__script_of(L)->reading || spec->complete)
        return luaL_error(L, "route \"%s\" has its fields already", spec->name);
    if (!lua_istable(L, 1))
        wb__record_fail(&record, NULL, "wants a table of fields, { … }");
    lua_settop(L, 1);
    wb__script_of(L)->met = NULL;
    wb__schema_read(&record, &wb__route_schema, spec);
    wb__route_check(&record, spec);
    spec->absent = wb__script_of(L)->met;
    spec->complete = true;
    return 0;
}

/* In place of a function that is not needed. */
static int
ignore(lua_State *L)
{
    (void)L;
    return 0;
}

static int
route(lua_State *L)
{
    struct wb_config *c = config_of(L);
    struct wb__route_spec *spec, **last = &c->first;
    struct wb_slice name = {0};
    int line = wb__script_line(L);

    check_reading(L, "route");
    if (c->script.settings_only) {
        lua_pushcfunction(L, ignore);
        return 1;
    }
    if (lua_type(L, 1) == LUA_TSTRING)
        name.ptr = lua_tolstring(L, 1, &name.len);
    if (!name_valid(name))
        wb__script_fail(L, WB_INVALID, line,
            "route wants the kind it is for, 1 to 64 of a-z 0-9 _ . - with a * "
            "at its end for a prefix, as in route \"mail.*\" { … }");
    for (; *last != NULL; last = &(*last)->next)
        if (strcmp((*last)->name, name.ptr) == 0)
            wb__script_fail(L, WB_INVALID, line,
                "route \"%s\" stands twice, first in line %d; take one out",
                name.ptr, (*last)->line);
    if (c->n_routes == ROUTES_MAX)
        wb__script_fail(L, WB_INVALID, line, "more than %d routes", ROUTES_MAX);
    spec = wb__arena_alloc(&c->script.arena, sizeof(*spec));
    if (spec == NULL || !wb__arena_dup(&c->script.arena, name, &name))
        wb__script_fail(L, WB_NOMEM, line, "out of memory");
    *spec = (struct wb__route_spec){.name = name.ptr,
        .line = line,
        .retry = WB_RETRY_POLICY_DEFAULT,
        .breaker = WB_BREAKER_POLICY_DEFAULT};
    spec->retry.base_ms = spec->retry.cap_ms = -1;
    spec->retry.factor = spec->retry.max_attempts = 0;
    *last = spec;
    c->n_routes++;
    lua_pushlightuserdata(L, spec);
    lua_pushcclosure(L, route_fields, 1);
    return 1;
}

/* ---- outbox { … } and relay { … } -------------------------------------- */

#define BYTES_MAX  (INT64_C(1) << 50)
#define AT(member) offsetof(struct wb__settings, member)
#define ALL        WB__ON_ALL

/* clang-format off */
static const struct wb__field outbox_fields[] = {
    {"max_payload", WB__TYPE_SIZE, ALL, AT(outbox.max_payload_bytes), 1, 1 << 30, NULL, NULL},
    {"max_rows", WB__TYPE_COUNT, ALL, AT(outbox.max_rows), 1, BYTES_MAX, NULL, NULL},
    {"max_file", WB__TYPE_SIZE, ALL, AT(outbox.max_file_bytes), 65536, BYTES_MAX, NULL, NULL},
    {"keep_delivered", WB__TYPE_DURATION, ALL, AT(outbox.keep_delivered_ms), 1, WB__MS_MAX, NULL, NULL},
    {"keep_abandoned", WB__TYPE_DURATION, ALL, AT(outbox.keep_abandoned_ms), 1, WB__MS_MAX, NULL, NULL},
    {"on_abandoned", WB__TYPE_TEXT, ALL, AT(on_abandoned), 1, 64, NULL, NULL},
    {"busy", WB__TYPE_DURATION, ALL, AT(outbox.busy_ms), 1, 3600000, NULL, NULL},
};
static const struct wb__field relay_fields[] = {
    {"lease", WB__TYPE_DURATION, ALL, AT(lease_ms), 1000, 7 * 86400000, NULL, NULL},
};
/* clang-format on */
const struct wb__schema wb__outbox_schema = {
    outbox_fields, WB_COUNT(outbox_fields), 0};
const struct wb__schema wb__relay_schema = {
    relay_fields, WB_COUNT(relay_fields), 0};

static int
read_settings(lua_State *L, const char *keyword,
    const struct wb__schema *schema, int *line)
{
    struct wb__record record = {L, keyword, NULL, wb__script_line(L), NULL};
    struct wb_config *c = config_of(L);

    check_reading(L, keyword);
    if (c->script.settings_only && schema == &wb__relay_schema)
        return 0;
    c->settings.outbox_read = false;
    if (*line != 0)
        wb__record_fail(&record, NULL,
            "stands twice, first in line %d; take one out", *line);
    if (!lua_istable(L, 1))
        wb__record_fail(&record, NULL, "wants a table of fields, { … }");
    *line = record.line;
    lua_settop(L, 1);
    wb__schema_read(&record, schema, &c->settings);
    c->settings.outbox_read = true;
    return 0;
}

static int
outbox(lua_State *L)
{
    struct wb__settings *set = &config_of(L)->settings;
    struct wb__record record = {L, "outbox", NULL, 0, NULL};
    int n = read_settings(L, "outbox", &wb__outbox_schema, &set->outbox_line);

    record.line = set->outbox_line;
    if (set->on_abandoned.text.len > 0 &&
        wb__kind_check(set->on_abandoned.text, NULL) != WB_OK)
        wb__record_fail(&record, "on_abandoned",
            "on_abandoned is not a kind; give 1 to 64 of a-z 0-9 _ . -");
    set->outbox.on_abandoned = set->on_abandoned.text;
    return n;
}

static int
relay(lua_State *L)
{
    return read_settings(
        L, "relay", &wb__relay_schema, &config_of(L)->settings.relay_line);
}

/* ---- names ------------------------------------------------------------- */

static const char *const known[] = {"route", "env", "file", "ready", "outbox",
    "relay", "tally", "array", "null", "string", "table", "math", "utf8",
    "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall",
    "rawequal", "rawget", "rawlen", "select", "setmetatable", "tonumber",
    "tostring", "type"};

/* The name at index 2, and in hint the known name that it resembles. */
static struct wb_slice
name_at(lua_State *L, char hint[WB__SUGGEST_MAX])
{
    struct wb_slice name = WB_LIT("?");

    if (lua_type(L, 2) == LUA_TSTRING)
        name.ptr = lua_tolstring(L, 2, &name.len);
    wb__suggest(name, known, WB_COUNT(known), hint);
    return name;
}

/* A name is read; upvalue 1 is the table of all names. */
static int
env_get(lua_State *L)
{
    char hint[WB__SUGGEST_MAX];
    struct wb_slice name;

    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
        return 1;
    name = name_at(L, hint);
    wb__script_fail(L, WB_INVALID, wb__script_line(L),
        "unknown name \"%.40s\"%s", name.ptr,
        hint[0] != '\0' ? hint
                        : "; a sandbox has no more than doc/CONFIG.md lists");
}

/* A name is written; only `ready` may be. */
static int
env_set(lua_State *L)
{
    struct wb_config *c = config_of(L);
    char hint[WB__SUGGEST_MAX];
    struct wb_slice name = name_at(L, hint);
    int line = wb__script_line(L);

    if (!wb__eq(name, WB_LIT("ready")) || !c->script.reading)
        wb__script_fail(L, WB_INVALID, line,
            "\"%.40s\" cannot be set%s; a value of your own is a local",
            name.ptr, hint);
    if (!lua_isfunction(L, 3))
        wb__script_fail(L, WB_INVALID, line, "ready wants a function, not a %s",
            luaL_typename(L, 3));
    if (c->ready != 0)
        wb__script_fail(L, WB_INVALID, line, "ready stands twice");
    lua_settop(L, 3);
    c->ready = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

/* Push the environment of the file: an empty table, so that each name that is
 * read or written calls env_get or env_set. */
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

/* ---- routes ------------------------------------------------------------ */

static void
check_lease(
    lua_State *L, const struct wb_config *c, const struct wb__route_spec *spec)
{
    const struct wb__settings *set = &c->settings;
    struct wb__record record = {L, "relay", NULL, set->relay_line, NULL};
    int64_t timeout =
        spec->route.timeout_ms != 0 ? spec->route.timeout_ms : 30000;

    if (set->lease_ms != 0 && set->lease_ms < 2 * timeout)
        wb__record_fail(&record, "lease",
            "lease is less than twice the timeout of route \"%s\" (%lld ms); "
            "make it at least %lldms",
            spec->name, (long long)timeout, (long long)(2 * timeout));
}

/* A message that is still being tried must not be forgotten (O-4). */
static void
check_retention(lua_State *L, const struct wb_config *c,
    const struct wb__route_spec *spec, const struct wb_route *r)
{
    int64_t horizon = wb_retry_horizon_ms(r->retry, false);
    int64_t keep = c->settings.outbox.keep_delivered_ms;

    if (keep == 0)
        keep = INT64_C(7) * 86400000;
    if (horizon >= keep)
        wb__script_fail(L, WB_INVALID, spec->line,
            "route \"%s\": its retries may take %lld h, but ids are kept for "
            "%lld h; fewer retry.attempts, less retry.cap, or more "
            "outbox.keep_delivered",
            spec->name, (long long)(horizon / 3600000),
            (long long)(keep / 3600000));
}

/* Nobody knows what a secret outside of the routes is for. */
static void
check_absent(lua_State *L, const struct wb_config *c)
{
    const struct wb__absent *a = c->script.absent;

    while (a != NULL && (a->in_route || c->script.check_only))
        a = a->next;
    if (a != NULL)
        wb__script_fail(L, WB_UNAVAILABLE, a->line, "%s", a->why);
}

static void
make_routes(lua_State *L, struct wb_config *c)
{
    const struct wb__route_spec *spec;
    struct wb_err err = {0};
    struct wb_route *r = wb__arena_alloc(
        &c->script.arena, (c->n_routes + 1) * sizeof(*c->routes));

    c->routes = r;
    for (spec = c->first; spec != NULL; spec = spec->next, r++) {
        if (!spec->complete)
            wb__script_fail(L, WB_INVALID, spec->line,
                "route \"%s\" has no fields; write route \"%s\" { … }",
                spec->name, spec->name);
        if (r == NULL || wb__route_make(&c->script, spec, r, &err) != WB_OK)
            wb__script_fail(L, WB_NOMEM, spec->line, "out of memory");
        check_lease(L, c, spec);
        check_retention(L, c, spec, r);
    }
}

/* ---- open and close ---------------------------------------------------- */

static int
run_file(lua_State *L)
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
    check_absent(L, c);
    return 0;
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
read_config(struct wb_config *c, const char *path, struct wb_err *err)
{
    enum wb_status rc = keep_path(c, path, err);
    struct wb_slice text;

    if (rc == WB_OK)
        rc = wb__file_read(path, &c->text, err);
    if (rc == WB_TOOBIG)
        return wb__fail(err, rc, 0,
            "%s: more than 1 MiB is too long for a configuration", path);
    if (rc == WB_OK)
        rc = wb__script_open(&c->script, err);
    if (rc != WB_OK)
        return rc;
    text = c->text.len > 0 ? wb__buf_slice(&c->text) : WB_LIT("");
    c->script.source =
        wb__starts(text, WB_LIT("\xef\xbb\xbf")) ? wb__from(text, 3) : text;
    c->script.reading = true;
    rc = wb__script_call(&c->script, run_file, c, err);
    c->script.reading = false;
    /* A mistake that a script caught with pcall is still one. */
    if (c->script.err.status != WB_OK) {
        if (err != NULL)
            *err = c->script.err;
        return c->script.err.status;
    }
    return rc;
}

static struct wb_config *
config_new(const struct wb_env *env)
{
    struct wb_config *c;

    if (env == NULL)
        env = wb_env_system();
    c = wb__alloc(env, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->script.env = env;
    c->script.arena.env = env;
    c->script.limits = (struct wb__sandbox_limits){
        .steps = 20000000, .cpu_ms = 10000, .bytes = (size_t)64 << 20};
    c->settings.outbox.env = env;
    c->text = (struct wb__buf){.env = env, .max = WB__SOURCE_MAX};
    return c;
}

enum wb_status
wb__config_read(struct wb_config **out, const char *path,
    const struct wb_env *env, bool check_only, struct wb_err *err)
{
    struct wb_config *c = config_new(env);
    enum wb_status rc;

    if (c == NULL)
        return wb__nomem(err, path);
    c->script.check_only = check_only;
    rc = read_config(c, path, err);
    if (rc == WB_OK)
        *out = c;
    else
        wb_config_close(c);
    return rc;
}

enum wb_status
wb__config_read_settings(struct wb_config **out, const char *path,
    const struct wb_env *env, struct wb_err *err)
{
    struct wb_config *c = config_new(env);
    struct wb_outbox_opts *o;
    enum wb_status rc;

    if (c == NULL)
        return wb__nomem(err, path);
    c->script.check_only = c->script.settings_only = true;
    rc = read_config(c, path, err);
    o = &c->settings.outbox;
    if (rc == WB_INVALID && c->settings.outbox_line == 0) {
        o->max_payload_bytes = 1 << 30;
        rc = WB_OK;
    } else if (rc == WB_INVALID && c->settings.outbox_read) {
        rc = WB_OK;
    }
    c->n_routes = 0;
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

/* ---- what it says ------------------------------------------------------ */

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

struct readiness {
    int function;
    bool ready;
    char reason[201];
};

static int
call_ready(lua_State *L)
{
    struct readiness *r = lua_touserdata(L, 1);

    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, r->function);
    lua_call(L, 0, 2);
    r->ready = lua_toboolean(L, -2);
    if (lua_type(L, -1) == LUA_TSTRING)
        (void)wb__one_line(wb_slice(lua_tostring(L, -1)), 50, r->reason);
    return 0;
}

bool
wb_config_ready(void *config, struct wb_err *err)
{
    struct wb_config *c = config;
    struct readiness r = {.function = c->ready, .reason = "ready() says no"};

    if (c->ready == 0)
        return true;
    if (wb__script_call(&c->script, call_ready, &r, err) != WB_OK)
        return false;
    if (!r.ready)
        (void)wb__fail(err, WB_UNAVAILABLE, 0, "%s", r.reason);
    return r.ready;
}
