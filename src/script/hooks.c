/* hooks.c - what a route does to a message before it is sent, and to the reply.
 *
 * (1) build changes its own request only; if it fails, nothing is sent.
 * (2) judge sees the replies that the transport counts as delivered. A response
 *     function that fails or returns an unknown word leaves the outcome
 *     unknown, as the message was sent; its tallies are then dropped. So does a
 *     results function for all messages of the batch. */
#include <math.h>

#include "relay/relay.h"
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

/* ---- tally ------------------------------------------------------------- */

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
    wb__view_init(L);
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

    wb__view_push(L, b->message, NULL);
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

/* Of the word that a function returned, at that index. */
static enum wb_outcome
read_outcome(lua_State *L, int at, const char *function)
{
    const char *word =
        lua_type(L, at) == LUA_TSTRING ? lua_tostring(L, at) : "";

    if (lua_isnil(L, at) || strcmp(word, "delivered") == 0)
        return WB_DELIVERED;
    if (strcmp(word, "rejected") == 0)
        return WB_REJECTED;
    if (strcmp(word, "retry") != 0)
        (void)luaL_error(L,
            "%s: the function gave %s; it may give \"delivered\", "
            "\"rejected\" or \"retry\"",
            function,
            word[0] != '\0' ? lua_pushfstring(L, "\"%s\"", word)
                            : luaL_typename(L, at));
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

    wb__view_push(L, NULL, j->result);
    wb__view_push(L, j->message, NULL);
    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, j->hooks->spec->response.function);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 3);
    j->outcome = read_outcome(L, 4, "response");
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

/* ---- results ----------------------------------------------------------- */

struct batch {
    struct wb__hooks *hooks;
    const struct wb_claimed *const *message;
    size_t n;
    const struct wb_result *response;
    struct wb_result *result;
    bool ours; /* the function gave results */
};

/* Whose result is this, with its key at index? A position or an id. */
static size_t
find_message(lua_State *L, const struct batch *b, int key)
{
    lua_Integer at = lua_isinteger(L, key) ? lua_tointeger(L, key) : 0;
    const char *id =
        lua_type(L, key) == LUA_TSTRING ? lua_tostring(L, key) : "";

    if (at >= 1 && at <= (lua_Integer)b->n)
        return (size_t)at - 1;
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(id, b->message[i]->id.text) == 0)
            return i;
    (void)luaL_error(L,
        "results: the function has a result for %s, which is no id and no "
        "position of a message of this batch",
        luaL_tolstring(L, key, NULL));
    return 0;
}

/* Read the result of one message at the top: an outcome, an HTTP status, or a
 * table of one of these and a reason. */
static void
read_result(lua_State *L, struct wb__hooks *h, struct wb_result *r)
{
    struct wb_slice reason = {0}, copy;
    char line[4 * REASON_CHARS + 1];
    int at = lua_gettop(L);

    if (lua_istable(L, at)) {
        (void)lua_rawgeti(L, at, 2);
        if (lua_isstring(L, -1))
            reason.ptr = lua_tolstring(L, -1, &reason.len);
        (void)lua_rawgeti(L, at, 1);
    }
    if (lua_isinteger(L, -1)) {
        lua_Integer status = lua_tointeger(L, -1);

        r->status = status >= 100 && status < 600 ? (int)status : 0;
        r->outcome = wb_http_outcome(r->status);
    } else {
        r->outcome = read_outcome(L, -1, "results");
    }
    if (r->outcome == WB_DELIVERED)
        return;
    if (reason.len == 0)
        reason = wb_slice(lua_pushfstring(L, "%s, says the results rule",
            r->outcome == WB_REJECTED ? "rejected" : "to be retried"));
    copy = (struct wb_slice){line, wb__one_line(reason, REASON_CHARS, line)};
    if (!wb__arena_dup(&h->script->reasons, copy, &r->error))
        (void)luaL_error(L, "not enough memory");
}

/* results(reply, ids) gives a table of results; a message that is not in it was
 * delivered. nil: the reply is read as without the function. */
static int
call_results(lua_State *L)
{
    struct batch *b = lua_touserdata(L, 1);
    bool seen[WB__BATCH_MAX] = {false};

    wb__view_push(L, NULL, b->response);
    (void)lua_rawgeti(L, LUA_REGISTRYINDEX, b->hooks->spec->results.function);
    lua_pushvalue(L, 2);
    lua_createtable(L, (int)b->n, 0);
    for (size_t i = 0; i < b->n; i++) {
        (void)lua_pushstring(L, b->message[i]->id.text);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_call(L, 2, 1); /* its result is at index 3 */
    b->ours = !lua_isnil(L, 3);
    if (b->ours && !lua_istable(L, 3))
        return luaL_error(L, "results: the function gave a %s, not a table",
            luaL_typename(L, 3));
    if (!b->ours)
        return 0;
    for (lua_pushnil(L); lua_next(L, 3); lua_settop(L, 4)) {
        size_t i = find_message(L, b, 4);

        if (seen[i])
            return luaL_error(L, "results: two results for one message");
        seen[i] = true;
        read_result(L, b->hooks, &b->result[i]);
    }
    return 0;
}

static enum wb_status
results(void *ctx, const struct wb_claimed *const *message, size_t n,
    const struct wb_result *response, struct wb_result *result,
    struct wb_err *err)
{
    struct wb__hooks *h = ctx;
    struct batch b = {h, message, n, response, result, false};
    enum wb_status rc;

    if (n > WB__BATCH_MAX)
        return WB_INVALID;
    wb__arena_clear(&h->script->reasons);
    rc = wb__script_call(h->script, call_results, &b, err);
    return rc == WB_OK && !b.ours ? WB_NOTFOUND : rc;
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

    wb__view_push(L, s->message, NULL);
    call_with_message(L, own ? s->spec->scope.function : s->spec->url.function);
    if (!wb__text_at(L, 3, &value) || value.secret)
        (void)luaL_error(L, "the scope is not text, or is a secret");
    if (own) {
        wb__buf_add(s->out, value.text);
    } else {
        if (wb__target_check(value.text, &err) != WB_OK)
            (void)luaL_error(L, "%s", err.msg);
        wb__url_origin(value.text, s->out);
    }
    return 0;
}

/* A message whose scope cannot be found is sent in the scope of its route. */
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

    if (!builds && !scoped && spec->response.function == 0 &&
        spec->results.function == 0)
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
    if (spec->results.function != 0)
        route->results = results;
    if (scoped)
        route->scope_of = scope_of;
    return WB_OK;
}
