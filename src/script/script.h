/* script.h - what the files of src/script share.
 *
 * sandbox.c     a Lua state with limits, and the libraries a script may use
 * secret.c      env and file: values that are used and never shown
 * json.c        JSON <-> Lua, limited in depth
 * template.c    URLs with fields from the payload
 * schema.c      the fields of a configuration: tables, checks, errors
 * view.c        a message and a reply, as scripts see them
 * hooks.c       build, judge, results and scope_of of a route
 * route.c       from checked fields to a wb_route
 * config.c      from a file to routes and settings
 * transports.c  wb_config_open(): routes with their transports */
#ifndef WB_SRC_SCRIPT_H
#define WB_SRC_SCRIPT_H

#include <lauxlib.h>
#include <locale.h>
#include <lua.h>
#include <lualib.h>

#include "base/base.h"
#include "waybill/relay.h"

/* ---- sandbox ----------------------------------------------------------- */

/* What one call into Lua may use. */
struct wb__sandbox_limits {
    int64_t steps;  /* Lua instructions, or their equivalent in C */
    int64_t cpu_ms; /* of this process: for work that counts no steps */
    size_t bytes;   /* of the whole state */
};

#define WB__SOURCE_MAX ((size_t)1 << 20) /* bytes of a configuration */

/* Name of the chunk in Lua's own messages, which show the path instead. */
#define WB__CHUNK "waybill"

struct wb__hooks;

struct wb__script {
    const struct wb_env *env;
    struct wb__sandbox_limits limits;
    struct wb__arena arena;
    struct wb__arena reasons; /* of the last results function */
    lua_State *lua;
    locale_t locale;    /* "C": numbers and order the same everywhere */
    const char *path;   /* as errors show it */
    const char *folder; /* of the file, with its '/'; "" for the current one */
    struct wb_slice source; /* text of the file, a NUL behind it */
    size_t bytes;           /* allocated by Lua */
    uint64_t calls; /* so far; an object of an earlier call is invalid */
    struct wb__hooks *judging; /* whose tally() calls count */
    int64_t steps;             /* left in this call; < 0: ran out */
    int64_t cpu_end;           /* of this call, in clock() ticks */
    bool denied;               /* limits.bytes was reached */
    bool reading;              /* the file is being read */
    bool check_only;           /* nothing is delivered: secrets may be absent */
    struct wb_slice *secrets;  /* that env and file gave; Lua owns the bytes */
    size_t n_secrets, cap_secrets;
    bool settings_only;        /* routes are not read */
    struct wb__absent *absent; /* all secrets that were not found */
    struct wb__absent *met;    /* the first in the fields being read */
    struct wb_err err;         /* the first error while reading */
};

/* Open a state. *s is zeroed but for env, path, limits and source. Call
 * wb__script_close() also if this failed. */
WB_MUST_USE enum wb_status wb__script_open(
    struct wb__script *s, struct wb_err *err);
void wb__script_close(struct wb__script *s);
struct wb__script *wb__script_of(lua_State *L);

/* Call fn(arg as light userdata) with new limits. INVALID and the text of the
 * error if it fails, NOMEM if env has no more memory. */
WB_MUST_USE enum wb_status wb__script_call(
    struct wb__script *s, lua_CFunction fn, void *arg, struct wb_err *err);

/* Spend steps; a Lua error if too few are left. */
void wb__script_spend(lua_State *L, int64_t steps);

/* A Lua error about that line. While the file is read the first one is also
 * kept, so that a script cannot hide it. */
WB_NORETURN void wb__script_fail(lua_State *L, enum wb_status status, int line,
    const char *fmt, ...) WB_PRINTF(4, 5);
int wb__script_line(lua_State *L); /* of the innermost Lua code; 0: none */

/* Push a table of the names that every script finds. */
void wb__sandbox_push(lua_State *L);
/* Sort the list at the top: numbers, texts, booleans. */
void wb__sort(lua_State *L);
/* As lua_next(), in the order of the keys; table is an absolute index. */
bool wb__next_in_order(lua_State *L, int table);
/* A metatable that scripts cannot reach. */
void wb__type_new(lua_State *L, const char *name, const luaL_Reg *methods);

/* ---- values of a configuration ----------------------------------------- */

/* A secret that was not found. A route with it does not start; a secret that no
 * route has is an error of the file. */
struct wb__absent {
    struct wb__absent *next;
    const char *why;
    int line;
    bool in_route;
};

/* Text or a function. Lua owns it: the schema keeps it in Lua's registry. */
struct wb__value {
    struct wb_slice text;
    int function; /* in the registry; 0: none */
    bool secret;
    struct wb__absent *absent; /* a secret in it that was not found, or NULL */
};
/* True for text or a secret. */
bool wb__text_at(lua_State *L, int at, struct wb__value *out);

