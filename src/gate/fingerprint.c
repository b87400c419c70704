/* fingerprint.c - what a repeat must have in common with the first request.
 *
 *  1. Of every kind: the scope (method and path), Host without its port, and
 *     query. (G-4, M-3)
 *  2. A multipart body counts by its parts: clients choose another boundary for
 *     each try.
 *  3. JSON counts by its values, sorted by name. What is not JSON, or could be
 *     read in two ways, counts by its bytes. */
#include "gate/gate_internal.h"

#include <jansson.h>
#include <stdio.h>

enum {
    JSON_NUMBER_DIGITS = 15 /* more may not be exact */
};

static struct wb_slice
content_type(const struct wb__http_head *head)
{
    struct wb_slice type = {NULL, 0};

    (void)wb__rule_find_field(head->headers, WB_LIT("Content-Type"), &type);
    return type;
}

/* ---- multipart ---------------------------------------------------------- */

/* The boundary after CR LF and two dashes; and what of the type is beside it:
 * other parameters count (`start` names the first part to be read). False: it
 * has none, or could be read in two ways. */
static bool
read_boundary(
    struct wb_slice type, char out[80], size_t *len, struct wb__buf *beside)
{
    struct wb_slice value = type, name = {NULL, 0}, param;

    if (type.len < 10 ||
        !wb__eq_nocase((struct wb_slice){type.ptr, 10}, WB_LIT("multipart/")))
        return false;
    *len = 0;
    while (wb__cut(&value, ';', &param)) {
        type = param = wb__trim(param);
        if (!wb__cut(&type, '=', &name) ||
            !wb__eq_nocase(wb__trim(name), WB_LIT("boundary"))) {
            wb__buf_add(beside, param);
            wb__buf_str(beside, ";");
            continue;
        }
        type = wb__trim(type);
        if (type.len >= 2 && type.ptr[0] == '"' &&
            type.ptr[type.len - 1] == '"')
            type = (struct wb_slice){type.ptr + 1, type.len - 2};
        if (*len > 0 || type.len == 0 || type.len > 70)
            return false;
        memcpy(out, "\r\n--", 4);
        memcpy(out + 4, type.ptr, type.len);
        *len = 4 + type.len;
    }
    return *len > 0 && beside->failed == WB_OK;
}

static const char *
find(struct wb_slice in, struct wb_slice what)
{
    const char *at = in.ptr;

    for (; in.len >= what.len; in = wb__from(in, (size_t)(at - in.ptr) + 1)) {
        at = memchr(in.ptr, what.ptr[0], in.len - what.len + 1);
        if (at == NULL || memcmp(at, what.ptr, what.len) == 0)
            return at;
    }
    return NULL;
}

/* The body with every boundary left out and each part framed by its length.
 * False: it is not well-formed. */
static bool
write_parts(struct wb__buf *out, struct wb_slice body, struct wb_slice line)
{
    struct wb_slice dashes = wb__from(line, 2); /* the first has no CR LF */
    const char *end;

    if (!wb__starts(body, dashes))
        return false;
    body = wb__from(body, dashes.len);
    while (!wb__starts(body, WB_LIT("--"))) {
        if (!wb__starts(body, WB_LIT("\r\n")))
            return false;
        body = wb__from(body, 2);
        end = find(body, line);
        if (end == NULL)
            return false;
        wb__buf_u64(out, (uint64_t)(end - body.ptr));
        wb__buf_str(out, ":");
        wb__buf_add(out, (struct wb_slice){body.ptr, (size_t)(end - body.ptr)});
        body = wb__from(body, (size_t)(end - body.ptr) + line.len);
    }
    return wb__eq(wb__trim(wb__from(body, 2)), WB_LIT(""));
}

/* ---- JSON --------------------------------------------------------------- */

static bool
is_json(struct wb_slice type)
{
    struct wb_slice first = {NULL, 0};

    (void)wb__cut(&type, ';', &first);
    first = wb__trim(first);
    return wb__eq_nocase(first, WB_LIT("application/json")) ||
           (first.len > 5 &&
               wb__eq_nocase(wb__from(first, first.len - 5), WB_LIT("+json")));
}

/* Numbers that a double may change would make two requests equal: those of many
 * digits, and those with an exponent. */
static bool
has_inexact_number(struct wb_slice text)
{
    bool in_string = false;
    int digits = 0;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        if (digits > 0 && (c == 'e' || c == 'E'))
            return true;
        if (c >= '0' && c <= '9')
            digits++;
        else if (c != '.')
            digits = 0;
        if (digits > JSON_NUMBER_DIGITS)
            return true;
    }
    return false;
}

