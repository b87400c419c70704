/* script.h - what the files of this room share.
 *
 * sandbox.c  a Lua state with bounds, and the libraries a script may use
 * source.c   the line in which a field stands
 * secret.c   env and file: text that is used and never shown
 * json.c     JSON <-> Lua, bounded in depth
 * template.c URLs with fields from the payload
 * schema.c   tables of fields, one checker
 * hooks.c    build and judge of a route
 * route.c    from checked fields to a wb_route with its transport
 * config.c   the public face */
#ifndef WB_SRC_SCRIPT_H
#define WB_SRC_SCRIPT_H

#include <jansson.h>
#include <lauxlib.h>
#include <locale.h>
#include <lua.h>
#include <lualib.h>

#include "base/base.h"
#include "waybill/relay.h"

/* ---- sandbox ----------------------------------------------------------- */

/* What one call into Lua may use. */
struct wb__limits {
    int64_t steps;  /* Lua instructions, and what stands for them in C */
    int64_t cpu_ms; /* of this process: for what steps do not see */
    size_t bytes;   /* of the whole state */
};
#define WB__SCRIPT_LIMITS                 \
    {                                     \
        20000000, 10000, (size_t)64 << 20 \
    }
#define WB__SOURCE_MAX ((size_t)1 << 20) /* bytes of a configuration */

/* Name of the chunk in Lua's own messages; replaced by the path. */
#define WB__CHUNK "waybill"

struct wb__hooks;

struct wb__script {
    const struct wb_env *env;
    struct wb__limits limits;
    struct wb__arena arena;
    lua_State *lua;
    locale_t locale;    /* "C": numbers and order the same everywhere */
    const char *path;   /* as errors show it */
    const char *folder; /* of the file, with its '/'; "" for the current one */
    struct wb_slice source;
    size_t bytes;              /* Lua has now */
    uint64_t calls;            /* made so far: what a call saw ends with it */
    struct wb__hooks *judging; /* whose tally() calls count */
    int64_t steps;             /* left of the call under way; < 0: ran out */
    int64_t cpu_end;           /* of the call under way, in clock() ticks */
    bool denied;               /* limits.bytes was hit */
    bool reading;              /* the file is being read */
    bool check_only;   /* nothing will be delivered: secrets may be absent */
    struct wb_err err; /* the first thing wrong in it */
};

/* Open a state with the libraries a script may use. *s is zeroed but for env,
 * path and source. Whatever is returned, wb__script_close() it. */
WB_MUST_USE enum wb_status wb__script_open(
    struct wb__script *s, struct wb_err *err);
void wb__script_close(struct wb__script *s);
struct wb__script *wb__script_of(lua_State *L);

/* Call fn(arg as light userdata) with fresh bounds. INVALID and the text of
 * the error where it fails, NOMEM where env had no more. */
WB_MUST_USE enum wb_status wb__script_call(
    struct wb__script *s, lua_CFunction fn, void *arg, struct wb_err *err);

/* Spend steps; a Lua error where none are left. */
void wb__script_spend(lua_State *L, int64_t steps);

/* A Lua error about that line. While the file is read the first one is also
 * kept, so that a script cannot hide it. */
WB_NORETURN void wb__script_fail(lua_State *L, enum wb_status status, int line,
    const char *fmt, ...) WB_PRINTF(4, 5);
int wb__script_line(lua_State *L); /* of the Lua code that called us */

/* Push a table of the names a script finds in every sandbox. */
void wb__sandbox_push(lua_State *L);

/* ---- source ------------------------------------------------------------ */

/* The line in which outer.field (outer may be NULL) is written, in the table
 * that follows keyword in that line or below; that line where it is not. */
int wb__source_line(struct wb_slice source, int line, const char *keyword,
    const char *outer, struct wb_slice field);

/* ---- secrets ----------------------------------------------------------- */

