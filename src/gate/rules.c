/* rules.c - the key of a request, and which fields of requests and responses go
 * on. */
#include "gate/gate_internal.h"

/* ---- fields ------------------------------------------------------------ */

int
wb__rule_find_field(
    struct wb_slice headers, struct wb_slice wanted, struct wb_slice *value)
{
    struct wb_slice name, v;
    int n = 0;

    while (wb__headers_next(&headers, &name, &v))
        if (wb__eq_nocase(name, wanted) && n++ == 0)
            *value = v;
    return n;
}

/* Some servers read `_` as `-`, and so take this name for the other. */
static bool
is_look_alike(struct wb_slice name, struct wb_slice other)
{
    bool folded = false;

    if (name.len != other.len || memchr(name.ptr, '_', name.len) == NULL)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        struct wb_slice a = {name.ptr + i, 1}, b = {other.ptr + i, 1};

        if (name.ptr[i] == '_' && other.ptr[i] == '-')
            folded = true;
        else if (!wb__eq_nocase(a, b))
            return false;
    }
    return folded;
}

static bool
is_marker(struct wb_slice name)
{
    static const struct wb_slice markers[] = {{"Idempotent-Replayed", 19},
        {"Idempotent-Truncated", 20}, {"Idempotency-Skipped", 19}};

    for (size_t i = 0; i < WB_COUNT(markers); i++)
        if (wb__eq_nocase(name, markers[i]) || is_look_alike(name, markers[i]))
            return true;
    return false;
}

/* These headers for is_hop_by_hop(), or nothing if they have no Connection, as
 * most do: that saves a search per field. */
static struct wb_slice
if_has_connection(struct wb_slice headers)
{
    struct wb_slice value;

    if (wb__rule_find_field(headers, WB_LIT("Connection"), &value) == 0)
        headers.len = 0;
    return headers;
}

/* Connection names this field. It cannot remove fields that frame the message
 * or identify its client. */
static bool
is_connection_option(struct wb_slice headers, struct wb_slice wanted)
{
    static const struct wb_slice never[] = {{"Host", 4}, {"Content-Type", 12},
        {"Authorization", 13}, {"Idempotency-Key", 15}, {"Set-Cookie", 10}};
    struct wb_slice name, value, option;

    if (headers.len == 0 || wb__http_is_one_of(wanted, never, WB_COUNT(never)))
        return false;
    while (wb__headers_next(&headers, &name, &value)) {
        if (!wb__eq_nocase(name, WB_LIT("Connection")))
            continue;
        while (wb__cut(&value, ',', &option))
            if (wb__eq_nocase(wb__trim(option), wanted))
                return true;
    }
    return false;
}

static bool
is_hop_by_hop(struct wb_slice headers, struct wb_slice name)
{
    static const struct wb_slice hop[] = {{"Connection", 10},
        {"Keep-Alive", 10}, {"Proxy-Connection", 16}, {"TE", 2}, {"Trailer", 7},
        {"Transfer-Encoding", 17}, {"Upgrade", 7}, {"Content-Length", 14}};

    return wb__http_is_one_of(name, hop, WB_COUNT(hop)) ||
           is_connection_option(headers, name);
}

/* ---- key --------------------------------------------------------------- */

static bool
add_char(struct wb__name *key, char c)
{
    if (key->len == 255)
        return false;
    key->text[key->len++] = c;
    return true;
}

/* An RFC 8941 string, without its quotes and escapes. */
static bool
read_string(struct wb_slice s, struct wb__name *key)
{
    for (size_t i = 1; i < s.len; i++) {
        char c = s.ptr[i];

        if (c == '"')
            return i + 1 == s.len && key->len > 0;
        if (c == '\\') {
            c = ++i < s.len ? s.ptr[i] : '\0';
            if (c != '"' && c != '\\')
                return false;
        }
        if (c < 0x20 || c > 0x7e || !add_char(key, c))
            return false;
    }
    return false;
}

static bool
read_bare(struct wb_slice s, struct wb__name *key)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c < 0x21 || c > 0x7e || c == '"' || c == ',' || c == ';' ||
            c == '\\' || !add_char(key, c))
            return false;
    }
    return key->len > 0;
}

