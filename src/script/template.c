/* template.c - URLs, and URLs with fields from the payload.
 *
 * (1) A field changes neither scheme, host nor the number of path segments or
 *     parameters: it is in path or query, and all of its bytes but
 *     A-Z a-z 0-9 - . _ ~ are percent-encoded.
 * (2) A field that is absent, null, empty in the path, an object or an array
 *     is an error that names it.
 * (3) Errors show nothing of the URL: parts of it may be secret. */
#include <jansson.h>

#include "script/script.h"
#include "transport/http.h"

static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz"
                                 "0123456789-._~";

static bool
is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* Bytes before the first of these, or all. */
static size_t
span_before(struct wb_slice s, const char *set)
{
    size_t n = 0;

    while (n < s.len && !is_one_of(s.ptr[n], set))
        n++;
    return n;
}

/* ---- a whole URL ------------------------------------------------------- */

/* From the host on: past "http://" or "https://"; empty if there is neither. */
static struct wb_slice
after_scheme(struct wb_slice url)
{
    size_t n = span_before(url, "/");

    return wb__from(url, n + 2 <= url.len ? n + 2 : url.len);
}

/* What the transport accepts, but curl or a server would change. */
static const char *
find_problem(struct wb_slice url)
{
    struct wb_slice segment;

    if (span_before(url, "#") != url.len)
        return "has a fragment, which is never sent; leave it out";
    if (span_before(url, "\"<>^`{|}") != url.len)
        return "has a character that must be percent-encoded";
    url = after_scheme(url);
    url.len = span_before(url, "?");
    while (wb__cut(&url, '/', &segment))
        if (wb__eq(segment, WB_LIT(".")) || wb__eq(segment, WB_LIT("..")))
            return "has \".\" or \"..\" as part of its path";
    return NULL;
}

enum wb_status
wb__target_check(struct wb_slice url, struct wb_err *err)
{
    enum wb_status rc = wb__url_check_syntax(url, err);
    const char *problem = rc == WB_OK ? find_problem(url) : NULL;

    if (problem == NULL)
        return rc;
    return wb__fail(err, WB_INVALID, 0, "the url %s", problem);
}

/* ---- fields ------------------------------------------------------------ */

bool
wb__path_valid(struct wb_slice path)
{
    for (size_t i = 0; i < path.len; i++)
        if (path.ptr[i] == '~' || !is_one_of(path.ptr[i], unreserved) ||
            (path.ptr[i] == '.' && (i == 0 || path.ptr[i - 1] == '.')))
            return false;
    return path.len > 0 && path.ptr[path.len - 1] != '.';
}

bool
wb__template_has_fields(struct wb_slice text)
{
    return text.len > 0 && memchr(text.ptr, '{', text.len) != NULL;
}

/* What a template becomes. */
struct expansion {
    const char *what;               /* "url" or "scope" */
    const struct wb_slice *payload; /* NULL: the template is only checked */
    struct wb__buf *out;
};

/* Append an x, which any value may replace. */
static enum wb_status
check_field(const struct expansion *x, struct wb_slice field, bool in_path,
    struct wb_err *err)
{
    struct wb_slice before = after_scheme(wb__buf_slice(x->out));

    if (!wb__path_valid(field))
        return wb__fail(err, WB_INVALID, 0,
            "the %s has {%.*s}, which names no field; names are of letters, "
            "digits, _ and -, joined by a point",
            x->what, WB_SHOW(field));
    if (strcmp(x->what, "url") == 0 &&
        (before.len == 0 ||
            (in_path && span_before(before, "/") == before.len)))
        return wb__fail(err, WB_INVALID, 0,
            "the url has {%.*s} before its path; scheme and host cannot come "
            "from a payload",
            WB_SHOW(field));
    wb__buf_add(x->out, WB_LIT("x"));
    return WB_OK;
}

static void
encode(struct wb__buf *out, struct wb_slice s)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        char coded[3] = {'%', hex[c >> 4], hex[c & 15]};

        if (is_one_of((char)c, unreserved))
            wb__buf_add(out, (struct wb_slice){s.ptr + i, 1});
        else
            wb__buf_add(out, (struct wb_slice){coded, 3});
    }
}

/* Append a value as a URL shows it: text without its quotes and escapes, all
 * else as it was written. */