void wb__secret_init(lua_State *L, int names); /* env and file */
/* Push a secret of these bytes; they are wiped when Lua frees it. */
void wb__secret_push(lua_State *L, struct wb_slice bytes);
/* Push an empty buffer; it is wiped and freed when Lua frees it. */
struct wb__buf *wb__secret_buf_push(lua_State *L, size_t max);

/* ---- JSON -------------------------------------------------------------- */

#define WB__JSON_DEPTH 100

/* INVALID for text that is not JSON; the error shows nothing of the text. */
WB_MUST_USE enum wb_status wb__json_check(
    struct wb_slice text, const char *what, struct wb_err *err);

void wb__json_init(lua_State *L, int names); /* null and array */
/* Push the value of a text. False, and nothing pushed, if it is not JSON. near:
 * a number that does not fit makes all numbers floats, and is not an error. */
bool wb__json_push(lua_State *L, struct wb_slice text, const char *what,
    bool near, struct wb_err *err);
/* Append the Lua value at the top as JSON; a Lua error if JSON has no such
 * value. */
void wb__json_encode(lua_State *L, struct wb__buf *out);

/* ---- templates --------------------------------------------------------- */

/* The transport's wb__url_check_syntax(), and no fragment and no "." or ".." in
 * the path. The error shows nothing of the URL. */
WB_MUST_USE enum wb_status wb__target_check(
    struct wb_slice url, struct wb_err *err);
/* The same for a URL with {field}s, which may be in path and query. */
WB_MUST_USE enum wb_status wb__template_check(
    struct wb_slice text, struct wb_err *err);
bool wb__template_has_fields(struct wb_slice text);
/* Append the URL for a payload, which is valid JSON; INVALID names the field
 * that does not fit. */
WB_MUST_USE enum wb_status wb__template_expand(struct wb_slice text,
    struct wb_slice payload, struct wb__buf *out, struct wb_err *err);
/* A scope with {field}s, whose values are encoded as in a URL. */
#define WB__SCOPE_MAX 256 /* with its NUL */
WB_MUST_USE enum wb_status wb__scope_check(
    struct wb_slice text, struct wb_err *err);
WB_MUST_USE enum wb_status wb__scope_expand(struct wb_slice text,
    struct wb_slice payload, struct wb__buf *out, struct wb_err *err);
/* Append scheme://host:port of a URL that is valid, in lower case and
 * without the port where it is the scheme's. */
void wb__url_origin(struct wb_slice url, struct wb__buf *out);
/* a.b.c: names of letters, digits, _ and - */
bool wb__path_valid(struct wb_slice path);

/* ---- fields ------------------------------------------------------------ */

struct wb__list {
    struct wb__value *item;
    size_t n;
};

struct wb__delays {
    int64_t *ms;
    uint32_t n;
};
#define WB__DELAYS_MAX 1000

enum wb__transport_kind {
    WB__TRANSPORT_HTTP,
    WB__TRANSPORT_EXEC,
    WB__TRANSPORT_FILE
};
enum { /* sets of transports */
    WB__ON_HTTP = 1 << WB__TRANSPORT_HTTP,
    WB__ON_EXEC = 1 << WB__TRANSPORT_EXEC,
    WB__ON_FILE = 1 << WB__TRANSPORT_FILE,
    WB__ON_ALL = WB__ON_HTTP | WB__ON_EXEC | WB__ON_FILE
};

/* route "name" { … } */
struct wb__route_spec {
    struct wb__route_spec *next;
    const char *name;
    int line;
    bool complete;                     /* its fields were read */
    const struct wb__absent *absent;   /* a secret of it that was not found */
    int64_t transport, method, format; /* indexes of their words */
    struct wb__value url, body, response, secret, ca_file, path, scope, results;
    struct wb__value client_cert, client_key, proxy;
    struct wb__value headers; /* lines "Name: value\n" in order of name */
    struct wb__list secrets, argv;
    struct wb__delays delays;
    int64_t max_reply;
    bool public_only, follow, http1, immediate;
    struct wb_retry_policy retry; /* until wb__route_check() -1 or 0: default */
    struct wb_breaker_policy breaker;
    struct wb_route route; /* its numbers */
};

/* outbox { … } and relay { … } */
struct wb__settings {
    struct wb_outbox_opts outbox;
    struct wb__value on_abandoned;
    int64_t lease_ms;
    int outbox_line, relay_line; /* 0: not given */
    bool outbox_read; /* the last of them that was begun has no mistake */
};