void wb__secret_init(lua_State *L, int names); /* env and file */
/* Push a secret of these bytes; they are wiped when Lua frees it. */
void wb__secret_push(lua_State *L, struct wb_slice bytes);

/* Text of a configuration. It lives in Lua: anchored by who keeps it. */
struct wb__text {
    struct wb_slice s;
    bool secret;
    bool absent; /* only looked at, and not there: cannot be checked */
};
/* True for a string or a secret. */
bool wb__text_at(lua_State *L, int at, struct wb__text *out);

/* ---- JSON -------------------------------------------------------------- */

#define WB__JSON_DEPTH 100

/* INVALID without a word of the text. */
WB_MUST_USE enum wb_status wb__json_parse(
    struct wb_slice text, const char *what, json_t **out, struct wb_err *err);
/* The member at a.b.c, borrowed; NULL if there is none. */
json_t *wb__json_member(json_t *root, struct wb_slice path);
/* Append any value, compact, in order, numbers exact and no longer than they
 * need be. */
void wb__json_write(struct wb__buf *out, const json_t *value, size_t flags);

void wb__json_init(lua_State *L, int names); /* null and array */
/* Push the value of a text. False, and nothing pushed, if it is no JSON. near:
 * a number that does not fit makes numbers floats, and is no error. */
bool wb__json_push(lua_State *L, struct wb_slice text, const char *what,
    bool near, struct wb_err *err);
/* Append the Lua value at index `at` as JSON; a Lua error where it is none. */
void wb__json_encode(lua_State *L, int at, struct wb__buf *out);

/* ---- templates --------------------------------------------------------- */

/* What wb__url_spelling() of the transport wants, and no fragment and no "." or
 * ".." in the path. The error shows none of it. */
WB_MUST_USE enum wb_status wb__target_check(
    struct wb_slice url, struct wb_err *err);
/* Same for one with {field}s, which may stand in path and query. */
WB_MUST_USE enum wb_status wb__template_check(
    struct wb_slice text, struct wb_err *err);
bool wb__template_has_fields(struct wb_slice text);
/* Append the URL for a payload; INVALID names the field that does not fit. */
WB_MUST_USE enum wb_status wb__template_expand(struct wb_slice text,
    json_t *payload, struct wb__buf *out, struct wb_err *err);
/* a.b.c: names of letters, digits, _ and - */
bool wb__path_valid(struct wb_slice path);

/* ---- fields ------------------------------------------------------------ */

struct wb__value { /* a text, or a function */
    struct wb__text text;
    int function; /* in the registry; 0: none */
};
struct wb__list {
    struct wb__text *item;
    size_t n;
};
struct wb__header {
    struct wb_slice name;
    struct wb__text value;
};
struct wb__headers {
    struct wb__header *item; /* in order of name */
    size_t n;
};

enum {
    WB__ON_HTTP = 1,
    WB__ON_EXEC = 2,
    WB__ON_FILE = 4,
    WB__ON_ALL = 7
};
enum wb__transport_kind {
    WB__TRANSPORT_HTTP,
    WB__TRANSPORT_EXEC,
    WB__TRANSPORT_FILE
};

/* route "name" { … } */
struct wb__route_spec {
    struct wb__route_spec *next;
    const char *name;
    int line;
    bool given;                        /* its fields were read */
    int64_t transport, method, format; /* indexes of their words */
    struct wb__value url, body, response;
    struct wb__headers headers;
    struct wb__text secret, ca_file, path, scope;
    struct wb__list secrets, argv;
    int64_t timeout_ms, concurrency, rate, max_reply;
    int64_t base_ms, cap_ms, retry_after_ms, factor, attempts;
    bool immediate, retry_rejected;
    int64_t failures, open_ms, batch;
    bool public_only, follow, http1, disable_on_410;
};

/* outbox { … } and relay { … } */
struct wb__settings {
    struct wb_outbox_opts outbox;
    int64_t lease_ms;
    int outbox_line, relay_line; /* 0: not given */
};