static const char *
add_value(struct wb_slice value, bool in_path, struct wb__buf *out)
{
    json_error_t at;
    json_t *text;

    if (wb__eq(value, WB_LIT("null")))
        return "is null";
    if (value.ptr[0] == '{' || value.ptr[0] == '[')
        return "is neither text nor number";
    if (value.ptr[0] != '"') {
        encode(out, value);
        return NULL;
    }
    if (in_path && value.len == 2)
        return "is empty";
    text =
        json_loadb(value.ptr, value.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
    if (text == NULL && json_error_code(&at) == json_error_out_of_memory)
        out->failed = WB_NOMEM;
    else if (text == NULL)
        return "has half of a surrogate pair, which is no character";
    encode(out,
        (struct wb_slice){json_string_value(text), json_string_length(text)});
    json_decref(text);
    return NULL;
}

static enum wb_status
expand_field(const struct expansion *x, struct wb_slice field, bool in_path,
    struct wb_err *err)
{
    struct wb_slice value;
    const char *problem = "is not in the payload";

    if (wb__json_at(*x->payload, field, &value))
        problem = add_value(value, in_path, x->out);
    if (problem == NULL)
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0, "%s: field %.*s %s", x->what,
        WB_SHOW(field), problem);
}

/* Append the text with its fields expanded, or checked. */
static enum wb_status
expand(const struct expansion *x, struct wb_slice text, struct wb_err *err)
{
    bool in_path = true;

    while (text.len > 0) {
        struct wb_slice piece = {text.ptr, span_before(text, "{}")};
        enum wb_status rc;

        wb__buf_add(x->out, piece);
        in_path = in_path && span_before(piece, "?") == piece.len;
        text = wb__from(text, piece.len);
        if (text.len == 0)
            break;
        piece = wb__from(text, 1);
        piece.len = span_before(piece, "{}");
        if (text.ptr[0] == '}' || piece.len + 1 == text.len ||
            piece.ptr[piece.len] == '{')
            return wb__fail(err, WB_INVALID, 0,
                "the %s has a %c without its pair; a field is written {name}",
                x->what, text.ptr[0]);
        rc = x->payload == NULL ? check_field(x, piece, in_path, err)
                                : expand_field(x, piece, in_path, err);
        if (rc != WB_OK)
            return rc;
        text = wb__from(text, piece.len + 2);
    }
    return WB_OK;
}

enum wb_status
wb__template_check(struct wb_slice text, struct wb_err *err)
{
    char url[WB__URL_MAX + 1];
    /* Never grows: no more is written than was read. */
    struct wb__buf out = {.max = WB__URL_MAX, .ptr = url, .cap = sizeof(url)};
    enum wb_status rc;

    if (text.len > WB__URL_MAX)
        return wb__target_check(text, err);
    rc = expand(&(struct expansion){"url", NULL, &out}, text, err);
    return rc == WB_OK ? wb__target_check(wb__buf_slice(&out), err) : rc;
}

enum wb_status
wb__template_expand(struct wb_slice text, struct wb_slice payload,
    struct wb__buf *out, struct wb_err *err)
{
    enum wb_status rc =
        expand(&(struct expansion){"url", &payload, out}, text, err);

    if (rc != WB_OK)
        return rc;
    if (out->failed == WB_NOMEM)
        return wb__nomem(err, "url");
    if (out->failed != WB_OK)
        return wb__fail(
            err, WB_INVALID, 0, "the url is longer than %d bytes", WB__URL_MAX);
    return wb__target_check(wb__buf_slice(out), err);
}

/* ---- scopes ------------------------------------------------------------ */

enum wb_status
wb__scope_check(struct wb_slice text, struct wb_err *err)
{
    char scope[WB__SCOPE_MAX];
    struct wb__buf out = {
        .max = sizeof(scope) - 1, .ptr = scope, .cap = sizeof(scope)};

    return expand(&(struct expansion){"scope", NULL, &out}, text, err);
}

enum wb_status
wb__scope_expand(struct wb_slice text, struct wb_slice payload,
    struct wb__buf *out, struct wb_err *err)
{
    return expand(&(struct expansion){"scope", &payload, out}, text, err);
}

void
wb__url_origin(struct wb_slice url, struct wb__buf *out)
{
    struct wb_slice host = after_scheme(url), port;
    size_t scheme = url.len - host.len;
    bool tls = scheme == sizeof("https://") - 1;

    host.len = span_before(host, "/?#");
    port = tls ? WB_LIT(":443") : WB_LIT(":80");
    if (host.len > port.len &&
        wb__eq(wb__from(host, host.len - port.len), port))
        host.len -= port.len;
    wb__buf_str(out, tls ? "https://" : "http://");
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i] >= 'A' && host.ptr[i] <= 'Z'
                     ? (char)(host.ptr[i] + ('a' - 'A'))
                     : host.ptr[i];

        wb__buf_add(out, (struct wb_slice){&c, 1});
    }
}
