/* hooks.c - what a route does to a message before, and to a reply after.
 *
 * (1) build has effect on its request only; where it fails, nothing is sent.
 * (2) judge sees replies that the transport calls delivered. A response
 *     function that fails or says something unknown leaves the outcome
 *     unknown, as the message was sent; its tallies are then dropped.
 * (3) A script sees message and reply only during the call that got them. */
#include <math.h>

#include "script/script.h"
#include "transport/http.h"

enum {
    TALLY_NAMES = 32,
    TALLY_MAX = 64,
    REASON_CHARS = 512
};
#define BODY_MAX ((size_t)64 << 20)

struct count {
    char name[TALLY_MAX];
    uint64_t n;
};

struct wb__hooks {
    struct wb__script *script;
    const struct wb__route_spec *spec;
    struct count count[TALLY_NAMES]; /* of the reply being judged */
    size_t counts;
    char reason[4 * REASON_CHARS + 1];
};

/* ---- what scripts see -------------------------------------------------- */

/* A message, or a reply to it, for the length of one call. */
struct view {
    const struct wb_claimed *message;
    const struct wb_result *reply;
    uint64_t call;
};

static void
push_view(lua_State *L, const struct wb_claimed *message,
    const struct wb_result *reply)
{
    struct view *v = lua_newuserdatauv(L, sizeof(*v), 1);

    *v = (struct view){message, reply, wb__script_of(L)->calls};
    luaL_setmetatable(L, reply != NULL ? "reply" : "message");
}

static int
push_slice(lua_State *L, struct wb_slice s)
{
    if (s.len == 0)
        lua_pushliteral(L, "");
    else
        lua_pushlstring(L, s.ptr, s.len);
    return 1;
}

static struct view *
check_view(lua_State *L, const char *type)
{
    struct view *v = luaL_checkudata(L, 1, type);

    if (v->call != wb__script_of(L)->calls)
        (void)luaL_error(
            L, "this %s is over; keep what you need of it in a local", type);
    return v;
}

/* Decode once; the view keeps the value. Of a payload exactly, as it may be
 * sent; of a reply near enough to judge. */
static bool
push_decoded(
    lua_State *L, struct wb_slice text, const char *what, struct wb_err *err)
{
    const struct view *v = lua_touserdata(L, 1);

    if (lua_getiuservalue(L, 1, 1) != LUA_TNIL)
        return true;
    lua_pop(L, 1);
    if (!wb__json_push(L, text, what, v->reply != NULL, err))
        return false;
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, 1);
    return true;
}

static int
no_member(lua_State *L, const char *type, const char *names)
{
    return luaL_error(
        L, "%s has no \"%s\"; it has %s", type, lua_tostring(L, 2), names);
}

static int
message_index(lua_State *L)
{
    const struct wb_claimed *m = check_view(L, "message")->message;
    const char *name = luaL_checkstring(L, 2);
    struct wb_err err;

    if (strcmp(name, "payload") == 0) {
        if (!push_decoded(L, m->payload, "payload", &err))
            return luaL_error(L, "%s", err.msg);
        return 1;
    }
    if (strcmp(name, "body") == 0)
        return push_slice(L, m->payload);
    if (strcmp(name, "id") == 0)
        return lua_pushstring(L, m->id.text), 1;
    if (strcmp(name, "kind") == 0)
        return push_slice(L, m->kind);
    if (strcmp(name, "key") == 0)
        return m->key.len > 0 ? push_slice(L, m->key) : (lua_pushnil(L), 1);
    if (strcmp(name, "attempt") == 0)
        return lua_pushinteger(L, m->attempts), 1;
    return no_member(L, "message", "id, kind, key, attempt, payload and body");
}

static int
reply_index(lua_State *L)
{
    const struct wb_result *r = check_view(L, "reply")->reply;
    const char *name = luaL_checkstring(L, 2);

    if (strcmp(name, "json") == 0) {
        if (push_decoded(L, r->body, "reply", NULL))
            return 1;
        /* nil would say that there is no refusal in it */
        if (r->cut)
            return luaL_error(L, "the reply was cut: its JSON is not whole");
        return lua_pushnil(L), 1;
    }
    if (strcmp(name, "body") == 0)
        return push_slice(L, r->body);
    if (strcmp(name, "status") == 0)
        return lua_pushinteger(L, r->status), 1;
    return no_member(L, "reply", "status, body and json");
}

/* tally(name [, n]) */
static int
tally(lua_State *L)
{
    struct wb__hooks *h = wb__script_of(L)->judging;
    lua_Integer n = luaL_optinteger(L, 2, 1);
    struct wb_slice name;
    size_t i = 0;

    name.ptr = luaL_checklstring(L, 1, &name.len);
    if (h == NULL)
        return luaL_error(L, "tally is for response functions");
    if (name.len == 0 || name.len >= TALLY_MAX || !wb__printable(name))
        return luaL_error(L, "tally wants a name of 1 to 63 characters");
    if (n < 0)
        return luaL_error(L, "tally wants a number from 0 up");
    while (i < h->counts && !wb__eq(name, wb_slice(h->count[i].name)))
        i++;
    if (i == TALLY_NAMES)
        return luaL_error(L, "tally: more than %d names", TALLY_NAMES);
    if (i == h->counts) {
        h->count[h->counts++] = (struct count){.n = 0};
        memcpy(h->count[i].name, name.ptr, name.len);
    }
    h->count[i].n += (uint64_t)n;
    return 0;
}

