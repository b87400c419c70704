/* hooks.c - what a route does to a message before it is sent, and to the reply.
 *
 * (1) build changes its own request only; if it fails, nothing is sent.
 * (2) judge sees the replies that the transport counts as delivered. A response
 *     function that fails or returns an unknown word leaves the outcome
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

/* A message, or the reply to it, for the length of one call. */
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
    (void)lua_pushlstring(L, s.len > 0 ? s.ptr : "", s.len);
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

/* Decode once; the view keeps the value. A payload exactly, as it may be sent;
 * a reply well enough to judge it. */
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
        return push_slice(L, wb_slice(m->id.text));
    if (strcmp(name, "kind") == 0)
        return push_slice(L, m->kind);
    if (strcmp(name, "key") == 0)
        return m->key.len > 0 ? push_slice(L, m->key) : 0;
    if (strcmp(name, "attempt") == 0)
        return lua_pushinteger(L, m->attempts), 1;
    return luaL_error(L,
        "message has no \"%s\"; it has id, kind, key, attempt, payload and "
        "body",
        name);
}

static int
reply_index(lua_State *L)
{
    const struct wb_result *r = check_view(L, "reply")->reply;
    const char *name = luaL_checkstring(L, 2);

    if (strcmp(name, "json") == 0) {
        if (push_decoded(L, r->body, "reply", NULL))
            return 1;
        /* nil would mean that the reply refuses nothing. */
        if (r->cut)
            return luaL_error(L, "the reply was cut: its JSON is not whole");
        return 0;
    }
    if (strcmp(name, "body") == 0)
        return push_slice(L, r->body);
    if (strcmp(name, "status") == 0)
        return lua_pushinteger(L, r->status), 1;
    return luaL_error(
        L, "reply has no \"%s\"; it has status, body and json", name);
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

void
wb__hooks_init(lua_State *L, int names)
{
    static const luaL_Reg message[] = {
        {"__index", message_index}, {NULL, NULL}};
    static const luaL_Reg reply[] = {{"__index", reply_index}, {NULL, NULL}};

    wb__type_new(L, "message", message);
    wb__type_new(L, "reply", reply);
    lua_pushcfunction(L, tally);
    lua_setfield(L, names, "tally");
}

/* ---- build ------------------------------------------------------------- */

/* The texts that one request borrows. */
struct built {
    const struct wb__route_spec *spec;
    const struct wb_claimed *message;
    struct wb__buf url, body;
    const struct wb__absent *absent; /* a secret that the url would need */
};

/* Call a function with the message at index 2; its result is at index 3. */
static void
call_with_message(lua_State *L, int function)
{
    lua_settop(L, 2);
    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, function);
    lua_pushvalue(L, 2);
    lua_call(L, 1, 1);
}

static int
call_builders(lua_State *L)
{
    struct built *b = lua_touserdata(L, 1);
    struct wb__value url;
    struct wb_slice text;
    struct wb_err err;

    push_view(L, b->message, NULL);
    if (b->spec->url.function != 0) {
        call_with_message(L, b->spec->url.function);
        if (!wb__text_at(L, 3, &url))
            (void)luaL_error(L, "url: the function gave a %s, not text",
                luaL_typename(L, 3));
        b->absent = url.absent;
        if (url.absent != NULL)
            (void)luaL_error(L, "url: %s", url.absent->why);
        if (wb__target_check(url.text, &err) != WB_OK)
            (void)luaL_error(L, "url: %s", err.msg);
        wb__buf_add(&b->url, url.text);
    }
    if (b->spec->body.function != 0) {
        call_with_message(L, b->spec->body.function);
        if (lua_type(L, 3) == LUA_TSTRING) {
            text.ptr = lua_tolstring(L, 3, &text.len);
            wb__buf_add(&b->body, text);
        } else if (lua_istable(L, 3)) {
            wb__json_encode(L, &b->body);
        } else {
            (void)luaL_error(L,
                "body: the function gave a %s, not text or table",
                luaL_typename(L, 3));
        }
    }
    return 0;
}

/* Fill in the fields of the url, and take the body out of the payload. */
static enum wb_status
build_from_payload(struct built *b, struct wb_err *err)
{
    const struct wb__value *url = &b->spec->url;
    struct wb_slice payload = b->message->payload, part;
    struct wb_slice path = b->spec->body.text;
    enum wb_status rc = wb__json_check(payload, "payload", err);

    if (rc != WB_OK)
        return rc;
    if (wb__template_has_fields(url->text))
        rc = wb__template_expand(url->text, payload, &b->url, err);
    if (rc == WB_INVALID && url->secret)
        rc = wb__fail(err, rc, 0,
            "url: a field of it is not in the payload, or does not fit");
    if (rc == WB_OK && path.len > 0) {
        if (!wb__json_at(payload, path, &part))
            return wb__fail(err, WB_INVALID, 0,
                "body: field %.*s is not in the payload", WB_SHOW(path));
        wb__buf_add(&b->body, part);
    }
    return rc;
}

