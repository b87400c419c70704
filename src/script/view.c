/* view.c - a message and the reply to it, as scripts see them.
 *
 * (1) A script sees them only during the call that got them.
 * (2) A reply that was meant to be read and cannot be is an error, not nil. */
#include "script/script.h"
#include "transport/http.h"

/* A message, or the reply to it, for the length of one call. */
struct view {
    const struct wb_claimed *message;
    const struct wb_result *reply;
    uint64_t call;
};

void
wb__view_push(lua_State *L, const struct wb_claimed *message,
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
    const char *name = luaL_checkstring(L, 2), *problem = wb__reply_problem(r);

    if (strcmp(name, "json") == 0) {
        if (push_decoded(L, wb__reply_text(r), "reply", NULL))
            return 1;
        /* nil would mean that the reply refuses nothing. */
        if (problem != NULL)
            return luaL_error(L, "%s", problem);
        if (r->cut)
            return luaL_error(L, "the reply was cut: its JSON is not whole");
        return 0;
    }
    if (strcmp(name, "body") == 0 && r->coded && r->body.len > 0)
        return luaL_error(L, "%s", problem);
    if (strcmp(name, "body") == 0)
        return push_slice(L, r->body);
    if (strcmp(name, "status") == 0)
        return lua_pushinteger(L, r->status), 1;
    return luaL_error(
        L, "reply has no \"%s\"; it has status, body and json", name);
}

void
wb__view_init(lua_State *L)
{
    static const luaL_Reg message[] = {
        {"__index", message_index}, {NULL, NULL}};
    static const luaL_Reg reply[] = {{"__index", reply_index}, {NULL, NULL}};

    wb__type_new(L, "message", message);
    wb__type_new(L, "reply", reply);
}