/* The body without white space, names sorted, some left out. */
static bool
write_json(struct wb__buf *out, struct wb_slice body, struct wb_slice without)
{
    const size_t flags = JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY;
    json_t *json =
        has_inexact_number(body)
            ? NULL
            : json_loadb(body.ptr == NULL ? "" : body.ptr, body.len,
                  JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL,
                  NULL);
    struct wb_slice name;
    char name_z[256];
    size_t len;
    char *room;

    if (json == NULL)
        return false;
    while (wb__cut(&without, ',', &name)) {
        name = wb__trim(name);
        (void)snprintf(name_z, sizeof(name_z), "%.*s", (int)name.len, name.ptr);
        (void)json_object_del(json, name_z);
    }
    len = json_dumpb(json, NULL, 0, flags);
    room = len == 0 ? NULL : wb__buf_room(out, len);
    if (room != NULL)
        (void)json_dumpb(json, room, len, flags);
    else if (len == 0)
        out->failed = WB_NOMEM;
    json_decref(json);
    return true;
}

/* ---- the fingerprint ---------------------------------------------------- */

/* Host in lower case, without its port: two gateways that share a store listen
 * on two ports. */
static void
host_name(struct wb_slice host, char out[256], size_t *len)
{
    struct wb_slice name = host, port;

    if (!wb__http_split_address(host, &name, &port))
        name = host;
    *len = name.len < 255 ? name.len : 255;
    for (size_t i = 0; i < *len; i++)
        out[i] = (char)(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z'
                            ? name.ptr[i] - 'A' + 'a'
                            : name.ptr[i]);
}

void
wb__rule_write_scope(
    struct wb__buf *out, const struct wb__http_head *head, bool with_host)
{
    char host[256];
    size_t len;

    wb__buf_add(out, head->method);
    wb__buf_str(out, " ");
    if (with_host) {
        host_name(head->host, host, &len);
        wb__buf_str(out, "//");
        wb__buf_add(out, (struct wb_slice){host, len});
    }
    wb__buf_add(out, head->path);
}

enum wb_status
wb__fingerprint_of(const struct wb__fingerprint_rule *rule,
    const struct wb_env *env, const struct wb__http_head *head,
    struct wb_slice scope, struct wb_slice body, struct wb_fingerprint *out)
{
    struct wb__buf text = {.env = env, .max = body.len * 8 + 4096};
    struct wb__buf beside = {.env = env, .max = 64 << 10};
    struct wb_slice type = content_type(head);
    struct wb_slice parts[5] = {scope, {NULL, 0}, head->query, type, body};
    char boundary[80], host[256];
    size_t len;
    enum wb_status rc;

    if (rule->kind == WB__FINGERPRINT_NONE) {
        parts[3] = parts[4] = (struct wb_slice){NULL, 0};
    } else if (rule->kind == WB__FINGERPRINT_JSON && is_json(type)) {
        if (write_json(&text, body, rule->without))
            parts[4] = wb__buf_slice(&text);
    } else if (read_boundary(type, boundary, &len, &beside) &&
               write_parts(&text, body, (struct wb_slice){boundary, len})) {
        parts[3] = wb__buf_slice(&beside);
        parts[4] = wb__buf_slice(&text);
    }
    host_name(head->host, host, &len);
    parts[1] = (struct wb_slice){host, len};
    rc = beside.failed != WB_OK ? beside.failed : text.failed;
    if (rc == WB_OK)
        rc = wb_idem_fingerprint(parts, WB_COUNT(parts), out);
    wb__buf_fini(&beside);
    wb__buf_fini(&text);
    return rc;
}

enum wb_status
wb__fingerprint_read(
    struct wb__fingerprint_rule *rule, struct wb_slice text, struct wb_err *err)
{
    *rule = (struct wb__fingerprint_rule){.kind = WB__FINGERPRINT_RAW};
    if (text.len == 0 || wb__eq(text, WB_LIT("raw")))
        return WB_OK;
    if (wb__eq(text, WB_LIT("none"))) {
        rule->kind = WB__FINGERPRINT_NONE;
        return WB_OK;
    }
    rule->kind = WB__FINGERPRINT_JSON;
    if (wb__starts(text, WB_LIT("json:without ")))
        rule->without = wb__from(text, 13);
    else if (!wb__eq(text, WB_LIT("json")))
        return wb__fail(err, WB_INVALID, 0,
            "\"%.*s\" is not a fingerprint; write raw, none, json or "
            "\"json:without name,name\"",
            WB_SHOW(text));
    return WB_OK;
}