static void
new_type(lua_State *L, const char *name, lua_CFunction index)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, index);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void
wb__hooks_init(lua_State *L, int names)
{
    new_type(L, "message", message_index);
    new_type(L, "reply", reply_index);
    lua_pushcfunction(L, tally);
    lua_setfield(L, names, "tally");
}

/* ---- build ------------------------------------------------------------- */

struct build {
    struct wb__buf url, body;
};

/* One call of a function for url or body. */
struct building {
    const struct wb__route_spec *spec;
    const struct wb_claimed *message;
    struct build *out;
};

static void
call_for(lua_State *L, int function, int message)
{
    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, function);
    lua_pushvalue(L, message);
    lua_call(L, 1, 1);
}

static void
call_url(lua_State *L, const struct building *b, int message)
{
    struct wb__text text;
    struct wb_err err;

    call_for(L, b->spec->url.function, message);
    if (!wb__text_at(L, -1, &text))
        (void)luaL_error(
            L, "url: the function gave a %s, not text", luaL_typename(L, -1));
    if (wb__target_check(text.s, &err) != WB_OK)
        (void)luaL_error(L, "url: %s", err.msg);
    wb__buf_add(&b->out->url, text.s);
    lua_pop(L, 1);
}

static void
call_body(lua_State *L, const struct building *b, int message)
{
    struct wb_slice text;

    call_for(L, b->spec->body.function, message);
    if (lua_type(L, -1) == LUA_TSTRING) {
        text.ptr = lua_tolstring(L, -1, &text.len);
        wb__buf_add(&b->out->body, text);
    } else if (lua_istable(L, -1)) {
        wb__json_encode(L, -1, &b->out->body);
    } else {
        (void)luaL_error(L, "body: the function gave a %s, not text or table",
            luaL_typename(L, -1));
    }
    lua_pop(L, 1);
}

static int
call_builders(lua_State *L)
{
    const struct building *b = lua_touserdata(L, 1);

    push_view(L, b->message, NULL);
    if (b->spec->url.function != 0)
        call_url(L, b, 2);
    if (b->spec->body.function != 0)
        call_body(L, b, 2);
    return 0;
}

static enum wb_status
build_from_payload(const struct wb__route_spec *spec,
    const struct wb_claimed *message, struct build *out, struct wb_err *err)
{
    struct wb_slice url = spec->url.text.s, path = spec->body.text.s;
    json_t *payload, *part;
    enum wb_status rc =
        wb__json_parse(message->payload, "payload", &payload, err);

    if (rc != WB_OK)
        return rc;
    if (wb__template_has_fields(url))
        rc = wb__template_expand(url, payload, &out->url, err);
    if (rc == WB_INVALID && spec->url.text.secret)
        rc = wb__fail(err, rc, 0,
            "url: a field of it is not in the payload, or does not fit");
    if (rc == WB_OK && path.len > 0) {
        part = wb__json_member(payload, path);
        if (part != NULL)
            wb__json_write(&out->body, part, 0);
        else
            rc = wb__fail(err, WB_INVALID, 0,
                "body: field %.*s is not in the payload", WB_SHOW(path));
    }
    json_decref(payload);
    return rc;
}

static enum wb_status
fill(struct wb__hooks *h, const struct wb_claimed *message, struct build *out,
    struct wb_err *err)
{
    struct building b = {h->spec, message, out};
    enum wb_status rc = WB_OK;

    if (wb__template_has_fields(h->spec->url.text.s) ||
        h->spec->body.text.s.len > 0)
        rc = build_from_payload(h->spec, message, out, err);
    if (rc == WB_OK &&
        (h->spec->url.function != 0 || h->spec->body.function != 0))
        rc = wb__script_call(h->script, call_builders, &b, err);
    if (rc == WB_OK &&
        (out->url.failed == WB_NOMEM || out->body.failed == WB_NOMEM))
        rc = wb__nomem(err, "request");
    if (rc == WB_OK && (out->url.failed != WB_OK || out->body.failed != WB_OK))
        rc = wb__fail(err, WB_INVALID, 0, "the body is larger than %zu MiB",
            BODY_MAX >> 20);
    return rc;
}

static void
release(void *ctx, void *token)
{
    struct wb__hooks *h = ctx;
    struct build *b = token;

    if (b == NULL)
        return;
    wb__buf_fini(&b->url);
    wb__buf_fini(&b->body);
    wb__free(h->script->env, b);
}