static void
release(void *ctx, void *token)
{
    struct wb__hooks *h = ctx;
    struct built *b = token;

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
    const struct wb__value *url = &h->spec->url, *body = &h->spec->body;
    const struct wb_env *env = h->script->env;
    struct built *b = wb__alloc(env, sizeof(*b));
    enum wb_status rc = WB_OK;

    if (b == NULL)
        return wb__nomem(err, "request");
    *b = (struct built){.spec = h->spec,
        .message = message,
        .url = {.env = env, .max = WB__URL_MAX},
        .body = {.env = env, .max = BODY_MAX}};
    if (wb__template_has_fields(url->text) || body->text.len > 0)
        rc = build_from_payload(b, err);
    if (rc == WB_OK && (url->function != 0 || body->function != 0))
        rc = wb__script_call(h->script, call_builders, b, err);
    if (rc == WB_INVALID && b->absent != NULL)
        rc = WB_UNAVAILABLE;
    if (rc == WB_OK &&
        (b->url.failed == WB_NOMEM || b->body.failed == WB_NOMEM))
        rc = wb__nomem(err, "request");
    if (rc == WB_OK && b->body.failed != WB_OK)
        rc = wb__fail(err, WB_INVALID, 0, "the body is larger than %zu MiB",
            BODY_MAX >> 20);
    if (rc != WB_OK) {
        release(h, b);
        return rc;
    }
    *token = b;
    if (b->url.len > 0)
        request->url = wb__buf_slice(&b->url);
    if (body->function != 0 || body->text.len > 0)
        request->body = wb__buf_slice(&b->body);
    return WB_OK;
}

/* ---- judge ------------------------------------------------------------- */

struct judgement {
    struct wb__hooks *hooks;
    const struct wb_claimed *message;
    const struct wb_result *result;
    enum wb_outcome outcome;
    int64_t retry_after_ms;
};

/* Of the word that a response function returned, at index 4. */
static enum wb_outcome
read_outcome(lua_State *L)
{
    const char *word = lua_type(L, 4) == LUA_TSTRING ? lua_tostring(L, 4) : "";

    if (lua_isnil(L, 4) || strcmp(word, "delivered") == 0)
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

/* response(reply, msg) returns an outcome, a reason and seconds: indexes 4, 5
 * and 6. */
static int
call_response(lua_State *L)
{
    struct judgement *j = lua_touserdata(L, 1);
    struct wb_slice reason = {0};
    double seconds;

    push_view(L, NULL, j->result);
    push_view(L, j->message, NULL);
    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, j->hooks->spec->response.function);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 3);
    j->outcome = read_outcome(L);
    if (j->outcome == WB_RETRY) {
        seconds = luaL_optnumber(L, 6, 0);
        if (!(seconds >= 0))
            (void)luaL_error(L, "response: seconds cannot be negative");
        j->retry_after_ms =
            (int64_t)(seconds < 1e9 ? ceil(seconds * 1000) : 1e12);
    }
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
    struct judgement j = {.hooks = h, .message = message, .result = result};
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

/* ---- scope_of ---------------------------------------------------------- */

struct scoping {
    const struct wb__route_spec *spec;
    const struct wb_claimed *message;
    struct wb__buf *out;
};

/* By the scope function, else the origin of the url function's URL. */
static int
call_scope(lua_State *L)
{
    struct scoping *s = lua_touserdata(L, 1);
    bool own = s->spec->scope.function != 0;
    struct wb__value value;
    struct wb_err err;

    push_view(L, s->message, NULL);
    call_with_message(L, own ? s->spec->scope.function : s->spec->url.function);
    if (!wb__text_at(L, 3, &value) || value.secret)
        (void)luaL_error(L, "the scope is no text, or a secret");
    if (own) {
        wb__buf_add(s->out, value.text);
    } else {
        if (wb__target_check(value.text, &err) != WB_OK)
            (void)luaL_error(L, "%s", err.msg);
        wb__url_origin(value.text, s->out);
    }
    return 0;
}

/* One that cannot be had is no reason not to send the message. */
static enum wb_status
scope_of(void *ctx, const struct wb_claimed *message, char *out, size_t size)
{
    struct wb__hooks *h = ctx;
    struct wb__buf b = {.max = size - 1, .ptr = out, .cap = size};
    struct scoping s = {h->spec, message, &b};
    struct wb_slice text = h->spec->scope.text;
    enum wb_status rc;

    out[0] = '\0';
    if (text.len == 0)
        rc = wb__script_call(h->script, call_scope, &s, NULL);
    else if ((rc = wb__json_check(message->payload, "payload", NULL)) == WB_OK)
        rc = wb__scope_expand(text, message->payload, &b, NULL);
    if (rc == WB_OK && (b.failed != WB_OK || !wb__printable(wb__buf_slice(&b))))
        rc = WB_INVALID;
    if (rc != WB_OK)
        out[0] = '\0';
    return rc;
}

/* ---- attach ------------------------------------------------------------ */

enum wb_status
wb__hooks_attach(struct wb__script *s, const struct wb__route_spec *spec,
    struct wb_route *route, struct wb_err *err)
{
    bool builds = spec->url.function != 0 || spec->body.function != 0 ||
                  spec->body.text.len > 0 ||
                  wb__template_has_fields(spec->url.text);
    bool scoped = spec->scope.function != 0 ||
                  wb__template_has_fields(spec->scope.text) ||
                  (spec->scope.text.len == 0 && spec->url.function != 0);
    struct wb__hooks *h;

    if (!builds && !scoped && spec->response.function == 0)
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
    if (scoped)
        route->scope_of = scope_of;
    return WB_OK;
}