enum wb__field_type {
    WB__TYPE_TEXT,     /* struct wb__text */
    WB__TYPE_SECRET,   /* struct wb__text, of env or file */
    WB__TYPE_VALUE,    /* struct wb__value: text or function */
    WB__TYPE_FUNCTION, /* struct wb__value */
    WB__TYPE_DURATION, /* int64_t, ms */
    WB__TYPE_SIZE,     /* int64_t, bytes */
    WB__TYPE_COUNT,    /* int64_t */
    WB__TYPE_BOOL,     /* bool */
    WB__TYPE_WORD,     /* int64_t: index into words */
    WB__TYPE_LIST,     /* struct wb__list */
    WB__TYPE_SECRETS,  /* struct wb__list, of env or file */
    WB__TYPE_HEADERS,  /* struct wb__headers */
    WB__TYPE_GROUP,    /* fields of their own, in the same struct */
};

struct wb__schema;
struct wb__field {
    const char *name;
    enum wb__field_type type;
    unsigned on; /* WB_ON_*: transports it is for */
    size_t offset;
    int64_t min, max;
    const char *const *words; /* ended by NULL */
    const struct wb__schema *group;
};
struct wb__schema {
    const struct wb__field *field;
    size_t n; /* at most WB__FIELDS_MAX */
};
#define WB__FIELDS_MAX 32
extern const struct wb__schema wb__route_schema, wb__outbox_schema,
    wb__relay_schema;

/* The table being read, for errors. */
struct wb__record {
    const char *keyword; /* "route" */
    const char *name;    /* "github.*"; NULL for outbox and relay */
    int line;
    const char *outer; /* group being read, or NULL */
};
/* Error in the line of a field: PATH:LINE: route "x": text */
WB_NORETURN void wb__record_fail(lua_State *L, const struct wb__record *record,
    enum wb_status status, const char *field, const char *fmt, ...)
    WB_PRINTF(5, 6);
/* Check the table at index `at` and put its fields into *out. */
void wb__schema_read(lua_State *L, int at, const struct wb__schema *schema,
    const struct wb__record *record, void *out);
/* `; did you mean "y"?` for an unknown name, or nothing. */
#define WB__SUGGEST_MAX 64
void wb__suggest(struct wb_slice word, const char *const *names, size_t n,
    char out[WB__SUGGEST_MAX]);

/* ---- hooks ------------------------------------------------------------- */

/* Fill route->build, judge, release and ctx as far as the route needs them.
 * The hooks live in the script's arena. */
WB_MUST_USE enum wb_status wb__hooks_attach(struct wb__script *s,
    const struct wb__route_spec *spec, struct wb_route *route,
    struct wb_err *err);
void wb__hooks_init(lua_State *L, int names); /* tally */

/* ---- routes ------------------------------------------------------------ */

/* What a set of fields must fulfil together; a Lua error where it does not. */
void wb__route_check(lua_State *L, int at, struct wb__route_spec *spec,
    const struct wb__record *record);
/* The route of checked fields, without its transport. */
WB_MUST_USE enum wb_status wb__route_make(struct wb__script *s,
    const struct wb__route_spec *spec, struct wb_route *route,
    struct wb_err *err);

/* ---- a configuration --------------------------------------------------- */

struct wb_config {
    struct wb__script script; /* first: the script leads here */
    struct wb__settings settings;
    struct wb__route_spec *first, *last;
    struct wb_route *routes;
    size_t n_routes;
    struct wb_http *http;
    void (*http_close)(struct wb_http *http);
    struct wb__buf text;
    int ready; /* function in the registry; 0: none */
};

/* wb_config_open() without its transports, which transports.c opens: a program
 * that only checks a configuration does not link libcurl. check_only: nothing
 * will be delivered, secrets may be absent. */
WB_MUST_USE enum wb_status wb__config_read(struct wb_config **out,
    const char *path, const struct wb_env *env, bool check_only,
    struct wb_err *err);

#endif /* WB_SRC_SCRIPT_H */
