/* headers.c - header lines "Name: value\n", as stored with a message, and the
 * reason phrases of HTTP statuses. */
#include "base/base.h"

static const char *
line_problem(struct wb_slice line)
{
    size_t name = 0;
    struct wb_slice value;

    while (name < line.len && wb__is_tchar((unsigned char)line.ptr[name]))
        name++;
    if (name == 0 || name + 1 >= line.len || line.ptr[name] != ':' ||
        line.ptr[name + 1] != ' ')
        return "is not \"Name: value\"";
    value = wb__from(line, name + 2);
    if (wb__trim(value).len != value.len)
        return "has white space at an end of its value";
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return "has a control character in its value";
    }
    return NULL;
}

enum wb_status
wb__headers_check(struct wb_slice lines, struct wb_err *err)
{
    struct wb_slice line;
    int n = 1;

    if (lines.len > 0 && lines.ptr[lines.len - 1] != '\n')
        return wb__fail(
            err, WB_INVALID, 0, "headers: the last line has no end of line");
    for (; wb__cut(&lines, '\n', &line); n++) {
        const char *problem = line_problem(line);

        if (problem != NULL)
            return wb__fail(err, WB_INVALID, 0, "header %d %s", n, problem);
    }
    return WB_OK;
}

/* Whether HTTP itself or Waybill writes this header. */
static bool
is_reserved(struct wb_slice name)
{
    static const char *const names[] = {"Host", "Content-Length",
        "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection",
        "Idempotency-Key", "Expect", "TE", "Trailer", "Upgrade",
        "HTTP2-Settings"};
    struct wb_slice head = {name.ptr, name.len < 8 ? name.len : 8};

    for (size_t i = 0; i < WB_COUNT(names); i++)
        if (wb__eq_nocase(name, wb_slice(names[i])))
            return true;
    return wb__eq_nocase(head, WB_LIT("webhook-")) ||
           wb__eq_nocase(head, WB_LIT("waybill-"));
}

enum wb_status
wb__request_headers_check(struct wb_slice lines, struct wb_err *err)
{
    struct wb_slice name, value;
    enum wb_status rc = wb__headers_check(lines, err);
    int n = 0;

    if (lines.len > WB__HEADERS_BYTES)
        return wb__fail(err, WB_INVALID, 0, "headers: more than %d bytes",
            WB__HEADERS_BYTES);
    while (rc == WB_OK && wb__headers_next(&lines, &name, &value)) {
        if (is_reserved(name))
            rc = wb__fail(err, WB_INVALID, 0,
                "header %.*s: written by Waybill, leave it out", WB_SHOW(name));
        else if (++n > WB__HEADERS_MAX)
            rc = wb__fail(err, WB_INVALID, 0, "headers: more than %d lines",
                WB__HEADERS_MAX);
    }
    return rc;
}

bool
wb__headers_next(
    struct wb_slice *rest, struct wb_slice *name, struct wb_slice *value)
{
    struct wb_slice line;

    if (!wb__cut(rest, '\n', &line) || !wb__cut(&line, ':', name))
        return false;
    *value = wb__trim(line);
    return true;
}

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool
wb__same_nocase(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (a[i] != b[i] && lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

const char *
wb__http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } known[] = {{200, "OK"}, {201, "Created"}, {202, "Accepted"},
        {204, "No Content"}, {206, "Partial Content"},
        {300, "Multiple Choices"}, {301, "Moved Permanently"}, {302, "Found"},
        {303, "See Other"}, {304, "Not Modified"}, {307, "Temporary Redirect"},
        {308, "Permanent Redirect"}, {400, "Bad Request"},
        {401, "Unauthorized"}, {402, "Payment Required"}, {403, "Forbidden"},
        {404, "Not Found"}, {405, "Method Not Allowed"},
        {406, "Not Acceptable"}, {408, "Request Timeout"}, {409, "Conflict"},
        {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"},
        {413, "Content Too Large"}, {414, "URI Too Long"},
        {415, "Unsupported Media Type"}, {417, "Expectation Failed"},
        {421, "Misdirected Request"}, {422, "Unprocessable Content"},
        {425, "Too Early"}, {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"}, {501, "Not Implemented"},
        {502, "Bad Gateway"}, {503, "Service Unavailable"},
        {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"}};

    for (size_t i = 0; i < WB_COUNT(known); i++)
        if (known[i].status == status)
            return known[i].reason;
    return "";
}