static enum wb_status
build(void *ctx, const struct wb_claimed *message, struct wb_request *request,
    void **token, struct wb_err *err)
{
    struct wb__hooks *h = ctx;
    struct build *b = wb__alloc(h->script->env, sizeof(*b));
    enum wb_status rc;

    if (b == NULL)
        return wb__nomem(err, "request");
    b->url = (struct wb__buf){.env = h->script->env, .max = WB__URL_MAX};
    b->body = (struct wb__buf){.env = h->script->env, .max = BODY_MAX};
    rc = fill(h, message, b, err);
    if (rc != WB_OK) {
        release(h, b);
        return rc;
    }
    *token = b;
    if (b->url.len > 0)
        request->url = wb__buf_slice(&b->url);
    if (h->spec->body.function != 0 || h->spec->body.text.s.len > 0)
        request->body = wb__buf_slice(&b->body);
    return WB_OK;
}

/* ---- judge ------------------------------------------------------------- */

struct judging {
    struct wb__hooks *hooks;
    const struct wb_claimed *message;
    struct wb_result *result;
    enum wb_outcome outcome;
    int64_t retry_after_ms;
};

/* The words of a response function's answer, from index 4 on. */
static enum wb_outcome
read_outcome(lua_State *L)
{
    const char *word = lua_type(L, 4) == LUA_TSTRING ? lua_tostring(L, 4) : "";

    if (lua_isnoneornil(L, 4) || strcmp(word, "delivered") == 0)
        return WB_DELIVERED;
    if (strcmp(word, "rejected") == 0)
        return WB_REJECTED;
    if (strcmp(word, "retry") != 0)
        (void)luaL_error(L,
            "response: the function gave %s; it may give \"delivered\", "
            "\"rejected\" or \"retry\"",
            word[0] != '\0' ? lua_pushfstring(L, "\"%s\"", word)
                            : luaL_typename(L, 4));
    return WB_RETRY;
}

static int64_t
read_seconds(lua_State *L)
{
    double s = lua_isnoneornil(L, 6) ? 0 : luaL_checknumber(L, 6);

    if (!(s >= 0))
        (void)luaL_error(L, "response: seconds cannot be negative");
    return (int64_t)(s < 1e9 ? ceil(s * 1000) : 1e12);
}

static int
call_response(lua_State *L)
{
    struct judging *j = lua_touserdata(L, 1);
    struct wb_slice reason = {0};

    push_view(L, NULL, j->result);
    push_view(L, j->message, NULL);
    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, j->hooks->spec->response.function);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 3);
    j->outcome = read_outcome(L);
    j->retry_after_ms = j->outcome == WB_RETRY ? read_seconds(L) : 0;
    if (lua_isstring(L, 5))
        reason.ptr = lua_tolstring(L, 5, &reason.len);
    else if (!lua_isnil(L, 5))
        reason = wb_slice(lua_pushfstring(
            L, "a %s in place of a reason", luaL_typename(L, 5)));
    if (reason.len == 0)
        reason = j->outcome == WB_REJECTED
                     ? WB_LIT("rejected by the response rule")
                     : WB_LIT("to be retried, says the response rule");
    (void)wb__one_line(reason, REASON_CHARS, j->hooks->reason);
    return 0;
}

static void
judge(void *ctx, const struct wb_claimed *message, struct wb_result *result,
    struct wb_tally *counts)
{
    struct wb__hooks *h = ctx;
    struct judging j = {.hooks = h, .message = message, .result = result};
    struct wb_err err = {0};

    if (result->outcome != WB_DELIVERED)
        return;
    h->counts = 0;
    h->script->judging = h;
    if (wb__script_call(h->script, call_response, &j, &err) != WB_OK) {
        j.outcome = WB_UNKNOWN;
        h->counts = 0;
        (void)wb__one_line(wb_slice(err.msg), REASON_CHARS, h->reason);
    }
    h->script->judging = NULL;
    for (size_t i = 0; i < h->counts; i++)
        wb_tally_add(counts, h->count[i].name, h->count[i].n);
    if (j.outcome == WB_DELIVERED)
        return;
    result->outcome = j.outcome;
    result->retry_after_ms = j.retry_after_ms;
    result->error = wb_slice(h->reason);
}

/* ---- attach ------------------------------------------------------------ */

enum wb_status
wb__hooks_attach(struct wb__script *s, const struct wb__route_spec *spec,
    struct wb_route *route, struct wb_err *err)
{
    bool builds = spec->url.function != 0 || spec->body.function != 0 ||
                  spec->body.text.s.len > 0 ||
                  wb__template_has_fields(spec->url.text.s);
    struct wb__hooks *h;

    if (!builds && spec->response.function == 0)
        return WB_OK;
    h = wb__arena_alloc(&s->arena, sizeof(*h));
    if (h == NULL)
        return wb__nomem(err, "hooks");
    h->script = s;
    h->spec = spec;
    route->ctx = h;
    if (builds) {
        route->build = build;
        route->release = release;
    }
    if (spec->response.function != 0)
        route->judge = judge;
    return WB_OK;
}