enum wb__field_type {
    WB__TYPE_TEXT,         /* struct wb__value */
    WB__TYPE_SECRET,       /* struct wb__value from env or file */
    WB__TYPE_MAYBE_SECRET, /* struct wb__value: text, or from env or file */
    WB__TYPE_VALUE,        /* struct wb__value: text, secret or function */
    WB__TYPE_FUNCTION,     /* struct wb__value */
    WB__TYPE_DURATION,     /* int64_t, ms */
    WB__TYPE_SIZE,         /* int64_t, bytes */
    WB__TYPE_COUNT,        /* uint32_t, or int64_t if max needs it */
    WB__TYPE_BOOL,         /* bool */
    WB__TYPE_WORD,         /* int64_t: index into words */
    WB__TYPE_LIST,         /* struct wb__list of text */
    WB__TYPE_SECRETS,      /* struct wb__list from env or file */
    WB__TYPE_HEADERS,      /* struct wb__value */
    WB__TYPE_GROUP,        /* fields of their own, in the same struct */
};

struct wb__schema;
struct wb__field {
    const char *name;
    enum wb__field_type type;
    unsigned on; /* WB__ON_*: transports that have it */
    size_t offset;
    int64_t min, max;
    const char *const *words; /* ended by NULL */
    const struct wb__schema *group;
};
struct wb__schema {
    const struct wb__field *field;
    size_t n;      /* at most WB__FIELDS_MAX */
    size_t delays; /* offset of a struct wb__delays for values without a name;
                      0: there may be none */
};
#define WB__FIELDS_MAX 32
#define WB__MS_MAX     (INT64_C(3650) * 86400000) /* ten years */
extern const char *const wb__route_methods[];     /* by method; ended by NULL */
extern const struct wb__schema wb__route_schema, wb__outbox_schema,
    wb__relay_schema;

/* The table being read, for errors. */
struct wb__record {
    lua_State *L;
    const char *keyword; /* "route" */
    const char *name;    /* "github.*"; NULL for outbox and relay */
    int line;
    const char *outer; /* group being read, or NULL */
};
/* INVALID in the line of a field: PATH:LINE: route "x": text. field NULL: in
 * the line of the table. */
WB_NORETURN void wb__record_fail(const struct wb__record *record,
    const char *field, const char *fmt, ...) WB_PRINTF(3, 4);
/* Check the table at the top and put its fields into *out. */
void wb__schema_read(const struct wb__record *record,
    const struct wb__schema *schema, void *out);
/* `; did you mean "y"?` for an unknown name, or nothing. */
#define WB__SUGGEST_MAX 64
void wb__suggest(struct wb_slice word, const char *const *names, size_t n,
    char out[WB__SUGGEST_MAX]);

/* ---- what scripts see -------------------------------------------------- */

/* Push a message, or the reply to it; one of them is NULL. */
void wb__view_push(lua_State *L, const struct wb_claimed *message,
    const struct wb_result *reply);
void wb__view_init(lua_State *L);

/* ---- routes ------------------------------------------------------------ */

/* Set build, judge, release and ctx as far as the route needs them. The hooks
 * live in the script's arena. */
WB_MUST_USE enum wb_status wb__hooks_attach(struct wb__script *s,
    const struct wb__route_spec *spec, struct wb_route *route,
    struct wb_err *err);
void wb__hooks_init(lua_State *L, int names); /* tally */

/* Check the rules between the fields of the table at index 1; a Lua error if
 * one is broken. Decodes the keys and sets the defaults. */
void wb__route_check(
    const struct wb__record *record, struct wb__route_spec *spec);
/* The route of checked fields, without its transport. It borrows from spec. */
WB_MUST_USE enum wb_status wb__route_make(struct wb__script *s,
    const struct wb__route_spec *spec, struct wb_route *route,
    struct wb_err *err);

/* ---- a configuration --------------------------------------------------- */

struct wb_config {
    struct wb__script script; /* first: wb__script_of() gives the config */
    struct wb__settings settings;
    struct wb__route_spec *first;
    struct wb_route *routes;
    size_t n_routes;
    struct wb_http *http;
    void (*http_close)(struct wb_http *http);
    struct wb__buf text;
    int ready; /* function in the registry; 0: none */
};

/* wb_config_open() without transports, which transports.c opens: a program that
 * only checks a configuration does not link libcurl. check_only: nothing is
 * delivered, so secrets may be absent. */
WB_MUST_USE enum wb_status wb__config_read(struct wb_config **out,
    const char *path, const struct wb_env *env, bool check_only,
    struct wb_err *err);

/* The settings of a configuration that has a mistake elsewhere: for programs
 * that only accept messages. It has no routes. Where outbox { … } was not
 * reached, it limits nothing. Fails for a mistake in outbox { … }. */
WB_MUST_USE enum wb_status wb__config_read_settings(struct wb_config **out,
    const char *path, const struct wb_env *env, struct wb_err *err);

#endif /* WB_SRC_SCRIPT_H */