enum wb__found
wb__rule_read_key(
    struct wb_slice headers, struct wb_slice header, struct wb__name *key)
{
    struct wb_slice value = {NULL, 0};
    int n = wb__rule_find_field(headers, header, &value);

    key->len = 0;
    if (n == 0)
        return WB__FOUND_NONE;
    if (n == 1 &&
        (value.len > 0 && value.ptr[0] == '"' ? read_string(value, key)
                                              : read_bare(value, key)))
        return WB__FOUND_ONE;
    return WB__FOUND_BAD;
}

bool
wb__rule_identity_header_ok(struct wb_slice header)
{
    static const struct wb_slice refused[] = {
        {"Host", 4}, {"Expect", 6}, {"Idempotency-Key", 15}};
    const struct wb_slice none = {NULL, 0};

    for (size_t i = 0; i < header.len; i++)
        if (!wb__is_tchar((unsigned char)header.ptr[i]))
            return false;
    return !wb__http_is_one_of(header, refused, WB_COUNT(refused)) &&
           !is_hop_by_hop(none, header);
}

/* ---- responses --------------------------------------------------------- */

bool
wb__rule_is_event_stream(struct wb_slice headers)
{
    struct wb_slice type = {NULL, 0}, first = {NULL, 0};

    (void)wb__rule_find_field(headers, WB_LIT("Content-Type"), &type);
    return wb__cut(&type, ';', &first) &&
           wb__eq_nocase(wb__trim(first), WB_LIT("text/event-stream"));
}

void
wb__rule_copy_fields(
    struct wb__buf *out, struct wb_slice headers, enum wb__field_use use)
{
    static const struct wb_slice not_stored[] = {
        {"Set-Cookie", 10}, {"Date", 4}};
    const struct wb_slice connection = if_has_connection(headers);
    struct wb_slice rest = headers, name, value;

    wb__buf_reserve(out, headers.len + 40);
    while (wb__headers_next(&rest, &name, &value))
        if (!is_hop_by_hop(connection, name) && !is_marker(name) &&
            !(use == WB__REPLAY &&
                wb__http_is_one_of(name, not_stored, WB_COUNT(not_stored))))
            wb__http_add_field(out, name, value, "\n");
}

/* ---- requests ---------------------------------------------------------- */

static bool
is_forwarded(const struct wb__rule_request *r, struct wb_slice connection,
    struct wb_slice name)
{
    static const struct wb_slice ours[] = {{"Host", 4}, {"Expect", 6}};

    return !wb__http_is_one_of(name, ours, WB_COUNT(ours)) &&
           !is_marker(name) && !is_look_alike(name, r->key_header) &&
           !is_look_alike(name, r->identity_header) &&
           (wb__eq_nocase(name, r->identity_header) ||
               wb__eq_nocase(name, r->key_header) ||
               !is_hop_by_hop(connection, name));
}

void
wb__rule_write_request(struct wb__buf *out, const struct wb__rule_request *r)
{
    const struct wb__http_head *head = r->head;
    const struct wb_slice connection = if_has_connection(head->headers);
    struct wb_slice rest = head->headers, name, value;

    wb__buf_reserve(out, head->headers.len + head->target.len + 200);
    wb__buf_add(out, head->method);
    wb__buf_str(out, " ");
    if (head->target.ptr[0] == '/') {
        wb__buf_add(out, head->target);
    } else {
        wb__buf_add(out, head->path);
        wb__buf_str(out, head->query.len > 0 ? "?" : "");
        wb__buf_add(out, head->query);
    }
    wb__buf_str(out, " HTTP/1.1\r\n");
    wb__http_add_field(out, WB_LIT("Host"),
        head->host.len > 0 ? head->host : r->authority, "\r\n");
    while (wb__headers_next(&rest, &name, &value))
        if (is_forwarded(r, connection, name))
            wb__http_add_field(out, name,
                r->keyed && wb__eq_nocase(name, WB_LIT("Accept-Encoding"))
                    ? WB_LIT("identity")
                    : value,
                "\r\n");
    if (r->has_body && r->length == WB__LENGTH_UNKNOWN) {
        wb__buf_str(out, "Transfer-Encoding: chunked\r\n");
    } else if (r->has_body) {
        wb__buf_str(out, "Content-Length: ");
        wb__buf_u64(out, r->length);
        wb__buf_str(out, "\r\n");
    }
    wb__buf_str(out, "\r\n");
}
